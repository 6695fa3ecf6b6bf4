"""When a message is tried again, and when it is given up."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.retry import LONGEST_DELAY, expiry, retry_delay
from kumotwist.queue.settings import QueueSettings


def delays(queue: QueueSettings, attempts: int, chance: float = 0.5) -> list[float]:
    """The delays after the first so many attempts."""
    return [retry_delay(queue, number, lambda: chance) for number in range(1, attempts + 1)]


class DelayTests(SynchronousTestCase):
    """KumoMTA's schedule."""

    def test_doubles(self) -> None:
        """Twenty minutes, then twice as long after each attempt."""
        self.assertEqual(delays(QueueSettings(), 4), [1200, 2400, 4800, 9600])

    def test_capped(self) -> None:
        """C{max_retry_interval} is the longest delay."""
        queue = QueueSettings(retry_interval=60.0, max_retry_interval=200.0)
        self.assertEqual(delays(queue, 5), [60, 120, 200, 200, 200])

    def test_jitter(self) -> None:
        """Delays differ by half a minute either way at most, and by less where they are short."""
        long, short = QueueSettings(), QueueSettings(retry_interval=100.0)
        self.assertEqual((delays(long, 1, 0.0), delays(long, 1, 1.0)), ([1170], [1230]))
        self.assertEqual((delays(short, 1, 0.0), delays(short, 1, 1.0)), ([97.5], [102.5]))

    def test_nothing_was_charged(self) -> None:
        """A message without an attempt waits as after the first one."""
        self.assertEqual(retry_delay(QueueSettings(), 0, lambda: 0.5), 1200)

    def test_without_end(self) -> None:
        """However many attempts there were, a delay stays one that a clock takes."""
        self.assertEqual(retry_delay(QueueSettings(), 10**9, lambda: 0.5), LONGEST_DELAY)

    @settings(max_examples=100)
    @given(
        st.floats(1, 1e9),
        st.none() | st.floats(1, 1e9),
        st.integers(-1, 200),
        st.floats(0, 1),
    )
    def test_bounds(
        self, interval: float, longest: float | None, attempts: int, chance: float
    ) -> None:
        """No setting makes a delay negative, or much longer than the longest."""
        queue = QueueSettings(retry_interval=interval, max_retry_interval=longest)
        delay = retry_delay(queue, attempts, lambda: chance)
        self.assertGreaterEqual(delay, 0)
        self.assertLessEqual(delay, min(LONGEST_DELAY, longest or LONGEST_DELAY) + 30)


class ExpiryTests(SynchronousTestCase):
    """The end of all attempts."""

    def test_max_age(self) -> None:
        """A message is given up C{max_age} after it was received."""
        message = QueuedMessage("0" * 32, "", "x@b.example", "b.example", 1, 1000.0, 1000.0)
        self.assertEqual(expiry(QueueSettings(max_age=3600.0), message), 4600.0)
