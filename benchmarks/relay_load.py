"""Load for a relay from Postfix's smtp-source, taken by its smtp-sink, and counted there."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.relay_tables import Figures
from benchmarks.server import SEARCH_PATH, Server

__all__ = ["SETTLE", "CountingSink", "counting_sink", "load"]

#: Seconds for everything that a relay does after the last delivery: logs, queue files, removals.
SETTLE = 0.7


class CountingSink:
    """smtp-sink, which writes how many messages it has taken.

    @ivar port: where it listens on 127.0.0.1.
    """

    def __init__(self, port: int, directory: Path) -> None:
        program = shutil.which("smtp-sink", path=SEARCH_PATH)
        if program is None:
            raise SystemExit("smtp-sink is not installed (make real-parts)")
        self.port = port
        self._counts = directory / f"sink-{port}-{os.urandom(2).hex()}"
        user = ["-u", "nobody"] if getpass.getuser() == "root" else []
        with self._counts.open("wb") as counts:
            command = [program, *user, "-c", f"127.0.0.1:{port}", "512"]
            self._process = subprocess.Popen(command, stdout=counts, stderr=subprocess.DEVNULL)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.05)
        raise SystemExit(f"smtp-sink does not listen on {port}")

    @property
    def count(self) -> int:
        """Messages taken so far."""
        with self._counts.open("rb") as counts:
            counts.seek(max(0, counts.seek(0, os.SEEK_END) - 200))
            _, found, rest = counts.read().rpartition(b"mesg=")
        digits = rest.split(b"\r")[0]
        return int(digits) if found and digits.isdigit() else 0

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def counting_sink(port: int, directory: Path) -> Iterator[CountingSink]:
    """A sink that is stopped at the end."""
    sink = CountingSink(port, directory)
    try:
        yield sink
    finally:
        sink.stop()


def load(
    relay: Server,
    sink: CountingSink,
    *,
    messages: int,
    size: int,
    senders: int,
    reuse: bool,
    tls: bool = False,
) -> Figures:
    """Send messages through a relay and wait until the sink has all of them.

    @param size: octets of a message.
    @param reuse: whether a sender keeps its connection.
    @raise RuntimeError: the sender failed, or messages did not come.
    """
    program = shutil.which("smtp-source", path=SEARCH_PATH)
    assert program is not None, "it comes with smtp-sink"
    command = [program, "-s", str(senders), "-m", str(messages), "-l", str(size)]
    command += ["-f", "sender@example.org", "-t", "recipient@example.net"]
    command += [*(["-d"] if reuse else []), *(["-T"] if tls else []), f"127.0.0.1:{relay.port}"]
    before, cpu, started = sink.count, relay.cpu(), time.monotonic()
    source = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        progressed, last = started, before
        while (now := sink.count) - before < messages:
            moment = time.monotonic()
            if now != last:
                progressed, last = moment, now
            if moment - progressed > 30:
                raise RuntimeError(f"{relay.name}: {now - before} of {messages} came")
            time.sleep(0.005)
        elapsed = time.monotonic() - started
    finally:
        source.kill()
        _, words = source.communicate()
    if words:
        raise RuntimeError(f"{relay.name}: smtp-source: {words.decode(errors='replace')[-500:]}")
    time.sleep(SETTLE)
    return {
        "rate": messages / elapsed,
        "cpu": (relay.cpu() - cpu) / messages,
        "rss": float(relay.memory()),
    }
