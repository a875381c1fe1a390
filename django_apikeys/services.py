"""THE DOOR FOR CHANGE: every row of a key is written here.

Each change is one transaction with one Event, and one signal once it has committed;
what verification notes of a secret (its first use, a new digest) changes nothing for
anybody, and has none.

actor: an Actor, a user, a Grant, or None for the system itself.
authority: what the one who asks may do; the ceiling is asked here, of the rows as they
are under the lock. None, for commands and the host's own code, asks nothing. Whether the
owner's keys may be managed at all is asked by whoever calls, before they read any input.
"""

from __future__ import annotations

import json
import uuid
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import IntegrityError, router, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys import signals, validation
from django_apikeys.actors import Actor
from django_apikeys.conf import conf
from django_apikeys.exceptions import Conflict
from django_apikeys.keys import format as secret_format
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import QuerySet
    from django.dispatch import Signal

    from django_apikeys.authority import Authority
    from django_apikeys.keys.grants import Grant
    from django_apikeys.keys.masking import Secret

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

# What is said of an expiry by whoever says nothing; None is never.
UNSAID: Any = object()


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """A key and its new secret, the one time that there is one to show."""

    key: APIKey
    _secret: Secret

    def __repr__(self) -> str:
        return f"<IssuedSecret of {self.key.masked}>"

    @property
    def secret(self) -> str:
        """The text to hand to the owner. Its repr is masked; do not log or store it."""
        return self._secret.reveal()


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
    with _transaction():
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
        _lock((), authority)
        if authority is not None:
            authority.check("create", None, key)
        most = None if owner is None else conf.MAX_KEYS_PER_OWNER
        if most is not None:
            _lock_owner(owner)
        if id is None:
            key.save(force_insert=True)
        else:
            _insert_once(key)
        if most is not None:
            _require_at_most(most, owner)
        secret = APIKeySecret.objects.create(
            key=key,
            prefix=parts.prefix,
            public_id=parts.public_id,
            last_four=parts.last_four,
            digest=conf.hasher.digest(parts.secret),
            slot=CURRENT,
            created_at=now,
        )
        key.live_secrets = [secret]
        _record("created", key, who, changes={name: [None, fields[name]] for name in fields})
        _announce(signals.key_created, key=key, actor=who)
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
    with _transaction():
        now = timezone.now()
        fresh = _locked(key, authority)
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
        _record("updated", fresh, who, changes=changed)
        _announce(signals.key_updated, key=fresh, actor=who, changes=changed)
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
    with _transaction():
        keys = _locked_family(key, authority) if cascade else [_locked(key, authority)]
        if authority is not None:
            # One that is dead already stays as it is, whatever it was.
            alive = [child for child in keys[1:] if child.revoked_at is None]
            for fresh in [keys[0], *alive]:
                if fresh.owner_id != key.owner_id:
                    # Code of the host may make a key of one owner through that of another.
                    authority.require("revoke", fresh.owner_id)
                authority.check("revoke", fresh, fresh)
        for fresh in keys:
            _revoke(fresh, who, reason)
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
    with _transaction():
        fresh = _locked(key, authority)
        if fresh.deleted_at is not None:
            return
        if authority is not None:
            authority.check("delete", fresh, fresh)
        now = timezone.now()
        values: dict[str, Any] = {"deleted_at": now, "updated_at": now}
        if fresh.revoked_at is None:
            values |= {"revoked_at": now, "revoked_by": who.user, "revoked_reason": reason}
        APIKey.objects.filter(pk=fresh.pk).update(**values)
        for name, value in values.items():
            setattr(fresh, name, value)
        _record("deleted", fresh, who, reason=reason)
        _announce(signals.key_deleted, key=fresh, actor=who, reason=reason)


def note_deleted_row(*, instance: APIKey, **kwargs: Any) -> None:
    """Leave an Event of a key whose row is deleted: with its owner, or by hand.

    A receiver of ``pre_delete``: then its owner is still there to be named.
    """
    if instance.deleted_at is None:
        reason = str(_("Its row was deleted."))
        _record("deleted", instance, Actor.of(None), reason=reason)
        _announce(signals.key_deleted, key=instance, actor=Actor.of(None), reason=reason)


def mark_first_use(secret_id: int, now: datetime) -> None:
    """Note that a secret was used for the first time; only the first one counts."""
    connection = transaction.get_connection(router.db_for_write(APIKeySecret))
    unused = APIKeySecret.objects.filter(pk=secret_id, first_used_at=None)
    if connection.in_atomic_block and connection.features.has_select_for_update_skip_locked:
        # Under ATOMIC_REQUESTS the row stays locked until the view has answered: another
        # request with the same secret must not wait for that, and leaves it to this one.
        free: Any = unused.select_for_update(skip_locked=True).values("pk")
        if connection.vendor == "mysql":
            # Asked first: the UPDATE of MariaDB waits for what its subquery skips.
            free = [row["pk"] for row in free]
        unused = APIKeySecret.objects.filter(pk__in=free)
    unused.update(first_used_at=now)


