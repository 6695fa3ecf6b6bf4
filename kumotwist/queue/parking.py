"""Where messages wait whose pool has no usable source: nobody looks at them until one may be tried.

They come back one at a time, for tries, while every source is held; and when a source works again,
a few hundred at a time, so that the end of a long hold is not a flood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.fairness import FairQueue
from kumotwist.queue.waiting import SLEEPING_BEHIND

__all__ = ["Parking"]

#: Messages that come back together when a source works again, and seconds until the next ones.
LOT = 200
PACE = 0.1
#: Seconds, at least, between two tries of a pool, and at most until the lot is looked at again.
SHORTEST_WAIT = 1.0
LONGEST_WAIT = 60.0
#: A look for messages that are too old passes through the lot in this many steps, or by as many
#: messages at once.
SWEEP_STEPS = 60
SWEEP_AT_LEAST = 100


@attrs.define
class _Lot:
    messages: FairQueue = attrs.field(factory=FairQueue)
    timer: Any = None
    # So many are given back whether a source is held or not.
    to_route_anew: int = 0


class Parking:
    """Messages that wait for a source, by pool.

    @param clock: sets timers.
    @param random: gives a number from 0 to 1, for jitter.
    @param is_held: says whether every source of a pool is held.
    @param next_try: says after how many seconds one of them may be tried.
    @param is_too_old: says whether a message is past its age.
    @param give_back: takes messages that shall be routed anew.
    """

    def __init__(
        self,
        clock: Any,
        random: Callable[[], float],
        *,
        is_held: Callable[[str], bool],
        next_try: Callable[[str], float],
        is_too_old: Callable[[QueuedMessage], bool],
        give_back: Callable[[list[QueuedMessage]], None],
    ) -> None:
        self._clock = clock
        self._random = random
        self._is_held = is_held
        self._next_try = next_try
        self._is_too_old = is_too_old
        self._give_back = give_back
        self._lots: dict[str, _Lot] = {}
        self._stopped = False

    def __len__(self) -> int:
        return sum(len(lot.messages) for lot in self._lots.values())

    def park(self, pool: str, message: QueuedMessage) -> None:
        """Keep a message until a source of the pool may carry it."""
        lot = self._lots.get(pool)
        if lot is None:
            lot = self._lots[pool] = _Lot()
        if len(lot.messages) >= SLEEPING_BEHIND:
            message.sleep()
        lot.messages.add([message])
        if lot.timer is None:
            self._arm(pool, lot)

    def reconsider(self, pool: str) -> None:
        """The health of one of the pool's sources has changed."""
        lot = self._lots.get(pool)
        if lot is None:
            return
        if lot.timer is not None:
            lot.timer.cancel()
        self._arm(pool, lot)

    def route_anew(self) -> None:
        """Give back, bit by bit, all that waits now: another pool may be meant for it."""
        for pool, lot in self._lots.items():
            lot.to_route_anew = len(lot.messages)
            self.reconsider(pool)

    def extract(self, wanted: Callable[[QueuedMessage], bool]) -> list[QueuedMessage]:
        """Take some messages out."""
        return [message for lot in self._lots.values() for message in lot.messages.extract(wanted)]

    def __iter__(self) -> Iterator[QueuedMessage]:
        for lot in self._lots.values():
            yield from lot.messages

    def stop(self) -> None:
        """Give nothing back any more; the spool still has the messages."""
        self._stopped = True
        for lot in self._lots.values():
            if lot.timer is not None:
                lot.timer.cancel()
                lot.timer = None

    def _arm(self, pool: str, lot: _Lot) -> None:
        if self._stopped:
            return
        wait = PACE
        if self._is_held(pool) and not lot.to_route_anew:
            # Pools that share a proxy do not all come at the same moment.
            wait = max(self._next_try(pool), SHORTEST_WAIT) * (1 + 0.2 * self._random())
        lot.timer = self._clock.callLater(min(wait, LONGEST_WAIT), self._look, pool, lot)

    def _look(self, pool: str, lot: _Lot) -> None:
        lot.timer = None
        if lot.to_route_anew:
            # They may come back: they are added at the other end.
            back = self._take(lot, min(LOT, lot.to_route_anew))
            lot.to_route_anew -= len(back)
        elif not self._is_held(pool):
            back = self._take(lot, LOT)
        else:
            back = self._too_old(lot)
            if self._next_try(pool) <= 0:
                back += self._take(lot, 1)
        if lot.messages:
            self._arm(pool, lot)
        else:
            del self._lots[pool]
        self._give_back(back)

    def _take(self, lot: _Lot, number: int) -> list[QueuedMessage]:
        messages = lot.messages
        return [messages.pop() for _ in range(min(number, len(messages)))]

    def _too_old(self, lot: _Lot) -> list[QueuedMessage]:
        """Look through a part of the lot for messages that must be given up."""
        messages = lot.messages
        part = min(len(messages), max(SWEEP_AT_LEAST, len(messages) // SWEEP_STEPS))
        found: list[QueuedMessage] = []
        for message in self._take(lot, part):
            if self._is_too_old(message):
                found.append(message)
            else:
                message.sleep()
                messages.add([message])
        return found
