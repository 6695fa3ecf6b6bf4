"""A directory that one process owns at a time."""

from __future__ import annotations

import fcntl
import os

from kumotwist.spool.errors import SpoolError, SpoolLockedError, as_spool_error

__all__ = ["SEGMENTS_NAME", "OwnedDirectory"]

#: The directory of the segment files within the spool's.
SEGMENTS_NAME = "segments"

_LOCK_NAME = "lock"


class OwnedDirectory:
    """Creates a directory, checks that it can be used, and holds a lock in it.

    The lock is C{flock}'s: it goes with the process, however that ends, so there is never a stale
    one to delete. The file also names the owner, for whoever meets the lock.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._descriptor = -1

    def acquire(self) -> None:
        """Take possession.

        @raise SpoolLockedError: another process has it.
        @raise SpoolError: it cannot be used, and why.
        """
        try:
            self._create()
            self._probe()
            self._lock()
        except OSError as error:
            self.release()
            raise as_spool_error(error, self.path) from error
        except SpoolError:
            self.release()
            raise

    def release(self) -> None:
        """Give it up; harmless if it was not held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self, name: str) -> None:
        """Delete the directory that is owned, if nothing is in it but a spool's files.

        The lock goes last: who waits for it finds that it is not the directory's any more.

        @param name: the database's, which holds nothing.
        @raise OSError: it could not be deleted, or not all of it.
        """
        own = {name, f"{name}-wal", f"{name}-shm"}
        segments = os.path.join(self.path, SEGMENTS_NAME)
        found = set(os.listdir(self.path)) - {_LOCK_NAME, SEGMENTS_NAME}
        if not found <= own or (os.path.isdir(segments) and os.listdir(segments)):
            return
        for each in sorted(found):
            os.unlink(os.path.join(self.path, each))
        if os.path.isdir(segments):
            os.rmdir(segments)
        os.unlink(os.path.join(self.path, _LOCK_NAME))
        os.rmdir(self.path)

    def _create(self) -> None:
        if not os.path.isdir(self.path):
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            parent = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)

    def _probe(self) -> None:
        """Refuse what cannot be read and written now, instead of failing when mail is there.

        C{access} and not C{open}: closing a descriptor of SQLite's files would drop its locks.
        """
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise SpoolError(f"{self.path}: no permission to read and write this directory")
        for folder in (self.path, os.path.join(self.path, SEGMENTS_NAME)):
            if not os.path.isdir(folder):
                continue
            for entry in os.scandir(folder):
                ours = entry.name == SEGMENTS_NAME or not entry.is_dir()
                if ours and not os.access(entry.path, os.R_OK | os.W_OK):
                    raise SpoolError(f"{entry.path}: no permission to read and write this")

    def _lock(self) -> None:
        path = os.path.join(self.path, _LOCK_NAME)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpoolLockedError(self.path, self._read_owner()) from None
        if not os.fstat(self._descriptor).st_nlink:
            raise SpoolError(f"{self.path}: the process that had it has just removed it")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def _read_owner(self) -> int | None:
        try:
            return int(os.pread(self._descriptor, 20, 0))
        except ValueError:
            return None
