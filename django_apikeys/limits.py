"""How often a key and its owner may call: rates, quotas, and the headers that say so.

A key's own rate, the rate of its owner's plan and the plan's quota are asked in this
order; the first that is spent refuses, and what comes after it is not counted. The
counting itself is behind a seam, APIKEYS_LIMITER.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from django.core.cache import caches
from django.core.cache.backends.dummy import DummyCache
from django_ratelimit.core import get_usage

from django_apikeys import logs
from django_apikeys.conf import conf, problem_with_plan
from django_apikeys.exceptions import LimitsUnavailable, QuotaExceeded, RateLimited, Refused
from django_apikeys.keys import rates
from django_apikeys.outage import REST_SECONDS, CacheFailed, breaker, cache_asked
from django_apikeys.quotas import Month, month_of, owner_counter, quota_counter, seed
from django_apikeys.recording import noted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from django_apikeys.keys.grants import Grant
    from django_apikeys.recording import Use

_ASKED = "apikeys_allowances"  # of the HttpRequest


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
        is not counted either.
        Raises ``outage.CacheFailed`` where the cache does not count, which is told in the
        log, and APIKEYS_LIMITS_FAIL answers; a Refused, which is the answer. All else is an
        error of the program, and fails the request as one of its view does.
        """


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
    Raises RateLimited, QuotaExceeded; LimitsUnavailable where the cache is down and
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


def is_counted(request: HttpRequest) -> bool:
    """Return whether *request* was counted against its limits, if it has any."""
    return hasattr(request, _ASKED)


def demands_of(grant: Grant, units: int, now: datetime) -> list[Demand]:
    """Return what a request with the key of *grant* asks of which counters, in their order."""
    demands = []
    if rate := rates.read_stored(grant.rate_limit):
        counter = f"django_apikeys.apikey:{grant.key_id}"
        demands.append(Demand("key", counter, rate.limit, rate.seconds))
    elif grant.rate_limit:
        # Something else has written it. The customer is not locked out for that.
        logs.once_a_minute(
            "rate",
            "The rate_limit of the key %s cannot be read, and limits nothing: %.40r.",
            grant.public_id,
            grant.rate_limit,
        )
    if rate := rates.read_stored(grant.plan_rate):
        demands.append(Demand("plan", owner_counter(grant.owner_id), rate.limit, rate.seconds))
    if grant.quota is not None:
        month = month_of(now, str(grant.owner_id))
        counter = quota_counter(month.owner_id, month.first)
        demands.append(Demand("quota", counter, grant.quota, month, units))
    return demands


def plan_limits(plan: str | None, owner: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``rate`` and ``quota`` of an owner, as far as they have any.

    plan: by its name in APIKEYS_PLANS. owner: their columns, of the policy's ``owner_fields``.
    """
    plans = conf.PLANS
    if plans and plan is not None and plan not in plans:
        logs.once_a_minute(
            "plan", "A plan is not in APIKEYS_PLANS, and so its owners have no limits: %r.", plan
        )
    limits: Mapping[str, Any] = {} if plan is None else plans.get(plan, {})
    own = conf.policy.plan_limits(owner)
    if problem := problem_with_plan(own):
        # Those of the plan hold: neither a typing error nor the lack of a row opens them.
        logs.once_a_minute("plan_limits", "What plan_limits of the policy returned %s", problem)
        return limits
    return {**limits, **own}


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


def _asked(demands: Sequence[Demand], use: Use | None, now: datetime) -> Sequence[Allowance]:
    limiter = conf.limiter
    count = None if use is None else getattr(limiter, "spend_and_count", None)
    if not demands and count is None:
        return ()
    if (asked_at := breaker.ask()) is not None:
        try:
            allowances = count(demands, use, now) if count else limiter.spend(demands, now)
        except Refused:
            breaker.answered(asked_at)
            raise
        except CacheFailed:
            breaker.trip()
            logs.once_a_minute(
                "limits", "The cache did not count for the limits of API keys.", exc_info=True
            )
        else:
            breaker.answered(asked_at)
            return allowances
    if demands and conf.LIMITS_FAIL == "closed":
        raise LimitsUnavailable(retry_after=int(REST_SECONDS))
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
        with cache_asked():
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
    used, spent = _charged(demand, month, now)
    return Allowance(
        demand.name,
        demand.limit,
        remaining=max(0, demand.limit - used),
        reset_seconds=max(1, math.ceil(month.seconds_left(now))),
        window=None,
        spent=spent,
    )


def _charged(demand: Demand, month: Month, now: datetime) -> tuple[int, bool]:
    """Count the units of *demand*; return what is used, and whether they were too many."""
    # Looked at before several are counted: while they are taken back they would hold up a
    # call that fits. What others count in between the second look alone can find.
    cache = caches[conf.CACHE]
    if demand.units > 1:
        with cache_asked():
            used = cache.get(demand.counter) or 0
        if used + demand.units > demand.limit:
            return used, True
    used = _incremented(demand, month, now)
    # What costs nothing is let through, whatever was used.
    if used <= demand.limit or not demand.units:
        return used, False
    # Refused in any case; what is not taken back is too much by this one request.
    with suppress(CacheFailed), cache_asked():
        cache.decr(demand.counter, demand.units)
    return used - demand.units, True


def _incremented(demand: Demand, month: Month, now: datetime) -> int:
    used = _raised(demand)
    if used is None:  # the first of the month, or the cache was lost
        begin, life = seed(month), month.life_seconds(now)
        # add(), not set(): another process may have seeded it and counted in between.
        with cache_asked():
            caches[conf.CACHE].add(demand.counter, begin, life)
        used = _raised(demand)
    if used is None:
        raise CacheFailed(demand.counter)
    return used


def _raised(demand: Demand) -> int | None:
    """Return the counter with what *demand* adds; None where there is no counter."""
    with cache_asked():
        try:
            used: int = caches[conf.CACHE].incr(demand.counter, demand.units)
        except ValueError:
            return None
    return used
