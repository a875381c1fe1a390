"""What is done to selected keys in the admin, and by whom."""

import re
from html.parser import HTMLParser

import django
import pytest
from django.contrib.admin.models import DELETION, LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_apikeys import services
from django_apikeys.exceptions import Conflict
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret
from tests.conftest import bearer
from tests.factories import APIKeyFactory, UserFactory
from tests.test_admin import LIST, signed_in

pytestmark = pytest.mark.django_db

ACTIONS = ("disable_selected", "enable_selected", "revoke_selected", "delete_selected")
NEEDS = {
    "disable_selected": "change_apikey",
    "enable_selected": "change_apikey",
    "revoke_selected": "revoke_apikey",
    "delete_selected": "delete_apikey",
}


class Options(HTMLParser):
    """The actions that a page offers."""

    def __init__(self, page):
        super().__init__()
        self.values = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        value = dict(attrs).get("value")
        if tag == "option" and value:
            self.values.append(value)


def offered(client):
    return Options(client.get(LIST).content.decode()).values


def selected(action, *keys, **more):
    return {"action": action, "_selected_action": [key.pk for key in keys], **more}


def told(response):
    return [str(message) for message in response.context["messages"]]


def confirmed(client, action, *keys, **more):
    """Do *action*, and return what the list says of it."""
    return told(client.post(LIST, selected(action, *keys, confirmed="1", **more), follow=True))


def states():
    return list(APIKey.objects.order_by("name").values_list("enabled", "revoked_at", "deleted_at"))


# By whom.


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_offered_to_who_has_its_permission(action):
    APIKeyFactory()

    assert action in offered(signed_in("view_apikey", NEEDS[action]))


def test_who_may_only_view_is_offered_none():
    APIKeyFactory()

    assert offered(signed_in("view_apikey")) == []


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_without_its_permission_does_nothing(action):
    """All other permissions do not make up for it."""
    key = APIKeyFactory(enabled=action != "enable_selected")
    before = states()
    others = {*NEEDS.values(), "view_apikey", "add_apikey"} - {NEEDS[action]}

    for permissions in (others, ["view_apikey"]):
        client = signed_in(*permissions)
        client.post(LIST, selected(action, key, confirmed="1"), follow=True)
        client.post(LIST, selected(action, key, index="0", select_across="1"), follow=True)

    assert states() == before
    assert APIKeyEvent.objects.count() == LogEntry.objects.count() == 0


