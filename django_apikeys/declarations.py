"""What a view says of itself: the scopes it needs, and what a request costs."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django_apikeys.conf import conf
from django_apikeys.keys.scopes import is_scope

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from django.http import HttpRequest

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
MOST_UNITS = 10**9


@dataclass(frozen=True, slots=True)
class Declaration:
    """What is said of a view from outside, where it has no attributes to say it by.

    required_scopes: a list, or a dict by method. cost: units of the quota.
    """

    required_scopes: Collection[str] | Mapping[str, Collection[str]]
    cost: int

    def needed_by(self, request: HttpRequest) -> Collection[str] | None:
        """Return the scopes that *request* needs; None: it refuses keys."""
        method = request.method or ""
        if method == "OPTIONS":
            # A function may do the same by it as by any other: no metadata, as with DRF.
            scopes = self.required_scopes
            return _listed(scopes.get(method) if isinstance(scopes, dict) else scopes)
        return declared_scopes(self, method)


def declare(what: str, scopes: Any, cost: int) -> Declaration:
    """Return what was said to *what*, which the errors name.

    Raises TypeError where no scopes are named; ValueError where they are none, or the
    cost is none.
    """
    if scopes is None:
        raise TypeError(
            f'{what} is told what a key needs: {what}(scopes=["orders:read"]), or scopes=[] where '
            "any key will do."
        )
    declaration = Declaration(scopes, cost)
    asked = list(asked_scopes(declaration, ()))
    if not all(map(is_scope, asked)):
        raise ValueError(f"{what} takes scopes of the form resource:action, not {asked}.")
    if not is_cost(cost):
        raise ValueError(f"The cost of {what} is a number of units, from 0 to {MOST_UNITS}.")
    # What is changed later of the caller's own list opens nothing.
    return Declaration(deepcopy(scopes), cost)


def declared_scopes(view: Any, method: str) -> Collection[str] | None:
    """Return the scopes that *view* asks for by *method*; None: it refuses keys.

    Read from ``required_scopes``, ``scope_resource`` and the entries of
    ``permission_classes`` that are a ``HasScope("a:b")`` of their own.
    """
    parts = list(_declarations(view, method))
    if not parts:
        return () if conf.UNDECLARED_VIEWS == "allow" else None
    if None in parts:
        return None
    if method == "OPTIONS":
        return ()
    return frozenset(scope for part in parts if part is not None for scope in part)


def asked_scopes(view: Any, methods: Iterable[str]) -> Iterable[Any]:
    """Return every scope that *view* asks for by one of *methods*; for the system check."""
    required = getattr(view, "required_scopes", None)
    resource = getattr(view, "scope_resource", None)
    if isinstance(required, dict):
        for scopes in required.values():
            yield from () if scopes is None else _listed_or_itself(scopes)
    elif required is not None:
        yield from _listed_or_itself(required)
    elif resource is not None:
        yield from {_of_resource(resource, method) for method in methods if method != "OPTIONS"}
    for scopes in _of_permissions(view):
        yield from scopes


def _listed_or_itself(required: Any) -> Collection[Any]:
    # What is no list is reported as it stands: it is no scope.
    listed = _listed(required)
    return (required,) if listed is None else listed


def _declarations(view: Any, method: str) -> Iterable[Collection[str] | None]:
    required = getattr(view, "required_scopes", None)
    resource = getattr(view, "scope_resource", None)
    if isinstance(required, dict):
        yield _by_action(required, getattr(view, "action", None), method)
    elif required is not None:
        yield _listed(required)
    elif resource is not None:
        yield (_of_resource(resource, method),)
    yield from _of_permissions(view)


def _by_action(
    required: dict[str, Collection[str]], action: str | None, method: str
) -> Collection[str] | None:
    if method == "OPTIONS":
        return ()
    methods = ("HEAD", "GET") if method == "HEAD" else (method,)
    names = (action, *methods, *(name.lower() for name in methods))
    found = next((required[name] for name in names if name is not None and name in required), None)
    return _listed(found)


def _of_resource(resource: str, method: str) -> str:
    return f"{resource}:{'read' if method in SAFE_METHODS else 'write'}"


def _of_permissions(view: Any) -> Iterable[Collection[str]]:
    for permission in getattr(view, "permission_classes", ()):
        declared = getattr(permission, "declared_scopes", None)
        if declared:
            yield declared


def _listed(required: Any) -> Collection[str] | None:
    if isinstance(required, str):
        return (required,)
    # Not any iterable: one that is used up by the first request would open the view.
    return tuple(required) if isinstance(required, (list, tuple, set, frozenset)) else None


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
