"""Counters in, flushes out: what a batch adds up, and what is stored of it."""

import atexit
import os
import threading
import uuid
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from django.core import mail
from django.core.cache import caches
from django.core.signals import request_finished
from django.db import DataError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_apikeys import batches, flushing, logs, quotas, signals, usage
from django_apikeys.batches import Batch, Hit
from django_apikeys.models import (
    APIKeyAddress,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
    OwnerQuota,
)
from django_apikeys.usage import MemoryRecorder

ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
MAY = date(2026, 5, 1)


def at(hour, minute=0):
    return datetime(2026, 5, 1, hour, minute, tzinfo=UTC)


def hit(**fields):
    defaults = {
        "key_id": ONE,
        "secret_id": 1,
        "owner_id": "7",
        "at": at(9, 30),
        "route": "customers/",
        "method": "GET",
        "outcome": "2xx",
        "address": "192.0.2.1",
    }
    return Hit(**{**defaults, **fields})


def batch_of(*hits):
    batch = Batch()
    for one in hits:
        batch.add(one)
    return batch


def stored_usage():
    columns = ("starts_at", "hours", "route", "method", "outcome", "requests")
    return list(APIKeyUsage.objects.order_by(*columns).values_list(*columns))


def stored_addresses():
    columns = ("key_id", "address", "first_seen_at", "last_seen_at", "requests")
    return list(APIKeyAddress.objects.order_by("key_id", "address").values_list(*columns))


def stored_months():
    columns = ("owner_id", "month", "units", "requests")
    return list(OwnerQuota.objects.order_by(*columns).values_list(*columns))


def requests_of(key_id=ONE):
    return APIKeyTotals.objects.values_list("requests", flat=True).get(key_id=key_id)


@pytest.fixture
def errors(caplog, monkeypatch):
    """What was logged; nothing of the last minute was said before."""
    monkeypatch.setattr(logs, "_said_at", {})
    return caplog


@contextmanager
def heard(signal):
    facts = []

    def receiver(**kwargs):
        del kwargs["signal"], kwargs["sender"]
        facts.append(kwargs)

    signal.connect(receiver)
    try:
        yield facts
    finally:
        signal.disconnect(receiver)


