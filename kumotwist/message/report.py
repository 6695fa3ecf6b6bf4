"""Delivery status notifications (RFC 3464 in RFC 6522's envelope).

A report is always 7-bit, whatever the message was, so that it can be sent to every host;
only a sender whose own address is not ASCII gets a report with that address in its C{To:}, which
then needs SMTPUTF8 like the address itself (RFC 6532).
"""

from __future__ import annotations

import binascii
import re
import textwrap
from typing import Literal, NamedTuple

import attrs

from kumotwist.message.dates import date_time
from kumotwist.message.header import header_end, header_value
from kumotwist.message.queued import QueuedMessage
from kumotwist.wire.smtp.dsn import utf_8_xtext
from kumotwist.wire.smtp.replies import EnhancedCode, Reply, one_line

__all__ = ["Action", "Notice", "build_report", "wants_report"]

#: A failed message up to this size is returned whole, of a larger one only the header.
MAX_RETURNED_MESSAGE = 64 * 1024
#: The same if the sender asked for the whole (RET=FULL of RFC 3461, 4.3).
MAX_RETURNED_ON_DEMAND = 10 * 1024 * 1024
#: A header is cut behind the last line that ends before this size.
MAX_RETURNED_HEADER = 32 * 1024

_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,240}>")
_LINE_END = re.compile(rb"\r\n|\r|\n")
_LONGEST_LINE = 999  # with its CR
_DIAGNOSTIC = 600


#: What became of a message, as C{Action} says it (RFC 3464, 2.3.3).
Action = Literal["failed", "delayed", "delivered", "relayed"]


class _Words(NamedTuple):
    """How a report speaks of an action.

    @ivar event: the word of NOTIFY that asks for it (RFC 3461, 4.1).
    """

    event: str
    subject: str
    opening: str
    closing: str


_WORDS: dict[Action, _Words] = {
    "failed": _Words(
        "FAILURE",
        "Your message could not be delivered",
        "Your message could not be delivered to one of its recipients, and it will not be tried "
        "again. Copies to other recipients are not affected by this.",
        "If the address is right and the reason above does not help, forward this report to your "
        "postmaster: the technical details are attached, and what you sent comes after them.",
    ),
    "delayed": _Words(
        "DELAY",
        "Your message is delayed",
        "Your message has not yet been delivered to one of its recipients. You need not do "
        "anything: it will be tried again.",
        "This is the only report of the delay. If the message cannot be delivered in the end, "
        "another one will say so.",
    ),
    "delivered": _Words(
        "SUCCESS",
        "Your message was delivered",
        "Your message was delivered to one of its recipients, as you asked to be told.",
        "What follows is the technical detail and the header of your message.",
    ),
    "relayed": _Words(
        "SUCCESS",
        "Your message was passed on",
        "Your message was passed on to the mail system of one of its recipients, which cannot "
        "report that it was delivered. There may be no further report.",
        "What follows is the technical detail and the header of your message.",
    ),
}


# The classes of replies that lead to an action, the one that is reported without any first.
_CLASSES: dict[Action, tuple[int, ...]] = {
    "failed": (5, 4),
    "delayed": (4,),
    "delivered": (2,),
    "relayed": (2,),
}


@attrs.define(frozen=True, kw_only=True)
class Notice:
    """What there is to tell of a message.

    @ivar reason: the cause in a sentence for people, such as C{The receiving server does not
        accept mail for this address.}
    @ivar action: what became of it.
    @ivar reply: the last answer, if a server gave one.
    @ivar status: the status to report where the reply's own is not the cause: C{4.4.7} for a
        message that expired.
    @ivar retry_until: until when a delayed message is tried; seconds since the epoch.
    @ivar remote_name: the host that answered, by the name that was looked up.
    @ivar remote_address: its IP address.
    @ivar last_attempt: when delivery was tried last; seconds since the epoch.
    @ivar source: the egress source of that attempt; empty to keep it private.
    """

    reason: str
    action: Action = "failed"
    reply: Reply | None = None
    status: EnhancedCode | None = None
    retry_until: float | None = None
    remote_name: str = ""
    remote_address: str = ""
    last_attempt: float | None = None
    source: str = ""

    def reported_status(self) -> EnhancedCode:
        """The C{Status} field: given, or the reply's own, or as near as its class comes."""
        if self.status is not None:
            return self.status
        expected = _CLASSES[self.action]
        if self.reply is None or self.reply.code // 100 not in expected:
            return EnhancedCode(expected[0], 0, 0)
        klass = self.reply.code // 100
        enhanced = self.reply.enhanced_code
        # RFC 2034, 4 wants the classes to agree; where they do not, the basic code counts.
        if enhanced is not None and enhanced.klass == klass:
            return enhanced
        return EnhancedCode(klass, 0, 0)


