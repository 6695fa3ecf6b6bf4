"""KumoProxy with thousands of idle clients: memory for each, and a live session beside them.

C{make bench-proxy-idle}. Half-begun clients have connected and greeted; established ones have a
destination too and say nothing. Each kind is added in steps; beside them one live session sends an
octet there and back, again and again, and new sessions are made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.proxy_load import socks5
from benchmarks.proxy_servers import start_kumoproxy
from benchmarks.server import Server

_fork = multiprocessing.get_context("fork")
_EACH = 2500


def _raise_limit() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _hold(port: int, target: int | None, number: int, results: Any) -> None:
    """Make idle clients and hold them until killed."""
    held = []
    for _ in range(number):
        handle = socket.create_connection(("127.0.0.1", port), 30)
        if target is None:
            handle.sendall(b"\x05\x01\x00")
            handle.recv(2)
        else:
            socks5(handle, target)
        held.append(handle)
    results.put(len(held))
    signal.pause()


def _echo(listener: socket.socket) -> None:
    """Accept for ever; what anybody says comes back."""
    import selectors

    watch = selectors.DefaultSelector()
    watch.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watch.select():
            if key.fileobj is listener:
                watch.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            peer: Any = key.fileobj
            with contextlib.suppress(OSError):
                if data := peer.recv(4096):
                    peer.sendall(data)
                    continue
            watch.unregister(peer)
            peer.close()


@contextlib.contextmanager
def _processes() -> Iterator[list[Any]]:
    """Processes that are killed at the end."""
    running: list[Any] = []
    try:
        yield running
    finally:
        for one in running:
            os.kill(one.pid, signal.SIGKILL)
            one.join()


def _latencies(port: int, target: int, number: int) -> dict[str, float]:
    """Seconds of a round trip in a live session, and of making a new one."""
    trips, makings = [], []
    with socket.create_connection(("127.0.0.1", port), 10) as live:
        socks5(live, target)
        live.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(number):
            begun = time.perf_counter()
            live.sendall(b"x")
            live.recv(1)
            trips.append(time.perf_counter() - begun)
    for _ in range(number // 5):
        begun = time.perf_counter()
        with socket.create_connection(("127.0.0.1", port), 10) as new:
            socks5(new, target)
            makings.append(time.perf_counter() - begun)
    return {
        "trip_median": statistics.median(trips),
        "trip_p99": statistics.quantiles(trips, n=100)[98],
        "new_median": statistics.median(makings),
        "new_p99": statistics.quantiles(makings, n=100)[98],
    }


def _measure(server: Server, target: int, kind: str, clients: int) -> dict[str, Any]:
    """Add idle clients of one kind; look at the server before and after."""
    before = server.memory()
    results = _fork.SimpleQueue()
    with _processes() as running:
        for _ in range(0, clients, _EACH):
            wanted = target if kind == "established" else None
            holder = _fork.Process(
                target=_hold,
                args=(server.port, wanted, min(_EACH, clients), results),
                daemon=True,
            )
            holder.start()
            running.append(holder)
        held = sum(results.get() for _ in running)
        figures: dict[str, Any] = {"kind": kind, "clients": held}
        figures["memory_each"] = (server.memory() - before) / max(1, held)
        cpu = server.cpu()
        time.sleep(5)
        figures["cpu_idle"] = (server.cpu() - cpu) / 5
        figures.update(_latencies(server.port, target, 2000))
    return figures


def _line(figures: dict[str, Any]) -> str:
    return (
        f"{figures['clients']:6d} {figures['kind']:<12} "
        f"{figures.get('memory_each', 0) / 1024:5.1f} KiB each, "
        f"{figures.get('cpu_idle', 0) * 100:4.1f}% CPU; live round trip "
        f"{figures['trip_median'] * 1e6:5.0f} µs (p99 {figures['trip_p99'] * 1e6:.0f}), "
        f"new session {figures['new_median'] * 1e6:5.0f} µs (p99 {figures['new_p99'] * 1e6:.0f})\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a line for each kind, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy_idle")
    parser.add_argument("--clients", type=int, default=10000, help="default 10000")
    parser.add_argument("--json", type=Path, default=Path("var/bench-proxy-idle.json"))
    options = parser.parse_args(arguments)
    limit = _raise_limit()
    # The proxy has one descriptor for a client that has not asked yet, two for a session.
    numbers = {
        "half-begun": min(options.clients, limit - 100),
        "established": min(options.clients, (limit - 100) // 2),
    }
    found = []
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as directory, _processes() as running:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        echo = _fork.Process(target=_echo, args=(listener,), daemon=True)
        echo.start()
        running.append(echo)
        target = listener.getsockname()[1]
        for kind, number in numbers.items():
            server = start_kumoproxy(Path(directory), timeout="10m")
            try:
                server.wait()
                facts = {"kind": "nobody idle", "clients": 0}
                found.append({**facts, **_latencies(server.port, target, 2000)})
                sys.stdout.write(_line(found[-1]))
                found.append(_measure(server, target, kind, number // _EACH * _EACH or number))
                sys.stdout.write(_line(found[-1]))
            finally:
                server.stop()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
