"""Rotation as the services have it, and what an attacker may try with old secrets."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.core.signals import request_finished
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.http import http_date

from django_apikeys import services, signals, verification
from django_apikeys.authority import Authority, KeyAuthority, SelfAuthority
from django_apikeys.exceptions import (
    BeyondCeiling,
    Conflict,
    InvalidInput,
    KeyRefused,
    NotPermitted,
)
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import bearer
from tests.test_services import listening


def row(key):
    return APIKey.objects.get(pk=key.pk)


def slots(key):
    """Return the slots of all secrets that *key* ever had, the oldest first."""
    return list(APIKeySecret.objects.filter(key=key).order_by("pk").values_list("slot", flat=True))


def code(client, secret):
    answer = client.get("/customers/", headers=bearer(secret))
    return answer.status_code if answer.status_code == 200 else answer.json()["code"]


def grant_of(secret, rf):
    return verification.verify(rf.get("/", headers=bearer(secret)))


def reuses():
    return APIKeyEvent.objects.filter(type="retired_secret_used").count()


# --- rotate_key ---------------------------------------------------------------------------


def test_the_new_secret_is_another_of_the_same_key(issued, client):
    rotated = services.rotate_key(key=issued.key)

    assert rotated.key.pk == issued.key.pk
    assert rotated.secret != issued.secret
    assert slots(issued.key) == [1, 0]
    assert [code(client, one.secret) for one in (issued, rotated)] == [200, 200]


def test_its_repr_hides_it(issued):
    rotated = services.rotate_key(key=issued.key)

    assert repr(rotated) == f"<IssuedSecret of {rotated.key.masked}>"


def test_the_same_object_may_be_rotated_again(issued):
    for _ in range(3):
        services.rotate_key(key=issued.key)

    assert slots(issued.key) == [1, None, None, 0]


def test_an_object_that_was_loaded_before_another_rotation_may_not(issued):
    stale = APIKey.objects.listed().get(pk=issued.key.pk)
    services.rotate_key(key=row(issued.key))

    with pytest.raises(Conflict, match="The secret of this key is another by now"):
        services.rotate_key(key=stale)

    assert slots(issued.key) == [1, 0]


def test_a_key_that_has_lost_its_secret_gets_one(issued, client):
    APIKeySecret.objects.all().delete()

    rotated = services.rotate_key(key=row(issued.key))

    assert slots(issued.key) == [0]
    assert code(client, rotated.secret) == 200
    assert APIKeyEvent.objects.latest("id").changes["public_id"][0] is None


def test_a_grace_that_ran_out_makes_room(issued, client):
    services.rotate_key(key=issued.key, grace_seconds=60)
    ended = timezone.now() - timedelta(days=1)
    APIKeySecret.objects.filter(slot=1).update(retires_at=ended)

    rotated = services.rotate_key(key=row(issued.key))

    assert slots(issued.key) == [None, 1, 0]
    assert code(client, issued.secret) == "retired_secret"
    assert code(client, rotated.secret) == 200
    # When it ended stays as it was.
    assert APIKeySecret.objects.earliest("pk").retires_at == ended


def test_without_a_grace_the_secret_before_ends_with_the_rotation(issued, client):
    services.rotate_key(key=issued.key, grace_seconds=0)

    assert slots(issued.key) == [None, 0]
    assert code(client, issued.secret) == "retired_secret"


def test_a_second_rotation_without_a_grace_ends_both(issued, client):
    lost = services.rotate_key(key=issued.key)

    services.rotate_key(key=issued.key, grace_seconds=0)

    assert slots(issued.key) == [None, None, 0]
    assert [code(client, one.secret) for one in (issued, lost)] == ["retired_secret"] * 2


def test_a_grace_that_waits_is_replaced_with_the_secret_it_waits_for(issued, client):
    lost = services.rotate_key(key=issued.key, starts="first_use", grace_seconds=60)

    rotated = services.rotate_key(key=issued.key, starts="first_use", grace_seconds=3600)

    # The lost one, if it turns up again, begins nothing.
    assert code(client, lost.secret) == "retired_secret"
    assert APIKeySecret.objects.get(slot=1).retires_at is None
    assert code(client, rotated.secret) == 200
    left = APIKeySecret.objects.get(slot=1).retires_at - timezone.now()
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_event_tells_what_was_asked(issued, user):
    before = issued.key.current_secret.public_id

    rotated = services.rotate_key(
        key=issued.key, actor=user, grace_seconds=60, starts="first_use", reason="90 days"
    )

    event = APIKeyEvent.objects.latest("id")
    assert (event.type, event.reason, event.actor_name) == ("rotated", "90 days", "ann")
    assert event.key_masked == rotated.key.masked
    assert event.changes == {
        "public_id": [before, rotated.key.current_secret.public_id],
        "grace_seconds": [None, 60],
        "starts": [None, "first_use"],
    }


def test_event_tells_of_a_leak(issued):
    services.rotate_key(key=issued.key, compromised=True)

    changes = APIKeyEvent.objects.latest("id").changes
    assert changes["compromised"] == [None, True]
    assert "grace_seconds" not in changes


@pytest.mark.django_db(transaction=True)
def test_signal_tells_of_it(issued, user):
    with listening(signals.key_rotated) as received:
        rotated = services.rotate_key(key=issued.key, actor=user, reason="90 days")

    (facts,) = received
    assert (facts["key"].pk, facts["actor"].name) == (rotated.key.pk, "ann")
    assert (facts["reason"], facts["compromised"], facts["by_itself"]) == ("90 days", False, False)
    assert rotated.secret not in repr(facts)


@pytest.mark.django_db(transaction=True)
def test_signal_tells_that_the_key_did_it_itself(issue, rf):
    issued = issue(scopes=["self:rotate"])
    grant = grant_of(issued.secret, rf)

    with listening(signals.key_rotated) as received:
        services.rotate_key(key=issued.key, actor=grant, authority=SelfAuthority(grant))

    assert received[0]["by_itself"] is True


@pytest.mark.parametrize(
    "asked",
    [
        {"grace_seconds": -1},
        {"grace_seconds": 2_592_001},
        {"grace_seconds": True},
        {"grace_seconds": "60"},
        {"grace_seconds": 1.0},
        {"starts": "tomorrow"},
        {"starts": None},
        {"compromised": "yes"},
        {"compromised": True, "grace_seconds": 1},
        {"compromised": True, "starts": "first_use"},
        {"current": 7},
        {"reason": "x" * 501},
    ],
    ids=str,
)
def test_bad_input_changes_nothing(asked, issued):
    with pytest.raises(InvalidInput) as caught:
        services.rotate_key(key=issued.key, **asked)

    assert set(caught.value.message_dict) <= set(asked)
    assert slots(issued.key) == [0]


def test_all_that_is_bad_is_named_at_once(issued):
    with pytest.raises(InvalidInput) as caught:
        services.rotate_key(key=issued.key, grace_seconds=-1, starts="", current=7, reason=7)

    assert set(caught.value.message_dict) == {"grace_seconds", "starts", "current", "reason"}


def test_compromised_with_no_seconds_of_grace_is_no_contradiction(issued):
    services.rotate_key(key=issued.key, compromised=True, grace_seconds=0)

    assert slots(issued.key) == [None, 0]


@pytest.mark.parametrize("step", ["add_secret", "record", "announce"])
@pytest.mark.django_db(transaction=True)
def test_a_rotation_that_fails_on_its_way_changes_nothing(step, issued, client, monkeypatch):
    def fail(*args, **kwargs):
        raise LookupError

    monkeypatch.setattr(f"django_apikeys.services.secrets.{step}", fail)

    with pytest.raises(LookupError):
        services.rotate_key(key=issued.key)

    assert slots(issued.key) == [0]
    assert code(client, issued.secret) == 200
    assert issued.key.current_secret.slot == 0


@pytest.mark.django_db(transaction=True)
def test_a_commit_that_fails_hands_out_no_secret(issued, client, monkeypatch):
    def commit():
        connection.rollback()
        raise DatabaseError("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "commit", commit)
        with pytest.raises(DatabaseError, match="The disk"):
            services.rotate_key(key=issued.key)

    assert slots(issued.key) == [0]
    assert code(client, issued.secret) == 200
    # The same object goes on from what there is.
    assert services.rotate_key(key=issued.key).secret


def test_where_rows_cannot_be_locked_a_revoke_in_between_wins(issued, monkeypatch):
    """SQLite locks no rows: the row that was read may be older than a revoke."""
    stale = row(issued.key)
    services.revoke_key(key=issued.key)
    monkeypatch.setattr("django_apikeys.services.secrets.locked", lambda key, authority: stale)

    with pytest.raises(Conflict, match="This key is revoked, for good"):
        services.rotate_key(key=issued.key)

    assert slots(issued.key) == [0]


def test_where_rows_cannot_be_locked_a_rotation_in_between_wins(issued, monkeypatch):
    seen = services.secrets._slots

    def slots_before_another(key):
        found = seen(key)
        monkeypatch.undo()
        services.rotate_key(key=row(issued.key))
        return found

    monkeypatch.setattr(services.secrets, "_slots", slots_before_another)

    # The other one is within this transaction here, and goes with it.
    with pytest.raises(Conflict, match="is another by now"):
        services.rotate_key(key=row(issued.key))

    assert slots(issued.key) == [0]


def test_statements_do_not_grow_with_the_secrets_that_a_key_had(issued):
    def statements():
        with CaptureQueriesContext(connection) as queries:
            services.rotate_key(key=issued.key)
        return len(queries)

    statements()
    few = statements()
    for _ in range(10):
        services.rotate_key(key=issued.key)

    assert statements() == few


def test_an_object_that_was_refreshed_may_be_rotated(issued):
    stale = APIKey.objects.listed().get(pk=issued.key.pk)
    services.rotate_key(key=row(issued.key))

    stale.refresh_from_db()

    assert services.rotate_key(key=stale).secret


@pytest.mark.parametrize("path", ["/failing/not-found/", "/customers/"], ids=["404", "200"])
@pytest.mark.django_db(transaction=True)
def test_a_secret_whose_view_refuses_is_used_all_the_same(path, issued, client, monkeypatch):
    """Under ATOMIC_REQUESTS too: the next rotation must not replace it."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    second = services.rotate_key(key=issued.key, starts="first_use")
    client.get(path, headers=bearer(second.secret))

    third = services.rotate_key(key=issued.key)

    codes = [code(client, one.secret) for one in (issued, second, third)]
    assert codes == ["retired_secret", 200, 200]


