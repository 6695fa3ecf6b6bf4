"""What another configuration means for messages that wait."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import attrs

from kumotwist.egress.settings import PathTable
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.plan import domain_of_queue
from kumotwist.queue.retry import expiry, retry_delay, timing_of
from kumotwist.queue.settings import QueueSettings, QueueTable

__all__ = ["Change"]

#: What says when a message is tried; everything else says how and where.
_SCHEDULE: dict[str, Any] = {"retry_interval": 1.0, "max_retry_interval": None, "max_age": 1.0}


class Change:
    """The step from one configuration to another.

    @param gone: sources that are no more, or whose name stands for another way out.
    """

    def __init__(
        self,
        gone: Iterable[str],
        old_queues: QueueTable,
        new_queues: QueueTable,
        old_paths: PathTable,
        new_paths: PathTable,
    ) -> None:
        self.gone = tuple(gone)
        self._old_queues, self._new_queues = old_queues, new_queues
        self._old_paths, self._new_paths = old_paths, new_paths
        self._queue_moved = lru_cache(maxsize=16384)(self._find_moved)

    @property
    def reschedules(self) -> bool:
        """Whether due times may differ."""
        return self._old_queues != self._new_queues

    def moved(self, message: QueuedMessage) -> bool:
        """Whether the message may have to go another way, or on other terms."""
        return self._queue_moved(message.queue)

    def _find_moved(self, queue: str) -> bool:
        domain = domain_of_queue(queue)
        if self._old_paths.singles_out(domain) != self._new_paths.singles_out(domain):
            return True
        old, new = self._old_queues.resolve(queue), self._new_queues.resolve(queue)
        return attrs.evolve(old, **_SCHEDULE) != attrs.evolve(new, **_SCHEDULE)

    def due(self, message: QueuedMessage, now: float) -> float:
        """When a message that waits is due by the new schedule.

        After an attempt the wait becomes longer or shorter by as much as the schedules differ. A
        wait that is not the schedule's stays, and so does what the sender wants.
        """
        old = self._old_queues.resolve(message.queue)
        new = self._new_queues.resolve(message.queue)
        if old == new or timing_of(message) is not None:
            return message.due
        due = message.due
        if message.attempts and "delayed" not in message.meta:
            due += _nominal(new, message) - _nominal(old, message)
        return max(min(due, expiry(new, message)), min(now, message.due))


def _nominal(settings: QueueSettings, message: QueuedMessage) -> float:
    return retry_delay(settings, message.attempts, lambda: 0.5)
