"""The system checks. This module is its own URLconf: ``serve()`` fills it for a test."""

import functools
import textwrap
import uuid
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.core.cache.backends.base import BaseCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from django.core.checks import CheckMessage
from django.core.checks import registry as check_registry
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connection, models
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import clear_url_caches, include, path
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property
from django.views import View
from django.views.decorators.cache import cache_page
from rest_framework.authentication import BasicAuthentication, SessionAuthentication
from rest_framework.decorators import (
    action,
    api_view,
    authentication_classes,
    permission_classes,
    throttle_classes,
)
from rest_framework.permissions import IsAuthenticated
from rest_framework.routers import APIRootView, DefaultRouter, SimpleRouter
from rest_framework.throttling import AnonRateThrottle
from rest_framework.views import APIView
from rest_framework.viewsets import ModelViewSet, ReadOnlyModelViewSet, ViewSet

from django_apikeys import cache_checks, services
from django_apikeys.checks import (
    check_deployment,
    check_owner_column,
    check_peppers,
    check_policy,
    check_settings,
    check_views,
)
from django_apikeys.decorators import api_key_required
from django_apikeys.drf.authentication import APIKeyAuthentication
from django_apikeys.drf.permissions import HasAPIKey, HasPlan, HasScope
from django_apikeys.drf.throttling import APIKeyThrottle
from django_apikeys.drf.views import EventsView, ScopesView
from django_apikeys.middleware import APIKeyMiddleware
from django_apikeys.models import APIKey, OwnerQuota
from django_apikeys.policy import BasePolicy, UserPolicy

OURS = "django_apikeys.drf.authentication.APIKeyAuthentication"
SESSION = "rest_framework.authentication.SessionAuthentication"
BACKENDS = "django.core.cache.backends"
# Without a LOCATION, so that nobody is asked.
REDIS = {
    "BACKEND": f"{BACKENDS}.redis.RedisCache",
    "OPTIONS": {"socket_timeout": 0.1, "socket_connect_timeout": 0.1},
}
PYMEMCACHE = {
    "BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache",
    "OPTIONS": {"timeout": 0.1, "connect_timeout": 0.1},
}
DJANGO_REDIS: dict[str, Any] = {"BACKEND": "tests.test_checks.DjangoRedis"}
urlpatterns: list = []


class DjangoRedis(BaseCache):
    """Stands for the cache of django-redis, by its name."""

    __module__ = "django_redis.cache"
    __qualname__ = "RedisCache"


class OwnDjangoRedis(DjangoRedis):
    """What a host might derive from it."""


class MisspeltPolicy(BasePolicy):
    """Needs a column that the owner model has not."""

    owner_fields = ("plan_name",)


class RelatedPolicy(UserPolicy):
    """Needs a column beyond a relation."""

    owner_fields = ("username", "groups__name")


_POLICY = """
import functools
from contextlib import suppress

from django_apikeys.policy import BasePolicy


class HostPolicy(BasePolicy):
    owner_fields = ("username",)
"""


class OtherKeyAuthentication(APIKeyAuthentication):
    """What a host might derive from ours."""


@pytest.fixture
def mount(settings):
    """Make URL patterns those of the site."""

    def mount(*patterns):
        urlpatterns[:] = patterns
        settings.ROOT_URLCONF = "tests.test_checks"
        clear_url_caches()

    yield mount
    urlpatterns.clear()
    clear_url_caches()


@pytest.fixture
def serve(mount):
    """Put views at the URLs of the site."""

    def serve(*views):
        mount(
            *(
                path(f"{number}/", getattr(view, "as_view", lambda view=view: view)())
                for number, view in enumerate(views)
            )
        )

    return serve


@pytest.fixture
def route(mount):
    """Put a viewset at the URLs of the site, by a router and an include."""

    def route(viewset, router_class=SimpleRouter):
        router = router_class()
        router.register("things", viewset, basename="thing")
        mount(path("api/", include(router.urls)))

    return route


@pytest.fixture
def host_policy(settings, tmp_path, monkeypatch):
    """Make the policy one whose class ends with this text; its methods are not called."""

    def host_policy(body):
        module = f"host_policy_{uuid.uuid4().hex}"
        source = _POLICY + textwrap.indent(f"{body}\n", "    ")
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        settings.APIKEYS_POLICY = f"{module}.HostPolicy"

    return host_policy


@pytest.fixture
def _shared_cache(settings):
    settings.CACHES = {"default": REDIS}


def ids(findings):
    return [finding.id.removeprefix("django_apikeys.") for finding in findings]


def test_the_settings_of_the_tests_have_no_findings():
    assert check_settings(None) == []


def test_are_registered_with_the_tag_of_the_app():
    registered: set[object] = set(
        check_registry.registry.get_checks(include_deployment_checks=True)
    )

    assert registered >= {
        check_settings,
        check_policy,
        check_deployment,
        check_views,
        check_peppers,
        check_owner_column,
    }
    assert check_registry.registry.tag_exists("django_apikeys")


def test_the_one_for_deployment_is_left_out_of_a_plain_check():
    plain: list[object] = list(check_registry.registry.get_checks())

    assert check_deployment not in plain


class TestE001:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param(name, value, id=name)
            for name, value in {
                "OWNER_MODEL": "",
                "PREFIXES": ["RAK"],
                "ENVIRONMENTS": [],
                "ACCEPTED_ENVIRONMENTS": "live",
                "CREDENTIALS": ["query"],
                "SCOPES": {"jobs": "Jobs"},
                "IMPLIED_SCOPES": {"write": "read"},
                "UNDECLARED_VIEWS": "deny",
                "REQUIRE_NAME": "False",
                "PEPPERS": {"one": ""},
                "PEPPER_CURRENT": "one",
                "ROTATION_DAYS": 0,
                "MAX_KEYS_PER_OWNER": 0,
                "DEFAULT_LIFETIME": "90",
                "MAX_LIFETIME": {"prod": 90},
                "CACHE": "nowhere",
                "CACHE_TIMEOUT": 0,
                "PLANS": {"free": {"rate": "60"}},
                "QUOTA_TIME_ZONE": "Mars/Olympus",
                "LIMITS_FAIL": "ajar",
                "STORE_ADDRESSES": "hash",
                "USAGE_FLUSH_SECONDS": 0,
                "LIMITER": "nowhere.Limiter",
                "USAGE_RECORDER": "nowhere.Recorder",
                "HASHER": "nowhere.Hasher",
                "POLICY": "nowhere.Policy",
                "CLIENT_RESOLVER": "nowhere.resolver",
            }.items()
        ],
    )
    def test_names_the_setting_once(self, settings, name, value):
        setattr(settings, f"APIKEYS_{name}", value)

        findings = check_settings(None)

        assert ids(findings) == ["E001"]
        assert findings[0].msg.startswith(f"APIKEYS_{name}")
        assert findings[0].is_serious()

    @pytest.mark.parametrize(
        ("name", "value", "page"),
        [
            ("POLICY", "nowhere.Policy", "policy"),
            ("PLANS", {"free": 1}, "limits"),
            ("LIMITER", "django_apikeys.contrib.redis.RedisLimiter", "redis"),
            ("LIMITER", "nowhere.Limiter", "settings"),
            ("PREFIXES", [], "settings"),
        ],
    )
    def test_names_the_page_that_says_more(self, settings, name, value, page):
        setattr(settings, f"APIKEYS_{name}", value)

        [finding] = check_settings(None)

        assert finding.hint == f"docs/{page}.md says what it takes."

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "USAGE_FLUSH_SECONDS",
                (
                    "APIKEYS_USAGE_FLUSH_SECONDS is None or a number of seconds, more than 0 and "
                    "up to 86400."
                ),
            ),
            (
                "UNUSED_DAYS",
                "APIKEYS_UNUSED_DAYS is None or a number of days, from 1 to 36600.",
            ),
        ],
    )
    def test_says_that_none_is_taken(self, settings, name, message):
        setattr(settings, f"APIKEYS_{name}", 0)

        assert [finding.msg for finding in check_settings(None)] == [message]

    def test_names_every_bad_setting(self, settings):
        settings.APIKEYS_PREFIXES = []
        settings.APIKEYS_ROTATION_DAYS = 0

        assert ids(check_settings(None)) == ["E001", "E001"]

    def test_names_both_settings_that_do_not_agree_once(self, settings):
        settings.APIKEYS_DEFAULT_LIFETIME = 90
        settings.APIKEYS_MAX_LIFETIME = 30

        assert [finding.msg for finding in check_settings(None)] == [
            "APIKEYS_DEFAULT_LIFETIME of 'live' is longer than its APIKEYS_MAX_LIFETIME."
        ]

    def test_bad_settings_stop_no_other_check(self, settings):
        settings.APIKEYS_SCOPES = ["jobs:read"]
        settings.APIKEYS_PEPPERS = {"one": ""}
        settings.APIKEYS_CACHE = "nowhere"
        settings.APIKEYS_OWNER_MODEL = ""

        assert check_views(None) == []
        assert check_deployment(None) == []
        assert check_owner_column(databases=["default"]) == []

    def test_a_bad_setting_of_undeclared_views_hides_no_other_finding(self, settings, serve):
        settings.APIKEYS_UNDECLARED_VIEWS = "deny"
        serve(DeclaresNothing, AsksList)

        assert ids(check_views(None)) == ["E002"]

    def test_is_what_manage_py_check_fails_with(self, settings):
        settings.APIKEYS_PEPPERS = {"one": ""}

        with pytest.raises(SystemCheckError, match=r"django_apikeys\.E001.* APIKEYS_PEPPERS"):
            call_command("check", "--deploy", "--tag", "django_apikeys")


