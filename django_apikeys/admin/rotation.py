"""A key gets a new secret, and the one before ends: asked and answered on pages of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import router, transaction
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy, pgettext

from django_apikeys import services
from django_apikeys.actors import Actor
from django_apikeys.admin.confirmed import Answers, ConfirmedAdmin, Operation, authority_in_admin
from django_apikeys.admin.tables import moment_as_text
from django_apikeys.caching import patch_secret
from django_apikeys.exceptions import ChangeRefused, Conflict
from django_apikeys.forms import RotationForm
from django_apikeys.keys.restrictions import ends_at
from django_apikeys.models import APIKey
from django_apikeys.representation import is_kept

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeySecret, APIKeySecretTotals
    from django_apikeys.policy import Action


def previous_as_text(key: APIKey) -> str | _StrPromise:
    """Return the masked previous secret of *key*: until when it works, and who still sends it."""
    secret = key.previous_secret_at(timezone.now())
    if secret is None:
        return pgettext("a secret", "none")
    end = ends_at(secret.retires_at, key.expires_at)
    facts = {"secret": secret.masked, "ends": moment_as_text(end)}
    if secret.retires_at is None:
        text = _("%(secret)s, until the current one is used, and then for its grace")
    else:
        text = _("%(secret)s, until %(ends)s")
    return f"{text % facts} · {_use_since_rotation(secret)}"


def current_as_text(key: APIKey) -> str | _StrPromise:
    """Return the masked current secret of *key*, and what it was used for."""
    secret = key.current_secret
    if secret is None:
        return pgettext("a secret", "none")
    totals = _totals(secret)
    if totals is None:
        return f"{secret.masked} · {_('not used yet')}"
    text = ngettext("%(count)d request", "%(count)d requests", totals.requests)
    return f"{secret.masked} · {text % {'count': totals.requests}}, {_last_use(totals)}"


def _use_since_rotation(secret: APIKeySecret) -> str:
    totals = _totals(secret)
    if totals is None or not totals.in_grace:
        return str(_("not used since the rotation"))
    text = ngettext(
        "%(count)d use since the rotation", "%(count)d uses since the rotation", totals.in_grace
    )
    return f"{text % {'count': totals.in_grace}}, {_last_use(totals)}"


def _last_use(totals: APIKeySecretTotals) -> str:
    facts = {"at": moment_as_text(totals.last_used_at), "address": totals.last_used_ip}
    if not totals.last_used_ip:
        return str(_("the last at %(at)s") % facts)
    return str(_("the last at %(at)s from %(address)s") % facts)


def _totals(secret: APIKeySecret) -> APIKeySecretTotals | None:
    try:
        return secret.totals
    except ObjectDoesNotExist:
        return None


def _previous_id(key: APIKey) -> str:
    secret = key.previous_secret_at(timezone.now())
    return secret.public_id if secret else ""


def _retire(key: APIKey, answers: Answers) -> None:
    # The page showed one secret; after a rotation since then the previous one is another,
    # which may be the one in use.
    if _previous_id(key) not in ("", *answers.seen):
        raise Conflict(_("The secret of this key is another by now: look at the key again."))
    services.retire_secret(
        key=key, actor=answers.actor, authority=answers.authority, reason=answers.reason
    )


RETIRE = Operation(
    name="retire",
    title=_("Retire previous secret"),
    question=_("This secret will be refused from the next request on, for good:"),
    button=_("Retire"),
    done=ngettext_lazy(
        "%(count)d previous secret is retired.",
        "%(count)d previous secrets are retired.",
        "count",
    ),
    log="Retired the previous secret.",
    apply=_retire,
    asks_reason=True,
    shown=previous_as_text,
    seen=_previous_id,
)


class RotatingAdmin(ConfirmedAdmin):
    """The secrets of a key are rotated and retired by whoever may change it.

    Who is no superuser is given a new secret by the policy's word alone, and within the
    ceiling: with it they act as the key's owner.
    """

    def may_rotate(self, request: HttpRequest, key: APIKey) -> bool:
        """Tell whether the user may give *key* a new secret, as it is now."""
        active = key.status_at(timezone.now()) == "active"
        return active and self.lets_in(request, "rotate", key)

    def may_retire(self, request: HttpRequest, key: APIKey) -> bool:
        """Tell whether *key* has a previous secret that the user may end."""
        return self.has_change_permission(request, key) and bool(_previous_id(key))

    def rotate_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask how, and answer with the new secret, once."""
        key = self.key_for(request, "rotate", object_id)
        if key is None:
            return redirect(self.list_url())
        if request.method != "POST":
            return self._ask(request, key, RotationForm(key=key))
        form = RotationForm(request.POST, key=key)
        if form.is_valid():
            try:
                return self._rotate(request, key, form)
            except ChangeRefused as error:
                form.add_error(None, str(error))
        return self._ask(request, key, form)

    def retire_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, and end the previous secret of one key."""
        allowed = self.has_change_permission(request)
        return self._confirm_one(request, RETIRE, str(object_id), allowed=allowed)

    def key_for(self, request: HttpRequest, action: Action, object_id: str) -> APIKey | None:
        """Return the key of a page on which the user does *action*; None: there is no such key.

        Raises PermissionDenied, for want of the permission to change keys or of the policy's.
        """
        if not self.has_change_permission(request):
            raise PermissionDenied
        key: APIKey | None = self.get_object(request, str(object_id))
        if key is None:
            self._say_none(request)
        elif not _lets_in(request, action, key):
            raise PermissionDenied
        return key

    def lets_in(self, request: HttpRequest, action: Action, key: APIKey) -> bool:
        """Tell whether the user may change *key*, and by the policy do *action* with it."""
        return self.has_change_permission(request, key) and _lets_in(request, action, key)

    def answer_with_secret(
        self, request: HttpRequest, issued: services.IssuedSecret, title: str | _StrPromise
    ) -> HttpResponse:
        """Return the page that shows the secret, this once."""
        # The page is the answer to the POST itself: a redirect would need to keep the
        # secret in a session, a cookie or a URL in between.
        response = self._page(
            request,
            "issued",
            title=title,
            key=issued.key,
            secret=issued.secret,
            is_kept=is_kept(issued.key),
            previous=previous_as_text(issued.key) if _previous_id(issued.key) else "",
            back=self._url("change", issued.key.pk),
        )
        patch_secret(response)
        return response

    def _rotate(self, request: HttpRequest, key: APIKey, form: RotationForm) -> HttpResponse:
        # Both or none: a secret is handed out once its history is written, and has committed.
        with transaction.atomic(using=router.db_for_write(APIKey)):
            issued = services.rotate_key(
                key=key,
                actor=Actor.from_request(request),
                authority=authority_in_admin(request),
                **form.validated,
            )
            self.log_change(request, issued.key, "Rotated.")
        return self.answer_with_secret(request, issued, _("API key rotated"))

    def _ask(self, request: HttpRequest, key: APIKey, form: RotationForm) -> HttpResponse:
        if not form.is_bound and key.status_at(timezone.now()) != "active":
            self.message_user(request, _("Only an active key can be rotated."), messages.ERROR)
            return redirect(self._url("change", key.pk))
        fieldsets = [(None, {"fields": ["compromised", "grace_seconds", "starts", "reason"]})]
        adminform = AdminForm(form, fieldsets, {}, model_admin=self)  # type: ignore[arg-type]  # any form
        offspring = APIKey.objects.live_offspring([key]).get(key.pk, 0)
        return self._page(
            request,
            "rotate",
            title=_("Rotate API key"),
            key=key,
            form=form,
            adminform=adminform,
            current=current_as_text(key),
            previous=previous_as_text(key),
            ends=_what_ends(key),
            offspring=offspring,
            offspring_url=f"{self.list_url()}?created_by_key__id__exact={key.pk}",
            back=self._url("change", key.pk),
        )


def _lets_in(request: HttpRequest, action: Action, key: APIKey) -> bool:
    authority = authority_in_admin(request)
    try:
        if authority is not None:
            authority.check(action, key, key)
    except ChangeRefused:
        return False
    return True


def _what_ends(key: APIKey) -> str | _StrPromise:
    """Return what becomes of the two secrets of *key* when it is rotated."""
    if key.current_secret is None or not _previous_id(key):
        return ""
    if key.current_secret.first_used_at is None:
        return _(
            "The current secret was never used: the new one replaces it, and the previous one "
            "lives on with the new grace."
        )
    return _("The previous secret ends with the rotation, and the current one takes its place.")
