"""A new key, and the page that shows its secret once."""

import re
import uuid
from datetime import datetime, timedelta
from html import unescape

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from django_apikeys.web import owners
from tests.conftest import bearer
from tests.factories import UserFactory
from tests.web.policies import ManyPolicy, OneOfTwo, ReadingPolicy, SeeingPolicy, use
from tests.web.typed import LIST, NEW, SECRET, form_of, secret_in, submit, ticked, url


def text_of(answer):
    return unescape(answer.content.decode())


def test_a_key_is_created_and_its_secret_works(browser, user, client):
    answer = submit(browser, NEW, name="Reporting", scopes=["customers:read"])

    key = APIKey.objects.get()
    assert answer.status_code == 200
    assert client.get("/customers/", headers=bearer(secret_in(answer))).status_code == 200
    assert (key.name, key.owner, key.created_by) == ("Reporting", user, user)
    assert APIKeyEvent.objects.get().actor_name == "ann"


def test_least_privilege_is_the_default(browser):
    """Nothing is ticked, and a key that nobody thought about ends."""
    page = browser.get(NEW)
    submit(browser, NEW, name="a key")

    key = APIKey.objects.get()
    assert ticked(page) == []
    assert key.scopes == []
    assert key.expires_at - key.created_at == pytest.approx(
        timedelta(days=90), abs=timedelta(minutes=1)
    )


def test_every_field_is_stored(browser):
    submit(
        browser,
        NEW,
        name="Nightly",
        description="Once a night.\r\nDo not touch.",
        environment="test",
        scopes=["customers:read", "jobs:*"],
        rate_limit="300/m",
        allowed_ips="203.0.113.7\r\n2001:db8::/32",
        expires="date",
        expires_at="2040-01-31T12:00",
        enabled=None,
    )

    key = APIKey.objects.get()
    assert (key.name, key.description) == ("Nightly", "Once a night.\nDo not touch.")
    assert (key.environment, key.scopes) == ("test", ["customers:read", "jobs:*"])
    assert (key.rate_limit, key.allowed_ips) == ("300/m", ["203.0.113.7", "2001:db8::/32"])
    assert key.expires_at.isoformat() == "2040-01-31T18:00:00+00:00"  # of Chicago
    assert key.enabled is False


@pytest.mark.parametrize(
    ("chosen", "days"), [("30", 30), ("60", 60), ("90", 90), ("365", 365), ("never", None)]
)
def test_an_expiry_is_chosen_by_days(chosen, days, browser):
    submit(browser, NEW, name="a key", expires=chosen)

    key = APIKey.objects.get()
    left = key.expires_at and round((key.expires_at - key.created_at) / timedelta(days=1), 2)
    assert left == days


@pytest.mark.parametrize(
    ("expires", "date", "said"),
    [
        pytest.param("date", "", "Say on which date.", id="no date"),
        pytest.param("30", "2040-01-31T12:00", "Choose “on a date” above", id="both"),
        pytest.param("date", "2020-01-31T12:00", "in the past", id="past"),
        pytest.param("31", "", "Select a valid choice.", id="unknown"),
        pytest.param("date", "tomorrow", "Enter a valid date/time.", id="no moment"),
    ],
)
def test_an_expiry_that_makes_no_sense_is_said_beside_its_field(expires, date, said, browser):
    answer = submit(browser, NEW, name="a key", expires=expires, expires_at=date)

    assert said in text_of(answer)
    assert not APIKey.objects.exists()


@pytest.mark.parametrize(
    ("longest", "proposed"),
    [
        pytest.param(timedelta(days=60), {"expires": "60"}, id="a preset"),
        pytest.param(timedelta(days=7), {"expires": "date"}, id="shorter than any"),
        pytest.param(timedelta(days=200), {"expires": "date"}, id="between two"),
    ],
)
def test_what_is_proposed_is_what_the_settings_allow(longest, proposed, browser, settings):
    settings.APIKEYS_MAX_LIFETIME = {"live": longest, "test": longest}

    answer = submit(browser, NEW, name="a key")

    assert form_of(browser.get(NEW)).items() >= proposed.items()
    assert secret_in(answer)


