"""The management API for a user who has keys of their own: section 4 of the contract."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone
from rest_framework.renderers import BrowsableAPIRenderer, JSONRenderer
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.drf.views import APIKeyViewSet
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecretTotals, APIKeyTotals
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

FIELDS = {
    "id",
    "name",
    "description",
    "environment",
    "masked",
    "public_id",
    "owner",
    "status",
    "enabled",
    "scopes",
    "allowed_ips",
    "rate_limit",
    "expires_at",
    "usage_count",
    "error_count",
    "last_used_at",
    "last_used_ip",
    "created_at",
    "created_by",
    "updated_at",
    "revoked_at",
    "revoked_by",
    "revoked_reason",
    "previous_secret",
    "rotation_due_at",
    "metadata",
}
READ_ONLY = sorted(
    FIELDS
    - {"name", "description", "environment", "owner", "enabled", "scopes"}
    - {"allowed_ips", "rate_limit", "expires_at", "metadata"}
    | {"secret"}
)


class SeeingPolicy(UserPolicy):
    """Everyone may see all keys and change none."""

    def owners(self, person, action):
        users = get_user_model()._default_manager
        return users.all() if action == "see" else users.none()


class CreatingPolicy(UserPolicy):
    """Everyone may see all keys, and create for the users c… alone."""

    def owners(self, person, action):
        users = get_user_model()._default_manager
        if action == "see":
            return users.all()
        return users.filter(username__startswith="c")


class NarrowPolicy(UserPolicy):
    """Everyone may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]


def url(issued, tail=""):
    return f"/api/keys/{issued.key.pk}/{tail}"


def stored(issued):
    return APIKey.objects.get(pk=issued.key.pk)


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


CALLS = [
    pytest.param("get", "", id="retrieve"),
    pytest.param("patch", "", id="patch"),
    pytest.param("delete", "", id="delete"),
    pytest.param("post", "revoke/", id="revoke"),
]


# --- Who may ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/api/keys/"),
        ("post", "/api/keys/"),
        ("options", "/api/keys/"),
        ("get", "/api/keys/5f1c3c5e-0000-4000-8000-000000000000/"),
        ("patch", "/api/keys/5f1c3c5e-0000-4000-8000-000000000000/"),
        ("delete", "/api/keys/5f1c3c5e-0000-4000-8000-000000000000/"),
        ("post", "/api/keys/5f1c3c5e-0000-4000-8000-000000000000/revoke/"),
        ("get", "/api/keys/self/"),
        ("post", "/api/keys/self/revoke/"),
        ("get", "/api/scopes/"),
    ],
)
@pytest.mark.django_db
def test_nobody_is_401(method, path, client):
    response = getattr(client, method)(path)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize(("method", "tail"), CALLS)
def test_key_of_another_owner_is_not_found(method, tail, issued, rival):
    response = getattr(rival, method)(url(issued, tail), {"name": "mine"})

    assert response.status_code == 404
    assert stored(issued).name == "a key"
    assert stored(issued).status_at(timezone.now()) == "active"


@pytest.mark.parametrize(("method", "tail"), CALLS)
def test_key_of_the_project_is_not_found_by_a_user(method, tail, issue, as_user):
    issued = issue(owner=None)

    response = getattr(as_user, method)(url(issued, tail))

    assert response.status_code == 404


@pytest.mark.parametrize(("method", "tail"), CALLS)
@pytest.mark.parametrize("pk", ["nonsense", "1", "%00", "%ff", str(uuid.UUID(int=5)), "é" * 500])
def test_key_that_is_none_is_not_found(method, tail, pk, as_user):
    response = getattr(as_user, method)(f"/api/keys/{pk}/{tail}", {"name": "x"})

    assert response.status_code == 404


def test_keys_of_others_are_not_listed(issue, rival):
    issue()
    issue(owner=None)

    response = rival.get("/api/keys/")

    assert response.json() == {"data": [], "meta": {"page": 1, "limit": 20, "total": 0}}


def test_superuser_manages_the_keys_of_the_project(staff):
    created = staff.post("/api/keys/", {"name": "of the project", "owner": None})
    path = f"/api/keys/{created.json()['id']}/"

    listed = staff.get("/api/keys/")
    changed = staff.patch(path, {"description": "changed"})
    revoked = staff.post(f"{path}revoke/")

    assert created.status_code == 201
    assert created.json()["owner"] is None
    assert [key["name"] for key in listed.json()["data"]] == ["of the project"]
    assert (changed.status_code, revoked.status_code) == (200, 200)


@pytest.mark.parametrize(("method", "tail"), [call for call in CALLS if call.id != "retrieve"])
def test_what_the_policy_forbids_is_403(method, tail, issued, rival, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.SeeingPolicy"

    response = getattr(rival, method)(url(issued, tail), {"name": "mine"})

    assert response.status_code == 403
    assert response.json() == {
        "detail": "You may not do this with API keys of this owner.",
        "code": "permission_denied",
    }
    assert stored(issued).name == "a key"
    assert stored(issued).revoked_at is None


@pytest.mark.parametrize(("method", "tail"), [("post", None), ("patch", ""), ("post", "revoke/")])
@pytest.mark.parametrize("body", ["{not json", "[]", '{"nonsense": 1}'])
def test_403_comes_before_the_body_is_read(method, tail, body, issued, rival):
    path = "/api/keys/" if tail is None else url(issued, tail)

    with override_settings(APIKEYS_POLICY="tests.drf.test_management.SeeingPolicy"):
        response = getattr(rival, method)(path, body, content_type="application/json")

    assert response.status_code == 403


@pytest.mark.parametrize("path", ["/api/keys/", "/api/scopes/", "/api/keys/self/"])
def test_no_answer_is_stored(path, as_user):
    response = as_user.get(path)

    assert response.headers["Cache-Control"] == "no-store"


# --- A key as JSON ------------------------------------------------------------------------


def test_key_as_json(issue, user, as_user):
    issued = issue(
        name="sync",
        description="Nightly.",
        scopes=["jobs:read"],
        allowed_ips=["192.0.2.0/24"],
        rate_limit="300/m",
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
        metadata={"team": "a"},
    )
    created_at = datetime(2026, 11, 20, 10, 37, tzinfo=UTC)
    APIKey.objects.filter(pk=issued.key.pk).update(created_at=created_at, updated_at=created_at)
    issued.key.secrets.update(created_at=created_at)
    APIKeyTotals.objects.create(
        key=issued.key,
        requests=5,
        errors=2,
        last_used_at=datetime(2026, 11, 21, tzinfo=UTC),
        last_used_ip="192.0.2.7",
    )

    response = as_user.get(url(issued))

    assert response.status_code == 200
    assert response.json() == {
        "id": str(issued.key.pk),
        "name": "sync",
        "description": "Nightly.",
        "environment": "live",
        "masked": f"rak_live_{issued.secret[9:13]}…{issued.secret[-10:-6]}",
        "public_id": issued.secret[9:21],
        "owner": {"id": user.pk, "name": "ann"},
        "status": "active",
        "enabled": True,
        "scopes": ["jobs:read"],
        "allowed_ips": ["192.0.2.0/24"],
        "rate_limit": "300/m",
        "expires_at": "2100-01-01T00:00:00Z",
        "usage_count": 5,
        "error_count": 2,
        "last_used_at": "2026-11-21T00:00:00Z",
        "last_used_ip": "192.0.2.7",
        "created_at": "2026-11-20T10:37:00Z",
        "created_by": {"id": user.pk, "name": "ann"},
        "updated_at": "2026-11-20T10:37:00Z",
        "revoked_at": None,
        "revoked_by": None,
        "revoked_reason": "",
        "previous_secret": None,
        "rotation_due_at": "2027-02-18T10:37:00Z",
        "metadata": {"team": "a"},
    }


def test_key_that_was_never_used_as_json(issued, as_user):
    body = as_user.get(url(issued)).json()

    assert set(body) == FIELDS
    assert (body["usage_count"], body["error_count"]) == (0, 0)
    assert (body["last_used_at"], body["last_used_ip"]) == (None, None)
    assert (body["rate_limit"], body["expires_at"]) == (None, None)


def test_key_whose_previous_secret_is_in_its_grace_as_json(issued, as_user):
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    previous = APIKeySecretFactory(key=issued.key, slot=1, retires_at=moment)
    unused = as_user.get(url(issued)).json()["previous_secret"]
    APIKeySecretTotals.objects.create(
        secret=previous,
        requests=7,
        in_grace=5,
        last_used_at=datetime(2026, 11, 21, tzinfo=UTC),
        last_used_ip="192.0.2.7",
    )

    used = as_user.get(url(issued)).json()["previous_secret"]

    assert unused == {
        "masked": previous.masked,
        "valid_until": "2100-01-01T00:00:00Z",
        "uses_since_rotation": 0,
        "last_used_at": None,
        "last_used_ip": None,
    }
    assert used == {
        "masked": previous.masked,
        "valid_until": "2100-01-01T00:00:00Z",
        "uses_since_rotation": 5,
        "last_used_at": "2026-11-21T00:00:00Z",
        "last_used_ip": "192.0.2.7",
    }


def test_row_that_has_lost_its_secret_as_json(user, as_user):
    key = APIKeyFactory(owner=user, secret_row=None)

    body = as_user.get(f"/api/keys/{key.pk}/").json()

    assert (body["masked"], body["public_id"], body["rotation_due_at"]) == ("", None, None)


# --- List ---------------------------------------------------------------------------------


@pytest.fixture
def one_of_each(user):
    return {
        "active": APIKeyFactory(owner=user, name="is active"),
        "disabled": APIKeyFactory(owner=user, name="is disabled", disabled=True),
        "expired": APIKeyFactory(owner=user, name="is expired", expired=True),
        "revoked": APIKeyFactory(owner=user, name="is revoked", revoked=True),
        "deleted": APIKeyFactory(owner=user, name="is deleted", deleted=True),
    }


@pytest.mark.usefixtures("one_of_each")
def test_list_has_every_key_but_the_deleted_newest_first(as_user):
    response = as_user.get("/api/keys/")

    assert response.status_code == 200
    assert [(key["name"], key["status"]) for key in response.json()["data"]] == [
        ("is revoked", "revoked"),
        ("is expired", "expired"),
        ("is disabled", "disabled"),
        ("is active", "active"),
    ]
    assert all(set(key) == FIELDS for key in response.json()["data"])


@pytest.mark.usefixtures("one_of_each")
@pytest.mark.parametrize("status", ["active", "disabled", "expired", "revoked"])
def test_list_by_status(status, as_user):
    response = as_user.get("/api/keys/", {"status": status})

    assert [key["name"] for key in response.json()["data"]] == [f"is {status}"]


def test_status_is_the_first_reason_to_refuse(user, as_user):
    APIKeyFactory(owner=user, disabled=True, expired=True)

    response = as_user.get("/api/keys/", {"status": "disabled"})

    assert [key["status"] for key in response.json()["data"]] == ["disabled"]


@pytest.mark.parametrize("status", ["deleted", "ACTIVE", "active,revoked", "\x00", "é"])
def test_unknown_status_is_400(status, as_user):
    response = as_user.get("/api/keys/", {"status": status})

    assert response.status_code == 400
    assert list(response.json()) == ["status"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(lambda key: "NIGHT", ["nightly"], id="name"),
        pytest.param(lambda key: "books", ["nightly"], id="description"),
        pytest.param(lambda key: key.current_secret.public_id, ["nightly"], id="public-id"),
        pytest.param(lambda key: key.current_secret.public_id[:6], ["nightly"], id="its-begin"),
        pytest.param(lambda key: key.masked, ["nightly"], id="masked"),
        pytest.param(lambda key: f"  {key.masked}  ", ["nightly"], id="masked-with-space"),
        pytest.param(lambda key: "nothing like it", [], id="nothing"),
        pytest.param(lambda key: "%", [], id="wildcard"),
        pytest.param(lambda key: "_", [], id="one-character-wildcard"),
    ],
)
def test_search(text, found, issue, as_user):
    key = issue(name="nightly", description="For the books.").key
    issue(name="another")

    response = as_user.get("/api/keys/", {"search": text(key)})

    assert [key["name"] for key in response.json()["data"]] == found