# --- retire_secret ------------------------------------------------------------------------


def test_retire_ends_the_previous_secret(issued, client, user):
    rotated = services.rotate_key(key=issued.key)

    key = services.retire_secret(key=issued.key, actor=user, reason="seen to work")

    assert key.previous_secret_at(timezone.now()) is None
    assert slots(issued.key) == [None, 0]
    assert [code(client, one.secret) for one in (issued, rotated)] == ["retired_secret", 200]


def test_retire_ends_one_that_waits_for_the_first_use(issued, client):
    rotated = services.rotate_key(key=issued.key, starts="first_use")

    services.retire_secret(key=issued.key)

    assert code(client, issued.secret) == "retired_secret"
    assert code(client, rotated.secret) == 200
    assert slots(issued.key) == [None, 0]


@pytest.mark.django_db(transaction=True)
def test_signal_tells_of_a_retirement(issued, user):
    services.rotate_key(key=issued.key)

    with listening(signals.secret_retired) as received:
        services.retire_secret(key=issued.key, actor=user, reason="done")

    assert [(facts["key"].pk, facts["reason"]) for facts in received] == [(issued.key.pk, "done")]


def test_retire_where_there_is_nothing_to_retire(issued):
    with pytest.raises(Conflict, match="This key has no previous secret"):
        services.retire_secret(key=issued.key)


