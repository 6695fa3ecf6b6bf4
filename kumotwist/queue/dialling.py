"""Dialling: from one address of a host to an SMTP session, and what the way there teaches.

What is learned of the source on the way (its proxy fails, or works again) goes to the source's
health from here; the verdict that comes back says whether the source is held now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectBindError, ConnectError, ConnectingCancelledError
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from kumotwist.egress.counters import FailureKind
from kumotwist.egress.source import kind_of_failure
from kumotwist.endpoints.addresses import address_text
from kumotwist.endpoints.errors import EgressError
from kumotwist.queue.context import IReadyQueue, SessionContext
from kumotwist.queue.login import log_in
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.targets import Target
from kumotwist.queue.tls_reporting import tls_result
from kumotwist.queue.verdicts import (
    Scope,
    Verdict,
    internal_reply,
    judge_connect,
    judge_session,
)
from kumotwist.smtp.client import ESMTPClient, SessionTLSError, SMTPSessionError
from kumotwist.smtp.session_errors import SessionUnfitError
from kumotwist.tls.client import client_tls_options
from kumotwist.tls.policy import TLSDemand
from kumotwist.tls.report import fault_result
from kumotwist.tls.resumption import SessionSlot
from kumotwist.wire.smtp.dialect import Dialect

__all__ = ["Call", "Dialler"]


class _Client(ESMTPClient):
    """A client that says when its connection is there, and when it is gone."""

    counted: Callable[[int], None] = staticmethod(lambda _: None)

    def connectionMade(self) -> None:
        """The connection is there."""
        self.counted(1)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, for whatever reason."""
        super().connectionLost(reason)
        self.counted(-1)


class _ClientFactory(Factory):
    """Builds the one protocol of one connection."""

    noisy = False

    def __init__(self, build: Any) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> ESMTPClient:
        client: ESMTPClient = self._build()
        return client


class _Way(NamedTuple):
    """How a connection goes, in the words of records."""

    source_address: str
    server: str
    protocol: str


@attrs.define(frozen=True)
class Call:
    """What came of dialling one address.

    @ivar facts: the way, for records.
    @ivar client: the session; L{None} if there is none.
    @ivar verdict: why there is none.
    @ivar again: what to demand of the same address now; L{None} to go on to the next.
    @ivar tls: what TLS came to, for reports: the result (empty for success) and words; L{None} if
        nobody has tried.
    """

    facts: AttemptFacts
    client: ESMTPClient | None = None
    verdict: Verdict | None = None
    again: TLSDemand | None = None
    tls: tuple[str, str] | None = None


