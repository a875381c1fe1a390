"""What a person may do with a key as it is now: what has a button."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.functional import cached_property

from django_apikeys.authority import Authority
from django_apikeys.exceptions import ChangeRefused, NotPermitted
from django_apikeys.services import kept_secrets, require_revealable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from django_apikeys.models import APIKey
    from django_apikeys.policy import Action


class Remembering(Authority):
    """What a person may do, asked once of each owner: for one page, and for no change."""

    def __init__(self, person: Any) -> None:
        super().__init__(person)
        self._refusals: dict[tuple[Action, Any], NotPermitted | None] = {}
        self._grantable: dict[Any, Collection[str]] = {}

    def require(self, action: Action, owner_id: Any) -> None:
        asked = (action, owner_id)
        if asked not in self._refusals:
            try:
                super().require(action, owner_id)
            except NotPermitted as refusal:
                self._refusals[asked] = refusal
            else:
                self._refusals[asked] = None
        if refused := self._refusals[asked]:
            raise refused

    def grantable(self, owner: Any) -> Collection[str]:
        pk = owner and owner.pk
        if pk not in self._grantable:
            self._grantable[pk] = super().grantable(owner)
        return self._grantable[pk]


@dataclass(frozen=True)
class Abilities:
    """What may be done to *key* at *now*."""

    authority: Authority
    key: APIKey
    now: datetime

    @cached_property
    def change(self) -> bool:
        return self.key.revoked_at is None and self._may("change")

    @cached_property
    def rotate(self) -> bool:
        return self._is_active and self._lies_within("rotate")

    @cached_property
    def reveal(self) -> bool:
        try:
            require_revealable(self.key)
        except ChangeRefused:
            return False
        return self._lies_within("reveal")

    @cached_property
    def copy(self) -> bool:
        """Whether the secret may be revealed, of a key that is known to have it kept."""
        return self._is_active and self._lies_within("reveal")

    @cached_property
    def retire(self) -> bool:
        return self.key.previous_secret_at(self.now) is not None and self._may("rotate")

    @cached_property
    def revoke(self) -> bool:
        return self.key.revoked_at is None and self._may("revoke")

    @cached_property
    def delete(self) -> bool:
        return self._may("delete")

    @property
    def _is_active(self) -> bool:
        return self.key.status_at(self.now) == "active"

    def _may(self, action: Action) -> bool:
        try:
            self.authority.require(action, self.key.owner_id)
        except ChangeRefused:
            return False
        return True

    def _lies_within(self, action: Action) -> bool:
        # The ceiling too, as services will.
        try:
            self.authority.check(action, self.key, self.key)
        except ChangeRefused:
            return False
        return True


def revealable(person: Any, keys: Sequence[APIKey], now: datetime) -> Collection[Any]:
    """Return the primary keys of those of *keys* whose secret *person* may be shown."""
    authority, kept = Remembering(person), kept_secrets(keys)
    possible: Iterable[APIKey] = (key for key in keys if key.pk in kept)
    return {key.pk for key in possible if Abilities(authority, key, now).copy}