def test_search_finds_the_key_of_a_pasted_secret(issue, as_user):
    issued = issue(name="nightly")
    issue(name="another")

    response = as_user.get("/api/keys/", {"search": issued.secret})

    assert [key["name"] for key in response.json()["data"]] == ["nightly"]


@pytest.mark.parametrize("text", ["\x00", "a" * 201])
def test_search_that_cannot_be_done_is_400(text, as_user):
    response = as_user.get("/api/keys/", {"search": text})

    assert response.status_code == 400
    assert list(response.json()) == ["search"]


def test_pages(user, as_user):
    APIKeyFactory.create_batch(5, owner=user)

    response = as_user.get("/api/keys/", {"page": 2, "limit": 2})

    assert response.json()["meta"] == {"page": 2, "limit": 2, "total": 5}
    assert len(response.json()["data"]) == 2


def test_page_past_the_end_is_404(as_user):
    response = as_user.get("/api/keys/", {"page": 2})

    assert response.status_code == 404


def test_list_of_50_keys_asks_as_much_as_that_of_one(user, as_user):
    def queries(limit):
        with CaptureQueriesContext(connection) as captured:
            response = as_user.get("/api/keys/", {"limit": limit})
        assert len(response.json()["data"]) == limit
        return len(captured)

    for key in APIKeyFactory.create_batch(50, owner=user, created_by=user, revoked_by=user):
        APIKeyTotals.objects.create(key=key, requests=1)

    assert queries(1) == queries(50)


@pytest.mark.large
def test_list_of_10_000_keys_asks_as_much_as_that_of_10(user, as_user):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            response = as_user.get("/api/keys/")
        return len(captured), response.json()["meta"]["total"]

    APIKeyFactory.create_batch(10, owner=user)
    few = queries()
    more = [APIKey(owner=user, name=f"key {n}", environment="live") for n in range(9_990)]
    APIKey.objects.bulk_create(more, batch_size=500)
    many = queries()

    assert few == (5, 10)
    assert many == (5, 10_000)


@pytest.mark.parametrize("method", ["get", "patch"])
def test_database_that_gives_up_is_503(method, issued, as_user, monkeypatch):
    """A deadlock, say, or SQLite that is locked for too long."""

    def gives_up(*args, **kwargs):
        raise OperationalError("database is locked")

    monkeypatch.setattr("django_apikeys.drf.views.APIKeyViewSet.get_object", gives_up)

    response = getattr(as_user, method)(url(issued), {"name": "new"})

    assert response.status_code == 503
    assert response["Retry-After"] == "5"
    assert response["Cache-Control"] == "no-store"
    assert response.json() == {
        "detail": "API keys cannot be looked up at the moment. Try again later.",
        "code": "unavailable",
    }


# --- Create -------------------------------------------------------------------------------


def test_create(user, as_user):
    response = as_user.post(
        "/api/keys/",
        {
            "name": " sync ",
            "description": "Nightly.\nFor the books.",
            "environment": "test",
            "scopes": ["jobs:read", "customers:*", "jobs:read"],
            "allowed_ips": ["192.0.2.7", " 2001:db8::/32 "],
            "rate_limit": "300/m",
            "expires_at": "2100-01-01T01:00:00+01:00",
            "enabled": False,
            "metadata": {"team": "a"},
            "owner": user.pk,
        },
    )

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    assert set(body) == FIELDS | {"secret"}
    assert body["name"] == "sync"
    assert body["description"] == "Nightly.\nFor the books."
    assert body["environment"] == "test"
    assert body["scopes"] == ["jobs:read", "customers:*"]
    assert body["allowed_ips"] == ["192.0.2.7", "2001:db8::/32"]
    assert body["rate_limit"] == "300/m"
    assert body["expires_at"] == "2100-01-01T00:00:00Z"
    assert body["status"] == "disabled"
    assert body["metadata"] == {"team": "a"}
    assert body["owner"] == body["created_by"] == {"id": user.pk, "name": "ann"}
    assert body["secret"].startswith("rak_test_")


def test_create_asks_for_a_name_alone(as_user, client):
    body = as_user.post("/api/keys/", {"name": "x"}).json()

    answer = client.get("/open/", headers=bearer(body["secret"]))

    assert (body["scopes"], body["allowed_ips"], body["metadata"]) == ([], [], {})
    assert (body["environment"], body["status"]) == ("live", "active")
    assert answer.status_code == 200


