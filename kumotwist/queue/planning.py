"""Plans of scheduled queues, kept for a while; one look-up at a time for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from kumotwist.queue.plan import Plan, Planner
from kumotwist.queue.settings import QueueSettings
from kumotwist.queue.verdicts import Verdict, judge_lookup

__all__ = ["Plans"]

#: Seconds for which a plan is kept before it is made anew (the resolver has its own cache).
PLAN_LIFETIME = 60.0
#: Plans kept at most.
MAX_PLANS = 65536


class Plans:
    """The plans of queues, by name.

    @param clock: tells the time.
    @param planner: makes plans.
    """

    _log = Logger()

    def __init__(self, clock: Any, planner: Planner) -> None:
        self._clock = clock
        self._planner = planner
        self._plans: dict[str, tuple[float, Plan]] = {}
        # Whoever waits for a look-up, by the queue's name.
        self._asked: dict[str, list[Callable[[Plan | Verdict | None], None]]] = {}
        # Counts the configurations: what was looked up for an earlier one is of no use.
        self._generation = 0

    def known(self, queue: str, now: float) -> Plan | None:
        """The plan of a queue, if it need not be looked up."""
        known = self._plans.get(queue)
        if known is None or known[0] <= now:
            return None
        return known[1]

    def forget(self) -> None:
        """The configuration has changed: make all plans anew."""
        self._plans.clear()
        self._generation += 1

    def find(
        self, queue: str, settings: QueueSettings, found: Callable[[Plan | Verdict | None], None]
    ) -> None:
        """Look the plan of a queue up.

        @param found: called with the plan, with the verdict if there is none, or with L{None} if
            it has to be looked up again.
        """
        asked = self._asked.get(queue)
        if asked is not None:
            asked.append(found)
            return
        self._asked[queue] = [found]
        generation = self._generation
        # Whatever goes wrong is a verdict: else the queue would wait for its look-up for ever.
        planning: Deferred[Any] = maybeDeferred(self._planner.plan, queue, settings)

        def judged(failure: Any) -> Verdict:
            return judge_lookup(failure.value, queue)

        planning.addErrback(judged)
        planning.addCallback(lambda answer: self._tell(queue, answer, generation))
        planning.addErrback(lambda failure: self._log.failure("routing failed", failure))

    def _tell(self, queue: str, answer: Plan | Verdict, generation: int) -> None:
        asked = self._asked.pop(queue)
        if generation != self._generation:
            for found in asked:
                found(None)
            return
        if isinstance(answer, Plan):
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[queue] = (self._clock.seconds() + PLAN_LIFETIME, answer)
        for found in asked:
            found(answer)
