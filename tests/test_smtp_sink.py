"""Tests of the sink."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import IReception
from kumotwist.settings import declared
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.smtp.sink import SinkReception, sink_factory
from kumotwist.wire.smtp.replies import Reply

STRANGER = IPv4Address("TCP", "203.0.113.9", 40000)
ENVELOPE = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n"
REFUSAL = Reply.of(451, "4.3.2", "later")


class SinkTests(TestCase):
    """What a client meets."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)

    def send(self, messages: int = 1, **settings: Any) -> tuple[SinkReception, list[int]]:
        """Send messages to a sink: its reception, and the codes that the client got."""
        factory = sink_factory(self.clock, SinkSettings(name="trial", **settings), None, "sink")
        protocol = factory.buildProtocol(STRANGER)
        assert protocol is not None
        self.transport = StringTransport(peerAddress=STRANGER)
        protocol.makeConnection(self.transport)
        protocol.dataReceived(b"EHLO client.example\r\n")
        for _ in range(messages):
            protocol.dataReceived(ENVELOPE)
            protocol.dataReceived(b"Subject: x\r\n\r\n.\r\nRSET\r\n")
        reception = factory.reception
        assert isinstance(reception, SinkReception)
        return reception, self.codes()

    def codes(self) -> list[int]:
        """The codes that were written since the last look."""
        out = self.transport.value()
        self.transport.clear()
        return [int(code) for code in re.findall(rb"^(\d{3}) ", out, re.MULTILINE)]

    def lines(self) -> list[str]:
        """The lines in the log."""
        return [formatEvent(event) for event in self.log]

    def test_interface(self) -> None:
        """The sink is a reception."""
        verifyObject(IReception, SinkReception(self.clock, SinkSettings()))

    def test_takes_everything(self) -> None:
        """Anybody may send to any domain; one line per message says from where it came."""
        reception, codes = self.send(2)
        self.assertEqual(codes, [220, 250] + [250, 250, 250, 354, 250, 250] * 2)
        self.assertEqual(
            self.lines(),
            [
                "sink trial: from 203.0.113.9:40000 (client.example) ESMTP: <a@b.example> to "
                "c@d.example, e@f.example, 14 octets, no TLS"
            ]
            * 2,
        )
        self.assertEqual(
            dict(reception.counts),
            {"connections": 1, "messages": 2, "recipients": 4, "octets": 28},
        )

    def test_refuse_message(self) -> None:
        """Every message is refused after its dot, and the log says so."""
        reception, codes = self.send(refuse=REFUSAL)
        self.assertEqual(codes, [220, 250, 250, 250, 250, 354, 451, 250])
        self.assertEqual(
            self.lines(), ["sink trial: refused 203.0.113.9:40000 at .: 451 4.3.2 later"]
        )
        self.assertEqual(reception.counts["messages"], 0)

    def test_refuse_stages(self) -> None:
        """Connections, senders and recipients can be refused as well."""
        self.assertEqual(self.send(refuse=REFUSAL, refuse_at="connect")[1], [451])
        self.assertEqual(self.send(refuse=REFUSAL, refuse_at="mail")[1][:4], [220, 250, 451, 503])
        codes = self.send(refuse=REFUSAL, refuse_at="rcpt", refuse_every=2)[1]
        self.assertEqual(codes, [220, 250, 250, 250, 451, 354, 250, 250])

    def test_every_nth(self) -> None:
        """Every third message is refused."""
        codes = self.send(7, refuse=REFUSAL, refuse_every=3)[1]
        self.assertEqual(codes[2:][4::6], [250, 250, 451, 250, 250, 451, 250])

    def test_percentage(self) -> None:
        """So many of a hundred are refused, evenly spread and the same each time."""
        codes = self.send(10, refuse=REFUSAL, refuse_percent=30)[1]
        self.assertEqual(codes[2:][4::6].count(451), 3)
        self.assertEqual(self.send(10, refuse=REFUSAL, refuse_percent=30)[1], codes)
        self.assertNotIn(451, self.send(10, refuse=REFUSAL, refuse_percent=0)[1])

    def test_delay(self) -> None:
        """Answers are held back for as long as it was told."""
        self.assertEqual(self.send(delay=10.0)[1], [220, 250, 250, 250, 250, 354])
        self.clock.advance(10)
        self.assertEqual(self.codes(), [250, 250])
        self.assertEqual(self.send(delay=5.0, delay_at="connect")[1], [])
        self.clock.advance(5)
        self.assertEqual(self.codes()[:2], [220, 250])


class SettingsTests(TestCase):
    """What can be written into the configuration."""

    def test_refusal(self) -> None:
        """A refusal is a 4xx or 5xx, with an enhanced code that fits or without one."""
        kind = declared(SinkSettings)["refuse"][1].kind
        self.assertEqual(kind.parse("451 4.3.2 later"), REFUSAL)
        self.assertEqual(kind.parse("550 no"), Reply.of(550, None, "no"))
        self.assertEqual(kind.parse("421"), Reply.of(421, None, ""))
        self.assertEqual(kind.render(REFUSAL), "451 4.3.2 later")
        for text in ("250 ok", "4511 x", "later", "451 5.1.1 x", "451 a\x00", "600 x", "45\u0661"):
            self.assertRaises(ValueError, kind.parse, text)

    def test_relay_to(self) -> None:
        """Domains that anybody may send to: names, all below a name, or all."""
        kind = declared(ListenerSettings)["relay_to"][1].kind
        self.assertEqual(
            kind.parse("A.example, *.B\u00fccher.example\n*"),
            ("a.example", "*.xn--bcher-kva.example", "*"),
        )
        for text in ("*x.example", "a b", "*.", "a@b.example"):
            self.assertRaises(ValueError, kind.parse, text)

    def test_problems(self) -> None:
        """A certificate needs its key, a message must fit into the memory for messages."""
        self.assertEqual(list(ListenerSettings().problems()), [])
        self.assertEqual(list(SinkSettings().problems()), [])
        for settings, key in (
            (ListenerSettings(tls_certificate="x"), "tls_certificate"),
            (SinkSettings(tls_private_key="x"), "tls_private_key"),
            (ListenerSettings(max_message_size=10), "max_message_size"),
            (ListenerSettings(max_octets_in_reception=2048), "max_octets_in_reception"),
        ):
            self.assertEqual([problem.keys[0] for problem in settings.problems()], [key])