class TestE003:
    @pytest.mark.parametrize(
        ("policy", "owner_model"),
        [
            pytest.param("django_apikeys.policy.UserPolicy", "auth.User", id="users"),
            pytest.param("django_apikeys.policy.BasePolicy", "auth.Group", id="groups"),
            pytest.param("tests.test_checks.RelatedPolicy", "auth.User", id="relation"),
            pytest.param("nowhere.Policy", "auth.User", id="E001 says so"),
            pytest.param("django_apikeys.policy.UserPolicy", "auth.Nothing", id="no such model"),
            pytest.param("django_apikeys.policy.UserPolicy", "nothing.User", id="no such app"),
            pytest.param("django_apikeys.policy.UserPolicy", "Nothing", id="no dot"),
            pytest.param("django_apikeys.policy.UserPolicy", "", id="E001 says so, model"),
        ],
    )
    def test_not_of(self, settings, policy, owner_model):
        settings.APIKEYS_POLICY = policy
        settings.APIKEYS_OWNER_MODEL = owner_model

        assert check_policy(None) == []

    def test_a_broken_policy_is_e001(self, settings):
        settings.APIKEYS_POLICY = "nowhere.Policy"

        assert ids(check_settings(None)) == ["E001"]

    @pytest.mark.parametrize("name", ["UserPolicy", "RelatedPolicy"])
    def test_the_policy_for_users_where_owners_are_none(self, settings, name):
        module = {"UserPolicy": "django_apikeys.policy"}.get(name, "tests.test_checks")
        settings.APIKEYS_POLICY = f"{module}.{name}"
        settings.APIKEYS_OWNER_MODEL = "auth.Group"

        findings = check_policy(None)

        assert ids(findings) == ["E003"]
        assert findings[0].msg == f"{name} is for keys of users, and APIKEYS_OWNER_MODEL is not."
        assert findings[0].is_serious()

    def test_names_a_column_that_the_owner_has_not(self, settings):
        settings.APIKEYS_POLICY = "tests.test_checks.MisspeltPolicy"

        findings = check_policy(None)

        assert ids(findings) == ["E003"]
        assert findings[0].msg.startswith("owner_fields of MisspeltPolicy: ")
        assert "'plan_name'" in findings[0].msg
        assert findings[0].hint

    def test_is_what_manage_py_check_fails_with(self, settings):
        settings.APIKEYS_OWNER_MODEL = "auth.Group"

        with pytest.raises(SystemCheckError, match=r"django_apikeys\.E003"):
            call_command("check", "--tag", "django_apikeys")


@pytest.mark.parametrize(
    ("policy", "plans", "expected"),
    [
        pytest.param("django_apikeys.policy.UserPolicy", {"free": {"quota": 1}}, ["W017"]),
        pytest.param("tests.test_checks.RelatedPolicy", {"free": {"quota": 1}}, ["W017"]),
        pytest.param("django_apikeys.policy.UserPolicy", {"free": {}}, [], id="no limits"),
        pytest.param("django_apikeys.policy.UserPolicy", {}, [], id="no plans"),
        pytest.param("django_apikeys.policy.UserPolicy", {"free": 1}, [], id="E001 says so"),
    ],
)
def test_w017_plans_that_limit_nobody(settings, policy, plans, expected):
    settings.APIKEYS_POLICY, settings.APIKEYS_PLANS = policy, plans

    findings = check_policy(None)

    assert ids(findings) == expected
    assert not any(finding.is_serious() for finding in findings)


@pytest.mark.parametrize(
    "body", ["def plan(self, owner): return None", "def plan_limits(self, owner): return {}"]
)
def test_w017_not_where_the_policy_answers_itself(settings, host_policy, body):
    settings.APIKEYS_PLANS = {"free": {"quota": 1}}
    host_policy(body)

    assert check_policy(None) == []


@pytest.mark.parametrize(("switch", "expected"), [(True, []), (False, ["E006"])])
def test_e006_moments_without_a_time_zone(settings, switch, expected):
    settings.USE_TZ = switch

    assert ids(check_settings(None)) == expected


class TestW001:
    def test_views_that_declare_nothing_are_open(self, settings):
        settings.APIKEYS_UNDECLARED_VIEWS = "allow"

        assert ids(check_settings(None)) == ["W001"]

    def test_not_where_they_refuse(self, settings):
        settings.APIKEYS_UNDECLARED_VIEWS = "refuse"

        assert check_settings(None) == []


@pytest.mark.usefixtures("_shared_cache")
class TestW002:
    def test_the_pepper_is_derived(self):
        assert ids(check_deployment(None)) == ["W002"]

    def test_not_where_one_is_listed(self, settings):
        settings.APIKEYS_PEPPERS = {"one": "pepper-1"}

        assert check_deployment(None) == []

    def test_is_told_by_check_deploy_alone(self, capsys):
        call_command("check", "--tag", "django_apikeys")
        plain = capsys.readouterr()
        call_command("check", "--deploy", "--tag", "django_apikeys")
        deploy = capsys.readouterr()

        assert "W002" not in plain.err
        assert "django_apikeys.W002" in deploy.err


class CountingCache(LocMemCache):
    """What a host might derive from a cache of Django's."""


def make_cache(location, params):
    """What a host might name in BACKEND, which is no class."""


@pytest.fixture
def _listed_pepper(settings):
    settings.APIKEYS_PEPPERS = {"one": "pepper-1"}


APART = "is not shared between processes: each counts for itself"
NOTHING = "counts nothing: it is taken for a cache that is down"
MORE = "does not add up exactly what is counted at once"


