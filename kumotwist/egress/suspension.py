"""When a source is suspended for what fails on its way out, and for how long."""

from __future__ import annotations

from typing import NamedTuple

from kumotwist.settings import SettingType
from kumotwist.settings.types import parse_duration, parse_rate, render_duration

__all__ = ["SUSPENSION", "Suspension"]

#: Seconds: what is shorter is no suspension.
SHORTEST = 1.0
#: Failures that a trigger can count at most; the time of each is remembered.
MOST_FAILURES = 1000


class Suspension(NamedTuple):
    """A trigger and what it leads to (KumoMTA's C{suspend_when_…}).

    @ivar duration: seconds for which the source is suspended.
    @ivar failures: so many failures within C{period} are the trigger; 1 is KumoMTA's
        C{Immediate}.
    @ivar period: seconds; without a meaning for one failure.
    """

    duration: float
    failures: int = 1
    period: float = 0.0

    @property
    def probe_interval(self) -> float:
        """Seconds between two connections that try whether the suspension can end early."""
        return max(5.0, self.duration / 20)

    def __str__(self) -> str:
        duration = render_duration(self.duration)
        if self.failures == 1:
            return duration
        return f"{self.failures}/{render_duration(self.period)} for {duration}"


def _parse(text: str) -> Suspension:
    trigger, word, duration = text.strip().rpartition(" for ")
    try:
        seconds = parse_duration(duration)
        rate = parse_rate(trigger) if word else None
    except ValueError as error:
        raise ValueError(f"{error}; a suspension is 10m, or 3/5m for 10m") from None
    if seconds < SHORTEST:
        raise ValueError(f"{text!r} is too short (at least {render_duration(SHORTEST)})")
    if rate is None:
        return Suspension(seconds)
    if rate.local or rate.burst != rate.events:
        raise ValueError(f"{text!r}: a trigger is only failures and a period (3/5m for 10m)")
    if rate.events > MOST_FAILURES:
        raise ValueError(f"{text!r}: a trigger counts at most {MOST_FAILURES} failures")
    if rate.events == 1:
        return Suspension(seconds)
    return Suspension(seconds, rate.events, rate.period)


#: C{10m}: suspended for ten minutes by the first failure. C{3/5m for 10m}: by the third failure
#: within five minutes.
SUSPENSION: SettingType[Suspension] = SettingType("suspension", _parse)
