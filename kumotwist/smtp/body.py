"""Sending a message: a small one at once, a large one at the speed of its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from kumotwist.wire.smtp.data import CHUNK_SIZE, ending, stuffed, stuffed_chunks

__all__ = ["BodyProducer", "send_body", "send_chunk"]


#: A body of at most so many octets that goes as it is is written in one piece: whatever the socket
#: does not take is a second copy of it.
AT_ONCE = 2 * CHUNK_SIZE


def send_body(
    transport: Any,
    command: bytes,
    body: bytes,
    progressed: Callable[[], None],
    finished: Callable[[], None],
    *,
    plain: bool = False,
    behind: bytes = b"",
) -> BodyProducer | None:
    """Send a message with its dots doubled and a final dot.

    @param transport: the client's transport (an C{IConsumer}).
    @param command: octets to send before it.
    @param body: with canonical line ends.
    @param progressed: is called after each piece that is not the last.
    @param finished: is called when the last piece has been handed over, if that is not at once.
    @param plain: whether no line of the body is known to begin with a dot.
    @param behind: octets to send after it.
    @return: what is still sending; L{None} if everything has been handed over.
    """
    size = len(body)
    if size <= CHUNK_SIZE:
        transport.write(command + (body + ending(body) if plain else stuffed(body)) + behind)
        return None
    if plain and size <= AT_ONCE:
        _write_in_pieces(transport, command, body, ending(body) + behind)
        return None
    if command:
        transport.write(command)
    return _produce(transport, _and(stuffed_chunks(body), behind), progressed, finished)


def send_chunk(
    transport: Any,
    command: bytes,
    body: bytes,
    progressed: Callable[[], None],
    finished: Callable[[], None],
    *,
    plain: bool = False,
    behind: bytes = b"",
) -> BodyProducer | None:
    """Send a message as it is, behind the BDAT that says its length (RFC 3030, 2).

    The arguments and the result are those of L{send_body}.
    """
    if len(body) <= AT_ONCE:
        _write_in_pieces(transport, command, body, behind)
        return None
    transport.write(command)
    pieces = (body[at : at + CHUNK_SIZE] for at in range(0, len(body), CHUNK_SIZE))
    return _produce(transport, _and(pieces, behind), progressed, finished)


def _and(chunks: Iterator[bytes], behind: bytes) -> Iterator[bytes]:
    return chain(chunks, (behind,)) if behind else chunks


def _write_in_pieces(transport: Any, *pieces: bytes) -> None:
    """Write a large message at once, as one that is not copied for that."""
    transport.writeSequence([piece for piece in pieces if piece])


def _produce(
    transport: Any,
    chunks: Iterator[bytes],
    progressed: Callable[[], None],
    finished: Callable[[], None],
) -> BodyProducer | None:
    producer = BodyProducer(transport, chunks, progressed, finished)
    producer.start()
    return None if producer.done else producer


@implementer(IPushProducer)
class BodyProducer:
    """Writes pieces to a transport; stops while the transport's buffer is full."""

    def __init__(
        self,
        transport: Any,
        chunks: Iterator[bytes],
        progressed: Callable[[], None],
        finished: Callable[[], None],
    ) -> None:
        """
        @param transport: the client's transport (an C{IConsumer}).
        @param chunks: what to write.
        @param progressed: is called after each piece that is not the last.
        @param finished: is called when the last piece has been handed over after L{start}.
        """
        self._transport = transport
        self._chunks = chunks
        self._next = next(self._chunks, None)
        self._progressed = progressed
        self._finished = finished
        self._paused = False
        self._started = False

    def start(self) -> None:
        """Begin writing; maybe that is all."""
        self._transport.registerProducer(self, True)
        self._write()
        self._started = True

    @property
    def done(self) -> bool:
        """Whether nothing is left to write."""
        return self._next is None

    def cancel(self) -> None:
        """Write no more."""
        if self._next is not None:
            self._next = None
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._paused = False
        self._write()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._next = None

    def _write(self) -> None:
        while self._next is not None and not self._paused:
            chunk, self._next = self._next, next(self._chunks, None)
            last = self._next is None
            self._transport.write(chunk)
            if last:
                self._transport.unregisterProducer()
                if self._started:
                    self._finished()
            else:
                self._progressed()
