"""Keys in the admin: add, list, search, revoke; the secret is shown once, on its own page."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.forms import ModelForm
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_apikeys import services, validation
from django_apikeys.actors import Actor
from django_apikeys.authority import Authority
from django_apikeys.exceptions import Conflict, InvalidInput
from django_apikeys.forms import NewKeyForm
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern
    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeyQuerySet


@admin.register(APIKey)
class APIKeyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # generic for the checker alone
    """Keys are made and revoked through ``services``, never written by the admin itself."""

    form = NewKeyForm
    raw_id_fields = ("owner",)
    list_display = ("name", "masked", "owner", "environment", "status", "created_at", "expires_at")
    search_fields = ("name",)  # shows the box; get_search_results does the search
    search_help_text = _("Name, description, public id or masked form")
    show_full_result_count = False
    actions = ("revoke_selected",)
    change_form_template = "admin/django_apikeys/apikey/change_form.html"
    _shown = (
        "name",
        "masked",
        "status",
        "owner",
        "description",
        "environment",
        "scopes",
        "allowed_ips",
        "rate_limit",
        "enabled",
        "expires_at",
        "metadata",
        "created_at",
        "created_by",
        "updated_at",
        "revoked_at",
        "revoked_by",
        "revoked_reason",
    )
    _asked = (*NewKeyForm.Meta.fields, "new_id")

    @admin.display(description=_("key"))
    def masked(self, key: APIKey) -> str:
        return key.masked

    @admin.display(description=_("status"))
    def status(self, key: APIKey) -> str:
        return key.status_at(timezone.now())

    def get_queryset(self, request: HttpRequest) -> APIKeyQuerySet:
        return APIKey.objects.listed()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKey], search_term: str
    ) -> tuple[APIKeyQuerySet, bool]:
        keys: APIKeyQuerySet = queryset  # type: ignore[assignment]  # of get_queryset
        return (keys.search(search_term) if search_term else keys), False

    def get_fields(self, request: HttpRequest, obj: APIKey | None = None) -> tuple[str, ...]:
        return self._asked if obj is None else self._shown

    def get_readonly_fields(
        self, request: HttpRequest, obj: APIKey | None = None
    ) -> tuple[str, ...]:
        return () if obj is None else self._shown

    def get_form(
        self, request: HttpRequest, obj: APIKey | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        if obj is not None:
            kwargs["form"] = ModelForm  # it shows; there is nothing to fill in
            return super().get_form(request, obj, *args, **kwargs)
        form: Any = super().get_form(request, obj, *args, **kwargs)
        # A superuser may make any key. Whoever else may add keys is bound by the policy:
        # by a key of an owner who may do more they would act as that owner.
        form.authority = None if request.user.is_superuser else Authority(request.user)
        return form

    def has_change_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: APIKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may revoke keys; Django asks it for the action."""
        return request.user.has_perm("django_apikeys.revoke_apikey")

    def get_urls(self) -> list[URLPattern]:
        revoke = path(
            "<uuid:object_id>/revoke/",
            self.admin_site.admin_view(self.revoke_view),
            name="django_apikeys_apikey_revoke",
        )
        return [revoke, *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        # The page with the secret comes next, whatever was to come after.
        context |= {
            "has_revoke_permission": self.has_revoke_permission(request),
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def add_view(self, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().add_view(*args, **kwargs)
        except Conflict as error:
            # Of two of the same form at once, the second.
            request = args[0]
            self.message_user(request, str(error), messages.ERROR)
            return redirect(self._list_url())

    def save_model(self, request: HttpRequest, obj: APIKey, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's signature
        issued = services.create_key(
            owner=obj.owner,
            actor=Actor.from_request(request),
            id=form.cleaned_data["new_id"],
            **form.validated,
        )
        obj.pk = issued.key.pk
        obj.issued = issued  # type: ignore[attr-defined]  # for response_add, in this request

    def response_add(
        self, request: HttpRequest, obj: APIKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        # The page is the answer to the POST itself: a redirect would need to keep the
        # secret in a session, a cookie or a URL in between.
        response = TemplateResponse(
            request,
            "admin/django_apikeys/apikey/issued.html",
            {
                **self.admin_site.each_context(request),
                "title": _("API key created"),
                "opts": self.opts,
                "key": obj.issued.key,  # type: ignore[attr-defined]  # of save_model
                "secret": obj.issued.secret,  # type: ignore[attr-defined]  # the same
            },
        )
        response["Cache-Control"] = "no-store"
        response["Referrer-Policy"] = "no-referrer"
        return response

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().response_action(request, *args, **kwargs)
        except ValidationError:
            self.message_user(request, _("There are no such keys."), messages.ERROR)
            return None

    @admin.action(description=_("Revoke selected keys"), permissions=["revoke"])
    def revoke_selected(
        self, request: HttpRequest, queryset: QuerySet[APIKey]
    ) -> HttpResponse | None:
        return self._revoke(request, list(queryset), back=self._list_url(), selected=True)

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, and revoke one key."""
        if not (self.has_revoke_permission(request) and self.has_view_permission(request)):
            raise PermissionDenied
        key = self.get_object(request, str(object_id))
        if key is None:
            return redirect(self._list_url())
        back = reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_change",
            args=(key.pk,),
            current_app=self.admin_site.name,
        )
        return self._revoke(request, [key], back=back, selected=False) or redirect(back)

    def _revoke(
        self, request: HttpRequest, keys: Sequence[APIKey], *, back: str, selected: bool
    ) -> HttpResponse | None:
        """Return the page that asks; None once the keys are revoked."""
        problem: str | _StrPromise = ""
        reason = request.POST.get("reason", "")
        if "confirmed" in request.POST:
            try:
                validation.clean({"reason": reason})
            except InvalidInput as error:
                problem = " ".join(error.message_dict["reason"])
            else:
                self._revoke_all(request, keys, reason)
                return None
        return TemplateResponse(
            request,
            "admin/django_apikeys/apikey/revoke.html",
            {
                **self.admin_site.each_context(request),
                "title": _("Revoke API keys"),
                "opts": self.opts,
                "keys": keys,
                "back": back,
                "selected": selected,
                "reason": reason,
                "problem": problem,
            },
        )

    def _revoke_all(self, request: HttpRequest, keys: Sequence[APIKey], reason: str) -> None:
        count = 0
        for key in keys:
            # One that has gone in between needs no revoke.
            with suppress(Conflict):
                services.revoke_key(key=key, actor=Actor.from_request(request), reason=reason)
                count += 1
        self.message_user(
            request,
            ngettext("%(count)d key is revoked.", "%(count)d keys are revoked.", count)
            % {"count": count},
            messages.SUCCESS,
        )

    def _list_url(self) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist",
            current_app=self.admin_site.name,
        )
