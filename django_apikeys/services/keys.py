"""Keys are made, changed, revoked and deleted."""

from __future__ import annotations

import json
import uuid
from copy import copy
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_apikeys import signals, validation
from django_apikeys.actors import Actor
from django_apikeys.conf import conf
from django_apikeys.exceptions import Conflict
from django_apikeys.keys import format as secret_format
from django_apikeys.models import APIKey
from django_apikeys.services.changes import (
    IssuedSecret,
    add_secret,
    announce,
    existing,
    forget_texts,
    in_transaction,
    lock,
    lock_owner,
    locked,
    record,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from datetime import datetime

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import QuerySet

    from django_apikeys.authority import Authority
    from django_apikeys.keys.grants import Grant

    ActorLike = Actor | Grant | AbstractBaseUser | None

CHANGEABLE = (
    "name",
    "description",
    "enabled",
    "scopes",
    "allowed_ips",
    "rate_limit",
    "expires_at",
    "metadata",
)

# The reason of an Event, whatever the language of the request that led to it.
ROW_DELETED = "Its row was deleted."
# What is said of an expiry by whoever says nothing; None is never.
UNSAID: Any = object()


def create_key(
    *,
    owner: Any,
    name: str = "",
    actor: ActorLike = None,
    authority: Authority | None = None,
    description: str = "",
    environment: str | None = None,
    scopes: Collection[str] = (),
    allowed_ips: Collection[str] = (),
    rate_limit: str | None = None,
    expires_at: datetime | None = UNSAID,
    enabled: bool = True,
    metadata: Mapping[str, Any] | None = None,
    id: uuid.UUID | None = None,  # noqa: A002 - the name of the column
) -> IssuedSecret:
    """Return a new key of *owner* (None: of the project itself) with its secret.

    environment: default that of the key through which it is made, else the first of
    APIKEYS_ENVIRONMENTS. expires_at: aware, None is never; default as the settings have
    it. id: of the row to be, so that a form that is sent twice makes one key.
    Raises InvalidInput, with every bad field; BeyondCeiling; KeyRefused where the key
    through which it is made is dead by now; Conflict where *id* is taken, or the owner
    has as many keys as they may.
    """
    if environment is None:
        environment = (authority and authority.default_environment) or conf.ENVIRONMENTS[0]
    if expires_at is UNSAID:
        expires_at = validation.default_expiry(environment)
    fields = validation.clean(
        {
            "name": name,
            "description": description,
            "environment": environment,
            "scopes": scopes,
            "allowed_ips": allowed_ips,
            "rate_limit": rate_limit,
            "expires_at": expires_at,
            "enabled": enabled,
            "metadata": metadata,
        }
    )
    who = Actor.of(actor)
    parts = secret_format.generate(conf.PREFIXES[0], fields["environment"])
    with in_transaction():
        now = timezone.now()
        key = APIKey(
            **fields,
            id=id or uuid.uuid4(),
            owner=owner,
            created_by=who.user,
            created_by_key_id=who.key_id,
            created_at=now,
            updated_at=now,
        )
        lock((), authority)
        if authority is not None:
            authority.check("create", None, key)
        most = None if owner is None else conf.MAX_KEYS_PER_OWNER
        if most is not None:
            lock_owner(owner)
        if id is None:
            key.save(force_insert=True)
        else:
            _insert_once(key)
        if most is not None:
            _require_at_most(most, owner)
        key.live_secrets = [add_secret(key, parts, now)]
        record("created", key, who, changes={name: [None, fields[name]] for name in fields})
        announce(signals.key_created, key=key, actor=who)
    return IssuedSecret(key, parts.secret)


def update_key(
    *,
    key: APIKey,
    actor: ActorLike = None,
    authority: Authority | None = None,
    **changes: Any,
) -> APIKey:
    """Return *key* after *changes*; what is not named is not written.

    changes: name, description, enabled, scopes, allowed_ips, rate_limit, expires_at,
    metadata.

    Raises InvalidInput; BeyondCeiling; KeyRefused where the key through which it is asked
    is dead by now; Conflict where the key is revoked.
    """
    if unknown := changes.keys() - set(CHANGEABLE):
        raise TypeError(f"update_key() cannot change {', '.join(sorted(unknown))}.")
    fields = validation.clean(changes, environment=key.environment)
    who = Actor.of(actor)
    with in_transaction():
        fresh = locked(key, authority)
        now = timezone.now()
        if fresh.revoked_at is not None:
            raise Conflict(_("This key is revoked, for good."))
        if authority is not None:
            after = copy(fresh)
            for name, value in fields.items():
                setattr(after, name, value)
            authority.check("change", fresh, after)
        changed = {
            name: [getattr(fresh, name), value]
            for name, value in fields.items()
            if _differs(getattr(fresh, name), value)
        }
        if not changed:
            return fresh
        values = {name: value for name, (_before, value) in changed.items()}
        # UPDATE with its condition, not save(): where rows cannot be locked (SQLite), a
        # revoke that came in between must not be undone.
        live = APIKey.objects.filter(pk=fresh.pk, revoked_at=None)
        if not live.update(**values, updated_at=now):
            raise Conflict(_("This key is revoked, for good."))
        for name, value in values.items():
            setattr(fresh, name, value)
        fresh.updated_at = now
        record("updated", fresh, who, changes=changed)
        announce(signals.key_updated, key=fresh, actor=who, changes=changed)
    return fresh


def revoke_key(
    *,
    key: APIKey,
    actor: ActorLike = None,
    authority: Authority | None = None,
    reason: str = "",
    cascade: bool = False,
) -> APIKey:
    """Return *key*, revoked for good; where it was already, nothing changes.

    cascade: also every key that was made through it, to the last.
    Raises InvalidInput where *reason* is too long; NotPermitted and BeyondCeiling, also
    for one of those made through it; KeyRefused as ``update_key``.
    """
    reason = validation.clean({"reason": reason})["reason"]
    who = Actor.of(actor)
    with in_transaction():
        keys = _locked_family(key, authority) if cascade else [locked(key, authority)]
        if authority is not None:
            # One that is dead already stays as it is, whatever it was.
            alive = [child for child in keys[1:] if child.revoked_at is None]
            for fresh in [keys[0], *alive]:
                if fresh.owner_id != key.owner_id:
                    # Code of the host may make a key of one owner through that of another.
                    authority.require("revoke", fresh.owner_id)
                authority.check("revoke", fresh, fresh)
        for fresh in keys:
            revoke_row(fresh, who, reason)
        forget_texts(keys)
    return keys[0]


def delete_key(
    *,
    key: APIKey,
    actor: ActorLike = None,
    authority: Authority | None = None,
    reason: str = "",
) -> None:
    """Revoke *key* and take it out of every list; its row, usage and events stay.

    Raises as ``revoke_key``.
    """
    reason = validation.clean({"reason": reason})["reason"]
    who = Actor.of(actor)
    with in_transaction():
        fresh = locked(key, authority)
        if fresh.deleted_at is not None:
            return
        if authority is not None:
            authority.check("delete", fresh, fresh)
        now = timezone.now()
        values: dict[str, Any] = {"deleted_at": now, "updated_at": now}
        if fresh.revoked_at is None:
            values |= {"revoked_at": now, "revoked_by": who.user, "revoked_reason": reason}
        APIKey.objects.filter(pk=fresh.pk).update(**values)
        forget_texts([fresh])
        for name, value in values.items():
            setattr(fresh, name, value)
        record("deleted", fresh, who, reason=reason)
        announce(signals.key_deleted, key=fresh, actor=who, reason=reason)


def note_deleted_row(*, instance: APIKey, **kwargs: Any) -> None:
    """Leave an Event of a key whose row is deleted: with its owner, or by hand.

    A receiver of ``pre_delete``: then its owner is still there to be named.
    """
    if instance.deleted_at is None:
        reason = ROW_DELETED
        record("deleted", instance, Actor.of(None), reason=reason)
        announce(signals.key_deleted, key=instance, actor=Actor.of(None), reason=reason)


def _insert_once(key: APIKey) -> None:
    try:
        # A savepoint: what fails within it leaves a transaction that can still ask.
        with in_transaction():
            key.save(force_insert=True)
    except IntegrityError as error:
        # Of two requests with one id at once the second waits for the first, and is here. A
        # locking read: the snapshot of MariaDB is older than the other's row.
        if APIKey.objects.select_for_update().filter(pk=key.pk).first() is not None:
            raise Conflict(_("This key was created already.")) from error
        raise


def revoke_row(key: APIKey, actor: Actor, reason: str) -> APIKey:
    """Revoke *key*, a row that the caller has locked; where it was already, nothing changes.

    The caller has its ``forget_texts`` done too.
    """
    if key.revoked_at is not None:
        return key
    now = timezone.now()
    values = {
        "revoked_at": now,
        "revoked_by": actor.user,
        "revoked_reason": reason,
        "updated_at": now,
    }
    # Conditional, so that of two revokes where rows cannot be locked one has its Event.
    if APIKey.objects.filter(pk=key.pk, revoked_at=None).update(**values):
        for name, value in values.items():
            setattr(key, name, value)
        record("revoked", key, actor, reason=reason)
        announce(signals.key_revoked, key=key, actor=actor, reason=reason)
    return key


def _locked_family(key: APIKey, authority: Authority | None) -> list[APIKey]:
    """Return *key* and all that was made through it, to the last, locked."""
    family = _family([key.pk], APIKey.objects.using(router.db_for_write(APIKey)))
    rows = lock(family, authority)
    existing(key, rows)
    # Whoever makes a key through one of these locks that one first: what was made before
    # we had them all is found now, and nothing more can be made. A locking read, as the
    # snapshot of a transaction may be older.
    rows |= {row.pk: row for row in _offspring(family, APIKey.objects.select_for_update())}
    return [rows[id_] for id_ in [key.pk, *sorted(rows.keys() - {key.pk})]]


def _family(ids: list[uuid.UUID], keys: QuerySet[APIKey]) -> list[uuid.UUID]:
    return [*ids, *(row.pk for row in _offspring(ids, keys))]


def _offspring(ids: Iterable[uuid.UUID], keys: QuerySet[APIKey]) -> list[APIKey]:
    # Level by level, in one query each; `seen` ends a circle, which no service makes.
    found: list[APIKey] = []
    seen, parents = set(ids), list(ids)
    while parents:
        level = keys.filter(created_by_key__in=parents).exclude(pk__in=seen).order_by("pk")
        found += level
        parents = [row.pk for row in level]
        seen.update(parents)
    return found


def _require_at_most(most: int, owner: Any) -> None:
    keys = APIKey.objects.using(router.db_for_write(APIKey))
    if keys.filter(owner=owner, revoked_at=None).count() > most:
        raise Conflict(
            ngettext(
                "There is %(most)d API key of this owner, as many as there may be: revoke it.",
                "There are %(most)d API keys of this owner, as many as there may be: revoke one.",
                most,
            )
            % {"most": most}
        )


def _differs(before: Any, after: Any) -> bool:
    if before == after and isinstance(after, dict):
        # To Python 1 is True; to JSON it is not.
        return json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    return bool(before != after)
