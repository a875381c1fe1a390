"""Findings of ``manage.py check`` about plain views that ``api_key_required`` guards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, get_resolver

from django_apikeys.conf import conf
from django_apikeys.declarations import Declaration, asked_scopes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.urls import URLResolver


def decorator_findings() -> list[CheckMessage]:
    """E002: a plain view asks for an unknown scope."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        registry = conf.SCOPES
    except ImproperlyConfigured:
        return []  # E001 says so
    # A view may stand behind several URLs.
    asked: dict[str, set[str]] = {}
    for callback in _callbacks(get_resolver().url_patterns):
        view = getattr(callback, "view_class", callback)
        for declaration in _declarations(callback, view):
            unknown = set(asked_scopes(declaration, ())) - set(registry)
            if unknown:
                asked.setdefault(f"{view.__module__}.{view.__qualname__}", set()).update(unknown)
    return [
        Error(
            f"{label} asks for unknown scopes: {', '.join(map(repr, sorted(unknown)))}.",
            hint="Add them to APIKEYS_SCOPES, or mend their spelling in the view.",
            id="django_apikeys.E002",
        )
        for label, unknown in asked.items()
    ]


def _callbacks(patterns: Iterable[URLPattern | URLResolver]) -> Iterable[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            yield from _callbacks(pattern.url_patterns)


def _declarations(callback: Any, view: Any) -> Iterable[Declaration]:
    # On the view, or on single methods of its class.
    methods = (getattr(view, name, None) for name in getattr(view, "http_method_names", ()))
    for guarded in (callback, *methods):
        declaration = getattr(guarded, "apikeys_declaration", None)
        if isinstance(declaration, Declaration):
            yield declaration
