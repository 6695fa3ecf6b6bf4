"""What becomes of clients when the process has no descriptor left."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.descriptors import SpareDescriptor

SHORTAGE = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class FakeClient:
    """An accepted socket."""

    closed = False

    def close(self) -> None:
        """Close it."""
        self.closed = True


class FakeListener:
    """A listening socket; it accepts only while there is a descriptor to be had.

    @ivar clients: whom it has accepted.
    @ivar failure: what C{accept} ends with.
    """

    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.failure: OSError | None = None

    def accept(self) -> tuple[FakeClient, Any]:
        """Accept the next one."""
        if self.failure is not None:
            raise self.failure
        self.clients.append(FakeClient())
        return self.clients[-1], None


class SpareDescriptorTests(TestCase):
    """A descriptor in reserve."""

    def setUp(self) -> None:
        """Reserve it."""
        self.clock, self.counters, self.listener = Clock(), ProxyCounters(), FakeListener()
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.spare = SpareDescriptor("main", self.clock.seconds, self.counters)
        self.addCleanup(self.spare.close)

    def turn_away(self, times: int) -> None:
        """So many clients come."""
        for _ in range(times):
            self.spare.turn_away(self.listener, SHORTAGE)  # type: ignore[arg-type]

    def lines(self) -> list[str]:
        """What the log says."""
        return [event["log_format"].format(**event) for event in self.observer]

    def test_closed_and_counted(self) -> None:
        """Each client is accepted, closed and counted."""
        self.turn_away(3)
        self.assertEqual([client.closed for client in self.listener.clients], [True] * 3)
        self.assertEqual(self.counters.turned_away, 3)

    def test_one_line_a_minute(self) -> None:
        """A thousand clients are one line; a minute later there is another, with their number."""
        self.turn_away(1000)
        self.assertEqual(len(self.lines()), 1)
        self.assertIn("[proxy:main] turns clients away, 1 since", self.lines()[0])
        self.assertIn("Too many open files", self.lines()[0])
        self.clock.advance(60)
        self.turn_away(1)
        self.assertEqual(len(self.lines()), 2)
        self.assertIn(" 1000 since the last line", self.lines()[1])

    def test_client_left(self) -> None:
        """A client that has left meanwhile is none, and the reserve is there for the next."""
        self.listener.failure = BlockingIOError()
        self.turn_away(1)
        self.listener.failure = None
        self.turn_away(1)
        self.assertEqual(self.counters.turned_away, 1)

    def test_descriptor_is_free_meanwhile(self) -> None:
        """The reserved descriptor is free while the client is accepted, and taken again then."""
        free: list[bool] = []
        probe = os.open(os.devnull, os.O_RDONLY)
        os.close(probe)

        def accept() -> Any:
            now = os.open(os.devnull, os.O_RDONLY)
            os.close(now)
            free.append(now < probe)
            raise BlockingIOError

        self.listener.accept = accept  # type: ignore[method-assign]
        self.turn_away(1)
        self.assertEqual(free, [True])
