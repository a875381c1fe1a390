"""JSON in an envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.renderers import JSONRenderer

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
