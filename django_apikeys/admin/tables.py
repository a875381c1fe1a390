"""What lists of a million rows have in common."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.utils.html import format_html, format_html_join
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.functional import _StrPromise

MOST_LISTED = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic for the checker alone
    """Pages over the first 10 000 rows; what is beyond is reached by search and filters."""

    object_list: Any  # a queryset: the admin pages through nothing else

    @cached_property
    def count(self) -> int:
        return min(self._counted, MOST_LISTED)

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than the pages show."""
        return self._counted > MOST_LISTED

    @cached_property
    def _counted(self) -> int:
        # COUNT(*) of all takes seconds at a million rows, and a sort of them too.
        counted: int = self.object_list.order_by()[: MOST_LISTED + 1].count()
        return counted


class LargeTableAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the same
    """A list without a count over its table."""

    paginator = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ("django_apikeys/admin.css",)}


def lines_of(name: object, *others: object) -> str:
    """Return a cell with *name*, and what else there is to say in lines beneath it.

    Beside the filters there is no room for a column for each.
    """
    said = ((other,) for other in others if other)
    below = format_html_join("", ' <span class="apikeys-below">{}</span>', said)
    return format_html('<span class="apikeys-name">{}</span>{}', name, below)


def moment_as_text(moment: datetime | None) -> str | _StrPromise:
    """Return *moment* to the second, in the current time zone; None is never."""
    if moment is None:
        return _("never")
    return f"{localtime(moment):%Y-%m-%d %H:%M:%S %Z}"
