"""Our SOCKS5 endpoint through servers that we did not write, and through our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kumotwist.endpoints import EgressError, SuspectedProxyError, socks5Endpoint
from kumotwist.interfaces import IProxiedTransport
from tests.integration import parts
from tests.integration.program import start_plugin
from tests.integration.ssh import start_ssh_socks
from tests.integration.waiting import free_port

BANNER = b"220 mx.example ESMTP\r\n"
MEGABYTE = b"0123456789abcdef" * 65536


class Greeter(Protocol):
    """A destination: a banner, then everything comes back."""

    def connectionMade(self) -> None:
        """Greet at once, so that the banner may stick to the proxy's reply."""
        assert self.transport is not None
        self.transport.write(BANNER)

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        assert self.transport is not None
        self.transport.write(data)


class Counting(Protocol):
    """A client that gathers what comes until it has so much."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.wanted = 0
        self.enough: Deferred[bytes] | None = None

    def exactly(self, number: int) -> Deferred[bytes]:
        """Fires with so many octets."""
        self.wanted = number
        self.enough = Deferred()
        self._look()
        return self.enough

    def dataReceived(self, data: bytes) -> None:
        """Gather."""
        self.data += data
        self._look()

    def _look(self) -> None:
        if self.enough is not None and len(self.data) >= self.wanted:
            enough, self.enough = self.enough, None
            taken = bytes(self.data[: self.wanted])
            del self.data[: self.wanted]
            enough.callback(taken)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whoever waits does so in vain."""
        if self.enough is not None:
            self.enough.errback(reason)


class ServersTests(TestCase):
    """A banner, a megabyte there and back, and the refusal of a source."""

    timeout = 60.0

    def setUp(self) -> None:
        """Start the destination."""
        self.reactor: Any = reactor
        factory: Any = Factory.forProtocol(Greeter)
        self.port: Any = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        address: Any = self.port.getHost()
        self.target: int = address.port

    def through(self, server: int, **options: Any) -> Any:
        """The endpoint through a server on 127.0.0.1."""
        way = TCP4ClientEndpoint(self.reactor, "127.0.0.1", server)
        return socks5Endpoint(self.reactor, way, "127.0.0.1", self.target, timeout=20, **options)

    async def converse(self, endpoint: Any) -> Any:
        """Connect and talk; return what the transport knows of the proxy."""
        factory: Any = Factory.forProtocol(Counting)
        protocol: Any = await endpoint.connect(factory)
        self.assertEqual(await protocol.exactly(len(BANNER)), BANNER)
        protocol.transport.write(MEGABYTE)
        self.assertEqual(await protocol.exactly(len(MEGABYTE)), MEGABYTE)
        peer: Any = protocol.transport.getPeer()
        self.assertEqual((peer.host, peer.port), ("127.0.0.1", self.target))
        hop = IProxiedTransport(protocol.transport).getProxy()
        protocol.transport.loseConnection()
        return hop

    async def assert_no_source(self, server: int) -> None:
        """A server that cannot choose the source fails, and is blamed."""
        endpoint = self.through(server, source="127.0.0.77")
        factory: Any = Factory.forProtocol(Counting)
        error = await self.assertFailure(endpoint.connect(factory), EgressError)
        self.assertEqual(error.blames, "proxy")

    async def test_ssh(self) -> None:
        """C{ssh -D} carries the stream; it does not do BIND, and where a destination refuses it
        closes without an answer, which is only suspicious."""
        _, server = await start_ssh_socks(self)
        await self.converse(self.through(server))
        await self.assert_no_source(server)
        await self.port.stopListening()
        factory: Any = Factory.forProtocol(Counting)
        connecting = self.through(server).connect(factory)
        error = await self.assertFailure(connecting, SuspectedProxyError)
        self.assertEqual((error.phase, error.ambiguous), ("connect-request", True))

    async def test_dante(self) -> None:
        """Dante carries the stream; its BIND binds another address."""
        _, server = await parts.start_dante(self)
        await self.converse(self.through(server))
        await self.assert_no_source(server)

    async def test_microsocks(self) -> None:
        """microsocks carries the stream; it refuses BIND."""
        _, server = await parts.start_microsocks(self)
        await self.converse(self.through(server))
        await self.assert_no_source(server)

    async def test_kumoproxy(self) -> None:
        """KumoProxy carries the stream from the source that was asked for."""
        server = free_port()
        path = Path(self.mktemp()).absolute()
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                f"[proxy:main]\nlisten = 127.0.0.1:{server}\n"
                "[proxy-rule:trial]\ndestinations = 127.0.0.0/8\nports = 1024-65535\n"
                "action = allow\n"
            )
        await start_plugin(self, "kumoproxy", ["-c", str(path)], server)
        hop = await self.converse(self.through(server, source="127.0.0.77"))
        self.assertEqual(hop.source_address.partition(":")[0], "127.0.0.77")
        text = f"socks5:127.0.0.1:{self.target}:server=127.0.0.1\\:{server}:source=127.0.0.78"
        hop = await self.converse(clientFromString(self.reactor, text))
        self.assertEqual(hop.source_address.partition(":")[0], "127.0.0.78")
