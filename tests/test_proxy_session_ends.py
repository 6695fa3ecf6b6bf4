"""How a session is refused, how long it may take, how it ends and what the log says of it."""

from __future__ import annotations

import errno
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionLost

from kumotwist.settings.types import RATE
from tests.proxy_case import (
    BIND,
    BOUND,
    CONNECT,
    GREETING,
    Client,
    ObedientTransport,
    ProxyCase,
    connect_to,
    login,
    refusal,
    rule,
)


class RefusalTests(ProxyCase):
    """Rules and limits."""

    def test_rule(self) -> None:
        """A refusal by a rule is REP 02, and one line says which rule."""
        self.start([("no-example", rule("deny", destinations="192.0.2.0/24"))])
        client = self.client()
        client.say(GREETING + BIND)
        self.assertEqual(client.say(CONNECT), refusal(2))
        client.transport.lose()
        self.assertEqual(self.outcome(), "REP 02: refused by [proxy-rule:no-example]")

    def test_default(self) -> None:
        """Without rules loopback and other ports are refused."""
        for address, port in (("127.0.0.1", 25), ("192.0.2.25", 80), ("169.254.169.254", 25)):
            self.start()
            client = self.client()
            client.say(GREETING)
            self.assertEqual(client.say(connect_to(address, port)), refusal(2))

    def test_own_listener(self) -> None:
        """The proxy does not connect to its own port, whatever the ports allowed."""
        self.start([("any", rule("allow", ports="1-65535"))])
        client = self.client()
        client.say(GREETING)
        self.assertEqual(client.say(connect_to("10.0.0.1", 5000)), refusal(2))
        client.transport.lose()
        self.assertEqual(self.outcome(), "REP 02: refused by the default: the proxy's own listener")

    def test_no_socket(self) -> None:
        """Where a client chose no source and there is no socket for it, none is named."""
        self.start()
        self.dialer.owned.clear()
        self.dialer.bind_error = errno.EMFILE
        client = self.client()
        client.say(GREETING + CONNECT)
        client.transport.lose()
        self.assertEqual(
            self.outcome(), "REP 01: cannot make a socket: EMFILE (Too many open files)"
        )

    def test_own_pages(self) -> None:
        """Nor to the pages of its own process, whatever the ports allowed, unless a rule names
        them; another port of the same address is open."""
        places = [("0.0.0.0", 8000)]
        for destinations, reply in (((), 2), (("10.0.0.1/32",), None)):
            named = {"destinations": ", ".join(destinations)} if destinations else {}
            self.start([("any", rule("allow", ports="1-65535", **named))], pages=lambda: places)
            client = self.client()
            client.say(GREETING)
            said = client.say(connect_to("10.0.0.1", 8000))
            self.assertEqual(said, b"" if reply is None else refusal(reply))
        self.start([("any", rule("allow", ports="1-65535"))], pages=lambda: places)
        client = self.client()
        client.say(GREETING)
        self.assertEqual(client.say(connect_to("10.0.0.1", 8001)), b"")

    def test_open_connections(self) -> None:
        """The limit of a source holds for all clients together, and frees up when one ends."""
        self.start(max_connections_per_source=1, limit_wait=0.0)
        first, outgoing = self.relaying()
        second = self.client("198.51.100.8")
        second.say(GREETING + BIND)
        self.assertEqual(second.say(CONNECT), refusal(2))
        second.transport.lose()
        self.assertIn("limit: 1 connections from 127.0.0.2 are open", self.outcome())
        first.transport.lose()
        outgoing.transport.lose()
        third = self.client()
        self.assertEqual(third.say(GREETING + BIND + CONNECT), b"\x05\x00" + BOUND)

    def test_rate(self) -> None:
        """So does the rate of new connections."""
        self.start(max_connection_rate_per_source=RATE.parse("1/s"), limit_wait=0.0)
        self.relaying()
        client = self.client()
        self.assertEqual(client.say(GREETING + BIND + CONNECT)[-10:], refusal(2))
        self.reactor.advance(1)
        self.relaying()

    def test_waiting(self) -> None:
        """A request beyond a limit waits for its turn, which comes when another session ends."""
        self.start(max_connections_per_source=1)
        first, outgoing = self.relaying()
        second = self.client("198.51.100.8")
        self.assertEqual(second.say(GREETING + BIND + CONNECT), b"\x05\x00" + BOUND)
        self.assertEqual(second.say(b"early"), b"")
        first.transport.lose()
        outgoing.transport.lose()
        self.assertIsNot(self.dialer.made[-1].waiting, None)
        self.dialer.made[-1].succeed()
        self.assertEqual(second.transport.taken()[:2], b"\x05\x00")
        self.assertEqual(self.dialer.made[-1].transport.taken(), b"early")

    def test_waiting_in_vain(self) -> None:
        """It is refused as one that timed out, and the next one is not held up by it."""
        self.start(max_connections_per_source=1, limit_wait=20.0)
        self.relaying()
        second, third = self.client(), self.client()
        second.say(GREETING + BIND + CONNECT)
        self.reactor.advance(19)
        third.say(GREETING + BIND + CONNECT)
        self.reactor.advance(1)
        self.assertEqual(second.transport.taken(), refusal(6))
        self.assertEqual(third.transport.taken(), b"")
        third.protocol.readConnectionLost()
        self.assertEqual(len(self.service._shared.limits._sources), 1)
        [known] = self.service._shared.limits._sources.values()
        self.assertEqual((known.connections, known.waiting), (1, {}))

    def test_waiting_while_draining(self) -> None:
        """A turn that comes while the proxy shuts down is refused."""
        self.start(max_connections_per_source=1)
        first, outgoing = self.relaying()
        second = self.client()
        second.say(GREETING + BIND + CONNECT)
        self.service.stopService()
        first.transport.lose()
        outgoing.transport.lose()
        self.assertEqual(second.transport.taken(), refusal(1))

    def test_max_connections(self) -> None:
        """A client beyond max_connections is cut at once."""
        self.start(max_connections=2)
        first, _ = self.client(), self.client()
        third = self.client()
        self.assertTrue(third.transport.aborted)
        third.transport.lose(ConnectionLost())
        self.assertEqual(self.service.counters.turned_away, 1)
        first.transport.lose()
        self.assertFalse(self.client().transport.aborted)


