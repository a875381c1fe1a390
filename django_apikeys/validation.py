"""What may be stored of what was asked for.

The functions raise Django's ValidationError, which forms, serializers and commands
all understand; ``clean`` collects them, so that every bad field is named at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_apikeys.conf import LONGEST, conf
from django_apikeys.exceptions import InvalidInput
from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.networks import normalise_network
from django_apikeys.keys.rates import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME_LENGTH = 100
DESCRIPTION_LENGTH = 1000
REASON_LENGTH = 500
PUBLIC_ID_LENGTH = 64
GRACE_SECONDS = 24 * 60 * 60
LONGEST_GRACE = 30 * 24 * 60 * 60
MOST_SCOPES = 100
MOST_NETWORKS = 100
METADATA_BYTES = 4096
# MariaDB stores JSON of up to 32 levels, and an event has these some levels down.
MOST_LEVELS = 25
# NUL and lone surrogates cannot be stored by PostgreSQL; the rest has no place in a name,
# and what turns the direction of text around makes one key look like another.
_NEVER = r"\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_NO_GRACE = _("A secret that has leaked has no grace: leave this out.")
_UNPRINTABLE = re.compile(rf"[\x00-\x1f{_NEVER}]")
_UNPRINTABLE_BUT_LINES = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f{_NEVER}]")


def clean(fields: Mapping[str, Any], *, environment: object = None) -> dict[str, Any]:
    """Return *fields*, each as it is to be stored.

    environment: of the key, where *fields* do not say it.
    Raises InvalidInput, with every bad field and all that is wrong with it.
    """
    cleaned: dict[str, Any] = {}
    errors: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            cleaned[name] = CLEANERS[name](value)
        except ValidationError as error:
            errors[name] = error
    if "expires_at" in cleaned:
        try:
            check_lifetime(cleaned.get("environment", environment), cleaned["expires_at"])
        except ValidationError as error:
            errors["expires_at"] = error
    if errors:
        raise InvalidInput(errors)
    return cleaned


def clean_rotation(*, grace_seconds: object, **fields: Any) -> dict[str, Any]:
    """Return what is asked of a rotation; *grace_seconds* None is the default.

    Raises InvalidInput as ``clean``, and where a grace is asked for a secret that has leaked.
    """
    said = {} if grace_seconds is None else {"grace_seconds": grace_seconds}
    cleaned = clean({**said, **fields})
    if cleaned["compromised"]:
        errors = {}
        if cleaned.get("grace_seconds"):
            errors["grace_seconds"] = ValidationError(_NO_GRACE, code="compromised")
        if cleaned["starts"] != "now":
            errors["starts"] = ValidationError(_NO_GRACE, code="compromised")
        if errors:
            raise InvalidInput(errors)
        cleaned["grace_seconds"] = 0
    return {"grace_seconds": GRACE_SECONDS, **cleaned}


def default_expiry(environment: object) -> datetime | None:
    """Return when a key ends of whose expiry nothing is said; None is never."""
    span = _span(conf.DEFAULT_LIFETIME, environment) or _span(conf.MAX_LIFETIME, environment)
    return None if span is None else timezone.now() + span


def check_lifetime(environment: object, expires_at: datetime | None) -> None:
    """Raise ValidationError where a key of *environment* may not live that long."""
    longest = _span(conf.MAX_LIFETIME, environment)
    if longest is None:
        return
    if expires_at is None or expires_at > timezone.now() + longest:
        days = longest / timedelta(days=1)
        raise ValidationError(
            ngettext(
                "A key of “%(environment)s” ends within %(days)s day: say when.",
                "A key of “%(environment)s” ends within %(days)s days: say when.",
                1 if days == 1 else max(2, int(days)),
            )
            % {"environment": environment, "days": number_format(f"{days:g}")},
            code="far",
        )


def _span(spans: Mapping[str, timedelta | None], environment: object) -> timedelta | None:
    return spans.get(environment) if isinstance(environment, str) else None


def clean_name(value: object) -> str:
    """A line of 1 to 100 characters; empty where APIKEYS_REQUIRE_NAME is off."""
    name = _line(value, NAME_LENGTH)
    is_visible = any(character.isprintable() and character != " " for character in name)
    if not is_visible and (name or conf.REQUIRE_NAME):
        raise ValidationError(_("A key needs a name."), code="required")
    return name


def clean_description(value: object) -> str:
    """Text of up to 1 000 characters, several lines at will."""
    return _checked(value, DESCRIPTION_LENGTH, _UNPRINTABLE_BUT_LINES)


def clean_reason(value: object) -> str:
    """A line of up to 500 characters."""
    return _line(value, REASON_LENGTH)


def clean_environment(value: object) -> str:
    """One of APIKEYS_ENVIRONMENTS."""
    if value not in conf.ENVIRONMENTS:
        raise ValidationError(
            _("“%(value)s” is not one of: %(known)s.")
            % {"value": _printable(value), "known": ", ".join(conf.ENVIRONMENTS)},
            code="invalid_choice",
        )
    return str(value)


def clean_scopes(value: object) -> list[str]:
    """A list of known scopes, each once, in the order given."""
    texts = _texts(value, MOST_SCOPES)
    registry = conf.SCOPES
    unknown = [text for text in texts if not grammar.is_known(text, registry)]
    if unknown:
        raise ValidationError(
            _("Unknown scope: %(scopes)s.")
            % {"scopes": ", ".join(repr(text[:100]) for text in unknown[:10])},
            code="unknown_scope",
        )
    return texts


def clean_allowed_ips(value: object) -> list[str]:
    """A list of IP addresses and networks in their one written form; empty: all."""
    found, errors = [], []
    for text in _texts(value, MOST_NETWORKS):
        try:
            found.append(normalise_network(text))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValidationError([ValidationError(text, code="invalid_network") for text in errors])
    return list(dict.fromkeys(found))


def clean_rate_limit(value: object) -> str:
    """``N/s|m|h|d``; None and empty are that of the plan."""
    if value is None or value == "":
        return ""
    try:
        parse_rate(value if isinstance(value, str) else "")
    except ValueError as error:
        raise ValidationError(str(error), code="invalid_rate") from error
    return str(value)


def clean_expires_at(value: object) -> datetime | None:
    """A moment to come, aware; None is never."""
    if value is None:
        return None
    if not isinstance(value, datetime) or timezone.is_naive(value):
        raise ValidationError(_("A date and time with its time zone is needed."), code="invalid")
    now = timezone.now()
    if value <= now:
        raise ValidationError(
            _("This moment is in the past. To end a key now, revoke it."), code="past"
        )
    if value > now + LONGEST:
        raise ValidationError(
            _("This is more than a hundred years away. Leave it empty for never."), code="far"
        )
    return value


def clean_enabled(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValidationError(_("True or False is needed."), code="invalid")
    return value


def clean_metadata(value: object) -> dict[str, Any]:
    """A JSON object of up to 4 kB and 25 levels, without NUL and lone surrogates."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValidationError(_("A JSON object is needed."), code="invalid")
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise ValidationError(_("This cannot be stored as JSON."), code="invalid") from error
    for item, level in _items(value):
        if level > MOST_LEVELS:
            raise ValidationError(
                _("At most %(limit)d levels, one within the other.") % {"limit": MOST_LEVELS},
                code="too_deep",
            )
        if isinstance(item, str) and "\x00" in item:
            raise ValidationError(_("NUL characters cannot be stored."), code="null_characters")
    if size > METADATA_BYTES:
        raise ValidationError(
            _("At most %(limit)d bytes as JSON; these are %(size)d.")
            % {"limit": METADATA_BYTES, "size": size},
            code="too_long",
        )
    return dict(value)


