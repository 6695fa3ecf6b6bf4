"""Records as lines of JSON in a directory of files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.interfaces import IJournal
from kumotwist.journal.records import encode_record
from kumotwist.journal.segments import Segment, segment_name
from kumotwist.journal.settings import LogSettings

__all__ = ["JournalWriter"]

#: A record waits this long for others at most; half of what is promised.
FLUSH_DELAY = 0.5
#: So many octets are written without waiting.
BATCH_SIZE = 64 * 1024
#: While nothing can be written: how often it is tried, and how many octets are kept meanwhile.
RETRY_DELAY = 1.0
MAX_BACKLOG = 16 * 1024 * 1024

_NAMES_TRIED = 1000


@implementer(IJournal)
class JournalWriter:
    """Writes each record as one line, gathers lines for a moment, rotates files.

    Files are written in the reactor's thread: an append of at most 64 KiB goes to the page cache
    and takes tens of microseconds, less than handing it to a thread and back. It is not synced:
    records are an account of what happened, and what must survive a power cut is in the spool.

    @ivar dropped: how many records were lost since the start because they could not be written.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: LogSettings,
        path: str | Path,
        *,
        open_segment: Callable[[Path], Segment] = Segment,
    ) -> None:
        """Nothing is created before the first record.

        @param reactor: its C{seconds} is the wall clock, from which files get their names.
        @param settings: rotation; its C{path} is resolved by whoever knows the state directory.
        @param path: the directory of the files.
        @param open_segment: makes a file; for tests of disks that fail.
        """
        self.dropped = 0
        self._reactor = reactor
        self._settings = settings
        self._directory = Path(path)
        self._open_segment = open_segment
        self._batch_size = max(1, min(BATCH_SIZE, settings.max_file_size))
        self._lines: deque[bytes] = deque()
        self._gathered = 0
        self._segment: Segment | None = None
        self._last_name = 0.0
        self._flush_call: IDelayedCall | None = None
        self._age_call: IDelayedCall | None = None
        self._failing = False
        self._dropped_in_outage = 0
        self._closed = False

    # -- IJournal ----------------------------------------------------------------------------

    def record(self, record: dict[str, Any]) -> None:
        """Write one record; it can be read in the file within a second."""
        self.record_line(encode_record(record))

    def record_line(self, text: str) -> None:
        """Write a record that is encoded already."""
        line = text.encode("ascii") + b"\n"
        gathered = self._gathered + len(line)
        if self._closed or gathered > MAX_BACKLOG:
            self._drop()
            return
        self._lines.append(line)
        self._gathered = gathered
        if gathered >= self._batch_size and not self._failing:
            self.flush()
        elif self._flush_call is None:
            self._flush_call = self._reactor.callLater(FLUSH_DELAY, self._flush_due)

    def _drop(self) -> None:
        # The newest are lost: what is kept stays a record without gaps up to a point.
        self.dropped += 1
        self._dropped_in_outage += 1
        if self._dropped_in_outage == 1:
            self._log.error(
                "a record is lost, and with it those that follow, until it can be "
                "written to {path} again",
                path=str(self._directory),
            )

    # -- writing -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what has been gathered; what cannot be written is kept and tried again."""
        if self._flush_call is not None:
            self._flush_call.cancel()
            self._flush_call = None
        try:
            while self._lines:
                batch = self._next_batch()
                self._segment_for(batch).write(b"".join(batch))
                self._forget(batch)
        except OSError as error:
            self._write_failed(error)
        else:
            self._write_succeeded()

    def _flush_due(self) -> None:
        self._flush_call = None
        self.flush()

    def _forget(self, batch: list[bytes]) -> None:
        """The lines at the front are written."""
        if len(batch) == len(self._lines):
            self._lines.clear()
            self._gathered = 0
            return
        for line in batch:
            self._gathered -= len(line)
            self._lines.popleft()

    def _next_batch(self) -> list[bytes]:
        """Lines from the front that together stay below the batch size; at least one."""
        if self._gathered <= self._batch_size:
            return list(self._lines)
        batch: list[bytes] = []
        size = 0
        for line in self._lines:
            size += len(line)
            if batch and size > self._batch_size:
                break
            batch.append(line)
        return batch

    def _segment_for(self, batch: list[bytes]) -> Segment:
        """The file that takes the batch: the open one, or a new one where that is full."""
        size = sum(map(len, batch))
        if self._segment is not None and self._segment.size + size > self._settings.max_file_size:
            self._finish_segment()
        if self._segment is None:
            self._segment = self._new_segment()
            if self._settings.max_segment_duration is not None:
                self._age_call = self._reactor.callLater(
                    self._settings.max_segment_duration, self._segment_aged
                )
        return self._segment

    def _new_segment(self) -> Segment:
        self._directory.mkdir(parents=True, exist_ok=True)
        # A clock that was set back must not make a name that sorts before the last one.
        moment = max(self._reactor.seconds(), self._last_name + 1e-6)
        for _ in range(_NAMES_TRIED):
            self._last_name = moment
            try:
                return self._open_segment(self._directory / segment_name(moment))
            except FileExistsError:
                moment += 1e-6
        raise FileExistsError(f"no unused file name in {self._directory}")

    def _segment_aged(self) -> None:
        self._age_call = None
        self.flush()
        self._finish_segment()

    def _finish_segment(self) -> None:
        if self._age_call is not None:
            self._age_call.cancel()
            self._age_call = None
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.close()
            except OSError as error:
                self._log.error(
                    "closing {path} failed: {error}", path=str(segment.path), error=error
                )

    def _write_failed(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            self._log.error(
                "records cannot be written to {path}: {error}; they are kept in memory up to "
                "{limit} octets and tried again",
                path=str(self._directory),
                error=error,
                limit=MAX_BACKLOG,
            )
        # The next try starts with a new file: this one may end in half a line, or its disk may
        # have gone away. One that is still empty leaves nothing behind.
        self._finish_segment()
        if not self._closed and self._flush_call is None:
            self._flush_call = self._reactor.callLater(RETRY_DELAY, self._flush_due)

    def _write_succeeded(self) -> None:
        if self._failing:
            self._failing = False
            self._log.warn(
                "records are written again to {path}; {dropped} were lost meanwhile",
                path=str(self._directory),
                dropped=self._dropped_in_outage,
            )
            self._dropped_in_outage = 0

    def close(self) -> None:
        """Write what has been gathered and finish the file; later records are lost."""
        if self._closed:
            return
        self._closed = True
        self.flush()
        self._finish_segment()
        if self._lines:
            self.dropped += len(self._lines)
            self._log.error(
                "{dropped} records could not be written before the end",
                dropped=len(self._lines) + self._dropped_in_outage,
            )
            self._lines.clear()
            self._gathered = 0
