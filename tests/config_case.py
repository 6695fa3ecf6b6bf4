"""Writing configuration files for tests and reading them."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.config import ConfigErrors, Configuration, load

__all__ = ["ConfigCase"]


class ConfigCase(SynchronousTestCase):
    """A test case with a directory for its files."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()

    def write(self, text: str, name: str = "kumo.ini") -> str:
        """Write a file; return its path."""
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return os.fspath(path)

    def load(self, text: str) -> Configuration:
        """Read a text that is right."""
        return load(self.write(text))

    def problems(self, text: str) -> list[str]:
        """Read a text that is wrong; return the problems, the path cut off."""
        path = self.write(text)
        errors = self.assertRaises(ConfigErrors, load, path)
        directory = os.fspath(self.directory)
        return [line.replace(directory + "/", "") for line in str(errors).splitlines()]

    def one(self, text: str) -> str:
        """The only problem of a text, after the name of the file."""
        (problem,) = self.problems(text)
        return problem.removeprefix("kumo.ini:")
