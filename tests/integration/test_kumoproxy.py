"""KumoProxy on real sockets: sources, ends of streams, slow readers, silence, shortages."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from kumotwist.proxy import ProxyRuleSettings, ProxyService, ProxySettings
from kumotwist.settings.types import NETWORKS, PORTS
from tests.integration.waiting import until

_T = TypeVar("_T")

LOOPBACK = ProxyRuleSettings(
    destinations=NETWORKS.parse("127.0.0.0/8, ::1"), ports=PORTS.parse("1-65535"), action="allow"
)
SOURCE = "127.0.0.2"
MEGABYTE = b"0123456789abcdef" * 65536


class Wire:
    """A client's connection to the proxy, or a destination's to it; blocking, in a thread."""

    def __init__(self, handle: socket.socket) -> None:
        handle.settimeout(10)
        self.socket = handle

    def exactly(self, number: int) -> bytes:
        """Read so many octets."""
        data = b""
        while len(data) < number:
            piece = self.socket.recv(number - len(data))
            if not piece:
                raise AssertionError(f"the end after {data!r}, {number} octets were expected")
            data += piece
        return data

    def rest(self) -> int:
        """Read to the end; return how many octets there were."""
        total = 0
        while piece := self.socket.recv(1 << 20):
            total += len(piece)
        return total


class Trial:
    """What a scenario uses: a proxy, and destinations that the test plays."""

    def __init__(self, port: int, context: ssl.SSLContext | None) -> None:
        self.port = port
        self.context = context
        self.stack = contextlib.ExitStack()
        self.listener = self.keep(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(10)
        self.target: int = self.listener.getsockname()[1]

    def keep(self, handle: Any) -> Any:
        """Close it at the end."""
        return self.stack.enter_context(handle)

    def dial(self, receive_buffer: int | None = None) -> Wire:
        """Connect to the proxy."""
        handle = socket.socket()
        if receive_buffer is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        handle.settimeout(10)
        handle.connect(("127.0.0.1", self.port))
        if self.context is not None:
            handle = self.context.wrap_socket(handle, server_hostname="localhost")
        return Wire(self.keep(handle))

    def accept(self) -> Wire:
        """Take the proxy's connection."""
        handle, _ = self.listener.accept()
        return Wire(self.keep(handle))

    def ask(self, client: Wire, port: int | None = None, source: str | None = SOURCE) -> bytes:
        """Greet, bind and connect; return the reply to the last request."""
        client.socket.sendall(b"\x05\x01\x00")
        assert client.exactly(2) == b"\x05\x00"
        if source is not None:
            client.socket.sendall(b"\x05\x02\x00\x01" + socket.inet_aton(source) + b"\x00\x00")
            reply = client.exactly(10)
            if reply[1]:
                return reply
            assert socket.inet_ntoa(reply[4:8]) == source
        client.socket.sendall(
            b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port or self.target)
        )
        return client.exactly(10)

    def session(self, receive_buffer: int | None = None) -> tuple[Wire, Wire]:
        """A client and its destination, connected."""
        client = self.dial(receive_buffer)
        assert self.ask(client)[:2] == b"\x05\x00"
        return client, self.accept()


class ProxyMixin:
    """Starts a proxy and plays scenarios with it."""

    settings: dict[str, Any] = {}
    context: ssl.SSLContext | None = None
    service: ProxyService

    def start(self: Any, **settings: Any) -> None:
        """Start a proxy on a free port of 127.0.0.1; the test stops it."""
        values = {"listen": "tcp:0:interface=127.0.0.1", "drain_timeout": 0.2}
        self.service = ProxyService(
            global_reactor,
            "trial",
            ProxySettings(**{**values, **self.settings, **settings}),
            [("loopback", LOOPBACK)],
        )
        self.service.startService()
        self.addCleanup(self.service.stopService)

    async def play(self, scenario: Callable[[Trial], _T]) -> _T:
        """Run a scenario in a thread, while the proxy runs in this one."""
        trial = Trial(self.service.listening[0].port, self.context)  # type: ignore[attr-defined]

        def run() -> _T:
            with trial.stack:
                return scenario(trial)

        return await deferToThread(run)


