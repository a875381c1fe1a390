"""Secrets that are kept are shown again, forgotten and encrypted anew: the retrievable mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys import logs, signals
from django_apikeys.actors import Actor
from django_apikeys.conf import cipher, conf
from django_apikeys.exceptions import Conflict, MalformedKey, NotPermitted
from django_apikeys.keys.format import parse
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.services.changes import (
    IssuedSecret,
    announce,
    in_transaction,
    locked,
    record,
)
from django_apikeys.services.secrets import require_active

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from django.db.models import QuerySet

    from django_apikeys.authority import Authority
    from django_apikeys.keys.masking import Secret
    from django_apikeys.services.changes import ActorLike

# Rows at a time, which a first use may wait for.
MOST_ROWS = 500


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """How many kept secrets are under the newest key now, and how many no key reads."""

    rewritten: int
    unreadable: int


def require_revealable(key: APIKey) -> None:
    """Raise Conflict where there is no secret of *key* that could be revealed.

    For whoever asks for more first: a password, say.
    """
    _require_revealable(key, key.current_secret, timezone.now())


def last_reveal(key: APIKey) -> str:
    """Return the id of the last event that says the secret of *key* was shown; else "".

    For a form that is not to be answered twice: a browser sends it again when its answer is
    reloaded, and the password in it.
    """
    shown = APIKeyEvent.objects.of_key(key).filter(type="revealed").order_by("-pk")
    return str(shown.values_list("pk", flat=True).first() or "")


def kept_secrets(keys: Collection[APIKey]) -> Collection[Any]:
    """Return the primary keys of those of *keys* whose current secret is kept; one query."""
    if not conf.RETRIEVABLE:
        return ()
    return set(_kept().filter(key__in=keys, slot=CURRENT).values_list("key_id", flat=True))


def reveal_secret(
    *, key: APIKey, actor: ActorLike = None, authority: Authority | None = None
) -> IssuedSecret:
    """Return *key* with its current secret once more, in the retrievable mode.

    That *actor* has logged in a short while ago is up to whoever calls, as it is up to the
    request.

    Raises NotPermitted, for every key that asks too; BeyondCeiling; Conflict where *key* is
    not active, or its secret was not kept, or cannot be read: the key itself works on.
    """
    who = Actor.of(actor)
    if who.kind == "key" or (authority is not None and authority.key_id is not None):
        raise NotPermitted(_("No API key reveals a secret."))
    with in_transaction():
        fresh = locked(key, authority)
        if authority is not None:
            authority.check("reveal", fresh, fresh)
        secrets = APIKeySecret.objects.select_for_update()
        row = secrets.filter(key=fresh, slot=CURRENT).first()
        kept = _require_revealable(fresh, row, timezone.now())
        kept.key = fresh
        secret = _read(kept)
        record("revealed", fresh, who)
        announce(signals.key_revealed, key=fresh, actor=who)
    return IssuedSecret(fresh, secret)


def forget_secrets() -> int:
    """Empty what is kept of every secret; return how many there were. Their keys work on."""
    forgotten = after = 0
    while True:
        with in_transaction():
            # Locked in the order in which a rotation locks those of a key.
            rows = _kept().select_for_update().filter(pk__gt=after).order_by("pk")
            ids = list(rows.values_list("pk", flat=True)[:MOST_ROWS])
            forgotten += _kept().filter(pk__in=ids).update(encrypted="")
        if not ids:
            return forgotten
        after = ids[-1]


def reencrypt_secrets() -> Reencrypted:
    """Encrypt with the newest key what is kept under another.

    Raises ImproperlyConfigured where there is no key.
    """
    made = cipher()
    rewritten = unreadable = after = 0
    others = _kept().exclude(encrypted__startswith=f"{made.current}$").order_by("pk")
    while rows := list(others.filter(pk__gt=after).values_list("pk", "encrypted")[:MOST_ROWS]):
        for pk, text in rows:
            anew = made.reencrypt(text)
            if anew is None:
                unreadable += 1
            else:
                # By what it was: one that has been replaced or forgotten since stays so.
                rewritten += _kept().filter(pk=pk, encrypted=text).update(encrypted=anew)
        after = rows[-1][0]
    return Reencrypted(rewritten, unreadable)


def _require_revealable(key: APIKey, row: APIKeySecret | None, now: datetime) -> APIKeySecret:
    """Return *row*, the current secret of *key*, which is kept."""
    if not conf.RETRIEVABLE:
        raise Conflict(_("Secrets are not kept here, and cannot be shown again."))
    require_active(key, now)
    if row is None or not row.encrypted:
        raise Conflict(_("This secret was not kept, and cannot be shown again: rotate the key."))
    return row


def _read(row: APIKeySecret) -> Secret:
    try:
        secret, trouble = cipher().decrypt(row.encrypted), "none of them reads it."
    except ImproperlyConfigured as error:
        secret, trouble = None, str(error)
    if secret is None:
        logs.once_a_minute(
            "reveal",
            "The secret %s cannot be revealed with APIKEYS_ENCRYPTION_KEYS: %s",
            row.public_id,
            trouble,
        )
        raise Conflict(_("This secret cannot be read with the encryption keys of this site."))
    if not _is_of(secret, row):
        logs.once_a_minute(
            "another", "What is kept of the secret %s is not that secret.", row.public_id
        )
        raise Conflict(_("What was kept of this secret is not this secret: rotate the key."))
    return secret


def _is_of(secret: Secret, row: APIKeySecret) -> bool:
    # Whoever can write to the table could move what is kept of another key here, with its
    # digest; the public id stands in the secret itself.
    try:
        public_id = parse(secret, (row.prefix,), (row.key.environment,)).public_id
    except MalformedKey:
        return False
    return public_id == row.public_id and conf.hasher.verify(secret, row.digest)


def _kept() -> QuerySet[APIKeySecret]:
    primary = router.db_for_write(APIKeySecret)
    return APIKeySecret.objects.using(primary).exclude(encrypted="")
