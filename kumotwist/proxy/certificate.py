"""The proxy's certificate, read again when its files change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

from kumotwist.errors import KumotwistError

__all__ = ["CertificateError", "ProxyCertificate", "tls_trouble"]

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: Seconds between two looks at the files.
_LOOK_EVERY = 10.0

_log = Logger()


class CertificateError(KumotwistError):
    """Certificate or key cannot be used; the text names the file and the reason."""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise CertificateError(f"cannot read {path}: {error.strerror}") from None


def _load(certificate_path: str, key_path: str) -> SSL.Context:
    """Make a TLS context of two PEM files, which may be the same one."""
    blocks = _CERTIFICATE.findall(_read(certificate_path))
    if not blocks:
        raise CertificateError(f"{certificate_path} holds no certificate in PEM")
    try:
        first, *chain = [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except crypto.Error:
        raise CertificateError(f"{certificate_path} holds a broken certificate") from None
    try:
        # A passphrase is given, so that an encrypted key is an error instead of a question.
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, _read(key_path), b"")
    except (crypto.Error, ValueError):
        raise CertificateError(f"{key_path} holds no private key that can be read") from None
    try:
        context: SSL.Context = CertificateOptions(key, first, extraCertChain=chain).getContext()
    except SSL.Error:
        raise CertificateError(f"{key_path} is not the key of {certificate_path}") from None
    return context


def tls_trouble(cause: BaseException | None) -> str:
    """Why TLS with a client has failed, in words; OpenSSL's come in tuples."""
    if isinstance(cause, SSL.Error):
        entries = cause.args[0] if cause.args and isinstance(cause.args[0], list) else ()
        return ", ".join(str(entry[-1]) for entry in entries) or "no reason given"
    return str(cause).rstrip(".") or type(cause).__name__


@implementer(IOpenSSLServerConnectionCreator)
class ProxyCertificate:
    """Begins the TLS of each client with the certificate as it is on disk.

    Files that have become unusable are logged, and the old certificate stays.

    @param certificate_path: PEM file with the certificate, then its chain.
    @param key_path: PEM file with the key.
    @param seconds: the clock that spaces the looks at the files.
    @raise CertificateError: they cannot be used.
    """

    def __init__(self, certificate_path: str, key_path: str, seconds: Callable[[], float]) -> None:
        self._paths = (certificate_path, key_path)
        self._seconds = seconds
        self._version = self._version_on_disk()
        self._context = _load(*self._paths)
        self._next_look = seconds() + _LOOK_EVERY

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """Make the TLS connection of a new client."""
        if self._seconds() >= self._next_look:
            self._look()
        return SSL.Connection(self._context, None)

    def _look(self) -> None:
        self._next_look = self._seconds() + _LOOK_EVERY
        version = self._version_on_disk()
        if version == self._version:
            return
        self._version = version
        try:
            self._context = _load(*self._paths)
        except CertificateError as error:
            _log.error("the old certificate stays in use: {problem}", problem=str(error))
        else:
            _log.info("read the certificate {path} again", path=self._paths[0])

    def _version_on_disk(self) -> tuple[object, ...]:
        """Something that changes when the files do."""
        version: list[object] = []
        for path in self._paths:
            try:
                facts = os.stat(path)
            except OSError:
                version.append(None)
            else:
                version.append((facts.st_ino, facts.st_mtime_ns, facts.st_size))
        return tuple(version)
