"""The secret again, in the retrievable mode: asked for, and shown to who is at the keyboard."""

import re
from html import unescape

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_apikeys import services
from django_apikeys.models import APIKeyEvent
from tests.web.policies import LookingPolicy, ReadingPolicy, use
from tests.web.typed import LIST, SECRET, form_of, secret_in, submit, url

pytestmark = pytest.mark.usefixtures("retrievable", "no_guesses")


@pytest.fixture
def path(issued):
    return url(issued.key, "reveal/")


@pytest.fixture
def stale(browser):
    """A browser whose session somebody has logged in to long ago."""
    session = browser.session
    session["apikeys_login_at"] = 1
    session.save()
    return browser


def words(answer):
    return " ".join(re.sub(r"<[^>]+>", " ", unescape(answer.content.decode())).split())


def revealed():
    return APIKeyEvent.objects.filter(type="revealed").count()


def test_a_fresh_login_is_shown_the_secret_when_it_asks(browser, path, issued):
    asked = browser.get(path)
    answer = submit(browser, path)

    assert not SECRET.search(asked.content.decode())
    assert 'name="password"' not in asked.content.decode()
    assert secret_in(answer) == issued.secret
    assert "no-store" in answer["Cache-Control"]
    assert "each time is noted in its history" in words(answer)
    assert revealed() == 1


def test_no_page_has_the_secret_that_nobody_asked_for(browser, issued):
    pages = [LIST, url(issued.key), url(issued.key, "settings/"), url(issued.key, "history/")]

    assert not any(SECRET.search(browser.get(page).content.decode()) for page in pages)
    assert f'href="{url(issued.key, "reveal/")}"' in browser.get(url(issued.key)).content.decode()


def test_the_list_offers_to_copy_what_is_kept_and_may_be_shown(browser, issue, user, settings):
    offered = {
        "kept": issue(name="Kept"),
        "revoked": issue(name="Revoked"),
        "disabled": issue(name="Disabled", enabled=False),
    }
    services.revoke_key(key=offered["revoked"].key)
    settings.APIKEYS_RETRIEVABLE = False
    offered["older"] = issue(name="Older")
    settings.APIKEYS_RETRIEVABLE = True

    page = browser.get(LIST).content.decode()

    links = re.findall(r'<a href="([^"]+)" data-apikeys-kept [^>]*>Copy the secret</a>', page)
    assert links == [url(offered["kept"].key, "reveal/")]


def test_the_list_offers_no_copy_where_nothing_is_kept_any_more(browser, issued, settings):
    settings.APIKEYS_RETRIEVABLE = False

    assert "Copy the secret" not in browser.get(LIST).content.decode()


@pytest.mark.parametrize("policy", [LookingPolicy, ReadingPolicy])
def test_the_list_offers_no_copy_that_would_be_refused(browser, issue, settings, policy):
    key = issue(scopes=["customers:write"]).key
    use(settings, policy)

    page = browser.get(LIST)

    assert key.name in page.content.decode()
    assert "Copy the secret" not in page.content.decode()


def test_the_list_asks_for_what_may_be_shown_once_of_each_owner(browser, issue, user):
    issue()
    with CaptureQueriesContext(connection) as few:
        browser.get(LIST)
    for _ in range(15):
        issue()
    with CaptureQueriesContext(connection) as many:
        browser.get(LIST)

    assert (len(few), len(many)) == (12, 12)


def test_an_old_login_is_asked_for_the_password(stale, path, issued):
    asked = form_of(stale.get(path))
    none = submit(stale, path)
    wrong = submit(stale, path, password="not it")
    right = submit(stale, path, password="password")

    assert asked["password"] == ""
    assert "Your login is too old for this" in words(none)
    assert "This is not your password" in words(wrong)
    assert "not it" not in wrong.content.decode()
    assert secret_in(right) == issued.secret
    assert revealed() == 1


def test_a_reload_of_the_answer_shows_nothing_though_it_sends_the_password_again(stale, path):
    sent = {**form_of(stale.get(path)), "password": "password"}
    first = stale.post(path, sent)
    session = stale.session
    session["apikeys_login_at"] = 1
    session.save()

    again = stale.post(path, sent)

    assert SECRET.search(first.content.decode())
    assert again.status_code == 409
    assert "The secret was shown since this page was opened: ask again." in words(again)
    assert not SECRET.search(again.content.decode())
    assert revealed() == 1
    assert SECRET.search(
        stale.post(path, {**form_of(again), "password": "password"}).content.decode()
    )


def test_passwords_are_not_guessed(stale, path):
    answers = [submit(stale, path, password="not it") for _ in range(6)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 429]
    assert 1 <= int(answers[-1]["Retry-After"]) <= 301
    assert "Too many wrong passwords." in words(answers[-1])


def test_what_was_not_kept_cannot_be_shown(browser, path, issued):
    services.forget_secrets()

    answers = browser.get(path), browser.post(path)

    assert [answer.status_code for answer in answers] == [409, 409]
    assert "This secret was not kept" in words(answers[0])
    assert path not in browser.get(url(issued.key)).content.decode()


def test_whoever_may_only_look_is_refused(browser, path, issued, settings):
    use(settings, LookingPolicy)

    answers = browser.get(path), browser.post(path)

    assert [answer.status_code for answer in answers] == [403, 403]
    assert path not in browser.get(url(issued.key)).content.decode()
    assert revealed() == 0


def test_without_the_mode_there_is_no_button(browser, path, issued, settings):
    settings.APIKEYS_RETRIEVABLE = False

    answer = browser.get(path)

    assert (answer.status_code, path in browser.get(url(issued.key)).content.decode()) == (
        409,
        False,
    )
