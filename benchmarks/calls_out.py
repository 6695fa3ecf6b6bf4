"""The way out in memory: from what a commit has stored to the removal of what was delivered.

The real scheduler, ready queues, sessions, clients, fates and records, on the real spool; the
sites' answers are written down beforehand and no socket is used. What is not measured: how the
messages come, what a thread does to the disk, the sites, and what the reactor and its sockets
cost.
"""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path
from typing import Any, Literal

from twisted.internet.address import IPv4Address
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from benchmarks.calls_in import Later
from benchmarks.counting import Meter, Time
from kumotwist.egress import Rotations, Source, SourceHealth
from kumotwist.egress.settings import PathPattern, PathTable, SourceSettings
from kumotwist.journal import JournalWriter, LogSettings, Trace
from kumotwist.limits import LimitTable
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.context import SessionContext
from kumotwist.queue.fate import Fates
from kumotwist.queue.plan import Planner
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.scheduler import Scheduler
from kumotwist.queue.securing import TLSPolicies
from kumotwist.queue.settings import QueuePattern, QueueTable, SmartHost
from kumotwist.settings.layers import Rule
from kumotwist.spool import SpoolSettings, SQLiteSpool
from kumotwist.spool.gathering import LINGER
from kumotwist.testing.dns import FakeResolver
from kumotwist.tls.broken import BrokenTLS

__all__ = ["LOADS", "Load", "WayOut"]

#: Messages of one commit, as 20 clients that send at once bring them.
TOGETHER = 20

_HEADER = b"Subject: hello\r\nFrom: a@client.example\r\n\r\n"
_LINE = b"The quick brown fox jumps over the lazy dog, and then again, and again.\r\n"

#: What the site says, by the end of what it was told.
_ANSWERS = {
    b"connected": b"220 mx ESMTP\r\n",
    b".\r\nQUIT\r\n": b"250 2.0.0 Ok: queued\r\n221 2.0.0 Bye\r\n",
    b".\r\n": b"250 2.0.0 Ok: queued\r\n",
    b"DATA\r\n": b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n",
    b"EHLO mta.example\r\n": b"250-mx\r\n250-PIPELINING\r\n250-SIZE 50000000\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n",
}

_CLOSED = Failure(CONNECTION_DONE)

#: What a message finds.
Load = Literal["idle sessions", "full queue", "a connection each"]
LOADS: tuple[Load, ...] = ("idle sessions", "full queue", "a connection each")


class _Transport:
    """Remembers the last thing that was written."""

    def __init__(self, protocol: Any, peer: IPv4Address) -> None:
        self.protocol = protocol
        self.said = b"connected"
        self.disconnecting = False
        self._peer = peer

    def write(self, data: bytes) -> None:
        self.said = data

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.said = pieces[-1]

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Its producer is never paused."""

    def unregisterProducer(self) -> None:
        """See C{registerProducer}."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """There is no socket to tell."""

    def loseConnection(self) -> None:
        self.disconnecting = True

    def getPeer(self) -> IPv4Address:
        return self._peer

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 40000)


class _Reactor(MemoryReactorClock):
    """A clock, and connections that are there at once.

    @ivar connections: all that were made.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rightNow = 1_800_000_000.0
        self.connections: list[_Transport] = []

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """Connect."""
        peer = IPv4Address("TCP", host, port)
        protocol = factory.buildProtocol(peer)
        transport = _Transport(protocol, peer)
        self.connections.append(transport)
        protocol.makeConnection(transport)


