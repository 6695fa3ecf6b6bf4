"""Steering a node of several processes: what is asked of it is asked of each worker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.interfaces import ISteering
from kumotwist.queue.orders import Orders
from kumotwist.queue.steering import list_orders, order_of, rebind_of

__all__ = ["SharedSteering", "obey"]

#: Seconds that a worker has to answer.
PATIENCE = 30.0
#: Characters of an answer, which must fit into a line of the channel.
LONGEST_ANSWER = 900_000


@define
class _Question:
    """What all workers were asked.

    @ivar missing: who has not answered.
    @ivar answers: what they said, each with whether it is an error.
    """

    missing: set[int]
    fired: Deferred[None]
    answers: list[tuple[bool, Any]] = field(factory=list)
    timer: Any = None


@implementer(ISteering)
class SharedSteering:
    """The supervisor's side.

    The orders are kept here, for the workers that are started later.

    @param tell_all: says something to every worker and returns who heard it.
    @param orders: those of the node.
    @param absent: the workers that do not know yet what is in their queues.
    """

    def __init__(
        self,
        reactor: Any,
        tell_all: Callable[..., list[int]],
        orders: Orders,
        absent: Callable[[], Sequence[int]],
    ) -> None:
        self._reactor = reactor
        self._tell_all = tell_all
        self._orders = orders
        self._absent = absent
        # Who has not answered what it was asked last.
        self._silent: set[int] = set()
        self._questions: dict[int, _Question] = {}
        self._asked = 0

    async def _ask(self, method: str, *facts: Any, needed: bool = True, **named: Any) -> list[Any]:
        """The workers' answers.

        @param needed: whether there must be any.
        @raise ValueError: if one says that the question is wrong.
        @raise OSError: if one cannot do it, or none answers.
        """
        if len(json.dumps([facts, named])) > LONGEST_ANSWER:
            raise ValueError("this is too long for a node of several processes")
        self._asked += 1
        number = self._asked
        question = _Question(set(self._tell_all("steer", number, method, facts, named)), Deferred())
        self._questions[number] = question
        question.timer = self._reactor.callLater(PATIENCE, self._end, number)
        if not question.missing:
            self._end(number)
        await question.fired
        for failed, answer in question.answers:
            if failed:
                kind, text = answer
                raise ValueError(text) if kind == "ValueError" else OSError(text)
        if not question.answers and needed:
            raise OSError("no worker answers")
        return [answer for _, answer in question.answers]

    def answered(self, worker: int, number: int, failed: bool, answer: Any) -> None:
        """A worker has answered."""
        question = self._questions.get(number)
        if question is not None and worker in question.missing:
            question.answers.append((failed, answer))
            self._silent.discard(worker)
            self._no_longer(worker, number)

    def worker_ended(self, worker: int) -> None:
        """Nobody waits for a worker that is gone."""
        for number, question in list(self._questions.items()):
            if worker in question.missing:
                self._silent.add(worker)
            self._no_longer(worker, number)

    def _no_longer(self, worker: int, number: int) -> None:
        question = self._questions[number]
        question.missing.discard(worker)
        if not question.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        question = self._questions.pop(number)
        self._silent |= question.missing
        if question.timer.active():
            question.timer.cancel()
        question.fired.callback(None)

    # -- ISteering --------------------------------------------------------------------------------

    def order(self, kind: str, whom: dict[str, Any], **facts: Any) -> Deferred[str]:
        """See L{ISteering.order}; the order has one id in all of them."""

        async def order() -> str:
            given = order_of(kind, whom, facts, self._reactor.seconds())
            self._orders.add(given)
            # Workers keep no order over a restart: they are told again.
            told = {**facts, "persist": False, "id": given.id}
            try:
                await self._ask("order", kind, whom, needed=False, **told)
            except (ValueError, OSError):
                self._orders.cancel(given.id, kind)
                await self._ask("cancel", kind, given.id, needed=False)
                raise
            return given.id

        return ensureDeferred(order())

    def cancel(self, kind: str, order_id: str) -> Deferred[bool]:
        """See L{ISteering.cancel}."""

        async def cancel() -> bool:
            if self._orders.cancel(order_id, kind) is None:
                return False
            await self._ask("cancel", kind, order_id, needed=False)
            return True

        return ensureDeferred(cancel())

    def orders(self, kind: str) -> Deferred[list[dict[str, Any]]]:
        """See L{ISteering.orders}; what workers have bounced is added up."""

        async def orders() -> list[dict[str, Any]]:
            bounced: dict[str, Counter[str]] = {}
            for listed in await self._ask("orders", kind, needed=False):
                for order in listed:
                    bounced.setdefault(order["id"], Counter()).update(order["bounced"])
            return [
                {**order, "bounced": dict(bounced.get(order["id"], ()))}
                for order in list_orders(self._orders, kind, self._reactor.seconds())
            ]

        return ensureDeferred(orders())

    def rebind(
        self, whom: dict[str, Any], data: dict[str, str], reason: str, *, flush: bool, quiet: bool
    ) -> Deferred[None]:
        """See L{ISteering.rebind}."""

        async def rebind() -> None:
            await self._ask("rebind", whom, data, reason, flush=flush, quiet=quiet)

        return ensureDeferred(rebind())

    def check_rebind(self, whom: dict[str, Any], data: dict[str, str], *, flush: bool) -> None:
        """See L{ISteering.check_rebind}."""
        rebind_of(whom, data, flush=flush)

    def count(self, whom: dict[str, Any]) -> Deferred[dict[str, int]]:
        """See L{ISteering.count}."""

        async def count() -> dict[str, int]:
            found: Counter[str] = Counter()
            for counted in await self._ask("count", whom):
                found.update(counted)
            return dict(found)

        return ensureDeferred(count())

    def queues(self, limit: int) -> Deferred[dict[str, Any]]:
        """See L{ISteering.queues}; queues of one name are one."""

        async def queues() -> dict[str, Any]:
            answers = await self._ask("queues", limit)
            whole: dict[str, Any] = {
                name: sum(answer[name] for answer in answers)
                for name in ("scheduled_count_total", "scheduled_queue_count", "parked_count")
            }
            for kind in ("scheduled", "ready"):
                merged = _merged([each for answer in answers for each in answer[kind]])
                whole[kind] = sorted(merged, key=lambda each: -int(each["count"]))[:limit]
            return whole

        return ensureDeferred(queues())

    def ready_states(self, names: Sequence[str]) -> Deferred[dict[str, Any]]:
        """See L{ISteering.ready_states}."""

        async def states() -> dict[str, Any]:
            found: dict[str, Any] = {}
            for answer in await self._ask("ready_states", list(names)):
                for name, state in answer.items():
                    found[name] = {**found.get(name, {}), **state}
            return found

        return ensureDeferred(states())

    def missing_workers(self) -> list[int]:
        """See L{ISteering.missing_workers}."""
        return sorted({*self._silent, *self._absent()})

    def inspect(self, message_id: str, want_body: bool) -> Deferred[dict[str, Any] | None]:
        """See L{ISteering.inspect}."""

        async def inspect() -> dict[str, Any] | None:
            answers = await self._ask("inspect", message_id, want_body)
            return next((answer for answer in answers if answer is not None), None)

        return ensureDeferred(inspect())


def _merged(queues: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Queues of several workers by their names."""
    merged: dict[str, dict[str, Any]] = {}
    for queue in queues:
        known = merged.get(queue["name"])
        if known is None:
            merged[queue["name"]] = dict(queue)
            continue
        known["count"] += queue["count"]
        if "connections" in queue:
            known["connections"] += queue["connections"]
        moments = [each["next_due"] for each in (known, queue) if each.get("next_due")]
        if "next_due" in queue:
            known["next_due"] = min(moments, default=None)
    return list(merged.values())


_log = Logger()


async def obey(
    steering: Any, method: str, facts: list[Any], named: dict[str, Any]
) -> tuple[bool, Any]:
    """A worker's side: do what was asked.

    @return: whether it failed, and the answer; or, if it failed, the error's kind and text.
    """
    try:
        if method not in ISteering:
            raise ValueError(f"{method} is not known")
        answer = await maybeDeferred(getattr(steering, method), *facts, **named)
        if len(json.dumps(answer, default=str)) > LONGEST_ANSWER:
            raise OSError("the answer is too long for a node of several processes")
    except (ValueError, OSError) as error:
        kind = "ValueError" if isinstance(error, ValueError) else "OSError"
        return True, (kind, str(error))
    except Exception as error:
        _log.failure("steering failed")
        return True, ("OSError", type(error).__name__)
    return False, answer
