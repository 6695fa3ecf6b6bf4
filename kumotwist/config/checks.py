"""What does not fit together between sections, and between the file and the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from kumotwist.config.build import Section
from kumotwist.config.effects import check_effects
from kumotwist.config.errors import ConfigError, did_you_mean
from kumotwist.config.listening import check_listening
from kumotwist.egress.settings import UNSPECIFIED
from kumotwist.settings.types import READABLE_FILE

__all__ = ["FILES", "check"]

#: Keys that name a file which is read at the start.
FILES = ("tls_certificate", "tls_private_key", "tls_required_client_ca")


def check(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Find what is wrong with sections that are each well-formed."""
    yield from _check_references(sections)
    yield from _check_peers(sections)
    yield from _check_files(sections)
    yield from check_listening(sections)
    yield from check_effects(sections)


def _names(sections: Sequence[Section], kind: str) -> set[str]:
    return {str(section.name) for section in sections if section.kind.name == kind}


def _check_references(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Names that are referred to and not defined."""
    sources = _names(sections, "source") | {UNSPECIFIED}
    pools = _names(sections, "pool") | {UNSPECIFIED}
    proxies = _names(sections, "proxy")
    for section in sections:
        kind = section.kind.name
        if kind == "pool":
            for entry in section.values.get("entries", ()):
                if entry.source not in sources:
                    yield _undefined(section, entry.source, "source", entry.source, sources)
        elif kind == "queue":
            pool = section.values.get("egress_pool", UNSPECIFIED)
            if pool not in pools:
                yield _undefined(section, "egress_pool", "pool", pool, pools)
        elif kind == "path" and section.name is not None:
            source = section.name.source
            if source is not None and source not in sources:
                yield _undefined(section, "", "source", source, sources)
        elif kind == "proxy-rule":
            proxy = section.values.get("proxy")
            if proxy is not None and "," in proxy:
                yield section.error(
                    "proxy", "takes one name (a rule for each proxy, or none of this key for all)"
                )
            elif proxy is not None and proxy not in proxies:
                yield _undefined(section, "proxy", "proxy", proxy, proxies)


def _check_peers(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Exceptions for networks whose listener is not there, or with whose keys they do not agree."""
    listeners = {str(one.name): one for one in sections if one.kind.name == "listener"}
    for section in sections:
        if section.kind.name != "listener-peer" or section.name is None:
            continue
        listener = listeners.get(section.name.listener)
        if listener is None:
            yield _undefined(section, "", "listener", section.name.listener, listeners)
        elif listener.settings is not None:
            merged = attrs.evolve(
                listener.settings,
                # A section for proxies says by its network whose headers are believed.
                trusted_proxies=listener.settings.trusted_proxies or (section.name.network,),
                **section.values,
            )
            known = set(listener.settings.problems())
            for problem in merged.problems():
                key = next((key for key in problem.keys if key in section.values), "")
                if key and problem not in known:
                    yield section.error(key, problem.text)


def _undefined(
    section: Section, key: str, kind: str, name: str, known: Iterable[str]
) -> ConfigError:
    hint = did_you_mean(name, sorted(known)) or f" (a section [{kind}:{name}])"
    return section.error(key, f"there is no {kind} {name!r}{hint}")


def _check_files(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Files that cannot be read."""
    for section in sections:
        for key in FILES:
            path = section.values.get(key)
            if path is not None:
                try:
                    READABLE_FILE.parse(path)
                except ValueError as error:
                    yield section.error(key, str(error))
