"""What is done to one key or to many, once somebody has confirmed it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import django
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy

from django_apikeys import services, validation
from django_apikeys.actors import Actor
from django_apikeys.admin.tables import LargeTableAdmin
from django_apikeys.authority import Authority
from django_apikeys.exceptions import ChangeRefused, InvalidInput
from django_apikeys.models import APIKey

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

# Each is a transaction of its own, in one request, and a field of the form that confirms
# it, of which DATA_UPLOAD_MAX_NUMBER_FIELDS lets in 1 000.
MOST_AT_ONCE = 500
# Its styles are for the one markup, or for the other.
_HAS_LIST_OF_CRUMBS = django.VERSION >= (6, 1)


@dataclass(frozen=True, slots=True)
class Answers:
    """Who confirms, and what they said."""

    actor: Actor
    authority: Authority | None
    reason: str
    cascade: bool
    # What the page that asked said each key was, as far as the operation asks.
    seen: Collection[str] = ()


def _masked(key: APIKey) -> str:
    return key.masked


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done to a key: asked for by ``title`` and ``question``, told by ``done``.

    Each of these is said of a number of keys. apply: raises ChangeRefused. log: in Django's
    history, in English, as everybody reads it; empty where the key leaves the lists. shown:
    what the page that asks says of a key. seen: what it sends back of it, for ``apply`` to
    compare. instead: what does it to more keys than a request bears.
    """

    name: str
    title: Any
    question: Any
    button: Any
    done: Any
    log: str
    apply: Callable[[APIKey, Answers], object]
    asks_reason: bool = False
    asks_cascade: bool = False
    shown: Callable[[APIKey], Any] = _masked
    seen: Callable[[APIKey], str] | None = None
    instead: Any = ""


# Whoever may revoke or delete in the admin may do so with every key: it gives nobody more.
REVOKE = Operation(
    name="revoke",
    title=ngettext_lazy("Revoke API key", "Revoke API keys", "count"),
    question=ngettext_lazy(
        "This key will be refused from the next request on, for good:",
        "These keys will be refused from the next request on, for good:",
        "count",
    ),
    button=_("Revoke"),
    done=ngettext_lazy("%(count)d key is revoked.", "%(count)d keys are revoked.", "count"),
    log="Revoked.",
    apply=lambda key, answers: services.revoke_key(
        key=key, actor=answers.actor, reason=answers.reason, cascade=answers.cascade
    ),
    asks_reason=True,
    asks_cascade=True,
    instead=_(
        "Or use the command: manage.py apikeys revoke takes any number, by --owner, "
        "--created-by or --from-file."
    ),
)
DELETE = Operation(
    name="delete",
    title=ngettext_lazy("Delete API key", "Delete API keys", "count"),
    question=ngettext_lazy(
        "This key will be refused from the next request on, for good, and leave every list. "
        "Its events stay:",
        "These keys will be refused from the next request on, for good, and leave every list. "
        "Their events stay:",
        "count",
    ),
    button=_("Delete"),
    done=ngettext_lazy("%(count)d key is deleted.", "%(count)d keys are deleted.", "count"),
    log="",
    apply=lambda key, answers: services.delete_key(
        key=key, actor=answers.actor, reason=answers.reason
    ),
    asks_reason=True,
)
DISABLE = Operation(
    name="disable",
    title=ngettext_lazy("Disable API key", "Disable API keys", "count"),
    question=ngettext_lazy(
        "This key will be refused from the next request on, until it is enabled:",
        "These keys will be refused from the next request on, until they are enabled:",
        "count",
    ),
    button=_("Disable"),
    done=ngettext_lazy("%(count)d key is disabled.", "%(count)d keys are disabled.", "count"),
    log="Disabled.",
    apply=lambda key, answers: services.update_key(
        key=key, actor=answers.actor, authority=answers.authority, enabled=False
    ),
)
ENABLE = Operation(
    name="enable",
    title=ngettext_lazy("Enable API key", "Enable API keys", "count"),
    question=ngettext_lazy(
        "This key will be let in again from the next request on:",
        "These keys will be let in again from the next request on:",
        "count",
    ),
    button=_("Enable"),
    done=ngettext_lazy("%(count)d key is enabled.", "%(count)d keys are enabled.", "count"),
    log="Enabled.",
    apply=lambda key, answers: services.update_key(
        key=key, actor=answers.actor, authority=answers.authority, enabled=True
    ),
)


def authority_in_admin(request: HttpRequest) -> Authority | None:
    """Return how far the user may go; None is without bounds.

    A superuser may make any key. Whoever else may add or change keys is bound by the
    policy: by a key of an owner who may do more they would act as that owner.
    """
    return None if request.user.is_superuser else Authority(request.user)


