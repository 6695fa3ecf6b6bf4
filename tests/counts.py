"""How many tests had which outcome."""

from __future__ import annotations

import attrs
from twisted.trial import reporter

__all__ = ["Counts"]


@attrs.define(frozen=True)
class Counts:
    """How many tests had which outcome.

    @ivar passed: successes, and failures that a test announced (C{todo}).
    @ivar failed: failures, errors, and successes where a failure was announced.
    @ivar skipped: tests that did not run.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @classmethod
    def of(cls, result: reporter.TestResult) -> Counts:
        """Read them off a finished trial result."""
        return cls(
            passed=result.successes + len(result.expectedFailures),
            failed=len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses),
            skipped=len(result.skips),
        )

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    @property
    def successful(self) -> bool:
        """Whether something ran and nothing failed."""
        return self.failed == 0 and self.passed > 0
