"""The CRM's API, to be mounted at /api/v1/."""

from __future__ import annotations

from rest_framework.routers import DefaultRouter

from example_project.crm import views


class Router(DefaultRouter):
    APIRootView = views.APIRoot
    include_format_suffixes = False


router = Router()
router.register("customers", views.CustomerViewSet)
router.register("jobs", views.JobViewSet)
router.register("invoices", views.InvoiceViewSet)
router.register("pricebook", views.PriceBookViewSet, basename="pricebook")
router.register("webhooks", views.WebhookViewSet, basename="webhook")

urlpatterns = router.urls
