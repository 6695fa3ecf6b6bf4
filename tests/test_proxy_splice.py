"""The relay over bare sockets, played on socket pairs inside this process."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.proxy.accepting import ClientSocket
from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.splice import SPLICE_AFTER, PipePool, SpliceRelay
from kumotwist.proxy.watching import (
    ENDED,
    READ,
    URGENT,
    WRITE,
    EpollWatcher,
    ReactorWatcher,
    WatchedSocket,
    Watcher,
)
from kumotwist.wire.socks5.format import Address
from tests.proxy_case import ObedientOutgoing


class SocketOutgoing(ObedientOutgoing):
    """An outgoing side with a connected socket, watched for writing as after connecting."""

    one: WatchedSocket

    def detach(self) -> WatchedSocket:
        """The socket."""
        return self.one


class Nobody:
    """A session that hears nothing any more."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def makeConnection(self, transport: Any) -> None:
        """Note it."""
        self.heard.append(transport)

    def dataReceived(self, data: bytes) -> None:
        """Note it."""
        self.heard.append(data)

    def readConnectionLost(self) -> None:
        """Note it."""
        self.heard.append("end")

    def connectionLost(self, reason: Failure) -> None:
        """Note it."""
        self.heard.append(reason.type)


class SpliceCase(SynchronousTestCase):
    """A relay between two socket pairs."""

    if not hasattr(os, "splice"):
        skip = "this platform has no splice"

    def setUp(self) -> None:
        """Make both pairs and the relay."""
        self.reactor: Any = MemoryReactorClock()
        self.counters = ProxyCounters()
        self.parted: list[float] = []
        self.told: list[int] = []
        self.pipes = PipePool()
        self.addCleanup(self.pipes.close)
        self.client, inner_client = self.pair()
        self.destination, inner_destination = self.pair()
        self.inner = (inner_client, inner_destination)
        self.watcher = self.make_watcher()
        self.outgoing = SocketOutgoing(Address(ipaddress.ip_address("127.0.0.2"), 1))
        self.outgoing.one = WatchedSocket(inner_destination, self.told.append)
        self.watcher.watch(self.outgoing.one, WRITE)
        self.outcomes: list[str] = []
        self.prepare(b"", self.pipes)

    def make_watcher(self) -> Watcher:
        """What watches the sockets."""
        return ReactorWatcher(self.reactor)

    def prepare(self, unsent: bytes, pipes: PipePool | None) -> None:
        """Make the relay for a client that has still to take something."""
        client = ClientSocket(self.watcher, self.inner[0], None, Nobody())
        client._unsent = unsent
        self.relay = SpliceRelay(
            self.reactor.seconds,
            self.watcher,
            client,
            self.outgoing,
            self.counters,
            pipes,
            self.outcomes.append,
            lambda: self.parted.append(self.reactor.seconds()),
        )

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets."""
        both = socket.socketpair()
        for one in both:
            one.setblocking(False)
            self.addCleanup(one.close)
        return both

    def begin(self, early: bytes = b"", reply: bytes = b"") -> None:
        """Start."""
        self.relay.start(early, reply)

    def over(self) -> None:
        """Both connections are closed, and the end was told once."""
        self.assertEqual([one.fileno() for one in self.inner], [-1, -1])
        self.assertEqual(len(self.outcomes), 1)
        self.assertEqual((self.reactor.readers, self.reactor.writers), (set(), set()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

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


class SpliceRelayTests(SpliceCase):
    """Octets, ends and shortages."""

    def test_begins_after_the_reply(self) -> None:
        """Nothing of the destination is read before the reply is on its way."""
        self.destination.send(b"220 mx\r\n")
        self.begin()
        if isinstance(self.watcher, ReactorWatcher):
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
        self.assertTrue(self.relay._there._pipe and self.relay._back._pipe)
        self.assertEqual(self.counters.bytes_to_client, len(data))
        self.assertEqual(self.counters.bytes_to_destination, len(data))

    def test_end_behind_an_urgent_octet(self) -> None:
        """A read that stops short before an urgent octet is not taken for the end."""
        self.begin()
        self.destination.send(b"before ")
        self.relay._back.turn(READ | ENDED | URGENT)
        self.destination.send(b"and behind")
        self.destination.close()
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"before and behind")
        self.assertEqual(self.client.recv(100), b"")

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
        self.assertEqual(self.outcomes, [])
        self.destination.send(b"221 bye\r\n")
        self.destination.close()
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"221 bye\r\n")
        self.assertEqual(self.outcomes, ["closed by the client"])
        self.over()

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
        number = self.inner[first == "destination"].fileno()
        for end in list(self.reactor.readers):
            if end.fileno() == number:
                end.doRead()
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"QUIT\r\n")
        self.assertEqual(self.destination.recv(100), b"")
        self.over()

    def test_lost_while_waiting(self) -> None:
        """A connection that is gone when something is sent to it ends the session."""
        self.begin()
        self.destination.close()
        self.client.send(b"x")
        self.run_until_quiet()
        self.client.close()
        self.run_until_quiet()
        self.assertIn(self.outcomes[0].split()[-1], ("destination", "client"))
        self.over()

    def test_abort(self) -> None:
        """It can be cut at any time, also before it has begun."""
        for begun in (True, False):
            self.setUp()
            if begun:
                self.begin()
            self.relay.abort("idle timeout")
            self.relay.abort("once more")
            self.assertEqual(self.outcomes, ["idle timeout"])
            self.over()

    def test_unsent_reply(self) -> None:
        """What the client has not yet taken of the reply comes before the stream."""
        self.watcher.release(self.relay._there.source)
        self.prepare(b"reply ", self.pipes)
        self.begin()
        self.destination.send(b"220 mx\r\n")
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"reply 220 mx\r\n")
        self.assertEqual(self.relay.to_client, 8)

    def test_activity(self) -> None:
        """Everything that moves counts as activity."""
        self.begin()
        self.reactor.advance(7)
        self.client.send(b"x")
        self.run_until_quiet()
        self.assertEqual(self.relay.last_activity, 7)

    def test_without_splice(self) -> None:
        """Where splicing is switched off a long stream is copied."""
        self.watcher.release(self.relay._there.source)
        self.prepare(b"", None)
        self.begin()
        data = os.urandom(3 * SPLICE_AFTER)
        self.assertEqual(self.stream(self.client, self.destination, data), data)
        self.assertIsNone(self.relay._there._pipe)

    def test_no_pipe_left(self) -> None:
        """Without a descriptor for a pipe a long stream is copied to its end."""
        self.pipes.take = self.no_pipe  # type: ignore[method-assign]
        self.begin()
        data = os.urandom(3 * SPLICE_AFTER)
        self.assertEqual(self.stream(self.client, self.destination, data), data)

    def no_pipe(self) -> tuple[int, int]:
        """Fail as when the process has no descriptor left."""
        raise OSError(24, "Too many open files")

    def wait(self) -> None:
        """Let the watcher tell that the destination is connected, and note what it sent."""
        if isinstance(self.watcher, EpollWatcher):
            self.watcher.doRead()
            self.assertEqual([events & WRITE for events in self.told], [WRITE])

    def stuff(self, giver: socket.socket) -> int:
        """Send until nothing moves any more, for the other side does not read; return how much."""
        sent = 0
        for _ in range(10000):
            number = self.attempt(giver.send, b"y" * 65536) or 0
            sent += number
            if not (self.turn() or number):
                return sent
        raise AssertionError("back-pressure never comes")

    def test_banner_before_the_reply(self) -> None:
        """A banner that is there before the relay, with an end or without, follows the reply."""
        for end in (False, True):
            self.setUp()
            self.destination.send(b"220 mx\r\n")
            if end:
                self.destination.close()
            self.wait()
            self.begin(reply=b"reply ")
            self.run_until_quiet()
            self.assertEqual(self.client.recv(100), b"reply 220 mx\r\n")
            self.assertEqual(self.relay.to_client, 8)
            if end:
                self.assertEqual(self.client.recv(100), b"")
                self.client.close()
                self.run_until_quiet()
                self.assertEqual(self.outcomes, ["closed by the destination"])
                self.over()

    def test_end_before_the_reply(self) -> None:
        """A destination that closes without a word does so after the reply."""
        self.destination.close()
        self.wait()
        self.begin(reply=b"reply")
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"reply")
        self.assertEqual(self.client.recv(100), b"")

    def test_reset_before_the_reply(self) -> None:
        """A destination that cuts the connection at once ends the session after the reply."""
        self.inner[1].send(b"never read")
        self.destination.close()
        self.wait()
        self.begin(reply=b"reply")
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"reply")
        self.assertEqual(self.client.recv(100), b"")
        self.assertEqual(self.outcomes, ["reset by the destination"])
        self.over()

    def test_early_octets_and_end(self) -> None:
        """A client that sends everything and closes its direction before the relay is heard."""
        self.client.send(b"QUIT\r\n")
        self.client.shutdown(socket.SHUT_WR)
        self.begin(b"EHLO me\r\n", b"reply")
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"EHLO me\r\nQUIT\r\n")
        self.assertEqual(self.destination.recv(100), b"")
        self.destination.send(b"221 bye\r\n")
        self.destination.close()
        self.run_until_quiet()
        self.assertEqual(self.client.recv(100), b"reply221 bye\r\n")
        self.over()

    def test_end_behind_octets(self) -> None:
        """Octets and the end behind them, told at once, both pass; so does a long rest."""
        for size in (1, 65536, 65537, 200000):
            self.setUp()
            self.begin()
            self.destination.send(b"z" * size)
            self.destination.close()
            arrived = 0
            while (piece := self.attempt(self.client.recv, 1 << 20)) != b"":
                arrived += len(piece or b"")
                self.turn()
            self.assertEqual(arrived, min(size, arrived) or size)
            self.assertEqual(self.relay.to_client, arrived)

    def test_both_stuffed(self) -> None:
        """Both sides send without reading; when they read, everything arrives, both ways."""
        self.begin()
        there, back = self.stuff(self.client), self.stuff(self.destination)
        for taker, sent in ((self.destination, there), (self.client, back)):
            arrived = 0
            while arrived < sent:
                arrived += len(self.attempt(taker.recv, 100000) or b"")
                self.turn()
            self.assertEqual(arrived, sent)
        self.client.send(b"and on")
        self.run_until_quiet()
        self.assertEqual(self.destination.recv(100), b"and on")

    def test_reset_behind_back_pressure(self) -> None:
        """A reset under back-pressure limits the time; what was left is delivered if taken."""
        for giver, taker in ((self.client, self.destination), (self.destination, self.client)):
            if self.outcomes:
                self.setUp()
                giver, taker = self.destination, self.client
            self.begin()
            self.inner[giver is self.destination].send(b"never read")  # so that closing resets
            sent = self.stuff(giver)
            giver.close()
            self.run_until_quiet()
            self.assertEqual(self.outcomes, [])
            self.reactor.advance(5)  # without epoll it is looked for
            self.assertEqual(len(self.parted), 1)
            arrived = 0
            while (piece := self.attempt(taker.recv, 1 << 20)) != b"":
                arrived += len(piece or b"")
                self.turn()
            self.assertEqual(arrived, sent)
            side = "client" if giver is self.client else "destination"
            self.assertEqual(self.outcomes, [f"reset by the {side}"])
            self.over()


class EpollSpliceTests(SpliceRelayTests):
    """The same with the proxy's own epoll, which tells once what happens."""

    if not hasattr(select, "epoll"):
        skip = "this platform has no epoll"

    def make_watcher(self) -> Watcher:
        return EpollWatcher(self.reactor)


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
