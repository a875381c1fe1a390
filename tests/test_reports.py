"""What a key was used for, and what an owner has left: sections 4 and 7 of the contract."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys import quotas, reports
from django_apikeys.exceptions import InvalidInput
from django_apikeys.models import APIKeyUsage, OwnerQuota
from django_apikeys.outage import breaker
from django_apikeys.policy import BasePolicy, UserPolicy
from tests.factories import APIKeyFactory, UserFactory
from tests.traffic import used, utc

NOW = utc(2026, 11, 20, 10, 37, 12)
PLANS = {"free": {"rate": "60/m", "quota": 100}, "boundless": {"rate": "300/m"}}


class Planned(UserPolicy):
    """Plans by the first name of a user; those called Ann have a quota of their own."""

    owner_fields = ("first_name", "last_name")

    def plan(self, owner):
        return owner["first_name"] or None

    def plan_limits(self, owner):
        return {"quota": 7} if owner["last_name"] == "Ann" else {}


class BrokenCache:
    """A cache that does not answer."""

    asked = 0

    def get(self, name):
        self.asked += 1
        raise ConnectionError("no cache")


@pytest.fixture
def key(db):
    return APIKeyFactory()


@pytest.fixture
def _plans(settings):
    settings.APIKEYS_PLANS = PLANS
    settings.APIKEYS_POLICY = "tests.test_reports.Planned"


@pytest.fixture
def _empty_cache():
    cache.clear()
    breaker.reset()
    yield
    cache.clear()
    breaker.reset()


def on_plan(plan, **fields):
    return UserFactory(first_name=plan, **fields)


def spent(report):
    """Return start and number of the rows of the series that have requests."""
    return {row["start"]: row["requests"] for row in report["series"] if row["requests"]}


# --- The report of a key ------------------------------------------------------------------


def test_report_of_a_key(key):
    used(key, utc(2026, 11, 19, 23, 59), 3, address="192.0.2.7")
    used(key, utc(2026, 11, 20, 10, 30), 2, outcome="4xx", address="192.0.2.7")
    used(key, utc(2026, 11, 20, 10, 31), outcome="5xx", route="jobs/", method="POST")
    used(key, utc(2026, 11, 20, 10, 32), 4, outcome="refused", route="jobs/")
    used(key, utc(2026, 11, 20, 10, 33), 5, outcome="limited", address="192.0.2.8")
    used(key, utc(2026, 11, 20, 10, 34), outcome="3xx")

    report = reports.key_usage(key, NOW, begins_at=utc(2026, 11, 18))

    assert report == {
        "totals": {"requests": 16, "errors": 12, "refused": 4, "limited": 5},
        "series": [
            {
                "start": "2026-11-18T00:00:00Z",
                "requests": 0,
                "errors": 0,
                "refused": 0,
                "limited": 0,
            },
            {
                "start": "2026-11-19T00:00:00Z",
                "requests": 3,
                "errors": 0,
                "refused": 0,
                "limited": 0,
            },
            {
                "start": "2026-11-20T00:00:00Z",
                "requests": 13,
                "errors": 12,
                "refused": 4,
                "limited": 5,
            },
        ],
        "by_route": [
            {"route": "customers/", "method": "GET", "requests": 11, "errors": 7},
            {"route": "jobs/", "method": "GET", "requests": 4, "errors": 4},
            {"route": "jobs/", "method": "POST", "requests": 1, "errors": 1},
        ],
        "by_status": [
            {"status": "2xx", "requests": 3},
            {"status": "3xx", "requests": 1},
            {"status": "4xx", "requests": 11},
            {"status": "5xx", "requests": 1},
        ],
        "by_ip": [
            {
                "ip": "192.0.2.7",
                "first_seen": "2026-11-19T23:59:00Z",
                "last_seen": "2026-11-20T10:30:00Z",
                "requests": 5,
            },
            {
                "ip": "192.0.2.8",
                "first_seen": "2026-11-20T10:33:00Z",
                "last_seen": "2026-11-20T10:33:00Z",
                "requests": 5,
            },
        ],
    }


def test_key_that_was_never_used_has_thirty_empty_days(key):
    report = reports.key_usage(key, NOW)

    assert report["totals"] == {"requests": 0, "errors": 0, "refused": 0, "limited": 0}
    assert [row["start"] for row in report["series"]][:: len(report["series"]) - 1] == [
        "2026-10-22T00:00:00Z",
        "2026-11-20T00:00:00Z",
    ]
    assert len(report["series"]) == 30
    assert report["by_route"] == report["by_ip"] == []
    assert [row["requests"] for row in report["by_status"]] == [0, 0, 0, 0]


def test_requests_of_other_keys_are_theirs(key):
    used(APIKeyFactory(), utc(2026, 11, 20, 9), address="192.0.2.7")

    report = reports.key_usage(key, NOW)

    assert report["totals"]["requests"] == 0
    assert report["by_route"] == report["by_ip"] == []


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(utc(2026, 11, 20, 10), id="first-moment-of-an-hour"),
        pytest.param(utc(2026, 11, 20, 10, 59, 59, 999999), id="last-moment-of-an-hour"),
        pytest.param(utc(2026, 11, 20), id="first-moment-of-a-day"),
        pytest.param(utc(2026, 11, 20, 23, 59, 59, 999999), id="last-moment-of-a-day"),
    ],
)
@pytest.mark.parametrize("granularity", ["hour", "day", "month"])
def test_now_is_included(key, now, granularity):
    used(key, now)

    report = reports.key_usage(key, now, granularity=granularity)

    assert report["totals"]["requests"] == 1
    assert report["series"][-1]["requests"] == 1


def test_default_of_thirty_days_by_the_hour(key):
    report = reports.key_usage(key, NOW, granularity="hour")

    assert len(report["series"]) == 29 * 24 + 11
    assert report["series"][0]["start"] == "2026-10-22T00:00:00Z"
    assert report["series"][-1]["start"] == "2026-11-20T10:00:00Z"


GRANULAR = {
    "hour": {
        "2026-10-31T23:00:00Z": 1,
        "2026-11-01T00:00:00Z": 2,
        "2026-11-01T01:00:00Z": 4,
        "2026-11-02T00:00:00Z": 8,
    },
    "day": {
        "2026-10-31T00:00:00Z": 1,
        "2026-11-01T00:00:00Z": 6,
        "2026-11-02T00:00:00Z": 8,
    },
    "month": {"2026-10-01T00:00:00Z": 1, "2026-11-01T00:00:00Z": 14},
}


@pytest.mark.parametrize(("granularity", "expected"), GRANULAR.items(), ids=GRANULAR.keys())
def test_series_by(key, granularity, expected):
    """Buckets begin and end in UTC."""
    used(key, utc(2026, 10, 31, 23, 59, 59, 999999), 1)
    used(key, utc(2026, 11, 1), 2)
    used(key, utc(2026, 11, 1, 1), 4)
    used(key, utc(2026, 11, 2), 8)

    report = reports.key_usage(key, NOW, begins_at=utc(2026, 10, 20), granularity=granularity)

    assert spent(report) == expected


def test_zone_of_the_project_moves_no_bucket(key, settings):
    settings.TIME_ZONE = "America/New_York"
    used(key, utc(2026, 11, 1, 2), 2)

    with timezone.override("America/New_York"):
        report = reports.key_usage(key, NOW)

    assert spent(report) == {"2026-11-01T00:00:00Z": 2}


def test_months_are_all_there_are_whatever_their_length(key):
    report = reports.key_usage(
        key,
        utc(2024, 3, 31, 12),
        begins_at=utc(2023, 12, 31),
        granularity="month",
    )

    assert [row["start"][:10] for row in report["series"]] == [
        "2023-12-01",
        "2024-01-01",
        "2024-02-01",
        "2024-03-01",
    ]


SPANS = {
    "whole days": (utc(2026, 11, 1), utc(2026, 11, 3), ["01", "02"]),
    "a part of a day": (utc(2026, 11, 1, 15), utc(2026, 11, 1, 16), ["01"]),
    "widened at both ends": (utc(2026, 11, 1, 15), utc(2026, 11, 2, 0, 0, 1), ["01", "02"]),
    "a moment": (utc(2026, 11, 1), utc(2026, 11, 1, 0, 0, 0, 1), ["01"]),
    "of another zone": (
        datetime(2026, 11, 2, 0, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2026, 11, 2, 1, 30, tzinfo=ZoneInfo("Europe/Berlin")),
        ["01", "02"],
    ),
    "no beginning": (None, utc(2026, 10, 3), [f"{day:02}" for day in (*range(3, 31), 1, 2)]),
    "no end": (utc(2026, 11, 19), None, ["19", "20"]),
    "end in the future": (utc(2026, 11, 19), utc(9999, 12, 31), ["19", "20"]),
    "today": (utc(2026, 11, 20, 10, 59), None, ["20"]),
}


@pytest.mark.parametrize(("begins_at", "ends_at", "days"), SPANS.values(), ids=SPANS.keys())
def test_span_by_day(key, begins_at, ends_at, days):
    report = reports.key_usage(key, NOW, begins_at=begins_at, ends_at=ends_at)

    assert [row["start"][8:10] for row in report["series"]] == days


def test_what_lies_outside_is_left_out_everywhere(key):
    used(key, utc(2026, 10, 31, 23), route="before/", address="192.0.2.1")
    used(key, utc(2026, 11, 2), route="after/", address="192.0.2.3")
    used(key, utc(2026, 11, 1, 12), route="within/", address="192.0.2.2")

    report = reports.key_usage(key, NOW, begins_at=utc(2026, 11, 1), ends_at=utc(2026, 11, 2))

    assert report["totals"]["requests"] == 1
    assert [row["route"] for row in report["by_route"]] == ["within/"]
    assert [row["ip"] for row in report["by_ip"]] == ["192.0.2.2"]
    assert sum(row["requests"] for row in report["by_status"]) == 1


FUTURE = {"from": ["This lies in the future."]}
BACKWARDS = {"to": ["This must lie after from."]}
LONG_AGO = {"to": ["This is too long ago."]}
TOO_MANY = {"from": ["There would be more than 1000 rows: narrow the span, or widen granularity."]}
EASTERN_BEGIN = datetime.min.replace(tzinfo=timezone.get_fixed_timezone(14 * 60))
WESTERN_END = datetime.max.replace(tzinfo=timezone.get_fixed_timezone(-12 * 60))
BAD_SPANS = {
    "future": (utc(2026, 11, 20, 11), None, "day", FUTURE),
    "far future": (utc(9999, 12, 31), None, "month", FUTURE),
    "backwards": (utc(2026, 11, 2), utc(2026, 11, 1), "day", BACKWARDS),
    "no time at all": (utc(2026, 11, 1), utc(2026, 11, 1), "day", BACKWARDS),
    "end at the beginning of time": (None, utc(1, 1, 1), "day", LONG_AGO),
    "begin before the beginning of time": (None, utc(1, 1, 29), "day", LONG_AGO),
    "end before the beginning of time, in UTC": (None, EASTERN_BEGIN, "day", LONG_AGO),
    "both there": (
        EASTERN_BEGIN,
        EASTERN_BEGIN + timedelta(hours=1),
        "day",
        {"from": LONG_AGO["to"]},
    ),
    "begin there": (EASTERN_BEGIN, None, "month", {"from": LONG_AGO["to"]}),
    "begin behind the end of time, in UTC": (WESTERN_END, None, "month", FUTURE),
    "1001 hours": (utc(2026, 1, 1), utc(2026, 1, 1) + timedelta(hours=1001), "hour", TOO_MANY),
    "1001 days": (utc(2020, 1, 1), utc(2020, 1, 1) + timedelta(days=1001), "day", TOO_MANY),
    "all months": (utc(1, 1, 1), None, "month", TOO_MANY),
}


@pytest.mark.parametrize(
    ("begins_at", "ends_at", "granularity", "fields"), BAD_SPANS.values(), ids=BAD_SPANS.keys()
)
def test_bad_span_names_its_field(key, begins_at, ends_at, granularity, fields):
    with pytest.raises(InvalidInput) as caught:
        reports.key_usage(key, NOW, begins_at=begins_at, ends_at=ends_at, granularity=granularity)

    assert caught.value.message_dict == fields


@pytest.mark.parametrize(
    ("granularity", "length"), [("hour", timedelta(hours=1)), ("day", timedelta(days=1))]
)
def test_thousand_buckets_are_not_too_many(key, granularity, length):
    begins_at = utc(2020, 1, 1)

    report = reports.key_usage(
        key, NOW, begins_at=begins_at, ends_at=begins_at + 1000 * length, granularity=granularity
    )

    assert len(report["series"]) == 1000


def test_span_long_before_the_first_key_is_empty(key):
    """A year that databases may hold otherwise than Python does."""
    report = reports.key_usage(key, NOW, begins_at=utc(500, 1, 1), ends_at=utc(500, 1, 3))

    assert report["totals"]["requests"] == 0
    assert len(report["series"]) == 2


@pytest.mark.parametrize(
    ("granularity", "start"),
    [
        ("hour", "2026-11-01T00:00:00Z"),
        ("day", "2026-11-01T00:00:00Z"),
        ("month", "2026-11-01T00:00:00Z"),
    ],
)
def test_day_that_was_rolled_up_stands_in_its_first_hour(key, granularity, start):
    APIKeyUsage.objects.create(
        key_id=key.pk,
        starts_at=utc(2026, 11, 1),
        hours=24,
        route="customers/",
        method="GET",
        outcome="2xx",
        requests=7,
    )

    report = reports.key_usage(key, NOW, granularity=granularity)

    assert spent(report) == {start: 7}


def test_hours_and_their_day_add_up(key):
    """A late flush has added an hour to a day that was rolled up."""
    used(key, utc(2026, 11, 1, 5), 2)
    APIKeyUsage.objects.update(starts_at=utc(2026, 11, 1), hours=24)
    used(key, utc(2026, 11, 1), 3)

    report = reports.key_usage(key, NOW)

    assert spent(report) == {"2026-11-01T00:00:00Z": 5}
    assert report["by_route"] == [
        {"route": "customers/", "method": "GET", "requests": 5, "errors": 0}
    ]


def test_routes_and_addresses_are_the_hundred_with_the_most_requests(key):
    for number in range(101):
        used(key, NOW, 1 + (number == 100), route=f"r{number:03}/", address=f"192.0.2.{number}")

    report = reports.key_usage(key, NOW)

    assert len(report["by_route"]) == len(report["by_ip"]) == 100
    assert [row["route"] for row in report["by_route"][:2]] == ["r100/", "r000/"]
    assert [row["ip"] for row in report["by_ip"][:2]] == ["192.0.2.100", "192.0.2.0"]
    assert report["totals"]["requests"] == 102


def test_report_takes_three_queries_however_many_rows_there_are(key):
    def queries():
        with CaptureQueriesContext(
            connection,
        ) as captured:
            reports.key_usage(key, NOW)
        return len(captured)

    none = queries()
    for day in range(1, 20):
        used(key, utc(2026, 11, day), route=f"r{day}/", address=f"192.0.2.{day}")

    assert (none, queries()) == (3, 3)


# --- The account of an owner --------------------------------------------------------------


@pytest.mark.usefixtures("_plans", "_empty_cache")
@pytest.mark.django_db
class TestAccount:
    def test_of_an_owner_with_a_quota(self):
        owner = on_plan("free")
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=date(2026, 11, 1), units=60)
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=date(2026, 10, 1), units=99)

        assert reports.account(owner, NOW) == {
            "used": 60,
            "total": 100,
            "remaining": 40,
            "resets_at": "2026-12-01T00:00:00Z",
            "plan": "free",
            "rate_limit": "60/m",
        }

    def test_of_an_owner_who_has_used_more_than_there_is_has_nothing_left(self):
        owner = on_plan("free")
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=date(2026, 11, 1), units=101)

        account = reports.account(owner, NOW)

        assert (account["used"], account["remaining"]) == (101, 0)

    @pytest.mark.parametrize(
        ("flushed", "counted", "expected"),
        [
            pytest.param(60, 63, 63, id="counted since the last flush"),
            pytest.param(60, 2, 60, id="cache lost"),
            pytest.param(0, 5, 5, id="nothing flushed"),
        ],
    )
    def test_tells_what_is_counted_where_that_is_more(self, flushed, counted, expected):
        owner = on_plan("free")
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=date(2026, 11, 1), units=flushed)
        cache.set(quotas.quota_counter(str(owner.pk), date(2026, 11, 1)), counted)

        assert reports.account(owner, NOW)["used"] == expected

    def test_tells_what_was_flushed_while_the_cache_is_down(self, monkeypatch, caplog):
        owner = on_plan("free")
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=date(2026, 11, 1), units=60)
        broken = BrokenCache()
        monkeypatch.setattr(quotas, "caches", {"default": broken})

        used_then = [reports.account(owner, NOW)["used"] for _ in range(2)]

        assert used_then == [60, 60]
        assert broken.asked == 1  # and then it is left alone for a while

    def test_of_a_plan_without_a_quota_counts_the_requests_of_the_month(self):
        owner = on_plan("boundless")
        key = APIKeyFactory(owner=owner)
        used(key, utc(2026, 10, 31, 23), 100)
        used(key, utc(2026, 11, 1), 2)
        used(key, NOW, 3, outcome="5xx")
        used(key, NOW, 10, outcome="refused")
        used(key, NOW, 20, outcome="limited")
        used(APIKeyFactory(owner=owner, deleted=True), NOW, 4)
        used(APIKeyFactory(), NOW, 50)

        assert reports.account(owner, NOW) == {
            "used": 9,
            "total": None,
            "remaining": None,
            "resets_at": "2026-12-01T00:00:00Z",
            "plan": "boundless",
            "rate_limit": "300/m",
        }

    def test_of_the_project_itself(self):
        used(APIKeyFactory(owner=None), NOW, 2)
        used(APIKeyFactory(), NOW, 5)

        assert reports.account(None, NOW) == {
            "used": 2,
            "total": None,
            "remaining": None,
            "resets_at": "2026-12-01T00:00:00Z",
            "plan": None,
            "rate_limit": None,
        }

    def test_of_an_owner_who_was_never_seen(self):
        account = reports.account(on_plan(""), NOW)

        assert (account["used"], account["plan"], account["rate_limit"]) == (0, None, None)

    def test_has_the_limits_that_the_policy_gives_one_owner(self):
        account = reports.account(on_plan("boundless", last_name="Ann"), NOW)

        assert (account["plan"], account["rate_limit"]) == ("boundless", "300/m")
        assert (account["used"], account["total"], account["remaining"]) == (0, 7, 7)

    @pytest.mark.parametrize(
        ("now", "resets_at"),
        [
            (utc(2026, 10, 31, 22, 59), "2026-10-31T23:00:00Z"),
            (utc(2026, 10, 31, 23), "2026-11-30T23:00:00Z"),
        ],
    )
    def test_resets_with_the_month_of_the_quota(self, settings, now, resets_at):
        settings.APIKEYS_QUOTA_TIME_ZONE = "Europe/Berlin"

        assert reports.account(on_plan("free"), now)["resets_at"] == resets_at

    def test_counts_from_the_first_hour_of_that_month(self, settings):
        settings.APIKEYS_QUOTA_TIME_ZONE = "Europe/Berlin"
        owner = on_plan("boundless")
        key = APIKeyFactory(owner=owner)
        used(key, utc(2026, 10, 31, 22))
        used(key, utc(2026, 10, 31, 23), 2)

        assert reports.account(owner, utc(2026, 11, 3))["used"] == 2

    def test_counts_each_hour_of_that_month(self, settings):
        """Also where it begins within an hour of UTC."""
        settings.APIKEYS_QUOTA_TIME_ZONE = "Asia/Kolkata"  # half an hour off
        owner = on_plan("boundless")
        key = APIKeyFactory(owner=owner)
        used(key, utc(2026, 10, 31, 18, 29), 4)
        used(key, utc(2026, 10, 31, 18, 30), 2)

        assert reports.account(owner, utc(2026, 11, 3))["used"] == 2

    def test_has_the_requests_of_keys_that_are_gone(self):
        owner = on_plan("boundless")
        key = APIKeyFactory(owner=owner)
        used(key, NOW, 4)
        key.delete()

        assert reports.account(owner, NOW)["used"] == 4

    def test_of_a_plan_that_has_lost_its_quota_has_its_requests(self):
        owner = on_plan("boundless")
        month = date(2026, 11, 1)
        OwnerQuota.objects.create(owner_id=str(owner.pk), month=month, units=60, requests=12)

        assert reports.account(owner, NOW)["used"] == 12

    @pytest.mark.parametrize("plan", ["free", "boundless"])
    def test_takes_two_queries(self, plan, django_assert_num_queries):
        """The owner's columns and what was flushed: of one with a quota and one without."""
        owner = on_plan(plan)
        used(APIKeyFactory(owner=owner), NOW)

        with django_assert_num_queries(2) as captured:
            reports.account(owner, NOW)

        assert [
            "django_apikeys_apikeyusage" in query["sql"] for query in captured.captured_queries
        ] == [False, False]


