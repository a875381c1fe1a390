"""Limits and usage in Redis: sections 7 and 8 of the contract, on a real one."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from datetime import date, timedelta
from ipaddress import ip_address

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, connections

from django_apikeys import outage, quotas
from django_apikeys.batches import Hit, Spent
from django_apikeys.conf import conf
from django_apikeys.contrib.redis import RedisLimiter, RedisRecorder, parcels
from django_apikeys.contrib.redis import connection as redis_connection
from django_apikeys.contrib.redis import recorder as redis_recorder
from django_apikeys.contrib.redis.connection import link
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.exceptions import Unavailable
from django_apikeys.flushing import apply
from django_apikeys.limits import Allowance, Demand, RatelimitLimiter
from django_apikeys.models import (
    APIKeyAddress,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    OwnerQuota,
)
from django_apikeys.outage import breaker
from django_apikeys.quotas import Month
from django_apikeys.recording import Use
from tests.conftest import bearer
from tests.contrib import server
from tests.contrib.children import KEY_ID, NOW
from tests.documents import ROOT
from tests.factories import APIKeyFactory
from tests.limiting import stopped, utc
from tests.views import Customers

ADDRESS = ip_address("192.0.2.1")
NOVEMBER = Month(date(2026, 11, 1), utc(2026, 12, 1), "7")
KEY = "django_apikeys.apikey:1"
TWO_WRITERS = pytest.mark.skipif(
    connection.vendor == "sqlite", reason="SQLite in memory has no second process or writer."
)


def rate(limit=3, window=60, counter=KEY, name="key"):
    return Demand(name, counter, limit, window)


def quota(limit=10, units=1):
    return Demand("quota", "units", limit, NOVEMBER, units)


def use(**fields):
    return Use(
        **{"key_id": KEY_ID, "secret_id": 1, "owner_id": "7", "at": NOW, **fields}, address=ADDRESS
    )


def hit(**fields):
    return Hit(
        **{
            "key_id": KEY_ID,
            "secret_id": 1,
            "owner_id": "7",
            "at": NOW,
            "route": "customers/",
            "method": "GET",
            "outcome": "2xx",
            "address": "192.0.2.1",
            **fields,
        }
    )


def requests():
    return sum(APIKeyTotals.objects.values_list("requests", flat=True))


def units():
    return sum(OwnerQuota.objects.values_list("units", flat=True))


def months():
    columns = ("owner_id", "month", "units", "requests")
    return list(OwnerQuota.objects.order_by(*columns).values_list(*columns))


def routes():
    return sorted(APIKeyUsage.objects.values_list("route", "outcome", "requests"))


@pytest.fixture
def recorder(db, stored):
    recorder = conf.usage_recorder
    recorder._states.clear()
    yield recorder
    recorder._states.clear()


@pytest.fixture
def counting(settings):
    settings.MIDDLEWARE = ["django_apikeys.middleware.APIKeyMiddleware", *settings.MIDDLEWARE]


@pytest.fixture
def spend(recorder):
    """Ask as a request does, which then is counted too."""

    def spend(*demands, **fields):
        used = use(**fields)
        return RedisLimiter().spend_and_count(demands, used, NOW), used

    return spend


class TestLimiter:
    @pytest.fixture
    def by(self, settings, use_redis, redis_url, monkeypatch, stored):
        """What a limiter answers to requests, each a second and demands."""

        def by(kind, calls):
            if kind is RatelimitLimiter:
                settings.CACHES = {
                    "default": {
                        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
                        "LOCATION": "by",
                    }
                }
                caches["default"].clear()
            else:
                use_redis(redis_url)
            answers = []
            for now, demands in calls:
                clock = stopped(monkeypatch, now)
                made = (
                    kind()
                    if kind is RatelimitLimiter
                    else kind(lambda clock=clock: int(clock.now))
                )
                answers.append(list(made.spend(demands, NOW)))
            return answers

        return by

    @pytest.mark.parametrize(
        "calls",
        [
            pytest.param([(1000.0, [rate()])] * 6, id="a rate until it is spent and on"),
            pytest.param(
                [(1000 + second, [rate()]) for second in range(130)], id="each second of windows"
            ),
            pytest.param(
                [(1000 + tenth / 10, [rate(2, 1)]) for tenth in range(40)],
                id="windows of a second",
            ),
            pytest.param(
                [(7200 * step + 13, [rate(1, 3600)]) for step in range(4)], id="windows of an hour"
            ),
            pytest.param(
                [(1000.0, [rate(5), rate(2, 60, "crm.organisation:7", "plan")])] * 8,
                id="a plan's rate beside the key's",
            ),
            pytest.param(
                [
                    *[(1000.0, [rate(1), rate(9, 60, "crm.organisation:7", "plan")])] * 5,
                    (1000.0, [rate(9, 60, "crm.organisation:7", "plan")]),
                ],
                id="behind one that is spent nothing is counted",
            ),
            pytest.param(
                [*[(1000.0, [rate(3)])] * 5, (1000.0, [rate(9)]), (1000.0, [rate(2)])],
                id="an edited rate",
            ),
            pytest.param([(1000.0, [rate(0)])] * 2, id="a rate of nothing"),
            pytest.param([(1000.0, [quota()])] * 12, id="a quota until it is spent and on"),
            pytest.param(
                [
                    (1000.0, [quota(units=8)]),
                    (1000.0, [quota(units=3)]),
                    (1000.0, [quota(units=2)]),
                    (1000.0, [quota(units=1)]),
                    (1000.0, [quota(5, units=0)]),
                ],
                id="costs that do not fit are taken back",
            ),
            pytest.param(
                [(1000.0, [rate(4), quota(2)])] * 6, id="a rate counts where the quota is spent"
            ),
            pytest.param([(1000.0, [quota(0)])] * 2, id="a quota of nothing"),
        ],
    )
    def test_counts_as_django_ratelimit_does(self, db, by, calls):
        answers = by(RatelimitLimiter, calls)

        assert by(RedisLimiter, calls) == answers
        assert len(answers) == len(calls)

    def test_says_what_is_left(self, db, by):
        ((allowance,), (second,)) = by(RedisLimiter, [(1000.0, [rate(1)])] * 2)

        assert allowance == Allowance("key", 1, 0, 39, 60)
        assert second == Allowance("key", 1, 0, 39, 60, spent=True)

    def test_rates_are_switched_off_as_django_ratelimit_is(self, db, by, settings):
        settings.RATELIMIT_ENABLE = False

        assert by(RedisLimiter, [(1000.0, [rate(0)])]) == [[]]
        assert by(RedisLimiter, [(1000.0, [rate(0), quota(5)])]) == [
            [Allowance("quota", 5, 4, 907200, None)]
        ]

    def test_retry_after_leads_into_the_next_window_at_each_second(self, stored):
        for second in range(2000, 2060):
            now = [second]
            counter = rate(1, 60, f"{KEY}:{second}")
            limiter = RedisLimiter(lambda now=now: now[0])
            limiter.spend([counter], NOW)
            (spent,) = limiter.spend([counter], NOW)

            now[0] += spent.reset_seconds - 1
            (early,) = limiter.spend([counter], NOW)
            now[0] += 1
            (later,) = limiter.spend([counter], NOW)

            assert (spent.spent, early.spent, later.spent) == (True, True, False), second

    def test_redis_tells_the_time(self, stored):
        """Web servers whose clocks differ are in the same window."""
        before = stored.time()[0]
        RedisLimiter().spend([rate()], NOW)
        after = stored.time()[0]

        (name,) = stored.scan_iter(f"{link().name('apikeys:rate:')}*")
        assert before <= int(stored.hget(name, "window")) < after + 60

    def test_exactly_as_many_pass_as_may(self, stored):
        passed = []

        def ask():
            for _ in range(40):
                (allowance,) = RedisLimiter(lambda: 1000).spend([rate(120)], NOW)
                passed.append(not allowance.spent)

        together(ask, threads=8)

        assert (len(passed), sum(passed)) == (320, 120)

    def test_a_quota_is_exact_too(self, db, stored):
        caches["default"].set("units", 0)
        left = []

        def ask():
            for _ in range(40):
                (allowance,) = RedisLimiter().spend([quota(301, units=3)], NOW)
                left.append(None if allowance.spent else allowance.remaining)

        together(ask, threads=8)

        assert sorted(one for one in left if one is not None) == list(range(1, 301, 3))
        assert caches["default"].get("units") == 300

    def test_all_demands_are_one_trip(self, db, spend, wire):
        spend(rate(), rate(9, 60, "crm.organisation:7", "plan"), quota())
        wire.asked.clear()

        allowances, _ = spend(rate(), rate(9, 60, "crm.organisation:7", "plan"), quota())

        assert [item.remaining for item in allowances] == [1, 7, 8]
        assert [b"EVALSHA" in trip for trip in wire.asked] == [True]

    def test_a_missing_quota_is_seeded_from_the_database_by_a_second_trip(self, spend, wire):
        OwnerQuota.objects.create(owner_id="7", month=date(2026, 11, 1), units=6)
        spend()
        wire.asked.clear()

        allowances, _ = spend(rate(), quota())

        # The first has counted nothing: the key has used one.
        assert [item.remaining for item in allowances] == [2, 3]
        assert len(wire.asked) == 2

    @pytest.mark.parametrize("garbage", ["", "many", "1.5", "0x10", b"\xff\x00"])
    def test_a_quota_that_is_no_number_is_seeded_again(self, spend, stored, garbage):
        OwnerQuota.objects.create(owner_id="7", month=date(2026, 11, 1), units=6)
        stored.set(link().name("units"), garbage)

        ((allowance,), _) = spend(quota())

        assert allowance.remaining == 3

    def test_the_cache_reads_the_same_quota(self, spend):
        """What raises it after a flush, and what tells an owner, ask Django's cache."""
        spend(quota(units=4))

        assert caches["default"].get("units") == 4

    def test_what_is_no_total_expires(self, spend, stored):
        spend(rate(), quota())

        left = {name.decode().split(":")[-1]: stored.ttl(name) for name in mine(stored)}

        assert 0 < left.pop("60") <= 65
        assert 10 * 86400 < left.pop("units") <= 12 * 86400
        assert left.pop("live") == -1
        assert [0 < seconds <= 86400 for seconds in left.values()] == [True]

    def test_without_the_recorder_only_limits_are_counted(self, spend, settings, stored):
        settings.APIKEYS_USAGE_RECORDER = "django_apikeys.usage.MemoryRecorder"

        (allowances, used) = spend(rate())

        assert (allowances[0].remaining, used.totalled) == (2, False)
        assert not stored.exists(link().name("apikeys:live"))

    def test_another_cache_than_django_s_redis_is_refused(self, settings):
        settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

        with pytest.raises(ImproperlyConfigured, match="APIKEYS_CACHE: 'default'"):
            RedisLimiter()
        with pytest.raises(ImproperlyConfigured, match="APIKEYS_CACHE: 'default'"):
            RedisRecorder()


