from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import translation

from django_apikeys.clients import client_address
from django_apikeys.conf import Configuration, conf, unknown_settings
from django_apikeys.keys.hashers import HMACHasher
from django_apikeys.keys.masking import Secret
from django_apikeys.limits import RatelimitLimiter
from django_apikeys.policy import BasePolicy, UserPolicy
from django_apikeys.usage import MemoryRecorder
from tests.conftest import FERNET_KEY

SAMPLE = Secret("rak_live_7Fq2Lm9XcT0a_A3f2Kq9ZbYw0LrT7mVxD5sHnC8eJ1uGpQo4iRk6WtB20xFcJm")
RESERVED = ["apikeys:read", "apikeys:write", "self:rotate", "self:revoke"]
NOT_CALLABLE = "a seam that cannot be called"


class OtherHasher(HMACHasher):
    """What a host might name in APIKEYS_HASHER."""


class NeedyHasher(HMACHasher):
    def __init__(self):
        """Takes no peppers."""


class NeedyPolicy(BasePolicy):
    def __init__(self, site):
        """Wants more than it is given."""


class OtherPolicy(BasePolicy):
    """What a host might name in APIKEYS_POLICY."""


def other_resolver(request):
    """What a host might name in APIKEYS_CLIENT_RESOLVER."""


def test_every_setting_is_tested_here():
    properties = {
        name for name, value in vars(Configuration).items() if isinstance(value, property)
    }

    seams = {"hasher", "policy", "client_resolver", "limiter", "usage_recorder"}
    of_django_ratelimit = {"ratelimit_enabled", "ratelimit_cache"}
    assert properties == {*DEFAULTS, *seams, *of_django_ratelimit}


