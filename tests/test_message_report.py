"""Reports of failed messages, read back with a strict parser."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message import Notice, QueuedMessage, build_report, wants_report
from kumotwist.message.report import MAX_RETURNED_HEADER, MAX_RETURNED_MESSAGE, Action
from kumotwist.wire.smtp.replies import EnhancedCode, Reply

ORIGINAL = (
    b"Message-ID: <1@example.net>\r\nSubject: hello\r\nFrom: me@example.net\r\n\r\nthe text\r\n"
)
MESSAGE = QueuedMessage(
    id="0190163d8694739b8fa1000102030405",
    sender="me@example.net",
    recipient="you@example.org",
    queue="example.org",
    size=len(ORIGINAL),
    created=1751365957.0,
    due=0.0,
    attempts=3,
)
REPLY = Reply(550, EnhancedCode(5, 1, 1), ("no such user here",), "RCPT TO:<you@example.org>")
FAILURE = Notice(
    reason="The receiving server does not accept mail for this address.",
    reply=REPLY,
    remote_name="mx.example.org",
    remote_address="192.0.2.25",
    last_attempt=1751369557.0,
    source="ip-1",
)
NOW = 1751369558.0
STRICT = email.policy.SMTP.clone(raise_on_defect=True)


def report(
    original: bytes = ORIGINAL, failure: Notice = FAILURE, **changes: Any
) -> tuple[bytes, EmailMessage]:
    """Build a report and read it back, defects being errors."""
    message = attrs.evolve(MESSAGE, **changes)
    written = build_report(
        message, original, failure, reporting_mta="mta.example.net", report_id="f" * 32, now=NOW
    )
    parsed = email.message_from_bytes(written, policy=STRICT)
    assert isinstance(parsed, EmailMessage)
    return written, parsed


def parts(parsed: EmailMessage) -> list[EmailMessage]:
    """The three parts of a report."""
    return [part for part in parsed.iter_parts() if isinstance(part, EmailMessage)]


def status(parsed: EmailMessage) -> tuple[EmailMessage, EmailMessage]:
    """The two groups of fields of C{message/delivery-status}: the message's, the recipient's."""
    of_message, of_recipient = list(parts(parsed)[1].iter_parts())
    assert isinstance(of_message, EmailMessage)
    assert isinstance(of_recipient, EmailMessage)
    return of_message, of_recipient


class ReportTests(SynchronousTestCase):
    """RFC 3464 and RFC 6522."""

    def test_header(self) -> None:
        """The header names both sides, threads with the original and asks for no answer."""
        written, parsed = report()
        self.assertEqual(parsed["From"], "Mail Delivery System <postmaster@mta.example.net>")
        self.assertEqual(parsed["To"], "me@example.net")
        self.assertEqual(parsed["Auto-Submitted"], "auto-replied")
        self.assertEqual(parsed["MIME-Version"], "1.0")
        self.assertEqual(parsed["Message-ID"], f"<{'f' * 32}@mta.example.net>")
        self.assertEqual(parsed["In-Reply-To"], "<1@example.net>")
        self.assertEqual(parsed["Date"], "Tue, 01 Jul 2025 11:32:38 +0000")
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(parsed.get_param("report-type"), "delivery-status")
        self.assertTrue(written.isascii())

    def test_structure(self) -> None:
        """Words, fields and the original follow each other (RFC 6522, 3)."""
        kinds = [part.get_content_type() for part in parts(report()[1])]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "message/rfc822"])

    def test_words(self) -> None:
        """The human part says whom it failed for, why, who said so and how long it was tried."""
        text = " ".join(parts(report()[1])[0].get_content().split())
        for words in [
            "mail system at mta.example.net",
            "you@example.org",
            "The receiving server does not accept mail for this address.",
            "from mx.example.org [192.0.2.25]: 550 5.1.1 no such user here",
            "received on Tue, 01 Jul 2025 10:32:37 +0000",
            "tried for 60 minutes, 3 times.",
        ]:
            self.assertIn(words, text)

    def test_fields(self) -> None:
        """Programs find the fields of RFC 3464."""
        of_message, of_recipient = status(report()[1])
        self.assertEqual(
            of_message.items(),
            [
                ("Reporting-MTA", "dns; mta.example.net"),
                ("Arrival-Date", "Tue, 01 Jul 2025 10:32:37 +0000"),
            ],
        )
        self.assertEqual(
            of_recipient.items(),
            [
                ("Final-Recipient", "rfc822; you@example.org"),
                ("Action", "failed"),
                ("Status", "5.1.1"),
                ("Remote-MTA", "dns; mx.example.org"),
                ("Diagnostic-Code", "smtp; 550 5.1.1 no such user here"),
                ("Last-Attempt-Date", "Tue, 01 Jul 2025 11:32:37 +0000"),
                ("X-Kumotwist-Message-ID", "0190163d8694739b8fa1000102030405"),
                ("X-Kumotwist-Remote-Address", "192.0.2.25"),
                ("X-Kumotwist-Source", "ip-1"),
            ],
        )

    def test_host_without_a_name(self) -> None:
        """A host that a route names by its address is named once, as an address."""
        notice = attrs.evolve(FAILURE, remote_name="192.0.2.25")
        _, parsed = report(failure=notice)
        self.assertEqual(status(parsed)[1]["Remote-MTA"], "dns; [192.0.2.25]")
        self.assertIn("answer, from [192.0.2.25]:", parts(parsed)[0].get_content())

    def test_original_whole(self) -> None:
        """A small message comes back as it was."""
        returned = parts(report()[1])[2].get_content()
        self.assertEqual(returned["Subject"], "hello")
        self.assertEqual(returned.get_content(), "the text\r\n")
        self.assertIn(b"\r\n\r\n" + ORIGINAL, report()[0])

    def test_large_original(self) -> None:
        """Of a large message only the header comes back."""
        written, parsed = report(ORIGINAL + b"x" * 70 + b"\r\n" * MAX_RETURNED_MESSAGE)
        last = parts(parsed)[2]
        self.assertEqual(last.get_content_type(), "text/rfc822-headers")
        self.assertIn("Subject: hello", last.get_content())
        self.assertNotIn(b"the text", written)

    def test_huge_header(self) -> None:
        """A header without end is cut between two lines."""
        written, parsed = report(b"X-Long: value\r\n" * 100_000)
        lines = parts(parsed)[2].get_content().splitlines()
        self.assertEqual(set(lines), {"X-Long: value"})
        self.assertLess(len(written), MAX_RETURNED_HEADER + 4096)

    def test_8bit_original(self) -> None:
        """An 8-bit message is returned as its header, encoded, so that every host takes it."""
        written, parsed = report("Subject: größe\r\n\r\ntext\r\n".encode())
        self.assertTrue(written.isascii())
        self.assertEqual(parts(parsed)[2].get_content(), "Subject: größe\r\n")

    def test_odd_originals(self) -> None:
        """Bare CR or LF, NUL and overlong lines do not damage the report."""
        for original in [b"A: 1\nB: 2\n\nx", b"A: \r1\r\n\r\n", b"A: \0\r\n\r\n", b"A" * 2000, b""]:
            written, parsed = report(original)
            self.assertEqual(written.count(b"\r\n"), written.count(b"\n"), original)
            self.assertEqual(written.count(b"\r\n"), written.count(b"\r"), original)
            self.assertLess(max(map(len, written.split(b"\r\n"))), 999)
            self.assertEqual(len(parts(parsed)), 3)

    def test_boundary_is_unique(self) -> None:
        """A message that contains the boundary cannot break out of its part."""
        original = ORIGINAL + f"\r\n--report-{'f' * 32}--\r\n".encode()
        _, parsed = report(original)
        self.assertEqual(parsed.get_boundary(), f"report-{'f' * 32}x")
        self.assertEqual(len(parts(parsed)), 3)

    def test_expired(self) -> None:
        """A message that was deferred until it expired says so, with the last answer."""
        failure = attrs.evolve(
            FAILURE,
            reason="It was not accepted within 7 days.",
            reply=Reply(451, EnhancedCode(4, 7, 1), ("greylisted",)),
            status=EnhancedCode(4, 4, 7),
        )
        _, of_recipient = status(report(failure=failure)[1])
        self.assertEqual(of_recipient["Status"], "4.4.7")
        self.assertEqual(of_recipient["Diagnostic-Code"], "smtp; 451 4.7.1 greylisted")

    def test_status(self) -> None:
        """Without an enhanced code, or with one of another class, the basic code counts."""
        for reply, expected in [
            (None, "5.0.0"),
            (Reply(550, None, ("no",)), "5.0.0"),
            (Reply(451, None, ("no",)), "4.0.0"),
            (Reply(550, EnhancedCode(2, 1, 5), ("no",)), "5.0.0"),
            (Reply(552, EnhancedCode(5, 2, 2), ("full",)), "5.2.2"),
        ]:
            failure = Notice(reason="no", reply=reply)
            self.assertEqual(str(failure.reported_status()), expected)

    def test_nothing_known(self) -> None:
        """A failure before any host was reached has no remote host and no answer."""
        _, parsed = report(failure=Notice(reason="The domain does not exist."))
        _, of_recipient = status(parsed)
        self.assertNotIn("Remote-MTA", of_recipient)
        self.assertNotIn("Diagnostic-Code", of_recipient)
        self.assertNotIn("answer", parts(parsed)[0].get_content())

    def test_utf8_recipient(self) -> None:
        """An address that is not ASCII is written as RFC 6533 wants it in a 7-bit report."""
        written, parsed = report(recipient="Jürgen@bücher.example")
        _, of_recipient = status(parsed)
        self.assertEqual(
            of_recipient["Final-Recipient"], "utf-8; J\\x{FC}rgen@b\\x{FC}cher.example"
        )
        self.assertIn("Jürgen@bücher.example", parts(parsed)[0].get_content())
        self.assertTrue(written.isascii())

    def test_utf8_sender(self) -> None:
        """A sender that is not ASCII is addressed in UTF-8."""
        self.assertIn(
            "\r\nTo: <jürgen@example.net>\r\n".encode(), report(sender="jürgen@example.net")[0]
        )

    def test_utf8_reply(self) -> None:
        """A reply in another language is readable in the words and escaped in the fields."""
        failure = attrs.evolve(FAILURE, reply=Reply(550, None, ("plus de boîte",)))
        _, parsed = report(failure=failure)
        self.assertIn("550 plus de boîte", parts(parsed)[0].get_content())
        self.assertEqual(status(parsed)[1]["Diagnostic-Code"], "smtp; 550 plus de bo\\xeete")

    def test_long_reply(self) -> None:
        """Replies without end and without blanks are bounded."""
        for text in ["x" * 100_000, "word " * 20_000]:
            written, parsed = report(failure=attrs.evolve(FAILURE, reply=Reply(550, None, (text,))))
            self.assertLess(len(written), 8000)
            self.assertLess(max(map(len, written.split(b"\r\n"))), 998)
            self.assertIn("Last-Attempt-Date", status(parsed)[1])

    @given(st.text(max_size=60), st.text(min_size=1, max_size=60), st.text(max_size=60))
    def test_no_injection(self, text: str, address: str, name: str) -> None:
        """Whatever addresses and replies contain, the header and the parts stay what they are."""
        failure = attrs.evolve(
            FAILURE,
            reason=text,
            reply=Reply(550, None, (text + "\r\nBcc: evil\r\n\r\n",)),
            remote_name=name,
            remote_address=name,
            source=text,
        )
        message = attrs.evolve(MESSAGE, sender="x" + address, recipient=address)
        written = build_report(
            message,
            ORIGINAL,
            failure,
            reporting_mta="mta.example.net",
            report_id="0" * 32,
            now=NOW,
        )
        parsed = email.message_from_bytes(written)
        self.assertEqual(len(parsed.keys()), 10)
        self.assertNotIn("Bcc", parsed)
        payload: Any = parsed.get_payload()
        self.assertEqual(len(payload), 3)
        self.assertEqual(len(payload[1].get_payload()), 2)
        self.assertNotIn("Bcc", payload[1].get_payload()[1])
        self.assertEqual(written.count(b"\r\n"), written.count(b"\n"))

    def test_null_sender(self) -> None:
        """Nobody is told about a message from the null sender."""
        self.assertTrue(wants_report(MESSAGE))
        self.assertFalse(wants_report(attrs.evolve(MESSAGE, sender="")))
        self.assertRaises(ValueError, report, sender="")


class ActionTests(SynchronousTestCase):
    """Reports of what is no failure (RFC 3464, 2.3.3)."""

    def test_fields(self) -> None:
        """Each action says what became of the message, to people and to programs."""
        taken = Reply(250, EnhancedCode(2, 6, 0), ("queued",))
        greylisted = Reply(451, EnhancedCode(4, 7, 1), ("later",))
        actions: list[tuple[Action, Reply, str, str]] = [
            ("delivered", taken, "2.6.0", "was delivered"),
            ("relayed", taken, "2.6.0", "was passed on"),
            ("relayed", Reply(250, None, ("ok",)), "2.0.0", "was passed on"),
            ("delayed", greylisted, "4.7.1", "is delayed"),
            ("delayed", Reply(550, EnhancedCode(5, 1, 1), ("no",)), "4.0.0", "is delayed"),
        ]
        for action, reply, code, words in actions:
            notice = attrs.evolve(FAILURE, action=action, reply=reply, retry_until=NOW + 60)
            written, parsed = report(
                ORIGINAL,
                notice,
                meta={"dsn_notify": ["SUCCESS", "DELAY"], "dsn_ret": "FULL"},
            )
            _, of_recipient = status(parsed)
            self.assertEqual((of_recipient["Action"], of_recipient["Status"]), (action, code))
            self.assertIn(words, parsed["Subject"])
            self.assertEqual(of_recipient["Will-Retry-Until"], "Tue, 01 Jul 2025 11:33:38 +0000")
            self.assertEqual(parts(parsed)[2].get_content_type(), "text/rfc822-headers")
            self.assertNotIn(b"the text", written)

    def test_wishes(self) -> None:
        """Who is told of what: the words of NOTIFY, and what holds without them."""
        actions: tuple[Action, ...] = ("failed", "delayed", "delivered", "relayed")
        for meta, default, wanted in (
            ({}, False, [True, False, False, False]),
            ({}, True, [True, True, False, False]),
            ({"dsn_notify": []}, True, [False] * 4),
            ({"dsn_notify": ["SUCCESS"]}, True, [False, False, True, True]),
            ({"dsn_notify": ["DELAY", "FAILURE"]}, False, [True, True, False, False]),
        ):
            for sender, told in (("a@b", wanted), ("", [False] * 4), ("<>", [False] * 4)):
                message = attrs.evolve(MESSAGE, meta=dict(meta), sender=sender)
                self.assertEqual(
                    [wants_report(message, each, delay_by_default=default) for each in actions],
                    told,
                )

    @settings(deadline=None)
    @given(st.sampled_from(["delayed", "delivered", "relayed"]), st.text(max_size=60), st.text())
    def test_no_injection(self, action: Action, text: str, words: str) -> None:
        """Whatever was said, a report stays three parts of 7-bit lines."""
        notice = attrs.evolve(
            FAILURE, action=action, reason=text, reply=Reply(250, None, (words + "\r\nX: y",))
        )
        meta = {"dsn_notify": ["SUCCESS", "DELAY"], "dsn_envid": text, "dsn_orcpt": words}
        written, parsed = report(ORIGINAL, notice, meta=meta)
        self.assertEqual(len(parts(parsed)), 3)
        self.assertNotIn("X", status(parsed)[1])
        self.assertTrue(written.isascii())


class WishesTests(SynchronousTestCase):
    """What the sender asked for with RFC 3461."""

    def test_notify(self) -> None:
        """NEVER, and anything without FAILURE, is a wish not to be told of a failure."""
        for words, wanted in (([], False), (["DELAY", "SUCCESS"], False), (["FAILURE"], True)):
            message = attrs.evolve(MESSAGE, meta={"dsn_notify": words})
            self.assertEqual(wants_report(message), wanted)
        self.assertRaises(ValueError, report, meta={"dsn_notify": []})

    def test_names(self) -> None:
        """The sender's names for the message and its recipient come back."""
        wishes = {"dsn_envid": "QQ314159 x", "dsn_orcpt": "rfc822;Bob@Ex ample.com"}
        of_message, of_recipient = status(report(meta=wishes)[1])
        self.assertEqual(of_message["Original-Envelope-Id"], "QQ314159 x")
        self.assertEqual(of_recipient["Original-Recipient"], "rfc822;Bob@Ex ample.com")
        self.assertEqual(next(iter(of_message.keys())), "Original-Envelope-Id")
        of_message, of_recipient = status(report()[1])
        self.assertNotIn("Original-Envelope-Id", of_message)
        self.assertNotIn("Original-Recipient", of_recipient)

    def test_return(self) -> None:
        """HDRS brings the header back, FULL a large message whole."""
        large = ORIGINAL + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 1000
        for wish, original, kind in (
            ("HDRS", ORIGINAL, "text/rfc822-headers"),
            ("FULL", large, "message/rfc822"),
            (None, large, "text/rfc822-headers"),
            (None, ORIGINAL, "message/rfc822"),
        ):
            meta = {} if wish is None else {"dsn_ret": wish}
            self.assertEqual(parts(report(original, meta=meta)[1])[2].get_content_type(), kind)
