"""The door for change: one transaction with its row, its Event and its signal."""

import logging
import reprlib
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from datetime import timezone as fixed_offset

import pytest
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from django_apikeys import services, signals, verification
from django_apikeys.actors import Actor
from django_apikeys.authority import Authority, KeyAuthority
from django_apikeys.exceptions import (
    BeyondCeiling,
    Conflict,
    InvalidInput,
    KeyRefused,
    NotPermitted,
)
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.policy import UserPolicy
from django_apikeys.services import keys
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

SIGNALS = {
    "created": signals.key_created,
    "updated": signals.key_updated,
    "revoked": signals.key_revoked,
    "deleted": signals.key_deleted,
}


@contextmanager
def listening(signal):
    received = []

    def receiver(**facts):
        received.append(facts)

    signal.connect(receiver)
    try:
        yield received
    finally:
        signal.disconnect(receiver)


def row(issued):
    return APIKey.objects.get(pk=issued.key.pk)


def last_event():
    return APIKeyEvent.objects.latest("id")


def savepoints(queries):
    return sum(query["sql"].startswith("SAVEPOINT") for query in queries)


def no_more_than(count):
    """A database that answers *count* statements: a loop without an end fails."""
    left = iter(range(count))

    def wrapper(execute, sql, params, many, context):
        assert next(left, None) is not None, "There is no end to it."
        return execute(sql, params, many, context)

    return connection.execute_wrapper(wrapper)


def in_an_hour():
    return timezone.now() + timedelta(hours=1)


@pytest.fixture
def other(user):
    return UserFactory(username="bob")


# --- create_key ---------------------------------------------------------------------------


def test_create_stores_what_was_asked_for(user):
    moment = datetime(2100, 1, 1, tzinfo=UTC)

    issued = services.create_key(
        owner=user,
        actor=user,
        name=" sync ",
        description="Nightly.",
        environment="test",
        scopes=("jobs:read", "jobs:read", "customers:*"),
        allowed_ips=["192.0.2.7", "::ffff:192.0.2.7", "2001:DB8::/32"],
        rate_limit="300/m",
        expires_at=moment,
        enabled=False,
        metadata={"team": "a"},
    )

    key = row(issued)
    assert (key.name, key.description, key.environment) == ("sync", "Nightly.", "test")
    assert key.scopes == ["jobs:read", "customers:*"]
    assert key.allowed_ips == ["192.0.2.7", "2001:db8::/32"]
    assert (key.rate_limit, key.expires_at, key.enabled) == ("300/m", moment, False)
    assert key.metadata == {"team": "a"}
    assert (key.owner, key.created_by, key.created_by_key) == (user, user, None)
    assert key.created_at == key.updated_at
    assert (key.revoked_at, key.deleted_at) == (None, None)


def test_create_stores_a_digest_and_no_secret(issued):
    secret = APIKeySecret.objects.get()

    assert secret.key == issued.key
    assert (secret.prefix, secret.slot, secret.first_used_at) == ("rak", 0, None)
    assert secret.public_id == issued.secret[9:21]
    assert secret.last_four == issued.secret[61:65]
    assert secret.digest.startswith("hmac-sha256$sk-")
    assert secret.created_at == issued.key.created_at


def test_create_asks_for_an_owner_and_a_name_alone(user):
    issued = services.create_key(owner=user, name="x")

    key = row(issued)
    assert (key.environment, key.enabled, key.expires_at) == ("live", True, None)
    assert (key.scopes, key.allowed_ips, key.metadata) == ([], [], {})
    assert key.created_by is None


def test_new_key_is_masked_alike_before_and_after_it_was_stored(issued):
    assert issued.key.masked == row(issued).masked
    assert repr(issued) == f"<IssuedSecret of {issued.key.masked}>"


def test_create_has_its_event(user):
    moment = datetime(2100, 1, 1, tzinfo=UTC)

    issued = services.create_key(owner=user, name="sync", actor=user, expires_at=moment)

    event = APIKeyEvent.objects.get()
    assert (event.type, event.key_id, event.key_name) == ("created", issued.key.pk, "sync")
    assert event.key_masked == issued.key.masked
    assert (event.owner_id, event.owner_name) == (str(user.pk), "ann")
    assert event.changes == {
        "name": [None, "sync"],
        "description": [None, ""],
        "environment": [None, "live"],
        "scopes": [None, []],
        "allowed_ips": [None, []],
        "rate_limit": [None, ""],
        "expires_at": [None, "2100-01-01T00:00:00+00:00"],
        "enabled": [None, True],
        "metadata": [None, {}],
    }


@pytest.mark.django_db
def test_event_of_a_key_of_the_project_has_no_owner():
    services.create_key(owner=None, name="x")

    assert (last_event().owner_id, last_event().owner_name) == ("", "")


def test_same_id_twice_is_a_conflict(issue):
    id_ = uuid.uuid4()
    issue(id=id_, name="first")

    with pytest.raises(Conflict, match=r"This key was created already\."):
        issue(id=id_, name="second")

    assert [key.name for key in APIKey.objects.all()] == ["first"]
    assert APIKeySecret.objects.count() == APIKeyEvent.objects.count() == 1


def test_savepoint_is_for_an_id_that_may_be_taken(issue):
    with CaptureQueriesContext(connection) as without:
        issue()
    with CaptureQueriesContext(connection) as with_id:
        issue(id=uuid.uuid4())

    assert savepoints(without) == 1
    assert savepoints(with_id) == 2
    assert len(without) == len(with_id) - 2


@pytest.mark.parametrize("id_", [None, uuid.uuid4()], ids=["without an id", "with an id"])
def test_other_breach_of_integrity_is_no_conflict(issue, monkeypatch, id_):
    def save(key, **options):
        raise IntegrityError("Another constraint.")

    monkeypatch.setattr(APIKey, "save", save)

    with pytest.raises(IntegrityError, match=r"Another constraint\."):
        issue(id=id_)


# --- Bad input ----------------------------------------------------------------------------

TEXT = ["A text is needed."]
LIST = ["A list of texts is needed."]
JSON = ["This cannot be stored as JSON."]
NUL = ["NUL characters cannot be stored."]
CONTROL = ["Control characters cannot be stored."]
MOMENT = ["A date and time with its time zone is needed."]
RATE = ["A rate is a number from 1 to 999999999, a slash and s, m, h or d: for instance 300/m."]
ENDLESS: dict = {}
ENDLESS["itself"] = ENDLESS


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return {"a": value}


