"""Reception: the reply after the commit, and nothing kept that nobody was told of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.interfaces import IReception
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.reception import IDS_A_LINE, MAX_ID_LINES, Reception
from kumotwist.queue.tls_wishes import tls_wish
from kumotwist.settings.types import HostPort
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.session import ServerSession
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.spool import SpoolError, SpoolFullError
from kumotwist.testing.spool import MemorySpool
from kumotwist.tls.facts import TLSFacts
from kumotwist.tls.policy import TLSWish
from kumotwist.wire.smtp.events import Recipient, Transaction
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.reply_reader import ReplyReader
from tests.queue_world import BODY, World

SESSION = ServerSession(
    "5" * 32, "main", "mta.example", HostPort("192.0.2.7", 40000), HostPort("192.0.2.8", 25),
    ehlo_domain="client.example", extended=True,
)  # fmt: skip


class SlowSpool(MemorySpool):
    """A spool whose commits wait until they are told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Deferred[None]] = []

    def store(
        self,
        body: bytes,
        messages: Sequence[QueuedMessage],
        replaced: Sequence[QueuedMessage] = (),
    ) -> Deferred[None]:
        """Keep it at once, say so later."""
        done: Deferred[None] = Deferred()
        self.commits.append(done)
        kept = super().store(body, messages, replaced)
        return done.addCallback(lambda _: kept)


def transaction(*recipients: str, body: bytes = BODY, **parameters: str | None) -> Transaction:
    """A complete transaction."""
    return Transaction(
        "a@sender.example", dict(parameters), [Recipient(each, {}) for each in recipients], body
    )


class ReceptionCase(SynchronousTestCase):
    """A reception over a world's spool."""

    def setUp(self) -> None:
        """Build it; what is inserted goes nowhere."""
        self.build(MemorySpool())

    def build(self, spool: MemorySpool, **facts: Any) -> None:
        """Build it over a spool."""
        self.world = World(spool=spool)
        self.spool = spool
        self.inserted: list[QueuedMessage] = []
        self.reception = Reception(
            self.world.network,
            spool,
            self.world.bodies,
            self.world.reception._recorder,
            self.inserted.extend,
            self.world.reception._naming,
            **facts,
        )

    def receive(self, *recipients: str, **facts: Any) -> Reply:
        """The reply to a message."""
        answer = self.reception.receive(SESSION, transaction(*recipients, **facts))
        return self.successResultOf(answer)


class QuestionTests(ReceptionCase):
    """What is answered before the message."""

    def test_interface(self) -> None:
        """It keeps the interface of a reception."""
        verifyObject(IReception, self.reception)

    def test_closed(self) -> None:
        """While the node cannot take mail clients get its reason instead of a greeting."""
        self.assertIsNone(self.reception.connected(SESSION))
        self.reception.closed = Reply.of(421, "4.3.2", "the node is starting")
        self.assertEqual(self.reception.connected(SESSION), self.reception.closed)

    def ask(self, address: str) -> int | None:
        """The code of the answer to a recipient."""
        empty = transaction()
        self.assertIsNone(self.reception.sender(SESSION, empty))
        reply = self.reception.recipient(SESSION, empty, Recipient(address, {}))
        return None if reply is None else reply.code

    def test_recipients(self) -> None:
        """Any domain that can be one is taken; a bare postmaster has no mailbox here."""
        for address, code in (
            ("c@b.example", None),
            ("c@[192.0.2.1]", None),
            ("jürgen@bücher.example", None),
            ("postmaster@b.example", None),
            ("postmaster", 550),
            ("PostMaster", 550),
            ("c@\N{ZERO WIDTH JOINER}.example", 553),
        ):
            self.assertEqual(self.ask(address), code, address)

    def test_rejected(self) -> None:
        """What a client was refused becomes a record."""
        self.reception.rejected(SESSION, Reply.of(550, "5.7.1", "no relaying"), "RCPT TO:<x@y.z>")
        (record,) = self.world.records()
        self.assertEqual(record["type"], "Rejection")
        self.assertEqual(record["response"]["command"], "RCPT TO:<x@y.z>")
        self.assertEqual(record["peer_address"], {"name": "client.example", "addr": "192.0.2.7"})
        self.assertEqual((record["sender"], record["recipient"]), ("", ""))

    def test_rejected_envelope(self) -> None:
        """The record carries the envelope: one recipient as text, several as a list."""
        for recipients, expected in ((["c@d"], "c@d"), (["c@d", "e@f"], ["c@d", "e@f"])):
            self.reception.rejected(
                SESSION, Reply.of(554, "5.6.0", "spam"), ".", "a@b.example", recipients
            )
            record = self.world.records()[-1]
            self.assertEqual((record["sender"], record["recipient"]), ("a@b.example", expected))


