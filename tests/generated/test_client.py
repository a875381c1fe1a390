"""A client that openapi-python-client makes of the schema, calling the example that runs."""

import importlib
import sys

import pytest

from example_project.crm.demo.client import Client
from tests.browser.site import HOST, filled, running
from tests.example_project.children import python


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("generated")


@pytest.fixture(scope="module")
def site(directory):
    with running(directory, filled(directory)) as site:
        yield site


@pytest.fixture(scope="module")
def generated(directory, site):
    """Generate the client from what the site serves, and return how to import from it."""
    schema, settings = directory / "schema.json", directory / "settings.yaml"
    served = Client(HOST, site.port).call("GET", "/api/schema/?format=json")
    schema.write_text(served.text, encoding="utf-8")
    # Nothing is run over what it has written.
    settings.write_text("post_hooks: []\n", encoding="utf-8")
    done = python(
        *("-m", "openapi_python_client", "generate", "--path", schema, "--config", settings),
        *("--meta", "none", "--output-path", directory / "crm_client", "--fail-on-warning"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory))
    yield lambda name: importlib.import_module(f"crm_client.{name}")
    sys.path.remove(str(directory))


@pytest.fixture
def call(generated, site):
    """Call an operation by the name of its module, with a key that manages keys."""
    client = generated("client").AuthenticatedClient(
        base_url=site.url, token=site.keys["busy"]["secret"], raise_on_unexpected_status=True
    )

    def call(operation, *arguments, **options):
        module = generated(f"api.api_keys.apikeys_{operation}")
        return module.sync_detailed(*arguments, client=client, **options)

    with client:
        yield call


@pytest.fixture
def models(generated):
    return generated("models")


def test_a_key_is_created_listed_rotated_and_revoked(call, models, site):
    wanted = models.NewAPIKey(name="Generated", scopes=["customers:read"], rate_limit="60/m")
    made = call("create", body=wanted)
    assert made.status_code == 201
    key = made.parsed.data
    assert (key.name, key.status, key.scopes) == ("Generated", "active", ["customers:read"])
    assert site.call(key.secret) == 200

    listed = call("list", search="Generated", status=models.ApikeysListStatus.ACTIVE).parsed
    assert [(found.id, found.public_id) for found in listed.data] == [(key.id, key.public_id)]
    assert (listed.meta.page, listed.meta.total) == (1, 1)

    rotated = call("rotate", key.id, body=models.APIKeyRotation(grace_seconds=60))
    assert rotated.status_code == 201
    new = rotated.parsed.data
    assert (new.id, new.previous_secret.masked) == (key.id, key.masked)
    assert new.previous_secret.valid_until.tzinfo is not None
    assert (site.call(key.secret), site.call(new.secret)) == (200, 200)

    revoked = call("revoke", key.id, body=models.APIKeyRevocation(reason="It was a test."))
    assert revoked.status_code == 200
    assert (revoked.parsed.data.status, revoked.parsed.data.revoked_reason) == (
        "revoked",
        "It was a test.",
    )
    assert (site.call(key.secret), site.call(new.secret)) == (401, 401)


def test_a_key_is_read_changed_and_deleted(call, models):
    made = call("create", body=models.NewAPIKey(name="Changed", rate_limit="60/m")).parsed.data

    changed = call("partial_update", made.id, body=models.PatchedAPIKeyChanges(enabled=False))
    assert changed.parsed.data.status == "disabled"
    assert call("retrieve", made.id).parsed.data.enabled is False
    events = call("key_events_list", made.id).parsed.data
    assert [event.type_ for event in events] == ["updated", "created"]
    assert events[0].changes["enabled"] == [True, False]
    assert call("key_usage_retrieve", made.id).parsed.data.totals.requests == 0
    assert call("destroy", made.id).status_code == 204
    assert call("retrieve", made.id).status_code == 404


def test_errors_are_read(call, models):
    unknown = call("create", body=models.NewAPIKey(name="", rate_limit="much")).parsed.error
    beyond = call("create", body=models.NewAPIKey(name="More", scopes=["invoices:read"])).parsed

    assert (unknown.code, unknown.reason) == ("BAD_REQUEST", "invalid")
    assert sorted(unknown.fields.additional_properties) == ["name", "rate_limit"]
    assert (beyond.error.code, beyond.error.reason) == ("FORBIDDEN", "beyond_ceiling")


def test_the_rest_of_the_management_api_is_read(call):
    assert {scope.name for scope in call("scopes_list").parsed.data} >= {"customers:read"}
    assert call("account_retrieve").parsed.data.plan is not None
    assert call("self_retrieve").parsed.data.name == "Busy"
    assert call("events_list").parsed.meta.page == 1
