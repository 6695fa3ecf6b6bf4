"""Steering several workers: all are asked, and what they say is one answer."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ISteering
from kumotwist.queue.orders import Orders
from kumotwist.service.shared_steering import LONGEST_ANSWER, PATIENCE, SharedSteering, obey
from tests.test_http_admin import RecordingSteering


class SharedSteeringTests(SynchronousTestCase):
    """Two workers, which hear and answer in JSON."""

    def setUp(self) -> None:
        """Build them."""
        self.clock = Clock()
        self.workers: dict[int, Any] = {1: RecordingSteering(), 2: RecordingSteering()}
        self.orders = Orders(self.clock)
        self.steering = SharedSteering(self.clock, self.tell_all, self.orders, lambda: self.absent)
        self.absent: list[int] = []
        self.silent: set[int] = set()

    def tell_all(self, subject: str, number: int, *rest: Any) -> list[int]:
        """Each worker obeys, soon."""
        for worker in self.workers:
            self.clock.callLater(0, self.obey, worker, number, json.dumps(rest))
        return list(self.workers)

    def obey(self, worker: int, number: int, text: str) -> None:
        """One worker's answer."""
        obeying = Deferred.fromCoroutine(obey(self.workers[worker], *json.loads(text)))
        failed, answer = json.loads(json.dumps(self.successResultOf(obeying)))
        if worker not in self.silent:
            self.steering.answered(worker, number, failed, answer)

    def result(self, answer: Any) -> Any:
        """What comes of it once all have answered."""
        self.clock.advance(0)
        return self.successResultOf(answer)

    def test_interface(self) -> None:
        """It is what the HTTP listener asks for."""
        verifyObject(ISteering, self.steering)

    def test_order(self) -> None:
        """An order has one id in all workers, so that it can be listed and cancelled as one."""
        order_id = self.result(self.steering.order("bounce", {}, reason="r", expires=1.0))
        for worker in self.workers.values():
            ((kind, whom, facts),) = worker.calls
            self.assertEqual((kind, whom, facts["id"]), ("bounce", {}, order_id))
            worker.listed = [{"id": order_id, "reason": "r", "bounced": {"a.example": 2}}]
        (order,) = self.result(self.steering.orders("bounce"))
        self.assertEqual(order["bounced"], {"a.example": 4})
        self.assertFalse(self.result(self.steering.cancel("suspend", order_id)))
        self.assertTrue(self.result(self.steering.cancel("bounce", order_id)))
        self.assertEqual(self.result(self.steering.orders("bounce")), [])

    def test_order_without_workers(self) -> None:
        """An order is kept for the workers that are not there yet."""
        self.workers.clear()
        self.result(self.steering.order("suspend", {"tenant": "t"}, reason="r", expires=9.0))
        (order,) = self.orders.fields()
        self.assertEqual((order["kind"], order["whom"]), ("suspend", {"tenant": "t"}))
        (listed,) = self.result(self.steering.orders("suspend"))
        self.assertEqual((listed["tenant"], listed["bounced"]), ("t", {}))

    def test_refused_order(self) -> None:
        """An order that is wrong, past, or that a worker cannot obey, does not hold."""
        for whom, expires in (({"domain": "a b"}, 9.0), ({}, 0.0), ({"ids": ["i" * 10**6]}, 9.0)):
            ordering = self.steering.order("bounce", whom, reason="r", expires=expires)
            self.clock.advance(0)
            self.failureResultOf(ordering, ValueError)
        self.patch(self.workers[1], "order", self.cannot)
        ordering = self.steering.order("bounce", {}, reason="r", expires=9.0)
        self.clock.advance(0)
        self.clock.advance(0)
        self.failureResultOf(ordering, OSError)
        self.assertEqual(self.orders.fields(), [])

    def cannot(self, *_: Any, **__: Any) -> None:
        """Be out of order."""
        raise OSError("out of order")

    def test_count(self) -> None:
        """Counts are added up."""
        self.assertEqual(
            self.result(self.steering.count({"tenant": "t"})), {"a.example": 4, "b.example": 2}
        )

    def test_queues(self) -> None:
        """Queues of one name are one: counts add up, the earliest due time counts."""
        for number, worker in self.workers.items():
            answer = {
                "scheduled_count_total": number, "scheduled_queue_count": 1, "parked_count": 0,
                "scheduled": [
                    {"name": "q", "count": number, "next_due": f"2027-01-0{number}"},
                    {"name": f"only-{number}", "count": 9, "next_due": None},
                ],
                "ready": [{"name": "r", "count": 1, "connections": number}],
            }  # fmt: skip
            self.patch(worker, "queues", lambda limit, answer=answer: answer)
        found = self.result(self.steering.queues(2))
        self.assertEqual(found["scheduled_count_total"], 3)
        self.assertEqual([each["name"] for each in found["scheduled"]], ["only-1", "only-2"])
        (ready,) = found["ready"]
        self.assertEqual((ready["count"], ready["connections"]), (2, 3))
        found = self.result(self.steering.queues(9))
        self.assertIn({"name": "q", "count": 3, "next_due": "2027-01-01"}, found["scheduled"])

    def test_inspect(self) -> None:
        """The worker that has a message answers for all."""
        self.patch(self.workers[1], "inspect", lambda *_: None)
        self.assertEqual(self.result(self.steering.inspect("1", False)), {"data": False})
        self.assertIsNone(self.result(self.steering.inspect("2", False)))
        self.assertEqual(self.result(self.steering.ready_states(["a"])), {"a": {}})

    def test_refused(self) -> None:
        """What a worker refuses is refused, in its words; what it cannot do is an error."""
        rebinding = self.steering.rebind({}, {"bad": "1"}, "r", flush=False, quiet=False)
        self.clock.advance(0)
        error = self.failureResultOf(rebinding, ValueError)
        self.assertIn("'bad' cannot be set", error.getErrorMessage())
        self.patch(self.workers[1], "inspect", lambda *_: {"data": "x" * LONGEST_ANSWER})
        inspecting = self.steering.inspect("1", True)
        self.clock.advance(0)
        self.assertIn("too long", self.failureResultOf(inspecting, OSError).getErrorMessage())

    def test_gone(self) -> None:
        """A worker that ends, or does not answer, is not waited for for ever."""
        self.silent = {2}
        counting = self.steering.count({})
        self.clock.advance(0)
        self.assertNoResult(counting)
        self.steering.worker_ended(2)
        self.assertEqual(self.successResultOf(counting), {"a.example": 2, "b.example": 1})
        counting = self.steering.count({})
        self.clock.advance(0)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(counting), {"a.example": 2, "b.example": 1})
        self.assertEqual(self.steering.missing_workers(), [2])
        self.absent = [1]
        self.assertEqual(self.steering.missing_workers(), [1, 2])
        self.absent, self.silent = [], set()
        self.result(self.steering.count({}))
        self.assertEqual(self.steering.missing_workers(), [])
        self.workers.clear()
        self.failureResultOf(self.steering.count({}), OSError)

    def test_unknown(self) -> None:
        """Nothing but steering can be asked of a worker."""
        answer = Deferred.fromCoroutine(obey(self.workers[1], "__init__", [], {}))
        self.assertTrue(self.successResultOf(answer)[0])
