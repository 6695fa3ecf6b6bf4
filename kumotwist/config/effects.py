"""Keys that are given and can have no effect: whoever wrote them expects something of them.

A key that says what is the default anyway expects nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any

from kumotwist.config.build import Section
from kumotwist.config.errors import ConfigError
from kumotwist.egress.settings import UNSPECIFIED

__all__ = ["check_effects"]

#: Per kind of section: a key, the keys of which one must be set for it to matter, and the words.
_NEEDS: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "source": (
        (
            "proxy_selection",
            ("socks5_proxy_server", "ha_proxy_server"),
            "there are no proxies to choose from (socks5_proxy_server = HOST:PORT, HOST:PORT)",
        ),
        (
            "suspend_when_proxy_unhealthy",
            ("socks5_proxy_server", "ha_proxy_server", "endpoint"),
            "there is no proxy that could be unhealthy (socks5_proxy_server = HOST:PORT)",
        ),
        (
            "suspend_when_unplumbed",
            ("source_address", "endpoint"),
            "there is no local address that could be missing (source_address = ADDR)",
        ),
        (
            "verify_source_address",
            ("socks5_proxy_source_address",),
            "no address is asked for that could be verified (socks5_proxy_source_address = ADDR)",
        ),
    ),
    "proxy": (
        *(
            (key, ("keepalive",), "there is no keepalive (keepalive = yes)")
            for key in ("keepalive_time", "keepalive_interval", "keepalive_retries")
        ),
        (
            "limit_wait",
            ("max_connections_per_source", "max_connection_rate_per_source"),
            "there is no limit to wait for (max_connections_per_source = NUMBER)",
        ),
    ),
}


def check_effects(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Find keys without effect in sections that are each well-formed."""
    for section in sections:
        yield from _check_needs(section)
    yield from _check_users(sections)
    yield from _check_pools(sections)
    yield from _check_dane(sections)


def _check_needs(section: Section) -> Iterator[ConfigError]:
    for key, needed, problem in _NEEDS.get(section.kind.name, ()):
        if key not in section.values or not section.failed.isdisjoint(needed):
            continue
        settings: Any = section.settings
        attribute, _ = section.kind.keys[key]
        if settings is None or section.values[key] == attribute.default:
            continue
        if not any(getattr(settings, other) for other in needed):
            yield section.error(key, f"has no effect: {problem}")


def _check_users(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Rules for users at proxies where nobody can log in: they would never match."""
    with_login = {
        str(section.name): "auth" in section.values or "auth" in section.failed
        for section in sections
        if section.kind.name == "proxy"
    }
    for section in sections:
        if section.kind.name != "proxy-rule" or not section.values.get("users"):
            continue
        proxy = section.values.get("proxy")
        if proxy is None:
            if with_login and not any(with_login.values()):
                yield section.error("users", "nobody can log in: no [proxy:NAME] has auth")
        elif not with_login.get(proxy, True):
            yield section.error("users", f"nobody can log in: [proxy:{proxy}] has no auth")


def _check_pools(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """Queues whose pool has no source at all: their mail would wait until it expires."""
    empty = {
        str(section.name)
        for section in sections
        if section.kind.name == "pool" and not section.lines
    }
    for section in sections:
        if section.kind.name == "queue" and section.values.get("egress_pool") in empty:
            pool = section.values["egress_pool"]
            problem = f"the pool {pool!r} has no source (a line SOURCE = 1 in [pool:{pool}])"
            yield section.error("egress_pool", problem)
        elif section.kind.name == "pool" and section.name == UNSPECIFIED and not section.lines:
            problem = "it has no source, and is the pool of every queue without egress_pool"
            yield section.error("", problem)


def _check_dane(sections: Sequence[Section]) -> Iterator[ConfigError]:
    """DANE without a name server whose word on DNSSEC counts: no record would ever be believed."""
    for dns in sections:
        settings: Any = dns.settings
        if dns.kind.name != "dns" or settings is None or not settings.nameservers:
            continue
        if any(
            ipaddress.ip_address(server.host) in network
            for server in settings.nameservers
            for network in settings.trusted_nameservers
        ):
            continue
        for section in sections:
            if section.kind.name == "path" and section.values.get("enable_dane"):
                problem = "has no effect: no name server of [dns] is in trusted_nameservers"
                yield section.error("enable_dane", problem)
