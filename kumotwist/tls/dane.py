"""DANE for SMTP: certificates against TLSA records (RFC 6698; RFC 7671; RFC 7672).

Only usages 2 (DANE-TA: an authority of the domain's choice) and 3 (DANE-EE: this very certificate
or key) say anything to SMTP; records of the PKIX usages, and those that make no sense, are
unusable (RFC 7672, 3.1.3). The comparison is our own; the path from a host's certificate to a
matching authority is OpenSSL's to verify.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from OpenSSL import crypto
from service_identity import VerificationError
from service_identity.hazmat import DNS_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns

__all__ = ["DANE", "TLSARecord", "mismatch", "usable_records"]

_TRUST_ANCHOR, _END_ENTITY = 2, 3
_WHOLE, _KEY = 0, 1
_DIGESTS = {1: hashlib.sha256, 2: hashlib.sha512}
#: The longest chain that is looked at.
_MAX_CHAIN = 10
#: More records than this are not looked at.
_MAX_RECORDS = 20


class TLSARecord(NamedTuple):
    """A TLSA record (RFC 6698, 2.1).

    @ivar usage: 2 for an authority, 3 for the host's own certificate; 0 and 1 are not for SMTP.
    @ivar selector: 0 for the whole certificate, 1 for its public key.
    @ivar matching: 0 for the octets themselves, 1 for their SHA-256, 2 for their SHA-512.
    @ivar data: what to compare with.
    """

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching}"


@attrs.define(frozen=True)
class DANE:
    """What DNSSEC says of a host's certificate.

    @ivar base_domain: the name that the records were found at, behind port and protocol; it is
        what is asked for by SNI (RFC 7672, 8.1).
    @ivar records: the usable records; none if there are only others.
    @ivar names: the names of which a certificate under an authority must have one (RFC 7672,
        3.2.2), the base domain among them.
    """

    base_domain: str
    records: tuple[TLSARecord, ...]
    names: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether a certificate can be authenticated by the records."""
        return bool(self.records)


def usable_records(records: Iterable[TLSARecord]) -> tuple[TLSARecord, ...]:
    """The records that count.

    Of the digests of one usage and selector only the strongest counts (RFC 7671, 9): whoever
    publishes two means the weaker one for clients that do not know the stronger.
    """
    usable = [record for record in tuple(records)[:_MAX_RECORDS] if _makes_sense(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in usable:
        kind = (record.usage, record.selector)
        strongest[kind] = max(strongest.get(kind, 0), record.matching)
    return tuple(
        record
        for record in usable
        if record.matching in (0, strongest[record.usage, record.selector])
    )


def _makes_sense(record: TLSARecord) -> bool:
    if record.usage not in (_TRUST_ANCHOR, _END_ENTITY) or record.selector not in (_WHOLE, _KEY):
        return False
    digest = _DIGESTS.get(record.matching)
    if digest is not None:
        return len(record.data) == digest().digest_size
    if record.matching != 0:
        return False
    try:
        if record.selector == _WHOLE:
            x509.load_der_x509_certificate(record.data)
        else:
            load_der_public_key(record.data)
    except Exception:  # cryptography raises many kinds
        return False
    return True


def mismatch(dane: DANE, chain: Sequence[x509.Certificate]) -> str:
    """Authenticate a host.

    @param chain: what the host has presented, its own certificate first, each issued by the next.
    @return: why it is not authentic; empty if it is.
    """
    chain = chain[:_MAX_CHAIN]
    if not chain:
        return "the host has presented no certificate"
    error = f"no TLSA record of {dane.base_domain} matches the certificate"
    # Usage 3 makes neither names nor dates matter (RFC 7672, 3.1.1).
    if any(_matches(r, chain[0]) for r in dane.records if r.usage == _END_ENTITY):
        return ""
    for anchor in _anchors(dane, chain):
        error = _path_fault(anchor, chain) or _name_fault(dane, chain[0])
        if not error:
            return ""
    return error


def _matches(record: TLSARecord, certificate: x509.Certificate) -> bool:
    if record.selector == _WHOLE:
        octets = certificate.public_bytes(Encoding.DER)
    else:
        octets = _key_octets(certificate)
    digest = _DIGESTS.get(record.matching)
    return (octets if digest is None else digest(octets).digest()) == record.data


def _anchors(dane: DANE, chain: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    """The authorities that records name: from the chain, or whole in a record."""
    for record in dane.records:
        if record.usage != _TRUST_ANCHOR:
            continue
        for depth, certificate in enumerate(chain):
            # A host's own certificate is an authority only if nobody else has signed it.
            if (depth or certificate.issuer == certificate.subject) and _matches(
                record, certificate
            ):
                yield certificate
        if record.selector == _WHOLE and record.matching == 0:
            yield x509.load_der_x509_certificate(record.data)


def _path_fault(anchor: x509.Certificate, chain: Sequence[x509.Certificate]) -> str:
    """What is wrong with the path from a host's certificate to an authority, dates included."""
    store = crypto.X509Store()
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    store.add_cert(crypto.X509.from_cryptography(anchor))
    leaf, *others = [crypto.X509.from_cryptography(one) for one in chain]
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return f"the path to the authority that TLSA names is not valid: {error}"
    return ""


def _name_fault(dane: DANE, certificate: x509.Certificate) -> str:
    try:
        patterns = extract_patterns(crypto.X509.from_cryptography(certificate))
    except Exception as error:  # service_identity and cryptography raise many kinds
        return f"the names in the certificate cannot be read: {type(error).__name__}"
    for name in dane.names:
        try:
            verify_service_identity(patterns, [DNS_ID(name)], [])
        except (VerificationError, ValueError):
            continue
        return ""
    return f"the certificate is for none of {', '.join(dane.names)}"


def _key_octets(certificate: x509.Certificate) -> bytes:
    """The SubjectPublicKeyInfo as it stands in a certificate (RFC 5280, 4.1).

    Cut out, not decoded and encoded anew, since every octet counts and the key may be of a kind
    that cryptography does not know.
    """
    tbs = certificate.tbs_certificate_bytes
    position, _ = _element(tbs, 0)
    if tbs[position] == 0xA0:  # the version; a certificate of version 1 has none
        position = sum(_element(tbs, position))
    for _ in range(5):  # serial number, signature, issuer, validity, subject
        position = sum(_element(tbs, position))
    return tbs[position : sum(_element(tbs, position))]


def _element(octets: bytes, position: int) -> tuple[int, int]:
    """Where the contents of a DER element begin, and how long they are."""
    length = octets[position + 1]
    begin = position + 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(octets[position + 2 : begin], "big")
    return begin, length
