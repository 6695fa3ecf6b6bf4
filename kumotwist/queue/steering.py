"""Inspecting and steering what waits: counts, one message's state, suspensions, bounces, rebinds.

Whoever asks (the HTTP listener) speaks in plain values. Everything that looks at many messages does
so some at a time, so that mail goes on meanwhile; what a session has taken is out of reach.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.interfaces import ISteering
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import avoid_source
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.fate import Fates
from kumotwist.queue.naming import Naming
from kumotwist.queue.orders import BOUNCE, SUSPEND, Order, Orders, Whom
from kumotwist.queue.ready import ReadyQueue
from kumotwist.queue.scheduler import Scheduler
from kumotwist.queue.settings import QueueName, parse_label
from kumotwist.settings.types import parse_domain

__all__ = ["Steering", "list_orders", "order_of", "rebind_of"]

#: Messages that are dealt with in one turn of the reactor.
TURN = 200
#: What a rebind may set besides the parts of a queue's name: names that begin so.
FREE_META = "x_"
_PARTS = frozenset({"campaign", "tenant", "domain", "routing_domain", "queue"})


@implementer(ISteering)
class Steering:
    """Inspects and steers a node's queues.

    @param clock: tells the time.
    @param naming: says which queue a name leads to.
    """

    _log = Logger()

    def __init__(
        self, clock: Any, scheduler: Scheduler, fates: Fates, bodies: Bodies, naming: Naming
    ) -> None:
        self._clock = clock
        self._scheduler = scheduler
        self._fates = fates
        self._bodies = bodies
        self._naming = naming
        self._cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))

    def stop(self) -> None:
        """Do no more."""
        self._cooperator.stop()

    # -- orders -----------------------------------------------------------------------------------

    def order(self, kind: str, whom: dict[str, Any], **facts: Any) -> str:
        """See L{ISteering.order}."""
        order = order_of(kind, whom, facts, self._clock.seconds())
        self._scheduler.orders.add(order)
        self._log.info(
            "ordered until {until}: {kind} {whom} ({reason}), id {id}",
            until=_moment(order.expires), kind=kind, whom=order.whom.fields() or "everything",
            reason=order.reason, id=order.id,
        )  # fmt: skip
        if kind == BOUNCE:
            self._go_through(order.whom, lambda message: self._bounce(message, order))
        elif kind == SUSPEND:
            # Scheduled queues find out when it is their turn.
            self._go_through(order.whom, self._scheduler.insert, scheduled=False)
        else:
            for ready in self._ready_queues(order.whom):
                ready.drain()
        return order.id

    def cancel(self, kind: str, order_id: str) -> bool:
        """See L{ISteering.cancel}."""
        order = self._scheduler.orders.cancel(order_id, kind)
        if order is None:
            return False
        self._log.info("cancelled: {kind} {id}", kind=kind, id=order_id)
        if kind == SUSPEND and order.whom.ids:
            self._go_through(order.whom, self._wake)
        elif kind != BOUNCE:
            self._scheduler.look_again()
        return True

    def _wake(self, message: QueuedMessage) -> None:
        message.due = min(message.due, self._clock.seconds())
        self._scheduler.insert(message)

    def orders(self, kind: str) -> list[dict[str, Any]]:
        """See L{ISteering.orders}."""
        return list_orders(self._scheduler.orders, kind, self._clock.seconds())

    def adopt(self, fields: dict[str, Any]) -> None:
        """Let an order hold that holds in the node's other processes, before there is any mail."""
        self._scheduler.orders.add(Order.of(fields))

    def _bounce(self, message: QueuedMessage, order: Order) -> None:
        order.count(message)
        self._fates.admin_bounced(message, order.reason, quiet=order.quiet, report=order.report)

    def rebind(
        self, whom: dict[str, Any], data: dict[str, str], reason: str, *, flush: bool, quiet: bool
    ) -> None:
        """See L{ISteering.rebind}."""
        criteria, change = rebind_of(whom, data, flush=flush)

        def rebound(message: QueuedMessage) -> None:
            before = message.queue
            self._apply(message, change)
            if flush or message.queue != before:
                message.due = min(message.due, self._clock.seconds())
            if criteria.source is not None:
                avoid_source(message, criteria.source)
            self._fates.rebound(message, reason, quiet=quiet)
            self._scheduler.insert(message)

        self._log.info("rebinding {whom}: {data} ({reason})", whom=whom, data=data, reason=reason)
        self._go_through(criteria, rebound)

    def check_rebind(self, whom: dict[str, Any], data: dict[str, str], *, flush: bool) -> None:
        """See L{ISteering.check_rebind}."""
        rebind_of(whom, data, flush=flush)

    def _apply(self, message: QueuedMessage, change: dict[str, str]) -> None:
        parts = {name: value for name, value in change.items() if name in _PARTS}
        for name, value in change.items():
            if name not in _PARTS:
                message.meta[name] = value
        if "queue" in parts:
            message.queue = parts["queue"]
        elif parts:
            whole = QueueName.parse(message.queue)._replace(**parts)
            message.queue = self._naming.place(whole)

    # -- going through ----------------------------------------------------------------------------

    def _go_through(
        self, whom: Whom, deal: Callable[[QueuedMessage], None], *, scheduled: bool = True
    ) -> Deferred[Any]:
        """Take out the messages that are meant and deal with them, some in each turn.

        @param scheduled: whether those in scheduled queues are meant too.
        """

        def steps() -> Iterator[None]:
            for take in self._takers(whom, scheduled):
                messages = take()
                for number, message in enumerate(messages, 1):
                    deal(message)
                    if number % TURN == 0:
                        yield
                yield

        done: Deferred[Any] = self._cooperator.coiterate(steps())
        return done.addErrback(lambda failure: self._log.failure("steering failed", failure))

    def _takers(self, whom: Whom, scheduled: bool) -> Iterator[Callable[[], list[QueuedMessage]]]:
        """What takes the messages that are meant out of each place, one place after the other."""
        waiting, ready_queues, parking = self._scheduler.inside
        meant = whom.matches
        for ready in list(ready_queues):
            if whom.matches_ready(ready.source.name, ready.plan.site):
                yield lambda ready=ready: ready.extract(meant)  # type: ignore[misc]
        if whom.source is None and whom.ready_queue is None:
            yield lambda: parking.extract(meant)
            for queue in list(waiting) if scheduled else ():
                if whom.matches_queue(queue.name):
                    yield lambda queue=queue: waiting.extract(queue, meant)  # type: ignore[misc]

    def _ready_queues(self, whom: Whom) -> list[ReadyQueue]:
        _, ready_queues, _ = self._scheduler.inside
        return [
            ready
            for ready in ready_queues
            if whom.matches_ready(ready.source.name, ready.plan.site)
        ]

    # -- inspecting -------------------------------------------------------------------------------

    def count(self, whom: dict[str, Any]) -> Deferred[dict[str, int]]:
        """See L{ISteering.count}."""
        criteria = _whom(whom)
        found: Counter[str] = Counter()

        def steps() -> Iterator[None]:
            for number, message in enumerate(self._messages(criteria), 1):
                if criteria.matches(message):
                    found[message.queue] += 1
                if number % (10 * TURN) == 0:
                    yield

        counting: Deferred[Any] = self._cooperator.coiterate(steps())
        return counting.addCallback(lambda _: dict(found))

    def _messages(self, whom: Whom) -> Iterator[QueuedMessage]:
        waiting, ready_queues, parking = self._scheduler.inside
        for ready in list(ready_queues):
            if whom.matches_ready(ready.source.name, ready.plan.site):
                yield from list(ready)
        if whom.source is None and whom.ready_queue is None:
            yield from list(parking)
            for queue in list(waiting):
                if whom.matches_queue(queue.name):
                    yield from [entry[2] for entry in queue.messages]

    def queues(self, limit: int) -> dict[str, Any]:
        """See L{ISteering.queues}."""
        waiting, ready_queues, parking = self._scheduler.inside
        known = list(waiting)
        largest = sorted(known, key=len, reverse=True)[:limit]
        return {
            "scheduled_count_total": len(waiting),
            "scheduled_queue_count": waiting.queues,
            "parked_count": len(parking),
            "scheduled": [
                {
                    "name": queue.name,
                    "count": len(queue),
                    "next_due": _moment(queue.next_due) if queue.messages else None,
                    "waits_for": queue.state.value,
                }
                for queue in largest
            ],
            "ready": [
                {
                    "name": ready.name,
                    "count": len(ready),
                    "connections": ready.sessions,
                    "connection_limit": int(ready.path.connection_limit),
                    "max_ready": ready.path.max_ready,
                    "waits_for": ready.waits_for,
                }
                for ready in sorted(ready_queues, key=len, reverse=True)[:limit]
            ],
        }

    def ready_states(self, names: Iterable[str]) -> dict[str, Any]:
        """See L{ISteering.ready_states}."""
        wanted = frozenset(names)
        now = _moment(self._clock.seconds())
        states: dict[str, Any] = {}
        for ready in self._scheduler.inside[1]:
            if wanted and ready.name not in wanted:
                continue
            found = {}
            order = self._scheduler.orders.ready_suspended(ready.source.name, ready.plan.site)
            if order is not None:
                found["suspended"] = {"context": order.reason, "since": now}
            if ready.waits_for:
                found["throttled"] = {"context": ready.waits_for, "since": now}
            states[ready.name] = found
        return states

    def missing_workers(self) -> list[int]:
        """See L{ISteering.missing_workers}: nobody else is asked."""
        return []

    def inspect(self, message_id: str, want_body: bool) -> Deferred[dict[str, Any] | None]:
        """See L{ISteering.inspect}."""
        found: list[QueuedMessage] = []

        def steps() -> Iterator[None]:
            for number, message in enumerate(self._messages(Whom()), 1):
                if message.id == message_id:
                    found.append(message)
                    return
                if number % (10 * TURN) == 0:
                    yield

        async def look() -> dict[str, Any] | None:
            await self._cooperator.coiterate(steps())
            if not found:
                return None
            message = found[0]
            body = await self._bodies.load(message) if want_body else None
            return _described(message, body)

        return Deferred.fromCoroutine(look())


