"""The same door for Django Ninja: an auth class, its throttle, and our answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SynchronousOnlyOperation
from django.utils import timezone
from ninja.errors import AuthenticationError, HttpError, Throttled
from ninja.security.base import AuthBase
from ninja.throttling import BaseThrottle

from django_apikeys import limits
from django_apikeys.admission import admit, roll_back
from django_apikeys.answers import followed, refusal_response
from django_apikeys.caching import never_store
from django_apikeys.declarations import declare
from django_apikeys.exceptions import NotAuthenticated, Refused
from django_apikeys.keys.grants import Grant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from django.http import HttpRequest, HttpResponse
    from ninja import NinjaAPI


class APIKeyAuth(AuthBase):
    """Lets keys with these scopes in, and counts their limits; others are left to the next.

    scopes: all of them; ``[]`` for any key; or a dict by HTTP method, where one that is
    not listed refuses keys. cost: units of the quota; None leaves the limits to
    APIKeyThrottle.
    """

    openapi_type = "http"
    openapi_scheme = "bearer"

    def __init__(
        self,
        *,
        scopes: Collection[str] | Mapping[str, Collection[str]] | None = None,
        cost: int | None = 1,
    ) -> None:
        self._declaration = declare("APIKeyAuth", scopes, 1 if cost is None else cost)
        self._units = cost
        super().__init__()

    def __call__(self, request: HttpRequest) -> Grant | None:
        # Of an async operation Ninja calls it in a thread, that of the database.
        needed = self._declaration.needed_by(request)
        # Whoever is let in: Ninja's answers get their Vary behind a cache, which would hand
        # that of a session to a key that is refused.
        never_store(request)
        with suppress(NotAuthenticated):
            return admit(request, needed, units=self._units)
        return None


class APIKeyThrottle(BaseThrottle):
    """Counts the limits of a key where ``APIKeyAuth(cost=None)`` has left them to it.

    It may stand behind other throttles. For sync operations: those of async ones Ninja
    asks in the event loop, where nothing may block. cost: units of the quota.
    """

    def __init__(self, *, cost: int = 1) -> None:
        self._cost = declare("APIKeyThrottle", [], cost).cost

    def allow_request(self, request: HttpRequest) -> bool:
        grant, answer = getattr(request, "auth", None), followed(request)
        if answer is None or not isinstance(grant, Grant) or limits.is_counted(request):
            return True
        if _is_in_event_loop():
            raise SynchronousOnlyOperation(
                "APIKeyThrottle cannot count in an async operation: let APIKeyAuth do it, by "
                "its cost."
            )
        try:
            limits.spend(request, grant, self._cost, timezone.now())
        except Refused as refused:
            # Ninja answers what this returns, not what it raises.
            answer.refused = refused
            roll_back()
            return False
        return True

    def wait(self) -> None:
        """Return nothing: the answer itself says how long."""


def answer_refusals(api: NinjaAPI) -> None:
    """Let *api* answer refusals as views of REST framework do.

    Called once for each API, before it is given handlers of its own.
    """

    def answer(request: HttpRequest, refused: Any) -> HttpResponse:
        return refusal_response(refused)

    def answer_nobody(request: HttpRequest, error: Any) -> HttpResponse:
        if followed(request):
            roll_back()
            return refusal_response(NotAuthenticated())
        return api.on_exception(request, HttpError(error.status_code, str(error)))

    def answer_throttled(request: HttpRequest, error: Any) -> HttpResponse:
        if (stopped := followed(request)) and stopped.refused:
            return refusal_response(stopped.refused)
        return api.on_exception(request, HttpError(error.status_code, str(error)))

    api.add_exception_handler(Refused, answer)
    api.add_exception_handler(AuthenticationError, answer_nobody)
    api.add_exception_handler(Throttled, answer_throttled)


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
