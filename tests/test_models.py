"""What the rows say of themselves, and what the database keeps."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from django_apikeys.models import (
    STATUSES,
    APIKey,
    APIKeyAddress,
    APIKeyEvent,
    APIKeySecret,
    APIKeySecretTotals,
    APIKeyTotals,
    APIKeyUsage,
    FlushedBatch,
    OwnerQuota,
)
from tests.factories import APIKeyFactory, APIKeySecretFactory

NOW = timezone.now()
DEAD = {
    "active": ({}, "active"),
    "disabled": ({"disabled": True}, "disabled"),
    "expired": ({"expired": True}, "expired"),
    "revoked": ({"revoked": True}, "revoked"),
    "disabled and expired": ({"disabled": True, "expired": True}, "disabled"),
    "revoked and disabled": ({"revoked": True, "disabled": True}, "revoked"),
    "revoked and expired": ({"revoked": True, "expired": True}, "revoked"),
}


@pytest.mark.parametrize(("traits", "status"), DEAD.values(), ids=DEAD.keys())
def test_the_status_of_a_row_and_of_a_list_are_one(db, traits, status):
    key = APIKeyFactory(**traits)
    now = timezone.now()

    found = [name for name in STATUSES if key in APIKey.objects.with_status(name, now)]

    assert key.status_at(now) == status
    assert found == [status]


def test_a_key_expires_at_its_very_moment(db):
    key = APIKeyFactory(expires_at=NOW)

    assert key.status_at(NOW) == "expired"
    assert key.status_at(NOW - timedelta(microseconds=1)) == "active"
    assert list(APIKey.objects.with_status("expired", NOW)) == [key]


def test_a_deleted_key_is_in_no_list(db):
    APIKeyFactory(deleted=True)

    assert list(APIKey.objects.listed()) == []


def test_a_deleted_key_must_be_revoked(db):
    """The database keeps it, whoever writes."""
    with pytest.raises(IntegrityError):
        APIKeyFactory(deleted_at=NOW)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_key_has_one_secret_in_a_slot(db, slot):
    key = APIKeyFactory(secret_row=None)
    APIKeySecretFactory(key=key, slot=slot)

    with pytest.raises(IntegrityError):
        APIKeySecretFactory(key=key, slot=slot)


def test_a_key_may_have_many_retired_secrets(db):
    key = APIKeyFactory()

    APIKeySecretFactory.create_batch(3, key=key, slot=None)

    assert key.secrets.count() == 4


def test_a_third_slot_does_not_exist(db):
    with pytest.raises(IntegrityError):
        APIKeySecretFactory(key=APIKeyFactory(), slot=2)


def test_a_public_id_is_unique(db):
    key = APIKeyFactory()

    with pytest.raises(IntegrityError):
        APIKeySecretFactory(key=key, slot=None, public_id=key.current_secret.public_id)


def test_public_ids_differ_by_case(db):
    key = APIKeyFactory()
    APIKeySecretFactory(key=key, slot=None, public_id="aaaaaaaaaaaa")

    APIKeySecretFactory(key=key, slot=None, public_id="AAAAAAAAAAAA")

    assert APIKeySecret.objects.filter(public_id="aaaaaaaaaaaa").count() == 1


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (APIKeySecret, "public_id"),
        (APIKeySecret, "last_four"),
        (APIKeyEvent, "owner_id"),
        (APIKeyUsage, "route"),
        (OwnerQuota, "owner_id"),
    ],
)
def test_these_texts_differ_by_case_on_mysql_too(model, name):
    """Its default collation does not; the column asks for one that does."""

    class MySQL:
        vendor = "mysql"
        data_types = connection.data_types
        data_type_check_constraints = connection.data_type_check_constraints
        ops = connection.ops

    field = model._meta.get_field(name)

    assert field.db_parameters(MySQL())["collation"] == "utf8mb4_bin"


def test_the_current_and_the_previous_secret_are_told_apart(db):
    key = APIKeyFactory()
    APIKeySecretFactory(key=key, slot=1, public_id="previous0000")

    assert key.current_secret.slot == 0
    assert key.previous_secret_at(timezone.now()).public_id == "previous0000"


def test_a_row_that_has_lost_its_secret_is_shown_all_the_same(db):
    key = APIKeyFactory(secret_row=None)

    assert key.current_secret is None
    assert key.masked == ""


def test_malformed_stored_scopes_grant_nothing(db):
    assert APIKeyFactory(scopes="*").granted_scopes == frozenset()
    assert APIKeyFactory(scopes=["jobs:read", 7]).granted_scopes == {"jobs:read"}


SEARCHES = {
    "name": ("eporti", True),
    "name, any case": ("REPORTING", True),
    "description": ("nightly", True),
    "public id": ("7Fq2Lm9XcT0a", True),
    "begin of public id": ("7Fq2", True),
    "masked": ("rak_live_7Fq2…WtB2", True),
    "masked, without prefix": ("7Fq2…WtB2", True),
    "masked, typed": ("rak_live_7Fq2...WtB2", True),
    "a pasted secret": (
        "rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm",
        True,
    ),
    "another masked": ("rak_live_7Fq2…AAAA", False),
    "another public id": ("AAAAAAAAAAAA", False),
    "a percent sign": ("%", False),
}


@pytest.mark.parametrize(("text", "found"), SEARCHES.values(), ids=SEARCHES.keys())
def test_a_key_is_found_by(db, text, found):
    key = APIKeyFactory(name="Reporting", description="Runs nightly.", secret_row=None)
    APIKeySecretFactory(key=key, public_id="7Fq2Lm9XcT0a", last_four="WtB2")

    assert (key in APIKey.objects.search(text)) is found


TEXTS = {
    "key": (APIKey(name="Reporting"), "Reporting"),
    "event": (
        APIKeyEvent(type="revoked", key_masked="rak_live_7Fq2…WtB2"),
        "revoked rak_live_7Fq2…WtB2",
    ),
    "totals": (APIKeyTotals(key_id="k", requests=3), "k: 3"),
    "secret totals": (APIKeySecretTotals(secret_id=1, requests=3), "1: 3"),
    "usage": (
        APIKeyUsage(key_id="k", starts_at="h", method="GET", route="jobs/", outcome="2xx"),
        "k h GET jobs/ 2xx",
    ),
    "address": (APIKeyAddress(key_id="k", address="203.0.113.7"), "k 203.0.113.7"),
    "quota": (OwnerQuota(owner_id="1", month="2026-11", units=5), "1 2026-11: 5"),
    "batch": (FlushedBatch(id="b"), "b"),
}


@pytest.mark.parametrize(("row", "text"), TEXTS.values(), ids=TEXTS.keys())
def test_a_row_as_text(row, text):
    assert str(row) == text


def test_a_key_without_a_name_and_a_secret_are_named_too(db):
    key = APIKeyFactory(name="")

    assert str(key) == str(key.pk)
    assert str(key.current_secret) == key.masked
