"""The secret again, in the retrievable mode: asked for on a page of its own, answered once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.db import router, transaction
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.utils.translation import gettext_lazy as _
from django.views.decorators.clickjacking import xframe_options_deny
from django.views.decorators.debug import sensitive_post_parameters

from django_apikeys import logins, services
from django_apikeys.actors import Actor
from django_apikeys.admin.confirmed import authority_in_admin
from django_apikeys.admin.rotation import RotatingAdmin
from django_apikeys.exceptions import ChangeRefused, Conflict, PasswordRequired, Refused
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


class RevealingAdmin(RotatingAdmin):
    """A secret that is kept is shown to whoever may change its key, in a fresh login.

    Who is no superuser needs the policy's word and the ceiling, as for a rotation: with the
    secret they act as the key's owner.
    """

    def may_reveal(self, request: HttpRequest, key: APIKey) -> bool:
        """Tell whether there is a secret of *key* to show, and to this user."""
        try:
            services.require_revealable(key)
        except ChangeRefused:
            return False
        return self.lets_in(request, "reveal", key)

    @method_decorator(sensitive_post_parameters("password"))
    @method_decorator(xframe_options_deny)
    def reveal_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask first, and answer with the secret, once."""
        key = self.key_for(request, "reveal", object_id)
        if key is None:
            return redirect(self.list_url())
        try:
            # Before a password is looked at, which would be asked for in vain.
            services.require_revealable(key)
            if request.method != "POST":
                return self._ask_to_reveal(request, key)
            return self._reveal(request, key)
        except ChangeRefused as error:
            self.message_user(request, str(error), messages.ERROR)
            return redirect(self._url("change", key.pk))

    def _reveal(self, request: HttpRequest, key: APIKey) -> HttpResponse:
        if request.POST.get("seen") != services.last_reveal(key):
            # So whoever finds the browser open, and reloads, is not shown it.
            problem = _("The secret was shown since this page was opened: ask again.")
            return self._ask_to_reveal(request, key, problem, status=Conflict.status)
        try:
            logins.require_fresh(request, logins.typed_password(request))
        except PasswordRequired as error:
            return self._ask_to_reveal(request, key, str(error))
        except Refused as error:
            # Too many wrong passwords, or nobody who counts them.
            response = self._ask_to_reveal(request, key, error.message, status=error.status)
            response["Retry-After"] = str(error.retry_after)
            return response
        # Both or none: a secret is shown once the history says so, and has committed.
        with transaction.atomic(using=router.db_for_write(APIKey)):
            issued = services.reveal_secret(
                key=key, actor=Actor.from_request(request), authority=authority_in_admin(request)
            )
            self.log_change(request, issued.key, "Showed the secret.")
        return self.answer_with_secret(request, issued, _("The secret of this API key"))

    def _ask_to_reveal(
        self, request: HttpRequest, key: APIKey, problem: Any = "", status: int = 200
    ) -> HttpResponse:
        return self._page(
            request,
            "reveal",
            status=status,
            title=_("Show the secret"),
            key=key,
            seen=services.last_reveal(key),
            asks_password=_asks_password(request),
            problem=problem,
            back=self._url("change", key.pk),
        )


def _asks_password(request: HttpRequest) -> bool:
    try:
        logins.require_fresh(request, None)
    except PasswordRequired:
        return True
    return False
