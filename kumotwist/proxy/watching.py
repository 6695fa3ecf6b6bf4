"""Bare sockets and who watches them: the proxy's sessions need no transport per connection.

A reactor does more for each event than these sockets need. Where the platform has C{epoll} the
proxy's sockets are therefore watched by an instance of its own, which the reactor in turn watches
as if it were one socket: however many of them are ready, the reactor has one event. Elsewhere the
reactor watches each.

A socket is told once that it is ready, not for as long as it is (C{epoll}'s edges): that saves most
calls of the kernel in a short session. So whoever is told either uses up what there is, which a
read that returns less than it might also shows, or asks to be told L{again<Watcher.again>}. Not
wanting to be told for a while needs no such care: what was missed is told when it is wanted.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = [
    "BROKEN",
    "ENDED",
    "READ",
    "URGENT",
    "WRITE",
    "EpollWatcher",
    "ReactorWatcher",
    "WatchedSocket",
    "Watcher",
    "make_watcher",
]

#: Something can be read, or the peer has closed; the numbers are C{epoll}'s.
READ = 0x01
#: Something can be written.
WRITE = 0x04
#: Told with others: there may be an error to ask for. Alone it is told of a reset only.
BROKEN = 0x08
#: Told with L{READ}: the peer's end waits behind what can be read.
ENDED = 0x2000
#: Told with L{READ}: there is an urgent octet, before which a read stops short.
URGENT = 0x02

_BOTH = READ | WRITE
_HUNG_UP = 0x10
_TOLD_BESIDES = BROKEN | ENDED | URGENT
_NOTED = _BOTH | ENDED | URGENT
_EDGES = ENDED | URGENT | 1 << 31  # EPOLLRDHUP | EPOLLPRI | EPOLLET
#: At most so many sockets have their turn before the reactor looks at others.
_BATCH = 256
#: A round of the reactor costs as much as the turns of so many sockets: where fewer are ready, it
#: is worth while to look once more,
_FEW = 16
#: so often at most.
_ROUNDS = 4
#: Without C{epoll} a reset of a socket that is not read at present is noticed within so many
#: seconds.
_LOOK_EVERY = 5.0

_log = Logger()


class WatchedSocket:
    """A non-blocking socket and who is told when it is ready.

    @ivar handle: the socket.
    @ivar number: its descriptor; it stays when the socket is closed.
    @ivar ready: called with what is told; whoever takes the socket over replaces it.
    @ivar events: what is watched for at present; L{Watcher.watch} changes it.
    @ivar mask: for the watcher: what the kernel watches for.
    @ivar missed: what may have become ready and was not told; who looks for it himself may clear
        it.
    """

    __slots__ = ("events", "handle", "mask", "missed", "number", "ready")

    def __init__(self, handle: socket.SocketType, ready: Callable[[int], None]) -> None:
        self.handle = handle
        self.number = handle.fileno()
        self.ready = ready
        self.events = self.mask = self.missed = 0


class Watcher(Protocol):
    """Tells sockets when they are ready."""

    def watch(self, one: WatchedSocket, events: int) -> None:
        """Watch a socket for C{events}, L{READ} and L{WRITE}; 0 tells it nothing for a while.

        What is wanted now and was not before is told if it is there already.
        """

    def again(self, one: WatchedSocket) -> None:
        """Tell once more what is there: the socket was not read to its end."""

    def release(self, one: WatchedSocket) -> None:
        """Cease to watch a socket for good, without closing it."""

    def close(self, one: WatchedSocket) -> None:
        """Close a socket, whether it is watched or not."""


def _ignore(events: int) -> None:
    """Nothing, in the place of what a closed socket told; what that was is then free to go."""


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
        one.events = events
        mask = one.mask
        if not mask:
            # What is written to will be read later; what is read is seldom full when written to.
            one.mask = mask = events | READ
            (self._epoll or self._open()).register(one.number, mask | _EDGES)
            self._sockets[one.number] = one
            self._fresh.add(one.number)
            return
        one.missed |= before & ~events
        wanted = events & ~before
        if wanted & (one.missed | ~mask):
            one.missed &= ~wanted
            one.mask = mask = mask | wanted
            assert self._epoll is not None
            self._epoll.modify(one.number, mask | _EDGES)

    def again(self, one: WatchedSocket) -> None:
        if not one.events:
            one.missed |= READ
        elif one.mask and self._epoll is not None:
            self._epoll.modify(one.number, one.mask | _EDGES)  # which looks at it anew

    def release(self, one: WatchedSocket) -> None:
        if one.mask:
            if self._epoll is not None:
                self._epoll.unregister(one.number)
            one.events = one.mask = one.missed = 0
            del self._sockets[one.number]
            if not self._sockets:
                self._stop()

    def close(self, one: WatchedSocket) -> None:
        if one.mask:
            one.events = one.mask = one.missed = 0
            del self._sockets[one.number]  # the kernel forgets it by itself
            if not self._sockets:
                self._stop()
        one.ready = _ignore
        one.handle.close()

    def _stop(self) -> None:
        epoll, self._epoll = self._epoll, None
        if epoll is not None:
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
        for _ in range(_ROUNDS):
            if self._epoll is None:
                return
            found = self._epoll.poll(0, _BATCH)
            self._tell(found)
            if not 0 < len(found) < _FEW:
                return

    def _tell(self, found: Iterable[tuple[int, int]]) -> None:
        # A descriptor that was closed in this batch may be another socket's already; what was
        # reported of the old one is not told to the new one.
        fresh = self._fresh
        fresh.clear()
        sockets = self._sockets
        for number, events in found:
            one = sockets.get(number)
            if one is None or number in fresh:
                continue
            wanted = one.events
            if events & (BROKEN | _HUNG_UP):
                events |= _BOTH  # whatever is tried next will tell
            if missed := events & _NOTED & ~wanted:
                one.missed |= missed
            if not events & (wanted | BROKEN):
                continue
            try:
                one.ready(events & (wanted | _TOLD_BESIDES))
            except Exception:
                _log.failure("a defect in relaying; the connection waits for its timeout")
                if sockets.get(number) is one:
                    self.release(one)

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
            self.one.ready(WRITE | BROKEN)

    def connectionLost(self, reason: Failure) -> None:
        if self.one.events:
            self.one.ready(self.one.events | BROKEN)

    def logPrefix(self) -> str:
        return "KumoProxy"


class ReactorWatcher:
    """Watches each socket with the reactor itself, which tells for as long as one is ready.

    The reactor knows nothing of a socket that is told nothing for a while. Whether it was reset is
    therefore asked of each every L{_LOOK_EVERY} seconds.

    @param reactor: provides L{twisted.internet.interfaces.IReactorFDSet} and
        L{twisted.internet.interfaces.IReactorTime}.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._descriptors: dict[int, _Descriptor] = {}
        self._quiet: dict[int, WatchedSocket] = {}
        self._timer: IDelayedCall | None = None

    def watch(self, one: WatchedSocket, events: int) -> None:
        before, one.events = one.events, events
        known = self._descriptors.get(one.number) or _Descriptor(one)
        self._descriptors[one.number] = known
        changed = before ^ events
        if changed & READ:
            (self._reactor.addReader if events & READ else self._reactor.removeReader)(known)
        if changed & WRITE:
            (self._reactor.addWriter if events & WRITE else self._reactor.removeWriter)(known)
        if events:
            self._quiet.pop(one.number, None)
        else:
            del self._descriptors[one.number]
            self._quiet[one.number] = one
            if self._timer is None:
                self._timer = self._reactor.callLater(_LOOK_EVERY, self._look)

    def again(self, one: WatchedSocket) -> None:
        """Nothing: the reactor does."""

    def release(self, one: WatchedSocket) -> None:
        if one.events:
            self.watch(one, 0)
        self._quiet.pop(one.number, None)
        if self._timer is not None and not self._quiet:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Tell the sockets that were reset while they were told nothing."""
        self._timer = None
        for one in list(self._quiet.values()):
            if self._quiet.get(one.number) is not one:
                continue  # wanted again, or closed, because of what another one was told
            if one.handle.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                del self._quiet[one.number]
                one.ready(BROKEN)
        if self._quiet and self._timer is None:
            self._timer = self._reactor.callLater(_LOOK_EVERY, self._look)

    def close(self, one: WatchedSocket) -> None:
        self.release(one)
        one.ready = _ignore
        one.handle.close()


def make_watcher(reactor: Any) -> Watcher:
    """The best watcher that platform and reactor allow."""
    return EpollWatcher(reactor) if hasattr(select, "epoll") else ReactorWatcher(reactor)
