"""Tests for the errors of endpoints: what they say, and whom they blame."""

from __future__ import annotations

from twisted.internet.error import ConnectError, ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.endpoints import (
    AddressFamilyMismatchError,
    AddressTypeNotSupportedError,
    CommandNotSupportedError,
    DestinationRefusedError,
    EgressError,
    GeneralFailureError,
    HostUnreachableError,
    NegotiationTimeoutError,
    NetworkUnreachableError,
    NotAllowedError,
    ProxyBindError,
    ProxyConnectError,
    ProxyHop,
    ProxyLoginError,
    ProxyNegotiationError,
    ProxyRefusedError,
    SuspectedProxyError,
    TTLExpiredError,
    haproxyEndpoint,
    socks5Endpoint,
)
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.errors import KumotwistError
from kumotwist.testing.endpoints import MemoryEndpoint, RecordingEndpoint
from kumotwist.testing.scripted import Close, ScriptedServer, Send, Step
from tests.test_endpoints_contract import Applications

HOP = PlannedHop("socks5", "10.0.5.10:5000", "10.0.0.1", "192.0.2.1:25")
BOUND = b"\x05\x00\x00\x01\x0a\x00\x00\x01\xcf\xda"


class Answering(ScriptedServer):
    """Answers each segment with the next reply, whatever was asked; a close comes with the reply
    before it."""

    def connectionMade(self) -> None:
        """Say nothing unasked."""

    def dataReceived(self, data: bytes) -> None:
        """Answer."""
        assert self.transport is not None
        if self.steps and isinstance(self.steps[0], Send):
            step = self.steps.pop(0)
            assert isinstance(step, Send)
            self.transport.write(step.data)
        if self.steps and isinstance(self.steps[0], Close):
            self.transport.loseConnection()


