"""A whole node in memory: how it starts, what it says, and how it stops."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver, StringTransport
from twisted.logger import globalLogPublisher

from kumotwist.journal import Trace
from kumotwist.limits import LimitTable
from kumotwist.message.queued import QueuedMessage, new_id
from kumotwist.service import Node, node, obey_signals
from kumotwist.service.errors import StartError
from kumotwist.service.sharing import Sharing
from kumotwist.spool import Disk, SpoolError, SpoolFullError
from kumotwist.spool.ownership import OwnedDirectory
from kumotwist.testing.spool import MemorySpool
from tests.config_case import ConfigCase
from tests.http_client import Connection
from tests.memory_network import MemoryNetwork
from tests.queue_world import BEGINNING
from tests.spool_support import cut_short, ids_in

CONFIG = """
[kumo]
state_dir = {state}
hostname = mta.example
[listener:main]
listen = 127.0.0.1:2525
tls = none
[http]
listen = 127.0.0.1:8000
[source:one]
source_address = 127.0.0.2
[pool:main]
one = 1
[queue:default]
egress_pool = main
"""

TRIAL = """
route = [127.0.0.1]:2526
[sink:trial]
listen = 127.0.0.1:2526
tls = none
"""


class SlowSpool(MemorySpool):
    """A spool that opens when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Deferred[None] = Deferred()
        self.closed = False

    def open(self) -> Deferred[None]:
        """Later."""
        self.told.addCallback(lambda _: super(SlowSpool, self).open())
        return self.told

    def close(self) -> Deferred[None]:
        """Take note of it."""
        self.closed = True
        return super().close()


class NodeCase(ConfigCase):
    """A node over a network and a spool in memory."""

    def setUp(self) -> None:
        """A network, and an ear for the operator's log."""
        super().setUp()
        self.network = MemoryNetwork()
        self.network.rightNow = BEGINNING
        self.log = EventLoggingObserver()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def node(self, spool: MemorySpool | None = None, more: str = "") -> Node:
        """A node."""
        self.spool = spool or MemorySpool()
        self.patch(node, "SQLiteSpool", lambda _reactor, _settings, **how: self.spool)
        text = CONFIG.format(state=self.directory / "var") + more
        return Node(self.network, self.load(text))

    def started(self, spool: MemorySpool | None = None, more: str = "") -> Node:
        """A node that runs until the test ends."""
        made = self.node(spool, more)
        made.startService()
        return made

    def factory(self, port: int) -> Any:
        """What listens on a port."""
        (found,) = (each[1] for each in self.network.tcpServers if each[0] == port)
        return found

    def greeting(self) -> bytes:
        """What a client hears first."""
        transport = StringTransport()
        protocol = self.factory(2525).buildProtocol(None)
        protocol.makeConnection(transport)
        said: bytes = transport.value()
        return said

    def liveness(self) -> tuple[int, bytes]:
        """What the liveness check says."""
        answer = Connection(self.factory(8000)).ask("/api/check-liveness/v1")
        return answer.status, answer.body

    def lines(self) -> list[str]:
        """What it told the operator when it had started."""
        return [each["line"] for each in self.log if "line" in each]


