"""Reception: from a complete transaction to messages in the spool and in their queues.

The reply that says 250 is given after the commit, never before (RFC 5321, 6.1). If nobody waits
for the reply any more, what was stored is taken back: the client will try again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.interfaces import IReception, ISpool
from kumotwist.message.header import header_facts
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.message.received import received_line, received_opening
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.naming import Labels, Naming, NamingError
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.retry import first_due
from kumotwist.queue.tls_wishes import REQUIRED, WAIVED
from kumotwist.smtp.session import ServerSession
from kumotwist.spool import SpoolError, SpoolFullError
from kumotwist.wire.smtp.dsn import parse_envid, parse_notify, parse_orcpt, parse_ret
from kumotwist.wire.smtp.events import Recipient, Transaction
from kumotwist.wire.smtp.replies import EnhancedCode, Reply
from kumotwist.wire.smtp.syntax import CommandSyntaxError, domain_of

__all__ = ["Reception"]

#: A message with more trace lines than this goes in circles (RFC 5321, 6.3).
MAX_HOPS = 100
#: Ids in one line of the reply: with them it stays below 512 octets (RFC 5321, 4.5.3.1.5).
IDS_A_LINE = 14
#: Lines of ids in a reply; clients need not take any number of lines, and ours takes 128.
MAX_ID_LINES = 100

_ACCEPTED = EnhancedCode(2, 0, 0)


@implementer(IReception)
class Reception:
    """Takes what a listener received.

    @param clock: tells the time.
    @param insert: hands stored messages to their queues.
    @param postmaster: where mail for C{<postmaster>} without a domain goes; without it such mail
        is refused.
    @param naming: says which queues messages go to.
    @param untraced: listeners that put no C{Received} header in front.
    """

    _log = Logger()

    def __init__(
        self,
        clock: Any,
        spool: ISpool,
        bodies: Bodies,
        recorder: Recorder,
        insert: Callable[[Sequence[QueuedMessage]], None],
        naming: Naming,
        untraced: Iterable[str] = (),
        postmaster: str | None = None,
    ) -> None:
        self._postmaster = postmaster
        self._naming = naming
        self._clock = clock
        self._spool = spool
        self._bodies = bodies
        self._recorder = recorder
        self._insert = insert
        self._untraced = frozenset(untraced)
        #: Set while the node cannot take mail: the reply that clients get instead of a greeting.
        self.closed: Reply | None = None

    # -- questions --------------------------------------------------------------------------------

    def connected(self, session: ServerSession) -> Reply | None:
        """Greet, unless the node is not ready or stops."""
        return self.closed

    def sender(self, session: ServerSession, transaction: Transaction) -> Reply | None:
        """Any sender will do."""
        return None

    def recipient(
        self, session: ServerSession, transaction: Transaction, recipient: Recipient
    ) -> Reply | None:
        """Any recipient will do whose domain can be looked up and is not to be refused; the
        listener checked relaying."""
        try:
            domain = domain_of(self._address(recipient))
        except CommandSyntaxError:
            return Reply.of(553, "5.1.2", "the recipient's domain is not a valid host name")
        if not domain:
            return Reply.of(550, "5.1.1", "there are no mailboxes here; name a domain")
        refusal = self._naming.refusal(session, domain)
        return None if refusal is None else Reply.of(550, "5.7.1", refusal)

    def _address(self, recipient: Recipient) -> str:
        """Where a recipient's mail goes: only C{postmaster} may stand without a domain."""
        if self._postmaster is None or "@" in recipient.address:
            return recipient.address
        return self._postmaster

    def rejected(
        self,
        session: ServerSession,
        reply: Reply,
        command: str,
        sender: str = "",
        recipients: Sequence[str] = (),
    ) -> None:
        """Record what a client was refused."""
        self._recorder.rejection(session, reply, command, sender, recipients)

    # -- messages ---------------------------------------------------------------------------------

    def receive(self, session: ServerSession, transaction: Transaction) -> Deferred[Reply]:
        """Store the message for each of its recipients; see L{IReception}."""
        header = header_facts(transaction.body)
        if header.received > MAX_HOPS:
            return succeed(Reply.of(554, "5.4.6", "too many hops: this message goes in circles"))
        now = self._clock.seconds()
        try:
            labels, body = self._naming.read(session, transaction.body)
        except NamingError as error:
            return succeed(Reply.of(554, "5.6.0", str(error)))
        meta: dict[str, Any] = {**session.facts}
        if header.waives_tls:
            meta[WAIVED] = True
        messages = self._messages(transaction, labels, meta, now)
        body = self._traced(session, body, messages, now)
        size = len(body)
        for message in messages:
            message.size = size
        answer: Deferred[Reply] = Deferred()
        self._spool.store(body, messages).addCallbacks(
            self._stored,
            self._not_stored,
            (answer, session, messages, body, transaction.plain),
            errbackArgs=(answer,),
        )
        return answer

    def _stored(
        self,
        _: None,
        answer: Deferred[Reply],
        session: ServerSession,
        messages: list[QueuedMessage],
        body: bytes,
        plain: bool,
    ) -> None:
        """The messages are on disk."""
        if answer.called:
            # It was cancelled: the client has left, or data_processing_timeout was over.
            self._log.warn(
                "{id} was stored too late, nobody waits for it; taken back", id=messages[0].id
            )
            self._spool.remove(messages).addErrback(self._not_taken_back)
            return
        # First of all the reply: the messages are ours whatever happens now.
        reply = _accepted(messages)
        answer.callback(reply)
        try:
            self._take(session, messages, body, plain, reply)
        except Exception:
            self._log.failure("reception failed")

    def _not_stored(self, failure: Failure, answer: Deferred[Reply]) -> None:
        if not answer.called:
            answer.callback(self._refuse(failure))

    def _messages(
        self, transaction: Transaction, labels: Labels, meta: dict[str, Any], now: float
    ) -> list[QueuedMessage]:
        """Make a message for each recipient.

        @param meta: what is known already of all of them.
        """
        parameters = transaction.parameters
        if parameters:
            if parameters.get("BODY"):
                meta["body"] = parameters["BODY"]
            if "SMTPUTF8" in parameters:
                meta["smtputf8"] = True
            if "REQUIRETLS" in parameters:
                meta.pop(WAIVED, None)
                meta[REQUIRED] = True
        if labels.timing:
            meta["timing"] = dict(labels.timing)
        messages = []
        for recipient in transaction.recipients:
            address = self._address(recipient)
            own = {**meta}
            if parameters or recipient.parameters:
                own.update(_wishes(transaction, recipient))
            # Its size is known when the trace line has been made, which names it.
            queue = self._naming.name(labels, domain_of(address))
            messages.append(
                QueuedMessage(new_id(now), transaction.sender, address, queue, 0, now, now, 0, own)
            )
        if labels.timing:
            for message in messages:
                message.due = first_due(message)
        return messages

    def _traced(
        self,
        session: ServerSession,
        body: bytes,
        messages: list[QueuedMessage],
        now: float,
    ) -> bytes:
        if session.listener in self._untraced:
            return body
        smtputf8 = "smtputf8" in messages[0].meta
        name = "received, smtputf8" if smtputf8 else "received"
        opening = session.forms.get(name)
        if opening is None:
            opening = session.forms[name] = _opening(session, smtputf8)
        recipients = [message.recipient for message in messages[:2]]  # one is named, or none
        return received_line(opening, messages[0].id, now, recipients) + body

    def _take(
        self,
        session: ServerSession,
        messages: list[QueuedMessage],
        body: bytes,
        plain: bool,
        reply: Reply,
    ) -> None:
        """Record stored messages and hand them to their queues."""
        for message in messages:
            message.body = body
            message.plain = plain
            self._bodies.keep(message)
            answer = reply if len(messages) == 1 else _accepted([message])
            self._recorder.reception(message, answer, session)
        self._insert(messages)

    def _refuse(self, failure: Failure) -> Reply:
        if failure.check(SpoolFullError):
            return Reply.of(452, "4.3.1", "the disk is full or read-only; try again later")
        if not failure.check(SpoolError):
            self._log.failure("the spool failed to store a message", failure)
        return Reply.of(451, "4.3.0", "the message could not be stored; try again later")

    def _not_taken_back(self, failure: Failure) -> None:
        self._log.error("cannot take back a message: {reason}", reason=failure.getErrorMessage())


