"""What every spool does, the real one and the fake."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import ISpool
from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import (
    DamagedBodyError,
    SpoolClosedError,
    SpoolError,
    SQLiteSpool,
    UnstorableMessageError,
)
from kumotwist.testing.spool import MemorySpool
from tests.spool_support import LARGE, SMALL, copy_as_after_crash, make_message, make_spool

if TYPE_CHECKING:
    Base = SynchronousTestCase
else:
    Base = object


def facts_of(message: QueuedMessage) -> tuple[object, ...]:
    """All that must survive."""
    return attrs.astuple(attrs.evolve(message, body=None), recurse=False)


class SpoolTestsMixin(Base):
    """The contract of L{ISpool}."""

    spool: MemorySpool | SQLiteSpool

    def settle(self) -> None:
        """Let commits happen."""

    def restart(self) -> None:
        """Kill the process and start another."""
        raise NotImplementedError

    def done(self, deferred: Deferred[Any]) -> Any:
        """Let it happen, and give the result."""
        self.settle()
        return self.successResultOf(deferred)

    def store(self, *messages: QueuedMessage, body: bytes = SMALL) -> None:
        """Store and commit."""
        self.done(self.spool.store(body, messages))

    def enumerated(self) -> list[QueuedMessage]:
        """All that is handed over, in order."""
        found: list[QueuedMessage] = []
        count = self.done(self.spool.enumerate(found.extend))
        self.assertEqual(count, len(found))
        return found

    def test_interface(self) -> None:
        """It provides C{ISpool}."""
        self.assertTrue(verifyObject(ISpool, self.spool))

    def test_survives(self) -> None:
        """A stored message is there after a crash, with all that was known of it and its body."""
        for body in (SMALL, LARGE, b""):
            message = make_message(body=body)
            self.store(message, body=body)
            self.assertNotEqual(message.body_key, 0)
            self.restart()
            (found,) = self.enumerated()
            self.assertEqual(facts_of(found), facts_of(message))
            self.assertEqual(self.done(self.spool.load(found)), body)
            self.done(self.spool.remove([found]))

    def test_update_survives(self) -> None:
        """Attempts, due time, queue and meta are recorded as they were when that was asked."""
        message = make_message()
        self.store(message)
        message.attempts, message.due, message.queue = 3, 1800000000.125, "other@example.org"
        message.meta = {"reply": "450 4.2.1 later"}
        updated = self.spool.update(message)
        expected = facts_of(message)
        message.attempts = 99
        self.done(updated)
        self.restart()
        (found,) = self.enumerated()
        self.assertEqual(facts_of(found), expected)

    def test_shared_body(self) -> None:
        """A body stays as long as one of those who share it."""
        for body in (SMALL, LARGE):
            one, two, three = (make_message(number, body) for number in range(3))
            self.store(one, two, three, body=body)
            self.assertEqual(len({each.body_key for each in (one, two, three)}), 1)
            self.done(self.spool.remove([one, three]))
            self.restart()
            (found,) = self.enumerated()
            self.assertEqual(found.id, two.id)
            self.assertEqual(self.done(self.spool.load(found)), body)
            self.done(self.spool.remove([found]))
            load = self.spool.load(found)
            self.settle()
            self.failureResultOf(load, DamagedBodyError)

    def test_removed_stays_removed(self) -> None:
        """A removed message does not come back after a crash."""
        message = make_message()
        self.store(message)
        self.done(self.spool.remove([message]))
        self.restart()
        self.assertEqual(self.enumerated(), [])

    def test_forgotten(self) -> None:
        """A message that is forgotten without waiting does not come back after a crash either."""
        gone, kept = make_message(1), make_message(2)
        self.store(gone, kept)
        self.spool.forget(gone)
        self.spool.update(gone)
        self.settle()
        self.restart()
        self.assertEqual([found.id for found in self.enumerated()], [kept.id])

    def test_forgotten_too_late(self) -> None:
        """A closed spool forgets nothing, and says so to nobody but the log."""
        message = make_message()
        self.store(message)
        self.done(self.spool.close())
        self.spool.forget(message)
        self.restart()
        self.assertEqual([found.id for found in self.enumerated()], [message.id])

    def test_replaced(self) -> None:
        """A message goes with the commit that keeps what takes its place, and so does its body."""
        for body in (SMALL, LARGE):
            old, new = make_message(1, body), make_message(2)
            self.store(old, body=body)
            self.spool.update(old)
            self.done(self.spool.store(SMALL, [new], [old]))
            self.done(self.spool.update(old))
            self.restart()
            (found,) = self.enumerated()
            self.assertEqual(found.id, new.id)
            load = self.spool.load(old)
            self.settle()
            self.failureResultOf(load, DamagedBodyError)
            self.done(self.spool.remove([found]))

    def test_nothing_takes_its_place(self) -> None:
        """What cannot be kept replaces nothing."""
        old, new = make_message(1), make_message(2)
        self.store(old)
        new.meta["unstorable"] = object()
        self.failureResultOf(self.spool.store(SMALL, [new], [old]), UnstorableMessageError)
        self.restart()
        self.assertEqual([each.id for each in self.enumerated()], [old.id])

    def test_update_after_remove(self) -> None:
        """Updating a removed message does not bring it back."""
        message = make_message()
        self.store(message)
        removed, updated = self.spool.remove([message]), self.spool.update(message)
        self.done(removed)
        self.done(updated)
        self.done(self.spool.update(message))
        self.restart()
        self.assertEqual(self.enumerated(), [])

    def test_due_first(self) -> None:
        """The enumeration hands over in the order of due times, in batches."""
        messages = [make_message(number, due=1e9 + (number * 733) % 1201) for number in range(1201)]
        self.store(*messages)
        self.restart()
        batches: list[list[QueuedMessage]] = []
        self.assertEqual(self.done(self.spool.enumerate(batches.append)), 1201)
        self.assertLessEqual(max(map(len, batches)), 1000)
        dues = [each.due for batch in batches for each in batch]
        self.assertEqual(dues, sorted(message.due for message in messages))

    def test_enumerates_only_old(self) -> None:
        """What is stored after opening is not handed over: its owner has it already."""
        self.store(old := make_message(1))
        self.restart()
        self.store(make_message(2))
        self.assertEqual([each.id for each in self.enumerated()], [old.id])

    def test_enumerates_changed_ones_once(self) -> None:
        """Messages that are removed or put off meanwhile are not handed over again."""
        messages = [make_message(number) for number in range(1500)]
        self.store(*messages)
        self.restart()
        found: list[QueuedMessage] = []

        def visit(batch: list[QueuedMessage]) -> None:
            found.extend(batch)
            if len(found) == len(batch):
                for message in batch[:10]:
                    message.due += 1e6
                    self.spool.update(message)
                self.spool.remove(batch[10:20])
                self.settle()

        self.assertEqual(self.done(self.spool.enumerate(visit)), 1500)
        self.assertEqual([each.id for each in found], [each.id for each in messages])

    def test_nothing_asked(self) -> None:
        """Storing for nobody and removing nobody succeed and leave nothing."""
        self.done(self.spool.store(SMALL, []))
        self.done(self.spool.remove([]))
        self.restart()
        self.assertEqual(self.enumerated(), [])

    def test_unstorable(self) -> None:
        """A message with impossible values is refused alone, before it can do harm."""
        cases: list[Callable[[QueuedMessage], None]] = [
            lambda message: setattr(message, "due", float("nan")),
            lambda message: setattr(message, "attempts", 2**70),
            lambda message: setattr(message, "recipient", "\udcff@example.net"),
            lambda message: setattr(message, "meta", {"thing": object()}),
            lambda message: setattr(message, "id", "no id"),
        ]
        for spoil in cases:
            message = make_message()
            spoil(message)
            self.failureResultOf(self.spool.store(SMALL, [message]), UnstorableMessageError)
            self.failureResultOf(self.spool.update(message), UnstorableMessageError)
        self.restart()
        self.assertEqual(self.enumerated(), [])

    def test_hostile_text(self) -> None:
        """Quotes, NULs and line ends in addresses are only text."""
        message = make_message(
            sender="'; DROP TABLE message; --", recipient='"a\0\r\n\\"@é.example'
        )
        self.store(message)
        self.restart()
        (found,) = self.enumerated()
        self.assertEqual(facts_of(found), facts_of(message))

    def test_closed(self) -> None:
        """Before it is opened and after it is closed everything fails, and nothing hangs."""
        message = make_message()
        self.store(message)
        self.done(self.spool.close())
        asked: list[Deferred[Any]] = [
            self.spool.store(SMALL, [make_message()]),
            self.spool.update(message),
            self.spool.remove([message]),
            self.spool.load(message),
            self.spool.enumerate(lambda batch: None),
        ]
        for each in asked:
            self.failureResultOf(each, SpoolClosedError)
        self.done(self.spool.close())

    def test_open_twice(self) -> None:
        """Opening an open spool fails."""
        self.failureResultOf(self.spool.open(), SpoolError)


class MemorySpoolTests(SpoolTestsMixin, SynchronousTestCase):
    """The fake keeps the contract."""

    def setUp(self) -> None:
        self.spool = MemorySpool()
        self.successResultOf(self.spool.open())

    def restart(self) -> None:
        """Go on with what a crash leaves."""
        assert isinstance(self.spool, MemorySpool)
        self.spool = self.spool.after_crash()
        self.successResultOf(self.spool.open())

    def test_break_down(self) -> None:
        """While it is broken stores fail and changes wait."""
        spool = self.spool
        assert isinstance(spool, MemorySpool)
        told: list[bool] = []
        spool.set_writable_observer(told.append)
        message = make_message()
        self.store(message)
        spool.break_down(SpoolError("broken"))
        self.failureResultOf(spool.store(SMALL, [make_message()]), SpoolError)
        removed = spool.remove([message])
        self.assertNoResult(removed)
        spool.repair()
        self.successResultOf(removed)
        self.assertEqual((told, spool.messages, spool.bodies), ([False, True], {}, {}))


class SQLiteSpoolTests(SpoolTestsMixin, SynchronousTestCase):
    """The real spool keeps the contract."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()
        self.open()

    def open(self) -> None:
        """Open a spool at the path."""
        self.spool = make_spool(self.clock, self.path)
        self.done(self.spool.open())
        self.addCleanup(self.spool.close)

    def settle(self) -> None:
        """The reactor's turn ends, and another."""
        self.clock.advance(0)
        self.clock.advance(0)

    def restart(self) -> None:
        """Go on with the files as they are now."""
        copy = self.mktemp()
        copy_as_after_crash(self.path, copy)
        self.path = copy
        self.open()