def test_wrong_input_keeps_what_was_typed(browser):
    answer = submit(
        browser,
        NEW,
        name="Reporting",
        description="For <the> board",
        environment="test",
        scopes=["jobs:read", "customers:read"],
        rate_limit="often",
        allowed_ips="300.1.1.1\r\n203.0.113.7",
        expires="365",
        enabled=None,
    )

    again = form_of(answer)
    page = text_of(answer)
    assert answer.status_code == 200
    assert "A rate is a number" in page
    assert "“300.1.1.1” is not an IP address or network." in page
    assert page.count('aria-invalid="true"') == 2
    assert re.findall(r'<li><a href="#id_(\w+)">', page) == ["rate_limit", "allowed_ips"]
    assert again["name"] == "Reporting"
    assert again["description"] == "For <the> board"
    assert (again["environment"], again["expires"]) == ("test", "365")
    assert sorted(ticked(answer)) == ["customers:read", "jobs:read"]
    assert again["allowed_ips"].split() == ["300.1.1.1", "203.0.113.7"]
    assert again["rate_limit"] == "often"
    assert "enabled" not in again
    assert not APIKey.objects.exists()


def test_a_form_that_is_corrected_makes_the_key(browser):
    wrong = submit(browser, NEW, name="a key", rate_limit="often")

    browser.post(NEW, {**form_of(wrong), "rate_limit": "10/s"})

    assert APIKey.objects.get().rate_limit == "10/s"


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param({"name": "x" * 101}, id="name"),
        pytest.param({"name": "   "}, id="blank"),
        pytest.param({"description": "x" * 1001}, id="description"),
        pytest.param({"environment": "staging"}, id="environment"),
        pytest.param({"scopes": ["nothing:read"]}, id="scope"),
        pytest.param({"name": "a\x00b"}, id="NUL"),
        pytest.param({"allowed_ips": "203.0.113.7/8"}, id="host bits"),
        pytest.param({"new_id": ""}, id="no id"),
        pytest.param({"new_id": "x"}, id="no UUID"),
    ],
)
def test_what_cannot_be_stored_is_said_and_not_stored(typed, browser):
    answer = submit(browser, NEW, **{"name": "a key", **typed})

    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert not APIKey.objects.exists()


def test_the_scopes_stand_by_resource_with_their_descriptions(browser):
    page = text_of(browser.get(NEW))

    legends = re.findall(r"<legend>([^<]+)</legend>", page)
    labels = [
        " ".join(re.sub(r"<[^>]+>", " ", label).split())
        for label in re.findall(r'<label for="id_scopes_\d+">(.*?)</label>', page, re.DOTALL)
    ]
    assert legends == ["Scopes", "customers", "jobs", "API keys", "This key", "Everything"]
    assert labels[:3] == [
        "customers:read Read customers",
        "customers:write Create and change customers",
        "customers:* Everything about customers",
    ]
    assert "* Everything but API keys themselves" in labels


def test_only_scopes_that_may_be_granted_are_offered(browser, settings):
    use(settings, ReadingPolicy)

    page = browser.get(NEW).content.decode()

    assert re.findall(r'name="scopes" value="([^"]+)"', page) == [
        "customers:read",
        "jobs:read",
        "jobs:write",
        "jobs:*",
    ]


def test_a_scope_that_may_not_be_granted_is_refused(browser, settings):
    use(settings, ReadingPolicy)

    answer = submit(browser, NEW, name="a key", scopes=["customers:write"])

    assert "Select a valid choice." in text_of(answer)
    assert not APIKey.objects.exists()


def test_whoever_may_grant_nothing_is_told(browser, settings, monkeypatch):
    use(settings, ReadingPolicy)
    monkeypatch.setattr(ReadingPolicy, "grantable_scopes", lambda *args: [])

    page = text_of(browser.get(NEW))

    assert "There is no scope that you may give to a key." in page


def test_a_refusal_under_the_lock_is_said_beside_its_field(browser, settings):
    """Of two owners one may get less than the form offers for both."""
    use(settings, OneOfTwo)
    other = UserFactory(username="ben")

    answer = submit(browser, NEW, name="a key", owner=str(other.pk), scopes=["customers:read"])

    assert "This is more than you may give to an API key: scopes (customers:read)." in text_of(
        answer
    )
    assert ticked(answer) == ["customers:read"]
    assert not APIKey.objects.exists()


def test_as_many_keys_as_there_may_be_is_said(browser, issue, settings):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 1
    issue()

    answer = submit(browser, NEW, name="another")

    assert "There is 1 API key of this owner, as many as there may be" in text_of(answer)
    assert form_of(answer)["name"] == "another"
    assert APIKey.objects.count() == 1


# --- Whose key ------------------------------------------------------------------------------


