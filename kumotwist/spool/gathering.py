"""When a commit begins: soon enough for those who wait, late enough to carry what comes with it.

A commit costs some 200 µs of CPU and an C{fsync}, whether it carries one message or ten. So

  - a store is committed as soon as the reactor has nothing else to do. While it is busy, what it is
    busy with will bring more to store, and the client would have to wait in any case;
  - a change that nobody waits for (a removal, a new due time) rides along with the next store, or
    is committed alone when none has come for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["LINGER", "LONGEST_GATHERING", "Gathering"]

#: Seconds that a change waits at most for a store to ride along with. What a killed process had
#: delivered in this time is delivered again.
LINGER = 0.1

#: Seconds that a store waits at most for others.
LONGEST_GATHERING = 0.005

# A turn of the reactor that took less had little to do: there is nothing to wait for.
_SHORT_TURN = 0.0003

# A timer that is further ahead than asked for by more seconds: the clock has been set back.
_TOLERANCE = 1.0


class Gathering:
    """Calls C{begin} when what has been asked is to be committed."""

    def __init__(self, reactor: IReactorTime, begin: Callable[[], None]) -> None:
        """
        @param reactor: tells the time and sets the timers.
        @param begin: begins a commit if there is anything to commit, and none under way.
        """
        self._reactor = reactor
        self._begin = begin
        self._look_call: IDelayedCall | None = None
        self._since = self._looked = 0.0
        self._timer: IDelayedCall | None = None
        self._timer_due = 0.0

    @property
    def imminent(self) -> bool:
        """Whether somebody waits for the next commit."""
        return self._look_call is not None

    def soon(self) -> None:
        """Begin as soon as the reactor has nothing else to do."""
        now = self._reactor.seconds()
        if self._look_call is not None:
            if self._looked <= now + _TOLERANCE:
                return
            # Nobody must wait until the clock has come so far again.
            self._look_call.cancel()
        self._since = self._looked = now
        self._look_call = self._reactor.callLater(0, self._look)

    def _look(self) -> None:
        now = self._reactor.seconds()
        turn, self._looked = now - self._looked, now
        if turn < _SHORT_TURN or not 0 <= now - self._since < LONGEST_GATHERING:
            self._look_call = None
            self._begin()
        else:
            self._look_call = self._reactor.callLater(0, self._look)

    def within(self, delay: float) -> None:
        """Begin after a delay at the latest.

        @param delay: in seconds.
        """
        due = self._reactor.seconds() + delay
        if self._timer is not None:
            if self._timer_due <= due + _TOLERANCE:
                return
            self._timer.cancel()
        self._timer_due = due
        self._timer = self._reactor.callLater(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._begin()

    def stop(self) -> None:
        """Begin nothing more until asked again."""
        for call in (self._look_call, self._timer):
            if call is not None:
                call.cancel()
        self._look_call = self._timer = None
