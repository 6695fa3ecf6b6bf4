"""Real TLS between two protocols in memory: no socket, no reactor."""

from __future__ import annotations

import datetime
import functools
from typing import Any

import trustme
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, CertificateOptions, KeyPair, PrivateCertificate
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.test.iosim import FakeTransport

__all__ = ["TLSFakeTransport", "authority", "authority_certificate", "server_options"]


class _Bypass:
    """What the TLS layer writes to: the transport beneath it."""

    def __init__(self, transport: TLSFakeTransport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        FakeTransport.write(self._transport, data)

    def loseConnection(self) -> None:
        FakeTransport.loseConnection(self._transport)

    def abortConnection(self) -> None:
        FakeTransport.abortConnection(self._transport)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class TLSFakeTransport(FakeTransport):
    """An C{iosim} transport whose C{startTLS} does what a TCP connection's does."""

    _tls: TLSMemoryBIOProtocol | None = None

    def startTLS(self, contextFactory: Any, beNormal: bool = True) -> None:
        """Put a TLS layer between this transport and its protocol."""
        factory = TLSMemoryBIOFactory(contextFactory, not self.isServer, Factory())
        layer = TLSMemoryBIOProtocol(factory, self.protocol, False)
        self.protocol = layer
        self._tls = layer
        layer.makeConnection(_Bypass(self))

    def getHandle(self) -> Any:
        """The pyOpenSSL connection."""
        return None if self._tls is None else self._tls.getHandle()

    def write(self, data: bytes) -> None:
        """Write through TLS, once there is any."""
        if self._tls is None:
            super().write(data)
        else:
            self._tls.write(data)

    def loseConnection(self) -> None:
        """Close, TLS first."""
        if self._tls is None:
            super().loseConnection()
        else:
            self._tls.loseConnection()

    def abortConnection(self) -> None:
        """Close at once."""
        if self._tls is None:
            super().abortConnection()
        else:
            self._tls.abortConnection()


@functools.cache
def authority() -> trustme.CA:
    """The one authority of the tests."""
    return trustme.CA()


def authority_certificate() -> Certificate:
    """Its certificate, to be trusted."""
    return Certificate.loadPEM(authority().cert_pem.bytes())


@functools.cache
def server_options(*names: str, trusted: bool = True, expired: bool = False) -> CertificateOptions:
    """A server's context, with a certificate for these names.

    @param trusted: whether the tests' authority has signed it.
    @param expired: whether its time is over.
    """
    issuer = authority() if trusted else trustme.CA()
    end = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC) if expired else None
    begin = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC) if expired else None
    leaf = issuer.issue_cert(*names, not_after=end, not_before=begin)
    pem = leaf.private_key_pem.bytes()
    certificate = Certificate.loadPEM(leaf.cert_chain_pems[0].bytes())
    private = PrivateCertificate.fromCertificateAndKeyPair(certificate, KeyPair.load(pem, 1))
    options: CertificateOptions = private.options()
    return options
