"""A client's machine and a server that says exactly what the test wants."""

from __future__ import annotations

from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import (
    ClientEvent,
    Finished,
    SendBody,
    SMTPClient,
)
from kumotwist.wire.smtp.dialect import Dialect
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.transaction import OutgoingTransaction, TransactionOutcome

EHLO = b"EHLO me.example\r\n"
MESSAGE = OutgoingTransaction("me@example.org", ("a@example.com", "b@example.com"), b"hi\r\n")
GROUP = (
    b"MAIL FROM:<me@example.org>\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
)
LOST = Reply.of(421, "4.4.2", "lost connection")


class Dialogue:
    """A machine and what it says."""

    def __init__(self, *extensions: bytes, pipelining: bool = True) -> None:
        self.machine = SMTPClient("me.example", Dialect(pipelining=pipelining))
        self.feed(b"220 mx\r\n")
        self.said = b""
        if extensions:
            lines = [b"mx", *extensions]
            self.feed(b"".join(b"250-%b\r\n" % line for line in lines) + b"250 HELP\r\n")
            self.said = b""

    def feed(self, data: bytes) -> list[ClientEvent]:
        """Let the server say something; a body that is wanted is sent at once."""
        self.machine.receive_data(data)
        return self.events()

    def events(self) -> list[ClientEvent]:
        """What has happened."""
        found = []
        while (event := self.machine.next_event()) is not NEED_DATA:
            found.append(event)
            if isinstance(event, SendBody):
                self.machine.body_sent()
        self.said = self.machine.data_to_send()
        return found

    def begin(self, transaction: OutgoingTransaction = MESSAGE) -> bytes:
        """Begin a transaction: what is said."""
        self.machine.begin(transaction)
        self.said = self.machine.data_to_send()
        return self.said

    def outcome(self, data: bytes) -> TransactionOutcome:
        """Let the server end the transaction."""
        *_, event = self.feed(data)
        assert isinstance(event, Finished)
        return event.outcome


def codes(outcome: TransactionOutcome) -> list[int]:
    """The codes that the recipients got."""
    return [reply.code for reply in outcome.replies]
