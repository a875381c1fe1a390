"""What is done to a key from a page that asks first: rotate, retire, revoke, delete, reveal."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import messages
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters

from django_apikeys import logins, reports, services
from django_apikeys.exceptions import Conflict, PasswordRequired
from django_apikeys.models import APIKey
from django_apikeys.web import words
from django_apikeys.web.abilities import Abilities
from django_apikeys.web.forms import LeakedForm, PlannedForm, ReasonForm, RetireForm, RevokeForm
from django_apikeys.web.issued import issued_page
from django_apikeys.web.pages import KeyPage
from django_apikeys.web.shown import ShownKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeyQuerySet
    from django_apikeys.policy import Action

_MOST_OFFSPRING = 50
_MOST_ADDRESSES = 10


class RotatePage(KeyPage):
    """A new secret for the same key: first it is asked why."""

    action = "rotate"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        _require_active(self.key)
        why = request.GET.get("why", "")
        if why not in _ROTATIONS:
            return self.page("rotate")
        current = self.key.current_secret
        initial = {"current": current.public_id if current else ""}
        return self._form_page(why, _ROTATIONS[why](initial=initial))

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        why = request.POST.get("why", "")
        if why not in _ROTATIONS:
            return self.page("rotate")
        form = _ROTATIONS[why](request.POST)
        if not form.is_valid():
            return self._form_page(why, form)
        asked = dict(form.cleaned_data)
        cascade = asked.pop("cascade", False)
        asked["current"] = asked["current"] or None
        issued = services.rotate_key(
            key=self.key, compromised=why == "leaked", **self.caller, **asked
        )
        came = self._revoke_offspring(asked["reason"]) if cascade else {}
        return issued_page(self, issued, rotated=why, **came)

    def _form_page(self, why: str, form: PlannedForm | LeakedForm) -> HttpResponse:
        context: dict[str, Any] = {}
        if why == "leaked":
            now = timezone.now()
            context = {
                **self._offspring(now),
                "may_cascade": Abilities(self.authority, self.key, now).revoke,
                "addresses": recent_addresses(self.key, now),
            }
        return self.page(f"rotate_{why}", form=form, **context)

    @property
    def _children(self) -> APIKeyQuerySet:
        # Revoked and deleted ones too: through them others were made, which live.
        return APIKey.objects.filter(created_by_key=self.key)

    def _offspring(self, now: datetime) -> dict[str, Any]:
        """Return the live keys that were made through it, to the last, and how many more."""
        ids = services.keys_to_revoke(keys=self._children, cascade=True)
        shown = self.authority.visible_keys().filter(pk__in=ids[:_MOST_OFFSPRING])
        return {
            "offspring": [ShownKey(key, now) for key in shown],
            "offspring_more": len(ids) - len(shown),
        }

    def _revoke_offspring(self, reason: str) -> dict[str, Any]:
        """Revoke what was made through the key, to the last; return what came of it.

        In transactions of their own: the secret that leaked is ended by now, and stays so.
        """
        run = services.revoke_keys(keys=self._children, cascade=True, reason=reason, **self.caller)
        return {"ended": self._named(run.ids), "kept": self._named([*run.refused])}

    def _named(self, ids: Sequence[UUID]) -> dict[str, Any]:
        shown = self.authority.visible_keys().filter(pk__in=ids[:_MOST_OFFSPRING])
        return {"names": sorted(map(str, shown)), "count": len(ids)}


_ROTATIONS: dict[str, type[PlannedForm | LeakedForm]] = {
    "planned": PlannedForm,
    "leaked": LeakedForm,
}


class ConfirmPage(KeyPage):
    """A page that says what will stop working, and does it once that was confirmed."""

    form_class: type[ReasonForm] = ReasonForm
    template: ClassVar[str]
    done: ClassVar[str | _StrPromise]

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        self.require_possible()
        return self._form_page(self.form_class(initial=self.initial()))

    def initial(self) -> dict[str, Any]:
        """Return what the form says of the key as it is now."""
        return {}

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        form = self.form_class(request.POST)
        if not form.is_valid():
            return self._form_page(form)
        self.apply(**form.cleaned_data)
        messages.success(request, self.done, fail_silently=True)
        return self.back()

    def require_possible(self) -> None:
        """Raise Conflict where the state of the key does not allow it."""

    @abstractmethod
    def apply(self, **answers: Any) -> None:
        """Do it; raises what ``services`` does."""

    def back(self) -> HttpResponse:
        """Return where it goes on."""
        return redirect("apikeys_web:key-usage", self.key.pk)

    def _form_page(self, form: ReasonForm) -> HttpResponse:
        now = timezone.now()
        uses = uses_of_a_day(self.key, now)
        return self.page(
            self.template,
            form=form,
            uses_of_a_day=uses,
            uses_shown=words.number(uses),
            offspring=APIKey.objects.live_offspring([self.key]).get(self.key.pk, 0),
        )


class RetirePage(ConfirmPage):
    """The previous secret ends before its grace does."""

    action: Action = "rotate"
    form_class = RetireForm
    template = "retire"
    done = _("The old secret is retired.")

    def require_possible(self) -> None:
        if self.key.previous_secret_at(timezone.now()) is None:
            raise Conflict(_("This key has no previous secret."))

    def initial(self) -> dict[str, Any]:
        previous = self.key.previous_secret_at(timezone.now())
        return {"previous": previous.public_id if previous else ""}

    def apply(self, **answers: Any) -> None:
        answers["previous"] = answers["previous"] or None
        services.retire_secret(key=self.key, **self.caller, **answers)


class RevokePage(ConfirmPage):
    """The key is refused from the next request on, for good."""

    action: Action = "revoke"
    form_class = RevokeForm
    template = "revoke"
    done = _("The key is revoked.")

    def require_possible(self) -> None:
        if self.key.revoked_at is not None:
            raise Conflict(_("This key is revoked, for good."))

    def apply(self, **answers: Any) -> None:
        services.revoke_key(key=self.key, **self.caller, **answers)


class DeletePage(ConfirmPage):
    """The key is revoked, and leaves the list."""

    action: Action = "delete"
    template = "delete"
    done = _("The key is deleted.")

    def apply(self, **answers: Any) -> None:
        services.delete_key(key=self.key, **self.caller, **answers)

    def back(self) -> HttpResponse:
        return redirect("apikeys_web:key-list")


@method_decorator(sensitive_post_parameters("password"), name="dispatch")
class RevealPage(KeyPage):
    """The secret again, in the retrievable mode, for whom is sure to be at the keyboard."""

    action: Action = "reveal"

    def get(self, request: HttpRequest, pk: Any) -> HttpResponse:
        services.require_revealable(self.key)
        return self._form_page()

    def post(self, request: HttpRequest, pk: Any) -> HttpResponse:
        # Before a password is looked at, which would be asked for in vain.
        services.require_revealable(self.key)
        if request.POST.get("seen") != services.last_reveal(self.key):
            # So whoever finds the browser open, and reloads, is not shown it.
            problem = _("The secret was shown since this page was opened: ask again.")
            return self._form_page(status=Conflict.status, notice=problem)
        try:
            logins.require_fresh(request, logins.typed_password(request))
        except PasswordRequired as error:
            return self._form_page(problem=str(error))
        issued = services.reveal_secret(key=self.key, **self.caller)
        return issued_page(self, issued, revealed=True)

    def _form_page(self, **context: Any) -> HttpResponse:
        try:
            logins.require_fresh(self.request, None)
        except PasswordRequired:
            context["asks_password"] = True
        return self.page("reveal", seen=services.last_reveal(self.key), **context)


def uses_of_a_day(key: APIKey, now: datetime) -> int:
    """Return how many requests *key* made in the last 24 hours."""
    usage = reports.key_usage(key, now, begins_at=now - timedelta(hours=23), granularity="hour")
    return int(usage["totals"]["requests"])


def recent_addresses(key: APIKey, now: datetime) -> list[dict[str, Any]]:
    """Return where *key* was used from in the last 30 days, the newest first."""
    rows = reports.key_usage(key, now)["by_ip"]
    newest = sorted(rows, key=lambda row: row["last_seen"], reverse=True)[:_MOST_ADDRESSES]
    return [
        {
            "ip": row["ip"],
            "requests": words.number(row["requests"]),
            "last_seen": words.moment(datetime.fromisoformat(row["last_seen"]), now),
        }
        for row in newest
    ]


def _require_active(key: APIKey) -> None:
    status = key.status_at(timezone.now())
    if status != "active":
        raise Conflict(_("Only an active key can be rotated."))
