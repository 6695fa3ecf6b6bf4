"""From the spool of a worker that there is no more into another one."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.spool import SpoolFullError
from kumotwist.spool.moving import SpoolMove
from kumotwist.testing.spool import MemorySpool


class MoveTests(SynchronousTestCase):
    """What becomes of the messages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.source, self.target = MemorySpool(), MemorySpool()
        self.source.open()
        self.target.open()
        self.taken: list[QueuedMessage] = []
        self.noted: list[Sequence[str]] = []
        self.no_room_for_notes = False

    async def note(self, ids: Sequence[str]) -> None:
        """Keep what is on its way."""
        if self.no_room_for_notes:
            raise OSError(28, "No space left on device")
        self.noted.append(ids)

    def keep(self, body: bytes, *recipients: str) -> list[QueuedMessage]:
        """Put messages that share a body into the spool that is to be emptied."""
        messages = [
            QueuedMessage(
                id=new_id(1.0), sender="a@a.example", recipient=one, queue="b.example",
                size=len(body), created=1.0, due=2.0, attempts=3, meta={"x": 1},
            )
            for one in recipients
        ]  # fmt: skip
        self.source.store(body, messages)
        return messages

    def move(self) -> tuple[SpoolMove, Deferred[int]]:
        """Begin to move what a node that was killed has left."""
        self.source = self.source.after_crash()
        move = SpoolMove(self.clock, self.source, self.target, self.note, self.taken.extend)
        return move, Deferred.fromCoroutine(move.run())

    def left(self) -> list[QueuedMessage]:
        """What the emptied spool still has."""
        again, found = self.source.after_crash(), list[QueuedMessage]()
        again.open()
        again.enumerate(found.extend)
        return found

    def test_moved(self) -> None:
        """Everything arrives as it was, bodies included, and is gone where it was."""
        for number in range(450):
            self.keep(b"body %d" % number, f"{number}@b.example", f"{number}@c.example")
        move, done = self.move()
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual((move.moved, len(self.taken), self.left()), (900, 900, []))
        for message in self.taken:
            name = message.recipient.partition("@")[0].encode()
            body = self.successResultOf(self.target.load(message))
            self.assertEqual(body, b"body " + name)
            self.assertEqual((message.attempts, message.due, message.meta["x"]), (3, 2.0, 1))

    def test_noted(self) -> None:
        """What is on its way is noted before it is copied, and nothing is in the end."""
        messages = [self.keep(b"x%d" % number, "a@b.example")[0] for number in range(250)]
        self.target.break_down(SpoolFullError("disk full"))
        self.move()
        [first] = self.noted
        self.assertEqual((len(first), len(set(first))), (200, 200))
        self.target.repair()
        self.clock.advance(10)
        _, second, last = self.noted
        self.assertEqual({*first, *second}, {message.id for message in messages})
        self.assertEqual(list(last), [])

    def test_no_room_for_notes(self) -> None:
        """What cannot be noted is not moved; it waits where it is."""
        self.keep(b"x", "a@b.example")
        self.no_room_for_notes = True
        move, done = self.move()
        self.assertNoResult(done)
        self.assertEqual((self.taken, self.target.messages), ([], {}))
        move.stop()
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(len(self.left()), 1)

    def test_taken_when_gone(self) -> None:
        """Nothing is handed to the queues while it can still be found where it was."""
        self.keep(b"x", "a@b.example")
        self.source = self.source.after_crash()
        found: list[int] = []
        move = SpoolMove(
            self.clock, self.source, self.target, self.note,
            lambda copies: found.append(len(self.left()) + len(self.source.messages)),
        )  # fmt: skip
        self.successResultOf(Deferred.fromCoroutine(move.run()))
        self.assertEqual(found, [0])

    def test_no_room(self) -> None:
        """What the other spool has no room for waits where it is."""
        self.keep(b"x", "a@b.example")
        self.target.break_down(SpoolFullError("disk full"))
        _, done = self.move()
        self.assertNoResult(done)
        self.assertEqual((self.taken, len(self.left())), ([], 1))
        self.target.repair()
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(done), 0)
        self.assertEqual((len(self.taken), self.left()), (1, []))

    def test_stopped(self) -> None:
        """A node that stops leaves what has not been moved."""
        self.keep(b"x", "a@b.example")
        self.target.break_down(SpoolFullError("disk full"))
        move, done = self.move()
        move.stop()
        self.clock.advance(10)
        self.assertEqual(self.successResultOf(done), 1)
        self.assertEqual(len(self.left()), 1)
