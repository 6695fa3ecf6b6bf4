"""What a message costs on its way in, in calls of Python and C functions.

What work on speed gains is soon spent again, a few calls at a time. This fails when it is: whoever
adds something to the way of every message either saves as much elsewhere, or raises the budget and
says why (docs/performance.md, C{make bench-calls}).
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.calls_in import DIALOGUES, WayIn
from benchmarks.counting import cost

#: Calls for each message as measured with Python 3.11, and 5% more, in the order of L{DIALOGUES}.
#: Versions 3.12 and 3.13 make a few less.
BUDGETS = (311, 476, 290, 457)


class BudgetTests(SynchronousTestCase):
    """The calls of the way in."""

    def test_budget(self) -> None:
        """However a message is said, it takes no more calls than it may."""
        for dialogue, budget in zip(DIALOGUES, BUDGETS, strict=True):
            way = WayIn(Path(self.mktemp()), dialogue)
            calls = cost(way).calls
            self.assertLessEqual(calls, budget, f"{way.name}: {calls:.1f} calls")
            # A budget that is far too large keeps nothing.
            self.assertGreater(calls, budget * 0.8, f"{way.name}: {calls:.1f} calls")
