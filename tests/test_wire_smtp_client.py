"""The client's machine against a server that says exactly what the test wants."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.wire.errors import LocalProtocolError, RemoteProtocolError
from kumotwist.wire.need_data import NEED_DATA
from kumotwist.wire.smtp.client import (
    Closing,
    Finished,
    Goodbye,
    ProceedTLS,
    Ready,
    Refused,
    SendBody,
    SMTPClient,
    UnaskedReplyError,
)
from kumotwist.wire.smtp.phases import Phase
from kumotwist.wire.smtp.replies import Reply
from kumotwist.wire.smtp.transaction import TransactionOutcome
from tests.wire_client_dialogue import EHLO, GROUP, LOST, MESSAGE, Dialogue, codes


class OpeningTests(SynchronousTestCase):
    """From the greeting to the first transaction."""

    def test_greeting_and_ehlo(self) -> None:
        """EHLO follows the greeting; its answer says what is offered."""
        machine = SMTPClient("me.example")
        self.assertIs(machine.phase, Phase.BANNER)
        machine.receive_data(b"220-hello\r\n220 there\r\n")
        self.assertIs(machine.next_event(), NEED_DATA)
        self.assertEqual(machine.data_to_send(), EHLO)
        self.assertEqual(machine.data_to_send(), b"")
        self.assertIs(machine.phase, Phase.EHLO)
        machine.receive_data(b"250-mx\r\n250 PIPELINING\r\n")
        event = machine.next_event()
        assert isinstance(event, Ready)
        self.assertTrue(event.capabilities.pipelining)
        self.assertIs(machine.phase, Phase.IDLE)

    def test_helo_fallback(self) -> None:
        """A server that does not know EHLO is told HELO; it offers nothing."""
        talk = Dialogue()
        self.assertEqual(talk.feed(b"502 what?\r\n"), [])
        self.assertEqual(talk.said, b"HELO me.example\r\n")
        (event,) = talk.feed(b"250-mx\r\n250 PIPELINING\r\n")
        assert isinstance(event, Ready)
        self.assertFalse(event.capabilities.esmtp)
        self.assertFalse(event.capabilities.pipelining)

    def test_refusals(self) -> None:
        """A refused greeting, EHLO or HELO ends it; the reply and its command are told."""
        machine = SMTPClient("me.example")
        machine.receive_data(b"554 5.7.1 go away\r\n")
        self.assertEqual(
            machine.next_event(), Refused(Phase.BANNER, Reply.of(554, "5.7.1", "go away"))
        )
        (event,) = Dialogue().feed(b"451 later\r\n")
        reply = Reply.of(451, None, "later")._replace(command="EHLO me.example")
        self.assertEqual(event, Refused(Phase.EHLO, reply))
        talk = Dialogue()
        talk.feed(b"500 what?\r\n")
        (event,) = talk.feed(b"550 no\r\n")
        assert isinstance(event, Refused)
        self.assertEqual(event.reply.command, "HELO me.example")

    def test_421_closes(self) -> None:
        """421 to the greeting is a refusal after which nothing more can be said."""
        machine = SMTPClient("me.example")
        machine.receive_data(b"421 busy\r\n220 not at all\r\n")
        self.assertIsInstance(machine.next_event(), Refused)
        self.assertTrue(machine.closed)
        self.assertIs(machine.next_event(), NEED_DATA)

    def test_two_greetings(self) -> None:
        """A server that greets twice would be a reply ahead for ever: an error."""
        machine = SMTPClient("me.example")
        machine.receive_data(b"220 mx\r\n220 mx\r\n")
        self.assertRaises(UnaskedReplyError, machine.next_event)

    def test_name_that_cannot_be_said(self) -> None:
        """A name that would break out of EHLO is our own mistake."""
        for name in ("", "a b", "a\r\nMAIL", "müller.example", "x" * 256):
            self.assertRaises(LocalProtocolError, SMTPClient, name)

    def test_too_early(self) -> None:
        """Nothing can be asked before the session is open."""
        machine = SMTPClient("me.example")
        for act in (machine.starttls, machine.quit, machine.discard_plaintext, machine.body_sent):
            self.assertRaises(LocalProtocolError, act)
        self.assertRaises(LocalProtocolError, machine.begin, MESSAGE)


class StartTLSTests(SynchronousTestCase):
    """STARTTLS (RFC 3207)."""

    def ask(self) -> Dialogue:
        """Say STARTTLS."""
        talk = Dialogue(b"STARTTLS", b"PIPELINING", b"SIZE 10")
        talk.machine.starttls()
        self.assertEqual(talk.machine.data_to_send(), b"STARTTLS\r\n")
        return talk

    def test_session_begins_anew(self) -> None:
        """After the handshake EHLO is said again, and only its answer counts."""
        talk = self.ask()
        self.assertEqual(talk.feed(b"220 go ahead\r\n"), [ProceedTLS()])
        self.assertIs(talk.machine.phase, Phase.STARTTLS)
        talk.machine.discard_plaintext()
        self.assertFalse(talk.machine.capabilities.pipelining)
        self.assertEqual(talk.machine.data_to_send(), EHLO)
        (event,) = talk.feed(b"250-mx\r\n250 SIZE 20\r\n")
        assert isinstance(event, Ready)
        self.assertEqual(event.capabilities.size_limit, 20)
        self.assertFalse(event.capabilities.starttls)

    def test_injected_replies(self) -> None:
        """Plain text behind the 220, even part of a line, ends the session (CVE-2021-38371)."""
        for extra in (b"250-mx\r\n250 AUTH PLAIN\r\n", b"2", b"\n"):
            talk = self.ask()
            self.assertEqual(talk.feed(b"220 go ahead\r\n" + extra), [ProceedTLS()])
            self.assertRaises(UnaskedReplyError, talk.machine.discard_plaintext)
            self.assertTrue(talk.machine.closed)
            self.assertEqual(talk.machine.data_to_send(), b"")

    def test_refused(self) -> None:
        """A server that refuses leaves the session as it was."""
        talk = self.ask()
        (event,) = talk.feed(b"454 no certificate\r\n")
        assert isinstance(event, Refused)
        self.assertIs(event.phase, Phase.STARTTLS)
        self.assertEqual(talk.begin().count(b"\r\n"), 4)


class TransactionTests(SynchronousTestCase):
    """One message, several fates."""

    def test_pipelined(self) -> None:
        """Where PIPELINING is offered the whole envelope is one write (RFC 2920)."""
        talk = Dialogue(b"PIPELINING")
        self.assertEqual(talk.begin(), GROUP)
        events = talk.feed(b"250 1\r\n250 2\r\n250 3\r\n354 go\r\n")
        self.assertEqual(events, [SendBody()])
        self.assertIs(talk.machine.phase, Phase.DOT)
        outcome = talk.outcome(b"250 2.0.0 queued as 7\r\n")
        self.assertEqual(codes(outcome), [250, 250])
        self.assertTrue(outcome.session_usable)
        self.assertEqual(outcome.replies[0].command, ".")
        self.assertEqual(outcome.phases, ("dot", "dot"))
        self.assertEqual(talk.begin(), GROUP, "no RSET after a success")

    def test_step_by_step(self) -> None:
        """Without PIPELINING each command waits for the answer to the one before."""
        for talk in (Dialogue(b"SIZE"), Dialogue(b"SIZE", b"PIPELINING", pipelining=False)):
            self.assertEqual(talk.begin(), b"MAIL FROM:<me@example.org> SIZE=4\r\n")
            for command in (b"RCPT TO:<a@example.com>", b"RCPT TO:<b@example.com>", b"DATA"):
                self.assertEqual(talk.feed(b"250 ok\r\n"), [])
                self.assertEqual(talk.said, command + b"\r\n")
            self.assertEqual(talk.feed(b"354 go\r\n"), [SendBody()])
            self.assertEqual(codes(talk.outcome(b"250 ok\r\n")), [250, 250])

    def test_step_by_step_stops_early(self) -> None:
        """Without PIPELINING nothing is said that cannot help any more."""
        talk = Dialogue(b"SIZE")
        talk.begin()
        self.assertEqual(codes(talk.outcome(b"550 no\r\n")), [550, 550])
        self.assertEqual(talk.said, b"")
        talk = Dialogue(b"SIZE")
        talk.begin()
        talk.feed(b"250 ok\r\n")
        talk.feed(b"550 no\r\n")
        self.assertEqual(codes(talk.outcome(b"450 not now\r\n")), [550, 450])
        self.assertEqual(talk.said, b"", "no DATA without recipients")

    def test_partial_acceptance(self) -> None:
        """Each recipient has its own fate; only the accepted ones get the final reply."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n550 5.1.1 unknown\r\n252 will try\r\n354 go\r\n")
        outcome = talk.outcome(b"250 ok\r\n")
        self.assertEqual(codes(outcome), [550, 250])
        self.assertEqual(outcome.phases, ("rcpt", "dot"))
        self.assertTrue(outcome.results[0].permanent)
        self.assertTrue(outcome.results[1].delivered)
        self.assertEqual(talk.begin(), GROUP, "no RSET after a success")

    def test_too_many_recipients(self) -> None:
        """552 to RCPT is temporary (RFC 5321, 4.5.3.1.10); 552 to the message is not."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n250 ok\r\n552 too many\r\n354 go\r\n")
        outcome = talk.outcome(b"552 5.3.4 too big\r\n")
        self.assertEqual(codes(outcome), [552, 552])
        self.assertEqual([result.permanent for result in outcome.results], [True, False])

    def test_refused_sender(self) -> None:
        """The earliest error wins: what follows a refused MAIL is nobody's fate."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        outcome = talk.outcome(b"550 5.7.1 no\r\n503 mail?\r\n503 mail?\r\n503 rcpt?\r\n")
        self.assertEqual(codes(outcome), [550, 550])
        self.assertEqual(outcome.replies[1].command, "MAIL FROM:<me@example.org>")
        self.assertTrue(outcome.session_usable)

    def test_refused_sender_then_hang_up(self) -> None:
        """A server that refuses MAIL and hangs up has decided everything."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"550 5.7.1 no\r\n")
        outcome = talk.machine.abandon(LOST)
        assert outcome is not None
        self.assertEqual(codes(outcome), [550, 550])
        self.assertTrue(outcome.complete)
        self.assertFalse(outcome.session_usable)

    def test_lone_dot(self) -> None:
        """A server that wants a message for nobody gets an empty one, and no success is told."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        self.assertEqual(talk.feed(b"250 ok\r\n550 no\r\n551 no\r\n354 go\r\n"), [])
        self.assertEqual(talk.said, b".\r\n")
        self.assertEqual(codes(talk.outcome(b"250 ok\r\n")), [550, 551])
        self.assertEqual(talk.begin(), b"RSET\r\n")

    def test_lone_dot_after_refused_sender(self) -> None:
        """Not even RCPTs that were accepted after a refused MAIL make a success."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        self.assertEqual(talk.feed(b"550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n"), [])
        self.assertEqual(talk.said, b".\r\n")
        self.assertEqual(codes(talk.outcome(b"250 ok\r\n")), [550, 550])

    def test_refused_data(self) -> None:
        """A refused DATA is the fate of those who were accepted."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        outcome = talk.outcome(b"250 ok\r\n250 ok\r\n550 no\r\n451 disk full\r\n")
        self.assertEqual(codes(outcome), [451, 550])
        self.assertEqual(outcome.phases, ("data", "rcpt"))

    def test_421_in_the_middle(self) -> None:
        """421 decides for everybody who has no fate yet, and closes; the rest is not awaited."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        outcome = talk.outcome(b"250 ok\r\n550 no\r\n421 4.3.2 shutting down\r\n250 ok\r\n")
        self.assertEqual(codes(outcome), [550, 421])
        self.assertFalse(outcome.session_usable)
        self.assertFalse(any(result.local for result in outcome.results))
        self.assertTrue(talk.machine.closed)

    def test_421_after_the_dot(self) -> None:
        """421 in answer to the message says that it was not taken."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        outcome = talk.outcome(b"421 4.3.0 sorry\r\n")
        self.assertEqual(codes(outcome), [421, 421])
        self.assertFalse(outcome.possible_duplicate)

    def test_accepted_then_421(self) -> None:
        """250 and then 421 is delivered; the end of the session is another event."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        finished, closing = talk.feed(b"250 ok\r\n421 bye\r\n")
        assert isinstance(finished, Finished)
        self.assertEqual(codes(finished.outcome), [250, 250])
        self.assertIsInstance(closing, Closing)
        self.assertRaises(LocalProtocolError, talk.machine.begin, MESSAGE)

    def test_replies_of_the_wrong_class(self) -> None:
        """An answer that no such command can get is an error, never a success."""
        for replies, phase in (
            (b"354 go\r\n", Phase.MAIL),
            (b"250 ok\r\n354 go\r\n", Phase.RCPT),
            (b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n", Phase.DATA),
        ):
            talk = Dialogue(b"PIPELINING")
            talk.begin()
            talk.machine.receive_data(replies)
            self.assertRaises(RemoteProtocolError, talk.machine.next_event)
            self.assertIs(talk.machine.phase, phase)
            outcome = talk.machine.abandon(LOST)
            assert outcome is not None
            self.assertEqual(codes(outcome), [421, 421])
            self.assertFalse(outcome.complete)
            self.assertTrue(all(result.local for result in outcome.results))

    def test_reply_before_the_message(self) -> None:
        """A reply that comes with the 354 answers nothing: replies are out of step."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.machine.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n")
        self.assertRaises(UnaskedReplyError, talk.machine.next_event)

    def test_reply_within_the_message(self) -> None:
        """While the message is under way a refusal is final, and an acceptance an error."""
        for reply, expected in ((b"552 5.3.4 too big\r\n", 552), (b"250 ok\r\n", 421)):
            talk = Dialogue(b"PIPELINING")
            talk.begin()
            talk.machine.receive_data(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
            self.assertEqual(talk.machine.next_event(), SendBody())
            self.assertIs(talk.machine.phase, Phase.BODY)
            talk.machine.receive_data(reply)
            if expected == 552:
                event = talk.machine.next_event()
                assert isinstance(event, Finished)
                outcome: TransactionOutcome | None = event.outcome
            else:
                self.assertRaises(UnaskedReplyError, talk.machine.next_event)
                outcome = talk.machine.abandon(LOST)
            assert outcome is not None
            self.assertEqual(codes(outcome), [expected, expected])
            self.assertFalse(outcome.session_usable)
            self.assertFalse(outcome.possible_duplicate)

    def test_one_reply_too_many(self) -> None:
        """A reply that nobody asked for ends the session instead of being taken for the next."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        talk.outcome(b"250 ok\r\n")
        talk.machine.receive_data(b"250 ok\r\n")
        self.assertRaises(UnaskedReplyError, talk.machine.next_event)

    def test_part_of_a_reply_too_many(self) -> None:
        """Even the beginning of an unasked reply keeps the next transaction from starting."""
        talk = Dialogue(b"PIPELINING")
        talk.feed(b"2")
        self.assertRaises(UnaskedReplyError, talk.machine.begin, MESSAGE)
        self.assertEqual(talk.machine.data_to_send(), b"")

    def test_lost_after_the_dot(self) -> None:
        """A connection lost after the final dot may mean a second copy; before it, it cannot."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n")
        talk.feed(b"25")
        outcome = talk.machine.abandon(LOST)
        assert outcome is not None
        self.assertEqual(codes(outcome), [550, 421])
        self.assertTrue(outcome.possible_duplicate)
        self.assertEqual(outcome.replies[1].command, ".")
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.feed(b"250 ok\r\n550 no\r\n")
        outcome = talk.machine.abandon(LOST)
        assert outcome is not None
        self.assertFalse(outcome.possible_duplicate)
        self.assertFalse(outcome.complete)


