"""Reading a spool as it is, from outside: for those who look at it while a node may own it.

Nothing is written and nothing is left out: a damaged record is shown with what can be read of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool.database import ODD_MESSAGE, connect
from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import DamagedRecordError, SpoolError, as_spool_error
from kumotwist.spool.ownership import SEGMENTS_NAME
from kumotwist.spool.reader import SpoolReader
from kumotwist.spool.records import COLUMNS, message_of
from kumotwist.spool.storage import DATABASE_NAME

__all__ = ["Entry", "Survey"]

_ROWS_AT_ONCE = 500

# Texts are read as bytes, so the types of what a record is told by are asked for.
_SELECT = f"SELECT {COLUMNS}, {ODD_MESSAGE}, typeof(id) FROM message"


@attrs.define(frozen=True)
class Entry:
    """A message as it stands in the spool.

    @ivar message: its values; of a damaged record what can be read, and nothing of it is sure.
    @ivar damage: what is wrong with the record; L{None} if it is sound.
    @ivar place: the body key and id that it stands at; L{None} if they are of other types.
    """

    message: QueuedMessage
    damage: str | None = None
    place: tuple[int, bytes] | None = None


class Survey:
    """A reader of a spool's directory that needs not own it. Everything blocks."""

    def __init__(self, path: str) -> None:
        """
        @param path: the spool's directory.
        @raise SpoolError: there is no spool, or it cannot be read.
        """
        self.path = os.path.abspath(path)
        self.database_path = os.path.join(self.path, DATABASE_NAME)
        self.segments_path = os.path.join(self.path, SEGMENTS_NAME)
        # Opening would make what is missing.
        if not os.path.isfile(self.database_path):
            raise SpoolError(f"{self.path}: there is no spool ({DATABASE_NAME} is missing)")
        try:
            self._reader = SpoolReader(self.database_path, self.segments_path, Disk())
            self.connection = connect(self.database_path)
            self.connection.text_factory = bytes
            self.connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise as_spool_error(error, self.database_path) from error

    def close(self) -> None:
        """Close the files."""
        self._reader.close()
        self.connection.close()

    def entries(self) -> Iterator[Entry]:
        """Every message, those that share a body together; at the end those with odd keys or ids.

        @raise SpoolError: the database cannot be read on.
        """
        after: tuple[Any, Any] | None = None
        while True:
            rows = self._rows(after)
            for row in rows:
                yield entry_of(row)
            if len(rows) < _ROWS_AT_ONCE:
                break
            after = rows[-1][:2]
        for row in self._fetch(f"{_SELECT} WHERE {ODD_MESSAGE}"):
            yield entry_of(row)

    def _rows(self, after: tuple[Any, Any] | None) -> list[tuple[Any, ...]]:
        more = "" if after is None else "AND (body, id) > (?, ?)"
        return self._fetch(
            f"{_SELECT} WHERE NOT {ODD_MESSAGE} {more} ORDER BY body, id LIMIT {_ROWS_AT_ONCE}",
            after or (),
        )

    def _fetch(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise as_spool_error(error, self.database_path) from error

    def by_due(self, limit: int) -> list[Entry]:
        """The first messages by their due time.

        @param limit: how many at most.
        @raise SpoolError: the database cannot be read.
        """
        rows = self._fetch(f"{_SELECT} ORDER BY due, body, id LIMIT ?", (limit,))
        return [entry_of(row) for row in rows]

    def named(self, ids: Iterable[str]) -> Iterator[Entry]:
        """The messages of some ids.

        @raise SpoolError: the database cannot be read.
        """
        wanted = set(ids)
        return (entry for entry in self.entries() if entry.message.id in wanted)

    def count(self) -> int:
        """How many messages there are.

        @raise SpoolError: the database cannot be read.
        """
        try:
            found: int = self.connection.execute("SELECT count(*) FROM message").fetchone()[0]
        except sqlite3.Error as error:
            raise as_spool_error(error, self.database_path) from error
        return found

    def body(self, message: QueuedMessage) -> bytes:
        """A message's body.

        @raise DamagedBodyError: it is missing or not what was stored.
        @raise SpoolError: the system could not tell.
        """
        return self._reader.load(message.body_key)

    def is_gone(self, message: QueuedMessage) -> bool:
        """Whether a message that was read is not there any more: a running node delivers.

        @raise SpoolError: the database cannot be read.
        """
        try:
            identity = bytes.fromhex(message.id)
            found = self.connection.execute(
                "SELECT 1 FROM message WHERE body = ? AND id = ?", (message.body_key, identity)
            ).fetchone()
        except ValueError:
            return False  # a damaged id: nothing of ours removes it
        except sqlite3.Error as error:
            raise as_spool_error(error, self.database_path) from error
        return found is None

    def unreferenced(self) -> list[int]:
        """The keys of bodies that no message has.

        @raise sqlite3.Error: the database cannot be read on.
        """
        rows = self.connection.execute(
            "SELECT key FROM (SELECT key FROM small UNION ALL SELECT key FROM large) "
            "WHERE NOT EXISTS (SELECT 1 FROM message WHERE body = key) ORDER BY key"
        )
        return [key for (key,) in rows]


def entry_of(selected: tuple[Any, ...]) -> Entry:
    """Make the most of what C{_SELECT} gives, texts as bytes."""
    *values, odd, id_type = selected
    row = tuple(values)
    place = None if odd else (row[0], row[1])
    try:
        message = message_of(row)
        if odd:
            raise DamagedRecordError(f"the record of message {message.id}: its id is {id_type}")
        if not isinstance(message.meta, dict):
            raise DamagedRecordError(f"the record of message {message.id}: its facts are no object")
        return Entry(message, place=place)
    except (DamagedRecordError, ValueError, RecursionError) as error:
        body, identity, sender, recipient, queue, size, created, due, attempts, meta, _ = row
        message = QueuedMessage(
            identity.hex() if isinstance(identity, bytes) else _text(identity),
            _text(sender),
            _text(recipient),
            _text(queue),
            _whole(size),
            _number(created),
            _number(due),
            _whole(attempts),
            {"unread": _text(meta)},
            _whole(body),
        )
        return Entry(message, str(error), place)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