def test_secret_is_in_the_answer_that_made_it_and_in_no_other(as_user):
    body = as_user.post("/api/keys/", {"name": "x"}).json()
    path = f"/api/keys/{body['id']}/"

    later = [
        as_user.get("/api/keys/"),
        as_user.get(path),
        as_user.patch(path, {"name": "y"}),
        as_user.post(f"{path}revoke/"),
    ]

    assert all(response.status_code == 200 for response in later)
    assert not any(body["secret"][-30:].encode() in response.content for response in later)
    assert not any(b'"secret"' in response.content for response in later)


def test_create_by_a_form(as_user):
    response = as_user.post(
        "/api/keys/",
        "name=x&scopes=jobs%3Aread&scopes=jobs%3Awrite&metadata=%7B%22a%22%3A1%7D&expires_at=",
        content_type="application/x-www-form-urlencoded",
    )

    assert response.status_code == 201
    assert response.json()["scopes"] == ["jobs:read", "jobs:write"]
    assert response.json()["metadata"] == {"a": 1}
    assert response.json()["enabled"] is True
    assert response.json()["expires_at"] is None


def test_create_by_a_multipart_form(as_user):
    response = as_user.post("/api/keys/", {"name": "x", "enabled": "false"}, format="multipart")

    assert response.status_code == 201
    assert response.json()["enabled"] is False


def test_create_without_a_name_where_none_is_required(as_user, settings):
    settings.APIKEYS_REQUIRE_NAME = False

    statuses = [as_user.post("/api/keys/", body).status_code for body in ({}, {"name": ""})]

    assert statuses == [201, 201]


BAD_FIELDS = [
    ("name", ""),
    ("name", "   "),
    ("name", "a" * 101),
    ("name", "a" * 10_000),
    ("name", "a\x00b"),
    ("name", "a\nb"),
    ("name", "\ud800"),
    ("name", None),
    ("name", ["x"]),
    ("name", {"a": 1}),
    ("name", True),
    ("description", "a" * 1001),
    ("description", "a\x00b"),
    ("description", None),
    ("description", ["x"]),
    ("environment", "prod"),
    ("environment", ""),
    ("environment", None),
    ("environment", ["live"]),
    ("environment", "\ud800"),
    ("scopes", "jobs:read"),
    ("scopes", {"jobs:read": True}),
    ("scopes", [5]),
    ("scopes", [None]),
    ("scopes", [["jobs:read"]]),
    ("scopes", [""]),
    ("scopes", ["jobs:fly"]),
    ("scopes", ["jobs"]),
    ("scopes", ["nothing:*"]),
    ("scopes", ["apikeys:*"]),
    ("scopes", ["self:*"]),
    ("scopes", ["\ud800"]),
    ("scopes", ["jobs:read\x00"]),
    ("scopes", [f"jobs:read{number}" for number in range(101)]),
    ("scopes", None),
    ("scopes", 5),
    ("allowed_ips", "192.0.2.7"),
    ("allowed_ips", ["192.0.2.256"]),
    ("allowed_ips", ["192.0.2.7/24"]),
    ("allowed_ips", ["localhost"]),
    ("allowed_ips", [""]),
    ("allowed_ips", [5]),
    ("allowed_ips", [None]),
    ("allowed_ips", [f"10.0.0.{number}" for number in range(101)]),
    ("allowed_ips", None),
    ("rate_limit", "300"),
    ("rate_limit", "0/m"),
    ("rate_limit", "300/y"),
    ("rate_limit", "-1/m"),
    ("rate_limit", "1.5/m"),
    ("rate_limit", 300),
    ("rate_limit", ["300/m"]),
    ("expires_at", "2020-01-01T00:00:00Z"),
    ("expires_at", "9000-01-01T00:00:00Z"),
    ("expires_at", "0001-01-01T00:00:00+14:00"),
    ("expires_at", "tomorrow"),
    ("expires_at", 5),
    ("expires_at", ["2100-01-01T00:00:00Z"]),
    ("enabled", "maybe"),
    ("enabled", None),
    ("enabled", []),
    ("enabled", {}),
    ("metadata", []),
    ("metadata", "text"),
    ("metadata", 5),
    ("metadata", None),
    ("metadata", {"a": "b" * 4096}),
    ("metadata", {"a": "\x00"}),
    ("metadata", {"\x00": "a"}),
    ("metadata", {"a": [{"b": "\x00"}]}),
    ("metadata", {"a": "\ud800"}),
    ("metadata", {"\ud800": "a"}),
    ("owner", "nonsense"),
    ("owner", 0),
    ("owner", 10**30),
    ("owner", True),
    ("owner", 1.5),
    ("owner", [1]),
    ("owner", {"id": 1}),
    ("owner", "\x00"),
    ("owner", None),
    ("allowed_ip", ["192.0.2.7"]),
    ("\ud800", 1),
    ("\x00", 1),
    ("a" * 1000, 1),
    *[(name, "x") for name in READ_ONLY],
]


def printable(name):
    return name.encode(errors="backslashreplace").decode()


def readable(case):
    name, value = case
    return ascii(f"{name[:20]}-{str(value)[:30]}").strip("'")


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=map(readable, BAD_FIELDS))
def test_bad_field_is_named_and_nothing_is_stored(name, value, as_user):
    body = json.dumps({"name": "x", name: value})

    response = as_user.post("/api/keys/", body, content_type="application/json")

    assert response.status_code == 400
    assert list(response.json()) == [printable(name)]
    assert APIKey.objects.count() == 0
    assert APIKeyEvent.objects.count() == 0


CHANGING_BAD_FIELDS = [
    *[case for case in BAD_FIELDS if case[0] not in ("owner", "environment")],
    ("owner", 1),
    ("environment", "test"),
]


@pytest.mark.parametrize(
    ("name", "value"), CHANGING_BAD_FIELDS, ids=map(readable, CHANGING_BAD_FIELDS)
)
def test_bad_field_of_a_change_is_named_and_nothing_is_stored(name, value, issued, as_user):
    body = json.dumps({"description": "changed", name: value})

    response = as_user.patch(url(issued), body, content_type="application/json")

    assert response.status_code == 400
    assert list(response.json()) == [printable(name)]
    assert stored(issued).description == ""


def test_every_bad_field_is_named_at_once(as_user):
    response = as_user.post(
        "/api/keys/",
        {
            "name": "",
            "description": "a" * 1001,
            "environment": "prod",
            "scopes": ["jobs:fly"],
            "allowed_ips": ["localhost"],
            "rate_limit": "x",
            "expires_at": "2020-01-01T00:00:00Z",
            "enabled": "maybe",
            "metadata": [],
            "owner": "nonsense",
            "status": "active",
            "allowed_ip": [],
        },
    )

    assert response.status_code == 400
    assert response.json() == {
        "name": ["This field may not be blank."],
        "description": ["At most 1000 characters; these are 1001."],
        "environment": ["“prod” is not one of: live, test."],
        "scopes": ["Unknown scope: 'jobs:fly'."],
        "allowed_ips": ["“localhost” is not an IP address or network."],
        "rate_limit": [
            "A rate is a number from 1 to 999999999, a slash and s, m, h or d: for instance 300/m."
        ],
        "expires_at": ["This moment is in the past. To end a key now, revoke it."],
        "enabled": ["Must be a valid boolean."],
        "metadata": ["A JSON object is needed."],
        "owner": ["There is no such owner."],
        "status": ["This field cannot be set."],
        "allowed_ip": ["Unknown field."],
    }


def test_missing_name_is_named(as_user):
    response = as_user.post("/api/keys/", {})

    assert response.status_code == 400
    assert response.json() == {"name": ["This field is required."]}


def nested(levels):
    """A body whose metadata have so many levels."""
    return '{"name": "x", "metadata": ' + '{"a": ' * levels + "1" + "}" * levels + "}"


BAD_BODIES = [
    pytest.param("[]", id="list"),
    pytest.param('[{"name": "x"}]', id="list-of-keys"),
    pytest.param("null", id="null"),
    pytest.param('"name"', id="text"),
    pytest.param("5", id="number"),
    pytest.param("true", id="boolean"),
    pytest.param("{not json", id="no-json"),
    pytest.param('{"name": NaN}', id="nan"),
    pytest.param(b'{"name": "\xff"}', id="not-utf-8"),
    pytest.param('{"name": ' + "9" * 5000 + "}", id="number-of-5000-digits"),
    pytest.param("[" * 100_000, id="nested-without-end"),
    pytest.param(nested(960), id="nested-960-deep"),
    pytest.param(nested(900), id="nested-900-deep"),
    pytest.param(nested(450), id="nested-450-deep"),
    pytest.param(nested(26), id="nested-26-deep"),
]


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize(("method", "tail"), [("post", None), ("patch", ""), ("post", "revoke/")])
def test_bad_body_is_400(method, tail, body, issued, as_user):
    path = "/api/keys/" if tail is None else url(issued, tail)

    response = getattr(as_user, method)(path, body, content_type="application/json")

    assert response.status_code == 400
    assert APIKey.objects.count() == 1
    assert stored(issued).revoked_at is None


