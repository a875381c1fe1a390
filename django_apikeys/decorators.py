"""The same door for plain Django views, sync and async."""

from __future__ import annotations

from functools import wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from django.http.response import HttpResponseBase

from django_apikeys.admission import admit
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

    def turned_away(request: HttpRequest) -> HttpResponseBase | None:
        try:
            admit(request, declared_scopes(declaration, request.method or ""), units=cost)
        except Refused as refused:
            return refusal_response(refused)
        return None

    def decorator(view: Any) -> Any:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refusal = turned_away(request)
            response = view(request, *args, **kwargs) if refusal is None else refusal
            return _headed(request, response)

        return _marked(guarded)

    return decorator


def _marked(guarded: Any) -> Any:
    # No session is asked: there is nothing to forge, and nobody to log in.
    guarded.csrf_exempt = True
    guarded.login_required = False
    return guarded


def _headed(request: HttpRequest, response: Any) -> Any:
    answer = followed(request)
    # What is no answer is for Django to tell of.
    if answer is not None and isinstance(response, HttpResponseBase):
        answer.patch(response, is_error=False)
    return response
