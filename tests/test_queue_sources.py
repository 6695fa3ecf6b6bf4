"""Sources that fail, and what becomes of the mail that wanted to leave through them."""

from __future__ import annotations

import ipaddress

from twisted.internet import error

from kumotwist.egress.suspension import Suspension
from kumotwist.settings.types import HostPort
from kumotwist.wire.socks5.format import Rep
from tests.memory_proxies import MemoryHAProxy, MemorySOCKS5
from tests.queue_world import World
from tests.source_case import BOTH, P1, P2, SITES, TEN_MINUTES, SourceCase


class SuspensionTests(SourceCase):
    """C{suspend_when_proxy_unhealthy} and C{suspend_when_unplumbed}."""

    def test_others_carry_the_mail(self) -> None:
        """A suspended source gets nothing but probes; the other one of the pool carries all."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES},
            p2={"socks5_proxy_server": P2},
        )
        self.one.stop()
        for _ in range(10):
            world.inject("x@b.example")
            world.network.pass_time(10)
        self.assertEqual(len(world.records("Delivery")), 10)
        self.assertEqual({each["egress_source"] for each in world.records("Delivery")}, {"p2"})
        # The first failure, and a probe each thirty seconds.
        self.assertLessEqual(self.tried(world), 4)
        self.assert_nothing_charged(world)

    def test_probe_ends_the_suspension(self) -> None:
        """When the proxy is back, a probe finds out long before the suspension would end."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES}
        )
        self.one.stop()
        messages = world.inject(*(f"x{n}@b.example" for n in range(20)))
        world.network.pass_time(100)
        self.assertLessEqual(self.tried(world), 5)
        self.one.start()
        world.network.pass_time(45)
        self.assertEqual(len(world.records("Delivery")), 20)
        self.assertEqual([message.attempts for message in messages], [0] * 20)
        self.assertTrue(world.health.usable("p1"))
        self.assert_nothing_charged(world)

    def test_trigger_tolerates(self) -> None:
        """Failures below the trigger put off only the message that met them."""
        rule = Suspension(600.0, 3, 300.0)
        world = self.world(p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": rule})
        self.one.stop()
        world.inject("x@b.example")
        self.one.start()
        self.assertTrue(world.health.usable("p1"))
        world.inject("y@b.example")
        self.assertEqual(world.records("Delivery")[0]["recipient"], "y@b.example")
        world.network.pass_time(7)
        self.assertEqual(len(world.records("Delivery")), 2)
        self.assert_nothing_charged(world)

    def test_trigger_reached(self) -> None:
        """The failure that reaches the trigger suspends the source."""
        rule = Suspension(600.0, 3, 300.0)
        world = self.world(p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": rule})
        self.one.stop()
        world.inject("x@b.example")
        world.network.pass_time(60)
        self.assertFalse(world.health.usable("p1"))
        self.assertEqual(world.kinds().count("Delayed"), 2)
        self.assert_nothing_charged(world)

    def test_tolerated_failure_avoids_the_source(self) -> None:
        """A message that met a tolerated failure goes through another source next."""
        rule = Suspension(600.0, 9, 300.0)
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": rule},
            p2={"socks5_proxy_server": P2},
        )
        self.one.stop()
        world.inject("x@b.example")
        world.network.pass_time(7)
        (record,) = world.records("Delivery")
        self.assertEqual(record["egress_source"], "p2")

    def test_unplumbed(self) -> None:
        """An address that this machine has lost suspends for as long as is said for that."""
        address = (ipaddress.ip_address("198.51.100.1"),)
        world = self.world(
            gone={
                "source_address": address,
                "suspend_when_unplumbed": TEN_MINUTES,
                "suspend_when_proxy_unhealthy": Suspension(7200.0),
            }
        )
        world.network.servers["192.0.2.1", 25] = lambda: error.ConnectBindError(99)
        world.inject("x@b.example")
        self.assertEqual(world.health.held_for("gone"), 600.0)
        world.sink("192.0.2.1")
        world.network.pass_time(40)
        self.assertEqual(world.kinds()[-1], "Delivery")
        self.assert_nothing_charged(world)

    def test_everything_that_counts(self) -> None:
        """A hung proxy, a vanished one and one that lost the address count like one that is
        down."""
        address = (ipaddress.ip_address("198.51.100.1"),)
        for trouble in ("hangs", "vanish", "bind"):
            world = self.world(
                p1={
                    "socks5_proxy_server": P1,
                    "socks5_proxy_source_address": address,
                    "suspend_when_proxy_unhealthy": TEN_MINUTES,
                }
            )
            if trouble == "bind":
                self.one.bind_refusal = Rep.GENERAL_FAILURE
            elif trouble == "hangs":
                self.one.hangs = True
            else:
                self.one.vanish()
            world.inject("x@b.example")
            world.network.pass_time(61)
            self.assertFalse(world.health.usable("p1"), trouble)
            self.assertGreater(world.health.held_for("p1"), 500.0, trouble)

    def test_ready_queues_of_other_sites_drain(self) -> None:
        """What is ready for a source that is held goes to others at once, for whatever site."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES},
            p2={"socks5_proxy_server": P2},
        )
        self.one.hangs = True
        for n in range(6):
            world.inject(f"x{n}@b.example", f"y{n}@c.example")
        self.one.hangs = False
        self.one.stop()
        world.network.pass_time(59)
        before = len(world.records("Delivery"))
        world.network.pass_time(2)
        self.assertLess(before, 12)
        self.assertEqual(len(world.records("Delivery")), 12)
        self.assert_nothing_charged(world)

    def test_probe_to_a_dead_destination(self) -> None:
        """A proxy that reports a refused destination works, whatever the destination does."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES}
        )
        self.one.stop()
        world.inject("x@b.example")
        self.one.start()
        del world.network.servers["192.0.2.1", 25]
        world.network.pass_time(40)
        self.assertTrue(world.health.usable("p1"))


