"""Reading what can still be read of a damaged database: always from a copy, into a new one.

SQLite refuses a whole file when its first page is wrong: the magic, the page size, the number of
pages, or the list of tables. All of that is the same in every spool but for the number of pages,
so the first page of a new, empty spool takes its place in the copy (SQLite's "Database File
Format", 1.3, "The Database Header"). Where a page further on is damaged, rows are
read from both ends, and then key by key in between.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from typing import Any

import attrs

from kumotwist.spool.database import Database, connect

__all__ = ["Salvage", "remove_database", "salvage"]

_TABLES = {"message": ("body", "body, id"), "small": ("key", "key"), "large": ("key", "key")}

# Where the header says how many pages there are, and where the list of free ones starts.
_PAGE_COUNT = slice(28, 32)
_FREE_LIST = slice(32, 40)

# Keys that are tried one by one at most, between the last that could be read and the first.
_MOST_KEYS = 4_000_000


@attrs.define
class Salvage:
    """What was read.

    @ivar unread: the tables that could not be read to the end.
    @ivar lost: how many messages an index still names whose records could not be read.
    @ivar patched: whether the first page had to be replaced.
    """

    unread: list[str] = attrs.field(factory=list)
    lost: int = 0
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
                found.lost = _lost(copy, target) if found.unread else 0
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
    """Copy a table's rows, and say whether all of them could be read."""
    column, order = _TABLES[table]
    ends: list[int | None] = [None, None]
    for number, direction in enumerate(("ASC", "DESC")):
        by = ", ".join(f"{each} {direction}" for each in order.split(", "))
        try:
            for row in _rows(copy, f"SELECT * FROM {table} ORDER BY {by}"):
                _insert(target, table, row)
                if isinstance(row[0], int):
                    ends[number] = row[0]
            return True
        except sqlite3.Error:
            continue
    _copy_between(copy, table, column, ends, target)
    return False


def _copy_between(
    copy: str, table: str, column: str, ends: list[int | None], target: sqlite3.Connection
) -> None:
    """Ask for each key between the two places where reading in order came to an end."""
    low, high = ends
    known = target.execute(
        "SELECT max((SELECT ifnull(max(body), 0) FROM message), "
        "(SELECT ifnull(max(key), 0) FROM small), (SELECT ifnull(max(key), 0) FROM large))"
    ).fetchone()[0]
    first = low or 1
    last = min(high if high is not None else known + 2000, first + _MOST_KEYS)
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_open(copy)) as source:
        statement = f"SELECT * FROM {table} WHERE {column} = ?"
        source.execute("SELECT 1 FROM sqlite_master").fetchone()
        for key in range(first, last + 1):
            with contextlib.suppress(sqlite3.Error):
                for row in source.execute(statement, (key,)):
                    _insert(target, table, row)


def _lost(copy: str, target: sqlite3.Connection) -> int:
    """How many messages the index by due time names that are not in the new database."""
    named = set()
    with contextlib.suppress(sqlite3.Error):
        statement = "SELECT body, id FROM message INDEXED BY message_due ORDER BY due"
        for row in _rows(copy, statement):
            if target.execute("SELECT 1 FROM message WHERE body = ? AND id = ?", row).fetchone():
                continue
            named.add(row)
    return len(named)


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
