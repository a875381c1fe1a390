"""Keys and people, as whoever looks after them names them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist
from django.db import router

from django_apikeys.authority import with_key
from django_apikeys.keys.format import pasted_public_id
from django_apikeys.models import APIKey, APIKeySecret

if TYPE_CHECKING:
    from collections.abc import Iterable

# Names that one statement looks for.
MOST_NAMES = 500


def find_person(text: str) -> Any:
    """Return the user with this user name, else this primary key.

    Raises ObjectDoesNotExist.
    """
    people = get_user_model()._default_manager
    try:
        return people.get_by_natural_key(text)
    except ObjectDoesNotExist:
        person = with_key(people.all(), text)
        if person is None:
            raise
        return person


def find_keys(texts: Iterable[tuple[int, str]]) -> tuple[list[APIKey], list[int]]:
    """Return the keys that *texts* name, their ids alone loaded; and who names none.

    texts: each with its number. It is an id, a public id, or a secret, of which the public
    id alone is looked at. Deleted keys are found too.
    """
    pending = iter(texts)
    found: dict[UUID, APIKey] = {}
    unknown: list[int] = []
    while batch := list(islice(pending, MOST_NAMES)):
        ids = _ids(batch)
        keys = APIKey.objects.using(router.db_for_write(APIKey)).filter(pk__in=ids.values())
        known = keys.only("pk").in_bulk()
        found |= known
        unknown += [number for number, _text in batch if ids.get(number) not in known]
    return list(found.values()), unknown


def _ids(texts: Iterable[tuple[int, str]]) -> dict[int, UUID]:
    ids: dict[int, UUID] = {}
    public_ids: dict[int, str] = {}
    for number, text in texts:
        try:
            ids[number] = UUID(text)
        except ValueError:
            public_ids[number] = pasted_public_id(text) or text
    # What is no text of letters and digits cannot be one, and may be none to the database.
    asked = {text for text in public_ids.values() if text.isalnum()}
    secrets = APIKeySecret.objects.using(router.db_for_write(APIKeySecret))
    key_ids = dict(secrets.filter(public_id__in=asked).values_list("public_id", "key_id"))
    return ids | {number: key_ids[text] for number, text in public_ids.items() if text in key_ids}
