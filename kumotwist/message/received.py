"""The trace line that a relay puts on top of what it accepts (RFC 5321, 4.4)."""

from __future__ import annotations

import functools
import ipaddress
import re

from kumotwist.message.dates import date_time

__all__ = ["received_header"]

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
    if smtputf8 and protocol.startswith("ESMTP"):
        protocol = "UTF8" + protocol[1:]
    opening = _opening(ehlo, peer, hostname, protocol, tls_version, tls_cipher, tls_subject)
    if not (message_id.isascii() and message_id.isalnum()):
        message_id = _clean(_NOT_ATOM, message_id)
    recipient = recipients[0] if len(recipients) == 1 else ""
    if recipient and len(recipient) <= _LONGEST_MAILBOX and _is_plain(recipient):
        words = [message_id, "for", f"<{recipient}>;", date_time(now)]
    else:
        words = [f"{message_id};", date_time(now)]
    return f"{_fold(*opening, words)[0]}\r\n".encode("ascii")


def _is_plain(text: str) -> bool:
    """Whether it is printable ASCII."""
    return text.isascii() and text.isprintable()


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
    """What the messages of one session have in common, and where its last line ends."""
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