class ConfirmedAdmin(LargeTableAdmin):
    """Actions on selected keys, and the same on the page of one, each by its permission."""

    # delete_selected takes the place of Django's own, which deletes rows.
    actions = ("disable_selected", "enable_selected", "revoke_selected", "delete_selected")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        """Tell whether the user may revoke keys; Django asks it for the action."""
        return request.user.has_perm("django_apikeys.revoke_apikey")

    @admin.action(description=_("Disable selected keys"), permissions=["change"])
    def disable_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> Any:
        return self._confirm_selected(request, DISABLE, queryset)

    @admin.action(description=_("Enable selected keys"), permissions=["change"])
    def enable_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> Any:
        return self._confirm_selected(request, ENABLE, queryset)

    @admin.action(description=_("Revoke selected keys"), permissions=["revoke"])
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> Any:
        return self._confirm_selected(request, REVOKE, queryset)

    @admin.action(description=_("Delete selected keys"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[APIKey]) -> Any:
        return self._confirm_selected(request, DELETE, queryset)

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().response_action(request, *args, **kwargs)
        except ValidationError:
            self._say_none(request)
            return None

    def revoke_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask for confirmation, and revoke one key."""
        allowed = self.has_revoke_permission(request)
        return self._confirm_one(request, REVOKE, str(object_id), allowed=allowed)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Ask for confirmation, and delete one key by ``services``."""
        allowed = self.has_delete_permission(request)
        return self._confirm_one(request, DELETE, object_id, allowed=allowed)

    def _page(
        self, request: HttpRequest, template: str, *, status: int = 200, **context: Any
    ) -> TemplateResponse:
        """Return the page of ours that *template* makes, as Django's own views do."""
        request.current_app = self.admin_site.name  # for its URLs
        context = {
            **self.admin_site.each_context(request),
            "media": self.media,
            "opts": self.opts,
            "has_list_of_crumbs": _HAS_LIST_OF_CRUMBS,
            **context,
        }
        path = f"admin/django_apikeys/apikey/{template}.html"
        return TemplateResponse(request, path, context, status=status)

    def list_url(self) -> str:
        """Return the address of the list."""
        return self._url("changelist")

    def _url(self, page: str, *args: Any) -> str:
        return reverse(
            f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}",
            args=args,
            current_app=self.admin_site.name,
        )

    def _confirm_selected(
        self, request: HttpRequest, operation: Operation, queryset: QuerySet[APIKey]
    ) -> HttpResponse | None:
        keys = list(queryset[: MOST_AT_ONCE + 1])
        if not keys:
            self._say_none(request)
        elif len(keys) > MOST_AT_ONCE:
            text = _(
                "At most %(most)d keys at a time: narrow the selection by search and filters."
            )
            said = f"{text % {'most': MOST_AT_ONCE}} {operation.instead}".rstrip()
            self.message_user(request, said, messages.ERROR)
        else:
            # Where this list was narrowed, it is so again afterwards.
            back = request.get_full_path()
            return self._confirm(request, operation, keys, back=back, selected=True)
        return None

    def _confirm_one(
        self, request: HttpRequest, operation: Operation, object_id: str, *, allowed: bool
    ) -> HttpResponse:
        # The page that asks shows the key.
        if not (allowed and self.has_view_permission(request)):
            raise PermissionDenied
        key: APIKey | None = self.get_object(request, object_id)
        if key is None:
            self._say_none(request)
            return redirect(self.list_url())
        page = self._url("change", key.pk)
        answer = self._confirm(request, operation, [key], back=page, selected=False)
        return answer or redirect(page if operation.log else self.list_url())

    def _confirm(
        self,
        request: HttpRequest,
        operation: Operation,
        keys: Sequence[APIKey],
        *,
        back: str,
        selected: bool,
    ) -> HttpResponse | None:
        """Return the page that asks; None once it is done."""
        answers = Answers(
            actor=Actor.from_request(request),
            authority=authority_in_admin(request),
            reason=request.POST.get("reason", ""),
            cascade="cascade" in request.POST,
            seen=request.POST.getlist("seen"),
        )
        problem = _problem_with(answers.reason)
        if "confirmed" in request.POST and not problem:
            self._apply(request, operation, keys, answers)
            return None
        offspring = APIKey.objects.live_offspring(keys) if operation.asks_cascade else {}
        return self._page(
            request,
            "confirm",
            title=operation.title % {"count": len(keys)},
            question=operation.question % {"count": len(keys)},
            operation=operation,
            keys=[(key, operation.shown(key), offspring.get(key.pk, 0)) for key in keys],
            seen=[operation.seen(key) for key in keys] if operation.seen else (),
            key=None if selected else keys[0],
            back=back,
            selected=selected,
            answers=answers,
            problem=problem,
        )

    def _apply(
        self,
        request: HttpRequest,
        operation: Operation,
        keys: Sequence[APIKey],
        answers: Answers,
    ) -> None:
        refused: Counter[str] = Counter()
        # In one order for all: the rows of a request may stay locked until its end.
        for key in sorted(keys, key=lambda key: key.pk):
            try:
                operation.apply(key, answers)
            except ChangeRefused as error:
                refused[str(error)] += 1
            else:
                self._log(request, operation, key)
        if count := len(keys) - refused.total():
            self.message_user(request, operation.done % {"count": count}, messages.SUCCESS)
        for reason, count in refused.items():
            text = ngettext(
                "%(count)d key stays as it is: %(reason)s",
                "%(count)d keys stay as they are: %(reason)s",
                count,
            )
            self.message_user(request, text % {"count": count, "reason": reason}, messages.WARNING)

    def _log(self, request: HttpRequest, operation: Operation, key: APIKey) -> None:
        if operation.log:
            self.log_change(request, key, operation.log)
        else:
            self.log_deletions(request, [key])  # type: ignore[arg-type]  # any iterable of rows

    def _say_none(self, request: HttpRequest) -> None:
        self.message_user(request, _("There are no such keys."), messages.ERROR)


def _problem_with(reason: str) -> str:
    try:
        validation.clean({"reason": reason})
    except InvalidInput as error:
        return " ".join(error.message_dict["reason"])
    return ""
