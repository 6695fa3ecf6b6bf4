"""What has been asked of the spool and is not on disk yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from kumotwist.spool.errors import SpoolError
from kumotwist.spool.records import MessageRow

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kumotwist.message.queued import QueuedMessage

__all__ = ["Changes", "Outcome", "Store"]


@attrs.define(eq=False)
class Store:
    """A body and the messages that share it: all of them get kept, or none.

    @ivar removals: the body keys of the messages that go if these are kept, by message id.
    @ivar done: fires when its fate is known; used in the reactor's thread only.
    """

    key: int
    body: bytes
    rows: list[MessageRow]
    messages: Sequence[QueuedMessage]
    removals: dict[bytes, int]
    done: Deferred[None]


@attrs.define(eq=False)
class Changes:
    """Updates and removals, at most one for each message, so that memory stays bounded while they
    cannot be written.

    @ivar updates: the rows as they should be, by message id.
    @ivar removals: the body keys of the messages to remove, by message id.
    @ivar waiting: whoever wants to know when they are on disk; used in the reactor's thread only.
    """

    updates: dict[bytes, MessageRow] = attrs.field(factory=dict)
    removals: dict[bytes, int] = attrs.field(factory=dict)
    waiting: list[Deferred[None]] = attrs.field(factory=list)

    def __bool__(self) -> bool:
        return bool(self.updates or self.removals or self.waiting)

    def __len__(self) -> int:
        return len(self.updates) + len(self.removals)

    def update(self, row: MessageRow) -> None:
        """Note the latest state of a message, unless it is to be removed."""
        if row[1] not in self.removals:
            self.updates[row[1]] = row

    def remove(self, identity: bytes, body_key: int) -> None:
        """Note that a message is to be removed."""
        self.updates.pop(identity, None)
        self.removals[identity] = body_key

    def with_stores(self, stores: Sequence[Store]) -> Changes:
        """These changes, and the removals that belong to stores."""
        removals = dict(self.removals)
        for store in stores:
            removals.update(store.removals)
        if len(removals) == len(self.removals):
            return self
        updates = {key: row for key, row in self.updates.items() if key not in removals}
        return Changes(updates, removals)

    def precede_with(self, older: Changes) -> None:
        """Take in changes that were asked for earlier and could not be written."""
        newer = self.updates
        self.removals = {**older.removals, **self.removals}
        self.updates = {
            identity: row
            for identity, row in {**older.updates, **newer}.items()
            if identity not in self.removals
        }
        self.waiting = older.waiting + self.waiting


@attrs.define(frozen=True)
class Outcome:
    """What became of a commit.

    @ivar problem: why changes cannot be recorded, or L{None} if they are (or could be).
    @ivar refused: the stores of which nothing is kept, by body key, and why.
    """

    problem: SpoolError | None
    refused: dict[int, SpoolError]
