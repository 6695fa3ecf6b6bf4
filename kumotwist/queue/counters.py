"""What is counted of messages."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

__all__ = ["DeliveryCounters"]


@define
class DeliveryCounters:
    """Plain numbers since the start. Outcomes are counted by source and pool, as recorded.

    @ivar received: messages taken from clients, one for each recipient.
    @ivar delivered: what a host has taken.
    @ivar transfail: attempts that failed and are repeated.
    @ivar fail: what was given up: bounced, expired.
    """

    received: int = 0
    delivered: Counter[tuple[str, str]] = field(factory=Counter)
    transfail: Counter[tuple[str, str]] = field(factory=Counter)
    fail: Counter[tuple[str, str]] = field(factory=Counter)

    def count(self, kind: str, source: str, pool: str) -> None:
        """Count an outcome.

        @param kind: the type of its record.
        @param source: the name of the source; empty if none was chosen.
        """
        if kind == "Delivery":  # as most are
            self.delivered[source, pool] += 1
            return
        by_kind = {
            "TransientFailure": self.transfail,
            "Bounce": self.fail,
            "Expiration": self.fail,
            "AdminBounce": self.fail,
        }
        if kind in by_kind:
            by_kind[kind][source, pool] += 1
