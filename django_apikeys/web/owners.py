"""The owners whom a person can choose from: in the list, and for a new key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.functional import cached_property

from django_apikeys.conf import conf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django_apikeys.authority import Authority
    from django_apikeys.policy import Action

# Whoever has more of them names one by its primary key.
MOST_OWNERS = 100


@dataclass(frozen=True)
class Owners:
    """Those for whom *authority* allows *action*; asked once."""

    authority: Authority
    action: Action

    @cached_property
    def first(self) -> Sequence[Any]:
        """One more at most than a page lists."""
        return list(self.authority.owners(self.action)[: MOST_OWNERS + 1])

    @cached_property
    def of_project(self) -> bool:
        """Whether the project itself is among them."""
        return self.authority.may_for_project(self.action)

    @property
    def are_several(self) -> bool:
        return len(self.first) + self.of_project > 1

    @property
    def only(self) -> Any:
        """The only owner there is; None where there are several, or none."""
        return self.first[0] if len(self.first) == 1 else None

    def __bool__(self) -> bool:
        return bool(self.first) or self.of_project

    def widget(
        self, before: Sequence[tuple[str, Any]] = (), after: Sequence[tuple[str, Any]] = ()
    ) -> forms.Widget:
        """Return what one of them is chosen with, between choices that are none of them."""
        if len(self.first) > MOST_OWNERS:
            return forms.TextInput()
        named = [(str(owner.pk), conf.policy.owner_name(owner)) for owner in self.first]
        return forms.Select(choices=[*before, *named, *after])
