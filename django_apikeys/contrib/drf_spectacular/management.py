"""The management API: each call with what it takes and how it is answered."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, get_args

from drf_spectacular.extensions import OpenApiViewExtension
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.settings import api_settings

from django_apikeys.actors import Kind
from django_apikeys.conf import conf
from django_apikeys.contrib.drf_spectacular import answers, shapes
from django_apikeys.declarations import declared_scopes
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.exceptions import BeyondCeiling, PasswordRequired, TooManyPasswords
from django_apikeys.models import EVENT_TYPES, STATUSES
from django_apikeys.reports import GRANULARITIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from drf_spectacular.openapi import AutoSchema
    from rest_framework.views import APIView

_TAGS = ["API keys"]
_VIEWS = "django_apikeys.drf.views."
_MOMENT = "A moment or a day, ISO 8601; UTC where it names no zone."


def _call(name: str, summary: str, text: str, **options: Any) -> Callable[[Any], Any]:
    """Return what is said of one call, but its refusals."""
    return extend_schema(
        operation_id=f"apikeys_{name}",
        summary=summary,
        description=text,
        tags=_TAGS,
        **{"request": None, **options},
    )


def _body(shape: type) -> dict[str, type]:
    # The clearest of what the parsers of a project read.
    return {"application/json": shape}


def _query(name: str, text: str, type_: Any = str, **options: Any) -> OpenApiParameter:
    return OpenApiParameter(name, type_, OpenApiParameter.QUERY, description=text, **options)


def _moments(names: Mapping[str, str]) -> list[OpenApiParameter]:
    return [
        _query(name, f"{text} {_MOMENT}", OpenApiTypes.DATETIME) for name, text in names.items()
    ]


# As REST framework names it in schemas.
_KEY = OpenApiParameter(
    "id" if api_settings.SCHEMA_COERCE_PATH_PK else "pk",
    OpenApiTypes.UUID,
    OpenApiParameter.PATH,
    description="The id of the key.",
)
_OWNER = _query("owner", "The id of an owner whom the caller may see.")
_ORDERINGS = ("name", "created_at", "updated_at", "expires_at", "last_used_at", "usage_count")
_KEYS: list[Any] = [
    _query("status", "What a key is at this moment.", enum=STATUSES),
    _query("scope", "A scope, granted by its name."),
    _OWNER,
    _query("search", "A part of the name, description, public id or masked form."),
    _query("never_used", "Whether no secret of it was ever used.", enum=("true", "false")),
    _query(
        "ordering",
        "By what the list is ordered; `-` in front turns it around.",
        {
            "type": "array",
            "items": {
                "type": "string",
                "enum": [f"{sign}{name}" for name in _ORDERINGS for sign in ("", "-")],
            },
        },
        style="form",
        explode=False,
    ),
    *_moments(
        {
            "created_after": "Made then or later.",
            "created_before": "Made before.",
            "last_used_after": "Used last then or later.",
            "last_used_before": "Used last before.",
            "expires_before": "Expires before.",
        }
    ),
]
_EVENTS: list[Any] = [
    _query("key", "The id of a key, also of one that was deleted.", OpenApiTypes.UUID),
    _query("type", "What was done.", enum=EVENT_TYPES),
    _query("actor", "What kind of actor did it.", enum=get_args(Kind)),
    _OWNER,
    *(
        _query(name, "JSON, unless said or asked for by `Accept`.", enum=("csv", "json"))
        for name in (api_settings.URL_FORMAT_OVERRIDE,)
        if name
    ),
    *_moments({"after": "Then or later.", "before": "Before."}),
]
_EVENT_PAGES = {
    (200, "application/json"): shapes.Event(many=True),
    (200, "text/csv"): OpenApiTypes.STR,
}
_BAD_FILTER = {"owner": ["There is no such owner."]}
_BAD_FIELD = {"allowed_ip": ["Unknown field."]}
_BAD_SPAN = {"to": ["This must lie after from."]}
_CEILING = (
    BeyondCeiling.code,
    "This is more than you may give to an API key: scopes (orders:write).",
)
_REVOKED = "This key is revoked: that is for good."

_Refusals = dict[int, "str | dict[str, list[str]] | None"]


class _Management(OpenApiViewExtension):
    match_subclasses = True
    # Beside 401, 403, 429 and 503: the fields of a 400, nothing of a 404, the text of a 409.
    refusals: Mapping[str, _Refusals] = {}
    # The codes of a 403 beside those of every guarded view.
    forbids: Mapping[str, answers.Told] = {}

    def view_replacement(self) -> type[APIView]:
        extension = self

        class Described(self.target):  # type: ignore[misc, name-defined]  # a class at run time
            def more_answers(self, schema: AutoSchema) -> Iterable[tuple[str, dict[str, Any]]]:
                return extension.answers(schema)

        for name, value in self.attributes().items():
            setattr(Described, name, value)
        # What a project says itself of a call, in a view of its own, stays as it is.
        calls = {
            name: call
            for name, call in self.calls().items()
            if "schema" not in getattr(getattr(self.target, name), "kwargs", {})
        }
        described: type[APIView] = extend_schema_view(**calls)(Described)
        return described

    @abstractmethod
    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        """Return what is said of each action or method."""

    def attributes(self) -> dict[str, Any]:
        """Return what the view has that describes better than its own."""
        return {}

    def answers(self, schema: AutoSchema) -> Iterable[tuple[str, dict[str, Any]]]:
        """Yield the refusals of the call of *schema*."""
        name = getattr(schema.view, "action", schema.method.lower())
        for status, facts in self.refusals.get(name, {}).items():
            if isinstance(facts, dict):
                answer = answers.invalid(schema, facts)
            elif facts is None:
                answer = answers.not_found(schema)
            else:
                answer = answers.conflict(schema, "The state of the key does not allow it.", facts)
            yield str(status), answer
        if name in self.forbids:
            scopes = declared_scopes(schema.view, schema.method)
            yield "403", answers.forbidden(schema, scopes, self.forbids[name])
        yield "503", answers.unavailable(schema)


class Keys(_Management):
    """``keys/``, ``keys/{id}/`` and what is done to a key."""

    target_class = f"{_VIEWS}APIKeyViewSet"
    refusals = {
        "list": {400: _BAD_FILTER, 404: None},
        "create": {400: _BAD_FIELD, 409: "This owner has as many API keys as there may be."},
        "retrieve": {404: None},
        "partial_update": {400: _BAD_FIELD, 404: None, 409: _REVOKED},
        "destroy": {404: None},
        "revoke": {400: _BAD_FIELD, 404: None},
        "rotate": {400: _BAD_FIELD, 404: None, 409: _REVOKED},
        "retire": {400: _BAD_FIELD, 404: None, 409: "There is no previous secret to retire."},
        "reveal": {400: _BAD_FIELD, 404: None, 409: "This secret was not kept."},
    }
    forbids = {
        **dict.fromkeys(
            ("create", "partial_update", "destroy", "revoke", "rotate", "retire"), (_CEILING,)
        ),
        "reveal": [(PasswordRequired.code, "Send your password, or log in again.")],
    }

    def attributes(self) -> dict[str, Any]:
        scopes = self.target.required_scopes
        # The view refuses keys itself; that it asks for no scope says nothing here.
        by_action = isinstance(scopes, dict)
        return {"required_scopes": {**scopes, "reveal": None}} if by_action else {}

    def answers(self, schema: AutoSchema) -> Iterable[tuple[str, dict[str, Any]]]:
        yield from super().answers(schema)
        if getattr(schema.view, "action", "") == "reveal":
            told = [(TooManyPasswords.code, str(TooManyPasswords.message))]
            text = "Too many wrong passwords."
            yield "429", answers.refusal(schema, 429, text, told, ("Retry-After",))

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        environments = _query(
            "environment", "What the secrets of keys say.", enum=[*conf.ENVIRONMENTS]
        )
        return {
            "list": _call(
                "list",
                "List keys",
                "The keys of every owner whom the caller may see; revoked ones stay in the list.",
                parameters=[*_KEYS, environments],
                responses=shapes.Key(many=True),
            ),
            "create": _call(
                "create",
                "Create a key",
                "The key that was made, with its secret, which is shown this once. By default "
                "only `name` is needed, and `owner` where several are possible.",
                request=_body(shapes.NewKey),
                responses={201: shapes.KeyWithSecret},
            ),
            "retrieve": _call(
                "retrieve", "Read a key", "The key.", parameters=[_KEY], responses=shapes.Key
            ),
            "partial_update": _call(
                "partial_update",
                "Change a key",
                "The key as it is now. Only what the body names is changed.",
                parameters=[_KEY],
                request=_body(shapes.ChangedKey),
                responses=shapes.Key,
            ),
            "destroy": _call(
                "destroy",
                "Delete a key",
                "The key is revoked and leaves every list; its events stay.",
                parameters=[_KEY],
                responses={204: None},
            ),
            "revoke": _call(
                "revoke",
                "Revoke a key",
                "The key, which is revoked for good and stays in the list. Repeating it changes "
                "nothing.",
                parameters=[_KEY],
                request=_body(shapes.Revocation),
                responses={200: shapes.Key},
            ),
            "rotate": _call(
                "rotate",
                "Rotate a key",
                "The same key with a new secret, which is shown this once.",
                parameters=[_KEY],
                request=_body(shapes.Rotation),
                responses={201: shapes.KeyWithSecret},
            ),
            "retire": _call(
                "retire",
                "Retire the previous secret",
                "The key, whose previous secret ends now.",
                parameters=[_KEY],
                request=_body(shapes.WhyReason),
                responses={200: shapes.Key},
            ),
            "reveal": _call(
                "reveal",
                "Show a secret again",
                "The key with its secret once more: for a person in a fresh login, where secrets "
                "are kept.",
                parameters=[_KEY],
                request=_body(shapes.Reveal),
                responses={200: shapes.KeyWithSecret},
            ),
        }


class Events(_Management):
    """``events/``."""

    target_class = f"{_VIEWS}EventsView"
    refusals = {"get": {400: _BAD_FILTER, 404: None}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "events_list",
                "List events",
                "What was done to keys, newest first, deleted keys included; a page may come "
                "as CSV.",
                parameters=_EVENTS,
                responses=_EVENT_PAGES,
            )
        }


class KeyEvents(Events):
    """``keys/{id}/events/``."""

    target_class = f"{_VIEWS}KeyEventsView"
    priority = 1  # it is an EventsView too

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "key_events_list",
                "List the events of a key",
                "What was done to the key, newest first; a page may come as CSV.",
                parameters=[_KEY, *_EVENTS],
                responses=_EVENT_PAGES,
            )
        }


class KeyUsage(_Management):
    """``keys/{id}/usage/``."""

    target_class = f"{_VIEWS}KeyUsageView"
    refusals = {"get": {400: _BAD_SPAN, 404: None}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "key_usage_retrieve",
                "Read the usage of a key",
                "What the key was used for, in 30 days by day unless said otherwise.",
                parameters=[
                    _KEY,
                    *_moments({"from": "From when on.", "to": "Until when."}),
                    _query("granularity", "The length of a row.", enum=GRANULARITIES),
                ],
                responses=shapes.Usage,
            )
        }


class Account(_Management):
    """``usage/``."""

    target_class = f"{_VIEWS}AccountView"
    refusals = {"get": {400: _BAD_FILTER}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "account_retrieve",
                "Read the account",
                "What is used and left of an owner's plan; `owner` is needed where several may "
                "be seen. It costs nothing of the quota.",
                parameters=[_OWNER],
                responses=shapes.Account,
            )
        }


class Scopes(_Management):
    """``scopes/``."""

    target_class = f"{_VIEWS}ScopesView"
    refusals = {"get": {400: _BAD_FILTER}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "scopes_list",
                "List scopes",
                "The scopes that the caller may grant to keys of `owner`, or of any owner.",
                parameters=[_OWNER],
                responses=shapes.Scope(many=True),
            )
        }


class _OfAKey(_Management):
    def attributes(self) -> dict[str, Any]:
        # No person gets past HasAPIKey, whatever else they send.
        classes = self.target.authentication_classes
        return {
            "authentication_classes": [
                class_ for class_ in classes if issubclass(class_, APIKeyAuthentication)
            ]
        }


class Self(_OfAKey):
    """``keys/self/``."""

    target_class = f"{_VIEWS}SelfDetailView"

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "get": _call(
                "self_retrieve",
                "Read the key itself",
                "The key by which it is asked for; 403 for a person. It costs nothing of the "
                "quota.",
                responses=shapes.Key,
            )
        }


class SelfRotate(_OfAKey):
    """``keys/self/rotate/``."""

    target_class = f"{_VIEWS}SelfRotateView"
    refusals = {"post": {400: _BAD_FIELD, 409: "This secret was rotated meanwhile."}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "post": _call(
                "self_rotate",
                "Rotate the key itself",
                "The key by whose current secret it is called, with a new secret, which is shown "
                "this once.",
                request=_body(shapes.Rotation),
                responses={201: shapes.KeyWithSecret},
            )
        }


class SelfRevoke(_OfAKey):
    """``keys/self/revoke/``."""

    target_class = f"{_VIEWS}SelfRevokeView"
    refusals = {"post": {400: _BAD_FIELD}}

    def calls(self) -> Mapping[str, Callable[[Any], Any]]:
        return {
            "post": _call(
                "self_revoke",
                "Revoke the key itself",
                "The key by which it is called, which is revoked for good.",
                request=_body(shapes.WhyReason),
                responses={200: shapes.Key},
            )
        }
