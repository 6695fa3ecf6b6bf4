"""Which way a node's MTA-STS fetches go, and when it asks for policies at all."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from kumotwist.egress import SourceHealth
from kumotwist.service.live import LiveSettings
from kumotwist.service.policies import PolicyService
from kumotwist.tls.sts import Finding
from tests.config_case import ConfigCase

CONFIG = """
[dns]
hosts = 192.0.2.9 mta-sts.b.example
        192.0.2.10 mta-sts.b.example
        127.0.0.1 mta-sts.inside.example
        2001:db8::1 mta-sts.six.example

[source:one]
source_address = 198.51.100.1
[source:two]
source_address = 198.51.100.2
[pool:out]
one = 1
two = 1
[queue:default]
egress_pool = out
"""


class WayTests(ConfigCase):
    """L{PolicyService.endpoint_for}."""

    def service(self, more: str = "") -> PolicyService:
        """A service that is not started."""
        self.reactor = MemoryReactorClock()
        live = LiveSettings(self.reactor, self.load(CONFIG + more))
        self.health = SourceHealth(self.reactor.seconds)
        return PolicyService(self.reactor, live, self.health, str(self.directory))

    def connect(self, service: PolicyService, domain: str) -> Deferred[Any]:
        """Begin to connect to a domain's web server."""
        host = f"mta-sts.{domain}"
        connecting = service.endpoint_for(domain, "out")(host, 443).connect(Factory())
        connecting.addErrback(lambda _: None)
        return connecting

    def connections(self) -> list[tuple[str, int, Any]]:
        """Where connections went, and from where."""
        return [
            (host, port, bind and bind[0]) for host, port, _, _, bind in self.reactor.tcpClients
        ]

    def test_source(self) -> None:
        """A fetch leaves from a source of the pool, one that may be used."""
        service = self.service()
        self.connect(service, "b.example")
        [(host, port, bind)] = self.connections()
        self.assertIn(host, ("192.0.2.9", "192.0.2.10"))
        self.assertEqual((port, bind), (443, "198.51.100.1"))
        service = self.service()
        for _ in range(20):
            self.health.failed("one", "its proxy is gone", None)
        self.assertFalse(self.health.usable("one"))
        self.connect(service, "b.example")
        self.assertEqual(self.connections()[0][2], "198.51.100.2")

    def test_direct(self) -> None:
        """mta_sts_fetch = Direct takes no source."""
        service = self.service("[path:default]\nmta_sts_fetch = Direct\n")
        self.connect(service, "b.example")
        self.assertEqual(self.connections()[0][2], None)
        service = self.service("[path:b.example]\nmta_sts_fetch = Direct\n")
        self.connect(service, "six.example")
        self.assertEqual(self.connections(), [], "the source has no IPv6 address")

    def test_next_address(self) -> None:
        """If one address does not answer the next is tried."""
        service = self.service()
        self.connect(service, "b.example")
        factory: Any = self.reactor.tcpClients[0][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        hosts = {host for host, _, _ in self.connections()}
        self.assertEqual(hosts, {"192.0.2.9", "192.0.2.10"})

    def test_prohibited(self) -> None:
        """No domain can make the node connect to itself."""
        service = self.service("[path:default]\nmta_sts_fetch = Direct\n")
        self.connect(service, "inside.example")
        self.assertEqual(self.connections(), [])

    def test_switched_off(self) -> None:
        """Where no source of the pool goes by policies nobody is asked."""
        service = self.service("[path:default]\nenable_mta_sts = no\n")
        finding = self.successResultOf(service.find("b.example", "mx.b.example", "out"))
        self.assertEqual(finding, Finding())
        self.assertEqual(self.reactor.getReaders(), [])

    def test_known_hosts(self) -> None:
        """A domain of [dns] hosts is not asked for a policy."""
        service = self.service()
        service._live.resolver.resolver._hosts = {"b.example": ()}
        finding = self.successResultOf(service.find("b.example", "b.example", "out"))
        self.assertEqual(finding, Finding())
        self.assertEqual(self.reactor.getReaders(), [])
