"""Without a route mail goes to the MX hosts, in the order of their preference."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from tests.integration.client import send_mail
from tests.integration.dnsstub import NameServer, start_name_server
from tests.integration.program import Kumo, start_kumo
from tests.integration.sink import Act, Sink, start_sink
from tests.integration.waiting import free_port, until

CONFIG = """
[dns]
nameservers = 127.0.0.1:<dns>

[queue:default]
retry_interval = 1s

[path:default]
smtp_port = <port>
connect_timeout = 5s
"""
REACHABLE = "prohibited_hosts = 192.0.2.0/24\n"

ZONE = {
    ("example.com", "MX"): ["20 second.example.com.", "10 first.example.com."],
    ("first.example.com", "A"): ["127.0.0.21"],
    ("second.example.com", "A"): ["127.0.0.22"],
    ("plain.example.net", "A"): ["127.0.0.22"],
    ("null.example.net", "MX"): ["0 ."],
    ("gone.example.net", "MX"): ["10 nothing.example.net."],
}


class MXTests(TestCase):
    """A name server of the test's own, and mail hosts on several loopback addresses."""

    async def start(self, more: str = REACHABLE) -> tuple[Kumo, NameServer, Sink, Sink]:
        """The node, its name server, and the two mail hosts of example.com."""
        server = start_name_server(self, dict(ZONE))
        port = free_port()
        first = start_sink(self, host="127.0.0.21", port=port)
        second = start_sink(self, host="127.0.0.22", port=port)
        kumo = await start_kumo(self, CONFIG + more, names={"dns": server.port, "port": port})
        return kumo, server, first, second

    async def test_lowest_preference_first(self) -> None:
        """The host with the lowest number gets the mail; the record names it."""
        kumo, server, first, second = await self.start()
        await send_mail(kumo.port)
        await first.wait_for_mails()
        self.assertEqual(second.sessions, [])
        [record] = await kumo.wait_for_records(type="Delivery")
        self.assertEqual(record["peer_address"]["name"].rstrip("."), "first.example.com")
        self.assertTrue(record["peer_address"]["addr"].startswith("127.0.0.21"))
        self.assertIn(("example.com", "MX"), server.questions)

    async def test_next_host_on_failure(self) -> None:
        """A host that has no time hands over to the next one, without waiting for a retry."""
        kumo, _, first, second = await self.start()
        first.always("GREETING", Act("421 4.3.2 Too busy", close=True))
        await send_mail(kumo.port)
        await second.wait_for_mails()
        await kumo.wait_for_records(type="Delivery")

    async def test_address_without_mx(self) -> None:
        """A domain without MX is its own mail host (RFC 5321, 5.1)."""
        kumo, _, _, second = await self.start()
        await send_mail(kumo.port, ["you@plain.example.net"])
        await second.wait_for_mails()

    async def test_null_mx(self) -> None:
        """A domain that takes no mail ends it (RFC 7505)."""
        kumo, _, _, _ = await self.start()
        await send_mail(kumo.port, ["you@null.example.net"], sender="")
        [record] = await kumo.wait_for_records(type="Bounce")
        self.assertIn("null.example.net", record["response"]["content"] + record["recipient"])

    async def test_unknown_domain(self) -> None:
        """A domain that does not exist ends it."""
        kumo, _, _, _ = await self.start()
        await send_mail(kumo.port, ["you@nowhere.example.org"], sender="")
        await kumo.wait_for_records(type="Bounce")

    async def test_name_server_fails(self) -> None:
        """A failing name server is temporary: when it works again, the mail is delivered."""
        kumo, server, first, _ = await self.start()
        server.fail.add("example.com")
        await send_mail(kumo.port)
        await kumo.wait_for_records(type="TransientFailure")
        server.fail.clear()
        await first.wait_for_mails()
        self.assertEqual(kumo.records(type="Bounce"), [])

    async def test_prohibited_hosts(self) -> None:
        """A mail host that is said to be on loopback is not connected to."""
        kumo, _, first, second = await self.start("")
        await send_mail(kumo.port, sender="")
        await kumo.wait_for_records(type="Reception")
        await until(lambda: len(kumo.records()) >= 2, "an outcome")
        self.assertEqual((first.sessions, second.sessions), ([], []))
        self.assertEqual(kumo.records(type="Delivery"), [])
