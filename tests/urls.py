"""The URLs that the tests call."""

from django.contrib import admin
from django.urls import include, path
from django.views.decorators.cache import cache_control, cache_page

from tests import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("django_apikeys.drf.urls")),
    path("page/", include("django_apikeys.web.urls")),
    path("customers/", views.Customers.as_view()),
    path("plain/", views.plain),
    path("async-plain/", views.async_plain),
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
    path("jobs/", views.Jobs.as_view()),
    path("jobs-of-authenticated/", views.JobsOfAuthenticated.as_view()),
    path("open-to-all/", views.OpenToAll.as_view()),
    path("declared/", views.Declared.as_view()),
    path("declared-twice/", views.DeclaredTwice.as_view()),
    path("either-declared/", views.EitherDeclared.as_view()),
    path("scope-or-authenticated/", views.ScopeOrAuthenticated.as_view()),
    path("scope-or-admin/", views.ScopeOrAdmin.as_view()),
    path("both-scopes/", views.BothScopes.as_view()),
    path("no-keys/", views.NoKeys.as_view()),
    path("not-writers/", views.NotWriters.as_view()),
    path("objects/", views.Objects.as_view()),
    path("scope-by-get-permissions/", views.ScopeByGetPermissions.as_view()),
    path("has-api-key-alone/", views.DeclaresNothingAndHasAPIKey.as_view()),
    path("third-party/", views.ThirdParty.as_view()),
    path("text/", views.ListsOfText.as_view()),
    path("action-wins/", views.ActionWins.as_view({"get": "list"})),
    path("action-wins/1/", views.ActionWins.as_view({"get": "retrieve"})),
    path("beside-foreign/", views.BesideForeign.as_view()),
    path("session-first/", views.SessionFirst.as_view()),
    path("foreign-first/", views.ForeignFirst.as_view()),
    path("caller/", views.Caller.as_view()),
    path("failing/<str:name>/", views.Failing.as_view()),
    path("told/", views.Told.as_view()),
    path("told-strictly/", views.ToldStrictly.as_view()),
    path("told-publicly/", views.ToldPublicly.as_view()),
    path("cached/around/", cache_page(60)(views.Told.as_view())),
    path("cached/dispatch/", views.CachedDispatch.as_view()),
    path("cached/get/", views.CachedGet.as_view()),
    path("cached/plain-get/", views.CachedPlainGet.as_view()),
    path("cached/list/", views.CachedList.as_view({"get": "list"})),
    path("cached/api-view-over/", views.api_view_over_cache),
    path("cached/api-view-under/", views.api_view_under_cache),
    path(
        "cached/public/",
        cache_page(60)(cache_control(public=True, max_age=60)(views.Told.as_view())),
    ),
    path("cached/public-within/", cache_page(60)(views.ToldPublicly.as_view())),
]
