"""A project that mounts the page, and no management API."""

from django.urls import include, path

urlpatterns = [path("page/", include("django_apikeys.web.urls"))]
