"""What a request used: noted when its key is verified, counted when it was answered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from django_apikeys import logs
from django_apikeys.batches import OTHER, Hit
from django_apikeys.conf import conf
from django_apikeys.keys import networks

if TYPE_CHECKING:
    import uuid
    from datetime import date, datetime

    from django.http import HttpRequest

    from django_apikeys.batches import Outcome
    from django_apikeys.keys.grants import Grant
    from django_apikeys.keys.networks import Address

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_ROUTE_LENGTH = 200


@dataclass(slots=True)
class Use:
    """Which key a request was verified for; on the HttpRequest, also of one that was refused.

    outcome: how it was refused; None: as the status of the answer says. month, units,
    quota: what it cost of the owner's quota. totalled, in_grace: as of a Hit. counted: handed
    to the recorder. grant: where only its scopes, or the limits, may be in the way.
    """

    key_id: uuid.UUID
    secret_id: int
    owner_id: str
    at: datetime
    address: Address | None
    outcome: Outcome | None = None
    month: date | None = None
    units: int = 0
    quota: int | None = None
    totalled: bool = False
    counted: bool = False
    in_grace: bool = False
    grant: Grant | None = None


def note(request: HttpRequest, use: Use) -> None:
    """Keep *use* until *request* is answered.

    One that is verified again is counted once, by what came of it last. What it has cost
    it has cost once, before: limits are not asked again.
    """
    if earlier := noted(request):
        use.month, use.units, use.quota = earlier.month, earlier.units, earlier.quota
        use.totalled, use.counted = earlier.totalled, earlier.counted
    request.apikeys_use = use  # type: ignore[attr-defined]  # our own


def noted(request: HttpRequest) -> Use | None:
    """Return what *request* used; None where no key was verified for it."""
    return getattr(request, "apikeys_use", None)


def record(request: HttpRequest, status: int) -> None:
    """Hand what *request* used, answered with *status*, to the recorder, once. Never raises."""
    use = noted(request)
    if use is None or use.counted:
        return
    use.counted = True
    try:
        conf.usage_recorder.count(_hit(request, use, status))
    except Exception:  # noqa: BLE001 - the answer is there: counting must not lose it
        logs.once_a_minute("count", "A request with an API key was not counted.", exc_info=True)


def _hit(request: HttpRequest, use: Use, status: int) -> Hit:
    match = request.resolver_match
    return Hit(
        use.key_id,
        use.secret_id,
        use.owner_id,
        use.at,
        # The pattern, not the path, so that ids do not multiply rows.
        _route(match.route) if match else "",
        request.method if request.method in _METHODS else OTHER,
        use.outcome or _OUTCOMES.get(status // 100, "5xx"),
        stored_address(use.address),
        use.month,
        use.units,
        use.quota,
        use.totalled,
        use.in_grace,
    )


_OUTCOMES: dict[int, Outcome] = {2: "2xx", 3: "3xx", 4: "4xx", 5: "5xx"}


@lru_cache(maxsize=4096)
def _route(pattern: str) -> str:
    # What each database holds: no NUL, no half of a surrogate pair.
    text = pattern.replace("\x00", "").encode(errors="replace").decode()
    return text[:_ROUTE_LENGTH]


def stored_address(address: Address | None) -> str:
    """Return *address* as APIKEYS_STORE_ADDRESSES lets it be kept; empty: not at all."""
    how = conf.STORE_ADDRESSES
    return "" if address is None or how is False else _text(address, how)


@lru_cache(maxsize=4096)
def _text(address: Address, how: Literal[True, "network"]) -> str:
    # Without a zone, which a resolver of the host's own may have left: it is any text.
    return networks.shortened(address) if how == "network" else str(address).partition("%")[0]
