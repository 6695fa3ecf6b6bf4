"""The scheduler: messages wait here until they are due, then find a source and a ready queue.

Messages that wait stand in scheduled queues (L{kumotwist.queue.waiting}). A message that is due
gets a plan (the hosts of its queue), a source (by the weights of its pool, among those that may be
used now) and goes to the ready queue of that source and site. Where there is no room its queue
stands in line, and is called as soon as there is; where every source is held the message is
parked. Nothing here scans all messages or all queues; C{docs/scheduling.md} explains who comes
when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from kumotwist.egress.rotation import Rotations
from kumotwist.egress.settings import PathSettings, PathTable
from kumotwist.egress.source import Source
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import Preference, preference
from kumotwist.queue.change import Change
from kumotwist.queue.choosing import WAITS_FOR_ROOM, Hindrance, SourceChoice
from kumotwist.queue.context import SessionContext
from kumotwist.queue.lines import LONGEST_WAIT, RoomLines
from kumotwist.queue.local import LocalDelivery
from kumotwist.queue.orders import LONGEST_SUSPENSION, Order, Orders
from kumotwist.queue.pacing import Pacer
from kumotwist.queue.parking import Parking
from kumotwist.queue.plan import Plan, Planner
from kumotwist.queue.planning import Plans
from kumotwist.queue.rates import Selection
from kumotwist.queue.readiness import ReadyQueues
from kumotwist.queue.ready import IDispatcher, ReadyQueue
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.retry import is_early, is_too_old
from kumotwist.queue.settings import QueueSettings, QueueTable
from kumotwist.queue.source_news import SourceNews
from kumotwist.queue.tls_wishes import tls_wish
from kumotwist.queue.verdicts import Scope, Verdict, internal_reply
from kumotwist.queue.waiting import ScheduledQueue, State, Waiting
from kumotwist.settings.types import render_rate
from kumotwist.tls.policy import TLSWish

__all__ = ["Scheduler"]

#: Messages of one queue that are looked at before it is another one's turn.
QUANTUM = 20
#: Seconds over which the queues that wait for the end of one suspension wake.
SPREAD = 20.0
#: A message that waits for a source which others may use is looked at no sooner; seconds.
SHORTEST_WAIT = 5.0


@implementer(IDispatcher)
class Scheduler(SourceNews):
    """Moves messages from their reception to a ready queue, and back when they must wait.

    @param sources: every source by name.
    @param rotations: the pools.
    @param orders: what the operator has ordered; nothing if absent.
    """

    def __init__(
        self,
        reactor: Any,
        planner: Planner,
        queues: QueueTable,
        paths: PathTable,
        sources: dict[str, Source],
        rotations: Rotations,
        random: Any,
        orders: Orders | None = None,
    ) -> None:
        self._reactor = reactor
        #: What the operator has ordered.
        self.orders = orders or Orders(reactor)
        self._queues = queues
        self._paths = paths
        self._sources = sources
        self._rotations = rotations
        self._random = random
        # These come with L{use}.
        self._node: SessionContext
        self._choices: SourceChoice
        self._waiting = Waiting(reactor, self._serve)
        self._plans = Plans(reactor, planner)
        self._ready = ReadyQueues(sources, paths, self._new_ready_queue)
        self._lines = RoomLines(reactor, self._waiting, self._serve_batch)
        self._parking = Parking(
            reactor,
            random,
            is_held=lambda pool: self._choices.is_held(pool),
            next_try=lambda pool: self._choices.next_try(pool),
            is_too_old=self.is_too_old,
            give_back=self._leave_parking,
        )
        #: Whether deliveries may start at all.
        self.may_send = True
        self._stopped = False
        self._stopping: list[Deferred[None]] = []

    # -- lifecycle --------------------------------------------------------------------------------

    def use(self, context: SessionContext) -> None:
        """Name what sessions work with; before the first message."""
        self._node = context
        self._local = LocalDelivery(
            self._reactor, context.fates, context.bodies, self._check_stopped
        )
        self._selection = Selection(self._reactor, context.limits, self._paths, self._may_be_chosen)
        self._choices = SourceChoice(
            self._reactor.seconds,
            self._sources,
            self._rotations,
            context.health,
            self._ready.is_full,
            self._selection,
            self.orders,
        )

    def _new_ready_queue(
        self, source: Source, plan: Plan, path: PathSettings, pool: str
    ) -> ReadyQueue:
        return ReadyQueue(source, plan, path, pool, self._node, self)

    def pause(self) -> None:
        """Start no transaction: what comes of it could not be recorded."""
        self.may_send = False

    def resume(self) -> None:
        """Start transactions again."""
        self.may_send = not self._stopped
        for ready in self._ready:
            ready.kick()

    def stop(self, patience: float) -> Deferred[None]:
        """Start nothing more and wait for the transactions under way.

        @param patience: seconds after which sessions are aborted; their messages stay spooled.
        """
        self._stopped, self.may_send = True, False
        self._waiting.stop()
        self._selection.stop()
        self._local.stop()
        self._parking.stop()
        done: Deferred[None] = Deferred()
        self._stopping.append(done)
        for ready in self._ready:
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
        for ready in self._ready:
            ready.abort()

    def _check_stopped(self) -> None:
        if self._stopped and self._ready.are_at_rest and not self._local.active:
            waiting, self._stopping = self._stopping, []
            for done in waiting:
                done.callback(None)

    # -- another configuration ---------------------------------------------------------------------

    def reconfigure(self, change: Change) -> None:
        """The tables, pools and sources that this was made with are others now.

        What waits for its time goes by them when it is due. What waits for a connection, for room,
        for a rate or for a source is looked at again.
        """
        self._plans.forget()
        self._choices.forget_bars()
        self._selection.reconsider()
        self._ready.retire(change.gone)
        for ready in self._ready:
            path = self._paths.resolve(ready.plan.domain, ready.plan.site, ready.source.name)
            pulled = ready.source.name not in self._rotations.sources(ready.pool)
            ready.reconfigure(path, (lambda _: True) if pulled else change.moved)
        self._parking.route_anew()
        for queue in list(self._waiting):
            if queue.pacer is not None:
                queue.pacer.reconsider()
            if queue.state is State.NO_ROOM:
                self._lines.leave(queue)
                self._waiting.settle(queue)
        if change.reschedules:
            self._waiting.reschedule(change.due)

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
        if len(messages) == 1 and messages[0].due <= now:  # as most messages come
            self._take(messages[0].queue, tls_wish(messages[0]), [messages[0]], now)
            return
        due: dict[tuple[str, int, Preference, TLSWish], list[QueuedMessage]] = {}
        for message in messages:
            if message.due <= now:
                key = (message.queue, message.body_key, preference(message), tls_wish(message))
                due.setdefault(key, []).append(message)
            else:
                self._waiting.push(message)
        for (queue, _, _, wish), together in due.items():
            self._take(queue, wish, together, now)

    def _take(self, name: str, wish: TLSWish, messages: list[QueuedMessage], now: float) -> None:
        """Messages of one queue that are due go their way, unless others are before them."""
        queue = self._waiting.get(name, wish)
        if queue is not None and queue.is_backed_up(now):
            self._keep(messages, ahead=False)
        else:
            self._activate(name, wish, messages, now)

    def _keep(self, messages: Sequence[QueuedMessage], *, ahead: bool = True) -> None:
        """Messages whose way is not free stay in their queue; their bodies are in the spool.

        @param ahead: whether it was their turn.
        """
        for message in reversed(messages) if ahead else messages:
            self._node.bodies.drop(message)
            self._waiting.push(message, ahead=ahead)

    @property
    def inside(self) -> tuple[Waiting, ReadyQueues, Parking]:
        """Where messages are that no session has taken, for whoever inspects and steers."""
        return self._waiting, self._ready, self._parking

    @property
    def waiting(self) -> int:
        """Messages that wait for their due time, for room, or for a source."""
        return len(self._waiting) + len(self._parking)

    def loads(self) -> tuple[Counter[str], Counter[str]]:
        """What ready queues hold, by the name of the source: messages, and connections."""
        return self._ready.loads()

    # -- a queue's turn ---------------------------------------------------------------------------

    def _serve(self, queue: ScheduledQueue) -> None:
        """A queue's moment has come."""
        if queue.state is State.NO_ROOM:
            self._look_after(queue)
        elif queue.state is State.SUSPENDED:
            queue.state = State.DUE
        if queue.state is State.DUE:
            for _ in range(QUANTUM):
                if not self._serve_batch(queue):
                    break
        self._waiting.settle(queue)

    def _look_after(self, queue: ScheduledQueue) -> None:
        """A queue has stood in line for long: what is too old goes, and perhaps there is room."""
        now = self._reactor.seconds()
        facts = AttemptFacts(pool=self._queues.resolve(queue.name).egress_pool)
        while queue.next_due <= now and self.is_too_old(queue.messages[0][2]):
            for message in self._waiting.pop(queue, now, 1):
                self._node.fates.expired(message, None, facts)
        if not queue.messages or queue.line is None:
            self._lines.leave(queue)
            return
        pool, lane = line = queue.line
        if not any(self._ready.get(source, lane) for source in self._choices.sources(pool)):
            self._lines.leave(queue)  # nothing is full any more
            return
        self._lines.call_first(line)
        if queue.state is State.NO_ROOM:
            self._waiting.ring(queue, now + LONGEST_WAIT)

    def _serve_batch(self, queue: ScheduledQueue) -> bool:
        """Give messages of a queue that are due their way.

        @return: whether more of them may follow.
        """
        now = self._reactor.seconds()
        batch = self._waiting.pop(queue, now, self._paths.together)
        if queue.doom is not None and batch and batch[0].due <= queue.doomed_until:
            facts = AttemptFacts(pool=self._queues.resolve(queue.name).egress_pool)
            for message in batch:
                self._node.fates.failed(message, queue.doom, facts)
            return True
        queue.doom = None
        return bool(batch) and self._activate(queue.name, queue.wish, batch, now)

    def _activate(
        self, name: str, wish: TLSWish, messages: list[QueuedMessage], now: float
    ) -> bool:
        """Messages of one queue are due: give up those that are too old, find the way of the rest.

        @return: whether more of the queue may follow.
        """
        settings = self._queues.resolve(name)
        if self.orders.any:
            messages = self.orders.enforce(messages, self._node.fates)
        fresh = []
        for message in messages:
            if is_too_old(settings, message, now):
                self._node.fates.expired(message, None, AttemptFacts(pool=settings.egress_pool))
            elif "timing" in message.meta and is_early(settings, message, now):
                self._waiting.push(message)
            else:
                fresh.append(message)
        if not fresh:
            return True
        order = self.orders.suspended(name) if self.orders.any else None
        if order is not None:
            self._suspend(self._waiting.of(name, wish), fresh, order)
            return False
        plan = self._plans.known(name, now)
        if plan is None:
            self._look_up(name, wish, fresh, settings)
            return False
        if settings.max_message_rate is not None:
            return self._paced(self._waiting.of(name, wish), fresh, plan, settings)
        if wish is not TLSWish.NOTHING:
            plan = plan.wishing(wish)
        return not self._route(fresh, plan, settings)

    def _suspend(self, queue: ScheduledQueue, messages: list[QueuedMessage], order: Order) -> None:
        """Messages wait for the end of a suspension; queues do not all wake at that moment."""
        queue.state = State.SUSPENDED
        text = f"{queue.name} is suspended: {order.reason}"
        self._put_off(messages, internal_reply(451, "4.7.1", text), "QueueWasSuspended")
        now = self._reactor.seconds()
        wait = order.expires - now + SPREAD * self._random()
        self._waiting.ring(queue, now + min(wait, LONGEST_SUSPENSION))
        self._waiting.settle(queue)

    def look_again(self) -> None:
        """Orders have been cancelled: what waited for their end goes on, bit by bit."""
        now = self._reactor.seconds()
        for queue in self._waiting:
            if queue.state in {State.SUSPENDED, State.NO_ROOM}:
                self._waiting.ring(queue, now + SPREAD / 4 * self._random())

    def is_too_old(self, message: QueuedMessage) -> bool:
        """Whether a message is past its time."""
        settings = self._queues.resolve(message.queue)
        return is_too_old(settings, message, self._reactor.seconds())

    def _look_up(
        self, name: str, wish: TLSWish, messages: list[QueuedMessage], settings: QueueSettings
    ) -> None:
        """Messages wait for their queue's plan."""
        queue = self._waiting.of(name, wish)
        queue.state = State.LOOKING_UP
        for message in reversed(messages):
            self._waiting.push(message, ahead=True)

        def found(answer: Plan | Verdict | None) -> None:
            if self._waiting.by_key(queue.key) is not queue:
                return
            if isinstance(answer, Verdict):
                queue.doom, queue.doomed_until = answer, self._reactor.seconds()
            if not self._stopped and queue.state is State.LOOKING_UP:
                queue.state = State.DUE
                self._serve(queue)

        self._plans.find(name, settings, found)

    def _paced(
        self, queue: ScheduledQueue, messages: list[QueuedMessage], plan: Plan, settings: Any
    ) -> bool:
        """Give so many messages their way as C{max_message_rate} allows; see L{_activate}."""
        if queue.pacer is None:
            queue.pacer = Pacer(self._reactor, self._node.limits, partial(self._paced_on, queue))
        rate = settings.max_message_rate
        allowed = queue.pacer.take([(f"messages of {queue.name}", rate)], len(messages))
        late = messages[allowed:]
        if late:
            queue.state = State.THROTTLED
            reply = internal_reply(
                451, "4.4.5", f"{queue.name} is sent no faster than {render_rate(rate)}"
            )
            self._keep(late[1:])
            self._put_off(late[:1], reply, "MessageRateThrottle")
        unsent = self._route(messages[:allowed], plan.wishing(queue.wish), settings)
        queue.pacer.give_back(unsent)
        if not queue.messages and self._waiting.by_key(queue.key) is queue:
            self._waiting.settle(queue)
        return not late and not unsent

    def _paced_on(self, queue: ScheduledQueue) -> None:
        """A queue's rate allows more messages, or it is not the rate any more that it waits for."""
        if queue.state is State.THROTTLED and not self._stopped:
            queue.state = State.DUE
            self._serve(queue)

    def _put_off(self, messages: list[QueuedMessage], reply: Any, reason: str) -> None:
        """Messages stay in their queue, as they are; why is recorded once."""
        self._keep([each for each in messages if self._node.fates.put_off(each, reply, reason)])

    # -- a source ---------------------------------------------------------------------------------

    def _route(self, messages: list[QueuedMessage], plan: Plan, settings: QueueSettings) -> int:
        """Choose a source and hand the messages, which want the same, to its ready queue.

        @return: how many of them stay in their queue, which is not free to go on then.
        """
        pool, health = settings.egress_pool, self._node.health
        if not plan.hosts and settings.is_local:
            self._local.deliver(messages, settings.protocol)
            return 0
        while messages:
            name = self._choices.pick(pool, plan, preference(messages[0]))
            if name is None:
                return self._no_source(messages, plan, pool)
            ready = self._ready.of(name, plan, pool)
            number = 1
            if name in health.ailing and not health.usable(name):
                # One message shows whether a source works again; the others need another one.
                health.begin_try(name, plan.lane)
            elif len(messages) > 1:
                number = ready.room
            ready.add(messages[:number])
            messages = messages[number:]
        return 0

    def _no_source(self, messages: list[QueuedMessage], plan: Plan, pool: str) -> int:
        """No source may carry the messages now: they wait for one, or fail if none ever could."""
        fates, now = self._node.fates, self._reactor.seconds()
        obstacle = self._choices.obstacle(pool, plan)
        hindrance, reply = obstacle.hindrance, obstacle.reply
        if hindrance in WAITS_FOR_ROOM:
            queue = self._waiting.of(messages[0].queue, plan.tls)
            self._lines.stand(queue, (pool, plan.lane))
            self._ready.want_room(self._choices.sources(pool), plan.lane)
            self._put_off(messages, reply, hindrance.value)
            self._waiting.settle(queue)
            return len(messages)
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
                seconds = max(obstacle.seconds, SHORTEST_WAIT) * (1 + 0.2 * self._random())
                fates.delayed(message, seconds, reply, hindrance.value)
        return 0

    def _leave_parking(self, messages: list[QueuedMessage]) -> None:
        now = self._reactor.seconds()
        for message in messages:
            # What was foretold when it was parked is not the moment at which it came.
            message.due = min(message.due, now)
        self.insert_all(messages)

    # -- what ready queues call (IDispatcher) ------------------------------------------------------

    def has_room(self, ready: ReadyQueue) -> None:
        """A ready queue has room again: call those who stand in line for it, each in its turn."""
        self._may_be_chosen(ready.source.name, ready.plan.lane)

    def _may_be_chosen(self, source: str, lane: str) -> None:
        pools = self._choices.pools_of(source)
        if not self._stopped and self._lines.call(pools, lane):
            self._reactor.callLater(0, self._may_be_chosen, source, lane)

    def take_back(self, messages: list[QueuedMessage]) -> None:
        """Messages that a source could not carry look for another one."""
        self.insert_all(messages)

    def emptied(self, ready: ReadyQueue) -> None:
        """Forget a ready queue; another one is made when it is needed."""
        self._ready.forget(ready)
        if ready.wanted:
            self.has_room(ready)
        self._check_stopped()
