"""A look at a message's header without parsing the message (RFC 5322, 2.2; RFC 5321, 6.3).

A relay needs to know little of what it carries: how often the message was relayed, whether it has
octets above 127, a field here and there. Every function runs in time proportional to the header
and leaves the octets alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

__all__ = [
    "Field",
    "HeaderFacts",
    "has_header",
    "header_end",
    "header_facts",
    "header_fields",
    "header_value",
    "is_8bit",
    "without_fields",
]

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")


class Field(NamedTuple):
    """Where one header field stands in a message.

    @ivar name: its name as written.
    @ivar start: the offset of the name.
    @ivar value_start: the offset behind the colon.
    @ivar end: the offset behind the line end of its last line.
    """

    name: bytes
    start: int
    value_start: int
    end: int


def header_end(body: bytes) -> int:
    """Where the header ends: the offset of the empty line, or the length if there is none.

    Line ends may be bare LF, for listeners that were told to take them.
    """
    if body[:1] == b"\n" or body[:2] == b"\r\n":
        return 0
    end = body.find(b"\n\r\n")
    limit = len(body) if end < 0 else end
    bare = body.find(b"\n\n", 0, limit)
    if bare >= 0:
        return bare + 1
    return len(body) if end < 0 else end + 1


def header_fields(body: bytes) -> Iterator[Field]:
    """Walk through the header's fields in order; lines that belong to no field are passed over.

    @param body: the message, header and body.
    """
    limit = header_end(body)
    start = 0
    while start < limit:
        end = _line_end(body, start, limit)
        while end < limit and body[end] in b" \t":
            end = _line_end(body, end, limit)
        match = _NAME.match(body, start, end)
        if match is not None:
            yield Field(match.group(1), start, match.end(), end)
        start = end


def _line_end(body: bytes, start: int, limit: int) -> int:
    newline = body.find(b"\n", start, limit)
    return limit if newline < 0 else newline + 1


def header_value(body: bytes, name: bytes) -> bytes | None:
    """The value of the first field of a name, unfolded and stripped, else undecoded.

    @param name: the field's name in any case, without the colon.
    """
    wanted = name.lower()
    for field in header_fields(body):
        if field.name.lower() == wanted:
            return _FOLD.sub(b"", body[field.value_start : field.end]).strip()
    return None


def without_fields(body: bytes, names: Collection[bytes]) -> bytes:
    """The message without the fields of some names.

    @param names: in lower case, without the colon.
    """
    kept, position = [], 0
    for field in header_fields(body):
        if field.name.lower() in names:
            kept.append(body[position : field.start])
            position = field.end
    return b"".join((*kept, body[position:])) if kept else body


def has_header(body: bytes, name: bytes) -> bool:
    """Whether the header has a field of this name (in any case, without the colon)."""
    wanted = name.lower()
    return any(field.name.lower() == wanted for field in header_fields(body))


class HeaderFacts(NamedTuple):
    """What a relay has to know of every message's header.

    @ivar received: how often the message was relayed, by its C{Received:} fields (RFC 5321, 6.3).
    @ivar waives_tls: whether the sender wants the message delivered without regard to what the
        recipient's side says of TLS: C{TLS-Required: No} (RFC 8689, 3). A field that says anything
        else, or more than one, says nothing.
    """

    received: int
    waives_tls: bool


_NOTHING = HeaderFacts(0, False)


def header_facts(body: bytes) -> HeaderFacts:
    """Look at a header once; it runs for every message, hence in C and not over L{header_fields}.

    @param body: the message, header and body.
    """
    header = b"\n" + body[: header_end(body)].lower()
    if b"\nreceived" not in header and b"\ntls-required" not in header:
        return _NOTHING
    received = header.count(b"\nreceived")
    if received:  # perhaps some of them are only the beginning of a longer name
        received = (
            header.count(b"\nreceived:")
            + header.count(b"\nreceived :")
            + header.count(b"\nreceived\t:")
        )
    return HeaderFacts(received, b"\ntls-required" in header and _waives_tls(body))


def _waives_tls(body: bytes) -> bool:
    values = [
        _FOLD.sub(b"", body[field.value_start : field.end]).strip().lower()
        for field in header_fields(body)
        if field.name.lower() == b"tls-required"
    ]
    return values == [b"no"]


def is_8bit(body: bytes) -> bool:
    """Whether the message has octets above 127 and needs 8BITMIME (RFC 6152)."""
    return not body.isascii()
