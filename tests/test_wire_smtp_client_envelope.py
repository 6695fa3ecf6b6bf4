"""What stands in MAIL and RCPT: internationalised addresses, and the reports that are wanted."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.smtp.capabilities import Capabilities
from kumotwist.wire.smtp.dsn import parse_orcpt
from kumotwist.wire.smtp.envelope import (
    mail_command,
    message_refusal,
    plain_commands,
    rcpt_command,
    recipient_refusal,
)
from kumotwist.wire.smtp.transaction import OutgoingTransaction, TransactionOutcome
from tests.queue_world import World
from tests.talker import Talker
from tests.wire_client_dialogue import Dialogue

BODY = b"Subject: hi\r\n\r\nhi\r\n"
ONE_HOST = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
REPORTS: dict[str, Any] = {
    "dsn_ret": "HDRS",
    "dsn_envid": "QQ+314",
    "dsn_notify": ["SUCCESS", "FAILURE"],
}


def said(transaction: OutgoingTransaction, *extensions: bytes) -> list[str]:
    """The MAIL and RCPT commands of a transaction."""
    lines = Dialogue(b"PIPELINING", *extensions).begin(transaction).decode().split("\r\n")
    return [line for line in lines if line not in {"", "DATA"}]


class PlainTests(SynchronousTestCase):
    """Messages that need nothing but their addresses said are looked at less."""

    def test_the_usual_message(self) -> None:
        """An ASCII message for one recipient is one of them."""
        transaction = OutgoingTransaction(
            "a@a.example", ("b@b.example",), BODY, line_ends_checked=True
        )
        self.assertEqual(
            plain_commands(transaction, Capabilities({"SIZE": "", "8BITMIME": ""})),
            (f"MAIL FROM:<a@a.example> SIZE={len(BODY)}", "RCPT TO:<b@b.example>"),
        )

    @settings(max_examples=150, deadline=None)
    @given(
        st.fixed_dictionaries(
            {
                "sender": st.sampled_from(["", "a@a.example", "ü@a.example", "a>b@a.example"]),
                "recipients": st.sampled_from(
                    [("b@b.example",), ("b@b.example", "c@b.example"), ("",), ("b@bü.example",)]
                ),
                "body": st.sampled_from([BODY, b"", b"no line end", "ü\r\n".encode()]),
                "line_ends_checked": st.booleans(),
            },
            optional={
                "body_8bit": st.booleans(),
                "binary": st.booleans(),
                "smtputf8": st.booleans(),
                "requiretls": st.booleans(),
                "ret": st.just("HDRS"),
                "envid": st.just("x"),
                "notify": st.just(("NEVER",)),
                "orcpt": st.just(("rfc822;x@b.example",)),
            },
        ),
        st.dictionaries(
            st.sampled_from(["SIZE", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "CHUNKING"]),
            st.sampled_from(["", "8", "1000"]),
        ),
    )
    def test_like_all_others(self, values: dict[str, Any], extensions: dict[str, str]) -> None:
        """Nothing else is said of them, or refused, than after the closer look."""
        transaction, offered = OutgoingTransaction(**values), Capabilities(extensions)
        commands = plain_commands(transaction, offered)
        if commands is None:
            return
        self.assertEqual(commands[0], mail_command(transaction, offered))
        self.assertEqual(commands[1], rcpt_command(transaction, 0, offered))
        self.assertIsNone(message_refusal(transaction, offered))
        self.assertIsNone(recipient_refusal(transaction.recipients[0], offered))


class AddressTests(SynchronousTestCase):
    """Addresses beyond ASCII (RFC 6531)."""

    def refused(self, **values: Any) -> TransactionOutcome:
        """The outcome of a transaction in which some are refused without being asked about."""
        dialogue = Dialogue(b"PIPELINING")
        transaction = OutgoingTransaction(
            **{"sender": "a@a.example", "recipients": ("b@b.example",), "body": BODY, **values}
        )
        dialogue.begin(transaction)
        dialogue.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
        return dialogue.outcome(b"250 ok\r\n")

    def test_a_labels(self) -> None:
        """Without SMTPUTF8 domains go in A-labels, where the local part is ASCII."""
        transaction = OutgoingTransaction("a@münchen.example", ("b@Bücher.example",), BODY)
        self.assertEqual(
            said(transaction),
            [
                "MAIL FROM:<a@xn--mnchen-3ya.example>",
                "RCPT TO:<b@xn--bcher-kva.example>",
            ],
        )

    def test_u_labels(self) -> None:
        """With SMTPUTF8 they stay as they are."""
        transaction = OutgoingTransaction("a@münchen.example", ("ü@b.example",), BODY)
        self.assertEqual(
            said(transaction, b"SMTPUTF8", b"8BITMIME"),
            ["MAIL FROM:<a@münchen.example> SMTPUTF8", "RCPT TO:<ü@b.example>"],
        )

    def test_local_parts(self) -> None:
        """A local part cannot be converted: that recipient is refused, others get the message."""
        outcome = self.refused(recipients=("ü@b.example", "b@b.example"))
        self.assertEqual([str(reply)[:9] for reply in outcome.replies], ["553 5.6.7", "250 ok"])
        self.assertTrue(outcome.results[0].permanent)

    def test_senders(self) -> None:
        """Nor can a sender's: nobody gets the message."""
        dialogue = Dialogue(b"PIPELINING")
        dialogue.machine.begin(OutgoingTransaction("ü@a.example", ("b@b.example",), BODY))
        outcome = dialogue.outcome(b"")
        self.assertEqual([str(reply)[:9] for reply in outcome.replies], ["554 5.6.7"])
        self.assertEqual(dialogue.said, b"")

    def test_quoted_local_part(self) -> None:
        """A quoted local part with an @ does not confuse it."""
        transaction = OutgoingTransaction("", ('"x@ü"@b.example', '"x@y"@ü.example'), BODY)
        self.assertEqual(said(transaction), ["MAIL FROM:<>", 'RCPT TO:<"x@y"@xn--tda.example>'])