class KumoProxyMixin(ProxyMixin):
    """What holds however the stream is carried."""

    async def test_source(self: Any) -> None:
        """The destination sees the source that was bound, and the reply says its port."""
        self.start()

        def scenario(trial: Trial) -> tuple[Any, bytes]:
            client = trial.dial()
            reply = trial.ask(client)
            return trial.accept().socket.getpeername(), reply

        peer, reply = await self.play(scenario)
        self.assertEqual(peer, (SOURCE, int.from_bytes(reply[8:], "big")))
        self.assertEqual(reply[4:8], socket.inet_aton(SOURCE))

    async def test_source_not_owned(self: Any) -> None:
        """An address that is not this host's is REP 01."""
        self.start()
        reply = await self.play(lambda trial: trial.ask(trial.dial(), source="192.0.2.1"))
        self.assertEqual(reply[1], 1)

    async def test_refused(self: Any) -> None:
        """A port where nobody listens is REP 05."""
        self.start()

        def scenario(trial: Trial) -> bytes:
            with socket.create_server(("127.0.0.1", 0)) as other:
                port = other.getsockname()[1]
            return trial.ask(trial.dial(), port)

        reply = await self.play(scenario)
        self.assertEqual(reply, b"\x05\x05\x00\x01" + b"\x00" * 6)

    async def test_stream(self: Any) -> None:
        """Megabytes arrive whole and in order, in both directions at once."""
        self.start()

        def scenario(trial: Trial) -> tuple[int, int]:
            client, destination = (Duplex(wire, 8) for wire in trial.session())
            _exchange(client, destination)
            return client.received, destination.received

        self.assertEqual(await self.play(scenario), (8 << 20, 8 << 20))
        counters = self.service.counters
        await until(lambda: counters.active == 0, "the session's end")
        self.assertEqual(counters.bytes_to_client, 8 << 20)
        self.assertEqual(counters.bytes_to_destination, 8 << 20)

    async def test_destination_closes(self: Any) -> None:
        """What the destination sent before it closed arrives, then the end."""
        self.start()

        def scenario(trial: Trial) -> int:
            client, destination = trial.session()
            destination.socket.sendall(MEGABYTE)
            destination.socket.close()
            return client.rest()

        self.assertEqual(await self.play(scenario), len(MEGABYTE))
        await until(lambda: self.service.counters.completed == 1, "the session's end")

    async def test_slow_client(self: Any) -> None:
        """A client that reads nothing stops the destination before much is buffered."""
        self.start()

        def scenario(trial: Trial) -> tuple[int, int]:
            client, destination = trial.session(receive_buffer=32768)
            destination.socket.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 256 << 20:
                    sent += destination.socket.send(MEGABYTE)
            destination.socket.close()
            return sent, client.rest()

        sent, arrived = await self.play(scenario)
        self.assertLess(sent, 64 << 20)
        self.assertEqual(arrived, sent)

    async def test_slow_destination(self: Any) -> None:
        """A destination that reads nothing stops the client."""
        self.start()

        def scenario(trial: Trial) -> int:
            client, _ = trial.session()
            client.socket.settimeout(1)
            sent = 0
            with contextlib.suppress(TimeoutError, ssl.SSLWantWriteError):
                while sent < 256 << 20:
                    sent += client.socket.send(MEGABYTE)
            return sent

        self.assertLess(await self.play(scenario), 64 << 20)

    async def test_idle(self: Any) -> None:
        """A session in which nothing moves is cut; one in which something does is not."""
        self.start(idle_timeout=0.5)

        def scenario(trial: Trial) -> float:
            client, destination = trial.session()
            for _ in range(4):
                time.sleep(0.3)
                destination.socket.sendall(b"x")
                client.exactly(1)
            begun = time.monotonic()
            with contextlib.suppress(OSError):
                client.rest()
            return time.monotonic() - begun

        duration = await self.play(scenario)
        self.assertGreater(duration, 0.3)
        self.assertLess(duration, 5)

    async def test_reset(self: Any) -> None:
        """When the destination resets, the client's connection ends too."""
        self.start()

        def scenario(trial: Trial) -> None:
            client, destination = trial.session()
            destination.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            destination.socket.close()
            with contextlib.suppress(OSError):
                client.rest()

        await self.play(scenario)
        await until(lambda: self.service.counters.completed == 1, "the session's end")
        self.assertEqual(self.service.counters.active, 0)

    async def test_cut_at_the_end(self: Any) -> None:
        """A running session ends with the proxy, within its bound."""
        self.start()

        def scenario(trial: Trial) -> None:
            client, _ = trial.session()
            IReactorFromThreads(global_reactor).callFromThread(self.service.stopService)
            with contextlib.suppress(OSError):
                client.rest()

        await self.play(scenario)
        await until(lambda: self.service.status == "stopped", "the end")