def test_whoever_has_one_owner_is_not_asked(browser, user):
    page = browser.get(NEW).content.decode()
    submit(browser, NEW, name="a key")

    assert f'<input type="hidden" name="owner" value="{user.pk}"' in page
    assert APIKey.objects.get().owner == user


def test_a_key_for_another_owner_is_made_for_nobody(browser):
    """As the form of somebody who could choose, until a moment ago, may ask for."""
    answer = submit(browser, NEW, name="a key", owner=str(UserFactory().pk))

    assert "There is no such owner." in text_of(answer)
    assert not APIKey.objects.exists()


def test_a_form_that_names_no_owner_is_for_the_only_one(browser, user):
    submit(browser, NEW, name="a key", owner=None)

    assert APIKey.objects.get().owner == user


def test_one_of_several_owners_is_chosen(browser, settings):
    use(settings, ManyPolicy)
    other = UserFactory(username="ben")

    page = browser.get(f"{NEW}?owner={other.pk}")
    submit(browser, NEW, page=f"{NEW}?owner={other.pk}", name="a key")

    assert f'<option value="{other.pk}" selected>ben</option>' in page.content.decode()
    assert APIKey.objects.get().owner == other


def test_a_superuser_makes_a_key_of_the_project(user, browser):
    user.is_superuser = True
    user.save()

    page = text_of(browser.get(NEW))
    submit(browser, NEW, name="Of nobody", owner="")

    assert '<option value="">The project itself</option>' in page
    assert APIKey.objects.get().owner is None


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        pytest.param("", "A key needs an owner.", id="the project"),
        pytest.param("0", "There is no such owner.", id="nobody"),
        pytest.param("\x00", "Null characters are not allowed.", id="NUL"),
        pytest.param("hidden", "There is no such owner.", id="not seen"),
    ],
)
def test_an_owner_that_may_not_be_is_refused(owner, said, browser, settings):
    use(settings, ManyPolicy)
    hidden = UserFactory(username="hidden")
    UserFactory()

    typed = str(hidden.pk) if owner == "hidden" else owner
    answer = submit(browser, NEW, name="a key", owner=typed)

    assert said in text_of(answer)
    assert not APIKey.objects.exists()


def test_an_owner_who_is_seen_and_given_no_keys_is_refused(browser, user, settings):
    """Asked of a superuser, who has a choice: themself, or the project."""
    use(settings, SeeingPolicy)
    user.is_superuser = True
    user.save()

    answer = submit(browser, NEW, name="a key", owner=str(UserFactory().pk))

    assert "You may not do this with API keys of this owner." in text_of(answer)
    assert not APIKey.objects.exists()


def test_of_very_many_owners_one_is_named_by_its_key(browser, settings, monkeypatch):
    use(settings, ManyPolicy)
    monkeypatch.setattr(owners, "MOST_OWNERS", 2)
    last = UserFactory.create_batch(3)[-1]

    page = browser.get(NEW).content.decode()
    submit(browser, NEW, name="a key", owner=str(last.pk))

    assert '<input type="text" name="owner"' in page
    assert APIKey.objects.get().owner == last


# --- The secret, once -----------------------------------------------------------------------


def test_the_secret_is_the_answer_to_the_post_and_stands_nowhere_else(browser):
    answer = submit(browser, NEW, name="a key")
    secret = secret_in(answer)
    key = APIKey.objects.get()
    later = [browser.get(page) for page in (LIST, NEW, url(key), url(key, "history/"))]

    assert (answer.status_code, answer.get("Location")) == (200, None)
    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "same-origin"
    assert not any(secret in page.content.decode() for page in later)
    assert not any(secret in str(session.get_decoded()) for session in Session.objects.all())
    assert not any(secret in cookie.OutputString() for cookie in browser.cookies.values())
    assert not list(answer.wsgi_request._messages)
    assert secret not in str(list(APIKeyEvent.objects.values()))


def test_sending_the_form_again_makes_no_second_key_and_shows_no_secret(browser):
    filled = {**form_of(browser.get(NEW)), "name": "a key"}
    first = browser.post(NEW, filled)

    again = browser.post(NEW, filled)

    key = APIKey.objects.get()
    assert again.status_code == 409
    assert "This key was created already" in again.content.decode()
    assert f'href="{url(key)}"' in again.content.decode()
    assert secret_in(first) not in again.content.decode()
    assert not SECRET.search(again.content.decode())


