"""C{twistd kumoproxy} and C{twistd kumosink}: their command lines."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from kumotwist.proxy.settings import ProxySettings
from kumotwist.settings import declared
from kumotwist.smtp.settings import SinkSettings
from kumotwist.tap import kumoproxy, kumosink
from kumotwist.wire.smtp.replies import Reply
from tests.test_tap_kumo import OutputCase


class ProxyTests(OutputCase):
    """C{twistd kumoproxy}."""

    def options(self, *arguments: str) -> kumoproxy.Options:
        """What a command line says."""
        options = kumoproxy.Options()
        options.parseOptions(list(arguments))
        return options

    def wrong(self, *arguments: str) -> str:
        """What is wrong with a command line."""
        return str(self.assertRaises(usage.UsageError, self.options, *arguments))

    def test_listen(self) -> None:
        """One address or several, in either form."""
        options = self.options("--listen", "127.0.0.1:5000", "-l", "tcp:5001")
        self.assertEqual(options.listen, ["tcp:5000:interface=127.0.0.1", "tcp:5001"])
        default = ProxySettings(listen="")
        self.assertEqual(options.settings, default)
        service: Any = kumoproxy.makeService(options)
        [proxies] = service
        self.assertEqual(len(list(proxies)), 2)

    def test_timeouts(self) -> None:
        """The timeouts are written as in a file; a bare number means seconds."""
        options = self.options("-l", ":5000", "--timeout", "10", "--idle-timeout", "2m")
        self.assertEqual((options.settings.timeout, options.settings.idle_timeout), (10, 120))

    def test_config(self) -> None:
        """The proxies of a file."""
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\n[proxy-rule:x]\naction = deny\n")
        options = self.options("-c", path)
        assert options.configuration is not None
        self.assertEqual(list(options.configuration.proxies), ["a"])
        self.assertTrue(IService.providedBy(kumoproxy.makeService(options)))

    def test_http(self) -> None:
        """Metrics and health are served where C{--http} or the file's C{[http]} says."""
        options = self.options("-l", "127.0.0.1:5000", "--http", "127.0.0.1:8001")
        assert options.http is not None
        self.assertEqual(options.http.listen, "tcp:8001:interface=127.0.0.1")
        self.assertTrue(IService.providedBy(kumoproxy.makeService(options)))
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\n[http]\nlisten = :8002\n")
        http = self.options("-c", path).http
        assert http is not None
        self.assertEqual(http.listen, "tcp:8002")
        self.assertIn("--http: ", self.wrong("-l", ":5000", "--http", "nonsense"))
        self.assertIn("a file has [http]", self.wrong("-c", path, "--http", ":1"))

    def test_check(self) -> None:
        """C{--check} builds everything, starts nothing, and says what is wrong."""
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\n")
        for arguments, words in ((["-c", path], path), (["-l", "127.0.0.1:5000"], "kumoproxy")):
            self.stdout.truncate(0)
            self.stdout.seek(0)
            self.assertEqual(self.exit(kumoproxy.Options(), *arguments, "--check"), 0)
            self.assertEqual(self.stdout.getvalue(), f"{words}: ok\n")
        certificate = self.write("nonsense", "cert.pem")
        path = self.write(
            f"[proxy:a]\nlisten = 127.0.0.1:5000\ntls_certificate = {certificate}\n", "tls.ini"
        )
        self.assertEqual(self.exit(kumoproxy.Options(), "-c", path, "--check"), 1)
        self.assertIn(f"{path}:3: [proxy:a] tls_certificate: ", self.stderr.getvalue())

    def test_nobody_could_log_in(self) -> None:
        """A login that is required and cannot be checked is told with its line."""
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\nrequire_auth = yes\n")
        self.assertEqual(self.exit(kumoproxy.Options(), "-c", path), 1)
        self.assertIn(
            f"{path}:3: [proxy:a] require_auth: nobody could log in", self.stderr.getvalue()
        )

    def test_one_way(self) -> None:
        """Either an address or a file."""
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\n")
        for arguments in ([], ["-l", ":5000", "-c", path]):
            self.assertIn("give either --listen ADDR:PORT or -c FILE", self.wrong(*arguments))

    def test_mistakes(self) -> None:
        """Values that cannot be are told with their option."""
        for arguments, words in (
            (["-l", "nonsense"], "--listen: "),
            (["-l", ":99999"], "--listen: "),
            (["-l", ":5000", "--timeout", "soon"], "--timeout: "),
            (["-l", ":5000", "--timeout", "-1"], "--timeout: "),
            (["-l", ":5000", "--idle-timeout", "nan"], "--idle-timeout: "),
            (["-l", ":5000", "--idle-timeout", "inf"], "--idle-timeout: "),
            (["--colour"], "colour"),
            (["surplus"], ""),
        ):
            self.assertIn(words, self.wrong(*arguments), arguments)

    def test_file_without_proxies(self) -> None:
        """A file without proxies, or with timeouts beside it, is a mistake."""
        path = self.write("[listener:x]\nlisten = 127.0.0.1:2525\n")
        self.assertIn("has no [proxy:NAME] section", self.wrong("-c", path))
        self.assertIn("--timeout goes with --listen", self.wrong("-c", path, "--timeout", "5"))

    def test_mistakes_in_the_file(self) -> None:
        """All of them, on stderr, with status 1."""
        path = self.write("[proxy:a]\nlisten = nonsense\ncolour = red\n")
        self.assertEqual(self.exit(kumoproxy.Options(), "-c", path), 1)
        self.assertEqual(len(self.stderr.getvalue().splitlines()), 2)

    def test_cannot_be_built(self) -> None:
        """What cannot be built ends with words."""
        path = self.write("[proxy:a]\nlisten = 127.0.0.1:5000\nauth = no-such-plugin:x\n")
        failure = self.assertRaises(
            SystemExit, lambda: kumoproxy.makeService(self.options("-c", path))
        )
        self.assertTrue(failure.code == 1 or str(failure.code).startswith("kumoproxy: "))


