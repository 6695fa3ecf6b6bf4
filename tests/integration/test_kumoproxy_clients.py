"""KumoProxy with clients that we did not write: python-socks (curl is in test_kumoproxy)."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from python_socks import ProxyError as ForeignError
from python_socks.sync import Proxy
from twisted.internet import reactor as global_reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kumotwist.proxy import ProxyRuleSettings, ProxyService, ProxySettings
from kumotwist.settings.types import NETWORKS, PORTS

LOOPBACK = ProxyRuleSettings(
    destinations=NETWORKS.parse("127.0.0.0/8"), ports=PORTS.parse("1024-65535"), action="allow"
)


class PythonSocksTests(TestCase):
    """python-socks, which aiohttp-socks and httpx-socks are built on."""

    def start(self, require_auth: bool = False) -> int:
        """Start a proxy that knows one user; return its port."""
        users = Path(self.mktemp())
        users.write_text("me:secret\n", encoding="utf-8")
        settings = ProxySettings(
            listen="tcp:0:interface=127.0.0.1",
            auth=f"file:{users}",
            require_auth=require_auth,
            allow_names=True,
            drain_timeout=0.2,
        )
        service = ProxyService(global_reactor, "trial", settings, [("loopback", LOOPBACK)])
        service.startService()
        self.addCleanup(service.stopService)
        [address] = service.listening
        return int(getattr(address, "port", 0))

    async def fetch(self, port: int, login: str = "", host: str = "127.0.0.1") -> bytes:
        """Connect to a destination that says hello."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)
            target: int = listener.getsockname()[1]

            def connect() -> bytes:
                proxy = Proxy.from_url(f"socks5://{login}127.0.0.1:{port}")
                with contextlib.closing(proxy.connect(host, target, timeout=10)) as stream:
                    handle, _ = listener.accept()
                    with handle:
                        handle.sendall(b"hello " + stream.recv(0) + b"there")
                    found = b""
                    while piece := stream.recv(100):
                        found += piece
                    return found

            return await deferToThread(connect)

    async def test_plain(self) -> None:
        """Without a login."""
        self.assertEqual(await self.fetch(self.start()), b"hello there")

    async def test_login(self) -> None:
        """With the right password."""
        port = self.start(require_auth=True)
        self.assertEqual(await self.fetch(port, "me:secret@"), b"hello there")

    async def test_wrong_login(self) -> None:
        """With a wrong password, and with none where one is required."""
        port = self.start(require_auth=True)
        for login in ("me:wrong@", ""):
            with self.assertRaises(ForeignError):
                await self.fetch(port, login)

    async def test_name(self) -> None:
        """A name, which the proxy resolves because it is allowed to."""
        self.assertEqual(await self.fetch(self.start(), host="localhost"), b"hello there")

    async def test_refused(self) -> None:
        """The reply code reaches the caller."""
        port = self.start()

        def connect() -> None:
            Proxy.from_url(f"socks5://127.0.0.1:{port}").connect("192.0.2.1", 80, timeout=10)

        with self.assertRaises(ForeignError) as caught:
            await deferToThread(connect)
        self.assertEqual(caught.exception.error_code, 2)