class OutcomeTests(SynchronousTestCase):
    """Replies of a proxy, and the errors that they become."""

    def error(self, *replies: bytes | None, **options: object) -> EgressError:
        """What connecting fails with when a proxy answers like this; L{None} is a close."""
        clock = Clock()
        steps: list[Step] = [Close() if each is None else Send(each) for each in replies]
        server = MemoryEndpoint(clock, Factory.forProtocol(lambda: Answering(steps)))
        arguments: dict[str, object] = {"source": "10.0.0.1", "server_name": "10.0.5.10:5000"}
        arguments.update(options)
        endpoint = socks5Endpoint(clock, server, "192.0.2.1", 25, **arguments)  # type: ignore[arg-type]
        factory = Applications()
        connecting = endpoint.connect(factory)
        server.connections[0].flush()
        clock.advance(61)
        error = self.failureResultOf(connecting).value
        self.assertEqual(factory.built, [])
        self.assertTrue(server.connections[0].client_transport.aborted)
        assert isinstance(error, EgressError)
        self.assertTrue(str(error).startswith("via socks5 10.0.5.10:5000"), str(error))
        self.assertIn("10.0.5.10:5000", error.hop)
        self.assertIn("192.0.2.1:25", error.hop)
        return error

    def test_every_rep(self) -> None:
        """Each reply code has its class, which carries the code and says whom to blame."""
        expected: dict[int, tuple[type[EgressError], str]] = {
            1: (GeneralFailureError, "proxy"),
            2: (NotAllowedError, "proxy"),
            3: (NetworkUnreachableError, "destination"),
            4: (HostUnreachableError, "destination"),
            5: (DestinationRefusedError, "destination"),
            6: (TTLExpiredError, "destination"),
            7: (CommandNotSupportedError, "proxy"),
            8: (AddressTypeNotSupportedError, "proxy"),
            9: (ProxyRefusedError, "proxy"),
            255: (ProxyRefusedError, "proxy"),
        }
        for rep, (kind, blames) in expected.items():
            error = self.error(b"\x05\x00", BOUND, b"\x05" + bytes((rep,)))
            self.assertIs(type(error), kind)
            assert isinstance(error, ProxyRefusedError)
            self.assertEqual((error.rep, error.blames), (rep, blames))
            self.assertEqual(error.phase, "connect-request")
            self.assertIn(f"192.0.2.1:25 (REP {rep:02x})", str(error))

    def test_refusal_in_words(self) -> None:
        """The text names proxy, source and destination, and what happened."""
        error = self.error(b"\x05\x00", BOUND, b"\x05\x05")
        self.assertEqual(
            str(error),
            "via socks5 10.0.5.10:5000 from 10.0.0.1: connection refused by 192.0.2.1:25 (REP 05)",
        )
        self.assertEqual(error.hop, "socks5 10.0.5.10:5000 from 10.0.0.1 to 192.0.2.1:25")

    def test_bind_refused(self) -> None:
        """A refused BIND is a bind failure with its code, known or not."""
        for rep, words in ((1, "general failure"), (7, "command not supported"), (0x5A, "5a")):
            error = self.error(b"\x05\x00", b"\x05" + bytes((rep,)))
            assert isinstance(error, ProxyBindError)
            self.assertEqual((error.rep, error.phase, error.blames), (rep, "bind", "proxy"))
            self.assertIn(words, str(error))

    def test_wrong_source(self) -> None:
        """Another address than the one asked for is a bind failure, at BIND and at CONNECT."""
        other = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x07"
        for replies, phase in (((other,), "bind"), ((BOUND, other), "connect-request")):
            error = self.error(b"\x05\x00", *replies)
            assert isinstance(error, ProxyBindError)
            self.assertEqual((error.rep, error.phase, error.blames), (None, phase, "proxy"))
            self.assertIn("127.0.0.1:7 instead of 10.0.0.1", str(error))

    def test_login(self) -> None:
        """A refused login is its own error, and no text anywhere has the password."""
        error = self.error(b"\x05\x02", b"\x01\x01", username="user", password="s3cret")
        self.assertIsInstance(error, ProxyLoginError)
        self.assertIsInstance(error, ProxyNegotiationError)
        self.assertEqual((error.phase, error.blames), ("login", "proxy"))
        for text in (str(error), repr(error), repr(vars(error))):
            self.assertNotIn("s3cret", text)

    def test_no_method(self) -> None:
        """05 FF blames the proxy."""
        error = self.error(b"\x05\xff")
        self.assertIs(type(error), ProxyNegotiationError)
        self.assertEqual((error.phase, error.blames), ("greeting", "proxy"))

    def test_garbage_is_quoted_safely(self) -> None:
        """What a proxy sent instead of SOCKS5 is quoted briefly and without control characters."""
        error = self.error(b"\x1b[31mlots of text" * 100)
        self.assertIs(type(error), ProxyNegotiationError)
        self.assertIsNotNone(error.cause)
        self.assertNotIn("\x1b", str(error))
        self.assertLess(len(str(error)), 200)

    def test_timeouts(self) -> None:
        """A silent proxy is to blame, unless it has been told to connect to the destination."""
        expected = [
            ((), "greeting", "proxy", "no answer to the greeting within 60 s"),
            ((b"\x05\x00",), "bind", "proxy", "no answer to BIND within 60 s"),
            (
                (b"\x05\x00", BOUND),
                "connect-request",
                "destination",
                "no connection to 192.0.2.1:25 within 60 s",
            ),
        ]
        for replies, phase, blames, words in expected:
            error = self.error(*replies)
            self.assertIsInstance(error, NegotiationTimeoutError)
            self.assertEqual((error.phase, error.blames), (phase, blames))
            self.assertEqual(error.ambiguous, phase == "connect-request")
            self.assertIn(words, str(error))

    def test_close_instead_of_an_answer(self) -> None:
        """A close is the proxy's failure, unless it only did not answer CONNECT: then nobody can
        tell, and the error says so."""
        for replies, phase in (
            ((None,), "greeting"),
            ((b"\x05\x00", None), "bind"),
            ((b"\x05\x00", BOUND, BOUND[:5], None), "connect-request"),
        ):
            error = self.error(*replies)
            self.assertIs(type(error), ProxyNegotiationError)
            self.assertEqual((error.phase, error.ambiguous), (phase, False))
            self.assertIn("the proxy closed the connection instead of answering", str(error))
        for source, answers in (("10.0.0.1", [b"\x05\x00", BOUND]), (None, [b"\x05\x00"])):
            error = self.error(*answers, None, source=source)
            self.assertIs(type(error), SuspectedProxyError)
            self.assertEqual((error.phase, error.ambiguous), ("connect-request", True))
            self.assertIn("whether 192.0.2.1:25 can be reached", str(error))
            self.assertIn("the destination may have refused, or the proxy failed", str(error))

    def test_family_mismatch(self) -> None:
        """Different families are found before anything is connected, and nobody is to blame."""
        clock, server = Clock(), RecordingEndpoint()
        for wrap in (socks5Endpoint, haproxyEndpoint):
            for host, source in (("192.0.2.1", "2001:db8::5"), ("2001:db8::1", "10.0.0.1")):
                endpoint = wrap(clock, server, host, 25, source=source)
                failure = self.failureResultOf(endpoint.connect(Applications()))
                error = failure.value
                assert isinstance(error, AddressFamilyMismatchError)
                self.assertEqual((error.blames, error.phase), ("nobody", "connect"))
        self.assertEqual(server.connects, [])

    def test_refused_by_the_outer_proxy(self) -> None:
        """When one proxy cannot reach another one, that one counts as unreachable."""
        clock, server = Clock(), RecordingEndpoint()
        inner = socks5Endpoint(clock, server, "10.0.7.7", 1080, server_name="10.0.5.10:5000")
        connecting = socks5Endpoint(clock, inner, "192.0.2.1", 25).connect(Applications())
        protocol = server.connects[0].accept()
        assert protocol is not None
        protocol.dataReceived(b"\x05\x00")
        protocol.dataReceived(b"\x05\x05")
        error = self.failureResultOf(connecting, ProxyConnectError).value
        self.assertEqual(error.blames, "proxy")
        self.assertIsInstance(error.cause, DestinationRefusedError)
        self.assertEqual(
            str(error),
            "via socks5 10.0.7.7:1080: cannot connect to the proxy: via socks5 10.0.5.10:5000: "
            "connection refused by 10.0.7.7:1080 (REP 05)",
        )


