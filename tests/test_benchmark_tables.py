"""The tables of the benchmarks: turns, ratios, what is missing."""

from __future__ import annotations

import io
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.relay_tables import Figures, Group, take_turns


class TableTests(SynchronousTestCase):
    """Rows that are compared."""

    def setUp(self) -> None:
        """Rounds are told to nobody."""
        self.told = io.StringIO()
        self.patch(sys, "stderr", self.told)
        self.group = Group("relay", "ours")

    def test_paired_ratios(self) -> None:
        """A ratio is the median of those of the rounds: a machine that is slow for a round is slow
        for both."""
        for ours, theirs in ((1.0, 2.0), (10.0, 20.0), (1.0, 30.0)):
            self.group.add("ours", {"cpu": ours}, "")
            self.group.add("theirs", {"cpu": theirs}, "")
        self.assertEqual(self.group.ratios()["theirs"], {"cpu": 2.0})
        self.assertEqual(self.group.medians()["theirs"], {"cpu": 20.0})
        self.assertIn("cpu : ours", self.group.text())

    def test_turns(self) -> None:
        """Every second round goes backwards, and the one that warms up does not count."""
        order: list[str] = []

        def measuring(name: str) -> Figures:
            order.append(name)
            return {"rate": 1.0}

        cases = [(self.group, name, lambda name=name: measuring(name)) for name in "ab"]
        take_turns(2, cases, warm_up=True)
        self.assertEqual("".join(order), "baabba")
        self.assertEqual([len(rounds) for rounds in self.group.rounds.values()], [2, 2])

    def test_failure(self) -> None:
        """What fails is named with its reason, left out from then on, and counted."""
        tries: list[int] = []

        def failing() -> Figures:
            tries.append(1)
            raise RuntimeError("it fell over")

        cases = [(self.group, "ours", lambda: {"rate": 5.0}), (self.group, "theirs", failing)]
        take_turns(3, cases)
        self.group.miss("absent", "not installed", failed=False)
        self.assertEqual((len(tries), self.group.failures), (1, 1))
        self.assertEqual(len(self.group.rounds["ours"]), 3)
        for page in (self.group.text(), self.group.markdown()):
            self.assertIn("Not measured: theirs: RuntimeError: it fell over", page)
            self.assertIn("Not measured: absent: not installed", page)