def rehash_secret(secret_id: int, *, old: str, new: str) -> None:
    """Replace the digest *old* of a secret by *new*, both of the same text.

    By an UPDATE of that column alone, while it is still *old*: a revoke, a rotation or
    another rehash that came in between stays as it is.
    """
    APIKeySecret.objects.filter(pk=secret_id, digest=old).update(digest=new)


def _insert_once(key: APIKey) -> None:
    try:
        # A savepoint: what fails within it leaves a transaction that can still ask.
        with _transaction():
            key.save(force_insert=True)
    except IntegrityError as error:
        # Of two requests with one id at once the second waits for the first, and is here. A
        # locking read: the snapshot of MariaDB is older than the other's row.
        if APIKey.objects.select_for_update().filter(pk=key.pk).first() is not None:
            raise Conflict(_("This key was created already.")) from error
        raise


def _revoke(key: APIKey, actor: Actor, reason: str) -> APIKey:
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
        _record("revoked", key, actor, reason=reason)
        _announce(signals.key_revoked, key=key, actor=actor, reason=reason)
    return key


def _locked(key: APIKey, authority: Authority | None) -> APIKey:
    # The row as it is now: what the caller holds may be older than a revoke.
    return _existing(key, _lock([key.pk], authority))


def _locked_family(key: APIKey, authority: Authority | None) -> list[APIKey]:
    """Return *key* and all that was made through it, to the last, locked."""
    family = _family([key.pk], APIKey.objects.using(router.db_for_write(APIKey)))
    rows = _lock(family, authority)
    _existing(key, rows)
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


def _lock(ids: Iterable[uuid.UUID], authority: Authority | None) -> dict[uuid.UUID, APIKey]:
    # Kept from others until the transaction ends. In one order for all, and with the key
    # through which is asked among them: two that manage each other must not deadlock.
    own_id = None if authority is None else authority.key_id
    wanted = {*ids} if own_id is None else {*ids, own_id}
    locked = APIKey.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
    rows = {row.pk: row for row in (locked if wanted else ())}
    if authority is not None:
        authority.confirm(None if own_id is None else rows.get(own_id))
    return {id_: rows[id_] for id_ in ids if id_ in rows}


def _existing(key: APIKey, rows: Mapping[uuid.UUID, APIKey]) -> APIKey:
    if key.pk not in rows:
        raise Conflict(_("This key is gone."))
    return rows[key.pk]


def _lock_owner(owner: Any) -> None:
    # One at a time for each owner, from here to the commit: else two count the same keys.
    connection = transaction.get_connection(router.db_for_write(APIKey))
    no_key = connection.features.has_select_for_no_key_update
    # Not type(owner): it may be the lazy object of request.user.
    owners = apps.get_model(conf.OWNER_MODEL)._base_manager
    rows = owners.using(connection.alias).filter(pk=owner.pk)
    list(rows.select_for_update(no_key=no_key).values_list("pk"))


def _require_at_most(most: int, owner: Any) -> None:
    keys = APIKey.objects.using(router.db_for_write(APIKey))
    if keys.filter(owner=owner, revoked_at=None).count() > most:
        raise Conflict(
            _("There are %(most)d API keys of this owner, as many as there may be: revoke one.")
            % {"most": most}
        )


def _transaction() -> transaction.Atomic:
    return transaction.atomic(using=router.db_for_write(APIKey))


def _record(
    type_: str,
    key: APIKey,
    actor: Actor,
    *,
    reason: str = "",
    changes: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    owner = _owner_of(key)
    APIKeyEvent.objects.create(
        type=type_,
        key_id=key.pk,
        key_name=key.name,
        key_masked=key.masked,
        owner_id="" if owner is None else str(owner.pk),
        owner_name="" if owner is None else conf.policy.owner_name(owner)[:255],
        actor_kind=actor.kind,
        actor_id=actor.id[:255],
        actor_name=actor.name[:255],
        address=actor.address,
        user_agent=actor.user_agent,
        reason=reason,
        changes={
            name: [_as_json(value) for value in pair] for name, pair in (changes or {}).items()
        },
    )


def _owner_of(key: APIKey) -> Any:
    field = APIKey._meta.get_field("owner")
    if key.owner_id is None or field.is_cached(key):
        return key.owner
    # Where the key was locked, not where a router would read: a replica may not have it.
    model = apps.get_model(conf.OWNER_MODEL)
    return model._base_manager.using(key._state.db).get(pk=key.owner_id)


def _differs(before: Any, after: Any) -> bool:
    if before == after and isinstance(after, dict):
        # To Python 1 is True; to JSON it is not.
        return json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True)
    return bool(before != after)


def _as_json(value: Any) -> Any:
    # Whatever zone it came in: an event tells of moments as the API does.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _announce(signal: Signal, **facts: Any) -> None:
    transaction.on_commit(
        lambda: signals.send(signal, **facts), using=router.db_for_write(APIKey), robust=True
    )
