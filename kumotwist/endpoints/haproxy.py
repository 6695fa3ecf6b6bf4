"""Endpoints that lead through HAProxy, told by a PROXY v2 header where to and from where."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kumotwist.endpoints.addresses import parse_destination, parse_source
from kumotwist.endpoints.connecting import (
    ProxiedEndpoint,
    ReactorlessEndpoint,
    check_timeout,
    describe_endpoint,
)
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.proxy_v2 import Tlv, encode_header
from kumotwist.wire.socks5.client import IPAddress
from kumotwist.wire.socks5.format import Address

__all__ = ["HAProxyClientEndpoint", "haproxyEndpoint"]


class _HeaderNegotiation:
    """Says the header and is done: HAProxy answers nothing."""

    answers = False
    unanswered = False
    login_unused = False
    phase = "connect"
    done = True
    trailing = b""

    def __init__(self, header: bytes, source_address: str, hop: PlannedHop) -> None:
        self._header = header
        self.source_address = source_address

    def start(self) -> bytes:
        return self._header

    def receive(self, data: bytes) -> bytes:
        """Keep what arrives while TLS with HAProxy is completed; it belongs to the stream."""
        self.trailing += data
        return b""


def haproxyEndpoint(
    reactor: IReactorTime,
    server: IStreamClientEndpoint,
    host: str,
    port: int,
    *,
    source: IPAddress | str,
    timeout: float = 60.0,
    server_name: str = "",
    tlvs: Sequence[Tlv] = (),
) -> IStreamClientEndpoint:
    """Wrap the way to an C{accept-proxy} port of HAProxy into the way to a destination.

    HAProxy must be configured to connect from where the header says (C{source 0.0.0.0 usesrc
    clientip}) and to where it says (C{server … 0.0.0.0:0}, or C{set-dst}). It answers nothing, so
    the stream stands as soon as the connection to HAProxy does; whether the destination is there
    shows by its first octet. A stream that ends before that, and was not ended by the application,
    ends with L{SuspectedProxyError}.

    The transport of what is connected provides L{kumotwist.interfaces.IProxiedTransport}:
    C{getPeer()} is the destination, C{getProxy()} the L{ProxyHop}.

    @param reactor: times the connection to HAProxy.
    @param server: the way to HAProxy: TCP, TLS, a Unix socket, another proxy.
    @param host: the destination, an IP address.
    @param source: the address that the stream shall come from, of the same family.
    @param timeout: seconds for connecting to HAProxy.
    @param server_name: HAProxy in errors and in L{ProxyHop.server}; by default the peer.
    @param tlvs: further facts for the header, such as a unique id.
    @raise ValueError: naming the argument that cannot be, and why.
    """
    return _endpoint(
        reactor,
        server,
        host,
        port,
        source=source,
        timeout=timeout,
        server_name=server_name,
        tlvs=tlvs,
    )


def _endpoint(
    reactor: IReactorTime | None,
    server: IStreamClientEndpoint,
    host: str,
    port: int,
    *,
    source: IPAddress | str,
    timeout: float,
    server_name: str = "",
    tlvs: Sequence[Tlv],
) -> ProxiedEndpoint:
    destination = parse_destination(host, port)
    if isinstance(destination.host, str):
        raise ValueError(f"host: {host[:64]!r} is a name; HAProxy must be told an IP address")
    address = parse_source(source)
    header = b""
    if address.version == destination.host.version:
        try:
            header = encode_header(Address(address, 0), destination, tlvs=tlvs)
        except LocalProtocolError as error:
            raise ValueError(f"tlvs: {error}") from None
    return ProxiedEndpoint(
        clock=reactor,
        server=server,
        destination=destination,
        source=address,
        hop=PlannedHop(
            "haproxy", server_name or describe_endpoint(server), str(address), str(destination)
        ),
        timeout=check_timeout(timeout),
        named=bool(server_name),
        negotiate=partial(_HeaderNegotiation, header, str(Address(address, 0))),
    )


class HAProxyClientEndpoint(ReactorlessEndpoint):
    """What L{haproxyEndpoint} makes, as a class; L{ReactorlessEndpoint} says what times it."""

    def __init__(
        self,
        host: str,
        port: int,
        proxyEndpoint: IStreamClientEndpoint,
        source: IPAddress | str,
        *,
        tlvs: Sequence[Tlv] = (),
        reactor: IReactorTime | None = None,
        timeout: float = 60.0,
    ) -> None:
        """
        @param proxyEndpoint: the way to HAProxy.
        @raise ValueError: naming the argument that cannot be, and why.
        """
        super().__init__(
            _endpoint(reactor, proxyEndpoint, host, port, source=source, timeout=timeout, tlvs=tlvs)
        )
