"""The server's side of SMTP as a machine without I/O (RFC 5321).

Octets go in with L{SMTPServer.receive_data}, one event per command comes out of
L{SMTPServer.next_event}, and L{SMTPServer.answer} turns the reply to it into octets to send. There
is never more than one event unanswered, so replies leave in the order of the commands however late
they are, and what arrives meanwhile waits (RFC 2920, 3.2). The machine's state follows what was
answered: a MAIL that got a 450 opens no transaction.

No input makes it raise: what is wrong with a command is an event with the reply it deserves. Only
the owner's own mistakes raise L{kumotwist.wire.errors.LocalProtocolError}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.smtp import server_replies as say
from kumotwist.wire.smtp.body import BodyReader
from kumotwist.wire.smtp.chunks import ChunkDialogue
from kumotwist.wire.smtp.commands import (
    CommandRefusedError,
    read_hello,
    read_line,
    read_mail,
    read_recipient,
)
from kumotwist.wire.smtp.events import (
    PAUSED,
    Auth,
    AuthResponse,
    BadCommand,
    Chunk,
    Courtesy,
    DataBegin,
    Event,
    Hello,
    Mail,
    MessageReceived,
    MessageRefused,
    Paused,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Transaction,
    XClient,
)
from kumotwist.wire.smtp.replies import Reply, one_line
from kumotwist.wire.smtp.server_input import ServerInput
from kumotwist.wire.smtp.server_login import LoginDialogue
from kumotwist.wire.smtp.server_options import ServerOptions
from kumotwist.wire.smtp.xclient import read_xclient

__all__ = ["SMTPServer", "ServerOptions"]


class SMTPServer:
    """One session.

    @param options: what it has in common with the listener's other sessions.
    @param starttls: whether STARTTLS is offered.
    @param tls: whether the connection is encrypted from its beginning.
    """

    def __init__(
        self, options: ServerOptions, *, starttls: bool = False, tls: bool = False
    ) -> None:
        self._options = options
        self._can_start_tls = starttls
        self._tls = tls
        self._input = ServerInput()
        self._owed: Event | None = None
        self._body: BodyReader | None = None
        self._chunks = ChunkDialogue(options)
        self._greeted = False
        self._login = LoginDialogue(options)
        self._bad = 0
        self._idle = 0
        self._messages = 0
        #: The transaction under way; L{None} between transactions.
        self.transaction: Transaction | None = None
        #: Whether the session is over: nothing more is read, and the connection is to be closed.
        self.closed = False

    # -- what the owner asks and tells ---------------------------------------------------------

    @property
    def owes_answer(self) -> bool:
        """Whether the last event has not been answered yet."""
        return self._owed is not None

    @property
    def unread(self) -> int:
        """Octets that have arrived and that no event has been made of."""
        return len(self._input)

    @property
    def in_body(self) -> bool:
        """Whether what comes next is part of a message, not a command."""
        return self._body is not None or self._chunks.present is not None

    @property
    def receiving(self) -> bool:
        """Whether a message has begun and not ended; there may be commands between its chunks."""
        return (self._body or self._chunks.message or self._chunks.present) is not None

    @property
    def body_octets(self) -> int:
        """Octets of the message being received that are held in memory."""
        body = self._chunks.message or self._body
        return 0 if body is None else body.held

    def greeting(self) -> bytes:
        """The octets that open the session."""
        return say.wire_form(self._options.greeting())

    def receive_data(self, data: bytes) -> None:
        """Take octets from the client, of any number, cut anywhere.

        While an answer is owed they are kept, so the owner should stop reading then.
        """
        if self.closed:
            return
        self._input.append(data)

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, which must be answered before there is another one.

        @return: L{NEED_DATA} if there is no whole command, L{PAUSED} if an answer is owed.
        """
        if self._owed is not None:
            return PAUSED
        if not self._input.buffer:
            return NEED_DATA
        if self._chunks.present is not None:
            event = self._next_in_chunk()
        else:
            event = self._next_command() if self._body is None else self._next_in_body()
        if event is None:
            return NEED_DATA
        self._owed = event
        return event

    def answer(self, reply: Reply) -> bytes:
        """Answer the last event.

        A 421 ends the session whatever it answers, as 221 does.

        @param reply: C{event.reply}, or another one.
        @return: the octets to send.
        @raise LocalProtocolError: if nothing has been asked, or the reply cannot answer it.
        """
        event = self._owed
        if event is None:
            raise LocalProtocolError("there is no command to answer")
        kind, code = type(event), reply.code
        if code == 354 and kind is not DataBegin:
            raise LocalProtocolError("354 answers DATA only")
        if code == 334 and kind not in (Auth, AuthResponse):
            raise LocalProtocolError("334 answers AUTH only")
        self._owed = None
        settle = _SETTLE.get(kind)
        if settle is not None:
            settle(self, event, reply)
        if code == 421:
            self.stop()
        # Our own are few and are said again and again; what a message got is said once.
        return say.wire_form(reply) if reply is event.reply else say.new_wire_form(reply)

    def refuse_body(self, reply: Reply) -> None:
        """Forget the message being received, at once, and refuse it when it has ended.

        @raise LocalProtocolError: if no message is being received.
        """
        body = self._chunks.message or self._body
        if body is None:
            raise LocalProtocolError("no message is being received")
        body.refuse(reply)

    def hang_up(self, reply: Reply) -> bytes:
        """End the session unasked, or instead of the answer that is owed (RFC 5321, 3.8)."""
        self.stop()
        return say.wire_form(reply)

    def take_unread(self) -> bytes:
        """Hand over what no event has been made of, to a machine that goes on."""
        data = self._input.peek()
        self._input.clear()
        return data

    def stop(self) -> None:
        """End the session without a word, and forget all that was received."""
        self.closed = True
        self._owed = None
        self._input.clear()
        self._body = None
        self._chunks.present = None
        self._forget()

    def _forget(self) -> None:
        """The transaction is over."""
        self._chunks.forget()
        self.transaction = None

    # -- input to events ---------------------------------------------------------------------

    def _next_in_body(self) -> Event | None:
        """Read on in the message."""
        body = self._body
        transaction = self.transaction
        assert body is not None
        assert transaction is not None
        used = body.feed(self._input.peek())
        if used < 0:
            self._input.clear()
            return None
        self._input.skip(used)
        self._body = None
        transaction.plain = body.plain
        return self._whole(transaction, body.finish(), ".")

    def _whole(self, transaction: Transaction, message: bytes | Reply, command: str) -> Event:
        """All of a message has come."""
        if isinstance(message, Reply):
            return MessageRefused(transaction, message, command)
        transaction.body = message
        return MessageReceived(transaction, say.OK_MESSAGE, command)

    def _next_in_chunk(self) -> Event | None:
        """Read on in a chunk."""
        chunk = self._chunks.feed(self._input)
        if chunk is None:
            return None
        transaction, command, refusal = self.transaction, self._chunks.command, chunk.refusal
        if chunk is not self._chunks.message or transaction is None:
            return self._out_of_order(refusal or say.NO_SENDER, command)
        if chunk.last:
            return self._whole(transaction, chunk.finish(), command)
        if refusal is not None:
            return MessageRefused(transaction, refusal, command)
        taken = Reply.of(250, "2.0.0", f"{chunk.size} octets received")
        return Chunk(transaction, taken, command)

    def _next_command(self) -> Event | None:
        """Read one line."""
        line = self._input.next_line()
        if line is None:
            return None
        if isinstance(line, Reply):
            self._login.in_progress = False
            return BadCommand(line, "") if line.code == 421 else self._bad_command(line, "")
        if self._login.in_progress:
            return self._read_auth_response(line)
        try:
            text = read_line(line)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, self._shown(line))
        verb, _, argument = text.partition(" ")
        read = _COMMANDS.get(verb) or _COMMANDS.get(verb.upper())
        if read is None:
            return self._bad_command(say.unknown(verb), "" if self._login.begun else text)
        try:
            return read(self, argument, text)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, text)

    def _bad_command(self, reply: Reply, command: str) -> BadCommand:
        self._bad += 1
        if self._bad > self._options.max_bad_commands:
            reply = say.TOO_MANY_ERRORS
        return BadCommand(reply, command)

    def _shown(self, line: bytes) -> str:
        """A line that cannot be read, for the record: nothing of one that may hold a password."""
        if self._login.begun or line[:4].upper() == b"AUTH":
            return ""
        return one_line(line.decode("utf-8", "backslashreplace"))

    def _out_of_order(self, reply: Reply, command: str) -> BadCommand:
        """A good command at a wrong moment, which may be the fault of an earlier one's refusal."""
        return BadCommand(self._unless_idle(reply), command)

    def _unless_idle(self, reply: Reply) -> Reply:
        self._idle += 1
        return say.TOO_IDLE if self._idle > self._options.max_idle_commands else reply

    # -- the commands ------------------------------------------------------------------------

    def _read_ehlo(self, argument: str, text: str) -> Event:
        domain = read_hello(argument)
        lines = self._options.capabilities(
            starttls=self._can_start_tls and not self._tls, tls=self._tls
        )
        reply = Reply(250, None, (self._options.hostname, *lines))
        return Hello(domain, True, self._unless_idle(reply), text)

    def _read_helo(self, argument: str, text: str) -> Event:
        domain = read_hello(argument)
        reply = Reply(250, None, (self._options.hostname,))
        return Hello(domain, False, self._unless_idle(reply), text)

    def _read_mail(self, argument: str, text: str) -> Event:
        if not self._greeted:
            return self._out_of_order(say.NO_HELLO, text)
        if self.transaction is not None:
            return self._out_of_order(say.NESTED, text)
        if self._options.require_tls and not self._tls:
            return self._out_of_order(say.TLS_NEEDED, text)
        if self._options.require_auth and not self._login.authenticated:
            return self._out_of_order(self._login.needed(tls=self._tls), text)
        if self._messages >= self._options.max_messages:
            return BadCommand(say.NO_MORE_SENDERS, text)
        transaction = read_mail(argument, self._options, tls=self._tls)
        return Mail(transaction, self._unless_idle(say.OK_SENDER), text)

    def _read_rcpt(self, argument: str, text: str) -> Event:
        transaction = self.transaction
        if transaction is None:
            return self._out_of_order(say.NO_SENDER, text)
        if self._chunks.message is not None:
            return self._out_of_order(say.IN_CHUNKS, text)
        recipient = read_recipient(argument, utf8="SMTPUTF8" in transaction.parameters)
        if len(transaction.recipients) >= self._options.max_recipients:
            return self._out_of_order(say.TOO_MANY_RECIPIENTS, text)
        return Rcpt(transaction, recipient, self._unless_idle(say.OK_RECIPIENT), text)

    def _read_data(self, argument: str, text: str) -> Event:
        if argument:
            return self._bad_command(say.NO_ARGUMENTS, text)
        transaction = self.transaction
        if transaction is None:
            return self._out_of_order(say.NO_SENDER, text)
        if self._chunks.message is not None:
            return self._out_of_order(say.IN_CHUNKS, text)
        if not transaction.recipients:
            return self._out_of_order(say.NO_RECIPIENTS, text)
        if transaction.binary:
            return self._out_of_order(say.BINARY, text)
        return DataBegin(transaction, self.unread > 0, say.GO_AHEAD, text)

    def _read_bdat(self, argument: str, text: str) -> Event | None:
        transaction = self.transaction
        refusal = None
        if transaction is None or not transaction.recipients:
            refusal = say.NO_SENDER if transaction is None else say.NO_RECIPIENTS
        binary = transaction is not None and transaction.binary
        self._chunks.read_command(argument, text, refusal, binary=binary)
        return self._next_in_chunk()

    def _read_rset(self, argument: str, text: str) -> Event:
        if argument:
            return self._bad_command(say.NO_ARGUMENTS, text)
        return Reset(self._unless_idle(say.OK), text)

    def _read_noop(self, argument: str, text: str) -> Event:
        return Courtesy(self._unless_idle(say.OK), text)

    def _read_vrfy(self, argument: str, text: str) -> Event:
        if not argument:
            return self._bad_command(Reply.of(501, "5.5.4", "VRFY needs a name"), text)
        return Courtesy(self._unless_idle(say.VRFY), text)

    def _read_expn(self, argument: str, text: str) -> Event:
        return self._bad_command(say.EXPN, text)

    def _read_help(self, argument: str, text: str) -> Event:
        return Courtesy(self._unless_idle(say.HELP), text)

    def _read_starttls(self, argument: str, text: str) -> Event:
        if argument:
            return self._bad_command(say.NO_ARGUMENTS, text)
        if self._tls:
            return self._out_of_order(say.HAVE_TLS, text)
        if not self._can_start_tls:
            return self._bad_command(say.NO_TLS, text)
        return StartTLS(say.START_TLS, text)

    def _read_auth(self, argument: str, text: str) -> Event:
        login = self._login
        login.begun = True
        refusal = login.refusal(
            greeted=self._greeted, tls=self._tls, in_mail=self.transaction is not None
        )
        if refusal is not None:
            return self._out_of_order(refusal, "AUTH")
        try:
            return login.read_command(argument)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, "AUTH")

    def _read_auth_response(self, line: bytes) -> Event:
        try:
            return self._login.read_response(line)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, "AUTH")

    def _read_xclient(self, argument: str, text: str) -> Event:
        if not self._options.xclient:
            return self._bad_command(say.UNKNOWN, text)
        if self.transaction is not None:
            return self._out_of_order(say.IN_MAIL, text)
        return XClient(read_xclient(argument), say.XCLIENT, text)

    def _read_quit(self, argument: str, text: str) -> Event:
        if argument:
            return self._bad_command(say.NO_ARGUMENTS, text)
        return Quit(Reply.of(221, "2.0.0", f"{self._options.hostname} goodbye"), text)

    # -- what an answer changes --------------------------------------------------------------

    def _settle_hello(self, event: Hello, reply: Reply) -> None:
        if reply.is_positive:
            self._greeted = True
            self._forget()

    def _settle_mail(self, event: Mail, reply: Reply) -> None:
        if reply.code < 400:
            self._messages += 1
            self.transaction = event.transaction

    def _settle_rcpt(self, event: Rcpt, reply: Reply) -> None:
        if reply.code < 400:
            event.transaction.recipients.append(event.recipient)

    def _settle_data(self, event: DataBegin, reply: Reply) -> None:
        if reply.is_positive and reply.code != 354:
            raise LocalProtocolError(f"{reply.code} does not answer DATA")
        if reply.code == 354:
            options = self._options
            self._body = BodyReader(
                options.max_message_size, options.line_endings, options.line_length_limit
            )

    def _settle_message(self, event: MessageReceived, reply: Reply) -> None:
        self._forget()
        if reply.is_positive:
            self._bad = self._idle = 0

    def _settle_end(self, event: MessageRefused | Reset, reply: Reply) -> None:
        self._forget()

    def _settle_auth(self, event: Auth | AuthResponse, reply: Reply) -> None:
        self._login.settle(reply)

    def _settle_starttls(self, event: StartTLS, reply: Reply) -> None:
        if not reply.is_positive:
            return
        # RFC 3207, 4.2: nothing survives that was said in clear, or put into the same segment.
        self._input.clear()
        self._greeted = False
        self._forget()
        self._login.authenticated = False
        self._tls = True

    def _settle_xclient(self, event: XClient, reply: Reply) -> None:
        if reply.is_positive:
            self._greeted = False
            self._login = LoginDialogue(self._options)

    def _settle_quit(self, event: Quit, reply: Reply) -> None:
        self.stop()


