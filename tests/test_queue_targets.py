"""The walk through a plan: addresses in order, and what is passed over."""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress import Source
from kumotwist.egress.settings import PathSettings, SourceSettings
from kumotwist.queue.plan import Host, Plan
from kumotwist.queue.targets import Target, TargetWalk
from kumotwist.queue.verdicts import INTERNAL, Scope, Verdict, internal_reply
from kumotwist.settings.types import IPAddress
from kumotwist.testing.dns import FakeResolver

RECORDS = {
    "mx1.example": ["A 192.0.2.1", "AAAA 2001:db8::1"],
    "mx2.example": ["A 192.0.2.2"],
    "six.example": ["AAAA 2001:db8::6"],
    "empty.example": [],
}


class FixedResolver(FakeResolver):
    """Gives the same answer for every host."""

    def __init__(self, answer: Deferred[tuple[IPAddress, ...]]) -> None:
        super().__init__({})
        self.answer = answer

    def lookup_addresses(self, name: str) -> Deferred[tuple[IPAddress, ...]]:
        """The answer."""
        return self.answer


def walk(
    *hosts: str | Host,
    looked_up: bool = True,
    records: Mapping[str, Sequence[str]] = RECORDS,
    resolver: Any = None,
    source: dict[str, Any] | None = None,
    ours: str = "",
    chance: random.Random | None = None,
    **path: Any,
) -> TargetWalk:
    """A walk over hosts."""
    plan = Plan(
        "site",
        "site",
        "b.example",
        tuple(host if isinstance(host, Host) else Host(host) for host in hosts),
        looked_up,
    )
    return TargetWalk(
        plan,
        Source.of(attrs.evolve(SourceSettings(name="one"), **(source or {}))),
        attrs.evolve(PathSettings(), **path),
        resolver or FakeResolver(records, {"broken.example": "timed out"}),
        lambda address, port: (str(address), port) == (ours, 25),
        chance,
    )


def targets(made: TargetWalk) -> list[str]:
    """Everything that a walk offers."""
    found = []
    while (target := step(made)) is not None:
        found.append(str(target))
    return found


def step(made: TargetWalk) -> Target | None:
    """The next target of a walk whose resolver answers at once."""
    found: list[Target | None] = []
    Deferred.fromCoroutine(made.next()).addCallback(found.append)
    return found[0]


class OurselvesTests(SynchronousTestCase):
    """An exchanger that is this node (RFC 5321, 5.1)."""

    def test_best(self) -> None:
        """If it is the best, the mail loops, and worse hosts are of no use."""
        made = walk("mx1.example", "mx2.example", ours="2001:db8::1")
        self.assertEqual(targets(made), [])
        verdict = made.summary()
        self.assertTrue(verdict.permanent)
        self.assertEqual((verdict.reply.code, str(verdict.reply.enhanced_code)), (554, "5.4.6"))
        self.assertIn("mx1.example (2001:db8::1) is this node", verdict.reply.content)

    def test_better_hosts(self) -> None:
        """Better hosts are tried; that they fail is not final."""
        made = walk("mx2.example", "mx1.example", "six.example", ours="192.0.2.1")
        self.assertEqual(targets(made), ["mx2.example (192.0.2.2:25)"])
        made.failed(Verdict(Scope.HOST, internal_reply(451, "4.4.1", "it does not answer")))
        self.assertFalse(made.summary().permanent)

    def test_elsewhere(self) -> None:
        """Another port is not this node, and a route is the operator's word."""
        made = walk("mx2.example", ours="192.0.2.2", smtp_port=2525)
        self.assertEqual(len(targets(made)), 1)
        made = walk("mx2.example", ours="192.0.2.2", looked_up=False)
        self.assertEqual(len(targets(made)), 1)