DEFAULTS = {
    "OWNER_MODEL": "auth.User",
    "PREFIXES": ("key",),
    "ENVIRONMENTS": ("live", "test"),
    "ACCEPTED_ENVIRONMENTS": ("live", "test"),
    "CREDENTIALS": ("bearer", "api-key", "x-api-key", "basic"),
    "SCOPES": {
        "apikeys:read": "Read API keys, their usage and their events",
        "apikeys:write": "Create and change API keys within the limits of this one",
        "self:rotate": "Rotate the secret of this key",
        "self:revoke": "Revoke this key",
    },
    "IMPLIED_SCOPES": {},
    "UNDECLARED_VIEWS": "refuse",
    "REQUIRE_NAME": True,
    "REHASH": True,
    "TRUSTED_PROXIES": (),
    "PEPPERS": {},
    "PEPPER_CURRENT": None,
    "RETRIEVABLE": False,
    "ENCRYPTION_KEYS": (),
    "REVEAL_LOGIN_SECONDS": 600,
    "ROTATION_DAYS": 90,
    "REVOKE_ON_REUSE": False,
    "RETIRED_DAYS": 365,
    "UNUSED_DAYS": 90,
    "UNUSED_ACTION": "tell",
    "MAX_KEYS_PER_OWNER": None,
    "DEFAULT_LIFETIME": {"live": None, "test": None},
    "MAX_LIFETIME": {"live": None, "test": None},
    "CACHE": "default",
    "CACHE_TIMEOUT": 0.1,
    "PLANS": {},
    "QUOTA_TIME_ZONE": ZoneInfo("UTC"),
    "LIMITS_FAIL": "open",
    "STORE_ADDRESSES": True,
    "USAGE_FLUSH_SECONDS": 5,
    "USAGE_HOURLY_DAYS": 30,
    "USAGE_DAYS": 730,
    "DELETED_DAYS": 90,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [pytest.param(name, expected, id=name) for name, expected in DEFAULTS.items()],
)
def test_default(settings, name, expected):
    for configured in ("APIKEYS_PREFIXES", "APIKEYS_SCOPES"):
        delattr(settings, configured)

    assert getattr(conf, name) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("OWNER_MODEL", "crm.Organisation", id="OWNER_MODEL"),
        pytest.param("PREFIXES", ["new", "rak"], id="PREFIXES"),
        pytest.param("PREFIXES", ("a" * 16,), id="PREFIXES, longest"),
        pytest.param("PREFIXES", ["a1"], id="PREFIXES, shortest"),
        pytest.param("ENVIRONMENTS", ["prod"], id="ENVIRONMENTS"),
        pytest.param("ENVIRONMENTS", ["p"], id="ENVIRONMENTS, shortest"),
        pytest.param("ACCEPTED_ENVIRONMENTS", ["test"], id="ACCEPTED_ENVIRONMENTS"),
        pytest.param("CREDENTIALS", ["bearer"], id="CREDENTIALS"),
        pytest.param("IMPLIED_SCOPES", {"write": ["read"]}, id="IMPLIED_SCOPES, list"),
        pytest.param("IMPLIED_SCOPES", {"a:b": ("a:c",)}, id="IMPLIED_SCOPES, tuple"),
        pytest.param("IMPLIED_SCOPES", {"a:b": {"a:c"}}, id="IMPLIED_SCOPES, set"),
        pytest.param("IMPLIED_SCOPES", {"a:b": frozenset()}, id="IMPLIED_SCOPES, frozenset"),
        pytest.param("UNDECLARED_VIEWS", "allow", id="UNDECLARED_VIEWS"),
        pytest.param("REQUIRE_NAME", False, id="REQUIRE_NAME"),
        pytest.param("REHASH", False, id="REHASH"),
        pytest.param("TRUSTED_PROXIES", ["10.0.0.0/8", "2001:db8::1"], id="TRUSTED_PROXIES"),
        pytest.param("PEPPERS", {"2026-11": "pepper"}, id="PEPPERS"),
        pytest.param("RETRIEVABLE", True, id="RETRIEVABLE"),
        pytest.param("ENCRYPTION_KEYS", (FERNET_KEY,), id="ENCRYPTION_KEYS"),
        pytest.param("REVEAL_LOGIN_SECONDS", 30, id="REVEAL_LOGIN_SECONDS"),
        pytest.param("ROTATION_DAYS", 1, id="ROTATION_DAYS"),
        pytest.param("REVOKE_ON_REUSE", True, id="REVOKE_ON_REUSE"),
        pytest.param("UNUSED_DAYS", 1, id="UNUSED_DAYS"),
        pytest.param("UNUSED_DAYS", None, id="UNUSED_DAYS, none"),
        pytest.param("UNUSED_ACTION", "disable", id="UNUSED_ACTION"),
        pytest.param("MAX_KEYS_PER_OWNER", 1, id="MAX_KEYS_PER_OWNER"),
        pytest.param("MAX_KEYS_PER_OWNER", None, id="MAX_KEYS_PER_OWNER, none"),
        pytest.param("CACHE_TIMEOUT", 1, id="CACHE_TIMEOUT"),
        pytest.param("CACHE_TIMEOUT", 0.001, id="CACHE_TIMEOUT, a fraction"),
        pytest.param("PLANS", {"free": {"rate": "60/m", "quota": 10_000}}, id="PLANS"),
        pytest.param("PLANS", {"free": {"rate": None, "quota": None}}, id="PLANS, none"),
        pytest.param("PLANS", {"free": {"quota": 10**15 - 1}}, id="PLANS, the largest"),
        pytest.param("PLANS", {"free": {"quota": 0}, "": {}}, id="PLANS, a quota of nothing"),
        pytest.param("LIMITS_FAIL", "closed", id="LIMITS_FAIL"),
        pytest.param("STORE_ADDRESSES", "network", id="STORE_ADDRESSES, network"),
        pytest.param("STORE_ADDRESSES", False, id="STORE_ADDRESSES, none"),
        pytest.param("USAGE_FLUSH_SECONDS", 0.5, id="USAGE_FLUSH_SECONDS"),
        pytest.param("USAGE_FLUSH_SECONDS", None, id="USAGE_FLUSH_SECONDS, none"),
    ],
)
def test_value(settings, name, value):
    setattr(settings, f"APIKEYS_{name}", value)

    assert getattr(conf, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("OWNER_MODEL", "", id="OWNER_MODEL, empty"),
        pytest.param("OWNER_MODEL", None, id="OWNER_MODEL, none"),
        pytest.param("PREFIXES", "rak", id="PREFIXES, text"),
        pytest.param("PREFIXES", [], id="PREFIXES, empty"),
        pytest.param("PREFIXES", None, id="PREFIXES, none"),
        pytest.param("PREFIXES", ["rak", 1], id="PREFIXES, number"),
        pytest.param("PREFIXES", ["RAK"], id="PREFIXES, capitals"),
        pytest.param("PREFIXES", ["r"], id="PREFIXES, one letter"),
        pytest.param("PREFIXES", ["1ak"], id="PREFIXES, digit first"),
        pytest.param("PREFIXES", ["a" * 17], id="PREFIXES, 17 letters"),
        pytest.param("PREFIXES", ["rak_"], id="PREFIXES, underscore"),
        pytest.param("PREFIXES", ["rak\n"], id="PREFIXES, line break"),
        pytest.param("PREFIXES", {"rak"}, id="PREFIXES, set"),
        pytest.param("ENVIRONMENTS", [], id="ENVIRONMENTS, empty"),
        pytest.param("ENVIRONMENTS", ["Live"], id="ENVIRONMENTS, capitals"),
        pytest.param("ENVIRONMENTS", ["a_b"], id="ENVIRONMENTS, underscore"),
        pytest.param("ACCEPTED_ENVIRONMENTS", [], id="ACCEPTED_ENVIRONMENTS, empty"),
        pytest.param("ACCEPTED_ENVIRONMENTS", "live", id="ACCEPTED_ENVIRONMENTS, text"),
        pytest.param("CREDENTIALS", [], id="CREDENTIALS, empty"),
        pytest.param("CREDENTIALS", ["query"], id="CREDENTIALS, unknown"),
        pytest.param("CREDENTIALS", ["Bearer"], id="CREDENTIALS, capitals"),
        pytest.param("SCOPES", ["jobs:read"], id="SCOPES, list"),
        pytest.param("SCOPES", None, id="SCOPES, none"),
        pytest.param("SCOPES", {1: "One"}, id="SCOPES, number"),
        pytest.param("SCOPES", {"jobs": "Jobs"}, id="SCOPES, no action"),
        pytest.param("SCOPES", {"jobs:*": "All"}, id="SCOPES, wildcard"),
        pytest.param("SCOPES", {"*": "All"}, id="SCOPES, star"),
        pytest.param("SCOPES", {"apikeys:read": "Mine"}, id="SCOPES, reserved"),
        pytest.param("SCOPES", {"self:destroy": "Mine"}, id="SCOPES, reserved resource"),
        pytest.param("IMPLIED_SCOPES", ["jobs:write"], id="IMPLIED_SCOPES, list"),
        pytest.param("IMPLIED_SCOPES", {"write": "read"}, id="IMPLIED_SCOPES, text"),
        pytest.param("IMPLIED_SCOPES", {"write": [1]}, id="IMPLIED_SCOPES, number"),
        pytest.param("IMPLIED_SCOPES", {1: ["read"]}, id="IMPLIED_SCOPES, key a number"),
        pytest.param("UNDECLARED_VIEWS", "deny", id="UNDECLARED_VIEWS, unknown"),
        pytest.param("UNDECLARED_VIEWS", True, id="UNDECLARED_VIEWS, true"),
        pytest.param("REQUIRE_NAME", "False", id="REQUIRE_NAME, text"),
        pytest.param("REQUIRE_NAME", None, id="REQUIRE_NAME, none"),
        pytest.param("REHASH", 1, id="REHASH, a number"),
        pytest.param("TRUSTED_PROXIES", "10.0.0.0/8", id="TRUSTED_PROXIES, a text"),
        pytest.param("TRUSTED_PROXIES", ["10.0.0.1/8"], id="TRUSTED_PROXIES, host bits"),
        pytest.param("TRUSTED_PROXIES", ["proxy"], id="TRUSTED_PROXIES, a name"),
        pytest.param("TRUSTED_PROXIES", [10], id="TRUSTED_PROXIES, a number"),
        pytest.param("PEPPERS", ["pepper"], id="PEPPERS, list"),
        pytest.param("PEPPERS", {"a$b": "pepper"}, id="PEPPERS, dollar in the id"),
        pytest.param("PEPPERS", {"": "pepper"}, id="PEPPERS, empty id"),
        pytest.param("PEPPERS", {"a" * 65: "pepper"}, id="PEPPERS, long id"),
        pytest.param("PEPPERS", {"one": b"pepper"}, id="PEPPERS, bytes"),
        pytest.param("PEPPERS", {"one": ""}, id="PEPPERS, empty"),
        pytest.param("PEPPER_CURRENT", "one", id="PEPPER_CURRENT, not listed"),
        pytest.param("PEPPER_CURRENT", "", id="PEPPER_CURRENT, empty"),
        pytest.param("PEPPER_CURRENT", ["one"], id="PEPPER_CURRENT, list"),
        pytest.param("RETRIEVABLE", "True", id="RETRIEVABLE, text"),
        pytest.param("RETRIEVABLE", None, id="RETRIEVABLE, none"),
        *[
            pytest.param("ENCRYPTION_KEYS", value, id=f"ENCRYPTION_KEYS, {what}")
            for what, value in {
                "none": None,
                "text": FERNET_KEY,
                "dict": {"one": FERNET_KEY},
                "bytes": [FERNET_KEY.encode()],
                "a password": ["correct horse battery staple"],
                "without its end": [FERNET_KEY[:-1]],
                "with a line break": [f"{FERNET_KEY}\n"],
                "of another alphabet": ["+" + FERNET_KEY[1:]],
                "33 bytes": ["A" * 44],
                "the second": [FERNET_KEY, ""],
            }.items()
        ],
        pytest.param("REVOKE_ON_REUSE", "yes", id="REVOKE_ON_REUSE, text"),
        pytest.param("MAX_KEYS_PER_OWNER", 0, id="MAX_KEYS_PER_OWNER, zero"),
        pytest.param("MAX_KEYS_PER_OWNER", "10", id="MAX_KEYS_PER_OWNER, text"),
        pytest.param("MAX_KEYS_PER_OWNER", True, id="MAX_KEYS_PER_OWNER, true"),
        pytest.param("MAX_KEYS_PER_OWNER", 1.5, id="MAX_KEYS_PER_OWNER, fraction"),
        *[
            pytest.param(name, value, id=f"{name}, {what}")
            for name in ("DEFAULT_LIFETIME", "MAX_LIFETIME")
            for what, value in {
                "zero": 0,
                "no time": timedelta(0),
                "negative": timedelta(seconds=-1),
                "negative days": -1,
                "negative beyond a timedelta": -(10**10),
                "beyond a timedelta": 10**10,
                "100 years and a day": 36_601,
                "100 years and a second": timedelta(days=36_600, seconds=1),
                "true": True,
                "false": False,
                "fraction": 1.5,
                "text": "90",
                "list": [90],
                "unknown environment": {"prod": 90},
                "environment a number": {1: 90},
                "no environment": {None: 90},
                "zero in a dict": {"live": 0},
                "text in a dict": {"live": "90"},
                "dict in a dict": {"live": {"live": 90}},
            }.items()
        ],
        pytest.param("CACHE", "", id="CACHE, empty"),
        pytest.param("CACHE", None, id="CACHE, none"),
        pytest.param("CACHE", ["default"], id="CACHE, list"),
        pytest.param("CACHE", "counters", id="CACHE, not in CACHES"),
        *[
            pytest.param(name, value, id=f"{name}, {what}")
            for name in ("CACHE_TIMEOUT", "USAGE_FLUSH_SECONDS", "REVEAL_LOGIN_SECONDS")
            for what, value in {
                "zero": 0,
                "negative": -1,
                "text": "0.1",
                "true": True,
                "no number": float("nan"),
                "more than a day": 86_401,
            }.items()
        ],
        pytest.param("CACHE_TIMEOUT", None, id="CACHE_TIMEOUT, none"),
        *[
            pytest.param(name, value, id=f"{name}, {what}")
            for name in (
                "ROTATION_DAYS",
                "UNUSED_DAYS",
                "USAGE_HOURLY_DAYS",
                "USAGE_DAYS",
                "DELETED_DAYS",
                "RETIRED_DAYS",
            )
            for what, value in {
                "zero": 0,
                "text": "30",
                "true": True,
                "fraction": 1.5,
                "more than a hundred years": 36_601,
            }.items()
        ],
        pytest.param("ROTATION_DAYS", None, id="ROTATION_DAYS, none"),
        pytest.param("USAGE_HOURLY_DAYS", None, id="USAGE_HOURLY_DAYS, none"),
        pytest.param("USAGE_DAYS", None, id="USAGE_DAYS, none"),
        pytest.param("DELETED_DAYS", None, id="DELETED_DAYS, none"),
        pytest.param("UNUSED_ACTION", "delete", id="UNUSED_ACTION, unknown"),
        pytest.param("UNUSED_ACTION", True, id="UNUSED_ACTION, true"),
        *[
            pytest.param("PLANS", value, id=f"PLANS, {what}")
            for what, value in {
                "none": None,
                "list": ["free"],
                "a number for a name": {1: {}},
                "a plan of none": {"free": None},
                "a plan of text": {"free": "60/m"},
                "misspelt": {"free": {"rates": "60/m"}},
                "rate without a unit": {"free": {"rate": "60"}},
                "rate of nothing": {"free": {"rate": "0/m"}},
                "rate a number": {"free": {"rate": 60}},
                "rate empty": {"free": {"rate": ""}},
                "quota negative": {"free": {"quota": -1}},
                "quota of 16 digits": {"free": {"quota": 10**15}},
                "quota text": {"free": {"quota": "100"}},
                "quota true": {"free": {"quota": True}},
                "quota fraction": {"free": {"quota": 1.5}},
                "the second": {"free": {}, "pro": {"quota": -1}},
            }.items()
        ],
        *[
            pytest.param("QUOTA_TIME_ZONE", value, id=f"QUOTA_TIME_ZONE, {what}")
            for what, value in {
                "none": None,
                "empty": "",
                "unknown": "Mars/Olympus",
                "a path": "../../etc/passwd",
                "a folder": "Europe",
                "a zone itself": ZoneInfo("UTC"),
                "an offset": "+01:00",
            }.items()
        ],
        pytest.param("LIMITS_FAIL", "ajar", id="LIMITS_FAIL, unknown"),
        pytest.param("LIMITS_FAIL", True, id="LIMITS_FAIL, true"),
        pytest.param("STORE_ADDRESSES", "hash", id="STORE_ADDRESSES, unknown"),
        pytest.param("STORE_ADDRESSES", None, id="STORE_ADDRESSES, none"),
        pytest.param("STORE_ADDRESSES", 1, id="STORE_ADDRESSES, a number"),
    ],
)
def test_bad_value_is_answered_with_the_name_of_the_setting(settings, name, value):
    setattr(settings, f"APIKEYS_{name}", value)

    with pytest.raises(ImproperlyConfigured, match=rf"^APIKEYS_{name}\b"):
        getattr(conf, name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(name, path, id=f"{name}, {what}")
        for name in ("HASHER", "POLICY", "CLIENT_RESOLVER", "LIMITER", "USAGE_RECORDER")
        for what, path in {
            "empty": "",
            "none": None,
            "no dot": "hasher",
            "no module": "nowhere.Thing",
            "no such name": "tests.test_conf.Nothing",
            "leading dot": ".Thing",
            "a module": "tests.test_conf",
            "not callable": "tests.test_conf.NOT_CALLABLE",
        }.items()
    ],
)
def test_bad_path_is_answered_with_the_name_of_the_setting(settings, name, path):
    setattr(settings, f"APIKEYS_{name}", path)

    with pytest.raises(ImproperlyConfigured, match=rf"^APIKEYS_{name}\b"):
        getattr(conf, name.lower())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("HASHER", "tests.test_conf.NeedyHasher"),
        ("POLICY", "tests.test_conf.NeedyPolicy"),
        ("LIMITER", "tests.test_conf.NeedyPolicy"),
        ("USAGE_RECORDER", "tests.test_conf.NeedyPolicy"),
    ],
)
def test_what_cannot_be_made_is_answered_with_the_name_of_the_setting(settings, name, path):
    setattr(settings, f"APIKEYS_{name}", path)

    with pytest.raises(ImproperlyConfigured, match=rf"^APIKEYS_{name}: '{path}' cannot be made"):
        getattr(conf, name.lower())


