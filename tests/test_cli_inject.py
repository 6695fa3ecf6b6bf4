"""C{kumo inject}: what it says to the listener, what it tells people, and its exit statuses."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.cli import main
from kumotwist.cli.inject import FAILED, REFUSED, UNDECIDED, build_message
from tests.fake_socket import FakeSocket

ID, OTHER = "0" * 31 + "1", "0" * 31 + "2"

HELLO = ["220 mta.example", "250-mta.example\r\n250-8BITMIME\r\n250 SMTPUTF8"]
TAKEN = [*HELLO, "250 sender", "250 recipient", "354 go", f"250 2.0.0 OK ids={ID}", "221 bye"]


def event(kind: str, *ids: str, **facts: Any) -> dict[str, Any]:
    """A line of the trace."""
    return {"event": kind, "ids": list(ids or [ID]), "recipient": "you@b.example", **facts}


class InjectCase(SynchronousTestCase):
    """The command, between a listener and a trace whose words are written down."""

    def inject(
        self,
        *arguments: str,
        smtp: Sequence[str] | OSError = TAKEN,
        trace: Sequence[dict[str, Any]] | OSError | None = None,
        then: type[BaseException] | None = None,
        **facts: Any,
    ) -> Result:
        """Run it.

        @param smtp: the listener's replies.
        @param trace: the events behind the first one.
        @param then: what reading the trace beyond its end raises.
        """
        lines = [{"event": "watching"}, *([] if isinstance(trace, OSError) else trace or [])]
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        head = b"HTTP/1.1 200 OK\r\n\r\n"

        def connect(address: tuple[str, int], *_args: object, **_facts: object) -> FakeSocket:
            self.places.append(address)
            failure = trace if address[1] == 8000 else smtp
            if isinstance(failure, OSError):
                raise failure
            if address[1] == 8000:
                return FakeSocket(head + body, then)
            assert not isinstance(smtp, OSError)
            self.listener = FakeSocket("".join(f"{reply}\r\n" for reply in smtp).encode())
            return self.listener

        self.places: list[tuple[str, int]] = []
        self.patch(socket, "create_connection", connect)
        arguments = arguments or ("--to", "you@b.example")
        self.result = CliRunner().invoke(main, ["inject", *arguments], **facts)
        if self.result.exception is not None:
            self.assertIsInstance(self.result.exception, SystemExit, self.result.exception)
        return self.result

    @property
    def sent(self) -> str:
        """What the listener heard."""
        return self.listener.sent.decode()


class StatusTests(InjectCase):
    """Exit statuses."""

    def test_delivered(self) -> None:
        """0: it was delivered to everybody."""
        result = self.inject(trace=[event("sending"), event("delivery", reply="250 ok")])
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn(f"accepted   by 127.0.0.1:2525: {ID}", result.output)
        self.assertIn("delivered  to you@b.example at ?: 250 ok", result.output)

    def test_lost(self) -> None:
        """1: it was bounced or expired for somebody."""
        for kind in ("bounce", "expiration", "adminbounce"):
            result = self.inject(trace=[event(kind, reply="550 no")])
            self.assertEqual(result.exit_code, FAILED)
            self.assertIn("550 no", result.output)

    def test_lost_for_one(self) -> None:
        """One bounce among deliveries is enough."""
        replies = [*TAKEN[:-2], f"250 OK ids={ID},{OTHER}", "221 bye"]
        result = self.inject(smtp=replies, trace=[event("delivery"), event("bounce", OTHER)])
        self.assertEqual(result.exit_code, FAILED)

    def test_undecided(self) -> None:
        """3: an attempt failed, and there was no decision while one watched."""
        for kind in ("transientfailure", "delayed", "queued"):
            result = self.inject(trace=[event(kind)], then=TimeoutError)
            self.assertEqual(result.exit_code, UNDECIDED)
            self.assertIn("no decision yet", result.output)

    def test_delivered_in_the_end(self) -> None:
        """What failed first and was delivered then is delivered."""
        result = self.inject(trace=[event("transientfailure"), event("delivery")])
        self.assertEqual(result.exit_code, 0)

    def test_others(self) -> None:
        """The events of other messages are not shown and decide nothing."""
        result = self.inject(trace=[event("bounce", OTHER, reply="550 theirs"), event("delivery")])
        self.assertEqual(result.exit_code, 0)
        self.assertNotIn("theirs", result.output)

    def test_missed(self) -> None:
        """Missed events are mentioned."""
        result = self.inject(trace=[{"event": "missed", "count": 7}], then=TimeoutError)
        self.assertIn("(7 events were missed)", result.output)

    def test_interrupted(self) -> None:
        """Who stops watching has not seen a failure."""
        result = self.inject(then=KeyboardInterrupt)
        self.assertEqual(result.exit_code, UNDECIDED)


class RefusedTests(InjectCase):
    """What the listener does not take: 2."""

    def test_nobody_there(self) -> None:
        """A listener that is not there is told in words."""
        result = self.inject(smtp=ConnectionRefusedError(111, "Connection refused"))
        self.assertEqual(result.exit_code, REFUSED)
        self.assertIn("not accepted by 127.0.0.1:2525: [Errno 111]", result.output)

    def test_replies(self) -> None:
        """A refusal is quoted, whatever it answers."""
        for replies in (
            ["421-4.3.2 first\r\n421 4.3.2 the node is starting"],
            ["220 x", "500 what", "500 what"],
            [*HELLO, "450 4.7.1 not you"],
            [*HELLO, "250 ok", "550 5.7.1 no relaying"],
            [*HELLO, "250 ok", "250 ok", "451 4.3.0 not now"],
            [*TAKEN[:5], "452 4.3.1 the disk is full"],
        ):
            result = self.inject(smtp=replies)
            self.assertEqual(result.exit_code, REFUSED, replies)
            words = replies[-1].rpartition("\n")[2][4:]
            self.assertIn(words, result.output)
            self.assertTrue(self.listener.closed)

    def test_gone(self) -> None:
        """A listener that closes, at any point before its 250, has not taken the message."""
        for count in range(6):
            self.assertEqual(self.inject(smtp=TAKEN[:count]).exit_code, REFUSED, count)

    def test_garbage(self) -> None:
        """So is one that does not speak SMTP."""
        for reply in ("HTTP/1.1 400 Bad Request", "", "\x00\xff", "250"):
            self.assertEqual(self.inject(smtp=[reply]).exit_code, REFUSED)

    def test_one_recipient(self) -> None:
        """A recipient that is refused is named; the others get the message."""
        replies = [*HELLO, "250 ok", "250 ok", "550 5.1.1 \x1bno such", *TAKEN[4:]]
        result = self.inject(
            "--to",
            "you@b.example",
            "--to",
            "who@b.example",
            smtp=replies,
            trace=[event("delivery")],
        )
        self.assertEqual(result.exit_code, REFUSED)
        self.assertIn("refused    who@b.example: 550 5.1.1 \\x1bno such", result.output)
        self.assertIn("delivered", result.output)


class AcceptedTests(InjectCase):
    """What happens behind a 250."""

    def test_no_ids(self) -> None:
        """A server that gives no ids has taken the message, and that is all one knows."""
        result = self.inject(smtp=[*TAKEN[:5], "250 queued as 4B1C2", "221 bye"])
        self.assertEqual(result.exit_code, UNDECIDED)
        self.assertIn("the node gave no id", result.output)

    def test_farewell(self) -> None:
        """However the farewell ends, a message that was accepted is accepted."""
        for farewell in (["421 4.3.2 shutting down"], [], ["garbage"]):
            result = self.inject(smtp=[*TAKEN[:6], *farewell], trace=[event("delivery")])
            self.assertEqual(result.exit_code, 0, result.output)

    def test_many_ids(self) -> None:
        """Ids on several lines are all watched."""
        replies = [*TAKEN[:5], f"250-2.0.0 OK ids={ID}\r\n250 2.0.0 ids={OTHER}", "221 bye"]
        result = self.inject(smtp=replies, trace=[event("delivery")], then=TimeoutError)
        self.assertEqual(result.exit_code, UNDECIDED)

    def test_no_trace(self) -> None:
        """Without a trace the message is handed in all the same."""
        result = self.inject(trace=ConnectionRefusedError(111, "refused"))
        self.assertEqual(result.exit_code, UNDECIDED)
        self.assertIn("cannot watch through http://127.0.0.1:8000", result.output)
        self.assertIn("accepted", result.output)

    def test_trace_ends(self) -> None:
        """A node that goes down meanwhile has decided nothing."""
        for then in (None, ConnectionResetError):
            result = self.inject(trace=[event("queued")], then=then)
            self.assertEqual(result.exit_code, UNDECIDED)
            self.assertIn("trace", result.output)


class EnvelopeTests(InjectCase):
    """What the listener hears."""

    def test_message(self) -> None:
        """A small but complete message."""
        self.inject("--to", "you@b.example", "--from", "me@c.example", "--subject", "Grüße")
        self.assertIn("mail FROM:<me@c.example>", self.sent)
        self.assertIn("rcpt TO:<you@b.example>", self.sent)
        raw = build_message("me@c.example", ("you@b.example", "x@y.z"), "Grüße", "a\n.\nb\n")
        message = email.message_from_bytes(raw, policy=email.policy.default)
        self.assertEqual(message["To"], "you@b.example, x@y.z")
        self.assertEqual(message["Subject"], "Grüße")
        self.assertTrue(message["Message-ID"] and message["Date"])
        self.assertEqual(message.get_content(), "a\r\n.\r\nb\r\n")
        self.assertTrue(raw.isascii())
        self.assertNotIn(b"\n", raw.replace(b"\r\n", b""))

    def test_null_sender(self) -> None:
        """The null sender can be given."""
        self.inject("--to", "you@b.example", "--from", "")
        self.assertIn("mail FROM:<>", self.sent)

    def test_unicode(self) -> None:
        """Addresses beyond ASCII ask for SMTPUTF8."""
        self.inject("--to", "jürgen@bücher.example", trace=[event("delivery")])
        self.assertIn("SMTPUTF8", self.sent)
        self.assertIn("rcpt TO:<jürgen@bücher.example>", self.sent)
        self.assertIn("To: jürgen@bücher.example", self.sent)

    def test_unicode_not_taken(self) -> None:
        """A listener without SMTPUTF8 cannot get them."""
        result = self.inject("--to", "jürgen@b.example", smtp=["220 x", "250 x", *TAKEN[2:]])
        self.assertEqual(result.exit_code, REFUSED)

    def test_file(self) -> None:
        """A file is sent as it is, but for its line ends."""
        path = Path(self.mktemp())
        path.write_bytes(b"Subject: x\n\n.\nGr\xc3\xbc\xc3\x9fe\r\nend\r")
        self.inject("--to", "you@b.example", "--file", str(path))
        self.assertIn("Subject: x\r\n\r\n..\r\nGrüße\r\nend\r\n.\r\n", self.sent)
        self.assertIn("BODY=8BITMIME", self.sent)
        result = self.inject("--to", "you@b.example", "--file", "-", input=b"Subject: y\n\nz\n")
        self.assertIn("Subject: y\r\n\r\nz\r\n.\r\n", self.sent)
        self.assertEqual(result.exit_code, UNDECIDED)

    def test_places(self) -> None:
        """The listener and the trace can be elsewhere; the environment may say where."""
        self.inject(
            "--to",
            "you@b.example",
            "--server",
            "[::1]:2526",
            env={"KUMO_ENDPOINT": "http://[::1]:8000"},
        )
        self.assertEqual(self.places, [("::1", 8000), ("::1", 2526)])


class UsageTests(InjectCase):
    """What the command does not take; nothing is sent then."""

    def test_mistakes(self) -> None:
        """Mistakes in options are told as such."""
        for arguments, words in (
            (["--from", "a@b.c"], "Missing option '--to'"),
            (["--to", "a@b.c", "--server", "localhost"], "is not HOST:PORT"),
            (["--to", "a@b.c", "--server", "h:99999"], "not between 1 and 65535"),
            (["--to", "a@b.c", "--endpoint", "https://h"], "is not http://HOST:PORT"),
            (["--to", "a@b.c", "--wait", "-1"], "-1"),
            (["--to", "a@b.c", "--wait", "soon"], "soon"),
            (["--to", "a@b.c", "--file", "/nowhere/at/all"], "No such file"),
            (["--to", "a@b.c\r\nBcc: x@y.z"], "no address has"),
            (["--to", "a@b.c", "--from", "a@b.c>\r\nRSET"], "no address has"),
            (["--to", "a@b.c", "--subject", "x\ny"], "makes no message"),
            (["--to", "a@b.c", "--text", "\udcff"], "makes no message"),
        ):
            result = self.inject(*arguments)
            self.assertEqual(result.exit_code, 2, arguments)
            self.assertIn(words, result.output)
            self.assertEqual(self.places, [])

    def test_odd_recipients(self) -> None:
        """What is no address is for the listener to refuse."""
        for recipient in ("", "a", '"', "a@", "a b", "<a@b.c>", "a,b@c", ":;", '"a@b"@c', "("):
            with contextlib.suppress(click.UsageError):
                self.assertTrue(build_message("", (recipient,), "s", "t"))
