"""The trace line that a relay puts on top of what it accepts (RFC 5321, 4.4)."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence

from kumotwist.message.dates import date_time

__all__ = ["received_header", "received_line", "received_opening"]

_NOT_DOMAIN = re.compile(r"[^A-Za-z0-9._-]")
_LITERAL = re.compile(r"\[[A-Za-z0-9.:-]+\]")
_NOT_ATOM = re.compile(r"[^A-Za-z0-9._:/-]")
_NOT_SUBJECT = re.compile(r"[^A-Za-z0-9._:/=,@+* -]")
_LINE = 78
_LONGEST_NAME = 255
_LONGEST_MAILBOX = 320


def received_header(
    *,
    ehlo: str,
    peer: str,
    hostname: str,
    protocol: str,
    message_id: str,
    now: float,
    recipients: tuple[str, ...] | list[str] = (),
    tls_version: str | None = None,
    tls_cipher: str | None = None,
    tls_subject: str | None = None,
    smtputf8: bool = False,
) -> bytes:
    """Build the C{Received:} field of a message that was just accepted, in KumoMTA's shape.

    Nothing that a client says can leave its place in the line: characters that do not belong into
    a domain become C{?}, and names are cut at 255.

    @param ehlo: the name the client gave with EHLO; may be empty.
    @param peer: its IP address as text; anything else is left out.
    @param hostname: this node's name.
    @param protocol: the C{with} keyword: C{ESMTP}, C{ESMTPS}, C{ESMTPSA}, … (RFC 3848).
    @param message_id: the message's id, see L{kumotwist.message.new_id}.
    @param now: when it was accepted; seconds since the epoch.
    @param recipients: the envelope's recipients. The C{for} clause is written for exactly one
        (more would tell them of each other, RFC 5321, 7.2), and not for one that is not ASCII.
    @param tls_version: such as C{TLSv1.3}, if the session is encrypted.
    @param tls_cipher: the cipher suite's name.
    @param tls_subject: whom the client's certificate, which was verified, is for.
    @param smtputf8: whether the client said SMTPUTF8: C{ESMTP} is C{UTF8SMTP} then (RFC 6531,
        3.7.3).
    @return: the field with its final CRLF, folded at 78 characters where that is possible.
    """
    opening = received_opening(
        ehlo, peer, hostname, protocol, tls_version, tls_cipher, tls_subject, smtputf8=smtputf8
    )
    if not (message_id.isascii() and message_id.isalnum()):
        message_id = _clean(_NOT_ATOM, message_id)
    return received_line(opening, message_id, now, recipients)


def received_line(
    opening: tuple[str, int], message_id: str, now: float, recipients: Sequence[str]
) -> bytes:
    """The same, where what the messages of a session have in common is there already.

    @param opening: see L{received_opening}.
    @param message_id: an id of ours: nothing but letters and digits.
    @param now: as for L{received_header}.
    @param recipients: likewise.
    """
    recipient = recipients[0] if len(recipients) == 1 else ""
    if (
        recipient
        and len(recipient) <= _LONGEST_MAILBOX
        and recipient.isascii()
        and recipient.isprintable()
    ):
        words = [message_id, "for", f"<{recipient}>;", date_time(now)]
    else:
        words = [f"{message_id};", date_time(now)]
    return f"{_fold(*opening, words)[0]}\r\n".encode("ascii")


def received_opening(
    ehlo: str,
    peer: str,
    hostname: str,
    protocol: str,
    tls_version: str | None = None,
    tls_cipher: str | None = None,
    tls_subject: str | None = None,
    *,
    smtputf8: bool = False,
) -> tuple[str, int]:
    """What the trace lines of one session's messages have in common.

    The parameters are those of L{received_header}.

    @return: the text up to the id, and the column where it ends.
    """
    if smtputf8 and protocol.startswith("ESMTP"):
        protocol = "UTF8" + protocol[1:]
    return _opening(ehlo, peer, hostname, protocol, tls_version, tls_cipher, tls_subject)


# Sessions of the same client have it in common, too.
@functools.lru_cache(maxsize=1024)
def _opening(
    ehlo: str,
    peer: str,
    hostname: str,
    protocol: str,
    tls_version: str | None,
    tls_cipher: str | None,
    tls_subject: str | None,
) -> tuple[str, int]:
    literal = _address_literal(peer)
    words = ["from", _host(ehlo) or literal or "unknown"]
    if literal:
        words.append(f"({literal})")
    words += ["by", _host(hostname) or "unknown", "(kumotwist)"]
    words += ["with", _clean(_NOT_ATOM, protocol)]
    if tls_version:
        words.append(f"({_clean(_NOT_ATOM, tls_version)}:{_clean(_NOT_ATOM, tls_cipher or '')})")
        if tls_subject:
            words += ["(verified", "client", *_clean(_NOT_SUBJECT, tls_subject).split()]
            words[-1] += ")"
    words.append("id")
    return _fold("Received:", len("Received:"), words)


def _address_literal(peer: str) -> str:
    """An address as RFC 5321, 4.1.3 writes it; empty for what is none."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return f"[{address}]"
    return f"[IPv6:{ipaddress.IPv6Address(address.packed)}]"  # without a zone


def _host(text: str) -> str:
    """A domain or an address literal; whatever cannot be in either is shown as a question mark."""
    if len(text) <= _LONGEST_NAME and _LITERAL.fullmatch(text):
        return text
    return _clean(_NOT_DOMAIN, text)


def _clean(unwanted: re.Pattern[str], text: str) -> str:
    return unwanted.sub("?", text[:_LONGEST_NAME])


def _fold(text: str, column: int, words: list[str]) -> tuple[str, int]:
    """Append words, on new lines where they do not fit.

    @param column: characters of the last line so far.
    @return: the text, and the same of it.
    """
    for word in words:
        length = len(word)
        if column + 1 + length > _LINE:
            text = f"{text}\r\n        {word}"
            column = 8 + length
        else:
            text = f"{text} {word}"
            column += 1 + length
    return text, column