@pytest.mark.usefixtures("_listed_pepper")
class TestW009:
    @pytest.mark.parametrize(
        ("backend", "name", "problem"),
        [
            pytest.param(f"{BACKENDS}.locmem.LocMemCache", "LocMemCache", APART, id="memory"),
            pytest.param("tests.test_checks.CountingCache", "CountingCache", APART, id="derived"),
            pytest.param(f"{BACKENDS}.dummy.DummyCache", "DummyCache", NOTHING, id="dummy"),
            pytest.param(f"{BACKENDS}.db.DatabaseCache", "DatabaseCache", MORE, id="database"),
            pytest.param(
                f"{BACKENDS}.filebased.FileBasedCache", "FileBasedCache", MORE, id="files"
            ),
        ],
    )
    def test_a_cache_that_does_not_count_exactly(self, settings, backend, name, problem):
        settings.CACHES = {"default": {"BACKEND": backend}}

        findings = check_deployment(None)

        assert ids(findings) == ["W009"]
        assert findings[0].msg.startswith(f"The cache 'default' ({name}) {problem}")
        assert not findings[0].is_serious()

    @pytest.mark.parametrize(
        "cache",
        [
            pytest.param(REDIS, id="Redis"),
            pytest.param(PYMEMCACHE, id="memcached"),
            pytest.param({"BACKEND": "tests.test_checks.make_cache"}, id="no class"),
            pytest.param({"BACKEND": "nowhere.Cache"}, id="Django says so"),
        ],
    )
    def test_not_of(self, settings, cache):
        settings.CACHES = {"default": cache}

        assert check_deployment(None) == []

    def test_is_of_the_cache_that_counts_alone(self, settings):
        settings.CACHES = {
            "default": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"},
            "counters": REDIS,
        }
        settings.APIKEYS_CACHE = "counters"

        assert check_deployment(None) == []

    def test_is_told_by_check_deploy_alone(self, capsys):
        call_command("check", "--tag", "django_apikeys")
        plain = capsys.readouterr()
        call_command("check", "--deploy", "--tag", "django_apikeys")
        deploy = capsys.readouterr()

        assert "W009" not in plain.err
        assert "django_apikeys.W009" in deploy.err


class OtherMiddleware(APIKeyMiddleware):
    """What a host might derive from ours."""


OUR_MIDDLEWARE = "django_apikeys.middleware.APIKeyMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"


class TestW010:
    @pytest.mark.parametrize(
        ("middleware", "expected"),
        [
            pytest.param([OUR_MIDDLEWARE, COMMON], [], id="there"),
            pytest.param([COMMON, OUR_MIDDLEWARE], [], id="last"),
            pytest.param(["tests.test_checks.OtherMiddleware"], [], id="derived"),
            pytest.param([COMMON], ["W010"], id="not there"),
            pytest.param([], ["W010"], id="none"),
            pytest.param(
                ["nowhere.Middleware", "tests.test_checks.make_cache"],
                ["W010"],
                id="none that is one, and a function",
            ),
        ],
    )
    def test_requests_are_not_counted(self, settings, middleware, expected):
        settings.MIDDLEWARE = middleware

        findings = check_settings(None)

        assert ids(findings) == expected
        assert not any(finding.is_serious() for finding in findings)


class OtherLimiter:
    """Counts by itself, without django-ratelimit."""


