"""The loop: waits for events, and knows which descriptors wait for what."""

from __future__ import annotations

import errno
import socket
from select import EPOLLIN, EPOLLOUT
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor
from twisted.logger import Logger

from kumotwist.reactor.streams import Port, Stream, connector_for

__all__ = ["DirectEPollReactor", "install"]

_log = Logger()


class DirectEPollReactor(EPollReactor):
    """The reactor; see the package's docstring."""

    def __init__(self) -> None:
        # Connections that end with this turn.
        self._ending: list[Any] = []
        super().__init__()  # type: ignore[no-untyped-call]

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        listening = Port(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        if addressFamily not in (socket.AF_INET, socket.AF_INET6):
            adopt: Any = super().adoptStreamPort
            return adopt(fileDescriptor, addressFamily, factory)
        make: Any = Port._fromListeningDescriptor
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
        connector = connector_for(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # -- for streams ------------------------------------------------------------------------------

    def watch(self, stream: Any) -> None:
        """Wait until a connection that was begun stands, or has failed."""
        descriptor = stream.fileno()
        self._poller.register(descriptor, EPOLLIN | EPOLLOUT)
        self._reads.add(descriptor)
        self._writes.add(descriptor)
        self._selectables[descriptor] = stream

    def stands(self, stream: Any) -> None:
        """The connection stands: from now on there is only to be read."""
        descriptor = stream.fileno()
        self._poller.modify(descriptor, EPOLLIN)
        self._writes.remove(descriptor)

    def forget(self, stream: Any) -> None:
        """Wait for nothing any more."""
        descriptor = stream.fileno()
        if self._selectables.get(descriptor) is stream:
            self._poller.unregister(descriptor)
            del self._selectables[descriptor]
            self._reads.discard(descriptor)
            self._writes.discard(descriptor)
        elif descriptor == -1:
            self.removeReader(stream)  # type: ignore[no-untyped-call]
            self.removeWriter(stream)  # type: ignore[no-untyped-call]

    def end_soon(self, stream: Any) -> None:
        """Call C{end} of a stream at the end of this turn."""
        self._ending.append(stream)

    # -- the loop ---------------------------------------------------------------------------------

    def doPoll(self, timeout: float | None) -> None:
        """Wait for events and handle them."""
        if self._ending:
            timeout = 0
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as error:
            if error.errno == errno.EINTR:
                return
            raise
        selectables = self._selectables
        handle: Any = self._doReadOrWrite
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if not isinstance(selectable, Stream) or (selectable.connected and event != EPOLLIN):
                # It logs whatever a connection raises, and ends that connection.
                handle(selectable, descriptor, event)
                continue
            try:
                why = selectable.doRead() if selectable.connected else selectable.doConnect()
            except BaseException as error:
                _log.failure("a connection failed")
                why = error
            if why is not None:
                selectable.lost(why)
        if self._ending:
            self._end_streams()

    doIteration = doPoll

    def _end_streams(self) -> None:
        ending, self._ending = self._ending, []
        for stream in ending:
            try:
                stream.end()
            except Exception:
                _log.failure("a connection failed at its end")


def install() -> None:
    """Make it the process's reactor; C{twistd --reactor=kumo-epoll} calls this."""
    installReactor(DirectEPollReactor())
