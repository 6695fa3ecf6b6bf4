"""What a client has sent and nobody has read yet; cut into lines where commands are awaited."""

from __future__ import annotations

import re

from kumotwist.wire.smtp import server_replies as say
from kumotwist.wire.smtp.replies import Reply

__all__ = ["ServerInput"]

#: Octets of a command line with its CRLF. RFC 5321, 4.5.3.1.4 asks for 512 and more for each
#: extension; SMTPUTF8 and long parameters fit into four times as much.
MAX_COMMAND_LINE = 2048

#: Octets without a line end after which the client is sent away.
MAX_ENDLESS_LINE = 65536


class ServerInput:
    """Octets that wait to be read, held once and never copied octet by octet.

    @ivar buffer: what they are part of; empty if there are none. To be looked at only.
    """

    __slots__ = ("_endless", "_offset", "buffer")

    def __init__(self) -> None:
        self.buffer = b""
        self._offset = 0
        self._endless = 0

    def __len__(self) -> int:
        return len(self.buffer) - self._offset

    def append(self, data: bytes) -> None:
        """Take octets, of any number, cut anywhere."""
        self.buffer = self.buffer[self._offset :] + data if self.buffer else data
        self._offset = 0

    def peek(self) -> bytes:
        """All of them; they stay."""
        return self.buffer[self._offset :] if self._offset else self.buffer

    def skip(self, count: int) -> None:
        """So many have been read."""
        self._offset += count
        if self._offset >= len(self.buffer):
            self.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self.buffer = b""
        self._offset = 0

    def next_match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Read what a pattern fits, if it fits what comes next.

        @param pattern: of whole lines that are not too long.
        """
        if self._endless:
            return None
        buffer = self.buffer
        found = pattern.match(buffer, self._offset)
        if found is not None:
            end = found.end()
            if end == len(buffer):
                self.buffer = b""
                end = 0
            self._offset = end
        return found

    def next_line(self) -> bytes | Reply | None:
        """Read one line; only CRLF ends it.

        @return: the line without its CRLF; L{None} if it has not ended; the reply to one that is
            too long to be a command, or that does not end at all.
        """
        buffer = self.buffer
        start = self._offset
        end = buffer.find(b"\r\n", start)
        if end < 0:
            return self._unfinished(buffer, start)
        self._offset = end + 2
        if end + 2 == len(buffer):
            self.clear()
        length = end - start + self._endless
        if length <= MAX_COMMAND_LINE - 2:
            return buffer[start:end]
        self._endless = 0
        return say.ENDLESS if length > MAX_ENDLESS_LINE else say.LINE_TOO_LONG

    def _unfinished(self, buffer: bytes, start: int) -> Reply | None:
        """Forget what cannot become a command; a CR at the end may belong to its line end."""
        length = len(buffer) - start
        if self._endless + length < MAX_COMMAND_LINE:
            return None
        kept = 1 if buffer.endswith(b"\r") else 0
        self._endless += length - kept
        self.buffer = buffer[len(buffer) - kept :]
        self._offset = 0
        if self._endless <= MAX_ENDLESS_LINE:
            return None
        self._endless = 0
        return say.ENDLESS
