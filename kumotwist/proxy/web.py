"""KumoProxy's pages: C{/metrics} for Prometheus and C{/proxy/status} for health checks."""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web import http
from twisted.web.resource import Resource
from twisted.web.server import Request

from kumotwist.proxy.metrics import render_metrics
from kumotwist.proxy.service import ProxyService

__all__ = ["MetricsPage", "StatusPage", "proxy_pages"]

_TEXT = b"text/plain; charset=utf-8"


class StatusPage(Resource):
    """C{KumoProxy OK}, or 503 while one of the proxies drains or does not listen."""

    isLeaf = True

    def __init__(self, services: Iterable[ProxyService]) -> None:
        Resource.__init__(self)
        self._services = services

    def render_GET(self, request: Request) -> bytes:
        """Say how it is."""
        request.setHeader(b"content-type", _TEXT)
        wrong = [f"{one.name} is {one.status}" for one in self._services if one.status != "OK"]
        if not wrong:
            return b"KumoProxy OK\n"
        request.setResponseCode(http.SERVICE_UNAVAILABLE)
        return f"KumoProxy: {', '.join(wrong)}\n".encode()


class MetricsPage(Resource):
    """The counters as Prometheus reads them."""

    isLeaf = True

    def __init__(self, services: Iterable[ProxyService]) -> None:
        Resource.__init__(self)
        self._services = services

    def render_GET(self, request: Request) -> bytes:
        """Write them."""
        request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        return render_metrics(self._services).encode()


class _Nothing(Resource):
    """A part of a path that has nothing to say by itself."""

    def render(self, request: Request) -> bytes:
        """There is nothing here."""
        request.setResponseCode(http.NOT_FOUND)
        return b""


def proxy_pages(services: Iterable[ProxyService]) -> dict[bytes, Resource]:
    """What a site has for its proxies, by the first part of the path.

    @param services: the proxies; looked at with each request.
    """
    services = list(services)
    below = _Nothing()  # type: ignore[no-untyped-call]
    below.putChild(b"status", StatusPage(services))
    return {b"metrics": MetricsPage(services), b"proxy": below}
