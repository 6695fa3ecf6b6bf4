"""Mail to and from programs that others wrote: Exim, Postfix's tools, curl, smtplib, aiosmtpd,
testssl.sh."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import attrs
from aiosmtpd.controller import Controller
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.hostile.delivery_room import DeliveryRoom, Destination
from tests.integration import parts
from tests.integration.client import MESSAGE, message, send_mail_blocking
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import free_port, until

#: What breaks careless programs: dots, a line of 998 octets, 8-bit, a last line of one dot.
TRICKY = message(body=".\r\n..\r\n.x\r\n" + "y" * 998 + "\r\n\r\nä\r\n.\r\n")
LOGIN = "me"
PASSWORD = "geheim"


class EximTests(TestCase):
    """Exim, which speaks CHUNKING, DSN and SMTPUTF8."""

    async def test_next_hop(self) -> None:
        """Exim takes a message as it is, its refusals end or delay others, in its own words."""
        _, port, mails = await parts.start_exim(self, free_port())
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}", retry="1h"))
        await deferToThread(send_mail_blocking, kumo.port, ["you@exim.test"], body=TRICKY)
        recipients = ["nobody@exim.test", "later@exim.test", "other@exim.test"]
        await deferToThread(send_mail_blocking, kumo.port, recipients)
        await kumo.wait_for_records(2, type="Delivery")
        [bounce] = await kumo.wait_for_records(type="Bounce")
        self.assertEqual(bounce["recipient"], "nobody@exim.test")
        self.assertIn("nobody lives here", bounce["response"]["content"])
        [failure] = await kumo.wait_for_records(type="TransientFailure")
        self.assertEqual(failure["recipient"], "later@exim.test")
        body = TRICKY.replace(b"\r\n", b"\n")
        await until(lambda: mails.exists() and body in mails.read_bytes(), "Exim's file", 20)

    async def test_client(self) -> None:
        """Exim hands a message in; it arrives as it was."""
        sink = start_sink(self)
        kumo = await start_kumo(self, direct(sink.route))
        _, port, _ = await parts.start_exim(self, kumo.port)
        await deferToThread(send_mail_blocking, port, ["a@one.test", "b@one.test"], body=TRICKY)
        mails = await sink.wait_for_mails()
        for mail in mails:
            self.assertTrue(mail.body.endswith(TRICKY), mail.body)
        await kumo.wait_for_records(2, type="Delivery")
        [reception, *_] = await kumo.wait_for_records(type="Reception")
        self.assertEqual(reception["peer_address"]["name"], "exim.example.test")


@attrs.define(frozen=True)
class Fault:
    """What smtp-sink does wrong, and what comes of it.

    @ivar options: of smtp-sink.
    @ivar expected: as in L{tests.hostile.servers}.
    @ivar queue: keys of the queue.
    """

    options: tuple[str, ...]
    expected: str
    queue: dict[str, str] = attrs.field(factory=dict)


_HOST = "host temporary charged host -> TransientFailure 1"
_DELIVERED = "delivered -> Delivery 0"
_CUT = "message temporary charged host -> TransientFailure 1"
_DUPLICATE = "message temporary charged host duplicate -> TransientFailure 1"
FAULTS = {
    "quit-connect": Fault(("-q", "CONNECT"), _HOST),
    "quit-ehlo": Fault(("-q", "EHLO"), _HOST),
    "quit-mail": Fault(("-q", "MAIL"), _HOST),
    "quit-rcpt": Fault(("-q", "RCPT"), _HOST),
    "quit-data": Fault(("-q", "DATA"), _CUT),
    "quit-dot": Fault(("-q", "."), _DUPLICATE),
    "closing-mail": Fault(("-Q", "MAIL"), _HOST),
    "closing-rcpt": Fault(("-Q", "RCPT"), _HOST),
    "closing-dot": Fault(("-Q", "."), _HOST),
    "soft-connect": Fault(("-r", "CONNECT"), _HOST),
    "soft-mail": Fault(("-r", "MAIL"), "message temporary charged message -> TransientFailure 1"),
    "soft-rcpt": Fault(("-r", "RCPT"), "recipient temporary charged message -> TransientFailure 1"),
    "soft-data": Fault(("-r", "DATA"), "message temporary charged message -> TransientFailure 1"),
    "soft-dot": Fault(("-r", "."), "message temporary charged message -> TransientFailure 1"),
    "hard-connect": Fault(("-f", "CONNECT"), _HOST),
    "hard-ehlo": Fault(("-f", "EHLO"), _DELIVERED),
    "hard-mail": Fault(("-f", "MAIL"), "message permanent charged message -> Bounce 1"),
    "hard-rcpt": Fault(("-f", "RCPT"), "recipient permanent charged message -> Bounce 1"),
    "hard-data": Fault(("-f", "DATA"), "message permanent charged message -> Bounce 1"),
    "hard-dot": Fault(("-f", "."), "message permanent charged message -> Bounce 1"),
    "hard-quit": Fault(("-f", "QUIT"), _DELIVERED),
    "no-esmtp": Fault(("-e",), _DELIVERED),
    "pix": Fault(("-P",), _DELIVERED),
    "bare": Fault(("-8", "-a", "-E", "-N", "-p"), _DELIVERED),
    "lmtp": Fault(("-L",), _DELIVERED, {"protocol": "lmtp"}),
    "slow": Fault(("-w", "1"), _DELIVERED),
}


class SMTPSinkTests(TestCase):
    """Postfix's smtp-sink with its fault options."""

    async def test_faults(self) -> None:
        """Each fault has its verdict; see docs/failures.md."""
        destinations = []
        for name, fault in FAULTS.items():
            _, port = await parts.start_smtp_sink(self, *fault.options)
            path = {"enable_tls": "Disabled"}
            queue = {"retry_interval": "1h", **fault.queue}
            route = f"[127.0.0.1]:{port}"
            destinations.append(Destination(f"{name}.test", route, {}, path, queue))
        room = DeliveryRoom(self, destinations)
        try:
            ids = {name: room.inject(f"{name}.test", MESSAGE, 1) for name in FAULTS}
            await until(lambda: room.decided, "the fates", 60)
            room.fill_in_records()
        finally:
            await room.stop()
        for name, fault in FAULTS.items():
            [message_id] = ids[name]
            observed = room.observed[message_id]
            self.assertEqual(str(observed), fault.expected, f"{name}: {observed.reply}")


