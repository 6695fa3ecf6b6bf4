"""SMTP replies as values (RFC 5321, 4.2; RFC 2034; RFC 3463)."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

from kumotwist.wire.errors import RemoteProtocolError

__all__ = ["EnhancedCode", "Reply", "UnaskedReplyError", "one_line"]

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?: +|$)")
# Everything that could forge a log line or drive a terminal.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

#: The longest reply text, in characters, that is kept for logs and reports.
MAX_REPLY_TEXT = 1024


def one_line(text: str, limit: int = MAX_REPLY_TEXT) -> str:
    """Make text from a peer safe for one line of a log: bounded, control characters escaped."""
    if not (text.isascii() and text.isprintable()):
        text = _UNSAFE.sub(lambda match: f"\\x{ord(match.group()):02x}", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class UnaskedReplyError(RemoteProtocolError):
    """The server said something while nothing was asked: replies and commands are out of step."""


class EnhancedCode(NamedTuple):
    """An enhanced status code (RFC 3463): class, subject, detail."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    @classmethod
    def parse(cls, text: str) -> EnhancedCode:
        """Read C{"5.1.1"}; raise L{ValueError} for anything else."""
        return _enhanced_code(text)


@functools.lru_cache(maxsize=256)
def _enhanced_code(text: str) -> EnhancedCode:
    match = _ENHANCED.fullmatch(text)
    if match is None:
        raise ValueError(f"not an enhanced status code: {text!r} (such as 5.1.1)")
    klass, subject, detail = map(int, match.groups())
    return EnhancedCode(klass, subject, detail)


class Reply(NamedTuple):
    """A whole reply, of one line or many.

    @ivar code: the three digits, 200 to 599.
    @ivar enhanced_code: the enhanced status code, if the reply carried one.
    @ivar lines: the text of each line, without codes and without line ends; at least one.
    @ivar command: the command that it answers, as sent, without its CRLF and without secrets;
        C{"."} for the end of data, C{""} for the greeting or when nothing was asked.
    """

    code: int
    enhanced_code: EnhancedCode | None
    lines: tuple[str, ...]
    command: str = ""

    @classmethod
    def of(cls, code: int, enhanced: str | None, *lines: str) -> Reply:
        """Build a reply of our own: C{Reply.of(250, "2.1.0", "sender ok")}."""
        return cls(code, None if enhanced is None else EnhancedCode.parse(enhanced), lines or ("",))

    @property
    def content(self) -> str:
        """The text in one line, safe to log, without the codes."""
        lines = self.lines
        text = lines[0] if len(lines) == 1 else " ".join(filter(None, lines))
        if text.isascii() and text.isprintable() and len(text) <= MAX_REPLY_TEXT:
            return text  # as most are
        return one_line(text)

    @property
    def is_positive(self) -> bool:
        """Completed or intermediate: 2xx and 3xx."""
        return 200 <= self.code < 400

    @property
    def is_transient(self) -> bool:
        """A 4xx."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """A 5xx."""
        return 500 <= self.code < 600

    def to_bytes(self) -> bytes:
        """The reply as it stands on the wire (RFC 5321, 4.2.1; RFC 2034, 4)."""
        code, enhanced, lines, _ = self
        prefix = ""
        if enhanced is not None:
            prefix = f"{enhanced.klass}.{enhanced.subject}.{enhanced.detail} "
        if len(lines) == 1:
            return f"{code} {prefix}{lines[0]}\r\n".encode("utf-8", "replace")
        text = "".join([f"{code}-{prefix}{line}\r\n" for line in lines[:-1]])
        return f"{text}{code} {prefix}{lines[-1]}\r\n".encode("utf-8", "replace")

    def __str__(self) -> str:
        """The reply as an operator reads it: C{550 5.1.1 no such user}."""
        enhanced = "" if self.enhanced_code is None else f" {self.enhanced_code}"
        return f"{self.code}{enhanced} {self.content}".rstrip()
