"""Steering queues: suspensions, bounces and rebinds touch what is meant, and nothing else."""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ISteering
from kumotwist.queue.naming import Naming
from kumotwist.queue.orders import Order, Orders, Whom
from kumotwist.queue.settings import NamingSettings
from kumotwist.queue.steering import Steering
from tests.queue_world import BEGINNING, World

SITES = {
    "a.example": ["MX 10 mx.a.example"],
    "mx.a.example": ["A 192.0.2.1"],
    "b.example": ["MX 10 mx.b.example"],
    "mx.b.example": ["A 192.0.2.2"],
}


class SteeringCase(SynchronousTestCase):
    """A node whose destination C{a.example} does not answer, and C{b.example} does."""

    def setUp(self) -> None:
        """Build it."""
        self.build()

    def build(self, **facts: Any) -> None:
        """Build it with other settings."""
        self.world = World(SITES, **facts)
        self.world.sink("192.0.2.2")
        self.network = self.world.network
        self.steering = Steering(
            self.network,
            self.world.scheduler,
            self.world.fates,
            self.world.bodies,
            Naming(NamingSettings(), self.world.queues),
        )

    def order(self, kind: str, seconds: float = 300.0, **whom: Any) -> str:
        """Order something for a while."""
        expires = self.network.seconds() + seconds
        order_id = self.steering.order(kind, whom, reason="because", expires=expires)
        self.network.settle()
        return order_id

    def recipients(self, kind: str) -> list[str]:
        """Whom the records of a kind are about."""
        return [each["recipient"].partition("@")[0] for each in self.world.records(kind)]

    def queues(self) -> dict[str, int]:
        """What waits, by queue."""
        counting = self.steering.count({})
        self.network.settle()
        return self.successResultOf(counting)


class BounceTests(SteeringCase):
    """Bounces."""

    def test_interface(self) -> None:
        """It is what the HTTP listener asks for."""
        verifyObject(ISteering, self.steering)

    def test_by_tenant(self) -> None:
        """A tenant's messages go, with a record and without a report; others stay."""
        self.world.inject("x@a.example", tenant="bad")
        self.world.inject("y@a.example", tenant="good")
        self.order("bounce", tenant="bad")
        self.assertEqual(self.recipients("AdminBounce"), ["x"])
        (record,) = self.world.records("AdminBounce")
        self.assertEqual(record["response"]["content"], "because")
        self.assertEqual(self.queues(), {"good@a.example": 1})
        self.assertEqual(len(self.world.spool.messages), 1)

    def test_holds_for_a_while(self) -> None:
        """While the order holds, what comes is bounced too; what comes later is not."""
        self.order("bounce", 300.0, domain="b.example")
        self.world.inject("x@b.example")
        self.assertEqual(self.recipients("AdminBounce"), ["x"])
        (listed,) = self.steering.orders("bounce")
        self.assertEqual((listed["bounced"], listed["domain"]), ({"b.example": 1}, "b.example"))
        self.network.pass_time(301.0, step=10)
        self.world.inject("y@b.example")
        self.assertEqual(self.recipients("Delivery"), ["y"])
        self.assertEqual(self.steering.orders("bounce"), [])

    def test_cancel(self) -> None:
        """A cancelled order ends at once; one of another kind is not found."""
        order_id = self.order("bounce", domain="b.example")
        self.assertFalse(self.steering.cancel("suspend", order_id))
        self.assertTrue(self.steering.cancel("bounce", order_id))
        self.world.inject("x@b.example")
        self.assertEqual(self.recipients("Delivery"), ["x"])

    def test_by_id_and_with_report(self) -> None:
        """One message alone can be bounced, and its sender told."""
        (message,) = self.world.inject("x@a.example", sender="s@b.example")
        self.world.inject("y@a.example")
        expires = self.network.seconds() + 60
        self.steering.order(
            "bounce", {"ids": [message.id]}, reason="no", expires=expires, report=True
        )
        self.network.settle()
        self.assertEqual(self.recipients("AdminBounce"), ["x"])
        self.assertEqual(self.recipients("Delivery"), ["s"])
        self.assertEqual(self.queues(), {"a.example": 1})

    def test_by_source(self) -> None:
        """What waits for a source can be bounced; what comes later is not meant."""
        self.world.scheduler.pause()
        self.world.inject("x@b.example")
        self.order("bounce", source="other")
        self.assertEqual(self.recipients("AdminBounce"), [])
        self.order("bounce", source="direct")
        self.assertEqual(self.recipients("AdminBounce"), ["x"])
        self.world.scheduler.resume()
        self.world.inject("y@b.example")
        self.assertEqual(self.recipients("Delivery"), ["y"])

    def test_wherever_they_are(self) -> None:
        """Messages in scheduled queues, ready queues and behind held sources are all found."""
        self.build(path={"connection_limit": 1, "max_ready": 5})
        self.network.servers["192.0.2.1", 25] = None
        for number in range(20):
            self.world.inject(f"x{number}@a.example")
        self.order("bounce")
        self.assertEqual(len(self.recipients("AdminBounce")), 19, "all but the one under way")
        self.assertEqual(self.queues(), {})

    def test_many_in_turns(self) -> None:
        """Bouncing many messages leaves others their turns."""
        for number in range(450):
            self.world.enqueue(f"x{number}@a.example")
        self.network.settle()
        expires = self.network.seconds() + 60
        self.steering.order("bounce", {"domain": "a.example"}, reason="r", expires=expires)
        seen: list[int] = []
        self.network.callLater(0, lambda: seen.append(len(self.recipients("AdminBounce"))))
        self.network.settle()
        self.assertEqual(len(self.recipients("AdminBounce")), 450)
        self.assertLess(seen[0], 450)


