"""Whoever has a part tries to get more: by every field, by every way that a body can be sent."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.authority import KeyAuthority
from django_apikeys.exceptions import BeyondCeiling, KeyRefused, NotPermitted
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.policy import UserPolicy
from django_apikeys.verification import verify
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

KEYS = "/api/keys/"
SELF = "/api/keys/self/"
FORM = "application/x-www-form-urlencoded"
# All that there is to have of jobs today, one by one; and narrow in all other respects.
SCOPES = ["apikeys:read", "apikeys:write", "jobs:read", "jobs:write"]
LIMITS = {
    "allowed_ips": ["127.0.0.0/8"],
    "rate_limit": "60/m",
    "expires_at": datetime(2090, 1, 1, tzinfo=UTC),
}
WITHIN = {
    "scopes": ["jobs:read"],
    "allowed_ips": ["127.0.0.1"],
    "rate_limit": "30/m",
    "expires_at": "2090-01-01T00:00:00Z",
}


class JobsPolicy(UserPolicy):
    """Everyone may grant what has to do with jobs, and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["jobs:read", "jobs:write"]


class ReadingPolicy(UserPolicy):
    """Everyone may grant ``jobs:read`` and what it implies."""

    def grantable_scopes(self, person, owner):
        return ["jobs:read"]


@pytest.fixture
def attacker(issue):
    """A key that manages keys, narrow in every respect."""
    return issue(name="attacker", scopes=SCOPES, **LIMITS)


@pytest.fixture
def child(attacker, issue):
    """A key that lies within the attacker's, and was made through it."""
    expires_at = datetime(2089, 1, 1, tzinfo=UTC)
    issued = issue(name="child", **{**WITHIN, "expires_at": expires_at})
    APIKey.objects.filter(pk=issued.key.pk).update(created_by_key=attacker.key)
    return issued


@pytest.fixture
def victim(db):
    """A key of somebody else."""
    owner = UserFactory(username="victim")
    return services.create_key(owner=owner, name="of the victim", scopes=["customers:read"])


@pytest.fixture
def root(db):
    """A superuser, logged in."""
    client = APIClient()
    client.force_login(UserFactory(username="root", superuser=True))
    return client


def program(issued):
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


def url(issued, tail=""):
    return f"{KEYS}{issued.key.pk}/{tail}"


def stored():
    """Every key as it is, and what has happened to it."""
    events = APIKeyEvent.objects.order_by("pk").values_list("type", "key_id")
    secrets = APIKeySecret.objects.order_by("pk").values_list("public_id", "digest", "slot")
    return list(APIKey.objects.order_by("pk").values()), list(events), list(secrets)


def code(answer):
    return answer.status_code, answer.json().get("code", "invalid")


def as_json(client, method, path, body):
    """Send what no renderer would write, too."""
    return client.generic(method.upper(), path, json.dumps(body), content_type="application/json")


