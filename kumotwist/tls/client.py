"""TLS towards a destination: certificates checked against the host's name, contexts shared.

A context costs milliseconds, a connection made from it microseconds; so a context is built once
per set of trust anchors, and what differs from host to host (name, verdict) belongs to the
connection.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from typing import Any, cast

import idna
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, ServiceID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, CertificateOptions, TLSVersion, platformTrust
from zope.interface import implementer

from kumotwist.tls.dane import DANE, mismatch
from kumotwist.tls.facts import CheckedConnection, PeerCheck
from kumotwist.tls.resumption import KeptSession, SessionSlot

__all__ = ["ClientTrust", "HostTLS", "client_tls_options", "system_trust"]

# OpenSSL's numbers (x509_vfy.h) for what goes wrong with chains in real life.
_CHAIN_FAULTS = {
    2: "the issuer's certificate is missing",
    7: "a signature of the certificate chain is wrong",
    9: "the certificate is not yet valid",
    10: "the certificate has expired",
    18: "the certificate is self-signed",
    19: "the certificate chain ends in a self-signed certificate that is not trusted",
    20: "the certificate's issuer is not trusted",
    21: "the certificate's issuer is not known",
    23: "the certificate has been revoked",
    24: "an issuer of the certificate is not an authority",
    26: "the certificate is not for servers",
    66: "the key of the certificate is too weak",
    67: "the key of an issuer is too weak",
    68: "a signature of the certificate chain is too weak",
}


class ClientTrust:
    """Trust anchors, and the one context in which every connection that trusts them is made."""

    def __init__(self, extra: Iterable[Certificate] = (), *, system: bool = True) -> None:
        """
        @param extra: authorities to trust besides; load them with C{Certificate.loadPEM}.
        @param system: trust what the system trusts. Without it only C{extra} counts.
        """
        self._extra = tuple(extra)
        self._system = system
        self._context: SSL.Context | None = None

    @property
    def context(self) -> SSL.Context:
        """The context: TLS 1.2 or newer, Twisted's choice of ciphers."""
        if self._context is None:
            options = CertificateOptions(
                raiseMinimumTo=TLSVersion.TLSv1_2,
                trustRoot=platformTrust() if self._system else None,
                enableSessionTickets=True,
            )
            context: SSL.Context = options.getContext()
            store = cast(crypto.X509Store, context.get_cert_store())
            for certificate in self._extra:
                store.add_cert(certificate.original)
            self._context = context
        return self._context


@functools.cache
def system_trust() -> ClientTrust:
    """What the system trusts: one for the whole process."""
    return ClientTrust()


@functools.cache
def _no_trust() -> ClientTrust:
    """No authority at all, so that OpenSSL's chains have nothing but what the host presents."""
    return ClientTrust(system=False)


