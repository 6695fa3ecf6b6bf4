"""One line when a spool begins to refuse mail for want of room, and one when that is over."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.logger import Logger

from kumotwist.spool.errors import SpoolError, SpoolFullError

__all__ = ["RefusalLog"]

#: Seconds between two lines that say it begins: near the limit one body fits and the next does not.
QUIET_TIME = 60.0


class RefusalLog:
    """Follows the outcome of stores; what cannot be written at all is said elsewhere."""

    _log = Logger()

    def __init__(self, path: str) -> None:
        """
        @param path: the spool's directory.
        """
        self._path = path
        self._said = False
        self._since: float | None = None

    def follow(self, now: float, stores: int, refused: Iterable[SpoolError]) -> None:
        """Take notice of a commit.

        @param now: the time, in seconds of any clock.
        @param stores: how many stores were in it.
        @param refused: why some of them failed.
        """
        reasons = list(refused)
        full = next((each for each in reasons if isinstance(each, SpoolFullError)), None)
        if full is not None:
            if not self._said and (self._since is None or abs(now - self._since) >= QUIET_TIME):
                self._said, self._since = True, now
                self._log.error("the spool refuses mail (452): {problem}", problem=str(full))
        elif stores and not reasons and self._said:
            self._said = False
            self._log.info("the spool {path} takes mail again", path=self._path)
