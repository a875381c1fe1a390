"""Fixtures of the example project's tests, which run under its own settings."""

import pytest
from django.apps import apps
from rest_framework.test import APIClient

from django_apikeys import services

# Under the package's settings there is no CRM to test.
collect_ignore_glob = [] if apps.is_installed("example_project.crm") else ["test_*.py"]


class Client(APIClient):
    default_format = "json"


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def factories():
    """The factories, which cannot be imported where there is no CRM."""
    from tests.example_project import factories  # noqa: PLC0415

    return factories


@pytest.fixture
def acme(db, factories):
    return factories.OrganisationFactory.create(name="Acme", slug="acme", plan="enterprise")


@pytest.fixture
def globex(db, factories):
    return factories.OrganisationFactory.create(name="Globex", slug="globex", plan="free")


@pytest.fixture
def issue(acme):
    """Make a key of Acme with a usable secret."""

    def issue(*scopes, **fields):
        return services.create_key(**{"owner": acme, "name": "a key", "scopes": scopes, **fields})

    return issue


@pytest.fixture
def program(issue):
    """Make a client that sends a key of Acme with *scopes*."""

    def program(*scopes, **fields):
        client = Client()
        secret = issue(*scopes, **fields).secret
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return client

    return program


@pytest.fixture
def person(db, factories):
    """Make a client that a new user has logged in with: a *role* in each organisation."""

    def person(role, *organisations, **fields):
        user = factories.UserFactory.create(**fields)
        for organisation in organisations:
            factories.MembershipFactory.create(user=user, organisation=organisation, role=role)
        client = Client()
        client.force_login(user)
        return client

    return person