class TestRecorder:
    def test_a_request_is_counted_with_its_limits(self, recorder, spend):
        _, used = spend(rate(), quota(units=2))
        recorder.count(hit(totalled=used.totalled, month=NOVEMBER.first, units=2, quota=10))

        recorder.flush()

        totals = APIKeyTotals.objects.get()
        assert (totals.requests, totals.errors, totals.last_used_at) == (1, 0, NOW)
        assert totals.last_used_ip == "192.0.2.1"
        assert APIKeySecretTotals.objects.get().requests == 1
        assert routes() == [("customers/", "2xx", 1)]
        assert APIKeyAddress.objects.values_list("address", "requests").get() == ("192.0.2.1", 1)
        assert OwnerQuota.objects.values_list("owner_id", "month", "units").get() == (
            "7",
            date(2026, 11, 1),
            2,
        )

    def test_one_without_limits_is_counted_on_the_way_in_too(self, recorder, spend):
        allowances, used = spend()

        recorder.flush()

        assert (list(allowances), used.totalled, requests()) == ([], True, 1)

    def test_one_that_no_limiter_saw_is_counted_on_a_trip_of_its_own(self, recorder, wire):
        link().redis.ping()
        wire.asked.clear()

        recorder.count(hit(outcome="refused"))

        assert len(wire.asked) == 1
        recorder.flush()
        assert (requests(), routes()) == (1, [("customers/", "refused", 1)])

    def test_route_and_outcome_follow_with_the_next_trip(self, recorder, spend, wire):
        _, used = spend()
        wire.asked.clear()
        recorder.count(hit(totalled=used.totalled, outcome="5xx"))

        assert wire.asked == []
        spend()
        assert len(wire.asked) == 1
        assert b"5xx" in wire.asked[0]

    def test_one_that_is_limited_is_a_request_and_an_error(self, recorder, spend):
        for outcome in ("2xx", "limited"):
            _, used = spend(rate(1), quota())
            recorder.count(hit(totalled=used.totalled, outcome=outcome))

        recorder.flush()

        assert APIKeyTotals.objects.values_list("requests", "errors").get() == (2, 1)
        assert routes() == [("customers/", "2xx", 1), ("customers/", "limited", 1)]
        assert units() == 1

    def test_a_spent_quota_is_not_charged(self, recorder, spend):
        spend(quota(5, units=4))
        spend(quota(5, units=4))

        recorder.flush()

        assert (requests(), units()) == (2, 4)

    def test_the_last_use_is_the_latest_whatever_comes_last(self, recorder, spend):
        spend(at=NOW)
        spend(at=NOW - timedelta(minutes=1))
        spend(at=NOW - timedelta(minutes=2))

        recorder.flush()

        assert APIKeyTotals.objects.get().last_used_at == NOW
        assert APIKeyAddress.objects.values_list("first_seen_at", "last_seen_at").get() == (
            NOW - timedelta(minutes=2),
            NOW,
        )

    def test_redis_adds_up_what_the_process_adds_up(self, recorder, spend):
        """One parcel of many hits and many of one are the same rows."""
        hits = [
            hit(
                at=NOW + timedelta(seconds=shift),
                outcome=outcome,
                month=NOVEMBER.first,
                units=2,
                quota=9,
            )
            for shift, outcome in ((3, "2xx"), (1, "4xx"), (2, "2xx"), (3, "5xx"))
        ]
        for one in hits:
            recorder.count(one)
        link().take()
        state = recorder._mine()
        for one in hits:
            with state.lock:
                parcels.add_answer(state.rows, one)
                parcels.add_request(state.rows, one, one.address)
                parcels.merge(state.rows, parcels.charge_of_hit(one))
        state._send()
        link().take()

        apart, together = (parcels.batch_of(id_, link().fields(id_)) for id_ in link().listed())

        assert apart.keys[KEY_ID].requests == 4
        for table in ("keys", "secrets", "usage", "addresses", "quotas"):
            assert getattr(apart, table) == getattr(together, table)

    def test_a_view_s_requests_are_counted(self, recorder, counting, client, issue):
        issued = issue(scopes=["customers:read"])
        for path, status in (("/customers/", 200), ("/jobs/", 403), ("/customers/", 200)):
            assert client.get(path, headers=bearer(issued.secret)).status_code == status

        recorder.flush()

        assert APIKeyTotals.objects.values_list("requests", "errors").get() == (3, 1)
        assert routes() == [("customers/", "2xx", 2), ("jobs/", "refused", 1)]

    def test_an_event_loop_does_not_wait_for_redis(self, recorder, spend, wire):
        async def answer():
            recorder.count(hit())

        link().redis.ping()
        wire.asked.clear()
        asyncio.run(answer())

        assert wire.asked == []
        recorder.flush()
        assert requests() == 1

    @pytest.mark.parametrize(
        "text",
        ["a|b c", '"],["', "NUL\x00", "ключ", "\ud800", "x" * 255, "", "id"],
        ids=["separators", "quotes", "NUL", "letters", "surrogate", "long", "empty", "id"],
    )
    def test_whatever_an_owner_s_id_is_made_of_it_comes_out(self, recorder, spend, text):
        caches["default"].set("units", 0)
        spend(quota(units=2), owner_id=text)
        recorder.count(hit(totalled=True, owner_id=text))
        recorder._mine()._send()
        link().take()
        (id_,) = link().listed()

        batch = parcels.batch_of(id_, link().fields(id_))

        assert batch.quotas == {(text, date(2026, 11, 1)): Spent(1, 2, 10)}

    def test_requests_are_counted_for_their_owner_with_a_quota_or_without(self, recorder, spend):
        for owner_id, demands, outcome in (
            ("7", [quota(units=2)], "2xx"),
            ("7", [quota(units=2)], "5xx"),
            ("7", [], "4xx"),  # of a view that asks for no limits
            ("8", [], "2xx"),
            ("", [], "3xx"),  # of the project itself
        ):
            _, used = spend(*demands, owner_id=owner_id)
            recorder.count(hit(totalled=used.totalled, owner_id=owner_id, outcome=outcome))

        recorder.flush()

        november = date(2026, 11, 1)
        assert months() == [("", november, 0, 1), ("7", november, 4, 3), ("8", november, 0, 1)]

    def test_requests_that_were_not_let_through_are_not_their_owner_s(self, recorder, spend):
        for _ in range(2):
            allowances, used = spend(rate(1), quota())
            outcome = "limited" if allowances[-1].spent else "2xx"
            recorder.count(hit(totalled=used.totalled, outcome=outcome))
        recorder.count(hit(outcome="refused"))
        recorder.count(hit(outcome="refused", owner_id="8"))

        recorder.flush()

        assert months() == [("7", date(2026, 11, 1), 1, 1)]

    def test_a_request_counts_in_the_month_of_its_time(self, recorder, settings):
        """By the zone of the quota; what is flushed in whatever month."""
        settings.APIKEYS_QUOTA_TIME_ZONE = "Europe/Berlin"
        for at in (utc(2026, 10, 31, 22, 59), utc(2026, 10, 31, 23), utc(2026, 11, 30, 23)):
            recorder.count(hit(at=at))

        recorder.flush()

        assert months() == [
            ("7", date(2026, 10, 1), 0, 1),
            ("7", date(2026, 11, 1), 0, 1),
            ("7", date(2026, 12, 1), 0, 1),
        ]

    def test_an_owner_s_requests_go_with_the_trip_of_the_next_request(self, recorder, spend, wire):
        _, used = spend()
        wire.asked.clear()

        recorder.count(hit(totalled=used.totalled))
        spend()

        assert len(wire.asked) == 1

    def test_rows_are_bounded_and_the_rest_is_other(self, recorder, monkeypatch):
        for module in (parcels, redis_connection):
            monkeypatch.setattr(module, "MOST_ROWS", 5)
        for number in range(6):
            recorder.count(hit(route=f"{number}/"))

        recorder.flush()

        assert requests() == 6
        assert routes() == [("0/", "2xx", 1), ("other", "2xx", 5)]

    def test_rows_are_bounded_while_redis_is_down(self, recorder, wire, monkeypatch):
        for module in (parcels, redis_connection):
            monkeypatch.setattr(module, "MOST_ROWS", 5)
        wire.mode = "down"
        wire.cut()
        recorder.count(hit())
        for number in range(100):
            recorder.count(hit(route=f"{number}/", address=f"192.0.2.{number}"))

        state = recorder._mine()
        assert len(state.rows) < 10
        wire.mode = "up"
        recorder.flush()
        assert requests() == 101

    def test_what_has_piled_up_goes_in_several_trips(self, recorder, wire, monkeypatch):
        """One that takes longer than the socket's timeout would never be answered."""
        monkeypatch.setattr(redis_recorder, "_AT_ONCE", 4)
        wire.mode = "down"
        wire.cut()
        for number in range(9):
            recorder.count(hit(route=f"{number}/"))
        wire.mode = "up"
        wire.asked.clear()

        recorder.flush()

        # Three rows are of key, secret and address; the first parcel was in doubt.
        assert sum(b"EVALSHA" in trip and b"parcel" in trip for trip in wire.asked) == 4
        assert (requests(), len(routes())) == (9, 9)

    def test_reset_drops_what_was_counted(self, recorder, spend):
        spend()
        recorder.count(hit(totalled=True))
        link().take()
        spend()

        recorder.reset()
        recorder.flush()

        assert (requests(), routes()) == (0, [])


