"""TCP connections to hosts that are given by address or by name."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

__all__ = ["tcp_endpoint"]


def tcp_endpoint(
    reactor: Any, host: str, port: int, timeout: float, bind_address: str | None = None
) -> IStreamClientEndpoint:
    """An endpoint for a host and a port.

    @param host: an IP address; or a name, which is resolved at each connecting, and each of its
        addresses is tried, the next one beginning 0.3 s after the one before.
    @param timeout: seconds for each address.
    @param bind_address: the local address to connect from.
    """
    bind = None if bind_address is None else (bind_address, 0)
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout, bind)
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, timeout, bind)
    else:
        endpoint = HostnameEndpoint(reactor, host, port, timeout, bind)
    return endpoint
