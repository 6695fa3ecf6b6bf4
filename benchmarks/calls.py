"""How many calls of Python and C functions a message takes, or a session of KumoProxy, and how
much CPU at least.

Nothing of it needs a network, and nobody else on the machine can change the number of calls: the
same version of Python gives the same number at every run. So it shows what a change has saved, or
spent again, where times are noise.
"""

from __future__ import annotations

import argparse
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.calls_in import DIALOGUES, WayIn
from benchmarks.calls_out import LOADS, WayOut
from benchmarks.calls_proxy import REQUESTS, WayThroughProxy
from benchmarks.counting import Way, cost


def ways(directory: Path, size: int) -> Iterator[Way]:
    """Everything that is measured, one after the other."""
    for number, dialogue in enumerate(DIALOGUES):
        yield WayIn(directory / f"in-{number}", dialogue, size)
    for number, load in enumerate(LOADS):
        yield WayOut(directory / f"out-{number}", load, size)
    if hasattr(select, "epoll"):
        for name in REQUESTS:
            yield WayThroughProxy(name)


def main() -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("--size", type=int, default=5000, help="octets of a message's body")
    parser.add_argument("--rounds", type=int, default=100, help="rounds that are timed")
    parser.add_argument("--only", default="", help="the ways whose names begin so")
    options = parser.parse_args()
    click.echo(f"{'for each message':44} {'calls':>8} {'CPU, us':>8}")
    with tempfile.TemporaryDirectory() as directory:
        for way in ways(Path(directory), options.size):
            if way.name.startswith(options.only):
                found = cost(way, options.rounds)
                click.echo(f"{way.name:44} {found.calls:8.1f} {found.least:8.1f}")


if __name__ == "__main__":
    main()
