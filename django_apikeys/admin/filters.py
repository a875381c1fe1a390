"""What the lists can be narrowed by: no filter counts, asks per row or lists all owners."""

from __future__ import annotations

import uuid
from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import (
    MultipleObjectsReturned,
    ObjectDoesNotExist,
    ValidationError,
)
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_apikeys.actors import Kind
from django_apikeys.conf import conf
from django_apikeys.keys.restrictions import CURRENT
from django_apikeys.lookups import find_person
from django_apikeys.models import EVENT_TYPES, APIKeySecret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest
    from django.utils.functional import _StrPromise

    from django_apikeys.models import APIKeyQuerySet, Status

STATUS_NAMES: Mapping[Status, _StrPromise] = {
    "active": pgettext_lazy("status of a key", "active"),
    "disabled": pgettext_lazy("status of a key", "disabled"),
    "expired": pgettext_lazy("status of a key", "expired"),
    "revoked": pgettext_lazy("status of a key", "revoked"),
}


class ChoiceFilter(admin.SimpleListFilter):
    """One of its values; another one leads back to the list, and no action is done."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if value is None:
            return queryset
        if value not in dict(self.lookup_choices):
            raise IncorrectLookupParameters(self.parameter_name)
        return self.narrowed(queryset, value)

    @abstractmethod
    def narrowed(self, queryset: Any, value: str) -> QuerySet[Any]:
        """Return the rows of *queryset* that *value* stands for."""


class StatusFilter(ChoiceFilter):
    """Keys by their status now."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return STATUS_NAMES.items()

    def narrowed(self, queryset: APIKeyQuerySet, value: str) -> APIKeyQuerySet:
        return queryset.with_status(cast("Status", value), timezone.now())


class EnvironmentFilter(ChoiceFilter):
    """Keys of one environment."""

    title = _("environment")
    parameter_name = "environment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in conf.ENVIRONMENTS]

    def narrowed(self, queryset: APIKeyQuerySet, value: str) -> APIKeyQuerySet:
        return queryset.filter(environment=value)


class ExpiringFilter(ChoiceFilter):
    """Active keys that end soon."""

    title = pgettext_lazy("filter of keys", "end")
    parameter_name = "expiring"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return (
            ("7", _("within 7 days")),
            ("30", _("within 30 days")),
            ("90", _("within 90 days")),
        )

    def narrowed(self, queryset: APIKeyQuerySet, value: str) -> APIKeyQuerySet:
        now = timezone.now()
        until = now + timedelta(days=int(value))
        # From now on, as "active" says too: a span of the index, without all that is over.
        soon = queryset.filter(expires_at__gt=now, expires_at__lte=until)
        return soon.with_status("active", now)


class UseFilter(ChoiceFilter):
    """Keys that nobody seems to need; one that is younger than the span is not among them."""

    title = pgettext_lazy("filter of keys", "use")
    parameter_name = "unused"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return (
            ("never", _("never used")),
            ("30", _("not used for 30 days")),
            ("90", _("not used for 90 days")),
        )

    def narrowed(self, queryset: APIKeyQuerySet, value: str) -> APIKeyQuerySet:
        first_used = APIKeySecret.objects.filter(key=OuterRef("pk"), first_used_at__isnull=False)
        if value == "never":
            return queryset.filter(~Exists(first_used))
        since = timezone.now() - timedelta(days=int(value))
        # A first use is stored at once, the last one with the next flush of the counters.
        return queryset.filter(
            Q(totals__last_used_at=None) | Q(totals__last_used_at__lt=since),
            ~Exists(first_used.filter(first_used_at__gte=since)),
            created_at__lt=since,
        )


class AgeFilter(ChoiceFilter):
    """Keys by the age of their current secret, which a rotation renews."""

    title = _("age of the secret")
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return (
            ("90", _("over 90 days")),
            ("180", _("over 180 days")),
            ("365", _("over a year")),
        )

    def narrowed(self, queryset: APIKeyQuerySet, value: str) -> APIKeyQuerySet:
        before = timezone.now() - timedelta(days=int(value))
        old = APIKeySecret.objects.filter(key=OuterRef("pk"), slot=CURRENT, created_at__lt=before)
        # No secret is older than its key: the page begins where the first of these keys may be.
        return queryset.filter(Exists(old), created_at__lt=before)


class EventTypeFilter(ChoiceFilter):
    """Events by what was done."""

    title = _("type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(name, name) for name in EVENT_TYPES]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(type=value)


class ActorKindFilter(ChoiceFilter):
    """Events by what did it: a person, a key, a command or the system."""

    title = _("kind of actor")
    parameter_name = "actor_kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return [(kind, kind) for kind in get_args(Kind)]

    def narrowed(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(actor_kind=value)


class TimeFilter(admin.DateFieldListFilter):
    """Events of today, of this month and so on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = _("time")


class TypedFilter(admin.SimpleListFilter):
    """A box to type in: there are too many values to list. An unknown one shows no rows."""

    template = "admin/django_apikeys/typed_filter.html"
    column: ClassVar[str]
    help_text: ClassVar[str | _StrPromise]
    unknown: ClassVar[str | _StrPromise]

    is_unknown = False

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        return ()

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        text = (self.value() or "").strip()
        if not text:
            return queryset
        # NUL is an error to PostgreSQL, whatever is looked up by it.
        found = None if "\x00" in text else self.found(text)
        self.is_unknown = found is None
        return queryset.none() if found is None else queryset.filter(**{self.column: found})

    @abstractmethod
    def found(self, text: str) -> Any:
        """Return what *text* stands for; None where that is nothing."""

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        # Whatever else narrows the list goes on doing so.
        others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            for value in values
            if name != self.parameter_name
        ]
        yield {
            "others": others,
            "text": self.value() or "",
            "without": changelist.get_query_string(remove=[str(self.parameter_name)]),
        }


class OwnerFilter(TypedFilter):
    """By the text that commands take too: whatever the policy finds an owner by."""

    title = _("owner")
    parameter_name = "owner"
    column = "owner"
    help_text = _("As commands name owners.")
    unknown = _("There is no such owner.")

    def found(self, text: str) -> Any:
        try:
            return conf.policy.find_owner(text)
        except (ObjectDoesNotExist, MultipleObjectsReturned, ValidationError, ValueError):
            return None


class CreatorFilter(TypedFilter):
    """By the person who made a key, in whatever way; not by one who did so through a key."""

    title = _("creator")
    parameter_name = "created_by"
    column = "created_by"
    help_text = _("User name or id of who made the key.")
    unknown = _("There is no such user.")

    def found(self, text: str) -> Any:
        try:
            return find_person(text)
        except ObjectDoesNotExist:
            return None


class EventKeyFilter(TypedFilter):
    """Events of one key, deleted or not."""

    title = pgettext_lazy("API key", "key")
    parameter_name = "key_id__exact"
    column = "key_id"
    help_text = _("The id of a key.")
    unknown = _("This is not the id of a key.")

    def found(self, text: str) -> uuid.UUID | None:
        try:
            return uuid.UUID(text)
        except ValueError:
            return None
