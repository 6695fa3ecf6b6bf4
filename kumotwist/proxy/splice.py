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

from twisted.python.failure import Failure

from kumotwist.proxy.accepting import NO_WAIT, ClientSocket
from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.outgoing import IOutgoing
from kumotwist.proxy.relay import CLOSED_BY, RESET_BY
from kumotwist.proxy.watching import BROKEN, ENDED, READ, URGENT, WRITE, WatchedSocket, Watcher

__all__ = ["SPLICE_AFTER", "PipePool", "SpliceRelay"]

#: A direction is spliced after so many octets.
SPLICE_AFTER = 128 * 1024

_READ = 64 * 1024
_PIPE = 1024 * 1024
_POOLED = 32
#: So often a source is read before others have their turn.
_READS = 8
_AGAIN = (errno.EAGAIN, errno.EINTR)
#: More follows at once, such as the end: it goes in the same segment and wakes the peer once.
_MORE = NO_WAIT | getattr(socket, "MSG_MORE", 0)
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


class _Way:
    """One direction of a stream.

    @ivar source: where its octets come from.
    @ivar sink: where they go.
    @ivar name: the side that it comes from, C{client} or C{destination}.
    @ivar moved: octets that were read.
    @ivar ended: whether the source sends no more, or nobody wants it.
    @ivar closed: whether all was sent and the sink's direction is shut.
    @ivar back: the other direction.
    """

    __slots__ = (
        "_copied",
        "_in_pipe",
        "_pipe",
        "_relay",
        "_waiting",
        "back",
        "closed",
        "ended",
        "moved",
        "name",
        "sink",
        "source",
    )

    back: _Way

    def __init__(
        self, relay: SpliceRelay, name: str, source: WatchedSocket, sink: WatchedSocket
    ) -> None:
        self._relay = relay
        self.name = name
        self.source = source
        self.sink = sink
        self._waiting = b""
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._copied = relay.pipes is None
        self.ended = self.closed = False
        self.moved = 0

    @property
    def pending(self) -> bool:
        """Whether something was read and not yet sent."""
        return bool(self._waiting or self._in_pipe)

    def turn(self, events: int) -> None:
        """The source is ready: as such, or as the other direction's sink."""
        relay = self._relay
        relay.last_activity = relay.seconds()
        if events & READ:
            self.read(events)
        if events & WRITE and not self.back.closed:
            self.back.write()
        if events & BROKEN and not events & (
            READ | WRITE
        ):  # nobody looks at it, for the other side reads too slowly
            relay.lose_sink(self.back)
        if self.closed or self.back.closed:
            relay.look()

    def begin(self, words: bytes, events: int) -> None:
        """Send C{words} first, and together with them what the source has sent already.

        @param events: what the source is watched for from now on.
        """
        if self.closed:
            return
        source, relay = self.source, self._relay
        found = source.missed
        source.missed = found & ~(READ | ENDED | URGENT)
        if source.events != events:
            relay.watcher.watch(source, events)
        piece, lost = b"", False
        if found & READ:
            try:
                piece = source.handle.recv(_READ, NO_WAIT)
            except OSError as error:
                lost = error.errno not in _AGAIN
            relay.count(self, len(piece))
        self._waiting = words + piece
        if self._waiting:
            self._send(_MORE if found & ENDED else NO_WAIT)
        if self._waiting:
            self._stall()
        if lost:
            relay.lose(self)
        elif found & READ and found & ENDED and not (found & URGENT or len(piece) == _READ):
            self.end()  # behind all that there was
        elif found & ENDED or (found & READ and not 0 < len(piece) < _READ):
            self.read(found)

    def read(self, events: int) -> None:
        """The source can be read."""
        for _ in range(_READS):
            if self.ended or self._waiting or self._in_pipe:
                return
            try:
                if self._pipe is None:
                    self._waiting = piece = self.source.handle.recv(_READ, NO_WAIT)
                    number = len(piece)
                else:
                    number = self._in_pipe = self._splice(self.source.number, self._pipe[1], _PIPE)
            except OSError as error:
                if not self._survive(error):
                    return
                continue
            if not number:
                self.end()
                return
            self._relay.count(self, number)
            if self._pipe is not None:
                self._forward(NO_WAIT)
                break  # what comes meanwhile makes the next one larger
            if number == _READ or events & URGENT:
                self._forward(NO_WAIT)
            elif events & ENDED:
                self._forward(_MORE)
                self.end()  # behind all that there was
                return
            else:
                self._forward(NO_WAIT)
                return  # it was all that there is
        if not self.pending:
            self._relay.watcher.again(self.source)

    def _survive(self, error: OSError) -> bool:
        """Reading has failed. Return whether it is worth another attempt."""
        if error.errno in _AGAIN:
            return error.errno == errno.EINTR
        if self._pipe is not None and error.errno == errno.EINVAL:
            self._give_pipe_back()
            self._copied = True
            return True
        self._relay.lose(self)
        return False

    def _forward(self, flags: int) -> None:
        """Send what was just read; if not all of it goes, let the source wait."""
        self._send(flags)
        if self._waiting or self._in_pipe:
            self._stall()
        elif self.moved >= SPLICE_AFTER and not (self._copied or self._pipe or self.ended):
            self._take_pipe()

    def _stall(self) -> None:
        self._relay.watch(self.source, READ, False)
        self._relay.watch(self.sink, WRITE, True)

    def write(self) -> None:
        """The sink can be written."""
        self._send(NO_WAIT)
        if self._waiting or self._in_pipe:
            return
        relay = self._relay
        relay.watch(self.sink, WRITE, False)
        if self.ended:
            self._shut()
        else:
            relay.watch(self.source, READ, True)

    def end(self) -> None:
        """The source sends no more: shut the sink's direction once everything is sent."""
        if self.ended:
            return
        self.ended = True
        if not (self._waiting or self._in_pipe):
            if self.back.closed:
                self.closed = True  # both sockets are closed next, which says the same
                return
            self._shut()
        self._relay.watcher.watch(self.source, self.source.events & ~READ)

    def drop(self) -> None:
        """The sink is gone: what was meant for it is forgotten."""
        self.ended = self.closed = True
        self._waiting = b""
        self._relay.watch(self.source, READ, False)
        self._give_pipe_back()

    def finish(self) -> None:
        """Both sockets are about to be closed."""
        self.ended = self.closed = True
        self._waiting = b""
        if self._pipe is not None:
            self._give_pipe_back()
        del self.back, self._relay  # what refers to itself would wait for the garbage collector

    def _splice(self, source: int, sink: int, number: int) -> int:
        return os.splice(source, sink, number, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)

    def _send(self, flags: int) -> None:
        """Send what waits, as much as the sink takes."""
        try:
            waiting = self._waiting
            if waiting:
                sent = self.sink.handle.send(waiting, flags)
                self._waiting = waiting[sent:] if sent < len(waiting) else b""
            if self._in_pipe and self._pipe is not None:
                self._in_pipe -= self._splice(self._pipe[0], self.sink.number, self._in_pipe)
        except OSError as error:
            if error.errno not in _AGAIN:
                self._relay.lose_sink(self)

    def _shut(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._pipe is not None:
            self._give_pipe_back()
        if self.back.closed:
            return  # closing the socket, which is next, says the same
        try:
            self.sink.handle.shutdown(socket.SHUT_WR)
        except OSError:
            self._relay.lose_sink(self)

    def _take_pipe(self) -> None:
        pipes = self._relay.pipes
        assert pipes is not None
        try:
            self._pipe = pipes.take()
        except OSError:
            self._copied = True
            return
        # Only now, for few sessions come so far: a splice waits for a socket that does.
        self.source.handle.setblocking(False)
        self.sink.handle.setblocking(False)

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
    @param parted: called when a connection is gone and what it left has still to be delivered.
    """

    __slots__ = (
        "_back",
        "_counters",
        "_ended",
        "_outcome",
        "_over",
        "_parted",
        "_there",
        "_unsent",
        "last_activity",
        "pipes",
        "seconds",
        "to_client",
        "to_destination",
        "watcher",
    )

    def __init__(
        self,
        seconds: Callable[[], float],
        watcher: Watcher,
        client: ClientSocket,
        outgoing: IOutgoing,
        counters: ProxyCounters,
        pipes: PipePool | None,
        ended: Callable[[str], None],
        parted: Callable[[], None],
    ) -> None:
        self.pipes = pipes
        self.last_activity = seconds()
        self.seconds = seconds
        self.watcher = watcher
        self._counters = counters
        self._ended = ended
        self._parted = parted
        self._outcome: str | None = None
        self._over = False
        self.to_destination = self.to_client = 0
        one, self._unsent = client.detach()
        other = outgoing.detach()
        self._there = there = _Way(self, "client", one, other)
        self._back = back = _Way(self, "destination", other, one)
        there.back, back.back = back, there

    # -- Relay -------------------------------------------------------------------------------------

    def start(self, early: bytes, reply: bytes) -> None:
        there, back = self._there, self._back
        there.source.ready = there.turn
        back.source.ready = back.turn
        if early:
            self.count(there, len(early))
        back.begin(self._unsent + reply, READ)  # no longer whether it is connected
        if early or there.source.missed or not there.source.events & READ:
            there.begin(early, there.source.events | READ)
        if there.closed or back.closed:
            self.look()

    def from_client(self, data: bytes) -> None:
        """Nothing: the socket that could say so was taken over."""

    def client_done(self) -> None:
        """Nothing, for the same reason."""

    def client_lost(self, reason: Failure) -> None:
        """Nothing, for the same reason."""

    def abort(self, outcome: str) -> None:
        if self._over:
            return
        for way in (self._there, self._back):
            way.source.handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._outcome = outcome
        self._finish()

    # -- what ways call ----------------------------------------------------------------------------

    def count(self, way: _Way, number: int) -> None:
        """Octets were read."""
        way.moved += number
        if way is self._there:
            self.to_destination = way.moved
            self._counters.bytes_to_destination += number
        else:
            self.to_client = way.moved
            self._counters.bytes_to_client += number

    def watch(self, one: WatchedSocket, events: int, on: bool) -> None:
        """Begin or cease to watch a socket for reading or writing."""
        present = one.events
        self.watcher.watch(one, present | events if on else present & ~events)

    def lose(self, way: _Way) -> None:
        """The connection that a way comes from is gone, and all that it left was read."""
        self.lose_sink(way.back)
        way.end()

    def lose_sink(self, way: _Way) -> None:
        """The connection that a way goes to is gone; what came from there before is still read.

        It is delivered if the other side takes it in time.
        """
        self._outcome = self._outcome or RESET_BY[way.back.name]
        self.watch(way.sink, WRITE, False)
        way.drop()
        if not way.back.closed:
            self._parted()

    # -- the end -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Note who closed first; when both ways are closed the session is over."""
        there, back = self._there.closed, self._back.closed
        if self._outcome is None and (there or back):
            self._outcome = CLOSED_BY["client" if there else "destination"]
        if there and back:
            self._finish()

    def _finish(self) -> None:
        """Close both sockets."""
        if self._over:
            return
        self._over = True
        for way in (self._there, self._back):
            way.finish()
            self.watcher.close(way.source)
        assert self._outcome is not None
        ended = self._ended
        del self._ended, self._parted
        ended(self._outcome)
