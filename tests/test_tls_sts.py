"""MTA-STS: records and policy files, where they are kept, and when they are fetched."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kumotwist.dns import DNSError
from kumotwist.tls.https import MeteredEndpoint
from kumotwist.tls.sts import MAX_AGE, Finding, STSError, STSPolicy, read_policy, read_record
from kumotwist.tls.sts_policies import PolicyProblem, STSPolicies, fetch_policy
from kumotwist.tls.sts_store import KnownPolicy, PolicyStore

FILE = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mx1.b.example\r\nmx: *.b.example\r\nmax_age: 86400\r\n"
)
POLICY = STSPolicy("b.example", "enforce", ("mx1.b.example", "*.b.example"), 86400)


class RecordTests(SynchronousTestCase):
    """The TXT record (RFC 8461, 3.1)."""

    def test_good(self) -> None:
        """The id is read, other records and unknown fields are passed over."""
        for texts in (
            [b"v=STSv1; id=20160831085700Z;"],
            [b"v=STSv1;id=20160831085700Z"],
            [b"v=spf1 -all", b"v=STSv1 ; new=thing; id = 20160831085700Z ;"],
        ):
            self.assertEqual(read_record(texts), "20160831085700Z", texts)

    def test_none(self) -> None:
        """No record, two of them, or one that makes no sense mean that there is no policy."""
        for texts in (
            [], [b"v=spf1 -all"], [b"v=STSv1; id=1;", b"v=STSv1; id=2;"], [b"v=STSv1;"],
            [b"v=STSv2; id=1;"], [b"id=1; v=STSv1;"], [b"v=STSv1; id=;"], [b"v=STSv1; id=a b;"],
            [b"v=STSv1; id=" + b"1" * 33], [b"v=STSv1\xff; id=1"],
        ):  # fmt: skip
            self.assertIsNone(read_record(texts), texts)


class FileTests(SynchronousTestCase):
    """The policy file (RFC 8461, 3.2)."""

    def test_good(self) -> None:
        """Fields in any order, lines ended by CRLF or LF, names in any case."""
        self.assertEqual(read_policy("b.example", FILE), POLICY)
        lines = FILE.split(b"\r\n")
        turned = b"\n".join(reversed(lines)).replace(b"mx1.b", b"MX1.B")
        self.assertEqual(set(read_policy("b.example", turned).hosts), set(POLICY.hosts))
        extended = FILE + b"new: thing\r\nmode: testing\r\n\r\n"
        self.assertEqual(read_policy("b.example", extended), POLICY)
        bare = read_policy("b.example", b"version: STSv1\nmode: none\nmax_age: 99999999999999"[:-4])
        self.assertEqual((bare.mode, bare.hosts, bare.max_age), ("none", (), MAX_AGE))

    def test_bad(self) -> None:
        """Whatever is not a policy is refused."""
        for octets in (
            b"", b"<html>", FILE.replace(b"STSv1", b"STSv2"), FILE.replace(b"enforce", b"force"),
            FILE.replace(b"86400", b"a day"), FILE.replace(b"86400", b"-1"),
            FILE.replace(b"*.b.example", b"mx.*.example"), FILE.replace(b"mx", b"xm"),
            FILE + b"\xff", FILE.replace(b"version", b"mode"), FILE + b" " * 65536,
        ):  # fmt: skip
            self.assertRaises(STSError, read_policy, "b.example", octets)

    @given(st.binary(max_size=300))
    def test_anything(self, octets: bytes) -> None:
        """Any octets are a policy or an L{STSError}."""
        for file in (octets, FILE + octets):
            with contextlib.suppress(STSError):
                read_policy("b.example", file)

    def test_hosts(self) -> None:
        """A wildcard stands for one label."""
        for host in ("mx1.b.example", "other.b.example"):
            self.assertTrue(POLICY.allows(host), host)
        for host in ("b.example", "mx.mx.b.example", "mx1.b.example.org", "example", ""):
            self.assertFalse(POLICY.allows(host), host)


class StoreTests(SynchronousTestCase):
    """L{PolicyStore}."""

    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp())

    def open(self, now: float = 0.0) -> PolicyStore:
        """Open it."""
        store = PolicyStore(self.path)
        store.open(now)
        return store

    def test_restart(self) -> None:
        """Policies are there after a restart, the latest of each domain, until they expire."""
        store = self.open()
        store.put(KnownPolicy(POLICY, "1", 100.0))
        newer = KnownPolicy(STSPolicy("b.example", "testing", ("mx.b.example",), 50), "2", 200.0)
        other = KnownPolicy(STSPolicy("c.example", "enforce", ("mx.c.example",), 1000), "1", 200.0)
        store.put(newer)
        store.put(other)
        store = self.open(210.0)
        self.assertEqual(store.get("b.example", 210.0), newer)
        self.assertIsNone(store.get("b.example", 250.0))
        self.assertEqual(store.get("c.example", 250.0), other)
        store = self.open(250.0)
        self.assertEqual([known.policy.domain for known in store], ["c.example"])

    def test_damaged(self) -> None:
        """Lines that cannot be read are left out, and those from the future."""
        store = self.open()
        store.put(KnownPolicy(POLICY, "1", 100.0))
        with open(self.path, "ab") as stream:
            stream.write(b'{"domain": 1}\nnonsense\n[]\n{"domain":"x","mode":"y"')
        self.assertEqual(len(list(self.open(200.0))), 1)
        self.assertEqual(len(list(self.open(50.0))), 0)

    def test_unwritable(self) -> None:
        """A file that cannot be written costs the memory of policies nothing."""
        store = PolicyStore(os.path.join(self.path, "no", "such", "directory"))
        store.open(0.0)
        store.put(KnownPolicy(POLICY, "1", 100.0))
        self.assertIsNotNone(store.get("b.example", 100.0))

    def test_bounded(self) -> None:
        """Hosts and policies are bounded; what was used least recently goes."""
        store = PolicyStore(os.devnull)
        hosts = tuple(str(number) for number in range(4000))
        for number in range(60):
            policy = STSPolicy(f"{number}.example", "enforce", hosts, 1000)
            store.put(KnownPolicy(policy, "1", 0.0))
        self.assertLessEqual(len(list(store)), 50)
        self.assertIsNone(store.get("0.example", 1.0))
        self.assertIsNotNone(store.get("59.example", 1.0))


class World:
    """DNS and web as the test wants them.

    @ivar record: the TXT record; an exception instead is raised.
    @ivar file: the policy file; an exception is raised, L{None} is silence.
    @ivar fetches: C{(domain, via)} of each fetch.
    """

    def __init__(self, path: str) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.record: bytes | Exception = b"v=STSv1; id=1;"
        self.file: bytes | Exception | None = FILE
        self.fetches: list[tuple[str, str]] = []
        self.lookups = 0
        self.path = path
        self.begin()

    def begin(self) -> None:
        """Start, or start again."""
        self.policies = STSPolicies(self.clock, PolicyStore(self.path), self.lookup, self.fetch)
        self.policies.start()

    async def lookup(self, name: str) -> tuple[bytes, ...]:
        """DNS."""
        assert name.startswith("_mta-sts."), name
        self.lookups += 1
        if isinstance(self.record, Exception):
            raise self.record
        return (self.record,)

    async def fetch(self, domain: str, via: str) -> bytes:
        """The web."""
        self.fetches.append((domain, via))
        if self.file is None:
            self.late: Deferred[bytes] = Deferred()
            return await self.late
        if isinstance(self.file, Exception):
            raise self.file
        return self.file


class PoliciesTests(SynchronousTestCase):
    """L{STSPolicies}."""

    def setUp(self) -> None:
        self.world = World(self.mktemp())
        self.addCleanup(lambda: self.world.policies.stop())

    def find(self) -> Deferred[Finding]:
        """Look for the policy."""
        return self.world.policies.policy("b.example", "pool")

    def assert_found(self, policy: STSPolicy | None, problem: str = "") -> None:
        """What is found, at once."""
        self.assertEqual(self.successResultOf(self.find()), Finding(policy, problem))

    def test_fetched_once(self) -> None:
        """A policy is fetched the way that was named, and again only when its id changes."""
        self.assert_found(POLICY)
        self.assert_found(POLICY)
        self.assertEqual(self.world.fetches, [("b.example", "pool")])
        self.world.record = b"v=STSv1; id=2;"
        self.world.file = FILE.replace(b"enforce", b"testing")
        self.assertIn("'testing'", str(self.successResultOf(self.find())))

    def test_no_record(self) -> None:
        """A domain without a record is not fetched from."""
        self.world.record = b"nothing"
        self.assert_found(None)
        self.assertEqual(self.world.fetches, [])

    def test_dns_failure(self) -> None:
        """A policy that is known holds while DNS fails, also after a restart, until it expires;
        DNS is left alone for a while."""
        self.assert_found(POLICY)
        self.world.record = DNSError("b.example", "SERVFAIL")
        self.world.policies.stop()
        self.world.begin()
        self.assert_found(POLICY)
        lookups = self.world.lookups
        self.assert_found(POLICY)
        self.assertEqual(self.world.lookups, lookups)
        self.world.clock.advance(86401)
        self.assert_found(None)

    def test_silent_dns(self) -> None:
        """While no name server answers at all, mail does not wait for that again and again."""
        self.assert_found(POLICY)
        self.world.record = DNSError("b.example", "timed out", unanswered=True)
        self.world.clock.advance(1)
        self.assert_found(POLICY)
        lookups = self.world.lookups
        for domain in ("c.example", "d.example"):
            found = self.successResultOf(self.world.policies.policy(domain, "pool"))
            self.assertEqual(found, Finding())
        self.assertEqual(self.world.lookups, lookups)
        self.world.clock.advance(301)
        self.world.record = b"v=STSv1; id=1;"
        self.assert_found(POLICY)
        self.assertEqual(self.world.lookups, lookups + 1)

    def test_one_silent_domain(self) -> None:
        """A domain whose own name servers are silent does not keep others from being asked."""
        self.world.record = DNSError("b.example", "SERVFAIL")
        self.assert_found(None)
        self.world.record = b"v=STSv1; id=1;"
        found = self.successResultOf(self.world.policies.policy("c.example", "pool"))
        self.assertIsNotNone(found.policy)

    def test_record_disappears(self) -> None:
        """Whoever takes the record away does not take away what is known (RFC 8461, 5.1)."""
        self.assert_found(POLICY)
        self.world.record = b"nothing"
        self.assert_found(POLICY)

    def test_fetch_fails(self) -> None:
        """A policy that cannot be had is none, and is not asked for again for five minutes; one
        that is known holds on."""
        self.world.file = PolicyProblem("sts-webpki-invalid", "no")
        self.assert_found(None, "sts-webpki-invalid")
        self.assert_found(None, "sts-webpki-invalid")
        self.assertEqual(len(self.world.fetches), 1)
        self.world.clock.advance(301)
        self.world.file = b"nonsense"
        self.assert_found(None, "sts-policy-invalid")
        self.world.clock.advance(301)
        self.world.file = FILE
        self.assert_found(POLICY)
        self.world.record, self.world.file = b"v=STSv1; id=3;", b"nonsense"
        self.assert_found(POLICY, "sts-policy-invalid")

    def test_slow(self) -> None:
        """Mail does not wait long; what comes late serves the next message. Those who ask
        meanwhile share the fetch."""
        self.world.file = None
        first, second = self.find(), self.find()
        self.assertNoResult(first)
        self.world.clock.advance(10)
        finding = Finding(None, "sts-policy-fetch-error")
        self.assertEqual(self.successResultOf(first), finding)
        self.assertEqual(self.successResultOf(second), finding)
        self.world.late.callback(FILE)
        self.assertEqual(len(self.world.fetches), 1)
        self.assert_found(POLICY)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)

    def test_cancelled(self) -> None:
        """One who does not wait any more does not disturb the others."""
        self.world.file = None
        first, second = self.find(), self.find()
        first.addErrback(lambda _: None)
        first.cancel()
        self.world.late.callback(FILE)
        self.assertEqual(self.successResultOf(second), Finding(POLICY))

    def test_refreshed(self) -> None:
        """A policy of a domain that mail goes to is fetched again before it expires, though its id
        is the same; when nobody gives it, the old one holds till its end."""
        self.assert_found(POLICY)
        self.world.clock.pump([3600] * 12)
        self.assertEqual(len(self.world.fetches), 1)
        self.world.clock.pump([3600] * 2)
        self.assertEqual(len(self.world.fetches), 2)
        self.world.clock.pump([3600] * 12)
        self.assert_found(POLICY)
        self.world.file = PolicyProblem("sts-policy-fetch-error", "gone")
        self.world.clock.pump([3600] * 20)
        self.assertEqual(self.successResultOf(self.find()).policy, POLICY)
        self.world.record = b"nothing"
        self.world.clock.pump([3600] * 6)
        self.assert_found(None)

    def test_stop(self) -> None:
        """When the node stops, nothing is left to do."""
        self.world.file = None
        waiting = self.find()
        self.world.policies.stop()
        self.assertEqual(self.successResultOf(waiting), Finding(None))
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


@implementer(IStreamClientEndpoint)
class _Nowhere:
    """An endpoint that fails, or is silent."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure
        self.cancelled = False

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """Fail, or be silent."""

        def cancelled(_: Deferred[Any]) -> None:
            self.cancelled = True

        connecting: Deferred[Any] = Deferred(cancelled)
        if self.failure is not None:
            connecting.errback(Failure(self.failure))
        return connecting


