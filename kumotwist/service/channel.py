"""What a supervisor and a worker say to each other: one JSON list a line, over a socket pair."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Channel"]


@implementer(IPushProducer)
class Channel(LineOnlyReceiver):
    """One end.

    @ivar clogged: whether the other end does not take what is sent: then what can be left out
        should be.
    """

    delimiter = b"\n"
    MAX_LENGTH = 1024 * 1024
    _log = Logger()

    def __init__(
        self, received: Callable[[str, list[Any]], None], lost: Callable[[], None]
    ) -> None:
        """Nothing is connected yet.

        @param received: is given the subject and the rest of each message.
        @param lost: called when the other end is gone.
        """
        self._received = received
        self._lost = lost
        self.clogged = False

    def connectionMade(self) -> None:
        """Be told when the other end is slow."""
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def send(self, subject: str, *rest: Any) -> None:
        """Say something; what the other end cannot hear any more is lost."""
        if self.connected:
            line = json.dumps([subject, *rest], separators=(",", ":"), default=str)
            self.transport.write(line.encode("ascii") + b"\n")  # type: ignore[union-attr]

    def lineReceived(self, line: bytes) -> None:
        """The other end has said something."""
        subject, *rest = json.loads(line)
        try:
            self._received(subject, rest)
        except Exception:
            self._log.failure("a message about {subject} was not understood", subject=subject)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other process is gone."""
        self._lost()

    def pauseProducing(self) -> None:
        """The other end is slow."""
        self.clogged = True

    def resumeProducing(self) -> None:
        """It has caught up."""
        self.clogged = False

    def stopProducing(self) -> None:
        """It is gone."""
        self.clogged = True
