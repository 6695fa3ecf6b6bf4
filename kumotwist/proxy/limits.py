"""How much may leave from one source address, whichever client asks.

The proxy owns the address, so this is the one place where all the nodes that share it meet.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from kumotwist.settings.types import IPAddress, Rate

__all__ = ["SourceLimits"]

#: A table larger than this is searched for sources that say nothing any more.
_SWEEP_AT = 1024


@define
class _Source:
    """What is known of one source address.

    @ivar connections: how many are open or being opened.
    @ivar arrival: when the next connection would come if all came evenly (the generic cell rate
        algorithm's theoretical arrival time), in seconds.
    """

    connections: int = 0
    arrival: float = float("-inf")


class SourceLimits:
    """Open connections and new connections per time, counted for each source address.

    The rate is kept by the generic cell rate algorithm: connections that come evenly are let
    through for ever, and up to C{rate.burst} at once after a pause; there are no windows whose
    edges let twice as many pass.

    @param seconds: the clock, such as C{reactor.seconds}.
    @param max_connections: how many may be open from one source; L{None} for any number.
    @param rate: how many may be opened in a time from one source; L{None} for any.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        max_connections: int | None = None,
        rate: Rate | None = None,
    ) -> None:
        self._seconds = seconds
        self._max_connections = max_connections
        self._interval = rate.period / rate.events if rate else 0.0
        self._tolerance = self._interval * (rate.burst - 1) if rate else 0.0
        self._sources: dict[IPAddress, _Source] = {}
        self._sweep_at = _SWEEP_AT

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._max_connections is not None or self._interval > 0

    def acquire(self, source: IPAddress) -> str | None:
        """Count a new connection from C{source}, unless a limit is reached.

        @return: L{None} if it may be made, and L{release} must be called once when it has ended;
            otherwise the words that say which limit is reached.
        """
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source()
            if len(self._sources) > self._sweep_at:
                self._sweep()
        if self._max_connections is not None and known.connections >= self._max_connections:
            return f"{known.connections} connections from {source} are open"
        if self._interval:
            now = self._seconds()
            early = known.arrival - self._tolerance - now
            # Sums of intervals are inexact: a millionth of one is not early.
            if early > self._interval * 1e-6:
                return f"connections from {source} come too fast, {early:.3f}s early"
            known.arrival = max(known.arrival, now) + self._interval
        known.connections += 1
        return None

    def release(self, source: IPAddress) -> None:
        """A connection that L{acquire} counted has ended."""
        known = self._sources[source]
        known.connections -= 1
        if not known.connections and not self._interval:
            del self._sources[source]

    def open_connections(self) -> dict[IPAddress, int]:
        """How many connections are open from each source that has any."""
        return {
            source: known.connections
            for source, known in self._sources.items()
            if known.connections
        }

    def _sweep(self) -> None:
        """Forget the sources without connections whose past no longer matters."""
        now = self._seconds()
        self._sources = {
            source: known
            for source, known in self._sources.items()
            if known.connections or known.arrival > now or known.arrival == float("-inf")
        }
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._sources))