BEYOND, BAD = (403, "beyond_ceiling"), (400, "invalid")
MORE = {
    "a scope of another resource": ({"scopes": ["customers:read"]}, BEYOND),
    "a scope beside one that it has": ({"scopes": ["jobs:read", "customers:read"]}, BEYOND),
    "all of today's by a wildcard": ({"scopes": ["jobs:*"]}, BEYOND),
    "everything by a wildcard": ({"scopes": ["*"]}, BEYOND),
    "to read keys": ({"scopes": ["apikeys:read"]}, BEYOND),
    "to write keys": ({"scopes": ["jobs:read", "apikeys:write"]}, BEYOND),
    "to rotate itself": ({"scopes": ["self:rotate"]}, BEYOND),
    "to manage keys by a wildcard": ({"scopes": ["apikeys:*"]}, BAD),
    "all to itself by a wildcard": ({"scopes": ["self:*"]}, BAD),
    "a scope in upper case": ({"scopes": ["JOBS:write"]}, BAD),
    "a scope in title case": ({"scopes": ["jobs:Write"]}, BAD),
    "a scope with a blank behind": ({"scopes": ["customers:read "]}, BEYOND),
    "a scope with a line behind": ({"scopes": ["customers:read\n"]}, BEYOND),
    "a scope with a blank within": ({"scopes": ["jobs: write"]}, BAD),
    "a scope with NUL behind": ({"scopes": ["jobs:write\x00"]}, BAD),
    "a scope of look-alikes": ({"scopes": ["j\u043ebs:write"]}, BAD),
    "a wildcard for resources": ({"scopes": ["*:write"]}, BAD),
    "two wildcards": ({"scopes": ["*:*"]}, BAD),
    "a wildcard within a word": ({"scopes": ["jobs:w*"]}, BAD),
    "scopes as a text": ({"scopes": "*"}, BAD),
    "scopes as an object": ({"scopes": {"*": True}}, BAD),
    "scopes in a list": ({"scopes": [["*"]]}, BAD),
    "scopes that are null": ({"scopes": None}, BAD),
    "every network by no list": ({"allowed_ips": []}, BEYOND),
    "every network of IPv4": ({"allowed_ips": ["0.0.0.0/0"]}, BEYOND),
    "every network of IPv6": ({"allowed_ips": ["::/0"]}, BEYOND),
    "every network by two halves": ({"allowed_ips": ["0.0.0.0/1", "128.0.0.0/1"]}, BEYOND),
    "every network, mapped": ({"allowed_ips": ["::ffff:0:0/96"]}, BEYOND),
    "an address outside, mapped": ({"allowed_ips": ["::ffff:192.0.2.1"]}, BEYOND),
    "an address outside beside one within": ({"allowed_ips": ["127.0.0.1", "10.0.0.1"]}, BEYOND),
    "a network that is wider by a bit": ({"allowed_ips": ["126.0.0.0/7"]}, BEYOND),
    "a network with host bits": ({"allowed_ips": ["127.0.0.1/0"]}, BAD),
    "networks that are null": ({"allowed_ips": None}, BAD),
    "no end": ({"expires_at": None}, BEYOND),
    "a later end": ({"expires_at": "2090-01-01T00:00:00.000001Z"}, BEYOND),
    "a later end by its zone": ({"expires_at": "2090-01-01T00:00:00-01:00"}, BEYOND),
    "the plan's rate": ({"rate_limit": None}, BEYOND),
    "the plan's rate by an empty text": ({"rate_limit": ""}, BEYOND),
    "one request more": ({"rate_limit": "61/m"}, BEYOND),
    "as many in a second": ({"rate_limit": "60/s"}, BEYOND),
    "as many in the long run, all at once": ({"rate_limit": "3600/h"}, BEYOND),
    "a rate with a nought before it": ({"rate_limit": "061/m"}, BAD),
}
OWNERS = {
    "as a number": lambda pk: pk,
    "as a text": str,
    "as a padded text": lambda pk: f" {pk} ",
    "in a list": lambda pk: [pk],
    "in an object": lambda pk: {"id": pk},
    "true": lambda pk: True,
    "null": lambda pk: None,
    "empty": lambda pk: "",
    "as a fraction": float,
    "by its name": lambda pk: "victim",
}


# --- A key that lies within another -------------------------------------------------------


@pytest.mark.parametrize(("body", "answer"), MORE.values(), ids=MORE)
def test_key_makes_none_that_has_more(body, answer, attacker):
    before = stored()

    made = as_json(program(attacker), "post", KEYS, {"name": "x", **WITHIN, **body})

    assert code(made) == answer
    assert stored() == before


@pytest.mark.parametrize(("body", "answer"), MORE.values(), ids=MORE)
def test_key_gives_its_child_no_more(body, answer, attacker, child):
    before = stored()

    changed = as_json(program(attacker), "patch", url(child), body)

    assert code(changed) == answer
    assert stored() == before


# It has these itself: it may keep them.
OWN = ("to read keys", "to write keys")


@pytest.mark.parametrize("name", [name for name in MORE if name not in OWN])
def test_key_gives_itself_no_more(name, attacker):
    body, answer = MORE[name]
    before = stored()

    changed = as_json(program(attacker), "patch", url(attacker), body)

    assert code(changed) == answer
    assert stored() == before


def test_key_that_gave_something_up_does_not_take_it_back(attacker):
    """Not even what lets it manage keys: the others are still there to be given."""
    caller = program(attacker)

    given_up = caller.patch(url(attacker), {"scopes": ["apikeys:write", "jobs:read"]})
    taken = [
        caller.patch(url(attacker), {"scopes": ["apikeys:write", "jobs:read", scope]})
        for scope in ("apikeys:read", "jobs:write")
    ]

    assert given_up.status_code == 200
    assert [code(answer) for answer in taken] == [BEYOND, BEYOND]


@pytest.mark.parametrize("name", ["allowed_ips", "expires_at", "rate_limit"])
def test_what_is_left_out_is_not_without_limit(name, attacker):
    """A body that says nothing of networks, expiry or rate asks for all there is."""
    body = {field: value for field, value in WITHIN.items() if field != name}

    made = program(attacker).post(KEYS, {"name": "x", **body})

    assert code(made) == BEYOND
    assert APIKey.objects.count() == 1


