"""Real processes as children of a test: their output is kept, and none outlives its test."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.integration.waiting import accepts_connections, until

__all__ = ["CHECKOUT", "Child", "ChildFailed", "run"]

CHECKOUT = Path(__file__).resolve().parents[2]
"""The top of the source tree, from which children import kumotwist."""


class ChildFailed(AssertionError):
    """A child process did not do what it was started for; the text ends with its output."""


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours, with the checkout importable and output unbuffered."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = str(CHECKOUT)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/sbin"
    environment.update(extra or {})
    return environment


class Child:
    """A process that runs while a test runs.

    It gets its own session, so that it and whatever it forks are killed together; standard output
    and standard error go to one file, which is part of every complaint.

    @ivar name: what complaints call it.
    @ivar log_path: the file with its output.
    @ivar process: the running process.
    """

    def __init__(
        self,
        test: TestCase,
        name: str,
        command: Sequence[str],
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, and see to it that it is killed when the test is over.

        @param test: the test that it belongs to.
        @param directory: its working directory; a new one if absent.
        @param environment: what its environment has besides.
        """
        self.name = name
        self.directory = Path(test.mktemp()).absolute() if directory is None else directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.out"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                list(command),
                cwd=self.directory,
                env=child_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # The test command shows the output of a failed test's children.
        vars(test).setdefault("children", []).append(self)
        test.addCleanup(self.kill_9)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def output(self) -> str:
        """What it has written so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def complain(self, problem: str) -> ChildFailed:
        """An error whose text has the last of the output."""
        return ChildFailed(f"{self.name}: {problem}\n--- its output:\n{self.output()[-6000:]}")

    async def wait_for_output(self, pattern: str, seconds: float = 20.0) -> re.Match[str]:
        """Wait until a regular expression matches somewhere in the output."""

        def look() -> re.Match[str] | None:
            found = re.search(pattern, self.output(), re.MULTILINE)
            if found is None and not self.running:
                raise self.complain(f"ended with {self.process.returncode}, no {pattern!r}")
            return found

        return await until(look, lambda: str(self.complain(f"no {pattern!r}")), seconds)

    async def wait_for_listening(
        self, port: int, host: str = "127.0.0.1", seconds: float = 20.0
    ) -> None:
        """Wait until a TCP connection to the port succeeds; a child that ended is a failure."""

        def look() -> bool:
            if not self.running:
                raise self.complain(f"ended with {self.process.returncode} before it listened")
            return accepts_connections(host, port)

        await until(look, lambda: str(self.complain(f"nobody listens on {host}:{port}")), seconds)

    async def wait_for_exit(self, seconds: float = 20.0) -> int:
        """Wait until it ends.

        @return: the exit status; negative for a signal.
        """
        await until(lambda: not self.running, lambda: str(self.complain("still runs")), seconds)
        assert self.process.returncode is not None
        return self.process.returncode

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def kill_9(self) -> None:
        """Kill it and what it forked, at once, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    async def stop(self, seconds: float = 20.0) -> int:
        """End it as an operator would, with SIGTERM.

        @return: the exit status.
        """
        self.signal(signal.SIGTERM)
        return await self.wait_for_exit(seconds)


def run(
    command: Sequence[str],
    *,
    input: bytes = b"",
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; blocks, so it is for what does not talk to this process.

    A command that talks to a sink of the test must run in a thread: C{deferToThread(run, ...)}.

    @raise ChildFailed: it did not end in time.
    """
    process = subprocess.Popen(
        list(command),
        cwd=directory,
        env=child_environment(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(input, timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        text = output.decode("utf-8", "replace")
        raise ChildFailed(f"{command[0]}: not done in {seconds:g} s\n{text[-6000:]}") from None
    return subprocess.CompletedProcess(
        list(command), process.returncode, output.decode("utf-8", "replace"), ""
    )
