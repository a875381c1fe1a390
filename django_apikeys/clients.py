"""The address that a request comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from django_apikeys.keys.networks import parse_address

if TYPE_CHECKING:
    from django.http import HttpRequest

    from django_apikeys.keys.networks import Address


class ClientResolver(Protocol):
    """Called once for each request with a credential of ours, and where a change is recorded."""

    def __call__(self, request: HttpRequest, /) -> Address | None:
        """Return the client's address; None where it cannot be known.

        With None a key that has an address list is refused.
        """


def remote_address(request: HttpRequest) -> Address | None:
    """Return ``REMOTE_ADDR``; no header that a client could write is read."""
    text = request.META.get("REMOTE_ADDR")
    return parse_address(text) if isinstance(text, str) else None