class NameTests(ProxyCase):
    """CONNECT to a name, where that is allowed."""

    request = b"\x05\x01\x00\x03\x0amx.example\x00\x19"

    def start_resolving(self, *addresses: str, **settings: Any) -> None:
        """Start a proxy whose resolver finds these addresses."""
        self.reactor.nameResolver = StaticResolver(addresses)
        self.start(allow_names=True, **settings)

    def test_connected(self) -> None:
        """The first address that may be reached is connected."""
        self.start_resolving("127.0.0.1", "192.0.2.25")
        client = self.client()
        client.say(GREETING + self.request)
        [outgoing] = self.dialer.made
        self.assertEqual(str(outgoing.destination), "192.0.2.25:25")
        outgoing.succeed()
        self.assertEqual(client.transport.taken()[:2], b"\x05\x00")

    def test_family_of_the_source(self) -> None:
        """Addresses of another family than the source are left out."""
        self.start_resolving("2001:db8::25", "192.0.2.25")
        client = self.client()
        client.say(GREETING + BIND + self.request)
        self.assertEqual(str(self.dialer.made[-1].destination), "192.0.2.25:25")

    def test_rules_hold(self) -> None:
        """A name for loopback is refused like its address."""
        self.start_resolving("127.0.0.1")
        self.assertEqual(self.client().say(GREETING + self.request)[-10:], refusal(2))

    def test_unknown(self) -> None:
        """A name without addresses is REP 04."""
        self.start_resolving()
        self.assertEqual(self.client().say(GREETING + self.request)[-10:], refusal(4))


class StaticResolver:
    """Finds the same addresses for every name."""

    def __init__(self, addresses: tuple[str, ...]) -> None:
        self._addresses = addresses

    def resolveHostName(self, receiver: Any, name: str) -> None:
        """Tell them."""
        receiver.resolutionBegan(None)
        for address in self._addresses:
            receiver.addressResolved(IPv4Address("TCP", address, 0))
        receiver.resolutionComplete()


