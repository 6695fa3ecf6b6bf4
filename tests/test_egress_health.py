"""Holding a source whose proxy fails."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.health import FIRST_HOLD, LONGEST_HOLD, SUSPICIONS, SourceHealth


class SourceHealthTests(SynchronousTestCase):
    """The health of a source over time."""

    def setUp(self) -> None:
        """A clock and a source that nothing is known of."""
        self.clock = Clock()
        self.health = SourceHealth(self.clock.seconds)

    def test_healthy(self) -> None:
        """A source that never failed is usable."""
        self.assertTrue(self.health.usable("ip-1"))
        self.assertFalse(self.health.on_probation("ip-1"))
        self.assertEqual(self.health.held_for("ip-1"), 0.0)

    def test_held_then_probed(self) -> None:
        """After a failure the source is held, then on probation until something succeeds."""
        self.health.failed("ip-1", "refused")
        self.assertFalse(self.health.usable("ip-1"))
        self.assertEqual(self.health.reason("ip-1"), "refused")
        self.assertTrue(self.health.usable("ip-2"))
        self.clock.advance(FIRST_HOLD)
        self.assertTrue(self.health.usable("ip-1"))
        self.assertTrue(self.health.on_probation("ip-1"))
        self.assertTrue(self.health.succeeded("ip-1"))
        self.assertFalse(self.health.on_probation("ip-1"))

    def test_holds_double(self) -> None:
        """Each failed probe doubles the hold, up to a bound."""
        holds = []
        for _ in range(9):
            holds.append(self.health.failed("ip-1", "down"))
            self.clock.advance(holds[-1])
        self.assertEqual(holds[:4], [FIRST_HOLD, 2 * FIRST_HOLD, 4 * FIRST_HOLD, 8 * FIRST_HOLD])
        self.assertEqual(holds[-1], LONGEST_HOLD)

    def test_failures_while_held(self) -> None:
        """Sessions that were under way and fail too do not lengthen the hold."""
        self.health.failed("ip-1", "down")
        self.clock.advance(1)
        self.assertEqual(self.health.failed("ip-1", "down"), FIRST_HOLD - 1)

    def test_one_silent_site_is_not_enough(self) -> None:
        """A single dead destination behind HAProxy never holds the source."""
        for _ in range(SUSPICIONS * 3):
            self.assertEqual(self.health.suspected("ip-1", "dead.example", "silence"), 0.0)
        self.assertTrue(self.health.usable("ip-1"))

    def test_silence_towards_several_sites(self) -> None:
        """Silence from everywhere is the proxy's."""
        for number in range(SUSPICIONS):
            held = self.health.suspected("ip-1", f"site-{number % 2}", "silence")
        self.assertEqual(held, FIRST_HOLD)

    def test_success_clears_suspicion(self) -> None:
        """A banner from anywhere says that the proxy works."""
        for number in range(SUSPICIONS - 1):
            self.health.suspected("ip-1", f"site-{number}", "silence")
        self.assertFalse(self.health.succeeded("ip-1"))
        self.assertEqual(self.health.suspected("ip-1", "another", "silence"), 0.0)
