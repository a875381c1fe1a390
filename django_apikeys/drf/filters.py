"""What a list of keys can be narrowed by; a value that makes no sense is 400."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, TextField
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_apikeys.authority import Authority, with_key
from django_apikeys.conf import conf
from django_apikeys.keys.scopes import is_known
from django_apikeys.models import STATUSES, APIKey, APIKeySecret

if TYPE_CHECKING:
    from datetime import datetime

    from django_apikeys.models import APIKeyQuerySet, Status


class _MomentField(forms.DateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        # What names no zone is meant in UTC, as all that the API says is.
        with timezone.override(UTC):
            moment = super().to_python(value)
        try:
            return None if moment is None else moment.astimezone(UTC)
        except (OverflowError, ValueError) as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from error


class _MomentFilter(django_filters.Filter):
    """An ISO 8601 moment or day that every database can hold."""

    field_class = _MomentField


class _Ordering(django_filters.OrderingFilter):
    """By one column, and by the id where that says nothing: pages must not overlap."""

    def filter(self, qs: APIKeyQuerySet, value: Any) -> APIKeyQuerySet:
        ordered: APIKeyQuerySet = super().filter(qs, value)
        return ordered.order_by(*ordered.query.order_by, "-pk") if value else ordered


class APIKeyFilter(django_filters.FilterSet):
    """The filters of ``GET keys/``."""

    status = django_filters.ChoiceFilter(
        choices=[(status, status) for status in STATUSES], method="filter_status"
    )
    environment = django_filters.ChoiceFilter(
        choices=lambda: [(name, name) for name in conf.ENVIRONMENTS]
    )
    scope = django_filters.CharFilter(method="filter_scope", max_length=130)
    owner = django_filters.CharFilter(method="filter_owner", max_length=255)
    search = django_filters.CharFilter(method="filter_search", max_length=200)
    created_after = _MomentFilter(field_name="created_at", lookup_expr="gte")
    created_before = _MomentFilter(field_name="created_at", lookup_expr="lt")
    last_used_after = _MomentFilter(field_name="totals__last_used_at", lookup_expr="gte")
    last_used_before = _MomentFilter(field_name="totals__last_used_at", lookup_expr="lt")
    expires_before = _MomentFilter(field_name="expires_at", lookup_expr="lt")
    never_used = django_filters.ChoiceFilter(
        choices=[("true", "true"), ("false", "false")], method="filter_never_used"
    )
    ordering = _Ordering(
        fields={
            "name": "name",
            "created_at": "created_at",
            "updated_at": "updated_at",
            "expires_at": "expires_at",
            "totals__last_used_at": "last_used_at",
            "totals__requests": "usage_count",
        }
    )

    class Meta:
        model = APIKey
        fields = ()

    def filter_status(self, keys: APIKeyQuerySet, name: str, value: Status) -> APIKeyQuerySet:
        return keys.with_status(value, timezone.now())

    def filter_scope(self, keys: APIKeyQuerySet, name: str, value: str) -> APIKeyQuerySet:
        # As text: SQLite cannot look into a list. No scope has a quotation mark in it.
        as_text = keys.alias(scopes_as_text=Cast("scopes", TextField()))
        return as_text.filter(scopes_as_text__contains=f'"{value}"')

    def filter_owner(self, keys: APIKeyQuerySet, name: str, value: str) -> APIKeyQuerySet:
        return keys.filter(owner__pk=value)

    def filter_search(self, keys: APIKeyQuerySet, name: str, value: str) -> APIKeyQuerySet:
        return keys.search(value)

    def filter_never_used(self, keys: APIKeyQuerySet, name: str, value: str) -> APIKeyQuerySet:
        used = Exists(APIKeySecret.objects.filter(key=OuterRef("pk"), first_used_at__isnull=False))
        return keys.filter(~used if value == "true" else used)

    def is_valid(self) -> bool:
        valid: bool = super().is_valid()  # type: ignore[no-untyped-call]  # of the stubs
        for name, problem in self._problems():
            self.form.add_error(name, problem)
            valid = False
        return valid

    def _problems(self) -> list[tuple[str, Any]]:
        given = self.form.cleaned_data
        problems: list[tuple[str, Any]] = []
        if given.get("scope") and not is_known(given["scope"], conf.SCOPES):
            problems.append(("scope", _("There is no such scope.")))
        if given.get("owner"):
            visible = Authority(self.request.user).owners("see")
            if with_key(visible, given["owner"]) is None:
                problems.append(("owner", _("There is no such owner.")))
        return problems
