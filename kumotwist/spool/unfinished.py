"""Moves between spools that a kill has cut short: what is in both is taken out of one.

A message is copied into the other spool before it leaves its own. So that nobody delivers both
copies, the spool that it leaves holds a file with the ids of those that are on their way, which is
on disk before the first of them is copied. Whoever opens these spools next, in whatever way they
are shared out by then, has the two compared first.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from twisted.logger import Logger

from kumotwist.spool.changes import Changes
from kumotwist.spool.database import Database
from kumotwist.spool.errors import SpoolError, SpoolLockedError
from kumotwist.spool.ownership import OwnedDirectory
from kumotwist.spool.set_aside import refuse_remains
from kumotwist.spool.storage import DATABASE_NAME

__all__ = ["MoveIntent", "settle_moves"]

_NAME = "moving"
_ID = re.compile(r"[0-9a-f]{32}")
# Of a file that somebody else has written no more is read.
_LONGEST = 1024 * 1024

_log = Logger()


class MoveIntent:
    """The file that says which messages of a spool are on their way to another one.

    Everything blocks.

    @param directory: the spool's.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, _NAME)

    def note(self, ids: Sequence[str]) -> None:
        """Keep the ids in the place of those that were there; they are on disk then.

        A file that was cut short has ids of messages that have not been copied yet: whoever
        compares finds them in one spool only.

        @param ids: of messages; none if nothing is on its way any more.
        @raise OSError: if that is not possible.
        """
        if not ids:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            return
        new = not os.path.exists(self._path)
        with open(self._path, "w", encoding="ascii") as stream:
            stream.writelines(f"{each}\n" for each in ids)
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def read(self) -> list[bytes] | None:
        """The ids in their stored form; L{None} if there is no file.

        @raise OSError: if it cannot be read.
        """
        try:
            with open(self._path, encoding="ascii", errors="replace") as stream:
                lines = stream.read(_LONGEST).splitlines()
        except FileNotFoundError:
            return None
        return [bytes.fromhex(line) for line in lines if _ID.fullmatch(line)]


def settle_moves(spools: Sequence[str]) -> None:
    """Take out of each spool what a move that was cut short has brought to another one already.

    Nobody may have them open. A message is taken out only when its copy is known to be on disk, so
    it is in one of them at any time. A spool that cannot be read stays as it is, which is logged:
    rather a message twice than not at all.

    @param spools: their directories; one that does not exist is none.
    @raise SpoolLockedError: if a spool that has to be looked at belongs to another process.
    """
    for source in spools:
        try:
            _settle(source, [each for each in spools if each != source])
        except SpoolLockedError:
            raise
        except (sqlite3.Error, OSError, SpoolError) as error:
            _log.error(
                "{path}: what a move that was cut short has left cannot be compared: {error}",
                path=source, error=error,
            )  # fmt: skip


def _settle(source: str, targets: Iterable[str]) -> None:
    intent = MoveIntent(source)
    ids = intent.read()
    if ids is None:
        return
    arrived: set[bytes] = set()
    for target in targets:
        # Closing it writes its WAL back, and syncs: then what was found there is on disk.
        with _opened(target) as database:
            if database is not None:
                arrived.update(database.keys_of(ids))
    with _opened(source) as database:
        if database is not None:
            both = {each: key for each, key in database.keys_of(ids).items() if each in arrived}
            database.begin()
            database.change(Changes(removals=both))
            database.commit()
            _log.info(
                "{path}: {n} messages had been moved when the move was cut short",
                path=source, n=len(both),
            )  # fmt: skip
    intent.note(())


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[Database | None]:
    """The database of a spool, which belongs to this process meanwhile; L{None} if it has none."""
    path = os.path.join(directory, DATABASE_NAME)
    if not os.path.isdir(directory):
        yield None
        return
    owned = OwnedDirectory(directory)
    owned.acquire()
    try:
        refuse_remains(path)
        if not os.path.exists(path):
            yield None
            return
        with contextlib.closing(Database(path, durable=True)) as database:
            yield database
    finally:
        owned.release()
