"""What a key decides, and what is left to the others: section 2 of the contract."""

import base64

import pytest
from django.middleware.csrf import get_token
from rest_framework.authentication import BasicAuthentication
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory, force_authenticate

from django_apikeys import services
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.exceptions import RefusedRequest
from django_apikeys.policy import UserPolicy
from tests import views
from tests.conftest import bearer
from tests.factories import UserFactory

INVALID_TOKEN = (
    'Bearer realm="api", error="invalid_token", error_description="Invalid or expired API key."'
)


def basic(username, password):
    text = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {text}"}


class RobotPolicy(UserPolicy):
    """A policy for which one user stands behind every key."""

    def request_user(self, grant):
        return UserFactory._meta.model(username="robot")


@pytest.fixture
def bob(db):
    return UserFactory(username="bob")


@pytest.fixture
def as_bob(bob):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(bob)
    return client


# --- A key decides alone ------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(bearer, id="bearer"),
        pytest.param(lambda text: {"Authorization": f"Api-Key {text}"}, id="api-key"),
        pytest.param(lambda text: {"X-API-Key": text}, id="x-api-key"),
        pytest.param(lambda text: basic("ann", text), id="basic"),
        pytest.param(lambda text: {"Authorization": f"bEARER \t {text} \t"}, id="case-and-space"),
    ],
)
def test_secret_is_taken_wherever_it_may_stand(headers, issued, client):
    response = client.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == 200
    assert response.json() == {"user": "ann"}


def test_query_parameter_is_not_supported(issued, client):
    response = client.get("/customers/", query_params={"api_key": issued.secret})

    assert response.status_code == 401


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("bearer", bearer),
        ("api-key", lambda text: {"Authorization": f"Api-Key {text}"}),
        ("x-api-key", lambda text: {"X-API-Key": text}),
        ("basic", lambda text: basic("ann", text)),
    ],
    ids=["bearer", "api-key", "x-api-key", "basic"],
)
def test_way_that_is_switched_off_is_not_looked_at(name, headers, issued, client, settings):
    everything = ["bearer", "api-key", "x-api-key", "basic"]
    settings.APIKEYS_CREDENTIALS = [one for one in everything if one != name]

    response = client.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == 401
    assert "Invalid or expired API key." not in response.json()["detail"]


def test_session_beside_a_key_is_ignored(issued, as_bob):
    response = as_bob.get("/customers/", headers=bearer(issued.secret))

    assert response.json() == {"user": "ann"}


def test_csrf_is_not_asked_for_with_a_key(issue, as_bob):
    issued = issue(scopes=["customers:write"])

    response = as_bob.post("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 200
    assert response.json() == {"user": "ann"}


def test_csrf_is_still_asked_for_with_a_session(as_bob):
    response = as_bob.post("/customers/")

    assert response.status_code == 403
    assert response.json() == {"detail": "CSRF Failed: CSRF cookie not set."}


def test_session_with_its_csrf_token_is_let_in(as_bob, rf):
    request = rf.get("/")
    token = get_token(request)
    as_bob.cookies["csrftoken"] = request.META["CSRF_COOKIE"]

    response = as_bob.post("/customers/", headers={"X-CSRFToken": token})

    assert response.status_code == 200
    assert response.json() == {"user": "bob"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(lambda text: bearer(text[:-1]), id="bearer-malformed"),
        pytest.param(bearer, id="bearer-revoked"),
        pytest.param(lambda text: {"Authorization": "Api-Key x"}, id="api-key-nonsense"),
        pytest.param(lambda text: {"X-API-Key": ""}, id="x-api-key-empty"),
        pytest.param(lambda text: basic("ann", text), id="basic-revoked"),
        pytest.param(lambda text: basic(text, "x"), id="basic-secret-as-user-name"),
    ],
)
def test_refused_key_never_falls_back_to_the_session(headers, issued, as_bob):
    services.revoke_key(key=issued.key)

    response = as_bob.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == INVALID_TOKEN


def test_refused_key_never_falls_back_to_nobody(issued, client):
    services.revoke_key(key=issued.key)

    response = client.get("/public/", headers=bearer(issued.secret))

    assert response.status_code == 401


# --- Others go on beside us ---------------------------------------------------------------


@pytest.mark.usefixtures("bob")
def test_foreign_bearer_is_left_to_the_next_class(client):
    response = client.get("/beside-foreign/", headers=bearer("foreign-bob"))

    assert response.json() == {"user": "bob"}


def test_password_is_left_to_the_next_class(user, client):
    response = client.get("/customers/", headers=basic("ann", "password"))

    assert response.json() == {"user": "ann"}


def test_wrong_password_is_answered_by_the_next_class(user, client):
    response = client.get("/customers/", headers=basic("ann", "wrong"))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'
    assert response.json() == {"detail": "Invalid username/password."}


def test_session_goes_on(as_user):
    response = as_user.get("/customers/")

    assert response.json() == {"user": "ann"}


def test_nobody_is_answered_with_the_challenge_of_the_first_class(client, db):
    response = client.get("/foreign-first/")

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="foreign"'


def test_bearer_of_nobody_is_not_authenticated(client, db):
    response = client.get("/customers/", headers=bearer("eyJhbGciOiJIUzI1NiJ9.e30.x"))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("path", ["/session-first/", "/foreign-first/"])
def test_key_is_let_in_whatever_the_position_of_our_class(path, issued, client):
    response = client.get(path, headers=bearer(issued.secret))

    assert response.json() == {"user": "ann"}


