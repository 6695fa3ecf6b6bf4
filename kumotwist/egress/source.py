"""An egress source: one way out, from its settings to a connected endpoint."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.internet.error import ConnectBindError
from twisted.internet.interfaces import IStreamClientEndpoint

from kumotwist.egress.counters import FailureKind
from kumotwist.egress.header_facts import header_tlvs
from kumotwist.egress.proxies import FailoverEndpoint, Proxy, ProxyGroup
from kumotwist.egress.source_settings import ProxyServer, SourceSettings
from kumotwist.egress.suspension import Suspension
from kumotwist.endpoints import EndpointTemplate, haproxyEndpoint, server_endpoint, socks5Endpoint
from kumotwist.endpoints.hops import PlannedHop, Route
from kumotwist.endpoints.tcp import AddressEndpoint
from kumotwist.settings.types import HostPort
from kumotwist.wire.proxy_v2 import Tlv

__all__ = ["EXHAUSTED", "Source", "kind_of_failure"]

#: What a socket says where the process or the machine has no more of what a connection needs.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Observer = Callable[[IStreamClientEndpoint], IStreamClientEndpoint]


@attrs.define(frozen=True)
class Source:
    """One way out.

    @ivar settings: what was configured.
    @ivar protocol: C{"socks5"}, C{"haproxy"} or C{""} for a direct connection; for an endpoint
        string what that says (L{Route.protocol}).
    @ivar name: the name that records and queues show.
    @ivar server: the proxy (or all of them) in words, for records and errors; empty without one.
    @ivar egress_addresses: the addresses that destinations shall see, at most one of a family;
        empty where nothing chooses them.
    @ivar proxies: the proxies, and what is known of them; L{None} for a direct connection and for
        an endpoint string.
    """

    settings: SourceSettings
    protocol: str = ""
    proxies: ProxyGroup | None = attrs.field(default=None, repr=False, eq=False)
    _template: EndpointTemplate | None = attrs.field(default=None, repr=False)
    # Asked for with every connection, so worked out once:
    name: str = attrs.field(init=False, eq=False)
    server: str = attrs.field(init=False, eq=False)
    egress_addresses: tuple[IPAddress, ...] = attrs.field(init=False, eq=False, repr=False)

    @classmethod
    def of(cls, settings: SourceSettings) -> Source:
        """Build a source; everything that can be parsed is parsed here, once."""
        if settings.endpoint is not None:
            template = EndpointTemplate.parse(settings.endpoint)
            return cls(settings, template.route.protocol, template=template)
        balanced = settings.proxy_selection == "balanced"
        if settings.socks5_proxy_server is not None:
            return cls(settings, "socks5", ProxyGroup(settings.socks5_proxy_server, balanced))
        if settings.ha_proxy_server is not None:
            return cls(settings, "haproxy", ProxyGroup(settings.ha_proxy_server, balanced))
        return cls(settings)

    @name.default
    def _default_name(self) -> str:
        return self.settings.name

    @server.default
    def _default_server(self) -> str:
        if self._template is not None:
            return self._template.route.server
        return "" if self.proxies is None else self.proxies.name

    @property
    def through(self) -> str:
        """Where it leads through: C{socks5 10.0.5.10:5000}; empty for a direct connection."""
        return str(Route(self.protocol, self.server))

    @property
    def username(self) -> str | None:
        """The login at the proxy, if there is one."""
        if self._template is not None:
            return self._template.route.username
        return self.settings.socks5_proxy_username

    def one_by_one(self) -> list[Source]:
        """The same source through each of its proxies alone, in the order of the configuration."""
        if self.proxies is None or len(self.proxies.proxies) == 1:
            return [self]
        alone = []
        for proxy in self.proxies.proxies:
            server = (proxy.server,)
            if self.protocol == "socks5":
                settings = attrs.evolve(self.settings, socks5_proxy_server=server)
            else:
                settings = attrs.evolve(self.settings, ha_proxy_server=server)
            alone.append(Source.of(settings))
        return alone

    # -- addresses --------------------------------------------------------------------------------

    @egress_addresses.default
    def _default_egress_addresses(self) -> tuple[IPAddress, ...]:
        if self._template is not None:
            chosen = self._template.route.source
            return () if chosen is None else (chosen,)
        if self.protocol == "socks5":
            return self.settings.socks5_proxy_source_address or ()
        if self.protocol == "haproxy":
            return self.settings.ha_proxy_source_address or ()
        return self.settings.source_address or ()

    @property
    def egress_address(self) -> IPAddress | None:
        """The address that destinations shall see, the first if it is one of each family; L{None}
        where nothing chooses it."""
        return next(iter(self.egress_addresses), None)

    def egress_address_for(self, destination: IPAddress) -> IPAddress | None:
        """The address that a destination shall see: L{None} where nothing chooses it, or where
        there is none of the family."""
        return _of_family(self.egress_addresses, destination.version)

    def reaches(self, address: IPAddress) -> bool:
        """Whether a destination's address is of a family that this source sends from."""
        return not self.egress_addresses or self.egress_address_for(address) is not None

    # -- the way out ------------------------------------------------------------------------------

    def endpoint(
        self,
        reactor: Any,
        address: IPAddress,
        port: int,
        timeout: float,
        *,
        observe: Observer | None = None,
        session_id: str = "",
        host_name: str = "",
    ) -> IStreamClientEndpoint:
        """The way to a destination.

        @param address: the destination, resolved.
        @param timeout: seconds for everything until the stream to the destination stands.
        @param observe: is given the way to the proxy and returns what is used instead of it,
            such as a wrapper that takes the time; not for a source that is an endpoint string.
        @param session_id: of the delivery session, for what HAProxy is told of it.
        @param host_name: of the destination, likewise.
        """
        if self._template is not None:
            return self._template.endpoint(reactor, str(address), port)
        group = self.proxies
        if group is None:
            local = _of_family(self.settings.source_address, address.version)
            bind = None if local is None else str(local)
            return AddressEndpoint(reactor, str(address), port, timeout, bind)

        tlvs = header_tlvs(self.settings.ha_proxy_tlvs, session_id, host_name)

        def through(proxy: Proxy, seconds: float) -> IStreamClientEndpoint:
            return self._through(reactor, proxy, address, port, seconds, observe, tlvs)

        if len(group.proxies) == 1:
            return through(group.proxies[0], timeout)
        source = self.egress_address_for(address)
        hop = PlannedHop(
            self.protocol, group.name, "" if source is None else str(source),
            str(HostPort(str(address), port)),
        )  # fmt: skip
        return FailoverEndpoint(reactor, group, through, timeout, hop)

    def rehearsal(
        self, reactor: Any, nowhere: IPAddress, timeout: float, observe: Observer
    ) -> IStreamClientEndpoint | None:
        """The beginning of the way out, up to where the destination would be asked for: of SOCKS5
        the greeting, the login and BIND, otherwise the connection to the (first) proxy.

        @param nowhere: an address of the family that is meant; it is not asked for.
        @param observe: as for L{endpoint}.
        @return: what connects to nobody but the proxy; L{None} for a direct connection, and for an
            endpoint string of which nobody knows where it leads through.
        """
        if self._template is not None:
            return self._template.rehearsal(reactor, str(nowhere), 25)
        if self.proxies is None:
            return None
        proxy = self.proxies.proxies[0]
        return self._through(reactor, proxy, nowhere, 25, timeout, observe, (), rehearse=True)

    def _through(
        self,
        reactor: Any,
        proxy: Proxy,
        address: IPAddress,
        port: int,
        timeout: float,
        observe: Observer | None,
        tlvs: Sequence[Tlv],
        rehearse: bool = False,
    ) -> IStreamClientEndpoint:
        settings = self.settings
        local = _towards(proxy.server, settings.source_address)
        server = server_endpoint(
            reactor,
            proxy.server,
            bind_address=None if local is None else str(local),
            timeout=timeout,
        )
        if observe is not None:
            server = observe(server)
        source = self.egress_address_for(address)
        if source is None:
            # None of the family: the endpoint will say so.
            source = self.egress_address
        if self.protocol == "haproxy":
            if rehearse:
                return server
            assert source is not None
            return haproxyEndpoint(
                reactor,
                server,
                str(address),
                port,
                source=source,
                timeout=timeout,
                server_name=proxy.name,
                tlvs=tlvs,
            )
        return socks5Endpoint(
            reactor,
            server,
            str(address),
            port,
            source=source,
            username=settings.socks5_proxy_username,
            password=settings.socks5_proxy_password,
            timeout=timeout,
            verify_source_address=settings.verify_source_address,
            server_name=proxy.name,
            rehearse=rehearse,
        )

    def suspension(self, failure: BaseException | None) -> Suspension | None:
        """What was configured for a failure of this way out.

        @param failure: what the endpoint failed with; L{None} for silence behind the proxy.
        @return: L{None} where nothing was configured, or where this machine's own exhaustion is
            to blame: that passes sooner than any suspension.
        """
        kind = kind_of_failure(failure)
        if kind is FailureKind.UNPLUMBED:
            return self.settings.suspend_when_unplumbed
        if kind is FailureKind.EXHAUSTED:
            return None
        return self.settings.suspend_when_proxy_unhealthy


def kind_of_failure(failure: BaseException | None) -> FailureKind:
    """What a failure of a way out is about.

    @param failure: what the endpoint failed with; L{None} for silence behind the proxy.
    """
    cause = failure
    if not isinstance(failure, ConnectBindError):
        cause = getattr(failure, "cause", None)
    if not isinstance(cause, ConnectBindError):
        return FailureKind.PROXY_UNHEALTHY
    return FailureKind.EXHAUSTED if cause.osError in EXHAUSTED else FailureKind.UNPLUMBED


def _of_family(addresses: tuple[IPAddress, ...] | None, version: int) -> IPAddress | None:
    for address in addresses or ():
        if address.version == version:
            return address
    return None


def _towards(server: ProxyServer, local: tuple[IPAddress, ...] | None) -> IPAddress | None:
    """The local address for a connection to a proxy; the settings have checked that it fits."""
    if not local or isinstance(server, str):
        return None
    try:
        return _of_family(local, ipaddress.ip_address(server.host).version)
    except ValueError:
        return local[0]
