"""What can be configured about pools and paths, and (from here too) sources, in KumoMTA's words."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

import attrs

from kumotwist.egress.source_settings import SourceSettings
from kumotwist.settings import SettingType, setting
from kumotwist.settings.layers import Rule, RuleTable, refuse_misspelt_default
from kumotwist.settings.types import (
    BOOLEAN,
    DURATION,
    HOST_NAME,
    LIMIT,
    NAMED_LIMITS,
    NAMED_RATES,
    NETWORKS,
    RATE,
    SECRET,
    TEXT,
    IPNetwork,
    Limit,
    Rate,
    choice,
    integer,
    parse_domain,
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


class PoolEntry(NamedTuple):
    """A source in a pool, and its share; a weight of 0 takes no mail."""

    source: str
    weight: int


_WEIGHT = integer(0, 1_000_000)

#: How the share of a source in a pool is written; nothing means 1, as in KumoMTA.
WEIGHT: SettingType[int] = SettingType(
    _WEIGHT.name, lambda text: _WEIGHT.parse(text) if text.strip() else 1
)


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
        LIMIT,
        "Connections open at once, from one source to one site: `32`, `local:20`.",
        default=Limit.of(32),
    )
    additional_connection_limits: tuple[tuple[str, int], ...] = setting(
        NAMED_LIMITS,
        "Further limits that connections count against, which several sites or sources may share "
        "by their names: `NAME = 100`.",
        default=(),
    )
    max_connection_rate: Rate | None = setting(
        RATE, "Connections begun in a time, from one source to one site: `100/min`.", default=None
    )
    max_message_rate: Rate | None = setting(
        RATE,
        "Messages sent in a time, from one source to one site: `100/s`, `1,000/hour`, "
        "`10/5m,max_burst=3`; the burst is the number itself unless it is given. `local:` in front "
        "keeps it to this node.",
        default=None,
    )
    additional_message_rate_throttles: tuple[tuple[str, Rate], ...] = setting(
        NAMED_RATES,
        "Further rates that messages count against, which several sites or sources may share by "
        "their names: `NAME = 500/d`.",
        default=(),
    )
    source_selection_rate: Rate | None = setting(
        RATE,
        "How often a source is chosen for a site; beyond that the pool's other sources are.",
        default=None,
    )
    additional_source_selection_rates: tuple[tuple[str, Rate], ...] = setting(
        NAMED_RATES, "The same, shared by name.", default=()
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
    enable_mta_sts: bool = setting(
        BOOLEAN,
        "Whether domains that were looked up are asked for their MTA-STS policies (RFC 8461).",
        default=True,
    )
    mta_sts_fetch: str = setting(
        choice("Source", "Direct"),
        "How a policy is fetched: from a source of the pool that the mail leaves by, or directly "
        "from this machine.",
        default="Source",
    )
    enable_dane: bool = setting(
        BOOLEAN,
        "Whether a host's certificate is checked against its TLSA records (DANE, RFC 7672), where "
        "there are any. It needs a validating resolver: see `trusted_nameservers`.",
        default=False,
    )
    opportunistic_tls_reconnect_on_failed_handshake: bool = setting(
        BOOLEAN,
        "Whether a host whose handshake fails is tried again in the clear, where TLS is "
        "opportunistic.",
        default=False,
    )
    remember_broken_tls: float | None = setting(
        DURATION,
        "For how long a site with which a handshake has failed is spoken to in the clear, where "
        "TLS is opportunistic.",
        default=None,
        default_doc="not at all",
    )
    enable_pipelining: bool = setting(
        BOOLEAN, "Whether PIPELINING is used where it is offered.", default=True
    )
    enable_chunking: bool = setting(
        BOOLEAN, "Whether messages go by BDAT where CHUNKING is offered.", default=True
    )
    enable_rset: bool = setting(
        BOOLEAN,
        "Whether RSET is said before every message of a connection but the first. Without it RSET "
        "is said where it is needed: after a message that was not taken. (KumoMTA's default is "
        "`yes`.)",
        default=False,
    )
    reconnect_strategy: str = setting(
        choice("ConnectNextHost", "ReconnectSameHost", "TerminateSession"),
        "What follows when a host ends the connection during a delivery (421, loss, silence): the "
        "next host of the plan, the same host once more, or a new start with the first host.",
        default="ConnectNextHost",
    )
    try_next_host_on_transport_error: bool = setting(
        BOOLEAN,
        "Whether a message that was not delivered for such a reason is tried again at once where "
        "`reconnect_strategy` leads; else it waits for its next attempt. (KumoMTA's default is "
        "`no`.)",
        default=True,
    )
    smtp_auth_plain_username: str | None = setting(
        TEXT,
        "The name to log in with (AUTH). The best mechanism that is offered is used: "
        "SCRAM-SHA-256, PLAIN or LOGIN. A host that cannot be logged in to gets no mail.",
        default=None,
    )
    smtp_auth_plain_password: str | None = setting(
        SECRET, "The password to log in with.", default=None
    )
    allow_smtp_auth_plain_without_tls: bool = setting(
        BOOLEAN, "Whether to log in over a connection that is not encrypted.", default=False
    )
    allow_smtp_auth_plain_without_valid_certificate: bool = setting(
        BOOLEAN,
        "Whether to log in over an encrypted connection to a host whose certificate is not good.",
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
        refuse_misspelt_default(target)
        if not re.search(r"[(|?\[:,]", target):
            target = parse_domain(target)
        elif not _SITE.fullmatch(target):
            raise ValueError(f"{target!r} is neither default, a domain nor a site name")
        return cls(target, source or None)

    def __str__(self) -> str:
        return self.target if self.source is None else f"{self.target} via {self.source}"


_TOGETHER = 100


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
        #: Whether any path looks at TLSA records.
        self.uses_dane = self.default.enable_dane or any(
            rule.values.get("enable_dane") for rule in self.rules
        )
        full = max(
            values.get("max_recipients_per_batch", self.default.max_recipients_per_batch)
            for values in ({}, *(rule.values for rule in self.rules))
        )
        #: How many recipients of a message can travel together: about a hundred, and always as many
        #: as some of the largest batches have.
        self.together: int = max(_TOGETHER // full, 1) * full
        self._targets = frozenset(rule.pattern.target for rule in self.rules)

    @property
    def limits_selection(self) -> bool:
        """Whether there is any C{source_selection_rate}."""
        keys = ("source_selection_rate", "additional_source_selection_rates")
        return any(getattr(self.default, key) for key in keys) or any(
            key in rule.values for rule in self.rules for key in keys
        )

    def singles_out(self, domain: str) -> bool:
        """Whether there are settings for this very domain, from whatever source."""
        return domain in self._targets

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
