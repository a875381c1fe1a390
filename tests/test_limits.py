"""Rates and quotas: section 8 of the contract, below DRF."""

import threading
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse

from django_apikeys import limits, logs, outage, quotas
from django_apikeys.exceptions import QuotaExceeded, RateLimited, Unavailable
from django_apikeys.limits import Allowance, Demand, RatelimitLimiter
from django_apikeys.models import OwnerQuota
from django_apikeys.outage import breaker
from django_apikeys.policy import UserPolicy
from django_apikeys.quotas import Month
from django_apikeys.recording import Use, note, noted
from tests.limiting import KEY_ID, grant, stopped, utc

NOW = utc(2026, 11, 20, 12, 0, 0)
NOVEMBER = Month(date(2026, 11, 1), utc(2026, 12, 1), "7")
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


class VanishingCache(LocMemCache):
    """Loses each counter once, between ``add`` and ``incr``."""

    lost = 0

    def incr(self, key, delta=1, version=None):
        if not self.lost:
            self.lost += 1
            self.delete(key)
            raise ValueError(key)
        return super().incr(key, delta, version)


class ForgetfulCache(LocMemCache):
    """Keeps nothing, and says nothing of it."""

    def incr(self, key, delta=1, version=None):
        raise ValueError(key)


class UnforgivingCache(LocMemCache):
    """Is gone as soon as something is to be taken back."""

    def decr(self, key, delta=1, version=None):
        raise ConnectionError


class DeadLimiter:
    """Stands for a cache that is down; counts how often it was asked."""

    asked = 0

    def spend(self, demands, now):
        type(self).asked += 1
        raise outage.CacheFailed from ConnectionError()


class FlakyLimiter(DeadLimiter):
    """Comes back when it is told to."""

    asked = 0
    is_up = False

    def spend(self, demands, now):
        type(self).asked += 1
        if self.is_up:
            return ()
        raise outage.CacheFailed


class BrokenLimiter:
    """Has an error of its own."""

    def spend(self, demands, now):
        return [None + 1]


class ToldPolicy(UserPolicy):
    """Says what it was told."""

    told: object = {}

    def plan_limits(self, owner):
        return self.told


@pytest.fixture
def cache(settings):
    """A cache of this test alone, which holds every counter."""

    def make(backend=LOCMEM, **config):
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "limits", **config}}
        return caches["default"]

    cache = make()
    cache.clear()
    yield make
    breaker.reset()
    cache.clear()


@pytest.fixture
def limiter(cache):
    return RatelimitLimiter()


@pytest.fixture
def request_of(cache):
    """Make a request of which its use is noted."""

    def make():
        request = HttpRequest()
        note(request, Use(KEY_ID, 1, "7", NOW, None))
        return request

    return make


def demand(name="key", counter="django_apikeys.apikey:1", limit=3, window=60, units=1):
    return Demand(name, counter, limit, window, units)


def quota(limit=10, units=1, owner="7"):
    counter = quotas.quota_counter(owner, NOVEMBER.first)
    return Demand("quota", counter, limit, Month(NOVEMBER.first, NOVEMBER.ends_at, owner), units)


def passes(limiter, *demands):
    """Tell whether a request with these demands is let through."""
    return not limiter.spend(demands, NOW)[-1].spent


# --- What a request asks of which counter ---------------------------------------------------


