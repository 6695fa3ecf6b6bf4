"""C{connection_limit} among several processes of a node: whose turn it is on a connection."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.limits import LimitTable
from kumotwist.queue.ready import LONGEST_TURN
from tests.queue_world import World

RECORDS = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
NAME = "connections direct->mx.b.example"


class PlaceTests(SynchronousTestCase):
    """Two processes, one limit."""

    def setUp(self) -> None:
        self.limits = LimitTable(Clock().seconds)
        self.one, self.other = self.world(), self.world()

    def world(self) -> World:
        """The queues of one process, and the host that they deliver to."""
        world = World(RECORDS, path={"connection_limit": 1}, limits=self.limits)
        world.sink("192.0.2.1")
        return world

    def deliveries(self) -> list[int]:
        """How many messages each has delivered."""
        return [len(world.records("Delivery")) for world in (self.one, self.other)]

    def test_idle_connection_makes_room(self) -> None:
        """A connection that only waits for more mail ends when another process needs its place."""
        self.one.inject("a@b.example")
        self.assertEqual(self.limits.held(NAME), 1)
        self.other.inject("b@b.example")
        self.assertEqual(self.deliveries(), [1, 0])
        self.one.network.settle()
        self.other.network.settle()
        self.assertEqual(self.deliveries(), [1, 1])
        self.assertEqual(self.limits.held(NAME), 1)

    def test_waits_its_turn(self) -> None:
        """While somebody else has the place messages wait, without an attempt, and go on then."""
        permit = self.limits.permit({NAME: 1})
        self.one.inject("a@b.example", "b@b.example")
        self.one.network.advance(100)
        self.one.network.settle()
        self.assertEqual(self.one.records(), [])
        self.successResultOf(permit).release()
        self.one.network.settle()
        self.assertEqual(self.deliveries(), [2, 0])

    def test_place_is_not_needed_any_more(self) -> None:
        """A node that stops does not wait for places, and takes none."""
        permit = self.limits.permit({NAME: 1})
        self.one.inject("a@b.example")
        self.successResultOf(self.one.scheduler.stop(1))
        self.successResultOf(permit).release()
        self.assertEqual(self.limits.held(NAME), 0)

    def test_busy_connection_has_its_turn(self) -> None:
        """A connection that is busy goes on for a while, and then gives way though there is more
        to do; afterwards it is the first one's turn again."""
        self.one.sink("192.0.2.1", delay=LONGEST_TURN / 4)
        for number in range(12):
            self.one.inject(f"a{number}@b.example")
        self.other.inject("b@b.example")
        interrupted = False
        for _ in range(60):
            self.one.network.advance(0.5)
            self.one.network.settle()
            self.other.network.settle()
            if self.deliveries()[1] and len(self.one.records("Delivery")) < 12:
                interrupted = True
        self.assertEqual(self.deliveries(), [12, 1])
        self.assertTrue(interrupted)
        self.assertEqual(self.one.kinds(), ["Delivery"] * 12)
