"""Who comes when: one tenant's or one domain's backlog does not delay another's first attempt."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.fairness import FairLine, FairQueue, tenant_of
from kumotwist.settings.types import parse_rate
from tests.queue_world import World

#: Two domains at one provider, and one elsewhere.
SITES = {
    "a.example": ["MX 10 mx.big.example"],
    "b.example": ["MX 10 mx.big.example"],
    "mx.big.example": ["A 192.0.2.1"],
    "c.example": ["MX 10 mx.c.example"],
    "mx.c.example": ["A 192.0.2.2"],
}


def message(queue: str, number: int = 0, body_key: int = 0) -> QueuedMessage:
    """A message of a queue."""
    return QueuedMessage(f"{number:032x}", "", "x@a", queue, 1, 0.0, 0.0, body_key=body_key)


class TurnTests(SynchronousTestCase):
    """Taking turns."""

    def test_tenants(self) -> None:
        """A queue is its tenant's, whatever its campaign and its domain are."""
        for name, tenant in (
            ("a.example", ""),
            ("acme@a.example!b", "acme"),
            ("spring:acme@a.example", "acme"),
            ("spring:@a.example", ""),
            ("me@acme.example@a.example", "me@acme.example"),
        ):
            self.assertEqual(tenant_of(name), tenant)

    def test_one_and_many(self) -> None:
        """One message beside a thousand of another queue comes second."""
        queue = FairQueue()
        queue.add(message("a.example", number) for number in range(1000))
        queue.add([message("b.example", 7)])
        order = [queue.pop().queue for _ in range(3)]
        self.assertEqual(order, ["a.example", "b.example", "a.example"])
        self.assertEqual(len(queue), 998)

    def test_tenants_before_queues(self) -> None:
        """A tenant with a thousand queues has one turn beside a tenant with one."""
        queue = FairQueue()
        queue.add(message(f"big@d{number}.example") for number in range(1000))
        queue.add(message("small@a.example", number) for number in range(10))
        turns = Counter(tenant_of(queue.pop().queue) for _ in range(20))
        self.assertEqual(turns, {"big": 10, "small": 10})

    def test_order_within(self) -> None:
        """Within a queue the order stays; what is put back comes first of all."""
        queue = FairQueue()
        queue.add(message("a.example", number) for number in range(5))
        queue.add([message("b.example", 9)])
        first = queue.take(1)
        queue.put_back(first)
        self.assertEqual([int(queue.pop().id, 16) for _ in range(6)], [0, 9, 1, 2, 3, 4])

    def test_together(self) -> None:
        """Recipients of one message are one turn, up to the limit."""
        queue = FairQueue()
        queue.add(message("a.example", number, body_key=5) for number in range(5))
        queue.add([message("b.example", 9)])
        self.assertEqual([len(queue.take(3)) for _ in range(3)], [3, 1, 2])

    def test_nothing_left(self) -> None:
        """What was taken leaves no names behind."""
        queue = FairQueue()
        queue.add(message(f"t{number % 7}@d{number}.example") for number in range(100))
        while queue:
            queue.pop()
        self.assertEqual((list(queue._line), queue._queues, len(queue)), ([], {}, 0))

    def test_line(self) -> None:
        """Whoever stands in line keeps the place that it has; who leaves makes way."""
        line = FairLine()
        for name in ("big@1", "big@2", "small@1", "big@1"):
            line.add(name)
        seen = []
        for _ in range(5):
            seen.append(line.first())
            line.rotate()
        self.assertEqual(seen, ["big@1", "small@1", "big@2", "small@1", "big@1"])
        line.remove("small@1")
        line.remove("nobody@1")
        self.assertEqual(sorted(line), ["big@1", "big@2"])


