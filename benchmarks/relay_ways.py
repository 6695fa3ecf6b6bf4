"""The ways out that are compared: directly, or through a proxy on this machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.proxy_servers import running_servers
from benchmarks.server import SEARCH_PATH, Server, free_port

__all__ = ["WAYS", "way"]

_HAPROXY = """\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 30s
    timeout client 300s
    timeout server 300s
listen egress
    bind 127.0.0.1:{port} accept-proxy
    server destination 0.0.0.0 source 0.0.0.0 usesrc clientip
"""


@contextlib.contextmanager
def _direct(directory: Path) -> Iterator[str]:
    yield "source_address = 127.0.0.1"


@contextlib.contextmanager
def _socks(name: str, directory: Path, more: str = "") -> Iterator[str]:
    with running_servers(directory, [name]) as servers:
        if not servers:
            raise LookupError(f"{name} is not installed (make real-parts)")
        yield f"socks5_proxy_server = 127.0.0.1:{servers[0].port}\n{more}"


def _kumoproxy(directory: Path) -> contextlib.AbstractContextManager[str]:
    return _socks("kumoproxy", directory, "socks5_proxy_source_address = 127.0.0.1")


def _dante(directory: Path) -> contextlib.AbstractContextManager[str]:
    return _socks("dante", directory)


@contextlib.contextmanager
def _haproxy(directory: Path) -> Iterator[str]:
    program = shutil.which("haproxy", path=SEARCH_PATH)
    if program is None:
        raise LookupError("haproxy is not installed (make real-parts)")
    port = free_port()
    configuration = directory / "haproxy.cfg"
    configuration.write_text(_HAPROXY.format(port=port), encoding="utf-8")
    server = Server("haproxy", port, [program, "-db", "-f", str(configuration)], directory)
    try:
        server.wait()
        yield f"ha_proxy_server = 127.0.0.1:{port}\nha_proxy_source_address = 127.0.0.1"
    finally:
        server.stop()


#: By name, what starts the proxy and gives the keys of the source.
WAYS: dict[str, Callable[[Path], contextlib.AbstractContextManager[str]]] = {
    "direct": _direct,
    "kumoproxy": _kumoproxy,
    "dante": _dante,
    "haproxy": _haproxy,
}


def way(name: str, directory: Path) -> contextlib.AbstractContextManager[str]:
    """Start what a way needs.

    @return: gives the keys of C{[source:out]}.
    @raise LookupError: when it is entered: the proxy is not there.
    """
    return WAYS[name](directory)
