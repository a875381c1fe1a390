"""``GET keys/{id}/usage/`` and ``GET usage/``: what was used, and what is left."""

from datetime import date, timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.drf.renderers import EnvelopeJSONRenderer
from django_apikeys.drf.views import ManagementView
from django_apikeys.models import OwnerQuota
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.traffic import used, utc

ACCOUNT = "/api/usage/"
UNKNOWN_KEY = "5f1c3c5e-0000-4000-8000-000000000000"


class AllOwners(UserPolicy):
    """Everyone may see the keys of all."""

    def owners(self, person, action):
        return get_user_model()._default_manager.all()


class NoOwners(UserPolicy):
    """Nobody may see the keys of anybody."""

    def owners(self, person, action):
        return get_user_model()._default_manager.none()


class Planned(UserPolicy):
    """All are on the plan "pro"."""

    def plan(self, owner):
        return "pro"


def of_key(key):
    return f"/api/keys/{key.pk}/usage/"


def days(response):
    assert response.status_code == 200, response.json()
    return [row["start"][:10] for row in response.json()["series"]]


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


@pytest.mark.parametrize("path", [ACCOUNT, f"/api/keys/{UNKNOWN_KEY}/usage/"])
@pytest.mark.django_db
def test_nobody_is_401(path, client):
    response = client.get(path)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("scopes", [["*"], ["apikeys:write"], []])
def test_key_that_may_not_read_keys_is_403(scopes, issue, client):
    issued = issue(scopes=scopes)

    answers = [
        client.get(path, headers=bearer(issued.secret)) for path in (ACCOUNT, of_key(issued.key))
    ]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert {answer.json()["code"] for answer in answers} == {"insufficient_scope"}


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_usage_is_read_and_nothing_else(method, issued, as_user):
    answers = [getattr(as_user, method)(path, {}) for path in (ACCOUNT, of_key(issued.key))]

    assert [answer.status_code for answer in answers] == [405, 405]


def test_usage_of_a_key_of_others_is_not_found(issued, rival):
    response = rival.get(of_key(issued.key), {"granularity": "nonsense"})

    assert response.status_code == 404


@pytest.mark.parametrize("pk", ["self", "nonsense", "1", "%00", UNKNOWN_KEY])
def test_usage_of_a_key_that_is_none_is_not_found(pk, as_user):
    response = as_user.get(f"/api/keys/{pk}/usage/")

    assert response.status_code == 404


def test_usage_of_a_deleted_key_is_not_found(issued, user, as_user):
    services.delete_key(key=issued.key, actor=user)

    response = as_user.get(of_key(issued.key))

    assert response.status_code == 404


def test_usage_of_a_revoked_key_is_there(issued, user, as_user):
    services.revoke_key(key=issued.key, actor=user)

    response = as_user.get(of_key(issued.key))

    assert response.status_code == 200


def test_key_reads_the_usage_of_its_owners_keys_in_its_environment(issue, client):
    reader = issue(scopes=["apikeys:read"])
    headers = bearer(reader.secret)

    answers = [
        client.get(of_key(issue(**fields).key), headers=headers)
        for fields in ({}, {"environment": "test"}, {"owner": UserFactory()})
    ]

    assert [answer.status_code for answer in answers] == [200, 404, 404]


# --- The usage of a key -------------------------------------------------------------------


def test_usage_of_a_key(issued, as_user):
    now = timezone.now()
    used(issued.key, now, 2, address="192.0.2.7")

    response = as_user.get(of_key(issued.key))

    body = response.json()
    assert body["totals"] == {"requests": 2, "errors": 0, "refused": 0, "limited": 0}
    assert len(body["series"]) == 30
    assert body["series"][-1]["requests"] == 2
    assert body["by_route"] == [
        {"route": "customers/", "method": "GET", "requests": 2, "errors": 0}
    ]
    assert body["by_status"][0] == {"status": "2xx", "requests": 2}
    assert [row["ip"] for row in body["by_ip"]] == ["192.0.2.7"]
    assert response.headers["Cache-Control"] == "no-store"


def test_usage_in_its_envelope(issued, as_user, monkeypatch):
    monkeypatch.setattr(ManagementView, "renderer_classes", [EnvelopeJSONRenderer])

    key, account = as_user.get(of_key(issued.key)), as_user.get(ACCOUNT)

    assert list(key.json()) == list(account.json()) == ["data"]
    assert key.json()["data"]["totals"]["requests"] == 0
    assert account.json()["data"]["used"] == 0


