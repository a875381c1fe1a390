"""Pages over a table of a million rows."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from django.core.paginator import Paginator

MOST_LISTED = 10_000


class BoundedPaginator(Paginator):  # type: ignore[type-arg]  # generic for the checker alone
    """Pages over the first 10 000 rows; what is beyond is reached by search and filters."""

    object_list: Any  # a queryset

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
