"""The example project for ``pages``: its answers say how often they asked the database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import connection

from example_project.crm.models import Organisation
from example_project.crm.policy import OrganisationPolicy

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from django_apikeys.policy import Action

SEES_ALL = "auditor"


class SomeSeeAll(OrganisationPolicy):
    """As in the example; one person sees the keys of every organisation."""

    def owners(self, person: Any, action: Action) -> QuerySet[Organisation]:
        if person.get_username() == SEES_ALL:
            return Organisation.objects.all()
        return super().owners(person, action)


def counts_statements(get_response):
    """Say in the answer how many statements it took."""

    def answer(request):
        number = 0

        def counted(execute, *arguments):
            nonlocal number
            number += 1
            return execute(*arguments)

        with connection.execute_wrapper(counted):
            response = get_response(request)
        response["X-Statements"] = str(number)
        return response

    return answer
