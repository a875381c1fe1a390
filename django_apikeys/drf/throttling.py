"""The throttle: how often a key and its owner may call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils import timezone
from rest_framework.throttling import BaseThrottle

from django_apikeys import limits
from django_apikeys.drf.exceptions import as_api_exception
from django_apikeys.exceptions import Refused
from django_apikeys.keys.grants import Grant

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rest_framework.request import Request
    from rest_framework.views import APIView

MOST_UNITS = 10**9


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


def cost_of(view: Any) -> int:
    """Return how many units of the quota a request of *view* uses; 1 where it says nothing.

    Raises ValueError where ``api_cost`` is no number of units, from 0 to 10**9.
    """
    # Not getattr() with a default: of a property that fails it would make 1.
    if not hasattr(type(view), "api_cost") and "api_cost" not in vars(view):
        return 1
    cost = view.api_cost
    if not is_cost(cost):
        # Not let through to the cache, which takes one that is too large for an error.
        raise ValueError(
            f"api_cost of {type(view).__name__} is a number of units, from 0 to {MOST_UNITS}."
        )
    return int(cost)


def is_cost(value: object) -> bool:
    """Tell whether *value* is a number of units that a request may use."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_UNITS
