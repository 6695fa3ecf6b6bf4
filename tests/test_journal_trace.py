"""The live trace."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ITrace
from kumotwist.journal import TooManyWatchersError, Trace, TraceEvent
from kumotwist.journal.trace import MAX_WATCHERS


class TraceTests(SynchronousTestCase):
    """Events reach whoever watches, and nobody else."""

    def setUp(self) -> None:
        """Begin with nobody watching."""
        self.clock = Clock()
        self.trace = Trace(self.clock)
        self.seen: list[TraceEvent] = []

    def test_interface(self) -> None:
        """It is a trace."""
        verifyObject(ITrace, self.trace)

    def test_events(self) -> None:
        """A watcher gets each event with its time and facts."""
        self.trace.subscribe(self.seen.append)
        self.clock.advance(5)
        self.trace.emit("queued", ["a", "b"], queue="example.org")
        self.assertEqual(
            self.seen, [TraceEvent(5.0, "queued", ("a", "b"), {"queue": "example.org"})]
        )

    def test_watched(self) -> None:
        """C{watched} is true from the first subscription to the end of the last."""
        self.assertFalse(self.trace.watched)
        ends = [self.trace.subscribe(self.seen.append) for _ in range(2)]
        self.assertTrue(self.trace.watched)
        ends[0]()
        ends[0]()
        self.assertTrue(self.trace.watched)
        self.trace.emit("queued", ["a"])
        self.assertEqual(len(self.seen), 1)
        ends[1]()
        self.assertFalse(self.trace.watched)
        self.trace.emit("queued", ["a"])
        self.assertEqual(len(self.seen), 1)

    def test_failing_watcher(self) -> None:
        """A watcher that raises is logged and dropped; the others go on."""
        self.trace.subscribe(lambda event: 1 / 0)
        self.trace.subscribe(self.seen.append)
        self.trace.emit("queued", ["a"])
        self.trace.emit("queued", ["b"])
        self.assertEqual(len(self.seen), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_unsubscribe_while_told(self) -> None:
        """A watcher may end its own watch when it has seen enough."""
        end = self.trace.subscribe(lambda event: end())
        self.trace.subscribe(self.seen.append)
        self.trace.emit("queued", ["a"])
        self.trace.emit("queued", ["b"])
        self.assertEqual(len(self.seen), 2)

    def test_bounded(self) -> None:
        """Only so many can watch."""
        for _ in range(MAX_WATCHERS):
            self.trace.subscribe(self.seen.append)
        self.assertRaises(TooManyWatchersError, self.trace.subscribe, self.seen.append)
