"""Client endpoints that reach no network: one that records, one that connects in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectingCancelledError, NoProtocol
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.testing import StringTransport
from twisted.test.iosim import IOPump
from zope.interface import implementer
from zope.interface.verify import verifyClass

from kumotwist.testing.transports import TLSFakeTransport

__all__ = ["MemoryConnection", "MemoryEndpoint", "RecordedConnect", "RecordingEndpoint"]

_SERVER = IPv4Address("TCP", "10.0.5.10", 5000)
_CLIENT = IPv4Address("TCP", "10.0.5.1", 40000)


# -- an endpoint that records --------------------------------------------------------------------


@define(eq=False)
class RecordedConnect:
    """One C{connect} of a L{RecordingEndpoint}, whose outcome the test decides.

    @ivar factory: what was to be connected.
    @ivar deferred: what C{connect} returned.
    @ivar cancelled: whether it was cancelled.
    """

    factory: IProtocolFactory
    deferred: Deferred[IProtocol] = field(init=False)
    cancelled: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.deferred = Deferred(self._cancel)
        self.factory.doStart()

    def accept(
        self, transport: ITransport | None = None, address: IAddress = _SERVER
    ) -> IProtocol | None:
        """Let it succeed: build the protocol and connect it.

        @param transport: by default a L{StringTransport}.
        @return: the protocol; L{None} if the factory had none, and C{deferred} failed.
        """
        protocol = self.factory.buildProtocol(address)
        if protocol is None:
            self.refuse(NoProtocol())
            return None
        protocol.makeConnection(
            StringTransport(peerAddress=address) if transport is None else transport
        )
        self.deferred.callback(protocol)
        return protocol

    def refuse(self, error: Exception) -> None:
        """Let it fail."""
        self.factory.doStop()
        self.deferred.errback(error)

    def _cancel(self, deferred: Deferred[IProtocol]) -> None:
        self.cancelled = True
        self.refuse(ConnectingCancelledError(_SERVER))


@implementer(IStreamClientEndpoint)
class RecordingEndpoint:
    """Connects to nothing and remembers who wanted to connect.

    @ivar connects: a L{RecordedConnect} for each call.
    """

    def __init__(self) -> None:
        self.connects: list[RecordedConnect] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Record the call; the test decides what comes of it."""
        recorded = RecordedConnect(protocolFactory)
        self.connects.append(recorded)
        return recorded.deferred


# -- an endpoint that connects in memory -----------------------------------------------------------


class _ClientTransport(TLSFakeTransport):
    """The client's side: tells the factory when the connection has ended."""

    finished: Callable[[], None] | None = None

    def reportDisconnect(self) -> None:
        super().reportDisconnect()  # type: ignore[no-untyped-call]
        finished, self.finished = self.finished, None
        if finished is not None:
            finished()


@define(eq=False)
class MemoryConnection:
    """One connection of a L{MemoryEndpoint}.

    @ivar server: the protocol at the other end.
    @ivar client_transport: the transport of the endpoint's side.
    @ivar server_transport: the transport of the other end.
    """

    server: Any
    client_transport: TLSFakeTransport
    server_transport: TLSFakeTransport
    _pump: IOPump = field(alias="pump")

    def flush(self) -> None:
        """Move octets both ways until there are none left."""
        self._pump.flush()

    def half_close(self) -> None:
        """Let the server end its direction, as a socket's transport tells its protocol."""
        protocol = self.client_transport.protocol
        if IHalfCloseableProtocol.providedBy(protocol):
            protocol.readConnectionLost()
        else:
            self.server_transport.disconnecting = True


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """Connects to a server in memory.

    @ivar connections: a L{MemoryConnection} for each C{connect} that was carried out.
    @ivar held: a L{RecordedConnect} for each that waits for C{accept}.
    """

    def __init__(
        self,
        clock: IReactorTime,
        server_factory: IProtocolFactory,
        *,
        server_address: IAddress = _SERVER,
        client_address: IAddress = _CLIENT,
        hold: bool = False,
    ) -> None:
        """
        @param clock: the reactor of the transports.
        @param server_factory: builds the server's side of each connection.
        @param hold: whether a C{connect} waits for L{accept}.
        """
        self.connections: list[MemoryConnection] = []
        self.held: list[RecordedConnect] = []
        self._clock = clock
        self._server_factory = server_factory
        self._server_address = server_address
        self._client_address = client_address
        self._hold = hold

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, now or when L{accept} is called."""
        recorded = RecordedConnect(protocolFactory)
        if self._hold:
            self.held.append(recorded)
        else:
            self._establish(recorded)
        return recorded.deferred

    def accept(self) -> None:
        """Carry out the first C{connect} that waits."""
        self._establish(self.held.pop(0))

    def _establish(self, recorded: RecordedConnect) -> None:
        client = recorded.factory.buildProtocol(self._server_address)
        if client is None:
            recorded.refuse(NoProtocol())
            return
        server = self._server_factory.buildProtocol(self._client_address)
        assert server is not None
        mine, theirs = self._client_address, self._server_address
        below = _ClientTransport(client, False, mine, theirs, self._clock)
        below.finished = recorded.factory.doStop
        above = TLSFakeTransport(server, True, theirs, mine, self._clock)
        pump = IOPump(client, server, below, above, False, clock=self._clock)
        self.connections.append(MemoryConnection(server, below, above, pump))
        server.makeConnection(above)
        client.makeConnection(below)
        recorded.deferred.callback(client)


verifyClass(IStreamClientEndpoint, RecordingEndpoint)
verifyClass(IStreamClientEndpoint, MemoryEndpoint)
