"""One small file over HTTPS from a server that nobody trusts: bounded in size and in time.

Twisted's C{Agent} speaks HTTP; the endpoint that it connects with is the caller's, so that a fetch
can leave through a proxy. No redirect is followed, and the certificate must be good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from kumotwist.tls.client import ClientTrust, client_tls_options

__all__ = ["EndpointForHost", "HTTPSError", "MeteredEndpoint", "TLSFailed", "request"]

#: Gives the way to a host and port.
EndpointForHost = Callable[[str, int], IStreamClientEndpoint]

#: Octets of a response beside its body: status, header, framing.
_OVERHEAD = 65536


class HTTPSError(Exception):
    """There is no usable response; the text says why."""


class TLSFailed(HTTPSError):
    """The server could be reached, and its certificate is not good or there is no TLS."""


class _Metered(ProtocolWrapper):
    """Gives up on a server that sends more than it may."""

    _received = 0

    def dataReceived(self, data: bytes) -> None:
        """Count, then pass on."""
        self._received += len(data)
        limit: int = self.factory.limit
        if self._received > limit:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]


class _Meter(WrappingFactory):
    protocol = _Metered
    noisy = False

    def __init__(self, wrapped: Any, limit: int) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self.limit = limit


@implementer(IStreamClientEndpoint)
class MeteredEndpoint:
    """An endpoint whose connections end when the server has sent too much.

    @param limit: octets.
    """

    def __init__(self, wrapped: IStreamClientEndpoint, limit: int) -> None:
        self._wrapped = wrapped
        self._limit = limit

    def connect(self, protocolFactory: Any) -> Deferred[IProtocol]:
        """Connect, and give the inner protocol."""
        protocolFactory.noisy = False
        connecting: Deferred[Any] = self._wrapped.connect(_Meter(protocolFactory, self._limit))
        return connecting.addCallback(lambda wrapper: wrapper.wrappedProtocol)


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """The ways of an agent: the caller's, metered, with TLS over them."""

    def __init__(
        self, endpoint_for: EndpointForHost, trust: ClientTrust | None, limit: int
    ) -> None:
        self._endpoint_for = endpoint_for
        self._trust = trust
        self._limit = limit

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        """The way to the host of a URI."""
        host = uri.host.decode("ascii")
        options = client_tls_options(host, verify=True, trust=self._trust)
        secured: IStreamClientEndpoint = wrapClientTLS(options, self._endpoint_for(host, uri.port))
        return MeteredEndpoint(secured, self._limit)


class _Body(Protocol):
    """Gathers a body, up to a limit."""

    def __init__(self, limit: int, done: Deferred[bytes]) -> None:
        self._limit = limit
        self._done: Deferred[bytes] | None = done
        self._octets = bytearray()

    def dataReceived(self, data: bytes) -> None:
        """Gather."""
        self._octets += data
        if len(self._octets) > self._limit:
            self._fail(f"the response is larger than {self._limit} octets")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The body is over, as it should or not."""
        if not reason.check(ResponseDone):
            self._fail("the response was cut off")
        elif self._done is not None:
            done, self._done = self._done, None
            done.callback(bytes(self._octets))

    def _fail(self, why: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            transport: Any = self.transport
            abort = getattr(transport, "abortConnection", None) or transport.loseConnection
            abort()
            done.errback(HTTPSError(why))


async def request(
    reactor: Any,
    method: bytes,
    url: str,
    endpoint_for: EndpointForHost,
    *,
    headers: dict[bytes, list[bytes]] | None = None,
    body: IBodyProducer | None = None,
    trust: ClientTrust | None = None,
    limit: int = 65536,
    timeout: float = 30.0,
) -> tuple[int, Headers, bytes]:
    """Make one request.

    @param endpoint_for: gives the way to the server; TLS is put over it here.
    @param trust: whose certificates count; the system's choice if absent.
    @param limit: octets of the body that are taken.
    @param timeout: seconds for everything together.
    @return: the status, the header and the body of the response.
    @raise HTTPSError: if there is none.
    """
    pool = HTTPConnectionPool(reactor, persistent=False)
    endpoints = _Endpoints(endpoint_for, trust, limit + _OVERHEAD)
    agent = Agent.usingEndpointFactory(reactor, endpoints, pool)
    sent = Headers({b"User-Agent": [b"kumotwist"], **(headers or {})})

    async def exchange() -> tuple[int, Headers, bytes]:
        response: IResponse = await agent.request(method, url.encode("ascii"), sent, body)
        done: Deferred[bytes] = Deferred()
        response.deliverBody(_Body(limit, done))
        return response.code, response.headers, await done

    going = Deferred.fromCoroutine(exchange())
    too_late = Failure(HTTPSError(f"no response within {timeout:g} seconds"))
    going.addTimeout(timeout, reactor, lambda *_: too_late)
    try:
        return await going
    except HTTPSError:
        raise
    except Exception as error:
        raise _explained(error) from None


def _explained(error: BaseException) -> HTTPSError:
    """Twisted's many failures in one line."""
    reasons = getattr(error, "reasons", None)
    if reasons:
        error = reasons[0].value
    words = str(error).strip() or type(error).__name__
    if type(error).__module__.startswith("OpenSSL"):
        return TLSFailed("the certificate is not good, or there is no TLS")
    return HTTPSError(" ".join(words.split())[:200])
