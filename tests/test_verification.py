"""The door in, by real requests: section 3 of the contract."""

import base64
import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection, connections
from django.db.models import Manager
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_apikeys import logs, services, signals, verification
from django_apikeys.exceptions import (
    AddressNotAllowed,
    InsufficientScope,
    InvalidRequest,
    KeyRefused,
    MalformedKey,
    NotAuthenticated,
    Unavailable,
    UnknownKey,
    WrongSecret,
)
from django_apikeys.keys.format import checksum, generate
from django_apikeys.models import APIKey, APIKeySecret
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory

REALM = 'Bearer realm="api"'
INVALID_TOKEN = (
    'Bearer realm="api", error="invalid_token", error_description="Invalid or expired API key."'
)
INVALID_REQUEST = 'Bearer realm="api", error="invalid_request"'
INVALID_KEY_BODY = {"detail": "Invalid or expired API key.", "code": "invalid_key"}


class HidingManager(Manager):
    """As those have it that leave out what was deleted softly."""

    def get_queryset(self):
        return super().get_queryset().none()


def forge(public_id, environment="live"):
    """A well-formed secret with *public_id* that nobody has made."""
    body = f"rak_{environment}_{public_id}_{'A' * 43}"
    return body + checksum(body)


def basic(username, password):
    text = f"{username}:{password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(text).decode()}"}


def key_row(issued, **values):
    APIKey.objects.filter(pk=issued.key.pk).update(**values)


def secret_row(issued, **values):
    APIKeySecret.objects.filter(key=issued.key).update(**values)


def an_hour_ago():
    return timezone.now() - timedelta(hours=1)


def retire(issued):
    secret_row(issued, slot=None)


def end_grace(issued):
    secret_row(issued, slot=1, retires_at=an_hour_ago())


def revoke(issued):
    services.revoke_key(key=issued.key)


def delete(issued):
    services.delete_key(key=issued.key)


def disable(issued):
    key_row(issued, enabled=False)


def expire(issued):
    key_row(issued, expires_at=an_hour_ago())


def deactivate_owner(issued):
    issued.key.owner.is_active = False
    issued.key.owner.save()


def forbid_address(issued):
    key_row(issued, allowed_ips=["192.0.2.0/24"])


def take_scopes(issued):
    key_row(issued, scopes=[])


def refuse(statement):
    """A database that answers all but *statement*."""

    def wrapper(execute, sql, params, many, context):
        if sql.startswith(statement):
            raise OperationalError("The database is away.")
        return execute(sql, params, many, context)

    return connection.execute_wrapper(wrapper)


@contextmanager
def listening(signal):
    received = []

    def receiver(**facts):
        received.append(facts)

    signal.connect(receiver)
    try:
        yield received
    finally:
        signal.disconnect(receiver)


@pytest.fixture
def nothing_said(monkeypatch):
    """As after a minute: nothing was logged of late."""
    monkeypatch.setattr(logs, "_said_at", {})


def said(caplog):
    return [record.message for record in caplog.records if record.name == "django_apikeys"]


def verbs(queries):
    return [query["sql"].split()[0] for query in queries]


# --- The table of section 3 ---------------------------------------------------------------


@pytest.mark.django_db
def test_no_credential(client):
    response = client.get("/customers/")

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == REALM
    assert response.json() == {"detail": "Authentication credentials were not provided."}


