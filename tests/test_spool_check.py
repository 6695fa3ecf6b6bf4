"""C{kumo spool}: what is verified, repaired, listed and exported."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import attrs
from click.testing import CliRunner, Result
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.cli.main import main
from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import SQLiteSpool
from kumotwist.spool.bodies import find_records, record_header
from kumotwist.spool.survey import Survey
from tests.spool_support import LARGE, SMALL, make_message, make_spool


class SpoolCommandTestCase(SynchronousTestCase):
    """A spool that was filled and closed, and the command."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = os.path.abspath(self.mktemp())
        self.database = os.path.join(self.path, "spool.sqlite3")

    def open(self) -> SQLiteSpool:
        """Open the spool."""
        spool = make_spool(self.clock, self.path)
        self.successResultOf(spool.open())
        self.addCleanup(spool.close)
        return spool

    def fill(self, *bodies: bytes, shared: int = 1) -> list[QueuedMessage]:
        """Store bodies, each for some recipients, and close the spool."""
        spool = self.open()
        stored = []
        for number, body in enumerate(bodies):
            messages = [make_message(number * 10 + each, body) for each in range(shared)]
            done = spool.store(body, messages)
            self.clock.advance(0)
            self.successResultOf(done)
            stored += messages
        self.successResultOf(spool.close())
        return stored

    def delivered(self) -> dict[str, bytes]:
        """What a node would find: bodies by message id."""
        spool = self.open()
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        bodies = {each.id: self.successResultOf(spool.load(each)) for each in found}
        self.successResultOf(spool.close())
        return bodies

    def damage(self, statement: str, *values: object) -> None:
        """Change the database behind the spool's back."""
        with contextlib.closing(sqlite3.connect(self.database)) as other:
            self.assertGreater(other.execute(statement, values).rowcount, 0)
            other.commit()

    def start_refusal(self) -> str:
        """What a node says that does not start."""
        return str(self.failureResultOf(make_spool(self.clock, self.path).open()).value)

    def kumo(self, *arguments: str) -> Result:
        """Run C{kumo spool}."""
        command, *rest = arguments
        return CliRunner().invoke(main, ["spool", command, "--path", self.path, *rest])

    def check(self, *options: str, status: int) -> dict[str, Any]:
        """Run C{kumo spool check --json}, and see its exit status."""
        result = self.kumo("check", "--json", *options)
        self.assertEqual(result.exit_code, status, result.output)
        report: dict[str, Any] = json.loads(result.stdout)
        return report


