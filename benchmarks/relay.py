"""kumotwist beside Postfix, Haraka and python-slimta as a relay; C{make bench-relay}.

All relays run for the whole time; the rounds take turns among them, with the same source and sink,
and the table has the medians. CPU is that of all processes of a relay. Only ratios between rows of
one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.relay_load import Figures, counting_sink, load
from benchmarks.relay_peers import PEERS, Shape, running_relays
from benchmarks.server import free_port

_COLUMNS = (
    ("messages/s", "rate", 1.0, "{:,.0f}"),
    ("ms CPU each", "cpu", 1e3, "{:.3f}"),
    ("RSS MB", "rss", 1e-6, "{:,.0f}"),
)

Rounds = dict[str, list[Figures]]


def throughput(directory: Path, options: argparse.Namespace, *, reuse: bool) -> Rounds:
    """Rounds of full load through every relay."""
    found: Rounds = {}
    port = free_port()
    shape = Shape(port, reuse=reuse)
    amount = {"size": options.size, "senders": options.senders, "reuse": reuse}
    with (
        counting_sink(port, directory) as sink,
        running_relays(directory, options.relays.split(","), shape) as relays,
    ):
        for relay in relays:
            load(relay, sink, messages=max(100, options.messages // 10), **amount)
        for number in range(1, options.rounds + 1):
            for relay in relays:
                figures = load(relay, sink, messages=options.messages, **amount)
                found.setdefault(relay.name, []).append(figures)
                sys.stderr.write(
                    f"round {number} of {options.rounds}: {relay.name}: {figures['rate']:,.0f}/s, "
                    f"{figures['cpu'] * 1e6:,.0f} µs\n"
                )
    return found


def medians(rounds: Rounds) -> dict[str, Figures]:
    """The medians of each relay's rounds."""
    return {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rounds.items()
    }


def table(title: str, rows: dict[str, Figures], base: str) -> str:
    """Medians, and the ratios to one of the rows."""
    lines = [[title, *(heading for heading, *_ in _COLUMNS), f"rate : {base}", f"CPU : {base}"]]
    compared = rows.get(base)
    for name, figures in rows.items():
        cells = [form.format(figures[key] * unit) for _, key, unit, form in _COLUMNS]
        ratios = ["", ""]
        if compared is not None:
            ratios = [f"{figures[key] / max(compared[key], 1e-9):.2f}" for key in ("rate", "cpu")]
        lines.append([name, *cells, *ratios])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        + "\n"
        for line in lines
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--messages", type=int, default=3000, help="of a round, default 3,000")
    parser.add_argument("--size", type=int, default=5120, help="octets, default 5,120")
    parser.add_argument("--senders", type=int, default=20, help="in parallel, default 20")
    parser.add_argument(
        "--relays",
        default=",".join(PEERS),
        help="which, with commas, or directories of other checkouts of kumotwist",
    )
    parser.add_argument("--modes", default="reused,single", help="connections: reused,single")
    parser.add_argument("--json", type=Path, default=Path("var/bench-relay.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    options = _options(arguments)
    everything: dict[str, Rounds] = {}
    for mode in options.modes.split(","):
        with tempfile.TemporaryDirectory(prefix="bench-relay-") as directory:
            everything[mode] = throughput(Path(directory), options, reuse=mode == "reused")
        sys.stdout.write(table(mode, medians(everything[mode]), "postfix") + "\n")
        sys.stdout.flush()
    facts = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "messages": options.messages,
        "size": options.size,
        "senders": options.senders,
        "medians": {mode: medians(rounds) for mode, rounds in everything.items()},
        "rounds": everything,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"every round is in {options.json}\n")


if __name__ == "__main__":
    main()
