"""C{kumo source check}: what the command line and the configuration make of it."""

from __future__ import annotations

import click
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.check import CheckSettings
from kumotwist.cli.main import main
from kumotwist.cli.source import choose, hurried, override, subjects_of
from kumotwist.config import Configuration
from kumotwist.dns.settings import DNSSettings
from tests.config_case import ConfigCase

SOURCES = """
[kumo]
hostname = node.example

[source:a]
source_address = 192.0.2.1
ehlo_domain = a.example
[source:b]
source_address = 192.0.2.2
[source:off]
source_address = 192.0.2.3
[source:lonely]
source_address = 192.0.2.4

[pool:main]
a = 1
off = 0
[pool:other]
b = 2

[queue:default]
egress_pool = main
[queue:example.com]
egress_pool = other
[queue:example.net]
max_age = 1d
"""


class ChoiceTests(ConfigCase):
    """Which sources are checked."""

    def test_those_that_send(self) -> None:
        """Without names, every source that a pool in use gives a weight; the others are named."""
        self.assertEqual(choose(self.load(SOURCES), ()), (("a", "b"), ("off", "lonely")))

    def test_none_configured(self) -> None:
        """Without sources mail leaves directly, and that is checked."""
        self.assertEqual(choose(self.load("[kumo]\n"), ()), (("unspecified",), ()))

    def test_nothing_sends(self) -> None:
        """Where no source gets mail there is nothing to check, which is not all right."""
        text = SOURCES.replace("a = 1", "a = 0").replace("b = 2", "b = 0")
        error = self.assertRaises(click.UsageError, choose, self.load(text), ())
        self.assertIn("no pool in use", error.message)

    def test_by_name(self) -> None:
        """Names are taken as they are given, each once."""
        found = choose(self.load(SOURCES), ("off", "a", "off"))
        self.assertEqual(found, (("off", "a"), ()))

    def test_unknown_name(self) -> None:
        """A name that is none is an error of usage, with the near one."""
        error = self.assertRaises(click.UsageError, choose, self.load(SOURCES), ("lonly",))
        self.assertEqual(error.message, "there is no source 'lonly' (did you mean lonely?)")


class EHLOTests(ConfigCase):
    """What a source calls itself."""

    def names(self, configuration: Configuration) -> list[str]:
        """The EHLO names of the sources a and b."""
        subjects = subjects_of(configuration, configuration.check, ("a", "b"))
        return [subject.ehlo_domain for subject in subjects]

    def test_names(self) -> None:
        """The path's name before the source's before the node's, as for mail."""
        self.assertEqual(self.names(self.load(SOURCES)), ["a.example", "node.example"])
        path = "[path:mx.example via b]\nehlo_domain = p.example\n[check]\nmx = MX.example\n"
        self.assertEqual(self.names(self.load(SOURCES + path)), ["a.example", "p.example"])


class OptionTests(ConfigCase):
    """Options instead of C{[check]}."""

    def test_override(self) -> None:
        """An option replaces its key, the others stay."""
        text = "[check]\nmx = mx.example\necho = 192.0.2.9:2526\nblocklists = a.example\n"
        settings = self.load(text).check
        found = override(
            settings, {"mx": "192.0.2.7", "blocklists": "b.example,c.example", "echo": None}
        )
        self.assertEqual(found.mx, ("192.0.2.7", 25))
        self.assertEqual(found.echo, settings.echo)
        self.assertEqual(found.blocklists, ("b.example", "c.example"))
        self.assertEqual(override(settings, {}), settings)

    def test_nonsense(self) -> None:
        """What is none names the option."""
        for key, text in (("mx", "a:b"), ("blocklists", "a b"), ("timeout", "soon")):
            error = self.assertRaises(
                click.UsageError, override, self.load("[kumo]\n").check, {key: text}
            )
            self.assertTrue(error.message.startswith(f"--{key.removesuffix('s')}: "))

    def run_command(self, *arguments: str) -> tuple[int, str]:
        """Run C{kumo source check} where it ends before anything is connected."""
        done = CliRunner().invoke(main, ["source", "check", *arguments])
        return done.exit_code, done.output

    def test_usage(self) -> None:
        """What cannot be done has the status 2, which no source can cause."""
        path = self.write(SOURCES)
        for arguments in (["nobody"], ["--mx", "a:b"], ["--what"]):
            status, _ = self.run_command("-c", path, *arguments)
            self.assertEqual(status, 2)
        broken = self.write("[source:a]\nnonsense = 1\n", "broken.ini")
        status, output = self.run_command("-c", broken)
        self.assertEqual(status, 2)
        self.assertIn("broken.ini:2: [source:a] nonsense: unknown key", output)
        self.assertEqual(self.run_command("-c", f"{path}.missing")[0], 2)


class HurryTests(SynchronousTestCase):
    """How long names are looked up."""

    def test_hurried(self) -> None:
        """A look-up takes no longer than a check may, and never longer than elsewhere."""
        for timeout, expected in ((3.0, 3.0), (20.0, 5.0)):
            dns = hurried(DNSSettings(timeout=5.0), CheckSettings(timeout=timeout))
            self.assertEqual(dns.timeout, expected)
