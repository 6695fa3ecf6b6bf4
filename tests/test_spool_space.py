"""Segments in which little is needed any more are emptied."""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import Disk, SQLiteSpool
from kumotwist.spool.bodies import MAX_MOVES, find_records, segment_path
from kumotwist.spool.sqlite_spool import SHRINK_DELAY, SHRINK_INTERVAL
from tests.spool_support import InlineWorker, SteppedWorker, make_message, make_spool

BODY = b"Subject: x\r\n\r\n" + b"0123456789" * 200
#: How many bodies fill a segment of the tests.
FILL = 10


class SurvivorTests(SynchronousTestCase):
    """A few that stay do not keep the space of the many that went."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()
        self.spool = self.open()

    def open(self, **settings: object) -> SQLiteSpool:
        """Open the spool."""
        spool = make_spool(self.clock, self.path, **settings)  # type: ignore[arg-type]
        self.successResultOf(spool.open())
        self.addCleanup(spool.close)
        return spool

    def store(self, number: int = FILL) -> list[QueuedMessage]:
        """Store bodies, as many as fill a segment."""
        messages = [make_message(each, BODY) for each in range(number)]
        for message in messages:
            self.spool.store(BODY, [message])
            self.clock.advance(0)
        self.assertTrue(all(message.body_key for message in messages))
        return messages

    def remove(self, messages: list[QueuedMessage]) -> None:
        """Remove messages, then let it be quiet for a while."""
        self.spool.remove(messages)
        self.clock.advance(0)
        self.rest()

    def rest(self) -> None:
        """Let it be quiet."""
        self.clock.advance(SHRINK_DELAY)
        self.clock.pump([SHRINK_INTERVAL] * 20)

    def segments(self) -> list[str]:
        """The segment files."""
        return sorted(os.listdir(os.path.join(self.path, "segments")))

    def check(self, messages: list[QueuedMessage]) -> None:
        """Each can be read; then also after the spool was closed and opened again."""
        for _ in range(2):
            for message in messages:
                self.assertEqual(self.successResultOf(self.spool.load(message)), BODY)
            self.successResultOf(self.spool.close())
            self.spool = self.open()

    def octets(self) -> int:
        """What all segments have together."""
        return sum(
            os.path.getsize(os.path.join(self.path, "segments", name)) for name in self.segments()
        )

    def test_survivors_move(self) -> None:
        """Those that stay of several bursts end up together, and the old files are gone."""
        stay = []
        for _ in range(4):
            burst = self.store()
            stay.append(burst[3])
            self.store(1)
            self.remove(burst[:3] + burst[4:])
        self.assertNotIn("00000001.seg", self.segments())
        self.assertLess(self.octets(), 14 * len(BODY))
        self.check(stay)

    def test_bounded(self) -> None:
        """No body is moved more than C{MAX_MOVES} times, however many die around it."""
        burst = self.store()
        stay = burst[0]
        self.remove(burst[1:])
        moves = []
        for _ in range(MAX_MOVES + 2):
            mates = []
            for _ in range(FILL + 1):
                burst = self.store()
                mates.append(burst[0])
                self.remove(burst[1:])
            self.remove(mates)
            moves.append(self.moves_of(stay))
        self.assertEqual(moves[-1], MAX_MOVES)
        self.assertEqual(moves, sorted(moves))
        self.check([stay])

    def moves_of(self, message: QueuedMessage) -> int:
        """How often the file says that a body was moved."""
        for name in self.segments():
            path = os.path.join(self.path, "segments", name)
            for key, place, _ in find_records(path):
                if key == message.body_key:
                    with open(segment_path(os.path.dirname(path), place.segment), "rb") as file:
                        file.seek(place.offset + 3)
                        return int(file.read(1)) - 1
        raise AssertionError("it is nowhere")

    def test_damaged_stays(self) -> None:
        """A damaged survivor is left where it is, and the others move."""
        burst = self.store(20)
        self.store(1)
        with open(os.path.join(self.path, "segments", "00000001.seg"), "r+b") as file:
            file.seek(100)
            file.write(b"?")
        self.remove(burst[2:])
        self.assertIn("00000001.seg", self.segments())
        self.assertEqual(self.successResultOf(self.spool.load(burst[1])), BODY)
        self.failureResultOf(self.spool.load(burst[0]))
        self.flushLoggedErrors()

    def test_full_disk(self) -> None:
        """When there is no room to move anything, nothing is moved, and it is tried later."""
        self.successResultOf(self.spool.close())
        disk = TightDisk()
        self.spool = self.open(disk=disk)
        burst = self.store()
        others = self.store(1)
        disk.full = True
        self.remove(burst[1:])
        before = self.segments()
        self.assertIn(before[0], self.segments())
        disk.full = False
        self.remove(others)
        self.assertNotIn(before[0], self.segments())
        self.check(burst[:1])

    def test_read_while_moved(self) -> None:
        """A body that moves between the look at its place and the read is found."""
        burst = self.store()
        self.store(1)
        self.successResultOf(self.spool.close())
        disk = TightDisk()
        self.spool = self.open(disk=disk)
        disk.before_read = lambda: self.remove(burst[1:])
        self.assertEqual(self.successResultOf(self.spool.load(burst[0])), BODY)
        self.assertNotIn("00000001.seg", self.segments())

    def test_under_load(self) -> None:
        """When it is never quiet, a step is taken between two commits after some seconds."""
        self.successResultOf(self.spool.close())
        workers: dict[str, object] = {}

        def make_worker(name: str) -> object:
            worker = InlineWorker() if "reader" in name else LazyWorker()
            workers[name] = worker
            return worker

        self.spool = self.open(make_worker=make_worker)
        writer = workers["spool-writer"]
        assert isinstance(writer, LazyWorker)
        burst = self.store()
        self.store(1)
        before = self.segments()[0]
        self.spool.remove(burst[1:])
        self.clock.advance(0)
        writer.lazy = True
        for _ in range(30):
            self.spool.store(BODY, [make_message(99, BODY)])
            self.clock.advance(SHRINK_DELAY)
            while len(writer.jobs) > 1:
                writer.step()
        while writer.jobs:
            writer.step()
            self.clock.advance(0)
        writer.lazy = False
        self.assertNotIn(before, self.segments())


class TightDisk(Disk):
    """A disk that is full when it should be, and does something before it reads."""

    full = False
    before_read: object = None

    def free_space(self, path: str) -> int:
        """None if it is full."""
        return 0 if self.full else 1 << 40

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Let something happen first, once."""
        before, self.before_read = self.before_read, None
        if callable(before):
            before()
        return super().read(path, offset, length)


class LazyWorker(SteppedWorker):
    """Does jobs at once, or when the test says so."""

    lazy = False

    def submit(self, job):  # type: ignore[no-untyped-def]
        """Keep it or do it."""
        done = super().submit(job)
        if not self.lazy:
            self.step()
        return done
