"""What a view declares, and what a key may do there: section 5 of the contract."""

import pytest
from django.contrib.auth.models import AnonymousUser
from rest_framework.permissions import IsAuthenticated
from rest_framework.test import APIRequestFactory

from django_apikeys.drf.permissions import HasAPIKey, HasScope
from tests import views
from tests.conftest import bearer
from tests.factories import UserFactory

UNDECLARED = (
    "This is not open to API keys: the view declares no scopes for it. Its developer "
    "does so by required_scopes, scope_resource or HasScope(…) in permission_classes."
)


@pytest.fixture
def call(issue, client):
    """The answer to a key with *scopes*."""

    def call(method, path, *scopes):
        headers = bearer(issue(scopes=scopes).secret)
        return getattr(client, method)(path, headers=headers)

    return call


# --- What a view says it needs ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "scopes", "status"),
    [
        # scope_resource
        ("/customers/", "get", ["customers:read"], 200),
        ("/customers/", "get", ["customers:write"], 403),
        ("/customers/", "get", ["jobs:read"], 403),
        ("/customers/", "get", [], 403),
        ("/customers/", "post", ["customers:write"], 200),
        ("/customers/", "post", ["customers:read"], 403),
        ("/customers/", "put", ["customers:write"], 200),
        ("/customers/", "patch", ["customers:write"], 200),
        ("/customers/", "delete", ["customers:write"], 200),
        ("/customers/", "delete", ["customers:read"], 403),
        ("/customers/", "get", ["customers:*"], 200),
        ("/customers/", "post", ["customers:*"], 200),
        ("/customers/", "post", ["*"], 200),
        ("/customers/", "post", ["jobs:*"], 403),
        # a dict by method
        ("/by-method/", "get", ["jobs:read"], 200),
        ("/by-method/", "get", ["jobs:write"], 403),
        ("/by-method/", "post", ["jobs:read", "jobs:write"], 200),
        ("/by-method/", "post", ["jobs:write"], 403),
        ("/by-method/", "post", ["jobs:read"], 403),
        ("/by-method/", "put", ["*"], 403),
        # a dict by action and by method
        ("/by-action/", "get", ["jobs:read"], 200),
        ("/by-action/", "get", ["jobs:write"], 403),
        ("/by-action/", "post", ["jobs:write"], 201),
        ("/by-action/", "post", ["jobs:read"], 403),
        ("/by-action/", "delete", ["*"], 403),
        ("/by-action/", "patch", ["*"], 403),
        ("/action-wins/", "get", ["jobs:read"], 200),
        ("/action-wins/", "get", ["jobs:write"], 403),
        ("/action-wins/1/", "get", ["*"], 403),
        # a list, and a text that was meant for one
        ("/open/", "get", [], 200),
        ("/text/", "get", ["jobs:read"], 200),
        ("/text/", "get", ["customers:read"], 403),
        # an entry of permission_classes
        ("/function/", "get", ["jobs:read"], 200),
        ("/function/", "get", ["jobs:write"], 403),
        ("/declared/", "get", ["jobs:read"], 200),
        ("/declared/", "get", [], 403),
        ("/declared-twice/", "get", ["jobs:read", "customers:read"], 200),
        ("/declared-twice/", "get", ["jobs:read"], 403),
        ("/declared-twice/", "get", ["customers:read"], 403),
        # what declares nothing
        ("/undeclared/", "get", ["*"], 403),
        ("/has-api-key-alone/", "get", ["*"], 403),
        ("/either-declared/", "get", ["jobs:read"], 403),
    ],
)
def test_key_needs_what_the_view_declares(path, method, scopes, status, call):
    response = call(method, path, *scopes)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "scopes", "status"),
    [
        ("/customers/", ["customers:read"], 200),
        ("/customers/", ["customers:write"], 403),
        ("/by-method/", ["jobs:read"], 200),
        ("/by-method/", ["jobs:write"], 403),
        ("/by-action/", ["jobs:read"], 200),
        ("/by-action/", ["jobs:write"], 403),
        ("/function/", ["jobs:read"], 405),
        ("/function/", [], 403),
    ],
)
def test_head_asks_what_get_asks(path, scopes, status, call):
    response = call("head", path, *scopes)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/customers/", 200),
        ("/by-method/", 200),
        ("/by-action/", 200),
        ("/open/", 200),
        ("/function/", 200),
        ("/declared/", 200),
        ("/undeclared/", 403),
        ("/has-api-key-alone/", 403),
    ],
)
def test_options_asks_for_a_key_and_a_view_that_declares_something(path, status, call):
    response = call("options", path)

    assert response.status_code == status


