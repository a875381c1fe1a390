"""The CRM's API: scopes, and one organisation at a time."""

import pytest

from example_project.crm.models import Customer, Job, WebhookSubscription
from tests.example_project.factories import (
    CustomerFactory,
    InvoiceFactory,
    JobFactory,
    PriceBookItemFactory,
    WebhookSubscriptionFactory,
)

FACTORIES = {
    "customers": CustomerFactory,
    "jobs": JobFactory,
    "invoices": InvoiceFactory,
    "pricebook": PriceBookItemFactory,
    "webhooks": WebhookSubscriptionFactory,
}
SCOPES = (
    "customers:read",
    "customers:write",
    "jobs:read",
    "jobs:write",
    "invoices:read",
    "invoices:write",
    "pricebook:read",
    "webhooks:write",
)


@pytest.fixture
def customer(acme):
    return CustomerFactory.create(organisation=acme, name="Maria Keller")


@pytest.fixture
def colleague(person, acme):
    return person("owner", acme)


@pytest.fixture
def rows(acme):
    return {name: factory.create(organisation=acme) for name, factory in FACTORIES.items()}


HOOK = {"url": "https://example.com/", "event": "job.done"}
# A call is a method, a resource, the body, and whether it is about one row.
CALLS = [
    (("get", "customers", None, False), 200, "customers:read"),
    (("head", "customers", None, False), 200, "customers:read"),
    (("get", "customers", None, True), 200, "customers:read"),
    (("post", "customers", {"name": "n"}, False), 201, "customers:write"),
    (("put", "customers", {"name": "n"}, True), 200, "customers:write"),
    (("patch", "customers", {"name": "n"}, True), 200, "customers:write"),
    (("delete", "customers", None, True), 204, "customers:write"),
    (("get", "jobs", None, False), 200, "jobs:read"),
    (("get", "jobs", None, True), 200, "jobs:read"),
    (("patch", "jobs", {"title": "t"}, True), 200, "jobs:write"),
    (("delete", "jobs", None, True), 204, "jobs:write"),
    (("get", "invoices", None, False), 200, "invoices:read"),
    (("get", "invoices", None, True), 200, "invoices:read"),
    (("patch", "invoices", {"status": "paid"}, True), 200, "invoices:write"),
    (("delete", "invoices", None, True), 204, "invoices:write"),
    (("get", "pricebook", None, False), 200, "pricebook:read"),
    (("get", "pricebook", None, True), 200, "pricebook:read"),
    (("post", "pricebook", {"name": "n"}, False), 405, "pricebook:read"),
    (("delete", "pricebook", None, True), 405, "pricebook:read"),
    (("post", "webhooks", HOOK, False), 201, "webhooks:write"),
    (("patch", "webhooks", {"is_active": False}, True), 200, "webhooks:write"),
    (("get", "webhooks", None, False), 405, "webhooks:write"),
    (("get", "webhooks", None, True), 405, "webhooks:write"),
    (("delete", "webhooks", None, True), 405, "webhooks:write"),
]


def call(client, method, resource, body=None, row=None):
    path = f"/api/v1/{resource}/" if row is None else f"/api/v1/{resource}/{row.pk}/"
    return getattr(client, method)(path, body)


@pytest.mark.parametrize(
    ("asked", "status", "scope"),
    CALLS,
    ids=[
        f"{method}-{resource}{'-row' * of_row}"
        for (method, resource, _body, of_row), _status, _scope in CALLS
    ],
)
def test_a_call_needs_one_scope_and_no_other_will_do(asked, status, scope, program, rows):
    method, resource, body, of_row = asked
    row = rows[resource] if of_row else None
    others = [name for name in SCOPES if name != scope]

    without = call(program(*others), method, resource, body, row)
    with_it = call(program(scope), method, resource, body, row)

    assert without.status_code == 403
    assert without["WWW-Authenticate"] == (
        f'Bearer realm="api", error="insufficient_scope", scope="{scope}"'
    )
    assert with_it.status_code == status


