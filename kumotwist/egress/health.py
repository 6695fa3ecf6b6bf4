"""Whether a way out can be used at the moment, judged by what happened on it.

A failure that is the proxy's (or an address that the machine does not own) holds the source: no
mail is given to it, other sources of the pool carry it, and a message that finds every source held
waits without an attempt being charged. What is held comes back by a I{try}: one connection alone,
made with one message. If the try succeeds, everything that was known against the source is
forgotten.

How long the hold is depends on what was configured. Without C{suspend_when_…}, the first failure
holds for 5 s, and a failed try for twice as long as before, up to 5 min. With it, the trigger
decides: failures below it are I{tolerated} (only the message that met one is put off), and what
reaches it suspends the source for the duration, within which a try is made now and then.

HAProxy cannot say what went wrong, so silence behind it is only a suspicion, and so is what a
proxy answers to one destination alone (by its rules, say): it takes several in a row, towards
different sites, to hold the source; else one dead destination would stop the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import attrs

from kumotwist.egress.suspension import Suspension

__all__ = ["Health", "Hold", "SourceHealth"]

#: The first hold and the longest, in seconds, where no suspension is configured.
FIRST_HOLD = 5.0
LONGEST_HOLD = 300.0
#: Seconds after a hold in which mail that waits would have tried the source.
FORGOTTEN = 300.0
#: So many suspected failures in a row, towards so many sites, hold a source.
SUSPICIONS = 5
SUSPICIOUS_SITES = 2
#: Seconds until the next try after one that taught nothing (its destination had no address, say).
AFTER_IDLE_TRY = 5.0


class Hold(NamedTuple):
    """That a source is held, as one process tells another. All numbers are seconds from now.

    @ivar reason: what failed last, in words.
    @ivar held: until the hold ends.
    @ivar next_try: until the next try may begin.
    @ivar length: how long the whole hold is.
    @ivar probe_interval: between two tries within it; 0 for none.
    """

    reason: str
    held: float
    next_try: float
    length: float
    probe_interval: float


@attrs.define
class Health:
    """What is known against one way out; a new one is in perfect health.

    All times are those of the caller's clock, in seconds.

    @ivar reason: what failed last, in words.
    @ivar held_until: when the hold ends.
    @ivar pause: seconds for which a message is put off by a failure that was tolerated.
    """

    reason: str = ""
    held_until: float = 0.0
    pause: float = 0.0
    _hold: float = 0.0
    _next_try: float = 0.0
    _probe_interval: float = 0.0
    _trying: str | None = None
    _failures: deque[float] = attrs.field(factory=deque)
    _suspicions: int = 0
    _sites: set[str] = attrs.field(factory=set)

    @property
    def troubled(self) -> bool:
        """Whether it was held and nothing has succeeded since: only a try may use it."""
        return self._hold > 0

    def told(self, now: float) -> Hold:
        """What another process needs to know of it."""
        return Hold(
            self.reason,
            max(0.0, self.held_until - now),
            max(0.0, self._next_try - now),
            self._hold,
            self._probe_interval,
        )

    def adopt(self, now: float, hold: Hold) -> None:
        """It is held, as another process has found out; a try that is under way goes on."""
        self.reason, self._hold, self._probe_interval = (
            hold.reason,
            hold.length,
            hold.probe_interval,
        )
        self.held_until, self._next_try = now + hold.held, now + hold.next_try

    def next_try(self, now: float) -> float:
        """Seconds until a try may begin; infinity while one is under way, 0 without trouble."""
        if not self.troubled:
            return 0.0
        if self._trying is not None:
            return float("inf")
        return max(0.0, self._next_try - now)

    def begin_try(self, site: str) -> None:
        """A connection is about to show whether it works again; nobody else may use it."""
        self._trying = site

    def is_tried(self, site: str) -> bool:
        """Whether a try towards this site is under way."""
        return self._trying == site

    def end_try(self, site: str, now: float) -> None:
        """The try is over; if it taught anything, that has been said before."""
        if self._trying == site:
            self._trying = None
            self._next_try = max(self._next_try, now + AFTER_IDLE_TRY)

    def failed(self, now: float, reason: str, suspension: Suspension | None = None) -> float:
        """Record a failure.

        While it is held, failures (of the try, or of connections that were under way) do not make
        the hold longer.

        @param suspension: what was configured for this kind of failure, if anything.
        @return: seconds for which it is held now; 0 if the failure is tolerated.
        """
        self._trying = None
        self.reason = reason
        if self.held_until > now:
            self._next_try = min(now + (self._probe_interval or float("inf")), self.held_until)
        elif suspension is None:
            self._keep_away(now, min(self._hold * 2, LONGEST_HOLD) or FIRST_HOLD)
        elif self.troubled or self._triggers(now, suspension):
            self._failures.clear()
            self._keep_away(now, suspension.duration, suspension.probe_interval)
        return max(0.0, self.held_until - now)

    def _keep_away(self, now: float, hold: float, probe_interval: float = 0.0) -> None:
        self._hold, self._probe_interval = hold, probe_interval
        self.held_until = now + hold
        self._next_try = now + min(probe_interval or hold, hold)

    def _triggers(self, now: float, suspension: Suspension) -> bool:
        failures = self._failures
        if not failures or now - failures[-1] >= self.pause:
            # The one before is not of the same burst: whatever waited for the pause failed again.
            self.pause = min(self.pause * 2, LONGEST_HOLD) or FIRST_HOLD
        failures.append(now)
        while len(failures) > suspension.failures or failures[0] < now - suspension.period:
            failures.popleft()
        return len(failures) >= suspension.failures

    def suspected(
        self, now: float, site: str, reason: str, suspension: Suspension | None = None
    ) -> float:
        """Record what is the proxy's failure or the destination's, nobody can tell.

        A try that ends so has failed: what was held needs proof that it works.

        @return: seconds for which it is held now; 0 while it is only a suspicion.
        """
        if self.troubled:
            return self.failed(now, reason, suspension)
        self._suspicions += 1
        if len(self._sites) < SUSPICIOUS_SITES:
            self._sites.add(site)
        if self._suspicions < SUSPICIONS or len(self._sites) < SUSPICIOUS_SITES:
            return 0.0
        self._suspicions = 0
        self._sites.clear()
        return self.failed(now, reason, suspension)


class SourceHealth:
    """The health of every source of this node.

    @param now: tells the time in seconds; its zero does not matter.
    @param tell: is told of each source that is found to be held, and with L{None} of each that was
        and works again, for the node's other processes.
    @ivar ailing: what is known against sources, by their names: whoever is not there is well.
    """

    def __init__(
        self,
        now: Callable[[], float],
        tell: Callable[[str, Hold | None], None] = lambda source, hold: None,
    ) -> None:
        self._now = now
        self._tell = tell
        self.ailing: dict[str, Health] = {}

    def adopt(self, source: str, hold: Hold | None) -> bool:
        """Go by what another process has found out.

        @param hold: L{None} if the source works.
        @return: whether it can be used now and could not before, or the other way round.
        """
        before = self.usable(source)
        if hold is None:
            self.ailing.pop(source, None)
        else:
            self.ailing.setdefault(source, Health()).adopt(self._now(), hold)
        return self.usable(source) is not before

    def _spread(self, source: str, health: Health) -> None:
        if health.troubled:
            self._tell(source, health.told(self._now()))

    def forget(self, source: str) -> None:
        """The source is no more, or its name stands for another way out."""
        self.ailing.pop(source, None)

    def usable(self, source: str) -> bool:
        """Whether mail may be given to the source without further ado."""
        health = self.ailing.get(source)
        return health is None or not health.troubled

    def suspended(self, source: str) -> bool:
        """Whether the source is known not to work, for who watches. What is not usable any more,
        and was not tried within L{FORGOTTEN} seconds after its hold, since no mail has come for it,
        is on probation: nobody knows."""
        health = self.ailing.get(source)
        if health is None or not health.troubled:
            return False
        return self._now() < health.held_until + FORGOTTEN

    def may_try(self, source: str) -> bool:
        """Whether a source that is not usable may be tried now; see L{begin_try}."""
        health = self.ailing.get(source)
        return health is None or health.next_try(self._now()) <= 0

    def next_try(self, source: str) -> float:
        """Seconds until the source may be used or tried; infinity while a try is under way."""
        health = self.ailing.get(source)
        return 0.0 if health is None else health.next_try(self._now())

    def begin_try(self, source: str, site: str) -> None:
        """One message for a site is about to show whether the source works again."""
        self.ailing[source].begin_try(site)

    def end_try(self, source: str, site: str) -> None:
        """No connection to the site is being made any more, by the source that was tried so."""
        health = self.ailing.get(source)
        if health is not None:
            health.end_try(site, self._now())

    def is_tried(self, source: str, site: str) -> bool:
        """Whether a try of the source towards this site is due or under way."""
        health = self.ailing.get(source)
        return health is not None and health.is_tried(site)

    def held_for(self, source: str) -> float:
        """Seconds until the hold ends; 0 if the source is not held."""
        health = self.ailing.get(source)
        return 0.0 if health is None else max(0.0, health.held_until - self._now())

    def pause(self, source: str) -> float:
        """Seconds for which a message waits after a failure of the source that was tolerated."""
        health = self.ailing.get(source)
        return FIRST_HOLD if health is None else health.pause or FIRST_HOLD

    def reason(self, source: str) -> str:
        """What failed last, in words; empty if nothing is known against it."""
        health = self.ailing.get(source)
        return "" if health is None else health.reason

    def failed(self, source: str, reason: str, suspension: Suspension | None = None) -> float:
        """Record a failure that is the source's or its proxy's; see L{Health.failed}."""
        health = self.ailing.setdefault(source, Health())
        held = health.failed(self._now(), reason, suspension)
        self._spread(source, health)
        return held

    def suspected(
        self, source: str, site: str, reason: str, suspension: Suspension | None = None
    ) -> float:
        """Record silence or a close behind a proxy that cannot explain itself, or what it
        answered to this destination alone; see L{Health.suspected}."""
        health = self.ailing.setdefault(source, Health())
        held = health.suspected(self._now(), site, reason, suspension)
        self._spread(source, health)
        return held

    def succeeded(self, source: str) -> bool:
        """Record that the way through the source works.

        @return: whether it had been held until now.
        """
        health = self.ailing.pop(source, None)
        if health is None or not health.troubled:
            return False
        self._tell(source, None)
        return True
