"""Whether the certificates of a configuration can be used, found out before anything listens."""

from __future__ import annotations

from collections.abc import Iterator

from kumotwist.config import Configuration
from kumotwist.errors import KumotwistError
from kumotwist.proxy.certificate import ProxyCertificate
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.tls.server import server_context_factory

__all__ = ["unusable_certificates"]


def unusable_certificates(configuration: Configuration) -> Iterator[str]:
    """Try each certificate with its key.

    @return: a line for each that cannot be used: the section, the file and the reason.
    """
    for name, listener in configuration.listeners.items():
        yield from _unusable(f"listener:{name}", listener, listener.tls_required_client_ca)
    for name, sink in configuration.sinks.items():
        yield from _unusable(f"sink:{name}", sink, None)
    for name, proxy in configuration.proxies.items():
        certificate = proxy.tls_certificate
        if certificate is None:
            continue
        try:
            ProxyCertificate(certificate, proxy.tls_private_key or certificate, lambda: 0.0)
        except KumotwistError as error:
            yield f"[proxy:{name}] tls_certificate: {error}"


def _unusable(
    section: str, settings: ListenerSettings | SinkSettings, client_ca: str | None
) -> Iterator[str]:
    certificate, key = settings.tls_certificate, settings.tls_private_key
    if certificate is None or key is None:
        return
    try:
        server_context_factory(certificate, key, client_ca)
    except KumotwistError as error:
        yield f"[{section}] tls_certificate: {error}"
