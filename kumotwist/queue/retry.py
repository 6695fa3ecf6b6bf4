"""When a message is tried again, and when it is given up (KumoMTA's schedule)."""

from __future__ import annotations

from collections.abc import Callable

from kumotwist.queue.settings import QueueSettings

__all__ = ["expiry", "retry_delay"]

#: No delay is longer than this, in seconds, whatever the number of attempts.
LONGEST_DELAY = 30 * 86400.0


def retry_delay(settings: QueueSettings, attempts: int, random: Callable[[], float]) -> float:
    """Seconds until the next attempt.

    C{retry_interval} after the first attempt, doubling with each one, no longer than
    C{max_retry_interval}; jittered so that messages that failed together do not come back
    together: by up to half of the smaller of C{retry_interval}/20 and a minute, either way.

    @param attempts: attempts made so far; at least 1.
    @param random: gives a number from 0 to 1.
    """
    # Beyond 2**40 the doubling could only overflow.
    delay = settings.retry_interval * 2.0 ** min(max(attempts - 1, 0), 40)
    if settings.max_retry_interval is not None:
        delay = min(delay, settings.max_retry_interval)
    jitter = min(settings.retry_interval / 20, 60.0)
    return max(0.0, min(delay, LONGEST_DELAY) + (random() - 0.5) * jitter)


def expiry(settings: QueueSettings, created: float) -> float:
    """The moment after which no attempt is made any more; seconds since the epoch."""
    return created + settings.max_age