def test_what_lies_within_is_given(attacker):
    """The attacks fail for what they ask, not for how: mapped and doubled are as the plain."""
    body = {
        "scopes": ["jobs:read", "jobs:write", "jobs:read"],
        "allowed_ips": ["::ffff:127.0.0.1", "127.0.0.1", "127.128.0.0/9"],
    }

    made = program(attacker).post(KEYS, {"name": "x", **WITHIN, **body})

    assert made.status_code == 201
    assert made.json()["scopes"] == ["jobs:read", "jobs:write"]
    assert made.json()["allowed_ips"] == ["127.0.0.1", "127.128.0.0/9"]


def test_wildcard_is_given_by_one_that_is_as_wide(issue):
    caller = program(issue(scopes=["apikeys:write", "jobs:*"]))

    answers = [
        caller.post(KEYS, {"name": "x", "scopes": [scope]})
        for scope in ("jobs:*", "jobs:read", "customers:*", "*")
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 403, 403]


def test_the_wildcard_of_everything_gives_nothing_that_is_reserved(issue):
    caller = program(issue(scopes=["apikeys:write", "*"]))

    answers = [
        caller.post(KEYS, {"name": "x", "scopes": [scope]})
        for scope in ("*", "jobs:*", "apikeys:read", "apikeys:write", "self:revoke")
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 403, 403, 403]


def test_body_that_says_a_field_twice_is_judged_by_what_would_be_stored(attacker):
    twice = '{"name": "x", "scopes": ["*"], "scopes": ["jobs:read"], ' + json.dumps(WITHIN)[1:-1]
    last = ', "scopes": ["jobs:read"], "scopes": ["*"]}'

    made = program(attacker).post(KEYS, twice + last, content_type="application/json")

    assert code(made) == BEYOND
    assert APIKey.objects.count() == 1


def test_environment_is_not_left(attacker):
    caller = program(attacker)

    made = caller.post(KEYS, {"name": "x", **WITHIN, "environment": "test"})
    changed = caller.patch(url(attacker), {"environment": "test"})

    assert [code(made), code(changed)] == [BEYOND, BAD]
    assert list(APIKey.objects.values_list("environment", flat=True)) == ["live"]


def test_key_of_the_other_environment_is_not_found(attacker, issue):
    other = issue(environment="test", scopes=[])
    before = stored()

    answers = [
        program(attacker).get(url(other)),
        program(attacker).patch(url(other), {"name": "x"}),
        program(attacker).post(url(other, "revoke/"), {"cascade": True}),
        program(attacker).delete(url(other)),
        program(attacker).get(url(other, "events/")),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert stored() == before


def test_deleting_and_making_again_gives_no_more(attacker, child):
    """What may not be widened is not made anew with more either; what was deleted stays so."""
    caller = program(attacker)

    deleted = caller.delete(url(child))
    again = caller.post(KEYS, {"name": "child", **WITHIN, "scopes": ["customers:read"]})
    with_its_id = caller.post(KEYS, {"name": "child", **WITHIN, "id": str(child.key.pk)})
    changed = caller.patch(url(child), {"name": "x"})

    assert deleted.status_code == 204
    assert [code(again), code(with_its_id)] == [BEYOND, BAD]
    assert changed.status_code == 404
    assert program(child).get("/jobs/").json()["code"] == "revoked_key"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"enabled": true}', "application/json"),
        ('{"enabled": "true"}', "application/json"),
        ('{"enabled": 1}', "application/json"),
        ('{"enabled": true, "scopes": []}', "application/json"),
        ("enabled=on", FORM),
        ("enabled=True", FORM),
    ],
)
def test_key_enables_none(body, content_type, attacker, child):
    APIKey.objects.filter(pk=child.key.pk).update(enabled=False)

    answer = program(attacker).patch(url(child), body, content_type=content_type)

    assert code(answer) == BEYOND
    assert program(child).get("/jobs/").json()["code"] == "disabled_key"


@pytest.mark.parametrize("body", [{"enabled": True}, {"expires_at": None}, {"name": "x"}])
def test_revoked_key_is_brought_back_by_nobody(body, child, attacker, as_user, root):
    services.revoke_key(key=child.key)

    answers = [caller.patch(url(child), body) for caller in (as_user, program(attacker))]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert root.patch(url(child), body).status_code == 404
    assert program(child).get("/jobs/").json()["code"] == "revoked_key"


# --- Keys that were made through keys -----------------------------------------------------


def managing_child(child):
    """Let a child manage keys, which only a person could do."""
    APIKey.objects.filter(pk=child.key.pk).update(scopes=["apikeys:write", "jobs:read"])
    return program(child)


