"""Tests for endpoints through HTTP proxies: the contract of all endpoints, and what is special."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.address import HostnameAddress, IPv6Address, UNIXAddress
from twisted.internet.endpoints import clientFromString, quoteStringArgument
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.endpoints import (
    CommandNotSupportedError,
    EgressError,
    EndpointTemplate,
    GeneralFailureError,
    HAProxyClientEndpoint,
    HostUnreachableError,
    HTTPConnectClientEndpoint,
    NegotiationTimeoutError,
    NotAllowedError,
    ProxyConnectError,
    ProxyHop,
    ProxyLoginError,
    ProxyNegotiationError,
    ProxyRefusedError,
    TTLExpiredError,
    httpConnectEndpoint,
)
from kumotwist.testing.endpoints import MemoryEndpoint, RecordingEndpoint
from kumotwist.testing.scripted import Expect, Hold, ScriptedServer, Send, Step
from tests.test_endpoints_contract import (
    CONNECT,
    GREETING,
    HEADER,
    TIMEOUT,
    UNKNOWN,
    AnsweringProxyTests,
    Applications,
    HalfClosingTests,
    OverTLS,
    socks5,
)

ESTABLISHED = Send(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n")


def request(target: bytes, login: bytes = b"") -> Expect:
    """The request to connect to C{HOST:PORT}, with the Basic credentials, if any."""
    field = b"Proxy-Authorization: Basic " + login + b"\r\n" if login else b""
    return Expect(
        b"CONNECT " + target + b" HTTP/1.1\r\nHost: " + target + b"\r\n" + field + b"\r\n"
    )


def http_connect(
    clock: Clock,
    server: IStreamClientEndpoint,
    host: str = "192.0.2.1",
    port: int = 25,
    **more: Any,
) -> IStreamClientEndpoint:
    """The endpoint as these tests want it."""
    return httpConnectEndpoint(clock, server, host, port, timeout=TIMEOUT, **more)


def accept(factory: Any) -> tuple[Any, StringTransport]:
    """Let a TCP connection to a proxy succeed; its protocol and transport."""
    protocol, transport = factory.buildProtocol(None), StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport


# -- what is held to the contract ----------------------------------------------------------------


class HTTPConnectTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """HTTP CONNECT."""

    steps = [request(b"192.0.2.1:25"), ESTABLISHED]
    hop = ProxyHop("http-connect", "10.0.5.10:5000", "", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT."""
        return http_connect(clock, server)


class HTTPConnectWithLoginTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """HTTP CONNECT to a name, with a login, and an interim response."""

    steps = [
        request(b"mx.example.com:25", b"dXNlcjpzZTpjcmV0"),
        Send(b"HTTP/1.1 102 Processing\r\n\r\n"),
        Send(b"HTTP/1.0 200 OK\n\n"),
    ]
    hop = ProxyHop("http-connect", "the proxy", "", "mx.example.com:25")
    destination = HostnameAddress(b"mx.example.com", 25)

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT with a login."""
        return http_connect(
            clock,
            server,
            "mx.example.com",
            username="user",
            password="se:cret",
            server_name="the proxy",
        )


class HTTPConnectOverIPv6Tests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """HTTP CONNECT to an IPv6 destination, through a proxy with an IPv6 address."""

    steps = [request(b"[2001:db8::1]:25"), ESTABLISHED]
    destination = IPv6Address("TCP", "2001:db8::1", 25)
    server_address = IPv6Address("TCP", "2001:db8::5", 3128)
    hop = ProxyHop("http-connect", "[2001:db8::5]:3128", "", "[2001:db8::1]:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT."""
        return http_connect(clock, server, "2001:db8::1")


class HTTPConnectOverUnixTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """HTTP CONNECT to a proxy on a Unix socket."""

    steps = HTTPConnectTests.steps
    server_address = UNIXAddress("/run/proxy")
    hop = ProxyHop("http-connect", "unix:/run/proxy", "", "192.0.2.1:25")

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT."""
        return http_connect(clock, server)


class HTTPConnectOverTLSTests(OverTLS, AnsweringProxyTests, SynchronousTestCase):
    """HTTP CONNECT to a proxy that speaks TLS."""

    steps = HTTPConnectTests.steps
    hop = HTTPConnectTests.hop

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT in TLS."""
        return http_connect(clock, self.tls(clock, server))


