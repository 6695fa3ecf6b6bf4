"""Hostile mail hosts, directly and through each kind of proxy: the verdict is the same.

All of them are played at once, each on a port of its own, in this process; only the proxies are
processes of their own.
"""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path
from typing import Any

import attrs
import trustme
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.trial.unittest import TestCase

from kumotwist.tls.client import system_trust
from tests.hostile.delivery_room import DeliveryRoom, Destination, Observed
from tests.hostile.scripted_host import ScriptedHost
from tests.hostile.servers import SERVERS, HostileServer
from tests.integration import parts
from tests.integration.program import start_plugin
from tests.integration.waiting import free_port, until

#: Sockets of one process are dear: so many hosts at a time.
AT_ONCE = 150

#: Where a server says nothing else, time plays no part, however slow the machine is.
_PATH = {
    "enable_tls": "Disabled",
    "connection_limit": "1",
    "starttls_timeout": "60s",
    "rset_timeout": "60s",
}

_KUMOPROXY = """
[proxy:way]
listen = 127.0.0.1:{port}

[proxy-rule:loopback]
proxy = way
clients = 127.0.0.0/8
destinations = 127.0.0.0/8
ports = 1024-65535
action = allow
"""


def kumoproxy_configuration(port: int) -> str:
    """The configuration of a KumoProxy on a port that lets loopback reach loopback."""
    return _KUMOPROXY.format(port=port)


