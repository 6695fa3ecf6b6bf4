"""The writer of message bodies: dots doubled at every offset, nothing else touched."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.data import (
    CHUNK_SIZE,
    canonical,
    is_canonical,
    stuffed,
    stuffed_chunks,
)


def read_back(wire: bytes) -> tuple[bytes, bytes]:
    """An independent reader (RFC 5321, 4.5.2): line by line, to the line that is a dot.

    @return: the message, and what follows the final dot.
    """
    message: list[bytes] = []
    rest = wire
    while True:
        line, end, rest = rest.partition(b"\r\n")
        assert end, "the message does not end"
        if line == b".":
            return b"".join(message), rest
        message.append((line[1:] if line.startswith(b".") else line) + end)


def with_last_line_end(body: bytes) -> bytes:
    """What arrives: the last line has a line end."""
    return body if not body or body.endswith(b"\r\n") else body + b"\r\n"


LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a", b"a.", b"long" * 5]), max_size=12)
BODIES = st.builds(
    lambda lines, last: b"\r\n".join(lines) + last, LINES, st.sampled_from([b"", b"\r\n", b"."])
)


class StuffingTests(SynchronousTestCase):
    """L{stuffed} and L{stuffed_chunks}."""

    def test_dots_at_line_starts_are_doubled(self) -> None:
        """A dot at the start of a line gets another one, also in the very first octet."""
        self.assertEqual(stuffed(b".a\r\n..\r\nb.\r\n"), b"..a\r\n...\r\nb.\r\n.\r\n")

    def test_last_line_gets_its_end(self) -> None:
        """A message that does not end in CRLF gets one before the final dot."""
        self.assertEqual(stuffed(b"a"), b"a\r\n.\r\n")
        self.assertEqual(stuffed(b"."), b"..\r\n.\r\n")

    def test_empty_message(self) -> None:
        """An empty message is the final dot alone."""
        self.assertEqual(stuffed(b""), b".\r\n")
        self.assertEqual(list(stuffed_chunks(b"")), [b".\r\n"])

    @settings(max_examples=200)
    @given(BODIES, st.integers(4, 40))
    def test_pieces_equal_the_whole(self, body: bytes, size: int) -> None:
        """However small the pieces are, together they are the octets of the whole."""
        pieces = list(stuffed_chunks(body, size))
        self.assertEqual(b"".join(pieces), stuffed(body))
        self.assertTrue(all(pieces))

    @settings(max_examples=200)
    @given(BODIES, st.integers(4, 40))
    def test_a_reader_gets_the_message_back(self, body: bytes, size: int) -> None:
        """A reader that follows the RFC gets exactly the message, and nothing is left over."""
        wire = b"".join(stuffed_chunks(body, size))
        self.assertEqual(read_back(wire), (with_last_line_end(body), b""))

    def test_dots_at_every_offset_around_the_seams(self) -> None:
        """A line with a lone dot arrives whole wherever it lies at the seams of the pieces."""
        hidden = b"\r\n.\r\nMAIL FROM:<smuggled@example.org>\r\n"
        for seam in (CHUNK_SIZE, 2 * CHUNK_SIZE):
            for offset in range(seam - 8, seam + 8):
                body = b"x" * offset + hidden + b"y" * 100 + b"\r\n"
                wire = b"".join(stuffed_chunks(body))
                self.assertEqual(read_back(wire), (body, b""), offset)

    def test_pieces_stay_small(self) -> None:
        """Each piece is about as large as was asked for, whatever the body is made of."""
        for unit in (b"\r\n", b"\r\n.", b".", b"\r\n\r\n."):
            body = unit * 5000 + b"\r\n"
            pieces = list(stuffed_chunks(body, 1000))
            self.assertLessEqual(max(map(len, pieces)), 2000)
            self.assertEqual(b"".join(pieces), stuffed(body))


class CanonicalTests(SynchronousTestCase):
    """L{is_canonical} and L{canonical}."""

    def test_lone_line_ends_are_found(self) -> None:
        """A CR or LF that is not part of a CRLF is found wherever it stands."""
        large = b"x" * CHUNK_SIZE
        for body in (b"\n", b"\r", b"a\r\n\n", b"\r\r\n", b"a\r", b"\n\r", b"a\r\nb\r"):
            self.assertFalse(is_canonical(body), body)
            self.assertFalse(is_canonical(large + body), body)
        for body in (b"", b"a", b"\r\n", b"a\r\n\r\nb", b"a\x0bb\x0cc\x1cd\x85\r\n"):
            self.assertTrue(is_canonical(body), body)
            self.assertTrue(is_canonical(large + body), body)

    @settings(max_examples=200)
    @given(st.text("a.\r\n\x85\xff", max_size=20), st.sampled_from([0, 1, 2, 3, 20]))
    def test_definition(self, text: str, before_seam: int) -> None:
        """It is what RFC 5321 says: without its pairs of CR and LF a body has neither, wherever
        the seams of what is looked at lie."""
        body = text.encode("latin-1")
        rest = body.replace(b"\r\n", b"|")
        expected = b"\r" not in rest and b"\n" not in rest
        self.assertIs(is_canonical(body), expected)
        self.assertIs(is_canonical(b"x" * (CHUNK_SIZE - before_seam) + body), expected)

    def test_line_ends_of_every_kind_become_crlf(self) -> None:
        """LF, CR and CRLF each end a line; CR CR LF is two line ends, never one."""
        self.assertEqual(canonical(b"a\nb\rc\r\nd\r\r\n"), b"a\r\nb\r\nc\r\nd\r\n\r\n")

    @settings(max_examples=100)
    @given(st.text("a.\r\n", max_size=30).map(str.encode))
    def test_canonical_is_canonical(self, body: bytes) -> None:
        """What L{canonical} returns can be sent, and is left alone the second time."""
        self.assertTrue(is_canonical(canonical(body)))
        self.assertEqual(canonical(canonical(body)), canonical(body))
