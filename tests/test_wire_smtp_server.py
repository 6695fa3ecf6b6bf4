"""Tests of the server's machine: commands, their order, their replies."""

from __future__ import annotations

import re

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.events import (
    PAUSED,
    BadCommand,
    DataBegin,
    Mail,
    MessageReceived,
    MessageRefused,
    Rcpt,
)
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.server import ServerOptions, SMTPServer

OPTIONS = ServerOptions("mx.example.com", max_message_size=1000, max_recipients=3)
NO = Reply.of(450, "4.2.0", "not now")


def drain(machine: SMTPServer) -> tuple[list[str], bytes]:
    """Answer every event as it deserves: the events in words, and the octets that are sent."""
    events: list[str] = []
    out = b""
    while True:
        event = machine.next_event()
        if event is NEED_DATA or event is PAUSED:
            return events, out
        facts = event.command
        if isinstance(event, MessageReceived):
            facts = f"{event.transaction.recipients} {event.transaction.body!r}"
        events.append(f"{type(event).__name__} {facts} {event.reply.code}")
        out += machine.answer(event.reply)


def codes(out: bytes) -> list[int]:
    """The codes of the replies in octets that a server sent."""
    return [int(code) for code in re.findall(rb"^(\d{3}) ", out, re.MULTILINE)]


def talk(data: bytes, options: ServerOptions = OPTIONS, *, starttls: bool = True) -> list[int]:
    """What a machine says to all that a client says."""
    machine = SMTPServer(options, starttls=starttls)
    machine.receive_data(data)
    return codes(drain(machine)[1])


def lines(*commands: str) -> bytes:
    """Commands as they stand on the wire."""
    return b"".join(command.encode() + b"\r\n" for command in commands)


