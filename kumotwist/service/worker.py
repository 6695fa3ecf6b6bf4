"""A worker: a node's process as one of several, which does what its supervisor says."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from kumotwist.config import Configuration
from kumotwist.egress.health import Hold
from kumotwist.journal.trace import TraceEvent
from kumotwist.limits import RemoteLimits
from kumotwist.service.channel import Channel
from kumotwist.service.node import Node
from kumotwist.service.orders import WorkerOrders
from kumotwist.service.shared_steering import obey
from kumotwist.service.sharing import ForwardedTrace, Sharing
from kumotwist.service.workers import CHANNEL

__all__ = ["Worker"]


class Worker:
    """The process's side of its channel.

    Signals are for the supervisor: a terminal and systemd send them to every process of a group.

    @ivar node: what the worker does.
    """

    _log = Logger()

    def __init__(self, reactor: Any, configuration: Configuration, orders: WorkerOrders) -> None:
        self._reactor = reactor
        self._stopping = False
        self._texts: dict[str, str] = {}
        self._channel = Channel(self._received, self._abandoned)
        self._limits = RemoteLimits(reactor, lambda message: self._channel.send("limits", message))
        self._trace = ForwardedTrace(reactor.seconds, self._forward)
        self._informed: Deferred[None] = Deferred()
        self.node = Node(
            reactor,
            configuration,
            Sharing(
                orders.worker,
                orders.workers,
                self._limits,
                self._trace,
                orders.sockets,
                lambda reason, waiting: self._channel.send("state", reason, waiting),
                lambda source, hold: self._channel.send("source", source, hold),
                self._informed,
            ),
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        factory = Factory.forProtocol(lambda: self._channel)
        factory.noisy = False
        self._reactor.adoptStreamConnection(CHANNEL, socket.AF_UNIX, factory)
        os.close(CHANNEL)
        # What was said before anybody could hear it.
        self.node.tell_state()

    def _forward(self, event: TraceEvent) -> None:
        # Who watches must not be what the node waits for.
        if not self._channel.clogged:
            self._channel.send("trace", *event)

    def _received(self, subject: str, rest: list[Any]) -> None:
        match subject:
            case "limits":
                self._limits.received(rest[0])
            case "watched":
                self._trace.watched = rest[0]
            case "source":
                source, hold = rest
                self.node.heard_of_source(source, None if hold is None else Hold(*hold))
            case "order":
                self.node.steering.adopt(rest[0])
            case "begin":
                self._begin_to_work()
            case "numbers":
                self._channel.send("numbers", rest[0], self.node.numbers().render())
            case "steer":
                number, method, facts, named = rest
                Deferred.fromCoroutine(self._steer(number, method, facts, named))
            case "text":
                self._heard_text(*rest)
            case "reload":
                texts, self._texts = self._texts, {}
                self.node.reload(texts)
                self._channel.send("reloaded")
            case "hurry":
                self.node.hurry()
            case "stop":
                self._stop()

    def _heard_text(self, path: str, piece: str) -> None:
        """A piece of a configuration file, for the next C{reload}."""
        self._texts[path] = self._texts.get(path, "") + piece

    def _begin_to_work(self) -> None:
        if not self._informed.called:
            self._informed.callback(None)

    async def _steer(
        self, number: int, method: str, facts: list[Any], named: dict[str, Any]
    ) -> None:
        failed, answer = await obey(self.node.steering, method, facts, named)
        self._channel.send("steered", number, failed, answer)

    def _abandoned(self) -> None:
        """The supervisor is gone, and another one may want the spool."""
        if not self._stopping:
            self._log.error("the supervisor is gone")
            self.node.hurry()
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        # The end of the start is waited for, and sees that the node stops.
        self._reactor.addSystemEventTrigger("before", "shutdown", self._begin_to_work)
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()
