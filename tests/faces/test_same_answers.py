"""One table of cases, and through every face of the door the same answers."""

import base64
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.db import OperationalError, connection
from django.test import AsyncClient, Client
from django.utils import timezone

from django_apikeys import services
from django_apikeys.keys.format import checksum
from django_apikeys.models import APIKey, APIKeySecret, APIKeyUsage
from django_apikeys.outage import breaker
from django_apikeys.policy import UserPolicy
from django_apikeys.testing import flush_usage
from tests.conftest import bearer
from tests.faces.sites import FACES, NOW
from tests.limiting import stopped

REALM = 'Bearer realm="api"'
INVALID_TOKEN = f'{REALM}, error="invalid_token", error_description="Invalid or expired API key."'
# Of these each answer has what the table says, and none that it does not.
COMPARED = (
    "Content-Type",
    "WWW-Authenticate",
    "Retry-After",
    "RateLimit-Policy",
    "RateLimit",
    "Cache-Control",
    "X-API-Key-Rotated",
    "X-API-Key-Expires",
)


class FreePolicy(UserPolicy):
    """Everybody is on the plan ``free``."""

    def plan(self, owner):
        return "free"


def basic(username, password):
    text = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


def forge(public_id):
    body = f"rak_live_{public_id}_{'A' * 43}"
    return body + checksum(body)


def wrong_digest(secret):
    return bearer(forge(secret.split("_")[2]))


def twice(secret):
    return {**bearer(secret), "X-API-Key": secret}


def repeated(secret):
    return {"Authorization": f"Bearer {secret}, Bearer {secret}"}


def of_key(**values):
    return lambda issued: APIKey.objects.filter(pk=issued.key.pk).update(**values)


def of_secret(**values):
    return lambda issued: APIKeySecret.objects.filter(key=issued.key).update(**values)


def deactivate_owner(issued):
    issued.key.owner.is_active = False
    issued.key.owner.save()


def an_hour_ago():
    return NOW - timedelta(hours=1)


def no_database():
    def wrapper(execute, sql, params, many, context):
        raise OperationalError("The database is away.")

    return connection.execute_wrapper(wrapper)


@dataclass(frozen=True)
class Case:
    """A request and its answer.

    prepare: called with what was issued. earlier: requests before it. code: of the body,
    with the detail. outcome: what is counted of this one request.
    """

    status: int = 200
    headers: dict = field(default_factory=dict)
    code: str | None = None
    detail: str = "Invalid or expired API key."
    outcome: str | None = None
    method: str = "get"
    send: object = bearer
    prepare: object = lambda issued: None
    key: dict = field(default_factory=dict)
    plan: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    earlier: int = 0
    during: object = nullcontext


def dead(code, prepare):
    return Case(401, {"WWW-Authenticate": INVALID_TOKEN}, code, prepare=prepare)


def invalid(send):
    return Case(401, {"WWW-Authenticate": INVALID_TOKEN}, "invalid_key", send=send)


def two(send):
    return Case(
        400,
        {"WWW-Authenticate": f'{REALM}, error="invalid_request"'},
        "invalid_request",
        "Send one API key, in one header, once.",
        send=send,
    )


def lacking(method, scope, detail):
    challenge = f'{REALM}, error="insufficient_scope"{scope}'
    return Case(
        403, {"WWW-Authenticate": challenge}, "insufficient_scope", detail, "refused", method
    )


LIMITS_DOWN = "The limits of API keys cannot be counted at the moment. Try again later."
DUMMY_CACHE = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

