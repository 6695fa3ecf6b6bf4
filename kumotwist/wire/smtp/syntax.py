"""The arguments of commands: paths, addresses, parameters.

RFC 5321, 4.1.2 and 4.1.3; RFC 6531, 3.3.

Both sides use it: the server reads what a client sent, the client checks what it is about to send.
Text here is the octets of a command decoded as UTF-8; whether an address may hold more than ASCII
is for the caller to say (C{address.isascii()}), because it depends on the SMTPUTF8 parameter.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import NamedTuple

import idna

from kumotwist.wire.errors import RemoteProtocolError

__all__ = [
    "MAX_DOMAIN",
    "MAX_LOCAL_PART",
    "MAX_PATH",
    "PLAIN_PATH",
    "CommandSyntaxError",
    "Mailbox",
    "ascii_domain",
    "decode_xtext",
    "domain_of",
    "encode_xtext",
    "parse_mailbox",
    "parse_parameters",
    "parse_path",
]

#: Octets of a local part, a domain and a path with its brackets (RFC 5321, 4.5.3.1.1 to 4.5.3.1.3).
MAX_LOCAL_PART = 64
MAX_DOMAIN = 255
MAX_PATH = 256

# Beyond ASCII everything is let in (RFC 6531, 3.3) but what could end a line, forge a log or turn
# the direction of writing: C1 controls, line and paragraph separators, overrides, lone surrogates.
_WIDE = "\u00a0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_WIDE}-]++"
_LABEL = rf"[A-Za-z0-9{_WIDE}](?:[A-Za-z0-9{_WIDE}-]*[A-Za-z0-9{_WIDE}])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*+"
_LITERAL = r"\[[0-9A-Za-z:.]++\]"
_LOCAL = rf'{_ATOM}(?:\.{_ATOM})*+|"(?:[ !#-\[\]-~{_WIDE}]|\\[ -~])*+"'

_MAILBOX = rf"({_LOCAL})@({_DOMAIN}|{_LITERAL})"
_HOST = rf"(?:{_DOMAIN}|{_LITERAL})"
_ROUTE = rf"(?:@{_HOST}(?:,@{_HOST})*+:)?+"
_PATH = rf"<{_ROUTE}(({_LOCAL})@({_DOMAIN}|{_LITERAL}))>"
# What nearly all paths are, with sets that are looked up in a third of the time.
_ASCII_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]++"
_ASCII_LABEL = r"[A-Za-z0-9]++(?:-++[A-Za-z0-9]++)*+"
#: Such a path, as a pattern; its group is the address. No part of it can be too long, and its
#: domain is no IP address.
PLAIN_PATH = (
    rf"<(?=[^>]{{3,62}}+>)({_ASCII_ATOM}(?:\.{_ASCII_ATOM})*+"
    rf"@{_ASCII_LABEL}(?:\.{_ASCII_LABEL})*+)(?<![0-9])>"
)
_PLAIN_PATH = re.compile(PLAIN_PATH)
_POSTMASTER = re.compile(r"<(postmaster)>", re.IGNORECASE)
_PARAMETER = rf"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~{_WIDE}]++))?"

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*+")
_NOT_XTEXT = re.compile(r"[^!-*,-<>-~]")
_HEX = re.compile(r"\+([0-9A-F]{2})")


@functools.cache
def _wide(pattern: str) -> re.Pattern[str]:
    """A pattern with sets beyond ASCII, compiled when it is needed first: that takes 5 to 50 ms,
    which every start would wait for."""
    return re.compile(pattern)


class CommandSyntaxError(RemoteProtocolError):
    """An argument does not follow the syntax; the text says what is wrong with it."""


class Mailbox(NamedTuple):
    """An address in its two parts.

    @ivar local_part: as written, with its quotes if it has any.
    @ivar domain: as written: a name, or a literal with its brackets.
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"

    @property
    def unquoted_local_part(self) -> str:
        """The local part as it is meant, without quotes and backslashes."""
        if not self.local_part.startswith('"'):
            return self.local_part
        return re.sub(r"\\(.)", r"\1", self.local_part[1:-1])


def parse_path(text: str, *, null: bool = False) -> tuple[str, str]:
    """Read a path from the start of a MAIL or RCPT argument.

    A source route is read and dropped (RFC 5321, appendix C); C{<postmaster>} without a domain is
    an address where C{null} is not asked for (RFC 5321, 4.5.1).

    @param text: what follows C{FROM:} or C{TO:}.
    @param null: whether C{<>} is allowed, as it is in MAIL.
    @return: the address without its brackets, and what follows the path, from its space on.
    @raise CommandSyntaxError: for anything that is not a path.
    """
    match = _PLAIN_PATH.match(text)
    if match is not None:
        end = match.end()
        return match[1], "" if end == len(text) else _after_path(text, end)
    match = _wide(_PATH).match(text)
    if match is None:
        if null and text.startswith("<>"):
            return "", _after_path(text, 2)
        match = None if null else _POSTMASTER.match(text)
        if match is None:
            raise CommandSyntaxError(_fault_of_path(text))
        return match.group(1), _after_path(text, match.end())
    address, local_part, domain = match.groups()
    _check(local_part, domain)
    return address, _after_path(text, match.end())


