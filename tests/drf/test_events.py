"""``GET events/`` and ``GET keys/{id}/events/``: the audit trail."""

import csv
import io
import uuid
from datetime import UTC, datetime

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import connection
from django.http import HttpResponse
from django.test.utils import CaptureQueriesContext
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.actors import Actor
from django_apikeys.drf.views import ManagementView
from django_apikeys.models import EVENT_TYPES, APIKey, APIKeyEvent, APIKeyTotals
from django_apikeys.policy import UserPolicy
from django_apikeys.representation import event_as_dict
from tests.conftest import bearer
from tests.documents import ROOT
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

EVENTS = "/api/events/"
EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 6, 1, 12, 30, 15, 250000, tzinfo=UTC)
KEY_ID = uuid.UUID("5f1c3c5e-0000-4000-8000-000000000000")


class UUIDOwners(UserPolicy):
    """Owners with UUIDs, of which one is not to be seen."""

    def owners(self, person, action):
        return APIKey.objects.exclude(name="hidden")


class RelatedOwners(UserPolicy):
    """Owners whose primary key is a foreign key, to a UUID."""

    def owners(self, person, action):
        return APIKeyTotals.objects.exclude(key__name="hidden")


class TextOwners(UserPolicy):
    """Owners whose primary key is a text."""

    def owners(self, person, action):
        return Session.objects.exclude(pk="hidden")


class AllOwners(UserPolicy):
    """Everyone may see the keys of all."""

    def owners(self, person, action):
        return get_user_model()._default_manager.all()


def plain_answer(exc, context):
    """Answer as an exception handler may that knows no renderers."""
    return HttpResponse("Sorry.", status=400)


def event(**fields):
    values = {"at": EARLY, "type": "updated", "actor_kind": "system", **fields}
    return APIKeyEvent.objects.create(**values)


def shown(response):
    assert response.status_code == 200, response.json()
    return [row["id"] for row in response.json()["data"]]


def of_key(key):
    return f"/api/keys/{key.pk}/events/"


@pytest.fixture
def rival(db):
    client = APIClient()
    client.force_login(UserFactory(username="rival"))
    return client


@pytest.fixture
def staff(db):
    client = APIClient()
    client.force_login(UserFactory(username="staff", superuser=True))
    return client


# --- Who may ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [EVENTS, f"/api/keys/{KEY_ID}/events/"])
@pytest.mark.django_db
def test_nobody_is_401(path, client):
    response = client.get(path)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("scopes", [["*"], ["apikeys:write"]], ids=["star", "write"])
def test_key_without_the_scope_is_403(scopes, issue, client):
    issued = issue(scopes=scopes)

    answers = [
        client.get(path, headers=bearer(issued.secret)) for path in (EVENTS, of_key(issued.key))
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert [answer.headers["WWW-Authenticate"] for answer in answers] == [
        'Bearer realm="api", error="insufficient_scope", scope="apikeys:read"'
    ] * 2


@pytest.fixture
def reader(issue):
    """A key that reads keys."""
    return issue(name="reader", scopes=["apikeys:read"])


def test_key_reads_the_events_of_its_owner_and_environment(issue, reader, client):
    issue(name="sibling")
    issue(name="elsewhere", environment="test")
    issue(name="of another", owner=UserFactory())
    issue(name="of the project", owner=None)

    response = client.get(EVENTS, headers=bearer(reader.secret))

    assert response.status_code == 200
    assert [row["key"]["name"] for row in response.json()["data"]] == ["sibling", "reader"]
    assert response.json()["meta"]["total"] == 2


def test_key_reads_the_events_of_deleted_keys_too(issue, reader, client):
    deleted = issue(name="deleted").key
    services.delete_key(key=deleted)

    listed = client.get(EVENTS, {"key": deleted.pk}, headers=bearer(reader.secret))
    by_key = client.get(of_key(deleted), headers=bearer(reader.secret))

    assert [row["type"] for row in listed.json()["data"]] == ["deleted", "created"]
    assert by_key.status_code == 404


def test_key_reads_the_events_of_one_key(issue, reader, client):
    sibling = issue(name="sibling").key

    response = client.get(of_key(sibling), headers=bearer(reader.secret))

    assert [row["key"]["name"] for row in response.json()["data"]] == ["sibling"]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"environment": "test"}, id="elsewhere"),
        pytest.param({"owner": None}, id="of-the-project"),
        pytest.param({"owner": "another"}, id="of-another"),
    ],
)
def test_key_finds_no_events_of_a_key_of_others(fields, issue, reader, client):
    if fields.get("owner"):
        fields = {"owner": UserFactory()}
    key = issue(**fields).key

    by_key = client.get(of_key(key), headers=bearer(reader.secret))
    listed = client.get(EVENTS, {"key": key.pk}, headers=bearer(reader.secret))

    assert by_key.status_code == 404
    assert listed.json()["data"] == []


