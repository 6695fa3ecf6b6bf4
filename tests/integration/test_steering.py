"""Steering a running node with the C{kumo} command: what waits, suspensions, bounces, rebinds."""

from __future__ import annotations

import re

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import Kumo, kumo_command, start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port, until

BASE = """\
[kumo]
hostname = mta.example.test
state_dir = {state}
workers = <workers>

[listener:in]
listen = 127.0.0.1:{port}
"""

CONFIG = """\

[http]
listen = 127.0.0.1:<http>
"""


class SteeringTests(TestCase):
    """A node with an HTTP listener, and a sink behind it."""

    async def start(self, workers: int = 1) -> Kumo:
        """Start them."""
        self.sink = start_sink(self)
        self.http = free_port()
        kumo = await start_kumo(
            self,
            direct(self.sink.route) + CONFIG,
            base=BASE.replace("<workers>", str(workers)),
            names={"http": self.http},
        )
        await kumo.wait_for_listening(self.http)
        return kumo

    async def kumo(self, *arguments: str, status: int = 0) -> str:
        """What a C{kumo} command prints."""
        command = kumo_command(*arguments, "--endpoint", f"http://127.0.0.1:{self.http}")
        done = await deferToThread(run, command)
        self.assertEqual(done.returncode, status, done.stdout)
        return str(done.stdout)

    async def wait_for_delivery(self, number: int) -> None:
        """Until the sink has so many messages."""
        await until(
            lambda: len(self.sink.mails) >= number, f"the sink has not {number} messages", 60
        )

    async def test_suspend_and_resume(self) -> None:
        """A suspended domain waits, over a restart too; resumed, it is delivered."""
        kumo = await self.start()
        output = await self.kumo(
            "suspend", "--domain", "a.example", "--duration", "1h", "--persist", "--reason", "why"
        )
        await send_mail(kumo.port, ["x@a.example"])
        await send_mail(kumo.port, ["y@b.example"])
        await self.wait_for_delivery(1)
        await kumo.wait_for_records(type="Delayed", recipient="x@a.example")
        self.assertIn("a.example", await self.kumo("queue"))
        await kumo.stop()
        kumo = await kumo.restart(self)
        await kumo.wait_for_listening(self.http)
        listed = await self.kumo("orders")
        self.assertIn("domain=a.example", listed)
        match = re.search(r"kumo resume (\S+)", output)
        assert match is not None
        await self.kumo("resume", match.group(1))
        await self.wait_for_delivery(2)

    async def test_bounce(self) -> None:
        """What would be bounced is shown first; then it is bounced, with a record."""
        kumo = await self.start()
        await self.kumo("suspend", "--everything", "--duration", "1h")
        await send_mail(kumo.port, ["x@a.example"])
        (record,) = await kumo.wait_for_records(type="Delayed")
        self.assertIn("x@a.example", await self.kumo("inspect", str(record["id"])))
        output = await self.kumo("bounce", "--id", str(record["id"]), "--dry-run")
        self.assertIn("1 messages in 1 queues", output)
        self.assertEqual(kumo.records(type="AdminBounce"), [])
        await self.kumo("bounce", "--id", str(record["id"]), "--reason", "spring cleaning")
        (bounced,) = await kumo.wait_for_records(type="AdminBounce")
        self.assertEqual(bounced["response"]["content"], "spring cleaning")
        self.assertIn("0 messages", await self.kumo("queue"))

    async def test_workers(self) -> None:
        """Several processes are steered as one node."""
        kumo = await self.start(workers=2)
        await self.kumo("suspend", "--everything", "--duration", "1h")
        for number in range(6):
            await send_mail(kumo.port, [f"x{number}@a.example"])
        await kumo.wait_for_records(6, type="Reception")
        self.assertIn("6 messages in", await self.kumo("queue"))
        await self.kumo("bounce", "--domain", "a.example", "--reason", "all of them")
        await kumo.wait_for_records(6, type="AdminBounce")
        self.assertEqual(self.sink.mails, [])

    async def test_mistakes(self) -> None:
        """Without a choice nothing is touched; a node that is not there is told of."""
        await self.start()
        self.assertIn("--everything", await self.kumo("bounce", status=2))
        self.assertIn("no message", await self.kumo("inspect", "0" * 32, status=1))
        self.http = free_port()
        self.assertIn("http://127.0.0.1", await self.kumo("queue", status=1))