def test_child_gives_no_grandchild_what_its_parent_has(child):
    body = {"name": "grandchild", **WITHIN, "expires_at": "2089-01-01T00:00:00Z"}

    answers = [
        managing_child(child).post(KEYS, {**body, "scopes": scopes})
        for scopes in (["jobs:read"], ["jobs:write"], ["apikeys:write"])
    ]

    assert [answer.status_code for answer in answers] == [201, 403, 403]


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("patch", "", {"scopes": []}),
        ("patch", "", {"name": "x"}),
        ("patch", "", {"enabled": False}),
        ("post", "revoke/", {}),
        ("post", "revoke/", {"cascade": True}),
        ("delete", "", {}),
    ],
)
def test_child_does_nothing_to_its_parent(method, tail, body, attacker, child):
    caller = managing_child(child)
    before = stored()

    answer = getattr(caller, method)(url(attacker, tail), body)

    assert code(answer) == BEYOND
    assert stored() == before


def test_cascade_reaches_none_that_has_more(attacker, child, issue):
    """One of many is beyond the ceiling: then none of them is revoked."""
    grandchild = issue(scopes=["customers:read"]).key
    APIKey.objects.filter(pk=grandchild.pk).update(created_by_key=child.key)
    before = stored()

    answer = program(attacker).post(url(child, "revoke/"), {"cascade": True})

    assert code(answer) == BEYOND
    assert stored() == before


def test_cascade_of_a_key_reaches_none_of_the_other_environment(attacker, child, issue):
    expires_at = datetime(2089, 1, 1, tzinfo=UTC)
    other = issue(environment="test", **{**WITHIN, "expires_at": expires_at}).key
    APIKey.objects.filter(pk=other.pk).update(created_by_key=child.key)

    program(attacker).post(url(child, "revoke/"), {"cascade": True})

    assert APIKey.objects.get(pk=other.pk).revoked_at is None


@pytest.mark.parametrize("caller", ["a key", "its owner"])
def test_cascade_reaches_no_key_of_somebody_else(caller, attacker, child, victim, as_user):
    """The host's own code may make keys of others through a key: they stay the others'."""
    APIKey.objects.filter(pk=victim.key.pk).update(created_by_key=child.key, **WITHIN)
    client = {"a key": program(attacker), "its owner": as_user}[caller]

    client.post(url(child, "revoke/"), {"cascade": True})

    assert APIKey.objects.get(pk=victim.key.pk).revoked_at is None


# --- A secret in its grace ----------------------------------------------------------------


def rotated(issued):
    """Put the secret of *issued* into its grace."""
    issued.key.secrets.update(slot=1, retires_at=timezone.now() + timedelta(days=1))
    APIKeySecretFactory(key=issued.key)
    return program(issued)


@pytest.mark.parametrize("target", ["child", "attacker"])
def test_secret_in_its_grace_manages_no_key(target, attacker, child):
    """Whoever holds the leaked old secret must not make a new one of it, or lock others out."""
    caller = rotated(attacker)
    issued = {"child": child, "attacker": attacker}[target]
    before = stored()

    answers = [
        caller.post(KEYS, {"name": "x", **WITHIN}),
        caller.patch(url(issued), {"scopes": []}),
        caller.delete(url(issued)),
        caller.post(url(issued, "revoke/"), {"cascade": True}),
    ]

    assert [code(answer) for answer in answers] == [(403, "permission_denied")] * 4
    assert stored() == before


def test_secret_in_its_grace_is_shown_no_other(attacker):
    """It reads its key, and nothing by which the new secret could be guessed."""
    caller = rotated(attacker)
    current = attacker.key.secrets.get(slot=0)

    answers = [caller.get(path) for path in (SELF, url(attacker), KEYS, "/api/events/")]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert not any(current.digest in answer.content.decode() for answer in answers)
    assert not any('"secret"' in answer.content.decode() for answer in answers)


# --- Owners -------------------------------------------------------------------------------


