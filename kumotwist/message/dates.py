"""Dates as header fields have them (RFC 5322, 3.3)."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from email.utils import format_datetime

__all__ = ["date_time"]


def date_time(now: float) -> str:
    """Write a moment for a header field, in UTC with its offset: RFC 5321, 4.4 wants numbers.

    @param now: seconds since the epoch.
    """
    return _date_time(int(now))


@functools.lru_cache(maxsize=16)
def _date_time(second: int) -> str:
    # Cached: under load many messages are accepted in the same second.
    return format_datetime(datetime.fromtimestamp(second, UTC))
