"""Rotations beside each other and beside all else: one wins, and no more than two live.

Several real connections, on the databases that lock rows.
"""

import time
from datetime import timedelta
from functools import partial

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from django_apikeys import services, verification
from django_apikeys.authority import KeyAuthority, SelfAuthority
from django_apikeys.exceptions import Conflict, KeyRefused
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import bearer
from tests.test_races import Other, at_once, events, meanwhile

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="SQLite has one writer, who has no second one to race.",
    ),
]
MANY = 20


def loaded(issued):
    """Return the key with its secrets, as a request has it before it asks for a change."""
    return APIKey.objects.listed().get(pk=issued.key.pk)


def slots(issued):
    rows = APIKeySecret.objects.filter(key_id=issued.key.pk).order_by("pk")
    return list(rows.values_list("slot", flat=True))


def alive(issued, secrets):
    """Return those of *secrets* that are let in."""
    client = APIClient()
    return [
        secret
        for secret in secrets
        if client.get("/customers/", headers=bearer(secret)).status_code == 200
    ]


def test_of_twenty_rotations_that_start_from_the_same_secret_one_wins(issued):
    keys = [loaded(issued) for _ in range(MANY)]

    others = at_once(*[partial(services.rotate_key, key=key) for key in keys])

    won = [other.result for other in others if other.error is None]
    assert len(won) == 1
    assert {type(other.error) for other in others} == {type(None), Conflict}
    assert slots(issued) == [1, 0]
    assert events(issued.key) == [("created", ""), ("rotated", "")]
    secrets = [issued.secret, won[0].secret]
    assert alive(issued, secrets) == secrets


def test_of_twenty_rotations_by_whoever_comes_two_secrets_live(issued):
    def rotate():
        return services.rotate_key(key=APIKey.objects.get(pk=issued.key.pk))

    others = at_once(*[rotate] * MANY)

    won = [other.result for other in others if other.error is None]
    assert {type(other.error) for other in others} <= {type(None), Conflict}
    assert sorted(slots(issued), key=str) == [0, 1] + [None] * (len(won) - 1)
    assert len(alive(issued, [issued.secret, *(one.secret for one in won)])) == 2


def test_of_twenty_keys_that_rotate_themselves_by_one_secret_one_wins(issue):
    issued = issue(scopes=["customers:read", "self:rotate"])

    def ask():
        answer = APIClient().post("/api/keys/self/rotate/", headers=bearer(issued.secret))
        return answer.status_code, answer.json()

    others = at_once(*[ask] * MANY)

    answers = [other.result for other in others]
    # Whoever is verified after the first has won comes with a secret in its grace.
    assert [status for status, _body in answers].count(201) == 1
    assert {status for status, _body in answers} <= {201, 403, 409}
    assert slots(issued) == [1, 0]


def test_rotation_that_waits_for_a_rotation_is_a_conflict(issued):
    key = loaded(issued)

    with meanwhile(partial(services.rotate_key, key=key)) as other:
        services.rotate_key(key=loaded(issued))

    assert isinstance(other.error, Conflict)
    assert slots(issued) == [1, 0]


def test_rotation_that_waits_for_a_revoke_is_a_conflict(issued):
    with meanwhile(partial(services.rotate_key, key=loaded(issued))) as other:
        services.revoke_key(key=issued.key)

    assert isinstance(other.error, Conflict)
    assert slots(issued) == [0]


def test_revoke_that_waits_for_a_rotation_ends_the_new_secret_too(issued):
    with meanwhile(partial(services.revoke_key, key=issued.key)) as other:
        rotated = services.rotate_key(key=loaded(issued))

    assert other.error is None
    assert alive(issued, [issued.secret, rotated.secret]) == []


def test_retire_that_waits_for_a_rotation_is_a_conflict(issued):
    """What is previous by then was in use until then, and has just been given its grace."""
    first = services.rotate_key(key=loaded(issued))
    APIClient().get("/customers/", headers=bearer(first.secret))

    with meanwhile(partial(services.retire_secret, key=loaded(issued))) as other:
        second = services.rotate_key(key=loaded(issued))

    assert isinstance(other.error, Conflict)
    secrets = [issued.secret, first.secret, second.secret]
    assert alive(issued, secrets) == [first.secret, second.secret]


def test_rotation_waits_for_a_first_use_and_takes_it_for_used(issued):
    first = services.rotate_key(key=loaded(issued))
    secret_id = first.key.current_secret.pk

    with meanwhile(partial(services.rotate_key, key=loaded(issued))) as other:
        services.mark_first_use(secret_id, timezone.now())

    assert other.error is None
    secrets = [issued.secret, first.secret, other.result.secret]
    assert alive(issued, secrets) == [first.secret, other.result.secret]


def test_first_use_that_waits_for_a_rotation_begins_no_grace(issued, rf):
    first = services.rotate_key(key=loaded(issued), starts="first_use", grace_seconds=60)
    request = rf.get("/", headers=bearer(first.secret))

    with meanwhile(partial(verification.verify, request)) as other:
        services.rotate_key(key=loaded(issued), starts="first_use", grace_seconds=3600)

    assert other.error is None
    # The one it was the first use of is replaced, and begins nothing.
    assert APIKeySecret.objects.get(slot=1).retires_at is None