MALFORMED = [
    pytest.param(lambda text: bearer(text[:-1] + "-"), id="a-character-that-is-none-of-ours"),
    pytest.param(lambda text: bearer(text[:-6] + "000000"), id="wrong-checksum"),
    pytest.param(lambda text: bearer(text.swapcase().replace("RAK_LIVE", "rak_live")), id="case"),
    pytest.param(lambda text: bearer(text[:-1]), id="one-character-short"),
    pytest.param(lambda text: bearer(text + "0"), id="one-character-long"),
    pytest.param(lambda text: bearer("rak_"), id="prefix-alone"),
    pytest.param(lambda text: bearer(text.replace("live", "prod", 1)), id="unknown-environment"),
    pytest.param(lambda text: bearer(f"{text} {text}"), id="twice-by-a-space"),
    pytest.param(lambda text: bearer(text[:20] + "\x00" + text[21:]), id="nul"),
    pytest.param(lambda text: bearer(text[:20] + "\xff\xfe" + text[22:]), id="not-utf-8"),
    pytest.param(lambda text: bearer(text[:20] + "\u0661" + text[21:]), id="arabic-digit"),
    pytest.param(lambda text: bearer("rak_" + "A" * 100_000), id="100-kB"),
    pytest.param(lambda text: {"Authorization": "Api-Key nonsense"}, id="api-key-nonsense"),
    pytest.param(lambda text: {"Authorization": "Api-Key"}, id="api-key-empty"),
    pytest.param(lambda text: {"Authorization": f"Api-Key {text}0"}, id="api-key-long"),
    pytest.param(lambda text: {"X-API-Key": "nonsense"}, id="x-api-key-nonsense"),
    pytest.param(lambda text: {"X-API-Key": ""}, id="x-api-key-empty"),
    pytest.param(lambda text: {"X-API-Key": "\xff" * 100_000}, id="x-api-key-100-kB-not-utf-8"),
    pytest.param(lambda text: {"X-API-Key": f"Bearer {text}"}, id="x-api-key-with-scheme"),
    pytest.param(lambda text: basic("ann", text[:-1]), id="basic-short"),
    pytest.param(lambda text: basic(text, ""), id="basic-secret-as-user-name"),
    pytest.param(lambda text: basic(text, text), id="basic-secret-in-both-places"),
    pytest.param(lambda text: basic("ann", text + "\x00"), id="basic-control-character"),
    pytest.param(
        lambda text: {"Authorization": basic("ann", text)["Authorization"].rstrip("=") + "!"},
        id="basic-odd-base64",
    ),
]


@pytest.mark.parametrize("headers", MALFORMED)
def test_malformed_is_refused_without_a_query(headers, issued, client, django_assert_num_queries):
    with django_assert_num_queries(0):
        response = client.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == INVALID_KEY_BODY


@pytest.mark.django_db
def test_unknown_public_id(client):
    response = client.get("/customers/", headers=bearer(generate("rak", "live").secret.reveal()))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert response.json() == INVALID_KEY_BODY


def test_wrong_digest_of_a_known_public_id(issued, client):
    secret = forge(issued.key.current_secret.public_id)

    response = client.get("/customers/", headers=bearer(secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert response.json() == INVALID_KEY_BODY


@pytest.mark.parametrize(
    "digest",
    ["", "$$", "md5$sk-b175a61f$" + "0" * 64, "hmac-sha256$sk-b175a61f$", "hmac-sha256$a$b$c"],
)
def test_stored_digest_that_cannot_be_read_lets_nobody_in(digest, issued, client):
    secret_row(issued, digest=digest)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.json() == INVALID_KEY_BODY


DEAD = [
    pytest.param(retire, "retired_secret", id="retired"),
    pytest.param(end_grace, "retired_secret", id="grace-is-over"),
    pytest.param(revoke, "revoked_key", id="revoked"),
    pytest.param(delete, "revoked_key", id="deleted"),
    pytest.param(disable, "disabled_key", id="disabled"),
    pytest.param(expire, "expired_key", id="expired"),
    pytest.param(deactivate_owner, "inactive_owner", id="owner-inactive"),
]


@pytest.mark.parametrize(("kill", "code"), DEAD)
def test_dead_key_says_how_to_whom_the_digest_was_right_for(kill, code, issued, client):
    kill(issued)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == {"detail": "Invalid or expired API key.", "code": code}


@pytest.mark.parametrize(("kill", "code"), DEAD)
def test_dead_key_says_nothing_to_a_wrong_secret(kill, code, issued, client):
    kill(issued)

    response = client.get(
        "/customers/", headers=bearer(forge(issued.key.current_secret.public_id))
    )

    assert response.status_code == 401
    assert response.json() == INVALID_KEY_BODY


@pytest.mark.parametrize(("kill", "code"), DEAD)
def test_dead_key_says_nothing_to_a_wrong_address(kill, code, issued, client):
    kill(issued)
    forbid_address(issued)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.json()["code"] == "address_not_allowed"


@pytest.mark.parametrize("environment", ["live", "test"])
def test_key_of_either_environment_is_let_in(environment, issue, client):
    issued = issue(scopes=["customers:read"], environment=environment)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda text: {**bearer(text), "X-API-Key": text}, id="bearer-and-x-api-key"),
        pytest.param(
            lambda text: {**basic("", text), "X-API-Key": "other"}, id="basic-and-x-api-key"
        ),
        pytest.param(
            lambda text: {"Authorization": f"Bearer {text}, Bearer {text}"},
            id="authorization-twice",
        ),
        pytest.param(lambda text: {"X-API-Key": f"{text},{text}"}, id="x-api-key-twice"),
        pytest.param(
            lambda text: {"Authorization": f"Basic YTpi,Bearer {text}"}, id="foreign-and-ours"
        ),
    ],
)
def test_two_credentials(headers, issued, client, django_assert_num_queries):
    with django_assert_num_queries(0):
        response = client.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == 400
    assert response.headers["WWW-Authenticate"] == INVALID_REQUEST
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == {
        "detail": "Send one API key, in one header, once.",
        "code": "invalid_request",
    }