def _described(message: QueuedMessage, body: bytes | None) -> dict[str, Any]:
    meta = {name: value for name, value in message.meta.items() if name != "timing"}
    described = {
        "sender": message.sender,
        "recipient": message.recipient,
        "queue": message.queue,
        "meta": meta,
        "due": _moment(message.due),
        "created": _moment(message.created),
        "num_attempts": message.attempts,
        "size": message.size,
        "scheduling": message.meta.get("timing"),
    }
    if body is not None:
        described["data"] = body.decode("utf-8", "replace")
    return described


def order_of(kind: str, whom: dict[str, Any], facts: dict[str, Any], now: float) -> Order:
    """An order in L{ISteering}'s words.

    @param now: seconds since the epoch.
    @raise ValueError: if something about it is wrong.
    """
    order = Order(kind, _whom(whom), **facts)
    if order.expires <= now:
        raise ValueError("expires: that moment has passed")
    return order


def rebind_of(
    whom: dict[str, Any], data: dict[str, str], *, flush: bool
) -> tuple[Whom, dict[str, str]]:
    """A rebind in L{ISteering}'s words: whom it is about, and what it sets.

    @raise ValueError: if something about it is wrong, or it would do nothing.
    """
    criteria = _whom(whom)
    if not data and not flush and criteria.source is None:
        raise ValueError("data: nothing is set, and always_flush is not wanted either")
    return criteria, _change(data)


