"""The recorder that counts in Redis, what waits in the process, and the flush of both."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, cast

import redis
from django.db import InterfaceError, OperationalError

from django_apikeys import logs, outage, recording
from django_apikeys.conf import conf
from django_apikeys.contrib.redis.connection import link
from django_apikeys.contrib.redis.parcels import (
    Parcel,
    add_answer,
    add_request,
    batch_of,
    charge_of,
    charge_of_hit,
    merge,
)
from django_apikeys.flushing import apply
from django_apikeys.usage import MemoryRecorder, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from django_apikeys.batches import Hit
    from django_apikeys.contrib.redis.connection import Link
    from django_apikeys.contrib.redis.parcels import Rows
    from django_apikeys.limits import Demand
    from django_apikeys.recording import Use

# Rows of one trip: Redis answers nobody else meanwhile, and not within a timeout without end.
_AT_ONCE = 500


class RedisRecorder(MemoryRecorder):
    """Counts in Redis, on the trip of the limiter or, where that asks nothing, on its own.

    A process that is killed loses the route and the outcome of its last requests, no total.
    While Redis does not answer it counts in the process.
    """

    def __init__(self) -> None:
        link()
        super().__init__()

    def count(self, hit: Hit) -> None:
        state = self._mine()
        with state.lock:
            add_answer(state.rows, hit)
            if not hit.totalled:
                add_request(state.rows, hit, hit.address)
                merge(state.rows, charge_of_hit(hit))
        if not state.begun:
            self._begin(state)
        if not hit.totalled and not _on_an_event_loop():
            state.send_now()

    @contextmanager
    def parcel_of(self, use: Use, demands: Sequence[Demand]) -> Iterator[Parcel | None]:
        """The parcel that counts *use* and takes along what waits.

        None while another is in doubt: what is counted then waits behind it, else each
        request would add one while Redis is down.
        """
        state = self._mine()
        if state.doubtful:
            yield None
            return
        rows: Rows = {}
        add_request(rows, use, recording.stored_address(use.address))
        with state.sending(state.packed(rows, charge_of(use, demands))) as parcel:
            yield parcel

    def _made(self) -> State:
        return _RedisState()

    def _mine(self) -> _RedisState:
        return cast("_RedisState", self._states.get(os.getpid()) or self._own())


class _RedisState(State):
    """What one process has not brought to Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = uuid.uuid4().hex
        self.rows: Rows = {}  # for the next trip
        self.doubtful: list[Parcel] = []  # those whose answer was lost
        self._slots = 0
        self._free: list[tuple[int, int]] = []  # slots, and the number of their last parcel
        self._rests_until = 0.0

    def flush(self) -> int:
        with self.flushing:
            # As many as there are now: what comes meanwhile has trips of its own.
            for _ in range(len(self.doubtful) + len(self.rows) // _AT_ONCE + 1):
                self._send()
            return move_all(link())

    def reset(self) -> None:
        with self.flushing, self.lock:
            self.rows, self.doubtful, self._rests_until = {}, [], 0.0
            link().forget()

    def send_now(self) -> None:
        """Send what waits, unless Redis failed a moment ago. Never raises: it is kept."""
        if time.monotonic() < self._rests_until:
            return
        try:
            self._send()
        except Exception:  # noqa: BLE001 - it has been counted, and goes with another trip
            logs.once_a_minute(
                "send", "Redis did not count the use of API keys; it is kept.", exc_info=True
            )

    def packed(self, rows: Rows, charge: Rows) -> Parcel:
        """Return a parcel of *rows* and of some of what waits."""
        with self.lock:
            names = list(islice(self.rows, _AT_ONCE))
            waiting = {name: self.rows.pop(name) for name in names}
            if not self._free:
                self._slots += 1
                self._free.append((self._slots, 0))
            slot, number = self._free.pop()
        merge(waiting, rows)
        return Parcel(self.sender, slot, number + 1, waiting, charge)

    @contextmanager
    def sending(self, parcel: Parcel) -> Iterator[Parcel]:
        """Keep *parcel* where what is done in here fails: whether it was counted is not known."""
        try:
            yield parcel
        except BaseException as error:
            if isinstance(error, redis.RedisError):
                # As the limits do: each try would cost every request its timeout.
                self._rests_until = time.monotonic() + outage.REST_SECONDS
                if conf.LIMITS_FAIL == "open":
                    # The request goes on, and is charged, if it was not already.
                    merge(parcel.rows, parcel.charge)
            parcel.charge = {}
            with self.lock:
                self.doubtful.append(parcel)
            raise
        self._rests_until = 0.0
        with self.lock:
            self._free.append((parcel.slot, parcel.number))

    def _send(self) -> None:
        """Make one trip, if there is anything to send: what is in doubt comes first."""
        parcel = self._next_in_doubt()
        if parcel is None and self.rows:
            parcel = self.packed({}, {})
        if parcel is not None:
            with self.sending(parcel):
                link().count((), parcel)

    def _next_in_doubt(self) -> Parcel | None:
        with self.lock:
            return self.doubtful.pop(0) if self.doubtful else None


def move_all(way: Link) -> int:
    """Apply all that Redis holds; return the number of rows.

    Raises django.db.Error: at once where the database is away, so that the live hash goes
    on counting; else behind the others, of a batch that the database refuses.
    """
    refused: dict[bytes, Exception] = {}
    rows = sum(_applied(way, id_, refused) for id_ in way.listed())
    way.take()
    rows += sum(_applied(way, id_, refused) for id_ in way.listed() if id_ not in refused)
    if refused:
        raise next(iter(refused.values()))
    return rows


def _applied(way: Link, id_: bytes, refused: dict[bytes, Exception]) -> int:
    fields = way.fields(id_)
    if fields is None:
        return 0
    try:
        batch = batch_of(id_, fields)
        if batch:
            apply(batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - one batch must not hold up the others
        refused[id_] = error
        return 0
    way.delete(id_)
    return len(batch)


def _on_an_event_loop() -> bool:
    # It must not wait for Redis: what is counted there goes with the next trip.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
