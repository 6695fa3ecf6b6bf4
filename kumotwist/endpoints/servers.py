"""The way to a proxy, and its name."""

from __future__ import annotations

import functools
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint

from kumotwist.endpoints.addresses import parse_ip
from kumotwist.endpoints.tcp import tcp_endpoint
from kumotwist.endpoints.template import EndpointTemplate
from kumotwist.settings.types import HostPort

__all__ = ["describe_server", "server_endpoint"]


@functools.lru_cache(maxsize=64)
def _server(text: str) -> EndpointTemplate:
    return EndpointTemplate.parse_server(text)


def server_endpoint(
    reactor: Any,
    server: HostPort | str | EndpointTemplate,
    *,
    bind_address: str | None = None,
    timeout: float = 60.0,
) -> IStreamClientEndpoint:
    """The way to a proxy.

    @param server: its address; or its name, each of whose addresses is tried until one connects;
        or a client endpoint string, for TLS, a Unix socket or another proxy. A string is parsed,
        and the certificates that it names are read, once in the life of the process; a template
        that you parsed yourself is as old as you want.
    @param bind_address: the local address to connect from; not with a string, which can say so
        itself (C{bindAddress=}).
    @param timeout: seconds for a TCP connection; not with a string, which can say so itself. The
        endpoints that go through the proxy have their own timeouts, which bound this too.
    @raise ValueError: naming what cannot be, and why.
    """
    if isinstance(server, HostPort):
        if bind_address is not None:
            bind_address = str(parse_ip(bind_address, "bind_address"))
        return tcp_endpoint(reactor, server.host, server.port, timeout, bind_address)
    if bind_address is not None:
        raise ValueError(
            "bind_address: cannot be combined with an endpoint string; write bindAddress= into it"
        )
    return (_server(server) if isinstance(server, str) else server).endpoint(reactor)


def describe_server(server: HostPort | str) -> str:
    """Where a proxy is, in one or two words and without secrets, for records and errors."""
    return str(server) if isinstance(server, HostPort) else _server(server).name
