"""A relay over bare sockets, which moves long streams inside the kernel.

Octets are first copied, which is cheapest for the few thousand of an ordinary mail. A direction
that has carried L{SPLICE_AFTER} octets gets a pipe from a pool, and C{splice(2)} moves the rest
from socket to pipe to socket without copying it into this process. Never more than one read's
worth waits in this process, or one pipe's in the kernel: while it waits its source is not read.

It takes both sockets over when the destination is connected, and closes them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from functools import partial

from twisted.python.failure import Failure

from kumotwist.proxy.accepting import ClientSocket
from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.outgoing import IOutgoing
from kumotwist.proxy.relay import CLOSED_BY, RESET_BY
from kumotwist.proxy.watching import READ, WRITE, WatchedSocket, Watcher

__all__ = ["SPLICE_AFTER", "PipePool", "SpliceRelay"]

#: A direction is spliced after so many octets.
SPLICE_AFTER = 128 * 1024

_READ = 64 * 1024
_PIPE = 1024 * 1024
_POOLED = 32
_AGAIN = (errno.EAGAIN, errno.EINTR)
_RESET = struct.pack("ii", 1, 0)


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


class _End:
    """One of the two sockets.

    @ivar name: C{client} or C{destination}.
    @ivar out: the way that begins here.
    @ivar into: the way that ends here.
    @ivar lost: whether the connection is gone.
    """

    __slots__ = ("handle", "into", "lost", "name", "number", "out", "socket")

    out: _Way
    into: _Way

    def __init__(self, name: str, one: WatchedSocket) -> None:
        self.name = name
        self.socket = one
        self.handle = one.handle
        self.number = one.number
        self.lost = False


class _Way:
    """One direction of a stream.

    @ivar moved: octets that were read.
    @ivar closed: whether all was sent and the sink's direction is shut.
    """

    def __init__(self, relay: SpliceRelay, source: _End, sink: _End) -> None:
        self._relay = relay
        self._source = source
        self._sink = sink
        self._waiting = b""
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._pipes = relay.pipes
        self._ended = False
        self.closed = False
        self.moved = 0

    def begin(self, early: bytes) -> None:
        """Start with what was read already; the source is watched for reading."""
        if early:
            self._waiting = early
            self._relay.watch(self._source, READ, False)
            self.write()

    def read(self) -> None:
        """The source can be read."""
        if self._ended or self._waiting or self._in_pipe:
            return
        try:
            number = self._splice_in() if self._pipe is not None else self._copy_in()
        except OSError as error:
            if error.errno in _AGAIN:
                return
            if self._pipe is not None and error.errno == errno.EINVAL:
                self._give_pipe_back()
                self._pipes = None
                return
            self._relay.lose(self._source)
            return
        if number == 0:
            self.end()
            return
        self._relay.count(self, number)
        self._send()
        if self._waiting or self._in_pipe:
            self._relay.watch(self._source, READ, False)
            self._relay.watch(self._sink, WRITE, True)
        elif self.moved >= SPLICE_AFTER and self._pipe is None and not self._ended:
            self._take_pipe()

    def write(self) -> None:
        """The sink can be written."""
        self._send()
        if self._waiting or self._in_pipe:
            self._relay.watch(self._sink, WRITE, True)
            return
        self._relay.watch(self._sink, WRITE, False)
        if self._ended:
            self._shut()
        else:
            self._relay.watch(self._source, READ, True)

    def end(self) -> None:
        """The source sends no more: shut the sink's direction once everything is sent."""
        if self._ended:
            return
        self._ended = True
        if not (self._waiting or self._in_pipe):
            self._shut()
        if not (self.closed and self._sink.out.closed):  # else both sockets are closed at once
            self._relay.watch(self._source, READ, False)

    def drop(self) -> None:
        """The sink is gone: what was meant for it is forgotten."""
        self._ended = self.closed = True
        self._waiting = b""
        self._relay.watch(self._source, READ, False)
        self._give_pipe_back()

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
            waiting = self._waiting
            if waiting:
                sent = self._sink.handle.send(waiting)
                self._waiting = waiting[sent:] if sent < len(waiting) else b""
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
        if self._sink.out.closed:
            return  # closing the socket, which is next, says the same
        try:
            self._sink.handle.shutdown(socket.SHUT_WR)
        except OSError:
            self._relay.lose_sink(self._sink)

    def _take_pipe(self) -> None:
        if self._pipes is None:
            return
        try:
            self._pipe = self._pipes.take()
        except OSError:
            self._pipes = None

    def _give_pipe_back(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None and self._relay.pipes is not None:
            self._relay.pipes.give(pipe, empty=not self._in_pipe)
        self._in_pipe = 0


class SpliceRelay:
    """A L{kumotwist.proxy.relay.Relay} over the sockets themselves.

    @param seconds: the clock.
    @param watcher: watches the sockets.
    @param client: the client's socket; it and what it has still to send are taken over.
    @param outgoing: the connected outgoing side.
    @param counters: where octets are counted as they pass.
    @param pipes: where long streams get their pipes; L{None} if they are to be copied.
    @param ended: called once, when both connections are gone, with the words for the log.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        watcher: Watcher,
        client: ClientSocket,
        outgoing: IOutgoing,
        counters: ProxyCounters,
        pipes: PipePool | None,
        ended: Callable[[str], None],
    ) -> None:
        self.pipes = pipes
        self.last_activity = seconds()
        self._seconds = seconds
        self._watcher = watcher
        self._counters = counters
        self._ended = ended
        self._outcome: str | None = None
        self._over = False
        one, self._unsent = client.detach()
        self._client = _End("client", one)
        self._destination = _End("destination", outgoing.detach())
        there = _Way(self, self._client, self._destination)
        back = _Way(self, self._destination, self._client)
        self._client.out = self._destination.into = self._there = there
        self._client.into = self._destination.out = self._back = back

    @property
    def to_destination(self) -> int:
        return self._there.moved

    @property
    def to_client(self) -> int:
        return self._back.moved

    # -- Relay -------------------------------------------------------------------------------------

    def start(self, early: bytes) -> None:
        for end in (self._client, self._destination):
            end.socket.ready = partial(self._turn, end)
        self._watcher.watch(self._client.socket, READ)
        self._watcher.watch(self._destination.socket, READ)
        self.count(self._there, len(early))
        self._back.begin(self._unsent)
        self._there.begin(early)
        self._look()

    def from_client(self, data: bytes) -> None:
        """Nothing: the socket that could say so was taken over."""

    def client_done(self) -> None:
        """Nothing, for the same reason."""

    def client_lost(self, reason: Failure) -> None:
        """Nothing, for the same reason."""

    def abort(self, outcome: str) -> None:
        if self._over:
            return
        for end in (self._client, self._destination):
            end.handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._outcome = outcome
        self._finish(outcome)

    # -- what the watcher calls --------------------------------------------------------------------

    def _turn(self, end: _End, events: int) -> None:
        """One of the sockets is ready."""
        self.last_activity = self._seconds()
        if events & READ:
            end.out.read()
        if events & WRITE and not end.lost:
            end.into.write()
        if self._there.closed or self._back.closed:
            self._look()

    # -- what ways call ----------------------------------------------------------------------------

    def count(self, way: _Way, number: int) -> None:
        """Octets were read."""
        way.moved += number
        if way is self._there:
            self._counters.bytes_to_destination += number
        else:
            self._counters.bytes_to_client += number

    def watch(self, end: _End, events: int, on: bool) -> None:
        """Begin or cease to watch a socket for reading or writing."""
        if not end.lost:
            present = end.socket.events
            self._watcher.watch(end.socket, present | events if on else present & ~events)

    def lose(self, end: _End) -> None:
        """A connection is gone: what it left behind is delivered, nothing goes to it."""
        if end.lost:
            return
        self.lose_sink(end)
        self._watcher.watch(end.socket, 0)
        end.lost = True
        end.out.end()

    def lose_sink(self, end: _End) -> None:
        """Nothing can be sent on a connection any more; what it has received is still read."""
        self._outcome = self._outcome or RESET_BY[end.name]
        self.watch(end, WRITE, False)
        end.into.drop()

    # -- the end -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Note who closed first; when both ways are closed the session is over."""
        there, back = self._there.closed, self._back.closed
        if self._outcome is None and (there or back):
            self._outcome = CLOSED_BY["client" if there else "destination"]
        if there and back:
            self._finish("")

    def _finish(self, outcome: str) -> None:
        """Close both sockets."""
        if self._over:
            return
        self._over = True
        self._outcome = self._outcome or outcome
        self._client.lost = self._destination.lost = True
        self._there.drop()
        self._back.drop()
        self._watcher.close(self._client.socket)
        self._watcher.close(self._destination.socket)
        self._ended(self._outcome)
