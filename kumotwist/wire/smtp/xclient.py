"""XCLIENT: a trusted client says for whom it speaks (Postfix, XCLIENT_README).

C{ADDR}, C{PORT}, C{DESTADDR} and C{DESTPORT} are believed. C{NAME} and C{HELO} are read and
forgotten: names are not looked up here, and what the client calls itself it says with EHLO.
"""

from __future__ import annotations

import ipaddress
import re

import attrs

from kumotwist.wire.smtp.commands import CommandRefusedError
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.syntax import CommandSyntaxError, decode_xtext

__all__ = ["XCLIENT_ATTRIBUTES", "XClientFacts", "read_xclient"]

#: What is advertised.
XCLIENT_ATTRIBUTES = ("NAME", "ADDR", "PORT", "HELO", "DESTADDR", "DESTPORT")

_UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})
_PORT = re.compile(r"[0-9]{1,5}")


@attrs.define(frozen=True)
class XClientFacts:
    """What was said; L{None} for what was not, or is not known.

    @ivar address: the client's IP address as text.
    @ivar port: its port.
    @ivar destination: the address that it has connected to.
    @ivar destination_port: the port likewise.
    """

    address: str | None = None
    port: int | None = None
    destination: str | None = None
    destination_port: int | None = None


def read_xclient(argument: str) -> XClientFacts:
    """Read the arguments of XCLIENT.

    @raise CommandRefusedError: for what is not an attribute, or has no value that fits.
    """
    said: dict[str, str] = {}
    for item in argument.split():
        name, equals, value = item.partition("=")
        name = name.upper()
        if not equals or name not in XCLIENT_ATTRIBUTES or name in said:
            raise _refused("an attribute is not known, or given twice")
        try:
            said[name] = decode_xtext(value)
        except CommandSyntaxError as error:
            raise _refused(str(error)) from None
    if not said:
        raise _refused("XCLIENT needs attributes")
    return XClientFacts(
        _address(said.get("ADDR")),
        _port(said.get("PORT")),
        _address(said.get("DESTADDR")),
        _port(said.get("DESTPORT")),
    )


def _refused(problem: str) -> CommandRefusedError:
    return CommandRefusedError(Reply.of(501, "5.5.4", problem))


def _address(text: str | None) -> str | None:
    if text is None or text.upper() in _UNKNOWN:
        return None
    bare = text[5:] if text[:5].upper() == "IPV6:" else text
    try:
        return str(ipaddress.ip_address(bare.partition("%")[0]))
    except ValueError:
        raise _refused("an address is not an IP address") from None


def _port(text: str | None) -> int | None:
    if text is None or text.upper() in _UNKNOWN:
        return None
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise _refused("a port is not a number from 0 to 65535")
    return int(text)
