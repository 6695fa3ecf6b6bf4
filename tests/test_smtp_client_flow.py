"""The delivery protocol and time: large bodies, slow servers, deadlines."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SessionTimeout,
    TransactionOutcome,
)
from kumotwist.smtp.deadline import Deadline
from kumotwist.smtp.timeouts import Timeouts
from kumotwist.wire.smtp.data import CHUNK_SIZE, stuffed
from tests.smtp_client_case import MESSAGE, ClientCase, CountingTransport


class LargeBodyTests(ClientCase):
    """Bodies that do not fit into one write."""

    BODY = b".line of a large message\r\n" * 20000

    def begin(self, body: bytes) -> Deferred[TransactionOutcome]:
        """Come as far as the body."""
        self.open(b"PIPELINING")
        sent = self.client.send(OutgoingTransaction("", ("a@example.com",), body))
        self.said()
        self.client.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        return sent

    def test_back_pressure(self) -> None:
        """While the transport's buffer is full nothing is written."""

        class FullAfterEachWrite(CountingTransport):
            def write(self, data: bytes) -> None:
                super().write(data)
                if self.producer is not None:
                    self.producer.pauseProducing()

        self.transport = FullAfterEachWrite()
        self.client = ESMTPClient(self.clock, hostname="me.example")
        self.client.makeConnection(self.transport)
        sent = self.begin(self.BODY)
        pieces = 1
        wire = b""
        while self.transport.producer is not None:
            self.assertEqual(len(self.transport.writes), 1)
            self.assertLess(len(self.transport.writes[0]), 2 * CHUNK_SIZE)
            wire += self.said()
            self.clock.advance(170)  # progress: no timeout
            self.transport.producer.resumeProducing()
            pieces += 1
        wire += self.said()
        self.assertEqual(wire, stuffed(self.BODY))
        self.assertGreater(pieces, 5)
        self.client.dataReceived(b"250 ok\r\n")
        self.assertTrue(self.successResultOf(sent).results[0].delivered)

    def test_stalled_reader(self) -> None:
        """A server that stops reading is given up; the message cannot have been taken."""
        self.transport = CountingTransport()
        self.client = ESMTPClient(self.clock, hostname="me.example")
        self.client.makeConnection(self.transport)
        original = self.transport.registerProducer

        def register(producer: Any, streaming: bool) -> None:
            original(producer, streaming)
            producer.pauseProducing()

        self.patch(self.transport, "registerProducer", register)
        sent = self.begin(self.BODY)
        self.assertEqual(self.said(), b"")
        self.clock.advance(180)
        error = self.failure_of(sent, SessionTimeout)
        self.assertEqual(error.phase, "data")
        self.assertIn("sending the message body", error.text)
        self.assertFalse(error.possible_duplicate)
        self.assertIsNone(self.transport.producer)

    def test_refused_half_way(self) -> None:
        """A refusal before the end of the message is final; the rest is not sent."""
        original = self.transport.registerProducer

        def register(producer: Any, streaming: bool) -> None:
            original(producer, streaming)
            producer.pauseProducing()

        self.patch(self.transport, "registerProducer", register)
        sent = self.begin(self.BODY)
        self.client.dataReceived(b"552 5.3.4 too big\r\n")
        outcome = self.successResultOf(sent)
        self.assertEqual(outcome.replies[0].code, 552)
        self.assertTrue(outcome.results[0].permanent)
        self.assertFalse(outcome.session_usable)
        self.assertEqual(self.said(), b"")
        self.assertTrue(self.transport.disconnecting)

    def test_every_size_around_the_limit(self) -> None:
        """Bodies just below, at and above the size of a piece arrive as they are."""
        for size in range(CHUNK_SIZE - 2, CHUNK_SIZE + 3):
            self.make()
            body = b"x" * (size - 2) + b"\r\n"
            self.begin(body)
            self.assertEqual(self.said(), body + b".\r\n")

    def test_plain(self) -> None:
        """A message that is known to need no change goes in one piece, up to 128 KiB of it."""
        for size in (0, 10, CHUNK_SIZE + 1, 2 * CHUNK_SIZE):
            for end in (b"\r\n", b""):
                self.make()
                body = b"x" * (size - len(end)) + end if size else b""
                self.open(b"PIPELINING")
                self.client.transmit(
                    OutgoingTransaction("", ("a@example.com",), body, line_ends_checked=True,
                                        plain=True),
                    lambda outcome: None,
                )  # fmt: skip
                self.said()
                self.client.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
                self.assertEqual(len(self.transport.writes), 1)
                self.assertEqual(self.said(), stuffed(body))

    def test_plain_and_very_large(self) -> None:
        """Whatever is known of a very large message, it goes at the speed of its reader."""
        self.open(b"PIPELINING")
        body = b"line of a large message\r\n" * 20000
        transaction = OutgoingTransaction(
            "", ("a@example.com",), body, line_ends_checked=True, plain=True
        )
        sent = self.client.send(transaction)
        self.said()
        self.client.dataReceived(b"250 ok\r\n250 ok\r\n354 go\r\n")
        self.assertLess(max(map(len, self.transport.writes)), 2 * CHUNK_SIZE)
        self.assertEqual(self.said(), stuffed(body))
        self.client.dataReceived(b"250 ok\r\n")
        self.assertTrue(self.successResultOf(sent).results[0].delivered)


