"""From queued messages to the transaction that a server can take."""

from __future__ import annotations

from kumotwist.egress.settings import PathSettings
from kumotwist.message.downgrade import NotConvertibleError, downgrade
from kumotwist.message.header import is_8bit
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.tls_wishes import REQUIRED
from kumotwist.smtp.client import OutgoingTransaction
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.data import canonical
from kumotwist.wire.smtp.syntax import encode_xtext

__all__ = ["most_transactions", "outgoing", "within_limits"]


def most_transactions(capabilities: Capabilities, path: PathSettings) -> int:
    """How many transactions a connection may carry (RFC 9422, C{MAILMAX})."""
    most = path.max_deliveries_per_connection
    return min(most, capabilities.limit("MAILMAX") or most)


def within_limits(
    batch: list[QueuedMessage], capabilities: Capabilities
) -> tuple[list[QueuedMessage], list[QueuedMessage]]:
    """Split a batch by the limits that the server declares (RFC 9422, C{RCPTMAX} and
    C{RCPTDOMAINMAX}).

    @return: what one transaction may carry, and what is left over; the first is never empty.
    """
    most = capabilities.limit("RCPTMAX") or len(batch)
    most_domains = capabilities.limit("RCPTDOMAINMAX")
    if most_domains is not None:
        domains: set[str] = set()
        for number, message in enumerate(batch[:most]):
            domains.add(message.recipient.rpartition("@")[2].lower())
            if len(domains) > most_domains:
                most = number
                break
    return batch[:most], batch[most:]


def outgoing(batch: list[QueuedMessage], capabilities: Capabilities) -> OutgoingTransaction:
    """One transaction for messages that share sender and body.

    @param batch: the first of them has the body in memory.
    @param capabilities: what the server offers.
    """
    first = batch[0]
    assert first.body is not None
    # A listener may have been told to take lone CRs and LFs; none is ever sent (RFC 5321, 2.3.8).
    body = _fitting(canonical(first.body), capabilities)
    has_8bit = is_8bit(body)
    return OutgoingTransaction(
        sender=first.sender,
        recipients=tuple(message.recipient for message in batch),
        body=body,
        line_ends_checked=True,
        body_8bit=has_8bit,
        # A client may have said SMTPUTF8 for an address alone; a message in ASCII needs none.
        smtputf8=has_8bit and bool(first.meta.get("smtputf8")),
        requiretls=REQUIRED in first.meta,
        ret=str(first.meta.get("dsn_ret", "")),
        envid=encode_xtext(str(first.meta.get("dsn_envid", ""))),
        notify=tuple(_notify(message) for message in batch),
        orcpt=tuple(_original_recipient(message) for message in batch),
    )


def _notify(message: QueuedMessage) -> str:
    """When the sender wants to be told (RFC 3461, 4.1); empty if it did not say."""
    events = message.meta.get("dsn_notify")
    return "" if events is None else ",".join(events) or "NEVER"


def _original_recipient(message: QueuedMessage) -> str:
    """Whom the sender wrote to in the first place, as ORCPT says it (RFC 3461, 4.2)."""
    kind, _, address = str(message.meta.get("dsn_orcpt", "")).partition(";")
    if not address:
        return ""
    # Addresses of this kind have escapes of their own (RFC 6533, 3).
    return f"{kind};{address if kind == 'utf-8' else encode_xtext(address)}"


def _fitting(body: bytes, capabilities: Capabilities) -> bytes:
    """The body in 7 bits for a server that wants that (RFC 6152, 3), if that can be done."""
    if capabilities.eight_bit_mime or not is_8bit(body):
        return body
    try:
        return downgrade(body)
    except NotConvertibleError:
        return body  # the transaction refuses it: 5.6.3
