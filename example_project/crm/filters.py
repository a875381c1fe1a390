"""What the CRM's lists can be narrowed by; a value that makes no sense is 400."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django_filters
from django.db.models import Q

from example_project.crm.access import organisations_of
from example_project.crm.models import Customer, Invoice, Job, PriceBookItem

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from rest_framework.request import Request


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


def _customers(request: Request) -> QuerySet[Customer]:
    return Customer.objects.filter(organisation__in=organisations_of(request))


class OfCustomerFilter(DatedFilter):
    """``?customer=``, one of the caller's organisations: others do not exist."""

    customer = django_filters.ModelChoiceFilter(queryset=_customers)


class CustomerFilter(DatedFilter):
    searched = ("name", "email", "phone")

    class Meta:
        model = Customer
        fields = ()


class JobFilter(OfCustomerFilter):
    searched = ("title", "customer__name")

    class Meta:
        model = Job
        fields = ("status",)


class InvoiceFilter(OfCustomerFilter):
    searched = ("number", "customer__name")

    class Meta:
        model = Invoice
        fields = ("status",)


class PriceBookFilter(OwnedFilter):
    searched = ("sku", "name")

    class Meta:
        model = PriceBookItem
        fields = ()