class Duplex:
    """One end of a connection that sends and receives the same number of octets at once.

    All in one thread: two threads may not use one TLS connection at the same time.
    """

    def __init__(self, wire: Wire, pieces: int) -> None:
        wire.socket.setblocking(False)
        self.socket = wire.socket
        self.received = 0
        self._whole = len(MEGABYTE) * pieces
        self._sent = 0

    @property
    def done(self) -> bool:
        """Whether everything went out and everything came in."""
        return self._sent == self._whole and self.received == self._whole

    def turn(self) -> bool:
        """Send and receive what can be at this moment; return whether something moved."""
        before = self._sent + self.received
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if self._sent < self._whole:
                self._sent += self.socket.send(MEGABYTE[self._sent % len(MEGABYTE) :])
        with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            while self.received < self._whole:
                self._take(self.socket.recv(1 << 16))
        return self._sent + self.received > before

    def _take(self, piece: bytes) -> None:
        at = self.received % len(MEGABYTE)
        if not piece or piece != (MEGABYTE + MEGABYTE[: 1 << 16])[at : at + len(piece)]:
            raise AssertionError(f"an end or other octets after {self.received}: {piece[:80]!r}")
        self.received += len(piece)


def _exchange(*ends: Duplex) -> None:
    """Let all ends send and receive until each is done."""
    last = time.monotonic()
    while not all(end.done for end in ends):
        if sum(end.turn() for end in ends):
            last = time.monotonic()
            continue
        if time.monotonic() - last > 30:
            raise AssertionError(f"nothing moves after {[end.received for end in ends]} octets")
        handles = [end.socket for end in ends if not end.done]
        select.select(handles, [], [], 0.01)


class HalfCloseMixin:
    """Ends of one direction only, which TLS does not have."""

    async def test_half_close(self: Any) -> None:
        """When one side has ended, the other still speaks, in both orders."""
        self.start()

        def scenario(trial: Trial) -> list[int]:
            found = []
            for first in (0, 1):
                pair = trial.session()
                one, other = pair[first], pair[1 - first]
                one.socket.sendall(MEGABYTE)
                one.socket.shutdown(socket.SHUT_WR)
                found.append(other.rest())
                other.socket.sendall(MEGABYTE)
                other.socket.shutdown(socket.SHUT_WR)
                found.append(one.rest())
            return found

        self.assertEqual(await self.play(scenario), [len(MEGABYTE)] * 4)
        await until(lambda: self.service.counters.completed == 2, "the sessions' ends")

    async def test_urgent_octet(self: Any) -> None:
        """What is sent behind an urgent octet, and the end, arrive; the octet itself is lost."""
        self.start()

        def scenario(trial: Trial) -> list[bytes]:
            found = []
            for at_once in (True, False):
                client = trial.dial()
                assert trial.ask(client)[:2] == b"\x05\x00"
                destination = trial.accept()
                for _ in range(1 if at_once else 200):
                    destination.socket.sendall(b"220 ")
                    destination.socket.send(b"!", socket.MSG_OOB)
                    destination.socket.sendall(b"mx\r\n")
                destination.socket.close()
                data = b""
                while piece := client.socket.recv(4096):
                    data += piece
                found.append(data)
            return found

        found = await self.play(scenario)
        self.assertEqual(found[0], b"220 mx\r\n")
        # Of several urgent octets that wait at once TCP knows only the last one as such.
        self.assertEqual(found[1].replace(b"!", b""), b"220 mx\r\n" * 200)

    async def test_glued_banner(self: Any) -> None:
        """Banner and reply arrive in order; what the client sent early arrives too."""
        self.start()

        def scenario(trial: Trial) -> tuple[bytes, bytes]:
            client = trial.dial()
            target = struct.pack("!H", trial.target)
            client.socket.sendall(
                b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01" + target + b"EHLO me\r\n"
            )
            destination = trial.accept()
            destination.socket.sendall(b"220 mx\r\n")
            return client.exactly(2 + 10 + 8), destination.exactly(9)

        said, heard = await self.play(scenario)
        self.assertEqual((said[:4], said[-8:]), (b"\x05\x00\x05\x00", b"220 mx\r\n"))
        self.assertEqual(heard, b"EHLO me\r\n")


