"""The management API for a user who has keys of their own: section 4 of the contract."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
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


@pytest.mark.parametrize(
    ("method", "tail"),
    [("get", None), ("post", None), *[(call.values[0], call.values[1]) for call in CALLS]],
)
def test_key_does_not_manage_keys(method, tail, issue, client):
    issued = issue(scopes=["*", "apikeys:read", "apikeys:write"])
    path = "/api/keys/" if tail is None else url(issued, tail)

    response = getattr(client, method)(path, headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.json() == {
        "detail": "API keys cannot manage API keys.",
        "code": "permission_denied",
    }
    assert stored(issued).revoked_at is None


def test_key_without_the_scope_is_told_so_first(issue, client):
    issued = issue(scopes=["*"])

    response = client.get("/api/keys/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="apikeys:read"'
    )


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
        requests=5,
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
            "detail": f"You may not grant: {beyond}.",
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
