"""Flushes at once, flushers that die, COMMITs without an answer: nothing lost, nothing doubled.

On the databases that have many writers: SQLite has one, and lets the others wait.
"""

import os
import re
import subprocess
import sys
import threading
import time
import uuid
from datetime import UTC, date, datetime

import pytest
from django.db import OperationalError, connection, connections, transaction

from django_apikeys import flushing, services, signals
from django_apikeys.batches import Batch, Hit
from django_apikeys.models import APIKey, APIKeyTotals, OwnerQuota
from django_apikeys.usage import MemoryRecorder
from tests.example_project.children import ROOT

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="Two writers at once are PostgreSQL's and MariaDB's: SQLite has one.",
    ),
]
LONGEST_WAIT = 30
ROUNDS = 30
AT = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)


def hit(key_id, **fields):
    return Hit(key_id, 1, "7", AT, "customers/", "GET", "2xx", "192.0.2.1", **fields)


class Worker(threading.Thread):
    """Somebody else, with a connection of their own."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self._work, self.error = work, None
        self.start()

    def run(self):
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error
        finally:
            connections.close_all()

    def finish(self):
        self.join(LONGEST_WAIT)
        assert not self.is_alive()
        if self.error:
            raise self.error


def held_before_its_end(batch, reached, go_on):
    """Apply *batch*, and wait with all rows written but the last table's."""

    def hold(execute, sql, *args):
        if "ownerquota" in sql:
            reached.set()
            assert go_on.wait(LONGEST_WAIT)
        return execute(sql, *args)

    with connection.execute_wrapper(hold):
        flushing.apply(batch)


def test_processes_that_die_in_rounds_lose_and_double_nothing():
    """The rounds are those of benchmarks/flushes.py, which runs a thousand."""
    arguments = ("--rounds", str(ROUNDS), "--database", connection.settings_dict["NAME"])
    connections.close_all()

    done = subprocess.run(  # noqa: S603 - this very project
        [sys.executable, "-m", "tests.flush_rounds", *arguments],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"rounds: {ROUNDS}\n" in done.stdout
    assert int(re.search(r"^killed: (\d+)", done.stdout, re.MULTILINE)[1]) > ROUNDS
    assert "lost: 0, doubled: 0" in done.stdout


def test_recorders_that_count_and_flush_at_once_store_each_hit():
    """Four of them in eight threads, as in four processes of two."""
    keys = [uuid.UUID(int=number) for number in range(1, 6)]
    recorders = [MemoryRecorder() for _ in range(4)]

    def work(recorder):
        for number in range(100):
            recorder.count(hit(keys[number % 5], month=date(2026, 5, 1), units=2))
            if number % 10 == 0:
                recorder.flush()
        recorder.flush()

    for worker in [Worker(lambda r=recorder: work(r)) for recorder in recorders * 2]:
        worker.finish()

    totals = APIKeyTotals.objects.order_by("key_id").values_list("requests", flat=True)
    assert list(totals) == [160] * 5
    assert OwnerQuota.objects.values_list("units", "requests").get() == (1600, 800)


def test_flushers_of_many_owners_without_a_quota_store_each_hit():
    """Their rows are locked in one order, whatever the order they were counted in."""
    owners = ["", *map(str, range(1, 20))]

    def work(number, order):
        for _ in range(10):
            batch = Batch()
            for owner_id in order:
                key_id = uuid.UUID(int=number)  # of a flusher alone: no key's row orders them
                batch.add(Hit(key_id, number, owner_id, AT, "customers/", "GET", "2xx"))
            flushing.apply(batch)

    orders = (owners, owners[::-1], owners[10:] + owners[:10])
    workers = [
        Worker(lambda n=n, order=order: work(n, order)) for n, order in enumerate(orders, 1)
    ]
    for worker in workers:
        worker.finish()

    stored = OwnerQuota.objects.values_list("owner_id", "month", "units", "requests")
    assert sorted(stored) == [(name, date(2026, 5, 1), 0, 30) for name in sorted(owners)]


def test_two_flushes_of_one_batch_are_one():
    """The second waits until the first has committed, and finds it done."""
    batch = Batch()
    batch.add(hit(uuid.UUID(int=1), month=date(2026, 5, 1), units=2))
    reached, go_on = threading.Event(), threading.Event()
    first = Worker(lambda: held_before_its_end(batch, reached, go_on))
    assert reached.wait(LONGEST_WAIT)
    second = Worker(lambda: flushing.apply(batch))

    assert second.is_alive()
    go_on.set()
    first.finish()
    second.finish()

    assert APIKeyTotals.objects.values_list("requests", flat=True).get() == 1


def test_new_address_is_told_of_once_when_two_flushes_bring_the_first_two(issued):
    """They wait for each other at the key's row, so that one of them is the second."""
    told = []

    def receiver(address, **kwargs):
        told.append(address)

    def flush(address):
        batch = Batch()
        batch.add(Hit(issued.key.pk, 1, "7", AT, "customers/", "GET", "2xx", address))
        flushing.apply(batch)

    signals.key_used_from_new_address.connect(receiver)
    try:
        workers = [Worker(lambda a=address: flush(a)) for address in ("192.0.2.1", "192.0.2.2")]
        for worker in workers:
            worker.finish()
    finally:
        signals.key_used_from_new_address.disconnect(receiver)

    assert len(told) == 1


def test_revoke_waits_for_no_flush(issued):
    """A flush writes to rows of its own: while it is open, the key is revoked."""
    batch = Batch()
    batch.add(hit(issued.key.pk, month=date(2026, 5, 1), units=2))
    reached, go_on = threading.Event(), threading.Event()
    flush = Worker(lambda: held_before_its_end(batch, reached, go_on))
    assert reached.wait(LONGEST_WAIT)

    started = time.monotonic()
    services.revoke_key(key=issued.key)
    seconds = time.monotonic() - started
    waits_still = flush.is_alive()
    go_on.set()
    flush.finish()

    assert waits_still
    assert seconds < 1
    assert APIKey.objects.get(pk=issued.key.pk).revoked_at is not None
    assert APIKeyTotals.objects.values_list("requests", flat=True).get() == 1


def test_flush_waits_for_no_revoke(issued):
    """Nor the other way round: a long transaction that holds the key holds up no counter."""
    batch = Batch()
    batch.add(hit(issued.key.pk))

    with transaction.atomic():
        services.revoke_key(key=issued.key)
        Worker(lambda: flushing.apply(batch)).finish()

    assert APIKeyTotals.objects.values_list("requests", flat=True).get() == 1


def test_connection_that_is_cut_in_the_middle_is_made_anew(issued):
    """As by a restart of the database: the batch is applied by the next try, once."""
    batch = Batch()
    batch.add(hit(issued.key.pk, month=date(2026, 5, 1), units=2))
    cuts = [1]

    def cut(execute, sql, *args):
        if "ownerquota" in sql and cuts:
            cuts.pop()
            connection.connection.close()
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *args)

    with connection.execute_wrapper(cut):
        flushing.apply(batch)

    assert cuts == []
    assert APIKeyTotals.objects.values_list("requests", flat=True).get() == 1
