"""TCP connections to hosts that are given by address or by name."""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

__all__ = ["AddressEndpoint", "tcp_endpoint"]


def tcp_endpoint(
    reactor: Any, host: str, port: int, timeout: float, bind_address: str | None = None
) -> IStreamClientEndpoint:
    """An endpoint for a host and a port.

    @param host: an IP address; or a name, which is resolved at each connecting, and each of its
        addresses is tried, the next one beginning 0.3 s after the one before.
    @param timeout: seconds for each address.
    @param bind_address: the local address to connect from.
    """
    if isIPAddress(host) or isIPv6Address(host):
        return AddressEndpoint(reactor, host, port, timeout, bind_address)
    bind = None if bind_address is None else (bind_address, 0)
    named: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port, timeout, bind)
    return named


@implementer(IStreamClientEndpoint)
class AddressEndpoint:
    """TCP connections to an address: what Twisted's endpoints do, with nothing between the
    connection and the protocol once it stands.

    @param reactor: provides C{IReactorTCP}.
    @param host: an IPv4 or IPv6 address.
    @param timeout: seconds for connecting.
    @param bind_address: the local address to connect from.
    """

    def __init__(
        self, reactor: Any, host: str, port: int, timeout: float, bind_address: str | None = None
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._timeout = timeout
        self._bind = None if bind_address is None else (bind_address, 0)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect (L{IStreamClientEndpoint.connect})."""
        opening = _Opening(protocolFactory)
        try:
            self._reactor.connectTCP(self._host, self._port, opening, self._timeout, self._bind)
        except Exception:
            return fail()
        return opening.result


class _Opening(Protocol):
    """One C{connect}: to the reactor the factory, and until the connection stands the protocol.

    Then it steps aside. Where a transport keeps its protocol elsewhere than Twisted's do (those of
    tests), it stays and passes everything on.

    @ivar result: fires with the application's protocol.
    """

    noisy = False

    def __init__(self, factory: IProtocolFactory) -> None:
        self.result: Deferred[IProtocol] = Deferred(self._cancelled)
        self._factory = factory
        self._connector: IConnector | None = None
        self._application: Any = None

    # -- to the reactor, this is a factory -------------------------------------------------------

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def startedConnecting(self, connector: IConnector) -> None:
        self._connector = connector

    def buildProtocol(self, addr: IAddress) -> Protocol | None:
        try:
            application = self._factory.buildProtocol(addr)
            if application is None:
                raise NoProtocol()
        except Exception:
            self.result.errback()
            return None
        self._application = application
        return self

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self.result.called:
            self.result.errback(reason)

    def clientConnectionLost(self, connector: IConnector, reason: Failure) -> None:
        """The application's protocol is told that."""

    def _cancelled(self, result: Deferred[IProtocol]) -> None:
        connector = self._connector
        assert connector is not None  # nobody has the Deferred before
        result.errback(ConnectingCancelledError(connector.getDestination()))
        connector.stopConnecting()

    # -- to the connection, this is a protocol ---------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        application = self._application
        if getattr(transport, "protocol", None) is self:
            transport.protocol = application
        else:
            self._stay(transport)
        application.makeConnection(transport)
        self.result.callback(application)

    def _stay(self, transport: Any) -> None:
        self.transport = transport
        self.connected = 1
        shared = (IHalfCloseableProtocol, IHandshakeListener)
        directlyProvides(self, *(each for each in shared if each.providedBy(self._application)))

    def logPrefix(self) -> str:
        application = self._application
        if ILoggingContext.providedBy(application):
            return str(application.logPrefix())
        return type(application).__name__

    def dataReceived(self, data: bytes) -> None:
        self._application.dataReceived(data)

    def handshakeCompleted(self) -> None:
        self._application.handshakeCompleted()

    def readConnectionLost(self) -> None:
        self._application.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._application.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._application.connectionLost(reason)