class SinkTests(OutputCase):
    """C{twistd kumosink}."""

    def options(self, *arguments: str) -> kumosink.Options:
        """What a command line says."""
        options = kumosink.Options()
        options.parseOptions(list(arguments))
        return options

    def test_defaults(self) -> None:
        """Without options it listens on loopback and takes everything."""
        settings = self.options().settings
        self.assertEqual(settings.listen, "tcp:2526:interface=127.0.0.1")
        self.assertIsNone(settings.refuse)

    def test_every_key(self) -> None:
        """Each key of [sink:NAME] is an option, explained as in the file."""
        text = kumosink.Options().getUsage(width=10000)
        for key, (_, facts) in declared(SinkSettings).items():
            self.assertIn(f"--{key.replace('_', '-')}=", text)
            if key != "listen":
                self.assertIn(facts.doc, text)

    def test_values(self) -> None:
        """Values are read as in the file."""
        settings = self.options(
            "-l", "127.0.0.1:2626", "--refuse", "451 4.7.1 Not today", "--refuse-at", "rcpt",
            "--refuse-every", "3", "--delay", "1.5s", "--max-message-size", "1M", "--tls", "none",
        ).settings  # fmt: skip
        self.assertEqual(settings.listen, "tcp:2626:interface=127.0.0.1")
        self.assertEqual(settings.refuse, Reply.of(451, "4.7.1", "Not today"))
        self.assertEqual((settings.refuse_at, settings.refuse_every), ("rcpt", 3))
        self.assertEqual((settings.delay, settings.tls), (1.5, "none"))

    def test_mistakes(self) -> None:
        """Values that cannot be are told with their option, in its own spelling."""
        cases: tuple[tuple[list[str], str], ...] = (
            (["--listen", "nonsense"], "--listen: "),
            (["--refuse", "250 ok"], "--refuse: "),
            (["--refuse-at", "lunch"], "--refuse-at: "),
            (["--refuse-percent", "101"], "--refuse-percent: "),
            (["--max-message-size", "10"], "--max-message-size: "),
            (["--tls-certificate", "/nowhere"], "--tls-certificate: "),
            (["--name", "x"], "name"),
        )
        for arguments, words in cases:
            failure = self.assertRaises(usage.UsageError, self.options, *arguments)
            self.assertIn(words, str(failure), arguments)

    def test_half_a_certificate(self) -> None:
        """A certificate without its key is a mistake."""
        path = self.write("x", "cert.pem")
        failure: Any = self.assertRaises(usage.UsageError, self.options, "--tls-certificate", path)
        self.assertIn("--tls-", str(failure))

    def test_built(self) -> None:
        """The sink is built and not yet started."""
        service = kumosink.makeService(self.options("--tls", "none"))
        self.assertTrue(IService.providedBy(service))

    def test_cannot_be_built(self) -> None:
        """What cannot be built ends with words."""
        (self.directory / "var").write_text("a file")
        options = self.options("--state-dir", str(self.directory / "var"))
        failure = self.assertRaises(SystemExit, kumosink.makeService, options)
        self.assertIn("kumosink: state_dir", str(failure.code))
