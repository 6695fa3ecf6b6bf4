"""Bodies as records of segment files: how one is written, read, checked and found again.

A record is a header of 24 octets (magic, body key, length, CRC-32), then the body. Where a record
starts stands in the database; the header repeats what is needed to tell that it is the record that
was meant, as Postfix's queue files check themselves. The last digit of the magic says how often the
record has been moved to another file, so that this can be bounded.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import DamagedBodyError

__all__ = [
    "MAX_MOVES",
    "RECORD_HEADER_SIZE",
    "Location",
    "Record",
    "find_records",
    "read_record",
    "record_header",
    "segment_number",
    "segment_path",
]

#: How often a body may be moved to another segment in its life; after that it stays where it is.
MAX_MOVES = 3

_HEADER = struct.Struct("<4sQQI")
_MAGIC = b"KTb"
_MAGICS = tuple(b"%s%d" % (_MAGIC, moves + 1) for moves in range(MAX_MOVES + 1))
_SUFFIX = ".seg"

#: Octets that a record needs besides its body.
RECORD_HEADER_SIZE = _HEADER.size


class Location(NamedTuple):
    """Where a record is: the segment's number, the offset of its header, the body's length."""

    segment: int
    offset: int
    size: int


class Record(NamedTuple):
    """A record that was read and is sound.

    @ivar body: the octets.
    @ivar moves: how often it has been moved.
    """

    body: bytes
    moves: int


def segment_path(directory: str, number: int) -> str:
    """The file of a segment."""
    return os.path.join(directory, f"{number:08d}{_SUFFIX}")


def segment_number(name: str) -> int | None:
    """The number of the segment that a file name stands for; L{None} if it is no segment's."""
    stem = name.removesuffix(_SUFFIX)
    return int(stem) if stem != name and stem.isdecimal() else None


def record_header(key: int, size: int, crc: int, moves: int) -> bytes:
    """The header of a record."""
    return _HEADER.pack(_MAGICS[moves], key, size, crc)


def read_record(directory: str, location: Location, key: int, crc: int, disk: Disk) -> Record:
    """Read a body and check that it is the one that was stored. For any thread.

    @raise DamagedBodyError: if it is not, or is not there.
    @raise OSError: if the system could not tell.
    """
    if not all(isinstance(value, int) and 0 <= value < 1 << 62 for value in (*location, crc)):
        raise DamagedBodyError(f"{directory}: where body {key} is has been damaged")
    path = segment_path(directory, location.segment)
    try:
        octets = disk.read(path, location.offset, _HEADER.size + location.size)
    except FileNotFoundError:
        raise DamagedBodyError(f"{path}, which holds body {key}, is missing") from None
    if len(octets) == _HEADER.size + location.size:
        magic, *facts = _HEADER.unpack_from(octets)
        body = octets[_HEADER.size :]
        if facts == [key, location.size, crc] and magic in _MAGICS and zlib.crc32(body) == crc:
            return Record(body, _MAGICS.index(magic))
    raise DamagedBodyError(f"{path}: body {key} at offset {location.offset} is damaged")


def find_records(path: str) -> Iterator[tuple[int, Location, int]]:
    """Search a segment file for sound records, whatever the database says of it.

    Finds a record also after damaged ones. What a sound record contains is not searched, so a
    message that holds a copy of a segment file gives nothing of its own.

    @return: body key, location and CRC-32 of each.
    @raise OSError: the file cannot be read.
    """
    number = segment_number(os.path.basename(path))
    if number is None or os.path.getsize(path) < _HEADER.size:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        offset = octets.find(_MAGIC)
        while 0 <= offset <= len(octets) - _HEADER.size:
            magic, key, size, crc = _HEADER.unpack_from(octets, offset)
            end = offset + _HEADER.size + size
            if magic in _MAGICS and 0 < size <= len(octets) - offset - _HEADER.size:
                with memoryview(octets) as view, view[end - size : end] as body:
                    sound = zlib.crc32(body) == crc
                if sound:
                    yield key, Location(number, offset, size), crc
                    offset = octets.find(_MAGIC, end)
                    continue
            offset = octets.find(_MAGIC, offset + 1)