def test_retire_ends_no_other_secret_than_its_caller_has_seen(issued, client):
    first = services.rotate_key(key=issued.key)
    code(client, first.secret)
    stale = APIKey.objects.listed().get(pk=issued.key.pk)
    services.rotate_key(key=row(issued.key))

    with pytest.raises(Conflict, match="is another by now"):
        services.retire_secret(key=stale)

    assert code(client, first.secret) == 200


def test_retire_by_who_has_seen_none_ends_none(issued, client):
    stale = APIKey.objects.listed().get(pk=issued.key.pk)
    services.rotate_key(key=row(issued.key))

    with pytest.raises(Conflict, match="is another by now"):
        services.retire_secret(key=stale)

    assert code(client, issued.secret) == 200


def test_retire_of_the_secret_that_is_named_and_of_no_other(issued, client):
    first = services.rotate_key(key=issued.key)
    shown = row(issued.key).previous_secret_at(timezone.now()).public_id
    code(client, first.secret)
    services.rotate_key(key=row(issued.key))

    with pytest.raises(Conflict, match="is another by now"):
        services.retire_secret(key=row(issued.key), previous=shown)
    assert code(client, first.secret) == 200

    named = first.key.current_secret.public_id
    assert services.retire_secret(key=row(issued.key), previous=named).live_secrets[1:] == []
    assert code(client, first.secret) == "retired_secret"


