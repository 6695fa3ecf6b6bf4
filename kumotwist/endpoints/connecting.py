"""One way of connecting through a proxy for all kinds of proxies: deadline, cancelling, blame.

L{ProxiedEndpoint} is the endpoint; each C{connect} is an L{Attempt} of its own, which goes from
connecting (to the proxy, by whatever endpoint leads there) over negotiating (a L{Negotiation}
says what) to being over, once, by success or by failure. The application's factory is asked for a
protocol only when the stream stands, with the destination as address.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import partial
from typing import Any
from typing import Protocol as Shape

from attrs import define, field
from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionDone,
    ConnectionLost,
    NoProtocol,
    TimeoutError,
)
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.endpoints.addresses import address_text, twisted_address
from kumotwist.endpoints.errors import (
    AddressFamilyMismatchError,
    EgressError,
    NegotiationTimeoutError,
    ProxyConnectError,
    ProxyNegotiationError,
    SuspectedProxyError,
)
from kumotwist.endpoints.hops import PlannedHop, ProxyHop
from kumotwist.endpoints.transport import ProxiedTransport, Suspicion, is_tls
from kumotwist.interfaces import IProxiedTransport
from kumotwist.wire.socks5.client import IPAddress
from kumotwist.wire.socks5.format import Address

__all__ = [
    "Attempt",
    "Negotiation",
    "ProxiedEndpoint",
    "ReactorlessEndpoint",
    "check_timeout",
    "describe_endpoint",
]

_WAITING_FOR = {
    "greeting": "the greeting",
    "login": "the login",
    "bind": "BIND",
    "connect-request": "the request to connect",
}


class Negotiation(Shape):
    """What is said to one kind of proxy before the stream stands.

    @ivar phase: how far it got, in the words of L{EgressError}.
    @ivar done: whether the stream stands.
    @ivar trailing: what arrived behind the negotiation, once done.
    @ivar source_address: the address that the proxy uses, as L{ProxyHop} shows it, once done.
    @ivar login_unused: whether there is a login for which the proxy did not ask.
    @ivar unanswered: whether the proxy has answered before, and has said nothing yet to the
        request to connect: if it closes then, the destination may be the reason.
    @ivar answers: whether this kind of proxy says anything by itself. If not, a stream that ends
        before its first octet is suspect.
    """

    answers: bool

    @property
    def phase(self) -> str: ...
    @property
    def done(self) -> bool: ...
    @property
    def unanswered(self) -> bool: ...
    @property
    def trailing(self) -> bytes: ...
    @property
    def source_address(self) -> str: ...
    @property
    def login_unused(self) -> bool: ...

    def start(self) -> bytes:
        """What is sent first."""

    def receive(self, data: bytes) -> bytes:
        """Take what arrived and return what is to be sent; L{EgressError} ends it."""


def describe_endpoint(endpoint: IStreamClientEndpoint) -> str:
    """Name an endpoint for which the caller gave no name."""
    if isinstance(endpoint, ReactorlessEndpoint):
        endpoint = endpoint.endpoint
    if isinstance(endpoint, ProxiedEndpoint):
        return endpoint.hop.destination
    # Twisted's endpoints tell nobody where they lead, so look. Should these attributes go away one
    # day, no more is lost than a good name in an error.
    host, port = (getattr(endpoint, name, None) for name in ("_host", "_port"))
    if isinstance(host, str) and isinstance(port, int):
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    path = getattr(endpoint, "_path", None)
    if isinstance(path, str):
        return f"unix:{path}"
    below = getattr(endpoint, "_wrappedEndpoint", None)
    if below is not None:
        return describe_endpoint(below)
    if type(endpoint).__repr__ is object.__repr__:
        return type(endpoint).__name__
    return repr(endpoint)


def check_timeout(timeout: float) -> float:
    """Raise L{ValueError} for what is not a number of seconds above 0."""
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout: {timeout} is not a number of seconds above 0")
    return timeout


@implementer(IStreamClientEndpoint)
@define(frozen=True, eq=False, repr=False)
class ProxiedEndpoint:
    """An endpoint that leads through a proxy.

    @ivar server: the way to the proxy.
    @ivar destination: where the stream leads.
    @ivar source: the address that it shall come from, if that was chosen.
    @ivar hop: both, in words.
    @ivar timeout: seconds for everything.
    @ivar clock: what times that; L{None} takes the reactor of the connection to the proxy, so that
        the time until this connection stands is left to C{server}.
    @ivar named: whether the hop's C{server} is a name given by the caller; else the connection's
        peer tells it better.
    """

    clock: IReactorTime | None
    server: IStreamClientEndpoint
    destination: Address
    source: IPAddress | None
    hop: PlannedHop
    timeout: float
    named: bool
    _negotiate: Callable[[PlannedHop], Negotiation] = field(alias="negotiate")

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect through the proxy (L{IStreamClientEndpoint.connect}).

        @return: fires with the factory's protocol, connected to the destination; fails with an
            L{EgressError}, or with L{ConnectingCancelledError} when it is cancelled.
        """
        host = self.destination.host
        if self.source is not None and not isinstance(host, str):
            families = f"source {self.source} and destination {host} are of different families"
            if self.source.version != host.version:
                return fail(AddressFamilyMismatchError(self.hop, "connect", families))
        return Attempt(self, self._negotiate(self.hop), protocolFactory).begin()

    def __repr__(self) -> str:
        return f"<endpoint {self.hop}>"


