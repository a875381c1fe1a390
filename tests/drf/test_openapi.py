"""API keys in the schema of a project with REST framework's own errors and pages."""

import subprocess
import sys

import pytest
from django.apps import apps
from django.test import modify_settings
from django.urls import include, path
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.settings import patched_settings
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import serializers, versioning
from rest_framework.authentication import BasicAuthentication
from rest_framework.decorators import api_view, permission_classes
from rest_framework.permissions import AllowAny
from rest_framework.views import APIView

from django_apikeys.contrib.drf_spectacular import shapes
from django_apikeys.drf import serializers as inputs
from django_apikeys.drf.permissions import HasScope
from django_apikeys.drf.renderers import EnvelopeJSONRenderer
from django_apikeys.drf.views import APIKeyViewSet
from tests.documents import ROOT
from tests.example_project.children import environment

VERSIONED = "application/json; version=1"


class Order(serializers.Serializer):
    number = serializers.IntegerField()


class OwnAutoSchema(AutoSchema):
    """That of a project, which says something of its own."""

    def get_operation(self, *args, **kwargs):
        operation = super().get_operation(*args, **kwargs)
        return operation and {**operation, "x-own": True}


class Orders(APIView):
    scope_resource = "customers"

    @extend_schema(responses=Order, description="The order.")
    def get(self, request):
        """Never called."""


class OwnSchema(Orders):
    schema = OwnAutoSchema()


class Undeclared(Orders):
    scope_resource = None


class NoKeys(Orders):
    authentication_classes = (BasicAuthentication,)


class Unlimited(Orders):
    throttle_classes = ()


class Anonymous(Orders):
    permission_classes = (AllowAny,)


class Excluded(Orders):
    @extend_schema(exclude=True)
    def get(self, request):
        """Never called."""


class SaysItself(Orders):
    @extend_schema(responses={200: Order, 403: OpenApiResponse(description="Mine.")})
    def get(self, request):
        """Never called."""


def own_handler(exc, context):
    """What a project tells of errors, which nobody knows."""


class OwnErrors(Orders):
    def get_exception_handler(self):
        return own_handler


class InEnvelope(Orders):
    renderer_classes = (EnvelopeJSONRenderer,)
    versioning_class = versioning.AcceptHeaderVersioning

    @extend_schema(
        responses=Order,
        examples=[
            OpenApiExample("One", value={"number": 1}, media_type=VERSIONED),
            OpenApiExample(
                "Elsewhere",
                external_value="https://example.com/order.json",
                media_type=VERSIONED,
            ),
        ],
    )
    def get(self, request):
        """Never called."""

    @extend_schema(request=None, responses={201: {"$ref": "#/components/schemas/Elsewhere"}})
    def post(self, request):
        """Never called."""

    @extend_schema(request=None, responses={200: {"type": "object", "properties": {"data": {}}}})
    def put(self, request):
        """Never called."""


def schema_of(view=None, **settings):
    routes = [path("api/", include("django_apikeys.drf.urls"))]
    if view:
        routes = [path("orders/", view.as_view())]
    with patched_settings(settings):
        return SchemaGenerator(patterns=routes, api_version="1").get_schema(public=True)


@pytest.fixture(scope="module")
def schema():
    """That of the management API."""
    return schema_of(OAS_VERSION="3.1.1")


def operation_of(view, method="get", **settings):
    return schema_of(view, **settings)["paths"]["/orders/"][method]


def test_a_view_says_what_a_key_needs():
    operation = operation_of(Orders)

    assert operation["description"] == ("The order.\n\nScopes of an API key: `customers:read`.")
    assert operation["security"][0] == {"apiKeyBearer": []}
    assert sorted(operation["responses"]) == ["200", "401", "403", "429"]
    assert operation["responses"]["403"]["content"]["application/json"]["examples"] == {
        "insufficient_scope": {
            "value": {
                "detail": "This API key lacks a scope: customers:read.",
                "code": "insufficient_scope",
            }
        },
        "address_not_allowed": {
            "value": {
                "detail": "This API key may not be used from this address.",
                "code": "address_not_allowed",
            }
        },
    }


def test_an_autoschema_of_the_project_goes_on_working():
    operation = operation_of(OwnSchema)

    assert operation["x-own"] is True
    assert operation["description"].endswith("Scopes of an API key: `customers:read`.")


