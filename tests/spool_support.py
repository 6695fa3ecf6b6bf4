"""What the spool's tests share: messages, and workers that need no threads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.spool import Disk, SpoolSettings, SQLiteSpool
from kumotwist.spool.moving import SpoolMove
from kumotwist.spool.unfinished import MoveIntent

T = TypeVar("T")

#: The settings' threshold in these tests: bodies above it go to a segment file.
THRESHOLD = 1000
SEGMENT_SIZE = 20000

SMALL = b"Subject: small\r\n\r\nbody\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"x" * 3000 + b"\r\n"


def make_message(number: int = 0, body: bytes = SMALL, **facts: Any) -> QueuedMessage:
    """A message with everything that must survive."""
    values: dict[str, Any] = {
        "sender": "sender@example.com",
        "recipient": f"user{number}@example.net",
        "queue": "campaign:tenant@example.net",
        "size": len(body),
        "created": 1700000000.25,
        "due": 1700000000.5 + number,
        "meta": {"received_from": "192.0.2.1:99", "smtputf8": False, "name": "Jürgen 😀"},
    }
    return QueuedMessage(new_id(1700000000.0 + number), **{**values, **facts})


class InlineWorker:
    """Does every job at once, in the caller's thread."""

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        """Do it now."""
        return execute(job)

    def stop(self) -> None:
        """Nothing runs."""


class SteppedWorker:
    """Keeps jobs until the test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        """Keep it."""
        done: Deferred[T] = Deferred()
        self.jobs.append((job, done))
        return done

    def step(self) -> None:
        """Do the oldest job."""
        job, done = self.jobs.pop(0)
        execute(job).chainDeferred(done)

    def stop(self) -> None:
        """Nothing runs."""


def make_spool(
    clock: Clock,
    path: str,
    *,
    disk: Disk | None = None,
    make_worker: Callable[[str], Any] = lambda name: InlineWorker(),
    linger: float = 0.0,
    leave_nothing: bool = False,
    **settings: Any,
) -> SQLiteSpool:
    """A real spool without threads: a commit happens when the clock is advanced.

    @param linger: how long removals and updates wait for a store; if not at all, they are
        committed at once.
    """
    values = {"large_body_threshold": THRESHOLD, "segment_size": SEGMENT_SIZE, **settings}
    return SQLiteSpool(
        clock,
        SpoolSettings(path=path, **values),
        make_worker=make_worker,
        disk=disk,
        linger=linger,
        leave_nothing=leave_nothing,
    )


def copy_as_after_crash(path: str, target: str) -> None:
    """What C{kill -9} leaves of a spool: its files as they are, without the shared memory."""
    shutil.copytree(path, target, ignore=shutil.ignore_patterns("*-shm"))


def cut_short(clock: Clock, source: str, target: str, number: int = 5) -> list[QueuedMessage]:
    """Make two spools as a kill leaves them in the middle of a move: all messages are in both.

    @param source: the directory of the one that was to be emptied; it is made.
    @param target: the other one's; it is made.
    @return: the messages.
    """
    taken: list[QueuedMessage] = []
    messages = [make_message(each, SMALL) for each in range(number)]
    before = make_spool(clock, f"{source}.before")
    before.open()
    for each, message in enumerate(messages):
        before.store(LARGE if each % 2 else SMALL, [message])
    clock.advance(1)
    before.close()
    # Removals from it wait for longer than its process lives.
    emptied = make_spool(clock, f"{source}.before", linger=1000.0)
    other = make_spool(clock, f"{target}.before")
    other.open()
    clock.advance(1)

    async def note(ids: Sequence[str]) -> None:
        MoveIntent(f"{source}.before").note(ids)

    move = SpoolMove(clock, emptied, other, note, taken.extend)
    Deferred.fromCoroutine(move.run())
    clock.pump([0.1] * 10)
    copy_as_after_crash(f"{source}.before", source)
    copy_as_after_crash(f"{target}.before", target)
    assert not taken, "a message was handed to the queues before it had left"
    move.stop()
    emptied.close()
    other.close()
    shutil.rmtree(f"{source}.before")
    shutil.rmtree(f"{target}.before")
    return messages


def ids_in(path: str) -> set[str]:
    """The messages of a spool that nobody has open."""
    found: list[QueuedMessage] = []
    spool = make_spool(Clock(), path)
    spool.open()
    spool.enumerate(found.extend)
    spool.close()
    return {message.id for message in found}


def hear_log(case: SynchronousTestCase) -> Callable[[str], list[str]]:
    """Listen to the log until a test ends.

    @return: tells the lines so far that have a text in them.
    """
    events: list[LogEvent] = []
    observer = cast("ILogObserver", events.append)
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)

    def said(part: str) -> list[str]:
        return [line for line in map(formatEvent, events) if part in line]

    return said
