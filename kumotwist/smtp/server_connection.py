"""The transport's side of a listener's session: back-pressure both ways, and an orderly end."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from zope.interface import implementer

__all__ = ["LINGER", "ServerConnection"]

#: Seconds that a client gets to take the last reply and to close its side.
LINGER = 5.0


@implementer(IPushProducer)
class ServerConnection(Protocol):
    """Writes replies in batches, reads no faster than they are taken, closes so that the last of
    them can be read.

    As an C{IPushProducer} it produces replies: the transport says when there are too many.

    @param tls: whether the connection begins with a handshake.
    """

    transport: Any

    def __init__(self, *, tls: bool) -> None:
        self._tls_begun = tls
        self._out: list[bytes] = []
        self._reading = True
        self._blocked = False  # the transport has enough of our replies
        self._closing = False
        self._said_goodbye = False
        self._input_ended = False

    def _go_on(self) -> None:
        """The client takes our replies again; to be overridden."""

    def _ended(self) -> None:
        """The session is over, the connection not quite; to be overridden."""

    def pauseProducing(self) -> None:
        """The client does not take our replies."""
        self._blocked = True

    def resumeProducing(self) -> None:
        """It has taken them."""
        self._blocked = False
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is about to be lost."""
        self._blocked = True

    def _read(self, wanted: bool) -> None:
        if wanted is not self._reading:
            self._reading = wanted
            if wanted:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _flush(self) -> None:
        out = self._out
        if out:
            self._out = []
            self.transport.write(b"".join(out))

    def _close(self) -> None:
        """Let the client take what was said, then close."""
        if self._closing:
            return
        self._closing = True
        self._ended()
        self.transport.unregisterProducer()
        half_close = getattr(self.transport, "loseWriteConnection", None)
        if self._said_goodbye or self._input_ended or self._tls_begun or half_close is None:
            self.transport.loseConnection()
        else:
            # Closing while the client still sends would reset the connection, and the reply that
            # says why could be lost with it.
            self._read(True)
            half_close()
