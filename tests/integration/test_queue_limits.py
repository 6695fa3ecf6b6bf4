"""Queues by tenant, their rates, and what of them survives a restart, with the real program."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import until

BASE = """\
[kumo]
hostname = mta.example.test
state_dir = {state}
tenant_header = X-Tenant
remove_tenant_header = yes
scheduling_header = X-Schedule

[listener:in]
listen = 127.0.0.1:{port}
"""

QUEUES = """
[queue:slow@*]
max_message_rate = 2/h

[queue:*@drop.example]
protocol = null

[queue:files.example]
protocol = maildir:<mail>/{local}

[queue:never.example]
reject = no mail for them
"""


def message(tenant: str = "", schedule: str = "") -> bytes:
    """A message with such header fields."""
    fields = [f"X-Tenant: {tenant}"] if tenant else []
    fields += [f"X-Schedule: {schedule}"] if schedule else []
    return "\r\n".join([*fields, "Subject: s", "From: a@b.example", "", "Text.", ""]).encode()


class QueueTests(TestCase):
    """One node, one sink."""

    async def wait_for_mail(self, sink: Sink, number: int) -> None:
        """Until the sink has so many messages."""
        await until(lambda: len(sink.mails) >= number, f"the sink has not {number} messages", 60)

    async def test_tenants(self) -> None:
        """A tenant's rate holds for it alone, also after a restart; the field is not sent on."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route) + QUEUES, base=BASE, names={"mail": "/m"})
        for number in range(4):
            await send_mail(kumo.port, [f"x{number}@a.example"], body=message("slow"))
        await send_mail(kumo.port, ["y@a.example"], body=message("quick"))
        await self.wait_for_mail(sink, 3)
        received = await kumo.wait_for_records(5, type="Reception")
        self.assertEqual(
            sorted({str(each["queue"]) for each in received}),
            ["quick@a.example", "slow@a.example"],
        )
        await kumo.wait_for_records(type="Delivery", recipient="y@a.example")
        self.assertEqual(len(sink.mails), 3)
        for mail in sink.mails:
            self.assertNotIn(b"X-Tenant", mail.body)
        (delayed,) = await kumo.wait_for_records(type="Delayed")
        self.assertIn("no faster than 2/1h", str(delayed["response"]))

    async def test_schedule_survives(self) -> None:
        """A message whose first attempt is tomorrow waits for that, over a restart too."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route), base=BASE)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        schedule = f'{{"first_attempt": "{tomorrow}"}}'
        await send_mail(kumo.port, ["x@a.example"], body=message(schedule=schedule))
        await kumo.stop()
        kumo = await kumo.restart(self)
        await send_mail(kumo.port, ["y@a.example"], body=message())
        await kumo.wait_for_records(type="Delivery", recipient="y@a.example")
        self.assertEqual(len(sink.mails), 1)
        self.assertEqual(kumo.records(type="Delivery", recipient="x@a.example"), [])

    async def test_local(self) -> None:
        """Mail goes into a maildir, or nowhere, or is refused, as its domain is configured."""
        sink = start_sink(self)
        path = Path(self.mktemp()).absolute()
        kumo = await start_kumo(
            self, direct(sink.route) + QUEUES, base=BASE, names={"mail": str(path)}
        )
        refused = await send_mail(
            kumo.port, ["me@files.example", "x@drop.example", "x@never.example"]
        )
        self.assertEqual(refused, {"x@never.example": (550, b"5.7.1 no mail for them")})
        await kumo.wait_for_records(2, type="Delivery")
        (file,) = (path / "me" / "new").iterdir()
        self.assertIn(b"Delivered-To: me@files.example\n", file.read_bytes())
        self.assertEqual(len(sink.mails), 0)
