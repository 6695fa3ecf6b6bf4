"""Rates by the generic cell rate algorithm: one number for each rate, no window and no queue.

The number is the I{theoretical arrival time}: when the next event would come if events came evenly
at the rate. An event is admitted while that moment is less than a burst ahead of now (ITU-T I.371,
annex A, the virtual scheduling form; redis-cell and KumoMTA count in the same way).
"""

from __future__ import annotations

from collections.abc import Callable

from kumotwist.settings.types import Rate

__all__ = ["RateTable"]

#: Rates that are kept before those that have come to rest are looked for and forgotten.
_SWEEP_AT_LEAST = 1024


class RateTable:
    """What was admitted under each name.

    @param now: tells the time in seconds; its zero does not matter.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        # By name: the theoretical arrival time, and the interval of the rate that it was made by.
        self._arrivals: dict[str, tuple[float, float]] = {}
        self._sweep_at = _SWEEP_AT_LEAST

    def __len__(self) -> int:
        return len(self._arrivals)

    def admit(self, name: str, rate: Rate, events: int = 1) -> float:
        """Ask for events at once.

        More events than the rate's burst are admitted when a whole burst would be; what comes
        after them waits for as long as they take.

        @return: 0 if they are admitted, and counted; else the seconds until they can be, and
            nothing is counted.
        """
        now = self._now()
        interval = rate.period / rate.events
        burst = interval * rate.burst
        arrival, by = self._arrivals.get(name, (now, interval))
        # By a rate that has changed, what was admitted is as many events as before.
        arrival = now + max(0.0, arrival - now) * interval / by
        wait = arrival + interval * min(events, rate.burst) - burst - now
        # What is left of a subtraction of large numbers is no reason to wait.
        if wait > 1e-6:
            return wait
        self._arrivals[name] = (arrival + interval * events, interval)
        if len(self._arrivals) > self._sweep_at:
            self._sweep(now)
        return 0.0

    def _sweep(self, now: float) -> None:
        """Forget the rates at which nothing has happened for so long that they are as new."""
        self._arrivals = {name: kept for name, kept in self._arrivals.items() if kept[0] > now}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._arrivals))
