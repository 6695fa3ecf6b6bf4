"""The client's side of SMTP, without I/O (RFC 5321; RFC 2920; RFC 3207).

The owner feeds in what it receives and asks for events; what the machine wants said gathers until
it is taken with L{SMTPClient.data_to_send}, so that one batch of events becomes one write::

    machine.receive_data(data)
    while (event := machine.next_event()) is not NEED_DATA:
        ...
    transport.write(machine.data_to_send())

Replies are matched to commands strictly in order. The machine greets by itself: EHLO follows the
greeting, and again the handshake; HELO follows an EHLO that is not understood.
"""

from __future__ import annotations

import base64
import re
from collections import deque

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.smtp.asked import BODY, DATA, DOT, GREETING, QUIT, RSET, Asked
from kumotwist.wire.smtp.capabilities import NO_CAPABILITIES, Capabilities
from kumotwist.wire.smtp.client_events import (
    Authenticated,
    ClientEvent,
    Closing,
    Finished,
    Goodbye,
    ProceedTLS,
    Ready,
    Refused,
    SendBody,
)
from kumotwist.wire.smtp.dialect import DEFAULT_DIALECT, Dialect
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply, UnaskedReplyError
from kumotwist.wire.smtp.reply_reader import ReplyReader
from kumotwist.wire.smtp.sasl_client import Mechanism
from kumotwist.wire.smtp.transaction import (
    OutgoingTransaction,
    TransactionOutcome,
    TransactionProgress,
)

__all__ = [
    "Authenticated", "ClientEvent", "Closing", "Finished", "Goodbye", "ProceedTLS", "Ready",
    "Refused", "SMTPClient", "SendBody", "UnaskedReplyError",
]  # fmt: skip

#: Octets of a command line, its CRLF included (RFC 5321, 4.5.3.1.4).
_MAX_COMMAND = 512
#: The replies to MAIL, RCPT and DATA where everything goes well, each of one line; what is not
#: quite that is read reply by reply.
_GO_AHEAD = re.compile(rb"(?:2\d\d(?: [^\r\n]{0,500})?\r\n){2}3\d\d(?: [^\r\n]{0,500})?\r\n")
_SEND_BODY = SendBody()
_HELLO_NAME = re.compile(r"[!-~]{1,255}")