HELLO = lines("EHLO client.example")
ENVELOPE = lines("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
MESSAGE = b"Subject: x\r\n\r\n..dots\r\n.\r\n"


ADDRESSES = st.sampled_from(
    [
        "a@b.example", "A.B+c@B-c.Example", "", "a@b", "a@1.2", "a@b.e1", "a@b.1e", "a@-b.example",
        "a@b..example", "a.@b.example", '"a"@b.example', "a@[192.0.2.1]", "@c:a@b.example",
        "a b@c.example", "é@b.example", "postmaster", "a@b.example>", "x" * 50 + "@b.example",
        "x" * 51 + "@b.example",
        "x" * 52 + "@b.example", "x" * 64 + "@b.example", "x" * 65 + "@b.example", "a@" + "y" * 60,
        "a@" + "y" * 63 + ".example", "a@" + "y" * 64 + ".example", "a" * 300,
    ]
)  # fmt: skip
PATHS = st.builds(
    "{}:{}<{}>{}".format,
    st.sampled_from(["MAIL FROM", "RCPT TO"]),
    st.sampled_from(["", "", " "]),
    ADDRESSES,
    st.sampled_from(
        ["", "", " SIZE=5", " SIZE=1001", " SIZE=" + "9" * 21, " SIZE", " size=5", "x"]
    ),
)
COMMANDS = st.sampled_from(
    [
        "EHLO client.example", "HELO client.example", "EHLO", "EHLO a b", "EHLO " + "x" * 256,
        "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "DATA x", "RSET", "NOOP",
        "NOOP x", "VRFY", "VRFY x", "QUIT x", "AUTH", "AUTH PLAIN", "AUTH LOGIN",
        "dGVzdA==", "PASS secret", "BDAT 0", "BDAT x", "HTTP", "HEAD /", "STARTTLS",
        "TURN\t", "RSE\u00e9",
    ]
)  # fmt: skip


class OrdinaryTests(SynchronousTestCase):
    """Commands that are read in one step."""

    @settings(max_examples=400, deadline=None)
    @given(st.lists(st.one_of(COMMANDS, PATHS), max_size=8), st.booleans())
    def test_like_any_other(self, commands: list[str], greeted: bool) -> None:
        """Whether a command is read in one step, or with the care that a space behind it asks for,
        it is the same event with the same answer."""
        dialogue = [*(["EHLO client.example"] if greeted else []), *commands]
        options = attrs.evolve(OPTIONS, auth=("PLAIN", "LOGIN"), auth_without_tls=True)
        said = []
        for behind in ("", " "):
            machine = SMTPServer(options, starttls=True)
            happened = []
            for command in dialogue:
                machine.receive_data(f"{command}{behind}\r\n".encode())
                happened.append(drain(machine))
            said.append(happened)
        self.assertEqual(*said)


class SessionTests(SynchronousTestCase):
    """Whole sessions."""

    def test_a_message(self) -> None:
        """A message comes out whole, byte by byte and with trailing bytes, always the same."""
        data = HELLO + ENVELOPE + MESSAGE + lines("QUIT") + b"trailing"
        expected = None
        for step in (len(data), 1, 2, 3, 7):
            machine = SMTPServer(OPTIONS)
            events: list[str] = []
            out = machine.greeting()
            for at in range(0, len(data), step):
                machine.receive_data(data[at : at + step])
                more, octets = drain(machine)
                events += more
                out += octets
            self.assertTrue(machine.closed)
            expected = expected or (events, out)
            self.assertEqual((events, out), expected)
        assert expected is not None
        self.assertEqual(codes(expected[1]), [220, 250, 250, 250, 354, 250, 221])
        self.assertIn(r"b'Subject: x\r\n\r\n.dots\r\n'", expected[0][4])

    def test_extensions(self) -> None:
        """EHLO offers what is there; STARTTLS until it is in use; HELO offers nothing."""
        machine = SMTPServer(OPTIONS, starttls=True)
        machine.receive_data(lines("ehlo me"))
        offer = drain(machine)[1]
        self.assertEqual(
            offer,
            b"250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-8BITMIME\r\n"
            b"250-SMTPUTF8\r\n250-CHUNKING\r\n250-ENHANCEDSTATUSCODES\r\n"
            b"250-LIMITS MAILMAX=10000 RCPTMAX=3\r\n250 STARTTLS\r\n",
        )
        machine.receive_data(lines("STARTTLS"))
        drain(machine)
        machine.receive_data(lines("EHLO me"))
        self.assertEqual(drain(machine)[1], offer.replace(b"250-LIM", b"250 LIM")[:-14])
        machine.receive_data(lines("HELO me"))
        self.assertEqual(drain(machine)[1], b"250 mx.example.com\r\n")

    def test_requiretls(self) -> None:
        """REQUIRETLS is offered over TLS only, and refused without (RFC 8689, 4.1)."""
        options = attrs.evolve(OPTIONS, requiretls=True)
        for tls, offered, answers in (
            (True, True, [250, 501, 250]),
            (False, False, [250, 501, 530]),
        ):
            machine = SMTPServer(options, starttls=True, tls=tls)
            machine.receive_data(lines("EHLO me"))
            offer = drain(machine)[1]
            self.assertEqual(b"REQUIRETLS" in offer, offered)
            machine.receive_data(
                lines("MAIL FROM:<a@b> REQUIRETLS=1", "MAIL FROM:<a@b> REQUIRETLS")
            )
            self.assertEqual(codes(offer + drain(machine)[1]), answers)
        machine = SMTPServer(OPTIONS, tls=True)
        machine.receive_data(lines("EHLO me", "MAIL FROM:<a@b> REQUIRETLS"))
        self.assertEqual(codes(drain(machine)[1]), [250, 555])

    def test_order_of_replies(self) -> None:
        """There is no second event before the first is answered, whatever has arrived."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(HELLO)
        drain(machine)
        machine.receive_data(ENVELOPE)
        mail = machine.next_event()
        assert isinstance(mail, Mail)
        self.assertIs(machine.next_event(), PAUSED)
        machine.receive_data(lines("NOOP"))
        self.assertIs(machine.next_event(), PAUSED)
        self.assertTrue(machine.owes_answer)
        self.assertEqual(machine.answer(NO), b"450 4.2.0 not now\r\n")
        self.assertEqual(codes(drain(machine)[1]), [503, 503, 250])

    def test_state_follows_answers(self) -> None:
        """What was refused did not happen: no transaction, no recipient, no message."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(HELLO)
        drain(machine)
        machine.receive_data(lines("MAIL FROM:<a@b.example>"))
        machine.answer(getattr(machine.next_event(), "reply"))  # noqa: B009
        machine.receive_data(lines("RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>", "DATA"))
        for refused in (True, False):
            event = machine.next_event()
            assert isinstance(event, Rcpt)
            machine.answer(NO if refused else event.reply)
        data = machine.next_event()
        assert isinstance(data, DataBegin)
        self.assertEqual([each.address for each in data.transaction.recipients], ["e@f.example"])
        machine.answer(NO)
        self.assertFalse(machine.in_body)
        machine.receive_data(lines("DATA"))
        drain(machine)
        self.assertTrue(machine.in_body)
        machine.receive_data(b".\r\n")
        event = machine.next_event()
        assert isinstance(event, MessageReceived)
        self.assertEqual(event.transaction.body, b"")
        machine.answer(NO)
        self.assertIsNone(machine.transaction)

    def test_421_ends_it(self) -> None:
        """A 421 closes the session, in answer to whatever, and the rest is not read."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(HELLO + ENVELOPE)
        machine.next_event()
        machine.answer(Reply.of(421, "4.3.2", "bye"))
        self.assertTrue(machine.closed)
        machine.receive_data(HELLO)
        self.assertIs(machine.next_event(), NEED_DATA)

    def test_hang_up(self) -> None:
        """The owner may end a session at any time, also while it owes an answer."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(HELLO)
        machine.next_event()
        out = machine.hang_up(Reply.of(421, "4.3.2", "bye"))
        self.assertEqual(out, b"421 4.3.2 bye\r\n")
        self.assertTrue(machine.closed)
        self.assertFalse(machine.owes_answer)

    def test_owners_mistakes(self) -> None:
        """Answering nothing, or with what cannot be, is a local error."""
        machine = SMTPServer(OPTIONS)
        self.assertRaises(LocalProtocolError, machine.answer, NO)
        self.assertRaises(LocalProtocolError, machine.refuse_body, NO)
        machine.receive_data(HELLO + ENVELOPE)
        machine.next_event()
        self.assertRaises(LocalProtocolError, machine.answer, Reply.of(354, None, "go"))
        for _ in range(3):
            event = machine.next_event()
            machine.answer(Reply.of(250, None, "ok")) if event is not PAUSED else None
            if event is PAUSED:
                machine.answer(NO)

    def test_reply_text_stays_in_its_line(self) -> None:
        """Whatever is in a reply's text, it is sent as that reply and no other."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(lines("NOOP"))
        machine.next_event()
        out = machine.answer(Reply.of(550, "5.0.0", "a\r\n250 b\u20ac" + "x" * 1000))
        self.assertEqual(out.count(b"\r\n"), 1)
        self.assertTrue(out.startswith(b"550 5.0.0 a\\x0d\\x0a250 b?xxx"))
        self.assertLessEqual(len(out), 512)


class CommandTests(SynchronousTestCase):
    """Commands that are wrong, or come at the wrong moment."""

    def test_order(self) -> None:
        """EHLO before MAIL before RCPT before DATA, no MAIL within MAIL."""
        self.assertEqual(talk(lines("MAIL FROM:<>", "RCPT TO:<a@b.c>", "DATA")), [503, 503, 503])
        self.assertEqual(talk(HELLO + lines("RCPT TO:<a@b.c>", "DATA")), [250, 503, 503])
        self.assertEqual(talk(HELLO + lines("MAIL FROM:<>", "DATA")), [250, 250, 554])
        self.assertEqual(talk(HELLO + lines("MAIL FROM:<>", "MAIL FROM:<>")), [250, 250, 503])

    def test_rset_and_ehlo_end_a_transaction(self) -> None:
        """After RSET or EHLO there is no sender any more."""
        for command in ("RSET", "EHLO again", "HELO again"):
            data = HELLO + lines("MAIL FROM:<>", command, "RCPT TO:<a@b.c>")
            self.assertEqual(talk(data), [250, 250, 250, 503])

    def test_arguments(self) -> None:
        """Arguments where there are none to be, or none where there must be some, are a 501."""
        for command in (
            "EHLO", "HELO", "EHLO a b", "EHLO b\u00fccher", "DATA x", "RSET x", "QUIT x", "VRFY",
            "STARTTLS x", "MAIL", "MAIL FROM", "MAIL FROM:", "MAIL TO:<a@b.c>", "MAIL FROM:a@b.c",
            "MAIL FROM:<a@b.c", "MAIL FROM:  <a@b.c>", "MAIL FROM:<a@b.c>SIZE=1",
            "MAIL FROM:<a@b.c> SIZE", "MAIL FROM:<a@b.c> SIZE=-1", "MAIL FROM:<a@b.c> SIZE=1e3",
            "MAIL FROM:<a@b.c> SIZE=1 SIZE=1", "MAIL FROM:<a@b.c> SIZE=" + "9" * 21,
            "MAIL FROM:<a@b.c> BODY=BINARYMIME", "MAIL FROM:<a@b.c> SMTPUTF8=1",
            "MAIL FROM:<postmaster>",
        ):  # fmt: skip
            self.assertEqual(talk(HELLO + lines(command)), [250, 501], command)
        for command in ("RCPT", "RCPT TO:", "RCPT TO:<>", "RCPT FROM:<a@b.c>", "RCPT TO:<a@b>, c"):
            self.assertEqual(talk(HELLO + lines("MAIL FROM:<>", command)), [250, 250, 501], command)

    def test_leniency(self) -> None:
        """One space behind the colon, white space at the end and any case are let through."""
        data = lines("mail from: <a@b.c> size=5 ", "rcpt To: <Postmaster>\t", "noop  whatever")
        self.assertEqual(talk(HELLO + data), [250] * 4)

    def test_parameters(self) -> None:
        """SIZE, BODY and SMTPUTF8 are known, everything else is a 555."""
        for parameters, code in (
            ("SIZE=1000 BODY=7BIT", 250),
            ("body=8bitmime SMTPUTF8", 250),
            ("SIZE=1001", 552),
            ("SIZE=99999999999999999999", 552),
            ("BY=120;R", 555),
            ("AUTH=<>", 555),
        ):
            data = lines(f"MAIL FROM:<a@b.c> {parameters}")
            self.assertEqual(talk(HELLO + data), [250, code], parameters)
        data = lines("MAIL FROM:<>", "RCPT TO:<a@b.c> RRVS=1")
        self.assertEqual(talk(HELLO + data), [250, 250, 555])

    def test_utf8_addresses(self) -> None:
        """An address beyond ASCII needs the SMTPUTF8 parameter."""
        sender, recipient = "MAIL FROM:<j\u00fc@b.c>", "RCPT TO:<k@b\u00fccher.example>"
        self.assertEqual(talk(HELLO + lines(sender, "MAIL FROM:<>", recipient)),
                         [250, 553, 250, 553])  # fmt: skip
        self.assertEqual(talk(HELLO + lines(sender + " SMTPUTF8", recipient)), [250] * 3)

    def test_strange_octets(self) -> None:
        """NUL, control characters, lone CR or LF are a 500, octets that are not UTF-8 a 501."""
        for command in (b"NOOP\x00", b"NOOP\nNOOP", b"NOOP\rNOOP", b"NO\x1bOP", b"NOOP \xc2\x85"):
            self.assertEqual(talk(command + b"\r\n"), [500], command)
        self.assertEqual(talk(b"NOOP \xff\r\n"), [501])
        self.assertEqual(talk(b"\r\n"), [500])

    def test_courtesies(self) -> None:
        """NOOP, VRFY, HELP and EXPN change nothing."""
        self.assertEqual(talk(lines("NOOP", "VRFY joe", "HELP", "EXPN list")), [250, 252, 214, 502])

    def test_limits(self) -> None:
        """Too many recipients are a 452, too many messages a 421."""
        rcpt = lines(*["RCPT TO:<a@b.example>"] * 4)
        self.assertEqual(talk(HELLO + lines("MAIL FROM:<>") + rcpt), [250] * 5 + [452])
        options = ServerOptions("mx.example.com", max_messages=2)
        out = talk(HELLO + (ENVELOPE + MESSAGE) * 3, options)
        self.assertEqual(out, [250] + [250, 250, 354, 250] * 2 + [421])

    def test_http(self) -> None:
        """A web client that somebody makes speak to us is sent away before it says any mail."""
        for method in ("GET", "POST", "CONNECT", "put"):
            request = lines(f"{method} / HTTP/1.1", "Host: x", "", "EHLO x", "MAIL FROM:<>")
            self.assertEqual(talk(request), [421], method)

    def test_bad_commands(self) -> None:
        """Too many bad commands end the session; an accepted message begins the count anew."""
        self.assertEqual(talk(lines(*["FOO"] * 200)), [500] * 25 + [421])
        data = lines(*["FOO"] * 20) + HELLO + ENVELOPE + MESSAGE + lines(*["FOO"] * 20)
        self.assertNotIn(421, talk(data))
        options = ServerOptions("mx.example.com", max_idle_commands=10)
        self.assertEqual(talk(lines(*["NOOP"] * 20), options), [250] * 10 + [421])

    def test_long_lines(self) -> None:
        """A line that is too long is answered once, at its end; what follows is read."""
        for length, code in ((2046, 250), (2047, 500), (2048, 500), (60000, 500)):
            data = b"NOOP " + b"x" * (length - 5) + b"\r\nNOOP\r\n"
            for step in (len(data), 1000, 2047, 2048):
                machine = SMTPServer(OPTIONS)
                out = b""
                for at in range(0, len(data), step):
                    machine.receive_data(data[at : at + step])
                    out += drain(machine)[1]
                self.assertEqual(codes(out), [code, 250], (length, step))

    def test_endless_line(self) -> None:
        """A line that does not end is not kept, and gets the client sent away."""
        for step in (1000, 65536, 4 * 2**20):
            machine = SMTPServer(OPTIONS)
            out = b""
            for _ in range(4 * 2**20 // step):
                machine.receive_data(b"x" * step)
                out += drain(machine)[1]
                self.assertLess(machine.unread, 2048)
            self.assertEqual(codes(out), [421])
            self.assertTrue(machine.closed)


class StartTLSTests(SynchronousTestCase):
    """RFC 3207."""

    def test_everything_is_forgotten(self) -> None:
        """What came before TLS does not survive it: neither octets nor EHLO nor sender."""
        machine = SMTPServer(OPTIONS, starttls=True)
        machine.receive_data(HELLO + lines("MAIL FROM:<>", "STARTTLS", "RSET") + b"NOO")
        self.assertEqual(codes(drain(machine)[1]), [250, 250, 220])
        self.assertEqual(machine.unread, 0)
        machine.receive_data(lines("RCPT TO:<a@b.c>", "MAIL FROM:<>", "STARTTLS"))
        self.assertEqual(codes(drain(machine)[1]), [503, 503, 503])

    def test_refused(self) -> None:
        """If STARTTLS is answered otherwise everything stays as it was."""
        machine = SMTPServer(OPTIONS, starttls=True)
        machine.receive_data(HELLO)
        drain(machine)
        machine.receive_data(lines("STARTTLS", "MAIL FROM:<>"))
        machine.next_event()
        machine.answer(Reply.of(454, "4.7.0", "not now"))
        self.assertEqual(codes(drain(machine)[1]), [250])

    def test_not_offered(self) -> None:
        """Where it is not offered it is a 502."""
        self.assertEqual(talk(lines("STARTTLS"), starttls=False), [502])


class MessageTests(SynchronousTestCase):
    """DATA and what follows it."""

    def test_too_large(self) -> None:
        """A message that is too large is read to its end, refused, and the session goes on."""
        data = HELLO + ENVELOPE + b"x" * 5000 + b"\r\n.\r\n" + ENVELOPE + MESSAGE
        self.assertEqual(talk(data), [250] * 3 + [354, 552, 250, 250, 354, 250])

    def test_long_line_is_never_a_command(self) -> None:
        """A line of the message may have any length; there is one reply, after the dot."""
        options = ServerOptions("mx.example.com")
        for length in (998, 1000, 5000, 20000, 200000):
            data = HELLO + ENVELOPE + b"x" * length + b"\r\nNOOP\r\n.\r\n"
            self.assertEqual(talk(data, options), [250, 250, 250, 354, 250])

    def test_refused_half_way(self) -> None:
        """The owner may refuse a message while it comes; its memory is free at once."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(HELLO + ENVELOPE + b"abc")
        drain(machine)
        self.assertEqual(machine.body_octets, 3)
        machine.refuse_body(Reply.of(452, "4.3.1", "no room"))
        self.assertEqual(machine.body_octets, 0)
        machine.receive_data(b"\r\n.\r\n")
        event = machine.next_event()
        assert isinstance(event, MessageRefused)
        self.assertEqual(machine.answer(event.reply), b"452 4.3.1 no room\r\n")
        self.assertIsNone(machine.transaction)

    def test_early(self) -> None:
        """It is said whether a client sent the message before it was told to go ahead."""
        for more, early in ((b"", False), (b"a", True)):
            machine = SMTPServer(OPTIONS)
            machine.receive_data(HELLO + ENVELOPE + more)
            for _ in range(3):
                event = machine.next_event()
                machine.answer(getattr(event, "reply"))  # noqa: B009
            event = machine.next_event()
            assert isinstance(event, DataBegin)
            self.assertEqual(event.early, early)

    def test_smuggling(self) -> None:
        """No form of line end lets one message become two."""
        for end in (
            b"\n.\n",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r\n.\r",
            b"\r\r\n.\r",
        ):
            data = HELLO + ENVELOPE + b"a: b\r\n\r\nc" + end + ENVELOPE + b"d" + b"\r\n.\r\n"
            self.assertEqual(talk(data), [250, 250, 250, 354, 552], end)


_PIECES = st.sampled_from([
    HELLO, ENVELOPE, MESSAGE, lines("MAIL FROM:<a@b.c>"), lines("RCPT TO:<d@e.f>"), lines("DATA"),
    lines("RSET"), lines("NOOP"), lines("STARTTLS"), lines("VRFY x"), b"\r\n.\r\n", b".\r\n", b"\r",
    b"\n", b"\x00", b"\xff", b"x" * 3000, b"MAIL", b" ", b"\r\r\n", b".", b"..", b"x" * 70000,
])  # fmt: skip


class AnyStreamTests(SynchronousTestCase):
    """Properties for every input."""

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(_PIECES | st.binary(max_size=20), max_size=12).map(b"".join),
        st.lists(st.integers(1, 3000), max_size=20),
    )
    def test_any_cut(self, data: bytes, cuts: list[int]) -> None:
        """However a stream is cut, the events are the same, and none of it raises.

        STARTTLS is where the cut matters by design (what came with it is dropped), so it is not
        offered here.
        """
        whole = SMTPServer(OPTIONS)
        whole.receive_data(data)
        expected = drain(whole)
        machine = SMTPServer(OPTIONS)
        events: list[str] = []
        out = b""
        at = 0
        for size in [*cuts, len(data) + 1]:
            machine.receive_data(data[at : at + size])
            at += size
            more, octets = drain(machine)
            events += more
            out += octets
        self.assertEqual((events, out), expected)
        self.assertEqual(machine.closed, whole.closed)

    def test_bad_command_event(self) -> None:
        """A bad command is an event with the reply it deserves and what was received."""
        machine = SMTPServer(OPTIONS)
        machine.receive_data(b"FOO \xff\x01\r\n")
        event = machine.next_event()
        assert isinstance(event, BadCommand)
        self.assertEqual(event.command, "FOO \\xff\\x01")
