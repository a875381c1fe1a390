"""The pages in each language: nothing is left in English, and numbers have their forms."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import APIKeyEvent
from tests.factories import APIKeyFactory, UserFactory
from tests.languages import (
    MARKING,
    english_in,
    said,
    unmarked,
    write_marking_catalogue,
)
from tests.traffic import used
from tests.web.policies import ManyPolicy, use
from tests.web.typed import LIST, NEW, form_of, submit, url

# Names, and what the project itself calls its scopes and environments.
KNOWN = (
    "ann bob Cron Made Nightly Reporting Old live test customers jobs Read Create and change "
    "curl JavaScript Python GET CST CDT"
)


@pytest.fixture
def browser(browser, languages):
    """A browser in which somebody has logged in, where each gets their own language."""
    return browser


@pytest.fixture(scope="module")
def marking_catalogue(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locale")
    write_marking_catalogue(folder)
    return folder


@pytest.fixture
def marking(browser, settings, marking_catalogue):
    """The browser asks for the language that shows what is not marked."""
    settings.LOCALE_PATHS = [marking_catalogue]
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = MARKING
    return browser


@pytest.fixture
def key(issue, user):
    """A key about which there is all to say."""
    now = timezone.now()
    key = issue(
        name="Reporting",
        scopes=["customers:read", "customers:write", "jobs:read"],
        rate_limit="10/s",
        allowed_ips=["203.0.113.7"],
        expires_at=now + timedelta(days=3),
    ).key
    used(key, now, times=3, address="203.0.113.7")
    used(key, now, outcome="limited", address="203.0.113.7")
    services.rotate_key(key=key, actor=user)
    APIKeyFactory(owner=user, name="Made", created_by_key=key)
    return key


def every_page(key):
    return [
        LIST,
        f"{LIST}?status=revoked",
        f"{LIST}?status=odd&scope=odd",
        NEW,
        *(
            url(key, page)
            for page in (
                "",
                "?span=12m",
                "settings/",
                "history/",
                "rotate/",
                "rotate/?why=planned",
                "rotate/?why=leaked",
                "retire/",
                "revoke/",
                "delete/",
                "reveal/",
            )
        ),
    ]


def answers(browser, key, user):
    """Yield the answer of each page, and of what is wrong and what is done there."""
    now = timezone.now()
    for fields in (
        {"name": "Cron", "disabled": True},
        {"name": "Nightly", "expired": True},
        {"name": "Old", "revoked": True, "revoked_by": user},
    ):
        other = APIKeyFactory(owner=user, created_at=now - timedelta(days=400), **fields)
        yield browser.get(url(other))
        yield browser.get(url(other, "rotate/"))
    plain = APIKeyFactory(owner=user, name="Cron")
    for page in (*every_page(plain), *every_page(key)):
        yield browser.get(page)
    for actor, kind, changes in (
        ("user", "updated", {"name": ["Cron", "Reporting"], "enabled": [True, False]}),
        ("command", "updated", {"scopes": [["jobs:read"], ["jobs:*"]], "expires_at": [None, ""]}),
        ("key", "revealed", {}),
        ("system", "retired_secret_used", {}),
    ):
        APIKeyEvent.objects.create(type=kind, key_id=key.pk, actor_kind=actor, changes=changes)
    yield browser.get(url(key, "history/"))
    wrong = {"name": "", "rate_limit": "often", "allowed_ips": "10.0.0.1/8\nhere"}
    yield submit(browser, NEW, **wrong, expires="date")
    yield submit(browser, NEW, name="\u202e", expires="never", expires_at="2000-01-01T00:00")
    yield submit(browser, url(key, "settings/"), **wrong, expires_at="2000-01-01T00:00")
    fields = {**form_of(browser.get(NEW)), "name": "Nightly"}
    yield browser.post(NEW, fields)
    yield browser.post(NEW, fields)
    yield submit(browser, url(key, "settings/"), name="Cron")
    yield submit(browser, url(key, "rotate/?why=planned"), why="planned")
    yield submit(browser, url(key, "rotate/?why=leaked"), why="leaked", cascade="on")
    yield submit(browser, url(key, "revoke/"))
    yield browser.get(url(key))


def test_all_that_the_pages_say_is_marked(retrievable, marking, key, user):
    left = [
        (answer.request["PATH_INFO"], unmarked(answer, KNOWN))
        for answer in answers(marking, key, user)
    ]

    assert [(path, words) for path, words in left if words] == []


def test_question_for_the_password_is_marked(retrievable, marking, key):
    session = marking.session
    session["apikeys_login_at"] = 1
    session.save()
    path = url(key, "reveal/")

    for answer in (marking.get(path), marking.post(path, {"password": "a guess"})):
        assert 'name="password"' in answer.content.decode()
        assert unmarked(answer, KNOWN) == []


def test_a_text_that_is_not_marked_is_found(marking, key):
    """The scopes' descriptions are the project's own, and here no word of them is known."""
    known = "live test customers jobs"

    assert unmarked(marking.get(NEW), known) == ["Create", "Read", "and", "change"]


def test_what_is_said_to_who_sees_several_owners_is_marked(marking, key, settings):
    use(settings, ManyPolicy)
    UserFactory(username="bob")

    assert unmarked(marking.get(LIST), KNOWN) == []
    assert unmarked(marking.get(NEW), KNOWN) == []


def test_what_is_said_where_there_is_nothing_is_marked(marking):
    get_user_model().objects.update(username="ann")

    assert unmarked(marking.get(LIST), KNOWN) == []


@pytest.mark.parametrize("language", ["de", "fr", "es"])
def test_nothing_is_left_in_english(language, browser, key, user):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    shown = [a for a in answers(browser, key, user) if a.status_code != 302]

    assert {a["Content-Language"] for a in shown} == {language}
    assert all(f'<html lang="{language}">' in a.content.decode() for a in shown)
    assert [english_in(a, language) for a in shown if english_in(a, language)] == []


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        (
            "de",
            [
                "0 Anfragen in den letzten 24 Stunden",
                "1 Anfrage in den letzten 24 Stunden",
                "2 Anfragen in den letzten 24 Stunden",
                "21 Anfragen in den letzten 24 Stunden",
            ],
        ),
        (
            "fr",
            [
                "0 requête au cours des dernières 24 heures",
                "1 requête au cours des dernières 24 heures",
                "2 requêtes au cours des dernières 24 heures",
                "21 requêtes au cours des dernières 24 heures",
            ],
        ),
        (
            "es",
            [
                "0 solicitudes en las últimas 24 horas",
                "1 solicitud en las últimas 24 horas",
                "2 solicitudes en las últimas 24 horas",
                "21 solicitudes en las últimas 24 horas",
            ],
        ),
    ],
)
def test_numbers_have_the_plural_of_the_language(language, texts, browser, issue):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    for count, text in zip((0, 1, 2, 21), texts, strict=True):
        key = issue().key
        used(key, timezone.now(), times=count)

        assert text in said(browser.get(url(key, "revoke/")))


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("de", ["vor 2 Tagen", "in 5 Tagen", "in 30 Tagen"]),
        ("fr", ["il y a 2 jours", "dans 5 jours", "dans 30 jours"]),
        ("es", ["hace 2 días", "en 5 días", "en 30 días"]),
    ],
)
def test_spans_are_inflected(language, texts, browser, user):
    """In German Django's own “2 Tage” would be wrong behind “vor”."""
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = language
    now = timezone.now()
    key = APIKeyFactory(
        owner=user,
        created_at=now - timedelta(days=2, hours=1),
        expires_at=now + timedelta(days=5, hours=1),
    )
    pages = said(browser.get(url(key))) + said(browser.get(NEW))

    assert [text for text in texts if text not in pages.replace("\xa0", " ")] == []


def test_reason_of_the_app_itself_is_told_in_the_language_of_the_reader(browser, user):
    """It is stored in English: whoever sent the secret chose no language for it."""
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = "de"
    reason = "A retired secret was used."
    key = APIKeyFactory(owner=user, revoked=True, revoked_reason=reason)
    typed = APIKeyFactory(owner=user, revoked=True, revoked_reason="Not used any more")

    assert "Ein stillgelegtes Secret wurde verwendet." in said(browser.get(url(key)))
    assert "Not used any more" in said(browser.get(url(typed)))


def test_a_language_without_a_catalogue_is_english_in_its_own_direction(browser, key):
    browser.defaults["HTTP_ACCEPT_LANGUAGE"] = "ar"
    answer = browser.get(url(key))

    assert '<html lang="ar" dir="rtl">' in answer.content.decode()
    assert "it works until" not in said(answer)
    assert "Old secret: 0 uses since the rotation." in said(answer)
