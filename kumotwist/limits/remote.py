"""Limits that another process keeps: what a worker asks, and what its supervisor answers.

Both ends exchange small lists, which a channel carries: C{["ask", ID, {NAME: LIMIT}]},
C{["cancel", ID]}, C{["release", ID]} and C{["admit", ID, NAME, [EVENTS, PERIOD, BURST], NUMBER]}
one way, C{["granted", ID]}, C{["contested", ID]} and C{["admitted", ID, SECONDS]} the other.
A worker that dies gives back what it held: its L{Lender} is closed with its channel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from zope.interface import implementer

from kumotwist.interfaces import ILimits, IPermit
from kumotwist.limits.table import LimitTable, Permit
from kumotwist.settings.types import Rate

__all__ = ["Lender", "RemoteLimits"]

Send = Callable[[list[Any]], None]
#: Names and their limits: what places are asked for by.
_Key = tuple[tuple[str, int], ...]

#: Seconds that places are kept after they were used, if nobody waits for them: who makes one
#: connection after the other asks once, not for each.
KEEPING = 1.0


class _Lease:
    """Places that a supervisor gave, for one permit after the other.

    @ivar number: what they were asked for by.
    @ivar contested: whether somebody has waited for one of them since. It is not taken back when
        they have gone elsewhere: to end a connection too early does no harm.
    @ivar on_contest: of who uses them now.
    @ivar since: when they were used last.
    """

    __slots__ = ("contested", "key", "number", "on_contest", "since")

    def __init__(self, number: int, key: _Key) -> None:
        self.number = number
        self.key = key
        self.contested = False
        self.on_contest: Callable[[], None] | None = None
        self.since = 0.0


@implementer(IPermit)
class _Borrowed:
    """One use of a lease; see L{IPermit}."""

    __slots__ = ("_give_back", "_lease")

    def __init__(self, lease: _Lease, give_back: Callable[[_Lease], None]) -> None:
        self._lease = lease
        self._give_back: Callable[[_Lease], None] | None = give_back

    @property
    def contested(self) -> bool:
        """Whether somebody waits for one of the places."""
        return self._lease.contested

    def release(self) -> None:
        """Give the places back; once is enough, twice does no harm."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back(self._lease)


