"""Proxies that are killed and come back: the mail goes on, and no message is charged for it."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.badproxy import start_bad_proxy
from tests.integration.client import message, send_mail
from tests.integration.processes import Child
from tests.integration.program import Kumo, Record, start_kumo, start_plugin
from tests.integration.sink import start_sink
from tests.integration.waiting import free_port, until

PROXY_FILE = """
[proxy:main]
listen = 127.0.0.1:{port}

[proxy-rule:trial]
proxy = main
clients = 127.0.0.0/8
sources = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow
"""

TWO_SOURCES = """
[source:ip-1]
socks5_proxy_server = 127.0.0.1:<one>
socks5_proxy_source_address = 127.0.0.2
suspend_when_proxy_unhealthy = 60s

[source:ip-2]
socks5_proxy_server = 127.0.0.1:<two>
socks5_proxy_source_address = 127.0.0.3
suspend_when_proxy_unhealthy = 60s

[pool:out]
ip-1 = 1
ip-2 = 1
"""

ONE_SOURCE = """
[source:ip-1]
socks5_proxy_server = 127.0.0.1:<one>, 127.0.0.1:<two>
socks5_proxy_source_address = 127.0.0.2

[pool:out]
ip-1 = 1
"""

QUEUE = """
[queue:default]
egress_pool = out
route = <route>

[path:default]
connect_timeout = 6s
idle_timeout = 100ms
"""


class FailoverCase(TestCase):
    """Two KumoProxies in processes of their own, and a sink."""

    timeout = 120.0

    def setUp(self) -> None:
        """Find ports; nothing runs yet."""
        self.sink = start_sink(self)
        self.ports = {"one": free_port(), "two": free_port()}
        self.sent = 0

    async def start_proxy(self, name: str) -> Child:
        """Start a proxy, or start it again."""
        port = self.ports[name]
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / "proxy.ini"
        path.write_text(PROXY_FILE.format(port=port), encoding="utf-8")
        return await start_plugin(self, "kumoproxy", ["-c", str(path)], port)

    async def start(self, config: str) -> Kumo:
        """Start the MTA."""
        names = {"route": self.sink.route, **self.ports}
        return await start_kumo(self, config + QUEUE, names=names)

    async def send(self, kumo: Kumo, number: int) -> None:
        """Hand over so many messages."""
        for _ in range(number):
            self.sent += 1
            self.assertEqual(await send_mail(kumo.port, body=message(f"no {self.sent}")), {})

    async def deliver(self, kumo: Kumo, number: int, seconds: float = 20.0) -> list[Record]:
        """Send so many messages and wait until all that were sent are delivered.

        @return: the records of the new deliveries.
        """
        before = len(kumo.records(type="Delivery"))
        await self.send(kumo, number)
        records = await kumo.wait_for_records(self.sent, seconds, type="Delivery")
        return records[before:]

    def assert_nothing_charged(self, kumo: Kumo) -> None:
        """Every message arrived once, at the first attempt that counts."""
        deliveries = kumo.records(type="Delivery")
        self.assertEqual({record["num_attempts"] for record in deliveries}, {0})
        self.assertEqual(len({record["id"] for record in deliveries}), self.sent)
        self.assertEqual(len(deliveries), self.sent)
        self.assertEqual(len(self.sink.mails), self.sent)
        self.assertEqual(kumo.records(type="Bounce"), [])


class TwoSourcesTests(FailoverCase):
    """Two sources in a pool, each through its own proxy."""

    async def test_killed_and_restarted(self) -> None:
        """One proxy is killed: mail goes through the other; restarted: through both again."""
        one = await self.start_proxy("one")
        await self.start_proxy("two")
        kumo = await self.start(TWO_SOURCES)
        records = await self.deliver(kumo, 6)
        self.assertEqual({each["egress_source"] for each in records}, {"ip-1", "ip-2"})
        one.kill_9()
        records = await self.deliver(kumo, 6)
        self.assertEqual({each["egress_source"] for each in records}, {"ip-2"})
        await kumo.wait_for_output("source ip-1 is suspended for 60 s: .*refused")
        await self.start_proxy("one")

        async def comes_back() -> None:
            records = await self.deliver(kumo, 1)
            if records[0]["egress_source"] != "ip-1":
                await until(lambda: not self.sink.protocols, "the sink's sessions to end")
                await comes_back()

        await comes_back()
        await kumo.wait_for_output("source ip-1 works again")
        records = await self.deliver(kumo, 6)
        self.assertEqual({each["egress_source"] for each in records}, {"ip-1", "ip-2"})
        self.assertEqual({mail.peer for mail in self.sink.mails}, {"127.0.0.2", "127.0.0.3"})
        self.assert_nothing_charged(kumo)

    async def test_all_are_down(self) -> None:
        """While no proxy is there mail waits; it goes on soon after one is, not at the end of the
        suspension, and nothing was charged."""
        kumo = await self.start(TWO_SOURCES)
        await self.send(kumo, 5)
        await kumo.wait_for_records(5, type="Delayed")
        await self.start_proxy("two")
        await kumo.wait_for_records(5, 20.0, type="Delivery")
        await kumo.wait_for_output("source ip-2 works again")
        self.assertEqual(len(kumo.records(type="Delayed")), 5)
        self.assert_nothing_charged(kumo)


class ProxyListTests(FailoverCase):
    """One source with two proxies."""

    async def servers(self, kumo: Kumo, number: int) -> set[str]:
        """Deliver; give the proxies that the records name."""
        records = await self.deliver(kumo, number)
        self.assertEqual(kumo.records(type="TransientFailure"), [])
        self.assertEqual({each["source_address"]["address"].partition(":")[0]
                          for each in records}, {"127.0.0.2"})  # fmt: skip
        return {each["source_address"]["server"] for each in records}

    async def test_killed_and_restarted(self) -> None:
        """The first one while it is there, the second one while it is not; no record of failure."""
        one = await self.start_proxy("one")
        await self.start_proxy("two")
        kumo = await self.start(ONE_SOURCE)
        first, second = (f"127.0.0.1:{self.ports[name]}" for name in ("one", "two"))
        self.assertEqual(await self.servers(kumo, 3), {first})
        one.kill_9()
        self.assertEqual(await self.servers(kumo, 3), {second})
        await self.start_proxy("one")
        while await self.servers(kumo, 1) != {first}:
            await until(lambda: not self.sink.protocols, "the sink's sessions to end")
        self.assert_nothing_charged(kumo)

    async def test_first_hangs(self) -> None:
        """A proxy that takes the connection and says nothing costs its share of the one connect
        deadline, and the message leaves within it."""
        self.ports["one"] = start_bad_proxy(self, lambda connection, data: None).port
        await self.start_proxy("two")
        kumo = await self.start(ONE_SOURCE)
        self.assertEqual(await self.servers(kumo, 2), {f"127.0.0.1:{self.ports['two']}"})
        for record in kumo.records(type="Delivery"):
            self.assertLess(record["timestamp"] - record["created"], 6)
        self.assert_nothing_charged(kumo)
