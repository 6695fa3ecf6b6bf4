"""Counts, durations, sizes, rates and ports, spelled as KumoMTA spells them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple, TypeVar

from kumotwist.settings.kind import SettingType

_T = TypeVar("_T")

__all__ = [
    "DURATION",
    "LIMIT",
    "NAMED_LIMITS",
    "NAMED_RATES",
    "RATE",
    "SIZE",
    "Limit",
    "Rate",
    "duration",
    "integer",
    "parse_count",
    "parse_duration",
    "parse_rate",
    "parse_size",
    "render_duration",
    "render_rate",
    "render_size",
]


def parse_count(text: str) -> int:
    """Read a whole number as KumoMTA spells it: C{1000}, C{1,000} or C{1_000}."""
    if not re.fullmatch(r"\d+([,_]\d+)*", text.strip()):
        raise ValueError(f"{text!r} is not a whole number (such as 1000 or 1,000)")
    return int(text.replace(",", "").replace("_", ""))


def integer(minimum: int = 0, maximum: int | None = None) -> SettingType[int]:
    """A whole number within bounds, both included."""

    def parse(text: str) -> int:
        value = parse_count(text)
        if value < minimum or (maximum is not None and value > maximum):
            bounds = f"at least {minimum}" if maximum is None else f"{minimum} to {maximum}"
            raise ValueError(f"{value} is out of range ({bounds})")
        return value

    return SettingType("number", parse)


_UNITS = {
    "ms": 0.001,
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hrs": 3600, "hour": 3600, "hours": 3600,
    "d": 86400, "day": 86400, "days": 86400,
    "w": 604800, "week": 604800, "weeks": 604800,
}  # fmt: skip


_LONGEST = 36500 * 86400.0


def parse_duration(text: str) -> float:
    """Read C{30s}, C{20 minutes}, C{1h30m} or a bare number of seconds."""
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return _bounded_duration(float(compact), text)
    if not re.fullmatch(r"(\d+(\.\d+)?\s*[a-z]+\s*)+", compact):
        raise ValueError(f"{text!r} is not a duration (such as 30s, 20m, 1h, 7d)")
    total = 0.0
    for amount, unit in re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", compact):
        if unit not in _UNITS:
            raise ValueError(f"unknown unit {unit!r} in {text!r} (ms, s, m, h, d or w)")
        total += float(amount) * _UNITS[unit]
    return _bounded_duration(total, text)


def _bounded_duration(seconds: float, text: str) -> float:
    """Refuse what no timer can be set to."""
    if seconds > _LONGEST:
        raise ValueError(f"{text[:40]!r} is too long (at most 36500d)")
    return seconds


def render_duration(value: float) -> str:
    """Write a duration in the largest unit that divides it."""
    if value != int(value):
        return f"{Decimal(repr(value)):f}s"
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if value and value % seconds == 0:
            return f"{int(value // seconds)}{unit}"
    return f"{int(value)}s"


def duration(minimum: float) -> SettingType[float]:
    """A duration of at least so many seconds."""

    def parse(text: str) -> float:
        value = parse_duration(text)
        if value < minimum:
            raise ValueError(f"{text!r} is too short (at least {render_duration(minimum)})")
        return value

    return SettingType("duration", parse, render_duration)


DURATION: SettingType[float] = SettingType("duration", parse_duration, render_duration)

_SIZES = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip


def parse_size(text: str) -> int:
    """Read C{10MB}, C{64KiB} or a bare number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match is None or match.group(2) not in _SIZES:
        raise ValueError(f"{text!r} is not a size (such as 10MB, 64KiB or 1048576)")
    return int(float(match.group(1)) * _SIZES[match.group(2)])