def test_key_asks_for_no_owner_but_its_own(reader, user, client):
    stranger = UserFactory()

    own = client.get(EVENTS, {"owner": user.pk}, headers=bearer(reader.secret))
    other = client.get(EVENTS, {"owner": stranger.pk}, headers=bearer(reader.secret))

    assert len(own.json()["data"]) == 1
    assert other.status_code == 400
    assert other.json() == {"owner": ["There is no such owner."]}


def test_key_of_the_project_reads_the_events_of_the_project(issue, issued, client):
    of_project = issue(owner=None, name="of the project", scopes=["apikeys:read"])
    issue(owner=None, name="elsewhere", environment="test")

    response = client.get(EVENTS, headers=bearer(of_project.secret))

    assert [row["key"]["name"] for row in response.json()["data"]] == ["of the project"]


def test_secret_in_its_grace_reads_events(reader, client):
    reader.key.secrets.update(slot=1)
    APIKeySecretFactory(key=reader.key)

    answers = [
        client.get(path, headers=bearer(reader.secret)) for path in (EVENTS, of_key(reader.key))
    ]

    assert [len(answer.json()["data"]) for answer in answers] == [1, 1]


def test_change_through_a_key_is_an_event_of_that_key(issue, client, as_user):
    manager = issue(name="manager", scopes=["apikeys:write"])
    target = issue(name="target").key

    client.patch(
        f"/api/keys/{target.pk}/",
        {"name": "renamed"},
        headers=bearer(manager.secret) | {"User-Agent": "curl/8"},
        REMOTE_ADDR="192.0.2.7",
    )

    row = as_user.get(of_key(target)).json()["data"][0]
    assert (row["type"], row["changes"]) == ("updated", {"name": ["target", "renamed"]})
    assert row["actor"] == {"kind": "key", "id": str(manager.key.pk), "name": "manager"}
    assert (row["address"], row["user_agent"]) == ("192.0.2.7", "curl/8")


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_no_call_changes_or_deletes_an_event(method, issued, as_user):
    answers = [getattr(as_user, method)(path, {}) for path in (EVENTS, of_key(issued.key))]

    assert [answer.status_code for answer in answers] == [405, 405]
    assert [row.type for row in APIKeyEvent.objects.all()] == ["created"]


def test_events_of_a_key_of_others_are_not_found(issued, rival):
    response = rival.get(of_key(issued.key))

    assert response.status_code == 404


@pytest.mark.parametrize("pk", ["self", "nonsense", "1", "%00", str(KEY_ID)])
def test_events_of_a_key_that_is_none_are_not_found(pk, as_user):
    response = as_user.get(f"/api/keys/{pk}/events/")

    assert response.status_code == 404


def test_events_of_a_deleted_key_are_those_of_its_owner(issued, user, as_user):
    services.delete_key(key=issued.key, actor=user)

    gone = as_user.get(of_key(issued.key))
    listed = as_user.get(EVENTS, {"key": issued.key.pk})

    assert gone.status_code == 404
    assert [row["type"] for row in listed.json()["data"]] == ["deleted", "created"]


