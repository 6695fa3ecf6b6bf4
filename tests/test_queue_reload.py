"""Another configuration while mail waits and is under way."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.settings import PathPattern, PathTable, SourceSettings
from kumotwist.egress.source import Source
from kumotwist.queue.change import Change
from kumotwist.queue.settings import QueuePattern, QueueTable, SmartHost
from kumotwist.settings.layers import Rule
from kumotwist.settings.types import parse_rate
from tests.queue_world import BEGINNING, World

RECORDS = {"b.example": ["MX 10 mx.b.example"], "mx.b.example": ["A 192.0.2.1"]}
LATER = "451 4.3.2 later"

Values = Mapping[str, Mapping[str, Any]]

ONE = {"source_address": (ipaddress.ip_address("10.0.0.1"),)}
TWO = {"source_address": (ipaddress.ip_address("10.0.0.2"),)}


def queue_table(values: Values) -> QueueTable:
    """The table of C{[queue:PATTERN]} sections; the pool is C{pool} where they do not say."""
    values = {**values, "default": {"egress_pool": "pool", **values.get("default", {})}}
    return QueueTable(Rule(QueuePattern.parse(name), one) for name, one in values.items())


def path_table(values: Values) -> PathTable:
    """The table of C{[path:PATTERN]} sections."""
    values = {**values, "default": {"enable_tls": "Disabled", **values.get("default", {})}}
    return PathTable(Rule(PathPattern.parse(name), one) for name, one in values.items())


class ReloadCase(SynchronousTestCase):
    """A world whose configuration becomes another one."""

    def setUp(self) -> None:
        self.queues: Values = {}
        self.paths: Values = {}

    def world(
        self,
        sources: dict[str, dict[str, Any]],
        queues: Values | None = None,
        paths: Values | None = None,
    ) -> World:
        """A world with these sources and sections."""
        world = World(RECORDS, sources=sources)
        self.reload(world, queues=queues, paths=paths)
        return world

    def reload(
        self,
        world: World,
        *,
        sources: Values | None = None,
        queues: Values | None = None,
        paths: Values | None = None,
    ) -> None:
        """Go by other settings; what is not given stays."""
        before, old_queues, old_paths = dict(world.sources), self.queues, self.paths
        self.queues = self.queues if queues is None else queues
        self.paths = self.paths if paths is None else paths
        if sources is not None:
            world.sources.clear()
            for name, values in sources.items():
                settings = attrs.evolve(SourceSettings(name=name), **dict(values))
                stays = name in before and before[name].settings == settings
                world.sources[name] = before[name] if stays else Source.of(settings)
            weights = dict.fromkeys(sources, 1)
            world.rotations.follow({pool: tuple(weights.items()) for pool in ("pool", "other")})
        new_queues, new_paths = queue_table(self.queues), path_table(self.paths)
        change = Change(
            [name for name in before if world.sources.get(name) is not before[name]],
            queue_table(old_queues),
            new_queues,
            path_table(old_paths),
            new_paths,
        )
        world.queues.adopt(new_queues)
        world.paths.adopt(new_paths)
        world.scheduler.reconfigure(change)
        world.network.settle()

    def from_where(self, world: World) -> list[str]:
        """The addresses that connections came from, in their order."""
        return [bind[0] for _, _, bind in world.network.connections]

    def wait(self, world: World, seconds: float) -> None:
        """Let time pass, step by step."""
        for _ in range(int(seconds)):
            world.network.advance(1)
            world.network.settle()


class SourceTests(ReloadCase):
    """Sources come and go."""

    def test_removed(self) -> None:
        """A source that is removed finishes what it is doing; its waiting mail takes another."""
        world = self.world({"one": ONE}, paths={"default": {"connection_limit": 1}})
        world.sink("192.0.2.1", delay=3.0)
        for number in range(4):
            world.inject(f"u{number}@b.example")
        self.assertEqual(self.from_where(world), ["10.0.0.1"])
        self.reload(world, sources={"two": TWO})
        self.assertEqual(self.from_where(world), ["10.0.0.1", "10.0.0.2"])
        self.wait(world, 40)
        self.assertEqual(self.from_where(world), ["10.0.0.1", "10.0.0.2"])
        by_source = [each["egress_source"] for each in world.records("Delivery")]
        self.assertEqual(sorted(by_source), ["one", "two", "two", "two"])
        self.assertEqual(world.kinds(), ["Delivery"] * 4)
        self.successResultOf(world.scheduler.stop(1))

    def test_idle_connection(self) -> None:
        """A connection of a removed source that waits for mail ends."""
        world = self.world({"one": ONE})
        factory = world.sink("192.0.2.1")
        world.inject("a@b.example")
        self.assertEqual(len(factory.sessions), 1)
        self.reload(world, sources={"two": TWO})
        self.assertEqual(len(factory.sessions), 0)

    def test_other_way(self) -> None:
        """A source whose settings change leaves the new way from the next connection on."""
        world = self.world({"one": ONE}, paths={"default": {"connection_limit": 1}})
        world.sink("192.0.2.1", delay=3.0)
        world.inject("a@b.example")
        world.inject("b@b.example")
        self.reload(world, sources={"one": TWO})
        self.wait(world, 20)
        self.assertEqual(self.from_where(world), ["10.0.0.1", "10.0.0.2"])
        self.assertEqual(world.kinds(), ["Delivery"] * 2)

    def test_failing_while_removed(self) -> None:
        """What a connection that is being made by a removed source carries finds another one."""
        world = self.world({"one": ONE})
        world.network.servers["192.0.2.1", 25] = None  # silence
        world.inject("a@b.example")
        self.reload(world, sources={"two": TWO})
        world.sink("192.0.2.1")
        self.wait(world, 2000)
        self.assertEqual(world.kinds()[-1], "Delivery")
        self.assertEqual(self.from_where(world)[0], "10.0.0.1")
        self.assertEqual(self.from_where(world)[-1], "10.0.0.2")
        self.assertEqual(world.scheduler._ready._retired, set())

    def test_held_mail_gets_another_source(self) -> None:
        """Mail that waits since every source is held goes out by one that is added."""
        world = self.world({"one": ONE})
        world.sink("192.0.2.1")
        world.health.failed("one", "broken")
        world.inject("a@b.example")
        self.assertEqual(world.kinds(), ["Delayed"])
        self.reload(world, sources={"one": ONE, "two": TWO})
        self.wait(world, 1)
        self.assertEqual(world.kinds(), ["Delayed", "Delivery"])
        self.assertEqual(self.from_where(world), ["10.0.0.2"])
        self.assertFalse(world.health.usable("one"), "what is known of it stays")

    def test_nothing_changes(self) -> None:
        """To read the same again ends no connection and moves no mail."""
        world = self.world({"one": ONE, "two": TWO})
        factory = world.sink("192.0.2.1")
        world.inject("a@b.example")
        world.inject("b@b.example")
        self.assertEqual(len(factory.sessions), 2)
        self.reload(world, sources={"one": ONE, "two": TWO}, queues=dict(self.queues))
        self.assertEqual(len(factory.sessions), 2)
        world.inject("a@b.example")
        self.assertEqual(self.from_where(world), ["10.0.0.1", "10.0.0.2"])


class QueueTests(ReloadCase):
    """Queues and paths."""

    def test_connection_limit(self) -> None:
        """A higher limit opens connections for mail that waits; a lower one closes idle ones, and
        busy ones when they have done what they do."""
        world = self.world({"one": ONE}, paths={"default": {"connection_limit": 1}})
        factory = world.sink("192.0.2.1", delay=5.0)
        for number in range(200):
            world.inject(f"u{number}@b.example")
        self.assertEqual(len(factory.sessions), 1)
        self.reload(world, paths={"default": {"connection_limit": 3}})
        self.assertEqual(len(factory.sessions), 3)
        self.reload(world, paths={"default": {"connection_limit": 2}})
        self.assertEqual(len(factory.sessions), 3)
        self.wait(world, 6)
        self.assertEqual(len(factory.sessions), 2)
        self.wait(world, 600)
        self.assertEqual(world.kinds(), ["Delivery"] * 200)
        self.assertEqual(world.limits.held("connections one->mx.b.example"), 0)

    def test_lower_limit_for_idle_connections(self) -> None:
        """Connections that only wait are closed at once if they are too many."""
        world = self.world({"one": ONE}, paths={"default": {"idle_timeout": 500.0}})
        factory = world.sink("192.0.2.1", delay=1.0)
        for number in range(60):
            world.inject(f"u{number}@b.example")
        self.wait(world, 30)
        self.assertGreater(len(factory.sessions), 4)
        self.reload(world, paths={"default": {"idle_timeout": 500.0, "connection_limit": 2}})
        self.assertEqual(len(factory.sessions), 2)

    def test_additional_limit(self) -> None:
        """A limit that several paths share applies at once to connections that wait for it."""
        shared = {"default": {"additional_connection_limits": (("shared", 1),)}}
        world = self.world({"one": ONE}, paths=shared)
        factory = world.sink("192.0.2.1", delay=5.0)
        for number in range(100):
            world.inject(f"u{number}@b.example")
        self.assertEqual(len(factory.sessions), 1)
        self.reload(world, paths={"default": {"additional_connection_limits": (("shared", 4),)}})
        self.assertEqual(len(factory.sessions), 4)

    def test_route(self) -> None:
        """Mail that waits for a connection goes where its queue leads now."""
        world = self.world({"one": ONE}, paths={"default": {"connection_limit": 1}})
        world.sink("192.0.2.1", delay=5.0)
        factory = world.sink("192.0.2.9", 2525)
        for number in range(3):
            world.inject(f"u{number}@b.example")
        self.reload(world, queues={"b.example": {"route": (SmartHost("192.0.2.9", 2525),)}})
        self.assertEqual(len(factory.sessions), 1)
        self.wait(world, 10)
        hosts = sorted(each["peer_address"]["addr"] for each in world.records("Delivery"))
        self.assertEqual(hosts, ["192.0.2.1", "192.0.2.9", "192.0.2.9"])

    def test_retry_schedule(self) -> None:
        """What waits for its next attempt goes by the new schedule at once, and back again."""
        world = self.world({"one": ONE})
        world.sink("192.0.2.1", refuse=None)
        world.network.servers["192.0.2.1", 25] = ConnectionRefusedError
        (message,) = world.inject("a@b.example")
        self.assertEqual(message.due, BEGINNING + 1200)
        self.reload(world, queues={"default": {"retry_interval": 60.0}})
        self.assertEqual(message.due, BEGINNING + 60)
        self.wait(world, 61)
        self.assertEqual(len(world.records("TransientFailure")), 2)
        self.assertEqual(message.due, BEGINNING + 60 + 120)
        self.reload(world, queues={"b.example": {"retry_interval": 1800.0}})
        self.assertEqual(message.due, BEGINNING + 60 + 3600)
        self.reload(world, queues={"default": {"max_age": 600.0}})
        self.assertEqual(message.due, BEGINNING + 600)

    def test_many_wait(self) -> None:
        """However many wait, each turn of the reactor looks at some of them."""
        world = self.world({"one": ONE})
        world.network.servers["192.0.2.1", 25] = ConnectionRefusedError
        messages = []
        for number in range(1300):
            messages += world.inject(f"u{number}@b.example")
        waiting = world.scheduler.waiting
        self.assertGreater(waiting, 1000)
        self.reload(world, queues={"default": {"retry_interval": 2400.0}})
        world.network.advance(0)
        self.assertEqual(world.scheduler.waiting, waiting)
        self.assertGreaterEqual(min(message.due for message in messages), BEGINNING + 2370)


class LimitTests(ReloadCase):
    """Limits that are changed while mail waits for them."""

    def test_rates(self) -> None:
        """A raised C{max_message_rate}, of a path or of a queue, holds at once."""
        slow, fast = parse_rate("1/day"), parse_rate("1000/s")
        for kind in ("paths", "queues"):
            values = {"default": {"max_message_rate": slow}}
            world = self.world({"one": {}}, **{kind: values})
            world.sink("192.0.2.1")
            for number in range(5):
                world.inject(f"x{number}@b.example")
            self.assertEqual(len(world.records("Delivery")), 1, kind)
            self.reload(world, **{kind: {"default": {"max_message_rate": fast}}})
            world.network.pass_time(1.0, step=0.1)
            self.assertEqual(len(world.records("Delivery")), 5, kind)
            self.queues, self.paths = {}, {}

    def test_max_ready(self) -> None:
        """A raised C{max_ready} makes room for who waited for it, at once."""
        world = self.world({"one": {}}, paths={"default": {"max_ready": 2}})
        world.scheduler.pause()
        for number in range(10):
            world.inject(f"x{number}@b.example")
        self.assertEqual(world.scheduler.waiting, 8)
        self.reload(world, paths={"default": {"max_ready": 100}})
        world.network.pass_time(1.0, step=0.1)
        self.assertEqual(world.scheduler.waiting, 0)