def test_metadata_of_25_levels_are_kept(as_user):
    response = as_user.post("/api/keys/", nested(25), content_type="application/json")

    assert response.status_code == 201


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "nonsense"])
def test_other_content_type_is_415(content_type, as_user):
    response = as_user.post("/api/keys/", "name=x", content_type=content_type)

    assert response.status_code == 415


# --- The owner of a new key ---------------------------------------------------------------


def test_owner_who_is_another_is_no_owner(rival, user):
    response = rival.post("/api/keys/", {"name": "x", "owner": user.pk})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_owner_is_needed_where_several_are_possible(rival, settings):
    UserFactory(username="carl")
    UserFactory(username="cleo")
    settings.APIKEYS_POLICY = "tests.drf.test_management.CreatingPolicy"

    response = rival.post("/api/keys/", {"name": ""})

    assert response.status_code == 400
    assert response.json() == {
        "name": ["This field may not be blank."],
        "owner": ["Say for which owner: several are possible."],
    }


@pytest.mark.parametrize("as_sent", [int, str])
def test_owner_that_is_named_has_the_key(as_sent, rival, settings):
    UserFactory(username="carl")
    cleo = UserFactory(username="cleo")
    settings.APIKEYS_POLICY = "tests.drf.test_management.CreatingPolicy"

    response = rival.post("/api/keys/", {"name": "x", "owner": as_sent(cleo.pk)})

    assert response.status_code == 201
    assert response.json()["owner"] == {"id": cleo.pk, "name": "cleo"}
    assert response.json()["created_by"]["name"] == "rival"


def test_owner_who_may_be_seen_but_not_given_a_key_is_403(rival, user, settings):
    UserFactory(username="carl")
    settings.APIKEYS_POLICY = "tests.drf.test_management.CreatingPolicy"

    response = rival.post("/api/keys/", {"name": "x", "owner": user.pk})

    assert response.status_code == 403
    assert response.json()["code"] == "permission_denied"


def test_superuser_without_an_owner_to_name_gets_their_own(staff):
    response = staff.post("/api/keys/", {"name": "x"})

    assert response.json()["owner"]["name"] == "staff"


class ProjectPolicy(UserPolicy):
    """Superusers manage the keys of the project, and nobody has one of their own."""

    def owners(self, person, action):
        return get_user_model()._default_manager.none()


def test_superuser_of_no_owner_makes_a_key_of_the_project(staff, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.ProjectPolicy"

    response = staff.post("/api/keys/", {"name": "x"})

    assert response.status_code == 201
    assert response.json()["owner"] is None


# --- What may be granted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "beyond"),
    [
        (["jobs:read"], "jobs:read"),
        (["customers:read", "customers:write", "jobs:read"], "customers:write, jobs:read"),
        (["customers:*"], "customers:*"),
        (["*"], "*"),
        (["apikeys:write"], "apikeys:write"),
    ],
)
def test_more_than_the_policy_lets_grant_is_beyond_the_ceiling(
    scopes, beyond, issued, as_user, settings
):
    settings.APIKEYS_POLICY = "tests.drf.test_management.NarrowPolicy"

    created = as_user.post("/api/keys/", {"name": "x", "scopes": scopes})
    changed = as_user.patch(url(issued), {"scopes": scopes})

    for response in (created, changed):
        assert response.status_code == 403
        assert response.json() == {
            "detail": f"This is more than you may give to an API key: scopes ({beyond}).",
            "code": "beyond_ceiling",
        }
    assert APIKey.objects.count() == 1
    assert stored(issued).scopes == ["customers:read"]


def test_what_the_policy_lets_grant_is_granted(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.NarrowPolicy"

    response = as_user.post("/api/keys/", {"name": "x", "scopes": ["customers:read"]})

    assert response.status_code == 201


def test_scopes_that_may_be_granted(as_user):
    response = as_user.get("/api/scopes/")

    assert response.status_code == 200
    assert response.json() == [
        {"name": "customers:read", "description": "Read customers"},
        {"name": "customers:write", "description": "Create and change customers"},
        {"name": "jobs:read", "description": "Read jobs"},
        {"name": "jobs:write", "description": "Create and change jobs"},
        {
            "name": "apikeys:read",
            "description": "Read API keys, their usage and their events",
        },
        {
            "name": "apikeys:write",
            "description": "Create and change API keys within the limits of this one",
        },
        {"name": "self:rotate", "description": "Rotate the secret of this key"},
        {"name": "self:revoke", "description": "Revoke this key"},
    ]


def test_scopes_that_the_policy_lets_grant(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.NarrowPolicy"

    response = as_user.get("/api/scopes/")

    assert [scope["name"] for scope in response.json()] == ["customers:read"]


def test_scopes_for_an_owner(user, as_user):
    response = as_user.get("/api/scopes/", {"owner": user.pk})

    assert len(response.json()) == 8


def test_scopes_for_the_owner_of_others_are_not_to_be_asked_for(user, rival):
    """As for one that is nowhere: the answer does not tell that there is such an owner."""
    response = rival.get("/api/scopes/", {"owner": user.pk})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


@pytest.mark.parametrize("owner", ["nonsense", "\x00", "9" * 5000, "1.5"])
def test_scopes_for_an_owner_that_is_none(owner, as_user):
    response = as_user.get("/api/scopes/", {"owner": owner})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_scopes_for_a_superuser(staff, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.ProjectPolicy"

    response = staff.get("/api/scopes/")

    assert len(response.json()) == 8


# --- Change -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [
        ("name", " new ", "new"),
        ("description", "", ""),
        ("description", "new", "new"),
        ("enabled", False, False),
        ("scopes", ["jobs:read"], ["jobs:read"]),
        ("scopes", [], []),
        ("allowed_ips", ["192.0.2.7"], ["192.0.2.7"]),
        ("allowed_ips", [], []),
        ("rate_limit", "5/s", "5/s"),
        ("rate_limit", None, None),
        ("rate_limit", "", None),
        ("expires_at", "2100-01-01T00:00:00Z", "2100-01-01T00:00:00Z"),
        ("expires_at", None, None),
        ("metadata", {"a": [1, None, "é"]}, {"a": [1, None, "é"]}),
        ("metadata", {}, {}),
    ],
)
def test_change(name, value, answer, issue, as_user):
    issued = issue(
        description="old",
        scopes=["customers:read"],
        allowed_ips=["10.0.0.0/8"],
        rate_limit="1/m",
        expires_at=timezone.now() + timedelta(days=1),
        metadata={"old": True},
    )
    before = as_user.get(url(issued)).json()

    response = as_user.patch(url(issued), {name: value})

    assert response.status_code == 200
    assert response.json()[name] == answer
    others = FIELDS - {name, "updated_at", "status"}
    assert all(response.json()[other] == before[other] for other in others)


def test_change_of_nothing_changes_nothing(issued, as_user):
    before = as_user.get(url(issued)).json()

    response = as_user.patch(url(issued), {})

    assert response.status_code == 200
    assert response.json() == before
    assert [event.type for event in APIKeyEvent.objects.all()] == ["created"]


@pytest.mark.parametrize("body", [{"name": "new"}, {}, {"enabled": True}])
def test_change_of_a_revoked_key_is_a_conflict(body, issued, as_user):
    services.revoke_key(key=issued.key)

    response = as_user.patch(url(issued), body)

    assert response.status_code == 409
    assert response.json() == {"detail": "This key is revoked, for good.", "code": "conflict"}
    assert stored(issued).name == "a key"


def test_later_expiry_revives_an_expired_key(issued, as_user, client):
    APIKey.objects.filter(pk=issued.key.pk).update(expires_at=timezone.now())
    dead = client.get("/customers/", headers=bearer(issued.secret))

    response = as_user.patch(url(issued), {"expires_at": "2100-01-01T00:00:00Z"})

    assert dead.json()["code"] == "expired_key"
    assert response.json()["status"] == "active"
    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 200


def test_disabled_key_is_enabled_again(issue, as_user, client):
    issued = issue(scopes=["customers:read"], enabled=False)
    dead = client.get("/customers/", headers=bearer(issued.secret))

    response = as_user.patch(url(issued), {"enabled": True})

    assert dead.json()["code"] == "disabled_key"
    assert response.json()["status"] == "active"
    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 200


def test_put_is_not_allowed(issued, as_user):
    response = as_user.put(url(issued), {"name": "x"})

    assert response.status_code == 405


# --- Revoke -------------------------------------------------------------------------------


def test_revoke(issued, user, as_user, client):
    response = as_user.post(url(issued, "revoke/"), {"reason": "It leaked."})

    body = response.json()
    assert response.status_code == 200
    assert set(body) == FIELDS
    assert (body["status"], body["revoked_reason"]) == ("revoked", "It leaked.")
    assert body["revoked_by"] == {"id": user.pk, "name": "ann"}
    assert body["revoked_at"] is not None
    assert client.get("/customers/", headers=bearer(issued.secret)).json()["code"] == "revoked_key"


def test_revoked_key_stays_in_the_list(issued, as_user):
    as_user.post(url(issued, "revoke/"))

    assert [key["status"] for key in as_user.get("/api/keys/").json()["data"]] == ["revoked"]


def test_repeated_revoke_changes_nothing(issued, as_user):
    first = as_user.post(url(issued, "revoke/"), {"reason": "It leaked."})

    second = as_user.post(url(issued, "revoke/"), {"reason": "Another."})

    assert second.status_code == 200
    assert second.json() == first.json()
    assert APIKeyEvent.objects.filter(type="revoked").count() == 1


def test_revoke_with_cascade(issue, issued, as_user):
    offspring = issue().key
    APIKey.objects.filter(pk=offspring.pk).update(created_by_key=issued.key)

    as_user.post(url(issued, "revoke/"), {"cascade": True})

    assert APIKey.objects.get(pk=offspring.pk).revoked_at is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "a" * 501}, "reason"),
        ({"reason": "a\x00"}, "reason"),
        ({"reason": ["x"]}, "reason"),
        ({"reason": None}, "reason"),
        ({"cascade": "maybe"}, "cascade"),
        ({"because": "x"}, "because"),
    ],
)
def test_bad_revoke_is_400_and_revokes_nothing(body, field, issued, as_user):
    response = as_user.post(url(issued, "revoke/"), body)

    assert response.status_code == 400
    assert list(response.json()) == [field]
    assert stored(issued).revoked_at is None


