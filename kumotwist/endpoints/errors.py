"""Why a stream through a proxy did not come about, as a class for every kind of reason.

Every error names the hop and the phase, and says by C{blames} what it speaks of: the proxy, which
another destination would meet as well; the destination, which another proxy would meet as well; or
nobody. All are L{twisted.internet.error.ConnectError}s too, so that programs which know only
Twisted's errors treat them as what they are.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from twisted.internet.error import ConnectError, ConnectionLost

from kumotwist.endpoints.hops import PlannedHop
from kumotwist.errors import KumotwistError
from kumotwist.wire.smtp.replies import one_line
from kumotwist.wire.socks5.format import Rep

__all__ = [
    "AddressFamilyMismatchError",
    "AddressTypeNotSupportedError",
    "CommandNotSupportedError",
    "DestinationRefusedError",
    "EgressError",
    "GeneralFailureError",
    "HostUnreachableError",
    "NegotiationTimeoutError",
    "NetworkUnreachableError",
    "NotAllowedError",
    "ProxyBindError",
    "ProxyConnectError",
    "ProxyLoginError",
    "ProxyNegotiationError",
    "ProxyRefusedError",
    "SuspectedProxyError",
    "TTLExpiredError",
]

Blame = Literal["proxy", "destination", "nobody"]

_MAX_PROBLEM = 512
_MAX_ANSWER = 128


class EgressError(KumotwistError, ConnectError):
    """A stream through a proxy did not come about.

    @ivar hop: the proxy, the source address and the destination, such as
        C{socks5 10.0.5.10:5000 from 10.0.0.1 to 192.0.2.1:25}.
    @ivar phase: how far it got: C{connect} (TCP, or a Unix socket, to the proxy), C{tls} (to the
        proxy), C{greeting}, C{login}, C{bind}, C{connect-request}; C{banner} is the time between
        HAProxy's header and the destination's first octet.
    @ivar problem: what happened, in words, without the hop.
    @ivar cause: the exception behind it, if there is one.
    @ivar login_unused: whether a login was offered and the (SOCKS5) proxy asked for none.
    @ivar ambiguous: whether nobody can tell if the proxy or the destination failed; C{blames} is
        the more likely one then.
    @cvar blames: C{"proxy"}, C{"destination"} or C{"nobody"}.
    """

    blames: Blame = "proxy"
    login_unused: bool = False
    ambiguous: bool = False

    def __init__(
        self,
        hop: PlannedHop,
        phase: str,
        problem: str,
        cause: BaseException | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hop = str(hop)
        self.phase = phase
        self.problem = one_line(problem, _MAX_PROBLEM)
        self.cause = cause
        self._route = hop.route

    def __str__(self) -> str:
        """C{via socks5 10.0.5.10:5000 from 10.0.0.1: } and what happened."""
        return f"via {self._route}: {self.problem}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


class AddressFamilyMismatchError(EgressError):
    """Source and destination are of different families; nothing was connected.

    Another address of the destination may do.
    """

    blames: Blame = "nobody"


class ProxyConnectError(EgressError):
    """The proxy cannot be reached: TCP, TLS or a Unix socket failed, was refused or timed out."""


class ProxyNegotiationError(EgressError):
    """The proxy does not do its part: it closed the connection, spoke another protocol, or
    accepts none of the authentication methods."""


class ProxyLoginError(ProxyNegotiationError):
    """The proxy does not accept the user name and password."""


class ProxyBindError(EgressError):
    """The stream would not leave from the source address that was asked for.

    The proxy refused BIND, or reported another address. Nothing has been sent to the destination.

    @ivar rep: the reply code of a refusal, else L{None}.
    """

    def __init__(
        self,
        hop: PlannedHop,
        phase: str,
        problem: str,
        cause: BaseException | None = None,
        *,
        rep: int | None = None,
    ) -> None:
        super().__init__(hop, phase, problem, cause)
        self.rep = rep


class NegotiationTimeoutError(EgressError):
    """The proxy did not answer in time.

    While it connects to the destination that speaks of the destination; before, of the proxy.
    """

    @property
    def blames(self) -> Blame:  # type: ignore[override]
        """C{"destination"} in the phase C{connect-request}, else C{"proxy"}."""
        return "destination" if self.phase == "connect-request" else "proxy"

    @property
    def ambiguous(self) -> bool:  # type: ignore[override]
        """Whether it is the phase C{connect-request}: a proxy may hang there as well."""
        return self.phase == "connect-request"


class SuspectedProxyError(EgressError, ConnectionLost):
    """The proxy closed the stream without a word, where it or the destination may have failed.

    HAProxy, before the destination's first octet (C{phase} is C{banner}): the PROXY protocol has no
    reply, so a source address that HAProxy does not own shows only like this. It is given to
    C{connectionLost}, since C{connect} could not know.

    A SOCKS5 proxy that had answered everything before, instead of the reply to CONNECT (C{phase} is
    C{connect-request}): OpenSSH's does so where the destination refuses. C{connect} fails with it.
    """

    ambiguous = True


class ProxyRefusedError(EgressError):
    """The proxy answered the request to connect with an error (RFC 1928, 6; RFC 9110, 15).

    There is a subclass for each code that RFC 1928 names, which is also that of a HTTP status with
    the same meaning; this class itself is for the others.

    @ivar rep: the reply code of a SOCKS5 proxy, else L{None}.
    @ivar status: the status code of an HTTP proxy, else L{None}.
    """

    #: What the code means; completed with the number and the destination.
    meaning: ClassVar[str] = "the proxy answered with another error for"

    def __init__(
        self,
        hop: PlannedHop,
        rep: int | None = None,
        *,
        status: int | None = None,
        reason: str = "",
        note: str = "",
    ) -> None:
        """
        @param rep: what a SOCKS5 proxy answered.
        @param status: what an HTTP proxy answered; one of the two must be given.
        @param reason: the words behind the status.
        @param note: words that explain the answer, behind it.
        """
        answer = f"HTTP {status} {reason}".rstrip() if rep is None else f"REP {rep:02x}"
        problem = f"{self.meaning} {hop.destination} ({one_line(answer, _MAX_ANSWER)}){note}"
        super().__init__(hop, "connect-request", problem)
        self.rep = rep
        self.status = status

    @classmethod
    def of(cls, hop: PlannedHop, rep: int) -> ProxyRefusedError:
        """The error for a reply code of SOCKS5, of the subclass that belongs to it."""
        return _REFUSALS.get(rep, ProxyRefusedError)(hop, rep)

    @classmethod
    def of_status(cls, hop: PlannedHop, status: int, reason: str) -> ProxyRefusedError:
        """The error for a status of HTTP, of the subclass that belongs to it."""
        kind = _HTTP_REFUSALS.get(status, ProxyRefusedError)
        return kind(hop, status=status, reason=reason)


class GeneralFailureError(ProxyRefusedError):
    """REP 01: general SOCKS server failure; HTTP 500.

    Some proxies, such as tinyproxy, also say so where they cannot reach the destination.
    """

    meaning = "the proxy reports a general failure for"


class NotAllowedError(ProxyRefusedError):
    """REP 02: connection not allowed by ruleset; HTTP 403."""

    meaning = "the proxy's rules do not allow a connection to"


class NetworkUnreachableError(ProxyRefusedError):
    """REP 03: network unreachable."""

    blames: Blame = "destination"
    meaning = "network unreachable for"


class HostUnreachableError(ProxyRefusedError):
    """REP 04: host unreachable; HTTP 502 and 503, which proxies also answer where the destination
    refuses or its name has no address."""

    blames: Blame = "destination"
    meaning = "host unreachable at"


class DestinationRefusedError(ProxyRefusedError):
    """REP 05: connection refused (by the destination)."""

    blames: Blame = "destination"
    meaning = "connection refused by"


class TTLExpiredError(ProxyRefusedError):
    """REP 06: TTL expired; KumoProxy also says so of a connection that timed out. HTTP 504."""

    blames: Blame = "destination"
    meaning = "TTL expired, or timed out, on the way to"


class CommandNotSupportedError(ProxyRefusedError):
    """REP 07: command not supported; HTTP 405 and 501."""

    meaning = "the proxy does not know how to connect to"


class AddressTypeNotSupportedError(ProxyRefusedError):
    """REP 08: address type not supported."""

    meaning = "the proxy does not support the kind of address of"


_REFUSALS: dict[int, type[ProxyRefusedError]] = {
    Rep.GENERAL_FAILURE: GeneralFailureError,
    Rep.NOT_ALLOWED: NotAllowedError,
    Rep.NETWORK_UNREACHABLE: NetworkUnreachableError,
    Rep.HOST_UNREACHABLE: HostUnreachableError,
    Rep.CONNECTION_REFUSED: DestinationRefusedError,
    Rep.TTL_EXPIRED: TTLExpiredError,
    Rep.COMMAND_NOT_SUPPORTED: CommandNotSupportedError,
    Rep.ADDRESS_TYPE_NOT_SUPPORTED: AddressTypeNotSupportedError,
}

_HTTP_REFUSALS: dict[int, type[ProxyRefusedError]] = {
    403: NotAllowedError,
    405: CommandNotSupportedError,
    500: GeneralFailureError,
    501: CommandNotSupportedError,
    502: HostUnreachableError,
    503: HostUnreachableError,
    504: TTLExpiredError,
}