class TestW011AndW012:
    @pytest.fixture
    def _caches(self, settings):
        settings.CACHES = {name: {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"} for name in "ab"}
        settings.RATELIMIT_USE_CACHE = "a"

    @pytest.mark.usefixtures("_caches")
    @pytest.mark.parametrize(("alias", "expected"), [("a", []), ("b", ["W011"])])
    def test_two_caches(self, settings, alias, expected):
        settings.APIKEYS_CACHE = alias

        assert ids(check_settings(None)) == expected

    @pytest.mark.usefixtures("_caches")
    def test_one_that_is_taken_over(self):
        assert check_settings(None) == []

    @pytest.mark.parametrize(("switch", "expected"), [(True, []), (False, ["W012"])])
    def test_rates_switched_off(self, settings, switch, expected):
        settings.RATELIMIT_ENABLE = switch

        assert ids(check_settings(None)) == expected

    @pytest.mark.usefixtures("_caches")
    def test_not_of_another_limiter(self, settings):
        settings.APIKEYS_CACHE = "b"
        settings.RATELIMIT_ENABLE = False
        settings.APIKEYS_LIMITER = "tests.test_checks.OtherLimiter"

        assert check_settings(None) == []


@pytest.mark.usefixtures("_listed_pepper")
class TestW013:
    @pytest.mark.parametrize(
        ("cache", "names"),
        [
            pytest.param(REDIS, "", id="Redis"),
            pytest.param(
                {**REDIS, "OPTIONS": {}}, "socket_timeout and socket_connect_timeout", id="none"
            ),
            pytest.param(
                {**REDIS, "OPTIONS": {"socket_timeout": 0.1}}, "socket_connect_timeout", id="half"
            ),
            pytest.param(
                {**REDIS, "OPTIONS": {"socket_timeout": 0.11, "socket_connect_timeout": 0.1}},
                "socket_timeout",
                id="longer",
            ),
            pytest.param(
                {**REDIS, "OPTIONS": {"socket_timeout": None, "socket_connect_timeout": "0.1"}},
                "socket_timeout",
                id="without an end",
            ),
            pytest.param(
                {**REDIS, "OPTIONS": {"socket_timeout": "soon", "socket_connect_timeout": 0}},
                "socket_timeout and socket_connect_timeout",
                id="no numbers",
            ),
            pytest.param(
                {
                    "BACKEND": f"{BACKENDS}.redis.RedisCache",
                    "LOCATION": ["redis:///?socket_timeout=.1&socket_connect_timeout=.1"],
                },
                "",
                id="in the URL",
            ),
            pytest.param(PYMEMCACHE, "", id="pymemcache"),
            pytest.param(
                {**PYMEMCACHE, "OPTIONS": {}}, "timeout and connect_timeout", id="pymemcache, none"
            ),
            pytest.param(
                {
                    "BACKEND": f"{BACKENDS}.memcached.PyLibMCCache",
                    "OPTIONS": {
                        "behaviors": {
                            "connect_timeout": 100,
                            "receive_timeout": 100_000,
                            "send_timeout": 100_001,
                        }
                    },
                },
                "send_timeout",
                id="pylibmc",
            ),
            pytest.param(
                {
                    **REDIS,
                    "LOCATION": "redis:///?socket_timeout=9",
                },
                "socket_timeout",
                id="in the URL, which redis-py takes first",
            ),
            pytest.param(
                DJANGO_REDIS, "SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT", id="django-redis, none"
            ),
            pytest.param(
                {**DJANGO_REDIS, "BACKEND": "tests.test_checks.OwnDjangoRedis"},
                "SOCKET_TIMEOUT and SOCKET_CONNECT_TIMEOUT",
                id="derived from django-redis",
            ),
            pytest.param(
                {
                    **DJANGO_REDIS,
                    "OPTIONS": {"SOCKET_TIMEOUT": 0.1, "SOCKET_CONNECT_TIMEOUT": 0.1},
                },
                "",
                id="django-redis",
            ),
            pytest.param(
                {
                    **DJANGO_REDIS,
                    "OPTIONS": {
                        "SOCKET_TIMEOUT": 0.1,
                        "CONNECTION_POOL_KWARGS": {
                            "socket_timeout": 9,
                            "socket_connect_timeout": 0.1,
                        },
                    },
                },
                "SOCKET_TIMEOUT",
                id="django-redis, of its pool",
            ),
        ],
    )
    def test_names_what_is_missing_or_longer(self, settings, cache, names):
        settings.CACHES = {"default": cache}

        findings = check_deployment(None)

        assert [finding.msg for finding in findings] == [
            "The cache 'default' may hold up a request for more than 0.1 seconds, "
            f"APIKEYS_CACHE_TIMEOUT: {name} in its OPTIONS is missing or longer."
            for name in [names][: bool(names)]
        ]
        assert set(ids(findings)) <= {"W013"}

    def test_is_held_against_the_setting(self, settings):
        settings.CACHES = {
            "default": {
                **REDIS,
                "OPTIONS": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
            }
        }

        settings.APIKEYS_CACHE_TIMEOUT = 0.5
        assert check_deployment(None) == []

        settings.APIKEYS_CACHE_TIMEOUT = 0
        assert check_deployment(None) == []  # E001 says so


class AnsweringRedis(RedisCache):
    """Answers as it was told, in the place of a server."""

    memory: Mapping[str, Any] | None = {}
    made_with: Mapping[str, Any] = {}

    def __init__(self, server, params):
        super().__init__(server, params)
        type(self).made_with = params["OPTIONS"]

    @property
    def _cache(self):
        return self

    def get_client(self, *, write):
        return self

    def info(self, section):
        if self.memory is None:
            raise ConnectionError
        return self.memory

    @property
    def connection_pool(self):
        return self

    def disconnect(self):
        """Has no connection."""


@pytest.mark.usefixtures("_listed_pepper")
class TestW014:
    @pytest.mark.parametrize(
        ("memory", "expected"),
        [
            pytest.param(
                {"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}, ["W014"], id="evicts"
            ),
            pytest.param(
                {"maxmemory": 100, "maxmemory_policy": "volatile-ttl"}, ["W014"], id="volatile"
            ),
            pytest.param({"maxmemory": 100, "maxmemory_policy": "noeviction"}, [], id="refuses"),
            pytest.param({"maxmemory": 0, "maxmemory_policy": "allkeys-lru"}, [], id="no maximum"),
            pytest.param({}, [], id="does not say"),
            pytest.param(None, [], id="not there"),
        ],
    )
    def test_counters_may_be_evicted(self, settings, monkeypatch, memory, expected):
        monkeypatch.setattr(AnsweringRedis, "memory", memory)
        backend = "tests.test_checks.AnsweringRedis"
        settings.CACHES = {"default": {**REDIS, "BACKEND": backend, "LOCATION": "redis://x"}}

        findings = check_deployment(None)

        assert ids(findings) == expected
        assert all(memory["maxmemory_policy"] in finding.msg for finding in findings)

    def test_of_django_redis(self, settings, monkeypatch):
        """It is asked by Django's own client, with the password that it is given."""
        memory = {"maxmemory": 100, "maxmemory_policy": "allkeys-lru"}
        monkeypatch.setattr(AnsweringRedis, "memory", memory)
        monkeypatch.setattr(cache_checks, "RedisCache", AnsweringRedis)
        settings.CACHES = {
            "default": {
                **DJANGO_REDIS,
                "LOCATION": "redis://x",
                "OPTIONS": {
                    "PASSWORD": "secret",
                    "SOCKET_TIMEOUT": 0.1,
                    "SOCKET_CONNECT_TIMEOUT": 0.1,
                    "CONNECTION_POOL_KWARGS": {"max_connections": 2},
                },
            }
        }

        findings = check_deployment(None)

        assert ids(findings) == ["W014"]
        assert AnsweringRedis.made_with == {
            "password": "secret",
            "max_connections": 2,
            "socket_timeout": 0.5,
            "socket_connect_timeout": 0.5,
        }


class OtherThrottle(APIKeyThrottle):
    """What a host might derive from ours."""


THROTTLE = "django_apikeys.drf.throttling.APIKeyThrottle"
ANON = "rest_framework.throttling.AnonRateThrottle"


@pytest.mark.parametrize(
    ("plans", "classes", "expected"),
    [
        pytest.param({"free": {"rate": "1/m"}}, [THROTTLE], [], id="there"),
        pytest.param({"free": {"quota": 1}}, [ANON, THROTTLE], [], id="beside another"),
        pytest.param(
            {"free": {"quota": 1}}, ["tests.test_checks.OtherThrottle"], [], id="derived"
        ),
        pytest.param({"free": {"quota": 1}}, [], ["W015"], id="none"),
        pytest.param({"enterprise": {}, "free": {"quota": 1}}, [ANON], ["W015"], id="another"),
        pytest.param({"enterprise": {}}, [], [], id="no limits"),
        pytest.param({}, [], [], id="no plans"),
        pytest.param({"free": {"quota": -1}}, [], [], id="E001 says so"),
    ],
)
def test_w015_plans_that_nothing_counts(serve, settings, plans, classes, expected):
    serve(plain_view)
    settings.APIKEYS_PLANS = plans

    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_CLASSES": classes}):
        findings = check_views(None)

    assert ids(findings) == expected
    assert not any(finding.is_serious() for finding in findings)


@pytest.fixture
def _no_default_throttle():
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_CLASSES": []}):
        yield


@pytest.mark.usefixtures("_no_default_throttle")
class TestW015WithoutPlans:
    """A key may have a rate of its own."""

    def test_where_nothing_counts(self, serve):
        serve(Unthrottled)

        findings = check_views(None)

        assert ids(findings) == ["W015"]

    def test_not_where_keys_do_not_come(self, serve):
        serve(NotOurs, plain_view)

        assert check_views(None) == []

    def test_not_where_a_view_counts(self, serve):
        serve(Throttled)

        assert check_views(None) == []


class TestW016:
    @pytest.mark.parametrize("name", ["Unthrottled", "ThrottledOtherwise", "unthrottled_function"])
    def test_names_a_view_that_leaves_the_throttle_out(self, serve, name):
        serve(globals()[name])

        findings = check_views(None)

        assert ids(findings) == ["W016"]
        assert findings[0].msg == (
            f"No rate and no quota of a key holds in tests.test_checks.{name}: APIKeyThrottle is "
            "not in its throttle_classes."
        )
        assert "throttle_classes = [APIKeyThrottle, ...]" in findings[0].hint
        assert not findings[0].is_serious()

    def test_of_what_as_view_was_given(self, serve):
        serve(DeclaresKnown.as_view(throttle_classes=[]))

        assert ids(check_views(None)) == ["W016"]

    def test_of_a_view_beside_one_that_counts(self, serve):
        """There is no default, and so it is up to each."""
        serve(Throttled, Unthrottled)

        with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_CLASSES": []}):
            findings = check_views(None)

        assert ids(findings) == ["W016"]
        assert "Unthrottled" in findings[0].msg

    def test_beside_w015_of_a_view_that_the_default_does_not_reach(self, serve, settings):
        serve(Unthrottled, ThrottledOtherwise)
        settings.APIKEYS_PLANS = {"free": {"quota": 1}}

        with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_CLASSES": []}):
            findings = check_views(None)

        assert ids(findings) == ["W015", "W016"]
        assert "ThrottledOtherwise" in findings[1].msg

    def test_names_a_view_behind_two_urls_once(self, serve):
        serve(Unthrottled, Unthrottled)

        assert ids(check_views(None)) == ["W016"]

    @pytest.mark.parametrize(
        "name",
        [
            "Throttled",
            "ThrottledByRequest",
            "ThrottledByMethod",
            "UnthrottledAndRefusesKeys",
            "NotOurs",
            "DeclaresKnown",
        ],
    )
    def test_not_of(self, serve, name):
        serve(globals()[name])

        assert check_views(None) == []

    def test_not_of_a_view_that_refuses_every_key_as_it_declares_nothing(self, serve):
        serve(Ours.as_view(throttle_classes=[]))

        assert ids(check_views(None)) == ["W007"]

    def test_not_of_the_management_api(self, mount):
        mount(path("", include("django_apikeys.drf.urls")))

        assert check_views(None) == []


class Ours(APIView):
    """A view that keys are let into; each case adds what it declares."""

    authentication_classes = [APIKeyAuthentication]
    required_scopes: Any = None
    scope_resource: Any = None

    def get(self, request):
        """Answer nothing."""

    post = get


class AsksList(Ours):
    required_scopes = ["jobs:raed", "jobs:read"]


class AsksText(Ours):
    required_scopes = "jobs:raed"


class AsksDict(Ours):
    required_scopes = {"GET": ["jobs:read"], "POST": ["jobs:wirte"], "DELETE": None}


class AsksResource(Ours):
    scope_resource = "invoices"


class AsksByPermission(Ours):
    permission_classes = [HasScope("jobs:raed")]  # type: ignore[list-item]  # classes alone


class AsksWildcard(Ours):
    required_scopes = ["jobs:*"]


class AsksNumber(Ours):
    required_scopes = [1]


class AsksBareNumber(Ours):
    required_scopes = 5


class AsksGenerator(Ours):
    """Used up by its first request."""

    required_scopes = (scope for scope in ["jobs:read"])


class AsksGeneratorInDict(Ours):
    required_scopes = {"GET": (scope for scope in ["jobs:read"])}


@api_view(["GET"])
@authentication_classes([APIKeyAuthentication])
@permission_classes([HasScope("jobs:raed")])  # type: ignore[list-item]  # classes alone
def asks_in_a_function(request):
    """Answer nothing."""


class DeclaresKnown(Ours):
    required_scopes = {"GET": ["jobs:read"], "POST": ["jobs:read", "jobs:write"]}


class DeclaresReserved(Ours):
    required_scopes = ["apikeys:read"]


class DeclaresEmpty(Ours):
    required_scopes = []


class DeclaresNothing(Ours):
    permission_classes = [IsAuthenticated | HasAPIKey]


class DeclaresByPermission(Ours):
    permission_classes = [HasScope("jobs:read")]  # type: ignore[list-item]  # classes alone


class DeclaresInAComposition(Ours):
    """Inside a composition it only asks."""

    permission_classes = [HasScope("jobs:read") | IsAuthenticated]
    required_scopes = []


class DeclaresByRequest(Ours):
    @property
    def required_scopes(self):
        """Known when there is a request."""


class DeclaresByCachedProperty(Ours):
    @cached_property
    def required_scopes(self):
        """Known when there is a request, and the same from then on."""


class DeclaresByFunctoolsCachedProperty(Ours):
    @functools.cached_property
    def scope_resource(self):
        """Known when there is a request, and the same from then on."""


class PermitsByRequest(Ours):
    @property
    def permission_classes(self):  # type: ignore[override]
        """Known when there is a request."""


class DeclaresNoKeys(Ours):
    required_scopes = {}


class DeclaresNothingByHasScope(Ours):
    """HasScope asks for what the view declares."""

    permission_classes = [HasScope, HasScope()]  # type: ignore[list-item]  # classes alone


class ComposesAlone(Ours):
    """Inside a composition it only asks."""

    permission_classes = [HasScope("jobs:read") | IsAuthenticated]


@api_view(["GET"])
@authentication_classes([APIKeyAuthentication])
def undeclared_function(request):
    """Answer nothing."""


@api_view(["GET"])
@authentication_classes([APIKeyAuthentication])
@permission_classes([HasScope("jobs:read")])  # type: ignore[list-item]  # classes alone
def declared_function(request):
    """Answer nothing."""


class OwnRoot(APIRootView):
    """The project's own, which it can change."""

    authentication_classes = [APIKeyAuthentication]


class ChoosesByRequest(APIView):
    required_scopes = ["jobs:raed"]

    @property
    def authentication_classes(self):  # type: ignore[override]
        """Known when there is a request."""


class NotOurs(APIView):
    """Keys do not come here, so that its scopes are its own affair."""

    authentication_classes = [SessionAuthentication]
    required_scopes = ["jobs:raed"]


class ReadsOnly(Ours):
    scope_resource = "invoices"
    http_method_names = ["get", "head", "options"]


class TakesTheDefault(APIView):
    @property
    def unrelated(self):
        """Return nothing."""


class OwnEvents(EventsView):
    """What a host might derive from a view of the management API."""


class FilteredElsewhere(Ours):
    """A view of the project, whose filters are its own affair."""

    required_scopes = []
    filterset_class = object


def plain_view(request):
    """A view of Django's, without a class."""


class Throttled(DeclaresKnown):
    throttle_classes = [AnonRateThrottle, OtherThrottle]


class Unthrottled(DeclaresKnown):
    throttle_classes = []


class ThrottledOtherwise(DeclaresKnown):
    throttle_classes = [AnonRateThrottle]


@api_view(["GET"])
@authentication_classes([APIKeyAuthentication])
@permission_classes([HasScope("jobs:read")])  # type: ignore[list-item]  # classes alone
@throttle_classes([])
def unthrottled_function(request):
    """Answer nothing."""


class ThrottledByRequest(DeclaresKnown):
    @property
    def throttle_classes(self):  # type: ignore[override]
        """Known when there is a request."""


class ThrottledByMethod(Unthrottled):
    def get_throttles(self):
        """Know when there is a request."""


class UnthrottledAndRefusesKeys(DeclaresNoKeys):
    throttle_classes = []


@pytest.fixture
def _readable_invoices(settings):
    settings.APIKEYS_SCOPES = {"invoices:read": "Read invoices"}


class CostsByRequest(DeclaresKnown):
    """Has a cost that nobody knows yet."""

    api_cost = property(attrgetter("request.cost"))


class AskedLater:
    """A descriptor of the host's own."""

    def __get__(self, view, owner):
        return self


class CostsByDescriptor(DeclaresKnown):
    api_cost = AskedLater()


class TestE007:
    @pytest.mark.parametrize("cost", ["5", -1, 1.5, None, True, 10**9 + 1])
    def test_names_a_cost_that_is_none(self, serve, monkeypatch, cost):
        monkeypatch.setattr(DeclaresKnown, "api_cost", cost, raising=False)
        serve(DeclaresKnown)

        findings = check_views(None)

        assert ids(findings) == ["E007"]
        assert findings[0].msg == (
            "api_cost of tests.test_checks.DeclaresKnown is no number of units, from 0 to "
            f"1000000000: {cost!r}. Every key is answered by an error."
        )
        assert findings[0].is_serious()

    def test_names_a_method_that_is_no_property(self, serve, monkeypatch):
        monkeypatch.setattr(DeclaresKnown, "api_cost", lambda self: 5, raising=False)
        serve(DeclaresKnown)

        assert ids(check_views(None)) == ["E007"]

    def test_names_what_as_view_was_given(self, serve):
        serve(CostsByRequest.as_view(api_cost="5"))

        assert ids(check_views(None)) == ["E007"]

    def test_names_it_where_the_view_chooses_its_throttles(self, serve, monkeypatch):
        monkeypatch.setattr(ThrottledByMethod, "api_cost", "5", raising=False)
        serve(ThrottledByMethod)

        assert ids(check_views(None)) == ["E007"]

    @pytest.mark.parametrize("cost", [0, 5, 10**9])
    def test_not_of_a_number_of_units(self, serve, monkeypatch, cost):
        monkeypatch.setattr(DeclaresKnown, "api_cost", cost, raising=False)
        serve(DeclaresKnown)

        assert check_views(None) == []

    @pytest.mark.parametrize("view", [CostsByRequest, CostsByDescriptor])
    def test_not_of_what_is_asked_later(self, serve, view):
        serve(view)

        assert check_views(None) == []

    def test_not_where_keys_do_not_come(self, serve, monkeypatch):
        monkeypatch.setattr(NotOurs, "api_cost", "5", raising=False)
        serve(NotOurs)

        assert check_views(None) == []

    def test_not_where_nothing_is_counted(self, serve, monkeypatch):
        monkeypatch.setattr(UnthrottledAndRefusesKeys, "api_cost", "5", raising=False)
        serve(UnthrottledAndRefusesKeys)

        assert check_views(None) == []


class TestE008:
    @pytest.mark.parametrize(
        "permissions",
        [
            pytest.param([HasPlan("prro", "pro")], id="entry"),
            pytest.param([HasPlan("pro") & (~HasPlan("prro") | IsAuthenticated)], id="composed"),
        ],
    )
    def test_names_a_plan_that_is_unknown(self, serve, settings, permissions):
        settings.APIKEYS_PLANS = {"pro": {"quota": 1}}
        serve(DeclaresKnown.as_view(permission_classes=permissions))

        findings = check_views(None)

        assert ids(findings) == ["E008"]
        assert findings[0].msg == (
            "tests.test_checks.DeclaresKnown lets in owners of plans that are not in "
            "APIKEYS_PLANS: 'prro'."
        )
        assert findings[0].is_serious()

    @pytest.mark.parametrize("plans", [{}, {"pro": {"quota": 1}}], ids=["no plans", "plans"])
    @pytest.mark.parametrize(
        "permission", [HasPlan, HasPlan | IsAuthenticated], ids=["entry", "|"]
    )
    def test_names_one_that_was_not_called(self, serve, settings, permission, plans):
        settings.APIKEYS_PLANS = plans
        serve(DeclaresKnown.as_view(permission_classes=[permission]))

        findings = check_views(None)

        assert ids(findings) == ["E008"]
        assert findings[0].msg == (
            "tests.test_checks.DeclaresKnown has HasPlan without plans in permission_classes, "
            "which fails each request."
        )

    @pytest.mark.parametrize("plans", [{}, {"pro": {}}], ids=["none is listed", "listed"])
    def test_not_of_plans_that_are_known(self, serve, settings, plans):
        settings.APIKEYS_PLANS = plans
        serve(DeclaresKnown.as_view(permission_classes=[HasPlan("pro")]))

        assert check_views(None) == []


@api_key_required(scopes=["jobs:raed"])
def asks_plainly(request):
    """Answers nobody."""


class PlainView(View):
    def get(self, request):
        """Answers nobody."""


@method_decorator(
    api_key_required(scopes={"GET": ["jobs:raed", "customers:read"], "POST": ["jobs:wirte"]}),
    name="dispatch",
)
class AsksByDispatch(PlainView):
    """Stands behind two URLs."""


class AsksByMethods(View):
    @method_decorator(api_key_required(scopes=["jobs:raed"]))
    def get(self, request):
        """Answers nobody."""

    @method_decorator(api_key_required(scopes=["jobs:wirte"]))
    def post(self, request):
        """Answers nobody."""


class TestE002:
    @pytest.mark.parametrize(
        ("view", "label", "scopes"),
        [
            pytest.param(AsksList, "AsksList", "'jobs:raed'", id="list"),
            pytest.param(AsksText, "AsksText", "'jobs:raed'", id="text"),
            pytest.param(AsksDict, "AsksDict", "'jobs:wirte'", id="dict"),
            pytest.param(
                AsksResource, "AsksResource", "'invoices:read', 'invoices:write'", id="resource"
            ),
            pytest.param(AsksByPermission, "AsksByPermission", "'jobs:raed'", id="HasScope"),
            pytest.param(AsksWildcard, "AsksWildcard", "'jobs:*'", id="wildcard"),
            pytest.param(AsksNumber, "AsksNumber", "1", id="number"),
            pytest.param(AsksBareNumber, "AsksBareNumber", "5", id="number, not in a list"),
            pytest.param(asks_in_a_function, "asks_in_a_function", "'jobs:raed'", id="function"),
        ],
    )
    def test_names_the_view_and_the_scopes(self, serve, view, label, scopes):
        serve(view)

        findings = check_views(None)

        assert ids(findings) == ["E002"]
        assert findings[0].msg == f"tests.test_checks.{label} asks for unknown scopes: {scopes}."
        assert findings[0].is_serious()

    @pytest.mark.parametrize(
        "view",
        [
            DeclaresKnown,
            DeclaresReserved,
            DeclaresEmpty,
            DeclaresByPermission,
            DeclaresInAComposition,
            DeclaresByRequest,
            DeclaresByCachedProperty,
            ChoosesByRequest,
            NotOurs,
            plain_view,
        ],
    )
    def test_not_of(self, serve, view):
        serve(view)

        assert check_views(None) == []

    @pytest.mark.parametrize("view", [AsksGenerator, AsksGeneratorInDict])
    def test_of_a_generator(self, serve, view):
        serve(view)

        findings = check_views(None)

        assert ids(findings) == ["E002"]
        assert findings[0].msg.startswith(
            f"tests.test_checks.{view.__name__} asks for unknown scopes: <generator object "
        )

    @pytest.mark.parametrize(
        ("view", "label", "scopes"),
        [
            pytest.param(asks_plainly, "asks_plainly", "'jobs:raed'", id="function"),
            pytest.param(
                cache_page(60)(asks_plainly), "asks_plainly", "'jobs:raed'", id="function, cached"
            ),
            pytest.param(
                api_key_required(scopes=["jobs:raed"])(PlainView.as_view()),
                "PlainView",
                "'jobs:raed'",
                id="as_view",
            ),
            pytest.param(
                AsksByDispatch.as_view(), "AsksByDispatch", "'jobs:raed', 'jobs:wirte'", id="class"
            ),
            pytest.param(
                AsksByMethods.as_view(), "AsksByMethods", "'jobs:raed', 'jobs:wirte'", id="methods"
            ),
        ],
    )
    def test_names_the_plain_view_and_the_scopes_once(self, serve, view, label, scopes):
        serve(view, view, api_key_required(scopes=["customers:read"])(plain_view))

        findings = check_views(None)

        assert ids(findings) == ["E002"]
        assert findings[0].msg == f"tests.test_checks.{label} asks for unknown scopes: {scopes}."
        assert findings[0].is_serious()

    def test_of_what_as_view_was_given(self, serve):
        serve(Ours.as_view(required_scopes=["jobs:raed"]))

        assert ids(check_views(None)) == ["E002"]

    def test_names_a_view_behind_two_urls_once(self, serve):
        serve(AsksList, AsksList)

        assert ids(check_views(None)) == ["E002"]

    def test_names_every_view(self, serve):
        serve(AsksList, AsksDict)

        assert ids(check_views(None)) == ["E002", "E002"]

    def test_is_what_manage_py_check_fails_with(self, serve):
        serve(AsksList, NotOurs)

        with pytest.raises(SystemCheckError, match=r"E002.* tests\.test_checks\.AsksList"):
            call_command("check", "--tag", "django_apikeys")


@pytest.mark.usefixtures("_readable_invoices")
class TestE002WhereNobodyWrites:
    def test_not_of_a_read_only_viewset(self, route):
        route(_viewset(ReadOnlyModelViewSet))

        assert check_views(None) == []

    def test_not_of_a_viewset_that_lets_in_reading_methods_alone(self, route):
        route(_viewset(ModelViewSet, http_method_names=["get", "head", "options"]))

        assert check_views(None) == []

    def test_not_of_a_view_that_lets_in_reading_methods_alone(self, serve):
        serve(ReadsOnly)

        assert check_views(None) == []

    def test_not_of_a_view_that_as_view_made_reading(self, serve):
        serve(Ours.as_view(scope_resource="invoices", http_method_names=["get"]))

        assert check_views(None) == []

    def test_of_a_viewset_that_writes(self, route):
        route(_viewset(ModelViewSet))

        findings = check_views(None)

        assert ids(findings) == ["E002"]
        assert findings[0].msg.endswith("asks for unknown scopes: 'invoices:write'.")

    def test_of_a_viewset_that_names_its_actions(self, route):
        route(_viewset(_Lists, scope_resource=None, required_scopes={"list": ["invoices:raed"]}))

        findings = check_views(None)

        assert ids(findings) == ["E002"]
        assert findings[0].msg.endswith("asks for unknown scopes: 'invoices:raed'.")


class TestW007:
    @pytest.mark.parametrize(
        ("view", "label"),
        [
            pytest.param(Ours, "Ours", id="none of the three"),
            pytest.param(DeclaresNothing, "DeclaresNothing", id="other permissions"),
            pytest.param(DeclaresNothingByHasScope, "DeclaresNothingByHasScope", id="HasScope"),
            pytest.param(ComposesAlone, "ComposesAlone", id="composition"),
            pytest.param(undeclared_function, "undeclared_function", id="function"),
            pytest.param(OwnRoot, "OwnRoot", id="derived from a view of DRF"),
        ],
    )
    def test_names_the_view(self, serve, view, label):
        serve(view)

        findings = check_views(None)

        assert ids(findings) == ["W007"]
        assert findings[0].msg == (
            f"tests.test_checks.{label} declares no scopes, and so refuses every API key."
        )
        assert not findings[0].is_serious()

    @pytest.mark.parametrize(
        "view",
        [
            DeclaresKnown,
            DeclaresEmpty,
            DeclaresNoKeys,
            DeclaresByPermission,
            DeclaresInAComposition,
            DeclaresByRequest,
            DeclaresByCachedProperty,
            DeclaresByFunctoolsCachedProperty,
            PermitsByRequest,
            ChoosesByRequest,
            NotOurs,
            declared_function,
            plain_view,
        ],
    )
    def test_not_of(self, serve, view):
        serve(view)

        assert check_views(None) == []

    def test_not_of_what_as_view_was_given(self, serve):
        serve(Ours.as_view(scope_resource="jobs"))

        assert check_views(None) == []

    def test_not_where_undeclared_views_are_open(self, serve, settings):
        settings.APIKEYS_UNDECLARED_VIEWS = "allow"
        serve(DeclaresNothing)

        assert check_views(None) == []

    def test_of_a_view_that_takes_the_classes_of_the_settings(self, serve):
        serve(TakesTheDefault)

        with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [OURS]}):
            findings = check_views(None)

        assert ids(findings) == ["W007"]

    def test_not_of_the_root_of_a_router(self, route):
        """A view of DRF's own."""
        route(_viewset(_Lists, scope_resource="jobs"), DefaultRouter)

        assert check_views(None) == []

    def test_names_a_view_behind_two_urls_once(self, serve):
        serve(DeclaresNothing, DeclaresNothing)

        assert ids(check_views(None)) == ["W007"]

    def test_names_every_view(self, serve):
        serve(DeclaresNothing, ComposesAlone)

        assert ids(check_views(None)) == ["W007", "W007"]

    def test_of_a_viewset_whose_one_action_declares(self, route):
        """The other refuses keys."""
        route(_viewset(_Acts, scope_resource=None))

        findings = check_views(None)

        assert ids(findings) == ["W007"]
        assert findings[0].msg.startswith("tests.test_checks.Things ")


class TestW008:
    @pytest.fixture
    def _no_django_filters(self, settings):
        settings.INSTALLED_APPS = [
            app for app in settings.INSTALLED_APPS if app != "django_filters"
        ]

    @pytest.mark.usefixtures("_no_django_filters")
    def test_the_management_api_without_the_templates_of_its_filters(self, mount):
        mount(path("api/", include("django_apikeys.drf.urls")))

        findings = check_views(None)

        assert ids(findings) == ["W008"]
        assert findings[0].hint == 'Add "django_filters" to INSTALLED_APPS.'
        assert not findings[0].is_serious()

    @pytest.mark.usefixtures("_no_django_filters")
    def test_a_view_that_is_derived_from_one(self, serve):
        serve(OwnEvents)

        assert ids(check_views(None)) == ["W008"]

    @pytest.mark.usefixtures("_no_django_filters")
    @pytest.mark.parametrize("view", [ScopesView, FilteredElsewhere, plain_view])
    def test_not_of(self, serve, view):
        serve(view)

        assert check_views(None) == []

    def test_not_where_it_is_installed(self, mount):
        mount(path("api/", include("django_apikeys.drf.urls")))

        assert check_views(None) == []


class _Lists(ViewSet):
    def list(self, request):
        """Answer nothing."""


class _Acts(_Lists):
    required_scopes: Any = None

    @action(detail=False, required_scopes=["jobs:read"])
    def act(self, request):
        """Answer nothing."""


def _viewset(base, **attributes):
    declared = {"authentication_classes": [APIKeyAuthentication], "scope_resource": "invoices"}
    return type("Things", (base,), declared | attributes)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        pytest.param([OURS], [], id="alone"),
        pytest.param([OURS, SESSION], [], id="first"),
        pytest.param([SESSION], [], id="not there"),
        pytest.param([], [], id="none"),
        pytest.param(
            ["tests.test_checks.OtherKeyAuthentication", SESSION], [], id="derived, first"
        ),
        pytest.param([SESSION, OURS], ["W003"], id="last"),
        pytest.param(
            [SESSION, "tests.test_checks.OtherKeyAuthentication"], ["W003"], id="derived"
        ),
        pytest.param([OURS, SESSION, OURS], ["W003"], id="twice"),
    ],
)
def test_w003_order_in_the_settings(serve, classes, expected):
    serve(plain_view)

    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": classes}):
        findings = check_views(None)

    assert ids(findings) == expected
    assert all("DEFAULT_AUTHENTICATION_CLASSES" in finding.msg for finding in findings)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        pytest.param([APIKeyAuthentication], [], id="alone"),
        pytest.param([APIKeyAuthentication, SessionAuthentication], [], id="first"),
        pytest.param([SessionAuthentication], [], id="not there"),
        pytest.param([], [], id="none"),
        pytest.param([OtherKeyAuthentication, SessionAuthentication], [], id="derived, first"),
        pytest.param([SessionAuthentication, APIKeyAuthentication], ["W004"], id="last"),
        pytest.param((BasicAuthentication, OtherKeyAuthentication), ["W004"], id="derived, last"),
        pytest.param([APIKeyAuthentication, APIKeyAuthentication], ["W004"], id="twice"),
    ],
)
def test_w004_order_of_a_view(serve, classes, expected):
    serve(Ours.as_view(authentication_classes=classes, required_scopes=[]))

    findings = check_views(None)

    assert ids(findings) == expected
    assert all(
        "first in tests.test_checks.Ours." in finding.msg and not finding.is_serious()
        for finding in findings
    )


