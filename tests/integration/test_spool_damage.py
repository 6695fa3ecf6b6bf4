"""A damaged record and damaged bodies are set aside; everything else is delivered."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3

from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import kumo_command, start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port, until


class DamageTests(TestCase):
    """The disk has changed what was written."""

    async def test_damaged_ones_do_not_stop_the_others(self) -> None:
        """A record, a small and a large body are damaged while the node is down: the node starts,
        delivers the others, says of each what is wrong, and keeps it."""
        port = free_port()
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}"))
        large = "0123456789\r\n" * 3000
        for number in range(8):
            body = message(f"number {number}", large if number % 2 else f"body {number}\r\n")
            await send_mail(kumo.port, [f"m{number}@example.com"], body=body)
        kumo.kill_9()
        spool = kumo.state / "spool"
        with contextlib.closing(sqlite3.connect(spool / "spool.sqlite3")) as database:
            for statement in (
                "UPDATE message SET recipient = 'm9@example.com' WHERE recipient LIKE 'm0%'",
                "UPDATE small SET content = x'00' WHERE key = "
                "(SELECT body FROM message WHERE recipient LIKE 'm2%')",
            ):
                self.assertEqual(database.execute(statement).rowcount, 1)
            database.commit()
        with next((spool / "segments").glob("*.seg")).open("r+b") as segment:
            # The first large body is the one of number 1.
            segment.seek(2000)
            segment.write(b"?")
        report = self.check(str(spool))
        self.assertEqual(
            sorted(each["kind"] for each in report["findings"]), ["body", "body", "record"]
        )
        sink = start_sink(self, port=port)
        kumo = await kumo.restart(self)
        wanted = {f"m{number}@example.com" for number in (3, 4, 5, 6, 7)}
        await until(
            lambda: wanted <= {one for mail in sink.mails for one in mail.recipients},
            lambda: f"{[mail.recipients for mail in sink.mails]}\n{kumo.output()}",
        )
        await kumo.wait_for_output("set aside, never to be delivered: the record of message")
        await kumo.wait_for_output(r"cannot read the body of \S+: .*body \d+ is damaged")
        await kumo.wait_for_output(r"cannot read the body of \S+: .*body \d+ at offset 0")
        self.assertEqual({one for mail in sink.mails for one in mail.recipients}, wanted)
        self.assertIsNone(re.search("Traceback", kumo.output()), kumo.output())
        await kumo.stop()
        left = {one["recipient"] for one in self.listed(str(spool))}
        self.assertEqual(left, {"m9@example.com", "m1@example.com", "m2@example.com"})

    def check(self, spool: str) -> dict[str, list[dict[str, str]]]:
        """What C{kumo spool check} says."""
        result = run(kumo_command("spool", "check", "--json", "--path", spool))
        self.assertEqual(result.returncode, 1, result.stdout)
        report: dict[str, list[dict[str, str]]] = json.loads(result.stdout)
        return report

    def listed(self, spool: str) -> list[dict[str, str]]:
        """What C{kumo spool list} says."""
        result = run(kumo_command("spool", "list", "--json", "--path", spool))
        return [json.loads(line) for line in result.stdout.splitlines()]
