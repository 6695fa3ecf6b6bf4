"""Why mail is refused: which answer a client gets, and what the operator reads in the log."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from typing import Any

from kumotwist.spool import SpoolError, SpoolFullError
from kumotwist.spool.database import Database
from kumotwist.spool.errors import as_spool_error
from kumotwist.spool.refusals import QUIET_TIME
from kumotwist.spool.sqlite_spool import RETRY_INTERVAL
from tests.spool_support import SMALL, hear_log, make_message
from tests.test_spool_failures import SpoolFailureTestCase


class ReadOnlyTests(SpoolFailureTestCase):
    """A file system that takes no writes."""

    def test_read_only(self) -> None:
        """A file system that became read-only refuses as a full one does."""
        error = OSError(errno.EROFS, "Read-only file system")
        self.assertIsInstance(as_spool_error(error, "x"), SpoolFullError)
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.execute("PRAGMA query_only = ON")
            refusal = self.assertRaises(sqlite3.Error, database.execute, "CREATE TABLE a (b)")
        self.assertIsInstance(as_spool_error(refusal, "x"), SpoolFullError)

    def test_stopped_by_the_kernel(self) -> None:
        """A file system that the kernel made read-only refuses as a full one does, although SQLite
        calls it an I/O error; another I/O error does not."""
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = 778
        error.sqlite_errorname = "SQLITE_IOERR_WRITE"
        self.commit_error = lambda: error
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        failure = self.failureResultOf(stored, SpoolError)
        self.assertNotIsInstance(failure.value, SpoolFullError)

        def refuse(path: str) -> None:
            self.assertEqual(path, os.path.abspath(self.path))
            raise OSError(errno.EROFS, "Read-only file system")

        touch = self.patch(os, "utime", refuse)
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(RETRY_INTERVAL)
        failure = self.failureResultOf(stored, SpoolFullError)
        self.assertIn("the file system is read-only", str(failure.value))
        touch.restore()
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        self.store()


def malformed() -> Exception:
    """What SQLite raises when it meets a page that cannot be."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = 11
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


class MalformedTests(SpoolFailureTestCase):
    """A database that becomes malformed while the node runs."""

    def setUp(self) -> None:
        super().setUp()
        self.said = hear_log(self)

    def test_nothing_can_be_written(self) -> None:
        """Stores fail, removals are kept, and a line a minute says what to do."""
        going = self.store()
        self.commit_error = malformed
        removed = self.spool.remove([going])
        stored = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        failure = self.failureResultOf(stored, SpoolError)
        self.assertNotIsInstance(failure.value, SpoolFullError)
        self.assertFalse(self.spool.writable)
        self.clock.pump([RETRY_INTERVAL] * int(QUIET_TIME / 2))
        (line,) = self.said("cannot be written")
        for part in (self.path, "malformed", "kumo spool check"):
            self.assertIn(part, line)
        self.clock.pump([RETRY_INTERVAL] * int(QUIET_TIME * 2))
        self.assertEqual(len(self.said("cannot be written")), 3)
        self.assertNoResult(removed)
        self.commit_error = lambda: None
        self.clock.advance(RETRY_INTERVAL)
        self.successResultOf(removed)
        self.assertEqual(len(self.said("can be written again")), 1)

    def test_only_stores_fail(self) -> None:
        """Where removals can still be written, deliveries go on, and a line a minute says why mail
        is refused."""

        def insert(database: Database, *values: Any) -> None:
            raise malformed()

        self.patch(Database, "insert", insert)
        for _ in range(5):
            refused = self.spool.store(SMALL, [make_message()])
            self.clock.advance(0)
            self.failureResultOf(refused, SpoolError)
        self.assertTrue(self.spool.writable)
        (line,) = self.said("refuses mail (451)")
        self.assertIn("kumo spool check", line)
        self.clock.advance(QUIET_TIME)
        refused = self.spool.store(SMALL, [make_message()])
        self.clock.advance(0)
        self.failureResultOf(refused, SpoolError)
        self.assertEqual(len(self.said("refuses mail (451)")), 2)