class CopyTests(KumoProxyMixin, HalfCloseMixin, TestCase):
    """Carried by bare sockets, and copied to the end."""

    settings = {"use_splice": False}

    async def test_keepalive(self) -> None:
        """Both sides of a session have TCP_NODELAY and, once it has lasted, keepalive."""
        self.start(keepalive_time=2.0, keepalive_interval=7.0, keepalive_retries=5)

        def options(handle: Any) -> list[int]:
            return [
                handle.getsockopt(level, option)
                for level, option in (
                    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                )
            ]

        def scenario(trial: Trial) -> Any:
            trial.session()
            end = time.monotonic() + 60
            found: list[list[int]] = []
            while [1, 1, 2, 7, 5] not in found[1:] and time.monotonic() < end:
                time.sleep(0.05)
                [session] = self.service._shared.sessions
                relay: Any = vars(session)["_relay"]
                if relay is not None:
                    found = [options(way.source.handle) for way in (relay._there, relay._back)]
            return found

        self.assertEqual(await self.play(scenario), [[1, 1, 2, 7, 5]] * 2)

    async def test_burst(self) -> None:
        """A hundred clients that come while the proxy is busy are connected at once."""
        self.start()
        listening: Any = self.service.listening[0]
        address = ("127.0.0.1", listening.port)
        with contextlib.ExitStack() as stack:
            for _ in range(100):  # the reactor, which would accept them, waits for this
                stack.enter_context(socket.create_connection(address, 10))
        await until(lambda: self.service.counters.failed == 100, "the clients to be gone")

    async def test_descriptors_run_out(self) -> None:
        """With no descriptor left clients are refused; afterwards everything works again."""
        self.start()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)

        def scenario(trial: Trial) -> bytes:
            waiting = [trial.dial() for _ in range(5)]
            time.sleep(0.1)
            late = trial.keep(socket.socket())
            spare = waiting[0].socket.fileno()
            resource.setrlimit(resource.RLIMIT_NOFILE, (spare + 1, before[1]))
            time.sleep(0.1)
            answers = []
            for client in waiting:
                client.socket.sendall(b"\x05\x01\x00")
                client.exactly(2)
                client.socket.sendall(b"\x05\x02\x00\x01\x7f\x00\x00\x02\x00\x00")
                answers.append(client.exactly(10)[1])
            assert answers == [1] * 5, answers
            late.settimeout(10)
            late.connect(("127.0.0.1", trial.port))
            assert late.recv(1) == b"", "accepted without a descriptor"
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for _ in range(50):
                with contextlib.suppress(OSError, AssertionError):
                    return trial.ask(trial.dial())
                time.sleep(0.02)
            return b""

        self.assertEqual((await self.play(scenario))[:2], b"\x05\x00")

    async def test_curl(self) -> None:
        """curl goes through it, with and without a login."""
        curl = shutil.which("curl")
        if curl is None:
            self.skipTest("curl is not installed")
        users = Path(self.mktemp())
        users.write_text("me:secret\n", encoding="utf-8")
        self.start(auth=f"file:{users}")
        port = self.service.listening[0].port  # type: ignore[attr-defined]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)

            def serve() -> None:
                handle, _ = listener.accept()
                with handle:
                    handle.recv(65536)
                    handle.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")

            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            for login, expected in (("", b"hello"), ("me:secret@", b"hello"), ("me:x@", b"")):
                proxy = f"socks5://{login}127.0.0.1:{port}"
                served = deferToThread(serve) if expected else None
                out, _, code = await getProcessOutputAndValue(
                    curl, ["-s", "--noproxy", "", "--proxy", proxy, url], {}
                )
                if served is not None:
                    await served
                self.assertEqual((out, code == 0), (expected, bool(expected)))


class SpliceTests(KumoProxyMixin, HalfCloseMixin, TestCase):
    """Carried by bare sockets, and by the kernel when the stream is long."""

    if not hasattr(os, "splice"):
        skip = "this platform has no splice"

    settings = {"use_splice": True}


class TLSTests(KumoProxyMixin, TestCase):
    """Carried by Twisted's transports, the client's side inside TLS."""

    authority = trustme.CA()

    def setUp(self) -> None:
        """Issue a certificate."""
        path = Path(self.mktemp())
        issued = self.authority.issue_cert("localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(path))
        self.settings = {"tls_certificate": str(path)}
        self.context = ssl.create_default_context()
        self.authority.configure_trust(self.context)
