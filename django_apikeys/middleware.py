"""On the way out: a verified request is counted, and told of the end of its secret."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from django_apikeys.answers import followed
from django_apikeys.headers import patch_end
from django_apikeys.recording import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

# As servers log a client that went away.
_WENT_AWAY = 499
_FAILED = 500


class APIKeyMiddleware:
    """Counts each request of a verified key by how it was answered.

    The answer says when the secret that was sent ends, whatever view it comes from.

    Sync and async. It stands at the top of MIDDLEWARE, so that it sees the answer that
    the client gets.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._acall(request)
        try:
            response = self.get_response(request)
        except BaseException:
            # No error of a view, which Django answers: a worker that is told to end.
            record(request, _FAILED)
            raise
        return _noted(request, response)

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        try:
            response: HttpResponseBase = await self.get_response(request)  # type: ignore[misc]  # it is async
        except BaseException as error:
            record(request, _WENT_AWAY if isinstance(error, CancelledError) else _FAILED)
            raise
        return _noted(request, response)


def _noted(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if answer := followed(request):
        # A plain view that raised, and any view of Ninja, has set no headers yet.
        answer.patch_other(response)
    # Views of REST framework have set the same already.
    patch_end(response, request)
    record(request, response.status_code)
    return response