_COMMANDS: dict[str, Callable[[SMTPServer, str, str], Event | None]] = {
    "EHLO": SMTPServer._read_ehlo,
    "HELO": SMTPServer._read_helo,
    "MAIL": SMTPServer._read_mail,
    "RCPT": SMTPServer._read_rcpt,
    "DATA": SMTPServer._read_data,
    "BDAT": SMTPServer._read_bdat,
    "RSET": SMTPServer._read_rset,
    "NOOP": SMTPServer._read_noop,
    "VRFY": SMTPServer._read_vrfy,
    "EXPN": SMTPServer._read_expn,
    "HELP": SMTPServer._read_help,
    "STARTTLS": SMTPServer._read_starttls,
    "AUTH": SMTPServer._read_auth,
    "XCLIENT": SMTPServer._read_xclient,
    "QUIT": SMTPServer._read_quit,
}

_SETTLE: dict[type, Callable[[Any, Any, Reply], None]] = {
    Hello: SMTPServer._settle_hello,
    Mail: SMTPServer._settle_mail,
    Rcpt: SMTPServer._settle_rcpt,
    DataBegin: SMTPServer._settle_data,
    MessageReceived: SMTPServer._settle_message,
    MessageRefused: SMTPServer._settle_end,
    Reset: SMTPServer._settle_end,
    StartTLS: SMTPServer._settle_starttls,
    Auth: SMTPServer._settle_auth,
    AuthResponse: SMTPServer._settle_auth,
    XClient: SMTPServer._settle_xclient,
    Quit: SMTPServer._settle_quit,
}
