"""The choice of a source for messages that are due, and what stands in its way if there is none."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

import attrs

from kumotwist.egress.health import SourceHealth
from kumotwist.egress.rotation import Rotations
from kumotwist.egress.source import Source
from kumotwist.queue.affinity import Preference
from kumotwist.queue.orders import Orders
from kumotwist.queue.plan import Plan
from kumotwist.queue.rates import Selection
from kumotwist.queue.verdicts import internal_reply
from kumotwist.wire.smtp.replies import Reply

__all__ = ["WAITS_FOR_ROOM", "Bar", "Hindrance", "Obstacle", "SourceChoice"]

#: Seconds for which a source is passed over for a site that it cannot reach.
BARRED_FOR = 300.0
#: Pairs of source and site that are remembered.
MAX_BARS = 65536


class Hindrance(enum.Enum):
    """Why no source can carry a message now."""

    FULL = "ReadyQueueWasFull"
    UNSELECTED = "SourceSelectionRate"
    SUSPENDED = "ReadyQueueWasSuspended"
    HELD = "SourceIsUnhealthyAndSuspended"
    REFUSED = "SourceIsRefusedBySite"
    IMPOSSIBLE = "NoSource"


#: For these the message's queue stands in line, and is called when there is room.
WAITS_FOR_ROOM = frozenset({Hindrance.FULL, Hindrance.UNSELECTED, Hindrance.SUSPENDED})


@attrs.define(frozen=True)
class Obstacle:
    """What stands in the way of a message.

    @ivar hindrance: its kind; the value is the reason that C{Delayed} records give.
    @ivar seconds: after which it is worth another look.
    @ivar reply: the same in words.
    """

    hindrance: Hindrance
    seconds: float
    reply: Reply


class Bar(enum.Enum):
    """Why a source is passed over for one site, though not for others."""

    FAMILY = "family"
    REFUSED = "refused"


class SourceChoice:
    """Which source of a pool carries a message to a site.

    @param now: tells the time in seconds.
    @param sources: every source by name; what a pool names besides is left out.
    @param is_full: says whether the ready queue of a source and a site takes no more.
    @param selection: keeps the choice to its rates.
    @param orders: says which ready queues are suspended.
    """

    def __init__(
        self,
        now: Callable[[], float],
        sources: Mapping[str, Source],
        rotations: Rotations,
        health: SourceHealth,
        is_full: Callable[[str, str], bool],
        selection: Selection,
        orders: Orders,
    ) -> None:
        self._now = now
        self._sources = sources
        self._rotations = rotations
        self._health = health
        self._is_full = is_full
        self._selection = selection
        self._orders = orders
        # By source and site: until when, why, and in whose words.
        self._bars: dict[tuple[str, str], tuple[float, Bar, str]] = {}

    def pick(self, pool: str, plan: Plan, preference: Preference) -> str | None:
        """Choose; a source that is not usable may be chosen for a try."""
        only = self._rotations.only.get(pool)
        if only is not None:  # there is nothing to choose
            return only if self._eligible(only, plan) else None
        return self._rotations.pick(
            pool,
            plan.lane,
            lambda source: self._eligible(source, plan),
            prefer=preference.prefer,
            avoid=preference.avoid,
        )

    def _eligible(self, source: str, plan: Plan) -> bool:
        """Whether a source can carry a message to a site now; it is chosen then."""
        return (
            source in self._sources
            and (source not in self._health.ailing or self._health.may_try(source))
            and (not self._bars or self._bar(source, plan.lane) is None)
            and not self._is_full(source, plan.lane)
            and (not self._orders.any or self._orders.ready_suspended(source, plan.site) is None)
            # This comes last, for the rate is used up by being asked for.
            and (not self._selection.limited or self._selection.may_choose(source, plan))
        )

    def forget_bars(self) -> None:
        """Pass nothing over any more: what was learned speaks of another configuration."""
        self._bars.clear()

    def bar(self, source: str, site: str, why: Bar, words: str = "") -> None:
        """Pass a source over for a site for a while."""
        if len(self._bars) >= MAX_BARS:
            self._bars.clear()
        self._bars[source, site] = (self._now() + BARRED_FOR, why, words)

    def _bar(self, source: str, site: str) -> tuple[float, Bar, str] | None:
        bar = self._bars.get((source, site))
        if bar is not None and bar[0] <= self._now():
            del self._bars[source, site]
            return None
        return bar

    def sources(self, pool: str) -> list[str]:
        """The sources of a pool that exist and have a weight."""
        return [name for name in self._rotations.sources(pool) if name in self._sources]

    def pools_of(self, source: str) -> list[str]:
        """The pools in which a source has a weight."""
        return self._rotations.pools_of(source)

    def is_held(self, pool: str) -> bool:
        """Whether the pool has sources and none of them is usable: a matter of tries alone."""
        names = self.sources(pool)
        return bool(names) and not any(map(self._health.usable, names))

    def next_try(self, pool: str) -> float:
        """Seconds until one of the pool's sources may be used or tried."""
        return min(map(self._health.next_try, self.sources(pool)), default=float("inf"))

    def obstacle(self, pool: str, plan: Plan) -> Obstacle:
        """What stands in the way where L{pick} found nothing."""
        site = plan.lane
        names = self.sources(pool)
        usable = [name for name in names if self._health.usable(name)]
        bars = {name: bar for name in names if (bar := self._bar(name, site)) is not None}
        if any(name not in bars for name in usable):
            return self._all_full(pool, plan, usable)
        held = [name for name in names if name not in usable and name not in bars]
        if held:
            return self._all_held(pool, held)
        refused = [bar for bar in bars.values() if bar[1] is Bar.REFUSED]
        if refused:
            until, _, words = min(refused)
            reply = internal_reply(
                451, "4.4.1", f"no source of pool {pool} may connect to {site}: {words}"
            )
            return Obstacle(Hindrance.REFUSED, until - self._now(), reply)
        text = (
            f"no source of pool {pool} has an address of a family that {site} has"
            if names
            else f"no sources for pool='{pool}' are eligible for selection"
        )
        return Obstacle(Hindrance.IMPOSSIBLE, 0.0, internal_reply(451, "4.4.4", text))

    def _all_full(self, pool: str, plan: Plan, usable: list[str]) -> Obstacle:
        site = plan.lane
        for name in usable:
            order = self._orders.ready_suspended(name, plan.site) if self._orders.any else None
            if order is not None:
                text = f"{name}->{plan.site} is suspended: {order.reason}"
                reply = internal_reply(451, "4.7.1", text)
                return Obstacle(Hindrance.SUSPENDED, 60.0, reply)
        if any(self._selection.waits(name, site) for name in usable):
            text = f"no source of pool {pool} may be chosen for {site} so soon"
            return Obstacle(Hindrance.UNSELECTED, 60.0, internal_reply(451, "4.4.5", text))
        reply = internal_reply(451, "4.4.5", f"the ready queues of {site} are full")
        return Obstacle(Hindrance.FULL, 60.0, reply)

    def _all_held(self, pool: str, held: list[str]) -> Obstacle:
        health = self._health
        first = min(held, key=health.held_for)
        seconds = health.held_for(first)
        text = (
            f"every source of pool {pool} is held; the first one, {first}, for {seconds:.0f} s: "
            f"{health.reason(first)}"
        )
        return Obstacle(Hindrance.HELD, seconds, internal_reply(451, "4.4.1", text))