@pytest.mark.parametrize("resource", FACTORIES)
def test_nobody_is_asked_for_a_credential(resource, client, db):
    answer = client.get(f"/api/v1/{resource}/")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="api"'


def test_the_root_is_open_to_any_key_and_names_the_resources(program):
    answer = program().get("/api/v1/")

    assert answer.json() == {
        "data": {
            name: f"http://testserver/api/v1/{name}/"
            for name in ("customers", "jobs", "invoices", "pricebook", "webhooks")
        }
    }


@pytest.mark.parametrize("resource", ["customers", "jobs", "invoices", "pricebook"])
def test_a_list_holds_the_rows_of_the_callers_organisation(
    resource, program, person, acme, globex
):
    """The same for a key and for a person."""
    mine = FACTORIES[resource].create(organisation=acme)
    FACTORIES[resource].create(organisation=globex)

    for caller in (program(f"{resource}:read"), person("member", acme)):
        body = caller.get(f"/api/v1/{resource}/").json()

        assert [row["id"] for row in body["data"]] == [mine.pk]
        assert body["meta"] == {"page": 1, "limit": 20, "total": 1}


NOT_OFFERED = {
    ("put", "pricebook"),
    ("patch", "pricebook"),
    ("delete", "pricebook"),
    ("get", "webhooks"),
    ("delete", "webhooks"),
}


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
@pytest.mark.parametrize("resource", FACTORIES)
def test_the_row_of_another_organisation_does_not_exist(
    method, resource, program, colleague, globex
):
    row = FACTORIES[resource].create(organisation=globex)

    of_key = call(program(*SCOPES), method, resource, {}, row)
    of_person = call(colleague, method, resource, {}, row)

    expected = 405 if (method, resource) in NOT_OFFERED else 404
    assert of_key.status_code == of_person.status_code == expected
    row.refresh_from_db()


@pytest.mark.parametrize("identifier", ["abc", "0", "9" * 30, "%00", "%ED%A0%80", "-1"])
def test_what_is_no_id_is_not_found(identifier, program):
    answer = program("customers:read").get(f"/api/v1/customers/{identifier}/")

    assert answer.status_code == 404


def test_a_customer_needs_only_a_name(program, acme):
    answer = program("customers:write").post("/api/v1/customers/", {"name": "Ada Lovelace"})

    customer = Customer.objects.get()
    assert answer.status_code == 201
    assert answer.json()["data"] == {
        "id": customer.pk,
        "organisation": acme.pk,
        "created_at": customer.created_at.isoformat().replace("+00:00", "Z"),
        "name": "Ada Lovelace",
        "email": "",
        "phone": "",
    }


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"name"}),
        ([], {"non_field_errors"}),
        ({"name": " "}, {"name"}),
        ({"name": None}, {"name"}),
        ({"name": ["a"]}, {"name"}),
        ({"name": "a" * 201}, {"name"}),
        ({"name": "a\x00b"}, {"name"}),
        ({"name": "", "email": "at home", "phone": "1" * 51}, {"name", "email", "phone"}),
        ({"name": "a", "created_at": "yesterday"}, {"created_at"}),
        ({"name": "a", "created_at": "0001-01-01T00:00:00+14:00"}, {"created_at"}),
        ({"name": "a", "organisation": "acme"}, {"organisation"}),
        ({"name": "a", "organisation": 10**30}, {"organisation"}),
    ],
)
def test_bad_input_is_400_and_names_every_bad_field(body, fields, program):
    answer = program("customers:write").post("/api/v1/customers/", body)

    assert answer.status_code == 400
    assert set(answer.json()["error"]["fields"]) == fields
    assert not Customer.objects.exists()


def test_half_of_a_character_is_not_stored(program):
    """JSON can say it, and no database can."""
    body, content_type = r'{"name": "\ud800"}', "application/json"

    answer = program("customers:write").generic("POST", "/api/v1/customers/", body, content_type)

    assert set(answer.json()["error"]["fields"]) == {"name"}


def test_json_that_is_nested_too_deeply_is_400(program):
    body, content_type = "[" * 100_000, "application/json"

    answer = program("customers:write").generic("POST", "/api/v1/customers/", body, content_type)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "The body is nested too deeply."


