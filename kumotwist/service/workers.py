"""One worker as its supervisor sees it: the process, what it says, what it writes to its log."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.application.reactors import getReactorTypes
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from kumotwist.service.channel import Channel
from kumotwist.service.orders import WorkerOrders

__all__ = ["CHANNEL", "FIRST_SOCKET", "LogLines", "WorkerProcess", "worker_command"]

#: The descriptors that a worker finds: its channel, and from there on the sockets.
CHANNEL = 3
FIRST_SOCKET = 4

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ")
_LONGEST_LINE = 16384


def worker_command(reactor: Any, config: str, orders: WorkerOrders) -> list[str]:
    """The command line of a worker, with the reactor that this process runs.

    @param config: the configuration file.
    """
    module = type(reactor).__module__
    known: Any = getReactorTypes()
    names = [one.shortName for one in known if one.moduleName == module]
    options = [f"--reactor={name}" for name in names[:1]]
    # Before the half a second that Twisted takes to be imported: it has the ports from here on.
    start = (
        f"from kumotwist.tap.parent import end_with_parent; end_with_parent({CHANNEL}); "
        "from twisted.scripts.twistd import run; run()"
    )
    return [
        sys.executable, "-P", "-c", start, "--nodaemon", "--pidfile=", *options,
        "kumo", "-c", config, "--worker", str(orders),
    ]  # fmt: skip


class LogLines:
    """Puts what a process writes into this process's log, line by line.

    @param log: is given each line without its time.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._rest = b""

    def received(self, data: bytes) -> None:
        """Some octets."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest = rest
        for line in lines:
            self._log(_TIMESTAMP.sub("", line.decode("utf-8", "replace"), count=1))

    def ended(self) -> None:
        """There is no more: the last line may lack its end."""
        if self._rest:
            self.received(b"\n")


class WorkerProcess(ProcessProtocol):
    """A running worker.

    @param number: which one it is.
    @param received: is given the subject and the rest of each message of its channel.
    @param ended: called when it is gone, with the reason in words, and whether it was killed.
    @ivar channel: to talk to it.
    @ivar done: fires when it is gone.
    """

    _log = Logger()
    transport: Any

    def __init__(
        self,
        number: int,
        received: Callable[[str, list[Any]], None],
        ended: Callable[[str, bool], None],
    ) -> None:
        self.number = number
        self.channel = Channel(received, lambda: None)
        self.done: Deferred[None] = Deferred()
        self._ended = ended
        lines = LogLines(lambda line: self._log.info("worker {n}: {line}", n=number, line=line))
        self._lines = {1: lines, 2: lines}

    def spawn(
        self,
        reactor: Any,
        command: Sequence[str],
        sockets: Sequence[int],
        texts: Mapping[str, str],
    ) -> None:
        """Start the process.

        @param sockets: descriptors that it gets, from L{FIRST_SOCKET} on.
        @param texts: the configuration's, which it reads from its standard input: there may be
            passwords in them.
        """
        ours, theirs = socket.socketpair()
        try:
            descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r", CHANNEL: theirs.fileno()}
            descriptors.update(enumerate(sockets, FIRST_SOCKET))
            reactor.spawnProcess(self, command[0], list(command), env=None, childFDs=descriptors)
            self.transport.writeToChild(0, json.dumps(dict(texts)).encode("ascii"))
            self.transport.closeChildFD(0)
            ours.setblocking(False)
            factory = Factory.forProtocol(lambda: self.channel)
            factory.noisy = False
            reactor.adoptStreamConnection(ours.fileno(), ours.family, factory)
        finally:
            ours.close()
            theirs.close()

    def kill(self) -> None:
        """End it at once, if it runs."""
        if not self.done.called:
            self.transport.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It has written to its log."""
        self._lines[childFD].received(data)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and all that it wrote has come."""
        self._lines[1].ended()
        value: Any = reason.value
        signal, code = getattr(value, "signal", None), getattr(value, "exitCode", None)
        words = f"killed by signal {signal}" if signal else f"exit status {code}"
        self._ended(words, bool(signal))
        self.done.callback(None)
