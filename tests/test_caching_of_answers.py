"""No cache hands one key's answer to another caller, or outlives a revoke."""

import pytest
from django.core.cache import cache

from django_apikeys import services
from tests.conftest import bearer

pytestmark = pytest.mark.usefixtures("empty_cache")

SITE_WIDE = "/told/"
PATHS = [
    "/cached/around/",
    "/cached/dispatch/",
    "/cached/get/",
    "/cached/plain-get/",
    "/cached/list/",
    "/cached/api-view-over/",
    "/cached/api-view-under/",
    "/cached/public/",
    "/cached/public-within/",
    SITE_WIDE,
]


@pytest.fixture
def empty_cache():
    cache.clear()
    yield
    cache.clear()


@pytest.fixture(params=PATHS)
def path(request, settings):
    """The path of a view that Django caches: by a decorator, or with the whole site."""
    if request.param == SITE_WIDE:
        settings.MIDDLEWARE = [
            "django.middleware.cache.UpdateCacheMiddleware",
            *settings.MIDDLEWARE,
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
    return request.param


@pytest.fixture
def other(issue):
    return issue(name="another key", scopes=["customers:read"])


def public_id(issued):
    return issued.key.current_secret.public_id


# Not the view that answers with Django's own response under a cache of its method: what
# that cache stores of a session or of nobody, without Vary, it gives to everyone.
of_answers_with_vary = pytest.mark.parametrize(
    "path", [path for path in PATHS if path != "/cached/plain-get/"], indirect=True
)
headers_of = pytest.mark.parametrize(
    "headers",
    [
        pytest.param(bearer, id="bearer"),
        pytest.param(lambda secret: {"X-API-Key": secret}, id="x-api-key"),
    ],
)


@headers_of
def test_answer_to_a_key_is_not_given_to_another_key(path, headers, issued, other, client):
    client.get(path, headers=headers(issued.secret))

    response = client.get(path, headers=headers(other.secret))

    assert response.json()["key"] == public_id(other)


@headers_of
def test_answer_to_a_key_is_not_given_to_nobody(path, headers, issued, client):
    client.get(path, headers=headers(issued.secret))

    response = client.get(path)

    assert response.json()["key"] is None
    assert response.json()["user"] == ""


@headers_of
def test_answer_to_a_key_is_not_given_to_a_session(path, headers, issued, client, as_user):
    client.get(path, headers=headers(issued.secret))

    response = as_user.get(path)

    assert response.json()["key"] is None


@headers_of
def test_answer_to_a_key_is_not_given_to_the_key_itself_again(path, headers, issued, client):
    first = client.get(path, headers=headers(issued.secret))

    second = client.get(path, headers=headers(issued.secret))

    assert first.json()["number"] != second.json()["number"]


@headers_of
def test_answer_to_a_key_does_not_outlive_its_revoke(path, headers, issued, client):
    client.get(path, headers=headers(issued.secret))
    services.revoke_key(key=issued.key)

    response = client.get(path, headers=headers(issued.secret))

    assert response.status_code == 401
    assert response.json()["code"] == "revoked_key"


@of_answers_with_vary
def test_answer_to_nobody_is_not_given_to_a_key(path, issued, client):
    client.get(path)

    response = client.get(path, headers=bearer(issued.secret))

    assert response.json()["key"] == public_id(issued)


@of_answers_with_vary
def test_answer_to_a_session_is_not_given_to_a_key_beside_it(path, issued, as_user):
    as_user.get(path)

    response = as_user.get(path, headers=bearer(issued.secret))

    assert response.json()["key"] == public_id(issued)


def test_answer_to_a_head_request_is_not_stored(path, issued, client):
    client.head(path, headers=bearer(issued.secret))

    response = client.get(path)

    assert response.json()["key"] is None


def test_answer_to_nobody_is_still_cached_for_nobody(path, issued, client):
    first = client.get(path)
    client.get(path, headers=bearer(issued.secret))

    second = client.get(path)

    assert first.json()["user"] == ""
    assert first.json()["number"] == second.json()["number"]


def test_refusal_is_not_stored(path, issued, client):
    services.revoke_key(key=issued.key)
    client.get(path, headers=bearer(issued.secret))

    response = client.get(path)

    assert response.status_code == 200


def test_refused_key_is_not_given_what_nobody_was_given(path, issued, client):
    services.revoke_key(key=issued.key)
    client.get(path)

    response = client.get(path, headers=bearer(issued.secret))

    assert response.status_code == 401


# --- The headers --------------------------------------------------------------------------


def varies_by(response):
    return {name.strip() for name in response.headers["Vary"].split(",")}


def cache_control(response):
    return set(response.headers.get("Cache-Control", "").split(", "))


TO_A_KEY = [
    pytest.param("/customers/", "get", 200, id="success"),
    pytest.param("/customers/", "head", 200, id="head"),
    pytest.param("/customers/", "options", 200, id="options"),
    pytest.param("/failing/http404/", "get", 404, id="not-found"),
    pytest.param("/failing/parse-error/", "get", 400, id="bad-input"),
    pytest.param("/function/", "post", 405, id="method"),
]
REFUSED = [
    pytest.param("/by-method/", "post", 403, id="scope"),
    pytest.param("/undeclared/", "get", 403, id="undeclared"),
    pytest.param("/scope-or-admin/", "get", 403, id="composition"),
    pytest.param("/failing/denied/", "get", 403, id="denied-by-the-view"),
    pytest.param("/failing/throttled/", "get", 429, id="throttled"),
]


@pytest.fixture
def reader(issue):
    return issue(scopes=["customers:read", "jobs:read"])


@pytest.mark.parametrize(("path", "method", "status"), TO_A_KEY)
def test_answer_to_a_key_is_private_and_varies(path, method, status, reader, client):
    response = getattr(client, method)(path, headers=bearer(reader.secret))

    assert response.status_code == status
    assert cache_control(response) == {"private"}
    assert varies_by(response) >= {"Authorization", "X-API-Key"}


@pytest.mark.parametrize(("path", "method", "status"), REFUSED)
def test_refusal_of_a_key_is_stored_nowhere_and_varies(path, method, status, reader, client):
    response = getattr(client, method)(path, headers=bearer(reader.secret))

    assert response.status_code == status
    assert cache_control(response) == {"no-store"}
    assert varies_by(response) >= {"Authorization", "X-API-Key"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param(lambda text: {}, 401, id="no-credential"),
        pytest.param(lambda text: bearer(text[:-1]), 401, id="malformed"),
        pytest.param(lambda text: {**bearer(text), "X-API-Key": text}, 400, id="two-credentials"),
    ],
)
def test_refusal_without_a_key_is_stored_nowhere_and_varies(headers, status, issued, client):
    response = client.get("/customers/", headers=headers(issued.secret))

    assert response.status_code == status
    assert cache_control(response) == {"no-store"}
    assert varies_by(response) >= {"Authorization", "X-API-Key"}


def test_answer_to_nobody_varies_and_may_be_stored(client, db):
    response = client.get("/public/")

    assert response.status_code == 200
    assert "Cache-Control" not in response.headers
    assert varies_by(response) >= {"Authorization", "X-API-Key"}


def test_answer_to_a_session_varies(as_user):
    response = as_user.get("/customers/")

    assert response.status_code == 200
    assert varies_by(response) >= {"Authorization", "X-API-Key", "Cookie"}


@pytest.mark.parametrize("path", ["/customers/", "/function/"])
def test_refusal_of_a_method_to_a_session_varies(path, as_user):
    response = as_user.options(path) if path == "/customers/" else as_user.post(path)

    assert varies_by(response) >= {"Authorization", "X-API-Key"}


def test_stricter_header_of_the_view_is_kept(issued, client):
    response = client.get("/told-strictly/", headers=bearer(issued.secret))

    assert cache_control(response) == {"no-store", "max-age=0"}


def test_laxer_header_of_the_view_is_not(issued, client):
    response = client.get("/told-publicly/", headers=bearer(issued.secret))

    assert cache_control(response) == {"private", "max-age=60"}
