"""A committed revoke always wins, and nobody gets more by asking twice at once.

Several real connections, on the databases that lock rows.
"""

import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import pytest
from django.core.signals import request_finished
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from django_apikeys import pruning, services, verification
from django_apikeys.authority import Authority, KeyAuthority
from django_apikeys.exceptions import BeyondCeiling, Conflict, KeyRefused
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import FERNET_KEY, OTHER_FERNET_KEY, bearer

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="SQLite has one writer, who has no second one to race.",
    ),
]
LONGEST_WAIT = 10
# In seconds. MariaDB shows what it showed last to whoever looks again within a tenth.
BETWEEN_LOOKS = 0.15
# By vendor: what a connection is called, and whether that one waits for a lock.
WHO = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}
WAITS = {
    "postgresql": "SELECT cardinality(pg_blocking_pids(%s))",
    "mysql": (
        "SELECT COUNT(*) FROM information_schema.innodb_trx "
        "WHERE trx_mysql_thread_id = %s AND trx_state = 'LOCK WAIT'"
    ),
}


REACH = {
    "scopes": ["customers:read", "jobs:*", "apikeys:read", "apikeys:write"],
    "allowed_ips": ["127.0.0.0/8", "192.0.2.0/24"],
}
WITHIN = {"scopes": ["jobs:read"], "allowed_ips": ["192.0.2.0/24"]}
LOW, HIGH = uuid.UUID(int=1), uuid.UUID("ffffffff-ffff-4fff-bfff-ffffffffffff")


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
                cursor.execute(WHO[connection.vendor])
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
            if self.waits():
                return
            time.sleep(BETWEEN_LOOKS)
        pytest.fail("The other one did not wait.")

    def waits(self):
        with connection.cursor() as cursor:
            cursor.execute(WAITS[connection.vendor], [self.process_id])
            return bool(cursor.fetchone()[0])

    def wait_until_it_waits_or_ends(self):
        """Return once it waits for a lock, or has done its work; whichever it is."""
        end = time.monotonic() + LONGEST_WAIT
        while self.is_alive() and not self.waits() and time.monotonic() < end:
            time.sleep(BETWEEN_LOOKS)

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


def at_once(*works):
    """Let each of *works* be done by another, all of them at the same time."""
    gate = threading.Barrier(len(works))

    def at_the_gate(work):
        gate.wait(LONGEST_WAIT)
        return work()

    others = [Other(partial(at_the_gate, work)) for work in works]
    for other in others:
        other.start()
    return [other.finish() for other in others]


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
    others = at_once(*[lambda: services.revoke_key(key=key, reason="leaked")] * 10)

    assert [other.error for other in others] == [None] * 10
    assert events(key) == [("created", ""), ("revoked", "leaked")]


def test_revoke_waits_for_no_first_use(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))

    with meanwhile(
        lambda: services.revoke_key(key=issued.key, reason="leaked"), waits=False
    ) as other:
        verification.verify(request)
    request_finished.send(sender=None)

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
        services.mark_first_use(issued.key.current_secret.pk, timezone.now())
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
    assert APIKeySecret.objects.get(key=issued.key).first_used_at is None
    request_finished.send(sender=None)
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
    request_finished.send(sender=None)

    assert other.error is None
    assert APIKeySecret.objects.get(key=issued.key).digest.startswith("hmac-sha256$2026$")
    with pytest.raises(KeyRefused) as refused:
        verification.verify(request)
    assert refused.value.code == "revoked_key"


def test_of_200_requests_too_many_in_8_threads_exactly_the_limit_passes(issue, settings):
    settings.ROOT_URLCONF = "tests.drf.test_throttling"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "races",
        }
    }
    headers = bearer(issue(rate_limit="200/d").secret)

    def work():
        client = APIClient()
        return [client.get("/limited/", headers=headers).status_code for _ in range(50)]

    others = [Other(work) for _ in range(8)]
    for other in others:
        other.start()
    answers = [status for other in others for status in other.finish().result]

    assert (answers.count(200), answers.count(429)) == (200, 200)


