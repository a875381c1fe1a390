"""Usage as bars: where each stands in an SVG, in whole numbers, as every language writes them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, pgettext_lazy

from django_apikeys.web.words import number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.utils.functional import _StrPromise

    from django_apikeys.reports import Granularity

# By outcome, from the bottom of a bar to its top.
OUTCOMES: Mapping[str, _StrPromise] = {
    "good": pgettext_lazy("requests", "Succeeded"),
    "failed": pgettext_lazy("requests", "Failed"),
    "refused": pgettext_lazy("requests", "Refused"),
    "limited": pgettext_lazy("requests", "Limited"),
}
_SMALL, _LARGE = (4, 28), (20, 200)  # the width of a day or an hour, and the height of all
_GAP = 4  # a bar leaves a quarter of its width


@dataclass(frozen=True, slots=True)
class Span:
    """Of how long ago usage is shown, and by what."""

    name: str
    label: _StrPromise
    granularity: Granularity

    def begins_at(self, now: datetime) -> datetime:
        """Return the first moment of its first bar."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        if self.name == "24h":
            return hour - timedelta(hours=23)
        if self.name == "12m":
            # The same month a year ago is not shown a second time.
            month = hour.replace(day=1, hour=0)
            return month.replace(year=month.year - 1) + timedelta(days=32)
        return hour - timedelta(days=6 if self.name == "7d" else 29)


SPANS: Mapping[str, Span] = {
    span.name: span
    for span in (
        Span("24h", _("24 hours"), "hour"),
        Span("7d", _("7 days"), "day"),
        Span("30d", _("30 days"), "day"),
        Span("12m", _("12 months"), "month"),
    )
}


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a bar. outcome: its colour."""

    outcome: str
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bar, and its numbers for the table beside the picture."""

    label: str
    counts: Sequence[str]
    total: str
    parts: Sequence[Part]
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Chart:
    """An SVG of this size. summary: what it shows, in words. top: what its height stands for."""

    width: int
    height: int
    summary: str
    top: str
    buckets: Sequence[Bucket]

    @property
    def ticks(self) -> Sequence[str]:
        """The labels of the first bar, the one in the middle and the last."""
        middle = self.buckets[len(self.buckets) // 2]
        return [self.buckets[0].label, middle.label, self.buckets[-1].label]


def small(days: Sequence[int]) -> Chart:
    """Return the chart of a row of the list, a bar for each day."""
    step, height = _SMALL
    total = sum(days)
    text = ngettext(
        "%(count)s request in the last %(days)d days",
        "%(count)s requests in the last %(days)d days",
        total,
    )
    summary = text % {"count": number(total), "days": len(days)}
    return _chart([("", {"good": count}) for count in days], step, height, summary)


def large(series: Sequence[Mapping[str, Any]], span: Span) -> Chart:
    """Return the chart of a key; series: as ``reports.key_usage`` has it."""
    step, height = _LARGE
    total = sum(row["requests"] for row in series)
    text = ngettext("%(count)s request: %(span)s", "%(count)s requests: %(span)s", total)
    summary = text % {"count": number(total), "span": span.label}
    bars = [(_label(row["start"], span.granularity), _by_outcome(row)) for row in series]
    return _chart(bars, step, height, summary)


def _by_outcome(row: Mapping[str, int]) -> Mapping[str, int]:
    return {
        "good": row["requests"] - row["errors"],
        "failed": row["errors"] - row["refused"] - row["limited"],
        "refused": row["refused"],
        "limited": row["limited"],
    }


def _label(start: str, granularity: Granularity) -> str:
    at = datetime.fromisoformat(start)
    if granularity == "hour":
        return date_format(timezone.localtime(at), "TIME_FORMAT")
    # A day and a month are counted in UTC, whatever the zone of the one who looks.
    return date_format(at, "MONTH_DAY_FORMAT" if granularity == "day" else "YEAR_MONTH_FORMAT")


def _chart(
    bars: Sequence[tuple[str, Mapping[str, int]]], step: int, height: int, summary: str
) -> Chart:
    most = max(sum(counts.values()) for _label, counts in bars)
    width = step - step // _GAP
    buckets = [
        Bucket(
            label=label,
            counts=[number(count) for count in counts.values()],
            total=number(sum(counts.values())),
            parts=_parts(counts, index * step, width, height, most),
            x=index * step,
            width=step,
        )
        for index, (label, counts) in enumerate(bars)
    ]
    return Chart(step * len(bars), height, summary, number(most), buckets)


def _parts(
    counts: Mapping[str, int], x: int, width: int, height: int, most: int
) -> Sequence[Part]:
    parts, base = [], height
    for outcome, count in counts.items():
        # What is there can be seen, however little it is beside the rest.
        size = min(max(1, height * count // most), base) if count > 0 else 0
        if size:
            base -= size
            parts.append(Part(outcome, x, base, width, size))
    return parts