class FetchTests(SynchronousTestCase):
    """L{fetch_policy}; what web servers say is tested with real ones."""

    def fetch(self, reactor: Any, endpoint: _Nowhere) -> Deferred[bytes]:
        """Fetch, noting where from."""
        self.asked: list[tuple[str, int]] = []

        def endpoint_for(host: str, port: int) -> Any:
            self.asked.append((host, port))
            return endpoint

        return Deferred.fromCoroutine(fetch_policy(reactor, "b.example", endpoint_for))

    def test_refused(self) -> None:
        """A server that cannot be reached is a problem with a name."""
        fetching = self.fetch(MemoryReactorClock(), _Nowhere(ConnectionRefusedError()))
        problem = self.failureResultOf(fetching, PolicyProblem).value
        self.assertEqual(problem.result, "sts-policy-fetch-error")
        self.assertEqual(self.asked, [("mta-sts.b.example", 443)])

    def test_silent(self) -> None:
        """A server that is silent is given up."""
        reactor, endpoint = MemoryReactorClock(), _Nowhere(None)
        fetching = self.fetch(reactor, endpoint)
        reactor.advance(30)
        problem = self.failureResultOf(fetching, PolicyProblem).value
        self.assertIn("30 seconds", str(problem))
        self.assertTrue(endpoint.cancelled)
        self.assertEqual(reactor.getDelayedCalls(), [])


class _Wire(StringTransport):
    """A transport that notes how it was closed."""

    aborted = False

    def abortConnection(self) -> None:
        """Close at once."""
        self.aborted = True


class MeterTests(SynchronousTestCase):
    """A server that sends without end."""

    def test_metered(self) -> None:
        """What goes beyond the limit is not handed on, and ends the connection."""
        heard: list[bytes] = []
        protocol = Protocol()
        protocol.dataReceived = heard.append  # type: ignore[method-assign, assignment]
        made: list[Any] = []

        @implementer(IStreamClientEndpoint)
        class Endpoint:
            def connect(self, protocolFactory: Any) -> Deferred[Any]:
                made.append(protocolFactory.buildProtocol(None))
                return succeed(made[0])

        inner = self.successResultOf(
            MeteredEndpoint(Endpoint(), 100).connect(Factory.forProtocol(lambda: protocol))
        )
        self.assertIs(inner, protocol)
        wire = _Wire()
        made[0].makeConnection(wire)
        for _ in range(3):
            made[0].dataReceived(b"x" * 40)
        self.assertEqual(sum(map(len, heard)), 80)
        self.assertTrue(wire.aborted)
