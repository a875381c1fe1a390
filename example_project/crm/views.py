"""The CRM's API: each view says which scopes a key needs, and sees one organisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import mixins
from rest_framework.routers import APIRootView
from rest_framework.viewsets import GenericViewSet, ModelViewSet, ReadOnlyModelViewSet

from example_project.crm import filters, serializers
from example_project.crm.access import organisations_of
from example_project.crm.models import Customer, Invoice, Job, PriceBookItem, WebhookSubscription

if TYPE_CHECKING:
    from django.db.models import QuerySet


class APIRoot(APIRootView):
    """Where the CRM's resources are: open to every person, and to any key."""

    required_scopes = ()


class OwnedRows(GenericViewSet[Any]):
    """Rows of the caller's organisations; any other row is 404."""

    def get_queryset(self) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset()
        return rows.filter(organisation__in=organisations_of(self.request))


class CustomerViewSet(OwnedRows, ModelViewSet[Customer]):
    scope_resource = "customers"
    queryset = Customer.objects.all()
    serializer_class = serializers.CustomerSerializer
    filterset_class = filters.CustomerFilter


class JobViewSet(OwnedRows, ModelViewSet[Job]):
    scope_resource = "jobs"
    queryset = Job.objects.select_related("customer")
    serializer_class = serializers.JobSerializer
    filterset_class = filters.JobFilter


class InvoiceViewSet(OwnedRows, ModelViewSet[Invoice]):
    scope_resource = "invoices"
    queryset = Invoice.objects.select_related("customer")
    serializer_class = serializers.InvoiceSerializer
    filterset_class = filters.InvoiceFilter


class PriceBookViewSet(OwnedRows, ReadOnlyModelViewSet[PriceBookItem]):
    required_scopes = ("pricebook:read",)
    queryset = PriceBookItem.objects.all()
    serializer_class = serializers.PriceBookItemSerializer
    filterset_class = filters.PriceBookFilter


class WebhookViewSet(
    OwnedRows,
    mixins.CreateModelMixin,
    mixins.UpdateModelMixin,
    GenericViewSet[WebhookSubscription],
):
    """Subscriptions are made and changed, and not read back."""

    required_scopes = ("webhooks:write",)
    queryset = WebhookSubscription.objects.all()
    serializer_class = serializers.WebhookSubscriptionSerializer
