"""What the CRM's lists can be narrowed by; a value that makes no sense is 400."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_filters
from django.db.models import Q

from example_project.crm.models import Customer, Invoice, Job, PriceBookItem

if TYPE_CHECKING:
    from django.db.models import QuerySet


class OwnedFilter(django_filters.FilterSet):
    """``?search=`` in the columns of ``searched``."""

    searched: tuple[str, ...] = ()
    search = django_filters.CharFilter(method="filter_search", max_length=200)

    def filter_search(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        found = Q()
        for column in self.searched:
            found |= Q(**{f"{column}__icontains": value})
        return rows.filter(found)


class DatedFilter(OwnedFilter):
    """``?after=2025-01-01`` and ``?before=``: days (UTC) on which the row was created."""

    after = django_filters.DateFilter(field_name="created_at", lookup_expr="date__gte")
    before = django_filters.DateFilter(field_name="created_at", lookup_expr="date__lt")


class CustomerFilter(DatedFilter):
    searched = ("name", "email", "phone")

    class Meta:
        model = Customer
        fields = ()


class JobFilter(DatedFilter):
    searched = ("title", "customer__name")

    class Meta:
        model = Job
        fields = ("status", "customer")


class InvoiceFilter(DatedFilter):
    searched = ("number", "customer__name")

    class Meta:
        model = Invoice
        fields = ("status", "customer")


class PriceBookFilter(OwnedFilter):
    searched = ("sku", "name")

    class Meta:
        model = PriceBookItem
        fields = ()
