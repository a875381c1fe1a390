"""A key and an event as JSON: the same for API, commands and scripts."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, ValidationError

from django_apikeys.conf import conf
from django_apikeys.keys.restrictions import ends_at

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import Model

    from django_apikeys.models import APIKey, APIKeyEvent


def key_as_dict(key: APIKey, now: datetime) -> dict[str, Any]:
    """Return *key* as section 4 of the contract has it; moments are ISO 8601, UTC.

    A key of ``APIKey.objects.listed()`` needs no further query.
    """
    try:
        totals = key.totals
    except ObjectDoesNotExist:
        totals = None
    current = key.current_secret
    return {
        "id": str(key.pk),
        "name": key.name,
        "description": key.description,
        "environment": key.environment,
        "masked": key.masked,
        "public_id": current.public_id if current else None,
        "owner": _owner(key.owner),
        "status": key.status_at(now),
        "enabled": key.enabled,
        "scopes": key.scopes,
        "allowed_ips": key.allowed_ips,
        "rate_limit": key.rate_limit or None,
        "expires_at": moment(key.expires_at),
        "usage_count": totals.requests if totals else 0,
        "error_count": totals.errors if totals else 0,
        "last_used_at": moment(totals.last_used_at) if totals else None,
        "last_used_ip": (totals.last_used_ip or None) if totals else None,
        "created_at": moment(key.created_at),
        "created_by": _user(key.created_by),
        "updated_at": moment(key.updated_at),
        "revoked_at": moment(key.revoked_at),
        "revoked_by": _user(key.revoked_by),
        "revoked_reason": key.revoked_reason,
        "previous_secret": _previous(key, now),
        "rotation_due_at": moment(
            current.created_at + timedelta(days=conf.ROTATION_DAYS) if current else None
        ),
        "metadata": key.metadata,
    }


def event_as_dict(event: APIKeyEvent) -> dict[str, Any]:
    """Return *event* as section 4 of the contract has it; it needs no further query."""
    key = {"id": str(event.key_id), "name": event.key_name} if event.key_id else None
    owner = None
    if event.owner_id:
        owner_id = _stored_identifier(apps.get_model(conf.OWNER_MODEL), event.owner_id)
        owner = {"id": owner_id, "name": event.owner_name}
    return {
        "id": event.pk,
        "at": moment(event.at),
        "type": event.type,
        "key": key,
        "owner": owner,
        "actor": {
            "kind": event.actor_kind,
            "id": _actor_id(event),
            "name": event.actor_name,
        },
        "address": event.address or None,
        "user_agent": event.user_agent or None,
        "reason": event.reason,
        "changes": event.changes,
    }


def is_kept(key: APIKey) -> bool:
    """Tell whether the current secret of *key* can be shown again, in the retrievable mode."""
    current = key.current_secret
    return current is not None and bool(current.encrypted)


def moment(value: datetime | None) -> str | None:
    """Return *value* as ISO 8601 in UTC: ``2026-11-20T10:37:00Z``."""
    return None if value is None else value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def identifier(value: Any) -> Any:
    """Return the primary key *value* as JSON has it."""
    return str(value) if isinstance(value, uuid.UUID) else value


def _actor_id(event: APIKeyEvent) -> Any:
    if event.actor_kind == "user" and event.actor_id:
        return _stored_identifier(get_user_model(), event.actor_id)
    return event.actor_id or None


def _stored_identifier(model: type[Model], text: str) -> Any:
    field: Any = model._meta.pk
    try:
        return identifier(field.to_python(text))
    except ValidationError:  # of a model that had another kind of key once
        return text


def _owner(owner: Any) -> dict[str, Any] | None:
    if owner is None:
        return None
    return {"id": identifier(owner.pk), "name": conf.policy.owner_name(owner)}


def _user(user: AbstractBaseUser | None) -> dict[str, Any] | None:
    if user is None:
        return None
    return {"id": identifier(user.pk), "name": str(user.get_username())}


def _previous(key: APIKey, now: datetime) -> dict[str, Any] | None:
    secret = key.previous_secret_at(now)
    if secret is None:
        return None
    try:
        totals = secret.totals
    except ObjectDoesNotExist:
        totals = None
    return {
        "masked": secret.masked,
        "valid_until": moment(ends_at(secret.retires_at, key.expires_at)),
        "uses_since_rotation": totals.in_grace if totals else 0,
        "last_used_at": moment(totals.last_used_at) if totals else None,
        "last_used_ip": (totals.last_used_ip or None) if totals else None,
    }
