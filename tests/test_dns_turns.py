"""Whose look-up is next, where more are wanted than may be under way."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns.turns import Ticket, Turns


class TurnsTests(SynchronousTestCase):
    """Four places, and work that ends when the test says so."""

    def setUp(self) -> None:
        """Nothing is under way."""
        self.turns = Turns(4)
        self.begun: dict[str, Deferred[Any]] = {}

    def take(self, name: str, whose: str, *, late: bool = False) -> Ticket:
        """Want something done."""

        def work() -> Deferred[Any]:
            self.begun[name] = Deferred()
            return self.begun[name]

        return self.turns.take(work, whose, late=late)

    def end(self, name: str) -> None:
        """Something that was begun ends."""
        self.begun[name].callback(name)

    def test_half_for_each(self) -> None:
        """Nobody has more than half of the places, however much is wanted."""
        for name in ("a1", "a2", "a3", "b1", "c1", "d1"):
            self.take(name, name[0])
        self.assertEqual(list(self.begun), ["a1", "a2", "b1", "c1"])

    def test_turns(self) -> None:
        """Who wants much has one turn out of so many as there are others; each has an order."""
        for name in ("a1", "a2", "b1", "b2"):
            self.take(name, name[0])
        waiting = ("a3", "a4", "a5", "c1", "c2", "d1")
        for name in waiting:
            self.take(name, name[0])
        for name in ("a1", "a2", "b1", "b2", "a3", "c1"):
            self.end(name)
        self.assertEqual(list(self.begun)[4:], ["a3", "c1", "d1", "a4", "c2", "a5"])

    def test_late(self) -> None:
        """What failed lately comes last, and never has more than half of the places."""
        for name in ("a1", "b1", "c1", "d1"):
            self.take(name, name[0], late=True)
        self.assertEqual(list(self.begun), ["a1", "b1"])
        for name in ("e1", "f1", "g1"):
            self.take(name, name[0])
        self.assertEqual(list(self.begun)[2:], ["e1", "f1"])
        self.end("a1")
        self.assertEqual(list(self.begun)[4:], ["g1"])
        self.end("b1")
        self.assertEqual(list(self.begun)[5:], ["c1"])

    def test_joined(self) -> None:
        """What two want begins once, when the first of them has a turn."""
        for name in ("a1", "a2"):
            self.take(name, "a")
        shared = self.take("a3", "a")
        self.assertNotIn("a3", self.begun)
        self.turns.join(shared, "b")
        self.assertIn("a3", self.begun)
        self.turns.join(shared, "c")
        self.take("b1", "b")
        for name in ("a1", "a2", "a3", "b1"):
            self.end(name)
        self.assertEqual(self.successResultOf(shared.result), "a3")
        self.assertEqual(list(self.begun), ["a1", "a2", "a3", "b1"])

    def test_cancelled(self) -> None:
        """What is cancelled leaves its line, or ends and makes room."""
        first, _, third, _ = (self.take(name, "a") for name in ("a1", "a2", "a3", "a4"))
        third.result.cancel()
        self.failureResultOf(third.result, CancelledError)
        first.result.cancel()
        self.failureResultOf(first.result, CancelledError)
        self.assertEqual(list(self.begun), ["a1", "a2", "a4"])

    def test_many_that_end_at_once(self) -> None:
        """A long line whose work fails or succeeds at once is a loop, not a recursion."""
        self.take("a1", "a")
        self.take("a2", "a")
        waiting = [self.turns.take(partial(succeed, n), "a", late=False) for n in range(5000)]
        self.end("a1")
        self.assertEqual([self.successResultOf(one.result) for one in waiting], list(range(5000)))
