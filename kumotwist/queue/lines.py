"""Lines of scheduled queues that wait for room in ready queues, one for each pool and lane."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kumotwist.queue.fairness import FairLine
from kumotwist.queue.waiting import ScheduledQueue, State, Waiting

__all__ = ["RoomLines"]

#: Turns that are given before the reactor has its turn.
TURN = 200
#: A queue that stands in line is looked at after so many seconds even if it is not called: its
#: messages may have become too old, and its sources may have changed.
LONGEST_WAIT = 60.0


class RoomLines:
    """Who waits for room, and who is next.

    @param clock: tells the time.
    @param waiting: all scheduled queues.
    @param serve_batch: gives messages of a queue that are due their way, and says whether more of
        them may follow; a queue for which there is no room stands in line again then.
    """

    def __init__(
        self, clock: Any, waiting: Waiting, serve_batch: Callable[[ScheduledQueue], bool]
    ) -> None:
        self._clock = clock
        self._waiting = waiting
        self._serve_batch = serve_batch
        # Keys of queues, by pool and lane.
        self._lines: dict[tuple[str, str], FairLine] = {}
        self._first = 0

    def __len__(self) -> int:
        return len(self._lines)

    def stand(self, queue: ScheduledQueue, line: tuple[str, str]) -> None:
        """A queue waits for room; whoever stands in this line already keeps its place."""
        if queue.line != line:
            self.leave(queue)
            self._lines.setdefault(line, FairLine()).add(queue.key)
            queue.line = line
        queue.state = State.NO_ROOM
        self._waiting.ring(queue, self._clock.seconds() + LONGEST_WAIT)

    def leave(self, queue: ScheduledQueue) -> None:
        """A queue does not wait for room any more."""
        if queue.line is not None:
            line = self._lines.get(queue.line)
            if line is not None:
                line.remove(queue.key)
                if not line:
                    del self._lines[queue.line]
            queue.line = None
        if queue.state is State.NO_ROOM:
            queue.state = State.DUE

    def call(self, pools: Iterable[str], lane: str) -> bool:
        """There is room for a lane: serve those who wait for it, each in its turn; the pools take
        turns too, beginning with another one each time.

        @return: whether there may be room for more.
        """
        lines = [(pool, lane) for pool in pools if (pool, lane) in self._lines]
        self._first += 1
        for turn in range(TURN):
            if not lines:
                return False
            line = lines[(self._first + turn) % len(lines)]
            if not self.call_first(line):
                lines.remove(line)
        return True

    def call_first(self, line: tuple[str, str]) -> bool:
        """Serve whoever is first in a line.

        @return: whether there may be room for another one who stands in it.
        """
        waiting = self._lines[line]
        key = waiting.first()
        queue = self._waiting.by_key(key)
        if queue is None or queue.line != line:
            waiting.remove(key)
        else:
            queue.state = State.DUE
            more = self._serve_batch(queue)
            if queue.state is State.NO_ROOM and queue.line == line:
                return False  # it has not had its turn
            if more and queue.next_due <= self._clock.seconds():
                queue.state = State.NO_ROOM
                waiting.rotate()
            else:
                self.leave(queue)
                self._waiting.settle(queue)
        if not waiting:
            self._lines.pop(line, None)
        return line in self._lines