def test_w004_is_left_out_where_a_view_takes_the_order_of_the_settings(serve):
    classes = [SessionAuthentication, APIKeyAuthentication]
    serve(Ours.as_view(authentication_classes=classes, required_scopes=[]))

    with override_settings(REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [SESSION, OURS]}):
        findings = check_views(None)

    assert ids(findings) == ["W003"]


@pytest.mark.parametrize("value", [None, ""])
def test_nothing_to_find_without_urls(settings, value):
    settings.ROOT_URLCONF = value

    assert check_views(None) == []


def test_nothing_to_find_without_rest_framework(settings, serve):
    serve(AsksList)
    settings.INSTALLED_APPS = [
        app for app in settings.INSTALLED_APPS if not app.startswith("rest_framework")
    ]

    assert check_views(None) == []


def test_every_finding_says_what_to_do(settings, serve):
    serve(
        AsksList, Ours.as_view(authentication_classes=[BasicAuthentication, APIKeyAuthentication])
    )
    settings.APIKEYS_UNDECLARED_VIEWS = "allow"

    findings: list[CheckMessage] = [
        *check_settings(None),
        *check_deployment(None),
        *check_views(None),
    ]

    assert ids(findings) == ["W001", "W002", "W009", "E002", "W004"]
    assert all(finding.hint for finding in findings)