class SuspicionTests(SourceCase):
    """What may be the destination's failure as well as the proxy's."""

    def test_refused_by_rule(self) -> None:
        """A proxy that refuses one site is passed over for that site, uncharged, not held."""
        world = self.world(p1={"socks5_proxy_server": P1}, p2={"socks5_proxy_server": P2})
        self.one.refusal = Rep.NOT_ALLOWED
        for n in range(4):
            world.inject(f"x{n}@b.example")
        used = [each["egress_source"] for each in world.records("Delivery")]
        self.assertEqual(used, ["p2"] * 4)
        self.assertEqual(self.tried(world), 1)
        self.assertTrue(world.health.usable("p1"))
        self.assert_nothing_charged(world)

    def test_refused_by_every_source(self) -> None:
        """If no source may connect to a site, its mail waits uncharged; other sites' does not."""
        world = self.world(p1={"socks5_proxy_server": P1})
        self.one.refusal = Rep.NOT_ALLOWED
        world.inject("x@b.example")
        self.one.refusal = None
        world.inject("y@c.example")
        self.assertEqual(len(world.records("Delivery")), 1)
        (delayed,) = world.records("Delayed")
        self.assertIn("rules do not allow", delayed["response"]["content"])
        world.network.pass_time(400, step=5)
        self.assertEqual(len(world.records("Delivery")), 2)
        self.assert_nothing_charged(world)

    def test_haproxy_and_one_dead_destination(self) -> None:
        """Silence of one destination behind HAProxy never holds the source."""
        world = World(
            SITES,
            sources={
                "ha": {
                    "ha_proxy_server": (HostPort("10.0.0.3", 2526),),
                    "ha_proxy_source_address": (ipaddress.ip_address("198.51.100.1"),),
                    "suspend_when_proxy_unhealthy": TEN_MINUTES,
                }
            },
        )
        MemoryHAProxy(world.network, "10.0.0.3")
        world.sink("192.0.2.2")
        for n in range(20):
            world.inject(f"x{n}@b.example")
            self.assertTrue(world.health.usable("ha"))
        world.inject("y@c.example")
        self.assertEqual(len(world.records("Delivery")), 1)

    def test_closing_proxy_and_one_dead_destination(self) -> None:
        """A proxy that closes where a destination refuses (ssh -D) is never held for one: the site
        alone is put off, its attempts are counted, and other mail goes on."""
        for silent in (False, True):
            world = self.world(
                p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES}
            )
            self.one.closes = True
            if silent:
                world.network.servers["192.0.2.1", 25] = None
            else:
                del world.network.servers["192.0.2.1", 25]
            (first,) = world.inject("x@b.example")
            for n in range(9):
                world.network.pass_time(61)
                world.inject(f"x{n}@b.example")
                self.assertTrue(world.health.usable("p1"))
            world.inject("y@c.example")
            self.assertEqual(len(world.records("Delivery")), 1)
            world.network.pass_time(7200, step=30)
            self.assertGreaterEqual(first.attempts, 3)
            content = world.records("TransientFailure")[0]["response"]["content"]
            self.assertIn("suspected proxy failure: via socks5 10.0.0.1:1080", content)
            self.assertIn("192.0.2.1:25", content)

    def test_closing_proxy_is_held(self) -> None:
        """Closes in a row towards two sites hold the source; a third site's probe ends that."""
        names = [f"d{n}.example" for n in range(2)]
        records = {name: [f"MX 10 mx.{name}"] for name in names}
        records |= {f"mx.{name}": [f"A 192.0.2.{7 + n}"] for n, name in enumerate(names)}
        world = World(SITES | records, sources={"p1": {"socks5_proxy_server": P1}})
        MemorySOCKS5(world.network, "10.0.0.1").closes = True
        world.sink("192.0.2.1")
        for _ in range(3):
            world.inject(*(f"x@{name}" for name in names))
        self.assertFalse(world.health.usable("p1"))
        world.inject("y@b.example")
        self.assertEqual(world.records("Delivery"), [])
        world.network.pass_time(60)
        self.assertEqual(len(world.records("Delivery")), 1)
        self.assertTrue(world.health.usable("p1"))

    def test_probes_take_turns(self) -> None:
        """Of two sites whose mail waits for a source, one that is dead does not have all probes."""
        world = self.world(p1={"socks5_proxy_server": P1})
        self.one.closes = True
        self.one.stop()
        world.inject(*(f"x{n}@b.example" for n in range(9)))
        world.inject("y@c.example")
        del world.network.servers["192.0.2.1", 25]
        self.one.start()
        world.network.pass_time(30)
        self.assertEqual(len(world.records("Delivery")), 1)
        self.assertTrue(world.health.usable("p1"))

    def test_silent_haproxy(self) -> None:
        """Silence towards several sites holds it; when it speaks again, mail goes on."""
        world = World(
            {f"d{n}.example": ["MX 10 mx.c.example"] for n in range(9)}
            | {"mx.c.example": ["A 192.0.2.2"], "e.example": ["MX 1 f.example"]}
            | {"f.example": ["A 192.0.2.2"]},
            sources={
                "ha": {
                    "ha_proxy_server": (HostPort("10.0.0.3", 2526),),
                    "ha_proxy_source_address": (ipaddress.ip_address("198.51.100.1"),),
                    "suspend_when_proxy_unhealthy": TEN_MINUTES,
                }
            },
        )
        haproxy = MemoryHAProxy(world.network, "10.0.0.3")
        haproxy.silent = True
        world.sink("192.0.2.2")
        for n in range(4):
            world.inject(f"x@d{n}.example")
            world.inject("y@e.example")
        world.network.pass_time(70)
        self.assertFalse(world.health.usable("ha"))
        held = world.records("TransientFailure")
        haproxy.silent = False
        world.network.pass_time(120)
        self.assertTrue(world.health.usable("ha"))
        self.assertGreater(len(held), 4)


