"""What went wrong in other packages: a docstring is the defect, its test that we have it not."""

import ast
import uuid
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

import django_apikeys
from django_apikeys import services, signals
from django_apikeys.drf.permissions import HasScope
from django_apikeys.exceptions import Conflict
from django_apikeys.keys.format import checksum
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests import views
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory

LIST = "/admin/django_apikeys/apikey/"


@pytest.fixture
def browser(db):
    client = Client()
    client.force_login(UserFactory(username="root", superuser=True))
    return client


@pytest.fixture
def received():
    """The names of the signals that were sent."""
    sent = []
    listened = {name: getattr(signals, name) for name in ("key_created", "key_revoked")}
    receivers = {name: lambda name=name, **facts: sent.append(name) for name in listened}
    for name, signal in listened.items():
        signal.connect(receivers[name])
    yield sent
    for name, signal in listened.items():
        signal.disconnect(receivers[name])


def forged(secret):
    """A secret with the public id of *secret*, and a checksum that is right."""
    body = secret[:22] + secret[22:65][::-1]
    return body + checksum(body)


def rows():
    return [
        list(model.objects.order_by("pk").values())
        for model in (APIKey, APIKeySecret, APIKeyEvent)
    ]


# --- Authentication -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"enabled": True}, {"expires_at": None}, {"name": "again"}, {"scopes": ["jobs:read"]}],
    ids=["enable", "expiry", "name", "scopes"],
)
def test_copy_that_is_older_than_a_revoke_does_not_undo_it(change, issued, client):
    """The guard against un-revoking can be walked around (api-key)."""
    stale = APIKey.objects.get()
    services.revoke_key(key=issued.key)

    with pytest.raises(Conflict):
        services.update_key(key=stale, **change)

    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 401


@pytest.mark.parametrize("name", ["revoked_at", "revoked_by", "deleted_at", "owner", "id"])
def test_no_service_takes_a_revoke_back(name, issued):
    """The guard against un-revoking can be walked around (api-key)."""
    services.revoke_key(key=issued.key)

    with pytest.raises(TypeError):
        services.update_key(key=issued.key, **{name: None})

    assert APIKey.objects.get().revoked_at is not None


def test_copy_that_is_older_than_a_revoke_leaves_its_moment_and_reason(issued):
    """The guard against un-revoking can be walked around (api-key): by revoking again."""
    stale = APIKey.objects.get()
    services.revoke_key(key=issued.key, reason="It leaked.")
    revoked_at = APIKey.objects.get().revoked_at

    services.revoke_key(key=stale, reason="")
    services.delete_key(key=stale)

    key = APIKey.objects.get()
    assert (key.revoked_at, key.revoked_reason) == (revoked_at, "It leaked.")


@pytest.mark.parametrize("traits", [{"expired": True}, {"revoked": True}, {"deleted": True}])
def test_no_credential_deletes_or_changes_a_row(traits, issued, client):
    """A forged suffix deletes another user's expired rows (knox)."""
    dead = APIKeyFactory(**traits).current_secret
    before = rows()
    texts = [
        forged(f"{dead.prefix}_live_{dead.public_id}_{issued.secret[22:]}"),
        forged(issued.secret),
        issued.secret[:-1],
        f"{dead.prefix}_live_{dead.public_id}",
    ]

    answers = [client.get("/customers/", headers=bearer(text)) for text in texts]

    assert [answer.status_code for answer in answers] == [401] * 4
    assert rows() == before


def test_no_module_sleeps():
    """time.sleep(0.01) on each request "against timing" (drf-simple-apikey)."""
    package = Path(django_apikeys.__file__).parent
    modules = {path: ast.parse(path.read_text()) for path in package.rglob("*.py")}

    sleeping = [
        path.name
        for path, tree in modules.items()
        for node in ast.walk(tree)
        if getattr(node, "attr", getattr(node, "id", getattr(node, "name", ""))) == "sleep"
    ]

    assert len(modules) > 40
    assert sleeping == []


def test_expiry_that_is_moved_to_the_past_is_obeyed_at_once(issued, client):
    """Moving the expiry to the past is ignored (drf-simple-apikey)."""
    before = client.get("/customers/", headers=bearer(issued.secret))
    APIKey.objects.update(expires_at=timezone.now())

    after = client.get("/customers/", headers=bearer(issued.secret))

    assert (before.status_code, after.status_code) == (200, 401)
    assert after.json()["code"] == "expired_key"


