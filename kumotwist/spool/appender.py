"""Appending to one segment file after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import attrs

from kumotwist.spool.bodies import (
    RECORD_HEADER_SIZE,
    Location,
    record_header,
    segment_path,
)
from kumotwist.spool.disk import Disk

__all__ = ["Append", "Appender"]

Append = tuple[int, int, int, bytes]
"""What is appended: body key, CRC-32, how often it has been moved, and the body."""


@attrs.define(eq=False)
class _OpenSegment:
    """The segment that is being appended to: where its next record goes."""

    number: int
    descriptor: int
    end: int = 0


class Appender:
    """Has one file open at a time and begins the next when that has grown. For one thread."""

    def __init__(
        self,
        directory: str,
        segment_size: int,
        disk: Disk,
        *,
        durable: bool,
        next_number: Callable[[], int],
        retired: Callable[[int, int], None],
    ) -> None:
        """
        @param segment_size: octets after which a new file is begun.
        @param durable: whether to sync what was appended.
        @param next_number: gives the number of a new file.
        @param retired: told the number and size of a file that is not appended to any more.
        """
        self._directory = directory
        self._segment_size = segment_size
        self._disk = disk
        self._durable = durable
        self._next_number = next_number
        self._retired = retired
        self._current: _OpenSegment | None = None
        self._undo_to = 0

    def holds(self, number: int) -> bool:
        """Whether that is the file being appended to."""
        return self._current is not None and self._current.number == number

    @property
    def end(self) -> int:
        """How much of the open file is written; 0 if none is open."""
        return 0 if self._current is None else self._current.end

    def append(self, bodies: Iterable[Append]) -> list[Location]:
        """Write bodies; they are on disk when this returns, but nothing refers to them yet.

        @raise OSError: nothing of it is kept, and the files are as they were.
        """
        current = self._writable_segment()
        locations = []
        buffers: list[bytes] = []
        offset = self._undo_to = current.end
        for key, crc, moves, body in bodies:
            locations.append(Location(current.number, offset, len(body)))
            buffers.append(record_header(key, len(body), crc, moves))
            buffers.append(body)
            offset += RECORD_HEADER_SIZE + len(body)
        try:
            self._disk.write(current.descriptor, current.end, buffers)
        except OSError:
            self.undo()
            raise
        try:
            if self._durable:
                self._disk.sync(current.descriptor)
        except OSError:
            # What a failed fsync leaves behind is unknown, and the next one would claim success.
            self.undo()
            self.retire()
            raise
        current.end = offset
        return locations

    def undo(self) -> None:
        """Take the last L{append} back: no commit refers to it, now or after a crash."""
        current = self._current
        if current is None:
            return
        current.end = self._undo_to
        try:
            self._disk.truncate(current.descriptor, current.end)
        except OSError:
            self.retire()

    def retire(self) -> None:
        """Append to the open file no more."""
        current, self._current = self._current, None
        if current is not None:
            with contextlib.suppress(OSError):
                self._disk.close(current.descriptor)
            self._retired(current.number, current.end)

    def _writable_segment(self) -> _OpenSegment:
        if self._current is not None and self._current.end >= self._segment_size:
            self.retire()
        if self._current is None:
            number = self._next_number()
            path = segment_path(self._directory, number)
            descriptor = self._disk.create(path)
            try:
                if self._durable:
                    self._disk.sync_directory(self._directory)
            except OSError:
                self._disk.close(descriptor)
                with contextlib.suppress(OSError):
                    self._disk.unlink(path)
                raise
            self._current = _OpenSegment(number, descriptor)
        return self._current
