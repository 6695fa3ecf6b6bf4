"""What is answered to a client until its destination is connected."""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kumotwist.logins import Login
from kumotwist.proxy.outgoing import IDialer, IOutgoing
from kumotwist.wire.socks5.format import Address
from kumotwist.wire.socks5.server import MAX_PENDING
from tests.proxy_case import (
    BIND,
    BOUND,
    CONNECT,
    GREETING,
    ObedientDialer,
    ProxyCase,
    connect_to,
    login,
    refusal,
    rule,
)

CONNECTED = b"\x05\x00\x00\x01\x7f\x00\x00\x02\x9c\x40"
CONNECT6 = b"\x05\x01\x00\x04" + ipaddress.ip_address("2001:db8::25").packed + b"\x00\x19"
LOGIN_GREETING = b"\x05\x02\x00\x02"


class InterfaceTests(ProxyCase):
    """What the pieces promise."""

    def test_interfaces(self) -> None:
        """Sessions, and what the tests put beside them, keep their promises."""
        self.start()
        session = self.client().protocol
        verifyObject(IHalfCloseableProtocol, session)
        verifyObject(IHandshakeListener, session)
        verifyObject(IDialer, ObedientDialer())
        outgoing = ObedientDialer().bind(Address(ipaddress.ip_address("127.0.0.2"), 0))
        verifyObject(IOutgoing, outgoing)


