"""Endpoint strings that are parsed once and then make endpoints as often as one is needed.

Twisted's C{clientFromString} looks for plugins, reads certificates and parses all over again at
every call, which takes milliseconds; a delivery cannot afford that. L{EndpointTemplate} does it
once and may leave the destination open: C{{host}} and C{{port}} stand for it.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IStreamClientEndpoint

from kumotwist.endpoints.hops import Route
from kumotwist.endpoints.kinds import Maker, parse_server, parse_string
from kumotwist.endpoints.strings import placeholders

__all__ = ["EndpointTemplate"]


@define(frozen=True)
class EndpointTemplate:
    """An endpoint string, parsed.

    @ivar needs_destination: whether it has a place for the destination's host or port.
    """

    needs_destination: bool
    _maker: Maker = field(alias="maker", repr=False)

    @classmethod
    def parse(cls, text: str) -> EndpointTemplate:
        """Parse a client endpoint string, in which C{{host}} and C{{port}} may stand.

        @param text: such as C{socks5:{host}:{port}:server=10.0.5.10\\:5000:source=10.0.0.4}. They
            may also stand in strings within the string; an IPv6 address is quoted as its place
            demands.
        @raise ValueError: naming the argument that cannot be, and why; never quoting a secret.
        """
        text = text.strip()
        if ":" not in text:
            raise ValueError("not an endpoint string (such as tcp:192.0.2.1:25)")
        return cls(bool(placeholders(text)), parse_string(text))

    @classmethod
    def parse_server(cls, text: str) -> EndpointTemplate:
        """Parse where a proxy is: C{HOST:PORT}, C{[V6]:PORT} or a client endpoint string."""
        return cls(bool(placeholders(text)), parse_server(text.strip()))

    @property
    def name(self) -> str:
        """What it leads to, in a few words and without secrets."""
        return self._maker.name

    @property
    def route(self) -> Route:
        """Where it leads through."""
        return self._maker.route

    def rehearsal(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint | None:
        """Make an endpoint for the beginning of the way, for whoever wants to know whether it is
        there: of SOCKS5 all that is said before CONNECT, otherwise the connection to the proxy.

        @param host: a destination of the right family; it is not asked for.
        @return: L{None} where the way leads through nothing that is known.
        """
        return self._maker.rehearsal(reactor, host, port)

    def endpoint(self, reactor: Any, host: str = "", port: int = 0) -> IStreamClientEndpoint:
        """Make an endpoint.

        @param reactor: what the endpoint connects and times with.
        @param host: the destination, for a template that needs one.
        @param port: its port.
        @raise ValueError: if the destination is missing or cannot be, such as a name where a source
            address is chosen.
        """
        if self.needs_destination and not host:
            raise ValueError("host: the endpoint string needs a destination")
        return self._maker.make(reactor, host, port)
