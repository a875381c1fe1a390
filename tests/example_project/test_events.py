"""Who sees the audit trail of an organisation."""

import csv
import io

import pytest

from django_apikeys import services
from django_apikeys.models import APIKeyEvent

EVENTS = "/api/v1/events/"


@pytest.fixture
def key(issue, globex):
    """A key of Acme, beside one of Globex and one of the project."""
    issue(name="of globex", owner=globex)
    issue(name="of the project", owner=None)
    return issue(name="of acme").key


@pytest.fixture
def callers(person, program, client, acme, globex):
    return {
        "owner": person("owner", acme),
        "admin": person("admin", acme),
        "member": person("member", acme),
        "rival": person("owner", globex),
        "outsider": person("owner"),
        "superuser": person("owner", is_superuser=True),
        "nobody": client,
        "key": program("apikeys:read", "apikeys:write", name="program"),
        "key without scopes": program(name="program"),
    }


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("owner", {"of acme", "program"}),
        ("admin", {"of acme", "program"}),
        ("member", {"of acme", "program"}),
        ("rival", {"of globex"}),
        ("outsider", set()),
        ("superuser", {"of the project"}),
    ],
)
def test_events_are_those_of_the_callers_organisations_alone(name, names, key, callers):
    answer = callers[name].get(EVENTS)

    assert answer.status_code == 200
    assert {row["key"]["name"] for row in answer.json()["data"]} == names


#                       events/  keys/{id}/events/
STATUSES = {
    "owner": (200, 200),
    "admin": (200, 200),
    "member": (200, 200),
    "rival": (200, 404),
    "outsider": (200, 404),
    "nobody": (401, 401),
    "key": (200, 200),
    "key without scopes": (403, 403),
}


@pytest.mark.parametrize("name", STATUSES)
def test_each_caller_may_do_what_the_policy_says(name, key, callers):
    answers = [callers[name].get(path) for path in (EVENTS, f"/api/v1/keys/{key.pk}/events/")]

    assert tuple(answer.status_code for answer in answers) == STATUSES[name]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("name", ["owner", "superuser"])
def test_no_call_changes_or_deletes_an_event(method, name, key, callers):
    before = list(APIKeyEvent.objects.values())

    answer = getattr(callers[name], method)(EVENTS, {})

    assert answer.status_code == 405
    assert list(APIKeyEvent.objects.values()) == before


def test_event_says_who_did_what_to_which_key(key, callers, acme):
    callers["owner"].post(f"/api/v1/keys/{key.pk}/revoke/", {"reason": "leaked"})

    row = callers["member"].get(f"/api/v1/keys/{key.pk}/events/").json()["data"][0]

    assert row["type"] == "revoked"
    assert row["key"] == {"id": str(key.pk), "name": "of acme"}
    assert row["owner"] == {"id": acme.pk, "name": "Acme"}
    assert row["actor"]["kind"] == "user"
    assert row["reason"] == "leaked"


def test_events_of_a_deleted_key_stay_by_its_names_of_then(key, callers, acme):
    services.delete_key(key=key)
    acme.name = "Acme & Sons"
    acme.save()

    rows = callers["member"].get(EVENTS, {"key": key.pk}).json()["data"]

    assert [(row["type"], row["owner"]["name"]) for row in rows] == [
        ("deleted", "Acme"),
        ("created", "Acme"),
    ]


def test_owner_of_several_organisations_narrows_to_one(person, key, acme, globex):
    caller = person("owner", acme, globex)

    both = caller.get(EVENTS)
    one = caller.get(EVENTS, {"owner": globex.pk})

    assert [row["key"]["name"] for row in both.json()["data"]] == ["of acme", "of globex"]
    assert [row["key"]["name"] for row in one.json()["data"]] == ["of globex"]


def test_owner_of_another_organisation_is_400(key, callers, globex):
    answer = callers["owner"].get(EVENTS, {"owner": globex.pk})

    assert answer.status_code == 400
    assert answer.json()["error"]["fields"] == {"owner": ["There is no such owner."]}


def test_events_as_csv(key, callers):
    answer = callers["rival"].get(EVENTS, headers={"Accept": "text/csv"})

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
    assert [row["key_name"] for row in rows] == ["of globex"]


def test_error_has_its_envelope_where_csv_was_asked_for(key, callers):
    answer = callers["owner"].get(EVENTS, {"format": "csv", "type": "vanished"})

    assert answer.status_code == 400
    assert answer.json()["error"]["reason"] == "invalid"
