"""The same door for plain Django views, sync and async."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http.response import HttpResponseBase

from django_apikeys.admission import aadmit, admit, roll_back
from django_apikeys.answers import followed, refusal_response
from django_apikeys.declarations import declare
from django_apikeys.exceptions import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.http import HttpRequest

    from django_apikeys.declarations import Declaration

View = TypeVar("View", bound="Callable[..., Any]")


def api_key_required(
    *bare: object,
    scopes: Collection[str] | Mapping[str, Collection[str]] | None = None,
    cost: int = 1,
) -> Callable[[View], View]:
    """Return a decorator that lets a view be called with a key, and by no other means.

    scopes: what the key needs, all of them; ``[]`` for any key; or a dict by HTTP method,
    where one that is not listed refuses keys. cost: units of the quota.
    The view has the Grant as ``request.auth``, and who it acts for as ``request.user``.
    For class-based views ``method_decorator`` puts it on ``dispatch``.
    """
    declaration = declare("@api_key_required", None if bare else scopes, cost)

    def decorator(view: Any) -> Any:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                admit(request, declaration.needed_by(request), units=declaration.cost)
            except Refused as refused:
                roll_back()
                return _headed(request, refusal_response(refused), is_error=True)
            return _headed(request, view(request, *args, **kwargs))

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                await aadmit(request, declaration.needed_by(request), units=declaration.cost)
            except Refused as refused:
                return _headed(request, refusal_response(refused), is_error=True)
            return _headed(request, await view(request, *args, **kwargs))

        return _marked(aguarded if _is_async(view) else guarded, declaration)

    return decorator


def _is_async(view: Any) -> bool:
    if iscoroutinefunction(view):
        return True
    # ``dispatch`` of an async class is a plain function that returns a coroutine. As
    # method_decorator hands it over it is a partial, which other decorators may be around.
    while not isinstance(view, partial) and hasattr(view, "__wrapped__"):
        view = view.__wrapped__
    holder = getattr(getattr(view, "func", None), "__self__", None)
    return bool(getattr(holder, "view_is_async", False))


def _marked(guarded: Any, declaration: Declaration) -> Any:
    # No session is asked: there is nothing to forge, and nobody to log in.
    guarded.csrf_exempt = True
    guarded.login_required = False
    guarded.apikeys_declaration = declaration  # for the system check
    return guarded


def _headed(request: HttpRequest, response: Any, *, is_error: bool = False) -> Any:
    answer = followed(request)
    # What is no answer is for Django to tell of.
    if answer and isinstance(response, HttpResponseBase):
        answer.patch(response, is_error=is_error)
    return response
