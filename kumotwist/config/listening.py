"""Where servers listen: endpoint strings that mean nothing, and places that are taken twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.plugin import getPlugins

from kumotwist.config.build import Section
from kumotwist.config.errors import ConfigError, did_you_mean

__all__ = ["check_listening", "check_server_endpoint"]

#: Kinds of endpoints whose parsers look at their arguments and at nothing else.
_PURE = frozenset({"tcp", "tcp6", "unix"})
#: Twisted's own kinds that are not plugins.
_BUILT_IN = frozenset({"tcp", "unix", "ssl"})


class _Place(NamedTuple):
    """Where a server listens: an interface (empty for all) and a port, or something unique."""

    interface: str
    port: int | None
    family: int


def check_server_endpoint(text: str) -> None:
    """Raise L{ValueError} if a server endpoint string means nothing.

    Nothing is opened: an endpoint is only a description until it listens. Endpoints of other
    packages, and those that look at files or at the environment, are only checked for existence.
    """
    kind = text.partition(":")[0].lower()
    if kind not in _PURE:
        plugins = getPlugins(IStreamServerEndpointStringParser)
        known = sorted(_BUILT_IN | {plugin.prefix for plugin in plugins})
        if kind not in known:
            hint = did_you_mean(kind, known) or f" ({', '.join(known)})"
            raise ValueError(f"there is no server endpoint {kind!r}{hint}")
        return
    try:
        # Parsing such a string only keeps the reactor for later.
        serverFromString(cast(Any, None), text)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        # Twisted's parsers are functions, and their TypeErrors begin with the function's name.
        reason = re.sub(r"^_\w+\(\) ", "", str(error))
        raise ValueError(
            f"{text!r} is not a server endpoint: {reason} (such as tcp:2525:interface=127.0.0.1)"
        ) from None


def _place(text: str) -> _Place:
    """Where a valid endpoint string listens."""
    if text.partition(":")[0].lower() in {"tcp", "tcp6"}:
        endpoint: Any = serverFromString(cast(Any, None), text)
        family = 6 if ":" in endpoint._interface else 4
        interface = "" if endpoint._interface in {"", "0.0.0.0", "::"} else endpoint._interface
        return _Place(interface, endpoint._port, family)
    return _Place(text, None, 0)


def _collide(one: _Place, other: _Place) -> bool:
    if one.port != other.port or one.port == 0:
        return False
    if one.port is None or one.interface == other.interface:
        return one.interface == other.interface
    return one.family == other.family and "" in (one.interface, other.interface)


def check_listening(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Check every C{listen} by itself and against those before it."""
    taken: list[tuple[_Place, Section]] = []
    for section in sections:
        text = getattr(section.settings, "listen", None)
        if not isinstance(text, str) or "listen" in section.failed:
            continue
        try:
            check_server_endpoint(text)
        except ValueError as error:
            yield section.error("listen", str(error))
            continue
        place = _place(text)
        for earlier, owner in taken:
            if _collide(place, earlier):
                yield section.error(
                    "listen",
                    f"{text} is where [{owner.raw.header}] listens (a port of its own)",
                )
                break
        taken.append((place, section))
