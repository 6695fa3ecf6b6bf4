"""A look at a header: fields, hops, 8-bit; and the domain of an address."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message import (
    has_header,
    header_end,
    header_facts,
    header_fields,
    header_value,
    is_8bit,
)

MESSAGE = (
    b"Received: from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"received : from c by d\r\n"
    b"Received-SPF: pass\r\n"
    b"Subject: hello\r\n there\r\n"
    b"X-Empty:\r\n"
    b"\r\n"
    b"Received: this is text\r\n"
)


class WaivedTLSTests(SynchronousTestCase):
    """C{TLS-Required: No} (RFC 8689, 3)."""

    def test_values(self) -> None:
        """Only one field that says No, in any case, within the header counts."""
        for header, expected in (
            (b"TLS-Required: No\r\n", True),
            (b"A: b\r\ntls-required :\r\n nO \r\n", True),
            (b"A: b\nTLS-Required: No\n", True),
            (b"TLS-Required: Yes\r\n", False),
            (b"TLS-Required: No\r\nTLS-Required: No\r\n", False),
            (b"X-TLS-Required: No\r\n", False),
            (b"A: b\r\n\r\nTLS-Required: No\r\n", False),
            (b"", False),
        ):
            self.assertEqual(header_facts(header + b"\r\nbody\r\n").waives_tls, expected, header)

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_any_octets(self, octets: bytes) -> None:
        """Whatever a message is, the question has an answer."""
        for text in (octets, b"TLS-Required: " + octets):
            self.assertIn(header_facts(text).waives_tls, (True, False))


class HeaderTests(SynchronousTestCase):
    """Questions about a header are answered from the header alone."""

    def test_fields(self) -> None:
        """Every field is found with its folded lines, in order."""
        found = [
            (field.name, MESSAGE[field.value_start : field.end]) for field in header_fields(MESSAGE)
        ]
        self.assertEqual(
            found,
            [
                (b"Received", b" from a by b;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n"),
                (b"received", b" from c by d\r\n"),
                (b"Received-SPF", b" pass\r\n"),
                (b"Subject", b" hello\r\n there\r\n"),
                (b"X-Empty", b"\r\n"),
            ],
        )

    def test_field_offsets(self) -> None:
        """A field can be cut out by its offsets."""
        field = next(iter(header_fields(b"A: 1\r\nB: 2\r\n\r\n")))
        self.assertEqual((field.start, field.value_start, field.end), (0, 2, 6))

    def test_count_received(self) -> None:
        """Hops are counted in the header only, whatever the case, and nothing that looks alike."""
        self.assertEqual(header_facts(MESSAGE).received, 2)
        self.assertEqual(header_facts(b"Received: x\r\n" * 101 + b"\r\n").received, 101)
        self.assertEqual(header_facts(b"").received, 0)
        self.assertEqual(header_facts(b"\r\nReceived: x\r\n").received, 0)

    def test_header_value(self) -> None:
        """The first field of a name is unfolded and stripped."""
        self.assertEqual(header_value(MESSAGE, b"SUBJECT"), b"hello there")
        self.assertEqual(header_value(MESSAGE, b"x-empty"), b"")
        self.assertIsNone(header_value(MESSAGE, b"Date"))

    def test_has_header(self) -> None:
        """A field is known by its whole name."""
        self.assertTrue(has_header(MESSAGE, b"received-spf"))
        self.assertFalse(has_header(MESSAGE, b"Receive"))

    def test_header_end(self) -> None:
        """The header ends at the first empty line, with CRLF and with bare LF."""
        for body, end in [
            (b"", 0),
            (b"\r\nbody\r\n", 0),
            (b"\nbody", 0),
            (b"A: 1\r\n\r\nbody\r\n\r\n", 6),
            (b"A: 1\n\nbody\r\n\r\n", 5),
            (b"A: 1\r\nB: 2\r\n", 12),
            (b"A: 1", 4),
        ]:
            self.assertEqual(header_end(body), end, body)

    def test_lines_that_are_no_fields(self) -> None:
        """A line without a name and a colon, and what is folded under it, is passed over."""
        body = b" folded\r\nno colon\r\n more\r\n: nameless\r\nA: 1\r\n\r\n"
        self.assertEqual([field.name for field in header_fields(body)], [b"A"])

    def test_last_line_unfinished(self) -> None:
        """A field without a line end is a field."""
        self.assertEqual(header_value(b"A: 1\r\nB: 2", b"b"), b"2")

    def test_is_8bit(self) -> None:
        """One octet above 127 anywhere makes a message 8-bit."""
        self.assertFalse(is_8bit(MESSAGE))
        self.assertTrue(is_8bit(MESSAGE + b"\xe9"))

    @given(st.lists(st.sampled_from([b"A", b":", b" ", b"\r\n", b"\n", b"\r", b"\x00", b"\xff"])))
    def test_anything(self, pieces: list[bytes]) -> None:
        """Whatever the octets, fields lie in order within the header and nothing fails."""
        body = b"".join(pieces)
        end = header_end(body)
        position = 0
        for field in header_fields(body):
            self.assertLessEqual(position, field.start)
            self.assertLess(field.start, field.value_start)
            self.assertLessEqual(field.value_start, field.end)
            position = field.end
        self.assertLessEqual(position, end)
        self.assertLessEqual(end, len(body))
