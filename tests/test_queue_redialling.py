"""A host whose TLS fails is called again at once, but never without end."""

from __future__ import annotations

import functools
import itertools
from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    KeyPair,
    PrivateCertificate,
    TLSVersion,
)
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.queue import dialling
from kumotwist.queue.dialling import Call, Dialler
from kumotwist.queue.session import MOST_CALLS
from kumotwist.queue.targets import Target
from kumotwist.queue.verdicts import Scope, Verdict, internal_reply
from kumotwist.tls.client import ClientTrust, client_tls_options
from kumotwist.tls.policy import TLSDemand
from tests.memory_server import MemoryServer
from tests.memory_tls import authority, authority_certificate
from tests.queue_world import World
from tests.test_queue_delivery import ONE_HOST, scripted

HOST = ("192.0.2.1", 25)


def resumable() -> CertificateOptions:
    """A server's context whose sessions can be gone on with."""
    leaf = authority().issue_cert("mx.b.example")
    private = PrivateCertificate.fromCertificateAndKeyPair(
        Certificate.loadPEM(leaf.cert_chain_pems[0].bytes()),
        KeyPair.load(leaf.private_key_pem.bytes(), 1),
    )
    return CertificateOptions(
        privateKey=private.privateKey.original,
        certificate=private.original,
        raiseMinimumTo=TLSVersion.TLSv1_2,
        enableSessions=True,
        enableSessionTickets=True,
    )


class ResumptionCase(SynchronousTestCase):
    """A host with TLS of which a session is kept."""

    def setUp(self) -> None:
        """Trust the tests' authority."""
        trust = ClientTrust([authority_certificate()], system=False)
        trusting = functools.partial(client_tls_options, trust=trust)
        self.patch(dialling, "client_tls_options", trusting)

    def world(self, **path: Any) -> World:
        """A world in which a first message has left a session."""
        world = World(
            {**ONE_HOST, "sender.example": ["A 192.0.2.9"]},
            path={"enable_tls": "Opportunistic", "idle_timeout": 1.0, **path},
        )
        world.sink("192.0.2.9")
        factory = Factory()
        factory.protocol = functools.partial(MemoryServer, resumable())
        world.network.servers[HOST] = factory
        world.inject("c@b.example")
        world.network.pass_time(5)
        self.assertEqual(world.kinds(), ["Delivery"])
        context = world.context
        self.assertEqual(len(context.tls_sessions), 1)
        world.network.connections.clear()
        return world

    def calls(self, world: World) -> int:
        """How often the host was called since then."""
        return sum(host == HOST[0] for host, *_ in world.network.connections)


class UnfitTests(ResumptionCase):
    """A host without REQUIRETLS."""

    def test_unfit_after_resumption(self) -> None:
        """The session is resumed, the host lacks REQUIRETLS: the message is returned at once."""
        world = self.world()
        world.inject("d@b.example", requiretls=True)
        [record] = world.records("Bounce")
        self.assertEqual(record["response"]["code"], 550)
        self.assertEqual(
            record["response"]["enhanced_code"], {"class": 5, "subject": 7, "detail": 30}
        )
        self.assertEqual(self.calls(world), 1)


class FailedHandshakeTests(ResumptionCase):
    """A host that does not finish handshakes any more."""

    def broken(self, world: World) -> None:
        go_ahead = (b"220 hi\r\n", b"250-mx\r\n250 STARTTLS\r\n", b"220 go\r\n", b"")
        world.network.servers[HOST] = scripted(*go_ahead)

    def test_full_handshake(self) -> None:
        """One call goes on with the session, one does without; then the message waits."""
        for value in ("Opportunistic", "Required"):
            world = self.world(enable_tls=value)
            self.broken(world)
            world.inject("d@b.example")
            self.assertEqual(world.kinds(), ["Delivery", "TransientFailure"])
            self.assertEqual(self.calls(world), 2)

    def test_clear(self) -> None:
        """Where that is allowed the third call is in the clear, and there is no fourth."""
        world = self.world(opportunistic_tls_reconnect_on_failed_handshake=True)
        self.broken(world)
        world.inject("d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "TransientFailure"])
        self.assertEqual(self.calls(world), 3)

    def test_host_recovers(self) -> None:
        """A host that only cannot resume gets the message by a full handshake."""
        world = self.world()
        fine = world.network.servers[HOST].protocol
        self.broken(world)
        breaking = world.network.servers[HOST].protocol
        protocols = iter([breaking, fine])
        world.network.servers[HOST].protocol = lambda: next(protocols)()
        world.inject("d@b.example")
        self.assertEqual(world.kinds(), ["Delivery", "Delivery"])
        self.assertEqual(self.calls(world), 2)


class BoundTests(SynchronousTestCase):
    """The bounds themselves."""

    def test_each_demand_is_less(self) -> None:
        """Whatever is demanded, and however often a session is there, it ends after few calls."""
        for flags in itertools.product((False, True), repeat=5):
            attempt, required, verify, waived, reconnect = flags
            demand: TLSDemand | None = TLSDemand(attempt, required, verify, "", waived=waived)
            calls = 0
            while demand is not None:
                calls += 1
                self.assertLessEqual(calls, MOST_CALLS)
                demand = demand.after_failed_handshake(reconnect, resumed=True)

    def test_hard_bound(self) -> None:
        """Even if every call asks for one more, a target is called three times an attempt."""
        calls = []

        async def dial(dialler: Dialler, target: Target, demand: TLSDemand) -> Call:
            calls.append(demand)
            verdict = Verdict(Scope.HOST, internal_reply(451, "4.7.5", "no"))
            return Call(dialler._context.facts(dialler._ready), verdict=verdict, again=demand)

        self.patch(Dialler, "dial", dial)
        world = World(ONE_HOST)
        world.inject("c@b.example")
        self.assertEqual(world.kinds(), ["TransientFailure"])
        self.assertEqual(len(calls), MOST_CALLS)
