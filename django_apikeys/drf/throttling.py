"""The throttle: how often a key and its owner may call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.utils import timezone
from rest_framework.throttling import BaseThrottle

from django_apikeys import limits
from django_apikeys.declarations import cost_of
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.exceptions import Refused
from django_apikeys.keys.grants import Grant

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rest_framework.request import Request
    from rest_framework.views import APIView


class APIKeyThrottle(BaseThrottle):
    """Counts requests with a key against its rate, its owner's plan and quota.

    It stands once in ``DEFAULT_THROTTLE_CLASSES``. Other callers are not its own. A view
    with ``api_cost = 5`` uses five units of the quota; rates count requests.
    """

    # As SimpleRateThrottle has one.
    timer: Callable[[], datetime] = staticmethod(timezone.now)

    def allow_request(self, request: Request, view: APIView) -> bool:
        if isinstance(request.auth, Grant):
            try:
                limits.spend(request._request, request.auth, cost_of(view), self.timer())
            except Refused as refused:
                # Raised here: what this would return has no code, and no body of its own.
                raise as_api_exception(refused) from refused
        return True
