"""The first use case on machines of their own: two MTAs, one proxy that owns the address, one MX.

The MTAs reach nothing but the proxy, whose machine forwards nothing; so what arrives has gone
through it.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from pathlib import Path

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.client import message, send_mail_blocking
from tests.integration.configurations import through_socks5
from tests.integration.processes import Child
from tests.integration.program import Kumo, start_kumo, twistd
from tests.integration.sink import Act, Sink, start_sink
from tests.integration.waiting import accepts_connections, greets, until
from tests.netns.namespaces import Machines, on

SHARED = "203.0.113.9"
MX = "203.0.113.25"
LIMIT = 2
EACH = 8

PROXY = f"""\
[proxy:main]
listen = 0.0.0.0:5000
max_connections_per_source = {LIMIT}

[proxy-rule:the-shared-address]
clients = 10.99.0.0/16
sources = {SHARED}
action = allow

[proxy-rule:nothing-else]
action = deny
"""

BASE = """\
[kumo]
hostname = mta.example.test
state_dir = {state}

[listener:in]
listen = 127.0.0.1:2525
"""


class SharedAddressTests(TestCase):
    """Four machines: C{mta1} and C{mta2}, C{proxy} with the shared address, C{mx}."""

    timeout = 180.0

    def setUp(self) -> None:
        """Lay the cables: the MTAs to the proxy, the proxy to the mail host."""
        machines = Machines(self)
        self.mtas = [machines.add("mta1"), machines.add("mta2")]
        self.proxy, self.mx = machines.add("proxy"), machines.add("mx")
        for number, mta in enumerate(self.mtas, 1):
            machines.join(mta, f"10.99.{number}.2/24", self.proxy, f"10.99.{number}.1/24")
        machines.join(self.proxy, "203.0.113.1/24", self.mx, f"{MX}/24")
        machines.give(self.proxy, f"{SHARED}/32")

    def start_mx(self) -> Sink:
        """Start the mail host, on port 25; it greets slowly enough that connections overlap."""

        def listen() -> socket.socket:
            return socket.create_server((MX, 25))

        sink = start_sink(self, handle=on(self.mx, listen), host=MX, port=25)
        sink.always("EHLO", Act("250 mx.example.test", delay=0.2))
        return sink

    async def start_proxy(self) -> Child:
        """Start the proxy on its machine."""
        path = Path(self.mktemp()).absolute()
        path.write_text(PROXY, encoding="utf-8")
        command = [*_at(self.proxy), *twistd("kumoproxy", "-c", str(path))]
        child = Child(self, "kumoproxy", command)

        def ready() -> bool:
            return on(self.proxy, partial(accepts_connections, "127.0.0.1", 5000))

        await until(ready, lambda: str(child.complain("does not listen")), 30)
        return child

    async def start_mta(self, number: int) -> Kumo:
        """Start an MTA on its machine; it wants four connections at once."""
        config = through_socks5(f"[{MX}]:25", f"10.99.{number}.1:5000", source=SHARED)
        config += "max_deliveries_per_connection = 1\n"
        machine = self.mtas[number - 1]
        kumo = await start_kumo(self, config, base=BASE, wait=False, prefix=_at(machine))

        def ready() -> bool:
            return on(machine, partial(greets, "127.0.0.1", 2525))

        await until(ready, lambda: str(kumo.complain("does not greet")), 30)
        return kumo

    def send(self, number: int, messages: int) -> None:
        """Hand messages to an MTA, from its own machine; blocks."""
        for index in range(messages):
            body = message(f"no {index} of {number}")
            on(self.mtas[number - 1], partial(send_mail_blocking, 2525, body=body))

    async def test_shared(self) -> None:
        """Both deliver from the shared address, the limit holds for both together, and when one is
        killed the other goes on; what the killed one had is delivered when it is back."""
        sink = self.start_mx()
        for machine in self.mtas:
            with self.assertRaises(OSError) as caught:
                on(machine, partial(socket.create_connection, (MX, 25), timeout=5))
            self.assertEqual(caught.exception.errno, errno.ENETUNREACH)
        await self.start_proxy()
        one, two = [await self.start_mta(number) for number in (1, 2)]
        most = 0

        def arrived() -> int:
            nonlocal most
            most = max(most, sum(not session.closed for session in sink.sessions))
            return len(sink.mails)

        await gatherResults([deferToThread(self.send, number, EACH) for number in (1, 2)])
        await until(lambda: arrived() >= 2 * EACH, "all messages of both", 60)
        self.assertEqual(most, LIMIT)
        for kumo in (one, two):
            records = await kumo.wait_for_records(EACH, type="Delivery")
            self.assertEqual({record["num_attempts"] for record in records}, {0})
            used = {record["source_address"]["address"].partition(":")[0] for record in records}
            self.assertEqual(used, {SHARED})

        earlier = len(sink.sessions)
        sink.answer("MAIL", Act(hang=True))
        await deferToThread(self.send, 1, 1)

        def under_way() -> bool:
            return any("MAIL" in " ".join(one.lines) for one in sink.sessions[earlier:])

        await until(under_way, "a transaction of the one that will be killed")
        one.kill_9()
        await deferToThread(self.send, 2, EACH)
        await until(lambda: arrived() >= 3 * EACH, "the messages of the other", 60)
        again = await self.start_again(one)
        await until(lambda: arrived() >= 3 * EACH + 1, "what the killed one had", 60)
        await again.wait_for_records(EACH + 1, type="Delivery")
        self.assertEqual({session.peer for session in sink.sessions}, {SHARED})
        self.assertEqual(most, LIMIT)

    async def start_again(self, kumo: Kumo) -> Kumo:
        """Start the first MTA over what the killed one left."""
        again = Kumo(self, kumo.config_path, kumo.state, 2525, prefix=_at(self.mtas[0]))
        await until(
            lambda: on(self.mtas[0], partial(greets, "127.0.0.1", 2525)),
            lambda: str(again.complain("does not greet")),
            30,
        )
        return again


def _at(machine: str) -> list[str]:
    """What stands before the command line of a program on a machine."""
    return ["nsenter", f"--net=/run/netns/{machine}", "--"]
