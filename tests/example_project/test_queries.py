"""What a verified request costs, and what a page of keys."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory
from rest_framework.views import APIView

from django_apikeys.models import APIKey, APIKeySecret, APIKeyTotals
from tests.example_project.factories import (
    CustomerFactory,
    JobFactory,
    PriceBookItemFactory,
)

FACTORIES = {"customers": CustomerFactory, "jobs": JobFactory, "pricebook": PriceBookItemFactory}


class Scoped(APIView):
    """A view with scopes, which asks the database for nothing itself."""

    scope_resource = "customers"

    def get(self, request):
        return Response({"owner": request.auth.owner_id, "plan": request.auth.plan})


def add_keys(owner, numbers):
    keys = APIKey.objects.bulk_create(
        APIKey(owner=owner, name=f"key {number}", environment="live", scopes=["customers:read"])
        for number in numbers
    )
    APIKeySecret.objects.bulk_create(
        APIKeySecret(
            key=key,
            prefix="rak",
            public_id=f"{number:012}",
            last_four="0000",
            digest="hmac-sha256$none$" + "0" * 64,
        )
        for number, key in zip(numbers, keys, strict=True)
    )
    APIKeyTotals.objects.bulk_create(APIKeyTotals(key=key, requests=3) for key in keys)


@pytest.fixture
def crowd(acme):
    """5 000 other keys of Acme."""
    add_keys(acme, range(5000))


def statements(call):
    """Return the first words of each statement of *call*, and how many touch keys."""
    with CaptureQueriesContext(connection) as queries:
        answer = call()
    assert answer.status_code == 200
    texts = [query["sql"] for query in queries]
    return [text.split()[0] for text in texts], sum("django_apikeys" in text for text in texts)


def test_a_verified_request_costs_one_select(issue):
    """After the first use of its secret, which is noted by one UPDATE more."""
    request = APIRequestFactory().get("/", headers={"X-API-Key": issue("customers:read").secret})
    view = Scoped.as_view()

    first, _touching = statements(lambda: view(request))
    second, touching = statements(lambda: view(request))

    assert first == ["SELECT", "UPDATE"]
    assert (second, touching) == (["SELECT"], 1)


@pytest.mark.parametrize("resource", FACTORIES)
def test_a_list_costs_the_key_a_count_and_a_page(resource, program, acme):
    """However many rows there are: no row asks for its customer."""
    FACTORIES[resource].create_batch(5, organisation=acme)
    client, path = program(f"{resource}:read"), f"/api/v1/{resource}/"
    client.get(path)

    found, touching = statements(lambda: client.get(path))

    assert (found, touching) == (["SELECT", "SELECT", "SELECT"], 1)


def test_5000_other_keys_of_the_owner_change_nothing(program, acme, crowd):
    CustomerFactory.create(organisation=acme)
    client = program("customers:read")
    client.get("/api/v1/customers/")

    found, touching = statements(lambda: client.get("/api/v1/customers/"))

    assert (found, touching) == (["SELECT", "SELECT", "SELECT"], 1)


# Of each page the statements, which are its session and its user first.
PAGES = {
    "/settings/api-keys/": 10,
    "/settings/api-keys/?search=key&status=active&sort=-usage": 10,
    "/settings/api-keys/{key}/": 11,
    "/settings/api-keys/{key}/settings/": 9,
    "/settings/api-keys/{key}/history/": 10,
    "/admin/django_apikeys/apikey/": 6,
    "/admin/django_apikeys/apikey/?q=key&status=active&o=-5": 6,
}


@pytest.mark.parametrize(("page", "number"), PAGES.items(), ids=PAGES.keys())
def test_a_page_costs_as_much_with_500_keys_as_with_10(page, number, person, acme, issue):
    """Each shows as many of them as fit."""
    in_admin = page.startswith("/admin/")
    browser = person("owner", acme, is_staff=in_admin, is_superuser=in_admin)
    path = page.format(key=issue(name="key").key.pk)
    add_keys(acme, range(10))

    few, _touching = statements(lambda: browser.get(path))
    add_keys(acme, range(10, 500))
    many, _touching = statements(lambda: browser.get(path))

    assert (len(few), len(many)) == (number, number)