class CheckTests(SpoolCommandTestCase):
    """What C{kumo spool check} finds."""

    def test_sound(self) -> None:
        """A sound spool is said to be so, with what it holds."""
        self.fill(SMALL, LARGE, shared=2)
        report = self.check(status=0)
        self.assertEqual(
            (report["messages"], report["bodies"], report["octets"], report["findings"]),
            (4, 2, len(SMALL) + len(LARGE), []),
        )
        self.assertIn("0 repaired, 0 damaged", self.kumo("check").stdout)

    def test_owned(self) -> None:
        """A spool that a node has is left alone; the answer names the process."""
        self.fill(SMALL)
        spool = self.open()
        result = self.kumo("check")
        self.assertEqual(result.exit_code, 2)
        self.assertIn(f"in use by process {os.getpid()}", result.stderr)
        self.assertEqual(self.kumo("list").exit_code, 0)
        self.successResultOf(spool.close())
        self.assertEqual(self.kumo("check").exit_code, 0)

    def test_no_spool(self) -> None:
        """Where no spool is, none is made."""
        for command in (("check",), ("list",), ("export", "--all")):
            result = self.kumo(*command)
            self.assertEqual(result.exit_code, 2)
            self.assertIn("there is no spool", result.stderr)
        self.assertFalse(os.path.exists(self.path))

    def test_damaged_ones(self) -> None:
        """Damaged records and bodies are listed with their messages; the others are not."""
        messages = self.fill(SMALL, SMALL, LARGE, SMALL)
        self.damage("UPDATE message SET sender = 'x' WHERE due = ?", messages[0].due)
        self.damage("UPDATE small SET content = x'00' WHERE key = ?", messages[1].body_key)
        with open(os.path.join(self.path, "segments", "00000001.seg"), "r+b") as segment:
            segment.seek(1000)
            segment.write(b"?")
        for _ in range(2):
            report = self.check(status=1)
            self.assertEqual(
                [(each["kind"], each["messages"][0]["id"]) for each in report["findings"]],
                [
                    ("record", messages[0].id),
                    ("body", messages[1].id),
                    ("body", messages[2].id),
                ],
            )

    def test_discard(self) -> None:
        """What stays damaged is forgotten when asked, with bodies that nobody has."""
        messages = self.fill(SMALL, SMALL, LARGE)
        self.damage("UPDATE message SET sender = 'x' WHERE due = ?", messages[0].due)
        self.damage("DELETE FROM message WHERE body = ?", messages[2].body_key)
        report = self.check(status=1)
        self.assertEqual([each["kind"] for each in report["findings"]], ["record", "unreferenced"])
        self.assertEqual(self.check("--discard", status=0)["discarded"], 1)
        self.assertEqual(self.check(status=0)["findings"], [])
        self.assertEqual(self.delivered(), {messages[1].id: SMALL})

    def test_lost_places(self) -> None:
        """Large bodies whose place the database lost or has wrong are found again."""
        messages = self.fill(LARGE, LARGE * 2, LARGE * 3, shared=2)
        keys = [each.body_key for each in messages[::2]]
        self.damage("DELETE FROM large WHERE key = ?", keys[0])
        self.damage("UPDATE large SET offset = offset + 1 WHERE key = ?", keys[1])
        self.damage("UPDATE large SET size = 1 << 60, crc = 'x' WHERE key = ?", keys[2])
        report = self.check("--dry-run", status=1)
        self.assertEqual([each["repaired"] for each in report["findings"]], [None] * 3)
        report = self.check(status=0)
        self.assertEqual([bool(each["repaired"]) for each in report["findings"]], [True] * 3)
        self.assertEqual(self.check(status=0)["findings"], [])
        sizes = [each.size for each in messages]
        self.assertEqual(sorted(map(len, self.delivered().values())), sizes)

    def test_broken_pages(self) -> None:
        """A database whose pages are damaged is written anew from what can be read; the old one
        is kept."""
        messages = self.fill(*[SMALL * 30] * 60, LARGE)
        with contextlib.closing(sqlite3.connect(self.database)) as other:
            root = other.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'message_due'"
            ).fetchone()[0]
        with open(self.database, "r+b") as file:
            file.seek((root - 1) * 4096)
            file.write(b"\xff" * 4096)
        before = Path(self.database).read_bytes()
        report = self.check(status=0)
        self.assertEqual({each["kind"] for each in report["findings"]}, {"database"})
        self.assertEqual(report["messages"], 61)
        self.assertEqual(Path(self.aside("spool.sqlite3")).read_bytes(), before)
        self.assertEqual(self.check(status=0)["findings"], [])
        self.assertEqual(set(self.delivered()), {each.id for each in messages})

    def test_broken_table(self) -> None:
        """When a page of the messages is gone, the others are kept and the loss is listed."""
        self.fill(*[SMALL * 30] * 60)
        with contextlib.closing(sqlite3.connect(self.database)) as other:
            leaf = other.execute(
                "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf' "
                "ORDER BY path LIMIT 1 OFFSET 1"
            ).fetchone()[0]
        with open(self.database, "r+b") as file:
            file.seek((leaf - 1) * 4096)
            file.write(b"\xff" * 4096)
        self.assertIn("kumo spool check", self.refusal())
        report = self.check(status=1)
        lost = [each for each in report["findings"] if each["kind"] == "unreferenced"]
        self.assertGreater(report["messages"], 20)
        self.assertEqual(report["messages"] + len(lost), 60)
        self.assertEqual(len(self.delivered()), report["messages"])

    def refusal(self) -> str:
        """What the node says of a broken database."""
        spool = self.open()
        failure = self.failureResultOf(spool.enumerate(lambda batch: None))
        self.successResultOf(spool.close())
        return str(failure.value)

    def test_no_database(self) -> None:
        """A file that is no database is listed as damaged, and replaced; the old one is kept."""
        self.fill(SMALL)
        with open(self.database, "wb") as file:
            file.write(b"nothing of that kind" * 1000)
        report = self.check("--dry-run", status=1)
        self.assertIn("not a database", report["findings"][0]["problem"])
        report = self.check(status=1)
        self.assertIn("not all of it could be read", report["findings"][-1]["problem"])
        self.assertEqual(self.delivered(), {})
        self.assertTrue(os.path.exists(self.aside("spool.sqlite3")))

    def test_broken_header(self) -> None:
        """Whatever of the first page is damaged, all messages are read, and nothing is lost."""
        expected = {each.id for each in self.fill(*[SMALL] * 40, *[LARGE] * 9)}
        sound = Path(self.database).read_bytes()
        for number, (start, octets) in enumerate(
            [
                (0, b"\0" * 16),
                (16, b"\xff\xff"),
                (28, b"\xff" * 4),
                (28, b"\0\0\0\1"),
                (0, b"?" * 4096),
            ]
        ):
            damaged = sound[:start] + octets + sound[start + len(octets) :]
            Path(self.database).write_bytes(damaged)
            self.assertEqual(self.check("--dry-run", status=1)["messages"], 49)
            self.assertEqual(Path(self.database).read_bytes(), damaged)
            report = self.check(status=0)
            self.assertEqual(report["messages"], 49, start)
            kept = self.aside("spool.sqlite3", number + 1)
            self.assertEqual(Path(kept).read_bytes(), damaged)
            self.assertEqual(set(self.delivered()), expected)

    def test_cut_short(self) -> None:
        """Of a database that lost its end the rest is read; the check says that something is
        missing, and the bodies that nobody refers to any more are kept."""
        messages = self.fill(*[SMALL * 30] * 60, *[LARGE] * 30)
        size = os.path.getsize(self.database)
        os.truncate(self.database, size - 3 * 4096)
        foreseen = self.check("--dry-run", status=1)
        self.assertEqual(os.path.getsize(self.database), size - 3 * 4096)
        self.assertFalse(os.path.exists(self.aside("")))
        report = self.check(status=1)
        self.assertEqual(foreseen["messages"], report["messages"])
        self.assertGreater(report["messages"], 0)
        self.assertIn("not all of it could be read", str(report["findings"]))
        self.assertEqual(os.path.getsize(self.aside("spool.sqlite3")), size - 3 * 4096)
        self.assertEqual(
            sorted(os.listdir(self.path)), ["lock", "segments", "set-aside", "spool.sqlite3"]
        )
        spool = self.open()
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        self.assertEqual(len(found), report["messages"])
        self.assertLess(len(found), len(messages))
        done = spool.store(SMALL, [make_message(9999)])
        self.clock.advance(0)
        self.successResultOf(done)
        self.successResultOf(spool.close())

    def test_set_aside(self) -> None:
        """Large bodies that no row refers to after a repair are kept beside; a start does not
        touch them."""
        self.fill(*[LARGE] * 3)
        Path(self.database).write_bytes(b"?" * os.path.getsize(self.database))
        self.assertIn("3 bodies", self.check("--dry-run", status=1)["set_aside"][0])
        result = self.kumo("check")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("set aside: ", result.stdout)
        self.assertIn("1 damaged", result.stdout)
        self.assertEqual(self.delivered(), {})
        kept = self.aside(os.path.join("segments", "00000001.seg"))
        self.assertEqual([place.size for _, place, _ in find_records(kept)], [len(LARGE)] * 3)

    def test_discard_of_unread(self) -> None:
        """To discard does not make a check succeed that could not read the whole database."""
        self.fill(SMALL)
        Path(self.database).write_bytes(b"?" * os.path.getsize(self.database))
        self.check("--discard", status=1)
        self.check("--discard", status=0)

    def test_missing_database(self) -> None:
        """Where only the database is missing or empty, a node refuses to start and deletes
        nothing; the check sets the rest aside, and then a node starts."""
        self.fill(LARGE)
        segment = os.path.join(self.path, "segments", "00000001.seg")
        before = Path(segment).read_bytes()
        Path(f"{self.database}-wal").write_bytes(b"what was committed last")
        Path(self.database).write_bytes(b"")
        self.assertIn("missing or empty", self.start_refusal())
        os.unlink(self.database)
        refusal = self.start_refusal()
        for part in (f"{self.database} is missing", "-wal and 1 more", "kumo spool check"):
            self.assertIn(part, refusal)
        self.assertFalse(os.path.exists(self.database))
        report = self.check("--dry-run", status=1)
        self.assertEqual(report["set_aside"], [f"{self.database}-wal", segment])
        self.assertEqual(Path(segment).read_bytes(), before)
        self.assertEqual(len(self.check(status=1)["set_aside"]), 2)
        self.assertEqual(self.delivered(), {})
        kept = self.aside(os.path.join("segments", "00000001.seg"))
        self.assertEqual(Path(kept).read_bytes(), before)
        self.assertTrue(os.path.exists(self.aside("spool.sqlite3-wal")))

    def aside(self, name: str, number: int = 1) -> str:
        """Where a check puts what it takes out."""
        return os.path.join(self.path, "set-aside", str(number), name)