BAD = [
    ("name", "", ["A key needs a name."]),
    ("name", "  ", ["A key needs a name."]),
    ("name", "a" * 101, ["At most 100 characters; these are 101."]),
    ("name", "a" * 10_000, ["At most 100 characters; these are 10000."]),
    ("name", "a\x00b", CONTROL),
    ("name", "a\nb", CONTROL),
    ("name", "a\x7fb", CONTROL),
    ("name", "\udfff", CONTROL),
    ("name", None, TEXT),
    ("name", 5, TEXT),
    ("name", b"x", TEXT),
    ("description", "a" * 1001, ["At most 1000 characters; these are 1001."]),
    ("description", "a\x00b", CONTROL),
    ("description", "\ud800", CONTROL),
    ("description", None, TEXT),
    ("environment", "prod", ["“prod” is not one of: live, test."]),
    ("environment", "", ["“” is not one of: live, test."]),
    ("environment", "\ud800", ["“\\ud800” is not one of: live, test."]),
    ("environment", ["live"], ["“['live']” is not one of: live, test."]),
    ("scopes", "jobs:read", LIST),
    ("scopes", {"jobs:read": 1}, LIST),
    ("scopes", None, LIST),
    ("scopes", [5], LIST),
    ("scopes", [["jobs:read"]], LIST),
    ("scopes", ["jobs:fly", "x"], ["Unknown scope: 'jobs:fly', 'x'."]),
    ("scopes", ["\ud800"], [r"Unknown scope: '\ud800'."]),
    ("scopes", ["apikeys:*"], ["Unknown scope: 'apikeys:*'."]),
    ("scopes", ["a" * 200], [f"Unknown scope: '{'a' * 100}'."]),
    ("scopes", ["jobs:read"] * 101, ["At most 100 entries."]),
    ("allowed_ips", "192.0.2.7", LIST),
    ("allowed_ips", None, LIST),
    ("allowed_ips", [5], LIST),
    ("allowed_ips", ["192.0.2.7"] * 101, ["At most 100 entries."]),
    (
        "allowed_ips",
        ["localhost", "10.0.0.1/8"],
        [
            "“localhost” is not an IP address or network.",
            "“10.0.0.1/8” has host bits set; the network is 10.0.0.0/8.",
        ],
    ),
    ("rate_limit", "300", RATE),
    ("rate_limit", "0/m", RATE),
    ("rate_limit", "1000000000/m", RATE),
    ("rate_limit", "300/m\n", RATE),
    ("rate_limit", "\u0663/m", RATE),
    ("rate_limit", 300, RATE),
    ("expires_at", "2100-01-01T00:00:00Z", MOMENT),
    ("expires_at", datetime(2100, 1, 1), MOMENT),  # noqa: DTZ001 - naive on purpose
    ("expires_at", datetime(2100, 1, 1, tzinfo=UTC).date(), MOMENT),
    (
        "expires_at",
        datetime(2020, 1, 1, tzinfo=UTC),
        ["This moment is in the past. To end a key now, revoke it."],
    ),
    (
        "expires_at",
        datetime(9999, 12, 31, 23, 59, tzinfo=fixed_offset(timedelta(hours=-14))),
        ["This is more than a hundred years away. Leave it empty for never."],
    ),
    ("enabled", "yes", ["True or False is needed."]),
    ("enabled", 1, ["True or False is needed."]),
    ("enabled", None, ["True or False is needed."]),
    ("metadata", [], ["A JSON object is needed."]),
    ("metadata", "{}", ["A JSON object is needed."]),
    ("metadata", {"a": "\x00"}, NUL),
    ("metadata", {"\x00": 1}, NUL),
    ("metadata", {"a": [{"b": ("\x00",)}]}, NUL),
    ("metadata", {"a": "\ud800"}, JSON),
    ("metadata", {"a": object()}, JSON),
    ("metadata", {"a": {1, 2}}, JSON),
    ("metadata", {"a": float("nan")}, JSON),
    ("metadata", {"a": float("inf")}, JSON),
    ("metadata", {(1, 2): 1}, JSON),
    ("metadata", ENDLESS, JSON),
    ("metadata", nested(100_000), JSON),
    ("metadata", nested(450), ["At most 25 levels, one within the other."]),
    ("metadata", nested(25), ["At most 25 levels, one within the other."]),
    ("metadata", {"a": "b" * 4088}, ["At most 4096 bytes as JSON; these are 4097."]),
    ("metadata", {"a": "é" * 2045}, ["At most 4096 bytes as JSON; these are 4099."]),
]


def readable(case):
    name, value, _messages = case
    return ascii(f"{name}-{reprlib.repr(value)}").strip("'\"")


@pytest.mark.parametrize(("name", "value", "messages"), BAD, ids=map(readable, BAD))
def test_bad_field_is_named_and_nothing_is_stored(name, value, messages, issue):
    with pytest.raises(InvalidInput) as refused:
        issue(**{name: value})

    assert refused.value.message_dict == {name: messages}
    assert str(refused.value) == f"{name}: {' '.join(messages)}"
    assert APIKey.objects.count() == APIKeyEvent.objects.count() == 0


@pytest.mark.parametrize(
    ("name", "value", "messages"),
    [case for case in BAD if case[0] != "environment"],
    ids=[readable(case) for case in BAD if case[0] != "environment"],
)
def test_bad_field_of_a_change_is_named_and_nothing_is_stored(name, value, messages, issued):
    before = APIKey.objects.values().get()

    with pytest.raises(InvalidInput) as refused:
        services.update_key(key=issued.key, **{"description": "changed", name: value})

    assert refused.value.message_dict == {name: messages}
    assert APIKey.objects.values().get() == before


def test_every_bad_field_is_named_at_once(issue):
    with pytest.raises(ValidationError) as refused:
        issue(
            name="",
            description=None,
            environment="prod",
            scopes=["x"],
            allowed_ips=["x"],
            rate_limit="x",
            expires_at="x",
            enabled="x",
            metadata="x",
        )

    assert list(refused.value.message_dict) == [
        "name",
        "description",
        "environment",
        "scopes",
        "allowed_ips",
        "rate_limit",
        "expires_at",
        "enabled",
        "metadata",
    ]


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("name", "a" * 100, "a" * 100),
        ("name", "Ключ 🔑", "Ключ 🔑"),
        ("description", "a" * 1000, "a" * 1000),
        ("description", "a\r\n\tb", "a\r\n\tb"),
        ("scopes", ("jobs:read",), ["jobs:read"]),
        ("scopes", {"jobs:*"}, ["jobs:*"]),
        ("scopes", frozenset(["*"]), ["*"]),
        ("allowed_ips", ["10.0.0.1"] * 100, ["10.0.0.1"]),
        ("allowed_ips", ["10.0.0.1/32", "::/0"], ["10.0.0.1/32", "::/0"]),
        ("rate_limit", "999999999/d", "999999999/d"),
        ("rate_limit", None, ""),
        ("rate_limit", "", ""),
        ("metadata", None, {}),
        ("metadata", {"a": "b" * 4087}, {"a": "b" * 4087}),
        ("metadata", {"a": [None, 1.5, "é", {}]}, {"a": [None, 1.5, "é", {}]}),
        ("metadata", nested(24), nested(24)),
    ],
    ids=lambda value: ascii(str(value)[:20]).strip("'"),
)
def test_what_just_goes_is_stored(name, value, stored, issue):
    issued = issue(**{name: value})

    assert getattr(row(issued), name) == stored


def test_name_is_not_needed_where_the_setting_says_so(issue, settings):
    settings.APIKEYS_REQUIRE_NAME = False

    assert row(issue(name="")).name == ""


def test_reason_that_is_too_long_revokes_nothing(issued):
    with pytest.raises(InvalidInput) as refused:
        services.revoke_key(key=issued.key, reason="a" * 501)

    assert refused.value.message_dict == {"reason": ["At most 500 characters; these are 501."]}
    assert row(issued).revoked_at is None


# --- Who did it ---------------------------------------------------------------------------


def test_actor_that_is_a_user(issue, user):
    issued = issue(actor=user)

    event = last_event()
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("user", str(user.pk), "ann")
    assert row(issued).created_by == user


def test_actor_that_is_a_key(issue, issued, rf):
    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    made = issue(actor=grant)

    event = last_event()
    assert (event.actor_kind, event.actor_id) == ("key", str(issued.key.pk))
    assert event.actor_name == "a key"
    assert (row(made).created_by, row(made).created_by_key) == (None, issued.key)


