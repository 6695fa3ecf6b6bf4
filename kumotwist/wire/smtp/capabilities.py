"""What a server offers, as its reply to EHLO says it (RFC 5321, 4.1.1.1)."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from types import MappingProxyType

import attrs

from kumotwist.wire.smtp.replies import Reply, one_line

__all__ = ["NO_CAPABILITIES", "Capabilities"]

# Some old servers put "=" behind the keyword: "SIZE=1000", "AUTH=LOGIN".
_KEYWORD = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ =]+(.*))?", re.DOTALL)
_LIMIT = re.compile(r"[1-9][0-9]{0,5}")
_NUMBER = re.compile(r"[0-9]{1,20}")


@attrs.define(frozen=True)
class Capabilities:
    """The extensions of one session; what was learnt before STARTTLS does not count after it.

    @ivar extensions: the parameters by keyword in upper case; empty after HELO.
    @ivar esmtp: whether the server took EHLO.
    @ivar hello: what the server says in the first line, in one line and safe to log: its name,
        often with the address that it sees us at (C{mx.example.com at your service, [192.0.2.1]}).
    """

    extensions: Mapping[str, str]
    esmtp: bool = True
    hello: str = ""
    pipelining: bool = attrs.field(init=False)
    eight_bit_mime: bool = attrs.field(init=False)
    smtputf8: bool = attrs.field(init=False)
    starttls: bool = attrs.field(init=False)
    size: bool = attrs.field(init=False)
    size_limit: int = attrs.field(init=False)

    def limit(self, name: str) -> int | None:
        """A limit that the server declares (RFC 9422); L{None} if it does not.

        @param name: C{MAILMAX}, C{RCPTMAX} or C{RCPTDOMAINMAX}.
        """
        for word in self.extensions.get("LIMITS", "").split():
            key, _, value = word.partition("=")
            if key.upper() == name and _LIMIT.fullmatch(value):
                return int(value)
        return None

    @property
    def dsn(self) -> bool:
        """Whether the parameters of RFC 3461 are understood."""
        return "DSN" in self.extensions

    @property
    def chunking(self) -> bool:
        """Whether BDAT is understood (RFC 3030, 2)."""
        return "CHUNKING" in self.extensions

    @property
    def binarymime(self) -> bool:
        """Whether a message may have any octets, by BDAT (RFC 3030, 3)."""
        return self.chunking and "BINARYMIME" in self.extensions

    @property
    def auth_mechanisms(self) -> frozenset[str]:
        """The SASL mechanisms that are offered, in upper case (RFC 4954, 3)."""
        return frozenset(self.extensions.get("AUTH", "").upper().split())

    @pipelining.default
    def _default_pipelining(self) -> bool:
        return "PIPELINING" in self.extensions

    @eight_bit_mime.default
    def _default_eight_bit_mime(self) -> bool:
        return "8BITMIME" in self.extensions

    @smtputf8.default
    def _default_smtputf8(self) -> bool:
        return "SMTPUTF8" in self.extensions

    @starttls.default
    def _default_starttls(self) -> bool:
        return "STARTTLS" in self.extensions

    @size.default
    def _default_size(self) -> bool:
        return "SIZE" in self.extensions

    @size_limit.default
    def _default_size_limit(self) -> int:
        # RFC 1870, 4: no number or 0 means that no limit was declared.
        limit = self.extensions.get("SIZE", "").strip()
        return int(limit) if _NUMBER.fullmatch(limit) else 0

    def has(self, keyword: str) -> bool:
        """Whether an extension is offered.

        @param keyword: in upper case.
        """
        return keyword in self.extensions

    @classmethod
    def from_ehlo(cls, reply: Reply) -> Capabilities:
        """Read a positive reply to EHLO. Lines that are no keyword are passed over."""
        return _read_lines(reply.lines)


@functools.lru_cache(maxsize=64)
def _read_lines(lines: tuple[str, ...]) -> Capabilities:
    # Servers offer the same each time.
    extensions: dict[str, str] = {}
    for line in lines[1:]:
        match = _KEYWORD.fullmatch(line)
        if match is not None:
            extensions.setdefault(match.group(1).upper(), (match.group(2) or "").strip())
    return Capabilities(MappingProxyType(extensions), hello=one_line(lines[0]))


#: Of a server that takes only HELO, and of one that has not been asked yet.
NO_CAPABILITIES = Capabilities(MappingProxyType({}), esmtp=False)