class TLSWishTests(ReceptionCase):
    """What a sender wants of TLS on the way (RFC 8689)."""

    def wish(self, body: bytes = BODY, sender: str = "a@b.example", **parameters: None) -> TLSWish:
        """What is kept with a message, as delivery reads it."""
        given = transaction("c@b.example", body=body, **parameters)
        given.sender = sender
        self.receive_transaction(given)
        return tls_wish(self.inserted[-1])

    def receive_transaction(self, given: Transaction) -> None:
        """Hand it in."""
        self.successResultOf(self.reception.receive(SESSION, given))

    def test_wishes(self) -> None:
        """REQUIRETLS is kept; TLS-Required counts without it; the null sender demands nothing."""
        waived = b"TLS-Required: no\r\n" + BODY
        self.assertIs(self.wish(), TLSWish.NOTHING)
        self.assertIs(self.wish(REQUIRETLS=None), TLSWish.REQUIRED)
        self.assertIs(self.wish(waived), TLSWish.WAIVED)
        self.assertIs(self.wish(waived, REQUIRETLS=None), TLSWish.REQUIRED)
        self.assertIs(self.wish(sender="", REQUIRETLS=None), TLSWish.NOTHING)
        self.assertTrue(self.inserted[-1].meta["requiretls"])


class ReceiveTests(ReceptionCase):
    """A message comes in."""

    def test_taken(self) -> None:
        """Each recipient's copy is stored, recorded and queued, and the reply has the ids."""
        reply = self.receive("c@b.example", "D@C.example")
        self.assertEqual(reply.code, 250)
        ids = re.findall(r"[0-9a-f]{32}", reply.content)
        self.assertEqual(ids, [message.id for message in self.inserted])
        self.assertEqual(set(ids), set(self.spool.messages))
        self.assertEqual(len(self.spool.bodies), 1)
        self.assertEqual([each.queue for each in self.inserted], ["b.example", "c.example"])
        self.assertEqual(self.world.kinds(), ["Reception", "Reception"])
        record = self.world.records()[0]
        self.assertEqual(record["response"]["content"], f"OK ids={ids[0]}")
        self.assertEqual(record["session_id"], SESSION.session_id)

    def test_trace_line(self) -> None:
        """A Received line is put on top, unless the listener was told not to."""
        self.receive("c@b.example")
        (stored,) = self.spool.bodies.values()
        self.assertTrue(stored.startswith(b"Received: from client.example ([192.0.2.7])"))
        self.assertTrue(stored.endswith(BODY))
        self.assertEqual(self.inserted[0].size, len(stored))
        self.build(MemorySpool(), untraced=["main"])
        self.receive("c@b.example")
        self.assertEqual(list(self.spool.bodies.values()), [BODY])

    def test_recipients_are_not_told_of_each_other(self) -> None:
        """The Received line names the recipient only if there is one."""
        self.receive("c@b.example", "d@b.example")
        (stored,) = self.spool.bodies.values()
        self.assertNotIn(b"c@b.example", stored)

    def test_tls(self) -> None:
        """The facts of the handshake are in the trace line and in the record."""
        facts = TLSFacts("TLS_AES_256_GCM_SHA384", "TLSv1.3", "", False, "")
        session = ServerSession(
            "5" * 32, "main", "mta.example", SESSION.peer, SESSION.local, tls=facts
        )
        self.successResultOf(self.reception.receive(session, transaction("c@b.example")))
        self.assertIn(b"TLSv1.3", next(iter(self.spool.bodies.values())))
        record = self.world.records()[0]
        self.assertEqual(record["tls_protocol_version"], "TLSv1.3")
        self.assertEqual(record["reception_protocol"], "ESMTPS")

    def test_smtputf8(self) -> None:
        """The trace line says whether SMTPUTF8 was said (RFC 6531, 3.7.3)."""
        sent = transaction("c@b.example")
        sent.parameters["SMTPUTF8"] = None
        self.successResultOf(self.reception.receive(SESSION, sent))
        self.assertIn(b" UTF8SMTP ", next(iter(self.spool.bodies.values())))

    def test_wishes(self) -> None:
        """What the sender wants to be told is kept, for each recipient its own (RFC 3461)."""
        with_wishes = transaction(RET="hdrs", ENVID="a+2Bb")
        with_wishes.recipients = [
            Recipient("c@b.example", {"NOTIFY": "never", "ORCPT": "RFC822;d+2Be@f.example"}),
            Recipient("g@b.example", {"NOTIFY": "FAILURE,DELAY"}),
            Recipient("h@b.example", {}),
        ]
        self.successResultOf(self.reception.receive(SESSION, with_wishes))
        wishes = [
            {key: value for key, value in message.meta.items() if key.startswith("dsn_")}
            for message in self.inserted
        ]
        both = {"dsn_ret": "HDRS", "dsn_envid": "a+b"}
        self.assertEqual(
            wishes,
            [
                {**both, "dsn_notify": [], "dsn_orcpt": "rfc822;d+e@f.example"},
                {**both, "dsn_notify": ["DELAY", "FAILURE"]},
                both,
            ],
        )

    def test_postmaster(self) -> None:
        """Mail for <postmaster> goes where the node says, and nowhere if it says nothing."""
        bare = Recipient("Postmaster", {})
        refusal: Any = self.reception.recipient(SESSION, transaction(), bare)
        self.assertEqual(refusal.code, 550)
        self.build(MemorySpool(), postmaster="ops@example.org")
        reception = self.reception
        self.assertIsNone(reception.recipient(SESSION, transaction(), bare))
        self.successResultOf(reception.receive(SESSION, transaction("Postmaster", "c@b.example")))
        self.assertEqual(
            [(message.recipient, message.queue) for message in self.inserted],
            [("ops@example.org", "example.org"), ("c@b.example", "b.example")],
        )

    def test_login_and_proxy(self) -> None:
        """Who logged in, and who spoke for the client, is kept with the message."""
        session = attrs.evolve(SESSION, user="ann", proxy=HostPort("10.0.0.1", 99))
        self.successResultOf(self.reception.receive(session, transaction("c@b.example")))
        meta = self.inserted[0].meta
        self.assertEqual((meta["authn_id"], meta["orig_received_from"]), ("ann", "10.0.0.1:99"))
        self.assertEqual(meta["reception_protocol"], "ESMTPA")

    def test_parameters(self) -> None:
        """What delivery must know of the envelope is kept."""
        self.receive("c@b.example", BODY="8BITMIME", SMTPUTF8=None)
        meta = self.inserted[0].meta
        self.assertEqual((meta["body"], meta["smtputf8"]), ("8BITMIME", True))

    def test_plain(self) -> None:
        """What the listener has seen of the body's lines need not be looked for again."""
        for plain in (True, False):
            given = transaction("c@b.example", "d@b.example")
            given.plain = plain
            self.successResultOf(self.reception.receive(SESSION, given))
            self.assertEqual([each.plain for each in self.inserted[-2:]], [plain, plain])

    def test_copies_are_independent(self) -> None:
        """What happens to one recipient's copy does not show in another's."""
        self.receive("c@b.example", "d@b.example")
        self.inserted[0].meta["delayed"] = "x"
        self.assertNotIn("delayed", self.inserted[1].meta)

    def test_loop(self) -> None:
        """A message that was relayed a hundred times is refused for good."""
        reply = self.receive("c@b.example", body=b"Received: x\r\n" * 101 + BODY)
        self.assertEqual((reply.code, str(reply.enhanced_code)), (554, "5.4.6"))
        self.assertEqual(self.spool.messages, {})
        self.assertEqual(self.receive("c@b.example", body=b"Received: x\r\n" * 100).code, 250)

    def test_reply_fits(self) -> None:
        """A thousand recipients get a reply of lines below 512 octets, with every id."""
        for count in (1, IDS_A_LINE, IDS_A_LINE + 1, 1024):
            reply = self.receive(*(f"u{number}@b.example" for number in range(count)))
            wire = reply.to_bytes()
            self.assertLessEqual(max(map(len, wire.splitlines(keepends=True))), 512)
            self.assertEqual(len(re.findall(rb"[0-9a-f]{32}", wire)), count)
            self.assertTrue(reply.lines[0].startswith("OK ids="))

    def test_reply_is_bounded(self) -> None:
        """However many recipients a listener allows, clients can read the reply."""
        reply = self.receive(*(f"u{number}@b.example" for number in range(5000)))
        left = 5000 - MAX_ID_LINES * IDS_A_LINE
        self.assertEqual(reply.lines[-1], f"and {left} more")
        reader = ReplyReader()
        reader.receive_data(reply.to_bytes())
        read = reader.next_reply()
        assert read is not None
        self.assertEqual(read.code, 250)

    def test_not_stored(self) -> None:
        """A spool that cannot store gives a temporary reply and leaves nothing behind."""
        for problem, code in ((SpoolFullError("full"), 452), (SpoolError("broken"), 451)):
            self.build(MemorySpool())
            self.spool.break_down(problem)
            self.assertEqual(self.receive("c@b.example").code, code)
            self.assertEqual((self.inserted, self.world.kinds()), ([], []))
            self.assertEqual(self.world.bodies.bytes, 0)

    def test_defect_of_the_spool(self) -> None:
        """An error that nobody expects is temporary, and logged in full."""
        self.build(SlowSpool())
        answer = self.reception.receive(SESSION, transaction("c@b.example"))
        self.commits()[0].errback(ZeroDivisionError("a defect"))
        self.assertEqual(self.successResultOf(answer).code, 451)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def commits(self) -> list[Deferred[None]]:
        """The commits that wait."""
        assert isinstance(self.spool, SlowSpool)
        return self.spool.commits

    def test_defect_of_the_queues(self) -> None:
        """A message that is on disk gets its 250, whatever breaks behind it."""

        def broken(messages: Sequence[QueuedMessage]) -> None:
            raise ZeroDivisionError("a defect")

        self.reception._insert = broken
        self.assertEqual(self.receive("c@b.example").code, 250)
        self.assertEqual(len(self.spool.messages), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class CancelTests(ReceptionCase):
    """Nobody waits for the answer any more."""

    def setUp(self) -> None:
        """Build it over a spool that takes its time."""
        self.slow = SlowSpool()
        self.build(self.slow)

    def test_before_the_commit(self) -> None:
        """A message whose client went away is taken back: no record, no delivery."""
        answer = self.reception.receive(SESSION, transaction("c@b.example", "d@b.example"))
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.slow.commits[0].callback(None)
        self.assertEqual((self.slow.messages, self.slow.bodies), ({}, {}))
        self.assertEqual((self.inserted, self.world.kinds()), ([], []))
        self.assertEqual(self.world.bodies.bytes, 0)

    def test_after_the_commit(self) -> None:
        """Once the 250 was given the message stays."""
        answer = self.reception.receive(SESSION, transaction("c@b.example"))
        self.slow.commits[0].callback(None)
        answer.cancel()
        self.assertEqual(self.successResultOf(answer).code, 250)
        self.assertEqual(len(self.slow.messages), 1)

    def test_nothing_was_stored(self) -> None:
        """There is nothing to take back if the commit failed."""
        answer = self.reception.receive(SESSION, transaction("c@b.example"))
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.slow.commits[0].errback(SpoolFullError("full"))
        self.assertEqual(self.world.kinds(), [])

    def test_cannot_be_taken_back(self) -> None:
        """A removal that fails is told to the operator; it is not delivered by this process."""
        answer = self.reception.receive(SESSION, transaction("c@b.example"))
        answer.addErrback(lambda _: None)
        answer.cancel()
        self.slow.close()
        self.slow.commits[0].callback(None)
        self.assertEqual((self.inserted, self.world.kinds()), ([], []))


class SessionTests(ReceptionCase):
    """Behind a real listener, in memory."""

    def setUp(self) -> None:
        """A listener over a spool that takes its time, and a client that has sent a message."""
        self.slow = SlowSpool()
        self.build(self.slow)
        factory = ESMTPListenerFactory(
            self.world.network,
            ListenerSettings(name="main", tls="none", data_processing_timeout=30.0),
            self.reception,
            node_hostname="mta.example",
        )
        peer = IPv4Address("TCP", "127.0.0.1", 40000)
        protocol = factory.buildProtocol(peer)
        assert protocol is not None
        self.protocol = protocol
        self.transport = StringTransport(hostAddress=peer, peerAddress=peer)
        self.protocol.makeConnection(self.transport)
        self.say(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@b.example>\r\n")
        self.say(b"DATA\r\n")
        self.transport.clear()
        self.say(BODY + b".\r\n")

    def say(self, data: bytes) -> None:
        """Send something to the listener."""
        self.protocol.dataReceived(data)

    def said(self) -> bytes:
        """What the listener has said since the message went in."""
        said: bytes = self.transport.value()
        return said

    def test_no_reply_before_the_commit(self) -> None:
        """The 250 comes after the commit, and only then."""
        self.assertEqual(self.said(), b"")
        self.slow.commits[0].callback(None)
        self.assertRegex(self.said(), rb"\A250 2\.0\.0 OK ids=[0-9a-f]{32}\r\n\Z")

    def test_client_goes_away(self) -> None:
        """A client that is gone before the commit has not handed anything in."""
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.slow.commits[0].callback(None)
        self.assertEqual((self.slow.messages, self.world.kinds()), ({}, []))

    def test_too_late(self) -> None:
        """After C{data_processing_timeout} the answer is 451, and no 250 follows it."""
        self.world.network.advance(31)
        self.assertTrue(self.said().startswith(b"451 "))
        self.transport.clear()
        self.slow.commits[0].callback(None)
        self.assertEqual(self.said(), b"")
        self.assertEqual(self.slow.messages, {})
        self.assertEqual(self.world.kinds(), ["Rejection"])
        self.assertEqual(self.inserted, [])

    def test_again_after_being_late(self) -> None:
        """The client's second attempt is a message of its own."""
        self.world.network.advance(31)
        self.say(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@b.example>\r\n")
        self.say(b"DATA\r\n")
        self.say(BODY + b".\r\n")
        for commit in self.slow.commits:
            commit.callback(None)
        self.assertEqual(len(self.slow.messages), 1)
        self.assertEqual(self.said().count(b"250 2.0.0 OK ids="), 1)
