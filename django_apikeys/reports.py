"""What keys were used for and what owners have left: behind API, admin and commands.

Rows are added up by the database: a report takes three queries however many there are.
What a process has counted and not flushed is in none but the quota.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from django.apps import apps
from django.db import router
from django.db.models import Q, Sum
from django.utils.translation import gettext_lazy as _

from django_apikeys import limits, quotas
from django_apikeys.conf import conf
from django_apikeys.exceptions import InvalidInput
from django_apikeys.models import APIKeyAddress, APIKeyUsage, OwnerQuota
from django_apikeys.policy import OwnerColumns
from django_apikeys.representation import moment

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from django.db.models import QuerySet

    from django_apikeys.models import APIKey
    from django_apikeys.quotas import Month


Granularity = Literal["hour", "day", "month"]
GRANULARITIES: tuple[Granularity, ...] = get_args(Granularity)
DAYS = 30  # of a report about whose span nothing is said
MOST_BUCKETS = 1000
MOST_ROUTES = 100
MOST_ADDRESSES = 100

_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
# By outcome; what is not here is an answer of its own class.
_STATUS = {"refused": "4xx", "limited": "4xx"}
_STATUSES = ("2xx", "3xx", "4xx", "5xx")
_GOOD = ("2xx", "3xx")


def key_usage(
    key: APIKey,
    now: datetime,
    *,
    begins_at: datetime | None = None,
    ends_at: datetime | None = None,
    granularity: Granularity = "day",
) -> dict[str, Any]:
    """Return what *key* was used for, as section 7 of the contract has it.

    begins_at, ends_at: aware, widened to whole buckets, in UTC; default the 30 days that
    end with *now*. Moments are ISO 8601, UTC. Hours that were rolled into a day stand in
    its first. ``by_ip`` has the addresses that were in use in the span, each with all that
    ever came from it; it and ``by_route`` have the 100 with the most requests.
    Raises InvalidInput, by ``from`` and ``to``: what begins in the future or after its
    end, and more than 1000 buckets.
    """
    starts = list(_buckets(begins_at, ends_at, granularity, now))
    span = (starts[0], _next(starts[-1], granularity))
    rows = APIKeyUsage.objects.filter(key_id=key.pk, starts_at__gte=span[0], starts_at__lt=span[1])
    buckets = _by_bucket(rows, starts, granularity)
    totals = sum(buckets.values(), Counter[str]())
    return {
        "totals": _counts(totals),
        "series": [{"start": moment(start), **_counts(buckets[start])} for start in starts],
        "by_route": _by_route(rows),
        "by_status": _by_status(totals),
        "by_ip": _by_address(key, span),
    }


def daily(key_ids: Collection[UUID], now: datetime) -> dict[UUID, list[int]]:
    """Return the requests of each of these keys on the 30 days that end with *now*.

    The oldest day first, in UTC; all in one query.
    """
    first = _floor(now, "day") - (DAYS - 1) * _DAY
    rows = APIKeyUsage.objects.filter(key_id__in=key_ids, starts_at__gte=first)
    sums = rows.order_by().values_list("key_id", "starts_at").annotate(count=Sum("requests"))
    found = {key_id: [0] * DAYS for key_id in key_ids}
    # What another clock has counted already, for tomorrow, is not lost from the total.
    for key_id, starts_at, count in sums:
        found[key_id][min((starts_at - first).days, DAYS - 1)] += int(count)
    return found


def account(owner: Any, now: datetime) -> dict[str, Any]:
    """Return how much *owner* (None: the project itself) has used of this month.

    ``{"used", "total", "remaining", "resets_at", "plan", "rate_limit"}``. With a quota
    ``used`` is in its units, as they are counted at the moment; without one, ``total``
    and ``remaining`` are None, and ``used`` is the number of requests that were let
    through and flushed.
    """
    plan, plan_limits = _plan(owner)
    quota = plan_limits.get("quota")
    month = quotas.month_of(now, "" if owner is None else str(owner.pk))
    used = _requests(month) if quota is None else quotas.units_used(month)
    return {
        "used": used,
        "total": quota,
        "remaining": None if quota is None else max(0, quota - used),
        "resets_at": moment(month.ends_at),
        "plan": plan,
        "rate_limit": plan_limits.get("rate"),
    }


def _buckets(
    begins_at: datetime | None,
    ends_at: datetime | None,
    granularity: Granularity,
    now: datetime,
) -> Iterator[datetime]:
    """Yield when each bucket begins, the first to the last; there is one or more."""
    # The hour of now is in: what is counted in it stands at its beginning.
    present = _floor(now, "hour") + _HOUR
    end = present if ends_at is None else min(ends_at, present)
    try:
        last = end - timedelta.resolution
        begin = _floor(last, "day") - (DAYS - 1) * _DAY if begins_at is None else begins_at
    except OverflowError as error:
        raise InvalidInput({"to": [_("This is too long ago.")]}) from error
    if begin >= present:
        raise InvalidInput({"from": [_("This lies in the future.")]})
    if begin >= end:
        raise InvalidInput({"to": [_("This must lie after from.")]})
    try:
        start = _floor(begin, granularity)
    except OverflowError as error:  # of another zone: in UTC it lies before the year 1
        raise InvalidInput({"from": [_("This is too long ago.")]}) from error
    for _number in range(MOST_BUCKETS):
        yield start
        start = _next(start, granularity)
        if start > last:
            return
    raise InvalidInput(
        {
            "from": [
                _("There would be more than %(most)d rows: narrow the span, or widen granularity.")
                % {"most": MOST_BUCKETS}
            ]
        }
    )


def _floor(at: datetime, granularity: Granularity) -> datetime:
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if granularity == "hour":
        return hour
    return hour.replace(hour=0) if granularity == "day" else hour.replace(day=1, hour=0)


def _next(start: datetime, granularity: Granularity) -> datetime:
    if granularity == "month":
        # 32 days on is in the next month, whatever the month.
        return (start + 32 * _DAY).replace(day=1)
    return start + (_HOUR if granularity == "hour" else _DAY)


def _by_bucket(
    rows: QuerySet[APIKeyUsage], starts: Iterable[datetime], granularity: Granularity
) -> Mapping[datetime, Counter[str]]:
    # By the hour in the database, and by day and month here: a Trunc() needs the tables
    # of time zones on MariaDB, and calls Python for each row on SQLite.
    sums = rows.order_by().values_list("starts_at", "outcome").annotate(count=Sum("requests"))
    buckets = {start: Counter[str]() for start in starts}
    for starts_at, outcome, count in sums:
        buckets[_floor(starts_at, granularity)][outcome] += int(count)
    return buckets


def _counts(outcomes: Mapping[str, int]) -> dict[str, int]:
    return {
        "requests": sum(outcomes.values()),
        "errors": sum(count for outcome, count in outcomes.items() if outcome not in _GOOD),
        "refused": outcomes["refused"],
        "limited": outcomes["limited"],
    }


def _by_status(outcomes: Mapping[str, int]) -> list[dict[str, Any]]:
    statuses = Counter[str]()
    for outcome, count in outcomes.items():
        statuses[_STATUS.get(outcome, outcome)] += count
    return [{"status": status, "requests": statuses[status]} for status in _STATUSES]


def _by_route(rows: QuerySet[APIKeyUsage]) -> list[dict[str, Any]]:
    bad = Sum("requests", filter=~Q(outcome__in=_GOOD), default=0)
    sums = rows.values("route", "method").annotate(count=Sum("requests"), errors=bad)
    return [
        {
            "route": row["route"],
            "method": row["method"],
            "requests": int(row["count"]),
            "errors": int(row["errors"]),
        }
        for row in sums.order_by("-count", "route", "method")[:MOST_ROUTES]
    ]


def _by_address(key: APIKey, span: tuple[datetime, datetime]) -> list[dict[str, Any]]:
    rows = APIKeyAddress.objects.filter(
        key_id=key.pk, last_seen_at__gte=span[0], first_seen_at__lt=span[1]
    )
    return [
        {
            "ip": row.address,
            "first_seen": moment(row.first_seen_at),
            "last_seen": moment(row.last_seen_at),
            "requests": row.requests,
        }
        for row in rows.order_by("-requests", "address")[:MOST_ADDRESSES]
    ]


def _plan(owner: Any) -> tuple[str | None, Mapping[str, Any]]:
    if owner is None:
        return None, {}
    fields: Sequence[str] = conf.policy.columns()
    # As a request asks for them, which may be columns of other tables.
    model = apps.get_model(conf.OWNER_MODEL)
    rows = model._base_manager.using(router.db_for_write(model)).filter(pk=owner.pk)
    # The primary key too: without a name, values() would be all columns.
    row = rows.values("pk", *fields).get()
    columns = OwnerColumns((name, row[name]) for name in fields)
    plan = conf.policy.plan(columns)
    return plan, limits.plan_limits(plan, columns)


def _requests(month: Month) -> int:
    rows = OwnerQuota.objects.filter(owner_id=month.owner_id, month=month.first)
    return rows.values_list("requests", flat=True).first() or 0
