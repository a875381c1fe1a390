"""What a list of keys can be narrowed by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django_filters
from django.utils import timezone

from django_apikeys.models import STATUSES, APIKey

if TYPE_CHECKING:
    from django_apikeys.models import APIKeyQuerySet, Status


class APIKeyFilter(django_filters.FilterSet):
    """``?status=`` and ``?search=``; an unknown value is 400."""

    status = django_filters.ChoiceFilter(
        choices=[(status, status) for status in STATUSES], method="filter_status"
    )
    search = django_filters.CharFilter(method="filter_search", max_length=200)

    class Meta:
        model = APIKey
        fields = ()

    def filter_status(self, keys: APIKeyQuerySet, name: str, value: Status) -> APIKeyQuerySet:
        return keys.with_status(value, timezone.now())

    def filter_search(self, keys: APIKeyQuerySet, name: str, value: str) -> APIKeyQuerySet:
        return keys.search(value)
