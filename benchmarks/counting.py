"""Counts the calls of a piece of work, and takes its time, as narrowly as that can be done."""

from __future__ import annotations

import gc
import sys
import time
from types import FrameType
from typing import Any, NamedTuple, Protocol

__all__ = ["Calls", "Cost", "Meter", "Time", "Way", "cost"]


class Meter(Protocol):
    """Measures while it is told to."""

    def begin(self) -> None:
        """From here on it counts."""

    def end(self) -> None:
        """From here on it does not."""


class Calls:
    """A L{Meter} of calls to Python and C functions: the same number at every run.

    @ivar total: how many there were.
    """

    def __init__(self) -> None:
        self.total = 0

    def begin(self) -> None:
        """Count, with Python's own profiler hook."""
        sys.setprofile(self._happened)

    def end(self) -> None:
        """Count no more; the call of this method is none of what is measured."""
        sys.setprofile(None)
        self.total -= 2  # this method, and setprofile

    def _happened(self, frame: FrameType, event: str, _: Any) -> None:
        if event in ("call", "c_call"):
            self.total += 1


class Time:
    """A L{Meter} of CPU time.

    @ivar total: seconds of this process.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._begun = 0.0

    def begin(self) -> None:
        """The clock runs."""
        self._begun = time.process_time()

    def end(self) -> None:
        """The clock stands."""
        self.total += time.process_time() - self._begun


class Way(Protocol):
    """Something that messages go through, in memory and deterministic.

    @ivar name: what it is called in the table.
    @ivar messages: how many go through it in a round.
    """

    name: str
    messages: int

    def round(self, meter: Meter) -> None:
        """Send a round of messages through, with the meter at work where it is their way."""


class Cost(NamedTuple):
    """What a message costs.

    @ivar calls: calls of Python and C functions.
    @ivar least: microseconds of CPU in the round that took the fewest.
    """

    calls: float
    least: float


#: Rounds whose calls are counted: what happens every few messages has its share of them.
_COUNTED = 16


def cost(way: Way, rounds: int = 0) -> Cost:
    """Measure a way.

    @param rounds: rounds that are timed; without any only the calls are counted.
    """
    for _ in range(2):  # caches fill
        way.round(Time())
    calls = Calls()
    gc.disable()  # who is told of a collection is called when it happens to be due
    try:
        for _ in range(_COUNTED):
            way.round(calls)
    finally:
        gc.enable()
    least = 0.0
    for _ in range(rounds):
        watch = Time()
        way.round(watch)
        least = min(least or watch.total, watch.total)
    return Cost(calls.total / _COUNTED / way.messages, least / way.messages * 1e6)
