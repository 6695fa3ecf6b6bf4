"""Tests for the functions and classes that make endpoints: arguments, txsocksx's class, names."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.endpoints import (
    EndpointTemplate,
    NegotiationTimeoutError,
    ProxyConnectError,
    SOCKS5ClientEndpoint,
    describe_server,
    haproxyEndpoint,
    server_endpoint,
    socks5Endpoint,
)
from kumotwist.endpoints.connecting import describe_endpoint
from kumotwist.endpoints.tcp import AddressEndpoint
from kumotwist.settings.types import HostPort
from kumotwist.testing.endpoints import MemoryEndpoint, RecordingEndpoint
from kumotwist.testing.scripted import Expect, Hold, ScriptedServer, Send, Step
from kumotwist.wire.proxy_v2 import Tlv, TlvType
from tests.test_endpoints_contract import Applications, client_options

UNKNOWN = Send(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
NAME = b"\x05\x01\x00\x03\x0emx.example.com\x00\x19"


def scripted(clock: Clock, steps: list[Step]) -> MemoryEndpoint:
    """An endpoint that reaches a scripted server."""
    return MemoryEndpoint(clock, Factory.forProtocol(lambda: ScriptedServer(steps)))


class ArgumentTests(SynchronousTestCase):
    """What can be asked for, and what cannot."""

    def test_host_name(self) -> None:
        """A host name is left to the proxy, and is the transport's peer."""
        clock = Clock()
        server = scripted(
            clock, [Expect(b"\x05\x01\x00"), Send(b"\x05\x00"), Expect(NAME), UNKNOWN]
        )
        connecting: Any = socks5Endpoint(clock, server, "mx.example.com", 25).connect(
            Applications()
        )
        server.connections[0].flush()
        application = self.successResultOf(connecting)
        peer = application.transport.getPeer()
        self.assertEqual(peer, HostnameAddress(b"mx.example.com", 25))
        self.assertEqual(application.transport.getProxy().destination, "mx.example.com:25")

    def test_international_host_name(self) -> None:
        """A host name that is not ASCII is sent as A-labels."""
        endpoint = socks5Endpoint(Clock(), RecordingEndpoint(), "bücher.example", 25)
        self.assertIn("xn--bcher-kva.example:25", repr(endpoint))

    def test_impossible_hosts(self) -> None:
        """What is no host is refused at once; a name that is too long is never resolved here."""
        server = RecordingEndpoint()
        for host in (
            "",
            "x" * 256,
            "ü" * 300,
            "a b",
            "a:b",
            "{host}",
            "1.2.3",
            "fe80::1%eth0",
            "\0",
        ):
            error = self.assertRaises(ValueError, socks5Endpoint, Clock(), server, host, 25)
            self.assertTrue(str(error).startswith("host: "), str(error))
            self.assertLess(len(str(error)), 200)
        for port in (0, 65536, -1):
            error = self.assertRaises(
                ValueError, socks5Endpoint, Clock(), server, "192.0.2.1", port
            )
            self.assertTrue(str(error).startswith("port: "))

    def test_impossible_arguments(self) -> None:
        """Each argument that cannot be is named, and no secret is quoted."""
        for argument, options in (
            ("source", {"source": "10.0.0"}),
            ("source", {"source": "mx.example.com"}),
            ("password", {"username": "user"}),
            ("username", {"password": "s3cret"}),
            ("username", {"username": "", "password": "s3cret"}),
            ("password", {"username": "user", "password": "s3cret" * 99}),
            ("password", {"username": "user", "password": "s3cret\ud800"}),
            ("timeout", {"timeout": 0}),
            ("timeout", {"timeout": float("inf")}),
        ):
            error = self.assertRaises(
                ValueError, socks5Endpoint, Clock(), RecordingEndpoint(), "192.0.2.1", 25, **options
            )
            self.assertTrue(str(error).startswith(f"{argument}: "), str(error))
            self.assertNotIn("s3cret", str(error))

    def test_name_and_source(self) -> None:
        """A source address needs a destination that was resolved."""
        error = self.assertRaises(
            ValueError,
            socks5Endpoint,
            Clock(),
            RecordingEndpoint(),
            "mx.example.com",
            25,
            source="10.0.0.1",
        )
        self.assertTrue(str(error).startswith("source: "))

    def test_haproxy_arguments(self) -> None:
        """HAProxy can be told addresses only."""
        for argument, host, options in (
            ("host", "mx.example.com", {}),
            ("source", "192.0.2.1", {"source": "x"}),
            ("timeout", "192.0.2.1", {"timeout": -1}),
            ("tlvs", "192.0.2.1", {"tlvs": [Tlv(TlvType.UNIQUE_ID, bytes(200))]}),
        ):
            arguments: dict[str, Any] = {"source": "10.0.0.1", **options}
            error = self.assertRaises(
                ValueError, haproxyEndpoint, Clock(), RecordingEndpoint(), host, 25, **arguments
            )
            self.assertTrue(str(error).startswith(f"{argument}: "), str(error))

    def test_haproxy_tlvs(self) -> None:
        """Further facts go into the header."""
        server = RecordingEndpoint()
        endpoint = haproxyEndpoint(
            Clock(),
            server,
            "192.0.2.1",
            25,
            source="10.0.0.1",
            tlvs=[Tlv(TlvType.UNIQUE_ID, b"session 7")],
        )
        endpoint.connect(Applications())
        transport = StringTransport()
        server.connects[0].accept(transport)
        self.assertTrue(transport.value().endswith(b"\x05\x00\x09session 7"))
        self.assertEqual(transport.value().count(b"QUIT"), 1)

    def test_names_of_servers(self) -> None:
        """A proxy without a name is called what is known of it."""
        recording = RecordingEndpoint()
        self.assertEqual(describe_endpoint(recording), "RecordingEndpoint")
        named = HostnameEndpoint(MemoryReactorClock(), "proxy.example.com", 1080)
        self.assertIn("proxy.example.com:1080", describe_endpoint(named))
        for server, shown in (
            (AddressEndpoint(None, "10.0.5.10", 5000, 60), "10.0.5.10:5000"),
            (TCP4ClientEndpoint(None, "10.0.5.10", 5000), "10.0.5.10:5000"),
            (TCP6ClientEndpoint(None, "2001:db8::5", 5000), "[2001:db8::5]:5000"),
            (UNIXClientEndpoint(None, "/run/proxy"), "unix:/run/proxy"),
            (wrapClientTLS(client_options("proxy.example"), named), describe_endpoint(named)),
        ):
            self.assertEqual(describe_endpoint(server), shown)
        inner = socks5Endpoint(Clock(), recording, "10.0.7.7", 1080)
        self.assertEqual(describe_endpoint(inner), "10.0.7.7:1080")

    def test_password_is_not_shown(self) -> None:
        """An endpoint does not show its password."""
        endpoint = socks5Endpoint(
            Clock(), RecordingEndpoint(), "192.0.2.1", 25, username="u", password="s3cret"
        )
        self.assertNotIn("s3cret", repr(endpoint) + str(endpoint))


