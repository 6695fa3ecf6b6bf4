"""What becomes of a message: records, the spool, reports, in the right order."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.journal import Trace
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.queue.bodies import Bodies
from kumotwist.queue.fate import Fates
from kumotwist.queue.recorder import AttemptFacts, Recorder
from kumotwist.queue.reporting import REPORT_RETRY
from kumotwist.queue.settings import QueuePattern, QueueTable
from kumotwist.queue.verdicts import INTERNAL, Scope, Verdict, internal_reply
from kumotwist.settings.layers import Rule
from kumotwist.spool import SpoolError, SpoolFullError
from kumotwist.testing.spool import MemorySpool
from kumotwist.wire.smtp.replies import Reply
from tests.queue_world import BODY, ListJournal

FACTS = AttemptFacts(pool="pool", source="one", site="mx.b.example", host="mx.b.example")
NO = Verdict(Scope.RECIPIENT, Reply.of(550, "5.1.1", "no such user"), permanent=True)
LATER = Verdict(Scope.HOST, internal_reply(451, "4.4.1", "cannot connect"))
PROXY = Verdict(Scope.SOURCE, internal_reply(451, "4.4.1", "proxy is down"), charge=False)
DAY = 86400.0


class SlowSpool(MemorySpool):
    """A spool whose reading waits until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[Deferred[None]] = []

    def load(self, message: QueuedMessage) -> Deferred[bytes]:
        """The body, later."""
        told: Deferred[None] = Deferred()
        self.reading.append(told)
        return told.addCallback(lambda _: super(SlowSpool, self).load(message))


class FateCase(SynchronousTestCase):
    """Fates over a spool in memory."""

    def setUp(self) -> None:
        """Build them."""
        self.build(MemorySpool())

    def build(self, spool: MemorySpool, **queue: Any) -> None:
        """Build them over a spool."""
        self.clock = Clock()
        self.clock.rightNow = 1_800_000_000.0
        self.spool = spool
        self.spool.open()
        self.bodies = Bodies(self.spool)
        self.journal = ListJournal()
        self.requeued: list[QueuedMessage] = []
        self.fates = Fates(
            self.clock,
            lambda: 0.5,
            self.spool,
            self.bodies,
            Recorder(self.clock, self.journal, Trace(self.clock), "node"),
            QueueTable([Rule(QueuePattern.parse("default"), queue)]),
            "mta.example",
            self.requeued.append,
        )

    def message(self, sender: str = "a@sender.example", **facts: Any) -> QueuedMessage:
        """A message in the spool, its body in memory."""
        now = self.clock.seconds()
        values = {"recipient": "c@b.example", "created": now, "due": now, **facts}
        message = QueuedMessage(
            id=new_id(now), sender=sender, queue="b.example", size=len(BODY), **values
        )
        self.spool.store(BODY, [message])
        message.body = BODY
        self.bodies.keep(message)
        return message

    def kinds(self) -> list[str]:
        """The types of the records."""
        return [record["type"] for record in self.journal.records]

    def report(self) -> tuple[QueuedMessage, str]:
        """The only report, as it was queued, and its text."""
        (report,) = self.requeued
        assert report.body is not None
        return report, report.body.decode()


class DeliveredTests(FateCase):
    """The destination took it."""

    def test_forgotten(self) -> None:
        """The record is written and the spool is rid of it."""
        self.fates.delivered(self.message(), Reply.of(250, None, "taken"), FACTS)
        self.assertEqual(self.kinds(), ["Delivery"])
        self.assertEqual((self.spool.messages, self.spool.bodies), ({}, {}))
        self.assertEqual(self.bodies.bytes, 0)

    def test_spool_is_closed(self) -> None:
        """A removal that fails is told to the operator; nothing is raised."""
        message = self.message()
        self.spool.close()
        self.fates.delivered(message, Reply.of(250, None, "taken"), FACTS)
        self.assertEqual(self.kinds(), ["Delivery"])


