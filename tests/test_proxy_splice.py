"""The relay over bare sockets, played on socket pairs inside this process."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IReadWriteDescriptor, ISSLTransport
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.outgoing import IOutgoing
from kumotwist.proxy.splice import SPLICE_AFTER, PipePool, SpliceRelay, can_splice
from tests.proxy_case import ObedientOutgoing, ObedientTransport


class SocketTransport(ObedientTransport):
    """A client's transport with a socket, whose buffer empties when the test says so."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self.handle = handle

    def getHandle(self) -> socket.socket:
        """The socket."""
        return self.handle

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Ask a pull producer at once, as a transport does."""
        super().registerProducer(producer, streaming)
        if not streaming:
            producer.resumeProducing()


class SocketOutgoing(ObedientOutgoing):
    """An outgoing side with a connected socket."""

    handle: Any

    def close(self) -> None:
        """Close the socket."""
        super().close()
        if self.handle is not None:
            self.handle.close()
            self.handle = None


class SpliceCase(SynchronousTestCase):
    """A relay between two socket pairs."""

    if not hasattr(os, "splice"):
        skip = "this platform has no splice"

    def setUp(self) -> None:
        """Make both pairs and the relay."""
        self.reactor: Any = MemoryReactorClock()
        self.counters = ProxyCounters()
        self.pipes = PipePool()
        self.addCleanup(self.pipes.close)
        self.client, inner_client = self.pair()
        self.destination, inner_destination = self.pair()
        self.transport = SocketTransport(inner_client)
        self.outgoing = SocketOutgoing(ipaddress.ip_address("127.0.0.2"), 1)
        self.outgoing.handle = inner_destination
        self.outcomes: list[str] = []
        self.relay = SpliceRelay(
            self.reactor,
            self.transport,
            self.outgoing,
            self.counters,
            self.pipes,
            self.outcomes.append,
        )

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets."""
        both = socket.socketpair()
        for one in both:
            one.setblocking(False)
            self.addCleanup(one.close)
        return both

    def begin(self, early: bytes = b"") -> None:
        """Start, and let the transport's buffer empty."""
        self.relay.start(early)
        self.assertEqual(self.reactor.readers, set())
        producer: Any = self.transport.producer
        producer.resumeProducing()

    def turn(self) -> bool:
        """Do what a reactor does in one round; return whether there was anything."""
        readers, writers = list(self.reactor.readers), list(self.reactor.writers)
        readable, writable, _ = select.select(readers, writers, [], 0)
        for end in readable:
            end.doRead()
        for end in writable:
            end.doWrite()
        return bool(readable or writable)

    def run_until_quiet(self) -> None:
        """Let everything move that can."""
        while self.turn():
            pass

    def stream(self, giver: socket.socket, taker: socket.socket, data: bytes) -> bytes:
        """Send data through the relay; return what arrived."""
        sent = 0
        arrived = b""
        while len(arrived) < len(data):
            if sent < len(data):
                sent += self.attempt(giver.send, data[sent : sent + 65536]) or 0
            self.turn()
            arrived += self.attempt(taker.recv, 65536) or b""
        return arrived

    def attempt(self, act: Callable[..., Any], *args: object) -> Any:
        """Do it if it does not block."""
        try:
            return act(*args)
        except BlockingIOError:
            return None

    def close_transport(self) -> None:
        """What the reactor does after C{loseConnection} or C{abortConnection}."""
        reason = ConnectionAborted() if self.transport.aborted else ConnectionDone()
        self.relay.client_lost(Failure(reason))