class StartTests(NodeCase):
    """The start."""

    def test_starts(self) -> None:
        """It greets clients and calls itself live."""
        self.started()
        self.assertTrue(self.greeting().startswith(b"220 mta.example "))
        self.assertEqual(self.liveness()[0], 200)

    def test_little_room(self) -> None:
        """It is not live while less than min_free_space is free, and is again when there is room,
        also when no mail has come meanwhile."""
        self.started()
        asked = []

        def free_space(disk: Disk, path: str) -> int:
            asked.append(path)
            return 64 * 1024 * 1024 - 1

        free = self.patch(Disk, "free_space", free_space)
        status, body = self.liveness()
        self.assertEqual(status, 503)
        self.assertIn(b"67108863 bytes are free, less than the min_free_space", body)
        self.assertEqual(asked, [str((self.directory / "var" / "spool").absolute())])
        free.restore()
        self.assertEqual(self.liveness()[0], 200)

    def test_nothing_before_the_start(self) -> None:
        """Building a node opens nothing."""
        self.node()
        self.assertEqual(self.network.tcpServers, [])

    def test_until_the_spool_is_open(self) -> None:
        """Until the spool is open clients are put off, and nobody is told otherwise."""
        spool = SlowSpool()
        self.started(spool)
        self.assertTrue(self.greeting().startswith(b"421 4.3.2 the node is starting"))
        status, body = self.liveness()
        self.assertEqual(status, 503)
        self.assertIn(b"starting", body)
        self.assertEqual(self.lines(), [])
        spool.told.callback(None)
        self.assertTrue(self.greeting().startswith(b"220 "))
        self.assertEqual(self.liveness()[0], 200)
        self.assertTrue(self.lines())

    def test_spool_in_use(self) -> None:
        """A node on a spool that another one owns does not start, and listens nowhere."""
        owner = OwnedDirectory(str(self.directory.absolute() / "var" / "spool"))
        made = self.node()
        owner.acquire()
        self.addCleanup(owner.release)
        failure = self.assertRaises(StartError, made.startService)
        self.assertIn("in use", str(failure))
        self.assertEqual(self.network.tcpServers, [])

    def test_takeover_cut_short(self) -> None:
        """What a takeover that was killed has left in two spools is in one before any is opened,
        also if it is this node's own that was being emptied."""
        state = self.directory.absolute() / "var"
        for source, target in (("spool-2", "spool"), ("spool", "spool-3")):
            with self.subTest(source):
                shutil.rmtree(state, ignore_errors=True)
                state.mkdir()
                paths = [str(state / name) for name in (source, target)]
                ids = {one.id for one in cut_short(Clock(), paths[0], paths[1])}
                self.started(SlowSpool())
                self.assertEqual([ids_in(path) for path in paths], [set(), ids])

    def test_worker_started_again(self) -> None:
        """A worker that is started again ends the takeover that it was killed in, and looks at no
        spool that another worker has."""
        state = self.directory.absolute() / "var"
        state.mkdir()
        source, target, other = (str(state / name) for name in ("spool-4", "spool-2", "spool"))
        ids = {one.id for one in cut_short(Clock(), source, target)}
        owner = OwnedDirectory(other)
        owner.acquire()
        self.addCleanup(owner.release)
        self.patch(node, "SQLiteSpool", lambda _reactor, _settings, **how: SlowSpool())
        configuration = self.load(CONFIG.format(state=state))
        sharing = Sharing(2, 2, LimitTable(self.network.seconds), Trace(self.network))
        Node(self.network, configuration, sharing).startService()
        self.assertEqual([ids_in(path) for path in (source, target)], [set(), ids])

    def test_spool_cannot_be_opened(self) -> None:
        """A spool that fails later ends the process, with the reason in the log."""
        spool = SlowSpool()
        self.started(spool)
        spool.told.errback(SpoolError("the database is damaged"))
        self.assertTrue(self.network.hasStopped)
        reasons = [each["reason"] for each in self.log if each["log_level"].name == "critical"]
        self.assertEqual(reasons, ["the database is damaged"])

    def test_disk_full(self) -> None:
        """While the spool cannot be written it is not live, and becomes live by itself."""
        self.started()
        self.spool.break_down(SpoolFullError("disk full"))
        self.assertEqual(self.liveness()[0], 503)
        self.spool.repair()
        self.assertEqual(self.liveness()[0], 200)


class OrdersTests(NodeCase):
    """Orders that survive a restart, and one that comes during the start."""

    def post(self, tenant: str) -> int:
        """Suspend a tenant for good measure; the status of the answer."""
        order = {"tenant": tenant, "reason": "r", "duration": "1h", "persist": True}
        text = json.dumps(order).encode()
        answer = Connection(self.factory(8000)).ask(
            "/api/admin/suspend/v1", f"content-length: {len(text)}", method="POST", body=text
        )
        return answer.status

    def test_order_during_start(self) -> None:
        """An order that is given before the spool is open is kept beside those of before."""
        self.patch(time, "time", self.network.seconds)
        self.started()
        self.assertEqual(self.post("before"), 200)
        self.network.tcpServers.clear()
        self.started(SlowSpool())
        self.assertEqual(self.post("during"), 200)
        kept = json.loads((self.directory / "var" / "orders.json").read_text())
        self.assertEqual([each["whom"]["tenant"] for each in kept], ["before", "during"])


