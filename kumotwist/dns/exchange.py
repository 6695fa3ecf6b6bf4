"""One question, put to name servers until one of them answers."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol
from twisted.internet.protocol import connectionDone as _done
from twisted.python.failure import Failure

from kumotwist.dns.answers import Answer, Question, make_query, read_answer, read_response
from kumotwist.dns.datagram import DatagramSocket, OpenSocket, open_socket
from kumotwist.dns.errors import DNSError
from kumotwist.settings.types import HostPort

__all__ = ["Exchange", "SocketCount"]

_MIN_TRIES = 3
_MAX_TRIES = 8


class SocketCount:
    """The sockets of many look-ups.

    @ivar opened: so many there are.
    @ivar many: from this number on a look-up makes do with one.
    """

    def __init__(self, many: int) -> None:
        self.many = many
        self.opened = 0


class Exchange:
    """A look-up: tries, one after another or side by side, of which the first answer wins.

    A try that gets no answer is not given up when the next begins, since a resolver may just be
    slow; it ends with the look-up, unless sockets are scarce. Each try has its own port and its
    own id (RFC 5452, 9).

    @ivar server: the server that answered, when it has.
    """

    def __init__(
        self,
        reactor: Any,
        question: Question,
        servers: Sequence[HostPort],
        timeout: float,
        opener: OpenSocket = open_socket,
        trusted: Collection[HostPort] = (),
        sockets: SocketCount | None = None,
    ) -> None:
        """@param reactor: provides C{IReactorTime}, C{IReactorFDSet} and C{IReactorTCP}.
        @param servers: at least one, the preferred first.
        @param timeout: seconds for all tries together.
        @param opener: opens UDP sockets.
        @param trusted: the servers whose word on DNSSEC counts.
        @param sockets: those of all look-ups.
        """
        self.server: HostPort | None = None
        self._reactor = reactor
        self._question = question
        self._servers = servers
        self._timeout = timeout
        self._opener = opener
        self._trusted = trusted
        self._sockets = sockets or SocketCount(_MAX_TRIES)
        self._tries = min(_MAX_TRIES, max(_MIN_TRIES, 2 * len(servers)))
        self._interval = timeout / self._tries
        self._begun = 0
        self._edns = True
        self._heard = False
        self._running: list[_Try] = []
        self._next_call: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._troubles: dict[str, None] = {}  # each once, in order
        self._result: Deferred[Answer] | None = None

    def start(self) -> Deferred[Answer]:
        """Ask.

        @return: fires with the answer; fails with L{DNSError}, always a temporary one. Cancelling
            it closes every socket.
        """
        result: Deferred[Answer] = Deferred(lambda _: self._finish(Failure(CancelledError())))
        self._result = result
        self._deadline = self._reactor.callLater(self._timeout, self._expired)
        self._begin_try()
        return result

    def _begin_try(self) -> None:
        self._next_call = None
        if self._begun >= self._tries:
            return
        server = self._servers[self._begun % len(self._servers)]
        self._begun += 1
        if self._begun < self._tries:
            self._next_call = self._reactor.callLater(self._interval, self._begin_try)
        if self._sockets.opened >= self._sockets.many:
            for silent in [one for one in self._running if isinstance(one, _DatagramTry)]:
                self._end_try(silent)
        self._run(_DatagramTry, server)

    def _run(self, kind: Callable[..., _Try], server: HostPort) -> None:
        query = make_query(self._question, edns=self._edns)
        attempt = kind(self._reactor, query, server, self._opener, self._answered, self._failed)
        self._running.append(attempt)
        self._sockets.opened += 1
        attempt.start()

    def _answered(self, attempt: _Try, response: dns.message.Message) -> None:
        self._heard = True
        if response.flags & dns.flags.TC and not isinstance(attempt, _StreamTry):
            self._end_try(attempt)
            self._run(_StreamTry, attempt.server)
            return
        answer = read_answer(response, trusted=attempt.server in self._trusted)
        if answer is not None:
            self.server = attempt.server
            self._finish(answer)
            return
        rcode = response.rcode()
        if rcode == dns.rcode.FORMERR:
            self._edns = False  # RFC 6891, 7: a server that knows no EDNS
        words = "gave a malformed answer"
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            words = f"answered {dns.rcode.to_text(rcode)}"
        self._failed(attempt, f"{attempt.server} {words}")

    def _failed(self, attempt: _Try, trouble: str) -> None:
        self._end_try(attempt)
        self._troubles[trouble] = None
        if self._begun < self._tries:
            if self._next_call is not None:
                self._next_call.cancel()
            self._begin_try()
        elif not self._running:
            self._finish(self._error())

    def _end_try(self, attempt: _Try) -> None:
        self._running.remove(attempt)
        self._sockets.opened -= 1
        attempt.stop()

    def _expired(self) -> None:
        self._deadline = None
        self._troubles[f"no answer within {self._timeout:g} seconds"] = None
        self._finish(self._error())

    def _error(self) -> Failure:
        trouble = "; ".join(self._troubles)
        domain = self._question.name.to_text(omit_final_dot=True)
        text = f"the look-up of {self._question} failed: {trouble}"
        return Failure(DNSError(domain, text, unanswered=not self._heard))

    def _finish(self, outcome: Answer | Failure) -> None:
        for call in (self._next_call, self._deadline):
            if call is not None and call.active():
                call.cancel()
        running, self._running = self._running, []
        self._sockets.opened -= len(running)
        for attempt in running:
            attempt.stop()
        result, self._result = self._result, None
        if result is not None:
            if isinstance(outcome, Failure):
                result.errback(outcome)
            else:
                result.callback(outcome)


class _Try(ABC):
    """One query to one server.

    C{answered} and C{failed} are called at most once together, and not after C{stop}.
    """

    def __init__(
        self,
        reactor: Any,
        query: dns.message.Message,
        server: HostPort,
        opener: OpenSocket,
        answered: Callable[[Any, dns.message.Message], None],
        failed: Callable[[Any, str], None],
    ) -> None:
        self.server = server
        self._reactor = reactor
        self._query = query
        self._opener = opener
        self._on_answered = answered
        self._on_failed = failed
        self._stopped = False

    @abstractmethod
    def start(self) -> None:
        """Send the query."""

    def stop(self) -> None:
        """Be silent from now on and close the socket."""
        self._stopped = True
        self._release()

    @abstractmethod
    def _release(self) -> None:
        """Close what was opened."""

    def _received(self, data: bytes) -> bool:
        """Take octets that may be the answer; say whether they were."""
        if self._stopped:
            return False
        response = read_response(self._query, data)
        if response is None:
            return False
        self._on_answered(self, response)
        return True

    def _fail(self, trouble: str) -> None:
        if not self._stopped:
            self._on_failed(self, trouble)


class _DatagramTry(_Try):
    """A query over UDP from a port of its own."""

    _socket: DatagramSocket | None = None

    def start(self) -> None:
        """Send it."""
        try:
            self._socket = DatagramSocket(
                self._reactor, self.server, self._received, self._unreachable, self._opener
            )
            self._socket.send(self._query.to_wire())
        except OSError as error:
            self._fail(f"{self.server} cannot be asked: {error.strerror or error}")

    def _release(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()

    def _unreachable(self, why: str) -> None:
        self._fail(f"{self.server} cannot be asked: {why}")


class _StreamTry(_Try):
    """A query over TCP, for an answer that was too large for a datagram (RFC 7766)."""

    _connecting: Deferred[Any] | None = None
    _stream: _Stream | None = None

    def start(self) -> None:
        """Connect and send it."""
        kind = TCP6ClientEndpoint if ":" in self.server.host else TCP4ClientEndpoint
        endpoint = kind(self._reactor, self.server.host, self.server.port)
        self._stream = _Stream(self._query.to_wire(), self._stream_received, self._stream_lost)
        self._connecting = connectProtocol(endpoint, self._stream)
        self._connecting.addErrback(self._not_connected)

    def _release(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        stream, self._stream = self._stream, None
        if stream is not None and stream.transport is not None:
            stream.transport.abortConnection()  # type: ignore[attr-defined]

    def _stream_received(self, data: bytes) -> None:
        # One connection, one question: anything but its answer is a defect of the server.
        if not self._received(data):
            self._fail(f"{self.server} answers something else")

    def _stream_lost(self) -> None:
        self._fail(f"{self.server} closed the connection")

    def _not_connected(self, failure: Failure) -> None:
        self._connecting = None
        self._fail(f"{self.server} cannot be reached over TCP: {failure.getErrorMessage()}")


class _Stream(Protocol):
    """One query and one answer, each behind its length (RFC 1035, 4.2.2)."""

    def __init__(
        self, query: bytes, received: Callable[[bytes], None], lost: Callable[[], None]
    ) -> None:
        self._query = query
        self._received: Callable[[bytes], None] | None = received
        self._lost = lost
        self._buffer = bytearray()

    def connectionMade(self) -> None:
        """Ask."""
        assert self.transport is not None
        self.transport.write(struct.pack("!H", len(self._query)) + self._query)

    def dataReceived(self, data: bytes) -> None:
        """Gather the answer; what follows it is not looked at."""
        if self._received is None:
            return
        self._buffer += data
        if len(self._buffer) < 2:
            return
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) >= end:
            received, self._received = self._received, None
            received(bytes(self._buffer[2:end]))

    def connectionLost(self, reason: Failure = _done) -> None:
        """Nothing more will come."""
        if self._received is not None:
            self._received = None
            self._lost()
