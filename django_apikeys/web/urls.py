"""The owner's page, to be mounted where a project has its settings."""

from __future__ import annotations

from django.urls import path

from django_apikeys.web import operations, views

app_name = "apikeys_web"
urlpatterns = [
    path("", views.KeyListPage.as_view(), name="key-list"),
    path("new/", views.CreatePage.as_view(), name="key-new"),
    path("<uuid:pk>/", views.UsagePage.as_view(), name="key-usage"),
    path("<uuid:pk>/settings/", views.SettingsPage.as_view(), name="key-settings"),
    path("<uuid:pk>/history/", views.HistoryPage.as_view(), name="key-history"),
    path("<uuid:pk>/rotate/", operations.RotatePage.as_view(), name="key-rotate"),
    path("<uuid:pk>/reveal/", operations.RevealPage.as_view(), name="key-reveal"),
    path("<uuid:pk>/retire/", operations.RetirePage.as_view(), name="key-retire"),
    path("<uuid:pk>/revoke/", operations.RevokePage.as_view(), name="key-revoke"),
    path("<uuid:pk>/delete/", operations.DeletePage.as_view(), name="key-delete"),
]