def test_a_change_is_seen_at_once_and_gone_after():
    with override_settings(APIKEYS_PREFIXES=["other"]):
        during = conf.PREFIXES

    assert during == ["other"]
    assert conf.PREFIXES == ["rak"]


class TestQuotaTimeZone:
    def test_is_the_zone_of_that_name(self, settings):
        settings.APIKEYS_QUOTA_TIME_ZONE = "Europe/Berlin"

        assert ZoneInfo("Europe/Berlin") == conf.QUOTA_TIME_ZONE


class TestLimiter:
    def test_default_counts_by_django_ratelimit(self):
        assert isinstance(conf.limiter, RatelimitLimiter)

    def test_may_be_another_and_is_made_once(self, settings):
        settings.APIKEYS_LIMITER = "tests.test_conf.OtherPolicy"

        assert isinstance(conf.limiter, OtherPolicy)
        assert conf.limiter is conf.limiter


class TestUsageRecorder:
    def test_default_counts_in_the_process(self):
        assert isinstance(conf.usage_recorder, MemoryRecorder)

    def test_may_be_another_and_is_made_once(self, settings):
        settings.APIKEYS_USAGE_RECORDER = "tests.test_conf.OtherPolicy"

        assert isinstance(conf.usage_recorder, OtherPolicy)
        assert conf.usage_recorder is conf.usage_recorder