class TestDaily:
    """The charts of a list, all at once."""

    def test_has_the_requests_of_each_key_on_thirty_days(self, key):
        other = APIKeyFactory()
        used(key, utc(2026, 11, 20, 10), 3)
        used(key, utc(2026, 11, 20, 9), 2)
        used(key, utc(2026, 10, 22, 0), 7)
        used(key, utc(2026, 10, 21, 23), 9)
        used(other, utc(2026, 11, 19, 23))

        found = reports.daily([key.pk, other.pk], NOW)

        assert found[key.pk] == [7, *[0] * 28, 5]
        assert found[other.pk] == [*[0] * 28, 1, 0]

    def test_counts_what_a_fast_clock_has_stored_for_tomorrow_today(self, key):
        used(key, utc(2026, 11, 21, 0), 4)

        assert reports.daily([key.pk], NOW)[key.pk][-1] == 4

    def test_takes_one_query(self, key, django_assert_num_queries):
        with django_assert_num_queries(1):
            reports.daily([key.pk, *(APIKeyFactory.build().pk for _ in range(9))], NOW)


def test_policy_without_columns_is_asked_with_none(user, settings):
    settings.APIKEYS_POLICY = "tests.test_reports.Columnless"

    assert reports.account(user, datetime.now(UTC))["plan"] == "of all"


class Columnless(BasePolicy):
    """Asks for nothing of an owner."""

    def plan(self, owner):
        return "of all" if owner == {} else "wrong"