class FailedTests(FateCase):
    """An attempt failed."""

    def test_waits(self) -> None:
        """A temporary failure is recorded, charged, spooled and queued again."""
        message = self.message()
        self.fates.failed(message, LATER, FACTS)
        self.assertEqual(self.kinds(), ["TransientFailure"])
        self.assertEqual(self.requeued, [message])
        stored = self.spool.messages[message.id]
        self.assertEqual((stored.attempts, stored.due), (1, self.clock.seconds() + 1200))
        self.assertIn("cannot connect", stored.meta["last_reply"])
        self.assertEqual(self.bodies.bytes, 0)

    def test_uncharged(self) -> None:
        """What is not the message's fault does not make it wait longer each time."""
        message = self.message()
        for _ in range(3):
            self.fates.failed(message, Verdict(Scope.HOST, LATER.reply, charge=False), FACTS)
        self.assertEqual(message.attempts, 0)
        self.assertEqual(message.due, self.clock.seconds() + 1200)

    def test_spool_cannot_record_it(self) -> None:
        """A message whose new state cannot be written waits all the same."""
        message = self.message()
        message.meta["unwritable"] = object()
        self.fates.failed(message, LATER, FACTS)
        self.assertEqual(self.requeued, [message])

    def test_too_old_for_another_attempt(self) -> None:
        """The last attempt is made when C{max_age} is over; if it fails, the message expires."""
        message = self.message()
        self.clock.advance(7 * DAY - 600)
        self.fates.failed(message, LATER, FACTS)
        self.assertEqual(self.kinds(), ["TransientFailure"])
        self.assertEqual(message.due, message.created + 7 * DAY)
        self.clock.advance(600)
        self.fates.failed(message, LATER, FACTS)
        self.assertEqual(self.kinds()[1:], ["TransientFailure", "Expiration", "Reception"])
        self.assertIn("cannot connect", self.journal.records[2]["response"]["content"])

    def test_refused(self) -> None:
        """A permanent failure is recorded, reported and forgotten."""
        message = self.message(attempts=2)
        self.fates.failed(message, NO, FACTS)
        self.assertEqual(self.kinds(), ["Bounce", "Reception"])
        self.assertEqual(self.journal.records[0]["num_attempts"], 2)
        report, text = self.report()
        self.assertEqual(list(self.spool.messages), [report.id])
        self.assertEqual(
            (report.sender, report.recipient, report.queue),
            ("", "a@sender.example", "sender.example"),
        )
        self.assertEqual(report.meta["reports_on"], message.id)
        self.assertIn("550 5.1.1 no such user", text)
        self.assertIn("3 times", text)
        self.assertIn("Subject: hello", text)
        self.assertEqual(self.bodies.bytes, report.size)


TAKEN = Reply.of(250, "2.1.5", "taken")


class SuccessTests(FateCase):
    """What a sender hears who wants to know of success (RFC 3461)."""

    def wanted(self, *words: str, **meta: Any) -> QueuedMessage:
        """A message whose sender wants to hear of some events."""
        return self.message(meta={"dsn_notify": list(words), **meta})

    def test_relayed(self) -> None:
        """A host without DSN will not tell: the message was relayed, and its report is in the
        spool in its place."""
        message = self.wanted("SUCCESS", dsn_ret="FULL", dsn_envid="QQ1", dsn_orcpt="rfc822;x@y")
        self.fates.delivered(message, TAKEN, FACTS)
        self.assertEqual(self.kinds(), ["Delivery", "Reception"])
        report, text = self.report()
        self.assertEqual(list(self.spool.messages), [report.id])
        self.assertEqual((report.sender, report.recipient), ("", "a@sender.example"))
        for line in (
            "Subject: Your message was passed on",
            "Original-Envelope-Id: QQ1",
            "Original-Recipient: rfc822;x@y",
            "Action: relayed",
            "Status: 2.1.5",
            "Diagnostic-Code: smtp; 250 2.1.5 taken",
            "Content-Type: text/rfc822-headers",
        ):
            self.assertIn(f"{line}", text)
        # What was not lost does not come back (RFC 3461, 4.3).
        self.assertNotIn("Hello.", text)

    def test_host_with_dsn(self) -> None:
        """A host that offers DSN was told, and sends the report itself."""
        message = self.wanted("SUCCESS")
        self.fates.delivered(message, TAKEN, attrs.evolve(FACTS, dsn=True))
        self.assertEqual((self.kinds(), self.spool.messages), (["Delivery"], {}))

    def test_under_tls(self) -> None:
        """A report on mail with REQUIRETLS goes with it, and brings the header only."""
        message = self.message(meta={"requiretls": True, "dsn_ret": "FULL"})
        self.fates.failed(message, NO, FACTS)
        report, text = self.report()
        self.assertTrue(report.meta["requiretls"])
        self.assertNotIn("Hello.", text)

    def test_mail_store(self) -> None:
        """What a mail store takes over LMTP is delivered."""
        facts = attrs.evolve(FACTS, delivery_protocol="LMTP")
        self.fates.delivered(self.wanted("SUCCESS", "FAILURE"), Reply.of(250, None, "ok"), facts)
        text = self.report()[1]
        self.assertIn("Action: delivered", text)
        self.assertIn("Status: 2.0.0", text)

    def test_not_wanted(self) -> None:
        """Nobody hears of success who did not ask for it, and the null sender never."""
        for message in (
            self.message(),
            self.wanted(),
            self.wanted("FAILURE", "DELAY"),
            self.message(sender="", meta={"dsn_notify": ["SUCCESS"]}),
        ):
            self.fates.delivered(message, TAKEN, FACTS)
        self.assertEqual(self.kinds(), ["Delivery"] * 4)
        self.assertEqual(self.spool.messages, {})

    def test_disk_is_full(self) -> None:
        """A delivered message is never delivered again for want of room for its report."""
        message = self.wanted("SUCCESS")

        def refuse(*args: Any) -> Deferred[None]:
            return fail(SpoolFullError("disk full"))

        self.patch(self.spool, "store", refuse)
        self.fates.delivered(message, TAKEN, FACTS)
        self.assertEqual((self.spool.messages, self.requeued), ({}, []))
        self.clock.advance(REPORT_RETRY)
        del self.spool.store
        self.clock.advance(REPORT_RETRY)
        self.assertIn("Action: relayed", self.report()[1])
        self.assertIn("Subject: hello", self.report()[1])

    def test_sender_that_is_no_domain(self) -> None:
        """A sender who cannot be told does not keep the message."""
        message = self.message(sender="a@-.ß\u0301\u200b", meta={"dsn_notify": ["SUCCESS"]})
        self.fates.delivered(message, TAKEN, FACTS)
        self.assertEqual(self.spool.messages, {})