class TestOfDjangoRatelimit:
    def test_are_its_defaults(self):
        assert (conf.ratelimit_enabled, conf.ratelimit_cache) == (True, "default")

    def test_are_what_it_was_told(self, settings):
        settings.RATELIMIT_ENABLE = False
        settings.RATELIMIT_USE_CACHE = "counters"

        assert (conf.ratelimit_enabled, conf.ratelimit_cache) == (False, "counters")

    @pytest.mark.parametrize("name", ["APIKEYS_RATELIMIT_ENABLED", "APIKEYS_RATELIMIT_CACHE"])
    def test_are_none_of_ours(self, settings, name):
        setattr(settings, name, False)

        assert unknown_settings() == [name]


class TestOwnerModel:
    def test_default_is_the_user_model(self, settings):
        settings.AUTH_USER_MODEL = "crm.Person"

        assert conf.OWNER_MODEL == "crm.Person"


class TestAcceptedEnvironments:
    def test_default_is_every_environment(self, settings):
        settings.APIKEYS_ENVIRONMENTS = ["prod", "dev"]

        assert conf.ACCEPTED_ENVIRONMENTS == ["prod", "dev"]


class TestScopes:
    def test_are_those_of_the_project_and_then_the_reserved_ones(self, settings):
        settings.APIKEYS_SCOPES = {"jobs:read": "Read jobs"}

        assert list(conf.SCOPES) == ["jobs:read", *RESERVED]
        assert conf.SCOPES["jobs:read"] == "Read jobs"


