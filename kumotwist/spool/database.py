"""The tables, and every SQL statement of the spool.

    message  one row per recipient, clustered by body key, so that those who share a body are
             neighbours; an index on the due time, for the enumeration
    small    bodies up to the threshold, apart from the messages so that scans of these stay short
    large    where in which segment file a larger body is
    state    what is known of the spool itself

A body and its messages come in one transaction and go in one transaction, so there is never a body
without a message. Body keys grow; the lowest bit tells the table, so that removing needs no look.

The journal is a WAL: a commit appends and syncs one file. C{auto_vacuum} is INCREMENTAL: it costs
about a tenth of the CPU of a commit, it cannot be turned on later, and without it the file
could only shrink by a C{VACUUM}, which rewrites everything while nothing else can be written.
C{secure_delete} is off: some builds of SQLite overwrite what is deleted with zeros.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence

from kumotwist.spool.bodies import RECORD_HEADER_SIZE, Location
from kumotwist.spool.changes import Changes, Store
from kumotwist.spool.errors import SpoolError
from kumotwist.spool.records import COLUMNS, is_large
from kumotwist.spool.segments import Extent

__all__ = ["KEY_LIMIT", "ODD_MESSAGE", "OUT_OF_KEYS", "Database", "connect"]

#: No body has this key or a higher one: no counter comes that far, so a record that says it is
#: damaged.
KEY_LIMIT = 1 << 62

#: What a store fails with that would need one.
OUT_OF_KEYS = (
    "there are no body keys left above those in use, so one of these is damaged; "
    "`kumo spool check --discard` takes it out"
)

#: True of messages that cannot be told by body key and id, for one of them is of another type than
#: any that was stored. By these two a removal could not find them.
ODD_MESSAGE = "(typeof(body) <> 'integer' OR typeof(id) <> 'blob')"

_APPLICATION_ID = 0x4B544B54
_FORMAT = 1

_SCHEMA = """
CREATE TABLE message (
    body INTEGER NOT NULL, id BLOB NOT NULL, sender TEXT NOT NULL, recipient TEXT NOT NULL,
    queue TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, meta TEXT NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (body, id)
) WITHOUT ROWID;
CREATE INDEX message_due ON message (due);
CREATE TABLE small (key INTEGER PRIMARY KEY, crc INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE large (
    key INTEGER PRIMARY KEY, segment INTEGER NOT NULL, offset INTEGER NOT NULL,
    size INTEGER NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE state (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO state VALUES ('probe', 0);
"""

_INSERT_MESSAGE = f"INSERT INTO message ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_UPDATE_MESSAGE = (
    "UPDATE message SET sender = ?, recipient = ?, queue = ?, size = ?, created = ?, due = ?, "
    "attempts = ?, meta = ?, crc = ? WHERE body = ? AND id = ?"
)
_DELETE_MESSAGE = "DELETE FROM message WHERE id = ? AND body = ?"
_UNSHARED = "key = ? AND NOT EXISTS (SELECT 1 FROM message WHERE body = key)"
_DISCARD_MESSAGE = "DELETE FROM message WHERE body = ? AND id = ?"
# Places that no body was stored at.
_SOUND_PLACE = (
    "typeof(segment) = 'integer' AND typeof(offset) = 'integer' AND typeof(size) = 'integer' "
    f"AND segment BETWEEN 1 AND {1 << 40} AND offset BETWEEN 0 AND {1 << 40} "
    f"AND size BETWEEN 0 AND {1 << 40}"
)
_PROBE = "UPDATE state SET value = value + 1 WHERE name = 'probe'"

# Pages (of 4 KiB) that may wait to be reused before the file is made smaller, and how many of them
# one step gives back: some ten milliseconds, since SQLite searches its list of free pages for each.
_SPARE_PAGES = 2048
_PAGES_PER_STEP = 64

# Seconds that a connection waits for another one's lock.
_BUSY_TIMEOUT = 5


def connect(path: str) -> sqlite3.Connection:
    """Connect without any implicit transactions; one thread at a time may use it."""
    return sqlite3.connect(
        path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
    )


class Database:
    """The writing connection."""

    def __init__(self, path: str, *, durable: bool) -> None:
        """Open the file, making it if it is missing; SQLite recovers what a crash left.

        @raise SpoolError: if it belongs to something else, or to a newer version.
        @raise sqlite3.Error: if it cannot be used.
        @raise OSError: if it cannot be made.
        """
        # SQLite gives the WAL the file's permissions; nobody else has a right to read mail.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connection = connect(path)
        try:
            self._prepare(path, durable)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, path: str, durable: bool) -> None:
        execute = self._connection.execute
        execute("PRAGMA auto_vacuum = INCREMENTAL")
        execute("PRAGMA secure_delete = OFF")
        if execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
            raise SpoolError(f"{path}: this file system cannot hold an SQLite WAL")
        execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        execute("PRAGMA wal_autocheckpoint = 1000")
        execute("PRAGMA journal_size_limit = 67108864")
        execute("PRAGMA cache_size = -4096")
        execute("PRAGMA temp_store = MEMORY")
        known = execute("PRAGMA application_id").fetchone()[0]
        version = execute("PRAGMA user_version").fetchone()[0]
        if known == 0 and not execute("SELECT 1 FROM sqlite_master").fetchone():
            # All of it at once: a crash in the middle leaves an empty file, not half a spool.
            self._connection.executescript(
                f"BEGIN; PRAGMA application_id = {_APPLICATION_ID};"
                f"PRAGMA user_version = {_FORMAT}; {_SCHEMA} COMMIT;"
            )
        elif known != _APPLICATION_ID:
            raise SpoolError(f"{path}: this database is not a spool of kumotwist")
        elif version != _FORMAT:
            raise SpoolError(f"{path}: format {version} is not known to this version ({_FORMAT})")

    def close(self) -> None:
        """Close; the WAL is written back into the file."""
        self._connection.close()

    # -- transactions ----------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to write."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make it durable."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Forget what was written since L{begin}; SQLite may have done so by itself."""
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    # -- what a transaction does -----------------------------------------------------------------

    def insert(
        self,
        stores: Sequence[Store],
        small: Sequence[tuple[int, int, bytes]],
        large: Sequence[tuple[int, int, int, int, int]],
    ) -> None:
        """Write messages and their bodies, or where those are.

        @param small: key, CRC and content.
        @param large: key, segment, offset, size and CRC.
        """
        many = self._connection.executemany
        if small:
            many("INSERT INTO small VALUES (?, ?, ?)", small)
        if large:
            many("INSERT INTO large VALUES (?, ?, ?, ?, ?)", large)
        many(_INSERT_MESSAGE, [row for store in stores for row in store.rows])

    def change(self, changes: Changes) -> list[tuple[int, int]]:
        """Write updates, removals, and the removals of bodies that follow.

        @return: for each large body that went, its segment and length.
        """
        many = self._connection.executemany
        if changes.updates:
            many(_UPDATE_MESSAGE, [(*row[2:], *row[:2]) for row in changes.updates.values()])
        if not changes.removals:
            return []
        many(_DELETE_MESSAGE, changes.removals.items())
        keys = set(changes.removals.values())
        small = [(key,) for key in keys if not is_large(key)]
        if small:
            many(f"DELETE FROM small WHERE {_UNSHARED}", small)
        return self._remove_large(key for key in keys if is_large(key))

    def _remove_large(self, keys: Iterable[int]) -> list[tuple[int, int]]:
        removed = []
        for key in keys:
            found = self._connection.execute(
                f"SELECT {_SOUND_PLACE}, segment, size FROM large WHERE {_UNSHARED}", (key,)
            ).fetchone()
            if found is not None:
                self._connection.execute("DELETE FROM large WHERE key = ?", (key,))
                if found[0]:
                    removed.append(found[1:])
        return removed

    def discard(self, messages: Iterable[tuple[int, bytes]]) -> int:
        """Remove messages, all that L{ODD_MESSAGE} tells, and bodies that no message has.

        @param messages: body key and id of each.
        @return: how many messages went.
        """
        many, execute = self._connection.executemany, self._connection.execute
        gone = many(_DISCARD_MESSAGE, messages).rowcount
        gone += execute(f"DELETE FROM message WHERE {ODD_MESSAGE}").rowcount
        self.discard_unreferenced()
        return gone

    def discard_unreferenced(self) -> None:
        """Remove bodies that no message has; looks at all of them."""
        for table in ("small", "large"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM message WHERE body = key)"
            )

    def probe(self) -> None:
        """Write something of no meaning, to learn whether writing is possible."""
        self._connection.execute(_PROBE)

    # -- opening ---------------------------------------------------------------------------------

    def last_key(self) -> int:
        """The highest body key in use, also by a body that no message has; 0 if there is none.

        Keys that cannot be are not counted on from: a damaged record must not use up all keys.
        """
        rows = self._connection.execute(
            "SELECT (SELECT body FROM message WHERE body < ?1 AND typeof(body) = 'integer' "
            "ORDER BY body DESC LIMIT 1), (SELECT max(key) FROM small WHERE key < ?1), "
            "(SELECT max(key) FROM large WHERE key < ?1)",
            (KEY_LIMIT,),
        )
        return max(key or 0 for key in rows.fetchone())

    def beyond(self) -> int:
        """How many messages have a body key that cannot be; no enumeration meets these."""
        found: int = self._connection.execute(
            "SELECT count(*) FROM message WHERE body >= ?", (KEY_LIMIT,)
        ).fetchone()[0]
        return found

    def keys_of(self, ids: Sequence[bytes]) -> dict[bytes, int]:
        """The body keys of those of the messages that are here, by id; looks at all messages.

        A row whose key is damaged is none.
        """
        marks = ", ".join("?" * len(ids))
        return dict(
            self._connection.execute(
                f"SELECT id, body FROM message WHERE id IN ({marks}) AND typeof(body) = 'integer'",
                ids,
            )
        )

    def is_empty(self) -> bool:
        """Whether there is neither a message nor a body, sound or not."""
        tables = ("message", "small", "large")
        some = " OR ".join(f"EXISTS (SELECT 1 FROM {table})" for table in tables)
        return not self._connection.execute(f"SELECT {some}").fetchone()[0]

    def large_bodies(self) -> int:
        """How many there are, also those whose places cannot be."""
        found: int = self._connection.execute("SELECT count(*) FROM large").fetchone()[0]
        return found

    def extents(self) -> dict[int, Extent]:
        """What is needed of each segment, as far as places can be."""
        rows = self._connection.execute(
            "SELECT segment, count(*), max(offset + size), sum(size) FROM large "
            f"WHERE {_SOUND_PLACE} GROUP BY segment"
        )
        header = RECORD_HEADER_SIZE
        return {
            segment: Extent(records, end + header, octets + records * header)
            for segment, records, end, octets in rows
        }

    # -- space -----------------------------------------------------------------------------------

    def keys_in(self, segment: int) -> list[int]:
        """The keys of the bodies in a segment; looks at all large bodies."""
        rows = self._connection.execute(
            "SELECT key FROM large WHERE segment = ? ORDER BY offset", (segment,)
        )
        return [key for (key,) in rows]

    def place_of(self, key: int) -> tuple[Location, int] | None:
        """Where a large body is, and its CRC-32; L{None} if it is gone."""
        found = self._connection.execute(
            "SELECT segment, offset, size, crc FROM large WHERE key = ?", (key,)
        ).fetchone()
        return None if found is None else (Location(*found[:3]), found[3])

    def relocate(self, places: Iterable[tuple[int, int, int]]) -> None:
        """Write where bodies are now.

        @param places: segment, offset and key of each.
        """
        self._connection.executemany(
            "UPDATE large SET segment = ?, offset = ? WHERE key = ?", places
        )

    def shrink(self) -> bool:
        """Give some unused pages back to the file system, if there are many.

        Each page that is in use at the end of the file moves once, to a free place before it.

        @return: whether there is more to give back.
        """
        execute = self._connection.execute
        free = execute("PRAGMA freelist_count").fetchone()[0]
        total = execute("PRAGMA page_count").fetchone()[0]
        if free <= max(_SPARE_PAGES, total // 4):
            return False
        # Not execute(): it would take the first step of the statement only, which is one page.
        self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_PER_STEP})")
        return True

    def write_back(self) -> None:
        """Write the WAL back into the file, so that both get as small as they can be.

        The work of the checkpoint that ends a commit now and then; readers are not waited for.
        """
        execute = self._connection.execute
        execute("PRAGMA busy_timeout = 0")
        try:
            execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT * 1000}")