def test_events_of_others_and_of_the_project_are_not_listed(issue, issued, as_user, rival):
    issue(owner=None)
    issue(owner=UserFactory())

    mine, theirs = as_user.get(EVENTS), rival.get(EVENTS)

    assert [row["key"]["id"] for row in mine.json()["data"]] == [str(issued.key.pk)]
    assert theirs.json() == {"data": [], "meta": {"page": 1, "limit": 20, "total": 0}}


def test_events_of_the_project_are_for_those_who_may_see_its_keys(issue, issued, staff):
    of_project = issue(owner=None)

    listed = staff.get(EVENTS)
    by_key = staff.get(of_key(of_project.key))

    assert [row["key"]["id"] for row in listed.json()["data"]] == [str(of_project.key.pk)]
    assert [row["owner"] for row in by_key.json()["data"]] == [None]


def test_events_of_one_key_are_its_own(issue, issued, as_user):
    issue(name="another")

    response = as_user.get(of_key(issued.key))

    assert [row["key"]["name"] for row in response.json()["data"]] == ["a key"]


OWNERS = {
    "uuid": ("UUIDOwners", lambda name: APIKeyFactory(name=name).pk),
    "related": (
        "RelatedOwners",
        lambda name: APIKeyTotals.objects.create(key=APIKeyFactory(name=name)).pk,
    ),
    "text": ("TextOwners", lambda name: Session.objects.create(pk=name, expire_date=LATE).pk),
}


@pytest.mark.parametrize(("policy", "owner"), OWNERS.values(), ids=OWNERS.keys())
def test_owners_may_have_any_kind_of_key(policy, owner, as_user, settings):
    """What services write, str(pk), is what the one query compares."""
    settings.APIKEYS_POLICY = f"tests.drf.test_events.{policy}"
    seen = event(owner_id=str(owner("seen")))
    event(owner_id=str(owner("hidden")))
    event(owner_id=str(uuid.uuid4()))

    response = as_user.get(EVENTS)

    assert shown(response) == [seen.pk]


def test_text_keys_of_owners_differ_by_case(as_user, settings):
    """The default of MariaDB would show "acme" the events of "Acme"."""
    settings.APIKEYS_POLICY = "tests.drf.test_events.TextOwners"
    Session.objects.create(pk="acme", expire_date=LATE)
    seen = event(owner_id="acme")
    event(owner_id="Acme")

    response = as_user.get(EVENTS)

    assert shown(response) == [seen.pk]


# --- An event as JSON ---------------------------------------------------------------------


def test_event_as_json(user, as_user):
    row = event(
        at=LATE,
        type="revoked",
        key_id=KEY_ID,
        key_name="sync",
        owner_id=str(user.pk),
        owner_name="ann",
        actor_kind="user",
        actor_id=str(user.pk),
        actor_name="ann",
        address="192.0.2.7",
        user_agent="curl/8",
        reason="leaked",
        changes={"name": ["old", "sync"]},
    )

    response = as_user.get(EVENTS)

    assert response.json() == {
        "data": [
            {
                "id": row.pk,
                "at": "2026-06-01T12:30:15.250000Z",
                "type": "revoked",
                "key": {"id": "5f1c3c5e-0000-4000-8000-000000000000", "name": "sync"},
                "owner": {"id": user.pk, "name": "ann"},
                "actor": {"kind": "user", "id": user.pk, "name": "ann"},
                "address": "192.0.2.7",
                "user_agent": "curl/8",
                "reason": "leaked",
                "changes": {"name": ["old", "sync"]},
            }
        ],
        "meta": {"page": 1, "limit": 20, "total": 1},
    }


