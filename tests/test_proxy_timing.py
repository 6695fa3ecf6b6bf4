"""Shared time limits, and when the lines of sessions are written."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kumotwist.proxy.deadlines import Deadlines
from kumotwist.proxy.sessionlog import SessionFacts, SessionLog


class DeadlinesTests(SynchronousTestCase):
    """One timer for many."""

    def setUp(self) -> None:
        """Ten seconds for everybody."""
        self.clock: Any = Clock()
        self.deadlines = Deadlines(self.clock, 10)
        self.late: list[str] = []

    def begin(self, name: str) -> None:
        """Start someone's time."""
        self.deadlines.start(name, lambda: self.late.append(name))

    def test_in_turn(self) -> None:
        """Each is called when its own time is over, with one timer at any moment."""
        for name in "abc":
            self.begin(name)
            self.clock.advance(1)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for late in (["a"], ["a", "b"], ["a", "b", "c"]):
            self.clock.advance(7 if late == ["a"] else 1)
            self.assertEqual(self.late, late)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_in_time(self) -> None:
        """Who stops is not called; when nobody waits there is no timer."""
        self.begin("a")
        self.clock.advance(5)
        self.begin("b")
        self.deadlines.stop("a")
        self.clock.advance(9)
        self.deadlines.stop("b")
        self.deadlines.stop("b")
        self.assertEqual((self.late, self.clock.getDelayedCalls()), ([], []))

    def test_again(self) -> None:
        """Who starts again has all of its time again, behind those who started meanwhile."""
        self.begin("a")
        self.clock.advance(5)
        self.begin("b")
        self.begin("a")
        self.clock.advance(9)
        self.assertEqual(self.late, [])
        self.clock.advance(1)
        self.assertEqual(self.late, ["b", "a"])

    def test_since(self) -> None:
        """Who goes on from another time that was over has what is left, however late that is."""
        other = Deadlines(self.clock, 3)

        def go_on() -> None:
            self.deadlines.start("a", lambda: self.late.append("a"), other.due)

        other.start("a", go_on)
        self.clock.advance(7)
        self.clock.advance(5.9)
        self.assertEqual(self.late, [])
        self.clock.advance(0.1)
        self.assertEqual(self.late, ["a"])
        other.start("a", go_on)
        self.clock.advance(13)
        self.assertEqual(self.late, ["a", "a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_started_by_a_call(self) -> None:
        """A call may start another time, or stop one that is due as well."""

        def call() -> None:
            self.deadlines.stop("b")
            self.begin("c")

        self.deadlines.start("a", call)
        self.begin("b")
        self.clock.advance(10)
        self.assertEqual(self.late, [])
        self.clock.advance(10)
        self.assertEqual(self.late, ["c"])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SessionLogTests(TestCase):
    """Lines, gathered."""

    def setUp(self) -> None:
        """Watch the log."""
        self.clock: Any = Clock()
        self.log = SessionLog(self.clock)
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)

    def session(self, number: int) -> SessionFacts:
        """What is known of one."""
        return {
            "proxy": "[proxy:main]",
            "client": f"198.51.100.7:{number}",
            "user": "-",
            "source": "127.0.0.2",
            "destination": "192.0.2.25:25",
            "to_destination": 1,
            "to_client": 2,
            "seconds": 0.25,
            "outcome": "closed by the client",
        }

    def test_alone(self) -> None:
        """A session that ends after a quiet moment is logged at once."""
        for number in (1, 2):
            self.log.ended(self.session(number))
            self.clock.advance(0.1)
        self.assertEqual([len(event["sessions"]) for event in self.observer], [1, 1])
        self.assertEqual(
            formatEvent(next(iter(self.observer))),
            "[proxy:main] 198.51.100.7:1 user='-' source=127.0.0.2 destination=192.0.2.25:25 "
            "out=1 back=2 seconds=0.250: closed by the client",
        )

    def test_gathered(self) -> None:
        """Those that end soon after another share an event, in order, a line each."""
        for number in range(1, 6):
            self.log.ended(self.session(number))
        self.assertEqual(len(list(self.observer)), 1)
        self.clock.advance(0.1)
        [_, event] = self.observer
        lines = formatEvent(event).splitlines()
        self.assertEqual([line.split()[1][-1] for line in lines], ["2", "3", "4", "5"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """No more are kept waiting than a thousand."""
        for number in range(1001):
            self.log.ended(self.session(number))
        self.assertEqual([len(event["sessions"]) for event in self.observer], [1, 1000])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_flush(self) -> None:
        """At the end nothing is lost."""
        for number in (1, 2):
            self.log.ended(self.session(number))
        self.log.flush()
        self.log.flush()
        self.assertEqual(len(list(self.observer)), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