@pytest.mark.django_db
class TestWhatIsStored:
    def test_totals_of_the_key_and_the_secret(self):
        flushing.apply(
            batch_of(
                hit(),
                hit(at=at(9, 40), outcome="5xx", address="192.0.2.9"),
                hit(at=at(9, 35), outcome="3xx", secret_id=2, in_grace=True),
            )
        )

        assert APIKeyTotals.objects.values_list().get() == (ONE, 3, 1, at(9, 40), "192.0.2.9")
        assert list(APIKeySecretTotals.objects.order_by("secret_id").values_list()) == [
            (1, 2, 0, at(9, 40), "192.0.2.9"),
            (2, 1, 1, at(9, 35), "192.0.2.1"),
        ]

    def test_usage_by_hour_route_method_and_outcome(self):
        flushing.apply(
            batch_of(
                hit(),
                hit(at=at(9, 59)),
                hit(at=at(10)),
                hit(route="jobs/"),
                hit(method="POST"),
                hit(outcome="limited"),
            )
        )

        assert stored_usage() == [
            (at(9), 1, "customers/", "GET", "2xx", 2),
            (at(9), 1, "customers/", "GET", "limited", 1),
            (at(9), 1, "customers/", "POST", "2xx", 1),
            (at(9), 1, "jobs/", "GET", "2xx", 1),
            (at(10), 1, "customers/", "GET", "2xx", 1),
        ]

    @pytest.mark.parametrize("outcome", ["2xx", "3xx", "4xx", "5xx", "refused", "limited"])
    def test_error_is_what_was_answered_400_or_more(self, outcome):
        flushing.apply(batch_of(hit(outcome=outcome)))

        errors = APIKeyTotals.objects.values_list("errors", flat=True).get()
        assert errors == (0 if outcome in ("2xx", "3xx") else 1)

    def test_hour_is_that_of_utc(self):
        half_an_hour_off = timezone(timedelta(hours=5, minutes=30))

        flushing.apply(batch_of(hit(at=datetime(2026, 5, 1, 15, 10, tzinfo=half_an_hour_off))))

        assert stored_usage() == [(at(9), 1, "customers/", "GET", "2xx", 1)]

    def test_naive_moment_stays_as_it_is(self):
        """That of a host without time zones."""
        (row,) = batch_of(hit(at=datetime(2026, 5, 1, 9, 30))).usage  # noqa: DTZ001 - the case

        assert row[1] == datetime(2026, 5, 1, 9)  # noqa: DTZ001 - the case

    def test_address_is_kept_with_its_first_and_last_moment(self):
        """In any order: a request counts when it is answered, and some take long."""
        flushing.apply(batch_of(hit(at=at(9)), hit(at=at(8)), hit(at=at(11)), hit(at=at(10))))
        flushing.apply(batch_of(hit(at=at(7)), hit(address="192.0.2.2")))

        assert stored_addresses() == [
            (ONE, "192.0.2.1", at(7), at(11), 5),
            (ONE, "192.0.2.2", at(9, 30), at(9, 30), 1),
        ]

    def test_no_address_is_stored_of_a_hit_without_one(self):
        flushing.apply(batch_of(hit(address="")))

        assert stored_addresses() == []
        assert APIKeyTotals.objects.values_list("last_used_ip", flat=True).get() == ""

    def test_units_of_the_owner_and_month(self):
        flushing.apply(
            batch_of(hit(month=MAY, units=5), hit(month=MAY, units=1, key_id=TWO), hit())
        )
        flushing.apply(batch_of(hit(month=MAY, units=2), hit(month=date(2026, 6, 1), units=1)))

        rows = OwnerQuota.objects.order_by("month").values_list("owner_id", "month", "units")
        assert list(rows) == [("7", MAY, 8), ("7", date(2026, 6, 1), 1)]

    def test_requests_of_an_owner_with_a_quota_stand_beside_its_units(self):
        flushing.apply(batch_of(hit(month=MAY, units=5, quota=100), hit(month=MAY, quota=100)))
        flushing.apply(batch_of(hit(month=MAY, units=2, quota=100, key_id=TWO)))

        assert stored_months() == [("7", MAY, 7, 3)]

    def test_requests_of_an_owner_without_a_quota_are_counted_too(self):
        """Over all keys."""
        flushing.apply(batch_of(hit(), hit(key_id=TWO), hit(owner_id=""), hit(owner_id="8")))
        flushing.apply(batch_of(hit(), hit(owner_id="")))

        assert stored_months() == [("", MAY, 0, 2), ("7", MAY, 0, 3), ("8", MAY, 0, 1)]

    @pytest.mark.parametrize(
        ("outcome", "months"),
        [
            ("2xx", [("7", MAY, 0, 1)]),
            ("3xx", [("7", MAY, 0, 1)]),
            ("4xx", [("7", MAY, 0, 1)]),
            ("5xx", [("7", MAY, 0, 1)]),
            ("refused", []),
            ("limited", []),
        ],
    )
    def test_request_counts_for_its_owner_where_it_was_let_through(self, outcome, months):
        flushing.apply(batch_of(hit(outcome=outcome)))

        assert stored_months() == months

    def test_refused_request_that_was_charged_before_has_units_alone(self):
        """One that is verified again, for more scopes than its key has."""
        flushing.apply(batch_of(hit(outcome="refused", month=MAY, units=3, quota=100)))

        assert stored_months() == [("7", MAY, 3, 0)]

    @pytest.mark.parametrize(
        ("zone", "months"),
        [
            pytest.param(None, [("7", MAY, 0, 3)], id="UTC"),
            pytest.param(
                "Pacific/Marquesas",  # 9½ hours behind
                [("7", date(2026, 4, 1), 0, 2), ("7", MAY, 0, 1)],
                id="half-an-hour-off",
            ),
        ],
    )
    def test_request_counts_in_the_month_of_its_time(self, zone, months, settings):
        """As the quota has it; long before the flush, which counts in none."""
        if zone:
            settings.APIKEYS_QUOTA_TIME_ZONE = zone
        batch = batch_of(hit(at=at(0)), hit(at=at(9, 29)), hit(at=at(9, 30)))

        flushing.apply(batch)

        assert stored_months() == months

    def test_request_and_charge_on_either_side_of_midnight_have_a_month_each(self):
        """Verified in the last moment of May, and asked for its limits in the first of June."""
        june = date(2026, 6, 1)
        last = datetime(2026, 5, 31, 23, 59, 59, tzinfo=UTC)

        flushing.apply(batch_of(hit(at=last, month=june, units=1, quota=100)))

        assert stored_months() == [("7", MAY, 0, 1), ("7", june, 1, 0)]

    def test_quota_that_begins_within_the_month_begins_at_nothing(self):
        flushing.apply(batch_of(hit(), hit()))
        before = quotas.stored_units("7", MAY)

        with heard(signals.quota_reached) as facts:
            flushing.apply(batch_of(hit(month=MAY, units=1, quota=2)))

        assert (before, quotas.stored_units("7", MAY), facts) == (0, 1, [])
        assert stored_months() == [("7", MAY, 1, 3)]

    def test_batch_that_was_applied_is_not_applied_again(self):
        batch = batch_of(hit())

        flushing.apply(batch)
        flushing.apply(batch)

        assert requests_of() == 1
        assert FlushedBatch.objects.values_list("pk", flat=True).get() == batch.id

    def test_key_that_is_gone_holds_up_no_others(self, issued):
        key_id = issued.key.pk
        batch = batch_of(hit(), hit(key_id=key_id))
        issued.key.delete()

        flushing.apply(batch)

        assert (requests_of(), requests_of(key_id)) == (1, 1)


