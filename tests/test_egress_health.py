"""Holding a source whose proxy fails."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.egress.health import (
    AFTER_IDLE_TRY,
    FIRST_HOLD,
    LONGEST_HOLD,
    SUSPICIONS,
    SourceHealth,
)
from kumotwist.egress.suspension import Suspension


class SourceHealthCase(SynchronousTestCase):
    """The health of a source over time."""

    def setUp(self) -> None:
        """A clock and a source that nothing is known of."""
        self.clock = Clock()
        self.health = SourceHealth(self.clock.seconds)


class DefaultHoldTests(SourceHealthCase):
    """What happens where no suspension is configured."""

    def test_healthy(self) -> None:
        """A source that never failed is usable."""
        self.assertTrue(self.health.usable("ip-1"))
        self.assertTrue(self.health.may_try("ip-1"))
        self.assertEqual(self.health.held_for("ip-1"), 0.0)

    def test_held_then_tried(self) -> None:
        """After a failure the source is held, then to be tried until something succeeds."""
        self.health.failed("ip-1", "refused")
        self.assertFalse(self.health.usable("ip-1"))
        self.assertFalse(self.health.may_try("ip-1"))
        self.assertEqual(self.health.reason("ip-1"), "refused")
        self.assertTrue(self.health.usable("ip-2"))
        self.clock.advance(FIRST_HOLD)
        self.assertFalse(self.health.usable("ip-1"))
        self.assertTrue(self.health.may_try("ip-1"))
        self.assertTrue(self.health.succeeded("ip-1"))
        self.assertTrue(self.health.usable("ip-1"))

    def test_one_try_at_a_time(self) -> None:
        """While a try is under way nobody else may use the source."""
        self.health.failed("ip-1", "refused")
        self.clock.advance(FIRST_HOLD)
        self.health.begin_try("ip-1", "site")
        self.assertFalse(self.health.may_try("ip-1"))
        self.assertTrue(self.health.is_tried("ip-1", "site"))
        self.assertFalse(self.health.is_tried("ip-1", "another"))
        self.health.end_try("ip-1", "another")
        self.assertFalse(self.health.may_try("ip-1"))

    def test_a_try_that_taught_nothing(self) -> None:
        """A try whose destination had no address is made again a little later."""
        self.health.failed("ip-1", "refused")
        self.clock.advance(FIRST_HOLD)
        self.health.begin_try("ip-1", "site")
        self.health.end_try("ip-1", "site")
        self.assertFalse(self.health.may_try("ip-1"))
        self.clock.advance(AFTER_IDLE_TRY)
        self.assertTrue(self.health.may_try("ip-1"))

    def test_holds_double(self) -> None:
        """Each failed try doubles the hold, up to a bound."""
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


class SuspicionTests(SourceHealthCase):
    """A proxy that cannot explain itself."""

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

    def test_silence_of_a_try(self) -> None:
        """What is held has to show that it works: silence is not enough for that."""
        self.health.failed("ip-1", "down")
        self.clock.advance(FIRST_HOLD)
        self.assertEqual(self.health.suspected("ip-1", "site", "silence"), 2 * FIRST_HOLD)

    def test_suspicion_uses_the_suspension(self) -> None:
        """What suspicions add up to is a failure like another."""
        for number in range(SUSPICIONS):
            held = self.health.suspected("ip-1", f"s{number}", "silence", Suspension(600.0))
        self.assertEqual(held, 600.0)


class SuspensionTests(SourceHealthCase):
    """C{suspend_when_proxy_unhealthy} and C{suspend_when_unplumbed}."""

    def test_at_once(self) -> None:
        """Without a trigger the first failure suspends, for the duration."""
        self.assertEqual(self.health.failed("ip-1", "down", Suspension(600.0)), 600.0)
        self.assertFalse(self.health.usable("ip-1"))

    def test_trigger(self) -> None:
        """Failures below the trigger are tolerated; the one that reaches it suspends."""
        rule = Suspension(600.0, 3, 300.0)
        held = [self.health.failed("ip-1", "down", rule) for _ in range(3)]
        self.assertEqual(held, [0.0, 0.0, 600.0])

    def test_failures_are_forgotten(self) -> None:
        """Only failures within the period count."""
        rule = Suspension(600.0, 3, 300.0)
        for _ in range(10):
            self.assertEqual(self.health.failed("ip-1", "down", rule), 0.0)
            self.clock.advance(151)

    def test_success_resets_the_trigger(self) -> None:
        """A success in between begins the count anew."""
        rule = Suspension(600.0, 2, 300.0)
        for _ in range(5):
            self.assertEqual(self.health.failed("ip-1", "down", rule), 0.0)
            self.health.succeeded("ip-1")

    def test_pause_grows(self) -> None:
        """A failure that comes again and again without reaching the trigger comes less often."""
        rule = Suspension(600.0, 1000, 86400.0)
        pauses = []
        for _ in range(9):
            self.health.failed("ip-1", "down", rule)
            self.health.failed("ip-1", "down", rule)
            pauses.append(self.health.pause("ip-1"))
            self.clock.advance(pauses[-1])
        self.assertEqual(pauses[:3], [FIRST_HOLD, 2 * FIRST_HOLD, 4 * FIRST_HOLD])
        self.assertEqual(pauses[-1], LONGEST_HOLD)

    def test_probes(self) -> None:
        """While it is suspended a try is made every twentieth of the duration."""
        rule = Suspension(600.0, 3, 300.0)
        for _ in range(3):
            self.health.failed("ip-1", "down", rule)
        tries = 0
        while self.health.held_for("ip-1") > 0:
            if self.health.may_try("ip-1"):
                tries += 1
                self.health.begin_try("ip-1", "site")
                self.health.failed("ip-1", "still down", rule)
                self.health.end_try("ip-1", "site")
            self.clock.advance(1)
        self.assertEqual(tries, 600 / 30 - 1)

    def test_probe_ends_the_suspension(self) -> None:
        """A try that succeeds ends it early."""
        self.health.failed("ip-1", "down", Suspension(600.0))
        self.clock.advance(30)
        self.assertTrue(self.health.may_try("ip-1"))
        self.health.begin_try("ip-1", "site")
        self.assertTrue(self.health.succeeded("ip-1"))
        self.assertTrue(self.health.usable("ip-1"))

    def test_short_suspensions_are_not_probed_all_the_time(self) -> None:
        """Two tries are at least five seconds apart."""
        self.assertEqual(Suspension(20.0).probe_interval, 5.0)
        self.health.failed("ip-1", "down", Suspension(3.0))
        self.clock.advance(2)
        self.assertFalse(self.health.may_try("ip-1"))
        self.clock.advance(1)
        self.assertTrue(self.health.may_try("ip-1"))

    def test_failed_try_after_the_end(self) -> None:
        """After the suspension one failure is enough to suspend again, whatever the trigger."""
        rule = Suspension(600.0, 3, 300.0)
        for _ in range(3):
            self.health.failed("ip-1", "down", rule)
        self.clock.advance(600)
        self.assertEqual(self.health.failed("ip-1", "down", rule), 600.0)
