"""Tests of clients that come through others: the PROXY header and XCLIENT."""

from __future__ import annotations

import ipaddress
from types import MappingProxyType
from typing import Any

from twisted.internet.address import IPv4Address

from kumotwist.settings.layers import Rule
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.wire.proxy_v2 import SIGNATURE, encode_header
from kumotwist.wire.smtp.commands import CommandRefusedError
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.xclient import XClientFacts, read_xclient
from tests.test_smtp_listener import ENVELOPE, HELLO, INSIDE, OUTSIDE, ListenerTestCase
from tests.test_wire_proxy_v1 import DESTINATION, LINE, SOURCE

PROXY = IPv4Address("TCP", "203.0.113.9", 40000)
NETWORK = (ipaddress.ip_network("203.0.113.9/32"),)
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


class ProxyTests(ListenerTestCase):
    """The PROXY protocol at the door."""

    def proxied(self, **settings: Any) -> ESMTPListenerFactory:
        """A listener that trusts the proxy."""
        return self.listener(trusted_proxies=NETWORK, **settings)

    def test_header_first(self) -> None:
        """Nothing is said before the header is there; then the client is whom it names."""
        for header in (LINE, encode_header(SOURCE, DESTINATION)):
            for step in (1, 7, 200):
                protocol, transport = self.connect(PROXY, self.proxied())
                for at in range(0, len(header), step):
                    self.assertEqual(transport.value(), b"")
                    protocol.dataReceived(header[at : at + step])
                self.assertEqual(transport.value()[:4], b"220 ")
                session = protocol.session
                self.assertEqual(session.peer, ("192.0.2.1", 56324))
                self.assertEqual(session.local, ("198.51.100.1", 25))
                self.assertEqual(session.proxy, ("203.0.113.9", 40000))
                self.assertFalse(session.may_relay)

    def test_client_octets_behind_it(self) -> None:
        """What the client sent with the header is heard after the greeting."""
        protocol, transport = self.connect(PROXY, self.proxied())
        protocol.dataReceived(LINE + HELLO + b"NOOP\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250])
        self.assertEqual(transport.producerState, "producing")

    def test_relaying_follows_the_client(self) -> None:
        """That the proxy itself may relay says nothing of the client, and the other way round."""
        factory = self.proxied(relay_hosts=(ipaddress.ip_network("203.0.113.0/24"),))
        protocol, transport = self.connect(PROXY, factory)
        protocol.dataReceived(LINE + HELLO + ENVELOPE)
        self.assertEqual(self.codes(transport), [220, 250, 250, 550])
        factory = self.proxied(relay_hosts=(ipaddress.ip_network("192.0.2.1"),))
        protocol, transport = self.connect(PROXY, factory)
        protocol.dataReceived(LINE + HELLO + ENVELOPE)
        self.assertEqual(self.codes(transport), [220, 250, 250, 250])

    def test_without_addresses(self) -> None:
        """LOCAL and UNKNOWN leave the client who it is: the proxy."""
        for header in (LOCAL, b"PROXY UNKNOWN\r\n", SIGNATURE + b"\x21\x00\x00\x00"):
            protocol, transport = self.connect(PROXY, self.proxied())
            protocol.dataReceived(header)
            self.assertEqual(transport.value()[:4], b"220 ")
            self.assertEqual(protocol.session.peer.host, "203.0.113.9")
            self.assertIsNone(protocol.session.proxy)

    def test_no_header(self) -> None:
        """A proxy that sends none, or nonsense, is dropped without a word."""
        for wrong in (HELLO, b"\x16\x03\x01", b"PROXY TCP4 x\r\n", SIGNATURE + b"\x99\x11\x00\x0c"):
            protocol, transport = self.connect(PROXY, self.proxied())
            protocol.dataReceived(wrong)
            protocol.dataReceived(HELLO)
            self.assertTrue(transport.aborted)
            self.assertEqual(transport.value(), b"")

    def test_no_header_in_time(self) -> None:
        """A header that comes octet by octet has no more time than one that does not come."""
        protocol, transport = self.connect(PROXY, self.proxied(client_timeout=10.0))
        for octet in LINE[:9]:
            protocol.dataReceived(bytes([octet]))
            self.clock.advance(1)
        self.assertFalse(transport.aborted)
        self.clock.advance(2)
        self.assertTrue(transport.aborted)
        self.assertEqual(transport.value(), b"")

    def test_others(self) -> None:
        """Nobody else's header is read: with C{require_proxy_protocol} they are dropped."""
        protocol, transport = self.connect(INSIDE, self.proxied())
        protocol.dataReceived(LINE)
        self.assertEqual(self.codes(transport), [220, 500])
        self.assertEqual(protocol.session.peer.host, "127.0.0.1")
        _, transport = self.connect(INSIDE, self.proxied(require_proxy_protocol=True))
        self.assertEqual((transport.value(), transport.aborted), (b"", True))

    def test_terms_of_the_client(self) -> None:
        """What holds for the client's network holds behind the proxy as well."""
        settings = ListenerSettings(name="main").with_peers(
            [
                Rule(NETWORK[0], MappingProxyType({"require_proxy_protocol": True})),
                Rule(ipaddress.ip_network("192.0.2.0/24"), MappingProxyType({"banner": "near"})),
            ]
        )
        factory = ESMTPListenerFactory(self.clock, settings, self.reception, self.tls, "mx.ex")
        protocol, transport = self.connect(PROXY, factory)
        protocol.dataReceived(LINE)
        self.assertEqual(transport.value(), b"220 mx.ex near\r\n")
        _, transport = self.connect(INSIDE, factory)
        self.assertEqual(transport.value(), b"220 mx.ex kumotwist\r\n")

    def test_implicit_tls(self) -> None:
        """The header comes before the handshake, and what follows it belongs to that."""
        protocol, transport = self.connect(PROXY, self.proxied(tls="implicit"))
        heard: list[bytes] = []

        class Layer:
            def dataReceived(self, data: bytes) -> None:
                heard.append(data)

        transport.protocol = Layer()  # type: ignore[attr-defined]
        protocol.dataReceived(LINE + b"\x16\x03\x01")
        self.assertEqual(transport.tls, [self.tls])
        self.assertEqual(heard, [b"\x16\x03\x01"])
        self.assertEqual(protocol.session.peer.host, "192.0.2.1")
        _, transport = self.connect(INSIDE, self.proxied(tls="implicit"))
        self.assertEqual(transport.tls, [self.tls])


class XClientTests(ListenerTestCase):
    """XCLIENT."""

    def test_another_client(self) -> None:
        """A trusted server says for whom it speaks; the session begins anew with that client."""
        protocol, transport = self.connect(INSIDE, self.listener(allow_xclient=True))
        protocol.dataReceived(HELLO)
        self.assertIn(b"250-XCLIENT NAME ADDR PORT HELO DESTADDR DESTPORT\r\n", transport.value())
        self.codes(transport)
        before = protocol.session.session_id
        protocol.dataReceived(
            b"XCLIENT ADDR=203.0.113.7 PORT=99 NAME=x.example HELO=[UNAVAILABLE]"
            b" DESTADDR=IPV6:2001:db8::25 DESTPORT=587\r\nMAIL FROM:<>\r\n" + HELLO + ENVELOPE
        )
        self.assertEqual(self.codes(transport), [220, 503, 250, 250, 550])
        session = protocol.session
        self.assertEqual(session.peer, ("203.0.113.7", 99))
        self.assertEqual(session.local, ("2001:db8::25", 587))
        self.assertEqual(session.proxy, ("127.0.0.1", 40000))
        self.assertEqual(session.session_id, before)

    def test_terms_of_the_client(self) -> None:
        """Who was spoken for gets its own network's terms: it need not be allowed to go on so."""
        settings = ListenerSettings(name="main").with_peers(
            [Rule(ipaddress.ip_network("127.0.0.0/8"), MappingProxyType({"allow_xclient": True}))]
        )
        factory = ESMTPListenerFactory(self.clock, settings, self.reception, self.tls, "mx.ex")
        protocol, transport = self.connect(INSIDE, factory)
        protocol.dataReceived(HELLO + b"XCLIENT ADDR=203.0.113.7\r\nXCLIENT ADDR=127.0.0.1\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 220, 500])

    def test_refused(self) -> None:
        """Not from others, not within a transaction, not with nonsense."""
        protocol, transport = self.connect(OUTSIDE)
        protocol.dataReceived(HELLO + b"XCLIENT ADDR=127.0.0.1\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 500])
        self.assertFalse(protocol.session.may_relay)
        protocol, transport = self.connect(INSIDE, self.listener(allow_xclient=True))
        protocol.dataReceived(HELLO + ENVELOPE + b"XCLIENT ADDR=10.0.0.1\r\nRSET\r\nXCLIENT\r\n")
        self.assertEqual(self.codes(transport), [220, 250, 250, 250, 503, 250, 501])

    def test_not_welcome(self) -> None:
        """The reception is asked about the new client."""
        protocol, transport = self.connect(INSIDE, self.listener(allow_xclient=True))
        self.reception.answers["connected"] = Reply.of(421, "4.3.2", "not you")
        protocol.dataReceived(b"XCLIENT ADDR=10.0.0.1\r\nNOOP\r\n")
        self.assertEqual(self.codes(transport), [220, 421])
        self.assertEqual(self.reception.refusals, [("XCLIENT", "421 4.3.2 not you")])

    def test_many(self) -> None:
        """Thousands of them in one segment are answered one by one."""
        protocol, transport = self.connect(INSIDE, self.listener(allow_xclient=True))
        protocol.dataReceived(b"XCLIENT PORT=1\r\n" * 3000)
        self.assertEqual(self.codes(transport), [220] * 3001)

    def test_arguments(self) -> None:
        """Attributes in any case and order, xtext in values, IPv6 with its prefix."""
        self.assertEqual(
            read_xclient("addr=IPV6:2001:DB8::1 Port=25 DESTPORT=[UNAVAILABLE] NAME=a+20b"),
            XClientFacts("2001:db8::1", 25, None, None),
        )
        for wrong in (
            "", "ADDR", "ADDR=", "ADDR=x", "ADDR=1.2.3.4 ADDR=1.2.3.4", "PORT=x", "PORT=65536",
            "PROTO=ESMTP", "LOGIN=me", "NAME=a+0Ab", "PORT=-1", "ADDR=10.0.0.1:25",
        ):  # fmt: skip
            self.assertRaises(CommandRefusedError, read_xclient, wrong)