# --- How many -----------------------------------------------------------------------------


@pytest.mark.parametrize("creators", ["a person", "a key", "two keys and a person"])
def test_fifty_creations_at_once_make_as_many_keys_as_there_may_be(
    creators, user, issue, granted, settings
):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 10
    makers = {
        "a person": lambda: [{"actor": user, "authority": Authority(user)}],
        "a key": lambda: [through(granted(issue(**REACH)))],
        "two keys and a person": lambda: [
            through(granted(issue(**REACH))),
            through(granted(issue(**REACH))),
            {"actor": user, "authority": Authority(user)},
        ],
    }[creators]()
    before = APIKey.objects.count()

    others = at_once(
        *[
            partial(services.create_key, owner=user, name="x", **WITHIN, **makers[n % len(makers)])
            for n in range(50)
        ]
    )

    refused = [str(other.error) for other in others if other.error is not None]
    assert refused == [
        "There are 10 API keys of this owner, as many as there may be: revoke one."
    ] * (40 + before)
    assert APIKey.objects.count() == APIKeySecret.objects.count() == 10
    assert APIKeyEvent.objects.filter(type="created").count() == 10


def test_two_forms_at_the_cap_that_are_sent_twice_make_a_key_each(user, settings):
    """Four requests with two ids: whichever loses is told that it was made, or that it is full."""
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 2
    ids = [uuid.UUID(int=1), uuid.UUID(int=2)]

    others = at_once(
        *[partial(services.create_key, owner=user, name="x", id=id_) for id_ in ids * 2]
    )

    refused = [other.error for other in others if other.error is not None]
    assert sorted(map(str, refused)) == ["This key was created already."] * 2
    assert {key.pk for key in APIKey.objects.all()} == set(ids)


# --- Keys that manage keys ----------------------------------------------------------------


def through(grant):
    """That it is done through the key of *grant*; an authority is of one request."""
    return {"actor": grant, "authority": KeyAuthority(grant)}


@pytest.fixture
def granted(rf):
    """Return the Grant of a secret."""

    def granted(issued):
        return verification.verify(rf.get("/", headers=bearer(issued.secret)))

    return granted


@pytest.fixture
def parent(issue):
    """A key that manages keys."""
    return issue(name="parent", **REACH)


@pytest.fixture
def grant(parent, granted):
    return granted(parent)


def make_child(user, grant, **fields):
    return services.create_key(owner=user, name="child", **{**WITHIN, **fields}, **through(grant))


def live_children():
    return list(APIKey.objects.filter(name="child", revoked_at=None))


def test_cascade_that_waits_for_a_creation_through_the_key_revokes_the_child(user, parent, grant):
    with meanwhile(lambda: services.revoke_key(key=parent.key, cascade=True)) as other:
        child = make_child(user, grant).key

    assert other.error is None
    assert live_children() == []
    assert events(child) == [("created", ""), ("revoked", "")]


def test_creation_that_waits_for_a_cascade_of_its_key_is_refused(user, parent, grant):
    with meanwhile(lambda: make_child(user, grant)) as other:
        services.revoke_key(key=parent.key, cascade=True)

    assert isinstance(other.error, KeyRefused)
    assert other.error.code == "revoked_key"
    assert [key.name for key in APIKey.objects.all()] == ["parent"]


def test_cascade_that_waits_for_a_creation_further_down_revokes_the_grandchild(
    user, issue, parent, granted
):
    middle = issue(name="middle", **REACH)
    APIKey.objects.filter(pk=middle.key.pk).update(created_by_key=parent.key)
    by_middle = granted(middle)

    with meanwhile(lambda: services.revoke_key(key=parent.key, cascade=True)) as other:
        make_child(user, by_middle)

    assert other.error is None
    assert APIKey.objects.filter(revoked_at=None).count() == 0


