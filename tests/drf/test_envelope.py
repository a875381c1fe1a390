"""The shape that answers can be given: exception handler, renderer and paginator."""

import json

import pytest
from django.contrib.auth import get_user_model
from rest_framework import serializers
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.permissions import AllowAny
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_apikeys import services
from django_apikeys.drf.exceptions import as_api_exception, exception_handler
from django_apikeys.drf.pagination import Envelope, EnvelopePagination
from django_apikeys.drf.renderers import EnvelopeJSONRenderer
from django_apikeys.exceptions import BeyondCeiling, Conflict, InvalidInput, NotPermitted
from tests.conftest import bearer
from tests.factories import UserFactory


@pytest.fixture
def handled(settings):
    """The tests' project with our exception handler."""
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "EXCEPTION_HANDLER": "django_apikeys.drf.exceptions.exception_handler",
    }


# --- The exception handler ----------------------------------------------------------------


@pytest.mark.usefixtures("handled")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "status", "code", "reason", "message"),
    [
        ("parse-error", 400, "BAD_REQUEST", "parse_error", "Malformed request."),
        (
            "not-authenticated",
            401,
            "UNAUTHORIZED",
            "not_authenticated",
            "Authentication credentials were not provided.",
        ),
        (
            "authentication-failed",
            401,
            "UNAUTHORIZED",
            "authentication_failed",
            "Incorrect authentication credentials.",
        ),
        (
            "permission-denied",
            403,
            "FORBIDDEN",
            "permission_denied",
            "You do not have permission to perform this action.",
        ),
        ("denied", 403, "FORBIDDEN", "permission_denied", "Not you."),
        ("not-found", 404, "NOT_FOUND", "not_found", "Not found."),
        ("http404", 404, "NOT_FOUND", "not_found", "Nothing here."),
        (
            "method-not-allowed",
            405,
            "METHOD_NOT_ALLOWED",
            "method_not_allowed",
            'Method "GET" not allowed.',
        ),
        (
            "not-acceptable",
            406,
            "NOT_ACCEPTABLE",
            "not_acceptable",
            "Could not satisfy the request Accept header.",
        ),
        ("conflict", 409, "CONFLICT", "too_late", "Somebody was faster."),
        (
            "unsupported-media-type",
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "unsupported_media_type",
            'Unsupported media type "text/x" in request.',
        ),
        (
            "throttled",
            429,
            "TOO_MANY_REQUESTS",
            "throttled",
            "Request was throttled. Expected available in 42 seconds.",
        ),
        ("own-status", 499, "ERROR", "went_away", "The client went away."),
        (
            "api-exception",
            500,
            "INTERNAL_SERVER_ERROR",
            "error",
            "A server error occurred.",
        ),
        (
            "unavailable",
            503,
            "SERVICE_UNAVAILABLE",
            "unavailable",
            "API keys cannot be looked up at the moment. Try again later.",
        ),
    ],
)
def test_every_error_has_one_shape(client, name, status, code, reason, message):  # noqa: PLR0917
    response = client.get(f"/failing/{name}/")

    assert response.status_code == status
    assert response.json() == {"error": {"code": code, "reason": reason, "message": message}}


@pytest.mark.usefixtures("handled")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("validation", {"name": ["Too long."]}),
        ("validation-list", {"non_field_errors": ["Too long."]}),
        ("validation-text", {"non_field_errors": ["Too long."]}),
    ],
)
def test_validation_errors_have_their_fields(name, fields, client):
    response = client.get(f"/failing/{name}/")

    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "code": "BAD_REQUEST",
            "reason": "invalid",
            "message": "Invalid input.",
            "fields": fields,
        }
    }


@pytest.mark.usefixtures("handled")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "header", "value"),
    [("throttled", "Retry-After", "42"), ("unavailable", "Retry-After", "5")],
)
def test_headers_of_an_error_are_kept(name, header, value, client):
    response = client.get(f"/failing/{name}/")

    assert response.headers[header] == value


@pytest.mark.usefixtures("handled")
@pytest.mark.django_db
def test_error_with_many_details_has_the_reason_of_its_class(client):
    response = client.get("/failing/many-details/")

    assert response.json()["error"]["reason"] == "error"


@pytest.mark.usefixtures("handled")
@pytest.mark.django_db
def test_bug_is_not_handled(client):
    client.raise_request_exception = False

    response = client.get("/failing/runtime-error/")

    assert response.status_code == 500
    assert b'"error"' not in response.content


