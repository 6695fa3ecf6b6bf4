"""BDAT as the client speaks it (RFC 3030)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.wire.errors import RemoteProtocolError
from kumotwist.wire.smtp.client import Finished, SendBody
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.transaction import OutgoingTransaction
from tests.queue_world import World
from tests.smtp_client_case import ClientCase
from tests.talker import Talker
from tests.wire_client_dialogue import GROUP, LOST, MESSAGE, Dialogue, codes

ONE_HOST = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
BEFORE_DATA = GROUP.removesuffix(b"DATA\r\n")


class MachineTests(SynchronousTestCase):
    """When BDAT is said, and what its reply means."""

    def begun(self, transaction: OutgoingTransaction = MESSAGE) -> Dialogue:
        """A transaction that has begun with a server that pipelines and takes chunks."""
        dialogue = Dialogue(b"PIPELINING", b"CHUNKING")
        dialogue.begin(transaction)
        return dialogue

    def test_taken(self) -> None:
        """BDAT follows the replies to RCPT; its reply decides for all who were accepted."""
        dialogue = self.begun()
        self.assertEqual(dialogue.said, BEFORE_DATA)
        events = dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n")
        self.assertEqual(events, [SendBody(chunk=True)])
        self.assertEqual(dialogue.said, b"BDAT 4 LAST\r\n")
        outcome = dialogue.outcome(b"250 taken\r\n")
        self.assertEqual(codes(outcome), [250, 250])
        self.assertEqual(outcome.replies[0].command, "BDAT 4 LAST")
        self.assertEqual(dialogue.begin(), BEFORE_DATA)

    def test_some_refused(self) -> None:
        """Those that were refused keep their refusal."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n550 no\r\n250 ok\r\n")
        self.assertEqual(codes(dialogue.outcome(b"250 taken\r\n")), [550, 250])

    def test_all_refused(self) -> None:
        """If nobody is accepted no BDAT is said, and RSET goes before the next message."""
        dialogue = self.begun()
        self.assertEqual(codes(dialogue.outcome(b"250 ok\r\n550 no\r\n551 no\r\n")), [550, 551])
        self.assertEqual(dialogue.said, b"")
        self.assertEqual(dialogue.begin(), b"RSET\r\n")

    def test_mail_refused(self) -> None:
        """A refused MAIL decides, even if the server accepts recipients behind it."""
        dialogue = self.begun()
        self.assertEqual(codes(dialogue.outcome(b"550 no\r\n250 ok\r\n250 ok\r\n")), [550, 550])
        self.assertEqual(dialogue.said, b"")

    def test_refused(self) -> None:
        """A refused chunk ends the transaction for everybody; RSET follows (RFC 3030, 2)."""
        for code in (452, 554):
            dialogue = self.begun()
            dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n")
            outcome = dialogue.outcome(b"%d no\r\n" % code)
            self.assertEqual(codes(outcome), [code, code])
            self.assertEqual(dialogue.begin(), b"RSET\r\n")

    def test_step_by_step(self) -> None:
        """Without PIPELINING every command waits for its turn."""
        dialogue = Dialogue(b"CHUNKING")
        said = [dialogue.begin()]
        for _ in range(3):
            dialogue.feed(b"250 ok\r\n")
            said.append(dialogue.said)
        self.assertEqual(b"".join(said), BEFORE_DATA + b"BDAT 4 LAST\r\n")
        self.assertEqual(codes(dialogue.outcome(b"250 ok\r\n")), [250, 250])

    def test_354(self) -> None:
        """A go-ahead has no place behind BDAT."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n")
        self.assertRaises(RemoteProtocolError, dialogue.feed, b"354 go\r\n")

    def test_reply_in_advance(self) -> None:
        """A reply to a chunk that was not announced is out of step."""
        dialogue = self.begun()
        self.assertRaises(
            RemoteProtocolError, dialogue.feed, b"250 ok\r\n250 ok\r\n250 ok\r\n250 taken\r\n"
        )

    def test_lost(self) -> None:
        """Lost behind the chunk, the message may have arrived."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n")
        outcome = dialogue.machine.abandon(LOST)
        assert outcome is not None
        self.assertTrue(outcome.possible_duplicate)
        self.assertIs(outcome.results[0].phase, Phase.DOT)

    def test_lost_before(self) -> None:
        """Lost before the chunk, it has not."""
        dialogue = self.begun()
        dialogue.feed(b"250 ok\r\n250 ok\r\n")
        outcome = dialogue.machine.abandon(Reply.of(421, "4.4.2", "lost"))
        assert outcome is not None
        self.assertFalse(outcome.possible_duplicate)

    @given(st.lists(st.sampled_from((250, 251, 450, 550, 452, 552)), min_size=3, max_size=3))
    @settings(max_examples=60, deadline=None)
    def test_same_as_data(self, replies: list[int]) -> None:
        """Whatever is said to MAIL and RCPT, recipients fare as they do with DATA."""
        outcomes = []
        for extensions, rest in (
            ((b"PIPELINING",), b"354 go\r\n250 ok\r\n"),
            ((b"PIPELINING", b"CHUNKING"), b"250 ok\r\n"),
        ):
            dialogue = Dialogue(*extensions)
            dialogue.begin()
            events: list[Any] = []
            for line in [b"%d x\r\n" % code for code in replies] + rest.splitlines(keepends=True):
                if not any(isinstance(event, Finished) for event in events):
                    events += dialogue.feed(line)
            (outcome,) = (event.outcome for event in events if isinstance(event, Finished))
            outcomes.append((codes(outcome), outcome.phases))
        self.assertEqual(outcomes[0], outcomes[1])


class ClientTests(ClientCase):
    """What goes out over a connection."""

    def sent(self, body: bytes) -> bytes:
        """What follows the replies to RCPT."""
        self.make()
        self.open(b"PIPELINING", b"CHUNKING")
        sending = self.client.send(OutgoingTransaction("", ("a@example.com",), body))
        self.said()
        self.client.dataReceived(b"250 ok\r\n250 ok\r\n")
        self.client.dataReceived(b"250 taken\r\n") if len(body) <= 65536 else None
        said = self.said()
        while self.transport.producer is not None:
            verifyObject(IPushProducer, self.transport.producer)
            self.transport.producer.resumeProducing()
            said += self.said()
        if len(body) > 65536:
            self.client.dataReceived(b"250 taken\r\n")
        self.assertTrue(self.successResultOf(sending).results[0].delivered)
        return said

    def test_as_it_is(self) -> None:
        """Dots are not doubled, nothing is added, whatever the size."""
        for body in (b"", b".\r\n", b".\r\n.\r\nQUIT\r\n", b"no end", b"\r\n.\r\n" * 60000):
            said = self.sent(body)
            self.assertEqual(said, b"BDAT %d LAST\r\n" % len(body) + body)


class DeliveryTests(SynchronousTestCase):
    """C{enable_chunking}."""

    def test_switch(self) -> None:
        """BDAT is used where it is offered, unless the path forbids it."""
        for allowed in (True, False):
            world = World(ONE_HOST, path={"enable_chunking": allowed})
            talker = Talker("CHUNKING", "PIPELINING")
            world.network.servers["192.0.2.1", 25] = talker
            body = b"Subject: x\r\n\r\n.a\r\n"
            world.inject("c@b.example", body=body)
            self.assertEqual(world.kinds(), ["Delivery"])
            self.assertEqual("DATA" in talker.said, not allowed)
            self.assertEqual(talker.messages, [body if allowed else body.replace(b".a", b"..a")])
