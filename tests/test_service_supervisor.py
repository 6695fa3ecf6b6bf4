"""A node of several processes, with processes that only pretend."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher

from kumotwist.egress.health import Hold
from kumotwist.queue.orders import Order, Orders, Whom
from kumotwist.service import Supervisor, supervisor, workers
from kumotwist.service.errors import StartError
from kumotwist.service.listening import ListeningService
from kumotwist.service.orders import WorkerOrders
from kumotwist.service.state import left_over_spools, spool_path
from kumotwist.service.workers import LogLines, worker_command
from kumotwist.spool import Disk
from tests.config_case import ConfigCase
from tests.http_client import Connection
from tests.memory_network import MemoryNetwork
from tests.queue_world import BEGINNING
from tests.spool_support import cut_short, ids_in

CONFIG = """
[kumo]
state_dir = {state}
hostname = mta.example
workers = 2
[listener:main]
listen = 127.0.0.1:2525
tls = none
[http]
listen = 127.0.0.1:8000
"""

PAGE = "# HELP sent x\n# TYPE sent counter\nsent 2\n# HELP open x\n# TYPE open gauge\nopen 1\n"


class PretendedProcess(workers.WorkerProcess):
    """A worker that does what the test says."""

    def spawn(self, reactor: Any, command: Any, sockets: Any, texts: Any) -> None:
        """Keep what a process would be started with."""
        self.command, self.sockets = list(command), list(sockets)
        self.texts = dict(texts)
        self.heard: list[list[Any]] = []
        self.transport = self
        self.pid = 1000 + self.number
        self.channel.send = lambda *message: self.heard.append(list(message))  # type: ignore[method-assign]

    def says(self, subject: str, *rest: Any) -> None:
        """Say something to the supervisor."""
        self.channel._received(subject, json.loads(json.dumps(rest)))

    def end(self, words: str = "exit status 1") -> None:
        """Be gone."""
        self._ended(words, words.startswith("killed"))
        self.done.callback(None)

    def signalProcess(self, signal: str) -> None:
        """Be killed."""
        self.end(f"killed by {signal}")


class SupervisorCase(ConfigCase):
    """A supervisor over a network in memory."""

    def setUp(self) -> None:
        """No process is started."""
        super().setUp()
        self.network = MemoryNetwork()
        self.network.rightNow = BEGINNING
        self.processes: list[PretendedProcess] = []
        self.patch(supervisor, "WorkerProcess", self.make)
        self.patch(ListeningService, "hand_over", lambda service: 77)
        self.log = EventLoggingObserver()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)
        text = CONFIG.format(state=self.directory / "var")
        self.node = Supervisor(self.network, self.load(text))

    def make(self, *arguments: Any) -> PretendedProcess:
        """Make a process that pretends."""
        process = PretendedProcess(*arguments)
        self.processes.append(process)
        return process

    def ready(self) -> None:
        """Start, and let both workers say that they take mail."""
        self.node.startService()
        for process in self.processes:
            process.says("state", "", 3)

    def said(self, words: str) -> bool:
        """Whether the log has these words."""
        formatted = [str(event.get("line", "")) + event["log_format"] for event in self.log
                     if event.get("log_format")]  # fmt: skip
        return any(words in line for line in formatted)

    def page(self) -> Connection:
        """A client of the HTTP listener."""
        factory: Any
        (factory,) = (each[1] for each in self.network.tcpServers if each[0] == 8000)
        return Connection(factory)


class WorkersTests(SupervisorCase):
    """Starting, ending, starting again."""

    def test_start(self) -> None:
        """Each worker is told its number and finds the sockets; then the node says that it runs."""
        self.node.startService()
        orders = [WorkerOrders.parse(one.command[-1]) for one in self.processes]
        self.assertEqual([one.worker for one in orders], [1, 2])
        self.assertEqual(orders[0].sockets, {"[listener:main]": 4})
        self.assertEqual(self.processes[0].sockets, [77])
        self.processes[0].says("state", "", 3)
        self.assertFalse(self.said("listens on"))
        self.processes[1].says("state", "", 4)
        self.assertTrue(self.said("the spool holds 7 messages"))

    def test_cannot_start(self) -> None:
        """A worker that ends by itself before the node runs ends the node."""
        self.node.startService()
        self.processes[0].end()
        self.assertTrue(self.network.hasStopped)

    def test_killed_at_first(self) -> None:
        """A worker that is killed before the node runs is started again; not for ever."""
        self.node.startService()
        for pause in (1, 2, 4):
            self.processes[-1].end("killed by signal 9")
            self.network.advance(pause + 0.1)
        self.assertEqual([one.number for one in self.processes], [1, 2, 2, 2, 2])
        self.assertFalse(self.network.hasStopped)
        self.processes[-1].end("killed by signal 9")
        self.assertTrue(self.network.hasStopped)

    def test_one_configuration(self) -> None:
        """A worker that is started again goes by what the others go by, whatever the file says."""
        self.ready()
        path = self.directory / "kumo.ini"
        first = path.read_text()
        second = first + "[queue:default]\nmax_age = 1h\n# " + "x" * 200_000 + "\n"
        path.write_text(second)
        self.node.reload()
        path.write_text("[kumo]\nhostname = other.example\n")
        self.processes[1].end("killed by signal 9")
        self.network.advance(1.1)
        again = self.processes[-1]
        self.assertEqual(again.texts, {str(path): first})
        for process in (self.processes[0], again):
            pieces = [each[2] for each in process.heard if each[0] == "text"]
            self.assertEqual((len(pieces), "".join(pieces)), (3, second))
        subjects = [each[0] for each in again.heard]
        self.assertLess(subjects.index("reload"), subjects.index("begin"))

    def test_started_again(self) -> None:
        """A worker that ends is started again, each time a little later, and at once again after
        a long life."""
        self.ready()
        for seconds in (1, 2, 4, 8):
            self.processes[-1].end("killed by signal 9")
            self.network.advance(seconds - 0.1)
            before = len(self.processes)
            self.network.advance(0.2)
            self.assertEqual(len(self.processes), before + 1)
        self.network.advance(1000)
        self.processes[-1].end()
        (line,) = [formatEvent(each) for each in self.log if "status 1" in formatEvent(each)]
        self.assertIn("it is started again in 1 s", line)
        self.network.advance(0.9)
        self.assertEqual(len(self.processes), 6)
        self.network.advance(0.2)
        self.assertEqual(len(self.processes), 7)
        self.assertEqual({one.number for one in self.processes[2:]}, {2})

    def test_takeover_cut_short(self) -> None:
        """What a takeover that was killed has left in two spools is in one when workers start,
        with any number of them and whoever took over from whom."""
        state = str(self.directory / "var")
        for source, target in (("spool-2", "spool"), ("spool", "spool-7"), ("spool-7", "spool-2")):
            paths = [os.path.join(state, name) for name in (source, target)]
            for path in paths:
                shutil.rmtree(path, ignore_errors=True)
            ids = {one.id for one in cut_short(Clock(), paths[0], paths[1])}
            self.node.startService()
            self.assertEqual([ids_in(path) for path in paths], [set(), ids])
            for process in self.processes:
                process.end()
            self.processes.clear()
            self.node = Supervisor(self.network, self.node._configuration)

    def test_places(self) -> None:
        """Places are lent to both together, and are free when their holder is gone."""
        self.ready()
        one, other = self.processes
        one.says("limits", ["ask", 1, {"a": 1}])
        other.says("limits", ["ask", 1, {"a": 1}])
        self.assertIn(["limits", ["granted", 1]], one.heard)
        self.assertIn(["limits", ["contested", 1]], one.heard)
        self.assertNotIn(["limits", ["granted", 1]], other.heard)
        one.end()
        self.assertIn(["limits", ["granted", 1]], other.heard)

    def test_suspended_source(self) -> None:
        """What one finds out of a source the others are told, also those that start later."""
        self.ready()
        one, other = self.processes
        hold = Hold("the proxy is gone", 60.0, 5.0, 60.0, 5.0)
        one.says("source", "ip-1", hold)
        self.assertIn(["source", "ip-1", list(hold)], other.heard)
        self.assertNotIn(["source", "ip-1", list(hold)], one.heard)
        other.end()
        self.network.advance(1.5)
        (told,) = [each[2] for each in self.processes[-1].heard if each[0] == "source"]
        self.assertEqual((told.held, told.next_try), (58.5, 3.5))
        self.processes[-1].says("source", "ip-1", None)
        self.assertIn(["source", "ip-1", None], one.heard)
        one.end()
        self.network.advance(1.5)
        self.assertEqual([each for each in self.processes[-1].heard if each[0] == "source"], [])

    def test_orders(self) -> None:
        """A worker that starts is told what has been ordered, also while it was not there and also
        before the node started, and works only then."""
        kept = Order("bounce", Whom(tenant="kept"), "r", BEGINNING + 900, persist=True)
        path = str(self.directory / "var" / "orders.json")
        Orders(self.network, path).add(kept)
        self.patch(time, "time", self.network.seconds)
        self.ready()
        one, other = self.processes
        other.end()
        text = json.dumps({"tenant": "new", "reason": "r", "persist": True}).encode()
        page = self.page().ask(
            "/api/admin/suspend/v1", f"content-length: {len(text)}", method="POST", body=text
        )
        (asked,) = [each for each in one.heard if each[0] == "steer"]
        one.says("steered", asked[1], False, "an-id")
        self.assertEqual(page.status, 200)
        self.assertEqual(json.loads(page.body)["missing_workers"], [2])
        self.network.advance(1.5)
        heard = [each for each in self.processes[-1].heard if each[0] in {"order", "begin"}]
        self.assertEqual(
            [each[1]["whom"] for each in heard[:-1]], [{"tenant": "kept"}, {"tenant": "new"}]
        )
        self.assertEqual(heard[-1], ["begin"])
        again = Orders(self.network, path)
        again.load()
        self.assertEqual(len(again.fields()), 2)

    def test_busy_spool(self) -> None:
        """Every worker's spool is looked at before anything starts."""
        path = spool_path(None, str(self.directory / "var"), 2)
        (self.directory / "var" / "spool-2").parent.mkdir(exist_ok=True)
        (self.directory / "var" / "spool-2").write_text("no directory")
        self.assertIn(path, str(self.assertRaises(StartError, self.node.probe_spool)))


