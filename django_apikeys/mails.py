"""E-mail about a key, to those whom the policy names: one message each.

Of a notice ``django_apikeys/notices/<kind>_subject.txt`` and ``<kind>.txt`` are the templates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.template.loader import render_to_string
from django.utils import formats, timezone, translation

from django_apikeys.conf import conf
from django_apikeys.logs import logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from django_apikeys.models import APIKey

TEMPLATES = "django_apikeys/notices"
# So that no out-of-office reply comes back (RFC 3834).
HEADERS = {"Auto-Submitted": "auto-generated"}


def send_notice(key: APIKey, kind: str) -> None:
    """Send what is to be told of *key*, one of ``APIKey.objects.listed()``.

    Raises what a template raises; what the backend raises where it takes no message. Where
    it takes one, those that it refuses are logged: to send again would tell the others twice.
    """
    recipients = _recipients(key)
    if not recipients:
        return
    subject, body = render_notice(key, kind)
    refused = []
    for address in recipients:
        try:
            EmailMessage(subject, body, to=[address], headers=HEADERS).send()
        except Exception as error:  # noqa: BLE001 - each backend has errors of its own
            refused.append(error)
    if len(refused) == len(recipients):
        raise refused[0]
    for refusal in refused:
        logger.error(
            "One address was not sent the notice %s of API key %s.", kind, key.pk, exc_info=refusal
        )


def render_notice(key: APIKey, kind: str) -> tuple[str, str]:
    """Return subject and body, in the project's language and time zone."""
    zone = timezone.get_default_timezone()
    with translation.override(settings.LANGUAGE_CODE), timezone.override(zone):
        facts = _facts(key)
        subject = render_to_string(f"{TEMPLATES}/{kind}_subject.txt", facts)
        body = render_to_string(f"{TEMPLATES}/{kind}.txt", facts)
    return _one_line(subject), f"{body.strip()}\n"


def _recipients(key: APIKey) -> Sequence[str]:
    named = conf.policy.notice_recipients(key)
    if isinstance(named, str):
        raise TypeError("notice_recipients() of the policy returns a list of addresses.")
    return [address for address in dict.fromkeys(named) if address]


def _facts(key: APIKey) -> dict[str, Any]:
    totals, secret = getattr(key, "totals", None), key.current_secret
    return {
        "key": key,
        # On one line: a name must not make up lines of its own.
        "name": _one_line(key.name or key.masked),
        "masked": key.masked,
        "owner_name": "" if key.owner is None else _one_line(conf.policy.owner_name(key.owner)),
        "expires_at": _moment(key.expires_at),
        "created_at": _moment(key.created_at),
        "last_used_at": _moment(totals.last_used_at if totals else None),
        "secret_created_at": _moment(secret.created_at if secret else None),
        "rotation_days": conf.ROTATION_DAYS,
        "unused_days": conf.UNUSED_DAYS,
    }


def _moment(value: datetime | None) -> str:
    if value is None:
        return ""
    local = timezone.localtime(value)
    return f"{formats.date_format(local, 'DATETIME_FORMAT')} {local.tzname()}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