class DelayTests(FateCase):
    """What a sender hears of a message that is late."""

    def fail_after(self, message: QueuedMessage, seconds: float) -> None:
        """An attempt fails so long after the reception."""
        self.clock.advance(message.created + seconds - self.clock.seconds())
        self.fates.failed(message, LATER, FACTS)

    def reports(self) -> list[str]:
        """The texts of the reports so far."""
        return [(each.body or b"").decode() for each in self.requeued if "reports_on" in each.meta]

    def test_once(self) -> None:
        """A sender who asked is told once, when the message is old enough, and told how long it
        will be tried."""
        message = self.message(meta={"dsn_notify": ["DELAY"]})
        self.fail_after(message, 14399)
        self.assertEqual(self.reports(), [])
        for seconds in (14401, 20000, 30000):
            self.fail_after(message, seconds)
        (text,) = self.reports()
        for line in ("Action: delayed", "Status: 4.4.1", "Will-Retry-Until: ", "cannot connect"):
            self.assertIn(line, text)
        self.assertNotIn(INTERNAL, text)
        self.assertTrue(self.spool.messages[message.id].meta["dsn_delayed"])
        self.assertEqual(len(self.spool.messages), 2)

    def test_attempt_under_way(self) -> None:
        """A report that takes its time is made once, does not touch an attempt that has begun
        meanwhile, and only then counts as told."""
        spool = SlowSpool()
        self.build(spool)
        message = self.message(meta={"dsn_notify": ["DELAY"]})
        self.fail_after(message, 15000)
        self.fail_after(message, 16000)
        (told,) = spool.reading
        self.assertNotIn("dsn_delayed", spool.messages[message.id].meta)
        message.body = BODY
        told.callback(None)
        self.assertEqual(message.body, BODY)
        self.assertTrue(spool.messages[message.id].meta["dsn_delayed"])
        self.fail_after(message, 17000)
        self.assertEqual(len(self.reports()), 1)

    def test_held_source(self) -> None:
        """A message that waits for a source is late as well."""
        message = self.message(meta={"dsn_notify": ["DELAY"]})
        self.clock.advance(15000)
        for _ in range(2):
            self.fates.delayed(message, 10.0, internal_reply(451, "4.4.1", "all held"), "held")
        self.assertEqual(len(self.reports()), 1)

    def test_not_wanted(self) -> None:
        """By default only senders who asked are told; never the null sender."""
        self.fail_after(self.message(), 15000)
        self.fail_after(self.message(meta={"dsn_notify": ["FAILURE"]}), 15000)
        self.fail_after(self.message(meta={"dsn_notify": []}), 15000)
        self.fail_after(self.message(sender="", meta={"dsn_notify": ["DELAY"]}), 15000)
        self.assertEqual(self.reports(), [])

    def test_by_default(self) -> None:
        """C{delay_report_by_default} tells those who said nothing, and nobody else."""
        self.build(MemorySpool(), delay_report_by_default=True, delay_report_after=60.0)
        self.fail_after(self.message(), 61)
        self.fail_after(self.message(meta={"dsn_notify": ["FAILURE"]}), 61)
        self.assertEqual(len(self.reports()), 1)

    def test_fails_in_the_end(self) -> None:
        """After a report of the delay the failure is reported all the same."""
        message = self.message(meta={"dsn_notify": ["DELAY", "FAILURE"]})
        self.fail_after(message, 15000)
        self.fates.failed(message, NO, FACTS)
        self.assertEqual(len(self.reports()), 2)
        self.assertNotIn(message.id, self.spool.messages)


