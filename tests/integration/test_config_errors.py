"""All mistakes of a configuration at once, and nothing started."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.configurations import direct
from tests.integration.processes import CHECKOUT, run
from tests.integration.program import kumo_command, twistd
from tests.integration.waiting import accepts_connections, free_port

TEN_MISTAKES = """\
[kumo]
hostnme = mta.example.test
workers = many

[listener:in]
listen = 127.0.0.1:<port>
max_message_size = huge
relay_hosts = 10.0.0.0/40

[source:ip-1]
socks5_proxy_server = 10.0.5.10
colour = green

[pool:out]
ip-2 = 1

[queue:default]
egress_pool = nowhere
retry_interval = often

[path:default]
enable_tls = Perhaps

[sauce:x]
a = b
"""
"""Line by line: 2, 3, 7, 8, 11, 12, 15, 18, 19, 22, 24."""


class ConfigTests(TestCase):
    """C{twistd kumo -c FILE [--check]}."""

    def write(self, text: str) -> tuple[Path, int]:
        """Write a configuration; give its path and its listener's port."""
        port = free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / "kumo.ini"
        path.write_text(text.replace("<port>", str(port)), encoding="utf-8")
        return path, port

    def test_ten_mistakes(self) -> None:
        """Each has its line, with file, line, section and key; the exit status is 1."""
        path, port = self.write(TEN_MISTAKES)
        for more in ([], ["--check"]):
            done = run(twistd("kumo", "-c", str(path), *more), directory=path.parent)
            self.assertEqual(done.returncode, 1, done.stdout)
            self.assertNotIn("Traceback", done.stdout)
            for line in (2, 3, 7, 8, 11, 12, 15, 18, 19, 22, 24):
                self.assertIn(f"kumo.ini:{line}: [", done.stdout)
            self.assertIn("[kumo] hostnme", done.stdout)
            self.assertIn("hostname", done.stdout)
            self.assertFalse(accepts_connections("127.0.0.1", port))

    def test_check_of_a_good_file(self) -> None:
        """C{--check} exits with 0, starts nothing and makes nothing."""
        config = "[listener:in]\nlisten = 127.0.0.1:<port>\n" + direct("[127.0.0.1]:2526")
        path, port = self.write(config)
        done = run(twistd("kumo", "-c", str(path), "--check"), directory=path.parent)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertFalse(accepts_connections("127.0.0.1", port))
        self.assertEqual([one.name for one in path.parent.iterdir()], ["kumo.ini"])

    def test_missing_file(self) -> None:
        """A file that is not there is told in one line."""
        done = run(twistd("kumo", "-c", "/nowhere/kumo.ini"))
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("/nowhere/kumo.ini", done.stdout)
        self.assertNotIn("Traceback", done.stdout)

    def test_key_that_is_not_built_yet(self) -> None:
        """A key of a later version is refused by that name, not silently taken."""
        path, _ = self.write("[throttles]\nurl = redis://127.0.0.1\n")
        done = run(twistd("kumo", "-c", str(path), "--check"), directory=path.parent)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("not supported yet", done.stdout)

    def test_shipped_configuration(self) -> None:
        """C{etc/kumo.ini} is good."""
        path = CHECKOUT / "etc" / "kumo.ini"
        done = run(twistd("kumo", "-c", str(path), "--check"), directory=Path(self.mktemp_dir()))
        self.assertEqual(done.returncode, 0, done.stdout)

    def mktemp_dir(self) -> str:
        """A new directory."""
        path = Path(self.mktemp()).absolute()
        path.mkdir()
        return str(path)

    def test_effective_configuration(self) -> None:
        """C{kumo config FILE} fills in defaults and masks secrets; what it prints can be read."""
        secret = "through-the-looking-glass"
        config = (
            "[source:a]\nsocks5_proxy_server = 127.0.0.1:1080\n"
            f"socks5_proxy_username = alice\nsocks5_proxy_password = {secret}\n"
        )
        path, _ = self.write(config)
        done = run(kumo_command("config", str(path)), directory=path.parent)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn(secret, done.stdout)
        self.assertIn("socks5_proxy_username = alice", done.stdout)
        self.assertIn("verify_source_address = yes", done.stdout)
