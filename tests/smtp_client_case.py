"""A client of the delivery side, a clock, and a transport that remembers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.smtp.client import ESMTPClient, OutgoingTransaction, SMTPSessionError

__all__ = ["ACCEPTED", "GROUP", "MESSAGE", "ClientCase", "CountingTransport"]

MESSAGE = OutgoingTransaction("me@example.org", ("a@example.com", "b@example.com"), b".hi\r\n")
GROUP = (
    b"MAIL FROM:<me@example.org>\r\nRCPT TO:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
)
ACCEPTED = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"


class CountingTransport(StringTransport):
    """Counts writes, and knows what TCP transports know."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.no_delay = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        super().write(data)

    def writeSequence(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled


class ClientCase(SynchronousTestCase):
    """A client, a clock and a transport that remembers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = CountingTransport()
        self.client = self.make()

    def make(self, **options: Any) -> ESMTPClient:
        """A client that is connected."""
        self.transport = CountingTransport()
        self.client = ESMTPClient(self.clock, hostname="me.example", **options)
        self.client.makeConnection(self.transport)
        return self.client

    def said(self) -> bytes:
        """What has been written since the last look."""
        data: bytes = self.transport.value()
        self.transport.clear()
        self.transport.writes.clear()
        return data

    def open(self, *extensions: bytes) -> None:
        """Let the server greet and offer."""
        opened = self.client.open()
        self.client.dataReceived(b"220 mx\r\n")
        lines = b"".join(b"250-%b\r\n" % line for line in (b"mx", *extensions))
        self.client.dataReceived(lines + b"250 HELP\r\n")
        self.successResultOf(opened)
        self.said()

    def lose(self, reason: Exception | None = None) -> None:
        """Let the connection go."""
        self.client.connectionLost(Failure(reason or ConnectionDone()))

    def failure_of(self, deferred: Deferred[Any], kind: type[SMTPSessionError]) -> SMTPSessionError:
        """The session error that a Deferred failed with."""
        error = self.failureResultOf(deferred, kind).value
        assert isinstance(error, SMTPSessionError)
        return error

    def assert_clean(self) -> None:
        """Nothing stays behind in the reactor."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
