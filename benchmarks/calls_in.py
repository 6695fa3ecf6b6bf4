"""The way in: from a client's octets to the commit, and from its result to reply and record.

The listener, reception and spool are those of a node; sessions are in memory, and what a thread
does to the disk is done in between, where nobody measures.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from benchmarks.counting import Meter
from kumotwist.journal.settings import LogSettings
from kumotwist.journal.trace import Trace
from kumotwist.journal.writer import JournalWriter
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.naming import Naming
from kumotwist.queue.reception import Reception
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.settings import NamingSettings, QueueTable
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.spool import SpoolSettings, SQLiteSpool

__all__ = ["DIALOGUES", "Dialogue", "Later", "Timers", "WayIn"]

T = TypeVar("T")

#: Sessions that take turns: as many messages are in one commit.
SESSIONS = 20

_HERE = IPv4Address("TCP", "127.0.0.1", 2525)
_LINE = b"The quick brown fox jumps over the lazy dog, and then again, and again.\r\n"

#: How a message is said, and whether it has a connection of its own.
Dialogue = tuple[Literal["packets", "pipelined"], Literal["reused", "single"]]

DIALOGUES: tuple[Dialogue, ...] = (
    ("packets", "reused"), ("packets", "single"), ("pipelined", "reused"), ("pipelined", "single"),
)  # fmt: skip


class Timers:
    """Tells the time, and keeps its timers as a reactor does."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._calls: list[DelayedCall] = []

    def seconds(self) -> float:
        """What time it is."""
        return self._now

    def callLater(self, delay: float, function: Any, *args: Any) -> DelayedCall:
        """See L{twisted.internet.interfaces.IReactorTime}."""
        call = DelayedCall(self._now + delay, function, args, {}, _nothing, _nothing)
        heapq.heappush(self._calls, call)
        return call

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self._now += seconds
        calls = self._calls
        while calls and (calls[0].cancelled or calls[0].time <= self._now):
            call = heapq.heappop(calls)
            if not call.cancelled:
                call.called = 1
                call.func(*call.args)


def _nothing(_: DelayedCall) -> None:
    """A timer was cancelled or moved: the heap finds out when its turn has come."""


class Later:
    """A worker without a thread: does its jobs when it is told to."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self._done: list[tuple[Any, Deferred[Any]]] = []

    def submit(self, job: Callable[[], T]) -> Deferred[T]:
        """Keep it."""
        done: Deferred[T] = Deferred()
        self._jobs.append((job, done))
        return done

    def work(self) -> None:
        """Do what was submitted; nobody is told yet."""
        jobs, self._jobs = self._jobs, []
        self._done += [(job(), done) for job, done in jobs]

    def tell(self) -> None:
        """Say what came of it."""
        results, self._done = self._done, []
        for result, done in results:
            done.callback(result)

    def stop(self) -> None:
        """There is no thread to end."""


class _Client:
    """The transport of a session, as far as a listener asks for it; forgets what it is sent."""

    def __init__(self, number: int) -> None:
        self._peer = IPv4Address("TCP", "127.0.0.1", 40000 + number)
        self.said = b""

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return _HERE

    def write(self, data: bytes) -> None:
        self.said = data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def loseConnection(self) -> None:
        pass


class WayIn:
    """Sessions of one listener.

    @param directory: where the spool and the records go.
    @param dialogue: how a message is said.
    @param size: octets of its body.
    """

    def __init__(self, directory: Path, dialogue: Dialogue, size: int = 5000) -> None:
        packets, connections = dialogue
        self.name = f"in, {packets}, {connections}, {size} octets"
        self.messages = SESSIONS
        self._single = connections == "single"
        # smtp-source says HELO, and one command in each packet.
        hello = b"HELO client.example\r\n"
        envelope = [b"MAIL FROM:<sender@client.example>\r\n", b"RCPT TO:<user@site.example>\r\n",
                    b"DATA\r\n"]  # fmt: skip
        if packets == "pipelined":
            hello, envelope = b"EHLO client.example\r\n", [b"".join(envelope)]
        body = b"Subject: test\r\n\r\n" + _LINE * (size // len(_LINE)) + b".\r\n"
        self._hello = hello
        self._message = [*envelope, *(body[at : at + 65536] for at in range(0, len(body), 65536))]
        self._clock: Any = Timers(1.8e9)
        self._worker = Later()
        self._stored: list[QueuedMessage] = []
        self._factory = self._listener(directory)
        self._sessions: list[tuple[Any, _Client]] = []
        if not self._single:
            self._sessions = [self._connect(number) for number in range(SESSIONS)]

    def _listener(self, directory: Path) -> ESMTPListenerFactory:
        """A listener, and what a node puts behind it."""
        clock = self._clock
        spool = SQLiteSpool(
            clock, SpoolSettings(path=str(directory / "spool")), make_worker=lambda _: self._worker
        )
        self._spool, self._bodies = spool, Bodies(spool)
        opening = spool.open()
        while not opening.called:
            self._work()
        journal = JournalWriter(clock, LogSettings(), directory / "log")
        reception = Reception(
            clock,
            spool,
            self._bodies,
            Recorder(clock, journal, Trace(clock), "5" * 32),
            self._insert,
            Naming(NamingSettings(), QueueTable()),
        )
        return ESMTPListenerFactory(
            clock, ListenerSettings(name="main"), reception, node_hostname="mta.example"
        )

    def _insert(self, messages: Sequence[QueuedMessage]) -> None:
        """The way out begins here, and is not measured."""
        self._stored.extend(messages)

    def _work(self) -> None:
        self._worker.work()
        self._worker.tell()

    def _connect(self, number: int) -> tuple[Any, _Client]:
        client = _Client(number)
        protocol: Any = self._factory.buildProtocol(client.getPeer())
        protocol.makeConnection(client)
        protocol.dataReceived(self._hello)
        return protocol, client

    def round(self, meter: Meter) -> None:
        """A message in each session, all of them in one commit."""
        self._clock.advance(0.01)
        self._work()  # perhaps it is time to commit removals
        meter.begin()
        if self._single:
            self._sessions = [self._connect(number) for number in range(SESSIONS)]
        for segment in self._message:
            for protocol, _ in self._sessions:
                protocol.dataReceived(segment)
        self._clock.advance(0)
        meter.end()
        self._worker.work()
        meter.begin()
        self._worker.tell()
        meter.end()
        if any(not client.said.startswith(b"250 2.0.0 OK ids=") for _, client in self._sessions):
            raise RuntimeError("a message was not taken")
        if self._single:
            self._disconnect(meter)
        self._forget()

    def _disconnect(self, meter: Meter) -> None:
        end = Failure(ConnectionDone())
        meter.begin()
        for protocol, _ in self._sessions:
            protocol.dataReceived(b"QUIT\r\n")
            protocol.connectionLost(end)
        meter.end()

    def _forget(self) -> None:
        """What was stored is delivered: nothing gathers, in memory or on disk."""
        for message in self._stored:
            self._bodies.drop(message)
        self._spool.remove(self._stored)
        self._stored.clear()