class TestDoubt:
    """A trip whose answer is lost may have counted, or not, or will."""

    @pytest.mark.parametrize("mode", ["answers lost", "hung", "down"])
    def test_it_is_counted_once(self, recorder, spend, wire, mode):
        spend(quota(units=0))
        wire.mode = mode
        with pytest.raises(outage.CacheFailed):
            spend(quota(units=3))

        wire.mode = "up"
        wire.cut()
        recorder.flush()

        assert (requests(), units()) == (2, 3)

    def test_where_limits_are_closed_what_was_refused_is_not_charged(
        self, recorder, spend, wire, settings
    ):
        settings.APIKEYS_LIMITS_FAIL = "closed"
        spend(quota(units=0))
        wire.mode = "hung"
        with pytest.raises(outage.CacheFailed):
            spend(quota(units=3))

        wire.mode = "up"
        wire.cut()
        recorder.flush()

        assert (requests(), units()) == (2, 0)

    def test_what_arrives_late_is_not_counted_again(self, recorder):
        state = recorder._mine()
        rows = {}
        parcels.add_request(rows, use(), "")
        first = state.packed(rows, {})
        link().count((), first)
        state._free.append((first.slot, first.number))
        second = state.packed(rows, {})
        link().count((), second)

        link().count((), second)
        link().count((), first)
        recorder.flush()

        assert (first.slot, requests()) == (second.slot, 2)

    def test_only_one_is_in_doubt_while_redis_is_down(self, recorder, spend, wire):
        """What is counted meanwhile waits, and is added up."""
        wire.mode = "down"
        wire.cut()
        with pytest.raises(outage.CacheFailed):
            spend()
        for _ in range(5):
            _, used = spend()
            recorder.count(hit(totalled=used.totalled))

        state = recorder._mine()
        assert (len(state.doubtful), len(state.rows)) == (1, 5)
        wire.mode = "up"
        recorder.flush()
        assert (requests(), len(state.doubtful), state.rows) == (6, 0, {})

    def test_the_next_request_brings_it_once_redis_is_back(self, recorder, spend, wire):
        wire.mode = "down"
        wire.cut()
        with pytest.raises(outage.CacheFailed):
            spend()
        wire.mode = "up"
        recorder._mine()._rests_until = 0.0

        _, used = spend()
        recorder.count(hit(totalled=used.totalled))

        assert (used.totalled, recorder._mine().doubtful) == (False, [])
        recorder.flush()
        assert requests() == 2

    def test_a_failed_seed_loses_no_request(self, recorder, spend, monkeypatch):
        def down(*args):
            raise OperationalError

        monkeypatch.setattr(quotas, "stored_units", down)
        with pytest.raises(Unavailable):
            spend(quota(units=3))

        recorder.flush()

        assert (requests(), units()) == (1, 0)