class SuspensionTests(SteeringCase):
    """Suspensions."""

    def test_suspended(self) -> None:
        """A suspended queue waits without an attempt; its neighbours do not."""
        self.order("suspend", 600.0, tenant="t")
        self.world.inject("x@b.example", tenant="t")
        self.world.inject("y@b.example")
        self.assertEqual(self.recipients("Delivery"), ["y"])
        (record,) = self.world.records("Delayed")
        self.assertIn("is suspended: because", record["response"]["content"])
        self.network.pass_time(599.0, step=10)
        self.assertEqual(self.recipients("Delivery"), ["y"])
        self.network.pass_time(40.0)
        self.assertEqual(self.recipients("Delivery"), ["y", "x"])
        self.assertEqual(self.world.records("Delivery")[-1]["num_attempts"], 0)

    def test_one_message(self) -> None:
        """One message alone can be suspended, and goes on when that is cancelled."""
        (message,) = self.world.inject("x@a.example")
        order_id = self.order("suspend", 86400.0, ids=[message.id])
        self.world.sink("192.0.2.1")
        self.world.inject("y@a.example")
        self.network.pass_time(3 * 3600.0, step=60)
        self.assertEqual(self.recipients("Delivery"), ["y"])
        self.assertTrue(self.steering.cancel("suspend", order_id))
        self.network.pass_time(1)
        self.assertEqual(self.recipients("Delivery"), ["y", "x"])

    def test_ready_messages_too(self) -> None:
        """What was ready for a connection is suspended too."""
        self.world.scheduler.pause()
        self.world.inject("x@b.example")
        order_id = self.order("suspend", domain="b.example")
        self.world.scheduler.resume()
        self.network.pass_time(10)
        self.assertEqual(self.recipients("Delivery"), [])
        self.steering.cancel("suspend", order_id)
        self.network.pass_time(10)
        self.assertEqual(self.recipients("Delivery"), ["x"])

    def test_no_stampede(self) -> None:
        """The end of a suspension does not wake all queues at one moment."""
        dice = iter(number / 100 for number in range(100))
        self.world.scheduler._random = lambda: next(dice)
        self.order("suspend", 60.0)
        for number in range(50):
            self.world.inject(f"x{number}@b.example", tenant=f"t{number}")
        self.network.pass_time(60.5, step=0.5)
        early = len(self.recipients("Delivery"))
        self.network.pass_time(20.0, step=0.5)
        self.assertLess(early, 10)
        self.assertEqual(len(self.recipients("Delivery")), 50)

    def test_expires_while_suspended(self) -> None:
        """Messages that become too old during a suspension are given up in time."""
        self.build(queue={"max_age": 7200.0})
        self.order("suspend", 10 * 86400.0)
        self.world.inject("x@b.example", sender="")
        self.network.pass_time(4 * 3600.0, step=60)
        self.assertEqual(self.recipients("Expiration"), ["x"])

    def test_source(self) -> None:
        """Of a suspended source the pool's other sources carry the mail."""
        self.build(sources={"one": {}, "two": {}})
        self.order("suspend-ready-q", source="one")
        for number in range(4):
            self.world.inject(f"x{number}@b.example")
        self.assertEqual({each["egress_source"] for each in self.world.records()}, {"two"})

    def test_ready_queue(self) -> None:
        """A suspended ready queue keeps its mail waiting, uncharged; other sites are not meant."""
        order_id = self.order("suspend-ready-q", ready_queue="direct->mx.b.example@smtp_client")
        self.world.inject("x@b.example")
        self.assertEqual(self.recipients("Delivery"), [])
        states = self.steering.ready_states([])
        self.assertEqual(states, {})
        self.steering.cancel("suspend-ready-q", order_id)
        self.network.pass_time(10)
        self.assertEqual(self.recipients("Delivery"), ["x"])


