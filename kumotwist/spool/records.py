"""Messages as rows of the database, each with a checksum of its own.

SQLite has no page checksums: a bit that turned on the disk would become a wrong recipient. So every
row carries a CRC-32 of its values, as Postfix's queue files check themselves; a row that does not
match is set aside and never delivered.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

from kumotwist.message.queued import QueuedMessage, facts_text
from kumotwist.spool.errors import DamagedRecordError, UnstorableMessageError

__all__ = ["COLUMNS", "MessageRow", "is_large", "message_id", "message_of", "row_of"]

#: The columns of a row, in order.
COLUMNS = "body, id, sender, recipient, queue, size, created, due, attempts, meta, crc"

MessageRow = tuple[int, bytes, str, str, str, int, float, float, int, str, int]

_pack_numbers = struct.Struct("<qqddq").pack
_crc32 = zlib.crc32

# Names of queues, which many messages have in common, so that one that waits costs less memory. The
# first ones that come are kept, which is enough; the number is bounded.
_MAX_SHARED = 8192
_MAX_SHARED_LENGTH = 80
_shared: dict[str, str] = {}


def is_large(body_key: int) -> bool:
    """Whether the body of that key lives in a segment file: its lowest bit says so."""
    return bool(body_key & 1)


def message_id(message: QueuedMessage) -> bytes:
    """The id in its stored form, 16 octets.

    @raise UnstorableMessageError: if it is not 32 hexadecimal digits.
    """
    try:
        identity = bytes.fromhex(message.id)
    except (ValueError, TypeError) as error:
        raise UnstorableMessageError(f"message id {message.id!r}: {error}") from None
    if len(identity) != 16:
        raise UnstorableMessageError(f"message id {message.id!r} is not 32 hexadecimal digits")
    return identity


def _share(text: str) -> str:
    """An equal text, the same one each time if possible."""
    known = _shared.get(text)
    if known is not None:
        return known
    if len(_shared) < _MAX_SHARED and len(text) <= _MAX_SHARED_LENGTH:
        _shared[text] = text
    return text


def row_of(message: QueuedMessage, body_key: int) -> MessageRow:
    """Take a message's values as they are now.

    @raise UnstorableMessageError: if one of them could not be written or not be read again.
    """
    identity = message_id(message)
    try:
        meta = facts_text(message.meta)
        numbers = _pack_numbers(
            body_key, message.size, message.created, message.due, message.attempts
        )
        texts = "\0".join((message.sender, message.recipient, message.queue, meta)).encode()
    except (ValueError, TypeError, RecursionError, struct.error) as error:
        raise UnstorableMessageError(f"message {message.id} cannot be kept: {error}") from None
    if math.isnan(message.created) or math.isnan(message.due):
        raise UnstorableMessageError(f"message {message.id} has a time that is not a number")
    return (
        body_key,
        identity,
        message.sender,
        message.recipient,
        message.queue,
        message.size,
        message.created,
        message.due,
        message.attempts,
        meta,
        _crc32(texts, _crc32(numbers + identity)),
    )


def message_of(row: tuple[Any, ...]) -> QueuedMessage:
    """Make the message again that a row was taken from; it sleeps until somebody looks closer.

    @param row: the values of L{COLUMNS}, texts as bytes.
    @raise DamagedRecordError: if they are not what was stored.
    """
    body_key, identity, sender, recipient, queue, size, created, due, attempts, meta, crc = row
    try:
        numbers = _pack_numbers(body_key, size, created, due, attempts)
        texts = b"\0".join((sender, recipient, queue, meta))
        if _crc32(texts, _crc32(numbers + identity)) != crc:
            raise ValueError("its checksum does not match")
        return QueuedMessage.sleeping(
            identity.hex(),
            _share(queue.decode()),
            due,
            (size, created, attempts, body_key),
            (sender, recipient, meta),
        )
    except (ValueError, TypeError, struct.error) as error:
        name = identity.hex() if isinstance(identity, bytes) else repr(identity)
        raise DamagedRecordError(f"the record of message {name}: {error}") from None
