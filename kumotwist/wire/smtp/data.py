"""The message as it stands on the wire after DATA (RFC 5321, 4.1.1.4 and 4.5.2)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

__all__ = ["CHUNK_SIZE", "canonical", "ending", "is_canonical", "stuffed", "stuffed_chunks"]

#: Octets of the body that are stuffed at a time.
CHUNK_SIZE = 65536

_END = b".\r\n"
_LINE_END = re.compile(rb"\r\n|\r|\n")


def is_canonical(body: bytes) -> bool:
    """Whether every line end is CRLF: no CR and no LF stands alone (RFC 5321, 2.3.8)."""
    # It notes which kinds of line ends it has seen, in one pass in C.
    line_ends = io.IncrementalNewlineDecoder(None, translate=False)
    if len(body) <= CHUNK_SIZE:
        line_ends.decode(str(body, "latin-1"), final=True)
    else:  # not all of it as a text at once
        octets = memoryview(body)
        for start in range(0, len(body), CHUNK_SIZE):
            line_ends.decode(str(octets[start : start + CHUNK_SIZE], "latin-1"))
        line_ends.decode("", final=True)
    return line_ends.newlines is None or line_ends.newlines == "\r\n"


def canonical(body: bytes) -> bytes:
    """Make every line end CRLF. A lone CR counts as a line end too: none is ever dropped."""
    return body if is_canonical(body) else _LINE_END.sub(b"\r\n", body)


def stuffed(body: bytes) -> bytes:
    """A body with its dots doubled and the final dot behind it, in one piece.

    @param body: with canonical line ends, see L{is_canonical}. Anything else would let a
        message end early at a lenient server, so the caller has to have looked.
    """
    end = ending(body)
    if b"\r\n." in body:  # looking first is quicker, and most messages have none
        body = body.replace(b"\r\n.", b"\r\n..")
    return b"." + body + end if body.startswith(b".") else body + end


def stuffed_chunks(body: bytes, size: int = CHUNK_SIZE) -> Iterator[bytes]:
    """The same octets as L{stuffed}, in pieces, so that a large body is not copied as a whole.

    @param body: as for L{stuffed}.
    @param size: octets of the body per piece, at least 4.
    """
    position = 0
    prefix = b"." if body.startswith(b".") else b""
    while len(body) - position > size:
        end = _seam(body, position + size)
        yield prefix + body[position:end].replace(b"\r\n.", b"\r\n..")
        position = end
        prefix = b""
    yield prefix + body[position:].replace(b"\r\n.", b"\r\n..") + ending(body)


def _seam(body: bytes, end: int) -> int:
    """Move a seam back so that no C{CRLF .} lies across it, to be seen by neither side."""
    if body.startswith(b"\r\n.", end - 1):
        return end - 1
    if body.startswith(b"\r\n.", end - 2):
        return end - 2
    return end


def ending(body: bytes) -> bytes:
    """The final dot; the last line gets its CRLF first. An empty body has no last line."""
    return _END if not body or body.endswith(b"\r\n") else b"\r\n" + _END
