"""The one room that says what a failure means.

Whoever meets a failure (a connection, a reply, a look-up) brings it here and gets a L{Verdict}:
how far it reaches, whether it is final, whether an attempt is charged, and whom it speaks
against. Nobody else decides that. What is not known is temporary.

The scopes are Postfix's (C{smtp_trouble.c}) with one more for what lies before the destination:

  - C{SOURCE}: the way out is broken (its proxy, its address). Other sources carry the mail, no
    attempt is charged, nothing is bounced.
  - C{HOST}: this host, this time. The next host of the plan is tried.
  - C{SITE}: every host of the plan. The messages at hand wait.
  - C{MESSAGE}: this message for all of its recipients.
  - C{RECIPIENT}: this recipient.
"""

from __future__ import annotations

import enum
import errno

import attrs
from twisted.internet import error

from kumotwist.dns import DNSError
from kumotwist.egress.source import EXHAUSTED
from kumotwist.endpoints.errors import (
    AddressFamilyMismatchError,
    AddressTypeNotSupportedError,
    EgressError,
    GeneralFailureError,
    NotAllowedError,
)
from kumotwist.queue.plan import MailLoopError, NullMXError
from kumotwist.smtp.client import (
    SessionAuthError,
    SessionLost,
    SessionProtocolError,
    SessionRefused,
    SessionTimeout,
    SessionTLSError,
    SMTPSessionError,
)
from kumotwist.smtp.session_errors import SessionUnfitError
from kumotwist.tls.policy import TLSDemand
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply, one_line
from kumotwist.wire.smtp.transaction import RecipientResult

__all__ = [
    "INTERNAL",
    "Scope",
    "Verdict",
    "internal_reply",
    "judge_connect",
    "judge_lookup",
    "judge_refusal",
    "judge_result",
    "judge_session",
]

#: How internal texts begin, so that nobody takes them for the destination's words.
INTERNAL = "kumotwist internal: "

# The kernel knows nothing of this family of addresses.
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})
# What connect() says at once, without having asked anybody: the source address cannot reach such
# a destination (loopback to the world, the world to fe80::), or has no port left towards it.
_LOCAL = frozenset({errno.EINVAL, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM})

# A working proxy's answers to one destination: it may say yes to the next.
_CHOOSY = (GeneralFailureError, NotAllowedError, AddressTypeNotSupportedError)


class Scope(enum.Enum):
    """How far a failure reaches."""

    SOURCE = "source"
    HOST = "host"
    SITE = "site"
    MESSAGE = "message"
    RECIPIENT = "recipient"


@attrs.define(frozen=True)
class Verdict:
    """What a failure means.

    @ivar scope: how far it reaches.
    @ivar reply: what the record and the sender's report quote; ours where nobody answered.
    @ivar permanent: it ends the message; else the message is tried again.
    @ivar charge: it counts as an attempt of the message.
    @ivar blame: C{"source"}, C{"host"} or C{"message"}; C{"nobody"} where nothing is known.
    @ivar suspected: the blame is a suspicion, because the proxy cannot explain itself.
    @ivar possible_duplicate: the destination may have taken the message.
    """

    scope: Scope
    reply: Reply
    permanent: bool = False
    charge: bool = True
    blame: str = "host"
    suspected: bool = False
    possible_duplicate: bool = False


def internal_reply(code: int, enhanced: str, text: str, command: str = "") -> Reply:
    """A reply of our own making, marked as such."""
    return Reply.of(code, enhanced, one_line(INTERNAL + text))._replace(command=command)


