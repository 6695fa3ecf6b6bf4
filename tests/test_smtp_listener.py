"""Tests of the listener: sessions over memory transports, on a clock."""

from __future__ import annotations

import re
import weakref
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kumotwist.interfaces import IReception
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.server_connection import LINGER
from kumotwist.smtp.server_protocol import ESMTPServerProtocol
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.wire.smtp.events import Recipient, Transaction
from kumotwist.wire.smtp.replies import Reply

INSIDE = IPv4Address("TCP", "127.0.0.1", 40000)
OUTSIDE = IPv4Address("TCP", "203.0.113.9", 40000)
HERE = IPv4Address("TCP", "192.0.2.25", 25)

HELLO = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
MESSAGE = b"Subject: x\r\n\r\nbody\r\n.\r\n"
STORED = Reply.of(250, "2.0.0", "OK ids=1")


class MemoryTransport(StringTransport):
    """A transport that remembers how often it was written to and how it was closed."""

    def __init__(self, peer: Any = INSIDE) -> None:
        super().__init__(hostAddress=HERE, peerAddress=peer)
        self.writes = 0
        self.half_closed = False
        self.aborted = False
        self.tls: list[Any] = []

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def startTLS(self, context_factory: Any) -> None:
        self.tls.append(context_factory)


@implementer(IReception)
class ScriptedReception:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.received: list[tuple[ServerSession, Transaction]] = []
        self.refusals: list[tuple[str, str]] = []
        self.envelopes: list[tuple[str, ...]] = []
        self.asked: list[str] = []

    def _answer(self, question: str) -> Any:
        self.asked.append(question)
        answer = self.answers.get(question)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def connected(self, session: ServerSession) -> Any:
        return self._answer("connected")

    def sender(self, session: ServerSession, transaction: Transaction) -> Any:
        return self._answer("sender")

    def recipient(
        self, session: ServerSession, transaction: Transaction, recipient: Recipient
    ) -> Any:
        return self._answer(f"recipient {recipient.address}")

    def receive(self, session: ServerSession, transaction: Transaction) -> Deferred[Reply]:
        self.received.append((session, transaction))
        answer = self._answer("receive")
        return answer if isinstance(answer, Deferred) else succeed(answer or STORED)

    def rejected(
        self,
        session: ServerSession,
        reply: Reply,
        command: str,
        sender: str = "",
        recipients: Sequence[str] = (),
    ) -> None:
        self.refusals.append((command, str(reply)))
        self.envelopes.append((sender, *recipients))


