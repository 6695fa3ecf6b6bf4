"""The client's side of HTTP CONNECT, as a machine without I/O (RFC 9110, 9.3.6).

One request, and one response whose body is the stream::

    CONNECT 192.0.2.1:25 HTTP/1.1
    Host: 192.0.2.1:25
    [Proxy-Authorization: Basic dXNlcjpwYXNz]
                                                HTTP/1.1 200 Connection established
                                                [header lines]

                                                220 mx.example.com ESMTP ...

The stream begins behind the empty line of a response whose status is 2xx, whatever its header says
of lengths and codings: those must be ignored (RFC 9110, 9.3.6). Interim responses (1xx) are
skipped. Any other status is a refusal and is decided by the status line alone.

The request is all that is ever said, so a login goes with it, unasked. Nothing in it can be taken
for the end of a line or of a word: a host name is letters, digits and C{-._~}, a login is base64.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Literal

from attrs import define

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.socks5.format import Address

__all__ = [
    "MAX_HEAD",
    "MAX_LINES",
    "MAX_LOGIN",
    "Established",
    "Event",
    "HTTPConnectClient",
    "Phase",
    "Refused",
]

MAX_HEAD = 16 * 1024
"""Octets that all status lines and headers before the stream may have."""
MAX_LINES = 100
"""Lines that they may have."""
MAX_LOGIN = 4096
"""Octets that user name and password may have; servers limit a header line to about the double."""

Phase = Literal["connect-request", "established", "failed"]

_PROTOCOL = b"HTTP/"
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9][0-9])(?: (.*))?")
# RFC 3986, 2.3 (unreserved). A registered name may have more, but no host has it.
_NAME = re.compile(r"[A-Za-z0-9._~-]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_A_LINE = re.compile(rb"[\x00\r]")


@define(frozen=True)
class Established:
    """The stream to the destination stands; what follows belongs to it."""


@define(frozen=True)
class Refused:
    """The proxy could not, or would not, connect to the destination.

    @ivar status: the status code, 300 to 999 (RFC 9110, 15).
    @ivar reason: the words behind it, as the proxy sent them; may be empty.
    """

    status: int
    reason: str


Event = Established | Refused


def _authority(destination: Address) -> str:
    """C{host:port}, which is both the request's target and its Host (RFC 9112, 3.2.3)."""
    host = destination.host
    if not 1 <= destination.port <= 65535:
        raise LocalProtocolError(f"port {destination.port} is not between 1 and 65535")
    if isinstance(host, str):
        if _NAME.fullmatch(host) is None:
            raise LocalProtocolError(f"{host[:64]!r} is not a host name that HTTP can carry")
    elif isinstance(host, ipaddress.IPv6Address) and host.scope_id is not None:
        raise LocalProtocolError(f"{host} has a zone, which a proxy cannot know")
    return str(destination)


def _basic(username: str, password: str) -> str:
    """The credentials of the Basic scheme (RFC 7617, 2)."""
    if not username or ":" in username:
        raise LocalProtocolError("a user name must not be empty, and has no colon")
    if _CONTROL.search(username) or _CONTROL.search(password):
        raise LocalProtocolError("a login with a control character")
    try:
        raw = f"{username}:{password}".encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a login that is not Unicode text") from None
    if len(raw) > MAX_LOGIN:
        raise LocalProtocolError(f"a login of {len(raw)} octets (at most {MAX_LOGIN})")
    return "Basic " + base64.b64encode(raw).decode("ascii")


