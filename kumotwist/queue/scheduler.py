"""The scheduler: messages wait here until they are due, then find a source and a ready queue.

Messages that wait stand in one heap, ordered by due time. A message that is due gets a plan (the
hosts of its queue), a source (by the weights of its pool, among those that may be used now) and
goes to the ready queue of that source and site. Nothing here scans all messages or all queues.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kumotwist.egress.rotation import Rotations
from kumotwist.egress.settings import PathTable
from kumotwist.egress.source import Source
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.plan import Plan, Planner
from kumotwist.queue.ready import ReadyQueue
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.retry import expiry
from kumotwist.queue.session import SessionContext
from kumotwist.queue.settings import QueueSettings, QueueTable
from kumotwist.queue.verdicts import Scope, Verdict, internal_reply, judge_lookup

__all__ = ["Scheduler"]

#: Messages that are looked at in one turn of the reactor.
TURN = 200
#: Seconds for which a plan is kept before it is made anew (the resolver has its own cache).
PLAN_LIFETIME = 60.0
#: Plans kept at most.
MAX_PLANS = 65536
#: Seconds for which a source is passed over for a site that has no address of its family.
UNSUITABLE_FOR = 300.0
#: The timer is never set further ahead than this, so that a jump of the clock is noticed.
LONGEST_SLEEP = 60.0


class Scheduler:
    """Moves messages from their reception to a ready queue, and back when they must wait.

    @param sources: every source by name.
    @param rotations: the pools.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        planner: Planner,
        queues: QueueTable,
        paths: PathTable,
        sources: dict[str, Source],
        rotations: Rotations,
        random: Any,
    ) -> None:
        self._reactor = reactor
        self._planner = planner
        self._queues = queues
        self._paths = paths
        self._sources = sources
        self._rotations = rotations
        self._random = random
        self._context: SessionContext | None = None
        self._waiting: list[tuple[float, int, QueuedMessage]] = []
        self._sequence = count()
        self._timer: Any = None
        self._plans: dict[str, tuple[float, Plan]] = {}
        # Groups of messages that wait for the same look-up.
        self._lookups: dict[str, list[list[QueuedMessage]]] = {}
        self._ready: dict[tuple[str, str], ReadyQueue] = {}
        self._unsuitable: dict[tuple[str, str], float] = {}
        self._paused = False
        self._stopped = False
        self._stopping: list[Deferred[None]] = []

    # -- lifecycle --------------------------------------------------------------------------------

    def use(self, context: SessionContext) -> None:
        """Name what sessions work with; before the first message."""
        self._context = context

    @property
    def _node(self) -> SessionContext:
        assert self._context is not None, "use() comes before the first message"
        return self._context

    def pause(self) -> None:
        """Start no transaction: what comes of it could not be recorded."""
        self._paused = True

    def resume(self) -> None:
        """Start transactions again."""
        self._paused = False
        for ready in list(self._ready.values()):
            ready.kick()

    def stop(self, patience: float) -> Deferred[None]:
        """Start nothing more and wait for the transactions under way.

        @param patience: seconds after which sessions are aborted; their messages stay spooled.
        """
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        for ready in list(self._ready.values()):
            ready.stop()
        self._check_stopped()
        if not done.called:
            killer = self._reactor.callLater(patience, self._abort_sessions)

            def disarm(result: None) -> None:
                if killer.active():
                    killer.cancel()

            done.addCallback(disarm)
        return done

    def _abort_sessions(self) -> None:
        for ready in list(self._ready.values()):
            ready.abort()

    def _check_stopped(self) -> None:
        if self._stopped and not any(ready.sessions for ready in self._ready.values()):
            waiting, self._stopping = self._stopping, []
            for done in waiting:
                done.callback(None)

    # -- messages come in -------------------------------------------------------------------------

    def insert(self, message: QueuedMessage) -> None:
        """Take a message: one that waits again, or that the spool kept."""
        self.insert_all([message])

    def insert_all(self, messages: Sequence[QueuedMessage]) -> None:
        """Take messages; those of one body and one queue that are due travel together.

        So the recipients of one message at one site get the same source and, up to
        C{max_recipients_per_batch}, one transaction.
        """
        if self._stopped:
            return
        now = self._reactor.seconds()
        due: dict[tuple[str, int], list[QueuedMessage]] = {}
        for message in messages:
            if message.due <= now:
                due.setdefault((message.queue, message.body_key), []).append(message)
            else:
                self._wait(message)
        for (queue, _), together in due.items():
            self._activate(queue, together)

    def _wait(self, message: QueuedMessage) -> None:
        entry = (message.due, next(self._sequence), message)
        heapq.heappush(self._waiting, entry)
        if self._waiting[0] is entry:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._stopped:
            delay = min(self._waiting[0][0] - self._reactor.seconds(), LONGEST_SLEEP)
            self._timer = self._reactor.callLater(max(0.0, delay), self._wake_due)

    def _wake_due(self) -> None:
        now = self._reactor.seconds()
        for _ in range(TURN):
            if not self._waiting or self._waiting[0][0] > now:
                break
            message = heapq.heappop(self._waiting)[2]
            self._activate(message.queue, [message])
        self._set_timer()

    @property
    def waiting(self) -> int:
        """Messages that wait for their due time."""
        return len(self._waiting)

    # -- a plan -----------------------------------------------------------------------------------

    def _activate(self, queue: str, messages: list[QueuedMessage]) -> None:
        """Messages are due: give up those that are too old, find the plan for the rest."""
        settings = self._queues.resolve(queue)
        now = self._reactor.seconds()
        fresh = []
        for message in messages:
            if now > expiry(settings, message.created):
                self._node.fates.expired(message, None, AttemptFacts(pool=settings.egress_pool))
            else:
                fresh.append(message)
        if not fresh:
            return
        known = self._plans.get(queue)
        if known is not None and known[0] > now:
            self._route(fresh, known[1], settings)
            return
        lookup = self._lookups.get(queue)
        if lookup is not None:
            lookup.append(fresh)
            return
        self._look_up(queue, fresh, settings)

    def _look_up(self, queue: str, first: list[QueuedMessage], settings: QueueSettings) -> None:
        waiting = self._lookups[queue] = [first]

        def planned(plan: Plan) -> None:
            del self._lookups[queue]
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[queue] = (self._reactor.seconds() + PLAN_LIFETIME, plan)
            for messages in waiting:
                self._route(messages, plan, settings)

        def unplanned(failure: Any) -> None:
            self._lookups.pop(queue, None)
            verdict = judge_lookup(failure.value, queue)
            facts = AttemptFacts(pool=settings.egress_pool)
            for messages in waiting:
                for message in messages:
                    self._node.fates.failed(message, verdict, facts)

        planning = self._planner.plan(queue, settings)
        planning.addCallbacks(planned, unplanned)
        planning.addErrback(lambda failure: self._log.failure("routing failed", failure))

    # -- a source ---------------------------------------------------------------------------------

    def _route(self, messages: list[QueuedMessage], plan: Plan, settings: QueueSettings) -> None:
        """Choose a source and hand the messages to its ready queue."""
        pool = settings.egress_pool
        name = self._rotations.pick(
            pool, plan.site, lambda source: self._eligible(source, plan.site)
        )
        if name is None:
            for message in messages:
                self._no_source(message, plan, pool)
            return
        ready = self._ready.get((name, plan.site))
        if ready is None:
            ready = self._new_ready(name, plan, pool)
        if self._node.trace.watched:
            source = self._sources[name]
            for message in messages:
                self._node.trace.emit(
                    "queued", [message.id], source=name, pool=pool, site=plan.site,
                    protocol=source.protocol, server=source.server, recipient=message.recipient,
                )  # fmt: skip
        ready.add(messages)

    def _eligible(self, source: str, site: str) -> bool:
        if not self._node.health.usable(source):
            return False
        until = self._unsuitable.get((source, site))
        if until is not None:
            if until > self._reactor.seconds():
                return False
            del self._unsuitable[source, site]
        ready = self._ready.get((source, site))
        return ready is None or not ready.full

    def _new_ready(self, name: str, plan: Plan, pool: str) -> ReadyQueue:
        ready = self._ready[name, plan.site] = ReadyQueue(
            self._sources[name],
            plan,
            self._paths.resolve(plan.domain, plan.site, name),
            pool,
            self._node,
            may_send=lambda: not self._paused and not self._stopped,
            return_messages=self._take_back,
            mark_unsuitable=self._mark_unsuitable,
            emptied=self._drop_ready,
        )
        return ready

    def _drop_ready(self, ready: ReadyQueue) -> None:
        if self._ready.get((ready.source.name, ready.plan.site)) is ready:
            del self._ready[ready.source.name, ready.plan.site]
        self._check_stopped()

    def _mark_unsuitable(self, ready: ReadyQueue) -> None:
        if len(self._unsuitable) >= MAX_PLANS:
            self._unsuitable.clear()
        until = self._reactor.seconds() + UNSUITABLE_FOR
        self._unsuitable[ready.source.name, ready.plan.site] = until

    def _take_back(self, ready: ReadyQueue, messages: Iterable[QueuedMessage]) -> None:
        """Messages that a source could not carry look for another one."""
        self.insert_all(list(messages))

    def _no_source(self, message: QueuedMessage, plan: Plan, pool: str) -> None:
        """No source may carry the message now: wait for one, or fail if none ever could."""
        fates, health = self._node.fates, self._node.health
        names = self._rotations.sources(pool)
        held = [name for name in names if not health.usable(name)]
        if held:
            first = min(held, key=health.held_for)
            text = (
                f"every source of pool {pool} is held; the first one, {first}, for "
                f"{health.held_for(first):.0f} s: {health.reason(first)}"
            )
            delay = health.held_for(first) * (1 + 0.2 * self._random())
            reply = internal_reply(451, "4.4.1", text)
            fates.delayed(message, max(delay, 0.1), reply, "SourceIsUnhealthyAndSuspended")
            return
        full = [name for name in names if (name, plan.site) in self._ready]
        if any(self._ready[name, plan.site].full for name in full):
            reply = internal_reply(451, "4.4.5", f"the ready queues of {plan.site} are full")
            fates.delayed(message, 60.0 * self._random(), reply, "ReadyQueueWasFull")
            return
        text = (
            f"no source of pool {pool} has an address of a family that {plan.site} has"
            if names
            else f"no sources for pool='{pool}' are eligible for selection"
        )
        verdict = Verdict(Scope.SITE, internal_reply(451, "4.4.4", text), blame="nobody")
        fates.failed(message, verdict, AttemptFacts(pool=pool, site=plan.site))
