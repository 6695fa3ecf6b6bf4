"""KumoProxy as a service: the listener, what its sessions share, and an orderly end."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from twisted.application.service import IService, MultiService, Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import StrcredException, makeChecker
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from kumotwist.errors import KumotwistError
from kumotwist.logins import can_check
from kumotwist.proxy.accepting import Clients, ClientSocket
from kumotwist.proxy.certificate import CertificateError, ProxyCertificate
from kumotwist.proxy.counters import ProxyCounters
from kumotwist.proxy.descriptors import SpareDescriptor
from kumotwist.proxy.limits import SourceLimits
from kumotwist.proxy.outgoing import Dialer, IDialer, IOutgoing, Keepalive, read_ip
from kumotwist.proxy.relay import Relay, TransportRelay
from kumotwist.proxy.rules import Rules
from kumotwist.proxy.session import ProxySession
from kumotwist.proxy.settings import ProxyRuleSettings, ProxySettings
from kumotwist.proxy.shared import SharedByProxy
from kumotwist.proxy.splice import PipePool, SpliceRelay
from kumotwist.proxy.watching import make_watcher
from kumotwist.settings.listening import let_bursts_wait, quiet_about_shortage, why_not_listening
from kumotwist.settings.types import IPAddress
from kumotwist.wire.socks5.format import Address, unmapped

__all__ = ["ProxyError", "ProxyService", "build_proxies"]

_log = Logger()

OwnPages = Callable[[], Iterable[tuple[str, int]]]
"""Tells the addresses and ports where a process serves pages about itself."""


class ProxyError(KumotwistError):
    """A proxy cannot be built as it is configured.

    @ivar key: the key of C{[proxy:NAME]} that is wrong.
    @ivar problem: what is wrong with it.
    """

    def __init__(self, key: str, problem: str, name: str = "") -> None:
        """
        @param name: the NAME of C{[proxy:NAME]}, where it is known.
        """
        section = f"[proxy:{name}] " if name else ""
        super().__init__(f"{section}{key}: {problem}")
        self.key = key
        self.problem = problem


class _Sessions(Factory):
    """Makes the protocol for each client."""

    noisy = False

    def __init__(self, shared: SharedByProxy) -> None:
        self._shared = shared

    def buildProtocol(self, addr: IAddress | None) -> ProxySession:
        return ProxySession(self._shared)


@implementer(IService)
class ProxyService(Service):
    """One KumoProxy listener, C{[proxy:NAME]}.

    @ivar settings: as they were given.

    @param reactor: listens, keeps time, resolves names and, for the default dialer, watches
        sockets.
    @param name: the NAME of C{[proxy:NAME]}.
    @param settings: what is configured.
    @param rules: names and settings of all C{[proxy-rule:NAME]}, in the order of the file; those
        of other proxies are left out.
    @param checker: who may log in; by default what C{settings.auth} says.
    @param dialer: where outgoing connections come from; by default real sockets.
    @param beside: all proxies of the process, whose listeners nobody reaches without a rule;
        looked at when it matters, so it may still grow.
    @param pages: where the process serves pages about itself, as addresses and ports; nobody
        reaches them without a rule either.
    @raise ProxyError: the settings cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        settings: ProxySettings,
        rules: Iterable[tuple[str, ProxyRuleSettings]] = (),
        checker: ICredentialsChecker | None = None,
        *,
        dialer: IDialer | None = None,
        beside: Sequence[ProxyService] = (),
        pages: OwnPages = tuple,
    ) -> None:
        self.name = name
        self.settings = settings
        self._reactor = reactor
        self._beside = beside
        self._pages = pages
        self._keepalive = Keepalive(
            settings.keepalive,
            settings.keepalive_time,
            settings.keepalive_interval,
            settings.keepalive_retries,
        )
        self._watcher = make_watcher(reactor)
        self._dialer = dialer or Dialer(reactor, self._watcher, self._keepalive)
        self._shared = SharedByProxy(
            name=name,
            settings=settings,
            rules=Rules(rules, name, self._is_own),
            limits=SourceLimits(
                reactor,
                settings.max_connections_per_source,
                settings.max_connection_rate_per_source,
            ),
            dialer=self._dialer,
            make_relay=self._make_relay,
            clock=reactor,
            resolver=reactor.nameResolver,
            checker=_checker(settings, checker),
        )
        self._endpoint = _endpoint(reactor, settings)
        self._certificate = _certificate(settings, reactor.seconds)
        self._pipes = PipePool()
        self._splice = settings.use_splice and hasattr(os, "splice")
        self._port: IListeningPort | None = None
        self._listening: tuple[IAddress, ...] = ()
        self._clients: Clients | None = None

    # -- what it tells ---------------------------------------------------------------------------

    @property
    def counters(self) -> ProxyCounters:
        """What it has counted since it was made."""
        return self._shared.counters

    @property
    def listening(self) -> tuple[IAddress, ...]:
        """Where it listens now; empty before the start and after the stop."""
        return self._listening

    @property
    def status(self) -> str:
        """C{OK}, C{draining} or C{stopped}."""
        if self._shared.draining:
            return "draining"
        return "stopped" if self._port is None else "OK"

    @property
    def open_by_source(self) -> dict[IPAddress, int]:
        """How many outgoing connections are open or being opened, for each source address."""
        found = self._shared.limits.open_connections()
        return {read_ip(source): number for source, number in found.items()}

    # -- IService --------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Listen while the process may still use ports below 1024."""
        Service.privilegedStartService(self)
        self._listen()

    def startService(self) -> None:
        """Listen, unless that was done while privileged.

        @raise ProxyError: if the address is taken or the like.
        """
        Service.startService(self)
        self._listen()

    def stopService(self) -> Deferred[None]:
        """Refuse new requests, let running sessions go on for C{drain_timeout}, then cut them.

        @return: fires when no client is connected any more and the listener is closed.
        """
        Service.stopService(self)
        return Deferred.fromCoroutine(self._drain())

    def _listen(self) -> None:
        if self._port is not None:
            return
        factory: Any = _Sessions(self._shared)
        if self._certificate is not None:
            factory = TLSMemoryBIOFactory(self._certificate, False, factory, self._reactor)
        failures: list[Failure] = []
        self._endpoint.listen(factory).addCallbacks(self._listens, failures.append)
        if failures:
            raise ProxyError(
                "listen", why_not_listening(failures[0].value), self._shared.name
            ) from None

    def _listens(self, port: IListeningPort) -> None:
        self._port = port
        address = port.getHost()
        self._listening = (address,)
        handle = getattr(port, "socket", None)
        if handle is not None and hasattr(address, "port"):
            # What is accepted inherits both.
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keepalive.apply(handle)
        let_bursts_wait(port, self.settings.listen)
        quiet_about_shortage(f"[proxy:{self.name}]", port, self._reactor.seconds)
        if isinstance(port, Port) and isinstance(port.factory, _Sessions):
            # Nothing, such as TLS, lies between the socket and the session.
            spare = SpareDescriptor(self._shared.name, self._reactor.seconds, self.counters)
            self._clients = Clients(self._watcher, port, spare)
        secure = "" if self._certificate is None else ", with TLS"
        _log.info(
            "[proxy:{name}] listens on {address}{secure}",
            name=self.name,
            address=_where(address),
            secure=secure,
        )

    async def _drain(self) -> None:
        shared = self._shared
        shared.draining = True
        if shared.sessions:
            shared.idle = Deferred()
            deadline = self._reactor.callLater(self.settings.drain_timeout, self.cut)
            await shared.idle
            if deadline.active():
                deadline.cancel()
        port, self._port = self._port, None
        self._listening = ()
        if self._clients is not None:
            self._clients.stop()
            self._clients = None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self.cut()  # who came between the last look and the closing of the port
        self._pipes.close()
        shared.log.flush()
        shared.draining = False

    def go_by(self, rules: Iterable[tuple[str, ProxyRuleSettings]]) -> None:
        """Decide by other rules from now on; streams that stand go on.

        @param rules: as for the constructor.
        """
        self._shared.go_by(Rules(rules, self.name, self._is_own))

    def cut(self) -> None:
        """End every session now."""
        for session in list(self._shared.sessions):
            session.abort("cut: the proxy shut down")

    # -- what sessions need of it ----------------------------------------------------------------

    def _make_relay(
        self,
        client: Any,
        outgoing: IOutgoing,
        ended: Callable[[str], None],
        parted: Callable[[], None],
    ) -> Relay:
        if isinstance(client, ClientSocket):
            return SpliceRelay(
                self._reactor.seconds,
                self._watcher,
                client,
                outgoing,
                self._shared.counters,
                self._pipes if self._splice else None,
                ended,
                parted,
            )
        return TransportRelay(client, outgoing, self.counters, self._reactor.seconds, ended, parted)

    def _is_own(self, address: IPAddress, port: int) -> bool:
        """Whether this process's proxies listen there, or its pages are served there."""
        places: list[tuple[str, int]] = [
            (getattr(listening, "host", "0.0.0.0"), getattr(listening, "port", -1))
            for service in (self, *self._beside)
            for listening in service._listening
        ]
        for text, taken in (*places, *self._pages()):
            if taken == port:
                host = unmapped(read_ip(text))
                if host == address or (host.is_unspecified and self._dialer.is_local(address)):
                    return True
        return False


