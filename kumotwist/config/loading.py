"""Reads a configuration, whole or not at all."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from kumotwist.config.build import Section, build
from kumotwist.config.checks import FILES, check
from kumotwist.config.configuration import Configuration
from kumotwist.config.errors import ConfigError, ConfigErrors
from kumotwist.config.reader import read, scan
from kumotwist.config.sections import KINDS
from kumotwist.egress.settings import (
    UNSPECIFIED,
    PathTable,
    PoolEntry,
    PoolSettings,
    SourceSettings,
)
from kumotwist.queue.settings import QueueTable
from kumotwist.settings.layers import Rule

__all__ = ["TrySection", "load"]


TrySection = Callable[[str, Any], Iterable[tuple[str, str]]]
"""Tries what a section of a kind says, with its settings: keys that cannot be used, and why."""


def load(
    path: str, try_section: TrySection | None = None, texts: Mapping[str, str] | None = None
) -> Configuration:
    """Read a file and those that it includes.

    @param path: the main file.
    @param try_section: for those who want to use what is configured: told of each section that is
        well-formed and names no file that cannot be read.
    @param texts: what the files said once, see L{Configuration.texts}: taken instead of what they
        say now.
    @raise ConfigErrors: with everything that is wrong.
    """
    reading = _Reading(texts)
    reading.file(path)
    reading.includes(path)
    sections = reading.unique_sections()
    reading.errors.extend(check(sections))
    if try_section is not None:
        reading.errors.extend(_tried(sections, reading.errors, try_section))
    if reading.errors:
        raise ConfigErrors(reading.errors)
    return _assemble(sections, reading.texts)


def _tried(
    sections: Sequence[Section], errors: Sequence[ConfigError], try_section: TrySection
) -> list[ConfigError]:
    # What has been said of a file once is not said again in other words.
    known = {(error.file, error.section) for error in errors if error.key in FILES}
    return [
        section.error(key, problem)
        for section in sections
        if section.settings is not None and (section.raw.file, section.raw.header) not in known
        for key, problem in try_section(section.kind.name, section.settings)
    ]


class _Reading:
    """The files read so far, their sections and what is wrong with them."""

    def __init__(self, instead: Mapping[str, str] | None) -> None:
        self._instead = instead
        self.texts: dict[str, str] = {}
        self.sections: list[Section] = []
        self.errors: list[ConfigError] = []

    def file(self, path: str) -> None:
        """Read one file."""
        ini = read(path) if self._instead is None else scan(path, self._instead[path])
        self.texts[path] = ini.text
        self.errors.extend(ini.errors)
        for raw in ini.sections:
            section = build(raw, self.errors)
            if section is not None:
                self.sections.append(section)

    def includes(self, main: str) -> None:
        """Read what the main file includes: each file once, in the order of their names."""
        if self._instead is not None:
            for path in self._instead:
                if path != main:
                    self.file(path)
            return
        for section in [one for one in self.sections if one.kind.name == "kumo"]:
            for pattern in section.values.get("include", ()):
                found = sorted(glob.glob(os.path.join(os.path.dirname(main), pattern)))
                if not found:
                    problem = f"{pattern!r} matches no file (relative to the file that says it)"
                    self.errors.append(section.error("include", problem))
                for path in found:
                    if not any(_same_file(path, known) for known in self.texts):
                        self.file(path)

    def unique_sections(self) -> list[Section]:
        """The sections whose names are well-formed, each once; a second one is an error."""
        first: dict[tuple[str, str], Section] = {}
        for section in self.sections:
            if section.name is None:
                continue
            earlier = first.setdefault((section.kind.name, str(section.name)), section)
            if earlier is not section:
                where = f"{earlier.raw.file}:{earlier.raw.line}"
                self.errors.append(section.error("", f"the section is already at {where}"))
        return list(first.values())


def _same_file(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _assemble(sections: Sequence[Section], texts: Mapping[str, str]) -> Configuration:
    """Put sections together that have nothing wrong with them."""

    def single(kind: str) -> Any:
        for section in sections:
            if section.kind.name == kind:
                return section.settings
        return None

    def by_name(kind: str) -> dict[str, Any]:
        return {str(one.name): one.settings for one in sections if one.kind.name == kind}

    def rules(kind: str) -> list[Rule[Any]]:
        return [
            Rule(one.name, MappingProxyType(one.values))
            for one in sections
            if one.kind.name == kind
        ]

    listeners: dict[str, Any] = {
        name: listener.with_peers(
            Rule(rule.pattern.network, rule.values)
            for rule in rules("listener-peer")
            if rule.pattern.listener == name
        )
        for name, listener in by_name("listener").items()
    }
    sources: dict[str, Any] = by_name("source")
    sources.setdefault(UNSPECIFIED, SourceSettings(name=UNSPECIFIED))
    pools: dict[str, Any] = by_name("pool")
    pools.setdefault(UNSPECIFIED, PoolSettings(UNSPECIFIED, (PoolEntry(UNSPECIFIED, 1),)))

    def settings(kind: str) -> Any:
        return single(kind) or KINDS[kind].settings()

    return Configuration(
        node=attrs.evolve(settings("kumo"), include=()),
        spool=settings("spool"),
        log=settings("log"),
        dns=settings("dns"),
        http=single("http"),
        listeners=MappingProxyType(listeners),
        sources=MappingProxyType(sources),
        pools=MappingProxyType(pools),
        queues=QueueTable(rules("queue")),
        paths=PathTable(rules("path")),
        proxies=MappingProxyType(by_name("proxy")),
        proxy_rules=MappingProxyType(by_name("proxy-rule")),
        sinks=MappingProxyType(by_name("sink")),
        check=settings("check"),
        tls_reports=single("tls-reports"),
        texts=texts,
        given=_given(sections),
    )


def _given(sections: Sequence[Section]) -> frozenset[str]:
    """What stands in the files, whatever its values: see L{Configuration.given}."""
    given = set()
    for section in sections:
        kind = section.kind.name
        given.add(f"[{kind}:{section.name}]" if section.name else f"[{kind}]")
        if kind == "kumo" and "hostname" in section.values:
            given.add("[kumo] hostname")
    return frozenset(given)
