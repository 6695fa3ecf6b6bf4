"""One client's session: from its greeting to the line in the log.

The SOCKS5 machine says what the client wants; the session asks the checker, the rules, the limits
and the dialer, and answers. Once the destination is connected, a relay carries the stream.

A client that closes its side before CONNECT is answered has left: what was begun for it is
cancelled. At no time is a session without a deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet import interfaces
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.logins import check_login, user_name
from kumotwist.proxy.certificate import tls_trouble
from kumotwist.proxy.names import client_of, resolve_name
from kumotwist.proxy.outgoing import describe, ip_of, read_ip, rep_for
from kumotwist.proxy.route import Refusal, choose_route
from kumotwist.proxy.shared import SharedByProxy
from kumotwist.proxy.timing import TimedSession
from kumotwist.settings.types import IPAddress
from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.replies import one_line
from kumotwist.wire.socks5.format import Address, Rep, ip_text, unmapped
from kumotwist.wire.socks5.server import (
    BindRequest,
    ConnectRequest,
    Credentials,
    Event,
    MethodsOffered,
    SOCKS5Server,
)

__all__ = ["ProxySession"]

#: A client that has sent this much ahead of a reply is not read any further until it is answered.
_EARLY = 64 * 1024

_log = Logger()


@implementer(interfaces.IHalfCloseableProtocol, interfaces.IHandshakeListener)
class ProxySession(TimedSession):
    """The protocol on a client's transport."""

    # Most sessions never set most of these, so that they are not set when one begins.
    _outcome: str | None = None
    _user: str | None = None
    _source: str | None = None
    _counted_for: str | None = None
    _waits_for: str | None = None
    _paused = False
    _destination: Address | None = None
    _waiting: Deferred[Any] | None = None
    _encrypted = False

    def __init__(self, shared: SharedByProxy) -> None:
        self._shared = shared
        self._machine: SOCKS5Server | None = SOCKS5Server(
            check_login=shared.checker is not None,
            require_login=shared.settings.require_auth,
            allow_names=shared.settings.allow_names,
        )
        self._said: list[bytes] = []

    # -- the transport's calls -------------------------------------------------------------------

    def connectionMade(self) -> None:
        shared = self._shared
        transport: Any = self.transport
        self._started = shared.clock.seconds()
        shared.counters.accepted += 1
        shared.counters.active += 1
        shared.sessions.add(self)
        self._client, self._client_name = client_of(transport)
        if shared.counters.active > shared.settings.max_connections:
            shared.counters.turned_away += 1
            self.abort("turned away: max_connections are connected")
            return
        self._time_begins()

    def handshakeCompleted(self) -> None:
        self._encrypted = True

    def dataReceived(self, data: bytes) -> None:
        machine = self._machine
        if machine is None:
            if self._relay is not None:
                self._relay.from_client(data)
            return
        event = machine.receive_message(data)
        if event is not None:
            self._answer(event)
            if self._said:
                self._flush()
            return
        try:
            machine.receive_data(data)
        except RemoteProtocolError as error:
            self._break_off(f"protocol error: {error}")
        else:
            self._pump()

    def readConnectionLost(self) -> None:
        if self._relay is not None:
            self._relay.client_done()
        else:
            self._break_off("the client left")

    def writeConnectionLost(self) -> None:
        """Nothing to do: it was this side that closed it."""

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        if self._relay is not None:
            self._relay.client_lost(reason)
            return
        if interfaces.ISSLTransport.providedBy(self.transport) and not self._encrypted:
            self._shared.counters.tls_failures += 1
            why = one_line(tls_trouble(reason.value), 200)
            self._outcome = self._outcome or f"TLS handshake failed: {why}"
        self._give_up_waiting()
        self._end(self._outcome or "the client left")

    # -- the conversation ------------------------------------------------------------------------

    def _pump(self) -> None:
        """Answer what the client has said so far, in one write."""
        machine = self._machine
        while machine is not None and not machine.is_closed:
            try:
                event = machine.next_event()
            except RemoteProtocolError as error:
                self._break_off(f"protocol error: {error}")
                return
            if event is NEED_DATA:
                if machine.pending >= _EARLY and not self._paused:
                    self._paused = True
                    transport: Any = self.transport
                    transport.pauseProducing()
                break
            self._answer(event)
            machine = self._machine
            if machine is not None and not machine.pending:
                break
        self._flush()

    def _answer(self, event: Event) -> None:
        machine = self._machine
        assert machine is not None
        if isinstance(event, MethodsOffered):
            self._said.append(machine.choose_method())
            if machine.is_closed:
                self._close(self._shared.why_no_method(event.methods))
        elif isinstance(event, (ConnectRequest, BindRequest)):
            if self._shared.draining:
                self._refuse(Rep.GENERAL_FAILURE, "the proxy shuts down")
            elif isinstance(event, ConnectRequest):
                self._connect(event.destination)
            else:
                self._bind(event.source)
        elif isinstance(event, Credentials):
            self._check(event)
        else:
            self._give_up_waiting()
            self._refuse(event.rep, event.problem)

    def _check(self, login: Credentials) -> None:
        self._user = user_name(login.username)
        checker = self._shared.checker
        assert checker is not None
        if not login.username:
            self._refuse_login("a login without a name")
            return
        waiting = check_login(checker, login.username, login.password)
        self._wait(waiting, self._login_right, self._login_wrong)

    def _login_right(self, _: object) -> None:
        assert self._machine is not None
        self._said.append(self._machine.answer_login(True))

    def _login_wrong(self, failure: Failure) -> None:
        if failure.check(UnauthorizedLogin) is None:
            _log.failure("{proxy}: logins cannot be checked", failure, proxy=self._shared.title)
        self._refuse_login("login refused")

    def _refuse_login(self, outcome: str) -> None:
        assert self._machine is not None
        self._shared.counters.logins_refused += 1
        self._said.append(self._machine.answer_login(False))
        self._close(outcome)

    def _bind(self, asked: Address) -> None:
        assert self._machine is not None
        assert not isinstance(asked.host, str)
        host = unmapped(asked.host)
        local = asked if host is asked.host else Address(host, asked.port)
        text = local.sockaddr[0]
        if int(host):  # else the choice is left to the system
            self._source = text
            decision = self._shared.rules.decide_source(self._user, self._client, host)
            if not decision.allowed:
                self._refuse(Rep.NOT_ALLOWED, f"source refused by {decision.rule}")
                return
        try:
            self._outgoing = self._shared.dialer.bind(local)
        except OSError as error:
            self._source = text
            self._refuse(Rep.GENERAL_FAILURE, f"cannot bind {text}: {describe(error)}")
            return
        self._said.append(self._machine.bound(self._outgoing.local))

    def _connect(self, destination: Address) -> None:
        self._destination = destination
        host = destination.host
        if isinstance(host, str):
            waiting = resolve_name(self._shared.resolver, host)
            self._wait(waiting, self._name_resolved, self._not_resolved)
        else:
            self._connect_to_one_of((unmapped(host),))

    def _name_resolved(self, addresses: Sequence[IPAddress]) -> None:
        if not addresses:
            self._refuse(Rep.HOST_UNREACHABLE, "the host name has no address")
        elif self._shared.draining:
            self._refuse(Rep.GENERAL_FAILURE, "the proxy shuts down")
        else:
            self._connect_to_one_of(addresses)

    def _connect_to_one_of(self, addresses: Sequence[IPAddress]) -> None:
        """Connect to the first address that source and rules permit."""
        shared = self._shared
        assert self._destination is not None
        port = self._destination.port
        bound = None if self._outgoing is None else ip_of(self._outgoing.local)
        dialer = shared.dialer if shared.source_matters else None
        route = choose_route(dialer, shared.rules, self._user, self._client, bound, addresses, port)
        if isinstance(route, Refusal):
            self._refuse(route.rep, route.reason)
            return
        if route.destination is not self._destination.host:
            self._destination = Address(route.destination, port)
        if route.source is None or self._count_for(self._source or ip_text(route.source)):
            self._connect_from(route.source, self._destination)

    def _count_for(self, source: str) -> bool:
        """Count the connection for its source; if that is too much, let it wait or refuse it."""
        shared = self._shared
        self._source = source
        excess = shared.limits.acquire(source)
        if excess is None:
            self._counted_for = source
        elif shared.turns is None:
            self._refuse(Rep.NOT_ALLOWED, f"refused by the limit: {excess}")
        else:
            self._waits_for = source
            self._give_time(shared.turns, lambda: self._no_turn(excess))
            shared.limits.wait(source, self, self._has_turn)
        return excess is None

    def _has_turn(self) -> None:
        """A connection was counted for this session, which had to wait for it."""
        source, self._waits_for = self._waits_for, None
        assert source is not None
        assert self._destination is not None
        self._counted_for = source
        if self._shared.draining:
            self._refuse(Rep.GENERAL_FAILURE, "the proxy shuts down")
        else:
            self._connect_from(read_ip(source), self._destination)
        self._pump()

    def _no_turn(self, excess: str) -> None:
        self._give_up_waiting()
        self._refuse(Rep.TTL_EXPIRED, f"timeout: waited for the limit: {excess}")
        self._flush()

    def _connect_from(self, source: IPAddress | None, destination: Address) -> None:
        outgoing = self._outgoing
        if outgoing is None:
            try:
                dialer = self._shared.dialer
                if source is None:
                    outgoing = dialer.open(destination)
                else:
                    outgoing = dialer.bind(Address(source, 0))
            except OSError as error:
                # Where nobody has chosen a source, nothing but the socket was asked for.
                what = "make a socket" if source is None else f"bind {source}"
                self._refuse(Rep.GENERAL_FAILURE, f"cannot {what}: {describe(error)}")
                return
            self._outgoing = outgoing
        self._time_to_connect()
        outgoing.connect(destination, self._settled)

    def _connect_timed_out(self) -> None:
        self._give_up_waiting()
        self._refuse(Rep.TTL_EXPIRED, "timeout: the destination did not answer")
        self._flush()

    def _not_resolved(self, failure: Failure) -> None:
        _log.failure("{proxy}: a defect in resolving names", failure, proxy=self._shared.title)
        self._refuse(Rep.GENERAL_FAILURE, "cannot resolve: a defect in the proxy")

    def _settled(self, error: OSError | None) -> None:
        """The destination cannot be connected, or is: the reply goes out, then its octets come."""
        self._connecting = False
        if error is not None:
            self._refuse(rep_for(error), f"cannot connect: {describe(error)}")
            return
        machine, outgoing = self._machine, self._outgoing
        assert machine is not None
        assert outgoing is not None
        transport: Any = self.transport
        local = outgoing.local
        reply = b"".join((*self._said, machine.connected(local)))
        self._said.clear()
        early = machine.trailing_data
        self._machine = None
        self._shared.counters.outbound += 1
        if self._counted_for is None:
            # Only where there are no limits, so it is never refused.
            self._count_for(local.sockaddr[0])
        if self._paused:
            transport.resumeProducing()
        self._relay = self._shared.make_relay(transport, outgoing, self._end, self._parted)
        if self._limit is not self._shared.early:
            self._lasts()
        self._relay.start(early, reply)

    # -- waiting for something outside the machine -----------------------------------------------

    def _wait(
        self,
        waiting: Deferred[Any],
        succeeded: Callable[[Any], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Go on when C{waiting} has fired; until then the machine reads no further."""
        self._waiting = waiting

        def go_on(result: Any) -> None:
            if self._waiting is not waiting:
                return  # given up: a cancellation, or a result that nobody needs any more
            self._waiting = None
            if isinstance(result, Failure):
                failed(result)
            else:
                succeeded(result)
            self._pump()

        waiting.addBoth(go_on)

    def _give_up_waiting(self) -> None:
        """Cancel what is under way; whatever comes of it is ignored."""
        source, self._waits_for = self._waits_for, None
        if source is not None:
            self._shared.limits.give_up(source, self)
        if self._connecting and self._outgoing is not None:
            self._connecting = False
            self._outgoing.close()
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()

    # -- endings ---------------------------------------------------------------------------------

    def abort(self, outcome: str) -> None:
        """End the session now, whatever it does; C{outcome} says why."""
        if self._relay is not None:
            self._relay.abort(outcome)
        else:
            self._outcome = self._outcome or outcome
            self._machine = None
            self._give_up_waiting()
            transport: Any = self.transport
            transport.abortConnection()

    def _refuse(self, rep: Rep, outcome: str) -> None:
        assert self._machine is not None
        self._shared.counters.count_refusal(rep)
        self._said.append(self._machine.refuse(rep))
        self._close(f"REP {rep:02d}: {outcome}")

    def _close(self, outcome: str) -> None:
        """Say what is left to be said, then close; the client has C{timeout} to take it."""
        self._outcome = self._outcome or outcome
        self._machine = None
        self._flush()
        self._close_outgoing()
        self._give_time(self._shared.phases, self._closing_timed_out)
        transport: Any = self.transport
        transport.loseConnection()

    def _closing_timed_out(self) -> None:
        self.abort("timeout: the last words were not taken")

    def _break_off(self, outcome: str) -> None:
        self._give_up_waiting()
        self._close(outcome)

    def _close_outgoing(self) -> None:
        if self._outgoing is not None and self._relay is None:  # which has its socket
            self._outgoing.close()
        counted_for, self._counted_for = self._counted_for, None
        if counted_for is not None:
            self._shared.limits.release(counted_for)

    def _end(self, outcome: str) -> None:
        """Every connection is gone: count, and write the session's line."""
        shared = self._shared
        if self._limit is not None:
            self._limit.stop(self)
        if self._deadline is not None:
            self._stop_deadline()
        self._close_outgoing()
        shared.counters.active -= 1
        relay = self._relay
        if relay is None:
            shared.counters.failed += 1
        else:
            shared.counters.completed += 1
        shared.log.ended(
            {
                "proxy": shared.title,
                "client": self._client_name,
                "user": "-" if self._user is None else one_line(self._user, 255),
                "source": self._source or "-",
                "destination": "-" if self._destination is None else self._destination.text,
                "to_destination": relay.to_destination if relay else 0,
                "to_client": relay.to_client if relay else 0,
                "seconds": shared.clock.seconds() - self._started,
                "outcome": outcome,
            }
        )
        shared.forget(self)

    # -- small things ----------------------------------------------------------------------------

    def _flush(self) -> None:
        if self._said:
            transport: Any = self.transport
            said, self._said = self._said, []
            transport.write(said[0] if len(said) == 1 else b"".join(said))