@pytest.mark.parametrize("path", ["/customers/", "/session-first/", "/foreign-first/"])
@pytest.mark.parametrize(
    ("method", "headers", "answer"),
    [
        pytest.param("get", lambda text: bearer(text + "0"), (401, INVALID_TOKEN), id="malformed"),
        pytest.param(
            "get",
            lambda text: {**bearer(text), "X-API-Key": text},
            (400, 'Bearer realm="api", error="invalid_request"'),
            id="two-credentials",
        ),
        pytest.param(
            "post",
            bearer,
            (403, 'Bearer realm="api", error="insufficient_scope", scope="customers:write"'),
            id="scope",
        ),
    ],
)
def test_refusal_keeps_status_and_challenge_in_any_order(path, method, headers, answer, issued):
    response = getattr(APIClient(), method)(path, headers=headers(issued.secret))

    assert (response.status_code, response.headers["WWW-Authenticate"]) == answer


@pytest.mark.parametrize("path", ["/session-first/", "/foreign-first/"])
def test_revoked_key_is_401_in_any_order(path, issued, client):
    services.revoke_key(key=issued.key)

    response = client.get(path, headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.json() == {"detail": "Invalid or expired API key.", "code": "revoked_key"}


# --- request.user and request.auth --------------------------------------------------------


def test_user_of_a_key_is_its_owner(issued, user, client):
    response = client.get("/caller/", headers=bearer(issued.secret))

    assert response.json() == {
        "user": "LazyUser",
        "pk": user.pk,
        "is_authenticated": True,
        "auth": "Grant",
    }


def test_user_of_a_key_of_the_project_is_nobody_in_particular(issue, client):
    issued = issue(owner=None)

    response = client.get("/caller/", headers=bearer(issued.secret))

    assert response.json() == {
        "user": "APIKeyUser",
        "pk": None,
        "is_authenticated": True,
        "auth": "Grant",
    }


def test_user_of_a_key_is_what_the_policy_says(issued, client, settings):
    settings.APIKEYS_POLICY = "tests.drf.test_authentication.RobotPolicy"

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.json() == {"user": "robot"}


def test_caller_without_a_key_has_no_grant(as_user):
    response = as_user.get("/caller/")

    assert response.json()["auth"] == "NoneType"


def test_owner_is_loaded_when_touched_and_is_the_user(issued, user):
    request = Request(APIRequestFactory().get("/", headers=bearer(issued.secret)))
    request.parser_context = {"view": views.Open()}

    caller, grant = APIKeyAuthentication().authenticate(request)

    assert caller == user
    assert isinstance(caller, type(user))
    assert caller.email == "ann@example.com"
    assert bool(caller) is True
    assert grant.owner == user
    assert grant.key == issued.key


def test_user_of_a_key_of_the_project_has_no_permission(issue):
    issued = issue(owner=None)
    request = Request(APIRequestFactory().get("/", headers=bearer(issued.secret)))
    request.parser_context = {"view": views.Open()}

    caller, grant = APIKeyAuthentication().authenticate(request)

    assert str(caller) == "APIKeyUser"
    assert (caller.id, caller.pk, caller.username, caller.get_username()) == (None, None, "", "")
    assert (caller.is_active, caller.is_anonymous, caller.is_authenticated) == (True, False, True)
    assert (caller.is_staff, caller.is_superuser) == (False, False)
    assert caller.has_perm("auth.view_user") is False
    assert caller.has_perms(["auth.view_user"]) is False
    assert caller.has_module_perms("auth") is False
    assert caller.get_all_permissions() == set()
    assert caller.get_user_permissions() == set()
    assert caller.get_group_permissions() == set()
    assert list(caller.groups.all()) == list(caller.user_permissions.all()) == []
    assert caller.grant is grant


def test_users_of_the_same_key_of_the_project_are_equal(issue):
    issued, other = issue(owner=None), issue(owner=None)

    def caller(secret):
        request = Request(APIRequestFactory().get("/", headers=bearer(secret)))
        request.parser_context = {"view": views.Open()}
        return APIKeyAuthentication().authenticate(request)[0]

    assert caller(issued.secret) == caller(issued.secret)
    assert len({caller(issued.secret), caller(issued.secret), caller(other.secret)}) == 2
    assert caller(issued.secret) != issued.key


# --- Outside of a view, and in the tests of a host ----------------------------------------


def test_request_without_a_view_refuses_keys(issued):
    request = Request(APIRequestFactory().get("/", headers=bearer(issued.secret)))
    request.parser_context = None

    with pytest.raises(RefusedRequest) as refused:
        APIKeyAuthentication().authenticate(request)

    assert refused.value.status_code == 403
    assert refused.value.detail["code"] == "insufficient_scope"


def test_request_without_a_key_is_none_of_ours():
    request = Request(APIRequestFactory().get("/"))
    request.parser_context = None

    assert APIKeyAuthentication().authenticate(request) is None


@pytest.mark.parametrize("path", ["/customers/", "/undeclared/", "/scope-or-admin/"])
def test_force_authenticate_of_the_client_still_works(path, client):
    client.force_authenticate(UserFactory.build(username="eve", is_staff=True))

    response = client.get(path)

    assert response.status_code == 200
    assert response.json() == {"user": "eve"}


def test_force_authenticate_of_the_factory_still_works():
    request = APIRequestFactory().get("/customers/")
    force_authenticate(request, UserFactory.build(username="eve"))

    response = views.Customers.as_view()(request)

    assert response.status_code == 200


def test_class_can_be_subclassed_with_a_challenge_of_its_own(client, db):
    class Ours(APIKeyAuthentication):
        def authenticate_header(self, request):
            return 'Bearer realm="ours"'

    view = views.Customers.as_view(authentication_classes=[Ours, BasicAuthentication])

    response = view(APIRequestFactory().get("/"))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="ours"'
