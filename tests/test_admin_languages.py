"""The admin in each language: what the app adds to it is translated, as what Django has is."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import APIKeyEvent, APIKeySecret
from tests.factories import APIKeyFactory, UserFactory
from tests.languages import (
    MARKING,
    english_in,
    said,
    unmarked,
    write_marking_catalogue,
)
from tests.traffic import used
from tests.web.typed import submit

LIST = "/admin/django_apikeys/apikey/"
ADD = f"{LIST}add/"
EVENTS = "/admin/django_apikeys/apikeyevent/"
# Names, what the project calls its own, codes that are the same in commands and API, JSON, the
# label of an input that is hidden, and a text of Django's that it has not marked.
KNOWN = (
    "ann root Cron Made Nightly Old live test customers jobs Read Create and change GET CST CDT "
    "created updated rotated retired revoked deleted revealed user key command system "
    "null true New id Search"
)


@pytest.fixture
def browser(db, languages):
    client = Client()
    client.force_login(UserFactory(username="root", superuser=True))
    return client


@pytest.fixture
def key(issue, user):
    """A key about which there is all to say."""
    now = timezone.now()
    key = issue(name="Cron", scopes=["customers:read"], expires_at=now + timedelta(days=3)).key
    used(key, now, times=3, address="203.0.113.7")
    services.rotate_key(key=key, actor=user)
    used(key, now, address="203.0.113.7")
    APIKeyFactory(owner=user, name="Made", created_by_key=key)
    APIKeyFactory(owner=user, name="Old", revoked=True)
    return key


def answers(browser, key):
    """Yield the answer of each page, and of what is wrong and what is done there."""
    page = f"{LIST}{key.pk}/"
    event = APIKeyEvent.objects.filter(type="created").latest("pk")
    for path in (
        LIST,
        f"{LIST}?owner=nobody&created_by=nobody",
        ADD,
        f"{page}change/",
        f"{page}rotate/",
        f"{page}reveal/",
        f"{page}retire/",
        f"{page}revoke/",
        f"{page}delete/",
        EVENTS,
        f"{EVENTS}?key_id__exact=odd",
        f"{EVENTS}{event.pk}/change/",
    ):
        yield browser.get(path)
    wrong = {"name": "", "environment": "live", "scopes": "odd", "allowed_ips": "10.0.0.1/8"}
    yield browser.post(ADD, wrong | {"rate_limit": "often", "metadata": "["})
    yield browser.post(ADD, {"name": "Nightly", "environment": "live", "metadata": "{}"})
    yield browser.post(f"{page}rotate/", {"grace_seconds": "1"})
    yield browser.post(f"{page}reveal/", {"seen": "odd"})
    yield submit(browser, f"{page}reveal/")
    for action in ("disable", "enable", "revoke", "delete"):
        asked = {"action": f"{action}_selected", "_selected_action": [str(key.pk)]}
        yield browser.post(LIST, asked)
        browser.post(LIST, asked | {"confirmed": "1"})
        yield browser.get(LIST)


@pytest.fixture
def marking(browser, settings, tmp_path):
    """The browser asks for the language that shows what is not marked."""
    write_marking_catalogue(tmp_path)
    settings.LOCALE_PATHS = [tmp_path]
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = MARKING
    return browser


def test_all_that_the_admin_says_is_marked(retrievable, marking, key):
    ids = APIKeySecret.objects.values_list("public_id", flat=True)
    known = " ".join([KNOWN, *ids])
    left = [
        (answer.request["PATH_INFO"], unmarked(answer, known)) for answer in answers(marking, key)
    ]

    assert [(path, words) for path, words in left if words] == []


@pytest.mark.parametrize("language", ["de", "fr", "es"])
def test_nothing_is_left_in_english(language, retrievable, browser, key):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    shown = [*answers(browser, key)]

    assert {answer["Content-Language"] for answer in shown} == {language}
    assert [english_in(answer, language) for answer in shown if english_in(answer, language)] == []


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("de", ["API-Schlüssel", "Nach Ablauf", "Ausgewählte Schlüssel widerrufen", "Läuft ab"]),
        ("fr", ["Clés API", "Par expiration", "Révoquer les clés sélectionnées", "Expiration"]),
        ("es", ["Claves API", "Por caducidad", "Revocar las claves seleccionadas", "Caducidad"]),
    ],
)
def test_the_list_is_of_the_language(language, texts, browser, key):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    page = said(browser.get(LIST))

    assert [text for text in texts if text not in page] == []


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("de", ["1 Schlüssel wurde widerrufen.", "2 Schlüssel wurden widerrufen."]),
        ("fr", ["1 clé a été révoquée.", "2 clés ont été révoquées."]),
        ("es", ["Se ha revocado 1 clave.", "Se han revocado 2 claves."]),
    ],
)
def test_what_was_done_is_counted_in_the_language(language, texts, browser, user):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    for count, text in enumerate(texts, start=1):
        chosen = [str(key.pk) for key in APIKeyFactory.create_batch(count, owner=user)]
        asked = {"action": "revoke_selected", "_selected_action": chosen, "confirmed": "1"}

        assert text in said(browser.post(LIST, asked, follow=True))
