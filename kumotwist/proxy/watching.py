"""Bare sockets and who watches them: the proxy's sessions need no transport per connection.

A reactor does more for each event than these sockets need. Where the platform has C{epoll} the
proxy's sockets are therefore watched by an instance of its own, which the reactor in turn watches
as if it were one socket: however many of them are ready, the reactor has one event. Elsewhere the
reactor watches each.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = [
    "READ",
    "WRITE",
    "EpollWatcher",
    "ReactorWatcher",
    "WatchedSocket",
    "Watcher",
    "make_watcher",
]

#: Something can be read, or the peer has closed; the numbers are C{epoll}'s.
READ = 1
#: Something can be written.
WRITE = 4

_BOTH = READ | WRITE
#: At most so many sockets have their turn before the reactor looks at others.
_BATCH = 256

_log = Logger()


class WatchedSocket:
    """A non-blocking socket and who is told when it is ready.

    @ivar handle: the socket.
    @ivar number: its descriptor; it stays when the socket is closed.
    @ivar ready: called with L{READ}, L{WRITE} or both; whoever takes the socket over replaces it.
    @ivar events: what is watched for at present; L{Watcher.watch} changes it.
    """

    __slots__ = ("events", "handle", "number", "ready")

    def __init__(self, handle: socket.socket, ready: Callable[[int], None]) -> None:
        self.handle = handle
        self.number = handle.fileno()
        self.ready = ready
        self.events = 0


class Watcher(Protocol):
    """Tells sockets when they are ready."""

    def watch(self, one: WatchedSocket, events: int) -> None:
        """Watch a socket for C{events} and for nothing else; 0 ceases to watch it."""

    def close(self, one: WatchedSocket) -> None:
        """Close a socket, whether it is watched or not."""


@implementer(IReadDescriptor)
class EpollWatcher:
    """Watches with an C{epoll} of its own, which exists while there is something to watch.

    @param reactor: provides L{twisted.internet.interfaces.IReactorFDSet}.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._sockets: dict[int, WatchedSocket] = {}
        self._fresh: set[int] = set()
        self._epoll: select.epoll | None = None
        self._number = -1

    def watch(self, one: WatchedSocket, events: int) -> None:
        before = one.events
        if events == before:
            return
        epoll = self._epoll or self._open()
        if not before:
            epoll.register(one.number, events)
            self._sockets[one.number] = one
            self._fresh.add(one.number)
        elif events:
            epoll.modify(one.number, events)
        else:
            epoll.unregister(one.number)
            self._forget(one)
        one.events = events

    def close(self, one: WatchedSocket) -> None:
        if one.events:
            one.events = 0
            self._forget(one)
        one.handle.close()  # the kernel forgets it by itself

    def _forget(self, one: WatchedSocket) -> None:
        del self._sockets[one.number]
        if not self._sockets and self._epoll is not None:
            epoll, self._epoll = self._epoll, None
            self._reactor.removeReader(self)
            epoll.close()

    def _open(self) -> select.epoll:
        self._epoll = epoll = select.epoll()
        self._number = epoll.fileno()
        self._reactor.addReader(self)
        return epoll

    # -- IReadDescriptor ---------------------------------------------------------------------------

    def fileno(self) -> int:
        return self._number

    def doRead(self) -> None:
        """Give every socket that is ready its turn."""
        if self._epoll is None:
            return
        # A descriptor that was closed in this batch may be another socket's already; what was
        # reported of the old one is not told to the new one.
        fresh = self._fresh
        fresh.clear()
        sockets = self._sockets
        for number, events in self._epoll.poll(0, _BATCH):
            one = sockets.get(number)
            if one is None or number in fresh:
                continue
            try:
                one.ready(events & _BOTH or one.events)
            except Exception:
                _log.failure("a defect in relaying; the connection waits for its timeout")
                if sockets.get(number) is one:
                    self.watch(one, 0)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives it up; only the end of the process does that."""

    def logPrefix(self) -> str:
        return "KumoProxy"


@implementer(IReadWriteDescriptor)
class _Descriptor:
    """A watched socket as the reactor sees it."""

    def __init__(self, one: WatchedSocket) -> None:
        self.one = one

    def fileno(self) -> int:
        return self.one.number

    def doRead(self) -> None:
        if self.one.events & READ:
            self.one.ready(READ)

    def doWrite(self) -> None:
        if self.one.events & WRITE:
            self.one.ready(WRITE)

    def connectionLost(self, reason: Failure) -> None:
        if self.one.events:
            self.one.ready(self.one.events)

    def logPrefix(self) -> str:
        return "KumoProxy"


class ReactorWatcher:
    """Watches each socket with the reactor itself.

    @param reactor: provides L{twisted.internet.interfaces.IReactorFDSet}.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptors: dict[int, _Descriptor] = {}

    def watch(self, one: WatchedSocket, events: int) -> None:
        before, one.events = one.events, events
        known = self._descriptors.get(one.number) or _Descriptor(one)
        self._descriptors[one.number] = known
        changed = before ^ events
        if changed & READ:
            (self._reactor.addReader if events & READ else self._reactor.removeReader)(known)
        if changed & WRITE:
            (self._reactor.addWriter if events & WRITE else self._reactor.removeWriter)(known)
        if not events:
            del self._descriptors[one.number]

    def close(self, one: WatchedSocket) -> None:
        if one.events:
            self.watch(one, 0)
        one.handle.close()


def make_watcher(reactor: Any) -> Watcher:
    """The best watcher that platform and reactor allow."""
    return EpollWatcher(reactor) if hasattr(select, "epoll") else ReactorWatcher(reactor)
