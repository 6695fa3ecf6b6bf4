"""Rows of figures that are compared with each other: how they are gathered and shown."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

__all__ = ["Figures", "Group", "take_turns"]

Figures = dict[str, float]

#: What is shown, by key: heading, unit, format. A group has those columns that it has figures for.
_COLUMNS = {
    "rate": ("messages/s", 1.0, "{:,.0f}"),
    "cpu": ("ms CPU each", 1e3, "{:.3f}"),
    "rss": ("RSS MB", 1e-6, "{:,.0f}"),
    "p50": ("p50 ms", 1e3, "{:,.1f}"),
    "p99": ("p99 ms", 1e3, "{:,.1f}"),
    "listening": ("listens, s", 1.0, "{:.2f}"),
    "ready": ("takes mail, s", 1.0, "{:.2f}"),
    "accepted": ("first 250, s", 1.0, "{:.2f}"),
    "delivered": ("first delivered, s", 1.0, "{:.2f}"),
    "known": ("all known, s", 1.0, "{:.2f}"),
    "used": ("CPU s", 1.0, "{:.2f}"),
    "octets": ("octets each", 1.0, "{:,.0f}"),
}
#: Of these there are ratios to the row that is the base.
_RATIOS = ("rate", "cpu")
#: Of these the best is shown beside the median: it is the one that other work has disturbed least.
_BEST = ("ready",)


@attrs.define
class Group:
    """A table.

    @ivar title: what it is about.
    @ivar base: the row that the ratios are to.
    @ivar rounds: the figures of each round, by row.
    @ivar missing: what could not be measured, and why.
    @ivar failures: how many of those should have been.
    """

    title: str
    base: str
    rounds: dict[str, list[Figures]] = attrs.field(factory=dict)
    missing: dict[str, str] = attrs.field(factory=dict)
    failures: int = 0

    def add(self, name: str, figures: Figures, when: str) -> None:
        """A row has figures of one more round."""
        self.rounds.setdefault(name, []).append(figures)
        words = ", ".join(f"{key} {value:.6g}" for key, value in figures.items())
        sys.stderr.write(f"{self.title}: {when}: {name}: {words}\n")

    def miss(self, name: str, why: str, *, failed: bool = True) -> None:
        """A row cannot be measured, or not any further.

        @param failed: whether it should have been: it is installed.
        """
        self.missing[name] = why
        self.failures += failed
        sys.stderr.write(f"{self.title}: {name}: NOT MEASURED: {why}\n")

    def medians(self) -> dict[str, Figures]:
        """By row."""
        return {
            name: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for name, found in self.rounds.items()
        }

    def ratios(self) -> dict[str, Figures]:
        """By row: the median of the ratios to the base that each round has for itself.

        What disturbs a machine for longer than a round disturbs both alike.
        """
        base = self.rounds.get(self.base, [])
        found: dict[str, Figures] = {}
        for name, rounds in self.rounds.items():
            pairs = list(zip(rounds, base, strict=False))
            for key in _RATIOS:
                if pairs and all(key in one and one[key] > 0 for pair in pairs for one in pair):
                    ratio = statistics.median(own[key] / other[key] for own, other in pairs)
                    found.setdefault(name, {})[key] = ratio
        return found

    def _cells(self) -> list[list[str]]:
        medians, ratios = self.medians(), self.ratios()
        shown = [key for key in _COLUMNS if any(key in row for row in medians.values())]
        compared = [key for key in _RATIOS if any(key in row for row in ratios.values())]
        best = [key for key in _BEST if key in shown]
        headings = [_COLUMNS[key][0] for key in shown] + [f"best: {_COLUMNS[k][0]}" for k in best]
        lines = [[self.title, *headings, *(f"{key} : {self.base}" for key in compared)]]
        for name, row in medians.items():
            cells = [_cell(key, row) for key in shown]
            for key in best:
                cells.append(_cell(key, {key: min(one[key] for one in self.rounds[name])}))
            for key in compared:
                ratio = ratios.get(name, {}).get(key)
                cells.append("" if ratio is None else f"{ratio:.2f}")
            lines.append([name, *cells])
        return lines

    def text(self) -> str:
        """The table for a terminal."""
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        rows = [
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            )
            for line in lines
        ]
        return "\n".join([*rows, *self._notes()]) + "\n"

    def markdown(self) -> str:
        """The table for documentation."""
        heading, *lines = self._cells()
        rows = [heading, ["---"] * len(heading), *lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join([table, *self._notes()]) + "\n"

    def _notes(self) -> list[str]:
        return [f"Not measured: {name}: {why}" for name, why in self.missing.items()]

    def facts(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "base": self.base,
            "medians": self.medians(),
            "ratios": self.ratios(),
            "missing": self.missing,
            "rounds": self.rounds,
        }


def _cell(key: str, row: Mapping[str, float]) -> str:
    _, unit, form = _COLUMNS[key]
    return form.format(row[key] * unit) if key in row else ""


def take_turns(
    rounds: int,
    cases: Sequence[tuple[Group, str, Callable[[], Figures]]],
    warm_up: bool = False,
) -> None:
    """Measure rows of one or several groups round by round, every second round backwards.

    A row that fails is named, and left out from then on.

    @param cases: what to measure: the group, the row's name, and how.
    @param warm_up: whether a round comes first that does not count.
    """
    for number in range(0 if warm_up else 1, rounds + 1):
        for group, name, measure in cases if number % 2 else reversed(cases):
            if name in group.missing:
                continue
            try:
                figures = measure()
            except (RuntimeError, OSError) as error:
                group.miss(name, f"{type(error).__name__}: {error}")
                continue
            if number:
                group.add(name, figures, f"round {number} of {rounds}")
