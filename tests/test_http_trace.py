"""The live trace over HTTP: a line for each event, for those who keep up."""

from __future__ import annotations

from kumotwist.journal.trace import MAX_WATCHERS
from tests.http_client import Connection
from tests.test_http_site import SiteCase

TRACE = "/api/trace/v1"
WATCHING = {"event": "watching"}


class TraceTests(SiteCase):
    """C{/api/trace/v1}."""

    def watch(self) -> Connection:
        """A client that watches."""
        return self.ask(TRACE)

    def test_watching(self) -> None:
        """The first line says that watching has begun; it comes at once."""
        watcher = self.watch()
        self.assertEqual((watcher.status, watcher.events()), (200, [WATCHING]))
        self.assertIn("content-type: application/x-ndjson", watcher.header)
        self.assertTrue(self.trace.watched)

    def test_events(self) -> None:
        """Whatever happens then is a line of its own, with its time and its messages."""
        watcher = self.watch()
        self.clock.advance(5)
        self.trace.emit("queued", ["1", "2"], site="mx.example")
        self.assertEqual(
            watcher.events()[1:],
            [{"event": "queued", "time": 5.0, "ids": ["1", "2"], "site": "mx.example"}],
        )

    def test_silence(self) -> None:
        """A node in which nothing happens keeps its watchers."""
        watcher = self.watch()
        self.clock.advance(86400)
        self.assertFalse(watcher.transport.disconnecting)
        self.trace.emit("queued", [])
        self.assertEqual(len(watcher.events()), 2)

    def test_hostile_characters(self) -> None:
        """Whatever peers say stays inside its line, and cannot pose as another event."""
        watcher = self.watch()
        hostile = '\r\n{"event": "delivery"}\x00\x1b[2J\u2028\ud800"\\'
        self.trace.emit("failed", ["1"], reply=hostile)
        self.assertEqual(watcher.body.count(b"\n"), 2)
        self.assertTrue(watcher.body.isascii())
        self.assertEqual(watcher.events()[1]["reply"], hostile)

    def test_facts_cannot_pose(self) -> None:
        """The event, its time and its messages are the trace's own."""
        watcher = self.watch()
        self.trace.emit("queued", ["1"], time="never", ids="none")
        event = watcher.events()[1]
        self.assertEqual((event["time"], event["ids"]), (0.0, ["1"]))

    def test_strange_facts(self) -> None:
        """A fact that JSON does not know is shown as text and ends nothing."""
        watcher = self.watch()
        self.trace.emit("queued", ["1"], site={1, 2}.__class__)
        self.trace.emit("queued", ["2"])
        self.assertEqual([event["ids"] for event in watcher.events()[1:]], [["1"], ["2"]])

    def test_gone(self) -> None:
        """A watcher that goes away is forgotten, also one that did not keep up."""
        for paused in (False, True):
            watcher = self.watch()
            if paused:
                producer = watcher.transport.producer
                assert producer is not None
                producer.pauseProducing()
            watcher.leave()
            self.assertFalse(self.trace.watched)
            self.trace.emit("queued", [])

    def test_several(self) -> None:
        """Everybody sees the same."""
        watchers = [self.watch() for _ in range(3)]
        self.trace.emit("queued", ["1"])
        watchers[0].leave()
        self.trace.emit("queued", ["2"])
        self.assertEqual([len(each.events()) for each in watchers], [2, 3, 3])

    def test_too_many(self) -> None:
        """When too many watch, the next one is told so."""
        watchers = [self.watch() for _ in range(MAX_WATCHERS)]
        refused = self.watch()
        self.assertEqual(refused.status, 503)
        self.assertIn("error", refused.events()[0])
        watchers[0].leave()
        self.assertEqual(self.watch().status, 200)

    def test_head(self) -> None:
        """HEAD does not watch."""
        answer = self.ask(TRACE, method="HEAD")
        self.assertEqual(answer.status, 200)
        self.assertFalse(self.trace.watched)
        answer.ask("/api/check-liveness/v1")
        self.assertEqual(answer.said.count(b"HTTP/1.1 200"), 2)


class BackPressureTests(SiteCase):
    """A watcher that reads too slowly."""

    def test_missed(self) -> None:
        """It is sent nothing meanwhile, and told how much it missed."""
        watcher = self.ask(TRACE)
        producer = watcher.transport.producer
        assert producer is not None
        producer.pauseProducing()
        before = len(watcher.said)
        for number in range(1000):
            self.trace.emit("queued", [str(number)])
        self.assertEqual(len(watcher.said), before)
        producer.resumeProducing()
        self.trace.emit("queued", ["last"])
        missed, last = watcher.events()[1:]
        self.assertEqual(missed, {"event": "missed", "count": 1000})
        self.assertEqual(last["ids"], ["last"])

    def test_nothing_missed(self) -> None:
        """A pause in which nothing happens is not worth a word."""
        watcher = self.ask(TRACE)
        producer = watcher.transport.producer
        assert producer is not None
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertEqual(watcher.events(), [WATCHING])
