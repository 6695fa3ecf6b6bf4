"""The last message of a session: QUIT goes with it, and its own fate is what it was without."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.python.failure import Failure

from kumotwist.smtp.client import OutgoingTransaction, TransactionOutcome
from kumotwist.wire.smtp.dialect import Dialect
from tests.queue_world import World
from tests.smtp_client_case import ACCEPTED, GROUP, MESSAGE, ClientCase

DOT = b"..hi\r\n.\r\n"


class LastMessageTests(ClientCase):
    """C{transmit(…, last=True)}."""

    def send_last(self, *extensions: bytes, message: OutgoingTransaction = MESSAGE) -> list[Any]:
        """Send a message as the last one, up to where the server asks for it; what comes of it."""
        self.open(*extensions)
        told: list[Any] = []
        self.client.transmit(message, told.append, last=True)
        return told

    def outcome(self, told: list[Any]) -> TransactionOutcome:
        """The one outcome."""
        self.assertEqual(len(told), 1)
        outcome: TransactionOutcome = told[0]
        self.assertIsInstance(outcome, TransactionOutcome)
        return outcome

    def test_one_write(self) -> None:
        """Message and QUIT are one write; the answers to both end the session in peace."""
        told = self.send_last(b"PIPELINING")
        self.said()
        self.client.dataReceived(ACCEPTED)
        self.assertEqual(self.transport.writes, [DOT + b"QUIT\r\n"])
        self.said()
        self.client.dataReceived(b"250 taken\r\n")
        outcome = self.outcome(told)
        self.assertTrue(all(result.delivered for result in outcome.results))
        self.assertTrue(outcome.session_usable, "the server has not ended it")
        self.assertFalse(self.client.usable)
        self.client.quit()
        self.assertEqual(self.said(), b"")
        self.assertFalse(self.transport.disconnecting)
        self.client.dataReceived(b"221 bye\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.lose()
        self.assertIsNone(self.client.failure)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_at_once(self) -> None:
        """Both answers may come in one piece."""
        told = self.send_last(b"PIPELINING")
        self.client.dataReceived(ACCEPTED)
        self.client.dataReceived(b"250 taken\r\n221 bye\r\n")
        self.assertTrue(self.outcome(told).session_usable)
        self.assertTrue(self.transport.disconnecting)
        self.assertIsNone(self.client.failure)

    def test_chunked(self) -> None:
        """With BDAT it is the same."""
        told = self.send_last(b"PIPELINING", b"CHUNKING")
        self.client.dataReceived(b"250 ok\r\n250 ok\r\n250 ok\r\n")
        self.assertTrue(self.said().endswith(b"BDAT 5 LAST\r\n.hi\r\nQUIT\r\n"))
        self.client.dataReceived(b"250 taken\r\n221 bye\r\n")
        self.assertTrue(self.outcome(told).results[0].delivered)
        self.assertIsNone(self.client.failure)

    def test_large(self) -> None:
        """QUIT comes behind a message that is sent in pieces."""
        body = b"x" * 70 + b"\r\n"
        told = self.send_last(b"PIPELINING", message=attrs.evolve(MESSAGE, body=body * 5000))
        self.said()
        self.client.dataReceived(ACCEPTED)
        while self.transport.producer is not None:
            self.transport.producer.resumeProducing()
        self.assertTrue(self.said().endswith(body + b".\r\nQUIT\r\n"))
        self.client.dataReceived(b"250 taken\r\n221 bye\r\n")
        self.assertTrue(self.outcome(told).results[0].delivered)

    def test_not_in_a_hurry(self) -> None:
        """Who takes no commands ahead of replies is told QUIT when everything is answered."""
        for extensions, options in (
            ((), {}),
            ((b"PIPELINING",), {"dialect": Dialect(pipelining=False)}),
        ):
            self.make(**options)
            told = self.send_last(*extensions)
            for reply in (b"250 ok\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                self.said()
                self.client.dataReceived(reply)
            self.assertEqual(self.said(), DOT)
            self.client.dataReceived(b"250 taken\r\n")
            self.outcome(told)
            self.client.quit()
            self.assertEqual(self.said(), b"QUIT\r\n")

    def test_nobody_is_accepted(self) -> None:
        """Where no message is sent QUIT waits to be asked for."""
        told = self.send_last(b"PIPELINING")
        self.assertEqual(self.said(), GROUP)
        self.client.dataReceived(b"250 ok\r\n550 no\r\n550 no\r\n503 no\r\n")
        self.assertEqual(self.said(), b"")
        self.assertTrue(self.outcome(told).session_usable)
        self.client.quit()
        self.assertEqual(self.said(), b"QUIT\r\n")

    def test_refused(self) -> None:
        """A message that is refused at its end is refused, whatever follows."""
        told = self.send_last(b"PIPELINING")
        self.client.dataReceived(ACCEPTED)
        self.client.dataReceived(b"554 no\r\n221 bye\r\n")
        outcome = self.outcome(told)
        self.assertEqual([result.reply.code for result in outcome.results], [554, 554])
        self.assertIsNone(self.client.failure)

    def test_421(self) -> None:
        """A server that ends the session instead of taking the message has ended it."""
        told = self.send_last(b"PIPELINING")
        self.client.dataReceived(ACCEPTED)
        self.client.dataReceived(b"421 going down\r\n")
        self.assertFalse(self.outcome(told).session_usable)
        self.assertTrue(self.transport.disconnecting)

    def test_no_answer_to_quit(self) -> None:
        """A server that says no more, or closes, has taken the message all the same."""
        for ends in ("silence", "close"):
            self.make()
            told = self.send_last(b"PIPELINING")
            self.client.dataReceived(ACCEPTED)
            self.client.dataReceived(b"250 taken\r\n")
            if ends == "close":
                self.lose()
            else:
                self.clock.advance(5)
                self.assertTrue(self.transport.disconnected)
            self.assertTrue(self.outcome(told).results[0].delivered)
            self.assertIsNone(self.client.failure)

    def test_lost_before_the_answer(self) -> None:
        """A connection that is lost behind the message leaves its fate open, as ever."""
        told = self.send_last(b"PIPELINING")
        self.client.dataReceived(ACCEPTED)
        self.lose()
        self.assertIsInstance(told[0], Failure)
        self.assertTrue(told[0].value.outcome.possible_duplicate)


class MostDeliveriesTests(ClientCase):
    """C{max_deliveries_per_connection}."""

    def test_connections(self) -> None:
        """Each connection carries so many messages and says QUIT with the last one."""
        world = World(
            {"b.example": ["MX 0 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]},
            path={"max_deliveries_per_connection": 2, "connection_limit": 1},
        )
        world.sink("192.0.2.1")
        for number in range(5):
            world.enqueue(f"u{number}@b.example")
        world.network.settle()
        self.assertEqual(world.kinds(), ["Delivery"] * 5)
        sessions = [record["session_id"] for record in world.records()]
        self.assertEqual(len(set(sessions)), 3)
        self.assertEqual(len(world.network.connections), 3)
