"""Findings of ``manage.py check``: about the settings here, about views in ``drf.checks``."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseTrouble
from django.db import connections, router
from django.utils.module_loading import import_string

from django_apikeys.cache_checks import cache_findings, limit_findings
from django_apikeys.conf import Configuration, conf, unknown_settings
from django_apikeys.decorator_checks import decorator_findings
from django_apikeys.keys.networks import normalise_network
from django_apikeys.middleware import APIKeyMiddleware
from django_apikeys.models import APIKey, count_by_pepper
from django_apikeys.policy_checks import policy_findings
from django_apikeys.retrievable_checks import deployment_findings, means_findings

# Where more is said of a setting than in the table of all.
_PAGES = {"policy": "policy", "PLANS": "limits"}


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E001, E004, E006, E009, W001, W005, W010 to W012: what is wrong with the settings."""
    findings: list[CheckMessage] = []
    for name, attribute in vars(Configuration).items():
        if not isinstance(attribute, property):
            continue
        try:
            getattr(conf, name)
        except ImproperlyConfigured as error:
            page = "redis" if "contrib.redis" in str(error) else _PAGES.get(name, "settings")
            finding = Error(
                str(error), hint=f"docs/{page}.md says what it takes.", id="django_apikeys.E001"
            )
            # One setting may be read by several properties.
            if finding not in findings:
                findings.append(finding)
    usable = (
        _undeclared_views,
        _wildcard_proxies,
        _missing_middleware,
        limit_findings,
        means_findings,
    )
    for find in () if findings else usable:
        findings += find()
    return findings + _naive_moments() + _unknown_settings()


def check_policy(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E003, W017: what does not fit in the policy."""
    return policy_findings()


def _undeclared_views() -> list[CheckMessage]:
    if conf.UNDECLARED_VIEWS == "refuse":
        return []
    return [
        Warning(
            "Views that declare no scopes are open to every API key.",
            hint='Remove APIKEYS_UNDECLARED_VIEWS = "allow" and set required_scopes on the views.',
            id="django_apikeys.W001",
        )
    ]


def _wildcard_proxies() -> list[CheckMessage]:
    # By their one written form: 0.0.0.0/0.0.0.0 and ::ffff:0:0/96 are everybody too.
    wildcards = [text for text in conf.TRUSTED_PROXIES if normalise_network(text).endswith("/0")]
    if not wildcards:
        return []
    return [
        Error(
            f"APIKEYS_TRUSTED_PROXIES trusts everybody: {', '.join(wildcards)}.",
            hint="Name the networks of your proxies: else any client can forge its address.",
            id="django_apikeys.E004",
        )
    ]


def _naive_moments() -> list[CheckMessage]:
    if settings.USE_TZ:
        return []
    return [
        Error(
            "USE_TZ is off, and API keys need moments with a time zone.",
            hint=(
                "Set USE_TZ = True: without it months of quotas, hours of usage and expiries fail."
            ),
            id="django_apikeys.E006",
        )
    ]


def _missing_middleware() -> list[CheckMessage]:
    if any(map(_is_our_middleware, settings.MIDDLEWARE)):
        return []
    return [
        Warning(
            "No request with an API key is counted: APIKeyMiddleware is not in MIDDLEWARE.",
            hint='Put "django_apikeys.middleware.APIKeyMiddleware" first in MIDDLEWARE.',
            id="django_apikeys.W010",
        )
    ]


def _is_our_middleware(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:
        return False  # Django says so as soon as it makes it
    return isinstance(found, type) and issubclass(found, APIKeyMiddleware)


def _unknown_settings() -> list[CheckMessage]:
    return [
        Warning(
            f"There is no setting {name}.",
            hint="Mend its spelling: a restriction that is misspelt restricts nothing.",
            id="django_apikeys.W005",
        )
        for name in unknown_settings()
    ]


def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W002, W009, W013, W014, W018: what a site with visitors should not have, or should know."""
    return _derived_pepper() + cache_findings() + deployment_findings()


def _derived_pepper() -> list[CheckMessage]:
    # Whoever has SECRET_KEY has the pepper too.
    try:
        if conf.PEPPERS:
            return []
    except ImproperlyConfigured:
        return []  # E001 says so
    return [
        Warning(
            "The pepper of the digests of API keys is derived from SECRET_KEY.",
            hint=(
                'Set APIKEYS_PEPPERS = {"2026-11": "<50 random characters>"} from the '
                "environment; what the derived pepper made goes on verifying."
            ),
            id="django_apikeys.W002",
        )
    ]


def check_views(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E002, E007, E008 and others about views: ``drf.checks``, loaded where DRF is installed."""
    findings = decorator_findings()
    if apps.is_installed("rest_framework"):
        from django_apikeys.drf.checks import view_findings  # noqa: PLC0415 - as said

        findings += view_findings()
    return findings


def check_peppers(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W006: secrets whose pepper is gone. Asked with ``--database``."""
    if router.db_for_write(APIKey) not in (databases or ()):
        return []
    try:
        counts = count_by_pepper()
    except DatabaseTrouble:
        return []  # the tables are not there: migrate asks before it has made them
    gone = {name: count for name, digest, count in counts if not conf.hasher.knows(digest)}
    return [
        Warning(
            f"{count} secrets cannot be verified: the pepper {name!r} of their digests is gone.",
            hint=(
                "List it in APIKEYS_PEPPERS, or the SECRET_KEY it was derived from in "
                "SECRET_KEY_FALLBACKS; or rotate these keys."
            ),
            id="django_apikeys.W006",
        )
        for name, count in gone.items()
    ]


def check_owner_column(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """E005: the column of the owner was made for another model. Asked with ``--database``."""
    alias = router.db_for_write(APIKey)
    if alias not in (databases or ()):
        return []
    try:
        # The setting, and not what the models were loaded with.
        owner = apps.get_model(conf.OWNER_MODEL)._meta
        found = _reference_of_owner(alias)
    except (ImproperlyConfigured, LookupError, ValueError):
        return []  # E001 says so, or Django's check of the foreign key
    except DatabaseTrouble:
        return []  # the database is down
    wanted = (owner.db_table, owner.pk.column)
    # A name with quotation marks is its own SQL, of a schema say. Others may be folded.
    if (
        found is None
        or '"' in owner.db_table
        or [name.lower() for name in found] == [name.lower() for name in wanted]
    ):
        return []
    return [
        Error(
            f"By APIKEYS_OWNER_MODEL owner_id refers to {'.'.join(wanted)}, in the database to "
            f"{'.'.join(found)}.",
            hint=(
                "The first migrate has fixed APIKEYS_OWNER_MODEL: set it back. Or lose all keys: "
                "manage.py migrate --skip-checks django_apikeys zero, then manage.py migrate."
            ),
            id="django_apikeys.E005",
        )
    ]


def _reference_of_owner(alias: str) -> tuple[str, str] | None:
    """Return the table and column that the owner's foreign key has in the database.

    None: there is no table, or no foreign key (MyISAM keeps none).
    """
    connection = connections[alias]
    with connection.cursor() as cursor:
        relations = connection.introspection.get_relations(cursor, APIKey._meta.db_table)
    relation = relations.get(APIKey._meta.get_field("owner").column)
    # From Django 6.1 on with a third part, what ON DELETE does.
    return None if relation is None else (relation[1], relation[0])
