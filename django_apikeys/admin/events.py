"""The audit trail in the admin: it is read, and nothing else."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import router
from django.db.models import Q
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_apikeys.admin.filters import (
    ActorKindFilter,
    EventKeyFilter,
    EventTypeFilter,
    TimeFilter,
)
from django_apikeys.admin.tables import LargeTableAdmin, lines_of, moment_as_text
from django_apikeys.models import APIKey, APIKeyEvent, APIKeySecret

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.functional import _StrPromise


@admin.register(APIKeyEvent)
class APIKeyEventAdmin(LargeTableAdmin):
    """What was done to keys, deleted ones included."""

    list_display = (
        "when",
        "type",
        "named",
        "owner_name",
        "actor",
        "address",
    )
    list_filter = (EventTypeFilter, ActorKindFilter, EventKeyFilter, ("at", TimeFilter))
    # Events are only added: their ids are in the order of time, and are an index.
    ordering = ("-id",)
    sortable_by = ()
    search_fields = ("key_name",)  # shows the box; get_search_results does the search
    search_help_text = _("Id or public id of a key, or how its name or masked form begins")
    change_form_template = "admin/django_apikeys/apikeyevent/change_form.html"
    fields = (
        "when",
        "type",
        "key",
        "key_masked",
        "owner_name",
        "owner_id",
        "actor_kind",
        "actor_name",
        "actor_id",
        "address",
        "user_agent",
        "reason",
        "what_changed",
    )
    readonly_fields = fields

    @admin.display(description=_("time"))
    def when(self, event: APIKeyEvent) -> str | _StrPromise:
        return moment_as_text(event.at)

    @admin.display(description=pgettext_lazy("API key", "key"))
    def named(self, event: APIKeyEvent) -> str:
        return lines_of(event.key_name or event.key_id or "", event.key_masked)

    @admin.display(description=_("actor"))
    def actor(self, event: APIKeyEvent) -> str:
        return lines_of(event.actor_name or event.actor_id, event.actor_kind)

    @admin.display(description=pgettext_lazy("API key", "key"))
    def key(self, event: APIKeyEvent) -> str:
        name = event.key_name or str(event.key_id or "")
        if event.key_id is None or not self.admin_site.is_registered(APIKey):
            return name
        url = reverse(
            "admin:django_apikeys_apikey_change",
            args=(event.key_id,),
            current_app=self.admin_site.name,
        )
        return format_html('<a href="{}">{}</a>', url, name)

    @admin.display(description=_("changes"))
    def what_changed(self, event: APIKeyEvent) -> str:
        rows = ((name, *map(_as_text, pair)) for name, pair in event.changes.items())
        return format_html_join(mark_safe("<br>"), "{}: {} → {}", rows)

    def get_queryset(self, request: HttpRequest) -> QuerySet[APIKeyEvent]:
        return APIKeyEvent.objects.using(router.db_for_write(APIKeyEvent)).all()

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[APIKeyEvent], search_term: str
    ) -> tuple[QuerySet[APIKeyEvent], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        with suppress(ValueError):
            return queryset.filter(key_id=uuid.UUID(text)), False
        secrets = APIKeySecret.objects.filter(public_id=text)
        found = Q(key_name__startswith=text) | Q(key_masked__startswith=text)
        return queryset.filter(found | Q(key_id__in=secrets.values("key_id"))), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def _as_text(value: object) -> str:
    return value if value and isinstance(value, str) else json.dumps(value, ensure_ascii=False)