class DeclaredTests(SynchronousTestCase):
    """Messages that came with SMTPUTF8, on the way to a server without it."""

    def kinds(self, body: bytes) -> list[str]:
        """What becomes of a message."""
        world = World(ONE_HOST)
        world.network.servers["192.0.2.1", 25] = Talker("8BITMIME")
        world.inject("c@b.example", body=body, smtputf8=True)
        return world.kinds()

    def test_not_needed(self) -> None:
        """If nothing in the message needs it, the message goes without."""
        self.assertEqual(self.kinds(BODY), ["Delivery"])

    def test_needed(self) -> None:
        """If something may, the message is returned."""
        self.assertEqual(self.kinds("Subject: ü\r\n\r\nhi\r\n".encode())[0], "Bounce")


class ReportTests(SynchronousTestCase):
    """DSN (RFC 3461): passed on where it is offered."""

    MESSAGE = OutgoingTransaction(
        "a@a.example",
        ("b@b.example", "c@b.example", "d@b.example"),
        BODY,
        ret="hdrs",
        envid="QQ+2B314159",
        notify=("SUCCESS,FAILURE", "", "never"),
        orcpt=("rfc822;B+40b@b.example",),
    )

    def test_offered(self) -> None:
        """Everything that was asked for is asked for again."""
        self.assertEqual(
            said(self.MESSAGE, b"DSN"),
            [
                "MAIL FROM:<a@a.example> RET=HDRS ENVID=QQ+2B314159",
                "RCPT TO:<b@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;B+40b@b.example",
                "RCPT TO:<c@b.example>",
                "RCPT TO:<d@b.example> NOTIFY=NEVER",
            ],
        )

    def test_not_offered(self) -> None:
        """A server that does not know of it hears nothing of it."""
        self.assertEqual(
            said(self.MESSAGE),
            [
                "MAIL FROM:<a@a.example>",
                "RCPT TO:<b@b.example>",
                "RCPT TO:<c@b.example>",
                "RCPT TO:<d@b.example>",
            ],
        )

    @given(st.text(max_size=30), st.text(max_size=30))
    @settings(max_examples=100, deadline=None)
    def test_injection(self, one: str, other: str) -> None:
        """Whatever comes from outside, no command is anything but one well-formed line."""
        for text in (one, other, f"{one}\r\nRCPT TO:<x@y.example>", "SUCCESS,NEVER", "x" * 600):
            transaction = attrs.evolve(
                self.MESSAGE, ret=text, envid=text, notify=(text,), orcpt=(f"rfc822;{text}", text)
            )
            lines = said(transaction, b"DSN")
            self.assertEqual(len(lines), 4)
            for line in lines:
                self.assertRegex(
                    line,
                    r"^(MAIL FROM|RCPT TO):<[^<> ]*>( (RET|ENVID|NOTIFY|ORCPT)=[!-~]+)*$",
                )
                self.assertLess(len(line), 600)
                self.assertNotIn("NOTIFY=SUCCESS,NEVER", line)

    def test_unicode(self) -> None:
        """An original recipient beyond ASCII is passed on, to a host without SMTPUTF8 too."""
        orcpt = parse_orcpt("utf-8;dü+x@b.example")
        for offered in (("DSN",), ("DSN", "SMTPUTF8")):
            world, talker = World(ONE_HOST), Talker(*offered)
            world.network.servers["192.0.2.1", 25] = talker
            world.inject("c@b.example", dsn_orcpt=orcpt)
            [line] = [line for line in talker.said if line.startswith("RCPT")]
            self.assertEqual(line, r"RCPT TO:<c@b.example> ORCPT=utf-8;d\x{FC}\x{2B}x@b.example")

    def test_from_the_queue(self) -> None:
        """What was stored with a message reaches the next hop."""
        world, talker = World(ONE_HOST), Talker("DSN", "PIPELINING")
        world.network.servers["192.0.2.1", 25] = talker
        world.inject("c@b.example", dsn_orcpt="rfc822;c@b.example", **REPORTS)
        self.assertEqual(world.kinds(), ["Delivery"])
        world.inject("d@b.example", dsn_notify=["DELAY", "SUCCESS"])
        world.inject("e@b.example", dsn_notify=[])
        self.assertEqual(
            [line for line in talker.said if line.startswith("RCPT")][1:],
            ["RCPT TO:<d@b.example> NOTIFY=DELAY,SUCCESS", "RCPT TO:<e@b.example> NOTIFY=NEVER"],
        )
        self.assertEqual(
            talker.said[1:3],
            [
                "MAIL FROM:<a@sender.example> RET=HDRS ENVID=QQ+2B314",
                "RCPT TO:<c@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;c@b.example",
            ],
        )