@pytest.mark.parametrize("round_", range(5))
def test_no_child_outlives_a_cascade_of_its_parent(round_, user, parent, grant):
    creations = [lambda: make_child(user, grant)] * 8
    cascade = partial(services.revoke_key, key=parent.key, cascade=True)

    *makers, revoker = at_once(*creations, cascade)

    assert revoker.error is None
    assert {type(maker.error) for maker in makers} <= {type(None), KeyRefused}
    assert live_children() == []
    made = sum(maker.error is None for maker in makers)
    assert APIKeyEvent.objects.filter(type="revoked").count() == made + 1


def test_two_keys_that_manage_each_other_do_not_deadlock(issue):
    """Twenty rounds over HTTP: each locks both rows, in one order."""
    keys = [issue(name="one", **REACH), issue(name="two", **REACH)]

    def rename(own, target, number):
        client = APIClient()
        return client.patch(
            f"/api/keys/{target.key.pk}/", {"name": f"{number}"}, headers=bearer(own.secret)
        ).status_code

    for number in range(20):
        others = at_once(partial(rename, *keys, number), partial(rename, *keys[::-1], number))

        assert [(other.error, other.result) for other in others] == [(None, 200)] * 2
    assert APIKeyEvent.objects.filter(type="updated").count() == 40


def test_two_keys_that_revoke_each_other_leave_one_alive(issue, granted):
    one, two = issue(name="one", **REACH), issue(name="two", **REACH)
    of_one, of_two = granted(one), granted(two)

    others = at_once(
        lambda: services.revoke_key(key=two.key, **through(of_one)),
        lambda: services.revoke_key(key=one.key, **through(of_two)),
    )

    errors = [other.error for other in others if other.error is not None]
    assert [error.code for error in errors] == ["revoked_key"]
    assert APIKey.objects.filter(revoked_at=None).count() == 1


@pytest.mark.parametrize(
    ("parent_id", "child_id"), [(LOW, HIGH), (HIGH, LOW)], ids=["parent-first", "child-first"]
)
def test_cascade_does_not_deadlock_with_a_child_that_manages_its_parent(
    parent_id, child_id, issue, granted
):
    """The child holds its own row and waits for the parent's, whose cascade comes for it."""
    parent = issue(id=parent_id, name="parent", **REACH)
    child = issue(id=child_id, name="the child", **REACH)
    APIKey.objects.filter(pk=child_id).update(created_by_key=parent_id)
    of_child = granted(child)
    other = Other(lambda: services.update_key(key=parent.key, name="new", **through(of_child)))

    def start_the_other(execute, sql, params, many, context):
        # Once the parent is locked, and before its offspring is.
        if "created_by_key_id" in sql.partition(" WHERE ")[2] and other.process_id is None:
            other.start()
            other.wait_until_it_waits_or_ends()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(start_the_other):
        services.revoke_key(key=parent.key, cascade=True)

    assert other.finish().error is None or isinstance(other.error, (Conflict, KeyRefused))
    assert APIKey.objects.filter(revoked_at=None).count() == 0


def test_creation_that_waits_for_its_key_to_be_narrowed_is_within_the_narrower(
    user, parent, grant
):
    with meanwhile(lambda: make_child(user, grant)) as other:
        services.update_key(key=parent.key, actor=user, scopes=["customers:read", "apikeys:write"])

    assert isinstance(other.error, BeyondCeiling)
    assert other.error.beyond == {"scopes": ["jobs:read"]}
    assert live_children() == []


def test_key_that_waits_to_be_narrowed_has_made_its_child_before(user, parent, grant):
    def narrow():
        return services.update_key(key=parent.key, actor=user, scopes=["apikeys:write"])

    with meanwhile(narrow) as other:
        child = make_child(user, grant).key

    assert other.error is None
    assert live_children() == [child]
    assert child.created_at < other.result.updated_at