class OrderTests(SynchronousTestCase):
    """What is tried, in which order."""

    def test_host_by_host(self) -> None:
        """All addresses of the best host come before the next host."""
        self.assertEqual(
            targets(walk("mx1.example", "mx2.example")),
            [
                "mx1.example (192.0.2.1:25)",
                "mx1.example ([2001:db8::1]:25)",
                "mx2.example (192.0.2.2:25)",
            ],
        )

    def test_equals_share(self) -> None:
        """Sessions of one plan begin with different ones of the hosts of the same preference, come
        to worse hosts after them, and leave the hosts of a route in their places."""
        chance = random.Random(1)
        hosts = [Host(name, preference=10) for name in ("mx1.example", "mx2.example")]
        hosts.append(Host("six.example", preference=20))
        orders = [targets(walk(*hosts, chance=chance)) for _ in range(100)]
        firsts = Counter(order[0].split()[0] for order in orders)
        self.assertEqual(set(firsts), {"mx1.example", "mx2.example"})
        self.assertGreater(min(firsts.values()), 30)
        self.assertEqual({order[-1].split()[0] for order in orders}, {"six.example"})
        route = [Host(name) for name in ("mx1.example", "mx2.example", "six.example")]
        orders = [targets(walk(*route, looked_up=False, chance=chance)) for _ in range(20)]
        self.assertEqual({tuple(order) for order in orders}, {tuple(targets(walk(*route)))})

    def test_looked_up_when_needed(self) -> None:
        """A host's addresses are not asked for while a better one is being tried."""
        resolver = FakeResolver(RECORDS)
        made = walk("mx1.example", "mx2.example", resolver=resolver)
        step(made)
        self.assertEqual({each.split()[-1] for each in resolver.questions}, {"mx1.example"})
        self.assertTrue(made.more)

    def test_strategy(self) -> None:
        """C{ip_lookup_strategy} orders the families, or leaves one out."""
        four, six = "mx1.example (192.0.2.1:25)", "mx1.example ([2001:db8::1]:25)"
        for strategy, expected in (
            ("Ipv4AndIpv6", [four, six]),
            ("Ipv4ThenIpv6", [four, six]),
            ("Ipv6ThenIpv4", [six, four]),
            ("Ipv4Only", [four]),
            ("Ipv6Only", [six]),
        ):
            self.assertEqual(targets(walk("mx1.example", ip_lookup_strategy=strategy)), expected)

    def test_port(self) -> None:
        """The source's port goes before the route's, and that before the path's."""
        route = Host("192.0.2.1", 2526)
        for facts, expected in (
            ({"smtp_port": 26}, "192.0.2.1:2526"),
            ({"smtp_port": 26, "source": {"remote_port": 27}}, "192.0.2.1:27"),
        ):
            self.assertEqual(targets(walk(route, looked_up=False, **facts)), [expected])
        self.assertEqual(targets(walk("192.0.2.1", smtp_port=26)), ["192.0.2.1:26"])

    def test_the_end(self) -> None:
        """Behind the last host there is nothing, as often as one asks."""
        made = walk("mx2.example")
        targets(made)
        self.assertIsNone(step(made))
        self.assertFalse(made.more)


