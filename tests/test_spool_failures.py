"""Disks that are full, broken or read-only: nothing is lost, nothing is pretended."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from typing import cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import (
    Disk,
    SpoolClosedError,
    SpoolError,
    SpoolFullError,
    SQLiteSpool,
)
from kumotwist.spool.database import Database
from kumotwist.spool.sqlite_spool import RETRY_INTERVAL
from tests.spool_support import (
    LARGE,
    SMALL,
    SteppedWorker,
    copy_as_after_crash,
    make_message,
    make_spool,
)


class FailingDisk(Disk):
    """A disk whose writes fail after some octets, or whose syncs fail, as long as told."""

    def __init__(self) -> None:
        self.room: int | None = None
        self.sync_error: int | None = None
        self.truncate_error: int | None = None
        self.free = 10**9

    def write(self, descriptor: int, offset: int, buffers: Sequence[bytes]) -> None:
        """Write what there is room for."""
        if self.room is not None:
            super().write(descriptor, offset, [b"".join(buffers)[: self.room]])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(descriptor, offset, buffers)

    def free_space(self, path: str) -> int:
        """As the test says."""
        return self.free

    def sync(self, descriptor: int) -> None:
        """Fail or sync."""
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Fail or cut."""
        if self.truncate_error is not None:
            raise OSError(self.truncate_error, os.strerror(self.truncate_error))
        super().truncate(descriptor, size)


class SpoolFailureTestCase(SynchronousTestCase):
    """A spool whose database can be made to fail."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()
        self.disk = FailingDisk()
        self.told: list[bool] = []
        self.commits = 0
        self.commit_error: Callable[[], Exception | None] = lambda: None
        commit = Database.commit

        def failing_commit(database: Database) -> None:
            self.commits += 1
            error = self.commit_error()
            if error is not None:
                raise error
            commit(database)

        self.patch(Database, "commit", failing_commit)
        self.spool = self.open(self.path)

    def open(self, path: str) -> SQLiteSpool:
        """Open a spool there."""
        spool = make_spool(self.clock, path, disk=self.disk)
        spool.set_writable_observer(self.told.append)
        self.successResultOf(spool.open())
        self.addCleanup(spool.close)
        return spool

    def store(self, body: bytes = SMALL, number: int = 0) -> QueuedMessage:
        """Store a message and see it done."""
        message = make_message(number, body)
        stored = self.spool.store(body, [message])
        self.clock.advance(0)
        self.successResultOf(stored)
        return message

    def found_after_crash(self) -> list[QueuedMessage]:
        """What another process finds; every body is right."""
        copy = self.mktemp()
        copy_as_after_crash(self.path, copy)
        self.commit_error = lambda: None
        self.disk = FailingDisk()
        spool = self.open(copy)
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        for message in found:
            self.assertEqual(len(self.successResultOf(spool.load(message))), message.size)
        return found


def full() -> Exception:
    """What SQLite raises."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = 13
    error.sqlite_errorname = "SQLITE_FULL"
    return error


