"""A sink for trials: takes the mail of every domain, keeps nothing, and says where it came from.

It can be told to answer late, or to refuse some of what it is asked, so that queues, retries and
reports can be watched at work (see L{kumotwist.smtp.settings.SinkSettings}).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.interfaces import IReception
from kumotwist.settings.types import IPNetwork
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.wire.smtp.events import Recipient, Transaction
from kumotwist.wire.smtp.replies import Reply, one_line

__all__ = ["SinkReception", "sink_factory"]

_EVERYWHERE: tuple[IPNetwork, ...] = (
    ipaddress.ip_network("0.0.0.0/0"),
    ipaddress.ip_network("::/0"),
)
_TAKEN = Reply.of(250, "2.0.0", "taken, and not kept")
#: Recipients that are named in a line of the log.
_NAMED = 5


class _Refusals:
    """Says which of the questions of a stage are refused: every Nth, or so many of a hundred.

    A percentage is spread evenly, without chance, so that a trial can be repeated.
    """

    def __init__(self, settings: SinkSettings) -> None:
        self._reply = settings.refuse
        self._every = settings.refuse_every
        self._percent = settings.refuse_percent
        self._asked = 0

    def next(self) -> Reply | None:
        """The refusal of one more question, if it is to be refused."""
        self._asked += 1
        if self._every:
            refused = self._asked % self._every == 0
        else:
            before = (self._asked - 1) * self._percent // 100
            refused = self._asked * self._percent // 100 > before
        return self._reply if refused else None


@implementer(IReception)
class SinkReception:
    """Takes everything that it was not told to refuse.

    @param clock: for answers that are held back.
    @ivar counts: C{connections}, C{messages}, C{recipients}, C{octets}, C{refused}.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, settings: SinkSettings) -> None:
        self._clock = clock
        self._settings = settings
        self._refusals = _Refusals(settings)
        self.counts: Counter[str] = Counter()

    def connected(self, session: ServerSession) -> Reply | Deferred[Reply | None] | None:
        """Greet, unless told otherwise."""
        self.counts["connections"] += 1
        return self._answer("connect")

    def sender(
        self, session: ServerSession, transaction: Transaction
    ) -> Reply | Deferred[Reply | None] | None:
        """Any sender will do, unless told otherwise."""
        return self._answer("mail")

    def recipient(
        self, session: ServerSession, transaction: Transaction, recipient: Recipient
    ) -> Reply | Deferred[Reply | None] | None:
        """Any recipient will do, unless told otherwise."""
        return self._answer("rcpt")

    def receive(self, session: ServerSession, transaction: Transaction) -> Deferred[Reply]:
        """Log the message and forget it, unless told otherwise."""
        reply = self._verdict("data") or _TAKEN
        if reply.is_positive:
            self.counts["messages"] += 1
            self.counts["recipients"] += len(transaction.recipients)
            self.counts["octets"] += len(transaction.body)
            self._tell(session, transaction)
        return self._held_back("data", lambda: reply) or succeed(reply)

    def rejected(
        self,
        session: ServerSession,
        reply: Reply,
        command: str,
        sender: str = "",
        recipients: Sequence[str] = (),
    ) -> None:
        """Log what was refused, by this object or by the listener."""
        self.counts["refused"] += 1
        self._log.info(
            "sink {listener}: refused {peer} at {command}: {reply}",
            listener=session.listener,
            peer=str(session.peer),
            command=command or "connection",
            reply=str(reply),
        )

    def _verdict(self, stage: str) -> Reply | None:
        if self._settings.refuse is None or self._settings.refuse_at != stage:
            return None
        return self._refusals.next()

    def _answer(self, stage: str) -> Reply | Deferred[Reply | None] | None:
        reply = self._verdict(stage)
        return self._held_back(stage, lambda: reply) or reply

    def _held_back(self, stage: str, answer: Callable[[], Any]) -> Deferred[Any] | None:
        if not self._settings.delay or self._settings.delay_at != stage:
            return None
        return deferLater(self._clock, self._settings.delay, answer)

    def _tell(self, session: ServerSession, transaction: Transaction) -> None:
        named = [one_line(each.address, 320) for each in transaction.recipients[:_NAMED]]
        more = len(transaction.recipients) - len(named)
        if more:
            named.append(f"and {more} more")
        tls = session.tls
        self._log.info(
            "sink {listener}: from {peer} ({ehlo}) {protocol}: <{sender}> to {recipients}, "
            "{size} octets, {tls}",
            listener=session.listener,
            peer=str(session.peer),
            ehlo=session.ehlo_domain,
            protocol=session.protocol,
            sender=one_line(transaction.sender, 320),
            recipients=", ".join(named),
            size=len(transaction.body),
            tls="no TLS" if tls is None else f"{tls.protocol_version} {tls.cipher}",
        )


def sink_factory(
    reactor: IReactorTime,
    settings: SinkSettings,
    tls_context_factory: Any = None,
    node_hostname: str | None = None,
) -> ESMTPListenerFactory:
    """Make the factory of a sink; its C{reception} is a L{SinkReception}.

    Whoever reaches it may send to any domain, so it should listen where only trials come from.

    @param tls_context_factory: see L{ESMTPListenerFactory}.
    @param node_hostname: see L{ESMTPListenerFactory}.
    """
    listener = ListenerSettings(
        name=settings.name,
        listen=settings.listen,
        hostname=settings.hostname,
        banner="kumotwist sink",
        relay_hosts=_EVERYWHERE,
        max_message_size=settings.max_message_size,
        tls=settings.tls,
        dsn=False,
    )
    reception = SinkReception(reactor, settings)
    return ESMTPListenerFactory(reactor, listener, reception, tls_context_factory, node_hostname)
