"""Clients that mean no good: no memory is lost to them, and nobody else notices."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import converse, send_mail
from tests.integration.configurations import direct
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import until


def resident_kib(pid: int) -> int:
    """The memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no VmRSS for {pid}")


class HostileClientTests(TestCase):
    """The listener on its own."""

    async def start(self, keys: str = "") -> tuple[Kumo, Sink]:
        """A node that delivers to a sink."""
        sink = start_sink(self)
        return await start_kumo(self, keys + direct(sink.route)), sink

    async def test_ten_megabytes_without_a_line_end(self) -> None:
        """A command without an end is refused long before that, in bounded memory."""
        kumo, sink = await self.start()
        await send_mail(kumo.port)
        before = resident_kib(kumo.pid)
        replies = await converse(kumo.port, *[b"x" * 65536] * 160, b"\r\nQUIT\r\n")
        self.assertRegex(replies, rb"\r\n(500|421) ")
        self.assertLess(resident_kib(kumo.pid) - before, 4096)
        await send_mail(kumo.port)
        await sink.wait_for_mails(2)

    async def test_ten_megabytes_without_a_line_end_in_data(self) -> None:
        """A line of ten megabytes in a message is never run as commands."""
        kumo, sink = await self.start()
        replies = await converse(
            kumo.port,
            b"EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n",
            *[b"x" * 65536] * 160,
            b"\r\n.\r\nQUIT\r\n",
            seconds=40,
        )
        codes = [line[:3] for line in replies.split(b"\r\n") if line[3:4] == b" "]
        self.assertEqual(codes[:5], [b"220", b"250", b"250", b"250", b"354"])
        self.assertIn(codes[5:], ([b"250", b"221"], [b"554", b"221"], [b"500", b"221"]), replies)
        self.assertTrue(kumo.running)
        del sink

    async def test_no_open_relay(self) -> None:
        """A client outside relay_hosts may not send anywhere but to relay_to."""
        kumo, sink = await self.start("relay_hosts = 192.0.2.1\nrelay_to = example.net\n")
        forms = [
            b"<x@example.com>", b"<x%example.com@[127.0.0.1]>", b"<example.com!x>",
            b"<@example.net:x@example.com>", b'<"x@example.com">', b"<x@example.com@example.com>",
            b"x@example.com", b"<x@example.com>,<y@example.com>", b"<x@example.com",
        ]  # fmt: skip
        commands = b"".join(b"RCPT TO:" + form + b"\r\n" for form in forms)
        replies = await converse(
            kumo.port, b"EHLO me\r\nMAIL FROM:<a@example.org>\r\n", commands, b"QUIT\r\n"
        )
        codes = [line[:3] for line in replies.split(b"\r\n") if line[3:4] == b" "]
        self.assertEqual(len(codes), 3 + len(forms) + 1, replies)
        for form, code in zip(forms, codes[3:], strict=False):
            self.assertEqual(code[:1], b"5", (form, replies))
        replies = await converse(
            kumo.port, b"EHLO me\r\nMAIL FROM:<a@b.cd>\r\nRCPT TO:<x@example.net>\r\nQUIT\r\n"
        )
        self.assertEqual(replies.count(b"\r\n250 "), 3)
        self.assertEqual(sink.sessions, [])

    async def test_silent_client(self) -> None:
        """A client that says nothing is sent away after its time."""
        kumo, _ = await self.start("client_timeout = 1s\n")

        def wait() -> bytes:
            with socket.create_connection(("127.0.0.1", kumo.port), timeout=15) as connection:
                received = b""
                while chunk := connection.recv(4096):
                    received += chunk
                return received

        self.assertIn(b"\r\n421 ", await deferToThread(wait))

    async def test_too_large(self) -> None:
        """A message above the limit is refused, declared or not, and nothing of it is kept."""
        kumo, sink = await self.start("max_message_size = 100KiB\n")
        envelope = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n"
        lines = (b"y" * 70 + b"\r\n") * 3000
        replies = await converse(
            kumo.port, b"EHLO me\r\n" + envelope, lines, b".\r\nNOOP\r\nQUIT\r\n"
        )
        self.assertIn(b"\r\n552 ", replies)
        self.assertIn(b"\r\n221 ", replies)
        declared = b"EHLO me\r\nMAIL FROM:<a@example.org> SIZE=999999\r\nQUIT\r\n"
        self.assertIn(b"\r\n552 ", await converse(kumo.port, declared))
        self.assertEqual(kumo.records(type="Delivery"), [])
        del sink

    async def test_hundred_connections_that_say_nothing(self) -> None:
        """Idle connections do not keep anybody else from sending."""
        kumo, sink = await self.start()
        idle = [socket.create_connection(("127.0.0.1", kumo.port)) for _ in range(100)]
        try:
            await send_mail(kumo.port)
            await sink.wait_for_mails()
        finally:
            for connection in idle:
                connection.close()
        await until(lambda: kumo.running, "the node")
