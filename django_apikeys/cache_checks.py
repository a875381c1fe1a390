"""Findings of ``manage.py check`` about limits and the cache that holds their counters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from django.core.cache import caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyLibMCCache, PyMemcacheCache
from django.core.cache.backends.redis import RedisCache
from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_apikeys.conf import conf
from django_apikeys.limits import RatelimitLimiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The package django-redis, known by name: it need not be there.
_DJANGO_REDIS = "django_redis.cache.RedisCache"
# How each backend calls what ends a wait for the network, and its unit in seconds.
_TIMEOUTS: tuple[tuple[type | str, Mapping[str, float]], ...] = (
    (RedisCache, {"socket_timeout": 1, "socket_connect_timeout": 1}),
    (PyMemcacheCache, {"timeout": 1, "connect_timeout": 1}),
    # libmemcached: milliseconds and microseconds.
    (PyLibMCCache, {"connect_timeout": 1e-3, "receive_timeout": 1e-6, "send_timeout": 1e-6}),
    (_DJANGO_REDIS, {"SOCKET_TIMEOUT": 1, "SOCKET_CONNECT_TIMEOUT": 1}),
)
_QUESTION_SECONDS = 0.5


def limit_findings() -> list[CheckMessage]:
    """W011, W012: what of the settings keeps limits from holding."""
    if not isinstance(conf.limiter, RatelimitLimiter):
        return []
    return [*_two_caches(), *_switched_off()]


def cache_findings() -> list[CheckMessage]:
    """W009, W013, W014: what of the counters' cache does not serve a site with visitors."""
    try:
        alias = conf.CACHE
        # Not made: a check of its kind asks no server, and needs no client of it.
        backend = import_string(caches.settings[alias]["BACKEND"])
    except (ImproperlyConfigured, ImportError):
        return []  # E001 says so, or Django as soon as it makes the cache
    if not isinstance(backend, type):
        return []
    config = caches.settings[alias]
    return [
        *_inexact(alias, backend),
        *_slow(alias, backend, config),
        *_evicting(alias, backend, config),
    ]


def _two_caches() -> Iterable[CheckMessage]:
    if conf.ratelimit_cache != conf.CACHE:
        yield Warning(
            f"Quotas are counted in the cache {conf.CACHE!r} and rates in "
            f"{conf.ratelimit_cache!r}.",
            hint="Set one of APIKEYS_CACHE and RATELIMIT_USE_CACHE, or both to the same.",
            id="django_apikeys.W011",
        )


def _switched_off() -> Iterable[CheckMessage]:
    if not conf.ratelimit_enabled:
        yield Warning(
            "RATELIMIT_ENABLE is off: no rate of a key or a plan is counted. Quotas are.",
            hint="Remove RATELIMIT_ENABLE = False.",
            id="django_apikeys.W012",
        )


def _is(backend: type, base: type | str) -> bool:
    """Tell whether *backend* is *base*, a class or its dotted path, or derived from it."""
    if isinstance(base, type):
        return issubclass(backend, base)
    return base in (f"{class_.__module__}.{class_.__qualname__}" for class_ in backend.__mro__)


# What of Django's own caches does not count for all processes, and exactly.
_INEXACT: tuple[tuple[tuple[type, ...], str], ...] = (
    (
        (DummyCache,),
        (
            "counts nothing: it is taken for a cache that is down, and APIKEYS_LIMITS_FAIL "
            "decides about each request"
        ),
    ),
    (
        (LocMemCache,),
        (
            "is not shared between processes: each counts for itself, and a limit holds as many "
            "times as there are processes"
        ),
    ),
    (
        (DatabaseCache, FileBasedCache),
        "does not add up exactly what is counted at once: more may pass than a limit lets",
    ),
)


def _inexact(alias: str, backend: type) -> Iterable[CheckMessage]:
    if problem := next((text for bases, text in _INEXACT if issubclass(backend, bases)), None):
        yield Warning(
            f"The cache {alias!r} ({backend.__name__}) {problem}.",
            hint=(
                "Let CACHES have one of Redis or memcached, and APIKEYS_CACHE name it: "
                'APIKEYS_CACHE = "default".'
            ),
            id="django_apikeys.W009",
        )


def _slow(alias: str, backend: type, config: Mapping[str, Any]) -> Iterable[CheckMessage]:
    units = next((units for base, units in _TIMEOUTS if _is(backend, base)), {})
    try:
        longest = conf.CACHE_TIMEOUT
    except ImproperlyConfigured:
        return  # E001 says so
    options = _options(config)
    if bad := [name for name, unit in units.items() if not _ends(options, name, unit, longest)]:
        yield Warning(
            f"The cache {alias!r} may hold up a request for more than {longest:g} seconds, "
            f"APIKEYS_CACHE_TIMEOUT: {' and '.join(bad)} in its OPTIONS is missing or longer.",
            hint=(
                "Set them, in the backend's own unit: for Redis OPTIONS = "
                '{"socket_timeout": 0.1, "socket_connect_timeout": 0.1}, for django-redis the '
                "same in capitals."
            ),
            id="django_apikeys.W013",
        )


def _options(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a cache is made with: among OPTIONS, pylibmc's behaviors, in a URL.

    What django-redis hands to redis-py by other ways stands in capitals beside it.
    """
    location = config.get("LOCATION", "")
    urls = location if isinstance(location, (list, tuple)) else str(location).split(",")
    in_urls: dict[str, Any] = {}
    for url in urls:
        in_urls |= {name: values[0] for name, values in parse_qs(urlsplit(str(url)).query).items()}
    options = config.get("OPTIONS", {})
    # redis-py takes what a URL says before anything else.
    handed = {**options.get("CONNECTION_POOL_KWARGS", {}), **in_urls}
    in_capitals = {name.upper(): value for name, value in handed.items()}
    return {**options, **options.get("behaviors", {}), **in_urls, **in_capitals}


def _ends(options: Mapping[str, Any], name: str, unit: float, longest: float) -> bool:
    try:
        return 0 < float(options[name]) * unit <= longest
    except (KeyError, TypeError, ValueError):
        return False


def _evicting(alias: str, backend: type, config: Mapping[str, Any]) -> Iterable[CheckMessage]:
    if not _is(backend, RedisCache) and not _is(backend, _DJANGO_REDIS):
        return
    try:
        memory = _memory(backend, config)
    except Exception:  # noqa: BLE001 - not there, or not to be asked: nothing is known
        return
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        yield Warning(
            f"The Redis of the cache {alias!r} drops counters when its memory is full "
            f"(maxmemory-policy {policy}): a limit then begins anew.",
            hint="Give counters a Redis of their own, with maxmemory-policy noeviction.",
            id="django_apikeys.W014",
        )


def _memory(backend: type, config: Mapping[str, Any]) -> Mapping[str, Any]:
    options = config.get("OPTIONS", {})
    if not _is(backend, RedisCache):
        # Not by the backend: django-redis keeps its pools, and these have our timeouts.
        backend, options = RedisCache, _options_of_redis(options)
    options = {
        **options,
        "socket_timeout": _QUESTION_SECONDS,
        "socket_connect_timeout": _QUESTION_SECONDS,
    }
    client = backend(config["LOCATION"], {"OPTIONS": options})._cache.get_client(write=True)
    try:
        memory: Mapping[str, Any] = client.info("memory")
        return memory
    finally:
        client.connection_pool.disconnect()


def _options_of_redis(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Django's RedisCache takes of the OPTIONS of django-redis."""
    password = {"password": options["PASSWORD"]} if options.get("PASSWORD") else {}
    return {**password, **options.get("CONNECTION_POOL_KWARGS", {})}
