"""Names that may be asked for, and names that may be believed."""

from __future__ import annotations

import re

import dns.exception
import dns.name
import dns.rdatatype

from kumotwist.dns.answers import Question
from kumotwist.dns.errors import DNSError

__all__ = ["HOST_NAME", "host_question"]

#: Host names as they are in use, underscores included; what dnspython would take beyond that are
#: escapes and octets that no mail host is called by.
HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


def host_question(name: str, kind: dns.rdatatype.RdataType) -> Question:
    """A question about a host name.

    @param name: in lower case and A-labels, without a final dot.
    @raise DNSError: if it cannot be a name; a permanent one.
    """
    try:
        if not HOST_NAME.fullmatch(name):
            raise ValueError(name)
        return Question(dns.name.from_text(name), kind)
    except (ValueError, dns.exception.DNSException):
        shown = name if len(name) <= 255 else name[:254] + "…"
        raise DNSError(name, f"{shown!a} is not a domain name", permanent=True) from None
