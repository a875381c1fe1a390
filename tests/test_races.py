"""A committed revoke always wins: two real connections, on a database that locks rows."""

import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from django.db import connection, connections, transaction

from django_apikeys import services, verification
from django_apikeys.exceptions import Conflict, KeyRefused
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import bearer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql",
        reason=(
            "Two writers at once, and a look at who waits for whom, are PostgreSQL's: "
            "SQLite has one writer, who has no second one to race."
        ),
    ),
]
LONGEST_WAIT = 10


class Other(threading.Thread):
    """Somebody else at work, with a connection of their own."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self._work = work
        self.started, self.result, self.error = threading.Event(), None, None
        self.process_id = None

    def run(self):
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self.process_id = cursor.fetchone()[0]
            self.started.set()
            self.result = self._work()
        except Exception as error:  # noqa: BLE001 - for the test to look at
            self.error = error
        finally:
            connections.close_all()

    def wait_until_it_waits(self):
        """Return once the database keeps it waiting for a lock."""
        assert self.started.wait(LONGEST_WAIT)
        end = time.monotonic() + LONGEST_WAIT
        while time.monotonic() < end:
            with connection.cursor() as cursor:
                cursor.execute("SELECT cardinality(pg_blocking_pids(%s))", [self.process_id])
                if cursor.fetchone()[0]:
                    return
        pytest.fail("The other one did not wait.")

    def run_to_its_end(self):
        self.start()
        return self.finish()

    def finish(self):
        self.join(LONGEST_WAIT)
        assert not self.is_alive()
        return self


@contextmanager
def meanwhile(work, *, waits=True):
    """Let another do *work* while the transaction of this block is open."""
    other = Other(work)
    with transaction.atomic():
        yield other
        if waits:
            other.start()
            other.wait_until_it_waits()
        else:
            other.run_to_its_end()
    other.finish()


def events(key):
    return list(
        APIKeyEvent.objects.filter(key_id=key.pk).order_by("id").values_list("type", "reason")
    )


@pytest.fixture
def key(issued):
    return issued.key


def test_update_that_waits_for_a_revoke_is_a_conflict(key):
    with meanwhile(lambda: services.update_key(key=key, name="new", enabled=True)) as other:
        services.revoke_key(key=key, reason="first")

    row = APIKey.objects.get(pk=key.pk)
    assert isinstance(other.error, Conflict)
    assert row.revoked_at is not None
    assert row.name == "a key"
    assert events(key) == [("created", ""), ("revoked", "first")]


def test_revoke_that_waits_for_an_update_wins(key):
    with meanwhile(lambda: services.revoke_key(key=key, reason="second")) as other:
        services.update_key(key=key, name="new")

    row = APIKey.objects.get(pk=key.pk)
    assert other.error is None
    assert row.revoked_at is not None
    assert row.name == "new"
    assert events(key) == [("created", ""), ("updated", ""), ("revoked", "second")]


def test_update_with_a_row_that_was_read_before_the_revoke_is_a_conflict(key):
    stale = APIKey.objects.get(pk=key.pk)
    Other(lambda: services.revoke_key(key=key)).run_to_its_end()

    with pytest.raises(Conflict):
        services.update_key(key=stale, name="new")

    assert APIKey.objects.get(pk=key.pk).revoked_at is not None


def test_second_of_two_revokes_changes_nothing(key):
    with meanwhile(lambda: services.revoke_key(key=key, reason="second")) as other:
        first = services.revoke_key(key=key, reason="first")

    row = APIKey.objects.get(pk=key.pk)
    assert other.error is None
    assert (row.revoked_at, row.revoked_reason) == (first.revoked_at, "first")
    assert other.result.revoked_reason == "first"
    assert events(key) == [("created", ""), ("revoked", "first")]


def test_ten_revokes_at_once_leave_one_event(key):
    gate = threading.Barrier(10)

    def revoke():
        gate.wait(LONGEST_WAIT)
        services.revoke_key(key=key, reason="leaked")

    others = [Other(revoke) for _ in range(10)]
    for other in others:
        other.start()

    assert [other.finish().error for other in others] == [None] * 10
    assert events(key) == [("created", ""), ("revoked", "leaked")]


def test_revoke_waits_for_no_first_use(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))

    with meanwhile(
        lambda: services.revoke_key(key=issued.key, reason="leaked"), waits=False
    ) as other:
        verification.verify(request)

    assert other.error is None
    assert APIKey.objects.get(pk=issued.key.pk).revoked_at is not None
    assert APIKeySecret.objects.get(key=issued.key).first_used_at is not None
    assert events(issued.key) == [("created", ""), ("revoked", "leaked")]


def test_first_use_under_way_undoes_no_revoke(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))

    with meanwhile(lambda: verification.verify(request), waits=False) as other:
        services.revoke_key(key=issued.key, reason="leaked")

    assert other.error is None
    assert APIKey.objects.get(pk=issued.key.pk).revoked_at is not None
    with pytest.raises(KeyRefused) as refused:
        verification.verify(request)
    assert refused.value.code == "revoked_key"


def test_revoke_holds_from_the_next_request_on(issued, client):
    before = client.get("/customers/", headers=bearer(issued.secret))
    Other(lambda: services.revoke_key(key=issued.key)).run_to_its_end()

    after = client.get("/customers/", headers=bearer(issued.secret))

    assert (before.status_code, after.status_code) == (200, 401)


def test_second_of_two_first_uses_keeps_the_first(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))

    with meanwhile(lambda: verification.verify(request)) as other:
        verification.verify(request)
        first = APIKeySecret.objects.get(key=issued.key).first_used_at

    assert other.error is None
    assert APIKeySecret.objects.get(key=issued.key).first_used_at == first


def test_first_use_of_an_open_transaction_is_waited_for_by_no_other(issued, rf):
    """As under ATOMIC_REQUESTS, where it stays open until the view has answered."""
    request = rf.get("/", headers=bearer(issued.secret))
    moment = datetime(2026, 11, 20, 10, 37, tzinfo=UTC)

    def second():
        with transaction.atomic():
            return verification.verify(request)

    with meanwhile(second, waits=False) as other:
        verification.verify(request, now=moment)

    assert other.error is None
    assert other.result.key_id == issued.key.pk
    assert APIKeySecret.objects.get(key=issued.key).first_used_at == moment


def test_delete_that_waits_for_a_revoke_keeps_its_reason(key):
    with meanwhile(lambda: services.delete_key(key=key, reason="second")) as other:
        services.revoke_key(key=key, reason="first")

    row = APIKey.objects.get(pk=key.pk)
    assert other.error is None
    assert row.deleted_at is not None
    assert row.revoked_reason == "first"
    assert events(key) == [("created", ""), ("revoked", "first"), ("deleted", "second")]


def test_second_of_two_deletes_changes_nothing(key):
    with meanwhile(lambda: services.delete_key(key=key, reason="second")) as other:
        services.delete_key(key=key, reason="first")

    assert other.error is None
    assert events(key) == [("created", ""), ("deleted", "first")]


def test_update_that_waits_for_a_delete_is_a_conflict(key):
    with meanwhile(lambda: services.update_key(key=key, name="new")) as other:
        services.delete_key(key=key)

    assert isinstance(other.error, Conflict)
    assert APIKey.objects.get(pk=key.pk).name == "a key"


def test_update_that_waits_for_an_update_keeps_what_it_does_not_name(key):
    with meanwhile(lambda: services.update_key(key=key, description="second")) as other:
        services.update_key(key=key, name="first")

    row = APIKey.objects.get(pk=key.pk)
    assert other.error is None
    assert (row.name, row.description) == ("first", "second")


def test_cascade_meets_a_revoke_of_an_offspring(issue, key):
    offspring = issue().key
    APIKey.objects.filter(pk=offspring.pk).update(created_by_key=key)

    with meanwhile(lambda: services.revoke_key(key=key, cascade=True, reason="cascade")) as other:
        services.revoke_key(key=offspring, reason="alone")

    assert other.error is None
    assert APIKey.objects.get(pk=key.pk).revoked_at is not None
    assert events(offspring) == [("created", ""), ("revoked", "alone")]


def test_second_of_two_creates_with_the_same_id_is_a_conflict(issue):
    id_ = uuid.uuid4()

    with meanwhile(lambda: issue(id=id_, name="second")) as other:
        issue(id=id_, name="first")

    assert isinstance(other.error, Conflict)
    assert [key.name for key in APIKey.objects.all()] == ["first"]
    assert APIKeyEvent.objects.count() == 1


def test_revoke_waits_for_no_rehash_and_wins(issued, rf, settings):
    """The rehash writes the secret's row alone, and only while the digest is the old one."""
    request = rf.get("/", headers=bearer(issued.secret))
    verification.verify(request)
    settings.APIKEYS_PEPPERS = {"2026": "the new text"}

    with meanwhile(
        lambda: services.revoke_key(key=issued.key, reason="leaked"), waits=False
    ) as other:
        verification.verify(request)

    assert other.error is None
    assert APIKeySecret.objects.get(key=issued.key).digest.startswith("hmac-sha256$2026$")
    with pytest.raises(KeyRefused) as refused:
        verification.verify(request)
    assert refused.value.code == "revoked_key"
