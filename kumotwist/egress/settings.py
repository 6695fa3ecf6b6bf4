"""What can be configured about sources, pools and paths; the names are KumoMTA's."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import attrs

from kumotwist.endpoints import EndpointTemplate
from kumotwist.settings import Problem, SettingType, setting
from kumotwist.settings.layers import Rule, RuleTable
from kumotwist.settings.types import (
    BOOLEAN,
    HOST_NAME,
    IP_ADDRESS,
    NETWORKS,
    SECRET,
    TEXT,
    HostPort,
    IPAddress,
    IPNetwork,
    choice,
    integer,
    parse_domain,
    parse_host_port,
)
from kumotwist.smtp.timeouts import Timeouts

__all__ = [
    "UNSPECIFIED",
    "PathPattern",
    "PathSettings",
    "PathTable",
    "PoolEntry",
    "PoolSettings",
    "SourceSettings",
]

#: The pool, and its one direct source, that exist without being configured.
UNSPECIFIED = "unspecified"

_PASSWORD = re.compile(r"(password=)(?:\\+.|[^:\\])*", re.IGNORECASE)


def _mask_passwords(text: str) -> str:
    """Hide the passwords in an endpoint string, also those of proxies nested in it."""
    return _PASSWORD.sub(r"\1********", text)


def _parse_template(text: str) -> EndpointTemplate:
    try:
        return EndpointTemplate.parse(text)
    except ValueError as error:
        raise ValueError(_mask_passwords(str(error))) from None


def _parse_endpoint(text: str) -> str:
    value = text.strip()
    if not _parse_template(value).needs_destination:
        raise ValueError("it does not lead to the destination ({host} and {port} stand for it)")
    return value


#: A Twisted client endpoint string with C{{host}} and C{{port}} for the destination.
ENDPOINT: SettingType[str] = SettingType(
    "client endpoint", _parse_endpoint, _mask_passwords, reveal=str
)


def _parse_proxy_server(text: str) -> HostPort | str:
    value = text.strip()
    if re.match(r"[A-Za-z][A-Za-z0-9]*:(?!\d{1,5}$)", value):
        if _parse_template(value).needs_destination:
            raise ValueError("the way to a proxy cannot depend on the destination ({host}, {port})")
        return value
    return parse_host_port(value)


#: Where a proxy is: a host and a port, or a Twisted client endpoint string.
PROXY_SERVER: SettingType[HostPort | str] = SettingType(
    "HOST:PORT or client endpoint",
    _parse_proxy_server,
    lambda value: _mask_passwords(str(value)),
    reveal=str,
)


@attrs.define(frozen=True)
class SourceSettings:
    """An egress source: one way out (KumoMTA's C{make_egress_source}).

    @ivar name: its name in pools, records and queues.
    """

    name: str
    socks5_proxy_server: HostPort | str | None = setting(
        PROXY_SERVER, "The SOCKS5 proxy that mail leaves through.", default=None
    )
    socks5_proxy_source_address: IPAddress | None = setting(
        IP_ADDRESS,
        "The address that the SOCKS5 proxy must send from. It is asked for with KumoProxy's BIND; "
        "without it any compliant SOCKS5 server will do, and the proxy chooses.",
        default=None,
    )
    socks5_proxy_username: str | None = setting(
        TEXT, "The login at the SOCKS5 proxy (RFC 1929).", default=None
    )
    socks5_proxy_password: str | None = setting(
        SECRET, "The password at the SOCKS5 proxy.", default=None
    )
    ha_proxy_server: HostPort | str | None = setting(
        PROXY_SERVER,
        "The HAProxy (its `accept-proxy` port) that mail leaves through.",
        default=None,
    )
    ha_proxy_source_address: IPAddress | None = setting(
        IP_ADDRESS, "The address that HAProxy must send from.", default=None
    )
    source_address: IPAddress | None = setting(
        IP_ADDRESS,
        "The local address to send from; with a proxy, the local address of the connection to "
        "the proxy.",
        default=None,
    )
    endpoint: str | None = setting(
        ENDPOINT,
        "Any other way out: a Twisted client endpoint string in which `{host}` and `{port}` stand "
        "for the destination.",
        default=None,
    )
    verify_source_address: bool = setting(
        BOOLEAN,
        "Whether a SOCKS5 proxy must confirm the source address that was asked for; `no` for a "
        "proxy behind NAT that reports a translated one.",
        default=True,
    )
    remote_port: int | None = setting(
        integer(1, 65535),
        "The port to connect to, whatever a route or `smtp_port` says.",
        default=None,
    )
    ehlo_domain: str | None = setting(
        HOST_NAME,
        "The name that this source greets with, unless the path names one; the node's `hostname` "
        "otherwise.",
        default=None,
    )

    def problems(self) -> Iterator[Problem]:
        """What does not fit together."""
        yield from self._ways_out()
        yield from self._halves()
        yield from self._addresses()

    def _ways_out(self) -> Iterator[Problem]:
        ways = [
            key
            for key in ("socks5_proxy_server", "ha_proxy_server", "endpoint")
            if getattr(self, key) is not None
        ]
        if len(ways) > 1:
            yield Problem(
                (ways[1], *ways),
                f"a source has one way out, and {ways[0]} is another (one of them)",
            )
        if self.endpoint is not None and self.source_address is not None:
            yield Problem(
                ("source_address", "endpoint"),
                "has no effect on an endpoint (bindAddress in the endpoint string)",
            )

    def _halves(self) -> Iterator[Problem]:
        if self.socks5_proxy_server is None:
            for key in (
                "socks5_proxy_source_address",
                "socks5_proxy_username",
                "socks5_proxy_password",
            ):
                if getattr(self, key) is not None:
                    yield Problem(
                        (key, "socks5_proxy_server"),
                        "there is no proxy to use it with (socks5_proxy_server = HOST:PORT)",
                    )
        if self.ha_proxy_source_address is not None and self.ha_proxy_server is None:
            yield Problem(
                ("ha_proxy_source_address", "ha_proxy_server"),
                "there is no proxy to use it with (ha_proxy_server = HOST:PORT)",
            )
        if self.ha_proxy_server is not None and self.ha_proxy_source_address is None:
            yield Problem(
                ("ha_proxy_server", "ha_proxy_source_address"),
                "HAProxy must be told which address to send from (ha_proxy_source_address = ADDR)",
            )
        if self.socks5_proxy_password is not None and self.socks5_proxy_username is None:
            yield Problem(
                ("socks5_proxy_password", "socks5_proxy_username"),
                "a password needs a user (socks5_proxy_username = NAME)",
            )
        if self.socks5_proxy_username is not None and self.socks5_proxy_password is None:
            yield Problem(
                ("socks5_proxy_username", "socks5_proxy_password"),
                "a user needs a password (socks5_proxy_password = file:PATH)",
            )
        for key in ("socks5_proxy_username", "socks5_proxy_password"):
            value: str | None = getattr(self, key)
            if value is not None and len(value.encode()) > 255:
                yield Problem((key,), "is too long for SOCKS5 (at most 255 bytes)")

    def _addresses(self) -> Iterator[Problem]:
        for key in ("socks5_proxy_source_address", "ha_proxy_source_address", "source_address"):
            address: IPAddress | None = getattr(self, key)
            if address is not None and (address.is_unspecified or address.is_multicast):
                yield Problem((key,), f"nothing can be sent from {address} (an address of a host)")
        local = self.source_address
        if local is None:
            return
        for key in ("socks5_proxy_server", "ha_proxy_server"):
            server = getattr(self, key)
            literal = _literal_address(server) if isinstance(server, HostPort) else None
            if isinstance(server, str):
                yield Problem(
                    ("source_address", key),
                    f"has no effect on {key} as an endpoint string (bindAddress in that string)",
                )
            elif literal is not None and literal.version != local.version:
                yield Problem(
                    ("source_address", key),
                    f"the proxy {server} cannot be reached from {local} "
                    f"(an IPv{literal.version} address)",
                )


def _literal_address(server: HostPort) -> IPAddress | None:
    try:
        return ipaddress.ip_address(server.host)
    except ValueError:
        return None


class PoolEntry(NamedTuple):
    """A source in a pool, and its share; a weight of 0 takes no mail."""

    source: str
    weight: int


#: How the share of a source in a pool is written.
WEIGHT = integer(0, 1_000_000)


@attrs.define(frozen=True)
class PoolSettings:
    """An egress pool (KumoMTA's C{make_egress_pool}): sources and their weights.

    @ivar name: its name, as a queue's C{egress_pool} says it.
    """

    name: str
    entries: tuple[PoolEntry, ...] = ()


@attrs.define(frozen=True)
class PathSettings(Timeouts):
    """How a site is spoken to from a source (KumoMTA's C{make_egress_path})."""

    connection_limit: int = setting(
        integer(1), "Connections open at once, from one source to one site.", default=32
    )
    max_deliveries_per_connection: int = setting(
        integer(1), "Messages after which a connection is closed.", default=1024
    )
    max_ready: int = setting(
        integer(1), "Messages that wait in the ready queue; the rest wait longer.", default=1024
    )
    max_recipients_per_batch: int = setting(
        integer(1), "Recipients that share one transaction.", default=100
    )
    enable_tls: str = setting(
        choice(
            "Opportunistic", "OpportunisticInsecure", "Required", "RequiredInsecure", "Disabled"
        ),
        "Whether STARTTLS is used: if offered and the certificate is good, if offered whatever "
        "the certificate, always and verified, always, or never.",
        default="Opportunistic",
    )
    opportunistic_tls_reconnect_on_failed_handshake: bool = setting(
        BOOLEAN,
        "Whether a host whose handshake fails is tried again in the clear, where TLS is "
        "opportunistic.",
        default=False,
    )
    smtp_port: int = setting(
        integer(1, 65535), "The port of hosts that a look-up found.", default=25
    )
    ehlo_domain: str | None = setting(
        HOST_NAME, "The name to greet with, whatever the source says.", default=None
    )
    prohibited_hosts: tuple[IPNetwork, ...] = setting(
        NETWORKS,
        "Mail for a domain that has a host in here is refused. It speaks of hosts found by "
        "look-up, not of a `route`.",
        default=tuple(
            ipaddress.ip_network(text) for text in ("127.0.0.0/8", "0.0.0.0", "::1", "::")
        ),
    )
    skip_hosts: tuple[IPNetwork, ...] = setting(
        NETWORKS, "Hosts in here are passed over: `::/0` switches IPv6 off.", default=()
    )
    ip_lookup_strategy: str = setting(
        choice("Ipv4AndIpv6", "Ipv4Only", "Ipv6Only", "Ipv6ThenIpv4", "Ipv4ThenIpv6"),
        "Which addresses of a host are looked up, and their order.",
        default="Ipv4AndIpv6",
    )
    consecutive_connection_failures_before_delay: int = setting(
        integer(),
        "Failed connections in a row after which the whole ready queue is put off.",
        default=100,
    )


_SITE = re.compile(r"[a-z0-9_.()|?\[\]:,*-]+")


@attrs.define(frozen=True)
class PathPattern:
    """C{default}, a domain or a site name, with or without C{ via SOURCE}.

    @ivar target: C{default}, a domain (lower case, A-labels) or a site's name.
    @ivar source: the source that it is limited to.
    """

    target: str
    source: str | None = None

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """Read a pattern; raise L{ValueError}."""
        target, via, source = text.strip().partition(" via ")
        target, source = target.strip().lower(), source.strip()
        if via and not source:
            raise ValueError("no source is named after 'via' (DOMAIN via SOURCE)")
        if not re.search(r"[(|\[:,]", target):
            target = parse_domain(target)
        elif not _SITE.fullmatch(target):
            raise ValueError(f"{target!r} is neither default, a domain nor a site name")
        return cls(target, source or None)

    def __str__(self) -> str:
        return self.target if self.source is None else f"{self.target} via {self.source}"


class PathTable(RuleTable[PathPattern, PathSettings]):
    """The paths: what holds for a domain, its site and a source.

    Key by key the most specific rule wins. As in KumoMTA's shaping files a domain is more
    specific than a site, a site more than C{default}, and whatever names a source is more
    specific than what does not.
    """

    def __init__(self, rules: Iterable[Rule[PathPattern]] = ()) -> None:
        """Sort the rules."""
        default = PathSettings()
        others = []
        for rule in rules:
            if rule.pattern == PathPattern("default"):
                default = attrs.evolve(default, **rule.values)
            else:
                others.append(rule)
        super().__init__(default, others)
        self._positions = {
            (rule.pattern.target, rule.pattern.source): number
            for number, rule in enumerate(self.rules)
        }

    def resolve(self, domain: str, site: str, source: str) -> PathSettings:
        """How to speak to a site from a source, for a domain's mail.

        @param domain: the destination's domain, lower case, A-labels.
        @param site: the name of the site that its MX hosts make up.
        @param source: the egress source's name.
        """
        if not self._positions:
            return self.default
        candidates = (
            (site, None),
            (domain, None),
            ("default", source),
            (site, source),
            (domain, source),
        )
        positions = self._positions
        return self.merge(tuple(positions[one] for one in candidates if one in positions))