@pytest.mark.parametrize("amount", ["-1", "NaN", "Infinity", "1e400", "0.001", "a"])
def test_an_amount_is_a_sum_of_money(amount, program, customer):
    body = {"customer": customer.pk, "number": "1", "amount": amount}

    answer = program("invoices:write").post("/api/v1/invoices/", body)

    assert set(answer.json()["error"]["fields"]) == {"amount"}


def test_a_job_shows_its_customer(program, customer):
    body = {"customer": customer.pk, "title": "Leaking tap"}

    answer = program("jobs:write").post("/api/v1/jobs/", body)

    assert answer.status_code == 201
    data = answer.json()["data"]
    assert (data["customer"], data["customer_name"]) == (customer.pk, "Maria Keller")


@pytest.mark.parametrize("resource", ["jobs", "invoices"])
def test_a_row_has_no_customer_of_another_organisation(resource, program, person, acme, globex):
    """Neither one that the caller cannot see, nor one that they could."""
    stranger = CustomerFactory.create(organisation=globex)
    complete = {"title": "t", "number": "1", "amount": "1.00"}
    body = {**complete, "customer": stranger.pk, "organisation": acme.pk}
    path = f"/api/v1/{resource}/"

    of_key = program(f"{resource}:write").post(path, body)
    of_both = person("member", acme, globex).post(path, body)

    assert of_key.status_code == of_both.status_code == 400
    assert of_key.json()["error"]["fields"] == {
        "customer": [f'Invalid pk "{stranger.pk}" - object does not exist.']
    }
    assert of_both.json()["error"]["fields"] == {
        "customer": ["This customer is one of another organisation."]
    }


def test_a_job_is_not_moved_to_a_customer_of_another_organisation(person, acme, globex):
    job = JobFactory.create(organisation=acme)
    stranger = CustomerFactory.create(organisation=globex)

    answer = person("member", acme, globex).patch(
        f"/api/v1/jobs/{job.pk}/", {"customer": stranger.pk}
    )

    assert set(answer.json()["error"]["fields"]) == {"customer"}


def test_a_key_names_its_own_organisation_or_none(program, acme, globex):
    client = program("customers:write")

    own = client.post("/api/v1/customers/", {"name": "a", "organisation": acme.pk})
    other = client.post("/api/v1/customers/", {"name": "a", "organisation": globex.pk})

    assert (own.status_code, other.status_code) == (201, 400)
    assert set(other.json()["error"]["fields"]) == {"organisation"}


def test_the_only_organisation_of_a_person_is_the_default(person, acme, globex):
    answer = person("member", globex).post("/api/v1/customers/", {"name": "a"})

    assert answer.json()["data"]["organisation"] == globex.pk


def test_who_is_in_several_organisations_says_which(person, acme, globex):
    client = person("member", acme, globex)

    without = client.post("/api/v1/customers/", {"name": "a"})
    with_it = client.post("/api/v1/customers/", {"name": "a", "organisation": globex.pk})

    assert set(without.json()["error"]["fields"]) == {"organisation"}
    assert with_it.json()["data"]["organisation"] == globex.pk


def test_who_is_in_no_organisation_creates_nothing(person, program):
    """Nor does a key of the project itself, which belongs to none."""
    of_person = person("owner").post("/api/v1/customers/", {"name": "a"})
    of_project = program("customers:write", owner=None).post("/api/v1/customers/", {"name": "a"})

    assert of_person.status_code == of_project.status_code == 403
    assert of_person.json()["error"]["reason"] == "permission_denied"


def test_a_key_of_the_project_sees_no_rows(program, customer):
    answer = program("customers:read", owner=None).get("/api/v1/customers/")

    assert answer.json()["data"] == []


def test_a_row_stays_with_its_organisation(person, acme, globex):
    customer = CustomerFactory.create(organisation=acme)
    client, path = person("member", acme, globex), f"/api/v1/customers/{customer.pk}/"

    moved = client.patch(path, {"organisation": globex.pk})
    named = client.patch(path, {"organisation": acme.pk})
    replaced = client.put(path, {"name": "new"})

    assert moved.json()["error"]["fields"] == {
        "organisation": ["A row stays with its organisation."]
    }
    assert named.status_code == 200
    assert replaced.json()["data"]["organisation"] == acme.pk


