"""A full disk under the spool: 452, nothing lost, and it recovers by itself."""

from __future__ import annotations

import re
import smtplib
import subprocess
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import message, send_mail, send_mail_blocking
from tests.integration.configurations import direct
from tests.integration.program import start_kumo
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port, until


def small_disk(test: TestCase, megabytes: int) -> Path:
    """A file system of its own in memory, unmounted when the test is over."""
    parts.require_root("a small file system is mounted")
    path = Path(test.mktemp()).absolute()
    path.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)], check=True
    )
    test.addCleanup(subprocess.run, ["umount", "-l", str(path)], check=True)
    return path


class FullDiskTests(TestCase):
    """The spool on a disk of a few megabytes."""

    async def test_full(self) -> None:
        """The disk really is full."""
        await self.fill_and_recover("min_free_space = 0\n")

    async def test_nearly_full(self) -> None:
        """Mail is refused before the disk is full."""
        await self.fill_and_recover("min_free_space = 1MiB\n")

    async def fill_and_recover(self, keys: str) -> None:
        """What does not fit is refused for now; what was accepted arrives; when there is room
        again, mail is taken without a restart."""
        disk = small_disk(self, 4)
        port = free_port()
        config = f"[spool]\npath = {disk}/spool\n{keys}" + direct(f"[127.0.0.1]:{port}")
        kumo = await start_kumo(self, config)
        accepted: list[str] = []
        body = message(body=("x" * 70 + "\r\n") * 3000)

        def fill() -> smtplib.SMTPResponseException | None:
            for number in range(100):
                recipient = f"fill{number}@example.com"
                try:
                    send_mail_blocking(kumo.port, [recipient], body=body)
                except smtplib.SMTPResponseException as refusal:
                    return refusal
                accepted.append(recipient)
            return None

        refusal = await deferToThread(fill)
        assert refusal is not None, f"{len(accepted)} messages fitted into 4 MB"
        self.assertEqual(refusal.smtp_code, 452)
        self.assertRegex(str(refusal.smtp_error), r"4\.3\.1")
        self.assertTrue(kumo.running)
        self.assertGreater(len(accepted), 2)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)

        async def taken() -> bool:
            try:
                await send_mail(kumo.port, ["after@example.com"], body=body)
            except smtplib.SMTPException:
                return False
            return True

        for _ in range(10):
            if await taken():
                break
            await until(lambda: kumo.running, "the node", 2)
        else:
            self.fail("no mail is taken though there is room again")
        sink = start_sink(self, port=port)
        wanted = {*accepted, "after@example.com"}
        await until(
            lambda: wanted <= {one for mail in sink.mails for one in mail.recipients},
            lambda: f"{len(sink.mails)} of {len(wanted)} messages",
            40,
        )
        self.assertIsNone(re.search(r"Traceback", kumo.output()), kumo.output())
