"""How the node ends: in good order, or sooner when it is told twice."""

from __future__ import annotations

import signal
import smtplib
import socket

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import MESSAGE, send_mail
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import Act, start_sink
from tests.integration.waiting import until


def connect(port: int) -> smtplib.SMTP:
    """A client that has been greeted."""
    return smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=60)


def begin_message(port: int) -> smtplib.SMTP:
    """A client in the middle of the text of a message."""
    client = connect(port)
    client.ehlo()
    client.mail("sender@example.org")
    client.rcpt("slow@example.com")
    client.docmd("DATA")
    client.send(MESSAGE[:40])
    return client


def end_message(client: smtplib.SMTP) -> list[int]:
    """The codes of the answers to the rest of the message, and to what comes after it."""
    client.send(MESSAGE[40:] + b"\r\n.\r\n")
    codes = [client.getreply()[0], client.getreply()[0]]
    client.close()
    return codes


def hear(port: int) -> bytes:
    """All that a new client is told."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        heard = b""
        while chunk := connection.recv(4096):
            heard += chunk
        return heard


class StopTests(TestCase):
    """SIGTERM, once and twice."""

    async def test_in_good_order(self) -> None:
        """A message that is being handed in is taken, one that is being delivered is delivered;
        new clients and idle ones hear 421; what was taken meanwhile is delivered later."""
        sink = start_sink(self)
        sink.answer("BODY", Act("", hang=True))
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        await until(lambda: sink.sessions and "." in sink.sessions[0].lines, "the dot")
        idle = await deferToThread(connect, kumo.port)
        busy = await deferToThread(begin_message, kumo.port)
        kumo.signal(signal.SIGTERM)
        self.assertEqual((await deferToThread(idle.getreply))[0], 421)
        self.assertTrue((await deferToThread(hear, kumo.port)).startswith(b"421 "))
        self.assertEqual(await deferToThread(end_message, busy), [250, 421])
        self.assertTrue(kumo.running)
        (waiting,) = sink.protocols
        waiting.transport.write(b"250 2.0.0 Taken\r\n")
        self.assertEqual(await kumo.wait_for_exit(25), 0)
        self.assertEqual(len(kumo.records(type="Delivery")), 1)
        await kumo.restart(self)
        (mail,) = await sink.wait_for_mails()
        self.assertEqual(mail.recipients, ["slow@example.com"])
        self.assertNotIn("Traceback", kumo.output())

    async def test_told_twice(self) -> None:
        """The second signal does not wait for a destination that says nothing and a client that
        sends nothing; the message whose outcome is not known is recorded, kept and tried again."""
        sink = start_sink(self)
        sink.answer("BODY", Act("", hang=True))
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        await until(lambda: sink.sessions and "." in sink.sessions[0].lines, "the dot")
        busy = await deferToThread(begin_message, kumo.port)
        kumo.signal(signal.SIGTERM)
        await kumo.wait_for_output("stopping; transactions under way")
        self.assertTrue(kumo.running)
        kumo.signal(signal.SIGINT)
        self.assertEqual(await kumo.wait_for_exit(20), 0)
        busy.close()
        self.assertNotIn("Traceback", kumo.output())
        (record,) = kumo.records(type="TransientFailure")
        self.assertIn("may be delivered more than once", record["response"]["content"])
        await kumo.restart(self)
        (mail,) = await sink.wait_for_mails()
        self.assertEqual(mail.recipients, ["you@example.com"])