# --- Delete -------------------------------------------------------------------------------


def test_delete(issued, as_user, client):
    response = as_user.delete(url(issued))

    assert response.status_code == 204
    assert response.content == b""
    assert as_user.get("/api/keys/").json()["data"] == []
    assert as_user.get("/api/keys/", {"status": "revoked"}).json()["data"] == []
    assert client.get("/customers/", headers=bearer(issued.secret)).json()["code"] == "revoked_key"


@pytest.mark.parametrize(("method", "tail"), CALLS)
def test_deleted_key_is_not_found(method, tail, issued, as_user):
    as_user.delete(url(issued))

    response = getattr(as_user, method)(url(issued, tail), {"name": "x"})

    assert response.status_code == 404


def test_delete_leaves_row_and_events(issued, as_user):
    as_user.delete(url(issued))

    assert stored(issued).deleted_at is not None
    assert {event.type for event in APIKeyEvent.objects.all()} == {"created", "deleted"}


# --- What a key may -----------------------------------------------------------------------

KEYS = "/api/keys/"
NOT_PERMITTED = {
    "detail": "You may not do this with API keys of this owner.",
    "code": "permission_denied",
}
ROTATED = {
    "detail": "This secret was rotated: send the current one. Where that is lost, a person "
    "rotates the key.",
    "code": "permission_denied",
}
# What the key has that manages the others; the client's address is 127.0.0.1.
REACH = {
    "scopes": ["customers:read", "jobs:*", "apikeys:read", "apikeys:write"],
    "allowed_ips": ["127.0.0.0/8"],
    "expires_at": "2100-01-01T00:00:00Z",
    "rate_limit": "60/m",
}
WITHIN = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["127.0.0.1"],
    "expires_at": "2099-01-01T00:00:00Z",
    "rate_limit": "1/s",
}


def as_stored(fields):
    moment = fields.get("expires_at")
    return {**fields, **({"expires_at": datetime.fromisoformat(moment)} if moment else {})}


def beyond_ceiling(text):
    return {
        "detail": f"This is more than you may give to an API key: {text}.",
        "code": "beyond_ceiling",
    }


def as_key(issued):
    """A client that sends the secret of *issued*."""
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


@pytest.fixture
def manager(issue):
    """A key that manages keys."""
    return issue(name="manager", **as_stored(REACH))


@pytest.fixture
def by_key(manager):
    return as_key(manager)


@pytest.fixture
def target(issue):
    """A key within it."""
    return issue(name="target", **as_stored(WITHIN))


@pytest.fixture
def in_grace(manager, by_key):
    """The same client, whose secret was rotated away meanwhile."""
    manager.key.secrets.update(slot=1, retires_at=timezone.now() + timedelta(hours=1))
    APIKeySecretFactory(key=manager.key)
    return by_key


READS = [
    pytest.param("get", None, "apikeys:read", id="list"),
    pytest.param("get", "", "apikeys:read", id="retrieve"),
]
WRITES = [
    pytest.param("post", None, "apikeys:write", id="create"),
    pytest.param("patch", "", "apikeys:write", id="patch"),
    pytest.param("delete", "", "apikeys:write", id="delete"),
    pytest.param("post", "revoke/", "apikeys:write", id="revoke"),
]


def called(client, method, tail, issued, body=None):
    return getattr(client, method)(KEYS if tail is None else url(issued, tail), body)


@pytest.mark.parametrize(("method", "tail", "scope"), [*READS, *WRITES])
def test_key_without_the_scope_is_told_so_first(method, tail, scope, issue, target):
    others = {"apikeys:read", "apikeys:write"} - {scope}
    client = as_key(issue(scopes=["*", "self:rotate", "self:revoke", *others]))

    response = called(client, method, tail, target, {"nonsense": 1} if tail != "" else None)

    assert response.status_code == 403
    assert response.json()["code"] == "insufficient_scope"
    assert response.headers["WWW-Authenticate"] == (
        f'Bearer realm="api", error="insufficient_scope", scope="{scope}"'
    )
    assert stored(target).revoked_at is None


def test_key_lists_the_keys_of_its_owner_and_environment(issue, target, by_key):
    issue(name="elsewhere", environment="test")
    issue(name="of another", owner=UserFactory())
    issue(name="of the project", owner=None)

    response = by_key.get(KEYS)

    assert response.status_code == 200
    assert {key["name"] for key in response.json()["data"]} == {"target", "manager"}
    assert response.json()["meta"]["total"] == 2


def test_key_sees_what_is_beyond_it(issue, by_key):
    beyond = issue(name="beyond", scopes=["*"])

    response = by_key.get(url(beyond))

    assert response.status_code == 200
    assert response.json()["scopes"] == ["*"]


def test_key_finds_nothing_elsewhere_by_a_filter(issue, by_key):
    issue(environment="test")

    response = by_key.get(KEYS, {"environment": "test"})

    assert response.json()["data"] == []


def test_key_asks_for_no_owner_but_its_own(user, by_key):
    own = by_key.get(KEYS, {"owner": user.pk})
    other = by_key.get(KEYS, {"owner": UserFactory().pk})

    assert [key["name"] for key in own.json()["data"]] == ["manager"]
    assert (other.status_code, other.json()) == (400, {"owner": ["There is no such owner."]})


@pytest.mark.parametrize(("method", "tail"), CALLS)
@pytest.mark.parametrize("whose", ["elsewhere", "of another", "of the project", "deleted"])
def test_key_of_others_is_not_found_by_a_key(method, tail, whose, issue, by_key):
    fields = {
        "elsewhere": {"environment": "test"},
        "of another": {"owner": UserFactory()},
        "of the project": {"owner": None},
        "deleted": {},
    }[whose]
    issued = issue(**as_stored(WITHIN), **fields)
    if whose == "deleted":
        services.delete_key(key=issued.key)
    before = APIKey.objects.filter(pk=issued.key.pk).values().get()

    response = getattr(by_key, method)(url(issued, tail))

    assert response.status_code == 404
    assert APIKey.objects.filter(pk=issued.key.pk).values().get() == before