@pytest.mark.parametrize("as_sent", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize("caller", ["a key", "a person"])
def test_owner_of_a_new_key_is_nobody_else(caller, as_sent, attacker, as_user, victim):
    client = {"a key": program(attacker), "a person": as_user}[caller]
    before = stored()

    answer = client.post(KEYS, {"name": "x", **WITHIN, "owner": as_sent(victim.key.owner_id)})

    assert code(answer) == BAD
    assert list(answer.json()) == ["owner"]
    assert stored() == before


@pytest.mark.parametrize("as_sent", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize("caller", ["a key", "a person"])
def test_owner_of_a_key_is_not_changed(caller, as_sent, attacker, as_user, victim):
    client = {"a key": program(attacker), "a person": as_user}[caller]
    before = stored()

    answer = client.patch(url(attacker), {"owner": as_sent(victim.key.owner_id)})

    assert code(answer) == BAD
    assert list(answer.json()) == ["owner"]
    assert stored() == before


def test_owner_of_a_key_of_the_project_is_not_changed(root, victim):
    """A superuser makes a key of the project, and none of its secrets becomes another's."""
    issued = services.create_key(owner=None, name="of the project")

    answer = root.patch(url(issued), {"owner": victim.key.owner_id})

    assert list(answer.json()) == ["owner"]
    assert APIKey.objects.get(pk=issued.key.pk).owner is None


@pytest.mark.parametrize("name", ["owner", "owner_id"])
def test_owner_of_the_address_is_not_looked_at(name, attacker, victim):
    """Only the body says for whom a key is made."""
    path = f"{KEYS}?{name}={victim.key.owner_id}"

    answer = program(attacker).post(path, {"name": "x", **WITHIN})

    assert answer.json()["owner"]["name"] == "ann"
    assert APIKey.objects.filter(owner=victim.key.owner).count() == 1


@pytest.mark.parametrize(
    ("method", "tail"),
    [("get", ""), ("patch", ""), ("delete", ""), ("post", "revoke/"), ("get", "events/")],
)
def test_key_of_somebody_else_is_not_found(method, tail, attacker, victim):
    before = stored()

    answer = getattr(program(attacker), method)(url(victim, tail), {"cascade": True})

    assert answer.status_code == 404
    assert stored() == before


@pytest.mark.parametrize("method", ["get", "patch", "delete"])
def test_key_of_the_project_manages_those_of_the_project_alone(method, issue, victim):
    """It has no owner, which is not "every owner"."""
    of_project = issue(name="of the project", owner=None)
    caller = program(issue(name="its manager", owner=None, scopes=SCOPES))
    before = stored()

    answer = getattr(caller, method)(url(victim), {})

    assert answer.status_code == 404
    assert stored() == before
    assert {key["name"] for key in caller.get(KEYS).json()["data"]} == {
        "of the project",
        "its manager",
    }
    assert caller.patch(url(of_project), {"description": "x"}).status_code == 200


@pytest.mark.parametrize("as_sent", [int, str, lambda pk: [pk], lambda pk: True])
def test_key_of_the_project_makes_none_for_an_owner(as_sent, issue, victim):
    caller = program(issue(owner=None, scopes=SCOPES))

    answer = caller.post(KEYS, {"name": "x", "owner": as_sent(victim.key.owner_id)})

    assert list(answer.json()) == ["owner"]
    assert caller.post(KEYS, {"name": "x"}).json()["owner"] is None
    assert APIKey.objects.filter(owner=victim.key.owner).count() == 1


def test_key_of_an_owner_does_not_see_those_of_the_project(attacker, issue):
    issued = issue(name="of the project", owner=None, scopes=[])

    assert program(attacker).get(url(issued)).status_code == 404
    assert program(attacker).get(KEYS).json()["meta"]["total"] == 1


# --- Filters that look into the keys of others --------------------------------------------


@pytest.mark.parametrize("path", [KEYS, "/api/events/", "/api/scopes/"])
def test_owner_of_others_is_no_filter(path, attacker, victim):
    answer = program(attacker).get(path, {"owner": victim.key.owner_id})

    assert answer.status_code == 400
    assert answer.json() == {"owner": ["There is no such owner."]}


@pytest.mark.parametrize(
    "text",
    [
        lambda issued: issued.key.current_secret.public_id,
        lambda issued: issued.key.current_secret.public_id[:4],
        lambda issued: issued.key.masked,
        lambda issued: issued.secret,
        lambda issued: issued.key.name,
    ],
    ids=["public id", "its begin", "masked", "secret", "name"],
)
def test_search_finds_no_key_of_others(text, attacker, victim):
    answer = program(attacker).get(KEYS, {"search": text(victim)})

    assert answer.status_code == 200
    assert answer.json()["data"] == []


def test_events_of_the_keys_of_others_are_not_found(attacker, victim, issue):
    other = issue(environment="test").key

    for key in (victim.key, other):
        answer = program(attacker).get("/api/events/", {"key": key.pk})
        assert (answer.status_code, answer.json()["data"]) == (200, [])


# --- Mass assignment ----------------------------------------------------------------------

NEVER_SET = [
    *("created_by", "created_by_id", "created_by_key", "created_by_key_id", "owner_id"),
    *("id", "pk", "uuid", "new_id", "revoked_at", "revoked_by", "revoked_reason", "deleted_at"),
    *("created_at", "updated_at", "public_id", "digest", "secret", "secrets", "slot"),
    *("retires_at", "previous_secret", "masked", "last_four", "prefix", "status"),
    *("usage_count", "rotation_due_at", "plan", "actor", "authority", "is_superuser"),
]


@pytest.mark.parametrize("format_", ["json", "multipart"])
@pytest.mark.parametrize("name", NEVER_SET)
def test_no_other_column_is_set_by_a_body(name, format_, attacker, child):
    caller, body = program(attacker), {name: str(child.key.pk)}
    before = stored()

    answers = [
        caller.post(KEYS, {"name": "x", **WITHIN, **body}, format=format_),
        caller.patch(url(child), body, format=format_),
        caller.post(url(child, "revoke/"), body, format=format_),
    ]

    assert [list(answer.json()) for answer in answers] == [[name]] * 3
    assert stored() == before


def test_key_remembers_through_which_it_was_made_whatever_it_says(attacker):
    program(attacker).post(KEYS, {"name": "x", **WITHIN, "metadata": {"created_by_key": None}})

    assert APIKey.objects.get(name="x").created_by_key == attacker.key


# --- Other ways to send it ----------------------------------------------------------------

OVERRIDES = [
    {"headers": {"X-HTTP-Method-Override": "{method}"}},
    {"headers": {"X-Method-Override": "{method}"}},
    {"headers": {"X-HTTP-Method": "{method}"}},
    {"query": "?_method={method}"},
    {"body": "_method={method}"},
]


@pytest.mark.parametrize("override", OVERRIDES, ids=str)
@pytest.mark.parametrize("method", ["DELETE", "PATCH", "POST"])
def test_method_is_that_of_the_request(method, override, issue, child):
    """A key that may only read stays with that, whatever method it says it meant."""
    reader = program(issue(scopes=["apikeys:read"]))
    headers = {k: v.format(method=method) for k, v in override.get("headers", {}).items()}
    query = override.get("query", "").format(method=method)
    body = override.get("body", "").format(method=method)
    before = stored()

    read = reader.generic("GET", url(child) + query, body, FORM, headers=headers)
    posted = reader.generic("POST", url(child) + query, body, FORM, headers=headers)

    assert (read.status_code, posted.status_code) == (200, 403)
    assert stored() == before


@pytest.mark.parametrize("override", ["GET", "OPTIONS", "HEAD"])
def test_writing_is_not_called_reading(override, issue):
    """A key that may only read gets no further by saying that it reads."""
    reader = program(issue(scopes=["apikeys:read"]))

    answer = reader.post(KEYS, {"name": "x"}, headers={"X-HTTP-Method-Override": override})

    assert code(answer) == (403, "insufficient_scope")
    assert APIKey.objects.count() == 1


@pytest.mark.parametrize("path", [KEYS, "/api/events/", "/api/scopes/", SELF])
def test_body_of_a_get_is_not_looked_at(path, issue, victim):
    reader = program(issue(name="reader", scopes=["apikeys:read"]))
    body = {"name": "x", "owner": victim.key.owner_id, "enabled": True, "scopes": ["*"]}
    plain, before = reader.get(path), stored()

    answer = as_json(reader, "get", path, body)

    assert (answer.status_code, answer.json()) == (200, plain.json())
    assert stored() == before


FORMS = {
    "another scope": ("scopes=customers%3Aread", BEYOND),
    "one scope within, one beyond": ("scopes=jobs%3Aread&scopes=%2A", BEYOND),
    "every network": ("allowed_ips=0.0.0.0%2F0", BEYOND),
    "no end": ("expires_at=", BEYOND),
    "the plan's rate": ("rate_limit=", BEYOND),
    "indexed scopes": ("scopes%5B0%5D=%2A", BAD),
    "an unknown field": ("scope=%2A", BAD),
    "another owner": ("owner=1", BAD),
}


@pytest.mark.parametrize(("body", "answer"), FORMS.values(), ids=FORMS)
def test_form_is_bound_as_json_is(body, answer, attacker, child):
    before = stored()

    changed = program(attacker).patch(url(child), body, content_type=FORM)

    assert code(changed) == answer
    assert stored() == before


@pytest.mark.parametrize("left_out", ["allowed_ips", "expires_at", "rate_limit"])
def test_form_that_leaves_a_limit_out_is_bound_too(left_out, attacker):
    fields = {
        "scopes": "scopes=jobs%3Aread",
        "allowed_ips": "allowed_ips=127.0.0.1",
        "rate_limit": "rate_limit=60%2Fm",
        "expires_at": "expires_at=2089-01-01T00%3A00%3A00Z",
    }
    whole = "&".join(["name=x", *fields.values()])
    part = "&".join(["name=x", *(text for name, text in fields.items() if name != left_out)])

    answers = [program(attacker).post(KEYS, body, content_type=FORM) for body in (part, whole)]

    assert [answer.status_code for answer in answers] == [403, 201]


# --- A key beside a person's session ------------------------------------------------------


def beside(client, issued):
    """Let the browser of a person send a key, too."""
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
    return client


def test_session_of_a_superuser_gives_a_key_nothing(root, issue, attacker):
    bare = issue(scopes=[])

    answers = [
        beside(root, bare).get(KEYS),
        beside(root, bare).post(KEYS, {"name": "x"}),
        beside(root, attacker).post(KEYS, {"name": "x", **WITHIN, "scopes": ["customers:read"]}),
        beside(root, attacker).post(KEYS, {"name": "x", **WITHIN, "owner": None}),
        beside(root, attacker).patch(url(bare), {"enabled": True, "scopes": ["*"]}),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 400, 403]
    assert set(APIKey.objects.values_list("name", flat=True)) == {"a key", "attacker"}


def test_dead_key_beside_a_session_does_nothing(as_user, child):
    services.revoke_key(key=child.key)

    answer = beside(as_user, child).post(KEYS, {"name": "x"})

    assert code(answer) == (401, "revoked_key")
    assert not APIKey.objects.filter(name="x").exists()


def test_what_a_key_does_beside_a_session_is_its_own(root, attacker):
    beside(root, attacker).post(KEYS, {"name": "x", **WITHIN})

    event = APIKeyEvent.objects.get(key_name="x")
    key = APIKey.objects.get(name="x")
    assert (event.actor_kind, event.actor_id) == ("key", str(attacker.key.pk))
    assert (key.created_by, key.created_by_key) == (None, attacker.key)


# --- Implied scopes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("jobs:read", 201),
        ("jobs:write", 201),
        ("customers:read", 403),
        ("jobs:*", 403),
        ("apikeys:read", 403),
    ],
)
def test_what_is_implied_is_given_and_no_more(scope, status, issue, settings):
    settings.APIKEYS_IMPLIED_SCOPES = {"write": ["read"]}
    caller = program(issue(scopes=["apikeys:write", "jobs:write"]))

    answer = caller.post(KEYS, {"name": "x", "scopes": [scope]})

    assert answer.status_code == status


