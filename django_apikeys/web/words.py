"""What the pages say of moments, numbers, statuses and events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist
from django.utils.formats import date_format, number_format
from django.utils.timesince import timesince, timeuntil
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, npgettext_lazy, pgettext, pgettext_lazy

from django_apikeys.models import APIKey
from django_apikeys.services import CHANGEABLE, ROW_DELETED, SECRET_REUSED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeyEvent, Status

STATUS_NAMES: Mapping[Status, _StrPromise] = {
    "active": pgettext_lazy("status of a key", "Active"),
    "disabled": pgettext_lazy("status of a key", "Disabled"),
    "expired": pgettext_lazy("status of a key", "Expired"),
    "revoked": pgettext_lazy("status of a key", "Revoked"),
}
_SENTENCES: Mapping[str, _StrPromise] = {
    "created": gettext_lazy("%(actor)s created this key"),
    "updated": gettext_lazy("%(actor)s changed this key"),
    "enabled": gettext_lazy("%(actor)s enabled this key"),
    "disabled": gettext_lazy("%(actor)s disabled this key"),
    "rotated": gettext_lazy("%(actor)s rotated the secret"),
    "leaked": gettext_lazy("%(actor)s replaced the secret, which had leaked"),
    "retired": gettext_lazy("%(actor)s ended the previous secret"),
    "revoked": gettext_lazy("%(actor)s revoked this key"),
    "deleted": gettext_lazy("%(actor)s deleted this key"),
    "revealed": gettext_lazy("%(actor)s looked at the secret again"),
    "retired_secret_used": gettext_lazy("A secret that has ended was used"),
}
# Django's own stand by themselves; behind “in” and before “ago” other languages inflect them.
_SPANS: dict[str, Any] = {
    "year": npgettext_lazy("span of “in” or “ago”", "%(num)d year", "%(num)d years", "num"),
    "month": npgettext_lazy("span of “in” or “ago”", "%(num)d month", "%(num)d months", "num"),
    "week": npgettext_lazy("span of “in” or “ago”", "%(num)d week", "%(num)d weeks", "num"),
    "day": npgettext_lazy("span of “in” or “ago”", "%(num)d day", "%(num)d days", "num"),
    "hour": npgettext_lazy("span of “in” or “ago”", "%(num)d hour", "%(num)d hours", "num"),
    "minute": npgettext_lazy("span of “in” or “ago”", "%(num)d minute", "%(num)d minutes", "num"),
}
# What this app itself gives as a reason is stored in English, and shown in the reader's language.
_REASONS: Mapping[str, _StrPromise] = {
    ROW_DELETED: gettext_lazy("Its row was deleted."),
    SECRET_REUSED: gettext_lazy("A retired secret was used."),
}


# From where on a date says more than a number of months.
_FAR = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment as people read it; now: when they do."""

    at: datetime
    now: datetime

    @property
    def iso(self) -> str:
        return self.at.astimezone(UTC).isoformat(timespec="seconds")

    @property
    def exact(self) -> str:
        local = localtime(self.at)
        return f"{date_format(local, 'DATETIME_FORMAT')} {local:%Z}"

    @property
    def short(self) -> str:
        """``3 May, 10:12``; with its year where that is another."""
        local, now = localtime(self.at), localtime(self.now)
        same = local.year == now.year
        # Translators: formats of a moment in the audit trail, as Django's date filter takes them
        return date_format(local, _("j M, H:i") if same else _("j M Y, H:i"))

    @property
    def relative(self) -> str:
        """``3 minutes ago``, ``in 2 days``; a date where that is more than a month away."""
        if abs(self.at - self.now) < timedelta(minutes=1):
            return _("just now") if self.at <= self.now else _("in a moment")
        if self.at - self.now > _FAR:
            return date_format(localtime(self.at), "DATE_FORMAT")
        if self.at > self.now:
            # What was chosen a moment ago is as long as it was chosen.
            end = self.at + timedelta(minutes=1)
            return _("in %(time)s") % {"time": timeuntil(end, self.now, _SPANS, depth=2)}
        return _("%(time)s ago") % {
            "time": timesince(self.at, self.now, time_strings=_SPANS, depth=1)
        }


