"""Tests for the client's side of SOCKS5 (RFC 1928, RFC 1929, and BIND as KumoProxy knows it)."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from socksio.socks5 import SOCKS5AuthMethod, SOCKS5AuthMethodsRequest, SOCKS5Command
from socksio.socks5 import SOCKS5CommandRequest as ForeignRequest
from socksio.socks5 import SOCKS5UsernamePasswordRequest as ForeignLogin
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.socks5.client import (
    BindRefused,
    ConnectRefused,
    Established,
    Event,
    LoginRefused,
    NoAcceptableMethod,
    Send,
    SOCKS5Client,
    SourceMismatch,
    unmapped,
)
from kumotwist.wire.socks5.format import Address

V4 = Address(ipaddress.ip_address("192.0.2.1"), 25)
V6 = Address(ipaddress.ip_address("2001:db8::1"), 25)
SOURCE = ipaddress.ip_address("10.0.0.1")
SOURCE6 = ipaddress.ip_address("2001:db8::5")

BOUND = b"\x05\x00\x00\x01\x0a\x00\x00\x01\xcf\xda"  # 10.0.0.1:53210
UNKNOWN = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"

Maker = Callable[[], SOCKS5Client]


def whole(*replies: bytes) -> Iterator[bytes]:
    """Each reply in one piece."""
    yield from replies


def octet_by_octet(*replies: bytes) -> Iterator[bytes]:
    """The replies in pieces of one octet."""
    data = b"".join(replies)
    for number in range(len(data)):
        yield data[number : number + 1]


def run(client: SOCKS5Client, pieces: Iterator[bytes]) -> tuple[list[Event], bytes]:
    """Feed a client until it stops; what it said, and what follows the negotiation."""
    events: list[Event] = []
    left = bytearray()
    over = False
    for piece in pieces:
        if over:
            # After a refusal there is no stream that anything could belong to.
            left += piece if client.phase == "established" else b""
            continue
        client.receive_data(piece)
        while (event := client.next_event()) is not NEED_DATA:
            events.append(event)
            if not isinstance(event, Send):
                over = True
                left += client.trailing_data
                break
    return events, bytes(left)


class ClientTestCase(SynchronousTestCase):
    """What the tests of this file share."""

    def assertNegotiates(
        self,
        make: Maker,
        replies: tuple[bytes, ...],
        sent: list[bytes],
        last: Event,
        *,
        stream: bool = True,
    ) -> None:
        """Whole, octet by octet, and with a banner behind it, the same events come."""
        expected = [*(Send(data) for data in sent), last]
        for cut in (whole, octet_by_octet):
            for banner in (b"", b"220 mx ESMTP\r\n"):
                events, left = run(make(), cut(*replies[:-1], replies[-1] + banner))
                self.assertEqual(events, expected)
                if stream:
                    self.assertEqual(left, banner)

    def assertBroken(self, make: Maker, words: str, *replies: bytes) -> None:
        """Whole and octet by octet, the replies are a violation of the protocol."""
        for cut in (whole, octet_by_octet):
            client = make()
            error = self.assertRaises(RemoteProtocolError, run, client, cut(*replies))
            if cut is whole:
                self.assertIn(words, str(error))
            self.assertEqual(client.phase, "failed")
            self.assertRaises(LocalProtocolError, client.next_event)
            self.assertRaises(LocalProtocolError, client.receive_data, b"x")


class ConnectTests(ClientTestCase):
    """CONNECT alone, which every SOCKS5 server accepts."""

    def test_ipv4(self) -> None:
        """An IPv4 destination is sent as four octets and the port."""
        client = SOCKS5Client(V4)
        self.assertEqual(client.start(), b"\x05\x01\x00")
        self.assertNegotiates(
            lambda: SOCKS5Client(V4),
            (b"\x05\x00", BOUND),
            [b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"],
            Established(Address(SOURCE, 53210)),
        )

    def test_ipv6(self) -> None:
        """An IPv6 destination is sent as sixteen octets and the port."""
        self.assertNegotiates(
            lambda: SOCKS5Client(V6),
            (b"\x05\x00", b"\x05\x00\x00\x04" + SOURCE6.packed + b"\x00\x07"),
            [b"\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000001") + b"\x00\x19"],
            Established(Address(SOURCE6, 7)),
        )

    def test_without_connect(self) -> None:
        """A client that shall not connect stops, satisfied, when the server has bound the address,
        or where there is none to bind, has accepted it."""
        self.assertNegotiates(
            lambda: SOCKS5Client(V4, source=SOURCE, connect=False),
            (b"\x05\x00", BOUND),
            [b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x00"],
            Established(Address(SOURCE, 53210)),
        )
        self.assertNegotiates(
            lambda: SOCKS5Client(V4, username="u", password="p", connect=False),
            (b"\x05\x02", b"\x01\x00"),
            [b"\x01\x01u\x01p"],
            Established(None),
        )

    def test_mapped_destination_is_ipv4(self) -> None:
        """An IPv4-mapped IPv6 destination is sent as the IPv4 address that it is."""
        mapped = Address(ipaddress.ip_address("::ffff:192.0.2.1"), 25)
        events, _ = run(SOCKS5Client(mapped), whole(b"\x05\x00"))
        self.assertEqual(events, [Send(b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19")])

    def test_name(self) -> None:
        """A host name is sent as a name, also one of 255 octets."""
        for name in ("mx.example.com", "x" * 255):
            self.assertNegotiates(
                lambda name=name: SOCKS5Client(Address(name, 587)),  # type: ignore[misc]
                (b"\x05\x00", UNKNOWN),
                [b"\x05\x01\x00\x03" + bytes((len(name),)) + name.encode() + b"\x02\x4b"],
                Established(None),
            )

    def test_long_name_is_refused(self) -> None:
        """A host name of more than 255 octets is an error and is not cut."""
        self.assertRaises(LocalProtocolError, SOCKS5Client, Address("x" * 256, 25))

    def test_reply_with_a_name(self) -> None:
        """BND.ADDR may be a name of 0 to 255 octets; all of it is taken off the stream."""
        for name in ("out.example.com", "x" * 255):
            self.assertNegotiates(
                lambda: SOCKS5Client(V4),
                (
                    b"\x05\x00",
                    b"\x05\x00\x00\x03" + bytes((len(name),)) + name.encode() + b"\x00\x07",
                ),
                [b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"],
                Established(Address(name, 7)),
            )
        self.assertNegotiates(
            lambda: SOCKS5Client(V4),
            (b"\x05\x00", b"\x05\x00\x00\x03\x00\x00\x00"),
            [b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"],
            Established(None),
        )

    def test_name_is_shown_safely(self) -> None:
        """A name in a reply is shown as one line without control characters, whatever it is."""
        reply = b"\x05\x00\x00\x03\x05\x1b[3\n\xff\x00\x07"
        events, left = run(SOCKS5Client(V4), whole(b"\x05\x00", reply + b"220 mx"))
        established = events[-1]
        assert isinstance(established, Established)
        self.assertEqual(str(established.source), "\\x1b[3\\x0a\\xff:7")
        self.assertEqual(left, b"220 mx")

    def test_every_refusal(self) -> None:
        """Each REP is reported with its number, also when what follows it is malformed."""
        for rep in range(1, 256):
            for rest in (b"", b"\x00\x01\x00\x00\x00\x00\x00\x00", b"\x00\x00", b"\xff\x09junk"):
                client = SOCKS5Client(V4)
                events, left = run(client, whole(b"\x05\x00", b"\x05" + bytes((rep,)) + rest))
                self.assertEqual(events[1:], [ConnectRefused(rep)])
                self.assertEqual(left, b"")
                self.assertEqual(client.phase, "failed")

    def test_phases(self) -> None:
        """The phase names what is being waited for."""
        client = SOCKS5Client(V4, source=SOURCE, username="u", password="p")
        phases = [client.phase]
        for reply in (b"\x05\x02", b"\x01\x00", BOUND, BOUND):
            client.receive_data(reply)
            client.next_event()
            phases.append(client.phase)
        expected = ["greeting", "login", "bind", "connect-request", "established"]
        self.assertEqual(phases, expected)

    def test_over_is_over(self) -> None:
        """After the last reply the machine takes nothing more: the rest is the stream."""
        client = SOCKS5Client(V4)
        run(client, whole(b"\x05\x00", BOUND))
        self.assertRaises(LocalProtocolError, client.receive_data, b"x")
        self.assertRaises(LocalProtocolError, client.next_event)


class LoginTests(ClientTestCase):
    """RFC 1929."""

    def make(self) -> SOCKS5Client:
        """A client with a login."""
        return SOCKS5Client(V4, username="user", password="pässword")

    def test_login(self) -> None:
        """With a login both methods are offered, and it is said in UTF-8 if the server wants it."""
        self.assertEqual(self.make().start(), b"\x05\x02\x00\x02")
        self.assertNegotiates(
            self.make,
            (b"\x05\x02", b"\x01\x00", UNKNOWN),
            [
                b"\x01\x04user\x09p\xc3\xa4ssword",
                b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19",
            ],
            Established(None),
        )

    def test_password_is_kept_where_it_is_not_asked_for(self) -> None:
        """A server that chose to go on without a login never sees the password."""
        events, _ = run(self.make(), whole(b"\x05\x00", UNKNOWN))
        self.assertNotIn(b"ssword", b"".join(e.data for e in events if isinstance(e, Send)))

    def test_password_is_not_shown(self) -> None:
        """The password is not in the representation of an event."""
        events, _ = run(self.make(), whole(b"\x05\x02"))
        self.assertNotIn("ssword", repr(events))

    def test_refused(self) -> None:
        """Any status but 0 is a refusal, and nothing more is sent."""
        for status in (1, 2, 255):
            events, _ = run(self.make(), whole(b"\x05\x02", b"\x01" + bytes((status,))))
            self.assertEqual(events[1:], [LoginRefused(status)])

    def test_wrong_version(self) -> None:
        """A login reply of another version than 1 is a violation."""
        self.assertBroken(self.make, "login reply of an unknown version", b"\x05\x02", b"\x05\x00")

    def test_only_login(self) -> None:
        """A client may insist on a login; then the server cannot choose to go on without."""
        client = SOCKS5Client(V4, username="u", password="p", anonymous=False)
        self.assertEqual(client.start(), b"\x05\x01\x02")
        self.assertBroken(
            lambda: SOCKS5Client(V4, username="u", password="p", anonymous=False),
            "method 00",
            b"\x05\x00",
        )

    def test_lengths(self) -> None:
        """User name and password have 1 to 255 octets; the messages do not quote them."""
        long = "s3cret" * 50
        for arguments in (
            {"username": "", "password": "p"},
            {"username": "u", "password": long},
            {"username": long, "password": "p"},
            {"username": "u"},
            {"password": "s3cret"},
            {"username": "u", "password": "s3cret\ud800"},
        ):
            error = self.assertRaises(LocalProtocolError, SOCKS5Client, V4, **arguments)
            self.assertNotIn("s3cret", str(error))
        login = SOCKS5Client(V4, username="u" * 255, password="p" * 255)
        events, _ = run(login, whole(b"\x05\x02"))
        self.assertEqual(events, [Send(b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255)])

    def test_nothing_to_offer(self) -> None:
        """A client without any method cannot be."""
        self.assertRaises(LocalProtocolError, SOCKS5Client, V4, anonymous=False)


class BindTests(ClientTestCase):
    """The chosen source address."""

    BIND = b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x00"
    CONNECT = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x19"

    def make(self) -> SOCKS5Client:
        """A client with a source address."""
        return SOCKS5Client(V4, source=SOURCE)

    def test_bind_then_connect(self) -> None:
        """BIND with port 0 comes first, CONNECT only after its reply."""
        self.assertNegotiates(
            self.make,
            (b"\x05\x00", BOUND, BOUND),
            [self.BIND, self.CONNECT],
            Established(Address(SOURCE, 53210)),
        )

    def test_ipv6(self) -> None:
        """An IPv6 source goes with an IPv6 destination."""
        reply = b"\x05\x00\x00\x04" + SOURCE6.packed + b"\x00\x07"
        self.assertNegotiates(
            lambda: SOCKS5Client(V6, source=SOURCE6),
            (b"\x05\x00", reply, reply),
            [
                b"\x05\x02\x00\x04" + SOURCE6.packed + b"\x00\x00",
                b"\x05\x01\x00\x04" + V6.host.packed + b"\x00\x19",  # type: ignore[union-attr]
            ],
            Established(Address(SOURCE6, 7)),
        )

    def test_unknown_address_after_connect(self) -> None:
        """0.0.0.0, :: and an empty name after CONNECT mean unknown; the bound address stands."""
        for unknown in (
            UNKNOWN,
            b"\x05\x00\x00\x04" + bytes(18),
            b"\x05\x00\x00\x03\x00\x00\x00",
        ):
            self.assertNegotiates(
                self.make,
                (b"\x05\x00", BOUND, unknown),
                [self.BIND, self.CONNECT],
                Established(Address(SOURCE, 53210)),
            )

    def test_bind_refused(self) -> None:
        """After a refused BIND no CONNECT is sent."""
        for rep in (1, 2, 7, 8, 9, 255):
            events, _ = run(self.make(), whole(b"\x05\x00", b"\x05" + bytes((rep,)) + UNKNOWN[2:]))
            self.assertEqual(events, [Send(self.BIND), BindRefused(rep)])

    def test_bound_elsewhere(self) -> None:
        """A BIND that reports another address, or none, is no success: no CONNECT is sent."""
        for tail, reported in (
            (b"\x01\x7f\x00\x00\x01\x00\x00", Address(ipaddress.ip_address("127.0.0.1"), 0)),
            (UNKNOWN[3:], Address(ipaddress.ip_address("0.0.0.0"), 0)),
            (b"\x03\x00\x00\x00", Address("", 0)),
            (b"\x03\x01x\x00\x00", Address("x", 0)),
            (b"\x04" + SOURCE6.packed + b"\x00\x00", Address(SOURCE6, 0)),
        ):
            self.assertNegotiates(
                self.make,
                (b"\x05\x00", b"\x05\x00\x00" + tail),
                [self.BIND],
                SourceMismatch("bind", SOURCE, reported),
                stream=False,
            )

    def test_connected_from_elsewhere(self) -> None:
        """A CONNECT that reports another address than the one asked for is not accepted."""
        self.assertNegotiates(
            self.make,
            (b"\x05\x00", BOUND, b"\x05\x00\x00\x01\x0a\x00\x00\x02\x00\x07"),
            [self.BIND, self.CONNECT],
            SourceMismatch("connect-request", SOURCE, Address(ipaddress.ip_address("10.0.0.2"), 7)),
            stream=False,
        )

    def test_same_address_otherwise_written(self) -> None:
        """An IPv4-mapped IPv6 address, which is told as the IPv4 address that it is, or the address
        spelled as a name, is the same address."""
        mapped = ipaddress.ip_address("::ffff:10.0.0.1")
        for tail, host in (
            (b"\x04" + mapped.packed + b"\x00\x07", SOURCE),
            (b"\x03\x0810.0.0.1\x00\x07", "10.0.0.1"),
        ):
            self.assertNegotiates(
                self.make,
                (b"\x05\x00", *2 * (b"\x05\x00\x00" + tail,)),
                [self.BIND, self.CONNECT],
                Established(Address(host, 7)),
            )

    def test_mapped_source(self) -> None:
        """An IPv4-mapped source address is asked for as the IPv4 address that it is."""
        client = SOCKS5Client(V4, source=ipaddress.ip_address("::ffff:10.0.0.1"))
        events, _ = run(client, whole(b"\x05\x00"))
        self.assertEqual(events, [Send(self.BIND)])

    def test_unverified(self) -> None:
        """A proxy behind NAT may report what it likes when verification is off; BIND must do."""
        other = b"\x05\x00\x00\x01\xcb\x00\x71\x09\x00\x07"
        self.assertNegotiates(
            lambda: SOCKS5Client(V4, source=SOURCE, verify_source_address=False),
            (b"\x05\x00", other, other),
            [self.BIND, self.CONNECT],
            Established(Address(ipaddress.ip_address("203.0.113.9"), 7)),
        )
        refused = SOCKS5Client(V4, source=SOURCE, verify_source_address=False)
        events, _ = run(refused, whole(b"\x05\x00", b"\x05\x02"))
        self.assertEqual(events, [Send(self.BIND), BindRefused(2)])

    def test_impossible_combinations(self) -> None:
        """A source needs a destination that is an address, of its family."""
        self.assertRaises(LocalProtocolError, SOCKS5Client, V6, source=SOURCE)
        self.assertRaises(LocalProtocolError, SOCKS5Client, V4, source=SOURCE6)
        self.assertRaises(LocalProtocolError, SOCKS5Client, Address("mx", 25), source=SOURCE)

    def test_unmapped(self) -> None:
        """Only IPv4-mapped addresses are taken for IPv4."""
        self.assertEqual(unmapped(ipaddress.ip_address("::ffff:10.0.0.1")), SOURCE)
        self.assertEqual(unmapped(SOURCE6), SOURCE6)
        self.assertEqual(unmapped(SOURCE), SOURCE)


class ViolationTests(ClientTestCase):
    """What is not SOCKS5."""

    def make(self) -> SOCKS5Client:
        """A client without a login."""
        return SOCKS5Client(V4)

    def test_no_acceptable_method(self) -> None:
        """05 FF is a refusal of every method."""
        client = self.make()
        events, _ = run(client, whole(b"\x05\xff"))
        self.assertEqual(events, [NoAcceptableMethod()])
        self.assertEqual(client.phase, "failed")

    def test_method_that_was_not_offered(self) -> None:
        """A method that was not offered is a violation; no password could be sent anyway."""
        for method in (1, 2, 3, 0x80, 0xFE):
            self.assertBroken(self.make, f"method {method:02x}", b"\x05" + bytes((method,)))

    def test_other_protocols(self) -> None:
        """HTTP, SMTP and SOCKS4 are recognised for what they are, and quoted briefly."""
        self.assertBroken(self.make, "HTTP instead of SOCKS5", b"HTTP/1.1 400 Bad Request\r\n")
        self.assertBroken(self.make, "220 mx.example.", b"220 mx.example.com ESMTP\r\n")
        self.assertBroken(self.make, "SOCKS4", b"\x04\x5a")
        self.assertBroken(self.make, "SOCKS4", b"\x00\x5b\x00\x00")
        self.assertBroken(self.make, "\\x1b[2J", b"\x1b[2J\r\n" * 99)

    def test_wrong_version_later(self) -> None:
        """Every reply must say version 5."""
        self.assertBroken(self.make, "not SOCKS5", b"\x05\x00", b"\x06\x00")

    def test_unknown_address_type(self) -> None:
        """A success with an unknown address type cannot be framed and is a violation."""
        for kind in (0, 2, 5, 9, 255):
            self.assertBroken(
                self.make, f"address type {kind}", b"\x05\x00", b"\x05\x00\x00" + bytes((kind,))
            )

    def test_answers_ahead_of_requests(self) -> None:
        """A server that answers what it was not asked yet is not believed, however right."""

        def make() -> SOCKS5Client:
            return SOCKS5Client(V4, source=SOURCE, username="u", password="p")

        for replies in (
            (b"\x05\x00" + BOUND + BOUND + b"220 mx ESMTP\r\n",),
            (b"\x05\x00", BOUND + BOUND),
            (b"\x05\x02\x01\x00",),
            (b"\x05\x02", b"\x01\x00" + BOUND),
            (b"\x05\x00\x05",),
        ):
            client = make()
            error = self.assertRaises(RemoteProtocolError, run, client, whole(*replies))
            self.assertIn("before it was asked", str(error))
            self.assertEqual(client.phase, "failed")

    def test_unanswered(self) -> None:
        """That CONNECT alone is not answered is known from its sending to its first octet."""
        client = SOCKS5Client(V4, source=SOURCE)
        found = [client.unanswered]
        for reply in (b"\x05\x00", BOUND, BOUND[:1], BOUND[1:]):
            run(client, whole(reply))
            found.append(client.unanswered)
        self.assertEqual(found, [False, False, True, False, False])

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=64), st.lists(st.integers(0, 64), max_size=4), st.booleans())
    def test_any_octets(self, data: bytes, cuts: list[int], greeted: bool) -> None:
        """Any octets in any pieces give events or a violation of the protocol. Pieces make no
        difference but for one: what comes together with the reply before is a violation."""

        def outcome(pieces: Iterator[bytes]) -> object:
            client = SOCKS5Client(V4, source=SOURCE, username="u", password="p")
            try:
                return run(client, pieces)
            except RemoteProtocolError:
                return "violation"

        octets = b"\x05\x00" + data if greeted else data
        edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
        pieces = (octets[a:b] for a, b in itertools.pairwise(edges))
        self.assertIn(outcome(pieces), ("violation", outcome(octet_by_octet(octets))))


class SecondOpinionTests(SynchronousTestCase):
    """socksio from PyPI encodes the same octets."""

    def test_socksio(self) -> None:
        """Greeting, login and CONNECT are octet for octet what socksio sends."""
        both = [SOCKS5AuthMethod.NO_AUTH_REQUIRED, SOCKS5AuthMethod.USERNAME_PASSWORD]
        for host, port in (("192.0.2.1", 25), ("2001:db8::1", 587), ("mx.example.com", 465)):
            destination = host if host.startswith("mx") else ipaddress.ip_address(host)
            client = SOCKS5Client(Address(destination, port), username="user", password="secret")
            self.assertEqual(client.start(), SOCKS5AuthMethodsRequest(both).dumps())
            events, _ = run(client, whole(b"\x05\x02", b"\x01\x00"))
            login = ForeignLogin(b"user", b"secret").dumps()
            request = ForeignRequest.from_address(SOCKS5Command.CONNECT, (host, port)).dumps()
            self.assertEqual(events, [Send(login), Send(request)])
