"""Hostile clients, directly and through each kind of proxy: the same replies, and nothing is kept
that no 250 was said for.

All of them are played at once, each to a listener of its own, in this process; only the proxies
are processes of their own.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from kumotwist.settings import declared
from kumotwist.smtp.listener import ESMTPListenerFactory
from kumotwist.smtp.settings import ListenerSettings
from kumotwist.tls.server import self_signed, server_context_factory
from tests.hostile.clients import CLIENTS, HostileClient
from tests.hostile.scripted_client import Preface, ScriptedClient
from tests.integration import parts
from tests.integration.program import start_plugin
from tests.integration.test_hostile_servers import kumoproxy_configuration
from tests.integration.waiting import free_port, until
from tests.queue_world import World

_RECEIVED = re.compile(rb"\AReceived: .*?\r\n(?![ \t])", re.DOTALL)

_LISTEN = """
listen to-{port}
    bind 127.0.0.1:{front}
    server listener 127.0.0.1:{port} send-proxy-v2
"""

Way = Callable[[int], "tuple[int, Preface]"]
"""For a listener's port: where to connect, and what to say first."""


class Listener:
    """A real listener whose reception is real, too; the messages stay in a spool in memory."""

    def __init__(self, client: HostileClient, more: dict[str, str], tls: Any) -> None:
        reactor: Any = global_reactor
        self.client = client
        self.world = World(network=reactor)
        self.world.scheduler.stop(0)  # nothing leaves
        keys = declared(ListenerSettings)
        values = {
            key: keys[key][1].kind.parse(text)
            for key, text in {"client_timeout": "60s", **client.listener, **more}.items()
        }
        settings = attrs.evolve(ListenerSettings(name="main"), **values)
        self.factory = ESMTPListenerFactory(
            reactor, settings, self.world.reception, tls, "mx.example.test"
        )
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.number: int = self.port.getHost().port

    @property
    def kept(self) -> list[bytes]:
        """The bodies of the messages that are kept, one for each recipient."""
        spool = self.world.spool
        return sorted(
            _RECEIVED.sub(b"", spool.bodies[each.body_key]) for each in spool.messages.values()
        )

    async def stop(self) -> None:
        """Listen no more, and wait for the sessions' end."""
        await maybeDeferred(self.port.stopListening)
        for session in list(self.factory.sessions):
            session.abort()
        await until(lambda: not self.factory.sessions, "the end of a listener's sessions", 10)


