"""Keys and people, as whoever looks after them names them."""

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_apikeys import lookups, services
from django_apikeys.keys.format import generate
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

pytestmark = pytest.mark.django_db


def found(*texts):
    return lookups.find_keys(enumerate(texts, start=1))


def test_a_key_is_named_by_its_id_a_public_id_or_a_secret(issued):
    key = issued.key
    services.rotate_key(key=key)
    public_id = issued.secret.split("_")[2]
    names = [str(key.pk), key.pk.hex, key.current_secret.public_id, public_id, issued.secret]

    assert [found(name) for name in names] == [([key], [])] * 5


def test_an_imported_key_is_named_by_its_public_id(issued):
    APIKeySecretFactory(key=issued.key, slot=None, public_id="imported8")

    assert found("imported8") == ([issued.key], [])


def test_a_deleted_key_is_found():
    """What was made through it may be alive."""
    key = APIKeyFactory(deleted=True)

    assert found(str(key.pk)) == ([key], [])


NONE = {
    "an unknown id": "6d2f0a3c-0000-4000-8000-000000000000",
    "an unknown public id": "AAAAAAAAAAAA",
    "an unknown secret": generate("rak", "live").secret.reveal(),
    "a word": "nonsense",
    "a sentence": "not a key",
    "no text": "\udcff",
    "NUL": "a\x00b",
    "much": "x" * 100_000,
    "another alphabet": "ключ",
}


@pytest.mark.parametrize("text", NONE.values(), ids=NONE.keys())
def test_what_names_no_key_is_known_by_its_number(text):
    key = APIKeyFactory()

    assert found(str(key.pk), text) == ([key], [2])


def test_a_public_id_differs_by_case(issued):
    APIKeySecretFactory(key=issued.key, slot=None, public_id="abcdefABCDEF")

    assert found("ABCDEFabcdef") == ([], [1])


def test_a_key_that_is_named_twice_is_found_once(issued):
    assert found(str(issued.key.pk), issued.secret) == ([issued.key], [])


def test_two_statements_for_each_five_hundred_names():
    keys = APIKeyFactory.create_batch(3)
    names = [str(keys[index % 3].pk) if index % 2 else "AAAAAAAAAAAA" for index in range(1000)]

    with CaptureQueriesContext(connection) as queries:
        known, unknown = found(*names)

    assert len(queries) == 4
    assert (len(known), len(unknown)) == (3, 500)


def test_a_person_is_found_by_user_name_before_id():
    ann = UserFactory(username="ann")
    bob = UserFactory(username=str(ann.pk))

    assert lookups.find_person("ann") == ann
    assert lookups.find_person(str(ann.pk)) == bob
    assert lookups.find_person(str(bob.pk)) == bob


@pytest.mark.parametrize("text", ["nobody", "", "0", "-1", "9" * 40, "9" * 5000])
def test_a_person_whom_there_is_not(text, user):
    with pytest.raises(ObjectDoesNotExist):
        lookups.find_person(text)