@pytest.mark.parametrize("lost", ["enabled", "scope", "secret"])
def test_change_that_waits_for_its_key_to_lose_the_right_is_refused(
    lost, user, issue, parent, grant
):
    target = issue(name="target", **WITHIN).key

    def take_it():
        if lost == "enabled":
            services.update_key(key=parent.key, enabled=False)
        elif lost == "scope":
            services.update_key(key=parent.key, scopes=["jobs:*"])
        else:
            APIKey.objects.select_for_update().get(pk=parent.key.pk)
            parent.key.secrets.update(slot=None)

    with meanwhile(lambda: services.update_key(key=target, name="new", **through(grant))) as other:
        take_it()

    assert (
        other.error.code
        == {
            "enabled": "disabled_key",
            "scope": "permission_denied",
            "secret": "retired_secret",
        }[lost]
    )
    assert APIKey.objects.get(pk=target.pk).name == "target"


CHANGES = [
    pytest.param(
        {"allowed_ips": ["192.0.2.7"]}, {"scopes": ["customers:read"]}, id="narrow-first"
    ),
    pytest.param({"scopes": ["customers:read"]}, {"allowed_ips": ["192.0.2.7"]}, id="add-first"),
]


@pytest.mark.parametrize(("first", "second"), CHANGES)
def test_two_changes_of_one_key_at_once_end_within(first, second, issue, grant):
    """One narrows the networks, one gives another scope: neither undoes the other."""
    target = issue(name="target", **WITHIN).key

    with meanwhile(lambda: services.update_key(key=target, **second, **through(grant))) as other:
        services.update_key(key=target, **first, **through(grant))

    row = APIKey.objects.get(pk=target.pk)
    assert other.error is None
    assert (row.scopes, row.allowed_ips) == (["customers:read"], ["192.0.2.7"])


def test_change_that_waits_for_another_that_goes_beyond_is_refused(user, issue, grant):
    """The key asks of the row as it is by then, not as it was when it was read."""
    target = issue(name="target", **WITHIN).key

    with meanwhile(lambda: services.update_key(key=target, name="new", **through(grant))) as other:
        services.update_key(key=target, actor=user, scopes=["customers:write"])

    assert isinstance(other.error, BeyondCeiling)
    assert APIKey.objects.get(pk=target.pk).name == "target"


# --- Secrets that are kept ----------------------------------------------------------------


def kept():
    return [bool(text) for text in APIKeySecret.objects.values_list("encrypted", flat=True)]


@pytest.mark.usefixtures("retrievable")
def test_revoke_of_a_kept_secret_waits_for_nobody_and_prune_forgets_the_rest(issued):
    secret_id = issued.key.current_secret.pk

    with meanwhile(lambda: services.revoke_key(key=issued.key), waits=False) as other:
        services.mark_first_use(secret_id, timezone.now())

    assert other.error is None
    assert kept() == [True]
    pruning.prune(timezone.now())
    assert kept() == [False]


@pytest.mark.usefixtures("retrievable")
def test_reveal_waits_for_a_revoke_and_shows_nothing(issued):
    with meanwhile(lambda: services.reveal_secret(key=issued.key)) as other:
        services.revoke_key(key=issued.key)

    assert isinstance(other.error, Conflict)
    assert kept() == [False]


@pytest.mark.usefixtures("retrievable")
def test_reveal_waits_for_a_rotation_and_shows_the_new_secret(issued):
    with meanwhile(lambda: services.reveal_secret(key=issued.key)) as other:
        rotated = services.rotate_key(key=issued.key)

    assert other.error is None
    assert other.result.secret == rotated.secret


@pytest.mark.usefixtures("retrievable")
def test_what_is_encrypted_anew_undoes_no_revoke(issued, settings):
    settings.APIKEYS_ENCRYPTION_KEYS = [OTHER_FERNET_KEY, FERNET_KEY]

    with meanwhile(services.reencrypt_secrets) as other:
        services.revoke_key(key=issued.key)

    assert (other.error, other.result) == (None, services.Reencrypted(0, 0))
    assert kept() == [False]