def test_event_of_which_little_is_known_as_json(db):
    row = event(at=EARLY)

    assert event_as_dict(row) == {
        "id": row.pk,
        "at": "2026-01-01T00:00:00Z",
        "type": "updated",
        "key": None,
        "owner": None,
        "actor": {"kind": "system", "id": None, "name": ""},
        "address": None,
        "user_agent": None,
        "reason": "",
        "changes": {},
    }


@pytest.mark.parametrize(
    ("kind", "stored", "told"),
    [
        pytest.param("user", "7", 7, id="user"),
        pytest.param("user", "ann", "ann", id="user-of-another-model"),
        pytest.param("user", "", None, id="user-unknown"),
        pytest.param("key", str(KEY_ID), str(KEY_ID), id="key"),
        pytest.param("command", "7", "7", id="command"),
    ],
)
def test_id_of_the_actor(kind, stored, told):
    row = APIKeyEvent(at=EARLY, actor_kind=kind, actor_id=stored)

    assert event_as_dict(row)["actor"]["id"] == told


def test_id_of_an_owner_with_a_uuid(settings):
    settings.APIKEYS_OWNER_MODEL = "django_apikeys.APIKey"

    row = APIKeyEvent(at=EARLY, owner_id=str(KEY_ID))

    assert event_as_dict(row)["owner"]["id"] == "5f1c3c5e-0000-4000-8000-000000000000"


def test_change_of_a_person_says_from_where(issued, user, as_user):
    as_user.patch(
        f"/api/keys/{issued.key.pk}/",
        {"name": "renamed"},
        REMOTE_ADDR="192.0.2.7",
        headers={"User-Agent": "curl/8"},
    )

    row = as_user.get(of_key(issued.key)).json()["data"][0]

    assert (row["type"], row["address"], row["user_agent"]) == ("updated", "192.0.2.7", "curl/8")
    assert row["actor"] == {"kind": "user", "id": user.pk, "name": "ann"}
    assert row["changes"] == {"name": ["a key", "renamed"]}


def test_moments_of_a_change_are_told_in_utc(issued, as_user):
    """Whatever zone the server is in, and the body names: contract, section 4."""
    as_user.patch(f"/api/keys/{issued.key.pk}/", {"expires_at": "2100-01-01T02:00:00+02:00"})

    row = as_user.get(of_key(issued.key)).json()["data"][0]

    before, after = row["changes"]["expires_at"]
    assert before is None
    assert after in ("2100-01-01T00:00:00+00:00", "2100-01-01T00:00:00Z")


def test_events_outlive_key_actor_and_names(issue, user, as_user):
    """An event says what was true when it happened."""
    colleague = UserFactory(username="colleague")
    issued = issue(actor=colleague)
    colleague_id = colleague.pk
    services.update_key(key=issued.key, actor=Actor("command", name="a script"), name="renamed")
    get_user_model().objects.filter(pk=user.pk).update(username="anna")
    APIKey.objects.filter(pk=issued.key.pk).delete()
    colleague.delete()

    deleted, updated, created = as_user.get(EVENTS).json()["data"]

    assert deleted["key"] == {"id": str(issued.key.pk), "name": "renamed"}
    assert deleted["owner"] == {"id": user.pk, "name": "anna"}
    assert deleted["actor"] == {"kind": "system", "id": None, "name": ""}
    assert created["key"] == {"id": str(issued.key.pk), "name": "a key"}
    assert created["owner"] == {"id": user.pk, "name": "ann"}
    assert created["actor"] == {"kind": "user", "id": colleague_id, "name": "colleague"}
    assert updated["key"] == {"id": str(issued.key.pk), "name": "renamed"}
    assert updated["actor"] == {"kind": "command", "id": None, "name": "a script"}