def test_actor_that_is_a_command(issue):
    issued = issue(actor=Actor("command", name="apikeys create"))

    assert (last_event().actor_kind, last_event().actor_name) == ("command", "apikeys create")
    assert row(issued).created_by is None


def test_actor_that_is_the_system(issue):
    issue(actor=None)

    event = last_event()
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("system", "", "")


def test_actor_of_a_request_has_its_address_and_user_agent(issue, user, rf):
    request = rf.get(
        "/", headers={"User-Agent": "curl/8.0\r\n" + "a" * 300}, REMOTE_ADDR="192.0.2.7:443"
    )
    request.user = user

    issued = issue(actor=Actor.from_request(request))

    event = last_event()
    assert (event.actor_kind, event.address) == ("user", "192.0.2.7")
    assert event.user_agent == "curl/8.0" + "a" * 247
    assert row(issued).created_by == user


def test_actor_of_a_request_with_a_key_is_the_key(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret), REMOTE_ADDR="")
    request.auth = verification.verify(request)
    request.user = AnonymousUser()

    actor = Actor.from_request(request)

    assert (actor.kind, actor.key_id, actor.address) == ("key", issued.key.pk, "")


def test_long_names_are_cut_to_the_column(user):
    services.create_key(owner=user, name="x", actor=Actor("command", id="1" * 300, name="n" * 300))

    assert (last_event().actor_id, last_event().actor_name) == ("1" * 255, "n" * 255)


# --- update_key ---------------------------------------------------------------------------

CHANGES = [
    ("name", "new", ["a key", "new"]),
    ("description", "new", ["", "new"]),
    ("enabled", False, [True, False]),
    ("scopes", ["jobs:read"], [["customers:read"], ["jobs:read"]]),
    ("allowed_ips", ["10.0.0.0/8"], [[], ["10.0.0.0/8"]]),
    ("rate_limit", "5/s", ["", "5/s"]),
    (
        "expires_at",
        datetime(2100, 1, 1, tzinfo=UTC),
        [None, "2100-01-01T00:00:00+00:00"],
    ),
    ("metadata", {"a": 1}, [{}, {"a": 1}]),
]


@pytest.mark.parametrize(("name", "value", "change"), CHANGES, ids=[case[0] for case in CHANGES])
def test_update_writes_what_it_names_and_says_so(name, value, change, issued, user):
    before = APIKey.objects.values().get()

    answer = services.update_key(key=issued.key, actor=user, **{name: value})

    after = APIKey.objects.values().get()
    assert {column for column in before if before[column] != after[column]} == {
        name,
        "updated_at",
    }
    assert getattr(answer, name) == getattr(row(issued), name) == value
    assert answer.updated_at == row(issued).updated_at
    event = last_event()
    assert (event.type, event.changes, event.actor_kind) == ("updated", {name: change}, "user")


def test_update_writes_no_other_column(issued):
    with CaptureQueriesContext(connection) as queries:
        services.update_key(key=issued.key, name="new")

    statement = next(query["sql"] for query in queries if query["sql"].startswith("UPDATE"))
    written = statement.partition(" SET ")[2].partition(" WHERE ")[0]
    names = [part.partition(" = ")[0].strip('"`') for part in written.split(", ")]
    assert names == ["name", "updated_at"]
    assert "revoked_at" in statement.partition(" WHERE ")[2]


def test_update_to_what_is_there_changes_nothing(issued):
    before = APIKey.objects.values().get()

    answer = services.update_key(key=issued.key, name="a key", scopes=["customers:read"])

    assert answer == issued.key
    assert APIKey.objects.values().get() == before
    assert APIKeyEvent.objects.count() == 1


def test_update_of_a_revoked_key_is_a_conflict(issued):
    services.revoke_key(key=issued.key)

    with pytest.raises(Conflict, match=r"This key is revoked, for good\."):
        services.update_key(key=issued.key, enabled=True)

    assert row(issued).revoked_at is not None


def test_revoke_that_came_in_between_is_not_undone(issued, monkeypatch):
    stale = APIKey.objects.get()
    services.revoke_key(key=issued.key)
    monkeypatch.setattr(keys, "locked", lambda key, authority: stale)

    with pytest.raises(Conflict, match=r"This key is revoked, for good\."):
        services.update_key(key=issued.key, name="new")

    assert row(issued).revoked_at is not None
    assert row(issued).name == "a key"


def test_update_of_a_key_that_is_gone_is_a_conflict(issued):
    APIKey.objects.all().delete()

    with pytest.raises(Conflict, match=r"This key is gone\."):
        services.update_key(key=issued.key, name="new")


@pytest.mark.parametrize(
    "name", ["id", "owner", "environment", "revoked_at", "deleted_at", "created_by", "nonsense"]
)
def test_update_changes_no_other_field(name, issued):
    with pytest.raises(TypeError, match=f"cannot change {name}"):
        services.update_key(key=issued.key, **{name: None})


def test_later_expiry_revives_an_expired_key(issued, rf):
    APIKey.objects.update(expires_at=timezone.now())

    services.update_key(key=issued.key, expires_at=in_an_hour())

    assert verification.verify(rf.get("/", headers=bearer(issued.secret)))


# --- revoke_key ---------------------------------------------------------------------------


def test_revoke(issued, user):
    answer = services.revoke_key(key=issued.key, actor=user, reason=" It leaked. ")

    key = row(issued)
    assert key.revoked_at is not None
    assert (key.revoked_by, key.revoked_reason, key.deleted_at) == (user, "It leaked.", None)
    assert key.updated_at == key.revoked_at == answer.revoked_at
    event = last_event()
    assert (event.type, event.reason, event.changes) == ("revoked", "It leaked.", {})
    assert (event.actor_kind, event.actor_name) == ("user", "ann")


def test_repeated_revoke_changes_nothing(issued, other):
    services.revoke_key(key=issued.key, reason="first")
    before = APIKey.objects.values().get()

    answer = services.revoke_key(key=issued.key, actor=other, reason="second")

    assert APIKey.objects.values().get() == before
    assert answer.revoked_reason == "first"
    assert APIKeyEvent.objects.filter(type="revoked").count() == 1


def test_revoke_that_came_in_between_leaves_one_event(issued, monkeypatch):
    stale = APIKey.objects.get()
    services.revoke_key(key=issued.key, reason="first")
    monkeypatch.setattr(keys, "locked", lambda key, authority: stale)

    services.revoke_key(key=issued.key, reason="second")

    assert row(issued).revoked_reason == "first"
    assert APIKeyEvent.objects.filter(type="revoked").count() == 1


def test_revoke_without_cascade_leaves_the_offspring(issued):
    child = APIKeyFactory(created_by_key=issued.key)

    services.revoke_key(key=issued.key)

    child.refresh_from_db()
    assert child.revoked_at is None


