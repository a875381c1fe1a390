"""The address that a request comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from django_apikeys.conf import conf
from django_apikeys.keys.networks import contains, parse_address

if TYPE_CHECKING:
    from django.http import HttpRequest

    from django_apikeys.keys.networks import Address

# More proxies than any request passes; what is further left was written by anybody.
_MOST_HOPS = 32


class ClientResolver(Protocol):
    """Called once for each request with a credential of ours, and where a change is recorded."""

    def __call__(self, request: HttpRequest, /) -> Address | None:
        """Return the client's address; None where it cannot be known.

        With None a key that has an address list is refused.
        """


def client_address(request: HttpRequest) -> Address | None:
    """Return ``REMOTE_ADDR``, or behind APIKEYS_TRUSTED_PROXIES whom they forwarded for.

    ``X-Forwarded-For`` is read from the right, where the nearest proxy wrote, past
    those that are trusted and no further: what stands left of the first address that
    is not trusted may be anybody's invention. It is read only where the connection
    itself comes from a trusted proxy, so that whoever reaches the port directly can
    write there what they like. A count of proxies could not tell the two apart.
    """
    proxies = conf.TRUSTED_PROXIES
    address = _parsed(request.META.get("REMOTE_ADDR"))
    if not proxies or address is None or not contains(proxies, address):
        return address
    forwarded = str(request.META.get("HTTP_X_FORWARDED_FOR", ""))
    for hop in reversed(forwarded.rsplit(",", _MOST_HOPS)[-_MOST_HOPS:] if forwarded else []):
        address = parse_address(hop)
        if address is None or not contains(proxies, address):
            return address
    return address


def _parsed(text: object) -> Address | None:
    return parse_address(text) if isinstance(text, str) else None
