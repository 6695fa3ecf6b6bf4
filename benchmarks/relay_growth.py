"""What a message costs as the work grows: sites, sources, messages that wait.

The small and the large case run side by side and take turns; a connection for each message.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.relay_moments import address, through
from benchmarks.relay_own import OwnSink, own_sink, send
from benchmarks.relay_peers import Shape, running_relays
from benchmarks.relay_tables import Figures, Group, take_turns
from benchmarks.server import Server, free_port
from benchmarks.spool import fill

__all__ = ["million", "scaling"]

#: Octets of a message that only waits, and how many domains such messages share.
_WAITING_SIZE, _WAITING_DOMAINS = 500, 1000
_FEW = 1000
#: Seconds that a node may take to read its spool.
_PATIENCE = 180.0

_numbers = itertools.count()


def _sites(port: int, number: int) -> Shape:
    more = "".join(
        f"[queue:d{n}.example]\nroute = [{address(20, n)}]:{port}\n" for n in range(number)
    )
    return Shape(port, reuse=False, more=more)


def _sources(port: int, number: int) -> Shape:
    more = "".join(f"[source:s{n}]\nsource_address = {address(30, n)}\n" for n in range(number))
    pool = "\n".join(f"s{n} = 1" for n in range(number))
    return Shape(port, reuse=False, more=more, pool=pool)


def _measuring(
    relay: Server, sink: OwnSink, options: argparse.Namespace, sites: int
) -> Callable[[], Figures]:
    """What sends messages to a relay, the next site for each."""

    def measure() -> Figures:
        batch = []
        for number in itertools.islice(_numbers, max(20, options.messages)):
            batch.append((number, f"d{number % sites}.example" if sites else "example.net"))
        return through(relay, sink, batch, size=options.size, reuse=False)

    return measure


def scaling(directory: Path, options: argparse.Namespace) -> list[Group]:
    """10 to 10,000 sites, 1 to 1,000 sources."""
    port = free_port()
    groups = []
    first = options.relays.split(",")[:1]
    kinds: tuple[tuple[str, tuple[int, ...], Callable[[int, int], Shape]], ...] = (
        ("sites", (10, 1000, 10_000), _sites),
        ("sources", (1, 30, 1000), _sources),
    )
    with own_sink(port) as sink:
        for kind, sizes, shape in kinds:
            group = Group(kind, f"{sizes[0]:,}")
            with contextlib.ExitStack() as stack:
                cases = []
                for size in sizes:
                    running = running_relays(directory, first, shape(port, size), group)
                    sites = size if kind == "sites" else 0
                    cases += [
                        (group, f"{size:,}", _measuring(relay, sink, options, sites))
                        for relay in stack.enter_context(running)
                    ]
                take_turns(options.rounds, cases, warm_up=True)
            groups.append(group)
    return groups


# -- messages that wait ------------------------------------------------------------------------


def _filled(directory: Path, waiting: int) -> Path:
    state = directory / f"state-{waiting}"
    state.mkdir(0o700)
    before = time.monotonic()
    fill(str(state / "spool"), waiting, 0, _WAITING_SIZE, min(waiting, _WAITING_DOMAINS))
    sys.stderr.write(f"{waiting:,} messages stored in {time.monotonic() - before:.1f} s\n")
    return state


def _first_message(relay: Server, sink: OwnSink) -> Figures:
    """Try until a message is taken, and see it arrive."""
    number = next(_numbers)
    while True:
        try:
            [taken] = send(relay.port, [(number, "example.net")], senders=1).values()
            break
        except (OSError, RuntimeError):
            if time.monotonic() - relay.started > _PATIENCE:
                raise
            time.sleep(0.01)
    come = sink.wait([number])[number]
    return {"accepted": taken - relay.started, "delivered": come - relay.started}


def _start_over(relay: Server, sink: OwnSink) -> Figures:
    """Watch a node start over its spool.

    @raise RuntimeError: it does not come to its end.
    """
    figures = _first_message(relay, sink)
    while not relay.has_said(b" listens on "):
        if time.monotonic() - relay.started > _PATIENCE:
            raise RuntimeError("the spool has not been read")
        time.sleep(0.02)
    figures["known"] = time.monotonic() - relay.started
    figures["used"] = relay.cpu()
    time.sleep(1.0)
    figures["rss"] = float(relay.memory())
    return figures


def million(directory: Path, options: argparse.Namespace) -> list[Group]:
    """A start over many messages that wait (C{--waiting}), and mail that flows beside them."""
    few, many = f"{_FEW:,} waiting", f"{options.waiting:,} waiting"
    states = {few: _filled(directory, _FEW), many: _filled(directory, options.waiting)}
    port = free_port()
    first = options.relays.split(",")[:1]
    starting, flowing = Group("start over a spool", few), Group("mail beside a spool", few)

    def starts(name: str) -> Callable[[], Figures]:
        shape = Shape(port, reuse=False, state=states[name])

        def measure() -> Figures:
            # Killed each time: the next start finds what a crash leaves.
            with running_relays(directory, first, shape, starting, wait=False) as relays:
                for relay in relays:
                    return _start_over(relay, sink)
            raise RuntimeError("it does not start")

        return measure

    with own_sink(port) as sink:
        take_turns(min(3, options.rounds), [(starting, name, starts(name)) for name in states])
        for one, other in zip(
            starting.rounds.get(few, []), starting.rounds.get(many, []), strict=False
        ):
            other["octets"] = (other["rss"] - one["rss"]) / (options.waiting - _FEW)
        with contextlib.ExitStack() as stack:
            cases = []
            for name, state in states.items():
                shape = Shape(port, reuse=False, state=state)
                running = running_relays(directory, first, shape, flowing)
                for relay in stack.enter_context(running):
                    _start_over(relay, sink)
                    cases.append((flowing, name, _measuring(relay, sink, options, 0)))
            take_turns(options.rounds, cases, warm_up=True)
    for state in states.values():
        shutil.rmtree(state)
    return [starting, flowing]
