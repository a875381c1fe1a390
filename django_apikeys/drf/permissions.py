"""Permissions that ask the Grant; they compose with ``|``, ``&`` and ``~``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy as _
from rest_framework.permissions import BasePermission, OperationHolderMixin

from django_apikeys.declarations import declared_scopes
from django_apikeys.keys.grants import Grant
from django_apikeys.keys.scopes import is_scope

if TYPE_CHECKING:
    from collections.abc import Collection

    from rest_framework.request import Request
    from rest_framework.views import APIView


class HasAPIKey(BasePermission):
    """A key, and nothing else. It declares no scopes: the view says what it needs."""

    message = _("An API key is needed here.")

    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Grant)

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        return self.has_permission(request, view)


class HasScope(OperationHolderMixin, BasePermission):
    """A key with the scopes that the view declares, or any other authenticated caller.

    ``HasScope("jobs:read")``, as an entry of its own in ``permission_classes``,
    declares the scope as well; inside a composition it only asks for it.
    """

    # A dict, so that the body has its code under DRF's own handler too.
    message = {"detail": _("This API key lacks a scope."), "code": "insufficient_scope"}

    def __init__(self, *scopes: str) -> None:
        if not all(map(is_scope, scopes)):
            raise ValueError(f"HasScope takes scopes of the form resource:action, not {scopes}.")
        self.declared_scopes = scopes

    def __call__(self) -> HasScope:
        # DRF calls each entry of permission_classes; this one is an instance already.
        return self

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not isinstance(request.auth, Grant):
            return bool(getattr(request.user, "is_authenticated", False))
        required = self._required(request, view)
        return required is not None and request.auth.has_scope(*required)

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        return self.has_permission(request, view)

    def _required(self, request: Request, view: APIView) -> Collection[str] | None:
        # An entry of its own is a part of what the view declares: for OPTIONS, nothing.
        is_entry = any(self is entry for entry in getattr(view, "permission_classes", ()))
        if self.declared_scopes and not is_entry:
            return self.declared_scopes
        return declared_scopes(view, request.method or "")


class HasPlan(OperationHolderMixin, BasePermission):
    """A key whose owner is on one of these plans, and nothing else.

    ``HasPlan("pro", "enterprise")``. It declares no scopes: the view says what it needs.
    """

    def __init__(self, *plans: str) -> None:
        if not plans or not all(map(_is_plan, plans)):
            raise ValueError(f"HasPlan takes the names of one or more plans, not {plans}.")
        self.plans = plans

    @property
    def message(self) -> dict[str, str]:
        """The body of a refusal."""
        # Put together now: when views are imported nothing can be translated yet.
        text = _("This needs one of the plans: %(plans)s.") % {"plans": ", ".join(self.plans)}
        return {"detail": text, "code": "permission_denied"}

    def __call__(self) -> HasPlan:
        # As HasScope: an instance already.
        return self

    def has_permission(self, request: Request, view: APIView) -> bool:
        return isinstance(request.auth, Grant) and request.auth.plan in self.plans

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        return self.has_permission(request, view)


def _is_plan(name: object) -> bool:
    return isinstance(name, str) and name != ""