class WaitTests(FateCase):
    """Waits that are not the message's fault."""

    def wait(self, message: QueuedMessage, reason: str = "held") -> None:
        """The message is delayed once more."""
        self.fates.delayed(message, 10.0, internal_reply(451, "4.4.1", "all held"), reason)

    def test_recorded_once(self) -> None:
        """However often a wait is renewed, it is one record for each reason."""
        message = self.message()
        for reason in ("held", "held", "full", "full"):
            self.wait(message, reason)
        self.assertEqual(self.kinds(), ["Delayed", "Delayed"])
        self.assertEqual(message.due, self.clock.seconds() + 10)
        self.assertEqual(message.attempts, 0)

    def test_recorded_again_after_an_attempt(self) -> None:
        """A wait after an attempt is a new one."""
        message = self.message()
        self.wait(message)
        self.fates.failed(message, LATER, FACTS)
        self.wait(message)
        self.assertEqual(self.kinds(), ["Delayed", "TransientFailure", "Delayed"])

    def test_the_spool_is_left_alone(self) -> None:
        """A wait writes nothing: a thousand messages that wait for a proxy cost no disk."""
        message = self.message()
        self.wait(message)
        self.assertEqual(self.spool.messages[message.id].meta, {})

    def test_expires_while_held(self) -> None:
        """C{max_age} ends a message that never got an attempt, and its report says why."""
        message = self.message()
        self.wait(message)
        self.clock.advance(7 * DAY + 1)
        self.requeued.clear()
        self.wait(message)
        self.assertEqual(self.kinds(), ["Delayed", "Expiration", "Reception"])
        _, text = self.report()
        self.assertIn("all held", text)
        self.assertNotIn(INTERNAL, text)
        self.assertNotIn(message.id, self.spool.messages)

    def test_reason_of_a_proxy_is_remembered(self) -> None:
        """A message that only met a broken proxy expires with the proxy's failure as reason."""
        message = self.message()
        self.fates.held_up(message, PROXY, FACTS)
        self.clock.advance(8 * DAY)
        self.fates.expired(message, None, FACTS)
        content = self.journal.records[-2]["response"]["content"]
        self.assertEqual(
            content,
            f"{INTERNAL}message expired after 8 days; last failure: 451 4.4.1 proxy is down",
        )
        self.assertEqual(message.attempts, 0)

    def test_expired_without_a_reason(self) -> None:
        """A message of which nothing is known (the node was off for a week) expires plainly."""
        message = self.message()
        self.clock.advance(8 * DAY)
        self.fates.expired(message, None, FACTS)
        content = self.journal.records[0]["response"]["content"]
        self.assertEqual(content, f"{INTERNAL}message expired after 8 days")
        self.assertIn("Status: 5.4.7", self.report()[1])

    def test_durations(self) -> None:
        """Ages are told in the largest unit of which there are two."""
        for seconds, words in ((59, "59 seconds"), (7199, "120 minutes"), (7200, "2 hours")):
            self.setUp()
            message = self.message(sender="")
            self.clock.advance(seconds)
            self.fates.expired(message, None, FACTS)
            self.assertIn(words, self.journal.records[0]["response"]["content"])