def test_cascade_revokes_what_was_made_through_the_key_to_the_last(issued, user):
    child = APIKeyFactory(created_by_key=issued.key)
    sibling = APIKeyFactory(created_by_key=issued.key, revoked=True, revoked_reason="before")
    grandchild = APIKeyFactory(created_by_key=child)
    behind_the_revoked = APIKeyFactory(created_by_key=sibling)
    stranger = APIKeyFactory()

    services.revoke_key(key=issued.key, actor=user, reason="leaked", cascade=True)

    reasons = {key.pk: key.revoked_reason for key in APIKey.objects.exclude(revoked_at=None)}
    assert reasons == {
        issued.key.pk: "leaked",
        child.pk: "leaked",
        grandchild.pk: "leaked",
        behind_the_revoked.pk: "leaked",
        sibling.pk: "before",
    }
    assert APIKey.objects.get(pk=stranger.pk).revoked_at is None
    assert APIKeyEvent.objects.filter(type="revoked").count() == 4


def test_cascade_of_a_revoked_key_still_reaches_its_offspring(issued):
    child = APIKeyFactory(created_by_key=issued.key)
    services.revoke_key(key=issued.key)

    services.revoke_key(key=issued.key, cascade=True)

    child.refresh_from_db()
    assert child.revoked_at is not None


def test_cascade_ends_where_a_key_made_itself(issued):
    APIKey.objects.filter(pk=issued.key.pk).update(created_by_key=issued.key)

    with no_more_than(50):
        services.revoke_key(key=issued.key, cascade=True)

    assert row(issued).revoked_at is not None
    assert APIKeyEvent.objects.filter(type="revoked").count() == 1


def test_cascade_ends_where_keys_made_each_other(issued):
    child = APIKeyFactory(created_by_key=issued.key)
    grandchild = APIKeyFactory(created_by_key=child)
    APIKey.objects.filter(pk=issued.key.pk).update(created_by_key=grandchild)

    with no_more_than(50):
        services.revoke_key(key=issued.key, cascade=True)

    assert not APIKey.objects.filter(revoked_at=None).exists()
    assert APIKeyEvent.objects.filter(type="revoked").count() == 3


# --- delete_key ---------------------------------------------------------------------------


def test_delete_revokes_and_takes_out_of_the_lists(issued, user):
    services.delete_key(key=issued.key, actor=user, reason="Tidied up.")

    key = row(issued)
    assert key.deleted_at == key.revoked_at is not None
    assert (key.revoked_by, key.revoked_reason) == (user, "Tidied up.")
    assert list(APIKey.objects.listed()) == []
    assert (last_event().type, last_event().reason) == ("deleted", "Tidied up.")


def test_delete_of_a_revoked_key_keeps_when_and_why_it_was_revoked(issued, other):
    before = services.revoke_key(key=issued.key, reason="It leaked.")

    services.delete_key(key=issued.key, actor=other, reason="Tidied up.")

    key = row(issued)
    assert key.deleted_at is not None
    assert (key.revoked_at, key.revoked_by) == (before.revoked_at, None)
    assert key.revoked_reason == "It leaked."


def test_repeated_delete_changes_nothing(issued):
    services.delete_key(key=issued.key)
    before = APIKey.objects.values().get()

    services.delete_key(key=issued.key, reason="second")

    assert APIKey.objects.values().get() == before
    assert APIKeyEvent.objects.filter(type="deleted").count() == 1


# --- mark_first_use -----------------------------------------------------------------------


def test_first_use_is_the_first_alone(issued):
    secret = APIKeySecret.objects.get()
    first, second = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)

    services.mark_first_use(secret.pk, first)
    services.mark_first_use(secret.pk, second)

    secret.refresh_from_db()
    assert secret.first_used_at == first
    assert APIKeyEvent.objects.count() == 1


@pytest.mark.parametrize(("after", "changed"), [({"a": True}, True), ({"b": 2, "a": 1}, False)])
def test_metadata_differ_as_json_does(after, changed, issue):
    """To Python 1 is True; the order of names says nothing."""
    issued = issue(metadata={"a": 1} if changed else {"a": 1, "b": 2})

    services.update_key(key=issued.key, metadata=after)

    issued.key.refresh_from_db()
    assert issued.key.metadata == after
    assert APIKeyEvent.objects.filter(type="updated").exists() is changed


@pytest.mark.parametrize("vendor", ["postgresql", "mysql"])
def test_first_use_in_a_transaction_is_the_first_alone_where_locked_rows_are_skipped(
    vendor, issued, monkeypatch
):
    """What PostgreSQL and MySQL are told; that nobody waits is in test_races."""
    monkeypatch.setattr(connection.features, "has_select_for_update_skip_locked", True)
    monkeypatch.setattr(connection, "vendor", vendor)
    first, second = timezone.now(), in_an_hour()

    for moment in (first, second):
        services.mark_first_use(issued.key.current_secret.pk, moment)

    assert APIKeySecret.objects.get().first_used_at == first


# --- Signals ------------------------------------------------------------------------------

CALLS = {
    "created": lambda key, **options: services.create_key(owner=None, name="x", **options),
    "updated": lambda key, **options: services.update_key(key=key, name="new", **options),
    "revoked": lambda key, **options: services.revoke_key(key=key, reason="why", **options),
    "deleted": lambda key, **options: services.delete_key(key=key, reason="why", **options),
}
FACTS = {
    "created": {},
    "updated": {"changes": {"name": ["a key", "new"]}},
    "revoked": {"reason": "why"},
    "deleted": {"reason": "why"},
}
each_change = pytest.mark.parametrize("name", CALLS)


@each_change
def test_signal_is_sent_once_it_is_committed(
    name, issued, user, django_capture_on_commit_callbacks
):
    with listening(SIGNALS[name]) as received:
        with django_capture_on_commit_callbacks() as callbacks:
            CALLS[name](issued.key, actor=user)
        before_the_commit = list(received)
        for callback in callbacks:
            callback()

    assert before_the_commit == []
    assert len(received) == 1
    facts = received[0]
    key = facts.pop("key")
    assert facts == {
        "signal": SIGNALS[name],
        "sender": APIKey,
        "actor": Actor.of(user),
        **FACTS[name],
    }
    assert (
        vars(APIKey.objects.get(pk=key.pk)).items()
        >= {
            "name": key.name,
            "revoked_at": key.revoked_at,
            "deleted_at": key.deleted_at,
            "updated_at": key.updated_at,
        }.items()
    )


@each_change
@pytest.mark.django_db(transaction=True)
def test_signal_is_not_sent_of_what_is_rolled_back(name, issued):
    def change_and_fail():
        with transaction.atomic():
            CALLS[name](issued.key)
            raise LookupError

    with listening(SIGNALS[name]) as received, pytest.raises(LookupError):
        change_and_fail()

    assert received == []
    assert APIKey.objects.count() == APIKeyEvent.objects.count() == 1


@each_change
@pytest.mark.django_db(transaction=True)
def test_receiver_that_raises_breaks_nothing(name, issued, caplog):
    def receiver(**facts):
        raise LookupError("a receiver")

    SIGNALS[name].connect(receiver)
    try:
        with listening(SIGNALS[name]) as received, caplog.at_level(logging.ERROR):
            CALLS[name](issued.key)
    finally:
        SIGNALS[name].disconnect(receiver)

    assert APIKeyEvent.objects.filter(type=name).exists()
    assert len(received) == 1
    assert any("receiver" in message for message in caplog.messages)


@pytest.mark.django_db(transaction=True)
def test_signal_is_not_sent_where_nothing_changes(issued):
    services.delete_key(key=issued.key)

    with (
        listening(signals.key_revoked) as revoked,
        listening(signals.key_deleted) as deleted,
        listening(signals.key_updated) as updated,
    ):
        services.revoke_key(key=issued.key)
        services.delete_key(key=issued.key)

    assert revoked == deleted == updated == []


