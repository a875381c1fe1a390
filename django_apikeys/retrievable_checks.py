"""Findings of ``manage.py check`` about secrets that are kept, to be revealed."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own names
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseTrouble
from django.db import router

from django_apikeys.conf import cipher, conf
from django_apikeys.models import APIKeySecret, count_by_encryption_key


def means_findings() -> list[CheckMessage]:
    """E009: the mode is on, and nothing can be kept."""
    if not conf.RETRIEVABLE:
        return []
    try:
        cipher()
    except ImproperlyConfigured as error:
        return [
            Error(
                f"APIKEYS_RETRIEVABLE is on, and no secret can be kept. {error}",
                hint="Until then new secrets are shown once, as without it.",
                id="django_apikeys.E009",
            )
        ]
    return []


def deployment_findings() -> list[CheckMessage]:
    """W018: the mode is on."""
    try:
        if not conf.RETRIEVABLE:
            return []
    except ImproperlyConfigured:
        return []  # E001 says so
    return [
        Warning(
            "APIKEYS_RETRIEVABLE is on: whoever has the database and APIKEYS_ENCRYPTION_KEYS has "
            "every secret.",
            hint=(
                "Where nobody needs to see a secret again, remove it and run manage.py apikeys "
                'forget-secrets. Else SILENCED_SYSTEM_CHECKS = ["django_apikeys.W018"].'
            ),
            id="django_apikeys.W018",
        )
    ]


def check_kept_secrets(databases: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """W019, W020: secrets that are kept and should not be, or cannot be read. ``--database``."""
    if router.db_for_write(APIKeySecret) not in (databases or ()):
        return []
    try:
        counts = count_by_encryption_key()
        if not conf.RETRIEVABLE:
            return _left_behind(sum(count for _name, count in counts))
        made = cipher()
    except (ImproperlyConfigured, DatabaseTrouble):
        return []  # E001 or E009 says so; or the tables are not there, before migrate
    return [
        Warning(
            f"{count} secrets cannot be revealed: the encryption key {name!r} that they are kept "
            "under is gone.",
            hint=(
                "List it in APIKEYS_ENCRYPTION_KEYS and run manage.py apikeys reencrypt; or "
                "rotate these keys, which go on working."
            ),
            id="django_apikeys.W019",
        )
        for name, count in counts
        if not made.knows(name)
    ]


def _left_behind(count: int) -> list[CheckMessage]:
    if not count:
        return []
    return [
        Warning(
            f"{count} secrets are kept encrypted, and APIKEYS_RETRIEVABLE is off.",
            hint="Run manage.py apikeys forget-secrets.",
            id="django_apikeys.W020",
        )
    ]
