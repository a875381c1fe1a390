"""What lists and reports can be narrowed by; a value that makes no sense is 400."""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING, Any, get_args

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, TextField
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import exceptions
from rest_framework.settings import api_settings

from django_apikeys.actors import Kind
from django_apikeys.authority import authority_of, with_key
from django_apikeys.conf import conf
from django_apikeys.keys.scopes import is_known
from django_apikeys.models import EVENT_TYPES, STATUSES, APIKey, APIKeyEvent, APIKeySecret
from django_apikeys.reports import GRANULARITIES

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from django.db.models import QuerySet
    from rest_framework.request import Request
    from rest_framework.views import APIView

    from django_apikeys.models import APIKeyQuerySet, AppendOnlyQuerySet, Status


# The + of an offset, sent as it is in a URL, arrives as a space.
_LOST_SIGN = re.compile(r"(\S{8,12}[T ]\S{4,24}) (\d\d(?::?\d\d)?)")


class _MomentField(forms.DateTimeField):
    def to_python(self, value: Any) -> datetime | None:
        if isinstance(value, str) and (match := _LOST_SIGN.fullmatch(value)):
            value = "{}+{}".format(*match.groups())
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


class StrictFilterBackend(DjangoFilterBackend):
    """django-filter, where a filter that does not exist is 400."""

    def filter_queryset(
        self, request: Request, queryset: QuerySet[Any], view: APIView
    ) -> QuerySet[Any]:
        # One that is misspelt would list every key, and a script would revoke them all.
        filters = self.get_filterset_class(view, queryset).get_filters()
        known = {*filters, "page", "limit", api_settings.URL_FORMAT_OVERRIDE}
        _refuse_unknown(request, known)
        filtered: QuerySet[Any] = super().filter_queryset(request, queryset, view)
        return filtered


def _refuse_unknown(request: Request, known: Collection[str]) -> None:
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise exceptions.ValidationError(
            {name: [_("There is no such filter.")] for name in unknown}
        )


class ParametersForm(forms.Form):
    """What may stand in the URL of a view that is no list."""

    @classmethod
    def read(cls, request: Request) -> dict[str, Any]:
        """Return the parameters of *request*; one that is not there is None, or empty.

        Raises ValidationError with every bad field, and for one that does not exist.
        """
        form = cls(request.query_params)
        _refuse_unknown(request, {*form.fields, api_settings.URL_FORMAT_OVERRIDE})
        if not form.is_valid():
            raise exceptions.ValidationError(
                {name: [*errors] for name, errors in form.errors.items()}
            )
        return form.cleaned_data


class UsageForm(ParametersForm):
    """Of ``GET keys/{id}/usage/``."""

    to = _MomentField(required=False)
    granularity = forms.ChoiceField(
        required=False, choices=[(name, name) for name in GRANULARITIES]
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["from"] = _MomentField(required=False)  # a word of Python's


class AccountForm(ParametersForm):
    """Of ``GET usage/``."""

    owner = forms.CharField(required=False, max_length=255)


class _OwnersFilter(django_filters.FilterSet):
    """With ``owner``, which is one whom the caller may see."""

    owner = django_filters.CharFilter(method="filter_owner", max_length=255)

    def is_valid(self) -> bool:
        valid: bool = super().is_valid()  # type: ignore[no-untyped-call]  # of the stubs
        for name, problem in self._problems():
            self.form.add_error(name, problem)
            valid = False
        return valid

    def _problems(self) -> list[tuple[str, Any]]:
        owner = self.form.cleaned_data.get("owner")
        if owner and with_key(self._visible_owners(), owner) is None:
            return [("owner", _("There is no such owner."))]
        return []

    def _visible_owners(self) -> QuerySet[Any]:
        return authority_of(self.request).owners("see")


class APIKeyFilter(_OwnersFilter):
    """The filters of ``GET keys/``."""

    status = django_filters.ChoiceFilter(
        choices=[(status, status) for status in STATUSES], method="filter_status"
    )
    environment = django_filters.ChoiceFilter(
        choices=lambda: [(name, name) for name in conf.ENVIRONMENTS]
    )
    scope = django_filters.CharFilter(method="filter_scope", max_length=130)
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

    def _problems(self) -> list[tuple[str, Any]]:
        problems = super()._problems()
        scope = self.form.cleaned_data.get("scope")
        if scope and not is_known(scope, conf.SCOPES):
            problems.append(("scope", _("There is no such scope.")))
        return problems


class APIKeyEventFilter(_OwnersFilter):
    """The filters of ``GET events/``."""

    key = django_filters.UUIDFilter(field_name="key_id")
    type = django_filters.ChoiceFilter(choices=[(name, name) for name in EVENT_TYPES])
    actor = django_filters.ChoiceFilter(
        field_name="actor_kind", choices=[(kind, kind) for kind in get_args(Kind)]
    )
    after = _MomentFilter(field_name="at", lookup_expr="gte")
    before = _MomentFilter(field_name="at", lookup_expr="lt")

    class Meta:
        model = APIKeyEvent
        fields = ()

    def filter_owner(
        self, events: AppendOnlyQuerySet, name: str, value: str
    ) -> AppendOnlyQuerySet:
        # As services writes it, however it was sent: 007, a UUID without its dashes.
        field: Any = self._visible_owners().model._meta.pk
        return events.filter(owner_id=str(field.to_python(value)))
