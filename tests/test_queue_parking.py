"""Many messages and no way out: waiting costs nothing, and its end is no flood."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.suspension import Suspension
from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.parking import LOT, Parking
from kumotwist.queue.waiting import SLEEPING_BEHIND
from kumotwist.settings.types import HostPort
from tests.memory_proxies import MemorySOCKS5
from tests.queue_world import World
from tests.source_case import P1, P2, SITES, TEN_MINUTES, SourceCase


class WaitingTests(SourceCase):
    """Many messages, and no way out."""

    def test_many_messages_cost_nothing(self) -> None:
        """Thousands of messages behind a dead proxy: few connections, a record each, no charge."""
        world = self.world(p1={"socks5_proxy_server": P1})
        self.one.stop()
        for n in range(40):
            world.inject(*(f"x{n}-{each}@b.example" for each in range(50)))
        picked = Counter[str]()
        pick = world.scheduler._rotations.pick

        def counting(*arguments: Any, **wanted: Any) -> str | None:
            picked["picks"] += 1
            return pick(*arguments, **wanted)

        self.patch(world.scheduler._rotations, "pick", counting)
        world.network.pass_time(3600, step=5)
        self.assertLess(self.tried(world), 40)
        self.assertLess(picked["picks"], 100)
        self.assertEqual(world.kinds().count("Delayed"), 2000)
        self.assertEqual(world.scheduler.waiting, 2000)
        self.assert_nothing_charged(world)
        self.one.start()
        world.network.pass_time(400, step=0.5)
        self.assertEqual(len(world.records("Delivery")), 2000)
        self.assert_nothing_charged(world)

    def test_too_old_while_parked(self) -> None:
        """What waits for a source still expires when its time has come."""
        world = World(SITES, sources={"p1": {"socks5_proxy_server": P1}}, queue={"max_age": 3000.0})
        world.inject("x@b.example", sender="")
        world.network.pass_time(3400, step=10)
        self.assertEqual(world.kinds()[-1], "Expiration")
        self.assertEqual(world.scheduler.waiting, 0)

    def test_sleep(self) -> None:
        """Those that are parked behind many others sleep, also after it was looked whether they are
        too old, and they are delivered like the rest."""
        world = self.world(p1={"socks5_proxy_server": P1})
        self.one.stop()
        for n in range(3):
            world.inject(*(f"x{n}-{each}@b.example" for each in range(SLEEPING_BEHIND)))
        for _ in range(2):
            world.network.pass_time(600, step=5)
            _, _, parking = world.scheduler.inside
            asleep = sum(message.asleep is not None for message in parking)
            self.assertGreater(asleep, SLEEPING_BEHIND)
        self.one.start()
        world.network.pass_time(400, step=0.5)
        self.assertEqual(len(world.records("Delivery")), 3 * SLEEPING_BEHIND)

    def test_stop_while_parked(self) -> None:
        """Stopping leaves nothing that would fire."""
        world = self.world(p1={"socks5_proxy_server": P1})
        self.one.stop()
        world.inject("x@b.example")
        self.successResultOf(world.scheduler.stop(30.0))
        self.assertEqual(world.network.getDelayedCalls(), [])

    def test_recipients_split_for_a_probe(self) -> None:
        """Of many recipients of one message only one probes; the others do not wait for it."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES},
            p2={"socks5_proxy_server": P2},
        )
        self.one.stop()
        world.inject("x@b.example", "y@b.example")
        self.one.start()
        self.one.hangs = True
        world.network.pass_time(40)
        world.journal.records.clear()
        world.inject(*(f"x{n}@b.example" for n in range(9)))
        world.inject(*(f"y{n}@b.example" for n in range(9)))
        self.assertEqual(len(world.records("Delivery")), 17)
        world.network.pass_time(61)
        self.assertEqual(len(world.records("Delivery")), 18)
        self.assert_nothing_charged(world)

    def test_probe_does_not_use_an_old_connection(self) -> None:
        """A connection that stood before the proxy failed says nothing of new ones."""
        world = self.world(
            p1={"socks5_proxy_server": P1, "suspend_when_proxy_unhealthy": TEN_MINUTES}
        )
        world.inject("x@b.example")
        self.one.stop()
        world.inject("y@c.example")
        self.assertFalse(world.health.usable("p1"))
        before = self.tried(world)
        world.network.pass_time(40)
        self.assertGreater(self.tried(world), before)

    def test_pool_without_weights(self) -> None:
        """A pool whose sources are all switched off fails for the time being, in KumoMTA's
        words."""
        world = World(SITES, sources={"a": {}}, weights={"a": 0, "unknown": 1})
        (message,) = world.inject("x@b.example")
        (record,) = world.records()
        self.assertEqual((record["type"], record["response"]["code"]), ("TransientFailure", 451))
        self.assertIn(
            "no sources for pool='pool' are eligible for selection", record["response"]["content"]
        )
        self.assertIn(message.id, world.spool.messages)


