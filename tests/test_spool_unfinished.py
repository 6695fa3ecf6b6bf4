"""Moves between spools that a kill has cut short."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.spool import SpoolLockedError
from kumotwist.spool.ownership import OwnedDirectory
from kumotwist.spool.unfinished import MoveIntent, settle_moves
from tests.spool_support import LARGE, SMALL, cut_short, ids_in, make_message, make_spool


class SettleTests(SynchronousTestCase):
    """What is in two spools."""

    def setUp(self) -> None:
        """Two spools that have the same messages: the one was on its way into the other."""
        self.clock = Clock()
        directory = self.mktemp()
        os.mkdir(directory)
        self.source, self.target = f"{directory}/spool-2", f"{directory}/spool"
        self.messages = cut_short(self.clock, self.source, self.target)
        self.ids = {message.id for message in self.messages}

    def test_in_both(self) -> None:
        """A kill between the copy and the removal leaves messages in both."""
        self.assertEqual((ids_in(self.source), ids_in(self.target)), (self.ids, self.ids))

    def test_settled(self) -> None:
        """In whatever order the spools are named, each message is in one of them, whole."""
        for name in ("spools", "and again"):
            with self.subTest(name):
                settle_moves([self.source, self.target])
                self.assertEqual((ids_in(self.source), ids_in(self.target)), (set(), self.ids))
        self.assertNotIn("moving", os.listdir(self.source))
        spool = make_spool(self.clock, self.target)
        spool.open()
        found = list[bytes]()
        spool.enumerate(
            lambda page: found.extend(self.successResultOf(spool.load(one)) for one in page)
        )
        self.assertEqual(sorted(found), sorted([SMALL, LARGE, SMALL, LARGE, SMALL]))
        spool.close()

    def test_other_order(self) -> None:
        """The spool that was emptied may come last, and others may be looked at as well."""
        settle_moves([self.target, f"{self.source}1", self.source])
        self.assertEqual((ids_in(self.source), ids_in(self.target)), (set(), self.ids))
        self.assertFalse(os.path.exists(f"{self.source}1"))

    def test_only_what_has_arrived(self) -> None:
        """What was on its way and has not arrived stays, as does what was not on its way."""
        late, later = make_message(10), make_message(11)
        spool = make_spool(self.clock, self.source)
        spool.open()
        spool.store(SMALL, [late])
        spool.store(SMALL, [later])
        self.clock.advance(1)
        spool.close()
        MoveIntent(self.source).note([*self.ids, late.id])
        settle_moves([self.target, self.source])
        self.assertEqual(ids_in(self.source), {late.id, later.id})
        self.assertEqual(ids_in(self.target), self.ids)

    def test_cut_file(self) -> None:
        """A file of which only a part was written is no reason not to start."""
        for text in ("", "\xff\n", "ab", f"{'0' * 32}\nab"):
            Path(self.source, "moving").write_text(text, encoding="latin-1")
            settle_moves([self.target, self.source])
            self.assertEqual((ids_in(self.source), ids_in(self.target)), (self.ids, self.ids))

    def test_damaged(self) -> None:
        """Where the other spool cannot be read everything stays, until that is mended."""
        database = Path(self.target, "spool.sqlite3")
        whole = database.read_bytes()
        wal = Path(f"{database}-wal")
        aside = wal.read_bytes()
        wal.unlink()
        database.write_bytes(b"no database" * 1000)
        settle_moves([self.target, self.source])
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertEqual(ids_in(self.source), self.ids)
        database.write_bytes(whole)
        wal.write_bytes(aside)
        settle_moves([self.target, self.source])
        self.assertEqual((ids_in(self.source), ids_in(self.target)), (set(), self.ids))

    def test_damaged_key(self) -> None:
        """A row that has lost its body's key is no copy, and is left alone."""
        for path in (self.source, self.target):
            with contextlib.closing(sqlite3.connect(f"{path}/spool.sqlite3")) as connection:
                connection.execute(
                    "UPDATE message SET body = 'x' WHERE id = ?",
                    (bytes.fromhex(self.messages[0].id),),
                )
                connection.commit()
        settle_moves([self.target, self.source])
        with contextlib.closing(sqlite3.connect(f"{self.source}/spool.sqlite3")) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM message").fetchone(), (1,))

    def test_in_use(self) -> None:
        """Where another process has one of them nothing is decided, and nobody starts."""
        for path in (self.source, self.target):
            other = OwnedDirectory(path)
            other.acquire()
            self.assertRaises(SpoolLockedError, settle_moves, [self.target, self.source])
            other.release()
        self.assertEqual((ids_in(self.source), ids_in(self.target)), (self.ids, self.ids))
