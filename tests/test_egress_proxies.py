"""Several proxies for one source, within one connect."""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

import attrs
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kumotwist.egress.health import FIRST_HOLD
from kumotwist.egress.proxies import PATIENCE, EveryProxyFailedError
from kumotwist.egress.settings import SourceSettings
from kumotwist.egress.source import Source
from kumotwist.egress.suspension import Suspension
from kumotwist.endpoints import (
    DestinationRefusedError,
    NegotiationTimeoutError,
    NotAllowedError,
    ProxyConnectError,
    SuspectedProxyError,
)
from kumotwist.endpoints.hops import PlannedHop
from kumotwist.settings.types import HostPort
from kumotwist.wire.socks5.format import Rep
from tests.memory_network import MemoryNetwork
from tests.memory_proxies import MemorySOCKS5

A, B, C = (HostPort(f"10.0.0.{number}", 1080) for number in (1, 2, 3))
DESTINATION = ipaddress.ip_address("192.0.2.1")
TIMEOUT = 60.0


class FailoverCase(SynchronousTestCase):
    """A source with two proxies that work, and a destination."""

    def setUp(self) -> None:
        """Start the network."""
        self.network = MemoryNetwork()
        self.a = MemorySOCKS5(self.network, "10.0.0.1")
        self.b = MemorySOCKS5(self.network, "10.0.0.2")
        self.network.servers["192.0.2.1", 25] = Factory.forProtocol(Protocol)
        self.source = self.make()

    def make(self, **values: Any) -> Source:
        """A source with both proxies."""
        settings = SourceSettings(name="ip-1", socks5_proxy_server=(A, B))
        return Source.of(attrs.evolve(settings, **values))

    def endpoint(self, timeout: float = TIMEOUT) -> IStreamClientEndpoint:
        """The way to the destination."""
        return self.source.endpoint(self.network, DESTINATION, 25, timeout)

    def connect(self, timeout: float = TIMEOUT) -> Deferred[Any]:
        """Connect, as far as it goes at once."""
        connecting = self.endpoint(timeout).connect(Factory.forProtocol(Protocol))
        self.network.settle()
        return connecting

    def used(self) -> str:
        """Connect; give the proxy that carries the connection."""
        server: str = self.successResultOf(self.connect()).transport.getProxy().server
        return server


class OrderTests(FailoverCase):
    """Which proxy is used."""

    def test_interface(self) -> None:
        """It is an endpoint like another."""
        verifyObject(IStreamClientEndpoint, self.endpoint())

    def test_ordered(self) -> None:
        """The first one, as long as it works; the connection tells which one it was."""
        self.assertEqual([self.used() for _ in range(4)], [str(A)] * 4)

    def test_balanced(self) -> None:
        """One after the other in turn."""
        self.source = self.make(proxy_selection="balanced")
        self.assertEqual([self.used() for _ in range(4)], [str(A), str(B)] * 2)

    def test_first_is_down(self) -> None:
        """When it refuses, the next one is used in the same connect, at once."""
        self.a.stop()
        self.assertEqual(self.used(), str(B))

    def test_what_failed_is_left_alone(self) -> None:
        """A proxy that failed is not asked again until its hold ends; then it is."""
        self.a.stop()
        self.used()
        self.network.connections.clear()
        self.assertEqual([self.used() for _ in range(3)], [str(B)] * 3)
        self.assertNotIn("10.0.0.1", [host for host, _, _ in self.network.connections])
        self.a.start()
        self.network.pass_time(FIRST_HOLD)
        self.assertEqual(self.used(), str(A))

    def test_one_try_at_a_time(self) -> None:
        """Only one connect tries a proxy that was held; those beside it go another way."""
        self.a.stop()
        self.used()
        self.a.start()
        self.a.hangs = True
        self.network.pass_time(FIRST_HOLD)
        self.connect()
        self.assertEqual(self.used(), str(B))

    def test_all_are_held(self) -> None:
        """When every proxy is held, they are asked all the same: the source decides."""
        self.a.stop()
        self.b.stop()
        self.failureResultOf(self.connect(), EveryProxyFailedError)
        self.b.start()
        self.assertEqual(self.used(), str(B))


