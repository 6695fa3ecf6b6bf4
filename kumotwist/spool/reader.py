"""Reading while another thread writes."""

from __future__ import annotations

import sqlite3
import zlib

import attrs

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool.bodies import Location, read_record
from kumotwist.spool.database import connect
from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import DamagedBodyError, DamagedRecordError, as_spool_error
from kumotwist.spool.records import COLUMNS, is_large, message_of

__all__ = ["Cursor", "Page", "SpoolReader"]

#: Where a page ended: due time, body key and id of its last row.
Cursor = tuple[float, int, bytes]

# Texts are read as bytes. An id that became a text must be told from one that is sound: no removal
# would find it, so it would be delivered again after each start.
_VALUES = COLUMNS.replace(" id,", " CASE typeof(id) WHEN 'blob' THEN id END,")
_FIRST_PAGE = f"SELECT {_VALUES} FROM message WHERE body <= ? ORDER BY due, body, id LIMIT ?"
_NEXT_PAGE = (
    f"SELECT {_VALUES} FROM message WHERE body <= ? AND (due, body, id) > (?, ?, ?) "
    "ORDER BY due, body, id LIMIT ?"
)


@attrs.define(frozen=True)
class Page:
    """A part of an enumeration.

    @ivar messages: those whose records are sound, by due time.
    @ivar damaged: what is wrong with the others.
    @ivar cursor: where the next page starts; L{None} after the last.
    """

    messages: list[QueuedMessage]
    damaged: list[str]
    cursor: Cursor | None


class SpoolReader:
    """A second connection to the database. Everything blocks; for one thread.

    Every call sees what was committed when it started, and ends its read transaction: one that
    stayed open would keep the WAL from being reused.
    """

    def __init__(self, database_path: str, segments_path: str, disk: Disk) -> None:
        """
        @raise sqlite3.Error: the database cannot be opened.
        """
        self._path = database_path
        self._segments_path = segments_path
        self._disk = disk
        self._connection = connect(database_path)
        # A damaged text must be found by its checksum, not by failing to be decoded on the way.
        self._connection.text_factory = bytes
        self._connection.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def load(self, key: int) -> bytes:
        """Read a body.

        @raise DamagedBodyError: it is missing or not what was stored.
        @raise SpoolError: the system could not tell.
        """
        try:
            return self._load_large(key) if is_large(key) else self._load_small(key)
        except (sqlite3.Error, OSError) as error:
            raise as_spool_error(error, self._path) from error

    def _load_small(self, key: int) -> bytes:
        found = self._connection.execute(
            "SELECT crc, content FROM small WHERE key = ?", (key,)
        ).fetchone()
        if found is None:
            raise DamagedBodyError(f"{self._path}: there is no body {key}")
        crc, content = found
        if not isinstance(content, bytes) or zlib.crc32(content) != crc:
            raise DamagedBodyError(f"{self._path}: body {key} is damaged")
        return content

    def _load_large(self, key: int) -> bytes:
        """Read it where it is; a body that is moved meanwhile is looked for once more."""
        before: tuple[int, ...] | None = None
        while True:
            found = self._connection.execute(
                "SELECT segment, offset, size, crc FROM large WHERE key = ?", (key,)
            ).fetchone()
            if found is None:
                raise DamagedBodyError(f"{self._path}: there is no body {key}")
            try:
                location, crc = Location(*found[:3]), found[3]
                return read_record(self._segments_path, location, key, crc, self._disk).body
            except DamagedBodyError:
                if found == before:
                    raise
                before = found

    def read_page(self, cursor: Cursor | None, last_key: int, limit: int) -> Page:
        """Read the next messages by due time.

        @param cursor: where the page before ended; L{None} to start.
        @param last_key: the highest body key to look at.
        @param limit: how many at most.
        @raise SpoolError: the database cannot be read.
        """
        try:
            if cursor is None:
                rows = self._connection.execute(_FIRST_PAGE, (last_key, limit)).fetchall()
            else:
                rows = self._connection.execute(_NEXT_PAGE, (last_key, *cursor, limit)).fetchall()
        except sqlite3.Error as error:
            raise as_spool_error(error, self._path) from error
        messages = []
        damaged = []
        for row in rows:
            try:
                messages.append(message_of(row))
            except DamagedRecordError as error:
                damaged.append(str(error))
        if len(rows) < limit:
            return Page(messages, damaged, None)
        last = rows[-1]
        return Page(messages, damaged, (last[7], last[0], last[1] or b""))
