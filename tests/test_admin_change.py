"""A key is changed on its page in the admin, by what a browser sends of it."""

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from django.contrib.admin import site
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.utils import timezone

from django_apikeys import services
from django_apikeys.exceptions import Conflict
from django_apikeys.models import (
    APIKey,
    APIKeyEvent,
    APIKeySecret,
    APIKeyTotals,
)
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, APIKeySecretFactory, UserFactory
from tests.test_admin import LIST, errors, signed_in

BEYOND = "This is more than you may give to an API key: scopes (jobs:write)."


class ReadingPolicy(UserPolicy):
    """Everyone manages all keys, and may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]

    def owners(self, person, action):
        return get_user_model()._default_manager.all()


class Form(HTMLParser):
    """What a browser would send of a page, were it sent as it is."""

    def __init__(self, page):
        super().__init__()
        self.data = {}
        self._textarea = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        name = attrs.get("name")
        kind = attrs.get("type")
        if tag == "textarea":
            self._textarea = name
            self.data[name] = ""
        if tag == "input" and name and kind != "submit":
            if kind != "checkbox":
                self.data[name] = attrs.get("value") or ""
            elif "checked" in attrs:
                self.data.setdefault(name, []).append(attrs.get("value", "on"))

    def handle_endtag(self, tag):
        if tag == "textarea":
            text = self.data[self._textarea].removeprefix("\n")
            self.data[self._textarea] = text.replace("\n", "\r\n")
            self._textarea = None

    def handle_data(self, data):
        if self._textarea:
            self.data[self._textarea] += data


def url(key):
    return f"{LIST}{key.pk}/change/"


def shown(client, key):
    """Return the fields of the page of *key*, as they are."""
    return Form(client.get(url(key)).content.decode()).data


def changes():
    return [event.changes for event in APIKeyEvent.objects.filter(type="updated")]


@pytest.fixture
def utc(settings):
    settings.TIME_ZONE = "UTC"


@pytest.fixture
def key(issue):
    return issue(
        name="Reporting",
        description="Two\nlines",
        scopes=["customers:read", "jobs:*"],
        allowed_ips=["203.0.113.7", "2001:db8::/32"],
        rate_limit="300/m",
        expires_at=datetime(2040, 1, 31, 12, 0, 7, 123456, tzinfo=UTC),
        metadata={"team": "ops", "n": [1]},
    ).key


CHANGES = {
    "name": ({"name": "Exports"}, {"name": ["Reporting", "Exports"]}),
    "description": ({"description": ""}, {"description": ["Two\nlines", ""]}),
    "scopes": (
        {"scopes": ["customers:read"]},
        {"scopes": [["customers:read", "jobs:*"], ["customers:read"]]},
    ),
    "addresses": (
        {"allowed_ips": ""},
        {"allowed_ips": [["203.0.113.7", "2001:db8::/32"], []]},
    ),
    "rate": ({"rate_limit": "5/s"}, {"rate_limit": ["300/m", "5/s"]}),
    "end": (
        {"expires_at": "2041-01-31T12:00"},
        {"expires_at": ["2040-01-31T12:00:07.123456+00:00", "2041-01-31T12:00:00+00:00"]},
    ),
    "never": ({"expires_at": ""}, {"expires_at": ["2040-01-31T12:00:07.123456+00:00", None]}),
    "disabled": ({"enabled": None}, {"enabled": [True, False]}),
    "metadata": ({"metadata": ""}, {"metadata": [{"team": "ops", "n": [1]}, {}]}),
    "two at once": (
        {"name": "Exports", "rate_limit": ""},
        {"name": ["Reporting", "Exports"], "rate_limit": ["300/m", ""]},
    ),
}


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(("fields", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_what_was_changed_is_written_and_nothing_else(admin_client, key, fields, expected):
    data = {**shown(admin_client, key), **fields}

    response = admin_client.post(
        url(key), {name: value for name, value in data.items() if value is not None}
    )

    assert (response.status_code, response["Location"]) == (302, LIST)
    assert changes() == [expected]


def test_a_page_sent_as_it_is_writes_nothing(admin_client, key):
    """Not even the microseconds of the end, which no browser shows."""
    before = APIKey.objects.values().get()

    response = admin_client.post(url(key), shown(admin_client, key))

    assert response.status_code == 302
    assert APIKey.objects.values().get() == before
    assert changes() == []


@pytest.mark.usefixtures("utc")
def test_a_browser_that_drops_seconds_of_zero_changes_no_end(admin_client, issue):
    key = issue(expires_at=datetime(2040, 1, 31, 12, 0, 0, 5, tzinfo=UTC)).key
    data = shown(admin_client, key)

    admin_client.post(url(key), {**data, "name": "b", "expires_at": "2040-01-31T12:00"})

    assert data["expires_at"] == "2040-01-31T12:00:00"
    assert changes() == [{"name": ["a key", "b"]}]


def test_an_end_in_the_hour_that_comes_twice_stays(admin_client, issue, settings):
    """2:30 of the night when summer time ends could be two moments."""
    settings.TIME_ZONE = "Europe/Berlin"
    key = issue(expires_at=datetime(2040, 10, 28, 1, 30, tzinfo=UTC)).key

    response = admin_client.post(url(key), {**shown(admin_client, key), "name": "b"})

    assert response.status_code == 302
    assert changes() == [{"name": ["a key", "b"]}]


def test_an_expired_key_is_renamed_and_stays_expired(admin_client, key):
    APIKey.objects.update(expires_at=timezone.now() - timedelta(days=1))

    response = admin_client.post(url(key), {**shown(admin_client, key), "name": "b"})

    assert response.status_code == 302
    assert changes() == [{"name": ["Reporting", "b"]}]


def test_what_another_has_changed_since_the_page_was_opened_is_not_undone(admin_client, key):
    """They took a scope from the key; who fixes its name does not give it back."""
    opened = shown(admin_client, key)
    services.update_key(key=key, scopes=[], expires_at=None, rate_limit="1/m")

    admin_client.post(url(key), {**opened, "name": "b"})

    now = APIKey.objects.get()
    assert (now.name, now.scopes, now.expires_at, now.rate_limit) == ("b", [], None, "1/m")


def test_a_form_without_what_the_page_showed_is_compared_with_what_is_stored(admin_client, key):
    """A script sends the fields that have names of the model, and no others."""
    data = shown(admin_client, key)
    fields = {name: value for name, value in data.items() if not name.startswith("initial-")}

    admin_client.post(url(key), {**fields, "name": "b"})

    assert changes() == [{"name": ["Reporting", "b"]}]


def test_a_scope_that_was_added_to_none_survives_an_error_elsewhere(admin_client, issue):
    """The page is shown again; sent once more, it still knows what it showed at first."""
    key = issue(scopes=[]).key
    data = {**shown(admin_client, key), "scopes": ["jobs:read"], "rate_limit": "fast"}

    again = Form(admin_client.post(url(key), data).content.decode()).data
    admin_client.post(url(key), {**again, "rate_limit": ""})

    assert changes() == [{"scopes": [[], ["jobs:read"]]}]


def test_the_event_and_the_history_name_the_person(admin_client, key):
    admin_client.post(url(key), {**shown(admin_client, key), "name": "b"})

    event = APIKeyEvent.objects.get(type="updated")
    assert (event.actor_kind, event.actor_name, event.address) == ("user", "admin", "127.0.0.1")
    assert LogEntry.objects.get().get_change_message() == "Changed Name."


def test_a_key_disabled_on_its_page_is_refused(admin_client, issued, client):
    data = shown(admin_client, issued.key)
    del data["enabled"]

    admin_client.post(url(issued.key), data)

    answer = client.get("/customers/", headers=bearer(issued.secret))
    assert (answer.status_code, answer.json()["code"]) == (401, "disabled_key")


BAD = {
    "no name": ({"name": " "}, {"name": ["A key needs a name."]}),
    "rate": ({"rate_limit": "fast"}, ["rate_limit"]),
    "past": (
        {"expires_at": "2020-01-01T00:00"},
        {"expires_at": ["This moment is in the past. To end a key now, revoke it."]},
    ),
    "no date": ({"expires_at": "2040-13-01T00:00"}, ["expires_at"]),
    "beyond all time": ({"expires_at": "9999-12-31T23:59"}, ["expires_at"]),
    "metadata": ({"metadata": "{"}, {"metadata": ["Enter a JSON object."]}),
    "two at once": ({"rate_limit": "fast", "allowed_ips": "x"}, ["rate_limit", "allowed_ips"]),
}


@pytest.mark.parametrize(("fields", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_and_nothing_typed_is_lost(admin_client, key, fields, expected):
    data = {**shown(admin_client, key), "description": "Typed", **fields}

    response = admin_client.post(url(key), data)

    found = errors(response)
    assert (found == expected) if isinstance(expected, dict) else (set(found) == set(expected))
    assert "Typed</textarea>" in response.content.decode()
    assert changes() == []


def test_a_key_without_a_name_can_be_changed_in_all_else(admin_client, key):
    """It was made when names were not required."""
    APIKey.objects.update(name="")

    admin_client.post(url(key), {**shown(admin_client, key), "rate_limit": "1/m"})

    assert changes() == [{"rate_limit": ["300/m", "1/m"]}]


def test_a_key_does_not_outlive_what_a_setting_allows(admin_client, key, settings):
    settings.APIKEYS_MAX_LIFETIME = {"live": timedelta(days=30)}

    response = admin_client.post(url(key), {**shown(admin_client, key), "expires_at": ""})

    assert errors(response) == {"expires_at": ["A key of “live” ends within 30 days: say when."]}


def test_a_scope_that_is_no_longer_known_is_shown_and_kept(admin_client, key):
    APIKey.objects.update(scopes=["old:read", "jobs:read"])

    page = admin_client.get(url(key)).content.decode()
    admin_client.post(url(key), {**shown(admin_client, key), "name": "b"})

    assert "old:read · no longer known; untick it to change the others" in page
    assert APIKey.objects.get().scopes == ["old:read", "jobs:read"]


def test_a_scope_that_is_no_longer_known_is_not_granted_anew(admin_client, key):
    APIKey.objects.update(scopes=["old:read"])
    data = shown(admin_client, key)

    response = admin_client.post(url(key), {**data, "scopes": ["old:read", "jobs:read"]})

    assert errors(response) == {"scopes": ["Unknown scope: 'old:read'."]}
    assert APIKey.objects.get().scopes == ["old:read"]


@pytest.mark.parametrize("stored", ["jobs:read", {"a": 1}, [1, None]])
def test_a_key_whose_scopes_cannot_be_read_is_shown_and_changed(admin_client, key, stored):
    APIKey.objects.update(scopes=stored)

    response = admin_client.post(url(key), {**shown(admin_client, key), "name": "b"})

    assert response.status_code == 302
    assert changes() == [{"name": ["Reporting", "b"]}]


# Who may.


def test_staff_who_may_change_widen_no_key_beyond_what_the_policy_lets_them(key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_change.ReadingPolicy"
    services.update_key(key=key, scopes=["customers:read"])
    staff = signed_in("change_apikey")
    data = {**shown(staff, key), "name": "Typed", "scopes": ["customers:read", "jobs:write"]}

    response = staff.post(url(key), data)

    assert response.status_code == 200
    assert errors(response) == {"scopes": [BEYOND]}
    assert 'value="Typed"' in response.content.decode()
    assert APIKey.objects.get().name == "Reporting"
    assert LogEntry.objects.count() == 0


def test_staff_who_may_change_lengthen_no_key_that_has_more(issue, settings):
    """What is beyond is a scope, and is named though the end was what they changed."""
    settings.APIKEYS_POLICY = "tests.test_admin_change.ReadingPolicy"
    key = issue(scopes=["jobs:write"], expires_at=timezone.now() + timedelta(days=1)).key
    staff = signed_in("change_apikey")

    response = staff.post(url(key), {**shown(staff, key), "expires_at": ""})

    assert errors(response) == {"scopes": [BEYOND]}


@pytest.mark.parametrize(
    "wider",
    [
        pytest.param({"scopes": ["customers:read", "*"]}, id="scopes"),
        pytest.param({"allowed_ips": ""}, id="networks"),
        pytest.param({"expires_at": ""}, id="expiry"),
        pytest.param({"rate_limit": ""}, id="rate"),
        pytest.param({"enabled": "on"}, id="enabled"),
    ],
)
def test_staff_who_may_change_let_no_key_of_others_go_further(wider, issue):
    """Whoever holds the secret of a narrow key would act as its owner, as far as they like."""
    key = issue(
        scopes=["customers:read"],
        allowed_ips=["192.0.2.1"],
        rate_limit="1/d",
        expires_at=timezone.now() + timedelta(days=1),
        enabled=False,
    ).key
    before = APIKey.objects.values().get()
    staff = signed_in("change_apikey")

    response = staff.post(url(key), {**shown(staff, key), **wider})

    assert response.status_code == 200
    assert errors(response) == {"__all__": ["You may not do this with API keys of this owner."]}
    assert APIKey.objects.values().get() == before


def test_staff_who_may_change_narrow_any_key(key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_change.ReadingPolicy"
    staff = signed_in("change_apikey")

    staff.post(url(key), {**shown(staff, key), "scopes": []})

    assert APIKey.objects.get().scopes == []


def test_a_superuser_is_bound_by_no_policy(admin_client, key, settings):
    settings.APIKEYS_POLICY = "tests.test_admin_change.ReadingPolicy"

    admin_client.post(url(key), {**shown(admin_client, key), "scopes": ["jobs:write"]})

    assert APIKey.objects.get().scopes == ["jobs:write"]


@pytest.mark.parametrize("permission", ["view_apikey", "add_apikey", "revoke_apikey"])
def test_staff_who_may_not_change_change_nothing(key, permission):
    staff = signed_in("view_apikey", permission)

    page = staff.get(url(key)).content.decode()
    response = staff.post(url(key), {"name": "b", "enabled": "on"})

    assert 'name="name"' not in page
    assert "customers:read" in page
    assert response.status_code == 403
    assert APIKey.objects.get().name == "Reporting"


def test_staff_without_a_permission_see_no_key(key):
    assert signed_in().get(url(key)).status_code == 403


def test_owner_and_environment_stay(admin_client, key, user):
    another = UserFactory()
    data = {**shown(admin_client, key), "owner": another.pk, "environment": "test"}

    admin_client.post(url(key), {**data, "name": "b"})

    now = APIKey.objects.get()
    assert (now.owner, now.environment, now.name) == (user, "live", "b")


# A key that is revoked.


def test_a_revoked_key_is_shown_and_not_changed(admin_client, key):
    opened = shown(admin_client, key)
    services.revoke_key(key=key)

    page = admin_client.get(url(key)).content.decode()
    response = admin_client.post(url(key), {**opened, "name": "b"}, follow=True)

    assert 'name="name"' not in page
    assert response.redirect_chain == [(url(key), 302)]
    assert "This key is revoked, for good." in response.content.decode()
    assert APIKey.objects.get().name == "Reporting"


@pytest.mark.parametrize(
    "reason", ["This key is revoked, for good.", "This key is gone."], ids=["revoked", "deleted"]
)
def test_a_key_that_is_revoked_at_the_same_moment_is_told(admin_client, key, monkeypatch, reason):
    """The form was good; the row, once locked, is not what it was."""

    def refuse(**fields):
        raise Conflict(reason)

    monkeypatch.setattr(services, "update_key", refuse)

    response = admin_client.post(url(key), {**shown(admin_client, key), "name": "b"}, follow=True)

    assert response.redirect_chain == [(url(key), 302)]
    assert reason in response.content.decode()
    assert LogEntry.objects.count() == 0


def test_a_key_that_does_not_exist_leads_to_the_index(admin_client):
    response = admin_client.post(f"{LIST}6d2f0a3c-0000-4000-8000-000000000000/change/", {})

    assert (response.status_code, response["Location"]) == (302, "/admin/")


# What the page shows.


def readonly(client, key):
    """Return the fields of the page that are shown and not asked, by their names."""
    form = client.get(url(key)).context["adminform"]
    lines = [field for fieldset in form for line in fieldset for field in line]
    return {field.field["name"]: str(field.contents()) for field in lines if field.is_readonly}


def test_a_key_that_was_never_used(admin_client, issued):
    found = readonly(admin_client, issued.key)

    assert found["masked"] == issued.key.masked
    assert found["public_id"] == issued.key.current_secret.public_id
    assert found["status"] == '<span class="apikeys-status apikeys-active">active</span>'
    assert (found["usage_count"], found["last_used_at"], found["last_used_ip"]) == (
        "0",
        "never",
        "",
    )
    assert (found["first_used_at"], found["previous"]) == ("never", "none")
    assert found["made_through"] == "no other key"


@pytest.mark.usefixtures("utc")
def test_a_key_that_is_in_use(admin_client, issued):
    APIKeyTotals.objects.create(
        key=issued.key,
        requests=7,
        last_used_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        last_used_ip="203.0.113.7",
    )
    APIKeySecret.objects.update(
        created_at=datetime(2025, 12, 31, 3, 4, 5, tzinfo=UTC),
        first_used_at=datetime(2026, 1, 1, 3, 4, 5, tzinfo=UTC),
    )

    found = readonly(admin_client, issued.key)

    assert found["usage_count"] == "7"
    assert found["last_used_at"] == "2026-01-02 03:04:05 UTC"
    assert found["last_used_ip"] == "203.0.113.7"
    assert found["secret_made_at"] == "2025-12-31 03:04:05 UTC"
    assert found["first_used_at"] == "2026-01-01 03:04:05 UTC"


PREVIOUS = {
    "in its grace": (datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC), ", until 2040-01-02 03:04:05 UTC"),
    "until the first use": (None, ", until the current one is used, and then for its grace"),
}


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize(("retires_at", "until"), PREVIOUS.values(), ids=PREVIOUS.keys())
def test_a_previous_secret_is_shown_masked(admin_client, issued, retires_at, until):
    old = APIKeySecretFactory(key=issued.key, slot=1, retires_at=retires_at)

    found = readonly(admin_client, issued.key)

    assert found["previous"] == f"{old.masked}{until} · not used since the rotation"
    assert found["masked"] == issued.key.masked


def test_a_key_that_has_lost_its_secret_is_shown(admin_client, issued):
    APIKeySecret.objects.all().delete()

    found = readonly(admin_client, issued.key)

    assert (found["masked"], found["public_id"], found["secret_made_at"]) == ("", "", "never")


def test_the_key_through_which_one_was_made_is_linked(admin_client):
    parent = APIKeyFactory(name="<b>Parent")
    child = APIKeyFactory(created_by_key=parent)

    found = readonly(admin_client, child)

    assert found["made_through"] == f'<a href="{url(parent)}">&lt;b&gt;Parent</a>'


def test_a_deleted_key_through_which_one_was_made_is_named(admin_client):
    """It has no page to lead to."""
    child = APIKeyFactory(created_by_key=APIKeyFactory(name="Parent", deleted=True))

    assert readonly(admin_client, child)["made_through"] == "Parent"


def test_the_page_leads_to_the_events_of_its_key(admin_client, issued):
    page = admin_client.get(url(issued.key)).content.decode()

    assert f"/admin/django_apikeys/apikeyevent/?key_id__exact={issued.key.pk}" in page


def test_who_may_not_view_events_is_not_led_there(issued):
    page = signed_in("change_apikey").get(url(issued.key)).content.decode()

    assert "apikeyevent" not in page


def test_a_site_without_a_list_of_events_is_led_nowhere(admin_client, issued, monkeypatch):
    monkeypatch.delitem(site._registry, APIKeyEvent)

    page = admin_client.get(url(issued.key)).content.decode()

    assert "apikeyevent" not in page