def clean_grace_seconds(value: object) -> int:
    """Whole seconds, 0 to 2 592 000."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValidationError(_("A whole number of seconds is needed."), code="invalid")
    if not 0 <= value <= LONGEST_GRACE:
        raise ValidationError(
            _("From 0 to %(most)d seconds, which is 30 days.") % {"most": LONGEST_GRACE},
            code="out_of_range",
        )
    return value


def clean_starts(value: object) -> str:
    """``now`` or ``first_use``."""
    if value not in ("now", "first_use"):
        raise ValidationError(_("“now” or “first_use” is needed."), code="invalid_choice")
    return str(value)


def clean_current(value: object) -> str | None:
    """A public id; None: whichever it is."""
    return None if value is None else _line(value, PUBLIC_ID_LENGTH)


CLEANERS: dict[str, Callable[[object], Any]] = {
    "name": clean_name,
    "description": clean_description,
    "environment": clean_environment,
    "scopes": clean_scopes,
    "allowed_ips": clean_allowed_ips,
    "rate_limit": clean_rate_limit,
    "expires_at": clean_expires_at,
    "enabled": clean_enabled,
    "metadata": clean_metadata,
    "reason": clean_reason,
    "grace_seconds": clean_grace_seconds,
    "starts": clean_starts,
    "compromised": clean_enabled,
    "current": clean_current,
}


def _line(value: object, length: int) -> str:
    return _checked(value, length, _UNPRINTABLE).strip()


def _checked(value: object, length: int, forbidden: re.Pattern[str]) -> str:
    if not isinstance(value, str):
        raise ValidationError(_("A text is needed."), code="invalid")
    if len(value) > length:
        raise ValidationError(
            _("At most %(limit)d characters; these are %(size)d.")
            % {"limit": length, "size": len(value)},
            code="max_length",
        )
    if forbidden.search(value):
        raise ValidationError(_("Control characters cannot be stored."), code="unprintable")
    return value


def _texts(value: object, most: int) -> list[str]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValidationError(_("A list of texts is needed."), code="not_a_list")
    if not all(isinstance(text, str) for text in value):
        raise ValidationError(_("A list of texts is needed."), code="not_a_list")
    if len(value) > most:
        raise ValidationError(_("At most %(limit)d entries.") % {"limit": most}, code="too_many")
    return list(dict.fromkeys(value))


def _items(value: object) -> Iterator[tuple[object, int]]:
    """Yield all that stands in *value*, keys too, with its level. Not by recursion: input."""
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        item, level = pending.pop()
        yield item, level
        if isinstance(item, Mapping):
            pending += [(inner, level + 1) for pair in item.items() for inner in pair]
        elif isinstance(item, (list, tuple)):
            pending += [(inner, level + 1) for inner in item]


def _printable(value: object) -> str:
    return str(value)[:50].encode(errors="backslashreplace").decode()