def test_writing_keys_does_not_imply_reading_them(issue, settings):
    """A bare action leaves keys themselves out."""
    settings.APIKEYS_IMPLIED_SCOPES = {"write": ["read"]}
    caller = program(issue(scopes=["apikeys:write", "jobs:write"]))

    assert code(caller.get(KEYS)) == (403, "insufficient_scope")


def test_scope_that_brings_the_management_of_keys_along_is_given_by_no_key(issue, settings):
    """No key grants any ``apikeys:…`` scope: not by another one that implies it either."""
    settings.APIKEYS_IMPLIED_SCOPES = {"jobs:write": ["apikeys:write"]}
    caller = program(issue(scopes=["apikeys:write", "jobs:write"]))

    answer = caller.post(KEYS, {"name": "x", "scopes": ["jobs:write"]})

    assert code(answer) == BEYOND


def test_person_gives_what_theirs_implies_and_no_more(as_user, settings):
    settings.APIKEYS_POLICY = "tests.test_attacks.ReadingPolicy"
    settings.APIKEYS_IMPLIED_SCOPES = {"jobs:read": ["jobs:write"], "customers:read": ["jobs:*"]}

    within = as_user.post(KEYS, {"name": "x", "scopes": ["jobs:read", "jobs:write"]})
    beyond = as_user.post(KEYS, {"name": "x", "scopes": ["customers:read"]})

    assert (within.status_code, code(beyond)) == (201, BEYOND)


