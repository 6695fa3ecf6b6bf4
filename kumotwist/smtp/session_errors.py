"""How a session with a server can end before its time."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone

from kumotwist.errors import KumotwistError
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply, one_line
from kumotwist.wire.smtp.transaction import TransactionOutcome

__all__ = [
    "PHASE_WORDS",
    "SMTPSessionError",
    "SessionAuthError",
    "SessionLost",
    "SessionProtocolError",
    "SessionRefused",
    "SessionTLSError",
    "SessionTimeout",
    "SessionUnfitError",
    "cause_words",
    "loss_words",
]

#: What is being done in a phase, as it is said to operators.
PHASE_WORDS = {
    Phase.BANNER: "receiving the initial server greeting",
    Phase.EHLO: "performing the EHLO handshake",
    Phase.STARTTLS: "starting TLS",
    Phase.AUTH: "logging in",
    Phase.MAIL: "sending MAIL FROM",
    Phase.RCPT: "sending RCPT TO",
    Phase.DATA: "sending DATA",
    Phase.BODY: "sending the message body",
    Phase.DOT: "sending end of data -- message may be sent more than once",
    Phase.RSET: "sending RSET",
    Phase.QUIT: "sending QUIT",
    Phase.IDLE: "idle",
}


class SMTPSessionError(KumotwistError):
    """A session has ended, or could not be opened; the subclasses say why.

    @ivar phase: where, in one word: C{banner}, C{ehlo}, C{starttls}, C{auth}, C{mail}, C{rcpt},
        C{data}, C{dot}, C{rset}, C{quit} or C{idle}.
    @ivar text: what happened, safe for one line of a log.
    @ivar reply: the server's reply, if one was the reason.
    @ivar outcome: what is known of the transaction that was cut off; L{None} if there was none,
        or nothing of it had been sent.
    """

    def __init__(
        self,
        phase: str,
        text: str,
        *,
        reply: Reply | None = None,
        outcome: TransactionOutcome | None = None,
    ) -> None:
        super().__init__(text)
        self.phase = phase
        self.text = text
        self.reply = reply
        self.outcome = outcome

    @property
    def partial(self) -> dict[int, Reply]:
        """The final refusals that some recipients had got before the end, by their indexes."""
        if self.outcome is None:
            return {}
        return {
            index: result.reply
            for index, result in enumerate(self.outcome.results)
            if not (result.local and result.reply.is_transient)
        }

    @property
    def possible_duplicate(self) -> bool:
        """Whether the server may have accepted the message without our knowing."""
        return self.outcome is not None and self.outcome.possible_duplicate


class SessionRefused(SMTPSessionError):
    """The server said no to the greeting, EHLO, STARTTLS, AUTH or RSET, or 421 while idle."""


class SessionAuthError(SMTPSessionError):
    """We do not log in: the connection is not safe enough, or there is no mechanism for it."""


class SessionLost(SMTPSessionError):
    """The connection is gone; C{__cause__} says how."""


class SessionTimeout(SMTPSessionError):
    """The server has kept us waiting too long."""


class SessionProtocolError(SMTPSessionError):
    """The server does not follow the protocol."""


class SessionTLSError(SMTPSessionError):
    """TLS could not be agreed on, or the server's certificate is not good enough."""


class SessionUnfitError(SMTPSessionError):
    """The server cannot keep what REQUIRETLS promises; C{reply} is ours, and says what it lacks."""


def cause_words(cause: BaseException | None) -> str:
    """Why a connection was lost, in words; OpenSSL's come in tuples."""
    if cause is None or isinstance(cause, ConnectionDone):
        return "the connection was closed"
    if isinstance(cause, SSL.Error) and cause.args and isinstance(cause.args[0], list):
        return ", ".join(str(entry[-1]) for entry in cause.args[0])
    return str(cause).rstrip(".") or type(cause).__name__


def loss_words(phase: Phase, cause: BaseException | None) -> str:
    """That a connection was lost in a phase, and how, for one line of a log."""
    text = f"lost connection while {PHASE_WORDS[phase]}"
    if not isinstance(cause, ConnectionDone):
        text = f"{text}: {cause_words(cause)}"
    return one_line(text, 400)
