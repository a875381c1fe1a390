"""Every ``APIKEYS_*`` setting: one typed property each, read at use.

A value of the wrong type is answered by ImproperlyConfigured, with the name of
the setting; ``manage.py check`` tells the same before a request does.
"""

from __future__ import annotations

import re
from datetime import timedelta, tzinfo
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import translation
from django.utils.functional import empty
from django.utils.module_loading import import_string

from django_apikeys.keys import rates
from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.format import ENVIRONMENT_PATTERN, PREFIX_PATTERN
from django_apikeys.keys.hashers import derive_pepper
from django_apikeys.keys.masking import MaskedBytes, MaskedText
from django_apikeys.keys.networks import normalise_network

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from django_apikeys.clients import ClientResolver
    from django_apikeys.keys.ciphers import FernetCipher
    from django_apikeys.keys.hashers import Hasher
    from django_apikeys.limits import Limiter
    from django_apikeys.policy import Policy
    from django_apikeys.usage import Recorder

DAY = 24 * 60 * 60  # seconds
LONGEST = timedelta(days=366 * 100)
# RFC 9651, section 3.3.1: an integer in a header has up to 15 digits.
MOST_UNITS_A_MONTH = 10**15 - 1
CREDENTIALS = ("bearer", "api-key", "x-api-key", "basic")
# 32 bytes in base64, as ``Fernet.generate_key()`` writes them.
FERNET_KEY_PATTERN = "[0-9A-Za-z_-]{42}[AEIMQUYcgkosw048]="
_NEW_FERNET_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


