"""When a message is tried again, and when it is given up (RFC 5321, 4.5.4.1)."""

from __future__ import annotations

from collections.abc import Callable

from kumotwist.message.queued import QueuedMessage
from kumotwist.queue.settings import QueueSettings
from kumotwist.queue.timing import SchedulingError, Timing

__all__ = ["expiry", "first_due", "is_early", "is_too_old", "retry_delay", "retry_due", "timing_of"]

#: No delay is longer than this, in seconds, whatever the number of attempts.
LONGEST_DELAY = 30 * 86400.0
#: Seconds by which the last attempt, which is due when C{max_age} is over, may be late.
LAST_CALL = 300.0


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


def timing_of(message: QueuedMessage) -> Timing | None:
    """What the sender wants; L{None} if that is nothing, or cannot be understood any more."""
    fields = message.meta.get("timing")
    if not fields:
        return None
    try:
        return Timing.of(fields)
    except SchedulingError:  # such as a time zone that is not there any more
        return None


def expiry(settings: QueueSettings, message: QueuedMessage) -> float:
    """The moment after which no attempt is made any more; seconds since the epoch."""
    timing = timing_of(message) if "timing" in message.meta else None
    if timing is not None and timing.expires is not None:
        return timing.expires
    return message.created + settings.max_age


def is_too_old(settings: QueueSettings, message: QueuedMessage, now: float) -> bool:
    """Whether a message is past its time."""
    if now <= message.created + settings.max_age and "timing" not in message.meta:
        return False  # as most are not
    expires = expiry(settings, message)
    # The last attempt is due when the time is over; a timer that is late does not cancel it.
    # What has a time of its own ends at that time.
    grace = LAST_CALL if message.due == expires and "timing" not in message.meta else 0.0
    return now > expires + grace


def is_early(settings: QueueSettings, message: QueuedMessage, now: float) -> bool:
    """Whether the sender does not want an attempt now; the message's due time is moved then."""
    timing = timing_of(message)
    if timing is None or timing.next(now) <= now:
        return False
    message.due = min(timing.next(now), expiry(settings, message) + 0.001)
    return True


def first_due(message: QueuedMessage) -> float:
    """When the first attempt may be made."""
    timing = timing_of(message)
    return message.created if timing is None else timing.next(message.created)


def retry_due(
    settings: QueueSettings, message: QueuedMessage, now: float, random: Callable[[], float]
) -> float:
    """When the next attempt is made, C{message.attempts} having been counted up.

    The last attempt is made when the time is over, not one interval before; a message that may
    only be sent at certain hours has none then.
    """
    expires = expiry(settings, message)
    due = now + retry_delay(settings, message.attempts, random)
    timing = timing_of(message)
    return min(due if timing is None else timing.next(due), expires)
