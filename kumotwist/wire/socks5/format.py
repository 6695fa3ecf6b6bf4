"""What both sides of SOCKS5 share: numbers, reply codes, addresses (RFC 1928, 3 to 6)."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import NamedTuple

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.smtp.replies import one_line

__all__ = [
    "NO_AUTHENTICATION",
    "NO_METHOD",
    "USERNAME_PASSWORD",
    "VERSION",
    "Address",
    "Command",
    "Rep",
    "ip_text",
    "read_address",
    "read_known",
    "unmapped",
]

VERSION = 5
NO_AUTHENTICATION = 0x00
USERNAME_PASSWORD = 0x02
NO_METHOD = 0xFF

_ATYP_IPV4 = 1
_ATYP_NAME = 3
_ATYP_IPV6 = 4

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Command(enum.IntEnum):
    """CMD of a request (RFC 1928, 4)."""

    CONNECT = 1
    BIND = 2
    UDP_ASSOCIATE = 3


class Rep(enum.IntEnum):
    """REP of a reply (RFC 1928, 6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class _HostAndPort(NamedTuple):
    host: IPAddress | str
    port: int


class Address(_HostAndPort):
    """An address and a port, as a request or a reply carries them.

    @ivar host: an IP address, or a host name as text (ASCII; may be empty in a reply).
    @ivar port: 0 to 65535.
    """

    def to_bytes(self) -> bytes:
        """ATYP, address and port (RFC 1928, 5); L{LocalProtocolError} if it cannot be said."""
        if not 0 <= self.port <= 65535:
            raise LocalProtocolError(f"port {self.port} is not between 0 and 65535")
        port = self.port.to_bytes(2, "big")
        if isinstance(self.host, str):
            try:
                name = self.host.encode("ascii")
            except UnicodeEncodeError:
                raise LocalProtocolError(f"host name {self.host!r} is not ASCII") from None
            if not 1 <= len(name) <= 255:
                raise LocalProtocolError(
                    f"a host name of {len(name)} octets (1 to 255 are possible)"
                )
            return bytes((_ATYP_NAME, len(name))) + name + port
        if isinstance(self.host, ipaddress.IPv4Address):
            return b"\x01" + int(self.host).to_bytes(4, "big") + port
        return b"\x04" + self.host.packed + port

    def __str__(self) -> str:
        return self.text

    @cached_property
    def sockaddr(self) -> tuple[str, int]:
        """As the system's calls want it."""
        host = self.host
        return host if isinstance(host, str) else ip_text(host), self.port

    @cached_property
    def text(self) -> str:
        """C{10.0.0.1:25}, C{[2001:db8::1]:25} or C{name:25}; whatever the peer sent for a name, it
        is one line that drives no terminal."""
        host = self.host
        if isinstance(host, ipaddress.IPv6Address):
            return f"[{ip_text(host)}]:{self.port}"
        return f"{one_line(host) if isinstance(host, str) else ip_text(host)}:{self.port}"


#: An IP address as text; making it takes longer than all else of a line in a log.
ip_text: Callable[[IPAddress], str] = lru_cache(4096)(str)


@lru_cache(4096)
def read_known(raw: bytes) -> Address:
    """Read the octets of an IP address, 4 or 16, and of a port, 2.

    The same ones come again and again: those of the hosts that get most of the mail, and one's own;
    and reading them takes longer than all else of a request.
    """
    return Address(ipaddress.ip_address(raw[:-2]), int.from_bytes(raw[-2:], "big"))


class UnknownAddressTypeError(RemoteProtocolError):
    """The peer sent an ATYP that RFC 1928 does not define."""


def read_address(data: bytes | bytearray, offset: int) -> tuple[Address, int] | None:
    """Read ATYP, address and port.

    @param data: what has arrived.
    @param offset: where ATYP stands in it.
    @return: the address and the offset of what follows it, or L{None} while octets are missing.
    @raise UnknownAddressTypeError: for an ATYP other than 1, 3 and 4.
    """
    if len(data) <= offset:
        return None
    kind = data[offset]
    start = offset + 1
    if kind == _ATYP_NAME:
        if len(data) <= start:
            return None
        length = data[start]
        start += 1
    elif kind == _ATYP_IPV4:
        length = 4
    elif kind == _ATYP_IPV6:
        length = 16
    else:
        raise UnknownAddressTypeError(f"address type {kind} is not one of 1, 3 and 4")
    end = start + length
    if len(data) < end + 2:
        return None
    raw = bytes(data[start : end + 2])
    if kind != _ATYP_NAME:
        return read_known(raw), end + 2
    name = raw[:-2].decode("ascii", "backslashreplace")
    return Address(name, int.from_bytes(raw[-2:], "big")), end + 2


def unmapped(address: IPAddress) -> IPAddress:
    """The IPv4 address behind an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2), else itself."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address
