"""The client's machine against any stream, and against the server's machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import (
    ClientEvent,
    Finished,
    Ready,
    SendBody,
    SMTPClient,
)
from kumotwist.wire.smtp.data import stuffed
from kumotwist.wire.smtp.events import MessageReceived
from kumotwist.wire.smtp.server import ServerOptions, SMTPServer
from kumotwist.wire.smtp.transaction import OutgoingTransaction
from tests.wire_client_dialogue import LOST, MESSAGE, codes

LINES = st.sampled_from(
    [
        b"220 mx\r\n", b"250-mx\r\n", b"250 PIPELINING\r\n", b"250 ok\r\n", b"250 2.0.0 ok\r\n",
        b"354 go\r\n", b"421 bye\r\n", b"450 no\r\n", b"500 what\r\n", b"550 5.1.1 no\r\n",
        b"\r\n", b"25", b"\n", b"\xff",
    ]
)  # fmt: skip


class AnyStreamTests(SynchronousTestCase):
    """Whatever a server sends."""

    def run_session(self, pieces: list[bytes]) -> tuple[list[ClientEvent], str]:
        """Pump a session that sends one message after another; never another exception."""
        machine = SMTPClient("me.example")
        events: list[ClientEvent] = []
        ended = ""
        try:
            for piece in pieces:
                machine.receive_data(piece)
                while (event := machine.next_event()) is not NEED_DATA:
                    events.append(event)
                    if isinstance(event, SendBody):
                        machine.body_sent()
                    elif isinstance(event, Ready | Finished) and not machine.closed:
                        machine.begin(MESSAGE)
        except RemoteProtocolError as error:
            self.assertTrue(machine.closed)
            ended = type(error).__name__
        outcome = machine.abandon(LOST)
        if outcome is not None:
            self.assertEqual(len(outcome.results), len(MESSAGE.recipients))
        return events, ended

    @settings(max_examples=200)
    @given(st.lists(LINES, max_size=16).map(lambda x: b"220 a\r\n" + b"".join(x)), st.data())
    def test_any_stream_in_any_pieces(self, stream: bytes, data: st.DataObject) -> None:
        """The same octets give the same events in whatever pieces they come.

        But for a server that answers before it is asked: that can only be noticed if the answer
        is there when the command goes out.
        """
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
        pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        whole, whole_end = self.run_session([stream])
        cut, cut_end = self.run_session(pieces)
        if whole_end == "UnaskedReplyError":
            self.assertEqual(cut[: len(whole)], whole)
        else:
            self.assertEqual((cut, cut_end), (whole, whole_end))


class BackToBackTests(SynchronousTestCase):
    """The client's machine and the server's."""

    @settings(max_examples=50)
    @given(
        st.lists(st.sampled_from([b"", b".", b"..", b".x", b"text", b"\xc3\xa4"]), max_size=8),
        st.integers(1, 3),
    )
    def test_messages_arrive_as_they_are(self, lines: list[bytes], count: int) -> None:
        """What one side is given to send the other side receives, message after message."""
        body = b"".join(line + b"\r\n" for line in lines)
        message = OutgoingTransaction("me@example.org", ("a@example.com",), body)
        client = SMTPClient("me.example")
        server = SMTPServer(ServerOptions("mx.example.com"))
        received = []
        client.receive_data(server.greeting())
        sent = 0
        for _ in range(100):
            while (event := client.next_event()) is not NEED_DATA:
                if isinstance(event, SendBody):
                    server.receive_data(client.data_to_send())
                    server.receive_data(body if event.chunk else stuffed(body))
                    client.body_sent()
                elif isinstance(event, Finished):
                    self.assertEqual(codes(event.outcome), [250])
                if isinstance(event, Ready | Finished) and sent < count:
                    client.begin(message)
                    sent += 1
            server.receive_data(client.data_to_send())
            heard = server.next_event()
            if heard is NEED_DATA:
                break
            assert not isinstance(heard, type(NEED_DATA))
            if isinstance(heard, MessageReceived):
                received.append(heard.transaction.body)
            client.receive_data(server.answer(heard.reply))  # type: ignore[union-attr]
        self.assertEqual(received, [body] * count)