def test_retire_of_a_revoked_key(issued):
    services.rotate_key(key=issued.key)
    services.revoke_key(key=issued.key)

    with pytest.raises(Conflict, match="This key is revoked, for good"):
        services.retire_secret(key=issued.key)


def test_retire_of_a_disabled_key_is_allowed_as_it_gives_nobody_anything(issued):
    services.rotate_key(key=issued.key)
    services.update_key(key=issued.key, enabled=False)

    services.retire_secret(key=issued.key)

    assert slots(issued.key) == [None, 0]


def test_retire_of_a_key_that_has_lost_its_current_secret(issued):
    services.rotate_key(key=issued.key)
    APIKeySecret.objects.filter(slot=0).delete()

    assert services.retire_secret(key=row(issued.key)).live_secrets == []


# --- The ceiling --------------------------------------------------------------------------


class Bounded(Authority):
    """A person who may rotate, and grant jobs:read alone."""

    def grantable(self, owner):
        return ["jobs:read"]


def test_who_may_not_grant_all_its_scopes_may_not_rotate_a_key(issue, user):
    issued = issue(scopes=["jobs:read", "customers:read"])

    with pytest.raises(BeyondCeiling):
        services.rotate_key(key=issued.key, authority=Bounded(user))

    assert slots(issued.key) == [0]


def test_they_may_retire_its_previous_secret(issue, user):
    issued = issue(scopes=["jobs:read", "customers:read"])
    services.rotate_key(key=issued.key)

    services.retire_secret(key=issued.key, authority=Bounded(user))

    assert slots(issued.key) == [None, 0]


@pytest.mark.parametrize("change", [services.rotate_key, services.retire_secret])
def test_a_key_reaches_only_what_lies_within_it(change, issue, rf):
    manager = issue(scopes=["jobs:read", "apikeys:write"])
    wider = issue(scopes=["jobs:*"])
    services.rotate_key(key=wider.key)
    grant = grant_of(manager.secret, rf)

    with pytest.raises(BeyondCeiling):
        change(key=wider.key, actor=grant, authority=KeyAuthority(grant))

    assert slots(wider.key) == [1, 0]


def test_a_key_that_may_rotate_itself_rotates_no_other(issue, rf):
    issued, other = issue(scopes=["self:rotate"]), issue(scopes=["jobs:*"])
    grant = grant_of(issued.secret, rf)

    with pytest.raises(NotPermitted):
        services.rotate_key(key=other.key, actor=grant, authority=SelfAuthority(grant))
    with pytest.raises(NotPermitted):
        services.update_key(key=row(issued.key), authority=SelfAuthority(grant), name="new")

    assert slots(other.key) == [0]


# --- What an old secret can be used for ---------------------------------------------------


@pytest.fixture
def leaked(issue):
    """The old secret of a key that may manage keys and itself, in its grace."""
    issued = issue(
        scopes=[
            "customers:read",
            "apikeys:read",
            "apikeys:write",
            "self:rotate",
            "self:revoke",
        ]
    )
    services.rotate_key(key=issued.key)
    return issued


def test_the_old_secret_works_like_the_current_one_elsewhere(leaked, client):
    assert code(client, leaked.secret) == 200


