"""Connections to an address: like Twisted's endpoints, with nothing left between."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionRefusedError,
    NoProtocol,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kumotwist.endpoints.tcp import AddressEndpoint


@implementer(IHalfCloseableProtocol, IHandshakeListener)
class Application(Protocol):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        """Remember."""
        self.events.append(data)

    def handshakeCompleted(self) -> None:
        """Remember."""
        self.events.append("handshake")

    def readConnectionLost(self) -> None:
        """Remember."""
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        """Remember."""
        self.events.append("write lost")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember."""
        self.events.append(reason.type)


class SocketTransport(StringTransport):
    """Keeps its protocol where Twisted's transports keep it."""

    protocol: Any = None


class AddressEndpointTests(SynchronousTestCase):
    """L{AddressEndpoint}."""

    def setUp(self) -> None:
        """An endpoint, and a connect under way."""
        self.reactor = MemoryReactorClock()
        self.endpoint = AddressEndpoint(self.reactor, "192.0.2.1", 25, 7, "192.0.2.9")
        self.connecting = self.endpoint.connect(Factory.forProtocol(Application))

    def opening(self) -> Any:
        """What the reactor holds for a factory."""
        return self.reactor.tcpClients[-1][2]

    def test_interface(self) -> None:
        """It is a client endpoint."""
        verifyObject(IStreamClientEndpoint, self.endpoint)

    def test_asks_the_reactor(self) -> None:
        """Host, port, timeout and local address go to the reactor."""
        host, port, _, timeout, bind = self.reactor.tcpClients[0]
        self.assertEqual((host, port, timeout, bind), ("192.0.2.1", 25, 7, ("192.0.2.9", 0)))

    def test_steps_aside(self) -> None:
        """What stands is the application's protocol alone on the transport."""
        transport = SocketTransport()
        transport.protocol = self.opening().buildProtocol(None)
        transport.protocol.makeConnection(transport)
        application: Any = self.successResultOf(self.connecting)
        self.assertIsInstance(application, Application)
        self.assertIs(transport.protocol, application)
        self.assertIs(application.transport, transport)

    def test_stays_where_it_must(self) -> None:
        """A transport that remembers the first protocol reaches the application too."""
        protocol: Any = self.opening().buildProtocol(None)
        protocol.makeConnection(StringTransport())
        application: Any = self.successResultOf(self.connecting)
        self.assertTrue(IHalfCloseableProtocol.providedBy(protocol))
        protocol.dataReceived(b"220")
        protocol.handshakeCompleted()
        protocol.readConnectionLost()
        protocol.writeConnectionLost()
        protocol.connectionLost(Failure(ConnectionDone()))
        expected = [b"220", "handshake", "read lost", "write lost", ConnectionDone]
        self.assertEqual(application.events, expected)

    def test_log_prefix(self) -> None:
        """In logs it goes by the application's name."""
        self.assertEqual(self.opening().buildProtocol(None).logPrefix(), "Application")

    def test_fails(self) -> None:
        """The reactor's error is the endpoint's."""
        connector = self.reactor.connectors[0]
        self.opening().clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.failureResultOf(self.connecting, ConnectionRefusedError)

    def test_no_protocol(self) -> None:
        """A factory without a protocol for it lets it fail, and so does one that raises."""
        factory = Factory()
        for build, expected in (
            (lambda _: None, NoProtocol),
            (lambda _: 1 // 0, ZeroDivisionError),
        ):
            factory.buildProtocol = build  # type: ignore[method-assign,assignment]
            connecting = self.endpoint.connect(factory)
            self.assertIsNone(self.opening().buildProtocol(None))
            self.failureResultOf(connecting, expected)

    def test_cancelled(self) -> None:
        """Cancelling ends the connecting, and says so once."""
        connector: Any = self.reactor.connectors[0]
        self.opening().startedConnecting(connector)
        connector.stopConnecting = lambda: self.opening().clientConnectionFailed(
            connector, Failure(ConnectionRefusedError())
        )
        connector._address = self.opening()
        self.connecting.cancel()
        self.failureResultOf(self.connecting, ConnectingCancelledError)

    def test_reactor_raises(self) -> None:
        """What the reactor cannot take is a failure, not an exception."""
        self.reactor.connectTCP = lambda *_: 1 // 0  # type: ignore[method-assign]
        connecting = self.endpoint.connect(Factory.forProtocol(Application))
        self.failureResultOf(connecting, ZeroDivisionError)
