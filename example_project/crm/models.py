"""Organisations with their people and their data; they own the API keys too."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator, URLValidator
from django.db import models
from django.utils import timezone


class Organisation(models.Model):
    """A customer of ours: whom keys and rows belong to."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(unique=True)
    plan = models.CharField(max_length=32, default="free")
    is_active = models.BooleanField(default=True)

    class Meta:
        ordering = ("name", "id")

    def __str__(self) -> str:
        return self.name


class Role(models.TextChoices):
    """What somebody is in an organisation; ``policy`` says what each may do with keys."""

    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    MEMBER = "member", "Member"


class Membership(models.Model):
    """A user in an organisation."""

    organisation = models.ForeignKey(
        Organisation, on_delete=models.CASCADE, related_name="memberships"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    role = models.CharField(max_length=16, choices=Role.choices, default=Role.MEMBER)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("organisation", "user"), name="crm_membership_once"),
        )

    def __str__(self) -> str:
        return f"{self.user}, {self.role} of {self.organisation}"


class OwnedModel(models.Model):
    """A row of an organisation, which no other one sees."""

    organisation = models.ForeignKey(
        Organisation, on_delete=models.CASCADE, related_name="%(class)ss"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True
        ordering = ("-id",)


class Customer(OwnedModel):
    """Whom an organisation works for."""

    name = models.CharField(max_length=200)
    email = models.EmailField(blank=True)
    phone = models.CharField(max_length=50, blank=True)

    def __str__(self) -> str:
        return self.name


class Job(OwnedModel):
    """A piece of work at a customer's."""

    class Status(models.TextChoices):
        SCHEDULED = "scheduled", "Scheduled"
        DONE = "done", "Done"
        CANCELLED = "cancelled", "Cancelled"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="jobs")
    title = models.CharField(max_length=200)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.SCHEDULED)
    scheduled_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.title


class Invoice(OwnedModel):
    """What a customer owes."""

    class Status(models.TextChoices):
        DRAFT = "draft", "Draft"
        SENT = "sent", "Sent"
        PAID = "paid", "Paid"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="invoices")
    number = models.CharField(max_length=32)
    amount = models.DecimalField(
        max_digits=10, decimal_places=2, validators=[MinValueValidator(0)]
    )
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.DRAFT)

    def __str__(self) -> str:
        return self.number


class PriceBookItem(OwnedModel):
    """What an organisation sells, and for how much."""

    sku = models.CharField("SKU", max_length=32)
    name = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=10, decimal_places=2, validators=[MinValueValidator(0)])

    def __str__(self) -> str:
        return self.name


class WebhookSubscription(OwnedModel):
    """Where an organisation wants to be told of an event."""

    class Event(models.TextChoices):
        CUSTOMER_CREATED = "customer.created", "A customer was created"
        JOB_DONE = "job.done", "A job was done"
        INVOICE_PAID = "invoice.paid", "An invoice was paid"

    url = models.CharField(
        "URL", max_length=500, validators=[URLValidator(schemes=("http", "https"))]
    )
    event = models.CharField(max_length=32, choices=Event.choices)
    is_active = models.BooleanField(default=True)

    def __str__(self) -> str:
        return f"{self.event} to {self.url}"
