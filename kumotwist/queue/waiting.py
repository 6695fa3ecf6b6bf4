"""Scheduled queues: where messages wait that are not due yet, or whose way is not free.

A queue exists while it has messages, and costs nothing while nothing is due: of each only its
first moment stands in the one heap that sets the timer. Its messages stand in a heap of its own.
Inserting and taking out cost the logarithm of the queue's length, and now and then that of the
number of queues.
"""

from __future__ import annotations

import enum
import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import preference
from kumotwist.queue.pacing import Pacer
from kumotwist.queue.tls_wishes import tls_wish
from kumotwist.queue.verdicts import Verdict
from kumotwist.tls.policy import TLSWish

__all__ = ["ScheduledQueue", "State", "Waiting"]

#: Queues that are served in one turn of the reactor.
TURN = 50
#: Messages that are given new due times in one turn of the reactor.
RESCHEDULED = 1000
#: Messages that wait so many seconds, or behind so many others, may as well sleep.
SLEEPING_TIME = 60.0
SLEEPING_BEHIND = 100
#: The timer is never set further ahead than this, so that a jump of the clock is noticed.
LONGEST_SLEEP = 60.0


class State(enum.Enum):
    """What a queue waits for; the values are words for people."""

    DUE = "the next due time"
    LOOKING_UP = "a look-up"
    NO_ROOM = "room in a ready queue"
    THROTTLED = "max_message_rate"
    SUSPENDED = "the end of a suspension"


def _key(name: str, wish: TLSWish) -> str:
    return name if wish is TLSWish.NOTHING else f"{name} {wish.value}"


class ScheduledQueue:
    """Messages of one queue's name.

    @ivar name: C{campaign:tenant@domain!routing_domain}.
    @ivar wish: what their senders want of TLS; other wishes have other queues of the same name.
    @ivar state: what they wait for.
    @ivar until: when a suspension ends.
    @ivar line: where it stands in line for room: pool and lane.
    @ivar pacer: keeps it to its C{max_message_rate}.
    @ivar doom: the verdict on all messages that were due by C{doomed_until}.
    """

    __slots__ = (
        "alarm", "doom", "doomed_until", "line", "messages", "name", "pacer", "state", "until",
        "wish",
    )  # fmt: skip

    def __init__(self, name: str, wish: TLSWish) -> None:
        self.name = name
        self.wish = wish
        self.messages: list[tuple[float, int, QueuedMessage]] = []
        self.state = State.DUE
        self.until = 0.0
        self.line: tuple[str, str] | None = None
        self.pacer: Pacer | None = None
        self.doom: Verdict | None = None
        self.doomed_until = 0.0
        # The entry of the heap that rings for it; whatever else stands there does not count.
        self.alarm: tuple[float, int, ScheduledQueue] | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @property
    def key(self) -> str:
        """The name that tells it from queues with other wishes."""
        return _key(self.name, self.wish)

    @property
    def next_due(self) -> float:
        """When its first message is due; infinity if there is none."""
        return self.messages[0][0] if self.messages else float("inf")

    def is_backed_up(self, now: float) -> bool:
        """Whether messages that are due have to wait behind others."""
        return self.state is not State.DUE or self.next_due <= now


