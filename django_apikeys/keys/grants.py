"""What a verified key hands on to the view."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from django_apikeys.keys import scopes as grammar
from django_apikeys.keys.restrictions import ends_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID


class Loader(Protocol):
    """Called at most once each, when a view touches ``grant.owner`` or ``grant.key``."""

    def owner(self, grant: Grant) -> Any:
        """Return the owner's row, None for a key of the project itself."""

    def key(self, grant: Grant) -> Any:
        """Return the key's row."""


@dataclass(frozen=True)
class Grant:
    """A key whose secret has just been verified; ``request.auth`` of its request.

    secret_id: of the row of the secret that was sent. rate_limit: the key's own, plan_rate
    and quota those of its owner's plan: ``300/m``, units in a calendar month; None is as
    much as one likes. expires_at: of the key, retires_at: of the secret that was sent, where
    it is in its grace.
    """

    key_id: UUID
    public_id: str
    name: str
    environment: str
    scopes: frozenset[str]
    owner_id: Any
    plan: str | None
    masked: str
    secret_id: int = 0
    allowed_ips: tuple[str, ...] = ()
    rate_limit: str | None = None
    plan_rate: str | None = None
    quota: int | None = None
    expires_at: datetime | None = None
    retires_at: datetime | None = None
    in_grace: bool = False
    implied_scopes: Mapping[str, Collection[str]] = field(
        default_factory=dict, repr=False, compare=False
    )
    loader: Loader | None = field(default=None, repr=False, compare=False)

    @property
    def ends_at(self) -> datetime | None:
        """When the secret that was sent stops to work; None is never, or not known yet."""
        return ends_at(self.retires_at, self.expires_at)

    def has_scope(self, *required: str) -> bool:
        """Tell whether the key may do all of *required*."""
        return grammar.covers(self.scopes, required, self.implied_scopes)

    @cached_property
    def owner(self) -> Any:
        """The owner's row, loaded now; None for a key of the project itself."""
        return None if self.loader is None else self.loader.owner(self)

    @cached_property
    def key(self) -> Any:
        """The key's row, loaded now."""
        return None if self.loader is None else self.loader.key(self)