def judge_connect(failure: BaseException, target: str) -> Verdict:
    """Judge a connection that could not be made.

    @param failure: what the endpoint failed with.
    @param target: the destination and the way to it, in words.
    """
    if isinstance(failure, AddressFamilyMismatchError):
        reply = internal_reply(451, "4.4.4", str(failure))
        return Verdict(Scope.HOST, reply, charge=False, blame="nobody")
    if isinstance(failure, EgressError):
        if failure.ambiguous:
            reply = internal_reply(451, "4.4.1", f"suspected proxy failure: {failure}")
            return Verdict(Scope.HOST, reply, suspected=True)
        if failure.blames == "proxy":
            reply = internal_reply(451, "4.4.1", str(failure))
            suspected = isinstance(failure, _CHOOSY)
            return Verdict(Scope.SOURCE, reply, False, False, "source", suspected)
        return Verdict(Scope.HOST, internal_reply(451, "4.4.1", str(failure)))
    if isinstance(failure, error.ConnectBindError):
        return _judge_bind(failure, target)
    if isinstance(failure, error.TimeoutError):
        return Verdict(Scope.HOST, internal_reply(451, "4.4.1", f"{target}: connecting timed out"))
    text = f"{target}: cannot connect: {_words(failure)}"
    number = getattr(failure, "osError", None)
    if number in _NO_FAMILY:
        return Verdict(Scope.HOST, internal_reply(451, "4.4.4", text), charge=False, blame="nobody")
    # Not the source's fault even where this machine refuses: the destination's owner chose an
    # address such as fe80::1, and must not be able to stop other mail with it.
    blame = "nobody" if number in _LOCAL else "host"
    return Verdict(Scope.HOST, internal_reply(451, "4.4.1", text), blame=blame)


def _judge_bind(failure: error.ConnectBindError, target: str) -> Verdict:
    """A connection of our own that did not get as far as asking the network."""
    number = failure.osError
    if number in _NO_FAMILY:
        text = f"{target}: this machine cannot use such addresses: {_words(failure)}"
        return Verdict(Scope.HOST, internal_reply(451, "4.4.4", text), charge=False, blame="nobody")
    if number in EXHAUSTED:
        text = f"{target}: this machine cannot open another connection: {_words(failure)}"
        reply = internal_reply(451, "4.3.2", text)
        return Verdict(Scope.SOURCE, reply, charge=False, blame="nobody")
    text = f"{target}: this machine cannot send from the source address: {_words(failure)}"
    reply = internal_reply(451, "4.4.1", text)
    return Verdict(Scope.SOURCE, reply, charge=False, blame="source")


def judge_session(
    failure: BaseException, target: str, *, unexplained_proxy: str = "", reused: bool = False
) -> Verdict:
    """Judge an SMTP session that ended before its transaction did.

    @param target: the destination and the way to it, in words.
    @param unexplained_proxy: a proxy that cannot report failures, if the session runs through
        one and nothing has been heard from beyond it.
    @param reused: whether earlier transactions succeeded on this connection.
    """
    if not isinstance(failure, SMTPSessionError):
        reply = internal_reply(451, "4.3.0", f"{target}: {_words(failure)}")
        return Verdict(Scope.MESSAGE, reply, blame="nobody")
    if unexplained_proxy and isinstance(failure, SessionLost | SessionTimeout):
        text = (
            f"{target}: suspected proxy failure: {failure.text}; {unexplained_proxy} cannot say "
            "whether it refused the source address or the destination did not answer"
        )
        return Verdict(Scope.HOST, internal_reply(451, "4.4.1", text), suspected=True)
    if failure.possible_duplicate:
        text = f"{target}: {failure.text}"
        if "more than once" not in text:
            text += "; the message may be delivered more than once"
        reply = internal_reply(451, "4.4.2", text, ".")
        return Verdict(Scope.MESSAGE, reply, possible_duplicate=True)
    if isinstance(failure, SessionRefused) and failure.reply is not None:
        return _judge_refused(failure, failure.reply, reused)
    if isinstance(failure, SessionUnfitError) and failure.reply is not None:
        return Verdict(Scope.HOST, failure.reply, permanent=True, blame="message")
    if isinstance(failure, SessionTLSError):
        reply = failure.reply or internal_reply(451, "4.7.5", f"{target}: {failure.text}")
        return Verdict(Scope.HOST, reply)
    if isinstance(failure, SessionAuthError):
        reply = internal_reply(451, "4.7.0", f"{target}: {failure.text}")
        return Verdict(Scope.HOST, reply, blame="nobody")
    enhanced = "4.4.2" if isinstance(failure, SessionLost | SessionTimeout) else "4.5.0"
    reply = internal_reply(451, enhanced, f"{target}: {failure.text}")
    scope = Scope.MESSAGE if failure.phase == "data" else Scope.HOST
    # A connection that was lost between two messages says nothing of the second one.
    charge = not (reused and failure.phase in {"idle", "rset", "mail"})
    if isinstance(failure, SessionProtocolError):
        charge = True
    return Verdict(scope, reply, charge=charge)