class ResetTests(SynchronousTestCase):
    """RSET between transactions, and the end."""

    def failed(self) -> Dialogue:
        """A session whose last transaction failed."""
        talk = Dialogue(b"PIPELINING")
        talk.begin()
        talk.outcome(b"250 ok\r\n550 no\r\n550 no\r\n554 no\r\n")
        return talk

    def test_reset_after_failure(self) -> None:
        """After a failed transaction RSET goes first, and the rest waits for its answer."""
        talk = self.failed()
        self.assertEqual(talk.begin(), b"RSET\r\n")
        self.assertIs(talk.machine.phase, Phase.RSET)
        self.assertEqual(talk.feed(b"250 ok\r\n"), [])
        self.assertEqual(talk.said, GROUP)

    def test_refused_reset(self) -> None:
        """A RSET that fails ends the session; the message has not been touched."""
        for reply in (b"421 bye\r\n", b"502 what?\r\n"):
            talk = self.failed()
            talk.begin()
            (event,) = talk.feed(reply)
            assert isinstance(event, Refused)
            self.assertIs(event.phase, Phase.RSET)
            self.assertIsNone(talk.machine.abandon(LOST))

    def test_lost_while_resetting(self) -> None:
        """Nothing is known of a message of which nothing was sent."""
        talk = self.failed()
        talk.begin()
        self.assertIsNone(talk.machine.abandon(LOST))

    def test_421_while_idle(self) -> None:
        """A server may end an idle session with 421."""
        (event,) = Dialogue(b"SIZE").feed(b"421 4.4.2 timeout\r\n")
        self.assertEqual(event, Closing(Reply.of(421, "4.4.2", "timeout")))

    def test_quit(self) -> None:
        """QUIT is the last thing that is said, whatever is answered."""
        talk = Dialogue(b"SIZE")
        talk.machine.quit()
        self.assertEqual(talk.machine.data_to_send(), b"QUIT\r\n")
        (event,) = talk.feed(b"421 bye\r\n")
        self.assertIsInstance(event, Goodbye)
        self.assertTrue(talk.machine.closed)
