"""What went in comes out: dots, long lines, eight bits, line ends; and nothing is smuggled."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import converse, message, send_mail
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Sink, start_sink

ENVELOPE = b"EHLO me\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n"
SECOND = b"MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<x@example.com>\r\nDATA\r\nsecond\r\n.\r\n"


class EndToEndTests(TestCase):
    """From the standard library's client to the sink."""

    async def start(self, path: str = "", keys: str = "") -> tuple[Kumo, Sink]:
        """A node that delivers to a sink."""
        sink = start_sink(self)
        return await start_kumo(self, keys + direct(sink.route, path=path)), sink

    async def assert_unchanged(self, bodies: Sequence[bytes], options: Sequence[str] = ()) -> None:
        """Each body arrives as it was handed in, below the trace fields."""
        kumo, sink = await self.start()
        for number, body in enumerate(bodies):
            await send_mail(kumo.port, [f"u{number}@example.com"], body=body, options=options)
        await sink.wait_for_mails(len(bodies))
        by_recipient = {mail.recipients[0]: mail for mail in sink.mails}
        for number, body in enumerate(bodies):
            mail = by_recipient[f"u{number}@example.com"]
            self.assertTrue(mail.body.endswith(body), (number, mail.body[-200:], body[-200:]))
            self.assertNotIn(b"\r\r\n", mail.raw)
            self.assertNotIn(b"\n", mail.raw.replace(b"\r\n", b""))

    async def test_dots(self) -> None:
        """Lines of dots, a dot first of all, dots at the seams of buffers."""
        bodies = [
            message(body=text) for text in (".\r\n", "..\r\n", ".x\r\n.\r\n", "a\r\n.\r\nb\r\n")
        ]
        for size in (4096, 8192, 16384, 32768, 65536):
            for shift in (-2, -1, 0, 1):
                head = len(message(body=""))
                filler = "y" * 61 + "\r\n"
                text = filler * ((size + shift - head) // 63)
                text += "z" * (size + shift - head - len(text) - 2) + "\r\n"
                bodies.append(message(body=text + ".\r\n..\r\n.end\r\n"))
        await self.assert_unchanged(bodies)

    async def test_eight_bits(self) -> None:
        """8BITMIME is offered on both sides and passed on."""
        kumo, sink = await self.start()
        body = message(body="Grüße\r\n")
        await send_mail(kumo.port, body=body, options=["BODY=8BITMIME"])
        [mail] = await sink.wait_for_mails()
        self.assertIn("BODY=8BITMIME", mail.parameters)
        self.assertTrue(mail.body.endswith(body))

    async def test_eight_bits_to_a_host_without_8bitmime(self) -> None:
        """Raw eight bits are never sent to a host that does not take them."""
        kumo, sink = await self.start()
        sink.extensions = ["PIPELINING"]
        body = message(body="Grüße\r\n")
        await send_mail(kumo.port, body=body, sender="", options=["BODY=8BITMIME"])
        await kumo.wait_for_records(type="Bounce")
        self.assertFalse([mail for mail in sink.mails if max(mail.raw) > 127])

    async def test_larger_than_the_host_takes(self) -> None:
        """A message above the offered SIZE is not sent (RFC 1870)."""
        kumo, sink = await self.start()
        sink.extensions = ["PIPELINING", "SIZE 500"]
        await send_mail(kumo.port, body=message(body="x" * 60 + "\r\n" * 600), sender="")
        [record] = await kumo.wait_for_records(type="Bounce")
        self.assertEqual(record["response"]["code"], 552)
        self.assertIn("at most 500", record["response"]["content"])
        self.assertEqual(sink.mails, [])

    async def test_only_crlf_dot_crlf_ends_a_message(self) -> None:
        """No odd end of data lets a second message through (CVE-2023-51764 and its kin)."""
        kumo, sink = await self.start()
        ends = [
            b"\n.\n",
            b"\r.\r",
            b"\n.\r\n",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r.\r\n",
            b"\r\r\n.\r\r\n",
        ]
        ends += [b"\n\r.\n\r", b"\r\n.\x00\r\n", b"\r\n\x00.\r\n"]
        for end in ends:
            replies = await converse(
                kumo.port, ENVELOPE, b"Subject: x\r\n\r\nfirst" + end + SECOND + b"QUIT\r\n"
            )
            self.assertLessEqual(replies.count(b"\r\n354"), 1, (end, replies))
        await kumo.stop()
        self.assertEqual([mail for mail in sink.mails if mail.sender.startswith("smuggled")], [])

    async def test_pipelining(self) -> None:
        """A whole transaction in one segment is answered in order (RFC 2920)."""
        kumo, sink = await self.start()
        body = b"Subject: x\r\n\r\nhello\r\n.\r\n"
        replies = await converse(kumo.port, ENVELOPE + body, b"NOOP\r\nQUIT\r\n")
        codes = [line[:3] for line in replies.split(b"\r\n") if line[3:4] == b" "]
        self.assertEqual(
            codes, [b"220", b"250", b"250", b"250", b"354", b"250", b"250", b"221"], replies
        )
        await sink.wait_for_mails()
        outgoing = [chunk for chunk in sink.sessions[0].chunks if chunk.startswith(b"MAIL FROM")]
        self.assertIn(b"\r\nRCPT TO", outgoing[0])

    async def test_smtp_source(self) -> None:
        """Two hundred messages from Postfix's load generator all arrive, over few connections."""
        kumo, sink = await self.start()
        command = [parts.find("smtp-source"), "-s", "10", "-m", "200", "-l", "3000", "-d"]
        command += ["-f", "a@example.org", "-t", "you@example.com", f"127.0.0.1:{kumo.port}"]
        done = await deferToThread(run, command)
        self.assertEqual(done.returncode, 0, done.stdout)
        await sink.wait_for_mails(200, 40)
        await kumo.wait_for_records(200, type="Delivery")
        self.assertLessEqual(len(sink.sessions), 8)
        self.assertEqual(len(sink.mails), 200)

    async def test_swaks_through_everything(self) -> None:
        """swaks' own idea of a message arrives."""
        kumo, sink = await self.start()
        command = [parts.find("swaks"), "--server", f"127.0.0.1:{kumo.port}", "--pipeline"]
        command += ["--from", "a@example.org", "--to", "you@example.com,me@example.com"]
        done = await deferToThread(run, command)
        self.assertEqual(done.returncode, 0, done.stdout)
        await kumo.wait_for_records(2, type="Delivery")
        self.assertEqual(
            sorted(one for mail in sink.mails for one in mail.recipients),
            ["me@example.com", "you@example.com"],
        )
