"""What a TLS client believes and shows, read from files once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from attrs import define
from OpenSSL import SSL, crypto
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)

__all__ = ["TLSCredentials"]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@define(frozen=True)
class TLSCredentials:
    """The authorities that are trusted and the client's own certificate.

    @ivar trust_root: for L{optionsForClientTLS}; L{None} trusts what the platform trusts.
    @ivar certificate: for L{optionsForClientTLS}, or L{None}.
    """

    trust_root: Any = None
    certificate: PrivateCertificate | None = None

    @classmethod
    def load(
        cls, trust_roots: str | None, certificate: str | None, private_key: str | None
    ) -> TLSCredentials:
        """Read the files that a C{tls:} endpoint string names.

        @param trust_roots: a directory of C{.pem} files, as with Twisted, or a single such file.
        @param certificate: a PEM file with the client's certificate.
        @param private_key: a PEM file with its key, where that is not in the same file.
        @raise ValueError: naming the argument and what is wrong with the file.
        """
        if private_key is not None and certificate is None:
            raise ValueError("certificate: missing; a privateKey needs one")
        return cls(
            None if trust_roots is None else _trust(Path(trust_roots)),
            None if certificate is None else _own(Path(certificate), private_key),
        )

    def for_peer(self, host: str) -> Any:
        """The options of a connection whose peer must prove to be this host, a name or address."""
        return optionsForClientTLS(
            host, trustRoot=self.trust_root, clientCertificate=self.certificate
        )


def _trust(path: Path) -> Any:
    try:
        files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
        found = [
            Certificate.loadPEM(pem) for file in files for pem in _PEM.findall(file.read_bytes())
        ]
    except OSError as error:
        raise ValueError(f"trustRoots: cannot read {path}: {error.strerror}") from None
    except (SSL.Error, crypto.Error, ValueError):
        raise ValueError(f"trustRoots: {path} holds a damaged certificate") from None
    if not found:
        raise ValueError(f"trustRoots: there is no certificate in {path}")
    return trustRootFromCertificates(found)


def _own(certificate: Path, private_key: str | None) -> PrivateCertificate:
    try:
        pem = certificate.read_bytes()
        if private_key is not None:
            pem = Path(private_key).read_bytes() + b"\n" + pem
    except OSError as error:
        raise ValueError(f"certificate: cannot read {error.filename}: {error.strerror}") from None
    try:
        loaded: PrivateCertificate = PrivateCertificate.loadPEM(pem)
    except (SSL.Error, crypto.Error, ValueError, TypeError):
        raise ValueError(
            f"certificate: {certificate} and its key are not a usable certificate"
        ) from None
    return loaded
