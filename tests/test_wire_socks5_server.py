"""The server's SOCKS5 machine: every step whole, octet by octet and with octets behind it."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from socksio.socks5 import (
    SOCKS5AuthMethod,
    SOCKS5AuthMethodsRequest,
    SOCKS5Command,
    SOCKS5CommandRequest,
    SOCKS5Connection,
    SOCKS5UsernamePasswordRequest,
)
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.socks5.client import (
    ConnectRefused,
    Established,
    LoginRefused,
    NoAcceptableMethod,
    Send,
    SOCKS5Client,
)
from kumotwist.wire.socks5.format import Address, Rep
from kumotwist.wire.socks5.server import (
    MAX_PENDING,
    BindRequest,
    ConnectRequest,
    Credentials,
    Event,
    MethodsOffered,
    SOCKS5Server,
    Unacceptable,
)

SOURCE = Address(ipaddress.ip_address("127.0.0.2"), 0)
OUTER = Address(ipaddress.ip_address("127.0.0.2"), 40000)
MX = Address(ipaddress.ip_address("192.0.2.25"), 25)
MX6 = Address(ipaddress.ip_address("2001:db8::25"), 25)

GREETING = b"\x05\x01\x00"
BIND = b"\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x00"
CONNECT = b"\x05\x01\x00\x01\xc0\x00\x02\x19\x00\x19"
CONNECT6 = b"\x05\x01\x00\x04" + MX6.host.packed + b"\x00\x19"  # type: ignore[union-attr]
SUCCEEDED = b"\x05\x00\x00\x01\x7f\x00\x00\x02\x9c\x40"


def refusal(rep: int) -> bytes:
    """The reply that says C{rep}."""
    return bytes((5, rep, 0, 1, 0, 0, 0, 0, 0, 0))


def answer(machine: SOCKS5Server, event: Event, password: bytes = b"secret") -> bytes:
    """Answer an event the way a proxy would that owns every source and reaches everything."""
    if isinstance(event, MethodsOffered):
        return machine.choose_method()
    if isinstance(event, Credentials):
        return machine.answer_login(event.password == password)
    if isinstance(event, BindRequest):
        return machine.bound(event.source)
    if isinstance(event, ConnectRequest):
        return machine.connected(OUTER)
    return machine.refuse(event.rep)


def run(
    machine: SOCKS5Server, pieces: Iterable[bytes], by_message: bool = False
) -> tuple[list[Event], bytes, bytes]:
    """Feed pieces; return the events, everything that was said, and the stream behind it.

    @param by_message: whether each is offered to C{receive_message} first.
    """
    events: list[Event] = []
    said = b""
    stream = b""
    begun = False
    for piece in pieces:
        if begun:
            stream += piece
            continue
        whole = machine.receive_message(piece) if by_message else None
        if whole is None:
            machine.receive_data(piece)
        while (event := whole or machine.next_event()) is not NEED_DATA:
            whole = None
            events.append(event)
            said += answer(machine, event)
            if isinstance(event, ConnectRequest):
                begun = True
                stream = machine.trailing_data
                break
    return events, said, stream


def octets(data: bytes) -> list[bytes]:
    """The data as pieces of one octet."""
    return [data[index : index + 1] for index in range(len(data))]


def messages(data: bytes) -> list[bytes]:
    """The data as a client sends it, a message at a time: each begins with its version."""
    pieces: list[bytes] = []
    rest = data
    while rest:
        kind = rest[3] if len(rest) > 3 else 0
        length = {1: 10, 4: 22}.get(kind, len(rest)) if pieces else 2 + rest[1]
        pieces.append(rest[:length])
        rest = rest[length:]
    return pieces


class SessionTests(SynchronousTestCase):
    """Whole sessions, however they are cut."""

    def check(
        self,
        sent: bytes,
        said: bytes,
        *events: Event,
        make: Callable[[], SOCKS5Server] = SOCKS5Server,
    ) -> None:
        """Run a session whole, octet by octet and with a stream behind it."""
        self.assertEqual(run(make(), [sent]), (list(events), said, b""))
        self.assertEqual(run(make(), octets(sent)), (list(events), said, b""))
        self.assertEqual(run(make(), messages(sent), by_message=True), (list(events), said, b""))
        trailing = b"" if isinstance(events[-1], Unacceptable) else b"EHLO me\r\n"
        for pieces in ([sent + b"EHLO me\r\n"], octets(sent + b"EHLO me\r\n")):
            for by_message in (False, True):
                found = run(make(), pieces, by_message)
                self.assertEqual(found, (list(events), said, trailing))

    def test_connect(self) -> None:
        """CONNECT alone gets the local address of the connection."""
        self.check(
            GREETING + CONNECT,
            b"\x05\x00" + SUCCEEDED,
            MethodsOffered(b"\x00"),
            ConnectRequest(MX),
        )

    def test_connect_ipv6(self) -> None:
        """An IPv6 destination is understood."""
        self.check(
            GREETING + CONNECT6,
            b"\x05\x00" + SUCCEEDED,
            MethodsOffered(b"\x00"),
            ConnectRequest(MX6),
        )

    def test_bind_then_connect(self) -> None:
        """BIND is answered at once with what was bound, then CONNECT follows."""
        self.check(
            GREETING + BIND + CONNECT,
            b"\x05\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x02\x00\x00" + SUCCEEDED,
            MethodsOffered(b"\x00"),
            BindRequest(SOURCE),
            ConnectRequest(MX),
        )

    def test_second_bind(self) -> None:
        """A second BIND is a general failure."""
        self.check(
            GREETING + BIND + BIND,
            b"\x05\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x02\x00\x00" + refusal(1),
            MethodsOffered(b"\x00"),
            BindRequest(SOURCE),
            Unacceptable(Rep.GENERAL_FAILURE, "a second BIND"),
        )

    def test_login(self) -> None:
        """A login is asked for, checked and followed by requests."""
        self.check(
            b"\x05\x02\x00\x02" + b"\x01\x03mta\x06secret" + CONNECT,
            b"\x05\x02" + b"\x01\x00" + SUCCEEDED,
            MethodsOffered(b"\x00\x02"),
            Credentials(b"mta", b"secret"),
            ConnectRequest(MX),
            make=lambda: SOCKS5Server(check_login=True, require_login=True),
        )

    def test_udp_associate(self) -> None:
        """UDP ASSOCIATE is a command that is not supported."""
        self.check(
            GREETING + b"\x05\x03" + CONNECT[2:],
            b"\x05\x00" + refusal(7),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.COMMAND_NOT_SUPPORTED, "command 0x03 is neither CONNECT nor BIND"),
        )

    def test_unknown_command(self) -> None:
        """So is a command that nobody defined."""
        self.check(
            GREETING + b"\x05\x7f" + CONNECT[2:],
            b"\x05\x00" + refusal(7),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.COMMAND_NOT_SUPPORTED, "command 0x7f is neither CONNECT nor BIND"),
        )

    def test_unknown_address_type(self) -> None:
        """An unknown ATYP has a reply of its own."""
        self.check(
            GREETING + b"\x05\x01\x00\x09",
            b"\x05\x00" + refusal(8),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.ADDRESS_TYPE_NOT_SUPPORTED, "address type 9 is not one of 1, 3 and 4"),
        )

    def test_name_refused(self) -> None:
        """A name is an address type that is not supported, unless names are allowed."""
        self.check(
            GREETING + b"\x05\x01\x00\x03\x0amx.example\x00\x19",
            b"\x05\x00" + refusal(8),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.ADDRESS_TYPE_NOT_SUPPORTED, "CONNECT to a name instead of an address"),
        )

    def test_name_allowed(self) -> None:
        """A name reaches the proxy as text when names are allowed."""
        self.check(
            GREETING + b"\x05\x01\x00\x03\x0amx.example\x00\x19",
            b"\x05\x00" + SUCCEEDED,
            MethodsOffered(b"\x00"),
            ConnectRequest(Address("mx.example", 25)),
            make=lambda: SOCKS5Server(allow_names=True),
        )

    def test_hostile_names(self) -> None:
        """A NUL, a blank, nothing at all: not a host name, even where names are allowed."""
        for name in (b"mx\x00.example", b"a b", b"", b"-x", b"a..b", b"caf\xc3\xa9", b"x" * 64):
            self.check(
                GREETING + b"\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x00\x19",
                b"\x05\x00" + refusal(1),
                MethodsOffered(b"\x00"),
                Unacceptable(Rep.GENERAL_FAILURE, "CONNECT to what is not a host name"),
                make=lambda: SOCKS5Server(allow_names=True),
            )

    def test_bind_to_a_name(self) -> None:
        """A source is never a name."""
        self.check(
            GREETING + b"\x05\x02\x00\x03\x01a\x00\x00",
            b"\x05\x00" + refusal(8),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.ADDRESS_TYPE_NOT_SUPPORTED, "BIND to a name instead of an address"),
            make=lambda: SOCKS5Server(allow_names=True),
        )

    def test_reserved_octet(self) -> None:
        """RSV that is not zero is a general failure."""
        self.check(
            GREETING + b"\x05\x01\x07" + CONNECT[3:],
            b"\x05\x00" + refusal(1),
            MethodsOffered(b"\x00"),
            Unacceptable(Rep.GENERAL_FAILURE, "RSV of a request is 0x07, not 0"),
        )

    def test_request_after_connect(self) -> None:
        """A request while CONNECT is being carried out is a general failure."""
        for second in (BIND, CONNECT, b"\x05\x03" + CONNECT[2:]):
            machine = SOCKS5Server()
            machine.receive_data(GREETING + CONNECT)
            machine.next_event()
            machine.choose_method()
            self.assertEqual(machine.next_event(), ConnectRequest(MX))
            for octet in octets(second)[:-1]:
                machine.receive_data(octet)
                self.assertIs(machine.next_event(), NEED_DATA)
            machine.receive_data(second[-1:])
            event = machine.next_event()
            self.assertEqual(event, Unacceptable(Rep.GENERAL_FAILURE, "a request after CONNECT"))
            self.assertEqual(machine.refuse(Rep.GENERAL_FAILURE), refusal(1))
            self.assertTrue(machine.is_closed)

    def test_stream_ahead_of_the_reply(self) -> None:
        """What is not a request waits for the stream, also if it begins like one."""
        for early in (b"EHLO x\r\n", b"\x05", b"\x05\x01\x00\x09", b"\x05\x01\x00\x01\x00"):
            machine = SOCKS5Server()
            machine.receive_data(GREETING + CONNECT + early)
            machine.next_event()
            machine.choose_method()
            machine.next_event()
            self.assertIs(machine.next_event(), NEED_DATA)
            self.assertEqual(machine.pending, len(early))
            machine.connected(OUTER)
            self.assertEqual(machine.trailing_data, early)


class GreetingTests(SynchronousTestCase):
    """Which method is chosen."""

    def chosen(self, methods: bytes, *, check: bool = False, require: bool = False) -> bytes:
        """The answer to a greeting that offers C{methods}."""
        machine = SOCKS5Server(check_login=check, require_login=require)
        machine.receive_data(bytes((5, len(methods))) + methods)
        self.assertEqual(machine.next_event(), MethodsOffered(methods))
        said = machine.choose_method()
        self.assertEqual(machine.is_closed, said == b"\x05\xff")
        return said

    def test_nothing_acceptable(self) -> None:
        """No methods, or only unknown ones: none is acceptable."""
        for methods in (b"", b"\x01", b"\x01\x03\x80\xfe", b"\xff"):
            self.assertEqual(self.chosen(methods), b"\x05\xff")
            self.assertEqual(self.chosen(methods, check=True), b"\x05\xff")

    def test_login_offered(self) -> None:
        """A client that offers a login is asked for it wherever it can be checked."""
        self.assertEqual(self.chosen(b"\x00\x02", check=True), b"\x05\x02")
        self.assertEqual(self.chosen(b"\x00\x02"), b"\x05\x00")
        self.assertEqual(self.chosen(b"\x02"), b"\x05\xff")

    def test_login_required(self) -> None:
        """Where a login is required, a client without one is turned away."""
        self.assertEqual(self.chosen(b"\x00", check=True, require=True), b"\x05\xff")
        self.assertEqual(self.chosen(b"\x00\x02", check=True, require=True), b"\x05\x02")
        self.assertEqual(self.chosen(b"\x00", check=True), b"\x05\x00")

    def test_every_method(self) -> None:
        """A greeting with all 255 methods is fine."""
        self.assertEqual(self.chosen(bytes(range(255))), b"\x05\x00")

    def test_required_but_unchecked(self) -> None:
        """A machine that must ask but cannot check is a mistake of the caller."""
        self.assertRaises(LocalProtocolError, SOCKS5Server, require_login=True)


class LoginTests(SynchronousTestCase):
    """RFC 1929."""

    def login(self, username: bytes, password: bytes, accepted: bool) -> bytes:
        """The answer to a login."""
        machine = SOCKS5Server(check_login=True)
        machine.receive_data(b"\x05\x01\x02")
        machine.next_event()
        machine.choose_method()
        record = b"\x01" + bytes((len(username),)) + username
        machine.receive_data(record + bytes((len(password),)) + password + CONNECT)
        self.assertEqual(machine.next_event(), Credentials(username, password))
        self.assertIs(machine.next_event(), NEED_DATA)
        said = machine.answer_login(accepted)
        after = machine.next_event()
        self.assertEqual(after, ConnectRequest(MX) if accepted else NEED_DATA)
        return said

    def test_lengths(self) -> None:
        """Fields of any length and any octets arrive as they were sent."""
        for field in (b"", b"\x00", b"\x00root", b"x" * 255, bytes(range(255))):
            self.assertEqual(self.login(field, field, True), b"\x01\x00")

    def test_refused(self) -> None:
        """After a refused login nothing that the client sent is looked at."""
        self.assertEqual(self.login(b"mta", b"wrong", False), b"\x01\x01")

    def test_password_is_not_shown(self) -> None:
        """The password does not appear where an event is printed."""
        self.assertNotIn("secret", repr(Credentials(b"mta", b"secret")))


class BrokenTests(SynchronousTestCase):
    """What is not SOCKS5, and what the caller may not do."""

    def test_not_socks5(self) -> None:
        """SOCKS4, HTTP and TLS are recognised by their first octet."""
        for first in (b"\x04\x01", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"\x00"):
            machine = SOCKS5Server()
            machine.receive_data(first)
            self.assertRaises(RemoteProtocolError, machine.next_event)

    def test_wrong_versions_later(self) -> None:
        """A login or a request with a wrong version is not SOCKS5 either."""
        machine = SOCKS5Server(check_login=True)
        machine.receive_data(b"\x05\x01\x02\x05")
        machine.next_event()
        machine.choose_method()
        self.assertRaises(RemoteProtocolError, machine.next_event)
        machine = SOCKS5Server()
        machine.receive_data(b"\x05\x01\x00\x04")
        machine.next_event()
        machine.choose_method()
        self.assertRaises(RemoteProtocolError, machine.next_event)

    def test_bounded(self) -> None:
        """A client that sends without end ahead of a reply breaks the protocol."""
        machine = SOCKS5Server()
        machine.receive_data(GREETING + CONNECT)
        machine.next_event()
        machine.choose_method()
        machine.next_event()
        machine.receive_data(b"x" * MAX_PENDING)
        self.assertRaises(RemoteProtocolError, machine.receive_data, b"x")

    def test_after_refusal(self) -> None:
        """What arrives after a refusal is dropped."""
        machine = SOCKS5Server()
        machine.receive_data(b"\x05\x00")
        machine.next_event()
        machine.choose_method()
        machine.receive_data(b"x" * 2 * MAX_PENDING)
        self.assertEqual(machine.pending, 0)
        self.assertIs(machine.next_event(), NEED_DATA)

    def test_answers_out_of_turn(self) -> None:
        """An answer to what was not asked is the caller's mistake."""
        machine = SOCKS5Server()
        self.assertRaises(LocalProtocolError, machine.choose_method)
        self.assertRaises(LocalProtocolError, machine.answer_login, True)
        self.assertRaises(LocalProtocolError, machine.bound, SOURCE)
        self.assertRaises(LocalProtocolError, machine.connected, OUTER)
        self.assertRaises(LocalProtocolError, machine.refuse, Rep.GENERAL_FAILURE)
        self.assertRaises(LocalProtocolError, lambda: machine.trailing_data)
        machine.receive_data(GREETING + CONNECT)
        machine.next_event()
        machine.choose_method()
        machine.next_event()
        self.assertRaises(LocalProtocolError, machine.refuse, Rep.SUCCEEDED)
        machine.connected(OUTER)
        self.assertRaises(LocalProtocolError, machine.receive_data, b"x")


