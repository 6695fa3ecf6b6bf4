"""Hosts and addresses as this package takes them and shows them."""

from __future__ import annotations

import ipaddress
import re

from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from kumotwist.wire.socks5.client import IPAddress, unmapped
from kumotwist.wire.socks5.format import Address

__all__ = ["address_text", "parse_destination", "parse_ip", "parse_source", "twisted_address"]

_MAX_HOST_NAME = 255
_NOT_IN_A_NAME = re.compile(r"[\x00-\x20\x7f:/@\[\]{}\\]")


def parse_ip(value: IPAddress | str, argument: str) -> IPAddress:
    """Read an IP address, with or without brackets; an IPv4-mapped one becomes IPv4.

    @raise ValueError: naming the argument and what is wrong with it.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError(
                f"{argument}: {text[:64]!r} is not an IP address (such as 10.0.0.1 or 2001:db8::1)"
            ) from None
    if isinstance(value, ipaddress.IPv6Address) and value.scope_id is not None:
        raise ValueError(f"{argument}: {value} has a zone, which a proxy cannot know")
    return unmapped(value)


def parse_source(value: IPAddress | str) -> IPAddress:
    """Read the address that a stream shall come from.

    @raise ValueError: as L{parse_ip}, and for one that is no machine's: 0.0.0.0, multicast.
    """
    address = parse_ip(value, "source")
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"source: {address} is not the address of one machine")
    return address


def parse_destination(host: str, port: int) -> Address:
    """Read a destination: an IP address, or a host name that the proxy shall resolve.

    A name is never resolved here, also not one that is too long for the proxy to be told
    (CVE-2023-38545 was that mistake).

    @param host: an IP address, or a name; one that is not ASCII becomes A-labels (IDNA 2008).
    @raise ValueError: naming the argument and what is wrong with it.
    """
    if not 1 <= port <= 65535:
        raise ValueError(f"port: {port} is not between 1 and 65535")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare or re.fullmatch(r"[0-9.]+", bare):
        return Address(parse_ip(bare, "host"), port)
    if not host.isascii():
        import idna  # loads tables of a megabyte that most programs never need

        try:
            host = idna.encode(host, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError(f"host: {host[:64]!r} is not a host name: {error}") from None
    if not 1 <= len(host) <= _MAX_HOST_NAME:
        raise ValueError(f"host: a name of {len(host)} octets (1 to 255 are possible)")
    if _NOT_IN_A_NAME.search(host):
        raise ValueError(f"host: {host[:64]!r} is neither an IP address nor a host name")
    return Address(host, port)


def twisted_address(address: Address) -> IAddress:
    """The address as Twisted's C{getPeer} gives it."""
    if isinstance(address.host, str):
        return HostnameAddress(address.host.encode("ascii"), address.port)
    kind = IPv4Address if address.host.version == 4 else IPv6Address
    made: IAddress = kind("TCP", str(address.host), address.port)
    return made


def address_text(address: IAddress) -> str:
    """A Twisted address in one word: C{10.0.5.10:5000}, C{[::1]:5000}, C{unix:/run/proxy}."""
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, HostnameAddress):
        return f"{address.hostname.decode('ascii', 'backslashreplace')}:{address.port}"
    if isinstance(address, UNIXAddress) and address.name is not None:
        name = address.name
        return f"unix:{name if isinstance(name, str) else name.decode('utf-8', 'backslashreplace')}"
    return ""