class FullDatabaseTests(SpoolFailureTestCase):
    """The database takes no more."""

    def test_store_fails(self) -> None:
        """A store fails with SpoolFullError, and nothing of it is kept, also after a crash."""
        self.commit_error = full
        message = make_message()
        stored = self.spool.store(SMALL, [message])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolFullError)
        self.assertEqual(message.body_key, 0)
        self.assertEqual(self.told, [False])
        self.assertEqual(self.found_after_crash(), [])

    def test_recovers_by_itself(self) -> None:
        """It is tried every second, and when that succeeds it is writable again."""
        self.commit_error = full
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolFullError)
        self.clock.pump([RETRY_INTERVAL] * 3)
        self.assertFalse(self.spool.writable)
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        self.assertTrue(self.spool.writable)
        self.assertEqual(self.told, [False, True])
        self.store()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_changes_are_kept(self) -> None:
        """Updates and removals wait, the latest for each message, until they can be written."""
        staying, going = self.store(number=1), self.store(number=2)
        self.commit_error = full
        waiting = [self.spool.update(staying), self.spool.update(going)]
        self.clock.advance(0)
        for attempts in range(1, 4):
            staying.attempts = attempts
            waiting.append(self.spool.update(staying))
            self.clock.advance(RETRY_INTERVAL)
        waiting.append(self.spool.remove([going]))
        self.clock.advance(RETRY_INTERVAL)
        for each in waiting:
            self.assertNoResult(each)
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        for each in waiting:
            self.successResultOf(each)
        (found,) = self.found_after_crash()
        self.assertEqual((found.id, found.attempts), (staying.id, 3))

    def test_no_storm(self) -> None:
        """While nothing can be written, stores wait for the next try, one a second."""
        self.commit_error = full
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolFullError)
        self.commits = 0
        later = [self.spool.store(SMALL, [make_message()]) for _ in range(50)]
        self.clock.advance(RETRY_INTERVAL / 2)
        self.assertEqual(self.commits, 0)
        self.clock.advance(RETRY_INTERVAL / 2)
        self.assertLessEqual(self.commits, 2)
        for each in later:
            self.failureResultOf(each, SpoolFullError)

    def test_low_space_is_logged(self) -> None:
        """One line says when mail begins to be refused, with the figures, and one when it ends."""
        events: list[LogEvent] = []
        observer = cast("ILogObserver", events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

        def said() -> list[str]:
            lines = [formatEvent(event) for event in events]
            events.clear()
            return [line for line in lines if "mail" in line]

        self.disk.free = 1234
        for _ in range(5):
            refused = self.spool.store(SMALL, [make_message()])
            self.clock.advance(0)
            self.failureResultOf(refused, SpoolFullError)
        (line,) = said()
        for part in ("refuses mail", "1234 bytes are free", str(64 * 1024 * 1024), self.path):
            self.assertIn(part, line)
        self.disk.free = 1 << 40
        for _ in range(3):
            self.store()
        (line,) = said()
        self.assertIn("takes mail again", line)

    def test_low_space(self) -> None:
        """With little space left stores are refused, while removals still go through."""
        message = self.store()
        self.disk.free = 64 * 1024 * 1024 - 1
        refused = [self.spool.store(SMALL, [make_message()]) for _ in range(3)]
        removed = self.spool.remove([message])
        self.clock.advance(0)
        for each in refused:
            self.failureResultOf(each, SpoolFullError)
        self.successResultOf(removed)
        self.assertTrue(self.spool.writable)
        self.disk.free += 1
        self.store()

    def test_real_limit(self) -> None:
        """A database that reaches SQLite's page limit refuses the big store and takes small ones.

        Removals are still recorded, so the spool stays writable and deliveries go on.
        """
        kept = self.store()
        database = self.spool._storage._database
        assert database is not None
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        many = [make_message(number) for number in range(300)]
        big = self.spool.store(SMALL, many)
        small = self.spool.store(SMALL, [make_message(1000)])
        removed = self.spool.remove([kept])
        self.clock.advance(0)
        self.failureResultOf(big, SpoolFullError)
        self.successResultOf(small)
        self.successResultOf(removed)
        self.assertTrue(self.spool.writable)
        self.assertEqual(len(self.found_after_crash()), 1)

    def test_one_bad_value(self) -> None:
        """Should the database refuse one store for its values, the others are kept."""
        good, bad = make_message(1), make_message(2)
        stored = self.spool.store(SMALL, [good])
        refused = self.spool.store(SMALL, [bad, bad])
        self.clock.advance(0)
        self.successResultOf(stored)
        self.failureResultOf(refused, SpoolError)
        self.assertTrue(self.spool.writable)
        self.assertEqual([each.id for each in self.found_after_crash()], [good.id])

    def test_close_while_broken(self) -> None:
        """Closing tries once more, then tells those who wait that it was in vain."""
        message = self.store()
        self.commit_error = full
        removed = self.spool.remove([message])
        self.clock.advance(0)
        self.assertNoResult(removed)
        self.successResultOf(self.spool.close())
        self.failureResultOf(removed, SpoolClosedError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forget_while_broken(self) -> None:
        """What is to be forgotten waits until it can be written; closing says that it cannot."""
        going, staying = self.store(), self.store()
        self.commit_error = full
        self.spool.forget(going)
        self.clock.advance(0)
        self.assertFalse(self.spool.writable)
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        self.assertTrue(self.spool.writable)
        self.assertEqual([each.id for each in self.found_after_crash()], [staying.id])
        self.commit_error = full
        self.spool.forget(staying)
        said: list[str] = []
        observer = cast(ILogObserver, lambda event: said.append(formatEvent(event)))
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.successResultOf(self.spool.close())
        self.assertIn("1 changes of the spool could not be written", said)

    def test_failing_observer(self) -> None:
        """An observer that raises does not keep the outcome from those who wait."""
        self.spool.set_writable_observer(lambda writable: [][1])
        self.commit_error = full
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolFullError)
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)


