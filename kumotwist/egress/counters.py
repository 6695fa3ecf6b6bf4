"""What is counted of the ways out."""

from __future__ import annotations

import enum
from collections import Counter

from attrs import define, field

__all__ = ["EgressCounters", "FailureKind"]


class FailureKind(enum.Enum):
    """Why a way out failed; the values are KumoMTA's labels, where it has one."""

    UNPLUMBED = "Unplumbed"
    PROXY_UNHEALTHY = "ProxyUnhealthy"
    EXHAUSTED = "Exhausted"


@define
class EgressCounters:
    """Plain numbers since the start, by the name of the source.

    @ivar connections: SMTP sessions that were opened.
    @ivar failures: connections that failed for a reason of the source's own, by kind.
    @ivar suspensions: how often such a failure suspended it.
    @ivar last: what the last one of a source was.
    """

    connections: Counter[str] = field(factory=Counter)
    failures: Counter[tuple[str, FailureKind]] = field(factory=Counter)
    suspensions: Counter[tuple[str, FailureKind]] = field(factory=Counter)
    last: dict[str, FailureKind] = field(factory=dict)

    def failed(self, source: str, kind: FailureKind, *, suspended: bool) -> None:
        """Count a failure.

        @param suspended: whether the source, which could be used before, is suspended for it.
        """
        self.failures[source, kind] += 1
        self.last[source] = kind
        if suspended:
            self.suspensions[source, kind] += 1
