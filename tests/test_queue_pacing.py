"""Rates and limits of a path: as much as they allow, as soon as they allow it, without polling."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.limits import LimitTable
from kumotwist.queue.pacing import Pacer
from kumotwist.settings.types import NAMED_RATES, Limit, parse_limit, parse_rate
from tests.queue_world import World

SITES = {
    "a.example": ["MX 10 mx.a.example"],
    "mx.a.example": ["A 192.0.2.1"],
    "c.example": ["MX 10 mx1.c.example", "MX 20 mx2.c.example", "MX 30 mx3.c.example"],
    "mx1.c.example": ["A 192.0.2.11"],
    "mx2.c.example": ["A 192.0.2.12"],
    "mx3.c.example": ["A 192.0.2.13"],
    "b.example": ["MX 10 mx.b.example"],
    "mx.b.example": ["A 192.0.2.9"],
}


class PacerTests(SynchronousTestCase):
    """One who keeps to rates."""

    def setUp(self) -> None:
        """Limits on a clock that the test moves."""
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.limits = LimitTable(self.clock.seconds)
        self.woken = 0
        self.pacer = Pacer(self.clock, self.limits, self.wake)

    def wake(self) -> None:
        """Asking is worth while again."""
        self.woken += 1

    def test_burst_and_wake(self) -> None:
        """It gives the burst, then says once when there is more."""
        rates = [("x", parse_rate("3/30s"))]
        self.assertEqual(self.pacer.take(rates, 5), 3)
        self.assertEqual(self.pacer.take(rates, 5), 0)
        self.clock.advance(9.9)
        self.assertEqual(self.woken, 0)
        self.clock.advance(0.2)
        self.assertEqual((self.woken, self.pacer.take(rates, 5)), (1, 1))

    def test_all_rates_hold(self) -> None:
        """Of several rates each holds over a long time."""
        rates = [("slow", parse_rate("10/min,max_burst=1")), ("fast", parse_rate("5/s"))]
        taken = 0
        for _ in range(600):
            self.clock.advance(1.0)
            taken += self.pacer.take(rates, 100)
        self.assertIn(taken, range(95, 102))

    def test_late_answers(self) -> None:
        """Limits may answer later: nothing is given before, and whoever waits is called."""
        answers: list[Deferred[float]] = []

        def admit(*_: Any) -> Deferred[float]:
            answers.append(Deferred())
            return answers[-1]

        self.patch(self.limits, "admit", admit)
        rates = [("a", parse_rate("100/s")), ("b", parse_rate("100/s"))]
        self.assertEqual(self.pacer.take(rates, 5), 0)
        self.assertEqual(self.pacer.take(rates, 5), 0)
        answers[0].callback(0.0)
        self.assertEqual((self.woken, len(answers)), (0, 2))
        answers[1].callback(2.0)
        self.clock.advance(2.0)
        self.assertEqual(self.woken, 1)
        self.assertEqual(self.pacer.take(rates, 5), 0)
        answers[2].callback(0.0)
        self.assertEqual((self.woken, self.pacer.take(rates, 9)), (2, 5))

    def test_failing_limits(self) -> None:
        """Limits that cannot be asked are asked again; nothing is given meanwhile."""
        self.patch(self.limits, "admit", lambda *_: answer)
        answer: Deferred[float] = Deferred()
        self.assertEqual(self.pacer.take([("a", parse_rate("1/s"))], 1), 0)
        answer.errback(RuntimeError("gone"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(1.0)
        self.assertEqual(self.woken, 1)

    def test_changed_rate(self) -> None:
        """Whoever waits for a slow rate is called when it may be another one."""
        self.pacer.take([("x", parse_rate("1/day"))], 2)
        self.pacer.reconsider()
        self.assertEqual(self.woken, 1)

    def test_spellings(self) -> None:
        """Limits and named rates are spelled as in KumoMTA."""
        self.assertEqual((parse_limit("1,000"), parse_limit("local:20").local), (1000, True))
        self.assertFalse(Limit.of(3).local)
        self.assertRaises(ValueError, parse_limit, "0")
        rates = NAMED_RATES.parse("a = 1,000/hour, b = 10/5m,max_burst=3\nc=1/s")
        self.assertEqual([name for name, _ in rates], ["a", "b", "c"])
        self.assertEqual(rates[1][1].burst, 3)
        for wrong in ("a", "= 1/s", "a b = 1/s", "a = 1/s, a = 2/s", "a = x"):
            self.assertRaises(ValueError, NAMED_RATES.parse, wrong)


class PathTests(SynchronousTestCase):
    """A node's deliveries keep to its path's limits."""

    def world(self, **path: Any) -> World:
        """A node with sinks everywhere."""
        sources = path.pop("sources", None)
        world = World(SITES, path=path, sources=sources)
        for address in ("192.0.2.1", "192.0.2.9"):
            world.sink(address)
        return world

    def delivered(self, world: World) -> int:
        """How many messages have gone."""
        return len(world.records("Delivery"))

    def test_message_rate(self) -> None:
        """C{max_message_rate} holds for a source and a site; other sites are not affected."""
        world = self.world(max_message_rate=parse_rate("6/min"), idle_timeout=5.0)
        for number in range(30):
            world.enqueue(f"x{number}@a.example")
        world.inject("y@b.example")
        self.assertEqual(self.delivered(world), 7)
        for minutes in (1, 2, 3):
            world.network.pass_time(60.0)
            self.assertEqual(self.delivered(world), 7 + 6 * minutes)
        world.network.pass_time(61.0)
        self.assertEqual(self.delivered(world), 31)
        self.assertEqual(set(world.kinds()), {"Delivery"})
        self.assertLess(len(world.network.connections), 60)

    def test_batches(self) -> None:
        """Recipients count, whatever the number of transactions."""
        world = self.world(max_message_rate=parse_rate("6/min"))
        world.inject(*(f"x{number}@a.example" for number in range(20)))
        self.assertEqual(self.delivered(world), 6)
        world.network.pass_time(60.0)
        self.assertEqual(self.delivered(world), 12)

    def test_shared_rate(self) -> None:
        """A named rate is shared by all sites that name it."""
        world = self.world(additional_message_rate_throttles=(("both", parse_rate("4/min")),))
        for number in range(10):
            world.enqueue(f"x{number}@a.example")
            world.enqueue(f"x{number}@b.example")
        world.network.settle()
        self.assertEqual(self.delivered(world), 4)
        world.network.pass_time(120.0)
        self.assertEqual(self.delivered(world), 12)

    def test_connection_rate(self) -> None:
        """C{max_connection_rate} counts every connection, also that to the next address."""
        world = self.world(max_connection_rate=parse_rate("1/10s"), max_deliveries_per_connection=1)
        world.sink("192.0.2.13")
        world.inject("x@c.example")
        for seconds, made in ((0, 1), (9, 1), (1.1, 2), (8.8, 2), (1.2, 3)):
            world.network.pass_time(seconds)
            self.assertEqual(len(world.network.connections), made, seconds)
        self.assertEqual(self.delivered(world), 1)

    def test_connection_rate_of_many(self) -> None:
        """Many messages open connections no faster than the rate."""
        world = self.world(max_connection_rate=parse_rate("1/10s"), max_deliveries_per_connection=2)
        for number in range(12):
            world.enqueue(f"x{number}@b.example")
        world.network.settle()
        self.assertEqual(self.delivered(world), 2)
        world.network.pass_time(55.0)
        self.assertEqual((self.delivered(world), len(world.network.connections)), (12, 6))

    def test_shared_connections(self) -> None:
        """A named limit is shared; when a connection ends, whoever waits for its place has it."""
        world = self.world(
            additional_connection_limits=(("all", 1),), max_deliveries_per_connection=1
        )
        for number in range(5):
            world.enqueue(f"x{number}@a.example")
            world.enqueue(f"x{number}@b.example")
        world.network.settle()
        self.assertEqual(self.delivered(world), 10)
        world.network.pass_time(120.0)
        self.assertEqual(world.limits.held("named connections all"), 0)

    def test_selection_rate(self) -> None:
        """Beyond C{source_selection_rate} the mail is left to others, then it waits."""
        world = self.world(
            source_selection_rate=parse_rate("2/min"), sources={"one": {}, "two": {}}
        )
        for number in range(8):
            world.inject(f"x{number}@a.example")
        sources = [each["egress_source"] for each in world.records("Delivery")]
        self.assertEqual(sorted(sources), ["one", "one", "two", "two"])
        self.assertEqual(
            world.records("Delayed")[0]["response"]["content"],
            "kumotwist internal: no source of pool pool may be chosen for mx.a.example so soon",
        )
        world.network.pass_time(61.0)
        self.assertEqual(self.delivered(world), 8)

    def test_stop_while_waiting(self) -> None:
        """A node that stops leaves no timer that would send something."""
        world = self.world(
            max_message_rate=parse_rate("1/h"), max_connection_rate=parse_rate("1/h")
        )
        for number in range(3):
            world.inject(f"x{number}@a.example", f"y{number}@b.example")
        world.network.settle()
        stopped = world.scheduler.stop(1.0)
        world.network.pass_time(10.0)
        self.successResultOf(stopped)
        world.network.pass_time(7200.0, step=60.0)
        self.assertEqual(self.delivered(world), 2)
