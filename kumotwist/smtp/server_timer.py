"""One timer for all that a session waits for."""

from __future__ import annotations

import math
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kumotwist.smtp.server_connection import LINGER

__all__ = ["SessionTimer"]

# Most sessions are over soon, and end with a short wait: a call that looks then serves for both.
_FIRST_LOOK = LINGER


class SessionTimer:
    """Calls back when what was waited for has not come in time.

    Moving the deadline costs no more than an assignment: the delayed call is left where it is and
    looks, when it comes, how long there is still to wait.

    @param clock: tells the time.
    @param expired: called once each time the deadline has passed.
    """

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._deadline = 0.0
        self._call: IDelayedCall | None = None
        self._looks = 0.0  # when the call comes

    def allow(self, seconds: float) -> None:
        """Wait for so many seconds from now, and no longer."""
        self.allow_until(self._clock.seconds() + seconds)

    def allow_until(self, deadline: float) -> None:
        """Wait until then, by the clock's time, and no longer."""
        self._deadline = deadline
        call = self._call
        if call is None:
            self._look_at(deadline, _FIRST_LOOK)
        elif self._looks > deadline:
            call.cancel()
            self._look_at(deadline)

    def _look_at(self, deadline: float, most: float = math.inf) -> None:
        """Look when the deadline comes, or after so many seconds at most."""
        now = self._clock.seconds()
        wait = min(max(deadline - now, 0), most)
        self._looks = now + wait
        self._call = self._clock.callLater(wait, self._due)

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _due(self) -> None:
        self._call = None
        if self._deadline > self._clock.seconds():
            self._look_at(self._deadline)
        else:
            self._expired()