def test_options_of_a_revoked_key_is_refused(issued, client):
    issued.key.__class__.objects.filter(pk=issued.key.pk).update(enabled=False)

    response = client.options("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401


@pytest.mark.parametrize(
    ("path", "method", "challenge"),
    [
        ("/customers/", "post", ', scope="customers:write"'),
        ("/by-method/", "post", ', scope="jobs:read jobs:write"'),
        ("/declared-twice/", "get", ', scope="customers:read jobs:read"'),
        ("/by-method/", "put", ""),
        ("/undeclared/", "get", ""),
    ],
)
def test_challenge_names_what_the_view_declares(path, method, challenge, call):
    response = call(method, path)

    assert response.headers["WWW-Authenticate"] == (
        f'Bearer realm="api", error="insufficient_scope"{challenge}'
    )


def test_implied_scope_is_enough(call, settings):
    settings.APIKEYS_IMPLIED_SCOPES = {"write": ["read"]}

    response = call("get", "/customers/", "customers:write")

    assert response.status_code == 200


# --- A view that declares nothing ---------------------------------------------------------


def test_plain_is_authenticated_view_refuses_a_key_and_says_what_to_declare(call):
    response = call("get", "/undeclared/", "*")

    assert response.status_code == 403
    assert response.json() == {"detail": UNDECLARED, "code": "insufficient_scope"}


def test_plain_is_authenticated_view_lets_people_in(as_user):
    response = as_user.get("/undeclared/")

    assert response.json() == {"user": "ann"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("post", "/third-party/", 200),
        ("delete", "/by-action/", 204),
        ("get", "/action-wins/1/", 200),
        ("put", "/by-method/", 200),
    ],
)
def test_what_refuses_keys_is_open_to_people(method, path, status, as_user):
    response = getattr(as_user, method)(path)

    assert response.status_code == status


def test_view_of_a_third_party_refuses_a_key(call):
    response = call("post", "/third-party/", "*")

    assert response.status_code == 403
    assert response.json()["detail"] == UNDECLARED


def test_undeclared_views_may_be_allowed(call, settings):
    settings.APIKEYS_UNDECLARED_VIEWS = "allow"

    response = call("get", "/undeclared/")

    assert response.status_code == 200


def test_allowing_undeclared_views_opens_no_declared_one(call, settings):
    settings.APIKEYS_UNDECLARED_VIEWS = "allow"

    response = call("get", "/customers/")

    assert response.status_code == 403


def test_allowing_undeclared_views_opens_no_action_that_is_not_listed(call, settings):
    settings.APIKEYS_UNDECLARED_VIEWS = "allow"

    response = call("delete", "/by-action/", "*")

    assert response.status_code == 403


@pytest.mark.parametrize(
    "declare",
    [
        pytest.param(lambda scopes: scopes, id="alone"),
        pytest.param(lambda scopes: {"GET": scopes}, id="by method"),
    ],
)
def test_generator_declares_nothing_however_often_it_is_asked(declare, issue, rf):
    """One that is used up would open the view from the second request on."""
    required = declare(scope for scope in ["jobs:read"])
    view = views.Open.as_view(required_scopes=required)
    headers = bearer(issue(scopes=["*"]).secret)

    responses = [view(rf.get("/", headers=headers)) for _ in range(2)]

    assert [response.status_code for response in responses] == [403, 403]
    assert [response.data["detail"] for response in responses] == [UNDECLARED] * 2


# --- HasScope and HasAPIKey alone ---------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/customers/", "/open/", "/function/", "/keys-only/"])
def test_nobody_is_401(path, client):
    response = client.get(path)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("path", ["/customers/", "/open/", "/function/", "/by-method/"])
def test_has_scope_lets_any_other_authenticated_caller_in(path, as_user):
    response = as_user.get(path)

    assert response.status_code == 200