class TxsocksxTests(SynchronousTestCase):
    """SOCKS5ClientEndpoint, with the signature of txsocksx."""

    def test_anonymous(self) -> None:
        """Host, port and the proxy's endpoint suffice; octet strings do too."""
        for host in ("mx.example.com", b"mx.example.com"):
            clock = Clock()
            server = scripted(
                clock, [Expect(b"\x05\x01\x00"), Send(b"\x05\x00"), Expect(NAME), UNKNOWN]
            )
            endpoint = SOCKS5ClientEndpoint(host, 25, server)
            verifyObject(IStreamClientEndpoint, endpoint)
            connecting: Any = endpoint.connect(Applications())
            server.connections[0].flush()
            self.assertEqual(self.successResultOf(connecting).events, ["made"])

    def test_login_only(self) -> None:
        """With only "login" among the methods, nothing else is offered."""
        clock = Clock()
        steps: list[Step] = [
            Expect(b"\x05\x01\x02"),
            Send(b"\x05\x02"),
            Expect(b"\x01\x04user\x04pass"),
            Send(b"\x01\x00"),
            Expect(NAME),
            UNKNOWN,
        ]
        server = scripted(clock, steps)
        methods = {"login": ("user", b"pass")}
        connecting = SOCKS5ClientEndpoint("mx.example.com", 25, server, methods).connect(
            Applications()
        )
        server.connections[0].flush()
        self.successResultOf(connecting)

    def test_both_methods(self) -> None:
        """With both, both are offered, whatever their order."""
        server = RecordingEndpoint()
        methods: dict[str, tuple[str, ...]] = {"login": ("user", "pass"), "anonymous": ()}
        SOCKS5ClientEndpoint("mx.example.com", 25, server, methods=methods).connect(Applications())
        transport = StringTransport()
        server.connects[0].accept(transport)
        self.assertEqual(transport.value(), b"\x05\x02\x00\x02")

    def test_time_comes_from_the_connection(self) -> None:
        """Without a reactor among the arguments, the connection's own times the negotiation."""
        clock = Clock()
        server = scripted(clock, [Expect(b"\x05\x01\x00"), Hold()])
        connecting = SOCKS5ClientEndpoint("mx.example.com", 25, server).connect(Applications())
        server.connections[0].flush()
        clock.advance(59)
        self.assertNoResult(connecting)
        clock.advance(2)
        self.failureResultOf(connecting, NegotiationTimeoutError)
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_reactor(self) -> None:
        """With a reactor, connecting to the proxy is within the deadline too."""
        clock, server = Clock(), RecordingEndpoint()
        endpoint = SOCKS5ClientEndpoint("mx", 25, server, reactor=clock, timeout=5)
        connecting = endpoint.connect(Applications())
        clock.advance(6)
        self.failureResultOf(connecting, ProxyConnectError)
        self.assertTrue(server.connects[0].cancelled)

    def test_wrong_methods(self) -> None:
        """Unknown methods, none, and an incomplete login are refused."""
        for methods in ({}, {"gssapi": ()}, {"login": ()}, {"login": ("user", "")}, {"login": "u"}):
            self.assertRaises(
                ValueError, SOCKS5ClientEndpoint, "mx", 25, RecordingEndpoint(), methods
            )
        self.assertRaises(ValueError, SOCKS5ClientEndpoint, b"\xff", 25, RecordingEndpoint())