class ListenerTestCase(TestCase):
    """A listener and what belongs to it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.reception = ScriptedReception()
        self.tls: Any = object()
        self.factory = self.listener()

    def listener(self, **settings: Any) -> ESMTPListenerFactory:
        """A listener with some settings of its own."""
        return ESMTPListenerFactory(
            self.clock,
            ListenerSettings(name="main", **settings),
            self.reception,
            self.tls,
            "mx.example.com",
        )

    def connect(
        self, peer: Any = INSIDE, factory: ESMTPListenerFactory | None = None
    ) -> tuple[ESMTPServerProtocol, MemoryTransport]:
        """A new connection."""
        protocol = (factory or self.factory).buildProtocol(peer)
        assert isinstance(protocol, ESMTPServerProtocol)
        transport = MemoryTransport(peer)
        protocol.makeConnection(transport)
        return protocol, transport

    def codes(self, transport: MemoryTransport) -> list[int]:
        """The codes of the replies that were written since the last look."""
        out = transport.value()
        transport.clear()
        return [int(code) for code in re.findall(rb"^(\d{3}) ", out, re.MULTILINE)]


class SessionTests(ListenerTestCase):
    """Mail that comes in."""

    def test_interfaces(self) -> None:
        """The factory and the reception of these tests keep their interfaces."""
        verifyObject(IProtocolFactory, self.factory)
        verifyObject(IReception, self.reception)

    def test_message(self) -> None:
        """A message reaches the reception with its envelope and the facts of the session."""
        protocol, transport = self.connect()
        self.assertEqual(transport.value(), b"220 mx.example.com kumotwist\r\n")
        transport.clear()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        self.assertEqual(self.codes(transport), [250, 250, 250, 354])
        protocol.dataReceived(MESSAGE)
        self.assertEqual(transport.value(), b"250 2.0.0 OK ids=1\r\n")
        [(session, transaction)] = self.reception.received
        self.assertEqual(transaction.sender, "a@b.example")
        self.assertEqual([each.address for each in transaction.recipients], ["c@d.example"])
        self.assertEqual(transaction.body, b"Subject: x\r\n\r\nbody\r\n")
        self.assertEqual(
            attrs.asdict(session, filter=lambda field, _: bool(field.eq), recurse=False),
            {
                "session_id": protocol.session.session_id,
                "listener": "main",
                "hostname": "mx.example.com",
                "peer": ("127.0.0.1", 40000),
                "local": ("192.0.2.25", 25),
                "may_relay": True,
                "ehlo_domain": "client.example",
                "extended": True,
                "user": "",
                "proxy": None,
                "tls": None,
            },
        )
        self.assertEqual(session.protocol, "ESMTP")
        self.assertRegex(session.session_id, "^[0-9a-f]{32}$")
        self.assertEqual(self.reception.refusals, [])

    def test_nothing_is_kept_of_a_message(self) -> None:
        """A session that waits for more holds nothing of the message before, however large."""
        protocol, _ = self.connect()
        for late in (False, True):
            answer: Deferred[Reply] = Deferred()
            self.reception.answers["receive"] = answer if late else None
            protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
            protocol.dataReceived(MESSAGE)
            [(_, transaction)] = self.reception.received
            before = weakref.ref(transaction)
            self.reception.received.clear()
            del transaction
            if late:
                self.assertIsNotNone(before())
                answer.callback(STORED)
            self.assertIsNone(before())

    def test_client_reads_where_it_comes_from(self) -> None:
        """The answer to EHLO and HELO names the client's address; a Unix socket has none."""
        for peer, line in [
            (IPv4Address("TCP", "192.0.2.7", 40000), b"mx.example.com greets [192.0.2.7]\r\n"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), b"mx.example.com greets [192.0.2.7]\r\n"),
            (IPv6Address("TCP", "2001:db8::7", 1), b"mx.example.com greets [IPv6:2001:db8::7]\r\n"),
            (UNIXAddress("/run/mail"), b"mx.example.com\r\n"),
        ]:
            for hello in (HELLO, b"HELO client.example\r\n"):
                protocol, transport = self.connect(peer)
                transport.clear()
                protocol.dataReceived(hello)
                self.assertEqual(transport.value().splitlines(True)[0][4:], line)

    def test_reports_are_offered(self) -> None:
        """A listener offers DSN, and takes its parameters (RFC 3461)."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO)
        self.assertIn(b"250-DSN\r\n", transport.value())
        transport.clear()
        protocol.dataReceived(
            b"MAIL FROM:<a@b.example> RET=HDRS ENVID=QQ1\r\n"
            b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d.example\r\n"
            b"RCPT TO:<c@d.example> NOTIFY=NEVER,DELAY\r\n"
        )
        self.assertEqual(self.codes(transport), [250, 250, 501])

    def test_one_write(self) -> None:
        """The replies to what arrived together leave together."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE + ENVELOPE + b"DATA\r\n")
        self.assertEqual(transport.writes, 3)

    def test_quit(self) -> None:
        """QUIT is answered, then the connection is closed."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"QUIT\r\nNOOP\r\n")
        self.assertEqual(self.codes(transport), [220, 221])
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)

    def test_unix_socket(self) -> None:
        """The client of a Unix socket is treated like one on this machine."""
        protocol, _ = self.connect(UNIXAddress("/run/mail"))
        self.assertTrue(protocol.session.may_relay)
        self.assertEqual(protocol.session.peer, ("unix", 0))

    def test_mapped_address(self) -> None:
        """An IPv4 client of an IPv6 socket is known by its IPv4 address."""
        protocol, _ = self.connect(IPv6Address("TCP", "::ffff:127.0.0.1", 40000))
        self.assertEqual(protocol.session.peer.host, "127.0.0.1")
        self.assertTrue(protocol.session.may_relay)

    def test_hostname_and_banner(self) -> None:
        """A listener may have a name and a banner of its own."""
        _, transport = self.connect(factory=self.listener(hostname="in.example", banner="hi"))
        self.assertEqual(transport.value(), b"220 in.example hi\r\n")


class ReceptionTests(ListenerTestCase):
    """What the reception decides, now or later."""

    def test_refusals(self) -> None:
        """The reception refuses senders, recipients and messages; it is told of each refusal."""
        self.reception.answers = {
            "sender": Reply.of(550, "5.1.8", "no"),
            "recipient c@d.example": Reply.of(451, "4.2.1", "later"),
            "receive": Reply.of(554, "5.6.0", "spam"),
        }
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE)
        self.assertEqual(self.codes(transport), [220, 250, 550, 503])
        del self.reception.answers["sender"]
        protocol.dataReceived(ENVELOPE + b"RCPT TO:<e@f.example>\r\nDATA\r\n")
        protocol.dataReceived(MESSAGE)
        self.assertEqual(self.codes(transport), [250, 451, 250, 354, 554])
        self.assertEqual(
            self.reception.refusals,
            [
                ("MAIL FROM:<a@b.example>", "550 5.1.8 no"),
                ("RCPT TO:<c@d.example>", "503 5.5.1 say MAIL first"),
                ("RCPT TO:<c@d.example>", "451 4.2.1 later"),
                (".", "554 5.6.0 spam"),
            ],
        )

    def test_late_answers_keep_their_order(self) -> None:
        """A slow answer holds back those to the commands behind it, and reading."""
        slow: Deferred[Reply | None] = Deferred()
        self.reception.answers["recipient c@d.example"] = slow
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE)
        self.assertEqual(transport.producerState, "producing")
        protocol.dataReceived(b"RCPT TO:<e@f.example>\r\nDATA\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250])
        self.assertEqual(transport.producerState, "paused")
        slow.callback(Reply.of(550, "5.1.1", "unknown"))
        self.assertEqual(self.codes(transport), [550, 250, 354])
        self.assertEqual(transport.producerState, "producing")

    def test_late_message(self) -> None:
        """The answer to a message comes when the reception has it, not before."""
        stored: Deferred[Reply] = Deferred()
        self.reception.answers["receive"] = stored
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE + ENVELOPE)
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 354])
        stored.callback(STORED)
        self.assertEqual(self.codes(transport), [250, 250, 250])

    def test_too_late(self) -> None:
        """If storing takes too long it is called off and the client is told to come again."""
        cancelled: list[Any] = []
        stored: Deferred[Reply] = Deferred(cancelled.append)
        self.reception.answers["receive"] = stored
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE + b"NOOP\r\n")
        self.clock.advance(299)
        self.codes(transport)
        self.clock.advance(2)
        self.assertEqual(cancelled, [stored])
        self.assertEqual(transport.value()[:9], b"451 4.4.5")
        self.assertEqual(self.codes(transport), [451, 250])
        self.assertIn((".", "451 4.4.5 processing took too long, try again later"),
                      self.reception.refusals)  # fmt: skip
        self.assertEqual(self.factory.budget.used, 0)

    def test_client_gone(self) -> None:
        """If the client is gone before the answer, the reception is told to undo it."""
        cancelled: list[Any] = []
        stored: Deferred[Reply] = Deferred(cancelled.append)
        self.reception.answers["receive"] = stored
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE)
        transport.clear()
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(cancelled, [stored])
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.factory.sessions, set())
        self.assertEqual(self.factory.budget.used, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_half_closed(self) -> None:
        """A client that has closed its side only still gets its answer."""
        stored: Deferred[Reply] = Deferred()
        self.reception.answers["receive"] = stored
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE)
        protocol.readConnectionLost()
        self.codes(transport)
        stored.callback(STORED)
        self.assertEqual(self.codes(transport), [250])
        self.assertTrue(transport.disconnecting)

    def test_not_welcome(self) -> None:
        """The reception may turn a client away instead of greeting it."""
        self.reception.answers["connected"] = Reply.of(421, "4.3.2", "starting")
        _, transport = self.connect()
        self.assertEqual(transport.value(), b"421 4.3.2 starting\r\n")
        self.assertTrue(transport.half_closed)
        self.assertEqual(self.reception.refusals, [("", "421 4.3.2 starting")])

    def test_late_welcome(self) -> None:
        """Nothing is answered before the greeting, whatever the client says."""
        welcome: Deferred[Reply | None] = Deferred()
        self.reception.answers["connected"] = welcome
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO)
        self.assertEqual(transport.value(), b"")
        welcome.callback(None)
        self.assertEqual(self.codes(transport), [220, 250])
        self.assertEqual(transport.producerState, "producing")

    def test_broken_reception(self) -> None:
        """A defect in the reception is a 451 and a traceback in the log, never a lost session."""
        self.reception.answers["sender"] = RuntimeError("defect")
        broken: Deferred[Reply] = Deferred()
        self.reception.answers["receive"] = broken
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE)
        self.assertEqual(self.codes(transport), [220, 250, 451, 503])
        del self.reception.answers["sender"]
        protocol.dataReceived(ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE)
        broken.errback(RuntimeError("defect"))
        self.assertEqual(self.codes(transport), [250, 250, 354, 451])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)


class RelayTests(ListenerTestCase):
    """Who may send to whom."""

    def test_outside(self) -> None:
        """A stranger reaches the domains of relay_to and no other."""
        factory = self.listener(relay_to=("here.example", "*.sub.example"))
        protocol, transport = self.connect(OUTSIDE, factory)
        protocol.dataReceived(HELLO + b"MAIL FROM:<a@b.example>\r\n")
        self.codes(transport)
        for address, code in (
            ("a@HERE.example", 250),
            ("a@x.sub.example", 250),
            ("a@sub.example", 550),
            ("a@evilhere.example", 550),
            ("a@there.example", 550),
            ("a%there.example@here.example", 550),
            ("there.example!a@here.example", 550),
            ('"a@there.example"@here.example', 550),
            ("@here.example:a@there.example", 550),
            ("@there.example:a@here.example", 250),
            ("a@[192.0.2.1]", 550),
            ("postmaster", 250),
        ):
            protocol.dataReceived(b"RCPT TO:<%s>\r\n" % address.encode())
            self.assertEqual(self.codes(transport), [code], address)
        self.assertEqual(
            self.reception.refusals[0][1], "550 5.7.1 relaying not permitted for 203.0.113.9"
        )

    def test_inside(self) -> None:
        """A client of relay_hosts may send to any domain, in any form that is an address."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + b"MAIL FROM:<>\r\n" + b"RCPT TO:<a%b@c.example>\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 250])

    def test_early_talker(self) -> None:
        """A stranger that sends its message before it was told to go ahead is sent away."""
        factory = self.listener(relay_to=("*",))
        protocol, transport = self.connect(OUTSIDE, factory)
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n" + MESSAGE)
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 421])
        self.assertEqual(self.reception.received, [])
        self.assertTrue(transport.half_closed)