@pytest.mark.parametrize(
    ("status", "name"),
    [(413, "CONTENT_TOO_LARGE"), (414, "URI_TOO_LONG"), (422, "UNPROCESSABLE_CONTENT")],
)
def test_name_of_a_status_is_the_same_on_every_python(status, name):
    error = APIException()
    error.status_code = status

    response = exception_handler(error, {})

    assert response.status_code == status
    assert response.data["error"]["code"] == name


def test_bug_is_none_of_its_business():
    assert exception_handler(RuntimeError("A bug."), {}) is None


@pytest.mark.usefixtures("handled")
def test_dead_key_has_its_reason_and_challenge(issued, client):
    services.revoke_key(key=issued.key)

    response = client.get("/customers/", headers=bearer(issued.secret))

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith(
        'Bearer realm="api", error="invalid_token"'
    )
    assert response.json() == {
        "error": {
            "code": "UNAUTHORIZED",
            "reason": "revoked_key",
            "message": "Invalid or expired API key.",
        }
    }


@pytest.mark.usefixtures("handled")
def test_missing_scope_has_its_reason_and_message(issued, client):
    response = client.post("/customers/", headers=bearer(issued.secret))

    assert response.json() == {
        "error": {
            "code": "FORBIDDEN",
            "reason": "insufficient_scope",
            "message": "This API key lacks a scope: customers:write.",
        }
    }


@pytest.mark.usefixtures("handled")
def test_two_credentials_have_their_reason(issued, client):
    response = client.get("/open/", headers={**bearer(issued.secret), "X-API-Key": issued.secret})

    assert response.json()["error"]["code"] == "BAD_REQUEST"
    assert response.json()["error"]["reason"] == "invalid_request"


@pytest.mark.usefixtures("handled")
def test_scope_that_a_view_hides_has_its_reason(issued, client):
    response = client.get("/scope-by-get-permissions/", headers=bearer(issued.secret))

    assert response.json() == {
        "error": {
            "code": "FORBIDDEN",
            "reason": "insufficient_scope",
            "message": "This API key lacks a scope.",
        }
    }


@pytest.mark.usefixtures("handled")
def test_bad_input_to_the_management_api_has_its_fields(as_user):
    response = as_user.post("/api/keys/", {"name": "x", "scopes": ["jobs:fly"]})

    assert response.json()["error"]["fields"] == {"scopes": ["Unknown scope: 'jobs:fly'."]}


@pytest.mark.usefixtures("handled")
def test_change_of_a_revoked_key_has_its_reason(issued, as_user):
    services.revoke_key(key=issued.key)

    response = as_user.patch(f"/api/keys/{issued.key.pk}/", {"name": "new"})

    assert response.status_code == 409
    assert response.json() == {
        "error": {
            "code": "CONFLICT",
            "reason": "conflict",
            "message": "This key is revoked, for good.",
        }
    }


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (NotPermitted("No."), 403, "permission_denied", "No."),
        (
            BeyondCeiling({"scopes": ["jobs:write", "*"], "expires_at": ["never"]}),
            403,
            "beyond_ceiling",
            (
                "This is more than you may give to an API key: "
                "scopes (jobs:write, *), expires_at (never)."
            ),
        ),
        (
            BeyondCeiling({"scopes": ["a:b"] * 11}),
            403,
            "beyond_ceiling",
            (
                "This is more than you may give to an API key: "
                "scopes (a:b, a:b, a:b, a:b, a:b, a:b, a:b, a:b, a:b, a:b, …)."
            ),
        ),
        (Conflict("No."), 409, "conflict", "No."),
    ],
)
def test_change_that_is_refused_as_an_error_of_drf(error, status, code, detail):
    exception = as_api_exception(error)

    assert exception.status_code == status
    assert exception.detail == {"detail": detail, "code": code}
    assert not hasattr(exception, "auth_header")


def test_invalid_input_as_an_error_of_drf():
    exception = as_api_exception(InvalidInput({"name": "Too long.", "scopes": ["a", "b"]}))

    assert isinstance(exception, ValidationError)
    assert exception.detail == {"name": ["Too long."], "scopes": ["a", "b"]}


# --- The renderer -------------------------------------------------------------------------


class Says(APIView):
    permission_classes = [AllowAny]
    authentication_classes = []
    renderer_classes = [EnvelopeJSONRenderer]
    body: object = None
    status = 200

    def get(self, request):
        return Response(self.body, status=self.status)


