"""The spool with its real threads, and a process that is killed.

Unlike the other unit tests these use the real reactor and wait on what the threads do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.spool import SpoolLockedError, SpoolSettings, SQLiteSpool
from tests.spool_support import LARGE, SMALL, make_message

_STORE_FOR_EVER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from tests.spool_support import LARGE, SMALL, make_message
from kumotwist.spool import SpoolSettings, SQLiteSpool

async def client(spool):
    while True:
        for body in (SMALL, LARGE):
            message = make_message(1, body)
            await spool.store(body, [message])
            sys.stdout.write(message.id + "\\n")
            sys.stdout.flush()

async def main():
    spool = SQLiteSpool(reactor, SpoolSettings(path=sys.argv[1], large_body_threshold=1000))
    await spool.open()
    for _ in range(5):
        Deferred.fromCoroutine(client(spool))

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
"""


class _KilledAfter(ProcessProtocol):
    """Reads lines, and kills the process when it has read enough."""

    def __init__(self, lines: int) -> None:
        self.output = b""
        self.errors = b""
        self.ended: Deferred[list[str]] = Deferred()
        self._lines = lines

    def outReceived(self, data: bytes) -> None:
        self.output += data
        if self.output.count(b"\n") >= self._lines and self.transport is not None:
            self.transport.signalProcess("KILL")
            self._lines = sys.maxsize

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        reason.trap(ProcessTerminated)
        if self.errors:
            self.ended.errback(AssertionError(self.errors.decode()))
        else:
            self.ended.callback([line.decode() for line in self.output.split(b"\n")[:-1]])


class ThreadedSpoolTests(TestCase):
    """The real thing."""

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[SQLiteSpool]:
        """A spool with threads, closed in the end."""
        spool = SQLiteSpool(reactor, SpoolSettings(path=path, large_body_threshold=1000))
        await spool.open()
        try:
            yield spool
        finally:
            await spool.close()

    async def test_many_writers(self) -> None:
        """Many clients store, update, load and remove at once; what stays is what should."""
        path = self.mktemp()
        kept: dict[str, bytes] = {}

        async def client(spool: SQLiteSpool, number: int) -> None:
            for turn in range(10):
                body = (LARGE if turn % 3 else SMALL) + b"%d-%d" % (number, turn)
                message = make_message(number, body)
                await spool.store(body, [message])
                message.attempts = turn
                await spool.update(message)
                self.assertEqual(await spool.load(message), body)
                if turn % 2:
                    await spool.remove([message])
                else:
                    kept[message.id] = body

        async with self.opened(path) as spool:
            clients = [Deferred.fromCoroutine(client(spool, number)) for number in range(10)]
            await gatherResults(clients)
        found: list[QueuedMessage] = []
        async with self.opened(path) as spool:
            self.assertEqual(await spool.enumerate(found.extend), 50)
            self.assertEqual({each.id: await spool.load(each) for each in found}, kept)

    async def test_close_at_once(self) -> None:
        """Closing while it is being opened waits for that, and leaves the directory free."""
        path = self.mktemp()
        spool = SQLiteSpool(reactor, SpoolSettings(path=path))
        opened = spool.open()
        closed = gatherResults([spool.close(), spool.close()])
        await opened
        await closed
        async with self.opened(path):
            await self.assertFailure(
                SQLiteSpool(reactor, SpoolSettings(path=path)).open(), SpoolLockedError
            )

    async def test_killed(self) -> None:
        """A process is killed while it stores: what it acknowledged is there, and whole."""
        path = os.path.abspath(self.mktemp())
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        protocol = _KilledAfter(300)
        reactor.spawnProcess(
            protocol,
            sys.executable,
            [sys.executable, "-c", _STORE_FOR_EVER, path],
            env={**os.environ, "PYTHONPATH": root},
        )
        acknowledged = await protocol.ended
        self.assertGreaterEqual(len(acknowledged), 300)
        found: list[QueuedMessage] = []
        async with self.opened(path) as spool:
            await spool.enumerate(found.extend)
            self.assertLessEqual(set(acknowledged), {each.id for each in found})
            for message in found:
                self.assertEqual(await spool.load(message), SMALL if message.size < 99 else LARGE)
