"""What a user installs agrees with itself: version, dependencies, plugins."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.internet.interfaces import IStreamClientEndpointStringParserWithReactor
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import kumotwist

CHECKOUT = Path(__file__).resolve().parent.parent


def setup_cfg() -> configparser.ConfigParser:
    """The package's declaration."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    return parser


def requirements(text: str) -> list[str]:
    """The packages of a list of requirements, without their versions."""
    return [re.split(r"\s*[<>=!~;]", line)[0].strip() for line in text.splitlines() if line.strip()]


class DeclarationTests(SynchronousTestCase):
    """setup.cfg, the documents and the code say the same."""

    def test_version_and_changelog(self) -> None:
        """The newest entry of the changelog is the package's version."""
        text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
        entries = re.findall(r"^## (\d+\.\d+\.\d+)", text, re.MULTILINE)
        self.assertEqual(entries[0], kumotwist.__version__)

    def test_every_dependency_has_its_reason(self) -> None:
        """docs/dependencies.md has a line for each required package, and for no other."""
        parser = setup_cfg()
        declared = requirements(parser["options"]["install_requires"])
        for extra in parser["options.extras_require"].values():
            declared += requirements(extra)
        text = (CHECKOUT / "docs" / "dependencies.md").read_text(encoding="utf-8")
        packages = text.partition("## Real counterparts")[0]
        explained = re.findall(r"^\| `([^`]+)` \|", packages, re.MULTILINE)
        self.assertEqual(sorted(explained), sorted(declared))

    def test_every_real_part_is_installed_and_explained(self) -> None:
        """What a test may miss is in real-parts.sh and in docs/dependencies.md."""
        from tests.integration.parts import PARTS

        script = (CHECKOUT / "tests" / "integration" / "real-parts.sh").read_text("utf-8")
        document = (CHECKOUT / "docs" / "dependencies.md").read_text("utf-8")
        for part in PARTS:
            self.assertRegex(script, rf"\nneed(_unpacked)? {part.command} {part.package}\b")
            self.assertIn(f"`{part.package}`", document)

    def test_supported_pythons(self) -> None:
        """Every Python that is named as supported is allowed."""
        parser = setup_cfg()
        lowest = parser["options"]["python_requires"].removeprefix(">=")
        named = re.findall(r"Python :: (3\.\d+)", parser["metadata"]["classifiers"])
        self.assertEqual(lowest, named[0])


class PluginTests(SynchronousTestCase):
    """twistd and clientFromString find what is ours."""

    def test_service_makers(self) -> None:
        """twistd knows kumo, kumoproxy and kumosink, each with a description."""
        ours = {
            maker.tapname: maker
            for maker in getPlugins(IServiceMaker)
            if str(maker.tapname).startswith("kumo")
        }
        self.assertEqual(set(ours), {"kumo", "kumoproxy", "kumosink"})
        for maker in ours.values():
            verifyObject(IServiceMaker, maker)
            verifyObject(IPlugin, maker)
            self.assertTrue(maker.description)

    def test_endpoint_parsers(self) -> None:
        """clientFromString knows our prefixes."""
        ours = {
            parser.prefix: parser
            for parser in getPlugins(IStreamClientEndpointStringParserWithReactor)
            if type(parser).__module__.startswith("kumotwist")
        }
        self.assertLessEqual({"socks5", "http-connect", "haproxy"}, set(ours))
        for parser in ours.values():
            verifyObject(IStreamClientEndpointStringParserWithReactor, parser)

    def test_drop_ins_are_light(self) -> None:
        """Every Twisted program imports our drop-ins when it looks for plugins: they pull in
        neither the MTA nor the reactor."""
        drop_ins = sorted((CHECKOUT / "twisted" / "plugins").glob("kumotwist*.py"))
        self.assertNotEqual(drop_ins, [])
        code = "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        code += "".join(f"import twisted.plugins.{path.stem}\n" for path in drop_ins)
        code += "print(*sys.modules)"
        output = subprocess.run(
            [sys.executable, "-c", code, str(CHECKOUT)], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(output.returncode, 0, output.stderr)
        loaded = set(output.stdout.split())
        heavy = {"twisted.internet.reactor", "sqlite3", "dns", "click"}
        for room in ("queue", "spool", "smtp", "config", "service", "tap", "proxy", "cli", "dns"):
            heavy.add(f"kumotwist.{room}")
        self.assertEqual(loaded & heavy, set())
