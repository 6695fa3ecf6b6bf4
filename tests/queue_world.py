"""A node's queues in a test: real queues, sessions and SMTP on both sides, over a network in
memory, with a spool in memory and a clock that the test moves."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
from zope.interface import implementer

from kumotwist.egress import Rotations, Source, SourceHealth
from kumotwist.egress.settings import PathPattern, PathTable, SourceSettings
from kumotwist.interfaces import IJournal, ILimits
from kumotwist.journal import Trace
from kumotwist.limits import LimitTable
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.context import SessionContext
from kumotwist.queue.fate import Fates
from kumotwist.queue.naming import Naming
from kumotwist.queue.plan import FindPolicy, Planner
from kumotwist.queue.reception import Reception
from kumotwist.queue.recorder import Recorder
from kumotwist.queue.scheduler import Scheduler
from kumotwist.queue.securing import TLSPolicies
from kumotwist.queue.settings import NamingSettings, QueuePattern, QueueTable
from kumotwist.settings.layers import Rule
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import SinkSettings
from kumotwist.smtp.sink import sink_factory
from kumotwist.testing.dns import FakeResolver
from kumotwist.testing.spool import MemorySpool
from kumotwist.tls.broken import BrokenTLS
from tests.memory_network import MemoryNetwork

__all__ = ["ListJournal", "World"]

#: The world begins at this moment; seconds since the epoch.
BEGINNING = 1_800_000_000.0

BODY = b"Subject: hello\r\nFrom: a@sender.example\r\n\r\nHello.\r\n"


@implementer(IJournal)
class ListJournal:
    """Keeps records in a list."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def record(self, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append(record)

    def record_line(self, text: str) -> None:
        """Keep it."""
        self.records.append(json.loads(text))


