"""The protocol of a listener: pumps the server's machine, asks the reception, keeps the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.smtp import server_replies as say
from kumotwist.smtp.server_arrival import ServerArrival, host_port
from kumotwist.smtp.server_auth import LoginAttempts
from kumotwist.smtp.server_connection import LINGER
from kumotwist.tls.facts import tls_facts
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.events import (
    PAUSED,
    Auth,
    AuthResponse,
    BadCommand,
    Chunk,
    DataBegin,
    Event,
    Hello,
    Mail,
    MessageReceived,
    MessageRefused,
    Quit,
    Rcpt,
    StartTLS,
    Transaction,
    XClient,
)
from kumotwist.wire.smtp.replies import Reply, one_line

if TYPE_CHECKING:
    from kumotwist.smtp.listener import ESMTPListenerFactory

__all__ = ["ESMTPServerProtocol"]

Answer = Reply | Deferred[Reply | None] | Deferred[Reply] | None


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class ESMTPServerProtocol(ServerArrival):
    """One session.

    Commands are handled in a plain loop and their replies leave in one write. The loop stops where
    the reception wants time, or where the client does not take our replies; then no more is read
    than has already arrived.

    @param listener: the factory, which owns what the sessions share.
    @param tls: whether the connection begins with a handshake.
    """

    def __init__(self, listener: ESMTPListenerFactory, *, tls: bool) -> None:
        super().__init__(listener, tls=tls)
        self._reception = listener.reception
        # What the reception takes its time for, which event that is the answer to, and what to do
        # with it.
        self._pending: Deferred[Any] | None = None
        self._asked: Event | None = None
        self._then: Callable[[Reply | None], None] = self._welcome
        self._at_once = False
        self._leaving: Reply | None = None
        self._charged = 0
        self._data_deadline = 0.0
        self._session_deadline = 0.0
        self._welcomed = False

    # -- the connection ------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Ask the reception, then greet."""
        listener = self._listener
        self._begin(host_port(self.transport.getPeer()), host_port(self.transport.getHost()))
        self.transport.registerProducer(self, True)
        self._session_deadline = listener.reactor.seconds() + self._settings.session_timeout
        refusal = listener.admit(self)
        if refusal is not None:
            self._said_goodbye = True  # no lingering: there are too many already
            self._welcome(refusal)
            return
        self._arrive()

    def _entered(self) -> None:
        self._consider(self._question(self._reception.connected), self._welcome)

    def _welcome(self, reply: Reply | None) -> None:
        """Greet, or say why not."""
        self._welcomed = True
        if reply is None:
            self._out.append(self._machine.greeting())
            self._pump()
        else:
            self._hang_up(reply)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._preamble is not None:
            self._read_preamble(self._preamble, data)
            return
        machine = self._machine
        if machine.closed:
            return
        machine.receive_data(data)
        if self._pending is not None or self._blocked or not self._welcomed:
            self._read(False)
        else:
            self._pump(progress=False)

    def readConnectionLost(self) -> None:
        """The client has closed its side; it may still wait for the answer to its message."""
        self._input_ended = True
        if self._closing:
            self.transport.loseConnection()
        elif self._pending is None:
            self._close()

    def writeConnectionLost(self) -> None:
        """Our side is closed, as was asked for."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits for an answer any more."""
        self._timer.stop()
        self._closing = True
        if self._tls_begun and self.session.tls is None:
            self._log.info(
                "{listener}: no TLS with {peer}: {reason}",
                listener=self.session.listener,
                peer=str(self.session.peer),
                reason=one_line(reason.getErrorMessage(), 200),
            )
        self._machine.stop()
        if self._pending is not None:
            self._cancel()
        if self._charged:
            self._charge(0)
        self._listener.forget(self)

    def handshakeCompleted(self) -> None:
        """TLS is in use."""
        facts = tls_facts(self.transport)
        self.session = attrs.evolve(self.session, tls=facts)
        if facts is not None and facts.peer_subject:
            self._log.info(
                "{listener}: {peer} has shown the certificate of {subject}",
                listener=self.session.listener,
                peer=str(self.session.peer),
                subject=one_line(facts.peer_subject, 200),
            )

    # -- the loop ------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._welcomed and self._pending is None and not self._closing:
            self._pump()

    def _pump(self, *, progress: bool = True) -> None:
        """Handle what has arrived, as far as that is possible now.

        @param progress: whether the client's patience begins anew even if there is no whole
            command yet.
        """
        while self._machine.input.buffer and not self._blocked and not self._machine.closed:
            event = self._machine.next_event()
            if event is NEED_DATA or event is PAUSED:
                break
            progress = True
            kind, reply = type(event), event.reply
            if self._leaving is not None and kind not in _ENDS:
                self._answer(event, self._leaving)
            elif kind not in _JUDGE or (reply.code >= 400 and kind not in _LOGINS):
                self._answer(event, reply)
            elif not _JUDGE[kind](self, event):
                break
        if self._out:
            self._flush()
        if self._machine.closed:
            self._close()
        elif self._pending is None:
            if self._leaving is say.SHUTTING_DOWN and self._between_messages:
                # The client may have nothing more to say, and would be waited for in vain.
                self._hang_up(say.SHUTTING_DOWN)
            else:
                self._await_input(progress)

    def _await_input(self, progress: bool) -> None:
        """Go on reading, and say how long the client may take.

        Octets of a message extend its time, up to a limit; octets of a command do not.
        """
        if self._input_ended:
            self._close()
            return
        if self._blocked is self._reading:
            self._read(not self._blocked)
        if not (progress or self._machine.in_body):
            return
        now = self._listener.reactor.seconds()
        deadline = now + self._settings.client_timeout
        if self._machine.receiving:
            deadline = min(deadline, self._await_message(now))
        else:
            self._data_deadline = 0.0
            if self._charged:
                self._charge(0)
        if now > self._session_deadline:
            self._leaving = say.TOO_LONG
        self._timer.allow_until(deadline)

    def _await_message(self, now: float) -> float:
        """Look at what has come of a message.

        @return: when all of it has to be there.
        """
        machine = self._machine
        self._data_deadline = self._data_deadline or now + self._settings.data_timeout
        octets = machine.body_octets
        if octets != self._charged:
            self._charge(octets)
        if octets and self._listener.budget.exceeded:
            machine.refuse_body(say.NO_ROOM)
            self._charge(0)
        return self._data_deadline

    def _answer(self, event: Event, reply: Reply) -> None:
        if reply.code >= 400:
            self._refused(reply, event.command, event)
        self._out.append(self._machine.answer(reply))

    def _refused(self, reply: Reply, command: str, event: Event | None = None) -> None:
        if reply is say.TOO_MANY_CONNECTIONS:
            return  # whoever opens thousands of connections shall not fill the records as well
        command = one_line(command, 512)
        sender, recipients = _envelope(event, self._machine.transaction)
        self._reception.rejected(self.session, reply, command, sender, recipients)
        if reply.code == 421:
            self._log.info(
                "{listener}: sent {peer} away: {reply}",
                listener=self.session.listener,
                peer=str(self.session.peer),
                reply=str(reply),
            )

    def _question(self, question: Callable[..., Answer], *facts: Any) -> Answer:
        """Put a question to the reception; a defect in it is an answer, too."""
        try:
            return question(self.session, *facts)
        except Exception:
            return self._defect()

    def _defect(self) -> Reply:
        self._log.failure("the reception failed")
        return self._trouble

    def _consider(self, answer: Answer, then: Callable[[Reply | None], None]) -> bool:
        """Go on with an answer of the reception, now or when it is there.

        @return: whether it was there.
        """
        if answer is None or not isinstance(answer, Deferred):
            then(answer)
            return True
        self._pending = answer
        self._then = then
        self._at_once = True
        answer.addBoth(self._settled, answer)
        self._at_once = False
        if self._pending is None:
            return True
        self._timer.allow(self._settings.data_processing_timeout)
        return False

    def _settled(self, result: Reply | Failure | None, answer: Deferred[Any]) -> None:
        """An answer of the reception is there."""
        if self._pending is not answer:
            return  # nobody waits for it any more
        self._pending = None
        if type(result) is not Reply and isinstance(result, Failure):
            self._log.failure("the reception failed", result)
            result = self._trouble
        self._then(result)
        if not self._at_once:
            self._pump()

    def _answer_asked(self, reply: Reply | None) -> None:
        """Answer the event that the reception was asked about."""
        event, self._asked = self._asked, None
        assert event is not None
        self._answer(event, event.reply if reply is None else reply)

    @property
    def _trouble(self) -> Reply:
        return say.BROKEN if self._welcomed else say.NOT_READY

    def _cancel(self) -> None:
        """Tell the reception that nobody waits for its answer any more."""
        pending, self._pending = self._pending, None
        assert pending is not None
        pending.cancel()

    def _charge(self, octets: int) -> None:
        """Say how many octets of a message this session holds now."""
        self._listener.budget.used += octets - self._charged
        self._charged = octets

    # -- what the events deserve: each returns whether the loop can go on ------------------------

    def _ask(self, event: Event, question: Callable[..., Answer], *facts: Any) -> bool:
        try:
            answer = question(self.session, *facts)
        except Exception:
            answer = self._defect()
        if answer is None:  # as nearly always
            self._out.append(self._machine.answer(event.reply))
            return True
        self._asked = event
        return self._consider(answer, self._answer_asked)

    def _judge_hello(self, event: Hello) -> bool:
        self.session = self.session.greeted(event.domain, extended=event.extended)
        self._answer(event, say.greets(event.reply, self.session.peer.host))
        return True

    def _judge_mail(self, event: Mail) -> bool:
        return self._ask(event, self._reception.sender, event.transaction)

    def _judge_rcpt(self, event: Rcpt) -> bool:
        session = self.session
        # Anybody may write to <postmaster> (RFC 5321, 4.5.1): the reception knows who that is.
        if not session.may_relay and "@" in event.recipient.address:
            refusal = self._terms.relay.refusal(session.peer.host, event.recipient.address)
            if refusal is not None:
                self._answer(event, refusal)
                return True
        return self._ask(event, self._reception.recipient, event.transaction, event.recipient)

    def _judge_data(self, event: DataBegin) -> bool:
        reply = event.reply
        if event.early and not self.session.may_relay:
            # What follows was to be a message; read as commands it could smuggle one in.
            reply = say.EARLY
        elif not self._listener.budget.has_room(event.transaction.declared_size):
            reply = say.NO_ROOM
        self._answer(event, reply)
        return True

    def _judge_message(self, event: MessageReceived) -> bool:
        self._charge(len(event.transaction.body))
        self._asked = event
        answer = self._question(self._reception.receive, event.transaction)
        return self._consider(answer, self._answer_message)

    def _answer_message(self, reply: Reply | None) -> None:
        if self._charged:
            self._charge(0)
        self._answer_asked(say.BROKEN if reply is None else reply)

    def _judge_starttls(self, event: StartTLS) -> bool:
        self._answer(event, event.reply)
        self._flush()
        # RFC 3207, 4.2: of what was known of the client only its address is left.
        self.session = attrs.evolve(
            self.session,
            ehlo_domain="",
            extended=False,
            user="",
            may_relay=self._terms.relay.may_relay(self.session.peer.host),
        )
        self._tls_begun = True
        self.transport.startTLS(self._listener.tls_context_factory)
        return True

    def _judge_auth(self, event: Auth | AuthResponse) -> bool:
        if self._logins is None:
            if self._listener.authenticator is None:
                self._answer(event, event.reply)
                return True
            self._logins = LoginAttempts(self._listener.authenticator, self._logged_in)
        self._asked = event
        return self._consider(self._logins.answer(event), self._answer_asked)

    def _logged_in(self, user: str) -> None:
        self.session = attrs.evolve(self.session, user=user, may_relay=True)

    def _judge_xclient(self, event: XClient) -> bool:
        self._begin_for(event.facts)
        return self._consider(self._question(self._reception.connected), self._greet_again)

    def _greet_again(self, reply: Reply | None) -> None:
        """Greet whom XCLIENT spoke for, or say why not."""
        if reply is None:
            self._out.append(self._machine.greeting())
        else:
            self._refused(reply, "XCLIENT")
            self._out.append(self._machine.hang_up(reply))

    def _judge_quit(self, event: Quit) -> bool:
        self._said_goodbye = True
        self._answer(event, event.reply)
        return True

    # -- the end -------------------------------------------------------------------------------

    def drain(self) -> None:
        """End the session as soon as no message is under way."""
        self._leaving = say.SHUTTING_DOWN
        if self._between_messages:
            self._hang_up(say.SHUTTING_DOWN)

    @property
    def _between_messages(self) -> bool:
        machine = self._machine
        idle = machine.transaction is None and not machine.unread and not machine.owes_answer
        return idle and self._welcomed and not self._closing

    def abort(self) -> None:
        """End the session now."""
        self.transport.abortConnection()

    def _expired(self) -> None:
        """What was waited for has not come in time."""
        if self._preamble is not None:
            self._drop("no PROXY header in time")
        elif self._closing or self._blocked:
            self.transport.abortConnection()
        elif self._tls_begun and self.session.tls is None:
            self._refused(say.NO_HANDSHAKE, "")
            self.transport.abortConnection()
        elif self._pending is not None:
            self._cancel()
            self._then(say.SLOW_ANSWER if self._welcomed else say.NOT_READY)
            self._pump()
        elif self._machine.receiving and self._listener.reactor.seconds() >= self._data_deadline:
            self._hang_up(say.SLOW_DATA)
        else:
            self._hang_up(say.IDLE)

    def _hang_up(self, reply: Reply) -> None:
        """End the session unasked."""
        self._refused(reply, "")
        self._out.append(self._machine.hang_up(reply))
        self._flush()
        self._close()

    def _ended(self) -> None:
        self._machine.stop()
        if self._charged:
            self._charge(0)
        self._timer.allow(LINGER)


