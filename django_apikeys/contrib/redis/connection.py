"""The way to Redis: its scripts, and the batches that it holds."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import redis
from django.core.cache import caches
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.retry import Retry

from django_apikeys.batches import MOST_ROWS
from django_apikeys.conf import conf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django_apikeys.contrib.redis.parcels import Parcel

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


class Link:
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
        self, demands: Sequence[Mapping[str, Any]], parcel: Parcel | None, **more: Any
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


_links: dict[str, Link] = {}


def link() -> Link:
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
        found = _links[alias] = Link(cache)
    return found
