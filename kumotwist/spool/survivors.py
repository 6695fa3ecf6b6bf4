"""Emptying segments in which little is needed any more, a little at a time."""

from __future__ import annotations

from collections import deque

from twisted.logger import Logger

from kumotwist.spool.appender import Append
from kumotwist.spool.bodies import MAX_MOVES, Location, read_record
from kumotwist.spool.database import Database
from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import DamagedBodyError
from kumotwist.spool.segments import SegmentFiles

__all__ = ["Survivors"]

# What one step moves: it ends with the record that reaches this. A commit waits for a step.
_OCTETS_PER_STEP = 1024 * 1024
_RECORDS_PER_STEP = 64


class Survivors:
    """Moves what is needed of sparse segments; a segment at a time, a step at a time.

    A step is a commit of its own: append and sync, then one transaction that says where the
    bodies are now, then the old file goes if that were the last. So it stands a crash as any
    other commit does.
    """

    _log = Logger()

    def __init__(self, directory: str, segments: SegmentFiles, disk: Disk) -> None:
        self._directory = directory
        self._segments = segments
        self._disk = disk
        self._victim: int | None = None
        self._keys: deque[int] = deque()

    def step(self, database: Database) -> bool:
        """Move some.

        @return: whether there may be more to move.
        @raise OSError: nothing was moved.
        @raise sqlite3.Error: nothing was moved.
        """
        if not self._keys:
            self._victim = self._segments.sparse()
            if self._victim is None:
                return False
            self._keys.extend(database.keys_in(self._victim))
        some = [self._keys.popleft() for _ in range(min(len(self._keys), _RECORDS_PER_STEP))]
        try:
            database.begin()
            self._move(database, self._victim or 0, some)
        except BaseException:
            database.rollback()
            self._keys.clear()
            raise
        if not self._keys:
            # Whatever is still there cannot be moved.
            self._segments.leave(self._victim or 0)
        return True

    def _move(self, database: Database, victim: int, keys: list[int]) -> None:
        taken: list[tuple[Append, Location]] = []
        octets = 0
        while keys and octets < _OCTETS_PER_STEP:
            key = keys.pop(0)
            found = self._read(database, victim, key)
            if found is not None:
                taken.append(found)
                octets += found[1].size
        self._keys.extendleft(reversed(keys))
        if not taken:
            database.rollback()
            return
        places = self._segments.append([record for record, _ in taken], moved=True)
        try:
            database.relocate(
                (place.segment, place.offset, record[0])
                for place, (record, _) in zip(places, taken, strict=True)
            )
            database.commit()
        except BaseException:
            # The commit may show after a crash, so the new place must keep what it has.
            self._segments.abandon()
            raise
        self._segments.keep(places)
        self._segments.release((old.segment, old.size) for _, old in taken)

    def _read(self, database: Database, victim: int, key: int) -> tuple[Append, Location] | None:
        """A record of the victim as it is to be appended; L{None} if it is to stay or is gone."""
        place = database.place_of(key)
        if place is None or place[0].segment != victim:
            return None
        location, crc = place
        try:
            record = read_record(self._directory, location, key, crc, self._disk)
        except DamagedBodyError as error:
            self._log.error("left where it is: {damage}", damage=str(error))
            return None
        if record.moves >= MAX_MOVES:
            return None
        return (key, crc, record.moves + 1, record.body), location