class TestPepperCurrent:
    PEPPERS = {"2025": "old", "2026": "new"}

    def test_default_is_the_last_listed(self, settings):
        settings.APIKEYS_PEPPERS = self.PEPPERS

        assert conf.PEPPER_CURRENT == "2026"

    def test_may_be_another_that_is_listed(self, settings):
        settings.APIKEYS_PEPPERS = self.PEPPERS
        settings.APIKEYS_PEPPER_CURRENT = "2025"

        assert conf.PEPPER_CURRENT == "2025"

    def test_a_pepper_is_named_by_no_message(self, settings):
        settings.APIKEYS_PEPPERS = {"2025": "old", "20 26": "a pepper of the host"}

        with pytest.raises(ImproperlyConfigured) as caught:
            getattr(conf, "PEPPERS")  # noqa: B009 - for its error

        assert "a pepper of the host" not in str(caught.value)


@pytest.mark.parametrize("name", ["DEFAULT_LIFETIME", "MAX_LIFETIME"])
@pytest.mark.parametrize(
    ("value", "live", "test"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param(1, timedelta(days=1), timedelta(days=1), id="a day"),
        pytest.param(36_600, timedelta(36_600), timedelta(36_600), id="100 years, in days"),
        pytest.param(timedelta(36_600), timedelta(36_600), timedelta(36_600), id="100 years"),
        pytest.param(timedelta(seconds=1), timedelta(0, 1), timedelta(0, 1), id="a second"),
        pytest.param({}, None, None, id="empty dict"),
        pytest.param({"live": 90}, timedelta(days=90), None, id="one environment"),
        pytest.param(
            {"live": timedelta(hours=1), "test": 7},
            timedelta(hours=1),
            timedelta(days=7),
            id="both environments",
        ),
        pytest.param({"live": None, "test": 7}, None, timedelta(days=7), id="none in a dict"),
    ],
)
def test_a_lifetime_is_told_for_each_environment(settings, name, value, live, test):
    setattr(settings, f"APIKEYS_{name}", value)

    assert getattr(conf, name) == {"live": live, "test": test}


