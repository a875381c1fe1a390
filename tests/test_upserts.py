"""Statements that add to rows, on the database that the suite runs on."""

import uuid
from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest
from django.db import connection

from django_apikeys.models import (
    APIKeyAddress,
    APIKeyNotice,
    APIKeyTotals,
    FlushedBatch,
    OwnerQuota,
)
from django_apikeys.upserts import Upsert, insert_once

pytestmark = pytest.mark.django_db

TOTALS = Upsert(
    APIKeyTotals, ("key",), ("requests", "errors"), latest=("last_used_at", "last_used_ip")
)
ADDRESSES = Upsert(
    APIKeyAddress,
    ("key_id", "address"),
    ("requests",),
    latest=("last_seen_at",),
    earliest=("first_seen_at",),
)
QUOTAS = Upsert(OwnerQuota, ("owner_id", "month"), ("units", "requests"))
ONE, TWO = uuid.UUID(int=1), uuid.UUID(int=2)
MAY = date(2026, 5, 1)


def at(hour):
    return datetime(2026, 5, 1, hour, tzinfo=UTC)


def totals():
    return list(APIKeyTotals.objects.order_by("key_id").values_list())


def test_new_row_is_inserted_and_one_that_is_there_is_added_to():
    TOTALS.run(connection, [(ONE, 2, 1, at(1), "192.0.2.1")])

    TOTALS.run(connection, [(TWO, 5, 0, at(2), ""), (ONE, 3, 1, at(2), "192.0.2.2")])

    assert totals() == [(ONE, 5, 2, at(2), "192.0.2.2"), (TWO, 5, 0, at(2), "")]


@pytest.mark.parametrize(
    ("stored", "added", "kept"),
    [
        pytest.param(at(2), at(1), (at(2), "192.0.2.1"), id="earlier-than-the-row"),
        pytest.param(at(2), at(2), (at(2), "192.0.2.2"), id="the-same-moment"),
        pytest.param(at(2), at(3), (at(3), "192.0.2.2"), id="later"),
        pytest.param(None, at(1), (at(1), "192.0.2.2"), id="a-row-that-has-none"),
    ],
)
def test_last_use_only_moves_forward_and_takes_its_address_along(stored, added, kept):
    APIKeyTotals.objects.create(
        key_id=ONE, requests=1, last_used_at=stored, last_used_ip="192.0.2.1"
    )

    TOTALS.run(connection, [(ONE, 1, 0, added, "192.0.2.2")])

    assert totals() == [(ONE, 2, 0, *kept)]


@pytest.mark.parametrize(("added", "kept"), [(at(1), at(1)), (at(2), at(2)), (at(3), at(2))])
def test_first_use_only_moves_back(added, kept):
    ADDRESSES.run(connection, [(ONE, "192.0.2.1", 1, at(2), at(2))])

    ADDRESSES.run(connection, [(ONE, "192.0.2.1", 1, at(9), added)])

    assert APIKeyAddress.objects.values_list("first_seen_at", "last_seen_at").get() == (
        kept,
        at(9),
    )


@pytest.mark.parametrize("returning", [True, False], ids=["by-the-insert", "by-a-select"])
def test_told_is_what_the_rows_are_now(returning, monkeypatch):
    """MySQL has no RETURNING and is asked; a UUID, a text and a date come as Python has them."""
    if not returning:
        monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
    OwnerQuota.objects.create(owner_id="7", month=MAY, units=10, requests=4)
    OwnerQuota.objects.create(owner_id="7", month=date(2026, 4, 1), units=99)
    TOTALS.run(connection, [(ONE, 1, 0, at(1), "")])

    quotas = QUOTAS.run(connection, [("8", MAY, 1, 2), ("7", MAY, 5, 3)], told=True)
    totals = TOTALS.run(connection, [(ONE, 2, 1, at(1), "")], told=True)

    assert sorted(quotas) == [("7", MAY, 15, 7), ("8", MAY, 1, 2)]
    assert totals == [(ONE, 3, 1)]


def test_nothing_is_written_and_told_of_no_rows(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert QUOTAS.run(connection, [], told=True) == []


def test_a_thousand_rows_are_one_statement(django_assert_num_queries):
    rows = [(str(number), MAY, 1, 1) for number in range(2001)]

    with django_assert_num_queries(3):
        assert QUOTAS.run(connection, rows) == []

    assert OwnerQuota.objects.count() == 2001


def test_rows_are_written_in_one_order(django_assert_num_queries):
    """Whatever the order they come in: else two flushes would wait for each other."""
    rows = [(str(number), MAY, number, 1) for number in (3, 1, 2)]

    with django_assert_num_queries(1) as captured:
        QUOTAS.run(connection, rows)

    (sql,) = (query["sql"] for query in captured.captured_queries)
    assert sql.index("'1'") < sql.index("'2'") < sql.index("'3'")


def test_statement_of_mysql_sets_the_moment_last():
    """It reads what it has set already, and would else compare the new moment with itself."""
    mysql = SimpleNamespace(
        vendor="mysql", ops=SimpleNamespace(quote_name=lambda name: f"`{name}`")
    )
    table = "`django_apikeys_apikeytotals`"
    later = f"{table}.`last_used_at` IS NULL OR {table}.`last_used_at` <= VALUES(`last_used_at`)"

    assert TOTALS.statement(mysql, 2) == (
        f"INSERT INTO {table} (`key_id`, `requests`, `errors`, `last_used_at`, `last_used_ip`) "  # noqa: S608 - it is only read
        "VALUES (%s, %s, %s, %s, %s), (%s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE "
        f"`requests` = {table}.`requests` + VALUES(`requests`), "
        f"`errors` = {table}.`errors` + VALUES(`errors`), "
        f"`last_used_ip` = CASE WHEN {later} THEN VALUES(`last_used_ip`) "
        f"ELSE {table}.`last_used_ip` END, "
        f"`last_used_at` = CASE WHEN {later} THEN VALUES(`last_used_at`) "
        f"ELSE {table}.`last_used_at` END"
    )


def test_row_is_inserted_once():
    """The second time is no error, which would break a transaction."""
    row = FlushedBatch(pk=ONE, at=at(1))

    assert insert_once(connection, row) is True
    assert insert_once(connection, FlushedBatch(pk=ONE, at=at(2))) is False

    assert FlushedBatch.objects.values_list("pk", "at").get() == (ONE, at(1))


def test_row_that_the_database_numbers_is_inserted_once(issued):
    """By its unique values."""

    def row(claimed_at):
        names = {"key": issued.key, "kind": "expired", "about": "2026-05-01T00:00:00Z"}
        return APIKeyNotice(**names, claimed_at=claimed_at)

    assert insert_once(connection, row(at(1))) is True
    assert insert_once(connection, row(at(2))) is False

    assert APIKeyNotice.objects.values_list("claimed_at").get() == (at(1),)
