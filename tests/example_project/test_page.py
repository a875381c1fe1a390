"""The page of an organisation's keys: each call by each role, and by others."""

import re

import pytest
from django.test import Client

from django_apikeys import services
from django_apikeys.models import APIKey, APIKeyEvent
from tests.example_project.factories import MembershipFactory, UserFactory
from tests.web.typed import form_of, secret_in

LIST = "/settings/api-keys/"
ROLES = ("owner", "admin", "member", "other", "anonymous")
# The status that each role is answered, in the order of ROLES.
CALLS = {
    "GET ": (200, 200, 200, 200, 302),
    "GET new/": (200, 403, 403, 200, 302),
    "POST new/": (200, 403, 403, 200, 302),
    "GET {key}/": (200, 200, 200, 404, 302),
    "GET {key}/?span=12m": (200, 200, 200, 404, 302),
    "GET {key}/history/": (200, 200, 200, 404, 302),
    "GET {key}/settings/": (200, 403, 403, 404, 302),
    "POST {key}/settings/": (302, 403, 403, 404, 302),
    "GET {key}/rotate/": (200, 403, 403, 404, 302),
    "GET {key}/rotate/?why=planned": (200, 403, 403, 404, 302),
    "GET {key}/rotate/?why=leaked": (200, 403, 403, 404, 302),
    "POST {key}/rotate/": (200, 403, 403, 404, 302),
    "GET {key}/reveal/": (409, 403, 403, 404, 302),
    "POST {key}/reveal/": (409, 403, 403, 404, 302),
    "GET {key}/retire/": (200, 403, 403, 404, 302),
    "POST {key}/retire/": (302, 403, 403, 404, 302),
    "GET {key}/revoke/": (200, 200, 403, 404, 302),
    "POST {key}/revoke/": (302, 302, 403, 404, 302),
    "GET {key}/delete/": (200, 403, 403, 404, 302),
    "POST {key}/delete/": (302, 403, 403, 404, 302),
}
TYPED = {
    "new/": {"name": "New"},
    "settings/": {"name": "Renamed"},
    "rotate/": {"why": "planned", "grace_seconds": "3600", "starts": "now"},
}
# What a role is offered on the page of a key.
OFFERED = {
    "owner": ["delete", "history", "retire", "revoke", "rotate", "settings"],
    "admin": ["history", "revoke"],
    "member": ["history"],
}


@pytest.fixture
def key(issue):
    """A key of Acme with two secrets, so that each of its pages is there."""
    key = issue("customers:read", name="Export").key
    services.rotate_key(key=key)
    return key


@pytest.fixture
def visitor(acme, globex):
    """Make a browser of somebody in a role: in Acme, in another organisation, or in none."""

    def visitor(role):
        client = Client(enforce_csrf_checks=True)
        if role != "anonymous":
            place = globex if role == "other" else acme
            name = "owner" if role == "other" else role
            membership = MembershipFactory.create(organisation=place, role=name)
            client.force_login(membership.user)
        return client

    return visitor


def send(client, call, key):
    method, _, path = call.partition(" ")
    target = LIST + path.format(key=key.pk)
    if method == "GET":
        return client.get(target)
    # The token is that of a page which everybody sees; the rest as far as there is a form.
    page = "?why=planned" if "rotate" in path else ""
    form = form_of(client.get(target + page))
    name = path.replace("{key}/", "")
    client.get("/accounts/login/")
    token = form_of(client.get("/accounts/login/"))["csrfmiddlewaretoken"]
    return client.post(target, {**form, **TYPED.get(name, {}), "csrfmiddlewaretoken": token})


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("call", CALLS)
def test_each_call_is_answered_by_role(call, role, visitor, key):
    events = APIKeyEvent.objects.count()

    answer = send(visitor(role), call, key)

    expected = CALLS[call][ROLES.index(role)]
    assert answer.status_code == expected
    changed = APIKeyEvent.objects.count() > events
    done = call.startswith("POST") and expected in (200, 302) and role != "anonymous"
    assert changed is done
    if role == "anonymous":
        assert answer["Location"].startswith("/accounts/login/?next=/settings/api-keys/")


@pytest.mark.parametrize("role", OFFERED)
def test_nobody_is_offered_what_would_be_refused(role, visitor, key):
    client = visitor(role)

    page = client.get(f"{LIST}{key.pk}/").content.decode()
    listed = client.get(LIST).content.decode()

    found = sorted(set(re.findall(rf'href="{LIST}{key.pk}/(\w+)/', page)))
    assert found == OFFERED[role]
    assert (f'href="{LIST}new/"' in listed) is (role == "owner")


def test_another_organisations_keys_are_not_listed(visitor, key):
    listed = visitor("other").get(LIST).content.decode()

    assert "Export" not in listed
    assert "No API keys yet" in listed


def test_a_key_is_made_and_used(visitor, acme, client):
    browser = visitor("owner")
    form = form_of(browser.get(f"{LIST}new/"))

    answer = browser.post(f"{LIST}new/", {**form, "name": "Export", "scopes": ["customers:read"]})

    secret = secret_in(answer)
    assert APIKey.objects.get().owner == acme
    assert client.get("/api/v1/customers/", headers={"X-API-Key": secret}).status_code == 200
    assert "http://testserver/api/v1/keys/self/" in answer.content.decode()


def test_the_organisation_cannot_be_chosen_from_outside(visitor, acme, globex):
    browser = visitor("owner")
    form = form_of(browser.get(f"{LIST}new/"))

    answer = browser.post(f"{LIST}new/", {**form, "name": "x", "owner": str(globex.pk)})

    assert form["owner"] == str(acme.pk)
    assert "There is no such owner." in answer.content.decode()
    assert not APIKey.objects.exists()


def test_an_owner_of_two_organisations_chooses(acme, globex):
    user = UserFactory.create()
    for place in (acme, globex):
        MembershipFactory.create(organisation=place, user=user, role="owner")
    browser = Client()
    browser.force_login(user)

    form = browser.get(f"{LIST}new/")
    browser.post(f"{LIST}new/", {**form_of(form), "name": "Import", "owner": str(globex.pk)})
    listed = browser.get(LIST, {"owner": str(globex.pk)}).content.decode()

    assert f'<option value="{acme.pk}" selected>Acme</option>' in form.content.decode()
    assert APIKey.objects.get().owner == globex
    assert '<p class="apikeys-owner">Globex</p>' in listed
    assert "of 10,000 calls used this month" in listed


def test_a_person_without_an_organisation_sees_an_empty_list(db):
    browser = Client()
    browser.force_login(UserFactory.create())

    listed = browser.get(LIST).content.decode()

    assert "You may look at keys, but not create them" in listed


def test_the_page_stands_in_the_layout_of_the_site(visitor):
    page = visitor("owner").get(LIST).content.decode()

    assert '<a class="brand" href="/">Example CRM</a>' in page
    assert 'href="/static/django_apikeys/web.css"' in page


def test_the_stylesheet_is_served(client, db):
    answer = client.get("/static/django_apikeys/web.css")

    assert answer.status_code == 200
    assert b"light-dark(#1c2330, #e6e9ef)" in b"".join(answer.streaming_content)
    answer.close()