def test_events_of_an_owner_who_is_gone_are_shown_to_nobody(issue, rival, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_events.AllOwners"
    former = UserFactory()
    issue(owner=former)
    former.delete()

    response = rival.get(EVENTS)

    assert APIKeyEvent.objects.count() == 2
    assert shown(response) == []


# --- List ---------------------------------------------------------------------------------


def test_events_are_listed_newest_first_page_by_page(user, as_user):
    """Of one moment the last comes first, and pages do not overlap."""
    rows = [event(at=at, owner_id=str(user.pk)) for at in (EARLY, LATE, EARLY, EARLY)]
    first, second, third, fourth = (row.pk for row in rows)

    pages = [as_user.get(EVENTS, {"limit": 3, "page": page}) for page in (1, 2)]

    assert [shown(page) for page in pages] == [[second, fourth, third], [first]]
    assert pages[0].json()["meta"] == {"page": 1, "limit": 3, "total": 4}
    assert as_user.get(EVENTS, {"page": 2}).status_code == 404


@pytest.mark.parametrize("params", [{}, {"format": "csv"}], ids=["json", "csv"])
def test_number_of_queries_does_not_grow_with_the_number_of_events(params, issue, user, as_user):
    issued = issue()
    paths = [EVENTS, of_key(issued.key)]
    counts = []
    for _ in range(2):
        for path in paths:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                as_user.get(path, {"limit": 100, **params})
            counts.append(len(queries))
        for number in range(50):
            services.update_key(key=issued.key, actor=UserFactory(), name=f"name {number}")
            issue(actor=user)

    # Session, user, count and page; of one key the key and its secrets too.
    assert counts == [4, 6, 4, 6]


@pytest.mark.parametrize("params", [{}, {"format": "csv"}], ids=["json", "csv"])
def test_events_are_not_stored_by_caches(params, issued, as_user):
    response = as_user.get(EVENTS, params)

    assert response.headers["Cache-Control"] == "no-store"
    assert "Accept" in response.headers["Vary"]


def test_events_come_from_the_primary(issued, as_user, settings):
    settings.DATABASE_ROUTERS = ["tests.test_replica.ReplicaOfOurs"]

    answers = [as_user.get(path) for path in (EVENTS, of_key(issued.key))]

    assert [len(shown(answer)) for answer in answers] == [1, 1]


@pytest.mark.parametrize("path", [EVENTS, None], ids=["all", "of-a-key"])
def test_browsable_api_shows_the_page(path, issued, as_user, monkeypatch):
    monkeypatch.setattr(ManagementView, "renderer_classes", [JSONRenderer, BrowsableAPIRenderer])

    response = as_user.get(path or of_key(issued.key), headers={"Accept": "text/html"})

    assert response.status_code == 200
    assert str(issued.key.pk) in response.content.decode()


# --- Filters ------------------------------------------------------------------------------


@pytest.fixture
def found(user, as_user):
    """Make a request, and tell by their names which of two keys the events are of."""
    event(
        key_id=KEY_ID,
        key_name="old",
        owner_id=str(user.pk),
        type="created",
        actor_kind="user",
        at=EARLY,
    )
    event(
        key_id=uuid.UUID(int=5),
        key_name="new",
        owner_id=str(user.pk),
        type="retired_secret_used",
        actor_kind="command",
        at=LATE,
    )

    def found(**params):
        response = as_user.get(EVENTS, params)
        assert response.status_code == 200, response.json()
        return [row["key"]["name"] for row in response.json()["data"]]

    return found


FOUND = {
    "nothing": ({}, ["new", "old"]),
    "key": ({"key": str(KEY_ID)}, ["old"]),
    "key, without dashes": ({"key": KEY_ID.hex}, ["old"]),
    "key that is nowhere": ({"key": str(uuid.UUID(int=6))}, []),
    "type": ({"type": "created"}, ["old"]),
    "type of which there is none": ({"type": "rotated"}, []),
    "actor": ({"actor": "command"}, ["new"]),
    "after": ({"after": "2026-03-01T00:00:00Z"}, ["new"]),
    "after, its very moment": ({"after": "2026-01-01"}, ["new", "old"]),
    "before": ({"before": "2026-06-01T14:30:00+02:00"}, ["old"]),
    "before, its very moment": ({"before": "2026-01-01"}, []),
    "two at once": ({"actor": "user", "type": "created"}, ["old"]),
    "two that exclude each other": ({"actor": "user", "after": "2026-03-01"}, []),
    "empty is left aside": ({"key": "", "type": "", "owner": ""}, ["new", "old"]),
}


@pytest.mark.parametrize(("params", "names"), FOUND.values(), ids=FOUND.keys())
def test_events_are_found_by(found, params, names):
    assert found(**params) == names


@pytest.mark.parametrize("text", ["{}", "00{}"], ids=["as it is", "with zeros before it"])
def test_events_are_found_by_owner(text, issue, user, as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_events.AllOwners"
    issued = issue()
    issue(owner=UserFactory())

    response = as_user.get(EVENTS, {"owner": text.format(user.pk)})

    assert [row["key"]["id"] for row in response.json()["data"]] == [str(issued.key.pk)]


def test_events_are_found_by_an_owner_with_a_uuid(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_events.UUIDOwners"
    owner, other = APIKeyFactory(), APIKeyFactory()
    row = event(owner_id=str(owner.pk))
    event(owner_id=str(other.pk))

    response = as_user.get(EVENTS, {"owner": owner.pk.hex})

    assert shown(response) == [row.pk]


def test_events_of_a_key_are_filtered_too(issued, as_user):
    response = as_user.get(of_key(issued.key), {"type": "updated"})

    assert shown(response) == []


UNKNOWN = [
    ("key", "nonsense"),
    ("key", "1"),
    ("key", "\x00"),
    ("type", "vanished"),
    ("type", "\x00"),
    ("actor", "ann"),
    ("owner", "999999"),
    ("owner", "x"),
    ("owner", "\x00"),
    ("after", "yesterday"),
    ("after", "0001-01-01T00:00:00+14:00"),
    ("before", "9999-12-31T23:59:59-14:00"),
    ("ordering", "at"),
    ("kye", str(KEY_ID)),
    ("actor_id", "1"),
]


@pytest.mark.parametrize(("name", "value"), UNKNOWN, ids=[f"{n}={v:.20}" for n, v in UNKNOWN])
def test_unknown_value_is_400(as_user, issued, name, value):
    answers = [as_user.get(path, {name: value}) for path in (EVENTS, of_key(issued.key))]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert [list(answer.json()) for answer in answers] == [[name], [name]]


def test_owner_of_others_is_400_as_one_that_is_nowhere(as_user, issued):
    response = as_user.get(EVENTS, {"owner": UserFactory().pk})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_key_of_others_finds_nothing_as_one_that_is_nowhere(rival, issued):
    response = rival.get(EVENTS, {"key": issued.key.pk})

    assert shown(response) == []


def test_each_type_that_is_written_can_be_asked_for():
    modules = (ROOT / "django_apikeys" / "services").glob("*.py")
    code = "".join(module.read_text(encoding="utf-8") for module in modules)

    written = {part.partition('"')[0] for part in code.split(' record("')[1:]}

    assert written <= set(EVENT_TYPES)
    assert "created" in written


# --- CSV ----------------------------------------------------------------------------------


HEAD = (
    "id,at,type,key_id,key_name,owner_id,owner_name,actor_kind,actor_id,actor_name,"
    "address,user_agent,reason,changes\r\n"
)


def rows_of(response):
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(response.content.decode(), newline="")))


@pytest.mark.parametrize(
    "asked", [{"data": {"format": "csv"}}, {"headers": {"Accept": "text/csv"}}], ids=str
)
def test_events_as_csv(asked, user, as_user):
    row = event(
        key_id=KEY_ID,
        key_name="Schlüssel, der erste",
        owner_id=str(user.pk),
        owner_name="ann",
        changes={"name": [None, "Schlüssel"]},
    )

    response = as_user.get(EVENTS, **asked)

    assert response.content.decode() == (
        f"{HEAD}{row.pk},2026-01-01T00:00:00Z,updated,"
        f'5f1c3c5e-0000-4000-8000-000000000000,"Schlüssel, der erste",{user.pk},ann,'
        'system,,,,,,"{""name"": [null, ""Schlüssel""]}"\r\n'
    )
    assert len(rows_of(response)) == 1


def test_events_of_a_key_as_csv(issued, user, as_user):
    response = as_user.get(of_key(issued.key), {"format": "csv"})

    assert [row["actor_id"] for row in rows_of(response)] == [str(user.pk)]


def test_csv_without_events_has_its_head(as_user):
    response = as_user.get(EVENTS, {"format": "csv"})

    assert response.content.decode() == HEAD


def test_csv_leaves_out_what_there_is_not(staff):
    event()

    (row,) = rows_of(staff.get(EVENTS, {"format": "csv"}))

    assert (row["key_id"], row["key_name"], row["owner_id"], row["actor_id"]) == ("", "", "", "")


def test_csv_has_a_page_of_up_to_a_hundred(user, as_user):
    APIKeyEvent.objects.bulk_create(
        APIKeyEvent(at=EARLY, type="updated", actor_kind="system", owner_id=str(user.pk))
        for _ in range(101)
    )

    pages = [as_user.get(EVENTS, {"format": "csv", "limit": 1000, "page": n}) for n in (1, 2)]

    assert [len(rows_of(page)) for page in pages] == [100, 1]


FORMULAS = {
    "equals": "=HYPERLINK(1)",
    "plus": "+1",
    "minus": "-1",
    "at": "@SUM(1)",
    "tab": "\t=1",
    "carriage return": "\r=1",
}


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS.keys())
@pytest.mark.parametrize(
    "column", ["key_name", "owner_name", "actor_id", "actor_name", "user_agent", "reason"]
)
def test_cell_that_a_spreadsheet_would_run_is_defused(column, text, user, as_user):
    event(**{"key_id": KEY_ID, "owner_id": str(user.pk), column: text})

    (row,) = rows_of(as_user.get(EVENTS, {"format": "csv"}))

    assert row[column] == f"'{text}"


