"""What keys were used for, drawn as on the owner's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ObjectDoesNotExist
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_apikeys import reports
from django_apikeys.admin.revealing import RevealingAdmin
from django_apikeys.web import charts, words
from django_apikeys.web.usage import usage_of

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from django_apikeys.models import APIKey, APIKeyTotals


class UsedKeyList(ChangeList):
    """A page of keys, each with its requests by day: one query for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if "usage" not in self.list_display:
            return
        # Who goes on with the rows finds these: a queryset is evaluated once.
        keys: list[Any] = list(self.result_list)
        days = reports.daily([key.pk for key in keys], timezone.now()) if keys else {}
        for key in keys:
            key.shown_days = days[key.pk]


class UsedAdmin(RevealingAdmin):
    """The requests of each key in the list, and on its page by day, route, status and address."""

    # Of each, 30 days are added up by the hour: a hundred keys in use all the time took a
    # second and a half, these a third of one.
    list_per_page = 25

    class Media:
        css = {"all": ("django_apikeys/web.css", "django_apikeys/admin.css")}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return UsedKeyList

    @admin.display(description=_("requests"))
    def usage(self, key: APIKey) -> str:
        days = key.shown_days  # type: ignore[attr-defined]  # of UsedKeyList
        drawn = render_to_string("django_apikeys/web/spark.html", {"chart": charts.small(days)})
        markup = '<div class="apikeys apikeys-admin">{} {}</div>'
        return format_html(markup, words.number(self.usage_count(key)), drawn)

    @admin.display(description=_("requests"))
    def usage_count(self, key: APIKey) -> int:
        totals = totals_of(key)
        return totals.requests if totals else 0

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        key = context.get("original")
        if key is not None:
            context["report"] = usage_of(key, timezone.now(), request.GET, anchor="#apikeys-usage")
        return super().render_change_form(request, context, *args, **kwargs)


def totals_of(key: APIKey) -> APIKeyTotals | None:
    """Return the counters of *key*; None where it was never used."""
    try:
        return key.totals
    except ObjectDoesNotExist:
        return None
