"""Keeping to rates: asks the node's limits for events, and says when it is worth asking again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from kumotwist.interfaces import ILimits
from kumotwist.settings.types import Rate

__all__ = ["Pacer", "Rates"]

#: Names with rates; an event counts against all of them.
Rates = Sequence[tuple[str, Rate]]

#: No more events are asked for at once than come in this time, in seconds: what is asked for
#: together waits until all of it may happen.
SMOOTHNESS = 0.1
#: No timer is set further ahead than this, in seconds.
LONGEST_SLEEP = 3600.0
#: Seconds until limits are asked again that could not answer.
AFTER_FAILURE = 1.0


class Pacer:
    """Events that keep to several rates at once.

    Rates are asked one after the other, the tightest first; what the first ones have granted is
    kept while a later one makes wait.

    @param clock: sets timers.
    @param limits: where rates are asked for.
    @param wake: called when asking again is worth while, after a L{take} that gave less than
        was wanted.
    """

    _log = Logger()

    def __init__(self, clock: Any, limits: ILimits, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._limits = limits
        self._wake = wake
        self._credit = 0
        # What is being asked for: so many events, granted by so many of these rates.
        self._rates: Rates = ()
        self._asked = 0
        self._granted_by = 0
        self._timer: Any = None
        self._answer: Deferred[float] | None = None

    @property
    def waits(self) -> bool:
        """Whether asking is not worth while now; C{wake} will be called."""
        return self._timer is not None or self._answer is not None

    def take(self, rates: Rates, most: int) -> int:
        """Let events happen.

        @param most: how many are wanted.
        @return: how many may happen; if it is less, C{wake} will be called.
        """
        if not rates:
            return most
        taken = 0
        while taken < most:
            if self._credit:
                part = min(self._credit, most - taken)
                self._credit -= part
                taken += part
            elif self.waits or not self._ask(rates, most - taken):
                break
        return taken

    def give_back(self, events: int) -> None:
        """Events that did not happen; they may happen later."""
        self._credit += events

    def reconsider(self) -> None:
        """The rates have changed: what is waited for may come sooner."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._wake()

    def stop(self) -> None:
        """Do not call any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake = _nobody

    def _ask(self, rates: Rates, most: int) -> bool:
        """Ask for events.

        @return: whether they were granted at once.
        """
        if self._rates != rates:
            self._rates, self._granted_by, self._asked = rates, 0, 0
        if not self._asked:
            self._asked = min(most, *(_step(rate) for _, rate in rates))
        while self._granted_by < len(rates):
            name, rate = rates[self._granted_by]
            answer = self._limits.admit(name, rate, self._asked)
            if isinstance(answer, Deferred):
                self._answer = answer
                answer.addCallbacks(self._answered, self._not_answered)
                return False
            if answer > 0:
                self._sleep(answer)
                return False
            self._granted_by += 1
        self._credit += self._asked
        self._granted_by = self._asked = 0
        return True

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(min(seconds, LONGEST_SLEEP), self._slept)

    def _slept(self) -> None:
        self._timer = None
        self._wake()

    def _answered(self, wait: float) -> None:
        """A late answer."""
        self._answer = None
        if wait > 0:
            self._sleep(wait)
            return
        self._granted_by += 1
        if self._granted_by == len(self._rates):
            self._credit += self._asked
            self._granted_by = self._asked = 0
            self._wake()
        elif self._ask(self._rates, self._asked):
            self._wake()

    def _not_answered(self, failure: Any) -> None:
        self._answer = None
        self._log.failure("a rate could not be asked for", failure)
        self._sleep(AFTER_FAILURE)


def _nobody() -> None:
    """Nobody wants to know any more."""


def _step(rate: Rate) -> int:
    """How many events are asked for at once."""
    return max(1, min(rate.burst, int(rate.events / rate.period * SMOOTHNESS)))