class PatienceTests(ListenerTestCase):
    """Time."""

    def test_idle(self) -> None:
        """A silent client gets a 421 after client_timeout, and then some time to go."""
        _, transport = self.connect()
        self.clock.advance(59)
        self.assertEqual(self.codes(transport), [220])
        self.clock.advance(1)
        self.assertEqual(self.codes(transport), [421])
        self.assertTrue(transport.half_closed)
        self.assertFalse(transport.aborted)
        self.clock.advance(LINGER)
        self.assertTrue(transport.aborted)

    def test_slow_command(self) -> None:
        """Octets alone do not keep a session alive: a command has to be complete in time."""
        protocol, transport = self.connect()
        for _ in range(61):
            protocol.dataReceived(b"x")
            self.clock.advance(1)
        self.assertEqual(self.codes(transport), [220, 421])

    def test_commands_keep_it_alive(self) -> None:
        """Every complete command begins the time anew."""
        protocol, transport = self.connect()
        for _ in range(10):
            self.clock.advance(50)
            protocol.dataReceived(b"NOOP\r\n")
        self.assertNotIn(421, self.codes(transport))

    def test_slow_message(self) -> None:
        """A message may come slowly, but not for ever."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        for _ in range(80):
            protocol.dataReceived(b"x")
            self.clock.advance(45)
        self.assertEqual(self.codes(transport)[-1], 421)
        self.assertEqual(self.factory.budget.used, 0)
        self.assertIn("421 4.4.2 the message took too long to arrive",
                      [reply for _, reply in self.reception.refusals])  # fmt: skip

    def test_long_session(self) -> None:
        """A session that has lasted too long is ended at its next command."""
        protocol, transport = self.connect(factory=self.listener(session_timeout=100.0))
        for _ in range(5):
            self.clock.advance(30)
            protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 250, 421])

    def test_client_that_does_not_read(self) -> None:
        """While a client does not take our replies nothing more of it is read, and not for ever."""
        protocol, transport = self.connect()
        protocol.pauseProducing()
        protocol.dataReceived(b"NOOP\r\n" * 3)
        self.assertEqual(transport.producerState, "paused")
        self.assertEqual(self.codes(transport), [220])
        protocol.resumeProducing()
        self.assertEqual(self.codes(transport), [250] * 3)
        self.assertEqual(transport.producerState, "producing")
        protocol.pauseProducing()
        self.clock.advance(60)
        self.assertTrue(transport.aborted)


class BoundsTests(ListenerTestCase):
    """Memory and connections."""

    def test_connections(self) -> None:
        """One connection too many gets a 421; it is logged once."""
        log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        factory = self.listener(max_connections=1)
        first, transport = self.connect(factory=factory)
        self.assertEqual(self.codes(transport), [220])
        for _ in range(3):
            extra, transport = self.connect(factory=factory)
            self.assertEqual(transport.value()[:9], b"421 4.3.2")
            self.assertTrue(transport.disconnecting)
            extra.connectionLost()
        self.assertEqual(len([event for event in log if event["log_level"].name == "warn"]), 1)
        first.connectionLost()
        _, transport = self.connect(factory=factory)
        self.assertEqual(self.codes(transport), [220])

    def test_budget(self) -> None:
        """What does not fit into the memory for messages gets a 452, at DATA or after it."""
        factory = self.listener(max_octets_in_reception=1000, max_message_size=1000)
        one, transport_one = self.connect(factory=factory)
        two, transport_two = self.connect(factory=factory)
        for each in (one, two):
            each.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        one.dataReceived(b"x" * 600)
        two.dataReceived(b"x" * 600)
        self.assertEqual(factory.budget.used, 600)
        three, transport_three = self.connect(factory=factory)
        three.dataReceived(
            HELLO + b"MAIL FROM:<a@b.example> SIZE=500\r\nRCPT TO:<c@d.example>\r\nDATA\r\n"
        )
        self.assertEqual(self.codes(transport_three)[-1], 452)
        two.dataReceived(b"\r\n.\r\n")
        one.dataReceived(b"\r\n.\r\n")
        self.assertEqual(self.codes(transport_two)[-1], 452)
        self.assertEqual(self.codes(transport_one)[-1], 250)
        self.assertEqual(factory.budget.used, 0)
        three.dataReceived(b"DATA\r\n")
        self.assertEqual(self.codes(transport_three), [354])

    def test_ten_megabytes_without_a_line_end(self) -> None:
        """A client that never ends its line is told so and sent away; nothing of it is kept."""
        protocol, transport = self.connect()
        for _ in range(160):
            protocol.dataReceived(b"x" * 65536)
        self.assertEqual(self.codes(transport), [220, 421])
        self.assertTrue(transport.half_closed)

    def test_bad_commands(self) -> None:
        """After too many bad commands the session is over."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"FOO\r\n" * 200)
        self.assertEqual(self.codes(transport), [220] + [500] * 25 + [421])


