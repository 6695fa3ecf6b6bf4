"""What a message may cost on its way out, in calls; C{docs/performance.md} says why."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.calls_out import Load, WayOut
from benchmarks.counting import cost

#: Calls for a message, with 5% to spare. Whoever needs more writes down what for.
BUDGETS: dict[Load, float] = {"idle sessions": 215, "full queue": 216, "a connection each": 710}


class BudgetTests(SynchronousTestCase):
    """Messages of 5 KB, from the commit to their removal, over connections that stand or are made
    for each."""

    def test_calls(self) -> None:
        """No more calls than were needed when they were last counted, and a few."""
        for load, budget in BUDGETS.items():
            calls = cost(WayOut(Path(self.mktemp()), load)).calls
            self.assertLessEqual(calls, budget, load)
