"""What the server's machine tells its owner: one event per command, and the mail transaction.

Each event carries the reply that it deserves if the owner has no other opinion, and the command
as it was received, for logs and records.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import attrs

from kumotwist.wire.smtp.replies import Reply

if TYPE_CHECKING:
    from kumotwist.wire.smtp.xclient import XClientFacts

__all__ = [
    "PAUSED",
    "Auth",
    "AuthResponse",
    "BadCommand",
    "Chunk",
    "Courtesy",
    "DataBegin",
    "Event",
    "Hello",
    "Mail",
    "MessageReceived",
    "MessageRefused",
    "Paused",
    "Quit",
    "Rcpt",
    "Recipient",
    "Reset",
    "StartTLS",
    "Transaction",
    "XClient",
]


class Paused(enum.Enum):
    """The type of L{PAUSED}; an enumeration, so that C{event is PAUSED} narrows types."""

    PAUSED = "PAUSED"

    def __repr__(self) -> str:
        return "PAUSED"


#: The last event has not been answered yet; no other will come before it is.
PAUSED: Final[Literal[Paused.PAUSED]] = Paused.PAUSED


class Recipient(NamedTuple):
    """One recipient of a transaction.

    @ivar address: without brackets and without a source route; C{postmaster} may stand alone.
    @ivar parameters: the parameters of its RCPT by keyword in upper case (C{NOTIFY}, C{ORCPT}).
    """

    address: str
    parameters: dict[str, str | None]


@attrs.define(slots=True, eq=False)
class Transaction:
    """A mail transaction, from MAIL to the reply after the final dot (RFC 5321, 3.3).

    @ivar sender: the reverse path without brackets; empty for the null sender.
    @ivar parameters: the parameters of MAIL by keyword in upper case (C{SIZE}, C{BODY},
        C{SMTPUTF8}); L{None} for one without a value.
    @ivar recipients: those that were accepted, in their order.
    @ivar body: the message, header included: CRLF line ends, dots unstuffed; empty before
        L{MessageReceived}.
    @ivar plain: whether it is known of the body that every line end is CRLF and that no line begins
        with a dot.
    """

    sender: str
    parameters: dict[str, str | None] = attrs.field(factory=dict)
    recipients: list[Recipient] = attrs.field(factory=list)
    body: bytes = attrs.field(default=b"", repr=False)
    plain: bool = False

    @property
    def binary(self) -> bool:
        """Whether the client sends any octets, in chunks (RFC 3030, 3)."""
        parameters = self.parameters
        return bool(parameters) and (parameters.get("BODY") or "").upper() == "BINARYMIME"

    @property
    def declared_size(self) -> int:
        """What the client said with SIZE (RFC 1870, 5); 0 if it did not."""
        parameters = self.parameters
        return int(parameters.get("SIZE") or 0) if parameters else 0


class Hello(NamedTuple):
    """EHLO or HELO (RFC 5321, 4.1.1.1). Accepting it ends whatever was begun.

    @ivar domain: what the client calls itself: not checked, made safe for one line.
    @ivar extended: whether it said EHLO.
    """

    domain: str
    extended: bool
    reply: Reply
    command: str


class Mail(NamedTuple):
    """MAIL (RFC 5321, 4.1.1.2): a positive answer opens the transaction."""

    transaction: Transaction
    reply: Reply
    command: str


class Rcpt(NamedTuple):
    """RCPT (RFC 5321, 4.1.1.3): a positive answer adds the recipient to the transaction."""

    transaction: Transaction
    recipient: Recipient
    reply: Reply
    command: str


class DataBegin(NamedTuple):
    """DATA (RFC 5321, 4.1.1.4): the answer 354 makes what follows the message.

    @ivar early: whether octets had already arrived behind the command. A client must wait for
        the answer (RFC 2920, 3.1); one that does not may be smuggling. Depends on how the stream
        was cut into segments.
    """

    transaction: Transaction
    early: bool
    reply: Reply
    command: str


class MessageReceived(NamedTuple):
    """The final dot or the last chunk has come; C{transaction.body} is the message.

    Any answer ends the envelope.
    """

    transaction: Transaction
    reply: Reply
    command: str


class MessageRefused(NamedTuple):
    """The final dot has come, but the message was not fit to be kept; C{reply} says why."""

    transaction: Transaction
    reply: Reply
    command: str


class Chunk(NamedTuple):
    """A chunk of a message has come that is not the last one (RFC 3030, 2)."""

    transaction: Transaction
    reply: Reply
    command: str


class Reset(NamedTuple):
    """RSET (RFC 5321, 4.1.1.5): the transaction, if there was one, is over."""

    reply: Reply
    command: str


class Courtesy(NamedTuple):
    """NOOP, VRFY or HELP: a command that changes nothing (RFC 5321, 4.1.1.6 to 4.1.1.9)."""

    reply: Reply
    command: str


class StartTLS(NamedTuple):
    """STARTTLS (RFC 3207): the answer 220 makes the machine as new, its input forgotten."""

    reply: Reply
    command: str


class Auth(NamedTuple):
    """AUTH (RFC 4954, 4): the answer 334 asks the client for more, 235 says who it is.

    @ivar mechanism: one of those that are offered.
    @ivar initial: what the client sent with it, decoded; L{None} if nothing.
    @ivar reply: the refusal that it gets if nobody knows how to check it.
    @ivar command: without what the client sent.
    """

    mechanism: str
    initial: bytes | None
    reply: Reply
    command: str


class AuthResponse(NamedTuple):
    """What the client answered to a 334 (RFC 4954, 4); to be answered like L{Auth}.

    @ivar data: decoded.
    """

    data: bytes
    reply: Reply
    command: str


class XClient(NamedTuple):
    """XCLIENT (Postfix, XCLIENT_README): the answer 220 begins the session anew, for somebody else.

    @ivar facts: whom.
    """

    facts: XClientFacts
    reply: Reply
    command: str


class Quit(NamedTuple):
    """QUIT (RFC 5321, 4.1.1.10): the answer is the last thing that is sent."""

    reply: Reply
    command: str


class BadCommand(NamedTuple):
    """What was received is no command, has wrong arguments, or comes at the wrong moment."""

    reply: Reply
    command: str


Event = (
    Hello
    | Mail
    | Rcpt
    | DataBegin
    | Chunk
    | MessageReceived
    | MessageRefused
    | Reset
    | Courtesy
    | StartTLS
    | Auth
    | AuthResponse
    | XClient
    | Quit
    | BadCommand
)
