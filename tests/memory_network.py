"""A network in memory: a reactor whose TCP connections reach factories of the same test."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.test.iosim import IOPump, connect

from tests.memory_tls import TLSFakeTransport

__all__ = ["MemoryNetwork"]


class _Connector:
    """What a client factory gets in place of a real connector."""

    def __init__(self, network: MemoryNetwork, factory: Any, host: str, port: int) -> None:
        self._network = network
        self._factory = factory
        self._destination = IPv4Address("TCP", host, port)
        self.stopped = False

    def getDestination(self) -> IPv4Address:
        """Where it leads."""
        return self._destination

    def stopConnecting(self) -> None:
        """Give up, as the real one does."""
        if not self.stopped:
            self.stopped = True
            self._factory.clientConnectionFailed(self, Failure(error.UserError()))


class MemoryNetwork(MemoryReactorClock):
    """A reactor on which servers stand at addresses.

    @ivar servers: factories by C{(host, port)}; a callable that is no factory is asked for an
        exception instead, and L{None} for silence.
    @ivar connections: C{(host, port, bind address)} of each attempt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[tuple[str, int], Any] = {}
        self.connections: list[tuple[str, int, Any]] = []
        self._pumps: list[IOPump] = []

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        """Connect at once, fail at once, or be silent until the timeout."""
        self.connections.append((host, port, bindAddress))
        connector = _Connector(self, factory, host, port)
        factory.doStart()
        factory.startedConnecting(connector)
        server = self.servers.get((host, port), error.ConnectionRefusedError)
        if server is None:
            self.callLater(timeout, self._time_out, connector, factory)
        elif IProtocolFactory.providedBy(server):
            self._connect(host, port, factory, server, bindAddress)
        else:
            factory.clientConnectionFailed(connector, Failure(server()))
        return connector

    def _time_out(self, connector: _Connector, factory: Any) -> None:
        if not connector.stopped:
            connector.stopped = True
            factory.clientConnectionFailed(connector, Failure(error.TimeoutError()))

    def _connect(self, host: str, port: int, factory: Any, server: Any, bind: Any) -> None:
        local = IPv4Address("TCP", (bind or ("127.0.0.1", 0))[0], 40000 + len(self.connections))
        remote = IPv4Address("TCP", host, port)
        client_protocol = factory.buildProtocol(remote)
        server_protocol = server.buildProtocol(local)
        assert server_protocol is not None
        client_side = TLSFakeTransport(
            client_protocol, False, hostAddress=local, peerAddress=remote
        )
        server_side = TLSFakeTransport(server_protocol, True, hostAddress=remote, peerAddress=local)
        self._pumps.append(
            connect(server_protocol, server_side, client_protocol, client_side, greet=False)
        )

    def settle(self) -> None:
        """Carry bytes until nobody has anything to say, and run what is due now."""
        quiet = 0
        while quiet < 2:
            moved = False
            for pump in self._pumps:
                moved = bool(pump.pump()) or moved
            Clock.advance(self, 0)
            quiet = 0 if moved else quiet + 1

    def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps, settling after each."""
        while seconds > 0:
            self.advance(min(step, seconds))
            self.settle()
            seconds -= step