class ReportTests(FateCase):
    """Reports that cannot be made, or not now."""

    def test_null_sender(self) -> None:
        """A message without a sender is forgotten without a report."""
        for sender in ("", "<>"):
            self.fates.failed(self.message(sender=sender), NO, FACTS)
        self.assertEqual(self.kinds(), ["Bounce", "Bounce"])
        self.assertEqual((self.requeued, self.spool.messages), ([], {}))

    def test_sender_who_does_not_want_to_know(self) -> None:
        """A message whose sender asked not to be told is forgotten without a report (RFC 3461)."""
        for words in ([], ["SUCCESS", "DELAY"]):
            self.fates.failed(self.message(meta={"dsn_notify": words}), NO, FACTS)
        self.assertNotIn("Reception", self.kinds())

    def test_sender_that_is_no_domain(self) -> None:
        """A sender who cannot be written to does not keep the message for ever."""
        for sender in ("a@\N{ZERO WIDTH JOINER}.example", "a@" + "ü" * 300, "a@-.\udcff"):
            self.setUp()
            self.fates.failed(
                self.message(sender=sender.replace("\udcff", "ß\u0301\u200b")), NO, FACTS
            )
            self.assertEqual(self.kinds(), ["Bounce"])
            self.assertEqual(self.spool.messages, {})
            self.assertEqual(self.bodies.bytes, 0)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sender_without_a_domain(self) -> None:
        """A sender without a domain gets a report that finds no way; it ends there."""
        self.fates.failed(self.message(sender="somebody"), NO, FACTS)
        report, _ = self.report()
        self.assertEqual(report.queue, "")

    def test_cannot_be_kept_now(self) -> None:
        """While the disk is full the message stays; the report is tried again, the message not."""
        message = self.message()
        self.spool.break_down(SpoolFullError("disk full"))
        self.fates.failed(message, NO, FACTS)
        for _ in range(3):
            self.assertIn(message.id, self.spool.messages)
            self.clock.advance(REPORT_RETRY)
        self.assertEqual((self.kinds(), self.requeued), (["Bounce"], []))
        self.spool.repair()
        self.clock.advance(REPORT_RETRY)
        self.assertEqual(self.kinds(), ["Bounce", "Reception"])
        self.assertEqual(list(self.spool.messages), [self.report()[0].id])
        self.clock.advance(10 * REPORT_RETRY)
        self.assertEqual(len(self.requeued), 1)

    def test_a_node_that_ends(self) -> None:
        """A report that meets a closed spool is left to the next process."""
        message = self.message()
        self.spool.close()
        self.fates.failed(message, NO, FACTS)
        self.assertIn(message.id, self.spool.messages)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_original_cannot_be_read(self) -> None:
        """A report on a message whose body is damaged goes without it."""
        message = self.message()
        self.bodies.drop(message)
        self.spool.bodies.clear()
        self.fates.failed(message, NO, FACTS)
        _, text = self.report()
        self.assertIn("no such user", text)
        self.assertNotIn("Subject: hello", text)

    def test_report_is_stored_before_the_message_goes(self) -> None:
        """At no moment is there neither the message nor its report."""
        spool = SlowSpool()
        self.build(spool)
        message = self.message()
        self.bodies.drop(message)
        self.fates.failed(message, NO, FACTS)
        self.assertEqual(self.kinds(), ["Bounce"])
        self.assertEqual(list(spool.messages), [message.id])
        spool.reading.pop().callback(None)
        self.assertEqual(list(spool.messages), [self.report()[0].id])

    def test_a_report_happens_once(self) -> None:
        """What goes wrong after a report was stored does not make a second one."""

        def refuse(message: QueuedMessage) -> None:
            raise RuntimeError("a defect")

        self.fates._reporter._requeue = refuse
        self.fates.failed(self.message(), NO, FACTS)
        self.clock.advance(10 * REPORT_RETRY)
        self.assertEqual(len(self.spool.messages), 1)
        self.assertEqual(self.kinds(), ["Bounce", "Reception"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_eight_bit_sender(self) -> None:
        """A sender beyond ASCII is reported to under its domain's A-labels."""
        self.fates.failed(self.message(sender="jürgen@bücher.example"), NO, FACTS)
        self.assertEqual(self.report()[0].queue, "xn--bcher-kva.example")

    def test_any_spool_error(self) -> None:
        """A spool that fails otherwise is tried again as well."""
        message = self.message()
        self.spool.break_down(SpoolError("input/output error"))
        self.fates.failed(message, NO, FACTS)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
