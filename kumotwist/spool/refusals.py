"""What the log says of a spool that cannot be written, or that refuses mail.

One line when it begins and one when it is over. What only a person can end is said again every
minute: a database that is damaged, an error of the disk. A disk that is full is said once, since
near the limit one body fits and the next does not.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from kumotwist.spool.errors import SpoolError, SpoolFullError

__all__ = ["RefusalLog"]

#: Seconds between two lines that say the same.
QUIET_TIME = 60.0


class RefusalLog:
    """Follows the outcome of commits and stores."""

    _log = Logger()

    def __init__(self, path: str) -> None:
        """
        @param path: the spool's directory.
        """
        self._path = path
        self._said = False
        self._since: float | None = None
        self._broken: float | None = None
        self._unwritable: float | None = None

    def follow(self, now: float, stores: int, refused: Iterable[SpoolError]) -> None:
        """Take notice of a commit that could be made, for a part of what was asked at least.

        @param now: the time, in seconds of any clock.
        @param stores: how many stores were in it.
        @param refused: why some of them failed.
        """
        reasons = list(refused)
        full = next((each for each in reasons if isinstance(each, SpoolFullError)), None)
        if full is not None:
            if not self._said and _is_due(self._since, now):
                self._said, self._since = True, now
                self._log.error("the spool refuses mail (452): {problem}", problem=str(full))
        elif reasons:
            self.broken(now, reasons[0])
        elif stores and self._said:
            self._said = False
            self._log.info("the spool {path} takes mail again", path=self._path)

    def broken(self, now: float, problem: SpoolError) -> None:
        """Take notice of a store that failed although there is room.

        @param now: the time, in seconds of any clock.
        """
        if _is_due(self._broken, now):
            self._broken = now
            self._log.error("the spool refuses mail (451): {problem}", problem=str(problem))

    def unwritable(self, now: float, problem: SpoolError) -> None:
        """Take notice of a commit of which nothing could be made.

        @param now: the time, in seconds of any clock.
        """
        if _is_due(self._unwritable, now):
            self._unwritable = now
            self._log.error("the spool cannot be written: {problem}", problem=str(problem))

    def writable(self) -> None:
        """Take notice that commits can be made again."""
        self._unwritable = None
        self._log.info("the spool {path} can be written again", path=self._path)


def _is_due(last: float | None, now: float) -> bool:
    """Whether it was said long ago; a clock that was set back counts as that."""
    return last is None or abs(now - last) >= QUIET_TIME
