"""Tests of AUTH in the server's machine (RFC 4954)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.events import PAUSED, Auth, AuthResponse
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.server import SMTPServer
from kumotwist.wire.smtp.server_options import ServerOptions
from tests.test_wire_smtp_server import HELLO, codes, lines

OPTIONS = ServerOptions("mx.example.com", auth=("PLAIN", "LOGIN"))
MORE = Reply(334, None, ("bW9yZQ==",))
YES = Reply.of(235, "2.7.0", "welcome")
NO = Reply.of(535, "5.7.8", "wrong")


class AuthCase(SynchronousTestCase):
    """Talks to machines."""

    def talk(
        self, data: bytes, *answers: Reply, tls: bool = True, starttls: bool = False,
        options: ServerOptions = OPTIONS, step: int = 0,
    ) -> tuple[list[int], list[str]]:  # fmt: skip
        """Feed a stream; logins get the answers in turn.

        @return: the codes that were sent, and what records would say was commanded.
        """
        machine = SMTPServer(options, starttls=starttls, tls=tls)
        left = list(answers)
        out = b""
        commands = []
        for at in range(0, len(data), step or len(data)):
            machine.receive_data(data[at : at + (step or len(data))])
            while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
                commands.append(event.command)
                login = isinstance(event, Auth | AuthResponse) and left
                out += machine.answer(left.pop(0) if login else event.reply)
        return codes(out), commands


class DialogueTests(AuthCase):
    """Dialogues."""

    def test_whole_and_byte_by_byte(self) -> None:
        """A dialogue is the same however it is cut; no command shows what was said in it."""
        data = HELLO + lines("auth login", "dGlt", "c2VjcmV0", "MAIL FROM:<a@b.c>", "NOOP")
        expected = [250, 334, 334, 235, 250, 250]
        for step in (0, 1, 7):
            found, commands = self.talk(data, MORE, MORE, YES, step=step)
            self.assertEqual(found, expected)
            self.assertEqual(commands[1:4], ["AUTH LOGIN", "AUTH", "AUTH"])

    def test_initial_response(self) -> None:
        """What comes with the command is decoded; C{=} is an empty message."""
        for sent, meant in ((" AGEAYg==", b"\0a\0b"), (" =", b""), ("", None)):
            machine = SMTPServer(OPTIONS, tls=True)
            machine.receive_data(HELLO + lines(f"AUTH PLAIN{sent}"))
            machine.next_event()
            machine.answer(Reply.of(250, None, "hi"))
            event = machine.next_event()
            assert isinstance(event, Auth)
            self.assertEqual((event.mechanism, event.initial), ("PLAIN", meant))
            self.assertEqual(event.reply.code, 454)
            self.assertEqual(event.command, "AUTH PLAIN")

    def test_cancelled(self) -> None:
        """A client may give up; then commands are commands again."""
        data = HELLO + lines("AUTH LOGIN", "*", "NOOP", "AUTH LOGIN", "not base64", "NOOP")
        self.assertEqual(self.talk(data, MORE, MORE)[0], [250, 334, 501, 250, 334, 501, 250])

    def test_long_line(self) -> None:
        """A line of the dialogue that is too long ends it, and cannot become a command."""
        data = HELLO + lines("AUTH LOGIN", "x" * 5000, "NOOP")
        for step in (0, 1):
            self.assertEqual(self.talk(data, MORE, step=step)[0], [250, 334, 500, 250])

    def test_bounded_failures(self) -> None:
        """Three failures, and the next attempt ends the session."""
        data = HELLO + lines(*["AUTH PLAIN AGEAYg=="] * 5)
        self.assertEqual(self.talk(data, NO, NO, NO, NO)[0], [250, 535, 535, 535, 421])

    def test_owners_mistakes(self) -> None:
        """AUTH has replies of its own, and nothing else has them."""
        machine = SMTPServer(OPTIONS, tls=True)
        machine.receive_data(HELLO + lines("AUTH LOGIN"))
        machine.next_event()
        self.assertRaises(LocalProtocolError, machine.answer, MORE)
        machine.answer(Reply.of(250, None, "hi"))
        machine.next_event()
        self.assertRaises(LocalProtocolError, machine.answer, Reply.of(250, None, "ok"))


class OrderTests(AuthCase):
    """When AUTH is possible."""

    def test_not_offered(self) -> None:
        """A listener without logins does not know AUTH."""
        options = ServerOptions("mx.example.com")
        self.assertEqual(self.talk(HELLO + lines("AUTH PLAIN"), options=options)[0], [250, 502])

    def test_needs_tls(self) -> None:
        """Without TLS it is neither offered nor taken, unless that is allowed."""
        data = HELLO + lines("AUTH PLAIN AGEAYg==")
        self.assertEqual(self.talk(data, YES, tls=False)[0], [250, 538])
        clear = ServerOptions("mx.example.com", auth=("PLAIN",), auth_without_tls=True)
        self.assertEqual(self.talk(data, YES, tls=False, options=clear)[0], [250, 235])
        self.assertIn("AUTH PLAIN", clear.capabilities(starttls=True))
        self.assertNotIn("AUTH PLAIN LOGIN", OPTIONS.capabilities(starttls=True))
        self.assertIn("AUTH PLAIN LOGIN", OPTIONS.capabilities(starttls=False, tls=True))

    def test_order(self) -> None:
        """Not before EHLO, not twice, not within a transaction."""
        auth = "AUTH PLAIN AGEAYg=="
        self.assertEqual(self.talk(lines(auth), YES)[0], [503])
        self.assertEqual(self.talk(HELLO + lines(auth, auth), YES, YES)[0], [250, 235, 503])
        data = HELLO + lines("MAIL FROM:<>", auth, "RSET", auth)
        self.assertEqual(self.talk(data, YES)[0], [250, 250, 503, 250, 235])

    def test_starttls_forgets_it(self) -> None:
        """Who logged in before STARTTLS has not logged in behind it."""
        options = ServerOptions(
            "mx.example.com", auth=("PLAIN",), auth_without_tls=True, require_auth=True
        )
        machine = SMTPServer(options, starttls=True)
        said = []
        for part in (
            HELLO + lines("AUTH PLAIN AGEAYg==", "MAIL FROM:<>"), lines("STARTTLS"),
            HELLO + lines("MAIL FROM:<>"),
        ):  # fmt: skip
            machine.receive_data(part)
            while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
                reply = YES if isinstance(event, Auth) else event.reply
                said += codes(machine.answer(reply))
        self.assertEqual(said, [250, 235, 250, 220, 250, 530])

    def test_required(self) -> None:
        """Where a login is required, MAIL gets a 530 before it."""
        options = ServerOptions("mx.example.com", auth=("PLAIN",), require_auth=True)
        data = HELLO + lines("MAIL FROM:<>", "AUTH PLAIN AGEAYg==", "MAIL FROM:<>")
        self.assertEqual(self.talk(data, YES, options=options)[0], [250, 530, 235, 250])

    def test_required_behind_tls(self) -> None:
        """Where AUTH is offered over TLS only, a client in the clear is told of both."""
        options = ServerOptions("mx.example.com", auth=("PLAIN",), require_auth=True)
        machine = SMTPServer(options, starttls=True)
        machine.receive_data(HELLO + lines("MAIL FROM:<>"))
        said = b""
        while (event := machine.next_event()) is not NEED_DATA and event is not PAUSED:
            said = machine.answer(event.reply)
        self.assertEqual(said, b"530 5.7.0 say STARTTLS and log in first (AUTH)\r\n")

    def test_syntax(self) -> None:
        """Unknown mechanisms, bad base64, and no mechanism at all."""
        for command, code in (
            ("AUTH", 501), ("AUTH CRAM-MD5", 504), ("AUTH SCRAM-SHA-256", 504),
            ("AUTH PLAIN x", 501), ("AUTH PLAIN AGEAYg== x", 501), ("AUTH PLAIN é", 501),
        ):  # fmt: skip
            self.assertEqual(self.talk(HELLO + lines(command))[0], [250, code], command)

    def test_parameter_of_mail(self) -> None:
        """AUTH= is read where AUTH is offered, and checked (RFC 4954, 5)."""
        for value, code in (
            ("<>", 250), ("e+3Dmc2@example.com", 250), ("x", 501), ("a@b+0A", 501), ("+3d@b.c",
            501),
        ):  # fmt: skip
            data = HELLO + lines(f"MAIL FROM:<a@b.c> AUTH={value}")
            self.assertEqual(self.talk(data)[0], [250, code], value)
        data = HELLO + lines("MAIL FROM:<a@b.c> AUTH=<>")
        self.assertEqual(self.talk(data, tls=False)[0], [250, 555])


class SecrecyTests(AuthCase):
    """What records may show."""

    def test_no_credential_in_any_command(self) -> None:
        """Neither refused logins nor what a hasty client sends behind them can be read."""
        streams = (
            HELLO + lines("AUTH PLAIN c2VjcmV0 c2VjcmV0"),
            HELLO + lines("AUTH c2VjcmV0"),
            HELLO + lines("AUTH CRAM-MD5 c2VjcmV0", "c2VjcmV0", "c2VjcmV0 x"),
            HELLO + b"AUTH PLAIN c2VjcmV0\xff\r\n" + b"AUTH PLAIN c2VjcmV0\x00\r\n",
            HELLO + lines("AUTH LOGIN", "c2VjcmV0!", "c2VjcmV0"),
            HELLO + lines("AUTH LOGIN") + b"*\x00c2VjcmV0\r\nc2VjcmV0\xff\r\n",
            lines("auth plain c2VjcmV0", "c2VjcmV0"),
        )
        for data in streams:
            for tls in (True, False):
                _, commands = self.talk(data, MORE, tls=tls)
                self.assertNotIn("c2VjcmV0", " ".join(commands).replace("C2VJ", "c2Vj"), data)