@pytest.mark.parametrize("starts", ["now", "first_use"])
def test_first_use_within_a_transaction_waits_for_nobody_and_nobody_for_it(starts, issued, rf):
    """As under ATOMIC_REQUESTS: a view of another key's owner may take its time."""
    first = services.rotate_key(key=loaded(issued), starts=starts)
    old, new = (rf.get("/", headers=bearer(one.secret)) for one in (issued, first))

    def use():
        with transaction.atomic():
            return verification.verify(new)

    with meanwhile(use, waits=False) as other:
        verification.verify(old)

    assert other.error is None


def test_a_key_that_rotates_itself_in_its_request_meets_a_rotation_and_no_deadlock(issue, rf):
    """Under ATOMIC_REQUESTS, by a secret that was never used before."""
    issued = issue(scopes=["customers:read", "self:rotate"])

    with transaction.atomic():
        grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))
        other = Other(partial(services.rotate_key, key=loaded(issued))).run_to_its_end()
        with pytest.raises(Conflict):
            services.rotate_key(key=loaded(issued), actor=grant, authority=SelfAuthority(grant))

    assert other.error is None
    assert slots(issued) == [1, 0]


@pytest.mark.skipif(connection.vendor != "mysql", reason="Only MariaDB is at REPEATABLE READ.")
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_secret_that_was_retired_meanwhile_makes_no_key(level, issue, user, rf):
    issued = issue(scopes=["customers:read", "apikeys:write"])
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    try:
        with transaction.atomic():
            grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))
            leaked = partial(services.rotate_key, key=loaded(issued), compromised=True)
            Other(leaked).run_to_its_end()
            with pytest.raises(KeyRefused):
                services.create_key(owner=user, name="mine", authority=KeyAuthority(grant))
    finally:
        connection.close()

    assert APIKey.objects.count() == 1


def test_a_key_that_expires_while_a_rotation_waits_is_not_rotated(issued):
    end = timezone.now() + timedelta(seconds=2)
    APIKey.objects.update(expires_at=end)

    with meanwhile(partial(services.rotate_key, key=loaded(issued))) as other:
        APIKey.objects.select_for_update().get()
        time.sleep(2.1)

    assert isinstance(other.error, Conflict)
    assert slots(issued) == [0]


def test_of_twenty_first_uses_one_begins_the_grace(issued, rf):
    first = services.rotate_key(key=loaded(issued), starts="first_use", grace_seconds=60)
    before = timezone.now()

    others = at_once(
        *[partial(verification.verify, rf.get("/", headers=bearer(first.secret)))] * MANY
    )

    assert [other.error for other in others] == [None] * MANY
    retires_at = APIKeySecret.objects.get(slot=1).retires_at
    used_at = APIKeySecret.objects.get(slot=0).first_used_at
    assert before <= used_at <= timezone.now()
    assert retires_at == used_at + timedelta(seconds=60)


def test_first_uses_and_rotations_do_not_deadlock(issued, rf):
    key_id = issued.key.pk
    for _ in range(5):
        latest = services.rotate_key(
            key=APIKey.objects.get(pk=key_id), starts="first_use", grace_seconds=60
        )
        request = rf.get("/", headers=bearer(latest.secret))

        def rotate():
            return services.rotate_key(key=APIKey.objects.get(pk=key_id), starts="first_use")

        others = at_once(*[partial(verification.verify, request), rotate] * 4)

        errors = {type(other.error) for other in others}
        assert errors <= {type(None), Conflict, KeyRefused}
        assert sorted(slots(issued), key=str)[:2] == [0, 1]


@pytest.mark.parametrize("revokes", [False, True])
def test_of_twenty_requests_with_a_retired_secret_one_is_told_of(revokes, issued, rf, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = revokes
    services.rotate_key(key=loaded(issued), compromised=True)
    request = rf.get("/", headers=bearer(issued.secret))

    others = at_once(*[partial(verification.verify, request)] * MANY)

    assert {other.error.code for other in others} == {"retired_secret"}
    types = list(APIKeyEvent.objects.order_by("id").values_list("type", flat=True))
    told = ["retired_secret_used", *(["revoked"] if revokes else [])]
    assert types == ["created", "rotated", *told]


def test_a_retired_secret_that_revokes_beside_rotations_does_not_deadlock(issued, rf, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = True
    services.rotate_key(key=loaded(issued), compromised=True)
    request = rf.get("/", headers=bearer(issued.secret))

    def rotate():
        return services.rotate_key(key=APIKey.objects.get(pk=issued.key.pk))

    others = at_once(*[partial(verification.verify, request), rotate] * 5)

    assert {type(other.error) for other in others} <= {type(None), Conflict, KeyRefused}
    assert APIKey.objects.get(pk=issued.key.pk).revoked_at is not None
    assert slots(issued).count(0) == 1


def test_an_asynchronous_server_notes_it_too(issued, monkeypatch):
    """By the application itself, which has a thread and a connection for each request."""
    services.rotate_key(key=loaded(issued), compromised=True)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/customers/",
        "headers": [
            (b"host", b"testserver"),
            (b"authorization", f"Bearer {issued.secret}".encode()),
        ],
    }

    async def ask():
        communicator = ApplicationCommunicator(ASGIHandler(), scope)
        await communicator.send_input({"type": "http.request"})
        start = await communicator.receive_output()
        await communicator.wait()
        return start["status"]

    assert async_to_sync(ask)() == 401
    assert events(issued.key)[-1] == ("retired_secret_used", "")
