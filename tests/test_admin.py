"""Keys in the admin, by a browser's requests."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_apikeys import services
from django_apikeys.exceptions import Conflict
from django_apikeys.models import APIKey, APIKeyEvent
from django_apikeys.policy import UserPolicy
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory

ADD = "/admin/django_apikeys/apikey/add/"
LIST = "/admin/django_apikeys/apikey/"
NOT_PERMITTED = "You may not do this with API keys of this owner."
SECRET = re.compile(r"rak_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}")


class ReadingPolicy(UserPolicy):
    """Everyone may grant ``customers:read`` and nothing else."""

    def grantable_scopes(self, person, owner):
        return ["customers:read"]


@pytest.fixture
def staff(db):
    return UserFactory(username="root", superuser=True)


@pytest.fixture
def browser(staff):
    client = Client()
    client.force_login(staff)
    return client


@pytest.fixture
def clerk(db):
    """Staff who may add keys and do nothing else here."""
    clerk = UserFactory(username="clerk", staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename="add_apikey"))
    return clerk


@pytest.fixture
def desk(clerk):
    client = Client()
    client.force_login(clerk)
    return client


def signed_in(*permissions):
    staff = UserFactory(staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(staff)
    return client


def errors(response):
    return response.context["adminform"].form.errors


def filled_in(user, /, **fields):
    return {
        "owner": user.pk,
        "name": "Reporting",
        "description": "",
        "environment": "live",
        "scopes": ["customers:read"],
        "allowed_ips": "",
        "rate_limit": "",
        "expires_at": "",
        "enabled": "on",
        "metadata": "{}",
        **fields,
    }


def test_the_form_names_its_fields_as_the_model_does(browser):
    page = browser.get(ADD).content.decode()

    names = set(re.findall(r'name="([a-z_]+)"', page))
    assert names >= {
        "owner",
        "name",
        "description",
        "environment",
        "scopes",
        "allowed_ips",
        "rate_limit",
        "expires_at",
        "enabled",
        "metadata",
    }


def test_least_privilege_is_the_default(browser):
    """No scope is ticked on an empty form."""
    page = browser.get(ADD).content.decode()

    assert re.findall(r'<input[^>]+name="scopes"[^>]+checked', page) == []


def test_a_key_is_added_and_its_secret_works(browser, user, client):
    """The answer to the POST shows the secret; a program calls with it at once."""
    response = browser.post(ADD, filled_in(user))

    secret = SECRET.search(response.content.decode())[0]
    assert response.status_code == 200
    assert client.get("/customers/", headers=bearer(secret)).status_code == 200


def test_every_field_of_the_form_is_stored(browser, user):
    browser.post(
        ADD,
        filled_in(
            user,
            description="Nightly.\nDo not touch.",
            environment="test",
            scopes=["customers:read", "jobs:*"],
            allowed_ips="203.0.113.7\n2001:db8::/32",
            rate_limit="300/m",
            expires_at="2040-01-31T12:00",
            metadata='{"team": "ops"}',
        ),
    )

    key = APIKey.objects.get()
    assert key.owner == user
    assert key.name == "Reporting"
    assert key.description.splitlines() == ["Nightly.", "Do not touch."]
    assert key.environment == "test"
    assert key.scopes == ["customers:read", "jobs:*"]
    assert key.allowed_ips == ["203.0.113.7", "2001:db8::/32"]
    assert key.rate_limit == "300/m"
    assert key.expires_at.isoformat().startswith("2040-01-31T")
    assert key.metadata == {"team": "ops"}


def test_a_list_may_be_written_as_json(browser, user):
    browser.post(ADD, filled_in(user, allowed_ips='["203.0.113.7", "198.51.100.0/24"]'))

    assert APIKey.objects.get().allowed_ips == ["203.0.113.7", "198.51.100.0/24"]


def test_a_key_of_the_project_has_no_owner(browser, user):
    browser.post(ADD, filled_in(user, owner=""))

    assert APIKey.objects.get().owner is None


def test_the_event_names_the_person_and_where_they_were(browser, user, staff):
    browser.post(ADD, filled_in(user), headers={"User-Agent": "a browser"})

    event = APIKeyEvent.objects.get()
    assert (event.type, event.actor_kind, event.actor_name) == ("created", "user", "root")
    assert (event.address, event.user_agent) == ("127.0.0.1", "a browser")
    assert APIKey.objects.get().created_by == staff


def test_the_page_with_the_secret_is_not_stored(browser, user):
    response = browser.post(ADD, filled_in(user))

    assert "no-store" in response["Cache-Control"]
    assert response["Referrer-Policy"] == "same-origin"
    assert response["X-Frame-Options"] == "DENY"


def test_the_page_with_the_secret_says_to_script_what_it_copies_and_empties(browser, user):
    page = browser.post(ADD, filled_in(user)).content.decode()

    emptied = re.search(
        r'<section[^>]* data-apikeys-secret="([^"]+)">(.*?)</section>', page, re.DOTALL
    )
    key = APIKey.objects.get()
    assert '<script defer src="/static/django_apikeys/web.js">' in page
    assert emptied[1] == f"{LIST}{key.pk}/change/"
    assert len(SECRET.findall(emptied[2])) == len(SECRET.findall(page)) == 1
    assert re.search(r'<button [^>]*data-apikeys-copy="secret" hidden>', page)
    assert 'role="status" data-apikeys-status' in page


def test_the_secret_stands_on_that_one_page(browser, user):
    """Not in a message, a cookie, the session, the log of the admin or another page."""
    response = browser.post(ADD, filled_in(user))

    secret = SECRET.search(response.content.decode())[0]
    random = secret.rpartition("_")[2]
    key = APIKey.objects.get()
    elsewhere = [
        str(response.cookies),
        str(response.headers),
        str(dict(browser.cookies)),
        str([row.get_decoded() for row in Session.objects.all()]),
        str(list(LogEntry.objects.values())),
        browser.get(LIST).content.decode(),
        browser.get(f"{LIST}{key.pk}/change/").content.decode(),
        browser.get(f"{LIST}{key.pk}/history/").content.decode(),
        browser.get("/admin/").content.decode(),
    ]
    assert [text for text in elsewhere if random in text] == []


def test_the_same_form_sent_twice_makes_one_key(browser, user):
    """Reloading the page with the secret asks the browser to send the form again."""
    new_id = re.search(
        r'name="new_id" value="([0-9a-f-]{36})"', browser.get(ADD).content.decode()
    )[1]
    browser.post(ADD, filled_in(user, new_id=new_id))

    again = browser.post(ADD, filled_in(user, new_id=new_id))

    assert "This key was created already." in again.content.decode()
    assert SECRET.search(again.content.decode()) is None
    assert APIKey.objects.count() == 1


def test_the_second_of_two_equal_forms_at_once_is_told_so(browser, user, monkeypatch):
    """The form was good when it was looked at; the insert finds the id taken."""

    def taken(**fields):
        raise Conflict("This key was created already.")

    monkeypatch.setattr(services, "create_key", taken)

    response = browser.post(ADD, filled_in(user, name="Typed"))

    assert errors(response) == {"__all__": ["This key was created already."]}
    assert 'value="Typed"' in response.content.decode()


def test_an_owner_who_has_as_many_keys_as_there_may_be_gets_no_other(browser, user, settings):
    settings.APIKEYS_MAX_KEYS_PER_OWNER = 1
    APIKeyFactory(owner=user)

    response = browser.post(ADD, filled_in(user, name="Typed"))

    assert errors(response) == {
        "__all__": [
            "There is 1 API key of this owner, as many as there may be: revoke it.",
        ]
    }
    assert 'value="Typed"' in response.content.decode()
    assert APIKey.objects.count() == 1


def test_the_form_proposes_when_a_key_ends_where_a_setting_says_so(browser, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = {"live": timedelta(days=30)}

    page = browser.get(ADD).content.decode()

    shown = re.search(r'type="datetime-local" name="expires_at" value="([^"]+)"', page)[1]
    ends = datetime.strptime(shown, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    assert timedelta(days=29) < ends - timezone.now() <= timedelta(days=30)


def test_an_empty_end_is_never_whatever_the_default_is(browser, user, settings):
    settings.APIKEYS_DEFAULT_LIFETIME = {"live": timedelta(days=30)}

    browser.post(ADD, filled_in(user, expires_at=""))

    assert APIKey.objects.get().expires_at is None


def test_a_key_that_would_live_too_long_is_refused_beside_the_field(browser, user, settings):
    settings.APIKEYS_MAX_LIFETIME = {"live": timedelta(days=30)}

    response = browser.post(ADD, filled_in(user, expires_at=""))

    assert errors(response) == {"expires_at": ["A key of “live” ends within 30 days: say when."]}
    assert APIKey.objects.count() == 0


BAD = {
    "no name": ({"name": ""}, "This field is required."),
    "blank name": ({"name": "  "}, "This field is required."),
    "long name": ({"name": "x" * 101}, "at most 100 characters"),
    "unknown owner": ({"owner": "999999"}, "Select a valid choice."),
    "unknown environment": ({"environment": "prod"}, "prod is not one of the available choices"),
    "unknown scope": ({"scopes": ["nope:read"]}, "nope:read is not one of the available choices"),
    "apikeys wildcard": ({"scopes": ["apikeys:*"]}, "apikeys:* is not one of the available"),
    "bad network": ({"allowed_ips": "203.0.113"}, "is not an IP address or network."),
    "bad list": ({"allowed_ips": "[1"}, "Write one entry on a line."),
    "numbers as networks": ({"allowed_ips": "[1, 2]"}, "A list of texts is needed."),
    "bad rate": ({"rate_limit": "fast"}, "A rate is a number"),
    "past": ({"expires_at": "2020-01-01T00:00"}, "This moment is in the past."),
    "no date": ({"expires_at": "tomorrow"}, "Enter a valid date/time."),
    "metadata list": ({"metadata": "[1]"}, "A JSON object is needed."),
    "metadata text": ({"metadata": "{"}, "Enter a JSON object."),
    "metadata too deep": ({"metadata": "[" * 100_000}, "Enter a JSON object."),
    "metadata of many digits": ({"metadata": '{"a":' + "9" * 5000 + "}"}, "Enter a JSON object."),
    "metadata with a lone surrogate": ({"metadata": r'{"a": "\ud800"}'}, "cannot be stored"),
    "bad form id": ({"new_id": "x"}, "Enter a valid UUID."),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_and_nothing_is_stored(browser, user, fields, message):
    response = browser.post(ADD, filled_in(user, **fields))

    assert response.status_code == 200
    assert message in response.content.decode()
    assert APIKey.objects.count() == 0
    assert APIKeyEvent.objects.count() == 0


def test_several_bad_fields_are_named_at_once(browser, user):
    response = browser.post(ADD, filled_in(user, name="", rate_limit="fast", allowed_ips="x"))

    page = response.content.decode()
    assert "This field is required." in page
    assert "A rate is a number" in page
    assert "is not an IP address or network." in page


def test_a_name_is_needed_unless_a_setting_says_otherwise(browser, user, settings):
    settings.APIKEYS_REQUIRE_NAME = False

    browser.post(ADD, filled_in(user, name=""))

    assert APIKey.objects.get().name == ""


def test_the_list_shows_masked_keys_and_their_status(browser):
    APIKeyFactory(name="Alive")
    APIKeyFactory(name="Dead", revoked=True)

    page = browser.get(LIST).content.decode()

    assert "Alive" in page
    assert "Dead" in page
    assert page.count("rak_live_") == 2
    assert "revoked" in page


def test_the_list_takes_the_same_number_of_queries_for_2_and_40_keys(
    browser, django_assert_num_queries
):
    user = UserFactory()
    APIKeyFactory.create_batch(2, owner=user)
    with CaptureQueriesContext(connection) as few:
        browser.get(LIST)
    APIKeyFactory.create_batch(38)

    with django_assert_num_queries(len(few)):
        browser.get(LIST)


SEARCHES = {
    "name": lambda key: "eporti",
    "long name": lambda key: "reportin",
    "public id": lambda key: key.current_secret.public_id,
    "beginning of a public id": lambda key: key.current_secret.public_id[:9],
    "masked form": lambda key: key.masked,
    "masked form, typed": lambda key: key.masked.replace("…", "..."),
}


@pytest.mark.parametrize("text", SEARCHES.values(), ids=SEARCHES.keys())
def test_a_key_is_found_by(browser, text):
    key = APIKeyFactory(name="Reporting")
    APIKeyFactory(name="Another")

    page = browser.get(LIST, {"q": text(key)}).content.decode()

    assert "Reporting" in page
    assert "Another" not in page


def test_a_whole_public_id_is_found_without_reading_all_names(browser, issued):
    with CaptureQueriesContext(connection) as found:
        page = browser.get(LIST, {"q": issued.key.current_secret.public_id}).content.decode()

    assert issued.key.masked in page
    assert not [query for query in found if "LIKE" in query["sql"]]


def test_a_key_is_revoked_from_its_page_after_a_confirmation(browser, issued, client):
    page = browser.get(f"{LIST}{issued.key.pk}/change/").content.decode()
    url = f"{LIST}{issued.key.pk}/revoke/"
    assert url in page

    asked = browser.get(url)
    still = client.get("/customers/", headers=bearer(issued.secret))
    done = browser.post(url, {"confirmed": "1", "reason": "It leaked."}, follow=True)

    assert issued.key.masked in asked.content.decode()
    assert still.status_code == 200
    assert "1 key is revoked." in done.content.decode()
    assert client.get("/customers/", headers=bearer(issued.secret)).status_code == 401
    event = APIKeyEvent.objects.get(type="revoked")
    assert (event.reason, event.actor_name) == ("It leaked.", "root")


def test_a_revoked_key_offers_no_revoke(browser):
    key = APIKeyFactory(revoked=True)

    page = browser.get(f"{LIST}{key.pk}/change/").content.decode()

    assert "/revoke/" not in page


def test_selected_keys_are_revoked_after_a_confirmation(browser):
    keys = APIKeyFactory.create_batch(2)
    selected = {"action": "revoke_selected", "_selected_action": [key.pk for key in keys]}

    asked = browser.post(LIST, selected)
    before = APIKey.objects.filter(revoked_at=None).count()
    done = browser.post(LIST, {**selected, "confirmed": "1", "reason": ""}, follow=True)

    assert "for good" in asked.content.decode()
    assert before == 2
    assert "2 keys are revoked." in done.content.decode()
    assert APIKey.objects.filter(revoked_at=None).count() == 0


def test_a_reason_that_is_too_long_is_said_and_revokes_nothing(browser, issued):
    response = browser.post(
        f"{LIST}{issued.key.pk}/revoke/", {"confirmed": "1", "reason": "x" * 501}
    )

    assert "At most 500 characters" in response.content.decode()
    assert APIKey.objects.get().revoked_at is None


def test_revoking_a_key_that_is_not_there_leads_to_the_list(browser):
    response = browser.get(f"{LIST}6d2f0a3c-0000-4000-8000-000000000000/revoke/")

    assert (response.status_code, response["Location"]) == (302, LIST)


def test_staff_who_may_only_view_can_revoke_nothing(issued):
    """Neither from the page nor by the action, which is not even offered."""
    viewer = signed_in("view_apikey")

    page = viewer.get(LIST).content.decode()
    by_page = viewer.post(f"{LIST}{issued.key.pk}/revoke/", {"confirmed": "1"})
    viewer.post(
        LIST,
        {"action": "revoke_selected", "_selected_action": [issued.key.pk], "confirmed": "1"},
    )

    assert "revoke_selected" not in page
    assert by_page.status_code == 403
    assert APIKey.objects.get().revoked_at is None


def test_staff_who_may_only_view_can_add_nothing(user):
    viewer = signed_in("view_apikey")

    response = viewer.post(ADD, filled_in(user))

    assert response.status_code == 403
    assert APIKey.objects.count() == 0


# By a key of an owner who may do more, its maker would act as that owner.


@pytest.mark.parametrize(
    "superuser", [pytest.param(True, id="superuser"), pytest.param(False, id="plain")]
)
def test_staff_who_may_only_add_make_no_key_of_another(desk, superuser):
    another = UserFactory(username="another", superuser=superuser)

    response = desk.post(ADD, filled_in(another))

    assert response.status_code == 200
    assert errors(response) == {"owner": [NOT_PERMITTED]}
    assert NOT_PERMITTED in response.content.decode()
    assert APIKey.objects.count() == APIKeyEvent.objects.count() == 0


def test_staff_who_may_only_add_make_no_key_of_the_project(desk, clerk):
    response = desk.post(ADD, filled_in(clerk, owner=""))

    assert errors(response) == {"owner": [NOT_PERMITTED]}
    assert APIKey.objects.count() == 0


def test_staff_who_may_only_add_make_a_key_of_their_own(desk, clerk, client):
    response = desk.post(ADD, filled_in(clerk))

    secret = SECRET.search(response.content.decode())[0]
    assert client.get("/customers/", headers=bearer(secret)).json() == {"user": "clerk"}
    assert APIKey.objects.get().owner == clerk


def test_staff_who_may_only_add_are_told_of_an_owner_who_is_none(desk, clerk):
    response = desk.post(ADD, filled_in(clerk, owner="999999"))

    assert list(errors(response)) == ["owner"]
    assert APIKey.objects.count() == 0


@pytest.mark.parametrize("scope", ["jobs:write", "customers:*", "*"])
def test_staff_grant_no_scope_beyond_those_that_the_policy_lets_them(desk, clerk, settings, scope):
    settings.APIKEYS_POLICY = "tests.test_admin.ReadingPolicy"

    response = desk.post(ADD, filled_in(clerk, scopes=["customers:read", scope]))

    assert errors(response) == {
        "scopes": [f"This is more than you may give to an API key: scopes ({scope})."]
    }
    assert APIKey.objects.count() == 0


def test_staff_grant_the_scopes_that_the_policy_lets_them(desk, clerk, settings):
    settings.APIKEYS_POLICY = "tests.test_admin.ReadingPolicy"

    desk.post(ADD, filled_in(clerk, scopes=["customers:read"]))

    assert APIKey.objects.get().scopes == ["customers:read"]


def test_a_superuser_is_bound_by_no_policy(browser, user, settings):
    settings.APIKEYS_POLICY = "tests.test_admin.ReadingPolicy"

    browser.post(ADD, filled_in(user, scopes=["jobs:write"]))

    assert APIKey.objects.get().scopes == ["jobs:write"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_staff_who_may_revoke_and_not_view_see_no_page(issued, method):
    """The page that asks shows the key."""
    revoker = signed_in("revoke_apikey")

    response = getattr(revoker, method)(
        f"{LIST}{issued.key.pk}/revoke/", {"confirmed": "1"} if method == "post" else None
    )

    assert response.status_code == 403
    assert APIKey.objects.get().revoked_at is None


def test_a_key_that_has_gone_since_the_confirmation_is_skipped(browser, monkeypatch):
    gone, kept = APIKeyFactory.create_batch(2)
    revoke_key = services.revoke_key

    def revoke_after_it_has_gone(**fields):
        APIKey.objects.filter(pk=gone.pk).delete()
        return revoke_key(**fields)

    monkeypatch.setattr(services, "revoke_key", revoke_after_it_has_gone)

    done = browser.post(
        LIST,
        {
            "action": "revoke_selected",
            "_selected_action": [gone.pk, kept.pk],
            "confirmed": "1",
        },
        follow=True,
    )

    assert "1 key is revoked." in done.content.decode()
    assert [key.revoked_at is None for key in APIKey.objects.all()] == [False]


def test_staff_who_may_revoke_can(issued):
    revoker = signed_in("view_apikey", "revoke_apikey")

    revoker.post(f"{LIST}{issued.key.pk}/revoke/", {"confirmed": "1"})

    assert APIKey.objects.get().revoked_at is not None


def test_an_api_key_does_not_open_the_admin(issue, client):
    """The admin knows sessions alone."""
    issued = issue(scopes=["*"])

    response = client.get(LIST, headers=bearer(issued.secret))

    assert response.status_code == 302
    assert reverse("admin:login") in response["Location"]


def test_a_name_is_escaped_wherever_it_is_shown(browser, issue):
    issued = issue(name="<script>alert(1)</script>")

    pages = [
        browser.get(LIST),
        browser.get(f"{LIST}{issued.key.pk}/change/"),
        browser.get(f"{LIST}{issued.key.pk}/revoke/"),
    ]

    assert [page for page in pages if b"<script>alert(1)" in page.content] == []


@pytest.mark.parametrize("key_id", ["zz", "\x00", "6d2f0a3c-0000-4000-8000-000000000000"])
def test_selecting_what_is_no_key_revokes_nothing(browser, issued, key_id):
    response = browser.post(
        LIST,
        {"action": "revoke_selected", "_selected_action": [key_id], "confirmed": "1"},
        follow=True,
    )

    assert response.status_code == 200
    assert APIKey.objects.get().revoked_at is None


def test_metadata_are_shown_again_as_they_were_written(browser, user):
    response = browser.post(ADD, filled_in(user, metadata='{"a": '))

    assert "{&quot;a&quot;: </textarea>" in response.content.decode()
