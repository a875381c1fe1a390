"""A batch of counters becomes rows: once, whatever is tried again, and what it tells is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import DataError, connections, router, transaction
from django.db import Error as DatabaseTrouble
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from django_apikeys import logs, signals
from django_apikeys.batches import OTHER, Spent
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
    OwnerQuota,
)
from django_apikeys.quotas import raise_quotas
from django_apikeys.upserts import CHUNK, Upsert, insert_once

if TYPE_CHECKING:
    import uuid
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date, datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

    from django_apikeys.batches import Batch

# Addresses that are kept of a key, those seen last; looked after once so many more are there.
MOST_ADDRESSES = 100
ADDRESSES_TOO_MANY = 10
# New addresses of a key that one flush tells of.
MOST_TOLD = 10
# A flush that fails is tried again so many times at once, and later with the next one.
TRIES = 3
# Percent of a quota at which ``quota_reached`` is sent.
QUOTA_MARKS = (80, 100)

_KEYS = Upsert(
    APIKeyTotals, ("key",), ("requests", "errors"), latest=("last_used_at", "last_used_ip")
)
_SECRETS = Upsert(
    APIKeySecretTotals,
    ("secret",),
    ("requests", "in_grace"),
    latest=("last_used_at", "last_used_ip"),
)
_USAGE = Upsert(
    APIKeyUsage, ("key_id", "starts_at", "hours", "route", "method", "outcome"), ("requests",)
)
_ADDRESSES = Upsert(
    APIKeyAddress,
    ("key_id", "address"),
    ("requests",),
    latest=("last_seen_at",),
    earliest=("first_seen_at",),
)
_QUOTAS = Upsert(OwnerQuota, ("owner_id", "month"), ("units", "requests"))

# What no later try changes: a text that is too long, a NUL, a number out of range.
# Not IntegrityError: a column that another release has added comes to that, for all rows.
_UNFIT = (DataError, ValueError, OverflowError)


def apply(batch: Batch) -> None:
    """Add *batch* to the tables, unless that was done before.

    In a transaction of its own; a deadlock, a timeout and a COMMIT without an answer are
    tried again. A row that the database cannot hold is looked for by halves, and dropped
    where others of the batch are stored: it must not keep those out for ever.
    Raises django.db.Error where the database does not come back, and what it says where it
    can hold none of the rows; what is then tried again, here or elsewhere, is the same batch.
    """
    stored, unfit = _stored(batch)
    if unfit and not stored:
        raise unfit[0]
    for error in unfit:
        logs.logger.error("Usage of an API key was dropped, it cannot be stored: %r", error)


def _stored(batch: Batch) -> tuple[int, list[Exception]]:
    """Return how many rows of *batch* are stored, and why others cannot be."""
    try:
        _apply(batch)
    except _UNFIT as error:
        if len(batch) == 1:
            return 0, [error]
        # The ids of the halves follow from the batch's: one of them may be done already.
        first, second = map(_stored, batch.halves())
        return first[0] + second[0], first[1] + second[1]
    # Once: a receiver may flush, and meet this batch again.
    news, batch.news = batch.news, None
    if news is not None:
        news.tell()
    return len(batch), []


def _apply(batch: Batch) -> None:
    connection = connections[router.db_for_write(APIKeyTotals)]
    tries = 1
    while True:
        try:
            _leave_to_commit(connection)
            with transaction.atomic(using=connection.alias, durable=True):
                return _write(connection, batch)
        except DatabaseTrouble as error:
            if isinstance(error, DataError) or tries == TRIES or connection.in_atomic_block:
                raise
            # What is left of the connection may be in a state of its own.
            connection.close()
            tries += 1


def _leave_to_commit(connection: BaseDatabaseWrapper) -> None:
    # Where AUTOCOMMIT is off, atomic() would leave the COMMIT to somebody else, and there is
    # nobody. What stands on the connection uncommitted is not ours to commit.
    if not connection.in_atomic_block and not connection.get_autocommit():
        connection.close()
        connection.set_autocommit(True)


@dataclass(slots=True)
class News:
    """What a flush found out, to be told once it has committed.

    units: of each owner's months that a quota was charged in, as they are stored now.
    """

    addresses: list[tuple[uuid.UUID, str, datetime]]
    quotas: list[dict[str, Any]]
    units: dict[tuple[str, date], int]

    def tell(self) -> None:
        """Send the signals, and raise the cache's counters. Never raises: it is committed."""
        try:
            raise_quotas(self.units)
            keys = APIKey.objects.using(router.db_for_write(APIKey)).in_bulk(
                {key_id for key_id, _address, _at in self.addresses}
            )
            for key_id, address, at in self.addresses:
                if key_id in keys:
                    signals.send(
                        signals.key_used_from_new_address, key=keys[key_id], address=address, at=at
                    )
            for facts in self.quotas:
                signals.send(signals.quota_reached, **facts)
        except Exception:  # noqa: BLE001 - what is counted is counted
            logs.once_a_minute("news", "The signals of a flush were not all sent.", exc_info=True)