class BackToBackTests(SynchronousTestCase):
    """Our client and our server speak with each other."""

    def converse(self, client: SOCKS5Client, server: SOCKS5Server, cut: int) -> object:
        """Run both until the client knows the end, in segments of C{cut} octets."""
        to_server, to_client = client.start(), b""
        while True:
            for start in range(0, len(to_server), cut):
                server.receive_data(to_server[start : start + cut])
                while not server.is_closed and (event := server.next_event()) is not NEED_DATA:
                    to_client += answer(server, event)
                    if isinstance(event, ConnectRequest):
                        to_client += b"220 mx\r\n"
                        break
            self.assertTrue(to_client, "the conversation hangs")
            to_server = b""
            for start in range(0, len(to_client), cut):
                client.receive_data(to_client[start : start + cut])
                said = client.next_event()
                if isinstance(said, Send):
                    to_server += said.data
                elif said is not NEED_DATA:
                    if isinstance(said, Established):
                        banner = client.trailing_data + to_client[start + cut :]
                        self.assertEqual(banner, b"220 mx\r\n")
                    return said
            to_client = b""

    def test_every_way(self) -> None:
        """With and without a source, with and without a login, whole and octet by octet."""
        for cut in (1, 2, 1000):
            for source in (SOURCE.host, None):
                for login in ({}, {"username": "mta", "password": "secret"}):
                    client = SOCKS5Client(MX, source=source, **login)  # type: ignore[arg-type]
                    end = self.converse(client, SOCKS5Server(check_login=True), cut)
                    self.assertEqual(end, Established(OUTER))

    def test_refusals(self) -> None:
        """The client understands each refusal of the server."""
        required = {"check_login": True, "require_login": True}
        wrong = {"username": "mta", "password": "wrong"}
        for cut in (1, 1000):
            client = SOCKS5Client(MX)
            end = self.converse(client, SOCKS5Server(**required), cut)
            self.assertEqual(end, NoAcceptableMethod())
            client = SOCKS5Client(MX, **wrong)  # type: ignore[arg-type]
            end = self.converse(client, SOCKS5Server(**required), cut)
            self.assertEqual(end, LoginRefused(1))
            client = SOCKS5Client(Address("mx.example", 25))
            end = self.converse(client, SOCKS5Server(), cut)
            self.assertEqual(end, ConnectRefused(Rep.ADDRESS_TYPE_NOT_SUPPORTED))


