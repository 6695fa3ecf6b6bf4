"""What a short session costs KumoProxy, in calls of Python and C functions.

As L{tests.test_speed_calls_in}: whoever adds something to the way of every session saves as much
elsewhere, or raises the budget and says why (docs/kumoproxy.md, C{make bench-calls}).
"""

from __future__ import annotations

import select

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.calls_proxy import REQUESTS, WayThroughProxy
from benchmarks.counting import cost

#: Calls for each session as measured with Python 3.11, and 5% more, in the order of L{REQUESTS}.
BUDGETS = (160, 195)


class BudgetTests(SynchronousTestCase):
    """The calls of a session."""

    if not hasattr(select, "epoll"):
        skip = "this platform has no epoll"

    def test_budget(self) -> None:
        """Whatever a client asks for, it takes no more calls than it may."""
        for name, budget in zip(REQUESTS, BUDGETS, strict=True):
            calls = cost(WayThroughProxy(name)).calls
            self.assertLessEqual(calls, budget, f"{name}: {calls:.1f} calls")
            # A budget that is far too large keeps nothing.
            self.assertGreater(calls, budget * 0.8, f"{name}: {calls:.1f} calls")