def test_a_view_that_declares_nothing_says_that_keys_are_refused():
    operation = operation_of(Undeclared)

    assert operation["description"] == "The order.\n\nAPI keys are refused here."
    assert [*operation["security"]] == [{"basicAuth": []}, {"cookieAuth": []}]
    assert sorted(operation["responses"]) == ["200", "401", "403"]


def test_a_view_without_our_class_is_left_alone():
    operation = operation_of(NoKeys)

    assert operation["description"] == "The order."
    assert sorted(operation["responses"]) == ["200"]


def test_what_the_project_leaves_out_is_left_out():
    kept = ["rest_framework.authentication.BasicAuthentication"]

    operation = operation_of(Orders, AUTHENTICATION_WHITELIST=kept)

    assert operation["security"] == [{"basicAuth": []}]
    assert operation["description"] == "The order."


def test_an_operation_that_is_excluded_stays_so():
    assert schema_of(Excluded)["paths"] == {}


def test_a_view_that_counts_nothing_has_no_429():
    operation = operation_of(Unlimited)

    assert sorted(operation["responses"]) == ["200", "401", "403"]
    assert "headers" not in operation["responses"]["200"]


def test_a_view_that_is_open_to_all_stays_so():
    assert operation_of(Anonymous)["security"][-1] == {}


def test_what_the_project_says_of_an_answer_is_left_alone():
    assert operation_of(SaysItself)["responses"]["403"] == {"description": "Mine."}


def test_of_errors_that_the_project_tells_itself_nothing_is_known_but_the_headers():
    answers = operation_of(OwnErrors)["responses"]

    assert "content" not in answers["401"]
    assert [*answers["401"]["headers"]] == ["WWW-Authenticate"]


class TestEnvelope:
    def test_a_body_is_in_it(self):
        content = operation_of(InEnvelope)["responses"]["200"]["content"]

        assert content[VERSIONED] == {
            "schema": {"$ref": "#/components/schemas/OrderEnvelope"},
            "examples": {
                "One": {"value": {"data": {"number": 1}}},
                "Elsewhere": {"externalValue": "https://example.com/order.json"},
            },
        }

    def test_a_component_of_the_settings_is_in_it(self):
        schema = schema_of(InEnvelope)

        assert schema["components"]["schemas"]["ElsewhereEnvelope"] == {
            "type": "object",
            "required": ["data"],
            "properties": {"data": {"$ref": "#/components/schemas/Elsewhere"}},
        }

    def test_what_is_described_in_it_is_not_put_into_another(self):
        content = operation_of(InEnvelope, "put")["responses"]["200"]["content"]

        assert content[VERSIONED]["schema"] == {
            "type": "object",
            "properties": {"data": {}},
        }


class TestManagement:
    def content(self, schema, route, method, status):
        answers = schema["paths"][f"/api/{route}"][method]["responses"]
        return answers[status]["content"]["application/json"]

    def test_without_the_envelope_answers_are_bare(self, schema):
        assert self.content(schema, "keys/", "post", "201")["schema"] == {
            "$ref": "#/components/schemas/APIKeyWithSecret"
        }
        assert self.content(schema, "scopes/", "get", "200")["schema"] == {
            "type": "array",
            "items": {"$ref": "#/components/schemas/APIKeyScope"},
        }

    def test_lists_are_pages_all_the_same(self, schema):
        assert self.content(schema, "keys/", "get", "200")["schema"] == {
            "$ref": "#/components/schemas/PaginatedAPIKeyList"
        }

    @pytest.mark.parametrize(
        ("status", "body", "example"),
        [
            pytest.param("400", "InvalidInput", {"allowed_ip": ["Unknown field."]}, id="400"),
            pytest.param(
                "409",
                "Refusal",
                {
                    "detail": "This owner has as many API keys as there may be.",
                    "code": "conflict",
                },
                id="409",
            ),
        ],
    )
    def test_errors_are_as_rest_framework_tells_them(self, status, body, example, schema):
        content = self.content(schema, "keys/", "post", status)

        assert content["schema"] == {"$ref": f"#/components/schemas/{body}"}
        assert [found["value"] for found in content["examples"].values()] == [example]

    def test_what_rest_framework_says_itself_has_no_code(self, schema):
        examples = self.content(schema, "keys/{id}/", "get", "404")["examples"]

        assert examples == {"not_found": {"value": {"detail": "Not found."}}}

    def test_ids_of_owners_and_users_are_of_their_type(self, schema):
        schemas = schema["components"]["schemas"]

        assert schemas["APIKeyOwner"]["properties"]["id"]["type"] == "integer"
        assert [
            kind["type"] for kind in schemas["APIKeyEventActor"]["properties"]["id"]["oneOf"]
        ] == [
            "integer",
            "string",
            "null",
        ]