class FailureTests(FailoverCase):
    """What is said when no connection comes about."""

    def test_every_proxy_fails(self) -> None:
        """The error names each proxy with its own reason, and speaks of the way out."""
        self.a.stop()
        self.b.hangs = True
        connecting = self.connect()
        self.network.pass_time(TIMEOUT)
        failure: Any = self.failureResultOf(connecting, EveryProxyFailedError)
        text = str(failure.value)
        self.assertEqual(failure.value.blames, "proxy")
        self.assertIn(f"{A}: cannot connect to the proxy", text)
        self.assertIn(f"{B}: no answer to the greeting", text)

    def test_destination_refuses(self) -> None:
        """What the destination answers is the answer; no other proxy is asked."""
        del self.network.servers["192.0.2.1", 25]
        self.failureResultOf(self.connect(), DestinationRefusedError)
        self.assertEqual(self.b.destinations, [])

    def test_refused_by_rule(self) -> None:
        """A proxy whose rules refuse the destination is passed over, and stays in use."""
        self.a.refusal = Rep.NOT_ALLOWED
        self.assertEqual(self.used(), str(B))
        self.a.refusal = None
        self.assertEqual(self.used(), str(A))

    def test_refused_by_all(self) -> None:
        """A refusal of a proxy that works says more than another that is down."""
        self.a.refusal = Rep.NOT_ALLOWED
        self.b.stop()
        self.failureResultOf(self.connect(), NotAllowedError)

    def test_bind_refused(self) -> None:
        """A proxy that has lost the source address is replaced by one that has it."""
        source = (ipaddress.ip_address("198.51.100.1"),)
        self.source = self.make(socks5_proxy_source_address=source)
        self.a.bind_refusal = Rep.GENERAL_FAILURE
        self.assertEqual(self.used(), str(B))
        self.assertEqual(self.b.sources, ["198.51.100.1"])

    def test_our_own_trouble(self) -> None:
        """That this machine cannot bind is nobody's failure but its own: no proxy is held."""
        for place in (self.a.place, self.b.place):
            self.network.servers[place] = lambda: error.ConnectBindError(99)
        failure: Any = self.failureResultOf(self.connect(), EveryProxyFailedError)
        self.assertIsInstance(failure.value.cause, error.ConnectBindError)
        assert self.source.proxies is not None
        self.assertFalse(any(proxy.health.troubled for proxy in self.source.proxies.proxies))


class DeadlineTests(FailoverCase):
    """One deadline for all of them."""

    def test_first_vanished(self) -> None:
        """A proxy that does not answer is overtaken by the next one, well within the deadline."""
        self.a.vanish()
        connecting = self.connect()
        self.network.pass_time(PATIENCE - 1)
        self.assertNoResult(connecting)
        self.network.pass_time(2)
        self.assertEqual(self.successResultOf(connecting).transport.getProxy().server, str(B))
        self.assertEqual(self.used(), str(B))

    def test_first_hangs(self) -> None:
        """A proxy that takes the connection and says nothing is no better."""
        self.a.hangs = True
        connecting = self.connect()
        self.network.pass_time(PATIENCE + 1)
        self.assertEqual(self.successResultOf(connecting).transport.getProxy().server, str(B))
        self.assertEqual(self.used(), str(B))

    def test_short_deadline(self) -> None:
        """With a short deadline each proxy has its share."""
        self.a.hangs = True
        connecting = self.connect(2.0)
        self.network.pass_time(1.1, step=0.1)
        self.assertEqual(self.successResultOf(connecting).transport.getProxy().server, str(B))

    def test_everything_hangs(self) -> None:
        """Nothing lasts longer than the one deadline."""
        self.source = self.make(socks5_proxy_server=(A, B, C))
        self.a.hangs = self.b.hangs = True
        self.network.servers[C.host, C.port] = None
        connecting = self.connect()
        self.network.pass_time(TIMEOUT - 1)
        self.assertNoResult(connecting)
        self.network.pass_time(1)
        self.failureResultOf(connecting, EveryProxyFailedError)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_silent_destination(self) -> None:
        """A destination that does not answer is no proxy's failure."""
        self.network.servers["192.0.2.1", 25] = None
        connecting = self.connect(20.0)
        self.network.pass_time(20)
        self.failureResultOf(connecting, NegotiationTimeoutError)
        assert self.source.proxies is not None
        self.assertFalse(any(proxy.health.troubled for proxy in self.source.proxies.proxies))

    def test_close_instead_of_an_answer(self) -> None:
        """Where the first proxy closes instead of answering, the next one shows who failed."""
        self.a.closes = True
        self.a.refusal = None
        self.network.servers.pop(("192.0.2.1", 25))
        connecting = self.connect()
        self.failureResultOf(connecting, DestinationRefusedError)
        assert self.source.proxies is not None
        self.assertFalse(any(proxy.health.troubled for proxy in self.source.proxies.proxies))

    def test_every_proxy_closes(self) -> None:
        """Where all of them do, it is a suspicion, and one destination holds none of them."""
        self.a.closes = self.b.closes = True
        self.network.servers.pop(("192.0.2.1", 25))
        for _ in range(9):
            failure = self.failureResultOf(self.connect(), SuspectedProxyError)
            self.assertEqual(failure.value.phase, "connect-request")
        assert self.source.proxies is not None
        self.assertFalse(any(proxy.health.troubled for proxy in self.source.proxies.proxies))

    def test_closing_proxy_is_passed_over(self) -> None:
        """A proxy that closes towards several destinations is left out for a while."""
        self.a.closes = True
        for number in range(9):
            destination = ipaddress.ip_address(f"192.0.2.{100 + number}")
            endpoint = self.source.endpoint(self.network, destination, 25, TIMEOUT)
            connecting = endpoint.connect(Factory.forProtocol(Protocol))
            self.network.settle()
            self.failureResultOf(connecting, DestinationRefusedError)
        assert self.source.proxies is not None
        held = [proxy.health.troubled for proxy in self.source.proxies.proxies]
        self.assertEqual(held, [True, False])

    def test_cancel(self) -> None:
        """Cancelling ends every connection that is being made."""
        self.a.hangs = self.b.hangs = True
        connecting = self.connect()
        self.network.pass_time(PATIENCE + 1)
        connecting.cancel()
        self.failureResultOf(connecting)
        self.assertEqual(self.network.getDelayedCalls(), [])