class ListenerTests(TestCase):
    """Clients of our listener."""

    async def start(self, keys: str = "") -> tuple[Kumo, Sink]:
        """A node that delivers to a sink."""
        sink = start_sink(self)
        return await start_kumo(self, keys + direct(sink.route)), sink

    async def test_posttls_finger(self) -> None:
        """Postfix's TLS client agrees on TLS 1.3, and sees our certificate."""
        kumo, _ = await self.start()
        empty = Path(self.mktemp()).absolute()
        empty.mkdir()
        (empty / "main.cf").write_text("compatibility_level = 3.6\n", encoding="ascii")
        command = [parts.find("posttls-finger"), "-c", "-l", "may", f"[127.0.0.1]:{kumo.port}"]
        result = await deferToThread(run, command, environment={"MAIL_CONFIG": str(empty)})
        self.assertIn("TLS connection established", result.stdout + result.stderr)
        self.assertIn("TLSv1.3", result.stdout + result.stderr)
        self.assertIn("subject_CN=mta.example.test", result.stdout + result.stderr)

    async def test_curl(self) -> None:
        """curl sends over STARTTLS, with a login."""
        users = Path(self.mktemp()).absolute()
        users.write_text(f"{LOGIN}:{PASSWORD}\n", encoding="ascii")
        kumo, sink = await self.start(f"auth = file:{users}\nrequire_auth = yes\n")
        command = [
            parts.find("curl"), "-sS", "--ssl-reqd", "-k", f"smtp://127.0.0.1:{kumo.port}",
            "-u", f"{LOGIN}:{PASSWORD}", "--mail-from", "a@b.test", "--mail-rcpt", "c@d.test",
            "-T", "-",
        ]  # fmt: skip
        await deferToThread(run, command, input=MESSAGE)
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.body.endswith(MESSAGE), mail.body)
        [reception] = await kumo.wait_for_records(type="Reception")
        self.assertEqual(reception["reception_protocol"], "ESMTPSA")

    async def test_smtplib(self) -> None:
        """Python's smtplib starts TLS, logs in, and sends to an address beyond ASCII."""
        users = Path(self.mktemp()).absolute()
        users.write_text(f"{LOGIN}:{PASSWORD}\n", encoding="ascii")
        kumo, sink = await self.start(f"auth = file:{users}\n")
        sink.extensions.append("SMTPUTF8")
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "me@b.test", "käthe@d.test", "grüße"
        mail.set_content("hallo\n")

        def send() -> None:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            with smtplib.SMTP("127.0.0.1", kumo.port, timeout=60) as client:
                client.starttls(context=context)
                client.login(LOGIN, PASSWORD)
                client.send_message(mail)

        await deferToThread(send)
        [received] = await sink.wait_for_mails()
        self.assertEqual(received.recipients, ["käthe@d.test"])
        self.assertIn("SMTPUTF8", received.parameters)

    async def test_testssl(self) -> None:
        """testssl.sh finds TLS 1.2 and 1.3 and nothing older."""
        kumo, _ = await self.start()
        command = [
            parts.find("testssl"), "--quiet", "--warnings", "batch", "--color", "0",
            "--protocols", "--starttls", "smtp", f"127.0.0.1:{kumo.port}",
        ]  # fmt: skip
        result = await deferToThread(run, command, seconds=120)
        found = {
            line.split("  ")[0].strip(): line
            for line in result.stdout.splitlines()
            if "offered" in line
        }
        for protocol in ("SSLv2", "SSLv3", "TLS 1", "TLS 1.1"):
            self.assertIn("not offered", found[protocol], result.stdout)
        for protocol in ("TLS 1.2", "TLS 1.3"):
            self.assertNotIn("not offered", found[protocol], result.stdout)


class _Keeper:
    """What aiosmtpd hands messages to."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message."""
        self.envelopes.append(envelope)
        return "250 taken"


class AiosmtpdTests(TestCase):
    """aiosmtpd, which follows the standards to the letter."""

    async def test_next_hop(self) -> None:
        """It takes what we send, octet by octet; the address beyond ASCII, too."""
        keeper = _Keeper()
        port = free_port()
        controller = Controller(keeper, "127.0.0.1", port, enable_SMTPUTF8=True)
        await deferToThread(controller.start)
        self.addCleanup(lambda: deferToThread(controller.stop))
        kumo = await start_kumo(self, direct(f"[127.0.0.1]:{port}"))
        recipients = ["a@one.test", "b@one.test"]
        await deferToThread(send_mail_blocking, kumo.port, recipients, body=TRICKY)
        await kumo.wait_for_records(2, type="Delivery")
        for envelope in keeper.envelopes:
            self.assertTrue(envelope.content.endswith(TRICKY), envelope.content)
        told = [each for envelope in keeper.envelopes for each in envelope.rcpt_tos]
        self.assertEqual(sorted(told), ["a@one.test", "b@one.test"])