# --- Nothing by halves --------------------------------------------------------------------


def whole():
    return tuple(
        list(model.objects.order_by("pk").values())
        for model in (APIKey, APIKeySecret, APIKeyEvent)
    )


def fail(*args, **kwargs):
    raise LookupError


@pytest.mark.parametrize(
    ("name", "step"),
    [
        *[(name, step) for name in CALLS for step in ("keys.record", "keys.announce")],
        ("created", "changes._as_json"),
        ("updated", "changes._as_json"),
    ],
)
@pytest.mark.django_db(transaction=True)
def test_change_that_fails_on_its_way_leaves_nothing(name, step, issued, monkeypatch):
    before = whole()
    monkeypatch.setattr(f"django_apikeys.services.{step}", fail)

    with pytest.raises(LookupError):
        CALLS[name](issued.key)

    assert whole() == before


@pytest.mark.parametrize(
    "step",
    [
        "django_apikeys.services.keys.record",
        "django_apikeys.keys.hashers.HMACHasher.digest",
        "django_apikeys.models.mask",
        "django_apikeys.policy.UserPolicy.owner_name",
        "django.db.transaction.on_commit",
    ],
)
@pytest.mark.django_db(transaction=True)
def test_create_that_fails_on_its_way_leaves_nothing(step, issue, monkeypatch):
    monkeypatch.setattr(step, fail)

    with pytest.raises(LookupError):
        issue()

    assert whole() == ([], [], [])


@pytest.mark.parametrize("table", ["apikey", "apikeysecret", "apikeyevent"])
@pytest.mark.django_db(transaction=True)
def test_create_that_the_database_refuses_leaves_nothing(table, issue):
    def wrapper(execute, sql, params, many, context):
        if sql.startswith(f"INSERT INTO {connection.ops.quote_name(f'django_apikeys_{table}')}"):
            raise DatabaseError("The disk is full.")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(wrapper), pytest.raises(DatabaseError, match="The disk"):
        issue()

    assert whole() == ([], [], [])


@pytest.mark.django_db(transaction=True)
def test_cascade_that_fails_on_its_way_revokes_nothing(issued, monkeypatch):
    APIKeyFactory(created_by_key=issued.key)
    before = whole()
    steps = iter([keys.record, fail])

    def record_once(*args, **facts):
        next(steps)(*args, **facts)

    monkeypatch.setattr(keys, "record", record_once)

    with pytest.raises(LookupError):
        services.revoke_key(key=issued.key, cascade=True)

    assert whole() == before


# --- Events -------------------------------------------------------------------------------


def test_event_is_not_changed(issued):
    event = last_event()
    event.reason = "another"

    with pytest.raises(TypeError, match=r"An event is never changed\."):
        event.save()

    assert last_event().reason == ""


@pytest.mark.parametrize(
    "overwrite",
    [
        pytest.param(lambda event: event.save(), id="saved"),
        pytest.param(lambda event: event.save(force_update=False), id="saved without force"),
        pytest.param(
            lambda event: APIKeyEvent.objects.bulk_create(
                [event],
                update_conflicts=True,
                update_fields=["type"],
                unique_fields=["id"],
            ),
            id="in bulk",
        ),
        pytest.param(
            lambda event: APIKeyEvent._base_manager.update(type=event.type), id="base manager"
        ),
    ],
)
def test_event_is_not_overwritten_by_another_with_its_id(overwrite, issued):
    another = APIKeyEvent(id=last_event().pk, type="another", actor_kind="system")

    with pytest.raises((TypeError, IntegrityError)), transaction.atomic():
        overwrite(another)

    assert last_event().type == "created"


def test_event_is_not_deleted(issued):
    with pytest.raises(TypeError, match=r"An event is never deleted\."):
        last_event().delete()

    assert APIKeyEvent.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events.update(reason="x"),
        lambda events: events.delete(),
        lambda events: events.filter(type="created").delete(),
        lambda events: events.bulk_update(list(events.all()), ["reason"]),
        lambda events: events.update_or_create(type="created", defaults={"reason": "x"}),
    ],
    ids=["update", "delete", "filtered", "bulk-update", "update-or-create"],
)
def test_events_are_not_changed_or_deleted_together(change, issued):
    before = list(APIKeyEvent.objects.values())

    with pytest.raises(TypeError, match="An event is never"), transaction.atomic():
        change(APIKeyEvent.objects)

    assert list(APIKeyEvent.objects.values()) == before


def test_event_outlives_key_and_owner_unchanged(issued, user):
    before = APIKeyEvent.objects.values().get()

    user.delete()

    assert APIKey.objects.count() == 0
    assert APIKeyEvent.objects.values().get(pk=before["id"]) == before


# --- A row that is deleted ----------------------------------------------------------------


def test_key_whose_row_goes_with_its_owner_leaves_an_event(issue, user):
    live, revoked = issue(name="live").key, issue(name="revoked").key
    services.revoke_key(key=revoked)
    services.delete_key(key=issue(name="deleted").key)
    issue(name="of the project", owner=None)
    masked, owner_id = live.masked, str(user.pk)
    before = last_event().pk

    user.delete()

    events = APIKeyEvent.objects.filter(pk__gt=before)
    assert sorted(events.values_list("type", "key_name", "actor_kind", "reason")) == [
        ("deleted", "live", "system", "Its row was deleted."),
        ("deleted", "revoked", "system", "Its row was deleted."),
    ]
    event = events.get(key_name="live")
    assert (event.key_id, event.key_masked) == (live.pk, masked)
    assert (event.owner_id, event.owner_name) == (owner_id, "ann")


@pytest.mark.django_db
def test_key_of_the_project_whose_row_is_deleted_leaves_an_event():
    services.create_key(owner=None, name="of the project").key.delete()

    assert (last_event().type, last_event().key_name) == ("deleted", "of the project")
    assert (last_event().owner_id, last_event().owner_name) == ("", "")


def test_rows_that_are_deleted_together_leave_an_event_each(issue):
    issue(name="first")
    issue(name="second")

    APIKey.objects.all().delete()

    deleted = APIKeyEvent.objects.filter(type="deleted")
    assert sorted(deleted.values_list("key_name", flat=True)) == ["first", "second"]


def test_row_of_a_deleted_key_goes_without_another_event(issued):
    services.delete_key(key=issued.key)

    APIKey.objects.all().delete()

    assert [event.type for event in APIKeyEvent.objects.order_by("id")] == ["created", "deleted"]


def test_row_that_has_lost_its_secret_leaves_an_event(user):
    APIKeyFactory(owner=user, name="a key", secret_row=None).delete()

    assert (last_event().type, last_event().key_name) == ("deleted", "a key")
    assert last_event().key_masked == ""


def test_signal_of_a_deleted_row_is_sent_once_it_is_committed(
    issued, user, django_capture_on_commit_callbacks
):
    key_id = issued.key.pk

    with listening(signals.key_deleted) as received:
        with django_capture_on_commit_callbacks() as callbacks:
            user.delete()
        before_the_commit = list(received)
        for callback in callbacks:
            callback()

    assert before_the_commit == []
    assert [(facts["actor"].kind, facts["reason"]) for facts in received] == [
        ("system", "Its row was deleted.")
    ]
    assert [event.key_id for event in APIKeyEvent.objects.filter(type="deleted")] == [key_id]


