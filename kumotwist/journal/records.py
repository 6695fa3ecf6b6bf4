"""The shape of a record: KumoMTA's C{JsonLogRecord}, field by field (C{docs/records.md})."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage
    from kumotwist.wire.smtp.replies import Reply

__all__ = ["RECORD_TYPES", "RecordType", "SourceAddress", "make_record", "render_time"]

RecordType = Literal[
    "Reception",
    "Delivery",
    "TransientFailure",
    "Bounce",
    "Expiration",
    "AdminBounce",
    "Rejection",
    "Delayed",
]
#: Every type that is written.
RECORD_TYPES: tuple[str, ...] = get_args(RecordType)


class SourceAddress(NamedTuple):
    """Where a delivery came from, as the peer saw it.

    @ivar address: C{ADDR:PORT}. Through SOCKS5 what the proxy said it used; through HAProxy, which
        says nothing, the address it was asked to use and port 0.
    @ivar server: the proxy, as configured; L{None} for a direct connection.
    @ivar protocol: C{socks5} or C{haproxy}; L{None} for a direct connection.
    """

    address: str
    server: str | None = None
    protocol: str | None = None


def make_record(
    kind: RecordType,
    *,
    now: float,
    nodeid: str,
    response: Reply,
    message: QueuedMessage | None = None,
    id: str = "",
    sender: str = "",
    recipient: str | list[str] = "",
    site: str = "",
    peer_name: str = "",
    peer_address: str | None = None,
    num_attempts: int | None = None,
    egress_pool: str | None = None,
    egress_source: str | None = None,
    source_address: SourceAddress | None = None,
    bounce_classification: str = "Uncategorized",
    delivery_protocol: str | None = None,
    reception_protocol: str | None = None,
    tls_cipher: str | None = None,
    tls_protocol_version: str | None = None,
    tls_peer_subject_name: list[str] | None = None,
    tls_policy: str | None = None,
    session_id: str | None = None,
    meta: dict[str, Any] | None = None,
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Build one record.

    It runs several times for each message, so it is one literal and nothing is looked up twice.

    @param kind: the C{type}.
    @param now: when it happened; seconds since the epoch.
    @param nodeid: this node's id.
    @param response: the reply that decided, or one of our own where no peer was asked.
    @param message: the message; without one (C{Rejection}) C{id}, C{sender} and C{recipient}
        say what is known of it.
    @param site: the ready queue's site; empty for C{Reception} and C{Rejection}.
    @param peer_name: the client's EHLO name, or the MX host's name.
    @param peer_address: the peer's IP address; without it the record's C{peer_address} is null.
    @param num_attempts: if it is not C{message.attempts}.
    @param reception_protocol: if it is not what the message's C{meta} says.
    @param meta: the metadata that was asked for.
    @param headers: the header fields that were asked for.
    @return: a dictionary that L{kumotwist.interfaces.IJournal.record} takes.
    """
    queue = ""
    size = attempts = 0
    created = now
    if message is not None:
        id = message.id
        sender = message.sender
        recipient = message.recipient
        queue = message.queue
        size = message.size
        attempts = message.attempts
        created = message.created
        if reception_protocol is None:
            reception_protocol = message.meta.get("reception_protocol")
    enhanced = response.enhanced_code
    return {
        "type": kind,
        "id": id,
        "sender": sender,
        "recipient": recipient,
        "queue": queue,
        "site": site,
        "size": size,
        "response": {
            "code": response.code,
            "enhanced_code": None
            if enhanced is None
            else {
                "class": enhanced.klass,
                "subject": enhanced.subject,
                "detail": enhanced.detail,
            },
            "content": response.content,
            "command": response.command or None,
        },
        "peer_address": None if peer_address is None else {"name": peer_name, "addr": peer_address},
        "timestamp": int(now),
        "event_time": render_time(now),
        "created": int(created),
        "created_time": render_time(created),
        "num_attempts": attempts if num_attempts is None else num_attempts,
        "bounce_classification": bounce_classification,
        "egress_pool": egress_pool,
        "egress_source": egress_source,
        "source_address": None
        if source_address is None
        else {
            "address": source_address.address,
            "server": source_address.server,
            "protocol": source_address.protocol,
        },
        "delivery_protocol": delivery_protocol,
        "reception_protocol": reception_protocol,
        "tls_cipher": tls_cipher,
        "tls_protocol_version": tls_protocol_version,
        "tls_peer_subject_name": tls_peer_subject_name,
        "tls_policy": tls_policy,
        "nodeid": nodeid,
        "session_id": session_id,
        "meta": meta or {},
        "headers": headers or {},
    }


def render_time(moment: float) -> str:
    """A moment in UTC as RFC 3339 writes it, with microseconds: C{2026-01-31T12:00:00.000000Z}."""
    # isoformat takes half the time of strftime, and "+00:00" is what Z stands for.
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