@pytest.mark.parametrize("page", ["revoke", "delete"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_a_page_without_its_permission_is_forbidden(method, page):
    key = APIKeyFactory()
    others = {*NEEDS.values(), "view_apikey"} - {f"{page}_apikey"}
    client = signed_in(*others)

    response = getattr(client, method)(f"{LIST}{key.pk}/{page}/", {"confirmed": "1"})

    assert response.status_code == 403
    assert APIKey.objects.get().revoked_at is None


# Disable and enable.


def test_selected_keys_are_disabled_after_a_confirmation(admin_client):
    keys = APIKeyFactory.create_batch(2)

    asked = admin_client.post(LIST, selected("disable_selected", *keys)).content.decode()
    before = APIKey.objects.filter(enabled=True).count()
    messages = confirmed(admin_client, "disable_selected", *keys)

    assert "until they are enabled" in asked
    assert 'name="reason"' not in asked
    assert before == 2
    assert messages == ["2 keys are disabled."]
    assert APIKey.objects.filter(enabled=False).count() == 2
    assert [entry.get_change_message() for entry in LogEntry.objects.all()] == [
        "Disabled.",
        "Disabled.",
    ]


def test_selected_keys_are_enabled(admin_client):
    key = APIKeyFactory(disabled=True)

    messages = confirmed(admin_client, "enable_selected", key)

    assert messages == ["1 key is enabled."]
    assert APIKey.objects.get().enabled is True
    assert APIKeyEvent.objects.get().changes == {"enabled": [False, True]}


def test_those_that_are_refused_are_told_and_the_others_go_on(settings):
    """Whoever may not grant what a key has does not enable it; a revoked one stays so."""
    settings.APIKEYS_POLICY = "tests.test_admin_change.ReadingPolicy"
    keys = [
        APIKeyFactory(name="a", disabled=True, scopes=["jobs:write"]),
        APIKeyFactory(name="b", disabled=True, revoked=True),
        APIKeyFactory(name="c", disabled=True, revoked=True),
        APIKeyFactory(name="d", disabled=True, scopes=["customers:read"]),
    ]

    messages = confirmed(signed_in("change_apikey"), "enable_selected", *keys)

    assert messages[0] == "1 key is enabled."
    assert sorted(messages[1:]) == [
        "1 key stays as it is: This is more than you may give to an API key: scopes (jobs:write).",
        "2 keys stay as they are: This key is revoked, for good.",
    ]
    assert list(APIKey.objects.filter(enabled=True).values_list("name", flat=True)) == ["d"]
    assert LogEntry.objects.count() == 1


def test_a_superuser_enables_whatever_the_policy_says(admin_client, settings):
    settings.APIKEYS_POLICY = "tests.test_admin.ReadingPolicy"

    messages = confirmed(
        admin_client, "enable_selected", APIKeyFactory(disabled=True, scopes=["jobs:write"])
    )

    assert messages == ["1 key is enabled."]


# Revoke.


def test_the_confirmation_says_how_many_live_keys_were_made_through_each(admin_client):
    none, one, two = (APIKeyFactory(name=name) for name in ("none", "one", "two"))
    APIKeyFactory(created_by_key=one)
    APIKeyFactory(created_by_key=one, revoked=True)
    APIKeyFactory.create_batch(2, created_by_key=two)

    page = admin_client.post(LIST, selected("revoke_selected", none, one, two)).content.decode()

    assert page.count("live key was made directly through it") == 1
    assert page.count("2 live keys were made directly through it") == 1
    assert page.count("directly through it") == 2


def test_the_confirmation_asks_no_more_of_the_database_for_40_keys(
    admin_client, django_assert_num_queries
):
    keys = APIKeyFactory.create_batch(40)
    APIKeyFactory.create_batch(40, created_by_key=keys[0])
    with CaptureQueriesContext(connection) as of_two:
        admin_client.post(LIST, selected("revoke_selected", *keys[:2]))

    with django_assert_num_queries(len(of_two)):
        admin_client.post(LIST, selected("revoke_selected", *keys))


CASCADES = {"with": ({"cascade": "1"}, [True, True, True]), "without": ({}, [True, False, False])}


@pytest.mark.parametrize(("more", "expected"), CASCADES.values(), ids=CASCADES.keys())
def test_what_was_made_through_a_key_is_revoked_where_that_is_asked(admin_client, more, expected):
    key = APIKeyFactory(name="a")
    child = APIKeyFactory(name="b", created_by_key=key)
    APIKeyFactory(name="c", created_by_key=child)

    confirmed(admin_client, "revoke_selected", key, reason="It leaked.", **more)

    assert [revoked is not None for _enabled, revoked, _deleted in states()] == expected
    assert APIKey.objects.get(pk=key.pk).revoked_reason == "It leaked."


def test_what_was_asked_stays_where_the_reason_is_too_long(admin_client):
    key = APIKeyFactory()

    response = admin_client.post(
        f"{LIST}{key.pk}/revoke/", {"confirmed": "1", "cascade": "1", "reason": "x" * 501}
    )

    page = response.content.decode()
    assert 'name="cascade" value="1" checked' in page
    assert "x" * 501 in page
    assert APIKey.objects.get().revoked_at is None


def test_staff_revoke_what_they_could_not_grant(settings):
    """To take a key away gives nobody more."""
    settings.APIKEYS_POLICY = "tests.test_admin.ReadingPolicy"
    key = APIKeyFactory(scopes=["jobs:write"])

    messages = confirmed(signed_in("view_apikey", "revoke_apikey"), "revoke_selected", key)

    assert messages == ["1 key is revoked."]


# Delete.


def test_selected_keys_are_deleted_after_a_confirmation(admin_client):
    """Their rows and events stay; they leave the list."""
    keys = [APIKeyFactory(name="First"), APIKeyFactory(name="Second")]

    asked = admin_client.post(LIST, selected("delete_selected", *keys)).content.decode()
    before = APIKey.objects.filter(deleted_at=None).count()
    messages = confirmed(admin_client, "delete_selected", *keys, reason="Of no use.")

    assert "leave every list" in asked
    assert 'name="cascade"' not in asked
    assert before == 2
    assert messages == ["2 keys are deleted."]
    assert [None in state for state in states()] == [False, False]
    assert "First" not in admin_client.get(LIST).content.decode()
    events = APIKeyEvent.objects.values_list("type", "reason")
    assert list(events) == [("deleted", "Of no use.")] * 2
    assert list(LogEntry.objects.values_list("action_flag", flat=True)) == [DELETION] * 2


def test_a_key_is_deleted_from_its_page(admin_client, issued, client):
    page = admin_client.get(f"{LIST}{issued.key.pk}/change/").content.decode()
    url = f"{LIST}{issued.key.pk}/delete/"
    assert url in page

    asked = admin_client.get(url).content.decode()
    still = client.get("/customers/", headers=bearer(issued.secret)).status_code
    done = admin_client.post(url, {"confirmed": "1"}, follow=True)
    gone = admin_client.get(f"{LIST}{issued.key.pk}/change/")

    assert issued.key.masked in asked
    assert still == 200
    assert done.redirect_chain == [(LIST, 302)]
    assert told(done) == ["1 key is deleted."]
    assert gone.status_code == 302
    answer = client.get("/customers/", headers=bearer(issued.secret))
    assert answer.json()["code"] == "revoked_key"
    assert APIKeySecret.objects.count() == 1


@pytest.mark.parametrize("key_id", ["6d2f0a3c-0000-4000-8000-000000000000", "zz"])
def test_deleting_a_key_that_is_not_there_leads_to_the_list(admin_client, key_id):
    response = admin_client.post(f"{LIST}{key_id}/delete/", {"confirmed": "1"}, follow=True)

    assert response.redirect_chain == [(LIST, 302)]
    assert told(response) == ["There are no such keys."]


def test_deleting_an_owner_takes_their_keys_along_and_leaves_an_event(admin_client):
    owner = UserFactory(username="gone")
    kept = APIKeyFactory(name="kept")
    key = APIKeyFactory(owner=owner, name="theirs")
    masked = key.masked

    response = admin_client.post(f"/admin/auth/user/{owner.pk}/delete/", {"post": "yes"})

    assert response.status_code == 302
    assert list(APIKey.objects.all()) == [kept]
    event = APIKeyEvent.objects.get()
    assert (event.type, event.key_masked, event.owner_name) == ("deleted", masked, "gone")


def test_an_owner_with_keys_stays_where_keys_may_not_be_deleted():
    owner = APIKeyFactory().owner
    client = signed_in("delete_user", "view_user")

    response = client.post(f"/admin/auth/user/{owner.pk}/delete/", {"post": "yes"})

    assert response.status_code == 403
    assert APIKey.objects.count() == 1


# Many, none, and those that have gone.


@pytest.mark.parametrize("action", ACTIONS)
def test_more_keys_than_a_request_bears_are_left_alone(admin_client, monkeypatch, action):
    monkeypatch.setattr("django_apikeys.admin.confirmed.MOST_AT_ONCE", 2)
    keys = APIKeyFactory.create_batch(3)
    before = states()

    response = admin_client.post(
        LIST, selected(action, keys[0], index="0", select_across="1"), follow=True
    )

    problem = "At most 2 keys at a time: narrow the selection by search and filters."
    command = (
        " Or use the command: manage.py apikeys revoke takes any number, by --owner, "
        "--created-by or --from-file."
    )
    assert told(response) == [problem + command * (action == "revoke_selected")]
    assert states() == before


@pytest.mark.parametrize("name", ["owner", "created_by"])
def test_all_keys_of_a_person_are_revoked(admin_client, name):
    """The filter of the list holds for all that is selected: who has left is looked for first."""
    ann = UserFactory(username="ann")
    keys = APIKeyFactory.create_batch(3, **{name: ann})
    child = APIKeyFactory(created_by_key=keys[0])
    kept = APIKeyFactory(created_by=UserFactory())
    query = f"{LIST}?{name}=ann"
    all_of_them = selected("revoke_selected", keys[0], index="0", select_across="1")

    page = admin_client.post(query, all_of_them).content.decode()
    shown = re.findall(r'name="_selected_action" value="([0-9a-f-]{36})"', page)
    admin_client.post(
        query, {**all_of_them, "_selected_action": shown, "confirmed": "1", "cascade": "1"}
    )

    alive = APIKey.objects.filter(revoked_at=None)
    assert set(shown) == {str(key.pk) for key in keys}
    assert list(alive) == [kept]
    assert APIKey.objects.get(pk=child.pk).revoked_at is not None


def test_a_selection_of_all_is_confirmed_as_the_keys_that_were_shown(admin_client):
    """A key that is made in between was not confirmed."""
    keys = APIKeyFactory.create_batch(2)

    page = admin_client.post(
        LIST, selected("revoke_selected", keys[0], index="0", select_across="1")
    ).content.decode()

    assert [page.count(f'name="_selected_action" value="{key.pk}"') for key in keys] == [1, 1]
    assert "select_across" not in page


def test_the_filters_of_the_list_hold_for_all_that_is_selected(admin_client):
    APIKeyFactory(name="kept", disabled=True)
    key = APIKeyFactory(name="gone")
    more = {"index": "0", "select_across": "1"}

    page = admin_client.post(
        f"{LIST}?status=active", selected("revoke_selected", key, **more)
    ).content.decode()

    assert f'value="{key.pk}"' in page
    assert "kept" not in page
    assert f'href="{LIST}?status=active"' in page


@pytest.mark.parametrize("action", ACTIONS)
def test_a_key_that_is_gone_by_now_is_told(admin_client, monkeypatch, action):
    def refuse(**fields):
        raise Conflict("This key is gone.")

    for name in ("update_key", "revoke_key", "delete_key"):
        monkeypatch.setattr(services, name, refuse)

    messages = confirmed(admin_client, action, APIKeyFactory())

    assert messages == ["1 key stays as it is: This key is gone."]
    assert LogEntry.objects.count() == 0


@pytest.mark.parametrize("action", ACTIONS)
def test_a_name_is_escaped_where_it_is_asked(admin_client, action):
    key = APIKeyFactory(name="<script>alert(1)</script>")

    page = admin_client.post(LIST, selected(action, key)).content.decode()

    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


@pytest.mark.parametrize(
    ("number", "title", "question", "offspring"),
    [
        pytest.param(
            1,
            "Revoke API key",
            "This key will be refused from the next request on, for good:",
            "Also revoke every key that was made through it, and through those, to the last",
            id="one",
        ),
        pytest.param(
            2,
            "Revoke API keys",
            "These keys will be refused from the next request on, for good:",
            "Also revoke every key that was made through these, and through those, to the last",
            id="more",
        ),
    ],
)
def test_the_page_that_asks_counts_the_keys(number, title, question, offspring, admin_client):
    keys = APIKeyFactory.create_batch(number)

    page = admin_client.post(LIST, selected("revoke_selected", *keys)).content.decode()

    assert f"<h1>{title}</h1>" in page
    assert f"<p>{question}</p>" in page
    assert offspring in page


def test_the_page_that_asks_leads_back_to_the_key(admin_client, issued):
    page = admin_client.get(f"{LIST}{issued.key.pk}/revoke/").content.decode()

    # In the markup that Django has styles for.
    crumbs = re.search(r'<(ol|div) class="breadcrumbs">(.*?)</\1>', page, re.DOTALL)
    assert crumbs[1] == ("ol" if django.VERSION >= (6, 1) else "div")
    assert re.findall(r'<a href="([^"]+)">', crumbs[2]) == [
        "/admin/",
        "/admin/django_apikeys/",
        LIST,
        f"{LIST}{issued.key.pk}/change/",
    ]