class ListTests(SpoolCommandTestCase):
    """What C{kumo spool list} and C{export} show."""

    def test_list(self) -> None:
        """Messages by due time, one a line; what a peer wrote cannot disturb the terminal."""
        messages = self.fill(SMALL, SMALL, SMALL)
        self.damage("UPDATE message SET sender = 'x' || char(27) WHERE due = ?", messages[1].due)
        result = self.kumo("list", "--limit", "2")
        lines = result.stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], [each.id for each in messages[:2]])
        self.assertIn("<x\\x1b>", lines[1])
        self.assertTrue(lines[1].endswith("DAMAGED"))
        self.assertIn("3 messages, 2 shown", result.stderr)
        parsed = [json.loads(line) for line in self.kumo("list", "--json").stdout.splitlines()]
        self.assertEqual([each["damage"] is None for each in parsed], [True, False, True])
        self.assertEqual(parsed[0]["recipient"], "user0@example.net")

    def test_configuration(self) -> None:
        """The configuration says where the spool is."""
        self.fill(SMALL)
        config = os.path.abspath(self.mktemp())
        with open(config, "w") as file:
            file.write(f"[spool]\npath = {self.path}\n")
        result = CliRunner().invoke(main, ["spool", "list", "-c", config])
        self.assertEqual(len(result.stdout.splitlines()), 1, result.output)
        result = CliRunner().invoke(main, ["spool", "list", "-c", config + "-none"])
        self.assertEqual(result.exit_code, 2)

    def test_export_all(self) -> None:
        """Each message becomes an .eml file as it was received, and its envelope beside it."""
        messages = self.fill(SMALL, LARGE, shared=2)
        target = self.mktemp()
        result = self.kumo("export", "--all", "--to", target)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(len(os.listdir(target)), 8)
        for message in messages:
            name = os.path.join(target, message.id)
            self.assertEqual(os.stat(f"{name}.eml").st_mode & 0o777, 0o600)
            with open(f"{name}.eml", "rb") as eml:
                self.assertEqual(len(eml.read()), message.size)
            with open(f"{name}.json") as envelope:
                facts = json.load(envelope)
            self.assertEqual(facts["recipient"], message.recipient)
            self.assertEqual(facts["meta"], message.meta)

    def test_export_some(self) -> None:
        """Messages by their ids; what is damaged or missing is told, the rest is written."""
        messages = self.fill(SMALL, SMALL, SMALL)
        self.damage("UPDATE small SET content = x'00' WHERE key = ?", messages[1].body_key)
        target = self.mktemp()
        wanted = [messages[0].id, messages[1].id, "0" * 32]
        result = self.kumo("export", *wanted, "--to", target)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("is damaged", result.stderr)
        self.assertIn(f"{'0' * 32}: there is no such message", result.stderr)
        self.assertEqual(
            sorted(os.listdir(target)),
            sorted([f"{wanted[0]}.eml", f"{wanted[0]}.json", f"{wanted[1]}.json"]),
        )
        self.assertEqual(self.kumo("export").exit_code, 2)

    def test_export_while_delivered(self) -> None:
        """A message that is delivered while others are written is no damage, and not counted."""
        messages = self.fill(SMALL, SMALL, SMALL)
        body = Survey.body

        def body_after_delivery(survey: Survey, message: QueuedMessage) -> bytes:
            if message.id == messages[0].id:
                for table, column in (("message", "body"), ("small", "key")):
                    self.damage(f"DELETE FROM {table} WHERE {column} = ?", messages[1].body_key)
            return body(survey, message)

        self.patch(Survey, "body", body_after_delivery)
        target = self.mktemp()
        result = self.kumo("export", "--all", "--to", target)
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("2 messages written", result.stderr)
        self.assertEqual(len(os.listdir(target)), 4)

    def test_export_of_one_name(self) -> None:
        """Two messages that have the same id, as damage can bring it about, become two files."""
        spool = self.open()
        for body in (SMALL, SMALL + b"other"):
            done = spool.store(body, [attrs.evolve(make_message(1, body), id="ab" * 16)])
            self.clock.advance(0)
            self.successResultOf(done)
        self.successResultOf(spool.close())
        target = self.mktemp()
        result = self.kumo("export", "--all", "--to", target)
        self.assertIn("2 messages written", result.stderr)
        self.assertEqual(len([each for each in os.listdir(target) if each.endswith(".eml")]), 2)

    def test_export_without_a_segment(self) -> None:
        """A body that cannot be read at all does not keep the others from being written."""
        messages = self.fill(LARGE, SMALL)
        segment = os.path.join(self.path, "segments", "00000001.seg")
        os.unlink(segment)
        os.mkdir(segment)
        target = self.mktemp()
        result = self.kumo("export", "--all", "--to", target)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("1 messages written", result.stderr)
        self.assertIn(messages[0].id, result.stderr)


class SearchTests(SynchronousTestCase):
    """Finding records in a segment file."""

    def test_inside_a_record(self) -> None:
        """A message that contains a record gives nothing of its own; what follows is found."""

        def record(key: int, body: bytes) -> bytes:
            return record_header(key, len(body), zlib.crc32(body), 0) + body

        forged = record(7, b"forged")
        folder = self.mktemp()
        os.mkdir(folder)
        path = os.path.join(folder, "00000001.seg")
        with open(path, "wb") as file:
            file.write(b"KTb" + record(3, b"a" + forged + b"b") + b"KTb1" + record(5, b"c") + b"KT")
        found = [(key, place.offset, place.size) for key, place, _ in find_records(path)]
        self.assertEqual(found, [(3, 3, len(forged) + 2), (5, 3 + 24 + len(forged) + 2 + 4, 1)])