def test_w005_a_setting_that_does_not_exist(settings):
    """A restriction that is misspelt restricts nothing."""
    settings.APIKEYS_ACCEPTED_ENVIRONMENT = ["live"]

    findings = check_settings(None)

    assert [(found.id, found.msg) for found in findings] == [
        ("django_apikeys.W005", "There is no setting APIKEYS_ACCEPTED_ENVIRONMENT.")
    ]


def test_w005_no_setting_of_ours_is_unknown(settings):
    settings.APIKEYS_POLICY = "django_apikeys.policy.UserPolicy"
    settings.APIKEYS_HASHER = "django_apikeys.keys.hashers.HMACHasher"
    settings.APIKEYS_CLIENT_RESOLVER = "django_apikeys.clients.client_address"

    assert check_settings(None) == []


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0/0.0.0.0", "::ffff:0:0/96"])
def test_e004_proxies_that_are_everybody(settings, network):
    settings.APIKEYS_TRUSTED_PROXIES = ["10.0.0.0/8", network]

    findings = check_settings(None)

    assert [(found.id, found.msg) for found in findings] == [
        ("django_apikeys.E004", f"APIKEYS_TRUSTED_PROXIES trusts everybody: {network}.")
    ]


def test_e004_no_proxies_that_are_named(settings):
    settings.APIKEYS_TRUSTED_PROXIES = ["10.0.0.0/8"]

    assert check_settings(None) == []


