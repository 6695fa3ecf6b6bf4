"""The shape of a record: KumoMTA's C{JsonLogRecord}, field by field (C{docs/records.md})."""

from __future__ import annotations

import functools
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage
    from kumotwist.wire.smtp.replies import EnhancedCode, Reply

__all__ = [
    "RECORD_TYPES",
    "RecordType",
    "SourceAddress",
    "encode_enhanced_code",
    "encode_object",
    "encode_record",
    "encode_text",
    "encode_value",
    "make_record",
    "quote",
    "render_kept_time",
    "render_time",
]

RecordType = Literal[
    "Reception",
    "Delivery",
    "TransientFailure",
    "Bounce",
    "Expiration",
    "AdminBounce",
    "AdminRebind",
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
    event_time = render_time(now)
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
        "event_time": event_time,
        "created": int(created),
        "created_time": event_time if created == now else render_time(created),
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


# One encoder for all records: json.dumps builds a new one for every call with options.
_encode_any = json.JSONEncoder(separators=(",", ":"), default=str).encode
#: Writes a text as it stands in JSON, in ASCII.
quote = json.encoder.encode_basestring_ascii


# What make_record builds, in its order.
_FIELDS = (
    "type", "id", "sender", "recipient", "queue", "site", "size", "response", "peer_address",
    "timestamp", "event_time", "created", "created_time", "num_attempts", "bounce_classification",
    "egress_pool", "egress_source", "source_address", "delivery_protocol", "reception_protocol",
    "tls_cipher", "tls_protocol_version", "tls_peer_subject_name", "tls_policy", "nodeid",
    "session_id", "meta", "headers",
)  # fmt: skip


def encode_record(record: dict[str, Any]) -> str:
    """A record as a line of JSON, in ASCII and without its line end.

    Two or more are written for each message. So what has exactly the fields of L{make_record} is
    written down field by field, in half of the time that an encoder takes; anything else is left
    to one.
    """
    if tuple(record) == _FIELDS:
        try:
            return _encode_fields(record)
        except (KeyError, TypeError, ValueError):
            pass  # a value is not what make_record puts there
    return _encode_any(record)


@functools.lru_cache(maxsize=64)
def encode_enhanced_code(code: EnhancedCode | None) -> str:
    """An enhanced status code (RFC 3463) as it stands in a record; or null. There are few."""
    if code is None:
        return "null"
    return f'{{"class":{code.klass},"subject":{code.subject},"detail":{code.detail}}}'


def encode_text(value: str | None) -> str:
    """A text as it stands in JSON, in ASCII; or null."""
    return "null" if value is None else quote(value)


def encode_value(value: Any) -> str:
    """Any value as it stands in JSON, in ASCII."""
    if value is None:
        return "null"
    return quote(value) if type(value) is str else _encode_any(value)


def encode_object(values: dict[str, str | None] | None) -> str:
    """An object whose values are texts; or null."""
    if values is None:
        return "null"
    return (
        "{" + ",".join([f'"{name}":{encode_text(value)}' for name, value in values.items()]) + "}"
    )


def _encode_fields(record: dict[str, Any]) -> str:
    (
        kind, id, sender, recipient, queue, site, size, response, peer, timestamp, event_time,
        created, created_time, attempts, classification, pool, source, source_address,
        delivery_protocol, reception_protocol, tls_cipher, tls_version, tls_subject,
        tls_policy, nodeid, session_id, meta, headers,
    ) = record.values()  # fmt: skip
    enhanced = response["enhanced_code"]
    code = "null"
    if enhanced is not None:
        code = (
            f'{{"class":{enhanced["class"]:d},"subject":{enhanced["subject"]:d},'
            f'"detail":{enhanced["detail"]:d}}}'
        )
    subject = "null" if tls_subject is None else _encode_any(tls_subject)
    return (
        f'{{"type":{quote(kind)},"id":{quote(id)},"sender":{quote(sender)},'
        f'"recipient":{quote(recipient)},"queue":{quote(queue)},"site":{quote(site)},'
        f'"size":{size:d},"response":{{"code":{response["code"]:d},"enhanced_code":{code},'
        f'"content":{quote(response["content"])},"command":{encode_text(response["command"])}}},'
        f'"peer_address":{encode_object(peer)},"timestamp":{timestamp:d},"event_time":"{event_time}",'
        f'"created":{created:d},"created_time":"{created_time}","num_attempts":{attempts:d},'
        f'"bounce_classification":{quote(classification)},"egress_pool":{encode_text(pool)},'
        f'"egress_source":{encode_text(source)},"source_address":{encode_object(source_address)},'
        f'"delivery_protocol":{encode_text(delivery_protocol)},'
        f'"reception_protocol":{encode_text(reception_protocol)},"tls_cipher":{encode_text(tls_cipher)},'
        f'"tls_protocol_version":{encode_text(tls_version)},'
        f'"tls_peer_subject_name":{subject},"tls_policy":{encode_text(tls_policy)},"nodeid":{quote(nodeid)},"session_id":{encode_text(session_id)},'
        f'"meta":{_encode_any(meta) if meta else "{}"},'
        f'"headers":{_encode_any(headers) if headers else "{}"}}}'
    )


def render_time(moment: float) -> str:
    """A moment in UTC as RFC 3339 writes it, with microseconds: C{2026-01-31T12:00:00.000000Z}."""
    # Rounded as datetime does it; most moments share their second with many others.
    fraction, second = math.modf(moment)
    microseconds = round(fraction * 1e6)
    if not 0 <= microseconds < 1_000_000:
        return datetime.fromtimestamp(moment, UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    return f"{_render_second(second)}.{microseconds:06d}Z"


#: The same for moments that are written several times: a message's records all say when it came.
render_kept_time = functools.lru_cache(maxsize=1024)(render_time)


@functools.lru_cache(maxsize=64)
def _render_second(second: float) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]