SPANS = {
    "days": ({"from": "2026-01-01", "to": "2026-01-03"}, ["2026-01-01", "2026-01-02"]),
    "moments": (
        {"from": "2026-01-01T23:59:59Z", "to": "2026-01-02T00:00:01Z"},
        ["2026-01-01", "2026-01-02"],
    ),
    "moments of another zone": (
        {"from": "2026-01-01T23:30:00-02:00", "to": "2026-01-02T00:00:00-02:00"},
        ["2026-01-02"],
    ),
    "whose bare + has become a space": (
        {"from": "2026-01-02T00:00:00 01:00", "to": "2026-01-02 01:30:00.5 0100"},
        ["2026-01-01", "2026-01-02"],
    ),
    "with a space before the time": (
        {"from": "2026-01-01 01:00", "to": "2026-01-01 02:00"},
        ["2026-01-01"],
    ),
    "by the month": (
        {"from": "2025-12-31", "to": "2026-01-02", "granularity": "month"},
        ["2025-12-01", "2026-01-01"],
    ),
    "by the hour": (
        {"from": "2026-01-01T22:00", "to": "2026-01-02", "granularity": "hour"},
        ["2026-01-01", "2026-01-01"],
    ),
    "empty values": (
        {"from": "2026-01-01", "to": "2026-01-02", "granularity": ""},
        ["2026-01-01"],
    ),
    "with a format": (
        {"from": "2026-01-01", "to": "2026-01-02", "format": "json"},
        ["2026-01-01"],
    ),
}


@pytest.mark.parametrize(("parameters", "expected"), SPANS.values(), ids=SPANS.keys())
def test_span(parameters, expected, issued, as_user, settings):
    """What names no zone is meant in UTC, wherever the project is."""
    settings.TIME_ZONE = "Asia/Tokyo"

    response = as_user.get(of_key(issued.key), parameters)

    assert days(response) == expected


def test_default_span_is_thirty_days_by_day_with_today(issued, as_user):
    before = timezone.now().date()

    response = as_user.get(of_key(issued.key))

    shown = days(response)
    assert len(shown) == 30
    # Unless midnight came in between.
    assert shown[-1] in (str(before), str(before + timedelta(days=1)))


BAD = {
    "no day": ({"from": "yesterday"}, {"from"}),
    "no such day": ({"to": "2026-02-30"}, {"to"}),
    "a moment that no zone can hold": ({"from": "0001-01-01T00:00:00+02:00"}, {"from"}),
    "unknown granularity": ({"granularity": "week"}, {"granularity"}),
    "capital granularity": ({"granularity": "Day"}, {"granularity"}),
    "all at once": (
        {"from": "x", "to": "y", "granularity": "z"},
        {"from", "to", "granularity"},
    ),
    "backwards": ({"from": "2026-01-02", "to": "2026-01-01"}, {"to"}),
    "long ago": ({"to": "0001-01-02"}, {"to"}),
    "future": ({"from": "9999-12-31"}, {"from"}),
    "too many": ({"from": "2020-01-01", "granularity": "hour"}, {"from"}),
    "misspelt": ({"form": "2026-01-01"}, {"form"}),
    "of a list": ({"page": "1"}, {"page"}),
    "of the account": ({"owner": "1"}, {"owner"}),
    "two offsets": ({"from": "2026-01-01T00:00:00+01:00 01:00"}, {"from"}),
    "NUL": ({"from": "\x00", "granularity": "\x00"}, {"from", "granularity"}),
}


@pytest.mark.parametrize(("parameters", "fields"), BAD.values(), ids=BAD.keys())
def test_bad_parameter_is_named(parameters, fields, issued, as_user):
    response = as_user.get(of_key(issued.key), parameters)

    assert response.status_code == 400
    assert set(response.json()) == fields
    assert all(isinstance(text, str) for texts in response.json().values() for text in texts)


def test_limit_of_rows_is_said(issued, as_user):
    response = as_user.get(of_key(issued.key), {"from": "2020-01-01", "granularity": "hour"})

    assert response.json() == {
        "from": ["There would be more than 1000 rows: narrow the span, or widen granularity."]
    }


