"""What is kept, and for how long: nothing is lost before, nothing is counted twice."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import ProtectedError, Sum
from django.db.models.signals import pre_delete

from django_apikeys import pruning, services
from django_apikeys.models import (
    APIKey,
    APIKeyAddress,
    APIKeyEvent,
    APIKeySecret,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
    OwnerQuota,
)
from tests.conftest import bearer
from tests.factories import APIKeyFactory
from tests.traffic import used, utc

NOW = utc(2026, 11, 20, 10, 37)
NOTHING = {
    "keys": 0,
    "secrets": 0,
    "texts": 0,
    "counters": 0,
    "usage": 0,
    "hours": 0,
    "addresses": 0,
    "batches": 0,
}


def deleted(at, **fields):
    """Return a key that was deleted at *at*."""
    return APIKeyFactory(revoked_at=at, deleted_at=at, **fields)


def rows_of(key):
    """Return the usage of *key* as rows of a list."""
    names = ("starts_at", "hours", "route", "method", "outcome", "requests")
    rows = APIKeyUsage.objects.filter(key_id=key.pk).order_by(
        "starts_at", "hours", "route", "outcome"
    )
    return list(rows.values_list(*names))


def requests():
    return APIKeyUsage.objects.aggregate(sum=Sum("requests"))["sum"]


def only(**expected):
    return {**NOTHING, **expected}


@pytest.fixture
def key(db):
    return APIKeyFactory()


@pytest.fixture
def _two_at_a_time(monkeypatch):
    monkeypatch.setattr(pruning, "MOST_ROWS", 2)


@contextmanager
def failing(statement, times):
    """Fail *times* with what begins with *statement*, as a database does that saw a deadlock."""
    failed = []

    def wrapper(execute, sql, params, many, context):
        if sql.startswith(statement) and len(failed) < times:
            failed.append(sql)
            raise OperationalError("deadlock detected")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        yield failed


# --- Hours into days ----------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 1000], ids="{} rows at a time".format)
def test_old_hours_are_rolled_into_days(key, monkeypatch, most):
    monkeypatch.setattr(pruning, "MOST_ROWS", most)
    used(key, utc(2026, 10, 1, 0), 1)
    used(key, utc(2026, 10, 1, 23, 59), 2)
    used(key, utc(2026, 10, 1, 12), 4, outcome="5xx")
    used(key, utc(2026, 10, 1, 12), 8, route="jobs/")
    used(key, utc(2026, 10, 2, 0), 16)
    used(key, utc(2026, 10, 2, 0), 32, method="POST")

    done = pruning.prune(NOW)

    assert done == only(hours=6)
    assert sorted(rows_of(key)) == [
        (utc(2026, 10, 1), 24, "customers/", "GET", "2xx", 3),
        (utc(2026, 10, 1), 24, "customers/", "GET", "5xx", 4),
        (utc(2026, 10, 1), 24, "jobs/", "GET", "2xx", 8),
        (utc(2026, 10, 2), 24, "customers/", "GET", "2xx", 16),
        (utc(2026, 10, 2), 24, "customers/", "POST", "2xx", 32),
    ]


def test_keys_stay_apart(key):
    other = APIKeyFactory()
    used(key, utc(2026, 10, 1, 3), 2)
    used(other, utc(2026, 10, 1, 3), 5)

    pruning.prune(NOW)

    assert [row[-1] for row in rows_of(key)] == [2]
    assert [row[-1] for row in rows_of(other)] == [5]


@pytest.mark.parametrize(
    ("days", "at", "hours"),
    [
        pytest.param(30, utc(2026, 10, 20, 23, 59), 24, id="before the day 30 days ago"),
        pytest.param(30, utc(2026, 10, 21), 1, id="the day 30 days ago"),
        pytest.param(1, utc(2026, 11, 18, 23, 59), 24, id="before yesterday"),
        pytest.param(1, utc(2026, 11, 19), 1, id="yesterday"),
    ],
)
def test_hours_are_kept_for_so_many_whole_days(key, settings, days, at, hours):
    settings.APIKEYS_USAGE_HOURLY_DAYS = days
    used(key, at)

    pruning.prune(NOW)

    assert [row[1] for row in rows_of(key)] == [hours]


def test_zone_of_the_project_moves_no_day(key, settings):
    settings.TIME_ZONE = "America/New_York"
    used(key, utc(2026, 10, 1, 2), 2)

    pruning.prune(NOW)

    assert [row[:2] for row in rows_of(key)] == [(utc(2026, 10, 1), 24)]


def test_pruning_again_changes_nothing(key):
    used(key, utc(2026, 10, 1, 3), 2)
    used(key, NOW, 3)
    pruning.prune(NOW)
    before = rows_of(key)

    again = pruning.prune(NOW)

    assert again == NOTHING
    assert rows_of(key) == before


@pytest.mark.usefixtures("_two_at_a_time")
def test_hour_that_was_flushed_late_is_added_to_its_day(key):
    for hour in range(5):
        used(key, utc(2026, 10, 1, hour))
    pruning.prune(NOW)
    used(key, utc(2026, 10, 1, 3), 7)

    done = pruning.prune(NOW)

    assert done == only(hours=1)
    assert rows_of(key) == [(utc(2026, 10, 1), 24, "customers/", "GET", "2xx", 12)]


@pytest.mark.usefixtures("_two_at_a_time")
def test_stopped_pruning_loses_and_doubles_nothing(key):
    """What was done stays done, and the next run goes on."""
    for hour in range(7):
        used(key, utc(2026, 10, 1, hour), 1 + hour)

    def stop(name, done, to_do):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pruning.prune(NOW, stop)
    half = [row[1] for row in rows_of(key)]
    rest = pruning.prune(NOW)

    assert half == [24, 1, 1, 1]
    assert rest == only(hours=3)
    assert rows_of(key) == [(utc(2026, 10, 1), 24, "customers/", "GET", "2xx", 28)]


# --- Usage, addresses and batches that are old --------------------------------------------


@pytest.mark.usefixtures("_two_at_a_time")
def test_usage_is_kept_for_so_many_whole_days(key):
    for day in (17, 18):
        used(key, utc(2024, 11, day, 23))
    pruning.prune(utc(2024, 12, 31))
    used(key, utc(2024, 11, 19, 23, 59))
    used(key, utc(2024, 11, 20))

    done = pruning.prune(NOW)

    # Two days and an hour.
    assert (done["usage"], done["hours"]) == (3, 1)
    assert [row[:2] for row in rows_of(key)] == [(utc(2024, 11, 20), 24)]


def test_usage_may_be_kept_for_less_long_than_its_hours(key, settings):
    settings.APIKEYS_USAGE_DAYS = 7
    used(key, utc(2026, 11, 12, 23))
    used(key, utc(2026, 11, 13))

    done = pruning.prune(NOW)

    assert (done["usage"], done["hours"]) == (1, 0)
    assert [row[:2] for row in rows_of(key)] == [(utc(2026, 11, 13), 1)]


@pytest.mark.usefixtures("_two_at_a_time")
def test_addresses_that_are_not_seen_any_more_go(key):
    for number in range(3):
        used(key, utc(2024, 11, 19), address=f"192.0.2.{number}")
    used(key, utc(2024, 11, 20), address="192.0.2.8")
    used(key, utc(2024, 11, 1), address="192.0.2.9")
    used(key, NOW, address="192.0.2.9")

    done = pruning.prune(NOW)

    assert done["addresses"] == 3
    addresses = APIKeyAddress.objects.order_by("address")
    assert [row.address for row in addresses] == ["192.0.2.8", "192.0.2.9"]


def test_address_that_is_seen_while_it_is_pruned_stays(key):
    used(key, utc(2020, 1, 1), address="192.0.2.7")
    used(key, utc(2020, 1, 1), address="192.0.2.8")

    def again(execute, sql, params, many, context):
        if sql.startswith("DELETE"):
            APIKeyAddress.objects.filter(address="192.0.2.7").update(last_seen_at=NOW)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(again):
        done = pruning.prune(NOW)

    assert done["addresses"] == 1
    assert [row.address for row in APIKeyAddress.objects.all()] == ["192.0.2.7"]


@pytest.mark.usefixtures("_two_at_a_time")
@pytest.mark.django_db
def test_ids_of_flushes_are_kept_for_seven_days():
    for age in (timedelta(days=7), timedelta(days=7, seconds=1), timedelta(8), timedelta(9)):
        FlushedBatch.objects.create(at=NOW - age)

    done = pruning.prune(NOW)

    assert done == only(batches=3)
    assert [row.at for row in FlushedBatch.objects.all()] == [NOW - timedelta(days=7)]


# --- Keys ---------------------------------------------------------------------------------


def test_deleted_key_goes_with_its_secrets_and_counters_and_leaves_its_events(
    issued, user, client
):
    other = APIKeyFactory()
    used(issued.key, utc(2026, 7, 1), 3, address="192.0.2.7")
    used(other, NOW, 5, address="192.0.2.7")
    FlushedBatch.objects.all().delete()
    services.delete_key(key=issued.key, actor=user)
    before = client.get("/customers/", headers=bearer(issued.secret)).json()["code"]
    APIKey.objects.filter(pk=issued.key.pk).update(deleted_at=NOW - timedelta(days=91))

    done = pruning.prune(NOW)

    after = client.get("/customers/", headers=bearer(issued.secret))
    # Totals of the key and of its secret, one row of usage, one address.
    assert done == only(keys=1, counters=4)
    assert (before, after.status_code, after.json()["code"]) == ("revoked_key", 401, "invalid_key")
    for model in (APIKeySecret, APIKeySecretTotals, APIKeyTotals, APIKeyUsage, APIKeyAddress):
        assert model.objects.count() == 1
    assert [event.type for event in APIKeyEvent.objects.order_by("id")] == ["created", "deleted"]


@pytest.mark.parametrize(
    ("age", "kept"),
    [
        pytest.param(timedelta(days=90), True, id="90 days"),
        pytest.param(timedelta(days=90, seconds=1), False, id="90 days and a second"),
    ],
)
@pytest.mark.django_db
def test_deleted_key_is_kept_for_90_days(age, kept):
    key = deleted(NOW - age)

    pruning.prune(NOW)

    assert APIKey.objects.filter(pk=key.pk).exists() is kept
    assert APIKeySecret.objects.exists() is kept


@pytest.mark.parametrize("slot", [None, 1], ids=["retired", "its grace is over"])
@pytest.mark.parametrize(
    ("age", "kept"),
    [
        pytest.param(timedelta(days=365), True, id="365 days"),
        pytest.param(timedelta(days=365, seconds=1), False, id="365 days and a second"),
    ],
)
def test_retired_secret_is_known_for_365_days(slot, age, kept, issued, client):
    services.rotate_key(key=issued.key)
    APIKeySecret.objects.filter(slot=1).update(slot=slot, retires_at=NOW - age)

    done = pruning.prune(NOW)

    assert done["secrets"] == (0 if kept else 1)
    code = client.get("/customers/", headers=bearer(issued.secret)).json()["code"]
    assert code == ("retired_secret" if kept else "invalid_key")


def test_secrets_that_live_are_never_pruned(issued):
    services.rotate_key(key=issued.key, starts="first_use")
    long_ago = utc(2010, 1, 1)
    APIKeySecret.objects.update(created_at=long_ago, first_used_at=long_ago)

    assert pruning.prune(NOW)["secrets"] == 0
    assert APIKeySecret.objects.count() == 2


@pytest.mark.django_db
def test_key_that_is_not_deleted_is_kept_however_old_and_dead():
    long_ago = utc(2010, 1, 1)
    for fields in (
        {"revoked_at": long_ago},
        {"expires_at": long_ago},
        {"enabled": False},
        {},
    ):
        APIKeyFactory(created_at=long_ago, **fields)

    done = pruning.prune(NOW)

    assert done == NOTHING
    assert APIKey.objects.count() == 4


@pytest.mark.usefixtures("_two_at_a_time")
@pytest.mark.django_db
def test_keys_that_were_made_through_a_pruned_one_stay():
    gone = [deleted(utc(2026, 1, 1)) for _ in range(5)]
    child = APIKeyFactory(created_by_key=gone[0])

    done = pruning.prune(NOW)

    child.refresh_from_db()
    assert done == only(keys=5)
    assert (APIKey.objects.get(), child.created_by_key) == (child, None)


def protecting(name):
    """Return a receiver that keeps the keys of this name, as a foreign key PROTECTs its row."""

    def refuse(*, instance, **kwargs):
        if instance.name == name:
            raise ProtectedError("An invoice needs it.", {instance})

    return refuse


@pytest.mark.django_db
def test_key_that_the_project_needs_stays_and_holds_up_no_other(caplog):
    needed = deleted(utc(2026, 1, 1), name="needed")
    used(needed, NOW - timedelta(days=1))
    for _ in range(3):
        deleted(utc(2026, 1, 1))
    refuse = protecting("needed")
    pre_delete.connect(refuse, sender=APIKey)

    try:
        done = pruning.prune(NOW)
    finally:
        pre_delete.disconnect(refuse, sender=APIKey)

    assert (done["keys"], done["counters"]) == (3, 0)
    assert APIKey.objects.get() == needed
    assert str(needed.pk) in caplog.text
    assert APIKeyTotals.objects.get().requests == 1


@pytest.mark.usefixtures("_two_at_a_time")
def test_counters_of_keys_that_are_gone_go(key):
    """With their owner, say: their rows were deleted by no command of ours."""
    used(key, NOW, 2, address="192.0.2.7")
    for _ in range(3):
        gone = APIKeyFactory()
        for hour in range(5):
            used(gone, utc(2026, 11, 19, hour), address=f"192.0.2.{hour}")
        gone.owner.delete()
    FlushedBatch.objects.all().delete()

    done = pruning.prune(NOW)

    # Of each the totals, those of its secret, 5 rows of usage, 5 addresses.
    assert done == only(counters=3 * 12)
    for model in (APIKeyTotals, APIKeySecretTotals, APIKeyUsage, APIKeyAddress):
        assert model.objects.count() == 1


# --- What would be done -------------------------------------------------------------------


def test_due_is_what_would_be_done(key):
    used(key, utc(2026, 10, 1, 1), address="192.0.2.7")
    used(key, utc(2026, 10, 1, 2))
    used(key, utc(2020, 1, 1), address="192.0.2.8")
    gone = deleted(utc(2026, 1, 1))
    used(gone, utc(2026, 11, 19), address="192.0.2.7")
    FlushedBatch.objects.all().delete()
    FlushedBatch.objects.create(at=utc(2026, 1, 1))
    expected = only(keys=1, counters=4, usage=1, hours=2, addresses=1, batches=1)

    told = pruning.due(NOW)
    untouched = APIKey.objects.count(), requests()
    done = pruning.prune(NOW)

    assert untouched == (2, 4)
    assert told == done == expected


@pytest.mark.django_db
def test_on_an_empty_database_nothing_is_due_or_done():
    assert pruning.due(NOW) == pruning.prune(NOW) == NOTHING


@pytest.mark.usefixtures("_two_at_a_time")
def test_whoever_watches_is_told_after_each_transaction(key):
    for hour in range(3):
        used(key, utc(2026, 10, 1, hour))
    FlushedBatch.objects.all().update(at=utc(2026, 1, 1))
    told = []

    pruning.prune(NOW, lambda *facts: told.append(facts))

    assert told == [("hours", 2, 3), ("hours", 3, 3), ("batches", 2, 3), ("batches", 3, 3)]


def test_totals_and_units_are_never_pruned(key):
    used(key, utc(2010, 1, 1), 3, month=utc(2010, 1, 1).date(), units=3, quota=10)

    pruning.prune(NOW)

    assert APIKeyTotals.objects.get().requests == 3
    assert OwnerQuota.objects.get().units == 9


# --- Beside others ------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("DELETE", id="before-the-hours-are-deleted"),
        pytest.param("INSERT", id="before-the-day-is-added-to"),
    ],
)
def test_deadlock_is_tried_again_and_nothing_is_lost_or_doubled(statement):
    key = APIKeyFactory()
    used(key, utc(2026, 10, 1, 1), 2)
    used(key, utc(2026, 10, 1, 2), 3)

    with failing(statement, times=2) as failed:
        done = pruning.prune(NOW)

    assert len(failed) == 2
    assert done["hours"] == 2
    assert rows_of(key) == [(utc(2026, 10, 1), 24, "customers/", "GET", "2xx", 5)]


@pytest.mark.django_db(transaction=True)
def test_database_that_does_not_come_back_is_told():
    key = APIKeyFactory()
    used(key, utc(2026, 10, 1, 1), 2)

    with failing("DELETE", times=pruning.TRIES), pytest.raises(OperationalError):
        pruning.prune(NOW)

    assert rows_of(key) == [(utc(2026, 10, 1, 1), 1, "customers/", "GET", "2xx", 2)]


def test_deadlock_within_a_transaction_of_others_is_theirs(key):
    used(key, utc(2026, 10, 1, 1), 2)

    with failing("DELETE", times=1) as failed, pytest.raises(OperationalError):
        pruning.prune(NOW)

    assert len(failed) == 1


@pytest.mark.django_db(transaction=True)
def test_pruning_wants_no_transaction_around_it():
    """Else all its batches would be one."""
    APIKeyFactory()
    used(APIKey.objects.get(), utc(2026, 10, 1, 1))

    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        pruning.prune(NOW)