@pytest.mark.django_db
class TestBounds:
    @pytest.fixture
    def few(self, monkeypatch):
        monkeypatch.setattr(batches, "MOST_ROWS", 2)

    def test_routes_beyond_the_bound_are_other(self, few):
        batch = batch_of(*(hit(route=route) for route in ("a/", "b/", "c/", "d/", "b/")))

        assert {row[2]: count for row, count in batch.usage.items()} == {
            "a/": 1,
            "b/": 2,
            "other": 2,
        }

    def test_addresses_beyond_the_bound_are_other(self, few):
        batch = batch_of(*(hit(address=f"192.0.2.{last}") for last in (1, 2, 3, 4, 2)))

        assert {row[1]: seen.requests for row, seen in batch.addresses.items()} == {
            "192.0.2.1": 1,
            "192.0.2.2": 2,
            "other": 2,
        }

    def test_other_is_no_new_address(self, few):
        flushing.apply(batch_of(hit()))
        with heard(signals.key_used_from_new_address) as facts:
            flushing.apply(batch_of(hit(), hit(key_id=TWO), hit(address="192.0.2.3")))

        assert facts == []

    def test_addresses_of_a_key_are_those_seen_last(self):
        """A hundred; looked after once ten more are there, and of this key alone."""
        addresses = [f"192.0.2.{last}" for last in range(111)]
        flushing.apply(batch_of(hit(key_id=TWO, address=addresses[0], at=at(0))))
        for minute, address in enumerate(addresses[:110]):
            flushing.apply(batch_of(hit(address=address, at=at(minute // 60, minute % 60))))
        before = APIKeyAddress.objects.filter(key_id=ONE).count()

        flushing.apply(batch_of(hit(address=addresses[110], at=at(1, 50))))

        kept = APIKeyAddress.objects.filter(key_id=ONE).values_list("address", flat=True)
        assert before == 110
        assert set(kept) == set(addresses[11:])
        assert APIKeyAddress.objects.filter(key_id=TWO).count() == 1


@pytest.mark.django_db
class TestRowThatCannotBeStored:
    """What no later try changes is dropped, and keeps nobody else's counts out."""

    POISON = [
        pytest.param({"route": "\ud800"}, id="half-a-surrogate-pair"),
        pytest.param({"month": MAY, "units": 10**30}, id="number-out-of-range"),
        pytest.param({"secret_id": 2**70}, id="id-out-of-range"),
    ]

    def test_is_kept_where_none_of_the_rows_can_be_stored(self, errors):
        """What keeps out all of them is no row: a column that was changed, say."""
        batch = batch_of(hit())

        def fails(execute, sql, params, many, context):
            if "INSERT" in sql and "flushedbatch" not in sql:
                raise DataError("value too long")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(fails), pytest.raises(DataError, match="value too long"):
            flushing.apply(batch)
        flushing.apply(batch)

        assert APIKeyTotals.objects.get().requests == 1
        assert errors.records == []

    @pytest.mark.parametrize("poison", POISON)
    def test_is_dropped_alone(self, poison, errors):
        hits = [hit(key_id=uuid.UUID(int=number), secret_id=number) for number in range(3, 20)]
        batch = batch_of(*hits, hit(**poison))

        flushing.apply(batch)
        flushing.apply(batch)

        assert list(APIKeyTotals.objects.order_by("key_id").values_list("key_id", "requests")) == [
            (ONE, 1),
            *((uuid.UUID(int=number), 1) for number in range(3, 20)),
        ]
        assert {record.getMessage().partition(",")[0] for record in errors.records} == {
            "Usage of an API key was dropped"
        }

    def test_is_told_in_one_line_of_the_log(self, errors):
        """What the database says of a row may hold text that a client has sent."""

        def fails(execute, sql, params, many, context):
            if "poison" in str(params):
                raise DataError("bad text: poison\nERROR forged")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(fails):
            flushing.apply(batch_of(hit(key_id=TWO, secret_id=2), hit(route="poison")))

        assert errors.records
        assert not any("\n" in record.getMessage() for record in errors.records)

    @pytest.mark.parametrize(
        ("poison", "dropped"),
        [
            pytest.param({"route": "x" * 201}, 1, id="route"),
            pytest.param({"address": "y" * 46}, 3, id="address-also-of-the-last-use"),
            pytest.param({"route": "\x00"}, connection.vendor == "postgresql", id="nul"),
        ],
    )
    def test_text_that_does_not_fit_is_dropped_alone(self, poison, dropped, errors):
        """SQLite stores texts of any length, and NUL as MariaDB does."""
        flushing.apply(batch_of(hit(key_id=TWO, secret_id=2), hit(**poison)))

        assert (requests_of(TWO), len(errors.records)) == (
            1,
            0 if connection.vendor == "sqlite" else dropped,
        )

    def test_is_known_by_the_same_halves_when_it_is_tried_again(self):
        """By another process that has read the same counters in another order, too."""
        hits = [hit(key_id=uuid.UUID(int=number)) for number in range(3, 20)]
        one, two = batch_of(*hits), batch_of(*reversed(hits))
        two.id = one.id

        assert [half.id for half in one.halves()] == [half.id for half in two.halves()]
        assert [sorted(half.keys) for half in one.halves()] == [
            sorted(half.keys) for half in two.halves()
        ]
        assert sum(map(len, one.halves())) == len(one)


@pytest.mark.django_db
class TestNewAddress:
    def test_of_many_at_once_ten_are_told(self, issued):
        """A key that is used from everywhere does not keep receivers busy for ever."""
        of_key = {"key_id": issued.key.pk, "secret_id": issued.key.current_secret.pk}
        flushing.apply(batch_of(hit(address="192.0.2.1", **of_key)))
        many = [hit(address=f"198.51.100.{n}", **of_key) for n in range(99)]

        with heard(signals.key_used_from_new_address) as facts:
            flushing.apply(batch_of(*many))
        with heard(signals.key_used_from_new_address) as later:
            flushing.apply(batch_of(hit(address="203.0.113.1", **of_key)))

        assert len(facts) == 10
        assert later == []

    @pytest.mark.parametrize(
        ("before", "hits", "told"),
        [
            pytest.param([], [(9, "192.0.2.1")], [], id="first-use-ever"),
            pytest.param(
                [],
                [(9, "192.0.2.1"), (8, "192.0.2.2")],
                ["192.0.2.1"],
                id="two-in-the-first-flush",
            ),
            pytest.param(
                [(1, "192.0.2.1")], [(9, "192.0.2.2")], ["192.0.2.2"], id="another-than-before"
            ),
            pytest.param([(1, "192.0.2.1")], [(9, "192.0.2.1")], [], id="the-same-as-before"),
            pytest.param([(1, "")], [(9, "192.0.2.1")], [], id="none-was-kept-before"),
            pytest.param(
                [(1, "192.0.2.1")],
                [(9, "192.0.2.3"), (9, "192.0.2.1"), (8, "192.0.2.2")],
                ["192.0.2.2", "192.0.2.3"],
                id="two-others-beside-the-known",
            ),
        ],
    )
    def test_is_told_of_a_key_that_was_used_from_others(self, issued, before, hits, told):
        key = issued.key
        for hour, address in before:
            flushing.apply(batch_of(hit(key_id=key.pk, at=at(hour), address=address)))

        with heard(signals.key_used_from_new_address) as facts:
            flushing.apply(batch_of(*(hit(key_id=key.pk, at=at(h), address=a) for h, a in hits)))

        assert [fact["address"] for fact in facts] == told
        assert all(fact["key"] == key for fact in facts)

    def test_is_told_with_its_moment(self, issued):
        flushing.apply(batch_of(hit(key_id=issued.key.pk)))

        with heard(signals.key_used_from_new_address) as facts:
            flushing.apply(batch_of(hit(key_id=issued.key.pk, at=at(10), address="2001:db8::1")))

        assert facts == [{"key": issued.key, "address": "2001:db8::1", "at": at(10)}]

    def test_is_not_told_of_a_key_that_is_gone(self):
        flushing.apply(batch_of(hit()))

        with heard(signals.key_used_from_new_address) as facts:
            flushing.apply(batch_of(hit(address="192.0.2.2")))

        assert facts == []
        assert len(stored_addresses()) == 2

    def test_receiver_that_raises_costs_no_count(self, issued):
        def broken(**kwargs):
            raise RuntimeError

        flushing.apply(batch_of(hit(key_id=issued.key.pk)))
        signals.key_used_from_new_address.connect(broken)
        try:
            flushing.apply(batch_of(hit(key_id=issued.key.pk, address="192.0.2.2")))
        finally:
            signals.key_used_from_new_address.disconnect(broken)

        assert requests_of(issued.key.pk) == 2

    def test_trouble_with_telling_costs_no_count(self, issued, monkeypatch, errors):
        """The transaction is committed by then, and must not be taken for one that failed."""
        flushing.apply(batch_of(hit(key_id=issued.key.pk)))
        monkeypatch.setattr(signals, "send", lambda signal, **facts: 1 / 0)

        flushing.apply(batch_of(hit(key_id=issued.key.pk, address="192.0.2.2")))

        assert requests_of(issued.key.pk) == 2
        assert [record.getMessage() for record in errors.records] == [
            "The signals of a flush were not all sent."
        ]


@pytest.mark.django_db
class TestQuotaReached:
    @pytest.mark.parametrize(
        ("flushes", "told"),
        [
            pytest.param([(79, 100)], [], id="below"),
            pytest.param([(80, 100)], [(80, 80)], id="at-80"),
            pytest.param([(79, 100), (1, 100)], [(80, 80)], id="crossed-by-the-second"),
            pytest.param([(80, 100), (1, 100)], [(80, 80)], id="once"),
            pytest.param([(100, 100)], [(80, 100), (100, 100)], id="both-at-once"),
            pytest.param([(90, 100), (15, 100), (5, 100)], [(80, 90), (100, 105)], id="beyond"),
            pytest.param([(5, 0)], [], id="a-quota-of-nothing"),
            pytest.param([(5, None)], [], id="no-quota"),
            pytest.param(
                [(80, 100), (720, 1000)], [(80, 80), (80, 800)], id="raised-within-the-month"
            ),
            pytest.param(
                [(50, 100), (1, 40), (40, 100)], [(80, 91)], id="lowered-below-what-was-used"
            ),
        ],
    )
    def test_is_told_by_the_flush_that_crosses_the_mark(self, flushes, told):
        with heard(signals.quota_reached) as facts:
            for units, quota in flushes:
                flushing.apply(batch_of(hit(month=MAY, units=units, quota=quota)))

        assert [(fact["percent"], fact["units"]) for fact in facts] == told

    def test_is_told_with_its_owner_and_month(self):
        with heard(signals.quota_reached) as facts:
            flushing.apply(batch_of(hit(month=MAY, units=8, quota=10)))

        assert facts == [{"owner_id": "7", "month": MAY, "percent": 80, "units": 8, "quota": 10}]


@pytest.mark.django_db
def test_owners_and_routes_that_differ_by_case_alone_are_counted_apart():
    hits = [
        hit(owner_id=name, route=f"{name}/", month=MAY, units=units)
        for name, units in (("ann", 1), ("Ann", 2))
    ]

    flushing.apply(batch_of(*hits))
    flushing.apply(batch_of(*hits))

    counted = OwnerQuota.objects.order_by("units").values_list("owner_id", "units")
    assert list(counted) == [("ann", 2), ("Ann", 4)]
    assert quotas.stored_units("Ann", MAY) == 4
    routes = APIKeyUsage.objects.values_list("route", "requests")
    assert sorted(routes) == [("Ann/", 2), ("ann/", 2)]


@pytest.mark.django_db
class TestQuotaInTheCache:
    @pytest.fixture
    def counter(self):
        cache = caches["default"]
        name = quotas.quota_counter("7", MAY)
        cache.delete(name)
        yield lambda *value: cache.set(name, *value) if value else cache.get(name)
        cache.delete(name)

    @pytest.mark.parametrize(
        ("cached", "raised"),
        [
            pytest.param(3, 10, id="raised-where-it-is-lower"),
            pytest.param(12, 12, id="never-lowered"),
            pytest.param(None, None, id="left-to-the-next-request-where-it-is-missing"),
        ],
    )
    def test_follows_what_is_stored(self, counter, cached, raised):
        if cached is not None:
            counter(cached)

        flushing.apply(batch_of(hit(month=MAY, units=10)))

        assert counter() == raised

    def test_is_left_alone_where_no_quota_was_charged(self, counter):
        """Of one without a quota; of one with it whose view asks for no limits."""
        flushing.apply(batch_of(hit(month=MAY, units=10)))
        counter(3)

        flushing.apply(batch_of(hit(), hit(owner_id="8")))

        assert counter() == 3

    def test_is_raised_beside_owners_without_a_quota(self, counter):
        counter(3)

        flushing.apply(batch_of(hit(owner_id="8"), hit(month=MAY, units=10), hit()))

        assert counter() == 10

    def test_that_is_down_fails_no_flush(self, settings, errors):
        settings.CACHES = {"default": {"BACKEND": "tests.test_usage.Down"}}

        flushing.apply(batch_of(hit(month=MAY, units=10)))

        assert requests_of() == 1
        assert [record.getMessage() for record in errors.records] == [
            "The quotas of API keys in the cache were not raised."
        ]


class Down:
    """A cache that does not answer."""

    def __init__(self, *args):
        """As Django makes one."""

    def get_many(self, names):
        raise ConnectionError

    def close(self, **kwargs):
        """At the end of a request."""


def statements(captured):
    """Count what was sent, but for BEGIN, COMMIT and savepoints."""
    words = [query["sql"].split(maxsplit=1)[0] for query in captured.captured_queries]
    return sum(word not in ("SAVEPOINT", "RELEASE", "BEGIN", "COMMIT") for word in words)


@pytest.mark.django_db
class TestStatements:
    @pytest.mark.parametrize(
        ("keys", "most"),
        [(1, 6), (100, 6), pytest.param(10_000, 51, marks=pytest.mark.large)],
        ids=["1", "100", "10000"],
    )
    def test_of_a_flush_are_six_for_a_thousand_keys(self, keys, most):
        """The batch's id, and of five tables one for each thousand rows."""
        hits = [
            hit(key_id=uuid.UUID(int=n), secret_id=n, owner_id=str(n), month=MAY, units=1)
            for n in range(1, keys + 1)
        ]
        for _ in range(2):  # the first use of each, and then the steady state
            batch = batch_of(*hits)

            with CaptureQueriesContext(connection) as captured:
                flushing.apply(batch)

            assert len(batch) == 5 * keys
            assert statements(captured) == most

    @pytest.mark.parametrize("returning", [True, False], ids=["RETURNING", "asked"])
    def test_of_a_flush_without_quotas_are_no_more(self, returning, monkeypatch):
        """On MySQL too, which is asked for the units of quotas alone."""
        if not returning:
            features = type(connection.features)
            monkeypatch.setattr(features, "can_return_rows_from_bulk_insert", False)
        hits = [hit(key_id=uuid.UUID(int=n), owner_id=str(n), address="") for n in range(1, 101)]
        flushing.apply(batch_of(*hits))

        with CaptureQueriesContext(connection) as captured:
            flushing.apply(batch_of(*hits))

        # The batch's id, three tables and the owners' months; one asks for the keys' totals.
        assert statements(captured) == (5 if returning else 6)

    def test_of_a_flush_with_new_addresses_are_few_more(self, issue):
        """One asks how many a thousand keys have, one for the keys that are told of."""
        keys = [issue().key for _ in range(20)]
        flushing.apply(batch_of(*(hit(key_id=key.pk) for key in keys)))

        with CaptureQueriesContext(connection) as captured:
            flushing.apply(batch_of(*(hit(key_id=key.pk, address="192.0.2.2") for key in keys)))

        assert statements(captured) == 8

    def test_of_a_flush_of_nothing_are_none(self, counting, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert MemoryRecorder().flush() == 0


class Failing:
    """Lets *count* attempts of a flush fail: where it is asked to, by a real COMMIT."""

    def __init__(self, monkeypatch, count, *, commits):
        self.left, self.commits = count, commits
        self.real = connection._commit
        monkeypatch.setattr(connection, "_commit", self)

    def __call__(self):
        if self.commits or not self.left:
            self.real()
        if self.left:
            self.left -= 1
            raise OperationalError("The connection was lost.")


@pytest.mark.django_db(transaction=True)
class TestTryingAgain:
    @pytest.mark.parametrize("commits", [True, False], ids=["answer-lost", "commit-failed"])
    @pytest.mark.parametrize("failures", [1, 2])
    def test_counts_once_when_a_commit_fails(self, monkeypatch, failures, commits):
        failing = Failing(monkeypatch, failures, commits=commits)

        flushing.apply(batch_of(hit()))

        assert (requests_of(), failing.left) == (1, 0)

    def test_tells_what_was_committed_without_an_answer(self, monkeypatch):
        Failing(monkeypatch, 1, commits=True)

        with heard(signals.quota_reached) as facts:
            flushing.apply(batch_of(hit(month=MAY, units=8, quota=10)))

        assert [fact["percent"] for fact in facts] == [80]

    @pytest.mark.parametrize("commits", [True, False], ids=["answer-lost", "commit-failed"])
    def test_keeps_what_could_not_be_flushed(self, monkeypatch, commits):
        """The same batch first, under its id, and behind it what was counted since."""
        recorder = MemoryRecorder()
        recorder.count(hit())
        failing = Failing(monkeypatch, 3, commits=commits)
        with pytest.raises(OperationalError):
            recorder.flush()
        recorder.count(hit(outcome="5xx"))

        assert (failing.left, recorder.flush(), recorder.flush()) == (0, 10, 0)

        assert requests_of() == 2
        assert FlushedBatch.objects.count() == 2

    def test_keeps_all_while_the_database_is_down(self, monkeypatch):
        recorder = MemoryRecorder()
        recorder.count(hit())

        def down(*args):
            raise OperationalError

        with monkeypatch.context() as patch:
            patch.setattr(flushing, "insert_once", down)
            for _ in range(3):
                with pytest.raises(OperationalError):
                    recorder.flush()
                recorder.count(hit())
        recorder.flush()

        assert requests_of() == 4

    def test_is_refused_within_a_transaction(self):
        """Of a request, say, which may be rolled back behind us."""
        recorder = MemoryRecorder()
        recorder.count(hit())

        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            recorder.flush()

        assert recorder.flush() == 5
        assert requests_of() == 1

    def test_commits_where_the_host_does_not_by_itself(self):
        """AUTOCOMMIT off leaves the COMMIT of an atomic block to whom it began in."""
        connection.close()
        connection.settings_dict["AUTOCOMMIT"] = False
        try:
            connection.set_autocommit(False)
            recorder = MemoryRecorder()
            recorder.count(hit())
            recorder.flush()
        finally:
            connection.settings_dict["AUTOCOMMIT"] = True
            connection.close()

        assert requests_of() == 1


@pytest.mark.django_db
class TestRecorder:
    def test_receiver_of_a_flush_may_flush(self, issued):
        recorder = MemoryRecorder()
        recorder.count(hit(key_id=issued.key.pk))
        recorder.flush()

        def flushing(**kwargs):
            recorder.count(hit(key_id=issued.key.pk))
            recorder.flush()

        recorder.count(hit(key_id=issued.key.pk, address="192.0.2.2"))
        signals.key_used_from_new_address.connect(flushing)
        try:
            recorder.flush()
        finally:
            signals.key_used_from_new_address.disconnect(flushing)

        assert requests_of(issued.key.pk) == 3
        assert recorder.flush() == 0

    def test_starts_empty_after_a_reset(self):
        recorder = MemoryRecorder()
        recorder.count(hit())

        recorder.reset()

        assert recorder.flush() == 0

    def test_flushes_nothing_by_itself_while_tests_run(self):
        recorder = MemoryRecorder()
        recorder.count(hit())
        recorder.count(hit())
        recorder._at_exit()
        overdue(recorder)
        recorder._where_no_thread_runs()

        assert APIKeyTotals.objects.count() == 0
        assert not any(thread.name == "django_apikeys.usage" for thread in threading.enumerate())

    def test_of_a_forked_child_starts_empty(self, monkeypatch):
        """Known by the process id, since uWSGI forks without Python's hooks."""
        recorder = MemoryRecorder()
        recorder.count(hit())
        monkeypatch.setattr(os, "getpid", lambda: 0)

        recorder.count(hit(key_id=TWO))

        assert recorder.flush() == 5
        assert list(APIKeyTotals.objects.values_list("key_id", "requests")) == [(TWO, 1)]


@pytest.fixture
def by_itself(monkeypatch, settings):
    """As outside of tests: a recorder flushes by itself. Its thread does not start here."""
    monkeypatch.delattr(mail, "outbox")
    # At the end of the run there is another database.
    monkeypatch.setattr(atexit, "register", lambda work: None)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def state_of(recorder):
    return recorder._states[os.getpid()]


def overdue(recorder, seconds=17):
    """Let so many seconds have gone by since a flush was tried."""
    state_of(recorder).tried_at -= seconds


@pytest.mark.django_db(transaction=True)
class TestFlushWhereNoThreadRuns:
    @pytest.fixture
    def recorder(self, by_itself):
        recorder = MemoryRecorder()
        recorder.count(hit())
        recorder.count(hit())
        return recorder

    def test_is_asked_for_when_a_request_has_finished(self):
        recorder = MemoryRecorder()

        assert recorder._where_no_thread_runs in request_finished._live_receivers(None)[0]

    @pytest.mark.parametrize(("seconds", "rows"), [(15, 0), (17, 1)])
    def test_is_done_after_an_answer_once_it_is_overdue(self, recorder, seconds, rows):
        overdue(recorder, seconds)

        recorder._where_no_thread_runs()

        assert APIKeyTotals.objects.count() == rows

    def test_is_not_done_within_a_transaction(self, recorder):
        overdue(recorder)

        with transaction.atomic():
            recorder._where_no_thread_runs()

        assert APIKeyTotals.objects.count() == 0

    def test_is_not_done_where_the_host_commits_by_itself(self, recorder):
        overdue(recorder)

        connection.set_autocommit(False)
        try:
            recorder._where_no_thread_runs()
        finally:
            connection.set_autocommit(True)

        assert APIKeyTotals.objects.count() == 0

    def test_is_not_done_where_flush_alone_stores(self, recorder, settings):
        settings.APIKEYS_USAGE_FLUSH_SECONDS = None
        overdue(recorder)

        recorder._where_no_thread_runs()

        assert APIKeyTotals.objects.count() == 0

    def test_waits_for_nobody_who_flushes(self, recorder):
        """A thread that hangs on the database must not make requests hang."""
        overdue(recorder)
        held, done = threading.Event(), threading.Event()

        def flushes():
            with state_of(recorder).flushing:
                held.set()
                done.wait(10)

        thread = _started(flushes)
        try:
            assert held.wait(10)
            recorder._where_no_thread_runs()
            assert APIKeyTotals.objects.count() == 0
        finally:
            done.set()
            thread.join(10)

    def test_is_tried_once_an_interval_while_it_fails(self, recorder, monkeypatch, errors):
        tries = []

        def down(*args):
            tries.append(1)
            raise OperationalError

        monkeypatch.setattr(usage, "apply", down)
        overdue(recorder)
        for _ in range(3):
            recorder._where_no_thread_runs()

        assert len(tries) == 1
        assert [record.getMessage() for record in errors.records] == [
            "The usage of API keys could not be stored; it is kept."
        ]

    def test_is_done_at_exit(self, recorder):
        recorder._at_exit()

        assert requests_of() == 2

    def test_is_done_at_exit_where_flush_alone_stores_meanwhile(self, by_itself, settings):
        settings.APIKEYS_USAGE_FLUSH_SECONDS = None
        recorder = MemoryRecorder()
        recorder.count(hit())

        recorder._at_exit()

        assert requests_of() == 1


_START = threading.Thread.start


def _started(work):
    thread = threading.Thread(target=work, daemon=True)
    _START(thread)
    return thread


class TestThread:
    """Of the timer. What it flushes is a stand-in, which ends it."""

    @pytest.fixture
    def made(self, monkeypatch):
        """Make a recorder whose flushes come to *results*, and wait until they have."""
        monkeypatch.delattr(mail, "outbox")
        monkeypatch.setattr(atexit, "register", lambda work: None)
        recorder = MemoryRecorder()

        def made(*results):
            left = list(results)

            class State(usage.State):
                def flush(self):
                    result = left.pop(0)
                    if not left:
                        recorder._states.clear()
                    if result:
                        raise result

            monkeypatch.setattr(recorder, "_made", State)
            return recorder

        return made

    def finish(self):
        for thread in threading.enumerate():
            if thread.name == "django_apikeys.usage":
                thread.join(10)
                assert not thread.is_alive()

    def test_flushes_again_and_again_also_after_an_error(self, made, settings, errors):
        settings.APIKEYS_USAGE_FLUSH_SECONDS = 0.01

        made(None, OperationalError(), None).count(hit())

        self.finish()
        assert [record.getMessage() for record in errors.records] == [
            "The usage of API keys could not be stored; it is kept."
        ]

    def test_is_woken_before_its_time_by_many_rows(self, made, settings, monkeypatch):
        settings.APIKEYS_USAGE_FLUSH_SECONDS = 3600
        monkeypatch.setattr(usage, "ROWS_AT_ONCE", 2)
        recorder = made(None)

        recorder.count(hit())
        woken = recorder._own().wake.is_set()
        recorder.count(hit(route="jobs/"))

        self.finish()
        assert woken is False

    def test_is_one_of_two_that_begin_at_once(self, made):
        recorder = made(None)
        state = recorder._own()
        state.begun = True

        recorder._begin(state)

        assert state.by_itself is False
