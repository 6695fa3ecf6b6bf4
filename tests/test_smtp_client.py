"""The delivery protocol against a scripted server: replies, time, loss, large bodies."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from zope.interface.verify import verifyObject

from kumotwist.smtp.body import BodyProducer
from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SessionLost,
    SessionProtocolError,
    SessionRefused,
    SessionTimeout,
    TransactionOutcome,
)
from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.smtp.data import stuffed
from tests.smtp_client_case import ACCEPTED, GROUP, MESSAGE, ClientCase, CountingTransport


class OpenTests(ClientCase):
    """The beginning of a session."""

    def test_interfaces(self) -> None:
        """The protocol listens for the end of handshakes; a body is a push producer."""
        verifyObject(IHandshakeListener, self.client)
        producer = BodyProducer(self.transport, iter((b"x",)), lambda: None, lambda: None)
        verifyObject(IPushProducer, producer)

    def test_open(self) -> None:
        """The session is open when EHLO is answered."""
        self.assertTrue(self.transport.no_delay)
        opened = self.client.open()
        self.assertFalse(self.client.heard)
        self.client.dataReceived(b"220 mx\r\n")
        self.assertTrue(self.client.heard)
        self.assertEqual(self.said(), b"EHLO me.example\r\n")
        self.assertNoResult(opened)
        self.assertFalse(self.client.usable)
        self.client.dataReceived(b"250-mx\r\n250 PIPELINING\r\n")
        self.assertTrue(self.successResultOf(opened).pipelining)
        self.assertEqual(str(self.client.greeting), "220 mx")
        self.assertTrue(self.client.usable)
        self.assertFalse(self.client.busy)

    def test_open_late(self) -> None:
        """It does not matter when the owner asks."""
        self.open()
        self.assertTrue(self.successResultOf(self.client.open()).esmtp)
        self.make()
        self.client.dataReceived(b"554 no\r\n")
        self.assertEqual(self.failure_of(self.client.open(), SessionRefused).phase, "banner")

    def test_refused(self) -> None:
        """A refused session says why, says QUIT and closes."""
        opened = self.client.open()
        self.client.dataReceived(b"554 5.7.1 bad reputation\r\n")
        error = self.failure_of(opened, SessionRefused)
        assert error.reply is not None
        self.assertEqual((error.phase, error.reply.code), ("banner", 554))
        self.assertEqual(self.client.greeting, error.reply)
        self.assertIn("initial server greeting: 554 5.7.1 bad reputation", error.text)
        self.assertEqual(self.said(), b"QUIT\r\n")
        self.client.dataReceived(b"221 bye\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_silence(self) -> None:
        """A server that does not greet is given up, in its own words."""
        opened = self.client.open()
        self.clock.advance(59)
        self.assertNoResult(opened)
        self.clock.advance(1)
        error = self.failure_of(opened, SessionTimeout)
        self.assertEqual(error.phase, "banner")
        self.assertIn("timed out after 60 s while receiving the initial", error.text)
        self.assertTrue(self.transport.disconnecting)
        self.assertFalse(self.client.heard)
        self.lose()
        self.assert_clean()

    def test_lost_before_greeting(self) -> None:
        """A connection that is closed before the greeting is lost, and nothing was heard."""
        opened = self.client.open()
        self.lose(ConnectionLost("reset by peer"))
        error = self.failure_of(opened, SessionLost)
        self.assertEqual(error.phase, "banner")
        self.assertIn("reset by peer", error.text)
        self.assertIsInstance(error.__cause__, ConnectionLost)
        self.assert_clean()

    def test_no_smtp_server(self) -> None:
        """Something else on the port is a protocol error with a bounded, safe text."""
        opened = self.client.open()
        self.client.dataReceived(b"SSH-2.0-\x1b[2J" + b"x" * 9999 + b"\r\n")
        error = self.failure_of(opened, SessionProtocolError)
        self.assertLess(len(error.text), 401)
        self.assertNotIn("\x1b", error.text)
        self.assertTrue(self.transport.disconnecting)

    def test_names(self) -> None:
        """Log lines name the server."""
        self.assertEqual(self.client.logPrefix(), "ESMTPClient")
        self.assertIn("mx.example.com", self.make(peer_name="mx.example.com").logPrefix())


class SendTests(ClientCase):
    """Transactions."""

    def setUp(self) -> None:
        super().setUp()
        self.open(b"PIPELINING")

    def test_three_writes(self) -> None:
        """With PIPELINING a message is two writes: the envelope, the body with its dot."""
        sent = self.client.send(MESSAGE)
        self.assertEqual(self.transport.writes, [GROUP])
        self.assertTrue(self.client.busy)
        self.said()
        self.client.dataReceived(ACCEPTED)
        self.assertEqual(self.transport.writes, [stuffed(MESSAGE.body)])
        self.client.dataReceived(b"250 2.0.0 queued\r\n")
        outcome = self.successResultOf(sent)
        self.assertEqual([reply.code for reply in outcome.replies], [250, 250])
        self.assertTrue(outcome.session_usable)
        self.assertEqual(self.client.messages_sent, 1)

    def test_next_from_the_callback(self) -> None:
        """The next message may be sent as soon as the last one's outcome is told."""
        outcomes: list[TransactionOutcome] = []

        def again(outcome: TransactionOutcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) < 3:
                self.client.send(MESSAGE).addCallback(again)

        self.client.send(MESSAGE).addCallback(again)
        for _ in range(3):
            self.assertEqual(self.said(), GROUP)
            self.client.dataReceived(ACCEPTED)
            self.said()
            self.client.dataReceived(b"250 ok\r\n")
        self.assertEqual(len(outcomes), 3)
        self.assertEqual(self.client.messages_sent, 3)

    def test_one_thing_at_a_time(self) -> None:
        """Asking for a second thing while one is under way is the caller's mistake."""
        self.client.send(MESSAGE)
        self.assertRaises(LocalProtocolError, self.client.send, MESSAGE)

    def test_local_refusal(self) -> None:
        """A message that must not be sent has its outcome at once, and the session lives."""
        message = OutgoingTransaction("", ("a@example.com",), "ä".encode())
        outcome = self.successResultOf(self.client.send(message))
        self.assertTrue(outcome.results[0].local)
        self.assertTrue(outcome.session_usable)
        self.assertEqual(self.said(), b"")
        self.assertEqual(self.client.messages_sent, 0)

    def test_refused(self) -> None:
        """A refused message leaves the session usable; RSET goes before the next one."""
        sent = self.client.send(MESSAGE)
        self.client.dataReceived(b"250 ok\r\n550 no\r\n551 no\r\n554 no\r\n")
        outcome = self.successResultOf(sent)
        self.assertEqual([reply.code for reply in outcome.replies], [550, 551])
        self.assertTrue(outcome.session_usable)
        self.said()
        sent = self.client.send(MESSAGE)
        self.assertEqual(self.said(), b"RSET\r\n")
        self.clock.advance(5)
        error = self.failure_of(sent, SessionTimeout)
        self.assertEqual((error.phase, error.outcome), ("rset", None))

    def test_421(self) -> None:
        """421 is the fate of those who had none; the connection is closed."""
        sent = self.client.send(MESSAGE)
        self.client.dataReceived(b"250 ok\r\n550 no\r\n421 4.3.2 going down\r\n")
        outcome = self.successResultOf(sent)
        self.assertEqual([reply.code for reply in outcome.replies], [550, 421])
        self.assertFalse(outcome.session_usable)
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assertIsNone(self.client.failure)
        self.failure_of(self.client.send(MESSAGE), SessionLost)
        self.assert_clean()

    def test_lost_in_the_middle(self) -> None:
        """Who has been refused before the connection was lost stays refused."""
        sent = self.client.send(MESSAGE)
        self.client.dataReceived(b"250 ok\r\n550 5.1.1 no\r\n")
        self.lose(ConnectionLost())
        error = self.failure_of(sent, SessionLost)
        self.assertEqual(error.phase, "rcpt")
        self.assertEqual({index: reply.code for index, reply in error.partial.items()}, {0: 550})
        self.assertFalse(error.possible_duplicate)
        assert error.outcome is not None
        self.assertEqual(error.outcome.replies[1].code, 421)
        self.assertIn("lost connection while sending RCPT TO", error.outcome.replies[1].content)

    def test_lost_with_everything_decided(self) -> None:
        """A server that refuses the sender and hangs up has answered."""
        sent = self.client.send(MESSAGE)
        self.client.dataReceived(b"550 no\r\n")
        self.lose()
        outcome = self.successResultOf(sent)
        self.assertEqual([reply.code for reply in outcome.replies], [550, 550])
        self.assertFalse(outcome.session_usable)

    def test_lost_after_the_dot(self) -> None:
        """Without a reply to the final dot nobody knows: it is said in so many words."""
        for silent in (False, True):
            sent = self.client.send(MESSAGE)
            self.client.dataReceived(ACCEPTED)
            if silent:
                self.clock.advance(599)
                self.assertNoResult(sent)
                self.clock.advance(1)
                error = self.failure_of(sent, SessionTimeout)
            else:
                self.lose()
                error = self.failure_of(sent, SessionLost)
            self.assertEqual(error.phase, "dot")
            self.assertTrue(error.possible_duplicate)
            self.assertIn("may be sent more than once", error.text)
            self.make()
            self.open(b"PIPELINING")

    def test_delivered_then_lost(self) -> None:
        """250 and then anything else is delivered."""
        for extra in (b"421 bye\r\n", b"250 what\r\n", b"garbage\r\n"):
            sent = self.client.send(MESSAGE)
            self.client.dataReceived(ACCEPTED)
            self.client.dataReceived(b"250 ok\r\n" + extra)
            outcome = self.successResultOf(sent)
            self.assertEqual([reply.code for reply in outcome.replies], [250, 250])
            self.assertFalse(outcome.session_usable)
            self.assertTrue(self.transport.disconnecting)
            self.make()
            self.open(b"PIPELINING")

    def test_out_of_step(self) -> None:
        """Replies that cannot be answers end the session; nobody is told delivered."""
        sent = self.client.send(MESSAGE)
        self.client.dataReceived(b"250 ok\r\n250 ok\r\n250 ok\r\n250 queued\r\n")
        error = self.failure_of(sent, SessionProtocolError)
        self.assertEqual(error.phase, "data")
        self.assertTrue(self.transport.disconnecting)

    def test_cancel(self) -> None:
        """Cancelling closes the connection at once."""
        sent = self.client.send(MESSAGE)
        sent.cancel()
        self.failureResultOf(sent, CancelledError)
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assert_clean()

    def test_abort(self) -> None:
        """Aborting fails what is under way."""
        sent = self.client.send(MESSAGE)
        self.client.abort()
        self.failure_of(sent, SessionLost)
        self.client.abort()
        self.lose()
        self.assert_clean()


