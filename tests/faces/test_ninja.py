"""What Django Ninja does beside the table of cases. This module is its own URLconf."""

import itertools
import json

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection
from django.test import AsyncClient, Client
from django.urls import path
from django.views.decorators.cache import cache_page
from ninja import NinjaAPI
from ninja.decorators import decorate_view
from ninja.security import django_auth
from ninja.throttling import BaseThrottle

from django_apikeys import services
from django_apikeys.contrib.ninja import APIKeyAuth, APIKeyThrottle, answer_refusals
from tests.conftest import bearer
from tests.factories import UserFactory

_numbers = itertools.count()


class Closed(BaseThrottle):
    """Lets nobody through, and says for how long."""

    def allow_request(self, request):
        return False

    def wait(self):
        return 7


api = NinjaAPI(urls_namespace="beside", auth=[APIKeyAuth(scopes=[], cost=None), django_auth])
answer_refusals(api)


@api.get("/caller/", throttle=[APIKeyThrottle()])
def caller(request):
    UserFactory(username="written")
    return {"user": request.user.get_username()}


@api.get("/session-alone/", auth=django_auth)
def session_alone(request):
    """Answer nobody without a session."""


@api.get("/closed/", throttle=[Closed(), APIKeyThrottle()])
def closed(request):
    """Answer nobody."""


@api.get("/in-the-loop/", throttle=[APIKeyThrottle()])
async def in_the_loop(request):
    """Answer nobody with a key."""


@api.get("/cached/")
@decorate_view(cache_page(60))
def cached(request):
    return {"number": next(_numbers)}


@api.get("/costly/", auth=APIKeyAuth(scopes=[], cost=5))
def costly(request):
    return {}


urlpatterns = [path("", api.urls)]


@pytest.fixture(autouse=True)
def _urls(settings):
    settings.ROOT_URLCONF = __name__
    cache.clear()
    yield
    cache.clear()


@pytest.fixture
def as_bob(db):
    client = Client()
    client.force_login(UserFactory(username="bob"))
    return client


# --- Beside another auth class --------------------------------------------------------------


@pytest.mark.parametrize("atomic", [True, False])
def test_session_without_a_key_is_left_to_the_next(atomic, as_bob, monkeypatch, django_user_model):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)

    response = as_bob.get("/caller/")

    assert (response.status_code, response.json()) == (200, {"user": "bob"})
    assert not response.has_header("Cache-Control")
    assert django_user_model.objects.filter(username="written").exists()


def test_key_beside_a_session_decides(issued, as_bob):
    response = as_bob.get("/caller/", headers=bearer(issued.secret))

    assert response.json() == {"user": "ann"}
    assert response["Cache-Control"] == "private"


def test_refused_key_never_falls_back_to_the_session(issued, as_bob):
    services.revoke_key(key=issued.key)

    response = as_bob.get("/caller/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.json()["code"] == "revoked_key"


def test_operation_that_is_not_ours_answers_as_ever(client):
    response = client.get("/session-alone/")

    assert (response.status_code, response.json()) == (401, {"detail": "Unauthorized"})
    assert not response.has_header("WWW-Authenticate")


# --- Limits ---------------------------------------------------------------------------------


def test_throttle_of_another_answers_as_ever(issue, client):
    response = client.get("/closed/", headers=bearer(issue(rate_limit="9/s").secret))

    assert (response.status_code, response.json()) == (429, {"detail": "Too many requests."})
    assert response["Retry-After"] == "7"
    assert response["RateLimit"] == '"key";r=8;t=1'


def test_throttle_counts_in_no_event_loop(issued):
    with pytest.raises(SynchronousOnlyOperation, match="let APIKeyAuth do it, by its cost"):
        async_to_sync(AsyncClient().get)("/in-the-loop/", headers=bearer(issued.secret))


def test_cost_is_of_the_quota(issued, client, settings):
    settings.APIKEYS_PLANS = {"free": {"quota": 10}}
    settings.APIKEYS_POLICY = "tests.faces.test_same_answers.FreePolicy"

    response = client.get("/costly/", headers=bearer(issued.secret))

    assert response["RateLimit"].startswith('"quota";r=5;t=')


# --- The rest -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["revoked", "nonsense"])
def test_no_cache_hands_a_refused_key_the_answer_of_a_session(key, client, issued, user):
    """The cookie stands beside it, and the cache knows no other header to tell them by."""
    services.revoke_key(key=issued.key)
    secret = {"revoked": issued.secret, "nonsense": "rak_nonsense"}[key]
    client.force_login(user)

    as_person = client.get("/cached/")
    with_key = client.get("/cached/", headers=bearer(secret))

    assert (as_person.status_code, with_key.status_code) == (200, 401)


def test_answer_to_a_key_is_not_stored(issued, client):
    first = client.get("/cached/", headers=bearer(issued.secret))
    second = client.get("/cached/", headers=bearer(issued.secret))

    assert first.json()["number"] != second.json()["number"]


def test_schema_says_how_a_key_is_sent(client):
    schema = json.loads(client.get("/openapi.json").content)

    assert schema["components"]["securitySchemes"]["APIKeyAuth"] == {
        "type": "http",
        "scheme": "bearer",
    }


@pytest.mark.parametrize("make", [APIKeyAuth, lambda: APIKeyAuth(scopes=None)])
def test_auth_class_is_told_what_a_key_needs(make):
    with pytest.raises(TypeError, match=r'^APIKeyAuth is told .*: APIKeyAuth\(scopes=\["orders'):
        make()


@pytest.mark.parametrize("scopes", [["jobs"], {"GET": ["jobs:*"]}])
def test_scopes_are_scopes(scopes):
    with pytest.raises(ValueError, match=r"^APIKeyAuth takes scopes of the form resource:action"):
        APIKeyAuth(scopes=scopes)


@pytest.mark.parametrize(
    "make", [lambda: APIKeyAuth(scopes=[], cost=-1), lambda: APIKeyThrottle(cost=1.5)]
)
def test_cost_is_a_number_of_units(make):
    with pytest.raises(ValueError, match=r"^The cost of APIKey\w+ is a number of units"):
        make()
