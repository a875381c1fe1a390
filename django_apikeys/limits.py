"""How often a key and its owner may call: rates, quotas, and the headers that say so.

A key's own rate, the rate of its owner's plan and the plan's quota are asked in this
order; the first that is spent refuses, and what comes after it is not counted. The
counting itself is behind a seam, APIKEYS_LIMITER.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django.db import Error as DatabaseTrouble
from django.db import router
from django_ratelimit.core import get_usage

from django_apikeys import logs
from django_apikeys.conf import conf, problem_with_plan
from django_apikeys.exceptions import QuotaExceeded, RateLimited, Refused, Unavailable
from django_apikeys.keys import rates
from django_apikeys.models import OwnerQuota
from django_apikeys.recording import noted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date, tzinfo

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from django_apikeys.keys.grants import Grant
    from django_apikeys.recording import Use

# After a failure the cache is left alone: each try would cost every request its timeout.
REST_SECONDS = 2.0
_ASKED = "apikeys_allowances"  # of the HttpRequest
# A counter outlives its month: clocks differ, and a flush may come late.
_MARGIN = timedelta(days=1)
_QUARTER = 15 * 60  # seconds
# Of a counter that is raised by one process at a time; should that one die, for so long.
_LOCK_SECONDS = 10
_PLAIN = re.compile(r"[0-9A-Za-z_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of an owner. first: its first day. ends_at: the next one's start, UTC."""

    first: date
    ends_at: datetime
    owner_id: str


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of one counter.

    counter: a name that holds app, model and id. window: its length in seconds, or a
    month. units: what the request costs.
    """

    name: Literal["key", "plan", "quota"]
    counter: str
    limit: int
    window: int | Month
    units: int = 1


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit: an item of ``RateLimit`` and ``RateLimit-Policy``.

    reset_seconds: until the next window, 1 or more. window: seconds; None is a month.
    """

    name: Literal["key", "plan", "quota"]
    limit: int
    remaining: int
    reset_seconds: int
    window: int | None
    spent: bool = False


class Limiter(Protocol):
    """Counts. Called once for each request that has limits, before its view.

    One that has a method ``spend_and_count(demands, use, now)`` is called by that, for each
    request of a key, also where there are no demands: ``contrib.redis`` counts the request
    itself on the same trip, and says so by ``use.totalled``.
    """

    def spend(self, demands: Sequence[Demand], now: datetime) -> Sequence[Allowance]:
        """Return what is left of each, up to the first that is spent.

        That one ends the list, and nothing behind it is counted; a quota that is spent
        is not counted either. What this raises is answered where it is a Refused; all
        else is taken for a cache that is down.
        """


class CacheFailed(Exception):
    """The cache did not count."""


class RatelimitLimiter:
    """Rates by django-ratelimit, quotas by the cache's own ``add`` and ``incr``."""

    def spend(self, demands: Sequence[Demand], now: datetime) -> Sequence[Allowance]:
        allowances: list[Allowance] = []
        counts_rates = conf.ratelimit_enabled
        for demand in demands:
            window = demand.window
            if isinstance(window, Month):
                allowances.append(_of_month(demand, window, now))
            elif counts_rates:
                allowances.append(_of_window(demand, window))
            if allowances and allowances[-1].spent:
                break
        return allowances


def spend(request: HttpRequest, grant: Grant, units: int, now: datetime) -> None:
    """Count *request*, of *units*, against the limits of the key of *grant*.

    Once for each request, however often it is asked.
    Raises RateLimited, QuotaExceeded; Unavailable where the cache is down and
    APIKEYS_LIMITS_FAIL is ``closed``, or the database is.
    """
    if not hasattr(request, _ASKED):
        demands = demands_of(grant, units, now)
        use = noted(request)
        allowances = _asked(demands, use, now)
        setattr(request, _ASKED, allowances)
        _note(use, demands, allowances)
    if spent := _spent(asked_of(request)):
        error = QuotaExceeded if spent.name == "quota" else RateLimited
        raise error(asked_of(request), grant.public_id)


