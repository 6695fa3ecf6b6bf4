"""Records of attempts, of which most is the same for all messages of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kumotwist.journal.records import (
    RecordType,
    encode_enhanced_code,
    encode_object,
    encode_text,
    encode_value,
    quote,
    render_kept_time,
    render_time,
)

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage
    from kumotwist.wire.smtp.replies import Reply

__all__ = ["AttemptForm"]

#: Ends of records, by pool and way of reception, that are kept for a connection.
_MOST_ENDS = 16


class AttemptForm:
    """Writes what L{make_record} and L{encode_record} would make of an attempt, but what belongs to
    the connection only once.

    @param values: what L{make_record} takes of a connection: C{nodeid}, C{site}, C{peer_name},
        C{peer_address}, C{egress_source}, C{source_address}, C{delivery_protocol}, C{tls_cipher},
        C{tls_protocol_version}, C{tls_peer_subject_name}, C{tls_policy} and C{session_id}; what is
        missing is null.
    """

    __slots__ = ("_end", "_ends", "_peer", "_site", "_source")

    def __init__(self, **values: Any) -> None:
        peer = source = None
        if values.get("peer_address") is not None:
            peer = {"name": values.get("peer_name", ""), "addr": values["peer_address"]}
        if values.get("source_address") is not None:
            source = values["source_address"]._asdict()
        self._site = encode_text(values.get("site", ""))
        self._peer = encode_object(peer)
        self._source = (
            f'"egress_source":{encode_text(values.get("egress_source"))},'
            f'"source_address":{encode_object(source)},'
            f'"delivery_protocol":{encode_text(values.get("delivery_protocol"))}'
        )
        names = ("tls_cipher", "tls_protocol_version", "tls_peer_subject_name", "tls_policy",
                 "nodeid", "session_id")  # fmt: skip
        parts = [f'"{name}":{encode_value(values.get(name))}' for name in names]
        self._ends: dict[tuple[str | None, str], str] = {}
        self._end = ",".join([*parts, '"meta":{}', '"headers":{}'])

    def line(
        self, kind: RecordType, message: QueuedMessage, reply: Reply, now: float, pool: str | None
    ) -> str:
        """A record as a line of JSON, in ASCII and without its line end.

        @param now: when it happened; seconds since the epoch.
        @param pool: the message's.
        """
        created = message.created
        protocol = message.meta.get("reception_protocol")
        # Of one connection's messages nearly all have the same pool and came in the same way.
        end = self._ends.get((pool, protocol)) if type(protocol) is str else None
        if end is None:
            end = self._end_of(pool, protocol)
        code, enhanced, _, command = reply
        return (
            f'{{"type":"{kind}","id":{quote(message.id)},"sender":{quote(message.sender)},'
            f'"recipient":{quote(message.recipient)},"queue":{quote(message.queue)},'
            f'"site":{self._site},"size":{message.size},"response":{{"code":{code},'
            f'"enhanced_code":{encode_enhanced_code(enhanced)},"content":{quote(reply.content)},'
            f'"command":{quote(command) if command else "null"}}},"peer_address":{self._peer},'
            f'"timestamp":{int(now)},"event_time":"{render_time(now)}","created":{int(created)},'
            f'"created_time":"{render_kept_time(created)}","num_attempts":{message.attempts},{end}'
        )

    def _end_of(self, pool: str | None, protocol: Any) -> str:
        """What follows the number of attempts."""
        end = (
            f'"bounce_classification":"Uncategorized","egress_pool":{encode_text(pool)},'
            f'{self._source},"reception_protocol":{encode_value(protocol)},{self._end}}}'
        )
        if type(protocol) is str and len(self._ends) < _MOST_ENDS:
            self._ends[pool, protocol] = end
        return end
