"""Notices: a key expires or has expired, its secret is old, nobody uses it.

Each is claimed by a row of its own, sent, and then marked as sent, in that order and in a
transaction each: of two runs at once one sends it, and what a run left behind that died or
failed is sent by another, an hour later or so. Between sending and marking a run that dies has
sent what will be sent again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from django.db import IntegrityError, router, transaction
from django.db.models import CharField, Exists, F, Func, OuterRef, Q, Value
from django.db.models.functions import Coalesce, Concat, Greatest

from django_apikeys import mails, services, signals
from django_apikeys.conf import conf
from django_apikeys.exceptions import Conflict
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.logs import logger
from django_apikeys.models import APIKey, APIKeyNotice, APIKeySecret
from django_apikeys.upserts import insert_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from django.db.models import Model

    Rows = Any  # a queryset: of an annotated one the stubs know nothing

# After so long a claim that did not end in a notice is somebody else's. Less than an hour: to
# a run of each hour the claims of the one before are a few seconds younger than that.
CLAIM_KEPT = timedelta(minutes=55)
# Of a key that expired before nobody is told: whoever begins to send notices has many.
EXPIRED_KEPT = timedelta(days=7)
# Keys that are looked up at once.
MOST_ROWS = 500

_NO_KEY = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told of a key; *about* is what makes it another one of its kind."""

    kind: str
    key_id: UUID
    key_name: str
    about: str


@dataclass(frozen=True, slots=True)
class Sent:
    """How many notices of each kind were sent, and how many could not be."""

    counts: Mapping[str, int]
    failed: int


def due(now: datetime) -> Iterator[Notice]:
    """Return the notices that ``send_due`` would send, kind by kind."""
    for kind in KINDS:
        yield from _due(kind, now)


def send_due(now: datetime) -> Sent:
    """Send each notice that is due, by signal and by e-mail; return how many.

    One that fails is logged, and holds up no others. Not to be called in a transaction,
    which would hide the claims from other runs: then a RuntimeError.
    Raises django.db.Error; what was sent until then stays sent.
    """
    _leave_to_commit()
    _once(lambda: None)
    clock = _clock(now)
    sent, failed = dict.fromkeys(KINDS, 0), 0
    for notice in due(now):
        outcome = _tell(notice, clock)
        sent[notice.kind] += outcome == "sent"
        failed += outcome == "failed"
    return Sent(sent, failed)


# --- What is due --------------------------------------------------------------------------


def _due(kind: str, now: datetime) -> Iterator[Notice]:
    keys, after = _unclaimed(kind, now).order_by("pk"), _NO_KEY
    columns = ("pk", "name", "about")
    while rows := list(keys.filter(pk__gt=after).values_list(*columns)[:MOST_ROWS]):
        for key_id, name, about in rows:
            yield Notice(kind, key_id, name, about)
        if len(rows) < MOST_ROWS:
            return
        after = rows[-1][0]


def _unclaimed(kind: str, now: datetime) -> Rows:
    """Return keys of which *kind* is due and neither sent nor being sent."""
    left_behind = Q(sent_at=None, claimed_at__lte=now - CLAIM_KEPT)
    taken = _claims_of(kind).exclude(left_behind)
    return KINDS[kind](_rows(APIKey), now).filter(~Exists(taken))


def _claims_of(kind: str) -> Rows:
    return _rows(APIKeyNotice).filter(key=OuterRef("pk"), kind=kind, about=OuterRef("about"))


class _Moment(Func):
    """A moment as text, to the second: ``2026-12-20T10:37:00Z``."""

    output_field = CharField()

    def as_sql(  # type: ignore[override]  # nobody hands on more
        self, compiler: Any, connection: Any, **context: Any
    ) -> Any:
        template = _MOMENT_AS_TEXT[connection.vendor]
        return super().as_sql(compiler, connection, template=template, **context)


