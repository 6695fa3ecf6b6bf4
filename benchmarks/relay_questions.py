"""The questions that the relay's benchmark answers; each gives rows of figures by their names."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.relay_load import Figures, counting_sink, load
from benchmarks.relay_own import OwnSink, own_sink, send
from benchmarks.relay_peers import Shape, running_relays
from benchmarks.relay_ways import WAYS, way
from benchmarks.server import Server, free_port
from benchmarks.spool import fill

__all__ = ["QUESTIONS", "Rounds"]

Rounds = dict[str, list[Figures]]

#: A source in loopback's net, and a site there, by number.
_SECOND = "127.{}.{}.{}"


def _address(net: int, number: int) -> str:
    return _SECOND.format(net, number // 250, number % 250 + 1)


def _tell(number: int, options: argparse.Namespace, name: str, figures: Figures) -> None:
    words = ", ".join(f"{key} {value:.6g}" for key, value in figures.items())
    sys.stderr.write(f"round {number} of {options.rounds}: {name}: {words}\n")


# -- full load ---------------------------------------------------------------------------------


def _full_load(directory: Path, options: argparse.Namespace, *, reuse: bool) -> Rounds:
    """As much as goes, from smtp-source to smtp-sink."""
    found: Rounds = {}
    port = free_port()
    amount = {"size": options.size, "senders": options.senders, "reuse": reuse}
    with (
        counting_sink(port, directory) as sink,
        running_relays(directory, options.relays.split(","), Shape(port, reuse=reuse)) as relays,
    ):
        for relay in relays:
            load(relay, sink, messages=max(100, options.messages // 10), **amount)
        for number in range(1, options.rounds + 1):
            for relay in relays:
                figures = load(relay, sink, messages=options.messages, **amount)
                found.setdefault(relay.name, []).append(figures)
                _tell(number, options, relay.name, figures)
    return found


def reused(directory: Path, options: argparse.Namespace) -> Rounds:
    """Connections are reused on both sides."""
    return _full_load(directory, options, reuse=True)


def single(directory: Path, options: argparse.Namespace) -> Rounds:
    """A connection for each message on both sides."""
    return _full_load(directory, options, reuse=False)


def detour(directory: Path, options: argparse.Namespace) -> Rounds:
    """kumotwist directly, and through proxies; C{+single} is with a connection per message."""
    found: Rounds = {}
    port = free_port()
    with counting_sink(port, directory) as sink, contextlib.ExitStack() as stack:
        relays: list[tuple[str, bool, Server]] = []
        for name in WAYS:
            home = directory / name
            home.mkdir()
            source = stack.enter_context(way(name, home))
            for reuse in (True, False) if source is not None else ():
                shape = Shape(port, reuse=reuse, source=source or "")
                running = running_relays(home, [options.relays.split(",")[0]], shape)
                [relay] = stack.enter_context(running)
                relays.append((name if reuse else f"{name}+single", reuse, relay))
        for number in range(options.rounds + 1):
            for name, reuse, relay in relays:
                amount = {"size": options.size, "senders": options.senders, "reuse": reuse}
                messages = options.messages if number else options.messages // 10
                figures = load(relay, sink, messages=messages, **amount)
                if number:  # the first one warms up
                    found.setdefault(name, []).append(figures)
                    _tell(number, options, name, figures)
    return found


# -- what needs our own client -----------------------------------------------------------------


def _through(
    relay: Server, sink: OwnSink, messages: Sequence[tuple[int, str]], **manner: object
) -> Figures:
    """Send messages with our own client and wait until they have come."""
    cpu, started = relay.cpu(), time.monotonic()
    taken = send(relay.port, messages, **manner)  # type: ignore[arg-type]
    come = sink.wait([number for number, _ in messages])
    elapsed = max(come[number] for number, _ in messages) - started
    time.sleep(0.7)
    late = [max(0.0, come[number] - moment) for number, moment in taken.items()]
    return {
        "rate": len(messages) / elapsed,
        "cpu": (relay.cpu() - cpu) / len(messages),
        "rss": float(relay.memory()),
        "p50": statistics.median(late),
        "p99": statistics.quantiles(late, n=100)[98],
    }


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def tls(directory: Path, options: argparse.Namespace) -> Rounds:
    """STARTTLS in and out, and the same without; our own client and sink set the pace."""
    certificate = directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", str(certificate), "-out", str(directory / "c.pem")]
    command += ["-subj", "/CN=mta.example.test", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + (directory / "c.pem").read_text())
    certificate.chmod(0o644)
    found: Rounds = {}
    numbers = _numbers()
    for secure in (False, True):
        port = free_port()
        for reuse in (True, False):
            shape = Shape(port, reuse=reuse, certificate=certificate if secure else None)
            with (
                own_sink(port, shape.certificate) as sink,
                running_relays(directory, options.relays.split(","), shape) as relays,
            ):
                for number in range(options.rounds + 1):
                    for relay in relays:
                        amount = options.messages // 4 if number else 50
                        batch = [(next(numbers), "example.net") for _ in range(amount)]
                        manner = {"size": options.size, "reuse": reuse, "tls": secure}
                        figures = _through(relay, sink, batch, **manner)
                        name = f"{relay.name} {'TLS' if secure else 'clear'}"
                        name += "" if reuse else "+single"
                        if number:
                            found.setdefault(name, []).append(figures)
                            _tell(number, options, name, figures)
    return found


def idle(directory: Path, options: argparse.Namespace) -> Rounds:
    """One message at a time: to a site that is known, and (ours only) the first to a new one."""
    found: Rounds = {}
    port = free_port()
    amount = 50
    more = "".join(
        f"[queue:new{n}.example]\nroute = [{_address(10, n)}]:{port}\n"
        for n in range(amount * options.rounds)
    )
    numbers = _numbers()
    with (
        own_sink(port) as sink,
        running_relays(directory, options.relays.split(","), Shape(port, more=more)) as relays,
    ):
        for number in range(options.rounds):
            for relay in relays:
                known = [(next(numbers), "example.net") for _ in range(amount)]
                manner = {"size": options.size, "senders": 1, "gap": 0.03}
                found.setdefault(relay.name, []).append(_through(relay, sink, known, **manner))
                _tell(number + 1, options, relay.name, found[relay.name][-1])
                if relay is relays[0]:
                    start = number * amount
                    new = [(next(numbers), f"new{start + n}.example") for n in range(amount)]
                    figures = _through(relay, sink, new, **manner)
                    found.setdefault(f"{relay.name}, new sites", []).append(figures)
    return found


def scaling(directory: Path, options: argparse.Namespace) -> Rounds:
    """kumotwist as the work grows: sites, sources, messages that wait; a connection per message."""
    found: Rounds = {}
    port = free_port()
    cases: dict[str, tuple[Shape, int]] = {}
    for sites in (10, 1000, 10_000):
        more = "".join(
            f"[queue:d{n}.example]\nroute = [{_address(20, n)}]:{port}\n" for n in range(sites)
        )
        cases[f"{sites} sites"] = Shape(port, reuse=False, more=more), sites
    for sources in (1, 30, 1000):
        more = "".join(
            f"[source:s{n}]\nsource_address = {_address(30, n)}\n" for n in range(sources)
        )
        pool = "\n".join(f"s{n} = 1" for n in range(sources))
        cases[f"{sources} sources"] = Shape(port, reuse=False, more=more, pool=pool), 0
    for waiting in (0, 1000, options.waiting):
        state = directory / f"state-{waiting}"
        state.mkdir(0o700)
        if waiting:
            fill(str(state / "spool"), waiting, 0, 2000, 1000)
        cases[f"{waiting} waiting"] = Shape(port, reuse=False, state=state), 0
    numbers = _numbers()
    with own_sink(port) as sink:
        for name, (shape, sites) in cases.items():
            home = directory / name.replace(" ", "-")
            home.mkdir()
            with running_relays(home, [options.relays.split(",")[0]], shape) as [relay]:
                time.sleep(shape.state is not None and options.waiting / 30_000)
                for number in range(1, options.rounds + 1):
                    domains = [
                        f"d{n % sites}.example" if sites else "example.net"
                        for n in range(options.messages // 3)
                    ]
                    batch = [(next(numbers), domain) for domain in domains]
                    figures = _through(relay, sink, batch, size=options.size)
                    found.setdefault(name, []).append(figures)
                    _tell(number, options, name, figures)
    return found


def poisoned(directory: Path, options: argparse.Namespace) -> Rounds:
    """Delays of good mail alone, and beside mail for a site that takes connections and is mute."""
    found: Rounds = {}
    port, mute = free_port(), "127.0.0.99"
    more = f"[queue:mute.example]\nroute = [{mute}]:{port}\n"
    numbers = _numbers()
    with (
        own_sink(port, poisoned=mute) as sink,
        running_relays(directory, options.relays.split(",")[:1], Shape(port, more=more)) as [relay],
    ):
        for name in ("alone", "beside 1,000 for a mute site"):
            if name != "alone":
                send(relay.port, [(0, "mute.example")] * 1000, size=options.size)
            for number in range(1, options.rounds + 1):
                batch = [(next(numbers), "example.net") for _ in range(300)]
                figures = _through(relay, sink, batch, size=options.size, senders=5, gap=0.02)
                found.setdefault(name, []).append(figures)
                _tell(number, options, name, figures)
    return found


#: By name, the question and the row that the ratios are to.
QUESTIONS: dict[str, tuple[Callable[[Path, argparse.Namespace], Rounds], str]] = {
    "reused": (reused, "postfix"),
    "single": (single, "postfix"),
    "detour": (detour, "direct"),
    "tls": (tls, "kumotwist clear"),
    "idle": (idle, "postfix"),
    "scaling": (scaling, "10 sites"),
    "poisoned": (poisoned, "alone"),
}
