"""A client that follows a script, directly or behind a proxy's handshake.

It shares no code with the product: what it says is written out as octets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

__all__ = [
    "ABORT",
    "HALF_CLOSE",
    "STARTTLS",
    "TOGETHER",
    "Flood",
    "Preface",
    "Replies",
    "ScriptedClient",
    "Trickle",
]


@attrs.define(frozen=True)
class Replies:
    """Wait until so many replies have come since the beginning."""

    number: int


@attrs.define(frozen=True)
class Flood:
    """Send octets again and again, so many times, as fast as they are taken."""

    data: bytes
    times: int


@attrs.define(frozen=True)
class Trickle:
    """Send octet by octet, with so many seconds between them."""

    data: bytes
    seconds: float


@attrs.define(frozen=True)
class _Word:
    name: str


#: Close the side that sends.
HALF_CLOSE = _Word("half-close")
#: Reset the connection.
ABORT = _Word("abort")
#: Begin TLS.
STARTTLS = _Word("starttls")
#: Wait until every connection of the script has heard something, or is gone.
TOGETHER = _Word("together")

_REPLY = re.compile(rb"^([2-5]\d\d) ", re.MULTILINE)


@attrs.define(frozen=True)
class Preface:
    """What is said to a proxy before the connection stands.

    @ivar turns: what to say, and how much the answer has: a number of octets, or its end.
    """

    turns: tuple[tuple[bytes, int | bytes], ...] = ()


class ScriptedClient(Protocol):
    """One connection.

    @ivar heard: all that the server said.
    @ivar gone: whether the connection is over.
    """

    transport: Any

    def __init__(
        self, preface: Preface, steps: tuple[Any, ...], together: Callable[[], bool]
    ) -> None:
        self._preface = list(preface.turns)
        self._steps = list(steps)
        self._together = together
        self._before = b""
        self.heard = b""
        self.gone = False
        self._waiting = False
        self._timer: Any = None

    @property
    def codes(self) -> str:
        """The codes of the replies."""
        return b" ".join(_REPLY.findall(self.heard)).decode("ascii")

    def connectionMade(self) -> None:
        """Talk to the proxy, if there is one, else to the server."""
        self.transport.setTcpNoDelay(True)
        if self._preface:
            self.transport.write(self._preface[0][0])
        else:
            self.play()

    def dataReceived(self, data: bytes) -> None:
        """An answer of the proxy's or the server's."""
        while self._preface:
            self._before += data
            end = self._end_of_answer(self._preface[0][1])
            if end < 0:
                return
            data, self._before = self._before[end:], b""
            del self._preface[0]
            if self._preface:
                self.transport.write(self._preface[0][0])
            else:
                self.play()
        self.heard += data
        self.play()

    def _end_of_answer(self, end: int | bytes) -> int:
        if isinstance(end, int):
            return end if len(self._before) >= end else -1
        at = self._before.find(end)
        return at if at < 0 else at + len(end)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.gone = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def play(self) -> None:
        """Take steps until one has to wait."""
        while self._steps and not self.gone and not self._waiting:
            step = self._steps[0]
            if isinstance(step, Replies):
                if len(_REPLY.findall(self.heard)) < step.number:
                    return
            elif step is TOGETHER and not self._together():
                return
            del self._steps[0]
            self._take(step)

    def _take(self, step: Any) -> None:
        if isinstance(step, bytes):
            self.transport.write(step)
        elif isinstance(step, Flood):
            self._flood(step.data, step.times)
        elif isinstance(step, Trickle):
            self._trickle(step.data, step.seconds)
        elif step is HALF_CLOSE:
            self.transport.loseWriteConnection()
        elif step is ABORT:
            self.transport.abortConnection()
        elif step is STARTTLS:
            self.transport.startTLS(CertificateOptions())

    def _flood(self, data: bytes, times: int) -> None:
        self._waiting = bool(times)
        if times and not self.gone:
            self.transport.write(data)
            self._timer = global_reactor.callLater(0, self._flood, data, times - 1)
        else:
            self._go_on()

    def _trickle(self, data: bytes, seconds: float) -> None:
        self._waiting = bool(data)
        if data and not self.gone:
            self.transport.write(data[:1])
            self._timer = global_reactor.callLater(seconds, self._trickle, data[1:], seconds)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._waiting = False
        if not self.gone:
            self._timer = global_reactor.callLater(0, self.play)
