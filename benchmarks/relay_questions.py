"""The questions that the relay's benchmark answers; each gives groups of rows of figures."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.relay_growth import million, scaling
from benchmarks.relay_load import CountingSink, counting_sink, load
from benchmarks.relay_moments import idle, latency, poisoned, tls
from benchmarks.relay_peers import Shape, running_relays
from benchmarks.relay_start import start
from benchmarks.relay_tables import Figures, Group, take_turns
from benchmarks.relay_ways import WAYS, way
from benchmarks.server import Server, free_port

__all__ = ["QUESTIONS"]

_Case = tuple[Group, str, Callable[[], Figures]]


def _measuring(
    relay: Server, sink: CountingSink, options: argparse.Namespace, reuse: bool
) -> Callable[[], Figures]:
    """What loads a relay once, with as much as goes."""
    amount = {"messages": options.messages, "size": options.size, "senders": options.senders}
    return partial(load, relay, sink, reuse=reuse, **amount)


def _full_load(
    directory: Path, options: argparse.Namespace, group: Group, *, reuse: bool
) -> list[Group]:
    """As much as goes, from smtp-source to smtp-sink."""
    port = free_port()
    shape = Shape(port, reuse=reuse)
    names = options.relays.split(",")
    with (
        counting_sink(port, directory) as sink,
        running_relays(directory, names, shape, group) as relays,
    ):
        cases = [(group, one.name, _measuring(one, sink, options, reuse)) for one in relays]
        take_turns(options.rounds, cases, warm_up=True)
    return [group]


def reused(directory: Path, options: argparse.Namespace) -> list[Group]:
    """Connections are reused on both sides."""
    return _full_load(directory, options, Group("reused", "postfix"), reuse=True)


def single(directory: Path, options: argparse.Namespace) -> list[Group]:
    """A connection for each message on both sides."""
    return _full_load(directory, options, Group("single", "postfix"), reuse=False)


def large(directory: Path, options: argparse.Namespace) -> list[Group]:
    """Messages of 100 KB, connections reused; a tenth of the number."""
    amount = argparse.Namespace(**vars(options))
    amount.size, amount.messages = 102_400, max(1, options.messages // 10)
    return _full_load(directory, amount, Group("100 KB, reused", "postfix"), reuse=True)


def workers(directory: Path, options: argparse.Namespace) -> list[Group]:
    """Ours with 1, 2 and 4 workers, and the second of the relays, connections reused and not."""
    ours, *others = options.relays.split(",")
    peers = [name for name in others if name == "postfix"]
    groups = []
    for reuse in (True, False):
        group = Group(f"workers, {'reused' if reuse else 'single'}", "1 worker")
        port = free_port()
        names = [ours, f"{ours}:2", f"{ours}:4", *peers]
        with (
            counting_sink(port, directory) as sink,
            running_relays(directory, names, Shape(port, reuse=reuse), group) as relays,
        ):
            cases = []
            for relay in relays:
                name = relay.name.rpartition(", ")[2] if ", " in relay.name else "1 worker"
                name = relay.name if relay.name in peers else name
                cases.append((group, name, _measuring(relay, sink, options, reuse)))
            take_turns(options.rounds, cases, warm_up=True)
        groups.append(group)
    return groups


def detour(directory: Path, options: argparse.Namespace) -> list[Group]:
    """The first relay directly, and through proxies."""
    groups = {True: Group("detour, reused", "direct"), False: Group("detour, single", "direct")}
    port = free_port()
    with counting_sink(port, directory) as sink, contextlib.ExitStack() as stack:
        cases: list[_Case] = []
        for name in WAYS:
            home = directory / name
            home.mkdir()
            try:
                source = stack.enter_context(way(name, home))
            except LookupError as error:
                for group in groups.values():
                    group.miss(name, str(error), failed=False)
                continue
            for reuse, group in groups.items():
                shape = Shape(port, reuse=reuse, source=source)
                first = options.relays.split(",")[:1]
                running = stack.enter_context(running_relays(home, first, shape, group))
                cases += [(group, name, _measuring(one, sink, options, reuse)) for one in running]
        take_turns(options.rounds, cases, warm_up=True)
    return list(groups.values())


#: By name.
QUESTIONS: dict[str, Callable[[Path, argparse.Namespace], Sequence[Group]]] = {
    "reused": reused,
    "single": single,
    "large": large,
    "workers": workers,
    "detour": detour,
    "tls": tls,
    "idle": idle,
    "latency": latency,
    "scaling": scaling,
    "million": million,
    "poisoned": poisoned,
    "start": start,
}
