"""Limits of each source address."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.proxy.limits import SourceLimits
from kumotwist.settings.types import RATE, Rate

ONE = "203.0.113.1"
TWO = "203.0.113.2"


class SourceLimitsTests(SynchronousTestCase):
    """Open connections and new ones."""

    def setUp(self) -> None:
        """A clock."""
        self.clock: Any = Clock()

    def test_unlimited(self) -> None:
        """Without limits everything is let through, and counted."""
        limits = SourceLimits(self.clock)
        for _ in range(1000):
            self.assertIsNone(limits.acquire(ONE))
        self.assertEqual(limits.open_connections(), {ONE: 1000})
        for _ in range(1000):
            limits.release(ONE)
        self.assertEqual(limits.open_connections(), {})

    def test_open_connections(self) -> None:
        """So many may be open from one source; another source has its own number."""
        limits = SourceLimits(self.clock, max_connections=2)
        self.assertIsNone(limits.acquire(ONE))
        self.assertIsNone(limits.acquire(ONE))
        self.assertEqual(limits.acquire(ONE), "2 connections from 203.0.113.1 are open")
        self.assertIsNone(limits.acquire(TWO))
        limits.release(ONE)
        self.assertIsNone(limits.acquire(ONE))

    def test_rate(self) -> None:
        """After a burst connections must keep their distance."""
        limits = SourceLimits(self.clock, rate=RATE.parse("10/s,max_burst=3"))
        self.assertEqual([limits.acquire(ONE) for _ in range(3)], [None] * 3)
        self.assertEqual(
            limits.acquire(ONE), "connections from 203.0.113.1 come too fast, 0.100s early"
        )
        self.assertIsNone(limits.acquire(TWO))
        self.clock.advance(0.1)
        self.assertIsNone(limits.acquire(ONE))
        self.assertIsNotNone(limits.acquire(ONE))
        self.clock.advance(60)
        self.assertEqual([limits.acquire(ONE) for _ in range(3)], [None] * 3)
        self.assertIsNotNone(limits.acquire(ONE))

    def test_refusals_cost_nothing(self) -> None:
        """Asking too often does not push the next permission away."""
        limits = SourceLimits(self.clock, rate=RATE.parse("1/s"))
        self.assertIsNone(limits.acquire(ONE))
        for _ in range(100):
            self.assertIsNotNone(limits.acquire(ONE))
        self.clock.advance(1)
        self.assertIsNone(limits.acquire(ONE))

    @given(
        st.integers(1, 50),
        st.integers(1, 20),
        st.lists(st.floats(0, 2, allow_nan=False), max_size=60),
    )
    @settings(max_examples=100, deadline=None)
    def test_never_more_than_the_rate(self, events: int, burst: int, pauses: list[float]) -> None:
        """In no stretch of time do more than the burst and the rate's share get through."""
        clock: Any = Clock()
        limits = SourceLimits(clock, rate=Rate(events, 1.0, burst))
        passed: list[float] = []
        for pause in pauses:
            clock.advance(pause)
            if limits.acquire(ONE) is None:
                passed.append(clock.seconds())
        for first in range(len(passed)):
            for last in range(first, len(passed)):
                share = burst + (passed[last] - passed[first]) * events
                self.assertLessEqual(last - first + 1, share + 1e-3)

    def test_memory(self) -> None:
        """Sources that say nothing any more are forgotten."""
        limits = SourceLimits(self.clock, rate=RATE.parse("1/s"))
        for number in range(5000):
            source = str(ipaddress.ip_address(number + 2**24))
            self.assertIsNone(limits.acquire(source))
            limits.release(source)
            self.clock.advance(1)
        self.assertLess(len(limits._sources), 1100)
        self.assertIsNone(limits.acquire(ONE))
        self.assertEqual(limits.open_connections(), {ONE: 1})


class WaitingTests(SynchronousTestCase):
    """Turns."""

    def setUp(self) -> None:
        """A clock, and who had a turn."""
        self.clock: Any = Clock()
        self.turns: list[str] = []

    def queue(self, limits: SourceLimits, *names: str) -> None:
        """Wait under these names."""
        for name in names:
            limits.wait(ONE, name, lambda name=name: self.turns.append(name))  # type: ignore[misc]

    def test_in_order(self) -> None:
        """Who waits has a turn when a connection ends, first come first; nobody overtakes."""
        limits = SourceLimits(self.clock, max_connections=1)
        self.assertIsNone(limits.acquire(ONE))
        self.queue(limits, "a", "b")
        self.assertIsNone(limits.acquire(TWO))
        limits.release(ONE)
        self.assertEqual(self.turns, ["a"])
        self.assertEqual(limits.acquire(ONE), "1 others wait for 203.0.113.1")
        limits.release(ONE)
        self.assertEqual(self.turns, ["a", "b"])
        self.assertEqual(limits.open_connections()[ONE], 1)
        limits.release(ONE)
        limits.release(TWO)
        self.assertEqual((limits.open_connections(), limits._sources), ({}, {}))

    def test_rate(self) -> None:
        """Who waits for the rate has a turn when its time has come."""
        limits = SourceLimits(self.clock, rate=RATE.parse("10/s,max_burst=1"))
        self.assertIsNone(limits.acquire(ONE))
        self.queue(limits, "a", "b", "c")
        for expected in ("a", "ab", "abc"):
            self.assertEqual("".join(self.turns), expected[:-1])
            self.clock.advance(0.1)
            self.assertEqual("".join(self.turns), expected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_given_up(self) -> None:
        """Who gives up is passed over, and leaves no timer behind."""
        limits = SourceLimits(self.clock, rate=RATE.parse("1/s,max_burst=1"))
        self.assertIsNone(limits.acquire(ONE))
        self.queue(limits, "a", "b")
        limits.give_up(ONE, "a")
        limits.give_up(ONE, "a")
        limits.give_up(TWO, "a")
        self.clock.advance(1)
        self.assertEqual(self.turns, ["b"])
        self.queue(limits, "c")
        limits.give_up(ONE, "c")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_released_in_a_turn(self) -> None:
        """A turn that comes to nothing is the next one's."""
        limits = SourceLimits(self.clock, max_connections=1)
        self.assertIsNone(limits.acquire(ONE))
        limits.wait(ONE, "a", lambda: limits.release(ONE))
        self.queue(limits, "b")
        limits.release(ONE)
        self.assertEqual(self.turns, ["b"])
        self.assertEqual(limits.open_connections(), {ONE: 1})