def test_whoever_holds_the_old_secret_cannot_take_the_key_over(leaked, client, issue):
    child = issue(scopes=["customers:read"])
    services.rotate_key(key=child.key)
    own, other = leaked.key.pk, child.key.pk
    before = APIKeyEvent.objects.count()

    tried = [
        ("post", "keys/self/rotate/", {}),
        ("post", f"keys/{own}/rotate/", {}),
        ("post", f"keys/{own}/retire/", {}),
        ("patch", f"keys/{own}/", {"allowed_ips": ["192.0.2.1"]}),
        ("delete", f"keys/{own}/", {}),
        ("post", f"keys/{own}/revoke/", {}),
        ("post", "keys/", {"name": "mine"}),
        ("post", f"keys/{other}/rotate/", {}),
        ("post", f"keys/{other}/retire/", {}),
        ("post", f"keys/{other}/revoke/", {}),
    ]
    answers = [
        getattr(client, method)(f"/api/{path}", body, format="json", headers=bearer(leaked.secret))
        for method, path, body in tried
    ]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (403, "permission_denied")
    }
    assert APIKeyEvent.objects.count() == before


@pytest.mark.parametrize("path", ["keys/", "keys/self/", "events/", "scopes/", "usage/"])
def test_it_may_read(path, leaked, client):
    assert client.get(f"/api/{path}", headers=bearer(leaked.secret)).status_code == 200


def test_it_may_end_the_leak(leaked, client):
    answer = client.post("/api/keys/self/revoke/", headers=bearer(leaked.secret))

    assert answer.status_code == 200
    assert row(leaked.key).revoked_at is not None


def test_of_two_self_rotations_at_once_the_second_is_a_conflict(issue, rf):
    """Both were verified by the same secret, before either had the lock."""
    issued = issue(scopes=["self:rotate"])
    one, two = grant_of(issued.secret, rf), grant_of(issued.secret, rf)
    services.rotate_key(key=row(issued.key), actor=one, authority=SelfAuthority(one))

    with pytest.raises(Conflict, match="is another by now"):
        services.rotate_key(key=row(issued.key), actor=two, authority=SelfAuthority(two))

    assert slots(issued.key) == [1, 0]


def test_a_self_rotation_after_a_leak_was_told_is_a_conflict(issue, rf):
    issued = issue(scopes=["self:rotate"])
    grant = grant_of(issued.secret, rf)
    services.rotate_key(key=issued.key, compromised=True)

    with pytest.raises(Conflict, match="is another by now"):
        services.rotate_key(key=row(issued.key), actor=grant, authority=SelfAuthority(grant))


def test_a_key_whose_scope_was_taken_since_does_not_rotate_itself(issue, rf):
    issued = issue(scopes=["self:rotate"])
    grant = grant_of(issued.secret, rf)
    services.update_key(key=issued.key, scopes=[])

    with pytest.raises(NotPermitted):
        services.rotate_key(key=row(issued.key), actor=grant, authority=SelfAuthority(grant))


def test_a_key_that_was_revoked_since_does_not_rotate_itself(issue, rf):
    issued = issue(scopes=["self:rotate"])
    grant = grant_of(issued.secret, rf)
    services.revoke_key(key=issued.key)

    with pytest.raises(KeyRefused):
        services.rotate_key(key=row(issued.key), actor=grant, authority=SelfAuthority(grant))


# --- The first use, and the grace that waits for it ---------------------------------------


def test_first_use_of_a_secret_that_nothing_waits_for_is_one_statement(issued, client):
    with CaptureQueriesContext(connection) as queries:
        client.get("/customers/", headers=bearer(issued.secret))

    assert len([query for query in queries if query["sql"].startswith("UPDATE")]) == 1


def test_first_use_of_the_previous_secret_begins_no_grace(issued, client):
    services.rotate_key(key=issued.key, starts="first_use")

    assert code(client, issued.secret) == 200

    previous = APIKeySecret.objects.get(slot=1)
    assert previous.retires_at is None
    assert previous.first_used_at is not None


def test_first_use_that_another_request_has_noted_changes_nothing(issued, client):
    rotated = services.rotate_key(key=issued.key, starts="first_use", grace_seconds=60)
    code(client, rotated.secret)
    before = list(APIKeySecret.objects.order_by("pk").values())
    secret = rotated.key.current_secret

    later = timezone.now() + timedelta(days=1)
    services.mark_first_use(secret.pk, later, begins_grace_in=issued.key.pk)

    assert list(APIKeySecret.objects.order_by("pk").values()) == before


def test_first_use_of_a_secret_that_was_replaced_meanwhile_begins_no_grace(issued):
    """It was verified as the current one, and then another rotation came in between."""
    lost = services.rotate_key(key=issued.key, starts="first_use", grace_seconds=60)
    lost_id = lost.key.current_secret.pk
    services.rotate_key(key=issued.key, starts="first_use", grace_seconds=3600)

    services.mark_first_use(lost_id, timezone.now(), begins_grace_in=issued.key.pk)

    assert APIKeySecret.objects.get(slot=1).retires_at is None
    assert APIKeySecret.objects.get(pk=lost_id).first_used_at is None