def test_w006_secrets_whose_pepper_is_gone(issue, settings):
    issue()
    issue()
    name = issue().key.current_secret.digest.split("$")[1]
    settings.SECRET_KEY = "another"

    findings = check_peppers(databases=["default"])

    assert [(found.id, found.msg) for found in findings] == [
        (
            "django_apikeys.W006",
            f"3 secrets cannot be verified: the pepper {name!r} of their digests is gone.",
        )
    ]


def test_w006_not_where_the_pepper_is_there_or_no_database_is_asked(issue, settings):
    issue()

    assert check_peppers(databases=["default"]) == []
    settings.SECRET_KEY = "another"
    assert check_peppers(databases=None) == []


def test_w006_not_for_keys_that_are_dead(issue, settings):
    services.revoke_key(key=issue().key)
    settings.SECRET_KEY = "another"

    assert check_peppers(databases=["default"]) == []


def test_w006_not_before_the_tables_are_made(db):
    """``migrate`` asks before it has made them."""

    def no_such_table(execute, sql, params, many, context):
        raise OperationalError("no such table")

    with connection.execute_wrapper(no_such_table):
        assert check_peppers(databases=["default"]) == []


def test_w006_is_found_by_check_with_database_alone(issue, settings, capsys):
    issue()
    settings.SECRET_KEY = "another"

    call_command("check")
    without = capsys.readouterr().err
    call_command("check", databases=["default"])
    with_database = capsys.readouterr().err

    assert "django_apikeys.W006" not in without
    assert "django_apikeys.W006" in with_database


