"""What holds for both SMTP machines whatever the other side sends: the same events however it is
cut, no exception but the protocol's own, bounded memory, and messages that arrive as they were."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import (
    Authenticated,
    Finished,
    ProceedTLS,
    Ready,
    Refused,
    SendBody,
    SMTPClient,
)
from kumotwist.wire.smtp.data import stuffed_chunks
from kumotwist.wire.smtp.dialect import Dialect
from kumotwist.wire.smtp.events import MessageReceived
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.sasl_client import choose_mechanism
from kumotwist.wire.smtp.server import SMTPServer
from kumotwist.wire.smtp.server_options import ServerOptions
from tests.wire_client_dialogue import LOST, MESSAGE

REPLIES = st.sampled_from(
    [
        b"220 mx\r\n",
        b"250-mx\r\n",
        b"250-PIPELINING\r\n",
        b"250-CHUNKING\r\n",
        b"250 SIZE 9\r\n",
        b"250-STARTTLS\r\n",
        b"250-AUTH PLAIN LOGIN SCRAM-SHA-256\r\n",
        b"250 DSN\r\n",
        b"250 ok\r\n",
        b"250 2.0.0 ok\r\n",
        b"235 2.7.0 in\r\n",
        b"334 \r\n",
        b"334 QUJD\r\n",
        b"334 cj0x\r\n",
        b"354 go\r\n",
        b"421 bye\r\n",
        b"450 no\r\n",
        b"500 what\r\n",
        b"550 5.1.1 no\r\n",
        b"250\n",
        b"\r\n",
        b"25",
        b"\n",
        b"\xff",
        b"\x00",
        b"250-" + b"x" * 5000,
    ]
)
STREAMS = st.lists(REPLIES | st.binary(max_size=12), max_size=16).map(b"".join)
DIALECTS = st.sampled_from(
    [Dialect(), Dialect(lmtp=True), Dialect(pipelining=False, chunking=False), Dialect(reset=True)]
)


class ClientRun:
    """An owner of a client's machine that does whatever is offered to it.

    @ivar events: what happened, in words.
    @ivar ended: the protocol error that it ended with, if any.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.machine = SMTPClient("me.example", dialect)
        self.events: list[str] = []
        self.ended = ""
        self._secured = self._logged_in = False

    def feed(self, data: bytes) -> None:
        """Take octets from the server; any other exception than the remote one comes out."""
        if self.ended:
            return
        try:
            self.machine.receive_data(data)
            while (event := self.machine.next_event()) is not NEED_DATA:
                self.events.append(repr(event)[:300])
                self._act(event)
        except RemoteProtocolError as error:
            assert self.machine.closed
            self.ended = type(error).__name__
        self.machine.data_to_send()

    def _act(self, event: Any) -> None:
        machine = self.machine
        if isinstance(event, SendBody):
            machine.body_sent()
        elif isinstance(event, ProceedTLS):
            self._secured = True
            machine.discard_plaintext()
        elif machine.closed or (isinstance(event, Refused) and event.phase is not Phase.STARTTLS):
            return
        elif isinstance(event, Ready | Finished | Authenticated | Refused):
            self._go_on()

    def _go_on(self) -> None:
        machine = self.machine
        mechanism = choose_mechanism(machine.capabilities.auth_mechanisms, "me", "secret")
        if machine.capabilities.starttls and not self._secured:
            self._secured = True
            machine.starttls()
        elif mechanism is not None and not self._logged_in:
            self._logged_in = True
            machine.authenticate(mechanism)
        else:
            machine.begin(MESSAGE)


