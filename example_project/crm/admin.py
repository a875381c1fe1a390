"""The CRM in the admin."""

from __future__ import annotations

from django.contrib import admin

from example_project.crm import models


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]  # generic for the checker alone
    model = models.Membership
    autocomplete_fields = ("user",)
    extra = 0


@admin.register(models.Organisation)
class OrganisationAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the same
    list_display = ("name", "slug", "plan", "is_active")
    list_filter = ("plan", "is_active")
    search_fields = ("name", "slug")
    prepopulated_fields = {"slug": ("name",)}
    inlines = (MembershipInline,)


@admin.register(models.Membership)
class MembershipAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the same
    list_display = ("user", "organisation", "role")
    list_filter = ("organisation", "role")
    list_select_related = ("user", "organisation")
    search_fields = ("user__username", "organisation__name")
    autocomplete_fields = ("user", "organisation")


class OwnedAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the same
    list_filter = ("organisation",)
    list_select_related = ("organisation",)
    autocomplete_fields = ("organisation",)


class OfCustomerAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # the same
    list_filter = ("organisation",)
    list_select_related = ("organisation", "customer")
    autocomplete_fields = ("organisation", "customer")


@admin.register(models.Customer)
class CustomerAdmin(OwnedAdmin):
    list_display = ("name", "email", "phone", "organisation")
    search_fields = ("name", "email", "phone")


@admin.register(models.Job)
class JobAdmin(OfCustomerAdmin):
    list_display = ("title", "status", "scheduled_at", "customer", "organisation")
    search_fields = ("title", "customer__name")


@admin.register(models.Invoice)
class InvoiceAdmin(OfCustomerAdmin):
    list_display = ("number", "amount", "status", "customer", "organisation")
    search_fields = ("number", "customer__name")


@admin.register(models.PriceBookItem)
class PriceBookItemAdmin(OwnedAdmin):
    list_display = ("sku", "name", "price", "organisation")
    search_fields = ("sku", "name")


@admin.register(models.WebhookSubscription)
class WebhookSubscriptionAdmin(OwnedAdmin):
    list_display = ("event", "url", "is_active", "organisation")
    search_fields = ("url",)