class ServerEndpointTests(SynchronousTestCase):
    """The way to a proxy."""

    def test_addresses(self) -> None:
        """An address is connected to directly, from the local address that was asked for."""
        reactor = MemoryReactorClock()
        for host in ("10.0.5.10", "2001:db8::5"):
            endpoint = server_endpoint(reactor, HostPort(host, 5000), timeout=7)
            self.assertIsInstance(endpoint, AddressEndpoint)
            endpoint.connect(Applications())
            self.assertEqual(reactor.tcpClients[-1][:2], (host, 5000))
            self.assertEqual(reactor.tcpClients[-1][3:], (7, None))
        endpoint = server_endpoint(reactor, HostPort("10.0.5.10", 5000), bind_address="10.0.0.9")
        endpoint.connect(Applications())
        self.assertEqual(reactor.tcpClients[-1][4], ("10.0.0.9", 0))

    def test_names(self) -> None:
        """Each address of a name is tried, within the deadline of the whole."""
        reactor = MemoryReactorClock()
        addresses = [IPv4Address("TCP", f"10.0.5.{n}", 5000) for n in (1, 2)]

        class Resolver:
            def resolveHostName(self, receiver: Any, name: str, *more: Any, **other: Any) -> Any:
                receiver.resolutionBegan(self)
                for address in addresses:
                    receiver.addressResolved(address)
                receiver.resolutionComplete()
                return self

        reactor.installNameResolver(Resolver())  # type: ignore[arg-type]
        server = server_endpoint(reactor, HostPort("proxy.example.com", 5000))
        connecting = socks5Endpoint(reactor, server, "192.0.2.1", 25).connect(Applications())
        first = reactor.tcpClients[0]
        first[2].clientConnectionFailed(reactor.connectors[0], _failure())
        reactor.advance(1)
        self.assertEqual([client[0] for client in reactor.tcpClients], ["10.0.5.1", "10.0.5.2"])
        self.assertNoResult(connecting)
        reactor.tcpClients[1][2].clientConnectionFailed(reactor.connectors[1], _failure())
        reactor.advance(1)
        error = self.failureResultOf(connecting, ProxyConnectError).value
        self.assertIsInstance(error.cause, ConnectionRefusedError)
        addresses.clear()
        connecting = socks5Endpoint(reactor, server, "192.0.2.1", 25).connect(Applications())
        error = self.failureResultOf(connecting, ProxyConnectError).value
        self.assertIsInstance(error.cause, DNSLookupError)
        self.assertEqual(reactor.getDelayedCalls(), [])

    def test_strings(self) -> None:
        """A string is a client endpoint string or HOST:PORT; a parsed template does as well."""
        reactor = MemoryReactorClock()
        for server in ("unix:/run/proxy", EndpointTemplate.parse_server("unix:/run/proxy")):
            server_endpoint(reactor, server).connect(Applications())
            self.assertEqual(reactor.unixClients[-1][0], "/run/proxy")
        server_endpoint(reactor, "10.0.5.10:5000").connect(Applications())
        server_endpoint(reactor, "tcp:10.0.5.10:5000:bindAddress=10.0.0.9").connect(Applications())
        self.assertEqual(reactor.tcpClients[0][:2], reactor.tcpClients[1][:2])
        self.assertEqual(reactor.tcpClients[1][4], ("10.0.0.9", 0))
        for wrong in ("nonsense", "tcp:x"):
            self.assertRaises(ValueError, server_endpoint, reactor, wrong)
        self.assertRaises(
            ValueError, server_endpoint, reactor, "unix:/run/proxy", bind_address="10.0.0.9"
        )
        self.assertRaises(
            ValueError, server_endpoint, reactor, HostPort("10.0.5.10", 1), bind_address="x"
        )

    def test_descriptions(self) -> None:
        """Proxies are shown in a word or two, and without passwords."""
        for server, shown in (
            (HostPort("2001:db8::5", 5000), "[2001:db8::5]:5000"),
            ("10.0.5.10:5000", "10.0.5.10:5000"),
            ("tcp:10.0.5.10:5000", "10.0.5.10:5000"),
            ("tls:proxy.example.com:1080", "tls:proxy.example.com:1080"),
            ("unix:/run/proxy", "unix:/run/proxy"),
            ("unix:path=/run/proxy", "unix:/run/proxy"),
            ("ssl:10.0.5.10:5000:timeout=5", "ssl:10.0.5.10:5000"),
            (
                r"socks5:10.0.7.7:1080:server=10.0.5.10\:5000:username=u:password=s3cret",
                "10.0.7.7:1080",
            ),
        ):
            self.assertEqual(describe_server(server), shown)


def _failure() -> Any:
    from twisted.python.failure import Failure

    return Failure(ConnectionRefusedError())
