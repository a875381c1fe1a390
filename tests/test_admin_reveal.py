"""The secret again, in the admin: what somebody may try, and who is shown it."""

import re

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone

from django_apikeys import services
from django_apikeys.admin import APIKeyAdmin
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.factories import UserFactory
from tests.test_admin import LIST, SECRET, signed_in
from tests.test_admin_actions import told
from tests.test_admin_rotation import AllPolicy, body, owner_who_may
from tests.web.typed import form_of, submit

pytestmark = pytest.mark.usefixtures("retrievable", "no_guesses")


class NoRevealPolicy(AllPolicy):
    """Everyone does everything with all keys, but is shown no secret again."""

    def owners(self, person, action):
        owners = super().owners(person, action)
        return owners.none() if action == "reveal" else owners


@pytest.fixture
def key(issued):
    return issued.key


@pytest.fixture
def path(key):
    return url(key)


@pytest.fixture
def browser(retrievable, db):
    """A browser in which a superuser has just logged in."""
    client = Client()
    client.force_login(UserFactory(username="root", superuser=True))
    return client


@pytest.fixture
def stale(browser):
    """The same, who has logged in long ago."""
    grow_old(browser)
    return browser


def grow_old(browser):
    session = browser.session
    session["apikeys_login_at"] = 1
    session.save()


def url(key, page="reveal"):
    return f"{LIST}{key.pk}/{page}/"


def has_button(client, key):
    return url(key) in body(client.get(url(key, "change")))


def revealed():
    return APIKeyEvent.objects.filter(type="revealed").count()


def shows_none(*answers):
    return not any(SECRET.search(answer.content.decode()) for answer in answers)


# --- What somebody may try ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "permissions",
    [("view_apikey",), ("view_apikey", "add_apikey", "delete_apikey", "revoke_apikey"), ()],
    ids=["view", "all others", "none"],
)
def test_without_the_permission_to_change_the_page_is_forbidden(
    permissions, method, path, settings
):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.AllPolicy"
    client = signed_in(*permissions)

    response = getattr(client, method)(path, {"seen": "", "password": "password"})

    assert response.status_code == 403
    assert shows_none(response)
    assert revealed() == 0


