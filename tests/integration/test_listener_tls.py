"""STARTTLS on the listener, spoken by clients that we did not write."""

from __future__ import annotations

import smtplib
import ssl
from pathlib import Path

import trustme
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import MESSAGE, converse
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import start_sink


def send_as(port: int, certificate: Path | None) -> None:
    """Send a message under TLS with a certificate of one's own, or without one."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate)
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=30) as client:
        client.starttls(context=context)
        client.sendmail("sender@example.org", ["you@example.com"], MESSAGE)


class ListenerTLSTests(TestCase):
    """A certificate of the node's own, and a configured one."""

    async def start(self, keys: str = "") -> Kumo:
        """An MTA that delivers to a sink."""
        self.sink = start_sink(self)
        return await start_kumo(self, keys + direct(self.sink.route))

    async def s_client(self, kumo: Kumo, *options: str) -> str:
        """What OpenSSL's client says of the handshake."""
        command = [parts.find("openssl"), "s_client", "-starttls", "smtp", "-crlf"]
        command += ["-connect", f"127.0.0.1:{kumo.port}", *options]
        return (await deferToThread(run, command, input=b"QUIT\r\n")).stdout

    async def test_self_signed(self) -> None:
        """Without a configured certificate the node makes one in its state directory."""
        kumo = await self.start()
        output = await self.s_client(kumo)
        self.assertIn("mta.example.test", output)
        self.assertRegex(output, r"TLSv1\.[23]")
        keys = [path for path in kumo.state.rglob("*") if b"PRIVATE KEY" in read(path)]
        self.assertTrue(keys, list(kumo.state.rglob("*")))
        for path in keys:
            self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    async def test_configured_certificate(self) -> None:
        """A configured certificate is shown, with its chain, and verifies."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        authority = trustme.CA()
        leaf = authority.issue_cert("mx.example.test")
        authority.cert_pem.write_to_path(directory / "ca.pem")
        leaf.private_key_pem.write_to_path(directory / "key.pem")
        leaf.cert_chain_pems[0].write_to_path(directory / "cert.pem")
        keys = f"tls_certificate = {directory}/cert.pem\ntls_private_key = {directory}/key.pem\n"
        kumo = await self.start(keys)
        output = await self.s_client(
            kumo, "-CAfile", str(directory / "ca.pem"), "-verify_hostname", "mx.example.test"
        )
        self.assertIn("Verification: OK", output)

    async def test_client_certificate(self) -> None:
        """With C{tls_required_client_ca} clients with a certificate of that authority send mail,
        and it says who they are; nobody else does."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        known, unknown = trustme.CA(), trustme.CA()
        known.cert_pem.write_to_path(directory / "ca.pem")
        for name, authority in (("good", known), ("bad", unknown)):
            leaf = authority.issue_cert("client.example.test", common_name="client.example.test")
            leaf.private_key_and_cert_chain_pem.write_to_path(directory / f"{name}.pem")
        kumo = await self.start(f"tls_required_client_ca = {directory}/ca.pem\n")
        await deferToThread(send_as, kumo.port, directory / "good.pem")
        [record] = await kumo.wait_for_records(type="Reception")
        self.assertIn("CN=client.example.test", record["tls_peer_subject_name"][0])
        [mail] = await self.sink.wait_for_mails()
        self.assertIn(b"(verified client CN=client.example.test", b" ".join(mail.body.split()))
        for certificate in (None, directory / "bad.pem"):
            with self.assertRaises((ssl.SSLError, smtplib.SMTPException, ConnectionError)):
                await deferToThread(send_as, kumo.port, certificate)
        refused = await converse(
            kumo.port, b"EHLO me\r\n", b"MAIL FROM:<a@b.example>\r\n", b"QUIT\r\n"
        )
        self.assertIn(b"530 5.7.0", refused)
        self.assertEqual(len(self.sink.mails), 1)

    async def test_swaks_sends_over_tls(self) -> None:
        """A message that came encrypted is recorded as such."""
        kumo = await self.start()
        command = [parts.find("swaks"), "--server", f"127.0.0.1:{kumo.port}", "--tls"]
        command += ["--from", "a@example.org", "--to", "you@example.com"]
        done = await deferToThread(run, command)
        self.assertEqual(done.returncode, 0, done.stdout)
        [mail] = await self.sink.wait_for_mails()
        self.assertRegex(mail.body, rb"(?i)\nReceived:|^Received:")
        self.assertIn(b"ESMTPS", mail.body)
        [record] = await kumo.wait_for_records(type="Reception")
        self.assertTrue(record["tls_protocol_version"].startswith("TLSv1."), record)

    async def test_tls_none(self) -> None:
        """C{tls = none} offers nothing."""
        kumo = await self.start("tls = none\n")
        replies = await converse(kumo.port, b"EHLO me\r\nQUIT\r\n")
        self.assertNotIn(b"STARTTLS", replies)

    async def test_commands_behind_starttls_are_not_obeyed(self) -> None:
        """Plain text in STARTTLS's segment is dropped or ends the session (CVE-2011-0411)."""
        kumo = await self.start()
        replies = await converse(
            kumo.port, b"EHLO me\r\n", b"STARTTLS\r\nRSET\r\nNOOP\r\nQUIT\r\n", seconds=3
        )
        _, _, behind = replies.partition(b"\r\n220 ")
        self.assertNotIn(b"\r\n250", behind)
        self.assertNotIn(b"\r\n221", behind)


def read(path: Path) -> bytes:
    """A file's contents; nothing for what is not a file."""
    return path.read_bytes() if path.is_file() else b""