CASES = {
    "no-credential": Case(
        401,
        {"WWW-Authenticate": REALM},
        None,
        "Authentication credentials were not provided.",
        send=lambda secret: {},
    ),
    "somebody-else's-bearer": Case(
        401,
        {"WWW-Authenticate": REALM},
        None,
        "Authentication credentials were not provided.",
        send=lambda secret: bearer("eyJhbGciOiJIUzI1NiJ9.e30.x"),
    ),
    "malformed": invalid(lambda secret: bearer(secret[:-1])),
    "unknown": invalid(lambda secret: bearer(forge("000000000000"))),
    "wrong-digest": invalid(wrong_digest),
    "basic-wrong-user-name": invalid(lambda secret: basic("bob", secret)),
    "basic-secret-as-user-name": invalid(lambda secret: basic(secret, "")),
    "retired": dead("retired_secret", of_secret(slot=None)),
    "grace-is-over": dead("retired_secret", of_secret(slot=1, retires_at=an_hour_ago())),
    "revoked": dead("revoked_key", lambda issued: services.revoke_key(key=issued.key)),
    "deleted": dead("revoked_key", lambda issued: services.delete_key(key=issued.key)),
    "disabled": dead("disabled_key", of_key(enabled=False)),
    "expired": dead("expired_key", of_key(expires_at=an_hour_ago())),
    "inactive-owner": dead("inactive_owner", deactivate_owner),
    "two-credentials": two(twice),
    "repeated-header": two(repeated),
    "wrong-address": Case(
        403,
        {},
        "address_not_allowed",
        "This API key may not be used from this address.",
        "refused",
        prepare=of_key(allowed_ips=["192.0.2.0/24"]),
    ),
    "missing-scope": lacking(
        "post", ', scope="customers:write"', "This API key lacks a scope: customers:write."
    ),
    "method-that-declares-none": lacking(
        "put",
        "",
        "This is not open to API keys: the view declares no scopes for it. Its developer "
        "does so by required_scopes, scope_resource or HasScope(…) in permission_classes.",
    ),
    "rate-spent": Case(
        429,
        {
            "Retry-After": "1",
            "RateLimit-Policy": '"key";q=1;w=1',
            "RateLimit": '"key";r=0;t=1',
        },
        "rate_limited",
        "Too many requests with this API key. Try again later.",
        "limited",
        key={"rate_limit": "1/s"},
        earlier=1,
    ),
    "plan-spent": Case(
        429,
        {
            "Retry-After": "1",
            "RateLimit-Policy": '"key";q=9;w=1, "plan";q=2;w=1',
            "RateLimit": '"key";r=6;t=1, "plan";r=0;t=1',
        },
        "rate_limited",
        "Too many requests with this API key. Try again later.",
        "limited",
        key={"rate_limit": "9/s"},
        plan={"rate": "2/s", "quota": 9},
        earlier=2,
    ),
    "quota-spent": Case(
        429,
        {
            "Retry-After": "864040",
            "RateLimit-Policy": '"quota";q=1',
            "RateLimit": '"quota";r=0;t=864040',
        },
        "quota_exceeded",
        "The quota of this month is used up.",
        "limited",
        plan={"quota": 1},
        earlier=1,
    ),
    "missing-scope-of-a-spent-key": replace(
        lacking(
            "post", ', scope="customers:write"', "This API key lacks a scope: customers:write."
        ),
        key={"rate_limit": "1/s"},
        earlier=1,
    ),
    "database-down": Case(
        503,
        {"Retry-After": "5"},
        "unavailable",
        "API keys cannot be looked up at the moment. Try again later.",
        during=no_database,
    ),
    "cache-down-limits-closed": Case(
        503,
        {"Retry-After": "2"},
        "unavailable",
        LIMITS_DOWN,
        "5xx",
        key={"rate_limit": "1/s"},
        settings={"APIKEYS_LIMITS_FAIL": "closed", "CACHES": DUMMY_CACHE},
    ),
    "cache-down-limits-open": Case(
        outcome="2xx", key={"rate_limit": "1/s"}, settings={"CACHES": DUMMY_CACHE}
    ),
    "good": Case(outcome="2xx"),
    "good-basic": Case(outcome="2xx", send=lambda secret: basic("ann", secret)),
    "good-x-api-key": Case(outcome="2xx", send=lambda secret: {"X-API-Key": secret}),
    "good-head": Case(outcome="2xx", method="head"),
    "good-write": Case(
        outcome="2xx", method="post", key={"scopes": ["customers:read", "customers:write"]}
    ),
    "good-any-key": Case(outcome="2xx", method="delete", key={"scopes": []}),
    "good-within-limits": Case(
        headers={
            "RateLimit-Policy": '"key";q=9;w=1, "plan";q=8;w=1, "quota";q=7',
            "RateLimit": '"key";r=8;t=1, "plan";r=7;t=1, "quota";r=6;t=864040',
        },
        outcome="2xx",
        key={"rate_limit": "9/s"},
        plan={"rate": "8/s", "quota": 7},
    ),
    "good-in-grace": Case(
        headers={
            "X-API-Key-Rotated": "true",
            "X-API-Key-Expires": "Sat, 21 Nov 2026 00:59:20 GMT",
        },
        outcome="2xx",
        prepare=of_secret(slot=1, retires_at=NOW + timedelta(hours=1)),
    ),
    "good-ends-soon": Case(
        headers={"X-API-Key-Expires": "Sat, 21 Nov 2026 23:59:20 GMT"},
        outcome="2xx",
        prepare=of_key(expires_at=NOW + timedelta(days=1)),
    ),
}


