"""Any compliant SOCKS5 server carries mail; one that cannot choose the source never sends it."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import send_mail
from tests.integration.configurations import through_socks5
from tests.integration.processes import Child
from tests.integration.program import start_kumo
from tests.integration.sink import certificate_for, start_sink


class AnySocks5Tests(TestCase):
    """Dante and microsocks, with and without a source address."""

    async def assert_carries(self, started: tuple[Child, int]) -> None:
        """Without a source address the server is asked to connect, and the mail arrives."""
        _, port = started
        sink = start_sink(self)
        kumo = await start_kumo(self, through_socks5(sink.route, port))
        await send_mail(kumo.port)
        await sink.wait_for_mails()
        [record] = await kumo.wait_for_records(type="Delivery")
        way = record["source_address"]
        self.assertEqual((way["protocol"], way["server"]), ("socks5", f"127.0.0.1:{port}"))

    async def assert_bind_failure(self, started: tuple[Child, int]) -> None:
        """With a source address the failure names the proxy and the bind, and the mail stays."""
        _, port = started
        sink = start_sink(self)
        kumo = await start_kumo(self, through_socks5(sink.route, port, source="127.0.0.55"))
        await send_mail(kumo.port)
        records = await kumo.wait_for_records(2, type="TransientFailure")
        for record in records:
            content = record["response"]["content"]
            self.assertRegex(content.lower(), "bind|instead of")
            self.assertIn("127.0.0.55", content)
            self.assertIn(f"127.0.0.1:{port}", content)
        self.assertEqual((sink.sessions, kumo.records(type="Bounce")), ([], []))

    async def test_dante_without_source(self) -> None:
        """Dante relays a plain CONNECT."""
        await self.assert_carries(await parts.start_dante(self))

    async def test_dante_with_source(self) -> None:
        """Dante answers BIND with success and another address: nothing may leave."""
        await self.assert_bind_failure(await parts.start_dante(self))

    async def test_microsocks_without_source(self) -> None:
        """microsocks relays a plain CONNECT and reports no address."""
        await self.assert_carries(await parts.start_microsocks(self))

    async def test_microsocks_with_source(self) -> None:
        """microsocks refuses BIND: nothing may leave."""
        await self.assert_bind_failure(await parts.start_microsocks(self))

    async def test_starttls_through_dante(self) -> None:
        """The proxied stream is upgraded by STARTTLS; the peer is the mail host."""
        _, port = await parts.start_dante(self)
        options, _ = certificate_for("sink.example.test")
        sink = start_sink(self, tls=options)
        config = through_socks5(sink.route, port) + "enable_tls = RequiredInsecure\n"
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.tls)