class TestDemands:
    def test_are_the_key_then_the_plan_then_the_quota(self):
        demands = limits.demands_of(
            grant(rate_limit="60/m", plan_rate="300/h", quota=1000), 5, NOW
        )

        assert demands == [
            Demand("key", f"django_apikeys.apikey:{KEY_ID}", 60, 60, 1),
            Demand("plan", "auth.user:7", 300, 3600, 1),
            Demand("quota", "django_apikeys:quota:auth.user:7:2026-11", 1000, NOVEMBER, 5),
        ]

    def test_are_none_without_limits(self):
        assert limits.demands_of(grant(), 1, NOW) == []

    def test_a_quota_of_nothing_is_a_limit(self):
        assert [item.limit for item in limits.demands_of(grant(quota=0), 1, NOW)] == [0]

    @pytest.mark.parametrize("rate", ["300", "0/m", "300/y", "many" * 20])
    def test_a_stored_rate_that_cannot_be_read_asks_nothing_and_is_told(
        self, rate, caplog, monkeypatch
    ):
        monkeypatch.setattr(logs, "_said_at", {})

        assert limits.demands_of(grant(rate_limit=rate), 1, NOW) == []
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "7Fq2Lm9XcT0a" in caplog.text
        assert rate[:39] in caplog.text

    def test_no_rate_is_not_told(self, caplog):
        assert limits.demands_of(grant(rate_limit=""), 1, NOW) == []
        assert caplog.text == ""

    def test_owners_of_two_models_have_counters_of_their_own(self, settings):
        of_user = limits.demands_of(grant(plan_rate="1/m", quota=1), 1, NOW)
        settings.APIKEYS_OWNER_MODEL = "auth.Group"
        of_group = limits.demands_of(grant(plan_rate="1/m", quota=1), 1, NOW)

        assert {item.counter for item in of_user}.isdisjoint(item.counter for item in of_group)

    @pytest.mark.parametrize(
        ("owner_id", "name"),
        [
            pytest.param(7, "auth.user:7", id="number"),
            pytest.param(KEY_ID, f"auth.user:{KEY_ID}", id="UUID"),
            pytest.param("acme_1.b", "auth.user:acme_1.b", id="slug"),
            pytest.param(
                "acme corp",
                "auth.user:~ea6f9c07a2f95c788a1645cf557f58aa63c5fa3ad7d749b9db4fce435deef64e",
                id="space",
            ),
            pytest.param("a" * 65, None, id="long"),
            pytest.param("ä", None, id="not ASCII"),
            pytest.param("a\n", None, id="line break"),
            pytest.param("", None, id="empty"),
        ],
    )
    def test_a_counter_has_a_name_that_memcached_takes(self, owner_id, name):
        counter = limits.demands_of(grant(owner_id=owner_id, plan_rate="1/m"), 1, NOW)[0].counter

        assert counter.isascii()
        assert counter.isprintable()
        assert " " not in counter
        assert len(counter) < 100
        if name:
            assert counter == name


class TestMonth:
    @pytest.mark.parametrize(
        ("zone", "now", "first", "ends_at"),
        [
            pytest.param(
                "UTC",
                utc(2026, 11, 1),
                date(2026, 11, 1),
                utc(2026, 12, 1),
                id="first moment",
            ),
            pytest.param(
                "UTC",
                utc(2026, 11, 30, 23, 59, 59, 999_999),
                date(2026, 11, 1),
                utc(2026, 12, 1),
                id="last moment",
            ),
            pytest.param(
                "UTC", utc(2026, 12, 31, 12), date(2026, 12, 1), utc(2027, 1, 1), id="December"
            ),
            pytest.param(
                "UTC", utc(2027, 1, 31, 12), date(2027, 1, 1), utc(2027, 2, 1), id="January, 31st"
            ),
            pytest.param(
                "UTC", utc(2028, 2, 29, 12), date(2028, 2, 1), utc(2028, 3, 1), id="leap day"
            ),
            pytest.param(
                "Asia/Tokyo",
                utc(2026, 11, 30, 15),
                date(2026, 12, 1),
                utc(2026, 12, 31, 15),
                id="ahead of UTC",
            ),
            pytest.param(
                "America/New_York",
                utc(2026, 11, 1, 3, 59),
                date(2026, 10, 1),
                utc(2026, 11, 1, 4),
                id="behind UTC",
            ),
            pytest.param(
                "Europe/Berlin",
                utc(2026, 10, 20),
                date(2026, 10, 1),
                utc(2026, 10, 31, 23),
                id="clocks go back within",
            ),
            pytest.param(
                "Europe/Berlin",
                utc(2026, 3, 20),
                date(2026, 3, 1),
                utc(2026, 3, 31, 22),
                id="clocks go forward within",
            ),
            # On 1 November 2026 at 01:00 clocks go back to 00:00 there: midnight comes twice.
            pytest.param(
                "America/Havana",
                utc(2026, 10, 20),
                date(2026, 10, 1),
                utc(2026, 11, 1, 4),
                id="ends with the first of two midnights",
            ),
            pytest.param(
                "America/Havana",
                utc(2026, 11, 1, 5, 30),
                date(2026, 11, 1),
                utc(2026, 12, 1, 5),
                id="second of two midnights",
            ),
        ],
    )
    def test_edges(self, settings, zone, now, first, ends_at):
        settings.APIKEYS_QUOTA_TIME_ZONE = zone

        month = quotas.month_of(now, "7")

        assert (month.first, month.ends_at) == (first, ends_at)

    def test_the_span_until_its_end_counts_the_hour_that_comes_twice(self, settings):
        settings.APIKEYS_QUOTA_TIME_ZONE = "Europe/Berlin"
        now = datetime(2026, 10, 1, tzinfo=ZoneInfo("Europe/Berlin"))

        month = quotas.month_of(now, "7")

        assert month.ends_at - now == timedelta(days=31, hours=1)


