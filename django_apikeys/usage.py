"""What verified requests leave behind: counters in, flushes out.

A request adds to counters in memory (or, with ``contrib.redis``, in Redis); a flush adds
those to the tables, a few statements however many requests there were. Each flush is a
batch with an id of its own, stored in the batch's own transaction: one that is tried
again, because a COMMIT's answer was lost say, is applied once.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal, Protocol

from django.core import mail
from django.core.signals import request_finished
from django.db import DataError, connections, router, transaction
from django.db import Error as DatabaseTrouble
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber
from django.utils import timezone

from django_apikeys import logs, signals
from django_apikeys.conf import conf
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
    OwnerQuota,
)
from django_apikeys.upserts import CHUNK, Upsert, insert_once

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date, datetime

    from django.db.backends.base.base import BaseDatabaseWrapper

Outcome = Literal["2xx", "3xx", "4xx", "5xx", "refused", "limited"]
OTHER = "other"
# Distinct rows of usage and of addresses in one batch; what comes after them is "other".
MOST_ROWS = 50_000
# A batch of so many is flushed before its time.
ROWS_AT_ONCE = 10_000
# Addresses that are kept of a key, those seen last; looked after once so many more are there.
MOST_ADDRESSES = 100
ADDRESSES_TOO_MANY = 10
# New addresses of a key that one flush tells of.
MOST_TOLD = 10
# A flush that fails is tried again so many times at once, and later with the next one.
TRIES = 3
# Percent of a quota at which ``quota_reached`` is sent.
QUOTA_MARKS = (80, 100)


@dataclass(slots=True)
class Hit:
    """One answered request of a verified key.

    owner_id: as text; empty for a key of the project. route: the URL pattern. address:
    empty where none is stored. month, units: what it cost of the owner's quota; None and
    0 where there is none. quota: the limit of that. totalled: the limiter has counted all but
    how it was answered. in_grace: another secret has taken the place of this one.
    """

    key_id: uuid.UUID
    secret_id: int
    owner_id: str
    at: datetime
    route: str
    method: str
    outcome: Outcome
    address: str = ""
    month: date | None = None
    units: int = 0
    quota: int | None = None
    totalled: bool = False
    in_grace: bool = False


class Recorder(Protocol):
    """Counts hits. One object for the process, made without arguments.

    One that has a method ``reset()``, which drops what was counted and not flushed, lets
    a host's tests start empty by ``testing.reset_usage``.
    """

    def count(self, hit: Hit) -> None:
        """Count *hit*; called when the view has answered. It must not wait for anything."""

    def flush(self) -> int:
        """Move all that was counted to the database; return the number of its rows."""


@dataclass(slots=True)
class _Seen:
    """Requests, the first and the last of them, and where the last came from.

    marked: those that failed; of a secret those in its grace.
    """

    at: datetime
    address: str
    requests: int = 0
    marked: int = 0
    first_at: datetime | None = None

    def add(self, at: datetime, address: str, mark: bool) -> None:  # noqa: FBT001 - the hot path
        self.requests += 1
        self.marked += mark
        # In any order: a request counts when it is answered, and some take long.
        if at >= self.at:
            self.at, self.address = at, address
        elif self.first_at is None or at < self.first_at:
            self.first_at = at


@dataclass(slots=True)
class Batch:
    """Counters that are added up, under the id that they will be applied with."""

    id: uuid.UUID = field(default_factory=uuid.uuid4)
    keys: dict[uuid.UUID, _Seen] = field(default_factory=dict)
    secrets: dict[int, _Seen] = field(default_factory=dict)
    usage: dict[tuple[uuid.UUID, datetime, str, str, str], int] = field(default_factory=dict)
    addresses: dict[tuple[uuid.UUID, str], _Seen] = field(default_factory=dict)
    # Units, and the quota that they are counted against.
    quotas: dict[tuple[str, date], list[int]] = field(default_factory=dict)
    # Of a COMMIT whose answer was lost, to be told when that is known.
    news: _News | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return sum(len(getattr(self, table)) for table in _TABLES)

    def add(self, hit: Hit) -> None:
        """Add one request."""
        key_id, at, outcome, address = hit.key_id, hit.at, hit.outcome, hit.address
        error = outcome not in _GOOD
        _seen(self.keys, key_id, at, address).add(at, address, error)
        _seen(self.secrets, hit.secret_id, at, address).add(at, address, hit.in_grace)
        row = (key_id, _hour(at), hit.route, hit.method, outcome)
        requests = self.usage.get(row, 0)
        if not requests and len(self.usage) >= MOST_ROWS:
            row = (key_id, row[1], OTHER, hit.method, outcome)
            requests = self.usage.get(row, 0)
        self.usage[row] = requests + 1
        if address:
            place = (key_id, address)
            if len(self.addresses) >= MOST_ROWS and place not in self.addresses:
                place = (key_id, OTHER)
            _seen(self.addresses, place, at, address).add(at, address, error)
        if hit.month is not None:
            spent = self.quotas.setdefault((hit.owner_id, hit.month), [0, 0])
            spent[0] += hit.units
            spent[1] = hit.quota or 0

    def halves(self) -> tuple[Batch, Batch]:
        """Return its rows in two batches: the same two each time it is asked."""
        rows = [
            (table, name) for table in _TABLES for name in sorted(getattr(self, table), key=str)
        ]
        middle = len(rows) // 2
        return self._part("0", rows[:middle]), self._part("1", rows[middle:])

    def _part(self, mark: str, rows: Sequence[tuple[str, Any]]) -> Batch:
        part = Batch(uuid.uuid5(self.id, mark))
        for table, name in rows:
            getattr(part, table)[name] = getattr(self, table)[name]
        return part


_TABLES = ("keys", "secrets", "usage", "addresses", "quotas")
_GOOD = ("2xx", "3xx")


def _seen(rows: dict[Any, _Seen], name: Any, at: datetime, address: str) -> _Seen:
    found = rows.get(name)
    if found is None:
        found = rows[name] = _Seen(at, address, 0, 0, at)
    return found


def _hour(at: datetime) -> datetime:
    # Of UTC, also where the host's time is half an hour off; a naive one stays as it is.
    if at.tzinfo is not UTC and at.tzinfo is not None:
        at = at.astimezone(UTC)
    return at.replace(minute=0, second=0, microsecond=0)


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
_QUOTAS = Upsert(OwnerQuota, ("owner_id", "month"), ("units",))

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
        logs.logger.error("Usage of an API key was dropped, it cannot be stored: %s", error)


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
class _News:
    """What a flush found out, to be told once it has committed.

    units: of each owner's months, as they are stored now.
    """

    addresses: list[tuple[uuid.UUID, str, datetime]]
    quotas: list[dict[str, Any]]
    units: dict[tuple[str, date], int]

    def tell(self) -> None:
        """Send the signals, and raise the cache's counters. Never raises: it is committed."""
        from django_apikeys.limits import raise_quotas  # noqa: PLC0415 - limits counts by recording, which is above us

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
    quotas = [(owner, month, units) for (owner, month), (units, _q) in batch.quotas.items()]
    units = {row[:2]: row[2] for row in _QUOTAS.run(connection, quotas, told=True)}
    batch.news = _News(
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
        added, quota = batch.quotas.get((owner_id, month), (0, 0))
        for percent in QUOTA_MARKS:
            if (now - added) * 100 < quota * percent <= now * 100:
                facts = {"owner_id": owner_id, "month": month, "percent": percent}
                reached.append({**facts, "units": now, "quota": quota})
    return reached


class MemoryRecorder:
    """Counts in this process; a thread of its own flushes.

    What is lost at most is what was not flushed when the process ends without Python's
    exit handlers: by SIGKILL, a signal that nobody handles, or ``os._exit``.
    """

    def __init__(self) -> None:
        # By process: a forked child that went on with what its parent has counted would
        # flush it twice. Looked up by each count, since uWSGI forks without Python's hooks.
        self._states: dict[int, _State] = {}
        atexit.register(self._at_exit)
        request_finished.connect(self._where_no_thread_runs)

    def count(self, hit: Hit) -> None:
        state = self._states.get(os.getpid()) or self._own()
        with state.lock:
            state.live.add(hit)
            many = len(state.live.usage) >= ROWS_AT_ONCE
        if many:
            state.wake.set()
        if not state.begun:
            self._begin(state)

    def flush(self) -> int:
        return self._own().flush()

    def reset(self) -> None:
        """Drop what was counted and not flushed."""
        self._own().reset()

    def _own(self) -> _State:
        process = os.getpid()
        for other in set(self._states) - {process}:
            self._states.pop(other, None)  # another thread may be here too
        # One step: of two threads that count first, neither loses what the other counted.
        return self._states.setdefault(process, self._made())

    def _made(self) -> _State:
        return _State()

    def _begin(self, state: _State) -> None:
        every = conf.USAGE_FLUSH_SECONDS
        with state.lock:
            if state.begun:
                return
            state.begun = True
            state.by_itself = not _in_a_test_run()
            if every is None or not state.by_itself:
                return
            thread = threading.Thread(
                target=self._run, args=(state,), name="django_apikeys.usage", daemon=True
            )
            # Where none can start, the requests themselves flush.
            with suppress(RuntimeError):
                thread.start()

    def _run(self, state: _State) -> None:
        while self._states.get(os.getpid()) is state:
            every = conf.USAGE_FLUSH_SECONDS or 1.0
            state.wake.wait(every)
            state.wake.clear()
            if not state.flush_quietly():
                # Not at once again, whatever wakes it: a database that is down has enough
                # to do.
                threading.Event().wait(every)
            # A connection is this thread's own, and nobody else closes it.
            connections.close_all()

    def _at_exit(self) -> None:
        state = self._states.get(os.getpid())
        if state is not None and state.by_itself:
            state.flush_quietly()

    def _where_no_thread_runs(self, **kwargs: Any) -> None:
        """Flush after an answer was sent, where no thread does: under uWSGI, say.

        There a thread may well be started, and get no time to run.
        """
        every = conf.USAGE_FLUSH_SECONDS
        state = self._states.get(os.getpid())
        if every is None or state is None or not state.by_itself:
            return
        if time.monotonic() - state.tried_at > 3 * every + 1:
            connection = connections[router.db_for_write(APIKeyTotals)]
            # Not get_autocommit(): it would open one, of a database that may be down.
            is_open = connection.connection is not None
            commits = connection.autocommit if is_open else connection.settings_dict["AUTOCOMMIT"]
            if not connection.in_atomic_block and commits:
                state.flush_quietly(wait=False)
                connection.close_if_unusable_or_obsolete()


class _State:
    """What one process has counted."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.live = Batch()
        # Held by who flushes; by whom that may be asked again, by a signal's receiver.
        self.flushing = threading.RLock()
        self.pending: Batch | None = None  # what is being flushed, or could not be
        self.tried_at = time.monotonic()
        self.wake = threading.Event()
        self.begun = False
        # What tests have counted is flushed by them alone: after the run, the test
        # database is another one.
        self.by_itself = False

    def flush(self) -> int:
        """Move what could not be moved before, and then the rest; return the rows."""
        with self.flushing:
            rows = 0
            if self.pending is not None:
                rows += self._flush(self.pending)
            with self.lock:
                # Under an id of its own: what is tried again is this and no more.
                self.pending, self.live = self.live, Batch()
            return rows + self._flush(self.pending)

    def _flush(self, batch: Batch) -> int:
        if batch:
            apply(batch)
        if self.pending is batch:
            self.pending = None
        return len(batch)

    def flush_quietly(self, *, wait: bool = True) -> bool:
        """Flush, unless somebody does and *wait* is False; tell whether nothing failed."""
        if not self.flushing.acquire(blocking=wait):
            return True
        try:
            # Before it is tried: where the database hangs, not each request tries.
            self.tried_at = time.monotonic()
            self.flush()
        except Exception:  # noqa: BLE001 - a thread that ends would count and never flush
            logs.once_a_minute(
                "flush", "The usage of API keys could not be stored; it is kept.", exc_info=True
            )
            return False
        finally:
            self.flushing.release()
        return True

    def reset(self) -> None:
        with self.flushing, self.lock:
            self.live, self.pending = Batch(), None


def _in_a_test_run() -> bool:
    # Django's test runner and pytest-django set it, and so does the locmem mail backend,
    # which may be used elsewhere too. There a flush by itself would write into a transaction
    # that it cannot see, or into a database that is being dropped.
    return hasattr(mail, "outbox") and "django.test.utils" in sys.modules