class BacklogTests(SynchronousTestCase):
    """A backlog on one side, and a message on the other."""

    def world(self, **facts: object) -> World:
        """A node whose provider C{big} never greets and has two connections, with few ready."""
        values = {
            "path": {"connection_limit": 2, "max_ready": 4, "connect_timeout": 1e6},
            **facts,
        }
        return World(SITES, **values)  # type: ignore[arg-type]

    def test_hanging_destination(self) -> None:
        """A provider that hangs holds its connections, and no more; others are not delayed."""
        world = self.world()
        world.network.servers["192.0.2.1", 25] = None
        world.sink("192.0.2.2")
        for number in range(300):
            world.enqueue(f"x{number}@a.example")
        world.network.settle()
        world.inject("y@c.example")
        self.assertEqual([each["recipient"] for each in world.records("Delivery")], ["y@c.example"])
        (ready,) = [each for each in world.scheduler._ready if "big" in each.plan.site]
        self.assertEqual((ready.sessions, len(ready)), (1, 4))
        self.assertEqual(world.scheduler.waiting, 300 - 4 - ready.sessions)
        # What waits for room keeps nothing but its envelope in memory.
        self.assertLessEqual(world.bodies.bytes, 6 * 100)

    def test_refill_at_once(self) -> None:
        """What waits for room is taken as soon as there is some, not after a while."""
        world = World(SITES, path={"connection_limit": 1, "max_ready": 4})
        world.scheduler.pause()
        world.sink("192.0.2.1")
        for number in range(300):
            world.enqueue(f"x{number}@a.example")
        world.network.settle()
        self.assertEqual(world.scheduler.waiting, 296)
        self.assertEqual(len(world.records("Delayed")), 1, "the one that met the full queue")
        world.scheduler.resume()
        world.network.settle()
        world.network.pass_time(1.0, step=0.1)
        self.assertEqual(len(world.records("Delivery")), 300)
        self.assertEqual((world.scheduler.waiting, world.scheduler._waiting.queues), (0, 0))
        self.assertEqual(len(world.scheduler._lines), 0)

    def test_first_attempt_beside_a_backlog(self) -> None:
        """A tenant's first message to a provider passes the ten thousand of another tenant."""
        world = World(SITES, path={"connection_limit": 1, "max_ready": 10})
        world.scheduler.pause()
        world.sink("192.0.2.1")
        for number in range(2000):
            world.enqueue(f"x{number}@a.example", tenant="big")
        for number in range(5):
            world.inject(f"y{number}@a.example", tenant="small")
        world.inject("z@b.example")
        world.scheduler.resume()
        world.network.settle()
        world.network.pass_time(5.0, step=0.1)
        order = [each["recipient"] for each in world.records("Delivery")]
        self.assertEqual(len(order), 2006)
        early = order[:40]
        small = [f"y{number}@a.example" for number in range(5)]
        self.assertEqual([each for each in early if each[0] == "y"], small)
        self.assertIn("z@b.example", early)

    def test_throttled_queue(self) -> None:
        """A queue's C{max_message_rate} holds; its neighbours do not notice."""
        world = World(
            SITES,
            domain_queues={"slow@*": {"max_message_rate": parse_rate("10/min,max_burst=1")}},
        )
        world.sink("192.0.2.1")
        for number in range(30):
            world.inject(f"x{number}@a.example", tenant="slow")
        world.inject("y@a.example", tenant="fast")
        self.assertEqual(
            [each["recipient"] for each in world.records("Delivery")],
            ["x0@a.example", "y@a.example"],
        )
        world.network.pass_time(61, step=1)
        self.assertEqual(len(world.records("Delivery")), 2 + 10)
        self.assertEqual(
            {each["response"]["content"] for each in world.records("Delayed")},
            {"kumotwist internal: slow@a.example is sent no faster than 10/1m,max_burst=1"},
        )
        world.network.pass_time(180, step=1)
        self.assertEqual(len(world.records("Delivery")), 31)
        self.assertEqual(world.scheduler._waiting.queues, 0)

    def test_throttle_without_polling(self) -> None:
        """While a queue waits for its rate nobody asks; its messages expire all the same."""
        world = World(
            SITES,
            queue={"max_message_rate": parse_rate("1/day"), "max_age": 7200.0},
        )
        world.sink("192.0.2.1")
        for number in range(3):
            world.inject(f"x{number}@a.example", sender="")
        asked = 0
        admit = world.limits.admit

        def counting(*facts: object) -> object:
            nonlocal asked
            asked += 1
            return admit(*facts)

        self.patch(world.limits, "admit", counting)
        world.network.pass_time(4 * 3600, step=10)
        self.assertLess(asked, 10)
        self.assertEqual(len(world.records("Expiration")), 2)
        self.assertEqual(world.scheduler.waiting, 0)

    def test_look_up_fails_for_all(self) -> None:
        """A look-up that fails counts for all that waited for it, and for nothing else."""
        world = World(SITES, fail={"bad.example": "SERVFAIL"})
        world.inject(*(f"x{number}@bad.example" for number in range(50)))
        world.network.pass_time(1)
        self.assertEqual(len(world.records("TransientFailure")), 50)
        self.assertEqual(world.scheduler.waiting, 50)
        self.assertTrue(all(each.due > world.network.seconds() + 60
                            for each in world.spool.messages.values()))  # fmt: skip
