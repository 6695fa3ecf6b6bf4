"""The octets between DATA and the final dot, as a server reads them (RFC 5321, 4.1.1.4, 4.5.2).

Only CRLF, dot, CRLF ends a message, whatever else a peer may take for a line end: that, and the
refusal of lone CR and LF, is what keeps one message from smuggling in another one (CVE-2023-51764
and its kin). All work is done by searches and joins over whole segments, never line by line.
"""

from __future__ import annotations

import re
from typing import Literal

from kumotwist.wire.smtp.data import is_canonical
from kumotwist.wire.smtp.replies import Reply

__all__ = ["BodyReader", "LineEndings", "settle_lines", "too_large"]

LineEndings = Literal["Deny", "Allow", "Fix"]

_END = b"\r\n.\r\n"
# A search for three octets takes half of the time this way.
_find_dot = re.compile(rb"\r\n\.").search
_ANY_LINE_END = re.compile(rb"\r\n|\r|\n")
# Segments smaller than this are glued together: a client that sends single octets must not make
# us keep an object for each of them.
_WORTH_KEEPING = 4096

_LONE = Reply.of(552, "5.6.0", "lines must end with CRLF: there is a lone CR or LF")


class BodyReader:
    """Reads one message up to the final dot, keeping at most what the limit allows.

    A text line may be of any length unless C{line_length_limit} says otherwise: RFC 5321, 4.5.3.1
    asks receivers to impose no limits where they can, and a long line is never anything but text.

    @param max_size: octets that the message may have; more are read and forgotten.
    @param line_endings: what happens to a message with lone CR or LF: C{Deny} refuses it, C{Allow}
        keeps it as it is, C{Fix} makes each of them a CRLF.
    @param line_length_limit: octets that a line may have without its CRLF; 0 for any number.
    """

    __slots__ = ("_dotted", "_limit", "_line_endings", "_line_limit", "_max", "_parts", "_refusal",
                 "_tail", "size")  # fmt: skip

    def __init__(
        self, max_size: int, line_endings: LineEndings = "Deny", line_length_limit: int = 0
    ) -> None:
        self._max = max_size
        # Dots that were stuffed in do not count: at worst every fourth octet is one. What has been
        # read may include octets of the end. Beyond both no message can be small enough.
        self._limit = max_size + max_size // 3 + 8
        self._line_endings = line_endings
        self._line_limit = line_length_limit
        self._parts: list[bytes] = []
        self._refusal: Reply | None = None
        # The CRLF that ended DATA also begins the final CRLF.CRLF of an empty message.
        self._tail = b"\r\n"
        # Whether a line begins with a dot, or may do so.
        self._dotted = False
        #: Octets that have been read, kept or not.
        self.size = 0

    @property
    def held(self) -> int:
        """Octets that are kept in memory."""
        return 0 if self._refusal is not None else self.size

    def refuse(self, reply: Reply) -> None:
        """Keep nothing of the message; C{reply} is given when it has ended."""
        if self._refusal is None:
            self._refusal = reply
            self._parts.clear()

    def feed(self, data: bytes) -> int:
        """Take a segment.

        @return: how many of its octets belong to the message and its end, or -1 if it has not
            ended: then all of them do.
        """
        tail = self._tail
        # The line end in front of the message can be part of a seam with a dot only.
        if self.size or data.startswith(b"."):
            # An end that lies across the seam comes before any that lies behind it.
            at = self._find_end(tail + data[:4], len(tail) + 2)
            if at >= 0:
                at -= len(tail)
                self._cut(data, at + 2)
                return at + 5
        at = self._find_end(data, len(data))
        if at < 0:
            self._keep(data)
            self._tail = data[-4:] if len(data) >= 4 else (tail + data)[-4:]
            return -1
        self._keep(data[: at + 2])
        return at + 5

    def _find_end(self, data: bytes, limit: int) -> int:
        """Search for the end. The first line with a dot is usually the last one, so that one search
        finds both, and says that no other line has one.

        @param limit: how far to look for the first dot.
        """
        found = _find_dot(data, 0, limit)
        if found is None:
            return -1
        at = found.start()
        if data.startswith(_END, at):
            return at
        self._dotted = True
        return data.find(_END, at)

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self._refusal is not None:
            return
        parts = self._parts
        if parts and len(parts[-1]) < _WORTH_KEEPING:
            parts[-1] += data
        else:
            parts.append(data)
        if self.size > self._limit:
            self._refuse_size()

    def _cut(self, data: bytes, end: int) -> None:
        """Keep the octets before C{end}, which may lie before the beginning of the last segment."""
        if end > 0:
            self._keep(data[:end])
        elif end < 0:
            self.size += end
            if self._parts:
                self._parts = [b"".join(self._parts)[:end]]

    def _refuse_size(self) -> None:
        self.refuse(too_large(self._max))

    @property
    def plain(self) -> bool:
        """Whether it is known of the finished message that every line end is CRLF and that no line
        begins with a dot. Lone CR and LF that were made line ends may have a dot behind them."""
        return self._line_endings == "Deny" and not self._dotted

    def finish(self) -> bytes | Reply:
        """The message, unstuffed; or why it is not taken. To be called once, after its end."""
        if self._refusal is not None:
            return self._refusal
        parts = self._parts
        body = b"".join(parts)  # of one part no copy is made
        self._parts = []
        self.size = 0
        if self._dotted:
            # A line that begins with a dot loses it (RFC 5321, 4.5.2).
            body = body.replace(b"\r\n.", b"\r\n")
            if body.startswith(b"."):
                body = body[1:]
        return settle_lines(body, self._max, self._line_endings, self._line_limit)


def too_large(limit: int) -> Reply:
    """What a message with more octets is refused with (RFC 1870, 6.3)."""
    return Reply.of(552, "5.3.4", f"messages may have {limit} octets, not more")


def settle_lines(
    body: bytes, max_size: int, line_endings: LineEndings, line_length_limit: int
) -> bytes | Reply:
    """Hold a whole message to the rules on its size and its lines; see L{BodyReader}.

    @return: the message as it is kept, or why it is not.
    """
    if len(body) > max_size:
        return too_large(max_size)
    if line_endings != "Allow" and not is_canonical(body):
        if line_endings == "Deny":
            return _LONE
        body = _ANY_LINE_END.sub(b"\r\n", body)
    if line_length_limit and max(map(len, body.split(b"\r\n"))) > line_length_limit:
        limit = f"lines may have {line_length_limit} octets"
        return Reply.of(500, "5.2.3", f"line too long: {limit}")
    return body
