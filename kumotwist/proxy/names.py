"""Addresses of hosts: of one whose name a client gave, and of the client itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from zope.interface import implementer

from kumotwist.settings.types import IPAddress
from kumotwist.wire.socks5.format import unmapped

__all__ = ["client_host", "client_of", "resolve_name"]

#: More addresses of one host than these are not looked at.
_MAX_ADDRESSES = 32


@implementer(IResolutionReceiver)
class _Addresses:
    """Gathers what a resolver finds."""

    def __init__(self) -> None:
        self._found: list[IPAddress] = []
        self.resolved: Deferred[list[IPAddress]] = Deferred()

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to note."""

    def addressResolved(self, address: IAddress) -> None:
        host: Any = getattr(address, "host", None)
        if host is not None and len(self._found) < _MAX_ADDRESSES:
            self._found.append(unmapped(ipaddress.ip_address(host)))

    def resolutionComplete(self) -> None:
        if not self.resolved.called:
            self.resolved.callback(self._found)


def resolve_name(resolver: IHostnameResolver, name: str) -> Deferred[Sequence[IPAddress]]:
    """Find the addresses of a host.

    @param resolver: such as C{reactor.nameResolver}.
    @param name: a host name.
    @return: fires with the addresses in the resolver's order; with none if the host is unknown.
    """
    addresses = _Addresses()
    resolver.resolveHostName(addresses, name)
    return addresses.resolved  # type: ignore[return-value]


def client_of(transport: Any) -> tuple[IPAddress | None, str]:
    """The address of a client, and how a log calls the client.

    @param transport: whose peer it is.
    """
    address: Any = getattr(transport, "accepted_from", None)
    if address is None:  # not one of the proxy's own sockets
        peer = transport.getPeer()
        address = (getattr(peer, "host", None), getattr(peer, "port", 0))
    host = address[0] if isinstance(address, tuple) else None
    if host is None:
        return None, "a local socket"
    client, name = client_host(host)
    return client, f"{name}:{address[1]}"


@lru_cache(4096)
def client_host(host: str) -> tuple[IPAddress, str]:
    """The address of a client, and how a log shows it in front of a port.

    There are few clients with many sessions each, so what was read is remembered.

    @param host: as the system tells it.
    """
    address = unmapped(ipaddress.ip_address(host))
    return address, str(address) if address.version == 4 else f"[{address}]"
