"""The example in the visitor's language; programs read the same in each."""

import pytest
from django.test import Client

from tests.example_project.factories import MembershipFactory, UserFactory
from tests.languages import english_in, said

LIST = "/settings/api-keys/"

pytestmark = pytest.mark.usefixtures("languages")


@pytest.fixture
def browser(acme):
    """A browser in which an owner of Acme has logged in."""
    user = UserFactory(username="ann")
    MembershipFactory(organisation=acme, user=user, role="owner")
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("de", ["API-Schlüssel erstellen", "Abmelden"]),
        ("fr", ["Créer une clé API", "Déconnexion"]),
        ("es", ["Crear clave API", "Cerrar sesión"]),
    ],
)
def test_page_and_its_frame_are_of_one_language(language, texts, browser, issue):
    issue(name="Cron")
    answer = browser.get(LIST, headers={"Accept-Language": f"{language},en;q=0.5"})

    assert f'<html lang="{language}">' in answer.content.decode()
    assert [text for text in texts if text not in said(answer)] == []
    assert english_in(answer, language) == []
    assert answer["Content-Language"] == language
    assert "Accept-Language" in answer["Vary"]


@pytest.mark.django_db
def test_the_front_page_says_that_it_is_english():
    page = Client().get("/", headers={"Accept-Language": "de"}).content.decode()

    assert '<html lang="de">' in page
    assert '<div lang="en" dir="ltr">\n<h1>A small CRM' in page


def test_a_language_that_there_is_not_is_english(browser):
    answer = browser.get(LIST, headers={"Accept-Language": "ja"})

    assert '<html lang="en">' in answer.content.decode()
    assert "Create API key" in said(answer)


@pytest.mark.parametrize("language", ["en", "de", "fr", "es"])
def test_codes_and_a_refused_key_are_the_same(language, client, program):
    """The message is to the letter of the contract."""
    asked = {"Accept-Language": language}
    refused = client.get("/api/v1/customers/", headers={**asked, "X-API-Key": "rak_live_odd"})
    lacking = program("jobs:read").get("/api/v1/customers/", headers=asked)

    assert refused.json() == {
        "error": {
            "code": "UNAUTHORIZED",
            "reason": "invalid_key",
            "message": "Invalid or expired API key.",
        }
    }
    assert lacking.json()["error"]["code"] == "FORBIDDEN"
    assert lacking.json()["error"]["reason"] == "insufficient_scope"
    for answer in (refused, lacking):
        names = {name.strip() for name in answer["Vary"].split(",")}
        assert names >= {"Authorization", "X-API-Key", "Accept-Language"}
