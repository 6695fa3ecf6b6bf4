"""A server that follows a script and insists on it: for tests of whatever talks to a proxy."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define
from twisted.internet.interfaces import IProtocol, ITransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface.verify import verifyClass

__all__ = ["Close", "Expect", "Hold", "ScriptError", "ScriptedServer", "Send", "Step"]


@define(frozen=True)
class Expect:
    """Wait for exactly these octets."""

    data: bytes


@define(frozen=True)
class Send:
    """Send these octets, in one piece."""

    data: bytes


@define(frozen=True)
class Close:
    """Close the connection."""


@define(frozen=True)
class Hold:
    """Wait until the test calls L{ScriptedServer.release}."""


Step = Expect | Send | Close | Hold


class ScriptError(AssertionError):
    """The peer did not keep to the script, or the script was not played to its end."""


class ScriptedServer(Protocol):
    """Plays its steps one after the other.

    Whoever sends ahead of a reply, or sends anything else than is expected, causes L{ScriptError},
    also in C{assert_finished}. What arrives after the last step is kept as C{stream}, or goes to
    the protocol that was given as the last part.

    @ivar stream: what arrived after the script.
    @ivar lost: why the connection ended, once it has.
    """

    def __init__(self, steps: Iterable[Step], then: IProtocol | None = None) -> None:
        """
        @param steps: what to do.
        @param then: a protocol that takes the connection over after the last step.
        """
        self.steps = list(steps)
        self.stream = b""
        self.lost: Failure | None = None
        self._then = then
        self._handed_over = False
        self._pending = b""
        self._problem = ""

    def connectionMade(self) -> None:
        """Play the first steps."""
        self._play()

    def dataReceived(self, data: bytes) -> None:
        """Compare what arrived with the script and go on with it."""
        if self._handed_over and self._then is not None:
            self._then.dataReceived(data)
            return
        self._pending += data
        self._play()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember why."""
        self.lost = reason
        if self._handed_over and self._then is not None:
            self._then.connectionLost(reason)

    def release(self) -> None:
        """Go on behind a L{Hold}."""
        if not self.steps or not isinstance(self.steps[0], Hold):
            raise ScriptError("the script does not hold here")
        del self.steps[0]
        self._play()

    def assert_finished(self) -> None:
        """Raise L{ScriptError} unless every step was played and the peer kept to the script."""
        if self._problem:
            raise ScriptError(self._problem)
        if self.steps:
            raise ScriptError(f"the script was not played to its end: {self.steps}")

    def _play(self) -> None:
        while self.steps:
            step = self.steps[0]
            if isinstance(step, Hold):
                return
            if isinstance(step, Expect):
                if not self._expected(step.data):
                    return
            elif self._pending:
                self._fail(f"{self._pending!r} was sent ahead of {step}")
            del self.steps[0]
            if isinstance(step, Send):
                self._transport().write(step.data)
            elif isinstance(step, Close):
                self._transport().loseConnection()
        self._hand_over()

    def _expected(self, data: bytes) -> bool:
        """Take what is expected off the octets that arrived; false while some are missing."""
        if self._pending[: len(data)] != data[: len(self._pending)]:
            self._fail(f"{self._pending!r} was sent instead of {data!r}")
        if len(self._pending) < len(data):
            return False
        self._pending = self._pending[len(data) :]
        return True

    def _hand_over(self) -> None:
        data, self._pending = self._pending, b""
        if self._then is None:
            self.stream += data
            return
        if not self._handed_over:
            self._handed_over = True
            self._then.makeConnection(self._transport())
        if data:
            self._then.dataReceived(data)

    def _fail(self, problem: str) -> None:
        self._problem = problem
        raise ScriptError(problem)

    def _transport(self) -> ITransport:
        assert self.transport is not None
        return self.transport


verifyClass(IProtocol, ScriptedServer)
