"""What every page is: behind a login, in nobody's cache or frame, without inline code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib.auth.decorators import login_required
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.functional import cached_property
from django.utils.translation import get_language, gettext, gettext_noop
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect

from django_apikeys.actors import Actor
from django_apikeys.authority import Authority
from django_apikeys.exceptions import ChangeRefused, Refused
from django_apikeys.paging import BoundedPaginator
from django_apikeys.web import csp
from django_apikeys.web.abilities import Abilities, Remembering
from django_apikeys.web.shown import ShownKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.core.paginator import Page as PageOfRows
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from django_apikeys.models import APIKey
    from django_apikeys.policy import Action

ON_A_PAGE = 20
# Of the list: a catalogue that has this has the others.
INTRO = gettext_noop("Programs call the API with these keys, each within its scopes.")


def page_of(request: HttpRequest, rows: QuerySet[Any]) -> PageOfRows[Any]:
    """Return the page of *rows* that ``?page=`` asks for; the nearest where there is none."""
    return BoundedPaginator(rows, ON_A_PAGE).get_page(request.GET.get("page"))


class Page(View):
    """A page; what ``services`` or the policy refuse is told with their status."""

    http_method_names = ["get", "head", "post", "options"]

    @cached_property
    def authority(self) -> Authority:
        """What the person may do."""
        return Authority(self.request.user)

    @method_decorator([never_cache, login_required, csrf_protect])
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        with translation.override(self.language):
            response = self._answer(request, *args, **kwargs)
        csp.send_strict(request, response)
        response["X-Frame-Options"] = "DENY"
        return response

    def _answer(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            self.require()
            return super().dispatch(request, *args, **kwargs)
        except ChangeRefused as error:
            return self.refused(error, str(error))
        except Refused as error:
            # Too many wrong passwords, or nobody who counts them.
            response = self.refused(error, str(error.message))
            response["Retry-After"] = str(error.retry_after)
            return response

    def require(self) -> None:
        """Raise NotPermitted or Http404 where the person has no business here."""

    @cached_property
    def language(self) -> str:
        """The language of the page: English where there are no texts in that of the request."""
        own = get_language() or "en"
        return own if own.partition("-")[0] == "en" or gettext(INTRO) != INTRO else "en"

    def page(self, template: str, *, status: int = 200, **context: Any) -> TemplateResponse:
        """Return the page that *template* makes."""
        return TemplateResponse(
            self.request,
            f"django_apikeys/web/{template}.html",
            {**self.context(), **context},
            status=status,
        )

    def context(self) -> dict[str, Any]:
        """Return what the templates of this page have in common."""
        return {"now": timezone.now(), "apikeys_language": self.language}

    def refused(self, error: ChangeRefused | Refused, problem: str) -> HttpResponseBase:
        """Return the page that says why nothing was done."""
        return self.page("refused", status=error.status, problem=problem)

    @property
    def caller(self) -> dict[str, Any]:
        """Who asks, as ``services`` take it."""
        return {"actor": Actor.from_request(self.request), "authority": self.authority}


class KeyPage(Page):
    """A page of one key that the person may see; any other is 404."""

    action: Action = "see"

    @cached_property
    def key(self) -> APIKey:
        """The key of the URL."""
        return get_object_or_404(self.authority.visible_keys(), pk=self.kwargs["pk"])

    def require(self) -> None:
        owner_id = self.key.owner_id
        if self.action != "see":
            self.authority.require(self.action, owner_id)

    def context(self) -> dict[str, Any]:
        context: Mapping[str, Any] = super().context()
        now = context["now"]
        return {
            **context,
            "key": ShownKey(self.key, now),
            "can": Abilities(Remembering(self.request.user), self.key, now),
        }
