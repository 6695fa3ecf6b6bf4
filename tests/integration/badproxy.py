"""Proxies that are broken, each in its own way, in the test's reactor.

They share no code with the product: what they say is written out as bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.integration.waiting import free_port, until

__all__ = ["CONNECTED", "BadProxy", "start_bad_proxy"]

CONNECTED = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x30\x39"
"""A SOCKS5 reply: succeeded, from 127.0.0.1:12345."""

Step = Callable[["BadProxyProtocol", bytes], None]
"""What is done for each segment that comes; the bytes may be empty when the client connects."""


class BadProxyProtocol(Protocol):
    """One connection to a broken proxy.

    @ivar received: all that came.
    @ivar step: how many segments came.
    """

    transport: ITCPTransport

    def __init__(self, proxy: BadProxy) -> None:
        self.proxy = proxy
        self.received = b""
        self.step = 0
        self.gone = False

    def connectionMade(self) -> None:
        """Count it."""
        self.transport.setTcpNoDelay(True)
        self.proxy.connections.append(self)
        self.proxy.behave(self, b"")

    def dataReceived(self, data: bytes) -> None:
        """Behave badly."""
        self.received += data
        self.step += 1
        self.proxy.behave(self, data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Note the end."""
        self.gone = True

    def drip(self, data: bytes) -> None:
        """Write octet by octet, each in its own segment."""
        if data:
            self.transport.write(data[:1])
            global_reactor.callLater(0.002, self.drip, data[1:])


class BadProxy(ServerFactory):
    """A listening port with a behaviour.

    @ivar connections: every connection so far.
    @ivar port: where it listens on 127.0.0.1.
    """

    noisy = False

    def __init__(self, behave: Step) -> None:
        self.behave = behave
        self.connections: list[BadProxyProtocol] = []
        self.port = free_port()

    def buildProtocol(self, addr: object) -> Protocol:
        """Make the server's side of a connection."""
        return BadProxyProtocol(self)

    async def wait_for_connections(self, number: int = 1) -> None:
        """Wait until so many came."""
        await until(lambda: len(self.connections) >= number, f"{number} connections to the proxy")


def start_bad_proxy(test: TestCase, behave: Step) -> BadProxy:
    """Start a broken proxy; it is gone when the test is over."""
    proxy = BadProxy(behave)
    listening = global_reactor.listenTCP(proxy.port, proxy, interface="127.0.0.1")

    async def stop() -> None:
        await maybeDeferred(listening.stopListening)
        for connection in proxy.connections:
            connection.transport.abortConnection()
        await until(lambda: all(one.gone for one in proxy.connections), "the proxy's end", 5)

    test.addCleanup(stop)
    return proxy
