"""TLS for listeners: contexts from a certificate's files, and a self-signed certificate.

A listener without a configured certificate shows a self-signed one. It protects against whoever
only listens, which is what opportunistic TLS between mail servers does anyway (RFC 7435). It is
made once and kept in the state directory, so that clients that remember certificates are not upset.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    TLSVersion,
    trustRootFromCertificates,
)

from kumotwist.errors import KumotwistError

__all__ = ["TLSCertificateError", "self_signed", "server_context_factory"]

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: A self-signed certificate is made anew when it has less than this left.
_RENEW = datetime.timedelta(days=30)
_LIFETIME = datetime.timedelta(days=3650)


class TLSCertificateError(KumotwistError):
    """A certificate or its key cannot be used; the text names the file and the reason."""


def server_context_factory(
    certificate: str | Path, private_key: str | Path, client_ca: str | Path | None = None
) -> Any:
    """Make the context factory of a listener.

    @param certificate: a PEM file: the server's certificate, then its chain.
    @param private_key: a PEM file with the certificate's key, not encrypted.
    @param client_ca: a PEM file with authorities: clients must show a certificate that one of them
        has signed, or the handshake fails. Without it nobody is asked for one.
    @return: what C{startTLS} and L{kumotwist.smtp.ESMTPListenerFactory} take: TLS 1.2 and newer.
    @raise TLSCertificateError: if one of them cannot be read, or they do not belong together.
    """
    first, *chain = _load_certificates(Path(certificate))
    key = _load_key(Path(private_key))
    options = CertificateOptions(
        privateKey=key,
        certificate=first,
        extraCertChain=chain,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        trustRoot=None if client_ca is None else _authorities(Path(client_ca)),
    )
    try:
        context = options.getContext()
        context.check_privatekey()
        if client_ca is not None:
            # Their names, so that a client with several certificates knows which one to show.
            context.load_client_ca(os.fsencode(client_ca))
    except SSL.Error:
        raise TLSCertificateError(
            f"the key in {str(private_key)!r} does not belong to the certificate "
            f"in {str(certificate)!r}"
        ) from None
    return options


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSCertificateError(f"cannot read {str(path)!r}: {error.strerror}") from None


def _load_certificates(path: Path) -> list[crypto.X509]:
    blocks = _PEM.findall(_read(path))
    if not blocks:
        raise TLSCertificateError(f"there is no PEM certificate in {str(path)!r}")
    try:
        return [
            crypto.X509.from_cryptography(x509.load_pem_x509_certificate(block)) for block in blocks
        ]
    except ValueError as error:
        raise TLSCertificateError(f"a certificate in {str(path)!r} is damaged: {error}") from None


def _authorities(path: Path) -> Any:
    """What clients' certificates must lead to."""
    return trustRootFromCertificates([Certificate(each) for each in _load_certificates(path)])


def _load_key(path: Path) -> crypto.PKey:
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
        return crypto.PKey.from_cryptography_key(key)  # type: ignore[arg-type]
    except TypeError:
        raise TLSCertificateError(
            f"the private key in {str(path)!r} is encrypted, or of an unknown kind"
        ) from None
    except ValueError:
        raise TLSCertificateError(f"there is no PEM private key in {str(path)!r}") from None


def self_signed(hostname: str, state_dir: str | Path) -> tuple[Path, Path]:
    """Find, or make, the self-signed certificate of a host.

    @param hostname: the name that the certificate is for; an address literal is possible.
    @param state_dir: the node's state directory; the files stand in C{tls} below it.
    @return: the certificate's and the key's file, for L{server_context_factory}.
    @raise TLSCertificateError: if they can neither be used nor made.
    """
    directory = Path(state_dir) / "tls"
    stem = "self-signed-" + re.sub(r"[^A-Za-z0-9.-]", "_", hostname)
    certificate, key = directory / f"{stem}.crt", directory / f"{stem}.key"
    if _usable(certificate, key):
        return certificate, key
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key_octets, certificate_octets = _make(hostname)
        _write(key, key_octets)
        _write(certificate, certificate_octets)
    except OSError as error:
        raise TLSCertificateError(
            f"cannot keep a self-signed certificate in {str(directory)!r}: {error.strerror}"
        ) from None
    return certificate, key


def _usable(certificate: Path, key: Path) -> bool:
    """Whether both files are there, belong together, and the certificate is not about to expire."""
    try:
        server_context_factory(certificate, key)
        parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (TLSCertificateError, OSError, ValueError):
        return False
    return parsed.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > _RENEW


def _make(hostname: str) -> tuple[bytes, bytes]:
    """Make a key and a certificate, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    # A common name has at most 64 characters (RFC 5280, appendix A.1); the names that count are
    # the alternative ones.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    return (
        key.private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(encoding),
    )


def _alternative_name(hostname: str) -> x509.GeneralName:
    literal = hostname.strip("[]").removeprefix("IPv6:")
    try:
        return x509.IPAddress(ipaddress.ip_address(literal))
    except ValueError:
        return x509.DNSName(hostname)


def _write(path: Path, octets: bytes) -> None:
    """Put a file in place whole, readable by its owner only."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(octets)
        stream.flush()
        os.fsync(descriptor)
    os.replace(fresh, path)
