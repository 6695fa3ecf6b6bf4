"""Crashes at every moment, damaged files, and directories that cannot be used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import (
    DamagedBodyError,
    Disk,
    SpoolError,
    SpoolLockedError,
    SpoolSettings,
    SQLiteSpool,
)
from kumotwist.spool.database import Database
from kumotwist.spool.gathering import LINGER
from kumotwist.spool.sqlite_spool import SHRINK_DELAY, SHRINK_INTERVAL
from tests.spool_support import LARGE, SMALL, copy_as_after_crash, make_message, make_spool


class SpoolFilesTestCase(SynchronousTestCase):
    """Opens spools and looks at their files."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()

    def open(
        self, path: str | None = None, *, disk: Disk | None = None, durable: bool = True
    ) -> SQLiteSpool:
        """Open the spool."""
        spool = make_spool(self.clock, path or self.path, disk=disk, durable=durable)
        self.successResultOf(spool.open())
        self.addCleanup(spool.close)
        return spool

    def store(self, spool: SQLiteSpool, body: bytes, number: int = 0) -> QueuedMessage:
        """Store a message and see it done."""
        message = make_message(number, body)
        stored = spool.store(body, [message])
        self.clock.advance(0)
        self.successResultOf(stored)
        return message

    def remove(self, spool: SQLiteSpool, *messages: QueuedMessage) -> None:
        """Remove messages and see it done."""
        removed = spool.remove(messages)
        self.clock.advance(0)
        self.successResultOf(removed)

    def enumerated(self, spool: SQLiteSpool) -> list[QueuedMessage]:
        """All that it hands over."""
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        return found

    def segments(self, path: str | None = None) -> list[str]:
        """The segment files."""
        return sorted(os.listdir(os.path.join(path or self.path, "segments")))