def test_key_makes_a_key_within(manager, user, by_key, client, as_user):
    created = by_key.post(KEYS, {"name": "child", **WITHIN})

    body = created.json()
    assert created.status_code == 201
    assert created.headers["Cache-Control"] == "no-store"
    assert body["owner"] == {"id": user.pk, "name": "ann"}
    assert body["created_by"] is None
    assert {name: body[name] for name in WITHIN} == WITHIN
    assert client.get("/jobs/", headers=bearer(body["secret"])).status_code == 200
    assert APIKey.objects.get(pk=body["id"]).created_by_key == manager.key
    (event,) = as_user.get(f"{KEYS}{body['id']}/events/").json()["data"]
    assert (event["type"], event["address"]) == ("created", "127.0.0.1")
    assert event["actor"] == {"kind": "key", "id": str(manager.key.pk), "name": "manager"}


def test_key_makes_one_as_great_as_itself_that_manages_none(by_key):
    scopes = ["customers:read", "jobs:*"]

    response = by_key.post(KEYS, {"name": "child", **REACH, "scopes": scopes})

    assert response.status_code == 201
    assert response.json()["scopes"] == scopes


@pytest.mark.parametrize("environment", ["live", "test"])
def test_environment_of_a_key_is_that_of_the_key_that_makes_it(issue, environment):
    client = as_key(issue(scopes=["apikeys:write"], environment=environment))

    response = client.post(KEYS, {"name": "child"})

    assert response.status_code == 201
    assert response.json()["environment"] == environment
    assert response.json()["secret"].startswith(f"rak_{environment}_")


def test_key_of_the_project_makes_one_of_the_project(issue, user):
    client = as_key(issue(owner=None, scopes=["apikeys:write"]))

    made = client.post(KEYS, {"name": "child"})
    named = client.post(KEYS, {"name": "child", "owner": user.pk})

    assert (made.status_code, made.json()["owner"]) == (201, None)
    assert named.json() == {"owner": ["There is no such owner."]}


@pytest.mark.parametrize(
    ("owner", "status"), [("own", 201), ("another", 400), ("the project", 400)]
)
def test_key_makes_one_for_its_own_owner_alone(owner, status, user, by_key):
    owners = {"own": user.pk, "another": UserFactory().pk, "the project": None}

    response = by_key.post(KEYS, {"name": "child", "owner": owners[owner], **WITHIN})

    assert response.status_code == status


BEYOND = [
    pytest.param(
        {"scopes": ["jobs:read", "customers:write"]}, "scopes (customers:write)", id="scope"
    ),
    pytest.param({"scopes": ["customers:*"]}, "scopes (customers:*)", id="wildcard"),
    pytest.param({"scopes": ["*"]}, "scopes (*)", id="star"),
    pytest.param({"scopes": ["self:revoke"]}, "scopes (self:revoke)", id="self"),
    pytest.param({"scopes": ["apikeys:read"]}, "scopes (apikeys:read)", id="apikeys:read"),
    pytest.param(
        {"scopes": ["jobs:read", "apikeys:write"]}, "scopes (apikeys:write)", id="apikeys:write"
    ),
    pytest.param(
        {"allowed_ips": ["127.0.0.1", "192.0.2.7"]}, "allowed_ips (192.0.2.7)", id="network"
    ),
    pytest.param({"allowed_ips": ["::1"]}, "allowed_ips (::1)", id="network of IPv6"),
    pytest.param({"allowed_ips": []}, "allowed_ips (everywhere)", id="everywhere"),
    pytest.param(
        {"expires_at": "2100-01-01T00:00:01Z"},
        "expires_at (2100-01-01T00:00:01+00:00)",
        id="expiry",
    ),
    pytest.param({"expires_at": None}, "expires_at (never)", id="never"),
    pytest.param({"rate_limit": "61/m"}, "rate_limit (61/m)", id="rate"),
    pytest.param({"rate_limit": None}, "rate_limit (unlimited)", id="no rate"),
    pytest.param(
        {"scopes": ["*"], "allowed_ips": [], "expires_at": None, "rate_limit": None},
        "scopes (*), allowed_ips (everywhere), expires_at (never), rate_limit (unlimited)",
        id="all of it",
    ),
]


@pytest.mark.parametrize(("fields", "beyond"), BEYOND)
def test_key_gives_no_more_than_it_has(fields, beyond, target, by_key):
    before = APIKey.objects.filter(pk=target.key.pk).values().get()

    created = by_key.post(KEYS, {"name": "child", **WITHIN, **fields})
    changed = by_key.patch(url(target), fields)

    assert (created.status_code, changed.status_code) == (403, 403)
    assert created.json() == changed.json() == beyond_ceiling(beyond)
    assert "WWW-Authenticate" not in created.headers
    assert APIKey.objects.count() == 2
    assert APIKey.objects.filter(pk=target.key.pk).values().get() == before


def test_key_makes_none_elsewhere(by_key):
    response = by_key.post(KEYS, {"name": "child", "environment": "test", **WITHIN})

    assert response.status_code == 403
    assert response.json() == beyond_ceiling("environment (test)")


def test_key_that_says_only_a_name_asks_for_more_than_it_has(by_key):
    """Nothing said is everywhere, for ever and without a rate."""
    response = by_key.post(KEYS, {"name": "child"})

    assert response.status_code == 403
    assert response.json() == beyond_ceiling(
        "allowed_ips (everywhere), expires_at (never), rate_limit (unlimited)"
    )


def test_bad_body_of_a_key_is_400(by_key):
    response = by_key.post(KEYS, {"name": "", "allowed_ip": [], "scopes": ["jobs:fly"]})

    assert response.status_code == 400
    assert set(response.json()) == {"name", "allowed_ip", "scopes"}


def test_key_changes_a_key_within(target, by_key):
    response = by_key.patch(url(target), {"name": "renamed", "enabled": False, "scopes": []})

    body = response.json()
    assert response.status_code == 200
    assert (body["name"], body["status"], body["scopes"]) == ("renamed", "disabled", [])


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        pytest.param("patch", "", {"name": "renamed"}, id="rename"),
        pytest.param("patch", "", {"scopes": ["jobs:read"]}, id="narrow"),
        pytest.param("patch", "", {"enabled": False}, id="disable"),
        pytest.param("post", "revoke/", {}, id="revoke"),
        pytest.param("delete", "", None, id="delete"),
    ],
)
def test_key_does_nothing_to_a_key_beyond(method, tail, body, issue, by_key):
    issued = issue(**as_stored({**WITHIN, "scopes": ["jobs:read", "customers:write"]}))
    before = APIKey.objects.filter(pk=issued.key.pk).values().get()

    response = getattr(by_key, method)(url(issued, tail), body)

    assert response.status_code == 403
    assert response.json() == beyond_ceiling("scopes (customers:write)")
    assert APIKey.objects.filter(pk=issued.key.pk).values().get() == before


def test_key_enables_none(issue, by_key, as_user):
    issued = issue(enabled=False, **as_stored(WITHIN))

    refused = by_key.patch(url(issued), {"enabled": True})
    renamed = by_key.patch(url(issued), {"name": "renamed", "enabled": False})

    assert refused.status_code == 403
    assert refused.json() == beyond_ceiling("enabled (an API key enables none)")
    assert (renamed.status_code, renamed.json()["status"]) == (200, "disabled")
    assert as_user.patch(url(issued), {"enabled": True}).json()["status"] == "active"


def test_key_makes_a_disabled_one_that_it_does_not_enable(by_key):
    created = by_key.post(KEYS, {"name": "child", "enabled": False, **WITHIN})

    changed = by_key.patch(f"{KEYS}{created.json()['id']}/", {"enabled": True})

    assert (created.status_code, changed.status_code) == (201, 403)


def test_key_revokes_a_key_within(manager, target, by_key, as_user):
    response = by_key.post(url(target, "revoke/"), {"reason": "It leaked."})

    body = response.json()
    assert response.status_code == 200
    assert (body["status"], body["revoked_reason"]) == ("revoked", "It leaked.")
    assert body["revoked_by"] is None
    event = as_user.get(url(target, "events/")).json()["data"][0]
    assert event["actor"] == {"kind": "key", "id": str(manager.key.pk), "name": "manager"}


def test_key_deletes_a_key_within(target, by_key):
    response = by_key.delete(url(target))

    assert response.status_code == 204
    assert stored(target).deleted_at is not None
    assert by_key.get(url(target)).status_code == 404


