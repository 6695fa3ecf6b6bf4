"""The spool's disk, synchronously: what the writer's thread does, commit by commit."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Sequence

from twisted.logger import Logger

from kumotwist.spool.appender import Append
from kumotwist.spool.changes import Changes, Outcome, Store
from kumotwist.spool.database import Database
from kumotwist.spool.disk import Disk
from kumotwist.spool.errors import SpoolClosedError, SpoolError, SpoolFullError, as_spool_error
from kumotwist.spool.ownership import SEGMENTS_NAME, OwnedDirectory
from kumotwist.spool.reader import SpoolReader
from kumotwist.spool.records import is_large
from kumotwist.spool.segments import SegmentFiles
from kumotwist.spool.set_aside import refuse_remains
from kumotwist.spool.settings import SpoolSettings
from kumotwist.spool.survivors import Survivors

__all__ = ["DATABASE_NAME", "Storage"]

#: The database's file name within the directory.
DATABASE_NAME = "spool.sqlite3"


class Storage:
    """Database and segment files of an owned directory. Everything blocks; for one thread."""

    _log = Logger()

    def __init__(
        self, path: str, settings: SpoolSettings, disk: Disk, *, leave_nothing: bool = False
    ) -> None:
        self.path = os.path.abspath(path)
        self._leave_nothing = leave_nothing
        self._durable = settings.durable
        self._min_free_space = settings.min_free_space
        self._disk = disk
        self._directory = OwnedDirectory(self.path)
        self._database_path = os.path.join(self.path, DATABASE_NAME)
        self._segments_path = os.path.join(self.path, SEGMENTS_NAME)
        self._segments = SegmentFiles(
            self._segments_path, settings.segment_size, disk, durable=settings.durable
        )
        self._survivors = Survivors(self._segments_path, self._segments, disk)
        self._database: Database | None = None
        # Whether pages were given back since the WAL was written back.
        self._shrunk = False

    def open(self) -> int:
        """Take possession and recover.

        @return: the highest body key in use.
        @raise SpoolError: the text says why not.
        """
        self._directory.acquire()
        try:
            refuse_remains(self._database_path)
            database = Database(self._database_path, durable=self._durable)
            try:
                extents = database.extents()
                placed = sum(extent.records for extent in extents.values())
                misplaced = database.large_bodies() - placed
                self._segments.recover(extents, keep_all=misplaced > 0)
                beyond, last_key = database.beyond(), database.last_key()
            except BaseException:
                database.close()
                raise
        except Exception as error:
            self._directory.release()
            raise as_spool_error(error, self._database_path) from error
        self._database = database
        if misplaced or beyond:
            self._log.error(
                "{path} is damaged: {beyond} messages are set aside, never to be delivered, and "
                "{misplaced} bodies cannot be read; stop the node and run `kumo spool check`",
                path=self._database_path,
                beyond=beyond,
                misplaced=misplaced,
            )
        return last_key

    def open_reader(self) -> SpoolReader:
        """A reader of the same files, for another thread."""
        return SpoolReader(self._database_path, self._segments_path, self._disk)

    def close(self) -> None:
        """Give everything up; harmless if it was not open."""
        database, self._database = self._database, None
        if database is None:
            return
        self._segments.close()
        try:
            empty = self._leave_nothing and database.is_empty()
            database.close()
            if empty:
                self._directory.remove(DATABASE_NAME)
        except (sqlite3.Error, OSError) as error:
            # The WAL stays as it is, and the next open recovers it.
            self._log.warn("{path}: {problem}", path=self._database_path, problem=str(error))
        self._directory.release()

    # -- commits ---------------------------------------------------------------------------------

    def commit(self, stores: Sequence[Store], changes: Changes) -> Outcome:
        """Write everything in one transaction, or, when that fails, whatever can be written.

        Never raises. When the one transaction fails, the changes are tried alone (they make room,
        and without them no delivery may go on), then the stores one by one, the smallest first,
        until one of them finds the disk full or broken: so a body that is too large, or a value
        that the database does not take, fails alone.
        """
        try:
            self._transact(stores, changes)
            return Outcome(None, {})
        except Exception as error:
            problem = as_spool_error(error, self._database_path)
        if stores:
            try:
                self._transact((), changes)
            except Exception as error:
                problem = as_spool_error(error, self._database_path)
            else:
                return Outcome(None, self._store_singly(stores, problem, not changes))
        return Outcome(problem, {store.key: problem for store in stores})

    def _store_singly(
        self, stores: Sequence[Store], problem: SpoolError, tried: bool
    ) -> dict[int, SpoolError]:
        """Try stores one by one.

        @param problem: why they failed together.
        @param tried: whether nothing has changed since, so that a single one need not try again.
        @return: the refused ones.
        """
        if tried and len(stores) == 1:
            return {stores[0].key: problem}
        refused: dict[int, SpoolError] = {}
        stop: SpoolError | None = None
        for store in sorted(stores, key=_need):
            if stop is None:
                try:
                    self._transact((store,), Changes())
                except Exception as error:
                    refused[store.key] = as_spool_error(error, self._database_path)
                    if isinstance(error, (OSError, sqlite3.OperationalError, SpoolFullError)):
                        stop = refused[store.key]
            else:
                refused[store.key] = stop
        return refused

    def _transact(self, stores: Sequence[Store], changes: Changes) -> None:
        database = self._database
        if database is None:
            raise SpoolClosedError(f"the spool {self.path} is not open")
        if stores:
            self._refuse_if_low()
        small: list[tuple[int, int, bytes]] = []
        large: list[Append] = []
        for store in stores:
            crc = zlib.crc32(store.body)
            if is_large(store.key):
                large.append((store.key, crc, 0, store.body))
            else:
                small.append((store.key, crc, store.body))
        locations = self._segments.append(large) if large else []
        revivable = False
        try:
            database.begin()
            if stores:
                places = [
                    (key, *location, crc)
                    for (key, crc, _, _), location in zip(large, locations, strict=True)
                ]
                database.insert(stores, small, places)
            removed = database.change(changes.with_stores(stores))
            if not stores and not changes:
                database.probe()
            revivable = True
            database.commit()
        except BaseException as error:
            database.rollback()
            if large:
                self._take_back(error, revivable)
            raise
        if large:
            self._segments.keep(locations)
        if removed:
            self._segments.release(removed)

    def _refuse_if_low(self) -> None:
        """Leave room for removals: a disk that was filled to the brim could not be emptied."""
        problem = self._disk.lack_of_room(self.path, self._min_free_space)
        if problem:
            raise SpoolFullError(problem)

    def _take_back(self, error: BaseException, revivable: bool) -> None:
        """Undo an append whose commit failed.

        If the database may have written the commit in full and only failed to sync it, a crash
        now could bring it back: then the bodies must stay.
        """
        full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
        if revivable and not full:
            self._segments.abandon()
        else:
            self._segments.undo()

    def shrink(self) -> bool:
        """Give unused space back, a little of it.

        @return: whether there is more.
        """
        database = self._database
        if database is None:
            return False
        try:
            # What is moved is written before its old place comes free.
            room = self._disk.free_space(self.path) > self._min_free_space // 2
            if room and self._survivors.step(database):
                return True
            if database.shrink():
                self._shrunk = True
            elif self._shrunk:
                # The file gets smaller when the WAL is written back, which may not be for long.
                self._shrunk = False
                database.write_back()
                return False
            return self._shrunk
        except (sqlite3.Error, OSError) as error:
            problem = as_spool_error(error, self._database_path)
            self._log.warn("cannot give space back: {problem}", problem=str(problem))
            return False


def _need(store: Store) -> int:
    """About how many octets a store takes."""
    return len(store.body) + 300 * len(store.rows)
