"""Addresses and networks, as text and as values."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.utils.functional import _StrPromise

    Address = ipaddress.IPv4Address | ipaddress.IPv6Address
    Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_BRACKETED = re.compile(r"\[([^\[\]]+)\](?::\d{1,5})?")
_IPV4_WITH_PORT = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):\d{1,5}")
_MAPPED_PREFIX_LENGTH = 96


def parse_address(text: str) -> Address | None:
    """Return the address that *text* stands for, None where it is none.

    A port and brackets are taken off, a zone (``%eth0``) too, and an IPv4 address
    mapped into IPv6 is the IPv4 address: else ``::ffff:192.0.2.1`` would walk
    around a list that names ``192.0.2.1``.
    """
    text = text.strip()
    if match := _BRACKETED.fullmatch(text) or _IPV4_WITH_PORT.fullmatch(text):
        text = match[1]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def normalise_network(text: str) -> str:
    """Return *text* in its one written form: a network as ``192.0.2.0/24``, an address bare.

    Raises ValueError, with a message for people, where it is neither.
    """
    text = text.strip()
    network = _parse_network(text)
    return str(network) if "/" in text else str(network.network_address)


def shortened(address: Address) -> str:
    """Return the network of *address* that stands for it where addresses are not kept."""
    length = 24 if address.version == 4 else 48  # noqa: PLR2004 - IPv4
    return str(ipaddress.ip_network((address, length), strict=False))


def contains(networks: Sequence[str], address: Address) -> bool:
    """Tell whether *address* lies in one of *networks*."""
    return any(
        network is not None and network.version == address.version and address in network
        for network in map(_stored_network, networks)
    )


def outside(networks: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return those of *networks* that do not lie within *others*, taken together."""
    wider = [network for text in others if (network := _stored_network(text))]
    joined: list[Network] = [
        *ipaddress.collapse_addresses(n for n in wider if isinstance(n, ipaddress.IPv4Network)),
        *ipaddress.collapse_addresses(n for n in wider if isinstance(n, ipaddress.IPv6Network)),
    ]
    return [
        text
        for text in networks
        if (network := _stored_network(text))
        and not any(_lies_within(network, other) for other in joined)
    ]


def _lies_within(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]  # of one version


def _parse_network(text: str) -> Network:
    # A zone is a name on the machine that saw it, and any text at all.
    if "%" in text:
        raise ValueError(_not_a_network(text))
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(_network_advice(text)) from None
    if (
        isinstance(network, ipaddress.IPv6Network)
        and network.prefixlen >= _MAPPED_PREFIX_LENGTH
        and (mapped := network.network_address.ipv4_mapped)
    ):
        return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX_LENGTH))
    return network


def _network_advice(text: str) -> _StrPromise:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return _not_a_network(text)
    return format_lazy(
        _("“{text}” has host bits set; the network is {network}."), text=text[:50], network=meant
    )


def _not_a_network(text: str) -> _StrPromise:
    shown = text[:50].encode(errors="backslashreplace").decode()
    return format_lazy(_("“{text}” is not an IP address or network."), text=shown)


def _stored_network(value: object) -> Network | None:
    # A row that something else wrote: what cannot be read allows nobody.
    return _readable_network(value) if isinstance(value, str) else None


@lru_cache(maxsize=1024)
def _readable_network(text: str) -> Network | None:
    try:
        return _parse_network(text)
    except ValueError:
        return None
