"""Bare sockets of the proxy: who watches them, and what a session sees of its client's."""

from __future__ import annotations

import os
import select
import socket
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.proxy.accepting import NO_WAIT, ClientSocket, make_acceptor
from kumotwist.proxy.watching import (
    BROKEN,
    ENDED,
    READ,
    WRITE,
    EpollWatcher,
    ReactorWatcher,
    WatchedSocket,
    make_watcher,
)


class SocketCase(SynchronousTestCase):
    """Socket pairs that are closed at the end."""

    def setUp(self) -> None:
        """A reactor that watches nothing by itself."""
        self.reactor: Any = MemoryReactorClock()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Two connected sockets that do not block."""
        both = socket.socketpair()
        for one in both:
            one.setblocking(False)
            self.addCleanup(one.close)
        return both


class EpollWatcherTests(SocketCase):
    """Sockets behind one descriptor of the reactor."""

    if not hasattr(select, "epoll"):
        skip = "this platform has no epoll"

    def setUp(self) -> None:
        """Make the watcher."""
        super().setUp()
        self.watcher = EpollWatcher(self.reactor)
        self.events: list[tuple[str, int]] = []

    def watched(self, name: str, events: int) -> tuple[WatchedSocket, socket.socket]:
        """A watched socket and its peer."""
        mine, peer = self.pair()
        one = WatchedSocket(mine, lambda found: self.events.append((name, found)))
        self.watcher.watch(one, events)
        return one, peer

    def test_one_descriptor(self) -> None:
        """However many sockets there are, the reactor watches one, and none after the last."""
        verifyObject(IReadDescriptor, self.watcher)
        sockets = [self.watched(str(number), READ)[0] for number in range(3)]
        self.assertEqual(self.reactor.readers, {self.watcher})
        for one in sockets[:2]:
            self.watcher.watch(one, 0)
            self.watcher.release(one)
        self.assertEqual(self.reactor.readers, {self.watcher})
        self.watcher.close(sockets[2])
        self.assertEqual(sockets[2].handle.fileno(), -1)
        self.assertEqual(self.reactor.readers, set())
        self.watcher.doRead()
        self.assertEqual(self.watcher.logPrefix(), "KumoProxy")

    def test_events(self) -> None:
        """A socket is told what it is watched for and nothing else."""
        one, peer = self.watched("one", READ)
        self.watcher.doRead()
        self.assertEqual(self.events, [])
        peer.send(b"x")
        self.watcher.doRead()
        self.watcher.watch(one, READ | WRITE)
        self.watcher.doRead()
        self.watcher.watch(one, 0)
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", READ), ("one", READ | WRITE)])

    def test_closed_by_the_peer(self) -> None:
        """The end of a connection is told as something to read."""
        _, peer = self.watched("one", READ)
        peer.close()
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", READ | ENDED)])

    def test_closed_within_a_batch(self) -> None:
        """A socket that another one's turn closes is not told any more, nor is its successor."""
        first, peer = self.watched("first", READ)
        second, other = self.watched("second", READ)
        successors = []

        def close_both(_: int) -> None:
            for one in (first, second):
                self.watcher.close(one)
            successors.extend([self.watched("successor", READ | WRITE) for _ in range(2)])

        first.ready = second.ready = close_both
        peer.send(b"x")
        other.send(b"x")
        self.watcher.doRead()
        self.assertEqual(len(successors), 2)
        self.assertEqual(self.events, [("successor", WRITE)] * 2)

    def test_defect(self) -> None:
        """A defect is logged, stops that socket only, and does not repeat itself."""
        broken, peer = self.watched("broken", READ)
        broken.ready = lambda _: [][0]
        peer.send(b"x")
        _, other = self.watched("sound", READ)
        other.send(b"x")
        self.watcher.doRead()
        peer.send(b"x")
        other.send(b"x")
        self.watcher.doRead()
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
        self.assertEqual(self.events, [("sound", READ)] * 2)

    def test_told_once(self) -> None:
        """A socket that was not read to its end is told again when it asks for that."""
        one, peer = self.watched("one", READ)
        peer.send(b"x")
        self.watcher.doRead()
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", READ)])
        self.watcher.again(one)
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", READ)] * 2)

    def test_missed(self) -> None:
        """What happens while nobody wants to know is told when somebody does, once."""
        for before in (True, False):
            one, peer = self.watched("one", READ)
            if before:
                peer.send(b"x")
                self.watcher.doRead()
            self.watcher.watch(one, 0)
            self.watcher.doRead()
            if not before:
                peer.send(b"x")
            self.watcher.doRead()
            self.events.clear()
            self.watcher.again(one)
            self.watcher.doRead()
            self.assertEqual(self.events, [])
            self.watcher.watch(one, READ)
            self.watcher.doRead()
            self.watcher.doRead()
            self.assertEqual(self.events, [("one", READ)])

    def test_writable_again(self) -> None:
        """Room to write is told as often as it is asked for."""
        one, _peer = self.watched("one", READ)
        for _ in range(3):
            self.watcher.watch(one, READ | WRITE)
            self.watcher.doRead()
            self.watcher.watch(one, READ)
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", WRITE)] * 3)

    def test_others_have_their_turn(self) -> None:
        """Sockets that always have more leave the reactor its turn, be they few or many."""
        for number in (1, 50):
            turns = [0]
            for _ in range(number):
                self.never_read(turns)
            self.watcher.doRead()
            self.assertLessEqual(turns[0], max(number, 4))
            self.assertGreaterEqual(turns[0], number)
            for one in list(self.watcher._sockets.values()):
                self.watcher.close(one)

    def never_read(self, turns: list[int]) -> None:
        """A socket with something to read, which asks to be told of it for ever."""
        one, peer = self.watched("never", READ)

        def ready(_: int) -> None:
            turns[0] += 1
            self.watcher.again(one)

        one.ready = ready
        peer.send(b"x")

    def test_released(self) -> None:
        """A socket that somebody else takes over is not told any more."""
        one, peer = self.watched("one", READ)
        self.watcher.release(one)
        self.watcher.release(one)
        peer.send(b"x")
        self.watcher.doRead()
        self.assertEqual(self.events, [])
        self.watcher.watch(one, READ)
        self.watcher.doRead()
        self.assertEqual(self.events, [("one", READ)])

    def test_choice(self) -> None:
        """It is what a proxy uses where the platform has it."""
        self.assertIsInstance(make_watcher(self.reactor), EpollWatcher)


