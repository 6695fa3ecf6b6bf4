"""What a client's session with a server comes to, as values."""

from __future__ import annotations

from typing import NamedTuple

from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.transaction import TransactionOutcome

__all__ = [
    "Authenticated",
    "ClientEvent",
    "Closing",
    "Finished",
    "Goodbye",
    "ProceedTLS",
    "Ready",
    "Refused",
    "SendBody",
]


class Ready(NamedTuple):
    """The session is open (again, after TLS): transactions may begin."""

    capabilities: Capabilities


class Refused(NamedTuple):
    """The server said no to something that is not part of a transaction.

    After a refused STARTTLS the session goes on as it was; after any other it is of no use.
    """

    phase: Phase
    reply: Reply


class ProceedTLS(NamedTuple):
    """The server waits for the handshake: call C{discard_plaintext}, then begin it."""


class Authenticated(NamedTuple):
    """The server has taken the login (RFC 4954)."""

    reply: Reply


class SendBody(NamedTuple):
    """The server waits for the message: send it, then call C{body_sent}.

    @ivar chunk: it goes as it is, right behind the BDAT that C{data_to_send} has (RFC 3030, 2);
        otherwise with its dots doubled and a final dot (RFC 5321, 4.5.2).
    """

    chunk: bool = False


class Finished(NamedTuple):
    """The transaction is over."""

    outcome: TransactionOutcome


class Closing(NamedTuple):
    """The server ends a session that was idle, with a 421."""

    reply: Reply


class Goodbye(NamedTuple):
    """The server has answered QUIT; whatever it said, the connection can be closed."""

    reply: Reply


ClientEvent = Ready | Refused | ProceedTLS | Authenticated | SendBody | Finished | Closing | Goodbye
