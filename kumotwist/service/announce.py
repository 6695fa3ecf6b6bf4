"""What a node says of itself when it has started: what listens, what is a trial, what is next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator

from kumotwist.config import Configuration
from kumotwist.dns import trusted_servers
from kumotwist.egress.settings import UNSPECIFIED
from kumotwist.egress.source import Source

__all__ = ["announcement", "kumo_command"]


def announcement(
    configuration: Configuration,
    sources: dict[str, Source],
    listening: Iterable[tuple[str, str]],
    waiting: int,
    command: str,
) -> Iterator[str]:
    """The lines that are logged when everything listens.

    @param listening: what listens, and where.
    @param waiting: messages that were in the spool.
    @param command: how to call C{kumo}, see L{kumo_command}.
    """
    places = dict(listening)
    for what, where in places.items():
        yield f"{what} listens on {where}"
    for name, pool in configuration.pools.items():
        entries = [entry for entry in pool.entries if entry.weight]
        if name == UNSPECIFIED and len(configuration.pools) > 1:
            continue
        yield f"pool {name}: " + (
            "; ".join(_way_out(sources[entry.source]) for entry in entries) or "no source is on"
        )
    if configuration.paths.uses_dane and not trusted_servers(configuration.dns):
        yield "enable_dane has no effect: no name server is in [dns] trusted_nameservers"
    if waiting:
        yield f"the spool holds {waiting} messages"
    if configuration.sinks:
        names = ", ".join(f"[sink:{name}]" for name in configuration.sinks)
        yield f"TRIAL: {names} takes mail and throws it away"
        route = configuration.queues.resolve("any.example").route
        if route:
            yield (
                f"TRIAL: mail of every domain goes to {', '.join(map(str, route))}, not to its MX "
                "hosts, as long as [queue:default] has that route"
            )
    server = next((where for what, where in places.items() if what.startswith("[listener")), "")
    if server:
        options = _option("server", server, "127.0.0.1:2525")
        if "[http]" in places:
            options += _option("endpoint", f"http://{places['[http]']}", "http://127.0.0.1:8000")
        yield f"try:  {command} inject --to you@example.com{options}"


def _way_out(source: Source) -> str:
    addresses = " or ".join(map(str, source.egress_addresses))
    leaving = f" from {addresses}" if addresses else ""
    if source.protocol:
        return f"{source.name} through {source.through}{leaving}"
    return f"{source.name} directly{leaving}"


def _option(name: str, value: str, default: str) -> str:
    return "" if value == default else f" --{name} {value}"


def kumo_command(program: str) -> str:
    """How to call C{kumo} from the directory in which this process was started.

    @param program: how the process itself was called: C{sys.argv[0]}.
    """
    beside = os.path.join(os.path.dirname(program), "kumo")
    if shutil.which("kumo") or not os.path.exists(beside):
        return "kumo"
    return os.path.relpath(beside)
