"""From octets to replies (RFC 5321, 4.2; RFC 2034, 4)."""

from __future__ import annotations

import re

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_REPLY", "ReplyReader"]

#: Octets of a line that are kept; RFC 5321, 4.5.3.1.5 allows 512, so this is generous.
MAX_LINE = 4096
#: Lines of one reply; the longest EHLO replies in the wild have about 30.
MAX_LINES = 128
#: Octets of one reply, line ends and what was not kept included.
MAX_REPLY = 65536

_LINE = re.compile(
    rb"([2-5]\d\d)"  # the code
    rb"(?:([ -])(?:([245])\.(\d{1,3})\.(\d{1,3})(?: +|$))?(.*))?",  # RFC 2034's code, the text
    re.DOTALL,
)


class ReplyReader:
    """Assembles replies from what a server sends, whatever the pieces it arrives in.

    Lines end in CRLF; a bare LF is tolerated. The enhanced status code is taken off every line
    if its class is the reply's; the first one counts. Time is linear in what is received.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        # Of the reply that is being assembled:
        self._code = 0
        self._enhanced: EnhancedCode | None = None
        self._lines: list[str] = []
        self._octets = 0

    def receive_data(self, data: bytes) -> None:
        """Take octets as they come."""
        self._buffer += data

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left: neither octets nor the beginning of a reply."""
        return not self._buffer and not self._lines

    def next_reply(self, command: str = "") -> Reply | None:
        """The next whole reply.

        @param command: what it answers, for C{Reply.command}.
        @return: L{None} until it is whole.
        @raise RemoteProtocolError: if this is not a reply, or one beyond the bounds. The
            reader is of no use afterwards.
        """
        buffer = self._buffer
        start = 0
        while (end := buffer.find(b"\n", max(self._searched, start))) >= 0:
            line = bytes(buffer[start : end + 1])
            start = end + 1
            if self._add_line(line):
                del buffer[:start]
                self._searched = 0
                return self._take(command)
        if start:
            del buffer[:start]
        self._searched = len(buffer)
        if buffer and buffer[0] not in b"2345":
            raise RemoteProtocolError(f"not a reply: {bytes(buffer[:60])!r}")
        if self._octets + len(buffer) > MAX_REPLY:
            raise _too_large()
        return None

    def _add_line(self, line: bytes) -> bool:
        """Take a line with its line end into the reply; true if it was the last one."""
        self._octets += len(line)
        if self._octets > MAX_REPLY:
            raise _too_large()
        text = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        match = _LINE.fullmatch(text[:MAX_LINE])
        if match is None:
            raise RemoteProtocolError(f"not a reply: {text[:60]!r}")
        raw_code, separator, klass, subject, detail, rest = match.groups()
        code = int(raw_code)
        if not self._lines:
            self._code = code
        elif code != self._code:
            raise RemoteProtocolError(f"a reply with the codes {self._code} and {code}")
        elif len(self._lines) == MAX_LINES:
            raise RemoteProtocolError(f"a reply of more than {MAX_LINES} lines")
        if klass is not None:
            if klass[0] == raw_code[0]:
                if self._enhanced is None:
                    self._enhanced = EnhancedCode(int(klass), int(subject), int(detail))
            else:
                rest = text[4:MAX_LINE]
        self._lines.append("" if rest is None else rest.decode("utf-8", "backslashreplace"))
        return separator != b"-"

    def _take(self, command: str) -> Reply:
        reply = Reply(self._code, self._enhanced, tuple(self._lines), command)
        self._enhanced = None
        self._lines = []
        self._octets = 0
        return reply


def _too_large() -> RemoteProtocolError:
    return RemoteProtocolError(f"a reply of more than {MAX_REPLY} octets")
