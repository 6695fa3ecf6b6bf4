"""Which addresses the world can see, and how a server says which one it sees."""

from __future__ import annotations

import ipaddress
import re

from kumotwist.settings.types import IPAddress

__all__ = ["address_seen", "is_translated", "why_not_public"]

_LOCAL = tuple(
    ipaddress.ip_network(text)
    for text in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "::/127", "fe80::/10")
)
#: RFC 1918, RFC 6598 and RFC 4193: translated on the way to the world.
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_LITERAL = re.compile(r"\[(?:ipv6:)?([0-9a-f:.]{2,45})\]", re.IGNORECASE)


def why_not_public(address: IPAddress) -> str:
    """Why nobody outside can see an address; empty if somebody can."""
    if any(address in network for network in _LOCAL):
        return f"{address} never leaves a machine or its link"
    if any(address in network for network in _PRIVATE):
        return f"{address} is a private address"
    return ""


def is_translated(asked: IPAddress, seen: IPAddress) -> bool:
    """Whether a private address and what a peer sees of it fit together: a translator between."""
    return any(asked in network for network in _PRIVATE) and not why_not_public(seen)


def address_seen(hello: str) -> IPAddress | None:
    """The client's address in the first line of an answer to EHLO, if it has one.

    Many servers say it, as an address literal (RFC 5321, 4.1.3): C{mx.example.com greets
    [192.0.2.1]}, C{mx.example.com at your service, [192.0.2.1]}.
    """
    for match in _LITERAL.finditer(hello):
        try:
            address = ipaddress.ip_address(match.group(1))
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address
    return None
