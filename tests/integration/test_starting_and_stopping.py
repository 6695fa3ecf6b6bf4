"""Programs that cannot start say why in one line; a proxy ends, and runs short, in good order."""

from __future__ import annotations

import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.processes import Child, run
from tests.integration.program import start_plugin, twistd
from tests.integration.waiting import free_port, greets, until


def ask(port: int) -> tuple[int, str]:
    """The proxy's health page: status and text; blocks."""
    url = f"http://127.0.0.1:{port}/proxy/status"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def greeted(client: socket.socket) -> bool:
    """Whether a proxy answers a greeting; blocks."""
    try:
        client.sendall(b"\x05\x01\x00")
        return client.recv(2) == b"\x05\x00"
    except ConnectionError:
        return False


class ProgramTests(TestCase):
    """Our programs as processes."""

    timeout = 120.0

    def connect(self, port: int) -> socket.socket:
        """A client that is gone when the test is over."""
        client = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.addCleanup(client.close)
        return client

    async def test_address_in_use(self) -> None:
        """Each program names the section and the address, and ends with status 1."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            path = Path(self.mktemp()).absolute()
            path.mkdir()
            (path / "kumo.ini").write_text(
                f"[kumo]\nstate_dir = {path}/var\n[listener:in]\nlisten = {address}\ntls = none\n"
            )
            (path / "proxy.ini").write_text(f"[proxy:main]\nlisten = {address}\n")
            for command, section in (
                (["kumo", "-c", str(path / "kumo.ini")], "[listener:in] listen: "),
                (["kumoproxy", "-c", str(path / "proxy.ini")], "[proxy:main] listen: "),
                (["kumosink", "--tls", "none", "--listen", address], "kumosink listen: "),
            ):
                done = await deferToThread(run, twistd(*command), directory=path)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn(f"{section}{address} is in use by another process", done.stdout)
                self.assertNotIn("Traceback", done.stdout)

    async def test_page_while_draining(self) -> None:
        """The health page says 503 until the last client is gone, which a second signal hastens."""
        port, http = free_port(), free_port()
        path = Path(self.mktemp()).absolute()
        path.write_text(
            f"[proxy:main]\nlisten = 127.0.0.1:{port}\ndrain_timeout = 100s\n"
            f"[http]\nlisten = 127.0.0.1:{http}\n"
        )
        proxy = await start_plugin(self, "kumoproxy", ["-c", str(path)], port)
        self.assertEqual((await deferToThread(ask, http))[0], 200)
        client = self.connect(port)
        self.assertTrue(await deferToThread(greeted, client))
        proxy.process.terminate()
        await proxy.wait_for_output("received SIGTERM")
        await until(lambda: "is draining" in ask(http)[1], "a page that tells of the drain")
        self.assertEqual(ask(http)[0], 503)
        proxy.process.terminate()
        await proxy.wait_for_exit()
        self.assertNotIn("Traceback", proxy.output())

    async def test_rules_are_read_again(self) -> None:
        """SIGHUP: the rules of the file hold for the next request, and the proxy goes on."""
        port = free_port()
        path = Path(self.mktemp()).absolute()
        text = f"[proxy:main]\nlisten = 127.0.0.1:{port}\n[proxy-rule:one]\naction = deny\n"
        path.write_text(text)
        proxy = await start_plugin(self, "kumoproxy", ["-c", str(path)], port)
        request = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")

        def answer() -> bytes:
            client = self.connect(port)
            self.assertTrue(greeted(client))
            client.sendall(request)
            return client.recv(2)

        self.assertEqual(await deferToThread(answer), b"\x05\x02")
        path.write_text(text.replace("deny", f"allow\ndestinations = 127.0.0.1\nports = {port}"))
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.wait_for_output("the rules were read again")
        self.assertEqual(await deferToThread(answer), b"\x05\x00")

    async def test_other_listeners(self) -> None:
        """Listeners of Twisted's own are as quiet about it: one line, and clients again later."""
        port = free_port()
        command = ["kumosink", "--tls", "none", "--listen", f"127.0.0.1:{port}"]
        sink = Child(self, "kumosink", ["prlimit", "--nofile=48:48", "--", *twistd(*command)])
        await sink.wait_for_listening(port)
        many = [self.connect(port) for _ in range(200)]
        await sink.wait_for_output("kumosink listen: no descriptor is left, clients are turned")
        for client in many:
            client.close()

        def again() -> bool:
            return greets("127.0.0.1", port)

        await until(again, lambda: str(sink.complain("takes no more clients")), 30)
        lines = [line for line in sink.output().splitlines() if "no descriptor" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertNotIn("recovery", sink.output())

    async def test_no_descriptor_left(self) -> None:
        """Clients that cannot be held are closed, with one line for all; the others go on."""
        port = free_port()
        command = [
            "prlimit", "--nofile=48:48", "--", *twistd("kumoproxy", "--listen", f"127.0.0.1:{port}")
        ]  # fmt: skip
        proxy = Child(self, "kumoproxy", command)
        await proxy.wait_for_listening(port)
        early = self.connect(port)
        self.assertTrue(await deferToThread(greeted, early))
        many = [self.connect(port) for _ in range(200)]
        answered = await deferToThread(lambda: sum(map(greeted, many)))
        self.assertTrue(0 < answered < 48, answered)
        await proxy.wait_for_output("turns clients away")
        early.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x19")
        answer = await deferToThread(early.recv, 10)
        self.assertEqual(answer[:2], b"\x05\x02", proxy.output())
        for client in many:
            client.close()

        def again() -> bool:
            return greeted(self.connect(port))

        await until(again, lambda: str(proxy.complain("takes no more clients")), 30)
        lines = [line for line in proxy.output().splitlines() if "turns clients away" in line]
        self.assertEqual(len(lines), 1, lines)
        self.assertNotIn("EMFILE", proxy.output())