class StoppingDisk(Disk):
    """Copies the spool's directory after each of its system calls: what a crash there leaves."""

    def __init__(self, path: str, copies: str) -> None:
        self.path = path
        self.copies = copies
        self.count = 0

    def copy(self) -> None:
        """Keep the files as they are now."""
        copy_as_after_crash(self.path, os.path.join(self.copies, f"{self.count:04d}"))
        self.count += 1

    def create(self, path: str) -> int:
        """Create, then copy."""
        descriptor = super().create(path)
        self.copy()
        return descriptor

    def write(self, descriptor: int, offset: int, buffers: Sequence[bytes]) -> None:
        """Write and copy a half of it, then all of it."""
        whole = b"".join(buffers)
        super().write(descriptor, offset, [whole[: len(whole) // 2]])
        self.copy()
        super().write(descriptor, offset, [whole])
        self.copy()

    def sync(self, descriptor: int) -> None:
        """Sync, then copy."""
        super().sync(descriptor)
        self.copy()

    def unlink(self, path: str) -> None:
        """Copy, unlink, copy."""
        self.copy()
        super().unlink(path)
        self.copy()


class CrashTests(SpoolFilesTestCase):
    """What was acknowledged is there, wherever it stops."""

    def test_every_moment(self) -> None:
        """Stopped after any system call, all that was stored is found and whole, nothing else is.

        A store or removal that was under way may show or not: never half of it.
        """
        copies = self.mktemp()
        os.mkdir(copies)
        disk = StoppingDisk(self.path, copies)
        spool = self.open(disk=disk)
        acknowledged: dict[int, set[str]] = {}
        kept: list[QueuedMessage] = []
        commit = Database.commit

        def copying_commit(database: Database) -> None:
            disk.copy()
            commit(database)
            disk.copy()

        self.patch(Database, "commit", copying_commit)
        for number in range(24):
            before = {each.id for each in kept}
            start = disk.count
            if number % 4 == 3:
                going = kept.pop(0)
                self.remove(spool, going, kept.pop(0))
            else:
                kept.append(self.store(spool, SMALL if number % 4 == 2 else LARGE * 3, number))
            sure = before & {each.id for each in kept}
            for moment in range(start, disk.count):
                acknowledged[moment] = sure
        self.successResultOf(spool.close())
        self.assertGreater(len(acknowledged), 60)
        for moment, sure in acknowledged.items():
            again = self.open(os.path.join(copies, f"{moment:04d}"))
            found = self.enumerated(again)
            self.assertLessEqual(sure, {each.id for each in found})
            self.assertLessEqual(len(found), len(sure) + 2)
            for message in found:
                self.assertEqual(len(self.successResultOf(again.load(message))), message.size)
            self.successResultOf(again.close())

    def test_unreferenced_files(self) -> None:
        """Segments and tails that nobody refers to are deleted when the spool is opened."""
        spool = self.open()
        self.store(spool, LARGE)
        segment = os.path.join(self.path, "segments", "00000001.seg")
        size = os.path.getsize(segment)
        self.successResultOf(spool.close())
        with open(segment, "ab") as tail:
            tail.write(b"half a record")
        shutil.copy(segment, os.path.join(self.path, "segments", "00000007.seg"))
        with open(os.path.join(self.path, "segments", "notes.txt"), "w") as other:
            other.write("not ours")
        spool = self.open()
        self.assertEqual(self.segments(), ["00000001.seg", "notes.txt"])
        self.assertEqual(os.path.getsize(segment), size)
        self.store(spool, LARGE)
        self.assertEqual(self.segments(), ["00000001.seg", "00000008.seg", "notes.txt"])

    def test_crash_while_created(self) -> None:
        """A spool whose creation was interrupted is simply made."""
        os.mkdir(self.path)
        with open(os.path.join(self.path, "spool.sqlite3"), "wb"):
            pass
        self.store(self.open(), SMALL)


class SpaceTests(SpoolFilesTestCase):
    """Space comes back."""

    def test_segments(self) -> None:
        """A segment goes when nothing in it is needed; the open one only when it has grown."""
        spool = self.open()
        messages = [self.store(spool, LARGE, number) for number in range(20)]
        self.assertEqual(len(self.segments()), 3)
        self.remove(spool, *messages[:7])
        self.assertEqual(self.segments(), ["00000002.seg", "00000003.seg"])
        self.remove(spool, *messages[7:])
        self.assertEqual(self.segments(), [])
        self.remove(spool, self.store(spool, b"x" * 1001))
        self.assertEqual(len(self.segments()), 1)
        self.successResultOf(spool.close())
        self.assertEqual(self.segments(), [])

    def test_database_shrinks(self) -> None:
        """When a burst is gone and it is quiet, the database file gets smaller, step by step."""
        spool = self.open(durable=False)
        body = b"x" * 900
        messages = [make_message(number) for number in range(12000)]
        for message in messages:
            spool.store(body, [message])
        self.clock.advance(0)
        self.assertTrue(all(message.body_key for message in messages))
        database = os.path.join(self.path, "spool.sqlite3")
        self.remove(spool, *messages)
        before = os.path.getsize(database)
        self.clock.advance(SHRINK_DELAY)
        self.clock.pump([SHRINK_INTERVAL] * 40)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertLess(os.path.getsize(database), before * 0.8)
        self.assertEqual(os.path.getsize(f"{database}-wal"), 0)
        self.store(spool, SMALL)
        self.successResultOf(spool.close())
        self.assertLess(os.path.getsize(database), before * 0.8)

    def test_shrinks_beside_a_reader(self) -> None:
        """Somebody who reads while it gets smaller disturbs nothing and sees no change; when the
        next burst is gone, it gets smaller."""
        spool = self.open(durable=False)
        body = b"x" * 900
        messages = [make_message(number) for number in range(12000)]
        for message in messages:
            spool.store(body, [message])
        self.clock.advance(0)
        database = os.path.join(self.path, "spool.sqlite3")
        self.remove(spool, *messages[1:])
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN")
            count = "SELECT count(*) FROM message"
            self.assertEqual(other.execute(count).fetchone(), (1,))
            self.clock.advance(SHRINK_DELAY)
            self.clock.pump([SHRINK_INTERVAL] * 40)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.remove(spool, messages[0])
            self.assertEqual(other.execute(count).fetchone(), (1,))
        before = os.path.getsize(database)
        messages = [make_message(number) for number in range(12000)]
        for message in messages:
            spool.store(body, [message])
        self.clock.advance(0)
        self.remove(spool, *messages)
        self.clock.advance(SHRINK_DELAY)
        self.clock.pump([SHRINK_INTERVAL] * 40)
        self.assertLess(os.path.getsize(database), before)


class RemovalTests(SpoolFilesTestCase):
    """A spool whose directory goes when it is empty."""

    def leave(self, path: str) -> None:
        """Open it so that nothing is left, and close it."""
        spool = make_spool(self.clock, path, leave_nothing=True)
        self.successResultOf(spool.open())
        self.successResultOf(spool.close())

    def test_empty(self) -> None:
        """An empty spool goes with all its files, its last message may have gone just before."""
        path = os.path.join(self.mktemp(), "spool-2")
        message = make_message(body=LARGE)
        spool = make_spool(self.clock, path, leave_nothing=True, linger=LINGER)
        self.successResultOf(spool.open())
        stored = spool.store(LARGE, [message])
        self.clock.advance(0)
        self.successResultOf(stored)
        removed = spool.remove([message])
        self.successResultOf(spool.close())
        self.successResultOf(removed)
        self.assertFalse(os.path.exists(path))
        self.leave(path)
        self.assertFalse(os.path.exists(path))

    def test_not_empty(self) -> None:
        """A spool that holds anything stays: a message, a damaged one, what was set aside."""
        path = self.mktemp()
        self.leave(path)
        spool = self.open(path)
        self.store(spool, SMALL)
        self.successResultOf(spool.close())
        self.leave(path)
        with contextlib.closing(sqlite3.connect(os.path.join(path, "spool.sqlite3"))) as other:
            other.execute("UPDATE message SET crc = 1")
            other.commit()
        self.leave(path)
        self.assertTrue(os.path.exists(os.path.join(path, "spool.sqlite3")))
        other_path = self.mktemp()
        os.makedirs(os.path.join(other_path, "set-aside"))
        self.leave(other_path)
        self.assertTrue(os.path.exists(os.path.join(other_path, "set-aside")))
        self.assertTrue(os.path.exists(os.path.join(other_path, "spool.sqlite3")))

    def test_removed_meanwhile(self) -> None:
        """Who opens a spool while its owner removes it is told so, and nothing is stored there."""
        lock = fcntl.flock

        def flock_after_removal(descriptor: int, operation: int) -> None:
            os.unlink(os.path.join(self.path, "lock"))
            lock(descriptor, operation)

        self.patch(fcntl, "flock", flock_after_removal)
        spool = make_spool(self.clock, self.path)
        failure = self.failureResultOf(spool.open(), SpoolError)
        self.assertIn("has just removed it", str(failure.value))


class DamageTests(SpoolFilesTestCase):
    """What is not what was stored is never delivered, and never stops the rest."""

    def damage(self, statement: str, *values: object) -> None:
        """Change the database behind the spool's back."""
        with contextlib.closing(sqlite3.connect(os.path.join(self.path, "spool.sqlite3"))) as other:
            self.assertEqual(other.execute(statement, values).rowcount, 1)
            other.commit()

    def test_records(self) -> None:
        """Damaged records are set aside with a log line each; the others are handed over."""
        spool = self.open()
        messages = [self.store(spool, SMALL, number) for number in range(6)]
        ids = [bytes.fromhex(each.id) for each in messages]
        self.damage("UPDATE message SET recipient = 'other@example.org' WHERE id = ?", ids[0])
        self.damage("UPDATE message SET sender = CAST(x'ff' AS TEXT) WHERE id = ?", ids[1])
        self.damage("UPDATE message SET id = x'00' WHERE id = ?", ids[2])
        self.damage("UPDATE message SET attempts = 'many' WHERE id = ?", ids[3])
        self.damage("UPDATE message SET meta = 5 WHERE id = ?", ids[4])
        spool = self.reopen(spool)
        self.assertEqual([each.id for each in self.enumerated(spool)], [messages[5].id])

    def test_bodies(self) -> None:
        """A damaged or missing body fails its own load only."""
        spool = self.open()
        small, good = self.store(spool, SMALL), self.store(spool, SMALL)
        large, cut, lost = (self.store(spool, LARGE * 7) for _ in range(3))
        for key in (small.body_key,):
            self.damage("UPDATE small SET content = x'00' WHERE key = ?", key)
        folder = os.path.join(self.path, "segments")
        names = self.segments()
        with open(os.path.join(folder, names[0]), "r+b") as segment:
            segment.seek(5000)
            segment.write(b"y")
        os.truncate(os.path.join(folder, names[1]), 5000)
        os.unlink(os.path.join(folder, names[2]))
        for _ in range(2):
            for message in (small, large, cut, lost):
                self.failureResultOf(spool.load(message), DamagedBodyError)
            self.assertEqual(self.successResultOf(spool.load(good)), SMALL)
            spool = self.reopen(spool)
        self.assertEqual(len(self.enumerated(spool)), 5)
        self.remove(spool, small, large, cut, lost)

    def reopen(self, spool: SQLiteSpool) -> SQLiteSpool:
        """Close and open again."""
        self.successResultOf(spool.close())
        return self.open()


class OwnershipTests(SpoolFilesTestCase):
    """Who may have a directory, and what is said if it cannot be used."""

    def refuse(self, path: str) -> str:
        """What a spool there says."""
        spool = make_spool(self.clock, path)
        text = str(self.failureResultOf(spool.open(), SpoolError).value)
        self.assertIn(path, text)
        return text

    def test_locked(self) -> None:
        """A second owner is refused with the path and the first one's process id."""
        first = self.open()
        second = make_spool(self.clock, self.path)
        error = self.failureResultOf(second.open(), SpoolLockedError).value
        self.assertEqual((error.path, error.pid), (os.path.abspath(self.path), os.getpid()))
        self.assertIn(str(os.getpid()), str(error))
        self.successResultOf(first.close())
        self.successResultOf(second.open())
        self.successResultOf(second.close())

    def test_modes(self) -> None:
        """Nobody else can read mail."""
        self.store(self.open(), LARGE)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o700)
        for name in ("spool.sqlite3", "spool.sqlite3-wal", "segments/00000001.seg", "lock"):
            mode = stat.S_IMODE(os.stat(os.path.join(self.path, name)).st_mode)
            self.assertEqual(mode, 0o600, name)

    def test_not_a_directory(self) -> None:
        """A file in the directory's place is named."""
        with open(self.path, "w"):
            pass
        self.refuse(self.path)

    def test_no_permission(self) -> None:
        """A directory, or a file in it, that cannot be written is named."""
        self.store(spool := self.open(), LARGE)
        self.successResultOf(spool.close())
        path = os.path.abspath(self.path)
        access = os.access
        names = ("", "spool.sqlite3", "segments", "segments/00000001.seg")
        for denied in (os.path.join(path, name).rstrip("/") for name in names):
            patch = self.patch(
                os,
                "access",
                lambda path, mode, denied=denied: path != denied and access(path, mode),
            )
            text = self.refuse(path)
            patch.restore()
            self.assertIn(f"{denied}: no permission", text)
        self.successResultOf(self.open().close())

    def test_foreign_database(self) -> None:
        """A file that is no database, or somebody else's, or a later version's, is left alone."""
        os.mkdir(self.path)
        database = os.path.join(self.path, "spool.sqlite3")
        with open(database, "wb") as file:
            file.write(b"not a database" * 1000)
        self.assertIn("not a database", self.refuse(self.path))
        os.unlink(database)
        with contextlib.closing(sqlite3.connect(database)) as other:
            other.execute("CREATE TABLE things (name)")
        self.assertIn("not a spool", self.refuse(self.path))
        os.unlink(database)
        self.successResultOf(self.open().close())
        with contextlib.closing(sqlite3.connect(database)) as other:
            other.execute("PRAGMA user_version = 99")
        self.assertIn("99", self.refuse(self.path))

    def test_path_needed(self) -> None:
        """Settings without a path cannot make a spool."""
        self.assertRaises(ValueError, SQLiteSpool, self.clock, SpoolSettings())
