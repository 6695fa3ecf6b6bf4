"""The truth about a node's limits: who holds which places, who waits for one, what was admitted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import attrs
from twisted.internet.defer import Deferred
from zope.interface import implementer

from kumotwist.interfaces import ILimits, IPermit
from kumotwist.limits.rates import RateTable
from kumotwist.settings.types import Rate

__all__ = ["LimitTable", "Permit"]


@attrs.define(eq=False)
class _Request:
    """Somebody who waits.

    @ivar limits: what is wanted.
    @ivar on_contest: see L{ILimits}.
    @ivar answer: fires with the permit.
    @ivar waits_for: the name that was full when it was looked at last.
    """

    limits: Mapping[str, int]
    on_contest: Callable[[], None] | None
    answer: Deferred[Permit] = attrs.field(init=False)
    waits_for: str = ""


@attrs.define
class _Place:
    """What is known under one name, as long as anybody holds a place or waits for one.

    @ivar limit: the limit, as it was told last.
    """

    limit: int
    holders: OrderedDict[Permit, None] = attrs.field(factory=OrderedDict)
    waiting: OrderedDict[_Request, None] = attrs.field(factory=OrderedDict)


@implementer(IPermit)
class Permit:
    """Places that were given, one under each name; see L{IPermit}."""

    __slots__ = ("_names", "_on_contest", "_table")

    def __init__(
        self, table: LimitTable, names: tuple[str, ...], on_contest: Callable[[], None] | None
    ) -> None:
        self._table: LimitTable | None = table
        self._names = names
        self._on_contest = on_contest

    @property
    def contested(self) -> bool:
        """Whether somebody waits for one of the places."""
        table = self._table
        return table is not None and table.waiting > 0 and any(map(table.is_contested, self._names))

    def tell(self) -> None:
        """Somebody has begun to wait."""
        if self._on_contest is not None:
            self._on_contest()

    def release(self) -> None:
        """Give the places back; once is enough, twice does no harm."""
        table, self._table = self._table, None
        if table is not None:
            table.take_back(self, self._names)


@implementer(ILimits)
class LimitTable:
    """Limits within one process; the answers are there at once. See L{ILimits}.

    @ivar waiting: how many requests wait for a place.
    @param now: tells the time in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.waiting = 0
        self._places: dict[str, _Place] = {}
        self._rates = RateTable(now)

    def admit(self, name: str, rate: Rate, events: int = 1) -> float:
        """See L{ILimits} and L{RateTable.admit}."""
        return self._rates.admit(name, rate, events)

    def permit(
        self, limits: Mapping[str, int], on_contest: Callable[[], None] | None = None
    ) -> Deferred[Permit]:
        """See L{ILimits}."""
        request = _Request(limits, on_contest)
        request.answer = Deferred(lambda _: self._forget(request))
        for name, limit in limits.items():
            place = self._places.get(name)
            if place is not None and place.limit != limit:
                place.limit = limit
                self._serve(name)
        full = self._first_full(request, in_turn=True)
        if full is None:
            self._grant(request)
        else:
            self._wait(request, full)
        return request.answer

    def is_contested(self, name: str) -> bool:
        """Whether somebody waits for a place."""
        place = self._places.get(name)
        return place is not None and bool(place.waiting)

    def held(self, name: str) -> int:
        """How many places are taken."""
        place = self._places.get(name)
        return 0 if place is None else len(place.holders)

    def take_back(self, permit: Permit, names: tuple[str, ...]) -> None:
        """A permit is over; those who wait are served in their order."""
        for name in names:
            self._places[name].holders.pop(permit)
        for name in names:
            if name in self._places:
                self._serve(name)

    def _first_full(self, request: _Request, in_turn: bool) -> str | None:
        """The first name under which there is no place for a request.

        @param in_turn: whether others who wait come first.
        """
        for name in request.limits:
            place = self._places.get(name)
            if place is not None and (
                len(place.holders) >= place.limit or (in_turn and place.waiting)
            ):
                return name
        return None

    def _wait(self, request: _Request, name: str) -> None:
        place = self._places[name]
        request.waits_for = name
        place.waiting[request] = None
        self.waiting += 1
        if len(place.waiting) == 1:
            for permit in list(place.holders):
                permit.tell()

    def _grant(self, request: _Request) -> None:
        permit = Permit(self, tuple(request.limits), request.on_contest)
        for name, limit in request.limits.items():
            self._places.setdefault(name, _Place(limit)).holders[permit] = None
        request.answer.callback(permit)

    def _serve(self, name: str) -> None:
        """There may be room under a name: look at those who wait for it, first come first."""
        place = self._places[name]
        while place.waiting and len(place.holders) < place.limit:
            request, _ = place.waiting.popitem(last=False)
            self.waiting -= 1
            request.waits_for = ""
            full = self._first_full(request, in_turn=False)
            if full is None:
                self._grant(request)
            else:
                self._wait(request, full)
        self._tidy(name)

    def _forget(self, request: _Request) -> None:
        """A request was cancelled."""
        name = request.waits_for
        if name:
            self._places[name].waiting.pop(request)
            self.waiting -= 1
            self._tidy(name)

    def _tidy(self, name: str) -> None:
        place = self._places.get(name)
        if place is not None and not place.holders and not place.waiting:
            # Whoever limits the number of connections to a million sites pays for those in use.
            del self._places[name]