class DeadlineTests(ProxyCase):
    """No phase lasts for ever."""

    def test_negotiation(self) -> None:
        """A client that drips octets has no more time than a silent one."""
        self.start(timeout=10.0)
        silent, dripping = self.client(), self.client()
        for octet in GREETING + BIND[:-1]:
            self.reactor.advance(0.9)
            dripping.say(bytes((octet,)))
        self.assertTrue(silent.transport.aborted)
        self.assertTrue(dripping.transport.aborted)
        silent.transport.lose(ConnectionLost())
        self.assertEqual(self.outcome(), "timeout: no request in time")

    def test_connecting(self) -> None:
        """A destination that does not answer is REP 06, after a time of its own."""
        self.start(timeout=10.0)
        client = self.client()
        client.say(GREETING + BIND)
        self.reactor.advance(9)
        client.say(CONNECT)
        self.reactor.advance(9)
        self.assertEqual(client.transport.taken(), b"")
        self.reactor.advance(1)
        self.assertEqual(client.transport.taken(), refusal(6))
        self.assertTrue(self.dialer.made[-1].cancelled)

    def test_connecting_soon(self) -> None:
        """A destination that is asked for at once has its whole time too, and no more."""
        for again in (False, True):
            self.start(timeout=10.0)
            client = self.client()
            self.reactor.advance(2)
            client.say(GREETING + BIND + CONNECT)
            client.transport.taken()
            self.reactor.advance(5 if again else 9)
            self.assertEqual(client.transport.taken(), b"")
            if again:  # what connects in between is not cut later
                self.dialer.made[-1].succeed()
                self.reactor.advance(20)
                self.assertFalse(client.transport.disconnecting or client.transport.aborted)
            else:
                self.reactor.advance(1)
                self.assertEqual(client.transport.taken(), refusal(6))

    def test_last_words(self) -> None:
        """A client that does not take the refusal is cut in the end."""
        self.start(timeout=10.0)
        client = self.client()
        client.say(GREETING + b"\x05\x03" + CONNECT[2:])
        self.assertFalse(client.transport.aborted)
        self.reactor.advance(10)
        self.assertTrue(client.transport.aborted)

    def test_nothing_left_behind(self) -> None:
        """When a session is over no timer of it remains."""
        self.start()
        client, outgoing = self.relaying()
        client.transport.lose()
        outgoing.transport.lose()
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class LeavingTests(ProxyCase):
    """Clients that go."""

    def test_while_negotiating(self) -> None:
        """A client that closes before CONNECT has left, and its bound socket is closed."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND)
        client.protocol.readConnectionLost()
        self.assertTrue(client.transport.disconnecting)
        self.assertTrue(self.dialer.made[-1].closed)
        client.transport.lose()
        self.assertEqual(self.outcome(), "the client left")
        self.assertEqual(self.service.counters.failed, 1)

    def test_while_connecting(self) -> None:
        """A client that closes while its destination is being connected cancels that."""
        for end in ("readConnectionLost", "connectionLost"):
            self.start()
            client = self.client()
            client.say(GREETING + BIND + CONNECT)
            if end == "readConnectionLost":
                client.protocol.readConnectionLost()
            client.transport.lose()
            self.assertTrue(self.dialer.made[-1].cancelled)
            self.assertEqual(self.service.open_by_source, {})
            self.assertEqual(self.service.counters.active, 0)


class LogTests(ProxyCase):
    """The one line of each session."""

    def test_line(self) -> None:
        """It says who, from where to where, how much, how long and how it ended."""
        self.start()
        client, outgoing = self.relaying()
        client.say(b"EHLO me\r\n")
        outgoing.transport.protocol.dataReceived(b"250 ok\r\n")
        self.reactor.advance(2.5)
        outgoing.transport.protocol.readConnectionLost()
        client.transport.lose()
        outgoing.transport.lose()
        [line] = self.lines()
        facts = {
            "proxy": "[proxy:main]",
            "client": "198.51.100.7:5555",
            "user": "-",
            "source": "127.0.0.2",
            "destination": "192.0.2.25:25",
            "to_destination": 9,
            "to_client": 8,
            "seconds": 2.5,
            "outcome": "closed by the destination",
        }
        self.assertEqual({key: line[key] for key in facts}, facts)

    def test_hostile_user(self) -> None:
        """A name that would forge a line is escaped."""
        users = InMemoryUsernamePasswordDatabaseDontUse()
        self.start(checker=users)
        client = self.client()
        client.say(b"\x05\x01\x02" + login(b"a\r\nforged \x1b[2J", b"x"))
        client.transport.lose()
        self.assertEqual(self.lines()[0]["user"], "a\\x0d\\x0aforged \\x1b[2J")

    def test_local_client(self) -> None:
        """A client of a Unix socket has no address and is let in."""
        self.start()
        factory = self.reactor.tcpServers[-1][1]
        transport = ObedientTransport(peerAddress=UNIXAddress(None))
        protocol = factory.buildProtocol(None)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.dataReceived(GREETING + BIND)
        self.assertEqual(transport.taken(), b"\x05\x00" + BOUND)
        transport.lose()
        self.assertEqual(self.lines()[0]["client"], "a local socket")

    def test_counters(self) -> None:
        """Sessions are counted as failed or completed, never as both."""
        self.start()
        counters = self.service.counters
        client, outgoing = self.relaying()
        self.assertEqual((counters.accepted, counters.active), (1, 1))
        failed = Client(self.reactor.tcpServers[-1][1].buildProtocol(None), "198.51.100.8")
        failed.transport.lose()
        client.transport.lose()
        outgoing.transport.lose()
        self.assertEqual(
            (counters.accepted, counters.active, counters.failed, counters.completed),
            (2, 0, 1, 1),
        )
