"""A spool stopped after the k-th system call, for every k: SQLite's own calls are among them."""

from __future__ import annotations

import mmap
import os
import platform
import shutil
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import SQLiteSpool
from kumotwist.spool.gathering import LINGER
from kumotwist.spool.sqlite_spool import SHRINK_DELAY, SHRINK_INTERVAL
from tests.spool_support import LARGE, SMALL, make_message, make_spool
from tests.torture.stopping import Files, watch_system_calls

BIG = LARGE * 2


class SystemCallTests(SynchronousTestCase):
    """Wherever it stops, what was acknowledged is there and whole."""

    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        skip = "ptrace is used as Linux has it on x86-64 and 64-bit ARM"

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.mkdir()
        # Shared with the child: who is stored, and who is removed, beginning and done.
        self.board = mmap.mmap(-1, 4096)
        self.messages = [make_message(each, self.body(each)) for each in range(20)]
        self.seen: list[tuple[bytes, Files, bool]] = []

    def body(self, number: int) -> bytes:
        """Small and large ones in turn."""
        return SMALL if number % 4 == 3 else BIG

    def store_and_remove(self) -> None:
        """What the child does: a burst of which a few stay, so that they move, and a second one."""
        clock = Clock()
        spool = make_spool(clock, str(self.path), linger=LINGER)
        spool.open()
        for number, message in enumerate(self.messages):
            if number == 16:
                riding = self.ask_to_remove(spool, [13])
            self.store(clock, spool, number, message)
            if number == 16:
                self.successResultOf(riding)
                self.board[13] = ord("R")
            if number == 14:
                self.remove(clock, spool, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12])
                clock.advance(SHRINK_DELAY)
                clock.pump([SHRINK_INTERVAL] * 4)
        self.remove(clock, spool, [5])
        spool.close()

    def store(self, clock: Clock, spool: SQLiteSpool, number: int, message: QueuedMessage) -> None:
        """Store one, and say so on the board."""
        self.board[number] = ord("s")
        stored = spool.store(self.body(number), [message])
        clock.advance(0)
        self.successResultOf(stored)
        self.board[number] = ord("S")

    def ask_to_remove(self, spool: SQLiteSpool, numbers: list[int]) -> Deferred[None]:
        """Ask that some be removed, and say so on the board."""
        for number in numbers:
            self.board[number] = ord("r")
        return spool.remove([self.messages[number] for number in numbers])

    def remove(self, clock: Clock, spool: SQLiteSpool, numbers: list[int]) -> None:
        """Remove some while there is nothing to store, and say so on the board."""
        removed = self.ask_to_remove(spool, numbers)
        clock.advance(LINGER)
        self.successResultOf(removed)
        for number in numbers:
            self.board[number] = ord("R")

    def test_every_system_call(self) -> None:
        """After any system call: what a kill leaves is a spool with all that was acknowledged, and
        so is what a power failure leaves of it."""
        moments: dict[tuple[bytes, int], tuple[bytes, Files]] = {}

        def look(files: Files, synced: Files) -> None:
            board = self.board[: len(self.messages)]
            for state in (files, dict(synced)):
                contents = hash(tuple(sorted(state.items())))
                moments[(board, contents)] = (board, state)

        calls = watch_system_calls(self.path, self.store_and_remove, look)
        self.assertGreater(calls, 500)
        self.assertGreater(len(moments), 150)
        for board, files in moments.values():
            self.check(board, files)

    def check(self, board: bytes, files: Files) -> None:
        """Open what is left, and compare it with what was said."""
        left = self.path.with_name("left")
        shutil.rmtree(left, ignore_errors=True)
        for name, content in files.items():
            path = left / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        spool = make_spool(Clock(), str(left), durable=False)
        self.successResultOf(spool.open())
        found: list[QueuedMessage] = []
        self.successResultOf(spool.enumerate(found.extend))
        bodies = {each.id: self.successResultOf(spool.load(each)) for each in found}
        self.successResultOf(spool.close())
        for number, (message, state) in enumerate(zip(self.messages, board, strict=True)):
            where = f"message {number} ({chr(state)}) in {sorted(files)}, {os.fsdecode(board)}"
            if state == ord("S"):
                self.assertIn(message.id, bodies, where)
            elif state in (0, ord("R")):
                self.assertNotIn(message.id, bodies, where)
            if message.id in bodies:
                self.assertEqual(bodies[message.id], self.body(number), where)
