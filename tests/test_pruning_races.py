"""Pruning beside flushes: nothing is lost, nothing is counted twice."""

import threading
from datetime import timedelta

import pytest
from django.db import connection, connections

from django_apikeys import batches, flushing, pruning
from django_apikeys.models import APIKeyAddress, APIKeySecretTotals, APIKeyTotals, APIKeyUsage
from tests.factories import APIKeyFactory
from tests.test_pruning import requests
from tests.traffic import utc

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="In memory it has one connection: nobody is beside it.",
    ),
]
NOW = utc(2026, 11, 20, 10, 37)
LONGEST_WAIT = 60


class Other(threading.Thread):
    """Somebody else at work, *times*, with a connection of their own."""

    def __init__(self, times, work):
        super().__init__(daemon=True)
        self._times, self._work, self.error = times, work, None
        self.start()

    def run(self):
        try:
            for number in range(self._times):
                self._work(number)
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error
        finally:
            connections.close_all()

    def wait(self):
        """Return once it is done; raise what it failed with."""
        self.join(LONGEST_WAIT)
        assert not self.is_alive()
        if self.error:
            raise self.error


def flush(keys, moments):
    batch = batches.Batch()
    for key_id, secret_id in keys:
        for at in moments:
            hit = batches.Hit(key_id, secret_id, "", at, "customers/", "GET", "2xx", "192.0.2.7")
            batch.add(hit)
    flushing.apply(batch)


def names(*keys):
    return [(key.pk, key.current_secret.pk) for key in keys]


def test_hours_that_are_flushed_while_they_are_rolled_up(monkeypatch):
    """Two flush the very same hours, and two roll them up."""
    monkeypatch.setattr(pruning, "MOST_ROWS", 3)
    keys = names(APIKeyFactory(), APIKeyFactory(), APIKeyFactory())

    def add(number):
        flush(keys, [utc(2026, 10, 1 + number % 2, hour) for hour in range(4)])

    others = [Other(25, work) for work in (add, add, lambda number: pruning.prune(NOW))]
    for _ in range(25):
        pruning.prune(NOW)
    for other in others:
        other.wait()
    pruning.prune(NOW)

    assert requests() == 2 * 25 * 3 * 4
    assert APIKeyUsage.objects.filter(hours=24).count() == 2 * 3
    assert not APIKeyUsage.objects.filter(hours=1).exists()


def test_counters_of_a_key_that_is_gone_while_they_are_flushed():
    """Its totals are there wherever its other counters are: a run finds them by these."""
    gone = APIKeyFactory()
    keys = names(gone)
    gone.owner.delete()

    other = Other(40, lambda number: flush(keys, [NOW - timedelta(hours=number)]))
    while other.is_alive():
        pruning.prune(NOW)
    other.wait()
    pruning.prune(NOW)

    for model in (APIKeyTotals, APIKeySecretTotals, APIKeyUsage, APIKeyAddress):
        assert not model.objects.exists()
