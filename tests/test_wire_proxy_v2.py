"""Tests for HAProxy's PROXY protocol, version 2 (proxy-protocol.txt, 2.2)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6
from proxyprotocol.v2 import ProxyProtocolV2
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.proxy_v2 import (
    MAX_LENGTH,
    SIGNATURE,
    Header,
    HeaderParser,
    Tlv,
    TlvType,
    encode_header,
)
from kumotwist.wire.socks5.format import Address

V4_SOURCE = Address(ipaddress.ip_address("10.0.0.2"), 0)
V4_DESTINATION = Address(ipaddress.ip_address("192.0.2.1"), 25)
V6_SOURCE = Address(ipaddress.ip_address("2001:db8::2"), 0)
V6_DESTINATION = Address(ipaddress.ip_address("2001:db8:1::1"), 587)

V4_HEADER = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c 0a000002 c0000201 0000 0019")


def parse(data: bytes, step: int) -> tuple[Header | None, bytes]:
    """Feed a parser in pieces; the header, if it is whole, and what follows it."""
    parser = HeaderParser()
    header: Header | None = None
    rest = bytearray()
    for start in range(0, len(data), step):
        if header is not None:
            rest += data[start : start + step]
            continue
        parser.receive_data(data[start : start + step])
        event = parser.next_event()
        if event is not NEED_DATA:
            header = event
            rest += parser.trailing_data
    return header, bytes(rest)


def header(command: int = 0x21, family: int = 0x11, body: bytes = b"", length: int = -1) -> bytes:
    """A header from its parts."""
    size = len(body) if length < 0 else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + body


class EncodeTests(SynchronousTestCase):
    """What is sent to HAProxy."""

    def test_ipv4(self) -> None:
        """The 28 octets of an IPv4 header, with source port 0."""
        self.assertEqual(encode_header(V4_SOURCE, V4_DESTINATION), V4_HEADER)

    def test_ipv6(self) -> None:
        """The 52 octets of an IPv6 header."""
        encoded = encode_header(V6_SOURCE, V6_DESTINATION)
        self.assertEqual(encoded[:16], SIGNATURE + b"\x21\x21\x00\x24")
        self.assertEqual(
            encoded[16:],
            bytes.fromhex("20010db8000000000000000000000002 20010db8000100000000000000000001")
            + b"\x00\x00\x02\x4b",
        )

    def test_impossible(self) -> None:
        """Names, mixed families, wrong ports and over-long facts cannot be said."""
        name = Address("mx.example.com", 25)
        for source, destination in (
            (V4_SOURCE, V6_DESTINATION),
            (V6_SOURCE, V4_DESTINATION),
            (V4_SOURCE, name),
            (name, V4_DESTINATION),
            (V4_SOURCE, Address(V4_DESTINATION.host, 65536)),
        ):
            self.assertRaises(LocalProtocolError, encode_header, source, destination)
        for tlvs in (
            [Tlv(TlvType.UNIQUE_ID, bytes(129))],
            [Tlv(256, b"")],
            [Tlv(TlvType.NOOP, bytes(65536))],
            [Tlv(TlvType.NOOP, bytes(40000))] * 2,
        ):
            self.assertRaises(
                LocalProtocolError, encode_header, V4_SOURCE, V4_DESTINATION, tlvs=tlvs
            )

    def test_tlvs(self) -> None:
        """Further facts follow the addresses and are counted in the length."""
        encoded = encode_header(
            V4_SOURCE, V4_DESTINATION, tlvs=[Tlv(TlvType.UNIQUE_ID, b"id"), Tlv(0xE0, b"")]
        )
        self.assertEqual(encoded[14:16], b"\x00\x14")
        self.assertEqual(encoded[28:], b"\x05\x00\x02id\xe0\x00\x00")

    def test_second_opinions(self) -> None:
        """Twisted's parser and proxy-protocol from PyPI read what we write; the latter agrees."""
        pairs: Any = ((V4_SOURCE, V4_DESTINATION), (V6_SOURCE, V6_DESTINATION))
        for source, destination in pairs:
            encoded = encode_header(source, destination)
            read: Any = V2Parser.parse(encoded)
            for mine, theirs in ((source, read.source), (destination, read.destination)):
                self.assertEqual((ipaddress.ip_address(theirs.host), theirs.port), mine)
            kind: Any = ProxyResultIPv4 if source.host.version == 4 else ProxyResultIPv6
            foreign = kind(source, destination, protocol=socket.SOCK_STREAM)
            self.assertEqual(encoded, ProxyProtocolV2().pack(foreign))