# --- Rates ------------------------------------------------------------------------------------


class TestRate:
    def test_lets_its_number_through_and_no_more(self, limiter):
        assert [passes(limiter, demand(limit=3)) for _ in range(5)] == [
            True,
            True,
            True,
            False,
            False,
        ]

    def test_tells_what_is_left(self, limiter, monkeypatch):
        stopped(monkeypatch, 1_800_000_000)

        told = [limiter.spend([demand(limit=2)], NOW)[0] for _ in range(3)]

        assert [(item.remaining, item.spent) for item in told] == [
            (1, False),
            (0, False),
            (0, True),
        ]
        assert {(item.name, item.limit, item.window) for item in told} == {("key", 2, 60)}

    @pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)], ids=["raised", "lowered"])
    def test_a_changed_number_goes_on_with_the_count(self, limiter, before, after):
        limiter.spend([demand(limit=before)], NOW)

        allowance = limiter.spend([demand(limit=after)], NOW)[0]

        assert (allowance.remaining, allowance.spent) == (max(0, after - 2), after < 2)

    def test_counters_of_another_name_or_window_count_apart(self, limiter):
        limiter.spend([demand(limit=1)], NOW)

        assert passes(limiter, demand(limit=1, counter="django_apikeys.apikey:11")) is True
        assert passes(limiter, demand(limit=1, window=3600)) is True
        assert passes(limiter, demand(limit=1)) is False

    @pytest.mark.django_db
    def test_a_key_over_its_own_rate_eats_nothing_of_the_plan_and_the_quota(self, limiter):
        plan = demand("plan", "auth.user:7", limit=3)
        for _ in range(5):
            limiter.spend([demand(limit=1), plan, quota()], NOW)

        assert limiter.spend([plan], NOW)[0].remaining == 1
        assert limiter.spend([quota()], NOW)[0].remaining == 8

    def test_what_is_behind_the_one_that_is_spent_is_not_told(self, limiter):
        limiter.spend([demand(limit=1)], NOW)

        told = limiter.spend([demand(limit=1), demand("plan", "auth.user:7"), quota()], NOW)

        assert [(item.name, item.spent) for item in told] == [("key", True)]

    @pytest.mark.django_db
    def test_a_plan_that_is_spent_eats_nothing_of_the_quota(self, limiter):
        demands = [demand("plan", "auth.user:7", limit=1), quota()]
        for _ in range(5):
            limiter.spend(demands, NOW)

        assert limiter.spend([quota()], NOW)[0].remaining == 8

    @pytest.mark.parametrize("window", [1, 60, 3600, 86_400], ids=["s", "m", "h", "d"])
    @pytest.mark.parametrize("fraction", [0.0, 0.999])
    def test_a_client_that_waits_is_let_through_and_not_much_too_late(
        self, limiter, monkeypatch, window, fraction
    ):
        """From each second of a window, those of an hour and a day at 60 places."""
        start = 1_800_000_000
        for second in range(0, window, max(1, window // 60)):
            name = demand(counter=f"django_apikeys.apikey:{second}", limit=1, window=window)
            clock = stopped(monkeypatch, start + second + fraction)
            limiter.spend([name], NOW)
            refused = limiter.spend([name], NOW)[0]
            assert refused.spent is True
            assert 1 <= refused.reset_seconds <= window

            clock.now += refused.reset_seconds
            assert passes(limiter, name) is True

    @pytest.mark.parametrize("window", [60, 3600], ids=["m", "h"])
    def test_a_client_that_waits_a_second_less_is_not(self, limiter, monkeypatch, window):
        clock = stopped(monkeypatch, 1_800_000_000)
        limiter.spend([demand(limit=1, window=window)], NOW)
        refused = limiter.spend([demand(limit=1, window=window)], NOW)[0]

        clock.now += refused.reset_seconds - 1

        assert passes(limiter, demand(limit=1, window=window)) is False

    def test_a_second_that_passes_while_it_counts_makes_no_wait_of_nothing(
        self, limiter, monkeypatch
    ):
        clock = stopped(monkeypatch, 1_800_000_000)
        times = iter([1_800_000_000, 1_800_000_001])
        clock.time = lambda: next(times)

        assert limiter.spend([demand(window=1)], NOW)[0].reset_seconds == 1

    @pytest.mark.django_db
    def test_a_switch_of_django_ratelimit_leaves_quotas(self, limiter, settings):
        settings.RATELIMIT_ENABLE = False

        told = limiter.spend([demand(limit=1), quota()], NOW)

        assert [item.name for item in told] == ["quota"]

    def test_with_that_switch_a_rate_alone_tells_nothing(self, limiter, settings):
        settings.RATELIMIT_ENABLE = False

        assert limiter.spend([demand(limit=1)], NOW) == []

    def test_a_counter_that_vanishes_while_it_counts_is_begun_again(self, cache):
        cache("tests.test_limits.VanishingCache")

        allowances = [RatelimitLimiter().spend([demand(limit=3)], NOW)[0] for _ in range(3)]

        # The second found none any more.
        assert [item.remaining for item in allowances] == [2, 2, 1]

    @pytest.mark.parametrize("fail_open", [False, True])
    @pytest.mark.parametrize("item", [demand(), quota()], ids=["rate", "quota"])
    @pytest.mark.django_db
    def test_a_cache_that_does_not_count_is_told(self, cache, settings, fail_open, item):
        settings.RATELIMIT_FAIL_OPEN = fail_open
        cache("tests.test_limits.ForgetfulCache")
        RatelimitLimiter().spend([demand()], NOW)  # begins it

        with pytest.raises(outage.CacheFailed):
            RatelimitLimiter().spend([item], NOW)

    @pytest.mark.parametrize("item", [demand(), quota()], ids=["rate", "quota"])
    @pytest.mark.django_db
    def test_a_cache_that_keeps_nothing_counts_as_down(self, cache, item):
        cache("django.core.cache.backends.dummy.DummyCache")

        with pytest.raises(outage.CacheFailed):
            RatelimitLimiter().spend([item], NOW)


# --- The quota --------------------------------------------------------------------------------


@pytest.mark.django_db
class TestQuota:
    def test_lets_its_units_through_and_no_more(self, limiter):
        told = [limiter.spend([quota(limit=2)], NOW)[0] for _ in range(4)]

        assert [(item.remaining, item.spent) for item in told] == [
            (1, False),
            (0, False),
            (0, True),
            (0, True),
        ]

    def test_tells_the_seconds_until_the_month_ends(self, limiter):
        told = limiter.spend([quota()], utc(2026, 11, 30, 23, 59, 58, 500_000))[0]

        assert (told.window, told.reset_seconds) == (None, 2)

    def test_a_request_at_the_very_end_waits_a_second(self, limiter):
        assert limiter.spend([quota()], utc(2026, 12, 1))[0].reset_seconds == 1

    def test_a_call_of_five_uses_five(self, limiter):
        assert limiter.spend([quota(limit=10, units=5)], NOW)[0].remaining == 5

    def test_what_is_too_much_is_taken_back(self, limiter):
        limiter.spend([quota(limit=10, units=7)], NOW)
        refused = limiter.spend([quota(limit=10, units=5)], NOW)[0]

        assert (refused.remaining, refused.spent) == (3, True)
        assert [passes(limiter, quota(limit=10)) for _ in range(4)] == [True, True, True, False]

    def test_a_call_that_costs_nothing_passes_when_all_is_used(self, limiter):
        limiter.spend([quota(limit=10, units=10)], NOW)

        assert passes(limiter, quota(limit=10, units=0)) is True
        assert passes(limiter, quota(limit=5, units=0)) is True
        assert passes(limiter, quota(limit=10)) is False

    def test_a_changed_limit_goes_on_with_the_count(self, limiter):
        limiter.spend([quota(limit=10, units=6)], NOW)

        assert limiter.spend([quota(limit=100)], NOW)[0].remaining == 93
        assert limiter.spend([quota(limit=5)], NOW)[0].spent is True

    def test_owners_count_apart(self, limiter):
        limiter.spend([quota(limit=1)], NOW)

        assert passes(limiter, quota(limit=1, owner="77")) is True

    def test_is_seeded_from_what_was_flushed(self, limiter, django_assert_num_queries):
        OwnerQuota.objects.create(owner_id="7", month=NOVEMBER.first, units=8)
        OwnerQuota.objects.create(owner_id="7", month=date(2026, 10, 1), units=100)
        OwnerQuota.objects.create(owner_id="8", month=NOVEMBER.first, units=100)

        with django_assert_num_queries(1):
            told = [limiter.spend([quota(limit=10)], NOW)[0].spent for _ in range(3)]

        assert told == [False, False, True]

    def test_after_a_loss_goes_on_with_what_was_flushed(self, cache):
        limiter = RatelimitLimiter()
        limiter.spend([quota(limit=10, units=5)], NOW)
        OwnerQuota.objects.create(owner_id="7", month=NOVEMBER.first, units=4)
        cache().clear()

        assert limiter.spend([quota(limit=10)], NOW)[0].remaining == 5

    def test_lives_until_a_day_after_the_month(self, cache):
        RatelimitLimiter().spend([quota()], utc(2026, 11, 30, 23, 0, 0))
        made = cache()
        key = made.make_key(quotas.quota_counter("7", NOVEMBER.first))

        left = made._expire_info[key] - datetime.now(UTC).timestamp()

        assert left == pytest.approx(25 * 3600, abs=60)

    def test_stays_refused_where_it_cannot_be_taken_back(self, cache):
        cache("tests.test_limits.UnforgivingCache")

        told = [RatelimitLimiter().spend([quota(limit=1)], NOW)[0].spent for _ in range(2)]

        assert told == [False, True]

    def test_is_unknown_where_the_database_does_not_answer(self, limiter):
        def no_answer(execute, sql, params, many, context):
            raise OperationalError

        with connection.execute_wrapper(no_answer), pytest.raises(Unavailable):
            limiter.spend([quota()], NOW)


class TestRaiseQuota:
    @pytest.fixture
    def counter(self, cache):
        """The counter of the owner 7, and its cache."""
        return cache(), quotas.quota_counter("7", NOVEMBER.first)

    @pytest.mark.parametrize(
        ("counted", "flushed", "after"),
        [
            pytest.param(5, 9, 9, id="raised"),
            pytest.param(9, 5, 9, id="never lowered"),
            pytest.param(5, 5, 5, id="even"),
            pytest.param(None, 5, None, id="missing"),
        ],
    )
    def test_moves_forward_alone(self, counter, counted, flushed, after):
        cache, name = counter
        if counted is not None:
            cache.set(name, counted)

        quotas.raise_quota("7", NOVEMBER.first, flushed)

        assert cache.get(name) == after

    def test_is_left_to_who_is_at_it(self, counter):
        cache, name = counter
        cache.set(name, 5)
        cache.add(f"{name}:raised", 1)

        quotas.raise_quota("7", NOVEMBER.first, 9)

        assert cache.get(name) == 5

    def test_can_be_done_again(self, counter):
        cache, name = counter
        cache.set(name, 5)

        quotas.raise_quota("7", NOVEMBER.first, 9)
        quotas.raise_quota("7", NOVEMBER.first, 12)

        assert cache.get(name) == 12

    def test_of_several_at_once_adds_what_is_missing_once(self, counter):
        cache, name = counter
        cache.set(name, 5)
        barrier = threading.Barrier(8)

        def work():
            barrier.wait()
            quotas.raise_quota("7", NOVEMBER.first, 100)

        run_together([work] * 8)

        assert cache.get(name) == 100

    def test_finds_one_that_another_has_raised_meanwhile(self, cache):
        cache("tests.test_limits.RaisedMeanwhile")
        name = quotas.quota_counter("7", NOVEMBER.first)
        caches["default"].set(name, 5)

        quotas.raise_quota("7", NOVEMBER.first, 9)

        assert caches["default"].get(name) == 9


class RaisedMeanwhile(LocMemCache):
    """Another process raises the counter just before the lock is had."""

    def add(self, key, value, timeout=60, version=None):
        self.set(key.removesuffix(":raised"), 9)
        return super().add(key, value, timeout, version)


# --- A request --------------------------------------------------------------------------------


class TestSpend:
    def test_counts_a_request_once(self, request_of):
        request = request_of()

        for _ in range(3):
            limits.spend(request, grant(rate_limit="1/m"), 1, NOW)

        assert limits.asked_of(request)[0].remaining == 0

    def test_asked_again_refuses_again(self, request_of):
        limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
        request = request_of()

        for _ in range(2):
            with pytest.raises(RateLimited):
                limits.spend(request, grant(rate_limit="1/m"), 1, NOW)

    @pytest.mark.parametrize(
        ("fields", "error", "code"),
        [
            ({"rate_limit": "1/m"}, RateLimited, "rate_limited"),
            ({"plan_rate": "1/m"}, RateLimited, "rate_limited"),
            ({"quota": 1}, QuotaExceeded, "quota_exceeded"),
        ],
        ids=["key", "plan", "quota"],
    )
    @pytest.mark.django_db
    def test_refuses_by_the_one_that_is_spent(self, request_of, fields, error, code):
        limits.spend(request_of(), grant(**fields), 1, NOW)
        request = request_of()

        with pytest.raises(error) as refused:
            limits.spend(request, grant(**fields), 1, NOW)

        assert refused.type is error
        assert (refused.value.code, refused.value.status) == (code, 429)
        assert refused.value.public_id == "7Fq2Lm9XcT0a"
        assert refused.value.retry_after == refused.value.allowances[-1].reset_seconds
        assert noted(request).outcome == "limited"
        assert (noted(request).month, noted(request).units) == (None, 0)

    @pytest.mark.django_db
    def test_notes_what_it_cost_of_the_quota(self, request_of):
        request = request_of()

        limits.spend(request, grant(rate_limit="9/m", quota=100), 5, NOW)

        use = noted(request)
        assert (use.outcome, use.month, use.units, use.quota) == (None, date(2026, 11, 1), 5, 100)

    def test_notes_nothing_without_a_quota(self, request_of):
        request = request_of()

        limits.spend(request, grant(rate_limit="9/m"), 5, NOW)
        limits.spend(other := request_of(), grant(), 5, NOW)

        assert [(noted(each).month, noted(each).units) for each in (request, other)] == [
            (None, 0),
            (None, 0),
        ]

    @pytest.mark.usefixtures("cache")
    def test_needs_no_note(self):
        request = HttpRequest()

        limits.spend(request, grant(rate_limit="1/m"), 1, NOW)

        assert [item.name for item in limits.asked_of(request)] == ["key"]


class TestHeaders:
    def test_name_each_limit_in_its_order(self):
        response = HttpResponse()

        limits.patch_headers(
            response,
            [
                Allowance("key", 60, 59, 42, 60),
                Allowance("plan", 300, 298, 42, 60),
                Allowance("quota", 100_000, 99_940, 86_400, None),
            ],
        )

        assert (
            response["RateLimit-Policy"] == '"key";q=60;w=60, "plan";q=300;w=60, "quota";q=100000'
        )
        assert response["RateLimit"] == (
            '"key";r=59;t=42, "plan";r=298;t=42, "quota";r=99940;t=86400'
        )

    def test_are_left_out_where_nothing_was_asked(self):
        response = HttpResponse()

        limits.patch_headers(response, ())

        assert not response.has_header("RateLimit")
        assert not response.has_header("RateLimit-Policy")


# --- What an owner's plan gives ---------------------------------------------------------------


class TestPlanLimits:
    @pytest.fixture
    def told(self, settings, monkeypatch):
        settings.APIKEYS_POLICY = "tests.test_limits.ToldPolicy"
        settings.APIKEYS_PLANS = {"free": {"rate": "60/m", "quota": 100}, "unlimited": {}}
        monkeypatch.setattr(logs, "_said_at", {})
        return lambda value: monkeypatch.setattr(ToldPolicy, "told", value)

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            pytest.param({}, {"rate": "60/m", "quota": 100}, id="nothing"),
            pytest.param({"rate": "5/s"}, {"rate": "5/s", "quota": 100}, id="rate"),
            pytest.param({"quota": 0}, {"rate": "60/m", "quota": 0}, id="quota"),
            pytest.param({"quota": None}, {"rate": "60/m", "quota": None}, id="no quota"),
        ],
    )
    def test_what_the_policy_says_of_the_owner_wins(self, told, caplog, own, expected):
        told(own)

        assert limits.plan_limits("free", {}) == expected
        assert caplog.text == ""

    @pytest.mark.parametrize(
        ("own", "problem"),
        [
            pytest.param(None, 'is a dict of "rate" and "quota".', id="none"),
            pytest.param({"rates": "5/s"}, 'is a dict of "rate" and "quota".', id="misspelt"),
            pytest.param({"rate": "5"}, 'has no rate such as "300/m".', id="rate"),
            pytest.param(
                {"quota": "100"},
                "has a quota that is no number of units, from 0 to 999999999999999.",
                id="quota",
            ),
        ],
    )
    def test_nonsense_of_the_policy_leaves_those_of_the_plan(self, told, caplog, own, problem):
        told(own)

        assert limits.plan_limits("free", {}) == {"rate": "60/m", "quota": 100}
        assert caplog.messages == [f"What plan_limits of the policy returned {problem}"]

    @pytest.mark.parametrize("plan", ["unlimited", None])
    def test_a_plan_without_limits_has_none(self, told, caplog, plan):
        assert limits.plan_limits(plan, {}) == {}
        assert caplog.text == ""

    @pytest.mark.parametrize("plan", ["fre", ""])
    def test_an_unknown_plan_has_none_and_is_told(self, told, caplog, plan):
        assert limits.plan_limits(plan, {}) == {}
        assert caplog.messages == [
            f"A plan is not in APIKEYS_PLANS, and so its owners have no limits: {plan!r}."
        ]

    def test_a_plan_that_cannot_be_used_does_not_open_the_limits(self, told, settings):
        settings.APIKEYS_PLANS = {"free": {"rate": "60 a minute"}}

        with pytest.raises(ImproperlyConfigured, match="APIKEYS_PLANS: 'free' has no rate"):
            limits.plan_limits("free", {})

    def test_a_plan_without_any_plans_is_not_told(self, told, settings, caplog):
        del settings.APIKEYS_PLANS

        assert limits.plan_limits("free", {}) == {}
        assert caplog.text == ""


