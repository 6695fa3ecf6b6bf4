"""A reactor for many small messages: C{twistd --reactor=kumo-epoll …}; never required.

Twisted's epoll reactor with two differences, both in what an event costs:

  - An event is handled without a log context of its own. The context only names the connection in
    messages of the old logging system, and setting it up costs more than most events' work.
  - What is written to a connection that has nothing buffered is sent at once, instead of when the
    next turn of the loop finds the socket writable: two calls of C{epoll_ctl} and a turn less for
    each answer. Whatever the socket does not take at once is buffered as ever, so producers,
    half-close and the order of octets are Twisted's own.
"""

from __future__ import annotations

import errno
import socket
from select import EPOLLIN
from typing import Any

from twisted.internet import tcp
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST, installReactor
from twisted.logger import Logger

__all__ = ["DirectEPollReactor", "install"]

_log = Logger()


class _Direct:
    """Sends at once what can be sent at once, and reads with one call less."""

    def write(self: Any, data: bytes) -> None:
        """Send octets, or buffer those that the socket does not take."""
        if (
            data
            and type(data) is bytes
            and not self._tempDataBuffer
            and not self.dataBuffer
            and self.connected
            and not self.TLS
            and not self.disconnecting
            and not self._writeDisconnected
            # A pull producer is asked for more when the loop finds the socket writable.
            and (self.producer is None or self.streamingProducer)
        ):
            try:
                sent = self.socket.send(data)
            except OSError:
                # Full, or broken: the loop will meet an error again and end the connection.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        super().write(data)  # type: ignore[misc]

    def doRead(self: Any) -> Any:
        """Hand on what has arrived; see L{twisted.internet.interfaces.IReadDescriptor}."""
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def writeSequence(self: Any, iovec: Any) -> None:
        """Send several pieces as one."""
        self.write(b"".join(iovec))


class _Server(_Direct, tcp.Server):
    """A connection that was accepted."""


class _Client(_Direct, tcp.Client):
    """A connection that was made."""


class _Port(tcp.Port):
    """Accepts connections."""

    transport = _Server


class _Connector(tcp.Connector):
    """Makes connections."""

    def _makeTransport(self) -> tcp.Client:
        make: Any = _Client
        client: tcp.Client = make(self.host, self.port, self.bindAddress, self, self.reactor)
        return client


class DirectEPollReactor(EPollReactor):
    """The reactor; see the module's docstring."""

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        listening = _Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            adopt: Any = super().adoptStreamPort
            return adopt(fileDescriptor, addressFamily, factory)
        make: Any = _Port._fromListeningDescriptor
        listening = make(self, fileDescriptor, addressFamily, factory)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> Any:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        connector = _Connector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and handle them."""
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        selectables = self._selectables
        handle: Any = self._doReadOrWrite
        disconnect: Any = self._disconnectSelectable
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if event != EPOLLIN or not isinstance(selectable, _Direct):
                # It logs whatever a connection raises, and ends that connection.
                handle(selectable, descriptor, event)
                continue
            try:
                why = selectable.doRead()
            except BaseException as error:
                _log.failure("a connection failed")
                why = error
            if why is not None:
                disconnect(selectable, why, True)

    doIteration = doPoll


def install() -> None:
    """Make it the process's reactor; C{twistd --reactor=kumo-epoll} calls this."""
    installReactor(DirectEPollReactor())  # type: ignore[no-untyped-call]
