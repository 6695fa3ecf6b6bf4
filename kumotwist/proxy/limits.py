"""How much may leave from one source address, whichever client asks.

The proxy owns the address, so this is the one place where all the nodes that share it meet.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kumotwist.settings.types import Rate

__all__ = ["SourceLimits"]

#: A table larger than this is searched for sources that say nothing any more.
_SWEEP_AT = 1024


@define
class _Source:
    """What is known of one source address.

    @ivar connections: how many are open or being opened.
    @ivar arrival: when the next connection would come if all came evenly (the generic cell rate
        algorithm's theoretical arrival time), in seconds.
    @ivar waiting: who waits for a turn, first come first.
    @ivar timer: runs while the first of them waits for the rate.
    """

    connections: int = 0
    arrival: float = float("-inf")
    waiting: dict[Hashable, Callable[[], None]] = field(factory=dict)
    timer: IDelayedCall | None = None


class SourceLimits:
    """Open connections and new connections per time, counted for each source address.

    The rate is kept by the generic cell rate algorithm: connections that come evenly are let
    through for ever, and up to C{rate.burst} at once after a pause; there are no windows whose
    edges let twice as many pass.

    A source is an IP address as text, which is quicker to look up than an address.

    @param clock: tells the time, and when it is the next one's turn.
    @param max_connections: how many may be open from one source; L{None} for any number.
    @param rate: how many may be opened in a time from one source; L{None} for any.

    @ivar limited: whether there is a limit at all.
    """

    def __init__(
        self,
        clock: IReactorTime,
        max_connections: int | None = None,
        rate: Rate | None = None,
    ) -> None:
        self._clock = clock
        self._max_connections = max_connections
        self._interval = rate.period / rate.events if rate else 0.0
        self._tolerance = self._interval * (rate.burst - 1) if rate else 0.0
        self._sources: dict[str, _Source] = {}
        self._sweep_at = _SWEEP_AT
        self.limited = max_connections is not None or self._interval > 0

    def acquire(self, source: str) -> str | None:
        """Count a new connection from C{source}, unless a limit is reached or somebody waits.

        @return: L{None} if it may be made, and L{release} must be called once when it has ended;
            otherwise the words that say which limit is reached.
        """
        known = self._sources.get(source) or self._known(source)
        if known.waiting:
            return f"{len(known.waiting)} others wait for {source}"
        if not self.limited:
            known.connections += 1
            return None
        return self._take(source, known)[0] or None

    def wait(self, source: str, owner: Hashable, call: Callable[[], None]) -> None:
        """Wait for a turn, behind those who wait already.

        @param owner: for L{give_up}.
        @param call: called once when a connection was counted, as if by L{acquire}.
        """
        known = self._known(source)
        known.waiting[owner] = call
        self._admit(source, known)

    def give_up(self, source: str, owner: Hashable) -> None:
        """C{owner} does not wait any more."""
        known = self._sources.get(source)
        if known is not None and known.waiting.pop(owner, None) is not None:
            self._admit(source, known)

    def release(self, source: str) -> None:
        """A connection that was counted has ended."""
        known = self._sources[source]
        known.connections -= 1
        if known.waiting:
            self._admit(source, known)
        if not (known.connections or known.waiting or self._interval):
            self._sources.pop(source, None)

    def open_connections(self) -> dict[str, int]:
        """How many connections are open from each source that has any."""
        return {
            source: known.connections
            for source, known in self._sources.items()
            if known.connections
        }

    def _known(self, source: str) -> _Source:
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source()
            if len(self._sources) > self._sweep_at:
                self._sweep()
        return known

    def _take(self, source: str, known: _Source) -> tuple[str, float]:
        """Count a connection if no limit is reached.

        @return: which limit is reached, empty if none, and how many seconds too early it is.
        """
        if self._max_connections is not None and known.connections >= self._max_connections:
            return f"{known.connections} connections from {source} are open", 0.0
        if self._interval:
            now = self._clock.seconds()
            early = known.arrival - self._tolerance - now
            # Sums of intervals are inexact: a millionth of one is not early.
            if early > self._interval * 1e-6:
                return f"connections from {source} come too fast, {early:.3f}s early", early
            known.arrival = max(known.arrival, now) + self._interval
        known.connections += 1
        return "", 0.0

    def _admit(self, source: str, known: _Source) -> None:
        """Let those in whose turn it is."""
        timer, known.timer = known.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        while known.waiting:
            reason, early = self._take(source, known)
            if reason:
                if early and known.timer is None:
                    known.timer = self._clock.callLater(early, self._admit, source, known)
                return
            owner = next(iter(known.waiting))
            known.waiting.pop(owner)()

    def _sweep(self) -> None:
        """Forget the sources without connections whose past no longer matters."""
        now = self._clock.seconds()
        self._sources = {
            source: known
            for source, known in self._sources.items()
            if known.connections
            or known.waiting
            or known.arrival > now
            or known.arrival == float("-inf")
        }
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._sources))
