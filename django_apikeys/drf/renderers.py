"""JSON in an envelope, and events as CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

from rest_framework.renderers import BaseRenderer, JSONRenderer

from django_apikeys.drf.pagination import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping


class EnvelopeJSONRenderer(JSONRenderer):
    """``{"data": …}``, with ``meta`` where there are pages; errors stay as they are."""

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        response = (renderer_context or {}).get("response")
        is_error = response is not None and response.status_code >= 400  # noqa: PLR2004 - HTTP
        is_empty = response is not None and response.status_code in (204, 304)
        if not (is_error or is_empty or isinstance(data, Envelope)):
            data = {"data": data}
        rendered: bytes = super().render(data, accepted_media_type, renderer_context)
        return rendered


class EventCSVRenderer(BaseRenderer):
    """A page of events, one on a line; ``changes`` is JSON in its cell."""

    media_type = "text/csv"
    format = "csv"
    columns = (
        "id",
        "at",
        "type",
        "key_id",
        "key_name",
        "owner_id",
        "owner_name",
        "actor_kind",
        "actor_id",
        "actor_name",
        "address",
        "user_agent",
        "reason",
        "changes",
    )

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the page *data*, of EnvelopePagination, as UTF-8."""
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(self.columns)
        for event in data["data"]:
            cells = {
                **event,
                **_prefixed("key", event["key"]),
                **_prefixed("owner", event["owner"]),
                **_prefixed("actor", event["actor"]),
                "changes": json.dumps(event["changes"], ensure_ascii=False),
            }
            rows.writerow([_defused(cells.get(column)) for column in self.columns])
        return text.getvalue().encode()


def _prefixed(name: str, fields: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"{name}_{field}": value for field, value in (fields or {}).items()}


def _defused(value: Any) -> str:
    # OWASP, CSV injection: a spreadsheet would run what begins so as a formula, and
    # whoever names a key or sends a User-Agent would have written it.
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
