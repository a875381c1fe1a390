"""``GET keys/?…``: each filter of the contract, and what it does to a value it cannot read."""

from datetime import UTC, datetime

import pytest

from django_apikeys.models import APIKeyTotals
from tests.factories import APIKeyFactory, UserFactory

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def keys(user):
    """An old key that is in use and a new one that never was."""
    old = APIKeyFactory(
        owner=user,
        name="old",
        environment="test",
        scopes=["jobs:read", "customers:*"],
        created_at=EARLY,
        updated_at=LATE,
        expires_at=datetime(2040, 1, 1, tzinfo=UTC),
    )
    old.secrets.update(first_used_at=EARLY)
    APIKeyTotals.objects.create(key=old, requests=5, last_used_at=EARLY)
    APIKeyFactory(owner=user, name="new", created_at=LATE, updated_at=EARLY)


@pytest.fixture
def names(keys, as_user):
    def names(**params):
        response = as_user.get("/api/keys/", params)
        assert response.status_code == 200, response.json()
        return [row["name"] for row in response.json()["data"]]

    return names


FOUND = {
    "nothing": ({}, ["new", "old"]),
    "status": ({"status": "active"}, ["new", "old"]),
    "environment": ({"environment": "test"}, ["old"]),
    "scope": ({"scope": "jobs:read"}, ["old"]),
    "scope, a wildcard by its name": ({"scope": "customers:*"}, ["old"]),
    "scope that nobody has": ({"scope": "jobs:write"}, []),
    "scope that a wildcard covers": ({"scope": "customers:read"}, []),
    "search": ({"search": "ol"}, ["old"]),
    "created_after": ({"created_after": "2026-03-01T00:00:00Z"}, ["new"]),
    "created_after, a day": ({"created_after": "2026-06-01"}, ["new"]),
    "created_before": ({"created_before": "2026-03-01T00:00:00+02:00"}, ["old"]),
    "created_before, its very moment": ({"created_before": "2026-01-01T00:00:00Z"}, []),
    "last_used_after": ({"last_used_after": "2025-12-31"}, ["old"]),
    "last_used_before": ({"last_used_before": "2025-12-31"}, []),
    "expires_before": ({"expires_before": "2041-01-01"}, ["old"]),
    "never_used": ({"never_used": "true"}, ["new"]),
    "never_used, not": ({"never_used": "false"}, ["old"]),
    "two at once": ({"environment": "live", "never_used": "true"}, ["new"]),
    "empty is left aside": ({"environment": "", "scope": "", "owner": ""}, ["new", "old"]),
    "by name": ({"ordering": "name"}, ["new", "old"]),
    "by name, turned around": ({"ordering": "-name"}, ["old", "new"]),
    "by created_at": ({"ordering": "created_at"}, ["old", "new"]),
    "by updated_at": ({"ordering": "-updated_at"}, ["old", "new"]),
    "by usage_count": ({"ordering": "usage_count", "never_used": "false"}, ["old"]),
    "by last_used_at": ({"ordering": "last_used_at", "never_used": "false"}, ["old"]),
    "by expires_at": ({"ordering": "expires_at", "never_used": "false"}, ["old"]),
}


@pytest.mark.parametrize(("params", "found"), FOUND.values(), ids=FOUND.keys())
def test_keys_are_found_by(names, params, found):
    assert names(**params) == found


def test_keys_are_found_by_owner(names, user):
    assert names(owner=user.pk) == ["new", "old"]


UNKNOWN = [
    ("status", "dead"),
    ("environment", "prod"),
    ("scope", "nope:read"),
    ("scope", "apikeys:*"),
    ("owner", "999999"),
    ("owner", "x"),
    ("owner", "\x00"),
    ("created_after", "yesterday"),
    ("created_after", "0001-01-01T00:00:00+14:00"),
    ("created_before", "9999-12-31T23:59:59-14:00"),
    ("last_used_after", "1"),
    ("last_used_before", "2026-02-31"),
    ("expires_before", "x"),
    ("never_used", "maybe"),
    ("ordering", "digest"),
    ("ordering", "owner__password"),
    ("search", "x" * 201),
    ("staus", "active"),
    ("owner__password", "x"),
    ("secrets__digest", "x"),
]


@pytest.mark.parametrize(("name", "value"), UNKNOWN, ids=[f"{n}={v:.20}" for n, v in UNKNOWN])
def test_unknown_value_is_400(as_user, keys, name, value):
    """Also a filter that does not exist: a typing error must not list every key."""
    response = as_user.get("/api/keys/", {name: value})

    assert response.status_code == 400
    assert list(response.json()) == [name]


def test_owner_of_others_is_400_as_one_that_is_nowhere(as_user, keys):
    other = UserFactory()

    response = as_user.get("/api/keys/", {"owner": other.pk})

    assert response.status_code == 400
    assert response.json() == {"owner": ["There is no such owner."]}


def test_several_bad_filters_are_named_at_once(as_user, keys):
    response = as_user.get("/api/keys/", {"status": "x", "scope": "x", "owner": "x"})

    assert sorted(response.json()) == ["owner", "scope", "status"]


def test_pages_of_equal_rows_do_not_overlap(as_user, user):
    """Rows that are equal in what they are ordered by are ordered by their ids."""
    APIKeyFactory.create_batch(6, owner=user, name="same")

    pages = [
        as_user.get("/api/keys/", {"ordering": "name", "limit": 2, "page": page}).json()["data"]
        for page in (1, 2, 3)
    ]

    assert len({row["id"] for page in pages for row in page}) == 6