class TestFailingRedis:
    @pytest.fixture
    def call(self, recorder, counting, client, issue, monkeypatch):
        """The status of a throttled request."""
        # DRF reads its own setting when the class is made.
        monkeypatch.setattr(Customers, "throttle_classes", [APIKeyThrottle])
        secret = issue(scopes=["customers:read"], rate_limit="100/m").secret

        # Whoever is slow, it is one rest.
        monkeypatch.setattr(outage, "REST_SECONDS", 60)

        def call():
            return client.get("/customers/", headers=bearer(secret)).status_code

        return call

    @pytest.mark.parametrize("mode", ["hung", "answers lost", "down"])
    @pytest.mark.parametrize(
        "limits_fail", [("open", 200), ("closed", 503)], ids=["open", "closed"]
    )
    def test_a_request_is_held_up_for_the_socket_s_timeout_once(
        self, call, wire, settings, mode, limits_fail
    ):
        fail, status = limits_fail
        settings.APIKEYS_LIMITS_FAIL = fail
        assert call() == 200
        wire.mode = mode

        wire.asked.clear()

        first = call()
        asked = len(wire.asked)
        second = call()

        assert (first, second) == (status, status)
        # Once, on the way in: neither on the way out nor by the next one.
        assert (asked, len(wire.asked)) == (1, 1)
        wire.mode = "up"
        wire.cut()
        conf.usage_recorder.flush()
        assert requests() == 3

    def test_a_stopped_and_a_restarted_redis_lose_no_count_of_the_process(self, call, use_redis):
        with server.own_server() as (process, url):
            use_redis(url, socket_timeout=0.2, socket_connect_timeout=0.2)
            assert call() == 200
            conf.usage_recorder.flush()

            process.send_signal(signal.SIGSTOP)
            hung = call()
            process.send_signal(signal.SIGCONT)
            breaker.reset()
            resumed = call()
            conf.usage_recorder.flush()
            process.kill()
            process.wait()
            breaker.reset()
            dead = call()
            with server.started(process.args[0], int(process.args[2])):
                breaker.reset()
                # The script is not there any more, either.
                back = call()
                conf.usage_recorder.flush()

        assert (hung, resumed, dead, back) == (200, 200, 200, 200)
        assert requests() == 5


