"""Repairing a spool that nobody owns, as far as that can be done without guessing.

  - A database whose pages or indexes contradict each other is written anew from every row that can
    be read (L{salvage<kumotwist.spool.salvage>}); the old one, and records of segments that no row
    refers to any more, are kept beside it (L{set_aside<kumotwist.spool.set_aside>}).
  - The place of a large body that the database does not know, or knows wrongly, is found by
    searching the segment files: a record says whose it is and checks itself.

What was damaged itself stays damaged; L{discard} takes it out, when it has been looked at.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3

from kumotwist.spool.bodies import Location, find_records
from kumotwist.spool.database import Database, connect
from kumotwist.spool.errors import as_spool_error
from kumotwist.spool.inspection import Finding, Findings, Kind, inspect, large_ones
from kumotwist.spool.ownership import SEGMENTS_NAME, OwnedDirectory
from kumotwist.spool.salvage import Salvage, remove_database, salvage
from kumotwist.spool.set_aside import SetAside, orphans, remains
from kumotwist.spool.storage import DATABASE_NAME
from kumotwist.spool.survey import Survey

__all__ = ["SpoolCheck"]

# Lost messages that are named.
_NAMED = 100


class SpoolCheck:
    """Owns a spool for as long as it is checked; a context manager. Everything blocks."""

    def __init__(self, path: str) -> None:
        """
        @raise SpoolLockedError: a node has it.
        @raise SpoolError: there is no spool, or it cannot be read.
        """
        self._path = os.path.abspath(path)
        self._database_path = os.path.join(self._path, DATABASE_NAME)
        self._segments_path = os.path.join(self._path, SEGMENTS_NAME)
        # Taking possession would make the directory, so look first whether there is a spool.
        self._remains = remains(self._database_path)
        self._opened: Survey | None = None if self._remains else Survey(path)
        self._directory = OwnedDirectory(path)
        try:
            self._directory.acquire()
        except BaseException:
            self._close_survey()
            raise

    @property
    def _survey(self) -> Survey:
        if self._opened is None:
            self._opened = Survey(self._path)
        return self._opened

    def _close_survey(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> SpoolCheck:
        return self

    def __exit__(self, *error: object) -> None:
        self._close_survey()
        self._directory.release()

    def look(self) -> Findings:
        """Look at everything; nothing is changed."""
        return _missing(self._database_path) if self._remains else inspect(self._survey)

    def foresee(self) -> Findings:
        """Look at everything, and of a broken database also at what a repair would leave.

        A copy is made for that, and deleted again.

        @raise SpoolError: the copy cannot be made.
        """
        findings = self.look()
        findings.set_aside += self._remains
        broken = [each for each in findings.wrong if each.kind is Kind.DATABASE]
        if not broken or self._remains:
            return findings
        fresh = f"{self._database_path}.rebuilt"
        try:
            found = salvage(self._database_path, fresh)
            with contextlib.closing(connect(fresh)) as rebuilt:
                readable = rebuilt.execute("SELECT count(*) FROM message").fetchone()[0]
            findings.messages = readable
            findings.wrong += _unread(found, findings)
            if found.unread or found.patched:
                for file, places in orphans(fresh, self._segments_path).items():
                    findings.set_aside.append(f"{file} ({_amount(places)})")
        except (sqlite3.Error, OSError) as error:
            raise as_spool_error(error, self._database_path) from error
        finally:
            remove_database(fresh)
        return findings

    def repair(self) -> Findings:
        """Look at everything and repair what can be repaired.

        @return: all that was wrong.
        @raise SpoolError: the repair failed; the spool is as it was.
        """
        if self._remains:
            try:
                return self._keep_remains(self._remains)
            except OSError as error:
                raise as_spool_error(error, self._path) from error
        findings = self.look()
        broken = [each for each in findings.wrong if each.kind is Kind.DATABASE]
        try:
            if broken:
                return self._rebuild(broken)
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
        damaged = {
            entry.place
            for finding in findings.damaged
            for entry in finding.entries
            if entry.place is not None
        }
        if self._remains:
            return 0
        database = Database(self._survey.database_path, durable=True)
        try:
            database.begin()
            gone = database.discard(damaged)
            database.commit()
        except sqlite3.Error as error:
            database.rollback()
            raise as_spool_error(error, self._survey.database_path) from error
        finally:
            database.close()
        return gone

    # -- the database ----------------------------------------------------------------------------

    def _rebuild(self, broken: list[Finding]) -> Findings:
        """Write the database anew; what could not be read is said, and what is left is kept."""
        path = self._database_path
        fresh = f"{path}.rebuilt"
        found = salvage(path, fresh)
        self._close_survey()
        aside = SetAside(self._path)
        kept = aside.link(path)
        for suffix in ("-wal", "-shm"):
            # Beside the new database they would be taken for its own.
            if os.path.exists(path + suffix):
                aside.move(path + suffix)
        os.rename(fresh, path)
        aside.sync()
        findings = self.look()
        state = f"written anew from what could be read; the old one is {kept}"
        for finding in broken:
            finding.repaired = state
        findings.wrong[:0] = broken + _unread(found, findings)
        lost = large_ones(findings)
        if lost:
            self._find_again(lost)
        if found.unread or found.patched:
            self._keep_orphans(findings, aside)
        return findings

    def _keep_orphans(self, findings: Findings, aside: SetAside) -> None:
        """Keep records that no row refers to any more; a node would delete them."""
        for file, places in orphans(self._database_path, self._segments_path).items():
            kept = aside.keep_records(file, places)
            findings.set_aside.append(f"{kept} ({_amount(places)})")
        aside.sync()

    def _keep_remains(self, found: list[str]) -> Findings:
        """Set aside what is left of a spool without its database."""
        findings = _missing(self._database_path)
        aside = SetAside(self._path)
        for each in found:
            findings.set_aside.append(aside.move(each))
        aside.sync()
        return findings

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


def _missing(database_path: str) -> Findings:
    problem = f"{database_path} is missing or empty: which messages there were cannot be told"
    return Findings(wrong=[Finding(Kind.DATABASE, problem)])


def _unread(found: Salvage, findings: Findings) -> list[Finding]:
    """What a salvage could not read, as something that stays damaged."""
    if not found.unread:
        return []
    lost = f"; at least {len(found.lost)} messages are lost: " if found.lost else ""
    lost += ", ".join(found.lost[:_NAMED]) + (", …" if len(found.lost) > _NAMED else "")
    problem = (
        f"not all of it could be read (tables {', '.join(found.unread)}): "
        f"{findings.messages} messages could{lost}"
    )
    return [Finding(Kind.DATABASE, problem)]


def _amount(places: list[Location]) -> str:
    return f"{len(places)} bodies without a message, {sum(each.size for each in places)} octets"
