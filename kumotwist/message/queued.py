"""A message on its way to one recipient."""

from __future__ import annotations

import json
import os
import struct
import time
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["QueuedMessage", "facts_text", "new_id"]


#: Ids for which random octets are fetched at once: a system call for each would cost more.
_AT_ONCE = 64
_ID_OCTETS = 10
_stock: list[str] = []
# The variant in the two upper bits of a digit, random ones in the others.
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def _fresh_endings() -> list[str]:
    """The last 20 digits of ids: version, 12 random bits, variant, 62 random bits."""
    digits = os.urandom(_ID_OCTETS * _AT_ONCE).hex()
    return [
        f"7{digits[at : at + 3]}{_VARIANT[digits[at + 3]]}{digits[at + 4 : at + 19]}"
        for at in range(0, len(digits), 2 * _ID_OCTETS)
    ]


# A process that was forked must not give the ids that its parent gives.
os.register_at_fork(after_in_child=_stock.clear)


def new_id(now: float | None = None) -> str:
    """Make a message or session id: 32 hexadecimal digits that sort by time.

    The layout is RFC 9562's version 7, without the dashes.

    @param now: seconds since the epoch; the wall clock if absent.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    try:
        ending = _stock.pop()
    except IndexError:  # also if another thread was quicker
        endings = _fresh_endings()
        ending = endings.pop()
        _stock.extend(endings)
    return f"{milliseconds & 0xFFFFFFFFFFFF:012x}{ending}"


_encode_facts = json.JSONEncoder(separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring_ascii


def facts_text(meta: dict[str, Any]) -> str:
    """The facts of a message in JSON; most are texts alone, for which the encoder is not set up.

    @raise ValueError: if they cannot be written so.
    @raise TypeError: likewise.
    @raise RecursionError: likewise.
    """
    try:
        texts = [f"{_quoted(name)}:{_quoted(value)}" for name, value in meta.items()]
    except TypeError:  # not texts alone
        return _encode_facts(meta)
    return f"{{{','.join(texts)}}}"


# What a message that sleeps has packed: numbers, of which the last is the length of the sender in
# octets; the sender, the recipient, NUL, and the facts in JSON, in which there is no NUL. Objects
# for all that take three times as much.
_numbers = struct.Struct("<qdqqI")
_PACKED = ("size", "created", "attempts", "body_key", "sender", "recipient", "meta")


def _packed(
    numbers: tuple[int, float, int, int], sender: bytes, recipient: bytes, facts: bytes
) -> bytes:
    return b"%b%b%b\0%b" % (_numbers.pack(*numbers, len(sender)), sender, recipient, facts)


@attrs.define(slots=True, eq=False, weakref_slot=False)
class QueuedMessage:
    """One recipient's copy of a message: what the spool keeps and the queues move.

    A message for several recipients becomes several of these, which share one stored body, as
    KumoMTA does it: each has its own attempts, its own due time and its own fate.

    One that waits for long can L{sleep}: its facts are packed then, and unpacked when somebody
    looks at one of them. Nobody but who counts octets needs to know.

    @ivar id: 32 hexadecimal digits, see L{new_id}.
    @ivar sender: the envelope sender, without brackets; empty for the null sender.
    @ivar recipient: the envelope recipient, without brackets.
    @ivar queue: the scheduled queue's name: C{campaign:tenant@domain!routing_domain}, of which
        usually only the domain is there (lower case, A-labels).
    @ivar size: octets of the body, header included.
    @ivar created: when it was received; seconds since the epoch.
    @ivar due: when the next attempt may start; seconds since the epoch.
    @ivar attempts: delivery attempts that were charged to it so far.
    @ivar meta: what is known of it besides, JSON-able: C{reception_protocol}, C{received_from},
        C{body} ("7BIT", "8BITMIME"), C{smtputf8}, the last reply, and what the sender asked for
        with RFC 3461: C{dsn_ret} ("FULL", "HDRS"), C{dsn_envid}, C{dsn_notify} (a list of words,
        empty for NEVER), C{dsn_orcpt} ("rfc822;user@example.com").
    @ivar body_key: the spool's own name for the shared body; 0 until it has been stored.
    @ivar body: the octets (CRLF line ends, not dot-stuffed) while they are worth keeping in
        memory, else L{None}: then the spool's C{load} gives them.
    @ivar plain: whether it is known that every line end of the body is CRLF and that no line begins
        with a dot, so that it can be sent as it is. Of what comes from the spool it is not known.
    """

    id: str
    sender: str
    recipient: str
    queue: str
    size: int
    created: float
    due: float
    attempts: int = 0
    meta: dict[str, Any] = attrs.field(factory=dict)
    body_key: int = 0
    body: bytes | None = attrs.field(default=None, repr=False)
    plain: bool = False
    asleep: bytes | None = attrs.field(default=None, init=False, repr=False)

    def sleep(self) -> None:
        """Take up less memory until somebody looks closer; what cannot be packed stays awake."""
        if self.asleep is not None:
            return
        numbers = (self.size, self.created, self.attempts, self.body_key)
        try:
            facts = facts_text(self.meta).encode()
            self.asleep = _packed(numbers, self.sender.encode(), self.recipient.encode(), facts)
        except (AttributeError, ValueError, TypeError, RecursionError, struct.error):
            return
        for name in _PACKED:
            delattr(self, name)

    @classmethod
    def sleeping(
        cls,
        identity: str,
        queue: str,
        due: float,
        numbers: tuple[int, float, int, int],
        texts: tuple[bytes, bytes, bytes],
    ) -> QueuedMessage:
        """Make one that sleeps.

        @param numbers: size, created, attempts and body key.
        @param texts: sender, recipient and C{meta} (as L{facts_text} gives it), in UTF-8.
        @raise ValueError: if a text is none.
        @raise struct.error: if a number is none.
        """
        sender, recipient, _ = texts
        if not (sender.isascii() and recipient.isascii()):
            sender.decode()
            recipient.decode()
        message = cls.__new__(cls)
        message.id, message.queue, message.due = identity, queue, due
        message.body, message.plain = None, False
        message.asleep = _packed(numbers, *texts)
        return message

    def _wake(self, packed: bytes) -> None:
        """Unpack; what has been given a new value meanwhile keeps it."""
        *numbers, length = _numbers.unpack_from(packed)
        texts, facts = packed[_numbers.size :].rsplit(b"\0", 1)
        sender, recipient = texts[:length].decode(), texts[length:].decode()
        for name, value in zip(
            _PACKED, (*numbers, sender, recipient, json.loads(facts)), strict=True
        ):
            try:
                object.__getattribute__(self, name)
            except AttributeError:
                setattr(self, name, value)
        self.asleep = None  # last, so that another thread finds either all of it or this

    # Hidden from the type checker, which would take any name for an attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What is asked for is packed: wake up."""
            if name not in _PACKED:
                raise AttributeError(f"a QueuedMessage has no {name}")
            packed = self.asleep
            if packed is not None:
                self._wake(packed)
            return object.__getattribute__(self, name)
