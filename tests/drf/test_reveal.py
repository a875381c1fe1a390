"""``POST keys/{id}/reveal/``, as an attacker tries it: a secret is shown to whom it is for."""

import json

import pytest
from django.contrib.auth.signals import user_login_failed
from django.db import connection
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import OTHER_FERNET_KEY, bearer
from tests.drf.test_management import FIELDS
from tests.factories import UserFactory
from tests.test_command import run
from tests.test_services import listening

pytestmark = pytest.mark.usefixtures("retrievable", "no_guesses")

EVERY_SCOPE = ["*", "customers:*", "apikeys:read", "apikeys:write", "self:rotate", "self:revoke"]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def path(issued):
    return f"/api/keys/{issued.key.pk}/reveal/"


@pytest.fixture
def stale(as_user):
    """A client whose session somebody has logged in to long ago."""
    session = as_user.session
    session["apikeys_login_at"] = 1
    session.save()
    return as_user


def code(answer):
    return answer.status_code, answer.json().get("code")


def revealed():
    return APIKeyEvent.objects.filter(type="revealed").count()


# --- Who has just logged in ---------------------------------------------------------------


def test_a_fresh_login_sees_the_secret_again(as_user, path, issued, client):
    answer = as_user.post(path)

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(answer.json()) == {*FIELDS, "secret"}
    assert answer.json()["secret"] == issued.secret
    assert client.get("/customers/", headers=bearer(answer.json()["secret"])).status_code == 200


def test_each_time_leaves_an_event_with_who_and_from_where(as_user, path):
    for _ in range(2):
        as_user.post(path, headers={"User-Agent": "Mozilla/5.0"})

    events = APIKeyEvent.objects.filter(type="revealed")
    told = [(event.actor_name, event.address, event.user_agent) for event in events]
    assert told == [("ann", "127.0.0.1", "Mozilla/5.0")] * 2


def test_nothing_of_the_key_is_changed(as_user, path):
    before = APIKey.objects.values().get(), APIKeySecret.objects.values().get()

    as_user.post(path)

    assert (APIKey.objects.values().get(), APIKeySecret.objects.values().get()) == before


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete"])
def test_it_is_a_post(method, as_user, path):
    """What a link, a cache or a prefetch may ask shows nothing."""
    answer = getattr(as_user, method)(path)

    assert answer.status_code == 405
    assert revealed() == 0


def test_a_page_of_somebody_else_cannot_send_it(user, path):
    """A session without the token against forgery is nobody's."""
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)

    answers = [client.post(path), client.post(path, "password=password", content_type=FORM)]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert revealed() == 0


# --- Who may not --------------------------------------------------------------------------


def test_nobody_is_401(client, path):
    assert client.post(path, {"password": "password"}).status_code == 401


@pytest.mark.parametrize("body", [None, {"password": "password"}, {"nonsense": 1}])
@pytest.mark.parametrize("target", ["another", "itself", "self", "nonsense"])
def test_a_key_never_reveals_one(issue, issued, as_user, target, body):
    """Whatever its scopes, the password of its owner, or the fresh session beside it."""
    powerful = issue(scopes=EVERY_SCOPE)
    pk = {"another": issued.key.pk, "itself": powerful.key.pk}.get(target, target)

    answer = as_user.post(f"/api/keys/{pk}/reveal/", body, headers=bearer(powerful.secret))

    assert code(answer) == (403, "permission_denied")
    assert answer.json()["detail"] == "No API key reveals a secret."
    assert revealed() == 0


def test_a_key_of_the_project_does_not_either(issue, client):
    powerful = issue(scopes=EVERY_SCOPE, owner=None)

    answer = client.post(f"/api/keys/{powerful.key.pk}/reveal/", headers=bearer(powerful.secret))

    assert code(answer) == (403, "permission_denied")


def test_another_owner_finds_no_such_key(path):
    rival = APIClient()
    rival.force_login(UserFactory())

    answers = [rival.post(path), rival.post(path, {"password": "password"})]

    assert [answer.status_code for answer in answers] == [404, 404]