def _judge_refused(failure: SMTPSessionError, reply: Reply, reused: bool) -> Verdict:
    """A session refused by a reply: to the greeting, EHLO, STARTTLS, AUTH, or 421 at any time."""
    if failure.phase == Phase.AUTH.value:
        # It is the operator who has to do something; no message is to blame.
        return Verdict(Scope.HOST, reply, blame="nobody")
    charge = not (reused and failure.phase in {"idle", "rset", "mail"})
    # RFC 5321, 3.1: 554 at the greeting is this host's word on this connection, not on the mail;
    # so is 521, "no mail here" (RFC 7504, 2): others may be better informed.
    return Verdict(Scope.HOST, reply, charge=charge)


def judge_result(
    result: RecipientResult, *, reused: bool = False, progress: bool = False
) -> Verdict:
    """Judge what a transaction that ran to its end says of a recipient that did not get it.

    @param reused: whether earlier transactions succeeded on this connection.
    @param progress: whether other recipients of the same transaction got the message.
    """
    reply = result.reply
    if result.local and not reply.content.startswith(INTERNAL):
        # Nobody shall take our words for the destination's.
        reply = internal_reply(
            reply.code, str(reply.enhanced_code or "5.0.0"), reply.content, reply.command
        )
    if progress and _too_many_recipients(result):
        # The rest of them are due at once, in a transaction of their own (RFC 5321, 4.5.3.1.10).
        return Verdict(Scope.HOST, reply, charge=False, blame="nobody")
    if reply.code == 421 and not result.local:
        # The host closes (RFC 5321, 3.8): it says nothing of the message, another host may take
        # it, and on a connection that worked so far not even an attempt is charged.
        return Verdict(Scope.HOST, reply, charge=not (reused and result.phase is Phase.MAIL))
    scope = Scope.RECIPIENT if result.phase is Phase.RCPT else Scope.MESSAGE
    # 503 says that the conversation went wrong, not the message; 530, that a login (RFC 4954, 6)
    # or TLS (RFC 3207, 4) is missing, which the operator can mend.
    permanent = result.permanent and reply.code not in {503, 530}
    return Verdict(scope, reply, permanent=permanent, blame="message")


def _too_many_recipients(result: RecipientResult) -> bool:
    """Whether a server says that it takes no more recipients in one transaction."""
    reply = result.reply
    if result.local or result.phase is not Phase.RCPT or reply.code not in {452, 552}:
        return False
    # 452 4.2.2 is a full mailbox, 452 4.3.1 a full disk.
    return reply.enhanced_code is None or reply.enhanced_code[1:] == (5, 3)


def judge_refusal(demand: TLSDemand, host: str) -> Verdict:
    """Judge a host that is not dialled, since what is demanded of its TLS cannot be met now."""
    reply = internal_reply(451, "4.7.5", f"{host} is not used: {demand.refusal}")
    return Verdict(Scope.HOST, reply)


def judge_lookup(failure: BaseException, domain: str) -> Verdict:
    """Judge a look-up that gave no hosts."""
    if isinstance(failure, DNSError):
        if failure.permanent:
            # 5.1.2 is a domain that does not exist.
            code, enhanced = 550, "5.1.2"
            if isinstance(failure, NullMXError):
                code, enhanced = 556, "5.1.10"  # RFC 7505, 4.2
            elif isinstance(failure, MailLoopError):
                code, enhanced = 554, "5.4.6"  # RFC 3463, 3.5
            reply = internal_reply(code, enhanced, failure.text)
            return Verdict(Scope.SITE, reply, permanent=True, blame="message")
        return Verdict(Scope.SITE, internal_reply(451, "4.4.3", failure.text), blame="nobody")
    text = f"looking up {domain}: {_words(failure)}"
    return Verdict(Scope.SITE, internal_reply(451, "4.4.3", text), blame="nobody")


def _words(failure: BaseException) -> str:
    """An exception in words, for one line of a log."""
    return one_line(str(failure) or type(failure).__name__)
