"""Flushers that die: rounds of processes that apply the same batches at once, and are killed.

Run by tests/test_flush_races.py for a few rounds, and by benchmarks/flushes.py for many. It
works on the database that the settings name (--database: another one of that server), whose
tables exist and are empty.

In each round several batches over the same keys are applied, each by two processes at once,
as when one is taken for dead, and is not. A process may be killed by SIGKILL before or after
any of its statements, before COMMIT, or behind it; its answer to COMMIT may be cut off; and
another one locks the same rows in the opposite order, so that there are deadlocks. A process
that died is followed by another one with the same batch. What is stored at the end must be
what the batches held.
"""

import argparse
import os
import random
import signal
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

KEYS = [uuid.UUID(int=number) for number in range(1, 13)]
BATCHES = 3
START = datetime(2026, 5, 1, tzinfo=UTC)
# What happens to a process: each of them so often, of a hundred.
FATES = {"killed-at-a-statement": 30, "killed-at-commit": 15, "killed-behind-commit": 15}
CUT_OFF = 20
REVERSED = 3  # one of so many rounds has somebody who locks in the opposite order


def batch_of(rng):
    """Return a batch over the keys, and what it holds, in the words of ``stored``."""
    from django_apikeys.batches import Batch, Hit

    batch, held = Batch(), Counter()
    for _ in range(40):
        key, units = rng.choice(KEYS), rng.randint(1, 5)
        hit = Hit(
            key,
            key.int,
            str(key.int % 3),
            START + timedelta(minutes=rng.randrange(300)),
            rng.choice(("customers/", "jobs/")),
            rng.choice(("GET", "POST")),
            rng.choice(("2xx", "4xx", "limited")),
            f"192.0.2.{rng.randrange(5)}",
            date(2026, 5, 1),
            units,
            10**12,
        )
        batch.add(hit)
        held["key", str(key)] += 1
        held["secret", key.int] += 1
        held["address", str(key), hit.address] += 1
        held["quota", hit.owner_id] += units
        held["month", hit.owner_id] += hit.outcome != "limited"
        hour = hit.at.replace(minute=0)
        held["usage", str(key), hour, hit.route, hit.method, hit.outcome] += 1
        held["errors", str(key)] += hit.outcome != "2xx"
    return batch, held


def stored():
    """Return what the tables hold."""
    from django_apikeys import models

    rows = Counter()
    for key, requests, errors in models.APIKeyTotals.objects.values_list(
        "key_id", "requests", "errors"
    ):
        rows["key", str(key)], rows["errors", str(key)] = requests, errors
    for secret, requests in models.APIKeySecretTotals.objects.values_list("secret_id", "requests"):
        rows["secret", secret] = requests
    for key, address, requests in models.APIKeyAddress.objects.values_list(
        "key_id", "address", "requests"
    ):
        rows["address", str(key), address] = requests
    for owner, units, requests in models.OwnerQuota.objects.values_list(
        "owner_id", "units", "requests"
    ):
        rows["quota", owner], rows["month", owner] = units, requests
    for key, *row, requests in models.APIKeyUsage.objects.values_list(
        "key_id", "starts_at", "route", "method", "outcome", "requests"
    ):
        rows["usage", str(key), *row] = requests
    return +rows


def flusher(batch, fate, cut_off, rng):
    """Apply *batch* in this process, which *fate* may end."""
    from django.db import OperationalError, connection

    from django_apikeys import flushing

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    fatal = rng.randint(0, 14) if fate == "killed-at-a-statement" else -1
    seen = [0]

    def step(execute, *args):
        if seen[0] == fatal:
            die()
        seen[0] += 1
        found = execute(*args)
        if seen[0] == fatal:
            die()
        seen[0] += 1
        return found

    commit, cuts = connection._commit, [cut_off]

    def commit_or_not():
        if fate == "killed-at-commit":
            die()
        commit()
        if fate == "killed-behind-commit":
            die()
        if cuts[0]:
            cuts[0] -= 1
            raise OperationalError("The answer to COMMIT was lost.")

    connection._commit = commit_or_not
    with connection.execute_wrapper(step):
        while True:
            with suppress(OperationalError):
                flushing.apply(batch)
                return


def locker():
    """Lock the keys' rows in the opposite order, one after the other."""
    from django.db import OperationalError, transaction

    from django_apikeys.models import APIKeyTotals

    with suppress(OperationalError), transaction.atomic():
        for key in reversed(KEYS):
            list(APIKeyTotals.objects.select_for_update().filter(key_id=key).values_list("key_id"))
            time.sleep(0.002)


def forked(work, *args):
    """Return the id of a process that does *work*: 0, 1 if it raised, or killed."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        work(*args)
        status = 0
    except BaseException:  # noqa: BLE001 - for the parent to count
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)


def one_round(rng, seen):
    """Apply batches as the module says; return what they held."""
    batches, total = {}, Counter()
    for _ in range(BATCHES):
        batch, held = batch_of(rng)
        batches[batch.id] = batch
        total += held
    running = {forked(locker): None} if seen["rounds"] % REVERSED == 0 else {}

    def start(batch, *, doomed):
        fates = list(FATES) if doomed else []
        fate = next((f for f in fates if rng.randrange(100) < FATES[f]), None)
        cut_off = int(rng.randrange(100) < CUT_OFF)
        seen["answers to COMMIT cut off"] += cut_off
        seed = random.Random(rng.random())  # noqa: S311 - a test
        running[forked(flusher, batch, fate, cut_off, seed)] = batch

    for batch in batches.values():
        start(batch, doomed=True)
        start(batch, doomed=True)
    while running:
        process, status = os.wait()
        batch = running.pop(process)
        seen["flushers"] += batch is not None
        if os.WIFSIGNALED(status):
            seen["killed"] += 1
            start(batch, doomed=rng.random() < 0.5)
        elif status:
            seen["failed"] += 1
    seen["rounds"] += 1
    return total


def deadlock_soon():
    """Let PostgreSQL look for a deadlock at once: it waits for a second otherwise."""
    from django.db import ProgrammingError, connection

    if connection.vendor == "postgresql":
        name = connection.ops.quote_name(connection.settings_dict["NAME"])
        with suppress(ProgrammingError), connection.cursor() as cursor:  # for superusers alone
            cursor.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")


def deadlocks():
    """Return how many the server has counted so far."""
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
            )
            return cursor.fetchone()[0]
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        return int(cursor.fetchone()[1])


def main():
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import django
    from django.conf import settings

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--database", default=settings.DATABASES["default"]["NAME"])
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    settings.DATABASES["default"]["NAME"] = options.database
    django.setup()
    from django.db import connections

    rng, seen, expected = random.Random(options.seed), Counter(), Counter()  # noqa: S311 - a test
    deadlock_soon()
    at_first = deadlocks()
    expected += stored()
    connections.close_all()  # a child must not have the parent's
    for _ in range(options.rounds):
        expected += one_round(rng, seen)
    found = stored()
    lost, doubled = expected - found, found - expected
    seen["deadlocks"] = deadlocks() - at_first
    for name, count in seen.items():
        print(f"{name}: {count}")
    print(f"requests: {sum(n for (table, *_), n in expected.items() if table == 'key')}")
    print(f"counters: {len(expected)}, lost: {lost.total()}, doubled: {doubled.total()}")
    print(f"seed: {options.seed}")
    return bool(lost or doubled or seen["failed"])


if __name__ == "__main__":
    sys.exit(main())