@pytest.mark.parametrize("text", ["a=1", "'", "1-1", "{}"])
def test_other_cells_stay_as_they_are(text, user, as_user):
    event(owner_id=str(user.pk), reason=text)

    (row,) = rows_of(as_user.get(EVENTS, {"format": "csv"}))

    assert row["reason"] == text


@pytest.mark.parametrize(
    ("params", "status", "body"),
    [
        pytest.param({"kye": "x"}, 400, {"kye": ["There is no such filter."]}, id="filter"),
        pytest.param({"page": 5}, 404, {"detail": "Invalid page."}, id="page"),
    ],
)
def test_error_is_told_in_the_projects_own_way(params, status, body, as_user):
    response = as_user.get(EVENTS, {"format": "csv", **params})

    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == body


def test_nobody_who_asks_for_csv_is_401(client, db):
    response = client.get(EVENTS, headers={"Accept": "text/csv"})

    assert response.status_code == 401
    assert response.headers["Content-Type"] == "application/json"


def test_answer_of_another_exception_handler_stays_as_it_is(as_user, settings):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "tests.drf.test_events.plain_answer",
    }

    response = as_user.get(EVENTS, {"format": "csv", "kye": "x"})

    assert (response.status_code, response.content) == (400, b"Sorry.")


def test_options_of_csv_are_told_as_json(as_user):
    response = as_user.options(EVENTS, headers={"Accept": "text/csv"})

    assert response.status_code == 200
    assert response.json()["renders"] == ["application/json", "text/csv"]


def test_keys_are_not_told_as_csv(as_user):
    response = as_user.get("/api/keys/", {"format": "csv"})

    assert response.status_code == 404