class TLSTests(ListenerTestCase):
    """STARTTLS as the protocol sees it; handshakes are tested with the contexts."""

    def test_required(self) -> None:
        """Where clients must show a certificate, mail waits for TLS (RFC 3207, 4)."""
        protocol, transport = self.connect(
            factory=self.listener(tls_required_client_ca="/etc/ca.pem")
        )
        protocol.dataReceived(HELLO + b"MAIL FROM:<>\r\nSTARTTLS\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 530, 220])
        protocol.dataReceived(HELLO + b"MAIL FROM:<>\r\n")
        self.assertEqual(self.codes(transport), [250, 250])

    def test_starttls(self) -> None:
        """After the 220 the transport is told to begin TLS, and the plain text is forgotten."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + b"MAIL FROM:<>\r\nSTARTTLS\r\nRSET\r\nNOOP\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 220])
        self.assertEqual(transport.tls, [self.tls])
        self.assertEqual(protocol.session.ehlo_domain, "")
        protocol.dataReceived(b"RCPT TO:<a@b.example>\r\n")
        self.assertEqual(self.codes(transport), [503])

    def test_none(self) -> None:
        """A listener without TLS does not offer it."""
        protocol, transport = self.connect(factory=self.listener(tls="none"))
        protocol.dataReceived(HELLO)
        self.assertNotIn(b"STARTTLS", transport.value())

    def test_failed_handshake_is_logged(self) -> None:
        """If there is no TLS after STARTTLS the log says with whom and why."""
        log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        protocol, _ = self.connect()
        protocol.dataReceived(b"STARTTLS\r\n")
        protocol.connectionLost(Failure(ConnectionDone("garbage")))
        self.assertEqual([event["peer"] for event in log], ["127.0.0.1:40000"])

    def test_implicit_needs_context(self) -> None:
        """Implicit TLS without a context is a mistake of the caller."""
        self.tls = None
        self.assertRaises(ValueError, self.listener, tls="implicit")


class ShutdownTests(ListenerTestCase):
    """stop_accepting."""

    def test_idle_sessions(self) -> None:
        """Idle clients are told at once; the Deferred fires when the last is gone."""
        one, transport = self.connect()
        two, _ = self.connect()
        done = self.factory.stop_accepting()
        self.assertEqual(self.codes(transport), [220, 421])
        self.assertNoResult(done)
        one.connectionLost()
        two.connectionLost()
        self.successResultOf(done)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_message_under_way(self) -> None:
        """A message under way is finished first, and then its client is sent away without being
        asked; an envelope is not."""
        one, transport_one = self.connect()
        one.dataReceived(HELLO + ENVELOPE + b"DATA\r\nSubject")
        two, transport_two = self.connect()
        two.dataReceived(HELLO + ENVELOPE)
        self.factory.stop_accepting()
        one.dataReceived(b": x\r\n.\r\n")
        self.assertEqual(self.codes(transport_one)[-2:], [250, 421])
        two.dataReceived(b"DATA\r\n")
        self.assertEqual(self.codes(transport_two)[-1], 421)

    def test_new_connections(self) -> None:
        """Whoever comes now is told to come again."""
        self.successResultOf(self.factory.stop_accepting())
        _, transport = self.connect()
        self.assertEqual(transport.value()[:9], b"421 4.3.2")

    def test_bounded(self) -> None:
        """Who does not go is cut off."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        done = self.factory.stop_accepting(10.0)
        self.clock.advance(10)
        self.assertTrue(transport.aborted)
        protocol.connectionLost()
        self.successResultOf(done)
