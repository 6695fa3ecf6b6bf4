"""Weighted rotation through the sources of a pool.

Every entry of weight C{w} has C{w} deadlines in a cycle, evenly spread: C{1/w}, C{2/w} … C{1}.
Picking by the earliest deadline interleaves the entries smoothly, and a cycle has exactly as many
picks as the sum of the weights, so that the sequence is periodic: B{any} run of that many picks
holds each entry exactly as often as its weight says. A pick costs O(log entries), whatever the
weights are.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import ceil, floor, gcd, lcm, sqrt

__all__ = ["Rotation", "Rotations"]

#: How many (pool, site) rotations are remembered; the least recently used ones start afresh.
MAX_ROTATIONS = 65536

# Multiples of it fall evenly between 0 and 1, however many there are.
_GOLDEN = (sqrt(5) - 1) / 2


class Rotation:
    """The rotation of one pool for one site.

    @param entries: pairs of a source's name and its weight; a weight of 0 leaves it out.
    @param phase: with which of a cycle's picks it begins, from 0 to less than 1: all are as likely
        as each other if this is.
    """

    def __init__(self, entries: Sequence[tuple[str, int]], phase: float = 0.0) -> None:
        self._go_by(_reduced(entries))
        # Deadlines, whose they are, and the number of each among its entry's.
        self._heap: list[tuple[int, int, int]] = []
        if phase:
            self._begin_cycle(*self._turn_at(phase))

    def _go_by(self, entries: list[tuple[str, int]]) -> None:
        self._entries = entries
        # Deadlines are counted in the largest parts of a cycle that make whole numbers of them all:
        # C{_steps} has those from one of an entry to its next.
        self._parts = lcm(*(weight for _, weight in entries))
        self._steps = [self._parts // weight for _, weight in entries]

    def follow(self, entries: Sequence[tuple[str, int]]) -> None:
        """Go on with other entries: those that stay keep the turns of this cycle that they have
        left, those that are new join where the cycle is now."""
        reduced = _reduced(entries)
        if reduced == self._entries:
            return
        places: list[tuple[int, int]] = []
        if self._heap:
            now = Fraction(min(self._heap)[0], self._parts)
            taken = {name: Fraction(1) for name, _ in self._entries}
            for _, index, number in self._heap:
                name, weight = self._entries[index]
                taken[name] = Fraction(number - 1, weight)
            for index, (name, weight) in enumerate(reduced):
                stays = name in taken
                number = floor(taken[name] * weight) + 1 if stays else ceil(now * weight)
                if number <= weight:
                    places.append((index, number))
        self._go_by(reduced)
        self._heap = [(self._steps[index] * number, index, number) for index, number in places]
        heapq.heapify(self._heap)

    def pick(self, eligible: Callable[[str], bool]) -> str | None:
        """Choose the next source.

        An entry that is not eligible loses its turn; the others keep theirs.

        @param eligible: told a source's name, says whether it may be chosen now.
        @return: the name, or L{None} if no entry is eligible.
        """
        if len(self._entries) < 2:
            return next((name for name, _ in self._entries if eligible(name)), None)
        if not self._heap:
            self._begin_cycle()
        _, index, number = self._heap[0]
        name, weight = self._entries[index]
        if eligible(name):  # as nearly always
            if number < weight:
                turn = (self._steps[index] * (number + 1), index, number + 1)
                heapq.heapreplace(self._heap, turn)
            else:
                heapq.heappop(self._heap)
            return name
        return self._pick_another(eligible, name)

    def _pick_another(self, eligible: Callable[[str], bool], first: str) -> str | None:
        """Choose where the entry whose turn it is has been refused."""
        refused = {first}
        set_aside = self._next_turn(heapq.heappop(self._heap))
        chosen = None
        while chosen is None and len(refused) < len(self._entries):
            if not self._heap:
                self._begin_cycle()
                set_aside.clear()
            turn = heapq.heappop(self._heap)
            name = self._entries[turn[1]][0]
            if name in refused:
                set_aside.append(turn)
                continue
            if eligible(name):
                chosen = name
            else:
                refused.add(name)
            set_aside.extend(self._next_turn(turn))
        for turn in set_aside:
            heapq.heappush(self._heap, turn)
        return chosen

    def _next_turn(self, turn: tuple[int, int, int]) -> list[tuple[int, int, int]]:
        """The entry's next turn in this cycle, if it has one left."""
        _, index, number = turn
        weight = self._entries[index][1]
        if number == weight:
            return []
        return [(self._steps[index] * (number + 1), index, number + 1)]

    def _turn_at(self, phase: float) -> tuple[int, int]:
        """A turn of the cycle: its deadline, and the index of its entry."""
        left = int(phase * sum(weight for _, weight in self._entries))
        for index, (_, weight) in enumerate(self._entries):
            if left < weight:
                return self._steps[index] * (left + 1), index
            left -= weight
        return 0, 0

    def _begin_cycle(self, first: int = 0, whose: int = 0) -> None:
        """Begin a cycle, at its beginning or with one of its turns."""
        self._heap = []
        for index, (_, weight) in enumerate(self._entries):
            step = self._steps[index]
            number = max(1, -(-first // step))
            if (step * number, index) < (first, whose):
                number += 1
            if number <= weight:
                self._heap.append((step * number, index, number))
        heapq.heapify(self._heap)


def _reduced(entries: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The entries that have a weight, their weights reduced to the smallest numbers."""
    entries = [(name, weight) for name, weight in entries if weight > 0]
    divisor = gcd(*(weight for _, weight in entries)) or 1
    return [(name, weight // divisor) for name, weight in entries]


class Rotations:
    """A rotation per pool and site, which outlives the queues that use it.

    @param pools: the entries of every pool by its name.
    Each site's rotation begins a golden ratio of the cycle behind the one before: so few messages
    for each of many sites are shared out by the weights as well.

    @param phase: where the first one begins, see L{Rotation}. Processes that share the mail for a
        site begin anywhere, or the first source would have the first messages of all of them.
    @ivar only: the sources that are alone in their pools, by the name of the pool.
    """

    def __init__(
        self,
        pools: Mapping[str, Sequence[tuple[str, int]]],
        phase: float = 0.0,
    ) -> None:
        self._pools = pools
        self._phase = phase
        self._rotations: OrderedDict[tuple[str, str, str], Rotation] = OrderedDict()
        self._pools_of, self.only = self._by_source(), self._alone()

    def pick(
        self,
        pool: str,
        site: str,
        eligible: Callable[[str], bool],
        *,
        prefer: str = "",
        avoid: str = "",
    ) -> str | None:
        """Choose the next source of a pool for a site; see L{Rotation.pick}.

        What is chosen by preference takes nobody's turn: the picks without one are distributed
        exactly by weight, whatever comes in between. Picks that avoid a source go by the weights
        of the others.

        @param prefer: the source to choose if it is eligible.
        @param avoid: the source to choose only if no other is eligible.
        @return: L{None} also for a pool that does not exist.
        """
        if not prefer and not avoid:
            return self._rotation(pool, site).pick(eligible)
        names = self.sources(pool)
        if prefer in names and eligible(prefer):
            return prefer
        if avoid not in names:
            return self._rotation(pool, site).pick(eligible)
        chosen = self._rotation(pool, site, avoid).pick(eligible)
        if chosen is None and eligible(avoid):
            return avoid
        return chosen

    def _rotation(self, pool: str, site: str, without: str = "") -> Rotation:
        key = (pool, site, without)
        rotation = self._rotations.get(key)
        if rotation is None:
            entries = [entry for entry in self._pools.get(pool, ()) if entry[0] != without]
            rotation = self._rotations[key] = Rotation(entries, self._phase)
            self._phase = (self._phase + _GOLDEN) % 1.0
            if len(self._rotations) > MAX_ROTATIONS:
                self._rotations.popitem(last=False)
        else:
            self._rotations.move_to_end(key)
        return rotation

    def follow(self, pools: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        """Go on with other pools; what stays of them keeps its place in the rotation."""
        self._pools = pools
        self._pools_of, self.only = self._by_source(), self._alone()
        for key, rotation in list(self._rotations.items()):
            pool, _, without = key
            if pool in pools:
                rotation.follow([entry for entry in pools[pool] if entry[0] != without])
            else:
                del self._rotations[key]

    def sources(self, pool: str) -> list[str]:
        """The sources of a pool that have a weight, in the order of the configuration."""
        return [name for name, weight in self._pools.get(pool, ()) if weight > 0]

    def _by_source(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for pool in self._pools:
            for source in self.sources(pool):
                found.setdefault(source, []).append(pool)
        return found

    def _alone(self) -> dict[str, str]:
        sources = {pool: self.sources(pool) for pool in self._pools}
        return {pool: names[0] for pool, names in sources.items() if len(names) == 1}

    def pools_of(self, source: str) -> list[str]:
        """The pools in which a source has a weight."""
        return self._pools_of.get(source, [])
