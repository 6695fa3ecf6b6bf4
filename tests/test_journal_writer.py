"""Records in files: on time, whole, in files of the right size, and never in the way."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import IJournal
from kumotwist.journal import JournalWriter, LogSettings, writer
from kumotwist.journal.segments import Segment, segment_name

START = 1751365957.25


class FullDisk:
    """Makes files that refuse to grow while C{full} is set."""

    def __init__(self) -> None:
        self.full = True
        self.opened = 0

    def __call__(self, path: Path) -> Segment:
        """Open a segment that asks C{full} before each write."""
        self.opened += 1
        disk = self

        class FailingSegment(Segment):
            def write(self, data: bytes) -> None:
                if disk.full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                super().write(data)

        return FailingSegment(path)


class WriterTestCase(SynchronousTestCase):
    """A writer in an empty directory on a simulated clock."""

    def setUp(self) -> None:
        """Begin at a known time."""
        self.clock = Clock()
        self.clock.advance(START)
        self.directory = Path(self.mktemp()) / "state" / "log"

    def writer(self, open_segment: Any = Segment, **settings: Any) -> JournalWriter:
        """Make a writer that is closed in the end."""
        made = JournalWriter(
            self.clock, LogSettings(**settings), self.directory, open_segment=open_segment
        )
        self.addCleanup(made.close)
        return made

    def files(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.directory.iterdir())

    def numbers(self) -> list[int]:
        """The C{n} of every record in every file, in order."""
        return [
            json.loads(line)["n"] for file in self.files() for line in file.read_text().splitlines()
        ]


class JournalWriterTests(WriterTestCase):
    """What every user of the records relies on."""

    def test_interface(self) -> None:
        """It is a journal."""
        verifyObject(IJournal, self.writer())

    def test_within_a_second(self) -> None:
        """A record can be read within a second, by one timer for all that come meanwhile."""
        journal = self.writer()
        for number in range(5):
            journal.record({"n": number})
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(0.9)
        self.assertEqual(self.numbers(), [0, 1, 2, 3, 4])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        """Under load nothing waits for the timer."""
        journal = self.writer()
        for number in range(3000):
            journal.record({"n": number, "text": "x" * 80})
        self.assertGreater(len(self.numbers()), 2000)

    def test_name_and_mode(self) -> None:
        """A file has the time it was begun as its name; others cannot read it."""
        self.writer().record({"n": 1})
        self.clock.advance(0.5)
        (file,) = self.files()
        self.assertEqual(file.name, "20250701-103237.750000.jsonl")
        self.assertEqual(file.stat().st_mode & 0o137, 0)

    def test_nothing_without_records(self) -> None:
        """Without a record there is no file, not even a directory."""
        journal = self.writer()
        self.clock.advance(100)
        journal.close()
        self.assertFalse(self.directory.exists())

    def test_rotation_by_size(self) -> None:
        """Files stay below their size, under load too, and no record is lost or split."""
        journal = self.writer(max_file_size=1000)
        for number in range(200):
            journal.record({"n": number, "text": "x" * 30})
        journal.close()
        self.assertEqual(self.numbers(), list(range(200)))
        self.assertGreater(len(self.files()), 5)
        self.assertTrue(all(file.stat().st_size <= 1000 for file in self.files()))

    def test_large_record(self) -> None:
        """A record that is larger than a file may be has a file of its own."""
        journal = self.writer(max_file_size=100)
        for number in range(3):
            journal.record({"n": number, "text": "x" * 500})
        journal.close()
        self.assertEqual([file.stat().st_size > 500 for file in self.files()], [True] * 3)

    def test_rotation_by_age(self) -> None:
        """A file is finished when its time is over, idle or not."""
        journal = self.writer(max_segment_duration=10.0)
        for number in range(25):
            journal.record({"n": number})
            self.clock.advance(1)
        self.assertEqual(len(self.files()), 3)
        self.clock.advance(60)
        self.assertEqual(len(self.files()), 3)
        self.assertEqual(self.numbers(), list(range(25)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_finished_is_read_only(self) -> None:
        """A finished file is read-only: those who ship files know it by that."""
        journal = self.writer(max_segment_duration=10.0)
        journal.record({"n": 1})
        self.clock.advance(1)
        self.assertEqual(self.files()[0].stat().st_mode & 0o200, 0o200)
        self.clock.advance(10)
        self.assertEqual(self.files()[0].stat().st_mode & 0o222, 0)

    def test_new_file_for_each_start(self) -> None:
        """The half line that a kill left behind is not continued."""
        self.directory.mkdir(parents=True)
        killed = self.directory / segment_name(START + writer.FLUSH_DELAY)
        killed.write_text('{"n": 1}\n{"n":')
        journal = self.writer()
        journal.record({"n": 2})
        self.clock.advance(0.5)
        self.assertEqual(killed.read_text(), '{"n": 1}\n{"n":')
        self.assertEqual(self.files()[1].read_text(), '{"n":2}\n')

    def test_clock_set_back(self) -> None:
        """Files sort in the order in which they were written, whatever the clock does."""
        journal = self.writer(max_file_size=1)
        journal.record({"n": 1})
        self.clock.rightNow -= 3600
        journal.record({"n": 2})
        self.assertEqual(self.numbers(), [1, 2])

    def test_close(self) -> None:
        """Closing writes what waits; what comes later is counted as lost."""
        journal = self.writer()
        journal.record({"n": 1})
        journal.close()
        journal.close()
        journal.record({"n": 2})
        self.assertEqual(self.numbers(), [1])
        self.assertEqual(journal.dropped, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_odd_values(self) -> None:
        """A record is one line of ASCII whatever is in it."""
        journal = self.writer()
        journal.record({"n": 1, "text": "ü\u2028\n\ud800", "path": Path("x")})
        journal.close()
        data = self.files()[0].read_bytes()
        self.assertTrue(data.isascii())
        self.assertEqual(data.count(b"\n"), 1)


class OutageTests(WriterTestCase):
    """A disk that takes nothing delays records and hurts nobody."""

    def test_full_disk(self) -> None:
        """Records wait for room, in order; files without a line do not pile up."""
        disk = FullDisk()
        journal = self.writer(disk)
        for number in range(10):
            journal.record({"n": number})
            self.clock.advance(1)
        self.assertGreater(disk.opened, 5)
        self.assertEqual(self.files(), [])
        disk.full = False
        self.clock.advance(1)
        self.assertEqual(self.numbers(), list(range(10)))
        self.assertEqual(journal.dropped, 0)

    def test_log(self) -> None:
        """The operator is told once that it begins and once that it is over."""
        disk = FullDisk()
        log = _Log()
        self.patch(JournalWriter, "_log", log)
        journal = self.writer(disk)
        journal.record({"n": 1})
        self.clock.pump([1] * 10)
        self.assertEqual(len(log.texts), 1)
        self.assertIn("No space left", log.texts[0])
        disk.full = False
        self.clock.advance(1)
        self.assertEqual(len(log.texts), 2)
        self.assertIn("written again", log.texts[1])

    def test_bounded(self) -> None:
        """What waits is bounded; the newest records are lost, counted, and reported once."""
        self.patch(writer, "MAX_BACKLOG", 1000)
        log = _Log()
        self.patch(JournalWriter, "_log", log)
        disk = FullDisk()
        journal = self.writer(disk)
        for number in range(200):
            journal.record({"n": number})
        self.clock.advance(1)
        kept = 200 - journal.dropped
        self.assertLess(kept, 120)
        disk.full = False
        self.clock.advance(2)
        self.assertEqual(self.numbers(), list(range(kept)))
        self.assertEqual(len(log.texts), 3)
        self.assertIn(f"{journal.dropped} were lost", log.texts[2])

    def test_load_does_not_try_again(self) -> None:
        """During an outage the disk is asked once a second, not for every record."""
        disk = FullDisk()
        journal = self.writer(disk)
        for _ in range(5000):
            journal.record({"n": 1, "text": "x" * 80})
        self.assertEqual(disk.opened, 1)

    def test_close_during_outage(self) -> None:
        """What cannot be written at the end is counted as lost."""
        journal = self.writer(FullDisk())
        journal.record({"n": 1})
        journal.close()
        self.assertEqual(journal.dropped, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_directory_is_a_file(self) -> None:
        """A directory that cannot be one is an outage like any other."""
        self.directory.parent.mkdir(parents=True)
        self.directory.write_text("")
        journal = self.writer()
        journal.record({"n": 1})
        self.clock.advance(1)
        self.directory.unlink()
        self.clock.advance(1)
        self.assertEqual(self.numbers(), [1])


class SegmentTests(SynchronousTestCase):
    """A file holds whole batches."""

    def test_partial_write_is_taken_back(self) -> None:
        """When the disk fills up in the middle of a batch, its beginning is removed again."""
        path = Path(self.mktemp())
        segment = Segment(path)
        segment.write(b"first\n")
        real_write = os.write
        results = [lambda fd, data: real_write(fd, data[:3]), _no_space]
        self.patch(os, "write", lambda fd, data: results.pop(0)(fd, data))
        self.assertRaises(OSError, segment.write, b"second\n")
        self.assertEqual(path.read_bytes(), b"first\n")
        self.assertEqual(segment.size, 6)
        segment.close()


def _no_space(descriptor: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Log:
    """Keeps what an operator would read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def error(self, text: str, **facts: Any) -> None:
        """Keep an error."""
        self.texts.append(text.format(**facts))

    warn = error
