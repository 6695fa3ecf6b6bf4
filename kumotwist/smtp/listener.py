"""A listener for ESMTP: what its sessions share, from the first connection to the shutdown."""

from __future__ import annotations

import functools
import ipaddress
import socket
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import makeChecker
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from kumotwist.interfaces import IReception
from kumotwist.smtp.client_terms import ClientTerms
from kumotwist.smtp.relay import UNIX, RelayControl
from kumotwist.smtp.server_auth import Authenticator
from kumotwist.smtp.server_budget import ReceptionBudget
from kumotwist.smtp.server_protocol import ESMTPServerProtocol
from kumotwist.smtp.server_replies import SHUTTING_DOWN, TOO_MANY_CONNECTIONS
from kumotwist.smtp.settings import LIVE_KEYS, ListenerSettings
from kumotwist.wire.smtp.replies import Reply

__all__ = ["ESMTPListenerFactory"]


@implementer(IProtocolFactory)
class ESMTPListenerFactory:
    """Makes the sessions of one listener, which may begin with TLS (RFC 8314, 3.3).

    @param reactor: tells the time.
    @param settings: the listener's section.
    @param reception: decides, and takes the messages.
    @param tls_context_factory: makes the OpenSSL contexts (see L{kumotwist.tls.server}); without
        one there is no TLS.
    @param node_hostname: the listener's name where the settings have none; by default the
        machine's.
    @param checker: who may log in; by default what C{settings.auth} says.
    @ivar sessions: the connections that are open now.
    @ivar connected: how many there have been.
    @raise ValueError: if the settings want implicit TLS and there is no context factory.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        settings: ListenerSettings,
        reception: IReception,
        tls_context_factory: Any = None,
        node_hostname: str | None = None,
        checker: ICredentialsChecker | None = None,
    ) -> None:
        implicit = settings.tls == "implicit"
        if implicit and tls_context_factory is None:
            raise ValueError("implicit TLS needs a TLS context factory")
        self.reactor = reactor
        self.settings = settings
        self.reception = reception
        self.tls_context_factory = tls_context_factory
        if checker is None and settings.auth is not None:
            checker = makeChecker(settings.auth)
        self.authenticator = None if checker is None else Authenticator(checker)
        self.can_start_tls = settings.tls == "starttls" and tls_context_factory is not None
        self.budget = ReceptionBudget(settings.max_octets_in_reception)
        self._node_hostname = node_hostname or socket.getfqdn()
        # Most sessions come from few clients.
        self.terms = functools.lru_cache(maxsize=1024)(self._find_terms)
        self.sessions: set[ESMTPServerProtocol] = set()
        self.connected = 0
        self._draining = False
        self._full = False
        self._gone: list[Deferred[None]] = []
        self._tls_wrapper: TLSMemoryBIOFactory | None = None
        self.implicit_tls = implicit
        # A PROXY header comes before the handshake: then sessions begin TLS themselves.
        proxied = settings.trusted_proxies or any(
            rule.values.get("require_proxy_protocol") for rule in settings.peers
        )
        if implicit and not proxied:
            sessions = Factory.forProtocol(self._build_session)
            sessions.noisy = False
            self._tls_wrapper = TLSMemoryBIOFactory(
                tls_context_factory, False, sessions, clock=reactor
            )
            self._tls_wrapper.noisy = False

    def go_by(self, settings: ListenerSettings) -> None:
        """Give clients that connect from now on other terms; the socket, TLS and logins stay.

        @param settings: of these L{LIVE_KEYS} are applied, and C{peers} where TLS does not begin
            before it is known who the client is.
        """
        names = LIVE_KEYS if self.implicit_tls else LIVE_KEYS | {"peers"}
        values = {name: getattr(settings, name) for name in names}
        self.settings = attrs.evolve(self.settings, **values)
        self.terms.cache_clear()

    def doStart(self) -> None:
        """A port begins to listen."""

    def doStop(self) -> None:
        """A port listens no more; the sessions go on."""

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:
        """Make the protocol of a new connection."""
        if self._tls_wrapper is not None:
            return self._tls_wrapper.buildProtocol(addr)
        return self._build_session()

    def _find_terms(self, host: str) -> ClientTerms:
        """What holds for the client at an address, as L{plain_address} makes it, or L{UNIX}."""
        settings = self.settings
        if settings.peers:
            try:
                address = ipaddress.ip_address("127.0.0.1" if host == UNIX else host)
            except ValueError:
                pass  # some other kind of transport: no network's
            else:
                settings = settings.for_client(address)
        mechanisms = () if self.authenticator is None else self.authenticator.mechanisms
        return ClientTerms(
            settings,
            settings.server_options(self._node_hostname, mechanisms),
            RelayControl(settings.relay_hosts, settings.relay_to),
        )

    def _build_session(self) -> ESMTPServerProtocol:
        return ESMTPServerProtocol(self, tls=self._tls_wrapper is not None)

    def admit(self, session: ESMTPServerProtocol) -> Reply | None:
        """A session begins.

        @return: the reply that it must be refused with, if it must.
        """
        self.sessions.add(session)
        self.connected += 1
        if self._draining:
            return SHUTTING_DOWN
        if len(self.sessions) <= self.settings.max_connections:
            return None
        if not self._full:
            # Said once: whoever opens thousands of connections shall not fill the log as well.
            self._full = True
            self._log.warn(
                "{listener}: more than {limit} connections, refusing further ones",
                listener=self.settings.name,
                limit=self.settings.max_connections,
            )
        return TOO_MANY_CONNECTIONS

    def forget(self, session: ESMTPServerProtocol) -> None:
        """A session is over."""
        self.sessions.discard(session)
        if self._full and len(self.sessions) < self.settings.max_connections:
            self._full = False
            self._log.info("{listener}: connections again", listener=self.settings.name)
        if not self.sessions:
            gone, self._gone = self._gone, []
            for waiting in gone:
                waiting.callback(None)

    def stop_accepting(self, timeout: float = 30.0) -> Deferred[None]:
        """Send the clients away: the idle ones now, the others after the message they are sending.

        The port is for the caller to close.

        @param timeout: seconds after which connections are cut, whatever they are doing.
        @return: fires when there is no session left.
        """
        self._draining = True
        done: Deferred[None] = Deferred()
        for session in list(self.sessions):
            session.drain()
        if not self.sessions:
            done.callback(None)
            return done
        self._gone.append(done)
        cut = self.reactor.callLater(timeout, self.cut)

        def stop_waiting(result: None) -> None:
            if cut.active():
                cut.cancel()

        return done.addCallback(stop_waiting)

    def cut(self) -> None:
        """End every session now, whatever it is doing."""
        if not self.sessions:
            return
        self._log.warn(
            "{listener}: cutting {count} connections",
            listener=self.settings.name,
            count=len(self.sessions),
        )
        for session in list(self.sessions):
            session.abort()