class PropertyTests(SynchronousTestCase):
    """What holds for any input."""

    @given(st.lists(st.binary(max_size=40), max_size=20), st.booleans(), st.booleans())
    @settings(max_examples=200, deadline=None)
    def test_only_remote_errors(self, pieces: list[bytes], login: bool, names: bool) -> None:
        """Whatever a client sends is understood, refused, or not SOCKS5."""
        machine = SOCKS5Server(check_login=login, allow_names=names)
        with contextlib.suppress(RemoteProtocolError):
            run(machine, [b"\x05", *pieces])

    @given(st.data())
    @settings(max_examples=100, deadline=None)
    def test_any_cut(self, data: st.DataObject) -> None:
        """However a session is cut, it means the same."""
        session = b"\x05\x02\x00\x02\x01\x03mta\x06secret" + BIND + CONNECT + b"EHLO me\r\n"
        cuts = sorted(data.draw(st.sets(st.integers(0, len(session)), max_size=8)))
        bounds = [0, *cuts, len(session)]
        pieces = [session[a:b] for a, b in itertools.pairwise(bounds)]
        whole = run(SOCKS5Server(check_login=True), [session])
        self.assertEqual(run(SOCKS5Server(check_login=True), pieces), whole)
        self.assertEqual(whole[2], b"EHLO me\r\n")


