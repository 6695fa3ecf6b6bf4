"""Which source a retry should leave from, by what the attempt before was told.

Greylisting lets in who comes again from the same address, so the retry shall come from there. A
block speaks of the address, so the retry shall come from another one. The message carries the
memory (the last source and the kind of refusal), so that it survives a restart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.verdicts import INTERNAL
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

__all__ = ["NO_PREFERENCE", "Preference", "avoid_source", "preference", "remember"]

_SOURCE = "last_source"
_REFUSAL = "last_refusal"
_GREYLISTED, _BLOCKED, _BROKEN = "greylisted", "blocked", "broken"

_GREYLIST_WORDS = re.compile(r"gr[ae]y-?\s?list", re.IGNORECASE)
_BLOCK_WORDS = re.compile(
    r"\bblock(ed|ing|list|\b)|black-?list|\b[dr](ns)?bl\b|\bbanned\b|reputation|spamhaus|spamcop"
    r"|barracuda|\bpolicy\b|\bdenied\b|\bspam\b",
    re.IGNORECASE,
)
# What greylisting says where it does not say its name (Postgrey, milter-greylist, Exim's recipes).
_GREYLIST_CODES = frozenset({EnhancedCode(4, 7, 1), EnhancedCode(4, 2, 0)})
_POLICY = 7


class Preference(NamedTuple):
    """What a message wants of the choice of its source; empty strings for nothing.

    @ivar prefer: the source to use if it can be used.
    @ivar avoid: the source to use only if no other can.
    """

    prefer: str = ""
    avoid: str = ""


NO_PREFERENCE = Preference()


def remember(message: QueuedMessage, source: str, reply: Reply) -> None:
    """Note what a temporary refusal says of the source that it was given to.

    What says nothing of it (our own words for a lost connection, a full mailbox) leaves the
    memory of an earlier attempt as it is, for that is what the destination still remembers.

    @param source: the source's name.
    """
    kind = _kind(reply)
    if kind:
        message.meta[_SOURCE] = source
        message.meta[_REFUSAL] = kind


def avoid_source(message: QueuedMessage, source: str) -> None:
    """Note that the way through a source failed for this message, which needs another one."""
    message.meta[_SOURCE] = source
    message.meta[_REFUSAL] = _BROKEN


def preference(message: QueuedMessage) -> Preference:
    """What the message's memory asks for."""
    if _SOURCE not in message.meta:  # as in most
        return NO_PREFERENCE
    source = message.meta[_SOURCE]
    if not isinstance(source, str):
        return NO_PREFERENCE
    if message.meta.get(_REFUSAL) == _GREYLISTED:
        return Preference(prefer=source)
    return Preference(avoid=source)


def _kind(reply: Reply) -> str:
    content = reply.content
    if content.startswith(INTERNAL):
        return ""
    if _GREYLIST_WORDS.search(content):
        return _GREYLISTED
    if _BLOCK_WORDS.search(content):
        return _BLOCKED
    if reply.enhanced_code in _GREYLIST_CODES:
        return _GREYLISTED
    if reply.enhanced_code is not None and reply.enhanced_code.subject == _POLICY:
        return _BLOCKED
    return ""
