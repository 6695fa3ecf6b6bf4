"""Sending a large message at the speed of its reader, a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from kumotwist.wire.smtp.data import CHUNK_SIZE, stuffed, stuffed_chunks

__all__ = ["BodyProducer", "send_body"]


def send_body(
    transport: Any, body: bytes, progressed: Callable[[], None], finished: Callable[[], None]
) -> BodyProducer | None:
    """Write a body to a transport: a small one at once, a large one as fast as it is read.

    The arguments are those of L{BodyProducer}.

    @return: what is still writing; L{None} if everything has been written.
    """
    if len(body) <= CHUNK_SIZE:
        transport.write(stuffed(body))
        finished()
        return None
    producer = BodyProducer(transport, body, progressed, finished)
    producer.start()
    return None if producer.done else producer


@implementer(IPushProducer)
class BodyProducer:
    """Writes a stuffed body to a transport; stops while the transport's buffer is full."""

    def __init__(
        self,
        transport: Any,
        body: bytes,
        progressed: Callable[[], None],
        finished: Callable[[], None],
    ) -> None:
        """
        @param transport: the client's transport (an C{IConsumer}).
        @param body: with canonical line ends.
        @param progressed: is called after each piece that is not the last.
        @param finished: is called when the last piece has been handed over.
        """
        self._transport = transport
        self._chunks = stuffed_chunks(body)
        self._next = next(self._chunks, None)
        self._progressed = progressed
        self._finished = finished
        self._paused = False

    def start(self) -> None:
        """Begin writing."""
        self._transport.registerProducer(self, True)
        self._write()

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
                self._finished()
            else:
                self._progressed()
