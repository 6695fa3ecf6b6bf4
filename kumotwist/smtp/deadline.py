"""A deadline that moves with every message, at no cost."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadline"]


class Deadline:
    """Calls back when a point in time has come that is set anew again and again.

    Most deadlines are moved long before they come. So a later one leaves the timer as it is: it
    looks at the deadline when it fires. Only an earlier one moves it.
    """

    __slots__ = ("_call", "_clock", "_due", "_expired", "_looks_at")

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        """
        @param clock: tells the time.
        @param expired: is called when the deadline has come; there is none then.
        """
        self._clock = clock
        self._expired = expired
        self._due = 0.0
        self._looks_at = 0.0
        self._call: IDelayedCall | None = None

    def set(self, seconds: float) -> None:
        """Let the deadline be so many seconds from now."""
        self._due = due = self._clock.seconds() + seconds
        if self._call is None:
            self._looks_at = due
            self._call = self._clock.callLater(seconds, self._look)
        elif due < self._looks_at:
            # Not C{reset}, which searches through all calls of the reactor.
            self._call.cancel()
            self._looks_at = due
            self._call = self._clock.callLater(seconds, self._look)

    def stop(self) -> None:
        """Let there be none; nothing stays behind in the reactor."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = None
        left = self._due - self._clock.seconds()
        if left > 0:
            self._looks_at = self._due
            self._call = self._clock.callLater(left, self._look)
            return
        self._expired()