def test_a_webhook_subscription_is_made_and_changed(program, acme):
    client = program("webhooks:write")
    body = {"url": "https://example.com/hook", "event": "invoice.paid"}

    made = client.post("/api/v1/webhooks/", body)
    row = WebhookSubscription.objects.get()
    client.patch(f"/api/v1/webhooks/{row.pk}/", {"is_active": False})

    assert made.status_code == 201
    row.refresh_from_db()
    assert (row.organisation, row.event, row.is_active) == (acme, "invoice.paid", False)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["Lars", "Maria"]),
        ("search=mar", ["Maria"]),
        ("search=0102", ["Lars"]),
        ("search=%25", []),
        ("after=2025-01-01", ["Lars"]),
        ("before=2025-01-01", ["Maria"]),
        ("after=2025-06-01&before=2025-06-02", ["Lars"]),
        ("after=9999-12-31", []),
        ("limit=1&page=2", ["Maria"]),
    ],
)
def test_customers_are_filtered(query, names, program, acme):
    CustomerFactory.create(
        organisation=acme, name="Maria", email="m@example.com", created_at="2024-12-31T23:59Z"
    )
    CustomerFactory.create(
        organisation=acme, name="Lars", phone="0102", created_at="2025-06-01T00:00Z"
    )

    answer = program("customers:read").get(f"/api/v1/customers/?{query}")

    assert [row["name"] for row in answer.json()["data"]] == names


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=yesterday", 400),
        ("after=2025-02-30", 400),
        ("search=%00", 400),
        (f"search={'a' * 201}", 400),
        ("limit=0", 400),
        ("page=2", 404),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(query, status, program):
    answer = program("customers:read").get(f"/api/v1/customers/?{query}")

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("resource", "query", "total"),
    [
        ("jobs", "status=done", 1),
        ("jobs", "search=keller", 2),
        ("jobs", "search=tap", 1),
        ("invoices", "search=N-7", 1),
        ("invoices", "status=draft", 1),
        ("pricebook", "search=siph", 1),
        ("pricebook", "search=boiler", 0),
    ],
)
def test_other_lists_are_filtered_too(resource, query, total, program, customer):
    acme = customer.organisation
    JobFactory.create(organisation=acme, customer=customer, status=Job.Status.DONE)
    JobFactory.create(organisation=acme, customer=customer, title="Leaking tap")
    InvoiceFactory.create(organisation=acme, customer=customer, number="N-7")
    PriceBookItemFactory.create(organisation=acme)

    answer = program(f"{resource}:read").get(f"/api/v1/{resource}/?{query}")

    assert answer.json()["meta"]["total"] == total


@pytest.mark.parametrize("resource", ["jobs", "invoices"])
def test_rows_are_listed_by_the_customer_of_the_same_organisation(
    resource, program, acme, customer
):
    mine = FACTORIES[resource].create(organisation=acme, customer=customer)
    FACTORIES[resource].create(organisation=acme)

    answer = program(f"{resource}:read").get(f"/api/v1/{resource}/?customer={customer.pk}")

    assert [row["id"] for row in answer.json()["data"]] == [mine.pk]


@pytest.mark.parametrize("resource", ["jobs", "invoices"])
def test_the_customer_of_another_organisation_is_as_one_that_does_not_exist(
    resource, program, colleague, globex
):
    theirs = FACTORIES[resource].create(organisation=globex).customer
    path = f"/api/v1/{resource}/?customer="

    for caller in (program(f"{resource}:read"), colleague):
        of_theirs, of_nobody = caller.get(f"{path}{theirs.pk}"), caller.get(f"{path}999999")

        assert of_theirs.status_code == of_nobody.status_code == 400
        assert of_theirs.json() == of_nobody.json()
        assert set(of_theirs.json()["error"]["fields"]) == {"customer"}
