"""The client's side of SOCKS5, with KumoProxy's BIND, as a machine without I/O.

One connection to the proxy goes through these phases; what is in brackets depends on what the
machine was given::

    greeting           05 01 00, or 05 02 00 02 with a login     05 00, 05 02 or 05 FF
    [login]            01 ulen username plen password            01 00         (RFC 1929)
    [bind]             05 02 00 source address, port 0           REP, the address that was bound
    connect-request    05 01 00 destination                      REP, the address used outside
    established        trailing_data, then the stream

BIND is not RFC 1928's, which listens for a connection from outside: it chooses the source address
of the CONNECT that follows on the same connection, and is answered at once. A server that does not
know it answers with an error, or with another address than the one that was asked for; both end
the negotiation, because the stream would leave from the wrong address.

Every request waits for the reply to the one before, and the password is said only to a server
that chose method 02. A server that says more than it was asked is no SOCKS5 server: only behind
the last reply may octets follow.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from attrs import define, field

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.socks5.format import (
    NO_AUTHENTICATION,
    NO_METHOD,
    USERNAME_PASSWORD,
    VERSION,
    Address,
    Command,
    Rep,
    read_address,
    unmapped,
)

__all__ = [
    "BindRefused",
    "ConnectRefused",
    "Established",
    "Event",
    "IPAddress",
    "LoginRefused",
    "NoAcceptableMethod",
    "Phase",
    "SOCKS5Client",
    "Send",
    "SourceMismatch",
    "unmapped",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Phase = Literal["greeting", "login", "bind", "connect-request", "established", "failed"]

_LOGIN_VERSION = 1


@define(frozen=True)
class Send:
    """The next request, to be sent now.

    @ivar data: the octets; they may hold a password, so C{repr} does not show them.
    """

    data: bytes = field(repr=False)


@define(frozen=True)
class NoAcceptableMethod:
    """The server wants none of the methods that were offered (C{05 FF}; RFC 1928, 3)."""


@define(frozen=True)
class LoginRefused:
    """The server does not accept the user name and password (RFC 1929, 2).

    @ivar status: what it answered; anything but 0.
    """

    status: int


@define(frozen=True)
class BindRefused:
    """The proxy does not let the stream leave from the source address.

    @ivar rep: the reply code; see L{Rep} for those that have a name.
    """

    rep: int


@define(frozen=True)
class SourceMismatch:
    """The proxy would use, or has used, another source address than the one that was asked for.

    @ivar phase: which reply said so, C{"bind"} or C{"connect-request"}.
    @ivar asked: the address that was asked for.
    @ivar reported: what the reply carried.
    """

    phase: Phase
    asked: IPAddress
    reported: Address


@define(frozen=True)
class ConnectRefused:
    """The proxy could not, or would not, connect to the destination (RFC 1928, 6).

    @ivar rep: the reply code; see L{Rep} for those that have a name.
    """

    rep: int


@define(frozen=True)
class Established:
    """The stream to the destination stands; what follows belongs to it.

    @ivar source: the address that the proxy uses towards the destination, as it reported it, or
        L{None} where it reported none (an unspecified address or an empty name).
    """

    source: Address | None


Event = (
    Send
    | NoAcceptableMethod
    | LoginRefused
    | BindRefused
    | SourceMismatch
    | ConnectRefused
    | Established
)


def _as_ip(host: IPAddress | str) -> IPAddress | None:
    """The address that a reply named, also when it was spelled out as a name."""
    if isinstance(host, str):
        try:
            host = ipaddress.ip_address(host)
        except ValueError:
            return None
    return unmapped(host)


def _says_nothing(address: Address) -> bool:
    """Whether BND.ADDR means "unknown": 0.0.0.0 or C{::} (Tor, microsocks) or an empty name."""
    ip = _as_ip(address.host)
    return address.host == "" if ip is None else ip.is_unspecified


def _credential(text: str, what: str) -> bytes:
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"a {what} that is not Unicode text") from None
    if not 1 <= len(raw) <= 255:
        raise LocalProtocolError(f"a {what} of {len(raw)} octets (1 to 255 are possible)")
    return bytes((len(raw),)) + raw


class SOCKS5Client:
    """The client's side of one negotiation.

    Send what L{start} returns; then give everything that arrives to L{receive_data} and do what
    the events of L{next_event} say until it returns L{NEED_DATA}, L{Established} or a refusal.

    @ivar phase: where the negotiation is, or C{"established"}, or C{"failed"}.
    @ivar login_unused: whether there is a login for which the server did not ask.
    """

    def __init__(
        self,
        destination: Address,
        *,
        source: IPAddress | None = None,
        username: str | None = None,
        password: str | None = None,
        verify_source_address: bool = True,
        anonymous: bool = True,
        connect: bool = True,
    ) -> None:
        """
        @param destination: where the stream shall lead, an IP address or a host name of 1 to 255
            ASCII characters.
        @param source: the address that it shall come from; needs an IP address of the same family
            as destination. L{None} leaves the choice to the proxy, and no BIND is sent.
        @param username: 1 to 255 octets in UTF-8; needs a password.
        @param password: 1 to 255 octets in UTF-8.
        @param verify_source_address: whether the addresses in the replies must be C{source}. Only
            for a proxy that reports a translated address should this be false.
        @param anonymous: whether to offer to go on without a login.
        @param connect: false to end, with L{Established}, where CONNECT would be sent: the server
            has then agreed to everything before it, and what stands leads nowhere.
        @raise LocalProtocolError: if one of these cannot be said.
        """
        self.phase: Phase = "greeting"
        if not isinstance(destination.host, str):
            destination = Address(unmapped(destination.host), destination.port)
        self._request = destination.to_bytes()
        self._source = None if source is None else unmapped(source)
        if self._source is not None:
            self._check_families(destination, self._source)
        self._login = b""
        self.login_unused = False
        if username is not None or password is not None:
            if username is None or password is None:
                raise LocalProtocolError("a login needs both a user name and a password")
            self._login = (
                bytes((_LOGIN_VERSION,))
                + _credential(username, "user name")
                + _credential(password, "password")
            )
        methods = [NO_AUTHENTICATION] if anonymous else []
        if self._login:
            methods.append(USERNAME_PASSWORD)
        if not methods:
            raise LocalProtocolError("there is no authentication method to offer")
        self._methods = bytes(methods)
        self._verify = verify_source_address
        self._connect = connect
        self._bound: Address | None = None
        self._buffer = bytearray()

    @staticmethod
    def _check_families(destination: Address, source: IPAddress) -> None:
        if isinstance(destination.host, str):
            raise LocalProtocolError("a source address needs a destination that is an IP address")
        if destination.host.version != source.version:
            raise LocalProtocolError(
                f"source {source} and destination {destination.host} are of different families"
            )

    def start(self) -> bytes:
        """The greeting (RFC 1928, 3), to be sent first."""
        return bytes((VERSION, len(self._methods))) + self._methods

    def receive_data(self, data: bytes) -> None:
        """Take what arrived; L{LocalProtocolError} once the negotiation has ended."""
        if self.phase in ("established", "failed"):
            raise LocalProtocolError("the negotiation has ended")
        self._buffer += data

    @property
    def unanswered(self) -> bool:
        """Whether the server has answered everything until CONNECT, and to that nothing yet."""
        return self.phase == "connect-request" and not self._buffer

    @property
    def trailing_data(self) -> bytes:
        """What arrived behind the last reply: the beginning of the stream."""
        return bytes(self._buffer) if self.phase == "established" else b""

    def next_event(self) -> Event | NeedData:
        """What is to be done, or L{NEED_DATA}.

        @raise RemoteProtocolError: if the server does not speak SOCKS5. That ends the negotiation.
        @raise LocalProtocolError: if the negotiation has ended.
        """
        if self.phase in ("established", "failed"):
            raise LocalProtocolError("the negotiation has ended")
        try:
            return self._next_event()
        except RemoteProtocolError:
            self.phase = "failed"
            raise

    def _next_event(self) -> Event | NeedData:
        if self.phase == "greeting":
            return self._read_method()
        if self.phase == "login":
            return self._read_login_status()
        return self._read_reply()

    def _read_method(self) -> Event | NeedData:
        """VER, METHOD (RFC 1928, 3)."""
        self._check_version(VERSION)
        if len(self._buffer) < 2:
            return NEED_DATA
        method = self._buffer[1]
        if method == NO_METHOD:
            self.phase = "failed"
            return NoAcceptableMethod()
        if method not in self._methods:
            raise RemoteProtocolError(
                f"the server chose method {method:02x}, which was not offered"
            )
        del self._buffer[:2]
        if method == USERNAME_PASSWORD:
            self._check_asked()
            self.phase = "login"
            return Send(self._login)
        self.login_unused = bool(self._login)
        return self._send_request()

    def _read_login_status(self) -> Event | NeedData:
        """VER, STATUS (RFC 1929, 2)."""
        self._check_version(_LOGIN_VERSION)
        if len(self._buffer) < 2:
            return NEED_DATA
        status = self._buffer[1]
        if status != 0:
            self.phase = "failed"
            return LoginRefused(status)
        del self._buffer[:2]
        return self._send_request()

    def _send_request(self) -> Event:
        bind = self._source is not None and self._bound is None
        if not (bind or self._connect):
            return self._establish(self._bound)
        self._check_asked()
        if self._source is not None and bind:
            self.phase = "bind"
            return Send(bytes((VERSION, Command.BIND, 0)) + Address(self._source, 0).to_bytes())
        self.phase = "connect-request"
        return Send(bytes((VERSION, Command.CONNECT, 0)) + self._request)

    def _read_reply(self) -> Event | NeedData:
        """VER, REP, RSV, BND.ADDR, BND.PORT (RFC 1928, 6).

        What follows a REP other than success says nothing and is often malformed; it is not read.
        """
        self._check_version(VERSION)
        if len(self._buffer) < 2:
            return NEED_DATA
        rep = self._buffer[1]
        binding = self.phase == "bind"
        if rep != Rep.SUCCEEDED:
            self.phase = "failed"
            return BindRefused(rep) if binding else ConnectRefused(rep)
        read = read_address(self._buffer, 3)
        if read is None:
            return NEED_DATA
        reported, end = read
        if not isinstance(reported.host, str):
            reported = Address(unmapped(reported.host), reported.port)
        del self._buffer[:end]
        if not self._acceptable(reported):
            asked, phase = self._source, self.phase
            assert asked is not None  # otherwise everything is acceptable
            self.phase = "failed"
            return SourceMismatch(phase, asked, reported)
        if binding:
            self._bound = reported
            return self._send_request()
        return self._establish(self._bound if _says_nothing(reported) else reported)

    def _establish(self, source: Address | None) -> Established:
        self.phase = "established"
        return Established(None if source is None or _says_nothing(source) else source)

    def _acceptable(self, reported: Address) -> bool:
        """Whether a successful reply's address agrees with the source that was asked for."""
        if self._source is None or not self._verify:
            return True
        if self.phase == "connect-request" and _says_nothing(reported):
            return True
        return _as_ip(reported.host) == self._source

    def _check_asked(self) -> None:
        """What has arrived before a request was sent cannot be the answer to it."""
        if self._buffer:
            sample = bytes(self._buffer[:16])
            raise RemoteProtocolError(f"the server answered before it was asked: {sample!r}")

    def _check_version(self, expected: int) -> None:
        if not self._buffer or self._buffer[0] == expected:
            return
        sample = bytes(self._buffer[:16])
        what = "an answer that is not SOCKS5"
        if sample.startswith((b"HTTP/", b"<")):
            what = "HTTP instead of SOCKS5"
        elif self._buffer[0] == 4 or (self._buffer[0] == 0 and len(self._buffer) > 1):
            what = "what looks like SOCKS4"
        elif expected == _LOGIN_VERSION:
            what = "a login reply of an unknown version"
        raise RemoteProtocolError(f"the server sent {what}: {sample!r}")
