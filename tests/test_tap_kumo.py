"""C{twistd kumo}: the command line, before anything runs."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import trustme
from twisted.application.service import IService
from twisted.python import usage

from kumotwist import service
from kumotwist.service import Node
from kumotwist.tap.kumo import Options, makeService
from tests.config_case import ConfigCase

GOOD = "[kumo]\nstate_dir = {state}\n[listener:main]\nlisten = 127.0.0.1:2525\ntls = none\n"


class OutputCase(ConfigCase):
    """A test case that catches what is printed."""

    def setUp(self) -> None:
        """Catch it."""
        super().setUp()
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)
        self.patch(sys, "excepthook", sys.excepthook)
        # The signals of this process are trial's.
        self.patch(service, "obey_signals", lambda *_, **__: None)

    def good(self) -> str:
        """The path of a configuration that is right."""
        return self.write(GOOD.format(state=self.directory / "var"))

    def exit(self, options: usage.Options, *arguments: str) -> object:
        """The status with which a command line ends."""
        return self.assertRaises(SystemExit, options.parseOptions, list(arguments)).code


class OptionsTests(OutputCase):
    """Options."""

    def test_reads(self) -> None:
        """The configuration is read and checked at once."""
        options = Options()
        options.parseOptions(["-c", self.good()])
        self.assertEqual(list(options.configuration.listeners), ["main"])
        self.assertEqual((self.stdout.getvalue(), self.stderr.getvalue()), ("", ""))

    def test_check(self) -> None:
        """C{--check} says that it is right, with status 0, and touches nothing."""
        path = self.good()
        self.assertEqual(self.exit(Options(), "--config", path, "--check"), 0)
        self.assertEqual(self.stdout.getvalue(), f"{path}: ok\n")
        self.assertEqual([each.name for each in self.directory.iterdir()], ["kumo.ini"])

    def test_check_certificates(self) -> None:
        """Certificates are tried with their keys, those of proxies as well; what cannot be used is
        among all that is wrong, with its line, with and without C{--check}."""
        nonsense = self.write("nonsense", "nonsense.pem")
        pair = f"tls_certificate = {nonsense}\ntls_private_key = {nonsense}\n"
        path = self.write(
            f"[listener:in]\nlisten = 127.0.0.1:2525\n{pair}"
            f"[sink:x]\nlisten = 127.0.0.1:2526\n{pair}"
            f"[proxy:p]\nlisten = 127.0.0.1:5000\n{pair}"
            f"[proxy:lost]\nlisten = 127.0.0.1:5001\ntls_certificate = {nonsense}.lost\n"
            "[log]\ncolour = red\n"
        )
        for flags in ([], ["--check"]):
            self.stderr.truncate(0)
            self.assertEqual(self.exit(Options(), "-c", path, *flags), 1)
            lines = self.stderr.getvalue().strip("\0").splitlines()
            places = ((3, "listener:in"), (7, "sink:x"), (11, "proxy:p"), (15, "proxy:lost"))
            for line, (number, section) in zip(lines, places, strict=False):
                start = f"{path}:{number}: [{section}] tls_certificate: "
                self.assertTrue(line.startswith(start), line)
                self.assertIn(nonsense, line)
            self.assertEqual(len(lines), 5, lines)
        self.assertEqual(self.stdout.getvalue(), "")

    def test_wrong_key(self) -> None:
        """A key that does not fit is told at its own line, and so is a missing one."""
        authority = trustme.CA()
        one, other = (authority.issue_cert(name) for name in ("a.example", "b.example"))
        chain = self.write(one.cert_chain_pems[0].bytes().decode(), "one.pem")
        key = self.write(other.private_key_pem.bytes().decode(), "other.key")
        pair = f"tls_certificate = {chain}\ntls_private_key = {key}\n"
        path = self.write(
            f"[listener:in]\nlisten = 127.0.0.1:2525\n{pair}"
            f"[proxy:p]\nlisten = 127.0.0.1:5000\n{pair}"
            f"[proxy:q]\nlisten = 127.0.0.1:5001\ntls_certificate = {chain}\n"
        )
        self.assertEqual(self.exit(Options(), "-c", path, "--check"), 1)
        lines = self.stderr.getvalue().splitlines()
        for line, (number, where) in zip(
            lines,
            ((4, "[listener:in] tls_private_key"), (8, "[proxy:p] tls_private_key"),
             (11, "[proxy:q] tls_certificate")),
            strict=True,
        ):  # fmt: skip
            self.assertTrue(line.startswith(f"{path}:{number}: {where}: "), line)

    def test_mistakes(self) -> None:
        """Every mistake is told on stderr, with status 1, with and without C{--check}."""
        path = self.write(
            "[listener:x]\nlisten = nonsense\ncolour = red\n[queue:default]\nroute=[\n"
        )
        for flags in ([], ["--check"]):
            self.stderr.truncate(0)
            self.assertEqual(self.exit(Options(), "-c", path, *flags), 1)
            lines = self.stderr.getvalue().strip("\0").splitlines()
            self.assertEqual(len(lines), 3, lines)
            for number, line in zip((2, 3, 5), lines, strict=True):
                self.assertIn(f"{path}:{number}", line)
        self.assertEqual(self.stdout.getvalue(), "")

    def test_no_file(self) -> None:
        """A configuration that is not there is told likewise."""
        path = str(self.directory / "missing.ini")
        self.assertEqual(self.exit(Options(), "-c", path), 1)
        self.assertIn(path, self.stderr.getvalue())

    def test_usage(self) -> None:
        """Unknown options are told by twistd."""
        for arguments in (["--colour"], ["-c"], ["surplus"]):
            self.assertRaises(usage.UsageError, Options().parseOptions, arguments)


class MakeServiceTests(OutputCase):
    """The node."""

    def options(self, path: str) -> Options:
        """The options for a configuration."""
        options = Options()
        options.parseOptions(["-c", path])
        return options

    def test_built(self) -> None:
        """A node is built and not yet started: nothing listens, nothing is opened."""
        node = makeService(self.options(self.good()))
        self.assertIsInstance(node, Node)
        self.assertTrue(IService.providedBy(node))
        self.assertFalse(node.running)

    def test_cannot_be_built(self) -> None:
        """What cannot be built ends with words, not with a traceback."""
        (self.directory / "var").write_text("a file")
        failure = self.assertRaises(SystemExit, makeService, self.options(self.good()))
        self.assertIn("kumo: state_dir", str(failure.code))

    def test_damaged_node_id(self) -> None:
        """So does a node whose id is damaged."""
        state = self.directory / "var"
        state.mkdir()
        Path(state, "nodeid").write_text("?")
        failure = self.assertRaises(SystemExit, makeService, self.options(self.good()))
        self.assertIn("not a node id", str(failure.code))
