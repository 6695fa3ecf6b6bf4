"""Writes what happens to messages: a record for the journal, an event for whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from kumotwist.interfaces import IJournal, ITrace
from kumotwist.journal.attempts import AttemptForm
from kumotwist.journal.receptions import ReceptionForm
from kumotwist.journal.records import RecordType, SourceAddress, make_record
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.counters import DeliveryCounters
from kumotwist.smtp.session import ServerSession
from kumotwist.tls.facts import TLSFacts
from kumotwist.wire.smtp.replies import Reply

__all__ = ["AttemptFacts", "Recorder"]


@attrs.define(frozen=True)
class AttemptFacts:
    """What is known of an attempt when its outcome is recorded.

    @ivar host: the destination's name; empty if none was reached.
    @ivar peer: its address.
    @ivar source_address: C{ADDR:PORT} that the mail left from, as the proxy told it, or that was
        asked for, with port 0; may be empty.
    @ivar proxy_server: the proxy; empty for a direct connection.
    @ivar protocol: C{"socks5"}, C{"haproxy"} or empty.
    @ivar delivery_protocol: C{"ESMTP"} or C{"LMTP"}.
    @ivar tls_policy: where the demand that the host's TLS had to meet came from.
    @ivar dsn: whether the host was told what the sender wants to hear of (RFC 3461).
    """

    pool: str = ""
    source: str = ""
    site: str = ""
    host: str = ""
    peer: str = ""
    source_address: str = ""
    proxy_server: str = ""
    protocol: str = ""
    session_id: str = ""
    delivery_protocol: str = "ESMTP"
    tls: TLSFacts | None = None
    tls_policy: str = ""
    dsn: bool = False
    #: What a recorder has written down of it, by the node's id.
    forms: dict[str, AttemptForm] = attrs.field(factory=dict, init=False, repr=False, eq=False)


class Recorder:
    """Turns facts into records and events.

    @param clock: tells the time; seconds since the epoch.
    @ivar counters: what it has recorded, in numbers.

    @param nodeid: this node's id.
    """

    def __init__(self, clock: Any, journal: IJournal, trace: ITrace, nodeid: str) -> None:
        self._clock = clock
        self._journal = journal
        self._nodeid = nodeid
        self.trace = trace
        self.counters = DeliveryCounters()

    def attempt(
        self,
        kind: RecordType,
        message: QueuedMessage,
        reply: Reply,
        facts: AttemptFacts,
        pool: str = "",
    ) -> None:
        """Record an outcome.

        @param pool: the message's pool, where that is not the one that the connection was made
            for: messages of several pools may share it.
        """
        pool = pool or facts.pool
        self.counters.count(kind, facts.source, pool)
        forms = facts.forms
        form = forms.get(self._nodeid)
        if form is None:
            form = forms[self._nodeid] = _form(facts, self._nodeid)
        line = form.line(kind, message, reply, self._clock.seconds(), pool or None)
        self._journal.record_line(line)
        if self.trace.watched:
            self.trace.emit(
                kind.lower(),
                [message.id],
                recipient=message.recipient,
                reply=str(reply),
                due=message.due,
                **describe(facts),
            )

    def reception(
        self, message: QueuedMessage, reply: Reply, session: ServerSession | None = None
    ) -> None:
        """Record that a message was taken, from a client or (without a session) from ourselves."""
        if session is None:
            self._journal.record(
                make_record(
                    "Reception",
                    now=message.created,
                    nodeid=self._nodeid,
                    response=reply,
                    message=message,
                )
            )
        else:
            self.counters.received += 1
            form = session.forms.get(self._nodeid)
            if form is None:
                form = session.forms[self._nodeid] = _reception_form(session, self._nodeid)
            self._journal.record_line(form.line(message, reply))
        if self.trace.watched:
            self.trace.emit(
                "reception",
                [message.id],
                recipient=message.recipient,
                size=message.size,
                reception_protocol=session.protocol if session else "",
            )

    def rejection(
        self,
        session: ServerSession,
        reply: Reply,
        command: str,
        sender: str = "",
        recipients: Sequence[str] = (),
    ) -> None:
        """Record what a client was refused, and of which envelope as far as it is known."""
        self._journal.record(
            make_record(
                "Rejection",
                now=self._clock.seconds(),
                nodeid=self._nodeid,
                response=reply._replace(command=command),
                sender=sender,
                # A list where it speaks of several, as in KumoMTA's records of batches.
                recipient=list(recipients) if len(recipients) > 1 else "".join(recipients),
                peer_name=session.ehlo_domain,
                peer_address=session.peer.host,
                reception_protocol=session.protocol,
                tls_cipher=session.tls.cipher if session.tls else None,
                tls_protocol_version=session.tls.protocol_version if session.tls else None,
                tls_peer_subject_name=_subject(session.tls),
                session_id=session.session_id,
            )
        )


def describe(facts: AttemptFacts) -> dict[str, str]:
    """An attempt's facts for the trace."""
    tls = facts.tls
    return {
        "pool": facts.pool,
        "source": facts.source,
        "site": facts.site,
        "host": facts.host,
        "peer": facts.peer,
        "source_address": facts.source_address,
        "server": facts.proxy_server,
        "protocol": facts.protocol,
        "tls": f"{tls.protocol_version} {tls.cipher}" if tls else "",
    }


def _form(facts: AttemptFacts, nodeid: str) -> AttemptForm:
    """What all records of attempts with these facts have in common."""
    source_address = None
    if facts.source_address or facts.proxy_server:
        source_address = SourceAddress(
            facts.source_address, facts.proxy_server or None, facts.protocol or None
        )
    tls = facts.tls
    return AttemptForm(
        nodeid=nodeid,
        site=facts.site,
        peer_name=facts.host,
        peer_address=facts.peer or None,
        egress_source=facts.source or None,
        source_address=source_address,
        delivery_protocol=facts.delivery_protocol if facts.session_id else None,
        tls_cipher=tls.cipher if tls else None,
        tls_protocol_version=tls.protocol_version if tls else None,
        tls_peer_subject_name=_subject(tls),
        tls_policy=facts.tls_policy or None,
        session_id=facts.session_id or None,
    )


def _reception_form(session: ServerSession, nodeid: str) -> ReceptionForm:
    """What all records of receptions in a session have in common."""
    facts: dict[str, Any] = {}
    tls = session.tls
    if tls is not None:
        facts = {
            "tls_cipher": tls.cipher,
            "tls_protocol_version": tls.protocol_version,
            "tls_peer_subject_name": _subject(tls),
        }
    return ReceptionForm(
        nodeid,
        session.ehlo_domain,
        session.peer.host,
        session.protocol,
        session.session_id,
        **facts,
    )


def _subject(tls: TLSFacts | None) -> list[str] | None:
    return [tls.peer_subject] if tls is not None and tls.peer_subject else None