# --- Many at once ---------------------------------------------------------------------------


def revoke_all(user, **more):
    return services.revoke_keys(keys=APIKey.objects.filter(owner=user), **more)


def test_two_runs_over_the_same_keys_leave_one_event_for_each(user, issue, monkeypatch):
    monkeypatch.setattr("django_apikeys.services.bulk.MOST_KEYS", 3)
    keys = [issue().key for _ in range(20)]

    others = at_once(*[partial(revoke_all, user)] * 4)

    told = APIKeyEvent.objects.filter(type="revoked").values_list("key_id", flat=True)
    assert [other.error for other in others] == [None] * 4
    assert sorted(told) == sorted(key.pk for key in keys)
    assert sorted(id_ for other in others for id_ in other.result.ids) == sorted(told)


@pytest.mark.parametrize("round_", range(3))
def test_a_run_meets_another_and_changes_of_the_same_keys(round_, user, issue, monkeypatch):
    """Each key after the other was made through the one before."""
    monkeypatch.setattr("django_apikeys.services.bulk.MOST_KEYS", 5)
    keys = [issue().key for _ in range(20)]
    for key, parent in zip(keys[1:], keys, strict=False):
        APIKey.objects.filter(pk=key.pk).update(created_by_key=parent)

    *others, changer = at_once(
        partial(revoke_all, user, cascade=True),
        partial(revoke_all, user, cascade=True),
        partial(services.revoke_key, key=keys[3]),
        partial(services.update_key, key=keys[15], name="new"),
    )

    assert [other.error for other in others] == [None] * 3
    assert changer.error is None or isinstance(changer.error, Conflict)
    assert APIKeyEvent.objects.filter(type="revoked").count() == 20


@pytest.mark.parametrize("round_", range(3))
def test_a_run_goes_on_beside_a_cascade(round_, user, issue, monkeypatch):
    """MariaDB may end a deadlock of the two by either; the run begins its batch again."""
    monkeypatch.setattr("django_apikeys.services.bulk.MOST_KEYS", 5)
    keys = [issue().key for _ in range(20)]
    for key, parent in zip(keys[1:], keys, strict=False):
        APIKey.objects.filter(pk=key.pk).update(created_by_key=parent)

    run, cascade = at_once(
        partial(revoke_all, user, cascade=True),
        partial(services.revoke_key, key=keys[10], cascade=True),
    )

    assert run.error is None
    assert cascade.error is None or isinstance(cascade.error, OperationalError)
    assert APIKeyEvent.objects.filter(type="revoked").count() == 20


def test_a_key_whose_creation_commits_while_a_run_waits_is_revoked(user, issue):
    issue()

    with meanwhile(partial(revoke_all, user)) as other:
        services.update_key(key=APIKey.objects.get(), name="locked")
        issue(name="made meanwhile")

    assert other.error is None
    assert APIKey.objects.filter(revoked_at=None).count() == 0
    assert len(other.result.ids) == 2


@pytest.mark.parametrize("round_", range(5))
def test_no_child_outlives_a_run_over_its_parent(round_, user, parent, grant):
    creations = [partial(make_child, user, grant) for _ in range(6)]
    chosen = APIKey.objects.filter(pk=parent.key.pk)
    run = partial(services.revoke_keys, keys=chosen, cascade=True)

    *makers, revoker = at_once(*creations, run)

    assert revoker.error is None
    assert {type(maker.error) for maker in makers} <= {type(None), KeyRefused}
    assert live_children() == []


def test_a_run_within_a_transaction_sees_a_child_that_is_younger_than_its_snapshot(
    user, parent, grant
):
    chosen = APIKey.objects.filter(pk=parent.key.pk)

    with transaction.atomic():
        before = APIKey.objects.count()
        Other(partial(make_child, user, grant)).run_to_its_end()
        services.revoke_keys(keys=chosen, cascade=True)

    assert before == 1
    assert live_children() == []
