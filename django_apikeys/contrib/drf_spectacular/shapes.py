"""The bodies of the management API, described to the last field.

They describe, and read or write nothing: what is sent is read by ``drf.serializers``, what is
answered is made by ``representation`` and ``reports``. Tests hold both against them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db import models
from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.utils import OpenApiExample, extend_schema_serializer
from rest_framework import serializers

from django_apikeys import validation
from django_apikeys.actors import Kind
from django_apikeys.conf import conf
from django_apikeys.models import EVENT_TYPES, STATUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.utils import Direction


class Described(serializers.Field[Any, Any, Any, Any]):
    """A field whose schema is asked for when there are settings; ``component`` names it."""

    def __init__(
        self, schema: Callable[[], dict[str, Any]], component: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.schema = schema
        self.component = component


class DescribedExtension(OpenApiSerializerFieldExtension):
    """What a Described field says of itself."""

    target_class = Described

    def get_name(self) -> str | None:
        return self.target.component  # type: ignore[no-any-return]  # of Described

    def map_serializer_field(
        self, auto_schema: AutoSchema, direction: Direction
    ) -> dict[str, Any]:
        return self.target.schema()  # type: ignore[no-any-return]  # the same


def choice(component: str, choices: Iterable[str], **options: Any) -> Described:
    """Return a field that is one of *choices*, which have a name of their own.

    Without one, drf-spectacular would take it together with fields of the project that are
    named alike.
    """
    return Described(lambda: {"type": "string", "enum": [*choices]}, component, **options)


def _text(most: int, **options: Any) -> serializers.CharField:
    return serializers.CharField(max_length=most, **options)


def _identifier_of(model: Callable[[], type[models.Model]]) -> Callable[[], dict[str, Any]]:
    def schema() -> dict[str, Any]:
        key = model()._meta.pk
        if isinstance(key, models.IntegerField):
            return {"type": "integer"}
        is_uuid = isinstance(key, models.UUIDField)
        return {"type": "string", **({"format": "uuid"} if is_uuid else {})}

    return schema


_owner_id = _identifier_of(lambda: apps.get_model(conf.OWNER_MODEL))
_user_id = _identifier_of(get_user_model)


def _actor_id() -> dict[str, Any]:
    if _user_id() == {"type": "string"}:
        return _user_id()
    return {"oneOf": [_user_id(), {"type": "string"}]}


def _environment() -> dict[str, Any]:
    return {"type": "string", "enum": [*conf.ENVIRONMENTS]}


@extend_schema_serializer(component_name="APIKeyOwner")
class Owner(serializers.Serializer[Any]):
    """Whom a key acts for."""

    id = Described(_owner_id, help_text="As in `?owner=`.")
    name = serializers.CharField(help_text="As the policy names them.")


@extend_schema_serializer(component_name="APIKeyPerson")
class Person(serializers.Serializer[Any]):
    """Somebody who has done something."""

    id = Described(_user_id, help_text="Of the user.")
    name = serializers.CharField(help_text="The user name.")


@extend_schema_serializer(component_name="APIKeyPreviousSecret")
class PreviousSecret(serializers.Serializer[Any]):
    """The secret before the last rotation, while it is in its grace."""

    masked = serializers.CharField(help_text="Its beginning and its end.")
    valid_until = serializers.DateTimeField(allow_null=True, help_text="The end of its grace.")
    uses_since_rotation = serializers.IntegerField(
        min_value=0, help_text="Requests that were sent with it since."
    )
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="null: never.")
    last_used_ip = serializers.CharField(allow_null=True, help_text="From which address.")


OWNER = {"id": 7, "name": "Acme"}
PERSON = {"id": 3, "name": "ann"}
KEY = {
    "id": "5f1c3c5e-0000-4000-8000-000000000000",
    "name": "Reporting",
    "description": "The nightly report",
    "environment": "live",
    "masked": "rak_live_7Fq2…WtB2",
    "public_id": "7Fq2Lm9XcT0a",
    "owner": OWNER,
    "status": "active",
    "enabled": True,
    "scopes": ["orders:read"],
    "allowed_ips": ["203.0.113.0/24"],
    "rate_limit": "300/m",
    "expires_at": "2027-11-20T00:00:00Z",
    "usage_count": 1204,
    "error_count": 9,
    "last_used_at": "2026-11-20T10:37:00Z",
    "last_used_ip": "203.0.113.7",
    "created_at": "2026-11-01T08:00:00Z",
    "created_by": PERSON,
    "updated_at": "2026-11-01T08:00:00Z",
    "revoked_at": None,
    "revoked_by": None,
    "revoked_reason": "",
    "previous_secret": None,
    "rotation_due_at": "2027-01-30T08:00:00Z",
    "metadata": {"team": "finance"},
}
# Made up, with a checksum that is none: no scanner takes it for a secret that leaked.
SECRET = "rak_live_7Fq2Lm9XcT0a_…"  # noqa: S105 - as said


def example(value: Any, **options: Any) -> Callable[[type], type]:
    """Return a decorator that gives a body its example."""
    return extend_schema_serializer(examples=[OpenApiExample("Example", value=value)], **options)


@example(KEY, component_name="APIKey")
class Key(serializers.Serializer[Any]):
    """A key; its secret is nowhere in it."""

    id = serializers.UUIDField(help_text="Stays the same through rotations.")
    name = _text(validation.NAME_LENGTH, help_text="A line for people.")
    description = _text(validation.DESCRIPTION_LENGTH, help_text="Several lines at will.")
    environment = Described(
        _environment, "APIKeyEnvironment", help_text="What its secrets say in their beginning."
    )
    masked = serializers.CharField(help_text="The beginning and the end of its secret.")
    public_id = serializers.CharField(
        allow_null=True, help_text="The part of its secret that is looked up; may stand in a log."
    )
    owner = Owner(allow_null=True, help_text="Whom it acts for; null: the project itself.")
    status = choice("APIKeyStatus", STATUSES, help_text="What it is at this moment.")
    enabled = serializers.BooleanField(help_text="false: switched off, until it is on again.")
    scopes = serializers.ListField(
        child=serializers.CharField(), help_text="What it may do; empty: next to nothing."
    )
    allowed_ips = serializers.ListField(
        child=serializers.CharField(), help_text="Addresses and networks; empty: everywhere."
    )
    rate_limit = serializers.CharField(
        allow_null=True, help_text="N/s, N/m, N/h or N/d; null: that of the owner's plan."
    )
    expires_at = serializers.DateTimeField(allow_null=True, help_text="null: never.")
    usage_count = serializers.IntegerField(min_value=0, help_text="All verified requests.")
    error_count = serializers.IntegerField(
        min_value=0, help_text="Those of them that were answered by 400 or more."
    )
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="null: never.")
    last_used_ip = serializers.CharField(allow_null=True, help_text="From which address.")
    created_at = serializers.DateTimeField(help_text="When it was made.")
    created_by = Person(allow_null=True, help_text="By whom; null: by no person.")
    updated_at = serializers.DateTimeField(help_text="When it was changed last.")
    revoked_at = serializers.DateTimeField(allow_null=True, help_text="null: it is not.")
    revoked_by = Person(allow_null=True, help_text="By whom; null: by no person.")
    revoked_reason = _text(validation.REASON_LENGTH, help_text="Why; empty: nobody said.")
    previous_secret = PreviousSecret(
        allow_null=True, help_text="The secret before this one, while it is in its grace."
    )
    rotation_due_at = serializers.DateTimeField(
        allow_null=True, help_text="When its secret should have been rotated."
    )
    metadata = serializers.DictField(help_text="Whatever its owner notes of it.")


@example({**KEY, "secret": SECRET}, component_name="APIKeyWithSecret")
class KeyWithSecret(Key):
    """A key with its secret, which is shown this once."""

    secret = serializers.CharField(help_text="To be stored now: it is not shown again.")


class _Settings(serializers.Serializer[Any]):
    description = _text(
        validation.DESCRIPTION_LENGTH,
        required=False,
        allow_blank=True,
        help_text="Several lines at will.",
    )
    scopes = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        max_length=validation.MOST_SCOPES,
        help_text="Of those that `scopes/` names; without any a key can do next to nothing.",
    )
    allowed_ips = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        max_length=validation.MOST_NETWORKS,
        help_text="Addresses and networks from which alone it works; empty: everywhere.",
    )
    rate_limit = serializers.CharField(
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="N/s, N/m, N/h or N/d; null: that of the owner's plan.",
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="A moment to come; null: never."
    )
    enabled = serializers.BooleanField(required=False, help_text="false: switched off.")
    metadata = serializers.DictField(
        required=False, help_text="An object of up to 4096 bytes as JSON, 25 levels deep."
    )


@example(
    {"name": "Reporting", "scopes": ["orders:read"], "allowed_ips": ["203.0.113.0/24"]},
    component_name="NewAPIKey",
)
class NewKey(_Settings):
    """The settings of a key that is to be made. Unknown fields are 400."""

    name = _text(validation.NAME_LENGTH, help_text="A line for people.")
    environment = Described(
        _environment, "APIKeyEnvironment", required=False, help_text="The first, unless said."
    )
    owner = Described(
        _owner_id,
        required=False,
        allow_null=True,
        help_text="Whom it acts for: needed where several are possible; null: the project.",
    )

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        fields = super().get_fields()
        fields["name"].required = conf.REQUIRE_NAME
        return fields


@example({"name": "Reporting, nightly", "enabled": False}, component_name="APIKeyChanges")
class ChangedKey(_Settings):
    """The settings of a key that are to change; the others stay. Unknown fields are 400."""

    name = _text(validation.NAME_LENGTH, required=False, help_text="A line for people.")


class Reason(serializers.Serializer[Any]):
    """Why something is done."""

    reason = _text(
        validation.REASON_LENGTH,
        required=False,
        allow_blank=True,
        help_text="For those who read the events.",
    )


@example({"grace_seconds": 86400, "reason": "It is due."}, component_name="APIKeyRotation")
class Rotation(Reason):
    """How the secret of a key is replaced."""

    grace_seconds = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=validation.LONGEST_GRACE,
        help_text="How long the old secret goes on working; a day, unless said.",
    )
    starts = choice(
        "APIKeyRotationStart",
        ("now", "first_use"),
        required=False,
        help_text="When the grace begins: now, unless said, or when the new secret is used.",
    )
    compromised = serializers.BooleanField(
        required=False, help_text="true: it has leaked, and every earlier secret ends at once."
    )
    current = _text(
        validation.PUBLIC_ID_LENGTH,
        required=False,
        allow_null=True,
        help_text="The public id that is to be replaced: 409 where it is no longer current.",
    )


@example({"reason": "It was in a log."}, component_name="APIKeyReason")
class WhyReason(Reason):
    """Why something is done."""


@example({"reason": "It was in a log.", "cascade": True}, component_name="APIKeyRevocation")
class Revocation(Reason):
    """Why a key is revoked."""

    cascade = serializers.BooleanField(
        required=False, help_text="true: what was made through it is revoked as well."
    )


@example({"password": "that of the login"}, component_name="APIKeyReveal")
class Reveal(serializers.Serializer[Any]):
    """What proves who asks for a secret again."""

    password = serializers.CharField(
        required=False, help_text="Of the person, where the login is not fresh."
    )


@extend_schema_serializer(component_name="APIKeyEventKey")
class EventKey(serializers.Serializer[Any]):
    """A key, as it was named then."""

    id = serializers.UUIDField(help_text="It may have been deleted since.")
    name = serializers.CharField(help_text="Its name of then.")


@extend_schema_serializer(component_name="APIKeyEventActor")
class EventActor(serializers.Serializer[Any]):
    """Who did it."""

    kind = choice("APIKeyActorKind", get_args(Kind), help_text="A person, a program, …")
    id = Described(_actor_id, allow_null=True, help_text="Of the user or the key.")
    name = serializers.CharField(help_text="The name of then.")


@example(
    {
        "id": 41,
        "at": "2026-11-20T10:37:00Z",
        "type": "updated",
        "key": {"id": KEY["id"], "name": "Reporting"},
        "owner": OWNER,
        "actor": {"kind": "user", **PERSON},
        "address": "192.0.2.7",
        "user_agent": "curl/8.5.0",
        "reason": "",
        "changes": {"enabled": [True, False]},
    },
    component_name="APIKeyEvent",
)
class Event(serializers.Serializer[Any]):
    """What was done to a key: by whom, from where, and what was before and after."""

    id = serializers.IntegerField(help_text="Grows with each event.")
    at = serializers.DateTimeField(help_text="When.")
    type = choice("APIKeyEventType", EVENT_TYPES, help_text="What was done.")
    key = EventKey(allow_null=True, help_text="null: the event is of an owner alone.")
    owner = Owner(allow_null=True, help_text="null: the key belongs to the project itself.")
    actor = EventActor(help_text="Who did it.")
    address = serializers.CharField(allow_null=True, help_text="From which address.")
    user_agent = serializers.CharField(allow_null=True, help_text="By which client.")
    reason = serializers.CharField(help_text="Why; empty: nobody said.")
    changes = serializers.DictField(
        child=serializers.ListField(min_length=2, max_length=2),
        help_text="Of each changed field: before, after.",
    )


@extend_schema_serializer(component_name="APIKeyUsageCounts")
class Counts(serializers.Serializer[Any]):
    """Requests, by how they were answered."""

    requests = serializers.IntegerField(min_value=0, help_text="All.")
    errors = serializers.IntegerField(  # type: ignore[assignment]  # DRF takes fields out of the class
        min_value=0, help_text="Answered by 400 or more."
    )
    refused = serializers.IntegerField(
        min_value=0, help_text="Of the errors: refused for a scope or an address."
    )
    limited = serializers.IntegerField(
        min_value=0, help_text="Of the errors: beyond a rate or the quota."
    )


@extend_schema_serializer(component_name="APIKeyUsageBucket")
class Bucket(Counts):
    """The requests of an hour, a day or a month."""

    start = serializers.DateTimeField(help_text="When it begins, in UTC.")


@extend_schema_serializer(component_name="APIKeyUsageByRoute")
class RouteCounts(serializers.Serializer[Any]):
    """The requests of a route."""

    route = serializers.CharField(help_text="The URL pattern, not the path.")
    method = serializers.CharField(help_text="Of HTTP; `other` where it is none.")
    requests = serializers.IntegerField(min_value=0, help_text="All.")
    errors = serializers.IntegerField(  # type: ignore[assignment]  # DRF takes fields out of the class
        min_value=0, help_text="Answered by 400 or more."
    )


@extend_schema_serializer(component_name="APIKeyUsageByStatus")
class StatusCounts(serializers.Serializer[Any]):
    """The requests of a class of statuses."""

    status = choice(
        "APIKeyStatusClass", ("2xx", "3xx", "4xx", "5xx"), help_text="The class of the status."
    )
    requests = serializers.IntegerField(min_value=0, help_text="All.")


@extend_schema_serializer(component_name="APIKeyUsageByAddress")
class AddressCounts(serializers.Serializer[Any]):
    """The requests that ever came from an address."""

    ip = serializers.CharField(help_text="The address, or its network.")
    first_seen = serializers.DateTimeField(help_text="The first request.")
    last_seen = serializers.DateTimeField(help_text="The last request.")
    requests = serializers.IntegerField(min_value=0, help_text="All, in this time and before.")


_COUNTS = {"requests": 1204, "errors": 9, "refused": 1, "limited": 3}


@example(
    {
        "totals": _COUNTS,
        "series": [{"start": "2026-11-20T00:00:00Z", **_COUNTS}],
        "by_route": [{"route": "api/v1/orders/", "method": "GET", "requests": 1204, "errors": 9}],
        "by_status": [
            {"status": "2xx", "requests": 1195},
            {"status": "3xx", "requests": 0},
            {"status": "4xx", "requests": 8},
            {"status": "5xx", "requests": 1},
        ],
        "by_ip": [
            {
                "ip": "192.0.2.7",
                "first_seen": "2026-11-02T08:00:12Z",
                "last_seen": "2026-11-20T10:37:00Z",
                "requests": 5310,
            }
        ],
    },
    component_name="APIKeyUsage",
)
class Usage(serializers.Serializer[Any]):
    """What a key was used for."""

    totals = Counts(help_text="Of the whole time.")
    series = Bucket(many=True, help_text="One for each hour, day or month, without gaps.")
    by_route = RouteCounts(many=True, help_text="The 100 with the most requests.")
    by_status = StatusCounts(many=True, help_text="All four classes.")
    by_ip = AddressCounts(many=True, help_text="The 100 with the most requests.")


@example(
    {
        "used": 60,
        "total": 100000,
        "remaining": 99940,
        "resets_at": "2026-12-01T00:00:00Z",
        "plan": "pro",
        "rate_limit": "300/m",
    },
    component_name="APIKeyAccount",
)
class Account(serializers.Serializer[Any]):
    """What is used and left of an owner's plan this month."""

    used = serializers.IntegerField(
        min_value=0, help_text="In units of the quota; without one, requests."
    )
    total = serializers.IntegerField(
        min_value=0, allow_null=True, help_text="The quota; null: there is none."
    )
    remaining = serializers.IntegerField(
        min_value=0, allow_null=True, help_text="What is left of it; null: there is none."
    )
    resets_at = serializers.DateTimeField(help_text="When the next month begins.")
    plan = serializers.CharField(allow_null=True, help_text="By its name; null: none.")
    rate_limit = serializers.CharField(allow_null=True, help_text="Of the plan; null: none.")


@example({"name": "orders:read", "description": "Read orders"}, component_name="APIKeyScope")
class Scope(serializers.Serializer[Any]):
    """A scope that the caller may grant."""

    name = serializers.CharField(help_text="`resource:action`.")
    description = serializers.CharField(help_text="For people.")
