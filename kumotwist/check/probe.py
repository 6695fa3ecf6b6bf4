"""One polite visit to a server, the way that mail goes: greeting, EHLO, QUIT, and nothing else.

It uses the endpoint that L{Source.endpoint} makes for deliveries, and their protocol. What went
wrong is told by the errors of these; nothing is done again here.
"""

from __future__ import annotations

import ipaddress
import socket
import uuid
from types import MappingProxyType
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.check.ways import Way
from kumotwist.endpoints.addresses import address_text
from kumotwist.endpoints.errors import EgressError, ProxyConnectError
from kumotwist.endpoints.hops import PlannedHop, ProxyHop
from kumotwist.interfaces import IProxiedTransport
from kumotwist.settings.types import HostPort, IPAddress
from kumotwist.smtp.client import ESMTPClient, SMTPSessionError, Timeouts
from kumotwist.wire.smtp.replies import Reply

__all__ = ["Probe", "bind_here", "probe", "rehearse"]

#: Seconds for the answer to QUIT.
_FAREWELL = 5.0
#: Beyond the timeout, so that whoever knows more speaks first.
_GRACE = 1.0
#: Documentation addresses (RFC 5737, RFC 3849), for a way that is not gone to its end.
_NOWHERE = MappingProxyType(
    {4: ipaddress.ip_address("192.0.2.1"), 6: ipaddress.ip_address("2001:db8::1")}
)


@attrs.define(frozen=True)
class Probe:
    """What a visit has shown.

    @ivar target: the address and port that were to be reached.
    @ivar proxy_seconds: until the connection to the proxy stood; L{None} if it did not, or if
        there is no proxy that could be timed.
    @ivar seconds: until the connection to the target stood; L{None} if it did not.
    @ivar hop: the proxy, as it is known once the stream stands.
    @ivar left_from: C{ADDR:PORT} that the stream left from, as the proxy or this machine says;
        empty if nobody said.
    @ivar greeting: the first reply.
    @ivar hello: the first line of the answer to EHLO.
    @ivar error: what ended the visit early; L{None} if nothing did.
    """

    target: HostPort
    proxy_seconds: float | None = None
    seconds: float | None = None
    hop: ProxyHop | None = None
    left_from: str = ""
    greeting: Reply | None = None
    hello: str = ""
    error: Exception | None = None


