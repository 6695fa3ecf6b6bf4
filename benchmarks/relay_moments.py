"""Questions about moments, and others that need a client and a sink of our own.

These set the pace, so that only CPU and the time from 250 to delivery count here.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.relay_load import SETTLE
from benchmarks.relay_own import OwnSink, own_sink, send
from benchmarks.relay_peers import Shape, running_relays
from benchmarks.relay_tables import Figures, Group, take_turns
from benchmarks.server import Server, free_port

__all__ = ["address", "idle", "latency", "poisoned", "through", "tls"]


def address(net: int, number: int) -> str:
    """A source in a net of loopback, or a site there, by number."""
    return f"127.{net}.{number // 250}.{number % 250 + 1}"


def through(
    relay: Server, sink: OwnSink, messages: Sequence[tuple[int, str]], **manner: object
) -> Figures:
    """Send messages with our own client and wait until they have come.

    @param messages: each a number, which no other message has, and a domain.
    @param manner: see L{send}.
    @raise RuntimeError: they do not come, or are refused.
    """
    cpu, started = relay.cpu(), time.monotonic()
    taken = send(relay.port, messages, **manner)  # type: ignore[arg-type]
    come = sink.wait([number for number, _ in messages])
    elapsed = max(come[number] for number, _ in messages) - started
    time.sleep(SETTLE)
    late = [max(0.0, come[number] - moment) for number, moment in taken.items()]
    return {
        "rate": len(messages) / elapsed,
        "cpu": (relay.cpu() - cpu) / len(messages),
        "rss": float(relay.memory()),
        "p50": statistics.median(late),
        "p99": statistics.quantiles(late, n=100)[98],
    }


def _certificate(directory: Path) -> Path:
    certificate = directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(certificate), "-out", str(directory / "c.pem")]
    command += ["-subj", "/CN=mta.example.test", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (directory / "c.pem").read_text())
    certificate.chmod(0o644)
    return certificate


def tls(directory: Path, options: argparse.Namespace) -> list[Group]:
    """STARTTLS in and out, and the same without; a quarter of the messages."""
    certificate = _certificate(directory)
    groups = []
    numbers = itertools.count()
    names = options.relays.split(",")
    for reuse in (True, False):
        group = Group(f"TLS, {'reused' if reuse else 'single'}", "")
        ports = free_port(), free_port()
        clear = Shape(ports[0], reuse=reuse)
        secure = Shape(ports[1], reuse=reuse, certificate=certificate)
        with (
            own_sink(ports[0]) as sink,
            own_sink(ports[1], certificate) as secure_sink,
            running_relays(directory, names, clear, group) as relays,
            running_relays(directory, names, secure, group) as secure_relays,
        ):

            def case(
                relay: Server,
                sink: OwnSink,
                tls: bool,
                group: Group = group,
                manner: tuple[tuple[str, object], ...] = (("reuse", reuse), ("size", options.size)),
            ) -> tuple[Group, str, Callable[[], Figures]]:
                def measure() -> Figures:
                    batch = [
                        (next(numbers), "example.net")
                        for _ in range(max(20, options.messages // 4))
                    ]
                    return through(relay, sink, batch, tls=tls, **dict(manner))

                return group, f"{relay.name} {'TLS' if tls else 'clear'}", measure

            cases = [case(relay, sink, False) for relay in relays]
            cases += [case(relay, secure_sink, True) for relay in secure_relays]
            group.base = cases[0][1] if cases else ""
            take_turns(options.rounds, cases, warm_up=True)
        groups.append(group)
    return groups


def idle(directory: Path, options: argparse.Namespace) -> list[Group]:
    """One message at a time: to a site that is known, and (ours only) the first to a new one."""
    group = Group("one at a time", "postfix")
    port = free_port()
    amount = 50
    more = "".join(
        f"[queue:new{n}.example]\nroute = [{address(10, n)}]:{port}\n"
        for n in range(amount * options.rounds)
    )
    numbers, news = itertools.count(), itertools.count()
    with (
        own_sink(port) as sink,
        running_relays(
            directory, options.relays.split(","), Shape(port, more=more), group
        ) as relays,
    ):

        def slowly(relay: Server, domains: Callable[[], str]) -> Callable[[], Figures]:
            def measure() -> Figures:
                batch = [(next(numbers), domains()) for _ in range(amount)]
                return through(relay, sink, batch, size=options.size, senders=1, gap=0.03)

            return measure

        cases = [(group, one.name, slowly(one, lambda: "example.net")) for one in relays]
        for relay in relays[:1]:
            measure = slowly(relay, lambda: f"new{next(news)}.example")
            cases.append((group, f"{relay.name}, new sites", measure))
        take_turns(options.rounds, cases)
    return [group]


def latency(directory: Path, options: argparse.Namespace) -> list[Group]:
    """From 250 to delivery under load, at half of the rate that goes; ours and Postfix.

    What goes is what goes with this client and this sink, which are slower than smtp-source.
    """
    first, *others = options.relays.split(",")
    names = [first, *(name for name in others if name == "postfix")]
    group = Group("under load", "postfix, half load")
    port = free_port()
    numbers = itertools.count()
    with (
        own_sink(port) as sink,
        running_relays(directory, names, Shape(port), group) as relays,
    ):

        def at(relay: Server, rate: float) -> Callable[[], Figures]:
            def measure() -> Figures:
                batch = [(next(numbers), "example.net") for _ in range(options.messages)]
                return through(relay, sink, batch, size=options.size, rate=rate)

            return measure

        most = Group("as much as goes", "")
        cases = [(most, one.name, at(one, 0.0)) for one in relays]
        take_turns(min(3, options.rounds), cases, warm_up=True)
        rates = {name: row["rate"] / 2 for name, row in most.medians().items()}
        slowest = min(rates, key=lambda name: rates[name], default="")
        measured = [relay for relay in relays if relay.name in rates]
        halves = [(group, f"{one.name}, half load", at(one, rates[one.name])) for one in measured]
        for relay in measured:
            if relay.name != slowest:
                name = f"{relay.name}, half load of {slowest}"
                halves.append((group, name, at(relay, rates[slowest])))
        take_turns(options.rounds, halves)
    return [most, group]


def poisoned(directory: Path, options: argparse.Namespace) -> list[Group]:
    """Delays of good mail alone, and beside mail for a site that takes connections and is mute."""
    group = Group("beside a mute site", "alone")
    port, mute = free_port(), "127.0.0.99"
    shape = Shape(port, more=f"[queue:mute.example]\nroute = [{mute}]:{port}\n")
    first = options.relays.split(",")[:1]
    numbers = itertools.count()
    with (
        own_sink(port, poisoned=mute) as sink,
        running_relays(directory, first, shape, group) as relays,
        running_relays(directory, first, shape, group) as beside,
    ):

        def good(relay: Server) -> Callable[[], Figures]:
            def measure() -> Figures:
                batch = [(next(numbers), "example.net") for _ in range(300)]
                return through(relay, sink, batch, size=options.size, senders=5, gap=0.02)

            return measure

        cases = [(group, "alone", good(relay)) for relay in relays]
        for relay in beside:
            send(relay.port, [(-1, "mute.example")] * 1000, size=options.size)
            cases.append((group, "beside 1,000 for a mute site", good(relay)))
        take_turns(options.rounds, cases)
    return [group]
