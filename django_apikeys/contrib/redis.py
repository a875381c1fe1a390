"""Limits and usage in Redis, both in the one trip of a request.

``RedisLimiter`` counts the windows that django-ratelimit counts, all that a request asks
for by one script. ``RedisRecorder`` has the same script add up how often keys, secrets
and addresses were used: what a request was counted for is in Redis before its view runs,
and outlives every web process. How it was answered (route, method, outcome) waits in the
process for its next trip.

Redis holds a live hash of counters. It gets the id of its batch with its first count, so
that one that comes back from an old snapshot is known. A flush renames it to
``batch:<id>`` and lists it, in one script; applies it under that id, in one transaction;
then deletes it. It may end behind any of these steps: the next one goes on.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
import uuid
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import redis
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from django.db import InterfaceError, OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_apikeys import limits, logs, recording
from django_apikeys.conf import conf
from django_apikeys.limits import Allowance, Month
from django_apikeys.usage import (
    MOST_ROWS,
    OTHER,
    Batch,
    MemoryRecorder,
    _hour,
    _Seen,
    _State,
    apply,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from django_apikeys.limits import Demand
    from django_apikeys.recording import Use
    from django_apikeys.usage import Hit

# A quota's counter outlives its month: clocks differ, and a flush may come late.
_MARGIN_SECONDS = 24 * 60 * 60
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Rows of one trip: Redis answers nobody else meanwhile, and not within a timeout without end.
_AT_ONCE = 500
_LIVE, _LISTED, _BATCH = "apikeys:live", "apikeys:batches", "apikeys:batch:"

# KEYS: the live hash, the numbers of the parcels of this sender, a counter of each demand.
# ARGV: the trip, as JSON. Returns {used, seconds left, 1 where it is spent} of each demand
# up to the first that is spent; nil, and has counted nothing, where a quota needs a seed.
_COUNT = """
local trip = cjson.decode(ARGV[1])
local live, numbers = KEYS[1], KEYS[2]
-- One clock for all web servers: theirs differ, and each would begin its windows by its own.
local second = trip.now or tonumber(redis.call('TIME')[1])

local function merge(row)
  local field, other, requests, marked, first, last, text = unpack(row)
  local old = redis.call('HGET', live, field)
  if not old and other ~= '' and redis.call('HLEN', live) >= trip.most then
    field = other
    old = redis.call('HGET', live, field)
  end
  if old then
    local n, e, f, l, t = string.match(old, '^(%d+) (%d+) (%d+) (%d+) (.*)$')
    if n then
      requests, marked = requests + n, marked + e
      if f < first then first = f end
      if l > last then last, text = l, t end
    end
  end
  local new = string.format('%.0f %.0f %s %s %s', requests, marked, first, last, text)
  redis.call('HSET', live, field, new)
end

for i, demand in ipairs(trip.demands) do
  local counter = KEYS[i + 2]
  if demand.life and not string.match(redis.call('GET', counter) or '', '^%-?%d+$') then
    if not demand.seed then return false end
    redis.call('SET', counter, demand.seed, 'EX', demand.life)
  end
end

local counts, spent = {}, false
for i, demand in ipairs(trip.demands) do
  local counter, used, left = KEYS[i + 2], 1, 0
  if demand.life then
    used = redis.call('INCRBY', counter, demand.units)
    -- What costs nothing is let through, whatever was used.
    spent = used > demand.limit and demand.units > 0
    if spent then used = redis.call('DECRBY', counter, demand.units) end
  else
    local window = second - second % demand.seconds + demand.jitter
    if window < second then window = window + demand.seconds end
    local name = string.format('%.0f', window)
    local last = redis.call('HMGET', counter, 'window', 'used')
    if last[1] == name then used = (tonumber(last[2]) or 0) + 1 end
    redis.call('HSET', counter, 'window', name, 'used', used)
    redis.call('EXPIRE', counter, demand.seconds + 5)
    left = window - second
    spent = used > demand.limit
  end
  counts[i] = {used, left, spent and 1 or 0}
  if spent then break end