class NodeTests(SupervisorCase):
    """What is the node's and not a worker's."""

    def test_stop(self) -> None:
        """Everybody is told to stop, and waited for; who is told again cuts."""
        self.ready()
        stopping = self.node.stopService()
        for process in self.processes:
            self.assertIn(["stop"], process.heard)
        self.node.hurry()
        self.node.hurry()
        self.assertEqual([one.heard.count(["hurry"]) for one in self.processes], [1, 1])
        self.processes[0].end("exit status 0")
        self.assertNoResult(stopping)
        self.processes[1].end("exit status 0")
        self.successResultOf(stopping)
        self.network.advance(1000)
        self.assertEqual(len(self.processes), 2)

    def test_hanging_worker(self) -> None:
        """A worker that does not end in time is killed."""
        self.ready()
        stopping = self.node.stopService()
        self.network.advance(61)
        self.successResultOf(stopping)

    def test_reload(self) -> None:
        """SIGHUP is done when every worker has done it; a faulty file reaches none of them."""
        self.ready()
        self.node.reload()
        self.processes[0].says("reloaded")
        self.assertFalse(self.said("holds now"))
        self.processes[1].says("reloaded")
        self.assertTrue(self.said("holds now"))
        self.processes[1].says("reloaded")
        (self.directory / "kumo.ini").write_text("[kumo]\nhostnam = x\n")
        self.node.reload()
        self.assertEqual([one.heard.count(["reload"]) for one in self.processes], [1, 1])

    def test_reload_of_what_was_cut_off(self) -> None:
        """A file without what the node was started with reaches no worker."""
        self.ready()
        path = self.directory / "kumo.ini"
        whole = path.read_text()
        for text in ("", "[queue:default]\n", whole.replace("hostname", "# hostname", 1)):
            path.write_text(text)
            self.node.reload()
        self.assertEqual([one.heard.count(["reload"]) for one in self.processes], [0, 0])
        self.assertIn("[kumo] hostname missing", [event.get("lost") for event in self.log])
        path.write_text(whole)
        self.node.reload()
        self.assertEqual([one.heard.count(["reload"]) for one in self.processes], [1, 1])

    def test_reload_without_one(self) -> None:
        """A worker that ends meanwhile is not waited for: it reads the file when it starts."""
        self.ready()
        self.node.reload()
        self.processes[0].says("reloaded")
        self.processes[1].end()
        self.assertTrue(self.said("holds now"))

    def test_liveness(self) -> None:
        """The node takes mail while any worker does."""
        self.node.startService()
        self.assertEqual(self.page().ask("/api/check-liveness/v1").status, 503)
        self.processes[1].says("state", "", None)
        self.assertEqual(self.page().ask("/api/check-liveness/v1").status, 200)

    def test_liveness_without_room(self) -> None:
        """It takes none while there is little room for the spools."""
        self.ready()
        free = self.patch(Disk, "free_space", lambda _, path: 1000)
        answer = self.page().ask("/api/check-liveness/v1")
        self.assertEqual(answer.status, 503)
        self.assertIn(b"1000 bytes are free", answer.body)
        free.restore()
        self.assertEqual(self.page().ask("/api/check-liveness/v1").status, 200)

    def test_numbers(self) -> None:
        """Numbers are the workers' sum; of one that has ended, what it counted remains; one that
        says nothing is not waited for long."""
        self.ready()
        asked = self.node._pages.numbers()
        for process in self.processes:
            self.assertEqual(process.heard[-1], ["numbers", 1])
            process.says("numbers", 1, PAGE)
        text = self.successResultOf(asked)
        self.assertIn("\nsent 4\n", text)
        self.assertIn("\nopen 2\n", text)
        self.processes[0].end()
        asked = self.node._pages.numbers()
        self.assertNoResult(asked)
        self.network.advance(5)
        text = self.successResultOf(asked)
        self.assertIn("\nsent 4\n", text)
        self.assertIn("\nopen 1\n", text)

    def test_trace(self) -> None:
        """Workers tell what happens while somebody watches."""
        self.ready()
        events: list[Any] = []
        end = self.node._pages._trace.subscribe(events.append)
        self.assertEqual(self.processes[0].heard[-1], ["watched", True])
        self.processes[0].says("trace", 1.5, "queued", ["m1"], {"source": "one"})
        self.assertEqual((events[0].event, events[0].message_ids), ("queued", ("m1",)))
        end()
        self.assertEqual(self.processes[1].heard[-1], ["watched", False])