class TreeTests(SynchronousTestCase):
    """The tree of classes."""

    def test_family(self) -> None:
        """Every error is one of ours and one of Twisted's, and blames somebody or nobody."""
        error = SuspectedProxyError(HOP, "banner", "silence")
        self.assertIsInstance(error, ConnectionLost)
        self.assertEqual(error.blames, "proxy")
        for kind in (ProxyConnectError, ProxyNegotiationError, ProxyBindError):
            made = kind(HOP, "connect", "no")
            self.assertIsInstance(made, KumotwistError)
            self.assertIsInstance(made, ConnectError)
            self.assertIsInstance(made, EgressError)
            self.assertEqual(made.blames, "proxy")
            self.assertEqual(made.problem, "no")

    def test_text_is_one_line(self) -> None:
        """What happened is one line of bounded length, whoever said it."""
        error = EgressError(HOP, "connect", "a\r\nb" + "x" * 9999)
        self.assertNotIn("\n", str(error))
        self.assertLess(len(str(error)), 600)

    def test_hops(self) -> None:
        """Hops read like a sentence."""
        via = ProxyHop("haproxy", "10.0.5.10:2526", "10.0.0.2:0", "192.0.2.1:25")
        self.assertEqual(str(via), "haproxy 10.0.5.10:2526 from 10.0.0.2:0 to 192.0.2.1:25")
        self.assertEqual(PlannedHop("socks5", "p:1", "", "d:2").route, "socks5 p:1")
        self.assertEqual(str(ProxyHop("socks5", "p:1", "", "d:2")), "socks5 p:1 to d:2")
