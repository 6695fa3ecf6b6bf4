"""Tests of what is told of refusals: each of them, once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kumotwist.wire.smtp.replies import Reply
from tests.test_smtp_listener import ENVELOPE, HELLO, MESSAGE, OUTSIDE, ListenerTestCase

LATER = Reply.of(421, "4.3.2", "later")


class RejectionTests(ListenerTestCase):
    """Each refusal is told once, with the reply that was given and the command that it answers."""

    def refused(self, count: int = 1) -> tuple[str, str]:
        """The only refusal: its command, and the beginning of its reply."""
        self.assertEqual(len(self.reception.refusals), count, self.reception.refusals)
        command, reply = self.reception.refusals[-1]
        return command, reply[:9]

    def test_greeting(self) -> None:
        """A reception that is not ready, at once, late, too late, or broken."""
        late: Deferred[Reply | None] = Deferred()
        answers: tuple[Any, ...] = (LATER, late, Deferred(), ValueError("broken"))
        for number, answer in enumerate(answers, 1):
            self.reception.answers["connected"] = answer
            _, transport = self.connect()
            if answer is late:
                late.callback(LATER)
            self.clock.advance(301)
            self.assertEqual(self.codes(transport), [421])
            self.assertEqual(self.refused(number), ("", "421 4.3.2"))
        self.flushLoggedErrors(ValueError)

    def test_silent_handshake(self) -> None:
        """A client that says STARTTLS and nothing more gets no reply; the record says so."""
        protocol, transport = self.connect()
        protocol.dataReceived(b"EHLO c.example\r\nSTARTTLS\r\n")
        transport.clear()
        self.clock.advance(400)
        self.assertEqual(transport.value(), b"")
        self.assertTrue(transport.aborted)
        [(_, reply)] = self.reception.refusals
        self.assertEqual(reply, "421 4.4.2 no TLS handshake in time (the client got no reply)")

    def test_idle(self) -> None:
        """A client that says nothing, before and within a message."""
        for number, said in enumerate((b"", HELLO + ENVELOPE + b"DATA\r\n" + b"x"), 1):
            protocol, _ = self.connect()
            protocol.dataReceived(said)
            self.clock.advance(61)
            self.assertEqual(self.refused(number), ("", "421 4.4.2"))
            self.clock.advance(61)

    def test_answers(self) -> None:
        """A 421 in answer to a command, by the reception or the machine."""
        self.reception.answers["sender"] = LATER
        protocol, _ = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE)
        self.assertEqual(self.refused(), ("MAIL FROM:<a@b.example>", "421 4.3.2"))
        del self.reception.answers["sender"]
        protocol, _ = self.connect(OUTSIDE, self.listener(relay_to=("*",)))
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n" + MESSAGE)
        self.assertEqual(self.refused(2), ("DATA", "421 4.5.0"))
        protocol, _ = self.connect()
        protocol.dataReceived(b"x" * 70000)
        self.assertEqual(self.refused(3), ("", "421 4.7.0"))

    def test_shutdown(self) -> None:
        """Sessions that are idle, that have a transaction, and new ones."""
        self.connect()
        busy, _ = self.connect()
        busy.dataReceived(HELLO + ENVELOPE)
        self.factory.stop_accepting()
        self.assertEqual(self.refused(), ("", "421 4.3.2"))
        busy.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.refused(2), ("NOOP", "421 4.3.2"))
        self.connect()
        self.assertEqual(self.refused(3), ("", "421 4.3.2"))

    def test_envelope(self) -> None:
        """A refusal tells of which sender and recipients it speaks, as far as they are known."""
        self.reception.answers["recipient no@d.example"] = Reply.of(550, "5.1.1", "no")
        self.reception.answers["receive"] = Reply.of(554, "5.6.0", "spam")
        protocol, _ = self.connect(OUTSIDE, self.listener(relay_to=("d.example",)))
        protocol.dataReceived(HELLO + b"RCPT TO:<early@d.example>\r\n" + ENVELOPE)
        protocol.dataReceived(
            b"RCPT TO:<no@d.example>\r\nRCPT TO:<x@elsewhere.example>\r\nEXPN x\r\n"
            b"RCPT TO:<e@d.example>\r\nDATA\r\n"
        )
        protocol.dataReceived(MESSAGE)
        protocol.dataReceived(b"MAIL FROM:<>\r\n")
        self.clock.advance(61)
        self.reception.answers["sender"] = Reply.of(550, "5.1.8", "no")
        protocol, _ = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE)
        self.assertEqual(
            self.reception.envelopes,
            [
                ("",),
                ("a@b.example", "no@d.example"),
                ("a@b.example", "x@elsewhere.example"),
                ("a@b.example",),
                ("a@b.example", "c@d.example", "e@d.example"),
                ("",),
                ("a@b.example",),
                ("",),
            ],
        )

    def test_message(self) -> None:
        """Messages that are refused at their end, in one piece or in chunks."""
        self.reception.answers["receive"] = Reply.of(554, "5.6.0", "spam")
        protocol, _ = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"DATA\r\n")
        protocol.dataReceived(MESSAGE)
        self.assertEqual(self.refused(), (".", "554 5.6.0"))
        protocol.dataReceived(ENVELOPE + b"BDAT 2 LAST\r\n\r\n")
        self.assertEqual(self.refused(2), ("BDAT 2 LAST", "554 5.6.0"))
        protocol.dataReceived(ENVELOPE + b"BDAT 2\r\na\nBDAT 2 LAST\r\nb\n")
        self.assertEqual(self.refused(3), ("BDAT 2 LAST", "552 5.6.0"))

    def test_too_many_connections(self) -> None:
        """Connections that are more than there may be leave no trace in the records."""
        factory = self.listener(max_connections=1)
        self.connect(factory=factory)
        for _ in range(3):
            _, transport = self.connect(factory=factory)
            self.assertEqual(self.codes(transport), [421])
        self.assertEqual(self.reception.refusals, [])
