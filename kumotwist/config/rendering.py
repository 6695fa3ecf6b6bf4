"""A configuration back into INI text: what holds, with the defaults filled in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kumotwist.config.configuration import Configuration
from kumotwist.config.sections import KINDS, SectionKind
from kumotwist.egress.settings import PoolSettings
from kumotwist.settings.layers import RuleTable
from kumotwist.smtp.settings import PeerPattern

__all__ = ["render"]

#: Where each kind of section is in a L{Configuration}.
_ATTRIBUTES = {
    "kumo": "node",
    "spool": "spool",
    "log": "log",
    "dns": "dns",
    "http": "http",
    "listener": "listeners",
    "listener-peer": "listeners",
    "source": "sources",
    "pool": "pools",
    "queue": "queues",
    "path": "paths",
    "proxy": "proxies",
    "proxy-rule": "proxy_rules",
    "sink": "sinks",
    "check": "check",
    "tls-reports": "tls_reports",
}


def render(configuration: Configuration, mask: bool = True) -> str:
    """Write the effective configuration.

    The text can be read again and gives an equal configuration, except for masked secrets. What
    was included is part of it.

    @param mask: show C{********} for secrets; what refers to a file or to the environment is
        shown as it is.
    """
    sections = (
        "\n".join((f"[{header}]", *lines)) + "\n"
        for kind in KINDS.values()
        for header, lines in _sections(kind, configuration, mask)
    )
    return "\n".join(sections)


def _sections(
    kind: SectionKind, configuration: Configuration, mask: bool
) -> Iterator[tuple[str, list[str]]]:
    """The sections of one kind: their headers and their lines."""
    value: Any = getattr(configuration, _ATTRIBUTES[kind.name])
    if kind.name == "listener-peer":
        for name, listener in value.items():
            for rule in listener.peers:
                header = str(PeerPattern(name, rule.pattern))
                yield f"{kind.word}:{header}", _some_lines(kind, rule.values, mask)
        return
    if isinstance(value, RuleTable):
        yield f"{kind.name}:default", _lines(kind, value.default, mask)
        for rule in value.rules:
            yield f"{kind.name}:{rule.pattern}", _some_lines(kind, rule.values, mask)
    elif kind.is_pool:
        for name, pool in value.items():
            yield f"{kind.name}:{name}", _weights(pool)
    elif kind.label:
        for name, settings in value.items():
            yield f"{kind.name}:{name}", _lines(kind, settings, mask)
    elif value is not None:
        yield kind.name, _lines(kind, value, mask)


def _weights(pool: PoolSettings) -> list[str]:
    return [f"{entry.source} = {entry.weight}" for entry in pool.entries]


def _lines(kind: SectionKind, settings: Any, mask: bool) -> list[str]:
    values = {
        attribute.name: getattr(settings, attribute.name) for attribute, _ in kind.keys.values()
    }
    return _some_lines(kind, values, mask)


def _some_lines(kind: SectionKind, values: Mapping[str, Any], mask: bool) -> list[str]:
    lines = []
    for key, (attribute, facts) in kind.keys.items():
        if attribute.name in values:
            value = values[attribute.name]
            write = facts.kind.render if mask else facts.kind.reveal
            lines.append(f"# {key} =" if value is None else f"{key} = {write(value)}".rstrip())
    return lines