end

local parcel = trip.parcel
-- One whose answer was lost is sent again, and may arrive twice, the first one last.
if parcel and (tonumber(redis.call('HGET', numbers, parcel.slot)) or 0) < parcel.number then
  redis.call('HSET', numbers, parcel.slot, parcel.number)
  redis.call('EXPIRE', numbers, 86400)
  redis.call('HSETNX', live, 'id', trip.batch)
  for _, row in ipairs(parcel.rows) do merge(row) end
  if parcel.charge and not spent then merge(parcel.charge) end
end
return counts
"""

# KEYS: the live hash, the list of batches. ARGV: how the name of a batch begins.
_TAKE = """
local id = redis.call('HGET', KEYS[1], 'id')
if id then
  redis.call('RENAME', KEYS[1], ARGV[1] .. id)
  redis.call('RPUSH', KEYS[2], id)
end
return id
"""


class _Link:
    """The way to the Redis of a cache of Django's, with the pool of this process."""

    def __init__(self, cache: RedisCache) -> None:
        of_cache: Any = cache._cache
        self.source = _source(cache)
        self.name = cache.make_key
        # A pool of our own: the cache has one for each thread.
        self.redis = redis.Redis(
            connection_pool=of_cache._pool_class.from_url(
                of_cache._servers[0],
                **{
                    "socket_timeout": conf.CACHE_TIMEOUT,
                    "socket_connect_timeout": conf.CACHE_TIMEOUT,
                    **of_cache._pool_options,
                    # Nothing is sent twice by the library: a count would be doubled, and
                    # a request held up for each time.
                    "retry": Retry(NoBackoff(), 0),
                    "retry_on_timeout": False,
                    "retry_on_error": [],
                    "decode_responses": False,
                },
            )
        )
        self._count = self.redis.register_script(_COUNT)
        self._take = self.redis.register_script(_TAKE)

    def count(
        self, demands: Sequence[Mapping[str, Any]], parcel: _Parcel | None, **more: Any
    ) -> Sequence[Sequence[int]] | None:
        """Return what the script counted of each of *demands*; None: seed the quota."""
        trip = {
            "demands": demands,
            "batch": str(uuid.uuid4()),
            "most": MOST_ROWS,
            **({} if parcel is None else {"parcel": parcel.as_json()}),
            **more,
        }
        sent = f"apikeys:sent:{parcel.sender if parcel else ''}"
        names = [_LIVE, sent, *(demand["counter"] for demand in demands)]
        counts: Sequence[Sequence[int]] | None = self._count(
            keys=[self.name(name) for name in names], args=[json.dumps(trip)]
        )
        return counts

    def take(self) -> None:
        """List the live hash as a batch, if there is one."""
        self._take(keys=[self.name(_LIVE), self.name(_LISTED)], args=[self.name(_BATCH)])

    def listed(self) -> Sequence[bytes]:
        """Return the ids of the batches that are not known to be applied, oldest first."""
        ids: list[Any] = self.redis.lrange(self.name(_LISTED), 0, -1)
        return ids

    def fields(self, id_: bytes) -> dict[bytes, bytes] | None:
        """Return what was counted in a batch; None where another flush deletes it just now."""
        name = self.name(_BATCH).encode() + id_
        size = self.redis.hlen(name)
        # In steps, since others wait meanwhile; nobody writes to it any more.
        fields = dict(self.redis.hscan_iter(name, count=1000))
        # What is left of it must not be taken for the whole.
        return fields if len(fields) == size else None

    def delete(self, id_: bytes) -> None:
        """Forget a batch that was applied."""

        def forget(pipeline: Any) -> None:
            pipeline.unlink(self.name(_BATCH).encode() + id_)
            pipeline.lrem(self.name(_LISTED), 0, id_)

        self.redis.transaction(forget)

    def forget(self) -> None:
        """Delete all that was counted and not applied."""
        batches = [self.name(_BATCH).encode() + id_ for id_ in self.listed()]
        self.redis.unlink(self.name(_LIVE), self.name(_LISTED), *batches)


