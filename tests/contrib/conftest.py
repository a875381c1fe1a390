"""Fixtures of Redis: each test has a prefix of its own, and nothing else is touched."""

import uuid

import pytest
import redis
from django.core.cache import caches

from django_apikeys.outage import breaker
from tests.contrib import server


@pytest.fixture
def prefix():
    return uuid.uuid4().hex


@pytest.fixture
def redis_url():
    return server.url()


@pytest.fixture
def use_redis(settings, prefix):
    """Count in the Redis at a URL from now on."""

    def use_redis(url, **options):
        options = {"socket_timeout": 2, "socket_connect_timeout": 2, **options}
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": url,
                "KEY_PREFIX": prefix,
                "OPTIONS": options,
            }
        }
        settings.APIKEYS_LIMITER = "django_apikeys.contrib.redis.RedisLimiter"
        settings.APIKEYS_USAGE_RECORDER = "django_apikeys.contrib.redis.RedisRecorder"

    yield use_redis
    breaker.reset()


@pytest.fixture
def stored(use_redis, redis_url, prefix):
    """A client of the Redis that limits and usage are counted in."""
    use_redis(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        yield client
        if names := list(client.scan_iter(f"{prefix}:*")):
            client.unlink(*names)


@pytest.fixture
def wire(stored, use_redis, redis_url):
    """What the limits and the recorder reach Redis by."""
    wire = server.Wire(redis_url)
    use_redis(wire.url, socket_timeout=0.2, socket_connect_timeout=0.2)
    yield wire
    wire.close()
    caches["default"].close()
