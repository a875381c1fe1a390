"""The limiter that counts all that a request asks for in one trip."""

from __future__ import annotations

import math
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from django_apikeys import quotas
from django_apikeys.conf import conf
from django_apikeys.contrib.redis.connection import link
from django_apikeys.contrib.redis.recorder import RedisRecorder
from django_apikeys.limits import Allowance
from django_apikeys.outage import CacheFailed
from django_apikeys.quotas import Month

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from django_apikeys.contrib.redis.parcels import Parcel
    from django_apikeys.limits import Demand
    from django_apikeys.recording import Use


class RedisLimiter:
    """Counts what a request asks for in one trip; with RedisRecorder, its use as well.

    clock: seconds since the epoch; default that of Redis.
    """

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        link()
        self._clock = clock

    def spend(self, demands: Sequence[Demand], now: datetime) -> Sequence[Allowance]:
        with _redis_asked():
            return self._spent(demands, now, None)

    def spend_and_count(
        self, demands: Sequence[Demand], use: Use, now: datetime
    ) -> Sequence[Allowance]:
        recorder = conf.usage_recorder
        if not isinstance(recorder, RedisRecorder):
            return self.spend(demands, now)
        with _redis_asked(), recorder.parcel_of(use, demands) as parcel:
            # From here on it is the recorder's, whether an answer comes or not.
            use.totalled = parcel is not None
            return self._spent(demands, now, parcel)

    def _spent(
        self, demands: Sequence[Demand], now: datetime, parcel: Parcel | None
    ) -> Sequence[Allowance]:
        asked = [
            demand
            for demand in demands
            if isinstance(demand.window, Month) or conf.ratelimit_enabled
        ]
        if not asked and parcel is None:
            return ()
        more = {} if self._clock is None else {"now": self._clock()}
        rows = [_as_json(demand, now) for demand in asked]
        counts = link().count(rows, parcel, **more)
        if counts is None:
            for row, demand in zip(rows, asked, strict=True):
                if isinstance(demand.window, Month):
                    row["seed"] = quotas.seed(demand.window)
            counts = link().count(rows, parcel, **more)
        return [
            _allowance(demand, now, *count)
            for demand, count in zip(asked, counts or (), strict=False)
        ]


@contextmanager
def _redis_asked() -> Iterator[None]:
    # Known by their class, and so an error of the program is none of them.
    try:
        yield
    except redis.RedisError as error:
        raise CacheFailed from error


def _as_json(demand: Demand, now: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"limit": demand.limit}
    if isinstance(demand.window, Month):
        life = demand.window.life_seconds(now)
        # Named as the cache names it, so that whoever asks the cache for it is answered.
        return {**row, "counter": demand.counter, "units": demand.units, "life": life}
    # As in django_ratelimit.core: not all windows end at once.
    jitter = zlib.crc32(f"{demand.counter}:".encode()) % demand.window
    counter = f"apikeys:rate:{demand.counter}:{demand.window}"
    return {**row, "counter": counter, "seconds": demand.window, "jitter": jitter}


def _allowance(demand: Demand, now: datetime, used: int, left: int, spent: int) -> Allowance:
    window = demand.window
    remaining = max(0, demand.limit - used)
    if isinstance(window, Month):
        left = max(1, math.ceil(window.seconds_left(now)))
        return Allowance(demand.name, demand.limit, remaining, left, None, spent=bool(spent))
    # The second in which a window ends is in the old one still.
    return Allowance(demand.name, demand.limit, remaining, left + 1, window, spent=bool(spent))