class HostileClientTests(TestCase):
    """Every client of L{tests.hostile.clients}, on every path."""

    timeout = 300

    async def test_direct(self) -> None:
        """Without a proxy."""
        listeners = self.listen("direct", {})
        await self.play("direct", listeners, lambda port: (port, Preface()))

    async def test_socks5(self) -> None:
        """Through KumoProxy."""
        proxy = free_port()
        path = Path(self.mktemp()).absolute()
        path.write_text(kumoproxy_configuration(proxy), encoding="ascii")
        await start_plugin(self, "kumoproxy", ["-c", str(path)], proxy)
        listeners = self.listen("socks5", {})

        def way(port: int) -> tuple[int, Preface]:
            connect = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", port)
            return proxy, Preface(((b"\x05\x01\x00", 2), (connect, 10)))

        await self.play("socks5", listeners, way)

    async def test_haproxy(self) -> None:
        """Through HAProxy, to listeners that require its PROXY headers."""
        listeners = self.listen("haproxy", {"trusted_proxies": "127.0.0.0/8"})
        fronts = {listener.number: free_port() for listener in listeners}
        text = parts.SEED_HAPROXY_CFG + "".join(
            _LISTEN.format(port=port, front=front) for port, front in fronts.items()
        )
        await parts.start_haproxy(self, text)
        await self.play("haproxy", listeners, lambda port: (fronts[port], Preface()))

    async def test_http_connect(self) -> None:
        """Through tinyproxy, by CONNECT."""
        _, proxy = await parts.start_tinyproxy(self, None)
        listeners = self.listen("http-connect", {})

        def way(port: int) -> tuple[int, Preface]:
            return proxy, Preface(((b"CONNECT 127.0.0.1:%d HTTP/1.0\r\n\r\n" % port, b"\r\n\r\n"),))

        await self.play("http-connect", listeners, way)

    def listen(self, path: str, more: dict[str, str]) -> list[Listener]:
        """A listener for each client that can be played on a path."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        tls = server_context_factory(*self_signed("mx.example.test", directory))
        listeners = [
            Listener(client, more, tls)
            for client in CLIENTS
            if not client.paths or path in client.paths
        ]
        for listener in listeners:
            self.addCleanup(listener.stop)
        return listeners

    async def play(self, path: str, listeners: list[Listener], way: Way) -> None:
        """Play all clients at once; compare what they got, and what is kept."""
        sessions = {listener.number: self.connect(listener, way) for listener in listeners}

        def unfinished() -> list[str]:
            return [
                f"{listener.client.name} ({[one.codes for one in sessions[listener.number]]})"
                for listener in listeners
                if not all(one.gone for one in sessions[listener.number])
                or listener.factory.sessions
            ]

        await until(
            lambda: not unfinished(), lambda: f"the end of {path}: {', '.join(unfinished())}", 150
        )
        wrong: list[str] = []
        for listener in listeners:
            wrong += faults(path, listener, sessions[listener.number])
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def connect(self, listener: Listener, way: Way) -> list[ScriptedClient]:
        """Let the connections of a script begin."""
        port, preface = way(listener.number)
        clients: list[ScriptedClient] = []

        def together() -> bool:
            ready = all(one.heard or one.gone for one in clients)
            if ready:
                for one in clients:
                    if not one.gone:
                        global_reactor.callLater(0, one.play)
            return ready

        for _ in range(listener.client.connections):
            one = ScriptedClient(preface, listener.client.steps, together)
            clients.append(one)
            dial(port, one)
        return clients


def dial(port: int, client: ScriptedClient, tries: int = 100) -> None:
    """Connect; again, if nobody listens yet: HAProxy begins to listen on one port after another."""

    def again(failure: Failure) -> None:
        failure.trap(ConnectionRefusedError)
        if tries:
            global_reactor.callLater(0.2, dial, port, client, tries - 1)

    endpoint = HostnameEndpoint(global_reactor, "127.0.0.1", port)
    connectProtocol(endpoint, client).addErrback(again)


def faults(path: str, listener: Listener, sessions: list[ScriptedClient]) -> list[str]:
    """Where what happened differs from what is expected."""
    client, wrong = listener.client, []
    codes = sorted(one.codes for one in sessions)
    expected = [client.codes] if isinstance(client.codes, str) else sorted(client.codes)
    if codes != expected:
        heard = sessions[0].heard[-300:]
        wrong.append(f"{path}: {client.name}: {_short(codes)}, not {_short(expected)}: {heard!r}")
    elif client.says not in sessions[0].heard:
        wrong.append(f"{path}: {client.name}: {sessions[0].heard!r} has no {client.says!r}")
    if listener.kept != sorted(client.kept):
        kept = [each[:200] for each in listener.kept]
        wrong.append(f"{path}: {client.name}: kept {kept}, not {[c[:200] for c in client.kept]}")
    receptions = listener.world.records("Reception")
    if len(receptions) != len(listener.kept):
        wrong.append(f"{path}: {client.name}: {len(receptions)} records of reception")
    return wrong


def _short(codes: list[str]) -> list[str]:
    return [code if len(code) < 120 else f"{code[:50]}…{code[-50:]}" for code in codes]


class CatalogueTests(TestCase):
    """The suite itself."""

    def test_size(self) -> None:
        """There are at least forty clients, each with a name of its own."""
        names = {client.name for client in CLIENTS}
        self.assertEqual(len(names), len(CLIENTS))
        self.assertGreaterEqual(len(names), 40)
