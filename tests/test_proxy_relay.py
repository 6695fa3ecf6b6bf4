"""The stream between client and destination: order, ends, back-pressure, silence."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ISSLTransport
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from tests.proxy_case import BIND, CONNECT, GREETING, Client, ObedientOutgoing, ProxyCase


class StreamTests(ProxyCase):
    """Octets."""

    def test_both_ways(self) -> None:
        """What one side sends the other gets, and it is counted as it passes."""
        self.start()
        client, outgoing = self.relaying()
        destination = outgoing.transport.protocol
        verifyObject(IHalfCloseableProtocol, destination)
        destination.dataReceived(b"220 mx\r\n")
        self.assertEqual(client.transport.taken(), b"220 mx\r\n")
        client.say(b"EHLO me\r\n")
        self.assertEqual(outgoing.transport.taken(), b"EHLO me\r\n")
        counters = self.service.counters
        self.assertEqual((counters.bytes_to_client, counters.bytes_to_destination), (8, 9))

    def test_banner_after_reply(self) -> None:
        """A banner that is there at once comes behind the reply to CONNECT."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        client.transport.clear()
        [outgoing] = self.dialer.made
        outgoing.succeed()
        outgoing.transport.protocol.dataReceived(b"220 mx\r\n")
        self.assertEqual(
            client.transport.taken(), b"\x05\x00\x00\x01\x7f\x00\x00\x02\x9c\x40220 mx\r\n"
        )

    def test_back_pressure(self) -> None:
        """Each side is the other's producer, so that a slow reader stops the other's writer."""
        self.start()
        client, outgoing = self.relaying()
        self.assertIs(client.transport.producer, outgoing.transport)
        self.assertIs(outgoing.transport.producer, client.transport)
        self.assertTrue(client.transport.streaming)
        self.assertTrue(outgoing.transport.streaming)

    def test_lost_before_it_began(self) -> None:
        """A destination that is gone before the first octet ends the session."""
        self.start()
        client = self.client()
        client.say(GREETING + BIND + CONNECT)
        [outgoing] = self.dialer.made
        outgoing.lost_before_attach = True
        outgoing.succeed()
        self.assertTrue(client.transport.aborted)
        client.transport.lose(ConnectionLost())
        self.assertEqual(self.outcome(), "reset by the destination")


class EndTests(ProxyCase):
    """How streams end."""

    def ended(self) -> None:
        """Nothing of the session remains."""
        self.assertEqual(self.service.counters.active, 0)
        self.assertEqual(self.service.counters.completed, 1)
        self.assertEqual(self.service.open_by_source, {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_client_first(self) -> None:
        """The client closes its direction; the other stays until the destination closes."""
        self.start()
        client, outgoing = self.relaying()
        client.protocol.readConnectionLost()
        self.assertTrue(outgoing.transport.write_closed)
        self.assertIsNone(outgoing.transport.producer)
        self.assertFalse(client.transport.disconnecting)
        outgoing.transport.protocol.dataReceived(b"221 bye\r\n")
        self.assertEqual(client.transport.taken(), b"221 bye\r\n")
        outgoing.transport.protocol.readConnectionLost()
        self.assertTrue(client.transport.disconnecting)
        self.assertTrue(outgoing.transport.disconnecting)
        client.transport.lose()
        outgoing.transport.lose()
        self.assertEqual(self.outcome(), "closed by the client")
        self.ended()

    def test_destination_first(self) -> None:
        """The destination closes its direction; the other stays until the client closes."""
        self.start()
        client, outgoing = self.relaying()
        outgoing.transport.protocol.readConnectionLost()
        self.assertTrue(client.transport.write_closed)
        self.assertIsNone(client.transport.producer)
        self.assertFalse(outgoing.transport.disconnecting)
        client.say(b"QUIT\r\n")
        self.assertEqual(outgoing.transport.taken(), b"QUIT\r\n")
        client.protocol.readConnectionLost()
        self.assertTrue(client.transport.disconnecting)
        outgoing.transport.lose()
        client.transport.lose()
        self.assertEqual(self.outcome(), "closed by the destination")
        self.ended()

    def test_reset(self) -> None:
        """When one connection is lost the other is closed after what it has still to send."""
        for side in ("client", "destination"):
            self.start()
            client, outgoing = self.relaying()
            lost, other = client.transport, outgoing.transport
            if side == "destination":
                lost, other = other, lost
            lost.lose(ConnectionLost())
            self.assertTrue(other.disconnecting)
            self.assertFalse(other.aborted)
            self.assertEqual(self.service.counters.active, 1)
            other.lose()
            self.assertEqual(self.lines()[-1]["outcome"], f"reset by the {side}")
            self.ended()

    def test_lost_after_half_close(self) -> None:
        """A connection that is lost after one direction ended closes the other one."""
        self.start()
        client, outgoing = self.relaying()
        client.protocol.readConnectionLost()
        client.transport.lose(ConnectionLost())
        self.assertTrue(outgoing.transport.disconnecting)
        outgoing.transport.lose()
        self.ended()

    def test_tls(self) -> None:
        """TLS has no half-close: the destination's end closes the client's connection."""
        self.start()
        client, outgoing = self.relaying()
        directlyProvides(client.transport, ISSLTransport)
        outgoing.transport.protocol.readConnectionLost()
        self.assertTrue(client.transport.disconnecting)
        self.assertFalse(client.transport.write_closed)


class IdleTests(ProxyCase):
    """Sessions in which nothing moves."""

    def live(self) -> tuple[Client, ObedientOutgoing]:
        """A session in a proxy with an idle timeout of 10 seconds."""
        self.start(idle_timeout=10.0)
        return self.relaying()

    def cut(self, client: Client, outgoing: ObedientOutgoing) -> bool:
        """Whether both sides were cut; they must agree."""
        self.assertEqual(client.transport.aborted, outgoing.transport.aborted)
        return client.transport.aborted

    def test_silence(self) -> None:
        """A silent session is cut on both sides."""
        client, outgoing = self.live()
        self.reactor.advance(9.9)
        self.assertFalse(self.cut(client, outgoing))
        self.reactor.advance(0.2)
        self.assertTrue(self.cut(client, outgoing))
        client.transport.lose(ConnectionLost())
        outgoing.transport.lose(ConnectionLost())
        self.assertEqual(self.outcome(), "idle timeout")

    def test_activity(self) -> None:
        """Octets in either direction keep it alive."""
        client, outgoing = self.live()
        speakers: list[Any] = [client.protocol, outgoing.transport.protocol]
        for turn in range(10):
            self.reactor.advance(9)
            speakers[turn % 2].dataReceived(b"x")
        self.assertFalse(self.cut(client, outgoing))
        self.reactor.pump([1] * 11)
        self.assertTrue(self.cut(client, outgoing))

    def test_keepalive(self) -> None:
        """Keepalive is switched on when a session has lasted, well before its time."""
        for idle_after, seconds in ((300.0, 5.0), (4.0, 2.0)):
            self.start(keepalive_time=idle_after)
            _, outgoing = self.relaying()
            self.reactor.advance(seconds - 0.1)
            self.assertFalse(outgoing.kept_alive)
            self.reactor.advance(0.2)
            self.assertTrue(outgoing.kept_alive)

    def test_half_closed(self) -> None:
        """A session that is closed in one direction only is not forgotten either."""
        client, outgoing = self.live()
        client.protocol.readConnectionLost()
        self.reactor.advance(10.1)
        self.assertTrue(self.cut(client, outgoing))
