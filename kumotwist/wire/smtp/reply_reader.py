"""From octets to replies (RFC 5321, 4.2; RFC 2034, 4)."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

__all__ = ["MAX_LINE", "MAX_LINES", "MAX_REPLY", "ReplyReader"]

#: Octets of a line that are kept; RFC 5321, 4.5.3.1.5 allows 512, so this is generous.
MAX_LINE = 4096
#: Lines of one reply; the longest EHLO replies in the wild have about 30.
MAX_LINES = 128
#: Octets of one reply, line ends and what was not kept included.
MAX_REPLY = 65536

#: Lines up to this length are remembered: most replies are the same few, again and again.
_MEMORABLE = 80
#: The same of replies of several lines that arrive in one piece: servers offer the same each time.
_MEMORABLE_WHOLE = 1024

_LINE = re.compile(
    rb"([2-5]\d\d)"  # the code
    rb"(?:([ -])(?:([245])\.(\d{1,3})\.(\d{1,3})(?: +|$))?(.*))?",  # RFC 2034's code, the text
    re.DOTALL,
)


class _Line(NamedTuple):
    """A line of a reply."""

    code: int
    last: bool
    enhanced: EnhancedCode | None
    text: str


def _read_line(line: bytes) -> _Line:
    """Read a line without its line end."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise RemoteProtocolError(f"not a reply: {line[:60]!r}")
    raw_code, separator, klass, subject, detail, rest = match.groups()
    enhanced = None
    if klass is not None:
        if klass == raw_code[:1]:
            enhanced = EnhancedCode(int(klass), int(subject), int(detail))
        else:
            rest = line[4:]
    text = "" if rest is None else rest.decode("utf-8", "backslashreplace")
    return _Line(int(raw_code), separator != b"-", enhanced, text)


_read_known_line = functools.lru_cache(maxsize=1024)(_read_line)


@functools.lru_cache(maxsize=64)
def _read_known_whole(data: bytes) -> Reply | None:
    """Read a reply of several lines, which answers to EHLO are, if it is that and nothing else."""
    reader = ReplyReader()
    reader.receive_data(data)
    try:
        reply = reader.assemble("")
    except RemoteProtocolError:
        return None
    return reply if reader.is_empty else None


class ReplyReader:
    """Assembles replies from what a server sends, whatever the pieces it arrives in.

    Lines end in CRLF; a bare LF is tolerated. The enhanced status code is taken off every line
    if its class is the reply's; the first one counts. Time is linear in what is received.

    @ivar unread: what has been received and not been read to its end.
    """

    def __init__(self) -> None:
        # It counts from C{_start} on; up to C{_searched} there is no line end.
        self.unread: bytes | bytearray = b""
        self._start = 0
        self._searched = 0
        # What was taken whole the last time.
        self._taken_whole = b""
        # Of the reply that is being assembled:
        self._code = 0
        self._enhanced: EnhancedCode | None = None
        self._lines: list[str] = []
        self._octets = 0

    def receive_data(self, data: bytes) -> None:
        """Take octets as they come."""
        if not self.unread:
            self.unread = data
            return
        if isinstance(self.unread, bytes):
            self.unread = bytearray(self.unread)
        del self.unread[: self._start]
        self._searched -= self._start
        self._start = 0
        self.unread += data

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left: neither octets nor the beginning of a reply."""
        return not self.unread and not self._lines

    def take_whole(self, pattern: re.Pattern[bytes]) -> bool:
        """Take all that has come, if it is what the pattern says from its beginning to its end.

        @param pattern: of whole replies that need not be read one by one; a bounded number of
            octets, and the same pattern each time.
        """
        if self._start or self._lines or not self.unread:
            return False
        if self.unread != self._taken_whole:  # most servers say the same each time
            if pattern.fullmatch(self.unread) is None:
                return False
            self._taken_whole = bytes(self.unread)
        self.unread = b""
        return True

    def next_reply(self, command: str = "") -> Reply | None:
        """The next whole reply.

        @param command: what it answers, for C{Reply.command}.
        @return: L{None} until it is whole.
        @raise RemoteProtocolError: if this is not a reply, or one beyond the bounds. The
            reader is of no use afterwards.
        """
        data = self.unread
        if not data:
            return None
        if type(data) is bytes and data[3:4] == b"-" and len(data) <= _MEMORABLE_WHOLE:
            # Else it is a line in the middle, or what is remembered is that it is not whole.
            known = None if self._start or self._lines else _read_known_whole(data)
            if known is not None:
                self.unread = b""
                self._searched = 0
                return Reply(known.code, known.enhanced_code, known.lines, command)
        return self.assemble(command)

    def assemble(self, command: str) -> Reply | None:
        """The same, line by line."""
        data = self.unread
        while (end := data.find(b"\n", self._searched) + 1) > 0:
            line = bytes(data[self._start : end])
            self._start = self._searched = end
            if end == len(data):
                self.unread = data = b""
                self._start = self._searched = 0
            if not self._lines and len(line) <= _MEMORABLE:
                # Most replies are one short line; the first one of several is read once more.
                text = line[:-2] if line.endswith(b"\r\n") else line[:-1]
                code, last, enhanced, content = _read_known_line(text)
                if last:
                    return Reply(code, enhanced, (content,), command)
            if self._add_line(line):
                return self._take(command)
        self._searched = len(data)
        left = self._searched - self._start
        if left and data[self._start] not in b"2345":
            raise RemoteProtocolError(f"not a reply: {bytes(data[self._start :][:60])!r}")
        if self._octets + left > MAX_REPLY:
            raise _too_large()
        return None

    def _add_line(self, line: bytes) -> bool:
        """Take a line with its line end into the reply; true if it was the last one."""
        length = len(line)
        self._octets += length
        if self._octets > MAX_REPLY:
            raise _too_large()
        text = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        read = _read_known_line if length <= _MEMORABLE else _read_line
        code, last, enhanced, content = read(text[:MAX_LINE])
        if not self._lines:
            self._code = code
        elif code != self._code:
            raise RemoteProtocolError(f"a reply with the codes {self._code} and {code}")
        elif len(self._lines) == MAX_LINES:
            raise RemoteProtocolError(f"a reply of more than {MAX_LINES} lines")
        if self._enhanced is None:
            self._enhanced = enhanced
        self._lines.append(content)
        return last

    def _take(self, command: str) -> Reply:
        reply = Reply(self._code, self._enhanced, tuple(self._lines), command)
        self._enhanced = None
        self._lines = []
        self._octets = 0
        return reply


def _too_large() -> RemoteProtocolError:
    return RemoteProtocolError(f"a reply of more than {MAX_REPLY} octets")
