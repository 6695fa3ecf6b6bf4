"""Where a session with an SMTP client stands, as the server's machine knows it.

It changes by what is answered, never by what is asked (RFC 5321, 4.1.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.smtp.body import BodyReader
from kumotwist.wire.smtp.chunks import ChunkDialogue, ChunkedBody
from kumotwist.wire.smtp.events import (
    Auth,
    AuthResponse,
    DataBegin,
    Event,
    Hello,
    Mail,
    MessageReceived,
    MessageRefused,
    Quit,
    Rcpt,
    Reset,
    StartTLS,
    Transaction,
    XClient,
)
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.server_input import ServerInput
from kumotwist.wire.smtp.server_login import LoginDialogue
from kumotwist.wire.smtp.server_options import ServerOptions

__all__ = ["SETTLE", "ServerState"]


class ServerState:
    """What is known of one session.

    @param options: what it has in common with the listener's other sessions.
    @param starttls: whether STARTTLS is offered.
    @param tls: whether the connection is encrypted from its beginning.
    @ivar transaction: the transaction under way; L{None} between transactions.
    @ivar input: what has arrived and no event has been made of; for its owner to look at only.
    @ivar closed: whether the session is over: nothing more is read, and the connection is to be
        closed.
    """

    __slots__ = ("_bad", "_body", "_can_start_tls", "_chunks", "_greeted", "_idle", "_login",
                 "_messages", "_options", "_owed", "_tls", "closed", "input",
                 "transaction")  # fmt: skip

    def __init__(
        self, options: ServerOptions, *, starttls: bool = False, tls: bool = False
    ) -> None:
        self._options = options
        self._can_start_tls = starttls
        self._tls = tls
        self.input = ServerInput()
        self._owed: Event | None = None
        self._body: BodyReader | None = None
        # What few sessions need is made when it is needed.
        self._chunks: ChunkDialogue | None = None
        self._greeted = False
        self._login: LoginDialogue | None = None
        self._bad = 0
        self._idle = 0
        self._messages = 0
        self.transaction: Transaction | None = None
        self.closed = False

    @property
    def owes_answer(self) -> bool:
        """Whether the last event has not been answered yet."""
        return self._owed is not None

    @property
    def unread(self) -> int:
        """Octets that have arrived and that no event has been made of."""
        return len(self.input)

    @property
    def in_body(self) -> bool:
        """Whether what comes next is part of a message, not a command."""
        chunks = self._chunks
        return self._body is not None or (chunks is not None and chunks.present is not None)

    @property
    def receiving(self) -> bool:
        """Whether a message has begun and not ended; there may be commands between its chunks."""
        return self._body is not None or self._chunks is not None

    @property
    def body_octets(self) -> int:
        """Octets of the message being received that are held in memory."""
        body = self._message
        return 0 if body is None else body.held

    @property
    def _message(self) -> BodyReader | ChunkedBody | None:
        """The message being received, if it is to be kept."""
        return self._body if self._chunks is None else self._chunks.message

    def stop(self) -> None:
        """End the session without a word, and forget all that was received."""
        if self.closed:
            return
        self.closed = True
        self._owed = None
        self.input.clear()
        self._body = None
        self._forget()

    def _forget(self) -> None:
        """The transaction is over."""
        self._chunks = None
        self.transaction = None

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
        assert self._login is not None
        self._login.settle(reply)

    def _settle_starttls(self, event: StartTLS, reply: Reply) -> None:
        if not reply.is_positive:
            return
        # RFC 3207, 4.2: nothing survives that was said in clear, or put into the same segment.
        self.input.clear()
        self._greeted = False
        self._forget()
        if self._login is not None:
            self._login.authenticated = False
        self._tls = True

    def _settle_xclient(self, event: XClient, reply: Reply) -> None:
        if reply.is_positive:
            self._greeted = False
            self._login = None

    def _settle_quit(self, event: Quit, reply: Reply) -> None:
        self.stop()


#: What an answer changes, by the event that it answers.
SETTLE: dict[type, Callable[[Any, Any, Reply], None]] = {
    Hello: ServerState._settle_hello,
    Mail: ServerState._settle_mail,
    Rcpt: ServerState._settle_rcpt,
    DataBegin: ServerState._settle_data,
    MessageReceived: ServerState._settle_message,
    MessageRefused: ServerState._settle_end,
    Reset: ServerState._settle_end,
    StartTLS: ServerState._settle_starttls,
    Auth: ServerState._settle_auth,
    AuthResponse: ServerState._settle_auth,
    XClient: ServerState._settle_xclient,
    Quit: ServerState._settle_quit,
}
