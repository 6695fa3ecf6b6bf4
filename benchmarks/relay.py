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
import sys
import tempfile
from pathlib import Path

from benchmarks.relay_peers import PEERS
from benchmarks.relay_questions import QUESTIONS
from benchmarks.relay_tables import Group

__all__ = ["ask", "facts", "main", "options_of"]


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read a command line.

    @param arguments: those behind the command; L{None} for those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relay", description=__doc__)
    questions = ", ".join(QUESTIONS)
    parser.add_argument("questions", nargs="*", help=f"of {questions}; default: reused, single")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--messages", type=int, default=3000, help="of a round, default 3,000")
    parser.add_argument("--size", type=int, default=5120, help="octets, default 5,120")
    parser.add_argument("--senders", type=int, default=20, help="in parallel, default 20")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="of million: in the spool")
    parser.add_argument(
        "--relays",
        default=",".join(PEERS),
        help="which, with commas, or directories of other checkouts of kumotwist",
    )
    parser.add_argument("--json", type=Path, default=Path("var/bench-relay.json"))
    return parser.parse_args(arguments)


def ask(name: str, options: argparse.Namespace) -> list[Group]:
    """Answer a question, and print its tables."""
    with tempfile.TemporaryDirectory(prefix="bench-relay-") as directory:
        groups = list(QUESTIONS[name](Path(directory), options))
    for group in groups:
        sys.stdout.write(f"{group.text()}\n")
    sys.stdout.flush()
    return groups


def facts() -> dict[str, object]:
    """What to know of the machine."""
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file.

    @raise SystemExit: something failed that should have been measured.
    """
    options = options_of(arguments)
    unknown = [name for name in options.questions if name not in QUESTIONS]
    if unknown:
        raise SystemExit(f"{unknown[0]} is not one of {', '.join(QUESTIONS)}")
    # So that what was started is stopped also when this is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    found: dict[str, object] = dict(facts())
    for key in ("messages", "size", "senders"):
        found[key] = getattr(options, key)
    failures = 0
    for name in options.questions or ("reused", "single"):
        groups = ask(name, options)
        failures += sum(group.failures for group in groups)
        found[name] = {group.title: group.facts() for group in groups}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"every round is in {options.json}\n")
    if failures:
        raise SystemExit(f"{failures} failed")


if __name__ == "__main__":
    main()