def test_address_that_is_not_allowed(issued, client):
    forbid_address(issued)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert "WWW-Authenticate" not in response.headers
    assert response.headers["Cache-Control"] == "no-store"
    assert b"192.0.2" not in response.content
    assert response.json() == {
        "detail": "This API key may not be used from this address.",
        "code": "address_not_allowed",
    }


@pytest.mark.parametrize(
    ("address", "status"),
    [
        pytest.param("192.0.2.7", 200, id="within"),
        pytest.param("192.0.2.7:8080", 200, id="within-with-port"),
        pytest.param("::ffff:192.0.2.7", 200, id="within-mapped"),
        pytest.param("198.51.100.7", 403, id="outside"),
        pytest.param("", 403, id="a-socket-without-address"),
        pytest.param("rubbish", 403, id="rubbish"),
    ],
)
def test_address_list(address, status, issue, client):
    issued = issue(scopes=["customers:read"], allowed_ips=["192.0.2.0/24"])

    response = client.get("/customers/", headers=bearer(issued.secret), REMOTE_ADDR=address)

    assert response.status_code == status


def test_rubbish_for_an_address_is_ignored_without_a_list(issued, client):
    response = client.get("/customers/", headers=bearer(issued.secret), REMOTE_ADDR="rubbish")

    assert response.status_code == 200


def test_forged_proxy_header_does_not_pass_the_list(issued, client):
    forbid_address(issued)

    response = client.get(
        "/customers/", headers={**bearer(issued.secret), "X-Forwarded-For": "192.0.2.7"}
    )

    assert response.status_code == 403


def test_missing_scope(issue, client):
    issued = issue(scopes=["jobs:read"])

    response = client.post("/by-method/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="jobs:read jobs:write"'
    )
    assert response.headers["Cache-Control"] == "no-store"
    assert response.json() == {
        "detail": "This API key lacks a scope: jobs:write.",
        "code": "insufficient_scope",
    }


def test_view_that_declares_nothing(issued, client):
    response = client.get("/undeclared/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope"'
    )
    assert response.json() == {
        "detail": (
            "This is not open to API keys: the view declares no scopes for it. Its developer "
            "does so by required_scopes, scope_resource or HasScope(…) in permission_classes."
        ),
        "code": "insufficient_scope",
    }


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param("customers:read", id="text"),
        pytest.param({"customers:read": True}, id="object"),
        pytest.param([["customers:read"], 5, "customers", "customers:read "], id="malformed"),
        pytest.param([], id="none"),
    ],
)
def test_malformed_stored_scopes_grant_nothing(stored, issued, client):
    key_row(issued, scopes=stored)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.json()["code"] == "insufficient_scope"


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param("127.0.0.1", id="text"),
        pytest.param({"127.0.0.1": True}, id="object"),
        pytest.param([5], id="number"),
        pytest.param(["nonsense"], id="nonsense"),
        pytest.param([["127.0.0.1"]], id="list-in-a-list"),
        pytest.param([{"ip": "127.0.0.1"}], id="object-in-a-list"),
    ],
)
def test_stored_address_list_that_cannot_be_read_lets_nobody_in(stored, issued, client):
    key_row(issued, allowed_ips=stored)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 403
    assert response.json()["code"] == "address_not_allowed"


