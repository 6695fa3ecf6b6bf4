"""Client endpoints that lead through SOCKS5 and HTTP proxies and HAProxy, for any Twisted program.

An endpoint is wrapped around the way to a proxy and leads to a destination::

    proxy = TCP4ClientEndpoint(reactor, "10.0.5.10", 5000)
    endpoint = socks5Endpoint(reactor, proxy, "192.0.2.1", 25, source="10.0.0.1")
    connecting = endpoint.connect(factory)

or made of a string that C{clientFromString} knows once this package is installed::

    socks5:192.0.2.1:25:server=10.0.5.10\\:5000:source=10.0.0.1

The way to the proxy may be any endpoint, so TLS, a Unix socket and other proxies stack.

C{connect} fires when the proxy has connected to the destination, with the protocol of the caller's
factory; its transport's C{getPeer()} is the destination and C{getProxy()} the L{ProxyHop}. It
fails with an L{EgressError}, a class for each thing that can go wrong, each of which says whether
the proxy or the destination is to blame.

Names are imported at their first use: whoever parses any endpoint string imports the package of
every parser plugin, and should not pay for this one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kumotwist.endpoints.errors import (
        AddressFamilyMismatchError,
        AddressTypeNotSupportedError,
        CommandNotSupportedError,
        DestinationRefusedError,
        EgressError,
        GeneralFailureError,
        HostUnreachableError,
        NegotiationTimeoutError,
        NetworkUnreachableError,
        NotAllowedError,
        ProxyBindError,
        ProxyConnectError,
        ProxyLoginError,
        ProxyNegotiationError,
        ProxyRefusedError,
        SuspectedProxyError,
        TTLExpiredError,
    )
    from kumotwist.endpoints.haproxy import HAProxyClientEndpoint, haproxyEndpoint
    from kumotwist.endpoints.hops import ProxyHop
    from kumotwist.endpoints.http_connect import HTTPConnectClientEndpoint, httpConnectEndpoint
    from kumotwist.endpoints.servers import describe_server, server_endpoint
    from kumotwist.endpoints.socks5 import SOCKS5ClientEndpoint, socks5Endpoint
    from kumotwist.endpoints.template import EndpointTemplate

__all__ = [
    "AddressFamilyMismatchError",
    "AddressTypeNotSupportedError",
    "CommandNotSupportedError",
    "DestinationRefusedError",
    "EgressError",
    "EndpointTemplate",
    "GeneralFailureError",
    "HAProxyClientEndpoint",
    "HTTPConnectClientEndpoint",
    "HostUnreachableError",
    "NegotiationTimeoutError",
    "NetworkUnreachableError",
    "NotAllowedError",
    "ProxyBindError",
    "ProxyConnectError",
    "ProxyHop",
    "ProxyLoginError",
    "ProxyNegotiationError",
    "ProxyRefusedError",
    "SOCKS5ClientEndpoint",
    "SuspectedProxyError",
    "TTLExpiredError",
    "describe_server",
    "haproxyEndpoint",
    "httpConnectEndpoint",
    "server_endpoint",
    "socks5Endpoint",
]

_HOMES = {
    "EndpointTemplate": "template",
    "HAProxyClientEndpoint": "haproxy",
    "HTTPConnectClientEndpoint": "http_connect",
    "ProxyHop": "hops",
    "SOCKS5ClientEndpoint": "socks5",
    "describe_server": "servers",
    "haproxyEndpoint": "haproxy",
    "httpConnectEndpoint": "http_connect",
    "server_endpoint": "servers",
    "socks5Endpoint": "socks5",
}


def __getattr__(name: str) -> Any:
    """Import a name of C{__all__} from its module: one of C{_HOMES}, else C{errors}."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no {name}")
    module = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = getattr(module, name)
    return value
