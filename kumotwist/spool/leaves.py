"""Reading the rows of a database page by page, where SQLite cannot find its way to them any more.

A tree of pages is lost to SQLite with the page that leads to it: of a file that was cut in half the
root may name pages that are gone, while most rows are still there. So every page is looked at by
itself ("Database File Format", 1.6, "B-tree Pages", and 2.1, "Record Format").

Pages that came free still hold what was removed, so a row counts for sure only on a page that is
said to be in use: the pointer map of C{auto_vacuum} says so (1.8). Where the map is damaged itself,
the caller must be satisfied with the row's own checksum.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["LeafRow", "leaf_rows"]

# Types of b-tree pages: interior pages of an index hold rows, those of a table do not. The table
# `message` has no rowid, which makes an index of it.
_INDEX_INTERIOR, _INDEX_LEAF, _TABLE_LEAF = 2, 10, 13

# Types of the pointer map.
_ROOT, _FREE, _BTREE = 1, 2, 5
_MAP_TYPES = frozenset(range(1, 6))
_MAP_ENTRY = 5
_PENDING_BYTE = 0x40000000

_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL = 7

# What the columns of a row may be, by the table: N no value, I integer, R real (which SQLite writes
# as an integer where it is a whole number), B octets, T text.
_SHAPES = {
    (_TABLE_LEAF, 3): ("small", "NIB"),
    (_TABLE_LEAF, 5): ("large", "NIIII"),
    (_INDEX_LEAF, 11): ("message", "IBTTTIRRITI"),
    (_INDEX_INTERIOR, 11): ("message", "IBTTTIRRITI"),
    (_INDEX_LEAF, 3): ("message_due", "RIB"),
    (_INDEX_INTERIOR, 3): ("message_due", "RIB"),
}


class LeafRow(NamedTuple):
    """A row that was found.

    @ivar table: C{message}, C{small}, C{large}, or C{message_due} for an entry of that index.
    @ivar values: texts as octets.
    @ivar in_use: whether the page is known to be in use.
    """

    table: str
    values: tuple[Any, ...]
    in_use: bool


def leaf_rows(path: str, page_size: int) -> Iterator[LeafRow]:
    """Search all pages of a database file, without its WAL.

    @param path: of the file; it may be cut anywhere, and any octet of it may be wrong.
    @param page_size: in octets.
    @raise OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        if file.seek(0, 2) < page_size:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
            pages = _Pages(octets, page_size)
            for number in range(2, len(octets) // page_size + 1):
                kind = pages.kind(number)
                if kind is None or kind in (_ROOT, _BTREE):
                    for table, values in pages.rows(number):
                        yield LeafRow(table, values, kind is not None)


class _Pages:
    """The pages of a file; numbers begin with 1."""

    def __init__(self, octets: mmap.mmap, size: int) -> None:
        self._octets = octets
        self._size = size
        self._group = size // _MAP_ENTRY + 1
        self._least = (size - 12) * 32 // 255 - 23

    def _page(self, number: int) -> bytes:
        return self._octets[(number - 1) * self._size : number * self._size]

    def kind(self, number: int) -> int | None:
        """What the pointer map says of a page; L{None} if it is no type of page."""
        at = (number - 2) // self._group * self._group + 2
        if at == _PENDING_BYTE // self._size + 1:
            at += 1
        if number <= at:
            return _FREE  # the map itself
        kind = self._octets[(at - 1) * self._size + _MAP_ENTRY * (number - at - 1)]
        return kind if kind in _MAP_TYPES else None

    def rows(self, number: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The rows on a page, if it is one that may hold some."""
        page = self._page(number)
        kind = page[0]
        if kind not in (_INDEX_INTERIOR, _INDEX_LEAF, _TABLE_LEAF):
            return
        begin = 12 if kind == _INDEX_INTERIOR else 8
        count = int.from_bytes(page[3:5], "big")
        for at in range(begin, min(begin + 2 * count, len(page) - 1), 2):
            try:
                found = self._row(page, kind, int.from_bytes(page[at : at + 2], "big"))
            except (IndexError, ValueError, struct.error):
                continue
            if found is not None:
                yield found

    def _row(self, page: bytes, kind: int, at: int) -> tuple[str, tuple[Any, ...]] | None:
        """A row; L{None} if it is none of ours."""
        if kind == _INDEX_INTERIOR:
            at += 4
        length, at = _varint(page, at)
        key = 0
        if kind == _TABLE_LEAF:
            key, at = _varint(page, at)
            most = self._size - 35
        else:
            most = (self._size - 12) * 64 // 255 - 23
        local = length
        if length > most:
            local = self._least + (length - self._least) % (self._size - 4)
            local = local if local <= most else self._least
        here = page[at : at + local]
        types, begin = _types(here)
        name, shape = _SHAPES.get((kind, len(types)), ("", ""))
        sizes = [_size_of(each) for each in types]
        if not name or begin + sum(sizes) != length or not _fits(types, shape):
            return None
        rest = self._overflow(page[at + local : at + local + 4], length - len(here))
        payload = here + rest
        values = []
        for each, size, letter in zip(types, sizes, shape, strict=True):
            values.append(key if letter == "N" else _value(payload[begin : begin + size], each))
            if letter == "R":
                values[-1] = float(values[-1])
            begin += size
        return name, tuple(values)

    def _overflow(self, first: bytes, missing: int) -> bytes:
        """What of a row is on pages of its own."""
        if missing > len(self._octets):
            raise ValueError("longer than the file")
        parts = []
        while missing > 0:
            page = self._page(int.from_bytes(first, "big") or len(self._octets))
            if len(page) < self._size:
                raise ValueError("the rest is not there")
            first = page[:4]
            parts.append(page[4 : 4 + missing])
            missing -= len(parts[-1])
        return b"".join(parts)


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for index in range(at, at + 8):
        octet = octets[index]
        value = value << 7 | octet & 0x7F
        if octet < 0x80:
            return value, index + 1
    return value << 8 | octets[at + 8], at + 9


def _types(payload: bytes) -> tuple[list[int], int]:
    """The types of a row's columns, and where the first of them begins."""
    begin, at = _varint(payload, 0)
    if begin > min(len(payload), 64):
        raise ValueError("no row of ours has so many columns")
    types = []
    while at < begin:
        each, at = _varint(payload, at)
        types.append(each)
    return types, begin


def _size_of(kind: int) -> int:
    """How many octets a column takes."""
    return (kind - 12) // 2 if kind >= 12 else 8 if kind == _REAL else _INTEGER_SIZES.get(kind, 0)


def _is_integer(kind: int) -> bool:
    return kind in _INTEGER_SIZES or kind in (8, 9)


_LETTERS: dict[str, Callable[[int], bool]] = {
    "N": lambda kind: kind == 0,
    "I": _is_integer,
    "R": lambda kind: kind == _REAL or _is_integer(kind),
    "B": lambda kind: kind >= 12 and not kind & 1,
    "T": lambda kind: kind >= 13 and bool(kind & 1),
}


def _fits(types: list[int], shape: str) -> bool:
    """Whether columns are what they should be."""
    return all(_LETTERS[letter](kind) for letter, kind in zip(shape, types, strict=True))


def _value(octets: bytes, kind: int) -> Any:
    """The value of a column."""
    if kind >= 12:
        return octets
    if kind == _REAL:
        return struct.unpack(">d", octets)[0]
    return kind - 8 if kind in (8, 9) else int.from_bytes(octets, "big", signed=True)
