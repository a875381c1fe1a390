"""The settings of ``limited_site``: what differs comes from the environment.

BENCHMARK_DATABASE    the file of its SQLite database
BENCHMARK_REDIS       redis://…; not set: local memory
BENCHMARK_PREFIX      in front of the counters' names
BENCHMARK_PLAN        as JSON: what the only plan has
"""

from __future__ import annotations

import json
import os

_REDIS = os.environ.get("BENCHMARK_REDIS")
_CACHE = (
    {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": _REDIS,
        # Longer than in production: this shows what is counted, not what is given up.
        "OPTIONS": {"socket_timeout": 5, "socket_connect_timeout": 5},
    }
    if _REDIS
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
)

SECRET_KEY = "secret-key-of-the-benchmark"  # noqa: S105 - of nothing else
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "benchmarks.limited_site"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("BENCHMARK_DATABASE", ":memory:"),
        "OPTIONS": {"timeout": 20},
    }
}
CACHES = {"default": {**_CACHE, "KEY_PREFIX": os.environ.get("BENCHMARK_PREFIX", "")}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "django_apikeys",
]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["django_apikeys.drf.authentication.APIKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["django_apikeys.drf.permissions.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["django_apikeys.drf.throttling.APIKeyThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
}
APIKEYS_POLICY = "benchmarks.limited_site.OnePlan"
APIKEYS_PLANS = {"only": json.loads(os.environ.get("BENCHMARK_PLAN", "{}"))}
