"""What got its 250 is delivered, whatever happens to the process."""

from __future__ import annotations

import random
import smtplib
import threading
from collections import Counter

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail, send_mail_blocking
from tests.integration.configurations import direct
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Act, Sink, start_sink
from tests.integration.waiting import free_port, pause, until


def keep_sending(port: int, label: str, accepted: list[str], stop: threading.Event) -> None:
    """Hand messages in until told to stop or the other side is gone; note what got its 250."""
    number = 0
    while not stop.is_set():
        name = f"{label}-{number}"
        number += 1
        try:
            send_mail_blocking(port, [f"{name}@example.com"], body=message(name))
        except (OSError, smtplib.SMTPException):
            return
        accepted.append(f"{name}@example.com")


class KillTests(TestCase):
    """C{kill -9} at any moment."""

    async def test_kept_while_the_destination_is_away(self) -> None:
        """Accepted, killed, started again: delivered, with body and envelope as they were."""
        port = free_port()
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}"))
        body = message("kept", body="line one\r\n.dot\r\n\xfc\r\n" + "x" * 900 + "\r\n")
        large = message("large", body="0123456789\r\n" * 20000)
        await send_mail(kumo.port, ["a@example.com", "b@example.net"], body=body)
        await send_mail(kumo.port, ["c@example.com"], sender="", body=large)
        kumo.kill_9()
        sink = start_sink(self, port=port)
        kumo = await kumo.restart(self)
        await until(lambda: len(recipients(sink)) >= 3, "all three recipients", 30)
        self.assertEqual(
            recipients(sink), Counter(["a@example.com", "b@example.net", "c@example.com"])
        )
        for mail in sink.mails:
            if "c@example.com" in mail.recipients:
                self.assertEqual(mail.sender, "")
                self.assertTrue(mail.body.endswith(large))
            else:
                self.assertEqual(mail.sender, "sender@example.org")
                self.assertTrue(mail.body.endswith(body))

    async def test_kill_at_any_moment(self) -> None:
        """Four senders and a process that is killed again and again: nothing is lost, and copies
        are only of what was in flight."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route))
        accepted: list[str] = []
        chance = random.Random(4)
        for life in range(5):
            stop = threading.Event()
            senders = [
                deferToThread(keep_sending, kumo.port, f"life{life}-{sender}", accepted, stop)
                for sender in range(4)
            ]
            await pause(0.3 + chance.random() * 0.7)
            kumo.kill_9()
            stop.set()
            for sender in senders:
                await sender
            kumo = await kumo.restart(self)
        self.assertGreater(len(accepted), 20)
        await until(
            lambda: set(accepted) <= set(recipients(sink)),
            lambda: f"lost: {sorted(set(accepted) - set(recipients(sink)))[:10]}",
            40,
        )
        copies = recipients(sink)
        extra = sum(count - 1 for count in copies.values())
        self.assertLessEqual(extra, 5 * 4 * 32, "more copies than can have been in flight")
        self.assertLessEqual(max(copies.values()), 6)

    async def test_orderly_stop_makes_no_copies(self) -> None:
        """SIGTERM in the middle of a burst, and a new start: each message arrives once."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route))
        stop = threading.Event()
        accepted: list[str] = []
        sender = deferToThread(keep_sending, kumo.port, "burst", accepted, stop)
        await until(lambda: len(accepted) >= 30, "thirty accepted messages")
        self.assertIn(await kumo.stop(), (0, -15))
        stop.set()
        await sender
        kumo = await kumo.restart(self)
        await until(lambda: set(accepted) <= set(recipients(sink)), "every accepted message")
        self.assertEqual({name: n for name, n in recipients(sink).items() if n > 1}, {})

    async def test_orderly_stop_waits_for_the_reply(self) -> None:
        """SIGTERM in the middle of a transaction: its reply is waited for, and then the node ends
        at once, though the connection could be used again."""
        sink = start_sink(self)
        sink.answer("BODY", Act("250 2.0.0 Taken", delay=1.5))
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        await until(lambda: sink.sessions and "." in sink.sessions[0].lines, "the dot")
        await kumo.stop(6)
        self.assertEqual(len(kumo.records(type="Delivery")), 1)
        kumo = await kumo.restart(self)
        await pause(0.5)
        self.assertEqual(len(sink.mails), 1)

    async def test_killed_while_the_destination_hesitates(self) -> None:
        """A message whose outcome was not learned is delivered again, once."""
        sink = start_sink(self)
        sink.answer("BODY", Act(hang=True))
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        await until(lambda: sink.sessions and "." in sink.sessions[0].lines, "the dot")
        kumo.kill_9()
        kumo = await kumo.restart(self)
        await kumo.wait_for_records(type="Delivery")
        self.assertEqual(len(sink.mails), 1)

    async def test_second_node_refuses_to_start(self) -> None:
        """Two nodes on one spool directory: the second says why and ends, the first goes on."""
        sink = start_sink(self)
        first = await start_kumo(self, direct(sink.route))
        text = first.config_path.read_text(encoding="utf-8")
        port = free_port()
        other = first.config_path.with_name("second.ini")
        other.write_text(text.replace(f":{first.port}", f":{port}"), encoding="utf-8")
        second = Kumo(self, other, first.state, port)
        self.assertNotEqual(await second.wait_for_exit(), 0)
        self.assertRegex(second.output(), r"(?i)spool")
        self.assertRegex(second.output(), r"(?i)another|already|in use|lock|has it|owned")
        await send_mail(first.port)
        await sink.wait_for_mails()


def recipients(sink: Sink) -> Counter[str]:
    """How often each recipient got something."""
    return Counter(one for mail in sink.mails for one in mail.recipients)
