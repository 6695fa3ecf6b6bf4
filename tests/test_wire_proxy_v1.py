"""Tests for the PROXY protocol's version 1, and for telling the versions apart."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.proxy_v1 import MAX_LINE, AnyHeaderParser, parse_line
from kumotwist.wire.proxy_v2 import Header, encode_header
from kumotwist.wire.socks5.format import Address

SOURCE = Address(ipaddress.ip_address("192.0.2.1"), 56324)
DESTINATION = Address(ipaddress.ip_address("198.51.100.1"), 25)
LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n"
LONGEST = (
    b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
    b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
)


def parse(data: bytes, step: int) -> tuple[Header | None, bytes]:
    """Feed a parser in pieces; the header, if it is whole, and what follows it."""
    parser = AnyHeaderParser()
    header: Header | None = None
    rest = b""
    for start in range(0, len(data), step):
        if header is not None:
            rest += data[start : start + step]
            continue
        parser.receive_data(data[start : start + step])
        event = parser.next_event()
        if event is not NEED_DATA:
            header = event
            rest += parser.trailing_data
    return header, rest


class HeaderTests(SynchronousTestCase):
    """Good headers."""

    def test_cuts(self) -> None:
        """Both versions, whole, byte by byte and with trailing bytes, say the same."""
        for octets in (LINE, encode_header(SOURCE, DESTINATION)):
            for step in (1, 2, 5, 200):
                for trailing in (b"", b"EHLO x\r\n", b"\r\n", b"PROXY"):
                    header, rest = parse(octets + trailing, step)
                    assert header is not None
                    self.assertEqual((header.source, header.destination), (SOURCE, DESTINATION))
                    self.assertEqual(rest, trailing)

    def test_ipv6(self) -> None:
        """TCP6 carries IPv6 addresses, and mapped ones."""
        header = parse_line(b"PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 1 65535")
        self.assertEqual(str(header.source and header.source.host), "2001:db8::1")

    def test_unknown(self) -> None:
        """UNKNOWN has no addresses, whatever follows it."""
        self.assertEqual(len(LONGEST), MAX_LINE)
        for line in (b"PROXY UNKNOWN\r\n", LONGEST):
            for step in (1, 200):
                header, rest = parse(line + b"x", step)
                assert header is not None
                self.assertFalse(header.local)
                self.assertIsNone(header.source)
                self.assertEqual(rest, b"x")

    def test_once(self) -> None:
        """There is one header."""
        parser = AnyHeaderParser()
        parser.receive_data(LINE)
        parser.next_event()
        self.assertRaises(LocalProtocolError, parser.next_event)


class WrongHeaderTests(SynchronousTestCase):
    """Bad headers."""

    def test_wrong(self) -> None:
        """What is no header is refused, as soon as that is clear."""
        for wrong in (
            b"EHLO x\r\n", b"Q", b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY\r\n",
            b"PROXY TCP4\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", LINE.replace(b" 25", b" 65536"),
            LINE.replace(b" 25", b" 025"), LINE.replace(b" 25", b" +5"),
            LINE.replace(b"TCP4", b"TCP6"),
            LINE.replace(b"192.0.2.1", b"192.0.2.256"), LINE.replace(b" 25", b" 25 "),
            LINE.replace(b" 25", b"  25"), LINE.replace(b"TCP4", b"UDP4"), b"PROXY UNKNOWNX\r\n",
            b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", b"PROXY UNKNOWN " + b"x" * 100,
            LONGEST.replace(b" 65535\r\n", b" 655355\r\n"), LINE.replace(b"\r\n", b"\n") * 9,
        ):  # fmt: skip
            for step in (1, 300):
                self.assertRaises(RemoteProtocolError, parse, wrong, step)

    def test_unfinished(self) -> None:
        """A header that has not ended is waited for."""
        for octets in (LINE, encode_header(SOURCE, DESTINATION)):
            for end in range(1, len(octets)):
                self.assertEqual(parse(octets[:end], 300), (None, b""))

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.binary(max_size=30) | st.sampled_from([b"PROXY ", b"TCP4 ", LINE, b"\r\n"])),
        st.integers(1, 40),
    )
    def test_any_stream(self, parts: list[bytes], step: int) -> None:
        """Whatever comes, the only error is the protocol's, and cuts make no difference."""
        data = b"".join(parts)

        def outcome(size: int) -> object:
            try:
                return parse(data, size)
            except RemoteProtocolError:
                return "refused"

        self.assertEqual(outcome(step), outcome(len(data) + 1))
