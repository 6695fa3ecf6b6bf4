"""C{kumo config}, and what the command says of itself."""

from __future__ import annotations

from click.testing import CliRunner

from kumotwist import __version__
from kumotwist.cli import main
from tests.config_case import ConfigCase


class ConfigTests(ConfigCase):
    """C{kumo config FILE}."""

    def test_effective(self) -> None:
        """The defaults are filled in; secrets are not shown."""
        path = self.write(
            "[source:one]\nsocks5_proxy_server = 10.0.5.10:5000\nsocks5_proxy_username = u\n"
            "socks5_proxy_password = hunter2\n"
        )
        result = CliRunner().invoke(main, ["config", path])
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("[source:one]", result.output)
        self.assertIn("retry_interval", result.output)
        self.assertNotIn("hunter2", result.output)

    def test_mistakes(self) -> None:
        """All mistakes are told, on stderr, and the status is 1."""
        path = self.write("[listener:x]\nlisten = nonsense\n[nonsense]\n")
        result = CliRunner().invoke(main, ["config", path])
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertGreaterEqual(len(result.stderr.splitlines()), 2)

    def test_no_file(self) -> None:
        """So is a file that cannot be read."""
        for path in (f"{self.directory}/missing.ini", str(self.directory)):
            result = CliRunner().invoke(main, ["config", path])
            self.assertNotEqual(result.exit_code, 0)
            self.assertIsInstance(result.exception, SystemExit)
            self.assertIn(path, result.stderr)


class MainTests(ConfigCase):
    """The command as a whole."""

    def test_version(self) -> None:
        """C{--version} tells it."""
        self.assertIn(__version__, CliRunner().invoke(main, ["--version"]).output)

    def test_help(self) -> None:
        """Each subcommand explains itself; the statuses of C{inject} are named."""
        self.assertIn("inject", CliRunner().invoke(main, ["--help"]).output)
        text = CliRunner().invoke(main, ["inject", "--help"]).output
        for status in ("0 delivered", "1 bounced", "2 not accepted", "3 no decision"):
            self.assertIn(status, text)
