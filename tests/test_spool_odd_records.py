"""Damaged body keys, ids and places: one such record stops neither a start nor a store, and can be
discarded."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import DamagedBodyError, SpoolError, SQLiteSpool
from kumotwist.spool.database import KEY_LIMIT, Database
from kumotwist.spool.refusals import QUIET_TIME
from tests.spool_support import LARGE, SMALL, hear_log, make_message
from tests.test_spool_check import SpoolCommandTestCase


class OddRecordTestCase(SpoolCommandTestCase):
    """A spool in which one value is made into another, and a log that is read."""

    def setUp(self) -> None:
        super().setUp()
        self.said = hear_log(self)

    def enumerated(self, spool: SQLiteSpool) -> list[QueuedMessage]:
        """All that it hands over."""
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        return found

    def store(self, spool: SQLiteSpool, body: bytes = SMALL) -> QueuedMessage:
        """Store a message and see it done."""
        message = make_message(900, body)
        done = spool.store(body, [message])
        self.clock.advance(0)
        self.successResultOf(done)
        return message

    def assert_discarded(self, expected: dict[str, bytes]) -> None:
        """The damaged record is found, exported, discarded, and the rest is as it was."""
        report = self.check(status=1)
        records = [each for each in report["findings"] if each["kind"] == "record"]
        self.assertEqual(len(records), 1, report)
        target = self.mktemp()
        self.assertEqual(self.kumo("export", "--all", "--to", target).exit_code, 1)
        names = [each for each in os.listdir(target) if each.endswith(".json")]
        self.assertEqual(len(names), len(expected) + 1)
        self.assertEqual(self.check("--discard", status=0)["discarded"], 1)
        self.assertEqual(self.check(status=0)["findings"], [])
        self.assertEqual(self.delivered(), expected)


class BodyKeyTests(OddRecordTestCase):
    """A body key that is another value than was stored."""

    def try_key(self, value: Any) -> None:
        """Damage the highest key; the node starts, delivers the rest, stores, and can be mended."""
        messages = self.fill(SMALL, SMALL)
        self.damage("UPDATE message SET body = ? WHERE due = ?", value, messages[1].due)
        spool = self.open()
        self.assertEqual([each.id for each in self.enumerated(spool)], [messages[0].id])
        new = self.store(spool)
        self.successResultOf(spool.close())
        self.assertEqual(self.delivered(), {messages[0].id: SMALL, new.id: SMALL})
        self.assert_discarded({messages[0].id: SMALL, new.id: SMALL})

    def test_text(self) -> None:
        """A text in its place."""
        self.try_key("ab")

    def test_octets(self) -> None:
        """Octets in its place."""
        self.try_key(b"\1\2")

    def test_real(self) -> None:
        """A number that is no whole one in its place, however high."""
        self.try_key(1e300)

    def test_highest(self) -> None:
        """The highest number that there is: keys are not counted on from it."""
        self.try_key((1 << 63) - 2)
        self.assertIn("1 messages are set aside", self.said("is damaged: ")[0])

    def test_negative(self) -> None:
        """A number below all keys."""
        self.try_key(-7)

    def test_one_bit(self) -> None:
        """One bit of what says the value's type, in the file itself."""
        messages = self.fill(SMALL, SMALL, SMALL)
        octets = bytearray(Path(self.database).read_bytes())
        # A record begins with its header's length, then come the types: of the body key (1: one
        # octet), of the id (44: 16 octets); the values follow in that order.
        identity = bytes.fromhex(messages[2].id)
        places = [
            at
            for at in range(len(octets) - 30)
            if octets[at + 1 : at + 3] == b"\1\x2c" and octets[at] < 30
            if octets[at + octets[at] + 1 :].startswith(identity)
        ]
        (at,) = places
        for bit in (1, 2, 4, 8, 16, 32, 64):
            damaged = bytearray(octets)
            damaged[at + 1] ^= bit
            Path(self.database).write_bytes(damaged)
            spool = self.open()
            found = {each.id for each in self.enumerated(spool)}
            self.assertLessEqual({each.id for each in messages[:2]}, found)
            self.store(spool)
            self.successResultOf(spool.close())

    def test_no_keys_left(self) -> None:
        """A key just below the limit leaves none: stores fail and the log says why, once a minute;
        when the record is discarded all is well."""
        messages = self.fill(SMALL, SMALL)
        self.damage("UPDATE message SET body = ? WHERE due = ?", KEY_LIMIT - 1, messages[1].due)
        spool = self.open()
        for _ in range(3):
            refused = spool.store(SMALL, [make_message()])
            failure = self.failureResultOf(refused, SpoolError)
            self.assertIn("no body keys left", str(failure.value))
        (line,) = self.said("refuses mail (451)")
        self.assertIn("kumo spool check --discard", line)
        self.clock.advance(QUIET_TIME)
        self.failureResultOf(spool.store(SMALL, [make_message()]), SpoolError)
        self.assertEqual(len(self.said("refuses mail (451)")), 2)
        self.successResultOf(spool.close())
        self.assert_discarded({messages[0].id: SMALL})
        self.store(self.open())

    def test_defect_at_opening(self) -> None:
        """Whatever a start ends with is an error of the spool, and the directory is free again."""

        def defect(database: Database) -> int:
            raise TypeError("of two kinds")

        self.fill(SMALL)
        with contextlib.ExitStack() as stack:
            patch = self.patch(Database, "last_key", defect)
            stack.callback(patch.restore)
            self.assertIn("TypeError: of two kinds", self.start_refusal())
        self.assertEqual(len(self.delivered()), 1)