class ReactorWatcherTests(SocketCase):
    """Sockets that the reactor watches."""

    def test_watch(self) -> None:
        """Each socket is a descriptor of the reactor's while it is watched."""
        watcher = ReactorWatcher(self.reactor)
        events: list[int] = []
        one = WatchedSocket(self.pair()[0], events.append)
        watcher.watch(one, READ | WRITE)
        [descriptor] = self.reactor.readers & self.reactor.writers
        self.assertEqual(descriptor.fileno(), one.number)
        descriptor.doRead()
        descriptor.doWrite()
        descriptor.connectionLost(Failure(ConnectionDone()))
        watcher.watch(one, READ)
        self.assertEqual(self.reactor.writers, set())
        descriptor.doWrite()
        watcher.close(one)
        descriptor.doRead()
        descriptor.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(events, [READ, WRITE | BROKEN, READ | WRITE | BROKEN])

    def test_reset_while_quiet(self) -> None:
        """Sockets that are told nothing are told of a reset within seconds, and once."""
        watcher = ReactorWatcher(self.reactor)
        events: list[tuple[int, int]] = []
        sockets = []

        def note(number: int, found: int) -> None:
            events.append((number, found))

        for number in range(3):
            mine, peer = self.pair()
            one = WatchedSocket(mine, partial(note, number))
            watcher.watch(one, READ)
            watcher.watch(one, 0)
            mine.send(b"never read")  # so that closing resets
            sockets.append((one, peer))
        watcher.watch(sockets[2][0], READ)
        for _, peer in sockets[1:]:
            peer.close()
        self.reactor.pump([1.0] * 11)
        self.assertEqual(events, [(1, BROKEN)])
        for one, _ in sockets:
            watcher.close(one)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class FakeListener:
    """A listening socket of a Python without the quick way to accept."""

    family, type = socket.AF_UNIX, socket.SOCK_STREAM

    def __init__(self, handle: socket.socket) -> None:
        self.handle = handle

    def accept(self) -> tuple[socket.socket, str]:
        """Accept a client."""
        return self.handle, "somebody"


class AcceptorTests(SocketCase):
    """How a client is accepted."""

    def listener(self) -> socket.socket:
        """A listening socket, of the kind that needs no network, and its client."""
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.mktemp()[-90:].replace("/", "_"))
        self.addCleanup(os.unlink, listener.getsockname())
        listener.listen()
        listener.setblocking(False)
        return listener

    def test_quick(self) -> None:
        """A client that says nothing is not waited for, and one that is not there neither."""
        listener = self.listener()
        accept = make_acceptor(listener)
        self.assertRaises(BlockingIOError, accept)
        client = socket.socket(socket.AF_UNIX)
        self.addCleanup(client.close)
        client.connect(listener.getsockname())
        handle, _ = accept()
        self.addCleanup(handle.close)
        self.assertRaises(BlockingIOError, handle.recv, 1, NO_WAIT)
        client.send(b"x")
        self.assertEqual(handle.recv(1, NO_WAIT), b"x")

    def test_plain(self) -> None:
        """Where the quick way does not exist there is the plain one."""
        mine, peer = self.pair()
        mine.setblocking(True)
        accept = make_acceptor(FakeListener(mine))  # type: ignore[arg-type]
        handle, address = accept()
        self.assertEqual(address, "somebody")
        self.assertRaises(BlockingIOError, handle.recv, 1)
        peer.send(b"x")
        self.assertEqual(handle.recv(1), b"x")


