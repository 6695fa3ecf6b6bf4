"""What the client's machine refuses without asking the server."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.smtp.client import (
    Finished,
)
from kumotwist.wire.smtp.transaction import OutgoingTransaction, TransactionOutcome
from tests.wire_client_dialogue import Dialogue, codes


class LocalRefusalTests(SynchronousTestCase):
    """What is known without asking the server."""

    def refused(self, transaction: OutgoingTransaction, *extensions: bytes) -> TransactionOutcome:
        """The outcome of a transaction that must not be sent at all."""
        talk = Dialogue(b"PIPELINING", *extensions)
        self.assertEqual(talk.begin(transaction), b"")
        (event,) = talk.events()
        assert isinstance(event, Finished)
        self.assertTrue(event.outcome.session_usable)
        self.assertTrue(all(result.local for result in event.outcome.results))
        return event.outcome

    def test_too_big(self) -> None:
        """A message above the offered SIZE is not sent (RFC 1870, 6.1); one of that size is."""
        message = OutgoingTransaction("", ("a@example.com",), b"x" * 99)
        (reply,) = self.refused(message, b"SIZE 100").replies
        self.assertEqual((reply.code, str(reply.enhanced_code)), (552, "5.3.4"))
        talk = Dialogue(b"SIZE 101")
        self.assertEqual(talk.begin(message), b"MAIL FROM:<> SIZE=101\r\n")

    def test_8bit(self) -> None:
        """8-bit octets never go to a server without 8BITMIME; to others they are announced."""
        message = OutgoingTransaction("", ("a@example.com",), b"\xc3\xa4\r\n")
        (reply,) = self.refused(message).replies
        self.assertEqual((reply.code, str(reply.enhanced_code)), (554, "5.6.3"))
        talk = Dialogue(b"8BITMIME")
        self.assertEqual(talk.begin(message), b"MAIL FROM:<> BODY=8BITMIME\r\n")
        declared = OutgoingTransaction("", ("a@example.com",), b"a\r\n", body_8bit=True)
        self.assertEqual(Dialogue(b"SIZE").begin(declared), b"MAIL FROM:<> SIZE=3\r\n")

    def test_smtputf8(self) -> None:
        """A message that needs SMTPUTF8 does not go to a server without it (RFC 6531)."""
        for message in (
            OutgoingTransaction("", ("a@example.com",), b"", smtputf8=True),
            OutgoingTransaction("ä@example.org", ("a@example.com",), b""),
            OutgoingTransaction("", ("ä@example.com",), b""),
        ):
            (reply,) = self.refused(message).replies
            self.assertEqual(str(reply.enhanced_code), "5.6.7")
            self.assertIn(b" SMTPUTF8\r\n", Dialogue(b"SMTPUTF8").begin(message))

    def test_only_some_recipients(self) -> None:
        """An address that cannot be asked about does not keep the others from their mail."""
        talk = Dialogue(b"PIPELINING")
        message = OutgoingTransaction("", ("ä@example.com", "b@example.com", ""), b"x\r\n")
        self.assertEqual(
            talk.begin(message), b"MAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"
        )
        talk.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
        outcome = talk.outcome(b"250 ok\r\n")
        self.assertEqual(codes(outcome), [553, 250, 553])
        self.assertEqual([result.local for result in outcome.results], [True, False, True])

    def test_addresses_that_break_out(self) -> None:
        """No address can end its command or add a parameter to it."""
        for address in (
            "a@b>\r\nRCPT TO:<c@d", "a@b\n", "a b@c", "a@b> SIZE=1", "<a@b", "a\\@b", "\x00@b",
            '"a@b', "a@b\u2028", "\udc80@b", "x" * 300,
        ):  # fmt: skip
            sender = OutgoingTransaction(address, ("a@example.com",), b"")
            self.assertEqual(codes(self.refused(sender, b"SMTPUTF8")), [553], address)
            recipient = OutgoingTransaction("", (address,), b"")
            self.assertEqual(codes(self.refused(recipient, b"SMTPUTF8")), [553], address)

    def test_quoted_addresses(self) -> None:
        """A quoted local part may contain almost anything, and is sent as it is."""
        message = OutgoingTransaction("", ('"a b>\\""@example.com',), b"")
        self.assertIn(
            b'RCPT TO:<"a b>\\""@example.com>\r\n', Dialogue(b"PIPELINING").begin(message)
        )

    def test_lone_line_ends(self) -> None:
        """A body with a CR or LF that stands alone is not sent."""
        for body in (b"a\nb\r\n", b"a\r", b"\n.\n"):
            message = OutgoingTransaction("", ("a@example.com",), body)
            (reply,) = self.refused(message).replies
            self.assertEqual((reply.code, str(reply.enhanced_code)), (554, "5.6.0"))

    def test_nobody(self) -> None:
        """A transaction without recipients is our own mistake."""
        talk = Dialogue(b"SIZE")
        message = OutgoingTransaction("", (), b"")
        self.assertRaises(LocalProtocolError, talk.machine.begin, message)
