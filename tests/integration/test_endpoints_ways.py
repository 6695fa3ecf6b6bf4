"""The ways to a proxy that endpoint strings can name, with real TLS, real sockets, real proxies.

HAProxy ends the TLS, or listens on the Unix socket, and passes on to microsocks, to tinyproxy, and
to a listener of its own that takes PROXY headers.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import trustme
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kumotwist.endpoints import ProxyConnectError, haproxyEndpoint, server_endpoint
from kumotwist.interfaces import IProxiedTransport
from kumotwist.wire.proxy_v2 import Tlv, TlvType
from tests.integration import parts
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import free_port

_CONFIGURATION = """\
global
    log stdout format raw local0

defaults
    mode tcp
    timeout connect 10s
    timeout client 30s
    timeout server 30s

listen headers
    log global
    log-format "facts <%[fc_pp_authority]> <%[fc_pp_unique_id]>"
    bind 127.0.0.1:1 accept-proxy
    bind unix@{headers} accept-proxy
    server any 0.0.0.0:0 source 0.0.0.0 usesrc clientip
"""

_FRONT = """
listen {name}
    bind 127.0.0.1:{port} ssl crt {directory}/proxy.pem ca-file {directory}/ca.pem verify required
    bind unix@{socket}
    server any {behind}
"""

HAPROXY = "haproxy"
KINDS = ("socks5", "http-connect", HAPROXY)


class Banner(Protocol):
    """Waits for the destination's first octets."""

    def __init__(self) -> None:
        self.first: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        """Tell them."""
        if not self.first.called:
            self.first.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell that there will be none."""
        if not self.first.called:
            self.first.errback(reason)


class WaysTests(TestCase):
    """Each kind of proxy, over TLS and over a Unix socket."""

    async def start(self) -> Sink:
        """Start everything; the sink is the destination."""
        sink = start_sink(self)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        # The name of a Unix socket is short by law.
        self.sockets = Path(tempfile.mkdtemp(prefix="ways"))
        self.addCleanup(shutil.rmtree, self.sockets)
        self.write_certificates()
        headers = self.sockets / "headers"
        behind = {
            "socks5": f"127.0.0.1:{(await parts.start_microsocks(self))[1]}",
            "http-connect": f"127.0.0.1:{(await parts.start_tinyproxy(self, sink.port))[1]}",
            HAPROXY: f"unix@{headers}",
        }
        self.ports = {kind: free_port() for kind in KINDS}
        text = _CONFIGURATION.replace("{headers}", str(headers)) + "".join(
            _FRONT.format(
                name=f"front-{kind}",
                port=self.ports[kind],
                directory=self.directory,
                socket=self.sockets / kind,
                behind=behind[kind],
            )
            for kind in KINDS
        )
        self.haproxy, self.headers = await parts.start_haproxy(self, text)
        return sink

    def write_certificates(self) -> None:
        """The proxy's certificate, for the name localhost, ours, and an authority of no use."""
        authority = trustme.CA()
        proxy = authority.issue_cert("localhost")
        proxy.private_key_and_cert_chain_pem.write_to_path(str(self.directory / "proxy.pem"))
        mine = authority.issue_cert("mta.example.test")
        mine.private_key_pem.write_to_path(str(self.directory / "key.pem"))
        mine.cert_chain_pems[0].write_to_path(str(self.directory / "cert.pem"))
        authority.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        trustme.CA().cert_pem.write_to_path(str(self.directory / "other.pem"))

    def tls(self, kind: str, *, host: str = "localhost", ca: str = "ca", mine: bool = True) -> str:
        """The string of the way to a proxy over TLS."""
        way = f"tls:{host}:{self.ports[kind]}:trustRoots={self.directory}/{ca}.pem"
        if mine:
            way += f":certificate={self.directory}/cert.pem:privateKey={self.directory}/key.pem"
        return way

    def connect(self, kind: str, way: str, sink: Sink) -> Deferred[Any]:
        """Connect to the sink through a proxy of that kind."""
        text = f"{kind}:127.0.0.1:{sink.port}:server={quoteStringArgument(way)}:timeout=20"
        if kind == HAPROXY:
            text += ":source=127.0.0.42"
        endpoint = clientFromString(reactor, text)
        connecting: Deferred[Any] = endpoint.connect(Factory.forProtocol(Banner))
        return connecting

    async def assert_banner(self, protocol: Any, kind: str) -> None:
        """The destination speaks, and the transport knows the way."""
        self.assertTrue((await protocol.first).startswith(b"220 "))
        self.assertTrue(IProxiedTransport.providedBy(protocol.transport))
        self.assertEqual(protocol.transport.getProxy().protocol, kind)
        protocol.transport.abortConnection()

    async def test_tls(self) -> None:
        """The proxy's certificate is checked by our authority, and ours by the proxy."""
        sink = await self.start()
        for kind in KINDS:
            await self.assert_banner(await self.connect(kind, self.tls(kind), sink), kind)

    async def test_tls_that_fails(self) -> None:
        """Another name, an unknown authority, no certificate of ours: the proxy is unreachable."""
        sink = await self.start()
        for kind in ("socks5", "http-connect"):
            for way in (
                self.tls(kind, host="127.0.0.1"),
                self.tls(kind, ca="other"),
                self.tls(kind, mine=False),
            ):
                error = await self.assertFailure(self.connect(kind, way, sink), ProxyConnectError)
                self.assertEqual((error.phase, error.blames), ("tls", "proxy"), way)
        for way in (self.tls(HAPROXY, host="127.0.0.1"), self.tls(HAPROXY, ca="other")):
            error = await self.assertFailure(self.connect(HAPROXY, way, sink), ProxyConnectError)
            self.assertEqual((error.phase, error.blames), ("tls", "proxy"), way)
        self.assertEqual(sink.sessions, [])

    async def test_unix(self) -> None:
        """The proxy listens on a Unix socket."""
        sink = await self.start()
        for kind in KINDS:
            protocol = await self.connect(kind, f"unix:{self.sockets / kind}", sink)
            self.assertEqual(protocol.transport.getProxy().server, f"unix:{self.sockets / kind}")
            await self.assert_banner(protocol, kind)

    async def test_facts_for_haproxy(self) -> None:
        """HAProxy reads the authority and the unique id in the header, and takes ALPN as well."""
        sink = await self.start()
        endpoint = haproxyEndpoint(
            reactor,
            server_endpoint(reactor, f"127.0.0.1:{self.headers}"),
            "127.0.0.1",
            sink.port,
            source="127.0.0.42",
            tlvs=[
                Tlv(TlvType.ALPN, b"smtp"),
                Tlv(TlvType.AUTHORITY, b"mx.example.test"),
                Tlv(TlvType.UNIQUE_ID, b"session-7"),
            ],
        )
        protocol = await endpoint.connect(Factory.forProtocol(Banner))
        await self.assert_banner(protocol, HAPROXY)
        await self.haproxy.wait_for_output("facts <mx.example.test> <session-7>")
