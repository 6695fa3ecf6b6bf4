"""Every question, one after the other, into one file and one page of tables; C{make bench-all}.

For a machine that does nothing else meanwhile: about 20 minutes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import proxy, relay

__all__ = ["main"]

_OURS = "kumo-epoll"
_ALL = "kumo-epoll,kumotwist,postfix,slimta,haraka"
_TWO = "kumo-epoll,postfix"

#: By question: the relays, and the messages of a round.
_PLAN: dict[str, tuple[str, int]] = {
    "start": (_OURS, 0),
    "reused": (_ALL, 2000),
    "single": (_ALL, 1000),
    "large": (_TWO, 5000),
    "workers": (_TWO, 1000),
    "detour": (_OURS, 500),
    "tls": (_TWO, 1000),
    "idle": ("kumo-epoll,postfix,slimta", 0),
    "latency": (_TWO, 1000),
    "scaling": (_OURS, 600),
    "poisoned": (_OURS, 0),
    "million": (_OURS, 600),
}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.everything", description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"of {', '.join([*_PLAN, 'proxy'])}")
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--scale", type=float, default=1.0, help="of the messages, default 1")
    parser.add_argument("--json", type=Path, default=Path("var/bench-all.json"))
    parser.add_argument("--markdown", type=Path, default=Path("var/bench-all.md"))
    return parser.parse_args(arguments)


def _ask(name: str, options: argparse.Namespace) -> tuple[str, dict[str, Any], int]:
    """Answer a question.

    @return: its tables in Markdown, its facts, and how much failed.
    """
    if name == "proxy":
        own = ["--rounds", str(options.rounds), "--seconds", str(2 * options.scale)]
        table, facts = proxy.ask(proxy.options_of(own))
        sys.stdout.write(f"{table}\n")
        return f"```\n{table}```\n", facts, 0
    relays, messages = _PLAN[name]
    own = ["--relays", relays, "--rounds", str(options.rounds)]
    own += ["--messages", str(max(100, round(messages * options.scale)))]
    own += ["--waiting", str(max(2000, round(1_000_000 * options.scale)))]
    groups = relay.ask(name, relay.options_of(own))
    facts = {group.title: group.facts() for group in groups}
    failures = sum(group.failures for group in groups)
    return "\n".join(group.markdown() for group in groups), facts, failures


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables, write both files after each question.

    @raise SystemExit: something failed that should have been measured.
    """
    options = _options(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    known = [*_PLAN, "proxy"]
    unknown = [name for name in options.questions if name not in known]
    if unknown:
        raise SystemExit(f"{unknown[0]} is not one of {', '.join(known)}")
    now = datetime.datetime.now(datetime.UTC)
    found: dict[str, Any] = {"when": now.isoformat(timespec="seconds"), **relay.facts()}
    machine = ", ".join(f"{key} {value}" for key, value in found.items())
    page = [f"{machine}, {options.rounds} rounds.\n"]
    failed: list[str] = []
    for name in options.questions or known:
        begun = time.monotonic()
        try:
            tables, facts, failures = _ask(name, options)
        except (RuntimeError, OSError) as error:
            tables, facts, failures = f"Failed: {error}\n", {"failed": str(error)}, 1
        if failures:
            failed.append(name)
        took = time.monotonic() - begun
        sys.stderr.write(f"{name}: {took:.0f} s\n")
        found[name] = {"seconds": took, **facts}
        page.append(f"### {name}\n\n{tables}")
        for path, text in (
            (options.json, json.dumps(found, indent=1) + "\n"),
            (options.markdown, "\n".join(page)),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    sys.stderr.write(f"tables: {options.markdown}; every round: {options.json}\n")
    if failed:
        raise SystemExit(f"not everything could be measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