class SecondOpinionTests(SynchronousTestCase):
    """socksio from PyPI says what the machine understands, and understands what it answers."""

    def test_socksio(self) -> None:
        """A whole session: method, login, CONNECT, for each kind of address, and a refusal."""
        for host, rep in (
            ("192.0.2.25", Rep.SUCCEEDED),
            ("2001:db8::25", Rep.SUCCEEDED),
            ("mx.example", Rep.SUCCEEDED),
            ("192.0.2.25", Rep.CONNECTION_REFUSED),
        ):
            client = SOCKS5Connection()
            server = SOCKS5Server(check_login=True, allow_names=True)

            def hear(
                request: Any, client: SOCKS5Connection = client, server: SOCKS5Server = server
            ) -> Any:
                client.send(request)
                server.receive_data(client.data_to_send())
                return server.next_event()

            methods = [SOCKS5AuthMethod.NO_AUTH_REQUIRED, SOCKS5AuthMethod.USERNAME_PASSWORD]
            event: Any = hear(SOCKS5AuthMethodsRequest(methods))
            self.assertEqual(event.methods, b"\x00\x02")
            answer: Any = client.receive_data(server.choose_method())
            self.assertEqual(answer.method, SOCKS5AuthMethod.USERNAME_PASSWORD)

            event = hear(SOCKS5UsernamePasswordRequest(b"mta", b"secret"))
            self.assertEqual((event.username, event.password), (b"mta", b"secret"))
            answer = client.receive_data(server.answer_login(True))
            self.assertTrue(answer.success)

            request = SOCKS5CommandRequest.from_address(SOCKS5Command.CONNECT, (host, 25))
            event = hear(request)
            self.assertEqual((str(event.destination.host), event.destination.port), (host, 25))
            source = Address(ipaddress.ip_address("203.0.113.7"), 40000)
            said = server.connected(source) if rep is Rep.SUCCEEDED else server.refuse(rep)
            answer = client.receive_data(said)
            self.assertEqual(answer.reply_code.value, bytes((rep,)))
            if rep is Rep.SUCCEEDED:
                self.assertEqual(answer.addr, str(source.host))
                self.assertEqual(answer.port, 40000)
