"""An egress source: one way out, from its settings to a connected endpoint."""

from __future__ import annotations

import ipaddress
from typing import Any

import attrs
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from kumotwist.egress.settings import SourceSettings
from kumotwist.endpoints import EndpointTemplate, haproxyEndpoint, server_endpoint, socks5Endpoint

__all__ = ["Source"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@attrs.define(frozen=True)
class Source:
    """One way out.

    @ivar settings: what was configured.
    @ivar protocol: C{"socks5"}, C{"haproxy"} or C{""} for a direct connection.
    @ivar server: the proxy, in words for records and errors; empty for a direct connection.
    """

    settings: SourceSettings
    protocol: str = ""
    server: str = ""
    _template: EndpointTemplate | None = attrs.field(default=None, repr=False)

    @classmethod
    def of(cls, settings: SourceSettings) -> Source:
        """Build a source; everything that can be parsed is parsed here, once."""
        if settings.endpoint is not None:
            return cls(settings, template=EndpointTemplate.parse(settings.endpoint))
        if settings.socks5_proxy_server is not None:
            return cls(settings, "socks5", str(settings.socks5_proxy_server))
        if settings.ha_proxy_server is not None:
            return cls(settings, "haproxy", str(settings.ha_proxy_server))
        return cls(settings)

    @property
    def name(self) -> str:
        """The name that records and queues show."""
        return self.settings.name

    @property
    def egress_address(self) -> IPAddress | None:
        """The address that the destination shall see, or L{None} where nothing chooses it."""
        if self.protocol == "socks5":
            return self.settings.socks5_proxy_source_address
        if self.protocol == "haproxy":
            return self.settings.ha_proxy_source_address
        return self.settings.source_address if self._template is None else None

    def reaches(self, address: IPAddress) -> bool:
        """Whether a destination's address is of the family that this source sends from."""
        mine = self.egress_address
        return mine is None or mine.version == address.version

    def endpoint(
        self, reactor: Any, address: IPAddress, port: int, timeout: float
    ) -> IStreamClientEndpoint:
        """The way to a destination.

        @param address: the destination, resolved.
        @param timeout: seconds for everything until the stream to the destination stands.
        """
        host = str(address)
        local = self.settings.source_address
        if self._template is not None:
            return self._template.endpoint(reactor, host, port)
        if not self.protocol:
            kind = TCP4ClientEndpoint if address.version == 4 else TCP6ClientEndpoint
            bind = None if local is None else (str(local), 0)
            endpoint: IStreamClientEndpoint = kind(reactor, host, port, timeout, bind)
            return endpoint
        return self._through_proxy(reactor, host, port, timeout)

    def _through_proxy(
        self, reactor: Any, host: str, port: int, timeout: float
    ) -> IStreamClientEndpoint:
        settings = self.settings
        local = settings.source_address
        proxy = settings.socks5_proxy_server or settings.ha_proxy_server
        assert proxy is not None
        server = server_endpoint(
            reactor, proxy, bind_address=None if local is None else str(local), timeout=timeout
        )
        if self.protocol == "haproxy":
            assert settings.ha_proxy_source_address is not None
            return haproxyEndpoint(
                reactor,
                server,
                host,
                port,
                source=settings.ha_proxy_source_address,
                timeout=timeout,
                server_name=self.server,
            )
        return socks5Endpoint(
            reactor,
            server,
            host,
            port,
            source=settings.socks5_proxy_source_address,
            username=settings.socks5_proxy_username,
            password=settings.socks5_proxy_password,
            timeout=timeout,
            verify_source_address=settings.verify_source_address,
            server_name=self.server,
        )