def _after_path(text: str, end: int) -> str:
    if text[end : end + 1] not in ("", " "):
        raise CommandSyntaxError("there is no space behind the path")
    return text[end:]


def _fault_of_path(text: str) -> str:
    if not text.startswith("<"):
        return "the address is not in angle brackets"
    if ">" not in text:
        return "the address has no closing bracket"
    return "the address is not well formed"


def parse_mailbox(text: str) -> Mailbox:
    """Read an address without brackets: what may be put between them in a command.

    @raise CommandSyntaxError: for anything else, so no CR, LF or bracket comes through.
    """
    match = _wide(_MAILBOX).fullmatch(text)
    if match is None:
        raise CommandSyntaxError("the address is not well formed")
    local_part, domain = match.groups()
    _check(local_part, domain)
    return Mailbox(local_part, domain)


def _check(local_part: str, domain: str) -> None:
    """What the grammar cannot say: lengths, literals, labels."""
    local_size = len(local_part)
    domain_size = len(domain)
    if not (local_part.isascii() and domain.isascii()):
        local_size = len(local_part.encode())
        domain_size = len(domain.encode())
    if local_size > MAX_LOCAL_PART:
        raise CommandSyntaxError(f"the local part is longer than {MAX_LOCAL_PART} octets")
    if domain_size > MAX_DOMAIN:
        raise CommandSyntaxError(f"the domain is longer than {MAX_DOMAIN} octets")
    if local_size + domain_size + 3 > MAX_PATH:
        raise CommandSyntaxError(f"the path is longer than {MAX_PATH} octets")
    if domain_size > 63 or domain[0] == "[" or domain[-1].isdigit() or not domain.isascii():
        ascii_domain(domain)


@functools.lru_cache(maxsize=4096)
def ascii_domain(domain: str) -> str:
    """A domain as queues, look-ups and comparisons need it: lower case, A-labels.

    A literal keeps its brackets and gets its canonical spelling (RFC 5321, 4.1.3).

    @raise CommandSyntaxError: if it is neither a domain nor an address literal.
    """
    if domain.startswith("["):
        return _literal(domain)
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:  # idna.IDNAError is one
            raise CommandSyntaxError("the domain is not an internationalised name") from None
    labels = domain.split(".")
    if max(map(len, labels)) > 63:
        raise CommandSyntaxError("a label of the domain is longer than 63 octets")
    if labels[-1].isdigit():
        # No such top-level domain exists, and a resolver would read 127.1 as an address.
        raise CommandSyntaxError("an IP address must stand in square brackets")
    return domain.lower()


def _literal(domain: str) -> str:
    inside = domain[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inside[5:])}]"
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        raise CommandSyntaxError("the address literal is not an IP address") from None


def domain_of(address: str) -> str:
    """The domain of an address that was read by this module, as L{ascii_domain} spells it.

    @return: the empty string for the null sender and for a bare C{postmaster}.
    """
    _, at, domain = address.rpartition("@")
    return ascii_domain(domain) if at else ""


def decode_xtext(text: str) -> str:
    """Read C{xtext} (RFC 3461, 4): printable ASCII in which C{+HH} stands for an octet.

    @raise CommandSyntaxError: for what is not xtext, or hides what is neither ASCII nor printable.
    """
    if _XTEXT.fullmatch(text) is None:
        raise CommandSyntaxError("that is not xtext")
    decoded = _HEX.sub(lambda match: chr(int(match.group(1), 16)), text)
    if not (decoded.isascii() and decoded.isprintable()):
        raise CommandSyntaxError("the xtext hides a character that cannot be printed")
    return decoded


def encode_xtext(text: str) -> str:
    """Write printable ASCII as C{xtext} (RFC 3461, 4)."""
    return _NOT_XTEXT.sub(lambda match: f"+{ord(match.group()):02X}", text)


def parse_parameters(text: str) -> dict[str, str | None]:
    """Read the parameters of MAIL or RCPT (RFC 5321, 4.1.2).

    @param text: what follows the path.
    @return: values by keyword, in upper case; L{None} for a keyword without C{=}.
    @raise CommandSyntaxError: for what is not a parameter, or one that is given twice.
    """
    parameters: dict[str, str | None] = {}
    for item in text.split(" "):
        if not item:
            continue
        match = _wide(_PARAMETER).fullmatch(item)
        if match is None:
            raise CommandSyntaxError("a parameter is not well formed")
        keyword = match.group(1).upper()
        if keyword in parameters:
            raise CommandSyntaxError(f"the parameter {keyword} is given twice")
        parameters[keyword] = match.group(2)
    return parameters