class SpliceRelayTests(SpliceCase):
    """Octets, ends and shortages."""

    def test_begins_after_the_reply(self) -> None:
        """Nothing of the destination is read before the reply is on its way."""
        self.destination.send(b"220 mx\r\n")
        self.begin()
        for end in self.reactor.readers:
            verifyObject(IReadWriteDescriptor, end)
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"220 mx\r\n")

    def test_early_octets(self) -> None:
        """What the client sent ahead comes first."""
        self.begin(b"EHLO ")
        self.client.send(b"me\r\n")
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"EHLO me\r\n")
        self.assertEqual(self.counters.bytes_to_destination, 9)
        self.assertEqual(self.relay.to_destination, 9)

    def test_long_streams(self) -> None:
        """Both ways of a long stream are moved by the kernel, whole and in order."""
        self.begin()
        data = os.urandom(3 * SPLICE_AFTER)
        self.assertEqual(self.stream(self.client, self.destination, data), data)
        self.assertEqual(self.stream(self.destination, self.client, data), data)
        self.assertTrue(all(way._pipe for way in self.relay._ways))
        self.assertEqual(self.counters.bytes_to_client, len(data))
        self.assertEqual(self.counters.bytes_to_destination, len(data))

    def test_ends(self) -> None:
        """Each side's end is passed on after its octets; with both the session is over."""
        self.begin()
        data = b"x" * 2 * SPLICE_AFTER
        self.assertEqual(self.stream(self.client, self.destination, data), data)
        self.client.send(b"QUIT\r\n")
        self.client.shutdown(socket.SHUT_WR)
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"QUIT\r\n")
        self.assertEqual(self.destination.recv(100), b"")
        self.assertFalse(self.transport.disconnecting)
        self.destination.send(b"221 bye\r\n")
        self.destination.close()
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"221 bye\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.assertTrue(self.outgoing.closed)
        self.close_transport()
        self.assertEqual(self.outcomes, ["closed by the client"])
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))

    def test_back_pressure(self) -> None:
        """While a side does not read, the other is not read either, and nothing is lost."""
        self.begin()
        sent = 0
        for _ in range(10000):
            sent += self.attempt(self.destination.send, b"y" * 65536) or 0
            if not self.turn():
                break
        self.assertLess(sent, 8 << 20)
        arrived = 0
        while arrived < sent:
            arrived += len(self.attempt(self.client.recv, 1 << 20) or b"")
            self.turn()
        self.assertEqual(arrived, sent)

    def test_end_behind_back_pressure(self) -> None:
        """An end that waits behind octets which nobody reads is passed on after them."""
        self.begin()
        sent = 0
        while (number := self.attempt(self.destination.send, b"y" * 65536)) or self.turn():
            sent += number or 0
        self.destination.close()
        arrived = 0
        while (piece := self.attempt(self.client.recv, 1 << 20)) != b"":
            arrived += len(piece or b"")
            self.turn()
        self.assertEqual(arrived, sent)

    def test_lost_sink(self) -> None:
        """When one connection breaks, what it left is delivered and both are closed."""
        for name in ("destination", "client"):
            self.setUp()
            self.begin()
            self.lose_client(first=name)

    def lose_client(self, first: str) -> None:
        """Close the client after some octets; then let C{first} be read first."""
        self.client.send(b"QUIT\r\n")
        self.client.close()
        self.destination.send(b"nobody reads this")
        [end] = [end for end in self.reactor.readers if end.name == first]
        end.doRead()
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"QUIT\r\n")
        self.assertEqual(self.destination.recv(100), b"")
        self.assertTrue(self.transport.disconnecting)
        self.close_transport()
        self.assertEqual(len(self.outcomes), 1)

    def test_lost_while_waiting(self) -> None:
        """A connection that the reactor reports as lost is treated like one that broke."""
        self.begin()
        [end] = [end for end in self.reactor.readers if end.name == "destination"]
        end.connectionLost(Failure(ConnectionDone()))
        self.assertTrue(self.transport.disconnecting)
        self.close_transport()
        self.assertEqual(self.outcomes, ["reset by the destination"])

    def test_abort(self) -> None:
        """It can be cut at any time, also before it has begun."""
        for begun in (True, False):
            self.setUp()
            if begun:
                self.begin()
            else:
                self.relay.start(b"")
            self.relay.abort("idle timeout")
            self.assertTrue(self.transport.aborted)
            self.assertTrue(self.outgoing.closed)
            self.close_transport()
            self.assertEqual(self.outcomes, ["idle timeout"])
            self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))

    def test_client_lost_before_it_began(self) -> None:
        """A client that is gone before the reply was sent ends the session."""
        self.relay.start(b"")
        self.close_transport()
        self.assertTrue(self.outgoing.closed)
        self.assertEqual(self.outcomes, ["reset by the client"])

    def test_activity(self) -> None:
        """Everything that moves counts as activity."""
        self.begin()
        self.reactor.advance(7)
        self.client.send(b"x")
        self.run_until_quiet()
        self.assertEqual(self.relay.last_activity, 7)

    def test_no_pipe_left(self) -> None:
        """Without a descriptor for a pipe a long stream is copied to its end."""
        self.pipes.take = self.no_pipe  # type: ignore[method-assign]
        self.begin()
        data = os.urandom(3 * SPLICE_AFTER)
        self.assertEqual(self.stream(self.client, self.destination, data), data)

    def no_pipe(self) -> tuple[int, int]:
        """Fail as when the process has no descriptor left."""
        raise OSError(24, "Too many open files")


class ChoiceTests(SpliceCase):
    """Where it can be used."""

    def test_plain_sockets(self) -> None:
        """Both sides must be plain sockets."""
        verifyObject(IOutgoing, self.outgoing)
        self.assertTrue(can_splice(self.transport, self.outgoing))
        directlyProvides(self.transport, ISSLTransport)
        self.assertFalse(can_splice(self.transport, self.outgoing))
        without = ObedientOutgoing(self.outgoing.local.host, 0)  # type: ignore[arg-type]
        self.assertFalse(can_splice(SocketTransport(self.client), without))


class PipePoolTests(SynchronousTestCase):
    """Pipes that are used again."""

    if not hasattr(os, "splice"):
        skip = "this platform has no splice"

    def test_reuse(self) -> None:
        """An empty pipe comes back; one with octets in it never does."""
        pool = PipePool()
        first = pool.take()
        pool.give(first, empty=True)
        self.assertEqual(pool.take(), first)
        pool.give(first, empty=False)
        self.assertRaises(OSError, os.fstat, first[0])
        pool.give(pool.take(), empty=True)
        pool.close()
        self.assertEqual(pool._free, [])