class RebindTests(SteeringCase):
    """Rebinds."""

    def rebind(self, whom: dict[str, Any], data: dict[str, str], flush: bool = False) -> None:
        """Rebind some messages."""
        self.steering.rebind(whom, data, "moved", flush=flush, quiet=False)
        self.network.settle()

    def test_routing_domain(self) -> None:
        """Messages of a dead domain go by another one at once; the spool knows of it."""
        self.world.inject("x@a.example")
        self.assertEqual(self.queues(), {"a.example": 1})
        self.rebind({"domain": "a.example"}, {"routing_domain": "b.example", "x_why": "test"})
        self.assertEqual(self.recipients("AdminRebind"), ["x"])
        (record,) = self.world.records("Delivery")
        self.assertEqual(record["queue"], "a.example!b.example")

    def test_not_due_unless_moved(self) -> None:
        """Without another queue a message keeps its time, unless it is to be flushed."""
        self.world.inject("x@a.example")
        self.world.sink("192.0.2.1")
        self.rebind({}, {"tenant": ""})
        self.network.pass_time(5)
        self.assertEqual(self.recipients("Delivery"), [])
        self.rebind({}, {}, flush=True)
        self.assertEqual(self.recipients("Delivery"), ["x"])

    def test_wrong(self) -> None:
        """What cannot be set is refused, and so is what cannot be a name."""
        for data in ({"requiretls": "1"}, {"tenant": "a b"}, {"domain": ""}, {"queue": "a@b c"}):
            self.assertRaises(
                ValueError, self.steering.rebind, {}, data, "r", flush=False, quiet=True
            )


class InspectionTests(SteeringCase):
    """Looking."""

    def test_queues(self) -> None:
        """Queues are listed with their counts and next due times, the largest first."""
        self.world.inject("x@a.example", "y@a.example")
        self.world.inject("x@a.example", tenant="t")
        found = self.steering.queues(1)
        self.assertEqual(found["scheduled_count_total"], 3)
        (largest,) = found["scheduled"]
        self.assertEqual((largest["name"], largest["count"]), ("a.example", 2))
        self.assertEqual(largest["waits_for"], "the next due time")
        json.dumps(found)

    def test_message(self) -> None:
        """One message can be looked at, with its body if that is wanted."""
        (message,) = self.world.inject("x@a.example")
        found = self.look(message.id, want_body=True)
        self.assertEqual((found["recipient"], found["num_attempts"]), ("x@a.example", 1))
        self.assertIn("Subject: hello", found["data"])
        self.assertNotIn("data", self.look(message.id, want_body=False))
        self.assertIsNone(self.look("0" * 32, want_body=False))

    def look(self, message_id: str, want_body: bool) -> Any:
        """What is said of a message."""
        looking = self.steering.inspect(message_id, want_body)
        self.network.settle()
        return self.successResultOf(looking)


class PersistenceTests(SynchronousTestCase):
    """Orders that survive a restart."""

    def test_survive(self) -> None:
        """What is to survive does, with its time; the rest does not."""
        clock = World(SITES).network
        path = os.path.join(self.mktemp(), "orders.json")
        os.mkdir(os.path.dirname(path))
        orders = Orders(clock, path)
        whom = Whom(tenant="t", ids=frozenset({"a" * 32}))
        orders.add(Order("bounce", whom, "r", BEGINNING + 60, persist=True))
        orders.add(Order("suspend", Whom(), "r", BEGINNING + 60))
        again = Orders(clock, path)
        again.load()
        (kept,) = again.listed("bounce", "suspend")
        self.assertEqual((kept.whom, kept.expires), (whom, BEGINNING + 60))
        again.cancel(kept.id, "bounce")
        last = Orders(clock, path)
        last.load()
        self.assertFalse(last.any)

    def test_damaged(self) -> None:
        """A file that cannot be read is set aside and told of; what is readable in it holds, and
        what is ordered later is not saved over it."""
        whole = Order("suspend", Whom(tenant="t"), "r", BEGINNING + 60, persist=True).fields()
        for text, held in (
            ('[{"kind": 1}]', 0), ("[", 0), ("{}", 0), ("[" * 100_000, 0),
            (json.dumps([whole, {**whole, "expires": "soon"}, 7]), 1),
        ):  # fmt: skip
            directory = self.mktemp()
            os.mkdir(directory)
            path = os.path.join(directory, "orders.json")
            with open(path, "w") as file:
                file.write(text)
            clock = World(SITES).network
            orders = Orders(clock, path)
            orders.load()
            self.assertEqual(len(orders.listed("suspend")), held)
            orders.add(Order("bounce", Whom(), "r", BEGINNING + 60, persist=True))
            (aside,) = (name for name in os.listdir(directory) if ".unreadable-" in name)
            with open(os.path.join(directory, aside)) as file:
                self.assertEqual(file.read(), text)
            again = Orders(clock, path)
            again.load()
            self.assertEqual(len(again.listed("suspend", "bounce")), held + 1)

    def test_damaged_for_good(self) -> None:
        """Where the file cannot be set aside either, no order is saved over it."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("[")

        def cannot(*_: str) -> None:
            raise OSError("read only")

        self.patch(os, "rename", cannot)
        orders = Orders(World(SITES).network, path)
        orders.load()
        order = Order("bounce", Whom(), "r", BEGINNING + 60, persist=True)
        self.assertRaises(OSError, orders.add, order)
        with open(path) as file:
            self.assertEqual(file.read(), "[")