@pytest.mark.usefixtures("nothing_said")
def test_database_down(issued, client, caplog):
    with refuse("SELECT"):
        response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "5"
    assert response.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in response.headers
    assert response.json() == {
        "detail": "API keys cannot be looked up at the moment. Try again later.",
        "code": "unavailable",
    }
    assert said(caplog) == ["The database did not answer for an API key."]


@pytest.mark.usefixtures("nothing_said")
def test_database_that_stays_down_is_one_record_a_minute(issued, client, caplog):
    with refuse("SELECT"), caplog.at_level(logging.ERROR, "django_apikeys"):
        client.get("/customers/", headers=bearer(issued.secret))
        client.get("/customers/", headers=bearer(issued.secret))
        within_the_minute = said(caplog)
        logs._said_at["look-up"] -= 60
        client.get("/customers/", headers=bearer(issued.secret))

    assert within_the_minute == ["The database did not answer for an API key."]
    assert said(caplog) == within_the_minute * 2
    assert "OperationalError" in caplog.text


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.django_db(transaction=True)
def test_trouble_of_another_kind_is_logged_within_the_minute(issued, client, caplog):
    with caplog.at_level(logging.ERROR, "django_apikeys"):
        with refuse("SELECT"):
            client.get("/customers/", headers=bearer(issued.secret))
        with refuse("UPDATE"):
            client.get("/customers/", headers=bearer(issued.secret))
            client.get("/customers/", headers=bearer(issued.secret))

    assert said(caplog) == [
        "The database did not answer for an API key.",
        "The first use of an API key could not be noted.",
    ]


# --- The order of the checks --------------------------------------------------------------

ORDER = [
    (None, "invalid_key"),
    (forbid_address, "address_not_allowed"),
    (retire, "retired_secret"),
    (revoke, "revoked_key"),
    (disable, "disabled_key"),
    (expire, "expired_key"),
    (deactivate_owner, "inactive_owner"),
    (take_scopes, "insufficient_scope"),
]


@pytest.mark.parametrize("first", range(len(ORDER)), ids=[code for _defect, code in ORDER])
def test_first_defect_in_the_order_of_the_contract_answers(first, issued, client):
    secret = forge(issued.key.current_secret.public_id) if first == 0 else issued.secret
    for defect, _code in ORDER[max(first, 1) :]:
        defect(issued)

    response = client.get("/customers/", headers=bearer(secret))

    assert response.json()["code"] == ORDER[first][1]


def test_expiry_is_the_first_moment_at_which_the_key_is_dead(issue, rf):
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    issued = issue(expires_at=moment)
    request = rf.get("/", headers=bearer(issued.secret))

    grant = verification.verify(request, now=moment - timedelta(microseconds=1))
    with pytest.raises(KeyRefused) as refused:
        verification.verify(request, now=moment)

    assert grant.expires_at == moment
    assert refused.value.code == "expired_key"


# --- Environments, owners, user names -----------------------------------------------------


def test_environment_that_is_not_accepted_is_refused_without_a_query(
    issue, client, settings, django_assert_num_queries
):
    issued = issue(scopes=["customers:read"], environment="test")
    settings.APIKEYS_ACCEPTED_ENVIRONMENTS = ["live"]

    with django_assert_num_queries(0):
        response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.json() == INVALID_KEY_BODY


def test_environment_that_is_accepted(issue, client, settings):
    issued = issue(scopes=["customers:read"], environment="test")
    settings.APIKEYS_ACCEPTED_ENVIRONMENTS = ["test"]

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200


def test_secret_with_the_environment_of_another_key_is_wrong(issued, client):
    body = issued.secret.replace("live", "test", 1)[:-6]

    response = client.get("/customers/", headers=bearer(body + checksum(body)))

    assert response.status_code == 401
    assert response.json() == INVALID_KEY_BODY


def test_key_of_the_project_acts_for_nobody(issue, client):
    issued = issue(owner=None, scopes=["customers:read"])

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert response.json() == {"user": ""}


@pytest.mark.parametrize(
    "username",
    [
        pytest.param("ann", id="user-name"),
        pytest.param("ann@example.com", id="e-mail"),
        pytest.param("", id="empty"),
    ],
)
def test_basic_with_the_name_of_the_owner(username, issued, client):
    response = client.get("/customers/", headers=basic(username, issued.secret))

    assert response.status_code == 200
    assert response.json() == {"user": "ann"}


