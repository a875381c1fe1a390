"""Findings of ``manage.py check`` about the views of the project."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, get_resolver
from django.utils.functional import cached_property
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from django_apikeys.conf import conf
from django_apikeys.declarations import MOST_UNITS, asked_scopes, declared_scopes, is_cost
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.permissions import HasPlan
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.keys import scopes as grammar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from django.urls import URLResolver

_DECLARATIONS = ("required_scopes", "scope_resource", "permission_classes")
_PROPERTIES = (property, cached_property, functools.cached_property)
_NOTHING = object()


def view_findings() -> list[CheckMessage]:
    """What the views say, and what the settings say of all of them.

    E002: a view asks for an unknown scope. E007: its api_cost is none. E008: its HasPlan
    names no plan, or an unknown one. W003, W004: our class does not stand first.
    W007: a view declares no scopes. W008: the templates of django-filter are missing.
    W015: nothing counts for limits. W016: nothing does in one view.
    """
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    try:
        registry, plans = conf.SCOPES, conf.PLANS
    except ImproperlyConfigured:
        return []  # E001 says so
    default: Any = api_settings.DEFAULT_AUTHENTICATION_CLASSES  # classes, once it is read
    findings = _check_order(
        default,
        "DEFAULT_AUTHENTICATION_CLASSES",
        "django_apikeys.W003",
    )
    views = list(_views(get_resolver().url_patterns))
    uncounted = _check_throttle(views, plans)
    findings += uncounted
    for view in views:
        # A view may stand behind several URLs. Messages of Django cannot be hashed.
        found = [
            *_check_view(view, registry),
            *_check_cost(view),
            *_check_plans(view, plans),
            *_check_filters(view),
            *_check_throttle_of(view, default_is_told=bool(uncounted)),
        ]
        findings += [new for new in found if new not in findings]
    return findings


def _check_throttle(views: Iterable[_View], plans: Mapping[str, Any]) -> list[CheckMessage]:
    if _counts(_default_throttles()):
        return []
    has_plans = any(plans.values())
    # Any key may have a rate of its own.
    guarded = [view for view in views if view.lets_keys_in]
    counts_somewhere = any(_counts(getattr(view, "throttle_classes", ())) for view in guarded)
    if not has_plans and (counts_somewhere or not guarded):
        return []
    return [
        Warning(
            "APIKeyThrottle, which counts for the rates of keys and for APIKEYS_PLANS, is not "
            "in DEFAULT_THROTTLE_CLASSES.",
            hint=(
                'Add "django_apikeys.drf.throttling.APIKeyThrottle" to DEFAULT_THROTTLE_CLASSES '
                "in REST_FRAMEWORK."
            ),
            id="django_apikeys.W015",
        )
    ]


def _check_throttle_of(view: _View, *, default_is_told: bool) -> list[CheckMessage]:
    if not view.lets_keys_in or view.is_foreign or view.chooses_throttles:
        return []
    default = _default_throttles()
    classes = getattr(view, "throttle_classes", default)
    if _counts(classes) or (default_is_told and list(classes) == list(default)):
        return []
    # What refuses every key has nothing to count: W007, and required_scopes = {}.
    if view.asks_for_no_keys or _check_declared(view):
        return []
    return [
        Warning(
            f"No rate and no quota of a key holds in {view.label}: APIKeyThrottle is not in its "
            "throttle_classes.",
            hint=(
                "Put it there, first: throttle_classes = [APIKeyThrottle, ...]. With api_cost = 0 "
                "its requests use no quota. Where no key is to come in, say required_scopes = {}."
            ),
            id="django_apikeys.W016",
        )
    ]


def _check_cost(view: _View) -> list[CheckMessage]:
    if not view.lets_keys_in or not view.has_cost or is_cost(view.static_cost):
        return []
    classes = getattr(view, "throttle_classes", _default_throttles())
    if not view.chooses_throttles and not _counts(classes):
        return []  # nobody asks
    return [
        Error(
            f"api_cost of {view.label} is no number of units, from 0 to {MOST_UNITS}: "
            f"{view.static_cost!r}. Every key is answered by an error.",
            hint="Write a whole number, or a property that returns one.",
            id="django_apikeys.E007",
        )
    ]


def _check_plans(view: _View, known: Mapping[str, Any]) -> list[CheckMessage]:
    named = [*_named_plans(getattr(view, "permission_classes", ()))]
    # Plans that limit nothing need not be listed, where none is.
    unknown = {plan for plan in named if plan is None or (known and plan not in known)}
    if not unknown:
        return []
    if None in unknown:
        problem = "has HasPlan without plans in permission_classes, which fails each request"
    else:
        plans = ", ".join(sorted(map(repr, unknown)))
        problem = f"lets in owners of plans that are not in APIKEYS_PLANS: {plans}"
    return [
        Error(
            f"{view.label} {problem}.",
            hint='Write HasPlan("<plan>"), with names that APIKEYS_PLANS has.',
            id="django_apikeys.E008",
        )
    ]


def _named_plans(permissions: Iterable[Any]) -> Iterable[str | None]:
    """Yield the plans that *permissions* name, within compositions too; None of a bare HasPlan."""
    for permission in permissions:
        if permission is HasPlan:
            yield None
        elif isinstance(permission, HasPlan):
            yield from permission.plans
        operands = (getattr(permission, name, None) for name in ("op1_class", "op2_class"))
        yield from _named_plans(operand for operand in operands if operand is not None)


def _default_throttles() -> Sequence[Any]:
    default: Any = api_settings.DEFAULT_THROTTLE_CLASSES  # classes, once it is read
    return default  # type: ignore[no-any-return]


def _counts(classes: Iterable[Any]) -> bool:
    return any(isinstance(entry, type) and issubclass(entry, APIKeyThrottle) for entry in classes)


def _check_view(view: _View, registry: Iterable[str]) -> list[CheckMessage]:
    classes = getattr(view, "authentication_classes", ())
    if not view.lets_keys_in:
        return []
    findings: list[CheckMessage] = []
    if classes is not api_settings.DEFAULT_AUTHENTICATION_CLASSES and list(classes) != list(
        api_settings.DEFAULT_AUTHENTICATION_CLASSES
    ):
        findings += _check_order(classes, view.label, "django_apikeys.W004")
    # What is unknown, or no scope at all, is declared all the same.
    return findings + (_check_scopes(view, registry) or _check_declared(view))


def _check_scopes(view: _View, registry: Iterable[str]) -> list[CheckMessage]:
    known = set(registry)
    unknown = [
        scope
        for scope in asked_scopes(view, view.methods)
        if not isinstance(scope, str) or scope not in known or not grammar.is_scope(scope)
    ]
    if not unknown:
        return []
    names = ", ".join(sorted(map(repr, unknown)))
    return [
        Error(
            f"{view.label} asks for unknown scopes: {names}.",
            hint="Add them to APIKEYS_SCOPES, or mend their spelling in the view.",
            id="django_apikeys.E002",
        )
    ]


def _check_declared(view: _View) -> list[CheckMessage]:
    # DRF's own views, as the root of a router, are not the project's to change.
    if view.label.startswith("rest_framework.") or any(map(view.is_computed, _DECLARATIONS)):
        return []
    try:
        # OPTIONS asks for nothing but a view that declares something.
        is_declared = declared_scopes(view, "OPTIONS") is not None
    except ImproperlyConfigured:
        return []  # E001 says so
    if is_declared:
        return []
    return [
        Warning(
            f"{view.label} declares no scopes, and so refuses every API key.",
            hint=(
                "Declare them: required_scopes, scope_resource, or "
                'HasScope("a:b") in permission_classes. Where no key is to come in, say '
                "required_scopes = {}, or leave APIKeyAuthentication out of "
                "authentication_classes."
            ),
            id="django_apikeys.W007",
        )
    ]


def _check_filters(view: _View) -> list[CheckMessage]:
    if apps.is_installed("django_filters") or not view.is_filtered_management:
        return []
    return [
        Warning(
            "The management API of API keys is mounted and django_filters is not installed: "
            "DRF's browsable API cannot show its filters, and fails.",
            hint='Add "django_filters" to INSTALLED_APPS.',
            id="django_apikeys.W008",
        )
    ]


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

    @property
    def is_filtered_management(self) -> bool:
        """Whether it is one of the management API, or derived from one, and has filters."""
        modules = {class_.__module__ for class_ in self._class.__mro__}
        return "django_apikeys.drf.views" in modules and hasattr(self, "filterset_class")

    @property
    def lets_keys_in(self) -> bool:
        """Whether our class stands among its ``authentication_classes``."""
        return bool(_positions(getattr(self, "authentication_classes", ())))

    @property
    def asks_for_no_keys(self) -> bool:
        """Whether it says ``required_scopes = {}``."""
        return getattr(self, "required_scopes", None) == {}

    @property
    def is_foreign(self) -> bool:
        """Whether it is DRF's or the management API's, and not the project's to change."""
        return self.label.startswith(("rest_framework.", "django_apikeys."))

    @property
    def chooses_throttles(self) -> bool:
        """Whether it has no list of throttles before there is a request."""
        overrides = getattr(self._class, "get_throttles", None) is not APIView.get_throttles
        return overrides or self.is_computed("throttle_classes")

    @property
    def has_cost(self) -> bool:
        """Whether it has an ``api_cost`` that is known before there is a request."""
        cost = self.static_cost
        # A function is what a property was forgotten on; another descriptor is asked later.
        is_asked_later = hasattr(cost, "__get__") and not inspect.isfunction(cost)
        return cost is not _NOTHING and not is_asked_later

    @property
    def static_cost(self) -> Any:
        """Its ``api_cost`` as it is written."""
        return self._value("api_cost")

    def is_computed(self, name: str) -> bool:
        """Return whether *name* has no value before there is a request."""
        return isinstance(self._value(name), _PROPERTIES)

    def __getattr__(self, name: str) -> Any:
        value = self._value(name)
        if value is _NOTHING or isinstance(value, _PROPERTIES):
            # getattr() with a default takes it for nothing declared.
            raise AttributeError(f"{self.label}.{name}")
        return value

    def _value(self, name: str) -> Any:
        return self._given.get(name, getattr(self._class, name, _NOTHING))


def _views(patterns: Iterable[URLPattern | URLResolver]) -> Iterable[_View]:
    for pattern in patterns:
        if not isinstance(pattern, URLPattern):
            yield from _views(pattern.url_patterns)
        elif hasattr(pattern.callback, "cls"):
            yield _View(pattern.callback)
