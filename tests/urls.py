"""The URLs that the tests call."""

from django.contrib import admin
from django.urls import include, path

from tests import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("django_apikeys.drf.urls")),
    path("customers/", views.Customers.as_view()),
    path("open/", views.Open.as_view()),
    path("undeclared/", views.Undeclared.as_view()),
    path("public/", views.Public.as_view()),
    path("keys-only/", views.KeysOnly.as_view()),
    path("by-method/", views.ByMethod.as_view()),
    path(
        "by-action/",
        views.ByAction.as_view({"get": "list", "post": "create", "delete": "destroy"}),
    ),
    path("function/", views.function_view),
]
