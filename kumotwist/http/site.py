"""The resources of the HTTP listener, behind a check of who asks."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from kumotwist.http.admin import admin_pages
from kumotwist.http.body import BoundedRequest
from kumotwist.http.trace import TraceResource
from kumotwist.interfaces import ISteering
from kumotwist.journal.trace import Trace

__all__ = ["guarded_site", "http_site"]

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST = re.compile(r"(?:\[(?P<literal>[0-9a-f:.]+)\]|(?P<name>[0-9a-z.]+))(?::[0-9]*)?")


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


class _Directory(Resource):
    """A part of a path that has nothing to say by itself."""

    def __init__(self, children: Mapping[bytes, IResource]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for name, child in children.items():
            self.putChild(name, child)

    def getChild(self, path: bytes, request: Request) -> IResource:
        """What is not there."""
        answer: IResource = _Answer(404, error="nothing here")
        return answer

    def render(self, request: Request) -> bytes:
        """There is nothing here either."""
        return _Answer(404, error="nothing here").render(request)


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
    its own that resolves to it (DNS rebinding); and a browser that says that it asks on behalf of
    another site (Fetch Metadata, W3C; RFC 6454, 7) is refused.
    """

    isLeaf = False

    def __init__(self, trusted: Sequence[IPNetwork], inner: IResource, token: str | None) -> None:
        self._trusted = trusted
        self._inner = inner
        self._token = None if token is None else token.encode()

    def _why_not(self, request: Request) -> str:
        host = getattr(request.getClientAddress(), "host", None)
        if host is not None and not self._is_trusted(host):
            return f"{host} is not in trusted_hosts"
        name = _text(request.getHeader(b"host"))
        if name and not _is_plain_host(name):
            return "the Host header must be an address or localhost"
        if _text(request.getHeader(b"sec-fetch-site")) not in {"", "none", "same-origin"}:
            return "web pages may not ask this"
        origin = _text(request.getHeader(b"origin"))
        if origin and origin.rpartition("://")[2] != name:
            return "web pages may not ask this"
        return ""

    def _is_trusted(self, host: str) -> bool:
        """Whether a client's address is trusted; who has none has come by a Unix socket, which
        its file's mode guards."""
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._trusted)

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        reason = self._why_not(request)
        if reason:
            return _Answer(403, error=reason)
        if self._token is not None and not self._knows_token(request, self._token):
            request.setHeader(b"www-authenticate", b"Bearer")
            return _Answer(401, error="the token is missing or wrong")
        child: IResource = self._inner.getChildWithDefault(path, request)
        return child

    @staticmethod
    def _knows_token(request: Request, token: bytes) -> bool:
        scheme, _, given = (request.getHeader(b"authorization") or b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)

    def putChild(self, path: bytes, child: IResource) -> None:
        self._inner.putChild(path, child)

    def render(self, request: Request) -> Any:
        return _Answer(403 if self._why_not(request) else 404, error="nothing here").render(request)


def _text(header: bytes | None) -> str:
    """A header's value; empty if it is not there."""
    return "" if header is None else header.decode("latin-1").strip().lower()


def _is_plain_host(name: str) -> bool:
    """Whether a C{Host} header names an address or C{localhost}, with or without a port."""
    match = _HOST.fullmatch(name)
    if match is None:
        return False
    if match["name"] == "localhost":
        return True
    try:
        ipaddress.ip_address(match["literal"] or match["name"])
    except ValueError:
        return False
    return True


def guarded_site(
    reactor: Any,
    trusted: Sequence[IPNetwork],
    pages: Mapping[bytes, IResource],
    token: str | None = None,
) -> Site:
    """Build a site that only trusted clients may ask.

    @param reactor: times idle clients out.
    @param trusted: networks whose clients may ask.
    @param pages: what it has, by the first part of the path.
    @param token: what clients must show besides; L{None} for nothing.
    """
    guard = _TrustedOnly(trusted, _Directory(pages), token)
    site = Site(guard, requestFactory=BoundedRequest, reactor=reactor)
    site.noisy = False
    site.displayTracebacks = False
    return site


def http_site(
    reactor: Any,
    trusted: Sequence[IPNetwork],
    trace: Trace,
    why_not_live: Callable[[], str],
    pages: Mapping[bytes, IResource] | None = None,
    steering: ISteering | None = None,
    token: str | None = None,
) -> Site:
    """Build what a node's HTTP listener serves.

    @param reactor: times idle clients out.
    @param trusted: networks whose clients may ask.
    @param trace: the live trace.
    @param why_not_live: says why no mail is taken; empty while it is.
    @param pages: what other parts of the node have to show, by the first part of the path.
    @param steering: the node's queues; without it there is no C{/api/admin}.
    @param token: what clients must show; L{None} for nothing.
    """
    resources = {b"trace": TraceResource(trace), b"check-liveness": _Liveness(why_not_live)}
    api = {name: _Directory({b"v1": resource}) for name, resource in resources.items()}
    if steering is not None:
        admin = admin_pages(steering)
        versions = {name: _Directory({b"v1": resource}) for name, resource in admin.items()}
        api[b"admin"] = _Directory(versions)
    return guarded_site(reactor, trusted, {b"api": _Directory(api), **(pages or {})}, token)
