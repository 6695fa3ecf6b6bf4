"""How long a node takes to start: from the command to the socket, and to the first 220."""

from __future__ import annotations

import argparse
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.relay_peers import Shape, running_relays
from benchmarks.relay_tables import Figures, Group, take_turns
from benchmarks.server import Server, free_port

__all__ = ["start"]

_PATIENCE = 60.0


def _greeting(relay: Server, wanted: bytes) -> float:
    """Seconds from its start until it says something; nothing, if it shall only take a connection.

    @raise RuntimeError: it does not.
    """
    while time.monotonic() - relay.started < _PATIENCE:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", relay.port), _PATIENCE) as connection,
        ):
            if not wanted or connection.recv(len(wanted)) == wanted:
                return time.monotonic() - relay.started
        time.sleep(0.002)
    raise RuntimeError("it does not listen")


def start(directory: Path, options: argparse.Namespace) -> list[Group]:
    """With one process and with two workers; C{used} is CPU until then."""
    first = options.relays.split(",")[0]
    group = Group("start", "1 process")
    shape = Shape(free_port())

    def starting(name: str) -> Callable[[], Figures]:
        def measure() -> Figures:
            with running_relays(directory, [name], shape, group, wait=False) as relays:
                for relay in relays:
                    listening = _greeting(relay, b"")
                    ready = _greeting(relay, b"220")
                    return {"listening": listening, "ready": ready, "used": relay.cpu()}
            raise RuntimeError("it does not start")

        return measure

    cases = [("1 process", first), ("2 workers", f"{first}:2")]
    turns = [(group, row, starting(name)) for row, name in cases]
    take_turns(options.rounds, turns, warm_up=True)
    return [group]
