"""What comes back from a database that SQLite cannot read any more."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool.leaves import leaf_rows
from kumotwist.spool.salvage import salvage
from tests.spool_support import LARGE, SMALL, copy_as_after_crash, make_message
from tests.test_spool_check import SpoolCommandTestCase

PAGE = 4096
TABLES = ("message", "small", "large")


class SalvageTests(SpoolCommandTestCase):
    """Rows are found page by page, and what was removed does not come back."""

    def setUp(self) -> None:
        super().setUp()
        self.dice = random.Random(1)
        self.removed: list[QueuedMessage] = []
        self.stored: list[QueuedMessage] = []

    def fill_and_remove(self, bodies: int = 120, *, close: bool = True) -> None:
        """Store messages of all kinds, so that some rows are longer than a page; remove a third."""
        spool = self.open()
        for number in range(bodies):
            size = self.dice.choice([1, 100, 900])
            body = LARGE if number % 10 == 0 else b"x" * size
            sender = "s" * self.dice.choice([3, 300, 6000]) + "@example.com"
            shared = self.dice.choice([1, 1, 20])
            messages = [make_message(number * 100 + k, body, sender=sender) for k in range(shared)]
            self.stored += messages
            spool.store(body, messages)
            self.clock.advance(0)
        self.removed = self.dice.sample(self.stored, len(self.stored) // 3)
        spool.remove(self.removed)
        self.clock.advance(0)
        if close:
            self.successResultOf(spool.close())

    def rows(self, database: str, table: str) -> set[tuple[Any, ...]]:
        """What SQLite reads."""
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.text_factory = bytes
            return set(connection.execute(f"SELECT * FROM {table}"))

    def ids(self, database: str) -> set[str]:
        """Whose messages are in a database."""
        return {row[1].hex() for row in self.rows(database, "message")}

    def test_leaves(self) -> None:
        """Of a sound database exactly the rows are found that it has, and all on pages in use."""
        self.fill_and_remove()
        found = list(leaf_rows(self.database, PAGE))
        self.assertTrue(all(row.in_use for row in found))
        for table in TABLES:
            values = [row.values for row in found if row.table == table]
            self.assertEqual(len(values), len(set(values)))
            self.assertEqual(set(values), self.rows(self.database, table))
        named = {row.values[2].hex() for row in found if row.table == "message_due"}
        self.assertEqual(named, self.ids(self.database))

    def test_cut_in_half(self) -> None:
        """Of half a database all messages come back that are in that half, removed ones do not, and
        those are named that are lost."""
        self.fill_and_remove()
        whole = self.ids(self.database)
        half = os.path.getsize(self.database) // PAGE // 2
        with contextlib.closing(sqlite3.connect(self.database)) as connection:
            pages = {
                page
                for (page,) in connection.execute(
                    "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype != 'overflow'"
                )
            }
        content = Path(self.database).read_bytes()
        there = b"".join(content[(page - 1) * PAGE : page * PAGE] for page in pages if page <= half)
        # Rows that go on in the other half cannot be had.
        short = {each.id for each in self.stored if len(each.sender) < 1000}
        expected = {each for each in whole & short if bytes.fromhex(each) in there}
        self.assertGreater(len(expected), 20)
        os.truncate(self.database, half * PAGE + 17)
        report = self.check(status=1)
        found = self.ids(self.database)
        self.assertLessEqual(expected, found)
        self.assertLessEqual(found, whole)
        self.assertEqual(report["messages"], len(found))
        (problem,) = [each["problem"] for each in report["findings"] if "lost" in each["problem"]]
        self.assertTrue(any(each in problem for each in whole - found), problem)
        self.assertFalse(any(each in problem for each in found), problem)

    def test_cut_beside_its_wal(self) -> None:
        """What stands in the WAL comes back, however little is left of the database itself."""
        self.fill_and_remove(20, close=False)
        left = self.mktemp()
        copy_as_after_crash(self.path, left)
        database = os.path.join(left, "spool.sqlite3")
        whole = self.ids(shutil.copytree(left, self.mktemp()) + "/spool.sqlite3")
        self.assertGreater(len(whole), 20)
        Path(database).write_bytes(b"?" * 100)
        fresh = self.mktemp()
        salvage(database, fresh)
        self.assertEqual(self.ids(fresh), whole)

    def test_any_octet(self) -> None:
        """Whatever octets are wrong, reading ends, and what it says is sound is what was stored."""
        self.fill_and_remove()
        sound = Path(self.database).read_bytes()
        expected = {table: self.rows(self.database, table) for table in TABLES}
        for seed in range(6):
            dice = random.Random(seed)
            damaged = bytearray(sound)
            for _ in range(60):
                at = dice.randrange(len(damaged))
                damaged[at : at + 8] = dice.randbytes(8)
            path = self.mktemp()
            Path(path).write_bytes(damaged[: len(sound)])
            fresh = self.mktemp()
            salvage(path, fresh)
            read = self.rows(fresh, "message")
            self.assertGreater(len(read & expected["message"]), len(expected["message"]) // 2)
            self.assertFalse({each.id for each in self.removed} & self.ids(fresh))
            self.assertGreater(len(self.rows(fresh, "small") & expected["small"]), 40)

    def test_map_is_damaged(self) -> None:
        """Where it cannot be told which pages are in use, every sound message comes back."""
        self.fill_and_remove()
        whole = self.ids(self.database)
        damaged = bytearray(Path(self.database).read_bytes())
        # The pointer map is page 2; the first page is damaged too, or SQLite would need no map.
        damaged[: 2 * PAGE] = b"\xee" * (2 * PAGE)
        Path(self.database).write_bytes(damaged)
        rows = list(leaf_rows(self.database, PAGE))
        self.assertFalse(any(row.in_use for row in rows))
        self.check(status=0)
        self.assertEqual(self.ids(self.database), whole)

    def test_nothing_there(self) -> None:
        """A file that is shorter than a page, or no database, has no rows."""
        for content in (b"", b"x" * 100, SMALL * 1000, b"\x0d" * 9 * PAGE, b"\0" * 9 * PAGE):
            path = Path(self.mktemp())
            path.write_bytes(content)
            self.assertEqual(list(leaf_rows(str(path), PAGE)), [])
