"""Scheduled queues: what waits in them, when they are served, and what they cost."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.waiting import ScheduledQueue, State, Waiting
from kumotwist.tls.policy import TLSWish

NOW = 1_800_000_000.0


def message(queue: str, due: float, **facts: object) -> QueuedMessage:
    """A message that waits."""
    return QueuedMessage(new_id(NOW), "", f"x@{queue}", queue, 1, NOW, due, **facts)  # type: ignore[arg-type]


class WaitingTests(SynchronousTestCase):
    """Queues on a clock that the test moves."""

    def setUp(self) -> None:
        """Begin with none."""
        self.clock = Clock()
        self.clock.rightNow = NOW
        self.served: list[tuple[float, str]] = []
        self.waiting = Waiting(self.clock, self.serve)

    def serve(self, queue: ScheduledQueue) -> None:
        """Take out what is due."""
        now = self.clock.seconds()
        while batch := self.waiting.pop(queue, now, 100):
            self.served += [(now - NOW, each.queue) for each in batch]
        self.waiting.settle(queue)

    def test_each_in_its_time(self) -> None:
        """A message is served when it is due: neither before, nor by a look every now and then."""
        dice = random.Random(7)
        dues = [dice.randrange(1, 3000) for _ in range(500)]
        for due in dues:
            self.waiting.push(message(f"d{due % 7}.example", NOW + due))
        for _ in range(3000):
            self.clock.advance(1.0)
        self.assertEqual([when for when, _ in self.served], [float(due) for due in sorted(dues)])

    def test_an_empty_queue_disappears(self) -> None:
        """What is served leaves nothing behind: no queue, no message, no timer."""
        for number in range(1000):
            self.waiting.push(message(f"d{number}.example", NOW + 5))
        self.assertEqual((len(self.waiting), self.waiting.queues), (1000, 1000))
        self.clock.pump([5.0] + [0.0] * 30)
        self.assertEqual((len(self.waiting), self.waiting.queues), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """Whatever the number of queues, there is one timer, set to the first moment."""
        for number in range(1000, 0, -1):
            self.waiting.push(message(f"d{number}.example", NOW + 1 + number / 100))
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), NOW + 1.01)

    def test_idle_queues_are_not_looked_at(self) -> None:
        """While nothing is due, no queue is touched."""
        for number in range(1000):
            self.waiting.push(message(f"d{number}.example", NOW + 7200))
        touched = 0

        def touch(queue: ScheduledQueue) -> None:
            nonlocal touched
            touched += 1

        self.patch(self.waiting, "_serve", touch)
        for _ in range(100):
            self.clock.advance(60.0)
        self.assertEqual(touched, 0)

    def test_alarms_do_not_pile_up(self) -> None:
        """A queue whose first moment changes again and again leaves no trail of alarms."""
        for number in range(20_000):
            self.waiting.push(message("d.example", NOW + 100_000 - number))
        self.assertLess(len(self.waiting._alarms), 2000)

    def test_blocked_queues_keep_still(self) -> None:
        """A queue that waits for something else is not served because a message is due."""
        queue = self.waiting.of("d.example", TLSWish.NOTHING)
        queue.state = State.THROTTLED
        self.waiting.push(message("d.example", NOW + 1))
        self.clock.advance(100.0)
        self.assertEqual(self.served, [])
        queue.state = State.DUE
        self.waiting.settle(queue)
        self.clock.advance(0.0)
        self.assertEqual(len(self.served), 1)

    def test_together(self) -> None:
        """Messages that share a body leave together; those that must not, do not."""
        for due, body, meta in (
            (1.0, 3, {}),
            (1.0, 3, {}),
            (1.0, 3, {"last_source": "a", "last_refusal": "blocked"}),
            (1.0, 3, {}),
            (1.0, 0, {}),
            (1.0, 0, {}),
            (9.0, 0, {}),
        ):
            self.waiting.push(message("d.example", NOW + due, body_key=body, meta=meta))
        queue = self.waiting.of("d.example", TLSWish.NOTHING)
        sizes = []
        while batch := self.waiting.pop(queue, NOW + 5, 100):
            sizes.append(len(batch))
        self.assertEqual(sizes, [2, 1, 1, 1, 1])
        self.assertEqual((len(queue), len(self.waiting)), (1, 1))

    def test_wishes_apart(self) -> None:
        """Messages that want something of TLS have a queue of their own under the same name."""
        self.waiting.push(message("d.example", NOW + 1, meta={"tls_not_required": True}))
        self.waiting.push(message("d.example", NOW + 1))
        self.assertEqual(self.waiting.queues, 2)
        self.assertEqual({queue.name for queue in self.waiting}, {"d.example"})

    def test_extract(self) -> None:
        """Messages can be taken out of the middle; the rest keeps its order."""
        for due in (5, 3, 9, 1, 7):
            self.waiting.push(message("d.example", NOW + due))
        queue = self.waiting.of("d.example", TLSWish.NOTHING)
        taken = self.waiting.extract(queue, lambda each: each.due in {NOW + 1, NOW + 7})
        self.assertEqual((len(taken), len(self.waiting)), (2, 3))
        for _ in range(10):
            self.clock.advance(1.0)
        self.assertEqual([when for when, _ in self.served], [3.0, 5.0, 9.0])
