"""What a user installs: source archive and wheel, and the wheel in an environment of its own."""

from __future__ import annotations

import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, TestCase

from tests.integration.processes import CHECKOUT, run

NAMES_OF_ENDPOINT = """
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString

one = clientFromString(reactor, r"socks5:192.0.2.1:25:server=127.0.0.1\\:1080:source=127.0.0.2")
two = clientFromString(
    reactor, r"haproxy:192.0.2.1:25:server=127.0.0.1\\:2526:source=127.0.0.2"
)
print(type(one).__module__, type(two).__module__)
for wrong in ("socks5:192.0.2.1:25", "haproxy:192.0.2.1:25:server=nonsense"):
    try:
        clientFromString(reactor, wrong)
    except ValueError as error:
        print("refused:", error)
"""

ENVIRONMENT = {"PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class InstalledTests(TestCase):
    """Built once, from a copy of the sources, and looked at from several sides."""

    timeout = 300.0

    def build(self, directory: Path) -> tuple[Path, Path]:
        """Build both from a copy of what the archive is made of; give their paths."""
        copy = directory / "sources"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", ".real-parts", "_trial_temp*", "build", "dist", "*.egg-info",
            ".*_cache", "var", "__pycache__", ".hypothesis",
        )  # fmt: skip
        shutil.copytree(CHECKOUT, copy, ignore=ignored)
        done = run(
            [sys.executable, "-m", "build", "--outdir", str(directory / "dist"), str(copy)],
            directory=directory, environment=ENVIRONMENT, seconds=200,
        )  # fmt: skip
        if "No module named build" in done.stdout:
            raise SkipTest("missing: build (Python package); `make test` installs it")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertNotIn("SetuptoolsDeprecationWarning", done.stdout)
        [sdist] = (directory / "dist").glob("*.tar.gz")
        [wheel] = (directory / "dist").glob("*.whl")
        return sdist, wheel

    def test_install_the_wheel(self) -> None:
        """From another directory twistd lists our plugins, clientFromString knows our endpoints,
        and the kumo command runs."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        sdist, wheel = self.build(directory)
        self.check_sdist(sdist)
        self.check_wheel(wheel)
        environment = directory / "environment"
        done = run([sys.executable, "-m", "venv", str(environment)], environment=ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stdout)
        python = str(environment / "bin" / "python")
        elsewhere = directory / "elsewhere"
        elsewhere.mkdir()

        def there(*command: str) -> str:
            done = run(command, directory=elsewhere, environment=ENVIRONMENT, seconds=200)
            self.assertEqual(done.returncode, 0, done.stdout)
            return done.stdout

        there(python, "-m", "pip", "install", "--quiet", str(wheel))
        listing = there(str(environment / "bin" / "twistd"), "--help")
        for name in ("kumo", "kumoproxy", "kumosink"):
            self.assertRegex(listing, rf"(?m)^ +{name} +\S")
        output = there(python, "-c", NAMES_OF_ENDPOINT)
        self.assertIn("kumotwist.endpoints", output)
        self.assertEqual(output.count("refused:"), 2)
        self.assertIn("inject", there(str(environment / "bin" / "kumo"), "--help"))
        there(python, "-m", "pip", "check")
        there(python, "-m", "pip", "uninstall", "--yes", "--quiet", "kumotwist")
        listing = there(str(environment / "bin" / "twistd"), "--help")
        self.assertNotIn("kumo", listing)
        self.assertIn("web", listing)

    def check_sdist(self, path: Path) -> None:
        """The source archive has what is needed to build, to test and to read."""
        with tarfile.open(path) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        wanted = {
            "LICENSE", "README.md", "CHANGELOG.md", "Makefile", "setup.cfg", "pyproject.toml",
            "etc/kumo.ini", "etc/haproxy.cfg", "docs/architecture.md", "tests/__init__.py",
            "tests/integration/__init__.py", "tests/integration/real-parts.sh", ".ci/run",
            "twisted/plugins/kumotwist_plugins.py", "kumotwist/py.typed",
        }  # fmt: skip
        self.assertEqual(wanted - names, set())
        self.assertEqual([name for name in names if "dropin.cache" in name or ".pyc" in name], [])

    def check_wheel(self, path: Path) -> None:
        """The wheel has the package and the drop-in, and nothing that would overwrite Twisted."""
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
        self.assertIn("kumotwist/py.typed", names)
        ours = {name for name in names if name.startswith("twisted/")}
        self.assertTrue(ours)
        for name in ours:
            self.assertRegex(name, r"^twisted/plugins/kumotwist\w*\.py$")
        tops = {name.partition("/")[0] for name in names}
        self.assertEqual({top for top in tops if "dist-info" not in top}, {"kumotwist", "twisted"})


class MakeTests(TestCase):
    """The make targets that can be tried without installing anything."""

    def make(self, *arguments: str) -> tuple[int, str]:
        """Run make in the checkout."""
        if shutil.which("make") is None:
            raise SkipTest("missing: make (Debian package make)")
        done = run(["make", "--no-print-directory", *arguments], directory=CHECKOUT)
        return done.returncode, done.stdout

    def test_help_is_the_default(self) -> None:
        """C{make} alone lists the commands."""
        status, output = self.make()
        self.assertEqual(status, 0)
        for name in ("run", "test", "lint", "format", "types", "real-parts"):
            self.assertIn(f"make {name} ", output)

    def test_an_old_python_is_refused_in_words(self) -> None:
        """A Python that is too old, or absent, is told with what to do."""
        old = Path(self.mktemp()).absolute()
        script = '#!/bin/sh\n[ "$1" = -c ] && exit 1\necho "Python 3.9.2"\n'
        old.write_text(script, encoding="utf-8")
        old.chmod(0o755)
        venv = f"{old}-venv"
        status, output = self.make("run", f"PYTHON={old}", f"VENV={venv}")
        self.assertNotEqual(status, 0)
        self.assertIn("needs Python 3.11 or newer", output)
        self.assertIn("Python 3.9.2", output)
        status, output = self.make("run", "PYTHON=/nowhere/python3", f"VENV={venv}")
        self.assertNotEqual(status, 0)
        self.assertIn("/nowhere/python3", output)
        self.assertFalse(Path(venv).exists())
