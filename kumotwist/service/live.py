"""What of a configuration can change while the node runs, and what cannot.

The tables, the pools and the sources are objects that the rest of the node holds on to: another
configuration is poured into them, between two turns of the reactor, so that every decision after
it goes by it and none by a mixture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs
from twisted.logger import Logger
from twisted.python.components import proxyForInterface

from kumotwist.config import ConfigErrors, Configuration, load
from kumotwist.dns import Resolver
from kumotwist.egress import Rotations, Source
from kumotwist.egress.settings import PathTable, SourceSettings
from kumotwist.interfaces import IResolver
from kumotwist.queue.change import Change
from kumotwist.queue.settings import QueueTable
from kumotwist.settings import declared
from kumotwist.smtp.settings import LIVE_KEYS

__all__ = ["LiveSettings", "read_again", "restart_needed"]

_log = Logger()

#: What is applied whole.
_APPLIED = frozenset(
    {"sources", "pools", "queues", "paths", "dns", "proxy_rules", "texts", "given"}
)
#: The sections whose names are not those of their fields.
_SECTIONS = {"node": "kumo", "proxies": "proxy", "tls_reports": "tls-reports"}
#: What a node that runs with it does not lose while it runs: the kinds of sections.
_KEPT = ("kumo", "spool", "log", "http", "tls-reports", "listener", "proxy", "sink")
#: What of a source has nothing to do with the way that its connections take.
_NOT_THE_WAY: dict[str, Any] = {"ehlo_domain": None, "remote_port": None}


class CurrentResolver(proxyForInterface(IResolver, "resolver")):  # type: ignore[misc]
    """A resolver that can be another one from now on; look-ups under way end as they began.

    @ivar resolver: the one that is asked.
    """

    resolver: IResolver


class LiveSettings:
    """The configuration as the parts of a node hold on to it.

    @ivar configuration: the one that holds.
    @ivar queues: see L{Configuration.queues}.
    @ivar paths: see L{Configuration.paths}.
    @ivar sources: by name.
    @ivar rotations: of the pools.
    @ivar resolver: by C{[dns]}.
    """

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        phase: float = 0.0,
    ) -> None:
        """
        @param phase: see L{Rotations}.
        """
        self._reactor = reactor
        self.configuration = configuration
        self.queues, self.paths = QueueTable(), PathTable()
        self.queues.adopt(configuration.queues)
        self.paths.adopt(configuration.paths)
        self.sources = {name: Source.of(one) for name, one in configuration.sources.items()}
        self.rotations = Rotations(_pools(configuration), phase)
        self.resolver: Any = CurrentResolver(Resolver(reactor, configuration.dns))

    def adopt(self, new: Configuration) -> Change:
        """Go by another configuration. Raises, before anything has changed, if it cannot be used.

        @return: what is different for mail that waits.
        """
        old = self.configuration
        sources = {
            name: self.sources[name] if old.sources.get(name) == settings else Source.of(settings)
            for name, settings in new.sources.items()
        }
        if new.dns != old.dns:
            resolver = Resolver(self._reactor, new.dns)
            self.resolver.resolver = resolver
        change = Change(
            [name for name in old.sources if sources.get(name) is not self.sources[name]],
            old.queues,
            new.queues,
            old.paths,
            new.paths,
        )
        self.sources.clear()
        self.sources.update(sources)
        self.queues.adopt(new.queues)
        self.paths.adopt(new.paths)
        self.rotations.follow(_pools(new))
        self.configuration = new
        return change

    def other_ways(self, old: Configuration) -> list[str]:
        """The sources of an earlier configuration that are no more, or lead out another way now:
        what is known of their health says nothing of those that have their names."""
        now = self.configuration.sources
        return [
            name
            for name, settings in old.sources.items()
            if name not in now or _way(now[name]) != _way(settings)
        ]


def _pools(configuration: Configuration) -> dict[str, Any]:
    return {name: pool.entries for name, pool in configuration.pools.items()}


def _way(settings: SourceSettings) -> SourceSettings:
    return attrs.evolve(settings, **_NOT_THE_WAY)


def read_again(
    running: Configuration,
    kept: Collection[str] = _KEPT,
    texts: Mapping[str, str] | None = None,
) -> Configuration | None:
    """Read the files of a configuration again; what is wrong with them is logged.

    A file that is empty, or has lost what cannot change anyway, is taken for one that is just
    being written: going by the defaults instead would bounce mail.

    @param running: what the process was started with.
    @param kept: the kinds of sections that it cannot lose while it runs.
    @param texts: what another process has read, instead of what the files say now.
    @return: L{None} if anything is wrong.
    """
    path = running.files[0]
    try:
        new = load(path, texts=texts)
    except ConfigErrors as errors:
        for error in errors.errors:
            _log.error("{error}", error=str(error))
        count = len(errors.errors)
        _log.error("the configuration stays as it was: {count} errors", count=count)
        return None
    lost = _lost(running, new, kept)
    if lost:
        _log.error(
            "nothing was changed: {path} looks truncated ({lost}); restart if that is meant",
            path=path,
            lost=lost,
        )
        return None
    return new


def _lost(running: Configuration, new: Configuration, kept: Collection[str]) -> str:
    """In words, what of a file has vanished; empty if nothing has that should be there."""
    if not new.given:
        return "it has no section"
    gone = sorted(
        label
        for label in running.given - new.given
        if label[1:].partition("]")[0].partition(":")[0] in kept
    )
    return f"{', '.join(gone)} missing" if gone else ""


def restart_needed(old: Configuration, new: Configuration) -> Iterator[str]:
    """The keys and sections that differ and are not applied while the node runs."""
    for field in attrs.fields(Configuration):
        if field.name in _APPLIED:
            continue
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        section = _SECTIONS.get(field.name, field.name)
        if isinstance(before, Mapping):
            section = section.removesuffix("s")
            for name in {**before, **after}:
                label = f"[{section}:{name}]"
                yield from _differences(label, before.get(name), after.get(name))
        else:
            yield from _differences(f"[{section}]", before, after)


def _differences(label: str, before: Any, after: Any) -> Iterator[str]:
    if before is None or after is None or not attrs.has(type(before)):
        if before != after:
            yield label
        return
    keys = declared(type(before))
    applied = LIVE_KEYS if label.startswith("[listener:") else frozenset()
    for key, (attribute, _) in keys.items():
        if key not in applied and getattr(before, attribute.name) != getattr(after, attribute.name):
            yield f"{label} {key}"