@pytest.mark.parametrize(
    ("body", "status", "content"),
    [
        ({"a": 1}, 200, {"data": {"a": 1}}),
        ([1, 2], 200, {"data": [1, 2]}),
        ([], 200, {"data": []}),
        ("text", 201, {"data": "text"}),
        (None, 200, {"data": None}),
        ({"data": 1}, 200, {"data": {"data": 1}}),
        (Envelope(data=[1], meta={"page": 1}), 200, {"data": [1], "meta": {"page": 1}}),
        ({"error": {}}, 400, {"error": {}}),
        ({"detail": "x"}, 503, {"detail": "x"}),
    ],
)
def test_body_is_put_into_its_envelope(body, status, content):
    response = Says.as_view(body=body, status=status)(APIRequestFactory().get("/"))

    assert json.loads(response.render().content) == content


@pytest.mark.parametrize("status", [204, 304])
def test_answer_without_a_body_has_no_envelope(status):
    response = Says.as_view(status=status)(APIRequestFactory().get("/"))

    assert response.render().content == b""


def test_renderer_without_a_response_wraps_what_it_is_given():
    assert EnvelopeJSONRenderer().render({"a": 1}) == b'{"data":{"a":1}}'


# --- The paginator ------------------------------------------------------------------------


class UserSerializer(serializers.Serializer):
    username = serializers.CharField()


class Users(ListAPIView):
    permission_classes = [AllowAny]
    authentication_classes = []
    renderer_classes = [EnvelopeJSONRenderer]
    pagination_class = EnvelopePagination
    serializer_class = UserSerializer
    queryset = get_user_model().objects.order_by("pk")


@pytest.fixture
def page(db):
    """The answer to a query, from a list of 105 users."""
    get_user_model().objects.bulk_create(UserFactory.build_batch(105))

    def page(**query):
        response = Users.as_view()(APIRequestFactory().get("/", query)).render()
        return response.status_code, json.loads(response.content)

    return page


@pytest.mark.parametrize(
    ("query", "meta", "length"),
    [
        ({}, {"page": 1, "limit": 20, "total": 105}, 20),
        ({"page": 6}, {"page": 6, "limit": 20, "total": 105}, 5),
        ({"limit": 1}, {"page": 1, "limit": 1, "total": 105}, 1),
        ({"limit": 100}, {"page": 1, "limit": 100, "total": 105}, 100),
        ({"limit": 101}, {"page": 1, "limit": 100, "total": 105}, 100),
        ({"limit": 1000}, {"page": 1, "limit": 100, "total": 105}, 100),
        ({"limit": "9" * 5000}, {"page": 1, "limit": 100, "total": 105}, 100),
        ({"limit": "0005"}, {"page": 1, "limit": 5, "total": 105}, 5),
        ({"limit": 100, "page": 2}, {"page": 2, "limit": 100, "total": 105}, 5),
    ],
    ids=lambda value: str(value)[:30],
)
def test_page_says_where_it_stands(query, meta, length, page):
    status, body = page(**query)

    assert status == 200
    assert list(body) == ["data", "meta"]
    assert body["meta"] == meta
    assert len(body["data"]) == length


@pytest.mark.parametrize(
    "limit", ["", "0", "000", "-1", "+5", "1.5", "ten", "1e2", " 5", "\u0665", "\u00b2", "5\x00"]
)
def test_limit_that_is_no_number_is_400(limit, page):
    status, body = page(limit=limit)

    assert status == 400
    assert body == {"limit": ["A whole number from 1 to 100 is needed."]}


@pytest.mark.parametrize("number", ["7", "0", "-1", "one", "1.5", "9" * 5000, "\x00"])
def test_page_that_is_none_is_404(number, page):
    status, body = page(page=number)

    assert status == 404
    assert body == {"detail": "Invalid page."}


@pytest.mark.django_db
def test_first_page_of_nothing_is_empty():
    response = Users.as_view()(APIRequestFactory().get("/")).render()

    assert json.loads(response.content) == {
        "data": [],
        "meta": {"page": 1, "limit": 20, "total": 0},
    }


def test_results_are_found_for_the_browsable_api():
    assert EnvelopePagination().get_results({"data": [1], "meta": {}}) == [1]


def test_schema_of_a_page():
    items = {"type": "array", "items": {"type": "string"}}

    schema = EnvelopePagination().get_paginated_response_schema(items)

    meta = schema["properties"]["meta"]
    assert [number.pop("example") for number in meta["properties"].values()] == [1, 20, 143]
    assert all(number.pop("description") for number in meta["properties"].values())
    assert schema == {
        "type": "object",
        "required": ["data", "meta"],
        "properties": {
            "data": items,
            "meta": {
                "type": "object",
                "required": ["page", "limit", "total"],
                "properties": {
                    "page": {"type": "integer", "minimum": 1},
                    "limit": {"type": "integer", "minimum": 1, "maximum": 100},
                    "total": {"type": "integer", "minimum": 0},
                },
            },
        },
    }