class IdleTests(ClientCase):
    """Between transactions, and the end."""

    def setUp(self) -> None:
        super().setUp()
        self.open(b"PIPELINING")
        self.told: list[str] = []
        self.client.on_idle_close = lambda: self.told.append("closed")

    def test_closed_by_server(self) -> None:
        """The owner is told once when the server closes an idle connection."""
        self.lose()
        self.assertEqual(self.told, ["closed"])
        self.assertFalse(self.client.usable)
        self.assertIsInstance(self.client.failure, SessionLost)
        self.failure_of(self.client.send(MESSAGE), SessionLost)
        self.assert_clean()

    def test_421(self) -> None:
        """A 421 while idle is the same, with a reply."""
        self.client.dataReceived(b"421 4.4.2 idle too long\r\n")
        self.assertEqual(self.told, ["closed"])
        failure = self.client.failure
        assert isinstance(failure, SessionRefused)
        assert failure.reply is not None
        self.assertEqual((failure.phase, failure.reply.code), ("idle", 421))
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assertEqual(self.told, ["closed"])
        self.assert_clean()

    def test_unasked_reply(self) -> None:
        """Any other word from the server while idle ends the session."""
        self.client.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.told, ["closed"])
        self.assertIsInstance(self.client.failure, SessionProtocolError)

    def test_idle_too_long(self) -> None:
        """An idle connection is given up with QUIT after C{idle_timeout}."""
        self.clock.advance(60)
        self.assertEqual(self.told, ["closed"])
        self.assertEqual(self.said(), b"QUIT\r\n")
        self.client.dataReceived(b"221 bye\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assert_clean()

    def test_quit(self) -> None:
        """QUIT is said, its answer awaited for a moment, and nobody is told."""
        self.client.quit()
        self.client.quit()
        self.assertEqual(self.said(), b"QUIT\r\n")
        self.assertFalse(self.transport.disconnecting)
        self.clock.advance(5)
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assertEqual(self.told, [])
        self.assertIsNone(self.client.failure)
        self.assert_clean()

    def test_quit_at_any_time(self) -> None:
        """QUIT never fails: with something under way the connection is dropped."""
        sent = self.client.send(MESSAGE)
        self.client.quit()
        self.failure_of(sent, SessionLost)
        self.make().quit()
        self.assertTrue(self.transport.disconnecting)
        client = ESMTPClient(self.clock, hostname="me.example")
        client.abort()
        transport = CountingTransport()
        client.makeConnection(transport)
        self.assertTrue(transport.disconnecting)
