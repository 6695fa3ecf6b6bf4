"""The source of a retry: the same one after greylisting, another one after a block."""

from __future__ import annotations

import random

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.affinity import NO_PREFERENCE, Preference, preference, remember
from kumotwist.queue.verdicts import internal_reply
from kumotwist.wire.smtp.replies import Reply
from tests.source_case import SourceCase


class StickyTests(SourceCase):
    """The source of a retry."""

    def retry(self, reply: Reply, at: str = "rcpt") -> tuple[str, str]:
        """Refuse one message; give the sources of the first and of the second attempt."""
        names = [f"s{n}" for n in range(5)]
        world = self.world(**{name: {} for name in names})
        for _ in range(random.Random(at).randrange(4)):
            world.inject("first@b.example")
        world.sink("192.0.2.1", refuse=reply, refuse_at=at)
        world.network.pass_time(120)
        world.journal.records.clear()
        world.inject("x@b.example")
        world.sink("192.0.2.1")
        world.network.pass_time(70)
        world.network.pass_time(1300, step=60)
        first, second = world.records()
        self.assertEqual((first["type"], second["type"]), ("TransientFailure", "Delivery"))
        return first["egress_source"], second["egress_source"]

    def test_greylisted(self) -> None:
        """After greylisting the retry comes from the same source."""
        for reply in (
            Reply.of(450, "4.2.0", "Greylisted, see http://postgrey.example"),
            Reply.of(451, "4.7.1", "Please try again later"),
            Reply.of(450, None, "You are graylisted"),
        ):
            first, second = self.retry(reply)
            self.assertEqual(first, second, reply)

    def test_blocked(self) -> None:
        """After a block it comes from another one, also when the block is the greeting."""
        for reply, at in (
            (Reply.of(451, "4.7.1", "Your IP is blocked, see spamhaus.example"), "rcpt"),
            (Reply.of(421, "4.7.28", "unusual rate of mail from your address"), "mail"),
            (Reply.of(421, "4.7.0", "[TSS04] temporarily deferred"), "connect"),
        ):
            first, second = self.retry(reply, at)
            self.assertNotEqual(first, second, reply)

    def test_kinds(self) -> None:
        """What says nothing of the source leaves the choice alone, and the memory as it is."""
        message = QueuedMessage("1", "", "x@b.example", "b.example", 1, 0, 0)
        for reply in (
            Reply.of(452, "4.2.2", "mailbox full"),
            Reply.of(451, None, "try later"),
            internal_reply(451, "4.7.1", "greylisted, says our own text"),
        ):
            remember(message, "a", reply)
            self.assertEqual(preference(message), NO_PREFERENCE)
        remember(message, "a", Reply.of(450, "4.2.0", "greylisted"))
        remember(message, "b", Reply.of(452, "4.2.2", "mailbox full"))
        self.assertEqual(preference(message), Preference(prefer="a"))
        remember(message, "b", Reply.of(450, "4.7.606", "Access denied, banned sending IP"))
        self.assertEqual(preference(message), Preference(avoid="b"))

    def test_survives_a_restart(self) -> None:
        """The spool keeps the memory."""
        world = self.world(a={}, b={})
        world.sink("192.0.2.1", refuse=Reply.of(450, "4.2.0", "greylisted"), refuse_at="rcpt")
        (message,) = world.inject("x@b.example")
        kept = world.spool.messages[message.id]
        self.assertEqual(preference(kept).prefer, world.records()[0]["egress_source"])
