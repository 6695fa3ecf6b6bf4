"""Mail leaves through KumoProxy from the source address that was chosen."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.client import MESSAGE, message, send_mail
from tests.integration.configurations import LOCAL_PROXY, through_socks5
from tests.integration.program import Kumo, start_kumo, start_plugin
from tests.integration.sink import Sink, start_sink
from tests.integration.waiting import free_port

PROXY_FILE = """
[proxy:main]
listen = 127.0.0.1:{port}
require_auth = yes
auth = file:{users}

[proxy-rule:alice]
proxy = main
users = alice
sources = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow
"""


class ProxyBasicTests(TestCase):
    """The seed's SOCKS5 source, on loopback addresses."""

    async def assert_delivered(self, kumo: Kumo, sink: Sink, proxy: int, source: str) -> None:
        """One message arrives from the source, and the record says which way it went."""
        self.assertEqual(await send_mail(kumo.port), {})
        [mail] = await sink.wait_for_mails()
        self.assertEqual(mail.peer, source)
        self.assertEqual(mail.helo, "mta1.examplecorp.com")
        self.assertEqual(
            (mail.sender, mail.recipients), ("sender@example.org", ["you@example.com"])
        )
        self.assertTrue(mail.body.endswith(MESSAGE), mail.body)
        [record] = await kumo.wait_for_records(type="Delivery")
        way = record["source_address"]
        self.assertEqual(way["protocol"], "socks5")
        self.assertEqual(way["server"], f"127.0.0.1:{proxy}")
        self.assertEqual(way["address"], f"{source}:{sink.sessions[0].port}")
        self.assertEqual((record["egress_source"], record["egress_pool"]), ("ip-1", "out"))
        self.assertEqual(record["peer_address"]["addr"].partition(":")[0], "127.0.0.1")
        self.assertEqual(record["recipient"], "you@example.com")
        self.assertEqual(record["response"]["code"], 250)

    async def start_proxy_with_login(self, port: int) -> None:
        """Start a KumoProxy that wants a login and knows one user."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "users").write_text("alice:wonderland\n", encoding="utf-8")
        text = PROXY_FILE.format(port=port, users=directory / "users")
        (directory / "proxy.ini").write_text(text, encoding="utf-8")
        await start_plugin(self, "kumoproxy", ["-c", str(directory / "proxy.ini")], port)

    async def test_proxy_in_the_same_process(self) -> None:
        """A C{[proxy:local]} beside the MTA sends from the configured address."""
        sink = start_sink(self)
        proxy = free_port()
        config = LOCAL_PROXY + through_socks5(sink.route, proxy, source="127.0.0.2")
        kumo = await start_kumo(self, config, names={"proxy": proxy})
        await kumo.wait_for_listening(proxy)
        await self.assert_delivered(kumo, sink, proxy, "127.0.0.2")

    async def test_proxy_on_its_own_with_login(self) -> None:
        """C{twistd kumoproxy -c FILE} in its own process, with a user name and a rule for it."""
        sink = start_sink(self)
        proxy = free_port()
        await self.start_proxy_with_login(proxy)
        login = "socks5_proxy_username = alice\nsocks5_proxy_password = wonderland"
        config = through_socks5(sink.route, proxy, source="127.0.0.5", extra=login)
        kumo = await start_kumo(self, config)
        await self.assert_delivered(kumo, sink, proxy, "127.0.0.5")
        self.assertNotIn("wonderland", kumo.output())

    async def test_wrong_password_keeps_the_mail(self) -> None:
        """A login that the proxy refuses is the proxy's failure: the mail stays and is retried."""
        sink = start_sink(self)
        proxy = free_port()
        await self.start_proxy_with_login(proxy)
        login = "socks5_proxy_username = alice\nsocks5_proxy_password = looking-glass"
        config = through_socks5(sink.route, proxy, source="127.0.0.5", extra=login)
        kumo = await start_kumo(self, config)
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn(f"127.0.0.1:{proxy}", record["response"]["content"])
        self.assertNotIn("looking-glass", kumo.output() + str(kumo.records()))
        self.assertEqual((sink.sessions, kumo.records(type="Bounce")), ([], []))

    async def test_listen_option_alone(self) -> None:
        """C{twistd kumoproxy --listen} runs with safe rules: loopback is not reachable."""
        sink = start_sink(self)
        proxy = free_port()
        child = await start_plugin(self, "kumoproxy", ["--listen", f"127.0.0.1:{proxy}"], proxy)
        kumo = await start_kumo(self, through_socks5(sink.route, proxy, source="127.0.0.2"))
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        self.assertIn("rules do not allow", record["response"]["content"])
        self.assertEqual(sink.sessions, [])
        await child.wait_for_output("REP 02: refused by the default: loopback")

    async def test_an_address_that_nobody_owns(self) -> None:
        """A source address that the proxy cannot bind is a bind failure; nothing leaves."""
        sink = start_sink(self)
        proxy = free_port()
        rules = LOCAL_PROXY.replace("sources = 127.0.0.0/8", "sources = 0.0.0.0/0")
        config = rules + through_socks5(sink.route, proxy, source="192.0.2.77")
        kumo = await start_kumo(self, config, names={"proxy": proxy})
        await kumo.wait_for_listening(proxy)
        await send_mail(kumo.port)
        [record, *_] = await kumo.wait_for_records(type="TransientFailure")
        content = record["response"]["content"].lower()
        self.assertIn("bind", content)
        self.assertIn("192.0.2.77", content)
        self.assertEqual((sink.sessions, kumo.records(type="Bounce")), ([], []))

    async def test_many_messages_share_connections(self) -> None:
        """A burst goes through the proxy over few connections, all from the source."""
        sink = start_sink(self)
        proxy = free_port()
        config = LOCAL_PROXY + through_socks5(sink.route, proxy, source="127.0.0.2")
        kumo = await start_kumo(self, config, names={"proxy": proxy})
        await kumo.wait_for_listening(proxy)
        for number in range(10):
            await send_mail(
                kumo.port,
                recipients=[f"you{number}-{each}@example.com" for each in range(5)],
                body=message(f"number {number}"),
            )
        await sink.wait_for_mails(10)
        await kumo.wait_for_records(50, type="Delivery")
        self.assertEqual({mail.peer for mail in sink.mails}, {"127.0.0.2"})
        self.assertEqual(sum(len(mail.recipients) for mail in sink.mails), 50)
        self.assertLessEqual(len(sink.sessions), 12)
