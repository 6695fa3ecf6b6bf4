"""A message on its way over one session, and what became of it for each recipient.

The rules by which replies become fates are RFC 5321's (3.3, 4.2.1, 4.5.3.1.10), RFC 2920's (3.1)
and experience's: the earliest error wins, and only the reply to the final dot says delivered.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import attrs

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.data import is_canonical
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import CommandSyntaxError, parse_mailbox

__all__ = [
    "OutgoingTransaction",
    "RecipientResult",
    "TransactionOutcome",
    "TransactionProgress",
    "phase_word",
]

# The addresses that need no closer look: printable ASCII without quotes, brackets and backslashes.
_PLAIN_ADDRESS = re.compile(r"[!#-;=?-\[\]-~]{0,254}")


@attrs.define(frozen=True)
class OutgoingTransaction:
    """A message for one or more recipients at one site.

    @ivar sender: the envelope sender without brackets; empty for the null sender.
    @ivar recipients: the envelope recipients without brackets; at least one.
    @ivar body: the message, header included: CRLF line ends, not dot-stuffed.
    @ivar body_8bit: whether the message was declared as BODY=8BITMIME (RFC 6152). What its
        octets really need is looked at in any case.
    @ivar smtputf8: whether the message needs SMTPUTF8 whatever its addresses are: its header
        has characters beyond ASCII (RFC 6531, 3.4).
    @ivar line_ends_checked: whether the caller knows that every line end is CRLF. If not, all of
        the body is looked at once more before it is sent.
    """

    sender: str
    recipients: tuple[str, ...]
    body: bytes = attrs.field(repr=False)
    body_8bit: bool = False
    smtputf8: bool = False
    line_ends_checked: bool = False

    @property
    def needs_8bit(self) -> bool:
        """Whether there are octets above 127, which must not be sent to a 7-bit server."""
        return not self.body.isascii()

    @property
    def size(self) -> int:
        """Octets as RFC 1870 counts them: every line with its CRLF, the stuffing left out."""
        whole = not self.body or self.body.endswith(b"\r\n")
        return len(self.body) if whole else len(self.body) + 2


class RecipientResult(NamedTuple):
    """What became of one recipient.

    @ivar reply: the reply that decided it.
    @ivar phase: what the reply answers: C{MAIL}, C{RCPT}, C{DATA}, C{BODY} or C{DOT}. For a reply
        of our own it is where a server would have given it, or where the session ended.
    @ivar local: whether the reply is our own: the server was not asked, or did not answer.
    """

    reply: Reply
    phase: Phase
    local: bool = False

    @property
    def delivered(self) -> bool:
        """Whether the server has taken responsibility for the message to this recipient."""
        return self.reply.is_positive

    @property
    def permanent(self) -> bool:
        """Whether trying again is pointless.

        A 552 in answer to RCPT means "too many recipients" and is temporary (RFC 5321,
        4.5.3.1.10).
        """
        if self.reply.code == 552 and self.phase is Phase.RCPT:
            return False
        return self.reply.is_permanent


@attrs.define(frozen=True)
class TransactionOutcome:
    """The end of a transaction.

    @ivar results: one for each recipient, in the transaction's order.
    @ivar complete: whether every fate is decided. If not, the transaction was cut off, and the
        undecided recipients have a local, temporary reply that says how.
    @ivar possible_duplicate: whether it was cut off after the final dot and before its reply:
        the server may have accepted the message all the same (RFC 1047).
    @ivar session_usable: whether the session can take another transaction.
    """

    results: tuple[RecipientResult, ...]
    complete: bool = True
    possible_duplicate: bool = False
    session_usable: bool = True

    @property
    def replies(self) -> tuple[Reply, ...]:
        """The deciding replies alone, one for each recipient."""
        return tuple(result.reply for result in self.results)

    @property
    def phases(self) -> tuple[str, ...]:
        """What the replies answer, one word for each recipient; the body counts as C{data}."""
        return tuple(phase_word(result.phase) for result in self.results)


def phase_word(phase: Phase) -> str:
    """The word for a phase in records and verdicts, where the body belongs to DATA."""
    return Phase.DATA.value if phase is Phase.BODY else phase.value


class TransactionProgress:
    """Turns the replies of one transaction into results.

    @ivar transaction: what is being sent.
    @ivar asked: indexes of the recipients that the server is asked about, in their order.
    @ivar mail: the MAIL command, with the parameters that the server understands.
    @ivar accepted: indexes of the recipients that the server took.
    """

    def __init__(self, transaction: OutgoingTransaction, capabilities: Capabilities) -> None:
        self.transaction = transaction
        self.mail = _mail_command(transaction, capabilities)
        self.accepted: list[int] = []
        self._results: list[RecipientResult | None] = [None] * len(transaction.recipients)
        self._mail_refused = False
        self._refuse_locally(capabilities)
        self.asked = [index for index, result in enumerate(self._results) if result is None]

    def rcpt(self, index: int) -> str:
        """The RCPT command for a recipient."""
        return f"RCPT TO:<{self.transaction.recipients[index]}>"

    # -- what the server says --------------------------------------------------------------------

    def mail_answered(self, reply: Reply) -> None:
        """The reply to MAIL: a refusal is everybody's result, whatever follows."""
        if reply.code < 300:
            return
        if reply.code < 400:
            raise _out_of_place(reply)
        self._mail_refused = True
        self._decide(self.asked, RecipientResult(reply, Phase.MAIL))

    def rcpt_answered(self, index: int, reply: Reply) -> None:
        """The reply to a RCPT; 251 and 252 accept like 250 (RFC 5321, 3.4, 3.5.3)."""
        if 300 <= reply.code < 400:
            raise _out_of_place(reply)
        if self._mail_refused:
            return
        if reply.is_positive:
            self.accepted.append(index)
        else:
            self._results[index] = RecipientResult(reply, Phase.RCPT)

    def data_answered(self, reply: Reply) -> bool:
        """The reply to DATA: true if the server now waits for a message.

        It may do so though it took no recipient; then a lone dot is due (RFC 2920, 3.1).
        """
        if reply.code < 300:
            raise _out_of_place(reply)
        if reply.is_positive:
            return True
        self._decide(self.accepted, RecipientResult(reply, Phase.DATA))
        return False

    def dot_answered(self, reply: Reply) -> None:
        """The reply after the final dot: the only one that can say delivered."""
        if 300 <= reply.code < 400:
            raise _out_of_place(reply)
        self._decide(self.accepted, RecipientResult(reply, Phase.DOT))

    def cut_off(self, reply: Reply, phase: Phase, *, local: bool) -> bool:
        """Give every recipient without a result this one; true if there were any.

        @param reply: a server's 421, or a reply of our own that says how the session ended.
        @param phase: where it ended.
        """
        undecided = [index for index, result in enumerate(self._results) if result is None]
        self._decide(undecided, RecipientResult(reply, phase, local))
        return bool(undecided)

    def outcome(
        self, *, complete: bool = True, possible_duplicate: bool = False, usable: bool = True
    ) -> TransactionOutcome:
        """The outcome, once every recipient has its result."""
        results = tuple(result for result in self._results if result is not None)
        return TransactionOutcome(results, complete, possible_duplicate, usable)

    def _decide(self, indexes: list[int], result: RecipientResult) -> None:
        for index in indexes:
            self._results[index] = result

    # -- what is known without asking ------------------------------------------------------------

    def _refuse_locally(self, capabilities: Capabilities) -> None:
        recipients = self.transaction.recipients
        refusal = _message_refusal(self.transaction, capabilities)
        if refusal is not None:
            self._decide(
                list(range(len(recipients))), RecipientResult(refusal, Phase.MAIL, local=True)
            )
            return
        for index, recipient in enumerate(recipients):
            refusal = _recipient_refusal(recipient, capabilities)
            if refusal is not None:
                self._results[index] = RecipientResult(refusal, Phase.RCPT, local=True)


