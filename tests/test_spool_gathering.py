"""When the spool commits: what rides along with what, and how long it waits."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.spool import SQLiteSpool
from kumotwist.spool.gathering import LINGER, LONGEST_GATHERING, Gathering
from tests.spool_support import SMALL, SteppedWorker, make_message, make_spool


class GatheringTests(SynchronousTestCase):
    """The timer of commits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[float] = []
        self.gathering = Gathering(self.clock, lambda: self.begun.append(self.clock.seconds()))

    def turn(self, seconds: float) -> None:
        """A turn of the reactor that takes some time, with the timed calls at its end.

        Unlike C{Clock.advance}, which runs what a call asks for at once, as the reactor never does.
        """
        self.clock.rightNow += seconds
        calls = [each for each in self.clock.calls if each.getTime() <= self.clock.rightNow]
        for call in calls:
            self.clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)

    def test_idle(self) -> None:
        """With nothing else to do the commit begins at the end of the turn."""
        self.gathering.soon()
        self.turn(0.00001)
        self.assertEqual(len(self.begun), 1)
        self.assertFalse(self.gathering.imminent)

    def test_busy(self) -> None:
        """While turns are long it waits for others, but not for ever."""
        self.gathering.soon()
        for _ in range(4):
            self.turn(0.001)
            self.gathering.soon()
        self.assertEqual(self.begun, [])
        self.turn(LONGEST_GATHERING - 0.004)
        self.assertEqual(len(self.begun), 1)

    def test_busy_no_more(self) -> None:
        """As soon as the reactor has nothing to do it begins."""
        self.gathering.soon()
        self.turn(0.001)
        self.turn(0.00001)
        self.assertEqual(len(self.begun), 1)

    def test_within(self) -> None:
        """What nobody waits for is begun after the delay; asking again does not put it off."""
        self.gathering.within(0.1)
        self.turn(0.06)
        self.gathering.within(0.1)
        self.assertEqual(self.begun, [])
        self.turn(0.05)
        self.assertEqual(len(self.begun), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clock_set_back(self) -> None:
        """Timers that a clock set back has left far ahead are set anew with the next request."""
        for ask in (self.gathering.soon, lambda: self.gathering.within(0.1)):
            self.begun.clear()
            ask()
            self.clock.rightNow -= 86400
            ask()
            self.turn(0.2)
            self.turn(0)
            self.assertEqual(len(self.begun), 1)

    def test_stop(self) -> None:
        """Nothing is begun after it was stopped."""
        self.gathering.soon()
        self.gathering.within(0.1)
        self.gathering.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RidingTests(SynchronousTestCase):
    """Removals and updates ride along with stores."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.writers: list[SteppedWorker] = []
        self.path = self.mktemp()
        self.spool = self.open()
        self.writer = self.writers[0]

    def open(self) -> SQLiteSpool:
        """A spool whose writer works when told."""

        def make_worker(name: str) -> SteppedWorker:
            self.writers.append(SteppedWorker())
            return self.writers[-1]

        spool = make_spool(self.clock, self.path, make_worker=make_worker, linger=LINGER)
        opened = spool.open()
        self.writers[0].step()
        self.writers[0].step()
        self.successResultOf(opened)
        return spool

    def stored(self, number: int) -> None:
        """Store a message, and see its commit."""
        done = self.spool.store(SMALL, [make_message(number)])
        self.clock.advance(0)
        self.writer.step()
        self.successResultOf(done)

    def test_rides_along(self) -> None:
        """A removal and an update share the commit of the next store: there is no other."""
        one, two = make_message(1), make_message(2)
        stored = self.spool.store(SMALL, [one, two])
        self.clock.advance(0)
        self.writer.step()
        self.successResultOf(stored)
        waiting = [self.spool.remove([one]), self.spool.update(two)]
        self.clock.advance(LINGER / 2)
        self.assertEqual(self.writer.jobs, [])
        self.stored(3)
        for each in waiting:
            self.successResultOf(each)
        self.clock.advance(2 * LINGER)
        self.assertEqual(self.writer.jobs, [])

    def test_bounded(self) -> None:
        """Without a store a removal is committed after a short while."""
        message = make_message()
        stored = self.spool.store(SMALL, [message])
        self.clock.advance(0)
        self.writer.step()
        self.successResultOf(stored)
        removed = self.spool.remove([message])
        self.clock.advance(LINGER)
        self.writer.step()
        self.successResultOf(removed)

    def test_many(self) -> None:
        """Many removals do not wait."""
        self.spool.remove([make_message(number) for number in range(1000)])
        self.clock.advance(0)
        self.assertEqual(len(self.writer.jobs), 1)

    def test_close(self) -> None:
        """Closing commits them at once."""
        message = make_message()
        removed = self.spool.remove([message])
        closed = self.spool.close()
        while any(worker.jobs for worker in self.writers):
            for worker in self.writers:
                while worker.jobs:
                    worker.step()
        self.successResultOf(removed)
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_enumeration(self) -> None:
        """An enumeration does not wait for a store either."""
        self.spool.remove([make_message()])
        self.spool.enumerate(lambda batch: None)
        self.clock.advance(0)
        self.assertEqual(len(self.writer.jobs), 1)
