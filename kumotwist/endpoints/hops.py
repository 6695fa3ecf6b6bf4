"""What lies between us and a destination, as values that can be shown."""

from __future__ import annotations

import ipaddress

from attrs import define, field

__all__ = ["FOREIGN", "PlannedHop", "ProxyHop", "Route"]

#: The L{Route.protocol} of an endpoint that a plugin, or Twisted itself, builds.
FOREIGN = "endpoint"


@define(frozen=True)
class Route:
    """What an endpoint string says of the way out, before anything is connected.

    @ivar protocol: C{"socks5"}, C{"http-connect"}, C{"haproxy"}; L{FOREIGN} for a kind of endpoint
        of which nobody knows where it leads through; empty for a direct connection.
    @ivar server: the proxy, or what is known of the endpoint, without secrets; empty for a direct
        connection.
    @ivar source: the address that destinations shall see; L{None} where nothing chooses it.
    @ivar username: the login at the proxy, if there is one.
    """

    protocol: str = ""
    server: str = ""
    source: ipaddress.IPv4Address | ipaddress.IPv6Address | None = None
    username: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """C{socks5 10.0.5.10:5000}, C{endpoint "unix:/run/x"}, or nothing if it is direct."""
        server = f'"{self.server}"' if self.protocol == FOREIGN else self.server
        return f"{self.protocol} {server}".rstrip()


@define(frozen=True)
class ProxyHop:
    """A proxy that carries a stream, as it is known once the stream stands.

    @ivar protocol: C{"socks5"}, C{"http-connect"} or C{"haproxy"}.
    @ivar server: the proxy, such as C{10.0.5.10:5000}.
    @ivar source_address: the address and port that the proxy uses towards the destination, such as
        C{10.0.0.1:53210}; with HAProxy, which does not tell the port, C{10.0.0.1:0}; empty when
        the proxy did not say, as HTTP proxies never do.
    @ivar destination: where it leads, such as C{192.0.2.1:25}.
    @ivar via: the proxy through which this one is reached, if there is one.
    @ivar login_unused: whether a login was offered and the (SOCKS5) proxy asked for none.
    """

    protocol: str
    server: str
    source_address: str
    destination: str
    via: ProxyHop | None = None
    login_unused: bool = False

    def __str__(self) -> str:
        """C{socks5 10.0.5.10:5000 from 10.0.0.1:53210 to 192.0.2.1:25}."""
        source = f" from {self.source_address}" if self.source_address else ""
        return f"{self.protocol} {self.server}{source} to {self.destination}"


@define(frozen=True)
class PlannedHop:
    """A proxy that shall carry a stream, as errors name it.

    @ivar protocol: C{"socks5"}, C{"http-connect"} or C{"haproxy"}.
    @ivar server: the proxy, such as C{10.0.5.10:5000}.
    @ivar source: the address that was asked for, such as C{10.0.0.1}, or empty.
    @ivar destination: where it shall lead, such as C{192.0.2.1:25}.
    """

    protocol: str
    server: str
    source: str
    destination: str

    @property
    def route(self) -> str:
        """How the stream would leave: C{socks5 10.0.5.10:5000 from 10.0.0.1}."""
        source = f" from {self.source}" if self.source else ""
        return f"{self.protocol} {self.server}{source}"

    def __str__(self) -> str:
        """C{socks5 10.0.5.10:5000 from 10.0.0.1 to 192.0.2.1:25}."""
        return f"{self.route} to {self.destination}"
