"""What becomes of the mail of workers that there are no more: another one takes it over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from kumotwist.interfaces import ISpool
from kumotwist.message.queued import QueuedMessage
from kumotwist.service.errors import StartError
from kumotwist.spool import SpoolError
from kumotwist.spool.moving import SpoolMove
from kumotwist.spool.unfinished import MoveIntent, settle_moves

__all__ = ["Takeover", "end_cut_short"]


def end_cut_short(spools: Sequence[str]) -> None:
    """End takeovers that were cut short by a kill, before anybody opens the spools.

    @param spools: all that can have been concerned.
    @raise StartError: if one that was concerned belongs to another process.
    """
    try:
        settle_moves(spools)
    except SpoolError as error:
        raise StartError(str(error)) from None


class Takeover:
    """Empties spools into this process's.

    @param paths: their directories.
    @param make: makes a spool of a directory.
    @param target: this process's spool.
    @param take: is handed the messages.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        paths: Iterable[str],
        make: Callable[[str], ISpool],
        target: ISpool,
        take: Callable[[Sequence[QueuedMessage]], None],
    ) -> None:
        self._reactor = reactor
        self._paths = list(paths)
        self._make = make
        self._target = target
        self._take = take
        self._moves: list[tuple[SpoolMove, Deferred[None]]] = []

    def begin(self) -> None:
        """Move what there is; the target is open, and what it had has been handed over."""
        for path in self._paths:
            note = partial(self._note, MoveIntent(path))
            move = SpoolMove(self._reactor, self._make(path), self._target, note, self._take)
            self._moves.append((move, Deferred.fromCoroutine(self._empty(path, move))))

    async def stop(self) -> None:
        """Leave what has not been moved where it is."""
        for move, done in self._moves:
            move.stop()
            await done

    def _note(self, intent: MoveIntent, ids: Sequence[str]) -> Deferred[None]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, intent.note, ids)

    async def _empty(self, path: str, move: SpoolMove) -> None:
        try:
            left = await move.run()
        except SpoolError as error:
            self._log.error("{path} stays as it is: {error}", path=path, error=error)
        except Exception:
            self._log.failure("{path} cannot be emptied", path=path)
        else:
            self._log.info(
                "{path} has no worker any more: {moved} messages taken over, {left} left there",
                path=path, moved=move.moved, left=left,
            )  # fmt: skip