def list_orders(orders: Orders, kind: str, now: float) -> list[dict[str, Any]]:
    """The orders of a kind that hold, see L{ISteering.orders}.

    @param now: seconds since the epoch.
    """
    return [
        {
            **order.whom.fields(),
            "id": order.id,
            "reason": order.reason,
            "duration": f"{max(0, round(order.expires - now))}s",
            "expires": _moment(order.expires),
            "persist": order.persist,
            "bounced": dict(order.done),
        }
        for order in orders.listed(kind)
    ]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _whom(fields: dict[str, Any]) -> Whom:
    fields = dict(fields)
    for name in ("queue_names", "ids"):
        fields[name] = frozenset(fields.get(name) or ())
    if fields.get("domain"):
        fields["domain"] = _domain(fields["domain"])
    if fields.get("routing_domain"):
        fields["routing_domain"] = _domain(fields["routing_domain"])
    return Whom(**fields)


def _domain(text: str) -> str:
    return text.lower() if text.startswith("[") else parse_domain(text)


def _change(data: dict[str, str]) -> dict[str, str]:
    """Check what a rebind sets.

    @raise ValueError: if it may not be set, or not to that.
    """
    change = {}
    for name, value in data.items():
        if name in {"campaign", "tenant"}:
            change[name] = parse_label(value) if value else ""
        elif name in {"domain", "routing_domain"}:
            if not value and name == "domain":
                raise ValueError("data: domain cannot be empty")
            change[name] = _domain(value) if value else ""
        elif name == "queue":
            parts = QueueName.parse(value)
            change[name] = str(parts._replace(domain=_domain(parts.domain)))
        elif name.startswith(FREE_META):
            change[name] = value
        else:
            raise ValueError(
                f"data: {name!r} cannot be set (campaign, tenant, domain, routing_domain, queue, "
                f"or a name that begins with {FREE_META})"
            )
    return change
