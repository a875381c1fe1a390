"""Pages as ``{"data": […], "meta": {"page": 1, "limit": 20, "total": 143}}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.utils.translation import gettext_lazy as _
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.response import Response

if TYPE_CHECKING:
    from django.core.paginator import Page
    from rest_framework.request import Request


class Envelope(dict[str, Any]):
    """A body that is in its envelope already, which the renderer leaves as it is."""


class EnvelopePagination(PageNumberPagination):
    """``?page=`` from 1 and ``?limit=`` up to 100; a page past the end is 404."""

    page_size = 20
    page_size_query_param = "limit"
    max_page_size = 100

    def get_page_size(self, request: Request) -> int | None:
        text = request.query_params.get("limit")
        if text is None:
            return self.page_size
        if not text.isascii() or not text.isdigit() or not text.strip("0"):
            raise ValidationError({"limit": [_("A whole number from 1 to 100 is needed.")]})
        # By its length first: int() refuses texts of thousands of digits.
        return self.max_page_size if len(text.lstrip("0")) > 3 else min(int(text), 100)  # noqa: PLR2004 - digits of 100

    def get_paginated_response(self, data: Any) -> Response:
        page = cast("Page[Any]", self.page)  # set by paginate_queryset
        return Response(
            Envelope(
                data=data,
                meta={
                    "page": page.number,
                    "limit": page.paginator.per_page,
                    "total": page.paginator.count,
                },
            )
        )

    def get_results(self, data: Any) -> Any:
        return data["data"]

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        numbers = {
            "page": {
                "type": "integer",
                "minimum": 1,
                "description": "Which page this is.",
                "example": 1,
            },
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": self.max_page_size,
                "description": "How many entries a page has at most.",
                "example": self.page_size,
            },
            "total": {
                "type": "integer",
                "minimum": 0,
                "description": "How many entries there are, on all pages.",
                "example": 143,
            },
        }
        return {
            "type": "object",
            "required": ["data", "meta"],
            "properties": {
                "data": schema,
                "meta": {
                    "type": "object",
                    "required": ["page", "limit", "total"],
                    "properties": numbers,
                },
            },
        }
