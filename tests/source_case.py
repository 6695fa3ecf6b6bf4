"""What tests of failing sources share: two proxies, two sites, and what must never happen."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.suspension import Suspension
from kumotwist.settings.types import HostPort
from tests.memory_proxies import MemorySOCKS5
from tests.queue_world import World

__all__ = ["BOTH", "P1", "P2", "SITES", "TEN_MINUTES", "SourceCase"]

SITES = {
    "b.example": ["MX 10 mx.b.example"],
    "mx.b.example": ["A 192.0.2.1"],
    "c.example": ["MX 10 mx.c.example"],
    "mx.c.example": ["A 192.0.2.2"],
}
P1 = (HostPort("10.0.0.1", 1080),)
P2 = (HostPort("10.0.0.2", 1080),)
BOTH = P1 + P2
TEN_MINUTES = Suspension(600.0)


class SourceCase(SynchronousTestCase):
    """A world with two SOCKS5 proxies and two sites."""

    def world(self, **sources: dict[str, Any]) -> World:
        """Two proxies at 10.0.0.1 and 10.0.0.2, two sinks, these sources."""
        world = World(SITES, sources=sources)
        self.one = MemorySOCKS5(world.network, "10.0.0.1")
        self.two = MemorySOCKS5(world.network, "10.0.0.2")
        world.sink("192.0.2.1")
        world.sink("192.0.2.2")
        return world

    def tried(self, world: World, host: str = "10.0.0.1") -> int:
        """Connections to a proxy so far."""
        return sum(place[0] == host for place in world.network.connections)

    def assert_nothing_charged(self, world: World) -> None:
        """No record speaks of an attempt before, and nothing was bounced."""
        self.assertEqual({record["num_attempts"] for record in world.records()}, {0})
        self.assertEqual(world.records("Bounce", "Expiration"), [])
