"""What HAProxy is told of a connection: C{ha_proxy_tlvs}, from the text to the octets."""

from __future__ import annotations

import ipaddress
from typing import Any

from proxyprotocol.v2 import ProxyProtocolV2
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.header_facts import HEADER_FACTS, HeaderFact, header_tlvs
from kumotwist.egress.settings import SourceSettings
from kumotwist.egress.source import Source
from kumotwist.settings.types import HostPort
from kumotwist.wire.proxy_v2 import Tlv, TlvType
from tests.memory_network import MemoryNetwork

PROXY = HostPort("10.0.5.10", 2526)
ADDRESS = (ipaddress.ip_address("10.0.0.2"),)
DESTINATION = ipaddress.ip_address("192.0.2.1")


class FactTests(SynchronousTestCase):
    """The words of the configuration."""

    def test_words(self) -> None:
        """Facts are separated by commas and can be written back."""
        facts = HEADER_FACTS.parse("Unique-ID, authority, alpn=smtp")
        self.assertEqual(
            facts, (HeaderFact("unique-id"), HeaderFact("authority"), HeaderFact("alpn", "smtp"))
        )
        self.assertEqual(HEADER_FACTS.parse(HEADER_FACTS.render(facts)), facts)
        self.assertEqual(HEADER_FACTS.parse(""), ())

    def test_wrong_words(self) -> None:
        """What cannot be said is refused, and the text says what can."""
        for text, problem in (
            ("ssl", "none of unique-id, authority"),
            ("unique-id=7", "takes no value"),
            ("alpn", "alpn=smtp"),
            ("authority=", "has no value"),
            ("authority=a\x07b", "cannot be said"),
            ("alpn=" + "x" * 256, "up to 255"),
            ("authority, authority=mx.example", "given twice"),
        ):
            error = self.assertRaises(ValueError, HEADER_FACTS.parse, text)
            self.assertIn(problem, str(error))

    def test_values(self) -> None:
        """A connection's own facts are filled in; those that are not known are left out."""
        facts = HEADER_FACTS.parse("unique-id, authority, alpn=smtp")
        self.assertEqual(
            header_tlvs(facts, "session-7", "mx1.example"),
            (
                Tlv(TlvType.UNIQUE_ID, b"session-7"),
                Tlv(TlvType.AUTHORITY, b"mx1.example"),
                Tlv(TlvType.ALPN, b"smtp"),
            ),
        )
        for host in ("", "192.0.2.1", "2001:db8::1"):
            self.assertEqual(header_tlvs(facts, "", host), (Tlv(TlvType.ALPN, b"smtp"),))
        fixed = HEADER_FACTS.parse("authority=relay.example")
        self.assertEqual(
            header_tlvs(fixed, "s", "192.0.2.1"), (Tlv(TlvType.AUTHORITY, b"relay.example"),)
        )


class Listening(Factory):
    """Keeps what its connections say."""

    def __init__(self) -> None:
        self.said = b""

    def buildProtocol(self, addr: Any) -> Protocol:
        """A connection."""
        protocol = Protocol()
        protocol.dataReceived = self.hear  # type: ignore[method-assign]
        return protocol

    def hear(self, data: bytes) -> None:
        """Keep it."""
        self.said += data


class SourceTests(SynchronousTestCase):
    """The way from a source's settings to the header."""

    def header(self, **values: Any) -> bytes:
        """Connect through a source; give what the proxy was told first."""
        network, server = MemoryNetwork(), Listening()
        network.servers[PROXY.host, PROXY.port] = server
        source = Source.of(SourceSettings(name="ip-2", **values))
        endpoint = source.endpoint(
            network, DESTINATION, 25, 60.0, session_id="session-7", host_name="mx1.example"
        )
        endpoint.connect(Factory.forProtocol(Protocol))
        network.settle()
        return server.said

    def test_haproxy(self) -> None:
        """Another implementation reads the same facts from the header."""
        said = self.header(
            ha_proxy_server=(PROXY,),
            ha_proxy_source_address=ADDRESS,
            ha_proxy_tlvs=HEADER_FACTS.parse("unique-id, authority, alpn=smtp"),
        )
        result = ProxyProtocolV2().unpack(said)
        self.assertEqual(result.tlv.unique_id, b"session-7")
        self.assertEqual(result.tlv.authority, "mx1.example")
        self.assertEqual(result.tlv.alpn, b"smtp")

    def test_nothing_asked_for(self) -> None:
        """Without the key the header has the addresses and nothing else."""
        said = self.header(ha_proxy_server=(PROXY,), ha_proxy_source_address=ADDRESS)
        self.assertEqual(len(said), 28)

    def test_socks5(self) -> None:
        """A SOCKS5 greeting is the same whatever is known of the connection."""
        self.assertEqual(self.header(socks5_proxy_server=(PROXY,)), b"\x05\x01\x00")

    def test_without_haproxy(self) -> None:
        """The key without an HAProxy is a mistake, not silence."""
        settings = SourceSettings(name="a", ha_proxy_tlvs=HEADER_FACTS.parse("unique-id"))
        [problem] = settings.problems()
        self.assertEqual(problem.keys[0], "ha_proxy_tlvs")
