"""Secrets are rotated and retired; what verification notes of one is written here too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from django.db import router
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys import signals, validation
from django_apikeys.actors import Actor
from django_apikeys.conf import conf
from django_apikeys.exceptions import Conflict
from django_apikeys.keys import format as secret_format
from django_apikeys.keys.restrictions import CURRENT, PREVIOUS, ends_at
from django_apikeys.models import APIKey, APIKeySecret
from django_apikeys.services.changes import (
    IssuedSecret,
    add_secret,
    announce,
    forget_texts,
    in_transaction,
    lock,
    locked,
    record,
)
from django_apikeys.services.keys import revoke_row

if TYPE_CHECKING:
    from uuid import UUID

    from django_apikeys.authority import Authority
    from django_apikeys.services.changes import ActorLike

# A retired secret that comes back leaves one Event in so long.
REUSE_TOLD_EVERY = timedelta(hours=1)
# Why a key is revoked then, whatever the language of who sent it.
SECRET_REUSED = "A retired secret was used."  # noqa: S105 - a reason, not a secret


def rotate_key(
    *,
    key: APIKey,
    actor: ActorLike = None,
    authority: Authority | None = None,
    grace_seconds: int | None = None,
    starts: Literal["now", "first_use"] = "now",
    compromised: bool = False,
    current: str | None = None,
    reason: str = "",
) -> IssuedSecret:
    """Return *key* with a new secret; the one before lives on for its grace.

    grace_seconds: 0 to 2 592 000, default a day; it ends with the key at the latest.
    starts: the grace begins now, or when the new secret is first used. compromised: every
    earlier secret ends at once. current: a public id; refused where it is no longer that
    of the current secret. Where two secrets are alive the older ends; but a current one
    that was never used is replaced, and the older has the new grace: so a rotation whose
    answer was lost is repeated.

    Raises InvalidInput; BeyondCeiling; NotPermitted; KeyRefused where the key through
    which it is asked is dead by now; Conflict where *key* is not active, or its secret is
    another than ``key.current_secret``, which is loaded when it is first touched.
    """
    asked = validation.clean_rotation(
        grace_seconds=grace_seconds,
        starts=starts,
        compromised=compromised,
        current=current,
        reason=reason,
    )
    who = Actor.of(actor)
    started_from = key.current_secret
    with in_transaction():
        fresh = locked(key, authority)
        now = timezone.now()  # of now, however long the lock was waited for
        require_active(fresh, now)
        if authority is not None:
            authority.check("rotate", fresh, fresh)
        before, previous = _slots(fresh)
        _require_same(before, started_from, asked["current"])
        by_itself = who.key_id == fresh.pk
        heir = None
        if not asked["compromised"]:
            heir = _heir(before, previous, now, current_was_used=by_itself)
        for secret in (before, previous):
            if secret is not None and secret is not heir:
                _retire(secret, now)
        if heir is not None and not _give_grace(heir, fresh, asked, now):
            heir = None
        parts = secret_format.generate(conf.PREFIXES[0], fresh.environment)
        waits = asked["grace_seconds"] if asked["starts"] == "first_use" and heir else None
        issued = add_secret(fresh, parts, now, grace_seconds=waits)
        # With its condition: where rows cannot be locked a revoke may have come in between.
        if not APIKey.objects.filter(pk=fresh.pk, revoked_at=None).update(updated_at=now):
            raise Conflict(_("This key is revoked, for good."))
        fresh.updated_at = now
        fresh.live_secrets = [issued, *([] if heir is None else [heir])]
        changes = {"public_id": [before and before.public_id, parts.public_id]}
        changes |= {name: [None, asked[name]] for name in _TOLD if asked[name]}
        record("rotated", fresh, who, reason=asked["reason"], changes=changes)
        announce(
            signals.key_rotated,
            key=fresh,
            actor=who,
            reason=asked["reason"],
            compromised=asked["compromised"],
            by_itself=by_itself,
        )
    # Whoever goes on with the same object starts from what they have just made.
    key.live_secrets = fresh.live_secrets
    return IssuedSecret(fresh, parts.secret)


def retire_secret(
    *,
    key: APIKey,
    actor: ActorLike = None,
    authority: Authority | None = None,
    previous: str | None = None,
    reason: str = "",
) -> APIKey:
    """Return *key*, whose previous secret ends now.

    previous: a public id; refused where it is no longer that of the previous secret.

    Raises InvalidInput where *reason* is too long; BeyondCeiling; NotPermitted; KeyRefused
    as ``rotate_key``; Conflict where there is no previous secret, or another than when *key*
    was loaded, or *key* is revoked.
    """
    reason = validation.clean({"reason": reason})["reason"]
    who = Actor.of(actor)
    seen = key.previous_secret_at(timezone.now())
    named = (seen and seen.public_id) if previous is None else previous
    with in_transaction():
        fresh = locked(key, authority)
        now = timezone.now()
        if fresh.revoked_at is not None:
            raise Conflict(_("This key is revoked, for good."))
        if authority is not None:
            # It gives nobody anything: a person needs no more than the policy's word.
            authority.check("revoke", fresh, fresh)
        current, ending = _slots(fresh)
        if ending is None or ending.is_retired_at(now):
            raise Conflict(_("This key has no previous secret."))
        if named != ending.public_id:
            # A rotation came in between: this one is in use, and was just given its grace.
            raise Conflict(_ANOTHER)
        _retire(ending, now)
        APIKey.objects.filter(pk=fresh.pk).update(updated_at=now)
        fresh.updated_at = now
        fresh.live_secrets = [] if current is None else [current]
        changes = {"previous_secret": [ending.masked, None]}
        record("retired", fresh, who, reason=reason, changes=changes)
        announce(signals.secret_retired, key=fresh, actor=who, reason=reason)
    key.live_secrets = fresh.live_secrets
    return fresh


def mark_first_use(secret_id: int, now: datetime, *, begins_grace_in: UUID | None = None) -> None:
    """Note that a secret was used for the first time; only the first one counts.

    begins_grace_in: the key whose previous secret has waited for this.
    """
    if begins_grace_in is not None:
        _begin_grace(begins_grace_in, secret_id, now)
        return
    APIKeySecret.objects.filter(pk=secret_id, first_used_at=None).update(first_used_at=now)


def rehash_secret(secret_id: int, *, old: str, new: str) -> None:
    """Replace the digest *old* of a secret by *new*, both of the same text.

    By an UPDATE of that column alone, while it is still *old*: a revoke, a rotation or
    another rehash that came in between stays as it is.
    """
    APIKeySecret.objects.filter(pk=secret_id, digest=old).update(digest=new)


def note_reuse(secret_id: int, now: datetime, *, address: str = "", user_agent: str = "") -> None:
    """Leave an Event of a retired secret that came back, one in an hour.

    With APIKEYS_REVOKE_ON_REUSE the key is revoked. *address*, *user_agent*: of whoever
    sent it.
    """
    who = Actor("system", address=address, user_agent=user_agent)
    with in_transaction():
        # From the primary: a replica that lags may not have it yet.
        rows = APIKeySecret.objects.using(router.db_for_write(APIKeySecret)).filter(pk=secret_id)
        secret = rows.first()
        # The key before its secret, as everywhere.
        key = None if secret is None else lock([secret.key_id], None).get(secret.key_id)
        if secret is None or key is None:
            return
        # Conditional: of many requests at once one is told of.
        untold = Q(reused_at=None) | Q(reused_at__lte=now - REUSE_TOLD_EVERY)
        if not rows.filter(untold).update(reused_at=now):
            return
        current = key.current_secret
        changes = {"public_id": [secret.public_id, current and current.public_id]}
        record("retired_secret_used", key, who, changes=changes)
        announce(signals.retired_secret_used, key=key, public_id=secret.public_id, address=address)
        if conf.REVOKE_ON_REUSE:
            revoke_row(key, who, SECRET_REUSED)
            forget_texts([key])


_ANOTHER = _("The secret of this key is another by now: look at the key again.")
# What an Event says of a rotation, beside the two public ids.
_TOLD = ("grace_seconds", "starts", "compromised")


def require_active(key: APIKey, now: datetime) -> None:
    """Raise Conflict unless *key* is active at *now*."""
    problems = {
        "revoked": _("This key is revoked, for good."),
        "disabled": _("This key is disabled: enable it first."),
        "expired": _("This key has expired: give it a later end first."),
    }
    status = key.status_at(now)
    if status != "active":
        raise Conflict(problems[status])


def _slots(key: APIKey) -> tuple[APIKeySecret | None, APIKeySecret | None]:
    """Return the current and the previous secret of *key*, locked; the latter may have ended."""
    rows = APIKeySecret.objects.select_for_update().filter(key=key, slot__isnull=False)
    found = {}
    for row in rows.order_by("pk"):
        row.key = key
        found[row.slot] = row
    return found.get(CURRENT), found.get(PREVIOUS)


def _require_same(
    row: APIKeySecret | None, started_from: APIKeySecret | None, named: str | None
) -> None:
    """Raise Conflict unless *row* is what the caller has seen, and named."""
    public_id = row and row.public_id
    if public_id != (started_from and started_from.public_id) or named not in (None, public_id):
        raise Conflict(_ANOTHER)


def _heir(
    current: APIKeySecret | None,
    previous: APIKeySecret | None,
    now: datetime,
    *,
    current_was_used: bool,
) -> APIKeySecret | None:
    """Return the secret that lives on beside the new one.

    current_was_used: by this very request, whose first use may not be noted yet.
    """
    if current is None or previous is None or previous.is_retired_at(now):
        return current
    return current if current_was_used or current.first_used_at is not None else previous


def _retire(secret: APIKeySecret, now: datetime) -> None:
    ended = secret.is_retired_at(now)
    _move(secret, slot=None, retires_at=secret.retires_at if ended else now)


def _give_grace(secret: APIKeySecret, key: APIKey, asked: dict[str, Any], now: datetime) -> bool:
    """Make *secret* the previous one; False where its grace is over at once."""
    if asked["starts"] == "first_use":
        _move(secret, slot=PREVIOUS, retires_at=None)
        return True
    end = ends_at(now + timedelta(seconds=asked["grace_seconds"]), key.expires_at)
    lives = end is not None and end > now
    _move(secret, slot=PREVIOUS if lives else None, retires_at=end if lives else now)
    return lives


def _move(secret: APIKeySecret, *, slot: int | None, retires_at: datetime | None) -> None:
    # By its place, which the caller has seen: where rows cannot be locked another rotation
    # may have come in between.
    rows = APIKeySecret.objects.filter(pk=secret.pk, slot=secret.slot)
    # Whatever it moves to, it is current no more: its text is never shown again.
    if not rows.update(slot=slot, retires_at=retires_at, encrypted=""):
        raise Conflict(_ANOTHER)
    secret.slot, secret.retires_at, secret.encrypted = slot, retires_at, ""


def _begin_grace(key_id: UUID, secret_id: int, now: datetime) -> None:
    alias = router.db_for_write(APIKeySecret)
    with in_transaction():
        rows = APIKeySecret.objects.using(alias).filter(key_id=key_id, slot__isnull=False)
        found = {row.pk: row for row in rows.order_by("pk").select_for_update()}
        current = found.get(secret_id)
        if current is None or current.slot != CURRENT or current.first_used_at is not None:
            return
        keys = APIKey.objects.using(alias).filter(pk=key_id)
        expires_at = keys.values_list("expires_at", flat=True).first()
        end = ends_at(now + timedelta(seconds=current.grace_seconds or 0), expires_at)
        rows.filter(slot=PREVIOUS, retires_at=None).update(retires_at=end)
        rows.filter(pk=secret_id, first_used_at=None).update(first_used_at=now)