@implementer(ILimits)
class RemoteLimits:
    """The worker's end: what is not at hand comes from the supervisor. See L{ILimits}.

    Places that were used are kept for a moment, for the next connection of the same kind; they go
    back as soon as anybody waits for them.

    @param clock: says when places have been kept for long enough.
    @param send: carries a question to the L{Lender}.
    """

    def __init__(self, clock: Any, send: Send) -> None:
        self._clock = clock
        self._send = send
        self._ids = count(1)
        self._asked: dict[int, tuple[Deferred[_Borrowed], Callable[[], None] | None, _Key]] = {}
        self._leases: dict[int, _Lease] = {}
        # Those that nobody uses, by number, the last used one last.
        self._kept: dict[_Key, dict[int, _Lease]] = {}
        self._tidying: Any = None
        self._rates: dict[int, Deferred[float]] = {}

    def permit(
        self, limits: Mapping[str, int], on_contest: Callable[[], None] | None = None
    ) -> Deferred[_Borrowed]:
        """See L{ILimits}."""
        key = tuple(limits.items())
        kept = self._kept.get(key)
        if kept:
            _, lease = kept.popitem()
            return succeed(self._use(lease, on_contest))
        number = next(self._ids)

        def cancel(_: Deferred[_Borrowed]) -> None:
            del self._asked[number]
            self._send(["cancel", number])

        answer: Deferred[_Borrowed] = Deferred(cancel)
        self._asked[number] = (answer, on_contest, key)
        self._send(["ask", number, dict(limits)])
        return answer

    def admit(self, name: str, rate: Rate, events: int = 1) -> Deferred[float]:
        """See L{ILimits}."""
        number = next(self._ids)

        def cancel(_: Deferred[float]) -> None:
            self._rates.pop(number, None)

        answer: Deferred[float] = Deferred(cancel)
        self._rates[number] = answer
        self._send(["admit", number, name, [rate.events, rate.period, rate.burst], events])
        return answer

    def received(self, message: list[Any]) -> None:
        """The supervisor has answered."""
        kind, number, *rest = message
        if kind == "granted":
            asked = self._asked.pop(number, None)
            if asked is not None:  # else it was cancelled, and the supervisor knows by now
                answer, on_contest, key = asked
                lease = self._leases[number] = _Lease(number, key)
                answer.callback(self._use(lease, on_contest))
        elif kind == "contested":
            self._contested(number)
        elif kind == "admitted":
            waiting = self._rates.pop(number, None)
            if waiting is not None:
                waiting.callback(rest[0])

    def _use(self, lease: _Lease, on_contest: Callable[[], None] | None) -> _Borrowed:
        lease.on_contest = on_contest
        return _Borrowed(lease, self._no_longer_used)

    def _contested(self, number: int) -> None:
        """Somebody waits for places that are lent to this process."""
        lease = self._leases.get(number)
        if lease is None:
            return
        lease.contested = True
        if self._kept.get(lease.key, {}).pop(number, None) is not None:
            self._give_back(lease)
        elif lease.on_contest is not None:
            lease.on_contest()

    def _no_longer_used(self, lease: _Lease) -> None:
        lease.on_contest = None
        if lease.contested:
            self._give_back(lease)
            return
        lease.since = self._clock.seconds()
        self._kept.setdefault(lease.key, {})[lease.number] = lease
        if self._tidying is None:
            self._tidying = self._clock.callLater(KEEPING, self._tidy)

    def _tidy(self) -> None:
        """Give back what has not been used for a while."""
        self._tidying = None
        latest = self._clock.seconds() - KEEPING
        for key, kept in list(self._kept.items()):
            for number, lease in list(kept.items()):
                if lease.since > latest:
                    break
                del kept[number]
                self._give_back(lease)
            if not kept:
                del self._kept[key]
        if self._kept:
            self._tidying = self._clock.callLater(KEEPING, self._tidy)

    def _give_back(self, lease: _Lease) -> None:
        del self._leases[lease.number]
        self._send(["release", lease.number])


class Lender:
    """The supervisor's end of one worker's L{RemoteLimits}.

    @param table: the truth about the node's limits.
    @param send: carries an answer to the worker.
    """

    def __init__(self, table: LimitTable, send: Send) -> None:
        self._table = table
        self._send: Send | None = send
        self._asked: dict[int, Deferred[Permit]] = {}
        self._lent: dict[int, Permit] = {}

    def received(self, message: list[Any]) -> None:
        """The worker asks for something, or gives something back."""
        kind, number, *rest = message
        if kind == "ask":
            self._ask(number, rest[0])
        elif kind == "admit":
            name, rate, events = rest
            self._answer(["admitted", number, self._table.admit(name, Rate(*rate), events)])
        else:  # "release", or "cancel", which may have crossed the answer
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked.cancel()
            elif number in self._lent:
                self._lent.pop(number).release()

    def _ask(self, number: int, limits: Mapping[str, int]) -> None:
        asking = self._table.permit(limits, lambda: self._answer(["contested", number]))
        self._asked[number] = asking

        def granted(permit: Permit) -> None:
            del self._asked[number]
            self._lent[number] = permit
            self._answer(["granted", number])
            if permit.contested:
                # By those who waited already, and are not heard of again.
                self._answer(["contested", number])

        asking.addCallbacks(granted, lambda failure: failure.trap(CancelledError))

    def _answer(self, message: list[Any]) -> None:
        if self._send is not None:
            self._send(message)

    def close(self) -> None:
        """The worker is gone: what it holds is free, what it asked for is not wanted any more."""
        self._send = None
        asked, self._asked = self._asked, {}
        lent, self._lent = self._lent, {}
        for asking in asked.values():
            asking.cancel()
        for permit in lent.values():
            permit.release()
