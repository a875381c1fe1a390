"""The OpenAPI schema of the example: what it says, and that each answer is as it says."""

import re
from datetime import datetime

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.settings import patched_settings
from jsonschema import Draft202012Validator, FormatChecker

from tests.example_project.children import manage
from tests.example_project.test_walk import CELLS, caller_named, send, target  # noqa: F401 - fixtures

SCHEMES = {"apiKeyBearer", "apiKeyAuthorization", "apiKeyHeader", "apiKeyBasic"}


def generate(version="3.1.1"):
    with patched_settings({"OAS_VERSION": version}):
        return SchemaGenerator().get_schema(request=None, public=True)


def operations_of(schema):
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


@pytest.fixture(scope="module")
def schema():
    return generate()


@pytest.mark.parametrize("version", ["3.0.3", "3.1.1"])
def test_the_schema_is_valid_and_nothing_is_to_be_said_of_it(version, tmp_path):
    file = tmp_path / "schema.yaml"
    settings = tmp_path / "of_a_version.py"
    settings.write_text(
        "from example_project.settings import *\n"
        f"SPECTACULAR_SETTINGS['OAS_VERSION'] = '{version}'\n"
    )

    done = manage(
        *("spectacular", "--validate", "--fail-on-warn", "--file", file),
        *("--settings", "of_a_version", "--pythonpath", tmp_path),
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert file.read_text(encoding="utf-8").startswith(f"openapi: {version}")


def test_each_way_to_send_a_key_has_a_scheme(schema):
    schemes = schema["components"]["securitySchemes"]

    found = {
        name: {
            key: schemes[name][key]
            for key in ("type", "scheme", "in", "name")
            if key in schemes[name]
        }
        for name in SCHEMES
    }
    assert found == {
        "apiKeyBearer": {"type": "http", "scheme": "bearer"},
        "apiKeyAuthorization": {"type": "apiKey", "in": "header", "name": "Authorization"},
        "apiKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "apiKeyBasic": {"type": "http", "scheme": "basic"},
    }


def test_a_way_that_is_switched_off_has_none(settings):
    settings.APIKEYS_CREDENTIALS = ["x-api-key"]

    schema = generate()

    assert SCHEMES & {*schema["components"]["securitySchemes"]} == {"apiKeyHeader"}
    assert schema["paths"]["/api/v1/customers/"]["get"]["security"] == [
        {"apiKeyHeader": ["customers:read"]},
        {"basicAuth": []},
        {"cookieAuth": []},
    ]


@pytest.mark.parametrize(("version", "scopes"), [("3.0.3", []), ("3.1.1", ["customers:write"])])
def test_scopes_stand_in_the_requirement_where_openapi_lets_them(version, scopes):
    operation = generate(version)["paths"]["/api/v1/customers/"]["post"]

    assert operation["security"][:4] == [
        {"apiKeyBearer": scopes},
        {"apiKeyAuthorization": scopes},
        {"apiKeyHeader": scopes},
        {"apiKeyBasic": scopes},
    ]


def test_scopes_stand_in_the_text_and_in_the_403(schema):
    operation = schema["paths"]["/api/v1/customers/"]["post"]

    assert operation["description"].endswith("\n\nScopes of an API key: `customers:write`.")
    answer = operation["responses"]["403"]
    assert "`customers:write`" in answer["description"]
    assert answer["content"]["application/json"]["examples"]["insufficient_scope"] == {
        "value": {
            "error": {
                "code": "FORBIDDEN",
                "reason": "insufficient_scope",
                "message": "This API key lacks a scope: customers:write.",
            }
        }
    }


def test_each_operation_says_how_it_refuses(schema):
    for method, path, operation in operations_of(schema):
        answers = operation["responses"]
        assert {"401", "403", "429"} <= {*answers} or path.endswith("/keys/self/revoke/"), path
        assert [*answers["401"]["headers"]] == ["WWW-Authenticate"], (method, path)
        if "429" in answers and not path.endswith("/reveal/"):
            assert [*answers["429"]["headers"]] == ["Retry-After", "RateLimit", "RateLimit-Policy"]


def test_headers_are_described(schema):
    assert sorted(schema["components"]["headers"]) == [
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "WWW-Authenticate",
    ]


def test_no_key_is_asked_for_where_none_gets_in(schema):
    """A secret is shown again to people alone."""
    operation = schema["paths"]["/api/v1/keys/{id}/reveal/"]["post"]

    assert operation["security"] == [{"basicAuth": []}, {"cookieAuth": []}]
    assert operation["description"].endswith("\n\nAPI keys are refused here.")


def test_nobody_but_a_key_is_asked_where_no_person_gets_in(schema):
    operation = schema["paths"]["/api/v1/keys/self/"]["get"]

    assert operation["security"] == [
        {"apiKeyBearer": []},
        {"apiKeyAuthorization": []},
        {"apiKeyHeader": []},
        {"apiKeyBasic": []},
    ]
    assert operation["description"].endswith("\n\nAn API key needs no scope.")


def described(node):
    """Yield each property of *node*, and of all that is within it, with its name."""
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            yield name, value
        for value in node.values():
            yield from described(value)


def test_each_field_of_the_management_api_is_described(schema):
    ours = {
        name: component
        for name, component in schema["components"]["schemas"].items()
        if "APIKey" in name and not name.endswith("Envelope")
    }

    fields = [(name, *field) for name, part in ours.items() for field in described(part)]
    bare = [
        (component, name)
        for component, name, field in fields
        if "description" not in field and name not in ("data", "meta")
    ]

    assert len(fields) > 100
    assert bare == []


def test_each_parameter_and_each_body_of_the_management_api_is_described(schema):
    for method, path, operation in operations_of(schema):
        if operation["tags"] == ["API keys"]:
            bodies = [operation.get("requestBody"), *operation["responses"].values()]
            contents = [
                body["content"]["application/json"]
                for body in bodies
                if body and "content" in body
            ]
            assert all("examples" in content for content in contents), (method, path)
            assert all("description" in given for given in operation.get("parameters", ())), path
            assert operation["summary"], path


def closed(node):
    """Return *node*, in which no object may have a field that is not described."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: closed(value) for name, value in node.items()}
    return {**found, "additionalProperties": False} if "properties" in node else found


FORMATS = FormatChecker(["uuid", "email", "date"])


@FORMATS.checks("date-time", raises=ValueError)
def is_moment(value):
    """In UTC, as all that the API says is; other types than texts are not asked about."""
    return not isinstance(value, str) or (
        datetime.fromisoformat(value).tzinfo is not None and value.endswith("Z")
    )


def problems(schema, part, value):
    document = {**closed(part), "components": closed(schema["components"])}
    validator = Draft202012Validator(document, format_checker=FORMATS)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


@pytest.mark.usefixtures("retrievable")
@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, id=cell.id) for cell in CELLS if not cell.id.startswith("OPTIONS")],
)
def test_each_answer_is_as_it_is_described(cell, caller_named, target, schema):  # noqa: F811 - the fixture
    """Every call of the management API, by everybody: its status, its headers, each field."""
    call, name, status = cell.values
    method, _, path = call.partition("?")[0].partition(" ")
    operation = schema["paths"][f"/api/v1/{path}"][method.lower()]

    answer = send(caller_named(name).client, call, target)

    described = operation["responses"][str(status)]
    if "content" in described:
        part = described["content"]["application/json"]["schema"]
        assert problems(schema, part, answer.json()) == []
    else:
        assert answer.content == b""
    assert ("WWW-Authenticate" in answer.headers) <= (
        "WWW-Authenticate" in described.get("headers", ())
    )


def test_each_example_is_as_it_is_described(schema):
    for method, path, operation in operations_of(schema):
        for body in (operation.get("requestBody", {}), *operation["responses"].values()):
            for content in body.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    assert problems(schema, content["schema"], example["value"]) == [], (
                        method,
                        path,
                    )


def test_each_answer_of_the_crm_is_in_its_envelope(schema, program):
    client = program("customers:*")
    path = schema["paths"]["/api/v1/customers/"]

    made = client.post("/api/v1/customers/", {"name": "Ann", "email": "ann@example.com"})
    found = client.get("/api/v1/customers/")

    for method, answer in (("post", made), ("get", found)):
        content = path[method]["responses"][str(answer.status_code)]["content"]
        assert problems(schema, content["application/json"]["schema"], answer.json()) == []


def test_the_schema_and_its_page_are_served_to_everybody(client):
    schema = client.get("/api/schema/")
    page = client.get("/api/docs/")
    script = client.get("/api/docs/?script=")

    assert [answer.status_code for answer in (schema, page, script)] == [200, 200, 200]
    assert schema.content.startswith(b"openapi: 3.1.1")
    text = page.content.decode()
    # Nothing from another server, and no script in the page itself.
    assert re.findall(r'(?:src|href)="(?!/)[^"]*"', text) == []
    assert re.findall(r"<script>", text) == []
    assert "script-src 'self';" in page.headers["Content-Security-Policy"]
