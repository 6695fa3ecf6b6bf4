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
import signal
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.relay_load import Figures
from benchmarks.relay_peers import PEERS
from benchmarks.relay_questions import QUESTIONS, Rounds

_COLUMNS = (
    ("messages/s", "rate", 1.0, "{:,.0f}"),
    ("ms CPU each", "cpu", 1e3, "{:.3f}"),
    ("RSS MB", "rss", 1e-6, "{:,.0f}"),
    ("p50 ms", "p50", 1e3, "{:,.1f}"),
    ("p99 ms", "p99", 1e3, "{:,.1f}"),
)


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
        cells = [
            form.format(figures[key] * unit) if key in figures else ""
            for _, key, unit, form in _COLUMNS
        ]
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
    questions = ", ".join(QUESTIONS)
    parser.add_argument("questions", nargs="*", help=f"of {questions}; default: reused, single")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--messages", type=int, default=3000, help="of a round, default 3,000")
    parser.add_argument("--size", type=int, default=5120, help="octets, default 5,120")
    parser.add_argument("--senders", type=int, default=20, help="in parallel, default 20")
    parser.add_argument("--waiting", type=int, default=100_000, help="of scaling: in the spool")
    parser.add_argument(
        "--relays",
        default=",".join(PEERS),
        help="which, with commas, or directories of other checkouts of kumotwist",
    )
    parser.add_argument("--json", type=Path, default=Path("var/bench-relay.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    options = _options(arguments)
    # So that what was started is stopped also when this is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    everything: dict[str, Rounds] = {}
    for name in options.questions or ("reused", "single"):
        if name not in QUESTIONS:
            raise SystemExit(f"{name} is not one of {', '.join(QUESTIONS)}")
        ask, base = QUESTIONS[name]
        with tempfile.TemporaryDirectory(prefix="bench-relay-") as directory:
            everything[name] = ask(Path(directory), options)
        sys.stdout.write(table(name, medians(everything[name]), base) + "\n")
        sys.stdout.flush()
    facts = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "messages": options.messages,
        "size": options.size,
        "senders": options.senders,
        "medians": {name: medians(rounds) for name, rounds in everything.items()},
        "rounds": everything,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"every round is in {options.json}\n")


if __name__ == "__main__":
    main()
