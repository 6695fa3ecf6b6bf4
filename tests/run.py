"""The test command: C{python -m tests.run [unit] [integration] [NAME...]}.

Runs the suites with trial, in this process and in one trial run (trial shuts the reactor's thread
pool down at the end of a run), or with C{--jobs N} in several runs, N at once, and closes with one
line C{N passed, N failed, N skipped} made from trial's own counts (an error counts as failed). The
exit status is not zero if anything failed, and also if no test ran at all, which trial itself
takes for success.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import attrs
from twisted.trial import reporter, runner

from tests.counts import Counts
from tests.jobs import Job, run_jobs

__all__ = ["Counts", "Options", "as_jobs", "main", "run_suite", "suite_names"]

TESTS = Path(__file__).resolve().parent
SUITES = ("unit", "integration")


@attrs.define(frozen=True)
class Options:
    """How to run a suite.

    @ivar seed: shuffles the tests with this seed; L{None} keeps them in order.
    @ivar brief: whether a test is reported as a letter, not as a line.
    @ivar working_directory: where trial runs the tests and keeps what they wrote.
    """

    seed: int | None = None
    brief: bool = False
    working_directory: str = "_trial_temp"


def suite_names(suite: str) -> list[str]:
    """The dotted names of what belongs to a suite.

    @param suite: C{unit}, C{integration}, or the dotted name of something else that trial can
        load, which stands for itself.
    """
    if suite == "integration":
        return ["tests.integration"]
    if suite == "unit":
        return sorted(f"tests.{path.stem}" for path in TESTS.glob("test_*.py"))
    return [suite]


def as_jobs(suites: Sequence[str]) -> list[Job]:
    """What the suites are when they run side by side: integration tests a module at a time."""
    jobs = []
    for suite in suites:
        if suite == "integration":
            paths = sorted((TESTS / "integration").glob("test_*.py"))
            names = [f"tests.integration.{path.stem}" for path in paths]
            jobs += [Job(name, (name,)) for name in names]
        else:
            jobs.append(Job(suite, tuple(suite_names(suite))))
    return jobs


class ChildrenMixin(reporter.Reporter):
    """Shows what the child processes of a failed test wrote.

    A test's children are the items of its attribute C{children}, if it has one.
    """

    def addFailure(self, test: Any, fail: Any) -> None:
        """Remember whose children to show."""
        super().addFailure(test, fail)
        self._remember(test)

    def addError(self, test: Any, error: Any) -> None:
        """Remember whose children to show."""
        super().addError(test, error)
        self._remember(test)

    def _remember(self, test: Any) -> None:
        children = getattr(getattr(test, "_originalTest", test), "children", ())
        self.__dict__.setdefault("unhappy", {})[test.id()] = children

    def _printErrors(self) -> None:
        for test_id, children in self.__dict__.get("unhappy", {}).items():
            for child in children:
                self._writeln(f"--- {child.name} in {test_id} wrote:")
                self._writeln("%s", child.output()[-8000:])
        super()._printErrors()


class LineReporter(ChildrenMixin, reporter.TreeReporter):
    """A line for each test."""


class LetterReporter(ChildrenMixin, reporter.TextReporter):
    """A letter for each test."""


def run_suite(names: Sequence[str], stream: TextIO, options: Options) -> Counts:
    """Run what the names stand for, in that order.

    @param names: dotted names of packages, modules, classes or methods. One that cannot be
        imported counts as a failed test.
    @param stream: where trial reports to.
    @return: trial's counts.
    """
    loader = runner.TestLoader()
    loader.suiteFactory = runner.DestructiveTestSuite
    if options.seed is not None:
        shuffler = random.Random(options.seed)
        loader.sorter = lambda _: shuffler.random()
    trial = runner.TrialRunner(
        LetterReporter if options.brief else LineReporter,
        stream=stream,
        workingDirectory=options.working_directory,
    )
    result = trial.run(loader.loadByNames(list(names), recurse=True))
    assert isinstance(result, reporter.TestResult)
    return Counts.of(result)


def report_missing_parts(stream: TextIO) -> None:
    """Say for each real counterpart that is not installed what is missing and how to get it."""
    from tests.integration.parts import missing_parts

    for part in missing_parts():
        stream.write(f"{part}\n")


def main(arguments: Sequence[str] | None = None, stream: TextIO | None = None) -> int:
    """Run the command.

    @return: the exit status: 0 if at least one test passed and none failed.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    parser.add_argument(
        "suites",
        nargs="*",
        default=list(SUITES),
        metavar="SUITE",
        help="unit, integration, or a dotted name (default: unit, then integration)",
    )
    parser.add_argument("--random", type=int, metavar="SEED", help="shuffle the tests")
    parser.add_argument("--brief", action="store_true", help="report a letter for each test")
    parser.add_argument("--temp-directory", default="_trial_temp", help="trial's directory")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="so many runs of trial at once"
    )
    parsed = parser.parse_args(arguments)
    out = sys.stdout if stream is None else stream
    if parsed.jobs > 1:
        passed_on = ["--brief"] * parsed.brief
        if parsed.random is not None:
            passed_on += ["--random", str(parsed.random)]
        jobs = as_jobs(parsed.suites)
        counts = run_jobs(jobs, parsed.jobs, passed_on, parsed.temp_directory, out)
    else:
        options = Options(parsed.random, parsed.brief, parsed.temp_directory)
        names = [name for suite in parsed.suites for name in suite_names(suite)]
        counts = run_suite(names, out, options)
    if "integration" in parsed.suites:
        report_missing_parts(out)
    if counts.passed + counts.failed == 0:
        out.write("no test ran\n")
    out.write(f"{counts}\n")
    out.flush()
    return 0 if counts.successful else 1


if __name__ == "__main__":
    sys.exit(main())