class FullSegmentTests(SpoolFailureTestCase):
    """The segment files take no more."""

    def store_fails(self, body: bytes, error: type[Exception]) -> None:
        """A large store fails, and a small one in the same commit does not."""
        large = self.spool.store(body, [make_message(1, body)])
        small = self.spool.store(SMALL, [make_message(2)])
        self.clock.advance(0)
        self.failureResultOf(large, error)
        self.successResultOf(small)
        self.assertTrue(self.spool.writable)

    def test_short_write(self) -> None:
        """What a full disk took of a body is cut off, and later bodies are right."""
        self.store(LARGE)
        for room in (0, 1, 24, 1000):
            self.disk.room = room
            self.store_fails(LARGE, SpoolFullError)
            self.disk.room = None
            self.store(LARGE)
        self.assertEqual(len(self.found_after_crash()), 9)

    def test_failing_truncate(self) -> None:
        """If the rest cannot even be cut off, the next body goes to another file."""
        self.store(LARGE)
        self.disk.room, self.disk.truncate_error = 100, errno.EIO
        self.store_fails(LARGE, SpoolFullError)
        self.disk.room = self.disk.truncate_error = None
        self.store(LARGE)
        self.assertEqual(len(os.listdir(os.path.join(self.path, "segments"))), 2)
        self.assertEqual(len(self.found_after_crash()), 3)

    def test_failing_sync(self) -> None:
        """After a failed fsync nothing more is appended to that file: it could lie."""
        self.store(LARGE)
        self.disk.sync_error = errno.EIO
        self.store_fails(LARGE, SpoolError)
        self.disk.sync_error = None
        self.store(LARGE)
        self.assertEqual(len(os.listdir(os.path.join(self.path, "segments"))), 2)
        self.assertEqual(len(self.found_after_crash()), 3)

    def test_commit_fails_after_append(self) -> None:
        """A body whose commit failed for want of room leaves nothing in its segment."""
        self.store(LARGE)
        segment = os.path.join(self.path, "segments", "00000001.seg")
        size = os.path.getsize(segment)
        self.commit_error = full
        stored = self.spool.store(LARGE, [make_message(1, LARGE)])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolFullError)
        self.assertEqual(os.path.getsize(segment), size)
        self.assertEqual(len(self.found_after_crash()), 1)

    def test_commit_sync_fails(self) -> None:
        """A body stays if a crash could revive the commit that refers to it."""
        self.store(LARGE)
        segment = os.path.join(self.path, "segments", "00000001.seg")
        size = os.path.getsize(segment)
        self.commit_error = lambda: sqlite3.OperationalError("disk I/O error")
        stored = self.spool.store(LARGE, [make_message(1, LARGE)])
        self.clock.advance(0)
        self.failureResultOf(stored, SpoolError)
        self.assertGreater(os.path.getsize(segment), size)
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        self.store(LARGE)
        self.assertEqual(len(self.found_after_crash()), 2)


class GroupCommitTests(SynchronousTestCase):
    """Who shares a commit, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.workers: dict[str, SteppedWorker] = {}

        def make_worker(name: str) -> SteppedWorker:
            self.workers[name] = SteppedWorker()
            return self.workers[name]

        self.spool = make_spool(self.clock, self.mktemp(), make_worker=make_worker)
        opened = self.spool.open()
        self.writer = self.workers["spool-writer"]
        self.writer.step()
        self.writer.step()
        self.successResultOf(opened)

    def close(self) -> None:
        """Close, doing what there is to do."""
        closed = self.spool.close()
        while self.writer.jobs or self.workers["spool-reader"].jobs:
            for worker in self.workers.values():
                while worker.jobs:
                    worker.step()
        self.successResultOf(closed)

    def test_shared(self) -> None:
        """All that comes in a turn, and all that comes during a commit, shares the next one."""
        first = [self.spool.store(SMALL, [make_message(number)]) for number in range(3)]
        self.clock.advance(0)
        self.assertEqual(len(self.writer.jobs), 1)
        message = make_message(9)
        second = [self.spool.store(SMALL, [message]), self.spool.update(make_message(10))]
        self.clock.advance(0)
        self.assertEqual(len(self.writer.jobs), 1)
        for each in first:
            self.assertNoResult(each)
        self.writer.step()
        for each in first:
            self.successResultOf(each)
        self.clock.advance(0)
        self.assertEqual(len(self.writer.jobs), 1)
        self.writer.step()
        for each in second:
            self.successResultOf(each)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.close()

    def test_clock_set_back(self) -> None:
        """A commit that was due when the clock was set back is made with the next request."""
        first = self.spool.store(SMALL, [make_message(1)])
        self.clock.rightNow -= 86400
        self.clock.advance(0)
        self.assertNoResult(first)
        second = self.spool.store(SMALL, [make_message(2)])
        self.clock.advance(0)
        self.writer.step()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_load_before_commit(self) -> None:
        """A body that is still on its way to the disk can be loaded."""
        message = make_message()
        self.spool.store(SMALL, [message])
        self.assertEqual(self.successResultOf(self.spool.load(message)), SMALL)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(self.spool.load(message)), SMALL)
        self.close()

    def test_close_finishes(self) -> None:
        """Closing waits for the commit under way and for all that was asked before."""
        one, two = make_message(1), make_message(2)
        first = self.spool.store(SMALL, [one])
        self.clock.advance(0)
        second = self.spool.store(SMALL, [two])
        self.close()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_close_stops_enumeration(self) -> None:
        """An enumeration during which the spool is closed fails, and hangs nowhere."""
        path = self.mktemp()
        for closing in (False, True):
            spool = make_spool(self.clock, path)
            self.successResultOf(spool.open())
            if closing:
                counted = spool.enumerate(lambda batch, spool=spool: spool.close())  # type: ignore[misc]
                self.failureResultOf(counted, SpoolClosedError)
            else:
                stored = spool.store(SMALL, [make_message(number) for number in range(1001)])
                self.clock.advance(0)
                self.successResultOf(stored)
                self.successResultOf(spool.close())
        self.close()
