"""TLS policy in the queue: from DNS to the host that is or is not dialled, and the record."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.queue.settings import SmartHost
from kumotwist.tls.sts import Finding, STSPolicy
from tests.queue_world import World
from tests.test_queue_delivery import scripted

DIGEST = "00" * 32
HOSTS = {
    "b.example": ["MX 10 mx.b.example"],
    "plain.example": ["MX 10 mx.b.example"],
    "mx.b.example": ["A 192.0.2.1"],
    "_25._tcp.mx.b.example": [f"TLSA 3 1 1 {DIGEST}"],
    "unusable.example": ["MX 10 mx.unusable.example"],
    "mx.unusable.example": ["A 192.0.2.1"],
    "_25._tcp.mx.unusable.example": [f"TLSA 1 1 1 {DIGEST}"],
    "broken.example": ["MX 10 mx.broken.example", "MX 20 mx2.broken.example"],
    "mx.broken.example": ["A 192.0.2.3"],
    "mx2.broken.example": ["A 192.0.2.4"],
}
DANE = {"enable_tls": "Opportunistic", "enable_dane": True}


class DANETests(SynchronousTestCase):
    """C{enable_dane}; the sink offers no STARTTLS."""

    def world(self, **path: object) -> World:
        """A world in which all but plain.example is signed, with one host."""
        world = World(
            HOSTS,
            insecure=["plain.example"],
            fail={"_25._tcp.mx.broken.example": "SERVFAIL"},
            path={**DANE, **path},
        )
        for address in ("192.0.2.1", "192.0.2.3", "192.0.2.4"):
            world.sink(address)
        return world

    def test_demanded(self) -> None:
        """TLSA records of either kind demand TLS, and the record says who demands it."""
        world = self.world()
        for domain, words in (
            ("b.example", "DANE: TLSA records of mx.b.example"),
            ("unusable.example", "DANE: only unusable TLSA records of mx.unusable.example"),
        ):
            world.inject(f"c@{domain}")
            record = world.records()[-1]
            self.assertEqual(record["type"], "TransientFailure")
            self.assertIn(words, record["response"]["content"])
            self.assertIn(words, record["tls_policy"])

    def test_not_secure(self) -> None:
        """A domain whose MX nobody vouches for is not affected, nor does its mail share a
        connection with that of a domain that is; without enable_dane nobody is."""
        world = self.world()
        world.inject("c@plain.example")
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "TransientFailure"])
        self.assertEqual(world.records()[0]["tls_policy"], "enable_tls = Opportunistic")
        world = self.world(enable_dane=False)
        world.inject("c@b.example")
        world.inject("c@plain.example")
        self.assertEqual(world.kinds(), ["Delivery", "Delivery"])
        self.assertEqual(len(world.network.connections), 1)

    def test_lookup_fails(self) -> None:
        """A host whose records cannot be looked up is passed over, not connected to."""
        world = self.world()
        world.inject("c@broken.example")
        [record] = world.records()
        self.assertEqual(record["type"], "Delivery")
        self.assertEqual([host for host, *_ in world.network.connections], ["192.0.2.4"])
        world.network.servers.pop(("192.0.2.4", 25))
        world.scheduler._plans.forget()
        world.network.pass_time(120)
        world.inject("d@broken.example")
        record = world.records()[-1]
        self.assertEqual((record["type"], record["response"]["code"]), ("TransientFailure", 451))

    def test_route(self) -> None:
        """A host that the operator names is looked up too; an address has no records."""
        for route, kind in (("mx.b.example", "TransientFailure"), ("192.0.2.1", "Delivery")):
            world = World(
                HOSTS,
                insecure=[],
                path=DANE,
                queue={"route": (SmartHost(route, None),)},
            )
            world.sink("192.0.2.1")
            world.inject("c@anywhere.example")
            self.assertEqual(world.kinds(), [kind])


ENFORCE = STSPolicy("b.example", "enforce", ("mx.b.example",), 86400)
PARTLY = STSPolicy("plain.example", "enforce", ("mx.other.example",), 86400)


class STSTests(SynchronousTestCase):
    """MTA-STS; the sink offers no STARTTLS."""

    def world(self, **path: object) -> World:
        """Two domains with one host, of which the first has a policy that lists it and the second
        one that does not."""
        policies = {"b.example": ENFORCE, "plain.example": PARTLY}
        world = World(
            {**HOSTS, "free.example": ["MX 10 mx.b.example"]},
            path={"enable_tls": "Opportunistic", **path},
            find_policy=lambda domain, site, pool: succeed(Finding(policies.get(domain))),
        )
        world.sink("192.0.2.1")
        return world

    def test_enforced(self) -> None:
        """A policy holds for the mail of its domain, and for nobody else's with the same hosts."""
        world = self.world()
        for domain, kind, words in (
            ("free.example", "Delivery", ""),
            (
                "b.example",
                "TransientFailure",
                "STARTTLS (MTA-STS enforce of b.example",
            ),
            ("plain.example", "TransientFailure", "policy of plain.example does not list it"),
            ("free.example", "Delivery", ""),
        ):
            world.inject(f"c@{domain}")
            record = world.records()[-1]
            self.assertEqual(record["type"], kind)
            self.assertIn(words, record["response"]["content"])
            policy = "MTA-STS enforce" if kind != "Delivery" else "enable_tls"
            self.assertIn(policy, record["tls_policy"])
        self.assertEqual({each["site"] for each in world.records()}, {"mx.b.example"})
        self.assertEqual(len(world.network.connections), 2)

    def test_switched_off(self) -> None:
        """Without enable_mta_sts nothing is demanded."""
        world = self.world(enable_mta_sts=False)
        world.inject("c@plain.example")
        self.assertEqual(world.kinds(), ["Delivery"])

    def test_late_policy(self) -> None:
        """While a policy is looked for only the mail of its domain waits."""
        late: Deferred[Finding] = Deferred()
        world = World(
            HOSTS,
            find_policy=lambda domain, site, pool: (
                late if domain == "b.example" else succeed(Finding())
            ),
        )
        world.sink("192.0.2.1")
        world.inject("c@b.example")
        world.inject("c@plain.example")
        self.assertEqual([each["queue"] for each in world.records()], ["plain.example"])
        late.callback(Finding())
        world.network.settle()
        self.assertEqual(
            [each["queue"] for each in world.records()], ["plain.example", "b.example"]
        )

    def test_not_asked(self) -> None:
        """Nobody asks for the policy of a route, an address literal, or a domain without hosts."""

        def find_policy(domain: str, site: str, pool: str) -> Deferred[Finding]:
            raise AssertionError(domain)

        for recipient, queue in (
            ("c@b.example", {"route": (SmartHost("192.0.2.1", None),)}),
            ("c@[192.0.2.1]", {}),
            ("c@nowhere.example", {}),
        ):
            world = World(HOSTS, queue=queue, find_policy=find_policy)
            world.sink("192.0.2.1")
            world.inject(recipient, sender="")
            self.assertEqual(len(world.records()), 1)


class BrokenTests(SynchronousTestCase):
    """C{remember_broken_tls}."""

    def test_remembered(self) -> None:
        """After a failed handshake the site's mail goes in clear for a while; not where TLS is
        required, and not without the setting."""
        for enable_tls, seconds, clear in (
            ("Opportunistic", 600.0, True),
            ("Required", 600.0, False),
            ("Opportunistic", None, False),
        ):
            world = World(HOSTS, path={"enable_tls": enable_tls, "remember_broken_tls": seconds})
            world.network.servers["192.0.2.1", 25] = scripted(
                b"220 mx\r\n", b"250-mx\r\n250 STARTTLS\r\n", b"454 not now\r\n"
            )
            world.inject("c@b.example")
            world.inject("d@b.example")
            first, second = world.records()
            self.assertIn("STARTTLS", first["response"]["command"])
            self.assertEqual("known to be broken" in str(second["tls_policy"]), clear)