class IdTests(OddRecordTestCase):
    """An id of another type than was stored."""

    def try_id(self, expression: str) -> None:
        """Damage an id: the record is set aside, and can be discarded."""
        messages = self.fill(SMALL, SMALL)
        self.damage(f"UPDATE message SET id = {expression} WHERE due = ?", messages[1].due)
        spool = self.open()
        self.assertEqual([each.id for each in self.enumerated(spool)], [messages[0].id])
        self.assertEqual(len(self.said("set aside, never to be delivered")), 1)
        self.successResultOf(spool.close())
        self.assert_discarded({messages[0].id: SMALL})

    def test_text(self) -> None:
        """Another text."""
        self.try_id("'abc'")

    def test_same_octets(self) -> None:
        """A text of the same octets, as one bit of its type makes it: no removal would find it, so
        it would be delivered again after each start."""
        self.try_id("CAST(id AS TEXT)")

    def test_number(self) -> None:
        """A number."""
        self.try_id("5")

    def test_many(self) -> None:
        """A page of an enumeration that ends with such a record does not hide what follows."""
        spool = self.open()
        messages = [make_message(1) for _ in range(1200)]
        done = spool.store(SMALL, messages)
        self.clock.advance(0)
        self.successResultOf(done)
        self.successResultOf(spool.close())
        with contextlib.closing(sqlite3.connect(self.database)) as other:
            other.execute(
                "UPDATE message SET id = 'x' || hex(id) WHERE id IN "
                "(SELECT id FROM message ORDER BY due, body, id LIMIT 500)"
            )
            other.commit()
        spool = self.open()
        self.assertEqual(len(self.enumerated(spool)), 700)
        self.successResultOf(spool.close())
        self.assertEqual(self.check("--discard", status=0)["discarded"], 500)
        self.assertEqual(len(self.delivered()), 700)


class PlaceTests(OddRecordTestCase):
    """A large body's place that cannot be."""

    def test_start(self) -> None:
        """The node starts, deletes no segment, and the check finds the body again."""
        for column, value in (
            ("segment", "x"),
            ("segment", -1),
            ("offset", b"x"),
            ("size", 1e300),
            ("size", (1 << 63) - 1),
        ):
            self.path = os.path.abspath(self.mktemp())
            self.database = os.path.join(self.path, "spool.sqlite3")
            one, two = self.fill(LARGE, LARGE)
            self.damage(f"UPDATE large SET {column} = ? WHERE key = ?", value, two.body_key)
            spool = self.open()
            self.assertIn("1 bodies cannot be read", self.said("is damaged: ")[-1])
            self.failureResultOf(spool.load(two), DamagedBodyError)
            self.assertEqual(self.successResultOf(spool.load(one)), LARGE)
            removed = spool.remove([one])
            self.clock.advance(0)
            self.successResultOf(removed)
            self.successResultOf(spool.close())
            self.check(status=0)
            self.assertEqual(self.delivered(), {two.id: LARGE})

    def test_removal(self) -> None:
        """A message whose body cannot be found can be removed."""
        (message,) = self.fill(LARGE)
        self.damage("UPDATE large SET segment = 'x' WHERE key = ?", message.body_key)
        spool = self.open()
        removed = spool.remove([message])
        self.clock.advance(0)
        self.successResultOf(removed)
        self.successResultOf(spool.close())
        self.assertEqual(self.check(status=0)["findings"], [])
