"""Proxies on a network in memory: a SOCKS5 server as KumoProxy is one, and an HAProxy."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure

from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.socks5.format import Address, Rep
from kumotwist.wire.socks5.server import (
    BindRequest,
    ConnectRequest,
    MethodsOffered,
    SOCKS5Server,
)
from tests.memory_network import MemoryNetwork

__all__ = ["MemoryHAProxy", "MemorySOCKS5"]


class _Outgoing(Protocol):
    """The proxy's connection to a destination."""

    def __init__(self, incoming: _Incoming) -> None:
        self.incoming = incoming

    def connectionMade(self) -> None:
        self.incoming.reached(self)

    def dataReceived(self, data: bytes) -> None:
        self.incoming.transport.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.incoming.transport.loseConnection()


class _OutgoingFactory(ClientFactory):
    noisy = False

    def __init__(self, incoming: _Incoming) -> None:
        self.incoming = incoming

    def buildProtocol(self, addr: Any) -> Protocol:
        return _Outgoing(self.incoming)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.incoming.not_reached()


class _Incoming(Protocol):
    """A client's connection to the proxy."""

    transport: Any
    factory: Any

    def __init__(self) -> None:
        self.outgoing: _Outgoing | None = None
        self.early = b""

    def connect(self, host: str, port: int) -> None:
        """Connect on."""
        self.factory.destinations.append(host)
        self.factory.network.connectTCP(host, port, _OutgoingFactory(self))

    def dataReceived(self, data: bytes) -> None:
        if self.outgoing is not None:
            self.outgoing.transport.write(data)  # type: ignore[union-attr]
        elif not self.factory.hangs:
            self.negotiate(data)

    def negotiate(self, data: bytes) -> None:
        """Take what is said before the stream stands."""
        raise NotImplementedError

    def reached(self, outgoing: _Outgoing) -> None:
        """The destination is there."""
        self.outgoing = outgoing
        if self.early:
            outgoing.transport.write(self.early)  # type: ignore[union-attr]

    def not_reached(self) -> None:
        """The destination is not there."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self.outgoing is not None:
            self.outgoing.transport.loseConnection()  # type: ignore[union-attr]


class _SOCKS5(_Incoming):
    def __init__(self) -> None:
        super().__init__()
        self.machine = SOCKS5Server()
        self.source = Address(ipaddress.ip_address("10.9.9.9"), 0)

    def negotiate(self, data: bytes) -> None:
        self.machine.receive_data(data)
        while (event := self.machine.next_event()) is not NEED_DATA:
            if isinstance(event, MethodsOffered):
                self.transport.write(self.machine.choose_method())
            elif isinstance(event, BindRequest) and self.factory.bind_refusal is None:
                self.source = event.source
                self.transport.write(self.machine.bound(event.source))
            elif isinstance(event, BindRequest):
                self.refuse(self.factory.bind_refusal)
                return
            elif isinstance(event, ConnectRequest) and self.factory.refusal is None:
                host = event.destination.host
                self.factory.sources.append(str(self.source.host))
                self.connect(str(host), event.destination.port)
                return
            else:
                self.refuse(self.factory.refusal)
                return

    def refuse(self, rep: Rep) -> None:
        self.transport.write(self.machine.refuse(rep))
        self.transport.loseConnection()

    def reached(self, outgoing: _Outgoing) -> None:
        self.transport.write(self.machine.connected(Address(self.source.host, 50000)))
        super().reached(outgoing)

    def not_reached(self) -> None:
        if self.factory.closes:
            self.transport.loseConnection()
        else:
            self.refuse(Rep.CONNECTION_REFUSED)


class _HAProxy(_Incoming):
    def negotiate(self, data: bytes) -> None:
        self.early += data
        if len(self.early) < 28 or self.factory.silent:
            return
        length = 16 + int.from_bytes(self.early[14:16], "big")
        header, self.early = self.early[:length], self.early[length:]
        self.factory.sources.append(str(ipaddress.IPv4Address(header[16:20])))
        host = str(ipaddress.IPv4Address(header[20:24]))
        self.connect(host, int.from_bytes(header[26:28], "big"))


class _Proxy(Factory):
    """What both have in common.

    @ivar hangs: takes connections and says nothing.
    @ivar destinations: the addresses that it was asked to connect to.
    @ivar sources: the addresses that it was asked to connect from.
    """

    noisy = False

    def __init__(self, network: MemoryNetwork, host: str, port: int) -> None:
        self.network = network
        self.place = (host, port)
        self.hangs = False
        self.destinations: list[str] = []
        self.sources: list[str] = []
        self.start()

    def start(self) -> None:
        """Listen."""
        self.network.servers[self.place] = self

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.network.servers.pop(self.place, None)

    def vanish(self) -> None:
        """Answer no connection at all from now on."""
        self.network.servers[self.place] = None


class MemorySOCKS5(_Proxy):
    """A SOCKS5 server that chooses the source address by BIND.

    @ivar refusal: what it answers to CONNECT, if it refuses.
    @ivar bind_refusal: what it answers to BIND, if it refuses.
    @ivar closes: does so where a destination refuses, without an answer, like OpenSSH's.
    """

    protocol = _SOCKS5

    def __init__(self, network: MemoryNetwork, host: str, port: int = 1080) -> None:
        super().__init__(network, host, port)
        self.refusal: Rep | None = None
        self.bind_refusal: Rep | None = None
        self.closes = False


class MemoryHAProxy(_Proxy):
    """An HAProxy; it understands IPv4.

    @ivar silent: takes the header and says nothing.
    """

    protocol = _HAProxy

    def __init__(self, network: MemoryNetwork, host: str, port: int = 2526) -> None:
        super().__init__(network, host, port)
        self.silent = False
