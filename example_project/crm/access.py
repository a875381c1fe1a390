"""Whose rows a request may see: those of its key's organisation, or of its person's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django_apikeys.keys.grants import Grant
from example_project.crm.models import Organisation

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.request import Request


def organisations_of(request: Request) -> QuerySet[Organisation]:
    """Return the organisations that the caller of *request* acts for, not yet evaluated."""
    if isinstance(request.auth, Grant):
        return Organisation.objects.filter(pk=request.auth.owner_id)
    return Organisation.objects.filter(memberships__user=request.user.pk)
