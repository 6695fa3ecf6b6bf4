"""The resources of the HTTP listener, behind a check of who asks."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from kumotwist.http.trace import TraceResource
from kumotwist.journal.trace import Trace

__all__ = ["http_site"]

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Answer(Resource):
    """A fixed status with a JSON body."""

    isLeaf = True

    def __init__(self, code: int, **facts: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._code = code
        self._facts = facts

    def render(self, request: Request) -> bytes:
        """Give the answer, whatever the method is."""
        request.setResponseCode(self._code)
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(self._facts).encode() + b"\n"


class _Liveness(Resource):
    """C{/api/check-liveness/v1}: 200 while the node takes mail, else 503 with the reason."""

    isLeaf = True

    def __init__(self, why_not: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._why_not = why_not

    def render_GET(self, request: Request) -> bytes:
        """Say whether mail is taken."""
        reason = self._why_not()
        answer = _Answer(503, error=reason) if reason else _Answer(200, status="ok")
        return answer.render(request)


@implementer(IResource)
class _TrustedOnly:
    """Lets only trusted clients reach what is behind it.

    C{Forwarded} headers are not believed: they say what the client likes. The C{Host} header must
    be an address or C{localhost}, so that a web page cannot reach a loopback listener by a name of
    its own that resolves to it.
    """

    isLeaf = False

    def __init__(self, trusted: Sequence[IPNetwork], inner: IResource) -> None:
        self._trusted = trusted
        self._inner = inner

    def _why_not(self, request: Request) -> str:
        host = getattr(request.getClientAddress(), "host", None)
        if host is not None:  # a Unix socket has no address: its file's mode guards it
            address = ipaddress.ip_address(host.partition("%")[0])
            mapped = getattr(address, "ipv4_mapped", None)
            if not any((mapped or address) in network for network in self._trusted):
                return f"{host} is not in trusted_hosts"
        name = request.getRequestHostname().decode("ascii", "replace").strip("[]")
        if name and name != "localhost":
            try:
                ipaddress.ip_address(name)
            except ValueError:
                return "the Host header must be an address or localhost"
        return ""

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        reason = self._why_not(request)
        if reason:
            return _Answer(403, error=reason)
        child: IResource = self._inner.getChildWithDefault(path, request)
        return child

    def putChild(self, path: bytes, child: IResource) -> None:
        self._inner.putChild(path, child)

    def render(self, request: Request) -> Any:
        return _Answer(403 if self._why_not(request) else 404, error="nothing here").render(request)


def http_site(trusted: Sequence[IPNetwork], trace: Trace, why_not_live: Callable[[], str]) -> Site:
    """Build what an HTTP listener serves.

    @param trusted: networks whose clients may ask.
    @param trace: the live trace.
    @param why_not_live: says why no mail is taken; empty while it is.
    """
    api = Resource()
    for name, resource in (
        (b"trace", TraceResource(trace)),
        (b"check-liveness", _Liveness(why_not_live)),
    ):
        versions = Resource()
        versions.putChild(b"v1", resource)
        api.putChild(name, versions)
    root = Resource()
    root.putChild(b"api", api)
    site = Site(_TrustedOnly(trusted, root))
    site.noisy = False
    site.displayTracebacks = False
    return site
