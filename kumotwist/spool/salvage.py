"""Reading what can still be read of a damaged database: always from a copy, into a new one.

SQLite refuses a whole file when its first page is wrong: the magic, the page size, the number of
pages, or the list of tables. All of that is the same in every spool but for the number of pages,
so the first page of a new, empty spool takes its place in the copy (SQLite's "Database File
Format", 1.3, "The Database Header"). Where a page further on is damaged, rows are
read from both ends, and then page by page (L{kumotwist.spool.leaves}), whatever leads to them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from typing import Any

import attrs

from kumotwist.spool.database import Database, connect
from kumotwist.spool.errors import DamagedRecordError
from kumotwist.spool.leaves import LeafRow, leaf_rows
from kumotwist.spool.records import COLUMNS, message_of

__all__ = ["Salvage", "remove_database", "salvage"]

# The tables, and the columns by which each can be read in order.
_TABLES = {"message": ("body", "id"), "small": ("key",), "large": ("key",)}

# The columns of a message that are texts.
_TEXTS = {
    at
    for at, name in enumerate(COLUMNS.split(", "))
    if name in {"sender", "recipient", "queue", "meta"}
}

# Where the header says how many pages there are, and where the list of free ones starts.
_PAGE_COUNT = slice(28, 32)
_FREE_LIST = slice(32, 40)


@attrs.define
class Salvage:
    """What was read.

    @ivar unread: the tables that could not be read to the end.
    @ivar lost: the ids of the messages that an index still names, but whose records could not be
        read.
    @ivar patched: whether the first page had to be replaced.
    """

    unread: list[str] = attrs.field(factory=list)
    lost: list[str] = attrs.field(factory=list)
    patched: bool = False


def salvage(path: str, fresh: str) -> Salvage:
    """Make a new database of the rows that can be read of a damaged one, which is not changed.

    @param path: the damaged one; a WAL beside it is read too.
    @param fresh: the new one's path; whatever is there is replaced.
    @raise sqlite3.Error: the new one cannot be written.
    @raise OSError: likewise, or the damaged one cannot be read by the system.
    """
    copy = f"{path}.reading"
    remove_database(fresh)
    Database(fresh, durable=True).close()
    with open(fresh, "rb") as new:
        header = new.read(100)
        first_page = header + new.read(_page_size(header) - len(header))
    found = Salvage()
    try:
        with contextlib.closing(connect(fresh)) as target:
            target.execute("BEGIN")
            found.unread = _read(path, copy, target, None)
            if found.unread:
                found.patched = True
                found.unread = _read(path, copy, target, first_page)
                if found.unread:
                    found.lost = _read_leaves(copy, _page_size(header), target)
            target.execute("COMMIT")
    finally:
        remove_database(copy)
    return found


def remove_database(path: str) -> None:
    """Delete a database that is of no use any more, with what SQLite keeps beside it."""
    for name in (path, f"{path}-wal", f"{path}-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    return 65536 if size == 1 else size


def _read(path: str, copy: str, target: sqlite3.Connection, first_page: bytes | None) -> list[str]:
    """Read all tables of a copy.

    @return: the names of those that could not be read to the end.
    """
    remove_database(copy)
    for suffix in ("", "-wal"):
        if os.path.exists(path + suffix):
            shutil.copyfile(path + suffix, copy + suffix)
            os.chmod(copy + suffix, 0o600)
    if first_page is not None:
        _put_right(copy, first_page)
    unread = []
    for table in _TABLES:
        if not _copy_table(copy, table, target):
            unread.append(table)
    return unread


def _put_right(copy: str, first_page: bytes) -> None:
    """Replace the first page; the free pages are then nobody's, which does not matter here."""
    page = bytearray(first_page)
    with open(copy, "r+b") as file:
        pages = -(-os.fstat(file.fileno()).st_size // len(page))
        page[_PAGE_COUNT] = max(1, pages).to_bytes(4, "big")
        page[_FREE_LIST] = bytes(8)
        file.write(page)
        file.truncate(max(1, pages) * len(page))


def _copy_table(copy: str, table: str, target: sqlite3.Connection) -> bool:
    """Copy a table's rows, from both ends if need be, and say whether all of them could be read."""
    for direction in ("ASC", "DESC"):
        order = ", ".join(f"{each} {direction}" for each in _TABLES[table])
        try:
            for row in _rows(copy, f"SELECT * FROM {table} ORDER BY {order}"):
                _insert(target, table, row)
        except sqlite3.Error:
            continue
        return True
    return False


def _read_leaves(copy: str, page_size: int, target: sqlite3.Connection) -> list[str]:
    """Copy the rows of all pages, whether SQLite finds its way to them or not.

    @return: the ids of messages that are named in an index, but were not found.
    """
    named = set()
    for row in leaf_rows(copy, page_size):
        if row.table == "message_due":
            if row.in_use:
                named.add(row.values[1:])
        elif row.in_use or _is_sound(row):
            _insert(target, row.table, _with_texts(row))
    statement = "SELECT 1 FROM message WHERE body = ? AND id = ?"
    return sorted(each[1].hex() for each in named if not target.execute(statement, each).fetchone())


def _with_texts(row: LeafRow) -> tuple[Any, ...]:
    """The values of a row, texts as such."""
    if row.table != "message":
        return row.values
    return tuple(_as_it_is(each) if at in _TEXTS else each for at, each in enumerate(row.values))


def _is_sound(row: LeafRow) -> bool:
    """Whether a row's own checksum says that it is what was stored."""
    if row.table == "small":
        _, crc, content = row.values
        return bool(zlib.crc32(content) == crc)
    if row.table == "message":
        with contextlib.suppress(DamagedRecordError):
            message_of(row.values)
            return True
    return False


def _open(copy: str) -> sqlite3.Connection:
    source = connect(copy)
    source.text_factory = _as_it_is
    return source


def _rows(copy: str, statement: str) -> Iterator[tuple[Any, ...]]:
    with contextlib.closing(_open(copy)) as source:
        yield from source.execute(statement)


def _insert(target: sqlite3.Connection, table: str, row: tuple[Any, ...]) -> None:
    marks = ", ".join("?" * len(row))
    target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)


def _as_it_is(octets: bytes) -> str | bytes:
    """A text, or its octets if it is none: a checksum will tell."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets
