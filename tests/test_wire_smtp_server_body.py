"""Tests of how a server reads a message after DATA."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.body import BodyReader, LineEndings
from kumotwist.wire.smtp.data import is_canonical
from kumotwist.wire.smtp.replies import Reply


def read(
    *segments: bytes, max_size: int = 10**6, endings: LineEndings = "Deny", line_limit: int = 0
) -> tuple[bytes | Reply | None, bytes]:
    """Feed segments; the message (L{None} if it did not end) and what follows it."""
    reader = BodyReader(max_size, endings, line_limit)
    for number, segment in enumerate(segments):
        used = reader.feed(segment)
        if used >= 0:
            return reader.finish(), segment[used:] + b"".join(segments[number + 1 :])
    return None, b""


def stuffed(body: bytes) -> bytes:
    """A message as a correct client sends it: line by line, the slow and obvious way."""
    lines = body.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


class BodyTests(SynchronousTestCase):
    """The message between DATA and the final dot."""

    def assertReads(self, wire: bytes, body: bytes) -> None:
        """Read it whole, in two at every seam, octet by octet, each with octets behind it."""
        behind = b"MAIL FROM:<x@y.example>\r\n"
        data = wire + behind
        for segments in (
            (data,),
            tuple(data[at : at + 1] for at in range(len(data))),
            *((data[:at], data[at:]) for at in range(len(data))),
            *((data[:at], data[at : at + 2], data[at + 2 :]) for at in range(len(data))),
        ):
            self.assertEqual(read(*segments), (body, behind))

    def test_ordinary(self) -> None:
        """The final dot is not part of the message; the CRLF before it is."""
        self.assertReads(b"Subject: a\r\n\r\nb\r\n.\r\n", b"Subject: a\r\n\r\nb\r\n")

    def test_empty(self) -> None:
        """A dot that comes at once ends an empty message."""
        self.assertReads(b".\r\n", b"")

    def test_unstuffing(self) -> None:
        """A line that begins with a dot loses it, the first line too."""
        self.assertReads(
            b"..a\r\n...\r\n.b\r\nc.d\r\n..\r\n.\r\n", b".a\r\n..\r\nb\r\nc.d\r\n.\r\n"
        )

    def test_every_buffer_seam(self) -> None:
        """Dots are unstuffed wherever they lie in relation to the sizes of usual buffers."""
        for size in (4096, 8192, 16384, 65536):
            for shift in range(-4, 5):
                body = b"x" * (size + shift - 2) + b"\r\n.\r\n..y\r\n"
                wire = stuffed(body)
                segments = [wire[at : at + size] for at in range(0, len(wire), size)]
                self.assertEqual(read(*segments), (body, b""))

    def test_smuggling(self) -> None:
        """Nothing but CRLF dot CRLF ends a message, and lone line ends get it refused."""
        ends = (
            b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r",
            b"\r.\n", b"\r\r\n.\r\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n", b"\r\n. \r\n",
            b"\r\n.\r\r\n", b"\r\r\n.\r", b"\n\n.\n\n",
        )  # fmt: skip
        for end in ends:
            wire = b"a: b\r\n\r\nc" + end + b"MAIL FROM:<smuggled@x.example>\r\nDATA\r\n.\r\n"
            for policy in ("Deny", "Allow", "Fix"):
                message, behind = read(wire, endings=policy)
                self.assertEqual(behind, b"", (end, policy))
                if isinstance(message, bytes):
                    self.assertIn(b"smuggled", message)
                else:
                    self.assertEqual(str(message)[:9], "552 5.6.0", (end, policy))

    def test_lone_line_ends(self) -> None:
        """Lone CR and LF are refused, kept or made CRLF, as the policy says."""
        wire = b"a\nb\rc\r\r\nd\r\n.\r\n"
        message, _ = read(wire)
        assert isinstance(message, Reply)
        self.assertEqual((message.code, str(message.enhanced_code)), (552, "5.6.0"))
        self.assertEqual(read(wire, endings="Allow"), (b"a\nb\rc\r\r\nd\r\n", b""))
        self.assertEqual(read(wire, endings="Fix"), (b"a\r\nb\r\nc\r\n\r\nd\r\n", b""))

    def test_size_limit(self) -> None:
        """The size is that of the message itself: stuffed dots and the final dot do not count."""
        body = b".\r\n" * 100
        self.assertReads(stuffed(body), body)
        self.assertEqual(read(stuffed(body), max_size=300), (body, b""))
        for wire in (stuffed(body), stuffed(b"x" * 4000 + b"\r\n")):
            for segments in ((wire,), tuple(wire[at : at + 1] for at in range(len(wire)))):
                message, _ = read(*segments, max_size=299)
                assert isinstance(message, Reply)
                self.assertEqual(message.code, 552)

    def test_memory_is_released(self) -> None:
        """As soon as a message is too long nothing of it is kept, until its end has come."""
        reader = BodyReader(1000)
        for _ in range(100):
            self.assertEqual(reader.feed(b"x" * 100), -1)
            self.assertLessEqual(reader.held, 1500)
        self.assertEqual(reader.held, 0)
        self.assertEqual(reader.feed(b"\r\n.\r\nNOOP"), 5)

    def test_refused_by_owner(self) -> None:
        """Whoever reads may refuse a message half way; it is consumed to its end."""
        reader = BodyReader(1000)
        reader.feed(b"abc")
        reader.refuse(Reply.of(452, "4.3.1", "no room"))
        self.assertEqual(reader.held, 0)
        self.assertEqual(reader.feed(b"def\r\n.\r\n"), 8)
        self.assertEqual(reader.finish(), Reply.of(452, "4.3.1", "no room"))

    def test_long_lines(self) -> None:
        """A line of any length is text; a limit, if there is one, refuses after the dot."""
        for length in (998, 1000, 5000, 20000, 200000):
            body = b"a: b\r\n\r\n" + b"x" * length + b"\r\n"
            self.assertEqual(read(body + b".\r\nQUIT"), (body, b"QUIT"))
            message, behind = read(body + b".\r\nQUIT", line_limit=998)
            self.assertEqual(behind, b"QUIT")
            if length == 998:
                self.assertEqual(message, body)
            else:
                assert isinstance(message, Reply)
                self.assertEqual(str(message)[:9], "500 5.2.3")

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n"])),
        st.lists(st.integers(1, 5)),
    )
    def test_any_cut(self, pieces: list[bytes], cuts: list[int]) -> None:
        """However a stream is cut, the message and what follows it are the same."""
        data = b"".join(pieces) + b"\r\n.\r\nrest"
        segments = []
        at = 0
        for cut in cuts:
            segments.append(data[at : at + cut])
            at += cut
        segments.append(data[at:])
        for policy in ("Deny", "Fix", "Allow"):
            for max_size in (3, 1000):
                whole = read(data, endings=policy, max_size=max_size)
                cut_up = read(*segments, endings=policy, max_size=max_size)
                self.assertEqual(whole, cut_up)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from([b"", b".", b"..", b"a", b".a", b"a."]), max_size=12))
    def test_round_trip(self, lines: list[bytes]) -> None:
        """What a correct client sends is read back exactly."""
        body = b"".join(line + b"\r\n" for line in lines)
        self.assertEqual(read(stuffed(body)), (body, b""))

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n."]), max_size=8),
        st.lists(st.integers(1, 5)),
    )
    def test_plain(self, pieces: list[bytes], cuts: list[int]) -> None:
        """What is said to be plain can be sent as it is: CRLF alone, no dot at a line's start;
        a message that comes in one piece and can be sent so is said to be plain."""
        wire = b"".join(pieces) + b"\r\n.\r\n"
        ends = [sum(cuts[: count + 1]) for count in range(len(cuts))]
        cut_up = [wire[begin:end] for begin, end in zip([0, *ends], [*ends, None], strict=True)]
        for policy in ("Deny", "Fix", "Allow"):
            for segments in (cut_up, [wire]):
                reader = BodyReader(1000, policy)
                for segment in segments:
                    if reader.feed(segment) >= 0:
                        break
                message = reader.finish()
                if isinstance(message, Reply):
                    continue
                fit = is_canonical(message) and b"\n." not in b"\n" + message
                if reader.plain:
                    self.assertTrue(fit, (policy, segments))
                elif segments == [wire] and policy == "Deny" and b"\n." not in b"\n" + wire[:-3]:
                    self.assertFalse(fit, (policy, segments))