class World:
    """Queues, and the sinks that they deliver to.

    @param records: DNS, see L{FakeResolver}.
    @param sources: settings of the sources by name; one direct source if absent.
    @param weights: of the pools C{pool} and C{other}; all sources alike if absent.
    @param queue: values for C{[queue:default]}.
    @param path: values for C{[path:default]}.
    @param domain_queues: values for further C{[queue:PATTERN]}s.
    @param domain_paths: values for further C{[path:PATTERN]}s.
    @param limits: of a node that has several processes.
    @param network: a real reactor instead of the network in memory.
    @param pools: the pools, instead of C{pool} and C{other}.
    @param naming: which header fields name queues.
    """

    def __init__(
        self,
        records: Mapping[str, Sequence[str]] | None = None,
        *,
        fail: Mapping[str, str] | None = None,
        sources: Mapping[str, dict[str, Any]] | None = None,
        weights: Mapping[str, int] | None = None,
        queue: dict[str, Any] | None = None,
        path: dict[str, Any] | None = None,
        domain_queues: Mapping[str, dict[str, Any]] | None = None,
        domain_paths: Mapping[str, dict[str, Any]] | None = None,
        spool: MemorySpool | None = None,
        insecure: Collection[str] = ("",),
        find_policy: FindPolicy | None = None,
        limits: ILimits | None = None,
        network: Any = None,
        pools: Mapping[str, Sequence[tuple[str, int]]] | None = None,
        naming: NamingSettings | None = None,
    ) -> None:
        self.network: Any = network
        if network is None:
            self.network = MemoryNetwork()
            self.network.rightNow = BEGINNING
        self.journal = ListJournal()
        self.trace = Trace(self.network)
        self.spool = spool or MemorySpool()
        self.spool.open()
        self.health = SourceHealth(self.network.seconds)
        self.bodies = Bodies(self.spool)
        self.limits: Any = limits or LimitTable(self.network.seconds)
        resolver = FakeResolver(records or {}, fail, insecure)
        sources = sources or {"direct": {}}
        weights = weights or dict.fromkeys(sources, 1)
        queue_values = {"egress_pool": "pool", **(queue or {})}
        path_values = {"enable_tls": "Disabled", **(path or {})}
        queues = QueueTable(
            Rule(QueuePattern.parse(pattern), values)
            for pattern, values in {"default": queue_values, **(domain_queues or {})}.items()
        )
        paths = PathTable(
            Rule(PathPattern.parse(pattern), values)
            for pattern, values in {"default": path_values, **(domain_paths or {})}.items()
        )
        self.queues, self.paths = queues, paths
        self.sources = {
            name: Source.of(attrs.evolve(SourceSettings(name=name), **values))
            for name, values in sources.items()
        }
        pools = pools or {pool: tuple(weights.items()) for pool in ("pool", "other")}
        self.rotations = Rotations(pools)
        self.scheduler = Scheduler(
            self.network,
            Planner(resolver, paths, find_policy=find_policy),
            queues,
            paths,
            self.sources,
            self.rotations,
            lambda: 0.5,
        )
        self.recorder = Recorder(self.network, self.journal, self.trace, "node")
        self.fates = Fates(
            self.network,
            lambda: 0.5,
            self.spool,
            self.bodies,
            self.recorder,
            queues,
            "mta.example",
            self.scheduler.insert,
        )
        self.context = SessionContext(
            reactor=self.network,
            resolver=resolver,
            health=self.health,
            fates=self.fates,
            bodies=self.bodies,
            trace=self.trace,
            limits=self.limits,
            tls=TLSPolicies(resolver, BrokenTLS(self.network.seconds)),
            hostname="mta.example",
            chance=random.Random(1),
        )
        self.scheduler.use(self.context)
        self.spool.set_writable_observer(
            lambda writable: self.scheduler.resume() if writable else self.scheduler.pause()
        )
        self.reception = Reception(
            self.network,
            self.spool,
            self.bodies,
            self.recorder,
            self.scheduler.insert_all,
            Naming(naming or NamingSettings(), queues),
        )

    # -- what a test does -------------------------------------------------------------------------

    def sink(self, host: str, port: int = 25, **settings: Any) -> ESMTPListenerFactory:
        """Put a sink at an address."""
        values = {"tls": "none", "name": host, "hostname": "sink.example", **settings}
        factory = sink_factory(self.network, SinkSettings(**values), node_hostname=host)
        self.network.servers[host, port] = factory
        return factory

    def inject(
        self, *recipients: str, sender: str = "a@sender.example", body: bytes = BODY, **meta: Any
    ) -> list[QueuedMessage]:
        """Store messages that share a body and hand them to the scheduler; see what happens."""
        messages = self.enqueue(*recipients, sender=sender, body=body, **meta)
        self.network.settle()
        return messages

    def enqueue(
        self,
        *recipients: str,
        sender: str = "a@sender.example",
        body: bytes = BODY,
        body_type: str | None = None,
        tenant: str = "",
        **meta: Any,
    ) -> list[QueuedMessage]:
        """Store messages that share a body and hand them to the scheduler.

        @param body_type: what BODY said.
        @param tenant: whose messages they are.
        """
        if body_type is not None:
            meta["body"] = body_type
        now = self.network.seconds()
        messages = [
            QueuedMessage(
                id=new_id(now),
                sender=sender,
                recipient=recipient,
                queue=(f"{tenant}@" if tenant else "") + recipient.rpartition("@")[2],
                size=len(body),
                created=now,
                due=now,
                meta={"reception_protocol": "ESMTP", **meta},
            )
            for recipient in recipients
        ]
        self.spool.store(body, messages)
        for message in messages:
            message.body = body
            self.bodies.keep(message)
        self.scheduler.insert_all(messages)
        return messages

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """The records of some types, or all."""
        return [each for each in self.journal.records if not kinds or each["type"] in kinds]

    def kinds(self) -> list[str]:
        """The types of the records, in their order."""
        return [each["type"] for each in self.journal.records]
