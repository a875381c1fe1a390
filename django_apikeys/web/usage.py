"""What a key was used for, as a page shows it: the owner's, and that of the admin."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_apikeys import reports
from django_apikeys.web import charts, words

if TYPE_CHECKING:
    from django.http import QueryDict

    from django_apikeys.models import APIKey


def usage_of(key: APIKey, now: datetime, query: QueryDict, *, anchor: str = "") -> dict[str, Any]:
    """Return what ``report.html`` shows of *key*; three queries.

    query: of the page, whose ``span`` says of how long ago. anchor: where on the page the
    links to the other spans lead, with its ``#``.
    """
    span = charts.SPANS.get(query.get("span", ""), charts.SPANS["30d"])
    found = reports.key_usage(
        key, now, begins_at=span.begins_at(now), granularity=span.granularity
    )
    return {
        "span": span,
        "spans": [(one, _address(query, one, anchor)) for one in charts.SPANS.values()],
        "chart": charts.large(found["series"], span),
        "outcomes": charts.OUTCOMES.items(),
        "totals": {name: words.number(count) for name, count in found["totals"].items()},
        "routes": _with_numbers(found["by_route"], "requests", "errors"),
        "statuses": _with_numbers(found["by_status"], "requests"),
        "addresses": [
            {**row, "last_seen": words.moment(datetime.fromisoformat(row["last_seen"]), now)}
            for row in _with_numbers(found["by_ip"], "requests")
        ],
    }


def _address(query: QueryDict, span: charts.Span, anchor: str) -> str:
    # What else the page was asked for stays: in the admin, how its list was narrowed.
    asked = query.copy()
    asked["span"] = span.name
    return f"?{asked.urlencode()}{anchor}"


def _with_numbers(rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    return [{**row, **{name: words.number(row[name]) for name in names}} for row in rows]