def _out_of_place(reply: Reply) -> RemoteProtocolError:
    return RemoteProtocolError(f"{str(reply)!r} is no answer to {reply.command.split(' ')[0]}")


def _mail_command(transaction: OutgoingTransaction, capabilities: Capabilities) -> str:
    parts = [f"MAIL FROM:<{transaction.sender}>"]
    if capabilities.size:
        parts.append(f"SIZE={transaction.size}")
    if capabilities.eight_bit_mime and (transaction.body_8bit or transaction.needs_8bit):
        parts.append("BODY=8BITMIME")
    if capabilities.smtputf8 and (
        transaction.smtputf8
        or not transaction.sender.isascii()
        or not all(map(str.isascii, transaction.recipients))
    ):
        parts.append("SMTPUTF8")
    return " ".join(parts)


def _message_refusal(transaction: OutgoingTransaction, capabilities: Capabilities) -> Reply | None:
    """Why this server cannot get this message at all, whoever it is for."""
    fault = _address_fault(transaction.sender)
    if fault:
        return Reply.of(553, "5.1.7", f"the sender cannot be put into a command: {fault}")
    limit = capabilities.size_limit
    if limit and transaction.size > limit:
        text = f"the message has {transaction.size} octets, the server takes at most {limit}"
        return Reply.of(552, "5.3.4", text)
    if not (transaction.line_ends_checked or is_canonical(transaction.body)):
        return Reply.of(554, "5.6.0", "the message has a CR or LF that is not part of a line end")
    if not capabilities.eight_bit_mime and transaction.needs_8bit:
        return Reply.of(554, "5.6.3", "the message has 8-bit data, the server lacks 8BITMIME")
    unicode = transaction.smtputf8 or not transaction.sender.isascii()
    if unicode and not capabilities.smtputf8:
        return Reply.of(554, "5.6.7", "the message needs SMTPUTF8, which the server lacks")
    return None


def _recipient_refusal(recipient: str, capabilities: Capabilities) -> Reply | None:
    """Why this server cannot be asked about this recipient."""
    fault = _address_fault(recipient) if recipient else "it is empty"
    if fault:
        return Reply.of(553, "5.1.3", f"the recipient cannot be put into a command: {fault}")
    if not recipient.isascii() and not capabilities.smtputf8:
        return Reply.of(553, "5.6.7", "the address needs SMTPUTF8, which the server lacks")
    return None


def _address_fault(address: str) -> str:
    """What is wrong with an address, so that it could break out of its command; usually empty."""
    if _PLAIN_ADDRESS.fullmatch(address):
        return ""
    try:
        parse_mailbox(address)
    except CommandSyntaxError as error:
        return str(error)
    return ""
