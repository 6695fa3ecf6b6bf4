"""A spool in memory that keeps L{ISpool<kumotwist.interfaces.ISpool>}'s contract at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from kumotwist.interfaces import ISpool
from kumotwist.spool.errors import (
    DamagedBodyError,
    SpoolClosedError,
    SpoolError,
    UnstorableMessageError,
)
from kumotwist.spool.records import row_of

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage

__all__ = ["MemorySpool"]

_BATCH = 500


@implementer(ISpool)
class MemorySpool:
    """Keeps what it is given in dictionaries; every Deferred fires at once, unless it is broken.

    @ivar bodies: the bodies by their keys.
    @ivar messages: the messages as they were recorded, by their ids. What the caller changes
        without calling C{update} does not show here.
    """

    def __init__(self) -> None:
        self.writable = True
        self.bodies: dict[int, bytes] = {}
        self.messages: dict[str, QueuedMessage] = {}
        self._open = False
        self._last_key = 0
        self._recovered_key = 0
        self._problem: SpoolError | None = None
        self._waiting: list[tuple[Callable[[], None], Deferred[None]]] = []
        self._observer: Callable[[bool], None] | None = None

    # -- what a test does to it ------------------------------------------------------------------

    def break_down(self, problem: SpoolError) -> None:
        """Be unwritable: stores fail, updates and removals wait for L{repair}."""
        self._problem = problem
        self._set_writable(False)

    def repair(self) -> None:
        """Be writable again, and do what has waited."""
        self._problem = None
        waiting, self._waiting = self._waiting, []
        for change, _ in waiting:
            change()
        self._set_writable(True)
        for _, done in waiting:
            done.callback(None)

    def after_crash(self) -> MemorySpool:
        """The spool that a new process finds: what waited is forgotten, what was done is there."""
        successor = MemorySpool()
        successor.bodies = dict(self.bodies)
        successor.messages = {key: _copy(each) for key, each in self.messages.items()}
        successor._last_key = self._last_key
        return successor

    def _set_writable(self, writable: bool) -> None:
        if writable != self.writable:
            self.writable = writable
            if self._observer is not None:
                self._observer(writable)

    # -- ISpool ----------------------------------------------------------------------------------

    def set_writable_observer(self, observer: Callable[[bool], None]) -> None:
        """Name the one who is told when C{writable} changes."""
        self._observer = observer

    def open(self) -> Deferred[None]:
        """Start to work."""
        if self._open:
            return fail(SpoolError("the spool is open already"))
        self._open = True
        self._recovered_key = self._last_key
        return succeed(None)

    def close(self) -> Deferred[None]:
        """Stop to work; what has waited in vain fails."""
        self._open = False
        waiting, self._waiting = self._waiting, []
        for _, done in waiting:
            done.errback(SpoolClosedError("the spool was closed before this could be written"))
        return succeed(None)

    def store(
        self,
        body: bytes,
        messages: Sequence[QueuedMessage],
        replaced: Sequence[QueuedMessage] = (),
    ) -> Deferred[None]:
        """Keep a body and its messages, and forget others for them."""
        if not self._open:
            return fail(SpoolClosedError("the spool is not open"))
        if not messages:
            return self.remove(replaced)
        key = self._last_key + 1
        try:
            for message in messages:
                row_of(message, key)
        except UnstorableMessageError as error:
            return fail(error)
        if self._problem is not None:
            return fail(self._problem)
        self._last_key = key
        self.bodies[key] = body
        for message in messages:
            message.body_key = key
            self.messages[message.id] = _copy(message)
        return self.remove(replaced)

    def update(self, message: QueuedMessage) -> Deferred[None]:
        """Record the message as it is now."""
        try:
            row_of(message, message.body_key)
        except UnstorableMessageError as error:
            return fail(error)
        copy = _copy(message)

        def change() -> None:
            if copy.id in self.messages:
                self.messages[copy.id] = copy

        return self._do(change)

    def remove(self, messages: Sequence[QueuedMessage]) -> Deferred[None]:
        """Forget messages, and the bodies that only they shared."""
        gone = list(messages)

        def change() -> None:
            for message in gone:
                self.messages.pop(message.id, None)
            shared = {message.body_key for message in self.messages.values()}
            for key in {message.body_key for message in gone} - shared:
                self.bodies.pop(key, None)

        return self._do(change)

    def forget(self, message: QueuedMessage) -> None:
        """Forget a message; nobody waits for it."""
        self.remove([message]).addErrback(lambda _: None)

    def load(self, message: QueuedMessage) -> Deferred[bytes]:
        """Give the body."""
        if not self._open:
            return fail(SpoolClosedError("the spool is not open"))
        if message.body_key not in self.bodies:
            return fail(DamagedBodyError(f"there is no body {message.body_key}"))
        return succeed(self.bodies[message.body_key])

    def enumerate(self, visit: Callable[[list[QueuedMessage]], None]) -> Deferred[int]:
        """Hand over what was there when it was opened, by due time."""
        if not self._open:
            return fail(SpoolClosedError("the spool is not open"))
        found = sorted(
            (each for each in self.messages.values() if each.body_key <= self._recovered_key),
            key=lambda message: message.due,
        )
        count = 0
        for start in range(0, len(found), _BATCH):
            batch = [
                _copy(each) for each in found[start : start + _BATCH] if each.id in self.messages
            ]
            count += len(batch)
            if batch:
                visit(batch)
        return succeed(count)

    def _do(self, change: Callable[[], None]) -> Deferred[None]:
        if not self._open:
            return fail(SpoolClosedError("the spool is not open"))
        if self._problem is not None:
            done: Deferred[None] = Deferred()
            self._waiting.append((change, done))
            return done
        change()
        return succeed(None)


def _copy(message: QueuedMessage) -> QueuedMessage:
    """What the spool would give back: no body, and C{meta} as JSON makes it."""
    return attrs.evolve(message, body=None, meta=json.loads(json.dumps(message.meta)))
