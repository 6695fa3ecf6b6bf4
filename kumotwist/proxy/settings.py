"""What can be configured of KumoProxy: C{[proxy:NAME]} and C{[proxy-rule:NAME]}."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define

from kumotwist.logins import CHECKER
from kumotwist.settings import Problem, setting
from kumotwist.settings.types import (
    BOOLEAN,
    DURATION,
    NETWORKS,
    PORTS,
    RATE,
    SERVER_ENDPOINT,
    TEXT,
    IPNetwork,
    PortRange,
    Rate,
    at_least_one,
    choice,
    integer,
    list_of,
)

__all__ = ["ProxyRuleSettings", "ProxySettings"]


@define(frozen=True)
class ProxySettings:
    """A KumoProxy listener, C{[proxy:NAME]}."""

    listen: str = setting(
        SERVER_ENDPOINT,
        "Where it listens: ADDR:PORT or a Twisted server endpoint string.",
    )
    require_auth: bool = setting(
        BOOLEAN,
        "Whether every client must log in. A client that offers to is always checked.",
        default=False,
    )
    auth: str | None = setting(
        CHECKER,
        "Who may log in: a Twisted cred plugin string, such as `file:/etc/kumo/proxy-users`.",
        default=None,
    )
    tls_certificate: str | None = setting(
        TEXT,
        "PEM file with the certificate and its chain. With it, clients must speak TLS from the "
        "first octet.",
        default=None,
    )
    tls_private_key: str | None = setting(
        TEXT,
        "PEM file with the private key; by default it is looked for in `tls_certificate`.",
        default=None,
    )
    timeout: float = setting(
        DURATION,
        "How long a client may take to say what it wants, and then how long the connection to its "
        "destination may take.",
        default=60.0,
    )
    idle_timeout: float = setting(
        DURATION,
        "A session in which nothing moves in either direction for this long is ended.",
        default=300.0,
    )
    drain_timeout: float = setting(
        DURATION,
        "On shutdown: how long running sessions may go on. New clients are refused meanwhile.",
        default=10.0,
    )
    keepalive: bool = setting(
        BOOLEAN,
        "Whether TCP keepalive watches both sides of a session.",
        default=True,
    )
    keepalive_time: float = setting(
        DURATION,
        "How long a connection is silent before keepalive probes it.",
        default=300.0,
    )
    keepalive_interval: float = setting(
        DURATION,
        "The time between two probes that are not answered.",
        default=30.0,
    )
    keepalive_retries: int = setting(
        integer(1, 127),
        "How many probes may stay unanswered before the connection is given up.",
        default=3,
    )
    max_connections: int = setting(
        integer(1),
        "How many clients may be connected at once; further ones are closed at once.",
        default=32768,
    )
    max_connections_per_source: int | None = setting(
        integer(1),
        "How many connections may be open from one source address, whoever asked for them.",
        default=None,
    )
    max_connection_rate_per_source: Rate | None = setting(
        RATE,
        "How often a connection may be opened from one source address, whoever asks for it.",
        default=None,
    )
    limit_wait: float = setting(
        DURATION,
        "How long a request beyond a limit of its source waits for its turn before it is refused "
        "as one that timed out. With 0 it is refused at once.",
        default=20.0,
    )
    allow_names: bool = setting(
        BOOLEAN,
        "Whether clients may ask for a host name, which the proxy then resolves. The rules are "
        "applied to each address found.",
        default=False,
    )
    use_splice: bool = setting(
        BOOLEAN,
        "Whether bytes are relayed inside the kernel where the platform can (Linux, without TLS).",
        default=True,
    )

    def problems(self) -> Iterator[Problem]:
        """What does not fit together."""
        if self.require_auth and self.auth is None:
            yield Problem(
                ("require_auth", "auth"),
                "nobody could log in (auth = file:PATH, with a line NAME:PASSWORD for each user)",
            )
        if self.tls_private_key is not None and self.tls_certificate is None:
            yield Problem(
                ("tls_private_key", "tls_certificate"),
                "is of no use without a certificate (tls_certificate = PATH)",
            )


@define(frozen=True)
class ProxyRuleSettings:
    """Who may go from where to where, C{[proxy-rule:NAME]}; the first match in the file decides.

    What no rule matches may go to ports 25, 465, 587 and 2525 of any host, except to loopback
    and link-local addresses and to the proxy itself.
    """

    proxy: str | None = setting(
        TEXT,
        "The `[proxy:NAME]` that it belongs to; by default every one.",
        default=None,
    )
    users: tuple[str, ...] | None = setting(
        at_least_one(list_of(TEXT)),
        "Names under which a client must have logged in; by default anybody, also without login.",
        default=None,
    )
    clients: tuple[IPNetwork, ...] | None = setting(
        at_least_one(NETWORKS),
        "Networks that the client's address must be in; by default any.",
        default=None,
    )
    sources: tuple[IPNetwork, ...] | None = setting(
        at_least_one(NETWORKS),
        "Networks that the source address must be in; by default any.",
        default=None,
    )
    destinations: tuple[IPNetwork, ...] | None = setting(
        at_least_one(NETWORKS),
        "Networks that the destination must be in. By default any; but loopback and link-local "
        "addresses, the proxy itself and the `[http]` of its process are only reached by a rule "
        "that names them.",
        default=None,
    )
    ports: tuple[PortRange, ...] | None = setting(
        at_least_one(PORTS),
        "Ports of the destination. By default 25, 465, 587 and 2525 where `action` is `allow`, "
        "and every port where it is `deny`.",
        default=None,
    )
    action: str = setting(
        choice("allow", "deny"),
        "What becomes of a connection that matches.",
    )
