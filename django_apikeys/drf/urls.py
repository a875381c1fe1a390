"""The management API, to be mounted where the host likes: ``path("api/v1/", include(…))``."""

from __future__ import annotations

from django.urls import path
from django.views.decorators.debug import sensitive_post_parameters

from django_apikeys.drf.views import (
    AccountView,
    APIKeyViewSet,
    EventsView,
    KeyEventsView,
    KeyUsageView,
    ScopesView,
    SelfDetailView,
    SelfRevokeView,
    SelfRotateView,
)

app_name = "apikeys"

urlpatterns = [
    path("keys/", APIKeyViewSet.as_view({"get": "list", "post": "create"}), name="key-list"),
    path("keys/self/", SelfDetailView.as_view(), name="key-self"),
    path("keys/self/rotate/", SelfRotateView.as_view(), name="key-self-rotate"),
    path("keys/self/revoke/", SelfRevokeView.as_view(), name="key-self-revoke"),
    path(
        "keys/<str:pk>/",
        APIKeyViewSet.as_view(
            {"get": "retrieve", "patch": "partial_update", "delete": "destroy"}, detail=True
        ),
        name="key-detail",
    ),
    path(
        "keys/<str:pk>/revoke/",
        APIKeyViewSet.as_view({"post": "revoke"}, detail=True),
        name="key-revoke",
    ),
    path(
        "keys/<str:pk>/rotate/",
        APIKeyViewSet.as_view({"post": "rotate"}, detail=True),
        name="key-rotate",
    ),
    path(
        "keys/<str:pk>/retire/",
        APIKeyViewSet.as_view({"post": "retire"}, detail=True),
        name="key-retire",
    ),
    path(
        "keys/<str:pk>/reveal/",
        # Of a form; JSON is masked by the view.
        sensitive_post_parameters("password")(
            APIKeyViewSet.as_view({"post": "reveal"}, detail=True)
        ),
        name="key-reveal",
    ),
    path("keys/<str:pk>/events/", KeyEventsView.as_view(), name="key-events"),
    path("keys/<str:pk>/usage/", KeyUsageView.as_view(), name="key-usage"),
    path("usage/", AccountView.as_view(), name="account"),
    path("events/", EventsView.as_view(), name="event-list"),
    path("scopes/", ScopesView.as_view(), name="scope-list"),
]
