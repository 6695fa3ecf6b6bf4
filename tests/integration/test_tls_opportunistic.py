"""STARTTLS towards the destination: the five values of C{enable_tls}."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.configurations import direct
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Act, Sink, certificate_for, start_sink
from tests.integration.waiting import until

LIMITS = "connect_timeout = 5s\nbanner_timeout = 5s\nstarttls_timeout = 2s\n"


class TLSTests(TestCase):
    """A mail host with a certificate that nobody vouches for, one without, and a broken one."""

    async def send(self, sink: Sink, value: str, more: str = "") -> Kumo:
        """Send one message under a value of enable_tls."""
        path = f"enable_tls = {value}\n{more}"
        kumo = await start_kumo(self, direct(sink.route, path=path))
        await send_mail(kumo.port)
        return kumo

    def tls_sink(self) -> Sink:
        """A mail host whose certificate is not trusted."""
        return start_sink(self, tls=certificate_for("sink.example.test")[0])

    async def assert_delivered(self, sink: Sink, value: str, tls: bool, more: str = "") -> Kumo:
        """The mail arrives, encrypted or not, and the record says so."""
        kumo = await self.send(sink, value, more)
        [mail] = await sink.wait_for_mails()
        self.assertEqual(mail.tls, tls)
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertEqual(bool(record["tls_protocol_version"]), tls, record)
        self.assertEqual(bool(record["tls_cipher"]), tls, record)
        return kumo

    async def assert_kept(self, sink: Sink, value: str) -> None:
        """The mail does not leave, and stays."""
        kumo = await self.send(sink, value)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("tls", record["response"]["content"].lower())
        self.assertEqual((sink.mails, kumo.records(type="Bounce")), ([], []))

    async def test_opportunistic_insecure(self) -> None:
        """Any certificate is good enough."""
        await self.assert_delivered(self.tls_sink(), "OpportunisticInsecure", True)

    async def test_opportunistic_without_offer(self) -> None:
        """No STARTTLS, no TLS."""
        await self.assert_delivered(start_sink(self), "Opportunistic", False)

    async def test_required_insecure(self) -> None:
        """TLS with any certificate."""
        await self.assert_delivered(self.tls_sink(), "RequiredInsecure", True)

    async def test_required_insecure_without_offer(self) -> None:
        """No STARTTLS, no mail."""
        await self.assert_kept(start_sink(self), "RequiredInsecure")

    async def test_required(self) -> None:
        """A certificate that nobody vouches for is not good enough."""
        await self.assert_kept(self.tls_sink(), "Required")

    async def test_required_without_offer(self) -> None:
        """No STARTTLS, no mail."""
        await self.assert_kept(start_sink(self), "Required")

    async def test_disabled(self) -> None:
        """STARTTLS is not used though it is offered."""
        sink = self.tls_sink()
        await self.assert_delivered(sink, "Disabled", False)
        self.assertNotIn("STARTTLS", sink.sessions[0].lines)

    async def test_starttls_refused(self) -> None:
        """A host that offers STARTTLS and then refuses it counts as a failed handshake: mail goes
        on in the clear only if that is allowed."""
        sink = self.tls_sink()
        sink.always("STARTTLS", "454 4.7.0 Not now")
        kumo = await self.send(sink, "OpportunisticInsecure")
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("Not now", record["response"]["content"])
        self.assertEqual(sink.mails, [])
        await kumo.stop()
        more = "opportunistic_tls_reconnect_on_failed_handshake = yes\n"
        await self.assert_delivered(sink, "OpportunisticInsecure", False, more)

    async def test_tls_opportunistic_reconnect(self) -> None:
        """After a failed handshake a new connection goes on without TLS, if told to."""
        sink = self.tls_sink()
        sink.answer("STARTTLS", Act("220 2.0.0 Go on", close=True))
        more = "opportunistic_tls_reconnect_on_failed_handshake = yes\n"
        await self.assert_delivered(sink, "OpportunisticInsecure", False, more)
        self.assertEqual(len(sink.sessions), 2)

    async def test_session_that_cannot_be_resumed(self) -> None:
        """A host that fails when an earlier session is offered is called again at once, without."""
        options, authority = certificate_for("127.0.0.1")
        options.enableSessions = True
        sink = start_sink(self, tls=options)
        trusted = Path(self.mktemp()).absolute()
        trusted.write_bytes(authority)
        prefix = ("env", f"SSL_CERT_FILE={trusted}", "SSL_CERT_DIR=/nonexistent")
        path = "enable_tls = Required\nmax_deliveries_per_connection = 1\n"
        kumo = await start_kumo(self, direct(sink.route, path=path), prefix=prefix)
        await send_mail(kumo.port)
        await sink.wait_for_mails()
        await until(lambda: sink.sessions[0].closed, "the end of the first session")
        sink.answer("STARTTLS", Act("220 2.0.0 Go on", close=True))
        await send_mail(kumo.port)
        mails = await sink.wait_for_mails(2)
        self.assertTrue(all(mail.tls for mail in mails))
        await kumo.wait_for_records(number=2, type="Delivery")
        self.assertEqual(kumo.records(type="TransientFailure"), [])
        self.assertEqual(len(sink.sessions), 3)

    async def test_plain_text_behind_the_220_is_not_taken_for_encrypted(self) -> None:
        """Replies injected in the clear behind STARTTLS's 220 never count (CVE-2021-38371)."""
        sink = self.tls_sink()
        sink.always("STARTTLS", "220 2.0.0 Go on\r\n250 injected\r\n250 injected")
        kumo = await self.send(sink, "RequiredInsecure", LIMITS)
        await kumo.wait_for_records(type="TransientFailure")
        await until(lambda: sink.sessions[0].closed, "the end of the session")
        self.assertEqual(sink.mails, [])
