"""A node's numbers for Prometheus, under KumoMTA's names where it has the thing.

The labels are names of the configuration: there are no more series than it has sources, pools and
listeners, however many domains mail goes to. Asking for them looks at ready queues and at nothing
that grows with the messages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from attrs import define

from kumotwist.egress.counters import EgressCounters, FailureKind
from kumotwist.egress.health import SourceHealth
from kumotwist.egress.source import Source
from kumotwist.http.exposition import Family, Sample, exposition
from kumotwist.queue.counters import DeliveryCounters
from kumotwist.queue.scheduler import Scheduler
from kumotwist.smtp.listener import ESMTPListenerFactory

__all__ = ["NodeMetrics"]

_CLIENT, _LISTENER = "smtp_client", "esmtp_listener"


@define
class NodeMetrics:
    """Where a node's numbers are.

    @ivar listeners: the listeners, by the NAME of C{[listener:NAME]}.
    """

    scheduler: Scheduler
    sources: dict[str, Source]
    health: SourceHealth
    egress: EgressCounters
    deliveries: DeliveryCounters
    listeners: dict[str, ESMTPListenerFactory]

    def render(self) -> str:
        """The numbers of this moment in the text format."""
        return exposition([*self._queues(), *self._connections(), *self._messages(), *self._ways()])

    def _queues(self) -> Iterator[Family]:
        ready, _ = self.scheduler.loads()
        yield Family(
            "scheduled_count_total",
            "gauge",
            "messages that wait for their time, or for a source",
            [({}, self.scheduler.waiting)],
        )
        yield Family(
            "ready_count",
            "gauge",
            "messages in ready queues, by source",
            self._by_source(ready),
        )

    def _connections(self) -> Iterator[Family]:
        _, sessions = self.scheduler.loads()
        listeners = self.listeners.items()
        yield Family(
            "connection_count",
            "gauge",
            "connections that are open, or being opened",
            [
                *self._by_source(sessions),
                *((_listener(name), len(one.sessions)) for name, one in listeners),
            ],
        )
        yield Family(
            "total_connection_count",
            "counter",
            "sessions that were opened to hosts, connections that clients made",
            [
                *self._by_source(self.egress.connections),
                *((_listener(name), one.connected) for name, one in listeners),
            ],
        )

    def _messages(self) -> Iterator[Family]:
        counters = self.deliveries
        yield Family(
            "total_messages_received",
            "counter",
            "messages taken from clients, one for each recipient",
            [({"service": _LISTENER}, counters.received)],
        )
        for word, text, outcomes in (
            ("delivered", "messages that a host has taken", counters.delivered),
            ("transfail", "attempts that failed and are repeated", counters.transfail),
            ("fail", "messages that bounced or expired", counters.fail),
        ):
            name = f"total_messages_{word}"
            yield Family(name, "counter", text, [({"service": _CLIENT}, sum(outcomes.values()))])
            yield Family(
                f"{name}_by_provider_and_source",
                "counter",
                f"{text}, by source and pool",
                [
                    ({"source": source, "pool": pool}, count)
                    for (source, pool), count in sorted(outcomes.items())
                ],
            )

    def _ways(self) -> Iterator[Family]:
        health, egress = self.health, self.egress
        yield Family(
            "egress_source_connection_failures_total",
            "counter",
            "connections that failed for a reason of the source's own",
            _by_kind(self.sources, egress.failures, "kind"),
        )
        yield Family(
            "egress_source_health_suspended",
            "gauge",
            "whether a source is suspended now, and why",
            [
                (
                    {"source": name, "reason": kind.value},
                    int(health.suspended(name) and egress.last.get(name) is kind),
                )
                for name in self.sources
                for kind in FailureKind
            ],
        )
        yield Family(
            "egress_source_health_suspensions_total",
            "counter",
            "how often a source was suspended, and why",
            _by_kind(self.sources, egress.suspensions, "reason"),
        )
        # Where a source has one proxy, its own suspension says it all.
        proxies = [
            ({"source": name, "server": proxy.name}, proxy)
            for name, source in self.sources.items()
            if source.proxies is not None and len(source.proxies.proxies) > 1
            for proxy in source.proxies.proxies
        ]
        yield Family(
            "egress_proxy_suspended",
            "gauge",
            "whether one of a source's several proxies is passed over now",
            [(labels, int(proxy.health.troubled)) for labels, proxy in proxies],
        )
        yield Family(
            "egress_proxy_suspensions_total",
            "counter",
            "how often one of a source's several proxies was passed over for a while",
            [(labels, proxy.suspensions) for labels, proxy in proxies],
        )

    def _by_source(self, counts: Counter[str]) -> list[Sample]:
        return [({"service": _CLIENT, "source": name}, counts[name]) for name in self.sources]


def _listener(name: str) -> dict[str, str]:
    return {"service": _LISTENER, "listener": name}


def _by_kind(
    sources: Iterable[str],
    counts: Counter[tuple[str, FailureKind]],
    label: str,
) -> list[Sample]:
    return [
        ({"source": name, label: kind.value}, counts[name, kind])
        for name in sources
        for kind in FailureKind
    ]