class TestE005:
    @pytest.fixture
    def _owned_by_groups(self, settings):
        """The tables were made with keys of users."""
        settings.APIKEYS_OWNER_MODEL = "auth.Group"
        settings.APIKEYS_POLICY = "django_apikeys.policy.BasePolicy"

    @pytest.mark.usefixtures("db", "_owned_by_groups")
    def test_the_setting_names_another_model_than_the_tables_were_made_for(self):
        findings = check_owner_column(databases=["default"])

        assert ids(findings) == ["E005"]
        assert findings[0].msg == (
            "By APIKEYS_OWNER_MODEL owner_id refers to auth_group.id, in the database to "
            "auth_user.id."
        )
        assert findings[0].hint.startswith("The first migrate has fixed APIKEYS_OWNER_MODEL")
        assert findings[0].is_serious()

    @pytest.mark.usefixtures("db")
    def test_the_model_has_another_primary_key_since(self, monkeypatch):
        monkeypatch.setattr(User._meta.pk, "column", "uuid")

        findings = check_owner_column(databases=["default"])

        assert ids(findings) == ["E005"]
        assert " refers to auth_user.uuid, in the database to auth_user.id." in findings[0].msg

    @isolate_apps("tests")
    def test_the_tables_were_made_with_another_setting(self, transactional_db):
        """They refer to groups, and keys belong to users."""

        class KeyOfGroup(models.Model):  # noqa: DJ008 - never shown
            owner = models.ForeignKey(Group, on_delete=models.CASCADE)

            class Meta:
                app_label = "tests"

        with connection.schema_editor() as editor:
            editor.create_model(KeyOfGroup)
        try:
            # Over before the database is flushed, which needs the table's own name.
            with pytest.MonkeyPatch.context() as monkeypatch:
                monkeypatch.setattr(APIKey._meta, "db_table", "tests_keyofgroup")
                findings = check_owner_column(databases=["default"])
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(KeyOfGroup)

        assert ids(findings) == ["E005"]
        assert " refers to auth_user.id, in the database to auth_group.id." in findings[0].msg

    @pytest.mark.usefixtures("db")
    def test_not_where_they_agree(self):
        assert check_owner_column(databases=["default"]) == []

    @pytest.mark.usefixtures("db")
    def test_not_by_the_case_of_a_name(self, monkeypatch):
        """Some databases fold the names of tables."""
        monkeypatch.setattr(User._meta, "db_table", "Auth_User")

        assert check_owner_column(databases=["default"]) == []

    @pytest.mark.usefixtures("db", "_owned_by_groups")
    @pytest.mark.parametrize(
        "table",
        [
            pytest.param("tests_nowhere", id="no table: migrate asks before it has made them"),
            pytest.param(OwnerQuota._meta.db_table, id="no foreign key: MyISAM keeps none"),
        ],
    )
    def test_not_where_the_database_says_nothing(self, monkeypatch, table):
        monkeypatch.setattr(APIKey._meta, "db_table", table)

        assert check_owner_column(databases=["default"]) == []

    @pytest.mark.usefixtures("db", "_owned_by_groups")
    def test_not_where_the_database_is_down(self):
        def gone_away(execute, sql, params, many, context):
            raise OperationalError("server has gone away")

        with connection.execute_wrapper(gone_away):
            assert check_owner_column(databases=["default"]) == []

    @pytest.mark.usefixtures("db")
    @pytest.mark.parametrize("model", ["auth.Nothing", "nothing.User", "Nothing", "", 7])
    def test_not_of_a_setting_that_names_no_model(self, settings, model):
        """E001 says so, or Django."""
        settings.APIKEYS_OWNER_MODEL = model

        assert check_owner_column(databases=["default"]) == []

    @pytest.mark.usefixtures("db", "_owned_by_groups")
    @pytest.mark.parametrize("databases", [None, [], ["replica"]])
    def test_not_where_its_database_is_not_asked(self, databases):
        assert check_owner_column(databases=databases) == []

    @pytest.mark.usefixtures("db", "_owned_by_groups")
    def test_is_what_check_with_database_fails_with_and_no_other(self):
        call_command("check")

        with pytest.raises(SystemCheckError, match=r"django_apikeys\.E005"):
            call_command("check", databases=["default"])
