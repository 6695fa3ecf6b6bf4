"""The life of messages as it happens, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.errors import KumotwistError
from kumotwist.interfaces import ITrace

__all__ = ["TooManyWatchersError", "Trace", "TraceEvent"]

#: So many may watch at once: every event is handed to each of them.
MAX_WATCHERS = 64


class TooManyWatchersError(KumotwistError):
    """Nobody more can watch."""


class TraceEvent(NamedTuple):
    """Something that happened to messages.

    @ivar time: seconds since the epoch.
    @ivar event: what: C{received}, C{queued}, C{source}, C{connected}, C{reply}, …
    @ivar message_ids: the messages that it happened to.
    @ivar facts: what else is known of it.
    """

    time: float
    event: str
    message_ids: tuple[str, ...]
    facts: dict[str, Any]


@implementer(ITrace)
class Trace:
    """Hands events to watchers and keeps none.

    @ivar watched: whether anybody watches. A plain attribute: it is read for every step of every
        message.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        """@param reactor: its C{seconds} dates the events."""
        self.watched = False
        self._reactor = reactor
        self._watchers: list[Callable[[TraceEvent], object]] = []

    def subscribe(self, watcher: Callable[[TraceEvent], object]) -> Callable[[], None]:
        """Watch from now on.

        @param watcher: is called with each event, must not block and should not raise: one that
            raises is logged and not called again.
        @return: a function that ends it; it may be called more than once.
        @raise TooManyWatchersError: if as many watch already as are allowed.
        """
        if len(self._watchers) >= MAX_WATCHERS:
            raise TooManyWatchersError(f"{MAX_WATCHERS} watch already")

        # A wrapper of its own for each subscription, so that one watcher can subscribe twice.
        def call(event: TraceEvent) -> None:
            watcher(event)

        self._watchers.append(call)
        self.watched = True
        return lambda: self._unsubscribe(call)

    def _unsubscribe(self, call: Callable[[TraceEvent], object]) -> None:
        if call in self._watchers:
            self._watchers.remove(call)
            self.watched = bool(self._watchers)

    def emit(self, event: str, message_ids: Sequence[str], **facts: Any) -> None:
        """Tell the watchers."""
        if not self._watchers:
            return
        self.relay(TraceEvent(self._reactor.seconds(), event, tuple(message_ids), facts))

    def relay(self, happened: TraceEvent) -> None:
        """Tell the watchers of something that was noted elsewhere."""
        for call in tuple(self._watchers):
            try:
                call(happened)
            except Exception:
                self._log.failure("a watcher failed and is dropped")
                self._unsubscribe(call)