class Configuration:
    """The settings of this app as they are now."""

    @property
    def OWNER_MODEL(self) -> str:
        """``app.Model`` whom keys act for; default the user model. Fixed by the migration."""
        return _text("APIKEYS_OWNER_MODEL", settings.AUTH_USER_MODEL)

    @property
    def PREFIXES(self) -> Sequence[str]:
        """First words of secrets: the first makes new ones, all are accepted."""
        return _texts("APIKEYS_PREFIXES", ("key",), PREFIX_PATTERN)

    @property
    def ENVIRONMENTS(self) -> Sequence[str]:
        """Environments of keys; the first is the default of new ones."""
        return _texts("APIKEYS_ENVIRONMENTS", ("live", "test"), ENVIRONMENT_PATTERN)

    @property
    def ACCEPTED_ENVIRONMENTS(self) -> Sequence[str]:
        """Environments whose keys this site lets in; default all."""
        known = self.ENVIRONMENTS
        return _texts("APIKEYS_ACCEPTED_ENVIRONMENTS", known, "|".join(known))

    @property
    def CREDENTIALS(self) -> Sequence[str]:
        """Ways to send a secret: of ``bearer``, ``api-key``, ``x-api-key``, ``basic``."""
        return _texts("APIKEYS_CREDENTIALS", CREDENTIALS, "|".join(CREDENTIALS))

    @property
    def SCOPES(self) -> Mapping[str, str]:
        """The registry: scope to description. The reserved ones need not be named."""
        registry = _mapping("APIKEYS_SCOPES", {})
        for scope in registry:
            if not grammar.is_scope(scope) or grammar.is_reserved(scope):
                raise ImproperlyConfigured(
                    f"APIKEYS_SCOPES: {scope!r} is not a scope of the form resource:action "
                    "(apikeys:… and self:… are this app's own)."
                )
        return {**registry, **grammar.RESERVED}

    @property
    def IMPLIED_SCOPES(self) -> Mapping[str, Collection[str]]:
        """What a granted scope brings along: ``{"jobs:write": ["jobs:read"]}``.

        A bare action, ``{"write": ["read"]}``, speaks for every resource.
        """
        implied = _mapping("APIKEYS_IMPLIED_SCOPES", {})
        for scopes in implied.values():
            if not isinstance(scopes, (list, tuple, set, frozenset)) or not all(
                isinstance(scope, str) for scope in scopes
            ):
                raise ImproperlyConfigured(
                    "APIKEYS_IMPLIED_SCOPES maps a scope to a list of scopes."
                )
        return implied

    @property
    def UNDECLARED_VIEWS(self) -> Literal["refuse", "allow"]:
        """What a view that declares no scopes does to keys."""
        value = _text("APIKEYS_UNDECLARED_VIEWS", "refuse")
        if value not in ("refuse", "allow"):
            raise ImproperlyConfigured('APIKEYS_UNDECLARED_VIEWS is "refuse" or "allow".')
        return "allow" if value == "allow" else "refuse"

    @property
    def REQUIRE_NAME(self) -> bool:
        """Whether a new key needs a name."""
        return _switch("APIKEYS_REQUIRE_NAME", default=True)

    @property
    def TRUSTED_PROXIES(self) -> Sequence[str]:
        """Networks of the proxies whose X-Forwarded-For is believed; default none."""
        value = getattr(settings, "APIKEYS_TRUSTED_PROXIES", ())
        if not isinstance(value, (list, tuple)):
            raise ImproperlyConfigured("APIKEYS_TRUSTED_PROXIES is a list of networks.")
        for network in value:
            try:
                normalise_network(network if isinstance(network, str) else "")
            except ValueError as error:
                # Whoever develops reads it, in English, as all that is wrong with settings.
                with translation.override(None):
                    problem = f"APIKEYS_TRUSTED_PROXIES: {error}"
                raise ImproperlyConfigured(problem) from error
        return value

    @property
    def REHASH(self) -> bool:
        """Whether an old digest is rewritten with the current pepper on its next use."""
        return _switch("APIKEYS_REHASH", default=True)

    @property
    def PEPPERS(self) -> Mapping[str, MaskedText]:
        """Id to text; empty: peppers derived from SECRET_KEY make the digests."""
        if problem := _problem_with_peppers(getattr(settings, "APIKEYS_PEPPERS", {})):
            raise ImproperlyConfigured(f"APIKEYS_PEPPERS {problem}")
        return {
            name: MaskedText(text)
            for name, text in getattr(settings, "APIKEYS_PEPPERS", {}).items()
        }

    @property
    def PEPPER_CURRENT(self) -> str | None:
        """The id that makes new digests; default the last of APIKEYS_PEPPERS."""
        current = getattr(settings, "APIKEYS_PEPPER_CURRENT", None)
        if current is not None and current not in tuple(self.PEPPERS):
            raise ImproperlyConfigured(
                f"APIKEYS_PEPPER_CURRENT: {current!r} is not in APIKEYS_PEPPERS."
            )
        return current or next(reversed(tuple(self.PEPPERS)), None)

    @property
    def RETRIEVABLE(self) -> bool:
        """Whether new secrets are kept, encrypted, so that they can be shown again."""
        return _switch("APIKEYS_RETRIEVABLE", default=False)

    @property
    def ENCRYPTION_KEYS(self) -> Sequence[MaskedText]:
        """Fernet keys of what is kept: the first encrypts, all decrypt."""
        if problem := _problem_with_fernet_keys(getattr(settings, "APIKEYS_ENCRYPTION_KEYS", ())):
            raise ImproperlyConfigured(f"APIKEYS_ENCRYPTION_KEYS {problem}")
        return tuple(map(MaskedText, getattr(settings, "APIKEYS_ENCRYPTION_KEYS", ())))

    @property
    def REVEAL_LOGIN_SECONDS(self) -> float:
        """How old a login may be that reveals a secret without the password."""
        return _seconds("APIKEYS_REVEAL_LOGIN_SECONDS", 600)

    @property
    def ROTATION_DAYS(self) -> int:
        """Days after which the secret of a key is due for rotation."""
        return _days("APIKEYS_ROTATION_DAYS", 90)

    @property
    def REVOKE_ON_REUSE(self) -> bool:
        """Whether a retired secret that comes back revokes its key."""
        return _switch("APIKEYS_REVOKE_ON_REUSE", default=False)

    @property
    def RETIRED_DAYS(self) -> int:
        """Days for which the digest of a retired secret is kept, to know it by."""
        return _days("APIKEYS_RETIRED_DAYS", 365)

    @property
    def UNUSED_DAYS(self) -> int | None:
        """Days after which ``notify`` tells that a key is not used; None: never."""
        if getattr(settings, "APIKEYS_UNUSED_DAYS", 90) is None:
            return None
        return _days("APIKEYS_UNUSED_DAYS", 90, "None or ")

    @property
    def UNUSED_ACTION(self) -> Literal["tell", "disable"]:
        """Whether ``notify`` disables a key that is not used before it tells of it."""
        value = _text("APIKEYS_UNUSED_ACTION", "tell")
        if value not in ("tell", "disable"):
            raise ImproperlyConfigured('APIKEYS_UNUSED_ACTION is "tell" or "disable".')
        return "disable" if value == "disable" else "tell"

    @property
    def MAX_KEYS_PER_OWNER(self) -> int | None:
        """Keys that an owner may have that are not revoked; default None, no cap."""
        most = getattr(settings, "APIKEYS_MAX_KEYS_PER_OWNER", None)
        if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 1):
            raise ImproperlyConfigured(
                "APIKEYS_MAX_KEYS_PER_OWNER is None or a number, 1 or more."
            )
        return most

    @property
    def DEFAULT_LIFETIME(self) -> Mapping[str, timedelta | None]:
        """How long a key lives of whose expiry nothing is said, by environment.

        None, the default: as long as MAX_LIFETIME lets it.
        """
        lifetimes = _lifetimes("APIKEYS_DEFAULT_LIFETIME", self.ENVIRONMENTS)
        for environment, longest in self.MAX_LIFETIME.items():
            if (lifetimes[environment] or timedelta()) > (longest or LONGEST):
                raise ImproperlyConfigured(
                    f"APIKEYS_DEFAULT_LIFETIME of {environment!r} is longer than its "
                    "APIKEYS_MAX_LIFETIME."
                )
        return lifetimes

    @property
    def MAX_LIFETIME(self) -> Mapping[str, timedelta | None]:
        """How far from now an expiry may be set at most, by environment.

        None, the default: a key may live without an end.
        """
        return _lifetimes("APIKEYS_MAX_LIFETIME", self.ENVIRONMENTS)

    @property
    def CACHE(self) -> str:
        """Alias of the cache that holds counters; default that of django-ratelimit."""
        alias = _text("APIKEYS_CACHE", self.ratelimit_cache)
        if alias not in settings.CACHES:
            raise ImproperlyConfigured(
                f"APIKEYS_CACHE (where it is not set, RATELIMIT_USE_CACHE): {alias!r} is not "
                "in CACHES."
            )
        return alias

    @property
    def CACHE_TIMEOUT(self) -> float:
        """Seconds that the counters' cache may take to answer; the backend enforces it."""
        return _seconds("APIKEYS_CACHE_TIMEOUT", 0.1)

    @property
    def PLANS(self) -> Mapping[str, Mapping[str, Any]]:
        """Name to ``{"rate": "300/m", "quota": 10_000}``; what is left out has no limit."""
        plans = _mapping("APIKEYS_PLANS", {})
        for name, plan in plans.items():
            if problem := problem_with_plan(plan):
                raise ImproperlyConfigured(f"APIKEYS_PLANS: {name!r} {problem}")
        return plans

    @property
    def QUOTA_TIME_ZONE(self) -> tzinfo:
        """The zone whose calendar months quotas are counted in."""
        name = _text("APIKEYS_QUOTA_TIME_ZONE", "UTC")
        try:
            return ZoneInfo(name)
        except (ValueError, OSError, ZoneInfoNotFoundError) as error:
            raise ImproperlyConfigured(
                f"APIKEYS_QUOTA_TIME_ZONE: {name!r} is not a time zone."
            ) from error

    @property
    def LIMITS_FAIL(self) -> Literal["open", "closed"]:
        """Whether requests pass or are 503 while the cache of the counters is down."""
        value = _text("APIKEYS_LIMITS_FAIL", "open")
        if value not in ("open", "closed"):
            raise ImproperlyConfigured('APIKEYS_LIMITS_FAIL is "open" or "closed".')
        return "closed" if value == "closed" else "open"

    @property
    def STORE_ADDRESSES(self) -> bool | Literal["network"]:
        """Whether usage keeps addresses; ``network`` keeps the first 24 or 48 bits."""
        value = _read("APIKEYS_STORE_ADDRESSES", True)
        if value == "network":
            return "network"
        if not isinstance(value, bool):
            raise ImproperlyConfigured('APIKEYS_STORE_ADDRESSES is True, "network" or False.')
        return value

    @property
    def USAGE_FLUSH_SECONDS(self) -> float | None:
        """How often what was counted in a process is stored; None: by ``flush`` alone."""
        if getattr(settings, "APIKEYS_USAGE_FLUSH_SECONDS", 5) is None:
            return None
        return _seconds("APIKEYS_USAGE_FLUSH_SECONDS", 5, "None or ")

    @property
    def USAGE_HOURLY_DAYS(self) -> int:
        """Days after which ``prune`` rolls usage by the hour into usage by the day."""
        return _days("APIKEYS_USAGE_HOURLY_DAYS", 30)

    @property
    def USAGE_DAYS(self) -> int:
        """Days for which usage is kept, and addresses that are not seen again."""
        return _days("APIKEYS_USAGE_DAYS", 730)

    @property
    def DELETED_DAYS(self) -> int:
        """Days for which the row of a deleted key is kept."""
        return _days("APIKEYS_DELETED_DAYS", 90)

    @property
    def ratelimit_enabled(self) -> bool:
        """django-ratelimit's own switch, which switches rates off and leaves quotas."""
        return bool(_read("RATELIMIT_ENABLE", True))

    @property
    def ratelimit_cache(self) -> str:
        """Alias of the cache that django-ratelimit counts in, by its own setting."""
        return str(_read("RATELIMIT_USE_CACHE", "default"))

    # The seams: a dotted path each.

    @property
    def limiter(self) -> Limiter:
        """APIKEYS_LIMITER: counts rates and quotas."""
        return _limiter(_text("APIKEYS_LIMITER", "django_apikeys.limits.RatelimitLimiter"))

    @property
    def usage_recorder(self) -> Recorder:
        """APIKEYS_USAGE_RECORDER: counts what requests were answered."""
        return _recorder(_text("APIKEYS_USAGE_RECORDER", "django_apikeys.usage.MemoryRecorder"))

    @property
    def hasher(self) -> Hasher:
        """APIKEYS_HASHER, made with the peppers as they are now."""
        return _hasher(
            _text("APIKEYS_HASHER", "django_apikeys.keys.hashers.HMACHasher"),
            tuple(map(_masked, (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))),
            tuple(self.PEPPERS.items()),
            self.PEPPER_CURRENT,
        )

    @property
    def policy(self) -> Policy:
        """APIKEYS_POLICY: who may do what."""
        return _policy(_text("APIKEYS_POLICY", "django_apikeys.policy.UserPolicy"))

    @property
    def client_resolver(self) -> ClientResolver:
        """APIKEYS_CLIENT_RESOLVER: the address that a request comes from."""
        path = _text("APIKEYS_CLIENT_RESOLVER", "django_apikeys.clients.client_address")
        resolver: ClientResolver = _load("APIKEYS_CLIENT_RESOLVER", path)
        return resolver


