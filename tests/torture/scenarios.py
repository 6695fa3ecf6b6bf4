"""The scenarios: what is broken, and how."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.integration import parts
from tests.integration.configurations import direct, through_haproxy, through_socks5
from tests.integration.processes import Child
from tests.integration.program import start_kumo, twistd
from tests.integration.sink import Act, Session, Sink, start_sink
from tests.integration.waiting import free_port, pause, until
from tests.torture.injection import Injector
from tests.torture.tally import Tally

__all__ = ["ROUNDS", "Torture"]

ROUNDS: dict[str, int] = {}
"""Rounds of each scenario, by the test's name; for what is not named, L{Torture.rounds}."""

_SPEED = "max_retry_interval = 1s\n"

_PROXY_CONFIG = """\
[proxy:torture]
listen = 127.0.0.1:<port>

[proxy-rule:torture]
proxy = torture
clients = 127.0.0.0/8
sources = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow
"""

_HAPROXY = """\
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen out
    bind 127.0.0.1:{port} accept-proxy
    server sink 127.0.0.1:{sink}
"""


class Torture(TestCase):
    """Every message that got its 250 arrives; copies are of what was in flight at a kill."""

    rounds: ClassVar[int] = 4
    seed: ClassVar[int] = 5
    connections: ClassVar[int] = 4
    timeout = 7200

    def setUp(self) -> None:
        self.chance = random.Random(self.seed)
        self.tally = Tally()

    def number_of_rounds(self) -> int:
        """How often to break something."""
        return ROUNDS.get(self._testMethodName, self.rounds)

    def config(self, text: str) -> str:
        """A configuration that tries again soon."""
        return text.replace("[path:default]", f"{_SPEED}\n[path:default]")

    async def run_rounds(
        self,
        sink: Sink,
        port: int,
        a_round: Callable[[], Awaitable[None]],
        *,
        pace: float = 0.0,
        finish: Callable[[], object] = lambda: None,
        settle: float = 240.0,
    ) -> Injector:
        """Break things while mail flows, then wait until everything has arrived, and judge."""
        injector = Injector(port, self.connections, pace)
        self.addCleanup(deferToThread, injector.stop)
        try:
            for _ in range(self.number_of_rounds()):
                await self.collect_for(sink, self.chance.uniform(0.2, 1.2))
                await a_round()
        finally:
            await deferToThread(injector.stop)
        finish()

        def arrived() -> bool:
            self.tally.collect(sink)
            return not self.tally.lost(injector.accepted)

        def lost() -> str:
            lost = self.tally.lost(injector.accepted)
            return f"lost {len(lost)} of {len(injector.accepted)}: {lost[:10]}"

        await until(arrived, lost, settle)
        await self.collect_for(sink, 0.5)
        self.report(injector)
        self.assertGreater(len(injector.accepted), 2 * self.number_of_rounds())
        self.assertEqual(self.tally.mangled, [])
        self.assertEqual(self.tally.unexcused(), [])
        return injector

    async def collect_for(self, sink: Sink, seconds: float) -> None:
        """Let things run, and note arrivals in time."""
        for _ in range(max(1, round(seconds / 0.05))):
            await pause(0.05)
            self.tally.collect(sink)

    def report(self, injector: Injector) -> None:
        """Say what was counted."""
        refused = ", ".join(f"{n} x {code}" for code, n in sorted(injector.refused.items()))
        sys.stderr.write(
            f"\n  {self._testMethodName}: {self.number_of_rounds()} rounds, "
            f"{len(injector.accepted)} accepted, 0 lost, {self.tally.copies} copies, "
            f"all of them in flight at a break; refused: {refused or 'none'}\n"
        )

    async def test_node_killed(self) -> None:
        """The node is killed with SIGKILL at random moments."""
        sink = start_sink(self)
        kumo = await start_kumo(self, self.config(direct(sink.route)))

        async def kill() -> None:
            nonlocal kumo
            self.tally.broken()
            kumo.kill_9()
            await self.collect_for(sink, 0.05)
            kumo = await kumo.restart(self)

        await self.run_rounds(sink, kumo.port, kill)

    async def test_proxy_killed(self) -> None:
        """The proxy between the node and the destination is killed."""
        sink = start_sink(self)
        port = free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        config = directory / "proxy.ini"
        config.write_text(_PROXY_CONFIG.replace("<port>", str(port)), encoding="utf-8")

        def start() -> Child:
            return Child(
                self, "kumoproxy", twistd("kumoproxy", "-c", str(config)), directory=directory
            )

        await self.killed_between(
            sink, start, port, through_socks5(sink.route, port, source="127.0.0.1")
        )

    async def test_haproxy_killed(self) -> None:
        """HAProxy between the node and the destination is killed."""
        haproxy = parts.find("haproxy")
        sink = start_sink(self)
        port = free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        config = directory / "haproxy.cfg"
        config.write_text(_HAPROXY.format(port=port, sink=sink.port), encoding="utf-8")

        def start() -> Child:
            command = [haproxy, "-db", "-f", str(config)]
            return Child(self, "haproxy", command, directory=directory)

        await self.killed_between(sink, start, port, through_haproxy(sink.route, port, "127.0.0.1"))

    async def killed_between(
        self, sink: Sink, start: Callable[[], Child], port: int, config: str
    ) -> None:
        """Kill a proxy, and start it again after a while."""
        proxy = start()
        await proxy.wait_for_listening(port)
        kumo = await start_kumo(self, self.config(config))

        async def kill() -> None:
            nonlocal proxy
            self.tally.broken()
            proxy.kill_9()
            await self.collect_for(sink, self.chance.uniform(0.05, 0.3))
            proxy = start()
            await proxy.wait_for_listening(port)

        await self.run_rounds(sink, kumo.port, kill, pace=0.1)

    async def test_sink_resets(self) -> None:
        """The destination resets connections at random, also after it has taken a message."""
        sink = start_sink(self)

        def answers(session: Session, verb: str, argument: str) -> Act | str | None:
            if self.chance.random() < 0.02:
                self.tally.broken()
                return Act(reset=True)
            return None

        kumo = await start_kumo(self, self.config(direct(sink.route)))
        sink.answers = answers

        async def nothing() -> None:
            if self.chance.random() < 0.2:
                for protocol in list(sink.protocols):
                    self.tally.broken()
                    protocol.transport.abortConnection()

        await self.run_rounds(sink, kumo.port, nothing, pace=0.05)

    async def test_disk_fills(self) -> None:
        """The disk of the spool is filled by something else, and freed; the node is killed then."""
        parts.require_root("a small file system is mounted")
        disk = Path(self.mktemp()).absolute()
        disk.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", str(disk)], check=True)
        sink = start_sink(self)
        config = f"[spool]\npath = {disk}/spool\nmin_free_space = 8MiB\n"
        kumo = await start_kumo(self, self.config(config + direct(sink.route)))
        ballast = disk / "ballast"

        async def fill() -> None:
            nonlocal kumo
            # Sometimes to the brim, sometimes so that only the reserve is left.
            left = 0 if self.chance.random() < 0.5 else 6 << 20
            free = shutil.disk_usage(disk).free - left
            try:
                with ballast.open("wb") as file:
                    for _ in range(max(0, free) >> 16):
                        file.write(bytes(65536))
            except OSError:
                pass
            await self.collect_for(sink, self.chance.uniform(0.2, 1.5))
            ballast.unlink()
            if self.chance.random() < 0.3:
                self.tally.broken()
                kumo.kill_9()
                kumo = await kumo.restart(self)

        await self.run_rounds(sink, kumo.port, fill, pace=0.05)

    async def test_clock_jumps(self) -> None:
        """The wall clock jumps forth and back, by minutes and days, and the node is killed."""
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
        if library is None:
            raise SkipTest("missing: libfaketime (Debian package libfaketime)")
        sink = start_sink(self)
        clock = Path(self.mktemp()).absolute()
        clock.write_text("+0\n", encoding="ascii")
        environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            # It makes threads that wait for each other a hundred times slower.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }
        for name, value in environment.items():
            # Children inherit it; this process has been loaded already.
            self.addCleanup(os.environ.pop, name, None)
            os.environ[name] = value
        kumo = await start_kumo(self, self.config(direct(sink.route)))

        async def jump() -> None:
            nonlocal kumo
            seconds = self.chance.choice([-86400, -3600, -60, 0, 60, 3600, 86400])
            # A jump ahead ends what waits for a reply: that is in flight then.
            self.tally.broken()
            clock.write_text(f"{seconds:+d}\n", encoding="ascii")
            if self.chance.random() < 0.3:
                kumo.kill_9()
                kumo = await kumo.restart(self)

        def finish() -> None:
            # Later than any time at which something was put off.
            clock.write_text("+172800\n", encoding="ascii")

        await self.run_rounds(sink, kumo.port, jump, pace=0.05, finish=finish)
