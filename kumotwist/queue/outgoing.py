"""From queued messages to the transaction that a server can take."""

from __future__ import annotations

from kumotwist.message.downgrade import NotConvertibleError, downgrade
from kumotwist.message.header import is_8bit
from kumotwist.message.queued import QueuedMessage
from kumotwist.smtp.client import OutgoingTransaction
from kumotwist.wire.smtp.capabilities import Capabilities

__all__ = ["outgoing"]


def outgoing(batch: list[QueuedMessage], capabilities: Capabilities) -> OutgoingTransaction:
    """One transaction for messages that share sender and body.

    @param batch: the first of them has the body in memory.
    @param capabilities: what the server offers.
    """
    first = batch[0]
    assert first.body is not None
    body = _fitting(first.body, capabilities)
    return OutgoingTransaction(
        sender=first.sender,
        recipients=tuple(message.recipient for message in batch),
        body=body,
        body_8bit=is_8bit(body),
        smtputf8=bool(first.meta.get("smtputf8")),
    )


def _fitting(body: bytes, capabilities: Capabilities) -> bytes:
    """The body in 7 bits for a server that wants that (RFC 6152, 3), if that can be done."""
    if capabilities.eight_bit_mime or not is_8bit(body):
        return body
    try:
        return downgrade(body)
    except NotConvertibleError:
        return body  # the transaction refuses it: 5.6.3
