"""Endpoints that lead through a SOCKS5 proxy (RFC 1928, RFC 1929), with a chosen source address."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint

from kumotwist.endpoints.addresses import parse_destination, parse_source
from kumotwist.endpoints.connecting import (
    ProxiedEndpoint,
    ReactorlessEndpoint,
    check_timeout,
    describe_endpoint,
)
from kumotwist.endpoints.errors import (
    EgressError,
    NotAllowedError,
    ProxyBindError,
    ProxyLoginError,
    ProxyNegotiationError,
    ProxyRefusedError,
)
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.socks5.client import (
    BindRefused,
    ConnectRefused,
    Established,
    IPAddress,
    LoginRefused,
    NoAcceptableMethod,
    Send,
    SOCKS5Client,
    SourceMismatch,
)
from kumotwist.wire.socks5.format import Address, Rep

__all__ = ["SOCKS5ClientEndpoint", "socks5Endpoint"]


#: Its rules may ask for a user whom it never asked to log in.
_NO_LOGIN = "; it asked for no login, so the one that is configured was not used"


class _SOCKS5Negotiation:
    """Pumps a L{SOCKS5Client} and turns its refusals into errors that name the hop."""

    answers = True

    def __init__(self, make_client: Callable[[], SOCKS5Client], hop: PlannedHop) -> None:
        self._client = make_client()
        self._hop = hop
        self.source_address = ""
        self.done = False

    @property
    def phase(self) -> str:
        return self._client.phase

    @property
    def unanswered(self) -> bool:
        return self._client.unanswered

    @property
    def trailing(self) -> bytes:
        return self._client.trailing_data

    @property
    def login_unused(self) -> bool:
        return self._client.login_unused

    def start(self) -> bytes:
        return self._client.start()

    def receive(self, data: bytes) -> bytes:
        self._client.receive_data(data)
        answer = b""
        while True:
            phase = self._client.phase
            try:
                event = self._client.next_event()
            except RemoteProtocolError as error:
                raise ProxyNegotiationError(self._hop, phase, str(error), error) from None
            if event is NEED_DATA:
                return answer
            if isinstance(event, Send):
                answer += event.data
            elif isinstance(event, Established):
                self.done = True
                self.source_address = "" if event.source is None else str(event.source)
                return answer
            else:
                refusal = self._refusal(event)
                refusal.login_unused = self.login_unused
                raise refusal

    def _refusal(
        self,
        event: NoAcceptableMethod | LoginRefused | BindRefused | SourceMismatch | ConnectRefused,
    ) -> EgressError:
        hop = self._hop
        if isinstance(event, ConnectRefused):
            if event.rep == Rep.NOT_ALLOWED and self.login_unused:
                return NotAllowedError(hop, event.rep, note=_NO_LOGIN)
            return ProxyRefusedError.of(hop, event.rep)
        if isinstance(event, BindRefused):
            note = _NO_LOGIN if self.login_unused else ""
            problem = f"the proxy refused to bind {hop.source} ({_rep_text(event.rep)}){note}"
            return ProxyBindError(hop, "bind", problem, rep=event.rep)
        if isinstance(event, SourceMismatch):
            verb = "bound" if event.phase == "bind" else "used"
            problem = f"the proxy {verb} {event.reported} instead of {event.asked}"
            return ProxyBindError(hop, event.phase, problem)
        if isinstance(event, LoginRefused):
            problem = f"the proxy refused the login (status {event.status:02x})"
            return ProxyLoginError(hop, "login", problem)
        return ProxyNegotiationError(
            hop, "greeting", "the proxy accepts none of the offered authentication methods"
        )


def _rep_text(rep: int) -> str:
    try:
        return f"REP {rep:02x}, {Rep(rep).name.lower().replace('_', ' ')}"
    except ValueError:
        return f"REP {rep:02x}"


def _check_login(username: str | None, password: str | None) -> None:
    """Raise L{ValueError}, without the secrets, for a login that cannot be said (RFC 1929, 2)."""
    for argument, value in (("username", username), ("password", password)):
        if value is None:
            if username is not None or password is not None:
                raise ValueError(f"{argument}: missing; a login needs a user name and a password")
            continue
        try:
            size = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            raise ValueError(f"{argument}: cannot be said in UTF-8") from None
        if not 1 <= size <= 255:
            raise ValueError(f"{argument}: {size} octets long (1 to 255 are possible)")


def socks5Endpoint(
    reactor: IReactorTime,
    server: IStreamClientEndpoint,
    host: str,
    port: int,
    *,
    source: IPAddress | str | None = None,
    username: str | None = None,
    password: str | None = None,
    timeout: float = 60.0,
    verify_source_address: bool = True,
    server_name: str = "",
    rehearse: bool = False,
) -> IStreamClientEndpoint:
    """Wrap the way to a SOCKS5 proxy into the way, through the proxy, to a destination.

    The transport of what is connected provides L{kumotwist.interfaces.IProxiedTransport}:
    C{getPeer()} is the destination, C{getProxy()} the L{ProxyHop}.

    @param reactor: times the whole, and TLS.
    @param server: the way to the proxy: TCP, TLS, a Unix socket, another proxy.
    @param host: the destination: an IP address, or a name that the proxy shall resolve.
    @param source: the address that the stream shall come from. It is asked for with KumoProxy's
        BIND, and the proxy's replies are compared with it; needs C{host} to be an IP address.
    @param username: for a login (RFC 1929); offered besides going on without one.
    @param timeout: seconds for everything: connecting to the proxy, negotiating with it, and its
        connecting to the destination.
    @param verify_source_address: false for a proxy that reports a translated source address.
    @param server_name: the proxy in errors and in L{ProxyHop.server}, such as C{10.0.5.10:5000};
        by default the connection's peer.
    @param rehearse: true to go no further than the proxy: greeting, login and BIND, and no CONNECT.
        Nobody is at the other end of what is then connected; close it.
    @return: an endpoint whose C{connect} fails with an L{EgressError}; see
        L{kumotwist.endpoints.errors}.
    @raise ValueError: naming the argument that cannot be, and why.
    """
    destination = parse_destination(host, port)
    address = None if source is None else parse_source(source)
    if address is not None and isinstance(destination.host, str):
        raise ValueError("source: can be chosen only for a host that is an IP address, not a name")
    _check_login(username, password)
    return _endpoint(
        reactor,
        server,
        destination,
        partial(
            SOCKS5Client,
            destination,
            source=address,
            username=username,
            password=password,
            verify_source_address=verify_source_address,
            connect=not rehearse,
        ),
        source=address,
        timeout=timeout,
        server_name=server_name,
    )


def _endpoint(
    reactor: IReactorTime | None,
    server: IStreamClientEndpoint,
    destination: Address,
    make_client: Callable[[], SOCKS5Client],
    *,
    source: IPAddress | None = None,
    timeout: float,
    server_name: str = "",
) -> ProxiedEndpoint:
    hop = PlannedHop(
        "socks5",
        server_name or describe_endpoint(server),
        "" if source is None else str(source),
        str(destination),
    )
    return ProxiedEndpoint(
        clock=reactor,
        server=server,
        destination=destination,
        source=source,
        hop=hop,
        timeout=check_timeout(timeout),
        named=bool(server_name),
        negotiate=partial(_SOCKS5Negotiation, make_client),
    )


class SOCKS5ClientEndpoint(ReactorlessEndpoint):
    """An endpoint through a SOCKS5 proxy, with the signature of txsocksx's class of this name.

    Where C{txsocksx.client} is imported from, write C{kumotwist.endpoints}; nothing else changes.
    Unlike txsocksx's, an IP address is sent as such and not as a name, octets that arrive with the
    last reply are not lost, and the errors are those of L{kumotwist.endpoints.errors}.

    No reactor is among txsocksx's arguments; see L{ReactorlessEndpoint} for what times it instead.
    """

    def __init__(
        self,
        host: str | bytes,
        port: int,
        proxyEndpoint: IStreamClientEndpoint,
        methods: Mapping[str, Sequence[str | bytes]] | None = None,
        *,
        reactor: IReactorTime | None = None,
        timeout: float = 60.0,
    ) -> None:
        """
        @param host: the destination: a name that the proxy shall resolve, or an IP address.
        @param proxyEndpoint: the way to the proxy.
        @param methods: the authentication methods to offer: C{"anonymous"} with an empty tuple,
            C{"login"} with a user name and a password. By default only C{"anonymous"}.
        @param timeout: seconds; see the class.
        @raise ValueError: naming the argument that cannot be, and why.
        """
        destination = parse_destination(_text(host), port)
        offered = {"anonymous": ()} if methods is None else dict(methods)
        unknown = offered.keys() - {"anonymous", "login"}
        if unknown or not offered:
            raise ValueError('methods: only "anonymous" and "login" are possible, and one of them')
        username = password = None
        if "login" in offered:
            if len(offered["login"]) != 2:
                raise ValueError('methods: "login" needs a user name and a password')
            username, password = (_text(part) for part in offered["login"])
            _check_login(username, password)
        make_client = partial(
            SOCKS5Client,
            destination,
            username=username,
            password=password,
            anonymous="anonymous" in offered,
        )
        super().__init__(
            _endpoint(reactor, proxyEndpoint, destination, make_client, timeout=timeout)
        )


def _text(value: str | bytes) -> str:
    """txsocksx took the octet strings of Python 2."""
    try:
        return value if isinstance(value, str) else value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("host, user name and password must be UTF-8") from None
