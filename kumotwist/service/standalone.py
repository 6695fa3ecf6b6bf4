"""Proxies and sinks: the parts of a node that also run alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted.application.service import IService, MultiService

from kumotwist.config import Configuration
from kumotwist.http import guarded_site
from kumotwist.http.settings import HTTPSettings
from kumotwist.proxy.service import ProxyError, build_proxies
from kumotwist.proxy.settings import ProxyRuleSettings, ProxySettings
from kumotwist.proxy.web import proxy_pages
from kumotwist.service.errors import StartError
from kumotwist.service.listening import ListeningService
from kumotwist.service.proxies import StandaloneProxies
from kumotwist.service.state import prepare_state_dir
from kumotwist.smtp.settings import ListenerSettings, SinkSettings
from kumotwist.smtp.sink import sink_factory
from kumotwist.tls.server import TLSCertificateError, self_signed, server_context_factory

__all__ = ["proxy_services", "sink_service", "standalone_proxies", "standalone_sink", "tls_context"]


def tls_context(
    settings: ListenerSettings | SinkSettings, hostname: str, state_dir: str
) -> Any | None:
    """The TLS context of a listener: configured, or self-signed and kept in the state directory.

    @return: L{None} if TLS is switched off.
    @raise StartError: if a file cannot be used.
    """
    if settings.tls == "none":
        return None
    client_ca = settings.tls_required_client_ca if isinstance(settings, ListenerSettings) else None
    try:
        if settings.tls_certificate is not None and settings.tls_private_key is not None:
            pair = settings.tls_certificate, settings.tls_private_key
            return server_context_factory(*pair, client_ca)
        made = self_signed(settings.hostname or hostname, state_dir)
        return server_context_factory(*made, client_ca)
    except TLSCertificateError as error:
        raise StartError(str(error)) from None


def sink_service(
    reactor: Any, name: str, settings: SinkSettings, hostname: str, state_dir: str
) -> ListeningService:
    """Build a sink.

    @param name: how error texts call it.
    @param hostname: what it calls itself where its settings have no name.
    @raise StartError: if its certificate cannot be used.
    """
    context = tls_context(settings, hostname, state_dir)
    factory = sink_factory(reactor, settings, tls_context_factory=context, node_hostname=hostname)
    return ListeningService(reactor, f"{name} listen", settings.listen, factory)


def proxy_services(
    reactor: Any,
    proxies: Mapping[str, ProxySettings],
    rules: Mapping[str, ProxyRuleSettings],
    pages: Sequence[tuple[str, ListeningService]] = (),
) -> MultiService:
    """Build the proxies of a process.

    @param pages: what listens in the process besides, by its section; of that C{[http]} is out of
        reach through the proxies. It may still grow.
    @raise StartError: if one cannot be built.
    """
    try:
        return build_proxies(reactor, proxies, rules.items(), lambda: _http(pages))
    except ProxyError as error:
        raise StartError(str(error)) from None


def _http(listening: Sequence[tuple[str, ListeningService]]) -> Iterator[tuple[str, int]]:
    """Where C{[http]} listens. Listeners for mail are what proxies lead to."""
    for what, service in listening:
        place = service.socket_address if what == "[http]" else None
        if place is not None:
            yield place


def standalone_proxies(
    reactor: Any,
    proxies: Mapping[str, ProxySettings],
    rules: Mapping[str, ProxyRuleSettings],
    http: HTTPSettings | None,
    configuration: Configuration | None = None,
) -> StandaloneProxies:
    """What C{twistd kumoproxy} runs.

    @param configuration: where all that comes from, if it comes from a file.
    @param http: where C{/metrics} and C{/proxy/status} are served; L{None} for nowhere.
    @raise StartError: if a proxy cannot be built.
    """
    pages: list[tuple[str, ListeningService]] = []
    services = proxy_services(reactor, proxies, rules, pages)
    together = StandaloneProxies(services, configuration)
    if http is None:
        return together
    site = guarded_site(reactor, http.trusted_hosts, proxy_pages(services))
    listening = ListeningService(reactor, "[http] listen", http.listen, site)
    pages.append(("[http]", listening))
    listening.setServiceParent(together)  # type: ignore[no-untyped-call]
    return together


def standalone_sink(reactor: Any, settings: SinkSettings, state_dir: str) -> IService:
    """What C{twistd kumosink} runs."""
    hostname = settings.hostname or socket.gethostname()
    if settings.tls != "none" and settings.tls_certificate is None:
        state_dir = prepare_state_dir(state_dir)
    return sink_service(reactor, "kumosink", settings, hostname, state_dir)
