"""Repairing a spool that nobody owns, as far as that can be done without guessing.

  - A database whose pages or indexes contradict each other is written anew from every row that can
    be read; the old one is kept beside it.
  - The place of a large body that the database does not know, or knows wrongly, is found by
    searching the segment files: a record says whose it is and checks itself.

What was damaged itself stays damaged; L{discard} takes it out, when it has been looked at.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from typing import Any

from kumotwist.spool.bodies import Location, find_records
from kumotwist.spool.changes import Changes
from kumotwist.spool.database import Database, connect
from kumotwist.spool.errors import SpoolError, as_spool_error
from kumotwist.spool.inspection import Finding, Findings, Kind, inspect, large_ones
from kumotwist.spool.ownership import OwnedDirectory
from kumotwist.spool.survey import Survey

__all__ = ["SpoolCheck"]

_TABLES = {"message": "body, id", "small": "key", "large": "key"}


class SpoolCheck:
    """Owns a spool for as long as it is checked; a context manager. Everything blocks."""

    def __init__(self, path: str) -> None:
        """
        @raise SpoolLockedError: a node has it.
        @raise SpoolError: there is no spool, or it cannot be read.
        """
        # Taking possession would make the directory, so look first whether there is a spool.
        self._survey = Survey(path)
        self._directory = OwnedDirectory(path)
        try:
            self._directory.acquire()
        except BaseException:
            self._survey.close()
            raise

    def __enter__(self) -> SpoolCheck:
        return self

    def __exit__(self, *error: object) -> None:
        self._survey.close()
        self._directory.release()

    def look(self) -> Findings:
        """Look at everything; nothing is changed."""
        return inspect(self._survey)

    def repair(self) -> Findings:
        """Look at everything and repair what can be repaired.

        @return: all that was wrong.
        @raise SpoolError: the repair failed; the spool is as it was.
        """
        findings = self.look()
        broken = [each for each in findings.wrong if each.kind is Kind.DATABASE]
        try:
            if broken:
                findings = self._rebuild(broken)
            lost = large_ones(findings)
            if lost:
                self._find_again(lost)
        except (sqlite3.Error, OSError) as error:
            raise as_spool_error(error, self._survey.database_path) from error
        return findings

    def discard(self, findings: Findings) -> int:
        """Forget damaged messages, and bodies that no message has, for good.

        @return: how many messages went.
        @raise SpoolError: it could not be written; the spool is as it was.
        """
        changes = Changes()
        for finding in findings.damaged:
            for entry in finding.entries:
                with contextlib.suppress(ValueError):
                    identity = bytes.fromhex(entry.message.id)
                    changes.remove(identity, entry.message.body_key)
        database = Database(self._survey.database_path, durable=True)
        try:
            database.begin()
            database.change(changes)
            database.discard_unreferenced()
            database.commit()
        except sqlite3.Error as error:
            database.rollback()
            raise as_spool_error(error, self._survey.database_path) from error
        finally:
            database.close()
        return len(changes.removals)

    # -- the database ----------------------------------------------------------------------------

    def _rebuild(self, broken: list[Finding]) -> Findings:
        """Write the database anew; the rows that could not be read are lost, and are counted."""
        path = self._survey.database_path
        fresh = f"{path}.rebuilt"
        for name in (fresh, f"{fresh}-wal", f"{fresh}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        Database(fresh, durable=True).close()
        with contextlib.closing(connect(fresh)) as target:
            target.execute("BEGIN")
            for table, order in _TABLES.items():
                for row in self._rows(table, order):
                    marks = ", ".join("?" * len(row))
                    target.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
            target.execute("COMMIT")
        kept = _unused(f"{path}.damaged")
        self._survey.close()
        _replace(path, fresh, kept)
        self._survey = Survey(self._survey.path)
        findings = self.look()
        for finding in broken:
            finding.repaired = f"written anew from what could be read; the old one is {kept}"
        findings.wrong[:0] = broken
        return findings

    def _rows(self, table: str, order: str) -> Iterator[tuple[Any, ...]]:
        """What can be read of a table: from its beginning, and if that fails from its end."""
        for direction in ("ASC", "DESC"):
            by = ", ".join(f"{column} {direction}" for column in order.split(", "))
            with contextlib.closing(connect(self._survey.database_path)) as source:
                source.text_factory = _as_it_is
                try:
                    yield from source.execute(f"SELECT * FROM {table} ORDER BY {by}")
                    return
                except sqlite3.Error:
                    continue

    # -- segments --------------------------------------------------------------------------------

    def _find_again(self, lost: list[Finding]) -> None:
        """Look in the segment files for bodies that are not where the database says."""
        found = self._search({finding.key for finding in lost})
        if not found:
            return
        with contextlib.closing(connect(self._survey.database_path)) as target:
            target.execute("PRAGMA synchronous = FULL")
            target.execute("BEGIN IMMEDIATE")
            target.executemany(
                "INSERT OR REPLACE INTO large VALUES (?, ?, ?, ?, ?)",
                [(key, *place, crc) for key, (place, crc) in found.items()],
            )
            target.execute("COMMIT")
        for finding in lost:
            if finding.key in found:
                place = found[finding.key][0]
                finding.repaired = f"found in segment {place.segment} at offset {place.offset}"

    def _search(self, keys: set[int]) -> dict[int, tuple[Location, int]]:
        found: dict[int, tuple[Location, int]] = {}
        folder = self._survey.segments_path
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            for key, place, crc in find_records(os.path.join(folder, name)):
                if key in keys:
                    found[key] = (place, crc)
        return found


def _as_it_is(octets: bytes) -> str | bytes:
    """A text, or its octets if it is none: a checksum will tell."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


def _unused(path: str) -> str:
    """A file name that nobody has."""
    number = 1
    while os.path.exists(f"{path}-{number}"):
        number += 1
    return f"{path}-{number}"


def _replace(path: str, fresh: str, kept: str) -> None:
    """Put a new database into an old one's place; the old one is kept under another name."""
    with contextlib.closing(connect(path)) as old, contextlib.suppress(sqlite3.Error):
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal = f"{path}-wal"
    if os.path.exists(wal) and os.path.getsize(wal):
        # It would be taken for the new one's.
        raise SpoolError(f"{wal} cannot be written back, so the database cannot be replaced")
    os.link(path, kept)
    os.rename(fresh, path)
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
