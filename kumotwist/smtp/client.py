"""The delivery side: a Twisted protocol around the client's SMTP machine.

One L{ESMTPClient} is one connection. It does one thing at a time, each a Deferred::

    await client.open()
    if client.capabilities.starttls:
        await client.start_tls(client_tls_options("mx.example.com", verify=True))
    outcome = await client.send(OutgoingTransaction(sender, recipients, body))
    client.quit()

What a server says about a message is in the outcome; what ends the session is an
L{SMTPSessionError}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.smtp.body import BodyProducer, send_body, send_chunk
from kumotwist.smtp.deadline import Deadline
from kumotwist.smtp.handshake import ClientHandshake
from kumotwist.smtp.login import mechanism_for
from kumotwist.smtp.session_errors import (
    PHASE_WORDS,
    SessionAuthError,
    SessionLost,
    SessionProtocolError,
    SessionRefused,
    SessionTimeout,
    SessionTLSError,
    SMTPSessionError,
    loss_words,
)
from kumotwist.smtp.timeouts import Timeouts
from kumotwist.tls.facts import TLSFacts
from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp import client_events as events
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.client import SMTPClient
from kumotwist.wire.smtp.dialect import DEFAULT_DIALECT, Dialect
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply, one_line
from kumotwist.wire.smtp.transaction import OutgoingTransaction, TransactionOutcome, phase_word

__all__ = [
    "ESMTPClient", "OutgoingTransaction", "SMTPSessionError", "SessionAuthError", "SessionLost",
    "SessionProtocolError", "SessionRefused", "SessionTLSError", "SessionTimeout", "Timeouts",
    "TransactionOutcome",
]  # fmt: skip  # fmt: skip


@implementer(IHandshakeListener)
class ESMTPClient(Protocol):
    """A session with a server: open, perhaps TLS, transactions one after another, QUIT.

    @ivar capabilities: what the server offers, by its last answer to EHLO.
    @ivar tls: the facts of the handshake; L{None} before C{start_tls} has succeeded.
    @ivar heard: whether a single octet has come from the other side. Behind a proxy that cannot
        report errors, silence may be the proxy's.
    @ivar messages_sent: transactions in which somebody got the message.
    @ivar failure: why the session has ended; L{None} while it has not, or if we said QUIT.
    @ivar on_idle_close: called once, without arguments, if the session ends while it is idle: the
        server closed it, said 421, or C{idle_timeout} has passed.
    """

    transport: Any  # more than C{ITransport} says

    def __init__(
        self,
        clock: IReactorTime,
        *,
        hostname: str,
        timeouts: Timeouts | None = None,
        peer_name: str = "",
        dialect: Dialect = DEFAULT_DIALECT,
    ) -> None:
        """
        @param clock: tells the time.
        @param hostname: what we call ourselves in EHLO: A-labels, or an address literal.
        @param timeouts: how long to wait for what.
        @param peer_name: the server's name, for logs.
        @param dialect: what to do where the server would have it.
        @raise LocalProtocolError: if C{hostname} cannot be said in EHLO.
        """
        self.tls: TLSFacts | None = None
        self.heard = False
        self.messages_sent = 0
        self.failure: SMTPSessionError | None = None
        self.on_idle_close: Any = None
        self._peer_name = peer_name
        self._timeouts = Timeouts() if timeouts is None else timeouts
        self._machine = SMTPClient(hostname, dialect)
        self._deadline = Deadline(clock, self._expired)
        self._armed_at = -1
        self._armed_for = Phase.BANNER
        # Who is told what comes of it: the result or a Failure.
        self._waiter: Callable[[Any], object] | None = None
        self._result: Any = None
        self._opened = self._ending = self._quits = False
        self._transaction: OutgoingTransaction | None = None
        self._producer: BodyProducer | None = None
        self._handshake: ClientHandshake | None = None

    def logPrefix(self) -> str:
        """What log lines about the connection begin with."""
        return ",".join(filter(None, ("ESMTPClient", self._peer_name)))

    # -- what the owner wants --------------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What the server offers."""
        return self._machine.capabilities

    @property
    def greeting(self) -> Reply | None:
        """The server's first reply, once it has come."""
        return self._machine.greeting

    @property
    def busy(self) -> bool:
        """Whether something is under way; only one thing can be."""
        return self._waiter is not None

    @property
    def usable(self) -> bool:
        """Whether a transaction can be sent, now or when C{busy} is over."""
        return self._opened and self.failure is None and not (self._ending or self._machine.closed)

    def open(self) -> Deferred[Capabilities]:
        """Wait for the greeting and the answer to EHLO; may be called at any time before.

        Fails with L{SMTPSessionError}.
        """
        if self.failure is not None:
            return fail(self.failure)
        if self._opened:
            return succeed(self.capabilities)
        return self._wait()

    def start_tls(self, options: IOpenSSLClientConnectionCreator) -> Deferred[TLSFacts]:
        """Say STARTTLS, do the handshake, say EHLO again (RFC 3207).

        Fails with L{SessionRefused} if the server does not want to (the session goes on in clear),
        with L{SessionTLSError} if the handshake fails or the certificate is not good, with
        another L{SMTPSessionError} if the session ends otherwise.

        @param options: from L{kumotwist.tls.client.client_tls_options}.
        """
        if not self.usable:
            return fail(self._unusable())
        self._machine.starttls()
        self._handshake = ClientHandshake(options)
        waiter: Deferred[TLSFacts] = self._wait()
        self._pump()
        return waiter

    def authenticate(self, username: str, password: str) -> Deferred[Reply]:
        """Log in with the best mechanism that both sides know (RFC 4954).

        Whether the connection is safe enough for that, the caller has to have looked. Fails with
        L{SessionAuthError} if there is no way to log in, with L{SessionRefused} if the server
        does not take the login, with another L{SMTPSessionError} if the session ends otherwise.
        """
        if not self.usable:
            return fail(self._unusable())
        try:
            mechanism = mechanism_for(self.capabilities, username, password)
        except SessionAuthError as failure:
            return fail(failure)
        waiter: Deferred[Reply] = self._wait()
        self._machine.authenticate(mechanism)
        self._pump()
        return waiter

    def send(self, transaction: OutgoingTransaction) -> Deferred[TransactionOutcome]:
        """Send a message to its recipients.

        Fails with L{SMTPSessionError} if the session ends before every recipient's fate is known;
        C{outcome} of it has what is known.

        @raise LocalProtocolError: if something else is under way.
        """
        sent: Deferred[TransactionOutcome] = Deferred(self._cancelled)
        self.transmit(transaction, sent.callback)  # a Failure makes it fail
        return sent

    def transmit(
        self,
        transaction: OutgoingTransaction,
        finished: Callable[[TransactionOutcome | Failure], object],
        last: bool = False,
    ) -> None:
        """Send a message as L{send} does, without a Deferred.

        @param last: whether nothing is to follow but QUIT, which is said ahead then if it may be.
        @param finished: called with the outcome, or with what L{send} fails with; maybe at once.
        """
        if not self.usable:
            finished(Failure(self._unusable()))
            return
        if self._waiter is not None:
            raise LocalProtocolError("another transaction is under way")
        self._result, self._waiter, self._transaction = None, finished, transaction
        try:
            self._machine.begin(transaction, last=last)
        except RemoteProtocolError as failure:
            self._broken(failure)
        said = self._machine.data_to_send()
        if said:  # then nothing has come of it yet
            self.transport.write(said)
            self._arm()
        else:
            self._pump()

    def quit(self) -> None:
        """End the session politely: QUIT, a short wait for its answer, close.

        Never blocks and never fails; what is under way is aborted.
        """
        if not self._ending:
            idle = self._machine.phase is Phase.IDLE and not (self.busy or self._machine.closed)
            (self._say_goodbye if idle else self.abort)()

    def abort(self) -> None:
        """End the session at once; what is under way fails with L{SessionLost}."""
        if not self._ending and self.failure is None:
            self._ending = True
            if self.busy:
                self._end(SessionLost, "the session was aborted")
        self._ending = True
        self._drop()
        self._fire()

    # -- Twisted ---------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """The connection is there: the server greets first."""
        if self._ending:
            self._drop()
            return
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self._arm()

    def dataReceived(self, data: bytes) -> None:
        """Something from the server."""
        self.heard = True
        if self._handshake is not None:  # application data means that the handshake is over
            self._handshake.shaking_hands = False
        self._machine.receive_data(data)
        self._pump()

    def handshakeCompleted(self) -> None:
        """TLS stands; the EHLO that waited for it is on its way."""
        if self._handshake is not None:
            self._handshake.shaking_hands = False
        self._arm()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, for whatever reason."""
        self._deadline.stop()
        self._stop_body()
        if self.failure is None and not self._ending:
            words = self._handshake and self._handshake.failure_words(reason.value)
            kind = SessionTLSError if words else SessionLost
            self._end(kind, words or loss_words(self._phase, reason.value), cause=reason.value)
        if self._handshake is not None and self.tls is not None:
            self._handshake.ended()
        if self._waiter is not None and self._result is None:
            self._result = Failure(self._unusable())
        self._fire()

    # -- events ----------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle everything that has happened, write once, then tell the owner."""
        try:
            while (event := self._machine.next_event()) is not NEED_DATA:
                if type(event) is events.Finished:
                    self._finished(event.outcome)
                elif type(event) is events.SendBody:
                    self._send_body(event.chunk)
                else:
                    self._happened(event)
        except RemoteProtocolError as failure:
            self._broken(failure)
        if self._machine.unsaid:
            self._write_out()
        if self._result is not None or self._waiter is None:
            self._fire()  # which may begin the next transaction
        self._arm()

    def _write_out(self) -> None:
        """Write what has to be said, if there is anything."""
        if self._machine.unsaid:
            self.transport.write(self._machine.data_to_send())

    def _happened(self, event: events.ClientEvent) -> None:
        """What is no part of a transaction."""
        if type(event) is events.Ready:
            self._ready()
        elif type(event) is events.Goodbye:
            self._close()
        elif isinstance(event, events.ProceedTLS):
            self._begin_tls()
        elif isinstance(event, events.Authenticated):
            self._result = event.reply
        elif isinstance(event, events.Refused):
            self._refused(event)
        elif isinstance(event, events.Closing):
            text = f"the server ended the idle session: {event.reply}"
            self.failure = SessionRefused(Phase.IDLE.value, text, reply=event.reply)
            self._close()

    def _ready(self) -> None:
        self._opened = True
        self._result = self.capabilities
        if self._handshake is not None and self._handshake.securing:
            self._result = self.tls = self._handshake.secured(self.transport)

    def _finished(self, outcome: TransactionOutcome) -> None:
        self._transaction = None
        self._result = outcome
        if outcome.results[0].delivered or any(result.delivered for result in outcome.results):
            self.messages_sent += 1
        if self._producer is not None:
            self._drop()  # refused before it was sent to the end
        elif self._machine.closed:
            self._close()
        elif self._machine.phase is Phase.QUIT:  # it was said behind the message
            self._quits = self._ending = True
            self._deadline.set(self._timeouts.quit_timeout)

    def _refused(self, event: events.Refused) -> None:
        text = f"the server refused while {PHASE_WORDS[event.phase]}: {event.reply}"
        failure = SessionRefused(event.phase.value, text, reply=event.reply)
        self._result = Failure(failure)
        if event.phase is not Phase.STARTTLS or self._machine.closed:
            self.failure = failure
            (self._close if self._machine.closed else self._say_goodbye)()

    def _begin_tls(self) -> None:
        self._machine.discard_plaintext()
        assert self._handshake is not None
        self._handshake.begin(self.transport)

    def _send_body(self, chunk: bool) -> None:
        assert self._transaction is not None
        send, machine = send_chunk if chunk else send_body, self._machine
        self._producer = send(
            self.transport, machine.data_to_send(), self._transaction.body, self._body_progressed,
            self._body_sent, plain=self._transaction.plain, behind=machine.farewell,
        )  # fmt: skip
        if self._producer is None:
            self._machine.body_sent()

    def _body_progressed(self) -> None:
        self._deadline.set(self._timeouts.data_block_timeout)

    def _body_sent(self) -> None:
        self._producer = None
        self._machine.body_sent()
        self._arm()

    def _stop_body(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.cancel()

    # -- the end ---------------------------------------------------------------------------------

    def _broken(self, failure: RemoteProtocolError) -> None:
        """The server does not follow the protocol."""
        words = PHASE_WORDS[self._phase]
        if self._ending:
            self._drop()
            return
        text = one_line(f"protocol error while {words}: {failure}", 400)
        self._end(SessionProtocolError, text, cause=failure)
        self._drop()

    def _expired(self) -> None:
        """Nothing has come in time."""
        if self._ending:
            self._drop()
            return
        phase = self._phase
        seconds = self._timeouts.of[phase]
        if phase is Phase.IDLE:
            self.failure = SessionTimeout(phase.value, f"idle for {seconds:g} s")
            self._say_goodbye()
            self._fire()
            return
        kind = SessionTLSError if self._is_shaking_hands else SessionTimeout
        self._end(kind, f"timed out after {seconds:g} s while {PHASE_WORDS[phase]}")
        self._drop()
        self._fire()

    def _end(
        self, kind: type[SMTPSessionError], text: str, *, cause: BaseException | None = None
    ) -> None:
        """Let the session be over; what is under way gets the error, or the outcome it has."""
        phase = self._phase
        outcome = self._machine.abandon(Reply.of(421, "4.4.2", text))
        self.failure = kind(phase_word(phase), text, outcome=outcome)
        self.failure.__cause__ = cause
        if self._result is None:  # else it ended well before this happened
            decided = outcome is not None and outcome.complete
            self._result = outcome if decided else Failure(self.failure)

    def _unusable(self) -> SMTPSessionError:
        return self.failure or SessionLost(Phase.IDLE.value, "the session is not open")

    def _say_goodbye(self) -> None:
        """QUIT; the connection is closed by the answer, or by the deadline."""
        self._ending = True
        try:
            self._machine.quit()
        except RemoteProtocolError:
            self._drop()
            return
        self._write_out()
        self._deadline.set(self._timeouts.quit_timeout)

    def _close(self) -> None:
        """Close the connection, but not for ever: TLS would wait for the peer's goodbye."""
        self._ending = True
        self._deadline.set(self._timeouts.quit_timeout)
        self.transport.loseConnection()

    def _drop(self) -> None:
        """Close the connection at once."""
        self._ending = True
        self._deadline.stop()
        self._stop_body()
        if self.transport is not None:
            self.transport.abortConnection()

    # -- waiting ---------------------------------------------------------------------------------

    @property
    def _phase(self) -> Phase:
        return Phase.STARTTLS if self._is_shaking_hands else self._machine.phase

    @property
    def _is_shaking_hands(self) -> bool:
        return self._handshake is not None and self._handshake.shaking_hands

    def _arm(self) -> None:
        """Set the deadline when what is waited for has changed; a dripping reply moves nothing."""
        if self._ending or self.failure is not None:
            return
        machine = self._machine
        phase = machine.phase if self._handshake is None else self._phase
        if machine.replies == self._armed_at and phase is self._armed_for:
            return
        self._armed_at, self._armed_for = machine.replies, phase
        self._deadline.set(self._timeouts.of[phase])

    def _wait(self) -> Deferred[Any]:
        if self._waiter is not None:
            raise LocalProtocolError("something else is under way")
        self._result = None
        waiting: Deferred[Any] = Deferred(self._cancelled)
        self._waiter = waiting.callback  # a Failure makes it fail
        return waiting

    def _cancelled(self, _: Deferred[Any]) -> None:
        self._waiter = None
        self.abort()

    def _fire(self) -> None:
        """Tell the owner what has come out, at the end of a batch of events."""
        result, waiter = self._result, self._waiter
        if waiter is not None and result is None:
            return
        self._result = self._waiter = None
        if waiter is not None:
            if type(result) is TransactionOutcome and not (self.usable or self._quits):
                result = attrs.evolve(result, session_usable=False)
            waiter(result)
        elif self.failure is not None and self.on_idle_close is not None:
            told, self.on_idle_close = self.on_idle_close, None
            told()