def test_sending_it_again_after_the_key_was_deleted_makes_none(browser):
    filled = {**form_of(browser.get(NEW)), "name": "a key"}
    browser.post(NEW, filled)
    services.delete_key(key=APIKey.objects.get())

    again = browser.post(NEW, filled)

    assert (again.status_code, APIKey.objects.count()) == (409, 1)
    assert f"{filled['new_id']}/" not in again.content.decode()


def test_the_id_of_another_owners_key_tells_nothing_of_it(browser):
    other = services.create_key(owner=UserFactory(), name="of another").key

    answer = submit(browser, NEW, name="a key", new_id=str(other.pk))

    assert answer.status_code == 409
    assert "of another" not in answer.content.decode()
    assert str(other.pk) not in answer.content.decode()


def test_of_two_at_the_same_moment_the_later_is_told_too(browser, monkeypatch, user):
    """The other one was not there yet when the form was looked at."""
    create_key = services.create_key

    def late(**asked):
        create_key(**{**asked, "name": "the other"})
        return create_key(**asked)

    monkeypatch.setattr(services, "create_key", late)
    answer = submit(browser, NEW, name="a key")

    assert answer.status_code == 409
    assert APIKey.objects.get().name == "the other"
    assert not SECRET.search(answer.content.decode())


def test_the_samples_name_this_site_and_work_with_any_key(browser, client):
    answer = submit(browser, NEW, name="a key")

    page = text_of(answer)
    secret = secret_in(answer)
    assert f"export API_KEY={secret}" in page
    assert 'curl -H "Authorization: Bearer $API_KEY" "http://testserver/api/keys/self/"' in page
    assert "process.env.API_KEY" in page
    assert "os.environ['API_KEY']" in page
    assert page.count(secret) == 2
    assert client.get("/api/keys/self/", headers=bearer(secret)).status_code == 200


def test_the_samples_send_the_secret_as_the_settings_let_it_in(browser, settings):
    settings.APIKEYS_CREDENTIALS = ["basic", "x-api-key"]

    page = text_of(submit(browser, NEW, name="a key"))

    assert 'curl -H "X-API-Key: $API_KEY" ' in page


def test_without_the_management_api_the_samples_call_the_root(browser, settings):
    """As where the page alone is mounted."""
    settings.ROOT_URLCONF = "tests.web.page_urls"

    page = text_of(submit(browser, NEW, name="a key"))

    assert 'curl -H "Authorization: Bearer $API_KEY" "http://testserver/"' in page


# --- What may not be --------------------------------------------------------------------------


def test_fields_that_the_form_does_not_have_are_not_stored(browser, user):
    submit(
        browser,
        NEW,
        name="a key",
        metadata='{"admin": true}',
        revoked_at="2026-01-01",
        created_by=str(UserFactory().pk),
        created_at="2020-01-01",
        deleted_at="2020-01-01",
        id=str(uuid.uuid4()),
    )

    key = APIKey.objects.get()
    assert (key.metadata, key.revoked_at, key.deleted_at) == ({}, None, None)
    assert key.created_by == user
    assert key.created_at > timezone.now() - timedelta(minutes=1)


def test_markup_is_shown_as_text(browser, settings):
    settings.APIKEYS_SCOPES = {"jobs:read": "<img src=x onerror=alert(1)>"}
    name = "<script>alert(1)</script>"

    page = browser.get(NEW).content.decode()
    issued = submit(browser, NEW, name=name, description=name).content.decode()

    assert "<img src=x" not in page
    assert "<script>alert" not in issued
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in issued


def test_without_its_token_the_form_is_refused(user):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)

    answer = browser.post(
        NEW, {**form_of(browser.get(NEW)), "csrfmiddlewaretoken": "x" * 32, "name": "a"}
    )

    assert answer.status_code == 403
    assert not APIKey.objects.exists()


def test_with_its_token_it_is_taken(user):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)

    assert secret_in(submit(browser, NEW, name="a key"))


def test_the_current_address_is_offered(browser):
    page = text_of(browser.get(NEW))
    elsewhere = text_of(browser.get(NEW, REMOTE_ADDR=""))

    assert "You are at <code>127.0.0.1</code> now." in page
    assert 'data-apikeys-address="127.0.0.1" data-apikeys-into="id_allowed_ips" hidden' in page
    assert "You are at" not in elsewhere


def test_dates_are_read_in_the_zone_of_the_site(browser, settings):
    settings.TIME_ZONE = "America/New_York"

    submit(browser, NEW, name="a key", expires="date", expires_at="2040-01-31T12:00")

    assert APIKey.objects.get().expires_at == datetime.fromisoformat("2040-01-31T17:00Z")
