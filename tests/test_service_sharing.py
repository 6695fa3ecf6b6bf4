"""Sockets that several processes accept connections from."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.service.sharing import SharedPort


class Port:
    """A port that takes as many connections at once as it may."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.numberAccepts = 100
        self.taken: list[int] = []

    def doRead(self) -> None:
        """Somebody waits."""
        taken = min(self.waiting, self.numberAccepts)
        self.waiting -= taken
        self.taken.append(taken)
        self.numberAccepts += 20

    def stopListening(self) -> None:
        """Take no more."""


class SharedPortTests(SynchronousTestCase):
    """L{SharedPort}."""

    def test_one_by_one(self) -> None:
        """A burst is left to the others, too: a process takes one connection at a time."""
        port = Port(3)
        with socket.create_server(("127.0.0.1", 0)) as bound:
            descriptor = bound.detach()

        class Reactor:
            """Adopts a socket."""

            def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Port:
                """It is the one that was given."""
                self.adopted = fd, family
                return port

        reactor = Reactor()
        shared = SharedPort(reactor, descriptor, Factory())
        shared.startService()
        for _ in range(3):
            port.doRead()
        self.assertEqual((reactor.adopted, port.taken), ((descriptor, socket.AF_INET), [1, 1, 1]))
        self.successResultOf(shared.stopService())
