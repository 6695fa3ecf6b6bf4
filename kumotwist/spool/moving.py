"""From one spool into another: the mail of a process that is not started any more.

A message is in the other spool before it leaves its own, so that a crash in between cannot lose it;
and it is handed to the queues after it has left, so that none is delivered which is in both. What a
crash leaves in both is taken out of one before anybody opens them: L{kumotwist.spool.unfinished}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.message.queued import QueuedMessage
from kumotwist.spool.errors import DamagedBodyError, SpoolClosedError, SpoolError

__all__ = ["SpoolMove"]

#: Octets of bodies that are on their way at one time, and messages.
_OCTETS = 16 * 1024 * 1024
_MESSAGES = 200
#: Seconds until a move goes on that the other spool had no room for.
_PATIENCE = 10.0


class SpoolMove:
    """Moves everything from one spool into another.

    @param clock: sets timers.
    @param source: the spool to empty; it is opened and closed here.
    @param target: where the messages go; it is open.
    @param note: has the ids of those that are on their way written down, before they are copied;
        in the end it is given none. It may fail with L{OSError}.
    @param take: is handed the copies when they are safe, and nowhere else.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        source: ISpool,
        target: ISpool,
        note: Callable[[Sequence[str]], Awaitable[None]],
        take: Callable[[Sequence[QueuedMessage]], None],
    ) -> None:
        self._clock = clock
        self._source = source
        self._target = target
        self._note = note
        self._take = take
        self._stopping = False
        self.moved = 0

    def stop(self) -> None:
        """Begin nothing more; what has not been moved stays where it is."""
        self._stopping = True

    async def run(self) -> int:
        """Move.

        @return: how many messages are left: what could not be read, or was not come to.
        @raise SpoolError: if the spool cannot be opened.
        """
        await self._source.open()
        try:
            left: list[QueuedMessage] = []
            await self._source.enumerate(left.extend)
            left.reverse()
            unreadable = 0
            while left and not self._stopping:
                lot = list(_lot(left))
                if not await self._patiently(self._note, [message.id for message in lot]):
                    return len(left) + len(lot) + unreadable
                moving = [Deferred.fromCoroutine(self._move(group)) for group in _by_body(lot)]
                unreadable += sum(await gatherResults(moving, consumeErrors=True))
            await self._patiently(self._note, ())
            return len(left) + unreadable
        finally:
            await self._source.close()

    async def _move(self, messages: list[QueuedMessage]) -> int:
        """Move messages that share a body.

        @return: how many could not be moved.
        """
        try:
            body = await self._source.load(messages[0])
        except DamagedBodyError as error:
            self._log.error("{id} cannot be moved: {error}", id=messages[0].id, error=error)
            return len(messages)
        copies = [attrs.evolve(one, body_key=0, body=None) for one in messages]
        if not await self._patiently(self._target.store, body, copies):
            return len(messages)
        await self._source.remove(messages)
        self.moved += len(copies)
        self._take(copies)
        return 0

    async def _patiently(self, write: Callable[..., Awaitable[None]], *what: Any) -> bool:
        """Write something, again and again if there is no room for it.

        @return: whether it is written; if not, the move ends.
        """
        while True:
            try:
                await write(*what)
            except SpoolClosedError:
                return False
            except (SpoolError, OSError) as error:
                self._log.warn("the move waits: {error}", error=error)
            else:
                return True
            if self._stopping:
                return False
            await deferLater(self._clock, _PATIENCE)
            if self._stopping:
                return False


def _lot(left: list[QueuedMessage]) -> Iterator[QueuedMessage]:
    """Take messages from the end, as many as may be on their way together; at least one."""
    octets = 0
    for _ in range(_MESSAGES):
        if not left or (octets and octets + left[-1].size > _OCTETS):
            return
        message = left.pop()
        octets += message.size
        yield message


def _by_body(messages: Sequence[QueuedMessage]) -> list[list[QueuedMessage]]:
    groups: dict[int, list[QueuedMessage]] = {}
    for message in messages:
        groups.setdefault(message.body_key, []).append(message)
    return list(groups.values())
