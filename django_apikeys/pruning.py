"""What is not kept for ever: keys deleted long ago, and counters that are old.

A few rows in each transaction, so that nothing waits for long beside it. What was done
when it is stopped stays done; the next run goes on from there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, OperationalError, router, transaction
from django.db.models import Exists, OuterRef, Q

from django_apikeys import logs
from django_apikeys.conf import conf
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeySecret,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
)
from django_apikeys.upserts import Upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.db.models import Model, QuerySet

    Rows = QuerySet[Any]
    Watcher = Callable[[str, int, int], None]

_T = TypeVar("_T")

# Rows of one transaction.
MOST_ROWS = 1000
# A flush is tried again under its id for as long as its process lives; that of a recorder
# that outlives its processes, until it is next emptied.
BATCHES_KEPT = timedelta(days=7)
# Beside flushes MariaDB finds deadlocks in the gaps of an index, several in a row.
TRIES = 10

_NO_KEY = UUID(int=0)
_USAGE_OF_A_DAY = Upsert(
    APIKeyUsage, ("key_id", "starts_at", "hours", "route", "method", "outcome"), ("requests",)
)


@dataclass(frozen=True, slots=True)
class Step:
    """count: how many rows there are to do. run: do it; yields the rows of each transaction."""

    name: str
    count: Callable[[datetime], int]
    run: Callable[[datetime], Iterator[int]]


def due(now: datetime) -> dict[str, int]:
    """Return how many rows ``prune`` would do of what, by the names that it returns.

    A row of usage that is both old and of a key that is gone is in both.
    """
    return {step.name: step.count(now) for step in STEPS}


def prune(now: datetime, watch: Watcher | None = None) -> dict[str, int]:
    """Delete what need not be kept any more; return how many rows it was of what.

    ``keys``: deleted longer ago than APIKEYS_DELETED_DAYS, with their secrets. ``secrets``:
    retired longer ago than APIKEYS_RETIRED_DAYS; such a one is unknown then. ``texts``: kept
    of secrets that have ended, and emptied. ``counters``: of keys that are gone. ``usage``:
    older than APIKEYS_USAGE_DAYS. ``hours``: rows of an hour that were rolled into days, older
    than APIKEYS_USAGE_HOURLY_DAYS. ``addresses``: not seen for APIKEYS_USAGE_DAYS.
    ``batches``: ids of flushes, older than 7 days.

    watch: called after each transaction with the name, the rows done and those to do.
    Raises django.db.Error; what was done until then stays done.
    """
    done = Counter[str]()
    for step in STEPS:
        to_do = step.count(now) if watch else 0
        for rows in step.run(now):
            done[step.name] += rows
            if watch:
                watch(step.name, done[step.name], to_do)
    return {step.name: done[step.name] for step in STEPS}


# --- Keys, and the counters of those that are gone ----------------------------------------


def _deleted_keys(now: datetime) -> Rows:
    return _rows(APIKey).filter(deleted_at__lt=now - timedelta(days=conf.DELETED_DAYS))


def _delete_keys(now: datetime) -> Iterator[int]:
    keys, after = _deleted_keys(now).order_by("pk"), _NO_KEY
    while ids := list(keys.filter(pk__gt=after).values_list("pk", flat=True)[:MOST_ROWS]):
        yield _delete_keys_of(ids)
        after = ids[-1]


def _delete_keys_of(ids: Sequence[UUID]) -> int:
    """Delete these keys; return how many they were without those that must stay."""
    try:
        # By the ORM: the host may have hung rows of its own on a key.
        return _in_transaction(partial(_delete, _rows(APIKey).filter(pk__in=ids)))
    except IntegrityError:
        if len(ids) > 1:
            return sum(_delete_keys_of([id_]) for id_ in ids)
        logs.once_a_minute(
            "prune", "A deleted API key is kept, as rows of the project need it: %s.", ids[0]
        )
        return 0


def _gone(counters: type[Model], rows: type[Model], *, but: Rows | None = None) -> Rows:
    """Return the rows of *counters* whose row is not there; but: rows that are taken for gone."""
    there = _rows(rows).filter(pk=OuterRef("pk"))
    if but is not None:
        there = there.exclude(pk__in=but.values("pk"))
    return _rows(counters).filter(~Exists(there))


def _count_gone(now: datetime) -> int:
    keys = _gone(APIKeyTotals, APIKey, but=_deleted_keys(now))
    secrets = _rows(APIKeySecret).filter(key__in=_deleted_keys(now))
    counters = (
        keys,
        _gone(APIKeySecretTotals, APIKeySecret, but=secrets),
        _rows(APIKeyUsage).filter(key_id__in=keys.values("pk")),
        _rows(APIKeyAddress).filter(key_id__in=keys.values("pk")),
    )
    return sum(rows.count() for rows in counters)


def _delete_gone(now: datetime) -> Iterator[int]:
    # Each flush that counts for a key writes its totals: by these, of which there is one
    # for a key, the rest is found.
    totals = _gone(APIKeyTotals, APIKey).order_by("pk")
    while ids := list(totals.values_list("pk", flat=True)[:MOST_ROWS]):
        for key_id in ids:
            yield from _delete_counters(key_id)
    yield from _delete_in_batches(_gone(APIKeySecretTotals, APIKeySecret), "pk")


def _delete_counters(key_id: UUID) -> Iterator[int]:
    usage = _rows(APIKeyUsage).filter(key_id=key_id)
    addresses = _rows(APIKeyAddress).filter(key_id=key_id)
    yield from _delete_in_batches(usage, "starts_at")
    yield from _delete_in_batches(addresses, "pk")
    # The totals before what a flush has added since: another that is under way either has
    # committed by then, or waits for their row and makes a new one, which the next run finds.
    last = (_rows(APIKeyTotals).filter(pk=key_id), usage, addresses)
    yield _in_transaction(lambda: sum(map(_delete, last)))


# --- Secrets ------------------------------------------------------------------------------


def _old_secrets(now: datetime) -> Rows:
    # One whose grace is over has its place until the next rotation.
    ended = _rows(APIKeySecret).exclude(slot=CURRENT)
    return ended.filter(retires_at__lt=now - timedelta(days=conf.RETIRED_DAYS))


def _stray_texts(now: datetime) -> Rows:
    # A process that dies as soon as it has revoked a key may leave one; nothing shows it.
    kept = _rows(APIKeySecret).exclude(encrypted="")
    return kept.filter(~Q(slot=CURRENT) | Q(slot=None) | Q(key__revoked_at__isnull=False))


def _empty_texts(now: datetime) -> Iterator[int]:
    texts = _stray_texts(now).order_by("pk")
    while ids := list(texts.values_list("pk", flat=True)[:MOST_ROWS]):
        rows = _rows(APIKeySecret).filter(pk__in=ids)
        yield _in_transaction(partial(rows.update, encrypted=""))


# --- Usage --------------------------------------------------------------------------------


def _old_usage(now: datetime) -> Rows:
    return _rows(APIKeyUsage).filter(starts_at__lt=_midnight(now, conf.USAGE_DAYS))


def _old_hours(now: datetime) -> Rows:
    return _rows(APIKeyUsage).filter(
        hours=1,
        starts_at__gte=_midnight(now, conf.USAGE_DAYS),
        starts_at__lt=_midnight(now, conf.USAGE_HOURLY_DAYS),
    )


def _roll_up(now: datetime) -> Iterator[int]:
    hours = _old_hours(now).order_by("starts_at", "pk")
    rolled: list[APIKeyUsage] = []
    while True:
        # Past the days there are already, which the index has among the hours.
        rest = hours.filter(starts_at__gte=rolled[-1].starts_at) if rolled else hours
        rolled = _in_transaction(partial(_roll_up_some, rest))
        if not rolled:
            return
        yield len(rolled)


def _roll_up_some(hours: Rows) -> list[APIKeyUsage]:
    # Locked, so that what is added to the day is what is deleted: a flush that adds to one
    # of these waits, and then makes a new row.
    rows = list(hours.select_for_update()[:MOST_ROWS])
    days = Counter[tuple[Any, ...]]()
    for row in rows:
        day = row.starts_at.astimezone(UTC).replace(hour=0)
        days[row.key_id, day, 24, row.route, row.method, row.outcome] += row.requests
    _delete(_rows(APIKeyUsage).filter(pk__in=[row.pk for row in rows]))
    connection = transaction.get_connection(_alias())
    _USAGE_OF_A_DAY.run(connection, [(*name, requests) for name, requests in days.items()])
    return rows


# --- Addresses and batches ----------------------------------------------------------------


def _old_addresses(now: datetime) -> Rows:
    return _rows(APIKeyAddress).filter(last_seen_at__lt=_midnight(now, conf.USAGE_DAYS))


def _old_batches(now: datetime) -> Rows:
    return _rows(FlushedBatch).filter(at__lt=now - BATCHES_KEPT)


def _delete_in_batches(rows: Rows, by: str) -> Iterator[int]:
    """Delete *rows* in the order of a column that has an index; yield how many each time."""
    rest = rows.order_by(by)
    while found := list(rest.values_list("pk", by)[:MOST_ROWS]):
        # By their condition too: one of them may have come to use since.
        yield _in_transaction(partial(_delete, rows.filter(pk__in=[row[0] for row in found])))
        rest = rest.filter(**{f"{by}__gte": found[-1][1]})


def _delete(rows: Rows) -> int:
    """Return how many of *rows* themselves were deleted."""
    return rows.delete()[1].get(rows.model._meta.label, 0)


def _in_transaction(work: Callable[[], _T]) -> _T:
    """Return what *work* returns; a deadlock with a flush, say, is tried again."""
    for _failed in range(1, TRIES):
        try:
            return _once(work)
        except OperationalError:
            connection = transaction.get_connection(_alias())
            if connection.in_atomic_block:
                raise
            # What is left of the connection may be in a state of its own.
            connection.close()
    return _once(work)


def _once(work: Callable[[], _T]) -> _T:
    with transaction.atomic(using=_alias(), durable=True):
        return work()


def _alias() -> str:
    return router.db_for_write(APIKeyTotals)


def _rows(model: type[Model]) -> Rows:
    return model._base_manager.using(_alias())


def _midnight(now: datetime, days: int) -> datetime:
    """Return when the day began, in UTC, that was so many *days* ago."""
    return datetime.combine(now.astimezone(UTC).date() - timedelta(days=days), time(), UTC)


STEPS = (
    # Keys before counters, which are then those of keys that are gone; what is too old
    # before what is rolled up.
    Step("keys", lambda now: _deleted_keys(now).count(), _delete_keys),
    Step(
        "secrets",
        lambda now: _old_secrets(now).count(),
        lambda now: _delete_in_batches(_old_secrets(now), "pk"),
    ),
    Step("texts", lambda now: _stray_texts(now).count(), _empty_texts),
    Step("counters", _count_gone, _delete_gone),
    Step(
        "usage",
        lambda now: _old_usage(now).count(),
        lambda now: _delete_in_batches(_old_usage(now), "starts_at"),
    ),
    Step("hours", lambda now: _old_hours(now).count(), _roll_up),
    Step(
        "addresses",
        lambda now: _old_addresses(now).count(),
        lambda now: _delete_in_batches(_old_addresses(now), "pk"),
    ),
    Step(
        "batches",
        lambda now: _old_batches(now).count(),
        lambda now: _delete_in_batches(_old_batches(now), "at"),
    ),
)
