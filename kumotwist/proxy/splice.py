"""A relay over bare sockets, which moves long streams inside the kernel.

Octets are first copied, which is cheapest for the few thousand of an ordinary mail. A direction
that has carried L{SPLICE_AFTER} octets gets a pipe from a pool, and C{splice(2)} moves the rest
from socket to pipe to socket without copying it into this process. Never more than one read's
worth waits in this process, or one pipe's in the kernel: while it waits its source is not read.

It takes the client's socket from its transport once the transport has sent what it had to, and
leaves the closing to the transport.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet import interfaces
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.outgoing import IOutgoing
from kumotwist.proxy.relay import CLOSED_BY, RESET_BY

__all__ = ["SPLICE_AFTER", "PipePool", "SpliceRelay", "can_splice"]

#: A direction is spliced after so many octets.
SPLICE_AFTER = 128 * 1024

_READ = 64 * 1024
_PIPE = 1024 * 1024
_POOLED = 32
_AGAIN = (errno.EAGAIN, errno.EINTR)


def can_splice(client: Any, outgoing: IOutgoing) -> bool:
    """Whether the platform has C{splice} and both sides are plain sockets."""
    return (
        hasattr(os, "splice")
        and outgoing.handle is not None
        and not interfaces.ISSLTransport.providedBy(client)
        and isinstance(client.getHandle(), socket.socket)
    )


class PipePool:
    """Empty pipes for whoever has a long stream, kept because making a large one takes time."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int]] = []

    def take(self) -> tuple[int, int]:
        """A pipe, as its reading and its writing end.

        @raise OSError: no descriptor is left.
        """
        if self._free:
            return self._free.pop()
        ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # beyond what one user may have: it stays small
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE)
        return ends

    def give(self, ends: tuple[int, int], empty: bool) -> None:
        """Take a pipe back; one that is not empty is closed."""
        if empty and len(self._free) < _POOLED:
            self._free.append(ends)
        else:
            for end in ends:
                os.close(end)

    def close(self) -> None:
        """Close the pipes that nobody has."""
        while self._free:
            self.give(self._free.pop(), empty=False)


@implementer(interfaces.IReadWriteDescriptor)
class _End:
    """One of the two sockets, as the reactor watches it."""

    def __init__(self, relay: SpliceRelay, name: str, handle: socket.socket) -> None:
        self.name = name
        self.handle = handle
        self.number = handle.fileno()
        self.lost = False
        self._relay = relay
        self.out: _Way
        self.into: _Way

    def fileno(self) -> int:
        return self.number

    def doRead(self) -> None:
        self._relay.turn(self.out.read)

    def doWrite(self) -> None:
        self._relay.turn(self.into.write)

    def connectionLost(self, reason: Failure) -> None:
        self._relay.turn(self._lose)

    def _lose(self) -> None:
        self._relay.lose(self)

    def logPrefix(self) -> str:
        return "KumoProxy"