@pytest.mark.parametrize("username", ["bob", "Ann", "ann ", "1", "True", "é", "a" * 10_000])
def test_basic_with_a_wrong_name(username, issued, client):
    UserFactory(username="bob")

    response = client.get("/customers/", headers=basic(username, issued.secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN
    assert response.json() == INVALID_KEY_BODY


@pytest.mark.parametrize("username", ["ann", "bob"])
def test_basic_name_tells_nothing_without_the_right_secret(username, issued, client):
    secret = forge(issued.key.current_secret.public_id)

    response = client.get("/customers/", headers=basic(username, secret))

    assert response.status_code == 401
    assert response.json() == INVALID_KEY_BODY


def test_basic_with_a_wrong_name_does_not_tell_that_the_key_is_dead(issued, client):
    revoke(issued)

    response = client.get("/customers/", headers=basic("bob", issued.secret))

    assert response.json() == INVALID_KEY_BODY


@pytest.mark.parametrize(("username", "status"), [("", 200), ("ann", 401), ("None", 401)])
def test_basic_with_a_key_of_the_project_takes_no_name(username, status, issue, client):
    issued = issue(owner=None, scopes=["customers:read"])

    response = client.get("/customers/", headers=basic(username, issued.secret))

    assert response.status_code == status


def test_owner_without_an_e_mail_is_not_reached_by_a_blank_one(issue, client):
    issued = issue(owner=UserFactory(username="eve", email=""), scopes=["customers:read"])

    response = client.get("/customers/", headers=basic(" ", issued.secret))

    assert response.status_code == 401


# --- The first use ------------------------------------------------------------------------


def test_first_use_is_marked_once(issued, client):
    client.get("/customers/", headers=bearer(issued.secret))
    first = APIKeySecret.objects.get(key=issued.key).first_used_at
    client.get("/customers/", headers=bearer(issued.secret))

    assert first is not None
    assert APIKeySecret.objects.get(key=issued.key).first_used_at == first


def test_first_use_is_not_marked_by_a_refusal(issued, client):
    client.post("/customers/", headers=bearer(issued.secret))

    assert APIKeySecret.objects.get(key=issued.key).first_used_at is None


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.django_db(transaction=True)
def test_first_use_that_cannot_be_noted_costs_nothing_outside_of_a_transaction(
    issued, client, caplog
):
    with refuse("UPDATE"):
        response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert APIKeySecret.objects.get(key=issued.key).first_used_at is None
    assert "The first use of an API key could not be noted." in caplog.messages


@pytest.mark.django_db(transaction=True)
def test_first_use_that_cannot_be_noted_costs_nothing_in_one(issued, client, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    with refuse("UPDATE"):
        response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert APIKeySecret.objects.get(key=issued.key).first_used_at is None


@pytest.mark.parametrize(
    ("path", "status"), [("/customers/", 200), ("/failing/not-found/", 404)], ids=["200", "404"]
)
@pytest.mark.django_db(transaction=True)
def test_request_in_a_transaction_marks_the_first_use(path, status, issued, client, monkeypatch):
    """Also where the view refuses, and its transaction is rolled back."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)

    response = client.get(path, headers=bearer(issued.secret))

    assert response.status_code == status
    assert APIKeySecret.objects.get(key=issued.key).first_used_at is not None


@pytest.mark.django_db(transaction=True)
def test_refusal_in_a_transaction_keeps_its_status(issued, client, monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    revoke(issued)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.json()["code"] == "revoked_key"


# --- Queries ------------------------------------------------------------------------------


def test_first_request_is_one_select_and_one_update(issue, client):
    issued = issue(scopes=["jobs:read"])

    with CaptureQueriesContext(connection) as queries:
        response = client.get("/jobs/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert verbs(queries) == ["SELECT", "UPDATE"]


@pytest.mark.parametrize("path", ["/jobs/", "/jobs-of-authenticated/"])
@pytest.mark.parametrize("method", ["get", "head", "post", "options"])
def test_later_request_is_one_select(path, method, issue, client):
    issued = issue(scopes=["jobs:read", "jobs:write"])
    client.get("/jobs/", headers=bearer(issued.secret))

    with CaptureQueriesContext(connection) as queries:
        response = getattr(client, method)(path, headers=bearer(issued.secret))

    assert response.status_code == 200
    assert verbs(queries) == ["SELECT"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda text: {"Authorization": f"Api-Key {text}"}, id="api-key"),
        pytest.param(lambda text: {"X-API-Key": text}, id="x-api-key"),
        pytest.param(lambda text: basic("ann", text), id="basic"),
    ],
)
def test_later_request_is_one_select_however_the_secret_is_sent(headers, issue, client):
    issued = issue(scopes=["jobs:read"])
    client.get("/jobs/", headers=bearer(issued.secret))

    with CaptureQueriesContext(connection) as queries:
        response = client.get("/jobs/", headers=headers(issued.secret))

    assert response.status_code == 200
    assert verbs(queries) == ["SELECT"]


def test_later_request_with_a_key_of_the_project_is_one_select(issue, client):
    issued = issue(owner=None, scopes=["jobs:read"])
    client.get("/jobs/", headers=bearer(issued.secret))

    with CaptureQueriesContext(connection) as queries:
        client.get("/jobs/", headers=bearer(issued.secret))

    assert verbs(queries) == ["SELECT"]


def test_session_beside_a_key_costs_no_query(issue, as_user):
    issued = issue(scopes=["jobs:read"])
    as_user.get("/jobs/", headers=bearer(issued.secret))

    with CaptureQueriesContext(connection) as queries:
        as_user.get("/jobs/", headers=bearer(issued.secret))

    assert verbs(queries) == ["SELECT"]


@pytest.mark.parametrize(("kill", "code"), DEAD)
def test_refusal_is_one_select(kill, code, issued, client):
    kill(issued)
    # A retired secret leaves an Event, once an hour.
    client.get("/customers/", headers=bearer(issued.secret))

    with CaptureQueriesContext(connection) as queries:
        client.get("/customers/", headers=bearer(issued.secret))

    assert verbs(queries) == ["SELECT"]


@pytest.mark.large
def test_5000_other_keys_of_the_same_owner_change_nothing(issue, user, client):
    issued = issue(scopes=["jobs:read"])
    client.get("/jobs/", headers=bearer(issued.secret))
    others = APIKeyFactory.build_batch(5_000, owner=user, secret_row=None)
    APIKey.objects.bulk_create(others, batch_size=500)
    APIKeySecret.objects.bulk_create(
        (APIKeySecretFactory.build(key=key) for key in others), batch_size=500
    )

    with CaptureQueriesContext(connection) as queries:
        response = client.get("/jobs/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert verbs(queries) == ["SELECT"]
    assert "LIMIT 1" in queries[0]["sql"]


# --- Peppers ------------------------------------------------------------------------------


def test_rotated_secret_key_with_its_fallback_goes_on_working(issued, client, settings):
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another"

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200


def test_listed_peppers_take_over_and_the_derived_go_on(issue, client, settings):
    old = issue(scopes=["customers:read"])
    settings.APIKEYS_PEPPERS = {"2025": "pepper of 2025", "2026": "pepper of 2026"}
    new = issue(scopes=["customers:read"])

    statuses = [
        client.get("/customers/", headers=bearer(one.secret)).status_code for one in (old, new)
    ]

    assert statuses == [200, 200]
    assert old.key.current_secret.digest.split("$")[1].startswith("sk-")
    assert new.key.current_secret.digest.startswith("hmac-sha256$2026$")


def test_pepper_that_is_named_current_makes_new_digests(issue, client, settings):
    settings.APIKEYS_PEPPERS = {"2025": "pepper of 2025", "2026": "pepper of 2026"}
    settings.APIKEYS_PEPPER_CURRENT = "2025"
    issued = issue(scopes=["customers:read"])

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert issued.key.current_secret.digest.startswith("hmac-sha256$2025$")


@pytest.mark.usefixtures("nothing_said")
def test_pepper_that_is_gone_is_refused_with_one_error_a_minute(issued, client, settings, caplog):
    pepper = issued.key.current_secret.digest.split("$")[1]
    settings.SECRET_KEY = "another"

    with caplog.at_level(logging.ERROR, "django_apikeys"):
        first = client.get("/customers/", headers=bearer(issued.secret))
        client.get("/customers/", headers=bearer(issued.secret))
        within_the_minute = len(caplog.records)
        logs._said_at["pepper"] -= 60
        client.get("/customers/", headers=bearer(issued.secret))

    assert first.status_code == 401
    assert first.json() == INVALID_KEY_BODY
    assert within_the_minute == 1
    line = (
        "An API key was refused because the pepper of its digest is not configured: "
        f"hmac-sha256${pepper}. List it in APIKEYS_PEPPERS, or the SECRET_KEY it was derived "
        "from in SECRET_KEY_FALLBACKS."
    )
    assert caplog.messages == [line, line]


# --- verify() and averify() ---------------------------------------------------------------


def call_verify(request, **options):
    return verification.verify(request, **options)


def call_averify(request, **options):
    return async_to_sync(verification.averify)(request, **options)


faces = pytest.mark.parametrize("face", [call_verify, call_averify], ids=["sync", "async"])


@faces
def test_grant_says_what_the_key_is(face, issue, user, rf):
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    issued = issue(
        name="sync",
        scopes=["jobs:read"],
        allowed_ips=["127.0.0.1"],
        rate_limit="300/m",
        expires_at=moment,
    )

    grant = face(rf.get("/", headers=bearer(issued.secret)), required_scopes=["jobs:read"])

    assert grant.key_id == issued.key.pk
    assert grant.public_id == issued.secret.split("_")[2]
    assert grant.name == "sync"
    assert grant.environment == "live"
    assert grant.scopes == frozenset(["jobs:read"])
    assert grant.owner_id == user.pk
    assert grant.plan is None
    assert grant.masked == issued.key.masked
    assert grant.allowed_ips == ("127.0.0.1",)
    assert grant.rate_limit == "300/m"
    assert grant.expires_at == moment
    assert grant.in_grace is False
    assert grant.owner == user
    assert grant.key == issued.key


def test_averify_equals_verify(issued, rf):
    request = rf.get("/", headers=bearer(issued.secret))

    assert call_averify(request) == call_verify(request)


def test_grant_of_a_key_of_the_project_has_no_owner(issue, rf):
    issued = issue(owner=None)

    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    assert (grant.owner_id, grant.owner, grant.plan) == (None, None, None)


def test_grant_of_a_previous_secret_is_in_its_grace(issued, rf):
    secret_row(issued, slot=1, retires_at=timezone.now() + timedelta(hours=1))

    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))

    assert grant.in_grace is True


def test_implied_scopes_reach_the_check(issue, rf, settings):
    settings.APIKEYS_IMPLIED_SCOPES = {"jobs:write": ["jobs:read"]}
    issued = issue(scopes=["jobs:write"])

    grant = verification.verify(
        rf.get("/", headers=bearer(issued.secret)), required_scopes=["jobs:read"]
    )

    assert grant.has_scope("jobs:read", "jobs:write")


@faces
@pytest.mark.parametrize(
    ("headers", "error"),
    [
        pytest.param(lambda text: {}, NotAuthenticated, id="nothing"),
        pytest.param(lambda text: bearer("foreign"), NotAuthenticated, id="foreign"),
        pytest.param(lambda text: bearer(text + "0"), MalformedKey, id="malformed"),
        pytest.param(lambda text: bearer(forge("a" * 12)), UnknownKey, id="unknown"),
        pytest.param(
            lambda text: bearer(forge(text.split("_")[2])), WrongSecret, id="wrong-digest"
        ),
        pytest.param(lambda text: basic("bob", text), WrongSecret, id="wrong-user-name"),
        pytest.param(
            lambda text: {**bearer(text), "X-API-Key": text}, InvalidRequest, id="two-credentials"
        ),
    ],
)
def test_bad_credential_raises(face, headers, error, issued, rf):
    request = rf.get("/", headers=headers(issued.secret))

    with pytest.raises(error):
        face(request)


@faces
@pytest.mark.parametrize(
    ("defect", "error"),
    [
        pytest.param(forbid_address, AddressNotAllowed, id="address"),
        pytest.param(revoke, KeyRefused, id="revoked"),
        pytest.param(take_scopes, InsufficientScope, id="scope"),
    ],
)
def test_defect_raises_with_the_public_id(face, defect, error, issued, rf):
    defect(issued)
    request = rf.get("/", headers=bearer(issued.secret))

    with pytest.raises(error) as refused:
        face(request, required_scopes=["customers:read"])

    assert refused.value.public_id == issued.secret.split("_")[2]


def test_scopes_that_nobody_has_said_refuse_the_key(issue, rf):
    issued = issue(scopes=["*"])

    with pytest.raises(InsufficientScope) as refused:
        verification.verify(rf.get("/", headers=bearer(issued.secret)), required_scopes=None)

    assert refused.value.required is None


def test_verify_raises_unavailable_where_the_database_is_down(issued, rf):
    with refuse("SELECT"), pytest.raises(Unavailable) as refused:
        verification.verify(rf.get("/", headers=bearer(issued.secret)))

    assert refused.value.retry_after == 5


def test_verify_marks_the_first_use_at_now(issued, rf):
    moment = datetime(2026, 11, 20, 10, 37, tzinfo=UTC)

    verification.verify(rf.get("/", headers=bearer(issued.secret)), now=moment)

    assert APIKeySecret.objects.get(key=issued.key).first_used_at == moment


def test_owner_is_loaded_whom_the_default_manager_hides(issued, user, rf, monkeypatch):
    """As a foreign key has it."""
    grant = verification.verify(rf.get("/", headers=bearer(issued.secret)))
    hiding = HidingManager()
    hiding.model = type(user)
    monkeypatch.setattr(type(user)._meta, "default_manager", hiding)

    assert not type(user)._default_manager.exists()
    assert grant.owner == user


# --- key_refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("defect", "code"),
    [
        pytest.param(revoke, "revoked_key", id="revoked"),
        pytest.param(forbid_address, "address_not_allowed", id="address"),
        pytest.param(take_scopes, "insufficient_scope", id="scope"),
    ],
)
def test_key_refused_says_code_key_and_address(defect, code, issued, client):
    defect(issued)

    with listening(signals.key_refused) as received:
        client.get("/customers/", headers=bearer(issued.secret), REMOTE_ADDR="198.51.100.7")

    assert received == [
        {
            "signal": signals.key_refused,
            "sender": APIKey,
            "code": code,
            "public_id": issued.secret.split("_")[2],
            "address": "198.51.100.7",
        }
    ]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda text: bearer(forge(text.split("_")[2])), id="wrong-digest"),
        pytest.param(lambda text: basic("bob", text), id="wrong-user-name"),
    ],
)
def test_key_refused_names_the_key_whose_secret_is_wrong(headers, issued, client):
    """A receiver may count them; the answer does not tell that there is such a key."""
    with listening(signals.key_refused) as received:
        response = client.get("/customers/", headers=headers(issued.secret))

    assert response.json() == INVALID_KEY_BODY
    assert [(facts["code"], facts["public_id"]) for facts in received] == [
        ("invalid_key", issued.secret.split("_")[2])
    ]


def test_key_refused_of_an_unknown_key_and_address(issued, client):
    with listening(signals.key_refused) as received:
        client.get("/customers/", headers=bearer(forge("a" * 12)), REMOTE_ADDR="rubbish")

    assert [(facts["code"], facts["public_id"], facts["address"]) for facts in received] == [
        ("invalid_key", None, None)
    ]


def test_key_refused_is_silent_where_no_key_was_sent(issued, client):
    with listening(signals.key_refused) as received:
        client.get("/customers/")
        client.get("/customers/", headers=bearer("foreign"))
        client.get("/customers/", headers=bearer(issued.secret))

    assert received == []


def test_receiver_that_raises_breaks_no_refusal(issued, client):
    revoke(issued)

    def receiver(**facts):
        raise RuntimeError("a receiver")

    signals.key_refused.connect(receiver)
    try:
        response = client.get("/customers/", headers=bearer(issued.secret))
    finally:
        signals.key_refused.disconnect(receiver)

    assert response.status_code == 401
    assert response.json()["code"] == "revoked_key"


def test_verify_takes_a_plain_request(issued):
    request = RequestFactory().get("/", headers={"X-API-Key": issued.secret})

    assert verification.verify(request).key_id == issued.key.pk