def _write(connection: BaseDatabaseWrapper, batch: Batch) -> None:
    # First, so that another try under this id waits for this one, and then is none.
    if not insert_once(connection, FlushedBatch(pk=batch.id, at=timezone.now())):
        return
    # The keys' rows next: two flushes of one key are from here on one after the other.
    totals = [(id_, s.requests, s.marked, s.at, s.address) for id_, s in batch.keys.items()]
    first_used = {
        key_id
        for key_id, requests, _errors in _KEYS.run(connection, totals, told=True)
        if requests == batch.keys[key_id].requests
    }
    secrets = [(id_, s.requests, s.marked, s.at, s.address) for id_, s in batch.secrets.items()]
    _SECRETS.run(connection, secrets)
    usage = [
        (key_id, hour, 1, route, method, outcome, requests)
        for (key_id, hour, route, method, outcome), requests in batch.usage.items()
    ]
    _USAGE.run(connection, usage)
    addresses = [
        (key_id, address, s.requests, s.at, s.first_at or s.at)
        for (key_id, address), s in batch.addresses.items()
    ]
    new = _new_addresses(batch, _ADDRESSES.run(connection, addresses, told=True))
    months = [(*month, spent.units, spent.requests) for month, spent in batch.quotas.items()]
    uncharged = {month for month, spent in batch.quotas.items() if spent.quota is None}
    # Where there is no quota nobody needs to know, which MySQL would be asked for.
    told = len(uncharged) < len(months)
    written = _QUOTAS.run(connection, months, told=told)
    units = {row[:2]: row[2] for row in written if row[:2] not in uncharged}
    batch.news = News(
        _used_from_others(connection, first_used, new), _quotas_reached(batch, units), units
    )


def _new_addresses(
    batch: Batch, written: Sequence[tuple[uuid.UUID, str, int]]
) -> dict[uuid.UUID, list[tuple[datetime, str]]]:
    """Return those of *written* that were not there, by key, the first seen first."""
    new: dict[uuid.UUID, list[tuple[datetime, str]]] = {}
    for key_id, address, requests in written:
        seen = batch.addresses.get((key_id, address))
        if seen is not None and seen.requests == requests and address != OTHER:
            new.setdefault(key_id, []).append((seen.first_at or seen.at, address))
    return {key_id: sorted(addresses) for key_id, addresses in new.items()}


def _used_from_others(
    connection: BaseDatabaseWrapper,
    first_used: set[uuid.UUID],
    new: Mapping[uuid.UUID, list[tuple[datetime, str]]],
) -> list[tuple[uuid.UUID, str, datetime]]:
    """Return those of *new* whose key was used from other addresses before.

    Of these keys no more than MOST_ADDRESSES are kept. Nothing is asked where no address
    is new, nor of a key that was used for the first time, from one address.
    """
    asked = [id_ for id_, found in new.items() if len(found) > 1 or id_ not in first_used]
    stored = dict(_stored_addresses(connection, asked))
    _trim(connection, [id_ for id_ in asked if stored[id_] > MOST_ADDRESSES + ADDRESSES_TOO_MANY])
    return [
        (key_id, address, at)
        for key_id in asked
        # One that is used from everywhere would say so for ever: what was trimmed is new.
        if stored[key_id] - len(new[key_id]) < MOST_ADDRESSES
        for at, address in new[key_id][stored[key_id] == len(new[key_id]) :][:MOST_TOLD]
    ]


def _stored_addresses(
    connection: BaseDatabaseWrapper, keys: Sequence[uuid.UUID]
) -> Iterator[tuple[uuid.UUID, int]]:
    for start in range(0, len(keys), CHUNK):
        rows = APIKeyAddress.objects.using(connection.alias)
        rows = rows.filter(key_id__in=keys[start : start + CHUNK])
        yield from rows.values_list("key_id").annotate(count=Count("pk"))


def _trim(connection: BaseDatabaseWrapper, keys: Sequence[uuid.UUID]) -> None:
    by_last_seen = Window(
        RowNumber(), partition_by=F("key_id"), order_by=(F("last_seen_at").desc(), F("pk").desc())
    )
    rows = APIKeyAddress.objects.using(connection.alias)
    for start in range(0, len(keys), CHUNK):
        of_keys = rows.filter(key_id__in=keys[start : start + CHUNK])
        placed = of_keys.annotate(place=by_last_seen).filter(place__gt=MOST_ADDRESSES)
        # Asked first: MySQL deletes from no table that it selects from.
        ids = list(placed.values_list("pk", flat=True))
        for first in range(0, len(ids), CHUNK):
            rows.filter(pk__in=ids[first : first + CHUNK])._raw_delete(connection.alias)


def _quotas_reached(batch: Batch, units: Mapping[tuple[str, date], int]) -> list[dict[str, Any]]:
    """Return what ``quota_reached`` is to say.

    Units only ever grow, so that each mark is crossed by one flush alone. A quota that is
    changed within the month has marks of its own: those above what was used are told when
    they are crossed, those below were never crossed.
    """
    reached = []
    for (owner_id, month), now in units.items():
        spent = batch.quotas.get((owner_id, month), Spent())
        added, quota = spent.units, spent.quota or 0
        for percent in QUOTA_MARKS:
            if (now - added) * 100 < quota * percent <= now * 100:
                facts = {"owner_id": owner_id, "month": month, "percent": percent}
                reached.append({**facts, "units": now, "quota": quota})
    return reached
