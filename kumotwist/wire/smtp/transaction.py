"""A message on its way over one session, and what became of it for each recipient.

The rules by which replies become fates are RFC 5321's (3.3, 4.2.1, 4.5.3.1.10), RFC 2920's (3.1)
and experience's: the earliest error wins, and only the reply to the final dot says delivered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import attrs

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.envelope import (
    OutgoingTransaction,
    mail_command,
    message_refusal,
    plain_commands,
    rcpt_command,
    recipient_refusal,
)
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply

__all__ = [
    "OutgoingTransaction",
    "RecipientResult",
    "TransactionOutcome",
    "TransactionProgress",
    "phase_word",
]


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
        return self.reply.code < 400

    @property
    def permanent(self) -> bool:
        """Whether trying again is pointless.

        A 552 in answer to RCPT means "too many recipients" and is temporary (RFC 5321,
        4.5.3.1.10).
        """
        if self.reply.code == 552 and self.phase is Phase.RCPT:
            return False
        return self.reply.is_permanent


@attrs.define(frozen=True, slots=False)  # without slots it is made in half of the time
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
        self._capabilities = capabilities
        self.accepted: list[int] = []
        self._results: list[RecipientResult | None] = [None] * len(transaction.recipients)
        self._mail_refused = False
        plain = plain_commands(transaction, capabilities)
        self._only_rcpt: str | None = None
        if plain is not None:
            self.mail, self._only_rcpt = plain
            self.asked = [0]
            return
        self.mail = mail_command(transaction, capabilities)
        self._refuse_locally(capabilities)
        self.asked = [index for index, result in enumerate(self._results) if result is None]

    def rcpt(self, index: int) -> str:
        """The RCPT command for a recipient."""
        if self._only_rcpt is not None:
            return self._only_rcpt
        return rcpt_command(self.transaction, index, self._capabilities)

    # -- what the server says --------------------------------------------------------------------

    def all_accepted(self) -> None:
        """The replies to MAIL and to every RCPT were positive."""
        self.accepted = self.asked

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

    def dot_answered(self, reply: Reply, index: int | None = None) -> None:
        """The reply after the final dot: the only one that can say delivered.

        @param index: the recipient that it speaks of; all that were accepted, if absent.
        """
        if 300 <= reply.code < 400:
            raise _out_of_place(reply)
        result = RecipientResult(reply, Phase.DOT)
        for spoken_of in self.accepted if index is None else (index,):
            self._results[spoken_of] = result

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
        results: list[Any] = self._results  # all of them are known by now
        return TransactionOutcome(tuple(results), complete, possible_duplicate, usable)

    def _decide(self, indexes: list[int], result: RecipientResult) -> None:
        for index in indexes:
            self._results[index] = result

    # -- what is known without asking ------------------------------------------------------------

    def _refuse_locally(self, capabilities: Capabilities) -> None:
        recipients = self.transaction.recipients
        refusal = message_refusal(self.transaction, capabilities)
        if refusal is not None:
            self._decide(
                list(range(len(recipients))), RecipientResult(refusal, Phase.MAIL, local=True)
            )
            return
        for index, recipient in enumerate(recipients):
            refusal = recipient_refusal(recipient, capabilities)
            if refusal is not None:
                self._results[index] = RecipientResult(refusal, Phase.RCPT, local=True)


def _out_of_place(reply: Reply) -> RemoteProtocolError:
    return RemoteProtocolError(f"{str(reply)!r} is no answer to {reply.command.split(' ')[0]}")
