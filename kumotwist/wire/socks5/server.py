"""The server's side of SOCKS5, with KumoProxy's BIND, as a machine without I/O.

One connection goes through these steps, each answered by the method named beside it::

    greeting   MethodsOffered   choose_method()                   05 00, 05 02 or 05 FF
    login      Credentials      answer_login(accepted)            only after 05 02 (RFC 1929)
    request    BindRequest      bound(address) or refuse(rep)     at most once
    request    ConnectRequest   connected(address) or refuse(rep)
    stream     trailing_data    is what the client has already sent for the destination

BIND is not RFC 1928's, which listens for a connection from outside: it chooses the source address
of the CONNECT that follows on the same connection. It may come once and only before CONNECT.

While an event has not been answered the machine reads no further, so a client may send
everything at once. There is one exception: a whole request that arrives while a CONNECT is being
carried out is reported as L{Unacceptable}. Anything else that arrives then is the beginning of the
stream.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache

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
    UnknownAddressTypeError,
    read_address,
    read_known,
)

__all__ = [
    "MAX_PENDING",
    "BindRequest",
    "ConnectRequest",
    "Credentials",
    "Event",
    "MethodsOffered",
    "SOCKS5Server",
    "Unacceptable",
]

#: How many octets may wait in the machine; whoever sends more breaks the protocol.
MAX_PENDING = 256 * 1024

_LOGIN_VERSION = 1
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_NOWHERE = b"\x01\x00\x00\x00\x00\x00\x00"


@define(frozen=True)
class MethodsOffered:
    """The client's greeting (RFC 1928, 3); answer it with L{SOCKS5Server.choose_method}.

    @ivar methods: the methods that the client can do, as it sent them; may be empty.
    """

    methods: bytes


#: Nearly all clients offer the same.
_methods_offered = lru_cache(64)(MethodsOffered)


@define(frozen=True)
class Credentials:
    """A login (RFC 1929, 2); answer it with L{SOCKS5Server.answer_login}.

    @ivar username: 0 to 255 octets of any value.
    @ivar password: 0 to 255 octets of any value; never shown by C{repr}.
    """

    username: bytes
    password: bytes = field(repr=False)


@define(frozen=True)
class BindRequest:
    """The client chooses the source address of its CONNECT.

    Answer it with L{SOCKS5Server.bound} or L{SOCKS5Server.refuse}.

    @ivar source: an IP address; the port is 0 where the client does not mind.
    """

    source: Address


@define(frozen=True)
class ConnectRequest:
    """The client wants a connection (RFC 1928, 4).

    Answer it with L{SOCKS5Server.connected} or L{SOCKS5Server.refuse}.

    @ivar destination: an IP address, or a host name if the machine allows names.
    """

    destination: Address


@define(frozen=True)
class Unacceptable:
    """A request that is refused whatever the rules say; answer it with C{refuse(event.rep)}.

    @ivar rep: the reply code that says why.
    @ivar problem: the same for a log.
    """

    rep: Rep
    problem: str


@lru_cache(4096)
def _bind_request(raw: bytes) -> BindRequest:
    """The request for a source; a proxy has few, which come again and again."""
    return BindRequest(read_known(raw))


@lru_cache(4096)
def _connect_request(raw: bytes) -> ConnectRequest:
    """The request for an IP address and a port; there are few, which come again and again."""
    return ConnectRequest(read_known(raw))


Event = MethodsOffered | Credentials | BindRequest | ConnectRequest | Unacceptable


class _State(enum.Enum):
    """What the machine waits for."""

    GREETING = "the client's greeting"
    METHOD = "choose_method()"
    LOGIN = "the client's login"
    VERDICT = "answer_login()"
    REQUEST = "a request"
    BINDING = "the answer to BIND"
    CONNECTING = "the answer to CONNECT"
    REFUSING = "refuse()"
    CONNECTED = "nothing: the stream has begun"
    CLOSED = "nothing: the session was refused"


# Looking a member up in its class takes Python 3.11 eight times as long as a global name, and every
# short session does it twenty times.
(
    _GREETING,
    _METHOD,
    _LOGIN,
    _VERDICT,
    _REQUEST,
    _BINDING,
    _CONNECTING,
    _REFUSING,
    _CONNECTED,
    _CLOSED,
) = _State
_CONNECT, _BIND = int(Command.CONNECT), int(Command.BIND)
_SUCCEEDED = bytes((VERSION, Rep.SUCCEEDED, 0))
_USUAL_GREETING = bytes((VERSION, 1, NO_AUTHENTICATION))
_USUAL_OFFER = _methods_offered(_USUAL_GREETING[2:])
#: How long a request is with an address of this ATYP.
_LENGTH = {1: 10, 4: 22}


class SOCKS5Server:
    """One client's connection as the server sees it.

    @param check_login: whether RFC 1929 can be done; a client that offers it is then always asked.
    @param require_login: whether a client that does not offer it is turned away.
    @param allow_names: whether CONNECT may name a host instead of an address.

    @ivar is_closed: whether the last answer ended the session: send it, then close the connection.
    """

    # Most sessions never set these, so that they are not set when one begins.
    _offered = b""
    _bind_seen = False
    is_closed = False

    def __init__(
        self,
        *,
        check_login: bool = False,
        require_login: bool = False,
        allow_names: bool = False,
    ) -> None:
        if require_login and not check_login:
            raise LocalProtocolError("a login is required but cannot be checked")
        self._check_login = check_login
        self._require_login = require_login
        self._allow_names = allow_names
        self._state = _GREETING
        self._pending = bytearray()

    # -- what comes in ---------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take octets from the client; what they mean comes out of L{next_event}.

        After a refusal they are dropped.

        @raise RemoteProtocolError: more than L{MAX_PENDING} octets wait.
        @raise LocalProtocolError: the stream has begun, and it is not this machine's.
        """
        if self._state is _CLOSED:
            return
        if self._state is _CONNECTED:
            raise LocalProtocolError("the stream does not go through the SOCKS5 machine")
        if len(self._pending) + len(data) > MAX_PENDING:
            raise RemoteProtocolError(f"more than {MAX_PENDING} octets ahead of a reply")
        self._pending += data

    def receive_message(self, data: bytes) -> Event | None:
        """Take what a client sent if that is one usual message and nothing else, as nearly always.

        It spares most of what L{receive_data} and L{next_event} do, and means the same.

        @return: what the message means; L{None} if it is not such a one, and was not taken.
        """
        if self._pending:
            return None
        state = self._state
        if state is _REQUEST:
            length = len(data)
            if length > 4 and length == _LENGTH.get(data[3]) and data[0] == VERSION and not data[2]:
                if data[1] == _CONNECT:
                    self._state = _CONNECTING
                    return _connect_request(data[4:])
                if data[1] == _BIND and not self._bind_seen:
                    self._bind_seen = True
                    self._state = _BINDING
                    return _bind_request(data[4:])
        elif state is _GREETING and data == _USUAL_GREETING:
            self._offered = _USUAL_OFFER.methods
            self._state = _METHOD
            return _USUAL_OFFER
        return None

    def next_event(self) -> Event | NeedData:
        """The next thing that the client said, or L{NEED_DATA}.

        @raise RemoteProtocolError: what the client speaks is not SOCKS5; close the connection.
        """
        state = self._state
        if state is _REQUEST:
            return self._read_request()
        if state is _CONNECTING:
            return self._read_while_connecting()
        if state is _GREETING:
            return self._read_greeting()
        if state is _LOGIN:
            return self._read_login()
        return NEED_DATA

    @property
    def pending(self) -> int:
        """How many octets have arrived and are not yet understood."""
        return len(self._pending)

    @property
    def trailing_data(self) -> bytes:
        """What the client sent behind its CONNECT: the first octets of the stream.

        @raise LocalProtocolError: the stream has not begun.
        """
        if self._state is not _CONNECTED:
            raise LocalProtocolError(f"no stream yet: the machine waits for {self._state.value}")
        return bytes(self._pending)

    # -- what goes out ---------------------------------------------------------------------------

    def choose_method(self) -> bytes:
        """Answer the greeting (RFC 1928, 3); with C{05 FF} if no method suits both sides."""
        if self._state is not _METHOD:
            raise self._not_now()
        if self._check_login and USERNAME_PASSWORD in self._offered:
            self._state = _LOGIN
            return bytes((VERSION, USERNAME_PASSWORD))
        if not self._require_login and NO_AUTHENTICATION in self._offered:
            self._state = _REQUEST
            return bytes((VERSION, NO_AUTHENTICATION))
        self._close()
        return bytes((VERSION, NO_METHOD))

    def answer_login(self, accepted: bool) -> bytes:
        """Answer a login (RFC 1929, 2); a refused one ends the session."""
        if self._state is not _VERDICT:
            raise self._not_now()
        if accepted:
            self._state = _REQUEST
            return bytes((_LOGIN_VERSION, 0))
        self._close()
        return bytes((_LOGIN_VERSION, 1))

    def bound(self, address: Address) -> bytes:
        """Say which source address is bound."""
        if self._state is not _BINDING:
            raise self._not_now()
        reply = _SUCCEEDED + address.to_bytes()
        self._state = _REQUEST
        return reply

    def connected(self, address: Address) -> bytes:
        """Say that the connection stands and which address it leaves from; the stream begins."""
        if self._state is not _CONNECTING:
            raise self._not_now()
        reply = _SUCCEEDED + address.to_bytes()
        self._state = _CONNECTED
        return reply

    def refuse(self, rep: Rep) -> bytes:
        """Answer a request with a failure, which ends the session (RFC 1928, 6)."""
        if self._state not in (_BINDING, _CONNECTING, _REFUSING):
            raise self._not_now()
        if rep is Rep.SUCCEEDED:
            raise LocalProtocolError("success is no refusal")
        self._close()
        return bytes((VERSION, rep, 0)) + _NOWHERE

    def _not_now(self) -> LocalProtocolError:
        return LocalProtocolError(f"the machine waits for {self._state.value}")

    def _close(self) -> None:
        self._state = _CLOSED
        self.is_closed = True
        self._pending.clear()

    # -- reading ---------------------------------------------------------------------------------

    def _read_greeting(self) -> Event | NeedData:
        pending = self._pending
        if pending and pending[0] != VERSION:
            raise RemoteProtocolError(f"the greeting begins with {pending[0]:#04x}, not with 0x05")
        if len(pending) < 2 or len(pending) < 2 + pending[1]:
            return NEED_DATA
        end = 2 + pending[1]
        self._offered = bytes(pending[2:end])
        del pending[:end]
        self._state = _METHOD
        return _methods_offered(self._offered)

    def _read_login(self) -> Event | NeedData:
        pending = self._pending
        if pending and pending[0] != _LOGIN_VERSION:
            raise RemoteProtocolError(f"the login begins with {pending[0]:#04x}, not with 0x01")
        if len(pending) < 2:
            return NEED_DATA
        password = 3 + pending[1]
        if len(pending) < password or len(pending) < password + pending[password - 1]:
            return NEED_DATA
        end = password + pending[password - 1]
        event = Credentials(bytes(pending[2 : password - 1]), bytes(pending[password:end]))
        del pending[:end]
        self._state = _VERDICT
        return event

    def _read_request(self) -> Event | NeedData:
        pending = self._pending
        if pending and pending[0] != VERSION:
            raise RemoteProtocolError(f"a request begins with {pending[0]:#04x}, not with 0x05")
        if len(pending) < 4:
            return NEED_DATA
        command, reserved = pending[1], pending[2]
        try:
            found = read_address(pending, 3)
        except UnknownAddressTypeError as error:
            return self._unacceptable(Rep.ADDRESS_TYPE_NOT_SUPPORTED, str(error))
        if found is None:
            return NEED_DATA
        address, end = found
        del pending[:end]
        if reserved != 0:
            return self._unacceptable(
                Rep.GENERAL_FAILURE, f"RSV of a request is {reserved:#04x}, not 0"
            )
        if command == _BIND:
            return self._read_bind(address)
        if command == _CONNECT:
            return self._read_connect(address)
        return self._unacceptable(
            Rep.COMMAND_NOT_SUPPORTED, f"command {command:#04x} is neither CONNECT nor BIND"
        )

    def _read_bind(self, source: Address) -> Event:
        if self._bind_seen:
            return self._unacceptable(Rep.GENERAL_FAILURE, "a second BIND")
        if isinstance(source.host, str):
            return self._unacceptable(
                Rep.ADDRESS_TYPE_NOT_SUPPORTED, "BIND to a name instead of an address"
            )
        self._bind_seen = True
        self._state = _BINDING
        return BindRequest(source)

    def _read_connect(self, destination: Address) -> Event:
        if isinstance(destination.host, str):
            if not self._allow_names:
                return self._unacceptable(
                    Rep.ADDRESS_TYPE_NOT_SUPPORTED, "CONNECT to a name instead of an address"
                )
            if _HOST_NAME.fullmatch(destination.host) is None:
                return self._unacceptable(Rep.GENERAL_FAILURE, "CONNECT to what is not a host name")
        self._state = _CONNECTING
        return ConnectRequest(destination)

    def _read_while_connecting(self) -> Event | NeedData:
        """Find a request behind CONNECT, which the protocol does not allow."""
        pending = self._pending
        if len(pending) < 4 or pending[0] != VERSION or pending[2] != 0:
            return NEED_DATA
        if pending[1] not in (Command.CONNECT, Command.BIND, Command.UDP_ASSOCIATE):
            return NEED_DATA
        try:
            if read_address(pending, 3) is None:
                return NEED_DATA
        except UnknownAddressTypeError:
            return NEED_DATA
        return self._unacceptable(Rep.GENERAL_FAILURE, "a request after CONNECT")

    def _unacceptable(self, rep: Rep, problem: str) -> Unacceptable:
        self._state = _REFUSING
        return Unacceptable(rep, problem)