def test_key_revokes_what_was_made_through_a_key(target, user, by_key):
    child = APIKeyFactory(owner=user, created_by_key=target.key, **as_stored(WITHIN))

    response = by_key.post(url(target, "revoke/"), {"cascade": True})

    child.refresh_from_db()
    assert response.status_code == 200
    assert child.revoked_at is not None


def test_key_revokes_nothing_where_one_of_the_offspring_is_beyond(target, user, by_key):
    within = APIKeyFactory(owner=user, created_by_key=target.key, **as_stored(WITHIN))
    APIKeyFactory(owner=user, created_by_key=within, scopes=["*"])

    response = by_key.post(url(target, "revoke/"), {"cascade": True})

    assert response.status_code == 403
    assert response.json() == beyond_ceiling(
        "scopes (*), allowed_ips (everywhere), expires_at (never), rate_limit (unlimited)"
    )
    assert not APIKey.objects.exclude(revoked_at=None).exists()


def test_key_manages_itself_within(manager, by_key):
    renamed = by_key.patch(url(manager), {"name": "renamed"})
    longer = by_key.patch(url(manager), {"expires_at": None})
    revoked = by_key.post(url(manager, "revoke/"))
    again = by_key.get(KEYS)

    assert (renamed.status_code, revoked.status_code) == (200, 200)
    assert longer.json() == beyond_ceiling("expires_at (never)")
    assert (again.status_code, again.json()["code"]) == (401, "revoked_key")


def test_change_of_a_revoked_key_by_a_key_is_a_conflict(target, by_key):
    services.revoke_key(key=target.key)

    response = by_key.patch(url(target), {"name": "renamed"})

    assert (response.status_code, response.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize("scopes", [[1], [None], {"a": 1}], ids=["number", "null", "object"])
def test_key_revokes_a_key_whose_scopes_are_malformed(scopes, target, by_key):
    """A row that something else wrote grants nothing, and breaks nothing."""
    APIKey.objects.filter(pk=target.key.pk).update(scopes=scopes)

    response = by_key.post(url(target, "revoke/"))

    assert response.status_code == 200


def test_key_that_is_revoked_while_it_asks_is_401(manager, target, by_key, monkeypatch):
    """Between verification and the lock; the answer is as for any dead key."""
    verified = APIKeyViewSet.initial

    def initial(view, *args, **kwargs):
        verified(view, *args, **kwargs)
        APIKey.objects.filter(pk=manager.key.pk).update(revoked_at=timezone.now())

    monkeypatch.setattr(APIKeyViewSet, "initial", initial)

    response = by_key.patch(url(target), {"name": "renamed"})

    assert response.status_code == 401
    assert response.json() == {"detail": "Invalid or expired API key.", "code": "revoked_key"}
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="invalid_token", '
        'error_description="Invalid or expired API key."'
    )
    assert stored(target).name == "target"


def test_scopes_that_a_key_may_grant(by_key, user):
    expected = ["customers:read", "jobs:read", "jobs:write"]

    for params in ({}, {"owner": user.pk}):
        response = by_key.get("/api/scopes/", params)

        assert [scope["name"] for scope in response.json()] == expected


def test_scopes_that_a_key_of_the_project_may_grant(issue):
    client = as_key(issue(owner=None, scopes=["jobs:read", "apikeys:read"]))

    response = client.get("/api/scopes/")

    assert [scope["name"] for scope in response.json()] == ["jobs:read"]


# --- A secret in its grace ----------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [KEYS, "/api/events/", "/api/scopes/", "/api/keys/self/", "target", "its events"]
)
def test_secret_in_its_grace_reads(path, target, in_grace):
    path = {"target": url(target), "its events": url(target, "events/")}.get(path, path)

    assert in_grace.get(path).status_code == 200


def test_secret_in_its_grace_may_grant_no_scope(in_grace):
    assert in_grace.get("/api/scopes/").json() == []


@pytest.mark.parametrize(("method", "tail", "scope"), WRITES)
def test_secret_in_its_grace_changes_nothing(method, tail, scope, target, in_grace):
    before = list(APIKey.objects.order_by("pk").values())

    response = called(in_grace, method, tail, target, {"name": "x"} if tail is None else None)

    assert response.status_code == 403
    assert response.json() == ROTATED
    assert list(APIKey.objects.order_by("pk").values()) == before


def test_secret_in_its_grace_is_refused_before_the_body_is_read(in_grace):
    response = in_grace.post(KEYS, "{not json", content_type="application/json")

    assert response.json() == ROTATED


def test_current_secret_beside_one_in_its_grace_goes_on(manager, target, by_key):
    APIKeySecretFactory(key=manager.key, slot=1)

    response = by_key.patch(url(target), {"name": "renamed"})

    assert response.status_code == 200


# --- Lifetimes and how many ---------------------------------------------------------------


