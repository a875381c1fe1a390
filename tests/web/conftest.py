"""Fixtures of the page's tests: a browser without script."""

import pytest
from django.test import Client


@pytest.fixture
def browser(user):
    """A browser in which *user* has logged in."""
    client = Client()
    client.force_login(user)
    return client
