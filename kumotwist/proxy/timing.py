"""The time limits of a session: at no time is it without one.

Nearly all sessions are over within seconds. So a session begins with one look at it after a few
seconds (C{SharedByProxy.early}), and what happens before costs nothing more than a note of when it
happened; what is left then gets the limit of the phase that it is in.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol

from kumotwist.proxy.deadlines import Deadlines
from kumotwist.proxy.outgoing import IOutgoing
from kumotwist.proxy.relay import Relay
from kumotwist.proxy.shared import SharedByProxy

__all__ = ["TimedSession"]


class TimedSession(Protocol):
    """What of a session is about time; L{ProxySession<kumotwist.proxy.session.ProxySession>} is
    the rest of it."""

    _shared: SharedByProxy
    _relay: Relay | None = None
    _outgoing: IOutgoing | None = None
    _connecting = False
    _connecting_since = 0.0
    _limit: Deadlines | None = None
    _deadline: IDelayedCall | None = None

    # -- what the rest of it has -------------------------------------------------------------------

    def abort(self, outcome: str) -> None:
        """End the session now, whatever it does; C{outcome} says why."""
        raise NotImplementedError

    def _connect_timed_out(self) -> None:
        """The destination has not answered in time."""
        raise NotImplementedError

    # -- the phases --------------------------------------------------------------------------------

    def _give_time(
        self, limit: Deadlines, call: Callable[[], None], since: float | None = None
    ) -> None:
        """Start the time of another phase; that of the last one is over."""
        self._stop_deadline()
        if self._limit is not limit:
            if self._limit is not None:
                self._limit.stop(self)
            self._limit = limit
        limit.start(self, call, since)

    def _stop_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def _time_begins(self) -> None:
        """The client is connected."""
        self._limit = early = self._shared.early
        early.start(self, self._first_look)

    def _time_to_connect(self) -> None:
        """The destination is being connected from now on."""
        shared = self._shared
        self._connecting = True
        if self._limit is shared.early:
            self._connecting_since = shared.clock.seconds()
        else:
            self._give_time(shared.phases, self._connect_timed_out)

    def _first_look(self) -> None:
        """It is no short session: whatever it does has its own limit from now on."""
        shared = self._shared
        if self._relay is not None:
            self._lasts(shared.early.due)
        elif self._connecting:
            due = self._connecting_since + shared.settings.timeout
            self._limit = None
            self._deadline = shared.clock.callLater(
                max(0.0, due - shared.clock.seconds()), self._connect_timed_out
            )
        else:
            self._give_time(shared.rest, self._request_timed_out, shared.early.due)

    def _request_timed_out(self) -> None:
        self.abort("timeout: no request in time")

    def _lasts(self, since: float | None = None) -> None:
        """See that a stream that lasts ends if a peer vanishes or nothing moves."""
        assert self._outgoing is not None
        self._outgoing.keep_alive()
        self._give_time(self._shared.silence, self._check_idle, since)

    def _check_idle(self) -> None:
        assert self._relay is not None
        clock = self._shared.clock
        limit = self._shared.settings.idle_timeout
        remaining = self._relay.last_activity + limit - clock.seconds()
        if remaining <= 0:
            self._relay.abort("idle timeout")
        else:
            self._deadline = clock.callLater(remaining, self._check_idle)

    def _parted(self) -> None:
        """One connection is gone; the other one has C{timeout} to take what it left."""
        self._give_time(self._shared.phases, self._leftovers_timed_out)

    def _leftovers_timed_out(self) -> None:
        self.abort("timeout: what the other side had left was not taken")
