"""Places and rates: what holds for a whole node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ILimits, IPermit
from kumotwist.limits import LimitTable, RateTable
from kumotwist.settings.types import RATE, Rate


class PlaceTests(SynchronousTestCase):
    """So many at once."""

    def setUp(self) -> None:
        self.table = LimitTable(Clock().seconds)

    def ask(self, limits: Mapping[str, int], on_contest: Any = None) -> list[Any]:
        """Ask; the list gets the permit when it is there."""
        got: list[Any] = []
        self.table.permit(limits, on_contest).addCallback(got.append)
        return got

    def test_interfaces(self) -> None:
        """The table and its permits are what they promise to be."""
        verifyObject(ILimits, self.table)
        verifyObject(IPermit, self.successResultOf(self.table.permit({"a": 1})))

    def test_limit(self) -> None:
        """As many as the limit get a place at once; the others in their order, one for each that
        is given back."""
        asked = [self.ask({"a": 2}) for _ in range(4)]
        self.assertEqual([len(got) for got in asked], [1, 1, 0, 0])
        asked[1][0].release()
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 0])
        asked[1][0].release()
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 0], "given back twice")
        asked[0][0].release()
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 1])
        self.assertEqual(self.table.held("a"), 2)

    def test_several_together(self) -> None:
        """Who needs places under several names gets all or none, and holds none while waiting."""
        first = self.ask({"a": 1})
        both = self.ask({"a": 1, "b": 1})
        self.assertEqual((both, self.table.held("b")), ([], 0))
        other = self.ask({"b": 1})
        first[0].release()
        self.assertEqual((both, self.table.held("a")), ([], 0))
        other[0].release()
        self.assertEqual((len(both), self.table.held("a"), self.table.held("b")), (1, 1, 1))

    def test_cancelled(self) -> None:
        """Who does not want to wait any longer is not in anybody's way."""
        held = self.ask({"a": 1})
        waiting: Deferred[Any] = self.table.permit({"a": 1})
        last = self.ask({"a": 1})
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        held[0].release()
        self.assertEqual(len(last), 1)

    def test_contested(self) -> None:
        """Whoever holds a place is told that another waits, once, and can ask."""
        told: list[str] = []
        held = self.ask({"a": 1}, lambda: told.append("wanted"))
        self.assertFalse(held[0].contested)
        waiting: Deferred[Any] = self.table.permit({"a": 1})
        self.ask({"a": 1})
        self.assertEqual((told, held[0].contested), (["wanted"], True))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        held[0].release()
        self.assertFalse(held[0].contested, "it has given it back")

    def test_given_back_when_told(self) -> None:
        """Who is told may give the place back at once."""
        held: list[Any] = []
        held += self.ask({"a": 1}, lambda: held[0].release())
        self.assertEqual(len(self.ask({"a": 1})), 1)

    def test_changed_limit(self) -> None:
        """A limit that is told anew applies at once: more get a place, or nobody for a while."""
        asked = [self.ask({"a": 1}) for _ in range(3)]
        asked.append(self.ask({"a": 3}))
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 0])
        asked.append(self.ask({"a": 1}))
        asked[0][0].release()
        asked[1][0].release()
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 0, 0])
        asked[2][0].release()
        self.assertEqual([len(got) for got in asked], [1, 1, 1, 1, 0])

    def test_memory(self) -> None:
        """Nothing is remembered of names under which nobody holds anything or waits."""
        for number in range(100):
            held = self.ask({str(number): 1, "all": 5})
            waiting: Deferred[Any] = self.table.permit({str(number): 1, "other": 1})
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            held[0].release()
        self.assertEqual(self.table._places, {})


class RateTests(SynchronousTestCase):
    """So many in a time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.rates = RateTable(self.clock.seconds)

    def burst(self, rate: Rate, events: int = 1) -> int:
        """How often it is admitted at this moment."""
        number = 0
        while self.rates.admit("a", rate, events) == 0:
            number += 1
        return number

    def test_changed_rate(self) -> None:
        """A changed rate counts what was admitted as events of its own."""
        self.assertEqual(self.burst(RATE.parse("2/day")), 2)
        self.assertEqual(self.burst(RATE.parse("10/s")), 8)
        self.clock.advance(0.1)
        self.assertEqual(self.burst(RATE.parse("10/s")), 1)

    def test_burst_and_rate(self) -> None:
        """A burst at once, then evenly; the answer says when to come again."""
        rate = RATE.parse("10/s")
        self.assertEqual(self.burst(rate), 10)
        self.assertAlmostEqual(self.rates.admit("a", rate), 0.1, 4)
        self.clock.advance(0.1)
        self.assertEqual(self.burst(rate), 1)
        self.clock.advance(0.55)
        self.assertEqual(self.burst(rate), 5)

    def test_max_burst(self) -> None:
        """C{max_burst} is what may come at once."""
        self.assertEqual(self.burst(RATE.parse("3600/hour,max_burst=1")), 1)
        self.clock.advance(1)
        self.assertEqual(self.burst(RATE.parse("3600/hour,max_burst=1")), 1)

    def test_long_run(self) -> None:
        """Whoever comes again when it was told gets exactly the rate, and no more."""
        rate, admitted = RATE.parse("7/s,max_burst=3"), 0
        end = self.clock.seconds() + 100
        while self.clock.seconds() < end:
            wait = self.rates.admit("a", rate)
            admitted += not wait
            self.clock.advance(wait)
        self.assertAlmostEqual(admitted, 703, delta=1)

    def test_more_than_a_burst(self) -> None:
        """What is larger than a burst is admitted at rest, and paid for afterwards."""
        rate = RATE.parse("10/s")
        self.assertEqual(self.rates.admit("a", rate, 30), 0)
        self.assertAlmostEqual(self.rates.admit("a", rate), 2.1, 4)

    def test_memory(self) -> None:
        """Rates at which nothing happens any more are forgotten."""
        for number in range(5000):
            self.rates.admit(str(number), RATE.parse("10/s"))
            self.clock.advance(0.01)
        self.assertLess(len(self.rates), 1100)
