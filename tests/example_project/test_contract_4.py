"""The management API, sentence by sentence: each docstring is one of section 4 of the contract."""

import json
from datetime import UTC, datetime, timedelta

import django_filters
import pytest
from django.utils import timezone

from django_apikeys import services
from django_apikeys.drf import views
from django_apikeys.models import APIKey, APIKeyEvent, APIKeyTotals
from django_apikeys.verification import verify
from example_project.crm.policy import OrganisationPolicy
from tests.example_project.conftest import Client
from tests.example_project.factories import MembershipFactory
from tests.factories import APIKeySecretFactory

KEYS = "/api/v1/keys/"
EVENTS = "/api/v1/events/"
SCOPES = "/api/v1/scopes/"
SELF = "/api/v1/keys/self/"
JSON = "application/json"
DAY = timedelta(days=1)
FIELDS = {
    *("id", "name", "description", "environment", "masked", "public_id", "owner", "status"),
    *("enabled", "scopes", "allowed_ips", "rate_limit", "expires_at", "usage_count"),
    *("error_count", "last_used_at", "last_used_ip", "created_at", "created_by", "updated_at"),
    *("revoked_at", "revoked_by", "revoked_reason", "previous_secret", "rotation_due_at"),
    "metadata",
}


class NarrowPolicy(OrganisationPolicy):
    """Its people may grant what has to do with jobs, and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["jobs:read", "jobs:write"]


@pytest.fixture
def owner(person, acme):
    """The Owner of Acme."""
    return person("owner", acme, username="olga")


@pytest.fixture
def member(person, acme):
    return person("member", acme)


@pytest.fixture
def narrow_owner(owner, settings):
    """The Owner of Acme, where they may not grant every scope."""
    settings.APIKEYS_POLICY = f"{__name__}.NarrowPolicy"
    return owner


def url(issued, tail=""):
    return f"{KEYS}{issued.key.pk}/{tail}"


def client_of(issued):
    client = Client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


def in_grace(issued):
    """The client of the previous secret of a key that was rotated."""
    issued.key.secrets.update(slot=1, retires_at=timezone.now() + DAY)
    APIKeySecretFactory(key=issued.key)
    return client_of(issued)


def listed(client, **params):
    answer = client.get(KEYS, params)
    assert answer.status_code == 200
    return [key["name"] for key in answer.json()["data"]]


def as_json(body):
    """Return *body* as a client may send it: with lone surrogates, which no renderer writes."""
    return json.dumps(body)


def reason(answer):
    return answer.status_code, answer.json()["error"]["reason"]


def stored(issued):
    return APIKey.objects.get(pk=issued.key.pk)


def offspring(issued, parent):
    """Mark a key as made through another one."""
    APIKey.objects.filter(pk=issued.key.pk).update(created_by_key=parent.key)
    return issued


# --- Mounted, and lists -------------------------------------------------------------------


def test_mounted_at_api_v1(owner):
    """In the example project it is mounted at /api/v1/."""
    assert [owner.get(path).status_code for path in (KEYS, EVENTS, SCOPES)] == [200, 200, 200]


def test_lists_are_filtered_with_django_filter():
    """Lists are filtered with django-filter."""
    filtersets = [views.APIKeyViewSet.filterset_class, views.EventsView.filterset_class]

    assert all(issubclass(filterset, django_filters.FilterSet) for filterset in filtersets)


def test_list_of_every_owner_whom_the_caller_may_see(person, issue, acme, globex):
    """GET keys/: the keys of every owner whom the caller may see."""
    issue(name="of acme")
    issue(name="of globex", owner=globex)
    caller = person("member", acme, globex)

    assert sorted(listed(caller)) == ["of acme", "of globex"]
    assert listed(caller, owner=globex.pk) == ["of globex"]


FILTERS = {
    "status": "disabled",
    "environment": "test",
    "scope": "jobs:read",
    "search": "wanted",
    "created_after": "2026-01-01T00:00:00Z",
    "created_before": "2020-01-01T00:00:00Z",
    "last_used_after": "2026-01-01T00:00:00Z",
    "last_used_before": "2020-01-01T00:00:00Z",
    "expires_before": "2040-01-01T00:00:00Z",
    "never_used": "true",
}
EARLY, MIDDLE, LATE = (datetime(year, 1, 1, tzinfo=UTC) for year in (2019, 2025, 2026))
WANTED = {
    "status": {"enabled": False},
    "environment": {"environment": "test"},
    "scope": {"scopes": ["jobs:read"]},
    "search": {"description": "The one that is WANTED."},
    "created_after": {"created_at": LATE},
    "created_before": {"created_at": EARLY},
    "last_used_after": {"last_used_at": LATE},
    "last_used_before": {"last_used_at": EARLY},
    "expires_before": {"expires_at": datetime(2039, 12, 31, tzinfo=UTC)},
    "never_used": {"first_used_at": None},
}


@pytest.mark.parametrize("name", FILTERS)
def test_filter(name, owner, issue):
    """GET keys/: ?status= &environment= … &never_used=, each narrows the list."""
    for label in ("other", "one"):
        key = issue(name=label).key
        fields = {"created_at": MIDDLE, **(WANTED[name] if label == "one" else {})}
        used_at = fields.pop("last_used_at", MIDDLE)
        key.secrets.update(first_used_at=fields.pop("first_used_at", MIDDLE))
        APIKeyTotals.objects.create(key=key, requests=1, last_used_at=used_at)
        APIKey.objects.filter(pk=key.pk).update(**fields)

    assert listed(owner, **{name: FILTERS[name]}) == ["one"]


def test_ordering(owner, issue):
    """GET keys/: ?ordering=."""
    issue(name="b")
    issue(name="a")

    assert listed(owner, ordering="name") == ["a", "b"]
    assert listed(owner, ordering="-name") == ["b", "a"]


@pytest.mark.parametrize("name", [*FILTERS, "owner", "ordering", "staus"])
def test_unknown_value(name, owner):
    """An unknown value is 400."""
    value = "a" * 201 if name == "search" else "nonsense"

    answer = owner.get(KEYS, {name: value})

    assert reason(answer) == (400, "invalid")
    assert list(answer.json()["error"]["fields"]) == [name]


def test_revoked_keys_stay_in_the_list(owner, issue):
    """Revoked keys stay in the list."""
    services.revoke_key(key=issue(name="revoked").key)

    assert listed(owner) == ["revoked"]


# --- Create -------------------------------------------------------------------------------

EVERY_FIELD = {
    "name": "sync",
    "description": "Nightly.",
    "environment": "test",
    "scopes": ["jobs:read"],
    "allowed_ips": ["192.0.2.0/24"],
    "rate_limit": "300/m",
    "expires_at": "2100-01-01T00:00:00Z",
    "enabled": False,
    "metadata": {"team": "a"},
}


def test_create_takes_every_field(owner, acme):
    """POST keys/: name, description, environment, scopes, …, metadata, owner."""
    answer = owner.post(KEYS, {**EVERY_FIELD, "owner": acme.pk})

    body = answer.json()["data"]
    assert {name: body[name] for name in EVERY_FIELD} == EVERY_FIELD
    assert body["owner"] == {"id": acme.pk, "name": "Acme"}


def test_create_answers_the_secret_once(owner, client):
    """POST keys/: 201, the key with ``secret``, once, Cache-Control: no-store."""
    answer = owner.post(KEYS, {"name": "sync", "scopes": ["jobs:read"]})

    body = answer.json()["data"]
    path = f"{KEYS}{body['id']}/"
    later = [
        owner.get(path),
        owner.get(KEYS),
        owner.patch(path, {"name": "x"}),
        owner.get(f"{path}events/"),
    ]
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert set(body) == FIELDS | {"secret"}
    headers = {"Authorization": f"Bearer {body['secret']}"}
    assert client.get("/api/v1/jobs/", headers=headers).status_code == 200
    assert [body["secret"][22:] in again.content.decode() for again in later] == [False] * 4


def test_owner_is_needed_where_several_are_possible(person, acme, globex):
    """POST keys/: owner is needed where several are possible, and only there."""
    of_two = person("owner", acme, globex)

    unsaid = of_two.post(KEYS, {"name": "x"})
    said = of_two.post(KEYS, {"name": "x", "owner": globex.pk})
    of_one = person("owner", acme).post(KEYS, {"name": "x"})

    assert list(unsaid.json()["error"]["fields"]) == ["owner"]
    assert said.json()["data"]["owner"] == {"id": globex.pk, "name": "Globex"}
    assert of_one.json()["data"]["owner"] == {"id": acme.pk, "name": "Acme"}


def test_owner_is_an_id_as_in_the_filter(person, issue, acme, globex):
    """In POST keys/ owner is an id, as in ?owner=."""
    caller = person("owner", acme, globex)

    by_number = caller.post(KEYS, {"name": "x", "owner": globex.pk})
    by_text = caller.post(KEYS, {"name": "x", "owner": str(globex.pk)})
    by_slug = caller.post(KEYS, {"name": "x", "owner": "globex"})

    assert [by_number.status_code, by_text.status_code, by_slug.status_code] == [201, 201, 400]
    assert caller.get(KEYS, {"owner": globex.pk}).json()["meta"]["total"] == 2
    assert caller.get(KEYS, {"owner": "globex"}).status_code == 400


def test_only_a_name_is_required(owner):
    """In POST keys/ only ``name`` is required; scopes default to none."""
    nameless = owner.post(KEYS, {})
    named = owner.post(KEYS, {"name": "x"})

    assert list(nameless.json()["error"]["fields"]) == ["name"]
    assert named.status_code == 201
    assert named.json()["data"]["scopes"] == []


# --- Change, delete, revoke ---------------------------------------------------------------


@pytest.mark.parametrize("name", sorted({*EVERY_FIELD} - {"environment"}))
def test_patch_writes_only_what_it_names(name, owner, issue):
    """GET, PATCH keys/{id}/: name, description, …, metadata; writes only what it names."""
    issued = issue()
    before = APIKey.objects.values().get()

    answer = owner.patch(url(issued), {name: EVERY_FIELD[name]})

    after = APIKey.objects.values().get()
    assert answer.json()["data"][name] == EVERY_FIELD[name]
    assert {field for field in after if after[field] != before[field]} == {name, "updated_at"}


@pytest.mark.parametrize("name", ["environment", "owner"])
def test_patch_does_not_move_a_key(name, owner, issue, acme):
    """PATCH keys/{id}/ takes neither environment nor owner."""
    issued = issue()

    answer = owner.patch(url(issued), {name: {"environment": "live", "owner": acme.pk}[name]})

    assert list(answer.json()["error"]["fields"]) == [name]


def test_patch_of_a_revoked_key(owner, issue):
    """PATCH keys/{id}/: a revoked key is 409."""
    issued = issue()
    services.revoke_key(key=issued.key)

    answer = owner.patch(url(issued), {"name": "x"})

    assert reason(answer) == (409, "conflict")


def test_later_expiry_revives_an_expired_key(owner, issue):
    """PATCH keys/{id}/: a later expiry revives an expired one."""
    issued = issue("jobs:read")
    program = client_of(issued)
    APIKey.objects.update(expires_at=timezone.now() - DAY)
    dead = program.get("/api/v1/jobs/")

    answer = owner.patch(url(issued), {"expires_at": "2100-01-01T00:00:00Z"})

    assert reason(dead) == (401, "expired_key")
    assert answer.json()["data"]["status"] == "active"
    assert program.get("/api/v1/jobs/").status_code == 200


def test_delete_revokes_and_leaves_every_list(owner, issue):
    """DELETE keys/{id}/: 204; the key is revoked, leaves every list, answers revoked_key."""
    issued = issue("jobs:read")

    answer = owner.delete(url(issued))

    assert (answer.status_code, answer.content) == (204, b"")
    assert (listed(owner), listed(owner, status="revoked")) == ([], [])
    assert owner.get(url(issued)).status_code == 404
    assert reason(client_of(issued).get("/api/v1/jobs/")) == (401, "revoked_key")


def test_delete_keeps_row_usage_and_events(owner, issue):
    """DELETE keys/{id}/: row and usage stay, and events stay."""
    issued = issue()
    APIKeyTotals.objects.create(key=issued.key, requests=5)

    owner.delete(url(issued))

    assert stored(issued).revoked_at is not None
    assert APIKeyTotals.objects.get(key=issued.key).requests == 5
    assert [event.type for event in APIKeyEvent.objects.all()] == ["deleted", "created"]


def test_revoke_is_for_good(owner, issue):
    """POST keys/{id}/revoke/ {reason}: 200, for good; the row stays, greyed out."""
    issued = issue("jobs:read")

    answer = owner.post(url(issued, "revoke/"), {"reason": "It leaked."})
    owner.patch(url(issued), {"enabled": True, "expires_at": None})

    body = owner.get(url(issued)).json()["data"]
    assert answer.status_code == 200
    assert (body["status"], body["revoked_reason"]) == ("revoked", "It leaked.")
    assert body["revoked_by"]["name"] == "olga"
    assert reason(client_of(issued).get("/api/v1/jobs/")) == (401, "revoked_key")


def test_repeated_revoke_changes_nothing(owner, issue):
    """POST keys/{id}/revoke/: repeating it changes nothing."""
    issued = issue()
    first = owner.post(url(issued, "revoke/"), {"reason": "It leaked."})

    second = owner.post(url(issued, "revoke/"), {"reason": "Another."})

    assert (second.status_code, second.json()) == (200, first.json())
    assert APIKeyEvent.objects.filter(type="revoked").count() == 1


@pytest.mark.parametrize(
    ("body", "revoked"),
    [({"cascade": True}, {"first", "second", "third"}), ({"cascade": False}, {"first"})],
    ids=["with cascade", "without"],
)
def test_cascade(body, revoked, owner, issue):
    """POST keys/{id}/revoke/: ``cascade`` revokes what was made through it, to the last."""
    first = issue(name="first")
    second = offspring(issue(name="second"), first)
    offspring(issue(name="third"), second)
    issue(name="unrelated")

    owner.post(url(first, "revoke/"), body)

    dead = APIKey.objects.filter(revoked_at__isnull=False)
    assert set(dead.values_list("name", flat=True)) == revoked


# --- Events, scopes, self -----------------------------------------------------------------


def test_audit_trail_of_a_key(member, issue):
    """GET keys/{id}/events/ is the audit trail of a key."""
    issued = issue()
    issue()
    services.update_key(key=issued.key, name="new")

    rows = member.get(url(issued, "events/")).json()["data"]

    assert [row["type"] for row in rows] == ["updated", "created"]
    assert {row["key"]["id"] for row in rows} == {str(issued.key.pk)}


def test_audit_trail_of_an_owner(member, issue, globex):
    """GET events/?key= is the audit trail of an owner, deleted keys included."""
    issue(name="of globex", owner=globex)
    issue(name="one")
    deleted = issue(name="deleted")
    services.delete_key(key=deleted.key)

    every = member.get(EVENTS).json()["data"]
    of_one = member.get(EVENTS, {"key": deleted.key.pk}).json()["data"]

    assert [(row["type"], row["key"]["name"]) for row in every] == [
        ("deleted", "deleted"),
        ("created", "deleted"),
        ("created", "one"),
    ]
    assert [row["type"] for row in of_one] == ["deleted", "created"]


def test_scopes_that_the_caller_may_grant(narrow_owner, member):
    """GET scopes/: the scopes that the caller may grant, as name and description."""
    assert narrow_owner.get(SCOPES).json()["data"] == [
        {"name": "jobs:read", "description": "Read jobs"},
        {"name": "jobs:write", "description": "Create, change and delete jobs"},
    ]
    assert member.get(SCOPES).json()["data"] == []


def test_scopes_that_a_key_may_grant(issue):
    """GET scopes/: those that the calling key has, and none that manages keys."""
    program = client_of(issue("apikeys:read", "apikeys:write", "invoices:*", "self:revoke"))

    names = [scope["name"] for scope in program.get(SCOPES).json()["data"]]

    assert names == ["invoices:read", "invoices:write", "self:revoke"]


def test_what_a_key_may_always_read_of_itself(issue):
    """GET keys/self/ is what a key may always read of itself."""
    issued = issue(name="sync")

    answer = client_of(issued).get(SELF)

    assert answer.status_code == 200
    assert set(answer.json()["data"]) == FIELDS
    assert answer.json()["data"]["id"] == str(issued.key.pk)


def test_self_revoke(issue):
    """POST keys/self/revoke/: a key does it to itself with ``self:revoke``, and only with it."""
    with_it, without = issue("jobs:read", "self:revoke"), issue("*")

    done = client_of(with_it).post(f"{SELF}revoke/", {"reason": "Done."})
    refused = client_of(without).post(f"{SELF}revoke/")

    assert (done.status_code, done.json()["data"]["status"]) == (200, "revoked")
    assert done.json()["data"]["revoked_reason"] == "Done."
    assert reason(client_of(with_it).get("/api/v1/jobs/")) == (401, "revoked_key")
    assert reason(refused) == (403, "insufficient_scope")
    assert stored(without).revoked_at is None


@pytest.mark.parametrize(("method", "path"), [("get", SELF), ("post", f"{SELF}revoke/")])
def test_self_is_nothing_for_a_person(method, path, owner):
    """GET keys/self/, POST keys/self/revoke/: 403 for a person."""
    assert reason(getattr(owner, method)(path)) == (403, "permission_denied")


# --- As JSON ------------------------------------------------------------------------------


def test_a_key_as_json(owner, issue, acme):
    """A key as JSON: ``id`` (UUID), ``name``, …, ``rotation_due_at``, ``metadata``."""
    issued = issue(
        "jobs:read",
        name="sync",
        rate_limit="300/m",
        actor=MembershipFactory.create(organisation=acme, user__username="carl").user,
    )
    moment = datetime(2026, 11, 20, 10, 37, tzinfo=UTC)
    APIKey.objects.update(created_at=moment, updated_at=moment)
    ends = datetime(2100, 1, 1, tzinfo=UTC)
    previous = APIKeySecretFactory(key=issued.key, slot=1, retires_at=ends)
    issued.key.secrets.filter(slot=0).update(created_at=moment)

    body = owner.get(url(issued)).json()["data"]

    assert set(body) == FIELDS
    assert {name: body[name] for name in FIELDS - {"created_by"}} == {
        "id": str(issued.key.pk),
        "name": "sync",
        "description": "",
        "environment": "live",
        "masked": f"{issued.secret[:13]}…{issued.secret[-10:-6]}",
        "public_id": issued.secret[9:21],
        "owner": {"id": acme.pk, "name": "Acme"},
        "status": "active",
        "enabled": True,
        "scopes": ["jobs:read"],
        "allowed_ips": [],
        "rate_limit": "300/m",
        "expires_at": None,
        "usage_count": 0,
        "error_count": 0,
        "last_used_at": None,
        "last_used_ip": None,
        "created_at": "2026-11-20T10:37:00Z",
        "updated_at": "2026-11-20T10:37:00Z",
        "revoked_at": None,
        "revoked_by": None,
        "revoked_reason": "",
        "previous_secret": {
            "masked": previous.masked,
            "valid_until": "2100-01-01T00:00:00Z",
            "uses_since_rotation": 0,
            "last_used_at": None,
            "last_used_ip": None,
        },
        "rotation_due_at": "2027-02-18T10:37:00Z",
        "metadata": {},
    }
    assert set(body["created_by"]) == {"id", "name"}
    assert body["created_by"]["name"] == "carl"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, "active"),
        ({"enabled": False}, "disabled"),
        ({"expires_at": EARLY}, "expired"),
        ({"revoked_at": EARLY}, "revoked"),
    ],
)
def test_status(fields, status, owner, issue):
    """``status`` is one of active, disabled, expired, revoked."""
    issued = issue()
    APIKey.objects.update(**fields)

    assert owner.get(url(issued)).json()["data"]["status"] == status


def test_no_owner_is_null(person, issue):
    """``owner``, ``created_by``, ``revoked_by`` are {"id", "name"} or null."""
    issued = issue(owner=None)

    body = person("owner", is_superuser=True).get(url(issued)).json()["data"]

    assert (body["owner"], body["created_by"], body["revoked_by"]) == (None, None, None)


def test_an_event(owner, member, issue, acme):
    """An event: id, at, type, key, owner, actor, address, user_agent, reason, changes."""
    issued = issue(name="sync")

    owner.patch(url(issued), {"rate_limit": "5/s"}, headers={"User-Agent": "curl/8.0"})

    event = APIKeyEvent.objects.filter(type="updated").get()
    assert member.get(url(issued, "events/")).json()["data"][0] == {
        "id": event.pk,
        "at": event.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "type": "updated",
        "key": {"id": str(issued.key.pk), "name": "sync"},
        "owner": {"id": acme.pk, "name": "Acme"},
        "actor": {"kind": "user", "id": int(event.actor_id), "name": "olga"},
        "address": "127.0.0.1",
        "user_agent": "curl/8.0",
        "reason": "",
        "changes": {"rate_limit": ["", "5/s"]},
    }


def test_kinds_of_actors(owner, issue, issued_through):
    """The actor of an event is of kind user, key, command or system."""
    issue(name="by the system")
    issued_through(name="by a key")
    owner.post(KEYS, {"name": "by a user"})

    kinds = APIKeyEvent.objects.filter(key_name__startswith="by ").order_by("pk")

    assert list(kinds.values_list("key_name", "actor_kind")) == [
        ("by the system", "system"),
        ("by a key", "key"),
        ("by a user", "user"),
    ]


# --- Bad input ----------------------------------------------------------------------------

BAD = {
    "unknown scopes": ("scopes", ["jobs:fly"]),
    "a bad network": ("allowed_ips", ["192.0.2.7/24"]),
    "a bad rate": ("rate_limit", "300/y"),
    "an expiry in the past": ("expires_at", "2020-01-01T00:00:00Z"),
    "an unknown field": ("allowed_ip", ["192.0.2.7"]),
    "a read-only field": ("usage_count", 0),
    "a name of 101 characters": ("name", "a" * 101),
    "a description of 1001 characters": ("description", "a" * 1001),
    "101 scopes": ("scopes", ["jobs:read"] * 101),
    "101 networks": ("allowed_ips", [f"10.0.0.{n}" for n in range(101)]),
    "metadata that are no object": ("metadata", ["a"]),
    "metadata of more than 4 kB": ("metadata", {"a": "b" * 4096}),
    "metadata with NUL": ("metadata", {"a": "\x00"}),
    "metadata with a lone surrogate": ("metadata", {"a": "\ud800"}),
}


@pytest.mark.parametrize(("name", "value"), BAD.values(), ids=BAD)
def test_bad_input(name, value, owner, issue):
    """Bad input is 400, at creation and on change, and nothing is stored."""
    issued = issue()
    body = {name: value}

    created = owner.post(KEYS, as_json({"name": "x", **body}), content_type=JSON)
    changed = owner.patch(url(issued), as_json(body), content_type=JSON)

    for answer in (created, changed):
        assert reason(answer) == (400, "invalid")
        assert list(answer.json()["error"]["fields"]) == [name]
    assert [event.type for event in APIKeyEvent.objects.all()] == ["created"]


GOOD = {
    "a name of 100 characters": ("name", "a" * 100),
    "a description of 1000 characters": ("description", "a" * 1000),
    "100 networks": ("allowed_ips", [f"10.0.0.{n}" for n in range(100)]),
    "metadata of 4 kB": ("metadata", {"a": "b" * 4086}),
}


@pytest.mark.parametrize(("name", "value"), GOOD.values(), ids=GOOD)
def test_bounds_are_within(name, value, owner):
    """Bounds: name 100 characters, description 1 000, 100 networks, metadata of 4 kB."""
    answer = owner.post(KEYS, {"name": "x", name: value})

    assert answer.status_code == 201
    assert answer.json()["data"][name] == value


def test_every_bad_field_is_named_at_once(owner):
    """Bad input is 400, every bad field named at once."""
    body = dict([("name", ""), *(case for case in BAD.values() if case[0] != "name")])

    answer = owner.post(KEYS, as_json(body), content_type=JSON)

    assert set(answer.json()["error"]["fields"]) == set(body)


def test_name_where_none_is_required(owner, settings):
    """A missing name is 400, unless APIKEYS_REQUIRE_NAME = False."""
    required = owner.post(KEYS, {})
    settings.APIKEYS_REQUIRE_NAME = False

    assert (required.status_code, owner.post(KEYS, {}).status_code) == (400, 201)


@pytest.mark.parametrize("tail", ["revoke/", "self"])
def test_unknown_field_in_any_body(tail, owner, issue):
    """An unknown field is 400 in any body."""
    issued = issue("self:revoke")
    caller, path = {
        "revoke/": (owner, url(issued, "revoke/")),
        "self": (client_of(issued), f"{SELF}revoke/"),
    }[tail]

    answer = caller.post(path, {"becuase": "It leaked."})

    assert list(answer.json()["error"]["fields"]) == ["becuase"]
    assert stored(issued).revoked_at is None


@pytest.mark.parametrize("body", ["{not json", "[]", '{"nonsense": 1}'])
@pytest.mark.parametrize(("method", "tail"), [("post", None), ("patch", ""), ("post", "revoke/")])
def test_permission_is_asked_before_the_body_is_read(method, tail, body, member, issue):
    """Permission is asked before the body is read."""
    path = KEYS if tail is None else url(issue(), tail)

    answer = getattr(member, method)(path, body, content_type=JSON)

    assert reason(answer) == (403, "permission_denied")


# --- Who may ------------------------------------------------------------------------------


class SayingPolicy(OrganisationPolicy):
    """One that answers everything in its own way."""

    def owners(self, person, action):
        organisations = super().owners(person, "see")
        return organisations if action in ("see", "revoke") else organisations.none()

    def request_user(self, grant):
        return grant.owner

    def plan(self, owner):
        return "gold"


def test_the_policy_says_what_may_be_done(owner, issue, settings):
    """A policy answers which owners a user may see, and what they may do for an owner."""
    settings.APIKEYS_POLICY = f"{__name__}.SayingPolicy"
    issued = issue()

    answers = [
        owner.get(url(issued)),
        owner.post(KEYS, {"name": "x"}),
        owner.patch(url(issued), {"name": "x"}),
        owner.delete(url(issued)),
        owner.post(url(issued, "revoke/")),
    ]

    assert [answer.status_code for answer in answers] == [200, 403, 403, 403, 200]


def test_the_policy_says_who_a_key_is_and_its_plan(issue, acme, settings, rf):
    """A policy answers who request.user is for a key, and which plan an owner is on."""
    settings.APIKEYS_POLICY = f"{__name__}.SayingPolicy"
    request = rf.get("/", headers={"Authorization": f"Bearer {issue().secret}"})

    grant = verify(request)

    assert grant.plan == "gold"
    assert SayingPolicy().request_user(grant) == acme


# --- The ceiling --------------------------------------------------------------------------

# What a key that manages others has here, beside its scopes.
NARROW = {
    "allowed_ips": ["127.0.0.0/8"],
    "rate_limit": "60/m",
    "expires_at": datetime(2090, 1, 1, tzinfo=UTC),
}
WITHIN = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["127.0.0.1"],
    "rate_limit": "60/m",
    "expires_at": "2090-01-01T00:00:00Z",
}
BEYOND = {
    "a scope more": {"scopes": ["jobs:read", "invoices:read"]},
    "a network more": {"allowed_ips": ["127.0.0.1", "192.0.2.1"]},
    "any network": {"allowed_ips": []},
    "a later expiry": {"expires_at": "2090-01-01T00:00:01Z"},
    "no expiry": {"expires_at": None},
    "a higher rate": {"rate_limit": "61/m"},
    "the plan's rate": {"rate_limit": None},
}


@pytest.fixture
def manager(issue):
    """A key that manages keys, and is narrow in every respect."""
    return issue("apikeys:read", "apikeys:write", "jobs:*", name="manager", **NARROW)


@pytest.fixture
def issued_through(manager, acme):
    """Make a key through *manager*."""

    def issued_through(**fields):
        answer = client_of(manager).post(KEYS, {"name": "child", **WITHIN, **fields})
        assert answer.status_code == 201, answer.json()
        return APIKey.objects.get(pk=answer.json()["data"]["id"])

    return issued_through


@pytest.mark.parametrize(
    ("scopes", "read", "write"),
    [
        (["*"], 403, 403),
        (["apikeys:read"], 200, 403),
        (["apikeys:write"], 403, 200),
        (["apikeys:read", "apikeys:write"], 200, 200),
    ],
    ids=["*", "read", "write", "read and write"],
)
def test_key_needs_a_scope_to_manage_keys(scopes, read, write, issue):
    """An API key reaches the management API only with apikeys:read / apikeys:write."""
    issued, program = issue(), client_of(issue(*scopes))

    answers = [program.get(url(issued)), program.patch(url(issued), {"name": "new"})]

    assert [answer.status_code for answer in answers] == [read, write]


@pytest.mark.parametrize("fields", ["another owner", "no owner", "another environment"])
@pytest.mark.parametrize(
    ("method", "tail"),
    [("get", ""), ("patch", ""), ("delete", ""), ("post", "revoke/"), ("get", "events/")],
)
def test_key_manages_its_own_owner_and_environment(method, tail, fields, issue, globex):
    """An API key manages keys for its own owner and environment: all else is 404."""
    foreign = issue(
        name="foreign",
        **{
            "another owner": {"owner": globex},
            "no owner": {"owner": None},
            "another environment": {"environment": "test"},
        }[fields],
    )
    program = client_of(issue("apikeys:read", "apikeys:write", name="manager"))

    answer = getattr(program, method)(url(foreign, tail))

    assert reason(answer) == (404, "not_found")
    assert stored(foreign).revoked_at is None
    assert listed(program) == ["manager"]
    events = program.get(EVENTS).json()["data"]
    assert {event["key"]["name"] for event in events} == {"manager"}


def test_key_makes_keys_of_its_own_environment(issue):
    """A key that is made through one is of its environment, and of no other."""
    program = client_of(issue("apikeys:write", environment="test"))

    unsaid = program.post(KEYS, {"name": "x"})
    live = program.post(KEYS, {"name": "x", "environment": "live"})

    assert unsaid.json()["data"]["environment"] == "test"
    assert reason(live) == (403, "beyond_ceiling")


def test_key_may_do_what_lies_within_it(manager):
    """Key C may create, change, revoke or delete key T where T lies within C."""
    program = client_of(manager)

    created = program.post(KEYS, {"name": "child", **WITHIN})
    path = f"{KEYS}{created.json()['data']['id']}/"
    answers = [
        program.patch(path, {"scopes": [], "rate_limit": "1/m"}),
        program.post(f"{path}revoke/"),
        program.delete(path),
    ]

    assert created.status_code == 201
    assert [answer.status_code for answer in answers] == [200, 200, 204]


@pytest.mark.parametrize("more", BEYOND.values(), ids=BEYOND)
def test_key_as_it_would_be(more, manager, issued_through):
    """… as it would be, lies within C: scopes, networks, expiry, rate; else beyond_ceiling."""
    child = issued_through()
    program = client_of(manager)

    created = program.post(KEYS, {"name": "another", **WITHIN, **more})
    changed = program.patch(f"{KEYS}{child.pk}/", more)

    assert [reason(created), reason(changed)] == [(403, "beyond_ceiling")] * 2
    assert APIKey.objects.count() == 2
    assert APIKeyEvent.objects.filter(type="updated").count() == 0


@pytest.mark.parametrize("more", BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize(("method", "tail"), [("patch", ""), ("delete", ""), ("post", "revoke/")])
def test_key_as_it_is(method, tail, more, manager, owner):
    """… T, as it is, lies within C: a key that goes further is not even narrowed."""
    wider = owner.post(KEYS, {"name": "wider", **WITHIN, **more}).json()["data"]
    body = WITHIN if method == "patch" else {}

    answer = getattr(client_of(manager), method)(f"{KEYS}{wider['id']}/{tail}", body)

    assert reason(answer) == (403, "beyond_ceiling")
    assert owner.get(f"{KEYS}{wider['id']}/").json()["data"] == {
        name: value for name, value in wider.items() if name != "secret"
    }


@pytest.mark.parametrize("scope", ["apikeys:read", "apikeys:write"])
def test_no_key_grants_a_scope_that_manages_keys(scope, issue):
    """No key grants any ``apikeys:…`` scope, those that it has included."""
    program = client_of(issue("*", "apikeys:read", "apikeys:write"))
    issued = issue()

    created = program.post(KEYS, {"name": "x", "scopes": [scope]})
    changed = program.patch(url(issued), {"scopes": [scope]})

    assert [reason(created), reason(changed)] == [(403, "beyond_ceiling")] * 2


def test_no_key_enables_a_key(issue):
    """No key re-enables a key; it may disable one."""
    program = client_of(issue("apikeys:write"))
    issued = issue()

    disabled = program.patch(url(issued), {"enabled": False})
    enabled = program.patch(url(issued), {"enabled": True})

    assert disabled.json()["data"]["status"] == "disabled"
    assert reason(enabled) == (403, "beyond_ceiling")
    assert stored(issued).enabled is False


def test_secret_in_its_grace_manages_nothing(issue):
    """No key manages keys through a secret in its grace."""
    program = in_grace(issue("*", "apikeys:read", "apikeys:write"))
    issued = issue()

    answers = [
        program.post(KEYS, {"name": "x"}),
        program.patch(url(issued), {"name": "x"}),
        program.post(url(issued, "revoke/")),
        program.delete(url(issued)),
    ]

    assert [reason(answer) for answer in answers] == [(403, "permission_denied")] * 4
    assert stored(issued).revoked_at is None


def test_secret_in_its_grace_works_elsewhere(issue):
    """… a secret in its grace works everywhere else, and here may read, self/revoke."""
    issued = issue("jobs:read", "apikeys:read", "self:revoke")
    program = in_grace(issued)

    read = [program.get(path) for path in ("/api/v1/jobs/", KEYS, EVENTS, SCOPES, SELF)]
    revoked = program.post(f"{SELF}revoke/")

    assert [answer.status_code for answer in read] == [200] * 5
    assert (revoked.status_code, stored(issued).status_at(timezone.now())) == (200, "revoked")


# What goes further than the Owner may grant.
INVOICES = {"scopes": ["invoices:read"], "expires_at": datetime(2090, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"enabled": False}, {"enabled": True}),
        ({}, {"expires_at": "2091-01-01T00:00:00Z"}),
        ({}, {"expires_at": None}),
    ],
    ids=["enable", "lengthen", "for ever"],
)
def test_person_is_bound_as_well(fields, change, narrow_owner, issue):
    """Whoever may not grant all scopes of T may not enable or lengthen it."""
    issued = issue(**INVOICES, **fields)

    answer = narrow_owner.patch(url(issued), change)

    assert reason(answer) == (403, "beyond_ceiling")
    assert APIKeyEvent.objects.count() == 1


def test_person_creates_what_they_may_grant(narrow_owner):
    """Whoever may not grant all scopes of T may not create it."""
    within = narrow_owner.post(KEYS, {"name": "x", "scopes": ["jobs:read"]})
    beyond = narrow_owner.post(KEYS, {"name": "x", "scopes": ["jobs:read", "invoices:read"]})

    assert within.status_code == 201
    assert reason(beyond) == (403, "beyond_ceiling")
    assert APIKey.objects.count() == 1


@pytest.mark.parametrize(
    "change",
    [{"enabled": False}, {"expires_at": "2089-01-01T00:00:00Z"}, {"scopes": []}, {"name": "x"}],
    ids=["disable", "shorten", "fewer scopes", "rename"],
)
def test_person_may_take_away_what_they_may_not_give(change, narrow_owner, issue):
    """For a person: what gives nothing is theirs to do, as the policy lets them change."""
    issued = issue(**INVOICES)

    assert narrow_owner.patch(url(issued), change).status_code == 200
    assert narrow_owner.post(url(issued, "revoke/")).status_code == 200


def test_key_that_was_made_through_a_key_remembers_it(manager, issued_through):
    """A key made through a key remembers it, and was made by no person."""
    child = issued_through()

    assert child.created_by_key == manager.key
    assert child.created_by is None
