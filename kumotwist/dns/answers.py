"""Questions and answers as octets (RFC 1035; RFC 2308; RFC 6891); dnspython is the codec."""

from __future__ import annotations

from typing import Any

import attrs
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype

__all__ = ["Answer", "Question", "make_query", "read_answer", "read_response"]

#: What a datagram may bring: fits every path without fragments (RFC 9715, 3).
EDNS_PAYLOAD = 1232
#: A positive answer is believed for a day at most, a negative one for five minutes.
MAX_TTL = 86400.0
MAX_NEGATIVE_TTL = 300.0
#: More records than this are of no use for one name; the rest is not kept.
MAX_VALUES = 100


@attrs.define(frozen=True)
class Question:
    """What is asked.

    @ivar name: the absolute name.
    @ivar kind: the record type, such as L{dns.rdatatype.MX}.
    """

    name: dns.name.Name
    kind: dns.rdatatype.RdataType

    def __str__(self) -> str:
        return f"{self.kind.name} of {self.name.to_text(omit_final_dot=True)}"


@attrs.define(frozen=True)
class Answer:
    """What a name server says about a name.

    @ivar values: dnspython's rdata objects of the type that was asked for, aliases followed.
    @ivar exists: whether there is such a name at all; false for NXDOMAIN.
    @ivar ttl: how long it may be believed, in seconds.
    @ivar secure: whether a validating resolver that is trusted vouches for it, all aliases on the
        way included (DNSSEC; the AD flag of RFC 4035, 3.2.3).
    @ivar canonical: where aliases lead from the name that was asked for; L{None} if it is none.
    @ivar complete: whether the server has followed the aliases to their end.
    """

    values: tuple[Any, ...]
    exists: bool = True
    ttl: float = 0.0
    secure: bool = False
    canonical: dns.name.Name | None = None
    complete: bool = True


def make_query(question: Question, *, edns: bool = True) -> dns.message.QueryMessage:
    """Write a recursive question with an id that nobody can guess.

    It has the AD flag, which asks for that flag in the answer (RFC 6840, 5.7).
    """
    return dns.message.make_query(
        question.name,
        question.kind,
        flags=dns.flags.RD | dns.flags.AD,
        use_edns=0 if edns else False,
        payload=EDNS_PAYLOAD,
    )


def read_response(query: dns.message.Message, data: bytes) -> dns.message.Message | None:
    """Read a datagram that should answer a query.

    @return: the response; L{None} if the octets are not one, or answer something else: another
        id, another question, no answer at all. Whoever waits goes on waiting then, since a
        forgery must not end a look-up.
    """
    try:
        response = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError):
        return None
    return response if query.is_response(response) else None


def read_answer(response: dns.message.Message, *, trusted: bool = False) -> Answer | None:
    """What a response says, or L{None} where it says that the server could not find out.

    Aliases are followed as far as the response contains them.

    @param trusted: whether the server's word on DNSSEC counts.
    """
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return None
    if not isinstance(response, dns.message.QueryMessage):
        return None
    try:
        chain = response.resolve_chaining()
    except dns.exception.DNSException:
        return None  # a loop of aliases, or a name that both exists and does not
    ttl = float(chain.minimum_ttl)
    secure = trusted and bool(response.flags & dns.flags.AD)
    canonical = chain.canonical_name if chain.cnames else None
    if chain.answer is None:
        exists = response.rcode() != dns.rcode.NXDOMAIN
        # RFC 2308, 5: without an SOA a negative answer must not be cached.
        has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
        kept = min(ttl, MAX_NEGATIVE_TTL) if has_soa else 0.0
        # An alias whose end is not mentioned: the server answers for its own zone only.
        complete = canonical is None or has_soa or not exists
        if not complete:
            kept = min(ttl, MAX_TTL)
        return Answer((), exists, kept, secure, canonical, complete)
    return Answer(tuple(chain.answer)[:MAX_VALUES], True, min(ttl, MAX_TTL), secure, canonical)