def cipher() -> FernetCipher:
    """Return what encrypts secrets that are kept, with APIKEYS_ENCRYPTION_KEYS as they are now.

    Raises ImproperlyConfigured where there are none, or the package cryptography is missing.
    """
    keys = conf.ENCRYPTION_KEYS
    if not keys:
        raise ImproperlyConfigured(
            f"APIKEYS_ENCRYPTION_KEYS is empty: list a key, made by {_NEW_FERNET_KEY}"
        )
    return _cipher(tuple(keys))


def unknown_settings() -> list[str]:
    """Return the settings that begin as ours do and are none."""
    names = [name for name in vars(Configuration) if not name.startswith("ratelimit_")]
    known = {f"APIKEYS_{name.upper()}" for name in names}
    return [name for name in dir(settings) if name.startswith("APIKEYS_") and name not in known]


def _read(name: str, default: Any) -> Any:
    # Past LazySettings, which remembers only what it has found: of a setting that is not
    # there it made an AttributeError in Python each time, 4 µs, several times a request.
    found = object.__getattribute__(settings, "_wrapped")
    return getattr(settings if found is empty else found, name, default)


def _switch(name: str, *, default: bool) -> bool:
    value = _read(name, default)
    if not isinstance(value, bool):
        raise ImproperlyConfigured(f"{name} is True or False.")
    return value