def _where(address: Any) -> str:
    """Where it listens, for the log."""
    host = getattr(address, "host", None)
    return str(address) if host is None else str(Address(read_ip(host), address.port))


def _endpoint(reactor: Any, settings: ProxySettings) -> Any:
    try:
        return serverFromString(reactor, settings.listen)
    except (ValueError, KeyError, TypeError) as error:
        raise ProxyError("listen", f"{settings.listen!r} is no server endpoint: {error}") from None


def _checker(
    settings: ProxySettings, checker: ICredentialsChecker | None
) -> ICredentialsChecker | None:
    """The checker of logins: the one that was given, or the one that C{auth} describes."""
    if checker is None and settings.auth is not None:
        try:
            checker = makeChecker(settings.auth)
        except (StrcredException, ValueError) as error:
            raise ProxyError("auth", f"no cred plugin understands it: {error!r}") from None
    if checker is not None and not can_check(checker):
        raise ProxyError("auth", "it cannot check a name with a password")
    if checker is None and settings.require_auth:
        raise ProxyError("require_auth", "nobody can log in without auth")
    return checker


def _certificate(settings: ProxySettings, seconds: Callable[[], float]) -> ProxyCertificate | None:
    certificate, key = settings.tls_certificate, settings.tls_private_key
    if certificate is None:
        if key is not None:
            raise ProxyError("tls_private_key", "it is of no use without tls_certificate")
        return None
    try:
        return ProxyCertificate(certificate, key or certificate, seconds)
    except CertificateError as error:
        raise ProxyError("tls_certificate", str(error)) from None


def build_proxies(
    reactor: Any,
    proxies: Mapping[str, ProxySettings],
    rules: Iterable[tuple[str, ProxyRuleSettings]] = (),
    pages: OwnPages = tuple,
) -> MultiService:
    """Build all proxies of a process; each keeps off the listeners of the others.

    @param reactor: see L{ProxyService}.
    @param proxies: settings by the NAME of C{[proxy:NAME]}.
    @param rules: names and settings of all C{[proxy-rule:NAME]}, in the order of the file.
    @param pages: see L{ProxyService}.
    @return: a service whose children are L{ProxyService}s, to be found by their names.
    @raise ProxyError: the settings of one cannot be used.
    """
    together = MultiService()
    beside: list[ProxyService] = []
    rules = list(rules)
    for name, settings in proxies.items():
        try:
            service = ProxyService(reactor, name, settings, rules, beside=beside, pages=pages)
        except ProxyError as error:
            raise ProxyError(error.key, error.problem, name) from None
        beside.append(service)
        together.addService(service)
    return together
