"""Tests of messages in chunks at a listener: memory, time, shutdown."""

from __future__ import annotations

from tests.test_smtp_listener import ENVELOPE, HELLO, ListenerTestCase


class ChunkTests(ListenerTestCase):
    """BDAT."""

    def test_message(self) -> None:
        """A message in chunks, all of it pipelined, is taken with one write of replies."""
        protocol, transport = self.connect()
        writes = transport.writes
        protocol.dataReceived(HELLO + ENVELOPE + b"BDAT 3\r\nab:BDAT 4 LAST\r\n c\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 250, 250])
        self.assertEqual(transport.writes, writes + 1)
        self.assertEqual(self.reception.received[0][1].body, b"ab: c\r\n")
        self.assertEqual(self.factory.budget.used, 0)

    def test_memory(self) -> None:
        """What waits between chunks counts; what does not fit gets a 452."""
        factory = self.listener(max_octets_in_reception=2000, max_message_size=2000)
        protocol, transport = self.connect(factory=factory)
        protocol.dataReceived(HELLO + ENVELOPE + b"BDAT 1500\r\n" + b"x" * 1500)
        self.assertEqual(factory.budget.used, 1500)
        other, second = self.connect(factory=factory)
        other.dataReceived(HELLO + ENVELOPE + b"BDAT 1000 LAST\r\n" + b"x" * 990)
        self.assertEqual(factory.budget.used, 1500)
        other.dataReceived(b"x" * 10)
        self.assertEqual(self.codes(second)[-1], 452)
        protocol.dataReceived(b"RSET\r\n")
        self.assertEqual(factory.budget.used, 0)
        self.assertEqual(self.codes(transport)[-2:], [250, 250])

    def test_memory_and_a_refused_chunk(self) -> None:
        """A chunk that is refused anyway is read and forgotten, also while there is no memory."""
        factory = self.listener(max_octets_in_reception=2000)
        factory.budget.used = 3000
        protocol, transport = self.connect(factory=factory)
        protocol.dataReceived(HELLO + b"BDAT 100\r\nabc")
        protocol.dataReceived(b"x" * 97 + b"NOOP\r\n")
        self.assertEqual(self.codes(transport)[-2:], [503, 250])

    def test_time(self) -> None:
        """A message has the same time in chunks as in one piece; silence is not endured."""
        factory = self.listener(data_timeout=100.0, client_timeout=30.0)
        protocol, transport = self.connect(factory=factory)
        protocol.dataReceived(HELLO + ENVELOPE)
        for _ in range(5):
            protocol.dataReceived(b"BDAT 1\r\nx")
            self.clock.advance(19)
        self.assertEqual(self.codes(transport), [220] + [250] * 8)
        protocol.dataReceived(b"BDAT 1\r\nx")
        self.clock.advance(6)
        self.assertIn(b"421 4.4.2 the message took too long", transport.value())

    def test_shutdown(self) -> None:
        """A message that has begun may come to its end."""
        protocol, transport = self.connect()
        protocol.dataReceived(HELLO + ENVELOPE + b"BDAT 2\r\nx:")
        self.factory.stop_accepting()
        self.codes(transport)
        protocol.dataReceived(b"BDAT 1\r\ny")
        protocol.dataReceived(b"BDAT 2 LAST\r\n\r\n" + b"NOOP\r\n")
        self.assertEqual(self.codes(transport), [250, 250, 421])