class TestFlush:
    @pytest.fixture
    def counted(self, spend, recorder):
        """Five requests, of which the way out of one is known."""
        for _ in range(5):
            spend(quota(100, units=2))
        recorder.count(hit(totalled=True))
        recorder._mine()._send()

    def test_a_flush_leaves_nothing(self, counted, recorder, stored):
        rows = recorder.flush()

        assert (requests(), units(), rows) == (5, 10, 5)
        assert not stored.exists(link().name("apikeys:live"), link().name("apikeys:batches"))
        assert recorder.flush() == 0
        assert (requests(), units()) == (5, 10)

    def test_a_batch_that_was_read_in_part_is_not_taken_for_the_whole(self, counted, recorder):
        """Another flush deletes it just then; were that one to end first, it is read again."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(redis_connection.Link, "fields", lambda self, id_: None)
            assert recorder.flush() == 0

        assert requests() == 0
        recorder.flush()
        assert requests() == 5

    def test_another_process_may_flush(self, counted):
        other = RedisRecorder()

        other.flush()

        assert requests() == 5

    def test_one_that_ended_before_it_applied(self, counted, recorder, spend):
        link().take()

        spend()
        recorder.flush()

        assert requests() == 6
        assert link().listed() == []

    def test_one_that_ended_before_it_deleted(self, counted, recorder):
        link().take()
        (id_,) = link().listed()
        apply(parcels.batch_of(id_, link().fields(id_)))

        recorder.flush()

        assert (requests(), units()) == (5, 10)
        assert link().listed() == []

    def test_one_whose_database_is_away_keeps_one_batch(
        self, counted, recorder, spend, monkeypatch
    ):
        def away(batch):
            raise OperationalError

        with monkeypatch.context() as patch:
            patch.setattr(redis_recorder, "apply", away)
            for _ in range(3):
                with pytest.raises(OperationalError):
                    recorder.flush()
                spend()

        assert len(link().listed()) == 1
        recorder.flush()
        assert requests() == 8

    def test_a_batch_that_is_refused_holds_up_no_others(
        self, counted, recorder, spend, monkeypatch
    ):
        link().take()
        (bad,) = link().listed()
        spend()

        def refuse(batch):
            if str(batch.id).encode() == bad:
                raise ValueError("bad")
            apply(batch)

        with monkeypatch.context() as patch:
            patch.setattr(redis_recorder, "apply", refuse)
            with pytest.raises(ValueError, match="bad"):
                recorder.flush()

        assert (requests(), link().listed()) == (1, [bad])
        recorder.flush()
        assert requests() == 6

    def test_one_that_comes_back_from_a_snapshot_is_not_counted_again(
        self, counted, recorder, spend, stored
    ):
        live = link().name("apikeys:live")
        snapshot = stored.dump(live)
        spend()
        recorder.flush()

        stored.restore(live, 0, snapshot)
        recorder.flush()

        assert (requests(), units()) == (6, 10)

    def test_what_another_flush_deletes_meanwhile_is_not_taken_for_the_whole(
        self, counted, recorder, monkeypatch
    ):
        link().take()
        (id_,) = link().listed()
        whole = link().fields(id_)
        monkeypatch.setattr(
            link().redis, "hscan_iter", lambda *args, **kwargs: list(whole.items())[:2]
        )

        assert link().fields(id_) is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (b"garbage", b"1 0 0 0 "),
            (b'["key"]', b"1 0 0 0 "),
            (b'["key","none"]', b"1 0 0 0 "),
            (b'["keys","5f1c3c5e-0000-4000-8000-000000000000"]', b"1 0 0 0 "),
            (b'["secret","1"]', b"\xff"),
            (b'["secret","1"]', b"many"),
            (b'["quota","7","November"]', b"1 0 0 0 5"),
            (b'["owner","7","November"]', b"1 0 0 0 "),
            (b'{"key":1}', b"1 0 0 0 "),
            (b"7", b"1 0 0 0 "),
            (b"\xff\x00", b""),
            (
                b'["address","5f1c3c5e-0000-4000-8000-000000000000","a"]',
                b"1 0 9999999999999999999 0 ",
            ),
        ],
    )
    def test_what_is_not_ours_holds_up_nothing(self, counted, recorder, stored, name, value):
        stored.hset(link().name("apikeys:live"), name, value)

        recorder.flush()

        assert requests() == 5
        assert link().listed() == []

    def test_what_an_older_release_has_counted_is_applied(self, counted, recorder, stored):
        """It knew no requests of an owner."""
        link().take()
        (id_,) = link().listed()
        batch = link().name("apikeys:batch:") + id_.decode()
        assert stored.hdel(batch, '["owner","7","2026-11-01"]') == 1

        recorder.flush()

        assert (requests(), link().listed()) == (5, [])
        assert months() == [("7", date(2026, 11, 1), 10, 0)]

    def test_a_counter_that_is_garbage_counts_on_from_nothing(self, counted, recorder, stored):
        live = link().name("apikeys:live")
        for name in stored.hkeys(live):
            if name != b"id":
                stored.hset(live, name, "garbage")

        recorder.count(hit())
        recorder.flush()

        assert requests() == 1

    def test_a_list_of_garbage_holds_up_nothing(self, counted, recorder, stored):
        stored.rpush(link().name("apikeys:batches"), b"\xff", "no id")

        recorder.flush()

        assert requests() == 5
        assert recorder.flush() == 0

    def test_a_key_that_is_gone_holds_up_no_others(self, recorder, spend):
        key = APIKeyFactory()
        spend(key_id=key.pk)
        spend()
        key.delete()

        recorder.flush()

        assert requests() == 2


class TestProcesses:
    @pytest.fixture
    def child(self, redis_url, prefix):
        """The exit status of a process of its own that did this."""

        def child(*arguments):
            return subprocess.run(  # noqa: S603 - our own
                [sys.executable, "-m", "tests.contrib.children", *arguments],
                cwd=ROOT,
                env={
                    **os.environ,
                    "REDIS_LOCATION": redis_url,
                    "REDIS_PREFIX": prefix,
                    "DATABASE_URL": database_url(),
                },
                timeout=60,
                check=False,
            ).returncode

        return child

    def test_a_killed_process_loses_no_total(self, recorder, child):
        caches["default"].set("units", 0)

        assert child("count", "25") == -signal.SIGKILL
        recorder.flush()

        assert (requests(), units()) == (25, 50)

    @TWO_WRITERS
    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("step", ["listed", "applied"])
    def test_a_killed_flush_loses_and_doubles_nothing(self, child, stored, step):
        recorder = conf.usage_recorder
        recorder._states.clear()
        for _ in range(5):
            RedisLimiter().spend_and_count([], use(), NOW)

        assert child("flush", step) == -signal.SIGKILL
        assert len(link().listed()) == 1
        recorder.flush()

        assert (requests(), link().listed()) == (5, [])

    @TWO_WRITERS
    @pytest.mark.django_db(transaction=True)
    def test_flushes_at_once_lose_and_double_nothing(self, stored):
        recorder = conf.usage_recorder
        recorder._states.clear()
        done = threading.Event()

        def count():
            for _ in range(300):
                used = use()
                RedisLimiter().spend_and_count([], used, NOW)
                recorder.count(hit(totalled=used.totalled))

        def flush():
            others = RedisRecorder()
            while not done.is_set():
                others.flush()
            connections.close_all()

        flushes = [threading.Thread(target=flush) for _ in range(3)]
        for thread in flushes:
            thread.start()
        together(count, threads=2)
        done.set()
        for thread in flushes:
            thread.join()
        recorder.flush()

        assert (requests(), routes()) == (600, [("customers/", "2xx", 600)])
        assert months() == [("7", date(2026, 11, 1), 0, 600)]

    def test_a_forked_child_starts_empty(self, recorder, spend):
        _, used = spend()
        recorder.count(hit(totalled=used.totalled))

        if not (child := os.fork()):
            # Nothing of the test may run on in here.
            try:
                _, used = spend()
                recorder.count(hit(totalled=used.totalled))
                recorder._mine()._send()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        spend()
        spend()
        recorder.flush()

        assert (requests(), routes()) == (4, [("customers/", "2xx", 2)])


def together(work, threads):
    failed = []

    def run():
        try:
            work()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            failed.append(error)
        finally:
            connections.close_all()

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failed == []


def mine(stored):
    return list(stored.scan_iter(f"{link().name('')}*"))


def database_url():
    """Return where another process finds the database of this test."""
    found = connection.settings_dict
    if connection.vendor == "sqlite":
        return "sqlite://:memory:"
    scheme = {"postgresql": "postgres"}.get(connection.vendor, connection.vendor)
    access = ":".join(filter(None, (found["USER"], found["PASSWORD"])))
    place = ":".join(filter(None, (found["HOST"], str(found["PORT"]))))
    return f"{scheme}://{access}@{place}/{found['NAME']}"
