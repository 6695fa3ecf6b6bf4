"""Whether a source can be used at the moment, judged by what happened on the way to its proxy.

A failure that is the proxy's (or an address that the machine does not own) holds the source: no
new message is given to it until the hold ends, other sources of the pool carry the mail, and a
message that finds every source held waits without an attempt being charged. The first attempt
after a hold is a probe: one connection alone. If it fails too, the next hold is twice as long.

HAProxy cannot say what went wrong, so silence behind it is only a suspicion: it takes several in
a row, towards different sites, to hold the source; else one dead destination would stop the rest.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

__all__ = ["SourceHealth"]

#: The first hold and the longest, in seconds.
FIRST_HOLD = 5.0
LONGEST_HOLD = 300.0
#: So many suspected failures in a row, towards so many sites, hold a source.
SUSPICIONS = 5
SUSPICIOUS_SITES = 2


@attrs.define
class _State:
    """What is remembered of a source that failed."""

    held_until: float = 0.0
    hold: float = 0.0
    reason: str = ""
    suspicions: int = 0
    sites: set[str] = attrs.field(factory=set)


class SourceHealth:
    """The health of every source of this node.

    @param now: tells the time in seconds; its zero does not matter.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._states: dict[str, _State] = {}

    def usable(self, source: str) -> bool:
        """Whether new messages may be given to the source."""
        state = self._states.get(source)
        return state is None or state.held_until <= self._now()

    def on_probation(self, source: str) -> bool:
        """Whether it failed last and nothing has succeeded since: one connection at a time."""
        state = self._states.get(source)
        return state is not None and state.hold > 0

    def held_for(self, source: str) -> float:
        """Seconds until the hold ends; 0 if the source is not held."""
        state = self._states.get(source)
        return 0.0 if state is None else max(0.0, state.held_until - self._now())

    def reason(self, source: str) -> str:
        """Why it is held, in words; empty if nothing is known against it."""
        state = self._states.get(source)
        return "" if state is None else state.reason

    def failed(self, source: str, reason: str) -> float:
        """Record a failure that is the source's or its proxy's.

        Failures that arrive while the source is held already (sessions that were under way)
        change nothing.

        @return: seconds for which the source is held now.
        """
        state = self._states.setdefault(source, _State())
        if state.held_until <= self._now():
            state.hold = min(state.hold * 2, LONGEST_HOLD) if state.hold else FIRST_HOLD
            state.held_until = self._now() + state.hold
            state.reason = reason
        return self.held_for(source)

    def suspected(self, source: str, site: str, reason: str) -> float:
        """Record silence or a close behind a proxy that cannot explain itself.

        @return: seconds for which the source is held now; 0 while it is only a suspicion.
        """
        state = self._states.setdefault(source, _State())
        state.suspicions += 1
        if len(state.sites) < SUSPICIOUS_SITES:
            state.sites.add(site)
        if state.suspicions < SUSPICIONS or len(state.sites) < SUSPICIOUS_SITES:
            return 0.0
        state.suspicions = 0
        state.sites.clear()
        return self.failed(source, reason)

    def succeeded(self, source: str) -> bool:
        """Record that the way through the source works.

        @return: whether it had been held or on probation until now.
        """
        state = self._states.pop(source, None)
        return state is not None and state.hold > 0