def _opening(session: ServerSession, smtputf8: bool) -> tuple[str, int]:
    """What the trace lines of a session's messages have in common."""
    tls = session.tls
    return received_opening(
        session.ehlo_domain,
        session.peer.host,
        session.hostname,
        session.protocol,
        tls.protocol_version if tls else None,
        tls.cipher if tls else None,
        tls.peer_subject if tls else None,
        smtputf8=smtputf8,
    )


def _wishes(transaction: Transaction, recipient: Recipient) -> dict[str, Any]:
    """What the sender wants to be told of one recipient's copy (RFC 3461), for reports."""
    wishes: dict[str, Any] = {}
    if "RET" in transaction.parameters:
        wishes["dsn_ret"] = parse_ret(transaction.parameters["RET"])
    if "ENVID" in transaction.parameters:
        wishes["dsn_envid"] = parse_envid(transaction.parameters["ENVID"])
    if "NOTIFY" in recipient.parameters:
        wishes["dsn_notify"] = sorted(parse_notify(recipient.parameters["NOTIFY"]))
    if "ORCPT" in recipient.parameters:
        wishes["dsn_orcpt"] = parse_orcpt(recipient.parameters["ORCPT"])
    return wishes


def _accepted(messages: list[QueuedMessage]) -> Reply:
    """The reply that takes responsibility, with the ids by which the messages are known."""
    if len(messages) == 1:
        return Reply(250, _ACCEPTED, (f"OK ids={messages[0].id}",), ".")
    ids = [message.id for message in messages]
    starts = range(0, min(len(ids), MAX_ID_LINES * IDS_A_LINE), IDS_A_LINE)
    lines = [f"ids={','.join(ids[start : start + IDS_A_LINE])}" for start in starts]
    lines[0] = f"OK {lines[0]}"
    left = len(ids) - MAX_ID_LINES * IDS_A_LINE
    if left > 0:
        lines.append(f"and {left} more")
    return Reply(250, _ACCEPTED, tuple(lines), ".")