def _text(name: str, default: str) -> str:
    value = _read(name, default)
    if not isinstance(value, str) or not value:
        raise ImproperlyConfigured(f"{name} is a text of at least one character.")
    return value


def _texts(name: str, default: Sequence[str], pattern: str) -> Sequence[str]:
    value: Sequence[str] | Any = _read(name, default)
    if value is default:
        return default
    if not isinstance(value, (list, tuple)) or not value:
        raise ImproperlyConfigured(f"{name} is a list of at least one text.")
    for text in value:
        if not isinstance(text, str) or not re.fullmatch(pattern, text):
            raise ImproperlyConfigured(f"{name}: {text!r} does not match {pattern}.")
    return value


def _mapping(name: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
    value = _read(name, default)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ImproperlyConfigured(f"{name} is a dict whose keys are texts.")
    return value


def _lifetimes(name: str, environments: Sequence[str]) -> Mapping[str, timedelta | None]:
    value = getattr(settings, name, None)
    spans = value if isinstance(value, dict) else dict.fromkeys(environments, value)
    if unknown := [environment for environment in spans if environment not in environments]:
        raise ImproperlyConfigured(f"{name}: {unknown[0]!r} is not in APIKEYS_ENVIRONMENTS.")
    return {environment: _span(name, spans.get(environment)) for environment in environments}


def _span(name: str, value: Any) -> timedelta | None:
    # Bounded before it is made: a timedelta of 10**10 days, or -10**10, is an OverflowError.
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LONGEST.days:
        value = timedelta(days=value)
    if value is None or (isinstance(value, timedelta) and timedelta() < value <= LONGEST):
        return value
    raise ImproperlyConfigured(
        f"{name} is None, a timedelta or a whole number of days, up to 100 years; or a dict of "
        "these by environment."
    )


def _seconds(name: str, default: float, other: str = "") -> float:
    value = _read(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= DAY:
        raise ImproperlyConfigured(
            f"{name} is {other}a number of seconds, more than 0 and up to {DAY}."
        )
    return value


def _days(name: str, default: int, other: str = "") -> int:
    days = getattr(settings, name, default)
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= LONGEST.days:
        raise ImproperlyConfigured(f"{name} is {other}a number of days, from 1 to {LONGEST.days}.")
    return days


def problem_with_plan(plan: Any) -> str:
    """Return what is wrong with one of APIKEYS_PLANS; empty where nothing is."""
    if not isinstance(plan, dict) or not plan.keys() <= {"rate", "quota"}:
        return 'is a dict of "rate" and "quota".'
    rate, quota = plan.get("rate"), plan.get("quota")
    if rate is not None and rates.read_stored(rate) is None:
        return 'has no rate such as "300/m".'
    is_number = isinstance(quota, int) and not isinstance(quota, bool)
    if quota is not None and not (is_number and 0 <= quota <= MOST_UNITS_A_MONTH):
        return f"has a quota that is no number of units, from 0 to {MOST_UNITS_A_MONTH}."
    return ""


def _problem_with_peppers(peppers: Any) -> str:
    # A function that returns what is wrong, and does not raise it: the frames of an
    # error are shown, and this one has the peppers in its variables.
    if not isinstance(peppers, dict) or not all(
        isinstance(name, str)
        and re.fullmatch(r"[0-9A-Za-z_.-]{1,64}", name)
        and isinstance(text, str)
        for name, text in peppers.items()
    ):
        return "maps an id (letters, digits, _ . -) to a text."
    empty = [name for name, text in peppers.items() if not text]
    return f"has an empty pepper: {empty[0]!r}." if empty else ""


def _problem_with_fernet_keys(keys: Any) -> str:
    # As that with peppers: returned, not raised.
    if not isinstance(keys, (list, tuple)):
        return "is a list of keys, the newest first."
    for number, key in enumerate(keys, start=1):
        if not isinstance(key, str) or not re.fullmatch(FERNET_KEY_PATTERN, key):
            return f"has, as number {number}, what is no Fernet key: make one by {_NEW_FERNET_KEY}"
    return ""


def _masked(value: str | bytes) -> MaskedText | MaskedBytes:
    return MaskedText(value) if isinstance(value, str) else MaskedBytes(value)


@lru_cache(maxsize=32)
def _load(name: str, path: str) -> Any:
    try:
        found = import_string(path)
    except (ImportError, ValueError) as error:
        raise ImproperlyConfigured(f"{name}: {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ImproperlyConfigured(f"{name}: {path!r} cannot be called.")
    return found


def _made(name: str, path: str, *args: Any) -> Any:
    try:
        return _load(name, path)(*args)
    except TypeError as error:
        raise ImproperlyConfigured(f"{name}: {path!r} cannot be made: {error}") from error


@lru_cache(maxsize=8)
def _policy(path: str) -> Policy:
    policy: Policy = _made("APIKEYS_POLICY", path)
    return policy


@lru_cache(maxsize=8)
def _limiter(path: str) -> Limiter:
    limiter: Limiter = _made("APIKEYS_LIMITER", path)
    return limiter


def _recorder(path: str) -> Recorder:
    found = _recorders.get(path)
    if found is None:
        # One for the process, however many threads ask first: each would count apart.
        with _making:
            found = _recorders.get(path) or _made("APIKEYS_USAGE_RECORDER", path)
            _recorders[path] = found
    return found


_recorders: dict[str, Recorder] = {}
_making = Lock()


@lru_cache(maxsize=8)
def _hasher(
    path: str,
    derived: tuple[MaskedText | MaskedBytes, ...],
    listed: tuple[tuple[str, MaskedText], ...],
    current: str | None,
) -> Hasher:
    ring = dict(map(derive_pepper, derived))
    first_derived = next(iter(ring))
    ring.update((name, MaskedBytes(text.encode())) for name, text in listed)
    hasher: Hasher = _made("APIKEYS_HASHER", path, ring, current or first_derived)
    return hasher


@lru_cache(maxsize=8)
def _cipher(keys: tuple[MaskedText, ...]) -> FernetCipher:
    try:
        # Late: whoever keeps no secrets needs no cryptography.
        from django_apikeys.keys.ciphers import FernetCipher  # noqa: PLC0415 - as said
    except ImportError as error:
        raise ImproperlyConfigured(
            "APIKEYS_RETRIEVABLE needs the package cryptography: "
            'pip install "django-apikeys[retrievable]".'
        ) from error
    return FernetCipher(keys)


conf = Configuration()
