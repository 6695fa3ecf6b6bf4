"""What a node says of itself when it has started: what listens, what is a trial, what is next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kumotwist.config import Configuration
from kumotwist.egress.settings import UNSPECIFIED
from kumotwist.egress.source import Source

__all__ = ["announcement"]


def announcement(
    configuration: Configuration,
    sources: dict[str, Source],
    listening: Iterable[tuple[str, str]],
    waiting: int,
) -> Iterator[str]:
    """The lines that are logged when everything listens.

    @param listening: what listens, and where.
    @param waiting: messages that were in the spool.
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
    if waiting:
        yield f"the spool holds {waiting} messages"
    if configuration.sinks:
        names = ", ".join(f"[sink:{name}]" for name in configuration.sinks)
        yield f"TRIAL: {names} takes mail and throws it away"
        route = configuration.queues.resolve("any.example").route
        if route:
            yield (
                f"TRIAL: mail of every domain goes to {', '.join(map(str, route))} "
                "([queue:default] route); nothing leaves otherwise"
            )
    server = next((where for what, where in places.items() if what.startswith("[listener")), "")
    if server:
        yield f"try:  kumo inject --to you@example.com{_server_option(server)}"


def _way_out(source: Source) -> str:
    addresses = " or ".join(map(str, source.egress_addresses))
    leaving = f" from {addresses}" if addresses else ""
    if source.protocol:
        return f"{source.name} through {source.protocol} {source.server}{leaving}"
    if source.settings.endpoint is not None:
        return f"{source.name} through an endpoint"
    return f"{source.name} directly{leaving}"


def _server_option(server: str) -> str:
    return "" if server == "127.0.0.1:2525" else f" --server {server}"