def moment(at: datetime | None, now: datetime) -> Moment | None:
    """Return *at* as the pages show it; None stays None."""
    return None if at is None else Moment(at, now)


def reason(text: str) -> str:
    """Return why something was done: as it was typed, or in the words of the reader."""
    return str(_REASONS.get(text, text))


def number(value: int) -> str:
    """Return *value* as people write it: ``12,345``."""
    return number_format(value, use_l10n=True, force_grouping=True)


def rate(text: str | None) -> str:
    """Return what a rate says: ``300 per minute``."""
    limit, _slash, unit = (text or "").partition("/")
    texts = {
        "s": _("%(limit)s per second"),
        "m": _("%(limit)s per minute"),
        "h": _("%(limit)s per hour"),
        "d": _("%(limit)s per day"),
    }
    if unit not in texts or not limit.isdecimal():
        return text or ""
    return texts[unit] % {"limit": number(int(limit))}


@dataclass(frozen=True, slots=True)
class Told:
    """An event in words. details: what it changed, a line for each field."""

    sentence: str
    details: list[str]
    at: Moment
    address: str
    reason: str


def tell(event: APIKeyEvent, now: datetime) -> Told:
    """Return *event* in words."""
    sentence = _SENTENCES.get(_kind(event))
    text = str(sentence or _("%(actor)s: %(type)s"))
    return Told(
        sentence=text % {"actor": _actor(event), "type": event.type},
        details=[*_details(event)],
        at=Moment(event.at, now),
        address=event.address,
        reason=reason(event.reason),
    )


def _kind(event: APIKeyEvent) -> str:
    changes = event.changes
    if event.type == "updated" and changes.keys() == {"enabled"}:
        return "enabled" if changes["enabled"][1] else "disabled"
    if event.type == "rotated" and "compromised" in changes:
        return "leaked"
    return event.type


def _actor(event: APIKeyEvent) -> str:
    name = event.actor_name or event.actor_id
    texts = {
        "user": name or _("Somebody"),
        "key": _("The key “%(name)s”") % {"name": name},
        "command": _("A command (%(name)s)") % {"name": name} if name else _("A command"),
    }
    return texts.get(event.actor_kind) or _("The system")


def _details(event: APIKeyEvent) -> Iterator[str]:
    if _kind(event) != "updated":
        return  # the sentence says it all
    # PostgreSQL keeps no order of its own: the form's, and behind it what is new since.
    for name in sorted(event.changes, key=_place):
        before, after = event.changes[name]
        if isinstance(before, list) and isinstance(after, list):
            changes = _compared(before, after)
        else:
            changes = f"{_value(name, before)} → {_value(name, after)}"
        yield _("%(field)s: %(changes)s") % {"field": _field_name(name), "changes": changes}


def _place(name: str) -> int:
    return CHANGEABLE.index(name) if name in CHANGEABLE else len(CHANGEABLE)


def _compared(before: list[Any], after: list[Any]) -> str:
    added = ", ".join(str(item) for item in after if item not in before)
    removed = ", ".join(str(item) for item in before if item not in after)
    parts = [
        *([_("added %(items)s") % {"items": added}] if added else ()),
        *([_("removed %(items)s") % {"items": removed}] if removed else ()),
    ]
    return "; ".join(parts) or _("another order")


def _field_name(name: str) -> str:
    try:
        return str(APIKey._meta.get_field(name).verbose_name)  # type: ignore[union-attr]  # a column
    except FieldDoesNotExist:
        return name


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if value in (None, "", [], {}):
        return _("never") if name == "expires_at" else pgettext("a value that is empty", "none")
    if name == "expires_at":
        return _day_of(str(value))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _day_of(text: str) -> str:
    try:
        return date_format(localtime(datetime.fromisoformat(text)), "DATETIME_FORMAT")
    except ValueError:
        return text
