"""Fixtures that more than one file needs."""

import pytest
from django.conf import settings
from django.core.cache import cache
from django.utils import translation
from rest_framework.test import APIClient

from django_apikeys import services
from django_apikeys.testing import reset_usage
from tests.factories import UserFactory

LOCALE_MIDDLEWARE = "django.middleware.locale.LocaleMiddleware"

# They need a Chromium or a generator, and settings of their own: tox -e browser and -e client.
collect_ignore = (
    [] if settings.SETTINGS_MODULE == "tests.browser.settings" else ["browser", "generated"]
)


@pytest.fixture
def user(db):
    return UserFactory(username="ann", email="ann@example.com")


@pytest.fixture
def issue(user):
    """Make a key of *user* with a usable secret."""

    def issue(**fields):
        return services.create_key(**{"owner": user, "name": "a key", "actor": user, **fields})

    return issue


@pytest.fixture
def issued(issue):
    """A key of *user* that may read customers, with its secret."""
    return issue(scopes=["customers:read"])


@pytest.fixture
def client():
    return APIClient()


@pytest.fixture
def as_user(user):
    """A client that *user* has logged in with, by session."""
    client = APIClient()
    client.force_login(user)
    return client


@pytest.fixture
def languages(settings):
    """Each request is answered in the language that it asks for."""
    middleware = [*settings.MIDDLEWARE]
    if LOCALE_MIDDLEWARE not in middleware:
        behind = middleware.index("django.contrib.sessions.middleware.SessionMiddleware")
        middleware.insert(behind + 1, LOCALE_MIDDLEWARE)
    settings.MIDDLEWARE = middleware
    yield
    # That of the last request stays, and is not for the next test.
    translation.deactivate()


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


# Of ``Fernet.generate_key()``, for tests alone.
FERNET_KEY = "ZmVybmV0LWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXM="
OTHER_FERNET_KEY = "YW5vdGhlci1rZXktb2YtdGhlLXRlc3RzLW9mLTMyLWI="


@pytest.fixture
def retrievable(settings):
    """The mode in which secrets are kept. Whoever logs in after it has a fresh login."""
    settings.APIKEYS_RETRIEVABLE = True
    settings.APIKEYS_ENCRYPTION_KEYS = [FERNET_KEY]


@pytest.fixture
def no_guesses():
    """No wrong passwords, of users whose ids other tests had too."""
    cache.clear()


@pytest.fixture
def counting(settings):
    """The middleware, and a recorder that has counted nothing; it keeps nothing for others."""
    middleware = "django_apikeys.middleware.APIKeyMiddleware"
    settings.MIDDLEWARE = [
        middleware,
        *(name for name in settings.MIDDLEWARE if name != middleware),
    ]
    reset_usage()
    yield
    reset_usage()
