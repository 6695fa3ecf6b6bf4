"""REQUIRETLS and TLS-Required from a client to the next host (RFC 8689)."""

from __future__ import annotations

import smtplib
import ssl
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail
from tests.integration.configurations import direct
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Sink, certificate_for, start_sink


def submit(port: int, options: tuple[str, ...]) -> None:
    """Hand a message in under TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example.org", timeout=30) as client:
        client.starttls(context=context)
        client.ehlo()
        if not client.has_extn("REQUIRETLS"):
            raise AssertionError("REQUIRETLS is not offered")
        client.sendmail("sender@example.org", ["you@example.com"], message(), mail_options=options)


class RequireTLSTests(TestCase):
    """A message that must travel under TLS, to hosts that can and that cannot promise that."""

    async def start(self, sink: Sink, authority: bytes = b"", tls: str = "Opportunistic") -> Kumo:
        """A node that trusts an authority."""
        trusted = Path(self.mktemp()).absolute()
        trusted.write_bytes(authority)
        prefix = ("env", f"SSL_CERT_FILE={trusted}", "SSL_CERT_DIR=/nonexistent")
        config = direct(sink.route, path=f"enable_tls = {tls}\n")
        return await start_kumo(self, config, prefix=prefix)

    async def test_passed_on(self) -> None:
        """A verified host that offers REQUIRETLS gets the message with the parameter."""
        options, authority = certificate_for("127.0.0.1")
        sink = start_sink(self, tls=options)
        sink.extensions.append("REQUIRETLS")
        # What the sender demands holds whatever the path says.
        kumo = await self.start(sink, authority, "Disabled")
        await deferToThread(submit, kumo.port, ("REQUIRETLS",))
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.tls)
        self.assertIn(
            "MAIL FROM:<sender@example.org> SIZE=",
            "\n".join(line for line in sink.sessions[0].lines if line.endswith(" REQUIRETLS")),
        )

    async def test_host_cannot_promise(self) -> None:
        """A verified host without REQUIRETLS does not get it: 5.7.30; one without TLS: 5.7.10."""
        options, authority = certificate_for("127.0.0.1")
        for sink, status in ((start_sink(self, tls=options), 30), (start_sink(self), 10)):
            kumo = await self.start(sink, authority)
            await deferToThread(submit, kumo.port, ("REQUIRETLS",))
            [record] = await kumo.wait_for_records(type="Bounce")
            self.assertEqual(
                record["response"]["enhanced_code"], {"class": 5, "subject": 7, "detail": status}
            )
            [record] = await kumo.wait_for_records(type="Reception", sender="")
            self.assertEqual([mail.recipients for mail in sink.mails if mail.sender], [])
            await kumo.stop()

    async def test_certificate_is_not_good(self) -> None:
        """A host that cannot prove who it is does not get it: 5.7.10."""
        sink = start_sink(self, tls=certificate_for("127.0.0.1")[0])
        sink.extensions.append("REQUIRETLS")
        kumo = await self.start(sink, tls="OpportunisticInsecure")
        await deferToThread(submit, kumo.port, ("REQUIRETLS",))
        [record] = await kumo.wait_for_records(type="Bounce", sender="sender@example.org")
        self.assertIn("not trusted", record["response"]["content"])
        self.assertEqual(record["response"]["enhanced_code"]["detail"], 10)
        self.assertEqual([mail for mail in sink.mails if mail.sender], [])

    async def test_waived(self) -> None:
        """With C{TLS-Required: No} a certificate that nobody vouches for does not matter."""
        sink = start_sink(self, tls=certificate_for("127.0.0.1")[0])
        kumo = await self.start(sink)
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="TransientFailure")
        self.assertEqual(sink.mails, [])
        await send_mail(kumo.port, body=message(headers="TLS-Required: No\r\n"))
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.tls)