class ConversationTests(ProxyCase):
    """What is answered to what."""

    def test_bind_and_connect(self) -> None:
        """BIND is answered at once; CONNECT when the destination is connected."""
        self.start()
        client = self.client()
        self.assertEqual(client.say(GREETING), b"\x05\x00")
        self.assertEqual(client.say(BIND), BOUND)
        self.assertEqual(client.say(CONNECT), b"")
        [outgoing] = self.dialer.made
        self.assertEqual(str(outgoing.destination), "192.0.2.25:25")
        outgoing.succeed()
        self.assertEqual(client.transport.taken(), CONNECTED)
        self.assertEqual(self.service.counters.outbound, 1)

    def test_pipelined_and_in_octets(self) -> None:
        """A client may send everything at once or octet by octet; nothing is lost behind it."""
        for pieces in (
            [GREETING + BIND + CONNECT + b"EHLO me\r\n"],
            [bytes((octet,)) for octet in GREETING + BIND + CONNECT + b"EHLO me\r\n"],
        ):
            self.start()
            client = self.client()
            self.assertEqual(client.say(*pieces), b"\x05\x00" + BOUND)
            outgoing = self.dialer.made[-1]
            outgoing.succeed()
            self.assertEqual(client.transport.taken(), CONNECTED)
            self.assertEqual(outgoing.transport.taken(), b"EHLO me\r\n")

    def test_connect_alone(self) -> None:
        """Without BIND the connection leaves from the address that the system chooses."""
        self.start()
        client = self.client()
        client.say(GREETING + CONNECT)
        [outgoing] = self.dialer.made
        outgoing.succeed()
        self.assertEqual(client.transport.taken(), b"\x05\x00\x00\x01\x0a\x00\x00\x01\x9c\x40")
        self.assertEqual(self.service.open_by_source, {ipaddress.ip_address("10.0.0.1"): 1})

    def test_connect_alone_with_limits(self) -> None:
        """Where a limit or a rule asks for the source it is known, and bound, before connecting."""
        self.start(max_connections_per_source=1, limit_wait=0.0)
        self.client().say(GREETING + CONNECT)
        [outgoing] = self.dialer.made
        self.assertEqual(str(outgoing.local.host), "10.0.0.1")
        self.assertEqual(self.client().say(GREETING + CONNECT), b"\x05\x00" + refusal(2))

    def test_bind_unspecified(self) -> None:
        """BIND to 0.0.0.0 leaves the choice to the system; rules see what it chooses."""
        self.start([("ten", rule("deny", sources="10.0.0.0/8"))])
        client = self.client()
        client.say(GREETING)
        self.assertEqual(
            client.say(b"\x05\x02\x00\x01" + b"\x00" * 6),
            b"\x05\x00\x00\x01" + b"\x00" * 6,
        )
        self.assertEqual(client.say(CONNECT), refusal(2))

    def test_ipv6(self) -> None:
        """An IPv6 destination is connected from an IPv6 source."""
        self.start()
        client = self.client("2001:db8::7")
        client.say(GREETING + CONNECT6)
        self.dialer.made[-1].succeed()
        self.assertEqual(
            client.transport.taken(),
            b"\x05\x00\x00\x04" + ipaddress.ip_address("2001:db8::1").packed + b"\x9c\x40",
        )

    def test_families_differ(self) -> None:
        """An IPv6 destination cannot be reached from an IPv4 source."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND)
        self.assertEqual(client.say(CONNECT6), refusal(8))
        self.assertTrue(self.dialer.made[-1].closed)

    def test_mapped_addresses(self) -> None:
        """An IPv4-mapped source or destination is treated as the IPv4 address."""
        self.start()
        client = self.client()
        client.say(GREETING)
        mapped = ipaddress.ip_address("::ffff:127.0.0.2").packed
        self.assertEqual(client.say(b"\x05\x02\x00\x04" + mapped + b"\x00\x00"), BOUND)
        self.assertEqual(client.say(connect_to("::ffff:127.0.0.1")), refusal(2))

    def test_source_not_owned(self) -> None:
        """A source that is not the proxy's is REP 01, and the log has the cause."""
        self.start()
        client = self.client()
        client.say(GREETING)
        self.assertEqual(client.say(b"\x05\x02\x00\x01\xcb\x00\x71\x09\x00\x00"), refusal(1))
        self.assertTrue(client.transport.disconnecting)
        client.transport.lose()
        self.assertEqual(
            self.outcome(),
            "REP 01: cannot bind 203.0.113.9: EADDRNOTAVAIL (Cannot assign requested address)",
        )
        self.assertEqual(self.service.counters.refusals, {1: 1})

    def test_errors_of_connecting(self) -> None:
        """Each errno has its reply code."""
        for number, rep in (
            (errno.ENETUNREACH, 3),
            (errno.EHOSTUNREACH, 4),
            (errno.ECONNREFUSED, 5),
            (errno.ECONNRESET, 5),
            (errno.EPIPE, 5),
            (errno.ETIMEDOUT, 6),
            (errno.EADDRNOTAVAIL, 1),
            (errno.EPERM, 1),
        ):
            self.start()
            client = self.client()
            client.say(GREETING + BIND + CONNECT)
            self.dialer.made[-1].fail(number)
            self.assertEqual(client.transport.taken(), refusal(rep))
            self.assertTrue(client.transport.disconnecting)
            self.assertEqual(self.service.open_by_source, {})

    def test_no_way_there(self) -> None:
        """Without a route the default source is not known, and the errno decides as well."""
        self.start(max_connections_per_source=1)
        self.dialer.unreachable = errno.ENETUNREACH
        self.assertEqual(self.client().say(GREETING + CONNECT), b"\x05\x00" + refusal(3))

    def test_no_descriptor_left(self) -> None:
        """When no socket can be made the client gets REP 01."""
        self.start()
        self.dialer.owned.clear()
        self.dialer.bind_error = errno.EMFILE
        client = self.client()
        self.assertEqual(client.say(GREETING + CONNECT), b"\x05\x00" + refusal(1))
        self.assertEqual(self.service.open_by_source, {})

    def test_request_after_connect(self) -> None:
        """A request while the destination is being connected cancels that."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        self.assertEqual(client.say(CONNECT), refusal(1))
        self.assertTrue(self.dialer.made[-1].cancelled)

    def test_unsupported(self) -> None:
        """UDP, unknown address types and names have their reply codes."""
        for request, rep in (
            (b"\x05\x03" + CONNECT[2:], 7),
            (b"\x05\x09" + CONNECT[2:], 7),
            (b"\x05\x01\x00\x09", 8),
            (b"\x05\x01\x00\x03\x01a\x00\x19", 8),
            (BIND + BIND, 1),
        ):
            self.start()
            client = self.client()
            client.say(GREETING)
            self.assertEqual(client.say(request)[-10:], refusal(rep))
            self.assertTrue(client.transport.disconnecting)

    def test_not_socks(self) -> None:
        """A client that does not speak SOCKS5 is closed without an answer."""
        self.start()
        client = self.client()
        self.assertEqual(client.say(b"GET / HTTP/1.0\r\n\r\n"), b"")
        client.transport.lose()
        self.assertIn("protocol error: the greeting begins with 0x47", self.outcome())

    def test_no_method(self) -> None:
        """A client without a method that suits gets 05 FF."""
        self.start()
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x01"), b"\x05\xff")
        self.assertTrue(client.transport.disconnecting)
        client.transport.lose()
        self.assertIn("(offered: 01)", self.outcome())

    def test_login_where_there_is_none(self) -> None:
        """A client that wants to log in, at a proxy without C{auth}: the log says what is wrong."""
        self.start()
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x02"), b"\x05\xff")
        client.transport.lose()
        self.assertIn("the client insists on a login", self.outcome())

    def test_early_stream_is_bounded(self) -> None:
        """A client that sends a lot before it is connected is not read until then."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        client.say(b"x" * 70000)
        self.assertEqual(client.transport.producerState, "paused")
        [outgoing] = self.dialer.made
        outgoing.succeed()
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(len(outgoing.transport.taken()), 70000)

    def test_early_stream_beyond_the_bound(self) -> None:
        """One that does not let itself be paused is closed."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        client.say(b"x" * MAX_PENDING, b"x")
        self.assertTrue(client.transport.disconnecting)
        self.assertTrue(self.dialer.made[-1].cancelled)


class LoginTests(ProxyCase):
    """RFC 1929 and the checker."""

    def start_with_users(self, **settings: Any) -> None:
        """Start a proxy that knows one user."""
        users = InMemoryUsernamePasswordDatabaseDontUse(mta=b"secret")
        self.start(checker=users, **settings)

    def test_right(self) -> None:
        """The right password is accepted, and the log names the user."""
        self.start_with_users()
        client = self.client()
        self.assertEqual(client.say(LOGIN_GREETING), b"\x05\x02")
        self.assertEqual(client.say(login(b"mta", b"secret")), b"\x01\x00")
        self.assertEqual(client.say(BIND), BOUND)
        client.transport.lose()
        self.assertEqual(self.lines()[0]["user"], "mta")

    def test_wrong(self) -> None:
        """A wrong name or password is refused, and nothing after it is heard."""
        for name, password in (
            (b"mta", b"wrong"),
            (b"mta", b""),
            (b"mta", b"\x00secret"),
            (b"mta", b"x" * 255),
            (b"nobody", b"secret"),
            (b"", b""),
            (b"\xff" * 255, b"secret"),
        ):
            self.start_with_users()
            client = self.client()
            client.say(LOGIN_GREETING)
            self.assertEqual(client.say(login(name, password) + BIND), b"\x01\x01")
            self.assertTrue(client.transport.disconnecting)
            self.assertEqual(self.service.counters.logins_refused, 1)
            self.assertEqual(self.dialer.made, [])

    def test_required(self) -> None:
        """Where logins are required, a client that cannot is turned away."""
        self.start_with_users(require_auth=True)
        client = self.client()
        self.assertEqual(client.say(GREETING), b"\x05\xff")
        client.transport.lose()
        self.assertIn("does not log in, and must (require_auth)", self.outcome())
        self.assertEqual(self.client().say(LOGIN_GREETING), b"\x05\x02")

    def test_not_required(self) -> None:
        """Where they are not, a client that does not offer one goes on without."""
        self.start_with_users()
        self.assertEqual(self.client().say(GREETING), b"\x05\x00")

    def test_slow_checker(self) -> None:
        """The client may send on while the checker thinks; a client that leaves cancels it."""
        checker = SlowChecker()
        self.start(checker=checker)
        client = self.client()
        client.say(b"\x05\x01\x02" + login(b"mta", b"secret") + BIND)
        checker.asked[0].callback(b"mta")
        self.assertEqual(client.transport.taken(), b"\x01\x00" + BOUND)
        client = self.client()
        client.say(b"\x05\x01\x02" + login(b"mta", b"secret"))
        client.transport.lose()
        self.assertEqual(checker.cancelled, 1)

    def test_broken_checker(self) -> None:
        """A checker that fails refuses, and its defect is logged."""
        checker = SlowChecker()
        self.start(checker=checker)
        client = self.client()
        client.say(b"\x05\x01\x02" + login(b"mta", b"secret"))
        checker.asked[0].errback(ZeroDivisionError())
        self.assertEqual(client.transport.taken(), b"\x01\x01")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_rules_by_user(self) -> None:
        """The name of the login is what rules for users look at."""
        users = InMemoryUsernamePasswordDatabaseDontUse(alice=b"a", bob=b"b")
        self.start([("alice", rule("allow", users="alice")), ("rest", rule("deny"))], checker=users)
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x02" + login(b"alice", b"a") + BIND)[-10:], BOUND)
        client = self.client()
        self.assertEqual(client.say(b"\x05\x01\x02" + login(b"bob", b"b") + BIND)[-10:], refusal(2))
        client.transport.lose()
        self.assertEqual(self.outcome(), "REP 02: source refused by [proxy-rule:rest]")


@implementer(ICredentialsChecker)
class SlowChecker:
    """Answers when the test says so."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.asked: list[Deferred[bytes | tuple[()]]] = []
        self.cancelled = 0

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        """Wait."""
        answer: Deferred[bytes | tuple[()]] = Deferred(self._cancel)
        self.asked.append(answer)
        return answer

    def _cancel(self, _: object) -> None:
        self.cancelled += 1


class CredentialsTests(SynchronousTestCase):
    """Names and passwords as a checker gets them."""

    def test_login(self) -> None:
        """A login knows whether a password is right and does not show it."""
        one = Login(b"mta", b"secret")
        verifyObject(IUsernamePassword, one)
        self.assertTrue(one.checkPassword(b"secret"))
        self.assertFalse(one.checkPassword(b"Secret"))
        self.assertNotIn("secret", repr(one))
