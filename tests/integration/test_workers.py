"""A node of several processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import sys
import threading
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kumotwist.spool import SpoolError
from kumotwist.spool.survey import Survey
from tests.integration.client import message, send_mail_blocking
from tests.integration.configurations import direct
from tests.integration.processes import run
from tests.integration.program import Kumo, kumo_command, start_kumo
from tests.integration.sink import Act, Sink, start_sink
from tests.integration.waiting import free_port, until

BASE = """\
[kumo]
hostname = mta.example.test
state_dir = {state}
workers = 2

[listener:in]
listen = 127.0.0.1:{port}
"""


async def start_node(test: TestCase, config: str, options: list[str] | None = None) -> Kumo:
    """Start a node of two processes and wait until both take mail."""
    kumo = await start_kumo(test, config, base=BASE, wait=False, options=options or [])
    await kumo.wait_for_output("2 workers take mail", 60)
    return kumo


def workers_of(kumo: Kumo) -> dict[int, int]:
    """The process of each worker, by its number: those that were started last."""
    found = re.findall(r"worker (\d+) is process (\d+)", kumo.output())
    return {int(number): int(process) for number, process in found}


def spooled(kumo: Kumo, name: str) -> int:
    """How many messages a spool of the node has."""
    try:
        return Survey(str(kumo.state / name)).count()
    except SpoolError:
        return 0  # it has just been made


def started_again(kumo: Kumo, number: int, before: int) -> bool:
    """Whether a worker is another process than before."""
    return workers_of(kumo)[number] != before


def keep_sending(port: int, label: str, accepted: list[str], stop: threading.Event) -> None:
    """Hand messages in, over a new connection each, until told to stop; note what got its 250."""
    number = 0
    while not stop.is_set():
        address = f"{label}-{number}@example.com"
        number += 1
        with contextlib.suppress(OSError, smtplib.SMTPException):
            send_mail_blocking(port, [address], body=message(address))
            accepted.append(address)


def recipients(sink: Sink) -> Counter[str]:
    """Who got how many messages."""
    return Counter(name for mail in sink.mails for name in mail.recipients)


class WorkersTests(TestCase):
    """C{workers = 2}."""

    def senders(
        self, kumo: Kumo, accepted: list[str], stop: threading.Event
    ) -> list[Deferred[None]]:
        """Several clients at once."""
        return [
            deferToThread(keep_sending, kumo.port, f"s{number}", accepted, stop)
            for number in range(4)
        ]

    async def test_killed_worker(self) -> None:
        """One worker is killed under load, then the other: mail is taken all the same, they are
        started again, with what the node runs though the file is broken by then, whatever was
        accepted arrives, and C{connection_limit} holds for both together all the time."""
        sink = start_sink(self)
        most = 0

        def answers(session: object, verb: str, argument: str) -> Act | None:
            nonlocal most
            most = max(most, len(sink.protocols))
            return Act("250 2.0.0 Taken", delay=0.05) if verb == "BODY" else None

        sink.answers = answers
        config = direct(sink.route).replace("connection_limit = 4", "connection_limit = 3")
        kumo = await start_node(self, config)
        kumo.config_path.write_text("[kumo]\nnonsense\n", encoding="utf-8")
        accepted: list[str] = []
        stop = threading.Event()
        senders = self.senders(kumo, accepted, stop)
        for number in (1, 2):
            await until(
                lambda: min(spooled(kumo, "spool"), spooled(kumo, "spool-2")) > 25,
                "mail for both",
                60,
            )
            before = workers_of(kumo)[number]
            os.kill(before, signal.SIGKILL)
            enough = len(accepted) + 20
            await until(lambda enough=enough: len(accepted) >= enough, "more mail", 60)  # type: ignore[misc]
            await until(partial(started_again, kumo, number, before), "the worker's start", 60)
        stop.set()
        for sender in senders:
            await sender
        await until(
            lambda: set(accepted) <= set(recipients(sink)),
            lambda: f"lost: {sorted(set(accepted) - set(recipients(sink)))[:10]}",
            90,
        )
        self.assertEqual(most, 3)
        copies = sum(count - 1 for count in recipients(sink).values())
        # At each kill: what is under way on three connections, and what they have delivered while
        # a removal waits for a store to be committed with (0.1 s, and 0.05 s for each message).
        self.assertLessEqual(copies, 2 * 3 * 3 + 8, "more copies than can have been in flight")
        self.assertIn("killed by signal 9", kumo.output())

    async def test_other_number(self) -> None:
        """Two workers become one, and one becomes two: mail that waited is delivered, once.
        Without their supervisor they end, so that the next one finds the spools free."""
        port = free_port()
        kumo = await start_node(self, direct(f"[127.0.0.1]:{port}"))
        accepted: list[str] = []
        stop = threading.Event()
        senders = self.senders(kumo, accepted, stop)
        await until(
            lambda: spooled(kumo, "spool") > 3 and spooled(kumo, "spool-2") > 3, "mail in both", 60
        )
        stop.set()
        for sender in senders:
            await sender
        self.assertEqual(await kumo.stop(60), 0)
        self.assertNotIn("Traceback", kumo.output())
        text = kumo.config_path.read_text(encoding="utf-8")
        kumo.config_path.write_text(text.replace("workers = 2", "workers = 1"), encoding="utf-8")
        kumo = await kumo.restart(self)
        await kumo.wait_for_output(
            r"spool-2 has no worker any more: \d+ messages taken over, 0 left"
        )
        self.assertEqual(spooled(kumo, "spool"), len(accepted))
        left = kumo.state / "spool-2"
        await until(lambda: not left.exists(), "the end of the empty spool", 60)
        self.assertEqual(await kumo.stop(60), 0)
        kumo.config_path.write_text(text, encoding="utf-8")
        sink = start_sink(self, port=port)
        kumo = await kumo.restart(self)
        await until(lambda: set(accepted) <= set(recipients(sink)), "every accepted message", 60)
        self.assertEqual(max(recipients(sink).values()), 1)
        await kumo.wait_for_records(len(accepted), type="Delivery")
        pids = workers_of(kumo).values()
        # They need not even run for that.
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            kumo.signal(signal.SIGKILL)
            await until(lambda: not any(map(runs, pids)), "the end of the workers", 60)
        finally:
            for pid in filter(runs, pids):
                os.kill(pid, signal.SIGCONT)
        kumo = await kumo.restart(self)
        self.assertEqual(await kumo.stop(60), 0)

    async def test_orphan(self) -> None:
        """A worker whose supervisor is gone when it begins to start does not start."""
        program = (
            "import socket; from kumotwist.tap.parent import end_with_parent;"
            "ours, theirs = socket.socketpair(); end_with_parent(theirs.fileno()); print('both');"
            "ours.close(); end_with_parent(theirs.fileno()); print('alone')"
        )
        ended = await deferToThread(run, [sys.executable, "-c", program])
        self.assertEqual(ended.returncode, 1)
        self.assertIn("both", ended.stdout)
        self.assertNotIn("alone", ended.stdout)

    async def test_one_node(self) -> None:
        """Numbers, the trace, the records, SIGHUP and the stop are the node's, not a worker's;
        with the other reactor as well."""
        sink = start_sink(self)
        page = free_port()
        config = f"\n[http]\nlisten = 127.0.0.1:{page}\n" + direct(sink.route)
        kumo = await start_node(self, config, ["--reactor=kumo-epoll"])
        self.assertIn("worker 2: [twisted.scripts._twistd_unix.UnixAppLogger#info] reactor class: "
                      "kumotwist.reactor.loop.DirectEPollReactor", kumo.output())  # fmt: skip
        for number in range(20):
            await deferToThread(send_mail_blocking, kumo.port, [f"u{number}@example.com"])
        await sink.wait_for_mails(20)
        await kumo.wait_for_records(20, type="Delivery")
        self.assertIn('total_messages_received{service="esmtp_listener"} 20', await ask(page))
        os.kill(workers_of(kumo)[1], signal.SIGKILL)
        await kumo.wait_for_output("worker 1 ended unasked")
        self.assertIn('total_messages_received{service="esmtp_listener"} 20', await ask(page))
        kumo.signal(signal.SIGHUP)
        await kumo.wait_for_output("the configuration was read again and holds now")
        injected = await deferToThread(
            run,
            kumo_command("inject", "--to", "you@example.com", "--server", f"127.0.0.1:{kumo.port}",
                         "--endpoint", f"http://127.0.0.1:{page}"),
        )  # fmt: skip
        self.assertEqual(injected.returncode, 0, injected.stdout)
        self.assertIn("delivered", injected.stdout)
        other = Kumo(self, kumo.config_path, kumo.state, kumo.port)
        self.assertEqual(await other.wait_for_exit(60), 1)
        self.assertIn("in use", other.output())
        self.assertEqual(await kumo.stop(60), 0)
        self.assertNotIn("Traceback", kumo.output())


def runs(process: int) -> bool:
    """Whether a process is there, and more than its entry in the table."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


async def ask(port: int) -> str:
    """The numbers of a node."""

    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    return await deferToThread(get)
