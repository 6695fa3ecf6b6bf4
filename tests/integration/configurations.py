"""Pieces of configuration that several tests need."""

from __future__ import annotations

__all__ = ["LOCAL_PROXY", "direct", "through_endpoint", "through_haproxy", "through_socks5"]

LOCAL_PROXY = """
[proxy:local]
listen = 127.0.0.1:<proxy>

[proxy-rule:trial]
proxy = local
clients = 127.0.0.0/8
sources = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow
"""
"""A KumoProxy in the MTA's process that lets loopback reach loopback; C{<proxy>} is its port."""

_QUEUE = """
[queue:default]
egress_pool = out
route = <route>
retry_interval = <retry>

[path:default]
connection_limit = 4
"""


def _queue(route: str, retry: str) -> str:
    return _QUEUE.replace("<route>", route).replace("<retry>", retry)


def direct(route: str, *, address: str = "127.0.0.1", retry: str = "1s", path: str = "") -> str:
    """One source that goes out directly from an address.

    @param route: where the mail goes.
    @param retry: the first interval between attempts.
    @param path: further keys of C{[path:default]}.
    """
    source = f"\n[source:plain]\nsource_address = {address}\n\n[pool:out]\nplain = 1\n"
    return source + _queue(route, retry) + path


def through_socks5(
    route: str, proxy: object, *, source: str | None = None, retry: str = "1s", extra: str = ""
) -> str:
    """One source that goes out through a SOCKS5 proxy.

    @param proxy: C{HOST:PORT}, or the port of a proxy on 127.0.0.1.
    @param source: the source address that the proxy is asked for.
    @param extra: further keys of the source.
    """
    server = proxy if isinstance(proxy, str) else f"127.0.0.1:{proxy}"
    lines = ["", "[source:ip-1]", f"socks5_proxy_server = {server}"]
    if source is not None:
        lines.append(f"socks5_proxy_source_address = {source}")
    lines += ["ehlo_domain = mta1.examplecorp.com", extra, "", "[pool:out]", "ip-1 = 1", ""]
    return "\n".join(lines) + _queue(route, retry)


def through_endpoint(route: str, endpoint: str, *, retry: str = "1s") -> str:
    """One source that goes out through a client endpoint string.

    @param endpoint: the string, with C{{host}} and C{{port}}.
    """
    lines = ["", "[source:ip-1]", f"endpoint = {endpoint}", "", "[pool:out]", "ip-1 = 1", ""]
    return "\n".join(lines) + _queue(route, retry)


def through_haproxy(route: str, port: int, source: str, *, retry: str = "1s") -> str:
    """One source that goes out through HAProxy, as in the seed."""
    lines = ["", "[source:ip-1]", f"ha_proxy_server = 127.0.0.1:{port}"]
    lines += [f"ha_proxy_source_address = {source}", "ehlo_domain = mta1.examplecorp.com"]
    lines += ["", "[pool:out]", "ip-1 = 1", ""]
    return "\n".join(lines) + _queue(route, retry)