def test_second_use_of_the_new_secret_writes_nothing(issued, client):
    rotated = services.rotate_key(key=issued.key, starts="first_use")
    code(client, rotated.secret)

    with CaptureQueriesContext(connection) as queries:
        client.get("/customers/", headers=bearer(rotated.secret))

    assert {query["sql"][:6] for query in queries} == {"SELECT"}


# --- X-API-Key-Expires --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "told"), [(8, False), (7.01, False), (6.99, True), (1, True)], ids=str
)
def test_an_end_within_seven_days_is_told(days, told, issue, client):
    end = (timezone.now() + timedelta(days=days)).replace(microsecond=0)
    issued = issue(scopes=["customers:read"], expires_at=end)

    answer = client.get("/customers/", headers=bearer(issued.secret))

    assert answer.status_code == 200
    assert answer.headers.get("X-API-Key-Expires") == (
        http_date(end.timestamp()) if told else None
    )
    assert "X-API-Key-Rotated" not in answer.headers


def test_a_previous_secret_ends_with_its_key_where_that_is_sooner(issued, client):
    services.rotate_key(key=issued.key, grace_seconds=86_400)
    end = (timezone.now() + timedelta(hours=1)).replace(microsecond=0)
    services.update_key(key=issued.key, expires_at=end)

    answer = client.get("/customers/", headers=bearer(issued.secret))

    assert answer.headers["X-API-Key-Expires"] == http_date(end.timestamp())


def test_a_previous_secret_whose_grace_waits_has_no_end_yet(issued, client):
    services.rotate_key(key=issued.key, starts="first_use")

    answer = client.get("/customers/", headers=bearer(issued.secret))

    assert answer.headers["X-API-Key-Rotated"] == "true"
    assert "X-API-Key-Expires" not in answer.headers


def test_no_end_is_told_to_whom_the_key_is_refused(issued, client):
    services.update_key(key=issued.key, expires_at=timezone.now() + timedelta(days=1))
    services.revoke_key(key=issued.key)

    answer = client.get("/customers/", headers=bearer(issued.secret))

    assert answer.status_code == 401
    assert "X-API-Key-Expires" not in answer.headers


# --- A retired secret that comes back -----------------------------------------------------


@pytest.fixture
def retired(issued):
    services.rotate_key(key=issued.key, compromised=True)
    return issued


@pytest.mark.django_db(transaction=True)
def test_signal_tells_of_a_retired_secret(retired, client):
    with listening(signals.retired_secret_used) as received:
        code(client, retired.secret)
        code(client, retired.secret)

    (facts,) = received
    assert (facts["key"].pk, facts["address"]) == (retired.key.pk, "127.0.0.1")
    assert facts["public_id"] == retired.secret.split("_")[2]


def test_event_names_the_client(retired, client):
    agent = "curl/8\x00\n evil"
    client.get("/customers/", headers={**bearer(retired.secret), "User-Agent": agent})

    event = APIKeyEvent.objects.latest("id")
    assert (event.type, event.user_agent) == ("retired_secret_used", "curl/8 evil")


def test_who_only_knows_the_public_id_leaves_no_event(retired, client):
    wrong = f"{retired.secret[:-8]}AA{retired.secret[-6:]}"

    assert code(client, wrong) == "invalid_key"
    assert reuses() == 0


def test_a_wrong_address_leaves_no_event_and_learns_nothing(retired, client):
    services.update_key(key=retired.key, allowed_ips=["192.0.2.1"])

    assert code(client, retired.secret) == "address_not_allowed"
    assert reuses() == 0


def test_a_grace_that_ran_out_counts_as_retired(issued, client):
    services.rotate_key(key=issued.key, grace_seconds=60)
    APIKeySecret.objects.filter(slot=1).update(retires_at=timezone.now())

    assert code(client, issued.secret) == "retired_secret"
    assert reuses() == 1


def test_hammering_with_a_retired_secret_costs_one_select(retired, client):
    code(client, retired.secret)

    with CaptureQueriesContext(connection) as queries:
        code(client, retired.secret)

    assert len(queries) == 1