class Waiting:
    """All scheduled queues.

    @param clock: tells the time and sets the timer.
    @param serve: takes messages out of a queue whose moment has come.
    """

    def __init__(self, clock: Any, serve: Callable[[ScheduledQueue], None]) -> None:
        self._clock = clock
        self._serve = serve
        self._queues: dict[str, ScheduledQueue] = {}
        self._numbers = count(1)
        self._alarms: list[tuple[float, int, ScheduledQueue]] = []
        self._timer: Any = None
        self._messages = 0
        self._stopped = False

    def __len__(self) -> int:
        return self._messages

    def __iter__(self) -> Iterator[ScheduledQueue]:
        return iter(self._queues.values())

    @property
    def queues(self) -> int:
        """How many queues there are."""
        return len(self._queues)

    def stop(self) -> None:
        """Serve no more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for queue in self._queues.values():
            if queue.pacer is not None:
                queue.pacer.stop()

    # -- messages ---------------------------------------------------------------------------------

    def get(self, name: str, wish: TLSWish) -> ScheduledQueue | None:
        """A queue, if it exists."""
        return self._queues.get(_key(name, wish))

    def by_key(self, key: str) -> ScheduledQueue | None:
        """A queue by its C{key}, if it exists."""
        return self._queues.get(key)

    def of(self, name: str, wish: TLSWish) -> ScheduledQueue:
        """A queue, made if it does not exist; whoever leaves it empty calls L{settle}."""
        queue = self.get(name, wish)
        if queue is None:
            queue = ScheduledQueue(name, wish)
            self._queues[queue.key] = queue
        return queue

    def push(self, message: QueuedMessage, *, ahead: bool = False) -> ScheduledQueue:
        """Keep a message until it is due, or longer if its queue's way is not free.

        @param ahead: before those that became due at the same moment.
        """
        queue = self.of(message.queue, tls_wish(message))
        if not ahead and (
            len(queue.messages) >= SLEEPING_BEHIND
            or message.due - self._clock.seconds() >= SLEEPING_TIME
        ):
            message.sleep()
        number = next(self._numbers)
        entry = (message.due, -number if ahead else number, message)
        heapq.heappush(queue.messages, entry)
        self._messages += 1
        if queue.messages[0] is entry and queue.state is State.DUE:
            self.ring(queue, message.due)
        return queue

    def pop(self, queue: ScheduledQueue, now: float, most: int) -> list[QueuedMessage]:
        """Take the first message out if it is due, with those behind it that can travel with it."""
        heap = queue.messages
        if not heap or heap[0][0] > now:
            return []
        first = heapq.heappop(heap)[2]
        batch = [first]
        if first.body_key:
            wanted = preference(first)
            while heap and len(batch) < most:
                due, _, message = heap[0]
                if due > now or message.body_key != first.body_key or preference(message) != wanted:
                    break
                heapq.heappop(heap)
                batch.append(message)
        self._messages -= len(batch)
        return batch

    def extract(
        self, queue: ScheduledQueue, wanted: Callable[[QueuedMessage], bool]
    ) -> list[QueuedMessage]:
        """Take some messages out, due or not; looks at every message of the queue."""
        kept, taken = [], []
        for entry in queue.messages:
            if wanted(entry[2]):
                taken.append(entry[2])
            else:
                kept.append(entry)
        if taken:
            heapq.heapify(kept)
            queue.messages = kept
            self._messages -= len(taken)
            self.settle(queue)
        return taken

    def reschedule(self, due: Callable[[QueuedMessage, float], float]) -> None:
        """Give all messages that wait other due times, some in each turn of the reactor.

        @param due: says when a message is due, told that and the time.
        """
        messages = []
        for queue in list(self._queues.values()):
            messages += [entry[2] for entry in queue.messages]
            queue.messages = []
            self.settle(queue)
        self._messages = 0
        self._reschedule(messages, due)

    def _reschedule(
        self, messages: list[QueuedMessage], due: Callable[[QueuedMessage, float], float]
    ) -> None:
        if self._stopped:
            return
        now = self._clock.seconds()
        for _ in range(min(len(messages), RESCHEDULED)):
            message = messages.pop()
            message.due = due(message, now)
            self.push(message)
        if messages:
            self._clock.callLater(0, self._reschedule, messages, due)

    # -- moments ----------------------------------------------------------------------------------

    def settle(self, queue: ScheduledQueue) -> None:
        """After messages were taken out: forget the queue if it is empty, or set its alarm."""
        if not queue.messages:
            if queue.pacer is not None:
                queue.pacer.stop()
            queue.alarm = None
            if self._queues.get(queue.key) is queue:
                del self._queues[queue.key]
        elif queue.state is State.DUE:
            self.ring(queue, queue.next_due)

    def ring(self, queue: ScheduledQueue, when: float) -> None:
        """Serve a queue at a moment, instead of any other; at once if it has passed."""
        now = self._clock.seconds()
        when = max(when, now)
        queue.alarm = (when, next(self._numbers), queue)
        heapq.heappush(self._alarms, queue.alarm)
        if len(self._alarms) > 2 * len(self._queues) + 1024:
            self._alarms = [each.alarm for each in self._queues.values() if each.alarm is not None]
            heapq.heapify(self._alarms)
        if self._alarms[0] is queue.alarm:
            self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._alarms and not self._stopped:
            delay = min(max(0.0, self._alarms[0][0] - now), LONGEST_SLEEP)
            self._timer = self._clock.callLater(delay, self._moment_came)

    def _moment_came(self) -> None:
        now = self._clock.seconds()
        # Those that ring again at once come after all others whose moment has come.
        served = 0
        while served < TURN and self._alarms and self._alarms[0][0] <= now:
            alarm = heapq.heappop(self._alarms)
            queue = alarm[2]
            if queue.alarm is alarm:
                queue.alarm = None
                served += 1
                self._serve(queue)
        self._set_timer(now)
