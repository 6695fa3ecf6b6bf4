"""Who a listener's client is: its address or what a trusted proxy says, and the terms it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from twisted.logger import Logger

from kumotwist.message.queued import new_id
from kumotwist.settings.types import HostPort
from kumotwist.smtp.client_terms import ClientTerms
from kumotwist.smtp.relay import UNIX, plain_address
from kumotwist.smtp.server_auth import LoginAttempts
from kumotwist.smtp.server_connection import ServerConnection
from kumotwist.smtp.server_timer import SessionTimer
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.proxy_v1 import AnyHeaderParser
from kumotwist.wire.smtp.replies import one_line
from kumotwist.wire.smtp.server import SMTPServer
from kumotwist.wire.smtp.xclient import XClientFacts

if TYPE_CHECKING:
    from kumotwist.smtp.listener import ESMTPListenerFactory

__all__ = ["ServerArrival", "host_port"]


class ServerArrival(ServerConnection):
    """The part of a session that lies before the greeting.

    Where a PROXY header is expected nothing is said before it is there, not even the beginning of
    TLS. The terms that hold for a client are those of the address that is settled on in the end.

    @param listener: the factory, which owns what the sessions share.
    @param tls: whether the connection begins with a handshake that is none of our business.
    """

    _log = Logger()

    session: ServerSession
    _terms: ClientTerms
    _settings: ListenerSettings
    _machine: SMTPServer

    def __init__(self, listener: ESMTPListenerFactory, *, tls: bool) -> None:
        super().__init__(tls=tls)
        self._listener = listener
        self._timer = SessionTimer(listener.reactor, self._expired)
        self._preamble: AnyHeaderParser | None = None
        self._logins: LoginAttempts | None = None

    def _entered(self) -> None:
        """It is known who the client is; to be overridden."""

    def _expired(self) -> None:
        """What was waited for has not come in time; to be overridden."""

    def _arrive(self) -> None:
        """A connection has been made, and a session begun with the address it comes from."""
        peer, local = self.session.peer, self.session.local
        trust = self._terms.proxy_trust(peer.host)
        if trust is None:
            self._enter(peer, local, b"")
        elif trust:
            self._preamble = AnyHeaderParser()
            self._timer.allow(self._settings.client_timeout)
        else:
            self._drop("it is not among the trusted proxies")

    def _read_preamble(self, preamble: AnyHeaderParser, data: bytes) -> None:
        """Read a PROXY header; there is nothing to be said before it is there."""
        preamble.receive_data(data)
        try:
            header = preamble.next_event()
        except RemoteProtocolError as error:
            self._drop(str(error))
            return
        if header is NEED_DATA:
            return
        self._preamble = None
        peer, local, proxy = self.session.peer, self.session.local, None
        if header.source is not None and header.destination is not None:
            proxy = peer
            peer = host_port(header.source)
            local = host_port(header.destination)
        self._enter(peer, local, preamble.trailing_data, proxy)

    def _enter(
        self, peer: HostPort, local: HostPort, rest: bytes, proxy: HostPort | None = None
    ) -> None:
        """It is known who the client is: begin TLS if that comes first, and ask whether to greet.

        @param rest: what has arrived from the client.
        @param proxy: who said that it is the client.
        """
        listener = self._listener
        if listener.implicit_tls and not self._tls_begun:
            self._tls_begun = True
            self._begin(peer, local, proxy)
            self.transport.startTLS(listener.tls_context_factory)
            if rest:
                # The beginning of the handshake; TLS stands before us now.
                self.transport.protocol.dataReceived(rest)
        else:
            if proxy is not None:
                self._begin(peer, local, proxy)
            if rest:
                self.dataReceived(rest)
        self._entered()

    def _drop(self, reason: str) -> None:
        """End a connection that has no session: nobody knows whose it is."""
        self._preamble = None
        self._closing = True
        self._machine.stop()
        self._log.info(
            "{listener}: no session with {peer}: {reason}",
            listener=self.session.listener,
            peer=str(self.session.peer),
            reason=one_line(reason, 200),
        )
        self.transport.abortConnection()

    def _begin(self, peer: HostPort, local: HostPort, proxy: HostPort | None = None) -> None:
        """Begin a session with the client at an address, on the terms that hold for it."""
        listener = self._listener
        terms = self._terms = listener.terms(peer.host)
        self._settings = terms.settings
        self._machine = SMTPServer(
            terms.options, starttls=listener.can_start_tls, tls=self._tls_begun
        )
        self.session = ServerSession(
            session_id=new_id(),
            listener=listener.settings.name,
            hostname=terms.options.hostname,
            peer=peer,
            local=local,
            may_relay=terms.relay.may_relay(peer.host),
            proxy=proxy,
        )

    def _begin_for(self, facts: XClientFacts) -> None:
        """Begin the session anew with whom XCLIENT speaks for."""
        before = self.session
        peer, local = before.peer, before.local
        if facts.address is not None:
            peer = HostPort(plain_address(facts.address), 0)
        if facts.destination is not None:
            local = HostPort(plain_address(facts.destination), local.port)
        rest = self._machine.take_unread()
        self._begin(
            HostPort(peer.host, peer.port if facts.port is None else facts.port),
            HostPort(
                local.host,
                local.port if facts.destination_port is None else facts.destination_port,
            ),
            before.peer,
        )
        self.session = attrs.evolve(self.session, session_id=before.session_id, tls=before.tls)
        self._logins = None
        self._machine.receive_data(rest)


def host_port(address: Any) -> HostPort:
    """A transport's address, or one of a PROXY header; an IPv4-mapped one as IPv4."""
    host = getattr(address, "host", None)
    return HostPort(UNIX, 0) if host is None else HostPort(plain_address(str(host)), address.port)
