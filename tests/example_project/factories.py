"""Rows of the CRM. A usable secret comes from the fixture ``issue``."""

from django.conf import settings
from factory.declarations import SelfAttribute, Sequence, SubFactory
from factory.django import DjangoModelFactory


class UserFactory(DjangoModelFactory):
    class Meta:
        model = settings.AUTH_USER_MODEL

    username = Sequence("user{}".format)


class OrganisationFactory(DjangoModelFactory):
    class Meta:
        model = "crm.Organisation"

    name = Sequence("Organisation {}".format)
    slug = Sequence("organisation-{}".format)


class MembershipFactory(DjangoModelFactory):
    class Meta:
        model = "crm.Membership"

    organisation = SubFactory(OrganisationFactory)
    user = SubFactory(UserFactory)


class CustomerFactory(DjangoModelFactory):
    class Meta:
        model = "crm.Customer"

    organisation = SubFactory(OrganisationFactory)
    name = Sequence("Customer {}".format)


class JobFactory(DjangoModelFactory):
    class Meta:
        model = "crm.Job"

    customer = SubFactory(CustomerFactory, organisation=SelfAttribute("..organisation"))
    organisation = SubFactory(OrganisationFactory)
    title = "Boiler service"


class InvoiceFactory(DjangoModelFactory):
    class Meta:
        model = "crm.Invoice"

    customer = SubFactory(CustomerFactory, organisation=SelfAttribute("..organisation"))
    organisation = SubFactory(OrganisationFactory)
    number = Sequence("N-{}".format)
    amount = 79


class PriceBookItemFactory(DjangoModelFactory):
    class Meta:
        model = "crm.PriceBookItem"

    organisation = SubFactory(OrganisationFactory)
    sku = Sequence("P-{}".format)
    name = "Siphon"
    price = 14


class WebhookSubscriptionFactory(DjangoModelFactory):
    class Meta:
        model = "crm.WebhookSubscription"

    organisation = SubFactory(OrganisationFactory)
    url = "https://example.com/hook"
    event = "job.done"
