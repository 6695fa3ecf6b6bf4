"""Hostile clients: what each sends, which replies it gets, and which messages are kept.

The replies are the codes in their order; every session ends. What is kept is what a 250 was said
for, with these octets and nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import attrs

from tests.hostile.scripted_client import (
    ABORT,
    HALF_CLOSE,
    STARTTLS,
    TOGETHER,
    Flood,
    Replies,
    Trickle,
)

__all__ = ["CLIENTS", "HostileClient"]

HELLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@b.example>\r\n"
RCPT = b"RCPT TO:<c@d.example>\r\n"
ENVELOPE = HELLO + MAIL + RCPT
QUIT = b"QUIT\r\n"
END = b"\r\n.\r\n"
TEXT = b"Subject: x\r\n\r\nbody"
KEPT = TEXT + b"\r\n"
SECOND = b"MAIL FROM:<evil@b.example>\r\nRCPT TO:<evil@d.example>\r\nDATA\r\nevil"
MANY_HOPS = b"Received: by mx.example\r\n" * 101

#: What holds for a stranger: mail for one domain, from everywhere.
STRANGER = {"relay_hosts": "192.0.2.1", "relay_to": "d.example"}
#: Paths on which the client's own octets come first.
BARE = ("direct", "socks5", "http-connect")
V2 = b"\r\n\r\n\0\r\nQUIT\n"
PROXIED = {"trusted_proxies": "127.0.0.0/8"}
#: For clients that do nothing in time, on no machine.
HASTE = {"client_timeout": "1s"}


def login(text: bytes) -> bytes:
    """An initial response of AUTH PLAIN."""
    return b"AUTH PLAIN " + base64.b64encode(text) + b"\r\n"


@attrs.define(frozen=True)
class HostileClient:
    """A client, and what comes of it.

    @ivar name: what it does.
    @ivar steps: what it sends.
    @ivar codes: the replies that it gets; for each connection, sorted, if there are several.
    @ivar kept: the messages that are kept.
    @ivar listener: keys of the listener.
    @ivar paths: where it can be played; everywhere if empty.
    @ivar connections: how many do this at the same time.
    @ivar says: a part of what it is told.
    """

    name: str
    steps: tuple[Any, ...]
    codes: str | list[str]
    kept: tuple[bytes, ...] = ()
    listener: Mapping[str, str] = attrs.field(factory=dict)
    paths: tuple[str, ...] = ()
    connections: int = 1
    says: bytes = b""


def client(name: str, codes: str | list[str], *steps: Any, **facts: Any) -> HostileClient:
    """A client that gets those replies."""
    return HostileClient(name, steps, codes, **facts)


#: What is no end of a message, and what becomes of it by C{invalid_line_endings = Fix}.
FALSE_ENDS = {
    "lf-dot-lf": (b"\n.\n", b"\r\n.\r\n"),
    "lf-dot-crlf": (b"\n.\r\n", b"\r\n.\r\n"),
    "crlf-dot-lf": (b"\r\n.\n", b"\r\n\r\n"),
    "cr-dot-cr": (b"\r.\r", b"\r\n.\r\n"),
    "cr-dot-crlf": (b"\r.\r\n", b"\r\n.\r\n"),
    "crlf-dot-cr": (b"\r\n.\r", b"\r\n\r\n"),
    "lf-dot-cr": (b"\n.\r", b"\r\n.\r\n"),
    "cr-dot-lf": (b"\r.\n", b"\r\n.\r\n"),
}


def smuggler(name: str, false_end: bytes, fixed: bytes, value: str) -> HostileClient:
    """A client that hides a second transaction behind what is no end."""
    message = TEXT + false_end + SECOND
    codes = "220 250 250 250 354 250 221"
    kept = message.replace(b"\r\n.", b"\r\n")
    if value == "Deny":
        codes, kept = codes.replace("354 250", "354 552"), b""
    elif value == "Fix":
        kept = TEXT + fixed + SECOND
    return client(
        f"smuggle-{name}-{value}",
        codes,
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        message + END + QUIT,
        kept=(kept + b"\r\n",) if kept else (),
        listener={"invalid_line_endings": value},
    )


SMUGGLERS = tuple(
    smuggler(name, false_end, fixed, value)
    for name, (false_end, fixed) in FALSE_ENDS.items()
    for value in ("Deny", "Allow", "Fix")
)

BODIES = (
    client(
        "nul-before-the-dot",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + b"\r\n\0.\r\n" + SECOND + END + QUIT,
        kept=(TEXT + b"\r\n\0.\r\n" + SECOND + b"\r\n",),
    ),
    client(
        "space-behind-the-dot",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + b"\r\n. \r\n" + SECOND + END + QUIT,
        kept=(TEXT + b"\r\n \r\n" + SECOND + b"\r\n",),
    ),
    client(
        "long-line-is-no-command",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b"x" * 70_000 + b"\r\n" + SECOND + END + QUIT,
        kept=(b"x" * 70_000 + b"\r\n" + SECOND + b"\r\n",),
    ),
    client(
        "line-length-limit",
        "220 250 250 250 354 500 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b"x" * 2000 + b"\r\n" + SECOND + END + QUIT,
        listener={"line_length_hard_limit": "998"},
    ),
    client(
        "four-mebibytes-in-one-line",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        Flood(b"x" * 65536, 64),
        END + QUIT,
        kept=(b"x" * (4 << 20) + b"\r\n",),
    ),
    client(
        "oversize",
        "220 250 250 250 354 552 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        Flood(b"y" * 998 + b"\r\n", 200),
        SECOND + END + b"NOOP\r\n" + QUIT,
        listener={"max_message_size": "100KiB"},
    ),
    client(
        "oversize-by-octets",
        "220 250 250 250 354 552 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b"z" * 1025 + END + QUIT,
        listener={"max_message_size": "1KiB"},
    ),
    client(
        "size-is-a-lie",
        "220 250 250 250 354 552 221",
        HELLO + b"MAIL FROM:<a@b.example> SIZE=9\r\n" + RCPT + b"DATA\r\n",
        Replies(5),
        b"z" * 2000 + END + QUIT,
        listener={"max_message_size": "1KiB"},
    ),
    client(
        "size-is-a-small-lie",
        "220 250 250 250 354 250 221",
        HELLO + b"MAIL FROM:<a@b.example> SIZE=9\r\n" + RCPT + b"DATA\r\n",
        Replies(5),
        TEXT + END + QUIT,
        kept=(KEPT,),
    ),
    client(
        "size-too-large",
        "220 250 552 503 503 221",
        HELLO + b"MAIL FROM:<a@b.example> SIZE=99999999999\r\n" + RCPT + b"DATA\r\n" + QUIT,
    ),
    client(
        "size-beyond-numbers",
        "220 250 501 501 501 501 221",
        HELLO
        + b"".join(
            b"MAIL FROM:<a@b.example> SIZE" + value + b"\r\n"
            for value in (b"=" + b"9" * 21, b"=-1", b"=1e3", b"")
        )
        + QUIT,
    ),
    client(
        "received-loop",
        "220 250 250 250 354 554 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        MANY_HOPS + TEXT + END + QUIT,
        says=b"5.4.6",
    ),
    client(
        "half-close-in-data",
        "220 250 250 250 354",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT,
        HALF_CLOSE,
    ),
    client(
        "half-close-before-the-last-lf",
        "220 250 250 250 354",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + b"\r\n.\r",
        HALF_CLOSE,
    ),
    client("abort-in-data", "220 250 250 250 354", ENVELOPE + b"DATA\r\n", Replies(5), TEXT, ABORT),
    client(
        "abort-before-the-dot",
        "220 250 250 250 354",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + b"\r\n.",
        ABORT,
    ),
    client(
        "abort-after-250",
        "220 250 250 250 354 250",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + END,
        Replies(6),
        ABORT,
        kept=(KEPT,),
    ),
    client(
        "early-message-of-a-stranger",
        "220 250 250 250 421",
        Replies(1),
        ENVELOPE + b"DATA\r\n" + TEXT + END + QUIT,
        listener=STRANGER,
    ),
    client(
        "early-message-of-a-friend",
        "220 250 250 250 354 250 221",
        Replies(1),
        ENVELOPE + b"DATA\r\n" + TEXT + END + QUIT,
        kept=(KEPT,),
    ),
    client(
        "dot-at-once",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b".\r\n" + QUIT,
        kept=(b"",),
    ),
    client(
        "dots",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b"..\r\n...\r\n.x" + END + QUIT,
        kept=(b".\r\n..\r\nx\r\n",),
    ),
    client(
        "eight-bit-undeclared",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        b"\xff\xfe" + END + QUIT,
        kept=(b"\xff\xfe\r\n",),
    ),
)

CHUNKS = (
    client("bdat-without-octets", "220 250 250 250 421", ENVELOPE + b"BDAT\r\n" + QUIT),
    client("bdat-negative", "220 250 250 250 421", ENVELOPE + b"BDAT -5\r\n" + SECOND + END),
    client("bdat-words", "220 250 250 250 421", ENVELOPE + b"BDAT five LAST\r\n" + SECOND + END),
    client("bdat-hex", "220 250 250 250 421", ENVELOPE + b"BDAT 0x10 LAST\r\n" + SECOND + END),
    client("bdat-last-last", "220 250 250 250 421", ENVELOPE + b"BDAT 4 LAST LAST\r\nabcd" + QUIT),
    client(
        "bdat-huge",
        "220 250 250 250 421",
        ENVELOPE + b"BDAT 99999999999999999999 LAST\r\n",
        b"x" * 1000,
        listener={"client_timeout": "6s"},
    ),
    client(
        "bdat-beyond-numbers",
        "220 250 250 250 421",
        ENVELOPE + b"BDAT " + b"9" * 40 + b" LAST\r\n" + SECOND + END,
    ),
    client(
        "bdat-oversize",
        "220 250 250 250 552 221",
        ENVELOPE + b"BDAT 2000 LAST\r\n",
        b"x" * 2000 + QUIT,
        listener={"max_message_size": "1KiB"},
    ),
    client(
        "bdat-oversize-in-pieces",
        "220 250 250 250 250 552 503 221",
        ENVELOPE
        + b"".join(b"BDAT 500%s\r\n" % last + b"x" * 500 for last in (b"", b"", b" LAST"))
        + QUIT,
        listener={"max_message_size": "900"},
    ),
    client(
        "bdat-with-commands-inside",
        "220 250 250 250 250 221",
        ENVELOPE + b"BDAT %d LAST\r\n" % len(SECOND + END) + SECOND + END + QUIT,
        kept=(SECOND + END,),
    ),
    client(
        "bdat-without-recipient",
        "220 250 250 554 221",
        HELLO + MAIL + b"BDAT %d LAST\r\n" % len(SECOND) + SECOND + QUIT,
    ),
    client(
        "bdat-without-mail",
        "220 250 503 221",
        HELLO + b"BDAT %d LAST\r\n" % len(SECOND) + SECOND + QUIT,
    ),
    client(
        "bdat-after-last",
        "220 250 250 250 250 503 221",
        ENVELOPE + b"BDAT 4 LAST\r\nabcdBDAT %d LAST\r\n" % len(SECOND) + SECOND + QUIT,
        kept=(b"abcd\r\n",),
    ),
    client(
        "data-amid-chunks",
        "220 250 250 250 250 503 250 221",
        ENVELOPE + b"BDAT 4\r\nabcdDATA\r\nBDAT 0 LAST\r\n" + QUIT,
        kept=(b"abcd\r\n",),
    ),
    client(
        "mail-amid-chunks",
        "220 250 250 250 250 503 503 250 221",
        ENVELOPE + b"BDAT 4\r\nabcd" + MAIL + RCPT + b"BDAT 0 LAST\r\n" + QUIT,
        kept=(b"abcd\r\n",),
    ),
    client(
        "bdat-smuggles-in-lone-cr",
        "220 250 250 250 552 221",
        ENVELOPE + b"BDAT 9 LAST\r\nab\r.\rcdef" + QUIT,
    ),
    client(
        "bdat-half", "220 250 250 250", ENVELOPE + b"BDAT 100 LAST\r\nabcd", Replies(4), HALF_CLOSE
    ),
    client(
        "bdat-abandoned", "220 250 250 250 250", ENVELOPE + b"BDAT 4\r\nabcd", Replies(5), ABORT
    ),
    client(
        "bdat-reset",
        "220 250 250 250 250 250 503 221",
        ENVELOPE + b"BDAT 4\r\nabcdRSET\r\nBDAT 2 LAST\r\nxy" + QUIT,
    ),
)

COMMANDS = (
    client(
        "before-the-greeting",
        "220 250 250 250 354 250 221",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + END + QUIT,
        kept=(KEPT,),
    ),
    client("long-command", "220 500 250 221", b"EHLO " + b"x" * 4000 + b"\r\n" + HELLO + QUIT),
    client("four-mebibytes-without-line-end", "220 421", Flood(b"x" * 65536, 64)),
    client("nul-in-command", "220 500 500 221", b"EHLO a\0b\r\nNO\0OP\r\n" + QUIT),
    client("lone-cr-in-command", "220 500 221", b"EHLO x\rMAIL FROM:<a@b.example>\r\n" + QUIT),
    client("lone-lf-in-command", "220 500 221", b"EHLO x\nMAIL FROM:<a@b.example>\r\n" + QUIT),
    client("eight-bit-in-command", "220 501 501 221", b"NOOP \xff\xfe\r\nEHLO \xc3\xa9\r\n" + QUIT),
    client(
        "null-in-address",
        "220 250 500 250 500 554 221",
        HELLO
        + b"MAIL FROM:<a\0b@b.example>\r\n"
        + MAIL
        + b"RCPT TO:<c\0@d.example>\r\nDATA\r\n"
        + QUIT,
    ),
    client(
        "header-injection-in-address",
        "220 250 250 501 500 554 221",
        HELLO
        + MAIL
        + b'RCPT TO:<"a> SIZE=1"@d.example\r\nRCPT TO:<c\n@d.example>\r\nDATA\r\n'
        + QUIT,
    ),
    client(
        "utf8-without-parameter",
        "220 250 553 250 553 221",
        HELLO
        + "MAIL FROM:<é@b.example>\r\n".encode()
        + MAIL
        + "RCPT TO:<é@d.example>\r\n".encode()
        + QUIT,
    ),
    client(
        "octet-a-second",
        "220 421",
        Trickle(HELLO, 0.4),
        listener=HASTE,
        says=b"421 4.4.2",
    ),
    client("silence", "220 421", listener=HASTE, says=b"421 4.4.2"),
    client(
        "trickle-in-data",
        "220 250 250 250 354 421",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        Trickle(b"x" * 40, 0.2),
        listener={"data_timeout": "2s"},
        says=b"421 4.4.2",
    ),
    client("two-hundred-bad-commands", "220" + " 500" * 25 + " 421", b"NONSENSE\r\n" * 200),
    client("empty-lines", "220" + " 500" * 25 + " 421", b"\r\n" * 200),
    client(
        "endless-noop",
        "220" + " 250" * 5000 + " 421",
        b"NOOP\r\n" * 6000,
    ),
    client(
        "endless-rset",
        "220 250" + " 250 250" * 2499 + " 250 421",
        HELLO + (MAIL + b"RSET\r\n") * 3000,
    ),
    client(
        "wrong-order",
        "220 503 503 503 250 503 250 503 554 221",
        MAIL + RCPT + b"DATA\r\n" + HELLO + RCPT + MAIL + MAIL + b"DATA\r\n" + QUIT,
    ),
    client("ehlo-forgets", "220 250 250 250 250 503 221", ENVELOPE + HELLO + b"DATA\r\n" + QUIT),
    client(
        "too-many-recipients",
        "220 250 250 250 250 452 452 354 250 221",
        HELLO + MAIL + RCPT * 4 + b"DATA\r\n",
        Replies(8),
        TEXT + END + QUIT,
        kept=(KEPT, KEPT),
        listener={"max_recipients_per_message": "2"},
    ),
    client(
        "too-many-messages",
        "220 250 250 250 354 250 421",
        ENVELOPE + b"DATA\r\n",
        Replies(5),
        TEXT + END + MAIL + RCPT + b"DATA\r\n",
        kept=(KEPT,),
        listener={"max_messages_per_connection": "1"},
    ),
    client(
        "too-many-connections",
        ["220 221", "220 221", "421"],
        TOGETHER,
        QUIT,
        connections=3,
        listener={"max_connections": "2"},
    ),
    client(
        "unknown-parameters",
        "220 250 555 250 555 221",
        HELLO
        + b"MAIL FROM:<a@b.example> SOLICIT=x\r\n"
        + MAIL
        + b"RCPT TO:<c@d.example> X=1\r\n"
        + QUIT,
    ),
    client(
        "parameter-twice",
        "220 250 501 221",
        HELLO + b"MAIL FROM:<a@b.example> SIZE=1 SIZE=2\r\n" + QUIT,
    ),
    client("abort-at-once", "220", Replies(1), ABORT),
    client("abort-after-ehlo", "220 250", HELLO, Replies(2), ABORT),
    client("abort-after-mail", "220 250 250", HELLO + MAIL, Replies(3), ABORT),
    client("abort-after-rcpt", "220 250 250 250", ENVELOPE, Replies(4), ABORT),
    client("half-close-at-once", "220", Replies(1), HALF_CLOSE),
    client("http-get", "220 421", b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n" + ENVELOPE),
    client(
        "http-post",
        "220 421",
        b"POST / HTTP/1.1\r\nHost: mx\r\nContent-Length: 999\r\n\r\n"
        + ENVELOPE
        + b"DATA\r\n"
        + TEXT
        + END,
    ),
    client("http-connect", "220 421", b"CONNECT mx:25 HTTP/1.1\r\n\r\n" + ENVELOPE),
    client(
        "tls-hello-in-clear",
        "220",
        Replies(1),
        b"\x16\x03\x01\x02\x00\x01" + b"\xab" * 507,
        HALF_CLOSE,
    ),
    client("socks-greeting", "220 421", b"\x05\x01\x00", listener=HASTE),
    client(
        "smtp-in-implicit-tls",
        "",
        ENVELOPE + b"DATA\r\n" + TEXT + END,
        HALF_CLOSE,
        listener={"tls": "implicit", **HASTE},
    ),
)

SECURITY = (
    client(
        "past-starttls",
        "220 250 220 503 250 221",
        HELLO,
        Replies(2),
        b"STARTTLS\r\n" + ENVELOPE + b"RSET\r\nNOOP\r\n",
        Replies(3),
        STARTTLS,
        MAIL + HELLO + QUIT,
    ),
    client(
        "transaction-over-starttls",
        "220 250 250 250 220 503 250 503 221",
        ENVELOPE,
        Replies(4),
        b"STARTTLS\r\n",
        Replies(5),
        STARTTLS,
        b"DATA\r\n" + HELLO + b"DATA\r\n" + QUIT,
    ),
    client(
        "starttls-twice",
        "220 250 220 250 503 221",
        HELLO + b"STARTTLS\r\n",
        Replies(3),
        STARTTLS,
        HELLO + b"STARTTLS\r\n" + QUIT,
    ),
    client("starttls-with-argument", "220 250 501 221", HELLO + b"STARTTLS now\r\n" + QUIT),
    client(
        "starttls-then-clear",
        "220 250 220",
        HELLO + b"STARTTLS\r\n",
        Replies(3),
        ENVELOPE + b"DATA\r\n" + TEXT + END,
        HALF_CLOSE,
    ),
    client("auth-not-offered", "220 250 502 221", HELLO + login(b"\0me\0secret") + QUIT),
    client(
        "auth-in-clear",
        "220 250 538 538 221",
        HELLO + login(b"\0me\0secret") + b"AUTH LOGIN\r\n" + QUIT,
        listener={"auth": "memory:me:secret"},
    ),
    client(
        "auth-guessing",
        "220 250 535 535 535 421",
        HELLO + login(b"\0me\0wrong") * 9,
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "auth-garbage",
        "220 250 501 504 501 334 501 334 501 221",
        HELLO
        + b"AUTH\r\nAUTH NONE\r\nAUTH PLAIN ???\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN\r\n===\r\n"
        + QUIT,
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "auth-for-somebody-else",
        "220 250 501 221",
        HELLO + login(b"you\0me\0secret") + QUIT,
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "auth-endless-response",
        "220 250 334 421",
        HELLO + b"AUTH PLAIN\r\n",
        Replies(3),
        b"QUJD" * 40_000 + b"\r\n",
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "auth-nul",
        "220 250 501 501 221",
        HELLO + login(b"\0\0") + login(b"\0me\0secret\0x") + QUIT,
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "auth-within-mail",
        "220 250 250 503 221",
        HELLO + MAIL + login(b"\0me\0secret") + QUIT,
        listener={"auth": "memory:me:secret", "allow_auth_without_tls": "yes"},
    ),
    client(
        "mail-without-login",
        "220 250 530 503 221",
        HELLO + MAIL + RCPT + QUIT,
        listener={"auth": "memory:me:secret", "require_auth": "yes"},
    ),
    client(
        "xclient-of-a-stranger", "220 250 500 221", HELLO + b"XCLIENT ADDR=192.0.2.1\r\n" + QUIT
    ),
    client(
        "xclient-garbage",
        "220 250 501 501 221",
        HELLO + b"XCLIENT ADDR=nowhere\r\nXCLIENT\r\n" + QUIT,
        listener={"allow_xclient": "yes"},
    ),
    client(
        "proxy-header-of-a-stranger",
        "220 500 250 221",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n" + HELLO + QUIT,
    ),
    client(
        "proxy-header-malformed",
        "",
        b"PROXY TCP9 x y z\r\n" + ENVELOPE,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-header-missing",
        "",
        ENVELOPE + b"DATA\r\n" + TEXT + END,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-header-slow",
        "",
        Trickle(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n", 0.4),
        listener={**PROXIED, **HASTE},
        paths=BARE,
    ),
    client("proxy-header-endless", "", b"PROXY TCP4 " + b"1" * 300, listener=PROXIED, paths=BARE),
    client(
        "proxy-header-then-commands",
        "220 250 221",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\n" + HELLO + QUIT,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-header-lies-about-a-friend",
        "220 250 250 550 221",
        b"PROXY TCP4 203.0.113.9 192.0.2.2 1 25\r\n"
        + HELLO
        + MAIL
        + b"RCPT TO:<x@else.example>\r\n"
        + QUIT,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-v2-of-another-version",
        "",
        V2 + b"\x31\x11\x00\x0c" + bytes(12) + ENVELOPE,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-v2-too-short",
        "",
        V2 + b"\x21\x11\x00\x04" + bytes(4) + ENVELOPE,
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-v2-huge",
        "",
        V2 + b"\x21\x11\xff\xff" + bytes(70_000),
        listener=PROXIED,
        paths=BARE,
    ),
    client(
        "proxy-v2-of-a-stranger",
        "220 500 500 500 500 421",
        V2 + b"\x21\x11\x00\x0c" + bytes(12) + b"\r\n",
        listener=HASTE,
    ),
    client("proxy-required", "", HELLO, listener={"require_proxy_protocol": "yes"}, paths=BARE),
)

#: What an open relay would send somewhere else, and the answer.
HOLES = {
    b"<x@else.example>": "550",
    b"<x%else.example@d.example>": "550",
    b"<else.example!x@d.example>": "550",
    b'<"x@else.example"@d.example>': "550",
    b'<"x%else.example"@d.example>': "550",
    b'<"else.example!x"@d.example>': "550",
    b"<@d.example:x@else.example>": "550",
    b"<@d.example,@e.example:x@else.example>": "550",
    b"<x@else.example@d.example>": "501",
    b"<x@[127.0.0.1]>": "550",
    b"<x@[127.0.0.1]:25>": "501",
    b"<x@[IPv6:::1]>": "550",
    b"<x@127.0.0.1>": "501",
    b'<"x@else.example">': "501",
    b"<x@d.example.>": "501",
    b"<x@d.example>,<x@else.example>": "501",
    b"x@d.example": "501",
    b"<x@d.example": "501",
    b"<>": "501",
    b"<postmaster>": "550",
    b"<x@.d.example>": "501",
    b"<x y@d.example>": "501",
    b"<x@d.example> <y@else.example>": "501",
}
RELAYING = (
    *(
        client(
            f"relay-{number}",
            f"220 250 250 {code} 554 221",
            HELLO + MAIL + b"RCPT TO:" + path + b"\r\nDATA\r\n" + QUIT,
            listener=STRANGER,
        )
        for number, (path, code) in enumerate(HOLES.items(), 1)
    ),
    client(
        "relay-by-source-route-home",
        "220 250 250 250 221",
        HELLO + MAIL + b"RCPT TO:<@else.example:x@d.example>\r\n" + QUIT,
        listener=STRANGER,
    ),
)

CLIENTS = (*SMUGGLERS, *BODIES, *CHUNKS, *COMMANDS, *SECURITY, *RELAYING)
