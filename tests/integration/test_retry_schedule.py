"""Retries follow the schedule, survive a restart without a storm, and end in a report."""

from __future__ import annotations

import email
import email.policy
from datetime import datetime
from email.message import EmailMessage
from typing import Any

from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import Mail, start_sink
from tests.integration.waiting import pause


def parsed(mail: Mail) -> EmailMessage:
    """A message as the standard library reads it."""
    read = email.message_from_bytes(mail.body, policy=email.policy.default)
    assert isinstance(read, EmailMessage)
    return read


def when(record: dict[str, Any]) -> float:
    """The time of a record, in seconds."""
    return datetime.fromisoformat(record["event_time"]).timestamp()


class ScheduleTests(TestCase):
    """When a message is tried again."""

    async def test_intervals_grow(self) -> None:
        """With an interval of a second, the second wait is longer than the first."""
        sink = start_sink(self)
        sink.answer("RCPT", *["451 4.7.1 Later"] * 3)
        kumo = await start_kumo(self, direct(sink.route, retry="1s"))
        await send_mail(kumo.port)
        [delivery] = await kumo.wait_for_records(type="Delivery", seconds=40)
        failures = kumo.records(type="TransientFailure")
        self.assertEqual(len(failures), 3)
        counts = [record["num_attempts"] for record in (*failures, delivery)]
        self.assertEqual(counts, [0, 1, 2, 3])

    async def test_attempts_and_due_time_survive(self) -> None:
        """After a restart the message waits for its time, and its attempts go on counting."""
        sink = start_sink(self)
        sink.answer("RCPT", "451 4.7.1 Later")
        kumo = await start_kumo(self, direct(sink.route, retry="6s"))
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="TransientFailure")
        await pause(0.5)
        kumo.kill_9()
        kumo = await kumo.restart(self)
        [delivery] = await kumo.wait_for_records(type="Delivery", seconds=60)
        [failure] = kumo.records(type="TransientFailure")
        waited = when(delivery) - when(failure)
        self.assertGreater(waited, 5.5, "it was tried before its time")
        self.assertEqual(delivery["num_attempts"], 1)
        self.assertEqual(len(sink.mails), 1)

    async def test_default_schedule_is_twenty_minutes(self) -> None:
        """Without C{retry_interval} nothing is tried again within seconds."""
        sink = start_sink(self)
        sink.answer("RCPT", "451 4.7.1 Later")
        config = direct(sink.route).replace("retry_interval = 1s\n", "")
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="TransientFailure")
        await pause(3)
        self.assertEqual(len(kumo.records(type="TransientFailure")), 1)


class BounceTests(TestCase):
    """What ends a message, and what its sender is told."""

    async def test_permanent_failure_is_reported(self) -> None:
        """A 5xx ends it; the sender gets an RFC 3464 report with the reason in words."""
        sink = start_sink(self)
        sink.answer("RCPT", "550 5.1.1 No such user here")
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port)
        [bounce] = await kumo.wait_for_records(type="Bounce")
        self.assertEqual(bounce["response"]["code"], 550)
        [mail] = await sink.wait_for_mails()
        self.assertEqual((mail.sender, mail.recipients), ("", ["sender@example.org"]))
        report = parsed(mail)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        parts = list(report.iter_parts())
        self.assertIn("No such user here", parts[0].get_content())
        self.assertIn("you@example.com", parts[0].get_content())
        self.assertEqual(parts[1].get_content_type(), "message/delivery-status")
        status = parts[1].as_string()
        for field in ("Reporting-MTA:", "Final-Recipient:", "Action: failed", "Status: 5.1.1"):
            self.assertIn(field, status)
        self.assertIn("550", status)

    async def test_null_sender_is_never_told(self) -> None:
        """A report about a report would never end."""
        sink = start_sink(self)
        sink.answer("RCPT", "550 5.1.1 No such user here")
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port, sender="")
        await kumo.wait_for_records(type="Bounce")
        await pause(1.5)
        self.assertEqual(sink.mails, [])
        self.assertEqual(len(kumo.records(type="Bounce")), 1)

    async def test_max_age(self) -> None:
        """A message that has become too old ends, and its sender is told."""
        sink = start_sink(self)
        sink.answer("RCPT", *["451 4.7.1 Later"] * 3)
        config = direct(sink.route).replace("route =", "max_age = 2s\nroute =")
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="Expiration", seconds=30)
        [mail] = await sink.wait_for_mails()
        self.assertEqual((mail.sender, mail.recipients), ("", ["sender@example.org"]))

    async def test_one_recipient_of_several(self) -> None:
        """Only the refused recipient is reported; the other one gets the mail."""
        sink = start_sink(self)
        sink.answer("RCPT", None, "550 5.1.1 No such user here")
        kumo = await start_kumo(self, direct(sink.route))
        await send_mail(kumo.port, recipients=["one@example.com", "two@example.com"])
        await kumo.wait_for_records(type="Delivery", recipient="one@example.com")
        await kumo.wait_for_records(type="Bounce", recipient="two@example.com")
        mails = await sink.wait_for_mails(2)
        [report] = [mail for mail in mails if mail.sender == ""]
        self.assertIn(b"two@example.com", report.body)
