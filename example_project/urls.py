"""The site: a page, the API, the admin and a login."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path, re_path
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularAPIView

from example_project import docs, errors

urlpatterns = [
    path("", TemplateView.as_view(template_name="index.html"), name="index"),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("settings/api-keys/", include("django_apikeys.web.urls")),
    path("api/v1/", include("django_apikeys.drf.urls")),
    path("api/v1/", include("example_project.crm.urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", docs.DocsView.as_view(), name="docs"),
    # With DEBUG on Django shows a page of its own in place of handler404.
    re_path(r"^api/", errors.not_found),
]

handler400 = errors.bad_request
handler403 = errors.permission_denied
handler404 = errors.not_found
handler500 = errors.server_error
