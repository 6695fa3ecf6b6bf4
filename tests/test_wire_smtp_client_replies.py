"""Reading replies: whole, byte by byte, with more behind them; bounded whatever comes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.replies import EnhancedCode, Reply
from kumotwist.wire.smtp.reply_reader import MAX_LINE, MAX_LINES, MAX_REPLY, ReplyReader


def read(chunks: Iterable[bytes]) -> tuple[list[Reply], bool, bool]:
    """Feed a reader: its replies, whether it ended in an error, whether it is empty."""
    reader = ReplyReader()
    replies: list[Reply] = []
    try:
        for chunk in chunks:
            reader.receive_data(chunk)
            while (reply := reader.next_reply()) is not None:
                replies.append(reply)
    except RemoteProtocolError:
        return replies, True, False
    return replies, False, reader.is_empty


def single(data: bytes) -> list[bytes]:
    """The octets one by one."""
    return [data[index : index + 1] for index in range(len(data))]


class ReplyReaderTests(SynchronousTestCase):
    """L{ReplyReader}."""

    def assert_reads(self, data: bytes, *expected: Reply) -> None:
        """The replies come out of the octets whole, one by one, and with more behind them."""
        self.assertEqual(read([data]), (list(expected), False, True))
        self.assertEqual(read(single(data)), (list(expected), False, True))
        more = (*expected, Reply(250, None, ("more",)))
        self.assertEqual(read([data + b"250 more\r\n25"]), (list(more), False, False))

    def assert_refuses(self, data: bytes) -> None:
        """The octets are no reply, whole or one by one."""
        self.assertEqual(read([data]), ([], True, False))
        self.assertEqual(read(single(data)), ([], True, False))

    def test_single_line(self) -> None:
        """A reply of one line, with text, without text, and without even a space."""
        self.assert_reads(b"250 fine\r\n", Reply(250, None, ("fine",)))
        self.assert_reads(b"250 \r\n", Reply(250, None, ("",)))
        self.assert_reads(b"250\r\n", Reply(250, None, ("",)))

    def test_several_lines(self) -> None:
        """A reply of several lines is one reply."""
        self.assert_reads(
            b"250-mx.example.com\r\n250-PIPELINING\r\n250 SIZE 1000\r\n",
            Reply(250, None, ("mx.example.com", "PIPELINING", "SIZE 1000")),
        )
        self.assert_reads(b"250-\r\n250\r\n", Reply(250, None, ("", "")))

    def test_bare_line_feed(self) -> None:
        """A line that ends in LF alone is read all the same."""
        self.assert_reads(b"250-a\n250 b\n", Reply(250, None, ("a", "b")))

    def test_enhanced_code(self) -> None:
        """The enhanced status code is taken off every line (RFC 2034, 4)."""
        self.assert_reads(
            b"550-5.1.1 no\r\n550 5.1.1 such user\r\n",
            Reply(550, EnhancedCode(5, 1, 1), ("no", "such user")),
        )
        self.assert_reads(b"250 2.0.0\r\n", Reply(250, EnhancedCode(2, 0, 0), ("",)))

    def test_enhanced_code_of_another_class(self) -> None:
        """What looks like an enhanced code but contradicts the reply is text."""
        self.assert_reads(b"550 4.1.1 hm\r\n", Reply(550, None, ("4.1.1 hm",)))
        self.assert_reads(b"220 5.6.7.8 at work\r\n", Reply(220, None, ("5.6.7.8 at work",)))

    def test_hostile_text_is_kept(self) -> None:
        """Control characters and broken UTF-8 come through as text, escaped where it is shown."""
        (reply,), _, _ = read([b"550 a\x00b\x1b[2J\rc \xff\r\n"])
        self.assertEqual(reply.lines, ("a\x00b\x1b[2J\rc \\xff",))
        self.assertNotIn("\x1b", str(reply))

    def test_what_is_no_reply(self) -> None:
        """Only three digits from 200 to 599 begin a reply."""
        for data in (
            b"999 x\r\n", b"150 x\r\n", b"25 x\r\n", b" 250 x\r\n", b"2500 x\r\n", b"250x\r\n",
            b"\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\x15\x03\x01\x00\x02\x02", b"250+x\r\n",
            b"\xd9\xa2\xd9\xa5 x\r\n",
        ):  # fmt: skip
            self.assert_refuses(data)

    def test_codes_that_differ(self) -> None:
        """A reply whose lines have different codes is an error."""
        self.assert_refuses(b"250-a\r\n550 b\r\n")

    def test_long_line(self) -> None:
        """Of a very long line the beginning is kept."""
        (reply,), failed, _ = read([b"250 " + b"x" * 10000 + b"\r\n"])
        self.assertFalse(failed)
        self.assertEqual(len(reply.lines[0]), MAX_LINE - 4)

    def test_bounds(self) -> None:
        """Too many lines, too many octets, and a line without end are errors."""
        lines = b"250-x\r\n" * MAX_LINES
        self.assertEqual(read([lines[7:] + b"250 x\r\n"])[1], False)
        self.assertEqual(read([lines + b"250 x\r\n"])[1], True)
        self.assertEqual(read([b"250 " + b"x" * (MAX_REPLY - 6) + b"\r\n"])[1], False)
        self.assertEqual(read([b"250 " + b"x" * (MAX_REPLY - 5) + b"\r\n"])[1], True)
        self.assertEqual(read([b"250 " + b"x" * MAX_REPLY])[1], True)
        self.assertEqual(read([b"250 ", *[b"x" * 1000] * 66])[1], True)
        self.assertEqual(read([(b"250-" + b"x" * 1000 + b"\r\n") * 66])[1], True)

    @settings(max_examples=200)
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(
                    [b"250 ok\r\n", b"250-a\r\n", b"550 5.1.1 no\r\n", b"\r", b"\n", b"354\r\n"]
                ),
                st.binary(max_size=12),
            ),
            max_size=10,
        ).map(b"".join),
        st.data(),
    )
    def test_pieces_do_not_matter(self, stream: bytes, data: st.DataObject) -> None:
        """Any stream gives the same replies and the same verdict in whatever pieces it comes."""
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        self.assertEqual(read(pieces), read([stream]))
        self.assertEqual(read(single(stream)), read([stream]))


class WholeTests(SynchronousTestCase):
    """Replies that are taken together."""

    def test_same_or_not(self) -> None:
        """What the pattern says is taken whole, whatever came before; nothing else is."""
        reader, pattern = ReplyReader(), re.compile(rb"(?:2\d\d [a-z]+\r\n){2}")
        for data, taken in (
            (b"", False),
            (b"250 ok\r\n250 ok\r\n", True),
            (b"250 ok\r\n250 ok\r\n", True),
            (b"250 ok\r\n251 yes\r\n", True),
            (b"250 ok\r\n250 ok\r\n", True),
            (b"250 ok\r\n550 no\r\n", False),
        ):
            reader.receive_data(data)
            self.assertEqual(reader.take_whole(pattern), taken)
            self.assertEqual(reader.is_empty, taken or not data)
        first, second = reader.next_reply(), reader.next_reply()
        self.assertEqual([each and each.code for each in (first, second)], [250, 550])
        reader.receive_data(b"250-ok\r\n")
        self.assertIsNone(reader.next_reply())
        reader.receive_data(b"250 ok\r\n250 ok\r\n")
        self.assertFalse(reader.take_whole(pattern), "the first one ends a reply of two lines")


class CapabilitiesTests(SynchronousTestCase):
    """L{Capabilities}."""

    def test_keywords(self) -> None:
        """Keywords are found whatever their case, also with the old equals sign."""
        reply = Reply(250, None, ("mx hello", "pipelining", "SIZE=1000", "auth PLAIN LOGIN", "?"))
        found = Capabilities.from_ehlo(reply)
        self.assertTrue(found.pipelining)
        self.assertTrue(found.has("AUTH"))
        self.assertEqual(found.size_limit, 1000)
        self.assertEqual(found.extensions["AUTH"], "PLAIN LOGIN")
        self.assertFalse(found.starttls)

    def test_size_that_is_no_limit(self) -> None:
        """SIZE without a number, with 0 or with nonsense sets no limit (RFC 1870, 4)."""
        for text in ("SIZE", "SIZE 0", "SIZE lots", "SIZE -1", "SIZE " + "9" * 5000):
            found = Capabilities.from_ehlo(Reply(250, None, ("mx", text)))
            self.assertTrue(found.size)
            self.assertEqual(found.size_limit, 0)

    def test_hello(self) -> None:
        """What the server says in the first line is kept, safe for a log."""
        reply = Reply(250, None, ("mx greets \x1b[192.0.2.1]", "SIZE"))
        self.assertEqual(Capabilities.from_ehlo(reply).hello, "mx greets \\x1b[192.0.2.1]")

    def test_first_line_is_no_keyword(self) -> None:
        """The server's greeting is not taken for an extension."""
        self.assertFalse(Capabilities.from_ehlo(Reply(250, None, ("STARTTLS",))).starttls)