class ParseTests(SynchronousTestCase):
    """What a listener reads."""

    def assertReads(self, data: bytes, expected: Header) -> None:
        """Whole, octet by octet, and with a stream behind it, the header is the same."""
        for step in (1, 7, len(data) + 9):
            for stream in (b"", b"EHLO me\r\n"):
                self.assertEqual(parse(data + stream, step), (expected, stream))

    def assertRefuses(self, data: bytes, words: str) -> None:
        """Whole and octet by octet, this is not a header; it need not be complete to be refused."""
        for step in (1, len(data)):
            error = self.assertRaises(RemoteProtocolError, parse, data, step)
            if step > 1:
                self.assertIn(words, str(error))

    def test_round_trip(self) -> None:
        """What is written is read."""
        tlvs = (Tlv(TlvType.AUTHORITY, b"mx"), Tlv(TlvType.CRC32C, b"\0\0\0\0"), Tlv(0xE1, b""))
        self.assertReads(V4_HEADER, Header(False, V4_SOURCE, V4_DESTINATION))
        self.assertReads(
            encode_header(V6_SOURCE, V6_DESTINATION), Header(False, V6_SOURCE, V6_DESTINATION)
        )
        encoded = encode_header(V4_SOURCE, V4_DESTINATION, tlvs=tlvs)
        read, _ = parse(encoded, 999)
        assert read is not None
        self.assertEqual([tlv.type for tlv in read.tlvs], [2, 3, 0xE1])
        self.assertNotEqual(read.tlvs[1].value, b"\0\0\0\0")

    def test_local(self) -> None:
        """LOCAL means the connection itself, whatever addresses are in it."""
        self.assertReads(header(0x20, 0x00), Header(True, None, None))
        self.assertReads(header(0x20, 0x11, V4_HEADER[16:]), Header(True, None, None))
        self.assertReads(header(0x20, 0xFF, b"anything"), Header(True, None, None))

    def test_other_families(self) -> None:
        """Unspecified, datagram and Unix addresses are accepted and say nothing."""
        nothing = Header(False, None, None)
        self.assertReads(header(0x21, 0x00), nothing)
        self.assertReads(header(0x21, 0x00, b"12345"), nothing)
        self.assertReads(header(0x21, 0x12, bytes(12)), nothing)
        self.assertReads(header(0x21, 0x31, bytes(216)), nothing)

    def test_padding_is_skipped(self) -> None:
        """NOOP padding is skipped by its length."""
        padded = header(body=V4_HEADER[16:] + b"\x04\x00\x05xxxxx")
        self.assertReads(padded, Header(False, V4_SOURCE, V4_DESTINATION))

    def test_known_checksum(self) -> None:
        """The checksum is CRC32C: the RFC 3720 test vector of its polynomial gives its value."""
        from kumotwist.wire.proxy_v2 import _crc32c

        self.assertEqual(_crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(_crc32c(bytes(32)), 0x8A9136AA)

    def test_wrong_checksum(self) -> None:
        """A checksum that is wrong, of a wrong size, or given twice refuses the header."""
        tlv = [Tlv(TlvType.CRC32C, b"")]
        good = encode_header(V4_SOURCE, V4_DESTINATION, tlvs=tlv)
        self.assertRefuses(good[:-1] + bytes((good[-1] ^ 1,)), "checksum")
        self.assertRefuses(header(body=V4_HEADER[16:] + b"\x03\x00\x02xx"), "checksum")

    def test_not_a_header(self) -> None:
        """Anything else is refused at the first octet that differs; nothing is guessed."""
        self.assertRefuses(b"EHLO me\r\n", "not a PROXY header")
        self.assertRefuses(b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "not a PROXY header")
        self.assertRefuses(SIGNATURE[:11] + b"X", "not a PROXY header")

    def test_malformed(self) -> None:
        """Wrong versions, commands, families and lengths are refused."""
        self.assertRefuses(header(0x11), "version and command 11")
        self.assertRefuses(header(0x22), "version and command 22")
        self.assertRefuses(header(0x21, 0x41), "family 41")
        self.assertRefuses(header(0x21, 0x13, bytes(12)), "family 13")
        self.assertRefuses(header(0x21, 0x11, bytes(11)), "cut short")
        self.assertRefuses(header(0x21, 0x21, bytes(35)), "cut short")
        self.assertRefuses(header(0x21, 0x11, length=MAX_LENGTH + 1), "too long")
        self.assertRefuses(header(0x21, 0x11, bytes(14)), "TLV is cut short")
        self.assertRefuses(header(body=V4_HEADER[16:] + b"\x01\x00\x09x"), "longer than")

    def test_over_is_over(self) -> None:
        """After the header, or a violation, the parser takes nothing more."""
        parser = HeaderParser()
        parser.receive_data(V4_HEADER)
        parser.next_event()
        self.assertRaises(LocalProtocolError, parser.receive_data, b"x")
        self.assertRaises(LocalProtocolError, parser.next_event)
        broken = HeaderParser()
        broken.receive_data(b"x")
        self.assertRaises(RemoteProtocolError, broken.next_event)
        self.assertRaises(LocalProtocolError, broken.next_event)
        self.assertEqual(broken.trailing_data, b"")

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=300), st.booleans(), st.integers(1, 40))
    def test_any_octets(self, data: bytes, signed: bool, step: int) -> None:
        """Any octets in any pieces give a header, or a violation, or nothing yet: the same."""

        def outcome(step: int) -> object:
            try:
                return parse(octets, step)[0]
            except RemoteProtocolError:
                return "violation"

        octets = SIGNATURE + b"\x21\x11\x00" + data if signed else data
        self.assertEqual(outcome(step), outcome(max(1, len(octets))))