class StopTests(NodeCase):
    """The end."""

    def test_stops(self) -> None:
        """An idle node stops at once."""
        made = self.started()
        self.successResultOf(made.stopService())
        self.assertFalse(made.running)

    def test_stopped_while_it_starts(self) -> None:
        """A node that is stopped while its spool opens never greets, and closes the spool."""
        spool = SlowSpool()
        made = self.started(spool)
        stopping = made.stopService()
        spool.told.callback(None)
        self.successResultOf(stopping)
        self.assertTrue(spool.closed)
        self.assertEqual(self.lines(), [])
        self.assertTrue(self.greeting().startswith(b"421 "))

    def busy(self) -> StringTransport:
        """A client in the middle of a message."""
        protocol = self.factory(2525).buildProtocol(None)
        transport = AbortableTransport(protocol)
        protocol.makeConnection(transport)
        protocol.dataReceived(
            b"EHLO c.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\nx"
        )
        return transport

    def test_waits_for_a_message(self) -> None:
        """A message that is being handed in is waited for, but not for ever."""
        made = self.started()
        self.busy()
        stopping = made.stopService()
        self.network.advance(node.STOP_PATIENCE - 1)
        self.assertNoResult(stopping)
        self.network.advance(2)
        self.successResultOf(stopping)

    def test_hurried(self) -> None:
        """Who is told again to stop waits for nothing; a third time makes no difference."""
        made = self.started()
        self.busy()
        stopping = made.stopService()
        self.assertNoResult(stopping)
        made.hurry()
        made.hurry()
        self.successResultOf(stopping)

    def test_hurried_at_once(self) -> None:
        """Two signals in one moment: it stops as if the second had come later."""
        made = self.started()
        self.busy()
        made.hurry()
        stopping = made.stopService()
        self.network.advance(0)
        self.successResultOf(stopping)


class AbortableTransport(StringTransport):
    """A transport that is gone when it is told to."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol

    def abortConnection(self) -> None:
        """Tell the protocol."""
        self.protocol.connectionLost(connectionDone)


class SignalTests(NodeCase):
    """SIGTERM and SIGINT."""

    def test_first_and_second(self) -> None:
        """The first stops the reactor, the others hurry what stops with it."""
        handlers: dict[int, Any] = {}
        self.patch(signal, "signal", handlers.__setitem__)
        reactor, hurried = StoppableReactor(), []
        read_again: list[bool] = []
        obey_signals(
            reactor,
            hurry=lambda: hurried.append(True),
            reload=lambda: read_again.append(True),
        )
        self.assertEqual(handlers, {signal.SIGHUP: signal.SIG_IGN})
        reactor.run()
        handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual((reactor.stopped, read_again), (False, [True]))
        handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.assertEqual((reactor.stopped, hurried), (True, []))
        handlers[signal.SIGINT](signal.SIGINT, None)
        self.assertEqual(hurried, [True])


class StoppableReactor:
    """What of a reactor has to do with its end."""

    def __init__(self) -> None:
        self.starting: list[Any] = []
        self.stopped = False

    def callWhenRunning(self, call: Any) -> None:
        """Keep it."""
        self.starting.append(call)

    def run(self) -> None:
        """Call what was kept."""
        for call in self.starting:
            call()

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        """Call it."""
        call(*arguments)

    def stop(self) -> None:
        """Once only, as the real one."""
        if self.stopped:
            raise ReactorNotRunning()
        self.stopped = True


class AnnouncementTests(NodeCase):
    """What it says when it has started."""

    def test_plain(self) -> None:
        """What listens where, how mail leaves, and what to try."""
        self.started()
        text = "\n".join(self.lines())
        self.assertIn("[listener:main] listens on ", text)
        self.assertIn("[http] listens on ", text)
        self.assertIn("pool main: one directly from 127.0.0.2", text)
        self.assertIn("inject --to you@example.com", text)
        self.assertNotIn("TRIAL", text)
        self.assertNotIn("unspecified", text)
        self.assertNotIn("the spool holds", text)

    def test_trial(self) -> None:
        """What is a trial setting is said as such."""
        self.started(more=TRIAL)
        trial = [line for line in self.lines() if line.startswith("TRIAL")]
        self.assertEqual(len(trial), 2)
        self.assertIn("[sink:trial]", trial[0])
        self.assertIn("[127.0.0.1]:2526", trial[1])

    def test_proxies(self) -> None:
        """A way through a proxy names it; a pool without weights has no source."""
        self.started(
            more="[source:p]\nsocks5_proxy_server = 10.0.5.10:5000\n"
            "socks5_proxy_source_address = 10.0.0.1\n"
            "[pool:far]\np = 1\n[pool:off]\np = 0\n"
        )
        text = "\n".join(self.lines())
        self.assertIn("p through socks5 10.0.5.10:5000 from 10.0.0.1", text)
        self.assertIn("pool off: no source is on", text)

    def test_waiting(self) -> None:
        """Mail that the spool has kept is counted."""
        first = self.started()
        self.successResultOf(first.stopService())
        message = QueuedMessage(
            id=new_id(BEGINNING), sender="", recipient="c@b.example", queue="b.example",
            size=1, created=BEGINNING, due=BEGINNING + 900,
        )  # fmt: skip
        kept = MemorySpool()
        kept.open()
        kept.store(b"x", [message])
        self.network.tcpServers.clear()
        self.started(kept.after_crash())
        self.assertTrue(any("the spool holds 1 message" in line for line in self.lines()))