def wants_report(
    message: QueuedMessage, action: Action = "failed", *, delay_by_default: bool = False
) -> bool:
    """Whether anybody is to be told of an event.

    Never the null sender (RFC 5321, 4.5.5; RFC 3834, 2). Others say with NOTIFY what they want to
    hear of (RFC 3461, 4.1); who says nothing hears of failures.

    @param delay_by_default: whether such a sender hears of delays, too.
    """
    if message.sender in ("", "<>"):
        return False
    default = ("FAILURE", "DELAY") if delay_by_default else ("FAILURE",)
    return _WORDS[action].event in message.meta.get("dsn_notify", default)


def build_report(
    message: QueuedMessage,
    original: bytes,
    notice: Notice,
    *,
    reporting_mta: str,
    report_id: str,
    now: float,
    postmaster: str | None = None,
) -> bytes:
    """Write the report that tells a sender what became of a message.

    It is to be sent from the null sender to the message's sender.

    @param message: the message.
    @param original: its octets, header and body.
    @param notice: what became of it.
    @param reporting_mta: this node's host name.
    @param report_id: an id that nobody can guess (L{kumotwist.message.new_id}): it becomes the
        report's Message-ID and its boundary.
    @param now: the report's date; seconds since the epoch.
    @param postmaster: the address it comes from; C{postmaster@REPORTING_MTA} if absent.
    @return: the report with CRLF line ends.
    @raise ValueError: if nobody is to be told (L{wants_report}).
    """
    if not wants_report(message, notice.action, delay_by_default=True):
        raise ValueError("nobody wants a report on this message")
    host = _token(reporting_mta)
    # What was not lost does not come back, whatever RET says (RFC 3461, 4.3), and what was to
    # travel under TLS does not come back on a way that may have none (RFC 8689, 5).
    whole = notice.action == "failed" and "requiretls" not in message.meta
    boundary = f"report-{_token(report_id)}"
    while boundary.encode() in original:
        boundary += "x"
    header = [
        f"From: Mail Delivery System <{_token(postmaster or f'postmaster@{host}')}>",
        f"To: <{one_line(message.sender, 500)}>",
        f"Subject: {_WORDS[notice.action].subject}",
        f"Date: {date_time(now)}",
        f"Message-ID: <{_token(report_id)}@{host}>",
        *_thread(original),
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f' boundary="{boundary}"',
    ]
    parts = [
        _words_part(message, notice, host, now),
        _status_part(message, notice, host, now),
        _original_part(original, message.meta.get("dsn_ret") if whole else "HDRS"),
    ]
    delimiter = f"\r\n--{boundary}\r\n".encode()
    top = "\r\n".join(header).encode("utf-8", "replace") + b"\r\n"
    return top + b"".join(delimiter + part for part in parts) + f"\r\n--{boundary}--\r\n".encode()


# -- the three parts -----------------------------------------------------------------------------


def _words_part(message: QueuedMessage, notice: Notice, host: str, now: float) -> bytes:
    """What happened, for the person who wrote the message."""
    recipient = one_line(message.recipient, 500)
    words = _WORDS[notice.action]
    late = notice.action in {"failed", "delayed"}
    paragraphs = [
        f"This is the mail system at {host}.",
        words.opening,
        f"Recipient:\n    {recipient}",
        ("Why:\n" if late else "What happened:\n") + _indented(one_line(notice.reason)),
    ]
    if notice.reply is not None:
        answer = "The last answer"
        remote = _remote_words(notice)
        if remote:
            answer += f", from {remote}"
        paragraphs.append(f"{answer}:\n" + _indented(str(notice.reply)))
    paragraphs.append(
        f"The message was received on {date_time(message.created)} and was tried for "
        f"{_duration_words(now - message.created)}"
        + (f", {message.attempts} times." if message.attempts > 1 else ".")
        if late
        else f"The message was received on {date_time(message.created)}."
    )
    if notice.retry_until is not None:
        paragraphs.append(f"It will be tried until {date_time(notice.retry_until)}.")
    paragraphs.append(words.closing)
    wrapped = (
        text if "\n" in text else textwrap.fill(text, 72, break_on_hyphens=False)
        for text in paragraphs
    )
    text = "\n\n".join(wrapped).replace("\n", "\r\n") + "\r\n"
    return _text_part("text/plain", text.encode("utf-8", "replace"))


