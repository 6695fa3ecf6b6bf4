"""What can go wrong with a spool, and how the operating system's and SQLite's errors become it."""

from __future__ import annotations

import errno
import os
import sqlite3

from kumotwist.errors import KumotwistError

__all__ = [
    "DamagedBodyError",
    "DamagedRecordError",
    "SpoolClosedError",
    "SpoolError",
    "SpoolFullError",
    "SpoolLockedError",
    "UnstorableMessageError",
    "as_spool_error",
]

# SQLite's primary result codes for a disk (or quota, or page limit) that is full, and for one that
# is read-only.
_SQLITE_FULL = 13
_SQLITE_READ_ONLY = 8
_SQLITE_NO_ROOM = frozenset({_SQLITE_FULL, _SQLITE_READ_ONLY})

# SQLite's primary result codes for a system call that failed, for whatever reason: also for that
# of a kernel which made a file system read-only (ext4's errors=remount-ro) under its open files.
_SQLITE_SYSTEM = frozenset({10, 14})

# SQLite's primary result codes for pages that contradict each other, and for no database at all.
_SQLITE_DAMAGED = frozenset({11, 26})
# No room now, or nothing may be written now: both are the disk's state, and may pass.
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


class SpoolError(KumotwistError):
    """The spool could not do what was asked; the text says where and why."""


class SpoolFullError(SpoolError):
    """There is no room for it, or the file system is read-only.

    What was in the spool before is still there.
    """


class SpoolLockedError(SpoolError):
    """Another process owns the directory.

    @ivar path: the directory.
    @ivar pid: the owner's process id, or L{None} if it cannot be told.
    """

    def __init__(self, path: str, pid: int | None) -> None:
        owner = "another process" if pid is None else f"process {pid}"
        super().__init__(f"the spool {path} is in use by {owner}")
        self.path = path
        self.pid = pid


class SpoolClosedError(SpoolError):
    """The spool is not open (any more)."""


class UnstorableMessageError(SpoolError):
    """A message has a value that cannot be written, such as a due time that is no number."""


class DamagedBodyError(SpoolError):
    """A stored body is missing, or is not what was stored."""


class DamagedRecordError(SpoolError):
    """A message's record is not what was stored."""


def as_spool_error(error: BaseException, path: str) -> SpoolError:
    """Say in our words what happened.

    @param error: what C{os} or C{sqlite3} raised; a L{SpoolError} is passed through.
    @param path: the file or directory concerned, named in the text.
    """
    if isinstance(error, SpoolError):
        return error
    if isinstance(error, OSError):
        named = error.filename if isinstance(error.filename, str) else path
        text = f"{named}: {error.strerror or error}"
        return SpoolFullError(text) if error.errno in _FULL_ERRNOS else SpoolError(text)
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        if "disk is full" in str(error) or (code is not None and code & 0xFF in _SQLITE_NO_ROOM):
            return SpoolFullError(f"{path}: {error}")
        if code is not None and code & 0xFF in _SQLITE_SYSTEM and _is_read_only(path):
            return SpoolFullError(f"{path}: {error}: the file system is read-only")
        if code is not None and code & 0xFF in _SQLITE_DAMAGED:
            return SpoolError(
                f"{path}: {error}; `kumo spool check` writes it anew from what can be read"
            )
        return SpoolError(f"{path}: {error}")
    return SpoolError(f"{path}: {type(error).__name__}: {error}")


def _is_read_only(path: str) -> bool:
    """Whether the file system takes no writes.

    Asked by touching the directory, which changes nothing else: since Linux 6.15 an ext4 that the
    kernel stopped (C{emergency_ro}) does not say so in C{statvfs}.
    """
    try:
        os.utime(os.path.dirname(path))
    except OSError as error:
        return error.errno == errno.EROFS
    return False
