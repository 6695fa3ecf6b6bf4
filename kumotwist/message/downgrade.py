"""Making a message with 8-bit or binary parts fit for servers that take neither (RFC 6152, 3; RFC
3030, 3; RFC 2045, 6).

Only what does not fit is touched: the body of such a part becomes quoted-printable or base64, and
its C{Content-Transfer-Encoding} says so. All other octets stay as they are. What cannot be
converted without doubt is not converted at all: that is better than a broken message.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from email.errors import HeaderParseError
from email.message import Message

from kumotwist.message.header import Field, header_end, header_fields
from kumotwist.wire.smtp.data import is_canonical

__all__ = ["NotConvertibleError", "downgrade", "downgrade_binary"]

#: Multiparts within multiparts that are followed.
MAX_DEPTH = 20
#: Parts of a message that are looked at.
MAX_PARTS = 1000
#: Octets of one header field that are parsed.
MAX_FIELD = 8192

#: Octets of a line without its line end (RFC 5322, 2.1.1).
MAX_LINE = 998

_SAYS_BINARY = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\r\n]*(\r\n[ \t][^\r\n]*)*binary",
    re.IGNORECASE | re.MULTILINE,
)
_UNFOLD = re.compile(rb"\r\n(?=[ \t])")
_COMMENT = re.compile(rb"\([^()\\\"]*\)")
# What a type or a subtype is made of, RFC 2045, 5.1.
_TYPE = re.compile(r"[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+/[!#$%&'*+.0-9A-Z^_`a-z{|}~-]+")
# What must not be touched within (RFC 1847), and what has to be looked into.
_OPAQUE = frozenset({"multipart/signed", "multipart/encrypted"})
_ENCLOSED = "message/rfc822"
_PLAIN_ENCODINGS = frozenset({"", "7bit", "8bit", "binary"})


class NotConvertibleError(ValueError):
    """The message cannot be converted without harm; the text says why."""


def downgrade(message: bytes) -> bytes:
    """Convert a message so that it has no octets above 127.

    @param message: header and body, with CRLF line ends.
    @raise NotConvertibleError: if there are such octets in a header, in a signed or encrypted part
        or in one whose structure is in doubt.
    """
    if message.isascii():
        return message
    return _Conversion(bytes.isascii, bytes.isascii).entity(message, 0, is_message=True)


def downgrade_binary(message: bytes) -> bytes:
    """Convert a message of any octets so that it is 7-bit text in lines that are not too long.

    @param message: header and body, as they came with BODY=BINARYMIME.
    @raise NotConvertibleError: as L{downgrade} does, and where the structure itself is not text.
    """
    converted = _Conversion(_is_settled, _is_text).entity(message, 0, is_message=True)
    if not _is_text(converted):
        raise NotConvertibleError("its structure is not text in lines")
    return converted


def _is_text(octets: bytes) -> bool:
    """Whether octets are 7-bit text in lines (RFC 2045, 2.7)."""
    return (
        octets.isascii()
        and b"\0" not in octets
        and is_canonical(octets)
        and not _has_long_line(octets)
    )


def _has_long_line(octets: bytes) -> bool:
    """Whether a line has more than L{MAX_LINE} octets; from one line end to the last one in reach
    of it, so that many short lines cost nothing."""
    at = 0
    while len(octets) - at > MAX_LINE:
        found = octets.rfind(b"\n", at, at + MAX_LINE + 2)
        if found < 0:
            return True
        at = found + 1
    return False


def _is_settled(octets: bytes) -> bool:
    """Whether octets are such text, and no part of them calls itself binary."""
    return _is_text(octets) and _SAYS_BINARY.search(octets) is None


class _Conversion:
    """One message on its way to 7 bits; counts its parts.

    @param fits: whether octets can stay as they are.
    @param travels: whether octets can be sent, though they may not be called what they are.
    """

    def __init__(self, fits: Callable[[bytes], bool], travels: Callable[[bytes], bool]) -> None:
        self._fits = fits
        self._travels = travels
        self._parts = 0

    def entity(
        self, octets: bytes, depth: int, *, is_message: bool = False, in_digest: bool = False
    ) -> bytes:
        """Convert a message or a part: a header and what belongs to it.

        @param is_message: it is a whole message.
        @param in_digest: what does not say what it is, is a message (RFC 2046, 5.1.5).
        """
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise NotConvertibleError(f"it has more than {MAX_PARTS} parts")
        if self._fits(octets):
            return octets
        end = header_end(octets)
        if not self._travels(octets[:end]):
            raise NotConvertibleError("it has 8-bit data, or what is no line, in a header")
        head = _Header(
            octets[: end + 2] if octets[end : end + 2] == b"\r\n" else octets[:end], in_digest
        )
        major = head.type.partition("/")[0]
        opaque = head.type in _OPAQUE or (major == "message" and head.type != _ENCLOSED)
        if (opaque or (is_message and not head.is_mime)) and self._travels(octets):
            return octets
        if is_message and not head.is_mime:
            raise NotConvertibleError("it is not MIME")
        body = octets[len(head.octets) :]
        if head.type in _OPAQUE:
            raise NotConvertibleError(f"8-bit data is in a part of {head.type}")
        if major == "multipart":
            return self._multipart(head, body, depth)
        if head.type == _ENCLOSED:
            return self._enclosed(head, body, depth)
        if major == "message":
            raise NotConvertibleError(f"8-bit data is in a part of {head.type}")
        return _encoded(head, body)

    def _enclosed(self, head: _Header, body: bytes, depth: int) -> bytes:
        """A message within the message: it must not be encoded itself (RFC 2046, 5.2.1)."""
        _require_plain(head)
        if depth == MAX_DEPTH:
            raise NotConvertibleError(f"parts are nested more than {MAX_DEPTH} deep")
        return head.with_encoding("7bit") + self.entity(body, depth + 1, is_message=True)

    def _multipart(self, head: _Header, body: bytes, depth: int) -> bytes:
        _require_plain(head)
        if depth == MAX_DEPTH:
            raise NotConvertibleError(f"parts are nested more than {MAX_DEPTH} deep")
        pieces = [head.with_encoding("7bit")]
        for piece, is_part in _split(body, head.boundary):
            if is_part:
                piece = self.entity(piece, depth + 1, in_digest=head.type == "multipart/digest")
            elif not self._fits(piece):
                raise NotConvertibleError("8-bit data is outside of the parts of a multipart")
            pieces.append(piece)
        return b"".join(pieces)


class _Header:
    """The header of a message or a part.

    @ivar octets: it as it stands, with the empty line behind it, if there is one.
    @ivar type: type and subtype in lower case.
    @ivar encoding: the C{Content-Transfer-Encoding} in lower case.
    @ivar boundary: of a multipart.
    """

    def __init__(self, octets: bytes, in_digest: bool) -> None:
        self.octets = octets
        self.type, self.boundary = "message/rfc822" if in_digest else "text/plain", b""
        self._fields: dict[bytes, Field] = {}
        for field in header_fields(octets):
            name = field.name.lower()
            if name not in {b"content-type", b"content-transfer-encoding", b"mime-version"}:
                continue
            if name in self._fields:
                raise NotConvertibleError(f"a header has two fields {name.decode()}")
            if field.end - field.start > MAX_FIELD:
                raise NotConvertibleError(f"a field {name.decode()} is too long")
            self._fields[name] = field
        self.is_mime = b"mime-version" in self._fields
        self.encoding = _COMMENT.sub(b"", self._value(b"content-transfer-encoding")).decode()
        self.encoding = self.encoding.strip().lower()
        self._parse_type()

    def _value(self, name: bytes) -> bytes:
        field = self._fields.get(name)
        if field is None:
            return b""
        return _UNFOLD.sub(b"", self.octets[field.value_start : field.end]).strip()

    def _parse_type(self) -> None:
        text = self._value(b"content-type").decode("ascii")
        if not text:
            return
        word = text.partition(";")[0].strip()
        if _TYPE.fullmatch(word) is None:
            raise NotConvertibleError("a Content-Type cannot be read")
        self.type = word.lower()
        if not self.type.startswith("multipart/"):
            return
        parsed: Message[str, str] = Message()
        parsed["Content-Type"] = text
        try:
            boundary = parsed.get_boundary()
        except HeaderParseError:
            boundary = None
        if not boundary or len(boundary) > 70 or not boundary.isascii() or "\r" in boundary:
            raise NotConvertibleError("a multipart has no boundary, or a wrong one")
        if text.lower().count("boundary") > 1:
            raise NotConvertibleError("a multipart has a boundary that is in doubt")
        self.boundary = boundary.encode("ascii")

    def with_encoding(self, encoding: str) -> bytes:
        """The header with another C{Content-Transfer-Encoding}; a 7bit that is implied is not
        written down."""
        field = self._fields.get(b"content-transfer-encoding")
        line = b"Content-Transfer-Encoding: %b\r\n" % encoding.encode("ascii")
        if field is not None:
            return self.octets[: field.start] + line + self.octets[field.end :]
        if encoding == "7bit":
            return self.octets
        end = header_end(self.octets)
        return self.octets[:end] + line + self.octets[end:]


def _require_plain(head: _Header) -> None:
    """RFC 2045, 6.4: what has parts is not encoded itself."""
    if head.encoding not in _PLAIN_ENCODINGS:
        raise NotConvertibleError(f"a part of {head.type} has the encoding {head.encoding[:40]!r}")


def _encoded(head: _Header, body: bytes) -> bytes:
    """A part without parts: text becomes quoted-printable, and anything else base64."""
    if head.encoding not in _PLAIN_ENCODINGS:
        # What claims to be base64 and has 8-bit octets is damaged already.
        raise NotConvertibleError(f"8-bit data in the encoding {head.encoding[:40]!r}")
    if head.octets[-4:] != b"\r\n\r\n" and head.octets != b"\r\n":
        raise NotConvertibleError("a header does not end")
    if _is_text(body):
        return head.with_encoding("7bit") + body
    if head.type.startswith("text/") and b"\0" not in body and is_canonical(body):
        return head.with_encoding("quoted-printable") + _quoted_printable(body)
    return head.with_encoding("base64") + _base64(body)


def _quoted_printable(body: bytes) -> bytes:
    # Line by line, since b2a_qp makes line ends of its own out of those that it finds.
    return b"\r\n".join(
        binascii.b2a_qp(line).replace(b"=\n", b"=\r\n") for line in body.split(b"\r\n")
    )


def _base64(body: bytes) -> bytes:
    lines = (
        binascii.b2a_base64(body[at : at + 57], newline=False) for at in range(0, len(body), 57)
    )
    return b"".join(line + b"\r\n" for line in lines)


def _split(body: bytes, boundary: bytes) -> list[tuple[bytes, bool]]:
    """Take a multipart's body apart, so that joined it is what it was (RFC 2046, 5.1.1).

    @return: pieces, each with whether it is a part; the others are delimiters, with the line
        ends that belong to them, the preamble and the epilogue.
    """
    delimiter = re.compile(rb"(?:^|\r\n)--%b(--)?[ \t]*(?:\r\n|\Z)" % re.escape(boundary))
    pieces: list[tuple[bytes, bool]] = []
    at, first = 0, True
    while True:
        # The line end before a delimiter may be the one behind the one before it: an empty part.
        match = delimiter.search(body, at if first else at - 2)
        if match is None:
            raise NotConvertibleError("a multipart does not end")
        begin = max(match.start(), at)
        pieces.append((body[at:begin], not first))
        pieces.append((body[begin : match.end()], False))
        at, first = match.end(), False
        if len(pieces) > 2 * MAX_PARTS:
            raise NotConvertibleError(f"it has more than {MAX_PARTS} parts")
        if match.group(1):
            pieces.append((body[at:], False))
            return pieces
