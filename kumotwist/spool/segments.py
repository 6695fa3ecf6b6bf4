"""Large bodies, one after the other in append-only files.

The order of things is the whole of the safety: a record is written and synced I{before} the commit
that refers to it, and a file is deleted I{after} the commit that removed the last reference. What
a crash leaves behind is therefore only ever octets that nobody refers to.

A file in which little is needed any more is emptied: what is needed moves to a file of its own
kind, where bodies that stay long are together, so that it has not to be moved again with each
burst. A quarter of a file is moved at most, at least three quarters come free for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs
from twisted.logger import Logger

from kumotwist.spool.appender import Append, Appender
from kumotwist.spool.bodies import (
    RECORD_HEADER_SIZE,
    Location,
    segment_number,
    segment_path,
)
from kumotwist.spool.disk import Disk

__all__ = ["Extent", "SegmentFiles"]

# A file is emptied when what is needed of it is this part of it or less.
_SPARSE = 4

# The open file, and one that is emptied, must have grown to this part of segment_size: making a new
# file for each of a few messages would cost more than a little space.
_WORTHWHILE = 16


class Extent(NamedTuple):
    """What of a segment is needed.

    @ivar records: how many records.
    @ivar end: the offset after the last of them.
    @ivar octets: how many octets they have, with their headers.
    """

    records: int
    end: int
    octets: int


@attrs.define(eq=False)
class _Use:
    """What is needed of a segment, and how large it is (0 while it is open)."""

    records: int = 0
    octets: int = 0
    size: int = 0
    stuck: bool = False


class SegmentFiles:
    """Appends records, and deletes files that hold nothing that is needed. For one thread."""

    _log = Logger()

    def __init__(self, directory: str, segment_size: int, disk: Disk, *, durable: bool) -> None:
        """
        @param directory: where the files are; made when it is missing.
        @param segment_size: octets after which a new file is begun.
        @param durable: whether to sync what was appended.
        """
        self._directory = directory
        self._segment_size = segment_size
        self._disk = disk
        self._use: dict[int, _Use] = {}
        self._next_number = 1
        self._new, self._moved = (
            Appender(
                directory,
                segment_size,
                disk,
                durable=durable,
                next_number=self._take_number,
                retired=self._retired,
            )
            for _ in range(2)
        )
        self._last = self._new

    def _take_number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number

    # -- opening and closing ---------------------------------------------------------------------

    def recover(self, needed: Mapping[int, Extent], *, keep_all: bool = False) -> None:
        """Delete the files and cut off the tails that nothing in the database refers to.

        @param needed: the segments that are referred to.
        @param keep_all: whether to delete and cut nothing: the database is damaged, and a search
            may still find what it has lost.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        self._use = {}
        sizes = {}
        for entry in os.scandir(self._directory):
            number = segment_number(entry.name)
            if number is not None:
                sizes[number] = entry.stat().st_size
        for number, size in sizes.items():
            extent = needed.get(number)
            path = segment_path(self._directory, number)
            if keep_all:
                # One record more than is known, so that it is neither emptied nor deleted.
                self._use[number] = _Use(1, RECORD_HEADER_SIZE, size, stuck=True)
                continue
            if extent is None:
                self._disk.unlink(path)
            elif size > extent.end:
                self._disk.truncate_path(path, extent.end)
        for number, extent in needed.items():
            if sizes.get(number, 0) < extent.end:
                self._log.error(
                    "{path} is missing or too short: some of its {records} bodies are lost",
                    path=segment_path(self._directory, number),
                    records=extent.records,
                )
        for number, extent in needed.items():
            use = self._use.setdefault(number, _Use(size=extent.end))
            use.records += extent.records
            use.octets += extent.octets
        self._next_number = max([0, *sizes, *needed]) + 1

    def close(self) -> None:
        """Stop appending; delete the open segments if nothing in them is needed."""
        self._new.retire()
        self._moved.retire()

    # -- appending -------------------------------------------------------------------------------

    def append(self, bodies: Iterable[Append], *, moved: bool = False) -> list[Location]:
        """Write bodies; they are on disk when this returns, but nothing refers to them yet.

        Follow it by L{keep} when the commit that refers to them is done, or by L{undo} or
        L{abandon} when it failed.

        @param moved: whether they come from another segment.
        @raise OSError: nothing of it is kept, and the files are as they were.
        """
        self._last = self._moved if moved else self._new
        return self._last.append(bodies)

    def keep(self, locations: Sequence[Location]) -> None:
        """Count the records that a commit now refers to."""
        for location in locations:
            use = self._use.setdefault(location.segment, _Use())
            use.records += 1
            use.octets += RECORD_HEADER_SIZE + location.size

    def undo(self) -> None:
        """Take the last L{append} back: no commit refers to it, now or after a crash."""
        self._last.undo()

    def abandon(self) -> None:
        """Leave the last L{append} where it is: the commit failed, but a crash could revive it."""

    # -- deleting --------------------------------------------------------------------------------

    def release(self, removed: Iterable[tuple[int, int]]) -> None:
        """Count records that a commit has removed, and delete files that hold no other.

        @param removed: number of the segment and length of the body of each.
        """
        for number, size in removed:
            use = self._use.setdefault(number, _Use())
            use.records -= 1
            use.octets -= RECORD_HEADER_SIZE + size
            self._delete_if_dead(number)

    def _delete_if_dead(self, number: int) -> None:
        use = self._use.get(number)
        if use is not None and use.records > 0:
            return
        for appender in (self._new, self._moved):
            if appender.holds(number):
                if appender.end >= self._segment_size // _WORTHWHILE:
                    appender.retire()
                return
        self._use.pop(number, None)
        path = segment_path(self._directory, number)
        try:
            self._disk.unlink(path)
        except OSError as error:
            self._log.warn("cannot delete {path}: {problem}", path=path, problem=error.strerror)

    def _retired(self, number: int, size: int) -> None:
        use = self._use.get(number)
        if use is not None:
            use.size = size
        self._delete_if_dead(number)

    # -- emptying --------------------------------------------------------------------------------

    def sparse(self) -> int | None:
        """A segment to empty, the emptiest first; L{None} if there is none."""
        found = [
            (use.octets / use.size, number)
            for number, use in self._use.items()
            if not use.stuck
            and use.size >= max(1, self._segment_size // _WORTHWHILE)
            and use.octets * _SPARSE <= use.size
        ]
        return min(found)[1] if found else None

    def leave(self, number: int) -> None:
        """Do not name a segment as sparse any more: something in it cannot be moved."""
        use = self._use.get(number)
        if use is not None:
            use.stuck = True