_MOMENT_AS_TEXT = {
    # Cut, as it is stored; SQLite's own functions would round it.
    "sqlite": "(REPLACE(SUBSTR(%(expressions)s, 1, 19), ' ', 'T') || 'Z')",
    "postgresql": (
        "TO_CHAR(%(expressions)s AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    ),
    # Twice doubled: for the template, and for the driver.
    "mysql": "DATE_FORMAT(%(expressions)s, '%%%%Y-%%%%m-%%%%dT%%%%H:%%%%i:%%%%sZ')",
}


def _expiring(keys: Rows, now: datetime, *, days: int, but: int) -> Rows:
    # Of several marks that have passed the nearest, so that nobody gets three at once.
    return keys.filter(
        revoked_at=None,
        expires_at__gt=now + timedelta(days=but),
        expires_at__lte=now + timedelta(days=days),
    ).annotate(about=_Moment("expires_at"))


def _expired(keys: Rows, now: datetime) -> Rows:
    return keys.filter(
        revoked_at=None, expires_at__gt=now - EXPIRED_KEPT, expires_at__lte=now
    ).annotate(about=_Moment("expires_at"))


def _unused(keys: Rows, now: datetime) -> Rows:
    if conf.UNUSED_DAYS is None:
        return keys.annotate(about=Value("")).none()
    last_use = Greatest(Coalesce("totals__last_used_at", "created_at"), "created_at")
    about: Any = _Moment(last_use)
    is_in_use: Any = Q(enabled=True)
    if conf.UNUSED_ACTION == "disable":
        # Another notice than the one that told of the same and disabled nothing.
        about = Concat(about, Value(" disabled"))
        # One that a run has disabled, and died before it told of it, is told of as well.
        is_in_use |= Exists(_claims_of("unused").filter(sent_at=None))
    # Of a key that was used and never counted nobody knows when: the middleware is missing.
    uses = _rows(APIKeySecret).filter(key=OuterRef("pk"), first_used_at__isnull=False)
    is_counted = Q(totals__last_used_at__isnull=False) | ~Exists(uses)
    return (
        keys.filter(_not_expired(now), is_counted, revoked_at=None)
        .annotate(last_use=last_use, about=about)
        .filter(is_in_use, last_use__lte=now - timedelta(days=conf.UNUSED_DAYS))
    )


def _rotation_due(keys: Rows, now: datetime) -> Rows:
    return keys.filter(
        _not_expired(now),
        revoked_at=None,
        enabled=True,
        secrets__slot=CURRENT,
        secrets__created_at__lte=now - timedelta(days=conf.ROTATION_DAYS),
    ).annotate(about=F("secrets__public_id"))


def _not_expired(now: datetime) -> Q:
    return Q(expires_at=None) | Q(expires_at__gt=now)


# Each as (keys, now) to those of the keys that it is due of, with what it is about.
KINDS: Mapping[str, Callable[[Rows, datetime], Rows]] = {
    "expires_in_30": partial(_expiring, days=30, but=7),
    "expires_in_7": partial(_expiring, days=7, but=1),
    "expires_in_1": partial(_expiring, days=1, but=0),
    "expired": _expired,
    # Before the next: one that it disables need not be rotated.
    "unused": _unused,
    "rotation_due": _rotation_due,
}


# --- One notice ---------------------------------------------------------------------------


def _tell(notice: Notice, clock: Callable[[], datetime]) -> Literal["sent", "failed", "skipped"]:
    claim = _claim(notice, clock())
    if claim is None:
        return "skipped"
    try:
        # By now: it may have been revoked, used or rotated since it was found.
        key = _key_as_due(notice, clock())
        if key is None:
            _once(claim.delete)
            return "skipped"
        _send(notice, key)
    except Exception:  # noqa: BLE001 - of a template, a backend, the policy: the next may do
        logger.exception("The notice %s of API key %s was not sent.", notice.kind, notice.key_id)
        return "failed"
    _once(partial(claim.update, sent_at=clock()))
    return "sent"


def _claim(notice: Notice, now: datetime) -> Rows | None:
    """Return the row of *notice*, claimed at *now*; None: it is another run's."""
    names = {"key_id": notice.key_id, "kind": notice.kind, "about": notice.about}
    rows = _rows(APIKeyNotice).filter(**names, sent_at=None)
    if _inserted(APIKeyNotice(**names, claimed_at=now)) or _once(partial(_take_over, rows, now)):
        return rows.filter(claimed_at=now)
    return None


def _inserted(row: APIKeyNotice) -> bool:
    try:
        return bool(_once(lambda: insert_once(transaction.get_connection(_alias()), row)))
    except IntegrityError:  # its key is gone
        return False


def _take_over(rows: Rows, now: datetime) -> int:
    # The row of a run that died or failed. By its condition: of two that take it one does.
    return int(rows.filter(claimed_at__lte=now - CLAIM_KEPT).update(claimed_at=now))


def _key_as_due(notice: Notice, now: datetime) -> APIKey | None:
    """Return the key as it is, disabled where it is to be; None: nothing is to be told."""
    found = KINDS[notice.kind](APIKey.objects.listed(), now)
    key: APIKey | None = found.filter(pk=notice.key_id, about=notice.about).first()
    if key is not None and notice.kind == "unused" and conf.UNUSED_ACTION == "disable":
        try:
            key.enabled = services.update_key(key=key, enabled=False).enabled
        except Conflict:  # revoked in between
            return None
    return key


def _send(notice: Notice, key: APIKey) -> None:
    facts = {"key": key, "kind": notice.kind, "about": notice.about}
    signals.send(signals.key_notice, **facts)
    mails.send_notice(key, notice.kind)


def _clock(now: datetime) -> Callable[[], datetime]:
    """Return what tells the time, of which it is *now*.

    A run may take hours; what it claims late is not claimed long ago.
    """
    started = time.monotonic()
    return lambda: now + timedelta(seconds=time.monotonic() - started)


def _leave_to_commit() -> None:
    # Where AUTOCOMMIT is off, atomic() would leave the COMMIT of a claim to somebody else.
    connection = transaction.get_connection(_alias())
    if not connection.in_atomic_block and not connection.get_autocommit():
        connection.set_autocommit(True)


def _once(work: Callable[[], Any]) -> Any:
    with transaction.atomic(using=_alias(), durable=True):
        return work()


def _alias() -> str:
    return router.db_for_write(APIKeyNotice)


def _rows(model: type[Model]) -> Rows:
    return model._base_manager.using(_alias())