def _envelope(event: Event | None, current: Transaction | None) -> tuple[str, list[str]]:
    """What a refusal speaks of: the sender, and the recipients where they are the point.

    @param event: what is refused; L{None} for the session.
    @param current: the transaction under way.
    """
    if isinstance(event, BadCommand):
        return ("" if current is None else current.sender), []
    transaction = getattr(event, "transaction", current)
    if transaction is None:
        return "", []
    refused = [event.recipient] if isinstance(event, Rcpt) else transaction.recipients
    return transaction.sender, [recipient.address for recipient in refused]


_JUDGE: dict[type, Callable[[ESMTPServerProtocol, Any], bool]] = {
    Hello: ESMTPServerProtocol._judge_hello,
    Mail: ESMTPServerProtocol._judge_mail,
    Rcpt: ESMTPServerProtocol._judge_rcpt,
    DataBegin: ESMTPServerProtocol._judge_data,
    MessageReceived: ESMTPServerProtocol._judge_message,
    StartTLS: ESMTPServerProtocol._judge_starttls,
    Auth: ESMTPServerProtocol._judge_auth,
    AuthResponse: ESMTPServerProtocol._judge_auth,
    XClient: ESMTPServerProtocol._judge_xclient,
    Quit: ESMTPServerProtocol._judge_quit,
}

# What is answered as usual although the session is to end: a message that has come, and farewell.
_ENDS = frozenset({Chunk, MessageReceived, MessageRefused, Quit})

# What the wire machine has no answer of its own for.
_LOGINS = frozenset({Auth, AuthResponse})
