"""A node's numbers: sources that fail and come back, messages, connections."""

from __future__ import annotations

import errno
import ipaddress
import re

from twisted.internet import error

from kumotwist.egress.counters import FailureKind
from kumotwist.service.metrics import NodeMetrics
from tests.http_client import Connection
from tests.queue_world import World
from tests.source_case import BOTH, P1, P2, TEN_MINUTES, SourceCase
from tests.test_service_node import NodeCase


class SourceMetricsTests(SourceCase):
    """What the numbers say of sources, from the first failure to the recovery."""

    def metrics(self, world: World) -> dict[str, int]:
        """The samples, by name and labels as they are written."""
        numbers = NodeMetrics(
            world.scheduler,
            world.sources,
            world.health,
            world.context.counters,
            world.recorder.counters,
            {},
        )
        text = numbers.render()
        return {
            match[1]: int(match[2])
            for match in re.finditer(r"^([^#\n][^\n]*) (-?\d+)$", text, re.MULTILINE)
        }

    def test_suspension(self) -> None:
        """A proxy that fails suspends its source once; the reason is the proxy."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES},
            p2={"socks5_proxy_server": P2},
        )
        suspended = 'egress_source_health_suspended{source="p1",reason="ProxyUnhealthy"}'
        times = 'egress_source_health_suspensions_total{source="p1",reason="ProxyUnhealthy"}'
        failures = 'egress_source_connection_failures_total{source="p1",kind="ProxyUnhealthy"}'
        found = self.metrics(world)
        self.assertEqual((found[suspended], found[times], found[failures]), (0, 0, 0))
        self.one.stop()
        for _ in range(4):
            world.inject("x@b.example")
            world.network.pass_time(40)
        found = self.metrics(world)
        self.assertEqual((found[suspended], found[times]), (1, 1))
        self.assertGreater(found[failures], 1)
        self.assertEqual(found[suspended.replace("p1", "p2")], 0)
        self.one.start()
        world.inject("x@b.example")
        world.network.pass_time(100)
        world.inject("x@b.example")
        world.network.pass_time(100)
        found = self.metrics(world)
        self.assertEqual((found[suspended], found[times]), (0, 1))
        self.assertNotIn("10.0.0.1", " ".join(found))

    def test_probation(self) -> None:
        """A suspension that has ended is not shown for ever where no mail comes to try the
        source."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES},
            p2={"socks5_proxy_server": P2},
        )
        self.one.stop()
        for _ in range(2):
            world.inject("x@b.example")
        name = 'egress_source_health_suspended{source="p1",reason="ProxyUnhealthy"}'
        for seconds, shown in ((590, 1), (200, 1), (200, 0)):
            world.network.pass_time(seconds, step=10)
            self.assertEqual(self.metrics(world)[name], shown, seconds)

    def test_unplumbed(self) -> None:
        """An address that the machine lacks is another reason; shortage is a third."""
        address = (ipaddress.ip_address("192.0.2.77"),)
        for number, kind in (
            (errno.EADDRNOTAVAIL, FailureKind.UNPLUMBED),
            (errno.EMFILE, FailureKind.EXHAUSTED),
        ):
            world = self.world(direct={"source_address": address})
            world.network.servers["192.0.2.1", 25] = lambda number=number: error.ConnectBindError(
                number
            )
            world.inject("x@b.example")
            found = self.metrics(world)
            for other in FailureKind:
                label = f'{{source="direct",reason="{other.value}"}}'
                self.assertEqual(
                    found[f"egress_source_health_suspended{label}"], int(other is kind), other
                )

    def test_proxies(self) -> None:
        """One of several proxies fails: the source goes on, and the numbers name the proxy."""
        world = self.world(ip={"socks5_proxy_server": BOTH})
        self.one.stop()
        world.inject("x@b.example", "y@b.example")
        found = self.metrics(world)
        for server, expected in (("10.0.0.1:1080", 1), ("10.0.0.2:1080", 0)):
            labels = f'{{source="ip",server="{server}"}}'
            self.assertEqual(found[f"egress_proxy_suspended{labels}"], expected)
            self.assertEqual(found[f"egress_proxy_suspensions_total{labels}"], expected)
        self.assertEqual(
            found['egress_source_health_suspended{source="ip",reason="ProxyUnhealthy"}'], 0
        )

    def test_messages(self) -> None:
        """Outcomes are counted together, and by source and pool; connections by source."""
        world = self.world(p1={"socks5_proxy_server": P1})
        world.inject("x@b.example", "y@b.example")
        world.inject("x@b.example")
        found = self.metrics(world)
        self.assertEqual(found['total_messages_delivered{service="smtp_client"}'], 3)
        by_source = "total_messages_delivered_by_provider_and_source"
        self.assertEqual(found[f'{by_source}{{source="p1",pool="pool"}}'], 3)
        self.assertEqual(
            found['total_connection_count{service="smtp_client",source="p1"}'],
            self.tried(world),
        )
        self.assertEqual(found['connection_count{service="smtp_client",source="p1"}'], 1)
        self.assertEqual(found['total_messages_fail{service="smtp_client"}'], 0)
        self.one.stop()
        world.network.pass_time(100)
        world.inject("z@c.example")
        found = self.metrics(world)
        self.assertEqual(found["scheduled_count_total"], 1)
        self.assertEqual(found['total_messages_transfail{service="smtp_client"}'], 1)


class PageTests(NodeCase):
    """C{/metrics} of a node's C{[http]}."""

    def page(self) -> str:
        """What it says."""
        answer = Connection(self.factory(8000)).ask("/metrics")
        self.assertEqual(answer.status, 200)
        text: str = answer.body.decode()
        return text

    def test_node(self) -> None:
        """Listeners, sources and messages; clients that have come are counted."""
        self.started()
        self.greeting()
        text = self.page()
        for line in (
            'connection_count{service="esmtp_listener",listener="main"} 1',
            'total_connection_count{service="esmtp_listener",listener="main"} 1',
            'total_messages_received{service="esmtp_listener"} 0',
            'ready_count{service="smtp_client",source="one"} 0',
        ):
            self.assertIn(f"\n{line}\n", text)
        self.assertNotIn("proxy_connections_accepted_total", text)
        names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(names), len(set(names)))

    def test_with_proxy(self) -> None:
        """A KumoProxy beside the MTA adds its own."""
        self.started(more="[proxy:local]\nlisten = 127.0.0.1:5000\n")
        text = self.page()
        self.assertIn('proxy_connections_accepted_total{listener="local"} 0\n', text)
        self.assertIn("# TYPE scheduled_count_total gauge\n", text)
