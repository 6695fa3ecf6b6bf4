"""The system calls of the spool, in one place: so that a test can make any of them fail.

SQLite makes its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

__all__ = ["Disk"]

# How many buffers one writev() takes; Linux's IOV_MAX is 1,024.
_BUFFERS_AT_ONCE = 1024

_sync_data = getattr(os, "fdatasync", os.fsync)


class Disk:
    """Files by their paths and descriptors. Every method raises L{OSError} as the system does."""

    def create(self, path: str) -> int:
        """Make a new file that only its owner can read, and give its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, descriptor: int, offset: int, buffers: Sequence[bytes]) -> None:
        """Write all of the buffers, one after the other, from an offset on."""
        os.lseek(descriptor, offset, os.SEEK_SET)
        for start in range(0, len(buffers), _BUFFERS_AT_ONCE):
            some = buffers[start : start + _BUFFERS_AT_ONCE]
            written = os.writev(descriptor, some)
            if written < sum(map(len, some)):
                # A full disk takes a part; the next call says why it took no more.
                rest = memoryview(b"".join(some))[written:]
                while rest:
                    rest = rest[os.write(descriptor, rest) :]

    def sync(self, descriptor: int) -> None:
        """Return when the file's content is on stable storage."""
        _sync_data(descriptor)

    def sync_directory(self, path: str) -> None:
        """Return when the directory's names are on stable storage."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut an open file."""
        os.ftruncate(descriptor, size)

    def truncate_path(self, path: str, size: int) -> None:
        """Cut a file by its name."""
        os.truncate(path, size)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def unlink(self, path: str) -> None:
        """Delete a file."""
        os.unlink(path)

    def free_space(self, path: str) -> int:
        """Octets that this process may still use on a path's file system."""
        facts = os.statvfs(path)
        return facts.f_bavail * facts.f_frsize

    def lack_of_room(self, path: str, limit: int) -> str:
        """Why no mail is taken: less than a limit is free; empty if there is room."""
        free = self.free_space(path)
        if free >= limit:
            return ""
        return f"{path}: {free} bytes are free, less than the min_free_space of {limit}"

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Read a part of a file; less than C{length} only at its end."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            parts = []
            # Memory for what is there only, whatever was asked.
            length = min(length, os.fstat(descriptor).st_size - offset)
            while length > 0:
                part = os.pread(descriptor, length, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                length -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            os.close(descriptor)
