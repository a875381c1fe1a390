"""The API in another language: texts for people change with it, what programs read does not."""

import pytest
from django.utils.translation import gettext_lazy

from tests.conftest import bearer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("languages")]


def german(secret):
    return {**bearer(secret), "Accept-Language": "de"}


def test_message_of_a_refused_key_is_the_same_in_every_language(client, issue):
    """It is to the letter of the contract."""
    secret = issue(enabled=False).secret
    answer = client.get("/customers/", headers=german(secret))

    assert answer.status_code == 401
    assert answer.json() == {"detail": "Invalid or expired API key.", "code": "disabled_key"}
    assert 'error_description="Invalid or expired API key."' in answer["WWW-Authenticate"]


def test_what_lacks_is_told_in_the_language_and_in_a_code(client, issue):
    answer = client.get("/customers/", headers=german(issue(scopes=["jobs:read"]).secret))

    assert answer.status_code == 403
    assert answer.json() == {
        "detail": "Diesem API-Schlüssel fehlt ein Scope: customers:read.",
        "code": "insufficient_scope",
    }
    assert answer["Content-Language"] == "de"
    assert {name.strip() for name in answer["Vary"].split(",")} >= {
        "Authorization",
        "X-API-Key",
        "Accept-Language",
    }


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"allowed_ips": ["127.0.0.1"]}, "allowed_ips (überall)"),
        ({"expires_at": "2100-01-01T00:00:00Z"}, "expires_at (nie)"),
        ({"rate_limit": "5/m"}, "rate_limit (unbegrenzt)"),
    ],
)
def test_what_is_beyond_the_ceiling_is_said_in_words(limits, said, as_user, issue, client):
    made = as_user.post("/api/keys/", {"name": "Narrow", "scopes": ["apikeys:write"], **limits})
    answer = client.post("/api/keys/", {"name": "Wide"}, headers=german(made.json()["secret"]))

    assert answer.status_code == 403
    assert answer.json() == {
        "detail": f"Das ist mehr, als Sie einem API-Schlüssel geben dürfen: {said}.",
        "code": "beyond_ceiling",
    }


def test_bad_input_is_named_by_the_same_fields(as_user):
    typed = {"name": "", "rate_limit": "often", "allowed_ips": ["10.0.0.1/8", "here"]}
    answer = as_user.post("/api/keys/", typed, headers={"Accept-Language": "de"})

    assert answer.status_code == 400
    (rate,) = answer.json()["rate_limit"]
    assert rate.startswith("Ein Limit ist eine Zahl von 1 bis 999999999, ein Schrägstrich und")
    assert answer.json()["allowed_ips"] == [
        "Bei „10.0.0.1/8“ sind Host-Bits gesetzt; das Netzwerk ist 10.0.0.0/8.",
        "„here“ ist keine IP-Adresse und kein Netzwerk.",
    ]


def test_scopes_are_described_in_the_language(as_user, settings):
    """The reserved ones by the app, others as the project has marked them."""
    settings.APIKEYS_SCOPES = {"jobs:read": gettext_lazy("Search"), "jobs:write": "Write jobs"}
    told = as_user.get("/api/scopes/", headers={"Accept-Language": "de"}).json()
    described = {scope["name"]: scope["description"] for scope in told}

    assert described["self:revoke"] == "Diesen Schlüssel widerrufen"
    assert (described["jobs:read"], described["jobs:write"]) == ("Suchen", "Write jobs")


def test_facts_of_a_key_are_the_same_in_every_language(as_user, issue):
    key = issue(scopes=["customers:read"], rate_limit="10/s").key
    path = f"/api/keys/{key.pk}/"

    assert as_user.get(path, headers={"Accept-Language": "de"}).json() == as_user.get(path).json()