class ParkingTests(SynchronousTestCase):
    """The end of a hold."""

    def test_not_all_at_once(self) -> None:
        """When a source works again, what waited comes back bit by bit."""
        world = World(SITES)
        back: list[int] = []
        parking = Parking(
            world.network,
            lambda: 0.5,
            is_held=lambda pool: False,
            next_try=lambda pool: 0.0,
            is_too_old=lambda message: False,
            give_back=lambda messages: back.append(len(messages)),
        )
        for n in range(1000):
            parking.park("pool", QueuedMessage(str(n), "", "x@b.example", "b.example", 1, 0, 0))
        self.assertEqual(back, [])
        world.network.pass_time(0.1, step=0.1)
        self.assertEqual((back, len(parking)), ([LOT], 1000 - LOT))
        world.network.pass_time(0.5, step=0.1)
        self.assertEqual((sum(back), len(parking)), (1000, 0))


class ChaosTests(SynchronousTestCase):
    """Proxies that come and go at random."""

    SITES = tuple(f"d{number}.example" for number in range(4))
    SUSPENSIONS = (None, Suspension(60.0), Suspension(60.0, 3, 30.0), Suspension(600.0, 2, 60.0))

    def world(self, dice: random.Random) -> tuple[World, list[MemorySOCKS5]]:
        """Three sources, of which one has two proxies; four sites."""
        servers = [HostPort(f"10.0.0.{number}", 1080) for number in range(1, 5)]
        sources: dict[str, dict[str, Any]] = {
            "a": {"socks5_proxy_server": (servers[0],)},
            "b": {"socks5_proxy_server": (servers[1],)},
            "c": {"socks5_proxy_server": tuple(servers[2:]), "proxy_selection": "balanced"},
        }
        for values in sources.values():
            values["suspend_when_proxy_unhealthy"] = dice.choice(self.SUSPENSIONS)
        records = {name: [f"MX 10 mx.{name}"] for name in self.SITES}
        records |= {f"mx.{name}": [f"A 192.0.2.{n + 1}"] for n, name in enumerate(self.SITES)}
        path = {"idle_timeout": dice.choice([0.5, 30.0]), "connect_timeout": 20.0, "max_ready": 5}
        world = World(records, sources=sources, path=path)
        for number in range(len(self.SITES)):
            world.sink(f"192.0.2.{number + 1}")
        return world, [MemorySOCKS5(world.network, server.host) for server in servers]

    def test_nothing_is_lost_charged_or_stuck(self) -> None:
        """Whatever fails when, in the end each message was delivered once, at no charge."""
        for seed in range(4):
            dice = random.Random(seed)
            world, proxies = self.world(dice)
            sent = 0
            for _ in range(40):
                for proxy in proxies:
                    what = dice.choice(["stop", "vanish", "hang", "start", "start"] + 15 * [""])
                    proxy.hangs = (proxy.hangs and what != "start") or what == "hang"
                    if what in ("stop", "vanish", "start"):
                        getattr(proxy, what)()
                number = dice.choice([0, 1, 1, 5])
                world.inject(*(f"x{sent + n}@{dice.choice(self.SITES)}" for n in range(number)))
                sent += number
                world.network.pass_time(dice.choice([0.5, 3.0, 11.0]), step=0.5)
            for proxy in proxies:
                proxy.hangs = False
                proxy.start()
            world.network.pass_time(200, step=1)
            delivered = world.records("Delivery")
            self.assertEqual(len(delivered), sent, seed)
            self.assertEqual(len({record["recipient"] for record in delivered}), sent, seed)
            self.assertEqual({record["num_attempts"] for record in delivered}, {0}, seed)
            self.assertEqual((world.scheduler.waiting, world.spool.messages), (0, {}), seed)