class PartTests(ConfigCase):
    """Smaller things."""

    def test_left_over(self) -> None:
        """Each spool without a worker is one worker's; others' directories are nobody's."""
        for name in ("spool", "spool-2", "spool-3", "spool-4", "spool-05", "spool-x", "other-9"):
            (self.directory / name).mkdir()
        first = str(self.directory / "spool")
        self.assertEqual(left_over_spools(first, 1, 1), [f"{first}-{n}" for n in (2, 3, 4)])
        self.assertEqual(left_over_spools(first, 1, 2), [f"{first}-3"])
        self.assertEqual(left_over_spools(first, 2, 2), [f"{first}-4"])
        self.assertEqual(left_over_spools(first, 1, 4), [])
        self.assertEqual(left_over_spools(str(self.directory / "none" / "spool"), 1, 1), [])

    def test_log_lines(self) -> None:
        """Lines lose their time, come whole, and are never longer than a bound."""
        lines: list[str] = []
        log = LogLines(lines.append)
        log.received(b"2026-11-22T12:00:00+0000 [-] on")
        log.received(b"e\ntwo\nthr")
        log.ended()
        self.assertEqual(lines, ["[-] one", "two", "thr"])
        log.received(b"x" * 100_000)
        self.assertEqual(len(lines), 4)

    def test_command(self) -> None:
        """A worker runs the same program, with the configuration file and its orders."""
        orders = WorkerOrders(2, 3, {"[listener:in]": 4})
        command = worker_command(MemoryNetwork(), "etc/kumo.ini", orders)
        # Before anything that takes time: it must not outlive its supervisor.
        program = command[command.index("-c") + 1]
        self.assertTrue(program.startswith("from kumotwist.tap.parent import end_with_parent; "))
        self.assertEqual(command[-5:-1], ["kumo", "-c", "etc/kumo.ini", "--worker"])
        self.assertEqual(WorkerOrders.parse(command[-1]), orders)
        self.assertRaises(ValueError, WorkerOrders.parse, '{"worker": 1}')
        self.assertRaises(ValueError, WorkerOrders.parse, "nonsense")