class OwnKeys(APIKeyViewSet):
    """A project's own, with other scopes."""

    required_scopes = ("customers:read",)

    @extend_schema(operation_id="mine", responses={204: None})
    def list(self, request):
        """Never called."""


def test_a_view_of_the_project_says_its_own_and_the_rest_is_described():
    view = OwnKeys.as_view({"get": "list", "post": "create"})
    schema = SchemaGenerator(patterns=[path("mine/", view)]).get_schema(public=True)

    own, described = (schema["paths"]["/mine/"][method] for method in ("get", "post"))
    assert (own["operationId"], described["operationId"]) == ("mine", "apikeys_create")
    assert described["description"].endswith("Scopes of an API key: `customers:read`.")
    assert "409" in described["responses"]


@api_view(["GET"])
@permission_classes([HasScope("jobs:read")])
def function_view(request):
    """Never called."""


def test_a_function_says_what_a_key_needs():
    described = extend_schema(responses=Order)(function_view)
    schema = SchemaGenerator(patterns=[path("jobs/", described)]).get_schema(public=True)

    operation = schema["paths"]["/jobs/"]["get"]
    assert operation["description"].endswith("Scopes of an API key: `jobs:read`.")
    assert {"apiKeyHeader": []} in operation["security"]


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        (shapes.NewKey, inputs.NewKeyInput),
        (shapes.Rotation, inputs.RotateInput),
        (shapes.WhyReason, inputs.ReasonInput),
        (shapes.Revocation, inputs.RevokeInput),
        (shapes.Reveal, inputs.RevealInput),
    ],
)
@pytest.mark.parametrize("requires_name", [True, False])
def test_a_body_has_the_fields_that_are_read(shape, read, requires_name, settings):
    settings.APIKEYS_REQUIRE_NAME = requires_name

    def facts(serializer):
        return {
            name: (field.required, field.allow_null) for name, field in serializer.fields.items()
        }

    assert facts(shape()) == facts(read())


def test_a_change_has_the_fields_that_are_read():
    assert {*shapes.ChangedKey().fields} == {*inputs.ChangedKeyInput().fields}
    assert not any(field.required for field in shapes.ChangedKey().fields.values())


@modify_settings(INSTALLED_APPS={"remove": "drf_spectacular"})
def test_the_app_is_ready_without_drf_spectacular():
    assert not apps.is_installed("drf_spectacular")


def test_nothing_of_drf_spectacular_is_imported_where_it_is_not_installed():
    code = (
        "import sys, django; from tests import settings;"
        "settings.INSTALLED_APPS.remove('drf_spectacular');"
        "settings.REST_FRAMEWORK.pop('DEFAULT_SCHEMA_CLASS'); django.setup();"
        "from django.urls import reverse; reverse('apikeys:key-list');"
        "print([name for name in sys.modules if 'spectacular' in name])"
    )
    done = subprocess.run(  # noqa: S603 - this very project
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment({"DJANGO_SETTINGS_MODULE": "tests.settings"}),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("model", "of_a_person", "of_an_actor"),
    [
        pytest.param(
            "auth.User",
            {"type": "integer"},
            {"oneOf": [{"type": "integer"}, {"type": "string"}]},
            id="number",
        ),
        pytest.param(
            "django_apikeys.APIKey",
            {"type": "string", "format": "uuid"},
            {"oneOf": [{"type": "string", "format": "uuid"}, {"type": "string"}]},
            id="UUID",
        ),
        pytest.param("sessions.Session", {"type": "string"}, {"type": "string"}, id="text"),
    ],
)
def test_an_id_is_described_by_the_primary_key(model, of_a_person, of_an_actor, settings):
    settings.AUTH_USER_MODEL = model

    assert shapes.Person().fields["id"].schema() == of_a_person
    assert shapes.EventActor().fields["id"].schema() == of_an_actor
