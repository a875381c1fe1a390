"""What a host's tests are given: flushes on their own connection, and a clean start."""

import pytest
from django.test import TestCase
from rest_framework.test import APIClient

from django_apikeys import services, testing
from django_apikeys.models import APIKeyTotals
from tests.conftest import bearer
from tests.factories import UserFactory

pytestmark = pytest.mark.usefixtures("counting")


@pytest.mark.django_db
def test_flush_stores_on_the_connection_of_the_test(client, issued):
    client.get("/customers/", headers=bearer(issued.secret))

    assert testing.flush_usage() == 5
    assert testing.flush_usage() == 0
    assert issued.key.totals.requests == 1


@pytest.mark.django_db
def test_reset_drops_what_another_test_has_counted(client, issued):
    client.get("/customers/", headers=bearer(issued.secret))

    testing.reset_usage()

    assert testing.flush_usage() == 0
    assert APIKeyTotals.objects.count() == 0


class TestInATestCaseOfDjango(TestCase):
    """Whose transaction is one of those that may hold a durable one."""

    def test_flush_stores_on_the_connection_of_the_test(self):
        owner = UserFactory()
        issued = services.create_key(owner=owner, name="a key", scopes=["customers:read"])

        APIClient().get("/customers/", headers=bearer(issued.secret))

        assert testing.flush_usage() == 5
        assert issued.key.totals.requests == 1