class HostileServerTests(TestCase):
    """Every server of L{tests.hostile.servers}, on every path."""

    timeout = 300

    async def test_direct(self) -> None:
        """Without a proxy."""
        await self.play("direct", {})

    async def test_socks5(self) -> None:
        """Through KumoProxy."""
        port = free_port()
        path = Path(self.mktemp()).absolute()
        path.write_text(kumoproxy_configuration(port), encoding="ascii")
        await start_plugin(self, "kumoproxy", ["-c", str(path)], port)
        await self.play("socks5", {"socks5_proxy_server": f"127.0.0.1:{port}"})

    async def test_haproxy(self) -> None:
        """Through HAProxy, which takes PROXY headers and cannot report failures."""
        _, port = await parts.start_haproxy(self)
        await self.play(
            "haproxy",
            {"ha_proxy_server": f"127.0.0.1:{port}", "ha_proxy_source_address": "127.0.0.9"},
        )

    async def test_http_connect(self) -> None:
        """Through tinyproxy, by CONNECT."""
        _, port = await parts.start_tinyproxy(self, None)
        way = rf"http-connect:{{host}}:{{port}}:server=127.0.0.1\:{port}"
        await self.play("http-connect", {"endpoint": way})

    async def play(self, kind: str, source: dict[str, str]) -> None:
        """Play all servers to the delivery side; compare each verdict with what is expected."""
        self.certificates = self.make_certificates()
        wrong: list[str] = []
        for first in range(0, len(SERVERS), AT_ONCE):
            wrong += await self.play_some(kind, source, SERVERS[first : first + AT_ONCE])
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    async def play_some(
        self, kind: str, source: dict[str, str], servers: tuple[HostileServer, ...]
    ) -> list[str]:
        """Play some servers at once; what was wrong."""
        hosts = {server.name: self.start_host(server) for server in servers}
        room = DeliveryRoom(
            self,
            [self.destination(each, hosts[each.name][1], source) for each in servers],
        )
        try:
            ids = {server.name: self.inject(room, server) for server in servers}
            await until(
                lambda: room.decided or None,
                lambda: f"fates of {[n for n, i in ids.items() if not self.done(room, i)]}",
                120,
            )
            room.fill_in_records()
        finally:
            await room.stop()
        wrong = []
        for server in servers:
            observed = [room.observed[each] for each in ids[server.name]]
            wrong += faults(kind, server, observed, hosts[server.name][0].messages)
        return wrong

    @staticmethod
    def done(room: DeliveryRoom, ids: list[str]) -> bool:
        """Whether these messages are judged."""
        return all(room.observed[each].decided for each in ids)

    @staticmethod
    def inject(room: DeliveryRoom, server: HostileServer) -> list[str]:
        """Queue what is sent to a server."""
        ids: list[str] = []
        for number in range(server.messages):
            body = b"Subject: %d\r\n\r\nhello\r\n" % number
            if server.size:
                body += (b"x" * 70 + b"\r\n") * (server.size // 72)
            ids += room.inject(f"{server.name}.test", body, server.recipients)
        return ids

    @staticmethod
    def destination(server: HostileServer, port: int, source: dict[str, str]) -> Destination:
        """A server's domain, with settings of its own."""
        path = {**_PATH, **server.path}
        queue = {"retry_interval": "1h", **server.queue}
        return Destination(f"{server.name}.test", f"[127.0.0.1]:{port}", source, path, queue)

    def start_host(self, server: HostileServer) -> tuple[ScriptedHost, int]:
        """Let a server listen; its port."""
        host = ScriptedHost(
            server.turns,
            server.offers,
            self.certificates[server.certificate],
            forgetful=server.forgetful,
            tls_offers=server.tls_offers,
        )
        listening: Any = global_reactor.listenTCP(0, host, interface="127.0.0.1")
        if server.size:  # what the sockets hold must not be the whole message
            listening.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)

        async def stop() -> None:
            await maybeDeferred(listening.stopListening)
            for connection in list(host.connections):
                connection.transport.abortConnection()
            await until(lambda: not host.connections, "the end of a host's connections", 10)

        self.addCleanup(stop)
        return host, listening.getHost().port

    def make_certificates(self) -> dict[str, CertificateOptions]:
        """One that is good, and others that are not; the system trusts their authority."""
        authority, stranger = trustme.CA(), trustme.CA()
        past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        leaves = {
            "good": authority.issue_cert("127.0.0.1"),
            "wrong": authority.issue_cert("mx.example.test"),
            "expired": authority.issue_cert("127.0.0.1", not_after=past),
            "stranger": stranger.issue_cert("127.0.0.1"),
        }
        path = Path(self.mktemp()).absolute()
        authority.cert_pem.write_to_path(str(path))
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(path)
        system_trust.cache_clear()

        def restore() -> None:
            del os.environ["SSL_CERT_FILE"]
            if before is not None:
                os.environ["SSL_CERT_FILE"] = before
            system_trust.cache_clear()

        self.addCleanup(restore)
        return {
            name: PrivateCertificate.loadPEM(
                leaf.private_key_and_cert_chain_pem.bytes().decode("ascii")
            ).options()
            for name, leaf in leaves.items()
        }


def faults(kind: str, server: HostileServer, observed: list[Observed], messages: int) -> list[str]:
    """Where what happened differs from what is expected."""
    wrong = []
    happened = [str(each) for each in observed]
    if happened != list(server.expected):
        replies = [each.reply for each in observed]
        wrong.append(f"{kind}: {server.name}: {happened}, not {list(server.expected)}: {replies}")
    elif server.says not in observed[-1].reply:
        wrong.append(f"{kind}: {server.name}: says {observed[-1].reply!r}, not {server.says!r}")
    for each in observed:
        suspected = each.verdict is not None and each.verdict.suspected
        if suspected != (server.suspects and kind == "haproxy"):
            wrong.append(f"{kind}: {server.name}: suspected is {suspected}")
    if server.taken is not None and server.taken != messages:
        wrong.append(f"{kind}: {server.name}: {messages} messages came, not {server.taken}")
    return wrong


class CatalogueTests(TestCase):
    """The suite itself."""

    def test_size(self) -> None:
        """There are at least forty servers, each with a name of its own."""
        names = {server.name for server in SERVERS}
        self.assertEqual(len(names), len(SERVERS))
        self.assertGreaterEqual(len(names), 40)
        self.assertEqual(len(attrs.fields(HostileServer)), 15)
