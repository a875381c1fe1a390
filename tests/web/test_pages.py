"""What holds of every page: who is let in, and what the answer says to browsers and caches."""

import re
import uuid
from copy import deepcopy

import django
import pytest
from django.test import Client

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from tests.conftest import bearer
from tests.factories import UserFactory
from tests.web.typed import LIST, NEW, url

OF_A_KEY = ("", "settings/", "history/", "rotate/", "retire/", "revoke/", "delete/")
CHANGING = ("settings/", "rotate/", "retire/", "revoke/", "delete/")
STRICT = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def key(issue):
    """A key with two secrets, so that each of its pages is there."""
    key = issue(name="of ann").key
    services.rotate_key(key=key)
    return key


def paths(key):
    return [LIST, NEW, *(url(key, page) for page in OF_A_KEY)]


def test_no_page_is_kept_framed_or_runs_what_is_not_a_file(browser, key):
    for path in paths(key):
        answer = browser.get(path)
        page = answer.content.decode()

        assert answer.status_code == 200
        assert "no-store" in answer["Cache-Control"]
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["Content-Security-Policy"] == STRICT
        assert "style=" not in page
        assert "<style" not in page
        assert page.count("<script") == 1
        assert '<script defer src="/static/django_apikeys/web.js"></script>' in page
        assert " on" + "click" not in page


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django 5.2 has no middleware for it")
def test_djangos_own_middleware_sends_the_policy_with_the_nonce_of_the_layout(
    browser, settings
):  # pragma: no cover - what is measured has Django 5.2
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.middleware.csp.ContentSecurityPolicyMiddleware",
    ]
    settings.SECURE_CSP = {"default-src": ["https:"]}
    plain = browser.get(LIST)
    templates = deepcopy(settings.TEMPLATES)
    [engine] = templates
    engine["OPTIONS"]["context_processors"].append("django.template.context_processors.csp")
    layout = "{% block content %}{% endblock %}<style nonce='{{ csp_nonce }}'></style>"
    engine["APP_DIRS"] = False
    engine["OPTIONS"]["loaders"] = [
        ("django.template.loaders.locmem.Loader", {"django_apikeys/web/base.html": layout}),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = templates
    marked = browser.get(LIST)

    [nonce] = re.findall(r"nonce='([^']{10,})'", marked.content.decode())
    assert plain["Content-Security-Policy"] == STRICT
    assert marked["Content-Security-Policy"] == STRICT.replace(
        "style-src 'self'; script-src 'self'",
        f"style-src 'self' 'nonce-{nonce}'; script-src 'self' 'nonce-{nonce}'",
    )


def test_the_policy_lets_in_statics_of_another_host(browser, settings):
    settings.STATIC_URL = "https://cdn.example/static/"

    answer = browser.get(LIST)

    assert "style-src 'self' https://cdn.example;" in answer["Content-Security-Policy"]
    assert 'href="https://cdn.example/static/django_apikeys/web.css"' in answer.content.decode()


def test_a_form_may_be_led_to_the_login_of_another_host(browser, settings):
    """Browsers ask the policy of redirects too: one that a form ends at when a session has."""
    settings.LOGIN_URL = "https://id.example/login"

    policy = browser.get(LIST)["Content-Security-Policy"]

    assert "form-action 'self' https://id.example;" in policy


@pytest.mark.parametrize("accepted", ["ar", "xx", "ja,ar;q=0.5"])
def test_in_a_language_without_texts_the_page_is_english_from_left_to_right(
    browser, settings, accepted
):
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    settings.LANGUAGES = [("en", "English"), ("de", "German"), ("ar", "Arabic")]

    page = browser.get(LIST, headers={"Accept-Language": accepted}).content.decode()

    assert "No API keys yet" in page
    if accepted == "xx":
        assert '<div class="apikeys">' in page
    else:
        assert '<html lang="ar" dir="rtl">' in page
        assert '<div class="apikeys" lang="en" dir="ltr">' in page
        assert "without a limit" in page


def test_the_anonymous_are_led_to_the_login(key):
    for path in paths(key):
        for answer in (Client().get(path), Client().post(path)):
            assert answer.status_code == 302
            assert answer["Location"] == f"/accounts/login/?next={path}"
            assert "no-store" in answer["Cache-Control"]


def test_a_key_opens_no_page(issued, key):
    """They are for people: a secret in a header is nobody's login."""
    answer = Client().get(LIST, headers=bearer(issued.secret))

    assert answer.status_code == 302


def test_another_owners_key_is_not_there(key):
    rival = Client()
    rival.force_login(UserFactory())

    for page in OF_A_KEY:
        found = (rival.get(url(key, page)).status_code, rival.post(url(key, page)).status_code)
        assert found == (404, 404)
    key.refresh_from_db()
    assert key.revoked_at is None
    assert APIKeyEvent.objects.count() == 2


@pytest.mark.parametrize("page", OF_A_KEY)
def test_a_key_that_never_was_is_not_there(page, browser):
    assert browser.get(f"{LIST}{uuid.uuid4()}/{page}").status_code == 404
    assert browser.get(f"{LIST}1/{page}").status_code == 404


@pytest.mark.parametrize("page", CHANGING)
def test_nothing_is_changed_without_the_token_of_the_form(page, user, key):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)

    answer = browser.post(url(key, page), {"why": "leaked", "name": "x"})

    assert answer.status_code == 403
    assert APIKeyEvent.objects.count() == 2


def test_the_token_is_asked_for_where_no_middleware_does(user, key, settings):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "csrf" not in name]
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)

    assert browser.post(url(key, "revoke/")).status_code == 403


@pytest.mark.parametrize("page", CHANGING)
def test_nothing_is_changed_by_loading_a_page(page, browser, key):
    browser.get(url(key, page))
    browser.head(url(key, page))

    assert APIKeyEvent.objects.count() == 2


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_methods_are_refused(method, browser, key):
    assert getattr(browser, method)(url(key)).status_code == 405
    assert APIKey.objects.get().deleted_at is None


def test_without_the_messages_framework_it_works_the_same(user, key, settings):
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if "messages" not in name]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Message" not in name]
    browser = Client()
    browser.force_login(user)

    answer = browser.post(url(key, "revoke/"))

    assert (answer.status_code, answer["Location"]) == (302, url(key))


def test_right_to_left_is_said(browser, settings):
    settings.LANGUAGE_CODE = "ar"

    assert '<html lang="ar" dir="rtl">' in browser.get(LIST).content.decode()