def test_what_the_policy_forbids_is_403_before_the_body_is_read(path, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_management.SeeingPolicy"
    other = APIClient()
    other.force_login(UserFactory())

    with listening(user_login_failed) as failed:
        answers = [other.post(path, body) for body in ({}, {"x": 1}, {"password": "guess"})]

    assert [code(answer) for answer in answers] == [(403, "permission_denied")] * 3
    assert failed == []


def test_who_may_not_grant_its_scopes_is_beyond_the_ceiling(as_user, issue, settings):
    wide = issue(scopes=["*"])
    settings.APIKEYS_POLICY = "tests.drf.test_management.NarrowPolicy"

    answer = as_user.post(f"/api/keys/{wide.key.pk}/reveal/")

    assert code(answer) == (403, "beyond_ceiling")
    assert wide.secret not in answer.content.decode()


def test_who_is_switched_off_is_nobody(as_user, path, user):
    user.is_active = False
    user.save()

    assert as_user.post(path).status_code == 401


# --- A session that is old, or stolen -----------------------------------------------------


def test_an_old_login_is_asked_for_the_password(stale, path):
    answer = stale.post(path)

    assert answer.json() == {
        "detail": "Your login is too old for this: log in, or send your password.",
        "code": "password_required",
    }
    assert answer.status_code == 403
    assert "WWW-Authenticate" not in answer.headers
    assert revealed() == 0


def test_the_password_reveals_it_and_makes_the_login_fresh(stale, path, issued):
    with_password = stale.post(path, {"password": "password"})
    without = stale.post(path)

    assert with_password.json()["secret"] == without.json()["secret"] == issued.secret


def test_the_password_may_come_by_a_form(stale, path, issued):
    answer = stale.post(path, "password=password", content_type=FORM)

    assert answer.json()["secret"] == issued.secret


@pytest.mark.parametrize("password", ["", " ", "guess", " password", "password ", "\x00", "é" * 9])
def test_a_wrong_password_is_refused(stale, path, password):
    answer = stale.post(path, {"password": password})

    assert code(answer) == (403, "password_required")
    assert answer.json()["detail"] == "This is not your password: send it again, or log in."
    assert revealed() == 0


def test_a_thief_of_a_session_guesses_five_times(stale, path):
    answers = [stale.post(path, {"password": f"guess {number}"}) for number in range(6)]
    then = stale.post(path, {"password": "password"})

    assert [code(answer) for answer in answers] == [
        *[(403, "password_required")] * 5,
        (429, "rate_limited"),
    ]
    assert code(then) == (429, "rate_limited")
    assert 1 <= int(then.headers["Retry-After"]) <= 301
    assert revealed() == 0


def test_where_guesses_cannot_be_counted_it_is_503(stale, path, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    answer = stale.post(path, {"password": "password"})

    assert code(answer) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"


def test_a_password_in_each_request_is_asked_for_in_the_body_too(client, path, issued):
    """HTTP Basic may be what a browser remembers, for as long as it is open."""
    client.credentials(HTTP_AUTHORIZATION="Basic YW5uOnBhc3N3b3Jk")

    assert code(client.post(path)) == (403, "password_required")
    assert client.post(path, {"password": "password"}).json()["secret"] == issued.secret


def test_the_fresh_session_of_somebody_else_beside_it_does_not_count(client, path):
    client.force_login(UserFactory())

    answer = client.post(path, headers={"Authorization": "Basic YW5uOnBhc3N3b3Jk"})

    assert code(answer) == (403, "password_required")


# --- Bodies -------------------------------------------------------------------------------

BODIES = {
    "unknown": ('{"passwort": "hunter22"}', "passwort"),
    "beside it": ('{"password": "hunter22", "x": "hunter22"}', "x"),
    "null": ('{"password": null}', "password"),
    "number": ('{"password": 22}', "password"),
    "list": ('{"password": ["hunter22"]}', "password"),
    "object": ('{"password": {"hunter22": "hunter22"}}', "password"),
    "lone surrogate": (r'{"password": "hunter22\ud800"}', "password"),
    "long": (json.dumps({"password": "hunter22" * 600}), "password"),
    "a list of it": ('["hunter22"]', "non_field_errors"),
    "a text": ('"hunter22"', "non_field_errors"),
    "a number for a body": ("22", "non_field_errors"),
}


@pytest.mark.parametrize(("body", "field"), BODIES.values(), ids=BODIES)
def test_a_body_that_cannot_be_read_is_400_and_not_echoed(stale, path, body, field):
    answer = stale.post(path, body, content_type="application/json")

    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert "hunter22" not in answer.content.decode()


@pytest.mark.parametrize(
    "body",
    ["{", "[" * 100_000, '{"password": "hunter22"'],
    ids=["no JSON", "nested", "cut off"],
)
def test_what_is_no_json_is_400(stale, path, body):
    answer = stale.post(path, body, content_type="application/json")

    assert answer.status_code == 400
    assert "hunter22" not in answer.content.decode()


# --- What there is to show ----------------------------------------------------------------


def test_without_the_mode_it_is_409_and_no_password_is_looked_at(stale, path, settings):
    """Else whoever has a session could find the password out by it."""
    settings.APIKEYS_RETRIEVABLE = False

    with listening(user_login_failed) as failed:
        answers = [stale.post(path, body) for body in ({}, *[{"password": "guess"}] * 9)]

    assert {code(answer) for answer in answers} == {(409, "conflict")}
    assert failed == []


def test_a_key_of_before_the_mode_is_409(as_user, issue, settings):
    settings.APIKEYS_RETRIEVABLE = False
    before = issue()
    settings.APIKEYS_RETRIEVABLE = True

    answer = as_user.post(f"/api/keys/{before.key.pk}/reveal/")

    assert code(answer) == (409, "conflict")
    assert answer.json()["detail"] == (
        "This secret was not kept, and cannot be shown again: rotate the key."
    )


@pytest.mark.parametrize("keys", [[], ["broken"], [OTHER_FERNET_KEY]])
def test_a_key_that_cannot_be_read_is_409_and_works(as_user, issued, settings, keys):
    settings.APIKEYS_ENCRYPTION_KEYS = keys

    answer = as_user.post(f"/api/keys/{issued.key.pk}/reveal/")

    assert code(answer) == (409, "conflict")
    assert "encryption keys of this site" in answer.json()["detail"]
    assert as_user.get("/customers/", headers=bearer(issued.secret)).status_code == 200


def test_a_revoked_key_is_409(as_user, path, issued):
    services.revoke_key(key=issued.key)

    assert code(as_user.post(path)) == (409, "conflict")


def test_the_secret_of_now_is_shown_after_a_rotation(as_user, path, issued):
    rotated = as_user.post(path.replace("reveal", "rotate")).json()

    assert as_user.post(path).json()["secret"] == rotated["secret"] != issued.secret


# --- Nobody else --------------------------------------------------------------------------


def test_no_page_has_what_nobody_asked_for(as_user, path, issued, user):
    """Neither the secret nor what is kept of it."""
    user.is_staff = user.is_superuser = True
    user.save()
    as_user.post(path)
    detail = path.removesuffix("reveal/")
    admin = "/admin/django_apikeys/apikey"
    event = APIKeyEvent.objects.latest("pk")
    pages = [
        *("/api/keys/", detail, f"{detail}events/", f"{detail}usage/", "/api/events/"),
        *("/api/usage/", "/api/scopes/", "/admin/", f"{admin}/", f"{admin}/add/"),
        *(f"{admin}/{issued.key.pk}/change/", f"{admin}/{issued.key.pk}/history/"),
        *(f"{admin}event/", f"{admin}event/{event.pk}/change/", "/api/events/?format=csv"),
    ]

    shown = [
        *[as_user.get(page, follow=True) for page in pages],
        as_user.patch(detail, {"name": "x"}),
        as_user.options(path),
    ]
    texts = [answer.content.decode() for answer in shown]
    printed = [
        "".join(run(*words, *as_json))
        for words in (["list"], ["show", str(issued.key.pk)], ["peppers"], ["reencrypt"])
        for as_json in ([], ["--json"])
    ]
    row = APIKeySecret.objects.select_related("key").get()
    reprs = [repr(row), str(row), repr(row.key), repr(services.reveal_secret(key=row.key))]

    assert {answer.status_code for answer in shown} == {200}
    token = row.encrypted.partition("$")[2]
    everything = [*texts, *printed, *reprs]
    assert [text for text in everything if token in text or issued.secret[22:] in text] == []


# --- Within the transaction of the request ------------------------------------------------


@pytest.fixture
def _atomic_requests(monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_atomic_requests")
def test_what_is_shown_has_its_event_and_what_is_refused_has_none(as_user, path, issued):
    refused = as_user.post(path, {"password": "guess"})
    shown = as_user.post(path)

    assert (refused.status_code, shown.status_code) == (403, 200)
    assert shown.json()["secret"] == issued.secret
    assert revealed() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_atomic_requests")
def test_guesses_are_counted_though_each_is_rolled_back(stale, path):
    answers = [stale.post(path, {"password": "guess"}) for _ in range(6)]

    assert code(answers[-1]) == (429, "rate_limited")
