"""A delivery session: one connection's life, from the choice of a host to the last QUIT."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import Attribute, Interface

from kumotwist.egress.health import SourceHealth
from kumotwist.egress.settings import PathSettings
from kumotwist.egress.source import Source
from kumotwist.interfaces import IResolver, ITrace
from kumotwist.message.header import is_8bit
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.fate import Fates
from kumotwist.queue.plan import Plan
from kumotwist.queue.recorder import AttemptFacts, describe
from kumotwist.queue.targets import Target, TargetWalk
from kumotwist.queue.verdicts import (
    Scope,
    Verdict,
    internal_reply,
    judge_connect,
    judge_result,
    judge_session,
)
from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SessionTLSError,
    SMTPSessionError,
    TransactionOutcome,
)
from kumotwist.tls.client import client_tls_options
from kumotwist.tls.policy import TLSDemand, tls_demand

__all__ = ["DeliverySession", "IReadyQueue", "SessionContext"]


class IReadyQueue(Interface):
    """What a session knows of the queue that it works for."""

    source: Source = Attribute("The way out.")
    plan: Plan = Attribute("The hosts.")
    path: PathSettings = Attribute("How they are spoken to.")
    pool: str = Attribute("The pool that chose the source.")

    def take() -> list[QueuedMessage]:
        """The messages for the next transaction; empty if there are none."""

    def put_back(messages: list[QueuedMessage]) -> None:
        """Return messages that were not tried."""

    def became_idle(session: DeliverySession) -> None:
        """The session waits to be woken."""

    def no_longer_idle(session: DeliverySession) -> None:
        """The session stopped waiting."""

    def connected() -> None:
        """A host was reached."""

    def unreachable(messages: list[QueuedMessage], verdict: Verdict) -> None:
        """No host was reached; the messages are those that the session had taken."""

    def source_failed(messages: list[QueuedMessage]) -> None:
        """The source is held; the messages are those that the session had taken."""

    def unsuitable(messages: list[QueuedMessage]) -> None:
        """The source has no address of a family that the site has."""

    def ended(session: DeliverySession) -> None:
        """The session is over."""


@attrs.define
class SessionContext:
    """What every session works with.

    @ivar hostname: this node's name, where neither path nor source has an C{ehlo_domain}.
    """

    reactor: Any
    resolver: IResolver
    health: SourceHealth
    fates: Fates
    bodies: Bodies
    trace: ITrace
    hostname: str

    def facts(self, ready: IReadyQueue) -> AttemptFacts:
        """Facts of an attempt that reached no host."""
        source = ready.source
        return AttemptFacts(
            pool=ready.pool, source=source.name, site=ready.plan.site,
            proxy_server=source.server, protocol=source.protocol,
        )  # fmt: skip


class _ClientFactory(Factory):
    """Builds the one protocol of one connection."""

    noisy = False

    def __init__(self, build: Any) -> None:
        self._build = build

    def buildProtocol(self, addr: Any) -> ESMTPClient:
        client: ESMTPClient = self._build()
        return client


class DeliverySession:
    """One connection (or the search for one) on behalf of a ready queue.

    It takes messages, walks the plan until a host accepts a session, sends, waits for more within
    C{idle_timeout}, and ends. Failures are judged by L{kumotwist.queue.verdicts}.
    """

    _log = Logger()

    def __init__(self, context: SessionContext, ready: IReadyQueue) -> None:
        self.id = new_id(context.reactor.seconds())
        self._context = context
        self._ready = ready
        self._walk = TargetWalk(ready.plan, ready.source, ready.path, context.resolver)
        self._client: ESMTPClient | None = None
        self._facts = context.facts(ready)
        self._wakeup: Deferred[None] | None = None
        self._running: Deferred[None] | None = None

    def start(self) -> None:
        """Begin; C{ended} of the ready queue says when it is over."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._failed_unexpectedly)
        self._running.addCallback(lambda _: self._ready.ended(self))

    def wake(self) -> None:
        """Look for messages again (or, if there are none, end)."""
        if self._wakeup is not None:
            wakeup, self._wakeup = self._wakeup, None
            wakeup.callback(None)

    def abort(self) -> None:
        """End now; messages under way stay in the spool as they are."""
        if self._client is not None:
            self._client.abort()
        if self._running is not None:
            self._running.cancel()

    def _failed_unexpectedly(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("delivery session {id} failed", failure, id=self.id)

    # -- the session ------------------------------------------------------------------------------

    async def _run(self) -> None:
        batch = self._ready.take()
        try:
            while batch:
                client = await self._open(batch)
                if client is None:
                    return
                batch = await self._deliver(client, batch)
        except Exception as failure:
            # Unknown means temporary: the messages at hand wait, the defect is logged.
            verdict = judge_session(failure, self._way(None))
            for message in batch:
                self._context.fates.failed(message, verdict, self._facts)
            raise

    async def _open(self, batch: list[QueuedMessage]) -> ESMTPClient | None:
        """Walk the plan until a host accepts a session; settle the batch if none does."""
        while (target := await self._walk.next()) is not None:
            demand: TLSDemand | None = tls_demand(self._ready.path.enable_tls)
            while demand is not None:
                self._trace(batch, "connecting", target=str(target))
                client, verdict, demand = await self._try(target, demand)
                if client is not None:
                    self._ready.connected()
                    self._trace(batch, "connected", target=str(target), **describe(self._facts))
                    return client
                assert verdict is not None
                self._trace(batch, "failed", target=str(target), reply=str(verdict.reply))
                if verdict.scope is Scope.SOURCE:
                    self._source_failed(batch, verdict)
                    return None
                self._walk.failed(verdict)
        if self._walk.unsuitable:
            self._ready.unsuitable(batch)
        else:
            self._ready.unreachable(batch, self._walk.summary())
        return None

    async def _try(
        self, target: Target, demand: TLSDemand
    ) -> tuple[ESMTPClient | None, Verdict | None, TLSDemand | None]:
        """Try one address once.

        @return: the session, or the verdict and what to demand of the same address now.
        """
        way = self._way(target)
        try:
            client = await self._connect(target)
        except Exception as failure:
            return None, judge_connect(failure, way), None
        self._client = client
        self._facts = self._describe(client, target)
        try:
            await client.open()
            await self._secure(client, target, demand)
        except SMTPSessionError as failure:
            client.abort()
            self._client = None
            verdict = judge_session(
                failure, way, unexplained_proxy=self._unexplained_proxy(client, target)
            )
            self._note_health(client, verdict)
            again = None
            if failure.phase == "starttls":
                path = self._ready.path
                again = demand.after_failed_handshake(
                    path.opportunistic_tls_reconnect_on_failed_handshake
                )
            return None, verdict, again
        self._note_health(client, None)
        self._facts = attrs.evolve(self._facts, tls=client.tls)
        return client, None, None

    async def _connect(self, target: Target) -> ESMTPClient:
        path, source = self._ready.path, self._ready.source
        hostname = path.ehlo_domain or source.settings.ehlo_domain or self._context.hostname
        factory = _ClientFactory(
            lambda: ESMTPClient(
                self._context.reactor,
                hostname=hostname,
                timeouts=path,
                peer_name=target.host.name,
            )
        )
        endpoint = source.endpoint(
            self._context.reactor, target.address, target.port, path.connect_timeout
        )
        client: Any = await endpoint.connect(factory)
        assert isinstance(client, ESMTPClient)
        return client

    async def _secure(self, client: ESMTPClient, target: Target, demand: TLSDemand) -> None:
        """Start TLS as demanded.

        @raise SMTPSessionError: if the demand cannot be met.
        """
        offered = client.capabilities.starttls
        if demand.attempt and offered:
            await client.start_tls(client_tls_options(target.host.name, verify=demand.verify))
        elif demand.required:
            raise SessionTLSError("starttls", f"{target} does not offer STARTTLS ({demand.reason})")

    # -- transactions -----------------------------------------------------------------------------

    async def _deliver(
        self, client: ESMTPClient, batch: list[QueuedMessage]
    ) -> list[QueuedMessage]:
        """Send one batch after another over a session.

        @return: messages to try with the next host; empty when the session came to its end.
        """
        sent = 0
        rest: list[QueuedMessage] = []
        while batch:
            batch = await self._load(batch)
            if batch:
                self._trace(batch, "sending")
                reused = client.messages_sent > 0
                try:
                    outcome = await client.send(self._transaction(batch))
                except SMTPSessionError as failure:
                    rest = self._lost(batch, failure, reused)
                    break
                rest = self._answered(batch, outcome, reused)
                sent += 1
                if not outcome.session_usable or rest:
                    break
            if sent >= self._ready.path.max_deliveries_per_connection:
                break
            batch = self._ready.take() or await self._wait(client)
        client.quit()
        self._client = None
        return rest

    def _answered(
        self, batch: list[QueuedMessage], outcome: TransactionOutcome, reused: bool
    ) -> list[QueuedMessage]:
        """Settle what a transaction decided.

        @return: messages to try with the next host.
        """
        turned_away = []
        for message, result in zip(batch, outcome.results, strict=True):
            if result.delivered:
                self._context.fates.delivered(message, result.reply, self._facts)
                continue
            verdict = judge_result(result, reused=reused)
            if verdict.scope is Scope.HOST:
                turned_away.append((message, verdict))
            else:
                self._context.fates.failed(message, verdict, self._facts)
        return self._turned_away(turned_away)

    def _lost(
        self, batch: list[QueuedMessage], failure: SMTPSessionError, reused: bool
    ) -> list[QueuedMessage]:
        """Settle what can be settled of a transaction whose session ended.

        @return: messages to try with the next host.
        """
        verdict = judge_session(failure, self._way(None), reused=reused)
        results = failure.outcome.results if failure.outcome is not None else ()
        turned_away = []
        for message, result in zip_longest(batch, results):
            if result is not None and result.permanent:
                self._context.fates.failed(message, judge_result(result), self._facts)
            elif verdict.scope is Scope.HOST:
                turned_away.append((message, verdict))
            else:
                self._context.fates.failed(message, verdict, self._facts)
        return self._turned_away(turned_away)

    def _turned_away(self, messages: list[tuple[QueuedMessage, Verdict]]) -> list[QueuedMessage]:
        """Messages that this host did not take this time.

        Where the host was about to end the session anyway they go back, uncharged; else the next
        host is tried, if there is one.

        @return: messages to try with the next host.
        """
        uncharged = [message for message, verdict in messages if not verdict.charge]
        self._ready.put_back(uncharged)
        charged = [(message, verdict) for message, verdict in messages if verdict.charge]
        if charged and self._walk.more:
            self._walk.failed(charged[0][1])
            return [message for message, _ in charged]
        for message, verdict in charged:
            self._context.fates.failed(message, verdict, self._facts)
        return []

    async def _load(self, batch: list[QueuedMessage]) -> list[QueuedMessage]:
        """Make sure that the batch's body is in memory; drop from it what cannot be read."""
        first = batch[0]
        if first.body is not None:
            return batch
        try:
            first.body = await self._context.bodies.load(first)
        except Exception as failure:
            self._log.error(
                "cannot read the body of {id}: {reason}", id=first.id, reason=str(failure)
            )
            reply = internal_reply(451, "4.3.0", f"the spool cannot give the body: {failure}")
            verdict = Verdict(Scope.MESSAGE, reply, blame="nobody")
            for message in batch:
                self._context.fates.failed(message, verdict, self._facts)
            return []
        return batch

    def _transaction(self, batch: list[QueuedMessage]) -> OutgoingTransaction:
        first = batch[0]
        assert first.body is not None
        return OutgoingTransaction(
            sender=first.sender,
            recipients=tuple(message.recipient for message in batch),
            body=first.body,
            body_8bit=is_8bit(first.body),
            smtputf8=bool(first.meta.get("smtputf8")),
        )

    async def _wait(self, client: ESMTPClient) -> list[QueuedMessage]:
        """Wait for messages, until the client's C{idle_timeout} or the server ends it."""
        wakeup: Deferred[None] = Deferred()
        self._wakeup = wakeup
        client.on_idle_close = self.wake
        self._ready.became_idle(self)
        try:
            await wakeup
        finally:
            client.on_idle_close = None
            self._ready.no_longer_idle(self)
        return self._ready.take() if client.usable else []

    # -- health and words -------------------------------------------------------------------------

    def _source_failed(self, batch: list[QueuedMessage], verdict: Verdict) -> None:
        source = self._ready.source.name
        held = self._context.health.failed(source, verdict.reply.content)
        self._log.warn(
            "source {source} is held for {held:.0f} s: {reason}",
            source=source, held=held, reason=verdict.reply.content,
        )  # fmt: skip
        for message in batch:
            self._context.fates.held_up(message, verdict, self._facts)
        self._ready.source_failed(batch)

    def _note_health(self, client: ESMTPClient, verdict: Verdict | None) -> None:
        """Tell the source's health what a session that was connected says of it."""
        source = self._ready.source.name
        if verdict is not None and verdict.suspected:
            held = self._context.health.suspected(
                source, self._ready.plan.site, verdict.reply.content
            )
            if held:
                self._log.warn(
                    "source {source} is held for {held:.0f} s: {reason}",
                    source=source, held=held, reason=verdict.reply.content,
                )  # fmt: skip
        elif (verdict is None or client.heard) and self._context.health.succeeded(source):
            self._log.info("source {source} works again", source=source)

    def _unexplained_proxy(self, client: ESMTPClient, target: Target) -> str:
        """Name a proxy beyond which nothing was heard and which cannot say why."""
        if client.heard or self._facts.protocol != "haproxy":
            return ""
        address = self._ready.source.egress_address or "its configured source"
        return f"haproxy {self._facts.proxy_server} (source {address}, destination {target})"

    def _way(self, target: Target | None) -> str:
        """The destination and the way to it, for error texts."""
        where = self._facts.host if target is None else str(target)
        source = self._ready.source
        if not source.protocol:
            return f"{where} from source {source.name}"
        return f"{where} via {source.protocol} {source.server} from source {source.name}"

    def _describe(self, client: ESMTPClient, target: Target) -> AttemptFacts:
        """The facts of this connection for records."""
        facts = attrs.evolve(
            self._facts,
            session_id=self.id,
            host=target.host.name,
            peer=str(target.address),
            tls=None,
        )
        transport: Any = client.transport
        get_proxy = getattr(transport, "getProxy", None)
        if get_proxy is not None:
            hop = get_proxy()
            return attrs.evolve(
                facts,
                source_address=hop.source_address,
                proxy_server=hop.server,
                protocol=hop.protocol,
            )
        local = transport.getHost()
        shown = f"[{local.host}]" if ":" in local.host else local.host
        return attrs.evolve(facts, source_address=f"{shown}:{local.port}")

    def _trace(self, batch: list[QueuedMessage], event: str, **facts: Any) -> None:
        if self._context.trace.watched:
            facts = {**describe(self._facts), **facts}
            self._context.trace.emit(event, [message.id for message in batch], **facts)
