"""The numbers of several processes as one page."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["add_up", "only_counters"]

_TYPE = re.compile(r"# TYPE (\S+) (\S+)")


def add_up(pages: Iterable[str]) -> str:
    """Add numbers of the same name and labels, of pages in Prometheus' text format.

    What says yes or no (a name that ends in C{suspended}) is yes if it is anywhere.
    """
    order: list[str] = []
    numbers: dict[str, int] = {}
    families: dict[str, list[str]] = {}
    for page in pages:
        family: list[str] = []
        for line in page.splitlines():
            if line.startswith("#"):
                name = line.split(" ", 3)[2]
                if name not in families:
                    families[name] = []
                    order.append(name)
                family = families[name]
                if line not in family and line.startswith("# "):
                    family.append(line)
                continue
            series, _, number = line.rpartition(" ")
            if series not in numbers:
                family.append(series)
                numbers[series] = 0
            if name.endswith("suspended"):
                numbers[series] = max(numbers[series], int(number))
            else:
                numbers[series] += int(number)
    lines = []
    for name in order:
        for line in families[name]:
            lines.append(line if line.startswith("#") else f"{line} {numbers[line]}")
    return "".join(f"{line}\n" for line in lines)


def only_counters(page: str) -> str:
    """What of a page counts from a start: of a process that is gone that remains, while its queues
    and connections are gone with it."""
    kinds = {
        match.group(1): match.group(2) for match in map(_TYPE.match, page.splitlines()) if match
    }
    lines = []
    for line in page.splitlines():
        name = line.split(" ", 3)[2] if line.startswith("#") else re.split(r"[{ ]", line)[0]
        if kinds.get(name) == "counter":
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)