class TimeTests(ClientCase):
    """Deadlines."""

    def test_each_phase_has_its_own(self) -> None:
        """Every phase has its timeout, and the error says which one it was."""
        timeouts = Timeouts(
            ehlo_timeout=2, mail_from_timeout=3, rcpt_to_timeout=4, data_timeout=5,
            data_dot_timeout=6,
        )  # fmt: skip
        steps = [(b"", "mail", 3), (b"250 ok\r\n", "rcpt", 4), (b"250 ok\r\n", "rcpt", 4),
                 (b"250 ok\r\n", "data", 5), (b"354 go\r\n", "dot", 6)]  # fmt: skip
        self.lose()
        for number, (_, phase, seconds) in enumerate(steps):
            self.make(timeouts=timeouts)
            self.open(b"PIPELINING")
            sent = self.client.send(MESSAGE)
            for said, _, _ in steps[1 : number + 1]:
                self.clock.advance(1)
                self.client.dataReceived(said)
            self.clock.advance(seconds - 0.5)
            self.assertNoResult(sent)
            self.clock.advance(0.5)
            self.assertEqual(self.failure_of(sent, SessionTimeout).phase, phase)
            self.lose()
            self.assert_clean()

    def test_dripping(self) -> None:
        """A server that sends an octet a second gains nothing by it."""
        opened = self.client.open()
        for octet in b"220-" + b"x" * 56:
            self.client.dataReceived(bytes((octet,)))
            self.clock.advance(1)
        self.assertEqual(self.failure_of(opened, SessionTimeout).phase, "banner")

    def test_timer_is_not_remade(self) -> None:
        """A deadline that moves away leaves the timer alone; one that comes nearer moves it."""
        came: list[float] = []
        deadline = Deadline(self.clock, lambda: came.append(self.clock.seconds()))
        self.lose()
        deadline.set(10)
        (call,) = self.clock.getDelayedCalls()
        self.clock.advance(5)
        deadline.set(10)
        self.assertEqual(self.clock.getDelayedCalls(), [call])
        self.assertEqual(call.getTime(), 10)
        self.clock.advance(9)
        self.assertEqual(came, [])
        self.clock.advance(1)
        self.assertEqual(came, [15])
        self.assert_clean()
        deadline.set(10)
        deadline.set(2)
        self.clock.advance(2)
        self.assertEqual(came, [15, 17])
        deadline.set(1)
        deadline.stop()
        deadline.stop()
        self.clock.advance(5)
        self.assertEqual(len(came), 2)
        self.assert_clean()