class SMTPClient:
    """One session with a server.

    @ivar capabilities: what the server offered in its last reply to EHLO.
    @ivar greeting: the server's first reply, whatever it says; L{None} before it has come.
    @ivar replies: how many replies have been read, for telling progress from dripping.
    @ivar closed: whether nothing more can be done with the session but to close the connection.
    @ivar unsaid: what L{data_to_send} hands out.
    """

    def __init__(self, hostname: str, dialect: Dialect = DEFAULT_DIALECT) -> None:
        """
        @param hostname: what we call ourselves in EHLO: a domain in A-labels or an address
            literal.
        @param dialect: what to do where the server would have it.
        @raise LocalProtocolError: if the name cannot be put into a command.
        """
        if _HELLO_NAME.fullmatch(hostname) is None:
            raise LocalProtocolError(f"{hostname!r} cannot be said in EHLO")
        self.capabilities = NO_CAPABILITIES
        self.greeting: Reply | None = None
        self.replies = 0
        self._hostname = hostname
        self._dialect = dialect
        self._lmtp = dialect.lmtp
        self._reader = ReplyReader()
        self._asked: deque[Asked] = deque((GREETING,))
        self.unsaid = b""
        self._event: ClientEvent | None = None
        self._progress: TransactionProgress | None = None
        self._pipelined = self._chunked = False
        # Whether MAIL, one RCPT and DATA have been said in one go, and nothing is answered yet.
        self._asked_at_once = False
        self._unasked_recipients: deque[int] = deque()
        self._needs_rset = self._last = False
        self._ready = False
        self._awaiting_tls = False
        self.closed = False
        self._mechanism: Mechanism | None = None
        self._response: bytes | None = None

    # -- in and out ------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What is being waited for."""
        if self._awaiting_tls:
            return Phase.STARTTLS
        return self._asked[0].phase if self._asked else Phase.IDLE

    def receive_data(self, data: bytes) -> None:
        """Take what the server sent. Nothing happens before L{next_event}."""
        if not self.closed:
            self._reader.receive_data(data)

    def next_event(self) -> ClientEvent | NeedData:
        """What has happened; L{NEED_DATA} when more has to be received first.

        @raise RemoteProtocolError: if the server does not follow the protocol; the session is
            L{closed} then. No other exception comes from what a server can send.
        """
        if self._event is not None:
            known, self._event = self._event, None
            return known
        if not self._reader.unread:
            return NEED_DATA
        if self._asked_at_once and (event := self._answered_at_once()) is not None:
            return event
        try:
            while not (self.closed or self._awaiting_tls):
                command = self._asked[0].command if self._asked else ""
                reply = self._reader.next_reply(command)
                if reply is None:
                    break
                self.replies += 1
                event = self._answered(reply)
                if event is not None:
                    return event
        except RemoteProtocolError:
            self.closed = True
            raise
        return NEED_DATA

    def data_to_send(self) -> bytes:
        """What has to be written now; it is handed out once."""
        unsaid, self.unsaid = self.unsaid, b""
        return unsaid

    # -- what the owner wants --------------------------------------------------------------------

    def starttls(self) -> None:
        """Ask for TLS; the answer is L{ProceedTLS} or L{Refused}."""
        self._require_idle()
        self._ask(Asked(Phase.STARTTLS, "STARTTLS"))

    def authenticate(self, mechanism: Mechanism) -> None:
        """Log in (RFC 4954); the answer is L{Authenticated} or L{Refused}.

        What is said does not become part of any C{Reply.command}.
        """
        self._require_idle()
        self._mechanism = mechanism
        self._response = mechanism.initial()
        verb = f"AUTH {mechanism.name}"
        line = verb
        if self._response is not None:
            line = f"{verb} {_wrapped(self._response) or '='}"
            if len(line) + 2 > _MAX_COMMAND:
                line = verb
            else:
                self._response = None
        self._ask(Asked(Phase.AUTH, verb if line == verb else f"{verb} ***"), line=line)

    def discard_plaintext(self) -> None:
        """Forget all that was said in clear, and make the EHLO of the encrypted session ready.

        @raise RemoteProtocolError: if the server, or somebody on the way, has sent more than its
            reply: it would be taken for the answer to what is said under TLS (CVE-2021-38371).
        """
        if not self._awaiting_tls:
            raise LocalProtocolError("the server is not waiting for a handshake")
        if not self._reader.is_empty:
            self.closed = True
            raise UnaskedReplyError("plain text behind the reply to STARTTLS")
        self._awaiting_tls = False
        self._ready = False
        self.capabilities = NO_CAPABILITIES
        self._needs_rset = False
        self._say_hello(self._greets_with)

    def begin(self, transaction: OutgoingTransaction, *, last: bool = False) -> None:
        """Send a message; the answer is L{SendBody}, if it comes to that, and L{Finished}.

        @param last: whether the session ends with it: then L{farewell} may follow the message.

        After a transaction that failed RSET goes first; if that is L{Refused}, nothing of the
        message has been sent.

        @raise RemoteProtocolError: if the server has said something that was not asked for.
        """
        if self.closed or not self._ready or self._asked or self._event is not None:
            self._require_idle()
        self._last = last
        if not transaction.recipients:
            raise LocalProtocolError("a transaction without recipients")
        progress = TransactionProgress(transaction, self.capabilities)
        if not progress.asked:
            self._event = Finished(progress.outcome())
            return
        if self._needs_rset:
            self._ask(RSET)
            self._progress = progress
        else:
            self._start(progress)

    @property
    def farewell(self) -> bytes:
        """What goes behind the last message: QUIT, if it may be said ahead (RFC 2920, 3.1)."""
        return b"QUIT\r\n" if self._last and self._pipelined and not self._lmtp else b""

    def body_sent(self) -> None:
        """The whole message has been handed to the transport, and what belongs behind it."""
        asked = self._asked
        if asked and asked[0] is BODY and not self._lmtp:  # as it is nearly always
            asked[0] = DOT
        elif self.phase is not Phase.BODY:
            raise LocalProtocolError("the server is not waiting for a message")
        else:
            answered = asked.popleft()
            answered = DOT if answered is BODY else answered._replace(phase=Phase.DOT)
            if self._lmtp and self._progress is not None:
                numbers = self._progress.accepted
                asked.extend([answered._replace(number=number) for number in numbers])
            else:
                asked.append(answered)
        if self._last and self.farewell:
            self._ready = False
            asked.append(QUIT)

    def quit(self) -> None:
        """Say QUIT; the answer is L{Goodbye}."""
        if self.closed or self._awaiting_tls or self._asked:
            raise LocalProtocolError(f"QUIT in the phase {self.phase.value}")
        self._ready = False
        self._ask(QUIT)

    def abandon(self, reply: Reply) -> TransactionOutcome | None:
        """The connection is gone, or will be: close the session.

        @param reply: a temporary reply of our own, which says why, for the recipients that have
            none.
        @return: the outcome of the transaction that was under way; L{None} if there was none,
            or nothing of it had been sent.
        """
        phase = self.phase
        self.closed = True
        progress, self._progress = self._progress, None
        if progress is None or phase is Phase.RSET:
            return None
        if self._asked:
            reply = reply._replace(command=self._asked[0].command)
        undecided = progress.cut_off(reply, phase, local=True)
        return progress.outcome(
            complete=not undecided,
            possible_duplicate=undecided and phase is Phase.DOT,
            usable=False,
        )

    def _require_idle(self) -> None:
        if self.closed or not self._ready or self._asked or self._event is not None:
            raise LocalProtocolError(f"the session is not free: phase {self.phase.value}")

    # -- commands --------------------------------------------------------------------------------

    def _ask(self, *asked: Asked, line: str = "") -> None:
        """Add commands to what is sent; between groups of commands the server has to be quiet.

        @param line: what is really sent, for a command that must not be shown as it is.
        """
        self._require_silence()
        self._asked.extend(asked)
        lines = f"{line}\r\n" if line else "".join([f"{item.command}\r\n" for item in asked])
        self.unsaid += lines.encode("utf-8")

    def _require_silence(self) -> None:
        if not self._asked and not self._reader.is_empty:
            self.closed = True
            raise UnaskedReplyError("the server has sent more replies than it was asked for")

    @property
    def _greets_with(self) -> str:
        return "LHLO" if self._lmtp else "EHLO"

    def _say_hello(self, verb: str) -> None:
        self._ask(Asked(Phase.EHLO, f"{verb} {self._hostname}"))

    def _start(self, progress: TransactionProgress) -> None:
        """Begin the dialogue of a transaction: whole if the server takes it so, or step by step."""
        self._pipelined = self._dialect.pipelining and self.capabilities.pipelining
        # BDAT waits for the replies to RCPT: it does not take longer than DATA that way, and the
        # message is not sent for nobody.
        by_chunks = self._dialect.chunking or progress.transaction.binary
        self._chunked = by_chunks and self.capabilities.chunking
        mail = Asked(Phase.MAIL, progress.mail)
        self._asked_at_once = self._pipelined and not self._chunked and len(progress.asked) == 1
        if self._asked_at_once:  # RCPT and DATA are noted when their replies are read one by one
            rcpt = progress.rcpt(progress.asked[0])
            self._require_silence()
            self._asked.append(mail)
            self.unsaid += f"{progress.mail}\r\n{rcpt}\r\nDATA\r\n".encode()
        elif self._pipelined:
            rcpts = [Asked(Phase.RCPT, progress.rcpt(index), index) for index in progress.asked]
            self._ask(mail, *rcpts, *(() if self._chunked else (DATA,)))
        else:
            self._ask(mail)
            self._unasked_recipients = deque(progress.asked)
        self._progress = progress
        self._needs_rset = True

    def _step(self, progress: TransactionProgress) -> ClientEvent | None:
        """The next RCPT, DATA or BDAT, as far as they are not said yet; the end, if nobody was
        accepted."""
        if self._pipelined and (self._asked or not self._chunked):
            return None
        if self._unasked_recipients:
            index = self._unasked_recipients.popleft()
            self._ask(Asked(Phase.RCPT, progress.rcpt(index), index))
            return None
        if not progress.accepted:
            return self._finish(progress)
        if not self._chunked:
            self._ask(DATA)
            return None
        self._ask(Asked(Phase.BODY, f"BDAT {len(progress.transaction.body)} LAST"))
        return SendBody(chunk=True)

    def _finish(self, progress: TransactionProgress, *, usable: bool = True) -> Finished:
        self._progress = None
        return Finished(progress.outcome(usable=usable))

    # -- replies ---------------------------------------------------------------------------------

    def _answered_at_once(self) -> ClientEvent | None:
        """The replies up to DATA, if all of them have come and are good; else nothing is read."""
        progress, reader = self._progress, self._reader
        if self.closed or progress is None:
            return None
        self._asked_at_once = False
        if not reader.take_whole(_GO_AHEAD):
            index = progress.asked[0]
            self._asked.extend((Asked(Phase.RCPT, progress.rcpt(index), index), DATA))
            return None
        self.replies += 3
        progress.all_accepted()
        self._asked[0] = BODY
        return _SEND_BODY

    def _answered(self, reply: Reply) -> ClientEvent | None:
        """Match a reply to the oldest command."""
        if not self._asked:
            self.closed = True
            if reply.code == 421:
                return Closing(reply)
            raise UnaskedReplyError(f"a reply to no command: {str(reply)!r}")
        asked = self._asked.popleft()
        if asked is GREETING:
            self.greeting = reply
        try:
            if reply.code == 421 and asked.phase is not Phase.QUIT:
                return self._shut(asked, reply)
            progress = self._progress
            if progress is not None and asked.phase is not Phase.RSET:
                return self._transaction_answered(asked, reply, progress)
            return self._session_answered(asked, reply)
        except RemoteProtocolError:
            self._asked.appendleft(asked)  # so that phase says where it happened
            raise

    def _shut(self, asked: Asked, reply: Reply) -> ClientEvent:
        """A 421 (RFC 5321, 3.8): what has no result yet gets this one, and nothing follows."""
        self.closed = True
        progress = self._progress
        if progress is None or asked.phase is Phase.RSET:
            self._progress = None
            return Refused(asked.phase, reply)
        progress.cut_off(reply, asked.phase, local=False)
        return self._finish(progress, usable=False)

    def _transaction_answered(
        self, asked: Asked, reply: Reply, progress: TransactionProgress
    ) -> ClientEvent | None:
        phase = asked.phase
        if phase is Phase.DOT and not self._lmtp:
            progress.dot_answered(reply)
            self._needs_rset = self._dialect.reset or not (reply.code < 300 and progress.accepted)
            return self._finish(progress)
        if phase is Phase.RCPT:
            progress.rcpt_answered(asked.number, reply)
            return self._step(progress)
        if phase is Phase.MAIL:
            progress.mail_answered(reply)
            if not reply.is_positive and not self._pipelined:
                return self._finish(progress)
            return self._step(progress)
        if phase is Phase.DATA:
            return self._data_answered(reply, progress)
        if phase is Phase.BODY:
            if reply.is_positive:
                raise UnaskedReplyError(f"{str(reply)!r} before the end of the message")
            # The rest of the message would be taken for commands.
            self.closed = True
            progress.dot_answered(reply)
            return self._finish(progress, usable=False)
        return self._recipient_answered(asked.number, reply, progress)

    def _recipient_answered(
        self, number: int, reply: Reply, progress: TransactionProgress
    ) -> ClientEvent | None:
        """LMTP's reply to the message for one recipient (RFC 2033, 4.2)."""
        progress.dot_answered(reply, number)
        if self._asked:
            return None
        self._needs_rset = self._dialect.reset
        return self._finish(progress)

    def _data_answered(self, reply: Reply, progress: TransactionProgress) -> ClientEvent | None:
        if not progress.data_answered(reply):
            return self._finish(progress)
        self._require_silence()
        if progress.accepted:
            self._asked.append(BODY)
            return _SEND_BODY
        self.unsaid += b".\r\n"
        if self._lmtp:  # no recipient, no reply: what comes next could not be told apart
            self.closed = True
            return self._finish(progress, usable=False)
        self._asked.append(DOT)
        return None

    def _session_answered(self, asked: Asked, reply: Reply) -> ClientEvent | None:
        phase = asked.phase
        if phase is Phase.QUIT:
            self.closed = True
            return Goodbye(reply)
        if phase is Phase.AUTH and (reply.code == 334 or reply.is_positive):
            return self._login_answered(reply)
        if 300 <= reply.code < 400:
            raise RemoteProtocolError(f"{str(reply)!r} in the phase {phase.value}")
        if not reply.is_positive:
            return self._session_refused(asked, reply)
        if phase is Phase.BANNER:
            self._say_hello(self._greets_with)
        elif phase is Phase.EHLO:
            extended = not asked.command.startswith("HELO")
            self.capabilities = Capabilities.from_ehlo(reply) if extended else NO_CAPABILITIES
            self._ready = True
            return Ready(self.capabilities)
        elif phase is Phase.STARTTLS:
            self._awaiting_tls = True
            return ProceedTLS()
        elif self._progress is not None:  # RSET, which cleared the way for a transaction
            progress, self._progress = self._progress, None
            self._start(progress)
        return None

    def _login_answered(self, reply: Reply) -> ClientEvent | None:
        """A challenge, or the good end of a login."""
        mechanism = self._mechanism
        assert mechanism is not None
        if reply.code < 300:
            if self._response is not None or not mechanism.complete:
                raise RemoteProtocolError(f"the server ended {mechanism.name} before its time")
            self._mechanism = None
            return Authenticated(reply)
        if reply.code != 334:
            raise RemoteProtocolError(f"{str(reply)!r} in the phase auth")
        try:
            challenge = base64.b64decode(reply.lines[0].strip(), validate=True)
        except ValueError:
            raise RemoteProtocolError("a challenge that is not base64") from None
        response, self._response = self._response, None
        if response is None:
            response = mechanism.respond(challenge)
        self._require_silence()
        self._asked.append(Asked(Phase.AUTH, f"AUTH {mechanism.name} ***"))
        self.unsaid += f"{_wrapped(response)}\r\n".encode()
        return None

    def _session_refused(self, asked: Asked, reply: Reply) -> ClientEvent | None:
        if asked.phase is Phase.EHLO and asked.command.startswith("EHLO") and reply.is_permanent:
            self._say_hello("HELO")
            return None
        self._progress = self._mechanism = self._response = None
        self._ready = asked.phase is Phase.STARTTLS
        return Refused(asked.phase, reply)


def _wrapped(response: bytes) -> str:
    return base64.b64encode(response).decode("ascii")
