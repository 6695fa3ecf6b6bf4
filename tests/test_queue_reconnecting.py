"""C{reconnect_strategy} and its relatives: what follows when a host ends a delivery."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.queue_world import World
from tests.talker import Talker

TWO_HOSTS = {
    "b.example": ["MX 10 mx1.b.example", "MX 20 mx2.b.example"],
    "mx1.b.example": ["A 192.0.2.1"],
    "mx2.b.example": ["A 192.0.2.2"],
}
CLOSES = "421 4.3.2 closing"


class StrategyTests(SynchronousTestCase):
    """Two hosts, of which the first one ends a delivery."""

    def world(self, first: Any, **path: Any) -> World:
        """Both hosts; the first one as given."""
        world = World(TWO_HOSTS, path={"connection_limit": 1, **path})
        self.first, self.second = first, Talker()
        world.network.servers["192.0.2.1", 25] = self.first
        world.network.servers["192.0.2.2", 25] = self.second
        return world

    def test_next_host(self) -> None:
        """The next host gets the message at once."""
        world = self.world(Talker(answers={"MAIL": CLOSES}))
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual((self.first.connections, len(self.second.messages)), (1, 1))

    def test_next_host_not_for_this_message(self) -> None:
        """Without C{try_next_host_on_transport_error} it waits; mail behind it goes on there."""
        world = self.world(
            Talker(answers={"RCPT": [CLOSES]}), try_next_host_on_transport_error=False
        )
        world.inject("c@b.example", "d@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure", "TransientFailure"])
        self.assertEqual((self.first.connections, self.second.connections), (1, 0))

    def test_next_host_for_what_follows(self) -> None:
        """Mail that waits behind a lost message goes to the next host, in the same session."""
        world = self.world(Talker(answers={"DATA": ["354 go", None]}), max_recipients_per_batch=1)
        world.inject("c@b.example", "d@b.example", "e@b.example")
        self.assertEqual(self.first.connections, 1)
        self.assertEqual((len(self.first.messages), len(self.second.messages)), (1, 1))
        self.assertEqual(sorted(world.kinds()), ["Delivery", "Delivery", "TransientFailure"])

    def test_what_follows_is_not_failed(self) -> None:
        """If the other hosts are down, mail that follows starts anew with the first host."""
        world = self.world(Talker(answers={".": ["250 ok", CLOSES, "250 ok"]}))
        del world.network.servers["192.0.2.2", 25]
        for name in "cdef":
            world.inject(f"{name}@b.example")
        self.assertEqual(world.kinds().count("Delivery"), 3)
        self.assertEqual(world.kinds().count("TransientFailure"), 1)

    def test_same_host(self) -> None:
        """The same host gets the message once more; the next host is left alone."""
        world = self.world(
            Talker(answers={"MAIL": [CLOSES, "250 ok"]}), reconnect_strategy="ReconnectSameHost"
        )
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual((self.first.connections, self.second.connections), (2, 0))

    def test_same_host_has_an_end(self) -> None:
        """A host that closes every time is called twice, and no more."""
        world = self.world(Talker(answers={"MAIL": CLOSES}), reconnect_strategy="ReconnectSameHost")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure"])
        self.assertEqual((self.first.connections, self.second.connections), (2, 0))

    def test_terminate(self) -> None:
        """The message waits; the next host is left alone."""
        world = self.world(Talker(answers={"MAIL": CLOSES}), reconnect_strategy="TerminateSession")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure"])
        self.assertEqual((self.first.connections, self.second.connections), (1, 0))

    def test_connecting_is_not_affected(self) -> None:
        """A host that refuses the session is passed over, whatever the strategy."""
        world = self.world(Talker(answers={"": "554 no"}), reconnect_strategy="TerminateSession")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])


class CommandTests(SynchronousTestCase):
    """C{enable_pipelining} and C{enable_rset}."""

    def commands(self, **path: Any) -> list[str]:
        """What is said for two messages."""
        world = World(TWO_HOSTS, path=path)
        talker = Talker("PIPELINING")
        world.network.servers["192.0.2.1", 25] = talker
        world.inject("c@b.example")
        world.inject("d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "Delivery"])
        return [line.split()[0] for line in talker.said]

    def test_rset(self) -> None:
        """RSET comes between messages if it is wanted, and never before the first."""
        self.assertNotIn("RSET", self.commands())
        said = self.commands(enable_rset=True)
        self.assertEqual(said.count("RSET"), 1)
        self.assertGreater(said.index("RSET"), said.index("DATA"))

    def test_pipelining(self) -> None:
        """Without leave a server is not spoken to in groups; the message arrives all the same."""
        for allowed in (True, False):
            world = World(TWO_HOSTS, path={"enable_pipelining": allowed})
            talker = Talker("PIPELINING", answers={"MAIL": "550 5.7.1 no"})
            world.network.servers["192.0.2.1", 25] = talker
            world.inject("c@b.example")
            self.assertEqual("DATA" in talker.said, allowed)