def _status_part(message: QueuedMessage, notice: Notice, host: str, now: float) -> bytes:
    """The fields that programs read (RFC 3464, 2)."""
    recipient = message.recipient
    kind = "rfc822"
    if not recipient.isascii():
        # RFC 6533, 3: the form that fits into a 7-bit report.
        kind = "utf-8"
        recipient = utf_8_xtext(recipient)
    envelope_id = message.meta.get("dsn_envid")
    original = message.meta.get("dsn_orcpt")
    lines = [
        *([f"Original-Envelope-Id: {_ascii(envelope_id, 200)}"] if envelope_id else ()),
        f"Reporting-MTA: dns; {host}",
        f"Arrival-Date: {date_time(message.created)}",
        "",
        *([f"Original-Recipient: {_ascii(original, 900)}"] if original else ()),
        f"Final-Recipient: {kind}; {_ascii(recipient, 900)}",
        f"Action: {notice.action}",
        f"Status: {notice.reported_status()}",
    ]
    remote = _remote_name(notice) or (notice.remote_address and f"[{notice.remote_address}]")
    if remote:
        lines.append(f"Remote-MTA: dns; {_token(remote)}")
    if notice.reply is not None:
        lines.extend(_diagnostic(notice.reply))
    attempt = now if notice.last_attempt is None else notice.last_attempt
    lines.append(f"Last-Attempt-Date: {date_time(attempt)}")
    if notice.retry_until is not None:
        lines.append(f"Will-Retry-Until: {date_time(notice.retry_until)}")
    lines.append(f"X-Kumotwist-Message-ID: {_token(message.id)}")
    if notice.remote_address:
        lines.append(f"X-Kumotwist-Remote-Address: {_token(notice.remote_address)}")
    if notice.source:
        lines.append(f"X-Kumotwist-Source: {_ascii(notice.source, 200)}")
    fields = "\r\n".join(lines) + "\r\n"
    return b"Content-Type: message/delivery-status\r\n\r\n" + fields.encode("ascii")


def _original_part(original: bytes, wanted: str | None) -> bytes:
    """The message itself, or its header where the whole is too large or not plain 7-bit text.

    @param wanted: C{FULL} or C{HDRS}, if the sender said so.
    """
    limit = {"FULL": MAX_RETURNED_ON_DEMAND, "HDRS": -1}.get(wanted or "", MAX_RETURNED_MESSAGE)
    if len(original) <= limit and _is_plain(original):
        return b"Content-Type: message/rfc822\r\n\r\n" + original
    header = original[: header_end(original)]
    if len(header) > MAX_RETURNED_HEADER:
        header = header[: header.rfind(b"\n", 0, MAX_RETURNED_HEADER) + 1]
    return _text_part("text/rfc822-headers", header)


# -- helpers -------------------------------------------------------------------------------------


def _text_part(kind: str, text: bytes) -> bytes:
    """A part of text, quoted-printable unless it is plain already."""
    if _is_plain(text):
        return f"Content-Type: {kind}; charset=us-ascii\r\n\r\n".encode() + text
    lines = _LINE_END.split(text)
    quoted = b"\r\n".join(binascii.b2a_qp(line).replace(b"=\n", b"=\r\n") for line in lines)
    return (
        f"Content-Type: {kind}; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
    ).encode() + quoted


def _is_plain(data: bytes) -> bool:
    """Whether octets can stand in a 7-bit message as they are (RFC 5322, 2.1.1; RFC 2045, 2.7)."""
    return (
        data.isascii()
        and b"\0" not in data
        and data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
        and max(map(len, data.split(b"\n"))) <= _LONGEST_LINE
    )


def _thread(original: bytes) -> list[str]:
    """Fields that let a mail program show the report beside the message (RFC 3834, 3.1.5)."""
    message_id = header_value(original[:MAX_RETURNED_HEADER], b"Message-ID")
    if message_id is None or not _MESSAGE_ID.fullmatch(message_id):
        return []
    text = message_id.decode("ascii")
    return [f"In-Reply-To: {text}", f"References: {text}"]


def _diagnostic(reply: Reply) -> list[str]:
    """C{Diagnostic-Code}, folded (RFC 3464, 2.3.6)."""
    text = _ascii(f"Diagnostic-Code: smtp; {reply}", _DIAGNOSTIC)
    return textwrap.wrap(
        text, 76, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False
    )


def _remote_words(notice: Notice) -> str:
    address = notice.remote_address and f"[{_token(notice.remote_address)}]"
    return " ".join(part for part in (one_line(_remote_name(notice), 255), address) if part)


def _remote_name(notice: Notice) -> str:
    """The host's name; empty for one that has only an address."""
    return "" if notice.remote_name == notice.remote_address else notice.remote_name


def _indented(text: str) -> str:
    return textwrap.fill(
        text, 72, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
    )


def _duration_words(seconds: float) -> str:
    """Roughly how long, in the largest unit of which there are at least two."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return "a minute" if seconds >= 60 else "less than a minute"


def _token(text: str) -> str:
    """Text without blanks, brackets or anything else that could end a field or an address."""
    return re.sub(r"[^!#-'*-;=?-~]", "?", text[:255])


def _ascii(text: str, limit: int) -> str:
    """Text for one line of a 7-bit header field."""
    return one_line(text, limit).encode("ascii", "backslashreplace").decode("ascii")
