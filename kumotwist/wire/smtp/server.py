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

import re
from collections.abc import Callable

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.need_data import NEED_DATA, NeedData
from kumotwist.wire.smtp import server_replies as say
from kumotwist.wire.smtp.body import BodyReader
from kumotwist.wire.smtp.chunks import ChunkDialogue
from kumotwist.wire.smtp.commands import (
    ORDINARY,
    CommandRefusedError,
    read_hello,
    read_line,
    read_mail,
    read_recipient,
    recipient_path,
    sender_path,
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
from kumotwist.wire.smtp.server_login import LoginDialogue
from kumotwist.wire.smtp.server_options import ServerOptions
from kumotwist.wire.smtp.server_state import SETTLE, ServerState
from kumotwist.wire.smtp.xclient import read_xclient

__all__ = ["SMTPServer", "ServerOptions"]


class SMTPServer(ServerState):
    """One session.

    @param options: what it has in common with the listener's other sessions.
    @param starttls: whether STARTTLS is offered.
    @param tls: whether the connection is encrypted from its beginning.
    """

    __slots__ = ()

    # -- what the owner asks and tells ---------------------------------------------------------

    def greeting(self) -> bytes:
        """The octets that open the session."""
        return self._options.opening

    def receive_data(self, data: bytes) -> None:
        """Take octets from the client, of any number, cut anywhere.

        While an answer is owed they are kept, so the owner should stop reading then.
        """
        if self.closed:
            return
        waiting = self.input
        if waiting.buffer:
            waiting.append(data)
        else:  # as nearly always: nothing was left over
            waiting.buffer = data

    def next_event(self) -> Event | NeedData | Paused:
        """The next event, which must be answered before there is another one.

        @return: L{NEED_DATA} if there is no whole command, L{PAUSED} if an answer is owed.
        """
        if self._owed is not None:
            return PAUSED
        if not self.input.buffer:
            return NEED_DATA
        if self._body is not None:
            event = self._next_in_body(self._body)
        elif self._chunks is not None and self._chunks.present is not None:
            event = self._next_in_chunk(self._chunks)
        else:
            event = self._next_command()
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
        if kind in SETTLE:
            SETTLE[kind](self, event, reply)
        if code == 421:
            self.stop()
        # Our own are few and are said again and again; what a message got is said once.
        return say.new_wire_form(reply) if kind is MessageReceived else say.wire_form(reply)

    def refuse_body(self, reply: Reply) -> None:
        """Forget the message being received, at once, and refuse it when it has ended.

        @raise LocalProtocolError: if no message is being received.
        """
        body = self._message
        if body is None:
            raise LocalProtocolError("no message is being received")
        body.refuse(reply)

    def hang_up(self, reply: Reply) -> bytes:
        """End the session unasked, or instead of the answer that is owed (RFC 5321, 3.8)."""
        self.stop()
        return say.wire_form(reply)

    def take_unread(self) -> bytes:
        """Hand over what no event has been made of, to a machine that goes on."""
        data = self.input.peek()
        self.input.clear()
        return data

    # -- input to events ---------------------------------------------------------------------

    def _next_in_body(self, body: BodyReader) -> Event | None:
        """Read on in the message."""
        transaction = self.transaction
        assert transaction is not None
        used = body.feed(self.input.peek())
        if used < 0:
            self.input.clear()
            return None
        self.input.skip(used)
        self._body = None
        transaction.plain = body.plain
        return self._whole(transaction, body.finish(), ".")

    def _whole(self, transaction: Transaction, message: bytes | Reply, command: str) -> Event:
        """All of a message has come."""
        if isinstance(message, Reply):
            return MessageRefused(transaction, message, command)
        transaction.body = message
        return MessageReceived(transaction, say.OK_MESSAGE, command)

    def _next_in_chunk(self, chunks: ChunkDialogue) -> Event | None:
        """Read on in a chunk."""
        chunk = chunks.feed(self.input)
        if chunk is None:
            return None
        transaction, command, refusal = self.transaction, chunks.command, chunk.refusal
        if chunk is not chunks.message or transaction is None:
            if chunks.message is None:
                self._chunks = None
            return self._out_of_order(refusal or say.NO_SENDER, command)
        if chunk.last:
            return self._whole(transaction, chunk.finish(), command)
        if refusal is not None:
            return MessageRefused(transaction, refusal, command)
        taken = Reply.of(250, "2.0.0", f"{chunk.size} octets received")
        return Chunk(transaction, taken, command)

    def _next_command(self) -> Event | None:
        """Read one line."""
        login = self._login
        answers = login is not None and login.in_progress  # a challenge of AUTH
        if not answers:
            found = self.input.next_match(ORDINARY)
            if found is not None:
                return self._read_ordinary(found)
        line = self.input.next_line()
        if line is None:
            return None
        if login is not None and answers:
            if not isinstance(line, Reply):
                return self._read_auth_response(login, line)
            login.in_progress = False
        if isinstance(line, Reply):
            return BadCommand(line, "") if line.code == 421 else self._bad_command(line, "")
        try:
            text = read_line(line)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, self._shown(line))
        verb, _, argument = text.partition(" ")
        return self._obey(verb, argument, text)

    def _obey(self, verb: str, argument: str, text: str) -> Event | None:
        read = _COMMANDS.get(verb) or _COMMANDS.get(verb.upper())
        if read is None:
            return self._bad_command(say.unknown(verb), "" if self._login else text)
        try:
            return read(self, argument, text)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, text)

    def _read_ordinary(self, found: re.Match[bytes]) -> Event | None:
        """Read what L{ORDINARY} fits; the rules are those of any other line."""
        text = str(found[0][:-2], "ascii")
        verb = found[1]
        if verb is None:
            return self._obey(text[:4], text[5:], text)
        path = str(found[2], "ascii"), str(found[3], "ascii")
        read = self._read_mail if verb == b"MAIL FROM" else self._read_rcpt
        try:
            return read("", text, path)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, text)

    def _bad_command(self, reply: Reply, command: str) -> BadCommand:
        self._bad += 1
        if self._bad > self._options.max_bad_commands:
            reply = say.TOO_MANY_ERRORS
        return BadCommand(reply, command)

    def _shown(self, line: bytes) -> str:
        """A line that cannot be read, for the record: nothing of one that may hold a password."""
        if self._login or line[:4].upper() == b"AUTH":
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

    def _read_mail(self, argument: str, text: str, path: tuple[str, str] | None = None) -> Event:
        if not self._greeted:
            return self._out_of_order(say.NO_HELLO, text)
        if self.transaction is not None:
            return self._out_of_order(say.NESTED, text)
        if self._options.require_tls and not self._tls:
            return self._out_of_order(say.TLS_NEEDED, text)
        if self._options.require_auth and not (self._login and self._login.authenticated):
            return self._out_of_order(self._options.login_needed(tls=self._tls), text)
        if self._messages >= self._options.max_messages:
            return BadCommand(say.NO_MORE_SENDERS, text)
        transaction = read_mail(path or sender_path(argument), self._options, tls=self._tls)
        return Mail(transaction, self._unless_idle(say.OK_SENDER), text)

    def _read_rcpt(self, argument: str, text: str, path: tuple[str, str] | None = None) -> Event:
        transaction = self.transaction
        if transaction is None:
            return self._out_of_order(say.NO_SENDER, text)
        if self._chunks is not None:
            return self._out_of_order(say.IN_CHUNKS, text)
        utf8 = "SMTPUTF8" in transaction.parameters
        recipient = read_recipient(path or recipient_path(argument), utf8=utf8)
        if len(transaction.recipients) >= self._options.max_recipients:
            return self._out_of_order(say.TOO_MANY_RECIPIENTS, text)
        return Rcpt(transaction, recipient, self._unless_idle(say.OK_RECIPIENT), text)

    def _read_data(self, argument: str, text: str) -> Event:
        if argument:
            return self._bad_command(say.NO_ARGUMENTS, text)
        transaction = self.transaction
        if transaction is None:
            return self._out_of_order(say.NO_SENDER, text)
        if self._chunks is not None:
            return self._out_of_order(say.IN_CHUNKS, text)
        if not transaction.recipients:
            return self._out_of_order(say.NO_RECIPIENTS, text)
        if transaction.binary:
            return self._out_of_order(say.BINARY, text)
        return DataBegin(transaction, bool(self.input.buffer), say.GO_AHEAD, text)

    def _read_bdat(self, argument: str, text: str) -> Event | None:
        transaction = self.transaction
        refusal = None
        if transaction is None or not transaction.recipients:
            refusal = say.NO_SENDER if transaction is None else say.NO_RECIPIENTS
        binary = transaction is not None and transaction.binary
        chunks = self._chunks or ChunkDialogue(self._options)
        chunks.read_command(argument, text, refusal, binary=binary)
        self._chunks = chunks
        return self._next_in_chunk(chunks)

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
        login = self._login = self._login or LoginDialogue(self._options)
        refusal = login.refusal(
            greeted=self._greeted, tls=self._tls, in_mail=self.transaction is not None
        )
        if refusal is not None:
            return self._out_of_order(refusal, "AUTH")
        try:
            return login.read_command(argument)
        except CommandRefusedError as error:
            return self._bad_command(error.reply, "AUTH")

    def _read_auth_response(self, login: LoginDialogue, line: bytes) -> Event:
        try:
            return login.read_response(line)
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
        return Quit(self._options.farewell, text)


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