def test_queries_of_a_key_do_not_grow_with_its_usage(
    issued, as_user, django_assert_max_num_queries
):
    for number in range(30):
        used(
            issued.key,
            utc(2026, 1, 1 + number),
            route=f"r{number}/",
            address=f"192.0.2.{number}",
        )

    # Session, user, key, its secrets; and the report's three.
    with django_assert_max_num_queries(7):
        response = as_user.get(of_key(issued.key), {"from": "2026-01-01", "to": "2026-02-01"})

    assert response.json()["totals"]["requests"] == 30


# --- The account --------------------------------------------------------------------------


def test_account_of_a_person(user, as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_usage.Planned"
    settings.APIKEYS_PLANS = {"pro": {"rate": "300/m", "quota": 1000}}
    month = date(timezone.now().year, timezone.now().month, 1)
    OwnerQuota.objects.create(owner_id=str(user.pk), month=month, units=60)

    response = as_user.get(ACCOUNT)

    resets_at = (month + timedelta(days=32)).replace(day=1)
    assert response.json() == {
        "used": 60,
        "total": 1000,
        "remaining": 940,
        "resets_at": f"{resets_at}T00:00:00Z",
        "plan": "pro",
        "rate_limit": "300/m",
    }
    assert response.headers["Cache-Control"] == "no-store"


def test_account_of_a_person_without_a_plan(issued, as_user):
    used(issued.key, timezone.now(), 3)

    body = as_user.get(ACCOUNT).json()

    assert body.pop("resets_at")
    assert body == {
        "used": 3,
        "total": None,
        "remaining": None,
        "plan": None,
        "rate_limit": None,
    }


def test_account_of_a_named_owner(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_usage.AllOwners"
    other = UserFactory()
    used(APIKeyFactory(owner=other), timezone.now(), 3)

    response = as_user.get(ACCOUNT, {"owner": other.pk})

    assert response.json()["used"] == 3


def test_owner_is_needed_where_several_are_possible(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_usage.AllOwners"
    UserFactory()

    response = as_user.get(ACCOUNT)

    assert response.status_code == 400
    assert response.json() == {"owner": ["Say for which owner: several are possible."]}


@pytest.mark.parametrize("owner", ["0", "-1", "nobody", "1e3", "9" * 200])
def test_owner_who_is_nobody_is_400(owner, as_user):
    response = as_user.get(ACCOUNT, {"owner": owner})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_owner_who_may_not_be_seen_is_400(user, rival):
    response = rival.get(ACCOUNT, {"owner": user.pk})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        pytest.param({"owner": "x" * 256}, "owner", id="too-long"),
        pytest.param({"owner": "\x00"}, "owner", id="NUL"),
        pytest.param({"from": "2026-01-01"}, "from", id="of-a-key"),
        pytest.param({"onwer": "1"}, "onwer", id="misspelt"),
    ],
)
def test_bad_parameter_of_the_account_is_named(parameters, field, as_user):
    response = as_user.get(ACCOUNT, parameters)

    assert response.status_code == 400
    assert list(response.json()) == [field]


def test_person_who_may_see_nobody_is_403(as_user, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_usage.NoOwners"

    response = as_user.get(ACCOUNT)

    assert response.status_code == 403
    assert response.json()["code"] == "permission_denied"


def test_person_who_sees_nothing_but_the_projects_keys_has_its_account(staff, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_usage.NoOwners"
    used(APIKeyFactory(owner=None), timezone.now(), 3)

    body = staff.get(ACCOUNT).json()

    assert (body["used"], body["total"], body["plan"]) == (3, None, None)


def test_account_of_a_key_is_its_owners(issue, user, client):
    reader = issue(scopes=["apikeys:read"])
    used(reader.key, timezone.now(), 3)
    used(APIKeyFactory(), timezone.now(), 5)

    alone = client.get(ACCOUNT, headers=bearer(reader.secret))
    named = client.get(ACCOUNT, {"owner": user.pk}, headers=bearer(reader.secret))

    assert alone.json()["used"] == named.json()["used"] == 3


def test_account_of_others_is_no_keys_business(issue, client):
    reader = issue(scopes=["apikeys:read"])

    response = client.get(ACCOUNT, {"owner": UserFactory().pk}, headers=bearer(reader.secret))

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_account_of_a_key_of_the_project_is_the_projects(issue, client):
    reader = issue(scopes=["apikeys:read"], owner=None)
    used(reader.key, timezone.now(), 3)
    used(APIKeyFactory(), timezone.now(), 5)

    body = client.get(ACCOUNT, headers=bearer(reader.secret)).json()

    assert (body["used"], body["total"], body["remaining"]) == (3, None, None)
