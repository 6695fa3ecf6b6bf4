"""Large bodies, one after the other in append-only files.

A segment is a sequence of records: a header of 24 octets (magic, body key, length, CRC-32), then
the body. Where a record starts stands in the database only; the header repeats what is needed to
tell that it is the record that was meant, as Postfix's queue files check themselves.

The order of things is the whole of the safety: a record is written and synced I{before} the commit
that refers to it, and a file is deleted I{after} the commit that removed the last reference. What
a crash leaves behind is therefore only ever octets that nobody refers to.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs
from twisted.logger import Logger

from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import DamagedBodyError

__all__ = ["RECORD_HEADER_SIZE", "Extent", "Location", "SegmentFiles", "read_body"]

_HEADER = struct.Struct("<4sQQI")
_MAGIC = b"KTb1"
_SUFFIX = ".seg"

#: Octets that a record needs besides its body.
RECORD_HEADER_SIZE = _HEADER.size


class Location(NamedTuple):
    """Where a record is: the segment's number, the offset of its header, the body's length."""

    segment: int
    offset: int
    size: int


class Extent(NamedTuple):
    """What of a segment is needed.

    @ivar records: how many records.
    @ivar end: the offset after the last of them.
    """

    records: int
    end: int


@attrs.define(eq=False)
class _OpenSegment:
    """The segment that is being appended to: where its next record goes."""

    number: int
    descriptor: int
    end: int = 0


def segment_path(directory: str, number: int) -> str:
    """The file of a segment."""
    return os.path.join(directory, f"{number:08d}{_SUFFIX}")


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
        self._durable = durable
        self._live: dict[int, int] = {}
        self._next_number = 1
        self._current: _OpenSegment | None = None
        self._undo_to = 0

    # -- opening and closing ---------------------------------------------------------------------

    def recover(self, needed: Mapping[int, Extent]) -> None:
        """Delete the files and cut off the tails that nothing in the database refers to.

        @param needed: the segments that are referred to.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        sizes = {}
        for entry in os.scandir(self._directory):
            stem = entry.name.removesuffix(_SUFFIX)
            if stem != entry.name and stem.isdecimal():
                sizes[int(stem)] = entry.stat().st_size
        for number, size in sizes.items():
            extent = needed.get(number)
            path = segment_path(self._directory, number)
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
        self._live = {number: extent.records for number, extent in needed.items()}
        self._next_number = max([0, *sizes, *needed]) + 1

    def close(self) -> None:
        """Stop appending; delete the open segment if nothing in it is needed."""
        self._retire()

    # -- appending -------------------------------------------------------------------------------

    def append(self, bodies: Iterable[tuple[int, int, bytes]]) -> list[Location]:
        """Write bodies; they are on disk when this returns, but nothing refers to them yet.

        Follow it by L{keep} when the commit that refers to them is done, or by L{undo} or
        L{abandon} when it failed.

        @param bodies: body key, CRC-32 and body of each.
        @raise OSError: nothing of it is kept, and the files are as they were.
        """
        current = self._writable_segment()
        locations = []
        buffers: list[bytes] = []
        offset = self._undo_to = current.end
        for key, crc, body in bodies:
            locations.append(Location(current.number, offset, len(body)))
            buffers.append(_HEADER.pack(_MAGIC, key, len(body), crc))
            buffers.append(body)
            offset += _HEADER.size + len(body)
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
            self._retire()
            raise
        current.end = offset
        return locations

    def keep(self, locations: Sequence[Location]) -> None:
        """Count the records that a commit now refers to."""
        for location in locations:
            self._live[location.segment] = self._live.get(location.segment, 0) + 1

    def undo(self) -> None:
        """Take the last L{append} back: no commit refers to it, now or after a crash."""
        current = self._current
        if current is None:
            return
        current.end = self._undo_to
        try:
            self._disk.truncate(current.descriptor, current.end)
        except OSError:
            self._retire()

    def abandon(self) -> None:
        """Leave the last L{append} where it is: the commit failed, but a crash could revive it."""

    # -- deleting --------------------------------------------------------------------------------

    def release(self, removed: Iterable[tuple[int, int]]) -> None:
        """Count records that a commit has removed, and delete files that hold no other.

        @param removed: number of the segment and how many of its records.
        """
        for number, count in removed:
            self._live[number] = self._live.get(number, 0) - count
            self._delete_if_dead(number)

    def _delete_if_dead(self, number: int) -> None:
        if self._live.get(number, 0) > 0:
            return
        if self._current is not None and self._current.number == number:
            # Making a new file for each of a few messages would cost more than a little space.
            if self._current.end >= self._segment_size // 16:
                self._retire()
            return
        self._live.pop(number, None)
        path = segment_path(self._directory, number)
        try:
            self._disk.unlink(path)
        except OSError as error:
            self._log.warn("cannot delete {path}: {problem}", path=path, problem=error.strerror)

    # -- the open segment ------------------------------------------------------------------------

    def _writable_segment(self) -> _OpenSegment:
        if self._current is not None and self._current.end >= self._segment_size:
            self._retire()
        if self._current is None:
            number = self._next_number
            self._next_number += 1
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

    def _retire(self) -> None:
        """Append to the open segment no more, and delete it if nothing in it is needed."""
        if self._current is not None:
            number = self._current.number
            with contextlib.suppress(OSError):
                self._disk.close(self._current.descriptor)
            self._current = None
            self._delete_if_dead(number)


def read_body(directory: str, location: Location, key: int, crc: int, disk: Disk) -> bytes:
    """Read a body and check that it is the one that was stored. For any thread.

    @raise DamagedBodyError: if it is not, or is not there.
    @raise OSError: if the system could not tell.
    """
    path = segment_path(directory, location.segment)
    try:
        record = disk.read(path, location.offset, _HEADER.size + location.size)
    except FileNotFoundError:
        raise DamagedBodyError(f"{path}, which holds body {key}, is missing") from None
    if len(record) == _HEADER.size + location.size:
        body = record[_HEADER.size :]
        header = _HEADER.pack(_MAGIC, key, location.size, crc)
        if record.startswith(header) and zlib.crc32(body) == crc:
            return body
    raise DamagedBodyError(f"{path}: body {key} at offset {location.offset} is damaged")