@implementer(IStreamClientEndpoint)
class ReactorlessEndpoint:
    """Base of the endpoints that are made as objects, without a reactor, instead of by a function.

    No reactor is among their arguments and none is imported: how long the connection to the proxy
    may take is up to the endpoint that makes it, and the negotiation is timed by the C{reactor}
    attribute of this connection, which every connection of Twisted's reactors has. Where C{reactor}
    is passed, one deadline holds for both.

    @ivar endpoint: what does the work.
    """

    def __init__(self, endpoint: ProxiedEndpoint) -> None:
        self.endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect through the proxy (L{IStreamClientEndpoint.connect})."""
        return self.endpoint.connect(protocolFactory)


class _State(enum.Enum):
    CONNECTING = "connecting"
    NEGOTIATING = "negotiating"
    OVER = "over"


class Attempt:
    """One C{connect}: decides when it is over and how, exactly once."""

    def __init__(
        self, endpoint: ProxiedEndpoint, negotiation: Negotiation, factory: IProtocolFactory
    ) -> None:
        self._endpoint = endpoint
        self._negotiation = negotiation
        self._factory = factory
        self._address: IAddress = twisted_address(endpoint.destination)
        self._state = _State.CONNECTING
        self._result: Deferred[IProtocol] = Deferred(self._cancelled)
        self._connecting: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._transport: ProxiedTransport | None = None
        self._handshaking = False

    def begin(self) -> Deferred[IProtocol]:
        """Connect to the proxy."""
        result = self._result
        connecting = maybeDeferred(self._endpoint.server.connect, _HopFactory(self, self._factory))
        self._connecting = connecting.addCallbacks(lambda _: None, self._connect_failed)
        # Armed only now: where the proxy is reached through another one, with the same timeout,
        # that one shall speak first because it knows more.
        self._arm(self._endpoint.clock)
        return result

    def _arm(self, clock: IReactorTime | None) -> None:
        if self._timer is None and clock is not None and self._state is not _State.OVER:
            self._timer = clock.callLater(self._endpoint.timeout, self._timed_out)

    # -- connecting ------------------------------------------------------------------------------

    def build(self) -> ProxiedTransport | None:
        """The protocol for the connection to the proxy; L{None} if it comes too late."""
        if self._state is not _State.CONNECTING:
            return None
        return ProxiedTransport(self, self._address, self._endpoint.clock)

    def _connect_failed(self, failure: Failure) -> None:
        if self._state is _State.OVER:
            return
        problem = f"cannot connect to the proxy: {_words(failure.value)}"
        self._fail(ProxyConnectError(self._endpoint.hop, "connect", problem, failure.value))

    # -- negotiating (see L{kumotwist.endpoints.transport.Passage}) --------------------------------

    def opened(self, transport: ProxiedTransport) -> None:
        """The connection to the proxy stands: say the first thing."""
        if self._state is not _State.CONNECTING:
            transport.abandon()
            return
        self._state = _State.NEGOTIATING
        self._transport = transport
        self._arm(getattr(transport.transport, "reactor", None))
        self._handshaking = transport.awaits_handshake
        transport.write(self._negotiation.start())
        if self._negotiation.done and not self._handshaking:
            self._succeed()

    def handshake_completed(self) -> None:
        """TLS with the proxy stands."""
        self._handshaking = False
        if self._negotiation.done:
            self._succeed()

    def received(self, data: bytes) -> None:
        """Go on with the negotiation."""
        transport = self._transport
        if transport is None:
            return
        try:
            answer = self._negotiation.receive(data)
        except EgressError as error:
            self._fail(error)
            return
        if answer:
            transport.write(answer)
        if self._negotiation.done:
            self._succeed()

    def closed(self, reason: Failure) -> None:
        """The proxy closed the connection too early."""
        if self._state is _State.OVER:
            return
        hop, phase, why = self._endpoint.hop, self._phase(), _words(reason.value)
        orderly = reason.check(ConnectionDone, ConnectionLost) is not None
        transport = self._transport
        if phase in ("connect", "tls"):
            error: EgressError = ProxyConnectError(
                hop, phase, f"TLS with the proxy failed: {why}", reason.value
            )
        elif not orderly and transport is not None and is_tls(transport.transport):
            error = ProxyConnectError(hop, "tls", f"TLS with the proxy failed: {why}", reason.value)
        elif self._negotiation.unanswered:
            error = _suspect_refusal(hop, reason.value)
        else:
            waiting = _WAITING_FOR.get(phase, phase)
            problem = f"the proxy closed the connection instead of answering {waiting}: {why}"
            error = ProxyNegotiationError(hop, phase, problem, reason.value)
        self._fail(error)

    def _phase(self) -> str:
        if self._state is _State.CONNECTING:
            return "connect"
        return "tls" if self._handshaking else self._negotiation.phase

    # -- over ------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        self._timer = None
        endpoint, phase = self._endpoint, self._phase()
        limit = f"within {endpoint.timeout:g} s"
        if phase in ("connect", "tls"):
            what = "connection to" if phase == "connect" else "TLS handshake with"
            error: EgressError = ProxyConnectError(
                endpoint.hop, phase, f"no {what} the proxy {limit}", TimeoutError()
            )
        else:
            problem = f"no answer to {_WAITING_FOR.get(phase, phase)} {limit}"
            if phase == "connect-request":
                problem = f"no connection to {endpoint.hop.destination} {limit}"
            error = NegotiationTimeoutError(endpoint.hop, phase, problem, TimeoutError())
        self._fail(error)

    def _cancelled(self, _: Deferred[IProtocol]) -> None:
        self._fail(ConnectingCancelledError(self._address))

    def _fail(self, error: Exception) -> None:
        """Give up: close whatever is open or opening, then tell."""
        was, transport = self._state, self._transport
        result = self._finish()
        if was is _State.CONNECTING and self._connecting is not None:
            self._connecting.cancel()
        if transport is not None:
            transport.abandon()
        result.errback(error)

    def _finish(self) -> Deferred[IProtocol]:
        """Enter the last state, and let go of what would keep things alive."""
        self._state = _State.OVER
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return self._result

    def _succeed(self) -> None:
        """Hand the stream over to the application."""
        transport = self._transport
        if transport is None:
            return
        hop = self._hop(transport)
        result = self._finish()
        try:
            application = self._factory.buildProtocol(self._address)
            if application is None:
                raise NoProtocol()
            transport.connect(application, hop, self._suspicion())
        except Exception:
            failure = Failure()
            transport.abandon()
            result.errback(failure)
            return
        result.callback(application)
        transport.deliver(self._negotiation.trailing)

    def _hop(self, transport: ProxiedTransport) -> ProxyHop:
        below: Any = transport.transport
        planned = self._endpoint.hop
        server = planned.server
        if not self._endpoint.named:
            server = address_text(below.getPeer()) or server
        via = below.getProxy() if IProxiedTransport.providedBy(below) else None
        return ProxyHop(
            planned.protocol,
            server,
            self._negotiation.source_address,
            planned.destination,
            via,
            self._negotiation.login_unused,
        )

    def _suspicion(self) -> Suspicion | None:
        return None if self._negotiation.answers else partial(_suspect, self._endpoint.hop)


@implementer(IProtocolFactory)
class _HopFactory:
    """The factory for the connection to the proxy; to the endpoint below it is the caller's."""

    noisy = False

    def __init__(self, attempt: Attempt, factory: IProtocolFactory) -> None:
        self._attempt = attempt
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> ProxiedTransport | None:
        return self._attempt.build()

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()


def _suspect(hop: PlannedHop, cause: BaseException | None) -> SuspectedProxyError:
    """The error for a stream that ended before its first octet."""
    why = "" if isinstance(cause, ConnectionDone) else f" ({_words(cause)})"
    problem = (
        f"closed before {hop.destination} said anything{why}: the proxy may not be able to use "
        "the source address, or to reach the destination"
    )
    return SuspectedProxyError(hop, "banner", problem, cause)


def _suspect_refusal(hop: PlannedHop, cause: BaseException | None) -> SuspectedProxyError:
    """The error for a close instead of the answer to the request to connect."""
    problem = (
        f"the proxy closed the connection instead of answering whether {hop.destination} can be "
        f"reached ({_words(cause)}): the destination may have refused, or the proxy failed"
    )
    return SuspectedProxyError(hop, "connect-request", problem, cause)


def _words(error: BaseException | None) -> str:
    """What an exception says, for the end of a sentence."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(entry[-1]) for entry in error.args[0]) or "no reason given"
    text = str(error) or type(error).__name__
    return text.rstrip(".")