# --- A person who may grant a part --------------------------------------------------------


@pytest.mark.parametrize("scope", ["customers:read", "customers:*", "*", "apikeys:write"])
def test_person_gives_no_scope_that_they_may_not_grant(scope, child, as_user, settings):
    settings.APIKEYS_POLICY = "tests.test_attacks.JobsPolicy"
    before = stored()

    made = as_user.post(KEYS, {"name": "x", "scopes": ["jobs:read", scope]})
    changed = as_user.patch(url(child), {"scopes": ["jobs:read", scope]})

    assert [code(made), code(changed)] == [BEYOND, BEYOND]
    assert stored() == before


WIDER = {
    "enabled": {"enabled": True},
    "lived on for longer": {"expires_at": "2091-01-01T00:00:00Z"},
    "lived on for ever": {"expires_at": None},
    "with a scope of their own": {"scopes": ["customers:read", "jobs:read"]},
    "enabled while it is narrowed": {"enabled": True, "allowed_ips": ["127.0.0.1"]},
    "from everywhere": {"allowed_ips": []},
    "from elsewhere": {"allowed_ips": ["192.0.2.1"]},
    "from every network": {"allowed_ips": ["0.0.0.0/0", "::/0"]},
    "as often as the plan lets": {"rate_limit": None},
    "more often": {"rate_limit": "61/m"},
}


@pytest.mark.parametrize("body", WIDER.values(), ids=WIDER)
def test_person_widens_no_key_that_has_more_than_they_may_grant(body, issue, as_user, settings):
    issued = issue(scopes=["customers:read"], enabled=False, **LIMITS)
    settings.APIKEYS_POLICY = "tests.test_attacks.JobsPolicy"
    before = stored()

    answer = as_user.patch(url(issued), body)

    assert code(answer) == BEYOND
    assert stored() == before