@pytest.mark.django_db(transaction=True)
def test_deletion_that_is_rolled_back_leaves_no_event(issued, user):
    def delete_and_fail():
        with transaction.atomic():
            user.delete()
            raise LookupError

    with pytest.raises(LookupError):
        delete_and_fail()

    assert APIKey.objects.count() == 1
    assert [event.type for event in APIKeyEvent.objects.all()] == ["created"]


# --- What the one who asks may do ---------------------------------------------------------


class ReadingPolicy(UserPolicy):
    """Everyone may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]


EVERYTHING_THEY_HAVE = {
    "scopes": ["customers:read", "jobs:read", "apikeys:write"],
    "allowed_ips": ["127.0.0.0/8"],
    "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
    "rate_limit": "60/m",
}
WITHIN = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["127.0.0.1"],
    "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
    "rate_limit": "1/s",
}


@pytest.fixture
def reading(settings):
    settings.APIKEYS_POLICY = "tests.test_services.ReadingPolicy"


@pytest.fixture
def manager(issue):
    """A key that manages keys."""
    return issue(name="manager", **EVERYTHING_THEY_HAVE)


@pytest.fixture
def grant(manager, rf):
    return verification.verify(rf.get("/", headers=bearer(manager.secret)))


@pytest.fixture
def through(grant):
    """That it is done through the key."""
    return {"actor": grant, "authority": KeyAuthority(grant)}


def test_key_that_is_made_through_a_key_remembers_it(manager, user, through):
    issued = services.create_key(owner=user, name="x", **WITHIN, **through)

    assert (row(issued).created_by, row(issued).created_by_key) == (None, manager.key)
    event = last_event()
    assert (event.type, event.actor_kind) == ("created", "key")
    assert (event.actor_id, event.actor_name) == (str(manager.key.pk), "manager")


@pytest.mark.parametrize("environment", ["live", "test"])
def test_environment_is_that_of_the_key_through_which_it_is_made(issue, user, rf, environment):
    manager = issue(scopes=["apikeys:write"], environment=environment)
    grant = verification.verify(rf.get("/", headers=bearer(manager.secret)))

    issued = services.create_key(owner=user, name="x", actor=grant, authority=KeyAuthority(grant))

    assert row(issued).environment == environment
    assert issued.secret.startswith(f"rak_{environment}_")


def test_environment_is_the_first_where_a_person_makes_it(user):
    issued = services.create_key(owner=user, name="x", actor=user, authority=Authority(user))

    assert row(issued).environment == "live"


def test_create_beyond_a_key_names_all_of_it_and_makes_nothing(user, through):
    before = whole()

    with pytest.raises(BeyondCeiling) as refused:
        services.create_key(
            owner=user, name="x", environment="test", scopes=["customers:*"], **through
        )

    assert refused.value.beyond == {
        "environment": ("test",),
        "scopes": ["customers:*"],
        "allowed_ips": ("everywhere",),
        "expires_at": ("never",),
        "rate_limit": ("unlimited",),
    }
    assert str(refused.value) == (
        "This is more than you may give to an API key: environment (test), scopes (customers:*), "
        "allowed_ips (everywhere), expires_at (never), rate_limit (unlimited)."
    )
    assert whole() == before


def test_bad_input_is_told_before_what_is_beyond(user, through):
    with pytest.raises(InvalidInput) as refused:
        services.create_key(owner=user, name="", scopes=["customers:write"], **through)

    assert list(refused.value.message_dict) == ["name"]


@pytest.mark.usefixtures("reading")
def test_create_beyond_a_person_makes_nothing(user):
    with pytest.raises(BeyondCeiling) as refused:
        services.create_key(
            owner=user, name="x", scopes=["jobs:read"], actor=user, authority=Authority(user)
        )

    assert refused.value.beyond == {"scopes": ["jobs:read"]}
    assert whole() == ([], [], [])


@pytest.mark.usefixtures("reading")
def test_without_an_authority_nothing_is_asked(issue, user):
    """As commands and the host's own code do it."""
    issued = services.create_key(owner=user, name="x", scopes=["jobs:read"], actor=user)

    services.update_key(key=issued.key, actor=user, scopes=["*"])

    assert row(issued).scopes == ["*"]


def test_update_through_a_key(issue, manager, through):
    target = issue(**WITHIN)

    services.update_key(key=target.key, name="new", scopes=[], **through)

    assert (row(target).name, row(target).scopes) == ("new", [])
    assert (last_event().type, last_event().actor_name) == ("updated", "manager")


@pytest.mark.parametrize(
    ("fields", "beyond"),
    [
        ({"scopes": ["customers:write"]}, {"scopes": ["customers:write"]}),
        ({"scopes": ["apikeys:write"]}, {"scopes": ["apikeys:write"]}),
        ({"allowed_ips": []}, {"allowed_ips": ("everywhere",)}),
        ({"expires_at": None}, {"expires_at": ("never",)}),
        ({"rate_limit": None}, {"rate_limit": ("unlimited",)}),
    ],
    ids=["scopes", "managing keys", "networks", "expiry", "rate"],
)
def test_update_beyond_a_key_changes_nothing(issue, through, fields, beyond):
    target = issue(**WITHIN)
    before = whole()

    with pytest.raises(BeyondCeiling) as refused:
        services.update_key(key=target.key, **{"name": "new", **fields}, **through)

    assert refused.value.beyond == beyond
    assert whole() == before


def test_update_through_a_key_enables_none(issue, through):
    target = issue(**WITHIN, enabled=False)

    with pytest.raises(BeyondCeiling) as refused:
        services.update_key(key=target.key, enabled=True, **through)

    assert refused.value.beyond == {"enabled": ("an API key enables none",)}
    assert row(target).enabled is False


def test_update_asks_of_the_row_as_it_is_now(issue, through):
    """What the caller holds was within; somebody has widened it since."""
    target = issue(**WITHIN)
    services.update_key(key=APIKey.objects.get(pk=target.key.pk), scopes=["customers:write"])

    with pytest.raises(BeyondCeiling) as refused:
        services.update_key(key=target.key, name="new", **through)

    assert refused.value.beyond == {"scopes": ["customers:write"]}


@pytest.mark.usefixtures("reading")
def test_update_by_a_person_who_may_not_grant_all_only_narrows(issue, user):
    target = issue(scopes=["customers:read", "jobs:read"])
    by_them = {"actor": user, "authority": Authority(user)}

    with pytest.raises(BeyondCeiling):
        services.update_key(key=target.key, scopes=["customers:read", "jobs:write"], **by_them)
    services.update_key(key=target.key, name="new", scopes=["jobs:read"], **by_them)

    assert (row(target).name, row(target).scopes) == ("new", ["jobs:read"])


@pytest.mark.parametrize("change", [services.revoke_key, services.delete_key])
def test_key_ends_a_key_within(issue, manager, through, change):
    target = issue(**WITHIN)

    change(key=target.key, reason="leaked", **through)

    assert (row(target).revoked_by, row(target).revoked_reason) == (None, "leaked")
    assert (last_event().actor_kind, last_event().actor_name) == ("key", "manager")


@pytest.mark.parametrize("change", [services.revoke_key, services.delete_key])
def test_key_ends_no_key_beyond(issue, through, change):
    target = issue(**{**WITHIN, "scopes": ["customers:write"]})
    before = whole()

    with pytest.raises(BeyondCeiling) as refused:
        change(key=target.key, **through)

    assert refused.value.beyond == {"scopes": ["customers:write"]}
    assert whole() == before


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("change", [services.revoke_key, services.delete_key])
def test_person_ends_a_key_beyond(issue, user, change):
    target = issue(scopes=["*"])

    change(key=target.key, actor=user, authority=Authority(user))

    assert row(target).revoked_at is not None


