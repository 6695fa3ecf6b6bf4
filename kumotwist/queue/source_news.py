"""What the scheduler does when a source fails, works again, or cannot reach a site."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kumotwist.egress.health import Hold
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import avoid_source
from kumotwist.queue.choosing import Bar, SourceChoice
from kumotwist.queue.verdicts import INTERNAL, Verdict

if TYPE_CHECKING:
    from kumotwist.queue.context import SessionContext
    from kumotwist.queue.parking import Parking
    from kumotwist.queue.readiness import ReadyQueues
    from kumotwist.queue.ready import ReadyQueue

__all__ = ["SourceNews"]


class SourceNews:
    """The part of L{kumotwist.queue.ready.IDispatcher} that speaks of sources."""

    _ready: ReadyQueues
    _parking: Parking
    _random: Callable[[], float]
    _choices: SourceChoice
    _node: SessionContext

    def source_held(self, source: str) -> None:
        """The source is held: what is ready for it, for whatever site, goes elsewhere at once."""
        for ready in self._ready.of_source(source):
            ready.drain()
        self._reconsider(source)

    def source_works(self, source: str) -> None:
        """The source was held and works: what waited for it comes back, bit by bit."""
        self._reconsider(source)

    def heard(self, source: str, hold: Hold | None) -> None:
        """Another process of the node has found out that a source is held, or works."""
        if self._node.health.adopt(source, hold):
            if hold is None:
                self.source_works(source)
            else:
                self.source_held(source)

    def _reconsider(self, source: str) -> None:
        for pool in self._choices.pools_of(source):
            self._parking.reconsider(pool)

    def source_faltered(self, messages: list[QueuedMessage], source: str, verdict: Verdict) -> None:
        """The source failed for these messages alone: they wait and prefer another one then."""
        pause = self._node.health.pause(source)
        for message in messages:
            avoid_source(message, source)
            seconds = pause * (1 + 0.2 * self._random())
            self._node.fates.delayed(message, seconds, verdict.reply, "SourceIsUnhealthy")

    def source_refused(self, ready: ReadyQueue, verdict: Verdict) -> None:
        """The source's proxy does not connect to the site: pass the source over for a while."""
        words = verdict.reply.content.removeprefix(INTERNAL)
        self._choices.bar(ready.source.name, ready.plan.lane, Bar.REFUSED, words)

    def unsuitable(self, ready: ReadyQueue) -> None:
        """The source has no address of the site's family: pass it over for a while."""
        self._choices.bar(ready.source.name, ready.plan.lane, Bar.FAMILY)