class WayOut:
    """A node's queues, and a site that takes everything.

    @param directory: for the spool.
    @param load: whether messages find sessions that wait for them, or stand in a queue from which
        sessions take the next ones themselves; or whether each is the only one of its connection.
    @param size: octets of a message.
    """

    def __init__(self, directory: Path, load: Load, size: int = 5000) -> None:
        self.name = f"out, {load}, {size} octets"
        self.messages = 10 * TOGETHER if load == "full queue" else TOGETHER
        self._per_connection = 1 if load == "a connection each" else 10**9
        self._body = _HEADER + _LINE * (size // len(_LINE))
        self._reactor = _Reactor()
        self._worker = Later()
        self._journal = JournalWriter(self._reactor, LogSettings(), directory / "log")
        self._spool = SQLiteSpool(
            self._reactor,
            SpoolSettings(path=str(directory / "spool")),
            make_worker=lambda _: self._worker,
        )
        self._bodies = Bodies(self._spool)
        opening = self._spool.open()
        while not opening.called:
            self._work(Time())
        self._scheduler = self._queues()
        self._numbers = count(1)
        self._connect()

    def _queues(self) -> Scheduler:
        reactor, spool = self._reactor, self._spool
        chance = random.Random(1)
        values = {"egress_pool": "pool", "route": (SmartHost("192.0.2.1", 25),)}
        queues = QueueTable([Rule(QueuePattern.parse("default"), values)])
        # The connections of the beginning are those of the end.
        path: dict[str, Any] = {
            "connection_limit": TOGETHER,
            "max_deliveries_per_connection": self._per_connection,
        }
        path["enable_tls"] = "Disabled"
        paths = PathTable([Rule(PathPattern.parse("default"), path)])
        trace, resolver = Trace(reactor), FakeResolver({})
        scheduler = Scheduler(
            reactor,
            Planner(resolver, paths),
            queues,
            paths,
            {"direct": Source.of(SourceSettings(name="direct"))},
            Rotations({"pool": (("direct", 1),)}),
            chance.random,
        )
        recorder = Recorder(reactor, self._journal, trace, "5" * 32)
        fates = Fates(
            reactor, chance.random, spool, self._bodies, recorder, queues, "mta.example",
            scheduler.insert,
        )  # fmt: skip
        context = SessionContext(
            reactor=reactor,
            resolver=resolver,
            health=SourceHealth(reactor.seconds),
            fates=fates,
            bodies=self._bodies,
            trace=trace,
            limits=LimitTable(reactor.seconds),
            tls=TLSPolicies(resolver, BrokenTLS(reactor.seconds)),
            hostname="mta.example",
            chance=chance,
        )
        scheduler.use(context)
        return scheduler

    def _stored(self, number: int) -> list[QueuedMessage]:
        """So many messages, each with a body of its own, that the spool keeps."""
        now = self._reactor.seconds()
        messages = []
        for _ in range(number):
            recipient = f"user{next(self._numbers)}@site.example"
            message = QueuedMessage(
                new_id(now), "sender@client.example", recipient, "site.example", len(self._body),
                now, now, meta={"reception_protocol": "ESMTP"},
            )  # fmt: skip
            self._spool.store(self._body, [message])
            messages.append(message)
        self._work(Time())
        for message in messages:
            message.body, message.plain = self._body, True
            self._bodies.keep(message)
        return messages

    def _connect(self) -> None:
        """Bring so many messages that there are as many connections as come messages at once."""
        self._scheduler.insert_all(self._stored(10 * TOGETHER))
        self._deliver(Time())
        if len(self._reactor.connections) != (TOGETHER if self._per_connection > 1 else 0):
            raise RuntimeError("there are too few connections")

    def _answer(self, meter: Meter) -> bool:
        """Let the site answer whatever has been said since the last time; false if nothing was."""
        answers = []
        for connection in self._reactor.connections:
            said, connection.said = connection.said, b""
            for ending, answer in _ANSWERS.items():
                if said.endswith(ending):
                    answers.append((connection.protocol, answer))
                    break
        meter.begin()
        for protocol, answer in answers:
            protocol.dataReceived(answer)
        meter.end()
        self._end_connections(meter)
        return bool(answers)

    def _end_connections(self, meter: Meter) -> None:
        """Tell the protocols of those connections that they have closed."""
        connections = self._reactor.connections
        ended = [each for each in connections if each.disconnecting]
        connections[:] = [each for each in connections if not each.disconnecting]
        meter.begin()
        for connection in ended:
            connection.protocol.connectionLost(_CLOSED)
        meter.end()

    def _deliver(self, meter: Meter) -> None:
        """Let the site answer until it has everything, and the spool forget it."""
        while self._answer(meter):
            pass
        self._work(meter)

    def _work(self, meter: Meter) -> None:
        """Let the spool commit what has been asked of it."""
        meter.begin()
        self._reactor.advance(LINGER)
        self._reactor.advance(0)
        meter.end()
        self._worker.work()
        meter.begin()
        self._worker.tell()
        meter.end()

    def round(self, meter: Meter) -> None:
        """Deliver messages that are stored, as reception hands them over."""
        self._reactor.advance(0.01)
        messages = self._stored(self.messages)
        insert = self._scheduler.insert_all
        meter.begin()
        for message in messages:
            insert([message])
        meter.end()
        self._deliver(meter)
        if self._bodies.bytes:
            raise RuntimeError("a message was not delivered")
