"""Whose look-up is next, where more are wanted than may be under way.

A name server that is silent keeps a look-up for its whole time, so whoever has mail for a thousand
such domains would keep everybody's first message waiting. Hence three rules: a question that
failed lately comes after those that did not; those who ask take turns; and neither one of them
nor all repetitions together may have more than half of the places. Each step costs the same
however many wait.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred

__all__ = ["Ticket", "Turns"]

_Work = Callable[[], Deferred[Any]]


@attrs.define(eq=False)
class Ticket:
    """A look-up that is wanted.

    @ivar late: whether it failed lately.
    @ivar result: fires as the look-up does. Cancelling it ends the look-up, or the wait for it.
    @ivar waits_for: those in whose line it stands; empty once it has begun.
    """

    late: bool
    work: _Work
    result: Deferred[Any]
    waits_for: list[str] = attrs.field(factory=list)
    running: Deferred[Any] | None = None


class Turns:
    """Places for look-ups under way, and the lines of those that wait for one.

    @param places: at least 2.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._share = places // 2
        self._under_way = 0
        self._late_under_way = 0
        self._held: Counter[str] = Counter()
        self._beginning = False
        self._punctual: _Line = OrderedDict()
        self._late: _Line = OrderedDict()

    def take(self, work: _Work, whose: str, *, late: bool) -> Ticket:
        """Do something when its turn has come, which may be at once.

        @param work: begins the look-up.
        @param whose: who takes turns with others.
        @param late: whether the same failed lately.
        """
        result: Deferred[Any] = Deferred(lambda _: self._cancelled(ticket))
        ticket = Ticket(late, work, result)
        self.join(ticket, whose)
        return ticket

    def join(self, ticket: Ticket, whose: str) -> None:
        """Somebody else waits for the same; it begins at whoever's turn comes first."""
        if ticket.running is None and not ticket.result.called and whose not in ticket.waits_for:
            ticket.waits_for.append(whose)
            self._line(ticket).setdefault(whose, OrderedDict())[ticket] = None
            self._begin()

    def _line(self, ticket: Ticket) -> _Line:
        return self._late if ticket.late else self._punctual

    def _leave(self, ticket: Ticket) -> None:
        line = self._line(ticket)
        for whose in ticket.waits_for:
            del line[whose][ticket]
            if not line[whose]:
                del line[whose]
        ticket.waits_for.clear()

    def _begin(self) -> None:
        if self._beginning:
            return  # one ended at once: a loop, not a recursion
        self._beginning = True
        while self._under_way < self._places:
            found = self._next(self._punctual)
            if found is None and self._late_under_way < self._share:
                found = self._next(self._late)
            if found is None:
                break
            self._run(*found)
        self._beginning = False

    def _next(self, line: _Line) -> tuple[str, Ticket] | None:
        # No more than two can have half of the places: the loop is short.
        for whose, tickets in line.items():
            if self._held[whose] < self._share:
                line.move_to_end(whose)
                return whose, next(iter(tickets))
        return None

    def _run(self, whose: str, ticket: Ticket) -> None:
        self._leave(ticket)
        self._under_way += 1
        self._late_under_way += ticket.late
        self._held[whose] += 1
        ticket.running = maybeDeferred(ticket.work)
        ticket.running.addBoth(self._ended, whose, ticket)

    def _ended(self, outcome: Any, whose: str, ticket: Ticket) -> None:
        self._under_way -= 1
        self._late_under_way -= ticket.late
        self._held[whose] -= 1
        if not self._held[whose]:
            del self._held[whose]
        if not ticket.result.called:
            ticket.result.callback(outcome)
        self._begin()

    def _cancelled(self, ticket: Ticket) -> None:
        if ticket.running is not None:
            ticket.running.cancel()
        else:
            self._leave(ticket)


_Line = OrderedDict[str, OrderedDict[Ticket, None]]
