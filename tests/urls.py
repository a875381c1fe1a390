"""The views that the tests call."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("django_apikeys.drf.urls")),
]
