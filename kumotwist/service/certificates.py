"""Whether the certificates of a configuration can be used, found out before anything listens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kumotwist.errors import KumotwistError
from kumotwist.proxy.certificate import ProxyCertificate
from kumotwist.tls.server import server_context_factory

__all__ = ["unusable_certificates"]

_KEYS = ("tls_certificate", "tls_private_key", "tls_required_client_ca")


def unusable_certificates(kind: str, settings: Any) -> Iterator[tuple[str, str]]:
    """Try the certificate of a section with its key (L{kumotwist.config.loading.TrySection}).

    @param kind: the kind of section, such as C{listener}.
    @param settings: what the section says.
    @return: the key that names what cannot be used, and why, if that is so.
    """
    if kind not in ("listener", "sink", "proxy"):
        return
    certificate, key = settings.tls_certificate, settings.tls_private_key
    try:
        if certificate is None:
            return
        if kind == "proxy":
            ProxyCertificate(certificate, key or certificate, lambda: 0.0)
        elif key is not None:
            client_ca = getattr(settings, "tls_required_client_ca", None)
            server_context_factory(certificate, key, client_ca)
    except KumotwistError as error:
        yield _culprit(settings, str(error)), str(error)


def _culprit(settings: Any, problem: str) -> str:
    """The key whose file an error names first."""
    named = [
        (problem.index(path), key)
        for key in _KEYS
        if (path := getattr(settings, key, None)) and path in problem
    ]
    return min(named, key=lambda each: each[0])[1] if named else _KEYS[0]
