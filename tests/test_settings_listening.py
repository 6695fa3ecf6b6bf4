"""Listening ports: bursts of clients, and a log that is not flooded for want of descriptors."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from kumotwist.settings.listening import BACKLOG, let_bursts_wait, quiet_about_shortage


class _Socket:
    """Notes how many clients may wait."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def listen(self, backlog: int) -> None:
        """See L{socket.socket}."""
        self.asked.append(backlog)


class BurstTests(TestCase):
    """How many clients may wait to be accepted."""

    def test_more_than_usual(self) -> None:
        """Many may, unless the configuration says how many; other ports are left alone."""
        port: Any = Port(0, Factory())
        port.socket = _Socket()
        let_bursts_wait(port, "tcp:25")
        self.assertEqual(port.socket.asked, [BACKLOG])
        let_bursts_wait(port, "tcp:25:backlog=5")
        self.assertEqual(port.socket.asked, [BACKLOG])
        let_bursts_wait(object(), "tcp:25")


class ShortageTests(TestCase):
    """What becomes of the events of a port."""

    def setUp(self) -> None:
        """A port that does not listen, and an ear for the log."""
        self.clock = Clock()
        self.observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.port: Any = Port(0, Factory())
        quiet_about_shortage("[listener:in] listen", self.port, self.clock.seconds)

    def shortage(self, times: int) -> None:
        """What Twisted writes when it turns clients away."""
        logger = self.port._logger
        for _ in range(times):
            logger.info("EMFILE encountered; releasing reserved file descriptor.")
            logger.info("EMFILE recovery: Closed socket from {address}", address="x")
            logger.info("Re-reserving EMFILE recovery file descriptor.")
            logger.info("Could not accept new connection ({acceptError})", acceptError="ENFILE")

    def lines(self) -> list[str]:
        """What the log says."""
        return [event["log_format"].format(**event) for event in self.observer]

    def test_one_line_a_minute(self) -> None:
        """However many clients are turned away, there is one line a minute, with the section."""
        self.shortage(100)
        [line] = self.lines()
        self.assertIn("[listener:in] listen: no descriptor is left", line)
        self.clock.advance(59)
        self.shortage(100)
        self.assertEqual(len(self.lines()), 1)
        self.clock.advance(1)
        self.shortage(1)
        self.assertEqual(len(self.lines()), 2)

    def test_other_events(self) -> None:
        """Whatever else a port says is passed on as it is; other ports are left alone."""
        verifyObject(ILogObserver, self.port._logger.observer)
        self.port._logger.info("something {what}", what="else")
        self.assertEqual(self.lines(), ["something else"])
        self.assertIsNot(Port(0, Factory())._logger, self.port._logger)
        quiet_about_shortage("x", object(), self.clock.seconds)
