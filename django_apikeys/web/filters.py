"""What the list can be narrowed and sorted by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import F, TextField
from django.db.models.functions import Cast
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_apikeys.authority import with_key
from django_apikeys.conf import conf
from django_apikeys.web.words import STATUS_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from django.db.models.expressions import OrderBy

    from django_apikeys.models import APIKeyQuerySet
    from django_apikeys.web.owners import Owners

_COLUMNS: Mapping[str, str] = {
    "created": "created_at",
    "name": "name",
    "usage": "totals__requests",
    "last_used": "totals__last_used_at",
    "expires": "expires_at",
}
_ORDERS = {
    "-created": _("Newest first"),
    "created": _("Oldest first"),
    "name": _("Name, A to Z"),
    "-name": _("Name, Z to A"),
    "-usage": _("Most used"),
    "usage": _("Least used"),
    "-last_used": _("Last used, newest first"),
    "last_used": _("Last used, oldest first"),
    "expires": _("Expires first"),
    "-expires": _("Expires last"),
}
DEFAULT_ORDER = "-created"
# Each by itself: in many languages it has the gender of what it is said of.
_ALL = {
    "status": pgettext_lazy("keys of every status", "All"),
    "environment": pgettext_lazy("keys of every environment", "All"),
    "scope": pgettext_lazy("keys of every scope", "All"),
    "owner": pgettext_lazy("keys of every owner", "All"),
}


class _Sort(forms.ChoiceField):
    """An order; any that there is none of is the usual one, as nothing is left out by it."""

    def clean(self, value: Any) -> str:
        return value if self.valid_value(value) else ""


class FilterForm(forms.Form):
    """The filters in the URL of the list; one that makes no sense is said beside its field."""

    search = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=200,
        widget=forms.TextInput(
            attrs={
                "type": "search",
                "placeholder": _("Name, description or public id"),
                # A browser puts back what was typed when the list is gone back to: a secret, say.
                "autocomplete": "off",
            }
        ),
    )
    status = forms.ChoiceField(label=_("Status"), required=False)
    environment = forms.ChoiceField(label=_("Environment"), required=False)
    scope = forms.ChoiceField(label=_("Scope"), required=False)
    owner = forms.CharField(label=_("Owner"), required=False, max_length=255)
    sort = _Sort(label=_("Sort"), required=False, choices=list(_ORDERS.items()))

    # The owner that was chosen.
    chosen: Any = None

    def __init__(self, data: Mapping[str, Any], owners: Owners) -> None:
        # What is not there is not asked for; the first choice of a select stands for that.
        super().__init__(data, auto_id="filter_%s")
        self._owners = owners
        self._offer("status", [*STATUS_NAMES.items()])
        self._offer("environment", [(name, name) for name in conf.ENVIRONMENTS])
        self._offer("scope", [(scope, scope) for scope in [*conf.SCOPES, "*"]])
        if owners.are_several:
            self.fields["owner"].widget = owners.widget(before=[("", _ALL["owner"])])
        else:
            del self.fields["owner"]

    @property
    def narrows(self) -> bool:
        """Whether the list shows less than there is."""
        asked = any(self.data.get(name) for name in self.fields if name != "sort")
        return asked or not self.is_valid()

    @property
    def order(self) -> str:
        """The order of the list: a column, with - before it where that is reversed."""
        return self.cleaned_data.get("sort") or DEFAULT_ORDER

    @property
    def columns(self) -> Mapping[str, Mapping[str, str]]:
        """By column: how it is sorted now, as aria-sort says it, and what a click asks for."""
        order = self.order
        found = {}
        for name in _COLUMNS:
            # What is looked for is at one end: names from A on, all else the most first.
            first, second = (
                (name, f"-{name}")
                if name in ("name", "expires")
                else (
                    f"-{name}",
                    name,
                )
            )
            sorted_ = {name: "ascending", f"-{name}": "descending"}.get(order, "")
            found[name] = {"sorted": sorted_, "next": second if order == first else first}
        return found

    def narrowed(self, keys: APIKeyQuerySet, now: datetime) -> APIKeyQuerySet:
        """Return those of *keys* that are asked for, in the order that is."""
        if not self.is_valid():
            return keys.none()
        asked = self.cleaned_data
        if asked["status"]:
            keys = keys.with_status(asked["status"], now)
        if asked["environment"]:
            keys = keys.filter(environment=asked["environment"])
        if asked["scope"]:
            # As text: SQLite cannot look into a list. No scope has a quotation mark in it.
            as_text = keys.alias(scopes_as_text=Cast("scopes", TextField()))
            keys = as_text.filter(scopes_as_text__contains=f'"{asked["scope"]}"')
        if self.chosen is not None:
            keys = keys.filter(owner=self.chosen)
        if asked["search"]:
            keys = keys.search(asked["search"])
        return keys.order_by(self._ordering(), "-pk")

    def clean_owner(self) -> str:
        text: str = self.cleaned_data["owner"]
        if text:
            self.chosen = with_key(self._owners.authority.owners(self._owners.action), text)
            if self.chosen is None:
                raise ValidationError(_("There is no such owner."))
        return text

    def _ordering(self) -> OrderBy:
        order = self.order
        column = F(_COLUMNS[order.removeprefix("-")])
        # A key that was never used, or never ends, is at the same end on every database.
        first = order in ("usage", "last_used", "-expires") or None
        last = order in ("-usage", "-last_used", "expires") or None
        if order.startswith("-"):
            return column.desc(nulls_first=first, nulls_last=last)
        return column.asc(nulls_first=first, nulls_last=last)

    def _offer(self, name: str, choices: list[tuple[str, Any]]) -> None:
        self.fields[name].choices = [("", _ALL[name]), *choices]  # type: ignore[attr-defined]  # a ChoiceField
