"""How far a key reaches, and whether one reach lies within another.

Section 4 of the contract has the rule, for keys and for people: what somebody manages
lies within what they have. It is one comparison, ``excess``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING

from django_apikeys.keys import networks
from django_apikeys.keys import scopes as grammar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from django_apikeys.keys.rates import Rate


@dataclass(frozen=True, slots=True)
class Reach:
    """What a key may do, from where, until when and how often.

    allowed_ips: None is everywhere. expires_at: None is never. rate: None is as often as
    one likes.
    """

    scopes: Collection[str]
    allowed_ips: Sequence[str] | None = None
    expires_at: datetime | None = None
    rate: Rate | None = None
    enabled: bool = True


def excess(
    reach: Reach,
    ceiling: Reach,
    registry: Collection[str] | None = None,
    implied: Mapping[str, Collection[str]] | None = None,
) -> Mapping[str, Sequence[str]]:
    """Return what of *reach* is beyond *ceiling*, by the name of the field.

    ceiling: with all that its scopes bring along. registry, implied: as ``scopes.beyond``
    takes them.
    """
    found = {
        "scopes": grammar.beyond(reach.scopes, ceiling.scopes, registry, implied),
        "allowed_ips": _beyond_networks(reach, ceiling),
        "expires_at": _beyond_expiry(reach, ceiling),
        "rate_limit": _beyond_rate(reach, ceiling),
    }
    return {name: texts for name, texts in found.items() if texts}


def widens(before: Reach, after: Reach) -> bool:
    """Tell whether a key that was *before* could do more as *after*."""
    return bool(excess(after, before)) or (after.enabled and not before.enabled)


def _beyond_networks(reach: Reach, ceiling: Reach) -> Sequence[str]:
    if ceiling.allowed_ips is None:
        return ()
    if reach.allowed_ips is None:
        return ("everywhere",)
    return networks.outside(reach.allowed_ips, ceiling.allowed_ips)


def _beyond_expiry(reach: Reach, ceiling: Reach) -> Sequence[str]:
    if ceiling.expires_at is None:
        return ()
    if reach.expires_at is None:
        return ("never",)
    if reach.expires_at <= ceiling.expires_at:
        return ()
    return (reach.expires_at.astimezone(UTC).isoformat(),)


def _beyond_rate(reach: Reach, ceiling: Reach) -> Sequence[str]:
    if ceiling.rate is None:
        return ()
    if reach.rate is None:
        return ("unlimited",)
    return () if reach.rate.lies_within(ceiling.rate) else (str(reach.rate),)
