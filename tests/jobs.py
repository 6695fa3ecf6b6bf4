"""Several trial runs side by side: C{python -m tests.run --jobs N}.

The unit tests are one run and each module of the integration tests is one, in a process and a
directory of its own. What a run wrote is shown when it ends, what a failed one wrote at the very
end.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TextIO

import attrs

from tests.counts import Counts

__all__ = ["Job", "run_jobs"]

#: No run may take longer, in seconds; a test ends after two minutes unless it says otherwise.
LONGEST = 900.0

_COUNTS = re.compile(rb"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.MULTILINE)


@attrs.define(frozen=True)
class Job:
    """One run of trial.

    @ivar title: what it is called in the output.
    @ivar names: the dotted names of its tests.
    """

    title: str
    names: tuple[str, ...]

    def run(self, arguments: Sequence[str], directory: str) -> tuple[Counts, str]:
        """Run it in a process of its own, and wait for its end.

        @param arguments: further arguments of the test command.
        @param directory: trial's directory.
        @return: the counts, and all that it wrote. A run that does not come to its end counts
            as a failed test.
        """
        command = [sys.executable, "-m", "tests.run", *self.names, *arguments]
        command += ["--temp-directory", directory]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            return Counts(failed=1), f"{_text(error.stdout)}\nnot at its end after {LONGEST} s\n"
        found = _COUNTS.findall(done.stdout)
        if not found:
            return Counts(failed=1), f"{_text(done.stdout)}\nended with {done.returncode}\n"
        counts = Counts(*(int(number) for number in found[-1]))
        nothing = not counts.passed and counts.skipped  # no success, and no failure
        if done.returncode and not counts.failed and not nothing:
            counts = attrs.evolve(counts, failed=1)
        return counts, _COUNTS.sub(b"", _octets(done.stdout)).decode(errors="replace").rstrip()


def run_jobs(
    jobs: Sequence[Job], at_once: int, arguments: Sequence[str], directory: str, stream: TextIO
) -> Counts:
    """Run all of them, so many at once.

    @param arguments: what each run is told besides its names.
    @param directory: the beginning of the names of their directories.
    @param stream: where their output goes.
    @return: the sum of their counts.
    """
    total = Counts()
    failed: list[str] = []
    for job, counts, text in _finished(jobs, at_once, arguments, directory):
        total += counts
        shown = f"== {job.title}: {counts}\n{text}\n"
        if counts.failed:
            failed.append(shown)
            shown = f"== {job.title}: {counts}; see the end\n"
        stream.write(shown)
        stream.flush()
    stream.writelines(failed)
    return total


def _finished(
    jobs: Sequence[Job], at_once: int, arguments: Sequence[str], directory: str
) -> Iterator[tuple[Job, Counts, str]]:
    with ThreadPoolExecutor(at_once) as pool:
        running = {
            pool.submit(job.run, arguments, f"{directory}-{number}"): job
            for number, job in enumerate(jobs)
        }
        for future in as_completed(running):
            yield running[future], *future.result()


def _octets(output: bytes | None) -> bytes:
    return output or b""


def _text(output: bytes | None) -> str:
    return _octets(output).decode(errors="replace")
