"""The spool's reactor side: gathers what is asked, commits it together, tells the outcome."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.interfaces import ISpool
from kumotwist.spool.changes import Changes, Outcome, Store
from kumotwist.spool.database import KEY_LIMIT, OUT_OF_KEYS
from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import (
    SpoolClosedError,
    SpoolError,
    UnstorableMessageError,
    as_spool_error,
)
from kumotwist.spool.gathering import LINGER, Gathering
from kumotwist.spool.reader import Cursor, Page, SpoolReader
from kumotwist.spool.records import message_id, row_of
from kumotwist.spool.refusals import RefusalLog
from kumotwist.spool.settings import SpoolSettings
from kumotwist.spool.storage import Storage
from kumotwist.spool.worker import Worker, WorkerThread

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from kumotwist.message.queued import QueuedMessage

__all__ = ["SQLiteSpool"]

#: Seconds between two tries while nothing can be written.
RETRY_INTERVAL = 1.0

#: Seconds without anything to commit after which unused space is given back, and between two steps.
SHRINK_DELAY = 1.0
SHRINK_INTERVAL = 0.05

# Updates and removals that are committed without waiting for a store.
_MOST_CHANGES = 500

# How often that waits for a quiet moment; then a step is taken between two commits.
_SHRINK_PATIENCE = 10

# Messages per batch of an enumeration: some milliseconds of work.
_PAGE_SIZE = 500


# After so many, those that were handed over are taken out of the garbage collector's sight.
_SETTLE = 10_000


class _State(Enum):
    CLOSED = auto()
    OPENING = auto()
    OPEN = auto()
    CLOSING = auto()


def _settle() -> None:
    """Spare the garbage collector what was handed over: it stays for long, and is in no cycle.

    Looking at a million messages would stop the reactor for most of a second, again and again
    while they come. They are freed as ever when nobody refers to them.
    """
    gc.collect(1)
    gc.freeze()


def _fire(waiting: list[Deferred[None]]) -> None:
    """Empty a list of those who wait, and fire them."""
    fired = waiting.copy()
    waiting.clear()
    for done in fired:
        done.callback(None)


@implementer(ISpool)
class SQLiteSpool:
    """An L{ISpool} on an SQLite database and segment files; the package's docstring says how.

    Deferreds that it gives must not be cancelled to take something back: what was asked is done.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: SpoolSettings,
        *,
        make_worker: Callable[[str], Worker] | None = None,
        disk: Disk | None = None,
        linger: float = LINGER,
        leave_nothing: bool = False,
    ) -> None:
        """
        @param reactor: for timers, and for threads unless C{make_worker} is given.
        @param settings: with a C{path}.
        @param make_worker: makes the two that do the blocking work, by their names; threads if
            absent.
        @param disk: the system calls on segment files.
        @param linger: seconds that updates and removals wait for a store to be committed with.
        @param leave_nothing: whether the directory goes when the spool is closed and empty.
        """
        if settings.path is None:
            raise ValueError("a spool needs a path")
        self.writable = True
        self._reactor = reactor
        self._settings = settings
        self._make_worker = make_worker or functools.partial(
            WorkerThread, IReactorFromThreads(reactor)
        )
        self._storage = Storage(
            settings.path, settings, disk or Disk(), leave_nothing=leave_nothing
        )
        self._refusals = RefusalLog(self._storage.path)
        self._state = _State.CLOSED
        self._writer: Worker
        self._readers: Worker
        self._reader: SpoolReader
        self._observer: Callable[[bool], None] | None = None
        # What has been asked since the last commit began.
        self._stores: list[Store] = []
        self._changes = Changes()
        self._committing = False
        self._gathering = Gathering(reactor, self._begin_commit)
        self._linger = linger
        self._after_commit: list[Deferred[None]] = []
        self._after_transition: list[Deferred[None]] = []
        self._uncommitted: dict[int, bytes] = {}
        self._last_key = 0
        self._recovered_key = 0
        # Messages that were handed over by the enumeration under way and then changed.
        self._touched: set[str] | None = None
        self._shrink_call: IDelayedCall | None = None
        self._shrink_delays = 0

    def set_writable_observer(self, observer: Callable[[bool], None]) -> None:
        """Name the one who is told when C{writable} changes."""
        self._observer = observer

    # -- opening and closing ---------------------------------------------------------------------

    def open(self) -> Deferred[None]:
        """Take possession of the directory and recover what a crash left."""
        if self._state is not _State.CLOSED:
            return fail(SpoolError(f"the spool {self._storage.path} is open already"))
        self._state = _State.OPENING
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        writer = self._make_worker("spool-writer")
        try:
            key = await writer.submit(self._storage.open)
            try:
                self._reader = await writer.submit(self._storage.open_reader)
            except BaseException as error:
                await writer.submit(self._storage.close)
                raise as_spool_error(error, self._storage.path) from error
        except BaseException:
            writer.stop()
            self._enter(_State.CLOSED)
            raise
        self._writer = writer
        self._readers = self._make_worker("spool-reader")
        self._recovered_key = key
        # The lowest bit says where the body is; the rest only grows.
        self._last_key = key | 1
        self.writable = True
        self._enter(_State.OPEN)
        if not self._settings.durable:
            self._log.warn(
                "the spool {path} is not durable: a power failure loses accepted messages",
                path=self._storage.path,
            )

    def close(self) -> Deferred[None]:
        """Finish what was asked, then give the directory up.

        What cannot be written after one more try fails with L{SpoolClosedError}.
        """
        if self._state is _State.CLOSED:
            return succeed(None)
        if self._state is not _State.OPEN:
            settled: Deferred[None] = Deferred()
            self._after_transition.append(settled)
            return settled.addCallback(lambda _: self.close())
        self._state = _State.CLOSING
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._cancel_calls()
        if self._committing:
            await self._next_commit()
            self._cancel_calls()
        if self._stores or self._changes:
            done = self._next_commit()
            self._commit()
            await done
            self._cancel_calls()
        changes, self._changes = self._changes, Changes()
        if changes:
            self._log.error(
                "{number} changes of the spool could not be written", number=len(changes)
            )
        for waiting in changes.waiting:
            waiting.errback(SpoolClosedError("the spool was closed before this could be written"))
        _fire(self._after_commit)
        await self._readers.submit(self._reader.close)
        self._readers.stop()
        await self._writer.submit(self._storage.close)
        self._writer.stop()
        self._enter(_State.CLOSED)

    def _enter(self, state: _State) -> None:
        self._state = state
        _fire(self._after_transition)

    def _cancel_calls(self) -> None:
        self._gathering.stop()
        if self._shrink_call is not None:
            self._shrink_call.cancel()
            self._shrink_call = None

    def _closed(self) -> SpoolClosedError:
        return SpoolClosedError(f"the spool {self._storage.path} is not open")

    # -- writing ---------------------------------------------------------------------------------

    def store(
        self,
        body: bytes,
        messages: Sequence[QueuedMessage],
        replaced: Sequence[QueuedMessage] = (),
    ) -> Deferred[None]:
        """Keep a body and the messages that share it."""
        if self._state is not _State.OPEN:
            return fail(self._closed())
        if not messages:
            return self.remove(replaced)
        large = len(body) > self._settings.large_body_threshold
        key = (self._last_key | 1) + 1 + large
        if key >= KEY_LIMIT:
            problem = SpoolError(f"{self._storage.path}: {OUT_OF_KEYS}")
            self._refusals.broken(self._reactor.seconds(), problem)
            return fail(problem)
        try:
            rows = [row_of(message, key) for message in messages]
            removals = {}
            if replaced:
                removals = {message_id(message): message.body_key for message in replaced}
        except UnstorableMessageError as error:
            return fail(error)
        self._last_key = key
        for message in messages:
            message.body_key = key
        for message in replaced:
            self._touch(message)
        done: Deferred[None] = Deferred()
        self._stores.append(Store(key, body, rows, messages, removals, done))
        self._uncommitted[key] = body
        self._schedule_commit()
        return done

    def update(self, message: QueuedMessage) -> Deferred[None]:
        """Record the message as it is now."""
        if self._state is not _State.OPEN:
            return fail(self._closed())
        try:
            row = row_of(message, message.body_key)
        except UnstorableMessageError as error:
            return fail(error)
        self._changes.update(row)
        self._touch(message)
        return self._wait_for_changes()

    def remove(self, messages: Sequence[QueuedMessage]) -> Deferred[None]:
        """Forget messages."""
        if self._state is not _State.OPEN:
            return fail(self._closed())
        try:
            identities = [message_id(message) for message in messages]
        except UnstorableMessageError as error:
            return fail(error)
        if not messages:
            return succeed(None)
        remove = self._changes.remove
        for message, identity in zip(messages, identities, strict=True):
            remove(identity, message.body_key)
            if self._touched is not None:
                self._touch(message)
        return self._wait_for_changes()

    def forget(self, message: QueuedMessage) -> None:
        """Forget a message; nobody waits for it."""
        if self._state is not _State.OPEN:
            self._log.error(
                "{id} stays in the spool: {reason}", id=message.id, reason=self._closed()
            )
            return
        try:
            self._changes.remove(message_id(message), message.body_key)
        except UnstorableMessageError as error:
            self._log.error("{id} stays in the spool: {reason}", id=message.id, reason=error)
            return
        if self._touched is not None:
            self._touch(message)
        self._schedule_commit()

    def _touch(self, message: QueuedMessage) -> None:
        if self._touched is not None and message.body_key <= self._recovered_key:
            self._touched.add(message.id)

    def _wait_for_changes(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._changes.waiting.append(done)
        self._schedule_commit()
        return done

    # -- committing ------------------------------------------------------------------------------

    def _schedule_commit(self) -> None:
        """Have what has been asked committed: L{kumotwist.spool.gathering} says when.

        While a commit is under way the next one waits for it, and while nothing can be written for
        the retry.
        """
        if self._committing:
            return
        if not self.writable:
            self._gathering.within(RETRY_INTERVAL)
        elif self._stores or len(self._changes) >= _MOST_CHANGES or not self._linger:
            self._gathering.soon()
        else:
            self._gathering.within(self._linger)

    def _begin_commit(self) -> None:
        if not self._committing and (self._stores or self._changes or not self.writable):
            self._commit()

    def _commit(self) -> None:
        self._committing = True
        stores, self._stores = self._stores, []
        changes, self._changes = self._changes, Changes()
        commit = functools.partial(self._storage.commit, stores, changes)
        self._writer.submit(commit).addCallback(self._committed, stores, changes).addErrback(
            self._log_defect
        )

    def _committed(self, outcome: Outcome, stores: list[Store], changes: Changes) -> None:
        self._committing = False
        if outcome.problem is not None:
            self._changes.precede_with(changes)
        self._set_writable(outcome.problem)
        if outcome.problem is None:
            now = self._reactor.seconds()
            self._refusals.follow(now, len(stores), outcome.refused.values())
            for waiting in changes.waiting:
                waiting.callback(None)
        for store in stores:
            del self._uncommitted[store.key]
            refusal = outcome.refused.get(store.key)
            if refusal is None:
                store.done.callback(None)
            else:
                for message in store.messages:
                    message.body_key = 0
                store.done.errback(refusal)
        if self._state is _State.OPEN:
            replaced = any(store.removals for store in stores)
            self._schedule_next(replaced or bool(changes.removals))
        _fire(self._after_commit)

    def _schedule_next(self, removed: bool) -> None:
        # While nothing can be written, also without anything to write: so the recovery is noticed.
        if self._stores or self._changes or not self.writable:
            self._schedule_commit()
        elif removed and self._shrink_call is None:
            self._shrink_call = self._reactor.callLater(SHRINK_DELAY, self._shrink)

    def _set_writable(self, problem: SpoolError | None) -> None:
        writable = problem is None
        if problem is not None:
            self._refusals.unwritable(self._reactor.seconds(), problem)
        if writable == self.writable:
            return
        self.writable = writable
        self._gathering.stop()
        if writable:
            self._refusals.writable()
        if self._observer is not None:
            try:
                self._observer(writable)
            except Exception:
                # Those who wait for this commit must hear of it all the same.
                self._log.failure("the observer of the spool failed")

    def _next_commit(self) -> Deferred[None]:
        """Fires when the commit under way, or else the next one, is over."""
        done: Deferred[None] = Deferred()
        self._after_commit.append(done)
        return done

    def _log_defect(self, failure: Failure) -> None:
        self._log.failure("a defect in the spool or in what was called back", failure)

    def _shrink(self) -> None:
        self._shrink_call = None
        busy = self._committing or self._gathering.imminent
        if not self.writable or (busy and self._shrink_delays < _SHRINK_PATIENCE):
            self._shrink_delays += 1
            self._shrink_call = self._reactor.callLater(SHRINK_DELAY, self._shrink)
        else:
            self._writer.submit(self._storage.shrink).addCallbacks(self._shrunk, self._log_defect)

    def _shrunk(self, more: bool) -> None:
        if not more:
            self._shrink_delays = 0
        elif self._state is _State.OPEN and self._shrink_call is None:
            self._shrink_call = self._reactor.callLater(SHRINK_INTERVAL, self._shrink)

    # -- reading ---------------------------------------------------------------------------------

    def load(self, message: QueuedMessage) -> Deferred[bytes]:
        """Read the body."""
        if self._state is not _State.OPEN:
            return fail(self._closed())
        body = self._uncommitted.get(message.body_key)
        if body is not None:
            return succeed(body)
        return self._readers.submit(functools.partial(self._reader.load, message.body_key))

    def enumerate(self, visit: Callable[[list[QueuedMessage]], None]) -> Deferred[int]:
        """Hand over every message that was in the spool when it was opened.

        Each page is read by the due time from where the last one ended, in a read transaction of
        its own, so the WAL can be reused in between. Three things could spoil that:

          - New messages: their body keys are above the highest one that was found at opening.
          - A message that was handed over may be given a later due time and turn up again. So the
            ids of all messages that are updated or removed meanwhile are noted as soon as that is
            asked, and skipped: none of them can be one that has not been handed over yet.
          - What was asked before the enumeration began is waited for, so that nothing moves
            unnoticed.
        """
        if self._state is not _State.OPEN:
            return fail(self._closed())
        if self._touched is not None:
            return fail(SpoolError("an enumeration is under way"))
        self._touched = set()
        return Deferred.fromCoroutine(self._enumerate(self._touched, visit))

    async def _enumerate(
        self, touched: set[str], visit: Callable[[list[QueuedMessage]], None]
    ) -> int:
        try:
            while self._committing or self._stores or self._changes:
                if self.writable and not self._committing:
                    self._gathering.soon()
                await self._next_commit()
            touched.clear()
            count = fresh = 0
            cursor: Cursor | None = None
            while True:
                page = await self._read_page(cursor)
                for damage in page.damaged:
                    self._log.error("set aside, never to be delivered: {damage}", damage=damage)
                messages = [each for each in page.messages if each.id not in touched]
                count += len(messages)
                if messages:
                    visit(messages)
                    fresh += len(messages)
                if fresh >= _SETTLE:
                    fresh = 0
                    _settle()
                cursor = page.cursor
                if cursor is None:
                    return count
        finally:
            self._touched = None

    async def _read_page(self, cursor: Cursor | None) -> Page:
        if self._state is not _State.OPEN:
            raise self._closed()
        read = functools.partial(self._reader.read_page, cursor, self._recovered_key, _PAGE_SIZE)
        return await self._readers.submit(read)