def _source(cache: Any) -> tuple[Any, ...]:
    return cache._servers, cache._options, cache.key_prefix, cache.version


_links: dict[str, _Link] = {}


def link() -> _Link:
    """Return the way to the Redis of APIKEYS_CACHE.

    Raises ImproperlyConfigured where that is no Redis.
    """
    alias = conf.CACHE
    cache = caches[alias]
    if not isinstance(cache, RedisCache):
        raise ImproperlyConfigured(
            f"APIKEYS_CACHE: {alias!r} in CACHES is not Django's RedisCache, which "
            "django_apikeys.contrib.redis needs."
        )
    found = _links.get(alias)
    if found is None or found.source != _source(cache):
        found = _links[alias] = _Link(cache)
    return found


class RedisLimiter:
    """Counts what a request asks for in one trip; with RedisRecorder, its use as well.

    clock: seconds since the epoch; default that of Redis.
    """

    def __init__(self, clock: Callable[[], int] | None = None) -> None:
        link()
        self._clock = clock

    def spend(self, demands: Sequence[Demand], now: datetime) -> Sequence[Allowance]:
        return self._spent(demands, now, None)

    def spend_and_count(
        self, demands: Sequence[Demand], use: Use, now: datetime
    ) -> Sequence[Allowance]:
        recorder = conf.usage_recorder
        if not isinstance(recorder, RedisRecorder):
            return self.spend(demands, now)
        with recorder.parcel_of(use, demands) as parcel:
            # From here on it is the recorder's, whether an answer comes or not.
            use.totalled = parcel is not None
            return self._spent(demands, now, parcel)

    def _spent(
        self, demands: Sequence[Demand], now: datetime, parcel: _Parcel | None
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
                    row["seed"] = limits._seed(demand.window)
            counts = link().count(rows, parcel, **more)
        return [
            _allowance(demand, now, *count)
            for demand, count in zip(asked, counts or (), strict=False)
        ]


def _as_json(demand: Demand, now: datetime) -> dict[str, Any]:
    row: dict[str, Any] = {"limit": demand.limit}
    if isinstance(demand.window, Month):
        life = int(_seconds_left(demand.window, now)) + _MARGIN_SECONDS
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
        left = max(1, math.ceil(_seconds_left(window, now)))
        return Allowance(demand.name, demand.limit, remaining, left, None, spent=bool(spent))
    # The second in which a window ends is in the old one still.
    return Allowance(demand.name, demand.limit, remaining, left + 1, window, spent=bool(spent))


def _seconds_left(month: Month, now: datetime) -> float:
    return (month.ends_at - now).total_seconds()


@dataclass(slots=True)
class _Row:
    """Requests of one name, and the first and last of them, as the script merges them.

    other: the name to use where there are too many. marked: those that failed, of a secret
    those in its grace. first, last: microseconds since 1970, 16 digits. text: of the last:
    its address, or the limit of a quota.
    """

    other: str
    requests: int
    marked: int
    first: str
    last: str
    text: str

    def merge(self, row: _Row) -> None:
        self.requests += row.requests
        self.marked += row.marked
        self.first = min(self.first, row.first)
        if row.last >= self.last:
            self.last, self.text = row.last, row.text


_Rows = dict[str, _Row]


@dataclass(slots=True)
class _Parcel:
    """Rows on their way to Redis, counted once however often they are sent.

    slot, number: a slot has one parcel on its way at a time, and numbers them upwards.
    charge: units of a quota, counted where the limits of the same trip let it pass.
    """

    sender: str
    slot: int
    number: int
    rows: _Rows
    charge: _Rows

    def as_json(self) -> dict[str, Any]:
        rows = {"slot": self.slot, "number": self.number, "rows": _listed(self.rows)}
        return {**rows, "charge": _listed(self.charge)[0]} if self.charge else rows


def _listed(rows: _Rows) -> list[Any]:
    return [
        (name, row.other, row.requests, row.marked, row.first, row.last, row.text)
        for name, row in rows.items()
    ]


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
            _add_answer(state.rows, hit)
            if not hit.totalled:
                _add_request(state.rows, hit, hit.address)
                _merge(state.rows, _charge_of_hit(hit))
        if not state.begun:
            self._begin(state)
        if not hit.totalled and not _on_an_event_loop():
            state.send_now()

    @contextmanager
    def parcel_of(self, use: Use, demands: Sequence[Demand]) -> Iterator[_Parcel | None]:
        """The parcel that counts *use* and takes along what waits.

        None while another is in doubt: what is counted then waits behind it, else each
        request would add one while Redis is down.
        """
        state = self._mine()
        if state.doubtful:
            yield None
            return
        rows: _Rows = {}
        _add_request(rows, use, recording.stored_address(use.address))
        with state.sending(state.packed(rows, _charge_of(use, demands))) as parcel:
            yield parcel

    def _made(self) -> _State:
        return _RedisState()

    def _mine(self) -> _RedisState:
        return cast("_RedisState", self._states.get(os.getpid()) or self._own())


class _RedisState(_State):
    """What one process has not brought to Redis."""

    def __init__(self) -> None:
        super().__init__()
        self.sender = uuid.uuid4().hex
        self.rows: _Rows = {}  # for the next trip
        self.doubtful: list[_Parcel] = []  # those whose answer was lost
        self._slots = 0
        self._free: list[tuple[int, int]] = []  # slots, and the number of their last parcel
        self._rests_until = 0.0

    def flush(self) -> int:
        with self.flushing:
            # As many as there are now: what comes meanwhile has trips of its own.
            for _ in range(len(self.doubtful) + len(self.rows) // _AT_ONCE + 1):
                self._send()
            return _moved(link())

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

    def packed(self, rows: _Rows, charge: _Rows) -> _Parcel:
        """Return a parcel of *rows* and of some of what waits."""
        with self.lock:
            names = list(islice(self.rows, _AT_ONCE))
            waiting = {name: self.rows.pop(name) for name in names}
            if not self._free:
                self._slots += 1
                self._free.append((self._slots, 0))
            slot, number = self._free.pop()
        _merge(waiting, rows)
        return _Parcel(self.sender, slot, number + 1, waiting, charge)

    @contextmanager
    def sending(self, parcel: _Parcel) -> Iterator[_Parcel]:
        """Keep *parcel* where what is done in here fails: whether it was counted is not known."""
        try:
            yield parcel
        except BaseException as error:
            if isinstance(error, redis.RedisError):
                # As the limits do: each try would cost every request its timeout.
                self._rests_until = time.monotonic() + limits.REST_SECONDS
                if conf.LIMITS_FAIL == "open":
                    # The request goes on, and is charged, if it was not already.
                    _merge(parcel.rows, parcel.charge)
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

    def _next_in_doubt(self) -> _Parcel | None:
        with self.lock:
            return self.doubtful.pop(0) if self.doubtful else None


def _on_an_event_loop() -> bool:
    # It must not wait for Redis: what is counted there goes with the next trip.
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _named(*parts: str) -> str:
    # JSON: whatever an owner's id or a route is made of, it comes out as it went in.
    return json.dumps(parts, separators=(",", ":"))


def _moment(at: datetime) -> str:
    return f"{(at - _EPOCH) // _MICROSECOND:016}"


def _merge(rows: _Rows, more: _Rows) -> None:
    for name, row in more.items():
        _add(rows, name, row)


def _add(rows: _Rows, name: str, row: _Row) -> None:
    if row.other and name not in rows and len(rows) >= MOST_ROWS:
        name = row.other
    if name in rows:
        rows[name].merge(row)
    else:
        rows[name] = row


def _add_request(rows: _Rows, use: Use | Hit, address: str) -> None:
    at, key_id = _moment(use.at), str(use.key_id)
    _add(rows, _named("key", key_id), _Row("", 1, 0, at, at, address))
    secret = _named("secret", str(use.secret_id))
    _add(rows, secret, _Row("", 1, int(use.in_grace), at, at, address))
    if address:
        other = _named("address", key_id, OTHER)
        _add(rows, _named("address", key_id, address), _Row(other, 1, 0, at, at, ""))


def _add_answer(rows: _Rows, hit: Hit) -> None:
    at, key_id = _moment(hit.at), str(hit.key_id)
    if hit.outcome not in ("2xx", "3xx"):
        _add(rows, _named("key", key_id), _Row("", 0, 1, at, at, hit.address))
    hour = _hour(hit.at).isoformat()
    name = _named("usage", key_id, hour, hit.route, hit.method, hit.outcome)
    other = _named("usage", key_id, hour, OTHER, hit.method, hit.outcome)
    _add(rows, name, _Row(other, 1, 0, at, at, ""))


def _charge_of(use: Use, demands: Sequence[Demand]) -> _Rows:
    month = demands[-1].window if demands else None
    if not isinstance(month, Month):
        return {}
    return _charged(use, month.first, demands[-1].units, demands[-1].limit)


def _charge_of_hit(hit: Hit) -> _Rows:
    return {} if hit.month is None else _charged(hit, hit.month, hit.units, hit.quota or 0)


def _charged(use: Use | Hit, month: date, units: int, quota: int) -> _Rows:
    at = _moment(use.at)
    return {_named("quota", use.owner_id, f"{month}"): _Row("", units, 0, at, at, str(quota))}


def _moved(way: _Link) -> int:
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


def _applied(way: _Link, id_: bytes, refused: dict[bytes, Exception]) -> int:
    fields = way.fields(id_)
    if fields is None:
        return 0
    try:
        batch = _read(id_, fields)
        if batch:
            apply(batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - one batch must not hold up the others
        refused[id_] = error
        return 0
    way.delete(id_)
    return len(batch)


def _read(id_: bytes, fields: Mapping[bytes, bytes]) -> Batch:
    # An empty one was deleted, or is none of ours: whatever its id is.
    batch = Batch(id=uuid.UUID(id_.decode())) if fields else Batch()
    for name, value in fields.items():
        if name == b"id":
            continue
        try:
            _read_row(batch, *json.loads(name), seen=_seen(value.decode()))
        except (ValueError, TypeError, OverflowError) as error:
            # Not ours: it would hold up what is.
            logs.once_a_minute("batch", "A counter in Redis was left out: %r: %s", name, error)
    return batch


def _seen(value: str) -> _Seen:
    requests, marked, first, last, text = value.split(" ", 4)
    return _Seen(_at(last), text, int(requests), int(marked), _at(first))


def _at(moment: str) -> datetime:
    return _EPOCH + int(moment) * _MICROSECOND


def _read_row(batch: Batch, kind: str, *name: str, seen: _Seen) -> None:
    match kind, *name:
        case "key", key_id:
            batch.keys[uuid.UUID(key_id)] = seen
        case "secret", secret_id:
            batch.secrets[int(secret_id)] = seen
        case "address", key_id, address:
            batch.addresses[uuid.UUID(key_id), address] = seen
        case "usage", key_id, hour, route, method, outcome:
            row = (uuid.UUID(key_id), datetime.fromisoformat(hour), route, method, outcome)
            batch.usage[row] = seen.requests
        case "quota", owner_id, month:
            units = [seen.requests, int(seen.address)]
            batch.quotas[owner_id, date.fromisoformat(month)] = units
        case _:
            raise ValueError(kind)
