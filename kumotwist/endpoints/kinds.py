"""The kinds of endpoints that strings can name, each parsed into a L{Maker}.

What leads through proxies, or is likely to lead to one, is built here; other prefixes are looked
up among Twisted's own and its plugins.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self
from typing import Protocol as Shape

from attrs import define, field
from twisted.internet.endpoints import TCP4ClientEndpoint, clientFromString, wrapClientTLS
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import getPlugins

from kumotwist.endpoints.addresses import parse_ip, parse_source
from kumotwist.endpoints.arguments import Arguments, Target, check_host, check_port
from kumotwist.endpoints.haproxy import haproxyEndpoint
from kumotwist.endpoints.hops import FOREIGN, Route
from kumotwist.endpoints.http_connect import httpConnectEndpoint
from kumotwist.endpoints.socks5 import socks5Endpoint
from kumotwist.endpoints.strings import fill, join_arguments, placeholders, split_arguments
from kumotwist.endpoints.tcp import tcp_endpoint
from kumotwist.endpoints.tls import TLSCredentials
from kumotwist.settings.types import parse_host_port
from kumotwist.wire.proxy_v2 import Tlv, TlvType
from kumotwist.wire.socks5.client import IPAddress

__all__ = ["Maker", "parse_arguments", "parse_server", "parse_string"]

_TWISTEDS_OWN = frozenset({"ssl", "unix"})
_TLVS = {"uniqueId": TlvType.UNIQUE_ID, "authority": TlvType.AUTHORITY, "alpn": TlvType.ALPN}
_PROXY_TIMEOUT = 60.0
_TCP_TIMEOUT = 30.0

#: Stands for the way to a proxy while other arguments are checked; it is never connected.
_UNUSED: Final = TCP4ClientEndpoint(None, "192.0.2.1", 1)


class Maker(Shape):
    """One part of a parsed string: makes its endpoint for a destination."""

    @property
    def name(self) -> str:
        """What it leads to, in words and without secrets."""

    @property
    def route(self) -> Route:
        """Where it leads through."""

    def make(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        """The endpoint, with the destination in the place of the placeholders."""

    def rehearsal(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint | None:
        """The beginning of the way, up to where the destination would be asked for; L{None} where
        nothing comes before that."""


@define(frozen=True)
class _TCP:
    """C{tcp:HOST:PORT[:timeout=30][:bindAddress=ADDR]}, and what C{HOST:PORT} is short for."""

    target: Target
    timeout: float
    bind_address: str | None = None

    @classmethod
    def parse(cls, arguments: Arguments) -> _TCP:
        target = Target.take(arguments)
        timeout = arguments.seconds("timeout", _TCP_TIMEOUT)
        bind_address = arguments.take("bindAddress")
        if bind_address is not None:
            bind_address = str(parse_ip(bind_address, "bindAddress"))
        return cls(target, timeout, bind_address)

    @property
    def name(self) -> str:
        return str(self.target)

    def make(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        host, port = self.target.of(host, port)
        return tcp_endpoint(reactor, host, port, self.timeout, self.bind_address)

    @property
    def route(self) -> Route:
        bind = self.bind_address
        return Route(source=None if bind is None else ipaddress.ip_address(bind))

    def rehearsal(self, reactor: Any, host: str, port: int) -> None:
        return None


@define(frozen=True)
class _TLS:
    """Twisted's C{tls:}, with its certificates read once."""

    target: Target
    credentials: TLSCredentials = field(repr=False)
    below: Maker

    @classmethod
    def parse(cls, arguments: Arguments) -> _TLS:
        tcp = _TCP.parse(arguments)
        credentials = TLSCredentials.load(
            trust_roots=arguments.take("trustRoots"),
            certificate=arguments.take("certificate"),
            private_key=arguments.take("privateKey"),
        )
        below = arguments.take("endpoint")
        maker: Maker = tcp if below is None else _within("endpoint", parse_string, below)
        return cls(tcp.target, credentials, maker)

    @property
    def name(self) -> str:
        return f"tls:{self.target}"

    def make(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        peer, _ = self.target.of(host, port)
        below = self.below.make(reactor, host, port)
        return wrapClientTLS(self.credentials.for_peer(peer), below, clock=reactor)

    @property
    def route(self) -> Route:
        return self.below.route

    def rehearsal(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint | None:
        return self.below.rehearsal(reactor, host, port)


@define(frozen=True, kw_only=True)
class _ThroughProxy:
    """What the kinds that lead through a proxy have in common.

    The functions that make the endpoints know what can be said to a proxy; L{checked} asks them
    when the string is parsed instead of when connecting.
    """

    target: Target
    server: Maker
    timeout: float

    @property
    def name(self) -> str:
        return str(self.target)

    def wrap(
        self, reactor: Any, server: IStreamClientEndpoint, host: str, port: int
    ) -> IStreamClientEndpoint:
        """The endpoint for a destination, around the way to the proxy."""
        raise NotImplementedError

    def make(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        server = self.server.make(reactor, host, port)
        return self.wrap(reactor, server, *self.target.of(host, port))

    @property
    def route(self) -> Route:
        raise NotImplementedError

    def rehearsal(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint | None:
        # These kinds of proxies are asked nothing without a destination.
        return self.server.make(reactor, host, port)

    def checked(self, source: IPAddress | None = None) -> Self:
        """This, or L{ValueError} for arguments that no endpoint can be made of."""
        self.wrap(None, _UNUSED, *_example(self.target, source))
        return self


@define(frozen=True, kw_only=True)
class _SOCKS5(_ThroughProxy):
    """C{socks5:HOST:PORT:server=SERVER[:source=ADDR][:verifySource=no]
    [:username=U:password=P][:timeout=60]}."""

    source: IPAddress | None
    verify_source: bool
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, arguments: Arguments) -> _SOCKS5:
        target = Target.take(arguments)
        timeout, server = _take_server(arguments)
        source = arguments.take("source")
        made = cls(
            target=target,
            server=server,
            source=None if source is None else parse_source(source),
            verify_source=arguments.boolean("verifySource", True),
            username=arguments.take("username"),
            password=arguments.take("password"),
            timeout=timeout,
        )
        return made.checked(made.source)

    @property
    def route(self) -> Route:
        return Route("socks5", self.server.name, self.source, self.username)

    def rehearsal(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint | None:
        server = self.server.make(reactor, host, port)
        return self.wrap(reactor, server, *self.target.of(host, port), rehearse=True)

    def wrap(
        self,
        reactor: Any,
        server: IStreamClientEndpoint,
        host: str,
        port: int,
        rehearse: bool = False,
    ) -> IStreamClientEndpoint:
        return socks5Endpoint(
            reactor,
            server,
            host,
            port,
            source=self.source,
            verify_source_address=self.verify_source,
            username=self.username,
            password=self.password,
            timeout=self.timeout,
            server_name=self.server.name,
            rehearse=rehearse,
        )


@define(frozen=True, kw_only=True)
class _HTTPConnect(_ThroughProxy):
    """C{http-connect:HOST:PORT:server=SERVER[:username=U:password=P][:timeout=60]}."""

    username: str | None = field(repr=False)
    password: str | None = field(repr=False)

    @classmethod
    def parse(cls, arguments: Arguments) -> _HTTPConnect:
        target = Target.take(arguments)
        timeout, server = _take_server(arguments)
        return cls(
            target=target,
            server=server,
            username=arguments.take("username"),
            password=arguments.take("password"),
            timeout=timeout,
        ).checked()

    @property
    def route(self) -> Route:
        return Route("http-connect", self.server.name, None, self.username)

    def wrap(
        self, reactor: Any, server: IStreamClientEndpoint, host: str, port: int
    ) -> IStreamClientEndpoint:
        return httpConnectEndpoint(
            reactor,
            server,
            host,
            port,
            username=self.username,
            password=self.password,
            timeout=self.timeout,
            server_name=self.server.name,
        )


@define(frozen=True, kw_only=True)
class _HAProxy(_ThroughProxy):
    """C{haproxy:HOST:PORT:server=SERVER:source=ADDR[:timeout=60]}, and what else the header says:
    C{[:uniqueId=ID][:authority=NAME][:alpn=NAME]}."""

    source: IPAddress
    tlvs: tuple[Tlv, ...]

    @classmethod
    def parse(cls, arguments: Arguments) -> _HAProxy:
        target = Target.take(arguments)
        timeout, server = _take_server(arguments)
        source = parse_source(arguments.require("source", "source=10.0.0.1"))
        facts = ((kind, arguments.take(name)) for name, kind in _TLVS.items())
        tlvs = tuple(Tlv(kind, text.encode()) for kind, text in facts if text is not None)
        made = cls(target=target, server=server, source=source, tlvs=tlvs, timeout=timeout)
        return made.checked(source)

    @property
    def route(self) -> Route:
        return Route("haproxy", self.server.name, self.source)

    def wrap(
        self, reactor: Any, server: IStreamClientEndpoint, host: str, port: int
    ) -> IStreamClientEndpoint:
        return haproxyEndpoint(
            reactor,
            server,
            host,
            port,
            source=self.source,
            timeout=self.timeout,
            server_name=self.server.name,
            tlvs=self.tlvs,
        )


@define(frozen=True)
class _Foreign:
    """An endpoint of another kind, which a plugin or Twisted itself builds."""

    prefix: str
    positional: tuple[str, ...] = field(repr=False)
    named: Mapping[str, str] = field(repr=False)
    plugin: IStreamClientEndpointStringParserWithReactor | None

    @property
    def name(self) -> str:
        """The address, of the kinds that Twisted has; else the prefix: the rest may be secret."""
        if self.prefix not in _TWISTEDS_OWN:
            return self.prefix
        named = [self.named[key] for key in ("path", "host", "port") if key in self.named]
        return ":".join([self.prefix, *self.positional, *named])

    def make(self, reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
        positional = [fill(value, host, port) for value in self.positional]
        named = {name: fill(value, host, port) for name, value in self.named.items()}
        made: IStreamClientEndpoint
        if self.plugin is None:
            made = clientFromString(reactor, join_arguments([self.prefix, *positional], named))
        else:
            made = self.plugin.parseStreamClient(reactor, *positional, **named)
        return made

    @property
    def route(self) -> Route:
        return Route(FOREIGN, self.name)

    def rehearsal(self, reactor: Any, host: str, port: int) -> None:
        return None


def _example(target: Target, source: IPAddress | None) -> tuple[str, int]:
    """A destination to check arguments with: the literal one, or one of the right family."""
    host, port = target.of("2001:db8::1" if source and source.version == 6 else "192.0.2.1", 25)
    if source is not None:
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            version = source.version  # a name; whether that is possible is not decided here
        if version != source.version:
            raise ValueError(f"source: {source} is not of the same family as the host {host}")
    return host, port


_KINDS: dict[str, Callable[[Arguments], Maker]] = {
    "haproxy": _HAProxy.parse,
    "http-connect": _HTTPConnect.parse,
    "socks5": _SOCKS5.parse,
    "tcp": _TCP.parse,
    "tls": _TLS.parse,
}


def _within(argument: str, parse: Callable[[str], Maker], text: str) -> Maker:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from None


def _take_server(arguments: Arguments) -> tuple[float, Maker]:
    """The timeout, and the server, whose TCP connection has as much."""
    timeout = arguments.seconds("timeout", _PROXY_TIMEOUT)
    server = arguments.require("server", "server=10.0.5.10\\:5000")
    return timeout, _within("server", functools.partial(parse_server, timeout=timeout), server)


def parse_server(text: str, *, timeout: float = _PROXY_TIMEOUT) -> Maker:
    """C{HOST:PORT}, C{[V6]:PORT}, or a client endpoint string."""
    try:
        server = parse_host_port(text)
    except ValueError:
        if ":" not in text:
            raise ValueError(
                "neither HOST\\:PORT nor a client endpoint string (such as "
                "tls\\:proxy.example.com\\:1080)"
            ) from None
        _, colon, port = text.partition("]:" if text.startswith("[") else ":")
        if colon and port.isdigit():
            check_port(port)  # HOST:PORT was meant, whatever else is wrong with it
        return parse_string(text)
    return _TCP(Target(check_host(server.host), str(server.port)), timeout)


def parse_string(text: str) -> Maker:
    """Parse a client endpoint string; raises what L{parse_arguments} raises."""
    positional, named = split_arguments(text)
    return parse_arguments(positional[0].lower() if positional else "", positional[1:], named)


def parse_arguments(prefix: str, positional: Sequence[str], named: Mapping[str, str]) -> Maker:
    """Parse the arguments of an endpoint string that has been taken apart.

    @param prefix: the kind, in lower case.
    @raise ValueError: naming the argument that cannot be, and why; never quoting a secret.
    """
    kind = _KINDS.get(prefix)
    if kind is None:
        return _parse_foreign(prefix, positional, named)
    arguments = Arguments(positional, named)
    try:
        made = kind(arguments)
        arguments.finish()
    except ValueError as error:
        raise ValueError(f"{prefix}: {error}") from None
    return made


def _parse_foreign(prefix: str, positional: Sequence[str], named: Mapping[str, str]) -> Maker:
    for value in (*positional, *named.values()):
        placeholders(value)
    if prefix in _TWISTEDS_OWN:
        made = _Foreign(prefix, tuple(positional), dict(named), None)
        try:
            made.make(None, "192.0.2.1", 25)  # these keep the reactor for later
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ValueError(f"{prefix}: {error}") from None
        return made
    for plugin in getPlugins(IStreamClientEndpointStringParserWithReactor):
        if plugin.prefix.lower() == prefix:
            return _Foreign(prefix, tuple(positional), dict(named), plugin)
    raise ValueError(f"unknown endpoint type {prefix[:32]!r}")
