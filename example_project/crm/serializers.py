"""The CRM's rows as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied

from example_project.crm.access import organisations_of
from example_project.crm.models import (
    Customer,
    Invoice,
    Job,
    Organisation,
    PriceBookItem,
    WebhookSubscription,
)

if TYPE_CHECKING:
    from django.db.models import QuerySet

OWNED = ("id", "organisation", "created_at")
PARENTS = ("organisation", "customer")


class OnlyOrganisation:
    """The organisation of a row whose body names none: the one it has, or the caller's only."""

    requires_context = True

    def __call__(self, field: serializers.Field[Any, Any, Any, Any]) -> Organisation:
        if field.parent.instance is not None:
            organisation: Organisation = field.parent.instance.organisation
            return organisation
        organisations = organisations_of(field.context["request"])[:2]
        if not organisations:
            raise PermissionDenied("You act for no organisation.")
        if len(organisations) > 1:
            raise serializers.ValidationError("Say for which organisation: several are possible.")
        return organisations[0]


class OrganisationField(serializers.PrimaryKeyRelatedField[Organisation]):
    """One of the caller's organisations: others do not exist."""

    def get_queryset(self) -> QuerySet[Organisation]:
        return organisations_of(self.context["request"])


class CustomerField(serializers.PrimaryKeyRelatedField[Customer]):
    """A customer of the caller's organisations: others do not exist."""

    def get_queryset(self) -> QuerySet[Customer]:
        return Customer.objects.filter(organisation__in=organisations_of(self.context["request"]))


class OwnedSerializer(serializers.ModelSerializer[Any]):
    """A row of an organisation, where it stays."""

    organisation = OrganisationField(default=OnlyOrganisation())

    def validate_organisation(self, organisation: Organisation) -> Organisation:
        if self.instance is not None and organisation.pk != self.instance.organisation_id:
            raise serializers.ValidationError("A row stays with its organisation.")
        return organisation


class OfCustomerSerializer(OwnedSerializer):
    """A row of a customer of the same organisation."""

    customer = CustomerField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        # What a PATCH does not name is as the row has it.
        row = {name: attrs.get(name) or getattr(self.instance, name) for name in PARENTS}
        if row["customer"].organisation_id != row["organisation"].pk:
            raise serializers.ValidationError(
                {"customer": ["This customer is one of another organisation."]}
            )
        return attrs


class CustomerSerializer(OwnedSerializer):
    class Meta:
        model = Customer
        fields = (*OWNED, "name", "email", "phone")


class JobSerializer(OfCustomerSerializer):
    customer_name = serializers.CharField(source="customer.name", read_only=True)

    class Meta:
        model = Job
        fields = (*OWNED, "customer", "customer_name", "title", "status", "scheduled_at")


class InvoiceSerializer(OfCustomerSerializer):
    customer_name = serializers.CharField(source="customer.name", read_only=True)

    class Meta:
        model = Invoice
        fields = (*OWNED, "customer", "customer_name", "number", "amount", "status")


class PriceBookItemSerializer(serializers.ModelSerializer[PriceBookItem]):
    class Meta:
        model = PriceBookItem
        fields = (*OWNED, "sku", "name", "price")


class WebhookSubscriptionSerializer(OwnedSerializer):
    class Meta:
        model = WebhookSubscription
        fields = (*OWNED, "url", "event", "is_active")