class PassedOverTests(SynchronousTestCase):
    """What is not tried, and what is said of it."""

    def said(self, made: TargetWalk) -> Verdict:
        """The summary of a walk that offers nothing."""
        self.assertEqual(targets(made), [])
        return made.summary()

    def test_prohibited(self) -> None:
        """A host that was looked up and is this machine ends the message."""
        for text in ("A 127.0.0.1", "A 0.0.0.0", "AAAA ::1", "AAAA ::"):
            verdict = self.said(walk("mx.example", records={"mx.example": [text]}))
            self.assertTrue(verdict.permanent, text)
            self.assertIn("prohibited_hosts", verdict.reply.content)

    def test_prohibited_in_disguise(self) -> None:
        """An IPv4-mapped address is what it stands for, whatever name it came by."""
        for host, records in (
            ("mx.example", {"mx.example": ["AAAA ::ffff:127.0.0.1"]}),
            ("::ffff:127.0.0.1", {}),
        ):
            verdict = self.said(walk(host, records=records))
            self.assertTrue(verdict.permanent)
        made = walk("mx.example", records={"mx.example": ["AAAA ::ffff:192.0.2.1"]})
        self.assertEqual(targets(made), ["mx.example (192.0.2.1:25)"])

    def test_a_route_may_lead_anywhere(self) -> None:
        """C{prohibited_hosts} does not bind the operator's own route."""
        self.assertEqual(targets(walk("127.0.0.1", looked_up=False)), ["127.0.0.1:25"])

    def test_skipped(self) -> None:
        """C{skip_hosts} passes addresses over without ending the message."""
        everything = (ipaddress.ip_network("::/0"),)
        made = walk("mx1.example", "six.example", skip_hosts=everything)
        self.assertEqual(targets(made), ["mx1.example (192.0.2.1:25)"])
        verdict = self.said(walk("six.example", skip_hosts=everything))
        self.assertFalse(verdict.permanent)
        self.assertIn("skip_hosts", verdict.reply.content)

    def test_family(self) -> None:
        """Addresses that the source cannot reach are passed over, and others are tried."""
        source = {"source_address": (ipaddress.ip_address("198.51.100.1"),)}
        made = walk("mx1.example", source=source)
        self.assertEqual(targets(made), ["mx1.example (192.0.2.1:25)"])
        self.assertTrue(made.unsuitable)  # nothing that was offered has failed

    def test_unsuitable(self) -> None:
        """A site of which the source can reach nothing is the source's to give back."""
        source = {"source_address": (ipaddress.ip_address("198.51.100.1"),)}
        for hosts in (("six.example",), ("empty.example", "six.example"), ("broken.example",)):
            made = walk(*hosts, source=source)
            self.said(made)
            self.assertEqual(made.unsuitable, "six.example" in hosts)

    def test_not_unsuitable(self) -> None:
        """Once a host was really tried it is the host's failure."""
        made = walk(
            "mx1.example", source={"source_address": (ipaddress.ip_address("198.51.100.1"),)}
        )
        step(made)
        made.failed(Verdict(Scope.HOST, internal_reply(451, "4.4.1", "refused")))
        self.assertFalse(made.unsuitable)

    def test_words(self) -> None:
        """Each host that gave no address is named with its reason."""
        for host, words in (
            ("empty.example", "empty.example has no address"),
            ("nowhere.example", "nowhere.example has no address"),
            ("broken.example", "timed out"),
        ):
            verdict = self.said(walk(host))
            self.assertIn(words, verdict.reply.content)
            self.assertFalse(verdict.permanent)
        verdict = self.said(walk("six.example", ip_lookup_strategy="Ipv4Only"))
        self.assertIn("ip_lookup_strategy = Ipv4Only", verdict.reply.content)

    def test_impossible_host_name(self) -> None:
        """A host whose name cannot be one is passed over; it ends nothing."""
        verdict = self.said(walk("not a host"))
        self.assertFalse(verdict.permanent)
        self.assertEqual(verdict.reply.code, 451)

    def test_a_resolver_that_breaks(self) -> None:
        """Whatever a look-up raises is temporary."""
        answer: Deferred[Any] = Deferred()
        answer.errback(RuntimeError("a defect"))
        self.assertFalse(self.said(walk("mx1.example", resolver=FixedResolver(answer))).permanent)


class SummaryTests(SynchronousTestCase):
    """What is said of a site of which no host could be used."""

    def refused(self, name: str, **facts: Any) -> Verdict:
        """A host that failed."""
        return Verdict(Scope.HOST, internal_reply(451, "4.4.1", f"{name} refused"), **facts)

    def test_quotes(self) -> None:
        """The last few hosts are quoted, ours as such only once."""
        made = walk("mx1.example")
        for number in range(100):
            made.failed(self.refused(f"mx{number}"))
        content = made.summary().reply.content
        self.assertEqual(content.count(INTERNAL), 1)
        self.assertIn("mx99 refused", content)
        self.assertNotIn("mx95 refused", content)
        self.assertLessEqual(len(content), 1024)

    def test_uncharged(self) -> None:
        """If no host's failure was the destination's, no attempt is charged."""
        made = walk("mx1.example")
        for _ in range(2):
            made.failed(self.refused("mx", charge=False, blame="nobody"))
        verdict = made.summary()
        self.assertEqual((verdict.charge, verdict.blame), (False, "nobody"))

    def test_one_permanent_is_not_all(self) -> None:
        """A message ends only if every host's verdict ends it."""
        made = walk("mx1.example")
        made.failed(self.refused("mx1", permanent=True))
        made.failed(self.refused("mx2"))
        self.assertFalse(made.summary().permanent)


class CancelTests(SynchronousTestCase):
    """A walk whose session is aborted."""

    def test_cancelled(self) -> None:
        """A cancelled look-up ends the walk: it is no failure of the host."""
        made = walk("mx1.example", "mx2.example", resolver=FixedResolver(Deferred()))
        walking = Deferred.fromCoroutine(made.next())
        walking.cancel()
        self.failureResultOf(walking, CancelledError)
        self.assertTrue(made.more)

    def test_late_answer(self) -> None:
        """A walk waits for a late answer."""
        answer: Deferred[Any] = Deferred()
        made = walk("mx1.example", resolver=FixedResolver(answer))
        walking = Deferred.fromCoroutine(made.next())
        self.assertNoResult(walking)
        answer.callback((ipaddress.ip_address("192.0.2.1"),))
        self.assertEqual(str(self.successResultOf(walking)), "mx1.example (192.0.2.1:25)")