def pieces(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut data."""
    at = 0
    for size in [*sizes, len(data) + 1]:
        yield data[at : at + size]
        at += size


class ClientTests(SynchronousTestCase):
    """The client's machine."""

    @settings(max_examples=300, deadline=None)
    @given(DIALECTS, STREAMS, st.lists(st.integers(1, 40), max_size=12), st.booleans())
    def test_any_stream(self, dialect: Dialect, stream: bytes, cuts: list[int], hi: bool) -> None:
        """Any octets in any pieces give the same events, and no exception of another kind.

        But for a server that answers before it is asked: that can only be noticed if the answer
        is there when the command goes out.
        """
        stream = b"220 mx\r\n" * hi + stream
        whole, cut = ClientRun(dialect), ClientRun(dialect)
        whole.feed(stream)
        for piece in pieces(stream, cuts):
            cut.feed(piece)
        if whole.ended == "UnaskedReplyError":
            self.assertEqual(cut.events[: len(whole.events)], whole.events)
        else:
            self.assertEqual((cut.events, cut.ended), (whole.events, whole.ended))
        outcome = cut.machine.abandon(LOST)
        if outcome is not None:
            self.assertEqual(len(outcome.results), len(MESSAGE.recipients))

    def test_memory(self) -> None:
        """Whatever a server goes on sending, the machine keeps at most a reply, and it ends."""
        greeting = b"220 mx\r\n250-mx\r\n250 PIPELINING\r\n"
        for before in (b"", b"220 ", b"220-", greeting, greeting + b"250 ok\r\n250-"):
            for unit in (b"x", b"\0", b"250-x\r\n", b"250-" + b"y" * 4000 + b"\r\n", b"2", b"\n"):
                run = ClientRun(Dialect())
                run.feed(before)
                most = 0
                for _ in range(64):
                    run.feed(unit * (16384 // len(unit)))
                    most = max(most, held_octets(run.machine))
                self.assertLess(most, 400_000, (before, unit[:8]))
                self.assertTrue(run.ended, (before, unit[:8]))


OPTIONS = ServerOptions("mx.example.com", max_message_size=20_000, auth=("PLAIN",))
ENVELOPE = b"EHLO x\r\nMAIL FROM:<a@b.cd>\r\nRCPT TO:<e@f.gh>\r\n"


def drain(machine: SMTPServer) -> list[Any]:
    """Answer everything as the machine suggests; what happened."""
    events = []
    while (event := machine.next_event()) is not NEED_DATA and not machine.closed:
        events.append(event)
        machine.answer(event.reply)  # type: ignore[union-attr]
    return events


class ServerTests(SynchronousTestCase):
    """The server's machine; tests.test_wire_smtp_server cuts its streams."""

    def test_memory(self) -> None:
        """Whatever a client goes on sending, the machine keeps at most one message."""
        for before in (
            b"",
            b"EHLO x\r\n",
            b"MAIL FROM:<",
            ENVELOPE,
            ENVELOPE + b"DATA\r\n",
            ENVELOPE + b"BDAT 9999999\r\n",
            ENVELOPE + b"BDAT 9999999999 LAST\r\n",
        ):
            for unit in (
                b"x",
                b"\0",
                b"NOOP\r\n",
                b"\r\n",
                b"\r",
                b"\r\n.",
                b"RCPT TO:<a@b.cd>\r\n",
                b"BDAT 3\r\nabc",
                b"EHLO x\r\n",
                b"MAIL FROM:<a@b.cd>\r\nRSET\r\n",
            ):
                machine = SMTPServer(OPTIONS)
                machine.receive_data(before)
                drain(machine)
                most = 0
                for _ in range(64):
                    machine.receive_data(unit * (16384 // len(unit)))
                    drain(machine)
                    most = max(most, held_octets(machine))
                self.assertLess(most, 400_000, (before, unit))


class OffsetTests(SynchronousTestCase):
    """From one side to the other."""

    def test_dots_at_every_offset_around_every_buffer(self) -> None:
        """What looks like an end arrives as text, wherever the pieces of both sides meet.

        The sizes are those of segments, of TLS records, of Twisted's and of usual buffers.
        """
        sizes = (512, 1024, 1448, 4096, 8192, 16384, 32768, 65536, 131072)
        for size in sizes:
            for offset in range(-6, 7):
                for hidden in (b"\r\n.\r\n", b"\r\n..\r\n", b"\r\n.x", b"\r\n\r\n.\r\n.\r\n"):
                    body = b"y" * (size + offset) + hidden + b"MAIL FROM:<>\r\n"
                    for written in (65536, size):
                        wire = b"".join(stuffed_chunks(body, written))
                        self.assertEqual(self.read(wire, size), [body], (size, offset, hidden))

    @staticmethod
    def read(wire: bytes, size: int) -> list[bytes]:
        """What a server that reads so much at a time takes."""
        machine = SMTPServer(ServerOptions("mx.example.com"))
        machine.receive_data(ENVELOPE + b"DATA\r\n")
        drain(machine)
        found = []
        for at in range(0, len(wire), size):
            machine.receive_data(wire[at : at + size])
            found += [e.transaction.body for e in drain(machine) if isinstance(e, MessageReceived)]
        return found


def held_octets(root: Any) -> int:
    """Octets of text and data that an object keeps alive, code and classes aside."""
    seen: set[int] = set()
    waiting = [root]
    total = 0
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, bytes | bytearray | str):
            total += len(each)
        else:
            waiting.extend(gc.get_referents(each))
    return total
