"""Findings of ``manage.py check`` about the views of the project."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, get_resolver
from rest_framework.settings import api_settings

from django_apikeys.conf import conf
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.scopes import asked_scopes
from django_apikeys.keys import scopes as grammar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.urls import URLResolver


def view_findings() -> list[CheckMessage]:
    """E002: a view asks for an unknown scope. W003, W004: our class does not stand first."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        registry = conf.SCOPES
    except ImproperlyConfigured:
        return []  # E001 says so
    default: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES  # classes, once it is read
    findings = _check_order(
        default,
        "DEFAULT_AUTHENTICATION_CLASSES",
        "django_apikeys.W003",
    )
    for view in _views(get_resolver().url_patterns):
        # A view may stand behind several URLs. Messages of Django cannot be hashed.
        findings += [new for new in _check_view(view, registry) if new not in findings]
    return findings


def _check_view(view: _View, registry: Iterable[str]) -> list[CheckMessage]:
    classes = getattr(view, "authentication_classes", ())
    if not _positions(classes):
        return []
    findings: list[CheckMessage] = []
    if classes is not api_settings.DEFAULT_AUTHENTICATION_CLASSES and list(classes) != list(
        api_settings.DEFAULT_AUTHENTICATION_CLASSES
    ):
        findings += _check_order(classes, view.label, "django_apikeys.W004")
    known = set(registry)
    unknown = [
        scope
        for scope in asked_scopes(view, view.methods)
        if not isinstance(scope, str) or scope not in known or not grammar.is_scope(scope)
    ]
    if unknown:
        names = ", ".join(sorted(map(repr, unknown)))
        findings.append(
            Error(
                f"{view.label} asks for unknown scopes: {names}.",
                hint="Add them to APIKEYS_SCOPES, or mend their spelling in the view.",
                id="django_apikeys.E002",
            )
        )
    return findings


def _check_order(classes: Iterable[Any], where: str, id_: str) -> list[CheckMessage]:
    if _positions(classes) in ([], [0]):
        return []
    return [
        Warning(
            f"APIKeyAuthentication does not stand first in {where}.",
            hint=(
                "Put it first, and once: else a session or another credential decides before "
                "the key does, and an anonymous request may be answered 403 instead of 401."
            ),
            id=id_,
        )
    ]


def _positions(classes: Iterable[Any]) -> list[int]:
    return [
        position
        for position, class_ in enumerate(classes)
        if isinstance(class_, type) and issubclass(class_, APIKeyAuthentication)
    ]


class _View:
    """A view as its URL pattern has it: the class, and what ``as_view`` was given."""

    def __init__(self, callback: Any) -> None:
        self._class = callback.cls
        self._given = getattr(callback, "initkwargs", {})
        # Not __qualname__: DRF gives the class of a function view the function's name alone.
        self.label = f"{self._class.__module__}.{self._class.__name__}"
        names = getattr(callback, "actions", None) or [
            name for name in self.http_method_names if hasattr(self._class, name)
        ]
        # A router maps every action that a viewset has, whatever methods it lets in.
        self.methods = [name.upper() for name in names if name in self.http_method_names]

    def __getattr__(self, name: str) -> Any:
        value = self._given[name] if name in self._given else getattr(self._class, name)
        if isinstance(value, property):
            # getattr() with a default takes it for nothing declared.
            raise AttributeError(f"{self.label}.{name}")  # noqa: TRY004 - see above
        return value


def _views(patterns: Iterable[URLPattern | URLResolver]) -> Iterable[_View]:
    for pattern in patterns:
        if not isinstance(pattern, URLPattern):
            yield from _views(pattern.url_patterns)
        elif hasattr(pattern.callback, "cls"):
            yield _View(pattern.callback)