class _HostCheck(PeerCheck):
    """Checks the certificate of one connection as OpenSSL walks its chain."""

    __slots__ = ("_checked_name", "_enforced", "_expected", "_shown")

    def __init__(
        self, expected: ServiceID, shown: str, enforced: bool, earlier: KeptSession | None
    ) -> None:
        super().__init__()
        if earlier is not None:
            # What holds if the host resumes the session: then it shows no certificate.
            self.resumed = earlier
            self.verified, self.error = earlier.verified, earlier.error
        self._expected = expected
        self._shown = shown
        self._enforced = enforced
        self._checked_name = False

    def step(
        self, connection: SSL.Connection, certificate: crypto.X509, fault: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL's verify callback: once per certificate, and once per fault."""
        if self.resumed is not None:
            self.resumed, self.verified, self.error = None, False, ""
        if not ok:
            self._note(_CHAIN_FAULTS.get(fault, f"the certificate chain is not valid ({fault})"))
        if depth == 0 and not self._checked_name:
            self._checked_name = True
            self._check_name(certificate)
        self.verified = self._checked_name and not self.error
        return not (self._enforced and self.error)

    def _check_name(self, certificate: crypto.X509) -> None:
        try:
            patterns = extract_patterns(certificate)
        except Exception as error:  # service_identity and cryptography raise many kinds
            self._note(f"the names in the certificate cannot be read: {type(error).__name__}")
            return
        try:
            verify_service_identity(patterns, [self._expected], [])
        except (VerificationError, CertificateError):  # the latter: there are no names in it
            self._note(f"the certificate is not for {self._shown}")

    def _note(self, error: str) -> None:
        """Keep the first error: it is the cause of what follows."""
        self.error = self.error or error


class _DANECheck(PeerCheck):
    """Checks the certificates of one connection against TLSA records, when OpenSSL has shown all.

    OpenSSL trusts nobody here and finds fault with every chain; what it says is not listened to.
    """

    __slots__ = ("_chain", "_dane", "_enforced")

    def __init__(self, dane: DANE, enforced: bool) -> None:
        super().__init__()
        self._dane = dane
        self._enforced = enforced
        self._chain: dict[int, crypto.X509] = {}

    def step(
        self, connection: SSL.Connection, certificate: crypto.X509, fault: int, depth: int, ok: int
    ) -> bool:
        """OpenSSL's verify callback: last of all it approves of the certificate at depth 0."""
        self._chain[depth] = certificate
        if depth or not ok:
            return True
        try:
            chain = [self._chain[depth].to_cryptography() for depth in sorted(self._chain)]
            self.error = mismatch(self._dane, chain)
        except Exception as error:  # cryptography raises many kinds
            self.error = f"the certificate cannot be read: {type(error).__name__}"
        self.verified = not self.error
        return self.verified or not self._enforced


@implementer(IOpenSSLClientConnectionCreator)
class HostTLS:
    """Makes the TLS side of connections to one host; see L{client_tls_options}."""

    def __init__(
        self,
        host_name: str,
        verify: bool,
        trust: ClientTrust,
        dane: DANE | None = None,
        slot: SessionSlot | None = None,
    ) -> None:
        self._slot = slot
        self._check: PeerCheck | None = None
        name = host_name.removesuffix(".")
        self._sni: bytes | None = None
        self._expected: ServiceID
        try:
            ipaddress.ip_address(name)
            self._expected = IPAddress_ID(name)
        except ValueError:
            if not name.isascii():
                name = idna.encode(name, uts46=True).decode("ascii")
            self._expected = DNS_ID(name)
            self._sni = name.encode("ascii")
        self._name = name
        self._verify = verify
        self._dane = dane
        self._context = trust.context

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make the connection; C{tlsProtocol} is not needed, the verdict travels with it."""
        check: _HostCheck | _DANECheck
        earlier = None
        if self._dane is None:
            if self._slot is not None:
                earlier = self._slot.take(self._context, verify=self._verify)
            check = _HostCheck(self._expected, self._name, self._verify, earlier)
        else:
            check = _DANECheck(self._dane, self._verify)
        self._check = check
        connection = CheckedConnection(self._context, check)
        if earlier is not None:
            connection.set_session(earlier.session)
        connection.set_verify(SSL.VERIFY_PEER, check.step)
        if self._sni is not None:
            connection.set_tlsext_host_name(self._sni)
        return connection

    @property
    def fault(self) -> str:
        """What is wrong with the certificate that was shown last; empty if nothing is known."""
        return self._check.error if self._check is not None else ""

    def ended(self, connection: CheckedConnection) -> None:
        """A connection whose handshake went well is over: the next one may go on with it."""
        if self._slot is not None:
            self._slot.keep(self._context, connection)


def client_tls_options(
    host_name: str,
    *,
    verify: bool,
    trust: ClientTrust | None = None,
    dane: DANE | None = None,
    slot: SessionSlot | None = None,
) -> HostTLS:
    """What C{startTLS} needs to speak TLS with a host (RFC 3207; RFC 6125).

    The certificate is checked in any case, so that L{kumotwist.tls.facts.tls_facts} tells the
    truth; C{verify} says whether it matters.

    @param host_name: the MX host's name, a final dot and U-labels allowed, or an IP address. It is
        what the certificate must be for, and what is asked for by SNI (RFC 6066, 3).
    @param verify: end the handshake if the certificate is not good.
    @param trust: the trust anchors; the system's if absent.
    @param dane: TLSA records, of which at least one is usable. They decide alone: neither trust
        anchors nor C{host_name} count, and SNI asks for their base domain (RFC 7672, 8.1).
    @param slot: where the session of an earlier connection is, and this one's is to be left;
        without it, and with C{dane}, every handshake is a full one.
    @raise ValueError: if the name is no name.
    """
    if dane is not None:
        return HostTLS(dane.base_domain, verify, _no_trust(), dane)
    return HostTLS(host_name, verify, trust or system_trust(), slot=slot)
