"""Whether a key whose secret was right may be used: each check is a value.

The order is that of the contract, and it matters: whoever stands at a wrong
address does not learn that the key is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from django_apikeys.keys import networks

if TYPE_CHECKING:
    from datetime import datetime

    from django_apikeys.keys.networks import Address

CURRENT, PREVIOUS = 0, 1


class Refusal(StrEnum):
    """Why a key whose secret was right is refused; each the ``code`` of the answer."""

    ADDRESS_NOT_ALLOWED = "address_not_allowed"
    RETIRED_SECRET = "retired_secret"  # noqa: S105 - a code, not a secret
    REVOKED_KEY = "revoked_key"
    DISABLED_KEY = "disabled_key"
    EXPIRED_KEY = "expired_key"
    INACTIVE_OWNER = "inactive_owner"


@dataclass(frozen=True, slots=True)
class KeyState:
    """What the refusal of a key depends on."""

    allowed_ips: object
    slot: int | None
    retires_at: datetime | None
    revoked_at: datetime | None
    enabled: bool
    expires_at: datetime | None
    owner_is_active: bool


def refusal(  # noqa: PLR0911 - the order of the contract, a line each
    state: KeyState, address: Address | None, now: datetime
) -> Refusal | None:
    """Return the first reason to refuse, None where there is none. now: aware."""
    if not _address_allowed(state.allowed_ips, address):
        return Refusal.ADDRESS_NOT_ALLOWED
    if is_retired(state.slot, state.retires_at, now):
        return Refusal.RETIRED_SECRET
    if state.revoked_at is not None:
        return Refusal.REVOKED_KEY
    if not state.enabled:
        return Refusal.DISABLED_KEY
    if state.expires_at is not None and state.expires_at <= now:
        return Refusal.EXPIRED_KEY
    if not state.owner_is_active:
        return Refusal.INACTIVE_OWNER
    return None


def is_retired(slot: int | None, retires_at: datetime | None, now: datetime) -> bool:
    """Tell whether a secret has ended; one that waits for the first use of another has not."""
    return slot is None or (retires_at is not None and retires_at <= now)


def ends_at(retires_at: datetime | None, expires_at: datetime | None) -> datetime | None:
    """Return when a secret stops to work: with its own end or its key's; None is never."""
    return min((end for end in (retires_at, expires_at) if end is not None), default=None)


def _address_allowed(allowed: object, address: Address | None) -> bool:
    if allowed == []:
        return True
    # A list that cannot be read allows nobody, and so does an address that cannot.
    if not isinstance(allowed, list) or address is None:
        return False
    return networks.contains(allowed, address)