def test_a_lifetime_is_told_for_the_environments_that_there_are(settings):
    settings.APIKEYS_ENVIRONMENTS = ["prod"]
    settings.APIKEYS_MAX_LIFETIME = 30

    lifetimes = conf.MAX_LIFETIME

    assert lifetimes == {"prod": timedelta(days=30)}


class TestDefaultLifetime:
    @pytest.mark.parametrize(
        ("default", "most"),
        [
            pytest.param(31, 30, id="days"),
            pytest.param(timedelta(days=30, seconds=1), 30, id="a second longer"),
            pytest.param({"test": 31}, 30, id="default of one environment"),
            pytest.param(31, {"test": 30}, id="maximum of one environment"),
            pytest.param({"live": 1, "test": 2}, {"live": 2, "test": 1}, id="the second one"),
        ],
    )
    def test_longer_than_the_maximum_names_both_settings(self, settings, default, most):
        settings.APIKEYS_DEFAULT_LIFETIME = default
        settings.APIKEYS_MAX_LIFETIME = most

        with pytest.raises(
            ImproperlyConfigured, match=r"^APIKEYS_DEFAULT_LIFETIME .* APIKEYS_MAX_LIFETIME\.$"
        ):
            getattr(conf, "DEFAULT_LIFETIME")  # noqa: B009 - for its error

    @pytest.mark.parametrize(
        ("default", "most"),
        [
            pytest.param(30, 30, id="as long"),
            pytest.param(30, None, id="no maximum"),
            pytest.param(30, {"test": 1}, id="maximum of another environment"),
        ],
    )
    def test_may_be_as_long_as_the_maximum(self, settings, default, most):
        settings.APIKEYS_DEFAULT_LIFETIME = {"live": default}
        settings.APIKEYS_MAX_LIFETIME = most

        lifetimes = conf.DEFAULT_LIFETIME

        assert lifetimes == {"live": timedelta(days=30), "test": None}


