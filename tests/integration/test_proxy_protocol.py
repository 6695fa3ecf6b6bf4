"""Mail leaves through HAProxy with PROXY protocol v2, from the source address that was chosen."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration import parts
from tests.integration.badproxy import BadProxyProtocol, start_bad_proxy
from tests.integration.client import send_mail
from tests.integration.configurations import through_haproxy
from tests.integration.program import start_kumo
from tests.integration.sink import certificate_for, start_sink
from tests.integration.waiting import free_port, until


class HAProxyTests(TestCase):
    """The real HAProxy with the seed's configuration."""

    async def deliver_through(self, configuration: str | None) -> None:
        """One message arrives from the source, and the record says which way it went."""
        _, port = await parts.start_haproxy(self, configuration)
        sink = start_sink(self)
        kumo = await start_kumo(self, through_haproxy(sink.route, port, "127.0.0.6"))
        await send_mail(kumo.port)
        [mail] = await sink.wait_for_mails()
        self.assertEqual((mail.peer, mail.helo), ("127.0.0.6", "mta1.examplecorp.com"))
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertEqual(
            record["source_address"],
            {"address": "127.0.0.6:0", "server": f"127.0.0.1:{port}", "protocol": "haproxy"},
        )
        self.assertEqual(record["egress_source"], "ip-1")

    async def test_seed_configuration(self) -> None:
        """KumoMTA's documented haproxy.cfg, on another port."""
        await self.deliver_through(parts.SEED_HAPROXY_CFG)

    async def test_shipped_configuration(self) -> None:
        """The C{etc/haproxy.cfg} that we ship."""
        await self.deliver_through(parts.shipped_haproxy_cfg())

    async def test_starttls_through_haproxy(self) -> None:
        """The header leaves once, and the stream behind it is upgraded."""
        _, port = await parts.start_haproxy(self)
        options, _ = certificate_for("sink.example.test", "127.0.0.1")
        sink = start_sink(self, tls=options)
        config = through_haproxy(sink.route, port, "127.0.0.6")
        kumo = await start_kumo(self, config + "enable_tls = RequiredInsecure\n")
        await send_mail(kumo.port)
        [mail] = await sink.wait_for_mails()
        self.assertEqual((mail.tls, mail.peer), (True, "127.0.0.6"))
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertTrue(record["tls_protocol_version"].startswith("TLSv1."), record)

    async def test_refused_destination_is_a_suspected_proxy_failure(self) -> None:
        """HAProxy closes when nobody listens: the record names proxy, source and destination."""
        _, port = await parts.start_haproxy(self)
        route = f"[127.0.0.1]:{free_port()}"
        kumo = await start_kumo(self, through_haproxy(route, port, "127.0.0.6"))
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        content = record["response"]["content"]
        for fact in (f"127.0.0.1:{port}", "127.0.0.6", "127.0.0.1"):
            self.assertIn(fact, content)
        self.assertIn("haproxy", content.lower())
        self.assertEqual(kumo.records(type="Bounce"), [])

    async def test_unplumbed_source(self) -> None:
        """An address that is not the machine's shows as silence or a close: nothing leaves."""
        _, port = await parts.start_haproxy(self)
        sink = start_sink(self)
        config = through_haproxy(sink.route, port, "192.0.2.9")
        kumo = await start_kumo(self, config + "connect_timeout = 2s\nbanner_timeout = 2s\n")
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure", seconds=30)
        self.assertIn("192.0.2.9", record["response"]["content"])
        self.assertEqual(sink.mails, [])
        self.assertEqual(kumo.records(type="Bounce"), [])


class HeaderTests(TestCase):
    """The octets on the wire."""

    async def test_header_comes_first_and_once(self) -> None:
        """28 octets for IPv4, alone in the first segment, before the banner."""

        def behave(connection: BadProxyProtocol, data: bytes) -> None:
            if connection.step == 1:
                connection.transport.write(b"220 mx.example.com ESMTP\r\n")

        proxy = start_bad_proxy(self, behave)
        config = through_haproxy("[127.0.0.1]:2599", proxy.port, "127.0.0.6")
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        await proxy.wait_for_connections()
        [connection, *_] = proxy.connections
        await until(lambda: len(connection.received) > 28, "EHLO behind the header")
        expected = (
            b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x06\x7f\x00\x00\x01\x00\x00"
            + (2599).to_bytes(2, "big")
        )
        self.assertEqual(connection.received[:28], expected)
        self.assertTrue(connection.received[28:].startswith(b"EHLO mta1.examplecorp.com\r\n"))

    async def test_close_before_the_banner(self) -> None:
        """A close after the header is not reported as if the destination had answered."""
        proxy = start_bad_proxy(
            self, lambda connection, data: connection.transport.abortConnection() if data else None
        )
        config = through_haproxy("[127.0.0.1]:2599", proxy.port, "127.0.0.6")
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn(f"127.0.0.1:{proxy.port}", record["response"]["content"])
        self.assertEqual(kumo.records(type="Bounce"), [])
