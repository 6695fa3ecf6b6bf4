"""What a client asks to be told of its message's fate: RET, ENVID, NOTIFY, ORCPT (RFC 3461, 4)."""

from __future__ import annotations

import re

from kumotwist.wire.smtp.syntax import CommandSyntaxError, decode_xtext

__all__ = ["parse_envid", "parse_notify", "parse_orcpt", "parse_ret", "utf_8_xtext"]

#: Octets of ENVID and ORCPT (RFC 3461, 4.4 and 4.2).
MAX_ENVID = 100
MAX_ORCPT = 500

_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~.-]+")
# What only an EmbeddedUnicodeChar of RFC 6533, 3, may stand for; the latter finds those as well.
_UTF_8_SPECIAL = re.compile(r"()[^!-*,-<>-\[\]-~]")
_UTF_8_ESCAPABLE = re.compile(r"(\\x\{(?:[0-9A-F]{2,5}|10[0-9A-F]{4})\})|[^!-*,-<>-\[\]-~]")
_EVENTS = frozenset({"SUCCESS", "FAILURE", "DELAY"})


def parse_ret(value: str | None) -> str:
    """Read RET: how much of the message is to come back with a failure.

    @return: C{FULL} or C{HDRS}.
    @raise CommandSyntaxError: for anything else.
    """
    word = (value or "").upper()
    if word not in {"FULL", "HDRS"}:
        raise CommandSyntaxError("RET is FULL or HDRS")
    return word


def parse_envid(value: str | None) -> str:
    """Read ENVID: what the sender calls the message.

    @return: what was meant, printable ASCII.
    @raise CommandSyntaxError: if it is no xtext, or too long.
    """
    if not value or len(value) > MAX_ENVID:
        raise CommandSyntaxError(f"ENVID needs a value of up to {MAX_ENVID} characters")
    return decode_xtext(value)


def parse_notify(value: str | None) -> frozenset[str]:
    """Read NOTIFY: when the sender is to be told.

    @return: some of C{SUCCESS}, C{FAILURE}, C{DELAY}; nothing for C{NEVER}.
    @raise CommandSyntaxError: for other words, one that is given twice, and NEVER with others.
    """
    words = (value or "").upper().split(",")
    if words == ["NEVER"]:
        return frozenset()
    if not _EVENTS.issuperset(words) or len(set(words)) < len(words):
        raise CommandSyntaxError("NOTIFY is NEVER, or some of SUCCESS, FAILURE, DELAY")
    return frozenset(words)


def parse_orcpt(value: str | None) -> str:
    """Read ORCPT: whom the sender wrote to, in the first place.

    @return: the kind of address and the address as it was meant: C{rfc822;user@example.com}. One of
        type utf-8 comes in its 7-bit form, which every report and every host with DSN may be given.
    @raise CommandSyntaxError: if it is not well formed, or too long.
    """
    kind, semicolon, address = (value or "").partition(";")
    if not semicolon or not address or len(value or "") > MAX_ORCPT:
        raise CommandSyntaxError(f"ORCPT is TYPE;ADDRESS of up to {MAX_ORCPT} characters")
    if _TYPE.fullmatch(kind) is None:
        raise CommandSyntaxError("the type of ORCPT's address is not a word")
    if kind.lower() == "utf-8":
        return f"utf-8;{utf_8_xtext(address, escaped=True)}"
    return f"{kind.lower()};{decode_xtext(address)}"


def utf_8_xtext(address: str, *, escaped: bool = False) -> str:
    """Write an address in the form that fits into 7-bit reports and any ORCPT: C{utf-8-addr-xtext}
    of RFC 6533, 3.

    @param escaped: whether some characters may stand there as C{\\x{FC}} already.
    """

    def written(match: re.Match[str]) -> str:
        return match.group(1) or f"\\x{{{ord(match.group()):02X}}}"

    return (_UTF_8_ESCAPABLE if escaped else _UTF_8_SPECIAL).sub(written, address)