def asked_of(request: HttpRequest) -> Sequence[Allowance]:
    """Return what is left of the limits that *request* was counted against."""
    found: Sequence[Allowance] = getattr(request, _ASKED, ())
    return found


def demands_of(grant: Grant, units: int, now: datetime) -> list[Demand]:
    """Return what a request with the key of *grant* asks of which counters, in their order."""
    demands = []
    if rate := rates.read_stored(grant.rate_limit):
        counter = f"django_apikeys.apikey:{grant.key_id}"
        demands.append(Demand("key", counter, rate.limit, rate.seconds))
    if rate := rates.read_stored(grant.plan_rate):
        demands.append(Demand("plan", _name(grant.owner_id), rate.limit, rate.seconds))
    if grant.quota is not None:
        month = month_of(now, str(grant.owner_id))
        counter = quota_counter(month.owner_id, month.first)
        demands.append(Demand("quota", counter, grant.quota, month, units))
    return demands


def month_of(now: datetime, owner_id: str) -> Month:
    """Return the month of *now* in APIKEYS_QUOTA_TIME_ZONE."""
    first, ends_at = _month_at(conf.QUOTA_TIME_ZONE, int(now.timestamp()) // _QUARTER)
    return Month(first, ends_at, owner_id)


# Asked for each request: 5 µs. Months begin, and clocks change, at quarters of an hour.
@lru_cache(maxsize=8)
def _month_at(zone: tzinfo, quarter: int) -> tuple[date, datetime]:
    local = datetime.fromtimestamp(quarter * _QUARTER, zone)
    # Where clocks go back over the first midnight it comes twice: the month begins once.
    first = local.replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
    # 32 days on is in the next month, whatever the month.
    following = (first + timedelta(days=32)).replace(day=1)
    # In UTC: the difference of two times of one zone ignores a change of its clocks.
    return first.date(), following.astimezone(UTC)


def quota_counter(owner_id: str, month: date) -> str:
    """Return the name of the counter of an owner's calendar month."""
    return f"django_apikeys:quota:{_name(owner_id)}:{month.year}-{month.month:02}"


def raise_quota(owner_id: str, month: date, units: int) -> None:
    """Raise the counter of an owner's month to *units*, those that the database has.

    It is never lowered: what others have not flushed yet is in it. One that is missing
    is left to the next request. Raises what the cache raises.
    """
    cache, counter = caches[conf.CACHE], quota_counter(owner_id, month)
    used = cache.get(counter)
    if used is None or used >= units:
        return
    # One at a time: two that add what is missing would add it twice.
    if cache.add(f"{counter}:raised", 1, _LOCK_SECONDS):
        missing = units - cache.get(counter, units)
        if missing > 0:
            cache.incr(counter, missing)
        cache.delete(f"{counter}:raised")


def plan_limits(plan: str | None, owner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``rate`` and ``quota`` of an owner, as far as they have any.

    plan: by its name in APIKEYS_PLANS. owner: their columns, of the policy's ``owner_fields``.
    """
    plans = conf.PLANS
    if plans and plan is not None and plan not in plans:
        logs.once_a_minute("plan", "A plan is not in APIKEYS_PLANS, and has no limits: %s.", plan)
    limits: Mapping[str, Any] = {} if plan is None else plans.get(plan, {})
    own = conf.policy.plan_limits(owner)
    if problem := problem_with_plan(own):
        # Those of the plan hold: neither a typing error nor the lack of a row opens them.
        logs.once_a_minute("plan_limits", "What plan_limits of the policy returned %s", problem)
        return limits
    return {**limits, **own}


def units_used(month: Month) -> int:
    """Return what an owner has used of *month*: as it is counted, and at least as flushed."""
    return max(stored_units(month.owner_id, month.first), _counted_units(month))


def patch_headers(response: HttpResponseBase, allowances: Sequence[Allowance]) -> None:
    """Set ``RateLimit-Policy`` and ``RateLimit`` where limits were asked.

    After draft-ietf-httpapi-ratelimit-headers; a calendar month has no window.
    """
    if not allowances:
        return
    response["RateLimit-Policy"] = ", ".join(
        f'"{item.name}";q={item.limit}' + (f";w={item.window}" if item.window else "")
        for item in allowances
    )
    response["RateLimit"] = ", ".join(
        f'"{item.name}";r={item.remaining};t={item.reset_seconds}' for item in allowances
    )


def stored_units(owner_id: str, month: date) -> int:
    """Return what was flushed of an owner's calendar month."""
    rows = OwnerQuota.objects.using(router.db_for_write(OwnerQuota))
    units = rows.filter(owner_id=owner_id, month=month).values_list("units", flat=True).first()
    return units or 0


class _Breaker:
    """Whether the cache is left alone for now, in this process."""

    def __init__(self) -> None:
        self._until = 0.0
        self._tripped_at = 0.0

    def lets_ask(self, now: float) -> bool:
        """Tell whether the cache may be asked; after a rest by one, who finds out for all."""
        if now < self._until:
            return False
        if self._until:
            self._until = now + REST_SECONDS
        return True

    def trip(self) -> None:
        self._tripped_at = time.monotonic()
        self._until = self._tripped_at + REST_SECONDS

    def answered(self, asked_at: float) -> None:
        # What was asked before the failure says nothing of the time after it.
        if self._until and asked_at > self._tripped_at:
            self.reset()

    def reset(self) -> None:
        self._until = 0.0


breaker = _Breaker()


def _asked(demands: Sequence[Demand], use: Use | None, now: datetime) -> Sequence[Allowance]:
    limiter, asked_at = conf.limiter, time.monotonic()
    count = None if use is None else getattr(limiter, "spend_and_count", None)
    if not demands and count is None:
        return ()
    if breaker.lets_ask(asked_at):
        try:
            allowances = count(demands, use, now) if count else limiter.spend(demands, now)
        except Refused:
            breaker.answered(asked_at)
            raise
        except Exception:  # noqa: BLE001 - each cache backend has errors of its own
            breaker.trip()
            logs.once_a_minute(
                "limits", "The cache did not count for the limits of API keys.", exc_info=True
            )
        else:
            breaker.answered(asked_at)
            return allowances
    if demands and conf.LIMITS_FAIL == "closed":
        raise Unavailable(retry_after=int(REST_SECONDS))
    return ()


def _note(use: Use | None, demands: Sequence[Demand], allowances: Sequence[Allowance]) -> None:
    if use is None:
        return
    if _spent(allowances):
        use.outcome = "limited"
    # Also where the cache was down: the counter is seeded from what was flushed.
    elif demands and isinstance(month := demands[-1].window, Month):
        use.month, use.units, use.quota = month.first, demands[-1].units, demands[-1].limit


def _spent(allowances: Sequence[Allowance]) -> Allowance | None:
    return allowances[-1] if allowances and allowances[-1].spent else None


def _name(owner_id: Any) -> str:
    # A text primary key may be longer than memcached takes, or have a space in it.
    text = str(owner_id)
    if not _PLAIN.fullmatch(text):
        text = f"~{hashlib.sha256(text.encode()).hexdigest()}"
    return f"{conf.OWNER_MODEL.lower()}:{text}"


def _of_window(demand: Demand, window: int) -> Allowance:
    usage = _usage(demand.counter, window)
    return Allowance(
        demand.name,
        demand.limit,
        remaining=max(0, demand.limit - usage["count"]),
        # django-ratelimit counts the second of its time_left in the old window still.
        reset_seconds=max(1, usage["time_left"] + 1),
        window=window,
        spent=usage["count"] > demand.limit,
    )


def _usage(counter: str, window: int) -> Mapping[str, int]:
    # Twice: a counter may be evicted between the trips of django-ratelimit.
    for _ in range(2):
        # One limit for all: it is a part of the counter's name, and an edited rate would
        # begin to count anew. The count is compared by whoever asks.
        usage: Mapping[str, int] | None = get_usage(
            None,
            group="django_apikeys",
            key=lambda group, request: f"{counter}:",
            rate=(1, window),
            increment=True,
        )
        if usage and usage["limit"]:
            # DummyCache says of each that it is the first.
            if usage["count"] == 1 and isinstance(caches[conf.ratelimit_cache], DummyCache):
                break
            return usage
    raise CacheFailed(counter)


def _of_month(demand: Demand, month: Month, now: datetime) -> Allowance:
    left = month.ends_at - now
    # Looked at before it is counted: while it is taken back it would hold up smaller ones.
    seen = caches[conf.CACHE].get(demand.counter) if demand.units > 1 else None
    too_much = (seen or 0) + demand.units > demand.limit and demand.units > 1
    used = (seen or 0) if too_much else _incremented(demand, month, left + _MARGIN)
    # What costs nothing is let through, whatever was used.
    spent = too_much or (used > demand.limit and demand.units > 0)
    if spent and not too_much:
        # Refused in any case; what is not taken back is too much by this one request.
        with suppress(Exception):
            caches[conf.CACHE].decr(demand.counter, demand.units)
        used -= demand.units
    return Allowance(
        demand.name,
        demand.limit,
        remaining=max(0, demand.limit - used),
        reset_seconds=max(1, math.ceil(left.total_seconds())),
        window=None,
        spent=spent,
    )


def _counted_units(month: Month) -> int:
    asked_at = time.monotonic()
    if breaker.lets_ask(asked_at):
        try:
            units = caches[conf.CACHE].get(quota_counter(month.owner_id, month.first))
        except Exception:  # noqa: BLE001 - each cache backend has errors of its own
            breaker.trip()
            logs.once_a_minute(
                "limits", "The cache did not tell what is used of a quota.", exc_info=True
            )
        else:
            breaker.answered(asked_at)
            return units or 0
    return 0


def _incremented(demand: Demand, month: Month, life: timedelta) -> int:
    cache = caches[conf.CACHE]
    try:
        return cache.incr(demand.counter, demand.units)
    except ValueError:  # it is not there: the first of the month, or the cache was lost
        # add(), not set(): another process may have seeded it and counted in between.
        cache.add(demand.counter, _seed(month), int(life.total_seconds()))
    try:
        return cache.incr(demand.counter, demand.units)
    except ValueError as error:
        raise CacheFailed(demand.counter) from error


def _seed(month: Month) -> int:
    try:
        return stored_units(month.owner_id, month.first)
    except DatabaseTrouble as error:
        # Not the cache's failure: and a transaction of the request may be broken.
        logs.once_a_minute("seed", "The database did not answer for a quota.", exc_info=True)
        raise Unavailable from error


_AT_ONCE = 500  # counters that one question to the cache asks for


def raise_quotas(stored: Mapping[tuple[str, date], int]) -> None:
    """Raise the cache's counters of months to what is *stored*, where they are lower.

    stored: units by owner and the first day of the month, as a flush has left them: that
    goes on where the cache is down.
    """
    counters = {quota_counter(*month): (month, units) for month, units in stored.items()}
    names = list(counters)
    try:
        for start in range(0, len(names), _AT_ONCE):
            cached = caches[conf.CACHE].get_many(names[start : start + _AT_ONCE])
            for name, used in cached.items():
                month, units = counters[name]
                if used < units:
                    raise_quota(*month, units)
    except Exception:  # noqa: BLE001 - each cache backend has errors of its own
        logs.once_a_minute(
            "raise", "The quotas of API keys in the cache were not raised.", exc_info=True
        )