# --- A cache that is down ---------------------------------------------------------------------


@pytest.fixture
def dead(cache, settings, monkeypatch):
    """A limiter that raises, and nothing said of it yet."""

    def make(name="DeadLimiter"):
        settings.APIKEYS_LIMITER = f"tests.test_limits.{name}"
        limiter = {"DeadLimiter": DeadLimiter, "FlakyLimiter": FlakyLimiter}[name]
        monkeypatch.setattr(limiter, "asked", 0)
        return limiter

    breaker.reset()
    monkeypatch.setattr(logs, "_said_at", {})
    return make


@pytest.fixture
def clock(monkeypatch):
    """The clock of the breaker."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(outage, "time", clock)
    return clock


class TestCacheDown:
    def test_open_lets_through_and_tells_no_limits(self, dead, request_of):
        dead()
        request = request_of()

        limits.spend(request, grant(rate_limit="1/m"), 1, NOW)

        assert limits.asked_of(request) == ()

    def test_open_notes_the_units_all_the_same(self, dead, request_of):
        dead()
        request = request_of()

        limits.spend(request, grant(quota=1), 5, NOW)

        assert (noted(request).month, noted(request).units) == (date(2026, 11, 1), 5)

    def test_closed_refuses_for_two_seconds(self, dead, request_of, settings):
        dead()
        settings.APIKEYS_LIMITS_FAIL = "closed"

        for _ in range(2):
            with pytest.raises(Unavailable) as refused:
                limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
            assert (refused.value.status, refused.value.retry_after) == (503, 2)

    def test_closed_lets_through_who_has_no_limits(self, dead, request_of, settings):
        dead()
        settings.APIKEYS_LIMITS_FAIL = "closed"

        limits.spend(request_of(), grant(), 1, NOW)

        assert DeadLimiter.asked == 0

    def test_is_told_once_a_minute(self, dead, request_of, clock, caplog):
        dead()
        for _ in range(3):
            limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
            clock.now += 2

        assert caplog.messages == ["The cache did not count for the limits of API keys."]
        assert "ConnectionError" in caplog.text

    def test_is_left_alone_for_two_seconds(self, dead, request_of, clock):
        limiter = dead()

        asked = []
        for step in (0, 1.9, 0.1, 1.9, 0.1):
            clock.now += step
            limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
            asked.append(limiter.asked)

        assert asked == [1, 1, 2, 2, 3]

    def test_that_is_back_is_asked_by_all(self, dead, request_of, clock, monkeypatch):
        limiter = dead("FlakyLimiter")
        limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
        monkeypatch.setattr(FlakyLimiter, "is_up", True)
        clock.now += 2

        for _ in range(3):
            limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)
            clock.now += 0.001

        assert limiter.asked == 4

    @pytest.mark.usefixtures("cache")
    def test_after_a_rest_one_asks_for_all(self, clock):
        breaker.trip()
        clock.now += 2

        assert [breaker.ask() for _ in range(3)] == [1002.0, None, None]

    @pytest.mark.usefixtures("cache")
    def test_an_answer_from_before_the_failure_ends_no_rest(self, clock):
        asked_at = clock.now
        clock.now += 0.05
        breaker.trip()

        breaker.answered(asked_at)

        assert breaker.ask() is None

    def test_an_error_of_the_limiter_is_none(self, request_of, settings, caplog):
        """It fails the request, as one of a view does, and does not open the limits."""
        settings.APIKEYS_LIMITER = "tests.test_limits.BrokenLimiter"

        for _ in range(2):
            with pytest.raises(TypeError):
                limits.spend(request_of(), grant(rate_limit="1/m"), 1, NOW)

        assert caplog.text == ""

    @pytest.mark.django_db
    def test_an_error_of_whoever_asks_is_none(self, request_of):
        naive = NOW.replace(tzinfo=None)

        with pytest.raises(TypeError):
            limits.spend(request_of(), grant(quota=1), 1, naive)

    @pytest.mark.parametrize(
        "fields", [{"rate_limit": "1/m"}, {"quota": 1}], ids=["rate", "quota"]
    )
    def test_a_cache_that_cannot_be_made_is_none(self, request_of, settings, fields):
        settings.CACHES = {"default": {"BACKEND": "nowhere.Cache"}}

        with pytest.raises(ImproperlyConfigured, match=r"nowhere\.Cache"):
            limits.spend(request_of(), grant(**fields), 1, NOW)

    def test_a_database_that_is_down_is_503_even_when_open(self, db, request_of):
        def no_answer(execute, sql, params, many, context):
            raise OperationalError

        with connection.execute_wrapper(no_answer), pytest.raises(Unavailable):
            limits.spend(request_of(), grant(quota=1), 1, NOW)

        limits.spend(request := request_of(), grant(quota=1), 1, NOW)
        assert [item.name for item in limits.asked_of(request)] == ["quota"]


# --- In parallel ------------------------------------------------------------------------------


def run_together(works):
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "item",
    [demand(limit=320, window=86_400), quota(limit=320)],
    ids=["rate", "quota"],
)
def test_of_200_too_many_in_8_threads_exactly_the_limit_passes(limiter, cache, item, monkeypatch):
    stopped(monkeypatch, 1_800_000_000)
    # Seeded: SQLite in memory is of one thread alone.
    cache().set(item.counter, 0)
    passed: list[bool] = []

    def work():
        for _ in range(65):
            passed.append(passes(limiter, item))  # noqa: PERF401 - as it happens

    run_together([work] * 8)

    assert (passed.count(True), len(passed)) == (320, 520)


def test_quota_that_is_too_small_for_a_call_is_not_touched_by_it(monkeypatch):
    """Counted and taken back, it would meanwhile hold up calls that fit."""
    counted = []
    monkeypatch.setattr(limits, "_incremented", lambda *args: counted.append(args))
    caches["default"].set(quotas.quota_counter("7", date(2026, 11, 1)), 2)

    with pytest.raises(QuotaExceeded) as refused:
        limits.spend(HttpRequest(), grant(quota=6), 5, utc(2026, 11, 20))

    assert counted == []
    assert refused.value.allowances[-1].remaining == 4
