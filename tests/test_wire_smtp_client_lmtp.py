"""LMTP (RFC 2033): the same dialogue, but every recipient has its own answer to the message."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathTable
from kumotwist.queue.plan import Planner
from kumotwist.queue.settings import SMART_HOST, QueueSettings
from kumotwist.testing.dns import FakeResolver
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import Finished, Refused, SendBody, SMTPClient
from kumotwist.wire.smtp.dialect import Dialect
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.transaction import TransactionOutcome
from tests.queue_world import World
from tests.talker import Talker
from tests.wire_client_dialogue import GROUP, LOST, MESSAGE, Dialogue, codes


class LMTPDialogue(Dialogue):
    """A dialogue with an LMTP server."""

    def __init__(self, *extensions: bytes) -> None:
        self.machine = SMTPClient("me.example", Dialect(lmtp=True))
        self.feed(b"220 store LMTP\r\n")
        self.hello = self.said
        if extensions:
            self.feed(b"".join(b"250-%b\r\n" % line for line in (b"store", *extensions)))
            self.feed(b"250 HELP\r\n")
        self.said = b""


class MachineTests(SynchronousTestCase):
    """What the machine says, and how it reads the answers."""

    def begun(self, *extensions: bytes) -> LMTPDialogue:
        """A transaction for two recipients."""
        dialogue = LMTPDialogue(b"PIPELINING", *extensions)
        dialogue.begin(MESSAGE)
        return dialogue

    def test_lhlo(self) -> None:
        """The greeting is LHLO; nothing else is tried if it is refused."""
        dialogue = LMTPDialogue()
        self.assertEqual(dialogue.hello, b"LHLO me.example\r\n")
        (event,) = dialogue.feed(b"500 what?\r\n")
        assert isinstance(event, Refused)
        self.assertIs(event.phase, Phase.EHLO)

    def test_one_reply_each(self) -> None:
        """Replies to the message belong to the accepted recipients, in their order."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        self.assertEqual(dialogue.feed(b"250 kept\r\n"), [])
        outcome = dialogue.outcome(b"552 5.2.2 over quota\r\n")
        self.assertEqual(codes(outcome), [250, 552])
        self.assertEqual(outcome.phases, ("dot", "dot"))
        self.assertTrue(outcome.results[1].permanent)
        self.assertEqual(dialogue.begin(), GROUP)

    def test_refused_recipients_have_none(self) -> None:
        """A recipient that was refused gets no second answer."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
        self.assertEqual(codes(dialogue.outcome(b"451 later\r\n")), [550, 451])

    def test_nobody_accepted(self) -> None:
        """A go-ahead for nobody ends the session: no reply is due to the message."""
        dialogue = self.begun()
        outcome = dialogue.outcome(b"250 ok\r\n550 no\r\n550 no\r\n354 go\r\n")
        self.assertEqual(codes(outcome), [550, 550])
        self.assertEqual((dialogue.said, outcome.session_usable), (b".\r\n", False))

    def test_chunk(self) -> None:
        """The last chunk is answered for each of them too (RFC 2033, 4.3)."""
        dialogue = self.begun(b"CHUNKING")
        self.assertEqual(dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n"), [SendBody(chunk=True)])
        self.assertEqual(codes(dialogue.outcome(b"250 a\r\n450 b\r\n")), [250, 450])

    def test_lost_between_replies(self) -> None:
        """Who has an answer keeps it; the others may have got the message, or not."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        dialogue.feed(b"250 kept\r\n")
        outcome = dialogue.machine.abandon(LOST)
        assert outcome is not None
        self.assertEqual(codes(outcome), [250, 421])
        self.assertTrue(outcome.possible_duplicate)

    def test_421_between_replies(self) -> None:
        """A 421 is the answer for all that have none."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        outcome = dialogue.outcome(b"250 kept\r\n421 bye\r\n")
        self.assertEqual((codes(outcome), outcome.session_usable), ([250, 421], False))

    def test_cut_anywhere(self) -> None:
        """The pieces in which replies arrive do not matter."""
        replies = b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 a\r\n550 b\r\n"
        dialogue = self.begun()
        found: list[TransactionOutcome] = []
        for at in range(len(replies)):
            dialogue.machine.receive_data(replies[at : at + 1])
            while (event := dialogue.machine.next_event()) is not NEED_DATA:
                if isinstance(event, SendBody):
                    dialogue.machine.body_sent()
                elif isinstance(event, Finished):
                    found.append(event.outcome)
        self.assertEqual([codes(outcome) for outcome in found], [[250, 550]])


class _Store(Talker):
    """An LMTP server: two replies to each message."""

    def answer(self, line: str) -> str | None:
        """Answer a message once for each of two recipients."""
        if line == ".":
            return "250 kept\r\n452 4.2.2 full"
        return super().answer(line)


class DeliveryTests(SynchronousTestCase):
    """C{protocol = lmtp}."""

    def world(self, store: Any, **path: Any) -> World:
        """Queues that deliver to a mail store."""
        queue = {"protocol": "lmtp", "route": (SMART_HOST.parse("[192.0.2.9]:24"),)}
        world = World({}, queue=queue, path=path)
        world.network.servers["192.0.2.9", 24] = store
        return world

    def test_fates(self) -> None:
        """Each recipient has its own fate, and the record says LMTP."""
        store = _Store("PIPELINING")
        world = self.world(store)
        world.inject("c@b.example", "d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "TransientFailure"])
        self.assertEqual(store.said[0], "LHLO mta.example")
        self.assertEqual({each["delivery_protocol"] for each in world.records()}, {"LMTP"})

    def test_lost_between_replies(self) -> None:
        """A recipient whose answer came before the connection was lost has the message."""

        class Cutting(_Store):
            def answer(self, line: str) -> str | None:
                return "250 kept" if line == "." else super().answer(line)

        store = Cutting("PIPELINING")
        world = self.world(store, data_dot_timeout=10.0)
        world.inject("c@b.example", "d@b.example")
        world.network.pass_time(11)
        self.assertEqual(sorted(world.kinds()), ["Delivery", "TransientFailure"])

    def test_sites(self) -> None:
        """A site that speaks LMTP is not the one that speaks SMTP."""
        sites = []
        for protocol in ("smtp", "lmtp"):
            settings = QueueSettings(protocol=protocol, route=(SMART_HOST.parse("[192.0.2.9]:24"),))
            planner = Planner(FakeResolver({}), PathTable())
            plan = self.successResultOf(planner.plan("b.example", settings))
            sites.append((plan.site, plan.lmtp))
        self.assertEqual(sites, [("[192.0.2.9]:24", False), ("lmtp:[192.0.2.9]:24", True)])