def test_person_does_not_bring_an_expired_key_back(issue, as_user, settings):
    issued = issue(scopes=["customers:read"])
    APIKey.objects.update(expires_at=timezone.now() - timedelta(days=1))
    settings.APIKEYS_POLICY = "tests.test_attacks.JobsPolicy"

    answers = [
        as_user.patch(url(issued), {"expires_at": moment})
        for moment in (None, "2090-01-01T00:00:00Z")
    ]

    assert [code(answer) for answer in answers] == [BEYOND, BEYOND]
    assert program(issued).get("/customers/").json()["code"] == "expired_key"


def test_person_uses_a_key_for_what_they_may_not_grant_in_vain(issue, as_user, settings):
    """A person may not do by two changes what they may not do by one."""
    issued = issue(scopes=["customers:read"], expires_at=datetime(2090, 1, 1, tzinfo=UTC))
    settings.APIKEYS_POLICY = "tests.test_attacks.JobsPolicy"

    steps = [
        as_user.patch(url(issued), {"scopes": []}),
        as_user.patch(url(issued), {"expires_at": None}),
        as_user.patch(url(issued), {"scopes": ["customers:read"]}),
    ]

    assert [step.status_code for step in steps] == [200, 200, 403]
    assert APIKey.objects.get().scopes == []


# --- A key that has changed since it was verified -----------------------------------------


@pytest.fixture
def authority(attacker, rf):
    """What the attacker may do, by what it was when it was verified."""
    return KeyAuthority(verify(rf.get("/", headers=bearer(attacker.secret))))


def make_child(authority, user):
    fields = {**WITHIN, "expires_at": LIMITS["expires_at"], "scopes": ["jobs:write"]}
    return services.create_key(owner=user, name="x", authority=authority, **fields)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scopes": ["apikeys:write", "jobs:read"]}, BeyondCeiling),
        ({"scopes": ["jobs:write"]}, NotPermitted),
        ({"allowed_ips": ["127.1.0.0/16"]}, BeyondCeiling),
        ({"rate_limit": "1/m"}, BeyondCeiling),
        ({"expires_at": datetime(2080, 1, 1, tzinfo=UTC)}, BeyondCeiling),
        ({"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}, KeyRefused),
        ({"enabled": False}, KeyRefused),
        ({"revoked_at": datetime(2026, 1, 1, tzinfo=UTC)}, KeyRefused),
    ],
    ids=[
        *("fewer scopes", "keys no more", "fewer networks", "a lower rate", "an earlier end"),
        *("expired", "disabled", "revoked"),
    ],
)
def test_key_gives_what_it_has_now(change, error, attacker, authority, user):
    """Between the look at its secret and the lock on its row it may have lost something."""
    APIKey.objects.filter(pk=attacker.key.pk).update(**change)

    with pytest.raises(error):
        make_child(authority, user)

    assert APIKey.objects.count() == 1


@pytest.mark.parametrize(
    ("slot", "code"),
    [pytest.param(1, "permission_denied", id="in its grace"), (None, "retired_secret")],
)
def test_secret_that_was_rotated_since_gives_nothing(slot, code, attacker, authority, user):
    attacker.key.secrets.update(slot=slot)
    APIKeySecretFactory(key=attacker.key)

    with pytest.raises((KeyRefused, NotPermitted)) as raised:
        make_child(authority, user)

    assert raised.value.code == code
    assert APIKey.objects.count() == 1


def test_key_that_is_gone_gives_nothing(attacker, authority, user):
    APIKey.objects.all().delete()

    with pytest.raises(KeyRefused):
        make_child(authority, user)

    assert not APIKey.objects.exists()


# --- Rows that something else has written -------------------------------------------------


def test_scopes_that_cannot_be_read_give_nothing(attacker):
    """A text is no list of its characters, and of a list only what is well formed counts."""
    APIKey.objects.update(scopes=["apikeys:write", ["*"], "jobs", "* ", 5])

    answer = program(attacker).post(KEYS, {"name": "x", **WITHIN})

    assert code(answer) == BEYOND


def test_key_whose_rate_cannot_be_read_is_not_made_faster(attacker, user):
    """A stored rate that cannot be read is none that is as good as no limit."""
    key = APIKeyFactory(owner=user, **{**WITHIN, "expires_at": LIMITS["expires_at"]})
    APIKey.objects.filter(pk=key.pk).update(rate_limit="many")

    answer = program(attacker).patch(f"{KEYS}{key.pk}/", {"name": "x"})

    assert code(answer) == BEYOND
