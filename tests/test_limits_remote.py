"""Limits that another process keeps: a worker asks, its supervisor answers, in their own time."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ILimits, IPermit
from kumotwist.limits import Lender, LimitTable, RemoteLimits
from kumotwist.limits.remote import KEEPING
from kumotwist.settings.types import RATE
from tests.queue_world import World


class Line:
    """A worker's channel: what is said is heard when the test says so."""

    def __init__(self, clock: Clock, table: LimitTable) -> None:
        self.up: list[str] = []
        self.down: list[str] = []
        self.limits = RemoteLimits(clock, lambda message: self.up.append(json.dumps(message)))
        self.lender = Lender(table, lambda message: self.down.append(json.dumps(message)))

    def carry(self) -> bool:
        """Carry what has been said so far, both ways; say whether it was anything."""
        up, self.up = self.up, []
        down, self.down = self.down, []
        for message in up:
            self.lender.received(json.loads(message))
        for message in down:
            self.limits.received(json.loads(message))
        return bool(up or down)


class RemoteCase(SynchronousTestCase):
    """Two workers and their supervisor."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.table = LimitTable(self.clock.seconds)
        self.one, self.other = (Line(self.clock, self.table) for _ in range(2))

    def carry(self) -> None:
        """Carry until nobody has anything to say."""
        while self.one.carry() | self.other.carry():
            pass

    def ask(self, line: Line, on_contest: Any = None, **limits: int) -> list[Any]:
        """Ask; the list gets the permit when it is there."""
        got: list[Any] = []
        line.limits.permit(limits, on_contest).addCallback(got.append)
        return got


class RemoteTests(RemoteCase):
    """What is said and what comes of it."""

    def test_interfaces(self) -> None:
        """It is what it promises to be."""
        verifyObject(ILimits, self.one.limits)
        (permit,) = self.granted(self.ask(self.one, a=1))
        verifyObject(IPermit, permit)

    def granted(self, got: list[Any]) -> list[Any]:
        """A request's permit, if it has come."""
        self.carry()
        return got

    def test_together(self) -> None:
        """A limit holds for both together; what one gives back the other gets."""
        first = self.ask(self.one, a=1)
        second = self.ask(self.other, a=1)
        self.assertEqual(first, [], "nothing has been carried yet")
        self.carry()
        self.assertEqual((len(first), len(second)), (1, 0))
        first[0].release()
        first[0].release()
        self.carry()
        self.assertEqual((len(second), self.table.held("a")), (1, 1))

    def test_contested(self) -> None:
        """Who holds a place hears that the other one waits."""
        told: list[bool] = []
        first = self.ask(self.one, lambda: told.append(True), a=1)
        self.carry()
        self.assertFalse(first[0].contested)
        self.ask(self.other, a=1)
        self.carry()
        self.assertEqual((told, first[0].contested), ([True], True))

    def test_cancelled(self) -> None:
        """Who cancels while the place is on its way does not keep it."""
        waiting: Deferred[Any] = self.one.limits.permit({"a": 1})
        self.one.carry()
        self.assertEqual(self.table.held("a"), 1)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.carry()
        self.assertEqual(self.table.held("a"), 0)

    def test_cancelled_while_waiting(self) -> None:
        """Who cancels before there is a place is not given one."""
        first = self.ask(self.one, a=1)
        self.carry()
        waiting: Deferred[Any] = self.other.limits.permit({"a": 1})
        self.carry()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.carry()
        first[0].release()
        self.carry()
        self.assertEqual(self.table.held("a"), 0)

    def test_killed(self) -> None:
        """What a worker held or asked for when it died is free for the others."""
        self.ask(self.one, a=2)
        self.ask(self.one, a=2)
        third, fourth = self.ask(self.other, a=2), self.ask(self.one, a=2)
        self.carry()
        self.assertEqual(third, [])
        self.one.lender.close()
        self.other.carry()
        self.assertEqual((len(third), fourth, self.table.held("a")), (1, [], 1))
        self.assertEqual(self.one.down, [], "nobody is there to be told")

    def test_kept(self) -> None:
        """Who opens one connection after the other asks once; after a while of none the place is
        free again."""
        for _ in range(5):
            (permit,) = self.granted(self.ask(self.one, a=1))
            self.assertEqual(self.table.held("a"), 1)
            permit.release()
            permit.release()
        self.clock.advance(KEEPING / 2)
        self.assertEqual((self.one.up, self.table.held("a")), ([], 1))
        self.clock.advance(KEEPING)
        self.carry()
        self.assertEqual((self.table.held("a"), self.clock.getDelayedCalls()), (0, []))

    def test_kept_for_others(self) -> None:
        """A place that is only kept goes to who waits for it, at once."""
        (permit,) = self.granted(self.ask(self.one, a=1))
        permit.release()
        (others,) = self.granted(self.ask(self.other, a=1))
        mine = self.granted(self.ask(self.one, a=1))
        self.assertEqual((mine, others.contested), ([], True))

    def test_kept_under_another_limit(self) -> None:
        """Where the limit has changed, what was kept under the old one is given back."""
        permits = [self.granted(self.ask(self.one, a=2))[0] for _ in range(2)]
        for permit in permits:
            permit.release()
        self.assertEqual(len(self.granted(self.ask(self.one, a=1))), 1)
        self.assertEqual(self.table.held("a"), 1)

    def test_contested_from_the_start(self) -> None:
        """Who is given a place while others still wait knows that they do, and keeps it no longer
        than needed."""
        (first,) = self.granted(self.ask(self.one, a=1))
        second = self.ask(self.other, a=1)
        self.carry()
        third = self.ask(self.one, a=1)
        self.carry()
        first.release()
        self.carry()
        self.assertEqual((len(second), third, second[0].contested), (1, [], True))
        second[0].release()
        self.assertEqual(len(self.granted(third)), 1)

    def test_rates(self) -> None:
        """A rate is one rate, whoever asks."""
        rate = RATE.parse("2/s")
        answers = [
            line.limits.admit("r", rate) for line in (self.one, self.other, self.one, self.other)
        ]
        self.carry()
        waits = [self.successResultOf(answer) for answer in answers]
        self.assertEqual(sum(wait > 0 for wait in waits), 2)


class QueueTests(RemoteCase):
    """Ready queues whose places come late, and from elsewhere."""

    def test_all_delivered_within_the_limit(self) -> None:
        """Two processes with mail for one host: everything arrives, and there are never more
        connections than the limit says."""
        records = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
        worlds, sinks = [], []
        for line in (self.one, self.other):
            world = World(records, path={"connection_limit": 3}, limits=line.limits)
            sinks.append(world.sink("192.0.2.1", delay=0.5))
            worlds.append(world)
        for number in range(100):
            for world in worlds:
                world.inject(f"u{number}@b.example")
        most = 0
        for _ in range(400):
            self.carry()
            for world in worlds:
                world.network.advance(0.25)
                world.network.settle()
            most = max(most, sum(len(sink.sessions) for sink in sinks))
        self.assertEqual([world.kinds() for world in worlds], [["Delivery"] * 100] * 2)
        self.assertEqual(most, 3)