def render_size(value: int) -> str:
    """Write a size in the largest binary unit that divides it."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


SIZE: SettingType[int] = SettingType("size", parse_size, render_size)


class Rate(NamedTuple):
    """So many events in a period (KumoMTA's throttle specification).

    @ivar events: how many are allowed in the period; at least 1.
    @ivar period: seconds.
    @ivar burst: how many may come at once; KumoMTA's default is C{events}.
    @ivar local: never shared with other nodes.
    """

    events: int
    period: float
    burst: int
    local: bool = False


def parse_rate(text: str) -> Rate:
    """Read C{100/s}, C{1,000/hour}, C{local:10/5m,max_burst=3}."""
    spec = text.strip()
    local = spec.startswith("local:")
    match = re.fullmatch(
        r"(\d+(?:[,_]\d+)*)\s*/\s*(\d*(?:\.\d+)?)\s*([a-zA-Z]+)(?:\s*,\s*max_burst\s*=\s*(\d+))?",
        spec.removeprefix("local:"),
    )
    unit = match.group(3).lower() if match else ""
    if match is None or unit not in _UNITS:
        raise ValueError(f"{text!r} is not a rate (such as 100/s, 1,000/hour or 10/5m)")
    count = parse_count(match.group(1))
    if count < 1:
        raise ValueError(f"{text!r}: the number of events must be at least 1")
    period = float(match.group(2) or 1) * _UNITS[unit]
    if not 0 < period <= _LONGEST:
        raise ValueError(f"{text!r}: the period must be longer than nothing, at most 36500d")
    if match.group(4) is not None and int(match.group(4)) < 1:
        raise ValueError(f"{text!r}: max_burst must be at least 1")
    return Rate(count, period, int(match.group(4)) if match.group(4) else count, local)


def render_rate(value: Rate) -> str:
    """Write a rate as it could be read again."""
    burst = "" if value.burst == value.events else f",max_burst={value.burst}"
    local = "local:" if value.local else ""
    return f"{local}{value.events}/{render_duration(value.period)}{burst}"


RATE: SettingType[Rate] = SettingType("rate", parse_rate, render_rate)


class Limit(int):
    """How many there may be at the same time (KumoMTA's C{connection_limit}).

    @ivar local: never shared with other nodes; a plain number is not local.
    """

    local: bool = False

    @classmethod
    def of(cls, number: int, *, local: bool = False) -> Limit:
        """Make one."""
        limit = cls(number)
        limit.local = local
        return limit


def parse_limit(text: str) -> Limit:
    """Read C{32}, C{1,000} or C{local:20}."""
    spec = text.strip()
    number = parse_count(spec.removeprefix("local:"))
    if number < 1:
        raise ValueError(f"{text!r} is out of range (at least 1)")
    return Limit.of(number, local=spec.startswith("local:"))


def render_limit(value: int) -> str:
    """Write a limit as it could be read again."""
    return f"local:{int(value)}" if isinstance(value, Limit) and value.local else str(int(value))


LIMIT: SettingType[int] = SettingType("limit", parse_limit, render_limit)


def _named(kind: SettingType[_T]) -> SettingType[tuple[tuple[str, _T], ...]]:
    """Values with names: C{NAME = VALUE}, separated by line ends or commas."""

    def parse(text: str) -> tuple[tuple[str, _T], ...]:
        found: dict[str, _T] = {}
        # The commas within a rate stay: 1,000/hour, and 10/5m,max_burst=3.
        for item in re.split(r"\n|,(?=\s*(?!max_burst\b)[\w.@-]+\s*=)", text):
            if not item.strip():
                continue
            name, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not re.fullmatch(r"[\w.@-]+", name):
                raise ValueError(f"{item.strip()!r} is not NAME = {kind.name.upper()}")
            if name in found:
                raise ValueError(f"{name} is given twice")
            found[name] = kind.parse(value)
        return tuple(found.items())

    def render(value: tuple[tuple[str, _T], ...]) -> str:
        return ", ".join(f"{name} = {kind.render(each)}" for name, each in value)

    return SettingType(f"list of NAME = {kind.name}", parse, render)


NAMED_RATES = _named(RATE)
NAMED_LIMITS = _named(LIMIT)
