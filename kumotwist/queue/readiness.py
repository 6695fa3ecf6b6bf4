"""All ready queues of a node, by source and lane."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from kumotwist.egress.settings import PathSettings, PathTable
from kumotwist.egress.source import Source
from kumotwist.queue.plan import Plan
from kumotwist.queue.ready import ReadyQueue

__all__ = ["ReadyQueues"]

#: Makes a ready queue: from its source, its plan, its path and its pool.
Build = Callable[[Source, Plan, PathSettings, str], ReadyQueue]


class ReadyQueues:
    """The ready queues that exist: those with messages or connections, also of former sources.

    @param sources: every source by name.
    @param paths: how sites are spoken to.
    @param build: makes a ready queue.
    """

    def __init__(self, sources: dict[str, Source], paths: PathTable, build: Build) -> None:
        self._sources = sources
        self._paths = paths
        self._build = build
        self._queues: defaultdict[str, dict[str, ReadyQueue]] = defaultdict(dict)
        # Those whose source is not used any more, until their last session has ended.
        self._retired: set[ReadyQueue] = set()

    def __iter__(self) -> Iterator[ReadyQueue]:
        for by_lane in list(self._queues.values()):
            yield from list(by_lane.values())
        yield from list(self._retired)

    def get(self, source: str, lane: str) -> ReadyQueue | None:
        """A queue, if it exists."""
        return self._queues[source].get(lane)

    def of_source(self, source: str) -> list[ReadyQueue]:
        """The queues of a source."""
        return list(self._queues.get(source, {}).values())

    def of(self, source: str, plan: Plan, pool: str) -> ReadyQueue:
        """A queue, made if it does not exist.

        @param pool: the pool that chose the source.
        """
        ready = self.get(source, plan.lane)
        if ready is None:
            path = self._paths.resolve(plan.domain, plan.site, source)
            ready = self._build(self._sources[source], plan, path, pool)
            self._queues[source][plan.lane] = ready
        return ready

    def is_full(self, source: str, lane: str) -> bool:
        """Whether a queue takes no more."""
        ready = self.get(source, lane)
        return ready is not None and ready.full

    def retire(self, sources: Iterable[str]) -> None:
        """Sources that are no more, or whose names stand for other ways out."""
        for source in sources:
            retiring = list(self._queues.pop(source, {}).values())
            self._retired.update(retiring)
            for ready in retiring:
                ready.retire()

    def want_room(self, sources: Iterable[str], lane: str) -> None:
        """Somebody waits for room in one of these queues."""
        for source in sources:
            ready = self.get(source, lane)
            if ready is not None:
                ready.wanted = True

    def forget(self, ready: ReadyQueue) -> None:
        """A queue is empty; another one is made when it is needed."""
        self._retired.discard(ready)
        by_lane = self._queues.get(ready.source.name, {})
        if by_lane.get(ready.plan.lane) is ready:
            del by_lane[ready.plan.lane]

    def loads(self) -> tuple[Counter[str], Counter[str]]:
        """What is in them, by the name of the source: messages, and connections."""
        messages: Counter[str] = Counter()
        sessions: Counter[str] = Counter()
        for ready in self:
            messages[ready.source.name] += len(ready)
            sessions[ready.source.name] += ready.sessions
        return messages, sessions

    @property
    def are_at_rest(self) -> bool:
        """Whether no connection is left."""
        return not any(ready.sessions for ready in self)
