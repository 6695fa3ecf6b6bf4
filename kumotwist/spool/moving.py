"""From one spool into another: the mail of a process that is not started any more.

A message is in the other spool before it leaves its own, so that a crash in between can show it
twice and cannot lose it. The copy says that it was moved: who finds a message of the same id
among those does not take it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.message.queued import QueuedMessage
from kumotwist.spool.errors import DamagedBodyError, SpoolClosedError, SpoolError

__all__ = ["SpoolMove", "was_moved"]

#: Octets of bodies that are on their way at one time, and messages.
_OCTETS = 16 * 1024 * 1024
_MESSAGES = 200
#: Seconds until a move goes on that the other spool had no room for.
_PATIENCE = 10.0

_MARK = "moved"


def was_moved(message: QueuedMessage) -> bool:
    """Whether a message came from another spool."""
    return _MARK in message.meta


class SpoolMove:
    """Moves everything from one spool into another.

    @param clock: sets timers.
    @param source: the spool to empty; it is opened and closed here.
    @param target: where the messages go; it is open.
    @param known: ids of messages that an earlier move brought there.
    @param take: is handed the copies when they are safe.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        source: ISpool,
        target: ISpool,
        known: Collection[str],
        take: Callable[[Sequence[QueuedMessage]], None],
    ) -> None:
        self._clock = clock
        self._source = source
        self._target = target
        self._known = known
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
                moving = [Deferred.fromCoroutine(self._move(group)) for group in _by_body(lot)]
                unreadable += sum(await gatherResults(moving, consumeErrors=True))
            return len(left) + unreadable
        finally:
            await self._source.close()

    async def _move(self, messages: list[QueuedMessage]) -> int:
        """Move messages that share a body.

        @return: how many could not be moved.
        """
        fresh = [message for message in messages if message.id not in self._known]
        if fresh:
            try:
                body = await self._source.load(fresh[0])
            except DamagedBodyError as error:
                self._log.error("{id} cannot be moved: {error}", id=fresh[0].id, error=error)
                return len(messages)
            copies = [
                attrs.evolve(one, body_key=0, body=None, meta={**one.meta, _MARK: True})
                for one in fresh
            ]
            if not await self._store(body, copies):
                return len(messages)
            self.moved += len(copies)
            self._take(copies)
        await self._source.remove(messages)
        return 0

    async def _store(self, body: bytes, copies: list[QueuedMessage]) -> bool:
        while not self._stopping:
            try:
                await self._target.store(body, copies)
            except SpoolClosedError:
                break
            except SpoolError as error:
                self._log.warn("the move waits: {error}", error=error)
                await deferLater(self._clock, _PATIENCE)
            else:
                return True
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
