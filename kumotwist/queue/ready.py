"""A ready queue: messages that are due for one site through one source, and its sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil, exp
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import Attribute, Interface, implementer

from kumotwist.egress.settings import PathSettings
from kumotwist.egress.source import Source
from kumotwist.interfaces import IPermit
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.context import IReadyQueue, SessionContext
from kumotwist.queue.fairness import FairQueue
from kumotwist.queue.pacing import Pacer
from kumotwist.queue.plan import Plan
from kumotwist.queue.rates import connection_limits, connection_rates, message_rates
from kumotwist.queue.session import DeliverySession
from kumotwist.queue.verdicts import Verdict, internal_reply

__all__ = ["IDispatcher", "ReadyQueue", "ideal_sessions"]

#: Whoever waits for room is called when there are so many places, or a quarter of all: soon enough
#: for a newcomer's first message, and not for each place.
ENOUGH_ROOM = 16
#: Seconds for which a busy session keeps a place that others wait for.
LONGEST_TURN = 3.0


def ideal_sessions(limit: int, load: int) -> int:
    """How many connections suit a load (KumoMTA's growth: few messages, few connections).

    @param limit: C{connection_limit}.
    @param load: messages that wait or are under way.
    """
    return min(load, ceil(limit * (1 - exp(-0.023 * load))))


class IDispatcher(Interface):
    """Who filled a ready queue, and takes messages back that its source cannot carry."""

    may_send: bool = Attribute("Whether deliveries may start at all.")

    def take_back(messages: list[QueuedMessage]) -> None:
        """These look for another source."""

    def source_held(source: str) -> None:
        """The source is held: whatever is ready for it goes elsewhere."""

    def source_works(source: str) -> None:
        """The source was held, and has been seen to work."""

    def source_faltered(messages: list[QueuedMessage], source: str, verdict: Verdict) -> None:
        """The source failed for these, and is not held for it: they wait for a moment."""

    def source_refused(ready: ReadyQueue, verdict: Verdict) -> None:
        """The source's proxy works, and does not connect to the site of this queue."""

    def unsuitable(ready: ReadyQueue) -> None:
        """The source has no address of a family that the site of this queue has."""

    def is_too_old(message: QueuedMessage) -> bool:
        """Whether a message is past its time."""

    def has_room(ready: ReadyQueue) -> None:
        """There is room for those who waited for it."""

    def emptied(ready: ReadyQueue) -> None:
        """Neither messages nor sessions are left."""


@implementer(IReadyQueue)
class ReadyQueue:
    """Messages for one site through one source; tenants and their queues take turns.

    @param source: the way out.
    @param plan: the hosts of the site.
    @param path: how the site is spoken to from the source.
    @param pool: the egress pool that chose the source.
    @param context: what a session works with.
    @param dispatcher: who fills it (L{IDispatcher}).
    """

    _log = Logger()

    def __init__(
        self,
        source: Source,
        plan: Plan,
        path: PathSettings,
        pool: str,
        context: SessionContext,
        dispatcher: IDispatcher,
    ) -> None:
        self.source = source
        self._source_name = source.name
        self.plan = plan
        self.path = path
        self.pool = pool
        self.name = f"{source.name}->{plan.site}@smtp_client"
        self.lane = f"{source.name}->{plan.lane}"
        self._context = context
        self._dispatcher = dispatcher
        self._messages = FairQueue()
        #: Whether somebody waits for room in it; told by C{has_room}.
        self.wanted = False
        self._refilling: Any = None
        self._pacer = Pacer(context.reactor, context.limits, self.kick)
        self._connecting = Pacer(context.reactor, context.limits, self._may_connect_again)
        # Sessions that wait until they may make another connection.
        self._dialling: list[Deferred[None]] = []
        self._go_by(path)
        # The sessions, each with its place among the connections and the time at which it began.
        self._sessions: dict[DeliverySession, tuple[IPermit, float]] = {}
        # Places that were asked for, each with whether it is for a trial.
        self._asked: dict[Deferred[IPermit], bool] = {}
        # The sessions that wait for messages; the one that came last is the first to get some.
        self._idle: dict[DeliverySession, None] = {}
        # The session that shows whether a source that was held works again.
        self._trial: DeliverySession | None = None
        self._failures = 0
        self._stopping = False
        self._retired = False
        self._kicking = False

    def _go_by(self, path: PathSettings) -> None:
        """Keep to the limits of a path."""
        self.path = path
        self._message_rates = message_rates(path, self.lane)
        self._connection_rates = connection_rates(path, self.lane)
        self._limits = connection_limits(path, self.lane)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[QueuedMessage]:
        return iter(self._messages)

    def extract(self, wanted: Callable[[QueuedMessage], bool]) -> list[QueuedMessage]:
        """Take some messages out that no session has taken."""
        taken = self._messages.extract(wanted)
        if taken:
            self._refill()
            self.kick()
        return taken

    @property
    def sessions(self) -> int:
        """Connections that stand or are being made."""
        return len(self._sessions)

    @property
    def waits_for(self) -> str:
        """Which limit makes it wait, in words; empty if none does."""
        if self._pacer.waits:
            return "max_message_rate"
        if self._connecting.waits:
            return "max_connection_rate"
        return "connection_limit" if self._asked else ""

    @property
    def full(self) -> bool:
        """Whether C{max_ready} is reached."""
        return self._messages.length >= self.path.max_ready

    @property
    def room(self) -> int:
        """How many messages it takes at once: what there is room for, and always one batch."""
        path = self.path
        return max(path.max_ready - len(self._messages), path.max_recipients_per_batch)

    def add(self, messages: Sequence[QueuedMessage]) -> None:
        """Take messages that are due."""
        if self._context.trace.watched:
            for message in messages:
                self._context.trace.emit(
                    "queued", [message.id], source=self.source.name, pool=self.pool,
                    site=self.plan.site, protocol=self.source.protocol, server=self.source.server,
                    recipient=message.recipient,
                )  # fmt: skip
        if not (self._idle and len(messages) == 1 and self._handed_over(messages)):
            self._messages.add(messages)
            self.kick()

    def _handed_over(self, messages: Sequence[QueuedMessage]) -> bool:
        """Give a message that has nobody before it to a session that has nothing to do."""
        if (
            self._messages.length
            or self._message_rates
            or self._kicking
            or self._stopping
            or not self._dispatcher.may_send
            or self._wants_trial()
        ):
            return False
        session, _ = self._idle.popitem()
        return session.offer(list(messages))

    def _refill(self) -> None:
        """Call for more when there is some room again."""
        most = self.path.max_ready
        room = min(max(1, most // 4), ENOUGH_ROOM)
        if len(self._messages) <= most - room and self._refilling is None:
            self._refilling = self._context.reactor.callLater(0, self._called_for_more)

    def _called_for_more(self) -> None:
        self._refilling = None
        if self.wanted:
            self.wanted = False
            self._dispatcher.has_room(self)

    def kick(self) -> None:
        """Give waiting messages to idle sessions, and open sessions where the load wants them."""
        if self._kicking:
            # A session that ended at once called back; the loop below looks again anyway.
            return
        self._kicking = True
        try:
            while self._wants_trial() and self._may_take() and self._may_connect():
                self._ask_for_place(trial=True)
            while self._idle and self._may_take():
                self._idle.popitem()[0].wake()
            while self._wants_session() and self._may_take() and self._may_connect():
                self._ask_for_place()
        finally:
            self._kicking = False
        messages = self._messages
        coming = self._sessions or self._asked or self._pacer.waits or self._connecting.waits
        if messages.length and not coming and self._open_for_business():
            # Nobody is going to carry them: the source is held.
            self._return([])
        if self._asked and (not messages.length or self._stopping):
            self._ask_no_more()
        if not self._sessions and (not messages.length or self._stopping):
            if not self._retired:
                self._context.health.end_try(self.source.name, self.plan.lane)
            self._pacer.stop()
            self._connecting.stop()
            self._dispatcher.emptied(self)

    def _may_take(self) -> bool:
        """Whether a session would find something to do."""
        return self._messages.length > 0 and self._open_for_business() and not self._pacer.waits

    def _may_connect(self) -> bool:
        """Whether C{max_connection_rate} allows one more connection, which is counted then."""
        rates = self._connection_rates
        return not rates or self._connecting.take(rates, 1) == 1

    def _may_connect_again(self) -> None:
        while self._dialling and self._may_connect():
            self._dialling.pop(0).callback(None)
        self.kick()

    def _open_for_business(self) -> bool:
        return self._dispatcher.may_send and not self._stopping

    def _ask_for_place(self, trial: bool = False) -> None:
        """A connection needs its place among those that the whole node may have."""
        asking: Deferred[IPermit] = self._context.limits.permit(self._limits, self._contested)
        self._asked[asking] = trial
        asking.addCallbacks(
            self._open_session, self._not_permitted, callbackArgs=(asking,), errbackArgs=(asking,)
        )

    def _ask_no_more(self) -> None:
        for asking in list(self._asked):
            asking.cancel()

    def _not_permitted(self, failure: Any, asking: Deferred[IPermit]) -> None:
        del self._asked[asking]
        if failure.check(CancelledError) is None:
            self._log.failure("no place for a connection to {site}", failure, site=self.plan.site)

    def _open_session(self, permit: IPermit, asking: Deferred[IPermit]) -> None:
        trial = self._asked.pop(asking)
        health, name = self._context.health, self.source.name
        still = health.is_tried(name, self.plan.lane) if trial else health.usable(name)
        if not (still and self._messages and self._open_for_business()):
            # It came late: what it was for is done, or cannot be done now.
            permit.release()
            self.kick()
            return
        session = DeliverySession(self._context, self)
        self._sessions[session] = (permit, self._context.reactor.seconds())
        if trial:
            self._trial = session
        session.start()

    def _wants_trial(self) -> bool:
        """Whether a connection shall be made to see whether the source works again."""
        return (
            self._source_name in self._context.health.ailing
            and self._trial is None
            and True not in self._asked.values()
            and self._context.health.is_tried(self._source_name, self.plan.lane)
        )

    def _wants_session(self) -> bool:
        coming, limit = len(self._sessions) + len(self._asked), self.path.connection_limit
        if coming >= limit or not self._context.health.usable(self._source_name):
            return False
        return coming < ideal_sessions(limit, self._messages.length + coming - len(self._idle))

    def _contested(self) -> None:
        """Another process waits for a place: nobody idles on one."""
        for session in list(self._idle):
            session.wake()

    def _return(self, taken: list[QueuedMessage]) -> None:
        """Give all messages back, to be given to other sources or to wait."""
        self._dispatcher.take_back([*taken, *self._messages.clear()])

    def drain(self) -> None:
        """The source is held: give the messages back. Sessions that stand end what they do."""
        if self._messages:
            self._return([])
        self.kick()

    # -- another configuration ---------------------------------------------------------------------

    def reconfigure(self, path: PathSettings, moved: Callable[[QueuedMessage], bool]) -> None:
        """Go by other settings, from the next decision on; what is under way keeps its own.

        @param moved: says of a message that waits whether another queue than this may be meant
            for it now; such ones are given back.
        """
        limits = self._limits
        self._go_by(path)
        self._pacer.reconsider()
        self._connecting.reconsider()
        waiting = self._messages.clear()
        self._messages.add(message for message in waiting if not moved(message))
        self._dispatcher.take_back([message for message in waiting if moved(message)])
        if self._limits != limits:
            # What waits in the table waits under the old limits.
            self._ask_no_more()
            for _ in range(min(len(self._idle), len(self._sessions) - path.connection_limit)):
                self._idle.popitem()[0].wake()
        self._refill()
        self.kick()

    def retire(self) -> None:
        """The source is not to be used any more: messages that wait are given back, a transaction
        that is under way is the last of its session."""
        self._stopping = self._retired = True
        self._dispatcher.take_back(self._messages.clear())
        self._contested()
        self.kick()

    # -- what sessions call (IReadyQueue) ---------------------------------------------------------

    def take(self) -> list[QueuedMessage]:
        """The next messages for one transaction: one, or several that share body and sender."""
        if not self._messages.length or not self._open_for_business():
            return []
        batch = self._fresh()
        if self._message_rates and batch:
            allowed = self._pacer.take(self._message_rates, len(batch))
            self._messages.put_back(batch[allowed:])
            del batch[allowed:]
        if self.wanted:
            self._refill()
        return batch

    def _fresh(self) -> list[QueuedMessage]:
        """The next batch, without what is past its time."""
        while batch := self._messages.take(self.path.max_recipients_per_batch):
            old = [message for message in batch if self._dispatcher.is_too_old(message)]
            for message in old:
                self._context.fates.expired(message, None, self._context.facts(self))
                batch.remove(message)
            if batch:
                break
        return batch

    def put_back(self, messages: list[QueuedMessage]) -> None:
        """Take messages back that a lost connection could not carry, ahead of the others."""
        if self._message_rates:
            self._pacer.give_back(len(messages))
        if self._retired:
            self._dispatcher.take_back(messages)
        else:
            self._messages.put_back(messages)

    def became_idle(self, session: DeliverySession) -> None:
        """Remember a session that waits; while stopping there is nothing to wait for, and a place
        that others wait for is not kept."""
        if self._stopping or self.shall_end(session):
            session.wake()
        else:
            self._idle[session] = None

    def no_longer_idle(self, session: DeliverySession) -> None:
        """Forget a session that stopped waiting by itself."""
        self._idle.pop(session, None)

    def next_connection(self) -> Deferred[None] | None:
        """Ask for a further connection of a session; see L{IReadyQueue}."""
        if self._may_connect():
            return None
        waiting: Deferred[None] = Deferred(self._dialling.remove)
        self._dialling.append(waiting)
        return waiting

    def connected(self) -> None:
        """A session reached a host."""
        self._failures = 0

    def unreachable(
        self, messages: list[QueuedMessage], verdict: Verdict, tls_policy: str = ""
    ) -> None:
        """No host of the site could be reached; after many times in a row all mail waits.

        @param tls_policy: what was demanded of the last host with which TLS did not come about.
        """
        self._failures += 1
        facts = attrs.evolve(self._context.facts(self), tls_policy=tls_policy)
        for message in messages:
            self._context.fates.failed(message, verdict, facts)
        if self._failures <= self.path.consecutive_connection_failures_before_delay:
            return
        self._failures = 0
        text = f"no answer from any host of {self.plan.site}; last: {verdict.reply.content}"
        bulk = Verdict(verdict.scope, internal_reply(451, "4.4.1", text))
        for message in self._messages.clear():
            self._context.fates.failed(message, bulk, self._context.facts(self))

    def source_works(self) -> None:
        """The source was held, and has been seen to work."""
        self._dispatcher.source_works(self.source.name)

    def source_held(self, messages: list[QueuedMessage]) -> None:
        """The way out is broken: all mail goes back, from the queues of other sites too."""
        self._return(messages)
        self._dispatcher.source_held(self.source.name)

    def source_faltered(self, messages: list[QueuedMessage], verdict: Verdict) -> None:
        """The way out failed for these messages alone, as far as is known."""
        self._dispatcher.source_faltered(messages, self.source.name, verdict)

    def source_refused(self, messages: list[QueuedMessage], verdict: Verdict) -> None:
        """The proxy does not connect to this site: other sources are due."""
        self._dispatcher.source_refused(self, verdict)
        self._return(messages)

    def unsuitable(self, messages: list[QueuedMessage]) -> None:
        """No address of the site is of a family that the source has: other sources are due."""
        self._dispatcher.unsuitable(self)
        self._return(messages)

    def shall_end(self, session: DeliverySession) -> bool:
        """Whether the session has had its turn on a place that others wait for, or there are more
        than there may be."""
        permit, since = self._sessions[session]
        if len(self._sessions) > self.path.connection_limit:
            return True
        if not permit.contested:
            return False
        return not self._messages or self._context.reactor.seconds() - since >= LONGEST_TURN

    def ended(self, session: DeliverySession) -> None:
        """A session is over."""
        permit, _ = self._sessions.pop(session)
        session.when_closed(permit.release)
        self.no_longer_idle(session)
        if session is self._trial:
            self._trial = None
            self._context.health.end_try(self.source.name, self.plan.lane)
        self.kick()

    # -- the end ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Start nothing more; sessions end after the transaction that they are in, if any."""
        self._stopping = True
        self._ask_no_more()
        self._pacer.stop()
        self._connecting.stop()
        for session in list(self._sessions):
            session.stop()

    def abort(self) -> None:
        """End every session now."""
        for session in list(self._sessions):
            session.abort()
