"""Two transports that write to each other, with back-pressure and half-close both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet import interfaces
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.outgoing import IOutgoing

__all__ = ["CLOSED_BY", "RESET_BY", "Relay", "TransportRelay"]

#: How a session ended, for the log, by the side that ended it.
CLOSED_BY = {"client": "closed by the client", "destination": "closed by the destination"}
RESET_BY = {"client": "reset by the client", "destination": "reset by the destination"}


class Relay(Protocol):
    """What a session needs of whatever carries its stream."""

    @property
    def to_destination(self) -> int:
        """How many octets came from the client."""

    @property
    def to_client(self) -> int:
        """How many octets came from the destination."""

    @property
    def last_activity(self) -> float:
        """When something last moved, by the clock that was given."""

    def start(self, early: bytes, reply: bytes) -> None:
        """Begin.

        @param early: what the client has already sent for the destination.
        @param reply: what the client is told before it hears of the destination.
        """

    def from_client(self, data: bytes) -> None:
        """The client's transport received something."""

    def client_done(self) -> None:
        """The client will send no more."""

    def client_lost(self, reason: Failure) -> None:
        """The client's connection is gone."""

    def abort(self, outcome: str) -> None:
        """Cut both connections now; C{outcome} says why."""


@implementer(interfaces.IHalfCloseableProtocol)
class _DestinationEnd(TwistedProtocol):
    """The protocol on the destination's transport: passes everything on to the relay."""

    def __init__(self, relay: TransportRelay) -> None:
        self._relay = relay

    def dataReceived(self, data: bytes) -> None:
        self._relay.from_destination(data)

    def readConnectionLost(self) -> None:
        self._relay.destination_done()

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was this side that closed it."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self._relay.destination_lost(reason)


class TransportRelay:
    """A relay over two Twisted transports; it works with every reactor and with TLS.

    Each transport is the other's producer: when a peer reads slowly, its transport's buffer
    fills and the other side is no longer read.

    A TLS transport cannot be closed in one direction: there the end of the destination's stream
    closes the client's connection, after everything was sent.

    @param client: the client's transport.
    @param outgoing: the connected outgoing side.
    @param counters: where octets are counted as they pass.
    @param seconds: the clock.
    @param ended: called once, when both connections are gone, with the words for the log.
    @param parted: called when a connection is gone and what it left has still to be delivered.
    """

    def __init__(
        self,
        client: Any,
        outgoing: IOutgoing,
        counters: ProxyCounters,
        seconds: Callable[[], float],
        ended: Callable[[str], None],
        parted: Callable[[], None],
    ) -> None:
        self._client = client
        self._outgoing = outgoing
        self._counters = counters
        self._seconds = seconds
        self._ended = ended
        self._parted = parted
        self._destination: Any = None
        self._outcome: str | None = None
        self._live = {"client", "destination"}
        self._sending = {"client", "destination"}
        self.to_destination = 0
        self.to_client = 0
        self.last_activity = seconds()

    def start(self, early: bytes, reply: bytes) -> None:
        self._client.write(reply)
        end = _DestinationEnd(self)
        try:
            self._outgoing.attach(end)
        except OSError:
            self._live.discard("destination")
            self.abort(RESET_BY["destination"])
            return
        self._destination = end.transport
        self._destination.registerProducer(self._client, True)
        self._client.registerProducer(self._destination, True)
        if early:
            self.from_client(early)

    # -- octets ------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        self.last_activity = self._seconds()
        self.to_destination += len(data)
        self._counters.bytes_to_destination += len(data)
        self._destination.write(data)

    def from_destination(self, data: bytes) -> None:
        """The destination's transport received something."""
        self.last_activity = self._seconds()
        self.to_client += len(data)
        self._counters.bytes_to_client += len(data)
        self._client.write(data)

    # -- ends --------------------------------------------------------------------------------------

    def client_done(self) -> None:
        self._done("client", self._destination)

    def destination_done(self) -> None:
        """The destination will send no more."""
        self._done("destination", self._client)

    def client_lost(self, reason: Failure) -> None:
        self._lost("client", self._destination, reason)

    def destination_lost(self, reason: Failure) -> None:
        """The destination's connection is gone."""
        self._lost("destination", self._client, reason)

    def abort(self, outcome: str) -> None:
        self._outcome = outcome
        if "client" in self._live:
            self._client.abortConnection()
        if "destination" in self._live:
            self._destination.abortConnection()

    def _done(self, side: str, other: Any) -> None:
        """One side has sent everything: pass the end of its stream on, after the stream."""
        if not self._stop_sending(side, other):
            return
        self._outcome = self._outcome or CLOSED_BY[side]
        if not self._sending:
            self._close(self._client, "client")
            self._close(self._destination, "destination")
        elif interfaces.ISSLTransport.providedBy(other):
            other.loseConnection()
        else:
            other.loseWriteConnection()

    def _stop_sending(self, side: str, other: Any) -> bool:
        """Note that a side sends no more; the other transport must not resume reading it.

        @return: whether that is news.
        """
        if side not in self._sending:
            return False
        self._sending.discard(side)
        if len(self._live) == 2:
            other.unregisterProducer()
        return True

    def _close(self, transport: Any, side: str) -> None:
        if side in self._live:
            transport.loseConnection()

    def _lost(self, side: str, other: Any, reason: Failure) -> None:
        """One connection is gone: what it left behind is delivered, then the other one goes."""
        if side not in self._live:
            return
        clean = reason.check(ConnectionDone) is not None
        self._outcome = self._outcome or (CLOSED_BY if clean else RESET_BY)[side]
        self._stop_sending(side, other)
        self._live.discard(side)
        if self._live:
            self._parted()
            other.loseConnection()
        else:
            self._ended(self._outcome)
