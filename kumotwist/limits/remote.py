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

from twisted.internet.defer import CancelledError, Deferred
from zope.interface import implementer

from kumotwist.interfaces import ILimits, IPermit
from kumotwist.limits.table import LimitTable, Permit
from kumotwist.settings.types import Rate

__all__ = ["Lender", "RemoteLimits"]

Send = Callable[[list[Any]], None]


@implementer(IPermit)
class _Borrowed:
    """Places that a supervisor gave; see L{IPermit}.

    @ivar contested: whether somebody has waited for one of them since. It is not taken back when
        they have gone elsewhere: to end a connection too early does no harm.
    """

    __slots__ = ("_give_back", "contested", "on_contest")

    def __init__(
        self, give_back: Callable[[], None], on_contest: Callable[[], None] | None
    ) -> None:
        self.contested = False
        self.on_contest = on_contest
        self._give_back: Callable[[], None] | None = give_back

    def release(self) -> None:
        """Give the places back; once is enough, twice does no harm."""
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


@implementer(ILimits)
class RemoteLimits:
    """The worker's end: every answer comes from the supervisor. See L{ILimits}.

    @param send: carries a question to the L{Lender}.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ids = count(1)
        self._asked: dict[int, tuple[Deferred[_Borrowed], Callable[[], None] | None]] = {}
        self._held: dict[int, _Borrowed] = {}
        self._rates: dict[int, Deferred[float]] = {}

    def permit(
        self, limits: Mapping[str, int], on_contest: Callable[[], None] | None = None
    ) -> Deferred[_Borrowed]:
        """See L{ILimits}."""
        number = next(self._ids)

        def cancel(_: Deferred[_Borrowed]) -> None:
            del self._asked[number]
            self._send(["cancel", number])

        answer: Deferred[_Borrowed] = Deferred(cancel)
        self._asked[number] = (answer, on_contest)
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
                answer, on_contest = asked
                permit = _Borrowed(lambda: self._give_back(number), on_contest)
                self._held[number] = permit
                answer.callback(permit)
        elif kind == "contested":
            held = self._held.get(number)
            if held is not None:
                held.contested = True
                if held.on_contest is not None:
                    held.on_contest()
        elif kind == "admitted":
            waiting = self._rates.pop(number, None)
            if waiting is not None:
                waiting.callback(rest[0])

    def _give_back(self, number: int) -> None:
        del self._held[number]
        self._send(["release", number])


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
