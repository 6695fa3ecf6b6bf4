"""What is wrong with a configuration: one error per problem, all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import attrs

from kumotwist.errors import KumotwistError

__all__ = ["ConfigError", "ConfigErrors", "did_you_mean", "nearest"]

_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@attrs.define(frozen=True, auto_exc=True)
class ConfigError(KumotwistError):
    """One problem.

    @ivar file: the file, as it was named.
    @ivar line: the line, counted from 1.
    @ivar section: what stands between the brackets; empty if it is about the file.
    @ivar key: the key; empty if it is about the section.
    @ivar problem: what is wrong (what would be right).
    """

    file: str
    line: int
    section: str
    key: str
    problem: str

    def __str__(self) -> str:
        place = f"[{self.section}] {self.key}".rstrip() + ": " if self.section else ""
        text = f"{self.file}:{self.line}: {place}{self.problem}"
        return _UNSHOWABLE.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


class ConfigErrors(KumotwistError):
    """A configuration that is refused, with everything that is wrong with it.

    @ivar errors: the problems, sorted by file and line.
    """

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        """Sort the problems."""
        self.errors = tuple(sorted(errors, key=lambda error: (error.file, error.line)))
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    by_folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), by_folded, n=1)
    return by_folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """C{" (did you mean X?)"} if a known word is near, else nothing."""
    near = nearest(word, known)
    return f" (did you mean {near}?)" if near is not None else ""
