"""A project of one view, which is limited; its settings are in ``limited_settings``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from rest_framework.request import Request
    from rest_framework.response import Response

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.limited_settings"
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - needs the settings
from django.urls import path  # noqa: E402 - the same
from rest_framework.decorators import api_view  # noqa: E402 - the same
from rest_framework.response import Response as Answer  # noqa: E402 - the same

from django_apikeys.policy import UserPolicy  # noqa: E402 - the same


class OnePlan(UserPolicy):
    """Everybody is on it."""

    def plan(self, owner: object) -> str:
        return "only"


@api_view(["GET"])
def limited(request: Request) -> Response:
    """Answer nothing."""
    return Answer({})


limited.cls.required_scopes = []
urlpatterns = [path("limited/", limited)]
application = get_wsgi_application()
