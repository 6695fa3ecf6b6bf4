"""KumoProxy beside Dante and microsocks: new connections and bulk; C{make bench-proxy}.

All servers run for the whole time; the rounds take turns among them, with the same client, and the
table has the medians. CPU is that of all processes of a server. A connection is CONNECT alone, as
all of them can do it; BIND and CONNECT, as an MTA asks KumoProxy, is a line of its own.

Load and servers share the machine, so the table also has what the load takes for a connection, and
a line of the load without any server: nothing can be quicker than that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.proxy_load import bulk_rate, bulk_server
from benchmarks.proxy_servers import running_servers
from benchmarks.proxy_sessions import connection_rate
from benchmarks.server import Server

_SERVERS = ("kumoproxy", "dante", "microsocks")
_NONE = "no server"

_COLUMNS = (
    ("connections/s", "connections_per_second", 1.0, "{:,.0f}"),
    ("µs CPU each", "cpu_per_connection", 1e6, "{:,.0f}"),
    ("load's µs", "load_per_connection", 1e6, "{:,.0f}"),
    ("1 stream MB/s", "bulk_1", 1e-6, "{:,.0f}"),
    ("CPU s/GB", "cpu_per_octet_1", 1e9, "{:.2f}"),
    ("50 streams MB/s", "bulk_50", 1e-6, "{:,.0f}"),
    ("CPU s/GB", "cpu_per_octet_50", 1e9, "{:.2f}"),
    ("failed", "failed", 1.0, "{:,.0f}"),
)

Figures = dict[str, float]


def _connections(server: Server | None, options: argparse.Namespace, bind: bool = False) -> Figures:
    """New connections for one round, through a server or through none."""
    before = server.cpu() if server else 0.0
    load = connection_rate(server and server.port, options.seconds, options.clients, bind)
    time.sleep(0.1)  # what is left to do after the last one is its work too
    made = max(1, load.made)
    return {
        "connections_per_second": load.made / load.seconds,
        "cpu_per_connection": (server.cpu() - before) / made if server else 0.0,
        "load_per_connection": load.cpu / made,
        "failed": load.failed,
    }


def _measure(server: Server | None, bulk: int, options: argparse.Namespace) -> Figures:
    """One round of one server, or of none."""
    figures = _connections(server, options)
    if server and server.name == "kumoproxy":
        with_bind = _connections(server, options, bind=True)
        figures |= {f"bind_{key}": value for key, value in with_bind.items()}
        figures["failed"] += with_bind["failed"]
    for streams in (1, 50):
        time.sleep(0.2)
        before = server.cpu() if server else 0.0
        load = bulk_rate(server and server.port, bulk, options.seconds, streams)
        used = server.cpu() - before if server else 0.0
        figures[f"bulk_{streams}"] = load.rate
        figures[f"cpu_per_octet_{streams}"] = used / max(1, load.octets)
    time.sleep(0.2)
    return figures


def _table(medians: dict[str, Figures]) -> str:
    rows = [["", *(title for title, *_ in _COLUMNS)]]
    for name, figures in medians.items():
        cells = [form.format(figures[key] * unit) for _, key, unit, form in _COLUMNS]
        rows.append([name, *cells])
    ours = medians.get("kumoproxy")
    for name, figures in medians.items():
        if ours is None or figures is ours or name == _NONE:
            continue
        ratios = [ours[key] / figures[key] if figures[key] else 0 for _, key, *_ in _COLUMNS[:-1]]
        rows.append([f"kumoproxy : {name}", *(f"{ratio:.2f}" for ratio in ratios), ""])
    if ours is not None:
        with_bind = [(figure, unit, form) for _, figure, unit, form in _COLUMNS[:3]]
        cells = [form.format(ours[f"bind_{key}"] * unit) for key, unit, form in with_bind]
        rows.append(["kumoproxy, BIND too", *cells, *[""] * (len(_COLUMNS) - 3)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n"
        for row in rows
    )


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.proxy", description="KumoProxy beside Dante and microsocks."
    )
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement, default 2")
    parser.add_argument("--clients", type=int, default=32, help="sessions at once, default 32")
    parser.add_argument("--servers", default=",".join(_SERVERS), help="which, with commas")
    parser.add_argument("--json", type=Path, default=Path("var/bench-proxy.json"))
    return parser.parse_args(arguments)


def ask(options: argparse.Namespace) -> tuple[str, dict[str, object]]:
    """Measure.

    @return: the table, and everything for a file.
    """
    rounds: dict[str, list[Figures]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="bench-proxy-") as directory,
        bulk_server() as bulk,
        running_servers(Path(directory), options.servers.split(",")) as servers,
    ):
        for number in range(1, options.rounds + 1):
            for server in (None, *servers):
                name = server.name if server else _NONE
                sys.stderr.write(f"round {number} of {options.rounds}: {name}\n")
                rounds.setdefault(name, []).append(_measure(server, bulk, options))
    medians = {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rounds.items()
    }
    facts: dict[str, object] = {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "seconds": options.seconds,
        "clients": options.clients,
        "medians": medians,
        "rounds": rounds,
    }
    return _table(medians), facts


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    options = options_of(arguments)
    table, facts = ask(options)
    sys.stdout.write(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    sys.stderr.write(f"every round is in {options.json}\n")


if __name__ == "__main__":
    main()
