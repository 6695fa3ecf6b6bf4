"""Endpoints that lead through an HTTP proxy by CONNECT (RFC 9110, 9.3.6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kumotwist.endpoints.addresses import parse_destination
from kumotwist.endpoints.connecting import (
    ProxiedEndpoint,
    ReactorlessEndpoint,
    check_timeout,
    describe_endpoint,
)
from kumotwist.endpoints.errors import ProxyLoginError, ProxyNegotiationError, ProxyRefusedError
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.http_connect import Established, HTTPConnectClient, Refused
from kumotwist.wire.need_data import NEED_DATA

__all__ = ["HTTPConnectClientEndpoint", "httpConnectEndpoint"]

# 401 is an origin server's word, but tinyproxy says so too of a wrong login; and as nobody but the
# proxy answers a CONNECT, it can mean nothing else.
_LOGIN_REQUIRED = frozenset({401, 407})


class _HTTPNegotiation:
    """Pumps an L{HTTPConnectClient} and turns its refusals into errors that name the hop."""

    answers = True
    unanswered = False
    source_address = ""
    login_unused = False

    def __init__(
        self, make_client: Callable[[], HTTPConnectClient], has_login: bool, hop: PlannedHop
    ) -> None:
        self._client = make_client()
        self._has_login = has_login
        self._hop = hop

    @property
    def phase(self) -> str:
        return self._client.phase

    @property
    def done(self) -> bool:
        return self._client.phase == "established"

    @property
    def trailing(self) -> bytes:
        return self._client.trailing_data

    def start(self) -> bytes:
        return self._client.start()

    def receive(self, data: bytes) -> bytes:
        self._client.receive_data(data)
        try:
            event = self._client.next_event()
        except RemoteProtocolError as error:
            raise ProxyNegotiationError(self._hop, "connect-request", str(error), error) from None
        if event is NEED_DATA or isinstance(event, Established):
            return b""
        raise self._refusal(event)

    def _refusal(self, event: Refused) -> Exception:
        if event.status in _LOGIN_REQUIRED:
            what = "refused the login" if self._has_login else "wants a login"
            problem = f"the proxy {what} (HTTP {event.status})"
            return ProxyLoginError(self._hop, "login", problem)
        return ProxyRefusedError.of_status(self._hop, event.status, event.reason)


def httpConnectEndpoint(
    reactor: IReactorTime,
    server: IStreamClientEndpoint,
    host: str,
    port: int,
    *,
    username: str | None = None,
    password: str | None = None,
    timeout: float = 60.0,
    server_name: str = "",
) -> IStreamClientEndpoint:
    """Wrap the way to an HTTP proxy into the way, through the proxy, to a destination.

    The proxy chooses the source address and does not tell it. Most allow CONNECT to port 443 only
    unless they are configured otherwise.

    The transport of what is connected provides L{kumotwist.interfaces.IProxiedTransport}:
    C{getPeer()} is the destination, C{getProxy()} the L{ProxyHop}.

    @param reactor: times the whole, and TLS.
    @param server: the way to the proxy: TCP, TLS, a Unix socket, another proxy.
    @param host: the destination: an IP address, or a name that the proxy shall resolve.
    @param username: for the Basic scheme (RFC 7617); without a colon. It is sent with the request,
        also to a proxy that would not ask for it, and readable to everybody unless C{server} is
        TLS.
    @param password: may be empty.
    @param timeout: seconds for everything: connecting to the proxy, and its connecting to the
        destination.
    @param server_name: the proxy in errors and in L{ProxyHop.server}, such as C{10.0.5.10:3128};
        by default the connection's peer.
    @return: an endpoint whose C{connect} fails with an L{EgressError}; see
        L{kumotwist.endpoints.errors}.
    @raise ValueError: naming the argument that cannot be, and why.
    """
    return _endpoint(
        reactor,
        server,
        host,
        port,
        username=username,
        password=password,
        timeout=timeout,
        server_name=server_name,
    )


def _endpoint(
    reactor: IReactorTime | None,
    server: IStreamClientEndpoint,
    host: str,
    port: int,
    *,
    username: str | None,
    password: str | None,
    timeout: float,
    server_name: str = "",
) -> ProxiedEndpoint:
    destination = parse_destination(host, port)
    for argument, value in (("username", username), ("password", password)):
        if value is None and (username is not None or password is not None):
            raise ValueError(f"{argument}: missing; a login needs a user name and a password")
    _say("host", partial(HTTPConnectClient, destination))
    make_client = partial(HTTPConnectClient, destination, username=username, password=password)
    _say("username, password", make_client)
    return ProxiedEndpoint(
        clock=reactor,
        server=server,
        destination=destination,
        source=None,
        hop=PlannedHop(
            "http-connect", server_name or describe_endpoint(server), "", str(destination)
        ),
        timeout=check_timeout(timeout),
        named=bool(server_name),
        negotiate=partial(_HTTPNegotiation, make_client, username is not None),
    )


def _say(arguments: str, make_client: Callable[[], HTTPConnectClient]) -> None:
    """Raise L{ValueError}, without secrets, for arguments that cannot be said in HTTP."""
    try:
        make_client()
    except LocalProtocolError as error:
        raise ValueError(f"{arguments}: {error}") from None


class HTTPConnectClientEndpoint(ReactorlessEndpoint):
    """What L{httpConnectEndpoint} makes, as a class; L{ReactorlessEndpoint} says what times it."""

    def __init__(
        self,
        host: str,
        port: int,
        proxyEndpoint: IStreamClientEndpoint,
        *,
        username: str | None = None,
        password: str | None = None,
        reactor: IReactorTime | None = None,
        timeout: float = 60.0,
    ) -> None:
        """
        @param proxyEndpoint: the way to the proxy.
        @raise ValueError: naming the argument that cannot be, and why.
        """
        super().__init__(
            _endpoint(
                reactor,
                proxyEndpoint,
                host,
                port,
                username=username,
                password=password,
                timeout=timeout,
            )
        )
