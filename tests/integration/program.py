"""Our own programs as children: C{twistd kumo}, C{kumoproxy} and C{kumosink}, and C{kumo}."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import TestCase

from tests.integration.processes import Child
from tests.integration.waiting import free_port, greets, until

__all__ = ["Kumo", "Record", "kumo_command", "start_kumo", "start_plugin", "twistd"]

Record = dict[str, Any]


def twistd(*arguments: str) -> list[str]:
    """The command line of twistd, run by the Python that runs the tests."""
    start = "from twisted.scripts.twistd import run; run()"
    return [sys.executable, "-c", start, "--pidfile=", "-n", *arguments]


def kumo_command(*arguments: str) -> list[str]:
    """The command line of C{kumo}, run by the Python that runs the tests."""
    start = "import sys; sys.argv[0] = 'kumo'; from kumotwist.cli import main; sys.exit(main())"
    return [sys.executable, "-c", start, *arguments]


class Kumo(Child):
    """The MTA as a process, with its files.

    @ivar config_path: the configuration file.
    @ivar state: the state directory; it survives the process.
    @ivar port: where the listener C{in} of L{start_kumo} listens.
    """

    def __init__(
        self,
        test: TestCase,
        config_path: Path,
        state: Path,
        port: int,
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.config_path = config_path
        self.state = state
        self.port = port
        command = [*prefix, *twistd(*options, "kumo", "-c", str(config_path))]
        super().__init__(test, "kumo", command, directory=config_path.parent)

    def records(self, **wanted: object) -> list[Record]:
        """The records that were written so far, oldest first.

        @param wanted: only those whose fields have these values.
        """
        found: list[Record] = []
        for path in sorted((self.state / "log").glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):
                    found.append(json.loads(line))
        return [
            record
            for record in found
            if all(record.get(field) == value for field, value in wanted.items())
        ]

    async def wait_for_records(
        self, number: int = 1, seconds: float = 20.0, **wanted: object
    ) -> list[Record]:
        """Wait until so many records with these field values are there; give all of them."""

        def look() -> list[Record] | None:
            found = self.records(**wanted)
            return found if len(found) >= number else None

        def complaint() -> str:
            there = json.dumps(self.records(), indent=1)
            return str(self.complain(f"no {number} records with {wanted}; there are {there}"))

        return await until(look, complaint, seconds)

    async def wait_until_ready(self, seconds: float = 20.0) -> None:
        """Wait until the listener C{in} takes mail."""

        def look() -> bool:
            if not self.running:
                raise self.complain(f"ended with {self.process.returncode} before it was ready")
            return greets("127.0.0.1", self.port)

        await until(look, lambda: str(self.complain("it does not greet with 220")), seconds)

    async def restart(self, test: TestCase) -> Kumo:
        """Start it again over the same state, after it has ended; wait until it takes mail."""
        again = Kumo(test, self.config_path, self.state, self.port)
        await again.wait_until_ready()
        return again


_BASE = """\
[kumo]
hostname = mta.example.test
state_dir = {state}

[listener:in]
listen = 127.0.0.1:{port}
"""


async def start_kumo(
    test: TestCase,
    config: str,
    *,
    base: str = _BASE,
    wait: bool = True,
    names: Mapping[str, object] | None = None,
    options: Sequence[str] = (),
    prefix: Sequence[str] = (),
) -> Kumo:
    """Start the MTA and wait until it takes mail.

    @param config: what follows in the file after C{[kumo]} and C{[listener:in]}; begins within the
        latter, so keys of the listener may come first. C{<NAME>} is replaced from C{names}.
    @param base: replaces the beginning; has C{{state}} and C{{port}}.
    @param wait: whether to wait until the listener takes mail.
    @param names: texts for the C{<NAME>} in the configuration.
    @param options: of twistd itself.
    @param prefix: a command that runs the rest of its line, somewhere else than here.
    """
    directory = Path(test.mktemp()).absolute()
    directory.mkdir(parents=True)
    state = directory / "var"
    port = free_port()
    text = base.format(state=state, port=port) + fill_in(config, names or {})
    config_path = directory / "kumo.ini"
    config_path.write_text(text, encoding="utf-8")
    kumo = Kumo(test, config_path, state, port, options, prefix)
    if wait:
        await kumo.wait_until_ready()
    return kumo


def fill_in(text: str, names: Mapping[str, object]) -> str:
    """Replace each C{<NAME>} of a text; one that has no value is an error of the test."""
    return re.sub(r"<([a-z_0-9]+)>", lambda match: str(names[match.group(1)]), text)


async def start_plugin(test: TestCase, name: str, arguments: Sequence[str], port: int) -> Child:
    """Start another of our twistd plugins and wait until it listens on the port."""
    child = Child(test, name, twistd(name, *arguments))
    await child.wait_for_listening(port)
    return child
