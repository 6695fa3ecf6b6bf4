"""The numbers of several processes as one page."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kumotwist.service.summing import add_up, only_counters

ONE = """\
# HELP sent messages that were sent
# TYPE sent counter
sent{source="a b"} 2
sent{source="c"} 1
# HELP waiting messages that wait
# TYPE waiting gauge
waiting 5
# HELP source_suspended whether
# TYPE source_suspended gauge
source_suspended{source="c"} 1
"""
OTHER = ONE.replace('sent{source="c"} 1', 'sent{source="d"} 7').replace("waiting 5", "waiting 6")


class SummingTests(SynchronousTestCase):
    """Pages in Prometheus' text format."""

    def test_one(self) -> None:
        """One page is its own sum."""
        self.assertEqual(add_up([ONE]), ONE)

    def test_two(self) -> None:
        """The same names are added, others stand beside them; a yes stays a yes."""
        added = add_up([ONE, OTHER, ""])
        for line in ('sent{source="a b"} 4', 'sent{source="c"} 1', 'sent{source="d"} 7',
                     "waiting 11", 'source_suspended{source="c"} 1'):  # fmt: skip
            self.assertIn(f"\n{line}\n", added)
        self.assertEqual(added.count("# TYPE"), 3)
        self.assertLess(added.index('source="d"'), added.index("# HELP waiting"))

    def test_counters(self) -> None:
        """Of a process that has ended, what it counted stays and what it had does not."""
        kept = only_counters(ONE)
        self.assertIn('sent{source="a b"} 2', kept)
        self.assertNotIn("waiting", kept)
        self.assertNotIn("suspended", kept)
        self.assertIn('sent{source="a b"} 4', add_up([ONE, kept]))
