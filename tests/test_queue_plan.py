"""Which hosts a queue's mail may be handed to."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.dns import DNSError
from kumotwist.egress.settings import PathTable
from kumotwist.queue.plan import Host, MailLoopError, NullMXError, Plan, Planner, domain_of_queue
from kumotwist.queue.settings import QueueSettings, SmartHost
from kumotwist.queue.verdicts import judge_lookup
from kumotwist.testing.dns import FakeResolver

RECORDS = {
    "b.example": ["MX 20 mx2.b.example", "MX 10 mx1.b.example"],
    "implicit.example": ["A 192.0.2.9"],
    "null.example": ["MX 0 ."],
}


class DomainTests(SynchronousTestCase):
    """The domain in a queue's name."""

    def test_domain(self) -> None:
        """Campaign and tenant are left out; a routing domain goes before the domain."""
        for queue, domain in (
            ("b.example", "b.example"),
            ("tenant@b.example", "b.example"),
            ("campaign:tenant@b.example", "b.example"),
            ("t@b.example!relay.example", "relay.example"),
            ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
            ("odd@tenant@b.example", "b.example"),
            ("", ""),
        ):
            self.assertEqual(domain_of_queue(queue), domain)


class PlannerTests(SynchronousTestCase):
    """Plans by look-up and by route."""

    def plan(self, queue: str, settings: QueueSettings | None = None) -> Plan:
        """The plan for a queue."""
        planner = Planner(FakeResolver(RECORDS, fail={"broken.example": "timed out"}), PathTable())
        return self.successResultOf(planner.plan(queue, settings or QueueSettings()))

    def test_exchangers(self) -> None:
        """MX hosts by preference, under the name that KumoMTA gives their site."""
        plan = self.plan("b.example")
        self.assertEqual(
            plan.hosts, (Host("mx1.b.example", preference=10), Host("mx2.b.example", preference=20))
        )
        self.assertEqual(plan.site, "(mx1|mx2).b.example")
        self.assertTrue(plan.looked_up)

    def test_implicit(self) -> None:
        """A domain without MX is its own host."""
        self.assertEqual(
            self.plan("implicit.example").hosts, (Host("implicit.example", preference=0),)
        )

    def test_ourselves(self) -> None:
        """A node that is an exchanger itself hands mail only to those nearer to the destination;
        if it is the nearest, the mail loops."""
        planner = Planner(FakeResolver(RECORDS), PathTable(), ["mx2.b.example"])
        plan = self.successResultOf(planner.plan("b.example", QueueSettings()))
        self.assertEqual(
            (plan.hosts, plan.site), ((Host("mx1.b.example", preference=10),), "mx1.b.example")
        )
        planner = Planner(FakeResolver(RECORDS), PathTable(), ["mx1.b.example"])
        failure = self.failureResultOf(
            planner.plan("b.example", QueueSettings()), MailLoopError
        ).value
        self.assertTrue(failure.permanent)
        self.assertEqual(judge_lookup(failure, "b.example").reply.code, 554)
        settings = QueueSettings(route=(SmartHost("mx1.b.example", None),))
        plan = self.successResultOf(planner.plan("b.example", settings))
        self.assertEqual(plan.hosts, (Host("mx1.b.example"),))

    def test_literal(self) -> None:
        """An address literal is looked up nowhere, but is not the operator's word either."""
        plan = self.plan("[192.0.2.7]")
        self.assertEqual((plan.hosts, plan.looked_up), ((Host("192.0.2.7", preference=0),), True))

    def test_routing_domain(self) -> None:
        """The routing domain's hosts serve the queue."""
        plan = self.plan("t@nowhere.example!b.example")
        self.assertEqual((plan.domain, len(plan.hosts)), ("b.example", 2))

    def test_route(self) -> None:
        """A route replaces the look-up; its hosts and ports are the plan, in its order."""
        settings = QueueSettings(
            route=(SmartHost("192.0.2.1", 2526), SmartHost("mx.example", None))
        )
        plan = self.plan("nowhere.example", settings)
        self.assertEqual(plan.hosts, (Host("192.0.2.1", 2526), Host("mx.example", None)))
        self.assertEqual(plan.site, "[192.0.2.1]:2526,mx.example")
        self.assertFalse(plan.looked_up)

    def test_same_route_same_site(self) -> None:
        """Domains with one route share a site, and so their connections."""
        settings = QueueSettings(route=(SmartHost("192.0.2.1", 2526),))
        sites = {self.plan(queue, settings).site for queue in ("a.example", "b.example")}
        self.assertEqual(len(sites), 1)

    def failure(self, queue: str) -> DNSError:
        """What looking a queue's hosts up fails with."""
        planner = Planner(FakeResolver(RECORDS, fail={"broken.example": "timed out"}), PathTable())
        error = self.failureResultOf(planner.plan(queue, QueueSettings()), DNSError).value
        assert isinstance(error, DNSError)
        return error

    def test_null_mx(self) -> None:
        """A null MX is an error of its own kind, and final."""
        error = self.failure("null.example")
        self.assertIsInstance(error, NullMXError)
        self.assertTrue(error.permanent)

    def test_failures(self) -> None:
        """What does not exist, or cannot, is final; name servers that fail are not."""
        for queue, permanent in (
            ("nowhere.example", True),
            ("broken.example", False),
            ("", True),
            ("no domain", True),
            ("[not an address]", True),
            (".".join(["x" * 63] * 5), True),
        ):
            self.assertEqual(self.failure(queue).permanent, permanent, queue)
