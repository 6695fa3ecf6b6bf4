"""TLSA records for a host, with the rules that make them worth something (RFC 7672, 2.2)."""

from __future__ import annotations

import attrs
import dns.rdatatype
from twisted.internet.defer import Deferred, DeferredList

from kumotwist.dns.answers import Answer
from kumotwist.dns.client import Asker
from kumotwist.dns.errors import DNSError
from kumotwist.dns.names import host_question

__all__ = ["TLSARecords", "find_tlsa"]


@attrs.define(frozen=True)
class TLSARecords:
    """What DNSSEC vouches for about a host's certificate.

    @ivar base_domain: the name that the records stand at, behind C{_PORT._tcp.}.
    @ivar records: usage, selector, matching type and data of each; at least one.
    """

    base_domain: str
    records: tuple[tuple[int, int, int, bytes], ...]


async def find_tlsa(asker: Asker, host: str, port: int) -> TLSARecords | None:
    """Find a host's TLSA records.

    They count only if DNSSEC vouches for the host's addresses too; where it does not, they are not
    even asked for, since name servers of unsigned zones often fail at such questions (RFC 7672,
    2.2.2). A host that is an alias is looked for under the name it stands for, then under its own.

    @param host: in A-labels, no address.
    @return: L{None} if DANE does not apply to the host.
    @raise DNSError: a look-up failed, or what it found is forged: the host must not be used.
    """
    for base in await _base_domains(asker, host):
        try:
            question = host_question(f"_{port}._tcp.{base}", dns.rdatatype.TLSA)
        except DNSError:
            continue  # the name would be too long to exist
        answer = await asker.ask(question)
        if answer.secure and answer.values:
            records = tuple(
                (record.usage, record.selector, record.mtype, record.cert)
                for record in answer.values
            )
            return TLSARecords(base, records)
    return None


async def _base_domains(asker: Asker, host: str) -> list[str]:
    """The names that TLSA records may stand at, best first."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    both: Deferred[list[tuple[bool, Answer]]] = DeferredList(
        [asker.ask(host_question(host, kind)) for kind in kinds], consumeErrors=True
    )
    answers = [outcome for succeeded, outcome in await both if succeeded]
    if not answers:
        raise DNSError(host, f"the addresses of {host} cannot be looked up")
    secure = any(answer.secure for answer in answers)
    alias = next((answer.canonical for answer in answers if answer.canonical is not None), None)
    if alias is None:
        return [host] if secure else []
    if secure:
        return [alias.to_text(omit_final_dot=True).lower(), host]
    # What the alias leads to is not signed; the alias itself may be.
    own: Answer = await asker.ask(host_question(host, dns.rdatatype.CNAME))
    return [host] if own.secure else []
