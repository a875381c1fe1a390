"""The audit trail in the admin: read-only, and of any length."""

import re

import pytest
from django.contrib.admin import site
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from tests.factories import APIKeyFactory
from tests.test_admin import signed_in

pytestmark = pytest.mark.django_db

LIST = "/admin/django_apikeys/apikeyevent/"
HOSTILE = "<script>alert(1)</script>"


def listed(client, **query):
    """Return the types of the events on the page, the newest first."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    return [event.type for event in response.context["cl"].result_list]


@pytest.fixture
def trail(issue):
    """A key that was created, changed and revoked, beside another one."""
    issue(name="Another")
    key = issue(name="Reporting").key
    services.update_key(key=key, name="Exports", actor=None)
    return services.revoke_key(key=key, reason="It leaked.")


def test_the_newest_event_comes_first(admin_client, trail):
    assert listed(admin_client) == ["revoked", "updated", "created", "created"]


def test_the_list_tells_who_did_what_to_which_key(admin_client, issued):
    page = admin_client.get(LIST).content.decode()

    cells = {
        "type": "created",
        "named": f"a key {issued.key.masked}",
        "owner_name": "ann",
        "actor": "ann user",
    }
    for name, text in cells.items():
        cell = re.search(f'<td class="field-{name}">(.*?)</td>', page)[1]
        assert re.sub("<[^>]+>", "", cell) == text


FILTERS = {
    "type": ({"type": "updated"}, ["updated"]),
    "actor": ({"actor_kind": "user"}, ["created", "created"]),
    "both": ({"actor_kind": "system", "type": "revoked"}, ["revoked"]),
    "long ago": ({"at__lt": "2020-01-01 00:00:00+00:00"}, []),
}


@pytest.mark.parametrize(("query", "types"), FILTERS.values(), ids=FILTERS.keys())
def test_events_are_narrowed(admin_client, trail, query, types):
    assert listed(admin_client, **query) == types


@pytest.mark.parametrize("name", ["type", "actor_kind"])
def test_a_value_that_there_is_not_leads_back_to_the_list(admin_client, name):
    response = admin_client.get(LIST, {name: "nope"})

    assert (response.status_code, response["Location"]) == (302, f"{LIST}?e=1")


def test_the_events_of_a_key_outlive_it(admin_client, trail):
    services.delete_key(key=trail)

    types = listed(admin_client, key_id__exact=str(trail.pk))

    assert types == ["deleted", "revoked", "updated", "created"]


def test_what_is_no_id_of_a_key_shows_no_events_and_says_so(admin_client, trail):
    page = admin_client.get(LIST, {"key_id__exact": "zz"}).content.decode()

    assert "This is not the id of a key." in page
    assert "Exports" not in page


SEARCHES = {
    "id": (lambda key: str(key.pk), ["revoked", "updated", "created"]),
    "public id": (
        lambda key: key.current_secret.public_id,
        ["revoked", "updated", "created"],
    ),
    "masked form": (lambda key: key.masked, ["revoked", "updated", "created"]),
    "beginning of a name": (lambda key: " Expo", ["revoked", "updated"]),
    "within a name": (lambda key: "xpor", []),
    "blank": (lambda key: " ", ["revoked", "updated", "created", "created"]),
}


@pytest.mark.parametrize(("text", "types"), SEARCHES.values(), ids=SEARCHES.keys())
def test_events_are_found_by(admin_client, trail, text, types):
    assert listed(admin_client, q=text(trail)) == types


def test_the_page_of_an_event_tells_all_of_it(admin_client, trail):
    event = APIKeyEvent.objects.get(type="updated")

    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()

    assert "name: Reporting → Exports" in page
    assert f'<a href="/admin/django_apikeys/apikey/{trail.pk}/change/">Exports</a>' in page
    assert f"{event.at:%M:%S}" in page
    assert "/history/" not in page


def test_changes_are_shown_as_they_are_stored(admin_client, issued):
    services.update_key(key=issued.key, scopes=[], description="é", metadata={"a": 1})
    event = APIKeyEvent.objects.get(type="updated")

    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()

    assert "scopes: [&quot;customers:read&quot;] → []" in page
    assert "description: &quot;&quot; → é" in page
    assert "metadata: {} → {&quot;a&quot;: 1}" in page


def test_an_event_of_an_owner_alone_leads_to_no_key(admin_client):
    event = APIKeyEvent.objects.create(type="created", actor_kind="system")

    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()

    assert "/admin/django_apikeys/apikey/None" not in page


def test_a_site_without_a_list_of_keys_names_the_key(admin_client, issued, monkeypatch):
    monkeypatch.delitem(site._registry, APIKey)
    event = APIKeyEvent.objects.get()

    page = admin_client.get(f"{LIST}{event.pk}/change/").content.decode()

    assert '<div class="readonly">a key</div>' in page


def test_text_of_others_is_escaped(admin_client, issue):
    key = issue(name=HOSTILE, description=HOSTILE, metadata={HOSTILE: HOSTILE}).key
    services.revoke_key(key=key, reason=HOSTILE)
    APIKeyEvent.objects.create(
        type="created",
        actor_kind="user",
        actor_name=HOSTILE,
        owner_name=HOSTILE,
        user_agent=HOSTILE,
    )

    urls = [LIST, *(f"{LIST}{event.pk}/change/" for event in APIKeyEvent.objects.all())]
    pages = [admin_client.get(url).content.decode() for url in urls]

    assert ["&lt;script&gt;alert(1)" in page for page in pages] == [True] * 4
    assert [page for page in pages if "<script>alert(1)" in page] == []


@pytest.mark.parametrize("page", ["add/", "{pk}/delete/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_nobody_adds_or_deletes_an_event(admin_client, issued, method, page):
    event = APIKeyEvent.objects.get()

    response = getattr(admin_client, method)(LIST + page.format(pk=event.pk), {"post": "yes"})

    assert response.status_code == 403
    assert APIKeyEvent.objects.count() == 1


def test_nobody_changes_an_event(admin_client, issued):
    event = APIKeyEvent.objects.get()

    response = admin_client.post(f"{LIST}{event.pk}/change/", {"type": "revoked"})

    assert response.status_code == 403
    assert APIKeyEvent.objects.get().type == "created"


def test_no_action_is_offered_and_none_is_done(admin_client, issued):
    event = APIKeyEvent.objects.get()

    page = admin_client.get(LIST).content.decode()
    admin_client.post(
        LIST, {"action": "delete_selected", "_selected_action": [event.pk], "post": "yes"}
    )

    assert "delete_selected" not in page
    assert APIKeyEvent.objects.count() == 1


MAY = {"view_apikeyevent": 200, "view_apikey": 403, "change_apikey": 403}


@pytest.mark.parametrize(("permission", "status"), MAY.items())
def test_events_are_read_by_who_may_view_them(issued, permission, status):
    client = signed_in(permission)
    event = APIKeyEvent.objects.get()

    assert client.get(LIST).status_code == status
    assert client.get(f"{LIST}{event.pk}/change/").status_code == status


@pytest.mark.parametrize("number", [10, pytest.param(10_500, marks=pytest.mark.large)])
def test_the_list_costs_four_statements_and_counts_no_further_than_its_pages(admin_client, number):
    """Session, user, a count that ends, a page of events by their primary key."""
    key = APIKeyFactory()
    APIKeyEvent.objects.bulk_create(
        (
            APIKeyEvent(type="created", actor_kind="system", key_id=key.pk, key_name=f"{row}")
            for row in range(number)
        ),
        batch_size=2000,
    )

    for query in ({}, {"type": "created"}, {"q": "1"}, {"key_id__exact": str(key.pk)}):
        with CaptureQueriesContext(connection) as statements:
            admin_client.get(LIST, query)
        texts = [statement["sql"] for statement in statements]
        assert len(texts) == 4, query
        assert "LIMIT 10001" in texts[2]
        order = texts[3].partition("ORDER BY")[2].replace('"', "").replace("`", "")
        assert order.split()[:2] == ["django_apikeys_apikeyevent.id", "DESC"]
