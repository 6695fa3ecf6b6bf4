"""One time limit that many sessions share, driven by one timer."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadlines"]


class Deadlines:
    """Calls back whoever has not stopped in time.

    All have the same time, so who started first is due first: a queue and one timer for its head
    do what a timer each would do, at a fraction of the cost.

    @param clock: drives it.
    @param seconds: how much time everybody has.

    @ivar due: while somebody is called back, when that was due.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._waiting: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._timer: IDelayedCall | None = None
        self.due = 0.0

    def start(self, owner: Hashable, call: Callable[[], None], since: float | None = None) -> None:
        """Give C{owner} its time; a time that was started before is forgotten.

        @param since: when it began, by the clock; L{None} for now. Nobody may begin before whoever
            started last.
        """
        waiting = self._waiting
        if owner in waiting:
            del waiting[owner]  # so that it goes to the end
        now = self._clock.seconds()
        due = (now if since is None else since) + self._seconds
        waiting[owner] = (due, call)
        if self._timer is None:
            self._timer = self._clock.callLater(max(0.0, due - now), self._call_back)

    def stop(self, owner: Hashable) -> None:
        """C{owner} was in time, or never started."""
        if self._waiting.pop(owner, None) is None or self._waiting:
            return
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _call_back(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._waiting:
            owner, (due, call) = next(iter(self._waiting.items()))
            if due > now:
                break
            del self._waiting[owner]
            self.due = due
            call()
        if self._waiting and self._timer is None:
            due = next(iter(self._waiting.values()))[0]
            self._timer = self._clock.callLater(max(0.0, due - now), self._call_back)
