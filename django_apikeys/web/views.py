"""The list, the form of a new key, and what there is to see and set of one."""

from __future__ import annotations

from copy import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_apikeys import reports, services
from django_apikeys.exceptions import ChangeRefused, Conflict, NotPermitted
from django_apikeys.keys.format import pasted_public_id
from django_apikeys.models import APIKeyEvent
from django_apikeys.web import words
from django_apikeys.web.abilities import revealable
from django_apikeys.web.filters import FilterForm
from django_apikeys.web.forms import CreateForm, SettingsForm
from django_apikeys.web.issued import issued_page
from django_apikeys.web.owners import Owners
from django_apikeys.web.pages import KeyPage, Page, page_of
from django_apikeys.web.shown import ShownKey
from django_apikeys.web.usage import usage_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase


class KeyListPage(Page):
    """The keys of every owner whom the person may see."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        # Before the login, which would be told where to go on.
        if public_id := pasted_public_id(request.GET.get("search", "").strip()):
            # It finds its key, and must not stay in the address bar, nor in the page.
            query = request.GET.copy()
            query["search"] = public_id
            return redirect(f"{request.path}?{query.urlencode()}")
        return super().dispatch(request, *args, **kwargs)

    def get(self, request: HttpRequest) -> HttpResponse:
        now = timezone.now()
        owners = Owners(self.authority, "see")
        form = FilterForm(request.GET, owners)
        page = page_of(request, form.narrowed(self.authority.visible_keys(), now))
        keys = list(page.object_list)
        days = reports.daily([key.pk for key in keys], now) if keys else {}
        return self.page(
            "list",
            form=form,
            page=page,
            keys=[ShownKey(key, now, days[key.pk]) for key in keys],
            found=_found(page.paginator),
            revealable=revealable(request.user, keys, now),
            has_owners=owners.are_several,
            account=_account(owners, form, now),
            may_create=bool(Owners(self.authority, "create")),
        )


def _found(pages: Any) -> str:  # a BoundedPaginator
    text = ngettext("%(count)s API key", "%(count)s API keys", pages.count)
    if pages.is_cut:
        text = _("More than %(count)s API keys")
    return text % {"count": words.number(pages.count)}


def _account(owners: Owners, form: FilterForm, now: datetime) -> dict[str, Any] | None:
    """Return the meter of the owner who was chosen, or is the only one; None: of nobody."""
    owner = form.chosen or owners.only
    if owner is None:
        return None
    account = reports.account(owner, now)
    used, total = account["used"], account["total"]
    return {
        "used": words.number(used),
        "total": None if total is None else words.number(total),
        "used_number": used,
        "total_number": total,
        # What is left is asked for before it is gone.
        "is_short": total is not None and used * 10 >= total * 9,
        "resets": words.moment(datetime.fromisoformat(account["resets_at"]), now),
        "plan": account["plan"],
        "rate": words.rate(account["rate_limit"]),
    }


class CreatePage(Page):
    """The form of a new key. The answer to its POST shows the secret, and nothing else does."""

    def require(self) -> None:
        # Before the body is read: who may create for nobody learns nothing from it.
        self.authority.require_any("create")

    @cached_property
    def owners(self) -> Owners:
        """For whom the person may create keys."""
        return Owners(self.authority, "create")

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._form_page(CreateForm(owners=self.owners, initial=self._initial()))

    def post(self, request: HttpRequest) -> HttpResponse:
        form = CreateForm(request.POST, owners=self.owners)
        if form.is_valid():
            try:
                issued = services.create_key(
                    owner=form.chosen_owner,
                    id=form.cleaned_data["new_id"],
                    **self.caller,
                    **form.validated,
                )
            except ChangeRefused as error:
                form.refuse(error)
            else:
                return issued_page(self, issued)
        return self._page_of_repeat(form) if form.was_sent_before else self._form_page(form)

    def _form_page(self, form: CreateForm) -> HttpResponse:
        address = self.caller["actor"].address
        return self.page("create", form=form, address=address)

    def _initial(self) -> dict[str, Any]:
        owner = self.request.GET.get("owner", "")
        return {"owner": owner} if owner else {}

    def _page_of_repeat(self, form: CreateForm) -> HttpResponse:
        """Return what a reload, or going back and sending again, gets in place of a secret."""
        key = self.authority.visible_keys().filter(pk=form["new_id"].value()).first()
        return self.page("repeated", status=Conflict.status, made=key)


class UsagePage(KeyPage):
    """What a key is, and what it was used for."""

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        report = usage_of(self.key, timezone.now(), request.GET)
        return self.page("usage", tab="usage", report=report)


class SettingsPage(KeyPage):
    """What can be changed of a key; what was not touched is not written."""

    action = "change"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        if self.key.revoked_at is not None:
            raise Conflict(_("This key is revoked, for good."))
        return self._form_page(SettingsForm(instance=self.key, authority=self.authority))

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        # The form writes into its instance, and the page shows what is stored.
        form = SettingsForm(request.POST, instance=copy(self.key), authority=self.authority)
        if form.is_valid():
            try:
                if form.validated:
                    services.update_key(key=self.key, **self.caller, **form.validated)
            except (Conflict, NotPermitted):
                raise  # there is nothing to correct in the form
            except ChangeRefused as error:
                form.refuse(error)
            else:
                messages.success(request, _("The changes are saved."), fail_silently=True)
                return redirect("apikeys_web:key-settings", self.key.pk)
        return self._form_page(form)

    def _form_page(self, form: SettingsForm) -> HttpResponse:
        return self.page(
            "settings", tab="settings", form=form, address=self.caller["actor"].address
        )


class HistoryPage(KeyPage):
    """The audit trail of a key, in words."""

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        now = timezone.now()
        page = page_of(request, APIKeyEvent.objects.of_key(self.key))
        events = [words.tell(event, now) for event in page.object_list]
        return self.page("history", tab="history", page=page, events=events)