@pytest.mark.parametrize(
    "end",
    [
        lambda key: services.revoke_key(key=key),
        lambda key: services.delete_key(key=key),
        lambda key: services.update_key(key=key, enabled=False),
        lambda key: key.secrets.update(slot=None),
    ],
    ids=["revoked", "deleted", "disabled", "retired"],
)
def test_key_that_was_used_a_moment_ago_ends_with_the_next_request(end, issued, client):
    """A revoked key goes on working from the cache (dj-apikey-auth)."""
    before = [client.get("/customers/", headers=bearer(issued.secret)) for _ in range(3)]
    end(issued.key)

    after = client.get("/customers/", headers=bearer(issued.secret))

    assert [answer.status_code for answer in before] == [200] * 3
    assert after.status_code == 401


def test_requests_from_two_addresses_in_turn_write_nothing(issue, client):
    """Two alternating addresses cause a write per request (tenant)."""
    headers = bearer(issue(scopes=["jobs:read"]).secret)
    client.get("/jobs/", headers=headers)

    with CaptureQueriesContext(connection) as captured:
        for number in range(10):
            client.get("/jobs/", headers=headers, REMOTE_ADDR=f"192.0.2.{number % 2}")

    assert [query["sql"].split()[0] for query in captured] == ["SELECT"] * 10


# --- Authorisation ------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("method", ["get", "post", "options"])
def test_scope_permission_of_a_view_that_declares_nothing_lets_nobody_in(method, rf):
    """A scope permission without declared scopes lets anonymous in (drf-simple-apikey)."""
    view = views.Answers.as_view(permission_classes=[HasScope])

    assert view(getattr(rf, method)("/")).status_code == 401


@pytest.mark.parametrize("owner", ["a user", "the project"])
def test_is_authenticated_lets_a_key_in(owner, issue, client):
    """IsAuthenticated answers 403 because there is no user (tenant)."""
    fields = {} if owner == "a user" else {"owner": None}
    issued = issue(scopes=["jobs:read"], **fields)

    answer = client.get("/jobs-of-authenticated/", headers=bearer(issued.secret))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path", ["/customers/", "/by-method/", "/by-action/", "/function/", "/declared/", "/api/keys/"]
)
def test_key_without_scopes_is_refused_where_one_is_asked_for(path, issue, client):
    """Empty scopes mean everything (simple, scoped, uw, PostHog's old keys)."""
    issued = issue(scopes=[])

    answer = client.get(path, headers=bearer(issued.secret))

    assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


# --- Leaking, and the admin ---------------------------------------------------------------


def test_keys_are_named_by_an_id_that_says_nothing_of_the_secret(issued, as_user, browser):
    """The hash is the primary key, hence in URLs (api-key)."""
    secret = issued.key.current_secret
    told = [issued.secret[22:65], secret.digest, secret.digest.rpartition("$")[2]]

    page = browser.get(f"{LIST}{issued.key.pk}/change/").content.decode()
    bodies = [page, browser.get(LIST).content.decode(), as_user.get("/api/keys/").content.decode()]

    assert isinstance(issued.key.pk, uuid.UUID)
    assert issued.key.pk.version == 4
    assert all(str(issued.key.pk) in body for body in bodies)
    assert not any(text in body for text in told for body in bodies)


@pytest.mark.django_db(transaction=True)
def test_admin_sends_a_signal_of_each_key_it_makes_and_revokes(browser, received):
    """Admin create and deactivate send no signals (tenant)."""
    form = {"name": "x", "environment": "live", "enabled": "on", "metadata": "{}"}

    browser.post(f"{LIST}add/", form)
    first = APIKey.objects.get()
    browser.post(f"{LIST}{first.pk}/revoke/", {"confirmed": "1", "reason": "It leaked."})
    others = APIKeyFactory.create_batch(2)
    browser.post(
        LIST,
        {
            "action": "revoke_selected",
            "_selected_action": [key.pk for key in others],
            "confirmed": "1",
            "reason": "",
        },
    )

    assert APIKey.objects.filter(revoked_at=None).count() == 0
    assert received == ["key_created", "key_revoked", "key_revoked", "key_revoked"]