class ProxyListTests(SourceCase):
    """Several proxies for one source."""

    def test_failover_is_not_a_failure(self) -> None:
        """When one of its proxies is down the mail goes through the other, with no record of
        failure; the record of the delivery names the proxy that was used."""
        world = self.world(ip={"socks5_proxy_server": BOTH})
        self.one.stop()
        world.inject("x@b.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "Delivery")
        self.assertEqual(record["source_address"]["server"], "10.0.0.2:1080")

    def test_all_down(self) -> None:
        """When all are down the source is held, and comes back when one does."""
        world = self.world(
            ip={"socks5_proxy_server": BOTH, "suspend_when_proxy_unhealthy": TEN_MINUTES}
        )
        self.one.stop()
        self.two.stop()
        world.inject("x@b.example")
        self.assertFalse(world.health.usable("ip"))
        self.two.start()
        world.network.pass_time(40)
        self.assertEqual(world.kinds()[-1], "Delivery")
        self.assert_nothing_charged(world)

    def test_one_silent_haproxy_of_two(self) -> None:
        """Of two HAProxies the one that turns silent is left out; the source goes on."""
        names = [f"d{n}.example" for n in range(4)]
        records = {name: [f"MX 10 mx.{name}"] for name in names}
        records |= {f"mx.{name}": ["A 192.0.2.2"] for name in names}
        world = World(
            records,
            sources={
                "ha": {
                    "ha_proxy_server": (HostPort("10.0.0.3", 2526), HostPort("10.0.0.4", 2526)),
                    "ha_proxy_source_address": (ipaddress.ip_address("198.51.100.1"),),
                }
            },
            path={"idle_timeout": 1.0},
        )
        MemoryHAProxy(world.network, "10.0.0.3").silent = True
        MemoryHAProxy(world.network, "10.0.0.4")
        world.sink("192.0.2.2")
        for _ in range(2):
            world.inject(*(f"x@{name}" for name in names))
            world.network.pass_time(61)
        world.journal.records.clear()
        world.inject("y@d0.example")
        (record,) = world.records()
        self.assertEqual(record["type"], "Delivery")
        self.assertEqual(record["source_address"]["server"], "10.0.0.4:2526")
        self.assertTrue(world.health.usable("ha"))


class FamilyTests(SourceCase):
    """A source that owns an address of each family."""

    def test_right_address(self) -> None:
        """Each destination is reached from the address of its family."""
        records = {
            "b.example": ["MX 10 mx4.b.example"],
            "mx4.b.example": ["A 192.0.2.1"],
            "c.example": ["MX 10 mx6.c.example"],
            "mx6.c.example": ["AAAA 2001:db8::1"],
        }
        world = World(
            records,
            sources={
                "both": {
                    "source_address": tuple(
                        ipaddress.ip_address(text) for text in ("198.51.100.1", "2001:db8::99")
                    )
                }
            },
        )
        world.sink("192.0.2.1")
        world.sink("2001:db8::1")
        world.inject("x@b.example")
        world.inject("x@c.example")
        self.assertEqual(len(world.records("Delivery")), 2)
        self.assertEqual(
            {(host, bind) for host, _, bind in world.network.connections},
            {("192.0.2.1", ("198.51.100.1", 0)), ("2001:db8::1", ("2001:db8::99", 0))},
        )

    def test_failures_name_the_address(self) -> None:
        """The record of an attempt that reached nobody says which address was asked for, whether
        the proxy failed or no host answered."""
        for text, shown in (("198.51.100.1", "198.51.100.1:0"), ("2001:db8::9", "[2001:db8::9]:0")):
            address = ipaddress.ip_address(text)
            kind = "AAAA 2001:db8::1" if address.version == 6 else "A 192.0.2.1"
            world = World(
                {"b.example": ["MX 10 mx.b.example"], "mx.b.example": [kind]},
                sources={
                    "p1": {"socks5_proxy_server": P1, "socks5_proxy_source_address": (address,)}
                },
            )
            proxy = MemorySOCKS5(world.network, "10.0.0.1")
            world.inject("nobody-listens@b.example")
            proxy.stop()
            world.inject("no-proxy@b.example")
            expected = {"address": shown, "server": "10.0.0.1:1080", "protocol": "socks5"}
            records = world.records("TransientFailure")
            self.assertEqual([each["source_address"] for each in records], [expected] * 2)

    def test_both_families_name_the_one_used(self) -> None:
        """A source with an address of each family: a failure of its proxy names the one of the host
        that was meant; where hosts of both were tried in vain, none is named."""
        pair = tuple(ipaddress.ip_address(text) for text in ("198.51.100.1", "2001:db8::99"))
        records = {"b.example": ["MX 10 mx.b.example"]}
        records["mx.b.example"] = ["AAAA 2001:db8::1", "A 192.0.2.1"]
        world = World(
            records,
            sources={"p1": {"socks5_proxy_server": P1, "socks5_proxy_source_address": pair}},
        )
        proxy = MemorySOCKS5(world.network, "10.0.0.1")
        world.inject("nobody-listens@b.example")
        proxy.stop()
        world.inject("no-proxy@b.example")
        first, second = (each["source_address"] for each in world.records("TransientFailure"))
        self.assertEqual(first["address"], "")
        self.assertIn(second["address"], {"198.51.100.1:0", "[2001:db8::99]:0"})

    def test_missing_family_is_skipped(self) -> None:
        """Of a host with both kinds of addresses only those of the source's family are tried."""
        records = {
            "b.example": ["MX 10 mx.b.example"],
            "mx.b.example": ["AAAA 2001:db8::1", "A 192.0.2.1"],
        }
        world = World(
            records,
            sources={
                "four": {
                    "socks5_proxy_server": P1,
                    "socks5_proxy_source_address": (ipaddress.ip_address("198.51.100.1"),),
                }
            },
        )
        proxy = MemorySOCKS5(world.network, "10.0.0.1")
        world.sink("192.0.2.1")
        world.inject("x@b.example")
        self.assertEqual(world.kinds(), ["Delivery"])
        self.assertEqual(proxy.destinations, ["192.0.2.1"])
        self.assertEqual(proxy.sources, ["198.51.100.1"])


class SeveralProcessesTests(SourceCase):
    """Two processes of one node tell each other."""

    def test_one_finds_out_for_all(self) -> None:
        """A source that one suspends is suspended for the other before it has tried; when it works
        for one, the other's mail goes out as well."""
        suspended = {"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES}
        first = self.world(p1=suspended)
        its_proxy = self.one
        second = self.world(p1=suspended)
        first.health._tell = second.scheduler.heard
        second.health._tell = first.scheduler.heard
        its_proxy.stop()
        second.inject("x@b.example")
        self.assertEqual(len(second.records("Delivery")), 1)
        first.inject("x@b.example")
        self.assertFalse(second.health.usable("p1"))
        self.assertEqual(second.health.reason("p1"), first.health.reason("p1"))
        second.inject("y@c.example")
        self.assertEqual(second.kinds()[-1], "Delayed")
        self.assertEqual(self.tried(second), 1, "only for what came before")
        its_proxy.start()
        first.network.pass_time(60)
        self.assertEqual(len(first.records("Delivery")), 1)
        self.assertTrue(second.health.usable("p1"))
        second.network.pass_time(60)
        self.assertEqual(len(second.records("Delivery")), 2)
        self.assert_nothing_charged(first)
        self.assert_nothing_charged(second)