def test_key_revokes_itself(manager, through):
    services.revoke_key(key=manager.key, reason="leaked", **through)

    assert row(manager).revoked_reason == "leaked"
    assert last_event().actor_id == str(manager.key.pk)


def test_cascade_through_a_key(issue, manager, through, user):
    target = issue(**WITHIN)
    child = APIKeyFactory(owner=user, created_by_key=target.key, **WITHIN)
    grandchild = APIKeyFactory(owner=user, created_by_key=child, **WITHIN)

    services.revoke_key(key=target.key, cascade=True, **through)

    assert set(APIKey.objects.filter(revoked_at=None)) == {manager.key}
    assert APIKeyEvent.objects.filter(type="revoked", key_id=grandchild.pk).exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"scopes": ["customers:write"]},
        {"allowed_ips": []},
        {"expires_at": None},
        {"rate_limit": ""},
        {"environment": "test"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_cascade_through_a_key_with_one_beyond_revokes_nothing(issue, through, user, fields):
    """All or nothing: else it would be half done, and nobody told which half."""
    target = issue(**WITHIN)
    child = APIKeyFactory(owner=user, created_by_key=target.key, **WITHIN)
    APIKeyFactory(owner=user, created_by_key=target.key, **WITHIN)
    APIKeyFactory(owner=user, created_by_key=child, **{**WITHIN, **fields})
    before = whole()

    with pytest.raises(BeyondCeiling) as refused:
        services.revoke_key(key=target.key, cascade=True, **through)

    assert list(refused.value.beyond) == list(fields)
    assert whole() == before


@pytest.mark.usefixtures("reading")
def test_cascade_of_a_person_reaches_what_is_beyond_them(issue, user):
    target = issue(scopes=["customers:read"])
    child = APIKeyFactory(owner=user, created_by_key=target.key, scopes=["*"])

    services.revoke_key(key=target.key, cascade=True, actor=user, authority=Authority(user))

    child.refresh_from_db()
    assert child.revoked_at is not None


THROUGH = {
    "create": lambda target, **who: services.create_key(
        owner=target.owner, name="x", **WITHIN, **who
    ),
    "update": lambda target, **who: services.update_key(key=target, name="new", **who),
    "revoke": lambda target, **who: services.revoke_key(key=target, **who),
    "delete": lambda target, **who: services.delete_key(key=target, **who),
}


@pytest.fixture
def target(issue):
    """A key within what the other one has."""
    return issue(**WITHIN).key


each_call = pytest.mark.parametrize("call", THROUGH.values(), ids=THROUGH.keys())


@each_call
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"revoked_at": datetime(2026, 1, 1, tzinfo=UTC)}, "revoked_key"),
        ({"enabled": False}, "disabled_key"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "expired_key"),
    ],
    ids=["revoked", "disabled", "expired"],
)
def test_key_that_is_dead_by_now_changes_nothing(call, fields, code, target, through):
    """It was alive when it was verified."""
    APIKey.objects.filter(name="manager").update(**fields)
    before = whole()

    with pytest.raises(KeyRefused) as refused:
        call(target, **through)

    assert refused.value.code == code
    assert whole() == before


@each_call
def test_key_whose_row_is_gone_by_now_changes_nothing(call, target, manager, through):
    manager.key.delete()
    before = whole()

    with pytest.raises(KeyRefused) as refused:
        call(target, **through)

    assert refused.value.code == "revoked_key"
    assert whole() == before


@each_call
def test_secret_that_is_retired_by_now_changes_nothing(call, target, manager, through):
    manager.key.secrets.update(slot=None)
    APIKeySecretFactory(key=manager.key)
    before = whole()

    with pytest.raises(KeyRefused) as refused:
        call(target, **through)

    assert refused.value.code == "retired_secret"
    assert whole() == before


@each_call
def test_key_that_may_manage_none_by_now_changes_nothing(call, target, manager, through):
    services.update_key(key=manager.key, scopes=["jobs:read"])
    before = whole()

    with pytest.raises(NotPermitted):
        call(target, **through)

    assert whole() == before


@each_call
def test_key_that_was_narrowed_by_now_gives_the_narrower(call, target, manager, through):
    services.update_key(key=manager.key, scopes=["customers:read", "apikeys:write"])
    before = whole()

    with pytest.raises(BeyondCeiling) as refused:
        call(target, **through)

    assert refused.value.beyond == {"scopes": ["jobs:read"]}
    assert whole() == before


def test_key_that_was_widened_by_now_gives_the_wider(issue, manager, through, user):
    services.update_key(key=manager.key, scopes=["customers:write", "apikeys:write"])

    issued = services.create_key(
        owner=user, name="x", **{**WITHIN, "scopes": ["customers:write"]}, **through
    )

    assert row(issued).scopes == ["customers:write"]


# --- Lifetimes ----------------------------------------------------------------------------


def lives(issued, days):
    """Whether the key ends in so many days, to the minute."""
    left = row(issued).expires_at - timezone.now()
    return abs(left - timedelta(days=days)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("default", "longest", "days"),
    [
        pytest.param(timedelta(days=30), None, 30, id="default"),
        pytest.param(30, None, 30, id="default in days"),
        pytest.param(None, 90, 90, id="the longest where there is no default"),
        pytest.param(30, 90, 30, id="default and longest"),
        pytest.param(90, 90, 90, id="default as long as the longest"),
        pytest.param({"live": 30}, None, 30, id="by environment"),
        pytest.param({"test": 7}, 90, 90, id="default of another environment"),
    ],
)
def test_key_of_whose_expiry_nothing_is_said(issue, settings, default, longest, days):
    settings.APIKEYS_DEFAULT_LIFETIME = default
    settings.APIKEYS_MAX_LIFETIME = longest

    assert lives(issue(), days)


@pytest.mark.parametrize(
    ("default", "longest"),
    [
        pytest.param(None, None, id="no lifetimes"),
        pytest.param({"test": 7}, {"test": 9}, id="of another environment"),
    ],
)
def test_key_of_whose_expiry_nothing_is_said_lives_for_ever(issue, settings, default, longest):
    settings.APIKEYS_DEFAULT_LIFETIME = default
    settings.APIKEYS_MAX_LIFETIME = longest

    assert row(issue()).expires_at is None