class _Way:
    """One direction of a stream.

    @ivar moved: octets that were read.
    @ivar closed: whether all was sent and the sink's direction is shut.
    """

    def __init__(
        self, relay: SpliceRelay, source: _End, sink: _End, count: Callable[[int], None]
    ) -> None:
        self._relay = relay
        self._source = source
        self._sink = sink
        self._count = count
        self._waiting = b""
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._may_splice = True
        self._ended = False
        self.closed = False
        self.moved = 0

    def begin(self, early: bytes) -> None:
        """Start with what was read already."""
        self._waiting = early
        if early:
            self._note(len(early))
            self.write()
        else:
            self._relay.watch(self._source, reading=True)

    def read(self) -> None:
        """The source can be read."""
        if self._ended or self._pending:
            return
        try:
            number = self._splice_in() if self._pipe is not None else self._copy_in()
        except OSError as error:
            if error.errno in _AGAIN:
                return
            if self._pipe is not None and error.errno == errno.EINVAL:
                self._give_pipe_back()
                self._may_splice = False
                return
            self._relay.lose(self._source)
            return
        if number == 0:
            self.end()
            return
        self._note(number)
        self._send()
        if self._pending:
            self._relay.watch(self._source, reading=False)
            self._relay.watch(self._sink, writing=True)
        elif self.moved >= SPLICE_AFTER and self._pipe is None and not self._ended:
            self._take_pipe()

    def write(self) -> None:
        """The sink can be written."""
        self._send()
        if self._pending:
            self._relay.watch(self._sink, writing=True)
            return
        self._relay.watch(self._sink, writing=False)
        if self._ended:
            self._shut()
        else:
            self._relay.watch(self._source, reading=True)

    def end(self) -> None:
        """The source sends no more: shut the sink's direction once everything is sent."""
        if self._ended:
            return
        self._ended = True
        self._relay.watch(self._source, reading=False)
        if not self._pending:
            self._shut()

    def drop(self) -> None:
        """The sink is gone: what was meant for it is forgotten."""
        self._ended = self.closed = True
        self._waiting = b""
        self._relay.watch(self._source, reading=False)
        self._give_pipe_back()

    @property
    def _pending(self) -> int:
        return len(self._waiting) + self._in_pipe

    def _note(self, number: int) -> None:
        self.moved += number
        self._count(number)

    def _copy_in(self) -> int:
        self._waiting = self._source.handle.recv(_READ)
        return len(self._waiting)

    def _splice_in(self) -> int:
        assert self._pipe is not None
        number = os.splice(
            self._source.number,
            self._pipe[1],
            _PIPE,
            flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK,
        )
        self._in_pipe += number
        return number

    def _send(self) -> None:
        """Send what waits, as much as the sink takes."""
        try:
            if self._waiting:
                self._waiting = self._waiting[self._sink.handle.send(self._waiting) :]
            if self._in_pipe and self._pipe is not None:
                self._in_pipe -= os.splice(
                    self._pipe[0],
                    self._sink.number,
                    self._in_pipe,
                    flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK,
                )
        except OSError as error:
            if error.errno not in _AGAIN:
                self._relay.lose_sink(self._sink)

    def _shut(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._give_pipe_back()
        try:
            self._sink.handle.shutdown(socket.SHUT_WR)
        except OSError:
            self._relay.lose_sink(self._sink)

    def _take_pipe(self) -> None:
        if not self._may_splice:
            return
        try:
            self._pipe = self._relay.pipes.take()
        except OSError:
            self._may_splice = False

    def _give_pipe_back(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            self._relay.pipes.give(pipe, empty=not self._in_pipe)
        self._in_pipe = 0


@implementer(interfaces.IPullProducer)
class _Flushed:
    """Tells when a transport has sent everything.

    A transport asks a pull producer for octets when it is registered, and again whenever its
    buffer is empty.
    """

    def __init__(self, flushed: Callable[[], None]) -> None:
        self._flushed = flushed
        self._asked = False

    def resumeProducing(self) -> None:
        if self._asked:
            self._flushed()
        self._asked = True

    def stopProducing(self) -> None:
        """The transport is gone; its protocol is told by other means."""


class SpliceRelay:
    """A L{kumotwist.proxy.relay.Relay} over the sockets themselves.

    @param reactor: provides L{interfaces.IReactorFDSet} and time.
    @param client: the client's transport; something must be waiting to be sent on it.
    @param outgoing: the connected outgoing side.
    @param counters: where octets are counted as they pass.
    @param pipes: where long streams get their pipes.
    @param ended: called once, when both connections are gone, with the words for the log.
    """

    def __init__(
        self,
        reactor: Any,
        client: Any,
        outgoing: IOutgoing,
        counters: ProxyCounters,
        pipes: PipePool,
        ended: Callable[[str], None],
    ) -> None:
        self.pipes = pipes
        self.last_activity: float = reactor.seconds()
        self._reactor = reactor
        self._client = client
        self._outgoing = outgoing
        self._counters = counters
        self._ended = ended
        self._outcome: str | None = None
        self._over = False
        self._ends: tuple[_End, ...] = ()
        self._ways: tuple[_Way, ...] = ()
        self._early = b""

    @property
    def to_destination(self) -> int:
        return self._ways[0].moved if self._ways else 0

    @property
    def to_client(self) -> int:
        return self._ways[1].moved if self._ways else 0

    # -- Relay -------------------------------------------------------------------------------------

    def start(self, early: bytes) -> None:
        self._early = early
        self._client.pauseProducing()
        self._client.registerProducer(_Flushed(self._take_over), False)

    def from_client(self, data: bytes) -> None:
        self._early += data  # read just before the transport was paused

    def client_done(self) -> None:
        self.abort(CLOSED_BY["client"])

    def client_lost(self, reason: Failure) -> None:
        self._finish(RESET_BY["client"])
        self._ended(self._outcome or "")

    def abort(self, outcome: str) -> None:
        handle = self._outgoing.handle
        if handle is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._finish(outcome)
        self._client.abortConnection()

    # -- what ends and ways call -------------------------------------------------------------------

    def turn(self, act: Callable[[], None]) -> None:
        """Let an end or a way do something, then see whether that was all."""
        if self._over:
            return
        self.last_activity = self._reactor.seconds()
        act()
        self._look()

    def watch(self, end: _End, *, reading: bool | None = None, writing: bool | None = None) -> None:
        """Begin or cease to watch a socket."""
        if end.lost:
            return
        if reading is not None:
            (self._reactor.addReader if reading else self._reactor.removeReader)(end)
        if writing is not None:
            (self._reactor.addWriter if writing else self._reactor.removeWriter)(end)

    def lose(self, end: _End) -> None:
        """A connection is gone: what it left behind is delivered, nothing goes to it."""
        if end.lost:
            return
        self.lose_sink(end)
        self._reactor.removeReader(end)
        end.lost = True
        end.out.end()

    def lose_sink(self, end: _End) -> None:
        """Nothing can be sent on a connection any more; what it has received is still read."""
        self._outcome = self._outcome or RESET_BY[end.name]
        self.watch(end, writing=False)
        end.into.drop()

    # -- the course of things ----------------------------------------------------------------------

    def _take_over(self) -> None:
        """The transport has sent the reply: from here on the sockets are ours."""
        self._client.unregisterProducer()
        handle = self._outgoing.handle
        assert handle is not None
        client = _End(self, "client", self._client.getHandle())
        destination = _End(self, "destination", handle)
        there = _Way(self, client, destination, self._count_to_destination)
        back = _Way(self, destination, client, self._count_to_client)
        client.out = destination.into = there
        client.into = destination.out = back
        self._ends = (client, destination)
        self._ways = (there, back)
        back.begin(b"")
        there.begin(self._early)
        self._look()

    def _count_to_destination(self, number: int) -> None:
        self._counters.bytes_to_destination += number

    def _count_to_client(self, number: int) -> None:
        self._counters.bytes_to_client += number

    def _look(self) -> None:
        """Note who closed first; when both ways are closed the session is over."""
        there, back = self._ways
        if self._outcome is None and (there.closed or back.closed):
            self._outcome = CLOSED_BY["client" if there.closed else "destination"]
        if there.closed and back.closed and not self._over:
            self._finish("")
            self._client.loseConnection()

    def _finish(self, outcome: str) -> None:
        """Let go of the sockets."""
        if self._over:
            return
        self._over = True
        self._outcome = self._outcome or outcome
        for end in self._ends:
            self._reactor.removeReader(end)
            self._reactor.removeWriter(end)
        for way in self._ways:
            way.drop()
        self._outgoing.close()
