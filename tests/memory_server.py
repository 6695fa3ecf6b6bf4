"""A small SMTP server in memory: the server's machine, with real TLS if it is given a context."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.test.iosim import IOPump, connect

from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.events import PAUSED, Hello, MessageReceived, StartTLS, Transaction
from kumotwist.wire.smtp.server import ServerOptions, SMTPServer
from tests.memory_tls import TLSFakeTransport

__all__ = ["MemoryServer", "pump_to"]


class MemoryServer(Protocol):
    """Accepts everything.

    @ivar messages: the transactions that came to their end.
    @ivar hellos: the names that clients have given themselves, one for each EHLO.
    @ivar after_go_ahead: octets to send in clear right behind the reply to STARTTLS.
    """

    def __init__(self, tls: Any = None, after_go_ahead: bytes = b"") -> None:
        self.messages: list[Transaction] = []
        self.hellos: list[str] = []
        self.after_go_ahead = after_go_ahead
        self._tls = tls
        self._machine = SMTPServer(ServerOptions("mx.example.com"), starttls=tls is not None)

    def connectionMade(self) -> None:
        """Greet."""
        self._write(self._machine.greeting())

    def dataReceived(self, data: bytes) -> None:
        """Answer every command as it deserves."""
        self._machine.receive_data(data)
        while (event := self._machine.next_event()) is not NEED_DATA and event is not PAUSED:
            if isinstance(event, Hello):
                self.hellos.append(event.domain)
            elif isinstance(event, MessageReceived):
                self.messages.append(event.transaction)
            self._write(self._machine.answer(event.reply))
            if isinstance(event, StartTLS):
                self._start_tls()

    def _start_tls(self) -> None:
        if self.after_go_ahead:
            self._write(self.after_go_ahead)
        transport: Any = self.transport
        transport.startTLS(self._tls)

    def _write(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


def pump_to(server: Protocol, client: Protocol) -> IOPump:
    """Connect a client with a server in memory, and let them talk until both are silent."""
    pump: IOPump = connect(
        server, TLSFakeTransport(server, True), client, TLSFakeTransport(client, False)
    )
    pump.flush()
    return pump
