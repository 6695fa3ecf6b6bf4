"""Messages that arrive in chunks of known size, as a server reads them (RFC 3030).

What comes in is text like that of DATA, and held to the same rules, unless the client has said
BODY=BINARYMIME: then only the header is text.
"""

from __future__ import annotations

import re

from kumotwist.wire.smtp.body import LineEndings, settle_lines, too_large
from kumotwist.wire.smtp.commands import CommandRefusedError
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.server_input import ServerInput
from kumotwist.wire.smtp.server_options import ServerOptions

__all__ = ["ChunkDialogue", "ChunkedBody", "read_bdat"]

_BDAT = re.compile(r"([0-9]{1,20})( LAST)?", re.IGNORECASE)
# Where the chunk ends is not known then: read on, its octets would be taken for commands.
_WRONG = Reply.of(421, "4.5.4", "the syntax is BDAT OCTETS [LAST]")


def read_bdat(argument: str) -> tuple[int, bool]:
    """The arguments of BDAT.

    @return: octets of the chunk, and whether it is the last one.
    @raise CommandRefusedError: if they do not say how much follows.
    """
    match = _BDAT.fullmatch(argument)
    if match is None:
        raise CommandRefusedError(_WRONG)
    return int(match.group(1)), match.group(2) is not None


class ChunkedBody:
    """Gathers one message, keeping at most what the limit allows.

    The octets of a chunk that is refused are read and forgotten: they are no commands.

    @param max_size: octets that the message may have.
    @param line_endings: see L{kumotwist.wire.smtp.body.BodyReader}.
    @param line_length_limit: likewise.
    @param binary: whether the rules on lines hold for the header alone.
    @ivar left: octets of the present chunk that have not come.
    @ivar last: whether it is the last one.
    @ivar size: octets of the present chunk.
    @ivar refusal: what the message is refused with; L{None} while it is not.
    @ivar held: octets that are kept in memory.
    """

    __slots__ = ("_binary", "_line_endings", "_line_limit", "_max", "_parts", "held", "last",
                 "left", "refusal", "size")  # fmt: skip

    def __init__(
        self,
        max_size: int,
        line_endings: LineEndings = "Deny",
        line_length_limit: int = 0,
        *,
        binary: bool = False,
    ) -> None:
        self._binary = binary
        self._max = max_size
        self._line_endings = line_endings
        self._line_limit = line_length_limit
        self._parts = bytearray()
        self.held = 0
        self.left = 0
        self.last = False
        self.size = 0
        self.refusal: Reply | None = None

    def begin(self, size: int, last: bool) -> None:
        """A chunk follows."""
        self.left = self.size = size
        self.last = last
        if self.held + size > self._max:
            self.refuse(too_large(self._max))

    def refuse(self, reply: Reply) -> None:
        """Keep nothing of the message."""
        if self.refusal is None:
            self.refusal = reply
            self._parts.clear()
            self.held = 0

    def feed(self, data: bytes) -> int:
        """Take a segment.

        @return: how many of its octets belong to the chunk.
        """
        used = min(self.left, len(data))
        self.left -= used
        if self.refusal is None:
            self._parts += data if used == len(data) else data[:used]
            self.held += used
        return used

    def finish(self) -> bytes | Reply:
        """The message, a text with a line end at its end; or why it is not taken. To be called
        once."""
        if self.refusal is not None:
            return self.refusal
        body = bytes(self._parts)
        self._parts.clear()
        self.held = 0
        if self._binary:
            return self._binary_message(body)
        if body and not body.endswith(b"\r\n"):
            body += b"\r\n"
        return settle_lines(body, self._max + 2, self._line_endings, self._line_limit)

    def _binary_message(self, body: bytes) -> bytes | Reply:
        end = body.find(b"\r\n\r\n")
        end = len(body) if end < 0 else end + 2
        header = settle_lines(body[:end], self._max, self._line_endings, self._line_limit)
        return header if isinstance(header, Reply) else header + body[end:]


class ChunkDialogue:
    """BDAT in one session: the message that comes in chunks, and the chunk that is being read.

    @ivar message: the message; L{None} before its first chunk. A chunk that belongs to none is read
        and forgotten.
    @ivar present: the chunk's message while its octets are awaited, else L{None}.
    @ivar command: the chunk's command.
    """

    __slots__ = ("_options", "command", "message", "present")

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self.message: ChunkedBody | None = None
        self.present: ChunkedBody | None = None
        self.command = ""

    def read_command(
        self, argument: str, command: str, refusal: Reply | None, *, binary: bool = False
    ) -> None:
        """Read the arguments of BDAT; the octets of the chunk come next.

        @param refusal: what it gets when they have come, if it comes at a wrong moment.
        @param binary: whether the message may have any octets.
        @raise CommandRefusedError: if the arguments do not say how many octets follow; its reply
            ends the session.
        """
        size, last = read_bdat(argument)
        options = self._options
        body = self.message or ChunkedBody(
            options.max_message_size,
            options.line_endings,
            options.line_length_limit,
            binary=binary,
        )
        if refusal is None:
            self.message = body
        else:
            body.refuse(refusal)
        body.begin(size, last)
        self.present = body
        self.command = command

    def feed(self, waiting: ServerInput) -> ChunkedBody | None:
        """Read on in the chunk.

        @return: its message, if all of the chunk has come.
        """
        body = self.present
        assert body is not None
        waiting.skip(body.feed(waiting.peek()))
        if body.left:
            return None
        self.present = None
        return body

    def forget(self) -> None:
        """The transaction is over."""
        self.message = None
