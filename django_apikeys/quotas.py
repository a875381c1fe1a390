"""The quota of an owner: its months, their counters in the cache, and what is stored of them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.db import Error as DatabaseTrouble
from django.db import router

from django_apikeys import logs
from django_apikeys.conf import conf
from django_apikeys.exceptions import LimitsUnavailable
from django_apikeys.models import OwnerQuota
from django_apikeys.outage import CacheFailed, breaker, cache_asked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, tzinfo

_QUARTER = 15 * 60  # seconds
_MARGIN_SECONDS = 24 * 60 * 60
# Of a counter that is raised by one process at a time; should that one die, for so long.
_LOCK_SECONDS = 10
_AT_ONCE = 500  # counters that one question to the cache asks for
_PLAIN = re.compile(r"[0-9A-Za-z_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Month:
    """A calendar month of an owner. first: its first day. ends_at: the next one's start, UTC."""

    first: date
    ends_at: datetime
    owner_id: str

    def seconds_left(self, now: datetime) -> float:
        """Return how long it lasts from *now* on."""
        return (self.ends_at - now).total_seconds()

    def life_seconds(self, now: datetime) -> int:
        """Return how long its counter is kept, which outlives it.

        Clocks differ, and a flush may come late.
        """
        return int(self.seconds_left(now)) + _MARGIN_SECONDS


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


def owner_counter(owner_id: Any) -> str:
    """Return the part of a counter's name that says whose it is."""
    # A text primary key may be longer than memcached takes, or have a space in it.
    text = str(owner_id)
    if not _PLAIN.fullmatch(text):
        text = f"~{hashlib.sha256(text.encode()).hexdigest()}"
    return f"{conf.OWNER_MODEL.lower()}:{text}"


def quota_counter(owner_id: str, month: date) -> str:
    """Return the name of the counter of an owner's calendar month."""
    return f"django_apikeys:quota:{owner_counter(owner_id)}:{month.year}-{month.month:02}"


def raise_quota(owner_id: str, month: date, units: int) -> None:
    """Raise the counter of an owner's month to *units*, those that the database has.

    It is never lowered: what others have not flushed yet is in it. One that is missing
    is left to the next request.
    Raises outage.CacheFailed.
    """
    cache, counter = caches[conf.CACHE], quota_counter(owner_id, month)
    with cache_asked():
        used = cache.get(counter)
        if used is None or used >= units:
            return
        # One at a time: two that add what is missing would add it twice.
        if cache.add(f"{counter}:raised", 1, _LOCK_SECONDS):
            missing = units - cache.get(counter, units)
            if missing > 0:
                cache.incr(counter, missing)
            cache.delete(f"{counter}:raised")


def raise_quotas(stored: Mapping[tuple[str, date], int]) -> None:
    """Raise the cache's counters of months to what is *stored*, where they are lower.

    stored: units by owner and the first day of the month, as a flush has left them: that
    goes on where the cache is down.
    """
    counters = {quota_counter(*month): (month, units) for month, units in stored.items()}
    names = list(counters)
    cache = caches[conf.CACHE]
    try:
        for start in range(0, len(names), _AT_ONCE):
            with cache_asked():
                cached = cache.get_many(names[start : start + _AT_ONCE])
            for name, used in cached.items():
                month, units = counters[name]
                if used < units:
                    raise_quota(*month, units)
    except CacheFailed:
        logs.once_a_minute(
            "raise", "The quotas of API keys in the cache were not raised.", exc_info=True
        )


def units_used(month: Month) -> int:
    """Return what an owner has used of *month*: as it is counted, and at least as flushed."""
    return max(stored_units(month.owner_id, month.first), _counted_units(month))


def stored_units(owner_id: str, month: date) -> int:
    """Return what was flushed of an owner's calendar month."""
    rows = OwnerQuota.objects.using(router.db_for_write(OwnerQuota))
    units = rows.filter(owner_id=owner_id, month=month).values_list("units", flat=True).first()
    return units or 0


def seed(month: Month) -> int:
    """Return what a counter of *month* that is not there begins with.

    Raises LimitsUnavailable where the database does not answer.
    """
    try:
        return stored_units(month.owner_id, month.first)
    except DatabaseTrouble as error:
        # Not the cache's failure: and a transaction of the request may be broken.
        logs.once_a_minute("seed", "The database did not answer for a quota.", exc_info=True)
        raise LimitsUnavailable from error


def _counted_units(month: Month) -> int:
    cache, counter = caches[conf.CACHE], quota_counter(month.owner_id, month.first)
    if (asked_at := breaker.ask()) is None:
        return 0
    try:
        with cache_asked():
            units = cache.get(counter) or 0
    except CacheFailed:
        breaker.trip()
        logs.once_a_minute(
            "limits", "The cache did not tell what is used of a quota.", exc_info=True
        )
        return 0
    breaker.answered(asked_at)
    return int(units)
