"""Messages that wait for long: they take little memory, and nobody can tell from anything else."""

from __future__ import annotations

import tracemalloc

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.tls_wishes import REQUIRED, tls_wish
from kumotwist.queue.waiting import SLEEPING_BEHIND, SLEEPING_TIME, ScheduledQueue, Waiting
from kumotwist.spool.records import message_of, row_of
from kumotwist.tls.policy import TLSWish
from tests.spool_support import make_message


def facts_of(message: QueuedMessage) -> tuple[object, ...]:
    """All that a message says of itself."""
    return attrs.astuple(attrs.evolve(message), recurse=False)


def as_read(message: QueuedMessage) -> QueuedMessage:
    """The message as it comes from the database."""
    row = row_of(message, message.body_key)
    return message_of(tuple(each.encode() if isinstance(each, str) else each for each in row))


class SleepingTests(SynchronousTestCase):
    """Falling asleep and waking up."""

    def test_nothing_is_lost(self) -> None:
        """A message that slept is what it was, whatever is in it."""
        for facts in (
            {},
            {"sender": "", "meta": {}},
            {"sender": "a\0b@é.example", "recipient": "\0c\\0", "meta": {"a\0": "\0é😀"}},
            {"meta": {"list": ["a"], "number": 1.5, "none": None, "nested": {"x": True}}},
            {"attempts": 2**62, "size": 2**62, "created": 1e300},
        ):
            message = make_message(**facts)
            message.body_key = 7
            before = facts_of(message)
            message.sleep()
            self.assertIsNotNone(message.asleep)
            message.sleep()
            self.assertEqual(facts_of(message), before)
            self.assertIsNone(message.asleep)
            read = as_read(message)
            self.assertIsNotNone(read.asleep)
            self.assertEqual(facts_of(read), before)

    def test_any_look_wakes(self) -> None:
        """Each fact can be the first that is asked for."""
        for field in attrs.fields(QueuedMessage):
            message = make_message()
            value = getattr(message, field.name)
            message.sleep()
            if field.name != "asleep":
                self.assertEqual(getattr(message, field.name), value, field.name)
        with self.assertRaises(AttributeError):
            getattr(make_message(), "colour")  # noqa: B009

    def test_new_values_stay(self) -> None:
        """What is set while it sleeps is not overwritten when it wakes up."""
        message = make_message()
        message.sleep()
        message.meta = {"new": "one"}
        message.attempts = 5
        message.due = 1.0
        self.assertEqual(message.sender, "sender@example.com")
        self.assertEqual((message.meta, message.attempts, message.due), ({"new": "one"}, 5, 1.0))

    def test_cannot_be_packed(self) -> None:
        """What cannot be packed stays as it is."""
        for facts in (
            {"meta": {"thing": object()}},
            {"meta": None},
            {"attempts": 2**70},
            {"sender": "\udcff"},
        ):
            message = make_message(**facts)
            message.sleep()
            self.assertIsNone(message.asleep)

    def test_wish(self) -> None:
        """What the sender wants of TLS is known of one that sleeps, which does not wake it."""
        plain, strict = make_message(), make_message(meta={REQUIRED: True})
        for message in (plain, strict):
            message.sleep()
        self.assertEqual((tls_wish(plain), tls_wish(strict)), (TLSWish.NOTHING, TLSWish.REQUIRED))
        self.assertIsNotNone(plain.asleep)


class WaitingTests(SynchronousTestCase):
    """Who sleeps in a scheduled queue."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.waiting = Waiting(self.clock, self.serve)

    def serve(self, queue: ScheduledQueue) -> None:
        """Nobody is served."""

    def test_who_sleeps(self) -> None:
        """Those that wait for long or behind many sleep; those that are due soon do not."""
        later = make_message(due=SLEEPING_TIME)
        self.waiting.push(later)
        soon = [make_message(due=1.0) for _ in range(SLEEPING_BEHIND)]
        for message in soon:
            self.waiting.push(message)
        ahead = make_message(due=0.5)
        self.waiting.push(ahead, ahead=True)
        asleep = [message.asleep is not None for message in (later, *soon, ahead)]
        self.assertEqual(asleep, [True] + [False] * (SLEEPING_BEHIND - 1) + [True, False])

    def test_memory(self) -> None:
        """A message that waits costs 1 KiB of memory at most: less than 700 octets."""
        number = 5000
        rows = [self.row(index) for index in range(number)]
        tracemalloc.start()
        try:
            for row in rows:
                self.waiting.push(message_of(row))
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(len(self.waiting), number)
        self.assertLess(kept / number, 700)

    def row(self, index: int) -> tuple[object, ...]:
        """A message as the database has it, with what a listener notes of it."""
        domain = f"domain-{index % 100}.example.net"
        message = QueuedMessage(
            new_id(),
            f"bounce-{index}@lists.example.org",
            f"user-{index}@{domain}",
            domain,
            2000 + index,
            1e9 + index,
            2e9 + index,
            1,
            {
                "reception_protocol": "ESMTP",
                "received_from": f"192.0.2.{index % 250}:{index}",
                "session_id": new_id(),
                "body": "8BITMIME",
            },
        )
        row = row_of(message, 2 + 2 * index)
        return tuple(each.encode() if isinstance(each, str) else each for each in row)