@pytest.fixture(params=[*FACES, "function/?asgi", "async-function/?wsgi"])
def face(request, settings, monkeypatch, counting):
    """The path of a face; the time stands still, and nothing was counted."""
    settings.ROOT_URLCONF = "tests.faces.sites"
    settings.APIKEYS_POLICY = f"{__name__}.FreePolicy"
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": "faces",
        }
    }
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    stopped(monkeypatch, NOW.timestamp())
    breaker.reset()
    yield f"/{request.param}"
    caches["default"].clear()
    breaker.reset()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_answer_is_that_of_the_table(face, case, issue, settings):
    settings.APIKEYS_PLANS = {"free": case.plan}
    issued = issue(**{"scopes": ["customers:read"], **case.key})
    case.prepare(issued)
    for name, value in case.settings.items():
        setattr(settings, name, value)
    for _ in range(case.earlier):
        assert call(face, replace(case, method="get"), issued).status_code == 200

    with case.during():
        response = call(face, case, issued)

    is_refused = case.status != 200
    assert response.status_code == case.status
    assert {name: response[name] for name in COMPARED if name in response} == {
        "Content-Type": "application/json",
        "Cache-Control": "no-store" if is_refused else "private",
        **case.headers,
    }
    assert {"Authorization", "X-API-Key"} <= set(response["Vary"].split(", "))
    assert response.content.decode() == body(case, issued)
    expected = [*(["2xx"] * case.earlier), *filter(None, [case.outcome])]
    assert counted() == expected


def call(face, case, issued):
    headers = case.send(issued.secret)
    # An async view as a rule by an async client, a sync one by a sync client.
    if "wsgi" in face or not ("async" in face or "asgi" in face):
        client = Client(enforce_csrf_checks=True)
        return getattr(client, case.method)(face, headers=headers)
    client = AsyncClient(enforce_csrf_checks=True)
    return async_to_sync(getattr(client, case.method))(face, headers=headers)


def body(case, issued):
    if case.method == "head":
        return ""
    if case.status == 200:
        return f'{{"key":"{issued.key.current_secret.public_id}","user":"ann"}}'
    code = f',"code":"{case.code}"' if case.code else ""
    return f'{{"detail":"{case.detail}"{code}}}'


def counted():
    """Return the outcome of each request that was counted."""
    flush_usage()
    rows = APIKeyUsage.objects.order_by("outcome").values_list("outcome", "requests")
    return [outcome for outcome, requests in rows for _ in range(requests)]
