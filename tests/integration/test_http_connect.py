"""Mail leaves through an HTTP proxy that somebody else wrote, by CONNECT."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.client import send_mail
from tests.integration.configurations import through_endpoint
from tests.integration.program import Record, start_kumo
from tests.integration.sink import certificate_for, start_sink
from tests.integration.waiting import free_port


def way(port: int, more: str = "") -> str:
    """The endpoint string of a source whose proxy listens on a port."""
    return rf"http-connect:{{host}}:{{port}}:server=127.0.0.1\:{port}{more}"


class HTTPConnectTests(TestCase):
    """tinyproxy, with and without a login."""

    async def test_delivers(self) -> None:
        """The mail arrives, and the record names the protocol and the proxy."""
        sink = start_sink(self)
        _, port = await parts.start_tinyproxy(self, sink.port)
        kumo = await start_kumo(self, through_endpoint(sink.route, way(port)))
        await send_mail(kumo.port)
        await sink.wait_for_mails()
        [record] = await kumo.wait_for_records(type="Delivery")
        source = record["source_address"]
        self.assertEqual(
            (source["protocol"], source["server"]), ("http-connect", f"127.0.0.1:{port}")
        )

    async def test_starttls_and_login(self) -> None:
        """The proxy wants a login, and the stream behind it is upgraded by STARTTLS."""
        options, _ = certificate_for("sink.example.test")
        sink = start_sink(self, tls=options)
        _, port = await parts.start_tinyproxy(self, sink.port, login=("user", "secret"))
        config = through_endpoint(sink.route, way(port, ":username=user:password=secret"))
        kumo = await start_kumo(self, config + "enable_tls = RequiredInsecure\n")
        await send_mail(kumo.port)
        [mail] = await sink.wait_for_mails()
        self.assertTrue(mail.tls)

    async def test_wrong_login(self) -> None:
        """A refused login is named with the proxy, and its password is nowhere."""
        sink = start_sink(self)
        _, port = await parts.start_tinyproxy(self, sink.port, login=("user", "secret"))
        config = through_endpoint(sink.route, way(port, ":username=user:password=s3cret"))
        content = await self.failure(config)
        self.assertIn(f"via http-connect 127.0.0.1:{port}: the proxy refused the login", content)
        self.assertNotIn("s3cret", content)
        self.assertEqual(sink.sessions, [])

    async def test_port_not_allowed(self) -> None:
        """A port that the proxy does not allow is its refusal, not the destination's."""
        sink = start_sink(self)
        _, port = await parts.start_tinyproxy(self, free_port())
        content = await self.failure(through_endpoint(sink.route, way(port)))
        self.assertIn("the proxy's rules do not allow a connection to", content)
        self.assertIn("(HTTP 403 Access violation)", content)
        self.assertEqual(sink.sessions, [])

    async def test_nobody_listens(self) -> None:
        """What the proxy says of a destination that refuses is quoted."""
        closed = free_port()
        _, port = await parts.start_tinyproxy(self, closed)
        content = await self.failure(through_endpoint(f"[127.0.0.1]:{closed}", way(port)))
        self.assertIn(f"127.0.0.1:{closed} (HTTP 500 Unable to connect)", content)

    async def failure(self, config: str) -> str:
        """Send a mail that cannot leave; what its first record says."""
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        records: list[Record] = await kumo.wait_for_records(type="TransientFailure")
        content: str = records[0]["response"]["content"]
        return content
