"""What delivery sessions work with, and what they know of the ready queue that they work for."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from zope.interface import Attribute, Interface

from kumotwist.egress.counters import EgressCounters
from kumotwist.egress.health import SourceHealth
from kumotwist.egress.settings import PathSettings
from kumotwist.egress.source import Source
from kumotwist.interfaces import ILimits, IResolver, ITrace
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.fate import Fates
from kumotwist.queue.plan import Plan
from kumotwist.queue.recorder import AttemptFacts
from kumotwist.queue.securing import TLSPolicies
from kumotwist.queue.targets import IPAddress, IsOurs
from kumotwist.queue.tls_reporting import CountOutcome
from kumotwist.queue.verdicts import Verdict
from kumotwist.tls.resumption import TLSSessions

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from kumotwist.queue.session import DeliverySession

__all__ = ["IReadyQueue", "SessionContext"]


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

    def next_connection() -> Deferred[None] | None:
        """A session that has failed with one address wants to try another one.

        @return: L{None} if it may at once; else it fires when C{max_connection_rate} allows it.
        """

    def connected() -> None:
        """A host was reached."""

    def unreachable(messages: list[QueuedMessage], verdict: Verdict, tls_policy: str = "") -> None:
        """No host was reached; the messages are those that the session had taken."""

    def source_works() -> None:
        """The source was held, and has been seen to work."""

    def source_held(messages: list[QueuedMessage]) -> None:
        """The source is held; the messages are those that the session had taken."""

    def source_faltered(messages: list[QueuedMessage], verdict: Verdict) -> None:
        """The source failed for these messages, and is not held for it."""

    def source_refused(messages: list[QueuedMessage], verdict: Verdict) -> None:
        """The source's proxy works, and does not connect to this site."""

    def unsuitable(messages: list[QueuedMessage]) -> None:
        """The source has no address of a family that the site has."""

    def shall_end(session: DeliverySession) -> bool:
        """Whether the session shall end though there is more to do: its place is wanted."""

    def ended(session: DeliverySession) -> None:
        """The session is over."""


@attrs.define
class SessionContext:
    """What every session works with.

    @ivar limits: what holds for the whole node.
    @ivar tls: decides what is demanded of hosts.
    @ivar count_tls: counts sessions for TLS reports, if there are any.
    @ivar is_ours: says whether this node listens on an address and a port.
    @ivar chance: shuffles hosts of the same preference for each session.
    @ivar tls_sessions: what handshakes have come to that can be gone on with.
    @ivar hostname: this node's name, where neither path nor source has an C{ehlo_domain}.
    """

    reactor: Any
    resolver: IResolver
    health: SourceHealth
    fates: Fates
    bodies: Bodies
    trace: ITrace
    limits: ILimits
    tls: TLSPolicies
    hostname: str
    count_tls: CountOutcome | None = None
    is_ours: IsOurs | None = None
    counters: EgressCounters = attrs.field(factory=EgressCounters)
    chance: random.Random = attrs.field(factory=random.Random)
    tls_sessions: TLSSessions = attrs.field(init=False)

    @tls_sessions.default
    def _default_tls_sessions(self) -> TLSSessions:
        return TLSSessions(self.reactor.seconds)

    def in_thread(self, task: Callable[[], bytes]) -> Deferred[bytes]:
        """Run what would hold up the reactor in a thread of its pool."""
        working: Deferred[bytes] = deferToThreadPool(
            self.reactor, self.reactor.getThreadPool(), task
        )
        return working

    def facts(self, ready: IReadyQueue, target: IPAddress | None = None) -> AttemptFacts:
        """Facts of an attempt that reached no host.

        @param target: the host's address, if it was one and not several.
        """
        source = ready.source
        asked = None
        if source.protocol and target is not None:
            asked = source.egress_address_for(target)
        elif source.protocol and len(source.egress_addresses) == 1:
            asked = source.egress_address
        shown = f"[{asked}]:0" if asked is not None and asked.version == 6 else f"{asked}:0"
        return AttemptFacts(
            pool=ready.pool, source=source.name, site=ready.plan.site,
            source_address="" if asked is None else shown,
            proxy_server=source.server, protocol=source.protocol,
        )  # fmt: skip
