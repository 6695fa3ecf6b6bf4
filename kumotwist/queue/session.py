"""A delivery session: one connection's life, from the choice of a host to the last QUIT."""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.affinity import remember
from kumotwist.queue.context import IReadyQueue, SessionContext
from kumotwist.queue.dialling import Dialler
from kumotwist.queue.outgoing import (
    most_transactions,
    outgoing,
    outgoing_at_once,
    within_limits,
)
from kumotwist.queue.reconnecting import Reconnection
from kumotwist.queue.recorder import describe
from kumotwist.queue.targets import TargetWalk
from kumotwist.queue.tls_reporting import SessionReport
from kumotwist.queue.verdicts import (
    Scope,
    Verdict,
    internal_reply,
    judge_refusal,
    judge_result,
    judge_session,
)
from kumotwist.smtp.client import (
    ESMTPClient,
    OutgoingTransaction,
    SMTPSessionError,
    TransactionOutcome,
)
from kumotwist.tls.policy import TLSDemand

__all__ = ["DeliverySession"]

#: How often one address is called at most, one call after another: with a TLS session that was
#: kept, with a full handshake, in the clear.
MOST_CALLS = 3


class DeliverySession:
    """One connection (or the search for one) on behalf of a ready queue.

    It takes messages, walks the plan until a host accepts a session, sends, waits for more within
    C{idle_timeout}, and ends. Failures are judged by L{kumotwist.queue.verdicts}.

    @ivar when_closed: L{Dialler.when_closed}: that may be a little after the end.
    """

    _log = Logger()

    def __init__(self, context: SessionContext, ready: IReadyQueue) -> None:
        self.id = new_id(context.reactor.seconds())
        self._context = context
        self._ready = ready
        self._walk = TargetWalk(
            ready.plan, ready.source, ready.path, context.resolver, context.is_ours, context.chance
        )
        self._reconnection = Reconnection(ready.path, self._walk)
        self._cut_off = self._has_dialled = False
        self._dialler = Dialler(context, ready, self.id)
        self.when_closed = self._dialler.when_closed
        self._report = SessionReport(context.count_tls, ready.plan)
        self._client: ESMTPClient | None = None
        self._facts = context.facts(ready)
        # Fires when the connection that stands has come to its end.
        self._over: Deferred[list[QueuedMessage]] | None = None
        self._sent = self._at_most = 0
        self._waiting = self._carrying = self._aborted = False
        self._batch: list[QueuedMessage] = []
        self._running: Deferred[None] | None = None
        # Messages that were taken and have no fate yet, by their ids.
        self._at_hand: dict[str, QueuedMessage] = {}

    def start(self) -> None:
        """Begin; C{ended} of the ready queue says when it is over."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addBoth(self._ended)

    def wake(self) -> None:
        """Look for messages again (or, if there are none, end)."""
        if self._waiting and self._client is not None:
            self._stop_waiting(self._take() if self._client.usable else [])

    def stop(self) -> None:
        """The node ends: finish a transaction that is under way, and begin nothing."""
        if self._client is None:
            self.abort()
        else:
            self.wake()

    def abort(self) -> None:
        """End now; messages under way stay in the spool as they are."""
        self._aborted = True
        self._dialler.abort()
        if self._client is not None:
            self._client.abort()
        if self._running is not None:
            self._running.cancel()

    def _ended(self, result: Failure | None) -> None:
        if isinstance(result, Failure):
            self._failed_unexpectedly(result)
        self._ready.ended(self)

    def _failed_unexpectedly(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("delivery session {id} failed", failure, id=self.id)

    async def _run(self) -> None:
        batch = self._take()
        try:
            while batch and not self._aborted:
                client = await self._open(batch)
                if client is None:
                    return
                batch = self._go_on(await self._deliver(client, batch))
        except Exception as failure:
            if self._aborted:
                return
            # Unknown means temporary: the messages at hand wait, the defect is logged.
            verdict = judge_session(failure, self._dialler.way(self._facts.host))
            for message in list(self._at_hand.values()):
                self._failed(message, verdict)
            raise

    def _go_on(self, rest: list[QueuedMessage]) -> list[QueuedMessage]:
        """After a connection: the messages for the next one of this session, if there is one."""
        if not (self._cut_off and self._reconnection.go_on(optional=not rest)):
            return rest
        self._cut_off = False
        return rest or self._take()

    def _take(self) -> list[QueuedMessage]:
        """The next messages; what was taken before has its fate."""
        batch = self._ready.take()
        self._at_hand = {message.id: message for message in batch} if batch else {}
        return batch

    async def _open(self, batch: list[QueuedMessage]) -> ESMTPClient | None:
        """Walk the plan until a host accepts a session; settle the batch if none does."""
        refusal: Verdict | None = None
        tls_policy = ""
        while (target := await self._walk.next()) is not None:
            demand: TLSDemand | None = await self._context.tls.demand(
                self._ready.plan, self._ready.path, target
            )
            if demand is not None and demand.refusal:
                verdict = judge_refusal(demand, target.host.name)
                self._trace(batch, "failed", target=target, reply=verdict.reply)
                self._report.refused(batch, target, demand)
                tls_policy = demand.reason
                self._walk.failed(verdict)
                continue
            for _ in range(MOST_CALLS):
                if demand is None:
                    break
                # The ready queue has counted the first connection; further ones ask.
                if self._has_dialled and (turn := self._ready.next_connection()) is not None:
                    await turn
                self._has_dialled = True
                self._trace(batch, "connecting", target=target)
                call = await self._dialler.dial(target, demand)
                if call.tls is not None:
                    stands = call.client is not None
                    tls_policy = demand.reason
                    self._report.dialled(
                        batch, target, demand, call.facts, *call.tls, stands=stands
                    )
                self._facts, demand = call.facts, call.again
                if call.client is not None:
                    self._client = call.client
                    self._ready.connected()
                    self._reconnection.connected(target)
                    self._trace(batch, "connected", target=target)
                    return call.client
                assert call.verdict is not None
                verdict = call.verdict
                self._trace(batch, "failed", target=target, reply=verdict.reply)
                self._remember(batch, verdict)
                if verdict.scope is not Scope.SOURCE:
                    self._walk.failed(verdict)
                elif verdict.suspected:
                    refusal = verdict
                    self._walk.failed(verdict)
                else:
                    self._source_failed(batch, verdict)
                    return None
        if self._walk.unsuitable:
            self._ready.unsuitable(batch)
        elif refusal is not None and self._walk.only_refused:
            self._held_up(batch, refusal)
            self._ready.source_refused(batch, refusal)
        elif self._reconnection.optional:
            self._ready.put_back(batch)
        else:
            self._ready.unreachable(batch, self._walk.summary(), tls_policy)
        return None

    def _source_failed(self, batch: list[QueuedMessage], verdict: Verdict) -> None:
        """The way out is broken; whether it is held for that, its health has decided."""
        self._held_up(batch, verdict)
        if self._context.health.usable(self._ready.source.name):
            self._ready.source_faltered(batch, verdict)
        else:
            self._ready.source_held(batch)

    def _held_up(self, batch: list[QueuedMessage], verdict: Verdict) -> None:
        for message in batch:
            self._context.fates.held_up(message, verdict, self._facts)

    # -- transactions -----------------------------------------------------------------------------
    #
    # What happens for each message is told by plain calls; only the end of the connection is a
    # Deferred.

    def _deliver(
        self, client: ESMTPClient, batch: list[QueuedMessage]
    ) -> Deferred[list[QueuedMessage]]:
        """Send one batch after another over a session.

        @return: messages to try with the next host; empty when the session came to its end.
        """
        self._sent, self._at_most = 0, most_transactions(client.capabilities, self._ready.path)
        over: Deferred[list[QueuedMessage]] = Deferred(self._cut)
        self._over = over
        self._carry_on(batch)
        return over

    def _cut(self, _: Deferred[list[QueuedMessage]]) -> None:
        self._over = None  # whatever comes now comes too late

    def _carry_on(self, batch: list[QueuedMessage]) -> None:
        """Send a batch, and those that follow while nothing has to be waited for."""
        self._batch = batch
        if self._carrying:
            return  # the loop below is at work further up
        self._carrying = True
        try:
            while self._batch:
                batch, self._batch = self._batch, []
                self._begin(batch)
        except Exception:
            self._broken(Failure())
        finally:
            self._carrying = False

    def _begin(self, batch: list[QueuedMessage]) -> None:
        client = self._client
        assert client is not None
        if len(batch) > 1:
            batch = self._limit(client, batch)
        transaction = None
        if batch[0].body is not None:
            transaction = outgoing_at_once(
                batch, client.capabilities, chunking=self._ready.path.enable_chunking
            )
        if transaction is None:
            preparing = Deferred.fromCoroutine(self._prepare(client, batch))
            preparing.addErrback(self._broken)
        else:
            self._transmit(client, batch, transaction)

    async def _prepare(self, client: ESMTPClient, batch: list[QueuedMessage]) -> None:
        """Send a batch whose body has to be read first, or takes its time."""
        if batch[0].body is None and not await self._load(batch):
            self._next_batch()
            return
        transaction = await outgoing(
            batch,
            client.capabilities,
            self._context.in_thread,
            chunking=self._ready.path.enable_chunking,
        )
        if self._over is not None:
            self._transmit(client, batch, transaction)

    def _transmit(
        self, client: ESMTPClient, batch: list[QueuedMessage], transaction: OutgoingTransaction
    ) -> None:
        if self._context.trace.watched:
            self._trace(batch, "sending")
        told = partial(self._transmitted, batch, client.messages_sent > 0)
        client.transmit(transaction, told, last=self._sent + 1 >= self._at_most)

    def _transmitted(
        self, batch: list[QueuedMessage], reused: bool, outcome: TransactionOutcome | Failure
    ) -> None:
        """A transaction is over, or the session is."""
        try:
            if not isinstance(outcome, Failure):
                rest = self._answered(batch, outcome, reused)
                self._sent += 1
                self._cut_off = not outcome.session_usable
            elif isinstance(outcome.value, SMTPSessionError):
                self._cut_off = True
                rest = self._lost(batch, outcome.value, reused)
            else:
                outcome.raiseException()
            if self._cut_off or rest:
                self._end_connection(rest)
            else:
                self._next_batch()
        except Exception:
            self._broken(Failure())

    def _next_batch(self) -> None:
        """Go on with the next messages; wait for some, until the client's C{idle_timeout} or the
        server ends it."""
        client = self._client
        if self._over is None or client is None:
            return
        if self._sent >= self._at_most or self._ready.shall_end(self):
            self._end_connection([])
        elif batch := self._take():
            self._report.carries(batch)
            self._carry_on(batch)
        else:
            self._waiting = True
            client.on_idle_close = self.wake
            self._ready.became_idle(self)

    def offer(self, batch: list[QueuedMessage]) -> bool:
        """Give the session messages while it waits for some.

        @return: false if it cannot take any more; it ends then.
        """
        client = self._client
        self._waiting = False
        if client is None or not client.usable:
            self._stop_waiting([])
            return False
        client.on_idle_close = None
        self._at_hand = {}
        for message in batch:
            self._at_hand[message.id] = message
        self._report.carries(batch)
        self._carry_on(batch)
        return True

    def _stop_waiting(self, batch: list[QueuedMessage]) -> None:
        self._waiting = False
        self._ready.no_longer_idle(self)
        if self._client is not None:
            self._client.on_idle_close = None
        if batch:
            self._report.carries(batch)
            self._carry_on(batch)
        else:
            self._end_connection([])

    def _end_connection(self, rest: list[QueuedMessage]) -> None:
        """Say goodbye, and leave the messages that were not taken to the next host."""
        client, self._client = self._client, None
        if client is not None:
            client.quit()
        over, self._over = self._over, None
        if over is not None:
            over.callback(rest)

    def _broken(self, failure: Failure) -> None:
        """Something failed that must not: the session ends with it."""
        over, self._over = self._over, None
        if over is not None:
            over.errback(failure)
        elif not self._aborted:
            self._failed_unexpectedly(failure)

    def _limit(self, client: ESMTPClient, batch: list[QueuedMessage]) -> list[QueuedMessage]:
        """Keep what one transaction with the server may carry; the rest goes back."""
        batch, surplus = within_limits(batch, client.capabilities)
        for message in surplus:
            del self._at_hand[message.id]
        self._ready.put_back(surplus)
        return batch

    def _answered(
        self, batch: list[QueuedMessage], outcome: TransactionOutcome, reused: bool
    ) -> list[QueuedMessage]:
        """Settle what a transaction decided.

        @return: messages to try with the next host.
        """
        turned_away = []
        if outcome.session_usable:
            self._reconnection.delivered()
        progress: bool | None = None
        original = batch[0].body
        for message, result in zip(batch, outcome.results, strict=True):
            if result.delivered:
                del self._at_hand[message.id]
                self._context.fates.delivered(message, result.reply, self._facts, original)
                continue
            if progress is None:
                progress = any(each.delivered for each in outcome.results)
            verdict = judge_result(result, reused=reused, progress=progress)
            if verdict.scope is Scope.HOST:
                turned_away.append((message, verdict))
            else:
                self._failed(message, verdict)
        return self._turned_away(turned_away) if turned_away else []

    def _lost(
        self, batch: list[QueuedMessage], failure: SMTPSessionError, reused: bool
    ) -> list[QueuedMessage]:
        """Settle what can be settled of a transaction whose session ended.

        @return: messages to try with the next host.
        """
        verdict = judge_session(failure, self._dialler.way(self._facts.host), reused=reused)
        results = failure.outcome.results if failure.outcome is not None else ()
        turned_away = []
        for message, result in zip_longest(batch, results):
            if result is not None and result.delivered:
                del self._at_hand[message.id]
                self._context.fates.delivered(message, result.reply, self._facts)
            elif result is not None and result.permanent:
                self._failed(message, judge_result(result))
            elif self._aborted:
                # The node ends: the spool has it as it was, the next process tries again. What
                # may be a copy then is recorded now.
                if verdict.possible_duplicate:
                    self._held_up([message], verdict)
            elif verdict.scope is Scope.HOST:
                turned_away.append((message, verdict))
            else:
                self._failed(message, verdict)
        return self._turned_away(turned_away)

    def _turned_away(self, messages: list[tuple[QueuedMessage, Verdict]]) -> list[QueuedMessage]:
        """Messages that this host did not take this time.

        Where the host was about to end the session anyway they go back, uncharged; else the next
        host is tried, if there is one and C{try_next_host_on_transport_error} allows it.

        @return: messages to try with the next host.
        """
        uncharged = [message for message, verdict in messages if not verdict.charge]
        for message in uncharged:
            del self._at_hand[message.id]
        self._ready.put_back(uncharged)
        charged = [(message, verdict) for message, verdict in messages if verdict.charge]
        if charged and self._reconnection.for_messages:
            self._walk.failed(charged[0][1])
            again = [message for message, _ in charged]
            self._remember(again, charged[0][1])
            return again
        for message, verdict in charged:
            self._failed(message, verdict)
        return []

    async def _load(self, batch: list[QueuedMessage]) -> list[QueuedMessage]:
        """Read the batch's body into memory; drop from it what cannot be read."""
        first = batch[0]
        try:
            first.body = await self._context.bodies.load(first)
        except Exception as failure:
            if self._aborted:
                raise
            reply = internal_reply(451, "4.3.0", f"the spool cannot give the body: {failure}")
            if first.meta.get("last_reply") != str(reply):  # the record says it every time
                self._log.error(
                    "cannot read the body of {id}: {reason}", id=first.id, reason=failure
                )
            verdict = Verdict(Scope.MESSAGE, reply, blame="nobody")
            for message in batch:
                self._failed(message, verdict)
            return []
        return batch

    # -- consequences -----------------------------------------------------------------------------

    def _failed(self, message: QueuedMessage, verdict: Verdict) -> None:
        """A host has answered, or a session was lost: the message bears the consequences."""
        self._at_hand.pop(message.id, None)
        self._remember([message], verdict)
        self._context.fates.failed(message, verdict, self._facts)

    def _remember(self, batch: list[QueuedMessage], verdict: Verdict) -> None:
        """What a host said may speak for or against the same source at the next attempt."""
        if not verdict.permanent:
            for message in batch:
                remember(message, self._ready.source.name, verdict.reply)

    def _trace(self, batch: list[QueuedMessage], event: str, **facts: Any) -> None:
        if self._context.trace.watched:
            texts = {name: str(value) for name, value in facts.items()}
            facts = {**describe(self._facts), **texts}
            self._context.trace.emit(event, [message.id for message in batch], **facts)