class HTTPConnectClient:
    """The client's side of one negotiation.

    Send what L{start} returns; then give everything that arrives to L{receive_data} and ask
    L{next_event} until it returns an event.

    @ivar phase: where the negotiation is, or C{"established"}, or C{"failed"}.
    """

    def __init__(
        self, destination: Address, *, username: str | None = None, password: str | None = None
    ) -> None:
        """
        @param destination: where the stream shall lead: an IP address, or a host name of 1 to 255
            ASCII characters that the proxy resolves.
        @param username: for the Basic scheme; without a colon, and needs a password.
        @param password: may be empty.
        @raise LocalProtocolError: if one of these cannot be said; never quotes the login.
        """
        self.phase: Phase = "connect-request"
        authority = _authority(destination)
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if username is not None or password is not None:
            if username is None or password is None:
                raise LocalProtocolError("a login needs both a user name and a password")
            lines.append(f"Proxy-Authorization: {_basic(username, password)}")
        self._request = "\r\n".join([*lines, "", ""]).encode("ascii")
        self._buffer = bytearray()
        self._searched = 0
        self._octets = 0
        self._lines = 0
        self._status = 0

    def start(self) -> bytes:
        """The request, to be sent first; it may hold a password."""
        return self._request

    def receive_data(self, data: bytes) -> None:
        """Take what arrived; L{LocalProtocolError} once the negotiation has ended."""
        self._check_running()
        self._buffer += data

    @property
    def trailing_data(self) -> bytes:
        """What arrived behind the response's header: the beginning of the stream."""
        return bytes(self._buffer) if self.phase == "established" else b""

    def next_event(self) -> Event | NeedData:
        """What the proxy decided, or L{NEED_DATA}.

        @raise RemoteProtocolError: if the server does not speak HTTP/1, or sends a header without
            end. That ends the negotiation.
        @raise LocalProtocolError: if the negotiation has ended.
        """
        self._check_running()
        try:
            while (line := self._next_line()) is not None:
                event = self._read_field(line) if self._status else self._read_status(line)
                if event is not None:
                    self.phase = "established" if isinstance(event, Established) else "failed"
                    return event
        except RemoteProtocolError:
            self.phase = "failed"
            raise
        return NEED_DATA

    def _check_running(self) -> None:
        if self.phase != "connect-request":
            raise LocalProtocolError("the negotiation has ended")

    def _next_line(self) -> bytes | None:
        """Take one line, which ends with LF or CRLF (RFC 9112, 2.2); L{None} if there is none."""
        if not self._status:
            self._check_protocol()
        end = self._buffer.find(b"\n", self._searched)
        size = len(self._buffer) if end < 0 else end + 1
        if self._octets + size > MAX_HEAD or self._lines >= MAX_LINES:
            raise RemoteProtocolError("the server sent a header without end")
        if end < 0:
            self._searched = size
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[:size]
        self._searched = 0
        self._octets += size
        self._lines += 1
        if _NOT_IN_A_LINE.search(line):
            raise RemoteProtocolError("the server sent a header line with a control character")
        return line

    def _read_status(self, line: bytes) -> Event | None:
        """HTTP-version SP status-code [SP reason-phrase] (RFC 9112, 4)."""
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise RemoteProtocolError(
                f"the server sent a status line that is not HTTP/1: {line[:64]!r}"
            )
        status = int(match[1])
        if status == 101:
            raise RemoteProtocolError("the server switches to a protocol that was not asked for")
        if status >= 300:
            return Refused(status, (match[2] or b"").decode("utf-8", "backslashreplace").strip())
        self._status = status
        return None

    def _read_field(self, line: bytes) -> Event | None:
        """A header line, of which only the end of the header matters (RFC 9112, 5)."""
        if line:
            # A line that begins with white space continues the one before (RFC 9112, 5.2).
            if not line.startswith((b" ", b"\t")) and line.find(b":") < 1:
                raise RemoteProtocolError(
                    f"the server sent a header line without a name: {line[:64]!r}"
                )
            return None
        status, self._status = self._status, 0
        return Established() if status >= 200 else None

    def _check_protocol(self) -> None:
        """Find out by the first octets that this is no HTTP, as no line end may ever come."""
        sample = bytes(self._buffer[:16])
        if sample.startswith(_PROTOCOL) or _PROTOCOL.startswith(sample):
            return
        what = "an answer that is not HTTP"
        if sample[0] in (0, 4, 5):
            what = "what looks like SOCKS"
        elif sample[0] in (0x15, 0x16):
            what = "what looks like TLS"
        raise RemoteProtocolError(f"the server sent {what}: {sample!r}")
