"""What a repair takes out of a spool: kept in a folder beside, and never deleted by a node."""

from __future__ import annotations

import os
import sqlite3

from kumotwist.spool.bodies import RECORD_HEADER_SIZE, Location, find_records
from kumotwist.spool.errors import SpoolError
from kumotwist.spool.ownership import SEGMENTS_NAME

__all__ = ["SET_ASIDE_NAME", "SetAside", "orphans", "refuse_remains", "remains"]

#: The folder within the spool's directory; each repair makes one of its own in it.
SET_ASIDE_NAME = "set-aside"


def remains(database_path: str) -> list[str]:
    """What of a spool is there although its database is missing, or is an empty file.

    @return: the WAL and the segment files that hold something; nothing if the database is there.
    """
    if os.path.exists(database_path) and os.path.getsize(database_path):
        return []
    folder = os.path.join(os.path.dirname(database_path), SEGMENTS_NAME)
    found = [f"{database_path}-wal"]
    if os.path.isdir(folder):
        found += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [each for each in found if os.path.isfile(each) and os.path.getsize(each)]


def refuse_remains(database_path: str) -> None:
    """Refuse to begin a new spool where the rest of another one is: it would be deleted.

    @raise SpoolError: what is there, what is missing, and what to do.
    """
    found = remains(database_path)
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise SpoolError(
            f"{database_path} is missing or empty, but {found[0]}{more} is there: restore the "
            "file, or run `kumo spool check`, which sets the rest aside"
        )


def orphans(path: str, segments_path: str) -> dict[str, list[Location]]:
    """Sound records of segment files that no row of a database refers to.

    @param path: the database.
    @return: by file, only those that have any.
    @raise sqlite3.Error: the database cannot be read.
    @raise OSError: a file cannot be read.
    """
    found: dict[str, list[Location]] = {}
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for name in sorted(os.listdir(segments_path)) if os.path.isdir(segments_path) else ():
            file = os.path.join(segments_path, name)
            for key, place, _ in find_records(file):
                row = connection.execute(
                    "SELECT 1 FROM large WHERE key = ? AND segment = ? AND offset = ?",
                    (key, place.segment, place.offset),
                ).fetchone()
                if row is None:
                    found.setdefault(file, []).append(place)
    finally:
        connection.close()
    return found


class SetAside:
    """A new folder beside, made when something is put there."""

    def __init__(self, spool_path: str) -> None:
        """
        @param spool_path: the spool's directory.
        """
        self._spool_path = spool_path
        parent = os.path.join(spool_path, SET_ASIDE_NAME)
        number = 1
        while os.path.exists(os.path.join(parent, str(number))):
            number += 1
        self.path = os.path.join(parent, str(number))

    def _place_for(self, path: str) -> str:
        """Where a file of the spool goes."""
        place = os.path.join(self.path, os.path.relpath(path, self._spool_path))
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        return place

    def move(self, path: str) -> str:
        """Move a file of the spool here, and give its new path."""
        place = self._place_for(path)
        os.rename(path, place)
        return place

    def link(self, path: str) -> str:
        """Give a file of the spool a second name here, for its own is about to be another's."""
        place = self._place_for(path)
        os.link(path, place)
        return place

    def keep_records(self, path: str, places: list[Location]) -> str:
        """Write a copy of some records of a segment file, whole, one after the other.

        @return: the copy's path.
        """
        place = self._place_for(path)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(path, "rb") as source, open(descriptor, "wb") as target:
            for each in places:
                source.seek(each.offset)
                target.write(source.read(RECORD_HEADER_SIZE + each.size))
            target.flush()
            os.fsync(target.fileno())
        return place

    def sync(self) -> None:
        """Return when the names are on stable storage."""
        folders = [self._spool_path, os.path.dirname(self.path)]
        folders += [folder for folder, _, _ in os.walk(self.path)]
        segments = os.path.join(self._spool_path, SEGMENTS_NAME)
        for folder in [*folders, segments]:
            if os.path.isdir(folder):
                descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
