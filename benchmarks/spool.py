"""A node that starts with many messages in its spool; C{make bench-spool}.

Fills a spool through its own API, starts the real node over it, and measures how soon mail is
accepted, what a queued message costs in memory, how soon those that are due are delivered while
the rest is still being handed over, and how long a client is kept waiting meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.spool import SpoolSettings, SQLiteSpool

_BATCH = 1000
_GOALS = {"accepting_seconds": 2.0, "octets_per_message": 1024.0}

_CONFIG = """\
[kumo]
hostname = mta.example.test
state_dir = {state}

[listener:in]
listen = 127.0.0.1:{port}

[pool:out]
direct = 1

[source:direct]
source_address = 127.0.0.1

[queue:default]
egress_pool = out
route = [127.0.0.1]:{sink}
"""


class _Inline:
    """Does the spool's jobs at once: while it is filled nothing else happens."""

    def submit(self, job: Any) -> Deferred[Any]:
        return execute(job)

    def stop(self) -> None:
        pass


def fill(path: str, number: int, due: int, size: int, domains: int) -> None:
    """Make a spool.

    @param number: how many messages.
    @param due: how many of them are due now; the others are in an hour and later.
    @param size: octets of a body.
    @param domains: how many destination domains they share.
    """
    clock = Clock()
    settings = SpoolSettings(path=path, durable=False, min_free_space=0)
    spool = SQLiteSpool(clock, settings, make_worker=lambda name: _Inline())
    spool.open()
    now = time.time()
    every = max(1, number // max(1, due))
    body = b"Subject: x\r\n\r\n" + b"x" * (size - 16) + b"\r\n"
    for start in range(0, number, _BATCH):
        for index in range(start, min(start + _BATCH, number)):
            spool.store(body, [_message(index, now, index % every == 0, size, domains)])
        clock.advance(0)
    spool.close()


def _message(index: int, now: float, due: bool, size: int, domains: int) -> QueuedMessage:
    domain = f"domain-{index % domains}.example.net"
    return QueuedMessage(
        new_id(now),
        f"bounce-{index}@lists.example.org",
        f"user-{index}@{domain}",
        domain,
        size,
        now - 60,
        now - 1 if due else now + 3600 + index % 7200,
        0 if due else 1,
        {
            "reception_protocol": "ESMTP",
            "received_from": f"192.0.2.{index % 250}:{index % 60000}",
            "session_id": new_id(now),
            "body": "8BITMIME",
        },
    )


class _Sink(socketserver.ThreadingTCPServer):
    """A mail host that takes everything and notes when."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.times: list[float] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        sink = self.server
        assert isinstance(sink, _Sink)
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.wfile.write(b"250-sink\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                while self.rfile.readline() not in (b".\r\n", b""):
                    pass
                sink.times.append(time.monotonic())
                self.wfile.write(b"250 ok\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            else:
                self.wfile.write(b"250 ok\r\n")


@attrs.define
class Node:
    """The node as a process.

    @ivar started: when, by the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    port: int
    output: Path
    started: float

    @classmethod
    def start(cls, directory: Path, state: Path, sink: int) -> Node:
        """Start it; it is not ready then."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config, output = directory / "kumo.ini", directory / "node.out"
        config.write_text(_CONFIG.format(state=state, port=port, sink=sink), encoding="utf-8")
        code = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", code, "--pidfile=", "-n", "kumo", "-c", str(config)]
        root = Path(__file__).resolve().parent.parent
        with output.open("wb") as log:
            started = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(root)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return cls(process, port, output, started)

    def greeting(self) -> tuple[bool, float]:
        """Whether it takes mail, and how long the answer took."""
        before = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
                ready = connection.recv(3) == b"220"
        except OSError:
            return False, 0.0
        return ready, time.monotonic() - before

    def memory(self) -> int:
        """Its resident octets."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found.group(1)) * 1024 if found else 0

    def cpu(self) -> float:
        """Seconds of CPU it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").split(") ")[1]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def all_handed_over(self) -> bool:
        """Whether it has said that it knows all messages."""
        return b" listens on " in self.output.read_bytes()

    def stop(self) -> float:
        """Stop it in order; how long that took."""
        before = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.monotonic() - before


def measure(directory: Path, state: Path, due: int) -> dict[str, float]:
    """Start a node over a spool, watch it, and stop it.

    @param due: how many messages will be delivered at once.
    """
    sink = _Sink()
    node = Node.start(directory, state, sink.server_address[1])
    try:
        figures = _watch(node, sink, due)
    finally:
        figures_stop = node.stop()
        sink.shutdown()
        sink.server_close()
    return {**figures, "stop_seconds": figures_stop}


def _watch(node: Node, sink: _Sink, due: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    slowest, deadline = 0.0, time.monotonic() + 120
    while time.monotonic() < deadline:
        if node.process.poll() is not None:
            raise SystemExit(f"the node ended:\n{node.output.read_text(errors='replace')}")
        ready, took = node.greeting()
        now = time.monotonic() - node.started
        if ready:
            figures.setdefault("accepting_seconds", now)
            slowest = max(slowest, took)
        if "handed_over_seconds" not in figures and node.all_handed_over():
            figures["handed_over_seconds"] = now
        if "handed_over_seconds" in figures and len(sink.times) >= due:
            break
        time.sleep(0.005)
    figures["slowest_greeting_ms"] = slowest * 1000
    figures["delivered"] = len(sink.times)
    if sink.times:
        figures["first_delivery_seconds"] = sink.times[0] - node.started
        figures["last_delivery_seconds"] = sink.times[-1] - node.started
        whole = figures.get("handed_over_seconds", 0.0)
        figures["delivered_meanwhile"] = sum(t - node.started < whole for t in sink.times)
    time.sleep(1.0)
    figures["rss"] = node.memory()
    figures["cpu_seconds"] = node.cpu()
    return figures


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spool", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000, help="default 100,000")
    parser.add_argument("--due", type=int, default=1000, help="due at once (default 1,000)")
    parser.add_argument("--size", type=int, default=2000, help="octets of a body (default 2,000)")
    parser.add_argument("--domains", type=int, default=1000, help="default 1,000")
    parser.add_argument("--json", type=Path, default=Path("var/bench-spool.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run it and print a table."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory(prefix="bench-spool-") as name:
        directory = Path(name)
        empty = measure(directory, directory / "empty", 0)
        before = time.monotonic()
        state = directory / "full"
        state.mkdir(0o700)
        shape = (options.messages, options.due, options.size, options.domains)
        fill(str(state / "spool"), *shape)
        filled = time.monotonic() - before
        full = measure(directory, state, options.due)
    full["octets_per_message"] = (full["rss"] - empty["rss"]) / options.messages
    sys.stdout.write(
        f"{options.messages} messages of {options.size} octets, filled in {filled:.1f} s\n\n"
    )
    for key in sorted({*empty, *full}):
        cells = [f"{each[key]:>16,.3f}" if key in each else " " * 16 for each in (empty, full)]
        goal = f"   goal: at most {_GOALS[key]:g}" if key in _GOALS else ""
        sys.stdout.write(f"{key:<24}{cells[0]}{cells[1]}{goal}\n")
    facts = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "messages": options.messages,
        "empty": empty,
        "full": full,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