def test_who_may_only_view_sees_no_button(key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.AllPolicy"

    assert not has_button(signed_in("view_apikey"), key)


@pytest.mark.parametrize("is_staff", [True, False])
@pytest.mark.parametrize("method", ["get", "post"])
def test_who_has_not_logged_in_to_the_admin_is_led_to_its_login(method, is_staff, path, user):
    """The owner, whom the policy lets, among them: the owner's page is theirs."""
    client = Client()
    if not is_staff:
        client.force_login(user)

    response = getattr(client, method)(path, {"seen": ""})

    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")
    assert revealed() == 0


@pytest.mark.parametrize("method", ["get", "post"])
def test_staff_are_not_shown_the_secret_of_another(method, key, path):
    """By it they would act as its owner, who may do more."""
    client = signed_in("change_apikey", "add_apikey", "view_apikey")

    response = getattr(client, method)(path, {"seen": ""})

    assert response.status_code == 403
    assert not has_button(client, key)
    assert revealed() == 0


@pytest.mark.parametrize("method", ["get", "post"])
def test_where_the_policy_lets_nobody_reveal_staff_are_shown_none(method, key, path, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_reveal.NoRevealPolicy"
    client = signed_in("change_apikey")

    response = getattr(client, method)(path, {"seen": ""})

    assert response.status_code == 403
    assert not has_button(client, key)
    assert revealed() == 0


def test_staff_are_not_shown_a_secret_of_the_project(issue, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.AllPolicy"
    key = issue(owner=None).key

    response = signed_in("change_apikey").post(url(key), {"seen": ""})

    assert response.status_code == 403
    assert revealed() == 0


def test_staff_are_not_shown_a_secret_that_may_do_what_they_may_not_grant(issue, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    key = issue(scopes=["customers:read", "jobs:write"]).key
    client = signed_in("change_apikey")

    response = client.post(url(key), {"seen": ""})

    assert response.status_code == 403
    assert not has_button(client, key)
    assert revealed() == 0


def test_the_ceiling_is_asked_again_under_the_lock(key, path, settings, monkeypatch):
    """Whoever widens a key while the page is looked at shows no secret of it."""
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    reveal_secret = services.reveal_secret

    def reveal_after_a_change(**fields):
        services.update_key(key=key, scopes=["jobs:write"])
        return reveal_secret(**fields)

    monkeypatch.setattr(services, "reveal_secret", reveal_after_a_change)

    answer = signed_in("change_apikey").post(path, {"seen": ""}, follow=True)

    assert told(answer) == ["This is more than you may give to an API key: scopes (jobs:write)."]
    assert shows_none(answer)
    assert revealed() == LogEntry.objects.count() == 0


def test_to_look_shows_nothing(browser, path):
    """Whatever the address says: it stays in histories and logs."""
    answers = [
        browser.get(path),
        browser.get(path, {"seen": "", "password": "password"}),
        browser.head(path),
        browser.put(path),
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200]
    assert shows_none(*answers)
    assert revealed() == 0


def test_a_post_without_a_token_of_the_form_is_refused(path):
    client = Client(enforce_csrf_checks=True)
    client.force_login(UserFactory(superuser=True))

    response = client.post(path, {"seen": "", "password": "password"})

    assert response.status_code == 403
    assert revealed() == 0


def test_the_form_has_that_token(path):
    client = Client(enforce_csrf_checks=True)
    client.force_login(UserFactory(superuser=True))

    assert SECRET.search(body(submit(client, path)))


def test_a_form_that_is_sent_again_shows_nothing(stale, path):
    """A reload sends the password too, though whoever typed it has left."""
    fields = {**form_of(stale.get(path)), "password": "password"}
    first = stale.post(path, fields)
    grow_old(stale)

    again = stale.post(path, fields)

    assert SECRET.search(body(first))
    assert again.status_code == 409
    assert "The secret was shown since this page was opened: ask again." in body(again)
    assert shows_none(again)
    assert 'name="password"' in body(again)
    assert revealed() == 1


def test_a_form_that_does_not_say_what_it_saw_shows_nothing(browser, path):
    answer = browser.post(path, {"password": "password"})

    assert answer.status_code == 409
    assert revealed() == 0


def test_the_page_that_says_so_asks_anew(browser, path, issued):
    browser.post(path, {"seen": ""})
    again = browser.post(path, {"seen": ""})

    answer = browser.post(path, form_of(again))

    assert SECRET.search(body(answer))[0] == issued.secret
    assert revealed() == 2


def test_the_form_of_one_key_shows_no_other(stale, issue, path):
    """The key is that of the address, and what was shown of one says nothing of another."""
    other = issue(name="Another")
    services.reveal_secret(key=other.key)
    fields = {**form_of(stale.get(path)), "password": "password"}

    answer = stale.post(url(other.key), fields)

    assert answer.status_code == 409
    assert shows_none(answer)
    assert revealed() == 1


# --- Who is at the keyboard ---------------------------------------------------------------


def test_an_old_login_is_asked_for_the_password(stale, path, issued):
    asked = stale.get(path)
    none = submit(stale, path)
    wrong = submit(stale, path, password="not it")
    right = submit(stale, path, password="password")

    assert '<label class="required" for="id_password">Your password</label>' in body(asked)
    assert "Your login is too old for this" in body(none)
    assert "This is not your password" in body(wrong)
    assert shows_none(asked, none, wrong)
    assert "not it" not in body(wrong)
    assert SECRET.search(body(right))[0] == issued.secret
    assert revealed() == 1


def test_a_password_makes_the_login_fresh(stale, path):
    submit(stale, path, password="password")

    assert 'name="password"' not in body(stale.get(path))


def test_passwords_are_not_guessed(stale, path):
    answers = [submit(stale, path, password=f"guess {number}") for number in range(6)]
    right = submit(stale, path, password="password")

    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 200, 429]
    assert 1 <= int(answers[-1]["Retry-After"]) <= 301
    assert "Too many wrong passwords." in body(answers[-1])
    assert right.status_code == 429
    assert shows_none(right)


def test_where_nobody_counts_wrong_passwords_none_is_looked_at(stale, path, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    answer = submit(stale, path, password="password")

    assert answer.status_code == 503
    assert shows_none(answer)
    assert revealed() == 0


# --- The secret, once ---------------------------------------------------------------------


def test_a_fresh_login_is_shown_the_secret_when_it_asks(browser, key, path, issued):
    assert has_button(browser, key)

    answer = submit(browser, path)

    assert SECRET.search(body(answer))[0] == issued.secret
    assert "The secret of this API key" in body(answer)
    assert "Copy the secret. It is kept, encrypted, for whoever may reveal it." in body(answer)


def test_the_page_with_the_secret_is_not_stored(browser, path):
    answer = submit(browser, path)

    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["X-Frame-Options"] == "DENY"


def test_the_page_that_asks_is_shown_in_no_frame(browser, path):
    assert browser.get(path)["X-Frame-Options"] == "DENY"


def test_history_and_event_tell_who_was_shown_it(browser, path, key):
    submit_as = {"HTTP_USER_AGENT": "a browser", "REMOTE_ADDR": "203.0.113.9"}
    browser.post(path, form_of(browser.get(path)), **submit_as)

    entry = LogEntry.objects.get()
    event = APIKeyEvent.objects.get(type="revealed")
    assert (entry.get_change_message(), entry.object_id) == ("Showed the secret.", str(key.pk))
    assert entry.user.username == "root"
    assert (event.actor_kind, event.actor_name, event.key_id) == ("user", "root", key.pk)
    assert (event.address, event.user_agent) == ("203.0.113.9", "a browser")


def test_the_secret_stands_on_that_one_page(browser, key, path, issued):
    answer = submit(browser, path)

    random = issued.secret.rpartition("_")[2]
    elsewhere = [
        str(answer.cookies),
        str(answer.headers),
        str(dict(browser.cookies)),
        str([row.get_decoded() for row in Session.objects.all()]),
        str(list(LogEntry.objects.values())),
        str(list(APIKeyEvent.objects.values())),
        *(body(browser.get(url(key, page))) for page in ("change", "history", "reveal")),
        body(browser.get(LIST)),
        body(browser.get("/admin/")),
    ]
    assert [text for text in elsewhere if random in text] == []


def test_a_history_that_cannot_be_written_shows_no_secret(browser, path, monkeypatch):
    def fail(*args):
        raise DatabaseError("gone")

    monkeypatch.setattr(APIKeyAdmin, "log_change", fail)

    with pytest.raises(DatabaseError):
        submit(browser, path)

    assert revealed() == 0


def test_staff_are_shown_what_the_policy_lets_them(key, path, issued, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_rotation.ReadingPolicy"
    client = signed_in("change_apikey")

    assert has_button(client, key)
    assert SECRET.search(body(submit(client, path)))[0] == issued.secret


def test_staff_are_shown_a_secret_of_their_own(user, path, issued):
    client = owner_who_may(user, "change_apikey")

    assert SECRET.search(body(submit(client, path)))[0] == issued.secret


def test_a_superuser_is_bound_by_no_ceiling(browser, issue, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_reveal.NoRevealPolicy"
    issued = issue(scopes=["*"], owner=None)

    assert SECRET.search(body(submit(browser, url(issued.key))))[0] == issued.secret


# --- What cannot be shown -----------------------------------------------------------------


STATES = {
    "disabled": ({"enabled": False}, "This key is disabled: enable it first."),
    "revoked": ({"revoked_at": timezone.now()}, "This key is revoked, for good."),
}


@pytest.mark.parametrize(("state", "reason"), STATES.values(), ids=STATES.keys())
def test_a_key_that_is_not_active_leads_back(state, reason, browser, key, path):
    APIKey.objects.update(**state)

    opened = browser.get(path, follow=True)
    sent = browser.post(path, {"seen": "", "password": "x"}, follow=True)

    assert opened.redirect_chain == sent.redirect_chain == [(url(key, "change"), 302)]
    assert told(opened) == told(sent) == [reason]
    assert not has_button(browser, key)
    assert revealed() == 0


def test_a_secret_that_was_not_kept_leads_back(browser, key, path):
    services.forget_secrets()

    answer = browser.get(path, follow=True)

    assert told(answer) == ["This secret was not kept, and cannot be shown again: rotate the key."]
    assert not has_button(browser, key)


def test_a_secret_that_no_key_reads_leads_back(browser, path):
    APIKeySecret.objects.update(encrypted="none$text")

    answer = browser.post(path, {"seen": ""}, follow=True)

    assert told(answer) == ["This secret cannot be read with the encryption keys of this site."]
    assert revealed() == LogEntry.objects.count() == 0


def test_without_the_mode_there_is_no_button_and_no_secret(browser, key, path, settings):
    settings.APIKEYS_RETRIEVABLE = False

    answers = browser.get(path, follow=True), browser.post(path, {"seen": ""}, follow=True)

    assert told(answers[0]) == ["Secrets are not kept here, and cannot be shown again."]
    assert shows_none(*answers)
    assert not has_button(browser, key)


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_key_that_is_not_there_leads_to_the_list(method, browser, key, path):
    services.delete_key(key=key)

    answer = getattr(browser, method)(path, {"seen": ""}, follow=True)

    assert answer.redirect_chain == [(LIST, 302)]
    assert told(answer) == ["There are no such keys."]


def test_a_name_is_escaped(browser, issue):
    key = issue(name="<script>alert(1)</script>").key

    pages = [browser.get(url(key)), submit(browser, url(key))]

    assert [re.search("<script>alert", page.content.decode()) for page in pages] == [None, None]
