"""Records of receptions, of which most is the same for all messages of one session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kumotwist.journal.records import (
    encode_enhanced_code,
    encode_value,
    quote,
    render_kept_time,
)

if TYPE_CHECKING:
    from kumotwist.message.queued import QueuedMessage
    from kumotwist.wire.smtp.replies import Reply

__all__ = ["ReceptionForm"]


class ReceptionForm:
    """Writes what L{make_record} and L{encode_record} would make of a reception, but what belongs
    to the session only once.

    @param nodeid: this node's id.
    @param peer_name: the client's EHLO name.
    @param peer_address: its IP address.
    @param protocol: the record's C{reception_protocol}.
    @param session_id: the session's id.
    @param tls: C{tls_cipher}, C{tls_protocol_version} and C{tls_peer_subject_name}, with TLS.
    """

    __slots__ = ("_end", "_peer")

    def __init__(
        self,
        nodeid: str,
        peer_name: str,
        peer_address: str,
        protocol: str,
        session_id: str,
        **tls: Any,
    ) -> None:
        self._peer = f'{{"name":{quote(peer_name)},"addr":{quote(peer_address)}}}'
        cipher = version = subject = "null"
        if tls:
            cipher = encode_value(tls["tls_cipher"])
            version = encode_value(tls["tls_protocol_version"])
            subject = encode_value(tls["tls_peer_subject_name"])
        self._end = (
            f'"bounce_classification":"Uncategorized","egress_pool":null,"egress_source":null,'
            f'"source_address":null,"delivery_protocol":null,"reception_protocol":{quote(protocol)},'
            f'"tls_cipher":{cipher},"tls_protocol_version":{version},'
            f'"tls_peer_subject_name":{subject},"tls_policy":null,"nodeid":{quote(nodeid)},'
            f'"session_id":{quote(session_id)},"meta":{{}},"headers":{{}}}}'
        )

    def line(self, message: QueuedMessage, reply: Reply) -> str:
        """A record as a line of JSON, in ASCII and without its line end.

        @param reply: what the client was told, with the command that it answers.
        """
        created = message.created
        second, moment = int(created), render_kept_time(created)
        enhanced = encode_enhanced_code(reply.enhanced_code)
        return (
            f'{{"type":"Reception","id":{quote(message.id)},"sender":{quote(message.sender)},'
            f'"recipient":{quote(message.recipient)},"queue":{quote(message.queue)},"site":"",'
            f'"size":{message.size:d},"response":{{"code":{reply.code:d},"enhanced_code":{enhanced},'
            f'"content":{quote(reply.content)},"command":{quote(reply.command)}}},'
            f'"peer_address":{self._peer},"timestamp":{second},"event_time":"{moment}",'
            f'"created":{second},"created_time":"{moment}","num_attempts":{message.attempts:d},'
            f"{self._end}"
        )
