"""The scheduler: messages wait here until they are due, then find a source and a ready queue.

Messages that wait stand in one heap, ordered by due time. A message that is due gets a plan (the
hosts of its queue), a source (by the weights of its pool, among those that may be used now) and
goes to the ready queue of that source and site. Where every source is held the message is parked.
Nothing here scans all messages or all queues.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.egress.rotation import Rotations
from kumotwist.egress.settings import PathTable
from kumotwist.egress.source import Source
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import Preference, avoid_source, preference
from kumotwist.queue.change import Change
from kumotwist.queue.choosing import Bar, Hindrance, SourceChoice
from kumotwist.queue.context import SessionContext
from kumotwist.queue.parking import Parking
from kumotwist.queue.plan import Plan, Planner
from kumotwist.queue.ready import IDispatcher, ReadyQueue
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.retry import expiry, timing_of
from kumotwist.queue.settings import QueueSettings, QueueTable
from kumotwist.queue.tls_wishes import tls_wish
from kumotwist.queue.verdicts import INTERNAL, Scope, Verdict, judge_lookup
from kumotwist.tls.policy import TLSWish

__all__ = ["Scheduler"]

#: Messages that are looked at in one turn of the reactor.
TURN = 200
#: Seconds for which a plan is kept before it is made anew (the resolver has its own cache).
PLAN_LIFETIME = 60.0
#: Plans kept at most.
MAX_PLANS = 65536
#: A message that waits for a source which others may use is looked at no sooner; seconds.
SHORTEST_WAIT = 5.0
#: Seconds by which the last attempt, which is due when C{max_age} is over, may be late.
LAST_CALL = 300.0
#: The timer is never set further ahead than this, so that a jump of the clock is noticed.
LONGEST_SLEEP = 60.0


@implementer(IDispatcher)
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
        self._choice: SourceChoice | None = None
        self._waiting: list[tuple[float, int, QueuedMessage]] = []
        self._sequence = count()
        self._timer: Any = None
        self._plans: dict[str, tuple[float, Plan]] = {}
        # Groups of messages that wait for the same look-up.
        self._lookups: dict[str, list[list[QueuedMessage]]] = {}
        # By source, then by lane.
        self._ready: dict[str, dict[str, ReadyQueue]] = {name: {} for name in sources}
        # Those whose source is not used any more, until their last session has ended.
        self._retired: set[ReadyQueue] = set()
        # Counts the configurations: what was looked up for an earlier one is done again.
        self._generation = 0
        self._parking = Parking(
            reactor,
            random,
            is_held=lambda pool: self._choices.is_held(pool),
            next_try=lambda pool: self._choices.next_try(pool),
            is_too_old=self._is_too_old,
            give_back=self._leave_parking,
        )
        self._paused = False
        self._stopped = False
        self._stopping: list[Deferred[None]] = []

    # -- lifecycle --------------------------------------------------------------------------------

    def use(self, context: SessionContext) -> None:
        """Name what sessions work with; before the first message."""
        self._context = context
        self._choice = SourceChoice(
            self._reactor.seconds, self._sources, self._rotations, context.health, self._is_full
        )

    @property
    def _choices(self) -> SourceChoice:
        assert self._choice is not None, "use() comes before the first message"
        return self._choice

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
        for ready in self._ready_queues():
            ready.kick()

    def stop(self, patience: float) -> Deferred[None]:
        """Start nothing more and wait for the transactions under way.

        @param patience: seconds after which sessions are aborted; their messages stay spooled.
        """
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._parking.stop()
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        for ready in self._ready_queues():
            ready.stop()
        self._check_stopped()
        if not done.called:
            killer = self._reactor.callLater(patience, self.abort)

            def disarm(result: None) -> None:
                if killer.active():
                    killer.cancel()

            done.addCallback(disarm)
        return done

    def abort(self) -> None:
        """End every session now; messages under way stay spooled."""
        for ready in self._ready_queues():
            ready.abort()

    def _ready_queues(self) -> list[ReadyQueue]:
        active = [ready for by_lane in self._ready.values() for ready in by_lane.values()]
        return [*active, *self._retired]

    def _check_stopped(self) -> None:
        if self._stopped and not any(ready.sessions for ready in self._ready_queues()):
            waiting, self._stopping = self._stopping, []
            for done in waiting:
                done.callback(None)

    # -- another configuration ---------------------------------------------------------------------

    def reconfigure(self, change: Change) -> None:
        """The tables, pools and sources that this was made with are others now.

        What waits for its time goes by them when it is due. What waits for a connection or for a
        source is looked at again where they lead elsewhere.
        """
        self._generation += 1
        self._plans.clear()
        self._choices.forget_bars()
        for name in self._sources:
            self._ready.setdefault(name, {})
        for name in change.gone:
            retiring = list(self._ready.pop(name, {}).values())
            if name in self._sources:
                self._ready[name] = {}
            self._retired.update(retiring)
            for ready in retiring:
                ready.retire()
        for ready in [one for by_lane in self._ready.values() for one in by_lane.values()]:
            path = self._paths.resolve(ready.plan.domain, ready.plan.site, ready.source.name)
            pulled = ready.source.name not in self._rotations.sources(ready.pool)
            ready.reconfigure(path, (lambda _: True) if pulled else change.moved)
        self._parking.route_anew()
        if change.reschedules:
            waiting, self._waiting = self._waiting, []
            self._reschedule(waiting, change)

    def _reschedule(self, waiting: list[tuple[float, int, QueuedMessage]], change: Change) -> None:
        """Give messages that wait the due times of another schedule, some in each turn."""
        if self._stopped:
            return
        now = self._reactor.seconds()
        for _ in range(min(len(waiting), TURN * 5)):
            message = waiting.pop()[2]
            message.due = change.due(message, now)
            self._wait(message)
        if waiting:
            self._reactor.callLater(0, self._reschedule, waiting, change)

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
        due: dict[tuple[str, int, Preference, TLSWish], list[QueuedMessage]] = {}
        for message in messages:
            if message.due <= now:
                key = (message.queue, message.body_key, preference(message), tls_wish(message))
                due.setdefault(key, []).append(message)
            else:
                self._wait(message)
        for (queue, *_), together in due.items():
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
        """Messages that wait for their due time, or for a source."""
        return len(self._waiting) + len(self._parking)

    def loads(self) -> tuple[Counter[str], Counter[str]]:
        """What ready queues hold, by the name of the source: messages, and connections."""
        messages: Counter[str] = Counter()
        sessions: Counter[str] = Counter()
        for source, by_lane in self._ready.items():
            for ready in by_lane.values():
                messages[source] += len(ready)
                sessions[source] += ready.sessions
        return messages, sessions

    # -- a plan -----------------------------------------------------------------------------------

    def _activate(self, queue: str, messages: list[QueuedMessage]) -> None:
        """Messages are due: give up those that are too old, find the plan for the rest."""
        settings = self._queues.resolve(queue)
        now = self._reactor.seconds()
        fresh = []
        for message in messages:
            if self._is_too_old(message):
                self._node.fates.expired(message, None, AttemptFacts(pool=settings.egress_pool))
            elif "timing" in message.meta and self._is_early(message):
                self._wait(message)
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

    def _is_too_old(self, message: QueuedMessage) -> bool:
        expires = expiry(self._queues.resolve(message.queue), message)
        # The last attempt is due when the time is over; a timer that is late does not cancel it.
        # What has a time of its own ends at that time.
        grace = LAST_CALL if message.due == expires and "timing" not in message.meta else 0.0
        late: bool = self._reactor.seconds() > expires + grace
        return late

    def _is_early(self, message: QueuedMessage) -> bool:
        """Whether the sender does not want an attempt now; the message's due time is moved then."""
        timing = timing_of(message)
        now = self._reactor.seconds()
        if timing is None or timing.next(now) <= now:
            return False
        expires = expiry(self._queues.resolve(message.queue), message)
        message.due = min(timing.next(now), expires + 0.001)
        return True

    def _look_up(self, queue: str, first: list[QueuedMessage], settings: QueueSettings) -> None:
        waiting = self._lookups[queue] = [first]
        generation = self._generation

        def planned(plan: Plan) -> None:
            del self._lookups[queue]
            if generation != self._generation:
                for messages in waiting:
                    self._activate(queue, messages)
                return
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[queue] = (self._reactor.seconds() + PLAN_LIFETIME, plan)
            for messages in waiting:
                self._route(messages, plan, settings)

        def unplanned(failure: Any) -> None:
            self._lookups.pop(queue, None)
            if generation != self._generation:
                for messages in waiting:
                    self._activate(queue, messages)
                return
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
        """Choose a source and hand the messages, which want the same, to its ready queue."""
        pool, health = settings.egress_pool, self._node.health
        plan = plan.wishing(tls_wish(messages[0]))
        wanted = preference(messages[0])
        while messages:
            name = self._choices.pick(pool, plan.lane, wanted)
            if name is None:
                self._no_source(messages, plan, pool)
                return
            if health.usable(name):
                self._hand_over(messages, name, plan, pool)
                return
            # One message shows whether the source works again; the others need another one.
            health.begin_try(name, plan.lane)
            self._hand_over(messages[:1], name, plan, pool)
            messages = messages[1:]

    def _hand_over(self, messages: list[QueuedMessage], name: str, plan: Plan, pool: str) -> None:
        ready = self._ready[name].get(plan.lane)
        if ready is None:
            source, path = self._sources[name], self._paths.resolve(plan.domain, plan.site, name)
            ready = ReadyQueue(source, plan, path, pool, self._node, self)
            self._ready[name][plan.lane] = ready
        if self._node.trace.watched:
            source = self._sources[name]
            for message in messages:
                self._node.trace.emit(
                    "queued", [message.id], source=name, pool=pool, site=plan.site,
                    protocol=source.protocol, server=source.server, recipient=message.recipient,
                )  # fmt: skip
        ready.add(messages)

    def _is_full(self, source: str, site: str) -> bool:
        ready = self._ready[source].get(site)
        return False if ready is None else ready.full

    def _no_source(self, messages: list[QueuedMessage], plan: Plan, pool: str) -> None:
        """No source may carry the messages now: they wait for one, or fail if none ever could."""
        fates, now = self._node.fates, self._reactor.seconds()
        obstacle = self._choices.obstacle(pool, plan.lane)
        hindrance, reply = obstacle.hindrance, obstacle.reply
        if hindrance is Hindrance.IMPOSSIBLE:
            verdict = Verdict(Scope.SITE, reply, blame="nobody")
            for message in messages:
                fates.failed(message, verdict, AttemptFacts(pool=pool, site=plan.site))
        elif hindrance is Hindrance.HELD and self._choices.is_held(pool):
            for message in messages:
                if fates.put_off(message, reply, hindrance.value):
                    message.due = now + obstacle.seconds
                    self._parking.park(pool, message)
        else:
            for message in messages:
                seconds = obstacle.seconds * self._random()
                if hindrance is not Hindrance.FULL:
                    seconds = max(obstacle.seconds, SHORTEST_WAIT) * (1 + 0.2 * self._random())
                fates.delayed(message, seconds, reply, hindrance.value)

    def _leave_parking(self, messages: list[QueuedMessage]) -> None:
        now = self._reactor.seconds()
        for message in messages:
            # What was foretold when it was parked is not the moment at which it came.
            message.due = min(message.due, now)
        self.insert_all(messages)

    # -- what ready queues call (IDispatcher) ------------------------------------------------------

    def may_send(self) -> bool:
        """Whether deliveries may start at all."""
        return not self._paused and not self._stopped

    def take_back(self, messages: list[QueuedMessage]) -> None:
        """Messages that a source could not carry look for another one."""
        self.insert_all(messages)

    def source_held(self, source: str) -> None:
        """The source is held: what is ready for it, for whatever site, goes elsewhere at once."""
        for ready in list(self._ready.get(source, {}).values()):
            ready.drain()
        self._reconsider(source)

    def source_works(self, source: str) -> None:
        """The source was held and works: what waited for it comes back, bit by bit."""
        self._reconsider(source)

    def _reconsider(self, source: str) -> None:
        for pool in self._choices.pools_of(source):
            self._parking.reconsider(pool)

    def source_faltered(self, messages: list[QueuedMessage], source: str, verdict: Verdict) -> None:
        """The source failed for these messages alone: they wait and prefer another one then."""
        pause = self._node.health.pause(source)
        for message in messages:
            avoid_source(message, source)
            seconds = pause * (1 + 0.2 * self._random())
            self._node.fates.delayed(message, seconds, verdict.reply, "SourceIsUnhealthy")

    def source_refused(self, ready: ReadyQueue, verdict: Verdict) -> None:
        """The source's proxy does not connect to the site: pass the source over for a while."""
        words = verdict.reply.content.removeprefix(INTERNAL)
        self._choices.bar(ready.source.name, ready.plan.lane, Bar.REFUSED, words)

    def unsuitable(self, ready: ReadyQueue) -> None:
        """The source has no address of the site's family: pass it over for a while."""
        self._choices.bar(ready.source.name, ready.plan.lane, Bar.FAMILY)

    def emptied(self, ready: ReadyQueue) -> None:
        """Forget a ready queue; another one is made when it is needed."""
        self._retired.discard(ready)
        by_lane = self._ready.get(ready.source.name, {})
        if by_lane.get(ready.plan.lane) is ready:
            del by_lane[ready.plan.lane]
        self._check_stopped()
