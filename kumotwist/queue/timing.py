"""When a sender wants a message to be delivered: not before, not after, only at certain hours.

KumoMTA's C{set_scheduling}, with its fields: C{first_attempt} and C{expires} are moments as RFC
3339 writes them; C{dow}, C{tz}, C{start} and C{end}, all four or none, are the days and the hours
in which attempts are made. They come in a header field (C{scheduling_header}), as a JSON object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import attrs

__all__ = ["SchedulingError", "Timing"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = ("dow", "tz", "start", "end")
_FIELDS = frozenset({"first_attempt", "expires", *_HOURS})
#: Octets that the header field may have.
MAX_LENGTH = 2000


class SchedulingError(ValueError):
    """What was asked for cannot be understood; the text says why."""


@attrs.define(frozen=True)
class Hours:
    """The hours of the week in which attempts are made.

    @ivar days: 0 for Monday to 6.
    @ivar zone: whose clocks count.
    @ivar start: the first moment of such a day.
    @ivar end: the first moment that is too late; before C{start} it is one of the next day.
    """

    days: frozenset[int]
    zone: ZoneInfo
    start: time
    end: time

    def next(self, moment: float) -> float:
        """The first moment, not before the given one, at which an attempt may be made."""
        local = datetime.fromtimestamp(moment, self.zone)
        # From yesterday, whose hours may reach into today, to the same day of next week.
        for ahead in range(-1, 9):
            day = local.date() + timedelta(days=ahead)
            if day.weekday() not in self.days:
                continue
            last = day if self.start < self.end else day + timedelta(days=1)
            begin = datetime.combine(day, self.start, self.zone).timestamp()
            end = datetime.combine(last, self.end, self.zone).timestamp()
            if moment < end and begin < end:
                return max(moment, begin)
        return moment  # hours that a change of clocks leaves out; better late than never


@attrs.define(frozen=True)
class Timing:
    """What a sender wants; see the module.

    @ivar first_attempt: no attempt is made before; seconds since the epoch, or L{None}.
    @ivar expires: the message is given up then, whatever C{max_age} says.
    @ivar hours: L{None} for any time.
    """

    first_attempt: float | None = None
    expires: float | None = None
    hours: Hours | None = None

    @classmethod
    def parse(cls, text: str) -> dict[str, str]:
        """Read and check the JSON object.

        @return: its fields, for the message's C{meta}.
        @raise SchedulingError: if it is not one, has a field that is unknown or wrong, or leaves no
            time for an attempt.
        """
        if len(text) > MAX_LENGTH:
            raise SchedulingError("it is too long")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            raise SchedulingError("it is not JSON") from None
        if not isinstance(fields, dict) or not all(isinstance(v, str) for v in fields.values()):
            raise SchedulingError("it is not an object whose values are texts")
        timing = cls.of(fields)
        begin, end = timing.first_attempt, timing.expires
        if begin is not None and end is not None and end <= begin:
            raise SchedulingError("expires is not after first_attempt: it would never be tried")
        return fields

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Timing:
        """From fields; equal ones give the same object.

        @raise SchedulingError: see L{parse}.
        """
        return _timing(tuple(sorted(fields.items())))

    def next(self, moment: float) -> float:
        """The first moment, not before the given one, at which an attempt may be made."""
        if self.first_attempt is not None:
            moment = max(moment, self.first_attempt)
        return moment if self.hours is None else self.hours.next(moment)


@lru_cache(maxsize=1024)
def _timing(items: tuple[tuple[str, str], ...]) -> Timing:
    fields = dict(items)
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        raise SchedulingError(f"{unknown[0]!r} is none of {', '.join(sorted(_FIELDS))}")
    given = [name for name in _HOURS if name in fields]
    if given and len(given) < len(_HOURS):
        missing = next(name for name in _HOURS if name not in fields)
        raise SchedulingError(f"{missing} is missing (dow, tz, start and end belong together)")
    return Timing(
        first_attempt=_moment(fields, "first_attempt"),
        expires=_moment(fields, "expires"),
        hours=_hours(fields) if given else None,
    )


def _moment(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise SchedulingError(
            f"{name}: {text!r} is not a moment (such as 2027-03-01T17:00:00-08:00)"
        ) from None


def _hours(fields: Mapping[str, str]) -> Hours:
    days = set()
    for word in fields["dow"].split(","):
        if word.strip().lower()[:3] not in _DAYS or not re.fullmatch(r"\s*\w{3,9}\s*", word):
            raise SchedulingError(f"dow: {word!r} is not a day (Mon, Tue, Wed, Thu, Fri, Sat, Sun)")
        days.add(_DAYS.index(word.strip().lower()[:3]))
    try:
        zone = ZoneInfo(fields["tz"])
    except (ValueError, OSError, KeyError):
        raise SchedulingError(f"tz: {fields['tz']!r} is not a known time zone") from None
    start, end = _clock_time(fields, "start"), _clock_time(fields, "end")
    if start == end:
        raise SchedulingError("start and end are the same")
    return Hours(frozenset(days), zone, start, end)


def _clock_time(fields: Mapping[str, str], name: str) -> time:
    match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", fields[name])
    if match is None:
        raise SchedulingError(f"{name}: {fields[name]!r} is not a time of the day (HH:MM:SS)")
    hour, minute, second = (int(part or 0) for part in match.groups())
    return time(hour, minute, second)
