"""Reports to senders who ask for them (RFC 3461), over real connections."""

from __future__ import annotations

import email
import smtplib

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import Mail, Session, Sink, start_sink
from tests.integration.waiting import until


def submit(port: int, recipient: str, notify: str) -> None:
    """Hand a message in, and say what there is to hear of."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=30) as client:
        client.ehlo()
        if not client.has_extn("DSN"):
            raise AssertionError("DSN is not offered")
        client.sendmail(
            "sender@example.org",
            [recipient],
            message(),
            mail_options=["RET=FULL", "ENVID=QQ1"],
            rcpt_options=[f"NOTIFY={notify}", f"ORCPT=rfc822;{recipient}"],
        )


def actions(mail: Mail) -> list[str]:
    """What a report says became of whom."""
    parts = list(email.message_from_bytes(mail.body).walk())
    return [
        f"{part['Action']} {part['Original-Recipient']}"
        for part in parts
        if part["Action"] is not None
    ]


class ReportTests(TestCase):
    """One sink is everybody's host: the recipient's, and the sender's."""

    async def test_who_reports(self) -> None:
        """A host with DSN is told what the sender wants, for another this node reports."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route))
        await deferToThread(submit, kumo.port, "one@example.com", "SUCCESS,DELAY")
        await sink.wait_for_mails(2)
        self.assertEqual(actions(sink.mails[1]), ["relayed rfc822;one@example.com"])
        self.assertEqual(
            (sink.mails[1].sender, sink.mails[1].recipients), ("", ["sender@example.org"])
        )
        sink.extensions.append("DSN")
        # A connection of its own, since what a host offers is learnt at its beginning.
        await kumo.stop()
        kumo = await kumo.restart(self)
        await deferToThread(submit, kumo.port, "two@example.com", "SUCCESS")
        await deferToThread(submit, kumo.port, "three@example.com", "NEVER")
        await sink.wait_for_mails(4)
        await kumo.stop()
        self.assertEqual([mail.sender for mail in sink.mails].count(""), 1)
        said = [line for session in sink.sessions for line in session.lines]
        self.assertIn("RCPT TO:<two@example.com> NOTIFY=SUCCESS ORCPT=rfc822;two@example.com", said)
        self.assertIn(
            "RCPT TO:<three@example.com> NOTIFY=NEVER ORCPT=rfc822;three@example.com", said
        )

    async def test_killed(self) -> None:
        """A process that is killed loses no report, and delivers nothing twice for it."""
        sink = start_sink(self)
        home = _HomeIsClosed(sink)
        kumo = await start_kumo(self, direct(sink.route))
        for number in range(5):
            await deferToThread(submit, kumo.port, f"{number}@example.com", "SUCCESS")
        await until(
            lambda: len({each["id"] for each in kumo.records(type="TransientFailure")}) == 5,
            "five reports that wait",
        )
        kumo.kill_9()
        home.closed = False
        kumo = await kumo.restart(self)
        await sink.wait_for_mails(10)
        await kumo.wait_for_records(type="Delivery", sender="", number=5)
        await kumo.stop()
        reported = [actions(mail) for mail in sink.mails if not mail.sender]
        self.assertEqual(
            sorted(reported), [[f"relayed rfc822;{number}@example.com"] for number in range(5)]
        )
        self.assertEqual(len(sink.mails), 10)


class _HomeIsClosed:
    """Makes a sink refuse reports for now.

    @ivar closed: whether it does.
    """

    def __init__(self, sink: Sink) -> None:
        self.closed = True
        sink.answers = self.answer

    def answer(self, session: Session, verb: str, argument: str) -> str | None:
        """Refuse the null sender."""
        if self.closed and verb == "MAIL" and argument.startswith("FROM:<>"):
            return "451 4.3.0 come back later"
        return None