class Listening:
    """A session that remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def makeConnection(self, transport: Any) -> None:
        """Nothing."""

    def dataReceived(self, data: bytes) -> None:
        """Octets."""
        self.heard.append(data)

    def readConnectionLost(self) -> None:
        """The end."""
        self.heard.append("end")

    def connectionLost(self, reason: Failure) -> None:
        """The connection is gone."""
        self.heard.append(reason.type)


class ClientSocketTests(SocketCase):
    """A client's socket as its session uses it."""

    def setUp(self) -> None:
        """Connect a client."""
        super().setUp()
        self.watcher = ReactorWatcher(self.reactor)
        self.mine, self.peer = self.pair()
        self.session = Listening()
        self.client = ClientSocket(self.watcher, self.mine, ("192.0.2.1", 5), self.session)

    def turn(self) -> None:
        """Do what a reactor does in one round."""
        readable, writable, _ = select.select(
            list(self.reactor.readers), list(self.reactor.writers), [], 0
        )
        for one in readable:
            one.doRead()
        for one in writable:
            one.doWrite()

    def fill(self) -> int:
        """Write until the socket takes no more; return how much was written."""
        written = 0
        while not self.client._unsent:
            self.client.write(b"x" * 65536)
            written += 65536
        return written

    def drain(self) -> int:
        """Read everything at the other end until it is closed or nothing moves."""
        total = 0
        while True:
            self.turn()
            try:
                piece = self.peer.recv(1 << 20)
            except BlockingIOError:
                return total
            if not piece:
                return total
            total += len(piece)

    def test_conversation(self) -> None:
        """Octets go both ways; the end of the client's is told once."""
        self.peer.send(b"hello")
        self.turn()
        self.client.write(b"hi")
        self.assertEqual(self.peer.recv(10), b"hi")
        self.peer.shutdown(socket.SHUT_WR)
        self.turn()
        self.turn()
        self.assertEqual(self.session.heard, [b"hello", "end"])

    def test_pause(self) -> None:
        """While it is paused nothing is read."""
        self.client.pauseProducing()
        self.peer.send(b"hello")
        self.turn()
        self.assertEqual(self.session.heard, [])
        self.client.resumeProducing()
        self.turn()
        self.assertEqual(self.session.heard, [b"hello"])

    def test_slow_client(self) -> None:
        """What the client does not take at once is sent later, and closing waits for it."""
        written = self.fill()
        self.client.write(b"y")
        self.client.loseConnection()
        self.assertEqual(self.session.heard, [])
        self.assertEqual(self.drain(), written + 1)
        self.assertEqual(self.session.heard, [ConnectionDone])
        self.client.write(b"nobody gets this")
        self.client.loseConnection()
        self.client.pauseProducing()

    def test_slow_client_goes(self) -> None:
        """A client that goes without taking everything is lost."""
        self.fill()
        self.client.loseConnection()
        self.peer.close()
        self.turn()
        self.assertEqual(self.session.heard, [ConnectionLost])

    def test_gone_when_written_to(self) -> None:
        """Writing to a client that is gone tells nothing; reading does."""
        self.peer.close()
        self.client.write(b"x")
        self.turn()
        self.assertEqual(self.session.heard, ["end"])

    def test_abort(self) -> None:
        """Cutting is told at once, and once."""
        self.client.abortConnection()
        self.client.abortConnection()
        self.assertEqual(self.session.heard, [ConnectionAborted])
        self.assertEqual(self.mine.fileno(), -1)

    def test_detach(self) -> None:
        """Whoever takes the socket over gets what has not been sent; the session hears no more."""
        self.fill()
        one, unsent = self.client.detach()
        self.assertIs(one.handle, self.mine)
        self.assertTrue(unsent)
        self.client.abortConnection()
        self.assertEqual(self.session.heard, [])
        self.watcher.close(one)

    def test_peer(self) -> None:
        """The client's address, of each family."""
        addresses = [
            ClientSocket(self.watcher, self.pair()[0], address, self.session).getPeer()
            for address in (("192.0.2.1", 5), ("2001:db8::1", 5, 0, 0), "")
        ]
        self.assertEqual(
            addresses,
            [
                IPv4Address("TCP", "192.0.2.1", 5),
                IPv6Address("TCP", "2001:db8::1", 5),
                UNIXAddress(None),
            ],
        )