class Dialler:
    """Dials the addresses of a site, one at a time, through the source of a ready queue.

    @param session_id: the delivery session's, for records.
    """

    _log = Logger()

    def __init__(self, context: SessionContext, ready: IReadyQueue, session_id: str) -> None:
        self._context = context
        self._ready = ready
        self._session_id = session_id
        self._client: ESMTPClient | None = None
        self._aborted = False
        self._fault = ""
        self._tls_offered = False
        self._connections = 0
        self._closing: list[Callable[[], None]] = []

    def when_closed(self, then: Callable[[], None]) -> None:
        """Call C{then} when no connection is left: after its QUIT one still counts for the other
        side."""
        if self._connections:
            self._closing.append(then)
        else:
            then()

    def _all_closed(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self.when_closed(lambda: waiting.callback(None))
        return waiting

    def _count(self, change: int) -> None:
        self._connections += change
        if not self._connections:
            closing, self._closing = self._closing, []
            for then in closing:
                then()

    def abort(self) -> None:
        """Drop the session that is being opened."""
        self._aborted = True
        if self._client is not None:
            self._client.abort()

    async def dial(self, target: Target, demand: TLSDemand) -> Call:
        """Dial one address once.

        @raise CancelledError: if the session was aborted meanwhile; nothing was learned then.
        """
        if self._connections:
            await self._all_closed()
        try:
            client = await self._connect(target)
        except (CancelledError, ConnectingCancelledError):
            raise CancelledError() from None
        except Exception as failure:
            return Call(
                self._context.facts(self._ready, target.address),
                verdict=self._not_connected(failure, judge_connect(failure, self.way(target))),
            )
        self._client = client
        self._fault = ""
        slot = self._context.tls_sessions.slot(
            self._ready.source.name, target.host.name, target.port, resume=demand.resume
        )
        way = self._way_taken(client)
        try:
            await client.open()
            await self._secure(client, target, demand, slot)
            await log_in(client, self._ready.path, target)
        except SMTPSessionError as failure:
            if isinstance(failure, SessionUnfitError):
                client.quit()
            else:
                client.abort()
            if self._aborted:
                raise CancelledError() from None
            facts = self._facts(target, demand, way)
            verdict = judge_session(
                failure,
                self.way(target),
                unexplained_proxy=self._unexplained_proxy(client, target, facts),
            )
            verdict = self._not_opened(client, facts, verdict)
            again = tls = None
            if failure.phase == "starttls" and not isinstance(failure, SessionUnfitError):
                again = self._after_failed_tls(demand, slot)
                if again is None or not again.attempt:
                    tls = self._failed_tls(failure)
            return Call(facts, verdict=verdict, again=again, tls=tls)
        finally:
            self._client = None
        facts = self._facts(target, demand, way, client)
        self._source_works(facts)
        self._context.counters.connections[self._ready.source.name] += 1
        tls = None
        if demand.attempt:
            tls = tls_result(demand, facts, target.host.name, self._ready.plan)
        return Call(facts, client, tls=tls)

    def _failed_tls(self, failure: SMTPSessionError) -> tuple[str, str]:
        """Why TLS did not come about, in the words of reports."""
        if not self._tls_offered:
            return "starttls-not-supported", ""
        return fault_result(self._fault), self._fault or failure.text

    def _after_failed_tls(self, demand: TLSDemand, slot: SessionSlot) -> TLSDemand | None:
        """What to demand of a host, over a new connection, with which TLS did not come about."""
        path = self._ready.path
        if slot.offered:
            slot.forget()
        elif demand.attempt and not demand.required:
            self._context.tls.handshake_failed(self._ready.plan, path)
        return demand.after_failed_handshake(
            path.opportunistic_tls_reconnect_on_failed_handshake, resumed=slot.offered
        )

    async def _connect(self, target: Target) -> ESMTPClient:
        path, source = self._ready.path, self._ready.source
        hostname = path.ehlo_domain or source.settings.ehlo_domain or self._context.hostname
        dialect = Dialect(
            pipelining=path.enable_pipelining,
            chunking=path.enable_chunking,
            lmtp=self._ready.plan.lmtp,
            reset=path.enable_rset,
        )

        def build() -> ESMTPClient:
            client = _Client(
                self._context.reactor,
                hostname=hostname,
                timeouts=path,
                peer_name=target.host.name,
                dialect=dialect,
            )
            client.counted = self._count
            return client

        endpoint = source.endpoint(
            self._context.reactor,
            target.address,
            target.port,
            path.connect_timeout,
            session_id=self._session_id,
            host_name=target.host.name,
        )
        client: Any = await endpoint.connect(_ClientFactory(build))
        assert isinstance(client, ESMTPClient)
        return client

    async def _secure(
        self, client: ESMTPClient, target: Target, demand: TLSDemand, slot: SessionSlot
    ) -> None:
        """Start TLS as demanded.

        @raise SMTPSessionError: if the demand cannot be met.
        """
        self._tls_offered = offered = client.capabilities.starttls
        if demand.attempt and offered:
            # A certificate that TLSA records vouch for has to be seen each time.
            kept = slot if demand.dane is None else None
            options = client_tls_options(
                target.host.name, verify=demand.verify, dane=demand.dane, slot=kept
            )
            try:
                await client.start_tls(options)
            except SessionTLSError as failure:
                self._fault = options.fault
                if demand.requiretls and options.fault:
                    text = f"{target} cannot prove who it is (REQUIRETLS): {options.fault}"
                    raise _unfit(text, "5.7.10") from failure
                raise
            if demand.requiretls and not client.capabilities.has("REQUIRETLS"):
                raise _unfit(f"{target} does not offer REQUIRETLS", "5.7.30")
        elif demand.requiretls:
            raise _unfit(f"{target} does not offer STARTTLS (REQUIRETLS)", "5.7.10")
        elif demand.required:
            raise SessionTLSError("starttls", f"{target} does not offer STARTTLS ({demand.reason})")

    # -- what is learned of the source -------------------------------------------------------------

    def _not_connected(self, failure: BaseException, verdict: Verdict) -> Verdict:
        """Tell the source's health why there is no connection."""
        if verdict.suspected:
            return self._suspected(verdict)
        if verdict.scope is Scope.SOURCE:
            self._failed(verdict, failure)
        elif _got_beyond_source(failure):
            self._source_works(self._context.facts(self._ready))
        return verdict

    def _not_opened(self, client: ESMTPClient, facts: AttemptFacts, verdict: Verdict) -> Verdict:
        """Tell the source's health what became of a connection that did not become a session."""
        if client.heard or facts.protocol != "haproxy":
            self._source_works(facts)
        elif verdict.suspected:
            group = self._ready.source.proxies
            now, words = self._context.reactor.seconds(), verdict.reply.content
            site = self._ready.plan.site
            if group is None or len(group.proxies) == 1:
                return self._suspected(verdict)
            if not group.suspected(facts.proxy_server, now, site, words):
                # Not one of the proxies is above suspicion.
                return self._suspected(verdict)
        return verdict

    def _suspected(self, verdict: Verdict) -> Verdict:
        """What may be the proxy's failure; where it is taken for that, the message pays nothing."""
        source, health, plan = self._ready.source, self._context.health, self._ready.plan
        news = health.usable(source.name), health.is_tried(source.name, plan.lane)
        held = health.suspected(
            source.name, plan.site, verdict.reply.content, source.suspension(None)
        )
        if not held:
            return verdict
        self._context.counters.failed(source.name, FailureKind.PROXY_UNHEALTHY, suspended=news[0])
        self._log_hold(*news, held, verdict)
        return attrs.evolve(
            verdict, scope=Scope.SOURCE, charge=False, blame="source", suspected=False
        )

    def _failed(self, verdict: Verdict, failure: BaseException) -> None:
        source, health, site = self._ready.source, self._context.health, self._ready.plan.lane
        news = health.usable(source.name), health.is_tried(source.name, site)
        # Where this machine has no more sockets, no source has: a short pause is all that helps.
        suspension = source.suspension(failure) if verdict.blame == "source" else None
        held = health.failed(source.name, verdict.reply.content, suspension)
        self._context.counters.failed(
            source.name, kind_of_failure(failure), suspended=held > 0 and news[0]
        )
        if held:
            self._log_hold(*news, held, verdict)
        else:
            self._log.info(
                "source {source} failed, and is not suspended for it yet: {reason}",
                source=source.name, reason=verdict.reply.content,
            )  # fmt: skip

    def _log_hold(self, was_usable: bool, was_tried: bool, held: float, verdict: Verdict) -> None:
        facts = {"source": self._ready.source.name, "held": held, "reason": verdict.reply.content}
        if was_usable:
            self._log.warn("source {source} is suspended for {held:.0f} s: {reason}", **facts)
        elif was_tried:
            self._log.info("source {source} still fails, {held:.0f} s to go: {reason}", **facts)

    def _source_works(self, facts: AttemptFacts) -> None:
        source = self._ready.source
        if source.proxies is not None and len(source.proxies.proxies) > 1:
            source.proxies.succeeded(facts.proxy_server)
        if self._context.health.succeeded(source.name):
            self._log.info("source {source} works again", source=source.name)
            self._ready.source_works()

    def _login_unused(self, server: str) -> None:
        source = self._ready.source
        if source.proxies is not None and source.proxies.asked_no_login(server):
            self._log.warn(
                "source {source}: the proxy {server} asks for no login; socks5_proxy_username and "
                "its password are not used", source=source.name, server=server,
            )  # fmt: skip

    # -- words ------------------------------------------------------------------------------------

    def _unexplained_proxy(self, client: ESMTPClient, target: Target, facts: AttemptFacts) -> str:
        """Name a proxy beyond which nothing was heard and which cannot say why."""
        if client.heard or facts.protocol != "haproxy":
            return ""
        source = self._ready.source
        address = source.egress_address_for(target.address) or "its configured source"
        return f"haproxy {facts.proxy_server} (source {address}, destination {target})"

    def way(self, target: Target | str) -> str:
        """A destination and the way to it, for error texts."""
        source = self._ready.source
        if not source.protocol:
            return f"{target} from source {source.name}"
        return f"{target} via {source.through} from source {source.name}"

    def _way_taken(self, client: ESMTPClient) -> _Way:
        """Where a connection leads along, which can be told only while it stands."""
        transport: Any = client.transport
        get_proxy = getattr(transport, "getProxy", None)
        if get_proxy is None:
            source = self._ready.source
            return _Way(address_text(transport.getHost()), source.server, source.protocol)
        hop = get_proxy()
        if hop.login_unused:
            self._login_unused(hop.server)
        return _Way(hop.source_address, hop.server, hop.protocol)

    def _facts(
        self, target: Target, demand: TLSDemand, way: _Way, client: ESMTPClient | None = None
    ) -> AttemptFacts:
        """The facts of a connection for records.

        @param client: the session, if it came to one.
        """
        ready = self._ready
        return AttemptFacts(
            pool=ready.pool,
            source=ready.source.name,
            site=ready.plan.site,
            host=target.host.name,
            peer=str(target.address),
            source_address=way.source_address,
            proxy_server=way.server,
            protocol=way.protocol,
            session_id=self._session_id,
            delivery_protocol="LMTP" if ready.plan.lmtp else "ESMTP",
            tls=None if client is None else client.tls,
            tls_policy=demand.reason,
            dsn=client is not None and client.capabilities.dsn,
        )


def _unfit(text: str, enhanced: str) -> SessionUnfitError:
    """RFC 8689, 4.2.1: the next host is due."""
    return SessionUnfitError("starttls", text, reply=internal_reply(550, enhanced, text))


def _got_beyond_source(failure: BaseException) -> bool:
    """Whether a connection failed beyond the source, which has thereby been seen to work."""
    if isinstance(failure, EgressError):
        return failure.blames == "destination"
    return isinstance(failure, ConnectError) and not isinstance(failure, ConnectBindError)