class SourceTests(FailoverCase):
    """A source and its proxies."""

    def test_one_by_one(self) -> None:
        """The same source can be had through each proxy alone."""
        self.assertEqual([each.server for each in self.source.one_by_one()], [str(A), str(B)])
        alone = self.make(socks5_proxy_server=(A,))
        self.assertEqual(alone.one_by_one(), [alone])

    def test_suspension(self) -> None:
        """Which suspension applies depends on what failed; exhaustion calls for none."""
        unplumbed, unhealthy = Suspension(60.0), Suspension(70.0)
        source = self.make(suspend_when_unplumbed=unplumbed, suspend_when_proxy_unhealthy=unhealthy)
        hop = PlannedHop("socks5", str(A), "", "192.0.2.1:25")

        def proxy_failed(cause: Exception | None) -> Exception:
            return ProxyConnectError(hop, "connect", "cannot connect", cause)

        for failure, expected in (
            (error.ConnectBindError(errno.EADDRNOTAVAIL), unplumbed),
            (proxy_failed(error.ConnectBindError(errno.EADDRNOTAVAIL)), unplumbed),
            (proxy_failed(error.ConnectBindError(errno.EMFILE)), None),
            (proxy_failed(error.ConnectionRefusedError()), unhealthy),
            (None, unhealthy),
        ):
            self.assertEqual(source.suspension(failure), expected, failure)

    def test_one_proxy(self) -> None:
        """A single proxy that fails says so itself."""
        self.source = self.make(socks5_proxy_server=(A,))
        self.a.stop()
        self.failureResultOf(self.connect(), ProxyConnectError)

    def test_address_of_each_family(self) -> None:
        """The address of the destination's family is the one that is used."""
        four, six = (ipaddress.ip_address(text) for text in ("10.0.0.9", "2001:db8::9"))
        source = self.make(socks5_proxy_source_address=(four, six))
        self.assertEqual(source.egress_address_for(DESTINATION), four)
        self.assertEqual(source.egress_address_for(ipaddress.ip_address("2001:db8::1")), six)
        self.assertTrue(source.reaches(DESTINATION))
        only_six = self.make(socks5_proxy_source_address=(six,))
        self.assertFalse(only_six.reaches(DESTINATION))
        self.assertTrue(self.make().reaches(DESTINATION))

    def test_password_in_a_server_is_not_shown(self) -> None:
        """The name of a proxy that is an endpoint string has no secret in it."""
        server = r"socks5:10.0.0.1:1080:server=10.0.0.2\:1080:username=u:password=geheim"
        source = self.make(socks5_proxy_server=(server, B))
        self.assertNotIn("geheim", source.server)
