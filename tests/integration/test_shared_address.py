"""The first use case: two MTAs share one address through one KumoProxy."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail
from tests.integration.configurations import through_socks5
from tests.integration.program import Kumo, start_kumo, start_plugin
from tests.integration.sink import Act, start_sink
from tests.integration.waiting import free_port, until

SHARED = "127.0.0.9"
LIMIT = 2
EACH = 8

PROXY = """\
[proxy:main]
listen = 127.0.0.1:{port}
max_connections_per_source = {limit}

[proxy-rule:shared]
clients = 127.0.0.0/8
sources = {source}
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow

[proxy-rule:nobody-else]
action = deny

[http]
listen = 127.0.0.1:{http}
"""


def fetch(port: int, path: str) -> str:
    """A page of the proxy's HTTP listener; blocks."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


class SharedAddressTests(TestCase):
    """Two processes C{twistd kumo}, one C{twistd kumoproxy}."""

    timeout = 120.0

    async def start_proxy(self) -> tuple[int, int]:
        """Start the proxy; return its port and that of its metrics."""
        port, http = free_port(), free_port()
        path = Path(self.mktemp()).absolute()
        text = PROXY.format(port=port, http=http, limit=LIMIT, source=SHARED)
        path.write_text(text, encoding="utf-8")
        await start_plugin(self, "kumoproxy", ["-c", str(path)], port)
        return port, http

    async def start_mta(self, route: str, proxy: int) -> Kumo:
        """Start an MTA that wants four connections at once."""
        config = through_socks5(route, proxy, source=SHARED)
        return await start_kumo(self, config + "max_deliveries_per_connection = 1\n")

    async def send(self, kumo: Kumo, number: int) -> None:
        """Hand over so many messages."""
        for index in range(number):
            await send_mail(kumo.port, body=message(f"no {index}"))

    async def test_shared(self) -> None:
        """Both deliver from it, the limit holds for both together, and one outlives the other."""
        sink = start_sink(self)
        sink.always("EHLO", Act("250 mx.example.test", delay=0.2))
        proxy, http = await self.start_proxy()
        one, two = [await self.start_mta(sink.route, proxy) for _ in range(2)]
        most = 0

        def all_there() -> bool:
            nonlocal most
            most = max(most, sum(not session.closed for session in sink.sessions))
            return len(sink.mails) >= 2 * EACH

        await gatherResults([self.sent(kumo) for kumo in (one, two)])
        await until(all_there, "all messages of both", 60)
        self.assertEqual({session.peer for session in sink.sessions}, {SHARED})
        self.assertEqual(most, LIMIT)
        for kumo in (one, two):
            records = await kumo.wait_for_records(EACH, type="Delivery")
            self.assertEqual({record["num_attempts"] for record in records}, {0})
            self.assertEqual(
                {record["source_address"]["address"].partition(":")[0] for record in records},
                {SHARED},
            )
        await self.assert_told(http)

        one.kill_9()
        await self.send(two, 2)
        await until(lambda: len(sink.mails) >= 2 * EACH + 2, "the other's messages", 30)
        self.assertEqual({session.peer for session in sink.sessions}, {SHARED})

    def sent(self, kumo: Kumo) -> Deferred[None]:
        """Messages on their way in."""
        return Deferred.fromCoroutine(self.send(kumo, EACH))

    async def assert_told(self, http: int) -> None:
        """The proxy's pages tell what happened."""
        self.assertEqual(await deferToThread(fetch, http, "/proxy/status"), "KumoProxy OK\n")
        metrics = await deferToThread(fetch, http, "/metrics")
        self.assertRegex(metrics, r"(?m)^proxy_connections_completed_total\{.*\} [1-9]")
        self.assertNotRegex(metrics, r"(?m)^proxy_requests_refused_total\{.*\} [1-9]")
