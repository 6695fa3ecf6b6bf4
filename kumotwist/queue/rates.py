"""What a path's limits are called among the node's limits, and which of them make a source wait."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kumotwist.egress.settings import PathSettings, PathTable
from kumotwist.interfaces import ILimits
from kumotwist.queue.pacing import Pacer, Rates
from kumotwist.queue.plan import Plan
from kumotwist.settings.types import Rate

__all__ = ["Selection", "connection_limits", "connection_rates", "message_rates"]

#: Pairs of source and lane whose selection is paced at the same time.
MAX_PACERS = 65536


def _tightest_first(rates: list[tuple[str, Rate]]) -> Rates:
    return tuple(sorted(rates, key=lambda each: each[1].events / each[1].period))


def _rates(kind: str, lane: str, rate: Rate | None, named: tuple[tuple[str, Rate], ...]) -> Rates:
    if rate is None and not named:
        return ()
    own = [] if rate is None else [(f"{kind} {lane}", rate)]
    return _tightest_first(own + [(f"named {kind} {name}", each) for name, each in named])


def message_rates(path: PathSettings, lane: str) -> Rates:
    """The rates of messages.

    @param lane: source and lane, in words.
    """
    return _rates("messages", lane, path.max_message_rate, path.additional_message_rate_throttles)


def connection_rates(path: PathSettings, lane: str) -> Rates:
    """The rates of connections."""
    return _rates("connections", lane, path.max_connection_rate, ())


def connection_limits(path: PathSettings, lane: str) -> dict[str, int]:
    """The limits of connections, the smallest first."""
    limits = [(f"connections {lane}", path.connection_limit)]
    limits += [(f"named connections {name}", n) for name, n in path.additional_connection_limits]
    return dict(sorted(limits, key=lambda each: each[1]))


class Selection:
    """Keeps the choice of sources to C{source_selection_rate}.

    @param paths: where the rates are configured.
    @param wake: called with a source and a lane when it may be chosen again.
    @ivar limited: whether there is any such rate.
    """

    def __init__(
        self, clock: Any, limits: ILimits, paths: PathTable, wake: Callable[[str, str], None]
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._paths = paths
        self._wake = wake
        self.limited = paths.limits_selection
        self._pacers: dict[tuple[str, str], Pacer] = {}

    def may_choose(self, source: str, plan: Plan) -> bool:
        """Choose a source for a site, if its rates allow it."""
        if not self.limited:
            return True
        path = self._paths.resolve(plan.domain, plan.site, source)
        named = path.additional_source_selection_rates
        rates = _rates("selections", f"{source}->{plan.lane}", path.source_selection_rate, named)
        if not rates:
            return True
        pacer = self._pacers.get((source, plan.lane))
        if pacer is None:
            if len(self._pacers) >= MAX_PACERS:
                self._pacers = {key: each for key, each in self._pacers.items() if each.waits}
            wake = partial(self._wake, source, plan.lane)
            pacer = self._pacers[source, plan.lane] = Pacer(self._clock, self._limits, wake)
        return pacer.take(rates, 1) == 1

    def waits(self, source: str, lane: str) -> bool:
        """Whether a source was not chosen for its rate, and will be called for again."""
        pacer = self._pacers.get((source, lane))
        return pacer is not None and pacer.waits

    def reconsider(self) -> None:
        """The rates may have changed."""
        self.limited = self._paths.limits_selection
        for pacer in list(self._pacers.values()):
            pacer.reconsider()

    def stop(self) -> None:
        """Call nobody any more."""
        for pacer in self._pacers.values():
            pacer.stop()
