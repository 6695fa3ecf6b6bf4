"""From queued messages to the transaction that a server can take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from kumotwist.egress.settings import PathSettings
from kumotwist.message.downgrade import NotConvertibleError, downgrade, downgrade_binary
from kumotwist.message.header import is_8bit
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.tls_wishes import REQUIRED
from kumotwist.smtp.client import OutgoingTransaction
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.data import canonical, is_canonical
from kumotwist.wire.smtp.syntax import encode_xtext

__all__ = ["most_transactions", "outgoing", "outgoing_at_once", "within_limits"]


# What BODY says of a message that consists of lines (RFC 6152); most say nothing.
_TEXT = (None, "8BITMIME", "7BIT")

# What a sender may ask for with RFC 3461, in C{meta}.
_WISHES = frozenset({"dsn_ret", "dsn_envid", "dsn_notify", "dsn_orcpt"})


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


#: A body of at most so many octets is converted at once, a larger one in a thread: the reactor has
#: other things to do meanwhile.
AT_ONCE = 65536


async def outgoing(
    batch: list[QueuedMessage],
    capabilities: Capabilities,
    run: Callable[[Callable[[], bytes]], Awaitable[bytes]],
    *,
    chunking: bool = True,
) -> OutgoingTransaction:
    """One transaction for messages that share sender and body.

    @param batch: the first of them has the body in memory.
    @param capabilities: what the server offers.
    @param run: runs what takes its time, elsewhere.
    @param chunking: whether BDAT may be used.
    """
    body, binary = _body_of(batch)
    convert = _conversion(body, capabilities, binary=binary, chunking=chunking)
    if convert is not None:
        try:
            task = partial(convert, body)
            body = task() if len(body) <= AT_ONCE else await run(task)
            binary = False
        except NotConvertibleError:
            pass  # the transaction refuses it: 5.6.3
    return _transaction(batch, body, binary)


def outgoing_at_once(
    batch: list[QueuedMessage], capabilities: Capabilities, *, chunking: bool = True
) -> OutgoingTransaction | None:
    """The same where the body goes as it is, which is the rule; L{None} if L{outgoing} is due."""
    first = batch[0]
    if first.plain and first.meta.get("body") in _TEXT:
        body = first.body
        assert body is not None
        if body.isascii():
            return _transaction(batch, body, binary=False, plain=True)
    body, binary = _body_of(batch)
    if _conversion(body, capabilities, binary=binary, chunking=chunking) is not None:
        return None
    return _transaction(batch, body, binary)


def _body_of(batch: list[QueuedMessage]) -> tuple[bytes, bool]:
    """The body that a batch shares, and whether it is binary (RFC 3030, 3)."""
    first = batch[0]
    assert first.body is not None
    kind = first.meta.get("body")
    return first.body, kind is not None and str(kind).upper() == "BINARYMIME"


def _transaction(
    batch: list[QueuedMessage], body: bytes, binary: bool, *, plain: bool = False
) -> OutgoingTransaction:
    """The transaction that sends a body; C{plain} is that of L{OutgoingTransaction}."""
    first = batch[0]
    meta = first.meta
    has_8bit = not plain and is_8bit(body)
    if len(batch) == 1 and _WISHES.isdisjoint(meta):  # as most messages are
        return OutgoingTransaction(
            first.sender,
            (first.recipient,),
            body,
            line_ends_checked=True,
            body_8bit=has_8bit,
            binary=binary,
            smtputf8=has_8bit and bool(meta.get("smtputf8")),
            requiretls=REQUIRED in meta,
            plain=plain,
        )
    return OutgoingTransaction(
        sender=first.sender,
        recipients=tuple(message.recipient for message in batch),
        body=body,
        line_ends_checked=True,
        body_8bit=has_8bit,
        binary=binary,
        # A client may have said SMTPUTF8 for an address alone; a message in ASCII needs none.
        smtputf8=has_8bit and bool(meta.get("smtputf8")),
        requiretls=REQUIRED in meta,
        ret=str(meta.get("dsn_ret", "")),
        envid=encode_xtext(str(meta.get("dsn_envid", ""))),
        notify=tuple(_notify(message) for message in batch),
        orcpt=tuple(_original_recipient(message) for message in batch),
        plain=plain,
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


def _conversion(
    body: bytes, capabilities: Capabilities, *, binary: bool, chunking: bool
) -> Callable[[bytes], bytes] | None:
    """What makes a body fit for a server; L{None} if it is."""
    if binary:
        return None if chunking and capabilities.binarymime else downgrade_binary
    if not capabilities.eight_bit_mime and is_8bit(body):
        return _downgraded
    # A listener may have been told to take lone CRs and LFs; none is ever sent (RFC 5321, 2.3.8).
    return None if is_canonical(body) else canonical


def _downgraded(body: bytes) -> bytes:
    """The body in 7 bits for a server that wants that (RFC 6152, 3), if that can be done."""
    body = canonical(body)
    try:
        return downgrade(body)
    except NotConvertibleError:
        return body  # the transaction refuses it: 5.6.3
