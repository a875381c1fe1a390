"""What lists of a million rows have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from django_apikeys.paging import BoundedPaginator

if TYPE_CHECKING:
    from datetime import datetime

    from django.utils.functional import _StrPromise


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
