"""Every call of the management API, by everybody who may try it: section 4 of the contract."""

import re
from datetime import timedelta
from typing import NamedTuple

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from django_apikeys.drf import urls
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.example_project.factories import MembershipFactory
from tests.factories import APIKeySecretFactory

# Keys of Acme are called for: by its Owner, Admin and Member, by the Owner of Globex, by
# nobody, and by keys of Acme with no scopes, apikeys:read, apikeys:write, self:…, and by
# the secret in its grace of a key with apikeys:read and apikeys:write.
CALLERS = (
    *("Owner", "Admin", "Member", "another organisation's Owner", "nobody"),
    *("a key without scopes", "apikeys:read", "apikeys:write", "self:…", "a grace secret"),
)
# fmt: off
TABLE = {
    #                           Owner Admin Member Other nobody | none  read write self grace
    "GET keys/":                (200,  200,  200,  200,  401,    403,  200,  403,  403,  200),
    "POST keys/":               (201,  403,  403,  400,  401,    403,  403,  201,  403,  403),
    "GET keys/{id}/":           (200,  200,  200,  404,  401,    403,  200,  403,  403,  200),
    "PATCH keys/{id}/":         (200,  403,  403,  404,  401,    403,  403,  200,  403,  403),
    "DELETE keys/{id}/":        (204,  403,  403,  404,  401,    403,  403,  204,  403,  403),
    "POST keys/{id}/revoke/":   (200,  200,  403,  404,  401,    403,  403,  200,  403,  403),
    "POST keys/{id}/rotate/":   (201,  403,  403,  404,  401,    403,  403,  201,  403,  403),
    "POST keys/{id}/retire/":   (200,  403,  403,  404,  401,    403,  403,  200,  403,  403),
    "POST keys/{id}/reveal/":   (200,  403,  403,  404,  401,    403,  403,  403,  403,  403),
    "GET keys/{id}/events/":    (200,  200,  200,  404,  401,    403,  200,  403,  403,  200),
    "GET keys/{id}/usage/":     (200,  200,  200,  404,  401,    403,  200,  403,  403,  200),
    "GET events/":              (200,  200,  200,  200,  401,    403,  200,  403,  403,  200),
    "GET events/?key={id}":     (200,  200,  200,  200,  401,    403,  200,  403,  403,  200),
    "GET usage/":               (200,  200,  200,  200,  401,    403,  200,  403,  403,  200),
    "GET scopes/":              (200,  200,  200,  200,  401,    403,  200,  403,  403,  200),
    "GET keys/self/":           (403,  403,  403,  403,  401,    200,  200,  200,  200,  200),
    "POST keys/self/rotate/":   (403,  403,  403,  403,  401,    403,  403,  403,  201,  403),
    "POST keys/self/revoke/":   (403,  403,  403,  403,  401,    403,  403,  403,  200,  403),
    "OPTIONS keys/":            (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/":       (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/revoke/": (200, 200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/rotate/": (200, 200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/retire/": (200, 200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/reveal/": (200, 200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/events/": (200, 200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/{id}/usage/": (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS events/":          (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS usage/":           (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS scopes/":          (200,  200,  200,  200,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/self/":       (403,  403,  403,  403,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/self/rotate/": (403, 403,  403,  403,  401,    200,  200,  200,  200,  200),
    "OPTIONS keys/self/revoke/": (403, 403,  403,  403,  401,    200,  200,  200,  200,  200),
}
# fmt: on
CHANGES = {
    "POST keys/": "created",
    "PATCH keys/{id}/": "updated",
    "DELETE keys/{id}/": "deleted",
    "POST keys/{id}/revoke/": "revoked",
    "POST keys/{id}/rotate/": "rotated",
    "POST keys/{id}/retire/": "retired",
    "POST keys/{id}/reveal/": "revealed",
    "POST keys/self/rotate/": "rotated",
    "POST keys/self/revoke/": "revoked",
}
CELLS = [
    pytest.param(call, caller, status, id=f"{call} as {caller}")
    for call, statuses in TABLE.items()
    for caller, status in zip(CALLERS, statuses, strict=True)
]


class Caller(NamedTuple):
    """A client, and what an event says of whoever calls by it."""

    client: APIClient
    kind: str = ""
    id: str = ""


@pytest.fixture
def target(issue):
    """The key that is called for, with two secrets; it lies within every other."""
    key = issue(name="the target").key
    APIKeySecretFactory(key=key, slot=1, retires_at=timezone.now() + timedelta(days=1))
    return key


@pytest.fixture
def caller_named(acme, globex, issue):
    """Make the caller of a column."""

    def person(role, organisation):
        user = MembershipFactory.create(organisation=organisation, role=role).user
        client = APIClient()
        client.force_login(user)
        return Caller(client, "user", str(user.pk))

    def program(*scopes, in_grace=False):
        issued = issue(*scopes, name="the caller")
        if in_grace:
            retires_at = timezone.now() + timedelta(days=1)
            issued.key.secrets.update(slot=1, retires_at=retires_at)
            APIKeySecretFactory(key=issued.key)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {issued.secret}")
        return Caller(client, "key", str(issued.key.pk))

    makers = {
        "Owner": lambda: person("owner", acme),
        "Admin": lambda: person("admin", acme),
        "Member": lambda: person("member", acme),
        "another organisation's Owner": lambda: person("owner", globex),
        "nobody": lambda: Caller(APIClient()),
        "a key without scopes": program,
        "apikeys:read": lambda: program("apikeys:read"),
        "apikeys:write": lambda: program("apikeys:write"),
        "self:…": lambda: program("self:rotate", "self:revoke"),
        "a grace secret": lambda: program("apikeys:read", "apikeys:write", in_grace=True),
    }
    return lambda name: makers[name]()


def send(client, call, target):
    method, _, path = call.format(id=target.pk).partition(" ")
    body = {
        "POST keys/": {"name": "new", "owner": target.owner_id},
        "PATCH keys/{id}/": {"name": "changed"},
    }.get(call)
    return getattr(client, method.lower())(f"/api/v1/{path}", body, format=body and "json")


def stored():
    """All that is stored of keys. That a secret was used for the first time is no change."""
    return (
        list(APIKey.objects.order_by("pk").values()),
        [
            {name: value for name, value in row.items() if name != "first_used_at"}
            for row in APIKeySecret.objects.order_by("pk").values()
        ],
        list(APIKeyEvent.objects.order_by("pk").values()),
    )


@pytest.mark.usefixtures("retrievable")
@pytest.mark.parametrize(("call", "name", "status"), CELLS)
def test_call(call, name, status, caller_named, target):
    """Each caller is answered as the table says; what is refused changes nothing."""
    caller = caller_named(name)
    before = stored()

    answer = send(caller.client, call, target)

    assert answer.status_code == status
    if call not in CHANGES or status >= 400:
        assert stored() == before
    else:
        events = [event for event in stored()[2] if event not in before[2]]
        assert [(event["type"], event["actor_kind"], event["actor_id"]) for event in events] == [
            (CHANGES[call], caller.kind, caller.id)
        ]
        # A secret that is shown again changes nothing.
        assert (stored()[0] == before[0]) is (CHANGES[call] == "revealed")


@pytest.mark.parametrize(
    "name", ["another organisation's Owner", "nobody", "a key without scopes", "apikeys:write"]
)
def test_who_may_not_see_a_key_is_told_nothing_of_it(name, caller_named, target):
    caller = caller_named(name)
    reads = [call for call in TABLE if not call.startswith(("POST", "PATCH", "DELETE"))]

    answers = [send(caller.client, call, target) for call in reads]

    told = [call for call, answer in zip(reads, answers, strict=True) if tells(answer, target)]
    assert told == []


def tells(answer, key):
    text = answer.content.decode()
    return str(key.pk) in text or key.name in text or key.current_secret.public_id in text


def served():
    """Yield each call that is mounted, as the table names it."""
    for url in urls.urlpatterns:
        route = re.sub(r"<str:pk>", "{id}", str(url.pattern))
        actions = getattr(url.callback, "actions", None)
        view = url.callback.cls
        methods = actions or [name for name in view.http_method_names if hasattr(view, name)]
        for method in {*methods, "options"} - {"head"}:
            yield f"{method.upper()} {route}"


def test_every_call_that_is_served_stands_in_the_table():
    """Whoever adds a URL, or a method to one, says here who may call it."""
    assert {call.partition("?")[0] for call in TABLE} == set(served())


def test_every_call_that_may_change_something_says_which_event_it_leaves():
    assert set(CHANGES) == {
        call for call in TABLE if call.startswith(("POST", "PUT", "PATCH", "DELETE"))
    }