def test_a_clock_that_went_back_does_not_silence_it(retired, client):
    """What was told an hour before it happens is not told again; the day after it is."""
    ahead = datetime.now(UTC) + timedelta(days=1)
    APIKeySecret.objects.filter(slot=None).update(reused_at=ahead)
    code(client, retired.secret)
    assert reuses() == 0

    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    APIKeySecret.objects.filter(slot=None).update(reused_at=hour_ago)
    code(client, retired.secret)

    assert reuses() == 1


def test_a_grace_that_ended_with_its_key_is_no_reuse(issue, client, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = True
    end = timezone.now() + timedelta(hours=1)
    issued = issue(scopes=["customers:read"], expires_at=end)
    services.rotate_key(key=issued.key)
    APIKeySecret.objects.filter(slot=1).update(retires_at=timezone.now())
    APIKey.objects.update(expires_at=timezone.now())

    assert code(client, issued.secret) == "retired_secret"
    assert reuses() == 0
    assert row(issued.key).revoked_at is None


def test_revoke_on_reuse_is_off_by_default(retired, client):
    code(client, retired.secret)

    assert row(retired.key).revoked_at is None


def test_revoke_on_reuse_revokes_the_key(retired, client, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = True

    assert code(client, retired.secret) == "retired_secret"

    key = row(retired.key)
    assert (key.revoked_reason, key.revoked_by) == ("A retired secret was used.", None)
    types = list(APIKeyEvent.objects.order_by("id").values_list("type", flat=True))
    assert types == ["created", "rotated", "retired_secret_used", "revoked"]


def test_revoke_on_reuse_of_one_that_is_revoked_leaves_one_event(retired, client, settings):
    settings.APIKEYS_REVOKE_ON_REUSE = True
    services.revoke_key(key=retired.key, reason="left")

    code(client, retired.secret)

    assert reuses() == 1
    assert row(retired.key).revoked_reason == "left"


def test_reuse_of_a_key_that_is_gone_is_no_error(retired):
    secret = APIKeySecret.objects.get(slot=None)
    APIKey.objects.all().delete()

    services.note_reuse(secret.pk, timezone.now())

    assert reuses() == 0


def test_a_database_that_cannot_note_it_refuses_all_the_same(retired, client):
    def wrapper(execute, sql, params, many, context):
        if not sql.startswith("SELECT"):
            raise DatabaseError("Read-only.")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper):
        assert code(client, retired.secret) == "retired_secret"

    assert reuses() == 0


@pytest.mark.django_db(transaction=True)
class TestWithinATransaction:
    """A request under ATOMIC_REQUESTS is rolled back with its refusal."""

    def refuse(self, secret, rf):
        with pytest.raises(KeyRefused), transaction.atomic():
            grant_of(secret, rf)

    def test_it_is_written_when_the_request_is_answered(self, retired, rf):
        self.refuse(retired.secret, rf)
        assert reuses() == 0

        request_finished.send(sender=None)

        assert reuses() == 1

    def test_it_is_written_once(self, retired, rf):
        self.refuse(retired.secret, rf)
        self.refuse(retired.secret, rf)

        request_finished.send(sender=None)
        request_finished.send(sender=None)

        assert reuses() == 1

    def test_one_that_cannot_be_written_holds_up_no_others(self, retired, issue, rf, monkeypatch):
        other = issue(scopes=["customers:read"])
        services.rotate_key(key=other.key, compromised=True)
        self.refuse(retired.secret, rf)
        self.refuse(other.secret, rf)
        note = services.note_reuse

        def fail_once(*args, **facts):
            monkeypatch.setattr(services, "note_reuse", note)
            raise DatabaseError("Not now.")

        monkeypatch.setattr(services, "note_reuse", fail_once)

        request_finished.send(sender=None)

        assert APIKeyEvent.objects.latest("id").key_id == other.key.pk
        assert reuses() == 1

    def test_what_waits_is_not_written_by_another_request_that_ends(self, retired, rf):
        self.refuse(retired.secret, rf)

        other = threading.Thread(target=request_finished.send, kwargs={"sender": None})
        other.start()
        other.join()

        assert reuses() == 0
        request_finished.send(sender=None)
        assert reuses() == 1
