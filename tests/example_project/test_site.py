"""The pages, and what stands outside of any view."""

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.test import Client

from django_apikeys import services
from django_apikeys.models import APIKeyEvent
from example_project import errors
from example_project.crm import views
from tests.example_project.factories import (
    CustomerFactory,
    InvoiceFactory,
    JobFactory,
    MembershipFactory,
    PriceBookItemFactory,
    WebhookSubscriptionFactory,
)


@pytest.fixture
def browser(db):
    return Client(raise_request_exception=False)


def test_the_index_leads_to_keys_api_admin_and_login(browser):
    page = browser.get("/").content.decode()

    for path in ("/api/v1/keys/", "/api/v1/", "/admin/", "/accounts/login/"):
        assert f'href="{path}"' in page


def test_a_person_logs_in_and_out(browser):
    get_user_model().objects.create_user("ann", password="a password of ann")

    page = browser.get("/accounts/login/").content.decode()
    login = browser.post("/accounts/login/", {"username": "ann", "password": "a password of ann"})
    index = browser.get("/").content.decode()
    logout = browser.post("/accounts/logout/")

    assert 'name="username"' in page
    assert (login.status_code, login["Location"]) == (302, "/")
    assert "Log out ann" in index
    assert (logout.status_code, logout["Location"]) == (302, "/")


def test_the_stylesheet_is_served_without_collectstatic(browser):
    answer = browser.get("/static/site/site.css")

    assert (answer.status_code, answer["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert b"font:" in b"".join(answer.streaming_content)
    answer.close()


@pytest.mark.parametrize(
    "model",
    [
        "organisation",
        "membership",
        "customer",
        "job",
        "invoice",
        "pricebookitem",
        "webhooksubscription",
    ],
)
def test_the_staff_look_after_the_crm_in_the_admin(model, admin_client, acme):
    MembershipFactory.create(organisation=acme)
    for factory in (
        CustomerFactory,
        JobFactory,
        InvoiceFactory,
        PriceBookItemFactory,
        WebhookSubscriptionFactory,
    ):
        factory.create(organisation=acme)

    listed = admin_client.get(f"/admin/crm/{model}/?q=a")
    form = admin_client.get(f"/admin/crm/{model}/add/")

    assert (listed.status_code, form.status_code) == (200, 200)


def test_the_staff_find_and_change_the_keys_of_an_organisation(admin_client, acme):
    """By its slug, as commands name it."""
    key = services.create_key(owner=acme, name="Export", scopes=["jobs:read"]).key
    services.create_key(owner=None, name="Of the project")
    keys = "/admin/django_apikeys/apikey/"

    listed = admin_client.get(keys, {"owner": acme.slug}).content.decode()
    saved = admin_client.post(
        f"{keys}{key.pk}/change/",
        {"name": "Import", "scopes": ["jobs:read"], "enabled": "on", "metadata": "{}"},
    )

    assert ("Export" in listed, "Of the project" in listed) == (True, False)
    assert saved.status_code == 302
    assert APIKeyEvent.objects.get(type="updated").changes == {"name": ["Export", "Import"]}


def test_rows_have_names_for_people(acme):
    customer = CustomerFactory.create(organisation=acme, name="Maria Keller")
    membership = MembershipFactory.create(organisation=acme, user__username="ann", role="admin")

    assert [
        str(acme),
        str(customer),
        str(membership),
        str(JobFactory.create(organisation=acme, title="Leaking tap")),
        str(InvoiceFactory.create(organisation=acme, number="N-1")),
        str(PriceBookItemFactory.create(organisation=acme, name="Siphon")),
        str(WebhookSubscriptionFactory.create(organisation=acme)),
    ] == [
        "Acme",
        "Maria Keller",
        "ann, admin of Acme",
        "Leaking tap",
        "N-1",
        "Siphon",
        "job.done to https://example.com/hook",
    ]


@pytest.mark.parametrize("debug", [False, True])
def test_an_unknown_address_of_the_api_is_404_in_the_envelope(debug, browser, settings):
    settings.DEBUG = debug

    answer = browser.get("/api/v1/nothing/")

    assert answer.status_code == 404
    assert answer.json() == {
        "error": {
            "code": "NOT_FOUND",
            "reason": "not_found",
            "message": "There is nothing at this address.",
        }
    }


def test_a_forgotten_slash_is_still_added(browser):
    answer = browser.get("/api/v1/customers")

    assert (answer.status_code, answer["Location"]) == (301, "/api/v1/customers/")


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_a_forgotten_slash_is_said_where_a_redirect_would_lose_the_method(
    method, debug, browser, settings
):
    settings.DEBUG = debug

    answer = getattr(browser, method)("/api/v1/keys/self")

    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == (
        "A slash is missing at the end: /api/v1/keys/self/"
    )


def test_an_unknown_address_asks_for_no_csrf_token():
    """A program that calls it with a key is told 404 in the envelope."""
    answer = Client(enforce_csrf_checks=True).post("/api/v1/nothing/")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


def test_an_unknown_host_is_400_in_the_envelope(browser):
    answer = browser.get("/api/v1/customers/", headers={"Host": "evil.example"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "BAD_REQUEST")


def test_a_failure_of_a_view_is_500_in_the_envelope_and_says_nothing(browser, monkeypatch, acme):
    def fail(self):
        raise RuntimeError("an inner matter")

    monkeypatch.setattr(views.CustomerViewSet, "get_queryset", fail)
    browser.force_login(MembershipFactory.create(organisation=acme).user)

    answer = browser.get("/api/v1/customers/")

    assert answer.status_code == 500
    assert answer.json() == {
        "error": {
            "code": "INTERNAL_SERVER_ERROR",
            "reason": "server_error",
            "message": "Something went wrong here.",
        }
    }


HANDLERS = {
    400: lambda request: errors.bad_request(request, Exception()),
    403: lambda request: errors.permission_denied(request, PermissionDenied()),
    404: lambda request: errors.not_found(request, Exception()),
    500: errors.server_error,
}


@pytest.mark.parametrize("status", HANDLERS)
@pytest.mark.parametrize(
    ("path", "content_type"),
    [("/api/v1/x/", "application/json"), ("/x/", "text/html"), ("/apiary/", "text/html")],
)
def test_errors_are_json_under_api_and_djangos_pages_elsewhere(path, content_type, status, rf):
    answer = HANDLERS[status](rf.get(path))

    assert (answer.status_code, answer["Content-Type"].split(";")[0]) == (status, content_type)
