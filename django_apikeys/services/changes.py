"""What every change is made of: its transaction, the rows it locks, its Event and signal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import router, transaction
from django.utils.translation import gettext_lazy as _

from django_apikeys import logs, signals
from django_apikeys.conf import cipher, conf
from django_apikeys.exceptions import Conflict
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret

if TYPE_CHECKING:
    import uuid
    from collections.abc import Collection, Mapping, Sequence

    from django.contrib.auth.base_user import AbstractBaseUser
    from django.db.models import QuerySet
    from django.dispatch import Signal

    from django_apikeys.actors import Actor
    from django_apikeys.authority import Authority
    from django_apikeys.keys.format import ParsedSecret
    from django_apikeys.keys.grants import Grant
    from django_apikeys.keys.masking import Secret

    ActorLike = Actor | Grant | AbstractBaseUser | None


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


def locked(key: APIKey, authority: Authority | None) -> APIKey:
    """Return the row of *key* as it is now, locked: the caller's may be older than a revoke.

    Raises as ``lock``, and Conflict where it is gone.
    """
    return existing(key, lock([key.pk], authority))


def lock(ids: Collection[uuid.UUID], authority: Authority | None) -> dict[uuid.UUID, APIKey]:
    """Keep the rows of these keys from others until the transaction ends; return them.

    In one order for all, and with the key through which is asked among them: two that
    manage each other must not deadlock. Raises what that key's ``confirm`` raises.
    """
    own_id = None if authority is None else authority.key_id
    wanted = {*ids} if own_id is None else {*ids, own_id}
    keys = APIKey.objects.select_for_update().filter(pk__in=wanted).order_by("pk")
    rows = {row.pk: row for row in (keys if wanted else ())}
    if authority is not None:
        authority.confirm(None if own_id is None else rows.get(own_id))
    return {id_: rows[id_] for id_ in ids if id_ in rows}


def existing(key: APIKey, rows: Mapping[uuid.UUID, APIKey]) -> APIKey:
    """Return the row of *key*; raises Conflict where it is gone."""
    if key.pk not in rows:
        raise Conflict(_("This key is gone."))
    return rows[key.pk]


def lock_owner(owner: Any) -> None:
    """Let one at a time go on for each owner, to the commit: else two count the same keys."""
    connection = transaction.get_connection(router.db_for_write(APIKey))
    no_key = connection.features.has_select_for_no_key_update
    # Not type(owner): it may be the lazy object of request.user.
    owners = apps.get_model(conf.OWNER_MODEL)._base_manager
    rows = owners.using(connection.alias).filter(pk=owner.pk)
    list(rows.select_for_update(no_key=no_key).values_list("pk"))


def add_secret(
    key: APIKey, parts: ParsedSecret, now: datetime, *, grace_seconds: int | None = None
) -> APIKeySecret:
    """Store *parts* as the current secret of *key*, which must have none.

    grace_seconds: of the previous one, which begins when this one is first used.
    """
    return APIKeySecret.objects.create(
        key=key,
        prefix=parts.prefix,
        public_id=parts.public_id,
        last_four=parts.last_four,
        digest=conf.hasher.digest(parts.secret),
        encrypted=_to_keep(parts.secret),
        slot=CURRENT,
        created_at=now,
        grace_seconds=grace_seconds,
    )


def _to_keep(secret: Secret) -> str:
    """Return the text of *secret*, encrypted, in the retrievable mode; else nothing."""
    if not conf.RETRIEVABLE:
        return ""
    try:
        return cipher().encrypt(secret)
    except ImproperlyConfigured as error:
        # Whoever replaces a secret that has leaked must not wait for a setting.
        logs.once_a_minute("keep", "A new secret was not kept, to be revealed: %s", error)
        return ""


def forget_texts(keys: Collection[APIKey]) -> None:
    """Empty what is kept of the secrets of *keys*, which are revoked by this transaction.

    One that another transaction has locked is looked at again once this has committed, and
    left to ``prune`` where it still is: a revoke must not wait for anybody.
    """
    connection = transaction.get_connection(router.db_for_write(APIKeySecret))
    of_keys = APIKeySecret.objects.using(connection.alias).filter(key__in=keys)
    kept = of_keys.exclude(encrypted="")
    # Without a lock first: where nothing is kept no request waits for this either.
    if kept.exists():
        _empty(kept)
    transaction.on_commit(lambda: _empty(kept), using=connection.alias, robust=True)


def _empty(kept: QuerySet[APIKeySecret]) -> None:
    """Empty those of *kept* that nobody has locked; ``prune`` finds the rest."""
    skips = transaction.get_connection(kept.db).features.has_select_for_update_skip_locked
    with in_transaction():
        # By their ids: an UPDATE of MariaDB waits for rows that it looks at and leaves alone.
        free = kept.select_for_update(skip_locked=skips)
        if ids := list(free.values_list("pk", flat=True)):
            APIKeySecret.objects.filter(pk__in=ids).update(encrypted="")


def in_transaction() -> transaction.Atomic:
    """Return the transaction of a change; within another one, a savepoint."""
    return transaction.atomic(using=router.db_for_write(APIKey))


def record(
    type_: str,
    key: APIKey,
    actor: Actor,
    *,
    reason: str = "",
    changes: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Leave an Event of what was done to *key*; changes: {field: (before, after)}."""
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


def _as_json(value: Any) -> Any:
    # Whatever zone it came in: an event tells of moments as the API does.
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def announce(signal: Signal, **facts: Any) -> None:
    """Send *signal* once the transaction has committed."""
    transaction.on_commit(
        lambda: signals.send(signal, **facts), using=router.db_for_write(APIKey), robust=True
    )