def test_default_lifetime_is_that_of_the_environment(issue, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = {"live": 90, "test": timedelta(days=7)}

    assert lives(issue(), 90)
    assert lives(issue(environment="test"), 7)


def test_default_lifetime_is_no_bound(issue, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = 30

    assert lives(issue(expires_at=timezone.now() + timedelta(days=90)), 90)
    assert row(issue(expires_at=None)).expires_at is None


LONGEST = ["A key of “live” ends within 90 days: say when."]


@pytest.mark.parametrize(
    "expires_at",
    [None, timedelta(days=90, minutes=1), timedelta(days=36_000)],
    ids=["never", "a minute too long", "a century"],
)
def test_key_lives_no_longer_than_the_longest(issue, issued, settings, expires_at):
    settings.APIKEYS_MAX_LIFETIME = {"live": 90}
    moment = expires_at and timezone.now() + expires_at

    with pytest.raises(InvalidInput) as created:
        issue(expires_at=moment)
    with pytest.raises(InvalidInput) as changed:
        services.update_key(key=issued.key, expires_at=moment)

    assert created.value.message_dict == changed.value.message_dict == {"expires_at": LONGEST}
    assert APIKey.objects.count() == 1
    assert row(issued).expires_at is None


@pytest.mark.parametrize("expires_at", [None, timedelta(days=365)], ids=["never", "a year"])
def test_longest_lifetime_is_that_of_the_environment(issue, settings, expires_at):
    settings.APIKEYS_MAX_LIFETIME = {"live": 90}
    moment = expires_at and timezone.now() + expires_at

    issued = issue(environment="test", expires_at=moment)
    services.update_key(key=issued.key, name="new", expires_at=moment)

    assert row(issued).expires_at == moment


def test_key_lives_as_long_as_the_longest(issue, issued, settings):
    settings.APIKEYS_MAX_LIFETIME = 90
    moment = timezone.now() + timedelta(days=90)

    services.update_key(key=issued.key, expires_at=moment)

    assert row(issued).expires_at == row(issue(expires_at=moment)).expires_at == moment


def test_longest_lifetime_of_half_a_day_is_told_as_such(issue, settings):
    settings.APIKEYS_MAX_LIFETIME = timedelta(hours=12)

    with pytest.raises(InvalidInput) as refused:
        issue(expires_at=None)

    assert refused.value.message_dict == {
        "expires_at": ["A key of “live” ends within 0.5 days: say when."]
    }


def test_change_that_does_not_name_the_expiry_is_not_held_up_by_it(issued, settings):
    """A key from before the setting goes on, and may be renamed."""
    settings.APIKEYS_MAX_LIFETIME = 90

    services.update_key(key=issued.key, name="new")

    assert (row(issued).name, row(issued).expires_at) == ("new", None)


def test_lifetime_is_named_with_all_that_is_bad(issue, issued, settings):
    settings.APIKEYS_MAX_LIFETIME = 90

    with pytest.raises(InvalidInput) as created:
        issue(name="", scopes=["x"], expires_at=None, rate_limit="x")
    with pytest.raises(InvalidInput) as changed:
        services.update_key(key=issued.key, name="", expires_at=None)

    assert set(created.value.message_dict) == {"name", "scopes", "expires_at", "rate_limit"}
    assert created.value.message_dict["expires_at"] == LONGEST
    assert set(changed.value.message_dict) == {"name", "expires_at"}


@pytest.mark.parametrize("environment", ["prod", ["live"], 5])
def test_lifetime_of_no_environment_is_not_asked_for(issue, settings, environment):
    settings.APIKEYS_MAX_LIFETIME = 90

    with pytest.raises(InvalidInput) as refused:
        issue(environment=environment, expires_at=None)

    assert list(refused.value.message_dict) == ["environment"]


def test_default_lifetime_beyond_the_key_through_which_it_is_made_is_refused(
    user, through, settings
):
    """Nobody's key is shortened in silence: they say until when."""
    settings.APIKEYS_DEFAULT_LIFETIME = 36_000
    fields = {name: value for name, value in WITHIN.items() if name != "expires_at"}

    with pytest.raises(BeyondCeiling) as refused:
        services.create_key(owner=user, name="x", **fields, **through)

    assert list(refused.value.beyond) == ["expires_at"]


# --- How many -----------------------------------------------------------------------------

AT_MOST_TWO = "There are 2 API keys of this owner, as many as there may be: revoke one."


@pytest.fixture
def at_most_two(settings):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 2


@pytest.mark.usefixtures("at_most_two")
def test_key_too_many_is_a_conflict_and_is_not_made(issue):
    issue(name="first")
    issue(name="second")
    before = whole()

    with pytest.raises(Conflict) as refused:
        issue(name="third")

    assert str(refused.value) == AT_MOST_TWO
    assert whole() == before


@pytest.mark.usefixtures("at_most_two")
@pytest.mark.parametrize(
    ("trait", "counts"),
    [("disabled", True), ("expired", True), ("revoked", False), ("deleted", False)],
)
def test_key_counts(issue, user, trait, counts):
    issue(name="first")
    APIKeyFactory(owner=user, **{trait: True})

    try:
        issue(name="third")
    except Conflict:
        refused = True
    else:
        refused = False

    assert refused is counts


@pytest.mark.usefixtures("at_most_two")
@pytest.mark.parametrize("end", [services.revoke_key, services.delete_key])
def test_key_that_is_ended_makes_room(issue, end):
    issue(name="first")
    end(key=issue(name="second").key)

    assert issue(name="third").key.pk is not None


@pytest.mark.usefixtures("at_most_two")
def test_keys_of_all_environments_count_together(issue):
    issue(environment="live")
    issue(environment="test")

    with pytest.raises(Conflict, match="as many as there may be"):
        issue(environment="test")


@pytest.mark.usefixtures("at_most_two")
def test_keys_of_another_and_of_the_project_do_not_count(issue, other):
    for owner in (other, other, None, None, None):
        issue(owner=owner)

    assert [issue().key.owner.username for _ in range(2)] == ["ann", "ann"]


@pytest.mark.usefixtures("at_most_two")
def test_repeated_id_of_a_key_is_created_already_also_where_there_are_as_many(issue):
    id_ = uuid.uuid4()
    issue(id=id_)
    issue()

    with pytest.raises(Conflict, match=r"This key was created already\."):
        issue(id=id_)

    assert APIKey.objects.count() == 2


@pytest.mark.usefixtures("at_most_two")
def test_new_id_of_a_key_too_many_is_a_conflict(issue):
    issue()
    issue()

    with pytest.raises(Conflict) as refused:
        issue(id=uuid.uuid4())

    assert str(refused.value) == AT_MOST_TWO
    assert APIKey.objects.count() == 2


@pytest.mark.usefixtures("at_most_two")
def test_key_too_many_through_a_key_is_a_conflict(issue, user, through):
    issue()

    with pytest.raises(Conflict) as refused:
        services.create_key(owner=user, name="x", **WITHIN, **through)

    assert str(refused.value) == AT_MOST_TWO


@pytest.mark.usefixtures("at_most_two")
def test_key_too_many_in_a_transaction_leaves_the_rest_of_it(issue):
    """As under ATOMIC_REQUESTS, where what comes before and after is stored."""
    issue()

    with transaction.atomic():
        issue(name="second")
        with pytest.raises(Conflict):
            issue(name="third")
        services.create_key(owner=None, name="of the project")

    assert sorted(APIKey.objects.values_list("name", flat=True)) == [
        "a key",
        "of the project",
        "second",
    ]


def test_keys_from_before_the_cap_stay_and_may_be_changed(issue, settings):
    issued = issue()
    issue()
    issue()
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 2

    services.update_key(key=issued.key, name="new")

    assert row(issued).name == "new"


def test_owner_may_be_the_lazy_user_of_a_request(user, settings):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 1
    lazy = SimpleLazyObject(lambda: user)

    issued = services.create_key(owner=lazy, name="first", actor=lazy)

    assert issued.key.owner_id == user.pk
    with pytest.raises(Conflict):
        services.create_key(owner=lazy, name="second", actor=lazy)


def test_without_a_cap_the_owner_is_not_locked(issue, settings):
    def statements():
        with CaptureQueriesContext(connection) as queries:
            issue()
        return len(queries)

    without = statements()
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 100

    assert statements() == without + 2