@implementer(IStreamClientEndpoint, IProtocolFactory)
class _Timed:
    """An endpoint, and the factory that it is given, that note how long connecting took.

    @ivar seconds: L{None} before it has succeeded.
    """

    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.seconds: float | None = None
        self._reactor = reactor
        self._began = 0.0
        self._endpoint: Any = None
        self._factory: Any = None

    def around(self, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """Be this endpoint."""
        self._endpoint = endpoint
        return self

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect (L{IStreamClientEndpoint.connect})."""
        self._began = self._reactor.seconds()
        self._factory = protocolFactory
        connecting: Deferred[IProtocol] = self._endpoint.connect(self)
        return connecting

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        """The connection stands. Its Deferred may fire only after all that follows from that."""
        self.seconds = self._reactor.seconds() - self._began
        built: IProtocol | None = self._factory.buildProtocol(addr)
        return built

    def doStart(self) -> None:
        """See L{IProtocolFactory}."""
        self._factory.doStart()

    def doStop(self) -> None:
        """See L{IProtocolFactory}."""
        self._factory.doStop()


class _Visitor(ESMTPClient):
    """The delivery side's protocol, which tells when its connection is gone."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.gone: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)


class _Silent(Protocol):
    """Says nothing, hangs up, and tells when its connection is gone."""

    transport: Any

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self._patience: IDelayedCall | None = None

    def hang_up(self, reactor: Any) -> None:
        """Close; a peer that does not let go is left."""
        self._patience = reactor.callLater(_FAREWELL, self.transport.abortConnection)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is closed."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self.gone.callback(None)


class _VisitorFactory(Factory):
    noisy = False

    def __init__(self, visitor: IProtocol) -> None:
        self._visitor = visitor

    def buildProtocol(self, addr: Any) -> Any:
        return self._visitor


async def probe(
    reactor: Any,
    way: Way,
    address: IPAddress,
    port: int,
    *,
    ehlo_domain: str,
    timeout: float,
) -> Probe:
    """Visit a server.

    @param address: the server's; of the way's family.
    @param ehlo_domain: what to say in EHLO.
    @param timeout: seconds for connecting, and for each reply.
    @return: what it has shown, also if it was not possible; the connection is closed by then.
    """
    stopwatch = _Timed(reactor)
    timeouts = Timeouts(
        connect_timeout=timeout,
        banner_timeout=timeout,
        ehlo_timeout=timeout,
        quit_timeout=min(timeout, _FAREWELL),
    )
    visitor = _Visitor(reactor, hostname=ehlo_domain, timeouts=timeouts, peer_name=str(address))
    found = Probe(HostPort(str(address), port))
    began = reactor.seconds()
    try:
        endpoint = way.source.endpoint(
            reactor,
            address,
            port,
            timeout,
            observe=stopwatch.around,
            session_id=f"check-{uuid.uuid4().hex}",
        )
        connecting = endpoint.connect(_VisitorFactory(visitor))
        await connecting.addTimeout(timeout + _GRACE, reactor)
    except CancelledError:
        raise
    except Exception as error:
        return attrs.evolve(found, proxy_seconds=stopwatch.seconds, error=error)
    hop = _hop(visitor)
    found = attrs.evolve(
        found,
        proxy_seconds=stopwatch.seconds,
        seconds=reactor.seconds() - began,
        hop=hop,
        left_from=_left_from(visitor, hop),
    )
    return await _converse(visitor, found)


async def _converse(visitor: _Visitor, found: Probe) -> Probe:
    failure: SMTPSessionError | None = None
    try:
        await visitor.open()
        visitor.quit()
    except SMTPSessionError as error:
        failure = error
        # After a refusal the protocol says QUIT by itself; otherwise nobody listens any more.
        if error.reply is None:
            visitor.abort()
    await visitor.gone
    return attrs.evolve(
        found, greeting=visitor.greeting, hello=visitor.capabilities.hello, error=failure
    )


def _hop(visitor: Any) -> ProxyHop | None:
    transport: Any = visitor.transport
    return transport.getProxy() if IProxiedTransport.providedBy(transport) else None


def _left_from(visitor: Any, hop: ProxyHop | None) -> str:
    if hop is not None:
        # HAProxy tells nothing: what it was asked for is no answer.
        return "" if hop.protocol == "haproxy" else hop.source_address
    transport: Any = visitor.transport
    return address_text(transport.getHost())


async def rehearse(reactor: Any, way: Way, timeout: float) -> Probe | None:
    """Go a way as far as it leads without a destination (L{Source.rehearsal}), and hang up.

    @return: what that has shown; L{None} if there is nothing on the way.
    """
    stopwatch = _Timed(reactor)
    visitor = _Silent()
    found = Probe(HostPort(way.source.server, 0))
    try:
        nowhere = _NOWHERE[way.address.version if way.address is not None else 4]
        endpoint = way.source.rehearsal(reactor, nowhere, timeout, stopwatch.around)
        if endpoint is None:
            return None
        connecting = endpoint.connect(_VisitorFactory(visitor))
        await connecting.addTimeout(timeout + _GRACE, reactor)
    except CancelledError:
        raise
    except Exception as error:
        return attrs.evolve(found, proxy_seconds=stopwatch.seconds, error=_from_server(way, error))
    hop = _hop(visitor)
    left_from = "" if hop is None else _left_from(visitor, hop)
    visitor.hang_up(reactor)
    await visitor.gone
    return attrs.evolve(found, proxy_seconds=stopwatch.seconds, hop=hop, left_from=left_from)


def bind_here(address: IPAddress) -> OSError | None:
    """Whether a socket of this machine can have an address; nothing is connected.

    @return: why not.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((str(address), 0))
    except OSError as error:
        return error
    return None


def _from_server(way: Way, error: Exception) -> Exception:
    """The error of connecting to a proxy, as the endpoints say it."""
    if isinstance(error, EgressError):
        return error
    hop = PlannedHop(way.source.protocol, way.source.server, "", "")
    return ProxyConnectError(hop, "connect", f"cannot connect to the proxy: {error}", error)