def test_has_api_key_lets_a_key_in(call):
    response = call("get", "/keys-only/")

    assert response.status_code == 200


def test_has_api_key_refuses_a_person(as_user):
    response = as_user.get("/keys-only/")

    assert response.status_code == 403
    assert response.json() == {"detail": "An API key is needed here."}


def test_has_scope_refuses_by_itself_where_the_view_hides_it(call):
    response = call("get", "/scope-by-get-permissions/", "customers:read")

    assert response.status_code == 403
    assert response.json() == {
        "detail": "This API key lacks a scope.",
        "code": "insufficient_scope",
    }


def test_has_scope_lets_a_key_in_where_the_view_hides_it(call):
    response = call("get", "/scope-by-get-permissions/", "customers:read", "jobs:write")

    assert response.status_code == 200


@pytest.mark.parametrize("scope", ["jobs", "jobs:*", "*", "", "jobs:read write", None, 5])
def test_has_scope_takes_scopes_alone(scope):
    with pytest.raises(ValueError, match="HasScope takes scopes of the form resource:action"):
        HasScope(scope)


# --- Compositions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "scopes", "status"),
    [
        ("/scope-or-authenticated/", ["jobs:read"], 200),
        ("/scope-or-authenticated/", ["jobs:write"], 403),
        ("/scope-or-authenticated/", [], 403),
        ("/scope-or-admin/", ["customers:read", "jobs:write"], 200),
        ("/scope-or-admin/", ["customers:read"], 403),
        ("/scope-or-admin/", ["jobs:write"], 403),
        ("/both-scopes/", ["jobs:read", "jobs:write"], 200),
        ("/both-scopes/", ["jobs:read"], 403),
        ("/both-scopes/", [], 403),
        ("/no-keys/", ["*"], 403),
        ("/not-writers/", ["jobs:read"], 200),
        ("/not-writers/", ["jobs:write"], 403),
        ("/objects/", ["customers:read", "jobs:write"], 200),
        ("/objects/", ["customers:read", "jobs:read", "jobs:write"], 200),
        ("/objects/", ["customers:read"], 200),
        ("/objects/", ["customers:read", "jobs:read"], 403),
    ],
)
def test_composition_asks_a_key(path, scopes, status, call):
    response = call("get", path, *scopes)

    assert response.status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/scope-or-authenticated/", 200),
        ("/scope-or-admin/", 200),
        ("/both-scopes/", 200),
        ("/no-keys/", 200),
        ("/not-writers/", 403),
        ("/either-declared/", 200),
    ],
)
def test_composition_asks_a_person(path, status, as_user):
    response = as_user.get(path)

    assert response.status_code == status


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path",
    ["/scope-or-authenticated/", "/scope-or-admin/", "/both-scopes/", "/no-keys/", "/objects/"],
)
def test_composition_answers_nobody_with_401(path, client):
    response = client.get(path)

    assert response.status_code == 401


def test_composition_that_refuses_is_permission_denied(call, settings):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "django_apikeys.drf.exceptions.exception_handler",
    }

    response = call("get", "/scope-or-admin/", "customers:read")

    assert response.status_code == 403
    assert response.json()["error"]["reason"] == "permission_denied"


def test_has_scope_or_is_authenticated_lets_no_key_past_its_scopes(call):
    response = call("get", "/scope-or-authenticated/", "customers:read")

    assert response.status_code == 403
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="api", error="insufficient_scope", scope="jobs:read"'
    )


@pytest.mark.parametrize("permission", [HasAPIKey, HasScope, HasScope("jobs:read")])
def test_permission_on_an_object_is_that_on_the_request(permission):
    request = views.Open().initialize_request(APIRequestFactory().get("/"))
    request.user, request.auth = AnonymousUser(), None

    assert permission().has_object_permission(request, views.Open(), object()) is False


def test_entry_of_a_composition_declares_nothing():
    composed = HasScope("jobs:read") | IsAuthenticated

    assert not hasattr(composed, "declared_scopes")
    assert HasScope("jobs:read").declared_scopes == ("jobs:read",)


def test_forced_user_passes_has_scope(client):
    client.force_authenticate(UserFactory.build())

    response = client.get("/function/")

    assert response.status_code == 200
