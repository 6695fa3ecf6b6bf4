"""Tests of BDAT in the server's machine (RFC 3030)."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import Ready, SendBody, SMTPClient
from kumotwist.wire.smtp.envelope import OutgoingTransaction
from kumotwist.wire.smtp.events import PAUSED, MessageReceived
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.server import SMTPServer
from kumotwist.wire.smtp.server_options import ServerOptions
from tests.test_wire_smtp_server import HELLO, OPTIONS, codes, lines

BEGIN = HELLO + lines("MAIL FROM:<a@b.c>", "RCPT TO:<d@e.f>")


def bdat(data: bytes, last: bool = False) -> bytes:
    """A chunk as it stands on the wire."""
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


class ChunkCase(SynchronousTestCase):
    """Talks to machines."""

    def talk(
        self, data: bytes, options: ServerOptions = OPTIONS, step: int = 0
    ) -> tuple[list[int], list[bytes]]:
        """Feed a stream behind a beginning.

        @return: the codes behind those of the beginning, and the messages.
        """
        machine = SMTPServer(options)
        out = b""
        messages = []
        stream = BEGIN + data
        for at in range(0, len(stream), step or len(stream)):
            machine.receive_data(stream[at : at + (step or len(stream))])
            while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
                if isinstance(event, MessageReceived):
                    messages.append(event.transaction.body)
                out += machine.answer(event.reply)
            self.assertLessEqual(machine.body_octets, options.max_message_size)
        found = codes(out)
        self.assertEqual(found[:3], [250, 250, 250])
        return found[3:], messages


class MessageTests(ChunkCase):
    """Messages in chunks."""

    def test_cuts(self) -> None:
        """Chunks are the same however the stream is cut, with commands behind them."""
        data = bdat(b"Subject: x\r\n\r") + lines("NOOP") + bdat(b"\n.\r\n..y\r\n")
        data += bdat(b"z\r\n", last=True) + lines("NOOP") + b"trailing"
        for step in (0, 1, 2, 3, 7, 50):
            found, messages = self.talk(data, step=step)
            self.assertEqual(found, [250, 250, 250, 250, 250])
            self.assertEqual(messages, [b"Subject: x\r\n\r\n.\r\n..y\r\nz\r\n"])

    def test_last_with_nothing(self) -> None:
        """The last chunk may be empty, and it may be the only one."""
        self.assertEqual(
            self.talk(bdat(b"a: b\r\n") + b"bdat 0 last\r\n"), ([250, 250], [b"a: b\r\n"])
        )
        self.assertEqual(self.talk(bdat(b"", last=True)), ([250], [b""]))
        self.assertEqual(self.talk(bdat(b"") * 3 + bdat(b"", last=True))[0], [250] * 4)

    def test_end_of_line(self) -> None:
        """A message that does not end with a line end gets one, as one in DATA always has."""
        self.assertEqual(self.talk(bdat(b"a: b", last=True))[1], [b"a: b\r\n"])

    def test_line_endings(self) -> None:
        """Lone CR and LF meet the same rules as in DATA, also across chunks."""
        for body in (b"a\nb\r\n", b"a\rb\r\n", b"a\r"):
            self.assertEqual(self.talk(bdat(body, last=True))[0], [552], body)
        data = bdat(b"a\r") + bdat(b"b\n") + bdat(b"\r\nc\r\n", last=True)
        self.assertEqual(self.talk(data)[0], [250, 250, 552])
        fix = ServerOptions("mx.example.com", line_endings="Fix")
        self.assertEqual(self.talk(data, fix)[1], [b"a\r\nb\r\n\r\nc\r\n"])
        allow = ServerOptions("mx.example.com", line_endings="Allow")
        self.assertEqual(self.talk(data, allow)[1], [b"a\rb\n\r\nc\r\n"])
        short = ServerOptions("mx.example.com", line_length_limit=5)
        self.assertEqual(self.talk(bdat(b"123456\r\n", last=True), short)[0], [500])

    def test_dots_and_commands_are_text(self) -> None:
        """Nothing in a chunk ends it or is a command."""
        body = b"a: b\r\n\r\n.\r\nQUIT\r\nRSET\r\n"
        self.assertEqual(self.talk(bdat(body, last=True)), ([250], [body]))

    def test_two_messages(self) -> None:
        """The envelope of a message ends with its last chunk."""
        data = bdat(b"x\r\n", last=True) + lines("MAIL FROM:<>", "RCPT TO:<d@e.f>")
        found, messages = self.talk(data + bdat(b"y\r\n", last=True))
        self.assertEqual((found, messages), ([250] * 4, [b"x\r\n", b"y\r\n"]))


class RefusalTests(ChunkCase):
    """Chunks that are not wanted."""

    def test_refused_chunks_are_eaten(self) -> None:
        """A refused chunk's octets are no commands: without MAIL, without RCPT, behind an end."""
        evil = b"MAIL FROM:<x@y.z>\r\n"
        for step in (0, 1, 5):
            self.assertEqual(
                self.talk(lines("RSET") + bdat(evil) + lines("NOOP"), step=step)[0], [250, 503, 250]
            )
            found = self.talk(
                lines("RSET", "MAIL FROM:<>") + bdat(evil, last=True) + lines("NOOP"), step=step
            )[0]
            self.assertEqual(found, [250, 250, 554, 250])

    def test_too_large(self) -> None:
        """More than fits is read and forgotten, and the rest of the message as well."""
        large = b"x" * 990 + b"\r\n"
        data = bdat(large) + bdat(large) + bdat(b"y\r\n", last=True) + lines("NOOP")
        for step in (0, 500):
            found, messages = self.talk(data, step=step)
            self.assertEqual(found, [250, 552, 503, 250])
            self.assertEqual(messages, [])
        exact = b"x" * 998 + b"\r\n"
        self.assertEqual(self.talk(bdat(exact, last=True))[0], [250])
        self.assertEqual(self.talk(bdat(b"x" + exact, last=True))[0], [552])
        self.assertEqual(self.talk(b"BDAT 99999999999999999999\r\n" + b"NOOP\r\n" * 99)[0], [])

    def test_sizes(self) -> None:
        """What says no size ends the session: the chunk would be taken for commands."""
        for argument in (
            "",
            " -1",
            " +1",
            " 1 2",
            " 1 FIRST",
            " x",
            " 1" + "0" * 23,
            " 0x1",
            " LAST",
        ):
            self.assertEqual(self.talk(f"BDAT{argument}\r\nNOOP\r\n".encode())[0], [421])
        data = bdat(b"x\r\n") + b"BDAT -1\r\n" + bdat(b"y\r\n", last=True)
        self.assertEqual(self.talk(data), ([250, 421], []))

    def test_mixed(self) -> None:
        """Once a message has begun in chunks there is neither DATA nor RCPT; RSET ends it."""
        data = bdat(b"x\r\n") + lines("DATA", "RCPT TO:<g@h.i>", "MAIL FROM:<>", "RSET", "DATA")
        self.assertEqual(self.talk(data)[0], [250, 503, 503, 503, 250, 503])
        data = bdat(b"x\r\n") + HELLO + lines("MAIL FROM:<>", "RCPT TO:<d@e.f>")
        self.assertEqual(self.talk(data + bdat(b"y\r\n", last=True)), ([250] * 5, [b"y\r\n"]))

    def test_owner_refuses(self) -> None:
        """The owner may forget a message between its chunks, too."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(BEGIN + bdat(b"x" * 100) + b"BDAT 3 LAST\r\n")
        while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
            machine.answer(event.reply)
        self.assertTrue(machine.in_body)
        self.assertEqual(machine.body_octets, 100)
        machine.refuse_body(Reply.of(452, "4.3.1", "no room"))
        self.assertEqual(machine.body_octets, 0)
        machine.receive_data(b"y\r\n")
        event = machine.next_event()
        assert event is not NEED_DATA
        assert event is not PAUSED
        self.assertEqual(event.reply.code, 452)
        machine.answer(event.reply)
        self.assertFalse(machine.receiving)

    def test_binary_is_not_offered(self) -> None:
        """BODY=BINARYMIME is refused by a listener that has nobody to convert such messages."""
        self.assertEqual(self.talk(lines("RSET", "MAIL FROM:<> BODY=BINARYMIME"))[0], [250, 501])


BINARY = attrs.evolve(OPTIONS, binarymime=True)
BEGIN_BINARY = lines("RSET", "MAIL FROM:<a@b.c> BODY=binarymime", "RCPT TO:<d@e.f>")


class BinaryTests(ChunkCase):
    """Messages of any octets (RFC 3030, 3)."""

    def test_octets(self) -> None:
        """Every octet is kept, nothing is added, however it is cut."""
        message = b"A: b\r\n\r\n\0\n\r.\r\n.\r\n" + bytes(range(256))
        stream = BEGIN_BINARY + bdat(message[:9]) + bdat(message[9:], last=True)
        for step in (0, 1, 7):
            answers, messages = self.talk(stream, BINARY, step)
            self.assertEqual(answers, [250, 250, 250, 250, 250])
            self.assertEqual(messages, [message])

    def test_data(self) -> None:
        """DATA is no way for such a message; the transaction stays."""
        stream = BEGIN_BINARY + lines("DATA") + bdat(b"A: b\r\n\r\n\0", last=True)
        self.assertEqual(self.talk(stream, BINARY)[0], [250, 250, 250, 503, 250])

    def test_header(self) -> None:
        """The header is text all the same."""
        stream = BEGIN_BINARY + bdat(b"A: b\nc\r\n\r\n\0", last=True)
        self.assertEqual(self.talk(stream, BINARY)[0][-1:], [552])
        fixing = attrs.evolve(BINARY, line_endings="Fix")
        self.assertEqual(self.talk(stream, fixing)[1], [b"A: b\r\nc\r\n\r\n\0"])

    def test_offer(self) -> None:
        """It is offered where it is taken."""
        for options, offered in ((OPTIONS, False), (BINARY, True)):
            self.assertEqual("BINARYMIME" in options.capabilities(starttls=False), offered)

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=600), st.integers(1, 200))
    def test_from_client_to_server(self, octets: bytes, step: int) -> None:
        """What our client writes our server reads back, octet by octet."""
        message = b"A: b\r\n\r\n" + octets
        server, client = SMTPServer(BINARY), SMTPClient("me.example")
        client.receive_data(server.greeting())
        taken: list[bytes] = []
        sent = False
        while not taken:
            while (happened := client.next_event()) is not NEED_DATA:
                if isinstance(happened, SendBody):
                    self.assertTrue(happened.chunk)
                    client.body_sent()
                    stream = client.data_to_send() + message
                    for at in range(0, len(stream), step):
                        server.receive_data(stream[at : at + step])
                elif isinstance(happened, Ready) and not sent:
                    sent = True
                    client.begin(OutgoingTransaction("a@b.c", ("d@e.f",), message, binary=True))
            server.receive_data(client.data_to_send())
            while (event := server.next_event()) is not NEED_DATA and event is not PAUSED:
                if isinstance(event, MessageReceived):
                    taken.append(event.transaction.body)
                client.receive_data(server.answer(event.reply))
        self.assertEqual(taken, [message])


_PIECES = st.sampled_from([
    BEGIN, BEGIN_BINARY, bdat(b"\0"), bdat(b"abc"), bdat(b"d\r\n", last=True), b"BDAT 5\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT -1\r\n",
    b"BDAT 4000\r\n", lines("DATA"), lines("RSET"), b".\r\n", b"\r\n", b"\r", b"\n", lines("NOOP"),
])  # fmt: skip


class AnyStreamTests(SynchronousTestCase):
    """Properties for every input."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(_PIECES | st.binary(max_size=20), max_size=12).map(b"".join), st.integers(1, 50)
    )
    def test_any_cut(self, data: bytes, step: int) -> None:
        """However a stream with chunks is cut, what is said is the same."""
        said = []
        for size in (step, len(data) + 1):
            machine = SMTPServer(BINARY)
            out = b""
            for at in range(0, len(data), size):
                machine.receive_data(data[at : at + size])
                while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
                    out += machine.answer(event.reply)
            said.append(out)
        self.assertEqual(said[0], said[1])
