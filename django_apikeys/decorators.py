"""The same door for plain Django views, sync and async."""

from __future__ import annotations

from functools import partial, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.http.response import HttpResponseBase

from django_apikeys.admission import aadmit, admit
from django_apikeys.answers import followed, refusal_response
from django_apikeys.declarations import MOST_UNITS, asked_scopes, declared_scopes, is_cost
from django_apikeys.exceptions import Refused
from django_apikeys.keys.scopes import is_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.http import HttpRequest

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
    if bare or scopes is None:
        raise TypeError(
            'api_key_required is told what a key needs: @api_key_required(scopes=["orders:read"]),'
            " or scopes=[] where any key will do."
        )
    declaration = SimpleNamespace(required_scopes=scopes)
    asked = list(asked_scopes(declaration, ()))
    if not all(map(is_scope, asked)):
        raise ValueError(
            f"api_key_required takes scopes of the form resource:action, not {asked}."
        )
    if not is_cost(cost):
        raise ValueError(f"cost of api_key_required is a number of units, from 0 to {MOST_UNITS}.")

    def decorator(view: Any) -> Any:
        def needed(request: HttpRequest) -> Collection[str] | None:
            return declared_scopes(declaration, request.method or "")

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                admit(request, needed(request), units=cost)
            except Refused as refused:
                return _headed(request, refusal_response(refused))
            return _headed(request, view(request, *args, **kwargs))

        @wraps(view)
        async def aguarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                await aadmit(request, needed(request), units=cost)
            except Refused as refused:
                return _headed(request, refusal_response(refused))
            return _headed(request, await view(request, *args, **kwargs))

        return _marked(aguarded if _is_async(view) else guarded)

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


def _marked(guarded: Any) -> Any:
    # No session is asked: there is nothing to forge, and nobody to log in.
    guarded.csrf_exempt = True
    guarded.login_required = False
    return guarded


def _headed(request: HttpRequest, response: Any) -> Any:
    answer = followed(request)
    # What is no answer is for Django to tell of.
    if answer and isinstance(response, HttpResponseBase):
        answer.patch(response, is_error=False)
    return response
