"""The reactor for many small messages carries what Twisted's own does."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import (
    ConnectBindError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionRefusedError,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kumotwist.endpoints.tcp import AddressEndpoint
from kumotwist.reactor import DirectEPollReactor, streams
from tests.integration.client import send_mail
from tests.integration.configurations import LOCAL_PROXY, through_socks5
from tests.integration.program import start_kumo
from tests.integration.sink import certificate_for, start_sink
from tests.integration.waiting import free_port


class ReactorTests(TestCase):
    """C{twistd --reactor=kumo-epoll}."""

    timeout = 120

    async def test_small_and_large(self) -> None:
        """Messages of all sizes go through a proxy in the same process, unchanged."""
        for tls in ("Disabled", "OpportunisticInsecure"):
            sink = start_sink(self, tls=certificate_for("127.0.0.1")[0])
            proxy = free_port()
            config = LOCAL_PROXY + through_socks5(sink.route, proxy, source="127.0.0.2")
            kumo = await start_kumo(
                self,
                f"{config}enable_tls = {tls}\n",
                names={"proxy": proxy},
                options=["--reactor=kumo-epoll"],
            )
            bodies = [
                b"Subject: %d\r\n\r\n" % size + (b"x" * 70 + b"\r\n.\r\n") * (size // 70)
                for size in (1, 1_000, 70_000, 3_000_000)
            ]
            for body in bodies:
                await send_mail(kumo.port, body=body)
            await kumo.wait_for_records(len(bodies), type="Delivery", seconds=60)
            received = sorted((mail.body for mail in sink.mails), key=len)
            for body, mail in zip(bodies, received, strict=True):
                self.assertTrue(mail.endswith(body), f"{len(body)} octets were changed")


class Talker(Protocol):
    """Remembers what it hears and how it ended; C{plan} is called when the connection stands."""

    def __init__(self, plan: Callable[[Any], None] = lambda _: None) -> None:
        self._plan = plan
        self.heard = b""
        self.reason: Any = None

    def connectionMade(self) -> None:
        """Do what is planned."""
        self._plan(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Remember."""
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remember."""
        self.reason = reason.value


class StreamTests(SynchronousTestCase):
    """Connections of the reactor, over sockets of this machine."""

    def setUp(self) -> None:
        """A reactor that this test turns by hand."""
        self.reactor: Any = DirectEPollReactor()
        self.addCleanup(self.reactor._poller.close)
        self.accepted: list[Talker] = []
        self.answer: Callable[[Any], None] = lambda _: None

    def turn_until(self, done: Callable[[], Any]) -> None:
        """Turn the loop until a condition holds."""
        ends = time.monotonic() + 60
        while not done():
            if time.monotonic() > ends:
                self.fail("it did not happen within a minute")
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0.02)

    def listen(self, interface: str = "127.0.0.1") -> Any:
        """Accept connections; what is accepted does C{self.answer}."""
        factory = Factory()

        def build(_: Any) -> Talker:
            self.accepted.append(Talker(self.answer))
            return self.accepted[-1]

        factory.buildProtocol = build  # type: ignore[method-assign,assignment]
        factory.noisy = False
        port = self.reactor.listenTCP(0, factory, interface=interface)
        self.addCleanup(lambda: port.connected and port.connectionLost(connectionDone))
        return port

    def connect(
        self, address: Any, plan: Callable[[Any], None] = lambda _: None, **more: Any
    ) -> tuple[Any, Any]:
        """Connect to an address.

        @return: the client's protocol, and what the endpoint gave.
        """
        talker = Talker(plan)
        factory = Factory.forProtocol(lambda: talker)
        factory.noisy = False
        endpoint = AddressEndpoint(self.reactor, address.host, address.port, 60, **more)
        return talker, endpoint.connect(factory)

    def test_both_ways(self) -> None:
        """What both say before they close arrives, and both are told of the orderly end."""
        for interface in ("127.0.0.1", "::1"):
            self._both_ways(interface)

    def _both_ways(self, interface: str) -> None:
        port = self.listen(interface)
        self.accepted.clear()
        self.answer = lambda transport: transport.write(b"220 hello\r\n")

        def plan(transport: Any) -> None:
            transport.write(b"QUIT\r\n")
            transport.loseConnection()
            transport.loseConnection()

        client, connecting = self.connect(port.getHost(), plan, bind_address=interface)
        self.turn_until(lambda: client.reason and self.accepted and self.accepted[0].reason)
        self.assertIs(self.successResultOf(connecting), client)
        self.assertEqual(self.accepted[0].heard, b"QUIT\r\n")
        self.assertIsInstance(client.reason, ConnectionDone)
        self.assertIsInstance(self.accepted[0].reason, ConnectionDone)

    def test_addresses(self) -> None:
        """Both sides know the addresses of both, and the local one is what was asked for."""
        port = self.listen()
        client, _ = self.connect(port.getHost(), bind_address="127.0.0.2")
        self.turn_until(lambda: client.connected and self.accepted)
        server: Any = self.accepted[0].transport
        self.assertEqual(client.transport.getPeer(), port.getHost())
        self.assertEqual(client.transport.getHost(), server.getPeer())
        self.assertEqual(server.getPeer().host, "127.0.0.2")
        self.assertEqual(server.getHost(), port.getHost())
        self.assertIn("Talker,client", client.transport.logPrefix())
        self.assertIn("127.0.0.2", server.logPrefix())
        client.transport.abortConnection()
        self.turn_until(lambda: client.reason and self.accepted[0].reason)
        self.assertIsInstance(client.reason, ConnectionAborted)

    def test_more_is_written_at_the_end(self) -> None:
        """What is written behind C{loseConnection} in the same turn is still sent."""

        def answer(transport: Any) -> None:
            transport.loseConnection()
            transport.write(b"one more thing")

        self.answer = answer
        client, _ = self.connect(self.listen().getHost())
        self.turn_until(lambda: client.reason)
        self.assertEqual(client.heard, b"one more thing")

    def test_much_is_written(self) -> None:
        """More than the socket takes is sent before the connection ends."""

        def answer(transport: Any) -> None:
            transport.write(b"x" * 5_000_000)
            transport.loseConnection()

        self.answer = answer
        client, _ = self.connect(self.listen().getHost())
        self.turn_until(lambda: client.reason)
        self.assertEqual(len(client.heard), 5_000_000)

    def test_nobody_listens(self) -> None:
        """A refused connection is that, also with a local address, and is not told at once."""
        gone = IPv4Address("TCP", "127.0.0.1", free_port())
        for local in (None, "127.0.0.2"):
            _, connecting = self.connect(gone, bind_address=local)
            self.assertNoResult(connecting)
            self.turn_until(lambda: connecting.called)  # noqa: B023
            self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(self.reactor.getWriters(), [])

    def test_not_our_address(self) -> None:
        """A local address that the machine does not have is the local side's failure."""
        port = self.listen()
        _, connecting = self.connect(port.getHost(), bind_address="192.0.2.1")
        self.assertNoResult(connecting)
        self.turn_until(lambda: connecting.called)
        self.failureResultOf(connecting, ConnectBindError)

    def test_cancelled(self) -> None:
        """Who cancels the connecting is told, and no socket stays behind."""
        port = self.listen()
        _, connecting = self.connect(port.getHost())
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.turn_until(lambda: not self.reactor.getDelayedCalls())
        self.assertEqual(self.reactor.getWriters(), [])

    def test_event_of_another_socket(self) -> None:
        """An event that was meant for a socket with the same number makes no connection stand."""
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(4):  # nobody accepts them: whoever comes next has to wait
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            address = IPv4Address("TCP", *full.getsockname())
            _, connecting = self.connect(address)
            [pending] = self.reactor.getWriters()
            pending.doConnect()
            self.assertNoResult(connecting)
            self.assertFalse(pending.connected)
            connecting.cancel()
            self.failureResultOf(connecting, ConnectingCancelledError)

    def test_kernel_without_late_ports(self) -> None:
        """Where the kernel cannot choose the port late, a local address is used all the same."""
        self.patch(streams, "_BIND_ADDRESS_NO_PORT", 9999)
        client, _ = self.connect(self.listen().getHost(), bind_address="127.0.0.2")
        self.turn_until(lambda: client.connected and self.accepted)
        self.assertEqual(client.transport.getHost().host, "127.0.0.2")
        client.transport.loseConnection()
        self.turn_until(lambda: client.reason)

    def test_protocol_raises(self) -> None:
        """A protocol that raises loses its own connection and no other one."""

        def answer(transport: Any) -> None:
            raise ValueError("a defect")

        port = self.listen()
        client, connecting = self.connect(port.getHost(), answer)
        other, _ = self.connect(port.getHost(), lambda transport: transport.write(b"fine"))
        self.turn_until(lambda: any(each.heard == b"fine" for each in self.accepted))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertIsInstance(client.reason, ValueError)
        self.assertIsNone(other.reason)
        self.assertNoResult(connecting)
