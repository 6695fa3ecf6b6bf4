"""The test command counts as trial does, and never takes nothing for success."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.run import Counts, as_jobs, main, suite_names

CHECKOUT = Path(__file__).resolve().parent.parent

MIXED = """
from twisted.trial.unittest import SynchronousTestCase


class Child:
    name = "a child"

    def output(self):
        return "what the child wrote, 100%"


class Mixed(SynchronousTestCase):
    def test_good(self):
        pass

    def test_bad(self):
        self.children = [Child()]
        self.assertEqual(1, 2)

    def test_error(self):
        raise RuntimeError("broken")

    def test_skipped(self):
        pass

    test_skipped.skip = "not today"

    def test_announced(self):
        self.assertEqual(1, 2)

    test_announced.todo = "one day"

    def test_unexpected(self):
        pass

    test_unexpected.todo = "one day"
"""


class RunnerTests(SynchronousTestCase):
    """C{python -m tests.run}."""

    def run_module(self, text: str) -> tuple[int, list[str]]:
        """Run a module of tests; give the exit status and the lines of output."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "sample_tests.py").write_text(text, encoding="utf-8")
        code = (
            f"import sys; sys.path[:0] = {[str(CHECKOUT), str(directory)]!r}\n"
            "from tests.run import main; sys.exit(main(['sample_tests']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.splitlines()

    def test_counts(self) -> None:
        """Errors and unexpected successes count as failed, announced failures as passed; a failed
        test's children are heard; the counts come last."""
        status, lines = self.run_module(MIXED)
        self.assertEqual(lines[-1], "2 passed, 3 failed, 1 skipped")
        self.assertEqual(status, 1)
        self.assertIn("what the child wrote, 100%", lines)

    def test_success(self) -> None:
        """If all pass, the status is 0."""
        text = "from twisted.trial.unittest import TestCase\n\n\nclass One(TestCase):\n"
        status, lines = self.run_module(text + "    def test_it(self):\n        pass\n")
        self.assertEqual((status, lines[-1]), (0, "1 passed, 0 failed, 0 skipped"))

    def test_nothing(self) -> None:
        """No test is no success."""
        status, lines = self.run_module("")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 0 failed, 0 skipped"))

    def test_broken_module(self) -> None:
        """A module that cannot be imported counts as failed."""
        status, lines = self.run_module("import nothing_of_that_name\n")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))

    def test_side_by_side(self) -> None:
        """Runs in processes of their own are added up; what failed is shown last; one that has no
        test or dies counts as failed, one that was skipped does not."""
        good = "from twisted.trial.unittest import TestCase\n\n\nclass One(TestCase):\n"
        status, lines = self.run_jobs(
            mixed=MIXED,
            good=good + "    def test_it(self):\n        pass\n",
            skipped=good + "    skip = 'no'\n\n    def test_it(self):\n        pass\n",
            empty="",
            dies=good + "    def test_it(self):\n        import os\n        os._exit(0)\n",
        )
        self.assertEqual((status, lines[-1]), (1, "3 passed, 5 failed, 2 skipped"))
        self.assertIn("== good: 1 passed, 0 failed, 0 skipped", lines)
        self.assertLess(lines.index("== good: 1 passed, 0 failed, 0 skipped"), len(lines) - 1)
        shown = [line for line in lines if line.startswith("== mixed")]
        self.assertEqual(shown[0], "== mixed: 2 passed, 3 failed, 1 skipped; see the end")
        self.assertEqual(shown[1], "== mixed: 2 passed, 3 failed, 1 skipped")

    def run_jobs(self, **modules: str) -> tuple[int, list[str]]:
        """Run modules side by side; give the exit status and the lines of output."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for name, text in modules.items():
            (directory / f"{name}.py").write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "tests.run", "--jobs", "3", *modules],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{directory}"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout.splitlines()

    def test_jobs(self) -> None:
        """Side by side the unit tests are one run, and each module of the others is one."""
        titles = [job.title for job in as_jobs(["unit", "integration"])]
        self.assertEqual(titles[0], "unit")
        self.assertIn("tests.integration.test_inject", titles)

    def test_suites(self) -> None:
        """The unit suite is every test module of the top level, and not the integration tests."""
        names = suite_names("unit")
        self.assertIn("tests.test_runner", names)
        self.assertFalse([name for name in names if "integration" in name])
        self.assertEqual(suite_names("tests.test_x.Case"), ["tests.test_x.Case"])

    def test_successful(self) -> None:
        """Skips alone are no success, and no failure hides behind successes."""
        self.assertFalse(Counts(0, 0, 5).successful)
        self.assertFalse(Counts(5, 1, 0).successful)
        self.assertTrue(Counts(5, 0, 1).successful)

    def test_unknown_option(self) -> None:
        """A misspelt option is refused."""
        self.patch(sys, "stderr", io.StringIO())
        self.assertRaises(SystemExit, main, ["--nonsense"], io.StringIO())