def test_expiry_that_is_not_named_is_the_default(as_user, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = {"test": 7}

    live = as_user.post(KEYS, {"name": "x"}).json()
    test = as_user.post(KEYS, {"name": "x", "environment": "test"}).json()
    never = as_user.post(KEYS, {"name": "x", "environment": "test", "expires_at": None}).json()

    left = datetime.fromisoformat(test["expires_at"]) - timezone.now()
    assert (live["expires_at"], never["expires_at"]) == (None, None)
    assert timedelta(days=6, hours=23) < left < timedelta(days=7, hours=1)


def test_expiry_that_is_too_far_is_named_with_all_that_is_bad(issued, as_user, settings):
    settings.APIKEYS_MAX_LIFETIME = 90
    far = {"expires_at": "2099-01-01T00:00:00Z"}

    created = as_user.post(KEYS, {"name": "", **far})
    changed = as_user.patch(url(issued), {"scopes": ["x"], "expires_at": None})
    renamed = as_user.patch(url(issued), {"name": "renamed"})

    too_far = ["A key of “live” ends within 90 days: say when."]
    assert created.json() == {"name": ["This field may not be blank."], "expires_at": too_far}
    assert changed.json() == {"scopes": ["Unknown scope: 'x'."], "expires_at": too_far}
    assert renamed.status_code == 200


@pytest.mark.parametrize(
    ("environment", "messages"),
    [
        ("test", {"expires_at": ["A key of “test” ends within 7 days: say when."]}),
        ("live", {}),
        ("prod", {"environment": ["“prod” is not one of: live, test."]}),
    ],
)
def test_longest_lifetime_is_that_of_the_environment(environment, messages, as_user, settings):
    settings.APIKEYS_MAX_LIFETIME = {"test": 7}

    response = as_user.post(KEYS, {"name": "x", "environment": environment, "expires_at": None})

    assert response.status_code == (400 if messages else 201)
    assert messages.items() <= response.json().items()


@pytest.mark.parametrize("environment", [["live"], {"a": 1}, None, 5])
def test_lifetime_of_an_environment_that_is_none(environment, as_user, settings):
    settings.APIKEYS_MAX_LIFETIME = 7

    response = as_user.post(KEYS, {"name": "x", "environment": environment, "expires_at": None})

    assert response.status_code == 400
    assert list(response.json()) == ["environment"]


def test_longest_lifetime_of_a_change_is_that_of_the_key(issue, as_user, settings):
    settings.APIKEYS_MAX_LIFETIME = {"test": 7}
    issued = issue(environment="test", expires_at=timezone.now() + timedelta(days=1))

    changed = as_user.patch(url(issued), {"expires_at": None})

    assert changed.status_code == 400
    assert changed.json() == {"expires_at": ["A key of “test” ends within 7 days: say when."]}


def test_longest_lifetime_of_a_key_is_that_of_the_one_that_makes_it(issue, settings):
    client = as_key(issue(scopes=["apikeys:write"], environment="test"))
    settings.APIKEYS_MAX_LIFETIME = {"test": 7}

    response = client.post(KEYS, {"name": "x", "expires_at": None})

    assert response.json() == {"expires_at": ["A key of “test” ends within 7 days: say when."]}


def test_key_too_many_is_a_conflict(issued, as_user, settings):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 1

    refused = as_user.post(KEYS, {"name": "x"})
    as_user.post(url(issued, "revoke/"))
    made = as_user.post(KEYS, {"name": "x"})

    assert refused.status_code == 409
    assert refused.json() == {
        "detail": "There is 1 API key of this owner, as many as there may be: revoke it.",
        "code": "conflict",
    }
    assert made.status_code == 201


# --- Self ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scopes", [[], ["*"]])
def test_key_reads_itself(scopes, issue, client):
    issued = issue(name="sync", scopes=scopes)

    response = client.get("/api/keys/self/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert set(response.json()) == FIELDS
    assert response.json()["name"] == "sync"


def test_key_of_the_project_reads_itself(issue, client):
    issued = issue(owner=None)

    response = client.get("/api/keys/self/", headers=bearer(issued.secret))

    assert response.json()["owner"] is None


def test_person_is_403_at_self(as_user):
    response = as_user.get("/api/keys/self/")

    assert response.status_code == 403


@pytest.fixture
def revoking(issue):
    """A key that may revoke itself, and nothing else."""
    return issue(name="revoking", scopes=["self:revoke"])


def test_key_revokes_itself(revoking, as_user):
    client = as_key(revoking)

    response = client.post("/api/keys/self/revoke/", {"reason": "It leaked."})

    body = response.json()
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert set(body) == FIELDS
    assert (body["status"], body["revoked_reason"]) == ("revoked", "It leaked.")
    assert body["revoked_by"] is None
    assert client.get("/api/keys/self/").json()["code"] == "revoked_key"
    event = as_user.get(url(revoking, "events/")).json()["data"][0]
    assert event["actor"] == {"kind": "key", "id": str(revoking.key.pk), "name": "revoking"}


def test_key_revokes_itself_without_a_reason(revoking):
    response = as_key(revoking).post("/api/keys/self/revoke/")

    assert response.status_code == 200
    assert stored(revoking).revoked_reason == ""


def test_key_revokes_itself_through_a_secret_in_its_grace(revoking):
    revoking.key.secrets.update(slot=1, retires_at=timezone.now() + timedelta(hours=1))
    APIKeySecretFactory(key=revoking.key)

    response = as_key(revoking).post("/api/keys/self/revoke/")

    assert response.status_code == 200
    assert stored(revoking).revoked_at is not None


@pytest.mark.parametrize("slot", [1, None], ids=["grace over", "retired"])
def test_key_does_not_revoke_itself_through_a_retired_secret(revoking, slot):
    revoking.key.secrets.update(slot=slot, retires_at=timezone.now() - timedelta(hours=1))

    response = as_key(revoking).post("/api/keys/self/revoke/")

    assert (response.status_code, response.json()["code"]) == (401, "retired_secret")
    assert stored(revoking).revoked_at is None


@pytest.mark.parametrize(
    "scopes", [[], ["*"], ["self:rotate"], ["apikeys:write"]], ids=lambda scopes: str(scopes[:1])
)
def test_key_without_the_scope_does_not_revoke_itself(scopes, issue):
    issued = issue(scopes=scopes)

    response = as_key(issued).post("/api/keys/self/revoke/")

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="self:revoke"'
    )
    assert stored(issued).revoked_at is None


def test_key_of_the_project_revokes_itself(issue):
    issued = issue(owner=None, scopes=["self:revoke"])

    response = as_key(issued).post("/api/keys/self/revoke/")

    assert response.status_code == 200
    assert stored(issued).revoked_at is not None


def test_key_that_revokes_itself_leaves_what_was_made_through_it(revoking, user):
    child = APIKeyFactory(owner=user, created_by_key=revoking.key)

    as_key(revoking).post("/api/keys/self/revoke/")

    child.refresh_from_db()
    assert child.revoked_at is None


def test_person_is_403_at_revoking_itself(issued, as_user):
    response = as_user.post("/api/keys/self/revoke/")

    assert response.status_code == 403
    assert stored(issued).revoked_at is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"cascade": True}, "cascade"),
        ({"because": "x"}, "because"),
        ({"reason": "a" * 501}, "reason"),
        ({"reason": None}, "reason"),
    ],
)
def test_bad_body_does_not_revoke_itself(body, field, revoking):
    response = as_key(revoking).post("/api/keys/self/revoke/", body)

    assert response.status_code == 400
    assert list(response.json()) == [field]
    assert stored(revoking).revoked_at is None


@pytest.mark.parametrize("body", BAD_BODIES)
def test_body_that_cannot_be_read_does_not_revoke_itself(body, revoking):
    response = as_key(revoking).post(
        "/api/keys/self/revoke/", body, content_type="application/json"
    )

    assert response.status_code == 400
    assert stored(revoking).revoked_at is None


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_other_method_does_not_revoke_itself(method, revoking):
    response = getattr(as_key(revoking), method)("/api/keys/self/revoke/")

    assert response.status_code == 405


def test_key_that_is_deleted_while_it_is_verified_is_not_found(issued, client, monkeypatch):
    monkeypatch.setattr("django_apikeys.models.APIKeyQuerySet.listed", lambda keys: keys.none())

    response = client.get("/api/keys/self/", headers=bearer(issued.secret))

    assert response.status_code == 404


# --- Who did it, and the faces of DRF -----------------------------------------------------


def test_event_says_who_did_it_and_from_where(user, as_user):
    as_user.post(
        "/api/keys/",
        {"name": "x"},
        headers={"User-Agent": "curl/8.0 \x07" + "a" * 500},
        REMOTE_ADDR="::ffff:192.0.2.7",
    )

    event = APIKeyEvent.objects.get()

    assert (event.actor_kind, event.actor_id, event.actor_name) == ("user", str(user.pk), "ann")
    assert event.address == "192.0.2.7"
    assert event.user_agent == "curl/8.0 " + "a" * 246


def test_event_of_an_address_that_cannot_be_read(as_user):
    as_user.post("/api/keys/", {"name": "x"}, REMOTE_ADDR="rubbish")

    assert APIKeyEvent.objects.get().address == ""


@pytest.mark.parametrize("tail", [None, "", "revoke/"])
def test_options_says_what_may_be_sent(tail, issued, as_user):
    response = as_user.options("/api/keys/" if tail is None else url(issued, tail))

    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    [KEYS, "target", "/api/keys/self/", "/api/keys/self/revoke/", "/api/events/", "/api/scopes/"],
)
@pytest.mark.parametrize("scopes", [[], ["apikeys:read", "apikeys:write"]], ids=["none", "both"])
def test_options_asks_of_a_key_only_that_it_is_valid(path, scopes, issue, target):
    client = as_key(issue(scopes=scopes))

    response = client.options(url(target) if path == "target" else path)

    assert response.status_code == 200


def test_options_of_the_list_names_the_fields(as_user):
    response = as_user.options("/api/keys/")

    assert set(response.json()["actions"]["POST"]) == {
        "name",
        "description",
        "environment",
        "scopes",
        "allowed_ips",
        "rate_limit",
        "expires_at",
        "enabled",
        "metadata",
        "owner",
    }


@pytest.mark.parametrize("tail", [None, ""])
def test_browsable_api_shows_the_page(tail, issued, as_user, monkeypatch):
    monkeypatch.setattr(APIKeyViewSet, "renderer_classes", [JSONRenderer, BrowsableAPIRenderer])
    path = "/api/keys/" if tail is None else url(issued, tail)

    response = as_user.get(path, headers={"Accept": "text/html"})

    assert response.status_code == 200
    assert issued.key.masked in response.content.decode()


INVISIBLE = {
    "zero width": "\u200b",
    "right to left": "\u202eyek",
    "isolate": "a\u2066b",
    "line separator": "a\u2028b",
    "no-break space": "\u00a0",
    "C1 control": "a\x85b",
}


@pytest.mark.parametrize("name", INVISIBLE.values(), ids=INVISIBLE.keys())
def test_a_name_that_shows_nothing_or_another_name_is_400(as_user, name):
    response = as_user.post("/api/keys/", {"name": name})

    assert response.status_code == 400
    assert list(response.json()) == ["name"]


@pytest.mark.parametrize(
    "name", ["Schlüssel", "密钥", "\u0645\u06cc\u200c\u0645", "🔑 👩\u200d💻"]
)
def test_a_name_may_be_in_any_script(as_user, name):
    response = as_user.post("/api/keys/", {"name": name})

    assert response.status_code == 201
    assert response.json()["name"] == name


@pytest.mark.parametrize("value", [1, 1.5, 1e400, True])
@pytest.mark.parametrize("field", ["name", "description", "environment", "rate_limit"])
def test_a_number_is_no_text(as_user, field, value):
    body = json.dumps({"name": "x", field: value})

    response = as_user.generic("POST", "/api/keys/", body, content_type="application/json")

    assert response.status_code == 400
