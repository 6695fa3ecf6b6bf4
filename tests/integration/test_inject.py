"""The way of a newcomer: the shipped configuration, C{kumo inject}, and the sink."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import MESSAGE, send_mail
from tests.integration.configurations import direct
from tests.integration.processes import CHECKOUT, run
from tests.integration.program import Kumo, kumo_command, start_kumo, start_plugin
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port

HTTP = "[http]\nlisten = 127.0.0.1:<http>\n"


class InjectTests(TestCase):
    """C{kumo inject} against a node with an HTTP listener."""

    async def start(self, config: str) -> tuple[Kumo, list[str]]:
        """A node; and the options by which C{kumo} finds it."""
        port = free_port()
        kumo = await start_kumo(self, HTTP + config, names={"http": port})
        await kumo.wait_for_listening(port)
        options = ["--server", f"127.0.0.1:{kumo.port}", "--endpoint", f"http://127.0.0.1:{port}"]
        return kumo, options

    async def inject(self, *arguments: str) -> tuple[int, str]:
        """Run C{kumo inject}; give its status and what it printed."""
        done = await deferToThread(run, kumo_command("inject", *arguments))
        return done.returncode, done.stdout

    async def test_delivered(self) -> None:
        """Each step of a message's life is shown, and the status is 0."""
        sink = start_sink(self)
        _, options = await self.start(direct(sink.route))
        status, output = await self.inject("--to", "you@example.com", *options)
        self.assertEqual(status, 0, output)
        for step in ("received", "queued", "connect", "delivered"):
            self.assertIn(step, output.lower())
        self.assertEqual(len(sink.mails), 1)

    async def test_bounced(self) -> None:
        """A refusal is shown with its reason, and the status is not 0."""
        sink = start_sink(self)
        sink.always("RCPT", "550 5.1.1 No such user here")
        _, options = await self.start(direct(sink.route))
        status, output = await self.inject("--to", "you@example.com", *options)
        self.assertEqual(status, 1, output)
        self.assertIn("No such user here", output)

    async def test_nobody_there(self) -> None:
        """A node that does not run is told in words."""
        status, output = await self.inject(
            "--to", "you@example.com", "--server", f"127.0.0.1:{free_port()}"
        )
        self.assertNotEqual(status, 0)
        self.assertNotIn("Traceback", output)

    async def test_a_file(self) -> None:
        """A message from a file is handed in as it is."""
        sink = start_sink(self)
        _, options = await self.start(direct(sink.route))
        path = Path(self.mktemp()).absolute()
        path.write_bytes(MESSAGE)
        status, output = await self.inject("--to", "you@example.com", "--file", str(path), *options)
        self.assertEqual(status, 0, output)
        self.assertTrue(sink.mails[0].body.endswith(MESSAGE))


class ShippedConfigurationTests(TestCase):
    """C{etc/kumo.ini}, on ports of the test's own."""

    async def start(self, haproxy: int | None = None) -> Kumo:
        """Start it, with the two lines that turn HAProxy on if there is one."""
        text = (CHECKOUT / "etc" / "kumo.ini").read_text(encoding="utf-8")
        self.ports = {number: free_port() for number in ("2525", "2526", "5000", "8000")}
        if haproxy is not None:
            self.ports["2527"] = haproxy
            self.assertIn("#     via-haproxy = 1\n", text)
            text = text.replace("via-haproxy = 0", "via-haproxy = 1")
        for number, port in self.ports.items():
            text = re.sub(rf"(?m)^([^#;]*\b){number}$", rf"\g<1>{port}", text)
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "kumo.ini").write_text(text, encoding="utf-8")
        listener = self.ports["2525"]
        kumo = Kumo(self, directory / "kumo.ini", directory / "var", listener)
        await kumo.wait_until_ready()
        return kumo

    async def inject(self, number: int) -> None:
        """One message is delivered, and C{kumo inject} says so."""
        command = kumo_command(
            "inject", "--to", f"you{number}@domain{number}.example.com",
            "--server", f"127.0.0.1:{self.ports['2525']}",
            "--endpoint", f"http://127.0.0.1:{self.ports['8000']}",
        )  # fmt: skip
        done = await deferToThread(run, command)
        self.assertEqual(done.returncode, 0, done.stdout)

    async def test_shows_the_whole_idea(self) -> None:
        """It starts, says what listens where and what to try next; mail for any domain ends in the
        sink, directly and through the proxy."""
        kumo = await self.start()
        await kumo.wait_for_output(r"kumo inject --to")
        for port in self.ports.values():
            self.assertIn(str(port), kumo.output())
        self.assertRegex(kumo.output(), r"(?i)trial")
        for number in range(6):
            await self.inject(number)
        records = await kumo.wait_for_records(6, type="Delivery")
        ways = {record["source_address"]["protocol"] for record in records}
        self.assertEqual(ways, {None, "socks5"})

    async def test_with_haproxy(self) -> None:
        """With the two lines, mail leaves through the shipped HAProxy as well."""
        _, port = await parts.start_haproxy(self, parts.shipped_haproxy_cfg())
        kumo = await self.start(port)
        for number in range(9):
            await self.inject(number)
        records = await kumo.wait_for_records(9, type="Delivery")
        ways = {record["source_address"]["protocol"] for record in records}
        self.assertEqual(ways, {None, "socks5", "haproxy"})


class SinkTests(TestCase):
    """C{twistd kumosink}."""

    async def test_logs_where_mail_came_from(self) -> None:
        """It takes everything and logs the address that each message came from."""
        port = free_port()
        child = await start_plugin(self, "kumosink", ["--listen", f"127.0.0.1:{port}"], port)
        path = "enable_tls = OpportunisticInsecure\n"
        config = direct(f"[127.0.0.1]:{port}", address="127.0.0.19", path=path)
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="Delivery")
        await child.wait_for_output(r"127\.0\.0\.19")

    async def test_fails_as_told(self) -> None:
        """It can be told to refuse."""
        port = free_port()
        arguments = ["--listen", f"127.0.0.1:{port}", "--refuse", "451 4.7.1 Not today"]
        await start_plugin(self, "kumosink", arguments, port)
        path = "enable_tls = OpportunisticInsecure\n"
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}", path=path))
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("Not today", record["response"]["content"])
