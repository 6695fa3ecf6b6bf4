"""One file of records."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["Segment", "segment_name"]

_MODE = 0o640
_FINISHED_MODE = 0o440


def segment_name(moment: float) -> str:
    """The name of a file that is begun now, in UTC; names sort by time.

    @param moment: seconds since the epoch.
    """
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d-%H%M%S.%f.jsonl")


class Segment:
    """A file of whole lines: what cannot be written whole is taken back.

    @ivar path: where it is.
    @ivar size: octets in it.
    """

    def __init__(self, path: Path) -> None:
        """Create the file.

        @raise FileExistsError: if there is such a file: a file is never continued, so that the
            half line of a process that was killed stays the last of its file.
        @raise OSError: if it cannot be created.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, _MODE)
        self.path = path
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append all of it, or nothing.

        @raise OSError: if the file cannot take it.
        """
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            if written:
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def close(self) -> None:
        """Finish the file: it becomes read-only, as KumoMTA does it, for those who ship files.

        A file without a line is removed.

        @raise OSError: if that fails; the file is closed all the same.
        """
        try:
            if self.size:
                os.fchmod(self._descriptor, _FINISHED_MODE)
            else:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)