class HTTPConnectOverSOCKS5Tests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """HTTP CONNECT behind a SOCKS5 proxy."""

    steps = [
        *GREETING,
        Expect(b"\x05\x01\x00\x01\x0a\x00\x07\x07\x0c\x38"),
        UNKNOWN,
        request(b"192.0.2.1:25"),
        ESTABLISHED,
    ]
    hop = ProxyHop(
        "http-connect",
        "10.0.7.7:3128",
        "",
        "192.0.2.1:25",
        ProxyHop("socks5", "10.0.5.10:5000", "", "10.0.7.7:3128"),
    )

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """HTTP CONNECT in SOCKS5."""
        return http_connect(clock, socks5(clock, server, "10.0.7.7", 3128))


class SOCKS5OverHTTPConnectTests(AnsweringProxyTests, HalfClosingTests, SynchronousTestCase):
    """SOCKS5 behind an HTTP proxy."""

    steps = [request(b"10.0.7.7:1080"), ESTABLISHED, *GREETING, CONNECT, UNKNOWN]
    hop = ProxyHop(
        "socks5",
        "10.0.7.7:1080",
        "",
        "192.0.2.1:25",
        ProxyHop("http-connect", "10.0.5.10:5000", "", "10.0.7.7:1080"),
    )

    def wrap(self, clock: Clock, server: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """SOCKS5 in HTTP CONNECT."""
        return socks5(clock, http_connect(clock, server, "10.0.7.7", 1080))


# -- what is special -----------------------------------------------------------------------------


class OutcomeTests(SynchronousTestCase):
    """Responses of a proxy, and the errors that they become."""

    def error(self, response: bytes, **options: Any) -> EgressError:
        """What connecting fails with when a proxy answers like this."""
        clock = Clock()
        login = b"dXNlcjpzM2NyZXQ=" if options else b""
        steps: list[Step] = [request(b"192.0.2.1:25", login), Send(response)]
        server = MemoryEndpoint(clock, Factory.forProtocol(lambda: ScriptedServer(steps)))
        endpoint = http_connect(clock, server, server_name="10.0.5.10:3128", **options)
        factory = Applications()
        connecting = endpoint.connect(factory)
        server.connections[0].flush()
        clock.advance(TIMEOUT)
        error = self.failureResultOf(connecting).value
        self.assertEqual(factory.built, [])
        self.assertTrue(server.connections[0].client_transport.aborted)
        assert isinstance(error, EgressError)
        self.assertEqual(error.hop, "http-connect 10.0.5.10:3128 to 192.0.2.1:25")
        return error

    def test_every_status(self) -> None:
        """Each status has its class, which carries it and says whom to blame."""
        expected: dict[int, tuple[type[EgressError], str]] = {
            302: (ProxyRefusedError, "proxy"),
            400: (ProxyRefusedError, "proxy"),
            403: (NotAllowedError, "proxy"),
            404: (ProxyRefusedError, "proxy"),
            405: (CommandNotSupportedError, "proxy"),
            429: (ProxyRefusedError, "proxy"),
            500: (GeneralFailureError, "proxy"),
            501: (CommandNotSupportedError, "proxy"),
            502: (HostUnreachableError, "destination"),
            503: (HostUnreachableError, "destination"),
            504: (TTLExpiredError, "destination"),
            511: (ProxyRefusedError, "proxy"),
        }
        for status, (kind, blames) in expected.items():
            error = self.error(b"HTTP/1.1 %d Why not\r\n\r\n" % status)
            self.assertIs(type(error), kind)
            assert isinstance(error, ProxyRefusedError)
            self.assertEqual((error.rep, error.status, error.blames), (None, status, blames))
            self.assertEqual(error.phase, "connect-request")
            self.assertIn(f"192.0.2.1:25 (HTTP {status} Why not)", str(error))

    def test_refusal_in_words(self) -> None:
        """The text names proxy and destination, and what happened; a peer's words are bounded."""
        error = self.error(b"HTTP/1.1 502\r\n\r\n")
        self.assertEqual(
            str(error),
            "via http-connect 10.0.5.10:3128: host unreachable at 192.0.2.1:25 (HTTP 502)",
        )
        error = self.error(b"HTTP/1.1 500 \x1b[31m" + b"x" * 9999 + b"\r\n\r\n")
        self.assertNotIn("\x1b", str(error))
        self.assertLess(len(str(error)), 300)

    def test_login(self) -> None:
        """407, and 401, is a login error, with and without one; no text has the password."""
        response = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
        error = self.error(response)
        self.assertIn("the proxy wants a login (HTTP 407)", str(error))
        error = self.error(response, username="user", password="s3cret")
        self.assertIn("the proxy refused the login (HTTP 407)", str(error))
        tinyproxys = b"HTTP/1.1 401 Unauthorized\r\n\r\n"
        error = self.error(tinyproxys, username="user", password="s3cret")
        self.assertIn("the proxy refused the login (HTTP 401)", str(error))
        assert isinstance(error, ProxyLoginError)
        self.assertEqual((error.phase, error.blames), ("login", "proxy"))
        for text in (str(error), repr(error), repr(vars(error))):
            self.assertNotIn("s3cret", text)

    def test_something_else(self) -> None:
        """What is not HTTP is quoted briefly and without control characters."""
        for response in (b"\x05\xff", b"\x1b[31m" * 999, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 99):
            error = self.error(response)
            self.assertIs(type(error), ProxyNegotiationError)
            self.assertEqual((error.phase, error.blames), ("connect-request", "proxy"))
            self.assertNotIn("\x1b", str(error))
            self.assertLess(len(str(error)), 250)

    def test_timeout(self) -> None:
        """A proxy that was told to connect and says nothing speaks of the destination."""
        error = self.error(b"")
        self.assertIsInstance(error, NegotiationTimeoutError)
        self.assertEqual((error.phase, error.blames), ("connect-request", "destination"))
        self.assertIn("no connection to 192.0.2.1:25 within 60 s", str(error))

    def test_wrong_arguments(self) -> None:
        """Arguments that cannot be are named; a login is never quoted."""
        clock = Clock()
        server = MemoryEndpoint(clock, Factory())
        for host, options, words in (
            ("a b", {}, "host: "),
            ("a\r\nX: y", {}, "host: "),
            ("a%0d", {}, "host: "),
            ("fe80::1%eth0", {}, "host: "),
            ("mx", {"username": "s3cret"}, "password: missing"),
            ("mx", {"password": "s3cret"}, "username: missing"),
            ("mx", {"username": "s3cret:", "password": "p"}, "username, password: "),
            ("mx", {"username": "u", "password": "s3cret\r\n"}, "username, password: "),
        ):
            error = self.assertRaises(ValueError, http_connect, clock, server, host, 25, **options)
            self.assertIn(words, str(error))
            self.assertNotIn("s3cret", str(error))


class ClassTests(SynchronousTestCase):
    """The classes, which need no reactor."""

    def test_http(self) -> None:
        """The connection's own reactor times the negotiation."""
        clock = Clock()
        steps: list[Step] = [
            request(b"mx.example.com:25", b"dXNlcjpzZTpjcmV0"),
            Hold(),
            ESTABLISHED,
        ]
        scripts = [ScriptedServer(steps), ScriptedServer(steps)]
        server = MemoryEndpoint(clock, Factory.forProtocol(iter(scripts).__next__))
        endpoint = HTTPConnectClientEndpoint(
            "mx.example.com", 25, server, username="user", password="se:cret"
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        first, second = endpoint.connect(Applications()), endpoint.connect(Applications())
        for connection in server.connections:
            connection.flush()
        scripts[0].release()
        server.connections[0].flush()
        self.assertEqual(cast(Any, self.successResultOf(first)).events, ["made"])
        clock.advance(61)
        self.failureResultOf(second, NegotiationTimeoutError)

    def test_haproxy(self) -> None:
        """The header is said; with a reactor, connecting has a deadline."""
        clock, server = Clock(), RecordingEndpoint()
        endpoint = HAProxyClientEndpoint(
            "192.0.2.1", 25, server, "10.0.0.2", reactor=clock, timeout=5
        )
        verifyObject(IStreamClientEndpoint, endpoint)
        first, second = endpoint.connect(Applications()), endpoint.connect(Applications())
        transport = StringTransport()
        server.connects[0].accept(transport)
        self.successResultOf(first)
        self.assertEqual(transport.value(), HEADER.data)
        clock.advance(6)
        self.failureResultOf(second, ProxyConnectError)

    def test_stacked(self) -> None:
        """An error of one on top of another names the proxy between."""
        between = HTTPConnectClientEndpoint("10.0.7.7", 3128, RecordingEndpoint())
        self.assertIn(
            "http-connect 10.0.7.7:3128 to mx:25", repr(http_connect(Clock(), between, "mx"))
        )


class StringTests(SynchronousTestCase):
    """C{http-connect:} in endpoint strings."""

    def test_plugin(self) -> None:
        """http-connect: with everything says just that to the proxy."""
        reactor = MemoryReactorClock()
        text = (
            r"http-connect:mx.example.com:25:server=10.0.5.10\:3128"
            r":username=user:password=se\:cret:timeout=7.5"
        )
        connecting: Any = clientFromString(reactor, text).connect(Applications())
        host, port, factory, timeout, _ = reactor.tcpClients[0]
        self.assertEqual((host, port, timeout), ("10.0.5.10", 3128, 7.5))
        protocol, transport = accept(factory)
        self.assertEqual(transport.value(), request(b"mx.example.com:25", b"dXNlcjpzZTpjcmV0").data)
        protocol.dataReceived(ESTABLISHED.data + b"220 hello")
        application = self.successResultOf(connecting)
        self.assertEqual(application.events, ["made", b"220 hello"])
        self.assertEqual(
            application.transport.getProxy(),
            ProxyHop("http-connect", "10.0.5.10:3128", "", "mx.example.com:25"),
        )

    def test_template(self) -> None:
        """The destination takes the place of the placeholders; within strings as well."""
        plain = r"http-connect:{host}:{port}:server=10.0.5.10\:3128"
        nested = "tls:{host}:{port}:endpoint=" + quoteStringArgument(plain)
        for text in (plain, nested):
            reactor = MemoryReactorClock()
            template = EndpointTemplate.parse(text)
            template.endpoint(reactor, "2001:db8::1", 25).connect(Applications())
            host, port, factory, _, _ = reactor.tcpClients[0]
            self.assertEqual((host, port), ("10.0.5.10", 3128))
            _, transport = accept(factory)
            self.assertEqual(transport.value(), request(b"[2001:db8::1]:25").data)

    def test_wrong(self) -> None:
        """Wrong strings are told which argument is wrong; none quotes the password."""
        start = r"http-connect:{host}:{port}:server=a\:1"
        for text, words in (
            ("http-connect:192.0.2.1:25", "http-connect: server: missing"),
            (start + ":source=10.0.0.1", "argument 'source' is unknown"),
            (start + ":username=s3cret", "password: missing"),
            (start + r":username=a\:b:password=s3cret", "username, password: "),
            (start + ":username=u:password=s3cret:s3cret", "1 argument(s) too many"),
            (start + ":timeout=0", "timeout: '0' is not"),
        ):
            error = self.assertRaises(ValueError, EndpointTemplate.parse, text)
            self.assertIn(words, str(error))
            self.assertNotIn("s3cret", str(error))

    def test_secrets(self) -> None:
        """A template does not show its password."""
        template = EndpointTemplate.parse(
            r"http-connect:{host}:{port}:server=10.0.5.10\:3128:username=u:password=s3cret"
        )
        self.assertNotIn("s3cret", repr(template) + str(template) + template.name)
