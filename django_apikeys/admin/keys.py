"""Keys in the admin: listed, made and changed; the secret is shown once, on its own page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.forms import ModelForm
from django.shortcuts import redirect
from django.urls import path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_apikeys import services, validation
from django_apikeys.actors import Actor
from django_apikeys.admin.confirmed import authority_in_admin
from django_apikeys.admin.filters import (
    STATUS_NAMES,
    AgeFilter,
    CreatorFilter,
    EnvironmentFilter,
    ExpiringFilter,
    OwnerFilter,
    StatusFilter,
    UseFilter,
)
from django_apikeys.admin.rotation import previous_as_text
from django_apikeys.admin.tables import lines_of, moment_as_text
from django_apikeys.admin.used import UsedAdmin, totals_of
from django_apikeys.conf import conf
from django_apikeys.exceptions import ChangeRefused, Conflict
from django_apikeys.forms import ChangedKeyForm, NewKeyForm
from django_apikeys.keys.format import pasted_public_id
from django_apikeys.models import APIKey, APIKeyEvent

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeyQuerySet


@admin.register(APIKey)
class APIKeyAdmin(UsedAdmin):
    """Every change is made by ``services``; the admin itself writes no row of a key."""

    form = NewKeyForm
    raw_id_fields = ("owner",)
    list_display = (
        "named",
        "status",
        "usage",
        "created",
        "expires",
        "last_used",
    )
    list_filter = (
        StatusFilter,
        EnvironmentFilter,
        OwnerFilter,
        CreatorFilter,
        ExpiringFilter,
        UseFilter,
        AgeFilter,
    )
    sortable_by = ("created", "expires")
    search_fields = ("name",)  # shows the box; get_search_results does the search
    search_help_text = _("Name, description, public id or masked form")
    change_form_template = "admin/django_apikeys/apikey/change_form.html"
    _asked = (*NewKeyForm.Meta.fields, "new_id")
    _shown = (
        (None, {"fields": ("masked", "public_id", "status", "owner", "environment")}),
        (_("Settings"), {"fields": ChangedKeyForm.Meta.fields}),
        (_("Secrets"), {"fields": ("secret_made_at", "first_used_at", "previous")}),
        (
            pgettext_lazy("of a key", "History"),
            {
                "fields": (
                    "created_at",
                    "created_by",
                    "made_through",
                    "updated_at",
                    "revoked_at",
                    "revoked_by",
                    "revoked_reason",
                )
            },
        ),
        # The last, before the charts.
        (_("Usage"), {"fields": ("usage_count", "last_used_at", "last_used_ip")}),
    )

    @admin.display(description=_("name"))
    def named(self, key: APIKey) -> str:
        return lines_of(key, key.masked, key.owner)

    @admin.display(description=pgettext_lazy("API key", "key"))
    def masked(self, key: APIKey) -> str:
        return key.masked

    @admin.display(description=_("public id"))
    def public_id(self, key: APIKey) -> str:
        return key.current_secret.public_id if key.current_secret else ""

    @admin.display(description=_("status"))
    def status(self, key: APIKey) -> str:
        status = key.status_at(timezone.now())
        markup = '<span class="apikeys-status apikeys-{}">{}</span>'
        return format_html(markup, status, STATUS_NAMES[status])

    # In the list days are enough, and leave room for names; the page of a key says more.

    @admin.display(description=_("created"), ordering="created_at")
    def created(self, key: APIKey) -> str | _StrPromise:
        return _day(key.created_at)

    @admin.display(description=_("expires"), ordering="expires_at")
    def expires(self, key: APIKey) -> str | _StrPromise:
        return _day(key.expires_at)

    @admin.display(description=_("last used"))
    def last_used(self, key: APIKey) -> str | _StrPromise:
        totals = totals_of(key)
        return _day(totals.last_used_at if totals else None)

    @admin.display(description=_("last used at"))
    def last_used_at(self, key: APIKey) -> str | _StrPromise:
        totals = totals_of(key)
        return moment_as_text(totals.last_used_at if totals else None)

    @admin.display(description=_("last used from"))
    def last_used_ip(self, key: APIKey) -> str:
        totals = totals_of(key)
        return totals.last_used_ip if totals else ""

    @admin.display(description=_("current secret made at"))
    def secret_made_at(self, key: APIKey) -> str | _StrPromise:
        secret = key.current_secret
        return moment_as_text(secret.created_at if secret else None)

    @admin.display(description=_("current secret first used at"))
    def first_used_at(self, key: APIKey) -> str | _StrPromise:
        secret = key.current_secret
        return moment_as_text(secret.first_used_at if secret else None)

    @admin.display(description=_("previous secret"))
    def previous(self, key: APIKey) -> str | _StrPromise:
        return previous_as_text(key)

    @admin.display(description=_("made through"))
    def made_through(self, key: APIKey) -> str | _StrPromise:
        parent = key.created_by_key
        if parent is None:
            return _("no other key")
        if parent.deleted_at is not None:
            return str(parent)  # it has no page any more
        return format_html('<a href="{}">{}</a>', self._url("change", parent.pk), parent)

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if public_id := pasted_public_id(request.GET.get("q", "").strip()):
            # A secret finds its key, and must not stay in the address bar, nor in the page.
            query = request.GET.copy()
            query["q"] = public_id
            return redirect(f"{request.path}?{query.urlencode()}")
        return super().changelist_view(request, *args, **kwargs)

    def get_queryset(self, request: HttpRequest) -> APIKeyQuerySet:
        return APIKey.objects.listed()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKey], search_term: str
    ) -> tuple[APIKeyQuerySet, bool]:
        keys: APIKeyQuerySet = queryset  # type: ignore[assignment]  # of get_queryset
        return (keys.search(search_term) if search_term else keys), False

    def get_fieldsets(self, request: HttpRequest, obj: APIKey | None = None) -> Any:
        return ((None, {"fields": self._asked}),) if obj is None else self._shown

    def get_readonly_fields(
        self, request: HttpRequest, obj: APIKey | None = None
    ) -> tuple[str, ...]:
        if obj is None:
            return ()
        shown = [name for _title, options in self._shown for name in options["fields"]]
        return tuple(name for name in shown if name not in services.CHANGEABLE)

    def get_form(
        self, request: HttpRequest, obj: APIKey | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        if obj is not None:
            changeable = self.has_change_permission(request, obj)
            kwargs["form"] = ChangedKeyForm if changeable else ModelForm
        form: Any = super().get_form(request, obj, *args, **kwargs)
        form.authority = authority_in_admin(request)
        form.refused = getattr(request, "apikeys_refused", None)
        return form

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        default = validation.default_expiry(conf.ENVIRONMENTS[0])
        return {"expires_at": default, **super().get_changeform_initial_data(request)}

    def has_change_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        revoked = obj is not None and obj.revoked_at is not None
        return not revoked and super().has_change_permission(request, obj)

    def get_urls(self) -> list[URLPattern]:
        views = {
            "revoke": self.revoke_view,
            "rotate": self.rotate_view,
            "retire": self.retire_view,
            "reveal": self.reveal_view,
        }
        own = [
            path(
                f"<uuid:object_id>/{name}/",
                self.admin_site.admin_view(view),
                name=f"django_apikeys_apikey_{name}",
            )
            for name, view in views.items()
        ]
        return [*own, *super().get_urls()]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        try:
            return super().changeform_view(request, object_id, *args, **kwargs)
        except PermissionDenied:
            if object_id is None or not self.has_change_permission(request):
                raise
            return self._gone_on(request, _("This key is revoked, for good."))
        except ChangeRefused as error:
            if object_id is not None and isinstance(error, Conflict):
                return self._gone_on(request, str(error))
            # Nothing was stored. The same form again, which says why and keeps what was typed.
            request.apikeys_refused = error  # type: ignore[attr-defined]  # for get_form
            return super().changeform_view(request, object_id, *args, **kwargs)

    def _gone_on(self, request: HttpRequest, problem: str | _StrPromise) -> HttpResponse:
        # Revoked or deleted since the page was opened: there is nothing left to change.
        self.message_user(request, problem, messages.ERROR)
        return redirect(request.path)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context["has_revoke_permission"] = self.has_revoke_permission(request)
        context["events_url"] = self._events_url(request)
        key = context.get("original")
        if key is not None:
            context["may_rotate"] = self.may_rotate(request, key)
            context["may_reveal"] = self.may_reveal(request, key)
            context["may_retire"] = self.may_retire(request, key)
        else:
            # The page with the secret comes next, whatever was to come after.
            context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's signature
        who = {"actor": Actor.from_request(request), "authority": form.authority}
        if change:
            if form.validated:
                services.update_key(key=obj, **who, **form.validated)
            return
        new_id = form.cleaned_data["new_id"]
        issued = services.create_key(owner=obj.owner, id=new_id, **who, **form.validated)
        obj.pk = issued.key.pk
        obj.issued = issued  # type: ignore[attr-defined]  # for response_add, in this request

    def response_add(
        self, request: HttpRequest, obj: APIKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        issued = obj.issued  # type: ignore[attr-defined]  # of save_model
        return self.answer_with_secret(request, issued, _("API key created"))

    def _events_url(self, request: HttpRequest) -> str:
        # A host may have taken the list of events out of its admin.
        listed = self.admin_site.is_registered(APIKeyEvent)
        if not (listed and request.user.has_perm("django_apikeys.view_apikeyevent")):
            return ""
        return reverse(
            "admin:django_apikeys_apikeyevent_changelist", current_app=self.admin_site.name
        )


def _day(moment: datetime | None) -> str | _StrPromise:
    return _("never") if moment is None else date_format(timezone.localtime(moment))