@pytest.fixture
def _three_caches(settings):
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    settings.CACHES = dict.fromkeys(("default", "limits", "counters"), local)


@pytest.mark.usefixtures("_three_caches")
class TestCache:
    def test_is_the_one_of_django_ratelimit_where_it_has_one(self, settings):
        settings.RATELIMIT_USE_CACHE = "limits"

        assert conf.CACHE == "limits"

    def test_may_be_another(self, settings):
        settings.RATELIMIT_USE_CACHE = "limits"
        settings.APIKEYS_CACHE = "counters"

        assert conf.CACHE == "counters"

    @pytest.mark.parametrize("name", ["APIKEYS_CACHE", "RATELIMIT_USE_CACHE"])
    def test_that_is_not_there_is_named_with_both_settings(self, settings, name):
        setattr(settings, name, "nowhere")

        with pytest.raises(ImproperlyConfigured) as caught:
            getattr(conf, "CACHE")  # noqa: B009 - for its error

        assert str(caught.value) == (
            "APIKEYS_CACHE (where it is not set, RATELIMIT_USE_CACHE): 'nowhere' is not in CACHES."
        )


class TestHasher:
    def test_of_a_fresh_install_uses_the_pepper_of_the_secret_key(self, settings):
        settings.SECRET_KEY = "secret-key-1"

        assert conf.hasher.digest(SAMPLE) == (
            "hmac-sha256$sk-b175a61f$"
            "394188ba71ab7dc4985b1a5c4b8fc4b894b167c23a3d9802caaa2bc8397aaf5d"
        )

    def test_takes_a_secret_key_of_bytes(self, settings):
        settings.SECRET_KEY = b"secret-key-1"

        assert conf.hasher.digest(SAMPLE).startswith("hmac-sha256$sk-b175a61f$")

    def test_uses_the_listed_pepper_once_there_is_one(self, settings):
        settings.APIKEYS_PEPPERS = {"one": "pepper-1"}

        assert conf.hasher.digest(SAMPLE) == (
            "hmac-sha256$one$30d46dcc02d26ce28316a0c554dd0608d23b5d620c23f1183116783ccf4ae698"
        )

    def test_uses_the_current_of_several(self, settings):
        settings.APIKEYS_PEPPERS = {"one": "pepper-1", "two": "pepper-2"}
        settings.APIKEYS_PEPPER_CURRENT = "one"

        assert conf.hasher.digest(SAMPLE).startswith("hmac-sha256$one$30d46dcc")

    def test_goes_on_verifying_what_the_derived_pepper_made(self, settings):
        derived = conf.hasher.digest(SAMPLE)
        settings.APIKEYS_PEPPERS = {"one": "pepper-1"}

        assert conf.hasher.verify(SAMPLE, derived)
        assert conf.hasher.knows(derived)

    def test_goes_on_verifying_what_a_fallback_of_the_secret_key_made(self, settings):
        old = conf.hasher.digest(SAMPLE)
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "secret-key-1"

        assert conf.hasher.verify(SAMPLE, old)
        assert conf.hasher.digest(SAMPLE).startswith("hmac-sha256$sk-b175a61f$")

    def test_does_not_know_the_pepper_of_a_secret_key_that_is_gone(self, settings):
        old = conf.hasher.digest(SAMPLE)
        settings.SECRET_KEY = "secret-key-1"

        assert not conf.hasher.verify(SAMPLE, old)
        assert not conf.hasher.knows(old)

    def test_is_the_class_of_the_setting(self, settings):
        settings.APIKEYS_HASHER = "tests.test_conf.OtherHasher"

        assert isinstance(conf.hasher, OtherHasher)

    def test_is_made_once_for_the_same_settings(self):
        assert conf.hasher is conf.hasher


class TestPolicy:
    def test_default_is_for_keys_of_users(self):
        assert isinstance(conf.policy, UserPolicy)

    def test_is_an_object_of_the_class_of_the_setting(self, settings):
        settings.APIKEYS_POLICY = "tests.test_conf.OtherPolicy"

        assert isinstance(conf.policy, OtherPolicy)

    def test_is_one_object_for_the_process(self):
        assert conf.policy is conf.policy


class TestClientResolver:
    def test_default_is_the_client_address(self):
        assert conf.client_resolver is client_address

    def test_is_the_function_of_the_setting(self, settings):
        settings.APIKEYS_CLIENT_RESOLVER = "tests.test_conf.other_resolver"

        assert conf.client_resolver is other_resolver


def test_what_is_wrong_with_a_network_is_told_in_english(settings):
    """As all that is wrong with settings: whoever reads it develops."""
    settings.APIKEYS_TRUSTED_PROXIES = ["10.0.0.1/8"]
    said = "APIKEYS_TRUSTED_PROXIES: “10.0.0.1/8” has host bits set; the network is 10.0.0.0/8."

    with translation.override("de"), pytest.raises(ImproperlyConfigured) as caught:
        _ = conf.TRUSTED_PROXIES

    assert str(caught.value) == said
