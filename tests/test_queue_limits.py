"""LIMITS (RFC 9422): what a server declares is kept to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathSettings
from kumotwist.queue.outgoing import most_transactions, within_limits
from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.replies import Reply
from tests.queue_world import World
from tests.talker import Talker

SHARED = {
    "b.example": ["MX 10 mx.b.example"],
    "c.example": ["MX 10 mx.b.example"],
    "mx.b.example": ["A 192.0.2.1"],
}


def offered(line: str) -> Capabilities:
    """The capabilities of a server that says this."""
    return Capabilities.from_ehlo(Reply.of(250, None, "mx", line))


class DeclarationTests(SynchronousTestCase):
    """How the declaration is read."""

    def test_limits(self) -> None:
        """Limits are read whatever their order and case; what is no number does not count."""
        found = offered("LIMITS rcptmax=20 MAILMAX=5 X=1 RCPTDOMAINMAX=1")
        self.assertEqual(
            [found.limit(name) for name in ("MAILMAX", "RCPTMAX", "RCPTDOMAINMAX")], [5, 20, 1]
        )
        for line in ("LIMITS", "LIMITS MAILMAX", "LIMITS MAILMAX=0", "LIMITS MAILMAX=x", "SIZE 1",
                     "LIMITS MAILMAX=-1", "LIMITS MAILMAX=9999999"):  # fmt: skip
            self.assertIsNone(offered(line).limit("MAILMAX"))

    def test_transactions(self) -> None:
        """The path's limit and the server's: the smaller one counts."""
        path = PathSettings(max_deliveries_per_connection=10)
        for line, most in (("LIMITS MAILMAX=5", 5), ("LIMITS MAILMAX=50", 10), ("SIZE", 10)):
            self.assertEqual(most_transactions(offered(line), path), most)


class DeliveryTests(SynchronousTestCase):
    """Deliveries to such a server."""

    def deliver(self, *recipients: str, limits: str) -> Talker:
        """Send one message to all of them."""
        world, talker = World(SHARED), Talker("PIPELINING", f"LIMITS {limits}")
        world.network.servers["192.0.2.1", 25] = talker
        messages = world.inject(*recipients)
        self.assertEqual(world.kinds(), ["Delivery"] * len(recipients))
        self.assertEqual(
            sorted(each["recipient"] for each in world.records()),
            sorted(message.recipient for message in messages),
        )
        return talker

    def transactions(self, talker: Talker) -> list[int]:
        """How many recipients each transaction had."""
        text = " ".join(line[:4] for line in talker.said)
        return [part.count("RCPT") for part in text.split("MAIL")[1:]]

    def test_recipients(self) -> None:
        """No transaction has more recipients than the server takes; none is lost."""
        talker = self.deliver(*(f"u{number}@b.example" for number in range(5)), limits="RCPTMAX=2")
        self.assertEqual(self.transactions(talker), [2, 2, 1])
        self.assertEqual(talker.connections, 1)

    def test_domains(self) -> None:
        """Nor recipients of more domains."""
        batch = World(SHARED).inject("a@b.example", "b@B.example", "c@c.example", "d@b.example")
        now, later = within_limits(batch, offered("LIMITS RCPTDOMAINMAX=1"))
        self.assertEqual((len(now), len(later)), (2, 2))
        now, later = within_limits(batch, offered("LIMITS RCPTDOMAINMAX=2 RCPTMAX=3"))
        self.assertEqual((len(now), len(later)), (3, 1))
        self.assertEqual(within_limits(batch, offered("SIZE")), (batch, []))

    def test_transactions(self) -> None:
        """After as many messages as the server takes, the connection is closed politely."""
        talker = self.deliver(
            *(f"u{number}@b.example" for number in range(5)), limits="RCPTMAX=1 MAILMAX=2"
        )
        self.assertEqual(self.transactions(talker), [1, 1, 1, 1, 1])
        self.assertEqual(talker.connections, 3)
        self.assertEqual(talker.said.count("QUIT"), 2)
